"""What a report of a circuit says, after the tables of Nordlie, Gewaltig & Plesser 2009."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from neurosim._version import __version__
from neurosim.circuit import Circuit
from neurosim.describe import quantities, references
from neurosim.describe.cell_types import cell_type_section, cell_types, notation_blocks
from neurosim.describe.document import Block, Cite, Document, Maths, Name, Paragraph, Section, Table, Text
from neurosim.describe.pieces import (
    NOTHING,
    counted,
    joined,
    listing,
    named,
    product,
    weight_unit,
)
from neurosim.describe.protocol import field_texts, measurement_table, numerics_blocks, protocol_blocks, readout_text
from neurosim.describe.rules import rule_section, rule_variants
from neurosim.description import (
    ONE,
    Citation,
    Constant,
    Given,
    Glorot,
    Gram,
    Like,
    OneToOne,
    Orthogonal,
    Population,
    Projection,
    Uniform,
)
from neurosim.equations.units import DIMENSIONLESS
from neurosim.plan import Plan, PopulationPlan, ProjectionPlan


def report(circuit: Circuit) -> Document:
    """The report of a circuit, as data."""
    software = references.software(__version__)
    types, rules = cell_types(circuit), rule_variants(circuit)
    sections = [
        Section("Model summary", (_summary(circuit, software, types, rules),), "A"),
        Section("Populations", (_populations(circuit, types),), "B"),
        Section("Connectivity", _connectivity(circuit, rules), "C"),
        Section("Cell types", notation_blocks(circuit), "D"),
        *(cell_type_section(circuit, label, populations) for label, populations in types.items()),
        Section("Plasticity", () if rules else (Paragraph(NOTHING),), "E"),
        *(rule_section(circuit, label, variant) for label, variant in rules.items()),
        Section("Input and protocol", protocol_blocks(circuit), "F"),
        Section("Measurements", (measurement_table(circuit),), "G"),
        Section("Numerical scheme", numerics_blocks(circuit), "H"),
    ]
    known = {c.key for c in circuit.citations}
    return Document(circuit.name, tuple(sections), (*circuit.citations, *(r for r in software if r.key not in known)))


def _summary(
    circuit: Circuit, software: tuple[Citation, ...],
    types: Mapping[str, list[Population]], rules: Mapping[str, list[ProjectionPlan]],
) -> Table:  # fmt: skip
    plan = circuit.plan
    constant = [p.name for p in circuit.populations if p.cell == ONE]
    populations = [p for p in plan.populations.values() if p.name not in constant]
    cells = sum(p.n for p in populations)
    biases: Text = ("; the constant source of the biases: ", *named(constant)) if constant else ()
    counts = {label: len(group) for label, group in types.items() if group[0].cell != ONE}
    kinds = Counter(q.connectivity.text(*q.cells).partition(",")[0] for q in plan.projections.values())
    owned = [q for q in plan.projections.values() if q.root == q.name]
    weights = {
        "in all": sum(int(np.prod(q.weight_shape)) for q in owned),
        "plastic": sum(int(np.prod(q.weight_shape)) for q, _ in plan.plastic()),
        "evolved": sum(int(np.prod(q.weight_shape)) for q in owned if q.name in circuit.evolved),
    }
    spiking = [label for label, group in types.items() if group[0].cell.threshold]
    keys = [r.key for r in software]
    versions = {package: references.installed(package) for package in ("brian2", "torch", "numpy")}
    dependence = "no fixed point: spikes, noise or explicit time" if not plan.has_fixed_point else "a rate model"
    return listing(
        [
            ("Model", (Name(circuit.name),)),
            ("Source", _source(circuit.citations)),
            ("Populations", (f"{counted(len(populations), 'population')}, {counted(cells, 'cell')}", *biases)),
            ("Topology", ("maps of cells, see populations" if any(p.shape for p in plan.populations.values()) else "none",)),
            ("Connectivity", joined([(f"{kind}: {count}",) for kind, count in kinds.items()], ", ") or NOTHING),
            ("Weights", (", ".join(f"{count:,} {what}" for what, count in weights.items() if count or what == "in all"),)),
            ("Cell types", joined([(f"{label} ({counted(count, 'population')})",) for label, count in counts.items()], ", ")),
            ("Kind of model", (f"spiking cells: {', '.join(spiking)}" if spiking else dependence,)),
            ("Plasticity", named(rules) or NOTHING),
            ("Input", joined(field_texts(plan)) or NOTHING),
            ("Measurements", readout_text(circuit) or NOTHING),
            ("Software", (
                f"neurosim {software[0].fields['version']} ", Cite((keys[0],)), f"; Brian2 {versions['brian2']} ", Cite((keys[1],)),
                f"; PyTorch {versions['torch']} ", Cite((keys[2],)), f"; NumPy {versions['numpy']} ", Cite((keys[3],)),
                ". The tables follow ", Cite((keys[4],)), ".",
            )),
        ]
    )  # fmt: skip


def _source(citations: tuple[Citation, ...]) -> Text:
    """The papers, and the notes on what is read in them and what is a reconstruction."""
    papers: list[Text] = []
    for citation in citations:
        note = " ".join(citation.note.split())
        note = f": {note.removesuffix('.')}." if note else "."
        papers.append((f"{references.short(citation)} ", Cite((citation.key,)), note))
    return joined(papers, " ") or ("no source given",)


def _populations(circuit: Circuit, types: Mapping[str, list[Population]]) -> Table:
    labels = {p.name: label for label, group in types.items() for p in group}
    rows = []
    for p in circuit.populations:
        chosen: PopulationPlan = circuit.plan.populations[p.name]
        maps: Text = (": ", product(chosen.shape), " (maps, height, width)") if chosen.shape else ()
        rows.append(((Name(p.name),), (counted(chosen.n, "cell"), *maps), (labels[p.name],)))
    return Table(("Population", "Size", "Cell type"), tuple(rows), (0.25, 0.45, 0.3))


def _connectivity(circuit: Circuit, rules: Mapping[str, list[ProjectionPlan]]) -> tuple[Block, ...]:
    plan = circuit.plan
    if not plan.projections:
        return (Paragraph(NOTHING),)
    labels = {q.name: label for label, variant in rules.items() for q in variant}
    given = {p.name: p for p in circuit.projections}
    rows = []
    for name in given:  # in the order of writing
        q: ProjectionPlan = plan.projections[name]
        if q.rule:
            change: Text = (Name(labels[name]),)
        elif name in circuit.evolved:
            change = ("evolved",)
        else:
            change = ("tied",) if q.root != name else ("fixed",)
        rows.append(
            (
                (Name(name),), (Name(f"{q.source}.{q.variable}"),), (Name(f"{q.target}.{q.port}"),), _contacts(q),
                _weights(given[name], q, plan), change,
            )
        )  # fmt: skip
    total = Maths("I_j = sum_i w_ij s_i", (r"I_{j} = \sum_{i} w_{i j} \thinspace s_{i}",))
    note = Paragraph(
        ("A projection of weights w adds ", total, " to its target port; s is the variable that the source sends. "
         "Sizes are source ", Maths("x", (r"\times",)), " target.")
    )  # fmt: skip
    header = ("Projection", "Source", "Target", "Connectivity", "Weights at the start", "Plasticity")
    return note, Table(header, tuple(rows), (0.125, 0.13, 0.16, 0.215, 0.23, 0.14))


def _contacts(q: ProjectionPlan) -> Text:
    """The connectivity in words, sizes written as products."""
    spans: list[Any] = []
    for number, part in enumerate(re.split(r"(\d+ x \d+)", q.connectivity.text(*q.cells))):
        spans.append(product(part.split(" x ")) if number % 2 else part)
    return tuple(spans)


def _weights(projection: Projection, q: ProjectionPlan, plan: Plan) -> Text:
    """How the weights start."""
    start, given = q.start, getattr(projection.weights, "__dict__", {}).values()
    if projection.tie:
        return ("tied to ", *_reading(q.root, q.transpose, q.factor))
    if isinstance(start, Like):
        return ("starts as ", *_reading(start.projection, start.transpose, start.factor))

    def shown(numbers: Any) -> Maths:
        return quantities.in_unit(numbers, weight_unit(plan, q, numbers, given))

    shape = (1, q.n_post) if isinstance(q.connectivity, OneToOne) else q.weight_shape
    match start:
        case None:
            return (shown(1.0),)
        case Glorot(gain):
            return _glorot(gain, shape, weight_unit(plan, q, gain, given))
        case Gram(gain):
            unit = quantities.best_unit(gain, q.weight_dimension**0.5)
            return (Maths("A A^T", (r"A A^{\mathsf{T}}",)), ", A from ", *_glorot(gain, shape, unit))
        case Uniform(low, high) if low != high:
            return _uniform(low, high, weight_unit(plan, q, (low, high), given))
        case Uniform(value, _) | Constant(value):
            return (shown(float(value)),)
        case Orthogonal(gain):
            times: Text = (", times ", shown(gain)) if gain != 1 or q.weight_dimension is not DIMENSIONLESS else ()
            return ("orthogonal", *times)
        case Given(values):
            return ("given: ", shown(np.asarray(values, dtype=float)))
    return (f"drawn by {type(start).__name__}", *_suffix(weight_unit(plan, q, 0.0)))


def _glorot(gain: float, shape: tuple[int, ...], unit: str) -> Text:
    limit = float(f"{gain * np.sqrt(6.0 / (shape[0] + shape[1])):.4g}")
    return (*_uniform(-limit, limit, unit), " (Glorot, gain ", quantities.in_unit(gain, unit), ")")


def _uniform(low: float, high: float, unit: str) -> Text:
    a, b = (quantities.bare(x, unit) for x in (low, high))
    return (Maths(f"U({a.plain}, {b.plain})", (rf"\mathcal{{U}} ( {a.latex}, {b.latex} )",)), *_suffix(unit))


def _suffix(unit: str) -> Text:
    return (" ", quantities.unit(unit)) if unit != "1" else ()


def _reading(name: str, transpose: bool, factor: float) -> Text:
    """Weights of another projection, as they are read."""
    times = f" times {factor:g}" if factor != 1 else ""
    return (Name(name), f"{' transposed' if transpose else ''}{times}")
