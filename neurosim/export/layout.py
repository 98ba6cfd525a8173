"""What the formats share: the spacing of rows, the spike trains of single cells, the checks before writing."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from neurosim.errors import NeurosimError
from neurosim.traces import Spikes, Traces
from neurosim.traces.spans import INSTANT


class Train(NamedTuple):
    """Spikes of one cell at one position of the batch: times (s), and the number of the sample at each."""

    population: str
    cell: int
    position: int
    times: np.ndarray
    samples: np.ndarray


def optional(module: str, extra: str) -> Any:
    """Import an optional library.

    Raises
    ------
    NeurosimError
        It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise NeurosimError(f"This needs {module} ({error}): pip install 'neurosim[{extra}]'.") from error


def require_content(traces: Traces) -> None:
    """Refuse what is no `Traces`, and traces that hold nothing."""
    if not isinstance(traces, Traces):
        raise NeurosimError(
            f"Got an object of type {type(traces).__name__}; wanted Traces, such as simulate(...).traces."
        )
    if not (traces.values and len(traces.time)) and not traces.spikes and not len(traces.weight_trials):
        raise NeurosimError(
            "The traces are empty: no row of a variable, no spiking population, no weights. Record something, such as "
            "record=['population.variable']."
        )


def require_folder(path: Path) -> None:
    """Refuse a file in a folder that does not exist."""
    if not path.parent.is_dir():
        raise NeurosimError(f"The folder '{path.parent}' does not exist; make it, or give another path.")


def spacing(time: np.ndarray) -> float | None:
    """Seconds from row to row, None where the rows are not equally spaced (or fewer than two)."""
    if len(time) < 2 or not time[-1] > time[0]:
        return None
    period = float(f"{(time[-1] - time[0]) / (len(time) - 1):.12g}")  # 0.0001 in place of 0.00010000000000000003
    even = time[0] + period * np.arange(len(time))
    return period if np.abs(time - even).max() < 1e-6 * period else None


def observed(traces: Traces) -> list[tuple[float, float]]:
    """When spikes were kept, in seconds.

    As the recording says, else the phases, those that touch joined to one; the extent of rows and spikes without phases.
    """
    if traces.spike_span is not None:
        return [traces.spike_span]
    spans = sorted((span.start, span.stop) for span in traces.phases)
    if not spans:
        moments = _moments(traces)
        return [(float(moments.min()), float(moments.max()))] if len(moments) else []
    joined = spans[:1]
    for start, stop in spans[1:]:
        if start <= joined[-1][1] + INSTANT:  # rounding
            joined[-1] = (joined[-1][0], max(joined[-1][1], stop))
        else:
            joined.append((start, stop))
    return joined


def extent(traces: Traces) -> tuple[float, float]:
    """From the beginning to the end of the recording, gaps included, in seconds."""
    moments = np.concatenate([_moments(traces), *observed(traces)])
    return (float(moments.min()), float(moments.max())) if len(moments) else (0.0, 0.0)


def _moments(traces: Traces) -> np.ndarray:
    """Times (s) of the first and last row, and of all spikes."""
    time = np.asarray(traces.time)
    return np.concatenate([time[:1], time[-1:], *(np.asarray(s.time) for s in traces.spikes.values())])


def trains(traces: Traces) -> Iterator[Train]:
    """Spike trains of all recorded cells, silent ones included, and of all others that fired."""
    batch = traces.batch
    for population, spikes in traces.spikes.items():
        times, samples, cells = (np.asarray(column) for column in (spikes.time, spikes.sample, spikes.cell))
        known = traces.spike_cells.get(population, [])
        if not len(known) and any(name.partition(".")[0] == population for name in traces.values):
            known = traces.cells_of(population)
        numbers = np.union1d(known, cells).astype(np.int64)
        unit = samples % batch * len(numbers) + np.searchsorted(numbers, cells)
        order = np.lexsort((times, unit))
        edges = np.searchsorted(unit[order], np.arange(batch * len(numbers) + 1))
        for k in range(batch * len(numbers)):
            chosen = order[edges[k] : edges[k + 1]]
            position, column = divmod(k, len(numbers))
            yield Train(population, int(numbers[column]), position, times[chosen], samples[chosen])


def spikes_of(found: list[Train]) -> Spikes:
    """Spikes of one population from its trains: in the order of time, at one time by sample and cell."""
    times = np.concatenate([np.empty(0), *(train.times for train in found)])
    samples = np.concatenate([np.empty(0, dtype=np.int64), *(train.samples for train in found)]).astype(np.int64)
    cells = np.repeat([train.cell for train in found], [len(train.times) for train in found]).astype(np.int64)
    order = np.lexsort((cells, samples, times))
    return Spikes(times[order], samples[order], cells[order])
