"""What the engines ask of a circuit."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from neurosim.checks import check_memory
from neurosim.equations import Term
from neurosim.equations.units import Dimension
from neurosim.errors import CircuitError, NeurosimError, UnsupportedError, unknown
from neurosim.plan import stability
from neurosim.plan.phase import PhasePlan
from neurosim.plan.population import PopulationPlan
from neurosim.plan.projection import ProjectionPlan, RulePlan
from neurosim.plan.weights import draw_weights

if TYPE_CHECKING:
    from neurosim.circuit import Circuit


@dataclass(frozen=True)
class Plan:
    """A circuit as its engines read it: checked, with everything derived. See the package's text.

    `mirrored` holds the phases with the other sign of what has a random one; the phases themselves where nothing has.
    """

    circuit: Circuit
    populations: dict[str, PopulationPlan]
    projections: dict[str, ProjectionPlan]
    phases: tuple[PhasePlan, ...]
    mirrored: tuple[PhasePlan, ...]
    shared_dimensions: dict[str, Dimension]

    def until(self, phase: str) -> Plan:
        """The same plan with trials that end after `phase` (to read an answer no further phase is needed)."""
        count = [p.name for p in self.phases].index(phase) + 1
        short = self.phases[:count]
        return replace(self, phases=short, mirrored=short if self.mirrored is self.phases else self.mirrored[:count])

    def trial_phases(self, seed: int, trial: int) -> tuple[PhasePlan, ...]:
        """The phases of a trial, random signs drawn from the seed and the trial's number."""
        if self.mirrored is self.phases:
            return self.phases
        return self.mirrored if np.random.default_rng([seed, 5, trial]).integers(2) else self.phases

    def trial_stretches(self, seed: int, trial: int) -> tuple[PhasePlan, ...]:
        """The same cut where gates open, which is what engines in time run through."""
        return self.stretches if self.trial_phases(seed, trial) is self.phases else self._mirrored_stretches

    def variable(self, text: str) -> tuple[str, str]:
        """``"pyr1.u"`` -> ("pyr1", "u"), or an error with the nearest name."""
        population, _, variable = text.partition(".")
        if population not in self.populations:
            raise unknown("population", population, self.populations)
        known = self.populations[population].variables
        if variable not in known:
            raise unknown(f"variable of population {population}", variable, known)
        return population, variable

    @property
    def has_fixed_point(self) -> bool:
        """Whether a steady state can be asked for: no spikes, no noise, no explicit time, no memory from trial to trial."""
        return not any(p.spiking or p.noises or p.timed for p in self.populations.values()) and self.memory is None

    @cached_property
    def memory(self) -> tuple[str, float] | None:
        """A population and its time constant (s) where states go on from trial to trial and one of them is slower than a trial."""
        if self.circuit.protocol.reset:
            return None
        trial = sum(phase.seconds for phase in self.phases)
        slowest = {
            p.name: float(np.max(-1 / np.real(rates)))
            for _, p, rates in stability.decay_rates(self.phases, self.populations)
        }
        return max(((p, t) for p, t in slowest.items() if t > trial), key=lambda found: found[1], default=None)

    @property
    def clamped_fields(self) -> list[str]:
        """Fields of a stimulus that some clamp names, or follows from."""
        named = {source for phase in self.phases for source in phase.clamps.values()}
        made = {name for phase in self.phases if phase.turn for name in phase.turn.loop.names}
        classes = any(phase.turn.classes for phase in self.phases if phase.turn)
        return sorted({*(named - made), *(("target",) if named & made and classes else ())})

    @cached_property
    def clamped_sizes(self) -> dict[tuple[str, int], str]:
        """``{(field of the stimulus, values per sample): a variable that is clamped to it}``; fields of windows follow from the target."""
        sizes: dict[tuple[str, int], str] = {}
        for phase in self.phases:
            for (population, variable), source in phase.clamps.items():
                key = (source, self.populations[population].n)
                if phase.turn is not None and source in phase.turn.loop.names:
                    if not phase.turn.classes:
                        continue
                    key = ("target", phase.turn.classes)
                sizes.setdefault(key, f"{population}.{variable}")
        return sizes

    def stimulus_size(self, source: str) -> int | None:
        """Number of values of a sample's field, None when nothing is clamped to it.

        Raises
        ------
        NeurosimError
            Populations of several sizes are clamped to the field.
        """
        sizes = {n: name for (field, n), name in self.clamped_sizes.items() if field == source}
        if len(sizes) > 1:
            clamps = " and ".join(f"'{name}' of {n} cells" for n, name in sizes.items())
            raise NeurosimError(
                f"The field '{source}' is clamped to {clamps}; wanted one number of cells. "
                "Give each a field of its own."
            )
        return next(iter(sizes), None)

    def sent(self, population: str) -> set[str]:
        """Variables of a population that projections read."""
        return {q.variable for q in self.projections.values() if q.source == population}

    def check_no_overlaps(self, level: str) -> None:
        """Refuse overlaps on a level in time, where the samples or labels that they compare are not there at once."""
        for p in self.populations.values():
            for a in p.assignments:
                if a.reduction and a.reduction.all_samples:
                    raise UnsupportedError(
                        f"{level} cannot run population '{p.name}': its overlap '{a.name}' compares samples (or labels) that are all there at once, "
                        "and here they follow one another. Use torch:steady, or a circuit without it (decorrelation=0)."
                    )

    @cached_property
    def rules(self) -> dict[str, RulePlan]:
        """The rule of each projection that has one."""
        return {name: q.rule for name, q in self.projections.items() if q.rule is not None}

    def plastic(self) -> list[tuple[ProjectionPlan, RulePlan]]:
        """Projections that some phase makes plastic, with their rules."""
        names = {name for phase in self.phases for name in phase.plastic}
        return [(self.projections[name], rule) for name, rule in self.rules.items() if name in names]

    @cached_property
    def stretches(self) -> tuple[PhasePlan, ...]:
        """The phases cut where gates open; those of `steps`."""
        return tuple(stretch for phase in self.phases for stretch in phase.stretches())

    @cached_property
    def _mirrored_stretches(self) -> tuple[PhasePlan, ...]:
        return tuple(stretch for phase in self.mirrored for stretch in phase.stretches())

    def steps(self, dt: float) -> list[int]:
        """The number of steps of each stretch."""
        return [count for phase in self.phases for count in phase.steps(dt)]

    def steps_of_phases(self, dt: float) -> list[int]:
        """The number of steps of each phase."""
        return [sum(phase.steps(dt)) for phase in self.phases]

    def time_constants(self) -> list[float]:
        """Time constants (s) of the cells' linear parts, of all phases."""
        rates = stability.decay_rates(self.phases, self.populations)
        return [float(t) for _, _, found in rates for t in -1 / np.real(found)]

    def check_step(self, dt: float) -> None:
        """Refuse a step beyond the stability limit of explicit Euler, ``|1 + dt*lambda| <= 1``, cell by cell."""
        stability.check_step(dt, self.phases, self.populations, self.plastic())

    def warn_of_growth(self, level: str) -> None:
        """Warn of cells whose own equations, linear and without a threshold, grow away from every fixed point."""
        stability.warn_of_growth(level, self.phases, self.populations)

    def check_rules(self, level: str) -> None:
        """Refuse rules that do not split into factors, by name; brian2:equations alone runs them."""
        for projection, rule in self.plastic() if level != "brian2:equations" else ():
            rule.separated(projection.name, level)

    def rule_factors(self, projection: ProjectionPlan, level: str) -> list[tuple[Term, str, str]]:
        """``(term, name of its post factor, name of its pre factor)`` of a plastic projection."""
        terms = self.rules[projection.name].separated(projection.name, level)
        return [(t, f"ns_post_{projection.name}_{k}", f"ns_pre_{projection.name}_{k}") for k, t in enumerate(terms)]

    def initial_weights(self, seed: int = 0) -> dict[str, np.ndarray]:
        """See `Circuit.initial_weights`."""
        self.check_memory()
        described = {p.name: p for p in self.circuit.projections}
        return draw_weights(self.projections, described, {p.name: p.n for p in self.populations.values()}, seed)

    def check_memory(self) -> None:
        """Refuse weights and states that the machine cannot hold, before they are made."""
        owners = [p for p in self.projections.values() if p.root == p.name]
        numbers = {p.name: math.prod(p.weight_shape) for p in owners} | {p.name: p.n for p in self.populations.values()}
        largest = max(numbers, key=numbers.__getitem__, default="")
        total = sum(numbers.values())
        what = (
            f"The weights and cells of '{self.circuit.name}', {total} numbers of 8 bytes (most of them in '{largest}'),"
        )
        check_memory(8 * total, what, CircuitError)

    def check_weights(self, weights: dict[str, np.ndarray]) -> None:
        """Refuse weights of wrong names, shapes or with NaN."""
        owners = {p.name: p for p in self.projections.values() if p.root == p.name}
        for name, value in weights.items():
            if name not in owners:
                raise unknown("projection with weights of its own", name, owners)
            plan = owners[name]
            if np.shape(value) != plan.weight_shape:
                raise NeurosimError(f"Weights of '{name}' have shape {np.shape(value)}; wanted {plan.weight_shape}.")
            if not np.isfinite(value).all():
                raise NeurosimError(f"Weights of '{name}' hold NaN or infinity.")
        for name in owners:
            if name not in weights:
                raise NeurosimError(f"No weights for projection '{name}'.")
