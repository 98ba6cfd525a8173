"""Where the states of a population settle, and in which order when they depend on one another in no circle."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from neurosim.equations import names_in, solve_steady
from neurosim.errors import UnsupportedError
from neurosim.plan import PhasePlan, Plan, PopulationPlan


def steady_states(p: PopulationPlan, phase: PhasePlan, sent: set[str], level: str) -> tuple[dict[str, str], set[str]]:
    """Fixed point of a population's states in a phase as texts, and the states that are held.

    Raises
    ------
    UnsupportedError
        Compartments that SymPy cannot solve for, with the `level` that asked.
    """
    numbers = numbers_in(p, phase)
    try:
        found = solve_steady(p.ode, p.subexpressions, sent, numbers)
        for zeros in _zeros_of_single_cells(p):  # one text serves all cells, so a state stands still in all or in none
            held = solve_steady(p.ode, p.subexpressions, sent, numbers | dict.fromkeys(zeros, 0.0))[1]
            if held != found[1]:
                raise ValueError(
                    f"with {' and '.join(f'{n} = 0' for n in sorted(zeros))} in some of its cells, '{min(held ^ found[1])}' "
                    "stands still there and moves in the others; give those cells a population of their own"
                )
        return found
    except ValueError as error:
        raise UnsupportedError(
            f"{level} cannot solve population '{p.name}' in phase '{phase.name}': {error}. "
            "Use torch:trajectory or a Brian2 level."
        ) from error


def _zeros_of_single_cells(p: PopulationPlan) -> set[frozenset[str]]:
    """The parameters that are 0 in a cell, for each kind of cell."""
    arrays = {n: v == 0 for n, v in p.arrays.items() if (v == 0).any() and not (v == 0).all()}
    kinds = {frozenset(n for n, zero in arrays.items() if zero[k]) for k in range(p.n)} if arrays else set()
    return kinds - {frozenset()}


def numbers_in(p: PopulationPlan, phase: PhasePlan) -> dict[str, float]:
    """Numbers that SymPy is given: the phase's shared values, derivatives, what is 0 throughout."""
    numbers = {n: phase.shared[n] for n in p.shared} | {d.name: 0.0 for d in p.derivatives}
    if p.ode:
        numbers |= {n: 0.0 for n, v in p.parameters.items() if n in p.dimensions and not np.any(v)}
    return numbers


def order_of_states(plan: Plan, solutions: Mapping[str, Mapping[str, str]]) -> list[tuple[str, list[str]]] | None:
    """Populations with their states, sources first; a population comes as often as its states lie at different depths.

    Parameters
    ----------
    plan
        The circuit.
    solutions
        ``{population: {state: text}}``: steady states in terms of ports and of other variables, held states left out.

    Returns
    -------
    None where a state depends on itself, through whatever others.
    """
    needs: dict[tuple[str, str], set[tuple[str, str]]] = {}
    for name, texts in solutions.items():
        p = plan.populations[name]
        for x, text in texts.items():
            read = p.closure(names_in(text))
            needs[name, x] = {(name, y) for y in texts if y in read}
            for port, feeding in p.ports.items():
                for q in feeding if port in read else ():
                    sent = plan.populations[q.source].closure([q.variable])
                    needs[name, x] |= {(q.source, y) for y in solutions.get(q.source, {}) if y in sent}
    depth: dict[tuple[str, str], int] = {}
    while len(depth) < len(needs):
        # A list: every process of a distributed training visits them in the same order.
        ready = [state for state, read in needs.items() if state not in depth and read <= set(depth)]
        if not ready:
            return None
        depth |= {state: 1 + max((depth[y] for y in needs[state]), default=0) for state in ready}
    steps: dict[tuple[int, str], list[str]] = {}
    for (name, x), d in sorted(depth.items(), key=lambda item: item[1]):
        steps.setdefault((d, name), []).append(x)
    return [(name, states) for (_, name), states in steps.items()]
