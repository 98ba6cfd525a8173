"""What the outer loop asks of a strategy, and what all strategies check alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import numpy as np
import torch

from neurosim.errors import DivergenceError, NeurosimError


class Strategy(Protocol):
    """Searches the vector theta (d,) of the highest fitness: ask, evaluate, tell, and again.

    Attributes
    ----------
    differentiates
        Whether `tell` needs the gradient of the fitness; else candidates are evaluated without one.
    """

    differentiates: ClassVar[bool]

    @property
    def settings(self) -> dict[str, Any]:
        """What the strategy was made with, as JSON holds it; a resumed evolution must have the same."""
        ...

    @property
    def theta(self) -> torch.Tensor:
        """The present centre (d,), which is what an evolution reports and saves.

        Not the best candidate of a generation: that one is selected on the luck of its generation (its tasks, its draws), so its fitness is
        too good to be true, and it differs from the centre by noise.
        """
        ...

    @property
    def sigma(self) -> torch.Tensor | None:
        """Width of the search, whose mean is reported; None where there is none."""
        ...

    def ask(self, generation: int) -> torch.Tensor:
        """Candidates (P, d), float64, of a generation counted from 0; candidate 0 is theta itself."""
        ...

    def tell(self, fitness: torch.Tensor) -> None:
        """Move by the fitness (P,) of the candidates of the last `ask`; higher is better."""
        ...

    def state(self) -> dict[str, np.ndarray]:
        """What the next generations depend on, between a `tell` and an `ask`."""
        ...

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take up what `state` gave."""
        ...


def vector(theta: Any) -> torch.Tensor:
    """A start (d,) as a float64 tensor of its own; anything else is refused."""
    start = torch.as_tensor(theta).detach().to("cpu", torch.float64, copy=True)
    if start.ndim != 1 or not len(start):
        raise NeurosimError(f"theta has shape {tuple(start.shape)}; wanted (d,), all parameters in one vector.")
    if not start.isfinite().all():
        raise NeurosimError("theta holds NaN or infinity; wanted finite numbers to start from.")
    return start


def finite(fitness: torch.Tensor, candidates: int) -> torch.Tensor:
    """Fitness (P,) in float64, with the worst finite value in the place of NaN and infinities.

    Raises
    ------
    NeurosimError
        Another number of candidates.
    DivergenceError
        No value is finite.
    """
    if tuple(fitness.shape) != (candidates,):
        raise NeurosimError(
            f"The fitness has shape {tuple(fitness.shape)}; wanted ({candidates},), one number per candidate of the last ask."
        )
    fitness = fitness.detach().to("cpu", torch.float64)
    good = fitness.isfinite()
    if not good.any():
        raise DivergenceError(
            f"None of the {candidates} fitnesses is finite. Lower sigma or the rate, or start from another theta; a fitness that takes a logarithm "
            "should use log-softmax."
        )
    return torch.where(good, fitness, fitness[good].min())


def not_asked() -> NeurosimError:
    """The error of a `tell` for which there are no candidates."""
    return NeurosimError("tell without candidates: wanted one tell after each ask.")


def matching(state: Mapping[str, np.ndarray], mine: Mapping[str, np.ndarray]) -> None:
    """Refuse a saved state of another strategy or of another number of parameters."""
    found, wanted = ({name: np.shape(values) for name, values in s.items()} for s in (state, mine))
    if found != wanted:
        name = next(n for n in {**found, **wanted} if found.get(n) != wanted.get(n))
        raise NeurosimError(
            f"The saved state has {_shape(name, found)}; wanted {_shape(name, wanted)}: it is of another strategy or another theta. Make the "
            "strategy as the evolution was started with."
        )


def _shape(name: str, shapes: Mapping[str, tuple[int, ...]]) -> str:
    return f"{name} of shape {shapes[name]}" if name in shapes else f"no {name}"
