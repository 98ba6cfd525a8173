"""How weights start, ties between projections, and the shapes of weight arrays."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import fields, replace

import numpy as np

from neurosim.description import (
    Constant,
    Dense,
    Given,
    Glorot,
    Gram,
    Initialiser,
    Like,
    Orthogonal,
    Projection,
    Tied,
    Uniform,
)
from neurosim.equations import amount
from neurosim.equations.units import Dimension
from neurosim.errors import CircuitError, unknown
from neurosim.plan.population import PopulationPlan
from neurosim.plan.projection import ProjectionPlan


def lower_start(projection: Projection, weight: Dimension, where: str) -> Initialiser | Like | None:
    """How the weights start, with numbers in base SI units."""
    start = projection.weights
    if start is None or isinstance(start, Tied):
        return None
    if isinstance(start, Like):
        return start
    if not hasattr(start, "draw"):
        raise CircuitError(
            f"{where}: weights = {start!r}; wanted how they are drawn, such as Constant({start!r}) or Glorot()."
        )
    if not isinstance(start, Constant | Given | Glorot | Gram | Orthogonal | Uniform):
        return start
    wanted = weight**0.5 if isinstance(start, Gram) else weight  # A A^T
    kind = type(start).__name__
    values = {f.name: getattr(start, f.name) for f in fields(start)}
    values = {n: amount(v, wanted, f"{where}: {n} of {kind}") for n, v in values.items()}
    if isinstance(start, Uniform) and not values["low"] <= values["high"]:
        raise CircuitError(f"{where}: {start}; wanted the lower limit first.")
    return replace(start, **values)


def weight_shape(projection: Projection, source: PopulationPlan, target: PopulationPlan, where: str) -> tuple[int, ...]:
    """The shape of a projection's weight array: see its connectivity."""
    if projection.tie and not projection.connectivity.can_be_tied:
        kind = type(projection.connectivity).__name__
        raise CircuitError(
            f"{where}: only dense and one-to-one projections can be tied; give the {kind} weights of its own."
        )
    try:
        return projection.connectivity.weight_shape(source.cells, target.cells)
    except CircuitError as error:
        raise CircuitError(f"{where}, from '{source.name}' to '{target.name}': {error}") from error


def owner(projection: Projection, by_name: Mapping[str, Projection]) -> Tied:
    """The tie to the projection that owns the weights, through ties to ties; factor and transpose are those in all.

    Raises
    ------
    CircuitError
        A tie to a projection that is not there, or to itself.
    """
    tie, name, seen = projection.tie, projection.name, [projection.name]
    factor, transpose = 1.0, False
    while tie:
        if tie.projection not in by_name:
            raise CircuitError(
                f"Projection '{name}': tied to an unknown projection. {unknown('projection', tie.projection, by_name)}"
            )
        factor, transpose, name = factor * tie.factor, transpose != tie.transpose, tie.projection
        if name in seen:
            raise CircuitError(
                f"Projection '{projection.name}': tied to {' to '.join(map(repr, [*seen[1:], name]))}, which owns no "
                "weights; tie to the projection that owns them."
            )
        seen.append(name)
        tie = by_name[name].tie
    return Tied(name, factor, transpose)


def follow_like(
    projection: Projection,
    shape: tuple[int, int],
    projections: Mapping[str, Projection],
    sizes: Mapping[str, int],
    seen: tuple[str, ...] = (),
) -> tuple[str, float, bool]:
    """The projection whose draw a `Like` start follows, the factor in all, and whether it is transposed."""
    assert isinstance(projection.weights, Like)
    where, by_name = f"Projection '{projection.name}'", projections
    name, factor, transpose = projection.weights.projection, projection.weights.factor, projection.weights.transpose
    if name not in by_name:
        raise CircuitError(f"{where}: starts like an unknown projection. {unknown('projection', name, by_name)}")
    other = by_name[name]
    if other.tie:
        tie = owner(other, by_name)
        transpose, factor, other = transpose != tie.transpose, factor * tie.factor, by_name[tie.projection]
    if other.name in (*seen, projection.name):
        raise CircuitError(f"{where}: it and '{name}' each start like the other; draw one of them.")
    if not isinstance(other.connectivity, Dense) or not isinstance(projection.connectivity, Dense):
        raise CircuitError(f"{where}: it starts like '{name}', which wants dense weights on both sides.")
    if isinstance(other.weights, Like):
        inner = (shape[1], shape[0]) if transpose else shape
        name, more, turned = follow_like(other, inner, projections, sizes, (*seen, projection.name))
        return name, factor * more, transpose != turned
    for population in (other.source_population, other.target_population):
        if population not in sizes:
            raise CircuitError(f"Projection '{other.name}': {unknown('population', population, sizes)}")
    drawn = (sizes[other.source_population], sizes[other.target_population])
    if (drawn[::-1] if transpose else drawn) != shape:
        raise CircuitError(
            f"{where}: needs weights of shape {shape}, but '{name}'{' transposed' if transpose else ''} has "
            f"{drawn[::-1] if transpose else drawn}."
        )
    return other.name, factor, transpose


def check_given(start: Initialiser | Like | None, shape: tuple[int, ...], where: str) -> None:
    """Refuse given weights of another shape."""
    if not isinstance(start, Given):
        return
    got = np.shape(start.values)
    if got != shape and not (len(shape) == 1 and got == (1, *shape)):
        cure = " A (target x source) matrix must be transposed." if got == shape[::-1] else ""
        raise CircuitError(f"{where}: given weights have shape {got}; wanted {shape}.{cure}")


def draw_weights(
    plans: Mapping[str, ProjectionPlan], projections: Mapping[str, Projection], sizes: Mapping[str, int], seed: int
) -> dict[str, np.ndarray]:
    """Draw the weights of every projection that has its own; see `Circuit.initial_weights`."""
    weights: dict[str, np.ndarray] = {}
    for plan in plans.values():
        start = plan.start
        rng = np.random.default_rng([seed, zlib.crc32(plan.name.encode())])
        if plan.root != plan.name or isinstance(start, Like):
            continue
        if start is None:
            weights[plan.name] = np.ones(plan.weight_shape)
            continue
        if len(plan.weight_shape) == 1 and isinstance(start, Given):
            start = Given(np.reshape(start.values, (1, -1)))
        rows, columns = (1, *plan.weight_shape)[-2:]
        weights[plan.name] = start.draw(rng, rows, columns).reshape(plan.weight_shape)
    for plan in plans.values():
        if isinstance(projections[plan.name].weights, Like) and plan.root == plan.name:
            name, factor, transpose = follow_like(projections[plan.name], (plan.n_pre, plan.n_post), projections, sizes)
            weights[plan.name] = np.ascontiguousarray(factor * (weights[name].T if transpose else weights[name]))
    return {name: weights[name] for name in plans if name in weights}
