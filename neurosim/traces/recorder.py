"""What is recorded of a run, and the recording while it runs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from neurosim.equations import unit_text
from neurosim.errors import NeurosimError, check_list, suggest, unknown
from neurosim.files import user_path
from neurosim.traces.layout import Layout, phase_columns, phase_spans
from neurosim.traces.traces import PhaseSpan, Spikes, Traces

if TYPE_CHECKING:
    from neurosim.plan import PhasePlan, Plan

#: Bytes of rows that are gathered before they are written.
GATHERED = 4 * 1024 * 1024
#: Rows that are gathered at most.
MOST_ROWS = 8192
#: Seconds after which what was gathered is written.
FLUSH_AFTER = 5.0


@dataclass(frozen=True)
class Recorder:
    """Which variables of which cells are recorded, how often, and where to.

    Parameters
    ----------
    variables
        Names such as ``"pyr1.u"``: states, subexpressions and ports of a population. A projection's name, such as ``"W1"``, records its
        weights at the start of each recorded trial and at the end of the run.
    cells
        ``{population: numbers of cells}`` whose variables are recorded (default: all cells). Spikes are chosen by `spikes`.
    stride
        Record every `stride`-th Euler step, counted from the start of the run. The steady level has one row per phase, at its end.
    phases
        Names of phases (default: all); ``settle`` names all windows of ``settle[0]``, ``settle[1]``, ...
    trials
        Record every `trials`-th trial, a trial being one presentation of a batch of samples.
    spikes
        ``{population: numbers of cells}`` whose spikes are kept, ``[]`` for none (default: all spikes of all spiking populations).
        `cells`, `stride`, `phases` and `trials` choose rows of variables and leave the spikes as they are.
    path
        HDF5 file that rows are streamed to while the run goes on, readable at any moment with `Traces.load` (None: memory). A file that is
        there is replaced.

    Raises
    ------
    NeurosimError
        Nothing to record, a stride or number of trials below 1; an unknown variable, cell or phase (when a run begins).
    """

    variables: Sequence[str] = ()
    cells: Mapping[str, Sequence[int]] = field(default_factory=dict)
    stride: int = 1
    phases: Sequence[str] = ()
    trials: int = 1
    path: str | os.PathLike[str] | None = None
    spikes: Mapping[str, Sequence[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for what in ("variables", "phases"):
            names = getattr(self, what)
            check_list(what, names)
            listed = isinstance(names, Collection) and getattr(names, "ndim", 1) == 1
            if not listed or not all(isinstance(name, str) for name in names):
                raise NeurosimError(f"{what} = {names!r}; wanted a list of names.")
        for what in ("stride", "trials"):
            value = getattr(self, what)
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
                raise NeurosimError(f"{what} = {value!r}; wanted a whole number of at least 1.")
        for what in ("cells", "spikes"):
            if not isinstance(getattr(self, what), Mapping):
                raise NeurosimError(
                    f"{what} = {getattr(self, what)!r}; wanted a table of populations: {{'pyr1': [0, 1]}}."
                )

    def resolve(self, plan: Plan) -> Resolved:
        """What it records of a circuit.

        Raises
        ------
        NeurosimError
            Nothing to record, an unknown variable, projection, population, cell or phase.
        """
        variables, projections = _names(self, plan)
        if not variables and not projections and not any(p.spiking for p in plan.populations.values()):
            raise NeurosimError(
                "There is nothing to record: name variables such as 'population.variable', or projections; `neurosim describe` lists them."
            )
        recorded = dict.fromkeys(p for p, _ in variables)
        spiking = {p.name: p.n for p in plan.populations.values() if p.spiking}
        for population in self.cells:
            if population in spiking and population not in recorded:
                raise NeurosimError(
                    f"cells names '{population}', of which no variable is recorded; its spikes are chosen by "
                    f"spikes={{'{population}': {list(self.cells[population])}}}."
                )
        chosen = _numbers("spikes", self.spikes, plan, spiking, least=0)
        kept = {name: chosen.get(name, np.arange(n)) for name, n in spiking.items()}
        cells = _numbers("cells", self.cells, plan, recorded, least=1)
        return Resolved(variables, projections, cells, _phases(self, plan), kept)


class Resolved(NamedTuple):
    """A recorder's names, found in a circuit."""

    variables: list[tuple[str, str]]  # population and name
    projections: list[str]
    cells: dict[str, np.ndarray]
    phases: set[str] | None  # None: all
    spikes: dict[str, np.ndarray]  # cells of each spiking population


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


class Recording:
    """A recorder at work on one circuit; it goes on from one call of an engine to the next.

    Engines call `begin_trial`, then for each phase `begin_phase`, `row` for each step that is `due`, `note_spikes`, `end_phase`, and last
    `end_trial`. Steps are counted within one call of the engine.

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
        # None: all cells
        self._spikes = {p: None if len(k) == plan.populations[p].n else k for p, k in spikes.items()}
        counts = plan.steps(dt)
        self._counts = {phase.name: count for phase, count in zip(plan.phases, counts, strict=True)}
        shapes = {
            f"{p}.{v}": (batch, len(cells[p]) if p in cells else plan.populations[p].n) for p, v in self.variables
        }
        units = {f"{p}.{v}": unit_text(plan.populations[p].dimensions[v]) for p, v in self.variables}
        units |= {name: unit_text(plan.projections[name].weight_dimension) for name in self.projections}
        bytes_each = sum(int(np.prod(s)) for s in shapes.values()) * np.dtype(dtype).itemsize
        capacity = min(max(GATHERED // max(bytes_each, 1), 1), MOST_ROWS)
        ends = np.cumsum([0, *(shapes[f"{p}.{v}"][1] for p, v in self.variables)]).tolist()
        #: Where the variables stand in a row.
        self.columns = [
            Column(p, v, cells.get(p), slice(a, b))
            for (p, v), a, b in zip(self.variables, ends[:-1], ends[1:], strict=True)
        ]
        # One is filled while the other is written.
        self._gathered, self._other = (_Gathered(capacity, batch, ends[-1], dtype) for _ in range(2))
        self._handed: _Gathered | None = None  # to the writer
        weights = {name: tuple(plan.projections[name].weight_shape) for name in self.projections}
        layout = Layout(shapes, units, cells, spikes, weights, dtype, metadata or {}, list(self._counts))
        self._sink: Any
        if recorder.path is None:
            self._sink = _Memory(layout)
        else:
            from neurosim.traces.file import TraceFile, copy_until

            path = user_path(recorder.path)
            self._sink = copy_until(path, resume["lengths"], layout) if resume else TraceFile(path, layout)
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
        return bool(self.columns) and self._running is not None and (self._offset + step) % self.recorder.stride == 0

    def row(self, step: int, look: Callable[[str, str], Any]) -> None:
        """Keep one row; `look(population, variable)` hands out an array that broadcasts to (batch, cells), or a number."""
        rows, k = self.begin_row()
        for population, variable, cells, where in self.columns:
            value = look(population, variable)
            chosen = value if cells is None or np.ndim(value) == 0 or value.shape[-1] == 1 else value[..., cells]
            rows.rows[k, :, where] = chosen
        self.end_row(step)

    def begin_row(self) -> tuple[_Gathered, int]:
        """Where the caller writes the values of a new row (see `columns`) before it calls `end_row`."""
        if self._gathered.filled == len(self._gathered.time) or time.monotonic() - self._written > FLUSH_AFTER:
            self.flush()
        return self._gathered, self._gathered.filled

    def not_finite(self) -> tuple[str, str] | None:
        """The first variable that was NaN or infinite in a row since this was asked last; None where all were finite."""
        gathered = self._gathered
        rows = gathered.rows[gathered.looked : gathered.filled]
        gathered.looked = gathered.filled
        found, self._not_finite = self._not_finite, None
        if found is None and not np.isfinite(rows.sum() if rows.dtype == np.float64 else rows).all():
            found = next(
                ((c.population, c.variable) for c in self.columns if not np.isfinite(rows[:, :, c.where]).all()), None
            )
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
        self._gathered.spikes.setdefault(population, []).append((times, self._trial * self._batch + sample, cell))

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

        A Ctrl-C at any point in here neither loses nor doubles anything: what was handed on is written once.
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
        rows = gathered.rows[: gathered.filled]
        columns = {f"{c.population}/{c.variable}": rows[:, :, c.where] for c in self.columns}
        columns["time"] = gathered.time[: gathered.filled]
        if gathered.spans:
            columns |= phase_columns(gathered.spans)
        for population, noted in gathered.spikes.items():
            for name, parts in zip(("time", "sample", "cell"), zip(*noted, strict=True), strict=True):
                columns[f"spikes/{population}/{name}"] = np.concatenate(parts)
        if gathered.spikes_until is not None:
            columns["spikes_until"] = np.array([gathered.spikes_until])
        if gathered.snapshots:
            columns["weight_trials"] = np.array([trial for trial, _ in gathered.snapshots])
            for name in self.projections:
                columns[f"weights/{name}"] = np.stack([kept[name] for _, kept in gathered.snapshots])
        try:
            self._sink.grow(columns)
        except Exception as error:
            self._error = error

    def _wait(self) -> None:
        """Until what was handed on is written; raises, once, what went wrong there."""
        if self._handed is not None and self._handed is not self._gathered and not self._handed.written:
            # Not begun: it waits for the writer, and then this does nothing, or a Ctrl-C came before it was handed on.
            self._writing = self._writer.submit(self._write, self._handed)
        if self._writing is not None:
            self._writing.result()
            self._writing = None
        if self._error is not None:
            error, self._error, self._failed = self._error, None, True
            raise error

    def position(self) -> dict[str, Any]:
        """What a checkpoint keeps, so that a run goes on with the same recording; written out first."""
        self.flush()
        self._wait()
        return {"trial": self._trial, "step": self._next, "lengths": dict(self._sink.lengths)}

    def so_far(self) -> Traces:
        """What was recorded by now, while the recording goes on."""
        self.flush()
        self._wait()
        return self._sink.traces()

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
        return self._sink.traces() if path is None else Traces.load(path)


class _Memory:
    """Gathers rows in memory; the counterpart of `neurosim.traces.file.TraceFile`."""

    def __init__(self, layout: Layout):
        self._layout = layout
        numbers, times = np.empty(0, dtype=np.int64), np.empty(0)
        empty = {"time": times, "weight_trials": numbers, **phase_columns([])}
        empty |= {n.replace(".", "/"): np.empty((0, *shape), layout.dtype) for n, shape in layout.variables.items()}
        empty |= {f"weights/{name}": np.empty((0, *shape), layout.dtype) for name, shape in layout.weights.items()}
        if layout.spike_cells:
            empty["spikes_until"] = times
        for p in layout.spike_cells:
            empty |= {f"spikes/{p}/time": times, f"spikes/{p}/sample": numbers, f"spikes/{p}/cell": numbers}
        self._parts = {name: [column] for name, column in empty.items()}

    def grow(self, columns: Mapping[str, np.ndarray]) -> None:
        for name, rows in columns.items():
            if len(rows):
                self._parts[name].append(rows.copy())

    def replace_last(self, name: str, value: Any) -> None:
        self._parts[name][-1][-1] = value

    def close(self) -> None:
        pass

    def traces(self) -> Traces:
        whole = {name: np.concatenate(parts) for name, parts in self._parts.items()}
        layout = self._layout
        return Traces(
            whole["time"],
            {name: whole[name.replace(".", "/")] for name in layout.variables},
            dict(layout.units),
            phase_spans(*(whole[name] for name in phase_columns([]))),
            dict(layout.metadata),
            {p: Spikes(*(whole[f"spikes/{p}/{x}"] for x in ("time", "sample", "cell"))) for p in layout.spike_cells},
            dict(layout.cells),
            {name: whole[f"weights/{name}"] for name in layout.weights},
            whole["weight_trials"],
            spike_cells={p: np.asarray(k) for p, k in layout.spike_cells.items() if len(k)},
            spike_span=(0.0, float(whole["spikes_until"][-1])) if len(whole.get("spikes_until", ())) else None,
        )


# ------------------------------------------------------------------------------------------- names of the recorder


def _names(recorder: Recorder, plan: Plan) -> tuple[list[tuple[str, str]], list[str]]:
    """Variables and projections, in the order in which they are named, each once."""
    variables, projections = [], []
    for name in dict.fromkeys(recorder.variables):
        if "." in name:
            variables.append(plan.variable(name))
        elif name not in plan.projections:
            named = [f"{p.name}.{name}" for p in plan.populations.values() if name in p.variables]
            named += [f"{name}.{v}" for v in plan.populations[name].variables] if name in plan.populations else []
            hint = f" Or the variable {', '.join(named[:4])}?" if named else suggest(name, plan.projections)
            raise NeurosimError(
                f"There is no projection '{name}' whose weights could be recorded.{hint} Projections: {', '.join(plan.projections)}; variables "
                "are named 'population.variable'."
            )
        elif plan.projections[name].root != name:
            raise NeurosimError(
                f"The weights of '{name}' are tied to those of '{plan.projections[name].root}'; record those."
            )
        else:
            projections.append(name)
    return variables, projections


def _numbers(
    what: str, given: Mapping[str, Sequence[int]], plan: Plan, known: Iterable[str], least: int
) -> dict[str, np.ndarray]:  # fmt: skip
    """Numbers of cells by population, checked; at `least` so many of each."""
    found = {}
    for population, cells in given.items():
        if population not in known:
            raise unknown("recorded population" if what == "cells" else "spiking population", population, known)
        n = plan.populations[population].n
        try:
            chosen = np.asarray(cells)
        except ValueError:  # lists of several lengths
            chosen = np.empty(())
        if chosen.ndim != 1 or len(chosen) < least:
            some = " of at least one number" if least else " of numbers"
            raise NeurosimError(f"{what} of '{population}' = {cells!r}; wanted a list{some}.")
        if not len(chosen):
            found[population] = np.empty(0, dtype=np.int64)
            continue
        if not np.issubdtype(chosen.dtype, np.integer) or chosen.min() < 0 or chosen.max() >= n:
            raise NeurosimError(
                f"{what} of '{population}' = {chosen.tolist()}; wanted whole numbers from 0 to {n - 1}."
            )
        if len(np.unique(chosen)) < len(chosen):
            raise NeurosimError(f"{what} of '{population}' = {chosen.tolist()}: one is named twice.")
        found[population] = chosen
    return found


def _phases(recorder: Recorder, plan: Plan) -> set[str] | None:
    if not recorder.phases:
        return None
    names = {phase.name: phase.base for phase in plan.phases}
    for phase in recorder.phases:
        if phase not in names and phase not in names.values():
            raise unknown("phase", phase, dict.fromkeys([*names.values(), *names]))
    return {name for name, base in names.items() if name in recorder.phases or base in recorder.phases}
