"""A run: the Brian2 objects of a circuit, and what the protocol does with them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import brian2 as b2
import numpy as np
from tqdm import tqdm

from neurosim.backends.brian2.equations.cells import cells_of
from neurosim.backends.brian2.equations.connections import Connection
from neurosim.backends.brian2.equations.names import LEVEL, RECORDERS, before, take
from neurosim.backends.brian2.network import run_network, spike_operation
from neurosim.backends.engine import Learn, Options
from neurosim.backends.noise import Noise
from neurosim.backends.result import CHECK_EVERY, Result, ResultBuilder
from neurosim.plan import NEVER, PhasePlan, Plan
from neurosim.traces.recording import Recording


class Run:
    """One call of the engine.

    Parameters
    ----------
    plan, weights, options
        See `neurosim.backends.engine.Engine`.
    noise
        The cells' white noise.
    learn, record, ends
        See `neurosim.backends.engine.Engine.present`.
    """

    def __init__(
        self,
        plan: Plan,
        weights: dict[str, np.ndarray],
        options: Options,
        noise: Noise,
        learn: Learn,
        *,
        record: Recording | None,
        ends: bool,
    ):
        self.plan, self.options, self.noise, self.record = plan, options, noise, record
        self.clock = b2.Clock(options.dt * b2.second, name="ns_clock")
        self.groups: dict[str, b2.NeuronGroup] = {}
        self.objects: list[Any] = []  # of the network
        for p in plan.populations.values():
            self.groups[p.name], more = cells_of(plan, p, self.clock)
            self.objects += [self.groups[p.name], *more]
        self.connections: dict[str, Connection] = {}
        for name, q in plan.projections.items():
            self.connections[name] = Connection(plan, q, self.groups, self.clock, learn)
        self.objects += [c.synapses for c in self.connections.values()]
        for name, values in weights.items():
            self.connections[name].set(values)
        self.kept = ResultBuilder(plan, LEVEL, "float64", options.dt, record, ends)
        self.counts = plan.steps(options.dt)
        self._began = {"t_trial": 0, "t_phase": 0}  # steps

    def run(self, stimuli: dict[str, np.ndarray], trials: int, first: int) -> Result:
        """Run trials; `first` is the number of the first one."""
        total, options, clock = trials * sum(self.counts), self.options, self.clock
        show: dict[str, Any] = {"delay": 2, "disable": not options.progress, "leave": False}
        with tqdm(total=total, desc=LEVEL, unit="step", **show) as bar:
            steps = self._steps(stimuli, trials, first, bar)
            keep = b2.NetworkOperation(
                self._keep,
                clock=clock,
                when="groups",
                order=RECORDERS,
                name="ns_keep",
            )
            spikes = spike_operation(self.plan, self._note_spikes, clock)
            network = b2.Network(*self.objects, keep, *spikes)
            run_network(network, lambda: next(steps), clock, total, options)
            for _ in steps:  # the end of the last trial
                pass
        self._check_finite()
        return self._result()

    # ---------------------------------------------------------------- the protocol

    def _steps(
        self,
        stimuli: dict[str, np.ndarray],
        trials: int,
        first: int,
        bar: tqdm,
    ) -> Iterator[None]:
        """Set, before each step, what the protocol says; apply what waits for a phase's end."""
        for trial in range(trials):
            number = first + trial
            phases = self.plan.trial_stretches(self.options.seed, number)
            self._began["t_trial"] = self.kept.step
            if self.record is not None:
                self.record.begin_trial(self._weights)
            fields = {name: values[trial : trial + 1] for name, values in stimuli.items()}
            fresh = self.plan.circuit.protocol.reset or trial == 0
            for index, phase in enumerate(phases):
                if phase.first:
                    self.kept.begin(phase)
                if fresh and index == 0:
                    self._reset()
                shown = phase.fields(fields, self.options.seed, number)
                self._begin(phase, phases, shown)
                yield from self._phase(phase, self.counts[index])
                if phase.last:
                    self._apply("phase", phase)
                    self.kept.end()
                bar.update(self.counts[index])
            self._apply("trial", None)
            if self.record is not None:
                self.record.end_trial()

    def _reset(self) -> None:
        """Put every state to its start."""
        for p in self.plan.populations.values():
            for x in p.ode:
                self._look(p.name, x)[...] = p.initial[x]
            for hold in p.holds:
                self._look(p.name, hold.name)[...] = 0.0
            for d in p.derivatives:
                self._look(p.name, before(d))[...] = p.initial[d.of]
            if p.spiking:
                self._look(p.name, "spike_train")[...] = 0.0
                self._look(p.name, "lastspike")[...] = NEVER
        for connection in self.connections.values():
            connection.reset()

    def _begin(self, phase: PhasePlan, phases: tuple[PhasePlan, ...], shown: Any) -> None:
        """Set what holds throughout a phase: shared values, clamps, which rules are on."""
        for p in self.plan.populations.values():
            for name in p.shared:
                self._look(p.name, name)[...] = phase.shared[name]
            for name in p.inputs:
                self._look(p.name, name)[...] = 0.0
        for (population, variable), source in phase.clamps.items():
            self._look(population, variable)[...] = shown[source][0]
        for connection in self.connections.values():
            connection.begin(phase, phases)
        self._tie()
        if phase.first:
            self._began["t_phase"] = self.kept.step

    def _phase(self, phase: PhasePlan, count: int) -> Iterator[None]:
        tied = {q.root for q in self.plan.projections.values() if q.root != q.name}
        moving = bool(set(phase.plastic) & tied)
        mark = self.kept.mark_step(self.plan.steps_of_phases(self.options.dt)[phase.number])
        for k in range(count):
            last = k == count - 1
            if moving:
                self._tie()
            self._advance_time()
            for population, hold in phase.holds:
                self._look(population, take(hold))[...] = last
            marked = self.kept.step - self._began["t_phase"] == mark
            self._now = (phase, marked, last and phase.last)
            yield
            self.kept.step += 1
            if self.kept.step % CHECK_EVERY == 0 or k == 0 or last:
                self._check_finite()
        for population, hold in phase.holds:
            self._look(population, take(hold))[...] = False

    def _advance_time(self) -> None:
        """What changes by itself: the time, noise."""
        for p in self.plan.populations.values():
            for clock in p.clocks:
                began = self._began[clock]
                self._look(p.name, clock)[...] = (self.kept.step - began) * self.options.dt
        for population, variable, values in self.noise.draw():
            self._look(population, variable)[...] = values[0]

    def _tie(self) -> None:
        """Give tied projections the weights of their roots."""
        for connection in self.connections.values():
            if connection.q.root != connection.q.name:
                connection.follow(self.connections[connection.q.root])

    def _apply(self, when: str, phase: PhasePlan | None) -> None:
        """Apply the changes that wait for the end of a phase, or of a trial (None)."""
        for name, connection in self.connections.items():
            if connection.applies == when and (phase is None or name in phase.plastic):
                connection.apply()

    # ---------------------------------------------------------------- what is kept

    def _keep(self) -> None:
        phase, mark, last = self._now
        if self.record is not None and self.record.due(self.kept.step):
            self.record.row(self.kept.step, self._look)
        if mark:
            self.kept.mark(self._values)
        if last:
            self.kept.finish(phase, self._values)

    def _note_spikes(self) -> None:
        for p in self.plan.populations.values():
            if p.spiking and self.record is not None:
                fired = self._look(p.name, "spike_train")
                self.record.note_spikes(p.name, self.kept.step, *np.nonzero(fired[None, :]))

    def _look(self, population: str, variable: str) -> np.ndarray:
        """A variable in Brian2's memory, base SI units."""
        return self.groups[population].variables[variable].get_value()

    def _values(self, population: str, variable: str) -> np.ndarray:
        return np.array(self._look(population, variable))[None, :]

    def _weights(self, name: str) -> np.ndarray:
        return self.connections[name].weights()

    def _check_finite(self) -> None:
        def finite(population: str, variable: str) -> bool:
            return bool(np.isfinite(self._look(population, variable).sum()))

        self.kept.check_finite(finite, self._result)

    def _result(self) -> Result:
        connections = self.connections.items()
        weights = {name: c.weights() for name, c in connections if c.q.root == name}
        return self.kept.result(weights, {name: c.held() for name, c in connections if c.collects})
