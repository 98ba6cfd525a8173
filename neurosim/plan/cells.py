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


def described(population: Population) -> str:
    """How messages name a population."""
    return f"Population '{population.name}' (cell '{population.cell.name}')"


def lower_population(
    population: Population,
    equations: CellEquations,
    fed: Collection[tuple[str, str]],
    shared_names: Collection[str],
) -> PopulationPlan:
    """Check one population's cell and derive its plan; `fed` holds ``(population, port)`` of all projections."""
    cell, where = population.cell, described(population)
    n, shape = _size(population, where)
    parameters, dimensions = _parameters(population, equations, where)
    spiking = _spiking(population, equations, {**dimensions, **equations.dimensions}, parameters, where)
    _check_names(equations, parameters, spiking, where)
    _check_roles(population, equations, fed, shared_names, where)
    assignments = _ordered(equations, where)
    dimensions = check_units(equations, assignments, population, dimensions, where)
    _check_values(equations, assignments, parameters, dimensions, where)
    initial = _initial(population, equations, where)
    extra = SPIKING_VARIABLES if spiking else ()
    if cell.rate not in {*equations.states, *equations.subexpressions, *equations.inputs, *extra}:
        raise CircuitError(
            f"{where}: its rate '{cell.rate}' is no variable of its equations."
            f"{suggest(cell.rate, [*equations.states, *equations.subexpressions])}"
        )
    live = {port for port in equations.ports if (population.name, port) in fed}
    parameters |= dict.fromkeys((port for port in equations.ports if port not in live), 0.0)
    slopes, holds = {d.name for d in equations.derivatives}, {h.name for h in equations.holds}
    differ = {*equations.states, *live, *equations.inputs, *equations.noises, *extra, *slopes, *holds}
    differ |= {x for x, value in parameters.items() if np.ndim(value) > 0}
    assignments = _reductions_of_numbers(assignments, differ, n, shape)
    # A hold is not for naming: the equation of a state reads what is taken in this step, an expression does not.
    known = {*equations.states, *equations.noises, *_reached(assignments, set(equations.states)), *holds}
    states, parts = name_coefficients(equations.states, known)
    assignments += [Assignment(name, text) for name, text in parts.items()]
    dimensions |= {name: dimensions_of(text, dimensions, where) for name, text in parts.items()}
    moving = _reached(assignments, live | {*equations.states, *TIMES, *slopes, *extra})
    prefixed = {n: f"ns_{n}" for n in equations.noises}  # Brian2 would draw an `xi` itself
    dimensions |= {prefixed[n]: dimensions[n] for n in prefixed}
    states = {x: substitute(text, prefixed) for x, text in states.items()}
    written = {a.name: a.expression for a in assignments}
    timed = timed_names(written)
    written |= {x: substitute(text, prefixed) for x, text in equations.states.items()}
    states = {x: with_margins(text, written, timed, dimensions) for x, text in states.items()}
    assignments = [replace(a, expression=with_margins(a.expression, written, timed, dimensions)) for a in assignments]
    texts = {a.name: a.expression for a in assignments} | states
    return PopulationPlan(
        name=population.name,
        n=n,
        rate=cell.rate,
        ode=states,
        assignments=assignments,
        late=_reached(assignments, live),
        static={a.name for a in assignments} - moving | set(equations.inputs) | set(parameters),
        parameters=parameters,
        inputs=equations.inputs,
        shared=equations.shared,
        holds=equations.holds,
        initial=initial,
        dimensions=dimensions,
        derivatives=equations.derivatives,
        noises=tuple(prefixed.values()),
        spiking=spiking,
        ports={port: () for port in equations.ports if port in live},
        shape=shape,
        written={name: text for name, text in written.items() if texts[name] != text},
    )


def _size(population: Population, where: str) -> tuple[int, tuple[int, int, int] | None]:
    """The number of cells, and the maps if there are any."""
    shape = population.n if isinstance(population.n, tuple) else None
    n = population.n if isinstance(population.n, int) else math.prod(population.n)
    if n > MOST_CELLS:
        raise CircuitError(f"{where}: n = {population.n} are {n} cells; wanted at most {MOST_CELLS}.")
    return n, shape


def _check_names(equations: CellEquations, parameters: Collection[str], spiking: Spiking | None, where: str) -> None:
    """Refuse names that occur twice or are taken, and derivatives of what is no state."""
    extra = SPIKING_VARIABLES if spiking else ()
    check_unique(f"name in {where}", [*equations.dimensions, *parameters, *extra])
    for name in parameters:
        check_name(name, where)
    for derivative in equations.derivatives:
        if derivative.of not in equations.states:
            raise CircuitError(
                f"{where}: the derivative '{derivative.name}' is of '{derivative.of}', which is no state."
                f"{suggest(derivative.of, equations.states)}"
            )


def _check_roles(
    population: Population,
    equations: CellEquations,
    fed: Collection[tuple[str, str]],
    shared_names: Collection[str],
    where: str,
) -> None:
    """Refuse shared variables without a value, and ports that nothing feeds."""
    for name in equations.shared:
        if name not in shared_names:
            raise CircuitError(
                f"{where}: the protocol gives no value for the shared variable '{name}'; add it to "
                f"Protocol(shared={{...}}).{suggest(name, shared_names)}"
            )
    for name in equations.required_ports:
        if (population.name, name) not in fed:
            raise CircuitError(
                f"{where}: no projection feeds the port '{name}'; add Projection(..., target='{population.name}.{name}') "
                "or mark it (optional port) in the cell's text (it then reads 0)."
            )


def _check_values(
    equations: CellEquations,
    assignments: list[Assignment],
    parameters: dict[str, Any],
    dimensions: dict[str, Dimension],
    where: str,
) -> None:
    """Refuse parameters with which the equations mean nothing: divisions by zero, growth, noise without a limit."""
    divided = [*equations.subexpressions.items(), *((f"d{x}/dt", rhs) for x, rhs in equations.states.items())]
    _check_divisions(divided, parameters, where)
    follows = {a.name: a.expression for a in assignments} | {d.name: d.of for d in equations.derivatives}
    check_noise(equations.states, follows, where)
    check_constants(equations.states, equations.subexpressions, parameters, dimensions, where)


def _initial(population: Population, equations: CellEquations, where: str) -> dict[str, float]:
    """The initial value of each state."""
    given = population.cell.initial
    for name in given:
        if name not in equations.states:
            raise CircuitError(
                f"{where}: initial value for '{name}', which is no state.{suggest(name, equations.states)}"
            )
    values = {
        x: amount(given.get(x, 0.0), equations.dimensions[x], f"{where}: the initial value of '{x}'")
        for x in equations.states
    }
    for name, value in values.items():
        if np.ndim(value) > 0:
            raise CircuitError(f"{where}: the initial value of '{name}' is an array; wanted one number.")
    return {x: float(value) for x, value in values.items()}


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


def _ordered(equations: CellEquations, where: str) -> list[Assignment]:
    """Subexpressions and reductions in the order of their dependence."""
    waiting = [Assignment(n, e) for n, e in equations.subexpressions.items()]
    waiting += [Assignment(r.name, r.expression, r.word, r.axis) for r in equations.reduced]
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


def _reductions_of_numbers(
    assignments: list[Assignment], differ: set[str], n: int, shape: tuple[int, ...] | None
) -> list[Assignment]:
    """Rewrite reductions of cell-independent values as products such as ``n*value``; engines can only reduce arrays."""
    differ, moving = set(differ), _reached(assignments, differ)
    found = []
    for a in assignments:
        cells = bool(names_in(a.expression) & differ)
        row = a.reduction
        if row and row.constant and not cells and (a.axis != "batch" or a.name not in moving):
            count = n if a.axis == "population" or shape is None else shape[1] * shape[2]
            count = 1 if a.axis == "batch" and not shape else count
            a = Assignment(a.name, row.constant.format(n=count, x=a.expression))
        elif cells and a.axis != "population":
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
