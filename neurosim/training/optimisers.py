"""Update transforms: what the trainer does with a batch's weight changes. A rule stays local; this is not part of it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch

from neurosim.errors import NeurosimError, unknown
from neurosim.plan import Plan
from neurosim.training.config import TrainConfig

#: Where `Transform.state` keeps the number of updates so far, beside moments by projection.
UPDATES = "updates"


class Transform:
    """Adds the changes of a trial to the weights of some projections, through torch's SGD or Adam.

    A rule's change d is a direction to go, in the place of minus a gradient. An update, counted from 0, takes these steps; without
    their keys all but the last are left out::

        d <- d min(1, (update + 1)/warm_up)                     warm-up
        d <- d - (mean of d over the sources of each cell)      centralise; weights with one source left out
        d <- d min(1, clip/(|d| + 1e-6))                        |d| by clip_by: of all d, of a rule's, of each matrix
        d <- d - weight_decay w
        v <- momentum v + d                                     v = 0 before the first update
        w <- w + rate v                                         sgd; adam: Kingma & Ba 2015, maximising along d

    The rate of an epoch is that of `TrainConfig.schedule`, from `learning_rates` where the rule is named there, else `learning_rate`.

    Parameters
    ----------
    config
        The keys named above.
    weights
        Weights by projection, changed in place.
    rules
        The projections whose changes are transformed, each with the name of its rule.
    """

    def __init__(self, config: TrainConfig, weights: dict[str, torch.Tensor], rules: Mapping[str, str]):
        self.config, self.updates = config, 0
        self.parameters = {name: weights[name] for name in rules}
        rates = {name: config.learning_rates.get(rule, config.learning_rate) for name, rule in rules.items()}
        groups = [
            {"params": [self.parameters[n] for n in rules if rates[n] == rate], "lr": rate, "initial_lr": rate}
            for rate in dict.fromkeys(rates.values())
        ]
        common = {"foreach": True, "maximize": True, "weight_decay": config.weight_decay}
        self.optimiser: torch.optim.Optimizer
        if config.optimiser == "adam":
            self.optimiser = torch.optim.Adam(groups, **common)
        else:
            self.optimiser = torch.optim.SGD(groups, momentum=config.momentum, **common)
        by_rate = {group["initial_lr"]: group for group in self.optimiser.param_groups}
        self._groups = {name: by_rate[rate] for name, rate in rates.items()}
        clipped: dict[str, list[torch.Tensor]] = {}  # weights whose changes share a norm
        for name, rule in rules.items():
            clipped.setdefault({"all": "", "rule": rule, "matrix": name}[config.clip_by], []).append(
                self.parameters[name]
            )
        self._clipped = list(clipped.values())
        # A rate is all there is: changes need not be formed, let alone be transformed.
        kept = config.momentum or config.weight_decay or config.warm_up or config.centralise or config.clip is not None
        self._plain = config.optimiser == "sgd" and not kept
        self._remembers = config.optimiser != "sgd" or config.momentum or config.weight_decay

    def begin_epoch(self, number: int) -> None:
        """Set the learning rates of an epoch, counted from 1."""
        for group in self.optimiser.param_groups:
            group["lr"] = self._scheduled(group["initial_lr"], number)

    def _scheduled(self, rate: float, number: int) -> float:
        config, decay = self.config, self.config.decay
        if config.schedule == "cosine":
            share = (1.0 + math.cos(math.pi * (number - 1) / config.epochs)) / 2.0
            return config.final_rate + (rate - config.final_rate) * share if rate else 0.0  # 0: never moved
        if config.final_after is not None and config.final_decay is not None and number > config.final_after:
            decay = config.final_decay
        return rate * decay ** (number - 1)

    def rate(self, name: str) -> float | None:
        """The factor with which a projection's change may be added straight to the weights; None where the optimiser must see it."""
        if name not in self.parameters:
            return 1.0
        return self._groups[name]["lr"] if self._plain else None

    def __call__(self, changes: dict[str, torch.Tensor]) -> None:
        """One update by these changes, which are spoiled; weights without a change stay as they are."""
        warm, self.updates = self.updates < self.config.warm_up, self.updates + 1
        for change in changes.values():
            if warm:
                change *= self.updates / self.config.warm_up
            if self.config.centralise and change.ndim == 2 and len(change) > 1:
                change -= change.mean(dim=0)
        for name, parameter in self.parameters.items():
            parameter.grad = changes.get(name)
        if self.config.clip is not None:
            for parameters in self._clipped:
                torch.nn.utils.clip_grad_norm_(parameters, self.config.clip, foreach=True)
        if self._remembers:
            self.optimiser.step()
            return
        for group in self.optimiser.param_groups:  # as torch's, which would first copy the changes with the other sign
            due = [p for p in group["params"] if p.grad is not None]
            if due:
                torch._foreach_add_(due, [p.grad for p in due], alpha=group["lr"])  # pyright: ignore[reportPrivateImportUsage]

    def state(self) -> dict[str, np.ndarray]:
        """What the rest of a run depends on: moments by ``PROJECTION/MOMENT``, and the updates so far where there is a warm-up."""
        moments = {
            f"{name}/{moment}": value.cpu().numpy()
            for name, parameter in self.parameters.items()
            for moment, value in self.optimiser.state.get(parameter, {}).items()
            if value is not None
        }
        return moments | ({UPDATES: np.array(self.updates)} if self.config.warm_up else {})

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take up what `state` gave."""
        for key, value in state.items():
            if key == UPDATES:
                self.updates = int(value)
                continue
            name, _, moment = key.rpartition("/")
            device = "cpu" if moment == "step" else self.parameters[name].device  # where torch keeps them
            self.optimiser.state[self.parameters[name]][moment] = torch.tensor(value, device=device)


def transform_of(
    config: TrainConfig,
    plan: Plan,
    weights: dict[str, torch.Tensor],
) -> Transform | None:
    """The transform that a configuration asks for, if any.

    `weights` are those that the engine changes: of a reference net, all of them are optimised.
    """
    if config.optimiser == "none":
        return None
    if config.is_reference:  # it has no rules
        return Transform(config, weights, dict.fromkeys(weights, ""))
    chosen = _chosen(config, plan)
    rules = {p.name: rule.name for p, rule in plan.plastic()}
    return Transform(config, weights, {name: r for name, r in rules.items() if r in chosen})


def _chosen(config: TrainConfig, plan: Plan) -> tuple[str, ...]:
    """The names of the rules to optimise."""
    rules = {p.name: rule for p, rule in plan.plastic()}
    names = {rule.name for rule in rules.values()}
    chosen = config.optimise
    if chosen == ("feedforward",) and "feedforward" not in names:  # a model of the user's own
        chosen = tuple(rule.name for rule in rules.values() if rule.batch is None)
    for name in chosen:
        if name not in names:
            raise unknown("plasticity rule to optimise", name, sorted(names))
    for name, rule in rules.items():
        if rule.batch is not None and rule.name in chosen:
            raise NeurosimError(
                f"optimise names '{rule.name}', whose batch rule gives the weights of '{name}' and "
                "no change that an optimiser could transform; leave it out."
            )
    return chosen
