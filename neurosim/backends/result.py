"""What a run hands back, the same from every engine."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np

from neurosim.equations import unit_text
from neurosim.errors import DivergenceError
from neurosim.plan import PhasePlan, Plan
from neurosim.traces import PhaseSpan, Spikes, Traces

#: Steps between two looks at whether all states are finite.
CHECK_EVERY = 20


@dataclass
class Result:
    """Outcome of presenting stimuli to a circuit.

    Attributes
    ----------
    level, dtype
        The engine and its floating-point type.
    weights
        Weights at the end, by projection.
    collected
        With ``learn="held"``: the change that each plastic projection collected, weights held (the sum over trials of
        the mean over a batch).
    readout
        (samples, cells): the readout variable at the end of its phase, NaN where the circuit names none.
    ends
        ``{phase: {"population.variable": (samples, cells)}}``: values in the last step of each phase.
    settling
        ``{phase: number}``: the largest change of a state over the last tenth of the phase (steady level: the
        largest residual of the fixed point).
    traces
        What was recorded, or None.
    spikes
        ``{population: Spikes}`` of the spiking populations.
    steps, seconds
        Number of Euler steps (steady level: sweeps) and wall-clock time of the run.
    unsettled
        Steady level: number of (sample, phase) pairs that missed the tolerance.
    """

    level: str
    dtype: str
    weights: dict[str, np.ndarray]
    collected: dict[str, np.ndarray] = field(default_factory=dict)
    readout: np.ndarray | None = None
    ends: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    settling: dict[str, float] = field(default_factory=dict)
    traces: Traces | None = None
    spikes: dict[str, Spikes] = field(default_factory=dict)
    steps: int = 0
    seconds: float = 0.0
    unsettled: int = 0
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def settling_by_phase(self) -> dict[str, float]:
        """`settling`, of a phase in windows (``settle[0]``, ``settle[1]``, ...) the largest under ``settle[k]``."""
        return largest_by_phase(self.settling)

    def plot(self, path: str, **kwargs: Any) -> None:
        """Draw the recorded traces to a file; see `neurosim.plot.traces_figure`."""
        from neurosim.errors import NeurosimError
        from neurosim.plot import save_traces

        if self.traces is None:
            raise NeurosimError("Nothing was recorded; pass record=['population.variable', ...] to simulate.")
        save_traces(self.traces, path, **kwargs)


def largest_by_phase(settling: dict[str, float]) -> dict[str, float]:
    """See `Result.settling_by_phase`."""
    found: dict[str, float] = {}
    for phase, value in settling.items():
        name = re.sub(r"\[\d+\]$", "[k]", phase)
        found[name] = max(value, found.get(name, value))
    return found


class ResultBuilder:
    """Gathers what a run on a trajectory level keeps: traces, values at phase ends, settling, readout.

    `values(population, variable)` in the methods below hands out a copy of shape (batch, cells).
    """

    def __init__(
        self, plan: Plan, level: str, dtype: str, batch: int, dt: float, record: list[tuple[str, str]], ends: bool
    ):
        self.plan, self.level, self.dtype, self.batch, self.dt, self.keep_ends = plan, level, dtype, batch, dt, ends
        self.step = 0
        self.rows: dict[tuple[str, str], list[np.ndarray]] = {key: [] for key in record}
        self.times: list[float] = []
        self.spans: list[PhaseSpan] = []
        self.readouts: list[np.ndarray] = []
        self.ends: dict[str, dict[str, list[np.ndarray]]] = {}
        self.settling: dict[str, float] = {}
        self._spikes: dict[str, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {
            p.name: [] for p in plan.populations.values() if p.spiking
        }
        self._mark: dict[tuple[str, str], np.ndarray] = {}
        self._phase = ("", 0, 0)  # name, trial, first step
        self._running = False

    @property
    def states(self) -> list[tuple[str, str]]:
        return [(p.name, x) for p in self.plan.populations.values() for x in p.ode]

    def wanted(self, phase: PhasePlan) -> list[tuple[str, str]]:
        """What `finish` reads at the end of a phase."""
        kept = []
        if self.keep_ends:
            for p in self.plan.populations.values():
                kept += [(p.name, n) for n in (*p.ode, *p.subexpressions, *p.ports)]
        readout = self.plan.circuit.readout
        if readout is not None and readout.phase == phase.name:
            kept.append(self.plan.variable(readout.variable))
        return list(dict.fromkeys(kept))

    def begin(self, phase: PhasePlan, trial: int) -> None:
        self._phase, self._running = (phase.name, trial, self.step), True

    def _span(self) -> PhaseSpan:
        name, trial, start = self._phase
        return PhaseSpan(name, trial, start * self.dt, self.step * self.dt)

    def all_spans(self) -> list[PhaseSpan]:
        """Phases so far, one cut short by a divergence included."""
        return [*self.spans, self._span()] if self._running else list(self.spans)

    def end(self) -> None:
        self.spans.append(self._span())
        self._running = False

    @staticmethod
    def mark_step(count: int) -> int:
        """The step in a phase from which settling is measured: a tenth of the phase before its end."""
        return max(0, count - 1 - max(1, count // 10))

    def record(self, values: Callable[[str, str], np.ndarray]) -> None:
        self.times.append(self.step * self.dt)
        for key, rows in self.rows.items():
            rows.append(values(*key))

    def note_spikes(self, population: str, sample: np.ndarray, cell: np.ndarray) -> None:
        """Spikes of the present step; `sample` counts within the batch."""
        if len(cell):
            time, first = self.step * self.dt, self._phase[1] * self.batch
            self._spikes[population].append((np.full(len(cell), time), first + sample, cell))

    def mark(self, values: Callable[[str, str], np.ndarray]) -> None:
        self._mark = {key: values(*key) for key in self.states}

    def finish(self, phase: PhasePlan, values: Callable[[str, str], np.ndarray], residual: float | None = None) -> None:
        """Keep the values of a phase's last step. Settling is the change since `mark`, unless a residual is given."""
        if residual is None:
            change = max((float(np.abs(values(*key) - self._mark[key]).max()) for key in self.states), default=0.0)
        else:
            change = residual
        self.settling[phase.name] = max(self.settling.get(phase.name, 0.0), change)
        kept = self.ends.setdefault(phase.name, {})
        if self.keep_ends:
            for population, variable in self.wanted(phase):
                kept.setdefault(f"{population}.{variable}", []).append(values(population, variable))
        readout = self.plan.circuit.readout
        if readout is not None and readout.phase == phase.name:
            self.readouts.append(values(*self.plan.variable(readout.variable)))

    def diverged(self, population: str, variable: str, result: Result) -> NoReturn:
        where = f"at step {self.step} (t = {self.step * self.dt * 1e3:g} ms, phase '{self._phase[0]}'; looked at every {CHECK_EVERY} steps)"
        if self.dt == 0:  # the steady level has no time
            where = f"after {self.step} sweeps (phase '{self._phase[0]}')"
        raise DivergenceError(
            f"{self.level}: '{population}.{variable}' is not finite {where}. Lower dt, the learning rate or the feedback gain.",
            result,
        )

    def result(self, weights: dict[str, np.ndarray], collected: dict[str, np.ndarray]) -> Result:
        """What the run has gathered so far."""
        traces = None
        if self.rows or self._spikes:
            empty = {key: np.empty((0, self.batch, self.plan.populations[key[0]].n)) for key in self.rows}
            values = {f"{p}.{v}": np.stack(r) if r else empty[p, v] for (p, v), r in self.rows.items()}
            units = {f"{p}.{v}": unit_text(self.plan.populations[p].dimensions[v]) for p, v in self.rows}
            traces = Traces(np.array(self.times), values, units, self.all_spans(), spikes=self.spikes())
        return Result(
            self.level,
            self.dtype,
            weights,
            collected,
            np.concatenate(self.readouts) if self.readouts else None,
            {phase: {n: np.concatenate(v) for n, v in kept.items()} for phase, kept in self.ends.items()},
            dict(self.settling),
            traces,
            self.spikes(),
            self.step,
        )

    def spikes(self) -> dict[str, Spikes]:
        """Spikes so far."""
        return {
            name: Spikes(*(np.concatenate(column) for column in zip(*noted, strict=True)))
            if noted
            else Spikes(np.empty(0), np.empty(0, dtype=int), np.empty(0, dtype=int))
            for name, noted in self._spikes.items()
        }
