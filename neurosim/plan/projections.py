"""Where projections come from, where they go, and what they carry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from neurosim.description import Like, Projection, Tied
from neurosim.equations.units import DIMENSIONLESS
from neurosim.errors import CircuitError, unknown
from neurosim.plan.population import PopulationPlan
from neurosim.plan.projection import ProjectionPlan
from neurosim.plan.rules import SharedUnits, lower_rule
from neurosim.plan.units import same_unit
from neurosim.plan.weights import check_given, follow_like, lower_start, owner, weight_shape


def lower_projections(
    described: tuple[Projection, ...],
    populations: Mapping[str, PopulationPlan],
    sizes: Mapping[str, int],
    shared: SharedUnits,
) -> dict[str, ProjectionPlan]:
    """Every projection, owners of weights before those that are tied to them."""
    by_name = {p.name: p for p in described}
    plans: dict[str, ProjectionPlan] = {}
    for projection in (*(p for p in described if not p.tie), *described):
        if projection.name not in plans:
            plans[projection.name] = _projection(projection, populations, by_name, sizes, plans, shared)
    return {name: plans[name] for name in by_name}


def _projection(
    projection: Projection,
    populations: Mapping[str, PopulationPlan],
    by_name: Mapping[str, Projection],
    sizes: Mapping[str, int],
    plans: Mapping[str, ProjectionPlan],
    shared: SharedUnits,
) -> ProjectionPlan:
    where = f"Projection '{projection.name}'"
    source_name, _, variable = projection.source.partition(".")
    if source_name not in populations:
        raise CircuitError(f"{where}: {unknown('population', source_name, populations)}")
    source, target = populations[source_name], populations[projection.target_population]
    variable = variable or source.rate
    if variable in source.late or variable in source.ports:
        raise CircuitError(
            f"{where}: '{source.name}.{variable}' depends on a port in the same step, so sending it closes an algebraic "
            "loop. Send a state or a variable that follows from states, or give the source a state of its own."
        )
    if variable not in {*source.ode, *source.subexpressions, *source.inputs, *source.spiking_variables}:
        if variable in source.variables or variable in source.dimensions:
            raise CircuitError(
                f"{where}: '{source.name}.{variable}' is a pool, a hold or a parameter and cannot be sent; give the source "
                f"a subexpression 'x = {variable} : ...' and send that."
            )
        raise CircuitError(f"{where}: {unknown(f'variable of {source.name}', variable, source.variables)}")
    n_pre, n_post, kind = source.n, target.n, projection.connectivity
    shape = weight_shape(projection, source, target, where)
    tie = owner(projection, by_name) if projection.tie else Tied(projection.name)
    if projection.tie:
        _check_tie(projection, tie, (n_pre, n_post), by_name, plans, where)
    elif projection.weights is None and not kind.unweighted:
        raise CircuitError(f"{where}: no weights; give weights=Glorot(), Given(...) or Tied('...').")
    elif isinstance(projection.weights, Like):
        follow_like(projection, (n_pre, n_post), by_name, sizes)
    for what, given in (("plastic", projection.rule), ("evolved", projection.evolved)):
        if given and projection.tie:
            cure = "put the rule on" if what == "plastic" else "let evolution find"
            raise CircuitError(f"{where}: only weights of its own can be {what}; {cure} '{tie.projection}'.")
    if projection.evolved and projection.rule:
        raise CircuitError(f"{where}: it is evolved and has a plasticity rule; wanted one of the two.")
    root = tie.projection
    weight = target.dimensions[projection.port] / source.dimensions.get(variable, DIMENSIONLESS)
    if projection.tie:
        same_unit(weight, plans[root].weight_dimension, f"{where}: weights tied to '{root}'")
    start = lower_start(projection, weight, where)
    check_given(start, shape, where)
    numbers = replace(projection, weights=start)
    rule = lower_rule(numbers, projection.rule, source, target, weight, shared) if projection.rule else None
    return ProjectionPlan(
        projection.name, source.name, variable, target.name, projection.port, kind, root, tie.transpose, n_pre, n_post,
        rule, weight, float(tie.factor), shape, (source.cells, target.cells), start,
    )  # fmt: skip


def _check_tie(
    projection: Projection,
    tie: Tied,
    shape: tuple[int, int],
    by_name: Mapping[str, Projection],
    plans: Mapping[str, ProjectionPlan],
    where: str,
) -> None:
    """Refuse a tie to weights of another kind or shape; `tie` is to their owner."""
    root, transpose = tie.projection, tie.transpose
    other = by_name[root]
    if not other.connectivity.can_be_tied:
        raise CircuitError(
            f"{where}: tied to '{root}', which is neither dense nor one-to-one; tie to weights that are."
        )
    if type(other.connectivity) is not type(projection.connectivity):
        raise CircuitError(
            f"{where}: {type(projection.connectivity).__name__} tied to '{root}', which is "
            f"{type(other.connectivity).__name__}; expected the same connectivity."
        )
    owned = (plans[root].n_pre, plans[root].n_post)
    owned = owned[::-1] if transpose else owned
    if owned != shape:
        raise CircuitError(
            f"{where}: needs weights of shape {shape}, but '{root}'{' transposed' if transpose else ''} has {owned}."
        )
