"""Convolutions between maps on tensors: the drive, and the adjoint that makes a weight-shaped product of pre and post factors.

See `neurosim.description.Conv2d` for the equations and shapes. Rates, drives and factors are rows (rows, cells).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from neurosim.description import Connectivity, Conv2d, PerMap
from neurosim.plan import ProjectionPlan


class Convolution:
    """A `Conv2d` projection."""

    def __init__(self, q: ProjectionPlan):
        source, target = q.cells
        assert isinstance(q.connectivity, Conv2d) and isinstance(source, tuple) and isinstance(target, tuple)
        self.conv, self.source, self.target = q.connectivity, source, target
        c, size, pool = self.conv, self.conv.size, self.conv.pool
        self.kernel = (self.target[0], self.source[0], size, size)
        self.positions = [self.target[1] * pool, self.target[2] * pool]
        self.options = ([c.stride] * 2, [c.padding] * 2, [1, 1], False, [0, 0], 1)

    def _source(self, rows: torch.Tensor) -> torch.Tensor:
        maps = rows.reshape(-1, *self.source)
        if self.conv.upsample == 1:
            return maps
        return functional.interpolate(maps, scale_factor=self.conv.upsample, mode="nearest")

    def drive(self, rates: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The drive (rows, cells of the target), and which positions won where there is a pool."""
        kernel = weights.T.reshape(self.kernel)
        a = functional.conv2d(self._source(rates), kernel, stride=self.conv.stride, padding=self.conv.padding)
        if self.conv.pool == 1:
            return a.reshape(len(rates), -1), None
        a, winners = functional.max_pool2d(a, self.conv.pool, return_indices=True)
        return a.reshape(len(rates), -1), winners

    def product(self, pre: torch.Tensor, post: torch.Tensor, winners: torch.Tensor | None) -> torch.Tensor:
        """``sum over rows and positions p of pre[c, stride*p + u - padding] post[o, p]``, of the shape of the weights."""
        post = post.reshape(-1, *self.target)
        if winners is not None:
            # max_unpool2d, which vmap does not know
            rows, cells = post.shape[:2], self.positions[0] * self.positions[1]
            post = post.new_zeros(*rows, cells).scatter(2, winners.flatten(2), post.flatten(2))
            post = post.unflatten(2, self.positions)
        shape_only = post.new_empty(self.kernel)
        _, found, _ = torch.ops.aten.convolution_backward(
            post, self._source(pre), shape_only, None, *self.options, [False, True, False]
        )
        return found.reshape(self.kernel[0], -1).T


class BiasPerMap:
    """A `PerMap` projection."""

    def __init__(self, q: ProjectionPlan):
        _, target = q.cells
        assert isinstance(target, tuple)
        self.maps, self.area = target[0], target[1] * target[2]

    def drive(self, rates: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, None]:
        return (rates * weights).repeat_interleave(self.area, dim=1), None

    def product(self, pre: torch.Tensor, post: torch.Tensor, winners: None) -> torch.Tensor:
        return pre.T @ post.reshape(-1, self.maps, self.area).sum(dim=2)


class SynapseList:
    """A projection of any other kind, as a list of synapses: gathered from the sources, added up at the targets."""

    def __init__(self, q: ProjectionPlan):
        self.lists = tuple(torch.as_tensor(index) for index in q.synapses())
        self.n_post, self.weight_shape = q.n_post, q.weight_shape

    def _on(self, device: torch.device) -> tuple[torch.Tensor, ...]:
        if self.lists[0].device != device:
            self.lists = tuple(index.to(device) for index in self.lists)
        return self.lists

    def drive(self, rates: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, None]:
        pre, post, entry = self._on(rates.device)
        sent = rates[:, pre] * weights.reshape(-1)[entry]
        return rates.new_zeros(len(rates), self.n_post).index_add(1, post, sent), None

    def product(self, pre: torch.Tensor, post: torch.Tensor, winners: None) -> torch.Tensor:
        source, target, entry = self._on(pre.device)
        found = (pre[:, source] * post[:, target]).sum(0)
        return found.new_zeros(math.prod(self.weight_shape)).index_add(0, entry, found).reshape(self.weight_shape)


#: The products of each kind of connectivity that has faster ones than a list of synapses.
KERNELS: dict[type[Connectivity], Callable[[ProjectionPlan], Any]] = {Conv2d: Convolution, PerMap: BiasPerMap}


def kernel(q: ProjectionPlan) -> Any:
    """What drives and teaches a projection that is neither dense nor one to one."""
    return KERNELS.get(type(q.connectivity), SynapseList)(q)
