"""What a recording holds, in memory as in its file, by the names of the file's datasets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neurosim.traces.traces import PhaseSpan


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


def phase_columns(spans: Sequence[PhaseSpan]) -> dict[str, np.ndarray]:
    """Phases as columns."""
    return {
        "phases/name": np.array([s.name.encode() for s in spans] or [b""])[: len(spans)],
        "phases/trial": np.array([s.trial for s in spans], dtype=np.int64),
        "phases/start": np.array([s.start for s in spans], dtype=float),
        "phases/stop": np.array([s.stop for s in spans], dtype=float),
    }


def phase_spans(*columns: Iterable[Any]) -> list[PhaseSpan]:
    """Phases from columns of names, trials, starts and stops; of columns that differ in length, what all of them have."""
    return [
        PhaseSpan(name.decode() if isinstance(name, bytes) else str(name), int(trial), float(start), float(stop))
        for name, trial, start, stop in zip(*columns, strict=False)
    ]
