"""How the cells of one population reach those of another.

A weight matrix is ``(n_pre, n_post)``, a drive is ``I = r W`` with ``r`` of shape ``(samples, n_pre)``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Ge

from neurosim.checks import Count
from neurosim.description.value import Value
from neurosim.errors import CircuitError

#: The cells of a population as it is described: their number, or (maps, height, width).
Cells = int | tuple[int, int, int]
#: Source cell, target cell and weight (index into the flat weights) of each synapse.
SynapseList = tuple[np.ndarray, np.ndarray, np.ndarray]


class Connectivity(Value, ABC):
    """How the cells of one population reach those of another.

    A kind of one's own is a frozen dataclass that says the shape of its weights, its `synapses` and its `text`; it then
    runs on every level, cell after cell of a list. A faster product can be registered beside `Conv2d` in
    `neurosim.backends.brian2.convolution` and `neurosim.backends.torch.convolution`.
    """

    #: Whether the weights are 1 where none are given.
    unweighted: ClassVar[bool] = False
    #: Whether several synapses have one weight.
    shares_weights: ClassVar[bool] = False
    #: Whether weights may be tied to those of another projection of this kind.
    can_be_tied: ClassVar[bool] = False

    @abstractmethod
    def weight_shape(self, source: Cells, target: Cells) -> tuple[int, ...]:
        """The shape of the weights, one or two numbers.

        Raises
        ------
        CircuitError
            Populations that do not fit.
        """

    @abstractmethod
    def synapses(self, source: Cells, target: Cells) -> SynapseList:
        """Source cell, target cell and weight of each synapse; cells of maps are counted flat."""

    @abstractmethod
    def text(self, source: Cells, target: Cells) -> str:
        """The kind in words, for `neurosim describe`: ``one-to-one, 10``."""


def count(cells: Cells) -> int:
    """The number of cells."""
    return int(np.prod(cells))


def _with_maps(cells: Cells, whose: str) -> tuple[int, int, int]:
    if isinstance(cells, tuple):
        return cells
    raise CircuitError(f"the {whose} has {cells} cells and no maps; give it n = (maps, height, width).")


@dataclass(frozen=True)
class Dense(Connectivity):
    """Every source cell reaches every target cell: ``I = r W``, W of shape (n_pre, n_post)."""

    can_be_tied: ClassVar[bool] = True

    def weight_shape(self, source: Cells, target: Cells) -> tuple[int, ...]:
        return (count(source), count(target))

    def synapses(self, source: Cells, target: Cells) -> SynapseList:
        pre, post = (axis.ravel() for axis in np.indices((count(source), count(target))))
        return pre, post, np.arange(len(pre))

    def text(self, source: Cells, target: Cells) -> str:
        return f"all-to-all, {count(source)} x {count(target)}"


@dataclass(frozen=True)
class OneToOne(Connectivity):
    """Cell k reaches cell k: ``I_k = w_k r_k``, w of shape (n,), 1 unless given.

    A rule changes w_k by the mean over the samples of its terms in cell k of either population.
    """

    unweighted: ClassVar[bool] = True
    can_be_tied: ClassVar[bool] = True

    def weight_shape(self, source: Cells, target: Cells) -> tuple[int, ...]:
        if count(source) != count(target):
            raise CircuitError(f"one-to-one between {count(source)} and {count(target)} cells; expected equal numbers.")
        return (count(target),)

    def synapses(self, source: Cells, target: Cells) -> SynapseList:
        cells = np.arange(count(target))
        return cells, cells, cells

    def text(self, source: Cells, target: Cells) -> str:
        return f"one-to-one, {count(target):,}"


@dataclass(frozen=True)
class Conv2d(Connectivity):
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

    shares_weights: ClassVar[bool] = True

    def weight_shape(self, source: Cells, target: Cells) -> tuple[int, ...]:
        onto, of = _with_maps(target, "target"), _with_maps(source, "source")
        if (maps := self.maps(of)) != onto[1:]:
            raise CircuitError(
                f"it drives maps of {maps[0]} x {maps[1]} cells, but those of the target have {onto[1]} x {onto[2]}; change "
                "the population's n, or stride, padding, upsample or pool."
            )
        return (of[0] * self.size**2, onto[0])

    def synapses(self, source: Cells, target: Cells) -> SynapseList:
        """Those of a convolution without a pool."""
        (maps, height, width), of = _with_maps(target, "target"), _with_maps(source, "source")
        o, y, x, m, v, u = (axis.ravel() for axis in np.indices((maps, height, width, of[0], self.size, self.size)))
        row, column = y * self.stride + v - self.padding, x * self.stride + u - self.padding
        inside = (row >= 0) & (row < of[1] * self.upsample) & (column >= 0) & (column < of[2] * self.upsample)
        pre = (m * of[1] + row // self.upsample) * of[2] + column // self.upsample
        post = (o * height + y) * width + x
        weight = ((m * self.size + v) * self.size + u) * maps + o
        return pre[inside], post[inside], weight[inside]

    def text(self, source: Cells, target: Cells) -> str:
        up = f"each cell of the source {self.upsample} times in both directions; " if self.upsample > 1 else ""
        pool = f"max-pooling {self.pool} x {self.pool}; " if self.pool > 1 else ""
        rows, columns = self.weight_shape(source, target)
        return (
            f"convolution, kernel {self.size} x {self.size}, stride {self.stride}, padding {self.padding}; "
            f"{up}{pool}weights {rows} x {columns}"
        )

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
class PerMap(Connectivity):
    """One weight per map, from a population of one cell such as `one`: the bias of a convolution, ``I[o, p] = w[o] r``. Weights (1, maps)."""

    shares_weights: ClassVar[bool] = True

    def weight_shape(self, source: Cells, target: Cells) -> tuple[int, ...]:
        if count(source) != 1:
            raise CircuitError(f"the source has {count(source)} cells; expected one cell, such as that of 'one'.")
        return (1, _with_maps(target, "target")[0])

    def synapses(self, source: Cells, target: Cells) -> SynapseList:
        _, height, width = _with_maps(target, "target")
        cells = np.arange(count(target))
        return np.zeros_like(cells), cells, cells // (height * width)

    def text(self, source: Cells, target: Cells) -> str:
        return f"one weight per map, 1 x {_with_maps(target, 'target')[0]}"
