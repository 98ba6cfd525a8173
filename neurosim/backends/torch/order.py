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
    try:
        return solve_steady(p.ode, p.subexpressions, sent, numbers_in(p, phase))
    except ValueError as error:
        raise UnsupportedError(
            f"{level} cannot solve population '{p.name}' in phase '{phase.name}': {error}. "
            "Use torch:trajectory or a Brian2 level."
        ) from error


def numbers_in(p: PopulationPlan, phase: PhasePlan) -> dict[str, float]:
    """Numbers that SymPy is given: the phase's shared values, derivatives, what is 0 throughout."""
    numbers = {n: phase.shared[n] for n in p.shared} | {d.name: 0.0 for d in p.derivatives}
    if p.ode:
        zeros = {n: v for n, v in p.parameters.items() if n in p.dimensions and not isinstance(v, np.ndarray)}
        numbers |= {n: v for n, v in zeros.items() if v == 0.0}
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
