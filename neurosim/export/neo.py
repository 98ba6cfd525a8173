"""Traces as objects of Neo, and back."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from neurosim.errors import NeurosimError
from neurosim.export.layout import Train, extent, optional, require_content, spacing, spikes_of, trains
from neurosim.traces import PhaseSpan, Traces
from neurosim.traces.layout import phase_spans
from neurosim.traces.spans import INSTANT

#: Annotations of the block without which traces cannot be made of it.
REQUIRED = ("time", "metadata", "units", "cells", "spiking")


def to_neo(traces: Traces) -> Any:
    """Make a ``neo.Block`` of the traces; it is held in memory, so `Traces.select` a part of a large recording first.

    A `Segment` holds one sample of the batch (those that were presented at once; trials follow one another in it):

    - an `AnalogSignal` per variable, its channels the cells; array annotation ``cell``, the numbers of the cells.
      Where rows are not equally spaced (chosen phases or trials, the steady level) it is an
      `IrregularlySampledSignal`;
    - a `SpikeTrain` per cell of the spiking populations; array annotation ``sample``, the number of the sample at
      each spike. A train has one ``t_start`` and ``t_stop`` (from the first to the last recorded phase), which do not
      show gaps between: where chosen phases or trials were recorded, the time that was recorded is that of the epoch;
    - an `Epoch` of the phases; array annotations ``trial`` and ``stop`` (seconds).

    Signals and spike trains have the annotations ``population`` and ``variable`` or ``cell``, for
    ``block.filter(population="pyr1")``. The block's annotations hold the metadata, the exact times of the rows (the
    signals' own times differ by rounding), units, and ``weights`` ``{projection: (snapshots, *shape)}`` with
    ``weight_trials``, trials presented before each snapshot.

    Raises
    ------
    NeurosimError
        Neo is not installed; empty traces; a unit that the package `quantities` does not know.
    """
    neo, pq = optional("neo", "neo"), optional("quantities", "neo")
    require_content(traces)
    name = traces.metadata.get("model")
    block = neo.Block(
        name=name,
        description="simulated by neurosim",
        metadata=traces.metadata,
        time=np.asarray(traces.time),
        units=dict(traces.units),
        cells={population: np.asarray(cells) for population, cells in traces.cells.items()},
        spiking=list(traces.spikes),
        spike_cells={population: np.asarray(cells) for population, cells in traces.spike_cells.items()},
        spike_span=traces.spike_span,
        weights={projection: np.asarray(weights) for projection, weights in traces.weights.items()},
        weight_trials=np.asarray(traces.weight_trials),
    )
    for position in range(traces.batch):
        segment = neo.Segment(name=f"sample {position} of the batch", position=position)
        segment.epochs.append(_epoch(neo, pq, traces))
        block.segments.append(segment)
    for variable, values in traces.values.items():
        whole, unit = np.asarray(values), _unit(pq, traces.units[variable])
        for position, segment in enumerate(block.segments):
            _append_signal(neo, pq, segment, traces, variable, whole[:, position], unit)
    start, stop = extent(traces)
    for train in trains(traces):
        block.segments[train.position].spiketrains.append(
            neo.SpikeTrain(
                train.times,
                units="s",
                t_start=start * pq.s,
                t_stop=stop * pq.s,
                name=f"{train.population}[{train.cell}]",
                array_annotations={"sample": train.samples},
                population=train.population,
                cell=train.cell,
            )
        )
    block.check_relationships()
    return block


def _append_signal(neo: Any, pq: Any, segment: Any, traces: Traces, name: str, values: np.ndarray, unit: Any) -> None:
    population, _, variable = name.partition(".")
    about: dict[str, Any] = dict(
        name=name,
        array_annotations={"cell": traces.cells_of(population)},
        population=population,
        variable=variable,
    )
    period = spacing(traces.time)
    if period is None:
        signal = neo.IrregularlySampledSignal(np.asarray(traces.time) * pq.s, values, units=unit, **about)
        segment.irregularlysampledsignals.append(signal)
    else:
        signal = neo.AnalogSignal(
            values, units=unit, t_start=float(traces.time[0]) * pq.s, sampling_period=period * pq.s, **about
        )
        segment.analogsignals.append(signal)


def _epoch(neo: Any, pq: Any, traces: Traces) -> Any:
    starts, stops = (np.array([getattr(p, end) for p in traces.phases], dtype=float) for end in ("start", "stop"))
    return neo.Epoch(
        times=starts * pq.s,
        durations=(stops - starts) * pq.s,
        labels=np.array([p.name for p in traces.phases], dtype=str),
        name="phases",
        array_annotations={"trial": np.array([p.trial for p in traces.phases], dtype=np.int64), "stop": stops},
    )


def _unit(pq: Any, text: str) -> Any:
    """The unit of `quantities` for a base unit as Brian2 writes it: volt, volt2, siemens / (meter ** 2), 1."""
    if text in ("1", ""):
        return pq.dimensionless
    written = re.sub(r"(?<=[a-z])(\d+)\b", r"**\1", text).replace("mmolar", "(mol/m**3)")
    try:
        return pq.Quantity(1.0, written).units
    except (LookupError, ValueError, SyntaxError, TypeError, AttributeError) as error:
        raise NeurosimError(f"The unit '{text}' is none that Neo's package quantities knows ({error}).") from error


def from_neo(block: Any) -> Traces:
    """Make traces of a block that `to_neo` made, also after its signals were rescaled or cut (time, channels).

    Phases, spikes and weights are not cut with the signals.

    Raises
    ------
    NeurosimError
        Neo is not installed; no block, or one that was made otherwise; segments or signals that do not match.
    """
    neo, pq = optional("neo", "neo"), optional("quantities", "neo")
    if not isinstance(block, neo.Block):
        raise NeurosimError(
            f"Got an object of type {type(block).__name__}; wanted a neo.Block made by neurosim.export.to_neo."
        )
    notes = block.annotations
    if missing := [key for key in REQUIRED if key not in notes]:
        raise NeurosimError(
            f"The block '{block.name}' lacks the annotations {', '.join(missing)}; wanted one made by neurosim.export.to_neo."
        )
    try:
        return _traces(block, pq)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, NeurosimError):
            raise
        raise NeurosimError(
            f"The block '{block.name}' does not fit what its annotations say ({type(error).__name__}: {error}); "
            "wanted one made by neurosim.export.to_neo, whose annotations were left as they are."
        ) from error


def _traces(block: Any, pq: Any) -> Traces:
    notes = block.annotations
    time = np.asarray(notes["time"])
    cells = dict(notes["cells"])
    found: dict[str, list[np.ndarray]] = {}
    spikes: dict[str, list[Train]] = {population: [] for population in notes["spiking"]}
    for segment in block.segments:
        for signal in (*segment.analogsignals, *segment.irregularlysampledsignals):
            name = f"{signal.annotations['population']}.{signal.annotations['variable']}"
            values = signal.rescale(_unit(pq, notes["units"][name])).magnitude
            found.setdefault(name, []).append(values)
            time = _times(signal.times.rescale("s").magnitude, time)
            _note_cells(cells, signal.annotations["population"], signal.array_annotations["cell"])
        for train in segment.spiketrains:
            population, cell = train.annotations["population"], train.annotations["cell"]
            times = train.rescale("s").magnitude
            spikes[population].append(Train(population, cell, 0, times, train.array_annotations["sample"]))
    for name, parts in found.items():
        if len(parts) != len(block.segments) or len({part.shape for part in parts}) > 1 or len(parts[0]) != len(time):
            raise NeurosimError(
                f"The signals '{name}' do not match: shapes {', '.join(str(part.shape) for part in parts)} in {len(block.segments)} "
                f"segments; wanted one in each, all of {len(time)} rows."
            )
    weights = dict(notes.get("weights", {}))
    return Traces(
        time,
        {name: np.stack(parts, axis=1) for name, parts in found.items()},
        {name: unit for name, unit in notes["units"].items() if name in found or name in weights},
        _phases(block),
        notes["metadata"],
        {population: spikes_of(trains) for population, trains in spikes.items()},
        cells,
        weights,
        notes.get("weight_trials", np.empty(0, dtype=np.int64)),
        spike_cells=dict(notes.get("spike_cells", {})),
        spike_span=notes.get("spike_span"),
    )


def _times(rows: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """The exact times of the rows, wherever the signal still has all of them or a part."""
    first = int(np.searchsorted(exact, rows[0] - INSTANT)) if len(rows) else 0
    part = exact[first : first + len(rows)]
    return part if len(part) == len(rows) and np.allclose(part, rows, rtol=0, atol=INSTANT) else rows


def _note_cells(cells: dict[str, np.ndarray], population: str, numbers: np.ndarray) -> None:
    if population in cells or not np.array_equal(numbers, np.arange(len(numbers))):
        cells[population] = np.asarray(numbers)


def _phases(block: Any) -> list[PhaseSpan]:
    for segment in block.segments:
        for epoch in segment.epochs:
            if epoch.name == "phases":
                starts = epoch.times.rescale("s").magnitude
                columns = (epoch.labels, epoch.array_annotations["trial"], starts, epoch.array_annotations["stop"])
                return phase_spans(*columns)
    return []
