"""One explicit Euler step on arrays, in the order that `neurosim.plan` states; shared by `dense` and `trajectory`.

The two engines differ in the array library (NumPy on Brian2's own memory, or torch) and in who integrates the potentials
(Brian2, or Brian2's update text run on tensors). Steps 1 to 8 are this module.

Two exact savings keep large layers cheap:

* a drive is computed once per (weights, source) in a step, so tied weights share it, and once per phase where neither the
  source nor the weights change;
* while a source x is clamped its plastic weights need not be written in every step. With dW/dt = c g^T f, g of the
  clamped source too, ``I(t) = x W0 + (dt c/B) (x g^T) sum_s f(s)`` and ``W = W0 + (dt c/B) g^T sum_s f(s)`` at the phase's end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from tqdm import tqdm

from neurosim.backends.result import CHECK_EVERY, Result, ResultBuilder
from neurosim.connectivity import OneToOne
from neurosim.equations import compile_block, names_in
from neurosim.equations.separate import Term
from neurosim.plan import Assignment, PhasePlan, Plan, PopulationPlan, ProjectionPlan

Learn = Literal["on", "off", "held"]


class Arrays(Protocol):
    """What a stepper asks of an array library."""

    functions: dict[str, Any]
    dtype_name: str

    def zeros(self, *shape: int) -> Any: ...
    def asarray(self, values: Any) -> Any: ...
    def to_numpy(self, values: Any) -> np.ndarray: ...
    def expand(self, value: Any, shape: tuple[int, int]) -> Any: ...
    def drive(self, rates: Any, weights: Any, transpose: bool) -> Any: ...
    def add_outer(self, weights: Any, pre: Any, post: Any, scale: float) -> None: ...
    def outer(self, pre: Any, post: Any, scale: float) -> Any: ...
    def gram(self, a: Any, b: Any) -> Any: ...
    def clip_(self, weights: Any, low: float | None, high: float | None) -> None: ...
    def finite(self, values: Any) -> bool: ...


def pooled(assignment: Assignment) -> tuple[str, str]:
    """An assignment as ``(name, text)``, pools written as a function that the engines provide."""
    return assignment.name, f"ns_pool({assignment.expression})" if assignment.pool else assignment.expression


@dataclass
class Plastic:
    """A plastic projection in one phase."""

    projection: ProjectionPlan
    terms: list[tuple[Term, str, str, float]]  # term, post name, pre name, coefficient
    into: Any  # the weights, or where the change is collected
    lazy: bool  # written once, at the phase's end
    sums: list[Any] = field(default_factory=list)  # lazy: sum over steps of the post factors
    gram: list[Any] = field(default_factory=list)  # lazy: dt c/B x g^T, what a unit of post factor adds to the drive
    drive: Any = None  # lazy: the drive that the post factors are added to


@dataclass
class PhaseProgram:
    """What a phase runs in each step, compiled once."""

    early: list[tuple[dict[str, Any], Callable[[dict[str, Any]], None]]]
    late: list[tuple[dict[str, Any], Callable[[dict[str, Any]], None]]]


class Stepper:
    """State and program of a run; see the module's text.

    Parameters
    ----------
    plan, arrays, level
        What to run, on which arrays, under which name.
    weights
        Weights of each projection that has its own, as arrays of the library; changed in place.
    batch
        Number of samples that run at once; a rule's change is the mean over them.
    dt
        Step in seconds.
    learn
        ``"on"``, ``"off"``, or ``"held"`` (changes are collected, weights stay).
    record, stride
        Variables to record, every `stride` steps.
    """

    def __init__(
        self, plan: Plan, arrays: Arrays, weights: dict[str, Any], *, level: str, batch: int, dt: float, learn: Learn,
        record: list[tuple[str, str]], stride: int = 1, ends: bool = True,
    ):  # fmt: skip
        self.plan, self.arrays, self.weights, self.level = plan, arrays, weights, level
        self.batch, self.dt, self.learn, self.record, self.stride = batch, dt, learn, record, stride
        self.counts = plan.steps(dt)
        self.state: dict[str, dict[str, Any]] = {}
        for p in plan.populations.values():
            s = {x: arrays.zeros(batch, p.n) for x in (*p.ode, *p.inputs, *(h.name for h in p.holds))}
            self.state[p.name] = s
        self.constants = {
            p.name: {n: arrays.asarray(v) if isinstance(v, np.ndarray) else float(v) for n, v in p.parameters.items()}
            for p in plan.populations.values()
        }
        self.collected: dict[str, Any] = {}
        for projection in plan.plastic():
            rule = projection.rule
            assert rule is not None
            rule.separated(projection.name, level)
            if learn == "held" or (learn == "on" and rule.rule.apply != "now"):
                self.collected[projection.name] = arrays.zeros(projection.n_pre, projection.n_post)
        self.kept = ResultBuilder(plan, level, arrays.dtype_name, batch, dt, record, ends)
        self._programs: dict[tuple[int, bool], PhaseProgram] = {}

    # ---------------------------------------------------------------- programs

    def _wanted(self, p: PopulationPlan, phase: PhasePlan, last: bool) -> set[str]:
        wanted = {q.variable for q in self.plan.projections.values() if q.source == p.name}
        wanted |= p.names_of_ode() | {v for pop, v in self.record if pop == p.name}
        if last:
            wanted |= {hold.of for pop, hold in phase.holds if pop == p.name}
            wanted |= {v for pop, v in self.kept.wanted(phase) if pop == p.name}
        return wanted

    def _program(self, index: int, last: bool) -> PhaseProgram:
        if (index, last) in self._programs:
            return self._programs[index, last]
        phase = self.plan.phases[index]
        program = PhaseProgram([], [])
        factors: dict[str, list[Assignment]] = {p: [] for p in self.plan.populations}
        if self.learn != "off":
            for name in phase.plastic:
                projection = self.plan.projections[name]
                for term, post, pre in self.plan.rule_factors(projection, self.level):
                    factors[projection.target].append(Assignment(post, term.post))
                    factors[projection.source].append(Assignment(pre, term.pre))
        for p in self.plan.populations.values():
            extra = factors[p.name]
            wanted = self._wanted(p, phase, last).union(*(names_in(a.expression) for a in extra))
            early, late = p.blocks(wanted)
            for target, block in ((program.early, early), (program.late, [*late, *extra])):
                if block:
                    compiled = compile_block(map(pooled, block), self.arrays.functions, self.constants[p.name])
                    target.append((self.state[p.name], compiled))
        self._programs[index, last] = program
        return program

    def _plastic(self, phase: PhasePlan) -> list[Plastic]:
        plastic = []
        if self.learn == "off":
            return plastic
        for name in phase.plastic:
            projection = self.plan.projections[name]
            rule = projection.rule
            assert rule is not None
            values = {**phase.shared, **rule.parameters}
            terms = [
                (term, post, pre, float(eval(term.coefficient, {"__builtins__": {}}, values)))
                for term, post, pre in self.plan.rule_factors(projection, self.level)
            ]
            terms = [t for t in terms if t[3] != 0]
            if not terms:
                continue
            into = self.collected.get(name)
            source = self.plan.populations[projection.source]
            static = projection.variable in source.static and all(
                t.w_power == 0 and names_in(t.pre) <= source.static | set(phase.shared) for t, *_ in terms
            )
            shared = sum(q.root == name for q in self.plan.projections.values()) > 1
            lazy = static and rule.rule.bounds == (None, None) and (into is not None or not shared)
            plastic.append(Plastic(projection, terms, self.weights[name] if into is None else into, lazy))
        return plastic

    # ---------------------------------------------------------------- the run

    def steps(self, stimuli: dict[str, np.ndarray], trials: int, progress: bool = True) -> Iterator[None]:
        """Run all trials; yields after steps 1 to 8 of each Euler step, so that the engine integrates the potentials."""
        total = trials * sum(self.counts)
        with tqdm(total=total, desc=self.level, unit="step", delay=2, disable=not progress, leave=False) as bar:
            for trial in range(trials):
                rows = slice(trial * self.batch, (trial + 1) * self.batch)
                fields = {name: self.arrays.asarray(values[rows]) for name, values in stimuli.items()}
                if self.plan.circuit.protocol.reset or trial == 0:
                    self._reset()
                for index, phase in enumerate(self.plan.phases):
                    self.kept.begin(phase, trial)
                    for _ in self._phase(index, phase, fields):
                        yield
                        self.kept.step += 1
                    bar.update(self.counts[index])
                    self.kept.end(phase, trial)
                if self.learn == "on":
                    self._apply("trial")

    def _reset(self) -> None:
        for p in self.plan.populations.values():
            for x in p.ode:
                self.state[p.name][x][...] = p.initial[x]
            for hold in p.holds:
                self.state[p.name][hold.name][...] = 0.0

    def _phase(self, index: int, phase: PhasePlan, fields: dict[str, Any]) -> Iterator[None]:
        state = self.state
        for p in self.plan.populations.values():
            for name in p.inputs:
                state[p.name][name][...] = 0.0
            for name, value in phase.shared.items():
                state[p.name][name] = value
        for (population, variable), source in phase.clamps.items():
            state[population][variable][...] = fields[source]
        plastic = self._plastic(phase)
        changing = {q.projection.name for q in plastic if q.into is self.weights[q.projection.name] and not q.lazy}
        drives = self._drives(plastic, changing)
        count = self.counts[index]
        ordinary, final = self._program(index, False), self._program(index, True)
        mark = self.kept.mark_step(count)
        for k in range(count):
            last = k == count - 1
            program = final if last else ordinary
            for s, block in program.early:
                block(s)
            drives(k == 0)
            for s, block in program.late:
                block(s)
            for population, hold in phase.holds if last else ():
                state[population][hold.name] = state[population][hold.of] + 0.0
            if self.record and self.kept.step % self.stride == 0:
                self.kept.record(self._values)
            if k == mark:
                self.kept.mark(self._values)
            if last:
                self.kept.finish(phase, self._values)
            for q in plastic:
                self._learn(q, last)
            if last and self.learn == "on":
                self._apply("phase", phase.plastic)
            if self.kept.step % CHECK_EVERY == 0 or last:
                self.check_finite()
            yield

    def _drives(self, plastic: list[Plastic], changing: set[str]) -> Callable[[bool], None]:
        """A function that fills every port from the rates; drives that cannot change are computed in the first step only."""
        lazy = {q.projection.key: q for q in plastic if q.lazy and q.into is self.weights[q.projection.name]}
        cache: dict[tuple[str, bool, str, str], Any] = {}
        keep: dict[tuple[str, bool, str, str], bool] = {}
        for q in self.plan.projections.values():
            static = q.variable in self.plan.populations[q.source].static
            keep[q.key] = static and q.root not in changing
        unique = {q.key: q for q in self.plan.projections.values()}
        ports = [
            (self.state[p.name], port, [q.key for q in feeding])
            for p in self.plan.populations.values() for port, feeding in p.ports.items()
        ]  # fmt: skip
        once = [q for q in unique.values() if keep[q.key]]
        always = [q for q in unique.values() if not keep[q.key]]

        def fill(first: bool) -> None:
            if first:
                for q in once:
                    cache[q.key] = self._drive(q)
                for key, entry in lazy.items():
                    self._start_lazy(entry, self.state[key[2]][key[3]])
                    cache[key] = cache[key] + 0.0
                    entry.drive = cache[key]
            for q in always:
                cache[q.key] = self._drive(q)
            for s, port, keys in ports:
                value = cache[keys[0]]
                for key in keys[1:]:
                    value = value + cache[key]
                s[port] = value

        return fill

    def _drive(self, q: ProjectionPlan) -> Any:
        rates = self.arrays.expand(self.state[q.source][q.variable], (self.batch, q.n_pre))
        weights = self.weights[q.root]
        if isinstance(q.connectivity, OneToOne):
            return rates * weights
        return self.arrays.drive(rates, weights, q.transpose)

    # ---------------------------------------------------------------- plasticity

    def _start_lazy(self, q: Plastic, sent: Any) -> None:
        sent = self.arrays.expand(sent, (self.batch, q.projection.n_pre))
        q.gram = []
        source = self.state[q.projection.source]
        for term, _, pre, coefficient in q.terms:
            # The late block, which computes the factor, has not run yet in this step.
            block = compile_block([(pre, term.pre)], self.arrays.functions, self.constants[q.projection.source])
            block(source)
            g = self.arrays.expand(source[pre], (self.batch, q.projection.n_pre))
            q.gram.append(self.arrays.gram(sent, g) * (self.dt * coefficient / self.batch))

    def _learn(self, q: Plastic, last: bool) -> None:
        projection, dt = q.projection, self.dt
        post_state, pre_state = self.state[projection.target], self.state[projection.source]
        shape_post, shape_pre = (self.batch, projection.n_post), (self.batch, projection.n_pre)
        if q.lazy:
            for k, (_, post, pre, coefficient) in enumerate(q.terms):
                f = self.arrays.expand(post_state[post], shape_post)
                if len(q.sums) <= k:
                    q.sums.append(f + 0.0)
                else:
                    q.sums[k] += f
                if q.gram:
                    q.drive += q.gram[k] @ f
                if last:
                    g = self.arrays.expand(pre_state[pre], shape_pre)
                    self.arrays.add_outer(q.into, g, q.sums[k], dt * coefficient / self.batch)
            return
        weights = self.weights[projection.name]
        change = None
        for term, post, pre, coefficient in q.terms:
            if term.w_power:
                f, g = (self.arrays.expand(s[n], sh) for s, n, sh in
                        ((post_state, post, shape_post), (pre_state, pre, shape_pre)))  # fmt: skip
                part = self.arrays.outer(g, f, dt * coefficient / self.batch) * weights
                change = part if change is None else change + part
        for term, post, pre, coefficient in q.terms:
            if not term.w_power:
                f = self.arrays.expand(post_state[post], shape_post)
                g = self.arrays.expand(pre_state[pre], shape_pre)
                self.arrays.add_outer(q.into, g, f, dt * coefficient / self.batch)
        if change is not None:
            q.into += change
        if q.into is weights:
            self._bound(projection)

    def _bound(self, projection: ProjectionPlan) -> None:
        assert projection.rule is not None
        low, high = projection.rule.rule.bounds
        if (low, high) != (None, None):
            self.arrays.clip_(self.weights[projection.name], low, high)

    def _apply(self, when: str, names: tuple[str, ...] | None = None) -> None:
        for name, change in self.collected.items():
            projection = self.plan.projections[name]
            assert projection.rule is not None
            if projection.rule.rule.apply == when and (names is None or name in names):
                self.weights[name] += change
                change[...] = 0.0
                self._bound(projection)

    # ---------------------------------------------------------------- what is kept

    def _values(self, population: str, variable: str) -> np.ndarray:
        shape = (self.batch, self.plan.populations[population].n)
        return np.array(self.arrays.to_numpy(self.arrays.expand(self.state[population][variable], shape)))

    def check_finite(self) -> None:
        """Raise `DivergenceError` when a state is not finite; what was recorded goes with it."""
        for p in self.plan.populations.values():
            for x in p.ode:
                if not self.arrays.finite(self.state[p.name][x]):
                    self.kept.diverged(p.name, x, self.result())

    def result(self) -> Result:
        """What the run has gathered so far."""
        return self.kept.result(
            {name: np.array(self.arrays.to_numpy(w)) for name, w in self.weights.items()},
            {name: np.array(self.arrays.to_numpy(w)) for name, w in self.collected.items()},
        )


__all__ = ["Arrays", "Learn", "Stepper", "pooled"]
