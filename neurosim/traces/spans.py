"""Phases and spikes on the time axis of a recording."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

#: Seconds: times nearer than this are equal.
INSTANT = 1e-9


@dataclass(frozen=True)
class PhaseSpan:
    """A phase of one trial on the time axis: ``start <= t < stop``, in seconds."""

    name: str
    trial: int
    start: float
    stop: float


@dataclass(frozen=True)
class Spikes:
    """Spikes of one population, one entry each: time in s, number of the sample, of the cell."""

    time: np.ndarray
    sample: np.ndarray
    cell: np.ndarray

    def of(self, cell: int, sample: int = 0) -> np.ndarray:
        """Spike times of one cell in one sample."""
        return self.time[(self.cell == cell) & (self.sample == sample)]


def base(phase: str) -> str:
    """``settle`` of ``settle[3]``, a phase in windows over labels."""
    return re.sub(r"\[\d+\]$", "", phase)


def cut(spans: Iterable[PhaseSpan], time: tuple[float, float] | None) -> list[PhaseSpan]:
    """The parts of phases that lie in a window of time (None: all of it)."""
    if time is None:
        return list(spans)
    start, stop = time
    parts = [replace(s, start=max(s.start, start), stop=min(s.stop, stop)) for s in spans]
    return [part for part in parts if part.stop - part.start > INSTANT]


def within(times: np.ndarray, spans: Iterable[tuple[float, float]]) -> np.ndarray:
    """Whether each of the times lies in one of the spans, ``start <= t < stop`` (s)."""
    times = np.asarray(times)
    inside = np.zeros(len(times), dtype=bool)
    for start, stop in spans:
        inside |= (times > start - INSTANT) & (times < stop - INSTANT)
    return inside
