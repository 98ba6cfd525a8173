"""Figures of recorded traces: one level alone, several levels and how far they differ, and rasters of spikes."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.textpath import TextPath
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from neurosim.errors import NeurosimError, unknown
from neurosim.plot.style import GREY, LINES, PALETTE, SHADES, check_suffix, empty_figure, save_figure, shown_unit, style
from neurosim.traces import PhaseSpan, Traces

#: Most panels of `traces_figure` and most variables of `comparison_figure`.
PANELS, COMPARED = 8, 4
#: Trials that are shown; more would hide what happens within one.
TRIALS = 2
#: Cells that are chosen where none are named.
CELLS = 3
#: Up to here a spike is drawn, in volts: a cell is reset at its threshold, so what is recorded never shows the peak.
PEAK = 0.02
#: Differences are clipped to the first; the second is what levels are held to.
FLOOR, TOLERANCE = 1e-18, 1e-12

WIDTH = 8.5  # inches
_INSTANT = 1e-9  # seconds: times nearer than this are equal
_DASHES = ("-", "--", ":")

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

#: One panel each; several in one panel as a list of their own: ``[["pyr1.u", "pyr1.v_A"], "pyr1.r"]``.
Variables = Sequence[str | Sequence[str]]
#: One list for every population, or ``{population: list}``.
Cells = Sequence[int] | Mapping[str, Sequence[int]]
#: ``{phase: {"population.variable": (samples, cells)}}``, as in ``Result.ends``.
Ends = Mapping[str, Mapping[str, np.ndarray]]


class _Window(NamedTuple):
    """The part of the time axis that is drawn."""

    keep: slice
    spans: list[PhaseSpan]
    shades: dict[str, str]
    limits: tuple[float, float]  # seconds
    breaks: np.ndarray  # rows where another trial begins: states jump there, and a line would cross the panel
    note: str

    def cut(self, values: np.ndarray) -> np.ndarray:
        """The rows in the window as floats, with a row of NaN between trials."""
        return np.insert(np.asarray(values[self.keep], dtype=float), self.breaks, np.nan, axis=0)


# ------------------------------------------------------------------------------------------------------ figures


def traces_figure(
    traces: Traces,
    variables: Variables | None = None,
    cells: Cells | None = None,
    sample: int = 0,
    title: str | None = None,
) -> Figure:
    """Draw one panel per variable over time, phases shaded.

    Spikes are drawn by hand: a thin line from the potential up to +20 mV, on the compartment that jumps at a spike (volts that
    fall from one recorded row to the next by more than three times the change after that). Where a population that spikes has
    more cells than are drawn, a raster of all of them stands below.

    Parameters
    ----------
    traces
        What was recorded. Of more than two trials the first two are drawn, and the title says so.
    variables
        ``"population.variable"``, at most 8; by default the first 8 that were recorded. A list among them is one panel:
        ``[["pyr1.u", "pyr1.v_B", "pyr1.v_A"], "pyr1.r"]`` draws three compartments (of one unit) over one another and the
        rate below. In such a panel a colour is a variable and dashes are a cell.
    cells
        Indices, for every population or as ``{population: indices}``; by default the cell that varies most in each
        third of the population, or in all of it where several of its variables share a panel.
    sample
        Which sample of the batch.
    title
        By default the model and the level.

    Raises
    ------
    NeurosimError
        Nothing recorded; an unknown variable; a cell, sample or number of variables out of range; variables of
        different units in one panel.
    """
    _check_not_empty(traces)
    groups = _groups(variables, traces)
    names = list(dict.fromkeys(name for group in groups for name in group))
    _check_sample(traces, names, sample)
    window = _window(traces)
    joined = {p for group in groups for p in map(_population, group) if sum(_population(n) == p for n in group) > 1}
    chosen = _cells(traces, names, cells, sample, window, joined)
    _check_lines(groups, chosen)
    dropped = "" if variables else _dropped(names, traces.values)
    resetting = [name for name in names if _resets(traces, name, sample)]
    raster = [p for p, indices in chosen.items() if p in traces.spikes and _size(traces, p) > len(indices)]
    heights = [1.65 if len(group) == 1 else 2.4 for group in groups] + ([1.65] if raster else [])
    with style():
        figure = empty_figure(WIDTH, 0.9 + sum(heights))
        figure.suptitle(_title(title, traces, sample, window.note, dropped, level=True))
        subplots = figure.subplots(len(heights), sharex=True, squeeze=False, height_ratios=heights)
        panels: list[Axes] = list(subplots[:, 0])
        time = window.cut(traces.time) * 1e3
        for axes, group in zip(panels, groups, strict=False):
            lines = [(name, index) for name in group for index in chosen[_population(name)]]
            values = {name: window.cut(traces.values[name][:, sample]) for name in group}
            factor, unit = shown_unit(traces.units[group[0]], max(_largest(values[n][:, i]) for n, i in lines))
            for name, index in lines:
                k, dashes = chosen[_population(name)].index(index), 0
                if len(group) > 1:
                    k, dashes = group.index(name), k
                look: dict[str, Any] = {"color": LINES[k % len(LINES)], "zorder": 3}
                linestyle = _DASHES[dashes + k // len(LINES)]
                axes.plot(time, values[name][:, index] * factor, linestyle, label=f"{name}[{index}]", **look)
                if name in resetting:
                    at, foot = _spike_feet(traces, name, index, sample, window)
                    axes.vlines(at * 1e3, foot * factor, PEAK * factor, linewidth=0.8, **look)
            axes.set_ylabel(f"{_heading(group)}\n({unit})".lstrip())
            axes.legend(
                loc="upper left", bbox_to_anchor=(1.0, 1.0), ncols=-(-len(lines) // (7 if len(group) == 1 else 9))
            )
            axes.margins(y=0.08)
            _shade(axes, window)
        if raster:
            _raster(panels[-1], traces, raster, sample, window)
        _time_axis(panels, window)
        _name_phases(panels[0], window)
    return figure


def raster_figure(
    traces: Traces, populations: Sequence[str] | None = None, sample: int = 0, title: str | None = None
) -> Figure:
    """Draw the spikes of all cells: time across, a row per cell, populations below one another, phases shaded.

    Parameters
    ----------
    traces
        What was recorded. Of more than two trials the first two are drawn, and the title says so.
    populations
        By default all that spike.
    sample, title
        As in `traces_figure`.

    Raises
    ------
    NeurosimError
        Nothing recorded; a population that does not spike; no such sample.
    """
    _check_not_empty(traces)
    if not traces.spikes:
        raise NeurosimError("The traces hold no spikes: no population has a threshold.")
    names = _variables(populations, list(traces.spikes), None, "spiking population", "populations")
    _check_sample(traces, list(traces.values), sample)
    window = _window(traces)
    rows = sum(_size(traces, p) for p in names)
    with style():
        figure = empty_figure(WIDTH, 0.9 + min(max(0.2 * rows, 1.2), 5.0))
        figure.suptitle(_title(title, traces, sample, window.note, "", level=True))
        axes: Axes = figure.subplots()
        _raster(axes, traces, names, sample, window)
        _time_axis([axes], window)
        _name_phases(axes, window)
    return figure


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
        _check_not_empty(traces, f"'{level}': ")
    names = _common_variables(by_level, {level: ends[level] for level in marked}, variables)
    _check_sample(reference, names, sample)
    for level, traces in by_level.items():
        _check_same(first, reference, level, traces, names)
    if marked and not reference.phases:
        raise NeurosimError(f"Cannot place the ends of phases: the traces of '{first}' name no phases.")
    window = _window(reference)
    chosen = _cells(reference, names, cells, sample, window)
    dropped = "" if variables else _dropped(names, _common_variables(by_level, {}, None, most=None))
    with style():
        figure = empty_figure(WIDTH, 1.3 + 3.2 * len(names))
        figure.suptitle(_title(title, reference, sample, window.note, dropped, level=False))
        ratios = [2.0, 1.25] * len(names)
        panels: list[Axes] = list(figure.subplots(len(ratios), sharex=True, height_ratios=ratios))
        time = window.cut(reference.time) * 1e3
        for name, upper, lower in zip(names, panels[::2], panels[1::2], strict=True):
            indices = chosen[_population(name)]
            compared: Any = indices if cells is not None else slice(None)
            base = window.cut(reference.values[name][:, sample])
            factor, unit = shown_unit(reference.units[name], _largest(base[:, indices]))
            largest = TOLERANCE
            for k, (level, traces) in enumerate(by_level.items()):
                values = window.cut(traces.values[name][:, sample])
                upper.plot(time, values[:, indices] * factor, zorder=3 + 0.1 * k, **_LEVEL_STYLES[k])
                if level != first:
                    difference = _difference(values[:, compared], base[:, compared])
                    look = {**_LEVEL_STYLES[k], "linewidth": min(2.5, _LEVEL_STYLES[k]["linewidth"])}
                    lower.plot(time, difference, zorder=3 + 0.1 * k, **look)
                    largest = max(largest, _largest(difference))
            for k, level in enumerate(marked):
                at, rows = _end_points(level, ends[level], name, reference, sample, window)
                wanted = reference.values[name][np.searchsorted(reference.time, at), sample]
                if name in _end_names(ends.get(first, {})):
                    wanted = _end_points(first, ends[first], name, reference, sample, window)[1]
                difference = _difference(rows[:, compared], wanted[:, compared])
                look = {**_MARKER, **_MARKER_STYLES[k]}
                upper.plot(np.repeat(at * 1e3, len(indices)), rows[:, indices].ravel() * factor, **look)
                lower.plot(at * 1e3, difference, **look)
                largest = max(largest, _largest(difference))
            upper.set_ylabel(f"{name}\n({unit})")
            upper.margins(y=0.08)
            _label_ends(upper, [(f"cell {i}", base[-1, i] * factor) for i in indices])
            _difference_axis(lower, largest, shown_unit(reference.units[name])[1])
            for axes in (upper, lower):
                _shade(axes, window)
        _time_axis(panels, window)
        _name_phases(panels[0], window)
        handles = [Line2D([], [], label=level, **look) for level, look in zip(by_level, _LEVEL_STYLES, strict=False)]
        handles += [
            Line2D([], [], label=f"{level} (ends of phases)", **_MARKER, **look)
            for level, look in zip(marked, _MARKER_STYLES, strict=False)
        ]
        handles.append(Line2D([], [], label=f"a difference of {TOLERANCE:g}", **_TOLERANCE_LINE))
        over = "the cells shown" if cells is not None else "all cells of the population"
        figure.legend(
            handles=handles,
            loc="outside lower center",
            ncols=min(3, len(handles)),
            handlelength=3.0,
            title=f"Lower panels: largest |difference| to {first} over {over}",
            title_fontsize=9.0,
        )
    return figure


def save_traces(traces: Traces, path: str | os.PathLike[str], **kwargs: Any) -> Path:
    """Save `traces_figure` as PNG, PDF or SVG, by the suffix of the path."""
    check_suffix(path)
    return save_figure(traces_figure(traces, **kwargs), path)


def save_raster(traces: Traces, path: str | os.PathLike[str], **kwargs: Any) -> Path:
    """Save `raster_figure` as PNG, PDF or SVG, by the suffix of the path."""
    check_suffix(path)
    return save_figure(raster_figure(traces, **kwargs), path)


def save_comparison(
    by_level: Mapping[str, Traces],
    path: str | os.PathLike[str],
    ends: Mapping[str, Ends] | None = None,
    **kwargs: Any,
) -> Path:
    """Save `comparison_figure` as PNG, PDF or SVG, by the suffix of the path."""
    check_suffix(path)
    return save_figure(comparison_figure(by_level, ends=ends, **kwargs), path)


# ----------------------------------------------------------------------------------------------- what to draw


def _population(name: str) -> str:
    return name.partition(".")[0]


def _check_not_empty(traces: Traces, where: str = "") -> None:
    if not traces.values:
        raise NeurosimError(f"{where}The traces hold no variable; pass record=['population.variable', ...] to the run.")
    if not len(traces.time):
        raise NeurosimError(f"{where}The traces hold no step: nothing was recorded before the run ended.")


def _check_sample(traces: Traces, names: Sequence[str], sample: int) -> None:
    batch = traces.values[names[0]].shape[1]
    if not 0 <= sample < batch:
        raise NeurosimError(f"There is no sample {sample}: the batch has {batch}, counted from 0.")


def _variables(
    wanted: Sequence[str] | None,
    known: Sequence[str],
    most: int | None,
    what: str,
    argument: str = "variables",
) -> list[str]:
    if wanted is None:
        return list(known)[:most]
    if isinstance(wanted, str):
        raise NeurosimError(f"Got the text '{wanted}' for `{argument}`; wanted a list, such as ['{wanted}'].")
    for name in wanted:
        if name not in known:
            raise unknown(what, name, known)
    if not wanted:
        raise NeurosimError(f"Got an empty list of {argument}; leave `{argument}` out to draw the first ones.")
    if most is not None and len(wanted) > most:
        raise NeurosimError(f"Got {len(wanted)} {argument}; one figure takes at most {most}. Ask for fewer.")
    return list(dict.fromkeys(wanted))


def _groups(wanted: Variables | None, traces: Traces) -> list[list[str]]:
    """The variables of each panel."""
    if wanted is None or isinstance(wanted, str):
        return [[name] for name in _variables(wanted, list(traces.values), PANELS, "recorded variable")]
    groups = [[entry] if isinstance(entry, str) else list(entry) for entry in wanted]
    for group in groups or [[]]:
        _variables(group, list(traces.values), None, "recorded variable")
        for name in group[1:]:
            if traces.units[name] != traces.units[group[0]]:
                raise NeurosimError(
                    f"Cannot draw '{group[0]}' ({traces.units[group[0]]}) and '{name}' ({traces.units[name]}) in one panel: "
                    "their units differ. Give each a panel of its own."
                )
    if len(groups) > PANELS:
        raise NeurosimError(f"Got {len(groups)} panels; one figure takes at most {PANELS}. Ask for fewer.")
    return [list(dict.fromkeys(group)) for group in groups]


def _check_lines(groups: Sequence[Sequence[str]], chosen: Mapping[str, Sequence[int]]) -> None:
    """In a panel of several variables colours are variables and dashes are cells."""
    for group in groups:
        cells = max(len(chosen[_population(name)]) for name in group)
        if len(group) > 1 and (len(group) > len(LINES) or cells > len(_DASHES)):
            raise NeurosimError(
                f"Got {len(group)} variables of {cells} cells in one panel; at most {len(LINES)} of {len(_DASHES)} can be "
                "told apart. Draw fewer."
            )


def _heading(group: Sequence[str]) -> str:
    """What stands at the axis: the variable, or what the variables of a panel have in common."""
    if len(group) == 1:
        return group[0]
    for part in (0, 2):
        found = {name.partition(".")[part] for name in group}
        if len(found) == 1:
            return found.pop()
    return ""


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
            _variables(wanted, names, most, f"{level} variable")
    common = [name for name in next(iter(known.values())) if all(name in names for names in known.values())]
    if not common:
        listing = "; ".join(f"{level}: {', '.join(names[:6]) or '(none)'}" for level, names in known.items())
        raise NeurosimError(f"The levels have no variable in common ({listing}). Record the same ones on each.")
    return _variables(wanted, common, most, "variable")


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


def _window(traces: Traces) -> _Window:
    """The first trials, and the shade of each phase (the same name, the same shade)."""
    names = list(dict.fromkeys(p.name for p in traces.phases))
    shades = {name: SHADES[k if k < len(SHADES) else 1 + k % (len(SHADES) - 1)] for k, name in enumerate(names)}
    time, trials = traces.time, sorted({p.trial for p in traces.phases})
    step = (time[-1] - time[0]) / (len(time) - 1) if len(time) > 1 else 1e-3
    count, spans, stop, note = len(time), list(traces.phases), time[-1] + step, ""
    if len(trials) > TRIALS:
        spans = [p for p in traces.phases if p.trial in trials[:TRIALS]]
        stop = max(p.stop for p in spans)
        count = int(np.searchsorted(time, stop - _INSTANT))
        note = f"first {TRIALS} of {len(trials)} trials"
    starts = [b.start for a, b in pairwise(spans) if a.trial != b.trial]
    breaks = np.searchsorted(time[:count], np.array(starts) - _INSTANT)
    return _Window(slice(0, count), spans, shades, (float(time[0]), float(stop)), breaks, note)


def _cells(
    traces: Traces,
    names: Sequence[str],
    cells: Cells | None,
    sample: int,
    window: _Window,
    joined: Collection[str] = (),
) -> dict[str, list[int]]:
    """The cells of each population; its variables share them, so that a colour means a cell.

    Of the `joined` populations one cell is chosen, where none are named."""
    chosen: dict[str, list[int]] = {}
    populations = list(dict.fromkeys(_population(name) for name in names))
    if isinstance(cells, Mapping):
        for population in cells:
            if population not in populations:
                raise unknown("drawn population", population, populations)
    for population in populations:
        own = [name for name in names if _population(name) == population]
        n = traces.values[own[0]].shape[-1]
        wanted = cells.get(population) if isinstance(cells, Mapping) else cells
        if wanted is None:
            values = [traces.values[name][window.keep, sample] for name in own]
            chosen[population] = _liveliest(values, 1 if population in joined else CELLS)
            continue
        most = 3 * len(LINES)
        if not 0 < len(wanted) <= most:
            raise NeurosimError(f"Got {len(wanted)} cells of '{population}'; wanted 1 to {most}, to tell them apart.")
        for index in wanted:
            if not 0 <= index < n:
                raise NeurosimError(f"There is no cell {index} in '{population}': it has {n} cells, 0 to {n - 1}.")
        chosen[population] = [int(index) for index in dict.fromkeys(wanted)]
    return chosen


def _liveliest(values: Sequence[np.ndarray], count: int) -> list[int]:
    """The cell that varies most in each of `count` parts; `values` are (steps, cells), one array per variable."""
    score = np.zeros(values[0].shape[1])
    for x in values:
        x = np.clip(np.nan_to_num(x, nan=0.0), -1e100, 1e100)  # a run that diverged is drawn, too
        spread = x.std(axis=0)
        score += spread / max(spread.max(), np.finfo(float).tiny)
    parts = np.array_split(np.arange(len(score)), min(count, len(score)))
    return [int(part[np.argmax(score[part])]) for part in parts]


def _spikes_of(traces: Traces, population: str, sample: int) -> tuple[np.ndarray, np.ndarray]:
    """``(times, cells)`` of one sample of the batch, over all trials."""
    spikes = traces.spikes[population]
    batch = next(iter(traces.values.values())).shape[1]
    mine = spikes.sample % batch == sample
    return spikes.time[mine], spikes.cell[mine]


def _size(traces: Traces, population: str) -> int:
    """Number of cells; of a population without a recorded variable, as far as they spiked."""
    for name, values in traces.values.items():
        if _population(name) == population:
            return values.shape[-1]
    return int(traces.spikes[population].cell.max(initial=0)) + 1


def _rows_of(traces: Traces, times: np.ndarray) -> np.ndarray:
    """The last row that was recorded before each spike did its work."""
    return np.searchsorted(traces.time, times + _INSTANT) - 1


def _resets(traces: Traces, name: str, sample: int) -> bool:
    """Is this the potential that the reset acts on? See `traces_figure`."""
    if traces.units[name] not in ("volt", "V") or _population(name) not in traces.spikes:
        return False
    times, cells = _spikes_of(traces, _population(name), sample)
    rows = _rows_of(traces, times)
    inside = (rows >= 0) & (rows < len(traces.time) - 2)
    rows, cells = rows[inside], cells[inside]
    before, after, later = (traces.values[name][rows + k, sample, cells] for k in range(3))
    return bool(len(rows)) and bool(np.median(before - after - 3 * np.abs(later - after)) > 0)


def _spike_feet(traces: Traces, name: str, cell: int, sample: int, window: _Window) -> tuple[np.ndarray, np.ndarray]:
    """Times of a cell's spikes in the window, and the recorded values that they start from."""
    times, cells = _spikes_of(traces, _population(name), sample)
    times = times[(cells == cell) & (times < window.limits[1] - _INSTANT)]
    times = times[times > window.limits[0] - _INSTANT]
    return times, traces.values[name][_rows_of(traces, times), sample, cell]


def _end_points(
    level: str, ends: Ends, name: str, traces: Traces, sample: int, window: _Window
) -> tuple[np.ndarray, np.ndarray]:
    """``(times, (times, cells))`` of a variable at the ends of the phases in the window."""
    batch, n = traces.values[name].shape[1:]
    trials = len({p.trial for p in traces.phases})
    first = min(p.trial for p in traces.phases)
    time = traces.time[window.keep]
    at, rows = [], []
    for span in window.spans:
        values = ends.get(span.name, {}).get(name)
        last = int(np.searchsorted(time, span.stop - _INSTANT)) - 1
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


def _largest(values: np.ndarray) -> float:
    finite = np.abs(values[np.isfinite(values)])
    return float(finite.max()) if finite.size else 0.0


def _difference(values: np.ndarray, base: np.ndarray) -> np.ndarray:
    """The largest absolute difference over the cells at each time, no smaller than the floor."""
    with np.errstate(invalid="ignore"):
        return np.maximum(np.abs(values - base).max(axis=-1), FLOOR)


# ------------------------------------------------------------------------------------------------ how to draw

_TOLERANCE_LINE: dict[str, Any] = {"color": GREY, "linewidth": 1.0, "linestyle": ":"}


def _dropped(names: Sequence[str], known: Any) -> str:
    return f"{len(names)} of {len(known)} variables" if len(names) < len(known) else ""


def _title(title: str | None, traces: Traces, sample: int, trials: str, variables: str, level: bool) -> str:
    if title is None:
        keys = ("model", "level") if level else ("model",)
        title = ", ".join(str(traces.metadata[key]) for key in keys if key in traces.metadata)
    notes = [f"sample {sample}" if sample else "", trials, variables]
    note = ", ".join(n for n in notes if n)
    return f"{title} ({note})" if title and note else title or note.capitalize()


def _time_axis(panels: Sequence[Axes], window: _Window) -> None:
    panels[-1].set_xlabel("time (ms)")
    panels[-1].set_xlim(window.limits[0] * 1e3, window.limits[1] * 1e3)
    for axes in panels[:-1]:
        axes.tick_params(labelbottom=False)


def _shade(axes: Axes, window: _Window) -> None:
    for span in window.spans:
        axes.axvspan(span.start * 1e3, span.stop * 1e3, color=window.shades[span.name], linewidth=0, zorder=0)
    for before, after in pairwise(window.spans):
        if before.trial != after.trial:
            axes.axvline(after.start * 1e3, color=GREY, linewidth=0.8, zorder=1)


def _name_phases(axes: Axes, window: _Window) -> None:
    """Write each phase's name once, above its first span; a name that has no room goes a row higher."""
    low, high = window.limits
    scale = 0.68 * WIDTH * 72 / (high - low)  # points per second; the panel takes about this share of the width
    taken: list[float] = []  # per row, where its last name ends
    first = {span.name: span for span in reversed(window.spans)}
    for span in sorted(first.values(), key=lambda p: p.start):
        start, stop = max(span.start, low), min(span.stop, high)
        if start >= stop:
            continue
        centre = 0.5 * (start + stop)
        half = 0.5 * TextPath((0, 0), span.name, size=9).get_extents().width + 3
        middle = (centre - low) * scale
        fits = 2 * half <= (stop - start) * scale
        row = next((r for r, end in enumerate(taken) if end <= middle - half), len(taken))
        taken[row : row + 1] = [middle + half]
        axes.annotate(
            span.name,
            xy=(centre * 1e3, 1.0),
            xycoords=axes.get_xaxis_transform(),
            xytext=(0, 4 + 13 * row),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=9,
            color=GREY,
            annotation_clip=False,
            arrowprops=None if fits and not row else {"arrowstyle": "-", "color": GREY, "linewidth": 0.6, "shrinkB": 0},
        )


def _raster(axes: Axes, traces: Traces, populations: Sequence[str], sample: int, window: _Window) -> None:
    """A row per cell, the first population on top."""
    ends = np.cumsum([0, *(_size(traces, p) for p in populations)])
    for k, population in enumerate(populations):
        times, cells = _spikes_of(traces, population, sample)
        rows = ends[k] + cells
        axes.vlines(times * 1e3, rows - 0.4, rows + 0.4, color=LINES[k % len(LINES)], linewidth=1.0, zorder=3)
    for end in ends[1:-1]:
        axes.axhline(end - 0.5, color=GREY, linewidth=0.6, zorder=1)
    axes.set_ylim(ends[-1] - 0.4, -0.6)
    if len(populations) == 1:
        axes.set_ylabel(f"{populations[0]}\n(cell)")
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    else:
        axes.set_ylabel("spikes")
        counts = np.diff(ends)
        labels = [p if n == 1 else f"{p}\n({n} cells)" for p, n in zip(populations, counts, strict=True)]
        axes.set_yticks(0.5 * (ends[:-1] + ends[1:] - 1), labels)
    _shade(axes, window)


def _label_ends(axes: Axes, labels: Sequence[tuple[str, float]]) -> None:
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
