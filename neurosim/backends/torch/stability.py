"""Whether the cells grow away from a fixed point: eigenvalues of their own equations there, drives and pools held.

A fixed point that `torch:steady` finds may be one that no run in time ever reaches. Where a cell's equations are
linear in its states the answer is the same for all samples; elsewhere the Jacobian is taken at each sample's point.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from neurosim.backends.torch.order import numbers_in
from neurosim.equations import compile_block, is_linear, linear_rates, names_in
from neurosim.plan import PhasePlan, PopulationPlan

#: An eigenvalue counts as positive above this share of the largest entry, by floating-point type.
ROUND_OFF = {torch.float64: 1e-9, torch.float32: 1e-4}


@dataclass
class CellStability:
    """Stability of one population's cells in one phase; `always` is set where it is the same for all samples."""

    states: list[str]
    always: bool | None
    right_hand_sides: Callable[[dict[str, Any]], None]

    @classmethod
    def of(
        cls, p: PopulationPlan, phase: PhasePlan, moving: list[str], functions: Mapping[str, Any],
        constants: Mapping[str, Any],
    ) -> CellStability:  # fmt: skip
        """Of the cells of a population whose states `moving` settle in a phase."""
        if p.spiking or not moving:
            return cls([], False, lambda values: None)
        numbers = numbers_in(p, phase)
        ode = {x: p.ode[x] for x in moving}
        if is_linear(ode, p.subexpressions, numbers, p.parameters):
            rates = linear_rates(ode, p.subexpressions, numbers | p.parameters)
            return cls(moving, bool((np.real(rates) > 0).any()), lambda values: None)
        needed = p.closure({n for rhs in ode.values() for n in names_in(rhs)})
        follow = [a for a in p.assignments if a.name in needed and not a.word]
        lines = [(a.name, a.expression) for a in follow] + [(f"ns_rhs_{x}", rhs) for x, rhs in ode.items()]
        return cls(moving, None, compile_block(lines, functions, constants))

    def unstable(self, values: Mapping[str, Any]) -> torch.Tensor:
        """Of each sample (and label) and cell, whether it grows away from the point that `values` holds."""
        with torch.enable_grad():
            point = {x: values[x].detach().clone().requires_grad_() for x in self.states}
            local = {**values, **point}
            self.right_hand_sides(local)
            rows: list[list[torch.Tensor]] = []
            for y in self.states:  # a cell's change follows from its own states, so a sum over cells keeps them apart
                slopes = [None] * len(point)
                if isinstance(local[f"ns_rhs_{y}"], torch.Tensor) and local[f"ns_rhs_{y}"].requires_grad:
                    total = local[f"ns_rhs_{y}"].sum()
                    slopes = torch.autograd.grad(total, [*point.values()], retain_graph=True, allow_unused=True)
                rows.append(
                    [torch.zeros_like(x) if g is None else g for g, x in zip(slopes, point.values(), strict=True)]
                )
        return grows(rows)


def grows(j: list[list[torch.Tensor]]) -> torch.Tensor:
    """Whether a matrix has an eigenvalue with a positive real part, entry by entry of tensors of one shape.

    Up to three rows by Routh and Hurwitz' conditions on the characteristic polynomial, written out: decompositions of
    many small matrices would take longer than the sweeps.
    """
    k = len(j)
    share = ROUND_OFF[j[0][0].dtype]
    entries = torch.broadcast_tensors(*(entry for row in j for entry in row))
    scale = torch.stack(entries).abs().amax(0)
    trace = sum(entries[:: k + 1], start=torch.zeros_like(entries[0]))
    if k == 1:
        return trace > share * scale
    if k > 3:
        matrix = torch.stack(entries, dim=-1).unflatten(-1, (k, k))
        return torch.linalg.eigvals(matrix).real.amax(-1) > share * scale
    if k == 2:
        a, b, c, d = entries
        return (trace > share * scale) | (a * d - b * c < -share * scale**2)
    a, b, c, d, e, f, g, h, i = entries
    minors = a * e - b * d + a * i - c * g + e * i - f * h
    determinant = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
    return (
        (trace > share * scale) | (determinant > share * scale**3) | (trace * minors > determinant + share * scale**3)
    )
