"""A population's equations, checked and put in the order in which a step computes them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import sympy
from brian2.parsing.sympytools import str_to_sympy

from neurosim.description import Population
from neurosim.equations import (
    TIMES,
    CellEquations,
    amount,
    check_constants,
    check_expression,
    check_name,
    check_noise,
    dimensions_of,
    is_condition,
    name_coefficients,
    names_in,
    parse_cell,
    parse_reset,
    quantity,
    seconds,
    substitute,
    timed_names,
    unit_text,
    with_margins,
)
from neurosim.equations.units import Dimension
from neurosim.errors import CircuitError, suggest
from neurosim.plan.names import check_unique
from neurosim.plan.population import SPIKING_VARIABLES, Assignment, PopulationPlan, Spiking
from neurosim.plan.units import check_units, same_unit

#: Cells of a population, which engines count in 32 bits.
MOST_CELLS = 2**31 - 1


def lower_population(
    population: Population, fed: Collection[tuple[str, str]], shared_names: Collection[str]
) -> PopulationPlan:
    cell, where = population.cell, f"Population '{population.name}' (cell '{population.cell.name}')"
    shape = population.n if isinstance(population.n, tuple) else None
    n = population.n if isinstance(population.n, int) else math.prod(population.n)
    if n > MOST_CELLS:
        raise CircuitError(f"{where}: n = {population.n} are {n} cells; wanted at most {MOST_CELLS}.")
    equations = parse_cell(cell.equations, where)
    parameters, dimensions = _parameters(population, equations, where)
    taken = [item.name for item in (*cell.pools, *cell.holds, *cell.derivatives, *cell.overlaps)]
    spiking = _spiking(population, equations, {**dimensions, **equations.dimensions}, parameters, where)
    check_unique(
        f"name in {where}",
        [*equations.dimensions, *parameters, *taken, *(SPIKING_VARIABLES if spiking else ())],
    )
    for name in (*parameters, *taken):
        check_name(name, where)
    for derivative in cell.derivatives:
        if derivative.of not in equations.states:
            raise CircuitError(
                f"{where}: the derivative '{derivative.name}' is of '{derivative.of}', which is no state."
                f"{suggest(derivative.of, equations.states)}"
            )
    ports = (*cell.ports, *cell.optional_ports)
    for name in (*ports, *cell.inputs):
        if name not in equations.declared:
            raise CircuitError(
                f"{where}: '{name}' is listed as a port or an input but the equations do not declare it; add a line "
                f"'{name} : 1' (with its unit).{suggest(name, equations.declared)}"
            )
    for name in equations.declared:
        if name not in ports and name not in cell.inputs and name not in parameters:
            raise CircuitError(
                f"{where}: the line '{name} : ...' declares a variable that nothing sets; list it in `ports`, "
                "`optional_ports`, `inputs` or `parameters`, or mark it (shared)."
            )
    for name in equations.shared:
        if name not in shared_names:
            raise CircuitError(
                f"{where}: the protocol gives no value for the shared variable '{name}'; add it to "
                f"Protocol(shared={{...}}).{suggest(name, shared_names)}"
            )
    for name in cell.ports:
        if (population.name, name) not in fed:
            raise CircuitError(
                f"{where}: no projection feeds the port '{name}'; add Projection(..., target='{population.name}.{name}') "
                "or list the port in `optional_ports` (it then reads 0)."
            )
    assignments = _ordered(equations, population, where)
    dimensions = check_units(equations, assignments, population, dimensions, where)
    divided = [*equations.subexpressions.items(), *((f"d{x}/dt", rhs) for x, rhs in equations.states.items())]
    _check_divisions(divided, parameters, where)
    follows = {a.name: a.expression for a in assignments} | {d.name: d.of for d in cell.derivatives}
    check_noise(equations.states, follows, where)
    check_constants(equations.states, equations.subexpressions, parameters, dimensions, where)
    for name in cell.initial:
        if name not in equations.states:
            raise CircuitError(
                f"{where}: initial value for '{name}', which is no state.{suggest(name, equations.states)}"
            )
    initial = {
        x: amount(cell.initial.get(x, 0.0), equations.dimensions[x], f"{where}: the initial value of '{x}'")
        for x in equations.states
    }
    for name, value in initial.items():
        if np.ndim(value) > 0:
            raise CircuitError(f"{where}: the initial value of '{name}' is an array; wanted one number.")
    extra = SPIKING_VARIABLES if spiking else ()
    if cell.rate not in {*equations.states, *equations.subexpressions, *cell.inputs, *extra}:
        raise CircuitError(
            f"{where}: its rate '{cell.rate}' is no variable of its equations."
            f"{suggest(cell.rate, [*equations.states, *equations.subexpressions])}"
        )
    for port in ports:
        if (population.name, port) not in fed:
            parameters[port] = 0.0
    live = {port for port in ports if (population.name, port) in fed}
    differ = {
        *equations.states,
        *live,
        *cell.inputs,
        *equations.noises,
        *extra,
        *(d.name for d in cell.derivatives),
    }
    differ |= {h.name for h in cell.holds} | {x for x, value in parameters.items() if np.ndim(value) > 0}
    assignments = _pools_of_numbers(assignments, differ, n, shape)
    states, parts = name_coefficients(
        equations.states,
        # A hold is not for naming: the equation of a state reads what is taken in this step, an expression does not.
        {
            *equations.states,
            *equations.noises,
            *_reached(assignments, set(equations.states)),
            *(h.name for h in cell.holds),
        },
    )
    assignments += [Assignment(name, text) for name, text in parts.items()]
    dimensions |= {name: dimensions_of(text, dimensions, where) for name, text in parts.items()}
    late = _reached(assignments, live)
    changing = {*equations.states, *TIMES, *(d.name for d in cell.derivatives), *extra}
    moving = _reached(assignments, live | changing)
    static = {a.name for a in assignments} - moving | set(cell.inputs) | set(parameters)
    prefixed = {n: f"ns_{n}" for n in equations.noises}  # Brian2 would draw an `xi` itself
    states = {x: substitute(text, prefixed) for x, text in states.items()}
    written = {a.name: a.expression for a in assignments} | {
        x: substitute(text, prefixed) for x, text in equations.states.items()
    }
    timed = timed_names({a.name: a.expression for a in assignments})
    states = {x: with_margins(text, written, timed, dimensions) for x, text in states.items()}
    assignments = [replace(a, expression=with_margins(a.expression, written, timed, dimensions)) for a in assignments]
    texts = {a.name: a.expression for a in assignments} | states
    return PopulationPlan(
        population.name, n, cell.rate, states, assignments, late, static, parameters, cell.inputs, equations.shared, cell.holds,
        {x: float(value) for x, value in initial.items()},
        dimensions | {prefixed[n]: dimensions[n] for n in prefixed}, cell.derivatives, tuple(prefixed.values()),
        spiking, {port: () for port in ports if port in live}, shape,
        {name: text for name, text in written.items() if texts[name] != text},
    )  # fmt: skip


def _spiking(
    population: Population, equations: CellEquations, known: dict[str, Dimension], parameters: dict[str, Any],
    where: str,
) -> Spiking | None:  # fmt: skip
    cell = population.cell
    if not cell.threshold:
        for name, given in (("reset", cell.reset), ("(unless refractory)", equations.unless_refractory)):
            if given:
                raise CircuitError(f"{where}: {name} without a threshold; give Cell(threshold='u > theta', ...).")
        return None
    readable = {n: known[n] for n in (*equations.states, *parameters)}
    reset = parse_reset(cell.reset, where)
    for text in (cell.threshold, *(value for _, value in reset)):
        check_expression(text, text, where)
        for name in names_in(text):
            if name not in readable:
                raise CircuitError(
                    f"{where}: '{name}' in '{text}': threshold and reset read states and parameters only."
                    f"{suggest(name, readable)}"
                )
    dimensions_of(cell.threshold, readable, f"{where}: threshold")
    if not is_condition(cell.threshold, readable):
        raise CircuitError(
            f"{where}: the threshold '{cell.threshold}' is no condition; wanted one such as 'u > theta'."
        )
    for name, value in reset:
        if name not in equations.states:
            raise CircuitError(
                f"{where}: the reset changes '{name}', which is no state.{suggest(name, equations.states)}"
            )
        same_unit(dimensions_of(value, readable, where), known[name], f"{where}: reset '{name} = {value}'")
    refractory = seconds(cell.refractory)
    if refractory < 0:
        raise CircuitError(f"{where}: refractory = {cell.refractory}; wanted a time of at least 0.")
    return Spiking(cell.threshold, tuple(reset), refractory, equations.unless_refractory)


def _parameters(
    population: Population, equations: CellEquations, where: str
) -> tuple[dict[str, Any], dict[str, Dimension]]:
    cell = population.cell
    for name in population.parameters:
        if name not in cell.parameters:
            raise CircuitError(f"{where}: unknown parameter '{name}'.{suggest(name, cell.parameters)}")
    values: dict[str, Any] = {}
    dimensions: dict[str, Dimension] = {}
    for name, default in cell.parameters.items():
        _, wanted = quantity(default)
        value, got = quantity(population.parameters.get(name, default))
        if got is not wanted:
            raise CircuitError(
                f"{where}: parameter '{name}' has the unit {unit_text(got)}; wanted {unit_text(wanted)}, as in its "
                f"default {default}."
            )
        if isinstance(value, np.ndarray) and value.shape != (np.prod(population.n),):
            raise CircuitError(
                f"{where}: parameter '{name}' has shape {value.shape}; wanted ({np.prod(population.n)},)."
            )
        if name in equations.states or name in equations.subexpressions:
            raise CircuitError(f"{where}: '{name}' is both a parameter and an equation; rename one of them.")
        values[name], dimensions[name] = value, wanted
    return values, dimensions


def _ordered(equations: CellEquations, population: Population, where: str) -> list[Assignment]:
    """Subexpressions and pools in the order of their dependence."""
    waiting = [Assignment(n, e) for n, e in equations.subexpressions.items()]
    waiting += [Assignment(p.name, p.expression, p.over, p.reduce) for p in population.cell.pools]
    waiting += [Assignment(o.name, o.of, "overlap") for o in population.cell.overlaps]
    ordered: list[Assignment] = []
    while waiting:
        names = {a.name for a in waiting}
        ready = [a for a in waiting if not names_in(a.expression) & names]
        if not ready:
            raise CircuitError(
                f"{where}: {', '.join(sorted(names))} depend on one another in a circle; make one of them a state."
            )
        ordered += ready
        waiting = [a for a in waiting if a not in ready]
    return ordered


def _pools_of_numbers(
    assignments: list[Assignment], differ: set[str], n: int, shape: tuple[int, ...] | None
) -> list[Assignment]:
    """Pools over what is the same in all cells (a parameter, a port that nothing feeds, another pool) written as products: engines sum arrays."""
    differ, moving = set(differ), _reached(assignments, differ)
    found = []
    for a in assignments:
        cells = bool(names_in(a.expression) & differ)
        count = n if a.over == "population" or shape is None else shape[1] * shape[2]
        if not cells and (a.over in ("population", "map") or (a.over == "batch" and a.name not in moving)):
            times = 1 if a.reduce == "max" or (a.over == "batch" and not shape) else count
            a = Assignment(a.name, f"{times}*({a.expression})")
        elif cells and a.over != "population":
            differ.add(a.name)
        found.append(a)
    return found


def _reached(assignments: list[Assignment], start: set[str]) -> set[str]:
    reached: set[str] = set()
    for a in assignments:
        if names_in(a.expression) & (start | reached):
            reached.add(a.name)
    return reached


def _check_divisions(texts: Iterable[tuple[str, str]], parameters: Mapping[str, Any], where: str) -> None:
    """Refuse parameters of 0 that an equation divides by: SymPy's infinities would end in a solution."""
    zeros = {n: sympy.Integer(0) for n, v in parameters.items() if np.any(np.asarray(v) == 0)}
    for name, text in texts:
        used = sorted(names_in(text) & set(zeros))
        values = {sympy.Symbol(n, real=True): zeros[n] for n in used}
        if used and str_to_sympy(text).xreplace(values).has(sympy.zoo, sympy.nan):
            raise CircuitError(
                f"{where}: '{name} = {text}' divides by zero: {' and '.join(f'{n} = 0' for n in used)}. Give another value."
            )
