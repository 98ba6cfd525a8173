"""Parameter-exploring policy gradients with antithetic pairs, rank fitness and a width for each parameter.

Sehnke et al. 2010 (Neural Networks 23:551), in the form of the released code of Chen et al. (top-down credit assignment network).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from annotated_types import Ge, Gt, Le, Lt

from neurosim.checks import NotNegative, Positive, Seed, checked
from neurosim.errors import NeurosimError
from neurosim.training.evolution.strategy import finite, matching, not_asked, vector

#: Rate and pairs of the released code, which fix the default rate for other numbers of pairs.
RATE, PAIRS = 0.1, 400


class PEPG:
    """Evolution by n = (P - 1)/2 antithetic pairs; candidates, in this order: mu, mu + eps_1..n, mu - eps_1..n.

    With eps_j = sigma N(0, 1) per parameter and R the centred ranks, [-0.5, 0.5], of the fitness among all P::

        R <- R - weight_decay mean(candidate^2)
        g = sum_j (R_j+ - R_j-) eps_j
        v <- momentum v + (1 - momentum) g                               v = 0 before the first generation
        mu <- mu + rate v
        d = sigma_rate sum_j ((R_j+ + R_j-)/2 - R_mu) (eps_j^2 - sigma^2)/sigma / (2 n)
        sigma <- sigma + min(max(d, -m), m)                              m = sigma_max_change sigma
        sigma <- sigma_decay sigma                                       where sigma > sigma_limit

    The rank of mu is the baseline of the widths. g is a sum over pairs, neither a mean nor divided by sigma, so that a rate holds for one
    P; `rate` None keeps rate sqrt(n) as in the released code.

    Ranks are places in a stable argsort, as in the released code (whose sort leaves open what happens to equals): candidates of equal fitness
    have different ranks, the earlier one the lower. So the ranks always sum to 0 and reach from -0.5 to 0.5. Where many are equal, they
    drive mu in a random direction, since the order of the pairs means nothing. A fitness that is not finite counts as the worst finite one of its generation.

    The noise of a generation is a function of seed and generation.

    Parameters
    ----------
    theta
        Start of mu (d,).
    population
        P, odd; released: 801.
    sigma
        First width of all parameters.
    sigma_decay, sigma_limit, sigma_rate, sigma_max_change
        See the equations. Between 0 and 1 (1 for no decay); at least 0; at least 0; between 0 and 1.
    rate
        Of mu; None for 0.1 sqrt(400/n). Published: 0.1 at n = 400.
    momentum, weight_decay
        See the equations.
    seed
        Of the noise.

    Raises
    ------
    NeurosimError
        A setting out of its range, or an even population.
    """

    differentiates: ClassVar[bool] = False

    @checked
    def __init__(
        self, theta: Any, population: Annotated[int, Ge(3)] = 65, sigma: Positive = 0.1, sigma_decay: Annotated[float, Gt(0), Le(1)] = 0.999,
        sigma_limit: NotNegative = 1e-4, sigma_rate: NotNegative = 0.1, sigma_max_change: Annotated[float, Gt(0), Lt(1)] = 0.2,
        rate: Positive | None = None, momentum: Annotated[float, Ge(0), Lt(1)] = 0.9, weight_decay: NotNegative = 0.0, seed: Seed = 0,
    ):  # fmt: skip
        if population % 2 == 0:
            raise NeurosimError(
                f"population = {population} is even; wanted an odd one: the centre and pairs of candidates. Take {population - 1} or {population + 1}."
            )
        self.population, self.pairs = population, (population - 1) // 2
        self.rate = RATE * math.sqrt(PAIRS / self.pairs) if rate is None else rate
        self.sigma_decay, self.sigma_limit, self.sigma_rate = sigma_decay, sigma_limit, sigma_rate
        self.sigma_max_change, self.momentum, self.weight_decay = sigma_max_change, momentum, weight_decay
        self.seed = seed
        self._mu = vector(theta)
        self._first_sigma = sigma
        self._sigma = torch.full_like(self._mu, sigma)
        self._velocity = torch.zeros_like(self._mu)
        self._steps: torch.Tensor | None = None  # eps (n, d) of the candidates that were asked for

    @property
    def settings(self) -> dict[str, Any]:
        """See `Strategy.settings`."""
        names = (
            "population", "sigma_decay", "sigma_limit", "sigma_rate", "sigma_max_change", "rate", "momentum", "weight_decay", "seed",
        )  # fmt: skip
        return {"name": "PEPG", "sigma": self._first_sigma, **{name: getattr(self, name) for name in names}}

    @property
    def theta(self) -> torch.Tensor:
        """mu (d,)."""
        return self._mu.clone()

    @property
    def sigma(self) -> torch.Tensor:
        """Width of each parameter (d,)."""
        return self._sigma.clone()

    def ask(self, generation: int) -> torch.Tensor:
        """Candidates (P, d) of a generation."""
        # The generation as a key of its own: whoever draws tasks from default_rng([seed, generation]) has other numbers.
        source = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(generation,)))
        self._steps = torch.from_numpy(source.standard_normal((self.pairs, len(self._mu)))) * self._sigma
        return self._candidates(self._steps)

    def _candidates(self, steps: torch.Tensor) -> torch.Tensor:
        return torch.cat([self._mu[None], self._mu + steps, self._mu - steps])

    def tell(self, fitness: torch.Tensor) -> None:
        """One update of mu and sigma by the fitness (P,)."""
        if self._steps is None:
            raise not_asked()
        steps, sigma = self._steps, self._sigma
        ranks = centred_ranks(finite(fitness, self.population))
        if self.weight_decay:
            ranks -= self.weight_decay * self._candidates(steps).square().mean(dim=1)
        self._steps = None
        plus, minus = ranks[1:].split(self.pairs)
        self._velocity = self.momentum * self._velocity + (1.0 - self.momentum) * ((plus - minus) @ steps)
        self._mu = self._mu + self.rate * self._velocity
        excess = (plus + minus) / 2.0 - ranks[0]
        change = self.sigma_rate * (excess @ steps.square() - excess.sum() * sigma.square()) / (2 * self.pairs * sigma)
        most = self.sigma_max_change * sigma
        sigma = sigma + change.clamp(-most, most)
        self._sigma = torch.where(sigma > self.sigma_limit, self.sigma_decay * sigma, sigma)

    def state(self) -> dict[str, np.ndarray]:
        """mu, sigma and v; the noise is a function of seed and generation."""
        values = {"mu": self._mu, "sigma": self._sigma, "velocity": self._velocity}
        return {name: value.numpy().copy() for name, value in values.items()}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take up what `state` gave."""
        matching(state, self.state())
        self._mu, self._sigma, self._velocity = (torch.tensor(state[name]) for name in ("mu", "sigma", "velocity"))
        self._steps = None


def centred_ranks(fitness: torch.Tensor) -> torch.Tensor:
    """Place of each value in the stable ascending order, as -0.5 (worst) to 0.5 (best)."""
    ranks = torch.empty_like(fitness)
    places = torch.arange(len(fitness), dtype=fitness.dtype)
    ranks[torch.argsort(fitness, stable=True)] = places / (len(fitness) - 1) - 0.5
    return ranks
