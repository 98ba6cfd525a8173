"""Projections from a population to a port."""

from __future__ import annotations

from dataclasses import dataclass

from neurosim.description.connectivity import Connectivity, Dense
from neurosim.description.rule import PlasticityRule
from neurosim.description.value import Value
from neurosim.description.weights import Initialiser, Like, Tied


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
