"""The part of traces that `Traces.select` keeps. What lies in a file is not read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from neurosim.equations import seconds
from neurosim.errors import NeurosimError, check_list, unknown
from neurosim.traces.layout import population_of
from neurosim.traces.spans import INSTANT, PhaseSpan, Spikes, base, cut, within

if TYPE_CHECKING:
    from neurosim.traces.traces import Traces

#: ``{population: numbers of cells}``.
Cells = Mapping[str, Sequence[int]]
#: A choice of names, or of numbers; None chooses all.
Names = Sequence[str] | None
Numbers = Sequence[int] | None
#: Start and stop in seconds.
Interval = tuple[float, float]


def selected(
    traces: Traces,
    variables: Names,
    populations: Names,
    cells: Cells,
    time: tuple[float | str, float | str] | None,
    phases: Names,
    trials: Numbers,
) -> dict[str, Any]:
    """The fields of `Traces` that a selection changes; see `Traces.select`."""
    named = {"variables": variables, "populations": populations, "phases": phases}
    for what, given in named.items():
        check_list(what, given)
    interval = None if time is None else _interval(time)
    if trials is not None and np.ndim(trials) != 1:
        raise NeurosimError(f"trials = {trials!r}; wanted a list: [{trials}].")
    _check_names(traces, variables or (), (*(populations or ()), *cells))
    names, matrices = _names(traces, variables, populations)
    columns = _columns(traces, cells, names)
    spans = _spans(traces, phases, trials)
    rows, intervals = _rows(traces, spans, interval, phases is not None or trials is not None)
    shown = {population_of(name) for name in names}
    spikes = {
        p: _spikes_within(traces.spikes[p], intervals, cells.get(p))
        for p in traces.spikes
        if (populations is None or p in populations) and (variables is None or p in shown)
    }
    if not len(rows) and names and len(traces.time):
        raise NeurosimError(
            f"No row lies in the selection (time = {time}, phases = {phases}, trials = {trials}); "
            f"the {len(traces.time)} rows run from {traces.time[0]:g} to {traces.time[-1]:g} s."
        )
    if not names and not matrices and not spikes:
        raise NeurosimError(
            f"The selection is empty: variables = {variables}, populations = {populations}. "
            f"Recorded: {', '.join([*traces.values, *traces.weights])}."
        )
    kept = np.arange(len(traces.weight_trials))
    if trials is not None:
        kept = np.flatnonzero(np.isin(traces.weight_trials, trials))
    values = {n: _part(traces.values[n], rows, columns.get(population_of(n))) for n in names}
    return {
        "time": traces.time[rows],
        "values": values,
        "units": {name: traces.units[name] for name in (*names, *matrices) if name in traces.units},
        "phases": cut(spans, interval),
        "spikes": spikes,
        "cells": {
            p: np.asarray(cells[p]) if p in columns else traces.cells_of(p)
            for p in dict.fromkeys([*map(population_of, names), *spikes])
            if p in traces.cells or p in columns
        },
        "spike_cells": {
            p: np.asarray(cells.get(p, traces.spike_cells.get(p)))
            for p in spikes
            if p in traces.spike_cells or p in cells
        },
        "spike_span": traces.spike_span if time is phases is trials is None else None,
        "weights": {name: _part(traces.weights[name], kept, None) for name in matrices},
        "weight_trials": traces.weight_trials[kept],
    }


def _interval(time: Any) -> Interval:
    if isinstance(time, str) or np.ndim(time) != 1 or len(time) != 2:
        raise NeurosimError(f"time = {time!r}; wanted (start, stop) in seconds.")
    try:
        start, stop = (seconds(t) if isinstance(t, str) else float(t) for t in time)
    except (TypeError, ValueError) as error:
        raise NeurosimError(
            f"time = {time!r}; wanted two numbers in seconds, or texts such as '300*ms'.",
        ) from error
    return start, stop


def _check_names(traces: Traces, variables: Iterable[str], populations: Iterable[str]) -> None:
    """Refuse names that were not recorded."""
    known = list(dict.fromkeys([*map(population_of, traces.values), *traces.spikes]))
    for population in populations:
        if population not in known:
            raise unknown("recorded population", population, known)
    recorded = [*traces.values, *traces.weights]
    for name in variables:
        if name not in recorded:
            raise unknown("recorded variable or projection", name, recorded)


def _names(traces: Traces, variables: Names, populations: Names) -> tuple[list[str], list[str]]:
    """The selected variables, and the projections whose weights are."""
    names = [name for name in traces.values if variables is None or name in variables]
    if populations is not None:
        names = [name for name in names if population_of(name) in populations]
    if variables is not None:
        return names, [name for name in traces.weights if name in variables]
    return names, list(traces.weights) if populations is None else []


def _columns(traces: Traces, cells: Cells, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Columns of the chosen cells in the variables `names`, by population.

    The choice of cells of which only spikes were recorded is checked.
    """
    found = {}
    for population, wanted in cells.items():
        numbers = np.asarray(wanted)
        if numbers.ndim != 1 or (len(numbers) and not np.issubdtype(numbers.dtype, np.integer)):
            raise NeurosimError(
                f"cells of '{population}' = {wanted!r}; wanted a list of whole numbers.",
            )
        if len(np.unique(numbers)) < len(numbers):
            raise NeurosimError(f"cells of '{population}' = {wanted!r}: one is named twice.")
        of_spikes = all(population_of(name) != population for name in names)
        if of_spikes and population not in traces.spike_cells:
            continue  # the traces do not say how many cells there are
        recorded = traces.spike_cells[population] if of_spikes else traces.cells_of(population)
        here = {int(cell): k for k, cell in enumerate(recorded)}
        if not len(wanted):
            raise NeurosimError(f"No cell of '{population}' is named; wanted at least one.")
        missing = [int(cell) for cell in wanted if int(cell) not in here]
        if missing:
            some = ", ".join(map(str, list(here)[:8])) + (", ..." if len(here) > 8 else "")
            recorded = f"the file has {len(here)}: {some}"
            raise NeurosimError(f"Cells {missing} of '{population}' were not recorded; {recorded}.")
        if not of_spikes:
            found[population] = np.array([here[int(cell)] for cell in wanted])
    return found


def _spans(traces: Traces, phases: Names, trials: Numbers) -> list[PhaseSpan]:
    names = list(dict.fromkeys(span.name for span in traces.phases))
    for phase in phases or ():
        if phase not in names and phase not in {base(name) for name in names}:
            raise unknown("recorded phase", phase, names)
    presented = {span.trial for span in traces.phases}
    # The last snapshot of weights belongs to the trial that would follow.
    there = presented | set(traces.weight_trials.tolist())
    for trial in () if trials is None else trials:
        if trial not in there:
            known = presented or there
            which = "no trial was"
            if known:
                which = f"recorded are {len(known)} trials, {min(known)} to {max(known)}"
            raise NeurosimError(f"Trial {trial} was not recorded; {which}.")
    return [
        span
        for span in traces.phases
        if (phases is None or span.name in phases or base(span.name) in phases)
        and (trials is None or span.trial in trials)
    ]


def _rows(
    traces: Traces, spans: Iterable[PhaseSpan], time: Interval | None, by_span: bool
) -> tuple[np.ndarray, list[Interval]]:
    """Rows that are kept, and the intervals of time in which spikes are."""
    low, high = time if time is not None else (-np.inf, np.inf)
    intervals = [(low, high)]
    if by_span:
        intervals = [(max(span.start, low), min(span.stop, high)) for span in spans]
    cuts = [np.searchsorted(traces.time, (a - INSTANT, b - INSTANT)) for a, b in intervals]
    rows = [np.arange(a, b) for a, b in cuts if b > a]
    return np.concatenate(rows) if rows else np.empty(0, dtype=int), intervals


def _spikes_within(spikes: Spikes, intervals: list[Interval], cells: Numbers) -> Spikes:
    kept = within(spikes.time, intervals)
    if cells is not None:
        kept &= np.isin(spikes.cell, cells)
    return Spikes(spikes.time[kept], spikes.sample[kept], spikes.cell[kept])


def _part(values: Any, rows: np.ndarray, columns: np.ndarray | None) -> Any:
    if not isinstance(values, np.ndarray):
        return values.part(rows, columns)
    if len(rows) == len(values):
        part = values
    elif len(rows) and rows[-1] - rows[0] == len(rows) - 1:  # a view
        part = values[rows[0] : rows[-1] + 1]
    else:
        part = values[rows]
    return part if columns is None else part[..., columns]
