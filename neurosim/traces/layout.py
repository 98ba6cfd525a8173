"""What a recording holds, in memory as in its file, by the names of the file's datasets.

The file (HDF5, version 3)::

    /                       format, metadata (JSON; each entry also as an attribute of its own)
    time                    (rows,) s
    POPULATION/VARIABLE     (rows, samples of the batch, cells); unit, population, axes, and
                            indices (numbers of the cells)
    phases/{name, trial, start, stop}
    spikes_until            (writings,) s: spikes were kept from 0 to the last of these
    spikes/POPULATION/{time, sample, cell}; indices (numbers of the cells whose spikes are kept)
    weights/PROJECTION      (snapshots, *shape)
    weight_trials           (snapshots,)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neurosim.traces.spans import PhaseSpan

#: Version of the file layout; a newer one is refused.
FORMAT = 3
#: How an HDF5 file begins.
SIGNATURE = b"\x89HDF\r\n\x1a\n"
#: Groups and datasets that are not populations.
RESERVED = ("time", "phases", "spikes", "spikes_until", "weights", "weight_trials")


@dataclass(frozen=True)
class Layout:
    """What a recording holds.

    Parameters
    ----------
    variables
        ``{"population.variable": (samples, cells)}``.
    units
        Of each, and of the weights.
    cells
        ``{population: numbers of the recorded cells}``.
    spike_cells
        ``{population: numbers of the cells whose spikes are kept}``.
    weights
        ``{projection: shape}``.
    dtype
        Of the variables and weights.
    metadata
        See `Traces`.
    phases
        Names of the phases that may come.
    """

    variables: Mapping[str, tuple[int, int]]
    units: Mapping[str, str]
    cells: Mapping[str, np.ndarray]
    spike_cells: Mapping[str, np.ndarray]
    weights: Mapping[str, tuple[int, ...]]
    dtype: str
    metadata: Mapping[str, Any]
    phases: Sequence[str]


def population_of(name: str) -> str:
    """``pyr1`` of ``pyr1.u``."""
    return name.partition(".")[0]


def phase_columns(spans: Sequence[PhaseSpan]) -> dict[str, np.ndarray]:
    """Phases as columns."""
    return {
        "phases/name": np.array([s.name.encode() for s in spans] or [b""])[: len(spans)],
        "phases/trial": np.array([s.trial for s in spans], dtype=np.int64),
        "phases/start": np.array([s.start for s in spans], dtype=float),
        "phases/stop": np.array([s.stop for s in spans], dtype=float),
    }


def phase_spans(*columns: Iterable[Any]) -> list[PhaseSpan]:
    """Phases from columns of names, trials, starts and stops; the shortest column ends the list."""
    spans = []
    for name, trial, start, stop in zip(*columns, strict=False):
        text = name.decode() if isinstance(name, bytes) else str(name)
        spans.append(PhaseSpan(text, int(trial), float(start), float(stop)))
    return spans
