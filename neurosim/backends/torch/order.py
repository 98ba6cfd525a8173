"""In which order states settle when they depend on one another in no circle."""

from __future__ import annotations

from collections.abc import Mapping

from neurosim.equations import names_in
from neurosim.plan import Plan


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
        ready = {state for state, read in needs.items() if state not in depth and read <= set(depth)}
        if not ready:
            return None
        depth |= {state: 1 + max((depth[y] for y in needs[state]), default=0) for state in ready}
    steps: dict[tuple[int, str], list[str]] = {}
    for (name, x), d in sorted(depth.items(), key=lambda item: item[1]):
        steps.setdefault((d, name), []).append(x)
    return [(name, states) for (_, name), states in steps.items()]
