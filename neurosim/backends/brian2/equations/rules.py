"""A plasticity rule as equations of `Synapses`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import brian2 as b2

from neurosim.backends.brian2.equations.names import held_before, read_holds
from neurosim.backends.brian2.network import WHOLE, brian2_unit
from neurosim.equations import brian2_source, names_in, quantity, substitute
from neurosim.plan import Plan, PopulationPlan, ProjectionPlan, RulePlan


@dataclass(frozen=True)
class RuleEquations:
    """The lines of a rule, among them that of ``w``, and the numbers that they name."""

    lines: list[str]
    namespace: dict[str, Any]


def rule_equations(plan: Plan, q: ProjectionPlan, rule: RulePlan, collects: bool) -> RuleEquations:
    """The equations of a projection that learns; its changes go to ``ns_collected`` or to ``w``."""
    unit = brian2_unit(q.weight_dimension)
    rhs, namespace = _right_hand_side(plan, q, rule)
    lines = []
    if q.shared_kernel:  # the synapses of one weight share its decay
        rhs = substitute(rhs, {"w": "(w/ns_sharing)"})
        lines.append("ns_sharing : 1")
    if rule.filter is not None:
        namespace["ns_filter"] = rule.filter * b2.second
        trace = f"ns_on*({rhs} - ns_trace)/ns_filter"
        lines.append(f"dns_trace/dt = {trace} : {unit}/second (clock-driven)")
        rhs = "ns_trace"
    changed = "ns_collected" if collects else "w"
    lines.append(f"d{changed}/dt = ns_on*({rhs}) : {unit} (clock-driven)")
    lines += [f"w : {unit}"] if collects else []
    lines.append("ns_on : 1 (shared)")
    for name in rule.shared:
        lines.append(f"ns_{name} : {brian2_unit(plan.shared_dimensions[name])} (shared)")
    return RuleEquations(lines, namespace)


def _right_hand_side(
    plan: Plan,
    q: ProjectionPlan,
    rule: RulePlan,
) -> tuple[str, dict[str, Any]]:
    """The rule's text as Brian2 reads it, and the namespace of its numbers."""
    # A rule's bare names get a prefix: Brian2 would first look for them among the cells' variables.
    units = {n: quantity(rule.written.parameters[n])[1] for n in rule.parameters}
    numbers = {f"ns_{n}": b2.Quantity(v, dim=units[n]) for n, v in rule.parameters.items()}
    bare = (*rule.parameters, *rule.shared)
    rhs = substitute(brian2_source(rule.rhs), {n: f"ns_{n}" for n in bare})
    ends = (plan.populations[q.source], "pre"), (plan.populations[q.target], "post")
    for p, side in ends:
        was = {h.name: held_before(h) for h in read_holds(plan, p.name)}
        rhs = substitute(rhs, {f"{n}_{side}": f"{old}_{side}" for n, old in was.items()})
    for p, side in ends:
        for name in _numbers_of_cells(p, side, rhs):
            numbers[f"ns_{side}_{name}"] = b2.Quantity(p.parameters[name], dim=p.dimensions[name])
            rhs = substitute(rhs, {f"{name}_{side}": f"ns_{side}_{name}"})
    return rhs, WHOLE | numbers


def _numbers_of_cells(p: PopulationPlan, side: str, rhs: str) -> Iterator[str]:
    """Parameters that all cells of a population share, and that a rule reads."""
    read = names_in(rhs)
    return (n for n in p.parameters if f"{n}_{side}" in read and n not in p.arrays)
