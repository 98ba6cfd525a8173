"""The phases of a trial: times, clamps, what is plastic, what is held."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from neurosim.description import WINDOW_FIELDS, Loop, Phase, Protocol, RandomSign
from neurosim.equations import seconds
from neurosim.errors import CircuitError, unknown
from neurosim.plan.phase import ONE_STEP, Gate, PhasePlan, Turn
from neurosim.plan.population import PopulationPlan
from neurosim.plan.projection import ProjectionPlan
from neurosim.plan.rules import SharedUnits
from neurosim.plan.shared import check_shared_constants, shared_value


def lower_phases(
    protocol: Protocol,
    populations: Mapping[str, PopulationPlan],
    projections: Mapping[str, ProjectionPlan],
    shared_units: SharedUnits,
    sign: int = 1,
) -> Iterator[PhasePlan]:
    if not protocol.phases:
        raise CircuitError("The protocol has no phase; give Protocol(phases=(Phase('free', '100*ms'),)).")
    expanded = list(_expanded(protocol, populations))
    names = [name for name, _, _, _ in expanded]
    bases = dict.fromkeys(phase.name for _, phase, _, _ in expanded)
    for population in populations.values():
        for hold in population.holds:
            if hold.phase not in (*names, *bases):
                raise CircuitError(
                    f"Population '{population.name}': the hold '{hold.name}' waits for a phase. "
                    f"{unknown('phase', hold.phase, dict.fromkeys([*bases, *names]))}"
                )
    rules = {p.rule.name for p in projections.values() if p.rule}
    for number, (name_of_phase, phase, turn, named) in enumerate(expanded):
        length = seconds(phase.duration)
        if length <= 0:
            raise CircuitError(f"Phase '{phase.name}' lasts {phase.duration}; wanted a positive time.")
        shared = {**dict.fromkeys(shared_units, None), **protocol.shared, **phase.shared}
        for name, value in shared.items():
            if value is None:
                raise CircuitError(
                    f"Phase '{phase.name}' gives no value for the shared variable '{name}'; add it there or to "
                    "Protocol(shared={...})."
                )
        numbers = {
            n: shared_value(n, v, shared_units[n], f"Phase '{phase.name}'") * (sign if isinstance(v, RandomSign) else 1)
            for n, v in shared.items()
        }
        check_shared_constants(populations, numbers, phase.name)
        clamps: dict[tuple[str, str], str] = {}
        for name, source in named.items():
            population, variable = _input(name, populations)
            _check_field(name, source, turn)
            clamps[population, variable] = source
        for name in phase.plastic:
            if name not in rules:
                raise CircuitError(f"Phase '{phase.name}': {unknown('plasticity rule', name, sorted(rules))}")
        plastic = tuple(p.name for p in projections.values() if p.rule and p.rule.name in phase.plastic)
        holds = tuple(
            (p.name, hold)
            for p in populations.values()
            for hold in p.holds
            if hold.phase in (name_of_phase, phase.name)  # of this turn, or of each
        )
        gates = _gates(phase, length, projections, seconds(protocol.dt))
        yield PhasePlan(
            name_of_phase,
            length,
            numbers,
            clamps,
            plastic,
            holds,
            sign,
            turn,
            gates,
            seconds(protocol.dt),
            number,
        )


def _gates(phase: Phase, length: float, projections: Mapping[str, ProjectionPlan], dt: float) -> dict[str, Gate]:
    """The gate of each projection that is not plastic in the whole phase."""
    where, given = f"Phase '{phase.name}'", phase.gate
    if given is None:
        return {}
    if not phase.plastic:
        raise CircuitError(f"{where}: gate = {given!r}, and no rule is plastic in it; give plastic=(...), or no gate.")
    by_rule = dict(given) if isinstance(given, Mapping) else dict.fromkeys(phase.plastic, given)
    gates: dict[str, Gate] = {}
    for rule, gate in by_rule.items():
        if rule not in phase.plastic:
            raise CircuitError(
                f"{where}: a gate for a rule that is not plastic in it. {unknown('rule', rule, phase.plastic)}"
            )
        gates[rule] = gate if gate == ONE_STEP else seconds(gate)
        open_for = dt if gate == ONE_STEP else float(gates[rule])
        if not 0 < open_for <= length:
            raise CircuitError(
                f"{where}: the gate {gate} of rule '{rule}' in a phase of {length * 1e3:g} ms; expected a time above 0 and not "
                "beyond the phase, such as '20*ms', or 'dt' for its last step."
            )
    whole = {rule for rule, gate in gates.items() if gate == length}
    return {
        p.name: gates[p.rule.name]
        for p in projections.values()
        if p.rule and p.rule.name in gates and p.rule.name not in whole
    }


def _expanded(
    protocol: Protocol, populations: Mapping[str, PopulationPlan]
) -> Iterator[tuple[str, Phase, Turn | None, Mapping[str, str]]]:
    """The protocol's phases one after another, those of a loop once per turn, with the turn and all clamps."""
    everywhere = protocol.clamps
    for item in protocol.phases:
        if isinstance(item, Phase):
            yield item.name, item, None, {**everywhere, **item.clamps}
            continue
        kind = type(item).__name__
        if not item.phases:
            raise CircuitError(f"{kind} without a phase; give {kind}((Phase('settle', '200*ms'), ...)).")
        clamps = [{**everywhere, **item.clamps, **phase.clamps} for phase in item.phases]
        for c in clamps:  # names first: the classes are counted by what is clamped to them
            for name in c:
                _input(name, populations)
        classes = _classes(item, clamps, populations) if item.sized_by else 0
        count = item.count(classes)
        for index in range(count):
            turn = Turn(item, index, count, classes)
            for phase, named in zip(item.phases, clamps, strict=True):
                yield f"{phase.name}[{index}]", phase, turn, named


def _classes(loop: Loop, clamps: list[dict[str, str]], populations: Mapping[str, PopulationPlan]) -> int:
    """The number of classes of a loop: cells of what is clamped to the fields that have one value for each."""
    shown = {n.partition(".")[0] for c in clamps for n, source in c.items() if source in loop.sized_by}
    sizes, kind = {populations[p].n for p in shown}, type(loop).__name__
    if len(sizes) != 1:
        got = f"those clamped have {sorted(sizes)} cells" if sizes else "nothing is clamped to it"
        first, *others = map(repr, loop.sized_by)
        raise CircuitError(
            f"{kind} show labels: {got}; wanted inputs of one number of cells, the classes, clamped to {first}"
            f"{f' (or {others[0]})' if others else ''}."
        )
    if sizes == {1}:
        raise CircuitError(f"{kind} over the labels of 1 class; wanted at least two.")
    return sizes.pop()


def _check_field(clamp: str, field: str, turn: Turn | None) -> None:
    """Refuse a field that is not an identifier, or that only `Windows` have."""
    if not field.isidentifier():
        raise CircuitError(
            f"The clamp of '{clamp}' names the field '{field}'; wanted letters, digits and _, "
            "without a digit in front, such as 'image'."
        )
    if field in WINDOW_FIELDS and (turn is None or field not in turn.loop.names):
        raise CircuitError(
            f"The clamp of '{clamp}' names the field '{field}', which has a value inside Windows "
            "alone (so have label, same and multiplicity). Name another one here."
        )


def _input(name: str, populations: Mapping[str, PopulationPlan]) -> tuple[str, str]:
    """``"inp.r"`` -> ("inp", "r"), the input that a clamp names."""
    population, _, variable = name.partition(".")
    if population not in populations:
        raise CircuitError(f"A clamp names '{name}'. {unknown('population', population, populations)}")
    if variable not in populations[population].inputs:
        raise CircuitError(
            f"A clamp names '{name}'. {unknown(f'input of {population}', variable, populations[population].inputs)}"
        )
    return population, variable
