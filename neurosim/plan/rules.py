"""Plasticity rules: units, factors, and what they ask of the weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from neurosim.description import Dense, OneToOne, PlasticityRule, Projection
from neurosim.equations import (
    TIMES,
    NotSeparable,
    amount,
    check_divisors,
    check_name,
    dimensions_of,
    is_noise,
    names_in,
    parse_rule,
    quantity,
    seconds,
    separate,
)
from neurosim.equations.units import Dimension
from neurosim.errors import CircuitError, suggest, unknown
from neurosim.plan.population import PopulationPlan
from neurosim.plan.projection import RulePlan
from neurosim.plan.units import same_unit

#: The units of the shared values, by name.
SharedUnits = dict[str, Dimension]


def lower_rule(
    projection: Projection, rule: PlasticityRule, source: PopulationPlan, target: PopulationPlan,
    weight: Dimension, shared_units: SharedUnits,
) -> RulePlan:  # fmt: skip
    where = f"Rule '{rule.name}' of projection '{projection.name}'"
    rhs = parse_rule(rule.equation, where)
    parameters: dict[str, float] = {}
    known: dict[str, Dimension] = {"w": weight}
    for name, value in rule.parameters.items():
        check_name(name, where)
        number, dimension = quantity(value)
        if isinstance(number, np.ndarray):
            raise CircuitError(f"{where}: parameter '{name}' must be one number.")
        parameters[name], known[name] = number, dimension
    for name in names_in(rhs):
        population = target if name.endswith("_post") else source if name.endswith("_pre") else None
        if population is not None:
            variable = name.removesuffix("_post").removesuffix("_pre")
            if variable in (*TIMES, "dt") or is_noise(variable):
                raise CircuitError(
                    f"{where}: '{name}' in 'dw/dt = {rhs}': a rule reads no time and no noise of a cell; give the cell a "
                    f"subexpression or a state of them and read that."
                )
            if variable not in population.dimensions:
                raise CircuitError(
                    f"{where}: {unknown(f'variable of {population.name}', variable, population.dimensions)}"
                )
            known[name] = population.dimensions[variable]
        elif name in shared_units and name not in parameters:
            known[name] = shared_units[name]
        elif name not in known:
            raise CircuitError(
                f"{where}: unknown name '{name}' in 'dw/dt = {rhs}'; it is no rule parameter and no shared value."
                f"{suggest(name, [*known, *shared_units, *(f'{v}_pre' for v in source.dimensions), *(f'{v}_post' for v in target.dimensions)])}"
                " Variables of cells carry _pre or _post."
            )
    time = quantity("1*second")[1]
    change = weight / time
    got = dimensions_of(rhs, known, where)
    cure = (
        "Give its rate a unit of 1/time (eta = '1*Hz'), or divide by a time." if got is weight
        else "That is the weight's unit per second; check the units of its parameters."
    )  # fmt: skip
    same_unit(got, change, f"{where}: 'dw/dt = {rhs}'", cure)
    for name, value in parameters.items():  # a time constant of a rule is above 0, a number it divides by not 0
        least = 0.0 if known[name] is time else -np.inf
        check_divisors("dw/dt", rhs, {name: value}, where, least)
    shared = tuple(sorted(n for n in names_in(rhs) if n in shared_units and n not in parameters))
    low_pass = None
    if rule.filter is not None:
        low_pass = seconds(rule.filter)
        if low_pass <= 0:
            raise CircuitError(f"{where}: filter = {rule.filter}; wanted a time above 0, or None for no low-pass.")
    bounds = _bounds(rule.bounds, weight, where)
    _check_whole_matrix(rule, projection, source, target, where)
    listed = not isinstance(projection.connectivity, Dense | OneToOne)
    terms, why_not = None, ""
    try:
        terms = separate(rhs, parameters, shared)
        if listed and any(t.w_power and t.decay is None for t in terms):
            raise CircuitError(
                f"{where}: in 'dw/dt = {rhs}' the weight meets factors of cells; one weight of a convolution has many cells, so it may decay "
                "(-k*w) and no more."
            )
    except NotSeparable as error:
        why_not = str(error)
    return RulePlan(
        name=rule.name,
        rhs=rhs,
        parameters=parameters,
        shared=shared,
        terms=terms,
        why_not=why_not,
        apply=rule.apply,
        bounds=bounds,
        filter=low_pass,
        symmetric=rule.symmetric,
        batch=rule.batch,
        written=rule,
    )


def _check_whole_matrix(
    rule: PlasticityRule, projection: Projection, source: PopulationPlan, target: PopulationPlan, where: str
) -> None:
    """What `symmetric` and `batch` ask of a rule."""
    for name, asked in (("symmetric", rule.symmetric), ("batch", rule.batch is not None)):
        square = source.n == target.n and isinstance(projection.connectivity, Dense)
        if asked and (not square or rule.apply == "now"):
            raise CircuitError(
                f"{where}: {name} with apply = '{rule.apply}' between {source.n} and {target.n} cells; expected square weights and "
                "apply='phase' or 'trial'."
            )
    if rule.batch is None:
        return
    if rule.apply != "trial" or rule.filter is not None or rule.bounds != (None, None):
        raise CircuitError(f"{where}: a batch rule takes apply='trial', no filter and no bounds.")
    if expected := rule.batch.misfit(projection.weights):
        raise CircuitError(f"{where}: {expected}.")
    if rule.batch.reads() not in source.dimensions:
        raise CircuitError(f"{where}: {unknown(f'variable of {source.name}', rule.batch.reads(), source.dimensions)}")


def _bounds(bounds: Any, weight: Dimension, where: str) -> tuple[float | None, float | None]:
    """Limits of the weights in base SI units."""
    low, high = (None if b is None else amount(b, weight, f"{where}: a limit in bounds") for b in bounds)
    for value in (low, high):
        if value is not None and (isinstance(value, bool) or np.ndim(value) or not np.isfinite(value)):
            raise CircuitError(f"{where}: bounds = {bounds!r}; wanted two numbers, None for no limit.")
    if low is not None and high is not None and low > high:
        raise CircuitError(f"{where}: bounds = {bounds!r}; wanted the lower limit first.")
    return low, high
