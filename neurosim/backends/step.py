"""One explicit Euler step on arrays, in the order that `neurosim.plan` states; shared by `dense` and `trajectory`.

The two engines differ in the array library (NumPy on Brian2's own memory, or torch) and in who integrates the
potentials (Brian2, or Brian2's update text run on tensors). Steps 1 to 8 are this module.

Two exact savings keep large layers cheap:

* a drive is computed once per (weights, source) in a step, so tied weights share it, and once per phase where neither
  the source nor the weights change;
* while a source x is clamped its plastic weights need not be written in every step. With dW/dt = c g^T f, g of the
  clamped source too, ``I(t) = x W0 + (dt c/B) (x g^T) sum_s f(s)``, and at the phase's end
  ``W = W0 + (dt c/B) g^T sum_s f(s)``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, Protocol

import numpy as np
from tqdm import tqdm

from neurosim.backends.noise import Noise
from neurosim.backends.result import CHECK_EVERY, Result, ResultBuilder
from neurosim.description import OneToOne
from neurosim.equations import compile_block, evaluate, names_in, shared_name
from neurosim.plan import NEVER, Assignment, PhasePlan, Plan, PopulationPlan, ProjectionPlan
from neurosim.traces.recording import Recording

Learn = Literal["on", "off", "held"]


class Arrays(Protocol):
    """What a stepper asks of an array library."""

    functions: dict[str, Any]
    dtype_name: str

    def zeros(self, *shape: int) -> Any: ...
    def asarray(self, values: Any) -> Any: ...
    def to_numpy(self, values: Any) -> np.ndarray: ...
    def expand(self, value: Any, shape: tuple[int, int]) -> Any: ...
    def shared(self, values: np.ndarray) -> Any: ...  # its rows, in the same memory; None where the library cannot
    def join(self, values: list[Any], out: Any) -> None: ...  # one after another along the last axis
    def multiply(self, a: Any, b: Any, out: Any) -> None: ...
    def add_outer(self, weights: Any, pre: Any, post: Any, scale: float, keep: float = 1.0) -> None: ...
    def add_scaled(self, weights: Any, change: Any, scale: float) -> None: ...
    def outer(self, pre: Any, post: Any, scale: float) -> Any: ...
    def gram(self, a: Any, b: Any) -> Any: ...
    def inverse_correlation(self, weights: Any, rates: Any, forgetting: float) -> Any: ...
    def shared_kernel(self, q: ProjectionPlan) -> Any: ...
    def clip_(self, weights: Any, low: float | None, high: float | None) -> None: ...
    def finite(self, values: Any) -> bool: ...


def pooled(assignment: Assignment) -> tuple[str, str]:
    """An assignment as ``(name, text)``, reductions written as functions that the engines provide."""
    a = assignment
    if not a.word:
        return a.name, a.expression
    if a.axis == "population":
        return a.name, f"ns_{a.word}({a.expression})"
    return a.name, f"ns_{a.word}_{a.axis}({a.expression}, ns_maps)"


def reductions(
    mean: Callable[[Any], Any], functions: Mapping[str, Callable[[Any], Any]], split: Callable[..., Any]
) -> dict[str, Callable[..., Any]]:
    """The functions that `pooled` names, for one array library.

    Parameters
    ----------
    mean
        The mean over the samples.
    functions
        ``{word: function over the last axis, which keeps it}``.
    split
        ``split(function, x, maps)`` applies a function to each map and repeats its value for the map's cells.
    """
    found: dict[str, Callable[..., Any]] = {}
    for word, function in functions.items():
        found[f"ns_{word}"] = function
        found[f"ns_{word}_map"] = partial(split, function)
        found[f"ns_{word}_batch"] = lambda x, maps, f=function: split(f, mean(x), maps)
    return found


def constants_of(p: PopulationPlan, arrays: Arrays, dt: float) -> dict[str, Any]:
    """What a population's compiled text reads and never changes: the step, and its parameters.

    Numbers are NumPy's, which divide by zero as arrays do."""
    return {"dt": np.float64(dt), "ns_maps": p.maps} | {
        n: arrays.asarray(v) if n in p.arrays else np.float64(v) for n, v in p.parameters.items()
    }


def shared_values(p: PopulationPlan, phase: PhasePlan) -> dict[str, Any]:
    """The shared values that a population reads in a phase: those that its cells declare, and those in rules' factors."""
    return {n: np.float64(phase.shared[n]) for n in p.shared} | {
        shared_name(n): np.float64(value) for n, value in phase.shared.items()
    }


class Pairs:
    """The weights of a one-to-one projection, as a kernel of its own kind: one product per cell."""

    def product(self, pre: Any, post: Any, winners: Any = None) -> Any:
        """Sum over the samples of post * pre, per cell."""
        return (pre * post).sum(0)


def kernels_of(plan: Plan, arrays: Any) -> dict[str, Any]:
    """What multiplies the factors of rules whose weights are no dense matrix, by projection."""
    kernels = {q.name: arrays.shared_kernel(q) for q in plan.projections.values() if q.shared_kernel}
    one_to_one = [q for q in plan.projections.values() if isinstance(q.connectivity, OneToOne) and q.rule is not None]
    return kernels | {q.name: Pairs() for q in one_to_one}


@dataclass
class Part:
    """One term of a rule on one projection: in each step, W += scale * pre^T post (times W where `weighted`)."""

    post: str
    pre: str
    scale: float
    weighted: bool
    decay: float | None  # the number k where the term is no more than k w
    expression: str  # of the pre factor
    total: Any = None  # lazy: sum over steps of the post factor
    gram: Any = None  # lazy: g x^T, with which a post factor reaches the drive


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
    noise
        The cells' white noise.
    seed, trial
        What the random signs of the protocol follow from; `trial` counts on with each trial.
    learn
        ``"on"``, ``"off"``, or ``"held"`` (changes are collected, weights stay).
    record
        What is told of each step, or None.
    """

    def __init__(
        self, plan: Plan, arrays: Arrays, weights: dict[str, Any], *, level: str, batch: int, dt: float, noise: Noise,
        learn: Learn, record: Recording | None = None, ends: bool = True, seed: int = 0, trial: int = 0,
    ):  # fmt: skip
        self.seed, self.trial = seed, trial
        self.plan, self.arrays, self.weights, self.level = plan, arrays, weights, level
        self.batch, self.dt, self.learn, self.record = batch, dt, learn, record
        self.noise = noise
        self._fits: bool | None = (
            None  # whether a row of the recording can be joined from what is recorded, as it lies in memory
        )
        plan.check_no_overlaps(level)
        self.kernels = kernels_of(plan, arrays)
        self.winners: dict[str, Any] = {}  # of the pools of convolutions
        self.filtered: dict[str, Any] = {}  # traces of the filtered rules
        self.counts = plan.steps(dt)
        self.state: dict[str, dict[str, Any]] = {}
        for p in plan.populations.values():
            names = (*p.ode, *p.inputs, *(h.name for h in p.holds), *p.noises, *p.spiking_variables)
            self.state[p.name] = {x: arrays.zeros(batch, p.n) for x in names}
        self._recorded = [(self.state[c.population], c.variable) for c in record.columns] if record is not None else []
        self._derivatives = [
            (p.name, d, arrays.zeros(batch, p.n)) for p in plan.populations.values() for d in p.derivatives
        ]
        self._timed = [self.state[p.name] for p in plan.populations.values() if p.timed]
        self._began = {"t": 0, "t_trial": 0, "t_phase": 0}  # steps
        self.constants = {p.name: constants_of(p, arrays, dt) for p in plan.populations.values()}
        self.collected: dict[str, Any] = {}
        self.exact: dict[str, Any] = {}  # rates that an exact rule waits with
        for projection in plan.plastic():
            rule = projection.rule
            assert rule is not None
            if learn != "off" and rule.filter is not None:
                self.filtered[projection.name] = arrays.zeros(*projection.weight_shape)
            if learn == "held" or (learn == "on" and rule.rule.apply != "now" and rule.rule.exact is None):
                self.collected[projection.name] = arrays.zeros(*projection.weight_shape)
        # A drive has one buffer for good: a port that one projection feeds is that buffer.
        self.drives = {q.key: arrays.zeros(batch, q.n_post) for q in plan.projections.values()}
        for p in plan.populations.values():
            self.state[p.name] |= {port: self.drives[feeding[0].key] for port, feeding in p.ports.items() if feeding}
        self.kept = ResultBuilder(plan, level, arrays.dtype_name, dt, record, ends)
        self._programs: dict[tuple[int, bool], PhaseProgram] = {}
        self._numbers: dict[tuple[float, tuple[int, int]], Any] = {}

    # ---------------------------------------------------------------- programs

    def _wanted(self, p: PopulationPlan, phase: PhasePlan, last: bool) -> set[str]:
        wanted = self.plan.sent(p.name)
        wanted |= p.names_of_ode()
        if self.record is not None:
            wanted |= {v for pop, v in self.record.variables if pop == p.name}
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
                assert projection.rule is not None
                exact = projection.rule.rule.exact
                if exact is not None:
                    factors[projection.source].append(Assignment(f"ns_exact_{name}", f"1*{exact.rate}"))
                    continue
                for term, post, pre in self.plan.rule_factors(projection, self.level):
                    for factor, text, block in (
                        (post, term.post, factors[projection.target]), (pre, term.pre, factors[projection.source])
                    ):  # fmt: skip
                        # A variable itself is copied: lazy weights read the factor after its memory was written anew.
                        value = f"1*{text}" if text.isidentifier() else text
                        # Weights and biases of a layer often share a factor: computed once, under its first name.
                        block.append(Assignment(factor, next((a.name for a in block if a.expression == value), value)))
        for p in self.plan.populations.values():
            extra = factors[p.name]
            wanted = self._wanted(p, phase, last).union(*(names_in(a.expression) for a in extra))
            early, late = p.blocks(wanted)
            # A hold changes in place after what follows from it: a variable that is the hold gets memory of its own.
            held = {h.name for h in p.holds}
            early, late = (
                [replace(a, expression=f"1*{a.expression}") if a.expression in held else a for a in block]
                for block in (early, late)
            )
            for target, block in ((program.early, early), (program.late, [*late, *extra])):
                if block:
                    compiled = compile_block(map(pooled, block), self.arrays.functions, self.constants[p.name])
                    target.append((self.state[p.name], compiled))
        self._programs[index, last] = program
        return program

    def _plastic(self, phase: PhasePlan) -> list[Plastic]:
        plastic = []
        for name in phase.plastic if self.learn != "off" else ():
            projection = self.plan.projections[name]
            rule = projection.rule
            assert rule is not None
            if rule.rule.exact is not None:
                continue
            values = {**phase.shared, **rule.parameters}
            parts = []
            for term, post, pre in self.plan.rule_factors(projection, self.level):
                coefficient = float(evaluate(term.coefficient, values))
                if coefficient != 0:
                    scale = self.dt * coefficient / self.batch
                    parts.append(Part(post, pre, scale, term.w_power > 0, term.decay, term.pre))
            if not parts and rule.filter is None:
                continue
            source = self.plan.populations[projection.source]
            static = projection.variable in source.static and all(
                not part.weighted and names_in(part.expression) <= source.static | set(map(shared_name, phase.shared))
                for part in parts
            )
            shared = sum(q.root == name for q in self.plan.projections.values()) > 1
            # Written later, a drive costs B^2 n_post in place of 2 B n_pre n_post: no gain for a bias in a batch.
            gains = name in self.collected or (not shared and self.batch <= 2 * projection.n_pre)
            plain = rule.rule.bounds == (None, None) and rule.filter is None and name not in self.kernels
            plastic.append(Plastic(self, projection, parts, static and gains and plain))
        return plastic

    # ---------------------------------------------------------------- the run

    def steps(self, stimuli: dict[str, np.ndarray], trials: int, progress: bool = True) -> Iterator[None]:
        """Run all trials; yields after steps 1 to 8 of each Euler step: the engine then integrates the potentials."""
        total = trials * sum(self.counts)
        with tqdm(total=total, desc=self.level, unit="step", delay=2, disable=not progress, leave=False) as bar:
            for trial in range(trials):
                rows = slice(trial * self.batch, (trial + 1) * self.batch)
                fields = {name: self.arrays.asarray(values[rows]) for name, values in stimuli.items()}
                if self.plan.circuit.protocol.reset or trial == 0:
                    self._reset()
                if self.record is not None:
                    self.record.begin_trial(self._weight)
                for index, phase in enumerate(self.plan.trial_phases(self.seed, self.trial)):
                    self.kept.begin(phase)
                    for _ in self._phase(index, phase, fields):
                        yield
                        self.kept.step += 1
                    bar.update(self.counts[index])
                    self.kept.end()
                if self.learn == "on":
                    self._apply("trial")
                self._apply_exact()
                self.trial += 1
                if self.record is not None:
                    self.record.end_trial()

    def _reset(self) -> None:
        for p in self.plan.populations.values():
            for x in p.ode:
                self.state[p.name][x][...] = p.initial[x]
            for hold in p.holds:
                self.state[p.name][hold.name][...] = 0.0
            if p.spiking:
                self.state[p.name]["spike_train"][...] = 0.0
                self.state[p.name]["lastspike"][...] = NEVER
        for name, d, before in self._derivatives:
            before[...] = self.state[name][d.of]
        for trace in self.filtered.values():
            trace[...] = 0.0

    def _advance_time(self) -> None:
        """What changes by itself at the start of a step: the time, noise, derivatives of the previous step."""
        for s in self._timed:
            for clock, began in self._began.items():
                s[clock] = np.float64((self.kept.step - began) * self.dt)
        for name, variable, values in self.noise.draw():
            self.state[name][variable][...] = self.arrays.asarray(values)
        for name, d, before in self._derivatives:
            now = self.state[name][d.of]
            self.state[name][d.name] = (now - before) / self.dt
            before[...] = now

    def _phase(self, index: int, phase: PhasePlan, fields: dict[str, Any]) -> Iterator[None]:
        state = self.state
        for p in self.plan.populations.values():
            for name in p.inputs:
                state[p.name][name][...] = 0.0
            state[p.name].update(shared_values(p, phase))
        self._began["t_phase"] = self.kept.step
        if index == 0:
            self._began["t_trial"] = self.kept.step
        shown = phase.fields(fields, self.seed, self.trial)
        for (population, variable), source in phase.clamps.items():
            state[population][variable][...] = self.arrays.asarray(shown[source])
        plastic = self._plastic(phase)
        exact = [n for n in phase.plastic if self.plan.projections[n].rule.rule.exact] if self.learn != "off" else []  # type: ignore[union-attr]
        fill = self._drives(plastic)
        count = self.counts[index]
        ordinary, final = self._program(index, False), self._program(index, True)
        mark = self.kept.mark_step(count)
        record, self._fits = self.record, None
        for k in range(count):
            last = k == count - 1
            program = final if last else ordinary
            self._advance_time()
            for s, block in program.early:
                block(s)
            fill(k == 0)
            for s, block in program.late:
                block(s)
            for population, hold in phase.holds if last else ():
                state[population][hold.name][...] = state[population][hold.of]
            if record is not None and record.due(self.kept.step):
                self._keep_row(record, first=self._fits is None or last)
            if k == mark:
                self.kept.mark(self._values)
            if last:
                self.kept.finish(phase, self._values)
            for q in plastic:
                q.learn(last)
            for name in exact if last else ():
                source = self.plan.projections[name].source
                self.exact[name] = self.expand(
                    state[source][f"ns_exact_{name}"], (self.batch, self.plan.populations[source].n)
                )
            if last and self.learn == "on":
                self._apply("phase", phase.plastic)
            if self.kept.step % CHECK_EVERY == 0 or k == 0 or last:
                self.check_finite()
            yield

    def _drives(self, plastic: list[Plastic]) -> Callable[[bool], None]:
        """A function that fills every port from the rates. Drives that cannot change it computes in the first step."""
        written = {q.projection.name for q in plastic if q.writes and not q.lazy}
        late = [q for q in plastic if q.writes and q.lazy]
        once, always = [], []
        for q in {q.key: q for q in self.plan.projections.values()}.values():
            static = q.variable in self.plan.populations[q.source].static and q.root not in written
            (once if static else always).append(self._drive(q))
        summed = [
            (self.state[p.name], port, [self.drives[q.key] for q in feeding])
            for p in self.plan.populations.values() for port, feeding in p.ports.items() if len(feeding) > 1
        ]  # fmt: skip

        def fill(first: bool) -> None:
            if first:
                for drive in once:
                    drive()
                for q in late:
                    q.start()
            else:
                for q in late:
                    q.advance()
            for drive in always:
                drive()
            for s, port, buffers in summed:
                s[port] = sum(buffers[1:], start=buffers[0])

        return fill

    def expand(self, value: Any, shape: tuple[int, int]) -> Any:
        """An array of this shape, only to be read. A number (parameter, shared value) is written out once."""
        if not isinstance(value, int | float):
            return self.arrays.expand(value, shape)
        if (value, shape) not in self._numbers:
            if len(self._numbers) > 64:  # a number that changes from step to step, such as the time
                self._numbers.clear()
            self._numbers[value, shape] = self.arrays.zeros(*shape) + value
        return self._numbers[value, shape]

    def _drive(self, q: ProjectionPlan) -> Callable[[], None]:
        s, variable, shape, out = self.state[q.source], q.variable, (self.batch, q.n_pre), self.drives[q.key]
        weights, expand, multiply = self.weights[q.root], self.expand, self.arrays.multiply
        if isinstance(q.connectivity, OneToOne):

            def drive() -> None:
                out[...] = s[variable] * weights
                if q.factor != 1.0:
                    out.__imul__(q.factor)
        elif q.shared_kernel:
            kernel = self.kernels[q.name]

            def drive() -> None:
                out[...], self.winners[q.name] = kernel.drive(expand(s[variable], shape), weights)
        else:
            matrix = weights.T if q.transpose else weights

            def drive() -> None:
                multiply(expand(s[variable], shape), matrix, out)
                if q.factor != 1.0:
                    out.__imul__(q.factor)

        return drive

    # ---------------------------------------------------------------- plasticity

    def bound(self, projection: ProjectionPlan) -> None:
        """Keep the weights between the bounds of their rule."""
        assert projection.rule is not None
        low, high = projection.rule.rule.bounds
        if (low, high) != (None, None):
            self.arrays.clip_(self.weights[projection.name], low, high)

    def _apply(self, when: str, names: tuple[str, ...] | None = None) -> None:
        for name, change in self.collected.items():
            projection = self.plan.projections[name]
            assert projection.rule is not None
            if projection.rule.rule.apply == when and (names is None or name in names):
                self.weights[name] += projection.rule.added(change)
                change[...] = 0.0
                self.bound(projection)

    def _held(self, name: str, change: Any) -> np.ndarray:
        found = np.array(self.arrays.to_numpy(change))
        rule = self.plan.projections[name].rule
        assert rule is not None
        return rule.added(found)

    def _apply_exact(self) -> None:
        for name, rates in self.exact.items():
            projection = self.plan.projections[name]
            assert projection.rule is not None and projection.rule.rule.exact is not None
            new = self.arrays.inverse_correlation(self.weights[name], rates, projection.rule.rule.exact.forgetting)
            if self.learn == "held":
                self.collected[name] += new - self.weights[name]
            else:
                self.weights[name][...] = new
        self.exact.clear()

    # ---------------------------------------------------------------- what is kept

    def note_spikes(self) -> None:
        """To be called once thresholds of the present step were looked at."""
        for p in self.plan.populations.values():
            if p.spiking and self.record is not None:
                fired = self.arrays.to_numpy(self.state[p.name]["spike_train"])
                self.record.note_spikes(p.name, self.kept.step, *np.nonzero(fired))

    def _keep_row(self, record: Recording, first: bool) -> None:
        """A row of the recording; `first` of those that one program computes."""
        rows, k = record.begin_row()
        if rows.shared is None:
            rows.shared = self.arrays.shared(rows.rows)
        values = [state[variable] for state, variable in self._recorded]
        if first:
            self._fits = rows.shared is not None and all(
                getattr(value, "shape", ()) == (self.batch, self.plan.populations[c.population].n)
                for c, value in zip(record.columns, values, strict=True)
            )
        if not self._fits or rows.shared is None:
            record.row(self.kept.step, self._look)
            return
        if record.recorder.cells:
            values = [v if c.cells is None else v[:, c.cells] for c, v in zip(record.columns, values, strict=True)]
        self.arrays.join(values, rows.shared[k])
        record.end_row(self.kept.step)

    def _look(self, population: str, variable: str) -> Any:
        """As it lies in memory: an array that broadcasts to (batch, cells), or a number."""
        value = self.state[population][variable]
        return value if isinstance(value, float | int) else self.arrays.to_numpy(value)

    def _weight(self, name: str) -> np.ndarray:
        return self.arrays.to_numpy(self.weights[name])

    def _values(self, population: str, variable: str) -> np.ndarray:
        shape = (self.batch, self.plan.populations[population].n)
        return np.array(self.arrays.to_numpy(self.arrays.expand(self.state[population][variable], shape)))

    def check_finite(self) -> None:
        """Raise `DivergenceError` when something is not finite; what was recorded goes with it."""
        self.kept.check_finite(self._finite, self.result)

    def _finite(self, population: str, variable: str) -> bool:
        value = self.state[population].get(variable, 0.0)
        return bool(np.isfinite(value)) if isinstance(value, int | float) else self.arrays.finite(value)

    def result(self) -> Result:
        """What the run has gathered so far."""
        return self.kept.result(
            {name: np.array(self.arrays.to_numpy(w)) for name, w in self.weights.items()},
            {name: self._held(name, w) for name, w in self.collected.items()},
        )


class Plastic:
    """A plastic projection in one phase. `lazy`: its weights are written once, at the phase's end (see the module)."""

    def __init__(self, stepper: Stepper, projection: ProjectionPlan, parts: list[Part], lazy: bool):
        self.stepper, self.arrays = stepper, stepper.arrays
        self.projection, self.parts, self.lazy = projection, parts, lazy
        self.weights = stepper.weights[projection.name]
        assert projection.rule is not None
        self.into = stepper.collected.get(projection.name, self.weights)
        self.tau: float | None = projection.rule.filter
        self.trace: Any = stepper.filtered.get(projection.name)
        self.writes = self.into is self.weights
        self.kernel = stepper.kernels.get(projection.name)
        self.drive = stepper.drives[projection.key]
        self._source, self._target = stepper.state[projection.source], stepper.state[projection.target]
        self._shapes = (stepper.batch, projection.n_pre), (stepper.batch, projection.n_post)

    def _pre(self, part: Part) -> Any:
        return self.stepper.expand(self._source[part.pre], self._shapes[0])

    def _post(self, part: Part) -> Any:
        return self.stepper.expand(self._target[part.post], self._shapes[1])

    def _product(self, pre: Any, post: Any) -> Any:
        """The sum over samples of pre^T post, in the shape of the weights."""
        if self.kernel is None:
            return self.arrays.outer(pre, post, 1.0)
        return self.kernel.product(pre, post, self.stepper.winners.get(self.projection.name))

    def start(self) -> None:
        """Lazy, first step: how a post factor will reach the drive."""
        sent = self.stepper.expand(self._source[self.projection.variable], self._shapes[0])
        for part in self.parts:
            # The late block, which computes the factor, has not run yet in this step.
            constants = self.stepper.constants[self.projection.source]
            compile_block([(part.pre, part.expression)], self.arrays.functions, constants)(self._source)
            part.gram = self.arrays.gram(self._pre(part), sent)

    def advance(self) -> None:
        """Lazy, later steps: what the weights would have learnt in the step before reaches the drive."""
        for part in self.parts:
            self.arrays.add_outer(self.drive, part.gram, self._post(part), part.scale)

    def learn(self, last: bool) -> None:
        """Weights to t+dt."""
        if self.lazy:
            for part in self.parts:
                if part.total is None:
                    part.total = self._post(part) + 0.0
                else:
                    part.total += self._post(part)
                if last:
                    self.arrays.add_outer(self.into, self._pre(part), part.total, part.scale)
            return
        weighted = [p for p in self.parts if p.weighted]
        decay = [
            self._product(self._pre(p), self._post(p)) * (p.scale * self.weights)
            if p.decay is None
            else self.weights * (p.scale * self.stepper.batch * p.decay)
            for p in weighted
        ]
        into, share, keep = self.into, 1.0, 1.0
        if self.tau is not None:  # the weight follows the trace, the trace follows the product
            self.arrays.add_scaled(self.into, self.trace, self.stepper.dt)
            into, share, keep = self.trace, 1.0 / self.tau, 1.0 - self.stepper.dt / self.tau
        for part in self.parts:
            if part.weighted:
                continue
            if self.kernel is not None:
                product = self._product(self._pre(part), self._post(part))
                into *= keep
                self.arrays.add_scaled(into, product, share * part.scale)
            else:
                self.arrays.add_outer(into, self._pre(part), self._post(part), share * part.scale, keep)
            keep = 1.0
        if keep != 1.0:
            self.trace *= keep
        for change in decay:
            self.arrays.add_scaled(into, change, share)
        if self.writes:
            self.stepper.bound(self.projection)


__all__ = ["Arrays", "Learn", "Stepper", "pooled"]
