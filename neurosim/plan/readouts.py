"""What a circuit reads, measures and compares itself with."""

from __future__ import annotations

from neurosim.description import Angle, Ratio, Silent
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
        if isinstance(measure, Ratio | Silent):
            for variable in (*measure.of, *measure.to) if isinstance(measure, Ratio) else (measure.variable,):
                plan.variable(variable)
            names = [p.name for p in plan.phases]
            if measure.phase not in names:
                raise CircuitError(f"Measure '{name}': {unknown('phase', measure.phase, names)}")
            if readout is not None and names.index(measure.phase) > names.index(readout.phase):
                raise CircuitError(
                    f"Measure '{name}' is taken in phase '{measure.phase}'; to evaluate, a trial ends with the readout's phase, "
                    f"'{readout.phase}'. Take it there or before."
                )
            continue
        owners = [p.name for p in plan.projections.values() if p.root == p.name]
        for projection in (measure.of, measure.to) if isinstance(measure, Angle) else (measure.of,):
            if projection not in owners:
                raise CircuitError(
                    f"Measure '{name}': {unknown('projection with weights of its own', projection, owners)}"
                )
        of = plan.projections[measure.of]
        to = plan.projections[measure.to] if isinstance(measure, Angle) else of
        if of.weight_shape != to.weight_shape[::-1]:
            what = "one shape, once the second is transposed" if isinstance(measure, Angle) else "square weights"
            raise CircuitError(
                f"Measure '{name}': weights of {' x '.join(map(str, of.weight_shape))} ('{of.name}') and {' x '.join(map(str, to.weight_shape))} ('{to.name}'); wanted {what}."
            )
    if plan.circuit.reference is not None:
        for name in (*plan.circuit.reference.weights, *plan.circuit.reference.biases):
            if name and name not in plan.projections:
                raise CircuitError(f"Reference: {unknown('projection', name, plan.projections)}")


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
