"""Weights over training: norm, distribution, and the angle between forward and feedback weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from neurosim.circuit import Circuit
from neurosim.describe.pieces import counted
from neurosim.description import Angle
from neurosim.errors import NeurosimError, unknown
from neurosim.plot.selection import check_traces, title_of
from neurosim.plot.style import DASHES, GREY, LINES, WIDTH, empty_figure, shown_unit, style
from neurosim.traces import Traces

#: Most projections whose distribution is drawn.
PANELS = 6
#: Quantiles of weights: a pale band, a darker one, the median.
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def weights_figure(
    traces: Traces,
    projections: Sequence[str] | None = None,
    pairs: Sequence[tuple[str, str]] = (),
    title: str | None = None,
) -> Figure:
    """Draw how weights change in training: their norm, their distribution, and the angle between forward and feedback weights.

    Parameters
    ----------
    traces
        With `Traces.weights`, such as those of ``RUN_DIR/recording.h5``. The axis counts epochs where the metadata say how many trials one has
        (``trials_per_epoch``), else trials.
    projections
        By default the first 6 that were recorded.
    pairs
        ``(forward, feedback)``: projections whose angle is drawn, of shapes (n_pre, n_post) and (n_post, n_pre); see `feedback_pairs`.
    title
        By default the model.

    Raises
    ------
    NeurosimError
        No weights were recorded, an unknown projection, shapes that do not fit, too many projections.
    """
    names = _recorded(traces, projections)
    if len(names) > PANELS:
        raise NeurosimError(f"Got {len(names)} projections; one figure takes at most {PANELS}. Ask for fewer.")
    for pair in pairs:
        for name in pair:
            if name not in traces.weights:
                raise unknown("recorded projection", name, traces.weights)
    x, axis = progress(traces)
    with style():
        columns = 2 if len(names) == 4 else min(3, len(names))
        rows = -(-len(names) // columns)
        figure = empty_figure(WIDTH, 3.0 + 2.1 * rows)
        left = f"{len(names)} of {len(traces.weights)} projections" if len(names) < len(traces.weights) else ""
        figure.suptitle(title_of(title, traces, [f"{counted(len(x), 'snapshot')} of one run", left], level=False))
        parts: Any = figure.subfigures(2, 1, height_ratios=[2.6, 2.1 * rows])
        upper, lower = parts
        panels: list[Axes] = list(upper.subplots(1, 2 if pairs else 1, squeeze=False)[0])
        all_norms = {n: np.array([np.linalg.norm(traces.weights[n][row]) for row in range(len(x))]) for n in names}
        units = {traces.units.get(name, "1") for name in names}
        largest = max(float(np.nanmax(norms)) for norms in all_norms.values())

        def scale(name: str) -> float:
            """To the unit of the axis; norms of several units are told by that at the start, where there is one."""
            if len(units) == 1:
                return shown_unit(next(iter(units)), largest)[0]
            return 1.0 / all_norms[name][0] if all_norms[name][0] > 0 else np.nan

        for k, name in enumerate(names):
            norms = all_norms[name] * scale(name)
            panels[0].plot(x, norms, color=LINES[k % len(LINES)], linestyle=DASHES[k % len(DASHES)], label=name)
        if len(units) > 1:
            panels[0].set_ylabel("Frobenius norm\n(of that at the start)")
        else:
            panels[0].set_ylabel(f"Frobenius norm\n({shown_unit(next(iter(units)), largest)[1]})")
        panels[0].set_ylim(bottom=0)
        if pairs:
            for k, (forward, feedback) in enumerate(pairs):
                look = {"color": LINES[k % len(LINES)], "linestyle": DASHES[k % len(DASHES)]}
                panels[1].plot(x, angles(traces, forward, feedback), label=f"{forward}, {feedback}ᵀ", **look)
            panels[1].axhline(90, color=GREY, linewidth=1.0, linestyle=":", zorder=1)
            panels[1].set_ylabel("angle between forward\nand feedback weights (°)")
            low, high = panels[1].get_ylim()
            panels[1].set_ylim(max(0.0, min(low, 0.0)), max(high, 95.0))
        for axes in panels:
            axes.set_xlabel(axis)
            axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
            axes.legend(
                loc="lower left",
                bbox_to_anchor=(0.0, 1.0),
                handlelength=2.4,
                columnspacing=1.0,
                ncols=4 if pairs else 6,
            )
        below = lower.subplots(rows, columns, squeeze=False, sharex=True)
        for axes in below.ravel()[len(names) :]:
            axes.set_visible(False)
        for k, (axes, name) in enumerate(zip(below.ravel(), names, strict=False)):
            q = np.array([np.quantile(traces.weights[name][row], QUANTILES) for row in range(len(x))])
            factor, unit = shown_unit(traces.units.get(name, "1"), float(np.nanmax(np.abs(q))))
            q *= factor
            axes.fill_between(x, q[:, 0], q[:, 4], color=LINES[0], alpha=0.2, linewidth=0, label="5 % to 95 %")
            axes.fill_between(x, q[:, 1], q[:, 3], color=LINES[0], alpha=0.4, linewidth=0, label="25 % to 75 %")
            axes.plot(x, q[:, 2], color=LINES[0], label="median")
            shape = " × ".join(map(str, traces.weights[name].shape[1:]))
            axes.set_title(f"{name} ({shape} weights)")
            if k % columns == 0:
                first = unit  # of the row
            if k % columns == 0 or unit != first:
                axes.set_ylabel(f"weight\n({unit})")
            if k + columns >= len(names):
                axes.set_xlabel(axis)
                axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
                axes.tick_params(labelbottom=True)
        handles, labels = below[0, 0].get_legend_handles_labels()
        lower.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def progress(traces: Traces) -> tuple[np.ndarray, str]:
    """When the snapshots of weights were taken, and what the axis counts."""
    trials = np.asarray(traces.weight_trials, dtype=float)
    per_epoch = traces.metadata.get("trials_per_epoch")
    return (trials / per_epoch, "epochs of training") if per_epoch else (trials, "trials")


def angles(traces: Traces, forward: str, feedback: str) -> np.ndarray:
    """(snapshots,) the angle in degrees between the weights of one projection and those of another, transposed."""
    from neurosim.analysis.weights import angle  # its package loads torch

    a, b = traces.weights[forward], traces.weights[feedback]
    if len(a.shape) != 3 or tuple(a.shape[1:]) != tuple(b.shape[1:])[::-1]:
        raise NeurosimError(
            f"The weights of '{forward}' have the shape {tuple(a.shape[1:])} and those of '{feedback}' {tuple(b.shape[1:])}; wanted the "
            "second to be the first one transposed."
        )
    return np.array([angle(np.asarray(a[row]), np.asarray(b[row]).T) for row in range(a.shape[0])])


def feedback_pairs(circuit: Circuit) -> list[tuple[str, str]]:
    """``(forward, feedback)``: projections between whose weights an angle says something.

    Those that the circuit measures (`Angle`), and for each forward projection those into its source, of a transposed shape, that carry
    weights of their own: feedback from its target, or from interneurons and ghosts that stand in for it.
    """
    plans = circuit.plan.projections
    pairs = [(m.of, m.to) for m in circuit.measures.values() if isinstance(m, Angle)]
    forward = circuit.reference.weights if circuit.reference else ()
    for a in (plans[name] for name in forward):
        for b in plans.values():
            own = b.root == b.name and b.name not in forward and len(b.weight_shape) == 2 and b.source != "one"
            known = {(a.name, b.name), (b.name, a.name)} & set(pairs)
            if own and not known and b.target == a.source and tuple(b.weight_shape) == tuple(a.weight_shape)[::-1]:
                pairs.append((a.name, b.name))
    return pairs


def _recorded(traces: Traces, projections: Sequence[str] | None) -> list[str]:
    check_traces(traces)
    if not traces.weights or not len(traces.weight_trials):
        raise NeurosimError(
            "No weights were recorded; name projections where you record: `neurosim train MODEL --record W1 W2`, or "
            "simulate(..., record=['W1'])."
        )
    if isinstance(projections, str):
        raise NeurosimError(
            f"Got the text '{projections}' for `projections`; wanted a list, such as ['{projections}']."
        )
    for name in projections or ():
        if name not in traces.weights:
            raise unknown("recorded projection", name, traces.weights)
    return list(dict.fromkeys(projections)) if projections else list(traces.weights)[:PANELS]
