"""What a run hands back, the same from every engine."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from neurosim.errors import DivergenceError
from neurosim.plan import PhasePlan, Plan
from neurosim.traces import Spikes, Traces
from neurosim.traces.recording import Recording
from neurosim.traces.spans import base

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Steps between two looks at whether all states are finite.
CHECK_EVERY = 20


@dataclass(repr=False)
class Result:
    """Outcome of presenting stimuli to a circuit.

    Attributes
    ----------
    level, dtype
        The engine and its floating-point type.
    weights
        Weights at the end, by projection.
    collected
        With ``plasticity="held"``: the change that each plastic projection collected, weights held (the sum over trials of
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
    steps, seconds
        Number of Euler steps (steady level: sweeps) and wall-clock time of the run.
    unsettled
        Steady level: number of (sample, phase) pairs that missed the tolerance, or whose fixed point is unstable.
    unstable
        Steady level: number of (sample, phase) pairs at whose fixed point some cell grows away from it: its own
        equations, with its drives held, have an eigenvalue with a positive real part there.
    """

    level: str
    dtype: str
    weights: dict[str, np.ndarray]
    collected: dict[str, np.ndarray] = field(default_factory=dict)
    readout: np.ndarray | None = None
    ends: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    settling: dict[str, float] = field(default_factory=dict)
    traces: Traces = None  # type: ignore[assignment] # who asks for traces has recorded some
    steps: int = 0
    seconds: float = 0.0
    unsettled: int = 0
    unstable: int = 0
    info: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        read = "" if self.readout is None else f", readout {self.readout.shape}"
        return f"Result of {self.level}: {self.steps} steps in {self.seconds:.1f} s{read}, weights {', '.join(self.weights)}\n{self.traces or ''}".rstrip()

    @property
    def spikes(self) -> Mapping[str, Spikes]:
        """``{population: Spikes}`` of the spiking populations."""
        return self.traces.spikes if self.traces is not None else {}

    @property
    def settling_by_phase(self) -> dict[str, float]:
        """`settling`, of a phase in windows (``settle[0]``, ``settle[1]``, ...) the largest under ``settle[k]``."""
        return largest_by_phase(self.settling)

    def plot(self, path: str | os.PathLike[str] | None = None, **kwargs: Any) -> Figure:
        """Draw the recorded traces, and save the figure where a path is given; see `neurosim.plot.traces_figure`.

        In a notebook the figure shows itself after ``%matplotlib inline``.
        """
        from neurosim.errors import NeurosimError
        from neurosim.plot import save_figure, traces_figure

        if self.traces is None:
            raise NeurosimError("Nothing was recorded; pass record=['population.variable', ...] to simulate.")
        figure = traces_figure(self.traces, **kwargs)
        if path is not None:
            save_figure(figure, path)
        return figure


def largest_by_phase(settling: dict[str, float]) -> dict[str, float]:
    """See `Result.settling_by_phase`."""
    found: dict[str, float] = {}
    for phase, value in settling.items():
        name = base(phase) + ("[k]" if base(phase) != phase else "")
        found[name] = max(value, found.get(name, value))
    return found


class ResultBuilder:
    """Gathers what one call of an engine keeps: values at phase ends, settling, readout; and tells the recording of each phase.

    `values(population, variable)` in the methods below hands out a copy of shape (batch, cells).
    """

    def __init__(self, plan: Plan, level: str, dtype: str, dt: float, recording: Recording | None, ends: bool):
        self.plan, self.level, self.dtype, self.dt, self.recording, self.keep_ends = (
            plan, level, dtype, dt, recording, ends,
        )  # fmt: skip
        self.step = 0
        self.readouts: list[np.ndarray] = []
        self.ends: dict[str, dict[str, list[np.ndarray]]] = {}
        self.settling: dict[str, float] = {}
        self._mark: dict[tuple[str, str], np.ndarray] = {}
        self._phase = ""

    @property
    def states(self) -> list[tuple[str, str]]:
        return [(p.name, x) for p in self.plan.populations.values() for x in p.ode]

    @cached_property
    def followed(self) -> list[tuple[str, str]]:
        """What is sent or read out beside states, and has to be finite as they have."""
        found = {(p.name, v): None for p in self.plan.populations.values() for v in self.plan.sent(p.name)}
        if self.plan.circuit.readout is not None:
            found[self.plan.variable(self.plan.circuit.readout.variable)] = None
        return [key for key in found if key not in self.states]

    def check_finite(self, finite: Callable[[str, str], bool], result: Callable[[], Result]) -> None:
        """Raise `DivergenceError` where a state, or what is sent, read out or recorded, is not finite.

        `finite(population, variable)` looks at one of them (True where it is not computed yet), `result()` is what the
        run has gathered. What is sent is named before a state that it drove to infinity.
        """
        bad = [key for key in (*self.states, *self.followed) if not finite(*key)]
        found = self.recording.not_finite() if self.recording is not None else None
        broken = {population for population, variable in bad if variable in self.plan.populations[population].ode}
        causes = [key for key in self.followed if key in bad and key[0] not in broken] + bad
        if causes or found is not None:
            population, variable = causes[0] if causes else found  # type: ignore[misc]
            self.diverged(population, variable, result())

    def wanted(self, phase: PhasePlan) -> list[tuple[str, str]]:
        """What `finish` reads at the end of a phase."""
        kept = []
        if self.keep_ends:
            for p in self.plan.populations.values():
                named = (n for n in p.subexpressions if not n.startswith("ns_"))
                kept += [(p.name, n) for n in (*p.ode, *named, *p.ports)]
        readout = self.plan.circuit.readout
        if readout is not None and readout.phase == phase.name:
            kept.append(self.plan.variable(readout.variable))
        return list(dict.fromkeys(kept))

    def begin(self, phase: PhasePlan) -> None:
        self._phase = phase.name
        if self.recording is not None:
            self.recording.begin_phase(phase, self.step)

    def end(self) -> None:
        if self.recording is not None:
            self.recording.end_phase(self.step)

    @staticmethod
    def mark_step(count: int) -> int:
        """The step in a phase from which settling is measured: a tenth of the phase before its end."""
        return max(0, count - 1 - max(1, count // 10))

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
        self.end()
        where = f"at step {self.step} (t = {self.step * self.dt * 1e3:g} ms, phase '{self._phase}'; looked at every {CHECK_EVERY} steps)"
        if self.dt == 0:  # the steady level has no time
            where = f"after {self.step} sweeps (phase '{self._phase}')"
        raise DivergenceError(
            f"{self.level}: '{population}.{variable}' is not finite {where}. Lower dt, the learning rate or the feedback gain.",
            result,
        )

    def result(self, weights: dict[str, np.ndarray], collected: dict[str, np.ndarray]) -> Result:
        """What the run has gathered so far."""
        return Result(
            self.level,
            self.dtype,
            weights,
            collected,
            np.concatenate(self.readouts) if self.readouts else None,
            {phase: {n: np.concatenate(v) for n, v in kept.items()} for phase, kept in self.ends.items()},
            dict(self.settling),
            steps=self.step,
        )
