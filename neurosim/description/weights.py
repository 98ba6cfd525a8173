"""How the weights of a projection start, and ties between projections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol as Interface

import numpy as np

from neurosim.checks import Amount, Array
from neurosim.description.value import Value
from neurosim.errors import CircuitError


class Initialiser(Interface):
    """Draws initial weights; `draw` gets the random stream of its projection.

    The numbers of `Glorot`, `Gram`, `Uniform`, `Orthogonal`, `Constant` and `Given` may be texts with units such as ``"20*pA"`` or Brian2
    quantities; a weight has its port's unit over that of the sent variable. Bare numbers are in base SI units.
    """

    def draw(self, rng: np.random.Generator, n_pre: int, n_post: int) -> np.ndarray: ...


@dataclass(frozen=True)
class Glorot(Value):
    """Uniform on +-gain*sqrt(6/(n_pre + n_post)) (Glorot & Bengio 2010).

    `gain` has the weight's unit: a text such as ``"20*pA"``, a Brian2 quantity, or a bare number in base SI units.
    """

    gain: Amount = 1.0

    def draw(self, rng: np.random.Generator, n_pre: int, n_post: int) -> np.ndarray:
        limit = self.gain * np.sqrt(6.0 / (n_pre + n_post))
        return rng.uniform(-limit, limit, (n_pre, n_post))


@dataclass(frozen=True)
class Gram(Value):
    """A A^T with A drawn from `Glorot`: square, symmetric, positive (semi)definite.

    `gain` has the square root of the weight's unit: a text, a Brian2 quantity, or a bare number in base SI units.
    """

    gain: Amount = 1.0

    def draw(self, rng: np.random.Generator, n_pre: int, n_post: int) -> np.ndarray:
        if n_pre != n_post:
            raise CircuitError(f"Gram weights between {n_pre} and {n_post} cells; wanted equal numbers.")
        a = Glorot(self.gain).draw(rng, n_pre, n_post)
        return a @ a.T


@dataclass(frozen=True)
class Uniform(Value):
    """Uniform on [low, high], in the weight's unit: texts such as ``"20*pA"``, Brian2 quantities, or bare numbers in base SI units."""

    low: Amount
    high: Amount

    def draw(self, rng: np.random.Generator, n_pre: int, n_post: int) -> np.ndarray:
        return rng.uniform(self.low, self.high, (n_pre, n_post))


@dataclass(frozen=True)
class Orthogonal(Value):
    """`gain` times an orthogonal matrix (columns orthonormal, or rows where there are fewer), drawn uniformly (Saxe et al. 2014).

    `gain` has the weight's unit: a text such as ``"20*pA"``, a Brian2 quantity, or a bare number in base SI units.
    """

    gain: Amount = 1.0

    def draw(self, rng: np.random.Generator, n_pre: int, n_post: int) -> np.ndarray:
        q, r = np.linalg.qr(rng.standard_normal((max(n_pre, n_post), min(n_pre, n_post))))
        q *= np.sign(np.diag(r))
        return self.gain * (q if n_pre >= n_post else q.T)


@dataclass(frozen=True)
class Constant(Value):
    """The same weight everywhere: a text such as ``"20*pA"``, a Brian2 quantity, or a bare number in base SI units."""

    value: Amount = 0.0

    def draw(self, rng: np.random.Generator, n_pre: int, n_post: int) -> np.ndarray:
        return np.full((n_pre, n_post), float(self.value))


@dataclass(frozen=True, eq=False)
class Given(Value):
    """Weights given as an array (n_pre, n_post), of a `OneToOne` projection (n,): a Brian2 quantity, or bare numbers in base SI units."""

    values: Array

    def draw(self, rng: np.random.Generator, n_pre: int, n_post: int) -> np.ndarray:
        values = np.array(self.values, dtype=float)
        if values.shape != (n_pre, n_post):
            raise CircuitError(
                f"Given weights have shape {values.shape}; wanted {(n_pre, n_post)}, source cells x target cells. "
                "A (target x source) matrix must be transposed."
            )
        return values


@dataclass(frozen=True)
class Like(Value):
    """Start as `factor` times the start of another projection's weights, straight or transposed; then go on alone."""

    projection: str
    factor: float = 1.0
    transpose: bool = False


@dataclass(frozen=True)
class Tied(Value):
    """`factor` times the weights of another projection, straight or transposed, at every step.

    Of one connectivity with it: `Dense` to `Dense`, `OneToOne` to `OneToOne`. Tied weights have no rule of their own.
    Weights may be tied to tied ones.
    """

    projection: str
    factor: float = 1.0
    transpose: bool = False


#: How the weights of a projection start, or whose they are.
Weights = Initialiser | Like | Tied
