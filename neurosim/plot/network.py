"""A circuit as a diagram: populations as boxes with their ports, an arrow per projection."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon
from matplotlib.path import Path as Line

from neurosim.circuit import Circuit
from neurosim.describe.pieces import counted
from neurosim.equations import REDUCTIONS
from neurosim.plot.diagram import LABEL, MIDDLE, ONE, SMALL, Arrow, Box, Diagram, diagram, text_width
from neurosim.plot.selection import check_type
from neurosim.plot.signs import Sign
from neurosim.plot.style import GREY, PALETTE, plain, style

#: Size of the legend's text in points.
_LEGEND = 8.0
_COLOURS = {1: PALETTE["blue"], -1: PALETTE["vermillion"], 0: GREY, None: PALETTE["purple"]}
_STYLES: dict[str, dict[str, Any]] = {
    "plastic": {"linestyle": "-", "linewidth": 2.0},
    "evolved": {"linestyle": (0, (6, 1.2, 1.2, 1.2)), "linewidth": 1.6},
    "tied": {"linestyle": (0, (4, 1.4)), "linewidth": 1.2},
    "fixed": {"linestyle": "-", "linewidth": 0.9},
    "one to one": {"linestyle": (0, (1, 1)), "linewidth": 1.3},
}
_MEANING = {
    "plastic": "plastic",
    "evolved": "evolved (fixed in a life)",
    "tied": "tied to other weights",
    "fixed": "fixed",
    "one to one": "one to one, fixed",
}


def network_figure(circuit: Circuit, title: str | None = None) -> Figure:
    """Draw the populations as boxes with the ports that they receive at, and every projection as an arrow to its port.

    Levels go from left (input) to right. Biases come from a dot at their port. Line styles say whether weights are plastic, tied, evolved or
    fixed. A projection that lowers the potential of its cell, or what the cell sends, where its source is positive is orange and ends in a bar:
    its port subtracts, at once or over the states that it reaches (with the parameters' values, states as they start: a synapse that reverses
    below the potential), or its weights are negative, of plastic ones at the start. Weights drawn with both signs count as positive, and those that are minus others
    (`Tied`, `Like`) as the opposite of these. Where the equations do not say whether it adds or subtracts (another port decides, or it is one
    thing in some cells and the other in others, or changes as the cell settles), it is purple, ends in a diamond, and the legend calls it unknown.
    Below the ports stand the pools (Σ) by which cells of one population act on one another.

    Parameters
    ----------
    circuit
        A description; nothing is run.
    title
        By default the circuit's name.

    Raises
    ------
    NeurosimError
        No `Circuit`.
    """
    check_type(circuit, Circuit, "a Circuit, such as registry.model('ghost_units').circuit()")
    plan = diagram(circuit)
    kinds = [kind for kind in _STYLES if any(a.kind == kind for a in plan.arrows.values())]
    handles = _legend(plan, kinds)
    least = 5.6
    width = max(plan.width, least)
    widest = max([text_width(str(h.get_label()), _LEGEND) for h in handles], default=0.0)
    per_row = max(1, int((width - 0.2) // max(1.75, widest + 0.6)))
    bottom, top = 0.2 * -(-len(handles) // per_row) + 0.12, 0.42
    with style():
        figure = Figure(figsize=(width, plan.height + bottom + top))
        populations = sum(name != ONE for name in plan.boxes)
        figure.text(
            0.5, 1 - 0.24 / (plan.height + bottom + top),
            title or f"{plain(circuit.name)}: {counted(populations, 'population')}, {counted(len(plan.arrows), 'projection')}",
            ha="center", va="center", size=11,
        )  # fmt: skip
        axes: Axes = figure.add_axes(
            (0, bottom / (plan.height + bottom + top), 1, plan.height / (plan.height + bottom + top))
        )
        shift = 0.5 * (width - plan.width)
        axes.set_xlim(-shift, plan.width + shift)
        axes.set_ylim(0, plan.height)
        axes.set_axis_off()
        for arrow in plan.arrows.values():
            _draw_arrow(axes, arrow)
        for box in plan.boxes.values():
            _draw_box(axes, box)
        figure.legend(
            handles=handles,
            loc="lower center",
            ncols=per_row,
            fontsize=_LEGEND,
            handlelength=2.6,
            columnspacing=1.2,
            borderaxespad=0.2,
        )
    return figure


def _draw_arrow(axes: Axes, arrow: Arrow) -> None:
    look, colour = _STYLES[arrow.kind], _COLOURS[arrow.effect]
    end = arrow.points[-1]
    inward = 1 if arrow.sides[1] == "left" else -1
    head = 0.018 if arrow.effect == -1 else 0.075
    path = _rounded([*arrow.points[:-1], (end[0] - inward * head, end[1])])
    # White below, so that a line that passes over another one parts it.
    axes.add_patch(PathPatch(path, facecolor="none", edgecolor="white", linewidth=look["linewidth"] + 2.0, zorder=1.9))
    axes.add_patch(
        PathPatch(path, facecolor="none", edgecolor=colour, capstyle="butt", zorder=2, gid=arrow.name, **look)
    )
    if arrow.effect is None:  # a diamond, neither arrow nor bar
        middle, half = end[0] - inward * 0.05, 0.042
        corners = [end, (middle, end[1] + half), (end[0] - inward * 0.1, end[1]), (middle, end[1] - half)]
        axes.add_patch(Polygon(corners, facecolor="white", edgecolor=colour, linewidth=1.0, zorder=2.2))
    elif arrow.effect < 0:
        x = end[0] - inward * head
        axes.plot([x, x], [end[1] - 0.05, end[1] + 0.05], color=colour, linewidth=2.2, zorder=2.2)
    else:
        back = end[0] - inward * 0.085
        corners = [end, (back, end[1] + 0.035), (back, end[1] - 0.035)]
        axes.add_patch(Polygon(corners, facecolor=colour, edgecolor="none", zorder=2.2))
    if arrow.source == ONE:
        axes.plot(*arrow.points[0], marker="o", markersize=3.2, color=colour, zorder=2.2)
    axes.annotate(
        arrow.name, end, (-inward * 7, 0.8), textcoords="offset points", ha="right" if inward > 0 else "left", va="bottom",
        fontsize=LABEL, color="#333333", zorder=4, annotation_clip=False,
    )  # fmt: skip


def _rounded(points: list[tuple[float, float]], radius: float = 0.045) -> Line:
    """A polygonal line with rounded corners."""
    kept = [points[0]]
    for point in points[1:]:
        if np.hypot(point[0] - kept[-1][0], point[1] - kept[-1][1]) > 1e-9:
            kept.append(point)
    vertices, codes = [kept[0]], [Line.MOVETO]
    for before, corner, after in zip(kept, kept[1:], kept[2:], strict=False):
        a, c, b = map(np.array, (before, corner, after))
        r = min(radius, 0.5 * float(np.linalg.norm(c - a)), 0.5 * float(np.linalg.norm(b - c)))
        near, far = c + (a - c) / np.linalg.norm(a - c) * r, c + (b - c) / np.linalg.norm(b - c) * r
        vertices += [tuple(near), corner, tuple(far)]
        codes += [Line.LINETO, Line.CURVE3, Line.CURVE3]
    vertices.append(kept[-1])
    codes.append(Line.LINETO)
    return Line(vertices, codes)


def _draw_box(axes: Axes, box: Box) -> None:
    fill = "#EDEDED" if not box.ports else "white"
    axes.add_patch(
        FancyBboxPatch(
            (box.x, box.y), box.width, box.height, boxstyle="round,pad=0,rounding_size=0.05", facecolor=fill, edgecolor="black", linewidth=1.0,
            zorder=3, gid=box.name,
        )
    )  # fmt: skip
    top = box.y + box.height
    lower = max((edges[1] for edges in box.port_y.values()), default=box.y)
    middle = 0.5 * (top + lower)
    axes.text(
        box.x + 0.5 * box.width,
        middle + 0.075,
        box.title,
        ha="center",
        va="center",
        size=MIDDLE,
        weight="bold",
        zorder=4,
    )
    axes.text(
        box.x + 0.5 * box.width, middle - 0.075, box.note, ha="center", va="center", size=SMALL, color=GREY, zorder=4
    )
    for port, (low, high) in box.port_y.items():
        axes.plot([box.x, box.x + box.width], [high, high], color="#BBBBBB", linewidth=0.6, zorder=3.5)
        axes.text(box.x + 0.5 * box.width, 0.5 * (low + high), port, ha="center", va="center", size=SMALL, zorder=4)


def _legend(plan: Diagram, kinds: list[str]) -> list[Line2D]:
    arrows = plan.arrows.values()
    looks: dict[Sign, dict[str, Any]] = {
        1: {"marker": ">", "markersize": 5, "label": "adds to the potential"},
        -1: {"marker": "|", "markersize": 8, "markeredgewidth": 2, "label": "subtracts from it"},
        0: {"marker": ">", "markersize": 5, "label": "does not move it"},
        None: {"marker": "D", "markersize": 4, "markerfacecolor": "white", "label": "unknown: may add or subtract"},
    }
    found = {a.effect for a in arrows}
    handles = [
        Line2D([0, 1], [0, 0], color=_COLOURS[k], markevery=[1], **look) for k, look in looks.items() if k in found
    ]
    if any(a.source == ONE for a in arrows):
        handles.append(Line2D([], [], color=GREY, linestyle="", marker="o", markersize=3.5, label="bias"))
    if any(port.startswith(f"{REDUCTIONS['pool'].symbol} ") for box in plan.boxes.values() for port in box.ports):
        handles.append(
            Line2D([], [], color=GREY, linestyle="", marker=r"$\Sigma$", markersize=6, label="pool of its cells")
        )
    return handles + [Line2D([], [], color=GREY, label=_MEANING[kind], **_STYLES[kind]) for kind in kinds]
