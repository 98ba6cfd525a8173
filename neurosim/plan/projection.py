"""What the levels need to know of one projection and of its rule."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from neurosim.description import BatchRule, Connectivity, Dense, Initialiser, Like, OneToOne, PlasticityRule
from neurosim.description.connectivity import Cells, SynapseList
from neurosim.equations import Term
from neurosim.equations.units import Dimension
from neurosim.errors import UnsupportedError

DriveKey = tuple[str, bool, float, str, str]


@dataclass(frozen=True)
class RulePlan:
    """A plasticity rule on one projection's weights, numbers in base SI units.

    `terms` are its right-hand side as products of factors, None where it does not split (`why_not` says why).
    """

    name: str
    rhs: str
    parameters: dict[str, float]
    shared: tuple[str, ...]
    terms: tuple[Term, ...] | None
    why_not: str
    apply: Literal["now", "phase", "trial"]
    bounds: tuple[float | None, float | None]
    filter: float | None  # s
    symmetric: bool
    batch: BatchRule | None
    written: PlasticityRule  # as the description has it

    def added(self, change: Any) -> Any:
        """The part of a collected change (an array of any library) that is applied to the weights."""
        return 0.5 * (change + change.T) if self.symmetric else change

    def separated(self, projection: str, level: str) -> tuple[Term, ...]:
        """The terms.

        Raises
        ------
        UnsupportedError
            The rule does not split into factors.
        """
        if self.terms is None:
            raise UnsupportedError(
                f"The rule '{self.name}' of projection '{projection}' cannot run on {level}: {self.why_not} "
                "Use level brian2:equations, or rewrite the rule."
            )
        return self.terms


@dataclass(frozen=True)
class ProjectionPlan:
    """What the levels need to know of one projection."""

    name: str
    source: str
    variable: str
    target: str
    port: str
    connectivity: Connectivity
    root: str  # projection whose weights this one reads
    transpose: bool
    n_pre: int
    n_post: int
    rule: RulePlan | None
    weight_dimension: Dimension
    factor: float = 1.0  # of a tie
    weight_shape: tuple[int, ...] = ()
    cells: tuple[Cells, Cells] = (0, 0)  # of source and target, with their maps
    start: Initialiser | Like | None = None  # as in the description, numbers in base SI

    @property
    def shared_kernel(self) -> bool:
        """Whether several synapses have one weight."""
        return self.connectivity.shares_weights

    @property
    def listed(self) -> bool:
        """Whether its synapses are a list: neither dense nor one to one."""
        return not isinstance(self.connectivity, Dense | OneToOne)

    def synapses(self) -> SynapseList:
        """Source cell, target cell and weight of each synapse."""
        return self.connectivity.synapses(*self.cells)

    @cached_property
    def key(self) -> DriveKey:
        """Two projections with one key have the same drive."""
        return (self.root, self.transpose, self.factor, self.source, self.variable)
