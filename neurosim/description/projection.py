"""Projections from a population to a port."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from neurosim.description.connectivity import Connectivity, Dense
from neurosim.description.rule import PlasticityRule
from neurosim.description.value import Value
from neurosim.description.weights import Initialiser, Like, Tied
from neurosim.errors import CircuitError


@dataclass(frozen=True)
class Projection(Value):
    """A projection from a population to a port.

    ::

        Projection("W2", "pyr1", "pyr2.I_ff", Glorot(gain=4), rule)              # dense, unless said
        Projection("B1", "pyr2", "pyr1.I_fb", Tied("W2", transpose=True))
        Projection("D", "site", "pyr1.credit", Given(matrix))                    # a fixed kernel
        Projection("teach1", "pyr2.u", "int1.u_partner", connectivity=OneToOne())

    Parameters
    ----------
    name
        Name of the projection and of its weights.
    source
        ``"population"`` (its rate) or ``"population.variable"`` (a state or an early variable).
    target
        ``"population.port"``.
    weights
        How the weights start: an initialiser (`Glorot`, `Gram`, `Uniform`, `Orthogonal`, `Constant`), `Given` as an
        array, or `Like` those of another projection; or `Tied` to another's. One-to-one weights are 1 unless given.
    rule
        The plasticity rule of the weights. Without one they stay as they start.
    connectivity
        `Dense`, `OneToOne`, `Conv2d` or `PerMap`.
    evolved
        An outer loop finds these weights (`neurosim evolve`); they stand still during a life.
    """

    former: ClassVar[Mapping[str, str]] = {
        "tied": "write it as the weights, Projection('B1', 'pyr2', 'pyr1.I_fb', Tied('W2', transpose=True))."
    }

    name: str
    source: str
    target: str
    weights: Initialiser | Like | Tied | None = None
    rule: PlasticityRule | None = None
    connectivity: Connectivity = Dense()
    evolved: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.weights, Connectivity):
            raise CircuitError(
                f"Projection '{self.name}': weights = {self.weights}; a connectivity is given by name: connectivity={self.weights}."
            )
        Value.__post_init__(self)

    @property
    def source_population(self) -> str:
        return self.source.partition(".")[0]

    @property
    def target_population(self) -> str:
        return self.target.partition(".")[0]

    @property
    def port(self) -> str:
        return self.target.partition(".")[2]

    @property
    def tie(self) -> Tied | None:
        """The tie to another projection's weights, if there is one."""
        return self.weights if isinstance(self.weights, Tied) else None
