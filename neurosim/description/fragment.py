"""Fragments: populations and projections that are described together, and add up to a circuit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

from neurosim.checks import Cure
from neurosim.description.population import Population
from neurosim.description.projection import Projection
from neurosim.description.value import Value
from neurosim.errors import CircuitError


@dataclass(frozen=True)
class Fragment(Value):
    """Populations and projections, in their order; ``learner + top_down`` has those of both.

    A projection may name populations of another fragment: only the circuit must be whole. A
    fragment may be unpacked into a list as well: ``[*learner, Population(...), Projection(...)]``.

    Raises
    ------
    CircuitError
        Two populations, or two projections, of one name.
    """

    populations: Sequence[Population] = ()
    projections: Sequence[Projection] = ()

    def __post_init__(self) -> None:
        Value.__post_init__(self)
        _check_once("population", (p.name for p in self.populations))
        _check_once("projection", (p.name for p in self.projections))

    def __add__(self, other: Fragment) -> Fragment:
        if not isinstance(other, Fragment):
            return NotImplemented
        return Fragment((*self.populations, *other.populations), (*self.projections, *other.projections))

    def __iter__(self) -> Iterator[Population | Projection]:
        yield from self.populations
        yield from self.projections


#: An argument that is a fragment.
GivenFragment = Annotated[
    Fragment | Sequence[Population | Projection],
    Cure("Write [Population(...), Projection(...)], or fragments: learner + top_down, [*learner, Population(...)]."),
]


def as_fragment(parts: Fragment | Sequence[Population | Projection]) -> Fragment:
    """The fragment itself, or one of a list of populations and projections."""
    if isinstance(parts, Fragment):
        return parts
    return Fragment(
        tuple(p for p in parts if isinstance(p, Population)),
        tuple(p for p in parts if not isinstance(p, Population)),
    )


def _check_once(what: str, names: Iterable[str]) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise CircuitError(
                f"Two of one name: {what} '{name}'; expected each name once. Leave it out of one of "
                "the fragments, or rename one."
            )
