"""`brian2:dense`: Brian2 integrates the neurons; one operation a step does the rest by BLAS on Brian2's weights.

A dense projection is a ``Synapses('w : 1')`` object without equations: a container whose array is pre-major, so it is
a C-contiguous (n_pre, n_post) matrix without a copy. Groups hold B*n cells, sample-major; the weights join the cells of
the first sample. 16 bytes per synapse: the weight and Brian2's two indices.
"""

from __future__ import annotations

import time
from typing import Any

import brian2 as b2
import numpy as np

from neurosim.backends.brian2.arrays import NumpyArrays
from neurosim.backends.brian2.network import (
    brian2_settings,
    brian2_unit,
    clear_spike_train,
    namespace_of,
    object_name,
    run_network,
    spike_operation,
    spiking_arguments,
    state_lines,
)
from neurosim.backends.engine import Learn, Options, check_stimuli
from neurosim.backends.noise import Noise
from neurosim.backends.result import Result
from neurosim.backends.stepping.stepper import Stepper
from neurosim.description import Dense
from neurosim.errors import UnsupportedError
from neurosim.plan import Plan
from neurosim.traces.recording import Recording

LEVEL = "brian2:dense"


class DenseEngine:
    """See `neurosim.backends.engine.Engine`. float64 only."""

    level = LEVEL

    def __init__(self, plan: Plan, weights: dict[str, np.ndarray], options: Options):
        plan.check_weights(weights)
        plan.check_rules(LEVEL)
        plan.check_step(options.dt)
        plan.warn_of_growth(LEVEL)
        plan.steps(options.dt)  # refused before Brian2's objects are made, which complain when they are dropped
        if options.dtype != "float64":
            raise UnsupportedError(
                f"{LEVEL} runs in float64; got dtype {options.dtype}. Use torch:trajectory for float32."
            )
        self.plan, self.options = plan, options
        self.arrays = NumpyArrays()
        self.groups: dict[str, b2.NeuronGroup] = {}
        self.views: dict[str, dict[str, np.ndarray]] = {}
        self.synapses: list[b2.Synapses] = []
        with brian2_settings(options.codegen):
            self.clock = b2.Clock(options.dt * b2.second, name="ns_clock")
            for p in plan.populations.values():
                self._group(p.name)
            self._weights = {name: self._container(name, w) for name, w in weights.items()}
            self.network = b2.Network(*self.groups.values(), *self.synapses)
        self.noise, self.trial = Noise(plan, options.seed, options.batch, options.dt), 0
        for obj in (
            *self.synapses,
            *(self.groups[p.name] for p in plan.populations.values() if not p.ode and not p.spiking),
        ):
            obj.active = False  # containers: nothing to do in a step

    def _group(self, name: str) -> None:
        p, batch = self.plan.populations[name], self.options.batch
        lines = state_lines(p)
        outside = sorted({*p.names_of_ode(), *(["spike_train"] if p.spiking else [])} - {"lastspike"})
        # With one sample a pool is one number for the whole group.
        scalars = {*p.shared, *p.clocks, *(a.name for a in p.assignments if a.axis == "population" and batch == 1)}
        lines += [f"{n} : {brian2_unit(p.dimensions[n])}{' (shared)' if n in scalars else ''}" for n in outside]
        arrays = p.arrays
        lines += [f"{n} : {brian2_unit(p.dimensions[n])} (constant)" for n in arrays]
        group = b2.NeuronGroup(
            batch * p.n, "\n".join(lines), method="euler" if p.ode else None, clock=self.clock,
            namespace=namespace_of(p), name=object_name("group", name), **spiking_arguments(p),
        )  # fmt: skip
        if p.spiking:
            clear_spike_train(group, self.clock)
        views = {}
        for variable in (*p.ode, *outside, *arrays, *(["lastspike"] if p.spiking else [])):
            flat = group.variables[variable].get_value()
            views[variable] = flat if variable in scalars else flat.reshape(batch, p.n)
        for n, value in arrays.items():
            views[n][...] = value
        self.groups[name], self.views[name] = group, views

    def _container(self, name: str, values: np.ndarray) -> np.ndarray:
        projection = self.plan.projections[name]
        if not isinstance(projection.connectivity, Dense):
            return np.array(values, dtype=float)
        source, target = self.groups[projection.source], self.groups[projection.target]
        synapses = b2.Synapses(
            source[: projection.n_pre],
            target[: projection.n_post],
            "w : 1",
            clock=self.clock,
            name=object_name("weights", name),
        )
        with brian2_settings("numpy"):  # connecting is done once: nothing to gain from compiling it
            synapses.connect()
        self.synapses.append(synapses)
        view = synapses.variables["w"].get_value().reshape(projection.n_pre, projection.n_post)
        view[...] = values
        return view

    def _direct_ports(self, name: str) -> set[str]:
        """Ports whose drive nobody else reads: it can be computed in Brian2's memory."""
        keys = [q.key for q in self.plan.projections.values()]
        feeding = {port: p for port, p in self.plan.populations[name].ports.items() if len(p) == 1}
        return {port for port, (q,) in feeding.items() if keys.count(q.key) == 1}

    def weights(self) -> dict[str, np.ndarray]:
        return {name: w.copy() for name, w in self._weights.items()}

    def set_weights(self, weights: dict[str, np.ndarray]) -> None:
        for name, value in weights.items():
            self._weights[name][...] = value

    def present(
        self, stimuli: dict[str, np.ndarray], *, learn: Learn = "on", record: Recording | None = None, ends: bool = True,
    ) -> Result:  # fmt: skip
        started = time.perf_counter()
        options = self.options
        stepper = Stepper(
            self.plan, self.arrays, self._weights, level=LEVEL, batch=options.batch, dt=options.dt, noise=self.noise,
            learn=learn, record=record, ends=ends, seed=options.seed, trial=self.trial,
        )  # fmt: skip
        memory = stepper.memory
        handed: list[tuple[np.ndarray, dict[str, Any], str]] = []
        for name, p in self.plan.populations.items():
            views, outside = self.views[name], p.names_of_ode()
            # What the stepper writes in place it writes into Brian2's own memory; the rest is handed over in each step.
            written = {*p.inputs, *(h.name for h in p.holds), *p.noises}
            placed = {*p.ode, *(outside & written), *p.spiking_variables}
            for port in self._direct_ports(name) & outside:
                memory.drives[p.ports[port][0].key] = views[port]
                placed.add(port)
            memory.state[name] |= {v: views[v] for v in placed}
            handed += [(views[v], memory.state[name], v) for v in sorted(outside - placed)]
        trials = check_stimuli(self.plan, stimuli, options.batch)
        steps = stepper.steps(stimuli, trials, options.progress)

        def operation() -> None:
            next(steps)
            for view, s, variable in handed:
                view[...] = s[variable]

        duration = trials * sum(stepper.counts)
        noting = spike_operation(self.plan, stepper.note_spikes, self.clock)
        self.network.add(*noting)
        try:
            run_network(self.network, operation, self.clock, duration, options)
        finally:
            self.network.remove(*noting)
        for _ in steps:  # the end of the last trial
            pass
        stepper.check_finite()
        self.trial = stepper.trial
        result = stepper.result()
        result.seconds = time.perf_counter() - started
        return result
