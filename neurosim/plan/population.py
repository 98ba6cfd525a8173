"""What the levels need to know of one population."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from neurosim.description.connectivity import Cells
from neurosim.equations import REDUCTIONS, TIMES, Derivative, Hold, Reduction, names_in
from neurosim.equations.units import Dimension
from neurosim.plan.projection import ProjectionPlan

#: Names of the time and of the step, which Brian2 knows by itself.
CLOCK = {"t", "dt"}


#: Clocks that the engines set in each step.
TRIAL_CLOCKS = ("t_trial", "t_phase")


#: Variables that a spiking cell has besides those of its equations.
SPIKING_VARIABLES = ("spike_train", "lastspike")


#: `lastspike` before the first spike, as in Brian2 (s).
NEVER = -1e4


@dataclass(frozen=True)
class Assignment:
    """``name = expression``, or where `word` is set ``name = word(expression, axis)``; see `REDUCTIONS`."""

    name: str
    expression: str
    word: str = ""
    axis: str = ""

    @property
    def reduction(self) -> Reduction | None:
        """What `word` means."""
        return REDUCTIONS[self.word] if self.word else None


@dataclass(frozen=True)
class Spiking:
    """Threshold and reset of a spiking cell, on states and parameters alone. `refractory` is in seconds."""

    threshold: str
    reset: tuple[tuple[str, str], ...]
    refractory: float
    unless_refractory: tuple[str, ...]


@dataclass(frozen=True)
class PopulationPlan:
    """What the levels need to know of one population. All numbers are base SI."""

    name: str
    n: int
    rate: str
    ode: dict[str, str]
    assignments: list[Assignment]
    late: set[str]
    static: set[str]  # variables that do not change within a phase
    parameters: dict[str, Any]
    inputs: tuple[str, ...]
    shared: tuple[str, ...]
    holds: tuple[Hold, ...]
    initial: dict[str, float]
    dimensions: dict[str, Dimension]
    derivatives: tuple[Derivative, ...] = ()
    noises: tuple[str, ...] = ()  # drawn anew in each step, standard normal / sqrt(dt)
    spiking: Spiking | None = None
    ports: dict[str, tuple[ProjectionPlan, ...]] = field(default_factory=dict)
    shape: tuple[int, int, int] | None = None  # maps, height, width
    written: dict[str, str] = field(default_factory=dict)  # expressions as the cell has them, where they differ

    @property
    def cells(self) -> Cells:
        """Their number, or (maps, height, width), as described."""
        return self.shape or self.n

    @property
    def maps(self) -> int:
        """Number of maps; a population without maps is one map per cell."""
        return self.shape[0] if self.shape else self.n

    @property
    def spiking_variables(self) -> tuple[str, ...]:
        return SPIKING_VARIABLES if self.spiking else ()

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """Parameters with one value per cell."""
        return {n: v for n, v in self.parameters.items() if isinstance(v, np.ndarray)}

    @cached_property
    def _read(self) -> set[str]:
        return set().union(*map(names_in, (*self.ode.values(), *(a.expression for a in self.assignments))))

    @property
    def timed(self) -> bool:
        """Whether the equations read the time."""
        return bool(self._read & set(TIMES))

    @property
    def clocks(self) -> tuple[str, ...]:
        """Those of `TRIAL_CLOCKS` that the equations read."""
        return tuple(name for name in TRIAL_CLOCKS if name in self._read)

    @property
    def states(self) -> tuple[str, ...]:
        return tuple(self.ode)

    @property
    def variables(self) -> list[str]:
        """Everything that may be recorded."""
        return [
            *self.ode,
            *(a.name for a in self.assignments if not a.name.startswith("ns_")),
            *self.ports,
            *self.inputs,
            *(h.name for h in self.holds),
            *(d.name for d in self.derivatives),
            *self.spiking_variables,
        ]

    @cached_property
    def subexpressions(self) -> dict[str, str]:
        return {a.name: a.expression for a in self.assignments if not a.word}

    @cached_property
    def fed(self) -> set[str]:
        """Ports that a projection reaches."""
        return {port for port, projections in self.ports.items() if projections}

    def closure(self, wanted: Iterable[str]) -> set[str]:
        """The wanted names and all that they need."""
        needed: set[str] = set()
        by_name = {a.name: a for a in self.assignments}
        stack = list(wanted)
        while stack:
            name = stack.pop()
            if name not in needed:
                needed.add(name)
                if name in by_name:
                    stack.extend(names_in(by_name[name].expression))
        return needed

    def blocks(self, wanted: Iterable[str]) -> tuple[list[Assignment], list[Assignment]]:
        """Early and late assignments, in order, that compute the wanted names."""
        needed = self.closure(wanted)
        used = [a for a in self.assignments if a.name in needed]
        return [a for a in used if a.name not in self.late], [a for a in used if a.name in self.late]

    def names_of_ode(self) -> set[str]:
        """Names that the right-hand sides of the states read; parameters, states and the time left out."""
        names = set().union(*(names_in(rhs) for rhs in self.ode.values())) if self.ode else set()
        return names - set(self.ode) - set(self.parameters) - CLOCK
