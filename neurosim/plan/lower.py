"""From a circuit to its plan, pass by pass."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from neurosim.description import RandomSign
from neurosim.equations import parse_cell
from neurosim.plan.cells import described as where
from neurosim.plan.cells import lower_population
from neurosim.plan.names import check_names, check_target
from neurosim.plan.phases import lower_phases
from neurosim.plan.plan import Plan
from neurosim.plan.projections import lower_projections
from neurosim.plan.readouts import check_readout, check_relaxation
from neurosim.plan.shared import given_values, shared_names, shared_units

if TYPE_CHECKING:
    from neurosim.circuit import Circuit


def lower(circuit: Circuit) -> Plan:
    """Check a circuit and derive what its engines need.

    Raises
    ------
    CircuitError
        See `Circuit`.
    """
    protocol, described = circuit.protocol, circuit.projections
    check_names(circuit.populations, described, protocol)
    names = shared_names(protocol, circuit.name)
    texts = {p.name: parse_cell(p.cell.equations, where(p)) for p in circuit.populations}
    for projection in described:
        check_target(projection, texts)
    fed = {(p.target_population, p.port) for p in described}
    populations = {p.name: lower_population(p, texts[p.name], fed, names) for p in circuit.populations}
    given = given_values(protocol)
    units = shared_units(populations, names, given)
    sizes = {p.name: int(np.prod(p.n)) for p in circuit.populations}
    projections = lower_projections(described, populations, sizes, units)
    for name, population in populations.items():
        ports = {
            port: tuple(q for q in projections.values() if (q.target, q.port) == (name, port))
            for port in population.ports
        }
        populations[name] = replace(population, ports=ports)
    phases = mirrored = tuple(lower_phases(protocol, populations, projections, units))
    if any(isinstance(value, RandomSign) for _, value, _ in given):
        mirrored = tuple(lower_phases(protocol, populations, projections, units, sign=-1))
    plan = Plan(circuit, populations, projections, phases, mirrored, units)
    check_readout(plan)
    check_relaxation(plan)
    return plan
