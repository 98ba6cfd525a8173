"""The sweeps of a published relaxation (see `neurosim.description.Relaxation`) as one function without a look-up inside.

In small batches much of a sweep's time goes into calls, not into arithmetic. So the visits of a sweep are written out as one text in local
names, Euler steps as sums that add each term in place, and a product with dense weights that nobody else reads is added as it is formed;
also one that an instant population hands on cell by cell (a lateral interneuron) to the population that is visited next.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from neurosim.description import OneToOne
from neurosim.equations import names_in, python_source, substitute
from neurosim.equations.render import CONSTANTS
from neurosim.plan import Assignment, PopulationPlan, ProjectionPlan

#: Of all populations' variables, all weights, and the steps (of most populations, of unslowed ones) of the sweeps.
Sweeps = Callable[[dict[str, dict[str, Any]], dict[str, Any], Sequence[tuple[float, float]]], None]


@dataclass(frozen=True)
class Visit:
    """What a sweep does at one population: an Euler step by `terms`, or, where it is instant, the states of `solution`."""

    population: PopulationPlan
    unslowed: bool
    terms: Mapping[str, list[tuple[str, float]]]  # of each right-hand side, with coefficients
    solution: Mapping[str, str] | None
    late: list[Assignment]
    early: list[Assignment]
    targets: tuple[str, ...]  # of its projections

    @property
    def needed(self) -> list[str]:
        """Names that the states read, as often as they are read."""
        texts = [*(self.solution or {}).values(), *(a.expression for a in self.late)]
        texts += [term for parts in self.terms.values() for term, _ in parts]
        return [n for text in texts for n in names_in(text)]


def compile_sweeps(
    visits: Sequence[Visit], units: Collection[str], static: Collection[str], functions: Mapping[str, Any],
    constants: Mapping[str, Mapping[str, Any]],
) -> Sweeps:  # fmt: skip
    """Compile a phase's sweeps.

    Parameters
    ----------
    visits
        In their order.
    units
        Projections whose drive is what they send.
    static
        Populations that do not move: the ports that they alone feed are read once.
    functions, constants
        The namespace of the equations, and the constants of each population.
    """
    namespace: dict[str, Any] = {**CONSTANTS, **functions, "ns_mm": torch.mm, "ns_addmm": torch.addmm}
    lines: list[str] = []
    read: dict[str, str] = {}  # local name -> where it is taken from

    def local(population: str, name: str) -> str:
        found = f"{population}_ns_{name}"
        if name in constants[population]:
            namespace[found] = constants[population][name]
        else:
            read[found] = f"ns_state['{population}'].get('{name}')"
        return found

    def rendered(population: str, text: str) -> str:
        return python_source(substitute(text, {n: local(population, n) for n in names_in(text)}))

    def assigned(population: str, a: Assignment) -> str:
        value = rendered(population, a.expression)
        return f"{local(population, a.name)} = {f'ns_{a.word}({value})' if a.word else value}"

    def weights(q: ProjectionPlan) -> str:
        read[f"ns_w_{q.name}"] = f"ns_weights['{q.root}']{'.T' if q.transpose else ''}"
        return f"ns_w_{q.name}"

    def drive(q: ProjectionPlan) -> str:
        sent = local(q.source, q.variable)
        if q.name in units:
            return sent
        product = f"{sent}*{weights(q)}" if isinstance(q.connectivity, OneToOne) else f"ns_mm({sent}, {weights(q)})"
        return product if q.factor == 1.0 else f"{q.factor!r}*{product}"

    relayed = _relayed(visits, units)
    relays = {q.target for q in relayed.values()}  # settle at the phase's end
    moved = [v for v in visits if v.population.name not in relays]
    for visit in moved:
        p, name, needed = visit.population, visit.population.name, visit.needed
        step = "ns_first" if visit.unslowed else "ns_h"
        plain = {term for parts in visit.terms.values() for term, _ in parts}
        fused: dict[str, ProjectionPlan] = {}
        for port, feeding in p.ports.items():
            if port not in needed or all(q.source in static for q in feeding):
                continue
            (q, *more) = feeding
            q = relayed.get(q.name, q)
            dense = not more and not isinstance(q.connectivity, OneToOne)
            if dense and port in plain and needed.count(port) == 1:
                fused[port] = q
            else:
                lines.append(f"{local(name, port)} = {' + '.join(map(drive, feeding))}")
        lines += [assigned(name, a) for a in visit.late]
        states = visit.solution or visit.terms
        for x, text in (visit.solution or {}).items():
            lines.append(f"ns_{x} = {rendered(name, text)}")
        for x, parts in visit.terms.items() if visit.solution is None else ():
            own = sum(coefficient for term, coefficient in parts if term == x)
            begun, kept_share = False, f"1.0 + {step}*{own!r}"
            for term, coefficient in sorted(parts, key=lambda part: part[0] not in fused):
                if term in fused:
                    q = fused[term]
                    product = f"{local(q.source, q.variable)}, {weights(q)}, alpha={step}*{coefficient * q.factor!r}"
                    before = local(name, x)
                    lines.append(
                        f"ns_{x}.addmm_({product})"
                        if begun
                        else f"ns_{x} = ns_addmm({before}, {product}, beta={kept_share})"
                    )
                    begun = True
                    continue
                if not begun:
                    lines.append(f"ns_{x} = {local(name, x)}*({kept_share})")
                    begun = True
                if term == "1":
                    lines.append(f"ns_{x}.add_({step}*{coefficient!r})")
                elif term != x:
                    lines.append(f"ns_{x}.add_({rendered(name, term)}, alpha={step}*{coefficient!r})")
        lines += [f"{local(name, x)} = ns_{x}" for x in states]
        lines += [assigned(name, a) for a in visit.early]
    kept = [(v.population.name, x) for v in moved for x in (*(v.solution or v.terms), *(a.name for a in v.early))]
    source = "\n".join([
        "def ns_sweeps(ns_state, ns_weights, ns_steps):",
        *(f"    {found} = {origin}" for found, origin in read.items()),
        "    for ns_h, ns_first in ns_steps:",
        *(f"        {line}" for line in lines),
        *(f"    ns_state['{population}']['{x}'] = {local(population, x)}" for population, x in kept),
    ])  # fmt: skip
    exec(compile(source, "<relaxation>", "exec"), namespace)
    return namespace["ns_sweeps"]


def _relayed(visits: Sequence[Visit], units: Collection[str]) -> dict[str, ProjectionPlan]:
    """Unit projections to the population visited next, and the dense projection whose drive they hand on at once.

    The relay is an instant population of one state that takes on its only drive and sends that state, and nothing else, to a port that
    enters the next population's right-hand side as a plain term: only then is its visit the same as adding the drive there.
    """
    found: dict[str, ProjectionPlan] = {}
    for visit, following in pairwise(visits):
        p, solution = visit.population, visit.solution or {}
        feeding = next(iter(p.ports.values()), [])
        if (
            list(solution.values()) != list(p.ports)
            or len(feeding) != 1
            or isinstance(feeding[0].connectivity, OneToOne)
        ):
            continue
        ports = {port: q for port, (q, *more) in following.population.ports.items() if not more and q.source == p.name}
        plain = [term for parts in following.terms.values() for term, _ in parts]
        for port, q in ports.items():
            alone = len(visit.targets) == 1 and following.needed.count(port) == 1 and port in plain
            if alone and q.name in units and [q.variable] == list(solution):
                found[q.name] = feeding[0]
    return found
