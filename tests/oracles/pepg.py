"""PEPG with antithetic pairs in plain loops, from the equations of Chen et al.'s released code as we noted them; imports nothing of neurosim."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def centred_ranks(fitness: list[float]) -> list[float]:
    """Place among all, -0.5 the worst, 0.5 the best; of equals the earlier is the lower. Counted one against another."""
    count = len(fitness)
    return [
        sum(fitness[k] < fitness[i] or (fitness[k] == fitness[i] and k < i) for k in range(count)) / (count - 1) - 0.5
        for i in range(count)
    ]


def pepg(
    fitness_of: Callable[[np.ndarray, int], float], noise: list[np.ndarray], mu: np.ndarray, sigma: float, rate: float, *,
    momentum: float = 0.9, sigma_rate: float = 0.1, max_change: float = 0.2, decay: float = 0.999, limit: float = 1e-4,
    weight_decay: float = 0.0,
) -> list[dict[str, np.ndarray]]:  # fmt: skip
    """mu, sigma and velocity after each generation, by its standard normal noise (n, d)."""
    dimensions = len(mu)
    mu, widths, velocity, found = mu.copy(), np.full(dimensions, sigma), np.zeros(dimensions), []
    for generation, normal in enumerate(noise):
        n = len(normal)
        candidates = [mu.copy()]
        candidates += [np.array([mu[k] + widths[k] * normal[j, k] for k in range(dimensions)]) for j in range(n)]
        candidates += [np.array([mu[k] - widths[k] * normal[j, k] for k in range(dimensions)]) for j in range(n)]
        reward = centred_ranks([fitness_of(candidate, generation) for candidate in candidates])
        for i, candidate in enumerate(candidates):
            reward[i] -= weight_decay * float(np.mean(candidate**2))
        baseline, plus, minus = reward[0], reward[1 : n + 1], reward[n + 1 :]
        for k in range(dimensions):
            epsilon = [widths[k] * normal[j, k] for j in range(n)]
            gradient = sum((plus[j] - minus[j]) * epsilon[j] for j in range(n))
            velocity[k] = momentum * velocity[k] + (1 - momentum) * gradient
            mu[k] += rate * velocity[k]
            change = 0.0
            for j in range(n):
                spread = (epsilon[j] ** 2 - widths[k] ** 2) / widths[k]
                change += ((plus[j] + minus[j]) / 2 - baseline) * spread
            change *= sigma_rate / (2 * n)
            change = min(max(change, -max_change * widths[k]), max_change * widths[k])
            widths[k] += change
            if widths[k] > limit:
                widths[k] *= decay
        found.append({"mu": mu.copy(), "sigma": widths.copy(), "velocity": velocity.copy()})
    return found
