"""Trainings that diverge: how that is found, and what to lower."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from neurosim.errors import DivergenceError
from neurosim.training.config import TrainConfig


def cure(config: TrainConfig) -> str:
    """What to lower: factors of the changes, and numbers that are far from the usual."""
    factors: dict[str, Any] = {}
    if config.optimiser != "none":
        factors = {"learning_rate": config.learning_rate}
        factors |= {f"learning_rates.{rule}": r for rule, r in config.learning_rates.items()}
        factors |= {"weight_decay": config.weight_decay} if config.weight_decay else {}
    numbers = {k: v for k, v in config.settings.items() if isinstance(v, float) and v}
    factors |= {k: v for k, v in numbers.items() if abs(v) >= 1e9 or k.startswith("eta")}
    raised = {k: v for k, v in numbers.items() if abs(v) <= 1e-9 and k not in factors}
    lower, higher = (_listed(found) for found in (factors, raised))
    also = f", or raise {higher}" if higher else ""
    return f"Lower {lower or 'the factors of the rules'}{also}."


def _listed(values: Mapping[str, float]) -> str:
    return ", ".join(f"{k} = {v:g}" for k, v in values.items())


def check_weights(weights: Mapping[str, np.ndarray], config: TrainConfig) -> None:
    """Raise `DivergenceError` where weights are not finite."""
    for name, values in weights.items():
        if not np.isfinite(values).all():
            raise DivergenceError(f"The weights of '{name}' hold NaN or infinity. {cure(config)}")


def check_collapse(metrics: Sequence[Mapping[str, Any]], config: TrainConfig) -> None:
    """Raise `DivergenceError` where the last epoch is further below the best than `collapse`."""
    if config.collapse is None:
        return
    accuracies = [row["train_accuracy"] for row in metrics]
    best, last, epoch = max(accuracies), accuracies[-1], len(accuracies)
    if last < best - config.collapse:
        raise DivergenceError(
            f"The training accuracy fell from {best:.3f} to {last:.3f} in epoch {epoch}: the net "
            "collapsed. Let the learning rates decay faster, or lower them (a new run with --set "
            "collapse=none would go on)."
        )
