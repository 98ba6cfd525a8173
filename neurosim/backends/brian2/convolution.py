"""Projections that are neither dense nor one to one, in NumPy: convolutions between maps, lists of synapses (see `neurosim.description.Conv2d` for equations and shapes).

Rates, drives and factors are rows (rows, cells). A kernel is applied as one matrix product on the source's patches.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import sparse

from neurosim.description import Connectivity, Conv2d, PerMap
from neurosim.plan import ProjectionPlan


class Convolution:
    """A `Conv2d` projection."""

    def __init__(self, q: ProjectionPlan):
        source, target = q.cells
        assert isinstance(q.connectivity, Conv2d) and isinstance(source, tuple) and isinstance(target, tuple)
        self.conv, self.source, self.target = q.connectivity, source, target

    def _patches(self, rows: np.ndarray) -> np.ndarray:
        """(rows, height, width, source maps * size**2): what each position of the kernel reads, before the pool."""
        c = self.conv
        maps = rows.reshape(-1, *self.source).repeat(c.upsample, axis=2).repeat(c.upsample, axis=3)
        maps = np.pad(maps, ((0, 0), (0, 0), (c.padding, c.padding), (c.padding, c.padding)))
        windows = np.lib.stride_tricks.sliding_window_view(maps, (c.size, c.size), axis=(2, 3))  # type: ignore[call-overload]
        windows = windows[:, :, :: c.stride, :: c.stride].transpose(0, 2, 3, 1, 4, 5)
        return windows.reshape(*windows.shape[:3], -1)

    def drive(self, rates: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """The drive (rows, cells of the target), and which position of each window won where there is a pool."""
        a = (self._patches(rates) @ weights).transpose(0, 3, 1, 2)
        if self.conv.pool == 1:
            return a.reshape(len(rates), -1), None
        windows = self._windows(a)
        winners = windows.argmax(axis=-1)[..., None]
        return np.take_along_axis(windows, winners, axis=-1).reshape(len(rates), -1), winners

    def _windows(self, a: np.ndarray) -> np.ndarray:
        """(rows, maps, height, width, pool**2) of the positions before the pool."""
        p, (maps, height, width) = self.conv.pool, self.target
        return (
            a.reshape(-1, maps, height, p, width, p).transpose(0, 1, 2, 4, 3, 5).reshape(-1, maps, height, width, p * p)
        )

    def product(self, pre: np.ndarray, post: np.ndarray, winners: np.ndarray | None) -> np.ndarray:
        """``sum over rows and positions p of pre[c, stride*p + u - padding] post[o, p]``, of the shape of the weights."""
        d = post.reshape(-1, *self.target)
        if winners is not None:
            p, (maps, height, width) = self.conv.pool, self.target
            windows = np.zeros((len(d), maps, height, width, p * p))
            np.put_along_axis(windows, winners, d[..., None], axis=-1)
            d = windows.reshape(-1, maps, height, width, p, p).transpose(0, 1, 2, 4, 3, 5)
            d = d.reshape(-1, maps, height * p, width * p)
        patches = self._patches(pre)
        return patches.reshape(-1, patches.shape[-1]).T @ d.transpose(0, 2, 3, 1).reshape(-1, self.target[0])


class BiasPerMap:
    """A `PerMap` projection."""

    def __init__(self, q: ProjectionPlan):
        _, target = q.cells
        assert isinstance(target, tuple)
        self.maps, self.area = target[0], target[1] * target[2]

    def drive(self, rates: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, None]:
        return (rates * weights).repeat(self.area, axis=1), None

    def product(self, pre: np.ndarray, post: np.ndarray, winners: None) -> np.ndarray:
        return pre.T @ post.reshape(-1, self.maps, self.area).sum(axis=2)


class SynapseList:
    """A projection of any other kind, as a list of synapses: a sparse matrix (n_pre, n_post) for the drive."""

    def __init__(self, q: ProjectionPlan):
        self.pre, self.post, self.entry = q.synapses()
        self.shape, self.weight_shape = (q.n_pre, q.n_post), q.weight_shape

    def drive(self, rates: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, None]:
        w = sparse.csr_array((weights.ravel()[self.entry], (self.pre, self.post)), shape=self.shape)
        return np.asarray((w.T @ rates.T).T), None

    def product(self, pre: np.ndarray, post: np.ndarray, winners: None) -> np.ndarray:
        found = np.zeros(math.prod(self.weight_shape))
        for r, d in zip(pre, post, strict=True):  # a sample at a time: samples x synapses may be large
            found += np.bincount(self.entry, r[self.pre] * d[self.post], minlength=len(found))
        return found.reshape(self.weight_shape)


#: The products of each kind of connectivity that has faster ones than a list of synapses.
KERNELS: dict[type[Connectivity], Callable[[ProjectionPlan], Any]] = {Conv2d: Convolution, PerMap: BiasPerMap}


def kernel(q: ProjectionPlan) -> Any:
    """What drives and teaches a projection that is neither dense nor one to one."""
    return KERNELS.get(type(q.connectivity), SynapseList)(q)
