"""Convolutions between maps in NumPy, and as lists of synapses (see `neurosim.description.Conv2d` for equations and shapes).

Rates, drives and factors are rows (rows, cells). A kernel is applied as one matrix product on the source's patches.
"""

from __future__ import annotations

import numpy as np

from neurosim.description import Conv2d
from neurosim.plan import ProjectionPlan


class Convolution:
    """A `Conv2d` projection."""

    def __init__(self, q: ProjectionPlan):
        source, target = q.maps
        assert isinstance(q.connectivity, Conv2d) and source is not None and target is not None
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
        assert q.maps[1] is not None
        self.maps, self.area = q.maps[1][0], q.maps[1][1] * q.maps[1][2]

    def drive(self, rates: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, None]:
        return (rates * weights).repeat(self.area, axis=1), None

    def product(self, pre: np.ndarray, post: np.ndarray, winners: None) -> np.ndarray:
        return pre.T @ post.reshape(-1, self.maps, self.area).sum(axis=2)


def shared_kernel(q: ProjectionPlan) -> Convolution | BiasPerMap:
    """What drives and teaches a projection whose weights many positions share."""
    return Convolution(q) if isinstance(q.connectivity, Conv2d) else BiasPerMap(q)


def synapses_of(q: ProjectionPlan) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Source cell, target cell and weight (index into the flat weights) of each synapse of a projection without a pool."""
    assert q.maps[1] is not None
    maps, height, width = q.maps[1]
    target = np.arange(q.n_post)
    if not isinstance(q.connectivity, Conv2d):
        return np.zeros(q.n_post, dtype=int), target, target // (height * width)
    c, source = q.connectivity, q.maps[0]
    assert source is not None
    o, y, x, m, v, u = (axis.ravel() for axis in np.indices((maps, height, width, source[0], c.size, c.size)))
    row, column = y * c.stride + v - c.padding, x * c.stride + u - c.padding
    inside = (row >= 0) & (row < source[1] * c.upsample) & (column >= 0) & (column < source[2] * c.upsample)
    pre = (m * source[1] + row // c.upsample) * source[2] + column // c.upsample
    post = (o * height + y) * width + x
    weight = ((m * c.size + v) * c.size + u) * maps + o
    return pre[inside], post[inside], weight[inside]
