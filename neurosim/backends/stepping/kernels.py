"""Weights that are no dense matrix, and how their rules' factors are multiplied."""

from __future__ import annotations

from typing import Any

from neurosim.description import OneToOne
from neurosim.plan import Plan


class Pairs:
    """The weights of a one-to-one projection: one product per cell."""

    def product(self, pre: Any, post: Any, winners: Any = None) -> Any:
        """Sum over the samples of post * pre, per cell."""
        return (pre * post).sum(0)


def kernels_of(plan: Plan, arrays: Any) -> dict[str, Any]:
    """The kernels of plastic projections whose weights are no dense matrix, by projection."""
    projections = plan.projections.values()
    listed = {q.name: arrays.kernel(q) for q in projections if q.listed}
    pairs = [q for q in projections if isinstance(q.connectivity, OneToOne) and q.rule is not None]
    return listed | {q.name: Pairs() for q in pairs}
