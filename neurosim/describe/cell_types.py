"""Cell types in a report: equations, ports, parameters."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Hashable

from neurosim.circuit import Circuit
from neurosim.describe import maths, quantities
from neurosim.describe.document import Block, Maths, Name, Paragraph, Section, Table, Text
from neurosim.describe.pieces import (
    IDENTITY,
    NOTHING,
    grouped,
    joined,
    listing,
    named,
    numbered,
    parameter_table,
)
from neurosim.description import Cell, Population
from neurosim.equations import parse_cell
from neurosim.equations.units import DIMENSIONLESS, unit_string
from neurosim.errors import CircuitError
from neurosim.parts.text import unit_of
from neurosim.plan import Assignment, PopulationPlan


def cell_types(circuit: Circuit) -> dict[str, list[Population]]:
    """Populations by cell type, of one description (defaults of parameters left out)."""

    def described(p: Population) -> Hashable:
        c = p.cell
        return (c.name, c.equations, c.rate, c.threshold, c.reset, c.refractory, str(dict(c.initial)))

    return numbered(grouped(circuit.populations, described), lambda p: p.cell.name)


def notation_blocks(circuit: Circuit) -> tuple[Block, ...]:
    """What in the equations is not said by themselves."""
    texts = [
        t for p in circuit.plan.populations.values() for t in (*p.ode.values(), *(a.expression for a in p.assignments))
    ]
    texts += [q.rule.rhs for q in circuit.plan.projections.values() if q.rule]
    notes: list[Text] = [
        (
            "Sent variables are known before the drives of a step; those marked late follow from the drives of the same step",
        )
    ]
    if any("int(" in t for t in texts):
        notes.append((Maths("int(c)", (r"\left[ c \right]",)), " is 1 where the condition c holds, else 0"))
    if any("clip(" in t for t in texts):
        limited = Maths("clip(x, a, b)", (r"\mathrm{clip} \left( x, a, b \right)",))
        notes.append((limited, " keeps x between a and b"))
    if any("lastspike" in t for t in texts):
        notes.append((maths.symbol("lastspike"), " is the time of a cell's last spike"))
    if any(q.variable == "spike_train" for q in circuit.plan.projections.values()):
        delta = Maths("sum_k delta(t - t_k)", (r"\sum_{k} \delta ( t - t_{k} )",))
        notes.append((maths.symbol("spike_train"), " is ", delta, " of the times of a cell's spikes"))
    if any(p.noises for p in circuit.plan.populations.values()):
        notes.append((maths.symbol("xi"), " is white noise, independent in each cell"))
    return (Paragraph((*joined(notes), ".")),)


def cell_type_section(circuit: Circuit, label: str, populations: list[Population]) -> Section:
    """A cell type: what it sends, its equations, its parameters."""
    cell = populations[0].cell
    plans: list[PopulationPlan] = [circuit.plan.populations[p.name] for p in populations]
    spiking, equations = plans[0].spiking, parse_cell(cell.equations, f"Cell '{cell.name}'")
    facts = [
        ("Populations", named(p.name for p in populations)),
        ("Sends", _sent(circuit, cell, plans)),
        ("Starts at", _initial(plans[0])),
    ]
    if spiking:
        resets = joined(((maths.symbol(n), " becomes ", _formula(e)) for n, e in spiking.reset), ", ")
        facts += [
            ("Spikes", ("when ", maths.formula(cell.threshold))),
            ("Reset", resets or NOTHING),
            ("Refractory", (quantities.value(cell.refractory), *_still(spiking.unless_refractory))),
        ]
    rows = _states(cell, plans[0])
    written = plans[0].written
    rows += [
        _assignment(dataclasses.replace(a, expression=written.get(a.name, a.expression)), cell, plans)
        for a in plans[0].assignments
        if not a.name.startswith("ns_")
    ]
    for hold in plans[0].holds:
        held = Maths(f"{hold.name} = {hold.of}", (f"{maths.symbol_latex(hold.name)} = {maths.symbol_latex(hold.of)}",))
        rows.append((("held",), (held, " at the end of phase ", Name(hold.phase)), _unit(cell, plans[0], hold.name)))
    for derivative in plans[0].derivatives:
        x, name = maths.symbol_latex(derivative.of), maths.symbol_latex(derivative.name)
        change = rf"{name} = \frac{{{x} ( t ) - {x} ( t - \Delta t )}}{{\Delta t}}"
        plain = f"{derivative.name} = d{derivative.of}/dt of the previous step"
        rows.append((("derivative",), (Maths(plain, (change,)),), _unit(cell, plans[0], derivative.name)))
    for name in equations.ports:
        rows.append((("port",), _port(name, plans), _unit(cell, plans[0], name)))
    for name in equations.inputs:
        rows.append((("clamped",), _clamped(name, circuit, plans), _unit(cell, plans[0], name)))
    for name in plans[0].shared:
        rows.append((("shared",), (maths.symbol(name), ", set by the protocol"), _unit(cell, plans[0], name)))
    table = Table(("", "Equation", "Unit"), tuple(rows), (0.14, 0.74, 0.12))
    parameters = parameter_table([(p.name, {**p.cell.parameters, **p.parameters}) for p in populations])
    return Section(label, (listing(facts), table, *parameters))


def _formula(text: str) -> Maths:
    """A formula; ``x + (b)``, which is read from ``x += b``, without the brackets in plain text."""
    return dataclasses.replace(maths.formula(text), plain=re.sub(r"^(\w+ [-+*/] )\(([\w.]+)\)$", r"\1\2", text))


def _sent(circuit: Circuit, cell: Cell, plans: list[PopulationPlan]) -> Text:
    sent = dict.fromkeys(v for p in plans for v in sorted(circuit.plan.sent(p.name)))
    return named(sent) or (Name(cell.rate), " (no projection reads it)")


def _still(states: tuple[str, ...]) -> Text:
    return ("; meanwhile ", *named(states), f" stand{'s' if len(states) == 1 else ''} still") if states else ()


def _initial(p: PopulationPlan) -> Text:
    values = [(maths.symbol(x), " = ", quantities.of_number(v, p.dimensions[x])) for x, v in p.initial.items() if v]
    rest = [x for x, v in p.initial.items() if not v]
    if not values:
        return ("0",) if rest else ()
    return (*joined(values, ", "), *((", other states 0",) if rest else ()))


def _states(cell: Cell, p: PopulationPlan) -> list[tuple[Text, Text, Text]]:
    rows = []
    for name, text in p.ode.items():
        text = p.written.get(name, text)
        for noise in p.noises:
            text = text.replace(noise, noise.removeprefix("ns_"))
        rows.append((("state",), (maths.ode(name, text),), _unit(cell, p, name)))
    return rows


def _assignment(a: Assignment, cell: Cell, plans: list[PopulationPlan]) -> tuple[Text, Text, Text]:
    late = ", late" if any(a.name in p.late for p in plans) else ""
    unit, left = _unit(cell, plans[0], a.name), maths.symbol_latex(a.name)
    if a.word == "overlap":
        of = maths.symbol_latex(a.expression)
        shared = (
            rf"{left} = \frac{{1}}{{B}} ( {of} \thinspace {{{of}}}^{{\mathsf{{T}}}} - \mathbf{{I}} ) \thinspace {of}"
        )
        formula = Maths(f"{a.name} = ({a.expression} {a.expression}^T - I) {a.expression}/B", (shared,))
        return (f"overlap{late}",), (formula, ", rows are the B samples (labels) of a batch, ", *IDENTITY), unit
    if a.word:
        groups = grouped(plans, lambda p: _sum(a, p))
        sums: list[Text] = [(_sum(a, group[0]),) for group in groups]
        if len(groups) > 1:
            sums = [(*s, " in ", *named(p.name for p in group)) for s, group in zip(sums, groups, strict=True)]
        return (f"pool{late}",), joined(sums), unit
    return (f"variable{late}",), (maths.equation(a.name, a.expression),), unit


def _sum(a: Assignment, p: PopulationPlan) -> Maths:
    """A pool as it is in a population, which may have maps or none."""
    row, axis = a.reduction, "samples" if a.axis == "batch" and not p.shape else a.axis
    assert row is not None
    latex, plain = row.latex[axis], row.plain[axis]
    inside = maths.latex(a.expression)
    inside = rf"\left( {inside} \right)" if len(maths.formula(a.expression).parts) > 1 else inside
    left = maths.symbol_latex(a.name)
    return Maths(f"{a.name} = {plain.format(a.expression)}", (f"{left} = {latex.format(inside)}",))


def _port(name: str, plans: list[PopulationPlan]) -> Text:
    """Which projections drive a port."""
    fed = [q.name for p in plans for q in p.ports.get(name, [])]
    unfed = [p.name for p in plans if not p.ports.get(name)]
    drives: Text = ("drive of ", *named(fed)) if fed else ()
    zero: Text = ("0 (no projection)",) if not fed else ("0 in ", *named(unfed)) if unfed else ()
    return (maths.symbol(name), " = ", *joined([drives, zero]))


def _clamped(name: str, circuit: Circuit, plans: list[PopulationPlan]) -> Text:
    """In which populations a phase clamps an input."""
    clamped = {population for phase in circuit.plan.phases for population, variable in phase.clamps if variable == name}
    free = [p.name for p in plans if p.name not in clamped]
    if len(free) == len(plans):
        return (maths.symbol(name), " = 0 (not clamped)")
    return (maths.symbol(name), ", set by the protocol", *(("; 0 (not clamped) in ", *named(free)) if free else ()))


def _unit(cell: Cell, p: PopulationPlan, name: str, by: str = "") -> Text:
    """The unit of a variable, as the cell's text writes it where it does."""
    try:
        return (quantities.unit(unit_of(cell, name) + by),)
    except (CircuitError, ValueError, SyntaxError):
        return (quantities.unit(unit_string(p.dimensions.get(name, DIMENSIONLESS))),)
