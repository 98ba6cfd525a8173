"""The units of a cell's equations."""

from __future__ import annotations

from neurosim.description import Population
from neurosim.equations import (
    TIMES,
    CellEquations,
    check_expression,
    dimensions_of,
    is_noise,
    names_in,
    quantity,
    unit_text,
)
from neurosim.equations.units import DIMENSIONLESS, Dimension
from neurosim.errors import CircuitError, suggest
from neurosim.plan.population import Assignment


def check_units(
    equations: CellEquations,
    assignments: list[Assignment],
    population: Population,
    known: dict[str, Dimension],
    where: str,
) -> dict[str, Dimension]:
    cell = population.cell
    known = {**known, **equations.dimensions}
    texts = [(n, e) for n, e in equations.subexpressions.items()] + [(p.name, p.expression) for p in cell.pools]
    texts += [(f"d{x}/dt", rhs) for x, rhs in equations.states.items()]
    pools = {p.name for p in (*cell.pools, *cell.overlaps)}
    for hold in cell.holds:
        if hold.of not in equations.dimensions and hold.of not in pools:
            raise CircuitError(
                f"{where}: the hold '{hold.name}' takes '{hold.of}', which is no variable of the cell."
                f"{suggest(hold.of, [*equations.dimensions, *pools])}"
            )
    second = quantity("1*second")[1]
    known |= {h.name: equations.dimensions[h.of] for h in cell.holds if h.of not in pools}
    known |= {d.name: equations.dimensions[d.of] / second for d in cell.derivatives}
    known |= {"dt": second, **dict.fromkeys(TIMES, second), **{n: second**-0.5 for n in equations.noises}}
    if cell.threshold:
        known |= {"spike_train": second**-1, "lastspike": second}
    for overlap in cell.overlaps:
        if overlap.of not in known:
            raise CircuitError(
                f"{where}: the overlap '{overlap.name}' is of '{overlap.of}', which is no variable of the cell."
                f"{suggest(overlap.of, known)}"
            )
    for pool in cell.pools:
        check_expression(pool.expression, f"{pool.name} = {pool.expression}", where)
        if pool.reduce == "max" and pool.over == "batch":
            raise CircuitError(
                f"{where}: the pool '{pool.name}' takes the maximum over a batch, which is a mean over samples; use "
                "over='population' or 'map', or reduce='sum'."
            )
        if pool.over == "map" and not isinstance(population.n, tuple | list):
            raise CircuitError(
                f"{where}: the pool '{pool.name}' sums over maps, but the population has none; give n = (maps, height, width)."
            )
        if any(is_noise(n) for n in names_in(pool.expression)):
            raise CircuitError(f"{where}: white noise in the pool '{pool.name}'; noise enters the equation of a state.")
    held = {h.name: h.of for h in cell.holds if h.of in pools}
    for name, text in texts:
        for other in names_in(text):
            if other not in known and other not in pools and other not in held:
                raise CircuitError(
                    f"{where}: unknown variable '{other}' in '{name} = {text}'.{suggest(other, [*known, *pools])} "
                    "Declare it as a parameter, a port, an input, a pool, or '(shared)'."
                )
    for assignment in assignments:  # in the order of dependence: a pool may sum what another pool made
        if assignment.over:
            read = sorted(names_in(assignment.expression) & set(held) - set(known))
            if read:
                raise CircuitError(
                    f"{where}: the pool '{assignment.name}' reads '{read[0]}', a hold of the pool '{held[read[0]]}' "
                    "that comes after it; give the value a subexpression with its unit, and hold that."
                )
            known[assignment.name] = dimensions_of(assignment.expression, known, where)
            known |= {h: known[assignment.name] for h, of in held.items() if of == assignment.name}
        if assignment.over == "overlap":
            same_unit(known[assignment.name], DIMENSIONLESS, f"{where}: the overlap '{assignment.name}'")
    for name, text in equations.subexpressions.items():
        same_unit(dimensions_of(text, known, where), equations.dimensions[name], f"{where}: '{name} = {text}'")
    for name, text in equations.states.items():
        got = dimensions_of(text, known, where)
        wanted = equations.dimensions[name] / quantity("1*second")[1]
        same_unit(got, wanted, f"{where}: 'd{name}/dt = {text}'")
    return known


def same_unit(
    got: Dimension, wanted: Dimension, where: str, cure: str = "Check the units of its parameters and ports."
) -> None:
    if got is not wanted:
        raise CircuitError(
            f"{where}: the right-hand side has the unit {unit_text(got)}; wanted {unit_text(wanted)}. {cure}"
        )
