"""Plasticity of a run: factors of the rules, changes while they are collected, bounds, filters."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from neurosim.backends.engine import Learn
from neurosim.backends.stepping.memory import Memory
from neurosim.equations import compile_block, evaluate, names_in, shared_name
from neurosim.plan import Assignment, PhasePlan, ProjectionPlan


def bound(memory: Memory, projection: ProjectionPlan) -> None:
    """Keep the weights between the bounds of their rule."""
    low, high = memory.plan.rules[projection.name].bounds
    if (low, high) != (None, None):
        memory.arrays.clip_(memory.weights[projection.name], low, high)


class Plasticity:
    """What a run learns.

    Parameters
    ----------
    memory
        The weights, and the variables that rules read.
    level
        Of the engine, for messages.
    learn
        ``"on"``, ``"off"``, or ``"held"`` (changes are collected, weights stay).

    Attributes
    ----------
    collected
        Changes that are not applied yet, by projection.
    """

    def __init__(self, memory: Memory, level: str, learn: Learn):
        self.memory, self.plan, self.level, self.learn = memory, memory.plan, level, learn
        self.collected: dict[str, Any] = {}
        self._traces: dict[str, Any] = {}  # of filtered rules
        self._rates: dict[str, Any] = {}  # that a batch rule waits with
        for q, rule in self.plan.plastic() if learn != "off" else ():
            if rule.filter is not None:
                self._traces[q.name] = memory.arrays.zeros(*q.weight_shape)
            waits = rule.apply != "now" and rule.batch is None
            if learn == "held" or waits:
                self.collected[q.name] = memory.arrays.zeros(*q.weight_shape)

    def reset(self) -> None:
        """Put the traces of filtered rules to 0."""
        for trace in self._traces.values():
            trace[...] = 0.0

    def factors(self, phase: PhasePlan) -> dict[str, list[Assignment]]:
        """What the rules of a phase read of each population, as assignments to be computed last."""
        blocks: dict[str, list[Assignment]] = {name: [] for name in self.plan.populations}
        for q in self._plastic(phase):
            batch = self.plan.rules[q.name].batch
            if batch is not None:
                blocks[q.source].append(Assignment(f"ns_batch_{q.name}", f"1*{batch.reads()}"))
                continue
            for term, post, pre in self.plan.rule_factors(q, self.level):
                _add_factor(blocks[q.target], post, term.post)
                _add_factor(blocks[q.source], pre, term.pre)
        return blocks

    def begin(self, phase: PhasePlan) -> list[PlasticInPhase]:
        """The projections that learn in each step of a phase."""
        ordinary = [q for q in self._plastic(phase) if self.plan.rules[q.name].batch is None]
        terms = {q.name: self._terms(q, phase) for q in ordinary}
        return [
            PlasticInPhase(
                self.memory,
                q,
                terms[q.name],
                into=self.collected.get(q.name, self.memory.weights[q.name]),
                trace=self._traces.get(q.name),
                lazy=self._is_lazy(q, terms[q.name], phase),
            )
            for q in ordinary
            if terms[q.name] or self.plan.rules[q.name].filter is not None
        ]

    def end(self, phase: PhasePlan) -> None:
        """In the last step of a stretch: keep the rates of batch rules, apply what waits for a phase."""
        for q in self._plastic(phase):
            if self.plan.rules[q.name].batch is not None:
                rates = self.memory.state[q.source][f"ns_batch_{q.name}"]
                shape = (self.memory.batch, self.plan.populations[q.source].n)
                self._rates[q.name] = self.memory.expand(rates, shape)
        if phase.last:
            self._apply("phase", phase.plastic)  # a gate that opened is open at the end

    def end_trial(self) -> None:
        """Apply what waits for the end of a trial."""
        self._apply("trial", self.collected)
        self._apply_batch_rules()

    def changes(self) -> dict[str, np.ndarray]:
        """Copies of what is collected, as it would be applied."""
        added = {name: self.plan.rules[name].added for name in self.collected}
        copy = self.memory.copy
        return {name: added[name](copy(change)) for name, change in self.collected.items()}

    def _plastic(self, phase: PhasePlan) -> list[ProjectionPlan]:
        return [self.plan.projections[n] for n in phase.plastic] if self.learn != "off" else []

    def _terms(self, q: ProjectionPlan, phase: PhasePlan) -> list[TermInPhase]:
        """The terms of a rule that are not 0 in a phase."""
        values = {**phase.shared, **self.plan.rules[q.name].parameters}
        terms = []
        for term, post, pre in self.plan.rule_factors(q, self.level):
            coefficient = float(evaluate(term.coefficient, values))
            if coefficient != 0:
                scale = self.memory.dt * coefficient / self.memory.batch
                weighted = term.w_power > 0
                terms.append(TermInPhase(post, pre, scale, weighted, term.decay, term.pre))
        return terms

    def _is_lazy(self, q: ProjectionPlan, terms: list[TermInPhase], phase: PhasePlan) -> bool:
        """Whether weights may be written at the phase's end, and that costs less."""
        source, rule = self.plan.populations[q.source], self.plan.rules[q.name]
        known = source.static | set(map(shared_name, phase.shared))
        static = q.variable in source.static and all(
            not term.weighted and names_in(term.expression) <= known for term in terms
        )
        shared = sum(other.root == q.name for other in self.plan.projections.values()) > 1
        # Written later, a drive costs B^2 n_post in place of 2 B n_pre n_post: a bias gains none.
        cheaper = not shared and self.memory.batch <= 2 * q.n_pre
        gains = q.name in self.collected or cheaper
        bounded = rule.bounds != (None, None)
        plain = not bounded and rule.filter is None and q.name not in self.memory.kernels
        return static and gains and plain

    def _apply(self, when: str, names: Collection[str]) -> None:
        if self.learn != "on":
            return
        for name, change in self.collected.items():
            q = self.plan.projections[name]
            if self.plan.rules[q.name].apply == when and name in names:
                self.memory.weights[name] += self.plan.rules[q.name].added(change)
                change[...] = 0.0
                bound(self.memory, q)

    def _apply_batch_rules(self) -> None:
        weights = self.memory.weights
        for name, rates in self._rates.items():
            rule = self.plan.rules[name].batch
            assert rule is not None
            new = self.memory.arrays.batch_update(rule, weights[name], rates)
            if self.learn == "held":
                self.collected[name] += new - weights[name]
            else:
                weights[name][...] = new
        self._rates.clear()


def _add_factor(block: list[Assignment], name: str, text: str) -> None:
    # A variable itself is copied: lazy weights read the factor after its memory was written anew.
    value = f"1*{text}" if text.isidentifier() else text
    # Weights and biases of a layer often share a factor: computed once, under its first name.
    same = next((a.name for a in block if a.expression == value), value)
    block.append(Assignment(name, same))


@dataclass
class TermInPhase:
    """One term of a rule: in each step, W += scale * pre^T post (times W where `weighted`)."""

    post: str
    pre: str
    scale: float
    weighted: bool
    decay: float | None  # the number k where the term is no more than k w
    expression: str  # of the pre factor
    total: Any = None  # lazy: sum over steps of the post factor
    gram: Any = None  # lazy: g x^T, with which a post factor reaches the drive


class PlasticInPhase:
    """A projection that learns in one phase.

    Parameters
    ----------
    memory, projection, terms
        What learns, by which terms of its rule.
    into
        Where changes go: the weights, or what is collected.
    trace
        Of a filtered rule.
    lazy
        Write the weights once, at the phase's end (see `neurosim.backends.stepping`).
    """

    def __init__(
        self,
        memory: Memory,
        projection: ProjectionPlan,
        terms: list[TermInPhase],
        *,
        into: Any,
        trace: Any,
        lazy: bool,
    ):
        self.memory, self.arrays = memory, memory.arrays
        self.projection, self.terms, self.into, self.lazy = projection, terms, into, lazy
        self.weights = memory.weights[projection.name]
        self.writes = into is self.weights
        self._tau, self._trace = memory.plan.rules[projection.name].filter, trace
        self._kernel = memory.kernels.get(projection.name)
        self._drive = memory.drives[projection.key]
        self._source = memory.state[projection.source]
        self._target = memory.state[projection.target]
        self._shapes = (memory.batch, projection.n_pre), (memory.batch, projection.n_post)

    def _pre(self, term: TermInPhase) -> Any:
        return self.memory.expand(self._source[term.pre], self._shapes[0])

    def _post(self, term: TermInPhase) -> Any:
        return self.memory.expand(self._target[term.post], self._shapes[1])

    def _product(self, term: TermInPhase) -> Any:
        """The sum over samples of pre^T post, in the shape of the weights."""
        pre, post = self._pre(term), self._post(term)
        if self._kernel is None:
            return self.arrays.outer(pre, post, 1.0)
        return self._kernel.product(pre, post, self.memory.winners.get(self.projection.name))

    def start(self) -> None:
        """Lazy, first step: how a post factor will reach the drive."""
        sent = self.memory.expand(self._source[self.projection.variable], self._shapes[0])
        functions = self.arrays.functions
        constants = self.memory.constants[self.projection.source]
        for term in self.terms:
            # The late block, which computes the factor, has not run yet in this step.
            compile_block([(term.pre, term.expression)], functions, constants)(self._source)
            term.gram = self.arrays.gram(self._pre(term), sent)

    def advance(self) -> None:
        """Lazy, later steps: add to the drive what the weights would have learnt a step ago."""
        for term in self.terms:
            self.arrays.add_outer(self._drive, term.gram, self._post(term), term.scale)

    def learn(self, last: bool) -> None:
        """Weights to t+dt."""
        if self.lazy:
            self._learn_later(last)
        else:
            self._learn_now()

    def _learn_later(self, last: bool) -> None:
        for term in self.terms:
            if term.total is None:
                term.total = self._post(term) + 0.0
            else:
                term.total += self._post(term)
            if last:
                self.arrays.add_outer(self.into, self._pre(term), term.total, term.scale)

    def _learn_now(self) -> None:
        decay = [self._weighted(term) for term in self.terms if term.weighted]
        into, share, keep = self.into, 1.0, 1.0
        if self._tau is not None:  # the weight follows the trace, the trace follows the product
            self.arrays.add_scaled(self.into, self._trace, self.memory.dt)
            into, share, keep = self._trace, 1.0 / self._tau, 1.0 - self.memory.dt / self._tau
        for term in self.terms:
            if term.weighted:
                continue
            if self._kernel is not None:
                product = self._product(term)
                into *= keep
                self.arrays.add_scaled(into, product, share * term.scale)
            else:
                pre, post = self._pre(term), self._post(term)
                self.arrays.add_outer(into, pre, post, share * term.scale, keep)
            keep = 1.0
        if keep != 1.0:
            self._trace *= keep
        for change in decay:
            self.arrays.add_scaled(into, change, share)
        if self.writes:
            bound(self.memory, self.projection)

    def _weighted(self, term: TermInPhase) -> Any:
        """The change by a term that is proportional to the weights."""
        if term.decay is None:
            return self._product(term) * (term.scale * self.weights)
        return self.weights * (term.scale * self.memory.batch * term.decay)
