"""Update transforms: what the trainer does with a batch's weight changes. A rule stays local; this is not part of it."""

from __future__ import annotations

import numpy as np
import torch

from neurosim.training.config import TrainConfig


class Transform:
    """Adds the changes of a trial to the weights of `names`, through torch's SGD or Adam.

    A rule's change is a direction to go: ``w += rate * change`` (sgd), or Adam (Kingma & Ba 2015) maximising along it, with the rate
    ``learning_rate * decay**(epoch - 1)`` (`final_decay` in place of `decay` after `final_after` epochs). With `clip`, changes whose common norm is larger are scaled down to it before.
    """

    def __init__(self, config: TrainConfig, weights: dict[str, torch.Tensor], names: list[str]):
        self.config = config
        self.parameters = {name: weights[name] for name in names}
        values = list(self.parameters.values())
        self.optimiser: torch.optim.Optimizer
        if config.optimiser == "adam":
            self.optimiser = torch.optim.Adam(values, lr=config.learning_rate, foreach=True, maximize=True)
        else:
            self.optimiser = torch.optim.SGD(values, lr=config.learning_rate, foreach=True, maximize=True)

    def begin_epoch(self, number: int) -> None:
        """Set the learning rate of an epoch, counted from 1."""
        config, decay = self.config, self.config.decay
        if config.final_after is not None and config.final_decay is not None and number > config.final_after:
            decay = config.final_decay
        self.optimiser.param_groups[0]["lr"] = config.learning_rate * decay ** (number - 1)

    def rate(self, name: str) -> float | None:
        """The factor with which a projection's change may be added straight to the weights; None where the optimiser must see it."""
        if name not in self.parameters:
            return 1.0
        plain = self.config.optimiser == "sgd" and self.config.clip is None
        return self.optimiser.param_groups[0]["lr"] if plain else None

    def __call__(self, changes: dict[str, torch.Tensor]) -> None:
        for name, change in changes.items():
            self.parameters[name].grad = change
        if self.config.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.config.clip, foreach=True)
        self.optimiser.step()

    def state(self) -> dict[str, np.ndarray]:
        """What the optimiser remembers, by ``PROJECTION/MOMENT``; empty before the first step."""
        return {
            f"{name}/{moment}": value.cpu().numpy()
            for name, parameter in self.parameters.items()
            for moment, value in self.optimiser.state.get(parameter, {}).items()
            if value is not None
        }

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Take up what `state` gave."""
        for key, value in state.items():
            name, _, moment = key.rpartition("/")
            device = "cpu" if moment == "step" else self.parameters[name].device  # where torch keeps them
            self.optimiser.state[self.parameters[name]][moment] = torch.tensor(value, device=device)
