"""The second way to theta: the gradient of a whole lifetime, back-propagated through its steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch

from neurosim.checks import Positive, checked
from neurosim.errors import DivergenceError, NeurosimError
from neurosim.training.evolution.strategy import finite, matching, not_asked, vector


class MetaGradient:
    """Ascent of a differentiable fitness by Adam (Kingma & Ba 2015: 0.9, 0.999, 1e-8).

    Neither biologically plausible nor the paper's: ours, for well-trained top-down nets at little cost and as a control of the evolved ones. ::

        g = d mean(fitness) / d theta
        g <- g min(1, clip/(|g| + 1e-6))
        theta <- theta + rate Adam(g)

    Runs in one process: an objective may average as many learners as it likes.

    Parameters
    ----------
    theta
        Start (d,).
    rate
        Of Adam.
    clip
        Largest norm of the gradient.

    Raises
    ------
    NeurosimError
        A setting out of its range.
    """

    differentiates: ClassVar[bool] = True

    @checked
    def __init__(self, theta: Any, rate: Positive = 3e-3, clip: Positive = 1.0):
        self.rate, self.clip = rate, clip
        self._theta = vector(theta).requires_grad_()
        self._optimiser = torch.optim.Adam([self._theta], lr=rate)
        self._asked = False

    @property
    def settings(self) -> dict[str, Any]:
        """See `Strategy.settings`."""
        return {"name": "MetaGradient", "rate": self.rate, "clip": self.clip}

    @property
    def theta(self) -> torch.Tensor:
        """The present parameters (d,)."""
        return self._theta.detach().clone()

    @property
    def sigma(self) -> None:
        """None: nothing is drawn."""
        return None

    def ask(self, generation: int) -> torch.Tensor:
        """The one candidate (1, d), of which `tell` takes the gradient."""
        self._asked = True
        with torch.enable_grad():
            return self._theta[None]

    def tell(self, fitness: torch.Tensor) -> None:
        """One step of Adam along the gradient of the fitness (1,).

        Raises
        ------
        NeurosimError
            A fitness without a gradient.
        DivergenceError
            A fitness or a gradient that is not finite; theta stays as it was.
        """
        if not self._asked:
            raise not_asked()
        finite(fitness, 1)
        if not fitness.requires_grad:
            raise NeurosimError(
                "The fitness has no gradient; wanted one that torch computes from the candidates. Leave no_grad(), detach() and item() out of the "
                "objective, or take PEPG."
            )
        self._asked = False
        # Not backward(), which would also leave gradients in whatever else the objective is made of.
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(-fitness.mean(), self._theta, allow_unused=True)
        if gradient is None:
            raise NeurosimError("The fitness does not depend on the candidates of the last ask; wanted one that does.")
        self._theta.grad = gradient
        if not torch.nn.utils.clip_grad_norm_([self._theta], self.clip).isfinite():
            raise DivergenceError(
                "The gradient of the fitness is not finite. Shorten the lifetime, or lower its rates: gradients grow with each step."
            )
        self._optimiser.step()
        self._theta.grad = None

    def state(self) -> dict[str, np.ndarray]:
        """theta and the moments of Adam."""
        moments = self._optimiser.state.get(self._theta) or {
            "step": torch.tensor(0.0), "exp_avg": torch.zeros_like(self._theta), "exp_avg_sq": torch.zeros_like(self._theta)
        }  # fmt: skip
        names = ("step", "exp_avg", "exp_avg_sq")
        return {"theta": self.theta.numpy(), **{name: moments[name].detach().numpy().copy() for name in names}}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take up what `state` gave."""
        matching(state, self.state())
        with torch.no_grad():
            self._theta.copy_(torch.tensor(state["theta"]))
        self._optimiser.state[self._theta] = {n: torch.tensor(v) for n, v in state.items() if n != "theta"}
        self._asked = False
