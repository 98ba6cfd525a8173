"""Spikes as rasters, and the firing rates of populations."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from neurosim.describe.pieces import counted
from neurosim.errors import NeurosimError, unknown
from neurosim.plot.selection import (
    check_not_empty,
    check_sample,
    numbers_of,
    sample_note,
    title_of,
    variables_of,
)
from neurosim.plot.style import DASHES, GREY, LINES, WIDTH, check_suffix, empty_figure, save_figure, shown_unit, style
from neurosim.plot.window import Window, name_phases, recorded_spans, shade, stretches, time_axis, window_of
from neurosim.traces import Traces
from neurosim.traces.layout import population_of
from neurosim.traces.spans import INSTANT, within

#: Bin of spiking rates, seconds.
BIN = 5e-3


def raster_figure(
    traces: Traces, populations: Sequence[str] | None = None, sample: int = 0, title: str | None = None
) -> Figure:
    """Draw the spikes of all cells: time across, a row per cell, populations below one another, phases shaded.

    Parameters
    ----------
    traces
        What was recorded. Of more than two trials the first two are drawn, and the title says so. Of a population whose cells were
        chosen (`Traces.spike_cells`) these alone have rows.
    populations
        By default all that spike.
    sample, title
        As in `traces_figure`.

    Raises
    ------
    NeurosimError
        Nothing recorded; a population that does not spike; no such sample.
    """
    check_not_empty(traces)
    names = _spiking(traces, populations)
    check_sample(traces, list(traces.values), sample)
    window = window_of(traces)
    rows = sum(len(spiking_cells(traces, p)) for p in names)
    with style():
        figure = empty_figure(WIDTH, 0.9 + min(max(0.2 * rows, 1.2), 5.0))
        notes = [sample_note(traces, sample), window.note]
        figure.suptitle(title_of(title, traces, notes, level=True))
        axes: Axes = figure.subplots()
        draw_raster(axes, traces, names, sample, window)
        time_axis([axes], window)
        name_phases(axes, window)
    return figure


def save_raster(traces: Traces, path: str | os.PathLike[str], **kwargs: Any) -> Path:
    """Save `raster_figure` as PNG, PDF or SVG, by the suffix of the path."""
    check_suffix(path)
    return save_figure(raster_figure(traces, **kwargs), path)


def rates_figure(
    traces: Traces,
    populations: Sequence[str] | None = None,
    bin: float = BIN,
    title: str | None = None,
) -> Figure:
    """Draw the rate of each population over time, phases shaded; means over the cells and the samples of the batch.

    Of a spiking population the spikes are counted in bins and divided by width, cells and samples (Hz). Of others the rate variable is
    drawn: its mean, and dashed the 10 % and 90 % quantiles of cells and samples. Spiking populations share a panel.

    Parameters
    ----------
    traces
        What was recorded. Of more than two trials the first two are drawn, and the title says so.
    populations
        Spiking populations by their name, others by their rate variable, such as ``"pyr1.r"``. By default all that spike (and of which a
        variable was recorded, for else the number of their cells is not known), and each recorded variable called ``r``.
    bin
        Width of the bins in s (default 5 ms, or all of a shorter recording). All bins are as wide. They begin with the recording, and anew
        where phases were left out of it; there the line has a gap. What is left at the end and fills no bin is not drawn, and the title says so.
    title
        As in `traces_figure`.

    Raises
    ------
    NeurosimError
        Nothing recorded; an unknown population or variable; neither spikes nor a rate; bins longer than what is drawn; a spiking population
        whose number of cells the traces do not say.
    """
    check_not_empty(traces)
    if not bin > 0:
        raise NeurosimError(f"bin = {bin}; wanted a time above 0, in seconds.")
    spiking, variables = _rated(traces, populations)
    window = window_of(traces)
    recorded = stretches(window.spans, window.limits)
    longest = max((stop - start for start, stop in recorded), default=0.0)
    if bin == BIN:  # the default is for short recordings, too
        bin = min(bin, longest)
    if spiking and bin > longest + INSTANT:
        where = "that are drawn" if len(recorded) == 1 else "of the longest stretch that was recorded"
        raise NeurosimError(
            f"bin = {bin:g} is longer than the {longest:g} s {where}; bin is in seconds: 5 ms are bin=0.005."
        )
    rates = {p: binned_rate(traces, p, window.limits, bin) for p in spiking}
    batch = traces.batch
    panels: list[tuple[str, Sequence[str]]] = [("", spiking)] if spiking else []
    panels += [(name, [name]) for name in variables]
    with style():
        figure = empty_figure(WIDTH, 0.95 + 1.75 * len(panels))
        over = [f"mean over {batch} samples" if batch > 1 else "", window.note]
        if populations is None and len(spiking) < len(traces.spikes):
            over.append(f"{len(spiking)} of {len(traces.spikes)} spiking populations")
        if spiking:
            over.append(_unbinned(recorded, bin))
        figure.suptitle(title_of(title, traces, over, level=True))
        axes_of: list[Axes] = list(figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0])
        for axes, (variable, names) in zip(axes_of, panels, strict=True):
            if variable:
                _draw_mean(axes, traces, variable, window)
            for k, name in enumerate(names if not variable else ()):
                edges, rate = rates[name]
                label = f"{name} ({counted(len(spiking_cells(traces, name)), 'cell')})"
                axes.stairs(
                    rate, edges * 1e3, baseline=None, label=label, color=LINES[k % len(LINES)], linestyle=DASHES[k % len(DASHES)], linewidth=1.5,
                    zorder=3,
                )  # fmt: skip
            if not variable:
                axes.set_ylabel(f"firing rate (Hz)\nin bins of {bin * 1e3:g} ms")
                axes.set_ylim(bottom=0)
            axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
            shade(axes, window)
        time_axis(axes_of, window)
        name_phases(axes_of[0], window)
    return figure


def _draw_mean(axes: Axes, traces: Traces, name: str, window: Window) -> None:
    values = np.asarray(traces.values[name][window.keep], dtype=float)
    rows = values.reshape(len(values), -1)
    factor, unit = shown_unit(traces.units[name], float(np.nanmax(np.abs(rows), initial=0.0)))
    time = window.cut(traces.time[window.keep]) * 1e3
    mean = window.cut(rows.mean(axis=1)) * factor
    mark = {"marker": "o", "markersize": 4.0} if len(values) <= 3 * len(window.spans) else {}
    label = f"mean of {values.shape[-1]} cells" if values.shape[-1] > 1 else "1 cell"
    axes.plot(time, mean, color=LINES[0], zorder=3, label=label, **mark)
    if rows.shape[1] > 1:
        for q, label in zip(np.quantile(rows, (0.1, 0.9), axis=1), ("10 % and 90 %", None), strict=True):
            axes.plot(
                time, window.cut(q) * factor, color=LINES[0], linestyle=DASHES[1], linewidth=1.0, zorder=2, label=label
            )
    axes.set_ylabel(f"{name}\n({unit})")


def binned_rate(
    traces: Traces, name: str, limits: tuple[float, float], width: float = BIN
) -> tuple[np.ndarray, np.ndarray]:
    """``(edges, rate)``: spikes per second, cell and sample of a population in bins of `width` s between the limits (s).

    The bins begin at the first limit, and anew at each stretch that was recorded. Time before the next
    stretch that fills no bin, or was not recorded, has the rate NaN; the last bin is the last that is full.
    """
    cells = counted_cells(traces, name)
    spikes, batch = traces.spikes[name], traces.batch
    recorded = stretches(recorded_spans(traces), limits)
    parts, full = [], []
    for k, (start, stop) in enumerate(recorded):
        count = _full_bins(stop - start, width)
        parts.append(start + width * np.arange(count + 1))
        full += [True] * count
        if k + 1 < len(recorded):  # a gap, in bins that are not drawn
            after = np.arange(parts[-1][-1] + width, recorded[k + 1][0] - INSTANT, width)
            parts.append(after)
            full += [False] * (len(after) + 1)
    edges = np.concatenate(parts)
    times = np.asarray(spikes.time)[np.isin(spikes.cell, cells)]
    times = times[within(times, recorded)] + INSTANT  # a spike on an edge belongs to the bin that it begins
    counts, _ = np.histogram(times, edges) if len(edges) > 1 else (np.empty(0), edges)
    return edges, np.where(full, counts / (width * len(cells) * batch), np.nan)


def _full_bins(seconds: float, width: float) -> int:
    """How many bins fill a time; round-off does not cost one: 0.1 s hold 20 of 5 ms."""
    return int(np.floor((seconds + INSTANT) / width))


def _unbinned(recorded: Sequence[tuple[float, float]], width: float) -> str:
    """What a title says of the time that fills no bin."""
    left = [stop - start - width * _full_bins(stop - start, width) for start, stop in recorded]
    left = [seconds for seconds in left if seconds > INSTANT]
    if not left:
        return ""
    where = "at the end" if len(recorded) == 1 else f"in {len(left)} place{'s' if len(left) > 1 else ''}"
    return f"{sum(left) * 1e3:.4g} ms {where} fill no bin"


def counted_cells(traces: Traces, name: str) -> np.ndarray:
    """`spiking_cells`, where the traces say how many there are."""
    if not _counts(traces, name):
        raise NeurosimError(
            f"The traces do not say how many cells '{name}' has, so its spikes per cell are not known; record a variable of it as well, such as "
            f"record=['{name}.V']."
        )
    return spiking_cells(traces, name)


def _counts(traces: Traces, name: str) -> bool:
    """Whether the traces say how many cells a population has."""
    return name in traces.spike_cells or any(population_of(n) == name for n in traces.values)


def spiking_cells(traces: Traces, name: str) -> np.ndarray:
    """Numbers of the cells whose spikes are drawn; where the traces do not say, as far as they spiked."""
    numbers = np.asarray(traces.spike_cells.get(name, numbers_of(traces, name)))
    return numbers if len(numbers) else np.arange(int(np.max(traces.spikes[name].cell, initial=0)) + 1)


def spikes_of(traces: Traces, name: str, sample: int) -> tuple[np.ndarray, np.ndarray]:
    """``(times, cells)`` of one sample of the batch, over all trials."""
    spikes = traces.spikes[name]
    batch = traces.batch
    mine = np.asarray(spikes.sample) % batch == sample
    return np.asarray(spikes.time)[mine], np.asarray(spikes.cell)[mine]


def _spiking(traces: Traces, populations: Sequence[str] | None) -> list[str]:
    if not traces.spikes:
        raise NeurosimError("The traces hold no spikes: no population has a threshold.")
    return variables_of(populations, list(traces.spikes), None, "spiking population", "populations")


def _rated(traces: Traces, populations: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """Spiking populations and rate variables."""
    if isinstance(populations, str):
        raise NeurosimError(
            f"Got the text '{populations}' for `populations`; wanted a list, such as ['{populations}']."
        )
    rates = [n for n in traces.values if n.endswith(".r") and population_of(n) not in traces.spikes]
    if populations is None:
        if not traces.spikes and not rates:
            raise NeurosimError(
                "The traces hold neither spikes nor a variable 'r'; name the rate variables, such as populations=['int1.z'], or record them."
            )
        known = [name for name in traces.spikes if _counts(traces, name)]
        return known or list(traces.spikes)[: not rates], rates[:6]
    for name in populations:
        if name not in traces.spikes and name not in traces.values:
            raise unknown("spiking population or recorded variable", name, [*traces.spikes, *traces.values])
    names = list(dict.fromkeys(populations))
    return [n for n in names if n in traces.spikes], [n for n in names if n not in traces.spikes]


def draw_raster(axes: Axes, traces: Traces, populations: Sequence[str], sample: int, window: Window) -> None:
    """A row per cell, the first population on top."""
    numbers = [spiking_cells(traces, p) for p in populations]
    ends = np.cumsum([0, *map(len, numbers)])
    for k, name in enumerate(populations):
        times, cells = spikes_of(traces, name, sample)
        shown = np.isin(cells, numbers[k])
        order = np.argsort(numbers[k])
        rows = ends[k] + order[np.searchsorted(numbers[k], cells[shown], sorter=order)]
        axes.vlines(times[shown] * 1e3, rows - 0.4, rows + 0.4, color=LINES[k % len(LINES)], linewidth=1.0, zorder=3)
    for end in ends[1:-1]:
        axes.axhline(end - 0.5, color=GREY, linewidth=0.6, zorder=1)
    axes.set_ylim(ends[-1] - 0.4, -0.6)
    if len(populations) == 1:
        axes.set_ylabel(f"{populations[0]}\n(cell)")
        if np.array_equal(numbers[0], np.arange(ends[-1])):
            axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        else:
            rows = np.unique(np.linspace(0, ends[-1] - 1, min(8, ends[-1])).astype(int))
            axes.set_yticks(rows, [str(numbers[0][row]) for row in rows])
    else:
        axes.set_ylabel("spikes")
        labels = [p if len(n) == 1 else f"{p}\n({len(n)} cells)" for p, n in zip(populations, numbers, strict=True)]
        axes.set_yticks(0.5 * (ends[:-1] + ends[1:] - 1), labels)
    shade(axes, window)
