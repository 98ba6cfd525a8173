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
    parameters: dict[str, Dimension],
    where: str,
) -> dict[str, Dimension]:
    """The unit of every name that an equation may read, each line checked against the unit that it states."""
    second = quantity("1*second")[1]
    known = {**parameters, **equations.dimensions, "dt": second, **dict.fromkeys(TIMES, second)}
    known |= {n: second**-0.5 for n in equations.noises}
    if population.cell.threshold:
        known |= {"spike_train": second**-1, "lastspike": second}
    _check_marked(equations, population, where)
    texts = {**equations.subexpressions, **{r.name: r.expression for r in equations.reduced}}
    texts |= {f"d{x}/dt": rhs for x, rhs in equations.states.items()}
    for name, text in texts.items():
        for other in names_in(text):
            if other not in known:
                raise CircuitError(
                    f"{where}: unknown variable '{other}' in '{name} = {text}'.{suggest(other, known)} "
                    "Declare it as a parameter, or by a line with its role: (port), (optional port), (input), (shared)."
                )
    for a in assignments:
        shown = f"{where}: '{a.name} = {f'{a.word}({a.expression})' if a.word else a.expression}'"
        same_unit(dimensions_of(a.expression, known, where), known[a.name], shown)
        if a.word == "overlap":
            same_unit(known[a.name], DIMENSIONLESS, f"{where}: the overlap '{a.name}'")
    for hold in equations.holds:
        same_unit(known[hold.of], known[hold.name], f"{where}: '{hold.name} = hold({hold.of}, {hold.phase})'")
    for d in equations.derivatives:
        same_unit(known[d.of] / second, known[d.name], f"{where}: '{d.name} = derivative({d.of})'")
    for name, text in equations.states.items():
        same_unit(dimensions_of(text, known, where), known[name] / second, f"{where}: 'd{name}/dt = {text}'")
    return known


def _check_marked(equations: CellEquations, population: Population, where: str) -> None:
    """Refuse reductions and holds of what is not there."""
    variables = [
        n for n in equations.dimensions if n not in {m.name for m in (*equations.holds, *equations.derivatives)}
    ]
    for hold in equations.holds:
        if hold.of not in variables:
            raise CircuitError(
                f"{where}: the hold '{hold.name}' takes '{hold.of}', which is no variable of the cell that can be held."
                f"{suggest(hold.of, variables)}"
            )
    for r in equations.reduced:
        check_expression(r.expression, f"{r.name} = {r.word}({r.expression})", where)
        if r.word == "overlap" and r.expression not in equations.dimensions:
            raise CircuitError(
                f"{where}: the overlap '{r.name}' is of '{r.expression}', which is no variable of the cell."
                f"{suggest(r.expression, equations.dimensions)}"
            )
        if r.axis == "map" and not isinstance(population.n, tuple):
            raise CircuitError(
                f"{where}: '{r.name}' runs over maps, but the population has none; give n = (maps, height, width)."
            )
        if any(is_noise(n) for n in names_in(r.expression)):
            raise CircuitError(f"{where}: white noise in '{r.name}'; noise enters the equation of a state.")


def same_unit(
    got: Dimension, wanted: Dimension, where: str, cure: str = "Check the units of its parameters and ports."
) -> None:
    """Refuse a right-hand side whose unit is not the one that its line states."""
    if got is not wanted:
        raise CircuitError(
            f"{where}: the right-hand side has the unit {unit_text(got)}; wanted {unit_text(wanted)}. {cure}"
        )
