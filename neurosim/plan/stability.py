"""Which Euler steps are stable, and which cells are not."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from neurosim.equations import is_linear, linear_rates
from neurosim.errors import NeurosimError, NeurosimWarning
from neurosim.plan.phase import PhasePlan
from neurosim.plan.population import PopulationPlan
from neurosim.plan.projection import ProjectionPlan, RulePlan

Populations = Mapping[str, PopulationPlan]


def decay_rates(
    phases: Sequence[PhasePlan], populations: Populations
) -> Iterator[tuple[PhasePlan, PopulationPlan, np.ndarray]]:
    """Decaying eigenvalues (1/s) of each cell's linear part in each phase."""
    for phase in phases:
        for population in populations.values():
            numbers = {n: phase.shared[n] for n in population.shared}
            numbers |= population.parameters
            rates = linear_rates(population.ode, population.subexpressions, numbers)
            rates = rates[np.real(rates) < 0]
            if rates.size:
                yield phase, population, rates


def check_step(
    dt: float, phases: Sequence[PhasePlan], populations: Populations, plastic: Sequence[tuple[ProjectionPlan, RulePlan]]
) -> None:
    """Refuse a step beyond the stability limit of explicit Euler, ``|1 + dt*lambda| <= 1``, cell by cell."""
    for phase, population, rates in decay_rates(phases, populations):
        limit = float(np.min(-2 * np.real(rates) / np.abs(rates) ** 2))
        if dt > limit * (1 + 1e-9):
            raise NeurosimError(
                f"dt = {dt * 1e3:g} ms is beyond the stability limit of explicit Euler for population "
                f"'{population.name}' in phase '{phase.name}': dt <= -2 Re(lambda)/|lambda|^2 = {limit * 1e3:g} ms "
                f"(fastest rate {np.abs(rates).max():g}/s). Choose a smaller dt."
            )
    for projection, rule in plastic:
        tau = rule.filter
        if tau is not None and dt > 2 * tau * (1 + 1e-9):
            raise NeurosimError(
                f"dt = {dt * 1e3:g} ms is beyond the stability limit of explicit Euler for the filter of rule "
                f"'{rule.name}' of projection '{projection.name}': dt <= 2 tau = {2e3 * tau:g} ms. "
                "Choose a smaller dt."
            )


def warn_of_growth(level: str, phases: Sequence[PhasePlan], populations: Populations) -> None:
    """Warn of cells whose own equations, linear and without a threshold, grow away from every fixed point."""
    for phase in phases:
        for p in populations.values():
            numbers = {n: phase.shared[n] for n in p.shared}
            if p.spiking or not p.ode or not is_linear(p.ode, p.subexpressions, numbers, p.parameters):
                continue
            fastest = float(np.max(np.real(linear_rates(p.ode, p.subexpressions, numbers | p.parameters))))
            if fastest > 0:
                warnings.warn(
                    f"{level}: the cells of population '{p.name}' are unstable in phase '{phase.name}': their own "
                    f"equations have the eigenvalue {fastest:g}/s, so they grow e-fold in {1e3 / fastest:g} ms and reach "
                    "no steady state. Check the signs of their equations and constants.",
                    NeurosimWarning,
                    stacklevel=3,
                )
