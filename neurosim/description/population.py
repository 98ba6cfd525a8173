"""Populations of cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from neurosim.checks import Constant, Count
from neurosim.description.cell import Cell
from neurosim.description.value import Value


@dataclass(frozen=True)
class Population(Value):
    """`n` cells of one type, or maps of cells: `n` = (maps, height, width), stored flat in this order.

    `parameters` overrides the cell's defaults, in the same units; a value may hold one number per cell
    (an array, a Brian2 quantity such as ``np.linspace(0, 500, n)*pA``, or a list such as ``["-70*mV", "-60*mV"]``)."""

    name: str
    n: Count | tuple[Count, Count, Count]
    cell: Cell
    parameters: Mapping[str, Constant] = field(default_factory=dict)
