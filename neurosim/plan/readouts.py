"""What a circuit reads, measures and compares itself with."""

from __future__ import annotations

from neurosim.description import Measure
from neurosim.equations import seconds
from neurosim.errors import CircuitError, unknown
from neurosim.plan.plan import Plan


def check_readout(plan: Plan) -> None:
    """Refuse readouts, measures and references of what is not there."""
    readout = plan.circuit.readout
    if readout is not None:
        plan.variable(readout.variable)
        if readout.phase not in [p.name for p in plan.phases]:
            raise CircuitError(f"Readout: {unknown('phase', readout.phase, [p.name for p in plan.phases])}")
    for name, measure in plan.circuit.measures.items():
        _check_measure(name, measure, plan)
    if plan.circuit.reference is not None:
        for name in (*plan.circuit.reference.weights, *plan.circuit.reference.biases):
            if name and name not in plan.projections:
                raise CircuitError(f"Reference: {unknown('projection', name, plan.projections)}")


def _check_measure(name: str, measure: Measure, plan: Plan) -> None:
    """Refuse a measure of what is not there, or is not there in time."""
    reads, readout = measure.reads(), plan.circuit.readout
    if reads.phase is None:
        owners = {p.name: p.weight_shape for p in plan.projections.values() if p.root == p.name}
        for projection in reads.names:
            if projection not in owners:
                raise CircuitError(
                    f"Measure '{name}': {unknown('projection with weights of its own', projection, owners)}"
                )
        if expected := measure.misfit({n: owners[n] for n in reads.names}):
            got = " and ".join(f"{' x '.join(map(str, owners[n]))} ('{n}')" for n in reads.names)
            raise CircuitError(f"Measure '{name}': weights of {got}; expected {expected}.")
        return
    for variable in reads.names:
        plan.variable(variable)
    names = [p.name for p in plan.phases]
    if reads.phase not in names:
        raise CircuitError(f"Measure '{name}': {unknown('phase', reads.phase, names)}")
    if readout is not None and names.index(reads.phase) > names.index(readout.phase):
        raise CircuitError(
            f"Measure '{name}' is taken in phase '{reads.phase}'; to evaluate, a trial ends with the readout's phase, "
            f"'{readout.phase}'. Take it there or before."
        )


def check_relaxation(plan: Plan) -> None:
    """Refuse a relaxation that leaves populations out or names what is not there."""
    scheme = plan.circuit.relaxation
    if scheme is None:
        return
    with_states = [p.name for p in plan.populations.values() if p.ode]
    for name in (*scheme.order, *scheme.instant, *scheme.unslowed):
        if name not in with_states:
            raise CircuitError(f"Relaxation: {unknown('population with states', name, with_states)}")
    if sorted(scheme.order) != sorted(with_states):
        raise CircuitError(
            f"Relaxation: the order {', '.join(scheme.order)} must visit each population with states once: "
            f"{', '.join(with_states)}."
        )
    names = [p.name for p in plan.phases]
    for phase in (*scheme.sweeps, *scheme.restart):
        if phase not in names:
            raise CircuitError(f"Relaxation: {unknown('phase', phase, names)}")
    for restart in scheme.restart.values():
        for state, variable in restart.items():
            population, of = plan.variable(state)
            plan.variable(f"{population}.{variable}")
            if of not in plan.populations[population].ode:
                raise CircuitError(f"Relaxation: restart of '{state}', which is no state.")
    if names[0] in scheme.restart:
        raise CircuitError(
            f"Relaxation: restart in the first phase, '{names[0]}': there is nothing yet to restart from."
        )
    plan.check_step(seconds(scheme.dt))
