"""The engine-free lowering that all levels share: checks, early and late variables, ties, rule terms, phases.

Order inside a step (every level obeys it, so that they agree to round-off):

1. clamps and shared values; 2. pools of states; 3. *early* variables (what follows from states, parameters and pools:
rates); 4. drives ``I = r(t) W(t)``; 5. *late* variables (whatever a port reaches in this step: errors, rule
factors); 6. sample-and-hold; 7. recorders; 8. weights to t+dt; 9. potentials to t+dt.

Early or late is derived by reachability from the ports, never declared.
"""

from __future__ import annotations

import copy
import math
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import sympy
from brian2.parsing.sympytools import str_to_sympy

from neurosim.checks import check_memory
from neurosim.circuit import Circuit
from neurosim.description import (
    WINDOW_FIELDS,
    Angle,
    Connectivity,
    Constant,
    Conv2d,
    Dense,
    Derivative,
    Given,
    Glorot,
    Gram,
    Hold,
    Initialiser,
    Kernel,
    Like,
    OneToOne,
    Orthogonal,
    PerMap,
    Phase,
    PlasticityRule,
    Population,
    Projection,
    RandomSign,
    Ratio,
    Silent,
    Uniform,
    Windows,
)
from neurosim.equations import (
    TIMES,
    CellEquations,
    NotSeparable,
    Term,
    amount,
    check_constants,
    check_divisors,
    check_expression,
    check_name,
    check_noise,
    dimensions_of,
    is_condition,
    is_linear,
    is_noise,
    linear_rates,
    name_coefficients,
    names_in,
    parse_cell,
    parse_reset,
    parse_rule,
    quantity,
    seconds,
    separate,
    substitute,
    timed_names,
    unit_text,
    with_margins,
)
from neurosim.equations.units import DIMENSIONLESS, Dimension, Quantity
from neurosim.errors import (
    CircuitError,
    NeurosimError,
    NeurosimWarning,
    UnsupportedError,
    suggest,
    unknown,
)

#: Cells of a population, which engines count in 32 bits.
MOST_CELLS = 2**31 - 1
#: Steps of a phase; the fastest circuit takes hours for as many.
MOST_STEPS = 2**31 - 1
#: Fields of a stimulus that a clamp may name.
STIMULUS_FIELDS = ("image", "target")


@dataclass(frozen=True)
class Assignment:
    """``name = expression``; where `over` is set, a sum of the expression over the cells of a ``population`` or ``map``, over the ``batch``, or
    its ``overlap`` between samples (see `Pool` and `Overlap`). `reduce` is ``"sum"`` or ``"max"``."""

    name: str
    expression: str
    over: str = ""
    reduce: str = "sum"


@dataclass(frozen=True)
class Spiking:
    """Threshold and reset of a spiking cell, on states and parameters alone. `refractory` is in seconds."""

    threshold: str
    reset: tuple[tuple[str, str], ...]
    refractory: float
    unless_refractory: tuple[str, ...]


DriveKey = tuple[str, bool, float, str, str]
#: Names of what stands beside the populations in a file of traces.
RESERVED_POPULATIONS = ("time", "phases", "spikes")
#: Names of the time and of the step, which Brian2 knows by itself.
CLOCK = {"t", "dt"}
#: Clocks that the engines set in each step.
TRIAL_CLOCKS = ("t_trial", "t_phase")
#: Variables that a spiking cell has besides those of its equations.
SPIKING_VARIABLES = ("spike_train", "lastspike")
#: `lastspike` before the first spike, as in Brian2 (s).
NEVER = -1e4


@dataclass
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
    ports: dict[str, list[ProjectionPlan]] = field(default_factory=dict)
    shape: tuple[int, int, int] | None = None  # maps, height, width
    written: dict[str, str] = field(default_factory=dict)  # expressions as the cell has them, where they differ

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
        return {a.name: a.expression for a in self.assignments if not a.over}

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


@dataclass
class RulePlan:
    """A plasticity rule on one projection's weights."""

    rule: PlasticityRule
    rhs: str
    parameters: dict[str, float]
    shared: tuple[str, ...]
    terms: tuple[Term, ...] | None
    why_not: str = ""
    filter: float | None = None  # s

    def added(self, change: Any) -> Any:
        """What of a collected change (an array of any library) is added to the weights."""
        return 0.5 * (change + change.T) if self.rule.symmetric else change

    def separated(self, projection: str, level: str) -> tuple[Term, ...]:
        if self.terms is None:
            raise UnsupportedError(
                f"The rule '{self.rule.name}' of projection '{projection}' cannot run on {level}: {self.why_not} "
                "Use level brian2:equations, or rewrite the rule."
            )
        return self.terms


@dataclass
class ProjectionPlan:
    """What the levels need to know of one projection."""

    name: str
    source: str
    variable: str
    target: str
    port: str
    connectivity: Connectivity
    root: str  # projection whose weights this one reads
    transpose: bool
    n_pre: int
    n_post: int
    rule: RulePlan | None
    weight_dimension: Dimension
    factor: float = 1.0  # of a tie
    weight_shape: tuple[int, ...] = ()
    maps: tuple[tuple[int, int, int] | None, tuple[int, int, int] | None] = (None, None)  # of source and target
    start: Initialiser | Like | None = None  # as in the description, numbers in base SI

    @property
    def shared_kernel(self) -> bool:
        """Whether synapses at many positions have one weight."""
        return isinstance(self.connectivity, Conv2d | PerMap)

    @cached_property
    def key(self) -> DriveKey:
        """Two projections with one key have the same drive."""
        return (self.root, self.transpose, self.factor, self.source, self.variable)


@dataclass(frozen=True)
class Window:
    """Which of a trial's windows a phase belongs to, and what labels they show (see `Windows`)."""

    index: int
    count: int
    labels: str
    classes: int


@dataclass(frozen=True)
class PhasePlan:
    """One phase with everything resolved."""

    name: str
    seconds: float
    shared: dict[str, float]
    clamps: dict[tuple[str, str], str]
    plastic: tuple[str, ...]  # projections
    holds: tuple[tuple[str, Hold], ...]  # (population, hold) taken at this phase's end
    sign: int = 1  # of the random signs
    window: Window | None = None

    @property
    def base(self) -> str:
        """The name without the number of a window."""
        return self.name.rpartition("[")[0] if self.window is not None else self.name


class Plan:
    """Checks a circuit and derives what its engines need. Built by `Circuit`; see the module's text."""

    def __init__(self, circuit: Circuit):
        self.circuit = circuit
        for what, named in (("Population", circuit.populations), ("Projection", circuit.projections)):
            for item in named:
                if not (item.name.isidentifier() and item.name.isascii()):
                    raise CircuitError(
                        f"{what} '{item.name}': expected a name of letters (a to z, A to Z), digits and '_' that does not "
                        "begin with a digit."
                    )
                if what == "Population" and item.name in RESERVED_POPULATIONS:
                    raise CircuitError(f"Population '{item.name}': files of traces use this name; choose another.")
        _unique("population", [p.name for p in circuit.populations])
        _unique("projection", [p.name for p in circuit.projections])
        written = [
            (phase, item if isinstance(item, Windows) else None)
            for item in circuit.protocol.phases
            for phase in (item.phases if isinstance(item, Windows) else (item,))
        ]
        _unique("phase", [phase.name for phase, _ in written])
        self.shared_names = {*circuit.protocol.shared, *(name for phase, _ in written for name in phase.shared)}
        for name in self.shared_names:
            check_name(name, f"Protocol of '{circuit.name}'")
        fed: dict[tuple[str, str], list[Projection]] = {}
        for projection in circuit.projections:
            self._check_target(projection)
            fed.setdefault((projection.target_population, projection.port), []).append(projection)
        self.populations = {p.name: self._population(p, fed) for p in circuit.populations}
        given = [
            *((n, v, "Protocol") for n, v in circuit.protocol.shared.items()),
            *((n, v, f"Phase '{phase.name}'") for phase, _ in written for n, v in phase.shared.items()),
        ]
        self.shared_dimensions = self._shared_units(given)
        self.projections: dict[str, ProjectionPlan] = {}
        for projection in circuit.projections:
            self.projections[projection.name] = self._projection(projection)
        for plan in self.projections.values():
            self.populations[plan.target].ports[plan.port].append(plan)
        self.phases = tuple(self._phases())
        self.mirrored = self.phases  # with the other sign of what has a random one
        if any(isinstance(value, RandomSign) for _, value, _ in given):
            self.mirrored = tuple(self._phases(-1))
        self._check_readout()
        self._check_relaxation()
        owners = {p.name: p for p in self.projections.values() if p.root == p.name}
        for name in circuit.evolved:
            if name not in owners:
                raise unknown("projection with weights of its own to evolve", name, owners, CircuitError)
            if owners[name].rule is not None:
                raise CircuitError(f"Projection '{name}' is evolved and has a plasticity rule; wanted one of the two.")

    def _shared_units(self, given: Iterable[tuple[str, Any, str]]) -> dict[str, Dimension]:
        """The unit of each shared value: as the cells declare it, else as its first value with units has it."""
        found: dict[str, Dimension] = {}
        owner: dict[str, str] = {}
        for p in self.populations.values():
            for name in p.shared:
                if found.setdefault(name, p.dimensions[name]) is not p.dimensions[name]:
                    raise CircuitError(
                        f"Population '{p.name}' declares the shared variable '{name}' in {unit_text(p.dimensions[name])}, "
                        f"population '{owner[name]}' in {unit_text(found[name])}; one value serves both, so rename one."
                    )
                owner.setdefault(name, p.name)
        for name, value, where in given:
            inner = value.value if isinstance(value, RandomSign) else value
            if isinstance(inner, str | Quantity):
                try:
                    dimension = quantity(inner)[1]
                except CircuitError as error:
                    raise CircuitError(f"{where}: the shared value '{name}': {error}") from error
                found.setdefault(name, dimension)
        return {name: found.get(name, DIMENSIONLESS) for name in self.shared_names}

    def _shared_value(self, name: str, value: Any, where: str) -> float:
        """A shared value in base SI units; that of a random sign with its positive sign."""
        inner = value.value if isinstance(value, RandomSign) else value
        shown = f"{where}: the shared value '{name}'"
        given = isinstance(inner, str | Quantity | int | float | np.integer | np.floating)
        number = amount(inner, self.shared_dimensions[name], shown) if given else inner
        real = isinstance(number, int | float | np.integer | np.floating) and not isinstance(number, bool)
        if not real or not np.isfinite(number):
            raise CircuitError(
                f"{shown} = {inner!r}; expected one finite number, a text with units such as '5*pA', or "
                "RandomSign('5*pA')."
            )
        return float(number)

    def until(self, phase: str) -> Plan:
        """The same plan with trials that end after `phase` (to read an answer no further phase is needed)."""
        names = [p.name for p in self.phases]
        short, count = copy.copy(self), names.index(phase) + 1
        short.__dict__.pop("clamped_sizes", None)  # of all phases
        short.phases = self.phases[:count]
        short.mirrored = short.phases if self.mirrored is self.phases else self.mirrored[:count]
        return short

    def trial_phases(self, seed: int, trial: int) -> tuple[PhasePlan, ...]:
        """The phases of a trial, random signs drawn from the seed and the trial's number."""
        if self.mirrored is self.phases:
            return self.phases
        return self.mirrored if np.random.default_rng([seed, 5, trial]).integers(2) else self.phases

    # ---------------------------------------------------------------- populations

    def _population(self, population: Population, fed: dict[tuple[str, str], list[Projection]]) -> PopulationPlan:
        cell, where = population.cell, f"Population '{population.name}' (cell '{population.cell.name}')"
        shape = population.n if isinstance(population.n, tuple) else None
        n = population.n if isinstance(population.n, int) else math.prod(population.n)
        if n > MOST_CELLS:
            raise CircuitError(f"{where}: n = {population.n} are {n} cells; wanted at most {MOST_CELLS}.")
        equations = parse_cell(cell.equations, where)
        parameters, dimensions = self._parameters(population, equations, where)
        taken = [item.name for item in (*cell.pools, *cell.holds, *cell.derivatives, *cell.overlaps)]
        spiking = self._spiking(population, equations, {**dimensions, **equations.dimensions}, parameters, where)
        _unique(
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
            if name not in self.shared_names:
                raise CircuitError(
                    f"{where}: the protocol gives no value for the shared variable '{name}'; add it to "
                    f"Protocol(shared={{...}}).{suggest(name, self.shared_names)}"
                )
        for name in cell.ports:
            if not fed.get((population.name, name)):
                raise CircuitError(
                    f"{where}: no projection feeds the port '{name}'; add Projection(..., target='{population.name}.{name}') "
                    "or list the port in `optional_ports` (it then reads 0)."
                )
        assignments = self._ordered(equations, population, where)
        dimensions = self._check_units(equations, assignments, population, dimensions, where)
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
            if not fed.get((population.name, port)):
                parameters[port] = 0.0
        live = {port for port in ports if fed.get((population.name, port))}
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
        assignments = [
            replace(a, expression=with_margins(a.expression, written, timed, dimensions)) for a in assignments
        ]
        texts = {a.name: a.expression for a in assignments} | states
        return PopulationPlan(
            population.name, n, cell.rate, states, assignments, late, static, parameters, cell.inputs, equations.shared, cell.holds,
            {x: float(value) for x, value in initial.items()},
            dimensions | {prefixed[n]: dimensions[n] for n in prefixed}, cell.derivatives, tuple(prefixed.values()),
            spiking, {port: [] for port in ports if port in live}, shape,  # type: ignore[arg-type]
            {name: text for name, text in written.items() if texts[name] != text},
        )  # fmt: skip

    def _spiking(
        self, population: Population, equations: CellEquations, known: dict[str, Dimension], parameters: dict[str, Any],
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
            _same_unit(dimensions_of(value, readable, where), known[name], f"{where}: reset '{name} = {value}'")
        refractory = seconds(cell.refractory)
        if refractory < 0:
            raise CircuitError(f"{where}: refractory = {cell.refractory}; wanted a time of at least 0.")
        return Spiking(cell.threshold, tuple(reset), refractory, equations.unless_refractory)

    def _parameters(
        self, population: Population, equations: CellEquations, where: str
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

    def _ordered(self, equations: CellEquations, population: Population, where: str) -> list[Assignment]:
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

    def _check_units(
        self,
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
                raise CircuitError(
                    f"{where}: white noise in the pool '{pool.name}'; noise enters the equation of a state."
                )
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
                _same_unit(known[assignment.name], DIMENSIONLESS, f"{where}: the overlap '{assignment.name}'")
        for name, text in equations.subexpressions.items():
            _same_unit(dimensions_of(text, known, where), equations.dimensions[name], f"{where}: '{name} = {text}'")
        for name, text in equations.states.items():
            got = dimensions_of(text, known, where)
            wanted = equations.dimensions[name] / quantity("1*second")[1]
            _same_unit(got, wanted, f"{where}: 'd{name}/dt = {text}'")
        return known

    # ---------------------------------------------------------------- projections

    def _check_target(self, projection: Projection) -> None:
        """Refuse a port that is not there, before its misspelling reads as another port that nothing feeds."""
        where, by_name = f"Projection '{projection.name}'", {p.name: p for p in self.circuit.populations}
        name, port = projection.target_population, projection.port
        if name not in by_name:
            raise CircuitError(f"{where}: {unknown('population', name, by_name)}")
        cell = by_name[name].cell
        ports = (*cell.ports, *cell.optional_ports)
        if not port:
            raise CircuitError(
                f"{where}: target = '{projection.target}' names no port; wanted '{name}.PORT'. Ports: {', '.join(ports)}."
            )
        if port not in ports:
            raise CircuitError(
                f"{where}: {name} has no port '{port}'.{suggest(port, ports)} Ports: {', '.join(ports) or '(none)'}; a port is listed in its "
                "cell's `ports` or `optional_ports`."
            )

    def _start(self, projection: Projection, weight: Dimension, where: str) -> Initialiser | Like | None:
        """How the weights start, with numbers in base SI units."""
        start = projection.weights
        if start is None or isinstance(start, Like):
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

    def _projection(self, projection: Projection) -> ProjectionPlan:
        where = f"Projection '{projection.name}'"
        source_name, _, variable = projection.source.partition(".")
        if source_name not in self.populations:
            raise CircuitError(f"{where}: {unknown('population', source_name, self.populations)}")
        source, target = self.populations[source_name], self.populations[projection.target_population]
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
        if isinstance(kind, OneToOne) and n_pre != n_post:
            raise CircuitError(f"{where}: one-to-one between {n_pre} and {n_post} cells; wanted equal numbers.")
        if isinstance(kind, Kernel) and np.shape(kind.matrix) != (n_pre, n_post):
            raise CircuitError(f"{where}: the kernel has shape {np.shape(kind.matrix)}; wanted {(n_pre, n_post)}.")
        root, transpose, factor = projection.name, False, 1.0
        if projection.tied is not None and projection.weights is not None:
            raise CircuitError(f"{where}: both tied and with weights of its own; give one of them.")
        if projection.tied is not None:
            root, transpose = self._tie(projection, n_pre, n_post, where)
            factor = float(projection.tied.factor)
        elif isinstance(kind, Dense | Conv2d | PerMap) and projection.weights is None:
            raise CircuitError(f"{where}: no weights; give weights=Glorot() or tied=Tied('...').")
        elif isinstance(projection.weights, Like):
            self._like(projection, (n_pre, n_post), ())
        if projection.rule is not None and (isinstance(kind, Kernel) or projection.tied is not None):
            cure = f"put the rule on '{root}'" if projection.tied is not None else "use Dense() with weights=Given(...)"
            raise CircuitError(f"{where}: only weights of its own can be plastic; {cure}.")
        shape = self._weight_shape(projection, source, target, where)
        weight = target.dimensions[projection.port] / source.dimensions.get(variable, DIMENSIONLESS)
        if projection.tied is not None:
            _same_unit(weight, self.projections[root].weight_dimension, f"{where}: weights tied to '{root}'")
        start = self._start(projection, weight, where)
        if isinstance(start, Given):
            wanted = (n_post,) if isinstance(kind, OneToOne) else shape
            got = np.shape(start.values)
            if got != wanted and not (isinstance(kind, OneToOne) and got == (1, n_post)):
                cure = " A (target x source) matrix must be transposed." if got == wanted[::-1] else ""
                raise CircuitError(f"{where}: given weights have shape {got}; wanted {wanted}.{cure}")
        numbers = replace(projection, weights=start)
        rule = self._rule(numbers, projection.rule, source, target, weight) if projection.rule else None
        return ProjectionPlan(
            projection.name, source.name, variable, target.name, projection.port, kind, root, transpose, n_pre, n_post,
            rule, weight, factor, shape, (source.shape, target.shape), start,
        )  # fmt: skip

    def _weight_shape(
        self, projection: Projection, source: PopulationPlan, target: PopulationPlan, where: str
    ) -> tuple[int, ...]:
        kind = projection.connectivity
        if isinstance(kind, OneToOne):
            return (target.n,)
        if isinstance(kind, Dense | Kernel):
            return (source.n, target.n)
        if projection.tied is not None:
            raise CircuitError(f"{where}: only dense projections can be tied; give the convolution weights of its own.")
        if target.shape is None:
            raise CircuitError(
                f"{where}: '{target.name}' has {target.n} cells and no maps; give it n = (maps, height, width)."
            )
        if isinstance(kind, PerMap):
            if source.n != 1:
                raise CircuitError(
                    f"{where}: '{source.name}' has {source.n} cells; wanted one cell, such as that of 'one'."
                )
            return (1, target.maps)
        if source.shape is None:
            raise CircuitError(
                f"{where}: '{source.name}' has {source.n} cells and no maps; give it n = (maps, height, width)."
            )
        try:
            maps = kind.maps(source.shape)
        except CircuitError as error:
            raise CircuitError(f"{where}: {error}") from error
        if maps != target.shape[1:]:
            raise CircuitError(
                f"{where}: it drives maps of {maps[0]} x {maps[1]} cells, but those of '{target.name}' have {target.shape[1]} x "
                f"{target.shape[2]}; change the population's n, or stride, padding, upsample or pool."
            )
        return (source.maps * kind.size**2, target.maps)

    def _tie(self, projection: Projection, n_pre: int, n_post: int, where: str) -> tuple[str, bool]:
        assert projection.tied is not None
        by_name = {p.name: p for p in self.circuit.projections}
        root, transpose = projection.tied.to, projection.tied.transpose
        if root not in by_name:
            raise CircuitError(f"{where}: tied to an unknown projection. {unknown('projection', root, by_name)}")
        other = by_name[root]
        if other.tied is not None or not isinstance(other.connectivity, Dense | OneToOne):
            raise CircuitError(
                f"{where}: tied to '{root}', which has no dense or one-to-one weights of its own; tie to their owner."
            )
        if type(other.connectivity) is not type(projection.connectivity):
            raise CircuitError(
                f"{where}: {type(projection.connectivity).__name__} tied to '{root}', which is "
                f"{type(other.connectivity).__name__}; expected the same connectivity."
            )
        if root not in self.projections:  # the owner may stand later in the list
            self.projections[root] = self._projection(other)
        shape = (self.projections[root].n_pre, self.projections[root].n_post)
        if (shape[::-1] if transpose else shape) != (n_pre, n_post):
            raise CircuitError(
                f"{where}: needs weights of shape {(n_pre, n_post)}, but '{root}'"
                f"{' transposed' if transpose else ''} has {shape[::-1] if transpose else shape}."
            )
        return root, transpose

    def _like(self, projection: Projection, shape: tuple[int, int], seen: tuple[str, ...]) -> tuple[str, float, bool]:
        """The projection whose draw a `Like` start follows, the factor in all, and whether it is transposed."""
        assert isinstance(projection.weights, Like)
        where, by_name = f"Projection '{projection.name}'", {p.name: p for p in self.circuit.projections}
        name, factor, transpose = projection.weights.projection, projection.weights.factor, projection.weights.transpose
        if name not in by_name:
            raise CircuitError(f"{where}: starts like an unknown projection. {unknown('projection', name, by_name)}")
        other = by_name[name]
        if other.tied is not None and other.tied.to not in by_name:
            raise CircuitError(
                f"Projection '{name}': tied to an unknown projection. {unknown('projection', other.tied.to, by_name)}"
            )
        if other.tied is not None:
            transpose, factor = transpose != other.tied.transpose, factor * other.tied.factor
            other = by_name[other.tied.to]
        if other.name in (*seen, projection.name):
            raise CircuitError(f"{where}: it and '{name}' each start like the other; draw one of them.")
        if not isinstance(other.connectivity, Dense) or not isinstance(projection.connectivity, Dense):
            raise CircuitError(f"{where}: it starts like '{name}', which wants dense weights on both sides.")
        if isinstance(other.weights, Like):
            inner = (shape[1], shape[0]) if transpose else shape
            name, more, turned = self._like(other, inner, (*seen, projection.name))
            return name, factor * more, transpose != turned
        sizes = {p.name: int(np.prod(p.n)) for p in self.circuit.populations}
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

    def _rule(
        self, projection: Projection, rule: PlasticityRule, source: PopulationPlan, target: PopulationPlan,
        weight: Dimension,
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
            elif name in self.shared_names and name not in parameters:
                known[name] = self.shared_dimensions[name]
            elif name not in known:
                raise CircuitError(
                    f"{where}: unknown name '{name}' in 'dw/dt = {rhs}'; it is no rule parameter and no shared value."
                    f"{suggest(name, [*known, *self.shared_names, *(f'{v}_pre' for v in source.dimensions), *(f'{v}_post' for v in target.dimensions)])}"
                    " Variables of cells carry _pre or _post."
                )
        time = quantity("1*second")[1]
        change = weight / time
        got = dimensions_of(rhs, known, where)
        cure = (
            "Give its rate a unit of 1/time (eta = '1*Hz'), or divide by a time." if got is weight
            else "That is the weight's unit per second; check the units of its parameters."
        )  # fmt: skip
        _same_unit(got, change, f"{where}: 'dw/dt = {rhs}'", cure)
        for name, value in parameters.items():  # a time constant of a rule is above 0, a number it divides by not 0
            least = 0.0 if known[name] is time else -np.inf
            check_divisors("dw/dt", rhs, {name: value}, where, least)
        shared = tuple(sorted(n for n in names_in(rhs) if n in self.shared_names and n not in parameters))
        low_pass = None
        if rule.filter is not None:
            low_pass = seconds(rule.filter)
            if low_pass <= 0:
                raise CircuitError(f"{where}: filter = {rule.filter}; wanted a time above 0, or None for no low-pass.")
        rule = replace(rule, bounds=_bounds(rule.bounds, weight, where))
        self._check_whole_matrix(rule, projection, source, target, where)
        shared_kernel = isinstance(projection.connectivity, Conv2d | PerMap)
        try:
            terms = separate(rhs, parameters, shared)
            if shared_kernel and any(t.w_power and t.decay is None for t in terms):
                raise CircuitError(
                    f"{where}: in 'dw/dt = {rhs}' the weight meets factors of cells; one weight of a convolution has many cells, so it may decay "
                    "(-k*w) and no more."
                )
            return RulePlan(rule, rhs, parameters, shared, terms, filter=low_pass)
        except NotSeparable as error:
            return RulePlan(rule, rhs, parameters, shared, None, str(error), low_pass)

    def _check_whole_matrix(
        self, rule: PlasticityRule, projection: Projection, source: PopulationPlan, target: PopulationPlan, where: str
    ) -> None:
        """What `symmetric` and `exact` ask of a rule."""
        for name, asked in (("symmetric", rule.symmetric), ("exact", rule.exact is not None)):
            square = source.n == target.n and isinstance(projection.connectivity, Dense)
            if asked and (not square or rule.apply == "now"):
                raise CircuitError(
                    f"{where}: {name} with apply = '{rule.apply}' between {source.n} and {target.n} cells; wanted square weights and "
                    "apply='phase' or 'trial'."
                )
        if rule.exact is None:
            return
        if rule.apply != "trial" or rule.filter is not None or rule.bounds != (None, None):
            raise CircuitError(f"{where}: an exact form takes apply='trial', no filter and no bounds.")
        start = projection.weights
        if not (
            isinstance(start, Gram)
            or (isinstance(start, Given) and np.array_equal(start.values, np.transpose(start.values)))
        ):
            raise CircuitError(
                f"{where}: an inverse correlation is symmetric; start its weights from Gram() or a symmetric Given(...)."
            )
        if rule.exact.rate not in source.dimensions:
            raise CircuitError(f"{where}: {unknown(f'variable of {source.name}', rule.exact.rate, source.dimensions)}")

    # ---------------------------------------------------------------- protocol

    def _phases(self, sign: int = 1) -> Iterator[PhasePlan]:
        protocol = self.circuit.protocol
        if not protocol.phases:
            raise CircuitError("The protocol has no phase; give Protocol(phases=(Phase('free', '100*ms'),)).")
        expanded = list(self._expanded())
        names = [name for name, _, _, _ in expanded]
        bases = dict.fromkeys(phase.name for _, phase, _, _ in expanded)
        for population in self.populations.values():
            for hold in population.holds:
                if hold.phase not in (*names, *bases):
                    raise CircuitError(
                        f"Population '{population.name}': the hold '{hold.name}' waits for a phase. "
                        f"{unknown('phase', hold.phase, [*bases, *names])}"
                    )
        rules = {p.rule.rule.name for p in self.projections.values() if p.rule}
        for name_of_phase, phase, window, named in expanded:
            length = seconds(phase.duration)
            if length <= 0:
                raise CircuitError(f"Phase '{phase.name}' lasts {phase.duration}; wanted a positive time.")
            shared = {**dict.fromkeys(self.shared_names, None), **protocol.shared, **phase.shared}
            for name, value in shared.items():
                if value is None:
                    raise CircuitError(
                        f"Phase '{phase.name}' gives no value for the shared variable '{name}'; add it there or to "
                        "Protocol(shared={...})."
                    )
            numbers = {
                n: self._shared_value(n, v, f"Phase '{phase.name}'") * (sign if isinstance(v, RandomSign) else 1)
                for n, v in shared.items()
            }
            self._check_shared_constants(numbers, phase.name)
            clamps: dict[tuple[str, str], str] = {}
            fields = (*STIMULUS_FIELDS, *WINDOW_FIELDS) if window is not None else STIMULUS_FIELDS
            for name, source in named.items():
                population, variable = self._input(name)
                if source not in fields:
                    outside = " (label, same and multiplicity are fields of Windows)" if source in WINDOW_FIELDS else ""
                    raise CircuitError(f"The clamp of '{name}'{outside}: {unknown('stimulus field', source, fields)}")
                clamps[population, variable] = source
            for name in phase.plastic:
                if name not in rules:
                    raise CircuitError(f"Phase '{phase.name}': {unknown('plasticity rule', name, sorted(rules))}")
            plastic = tuple(p.name for p in self.projections.values() if p.rule and p.rule.rule.name in phase.plastic)
            holds = tuple(
                (p.name, hold)
                for p in self.populations.values()
                for hold in p.holds
                if hold.phase in (name_of_phase, phase.name)  # of this window, or of each
            )
            yield PhasePlan(name_of_phase, length, numbers, clamps, plastic, holds, sign, window)

    def _check_shared_constants(self, numbers: Mapping[str, float], phase: str) -> None:
        for p in self.populations.values():
            if own := {n: numbers[n] for n in p.shared}:
                where = f"Population '{p.name}' in phase '{phase}'"
                states = {x: p.written.get(x, text) for x, text in p.ode.items()}
                subexpressions = p.subexpressions | {n: t for n, t in p.written.items() if n not in states}
                check_constants(states, subexpressions, own | p.parameters, p.dimensions, where)

    def _input(self, name: str) -> tuple[str, str]:
        """``"inp.r"`` -> ("inp", "r"), the input that a clamp names."""
        population, _, variable = name.partition(".")
        if population not in self.populations:
            raise CircuitError(f"A clamp names '{name}'. {unknown('population', population, self.populations)}")
        if variable not in self.populations[population].inputs:
            raise CircuitError(
                f"A clamp names '{name}'. "
                f"{unknown(f'input of {population}', variable, self.populations[population].inputs)}"
            )
        return population, variable

    def _expanded(self) -> Iterator[tuple[str, Phase, Window | None, Mapping[str, str]]]:
        """The protocol's phases one after another, those of windows once per window, with the window and all clamps."""
        everywhere = self.circuit.protocol.clamps
        for item in self.circuit.protocol.phases:
            if isinstance(item, Phase):
                yield item.name, item, None, {**everywhere, **item.clamps}
                continue
            if not item.phases:
                raise CircuitError("Windows without a phase; give Windows((Phase('settle', '200*ms'), ...)).")
            clamps = [{**everywhere, **item.clamps, **phase.clamps} for phase in item.phases]
            for c in clamps:  # names first: the labels are counted by what they are clamped to
                for name in c:
                    self._input(name)
            shown = {n.partition(".")[0] for c in clamps for n, source in c.items() if source in ("label", "target")}
            sizes = {self.populations[p].n for p in shown}
            if len(sizes) != 1:
                got = f"those clamped have {sorted(sizes)} cells" if sizes else "nothing is clamped to it"
                raise CircuitError(
                    f"Windows show labels: {got}; wanted inputs of one number of cells, the classes, clamped to 'label' (or 'target')."
                )
            classes = sizes.pop()
            if classes < 2:
                raise CircuitError("Windows over the labels of 1 class; wanted at least two.")
            count = {"all": classes, "true_and_random": 2, "true": 1}[item.labels]
            for index in range(count):
                window = Window(index, count, item.labels, classes)
                for phase, named in zip(item.phases, clamps, strict=True):
                    yield f"{phase.name}[{index}]", phase, window, named

    def fields(self, phase: PhasePlan, fields: Mapping[str, Any], seed: int, trial: int) -> Mapping[str, Any]:
        """The fields that a phase's clamps may name: those of the stimuli (arrays of any library), and in a window those of `Windows`.

        The wrong labels of a trial follow from the seed and the trial's number alone.
        """
        window = phase.window
        if window is None or not {*phase.clamps.values()} & {*WINDOW_FIELDS}:
            return fields
        target = fields["target"]
        own = np.argmax(target.cpu().numpy() if hasattr(target, "cpu") else target, axis=1)
        shown = np.full(len(own), window.index)
        multiplicity = 1.0
        if window.labels != "all":
            shown = own
        if window.labels == "true_and_random" and window.index == 1:
            shift = np.random.default_rng([seed, 6, trial]).integers(1, window.classes, len(own))
            shown, multiplicity = (own + shift) % window.classes, window.classes - 1.0
        rows = {
            "label": np.eye(window.classes)[shown],
            "same": (shown == own).astype(float)[:, None],
            "multiplicity": np.full((len(own), 1), multiplicity),
        }
        if hasattr(target, "new_tensor"):
            rows = {name: target.new_tensor(value) for name, value in rows.items()}
        return {**fields, **rows}

    def _check_readout(self) -> None:
        readout = self.circuit.readout
        if readout is not None:
            self.variable(readout.variable)
            if readout.phase not in [p.name for p in self.phases]:
                raise CircuitError(f"Readout: {unknown('phase', readout.phase, [p.name for p in self.phases])}")
        for name, measure in self.circuit.measures.items():
            if isinstance(measure, Ratio | Silent):
                for variable in (*measure.of, *measure.to) if isinstance(measure, Ratio) else (measure.variable,):
                    self.variable(variable)
                names = [p.name for p in self.phases]
                if measure.phase not in names:
                    raise CircuitError(f"Measure '{name}': {unknown('phase', measure.phase, names)}")
                if readout is not None and names.index(measure.phase) > names.index(readout.phase):
                    raise CircuitError(
                        f"Measure '{name}' is taken in phase '{measure.phase}'; to evaluate, a trial ends with the readout's phase, "
                        f"'{readout.phase}'. Take it there or before."
                    )
                continue
            owners = [p.name for p in self.projections.values() if p.root == p.name]
            for projection in (measure.of, measure.to) if isinstance(measure, Angle) else (measure.of,):
                if projection not in owners:
                    raise CircuitError(
                        f"Measure '{name}': {unknown('projection with weights of its own', projection, owners)}"
                    )
            of = self.projections[measure.of]
            to = self.projections[measure.to] if isinstance(measure, Angle) else of
            if of.weight_shape != to.weight_shape[::-1]:
                what = "one shape, once the second is transposed" if isinstance(measure, Angle) else "square weights"
                raise CircuitError(
                    f"Measure '{name}': weights of {' x '.join(map(str, of.weight_shape))} ('{of.name}') and {' x '.join(map(str, to.weight_shape))} ('{to.name}'); wanted {what}."
                )
        if self.circuit.reference is not None:
            for name in (*self.circuit.reference.weights, *self.circuit.reference.biases):
                if name and name not in self.projections:
                    raise CircuitError(f"Reference: {unknown('projection', name, self.projections)}")

    def _check_relaxation(self) -> None:
        scheme = self.circuit.relaxation
        if scheme is None:
            return
        with_states = [p.name for p in self.populations.values() if p.ode]
        for name in (*scheme.order, *scheme.instant, *scheme.unslowed):
            if name not in with_states:
                raise CircuitError(f"Relaxation: {unknown('population with states', name, with_states)}")
        if sorted(scheme.order) != sorted(with_states):
            raise CircuitError(
                f"Relaxation: the order {', '.join(scheme.order)} must visit each population with states once: "
                f"{', '.join(with_states)}."
            )
        names = [p.name for p in self.phases]
        for phase in (*scheme.sweeps, *scheme.restart):
            if phase not in names:
                raise CircuitError(f"Relaxation: {unknown('phase', phase, names)}")
        for restart in scheme.restart.values():
            for state, variable in restart.items():
                population, of = self.variable(state)
                self.variable(f"{population}.{variable}")
                if of not in self.populations[population].ode:
                    raise CircuitError(f"Relaxation: restart of '{state}', which is no state.")
        if names[0] in scheme.restart:
            raise CircuitError(
                f"Relaxation: restart in the first phase, '{names[0]}': there is nothing yet to restart from."
            )
        self.check_step(seconds(scheme.dt))

    # ---------------------------------------------------------------- what the engines ask

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
        slowest = {p.name: float(np.max(-1 / np.real(rates))) for _, p, rates in self._decay_rates()}
        return max(((p, t) for p, t in slowest.items() if t > trial), key=lambda found: found[1], default=None)

    @property
    def clamped_fields(self) -> list[str]:
        """Fields of a stimulus that some clamp names, or follows from."""
        named = {source for phase in self.phases for source in phase.clamps.values()}
        return sorted({"target" if source in WINDOW_FIELDS else source for source in named})

    @cached_property
    def clamped_sizes(self) -> dict[tuple[str, int], str]:
        """``{(field of the stimulus, values per sample): a variable that is clamped to it}``; fields of windows follow from the target."""
        sizes: dict[tuple[str, int], str] = {}
        for phase in self.phases:
            for (population, variable), source in phase.clamps.items():
                key = (source, self.populations[population].n)
                if phase.window is not None and source in WINDOW_FIELDS:
                    key = ("target", phase.window.classes)
                sizes.setdefault(key, f"{population}.{variable}")
        return sizes

    def stimulus_size(self, source: str) -> int | None:
        """Number of values that a stimulus field needs, None when nothing is clamped to it."""
        sizes = {self.populations[p].n for phase in self.phases for (p, _), s in phase.clamps.items() if s == source}
        if source == "target":
            sizes |= {phase.window.classes for phase in self.phases if phase.window is not None}
        return next(iter(sizes)) if len(sizes) == 1 else None

    def sent(self, population: str) -> set[str]:
        """Variables of a population that projections read."""
        return {q.variable for q in self.projections.values() if q.source == population}

    def check_no_overlaps(self, level: str) -> None:
        """Refuse overlaps on a level in time, where the samples or labels that they compare are not there at once."""
        for p in self.populations.values():
            for a in p.assignments:
                if a.over == "overlap":
                    raise UnsupportedError(
                        f"{level} cannot run population '{p.name}': its overlap '{a.name}' compares samples (or labels) that are all there at once, "
                        "and here they follow one another. Use torch:steady, or a circuit without it (decorrelation=0)."
                    )

    def plastic(self) -> list[ProjectionPlan]:
        """Projections that some phase makes plastic."""
        names = {name for phase in self.phases for name in phase.plastic}
        return [p for p in self.projections.values() if p.name in names]

    def steps(self, dt: float) -> list[int]:
        """Number of steps of each phase."""
        counts = []
        for phase in self.phases:
            exact = phase.seconds / dt
            if exact > MOST_STEPS:
                raise NeurosimError(
                    f"The phase '{phase.name}' lasts {phase.seconds * 1e3:g} ms, which is {exact:.3g} steps of "
                    f"dt = {dt * 1e3:g} ms; wanted at most {MOST_STEPS:.3g}: a larger dt, or a shorter phase."
                )
            if abs(exact - round(exact)) > 1e-6 * max(exact, 1) or round(exact) < 1:
                raise NeurosimError(
                    f"The phase '{phase.name}' lasts {phase.seconds * 1e3:g} ms, which is no whole number of steps of "
                    f"dt = {dt * 1e3:g} ms; choose a dt that divides it."
                )
            counts.append(round(exact))
        return counts

    def _decay_rates(self) -> Iterator[tuple[PhasePlan, PopulationPlan, np.ndarray]]:
        """Decaying eigenvalues (1/s) of each cell's linear part in each phase."""
        for phase in self.phases:
            for population in self.populations.values():
                numbers = {n: phase.shared[n] for n in population.shared}
                numbers |= population.parameters
                rates = linear_rates(population.ode, population.subexpressions, numbers)
                rates = rates[np.real(rates) < 0]
                if rates.size:
                    yield phase, population, rates

    def time_constants(self) -> list[float]:
        """Time constants (s) of the cells' linear parts, of all phases."""
        return [float(t) for _, _, rates in self._decay_rates() for t in -1 / np.real(rates)]

    def check_step(self, dt: float) -> None:
        """Refuse a step beyond the stability limit of explicit Euler, ``|1 + dt*lambda| <= 1``, cell by cell."""
        for phase, population, rates in self._decay_rates():
            limit = float(np.min(-2 * np.real(rates) / np.abs(rates) ** 2))
            if dt > limit * (1 + 1e-9):
                raise NeurosimError(
                    f"dt = {dt * 1e3:g} ms is beyond the stability limit of explicit Euler for population "
                    f"'{population.name}' in phase '{phase.name}': dt <= -2 Re(lambda)/|lambda|^2 = {limit * 1e3:g} ms "
                    f"(fastest rate {np.abs(rates).max():g}/s). Choose a smaller dt."
                )
        for projection in self.plastic():
            assert projection.rule is not None
            tau = projection.rule.filter
            if tau is not None and dt > 2 * tau * (1 + 1e-9):
                raise NeurosimError(
                    f"dt = {dt * 1e3:g} ms is beyond the stability limit of explicit Euler for the filter of rule "
                    f"'{projection.rule.rule.name}' of projection '{projection.name}': dt <= 2 tau = {2e3 * tau:g} ms. "
                    "Choose a smaller dt."
                )

    def warn_of_growth(self, level: str) -> None:
        """Warn of cells whose own equations, linear and without a threshold, grow away from every fixed point."""
        for phase in self.phases:
            for p in self.populations.values():
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
                        stacklevel=2,
                    )

    def check_rules(self, level: str) -> None:
        """Refuse rules that do not split into factors, by name; brian2:equations alone runs them."""
        for projection in self.plastic():
            assert projection.rule is not None
            if level != "brian2:equations":
                projection.rule.separated(projection.name, level)

    def rule_factors(self, projection: ProjectionPlan, level: str) -> list[tuple[Term, str, str]]:
        """``(term, name of its post factor, name of its pre factor)`` of a plastic projection."""
        assert projection.rule is not None
        terms = projection.rule.separated(projection.name, level)
        return [(t, f"ns_post_{projection.name}_{k}", f"ns_pre_{projection.name}_{k}") for k, t in enumerate(terms)]

    def initial_weights(self, seed: int = 0) -> dict[str, np.ndarray]:
        """See `Circuit.initial_weights`."""
        self.check_memory()
        weights: dict[str, np.ndarray] = {}
        by_name = {p.name: p for p in self.circuit.projections}
        for plan in self.projections.values():
            start = plan.start
            rng = np.random.default_rng([seed, zlib.crc32(plan.name.encode())])
            if plan.root != plan.name or isinstance(start, Like):
                continue
            if isinstance(plan.connectivity, Kernel):
                weights[plan.name] = np.array(plan.connectivity.matrix, dtype=float)
            elif isinstance(plan.connectivity, OneToOne):
                if isinstance(start, Given):
                    start = Given(np.reshape(start.values, (1, -1)))
                weights[plan.name] = start.draw(rng, 1, plan.n_post)[0] if start else np.ones(plan.n_post)
            else:
                assert start is not None
                weights[plan.name] = start.draw(rng, *plan.weight_shape)  # type: ignore[call-arg]
        for plan in self.projections.values():
            if isinstance(by_name[plan.name].weights, Like) and plan.root == plan.name:
                name, factor, transpose = self._like(by_name[plan.name], (plan.n_pre, plan.n_post), ())
                weights[plan.name] = np.ascontiguousarray(factor * (weights[name].T if transpose else weights[name]))
        return {name: weights[name] for name in self.projections if name in weights}

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


def _unique(what: str, names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise CircuitError(f"Two of one name: {what} '{name}'; rename one.")


def _bounds(bounds: Any, weight: Dimension, where: str) -> tuple[float | None, float | None]:
    """Limits of the weights in base SI units."""
    low, high = (None if b is None else amount(b, weight, f"{where}: a limit in bounds") for b in bounds)
    for value in (low, high):
        if value is not None and (isinstance(value, bool) or np.ndim(value) or not np.isfinite(value)):
            raise CircuitError(f"{where}: bounds = {bounds!r}; wanted two numbers, None for no limit.")
    if low is not None and high is not None and low > high:
        raise CircuitError(f"{where}: bounds = {bounds!r}; wanted the lower limit first.")
    return low, high


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


def _same_unit(
    got: Dimension, wanted: Dimension, where: str, cure: str = "Check the units of its parameters and ports."
) -> None:
    if got is not wanted:
        raise CircuitError(
            f"{where}: the right-hand side has the unit {unit_text(got)}; wanted {unit_text(wanted)}. {cure}"
        )
