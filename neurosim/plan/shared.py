"""The values that all cells and rules share in a phase."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from neurosim.description import Protocol, RandomSign
from neurosim.equations import amount, check_constants, check_name, quantity, unit_text
from neurosim.equations.units import DIMENSIONLESS, Dimension, Quantity
from neurosim.errors import CircuitError
from neurosim.plan.names import described_phases
from neurosim.plan.population import PopulationPlan


def shared_names(protocol: Protocol, circuit: str) -> set[str]:
    """The names of all shared values, checked."""
    names = {*protocol.shared, *(n for phase in described_phases(protocol) for n in phase.shared)}
    for name in names:
        check_name(name, f"Protocol of '{circuit}'")
    return names


def given_values(protocol: Protocol) -> list[tuple[str, Any, str]]:
    """``(name, value, where)`` of each shared value that the protocol gives."""
    return [
        *((n, v, "Protocol") for n, v in protocol.shared.items()),
        *((n, v, f"Phase '{p.name}'") for p in described_phases(protocol) for n, v in p.shared.items()),
    ]


def shared_units(
    populations: Mapping[str, PopulationPlan], names: Iterable[str], given: Iterable[tuple[str, Any, str]]
) -> dict[str, Dimension]:
    """The unit of each shared value: as the cells declare it, else as its first value with units has it."""
    found: dict[str, Dimension] = {}
    owner: dict[str, str] = {}
    for p in populations.values():
        for name in p.shared:
            if found.setdefault(name, p.dimensions[name]) is not p.dimensions[name]:
                raise CircuitError(
                    f"Population '{p.name}' declares the shared variable '{name}' in {unit_text(p.dimensions[name])}, "
                    f"population '{owner[name]}' in {unit_text(found[name])}; one value serves both, so rename one."
                )
            owner.setdefault(name, p.name)
    for name, value, where in given:
        inner = value.value if isinstance(value, RandomSign) else value
        if isinstance(inner, str | Quantity):
            try:
                dimension = quantity(inner)[1]
            except CircuitError as error:
                raise CircuitError(f"{where}: the shared value '{name}': {error}") from error
            found.setdefault(name, dimension)
    return {name: found.get(name, DIMENSIONLESS) for name in names}


def shared_value(name: str, value: Any, dimension: Dimension, where: str) -> float:
    """A shared value in base SI units; that of a random sign with its positive sign."""
    inner = value.value if isinstance(value, RandomSign) else value
    shown = f"{where}: the shared value '{name}'"
    given = isinstance(inner, str | Quantity | int | float | np.integer | np.floating)
    number = amount(inner, dimension, shown) if given else inner
    real = isinstance(number, int | float | np.integer | np.floating) and not isinstance(number, bool)
    if not real or not np.isfinite(number):
        raise CircuitError(
            f"{shown} = {inner!r}; expected one finite number, a text with units such as '5*pA', or RandomSign('5*pA')."
        )
    return float(number)


def check_shared_constants(populations: Mapping[str, PopulationPlan], numbers: Mapping[str, float], phase: str) -> None:
    """Refuse shared values with which a cell does not decay to rest."""
    for p in populations.values():
        if own := {n: numbers[n] for n in p.shared}:
            where = f"Population '{p.name}' in phase '{phase}'"
            states = {x: p.written.get(x, text) for x, text in p.ode.items()}
            subexpressions = p.subexpressions | {n: t for n, t in p.written.items() if n not in states}
            check_constants(states, subexpressions, own | p.parameters, p.dimensions, where)
