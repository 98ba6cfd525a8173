"""`brian2:equations`: pure `NeuronGroup` and `Synapses`, the readable reference. One sample at a time.

Every subexpression of a cell is a stored variable that one `run_regularly` per stage computes, so that the order inside a
step (see `neurosim.plan`) is explicit:

    before_start   clamps and shared values; early variables and pools, stage by stage
    start          drives: summed Synapses
    groups, 0..    late variables and pools, stage by stage; 3000 holds; 4000 recorders;
                   5000 Synapses (weights to t+dt); 6000 NeuronGroups (potentials to t+dt)
"""

from __future__ import annotations

import time
from typing import Any

import brian2 as b2
import numpy as np
from tqdm import tqdm

from neurosim.backends.brian2.arrays import REDUCED
from neurosim.backends.brian2.convolution import synapses_of
from neurosim.backends.brian2.network import (
    WHOLE,
    brian2_settings,
    brian2_unit,
    clear_spike_train,
    namespace_of,
    object_name,
    run_network,
    spike_operation,
    spiking_arguments,
    state_lines,
)
from neurosim.backends.engine import Options, check_stimuli
from neurosim.backends.noise import Noise
from neurosim.backends.result import CHECK_EVERY, Result, ResultBuilder
from neurosim.backends.step import Learn
from neurosim.description import Conv2d, OneToOne
from neurosim.equations import Derivative, Hold, brian2_source, names_in, quantity, substitute
from neurosim.errors import UnsupportedError
from neurosim.plan import CLOCK, NEVER, Assignment, PhasePlan, Plan, PopulationPlan, ProjectionPlan
from neurosim.traces.recording import Recording

LEVEL = "brian2:equations"
#: Synapses of one convolution, beyond which a maps' circuit is refused (about 100 bytes each).
MAX_SYNAPSES = 4_000_000
HOLDS, RECORDERS, WEIGHTS, BOUNDS, POTENTIALS = 3000, 4000, 5000, 5500, 6000


class EquationsEngine:
    """See `neurosim.backends.engine.Engine`. float64, batch 1."""

    level = LEVEL

    def __init__(self, plan: Plan, weights: dict[str, np.ndarray], options: Options):
        plan.check_weights(weights)
        plan.check_step(options.dt)
        plan.warn_of_growth(LEVEL)
        plan.steps(options.dt)  # refused before Brian2's objects are made, which complain when they are dropped
        if options.batch != 1:
            raise UnsupportedError(
                f"{LEVEL} presents one sample at a time; got a batch of {options.batch}. Use brian2:dense or "
                "torch:trajectory for batches."
            )
        if options.dtype != "float64":
            raise UnsupportedError(
                f"{LEVEL} runs in float64; got dtype {options.dtype}. Use torch:trajectory for float32."
            )
        plan.check_no_overlaps(LEVEL)
        self._check_kernels(plan)
        for projection in plan.plastic():
            assert projection.rule is not None
            if projection.shared_kernel and projection.rule.rule.apply == "now":
                raise UnsupportedError(
                    f"The rule '{projection.rule.rule.name}' of projection '{projection.name}' cannot run on {LEVEL}: with apply='now' the synapses of one "
                    "kernel would part in every step. Give the rule apply='phase' or 'trial', or use brian2:dense."
                )
            if projection.shared_kernel and any(t.decay is not None for t in projection.rule.terms or ()):
                met = len(np.unique(synapses_of(projection)[2]))
                if met < np.prod(projection.weight_shape):
                    raise UnsupportedError(
                        f"The rule '{projection.rule.rule.name}' of projection '{projection.name}' cannot run on {LEVEL}: it lets weights decay, and "
                        f"{np.prod(projection.weight_shape) - met} of the kernel's meet no cell of these maps, so they have no synapse. Use larger maps or "
                        "brian2:dense."
                    )
            if projection.rule.rule.exact is not None:
                raise UnsupportedError(
                    f"The rule '{projection.rule.rule.name}' of projection '{projection.name}' cannot run on {LEVEL}: its exact form inverts a "
                    "whole matrix, which no synapse can do by itself. Use brian2:dense or a torch level, or a rule without `exact`."
                )
        self.plan, self.options = plan, options
        self._weights = {name: np.array(w, dtype=float) for name, w in weights.items()}
        self.noise, self.trial = Noise(plan, options.seed, 1, options.dt), 0

    @staticmethod
    def _check_kernels(plan: Plan) -> None:
        """Refuse convolutions that synapses cannot do."""
        for q in plan.projections.values():
            if isinstance(q.connectivity, Conv2d) and q.connectivity.pool > 1:
                raise UnsupportedError(
                    f"{LEVEL} cannot run projection '{q.name}': it takes the maximum over {q.connectivity.pool} x {q.connectivity.pool} positions, and what reaches "
                    "a cell through Synapses is a sum. Use brian2:dense, or a convolution with a stride in place of the pool."
                )
            if q.shared_kernel and (count := q.weight_shape[0] * q.n_post) > MAX_SYNAPSES:
                raise UnsupportedError(
                    f"{LEVEL} would need about {count:,} synapses for the convolution '{q.name}', one per position; the limit is {MAX_SYNAPSES:,}. Use "
                    "smaller maps, brian2:dense or a torch level."
                )

    def weights(self) -> dict[str, np.ndarray]:
        return {name: w.copy() for name, w in self._weights.items()}

    def set_weights(self, weights: dict[str, np.ndarray]) -> None:
        for name, value in weights.items():
            self._weights[name][...] = value

    def present(
        self, stimuli: dict[str, np.ndarray], *, learn: Learn = "on", record: Recording | None = None, ends: bool = True,
    ) -> Result:  # fmt: skip
        started = time.perf_counter()
        trials = check_stimuli(self.plan, stimuli, 1)
        with brian2_settings(self.options.codegen):
            run = _Run(
                self.plan, self._weights, self.options, stimuli, trials, self.noise, learn, record, ends, self.trial,
            )  # fmt: skip
            result = run.run()
        self._weights = {name: w.copy() for name, w in result.weights.items()}
        self.trial += trials
        result.seconds = time.perf_counter() - started
        return result


class _Run:
    """The Brian2 objects of one run."""

    def __init__(
        self, plan: Plan, weights: dict[str, np.ndarray], options: Options, stimuli: dict[str, np.ndarray], trials: int,
        noise: Noise, learn: Learn, record: Recording | None, ends: bool, first: int,
    ):  # fmt: skip
        self.first = first
        self.plan, self.options, self.stimuli, self.noise, self.learn = plan, options, stimuli, noise, learn
        self.clock = b2.Clock(options.dt * b2.second, name="ns_clock")
        self.objects: list[Any] = []
        self.kernel_entry: dict[str, np.ndarray] = {}  # which weight of a convolution each of its synapses has
        self.kernels: dict[str, np.ndarray] = {}  # weights of convolutions, as last set
        self.groups = {p.name: self._group(p) for p in plan.populations.values()}
        self.synapses = {q.name: self._projection(q) for q in plan.projections.values()}
        for name, values in weights.items():
            self._set(name, values)
        self.record = record
        self.kept = ResultBuilder(plan, LEVEL, "float64", options.dt, record, ends)
        self.counts = plan.steps(options.dt)
        self.trials = trials

    # ---------------------------------------------------------------- cells

    def _group(self, p: PopulationPlan) -> b2.NeuronGroup:
        lines = state_lines(p)
        reduced = [a for a in p.assignments if a.reduction]
        pools = {a.name for a in reduced if a.reduction and a.reduction.additive}
        others = [a.name for a in reduced if a.name not in pools]
        arrays, read_holds = p.arrays, self._read_holds(p.name)
        stored = [*p.subexpressions, *p.ports, *p.inputs, *(h.name for h in p.holds), *arrays, *p.noises, *others]
        stored += [d.name for d in p.derivatives] + (["spike_train"] if p.spiking else [])
        stored += [_part(q) for port in p.ports.values() if len(port) > 1 for q in port]
        lines += [f"{n} : {brian2_unit(p.dimensions[n if n in p.dimensions else _port(n)])}" for n in stored]
        lines += [f"{n} : {brian2_unit(p.dimensions[n])} (shared)" for n in (*p.shared, *p.clocks)]
        lines += [
            f"{n} : {brian2_unit(p.dimensions[n])}\nns_{n} : {brian2_unit(p.dimensions[n])} (linked)" for n in pools
        ]
        lines += [f"ns_of_{n} : {brian2_unit(p.dimensions[n])}" for n in others]
        lines += [f"ns_take_{h.name} : boolean (shared)" for h in p.holds]
        lines += [f"{_held_before(h)} : {brian2_unit(p.dimensions[h.name])}" for h in read_holds]
        lines += [f"{_before(d)} : {brian2_unit(p.dimensions[d.of])}" for d in p.derivatives]
        group = b2.NeuronGroup(
            p.n, "\n".join(lines), method="euler" if p.ode else None, clock=self.clock, namespace=namespace_of(p),
            name=object_name("group", p.name), order=POTENTIALS, **spiking_arguments(p),
        )  # fmt: skip
        if p.spiking:
            clear_spike_train(group, self.clock)
        for d in p.derivatives:
            code = f"{d.name} = ({d.of} - {_before(d)})/dt\n{_before(d)} = {d.of}"
            group.run_regularly(
                code, clock=self.clock, when="before_start", order=5, name=object_name("slope", p.name, d.name)
            )
        for n, value in arrays.items():
            group.variables[n].get_value()[...] = value
        early, late = p.blocks([a.name for a in p.assignments])
        late = [
            *(Assignment(port, " + ".join(_part(q) for q in feeding)) for port, feeding in p.ports.items() if len(feeding) > 1),
            *late,
        ]  # fmt: skip
        self.objects.append(group)
        self._stages(p, group, early, "before_start")
        self._stages(p, group, late, "groups")
        if read_holds:  # rules read what was held before this step
            code = "\n".join(f"{_held_before(h)} = {h.name}" for h in read_holds)
            group.run_regularly(
                code, clock=self.clock, when="groups", order=HOLDS - 1, name=object_name("held_before", p.name)
            )
        for h in p.holds:
            take = f"ns_take_{h.name}"
            group.run_regularly(
                f"{h.name} = int({take})*{h.of} + int(not {take})*{h.name}", clock=self.clock, when="groups", order=HOLDS,
                name=object_name("hold", p.name, h.name),
            )  # fmt: skip
        return group

    def _stages(self, p: PopulationPlan, group: b2.NeuronGroup, block: list[Assignment], when: str) -> None:
        order, pending = 10, []

        def flush() -> None:
            nonlocal order
            if pending:
                code = "\n".join(f"{a.name} = {brian2_source(a.expression)}" for a in pending)
                name = object_name(f"{'early' if when == 'before_start' else 'late'}_{order}", p.name)
                group.run_regularly(code, clock=self.clock, when=when, order=order, name=name)
                order += 10
                pending.clear()

        for a in block:
            if a.reduction is None:
                pending.append(a)
                continue
            if not a.reduction.additive:
                pending.append(Assignment(f"ns_of_{a.name}", a.expression))
                flush()
                self._reduced(p, group, a, when, order + 1)
                order += 10
                continue
            flush()
            unit = brian2_unit(p.dimensions[a.name])
            # One sum for the population, or one per map; of a batch of one sample the mean is that sample.
            sums, of_cell = 1, np.zeros(p.n, dtype=int)
            if a.axis in ("map", "batch"):
                sums, of_cell = p.maps, np.arange(p.n) // (p.n // p.maps)
            pool = b2.NeuronGroup(
                sums, f"total : {unit}", clock=self.clock, name=object_name("pool", p.name, a.name), order=order + 1
            )
            from_cells = b2.Synapses(
                group, pool, f"total_post = ns_term : {unit} (summed)\nns_term = {_suffixed(brian2_source(a.expression), p)} : {unit}",
                clock=self.clock, namespace=dict(group.namespace), name=object_name("sum", p.name, a.name),
            )  # fmt: skip
            from_cells.connect(i=np.arange(p.n), j=of_cell)
            from_cells.summed_updaters["total_post"].when = when
            # Stored per cell as well, where rules and other pools can read it.
            setattr(group, f"ns_{a.name}", b2.linked_var(pool, "total", index=of_cell))
            pending.append(Assignment(a.name, f"ns_{a.name}"))
            self.objects += [pool, from_cells]
            order += 10
        flush()

    def _reduced(self, p: PopulationPlan, group: b2.NeuronGroup, a: Assignment, when: str, order: int) -> None:
        """A reduction that is no sum: an operation, since what Synapses make of their sources is a sum."""
        values, found = (group.variables[n].get_value() for n in (f"ns_of_{a.name}", a.name))
        rows, reduce = values.reshape(p.maps if a.axis == "map" else 1, -1), REDUCED[a.word]

        def operation() -> None:
            found.reshape(rows.shape)[...] = reduce(rows)

        name = object_name(a.word, p.name, a.name)
        self.objects.append(b2.NetworkOperation(operation, clock=self.clock, when=when, order=order, name=name))

    def _read_holds(self, population: str) -> list[Hold]:
        """Holds of a population that a rule reads."""
        p = self.plan.populations[population]
        read = {
            name
            for q in self.plan.projections.values() if q.rule is not None
            for side, end in (("_pre", q.source), ("_post", q.target)) if end == population
            for name in names_in(q.rule.rhs) if name.endswith(side)
        }  # fmt: skip
        return [h for h in p.holds if read & {f"{h.name}_pre", f"{h.name}_post"}]

    # ---------------------------------------------------------------- projections

    def _projection(self, q: ProjectionPlan) -> b2.Synapses:
        unit = brian2_unit(q.weight_dimension)
        feeding = self.plan.populations[q.target].ports[q.port]
        receives = q.port if len(feeding) == 1 else _part(q)
        port_unit = brian2_unit(self.plan.populations[q.target].dimensions[q.port])
        lines = [f"{receives}_post = w*{q.variable}_pre : {port_unit} (summed)"]
        namespace: dict[str, Any] = {}
        rule = q.rule
        if rule is not None and self._learns(q):
            # Bare names of a rule get a prefix: Brian2 would look for them among the cells' variables first.
            namespace = WHOLE | {f"ns_{n}": b2.Quantity(v, dim=_dimension(rule, n)) for n, v in rule.parameters.items()}
            rhs = substitute(brian2_source(rule.rhs), {n: f"ns_{n}" for n in (*rule.parameters, *rule.shared)})
            for population, side in ((q.source, "pre"), (q.target, "post")):
                before = {h.name: _held_before(h) for h in self._read_holds(population)}
                rhs = substitute(rhs, {f"{n}_{side}": f"{old}_{side}" for n, old in before.items()})
            for population, side in ((q.source, "pre"), (q.target, "post")):
                p = self.plan.populations[population]
                for n in (n for n in p.parameters if f"{n}_{side}" in names_in(rhs) and n not in p.arrays):
                    namespace[f"ns_{side}_{n}"] = b2.Quantity(p.parameters[n], dim=p.dimensions[n])
                    rhs = substitute(rhs, {f"{n}_{side}": f"ns_{side}_{n}"})
            if q.shared_kernel:  # the synapses of one weight share its decay
                rhs = substitute(rhs, {"w": "(w/ns_sharing)"})
                lines.append("ns_sharing : 1")
            collects = self.learn == "held" or rule.rule.apply != "now"
            changed = "ns_collected" if collects else "w"
            if rule.filter is not None:
                namespace["ns_filter"] = rule.filter * b2.second
                lines.append(f"dns_trace/dt = ns_on*({rhs} - ns_trace)/ns_filter : {unit}/second (clock-driven)")
                rhs = "ns_trace"
            lines.append(f"d{changed}/dt = ns_on*({rhs}) : {unit} (clock-driven)")
            lines += [f"w : {unit}"] if collects else []
            lines += ["ns_on : 1 (shared)"]
            lines += [f"ns_{n} : {brian2_unit(self.plan.shared_dimensions[n])} (shared)" for n in rule.shared]
        else:
            lines.append(f"w : {unit}")
        synapses = b2.Synapses(
            self.groups[q.source], self.groups[q.target], "\n".join(lines), method="euler", clock=self.clock,
            namespace=namespace, name=object_name("weights", q.name), order=WEIGHTS,
        )  # fmt: skip
        if q.shared_kernel:
            source, target, self.kernel_entry[q.name] = synapses_of(q)
            synapses.connect(i=source, j=target)
            if rule is not None and self._learns(q):
                entry = self.kernel_entry[q.name]
                synapses.variables["ns_sharing"].get_value()[...] = np.bincount(entry)[entry]
        else:
            synapses.connect(j="i") if isinstance(q.connectivity, OneToOne) else synapses.connect()
        synapses.summed_updaters[f"{receives}_post"].when = "start"
        now = rule is not None and rule.rule.apply == "now" and self.learn == "on" and self._learns(q)
        if rule is not None and now and rule.rule.bounds != (None, None):
            low, high = rule.rule.bounds
            low, high = (-np.inf if low is None else low), (np.inf if high is None else high)
            synapses.run_regularly(
                "w = ns_on*clip(w, ns_low, ns_high) + (1 - ns_on)*w",
                clock=self.clock,
                when="groups",
                order=BOUNDS,
                name=object_name("bound", q.name),
            )
            synapses.namespace.update(
                ns_low=b2.Quantity(low, dim=q.weight_dimension), ns_high=b2.Quantity(high, dim=q.weight_dimension)
            )
        self.objects.append(synapses)
        return synapses

    def _learns(self, q: ProjectionPlan) -> bool:
        return self.learn != "off" and any(q.name in phase.plastic for phase in self.plan.phases)

    def _view(self, name: str, variable: str = "w") -> np.ndarray:
        q = self.plan.projections[name]
        flat = self.synapses[name].variables[variable].get_value()
        flat_shape = isinstance(q.connectivity, OneToOne) or q.shared_kernel
        return flat if flat_shape else flat.reshape(q.n_pre, q.n_post)

    def _set(self, name: str, values: np.ndarray) -> None:
        """Give a projection's synapses their weights."""
        if name in self.kernel_entry:
            self.kernels[name] = values
        self._view(name)[...] = values.ravel()[self.kernel_entry[name]] if name in self.kernel_entry else values

    def _get(self, name: str, variable: str = "w") -> np.ndarray:
        """A projection's weights as a copy, or the changes that it collected: those of the synapses of one weight summed."""
        view = self._view(name, variable)
        if name not in self.kernel_entry:
            return view.copy()
        shape, entry = self.plan.projections[name].weight_shape, self.kernel_entry[name]
        if variable == "w":
            found = self.kernels[name].ravel().copy()  # weights that meet no cell, at the edge of small maps, stay
            found[entry] = view
        else:
            found = np.bincount(entry, weights=view, minlength=int(np.prod(shape)))
        return found.reshape(shape)

    def _tie(self) -> None:
        for q in self.plan.projections.values():
            if q.root != q.name:
                root = self._view(q.root)
                self._view(q.name)[...] = q.factor * (root.T if q.transpose else root)

    # ---------------------------------------------------------------- the run

    def run(self) -> Result:
        total = self.trials * sum(self.counts)
        with tqdm(total=total, desc=LEVEL, unit="step", delay=2, disable=not self.options.progress, leave=False) as bar:
            steps = self._steps(bar)
            keep = b2.NetworkOperation(self._keep, clock=self.clock, when="groups", order=RECORDERS, name="ns_keep")
            network = b2.Network(*self.objects, keep, *spike_operation(self.plan, self._note_spikes, self.clock))
            run_network(network, lambda: next(steps), self.clock, total, self.options)
            for _ in steps:  # the end of the last trial
                pass
        self._check_finite()
        return self._result()

    def _steps(self, bar: tqdm) -> Any:
        """Before each step: what the protocol sets. After the last step of a phase: what is applied."""
        for trial in range(self.trials):
            phases = self.plan.trial_phases(self.options.seed, self.first + trial)
            began = {"t_trial": self.kept.step}
            if self.record is not None:
                self.record.begin_trial(self._get)
            for index, phase in enumerate(phases):
                self.kept.begin(phase)
                self._begin(phases, index, trial)
                moving = bool(set(phase.plastic) & {q.root for q in self.plan.projections.values() if q.root != q.name})
                mark = self.kept.mark_step(self.counts[index])
                began["t_phase"] = self.kept.step
                for k in range(self.counts[index]):
                    last = k == self.counts[index] - 1
                    if moving:
                        self._tie()
                    for p in self.plan.populations.values():
                        for clock in p.clocks:
                            time_of = self.groups[p.name].variables[clock].get_value()
                            time_of[...] = (self.kept.step - began[clock]) * self.options.dt
                    for population, variable, values in self.noise.draw():
                        self.groups[population].variables[variable].get_value()[...] = values[0]
                    for population, hold in phase.holds:
                        self.groups[population].variables[f"ns_take_{hold.name}"].get_value()[...] = last
                    self.now = (phase, k == mark, last)
                    yield
                    self.kept.step += 1
                    if self.kept.step % CHECK_EVERY == 0 or k == 0 or last:
                        self._check_finite()
                for population, hold in phase.holds:
                    self.groups[population].variables[f"ns_take_{hold.name}"].get_value()[...] = False
                self._apply("phase", phase)
                self.kept.end()
                bar.update(self.counts[index])
            self._apply("trial", None)
            if self.record is not None:
                self.record.end_trial()

    def _begin(self, phases: tuple[PhasePlan, ...], index: int, trial: int) -> None:
        plan, phase = self.plan, phases[index]
        for p in plan.populations.values():
            variables = self.groups[p.name].variables
            if index == 0 and (plan.circuit.protocol.reset or trial == 0):
                for x in p.ode:
                    variables[x].get_value()[...] = p.initial[x]
                for hold in p.holds:
                    variables[hold.name].get_value()[...] = 0.0
                for d in p.derivatives:
                    variables[_before(d)].get_value()[...] = p.initial[d.of]
                if p.spiking:
                    variables["spike_train"].get_value()[...] = 0.0
                    variables["lastspike"].get_value()[...] = NEVER
            for name in p.shared:
                variables[name].get_value()[...] = phase.shared[name]
            for name in p.inputs:
                variables[name].get_value()[...] = 0.0
        one = {name: values[trial : trial + 1] for name, values in self.stimuli.items()}
        shown = phase.fields(one, self.options.seed, self.first + trial)
        for (population, variable), source in phase.clamps.items():
            self.groups[population].variables[variable].get_value()[...] = shown[source][0]
        for q in plan.projections.values():
            if self._learns(q):
                synapses = self.synapses[q.name]
                assert q.rule is not None
                if q.rule.filter is not None and index == 0 and (plan.circuit.protocol.reset or trial == 0):
                    synapses.variables["ns_trace"].get_value()[...] = 0.0
                on = q.name in phase.plastic
                synapses.variables["ns_on"].get_value()[...] = float(on)
                # While a rule is off it sees the shared values of a phase in which it is on: 0 * finite = 0.
                seen = phase if on else next(p for p in phases if q.name in p.plastic)
                for name in q.rule.shared:
                    synapses.variables[f"ns_{name}"].get_value()[...] = seen.shared[name]
        self._tie()

    def _keep(self) -> None:
        phase, mark, last = self.now
        if self.record is not None and self.record.due(self.kept.step):
            self.record.row(self.kept.step, self._look)
        if mark:
            self.kept.mark(self._values)
        if last:
            self.kept.finish(phase, self._values)

    def _note_spikes(self) -> None:
        for p in self.plan.populations.values():
            if p.spiking and self.record is not None:
                fired = self._look(p.name, "spike_train")
                self.record.note_spikes(p.name, self.kept.step, *np.nonzero(fired[None, :]))

    def _look(self, population: str, variable: str) -> np.ndarray:
        """As it lies in Brian2's memory, base SI units."""
        return self.groups[population].variables[variable].get_value()

    def _values(self, population: str, variable: str) -> np.ndarray:
        return np.array(self._look(population, variable))[None, :]

    def _apply(self, when: str, phase: PhasePlan | None) -> None:
        if self.learn != "on":
            return
        for q in self.plan.projections.values():
            if q.rule is None or q.rule.rule.apply != when or not self._learns(q):
                continue
            if phase is None or q.name in phase.plastic:
                weights = self._get(q.name) + q.rule.added(self._get(q.name, "ns_collected"))
                self._view(q.name, "ns_collected")[...] = 0.0
                low, high = q.rule.rule.bounds
                if (low, high) != (None, None):
                    np.clip(weights, low, high, out=weights)
                self._set(q.name, weights)

    def _check_finite(self) -> None:
        self.kept.check_finite(lambda p, x: bool(np.isfinite(self._look(p, x).sum())), self._result)

    def _result(self) -> Result:
        weights = {q.name: self._get(q.name) for q in self.plan.projections.values() if q.root == q.name}
        collected = {
            name: self._get(name, "ns_collected")
            for name, synapses in self.synapses.items() if "ns_collected" in synapses.variables
        }  # fmt: skip
        for name, change in collected.items():
            rule = self.plan.projections[name].rule
            assert rule is not None
            collected[name] = rule.added(change)
        return self.kept.result(weights, collected)


def _before(d: Derivative) -> str:
    """The value of a state in the step before, of which a derivative is taken."""
    return f"ns_before_{d.name}"


def _held_before(hold: Hold) -> str:
    """The value that a hold had before this step."""
    return f"ns_was_{hold.name}"


def _part(q: ProjectionPlan) -> str:
    """The share of a port that one projection fills, where several feed the port."""
    return f"ns_{q.port}_from_{q.name}"


def _port(name: str) -> str:
    return name.removeprefix("ns_").partition("_from_")[0]


def _suffixed(expression: str, p: PopulationPlan) -> str:
    cells = names_in(expression) - {n for n, v in p.parameters.items() if not isinstance(v, np.ndarray)} - CLOCK
    return substitute(expression, {n: f"{n}_pre" for n in cells})


def _dimension(rule: Any, name: str) -> Any:
    return quantity(rule.rule.parameters[name])[1]
