"""What training reports of a circuit beside its accuracy."""

from __future__ import annotations

from dataclasses import dataclass

from neurosim.checks import Positive
from neurosim.description.value import Value


@dataclass(frozen=True)
class Ratio(Value):
    """A measure of a circuit: rms of the variables `of` over rms of the variables `to`, at the end of `phase`.

    Training stops where it passes `limit` (None: no limit), and says `cure`.
    """

    of: tuple[str, ...]
    to: tuple[str, ...]
    phase: str
    limit: Positive | None = None
    cure: str = ""


@dataclass(frozen=True)
class Silent(Value):
    """A measure of a circuit: the number of cells of `population.variable` that are 0 for every sample, at the end of `phase`.

    Where there are any at the end of a training, a warning says `cure`.
    """

    variable: str
    phase: str
    cure: str


@dataclass(frozen=True)
class Angle(Value):
    """A measure of weights: the angle (degrees) between the weights of one projection and those of `to`, transposed.

    ``arccos(<A, B^T>/(|A| |B|))`` with the Frobenius norm, A (n_pre, n_post) and B (n_post, n_pre).
    """

    of: str
    to: str


@dataclass(frozen=True)
class SmallestEigenvalue(Value):
    """A measure of weights: the smallest eigenvalue of the symmetric part of a projection's square weights (n, n).

    Where it falls below -1e-4 times the largest, they are no longer positive definite: training stops, and says `cure`.
    """

    of: str
    cure: str


Measure = Ratio | Silent | Angle | SmallestEigenvalue
