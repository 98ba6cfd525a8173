"""White noise of the cells, drawn in NumPy from one seed, so that all levels meet the same numbers."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np

from neurosim.plan import Plan

#: Steps drawn at once. The stream does not depend on it.
CHUNK = 64


class Noise:
    """One random stream per population and noise variable: standard normal / sqrt(dt), shape (batch, cells), per step.

    With Euler's ``u += dt*(f + sigma*xi)`` a step adds ``sigma*sqrt(dt)*N(0, 1)`` (Euler-Maruyama). The streams go on
    from run to run of an engine.
    """

    def __init__(self, plan: Plan, seed: int, batch: int, dt: float):
        self._streams = {
            (p.name, name): _stream(np.random.default_rng([seed, 2, zlib.crc32(f"{p.name}.{name}".encode())]), (batch, p.n), dt)
            for p in plan.populations.values() for name in p.noises
        }  # fmt: skip

    def draw(self) -> Iterator[tuple[str, str, np.ndarray]]:
        """``(population, variable, values)`` of the next step."""
        for (population, name), stream in self._streams.items():
            yield population, name, next(stream)


def _stream(rng: np.random.Generator, shape: tuple[int, int], dt: float) -> Iterator[np.ndarray]:
    while True:
        yield from rng.standard_normal((CHUNK, *shape)) / np.sqrt(dt)
