"""The step itself, trial by trial and phase by phase."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from tqdm import tqdm

from neurosim.backends.engine import Learn
from neurosim.backends.noise import Noise
from neurosim.backends.result import CHECK_EVERY, Result, ResultBuilder
from neurosim.backends.stepping.arrays import Arrays
from neurosim.backends.stepping.drives import filler
from neurosim.backends.stepping.memory import Memory, shared_values
from neurosim.backends.stepping.plasticity import Plasticity
from neurosim.backends.stepping.programs import PhaseProgram, compiled
from neurosim.backends.stepping.rows import Rows
from neurosim.plan import PhasePlan, Plan, PopulationPlan
from neurosim.traces.recording import Recording


class Stepper:
    """A run of a plan: all of each Euler step but the integration of the potentials.

    Parameters
    ----------
    plan, arrays, level
        What to run, on which arrays, under which name.
    weights
        Weights of each projection that has its own, as arrays of the library; changed in place.
    batch
        Number of samples that run at once; a rule's change is the mean over them.
    dt
        Step in seconds.
    noise
        The cells' white noise.
    seed, trial
        What the random signs of the protocol follow from; `trial` counts on with each trial.
    learn
        ``"on"``, ``"off"``, or ``"held"`` (changes are collected, weights stay).
    record
        What is told of each step, or None.
    ends
        Keep the variables of each phase's last step.
    """

    def __init__(
        self,
        plan: Plan,
        arrays: Arrays,
        weights: dict[str, Any],
        *,
        level: str,
        batch: int,
        dt: float,
        noise: Noise,
        learn: Learn,
        record: Recording | None = None,
        ends: bool = True,
        seed: int = 0,
        trial: int = 0,
    ):
        self.plan, self.level, self.dt, self.noise = plan, level, dt, noise
        self.seed, self.trial, self.record = seed, trial, record
        plan.check_no_overlaps(level)
        self.counts = plan.steps(dt)
        self.memory = Memory(plan, arrays, weights, batch, dt)
        self.plasticity = Plasticity(self.memory, level, learn)
        self.rows = Rows(record, self.memory) if record is not None else None
        self.kept = ResultBuilder(plan, level, arrays.dtype_name, dt, record, ends)
        self._programs: dict[tuple[int, bool], PhaseProgram] = {}
        populations = plan.populations.values()
        self._timed = [self.memory.state[p.name] for p in populations if p.timed]
        self._began = {"t": 0, "t_trial": 0, "t_phase": 0}  # steps

    # ---------------------------------------------------------------- the run

    def steps(
        self,
        stimuli: dict[str, np.ndarray],
        trials: int,
        progress: bool = True,
    ) -> Iterator[None]:
        """Run all trials; yields after steps 1 to 8 of each Euler step.

        The engine then integrates the potentials.
        """
        total = trials * sum(self.counts)
        show: dict[str, Any] = {"delay": 2, "disable": not progress, "leave": False}
        with tqdm(total=total, desc=self.level, unit="step", **show) as bar:
            for number in range(trials):
                if self.plan.circuit.protocol.reset or number == 0:
                    self.memory.reset()
                    self.plasticity.reset()
                yield from self._trial(self._fields(stimuli, number), bar)
                self.trial += 1
                if self.record is not None:
                    self.record.end_trial()

    def _fields(self, stimuli: dict[str, np.ndarray], number: int) -> dict[str, Any]:
        """The stimuli of a trial, counted from 0 in this run."""
        batch = self.memory.batch
        rows = slice(number * batch, (number + 1) * batch)
        return {name: self.memory.arrays.asarray(values[rows]) for name, values in stimuli.items()}

    def _trial(self, fields: dict[str, Any], bar: tqdm) -> Iterator[None]:
        if self.record is not None:
            self.record.begin_trial(self.memory.weight)
        for index, phase in enumerate(self.plan.trial_stretches(self.seed, self.trial)):
            if phase.first:
                self.kept.begin(phase)
            for _ in self._phase(index, phase, fields):
                yield
                self.kept.step += 1
            bar.update(self.counts[index])
            if phase.last:
                self.kept.end()
        self.plasticity.end_trial()

    def _phase(self, index: int, phase: PhasePlan, fields: dict[str, Any]) -> Iterator[None]:
        self._begin(index, phase, fields)
        state, kept, rows, count = self.memory.state, self.kept, self.rows, self.counts[index]
        plastic = self.plasticity.begin(phase)
        fill = filler(self.memory, plastic)
        ordinary, final = self._program(index, False), self._program(index, True)
        mark = kept.mark_step(self.plan.steps_of_phases(self.dt)[phase.number])
        for k in range(count):
            last = k == count - 1
            ends = last and phase.last
            program = final if ends else ordinary
            self._advance_time()
            for s, block in program.early:
                block(s)
            fill(k == 0)
            for s, block in program.late:
                block(s)
            for population, hold in phase.holds if last else ():
                state[population][hold.name][...] = state[population][hold.of]
            if rows is not None:
                rows.keep(kept.step, last)
            if kept.step - self._began["t_phase"] == mark:
                kept.mark(self.memory.values)
            if ends:
                kept.finish(phase, self.memory.values)
            for q in plastic:
                q.learn(last)
            if last:
                self.plasticity.end(phase)
            if kept.step % CHECK_EVERY == 0 or k == 0 or last:
                self.check_finite()
            yield

    def _begin(self, index: int, phase: PhasePlan, fields: dict[str, Any]) -> None:
        """Set what holds throughout a phase: shared values and clamps."""
        state = self.memory.state
        for p in self.plan.populations.values():
            for name in p.inputs:
                state[p.name][name][...] = 0.0
            state[p.name].update(shared_values(p, phase))
        if phase.first:
            self._began["t_phase"] = self.kept.step
        if index == 0:
            self._began["t_trial"] = self.kept.step
        shown = phase.fields(fields, self.seed, self.trial)
        for (population, variable), source in phase.clamps.items():
            state[population][variable][...] = self.memory.arrays.asarray(shown[source])
        if self.rows is not None:
            self.rows.begin()

    def _advance_time(self) -> None:
        """What changes by itself: the time, noise, derivatives of the previous step."""
        for s in self._timed:
            for clock, began in self._began.items():
                s[clock] = np.float64((self.kept.step - began) * self.dt)
        for name, variable, values in self.noise.draw():
            self.memory.state[name][variable][...] = self.memory.arrays.asarray(values)
        self.memory.differentiate()

    # ---------------------------------------------------------------- programs

    def _program(self, index: int, last: bool) -> PhaseProgram:
        """The program of a stretch, or that of its phase's last step, where more is read."""
        if (index, last) not in self._programs:
            phase = self.plan.stretches[index]
            wanted = partial(self._wanted, phase=phase, last=last)
            factors = self.plasticity.factors(phase)
            self._programs[index, last] = compiled(self.memory, wanted, factors)
        return self._programs[index, last]

    def _wanted(self, p: PopulationPlan, phase: PhasePlan, last: bool) -> set[str]:
        wanted = self.plan.sent(p.name) | p.names_of_ode()
        if self.record is not None:
            wanted |= {v for pop, v in self.record.variables if pop == p.name}
        if last:
            wanted |= {hold.of for pop, hold in phase.holds if pop == p.name}
            wanted |= {v for pop, v in self.kept.wanted(phase) if pop == p.name}
        return wanted

    # ---------------------------------------------------------------- what is kept

    def note_spikes(self) -> None:
        """To be called once thresholds of the present step were looked at."""
        if self.rows is not None:
            self.rows.note_spikes(self.kept.step)

    def check_finite(self) -> None:
        """Raise `DivergenceError` when something is not finite; what was recorded goes with it."""
        self.kept.check_finite(self.memory.finite, self.result)

    def result(self) -> Result:
        """What the run has gathered so far."""
        weights = {name: self.memory.copy(w) for name, w in self.memory.weights.items()}
        return self.kept.result(weights, self.plasticity.changes())
