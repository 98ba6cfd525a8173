"""The circuit. Plain data; `Circuit` checks itself when it is built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, ClassVar

import numpy as np

from neurosim.checks import Cure
from neurosim.description import (
    ONE,
    Citation,
    FeedForward,
    Measure,
    Population,
    Projection,
    Protocol,
    Readout,
    Relaxation,
    Value,
)
from neurosim.description.citation import check_keys
from neurosim.description.fragment import GivenFragment, as_fragment
from neurosim.errors import unknown
from neurosim.plan import Plan, lower

_NOW = "Circuit(name, [*populations, *projections], protocol)"


@dataclass(frozen=True)
class Circuit(Value):
    """Populations, projections and a protocol, checked as a whole.

    Parameters
    ----------
    name
        Name of the circuit.
    fragment
        The populations and projections: a list of them, ``[Population(...), Projection(...)]``, or
        fragments, ``learner + top_down``. A population `one` (one cell, rate 1) is added when a
        projection names it.
    protocol
        The phases of a trial, and what is clamped in them.
    readout
        Where the answer is read, for circuits that classify.
    reference
        The feed-forward net whose gradient the update is compared with, if there is one.
    measures
        Named measures that training reports, such as what is left of a cancelled feedback: `Ratio`, `Silent`, `Angle`,
        `SmallestEigenvalue`.
    relaxation
        A published scheme of approaching the fixed point, if the circuit has one; see `Relaxation`.
    citations
        The papers that the model comes from, with notes on what is read in them and what is reconstruction.

    Raises
    ------
    CircuitError
        An unknown or reserved name, a unit mismatch, an unfed port, an algebraic loop. The message names the
        population, the equation and the cure.
    """

    name: str
    fragment: GivenFragment
    protocol: Annotated[Protocol, Cure(f"It follows one list of both: {_NOW}.")]
    readout: Readout | None = None
    reference: FeedForward | None = None
    measures: Mapping[str, Measure] = field(default_factory=dict)
    relaxation: Relaxation | None = None
    citations: tuple[Citation, ...] = ()

    former: ClassVar[Mapping[str, str]] = {
        "populations": f"write {_NOW}",
        "projections": f"write {_NOW}",
        "citation": "write citations=(Citation(title, authors, year, bibtex, note),); the note says what is read in the "
        "paper and what is a reconstruction",
        "evolved": "write Projection(..., evolved=True)",
    }

    def __post_init__(self) -> None:
        Value.__post_init__(self)
        check_keys(self.citations, f"Circuit '{self.name}': ")
        object.__setattr__(self, "fragment", as_fragment(self.fragment))
        object.__setattr__(self, "plan", lower(self))

    plan: Plan = field(init=False, repr=False, compare=False)

    @cached_property
    def populations(self) -> tuple[Population, ...]:
        """The populations, `one` among them if a projection names it."""
        given = tuple(as_fragment(self.fragment).populations)
        if any(p.name == "one" for p in given) or not any(p.source_population == "one" for p in self.projections):
            return given
        return (Population("one", 1, ONE), *given)

    @property
    def projections(self) -> tuple[Projection, ...]:
        """The projections."""
        return tuple(as_fragment(self.fragment).projections)

    @property
    def evolved(self) -> tuple[str, ...]:
        """Names of the projections whose weights an outer loop finds."""
        return tuple(p.name for p in self.projections if p.evolved)

    @cached_property
    def _by_name(self) -> dict[str, Population]:
        return {p.name: p for p in self.populations}

    def population(self, name: str) -> Population:
        """The population of that name."""
        if name not in self._by_name:
            raise unknown("population", name, self._by_name)
        return self._by_name[name]

    def initial_weights(self, seed: int = 0) -> dict[str, np.ndarray]:
        """Draw the weights of every projection that has its own, from one seed.

        Each projection has a random stream of its own (seed and name), so adding a projection leaves the others'
        weights as they were. Shapes: Dense (n_pre, n_post), OneToOne (n,).
        """
        return self.plan.initial_weights(seed)


#: An argument that is a circuit.
GivenCircuit = Annotated[
    Circuit, Cure("Build one: neurosim.models.ghost_units.circuit(), or registry.model(NAME).circuit().")
]
