"""Plasticity rules in a report."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

from neurosim.circuit import Circuit
from neurosim.describe import maths, quantities
from neurosim.describe.document import Maths, Section, Text
from neurosim.describe.pieces import (
    backticked,
    grouped,
    joined,
    listing,
    named,
    numbered,
    parameter_table,
    weight_unit,
)
from neurosim.plan import ProjectionPlan


def rule_variants(circuit: Circuit) -> dict[str, list[ProjectionPlan]]:
    """Plastic projections by rule; rules of one name and several equations are numbered."""

    def described(q: ProjectionPlan) -> Hashable:
        rule = circuit.plan.rules[q.name]
        return (rule.name, rule.rhs, rule.apply, rule.bounds, rule.filter, rule.symmetric, rule.batch)

    order = [circuit.plan.projections[p.name] for p in circuit.projections]
    return numbered(grouped([q for q in order if q.rule], described), lambda q: circuit.plan.rules[q.name].name)


def rule_section(circuit: Circuit, label: str, projections: list[ProjectionPlan]) -> Section:
    """A rule: its equation, when it is applied, its parameters."""
    plan = circuit.plan
    rule = plan.rules[projections[0].name]
    names = {q.name for q in projections}
    on = dict.fromkeys(phase.base for phase in plan.phases if names & set(phase.plastic))
    left = r"\frac{d w}{d t}"
    change = maths.formula(rule.rhs)
    equation = Maths(f"dw/dt = {change.plain}", (f"{left} = {change.parts[0]}", *change.parts[1:]))
    low_pass: Text = ()
    if rule.written.filter is not None:
        tau = quantities.value(rule.written.filter)
        equation = Maths(f"F = {change.plain}", (f"F = {change.parts[0]}", *change.parts[1:]))
        trace = Maths(
            "dw/dt = D, tau_F dD/dt = -D + F",
            (rf"{left} = D, \quad \tau_{{F}} \thinspace \frac{{d D}}{{d t}} = - D + F", ),
        )  # fmt: skip
        low_pass = (
            trace,
            ", ",
            maths.symbol("tau_F"),
            " = ",
            tau,
            "; D starts at 0 and stands still while the rule is off",
        )
    when = {
        "now": "in every step",
        "phase": "collected, at the end of the phase",
        "trial": "collected, at the end of the trial",
    }[rule.apply]
    given = {p.name: p.rule.bounds for p in circuit.projections if p.rule}
    limits: dict[Text, list[str]] = {}  # projections of one rule may have weights of several units
    for q in projections if rule.bounds != (None, None) else ():
        limits.setdefault(_limits(circuit, q, given[q.name]), []).append(q.name)
    bounds = joined(
        (shown if len(limits) == 1 else (*shown, " (", *named(whose), ")") for shown, whose in limits.items()), ", "
    )
    batch: Text = ()
    if rule.batch is not None:
        plain, latex = rule.batch.formula()
        batch = (Maths(plain, (latex,)), ", ", *backticked(rule.batch.text()))
        batch += ("; in place of the equation, which is that of one synapse",)
    shared = any(q.shared_kernel for q in projections)
    facts = [
        ("Projections", named(q.name for q in projections)),
        ("Equation", (equation,)),
        ("Low-pass", low_pass),
        ("For a batch", batch),
        ("On in", named(on) or ("no phase",)),
        ("Applied", (f"{when}; mean over the samples of a batch{'; summed over the positions of a map' if shared else ''}",)),
        ("Limits of w", bounds),
        ("Symmetric", ("the symmetric part of the change is added",) if rule.symmetric else ()),
    ]  # fmt: skip
    parameters = parameter_table([(q.name, plan.rules[q.name].written.parameters) for q in projections])
    return Section(label, (listing(facts), *parameters))


def _limits(circuit: Circuit, q: ProjectionPlan, given: Iterable[Any]) -> Text:
    """From where to where a rule keeps the weights, the unit once: from 0 to 90 pA."""
    low, high = circuit.plan.rules[q.name].bounds
    numbers = [b for b in (low, high) if b]
    unit = weight_unit(circuit.plan, q, numbers, given) if numbers else "1"
    if low is None or high is None:
        lowest, highest = ("no limit" if b is None else quantities.in_unit(b, unit) for b in (low, high))
        return ("from ", lowest, " to ", highest)
    return ("from ", quantities.bare(low, unit), " to ", quantities.in_unit(high, unit))
