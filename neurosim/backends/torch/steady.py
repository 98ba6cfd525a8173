"""`torch:steady`: the circuit's fixed point for each stimulus and phase, and the rules integrated over their gate.

Per cell and phase SymPy solves the compartments for their steady state, with rates taken as known
(`neurosim.equations.steady`). Across the network one *sweep* visits the populations in breadth-first depth from the clamped
sources: drives from the present rates, late variables, new states, new rates. Sweeps repeat until no state moves by more
than the tolerance, by default with Anderson acceleration per sample (depth 6, undamped; Walker & Ni 2011). A sample that misses
the tolerance, or at whose fixed point a cell is unstable, is counted in `Result.unsettled`, never passed over in silence.

With the method ``relaxation`` the circuit's own published scheme takes the place of this solver (`neurosim.description.Relaxation`): a fixed
number of sweeps, the residual reported as it is.

Where the states depend on one another in no circle, each is visited once, after all that it depends on; nothing is left to settle then.

`Windows` of all labels are run at once: their labels are rows of an axis beside that of the samples (`neurosim.backends.torch.axes`). Other windows follow
one another like any phases.

A rule's change is its right-hand side F at the fixed point times the length T of the phase; a filtered rule's is the exact
integral of its trace D over the phase, ``F T + (D - F) tau (1 - exp(-T/tau))``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from tqdm import tqdm

from neurosim.backends import SOLVERS
from neurosim.backends.engine import Learn, Options, check_stimuli
from neurosim.backends.result import Result, ResultBuilder
from neurosim.backends.stepping.kernels import Pairs, kernels_of
from neurosim.backends.stepping.memory import constants_of, shared_values
from neurosim.backends.stepping.reductions import pooled
from neurosim.backends.torch.arrays import TorchArrays
from neurosim.backends.torch.axes import Axes, Factors, axes_of_windows, check_pools, pool_text, split, union
from neurosim.backends.torch.convolution import BiasPerMap, Convolution
from neurosim.backends.torch.order import numbers_in, order_of_states, steady_states
from neurosim.backends.torch.relaxation import Sweeps, Visit, compile_sweeps
from neurosim.backends.torch.stability import CellStability
from neurosim.backends.torch.workers import Workers
from neurosim.description import OneToOne
from neurosim.equations import NotSeparable, compile_block, evaluate, linear_terms, names_in, seconds
from neurosim.equations.separate import Term
from neurosim.errors import DivergenceError, UnsupportedError, unknown
from neurosim.plan import Assignment, DriveKey, PhasePlan, Plan, PopulationPlan, ProjectionPlan, RulePlan
from neurosim.traces.recording import Recording

LEVEL = "torch:steady"
ANDERSON_DEPTH = 6

#: Pre factor, post factor (of a pooled convolution with the positions that won), scale.
Product = tuple[torch.Tensor, Any, float]
Block = Callable[[dict[str, Any]], None]
Place = tuple[int, torch.Size, tuple[int, ...]]


class Transform(Protocol):
    """What may stand between a trial's changes and the weights."""

    def rate(self, name: str) -> float | None:
        """The factor with which a projection's change is added to its weights; None where the transform is to be called with it."""
        ...

    def __call__(self, changes: dict[str, torch.Tensor]) -> None:
        """Change the weights by a trial's changes, by projection."""
        ...


@dataclass
class PopulationProgram:
    """What one population runs in one phase."""

    name: str
    states: list[str]  # that move in this phase
    early: Block
    still: Block  # those of them that no moving state reaches
    late: Block
    solve: Block
    finish: Block  # late variables for holds, rules, readout, recorders
    visit: Visit | None  # of a published relaxation
    sent: tuple[str, ...]  # variables that projections read
    driving: set[str]  # states that these follow from


@dataclass
class Step:
    """States of a population that settle at once, once those before them have."""

    population: str
    states: list[str]
    ports: list[str]
    solve: Block
    early: Block
    sends: bool


class SteadyEngine:
    """See `neurosim.backends.engine.Engine`.

    `transform`, when set, stands between the changes of a whole trial and the weights. `workers`, when set,
    average every mean over samples with the other processes that present shares of the same batch.
    """

    level = LEVEL

    def __init__(self, plan: Plan, weights: dict[str, np.ndarray], options: Options):
        plan.check_weights(weights)
        if options.method not in SOLVERS:
            raise unknown("solver of the steady level", options.method, SOLVERS)
        if options.method == "relaxation" and (
            any(q.listed for q in plan.projections.values())
            or any(a.axis not in ("", "population") for p in plan.populations.values() for a in p.assignments)
        ):
            raise UnsupportedError(
                "solver = 'relaxation' knows dense and one-to-one projections alone, and no pools but those over populations. Use 'anderson' or 'sweeps'."
            )
        if options.method == "relaxation" and plan.circuit.relaxation is None:
            raise UnsupportedError(
                f"The circuit '{plan.circuit.name}' names no published relaxation, so solver = 'relaxation' has no meaning for it. Use "
                "'anderson' or 'sweeps'."
            )
        for p in plan.populations.values():
            for found, what in (
                (p.spiking, "its cells spike; a spiking cell has no steady rate of its own"),
                (p.noises, "its states carry white noise; describe the circuit without it"),
                (p.timed, "its equations read the time t"),
            ):  # fmt: skip
                if found:
                    raise UnsupportedError(
                        f"{LEVEL} has no fixed point for population '{p.name}': {what}. Use torch:trajectory or a Brian2 level."
                    )
        if plan.memory is not None:
            population, tau = plan.memory
            raise UnsupportedError(
                f"{LEVEL} has no memory from trial to trial: a state of '{population}' has the time constant {tau * 1e3:g} ms, longer than a trial, "
                "and goes on from one to the next (Protocol.reset = False). Use torch:trajectory or a Brian2 level, set reset = True, or make the slow "
                "variable a weight: a projection from the population 'one'."
            )
        self.plan, self.options = plan, options
        self.arrays = TorchArrays(options.dtype, options.device)
        self._weights = {name: self.arrays.asarray(w) for name, w in weights.items()}
        self._record: Recording | None = None
        self._rows_at: dict[str, dict[tuple[str, str], np.ndarray]] = {}  # values at the ends of a trial's phases
        self._versions = dict.fromkeys(self._weights, 0)
        self._constants = {p.name: constants_of(p, self.arrays, options.dt) for p in plan.populations.values()}
        self._changes: dict[str, torch.Tensor] = {}
        self._products: dict[str, list[Product]] = {}  # that a trial still has to add
        self._waiting_rates: dict[str, torch.Tensor] = {}  # rates that a batch rule waits with
        self._coefficients: dict[tuple[str, int, str], list[tuple[Term, str, str, float]]] = {}
        self._programs: dict[tuple[Any, ...], list[PopulationProgram]] = {}
        self._steps_of: dict[tuple[str, int], list[Step] | None] = {}
        self._labels = self._joined()
        self._axes: dict[str, dict[str, Axes]] = axes_of_windows(plan) if self._labels else {}
        self._factors: dict[tuple[str, str], list[tuple[Factors, str]]] = {}
        try:
            for phase in plan.phases:
                self._find_factors(phase)
            for p in plan.populations.values() if self._labels else ():
                check_pools(self._axes[p.name], p)
        except NotSeparable:  # a rule or a pool mixes samples, labels and cells: one window after another
            self._labels, self._axes = [], {}
        gathered = [a for p in plan.populations.values() for a in p.assignments if a.reduction]
        #: Whether samples meet in the states' equations.
        self._coupled = any(a.axis == "batch" for a in gathered)
        if (
            any(a.reduction and a.reduction.all_samples for a in gathered)
            and not self._labels
            and any(p.turn is not None for p in plan.phases)
        ):
            raise UnsupportedError(
                f"'{plan.circuit.name}' has overlaps and windows that {LEVEL} runs one after another, so the labels to be compared are not there at "
                "once. Use Windows(labels='all') as the whole protocol, or a circuit without overlaps (decorrelation=0)."
            )
        self._label: int | None = None  # that `_values` reads
        self._initial: dict[int, dict[str, dict[str, torch.Tensor]]] = {}
        self._kernels: dict[str, Any] = kernels_of(plan, self.arrays)
        self._functions = self.arrays.functions | {
            "ns_pool_batch": self._pool_batch, "ns_overlap_batch": lambda x, maps: self._overlap(x),
            "ns_overlap_of_labels": lambda x: self._overlap(x, False),
        }  # fmt: skip
        self._compiled: dict[tuple[str, int], Sweeps] = {}
        self._stabilities: dict[tuple[str, int, str], CellStability] = {}
        self.transform: Transform | None = None
        self.workers: Workers | None = None
        self.noise, self.trial = None, 0
        self._order = _breadth_first(plan)
        scheme = plan.circuit.relaxation
        self._restarts: dict[str, set[str]] = {}  # variables that states are restarted from
        if scheme is not None:
            step, floor = seconds(scheme.dt), seconds(scheme.floor)
            for state, variable in (pair for restart in scheme.restart.values() for pair in restart.items()):
                self._restarts.setdefault(state.partition(".")[0], set()).add(variable)
            self._steps = {
                phase: [(max(step / (1.0 + scheme.slowing * s), floor), step) for s in range(count)]
                for phase, count in scheme.sweeps.items()
            }
        self._read = {name for p in plan.populations.values() for name in p.shared}
        self._find_units()

    def _find_units(self) -> None:
        """Fixed one-to-one weights that are all 1: their drives are the rates themselves."""
        plastic = {q.name for q, _ in self.plan.plastic()}
        self._units = {
            q.name for q in self.plan.projections.values()
            if isinstance(q.connectivity, OneToOne) and q.root not in plastic and q.factor == 1.0
            and bool((self._weights[q.root] == 1).all())
        }  # fmt: skip
        self._compiled.clear()

    def weights(self) -> dict[str, np.ndarray]:
        return {name: self.arrays.to_numpy(w).copy() for name, w in self._weights.items()}

    def set_weights(self, weights: dict[str, np.ndarray]) -> None:
        for name, value in weights.items():
            self._weights[name].copy_(self.arrays.asarray(value))
            self._versions[name] += 1
        self._find_units()

    # ---------------------------------------------------------------- windows of all labels

    def _joined(self) -> list[int]:
        """The labels that are run at once as rows; empty where the trial's phases have to follow one another.

        They may where the whole trial is windows of all labels whose rules collect their changes, and nothing is kept from one window to
        the next.
        """
        plan, phases = self.plan, self.plan.phases
        labels = sorted({p.turn.index for p in phases if p.turn is not None})
        bases = list(dict.fromkeys(p.base for p in phases))
        whole = [f"{base}[{k}]" for k in labels for base in bases] == [p.name for p in phases]
        if not whole or any(p.turn is None or not p.turn.loop.at_once or p.holds for p in phases):
            return []
        for _, rule in plan.plastic():
            if rule.apply != "trial" or rule.filter is not None or rule.batch is not None:
                return []
        for p in plan.populations.values():
            sent = plan.sent(p.name)
            held = [steady_states(p, phase, sent, LEVEL)[1] for phase in phases[: len(bases)]]
            if any(x in held[0] and any(x not in h for h in held) for x in p.ode):
                return []  # such a state comes from the window before
        return labels if plan.circuit.protocol.reset and self.options.method != "relaxation" else []

    def _lead(self, axes: Axes) -> tuple[int, ...]:
        """The leading axes of a variable: samples, and labels where these are run at once."""
        if not self._labels:
            return (self.batch,)
        return (self.batch if axes.sample else 1, len(self._labels) if axes.label else 1)

    def _full(self, population: str, variable: str, n: int) -> torch.Tensor:
        """A variable with all of its axes written out."""
        axes = self._axes[population][variable] if self._labels else Axes()
        return self.arrays.expand(self.state[population][variable], (*self._lead(axes), n))

    def _pool_batch(self, x: torch.Tensor, maps: int) -> torch.Tensor:
        mean = x.mean(0, keepdim=True)
        if self.workers is not None:
            self.workers.average(mean)
        return self.arrays.functions["ns_pool_map"](mean, maps)

    def _overlap(self, x: torch.Tensor, of_samples: bool = True) -> torch.Tensor:
        """``(R R^T - I) R/rows``; rows are the samples (of all workers), or the labels of what differs between labels."""
        rows = x.flatten(0, -2)
        every = self.workers.gather(rows) if self.workers is not None and of_samples else rows
        return (rows @ every.T @ every).sub_(rows).div_(len(every)).reshape(x.shape)

    # ---------------------------------------------------------------- programs

    def _program(self, phase: PhasePlan, learn: bool, ends: bool) -> list[PopulationProgram]:
        record = self._record
        recorded = record.variables if record is not None and any(map(record.wants, self._same(phase))) else []
        key = (phase.name, phase.sign, learn, ends, tuple(recorded))
        if key not in self._programs:
            factors: dict[str, list[Assignment]] = {p: [] for p in self._order}
            for name in phase.plastic if learn else ():
                projection = self.plan.projections[name]
                rule = self.plan.rules[name].batch
                if rule is not None:
                    factors[projection.source].append(Assignment(_waiting(name), f"1*{rule.reads()}"))
                    continue
                for term, post, pre in self.plan.rule_factors(projection, LEVEL):
                    factors[projection.source].append(Assignment(pre, term.pre))
                    if not self._labels:
                        factors[projection.target].append(Assignment(post, term.post))
                    for part, name in self._factors.get((projection.name, post), []):
                        for letter, text in (("e", part.scalar), ("s", part.sample), ("l", part.label)):
                            factors[projection.target].append(Assignment(f"{name}{letter}", text))
            self._programs[key] = [
                self._population(self.plan.populations[n], phase, factors[n], ends, recorded) for n in self._order
            ]
        return self._programs[key]

    def _find_factors(self, phase: PhasePlan) -> None:
        """Labels at once: the post factors of rules as products of what differs between samples and what differs between labels."""
        for name in phase.plastic if self._labels else ():
            q = self.plan.projections[name]
            for term, post, pre in self.plan.rule_factors(q, LEVEL):
                axes = union(self._axes[q.source], term.pre)
                if axes.sample and axes.label:
                    raise NotSeparable(f"'{term.pre}' differs between samples and labels.")
                self._axes[q.source][pre] = axes
                parts = split(term.post, self._axes[q.target], self.plan.populations[q.target])
                self._factors[name, post] = [(part, f"{post}_{k}") for k, part in enumerate(parts)]

    def _population(
        self, p: PopulationPlan, phase: PhasePlan, factors: list[Assignment], ends: bool,
        recorded: list[tuple[str, str]],
    ) -> PopulationProgram:  # fmt: skip
        sent = self.plan.sent(p.name)
        solution, held = steady_states(p, phase, sent, LEVEL)
        needed = {n for text in solution.values() for n in names_in(text)}
        visit = self._visit(p, sent, numbers_in(p, phase), solution)
        needed |= set(visit.needed) if visit else set()
        early, late = p.blocks(needed | sent)
        wanted = {v for ph in self._same(phase) for pop, v in self._kept(ends).wanted(ph) if pop == p.name}
        wanted |= {v for pop, v in recorded if pop == p.name}
        wanted |= {hold.of for pop, hold in phase.holds if pop == p.name}
        wanted |= {n for a in factors for n in names_in(a.expression)}
        wanted |= self._restarts.get(p.name, set())
        known = {a.name for a in early}
        every = [a for block in p.blocks(needed | sent | wanted) for a in block if a.name not in known]
        constants = self._constants[p.name]

        def block(assignments: list[Assignment]) -> Block:
            return self._block(p, assignments)

        driving = p.closure(sent) & set(solution)
        # All states are solved from one set of known values before any of them is stored.
        solve = [(f"ns_new_{x}", text) for x, text in solution.items()]
        return PopulationProgram(
            p.name, [x for x in p.ode if x not in held], block(early),
            block([a for a in early if not p.closure([a.name]) & set(solution)]), block(late),
            compile_block(solve, self._functions, constants), block([*every, *factors]),
            visit, tuple(sent), driving,
        )  # fmt: skip

    def _block(self, p: PopulationPlan, assignments: list[Assignment]) -> Block:
        """Assignments compiled; a sum over cells of what differs between samples and labels becomes a matrix product."""
        lines = []
        for a in assignments:
            axes = union(self._axes[p.name], a.expression) if self._labels else Axes(cells=True)
            if a.word == "overlap" and axes.label and not axes.sample:
                lines.append((a.name, f"ns_overlap_of_labels({a.expression})"))
            elif a.axis == "population" and axes.mixed:
                lines.append((a.name, pool_text(a.expression, self._axes[p.name], p)))
            elif a.reduction and a.axis == "population" and not axes.cells:
                lines.append((a.name, a.reduction.constant.format(n=p.n, x=a.expression)))
            elif a.word and not axes.cells:
                lines.append(pooled(replace(a, expression=f"({a.expression})*ns_ones")))
            else:
                lines.append(pooled(a))
        ones = {"ns_ones": self.arrays.zeros(p.n) + 1.0}
        return compile_block(lines, self._functions, self._constants[p.name] | ones)

    def _same(self, phase: PhasePlan) -> list[PhasePlan]:
        """The phases that one stands for: those of its name in all windows that run at once."""
        return [p for p in self.plan.phases if p.base == phase.base] if self._labels else [phase]

    def _steps_in_order(self, phase: PhasePlan, program: list[PopulationProgram]) -> list[Step] | None:
        """The order in which each state is visited once, None where they depend on one another in a circle."""
        key = (phase.name, phase.sign)
        if key in self._steps_of:
            return self._steps_of[key]
        plan, solutions = self.plan, {}
        for p in program:
            population = plan.populations[p.name]
            sent = plan.sent(p.name)
            solutions[p.name] = steady_states(population, phase, sent, LEVEL)[0] if p.states else {}
        order = order_of_states(plan, solutions)
        if order is None:
            self._steps_of[key] = None
            return None
        steps = []
        waiting = {name: set(texts) for name, texts in solutions.items()}
        for name, states in order:
            p = plan.populations[name]
            waiting[name] -= set(states)
            texts = {x: solutions[name][x] for x in states}
            needed = p.closure({n for text in texts.values() for n in names_in(text)})
            sent = plan.sent(name)
            late = p.blocks({n for text in texts.values() for n in names_in(text)})[1]
            known = {n for t in solutions[name].values() for n in names_in(t)}
            # What follows from these states, and from none that is still to come.
            follows = {a.name: p.closure([a.name]) for a in p.blocks(known | sent)[0]}
            early = [
                a
                for a in p.blocks(known | sent)[0]
                if set(states) & follows[a.name] and not waiting[name] & follows[a.name]
            ]
            lines = [pooled(a) for a in late] + [(f"ns_new_{x}", text) for x, text in texts.items()]
            steps.append(
                Step(
                    name, states, [port for port in p.ports if port in needed],
                    compile_block(lines, self._functions, self._constants[name]), self._block(p, early),
                    bool(p.closure(sent) & set(states)),
                )
            )  # fmt: skip
        self._steps_of[key] = steps
        return steps

    def _visit(
        self, p: PopulationPlan, sent: set[str], numbers: dict[str, float], solution: dict[str, str]
    ) -> Visit | None:
        """What the published relaxation does at a population, if it is asked for and the population has states."""
        scheme = self.plan.circuit.relaxation
        if scheme is None or self.options.method != "relaxation" or not solution:  # a source, or all its states held
            return None
        if p.name in scheme.instant:
            terms: dict[str, list[tuple[str, float]]] = {}
            read = {n for text in solution.values() for n in names_in(text)}
        else:
            scalars = {n: v for n, v in p.parameters.items() if not isinstance(v, np.ndarray)}
            terms = {
                x: parts for x, parts in linear_terms(p.ode, p.subexpressions, sent, numbers | scalars).items() if parts
            }
            read = {n for parts in terms.values() for term, _ in parts for n in names_in(term)}
        early, late = p.blocks(read | sent)
        instant = solution if p.name in scheme.instant else None
        targets = tuple(q.target for q in self.plan.projections.values() if q.source == p.name)
        return Visit(p, p.name in scheme.unslowed, terms, instant, late, early, targets)

    def _kept(self, ends: bool) -> ResultBuilder:
        return ResultBuilder(self.plan, LEVEL, self.arrays.dtype_name, 0.0, None, ends)

    # ---------------------------------------------------------------- the run

    @torch.no_grad()
    def present(
        self, stimuli: dict[str, np.ndarray], *, learn: Learn = "on", record: Recording | None = None, ends: bool = True,
    ) -> Result:  # fmt: skip
        started = time.perf_counter()
        kept = self._kept(ends)
        self._record = record
        unsettled, unstable = 0, 0
        self._changes, self._products, self._waiting_rates = {}, {}, {}
        samples = check_stimuli(self.plan, stimuli, 1) * (1 if stimuli else self.options.batch)
        first = True
        with tqdm(
            total=samples, desc=LEVEL, unit="sample", delay=2, disable=not self.options.progress, leave=False
        ) as bar:
            for start in range(0, samples, self.options.batch):
                fields = {n: v[start : start + self.options.batch] for n, v in stimuli.items()}
                try:
                    missed, grown = self._trial(fields, learn, kept, first)
                    unsettled, unstable = unsettled + missed, unstable + grown
                except DivergenceError:
                    if record is not None:
                        self._write_rows(record)  # of the phases before
                    raise
                bar.update(self.batch)
                first = False
        result = kept.result(self.weights() if ends else {}, {})
        if learn == "held":
            result.collected = {name: self.arrays.to_numpy(c).copy() for name, c in self._changes.items()}
        result.unsettled, result.unstable, result.seconds = unsettled, unstable, time.perf_counter() - started
        return result

    def _trial(
        self, fields: dict[str, Any], learn: Learn, kept: ResultBuilder, first: bool
    ) -> tuple[int, int]:  # fmt: skip
        """Present one batch; the numbers of samples, over its phases, that did not settle and that are unstable."""
        batch = len(next(iter(fields.values()), range(self.options.batch)))
        fields = {n: self.arrays.asarray(v) for n, v in fields.items()}
        if self._labels:
            fields = self._rows(fields)
        if first or self.plan.circuit.protocol.reset or self.batch != batch:
            self._reset(batch)
        unsettled, unstable, residual, before = 0, 0, 0.0, None
        missed, counts = self._none(), (0, 0)
        if self._record is not None:
            self._record.begin_trial(lambda name: self.arrays.to_numpy(self._weights[name]))
        relax = self._relax if self.options.method != "relaxation" else self._follow
        for phase in self.plan.trial_phases(self.options.seed, self.trial):
            if self._labels and phase.turn is not None and phase.turn.index != self._labels[0]:
                continue  # run as rows of the first window
            if self.workers is not None and phase.turn is not None and phase.turn.loop.draws:
                raise UnsupportedError(
                    "Windows with labels = 'true_and_random' draw wrong labels for a whole batch, and several workers have shares of it. Use "
                    "labels = 'all', or one process."
                )
            program = self._program(phase, learn != "off", kept.keep_ends)
            again = before is not None and self._continues(before, phase, learn)
            if not again:
                shown = fields if self._labels else phase.fields(fields, self.options.seed, self.trial)
                self._enter(phase, before, shown)
                residual, missed = relax(program, phase, kept)
            else:  # this is the fixed point of the phase before, with its residual
                self._share(phase)
            for p in program:
                if not p.states:  # no sweep visits it
                    self._fill_ports(self.plan.populations[p.name])
                p.finish(self.state[p.name])
            for population, hold in phase.holds:
                self.state[population][hold.name] = self.state[population][hold.of] + 0.0
            kept.begin(phase)
            self._check_finite(phase, kept)
            if not again:
                grown = self._unstable(program, phase)
                counts = int((missed | grown).sum()), int(grown.sum())
            unsettled, unstable = unsettled + counts[0], unstable + counts[1]
            for k, same in enumerate(self._same(phase)):
                self._label = k
                kept.finish(same, self._values, residual)
                self._keep_row(same)
            self._learn(phase, learn)
            before = phase
        if learn != "off":
            self._apply("trial", learn)
        self.trial += 1
        if self._record is not None:
            self._write_rows(self._record)
        return unsettled, unstable

    def _unstable(self, program: list[PopulationProgram], phase: PhasePlan) -> torch.Tensor:
        """The samples at whose fixed point some cell grows."""
        found = self._none()
        for p in program:
            cells = self._stability(p, phase)
            if cells.always is not None:
                found = found | cells.always
            elif not bool(found.all()):
                grown = cells.unstable(self.state[p.name]).any(dim=-1)
                found = found | (grown.any(dim=1) if self._labels else grown).expand(self.batch)
        return found

    def _none(self) -> torch.Tensor:
        return torch.zeros(self.batch, dtype=torch.bool, device=self.arrays.device)

    def _stability(self, p: PopulationProgram, phase: PhasePlan) -> CellStability:
        key = (phase.name, phase.sign, p.name)
        if key not in self._stabilities:
            self._stabilities[key] = CellStability.of(
                self.plan.populations[p.name], phase, p.states, self._functions, self._constants[p.name]
            )
        return self._stabilities[key]

    def _keep_row(self, phase: PhasePlan) -> None:
        """The values at the end of a phase, of a recording that wants it."""
        if self._record is not None and self._record.wants(phase):
            self._rows_at[phase.name] = {key: self._values(*key) for key in self._record.variables}

    def _write_rows(self, record: Recording) -> None:
        """A row per phase, at the time of its last step; windows that ran at once follow one another as they do in time."""
        step = 0
        for phase, count in zip(self.plan.phases, self._counts, strict=True):
            values = self._rows_at.pop(phase.name, None)
            if values is None and record.wants(phase):
                break  # it diverged
            record.begin_phase(phase, step)
            if values is not None:
                record.row(step + count - 1, lambda p, v, values=values: values[p, v])
            step += count
            record.end_phase(step)
        record.end_trial()

    def _continues(self, before: PhasePlan, phase: PhasePlan, learn: Learn) -> bool:
        """Whether nothing changes for the cells from one phase to the next."""
        scheme = self.plan.circuit.relaxation
        if scheme is not None and self.options.method == "relaxation" and phase.name in scheme.sweeps:
            return False
        if phase.clamps != before.clamps or before.holds or phase.turn != before.turn:
            return False
        if any(phase.shared[n] != before.shared[n] for n in self._read):
            return False
        rules = [self.plan.rules[n] for n in before.plastic] if learn == "on" else []
        return self.transform is not None or all(rule.apply == "trial" for rule in rules)

    def _reset(self, batch: int) -> None:
        self.batch = batch
        if batch not in self._initial:
            self._initial = {batch: self._initial_values()}
        self.state: dict[str, dict[str, Any]] = {name: dict(values) for name, values in self._initial[batch].items()}
        self._traces: dict[str, torch.Tensor] = {}
        self._drives: dict[DriveKey, tuple[int, int, torch.Tensor]] = {}
        self._winners: dict[str, torch.Tensor | None] = {}
        self._seen = {p: 0 for p in self.plan.populations}

    def _initial_values(self) -> dict[str, dict[str, torch.Tensor]]:
        """What states, inputs and held values are at the start of a trial."""
        state: dict[str, dict[str, torch.Tensor]] = {}
        for p in self.plan.populations.values():
            names = (*p.ode, *p.inputs, *(h.name for h in p.holds), *(d.name for d in p.derivatives))
            axes = self._axes[p.name] if self._labels else dict.fromkeys(names, Axes())
            # One number each, not written out: new values take their place, nothing is changed within them.
            state[p.name] = {
                n: self.arrays.full(p.initial.get(n, 0.0)).expand(
                    *self._lead(axes[n]), p.n if axes[n].cells or not self._labels else 1
                )
                for n in names
            }
        return state

    def _enter(self, phase: PhasePlan, before: PhasePlan | None, fields: Mapping[str, torch.Tensor]) -> None:
        clamped = before.clamps if before else {}
        # Other values under the same names.
        changed = phase.turn.loop.names if phase.turn and before and phase.turn != before.turn else ()
        if before is None:  # states that outlive a trial may have inputs left from its last phase
            clamped = dict.fromkeys([(p.name, x) for p in self.plan.populations.values() for x in p.inputs], "")
        for population, variable in clamped:
            if (population, variable) not in phase.clamps:
                self.state[population][variable] = 0.0 * self.state[population][variable]
                self._seen[population] += 1
        for (population, variable), source in phase.clamps.items():
            if clamped.get((population, variable)) != source or source in changed:
                value, n = fields[source], self.plan.populations[population].n
                if not self._labels:
                    value = self.arrays.expand(value, (self.batch, n))
                self.state[population][variable] = value
                self._seen[population] += 1
        for p in self.plan.populations.values():
            held = before is not None and any(name == p.name for name, _ in before.holds)
            if held or any(before is None or phase.shared[n] != before.shared[n] for n in p.shared):
                self._seen[p.name] += 1  # what it sends may read them
        self._share(phase)

    def _share(self, phase: PhasePlan) -> None:
        for name, s in self.state.items():
            s.update(shared_values(self.plan.populations[name], phase))

    def _rows(self, fields: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The fields of windows whose labels are run at once, as (samples or 1, labels or 1, cells or 1)."""
        rows = {name: value.unsqueeze(1) for name, value in fields.items()}
        every = self._one_hot
        rows["label"] = every[self._labels].unsqueeze(0)
        rows["multiplicity"] = self.arrays.full(1.0).reshape(1, 1, 1)
        if "target" in fields:
            own = every[fields["target"].argmax(dim=1)]
            rows["same"] = own[:, self._labels].unsqueeze(2)
        return rows

    @cached_property
    def _counts(self) -> list[int]:
        """Steps that the phases would take, for the times of a recording's rows."""
        return self.plan.steps_of_phases(self.options.dt)

    @cached_property
    def _one_hot(self) -> torch.Tensor:
        """The labels of windows, (classes, classes)."""
        turn = self.plan.phases[0].turn
        assert turn is not None
        return torch.eye(turn.classes, dtype=self.arrays.dtype, device=self.arrays.device)

    # ---------------------------------------------------------------- fixed point

    def _relax(
        self, program: list[PopulationProgram], phase: PhasePlan, kept: ResultBuilder
    ) -> tuple[float, torch.Tensor]:  # fmt: skip
        """Settle; returns the largest residual and which samples missed the tolerance."""
        steps = self._steps_in_order(phase, program)
        if steps is not None:
            self._settle_in_order(steps, program, phase, kept)
            return 0.0, self._none()
        return self._sweep_until_settled(program, phase, kept)

    def _settle_in_order(
        self, steps: list[Step], program: list[PopulationProgram], phase: PhasePlan, kept: ResultBuilder
    ) -> None:
        """Each state once, after those that it depends on."""
        for p in program:
            (p.still if p.driving else p.early)(self.state[p.name])
        for step in steps:
            s, p = self.state[step.population], self.plan.populations[step.population]
            for port in step.ports:
                self._fill_port(p, port)
            step.solve(s)
            for x in step.states:
                s[x] = self._new(s, step.population, x)
            step.early(s)
            if step.sends:
                self._seen[step.population] += 1
        moving = [p for p in program if p.states]
        filled = {(step.population, port) for step in steps for port in step.ports}
        for p in moving:
            for port in self.plan.populations[p.name].ports:
                if (p.name, port) not in filled:
                    self._fill_port(self.plan.populations[p.name], port)
        kept.step += 1
        sums = [self.state[p.name][x].sum() for p in moving for x in p.states]
        finite = not sums or bool(torch.isfinite(torch.stack(sums).sum()))
        if self.workers is not None:
            finite = self.workers.largest(float(not finite)) == 0
        if not finite:
            self._report_divergence(phase, kept)

    def _new(self, s: dict[str, Any], population: str, x: str) -> torch.Tensor:
        """A state's new value, with all of its axes."""
        axes = self._axes[population][x] if self._labels else Axes()
        return self.arrays.expand(s.pop(f"ns_new_{x}"), (*self._lead(axes), self.plan.populations[population].n))

    def _sweep_until_settled(
        self, program: list[PopulationProgram], phase: PhasePlan, kept: ResultBuilder
    ) -> tuple[float, torch.Tensor]:
        """Sweep until no state moves by more than the tolerance."""
        moving = [p for p in program if p.states]
        for p in program:
            p.early(self.state[p.name])
            self._seen[p.name] += 1 if p.states else 0
        if not moving:
            return 0.0, self._none()
        options = self.options
        history: list[tuple[torch.Tensor, torch.Tensor]] = []
        residual = None
        for sweep in range(options.max_sweeps):
            inputs = self._gather(moving) if options.method == "anderson" else None
            residual = self._sweep(moving)
            kept.step += 1
            largest = float(residual.max())
            if self.workers is not None:  # all go on until the whole batch has settled
                largest = self.workers.largest(largest)
            if not np.isfinite(largest):
                self._report_divergence(phase, kept)
            if largest <= options.tolerance:
                return largest, self._none()
            if inputs is not None and sweep:
                history.append((inputs, self._gather(moving)))
                recent = history[-ANDERSON_DEPTH - 1 :]
                if self._coupled:  # samples that meet in a pool over the batch are one problem
                    shape = inputs.shape
                    recent = [(z.reshape(1, -1), g.reshape(1, -1)) for z, g in recent]
                    self._scatter(moving, _anderson(recent).reshape(shape))
                else:
                    self._scatter(moving, _anderson(recent))
        assert residual is not None
        return float(residual.max()), residual > options.tolerance

    def _follow(
        self, program: list[PopulationProgram], phase: PhasePlan, kept: ResultBuilder
    ) -> tuple[float, torch.Tensor]:
        """The circuit's published scheme; returns the largest distance of a state from its steady state, and no sample."""
        scheme = self.plan.circuit.relaxation
        assert scheme is not None
        if phase.name not in scheme.sweeps:
            raise UnsupportedError(
                f"The published relaxation of '{self.plan.circuit.name}' says nothing of phase '{phase.name}', in which its cells or weights "
                "are not what they were; add it to Relaxation(sweeps=...)."
            )
        by_name = {p.name: p for p in program}
        order = [by_name[name] for name in scheme.order if by_name[name].states]
        for name, variable in scheme.restart.get(phase.name, {}).items():
            population, _, state = name.partition(".")
            self.state[population][state] = self.state[population][variable] + 0.0
        for p in program:  # clamps and shared values may have changed
            self._refresh(p)
            for port, feeding in self.plan.populations[p.name].ports.items():
                if all(not self.plan.populations[q.source].ode for q in feeding):  # the same in all sweeps
                    self._fill_port(self.plan.populations[p.name], port)
        self._sweeps(phase, order)(self.state, self._weights, self._steps[phase.name])
        for p in order:
            p.early(self.state[p.name])  # all of them; the sweeps form those that they need
            self._seen[p.name] += 1
        kept.step += scheme.sweeps[phase.name]
        # Instant populations follow the last rates; then every port holds what the present rates drive.
        for p in sorted(order, key=lambda p: p.name not in scheme.instant):
            self._fill_ports(self.plan.populations[p.name])
            if p.name in scheme.instant:
                self._settle(p)
                p.early(self.state[p.name])
                self._seen[p.name] += 1
        residual = torch.stack([self._distance(p) for p in order]).amax()
        largest = float(residual)
        if self.workers is not None:
            largest = self.workers.largest(largest)
        if not np.isfinite(largest):
            self._report_divergence(phase, kept)
        return largest, self._none()

    def _sweeps(self, phase: PhasePlan, order: list[PopulationProgram]) -> Sweeps:
        key = (phase.name, phase.sign)
        if key not in self._compiled:
            visits = [p.visit for p in order if p.visit is not None]
            static = {p.name for p in self.plan.populations.values() if not p.ode}
            self._compiled[key] = compile_sweeps(visits, self._units, static, self._functions, self._constants)
        return self._compiled[key]

    def _refresh(self, p: PopulationProgram) -> None:
        """Early variables anew; the drives that they make count as old only where a sent one has changed."""
        s = self.state[p.name]
        before = [s.get(x) for x in p.sent]
        p.early(s)
        for old, x in zip(before, p.sent, strict=True):
            same = old is s[x] or (isinstance(old, torch.Tensor) and torch.equal(old, s[x]))
            if not same:
                self._seen[p.name] += 1
                return

    def _settle(self, p: PopulationProgram) -> None:
        """Put the states of a population at their steady state."""
        s = self.state[p.name]
        p.late(s)
        p.solve(s)
        for x in p.states:
            s[x] = self.arrays.expand(s.pop(f"ns_new_{x}"), s[x].shape)

    def _distance(self, p: PopulationProgram) -> torch.Tensor:
        """Largest distance of a population's states from their steady state."""
        s = self.state[p.name]
        p.late(s)
        p.solve(s)
        return torch.stack([torch.amax(torch.abs(s.pop(f"ns_new_{x}") - s[x])) for x in p.states]).amax()

    def _report_divergence(self, phase: PhasePlan, kept: ResultBuilder) -> None:
        """Raise `DivergenceError` for what is not finite; with workers, all end here."""

        def finite(population: str, variable: str) -> bool:
            good = self._is_finite(population, variable)
            return good if self.workers is None else self.workers.largest(float(not good)) == 0

        kept.begin(phase)
        kept.check_finite(finite, lambda: kept.result(self.weights(), {}))

    def _is_finite(self, population: str, variable: str) -> bool:
        value = self.state[population].get(variable, 0.0)
        return self.arrays.finite(value) if isinstance(value, torch.Tensor) else bool(np.isfinite(value))

    def _check_finite(self, phase: PhasePlan, kept: ResultBuilder) -> None:
        """Raise `DivergenceError` where what is sent, read out or recorded in a settled phase is not finite."""
        values = [self.state[p][v] for p, v in kept.followed if v in self.state[p]]
        sums = [v.sum() for v in values if isinstance(v, torch.Tensor)]
        finite = all(np.isfinite(v) for v in values if not isinstance(v, torch.Tensor))
        finite = finite and (not sums or bool(torch.isfinite(torch.stack(sums).sum())))
        if self.workers is not None:
            finite = self.workers.largest(float(not finite)) == 0
        if not finite:
            self._report_divergence(phase, kept)
        if self._record is not None and self._record.wants(phase):
            for population, variable in self._record.variables:
                if not self._is_finite(population, variable):
                    kept.diverged(population, variable, kept.result(self.weights(), {}))

    def _sweep(self, moving: list[PopulationProgram]) -> torch.Tensor:
        """One visit to each population; the largest move of a state, per sample."""
        moves = []
        for p in moving:
            s = self.state[p.name]
            self._fill_ports(self.plan.populations[p.name])
            p.late(s)
            p.solve(s)
            moved, sends = False, False
            for x in p.states:
                new = self.arrays.expand(s.pop(f"ns_new_{x}"), s[x].shape)
                moves.append(self._per_sample(torch.amax(torch.abs(new - s[x]), dim=-1)))
                if bool((moves[-1] != 0).any()):  # NaN counts
                    moved, sends = True, sends or x in p.driving
                s[x] = new
            if moved or self._coupled:  # else its rates and the drives that they make stay as they are
                p.early(s)
                self._seen[p.name] += sends or self._coupled
        return moves[0] if len(moves) == 1 else torch.stack(moves).amax(dim=0)

    def _per_sample(self, move: torch.Tensor) -> torch.Tensor:
        """The largest move over labels."""
        return move.amax(dim=1).expand(self.batch) if self._labels else move

    def _fill_ports(self, p: PopulationPlan) -> None:
        for port in p.ports:
            self._fill_port(p, port)

    def _fill_port(self, p: PopulationPlan, port: str) -> None:
        first, *more = p.ports[port]
        value = self._drive(first)
        for q in more:
            value = value + self._drive(q)
        self.state[p.name][port] = value

    def _drive(self, q: ProjectionPlan) -> torch.Tensor:
        """A drive, computed once for each version of its source and of its weights."""
        source, root = self._seen[q.source], self._versions[q.root]
        cached = self._drives.get(q.key)
        if cached is not None and cached[0] == source and cached[1] == root:
            return cached[2]
        rates = self._full(q.source, q.variable, q.n_pre)
        weights = self._weights[q.root]
        if q.name in self._units:
            value = rates
        elif isinstance(q.connectivity, OneToOne):
            value = rates * weights
        elif q.listed:
            kernel = self._kernels[q.name]
            assert not isinstance(kernel, Pairs)
            value, self._winners[q.name] = kernel.drive(rates.flatten(0, -2), weights)
            value = value.unflatten(0, rates.shape[:-1])
        else:
            value = self.arrays.drive(rates, weights, q.transpose)
        if q.factor != 1.0:
            value = q.factor * value
        self._drives[q.key] = (source, root, value)
        return value

    def _gather(self, moving: list[PopulationProgram]) -> torch.Tensor:
        states = [self.state[p.name][x] for p in moving for x in p.states]
        if self._labels:  # one problem per sample and label
            rows = (self.batch, len(self._labels))
            states = [x.expand(*rows, x.shape[-1]).flatten(0, 1) for x in states]
        return torch.cat(states, dim=1)

    def _scatter(self, moving: list[PopulationProgram], values: torch.Tensor) -> None:
        start = 0
        for p in moving:
            s = self.state[p.name]
            for x in p.states:
                width = s[x].shape[-1]
                new = values[:, start : start + width]
                if self._labels:  # what differs between samples alone has the same rows for all labels
                    shape = s[x].shape
                    new = new.unflatten(0, (self.batch, len(self._labels)))[: shape[0], : shape[1]]
                s[x] = new
                start += width
            p.early(s)
            self._seen[p.name] += 1

    # ---------------------------------------------------------------- plasticity

    def _learn(self, phase: PhasePlan, learn: Learn) -> None:
        if learn == "off":
            return
        for name in phase.plastic:
            projection = self.plan.projections[name]
            rule = self.plan.rules[name]
            if rule.batch is not None:
                self._waiting_rates[name] = self.state[projection.source][_waiting(name)]
                continue
            weights, open_for = self._weights[name], phase.open_for(name)
            direct = learn == "on" and rule.apply == "now" and self.transform is None
            if rule.filter is not None:
                products, product = self._right_side(phase, projection, 1.0)
                product = torch.zeros_like(weights) if product is None else product
                self._multiply(products, product, 1.0, kernel=self._kernels.get(name))
                into = weights if direct else self._collected(name)
                trace = self._traces.setdefault(name, torch.zeros_like(weights))
                kept = np.exp(-open_for / rule.filter)
                tail = rule.filter * (1.0 - kept)
                into.add_(product, alpha=open_for - tail).add_(trace, alpha=tail)
                trace.mul_(kept).add_(product, alpha=1.0 - kept)
            else:
                products, weighted = self._right_side(phase, projection, open_for)
                if weighted is not None and not direct and name not in self._changes:
                    self._changes[name] = weighted
                elif weighted is not None:
                    (weights if direct else self._changes[name]).add_(weighted)
                if direct:
                    self._multiply(products, weights, 1.0, kernel=self._kernels.get(name))
                else:
                    self._products.setdefault(name, []).extend(products)
            if direct:
                self._changed(projection)
        if learn == "on":
            self._apply("phase", learn, phase.plastic)

    def _collected(self, name: str) -> torch.Tensor:
        """What a projection's rule has collected, 0 at first."""
        if name not in self._changes:
            self._changes[name] = torch.zeros_like(self._weights[name])
        return self._changes[name]

    def _right_side(
        self, phase: PhasePlan, projection: ProjectionPlan, length: float
    ) -> tuple[list[Product], torch.Tensor | None]:
        """A rule's right-hand side, the mean over the samples, times `length`: products still to be multiplied, and the terms with w."""
        weights = self._weights[projection.name]
        products: list[Product] = []
        weighted = None
        for term, post_name, pre_name, coefficient in self._terms(phase, projection):
            scale = coefficient * length
            if term.decay is not None:
                parts = [scale * term.decay * max(1, len(self._labels)) * weights]
            else:
                found = [(g, f, scale / self.batch) for g, f in self._pairs(projection, post_name, pre_name)]
                if not term.w_power:
                    winners = self._winners.get(projection.name)
                    products += [(g, f if winners is None else (f, winners), scale) for g, f, scale in found]
                    continue
                kernel = self._kernels.get(projection.name)
                products_of = kernel.product if isinstance(kernel, Pairs) else lambda g, f: self.arrays.outer(g, f, 1.0)
                parts = [products_of(g, f) * (scale * weights) for g, f, scale in found]
                for part in parts if self.workers is not None else ():
                    self.workers.average(part)  # type: ignore[union-attr]
            for part in parts:
                weighted = part if weighted is None else weighted.add_(part)
        return products, weighted

    def _pairs(
        self, projection: ProjectionPlan, post_name: str, pre_name: str
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Rows of the pre and post factor whose products, summed over the rows, are a term; labels at once: already summed over the other axis."""
        post, pre = self.state[projection.target], self.state[projection.source]
        if not self._labels:
            g = self.arrays.expand(pre[pre_name], (self.batch, projection.n_pre))
            return [(g, self.arrays.expand(post[post_name], (self.batch, projection.n_post)))]
        axes = self._axes[projection.source][pre_name]
        rows = len(self._labels) if axes.label else self.batch
        g = self.arrays.expand(pre[pre_name], (*self._lead(Axes(not axes.label, axes.label)), projection.n_pre))
        g = g.flatten(0, -2)
        pairs = []
        for _, name in self._factors[projection.name, post_name]:
            e, s, l = (post[name + letter] for letter in "esl")
            f = self._contract(e, s, l, over_samples=axes.label)
            pairs.append((g, self.arrays.expand(f, (rows, projection.n_post))))
        return pairs

    def _contract(self, e: Any, s: Any, l: Any, over_samples: bool) -> torch.Tensor:
        """``sum_k e[n,k] l[k,:] s[n,:]`` (rows n), or with `over_samples` ``sum_n e[n,k] s[n,:] l[k,:]`` (rows k)."""
        samples, labels = self.batch, len(self._labels)
        e = self.arrays.expand(e, (samples, labels, 1)).squeeze(2)
        summed, kept = (s, l) if over_samples else (l, s)
        matrix = e.T if over_samples else e
        f = matrix.sum(dim=1, keepdim=True)
        if isinstance(summed, torch.Tensor):
            rows = summed.expand(samples, 1, -1) if over_samples else summed.expand(1, labels, -1)
            f = matrix @ rows.flatten(0, -2)
        if isinstance(kept, torch.Tensor):
            f = f * kept.reshape(-1, kept.shape[-1])
        return f

    def _multiply(
        self, products: list[Product], into: torch.Tensor, rate: float, fresh: bool = False,
        kernel: Convolution | BiasPerMap | Pairs | None = None,
    ) -> None:  # fmt: skip
        """Add products times `rate`; `fresh`: in place of what was there.

        Those of one pre factor (a clamped source's is the same in all phases) are joined, the others stacked: one matrix product for the projection.
        """
        if kernel is not None:
            if fresh:
                into.zero_()
            posts: dict[tuple[Place, int], tuple[torch.Tensor, torch.Tensor, Any]] = {}
            for g, f, scale in products:  # those of one pre factor and one pool are joined
                f, winners = f if isinstance(f, tuple) else (f, None)
                _, known, _ = posts.get((_place(g), id(winners)), (g, None, None))
                posts[_place(g), id(winners)] = (g, f * scale if known is None else known.add_(f, alpha=scale), winners)
            for g, f, winners in posts.values():
                product = kernel.product(g, f, winners)
                if self.workers is not None:
                    self.workers.average(product)
                into.add_(product, alpha=rate)
            return
        if len(products) == 1 and self.workers is None:
            ((g, f, scale),) = products
            torch.addmm(into, g.T, f, beta=0.0 if fresh else 1.0, alpha=rate * scale, out=into)
            return
        joined: dict[Place, tuple[torch.Tensor, torch.Tensor]] = {}
        for g, f, scale in products:
            _, known = joined.get(_place(g), (g, None))
            joined[_place(g)] = (g, f * scale if known is None else known.add_(f, alpha=scale))
        if not joined:
            if fresh:
                into.zero_()
            return
        pre, post = zip(*joined.values(), strict=True)
        g, f = (pre[0], post[0]) if len(pre) == 1 else (torch.cat(pre), torch.cat(post))
        if self.workers is None:
            torch.addmm(into, g.T, f, beta=0.0 if fresh else 1.0, alpha=rate, out=into)
        else:
            product = g.T @ f
            self.workers.average(product)
            if fresh:
                into.zero_()
            into.add_(product, alpha=rate)

    def _terms(self, phase: PhasePlan, projection: ProjectionPlan) -> list[tuple[Term, str, str, float]]:
        """A rule's terms with the names of their factors and their coefficient (1/s) in a phase."""
        key = (phase.name, phase.sign, projection.name)
        if key not in self._coefficients:
            values = {**phase.shared, **self.plan.rules[projection.name].parameters}
            self._coefficients[key] = [
                (term, post, pre, float(evaluate(term.coefficient, values)))
                for term, post, pre in self.plan.rule_factors(projection, LEVEL)
            ]
        return self._coefficients[key]

    def _changed(self, projection: ProjectionPlan) -> None:
        low, high = self.plan.rules[projection.name].bounds
        if (low, high) != (None, None):
            self._weights[projection.name].clamp_(low, high)
        self._versions[projection.name] += 1

    def _take(self, name: str) -> torch.Tensor:
        """A projection's change, formed and taken out of what was collected."""
        change, products, rule = (
            self._changes.pop(name, None),
            self._products.pop(name, []),
            self.plan.rules[name],
        )
        fresh = change is None
        if change is None:
            change = torch.empty_like(self._weights[name])
        self._multiply(products, change, 1.0, fresh, self._kernels.get(name))
        return rule.added(change)

    def _apply(self, when: str, learn: Learn, names: tuple[str, ...] | None = None) -> None:
        """Add collected changes to the weights, through the transform if there is one; or keep them, where weights are held."""
        waiting = [*{**self._changes, **self._products}]
        rules = {name: self.plan.rules[name] for name in waiting}
        if learn == "held":
            self._changes = {name: self._take(name) for name in waiting}
        elif self.transform is None:
            due = [n for n in waiting if rules[n].apply == when and (names is None or n in names)]
            self._add({n: 1.0 for n in due}, rules)
        elif when == "trial":
            self._add({n: self.transform.rate(n) for n in waiting}, rules)
        if when == "trial":
            self._apply_batch_rules(learn)

    def _add(self, rates: dict[str, float | None], rules: Mapping[str, RulePlan]) -> None:
        """Add changes to the weights at these rates; those without one go through the transform."""
        handed = {name: self._take(name) for name, rate in rates.items() if rate is None}
        for name, rate in rates.items():
            if rate is None:
                continue
            if name in self._changes or rules[name].symmetric:
                self._weights[name].add_(self._take(name), alpha=rate)
            else:  # straight into the weights
                self._multiply(self._products.pop(name), self._weights[name], rate, kernel=self._kernels.get(name))
        if handed and self.transform is not None:
            self.transform(handed)
        for name in rates:
            self._changed(self.plan.projections[name])

    def _apply_batch_rules(self, learn: Learn) -> None:
        for name, rates in self._waiting_rates.items():
            rule = self.plan.rules[name].batch
            assert rule is not None
            weights = self._weights[name]
            if self.workers is not None:
                rates = self.workers.gather(rates)
            new = self.arrays.batch_update(rule, weights, rates)
            if learn == "held":
                self._collected(name).add_(new - weights)
            else:
                weights.copy_(new)
                self._changed(self.plan.projections[name])
        self._waiting_rates.clear()

    def _values(self, population: str, variable: str) -> np.ndarray:
        shape, value = (self.batch, self.plan.populations[population].n), self.state[population][variable]
        if self._labels and isinstance(value, torch.Tensor) and value.dim() == 3:
            value = value[:, self._label if value.shape[1] > 1 else 0]
        return np.array(self.arrays.to_numpy(self.arrays.expand(value, shape)))


def _place(values: torch.Tensor) -> Place:
    """What two views of the same numbers have in common."""
    return values.data_ptr(), values.shape, values.stride()


def _waiting(projection: str) -> str:
    """Where the rates lie that a batch rule waits with."""
    return f"ns_batch_{projection}"


def _breadth_first(plan: Plan) -> list[str]:
    """Populations by their distance from the clamped ones, sources first, in the order of the description otherwise."""
    depth = {p.name: 0 for p in plan.populations.values() if not p.ode}
    frontier = [p.name for p in plan.populations.values() if p.inputs and not p.ode]
    level = 0
    while frontier:
        level += 1
        reached = [q.target for q in plan.projections.values() if q.source in frontier and q.target not in depth]
        depth |= dict.fromkeys(reached, level)
        frontier = list(dict.fromkeys(reached))
    return sorted(plan.populations, key=lambda n: depth.get(n, level + 1))


def _anderson(history: list[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """The next iterate from pairs (input z, output G(z)) of sweeps, one least-squares problem per sample.

    With f_k = G(z_k) - z_k: gamma = argmin |f_m - dF gamma|, next = G(z_m) - dG gamma (Walker & Ni 2011, undamped).
    """
    history = history[-(history[-1][0].shape[1] + 1) :]  # no more columns than states
    if len(history) < 2:
        return history[-1][1]
    outputs = torch.stack(
        [g for _, g in history], dim=1
    )  # (samples, m + 1, states): a column of LAPACK's is a row here
    residuals = outputs - torch.stack([z for z, _ in history], dim=1)
    steps = residuals[:, 1:] - residuals[:, :-1]
    # Steps of very different length: scale them.
    norms = steps.norm(dim=2, keepdim=True).clamp_min(torch.finfo(outputs.dtype).tiny)
    steps /= norms
    q, r = torch.linalg.qr(steps.transpose(1, 2))
    right = q.transpose(1, 2) @ residuals[:, -1, :, None]
    diagonal = torch.diagonal(r, dim1=1, dim2=2)
    # A step that adds nothing (a settled sample) has a zero on the diagonal: leave it out.
    dead = diagonal.abs() < 1e3 * torch.finfo(outputs.dtype).eps
    r = r + torch.diag_embed(torch.where(dead, torch.full_like(diagonal, float("inf")), torch.zeros_like(diagonal)))
    gamma = torch.linalg.solve_triangular(r, right, upper=True)
    gamma = torch.where(torch.isfinite(gamma), gamma, torch.zeros_like(gamma)) / norms
    # sum_k gamma_k (G_k+1 - G_k) as weights of the G themselves
    weights = torch.nn.functional.pad(gamma, (0, 0, 0, 1)) - torch.nn.functional.pad(gamma, (0, 0, 1, 0))
    weights[:, -1] += 1.0
    return (weights.transpose(1, 2) @ outputs).squeeze(1)


__all__ = ["SteadyEngine", "Transform"]
