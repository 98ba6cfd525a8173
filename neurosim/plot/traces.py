"""Recorded variables over time, phases shaded."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from neurosim.errors import NeurosimError
from neurosim.plot.raster import draw_raster, spikes_of, spiking_cells
from neurosim.plot.selection import (
    Cells,
    cells_of,
    check_not_empty,
    check_sample,
    columns_of,
    dropped,
    largest,
    sample_note,
    title_of,
    variables_of,
)
from neurosim.plot.style import LINES, WIDTH, check_suffix, empty_figure, save_figure, shown_unit, style
from neurosim.plot.window import INSTANT, Window, name_phases, read, shade, time_axis, window_of
from neurosim.traces import Traces
from neurosim.traces.layout import population_of

#: Most panels.
PANELS = 8
#: Up to here a spike is drawn, in volts: a cell is reset at its threshold, so what is recorded never shows the peak.
PEAK = 0.02

_DASHES = ("-", "--", ":")

#: One panel each; several in one panel as a list of their own: ``[["pyr1.u", "pyr1.v_A"], "pyr1.r"]``.
Variables = Sequence[str | Sequence[str]]


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
        Numbers of cells, for every population or as ``{population: numbers}``; by default the cell that varies most in each
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
    check_not_empty(traces)
    groups = _groups(variables, traces)
    names = list(dict.fromkeys(name for group in groups for name in group))
    check_sample(traces, names, sample)
    window = window_of(traces)
    joined = {p for group in groups for p in map(population_of, group) if sum(population_of(n) == p for n in group) > 1}
    chosen = cells_of(traces, names, cells, sample, window, joined)
    _check_lines(groups, chosen)
    left = "" if variables else dropped(names, traces.values)
    values = {n: read(traces, n, window.keep, sample, columns_of(traces, n, chosen[population_of(n)])) for n in names}
    resetting = [name for name in names if _resets(traces, name, sample, chosen[population_of(name)], values[name])]
    raster = [p for p, shown in chosen.items() if p in traces.spikes and len(spiking_cells(traces, p)) > len(shown)]
    heights = [1.65 if len(group) == 1 else 2.4 for group in groups] + ([1.65] if raster else [])
    with style():
        figure = empty_figure(WIDTH, 0.9 + sum(heights))
        notes = [sample_note(traces, sample), window.note, left]
        figure.suptitle(title_of(title, traces, notes, level=True))
        subplots = figure.subplots(len(heights), sharex=True, squeeze=False, height_ratios=heights)
        panels: list[Axes] = list(subplots[:, 0])
        time = window.cut(traces.time[window.keep]) * 1e3
        for axes, group in zip(panels, groups, strict=False):
            lines = [(name, k) for name in group for k in range(len(chosen[population_of(name)]))]
            factor, unit = shown_unit(traces.units[group[0]], max(largest(values[name]) for name in group))
            for name, column in lines:
                k, dashes = column, 0
                if len(group) > 1:
                    k, dashes = group.index(name), column
                cell = chosen[population_of(name)][column]
                look: dict[str, Any] = {"color": LINES[k % len(LINES)], "zorder": 3}
                # A row or so per phase, as the steady level records: points, for one alone makes no line.
                mark = {"marker": "o", "markersize": 4.0} if len(values[name]) <= 3 * len(window.spans) else {}
                linestyle = _DASHES[dashes + k // len(LINES)]
                shown = window.cut(values[name][:, column]) * factor
                axes.plot(time, shown, linestyle, label=f"{name}[{cell}]", **look, **mark)
                if name in resetting:
                    at, foot = _spike_feet(traces, name, cell, sample, window, values[name][:, column])
                    axes.vlines(at * 1e3, foot * factor, PEAK * factor, linewidth=0.8, **look)
            axes.set_ylabel(f"{_heading(group)}\n({unit})".lstrip())
            axes.legend(
                loc="upper left", bbox_to_anchor=(1.0, 1.0), ncols=-(-len(lines) // (7 if len(group) == 1 else 9))
            )
            axes.margins(y=0.08)
            shade(axes, window)
        if raster:
            draw_raster(panels[-1], traces, raster, sample, window)
        time_axis(panels, window)
        name_phases(panels[0], window)
    return figure


def save_traces(traces: Traces, path: str | os.PathLike[str], **kwargs: Any) -> Path:
    """Save `traces_figure` as PNG, PDF or SVG, by the suffix of the path."""
    check_suffix(path)
    return save_figure(traces_figure(traces, **kwargs), path)


def _groups(wanted: Variables | None, traces: Traces) -> list[list[str]]:
    """The variables of each panel."""
    if wanted is None or isinstance(wanted, str):
        return [[name] for name in variables_of(wanted, list(traces.values), PANELS, "recorded variable")]
    groups = [[entry] if isinstance(entry, str) else list(entry) for entry in wanted]
    for group in groups or [[]]:
        variables_of(group, list(traces.values), None, "recorded variable")
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
        cells = max(len(chosen[population_of(name)]) for name in group)
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


def _rows_of(traces: Traces, times: np.ndarray) -> np.ndarray:
    """The last row that was recorded before each spike did its work."""
    return np.searchsorted(traces.time, times + INSTANT) - 1


def _resets(traces: Traces, name: str, sample: int, cells: Sequence[int], values: np.ndarray) -> bool:
    """Is this the potential that the reset acts on? `values` are (rows, cells) of the window; see `traces_figure`."""
    if traces.units[name] not in ("volt", "V") or population_of(name) not in traces.spikes:
        return False
    times, spiked = spikes_of(traces, population_of(name), sample)
    rows = _rows_of(traces, times)
    inside = (rows >= 0) & (rows < len(values) - 2) & np.isin(spiked, cells)
    place = {cell: k for k, cell in enumerate(cells)}
    rows, columns = rows[inside], [place[cell] for cell in spiked[inside]]
    before, after, later = (values[rows + k, columns] for k in range(3))
    return bool(len(rows)) and bool(np.median(before - after - 3 * np.abs(later - after)) > 0)


def _spike_feet(
    traces: Traces, name: str, cell: int, sample: int, window: Window, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Times of a cell's spikes in the window, and the recorded `values` (rows of the window) that they start from."""
    times, cells = spikes_of(traces, population_of(name), sample)
    times = times[(cells == cell) & (times < window.limits[1] - INSTANT)]
    times = times[times > window.limits[0] - INSTANT]
    return times, values[_rows_of(traces, times)]
