"""White noise of the cells, drawn in NumPy from one seed, so that all levels meet the same numbers."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np

from neurosim.plan import Plan

#: Steps drawn at once.
CHUNK = 64


class Noise:
    """One random stream per population and noise variable: standard normal / sqrt(dt), shape (batch, cells), per step.

    With Euler's ``u += dt*(f + sigma*xi)`` a step adds ``sigma*sqrt(dt)*N(0, 1)`` (Euler-Maruyama). The streams go on
    from run to run of an engine. Each chunk of steps has a seed of its own, so `step` alone says where a stream stands: a run goes
    on from a checkpoint by setting it.
    """

    def __init__(self, plan: Plan, seed: int, batch: int, dt: float):
        self.step = 0
        self._seed, self._scale = seed, 1.0 / np.sqrt(dt)
        self._shapes = {(p.name, name): (batch, p.n) for p in plan.populations.values() for name in p.noises}
        self._chunk, self._values = -1, {}

    def draw(self) -> Iterator[tuple[str, str, np.ndarray]]:
        """``(population, variable, values)`` of the next step."""
        if not self._shapes:
            return
        chunk, row = divmod(self.step, CHUNK)
        if chunk != self._chunk:
            self._chunk, self._values = chunk, {key: self._draw(key, chunk) for key in self._shapes}
        self.step += 1
        for (population, name), values in self._values.items():
            yield population, name, values[row]

    def _draw(self, key: tuple[str, str], chunk: int) -> np.ndarray:
        stream = zlib.crc32(".".join(key).encode())
        rng = np.random.default_rng([self._seed, 2, stream, chunk])
        return self._scale * rng.standard_normal((CHUNK, *self._shapes[key]))
