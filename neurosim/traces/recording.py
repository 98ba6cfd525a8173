"""A recording while its run goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from neurosim.equations import unit_text
from neurosim.files import user_path
from neurosim.traces.layout import Layout, phase_columns
from neurosim.traces.memory import Memory
from neurosim.traces.recorder import Recorder
from neurosim.traces.spans import PhaseSpan
from neurosim.traces.traces import Traces

if TYPE_CHECKING:
    from neurosim.plan import PhasePlan, Plan

#: Population and name of each variable.
Names = Iterable[tuple[str, str]]
#: Bytes of rows that are gathered before they are written.
GATHERED = 4 * 1024 * 1024
#: Rows that are gathered at most.
MOST_ROWS = 8192
#: Seconds after which what was gathered is written.
FLUSH_AFTER = 5.0


class Column(NamedTuple):
    """One recorded variable: which cells of it are kept, and where in a row."""

    population: str
    variable: str
    cells: np.ndarray | None  # None: all
    where: slice


class _Gathered:
    """What was recorded since the last writing."""

    def __init__(self, capacity: int, batch: int, cells: int, dtype: str):
        self.time = np.empty(capacity)
        self.rows = np.empty((capacity, batch, cells), dtype)
        self.shared: Any = None  # the rows as arrays of the engine's library, in the same memory
        self.clear()

    def clear(self) -> None:
        self.filled = 0
        self.spans: list[PhaseSpan] = []
        self.spikes: dict[str, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {}
        self.snapshots: list[tuple[int, dict[str, np.ndarray]]] = []
        self.written = False
        self.looked = 0  # rows that were looked at for NaN
        self.spikes_until: float | None = None

    def by_dataset(self, columns: Sequence[Column]) -> dict[str, np.ndarray]:
        """What was gathered, by the names of the file's datasets."""
        rows = self.rows[: self.filled]
        found = {f"{c.population}/{c.variable}": rows[:, :, c.where] for c in columns}
        found["time"] = self.time[: self.filled]
        if self.spans:
            found |= phase_columns(self.spans)
        for population, noted in self.spikes.items():
            for name, parts in zip(
                ("time", "sample", "cell"),
                zip(*noted, strict=True),
                strict=True,
            ):
                found[f"spikes/{population}/{name}"] = np.concatenate(parts)
        if self.spikes_until is not None:
            found["spikes_until"] = np.array([self.spikes_until])
        if self.snapshots:
            found["weight_trials"] = np.array([trial for trial, _ in self.snapshots])
            for name in self.snapshots[0][1]:
                found[f"weights/{name}"] = np.stack([kept[name] for _, kept in self.snapshots])
        return found


class Recording:
    """An active recording of one circuit, continued across engine calls.

    Engines call `begin_trial`, then for each phase `begin_phase`, `row` for each step that is
    `due`, `note_spikes`, `end_phase`, and last `end_trial`. Steps are counted within one engine
    call.

    Parameters
    ----------
    recorder
        What to keep.
    plan
        The circuit.
    batch, dt, dtype
        Samples at once, Euler step in seconds, floating-point type of the engine.
    metadata
        See `Traces`.
    resume
        Lengths of a recording to go on with, from `position`.
    """

    def __init__(
        self,
        recorder: Recorder,
        plan: Plan,
        batch: int,
        dt: float,
        dtype: str = "float64",
        metadata: Mapping[str, Any] | None = None,
        resume: Mapping[str, Any] | None = None,
    ):
        self.recorder, self.plan, self.dt = recorder, plan, dt
        #: Variables as (population, name), and projections, that are recorded.
        self.variables, self.projections, cells, self._phases, spikes = recorder.resolve(plan)
        whole = {p.name: p.n for p in plan.populations.values()}
        # None: all cells
        self._spikes = {p: None if len(k) == whole[p] else k for p, k in spikes.items()}
        counts = plan.steps_of_phases(dt)
        self._counts = {phase.name: n for phase, n in zip(plan.phases, counts, strict=True)}
        widths = [len(cells[p]) if p in cells else whole[p] for p, _ in self.variables]
        ends = np.cumsum([0, *widths]).tolist()
        #: Where the variables stand in a row.
        self.columns = [
            Column(p, v, cells.get(p), slice(a, b))
            for (p, v), a, b in zip(self.variables, ends[:-1], ends[1:], strict=True)
        ]
        row = batch * ends[-1] * np.dtype(dtype).itemsize  # bytes
        most = min(max(GATHERED // max(row, 1), 1), MOST_ROWS)
        # One is filled while the other is written.
        self._gathered, self._other = (_Gathered(most, batch, ends[-1], dtype) for _ in range(2))
        self._handed: _Gathered | None = None  # to the writer
        layout = Layout(
            {f"{p}.{v}": (batch, n) for (p, v), n in zip(self.variables, widths, strict=True)},
            _units(plan, self.variables, self.projections),
            cells,
            spikes,
            {name: tuple(plan.projections[name].weight_shape) for name in self.projections},
            dtype,
            metadata or {},
            list(self._counts),
        )
        self._sink = _sink(recorder, layout, resume)
        # HDF5 writes without holding Python's lock: the simulation goes on meanwhile.
        self._writer = ThreadPoolExecutor(1, "neurosim-recording")
        self._writing: Future[None] | None = None
        self._failed = False
        self._not_finite: tuple[str, str] | None = None  # found in rows that were handed on
        self._error: Exception | None = None  # of the writer, until it is raised
        self._batch = batch
        self._trial, self._next = (resume["trial"], resume["step"]) if resume else (0, 0)
        self._last = -1  # step of the last row
        self._offset = 0  # steps before the present call of the engine
        self._active = False
        self._running: PhaseSpan | None = None
        self._written = time.monotonic()
        self._closed = False

    # ---------------------------------------------------------------- called by engines

    def begin_trial(self, weights: Callable[[str], np.ndarray]) -> None:
        """`weights` hands out the weights of a projection."""
        self._active = self._trial % self.recorder.trials == 0
        if self._active:
            self.keep_weights(weights)
        elif time.monotonic() - self._written > FLUSH_AFTER:
            self.flush()

    def keep_weights(self, weights: Callable[[str], np.ndarray]) -> None:
        """Take a snapshot of the weights."""
        if self.projections:
            kept = self._gathered.snapshots
            kept.append((self._trial, {name: np.array(weights(name)) for name in self.projections}))
            large = sum(w.nbytes for _, matrices in kept for w in matrices.values()) > GATHERED
            if large or time.monotonic() - self._written > FLUSH_AFTER:
                self.flush()

    def begin_phase(self, phase: PhasePlan, step: int) -> None:
        """A phase begins at this step of the present call."""
        self._offset = self._next - step
        if self.wants(phase):
            start = self._next * self.dt
            stop = (self._next + self._counts[phase.name]) * self.dt
            self._running = PhaseSpan(phase.name, self._trial, start, stop)
            self._gathered.spans.append(self._running)

    def wants(self, phase: PhasePlan) -> bool:
        """Whether this phase of the present trial is recorded."""
        return self._active and (self._phases is None or phase.name in self._phases)

    def due(self, step: int) -> bool:
        """Whether this step is recorded."""
        if not self.columns or self._running is None:
            return False
        return (self._offset + step) % self.recorder.stride == 0

    def row(self, step: int, look: Callable[[str, str], Any]) -> None:
        """Keep one row.

        `look(population, variable)` hands out an array that broadcasts to (batch, cells), or a
        number.
        """
        rows, k = self.begin_row()
        for population, variable, cells, where in self.columns:
            value = look(population, variable)
            same = cells is None or np.ndim(value) == 0 or value.shape[-1] == 1
            rows.rows[k, :, where] = value if same else value[..., cells]
        self.end_row(step)

    def begin_row(self) -> tuple[_Gathered, int]:
        """Where to write the values of a new row (see `columns`); `end_row` has to follow."""
        full = self._gathered.filled == len(self._gathered.time)
        if full or time.monotonic() - self._written > FLUSH_AFTER:
            self.flush()
        return self._gathered, self._gathered.filled

    def not_finite(self) -> tuple[str, str] | None:
        """The first variable that was NaN or infinite in a row since the last call, if any."""
        gathered = self._gathered
        rows = gathered.rows[gathered.looked : gathered.filled]
        gathered.looked = gathered.filled
        found, self._not_finite = self._not_finite, None
        if found is None:
            seen = rows.sum() if rows.dtype == np.float64 else rows
            if not np.isfinite(seen).all():
                for c in self.columns:
                    if not np.isfinite(rows[:, :, c.where]).all():
                        return c.population, c.variable
        return found

    def end_row(self, step: int) -> None:
        """The row is filled; one that was interrupted before does not count."""
        gathered = self._gathered
        gathered.time[gathered.filled] = (self._offset + step) * self.dt
        self._last = self._offset + step
        gathered.filled += 1

    def note_spikes(self, population: str, step: int, sample: np.ndarray, cell: np.ndarray) -> None:
        """Spikes in this step; `sample` counts within the batch."""
        wanted = self._spikes[population]
        if wanted is not None:
            chosen = np.isin(cell, wanted)
            sample, cell = sample[chosen], cell[chosen]
        if not len(cell):
            return
        if time.monotonic() - self._written > FLUSH_AFTER:
            self.flush()
        times = np.full(len(cell), (self._offset + step) * self.dt)
        noted = times, self._trial * self._batch + sample, cell
        self._gathered.spikes.setdefault(population, []).append(noted)

    def end_phase(self, step: int) -> None:
        """The phase has ended; `step` is the first one after it."""
        # A divergence may be noticed before or after the row of its step was kept.
        self._next = max(self._next, self._offset + step, self._last + 1)
        if self._running is None:
            return
        stop = self._next * self.dt
        if stop < self._running.stop:  # cut short
            if self._gathered.spans:
                cut = PhaseSpan(self._running.name, self._running.trial, self._running.start, stop)
                self._gathered.spans[-1] = cut
            elif not self._failed:
                self._wait()
                self._sink.replace_last("phases/stop", stop)
        self._running = None

    def end_trial(self) -> None:
        self._trial += 1

    # ---------------------------------------------------------------- what was recorded

    def flush(self) -> None:
        """Hand on what was gathered: a reader of the file sees it soon.

        A Ctrl-C at any point in here neither loses nor doubles anything: what was handed on is
        written once.
        """
        if self._failed:
            return
        self._not_finite = self.not_finite()
        if self._spikes:
            self._gathered.spikes_until = self._next * self.dt
        self._wait()
        self._other.clear()
        self._handed = self._gathered
        self._gathered, self._other = self._other, self._gathered
        self._writing = self._writer.submit(self._write, self._handed)
        self._written = time.monotonic()

    def _write(self, gathered: _Gathered) -> None:
        if gathered.written:
            return
        gathered.written = True
        columns = gathered.by_dataset(self.columns)
        try:
            self._sink.grow(columns)
        except Exception as error:
            self._error = error

    def _wait(self) -> None:
        """Wait until what was handed on is written; raise, once, what went wrong there."""
        handed = self._handed
        if handed is not None and handed is not self._gathered and not handed.written:
            # Not begun: it waits for the writer, and then this does nothing, or a Ctrl-C came
            # before it was handed on.
            self._writing = self._writer.submit(self._write, handed)
        if self._writing is not None:
            self._writing.result()
            self._writing = None
        if self._error is not None:
            error, self._error, self._failed = self._error, None, True
            raise error

    def position(self) -> dict[str, Any]:
        """What a checkpoint keeps to go on with this recording, which is written out first."""
        self.flush()
        self._wait()
        return {"trial": self._trial, "step": self._next, "lengths": dict(self._sink.lengths)}

    def so_far(self) -> Traces:
        """What was recorded by now, while the recording goes on."""
        self.flush()
        self._wait()
        return Traces(**self._sink.fields())

    def close(self, weights: Callable[[str], np.ndarray] | None = None) -> None:
        """End the recording, with a last snapshot of the weights where they are given."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._running is not None:  # stopped in mid-phase
                self.end_phase(0)
            if weights is not None:
                self.keep_weights(weights)
            self.flush()
            self._wait()
        finally:
            self._writer.shutdown()
            self._sink.close()

    def traces(self) -> Traces:
        """What was recorded; ends the recording."""
        self.close()
        path = self.recorder.path
        return Traces(**self._sink.fields()) if path is None else Traces.load(path)


def _units(plan: Plan, variables: Names, projections: Iterable[str]) -> dict[str, str]:
    units = {f"{p}.{v}": unit_text(plan.populations[p].dimensions[v]) for p, v in variables}
    return units | {n: unit_text(plan.projections[n].weight_dimension) for n in projections}


def _sink(recorder: Recorder, layout: Layout, resume: Mapping[str, Any] | None) -> Any:
    """What takes the rows: memory, or a file."""
    if recorder.path is None:
        return Memory(layout)
    from neurosim.traces.writer import TraceFile, copy_until  # loads h5py

    path = user_path(recorder.path)
    return copy_until(path, resume["lengths"], layout) if resume else TraceFile(path, layout)
