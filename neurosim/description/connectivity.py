"""How the cells of one population reach those of another.

A weight matrix is ``(n_pre, n_post)``, a drive is ``I = r W`` with ``r`` of shape ``(samples, n_pre)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from neurosim.checks import Count
from neurosim.description.value import Value
from neurosim.errors import CircuitError


@dataclass(frozen=True)
class Dense(Value):
    """Every source cell reaches every target cell: ``I = r W``, W of shape (n_pre, n_post)."""


@dataclass(frozen=True)
class OneToOne(Value):
    """Cell k reaches cell k: ``I_k = w_k r_k``, w of shape (n,), 1 unless given.

    A rule changes w_k by the mean over the samples of its terms in cell k of either population.
    """


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


Connectivity = Dense | OneToOne | Conv2d | PerMap
