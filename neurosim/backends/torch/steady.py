"""`torch:steady`: the circuit's fixed point for each stimulus and phase, and the rules integrated over their gate.

Per cell and phase SymPy solves the compartments for their steady state, with rates taken as known
(`neurosim.equations.steady`). Across the network one *sweep* visits the populations in breadth-first depth from the clamped
sources: drives from the present rates, late variables, new states, new rates. Sweeps repeat until no state moves by more
than the tolerance, by default with Anderson acceleration per sample (depth 6, undamped; Walker & Ni 2011). A sample that misses
the tolerance is counted in `Result.unsettled`, never passed over in silence.

A rule's change is its right-hand side F at the fixed point times the length T of the phase; a filtered rule's is the exact
integral of its trace D over the phase, ``F T + (D - F) tau (1 - exp(-T/tau))``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from neurosim.backends.engine import Options, check_stimuli
from neurosim.backends.result import Result, ResultBuilder
from neurosim.backends.step import Learn, constants_of, pooled
from neurosim.backends.torch.arrays import TorchArrays
from neurosim.backends.torch.workers import Workers
from neurosim.connectivity import OneToOne
from neurosim.equations import compile_block, evaluate, names_in, solve_steady
from neurosim.equations.separate import Term
from neurosim.errors import UnsupportedError, unknown
from neurosim.plan import Assignment, DriveKey, PhasePlan, Plan, PopulationPlan, ProjectionPlan

LEVEL = "torch:steady"
ANDERSON_DEPTH = 6
METHODS = ("anderson", "sweeps")

Block = Callable[[dict[str, Any]], None]
#: Receives the weights and a trial's changes, both by projection, and changes the weights in place.
Transform = Callable[[dict[str, torch.Tensor], dict[str, torch.Tensor]], None]


@dataclass
class PopulationProgram:
    """What one population runs in one phase."""

    name: str
    states: list[str]  # that move in this phase
    early: Block
    late: Block
    solve: Block
    finish: Block  # late variables for holds, rules, readout, recorders


class SteadyEngine:
    """See `neurosim.backends.engine.Engine`.

    `transform`, when set, receives the changes of a whole trial in place of their being added to the weights. `workers`, when set,
    average every mean over samples with the other processes that present shares of the same batch.
    """

    level = LEVEL

    def __init__(self, plan: Plan, weights: dict[str, np.ndarray], options: Options):
        plan.check_weights(weights)
        if options.method not in METHODS:
            raise unknown("method of the steady level", options.method, METHODS)
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
        self.plan, self.options = plan, options
        self.arrays = TorchArrays(options.dtype, options.device)
        self._weights = {name: self.arrays.asarray(w) for name, w in weights.items()}
        self._versions = dict.fromkeys(self._weights, 0)
        self._constants = {p.name: constants_of(p, self.arrays, options.dt) for p in plan.populations.values()}
        self._changes: dict[str, torch.Tensor] = {}
        self._coefficients: dict[tuple[str, str], list[tuple[Term, str, str, float]]] = {}
        self._programs: dict[tuple[int, bool, bool], list[PopulationProgram]] = {}
        self.transform: Transform | None = None
        self.workers: Workers | None = None
        self.noise = None
        self._order = _breadth_first(plan)

    def weights(self) -> dict[str, np.ndarray]:
        return {name: self.arrays.to_numpy(w).copy() for name, w in self._weights.items()}

    def set_weights(self, weights: dict[str, np.ndarray]) -> None:
        for name, value in weights.items():
            self._weights[name].copy_(self.arrays.asarray(value))
            self._versions[name] += 1

    # ---------------------------------------------------------------- programs

    def _program(self, index: int, learn: bool, ends: bool) -> list[PopulationProgram]:
        key = (index, learn, ends)
        if key not in self._programs:
            phase = self.plan.phases[index]
            factors: dict[str, list[Assignment]] = {p: [] for p in self._order}
            for name in phase.plastic if learn else ():
                projection = self.plan.projections[name]
                for term, post, pre in self.plan.rule_factors(projection, LEVEL):
                    factors[projection.target].append(Assignment(post, term.post))
                    factors[projection.source].append(Assignment(pre, term.pre))
            self._programs[key] = [
                self._population(self.plan.populations[n], phase, factors[n], ends) for n in self._order
            ]
        return self._programs[key]

    def _population(
        self, p: PopulationPlan, phase: PhasePlan, factors: list[Assignment], ends: bool
    ) -> PopulationProgram:
        sent = {q.variable for q in self.plan.projections.values() if q.source == p.name}
        numbers = {n: phase.shared[n] for n in p.shared} | {d.name: 0.0 for d in p.derivatives}
        numbers |= (
            {n: v for n, v in p.parameters.items() if n in p.dimensions and not isinstance(v, np.ndarray) and v == 0.0}
            if p.ode
            else {}
        )
        try:
            solution, held = solve_steady(p.ode, p.subexpressions, sent, numbers)
        except ValueError as error:
            raise UnsupportedError(
                f"{LEVEL} cannot solve population '{p.name}' in phase '{phase.name}': {error}. "
                "Use torch:trajectory or a Brian2 level."
            ) from error
        needed = {n for text in solution.values() for n in names_in(text)}
        early, late = p.blocks(needed | sent)
        wanted = {v for pop, v in self._kept(ends).wanted(phase) if pop == p.name}
        wanted |= {hold.of for pop, hold in phase.holds if pop == p.name}
        wanted |= {n for a in factors for n in names_in(a.expression)}
        every = [a for block in p.blocks(needed | sent | wanted) for a in block]
        constants, functions = self._constants[p.name], self.arrays.functions

        def block(assignments: list[Assignment]) -> Block:
            return compile_block(map(pooled, assignments), functions, constants)

        # All states are solved from one set of known values before any of them is stored.
        solve = [(f"ns_new_{x}", text) for x, text in solution.items()]
        return PopulationProgram(
            p.name, [x for x in p.ode if x not in held], block(early), block(late),
            compile_block(solve, functions, constants), block([*every, *factors]),
        )  # fmt: skip

    def _kept(self, ends: bool) -> ResultBuilder:
        return ResultBuilder(self.plan, LEVEL, self.arrays.dtype_name, self.options.batch, 0.0, [], ends)

    # ---------------------------------------------------------------- the run

    @torch.no_grad()
    def present(
        self, stimuli: dict[str, np.ndarray], *, learn: Learn = "on", record: list[tuple[str, str]] | None = None,
        stride: int = 1, ends: bool = True,
    ) -> Result:  # fmt: skip
        if record:
            raise UnsupportedError(
                f"{LEVEL} has no time course to record; read Result.ends, or use torch:trajectory for traces."
            )
        started = time.perf_counter()
        kept = self._kept(ends)
        unsettled = 0
        self._changes = {}
        samples = check_stimuli(self.plan, stimuli, 1) * (1 if stimuli else self.options.batch)
        first = True
        with tqdm(
            total=samples, desc=LEVEL, unit="sample", delay=2, disable=not self.options.progress, leave=False
        ) as bar:
            for start in range(0, samples, self.options.batch):
                fields = {n: v[start : start + self.options.batch] for n, v in stimuli.items()}
                unsettled += self._trial(fields, learn, kept, first)
                bar.update(self.batch)
                first = False
        result = kept.result(self.weights(), {})
        if learn == "held":
            result.collected = {name: self.arrays.to_numpy(c).copy() for name, c in self._changes.items()}
        result.unsettled, result.seconds = unsettled, time.perf_counter() - started
        return result

    def _trial(self, fields: dict[str, Any], learn: Learn, kept: ResultBuilder, first: bool) -> int:
        batch = len(next(iter(fields.values()), range(self.options.batch)))
        fields = {n: self.arrays.asarray(v) for n, v in fields.items()}
        if first or self.plan.circuit.protocol.reset or self.batch != batch:
            self._reset(batch)
        unsettled, residual, before = 0, 0.0, None
        for index, phase in enumerate(self.plan.phases):
            program = self._program(index, learn != "off", kept.keep_ends)
            same = before is not None and phase.shared == before.shared and phase.clamps == before.clamps
            if not (same and not before.holds and not (learn == "on" and before.plastic)):  # type: ignore[union-attr]
                self._enter(phase, before, fields)
                residual, missed = self._relax(program, phase, kept)
                unsettled += missed
            # Else this is the fixed point of the phase before, with its residual.
            for p in program:
                if not p.states:  # no sweep visits it
                    self._fill_ports(self.plan.populations[p.name])
                p.finish(self.state[p.name])
            for population, hold in phase.holds:
                self.state[population][hold.name] = self.state[population][hold.of] + 0.0
            kept.begin(phase, 0)
            kept.finish(phase, self._values, residual)
            self._learn(phase, learn)
            before = phase
        if learn == "on":
            self._apply("trial")
        return unsettled

    def _reset(self, batch: int) -> None:
        self.batch = batch
        self.state: dict[str, dict[str, Any]] = {}
        for p in self.plan.populations.values():
            s = {x: self.arrays.zeros(batch, p.n) + p.initial[x] for x in p.ode}
            names = (*p.inputs, *(h.name for h in p.holds), *(d.name for d in p.derivatives))
            self.state[p.name] = s | {n: self.arrays.zeros(batch, p.n) for n in names}
        self._traces: dict[str, torch.Tensor] = {}
        self._drives: dict[DriveKey, tuple[int, int, torch.Tensor]] = {}
        self._seen = {p: 0 for p in self.plan.populations}

    def _enter(self, phase: PhasePlan, before: PhasePlan | None, fields: dict[str, torch.Tensor]) -> None:
        clamped = before.clamps if before else {}
        for population, variable in clamped:
            if (population, variable) not in phase.clamps:
                self.state[population][variable] = torch.zeros_like(self.state[population][variable])
                self._seen[population] += 1
        for (population, variable), source in phase.clamps.items():
            if clamped.get((population, variable)) != source:
                value, n = fields[source], self.plan.populations[population].n
                self.state[population][variable] = self.arrays.expand(value, (self.batch, n))
                self._seen[population] += 1
        for s in self.state.values():
            s.update(phase.shared)

    # ---------------------------------------------------------------- fixed point

    def _relax(self, program: list[PopulationProgram], phase: PhasePlan, kept: ResultBuilder) -> tuple[float, int]:
        """Sweep until settled; returns the largest residual and the number of samples that missed the tolerance."""
        moving = [p for p in program if p.states]
        for p in program:
            p.early(self.state[p.name])
            self._seen[p.name] += 1 if p.states else 0
        if not moving:
            return 0.0, 0
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
                for p in moving:
                    for x in p.states:
                        finite = self.arrays.finite(self.state[p.name][x])
                        if self.workers is not None:  # all end here, also those whose own samples are finite
                            finite = self.workers.largest(float(not finite)) == 0
                        if not finite:
                            kept.begin(phase, 0)
                            kept.diverged(p.name, x, kept.result(self.weights(), {}))
            if largest <= options.tolerance:
                return largest, 0
            if inputs is not None and sweep:
                history.append((inputs, self._gather(moving)))
                self._scatter(moving, _anderson(history[-ANDERSON_DEPTH - 1 :]))
        assert residual is not None
        return float(residual.max()), int((residual > options.tolerance).sum())

    def _sweep(self, moving: list[PopulationProgram]) -> torch.Tensor:
        """One visit to each population; the largest move of a state, per sample."""
        moves = []
        for p in moving:
            s = self.state[p.name]
            self._fill_ports(self.plan.populations[p.name])
            p.late(s)
            p.solve(s)
            moved = False
            for x in p.states:
                new = self.arrays.expand(s.pop(f"ns_new_{x}"), s[x].shape)
                moves.append(torch.amax(torch.abs(new - s[x]), dim=1))
                moved = moved or bool((moves[-1] != 0).any())  # NaN counts
                s[x] = new
            if moved:  # else its rates and the drives that they make stay as they are
                p.early(s)
                self._seen[p.name] += 1
        return moves[0] if len(moves) == 1 else torch.stack(moves).amax(dim=0)

    def _fill_ports(self, p: PopulationPlan) -> None:
        s = self.state[p.name]
        for port, feeding in p.ports.items():
            value = self._drive(feeding[0])
            for q in feeding[1:]:
                value = value + self._drive(q)
            s[port] = value

    def _drive(self, q: ProjectionPlan) -> torch.Tensor:
        """A drive, computed once for each version of its source and of its weights."""
        source, root = self._seen[q.source], self._versions[q.root]
        cached = self._drives.get(q.key)
        if cached is not None and cached[:2] == (source, root):
            return cached[2]
        rates = self.arrays.expand(self.state[q.source][q.variable], (self.batch, q.n_pre))
        weights = self._weights[q.root]
        value = (
            rates * weights if isinstance(q.connectivity, OneToOne) else self.arrays.drive(rates, weights, q.transpose)
        )
        if q.factor != 1.0:
            value = q.factor * value
        self._drives[q.key] = (source, root, value)
        return value

    def _gather(self, moving: list[PopulationProgram]) -> torch.Tensor:
        return torch.cat([self.state[p.name][x] for p in moving for x in p.states], dim=1)

    def _scatter(self, moving: list[PopulationProgram], values: torch.Tensor) -> None:
        start = 0
        for p in moving:
            s = self.state[p.name]
            for x in p.states:
                width = s[x].shape[1]
                s[x] = values[:, start : start + width]
                start += width
            p.early(s)
            self._seen[p.name] += 1

    # ---------------------------------------------------------------- plasticity

    def _learn(self, phase: PhasePlan, learn: Learn) -> None:
        if learn == "off":
            return
        for name in phase.plastic:
            projection = self.plan.projections[name]
            rule = projection.rule
            assert rule is not None
            direct = learn == "on" and rule.rule.apply == "now" and self.transform is None
            weights = self._weights[name]
            fresh = not direct and name not in self._changes
            if fresh:
                self._changes[name] = torch.zeros_like(weights) if rule.filter else torch.empty_like(weights)
            into = weights if direct else self._changes[name]
            if rule.filter is None:
                self._add_products(into, fresh, phase, projection, phase.seconds)
            else:
                product = torch.zeros_like(weights)
                self._add_products(product, True, phase, projection, 1.0)
                trace = self._traces.setdefault(name, torch.zeros_like(weights))
                kept = np.exp(-phase.seconds / rule.filter)
                tail = rule.filter * (1.0 - kept)
                into.add_(product, alpha=phase.seconds - tail).add_(trace, alpha=tail)
                trace.mul_(kept).add_(product, alpha=1.0 - kept)
            if direct:
                self._changed(projection)
        if learn == "on":
            self._apply("phase", phase.plastic)

    def _add_products(
        self, into: torch.Tensor, fresh: bool, phase: PhasePlan, projection: ProjectionPlan, length: float
    ) -> None:
        """Add a rule's right-hand side, the mean over the samples, times `length`; `fresh`: in place of what was there."""
        if self.workers is not None and not fresh:
            product = torch.empty_like(into)
            self._add_products(product, True, phase, projection, length)
            into.add_(product)
            return
        post, pre = self.state[projection.target], self.state[projection.source]
        weights, terms = self._weights[projection.name], self._terms(phase, projection)
        # `into` may be the weights themselves: a term that holds w reads them as they were.
        old = weights.clone() if into is weights and any(term.w_power for term, *_ in terms) else weights
        for term, post_name, pre_name, coefficient in terms:
            scale = coefficient * length / self.batch
            f = self.arrays.expand(post[post_name], (self.batch, projection.n_post))
            g = self.arrays.expand(pre[pre_name], (self.batch, projection.n_pre))
            if term.w_power:
                part = self.arrays.outer(g, f, scale) * old
                into.copy_(part) if fresh else into.add_(part)
            else:
                torch.addmm(into, g.T, f, beta=0.0 if fresh else 1.0, alpha=scale, out=into)
            fresh = False
        if self.workers is not None:
            self.workers.average(into)

    def _terms(self, phase: PhasePlan, projection: ProjectionPlan) -> list[tuple[Term, str, str, float]]:
        """A rule's terms with the names of their factors and their coefficient (1/s) in a phase."""
        key = (phase.name, projection.name)
        if key not in self._coefficients:
            assert projection.rule is not None
            values = {**phase.shared, **projection.rule.parameters}
            self._coefficients[key] = [
                (term, post, pre, evaluate(term.coefficient, values))
                for term, post, pre in self.plan.rule_factors(projection, LEVEL)
            ]
        return self._coefficients[key]

    def _changed(self, projection: ProjectionPlan) -> None:
        assert projection.rule is not None
        low, high = projection.rule.rule.bounds
        if (low, high) != (None, None):
            self._weights[projection.name].clamp_(low, high)
        self._versions[projection.name] += 1

    def _apply(self, when: str, names: tuple[str, ...] | None = None) -> None:
        """Add collected changes to the weights, or hand those of the whole trial to the transform."""
        if self.transform is not None:
            if when == "trial" and self._changes:
                self.transform(self._weights, self._changes)
                for name in self._changes:
                    self._changed(self.plan.projections[name])
                self._changes.clear()
            return
        for name in list(self._changes):
            rule = self.plan.projections[name].rule
            assert rule is not None
            if rule.rule.apply == when and (names is None or name in names):
                self._weights[name] += self._changes.pop(name)
                self._changed(self.plan.projections[name])

    def _values(self, population: str, variable: str) -> np.ndarray:
        shape = (self.batch, self.plan.populations[population].n)
        return np.array(self.arrays.to_numpy(self.arrays.expand(self.state[population][variable], shape)))


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
