"""Recorded traces: time, values, units, phases; in memory, or in an HDF5 file that is read when it is asked for."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from neurosim.equations import seconds
from neurosim.errors import NeurosimError, check_list, unknown
from neurosim.files import user_path

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
    """Spikes of one population: time in seconds, number of the sample, number of the cell, one entry per spike."""

    time: np.ndarray
    sample: np.ndarray
    cell: np.ndarray

    def of(self, cell: int, sample: int = 0) -> np.ndarray:
        """Spike times of one cell in one sample."""
        return self.time[(self.cell == cell) & (self.sample == sample)]


@dataclass(repr=False)
class Traces:
    """Recorded variables.

    Attributes
    ----------
    time
        (rows,) in seconds, increasing; not always equally spaced (chosen phases, chosen trials, the steady level).
    values
        ``{"population.variable": (rows, batch, cells)}``, base SI units. NumPy arrays, or `neurosim.traces.file.Stored` ones, which read from
        their file what is asked for: index them like an array (``traces["pyr1.u"][:100, 0]``).
    units
        ``{"population.variable": unit as text}``, and of recorded weights by projection.
    phases
        Phases in their order on the time axis.
    metadata
        Model, level, seed, dt, versions, ...
    spikes
        ``{population: Spikes}`` of the spiking populations.
    cells
        ``{population: (columns,) numbers of the recorded cells}``; a population that is not named was recorded whole.
    spike_cells
        ``{population: numbers of the cells whose spikes were kept}``, silent cells included.
    spike_span
        (start, stop) in seconds over which spikes were kept; None: over `phases`.
    weights
        ``{projection: (snapshots, *shape of its weights)}``.
    weight_trials
        (snapshots,) how many trials had been presented before each snapshot of the weights.
    file
        The open file, where values are read from one.
    """

    time: np.ndarray
    values: Mapping[str, Any]
    units: Mapping[str, str]
    phases: Sequence[PhaseSpan]
    metadata: dict[str, Any] = field(default_factory=dict)
    spikes: Mapping[str, Spikes] = field(default_factory=dict)
    cells: Mapping[str, np.ndarray] = field(default_factory=dict)
    weights: Mapping[str, Any] = field(default_factory=dict)
    weight_trials: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    file: Any = field(default=None, repr=False, compare=False)
    spike_cells: Mapping[str, np.ndarray] = field(default_factory=dict)
    spike_span: tuple[float, float] | None = None

    def __getitem__(self, name: str) -> Any:
        if name not in self.values:
            raise unknown("recorded variable", name, self.values)
        return self.values[name]

    def __repr__(self) -> str:
        trials = len({span.trial for span in self.phases})
        lines = [f"Traces of {self.metadata.get('model', 'a circuit')}: {len(self.time)} rows, {trials} trials"]
        if len(self.time):
            lines[0] += f", {self.time[0]:g} to {self.time[-1]:g} s"
        lines += [
            f"  {name}: {tuple(values.shape)} {self.units.get(name, '')}".rstrip()
            for name, values in self.values.items()
        ]
        lines += [f"  {name}: {tuple(values.shape)} weights" for name, values in self.weights.items()]
        lines += [f"  spikes of {name}: {len(spikes.time)}" for name, spikes in self.spikes.items()]
        return "\n".join(lines)

    def __enter__(self) -> Traces:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Close the file that values are read from; nothing to do in memory."""
        if self.file is not None:
            self.file.close()

    # ---------------------------------------------------------------- parts

    @property
    def batch(self) -> int:
        """Samples presented at once; where spikes alone were recorded, nobody knows, and each sample stands for itself."""
        for values in self.values.values():
            return values.shape[1]
        return 1 + max((int(np.max(s.sample)) for s in self.spikes.values() if len(s.sample)), default=0)

    def cells_of(self, population: str) -> np.ndarray:
        """Numbers of the recorded cells of a population, one per column of its variables."""
        if population in self.cells:
            return np.asarray(self.cells[population])
        names = [name for name in self.values if name.partition(".")[0] == population]
        if not names:
            raise unknown(
                "population with recorded variables",
                population,
                dict.fromkeys(n.partition(".")[0] for n in self.values),
            )
        return np.arange(self.values[names[0]].shape[-1])

    def _populations(self) -> list[str]:
        return list(dict.fromkeys([*(name.partition(".")[0] for name in self.values), *self.spikes]))

    def select(
        self,
        variables: Sequence[str] | None = None,
        *,
        populations: Sequence[str] | None = None,
        cells: Mapping[str, Sequence[int]] | None = None,
        time: tuple[float | str, float | str] | None = None,
        phases: Sequence[str] | None = None,
        trials: Sequence[int] | None = None,
    ) -> Traces:
        """A part of the traces; what lies in a file is not read.

        Parameters
        ----------
        variables
            Names such as ``"pyr1.u"``, or of projections whose weights were recorded (default: all).
        populations
            Variables and spikes of these populations only.
        cells
            ``{population: numbers of cells}``, in their numbering in the circuit.
        time
            ``(start, stop)``, numbers in seconds or texts such as ``"300*ms"``, ``start <= t < stop``. Snapshots of weights have no time and are
            all kept.
        phases, trials
            Rows and spikes within these phases (windows by ``settle[3]``, or all of them by ``settle``), of these trials. Of the weights the
            snapshots at the start of these trials; the last snapshot, at the end of a run of n trials, is that of trial n.

        Raises
        ------
        NeurosimError
            A name, cell, phase or trial that was not recorded; a selection that holds nothing.
        """
        for what, given in (("variables", variables), ("populations", populations), ("phases", phases)):
            check_list(what, given)
        interval = None if time is None else _interval(time)
        if trials is not None and np.ndim(trials) != 1:
            raise NeurosimError(f"trials = {trials!r}; wanted a list: [{trials}].")
        known = self._populations()
        for population in (*(populations or ()), *(cells or ())):
            if population not in known:
                raise unknown("recorded population", population, known)
        for name in variables or ():
            if name not in self.values and name not in self.weights:
                raise unknown("recorded variable or projection", name, [*self.values, *self.weights])
        names = [name for name in self.values if variables is None or name in variables]
        if populations is not None:
            names = [name for name in names if name.partition(".")[0] in populations]
        matrices = [n for n in self.weights if (n in variables if variables is not None else populations is None)]
        columns = self._columns(cells or {}, names)
        spans = self._spans(phases, trials)
        rows, intervals = self._rows(spans, interval, phases is not None or trials is not None)
        chosen = {
            population: self._spikes_within(population, intervals, (cells or {}).get(population))
            for population in self.spikes
            if (populations is None or population in populations)
            and (variables is None or any(name.partition(".")[0] == population for name in names))
        }
        if not len(rows) and names and len(self.time):
            raise NeurosimError(
                f"No row lies in the selection (time = {time}, phases = {phases}, trials = {trials}); the {len(self.time)} rows run from "
                f"{self.time[0]:g} to {self.time[-1]:g} s."
            )
        if not names and not matrices and not chosen:
            raise NeurosimError(
                f"The selection is empty: variables = {variables}, populations = {populations}. Recorded: {', '.join([*self.values, *self.weights])}."
            )
        kept = np.arange(len(self.weight_trials))
        if trials is not None:
            kept = np.flatnonzero(np.isin(self.weight_trials, trials))
        return replace(
            self,
            time=self.time[rows],
            values={name: _part(self.values[name], rows, columns.get(name.partition(".")[0])) for name in names},
            units={name: self.units[name] for name in (*names, *matrices) if name in self.units},
            phases=_cut(spans, interval),
            spikes=chosen,
            cells={
                p: self.cells_of(p) if p not in columns else np.asarray((cells or {})[p])
                for p in dict.fromkeys([*(name.partition(".")[0] for name in names), *chosen])
                if p in self.cells or p in columns
            },
            spike_cells={
                p: np.asarray((cells or {}).get(p, self.spike_cells.get(p)))
                for p in chosen
                if p in self.spike_cells or p in (cells or {})
            },
            spike_span=self.spike_span if time is phases is trials is None else None,
            weights={name: _part(self.weights[name], kept, None) for name in matrices},
            weight_trials=self.weight_trials[kept],
        )

    def _columns(self, cells: Mapping[str, Sequence[int]], names: Sequence[str]) -> dict[str, np.ndarray]:
        """``{population: columns of the chosen cells}`` in the variables `names`; cells of spikes are only checked."""
        found = {}
        for population, wanted in cells.items():
            numbers = np.asarray(wanted)
            if numbers.ndim != 1 or (len(numbers) and not np.issubdtype(numbers.dtype, np.integer)):
                raise NeurosimError(f"cells of '{population}' = {wanted!r}; wanted a list of whole numbers.")
            if len(np.unique(numbers)) < len(numbers):
                raise NeurosimError(f"cells of '{population}' = {wanted!r}: one is named twice.")
            of_spikes = all(name.partition(".")[0] != population for name in names)
            if of_spikes and population not in self.spike_cells:
                continue  # the traces do not say how many cells there are
            recorded = self.spike_cells[population] if of_spikes else self.cells_of(population)
            here = {int(cell): k for k, cell in enumerate(recorded)}
            missing = [int(cell) for cell in wanted if int(cell) not in here]
            if missing or not len(wanted):
                some = ", ".join(map(str, list(here)[:8])) + (", ..." if len(here) > 8 else "")
                raise NeurosimError(
                    f"Cells {missing} of '{population}' were not recorded; the file has {len(here)}: {some}."
                    if missing
                    else f"No cell of '{population}' is named; wanted at least one."
                )
            if not of_spikes:
                found[population] = np.array([here[int(cell)] for cell in wanted])
        return found

    def _spans(self, phases: Sequence[str] | None, trials: Sequence[int] | None) -> list[PhaseSpan]:
        names = list(dict.fromkeys(span.name for span in self.phases))
        for phase in phases or ():
            if phase not in names and phase not in {base(name) for name in names}:
                raise unknown("recorded phase", phase, names)
        presented = {span.trial for span in self.phases}
        there = presented | set(self.weight_trials.tolist())  # the last snapshot belongs to the trial that would follow
        for trial in () if trials is None else trials:
            if trial not in there:
                known = presented or there
                raise NeurosimError(
                    f"Trial {trial} was not recorded; recorded are {len(known)} trials, {min(known)} to {max(known)}."
                    if known
                    else f"Trial {trial} was not recorded; no trial was."
                )
        return [
            span
            for span in self.phases
            if (phases is None or span.name in phases or base(span.name) in phases)
            and (trials is None or span.trial in trials)
        ]

    def _rows(
        self, spans: Iterable[PhaseSpan], time: tuple[float, float] | None, by_span: bool
    ) -> tuple[np.ndarray, list[tuple[float, float]]]:
        """Rows that are kept, and the intervals of time in which spikes are."""
        low, high = time if time is not None else (-np.inf, np.inf)
        intervals = [(max(s.start, low), min(s.stop, high)) for s in spans] if by_span else [(low, high)]
        cuts = [np.searchsorted(self.time, (a - INSTANT, b - INSTANT)) for a, b in intervals]
        rows = [np.arange(a, b) for a, b in cuts if b > a]
        return np.concatenate(rows) if rows else np.empty(0, dtype=int), intervals

    def _spikes_within(
        self, population: str, intervals: list[tuple[float, float]], cells: Sequence[int] | None
    ) -> Spikes:
        spikes = self.spikes[population]
        kept = within(spikes.time, intervals)
        if cells is not None:
            kept &= np.isin(spikes.cell, cells)
        return Spikes(spikes.time[kept], spikes.sample[kept], spikes.cell[kept])

    # ---------------------------------------------------------------- file

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write one HDF5 file, complete or not at all (temporary file, then rename)."""
        from neurosim.traces.file import save

        return save(self, user_path(path))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Traces:
        """Open a file of traces, also one that is being written or whose writer was killed; values are read when they are indexed.

        Close it with `close`, or use it in a ``with`` block.

        Raises
        ------
        NeurosimError
            No file, no trace file, or one from a newer version.
        """
        from neurosim.traces.file import load

        return load(user_path(path))


def _cut(spans: Iterable[PhaseSpan], time: tuple[float, float] | None) -> list[PhaseSpan]:
    """The parts of phases that lie in a window of time."""
    if time is None:
        return list(spans)
    cut = [replace(span, start=max(span.start, time[0]), stop=min(span.stop, time[1])) for span in spans]
    return [span for span in cut if span.stop - span.start > INSTANT]


def base(phase: str) -> str:
    """``settle`` of ``settle[3]``, a phase in windows over labels."""
    return re.sub(r"\[\d+\]$", "", phase)


def _interval(time: Any) -> tuple[float, float]:
    """``(start, stop)`` in seconds."""
    if isinstance(time, str) or np.ndim(time) != 1 or len(time) != 2:
        raise NeurosimError(f"time = {time!r}; wanted (start, stop) in seconds.")
    try:
        start, stop = (seconds(t) if isinstance(t, str) else float(t) for t in time)
    except (TypeError, ValueError) as error:
        raise NeurosimError(f"time = {time!r}; wanted two numbers in seconds, or texts such as '300*ms'.") from error
    return start, stop


def within(times: np.ndarray, spans: Iterable[tuple[float, float]]) -> np.ndarray:
    """Whether each of the times lies in one of the spans, ``start <= t < stop`` (s)."""
    times = np.asarray(times)
    inside = np.zeros(len(times), dtype=bool)
    for start, stop in spans:
        inside |= (times > start - INSTANT) & (times < stop - INSTANT)
    return inside


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
