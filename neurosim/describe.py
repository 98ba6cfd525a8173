"""A circuit in words: populations, equations, projections, rules, protocol."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np

from neurosim.circuit import Circuit
from neurosim.connectivity import Conv2d


def describe(circuit: Circuit) -> str:
    """A text that says what a circuit is made of."""
    plan = circuit.plan
    lines = [circuit.name, "=" * len(circuit.name), *textwrap.wrap(circuit.citation, 100), "", "Populations"]
    for p in circuit.populations:
        n = plan.populations[p.name].n
        maps = " ({} maps of {} x {})".format(*p.n) if isinstance(p.n, tuple) else ""
        lines.append(f"  {p.name}: {n} cells{maps}, {p.cell.name}")
    lines += ["", "Cells"]
    cells: dict[Any, list[Any]] = {}
    for p in circuit.populations:
        values = {**p.cell.parameters, **p.parameters}
        cells.setdefault((p.cell.name, p.cell.equations, str(values)), []).append(p)
    for (cell, _, _), populations in cells.items():
        population = populations[0]
        chosen = plan.populations[population.name]
        lines.append(f"  {cell} (rate {population.cell.rate}): {', '.join(p.name for p in populations)}")
        lines += [f"    {line.strip()}" for line in population.cell.equations.strip().splitlines() if line.strip()]
        lines += [f"    {h.name} = {h.of} at the end of phase {h.phase}" for h in population.cell.holds]
        over = {
            "population": "sum over the population",
            "map": "sum over each map",
            "batch": "sum over each map, mean over the batch,",
        }
        lines += [f"    {pool.name} = {over[pool.over]} of {pool.expression}" for pool in population.cell.pools]
        lines += [f"    {o.name} = overlap of {o.of} between samples" for o in population.cell.overlaps]
        lines += [f"    {d.name} = d{d.of}/dt of the previous step" for d in population.cell.derivatives]
        if chosen.spiking:
            cell_type = population.cell
            lines.append(
                f"    spikes at {cell_type.threshold}: {cell_type.reset or 'no reset'}; refractory {cell_type.refractory}"
            )
        lines += [f"    {n} = {_value(v)}" for n, v in {**population.cell.parameters, **population.parameters}.items()]
        late = [a.name for a in chosen.assignments if a.name in chosen.late]
        lines.append(f"    read after the drives of a step: {', '.join(late) or 'nothing'}")
    lines += ["", "Projections"]
    for q in plan.projections.values():
        tie = f", tied to {q.root}{' transposed' if q.transpose else ''}" if q.root != q.name else ""
        tie += f" times {q.factor:g}" if q.factor != 1 else ""
        rule = f", plastic: {q.rule.rule.name}" if q.rule else ", evolved" if q.name in circuit.evolved else ""
        # Of a kernel only its own numbers: it may be a large matrix.
        kind = str(q.connectivity) if isinstance(q.connectivity, Conv2d) else type(q.connectivity).__name__
        shape = " x ".join(map(str, q.weight_shape if q.shared_kernel else (q.n_pre, q.n_post)))
        lines.append(f"  {q.name}: {q.source}.{q.variable} -> {q.target}.{q.port} ({shape}, {kind}{tie}{rule})")
    lines += ["", "Plasticity"] if any(q.rule for q in plan.projections.values()) else []
    seen: set[tuple[Any, ...]] = set()
    for q in plan.projections.values():
        if q.rule is None or (key := (q.rule.rule.name, q.rule.rhs, *q.rule.rule.parameters.items())) in seen:
            continue
        seen.add(key)
        values = ", ".join(f"{n} = {_value(v)}" for n, v in q.rule.rule.parameters.items())
        lines.append(
            f"  {q.rule.rule.name} ({q.name}, ...): dw/dt = {q.rule.rhs}; {values}; applied: {q.rule.rule.apply}"
            + (f"; low-passed by {q.rule.rule.filter}" if q.rule.rule.filter else "")
            + ("; as the exact inverse correlation of each batch" if q.rule.rule.exact else "")
        )
    lines += ["", "Protocol"]
    for phase, mirrored in zip(plan.phases, plan.mirrored, strict=True):
        window = phase.window
        if window is not None and window.index > 0:
            continue
        shared = ", ".join(f"{n} = {'' if v == mirrored.shared[n] else '+-'}{v:g}" for n, v in phase.shared.items())
        plastic = ", ".join(dict.fromkeys(plan.projections[n].rule.rule.name for n in phase.plastic))  # type: ignore[union-attr]
        parts = [f"{phase.seconds * 1e3:g} ms", *([shared] if shared else []), f"plastic: {plastic or 'nothing'}"]
        if window is not None:
            shown = {
                "all": f"each of the {window.classes} labels",
                "true_and_random": "the sample's own label, then a wrong one",
                "true": "the sample's own label",
            }[window.labels]
            parts.append(f"one window for {shown}")
        lines.append(f"  {phase.base}{'[k]' if window else ''}: {'; '.join(parts)}")
    clamps = {f"{p}.{v}": s for phase in plan.phases for (p, v), s in phase.clamps.items()}
    if clamps:
        lines.append("  clamps: " + ", ".join(f"{n} <- {s}" for n, s in clamps.items()))
    scheme = circuit.relaxation
    if scheme is not None:
        sweeps = ", ".join(f"{count} in {phase}" for phase, count in scheme.sweeps.items())
        lines.append(
            f"  published relaxation (steady level): {' > '.join(scheme.order)}; sweeps: {sweeps}; step {scheme.dt}"
        )
    if circuit.readout:
        what = "largest " if circuit.readout.wanted == "target" else "the picture "
        lines.append(f"  readout: {what}{circuit.readout.variable} at the end of phase {circuit.readout.phase}")
    return "\n".join(lines)


def _value(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"array of {len(value)}"
    return f"{value:.10g}" if isinstance(value, float) else f"{value}"
