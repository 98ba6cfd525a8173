"""Where a circuit's answer is read, and the feed-forward net that its updates are compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from neurosim.description.value import Value


@dataclass(frozen=True)
class Readout(Value):
    """Where the answer is read: ``population.variable`` at the end of `phase`.

    The answer to ``target`` is a class, the largest of the variable's values; that to ``image`` is a picture, read as it is. The loss
    that training reports is, per sample, ``"squared"`` 1/2 |answer - wanted|^2, ``"cross_entropy"`` -sum wanted ln(answer), for answers that
    are probabilities, or ``"mean_squared"``, the mean over cells of (answer - wanted)^2.
    """

    variable: str
    phase: str
    wanted: Literal["target", "image"] = "target"
    loss: Literal["squared", "cross_entropy", "mean_squared"] = "squared"


@dataclass(frozen=True)
class FeedForward(Value):
    """The feed-forward net that a circuit's update is compared with.

    ``a_l = r_{l-1} W_l + b_l``, ``r_l = transfer_l(a_l)``. The loss C, averaged over samples, is given by its gradient at the
    output, ``dC/dr_L = -error``; by default ``C = 1/2 |target - r_L|^2``.

    Parameters
    ----------
    weights, biases
        Names of projections from the input up; no biases: (), none of one layer: "" in its place (or the list ends early). Weights of a
        `Conv2d` take a `PerMap` bias and make ``pool(conv(upsample(r)) + b)``; the transfer is applied after the pool.
    transfer
        Brian2 text in ``u`` (which stands for a), one for all layers or one per layer.
    error
        Brian2 text in ``target``, ``r`` and ``u`` of the output layer.
    loss
        ``"cross_entropy"``: ``r_L = softmax(u)``, ``C = -sum target ln(r_L)``, ``dC/du = r_L - target``; the last transfer and `error`
        are then not read.
    """

    weights: tuple[str, ...]
    biases: tuple[str, ...]
    transfer: str | tuple[str, ...]
    error: str = "target - r"
    loss: Literal["given_by_error", "cross_entropy"] = "given_by_error"

    @property
    def transfers(self) -> tuple[str, ...]:
        """The transfer function of each layer."""
        return (self.transfer,) * len(self.weights) if isinstance(self.transfer, str) else self.transfer
