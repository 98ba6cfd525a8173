"""The memory of a run: every array that a step reads or writes."""

from __future__ import annotations

from typing import Any

import numpy as np

from neurosim.backends.stepping.arrays import Arrays
from neurosim.backends.stepping.kernels import kernels_of
from neurosim.equations import shared_name
from neurosim.plan import NEVER, PhasePlan, Plan, PopulationPlan


def constants_of(p: PopulationPlan, arrays: Arrays, dt: float) -> dict[str, Any]:
    """What a population's compiled text reads and never changes: the step, and its parameters.

    Numbers are NumPy's, which divide by zero as arrays do.
    """
    return {"dt": np.float64(dt), "ns_maps": p.maps} | {
        n: arrays.asarray(v) if n in p.arrays else np.float64(v) for n, v in p.parameters.items()
    }


def shared_values(p: PopulationPlan, phase: PhasePlan) -> dict[str, Any]:
    """The shared values that a population reads in a phase.

    Those that its cells declare, and those in rules' factors.
    """
    return {n: np.float64(phase.shared[n]) for n in p.shared} | {
        shared_name(n): np.float64(value) for n, value in phase.shared.items()
    }


class Memory:
    """Variables by population, drives and weights by projection.

    Attributes
    ----------
    state
        ``{population: {variable: array or number}}``: what compiled texts read and write.
    constants
        What they read and never change, by population.
    weights
        Weights of each projection that has its own; changed in place.
    drives
        What each projection sends, by `ProjectionPlan.key`. A drive has one buffer for good: a port
        that one projection feeds is that buffer.
    kernels
        See `kernels_of`.
    winners
        Of pooled convolutions: the positions that won in this step.
    """

    def __init__(
        self,
        plan: Plan,
        arrays: Arrays,
        weights: dict[str, Any],
        batch: int,
        dt: float,
    ):
        self.plan, self.arrays, self.weights = plan, arrays, weights
        self.batch, self.dt = batch, dt
        populations = plan.populations.values()
        self.kernels = kernels_of(plan, arrays)
        self.winners: dict[str, Any] = {}
        self.state = {p.name: self._zeros(p) for p in populations}
        self.constants = {p.name: constants_of(p, arrays, dt) for p in populations}
        projections = plan.projections.values()
        self.drives = {q.key: arrays.zeros(batch, q.n_post) for q in projections}
        for p in populations:
            fed = {port: feeding[0].key for port, feeding in p.ports.items() if feeding}
            self.state[p.name] |= {port: self.drives[key] for port, key in fed.items()}
        self._before = [
            (self.state[p.name], d, arrays.zeros(batch, p.n))
            for p in populations
            for d in p.derivatives
        ]  # fmt: skip
        self._numbers: dict[tuple[float, tuple[int, int]], Any] = {}

    def _zeros(self, p: PopulationPlan) -> dict[str, Any]:
        holds = (h.name for h in p.holds)
        names = (*p.ode, *p.inputs, *holds, *p.noises, *p.spiking_variables)
        return {x: self.arrays.zeros(self.batch, p.n) for x in names}

    def reset(self) -> None:
        """Put every state to its start."""
        for p in self.plan.populations.values():
            s = self.state[p.name]
            for x in p.ode:
                s[x][...] = p.initial[x]
            for hold in p.holds:
                s[hold.name][...] = 0.0
            if p.spiking:
                s["spike_train"][...] = 0.0
                s["lastspike"][...] = NEVER
        for s, d, before in self._before:
            before[...] = s[d.of]

    def differentiate(self) -> None:
        """Take the derivatives of the previous step."""
        for s, d, before in self._before:
            now = s[d.of]
            s[d.name] = (now - before) / self.dt
            before[...] = now

    def expand(self, value: Any, shape: tuple[int, int]) -> Any:
        """An array of this shape, only to be read.

        A number (parameter, shared value) is written out once.
        """
        if not isinstance(value, int | float):
            return self.arrays.expand(value, shape)
        if (value, shape) not in self._numbers:
            if len(self._numbers) > 64:  # a number that changes from step to step, such as the time
                self._numbers.clear()
            self._numbers[value, shape] = self.arrays.zeros(*shape) + value
        return self._numbers[value, shape]

    def look(self, population: str, variable: str) -> Any:
        """A variable in its own memory: broadcasts to (batch, cells), or is a number."""
        value = self.state[population][variable]
        return value if isinstance(value, float | int) else self.arrays.to_numpy(value)

    def values(self, population: str, variable: str) -> np.ndarray:
        """A copy of a variable, of shape (batch, cells)."""
        shape = (self.batch, self.plan.populations[population].n)
        return self.copy(self.arrays.expand(self.state[population][variable], shape))

    def finite(self, population: str, variable: str) -> bool:
        """Whether a variable is finite; one that is not computed yet is."""
        value = self.state[population].get(variable, 0.0)
        if isinstance(value, int | float):
            return bool(np.isfinite(value))
        return self.arrays.finite(value)

    def weight(self, name: str) -> np.ndarray:
        """The weights of a projection, not copied where the library allows it."""
        return self.arrays.to_numpy(self.weights[name])

    def copy(self, values: Any) -> np.ndarray:
        return np.array(self.arrays.to_numpy(values))
