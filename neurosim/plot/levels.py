"""Traces of several levels over one another, and how far they differ."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from neurosim.errors import NeurosimError
from neurosim.plot.selection import (
    Cells,
    cells_of,
    check_not_empty,
    check_sample,
    check_type,
    columns_of,
    dropped,
    largest,
    numbers_of,
    sample_note,
    title_of,
    variables_of,
)
from neurosim.plot.style import GREY, PALETTE, WIDTH, check_suffix, empty_figure, plain, save_figure, shown_unit, style
from neurosim.plot.window import INSTANT, Window, name_phases, read, shade, time_axis, window_of
from neurosim.traces import Traces
from neurosim.traces.layout import population_of

#: Most variables.
COMPARED = 4
#: Differences are clipped to the first; the second is what levels are held to.
FLOOR, TOLERANCE = 1e-18, 1e-12

# Coincident lines all show: wide and pale below, narrow and dark above, and the dashes of the last two take turns.
_LEVEL_STYLES: list[dict[str, Any]] = [
    {"color": PALETTE["sky"], "linewidth": 7.0},
    {"color": PALETTE["orange"], "linewidth": 4.0},
    {"color": PALETTE["black"], "linewidth": 1.3, "linestyle": (0, (4, 4))},
    {"color": PALETTE["blue"], "linewidth": 1.3, "linestyle": (4, (4, 4))},
]
# Levels known at the ends of phases only. White edges part them from the lines.
_MARKER_STYLES: list[dict[str, Any]] = [
    {"color": PALETTE["green"], "marker": "o"},
    {"color": PALETTE["purple"], "marker": "D"},
    {"color": PALETTE["vermillion"], "marker": "s"},
    {"color": PALETTE["black"], "marker": "^"},
]
_MARKER: dict[str, Any] = {
    "linestyle": "none",
    "markersize": 6.5,
    "markeredgecolor": "white",
    "markeredgewidth": 0.8,
    "zorder": 5,
    "clip_on": False,  # the last one stands at the end of the axis
}
_TOLERANCE_LINE: dict[str, Any] = {"color": GREY, "linewidth": 1.0, "linestyle": ":"}

#: ``{phase: {"population.variable": (samples, cells)}}``, as in ``Result.ends``.
Ends = Mapping[str, Mapping[str, np.ndarray]]


def comparison_figure(
    by_level: Mapping[str, Traces],
    variables: Sequence[str] | None = None,
    cells: Cells | None = None,
    sample: int = 0,
    ends: Mapping[str, Ends] | None = None,
    title: str | None = None,
) -> Figure:
    """Draw the traces of several levels over one another, and below them how far they are from the first level.

    Parameters
    ----------
    by_level
        Traces by level, recorded at the same times.
    variables, cells, sample, title
        As in `traces_figure`, but at most 4 variables. The difference is the largest over all cells of the
        population, or over `cells` where these are given.
    ends
        Values at the ends of phases, for levels that record no traces (``torch:steady``): drawn as markers. Row
        ``trial * batch + sample`` is drawn at the end of that trial's phase. The ends of a level that has traces
        are not drawn; those of the first level are what the markers' differences are taken from.

    Raises
    ------
    NeurosimError
        As in `traces_figure`; fewer than two levels; levels recorded at different times or with different shapes.
    """
    check_type(
        by_level, Mapping, "{level: Traces}, such as {'brian2:dense': simulate(..., level='brian2:dense').traces}"
    )
    if not by_level:
        raise NeurosimError("Nothing to compare: no level has traces; record some on at least one level.")
    ends = ends or {}
    marked = [level for level in ends if level not in by_level]
    if len(by_level) + len(marked) < 2:
        raise NeurosimError(f"A comparison needs two levels; got only '{next(iter(by_level))}'.")
    if len(by_level) > len(_LEVEL_STYLES) or len(marked) > len(_MARKER_STYLES):
        raise NeurosimError(
            f"Got {len(by_level)} levels with traces and {len(marked)} with ends of phases; at most "
            f"{len(_LEVEL_STYLES)} of each can be told apart in one figure. Draw fewer."
        )
    first, reference = next(iter(by_level.items()))
    for level, traces in by_level.items():
        check_not_empty(traces, f"'{level}': ")
    names = _common_variables(by_level, {level: ends[level] for level in marked}, variables)
    check_sample(reference, names, sample)
    for level, traces in by_level.items():
        _check_same(first, reference, level, traces, names)
    if marked and not reference.phases:
        raise NeurosimError(f"Cannot place the ends of phases: the traces of '{first}' name no phases.")
    window = window_of(reference)
    chosen = cells_of(reference, names, cells, sample, window)
    left = "" if variables else dropped(names, _common_variables(by_level, {}, None, most=None))
    with style():
        figure = empty_figure(WIDTH, 1.3 + 3.2 * len(names))
        notes = [sample_note(reference, sample), window.note, left]
        figure.suptitle(title_of(title, reference, notes, level=False))
        ratios = [2.0, 1.25] * len(names)
        panels: list[Axes] = list(figure.subplots(len(ratios), sharex=True, height_ratios=ratios))
        time = window.cut(reference.time[window.keep]) * 1e3
        for name, upper, lower in zip(names, panels[::2], panels[1::2], strict=True):
            shown = columns_of(reference, name, chosen[population_of(name)])
            wanted_columns = shown if cells is not None else range(reference.values[name].shape[-1])
            columns = sorted({*shown, *wanted_columns})  # what is read, the same of every level
            indices = [columns.index(k) for k in shown]
            compared = [columns.index(k) for k in wanted_columns]
            base = window.cut(read(reference, name, window.keep, sample, columns))
            factor, unit = shown_unit(reference.units[name], largest(base[:, indices]))
            most = TOLERANCE
            for k, (level, traces) in enumerate(by_level.items()):
                values = base if level == first else window.cut(read(traces, name, window.keep, sample, columns))
                upper.plot(time, values[:, indices] * factor, zorder=3 + 0.1 * k, **_LEVEL_STYLES[k])
                if level != first:
                    difference = _difference(values[:, compared], base[:, compared])
                    look = {**_LEVEL_STYLES[k], "linewidth": min(2.5, _LEVEL_STYLES[k]["linewidth"])}
                    lower.plot(time, difference, zorder=3 + 0.1 * k, **look)
                    most = max(most, largest(difference))
            for k, level in enumerate(marked):
                at, rows = _end_points(level, ends[level], name, reference, sample, window)
                rows = rows[:, columns]
                wanted = read(reference, name, window.keep, sample, columns)[np.searchsorted(reference.time, at)]
                if name in _end_names(ends.get(first, {})):
                    wanted = _end_points(first, ends[first], name, reference, sample, window)[1][:, columns]
                difference = _difference(rows[:, compared], wanted[:, compared])
                look = {**_MARKER, **_MARKER_STYLES[k]}
                upper.plot(np.repeat(at * 1e3, len(indices)), rows[:, indices].ravel() * factor, **look)
                lower.plot(at * 1e3, difference, **look)
                most = max(most, largest(difference))
            upper.set_ylabel(f"{name}\n({unit})")
            upper.margins(y=0.08)
            _label_lines(
                upper,
                [
                    (f"cell {cell}", base[-1, i] * factor)
                    for cell, i in zip(chosen[population_of(name)], indices, strict=True)
                ],
            )
            _difference_axis(lower, most, shown_unit(reference.units[name])[1])
            for axes in (upper, lower):
                shade(axes, window)
        time_axis(panels, window)
        name_phases(panels[0], window)
        handles = [
            Line2D([], [], label=plain(level), **look) for level, look in zip(by_level, _LEVEL_STYLES, strict=False)
        ]
        handles += [
            Line2D([], [], label=f"{plain(level)} (ends of phases)", **_MARKER, **look)
            for level, look in zip(marked, _MARKER_STYLES, strict=False)
        ]
        handles.append(Line2D([], [], label=f"a difference of {TOLERANCE:g}", **_TOLERANCE_LINE))
        over = "the cells shown" if cells is not None else "all cells of the population"
        figure.legend(
            handles=handles,
            loc="outside lower center",
            ncols=min(3, len(handles)),
            handlelength=3.0,
            title=f"Lower panels: largest |difference| to {plain(first)} over {over}",
            title_fontsize=9.0,
        )
    return figure


def save_comparison(
    by_level: Mapping[str, Traces],
    path: str | os.PathLike[str],
    ends: Mapping[str, Ends] | None = None,
    **kwargs: Any,
) -> Path:
    """Save `comparison_figure` as PNG, PDF or SVG, by the suffix of the path."""
    check_suffix(path)
    return save_figure(comparison_figure(by_level, ends=ends, **kwargs), path)


def _end_names(ends: Ends) -> list[str]:
    return list(dict.fromkeys(name for values in ends.values() for name in values))


def _common_variables(
    by_level: Mapping[str, Traces],
    marked: Mapping[str, Ends],
    wanted: Sequence[str] | None,
    most: int | None = COMPARED,
) -> list[str]:
    """The variables to compare: those asked for, or those that all levels have."""
    known = {level: list(traces.values) for level, traces in by_level.items()}
    known |= {level: _end_names(values) for level, values in marked.items()}
    if wanted is not None:
        for level, names in known.items():
            variables_of(wanted, names, most, f"{level} variable")
    common = [name for name in next(iter(known.values())) if all(name in names for names in known.values())]
    if not common:
        listing = "; ".join(f"{level}: {', '.join(names[:6]) or '(none)'}" for level, names in known.items())
        raise NeurosimError(f"The levels have no variable in common ({listing}). Record the same ones on each.")
    return variables_of(wanted, common, most, "variable")


def _check_same(first: str, reference: Traces, level: str, traces: Traces, names: Sequence[str]) -> None:
    if len(traces.time) != len(reference.time) or not np.allclose(traces.time, reference.time, rtol=0.0, atol=1e-9):
        times = [f"{len(t)} from {t[0] * 1e3:g} to {t[-1] * 1e3:g} ms" for t in (reference.time, traces.time)]
        raise NeurosimError(
            f"'{first}' and '{level}' were recorded at different times ({times[0]}; {times[1]}). "
            "Run both with the same stimuli, batch, dt and stride."
        )
    for name in names:
        shapes = reference.values[name].shape, traces.values[name].shape
        if shapes[0] != shapes[1]:
            raise NeurosimError(
                f"'{name}' has the shape {shapes[0]} on '{first}' and {shapes[1]} on '{level}' (steps, batch, cells). "
                "Run both with the same circuit and batch."
            )
        if not np.array_equal(numbers_of(reference, name), numbers_of(traces, name)):
            raise NeurosimError(
                f"Other cells of '{population_of(name)}' were recorded on '{first}' than on '{level}'. Record the same ones on each."
            )


def _end_points(
    level: str, ends: Ends, name: str, traces: Traces, sample: int, window: Window
) -> tuple[np.ndarray, np.ndarray]:
    """``(times, (times, cells))`` of a variable at the ends of the phases in the window."""
    batch, n = traces.values[name].shape[1:]
    trials = len({p.trial for p in traces.phases})
    first = min(p.trial for p in traces.phases)
    time = traces.time[window.keep]
    at, rows = [], []
    for span in window.spans:
        values = ends.get(span.name, {}).get(name)
        last = int(np.searchsorted(time, span.stop - INSTANT)) - 1
        if values is None or last < 0:
            continue
        if values.shape != (trials * batch, n):
            raise NeurosimError(
                f"The ends of '{name}' on '{level}' in phase '{span.name}' have the shape {values.shape}; wanted "
                f"{(trials * batch, n)} for {trials} trials, batch {batch} and {n} cells."
            )
        at.append(time[last])
        rows.append(values[(span.trial - first) * batch + sample])
    if not at:
        raise NeurosimError(
            f"'{level}' gives '{name}' at the end of none of the phases shown "
            f"({', '.join(dict.fromkeys(p.name for p in window.spans))}); it has {', '.join(ends) or '(none)'}."
        )
    return np.array(at), np.array(rows)


def _difference(values: np.ndarray, base: np.ndarray) -> np.ndarray:
    """The largest absolute difference over the cells at each time, no smaller than the floor."""
    with np.errstate(invalid="ignore"):
        return np.maximum(np.abs(values - base).max(axis=-1), FLOOR)


def _label_lines(axes: Axes, labels: Sequence[tuple[str, float]]) -> None:
    """Write labels at the right of a panel, at the height of their lines or as near as there is room."""
    low, high = axes.get_ylim()
    apart = 0.085  # of the panel's height
    placed = sorted(((min(max((y - low) / (high - low), 0), 1) if np.isfinite(y) else 0.5), text) for text, y in labels)
    heights: list[float] = []
    for height, _ in placed:
        heights.append(max(height, heights[-1] + apart) if heights else height)
    shift = max(0.0, heights[-1] - 1.0)
    for k in range(len(heights) - 1, -1, -1):  # push down from the top what ran over it
        limit = 1.0 if k == len(heights) - 1 else heights[k + 1] - apart
        heights[k] = min(heights[k], limit) if shift else heights[k]
    for (_, text), height in zip(placed, heights, strict=True):
        axes.annotate(
            text, (1.0, height), xytext=(5, 0), textcoords="offset points", xycoords="axes fraction", va="center",
            fontsize=9, annotation_clip=False,
        )  # fmt: skip


def _power_of_ten(y: float, _: Any) -> str:
    return ("$\\leq\\,$" if y < 2 * FLOOR else "") + f"$10^{{{round(np.log10(y))}}}$"


def _difference_axis(axes: Axes, largest: float, unit: str) -> None:
    axes.set_yscale("log")
    axes.axhline(TOLERANCE, zorder=2, **_TOLERANCE_LINE)
    top = max(10.0 * largest, 100.0 * TOLERANCE)
    axes.set_ylim(FLOOR / 10, top)
    lowest, highest = round(np.log10(FLOOR)), int(np.floor(np.log10(top)))
    exponents = range(lowest, highest + 1, 3 * -(-(highest - lowest) // 15))
    axes.yaxis.set_major_locator(FixedLocator([10.0**k for k in exponents]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(_power_of_ten))
    axes.set_ylabel(f"|difference|\n({unit})")
