"""`torch:trajectory`: Brian2's own Euler update text run on batched tensors, float64 or float32, CPU or GPU."""

from __future__ import annotations

import time

import numpy as np
import torch
from brian2.equations.equations import Equations
from brian2.stateupdaters.explicit import euler

from neurosim.backends.engine import Options, check_stimuli
from neurosim.backends.result import Result
from neurosim.backends.step import Learn, Stepper
from neurosim.backends.torch.arrays import TorchArrays
from neurosim.equations import compile_block
from neurosim.equations.units import unit_string
from neurosim.plan import Plan, PopulationPlan

LEVEL = "torch:trajectory"


def update_text(p: PopulationPlan) -> list[tuple[str, str]]:
    """Brian2's forward Euler update of a population's states as assignments (all else enters as known values)."""
    lines = [f"d{x}/dt = {rhs} : {unit_string(p.dimensions[x])}" for x, rhs in p.ode.items()]
    known = p.names_of_ode() | set(p.parameters)
    lines += [f"{n} : {unit_string(p.dimensions[n])}" for n in sorted(known) if n not in p.ode]
    text = euler(Equations("\n".join(lines)), {})
    pairs = (line.partition("=") for line in text.strip().splitlines())
    return [(name.strip(), expression.strip()) for name, _, expression in pairs]


class TrajectoryEngine:
    """See `neurosim.backends.engine.Engine`."""

    level = LEVEL

    def __init__(self, plan: Plan, weights: dict[str, np.ndarray], options: Options):
        plan.check_weights(weights)
        plan.check_step(options.dt)
        self.plan, self.options = plan, options
        self.arrays = TorchArrays(options.dtype, options.device)
        self._weights = {name: self.arrays.asarray(w) for name, w in weights.items()}

    def weights(self) -> dict[str, np.ndarray]:
        return {name: self.arrays.to_numpy(w).copy() for name, w in self._weights.items()}

    def set_weights(self, weights: dict[str, np.ndarray]) -> None:
        for name, value in weights.items():
            self._weights[name].copy_(self.arrays.asarray(value))

    @torch.inference_mode()
    def present(
        self, stimuli: dict[str, np.ndarray], *, learn: Learn = "on", record: list[tuple[str, str]] | None = None,
        stride: int = 1, ends: bool = True,
    ) -> Result:  # fmt: skip
        started = time.perf_counter()
        options = self.options
        stepper = Stepper(
            self.plan, self.arrays, self._weights, level=LEVEL, batch=options.batch, dt=options.dt, learn=learn,
            record=record or [], stride=stride, ends=ends,
        )  # fmt: skip
        updates = []
        for p in self.plan.populations.values():
            if p.ode:
                constants = {**stepper.constants[p.name], "dt": options.dt}
                updates.append((stepper.state[p.name], compile_block(update_text(p), self.arrays.functions, constants)))
        trials = check_stimuli(self.plan, stimuli, options.batch)
        for _ in stepper.steps(stimuli, trials, options.progress):
            for s, update in updates:
                update(s)
        stepper.check_finite()
        result = stepper.result()
        result.seconds = time.perf_counter() - started
        return result
