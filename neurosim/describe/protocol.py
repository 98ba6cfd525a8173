"""Protocol, measurements and numerical scheme in a report."""

from __future__ import annotations

from typing import Any

from neurosim.circuit import Circuit
from neurosim.describe import maths, quantities
from neurosim.describe.document import Block, Maths, Name, Paragraph, Table, Text
from neurosim.describe.pieces import (
    NOTHING,
    backticked,
    counted,
    duration,
    grouped,
    joined,
    listing,
    named,
)
from neurosim.description import WINDOW_FIELDS
from neurosim.equations import seconds, unit_text
from neurosim.equations.units import DIMENSIONLESS
from neurosim.plan import ONE_STEP, Plan

#: What the fields of a clamp are.
FIELDS = {
    "image": "the stimulus",
    "target": "what is wanted, one-hot of the sample's class where there are classes",
    "label": "the window's label, one-hot",
    "same": "1 where the window's label is the sample's own, else 0",
    "multiplicity": "number of classes that the window stands for",
}
#: What any other field of a clamp is.
OTHER = "a field of the stimulus"


def _gate(gate: float | str | None) -> Text:
    """When in a phase a rule is on."""
    if gate is None:
        return ()
    return (" (last step)",) if gate == ONE_STEP else (" (last ", duration(float(gate)), ")")


def field_texts(plan: Plan) -> list[Text]:
    """The fields that stimuli have, with their sizes and units; then those of windows."""
    texts: list[Text] = []
    for (field, size), variable in sorted(plan.clamped_sizes.items()):
        population, _, name = variable.partition(".")
        unit = unit_text(plan.populations[population].dimensions[name])
        values = f", {counted(size, 'value')}{f' in {unit}' if unit != '1' else ''}"
        texts.append((Name(field), f": {FIELDS.get(field, OTHER)}{values}"))
    clamped = {field for phase in plan.phases for field in phase.clamps.values()}
    return texts + [(Name(f), f": {FIELDS[f]}") for f in WINDOW_FIELDS if f in clamped]


def protocol_blocks(circuit: Circuit) -> tuple[Block, ...]:
    """Clamps, phases, and how trials follow one another."""
    plan = circuit.plan
    blocks: list[Block] = []
    shown = [(p, m) for p, m in zip(plan.phases, plan.mirrored, strict=True) if p.turn is None or p.turn.index == 0]
    clamps = dict.fromkeys((f"{p}.{v}", field) for phase, _ in shown for (p, v), field in phase.clamps.items())

    def held(clamp: tuple[str, str]) -> tuple[str, ...]:
        """The phases of a clamp."""
        return tuple(p.base for p, _ in shown if clamp in {(f"{n}.{v}", field) for (n, v), field in p.clamps.items()})

    rows = []
    for group in grouped(clamps, lambda clamp: (clamp[1], held(clamp))):
        phases, field = held(group[0]), group[0][1]
        everywhere = len(phases) == len(shown)
        to: Text = (Name(field), f": {FIELDS.get(field, OTHER)}")
        rows.append((named(name for name, _ in group), to, ("all",) if everywhere else named(phases)))
    if rows:
        blocks.append(Table(("Clamped variables", "To", "Phases"), tuple(rows), (0.35, 0.4, 0.25)))
    random = [v for p, m in shown for n, v in p.shared.items() if v != m.shared[n]]
    drawn = next(iter(random), 0.0)
    rows = []
    for phase, mirror in shown:
        signs = {n: drawn if v != mirror.shared[n] else 0.0 for n, v in phase.shared.items()}
        values = joined(((Name(n), " = ", _shared(plan, n, v, signs[n])) for n, v in phase.shared.items()), ", ")
        rules = dict.fromkeys((plan.rules[n].name, phase.gates.get(n)) for n in phase.plastic)
        plastic = joined(((Name(rule), *_gate(gate)) for rule, gate in rules), ", ")
        name = (Name(phase.base), *(("[k]",) if phase.turn else ()))
        rows.append((name, (duration(phase.seconds),), values or ("-",), plastic or ("nothing",)))
    blocks.append(Table(("Phase", "Duration", "Shared values", "Plastic"), tuple(rows), (0.2, 0.15, 0.35, 0.3)))
    turn = next((phase.turn for phase, _ in shown if phase.turn), None)
    notes: list[Text] = []
    if turn is not None:
        inside = named(phase.base for phase, _ in shown if phase.turn)
        notes.append(("Phases ", *inside, " repeat: ", turn.loop.text(turn.classes)))
    if random:
        other: Text = (" (", Maths("∓", (r"\mp",)), ": the other one)") if any(v * drawn < 0 for v in random) else ()
        notes.append(("Values with ", Maths("±", (r"\pm",)), " have a sign drawn anew for each trial", *other))
    reset = circuit.protocol.reset
    total = duration(sum(phase.seconds for phase in plan.phases))
    notes.append(
        (
            "A trial lasts ",
            total,
            " and starts from the initial states" if reset else " and goes on from the states of the last one",
        )
    )
    blocks.append(Paragraph((*joined(notes, ". "), ".")))
    return tuple(blocks)


def _shared(plan: Plan, name: str, value: float, drawn: float) -> Maths:
    """A shared value, in the unit in which the cells read it; where its sign is random, ± or, opposite to the value `drawn`, ∓."""
    read = {p.dimensions[name] for p in plan.populations.values() if name in p.shared}
    dimension = read.pop() if len(read) == 1 else DIMENSIONLESS
    if not drawn:
        return quantities.of_number(value, dimension)
    size = quantities.of_number(abs(value), dimension)
    sign, command = ("±", r"\pm") if value * drawn > 0 else ("∓", r"\mp")
    return Maths(f"{sign}{size.plain}", (f"{command} {size.latex}",))


def readout_text(circuit: Circuit) -> Text:
    """Where the answer is read; nothing where there is none."""
    readout = circuit.readout
    if readout is None:
        return ()
    what = "largest of " if readout.wanted == "target" else "picture: "
    return (what, Name(readout.variable), " at the end of phase ", Name(readout.phase))


def measurement_table(circuit: Circuit) -> Table:
    """Readout, loss, measures, and the net that updates are compared with."""
    loss = {
        "squared": "half the squared distance to what is wanted",
        "cross_entropy": "cross-entropy",
        "mean_squared": "mean squared distance to what is wanted",
    }
    rows: list[tuple[str | Text, Text]] = [("Readout", readout_text(circuit) or NOTHING)]
    if circuit.readout is not None:
        rows.append(("Loss reported", (loss[circuit.readout.loss],)))
    for name, measure in circuit.measures.items():
        rows.append(((Name(name),), backticked(measure.text())))
    net = circuit.reference
    if net is not None:
        biases = named(b for b in net.biases if b)
        gradient = "cross-entropy of a softmax" if net.loss == "cross_entropy" else "loss given by its gradient"
        transfers = dict.fromkeys(net.transfers)
        formulas = joined([(maths.formula(t),) for t in transfers], ", ")
        error: Text = () if net.loss == "cross_entropy" else (", error ", maths.formula(net.error))
        text = (
            "feed-forward net of ",
            *named(net.weights),
            *((", biases ", *biases) if biases else ()),
            "; transfer ",
            *formulas,
            f"; {gradient}",
            *error,
        )
        rows.append(("Update compared with backprop in", text))
    return listing(rows)


def numerics_blocks(circuit: Circuit) -> tuple[Block, ...]:
    """Integration, the order inside a step, a published relaxation."""
    plan, scheme = circuit.plan, circuit.relaxation
    step = seconds(circuit.protocol.dt)
    spiking = any(p.spiking for p in plan.populations.values())
    rows: list[tuple[str | Text, Text]] = [
        ("Integration", ("forward Euler",)),
        ("Step", (Maths(f"dt = {quantities.value(circuit.protocol.dt).plain}", (rf"\Delta t = {quantities.value(circuit.protocol.dt).latex}",)),)),
        ("Steps of a trial", (f"{round(sum(p.seconds for p in plan.phases) / step):,}",)),
        ("Order in a step", (
            "clamps and shared values; pools; variables that follow from states; drives of the projections; late variables; held values; "
            f"weights; states{'; thresholds; resets' if spiking else ''}",
        )),
        ("Spikes in a step", _spikes(circuit) if spiking else ()),
    ]  # fmt: skip
    if plan.has_fixed_point:
        rows.append(
            ("Steady level", ("each phase at the fixed point of the equations, in place of the integration in time",))
        )
    if scheme is not None:
        sweeps = joined([((f"{count} in ", Name(phase))) for phase, count in scheme.sweeps.items()], ", ")
        rows += [
            ("Published relaxation", ("each sweep visits ", *named(scheme.order), " in this order")),
            ("Sweeps", sweeps),
            ("Step of a sweep", _relaxation_step(scheme)),
            ("Follow at once", named(scheme.instant)),
            ("Set anew", joined([
                (Name(state), " to ", Name(of), " as phase ", Name(phase), " begins") for phase, states in scheme.restart.items() for state, of in states.items()
            ])),
        ]  # fmt: skip
    return (listing(rows),)


def _spikes(circuit: Circuit) -> Text:
    """What happens when in a spike, as in every trajectory level."""
    return (
        "thresholds are compared with the new states, in cells that are not refractory; a cell that spikes is reset in the same step. Its ",
        maths.symbol("spike_train"), " is ", Maths("1/dt", (r"1 / \Delta t",)), " in the next step and 0 in all others, so that a spike reaches its "
        "targets, and rules that read it, one step later: a delay of ", quantities.value(circuit.protocol.dt),
    )  # fmt: skip


def _relaxation_step(scheme: Any) -> Text:
    dt = quantities.value(scheme.dt)
    if not scheme.slowing:
        return (dt,)
    floor = quantities.value(scheme.floor)
    text = f"max({dt.plain}/(1 + {scheme.slowing:g} s), {floor.plain})"
    latex = rf"\max \left( \frac{{{dt.latex}}}{{1 + {quantities.number_latex(scheme.slowing)} \thinspace s}}, {floor.latex} \right)"
    rest: Text = ("; ", dt, " for ", *named(scheme.unslowed)) if scheme.unslowed else ()
    return (Maths(text, (latex,)), " in sweep s = 0, 1, ...", *rest)
