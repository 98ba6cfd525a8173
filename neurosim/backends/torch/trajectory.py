"""`torch:trajectory`: Brian2's own Euler update text run on batched tensors, float64 or float32, CPU or GPU."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from brian2.equations.equations import Equations
from brian2.stateupdaters.explicit import euler

from neurosim.backends.engine import Learn, Options, check_stimuli
from neurosim.backends.noise import Noise
from neurosim.backends.result import Result
from neurosim.backends.stepping.stepper import Stepper
from neurosim.backends.torch.arrays import TorchArrays
from neurosim.equations import compile_block
from neurosim.equations.units import unit_string
from neurosim.plan import Plan, PopulationPlan, Spiking
from neurosim.traces.recording import Recording

LEVEL = "torch:trajectory"


def update_text(p: PopulationPlan) -> list[tuple[str, str]]:
    """Brian2's forward Euler update of a population's states as assignments (all else enters as known values)."""
    frozen = p.spiking.unless_refractory if p.spiking else ()
    right = {x: f"({rhs})*ns_active" if x in frozen else rhs for x, rhs in p.ode.items()}
    lines = [f"d{x}/dt = {rhs} : {unit_string(p.dimensions[x])}" for x, rhs in right.items()]
    lines += ["ns_active : 1"] if frozen else []
    known = p.names_of_ode() | set(p.parameters)
    lines += [f"{n} : {unit_string(p.dimensions[n])}" for n in sorted(known) if n not in p.ode]
    text = euler(Equations("\n".join(lines)), {})
    pairs = (line.partition("=") for line in text.strip().splitlines())
    return [(name.strip(), expression.strip()) for name, _, expression in pairs]


class Threshold:
    """Threshold, reset and refractoriness of a spiking population, as Brian2 has them: ``active`` before the states move,
    ``fire`` after."""

    def __init__(
        self, spiking: Spiking, state: dict[str, Any], arrays: TorchArrays, constants: dict[str, Any], dt: float
    ):
        self.state, self.dt = state, dt
        self.refractory = spiking.refractory
        self.crossed = compile_block([("ns_crossed", f"int({spiking.threshold})")], arrays.functions, constants)
        self.reset = [
            (x, compile_block([("ns_reset", value)], arrays.functions, constants)) for x, value in spiking.reset
        ]

    def active(self, t: float) -> None:
        s = self.state
        since = torch.round((t - s["lastspike"]) / self.dt)  # whole steps
        s["ns_active"] = (since >= np.floor((self.refractory + 1e-3 * self.dt) / self.dt)).to(s["lastspike"].dtype)

    def fire(self, t: float) -> None:
        s = self.state
        self.crossed(s)
        fired = (s["ns_crossed"] * s["ns_active"]) > 0
        s["spike_train"] = fired.to(s["lastspike"].dtype) / self.dt
        if bool(fired.any()):
            s["lastspike"] = torch.where(fired, t, s["lastspike"])
            for x, value in self.reset:
                value(s)
                s[x] = torch.where(fired, s["ns_reset"], s[x])


class TrajectoryEngine:
    """See `neurosim.backends.engine.Engine`."""

    level = LEVEL

    def __init__(self, plan: Plan, weights: dict[str, np.ndarray], options: Options):
        plan.check_weights(weights)
        plan.check_rules(LEVEL)
        plan.check_step(options.dt)
        plan.warn_of_growth(LEVEL)
        self.plan, self.options = plan, options
        self.arrays = TorchArrays(options.dtype, options.device)
        self._weights = {name: self.arrays.asarray(w) for name, w in weights.items()}
        self.noise, self.trial = Noise(plan, options.seed, options.batch, options.dt), 0

    def weights(self) -> dict[str, np.ndarray]:
        return {name: self.arrays.to_numpy(w).copy() for name, w in self._weights.items()}

    def set_weights(self, weights: dict[str, np.ndarray]) -> None:
        for name, value in weights.items():
            self._weights[name].copy_(self.arrays.asarray(value))

    @torch.inference_mode()
    def present(
        self, stimuli: dict[str, np.ndarray], *, learn: Learn = "on", record: Recording | None = None, ends: bool = True,
    ) -> Result:  # fmt: skip
        started = time.perf_counter()
        options = self.options
        stepper = Stepper(
            self.plan, self.arrays, self._weights, level=LEVEL, batch=options.batch, dt=options.dt, noise=self.noise,
            learn=learn, record=record, ends=ends, seed=options.seed, trial=self.trial,
        )  # fmt: skip
        memory, updates, thresholds = stepper.memory, [], []
        for p in self.plan.populations.values():
            constants, s = memory.constants[p.name], memory.state[p.name]
            if p.ode:
                updates.append((s, compile_block(update_text(p), self.arrays.functions, constants)))
            if p.spiking:
                thresholds.append(Threshold(p.spiking, s, self.arrays, constants, options.dt))
        trials = check_stimuli(self.plan, stimuli, options.batch)
        for _ in stepper.steps(stimuli, trials, options.progress):
            t = stepper.kept.step * options.dt
            for threshold in thresholds:
                threshold.active(t)
            for s, update in updates:
                update(s)
            for threshold in thresholds:
                threshold.fire(t)
            if thresholds:
                stepper.note_spikes()
        stepper.check_finite()
        self.trial = stepper.trial
        result = stepper.result()
        result.seconds = time.perf_counter() - started
        return result
