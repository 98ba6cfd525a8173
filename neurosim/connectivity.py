"""How one population drives another: connectivity, initial weights, ties, projections.

Part of the description: plain data, no engine (NumPy draws the initial weights).
A weight matrix is ``(n_pre, n_post)``, a drive is ``I = r W`` with ``r`` of shape ``(samples, n_pre)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated
from typing import Protocol as Interface

import numpy as np
from annotated_types import Ge

from neurosim.checks import Amount, Array, Count
from neurosim.errors import CircuitError
from neurosim.immutable import Value
from neurosim.plasticity import PlasticityRule


@dataclass(frozen=True)
class Dense(Value):
    """Every source cell reaches every target cell: ``I = r W``, W of shape (n_pre, n_post)."""


@dataclass(frozen=True)
class OneToOne(Value):
    """Cell k reaches cell k: ``I_k = w_k r_k``, w of shape (n,), 1 unless given.

    A rule changes w_k by the mean over the samples of its terms in cell k of either population.
    """


@dataclass(frozen=True, eq=False)
class Kernel(Value):
    """A fixed matrix (n_pre, n_post), such as a diffusion kernel; never plastic: ``I = r K``."""

    matrix: Array


@dataclass(frozen=True)
class Conv2d(Value):
    """A convolution between maps of cells, the same kernel at every position: populations with n = (maps, height, width).

    With the map r of the source, ``a[o, p] = sum_{c,u} w[(c, u), o] up(r)[c, stride*p + u - padding]`` for the positions p, and the drive is
    I = a, or its maximum over windows of `pool` x `pool` positions. Weights have the shape (source maps * size**2, target maps). A rule's
    post factor at a pooled position belongs to the position that won it (winner takes all); its pre factor is the source's. Vectors need no
    reshaping: a map is stored flat, so `Dense` reads and drives it as it stands.

    Parameters
    ----------
    size
        Height and width of the kernel.
    stride, padding
        Step of the kernel over the source, and rows of silent cells around it.
    upsample
        Repeat each cell of the source `upsample` x `upsample` times first (nearest neighbour).
    pool
        Take the maximum over windows of this size, which do not overlap. For a rate that grows with the drive, pooling drives is pooling rates.
    """

    size: Count
    stride: Count = 1
    padding: Annotated[int, Ge(0)] = 0
    upsample: Count = 1
    pool: Count = 1

    def maps(self, source: tuple[int, int, int]) -> tuple[int, int]:
        """Height and width of the maps that it drives.

        Raises
        ------
        CircuitError
            Positions that do not fit the kernel's stride or the pool's windows.
        """
        found = []
        for cells in source[1:]:
            room = cells * self.upsample + 2 * self.padding - self.size
            positions = room // self.stride + 1
            if room < 0 or positions % self.pool:
                raise CircuitError(
                    f"{self} over maps of {source[1]} x {source[2]} cells: got {max(0, positions)} positions in a row; wanted at least "
                    f"one, and a multiple of pool = {self.pool}."
                )
            found.append(positions // self.pool)
        return found[0], found[1]


@dataclass(frozen=True)
class PerMap(Value):
    """One weight per map, from a population of one cell such as `one`: the bias of a convolution, ``I[o, p] = w[o] r``. Weights (1, maps)."""


Connectivity = Dense | OneToOne | Kernel | Conv2d | PerMap


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
    """Starts as `factor` times the start of another projection's weights, straight or transposed; then on its own."""

    projection: str
    factor: float = 1.0
    transpose: bool = False


@dataclass(frozen=True)
class Tied(Value):
    """`factor` times the weights of another projection, straight or transposed; kept so at every step.

    Of one connectivity with it: `Dense` to `Dense`, `OneToOne` to `OneToOne`.
    """

    to: str
    transpose: bool = False
    factor: float = 1.0


@dataclass(frozen=True)
class Projection(Value):
    """A projection from a population to a port.

    Parameters
    ----------
    name
        Name of the projection and of its weights.
    source
        ``"population"`` (its rate) or ``"population.variable"`` (a state or an early variable).
    target
        ``"population.port"``.
    connectivity
        `Dense`, `OneToOne`, `Kernel`, `Conv2d` or `PerMap`.
    weights
        How the initial weights are drawn (`Glorot`, `Gram`, `Uniform`, `Orthogonal`, `Constant`, `Given`), or `Like` those of another.
    rule
        The plasticity rule of the weights, or None.
    tied
        Read the weights of another projection instead of having weights of one's own.
    """

    name: str
    source: str
    target: str
    connectivity: Connectivity = Dense()
    weights: Initialiser | Like | None = None
    rule: PlasticityRule | None = None
    tied: Tied | None = None

    @property
    def source_population(self) -> str:
        return self.source.partition(".")[0]

    @property
    def target_population(self) -> str:
        return self.target.partition(".")[0]

    @property
    def port(self) -> str:
        return self.target.partition(".")[2]
