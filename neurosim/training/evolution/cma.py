"""CMA-ES (Hansen 2016, arXiv:1604.00772) and its separable form (Ros & Hansen 2008), by the library `cmaes`.

Of the two libraries that are well kept, `cmaes` gives its state as plain numbers and arrays; that of `cma` is a web of objects which only
pickle saves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from annotated_types import Ge

from neurosim.checks import Positive, Seed, checked
from neurosim.errors import NeurosimError
from neurosim.training.evolution.strategy import finite, matching, not_asked, vector

#: Up to this many parameters the covariance is full; above, diagonal: the library multiplies d x d matrices for each candidate.
FULL = 200
#: What the library keeps for stopping criteria, which are not used here; partly uninitialised.
_HISTORY = "_funhist_values"
#: Eigenvectors and roots of the covariance, which the library finds anew after each tell.
_ROOTS = ("_B", "_D")


class CMAES:
    """Evolution by a Gaussian whose mean, step size and covariance follow the better half of the candidates.

    Candidates: the mean, then `population` draws. The mean is evaluated only to be reported; the library is told of the draws.
    The covariance is full for d <= 200, else diagonal (SepCMA).

    Parameters
    ----------
    theta
        Start of the mean (d,).
    sigma
        First step size.
    population
        Draws of a generation, at least 3; None for 4 + floor(3 ln d).
    seed
        Of the draws, which are a function of seed, generation and state.

    Raises
    ------
    NeurosimError
        A setting out of its range, or the library is missing.
    """

    differentiates: ClassVar[bool] = False

    @checked
    def __init__(self, theta: Any, sigma: Positive, population: Annotated[int, Ge(3)] | None = None, seed: Seed = 0):
        try:
            import cmaes
        except ImportError as error:
            raise NeurosimError(
                "CMAES needs the library cmaes, which is not installed: pip install neurosim[evolution]"
            ) from error
        start = vector(theta).numpy()
        kind = cmaes.CMA if len(start) <= FULL else cmaes.SepCMA
        self._library = kind(mean=start, sigma=float(sigma), population_size=population)
        self.population, self.seed = self._library.population_size, seed
        self.settings: dict[str, Any] = {
            "name": "CMAES", "sigma": sigma, "population": self.population, "seed": seed, "full": kind is cmaes.CMA
        }  # fmt: skip
        self._draws: list[np.ndarray] = []

    @property
    def theta(self) -> torch.Tensor:
        """The mean (d,)."""
        return torch.tensor(self._library.mean)

    @property
    def sigma(self) -> torch.Tensor:
        """Step size (1,); the standard deviations are that times the square roots of the covariance."""
        return torch.from_numpy(self.state()["_sigma"]).reshape(1)

    def ask(self, generation: int) -> torch.Tensor:
        """Candidates (1 + population, d) of a generation."""
        noise = np.random.SeedSequence(self.seed, spawn_key=(generation,))  # as in PEPG
        self._library.reseed_rng(int(noise.generate_state(1)[0]))
        self._draws = [self._library.ask() for _ in range(self.population)]
        return torch.from_numpy(np.stack([self._library.mean, *self._draws]))

    def tell(self, fitness: torch.Tensor) -> None:
        """One update by the fitness (1 + population,)."""
        if not self._draws:
            raise not_asked()
        losses = (-finite(fitness, 1 + self.population)[1:]).tolist()
        self._library.tell(list(zip(self._draws, losses, strict=True)))
        # A saved state lacks what round-off puts into one triangle of the covariance. Unbroken evolutions go through it as well, to be equal
        # to resumed ones.
        self.restore(self.state())

    def state(self) -> dict[str, np.ndarray]:
        """The numbers and arrays of the library's own state."""
        return {name: np.array(value) for name, value in self._values().items()}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take up what `state` gave."""
        matching(state, self.state())
        taken = {n: np.array(v) if np.ndim(v) else np.asarray(v).item() for n, v in state.items()}
        rest = {n: None if n in _ROOTS else v for n, v in self._library.__getstate__().items()}
        self._library.__setstate__(rest | taken)
        self._draws = []

    def _values(self) -> dict[str, Any]:
        state = self._library.__getstate__()
        return {n: v for n, v in state.items() if v is not None and n not in (_HISTORY, *_ROOTS)}
