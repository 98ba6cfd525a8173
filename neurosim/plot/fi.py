"""f-I curves: the response of cells to the current that they get."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from neurosim.describe.pieces import counted
from neurosim.errors import NeurosimError, unknown
from neurosim.plot.selection import check_not_empty, columns_of, numbers_of, title_of
from neurosim.plot.style import DASHES, LINES, empty_figure, shown_unit, style
from neurosim.plot.window import recorded_spans
from neurosim.traces import Traces
from neurosim.traces.layout import population_of
from neurosim.traces.spans import INSTANT, within

_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
#: Most points of a curve that get a marker each.
_MARKED = 40
#: Standard deviations below this share of the largest mean are the round-off of equal values and have no bar.
ROUND_OFF = 1e-9


class Response(NamedTuple):
    """One entry per trial, sample and cell: mean current, mean of what curves are told apart by (0 without it), response, duration."""

    current: np.ndarray
    by: np.ndarray
    response: np.ndarray
    seconds: np.ndarray  # how long was recorded


def fi_figure(
    traces: Traces,
    current: str,
    response: str | None = None,
    by: str | None = None,
    phase: str | None = None,
    discard: float = 0.0,
    title: str | None = None,
) -> Figure:
    """Draw the firing rate of a population, or the mean of a rate variable, against the mean current; a point per trial, sample and cell.

    Points with equal currents are drawn as their mean with a bar of one standard deviation. Where time was left out of a recording, rates and
    means are those of the time that was recorded. A trial of which less than half was recorded has no point, and the title says so.

    Parameters
    ----------
    traces
        What was recorded: the current of the cells that respond (paired by their numbers; those are drawn that both were recorded of), or of a
        population of one cell, which goes with all.
    current
        The recorded variable on the horizontal axis, such as ``"cell.I_s"``; a clamp or any other variable will do.
    response
        A spiking population (spikes per second and cell) or a recorded rate variable. By default the current's own population if it spikes,
        else its variable ``r``.
    by
        Another recorded variable; one curve for each of its values (at most 7).
    phase
        Read this phase only; by default whole trials.
    discard
        Leave out what lies before this time, in s, after the first recorded instant of the phase (or trial).
    title
        By default model and level.

    Raises
    ------
    NeurosimError
        Nothing recorded; an unknown variable, population or phase; nothing left of the phase; cells that do not fit; too many
        curves.
    """
    check_not_empty(traces)
    for name in [current, *([by] if by else [])]:
        if name not in traces.values:
            raise unknown("recorded variable", name, traces.values)
    if response is None:
        own = population_of(current)
        response = own if own in traces.spikes else f"{own}.r"
    found = read_response(traces, current, response, by, phase, discard)
    values = np.unique(_rounded(found.by))
    if len(values) > len(LINES):
        raise NeurosimError(f"'{by}' has {len(values)} values; at most {len(LINES)} curves can be told apart.")
    spiking = response in traces.spikes
    factor, unit = shown_unit(traces.units[current], float(np.abs(found.current).max(initial=0)))
    scale, shown = (1.0, "Hz") if spiking else shown_unit(traces.units[response], float(np.abs(found.response).max()))
    with style():
        figure = empty_figure(6.5, 4.3)
        where = f"{phase}, " if phase else ""
        shortest, longest = (f"{seconds * 1e3:.4g}" for seconds in (found.seconds.min(), found.seconds.max()))
        over = longest if shortest == longest else f"{shortest} to {longest}"
        note = f"{where}{counted(len(found.current), 'point')}, mean over {over} ms each"
        cut = len(_spans(traces, phase)) - len(_whole(_spans(traces, phase)))
        note += f", without {counted(cut, 'trial')} cut short" if cut else ""
        figure.suptitle(title_of(title, traces, [note], level=True))
        axes: Axes = figure.subplots()
        several = False
        for k, value in enumerate(values):
            mine = _rounded(found.by) == value
            x, mean, sd, repeats = curve(found.current[mine], found.response[mine])
            several |= bool((repeats > 1).any())
            label = None
            if by:
                times, by_unit = shown_unit(traces.units[by], float(np.abs(values).max()))
                label = f"{value * times:.4g} {by_unit.replace('dimensionless', '')}".rstrip()
            look = {"color": LINES[k], "linestyle": DASHES[k % len(DASHES)], "label": label}
            mark = {"marker": _MARKERS[k], "markersize": 4.0} if len(x) <= _MARKED else {}
            axes.plot(x * factor, mean * scale, **look, **mark)
            spread = (repeats > 1) & (sd > ROUND_OFF * np.abs(mean).max())
            if spread.any():
                axes.errorbar(
                    x[spread] * factor, mean[spread] * scale, sd[spread] * scale, fmt="none", ecolor=LINES[k], elinewidth=1, capsize=2,
                )  # fmt: skip
        axes.set_xlabel(f"{current}, mean ({unit})")
        cells = counted(len(_paired_cells(traces, response, current, by)), "cell")
        what = f"firing rate of {response}" if spiking else f"{response}, mean"
        axes.set_ylabel(f"{what} ({shown})\n{cells}" + (", mean ± sd of equal currents" if several else ""))
        if spiking:
            axes.set_ylim(bottom=0)
        if by:
            axes.legend(title=by, loc="upper left", bbox_to_anchor=(1.0, 1.0), handlelength=3.0)
    return figure


def read_response(
    traces: Traces, current: str, response: str, by: str | None = None, phase: str | None = None, discard: float = 0.0
) -> Response:
    """What `fi_figure` draws, before points of equal current are gathered."""
    spiking = response in traces.spikes
    if not spiking and response not in traces.values:
        raise unknown("spiking population or recorded variable", response, [*traces.spikes, *traces.values])
    numbers = _paired_cells(traces, response, current, by)
    batch = traces.values[current].shape[1]
    time = np.asarray(traces.time)
    columns: list[list[np.ndarray]] = [[], [], [], []]
    for trial, recorded in _whole(_spans(traces, phase)).items():
        begin = min(start for start, _ in recorded) + discard
        spans = [(max(start, begin), stop) for start, stop in recorded if stop - begin > INSTANT]
        if not spans:
            raise NeurosimError(
                f"discard = {discard:g} s leaves nothing of {f'phase {phase!r}' if phase else 'a trial'}, which lasts "
                f"{max(stop for _, stop in recorded) - begin + discard:g} s."
            )
        seconds = sum(stop - start for start, stop in spans)
        cuts = [np.searchsorted(time, np.array(span) - INSTANT) for span in spans]
        rows = [slice(int(first), int(last)) for first, last in cuts if last > first]
        if not rows:
            raise NeurosimError(
                f"No row was recorded from {begin * 1e3:g} to {max(stop for _, stop in spans) * 1e3:g} ms; record more often (a smaller "
                "stride)."
            )
        shape = batch, len(numbers)
        columns[0].append(_means(traces, current, rows, numbers))
        columns[1].append(_means(traces, by, rows, numbers) if by else np.zeros(shape))
        columns[3].append(np.full(shape, seconds))
        if not spiking:
            columns[2].append(_means(traces, response, rows, numbers))
            continue
        spikes = traces.spikes[response]
        inside = within(np.asarray(spikes.time), spans) & (np.asarray(spikes.sample) // batch == trial)
        counts = np.zeros((batch, int(max(np.max(spikes.cell, initial=0), numbers.max())) + 1))
        np.add.at(counts, (np.asarray(spikes.sample)[inside] % batch, np.asarray(spikes.cell)[inside]), 1)
        columns[2].append(counts[:, numbers] / seconds)
    return Response(*(np.concatenate(column).ravel() for column in columns))


def curve(current: np.ndarray, response: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """``(currents, means, standard deviations, numbers of points)``: points of equal current (six digits) gathered, rising."""
    values, place, counts = np.unique(_rounded(current), return_inverse=True, return_counts=True)
    means = np.bincount(place, response) / counts
    squares = np.bincount(place, (response - means[place]) ** 2)
    return values, means, np.sqrt(squares / np.maximum(counts - 1, 1)), counts


def _rounded(values: np.ndarray) -> np.ndarray:
    largest = np.abs(values).max(initial=0)
    step = 10.0 ** (np.floor(np.log10(largest)) - 6) if largest > 0 else 1.0
    return np.round(values / step) * step


def _numbers(traces: Traces, response: str) -> np.ndarray:
    from neurosim.plot.raster import counted_cells

    return counted_cells(traces, response) if response in traces.spikes else numbers_of(traces, response)


def _paired_cells(traces: Traces, response: str, current: str, by: str | None) -> np.ndarray:
    """Numbers of the cells that the response, the current and `by` were all recorded of; one cell without a number goes with all."""
    numbers = _numbers(traces, response)
    for name in [current, *([by] if by else [])]:
        if _shared(traces, name):
            continue
        own = np.asarray(traces.cells.get(population_of(name), np.arange(traces.values[name].shape[-1])))
        chosen = population_of(name) in traces.cells
        missing = np.setdiff1d(numbers, own)
        fits = chosen or not len(missing)  # of all its cells: the population is as large
        fits &= population_of(response) in traces.cells or not len(np.setdiff1d(own, numbers))
        if not fits:
            raise NeurosimError(
                f"'{name}' has {len(own)} cells and '{response}' has {len(numbers)}; wanted as many, or one. Record the same cells of both."
            )
        if len(missing) == len(numbers) or (len(own) == 1 and len(missing)):
            listed = ", ".join(map(str, missing[:12])) + (", ..." if len(missing) > 12 else "")
            raise NeurosimError(
                f"'{name}' was recorded of cell {', '.join(map(str, own[:12]))} and not of {listed}, of which '{response}' was; record the same "
                "cells of both."
            )
        numbers = numbers[np.isin(numbers, own)]
    return numbers


def _shared(traces: Traces, name: str) -> bool:
    """Whether a variable is that of a population of one cell, and not of one cell that was chosen."""
    return traces.values[name].shape[-1] == 1 and population_of(name) not in traces.cells


def _means(traces: Traces, name: str, rows: Sequence[slice], numbers: np.ndarray) -> np.ndarray:
    """(samples, cells): the mean over the rows, of the cells with these numbers; of a population of one cell the same for every cell."""
    parts = [np.asarray(traces.values[name][part], dtype=float) for part in rows]
    means = np.concatenate(parts).mean(axis=0)
    if _shared(traces, name):
        return np.broadcast_to(means, (len(means), len(numbers)))
    return means[:, columns_of(traces, name, numbers.tolist())]


def _spans(traces: Traces, phase: str | None) -> dict[int, list[tuple[float, float]]]:
    """Start and stop of what was recorded of the phase, or of the trial, in each trial."""
    recorded = recorded_spans(traces)
    names: Sequence[str] = list(dict.fromkeys(p.name for p in recorded))
    if phase is not None and phase not in names:
        raise unknown("phase", phase, names)
    spans: dict[int, list[tuple[float, float]]] = {}
    for span in recorded:
        if phase in (None, span.name):
            spans.setdefault(span.trial, []).append((span.start, span.stop))
    if not spans:
        step = float(np.diff(traces.time).mean()) if len(traces.time) > 1 else 0.0
        spans = {0: [(float(traces.time[0]), float(traces.time[-1]) + step)]}
    return spans


def _whole(spans: dict[int, list[tuple[float, float]]]) -> dict[int, list[tuple[float, float]]]:
    """The trials that were recorded for at least half as long as the longest.

    The rate in a stub of one that was cut short hangs on whether a spike fell into it.
    """
    seconds = {trial: sum(stop - start for start, stop in recorded) for trial, recorded in spans.items()}
    longest = max(seconds.values())
    return {trial: recorded for trial, recorded in spans.items() if seconds[trial] > 0.5 * longest - INSTANT}
