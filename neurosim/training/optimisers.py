"""Update transforms: what the trainer does with a batch's weight changes. A rule stays local; this is not part of it."""

from __future__ import annotations

import torch

from neurosim.training.config import TrainConfig


class Transform:
    """Adds the changes of a trial to the weights, those of `names` through torch's SGD or Adam.

    A rule's change is a direction to go: ``w += rate * change`` (sgd), or Adam (Kingma & Ba 2015) maximising along it.
    """

    def __init__(self, config: TrainConfig, weights: dict[str, torch.Tensor], names: list[str]):
        self.parameters = {name: weights[name] for name in names}
        values = list(self.parameters.values())
        self.optimiser: torch.optim.Optimizer
        if config.optimiser == "adam":
            self.optimiser = torch.optim.Adam(values, lr=config.learning_rate, foreach=True, maximize=True)
        else:
            self.optimiser = torch.optim.SGD(values, lr=config.learning_rate, foreach=True, maximize=True)
        self.schedule = torch.optim.lr_scheduler.ExponentialLR(self.optimiser, config.decay)

    def __call__(self, weights: dict[str, torch.Tensor], changes: dict[str, torch.Tensor]) -> None:
        for name, change in changes.items():
            if name in self.parameters:
                self.parameters[name].grad = change
            else:
                weights[name] += change
        self.optimiser.step()
