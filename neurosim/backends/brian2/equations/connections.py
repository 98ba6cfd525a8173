"""The projections: `Synapses` for each, their weights, and what becomes of the rule's changes."""

from __future__ import annotations

import brian2 as b2
import numpy as np

from neurosim.backends.brian2.equations.names import BOUNDS, WEIGHTS, part
from neurosim.backends.brian2.equations.rules import RuleEquations, rule_equations
from neurosim.backends.brian2.network import brian2_unit, object_name
from neurosim.backends.engine import Learn
from neurosim.description import OneToOne
from neurosim.plan import PhasePlan, Plan, ProjectionPlan


class Connection:
    """The synapses of a projection.

    Parameters
    ----------
    plan, q
        The projection and its circuit.
    groups
        The cells, by population.
    clock, learn
        Of the run.
    """

    def __init__(
        self,
        plan: Plan,
        q: ProjectionPlan,
        groups: dict[str, b2.NeuronGroup],
        clock: b2.Clock,
        learn: Learn,
    ):
        self.q, self.clock = q, clock
        on = learn != "off" and any(q.name in phase.plastic for phase in plan.phases)
        #: The rule, where it is on in some phase.
        self.rule = q.rule if on else None
        #: When the rule's changes are added to the weights; empty: never.
        self.applies = self.rule.apply if self.rule is not None and learn == "on" else ""
        self.collects = self.rule is not None and self.applies != "now"
        #: Which weight each synapse of a list has.
        self._entry: np.ndarray | None = None
        self._kernel = np.zeros(0)  # the weights of a list, as last set
        self.synapses = self._synapses(plan, groups)
        if self.applies == "now":
            self._bound_at_once()

    def _synapses(self, plan: Plan, groups: dict[str, b2.NeuronGroup]) -> b2.Synapses:
        q, target = self.q, plan.populations[self.q.target]
        receives = q.port if len(target.ports[q.port]) == 1 else part(q)
        unit = brian2_unit(target.dimensions[q.port])
        told = RuleEquations([f"w : {brian2_unit(q.weight_dimension)}"], {})
        if self.rule is not None:
            told = rule_equations(plan, q, self.rule, self.collects)
        sums = f"{receives}_post = w*{q.variable}_pre : {unit} (summed)"
        synapses = b2.Synapses(
            groups[q.source],
            groups[q.target],
            "\n".join([sums, *told.lines]),
            method="euler",
            clock=self.clock,
            namespace=told.namespace,
            name=object_name("weights", q.name),
            order=WEIGHTS,
        )
        self._connect(synapses)
        synapses.summed_updaters[f"{receives}_post"].when = "start"
        return synapses

    def _connect(self, synapses: b2.Synapses) -> None:
        if isinstance(self.q.connectivity, OneToOne):
            synapses.connect(j="i")
        elif self.q.listed:
            source, target, entry = self.q.synapses()
            synapses.connect(i=source, j=target)
            self._entry = entry
            if self.rule is not None and self.q.shared_kernel:
                sharing = synapses.variables["ns_sharing"].get_value()
                sharing[...] = np.bincount(entry)[entry]
        else:
            synapses.connect()

    def _bound_at_once(self) -> None:
        """Keep weights that move in every step between the bounds of their rule."""
        assert self.rule is not None
        low, high = self.rule.bounds
        if (low, high) == (None, None):
            return
        low, high = (-np.inf if low is None else low), (np.inf if high is None else high)
        self.synapses.run_regularly(
            "w = ns_on*clip(w, ns_low, ns_high) + (1 - ns_on)*w",
            clock=self.clock,
            when="groups",
            order=BOUNDS,
            name=object_name("bound", self.q.name),
        )
        dimension = self.q.weight_dimension
        self.synapses.namespace.update(
            ns_low=b2.Quantity(low, dim=dimension),
            ns_high=b2.Quantity(high, dim=dimension),
        )

    # ---------------------------------------------------------------- weights

    def value(self, variable: str) -> np.ndarray:
        """A variable of the synapses in Brian2's memory, base SI units."""
        return self.synapses.variables[variable].get_value()

    def matrix(self, variable: str = "w") -> np.ndarray:
        """A value for each synapse in Brian2's memory; of dense projections (n_pre, n_post)."""
        flat = self.value(variable)
        if isinstance(self.q.connectivity, OneToOne) or self._entry is not None:
            return flat
        return flat.reshape(self.q.n_pre, self.q.n_post)

    def set(self, weights: np.ndarray) -> None:
        """Give the synapses their weights."""
        if self._entry is None:
            self.matrix()[...] = weights
        else:
            self._kernel = weights
            self.matrix()[...] = weights.ravel()[self._entry]

    def weights(self) -> np.ndarray:
        """A copy of the projection's weights."""
        if self._entry is None:
            return self.matrix().copy()
        # Weights that meet no cell, at the edge of small maps, stay.
        found = self._kernel.ravel().copy()
        found[self._entry] = self.matrix()
        return found.reshape(self.q.weight_shape)

    def collected(self) -> np.ndarray:
        """A copy of the changes since the last `apply`; summed over the synapses of a weight."""
        changes, shape = self.matrix("ns_collected"), self.q.weight_shape
        if self._entry is None:
            return changes.copy()
        sums = np.bincount(self._entry, weights=changes, minlength=int(np.prod(shape)))
        return sums.reshape(shape)

    def held(self) -> np.ndarray:
        """What is collected, as it would be applied."""
        assert self.rule is not None
        return self.rule.added(self.collected())

    def follow(self, root: Connection) -> None:
        """Take the weights of the projection that this one is tied to."""
        weights = root.matrix()
        self.matrix()[...] = self.q.factor * (weights.T if self.q.transpose else weights)

    # ---------------------------------------------------------------- the rule in a run

    def reset(self) -> None:
        """A trial begins from the start."""
        if self.rule is not None and self.rule.filter is not None:
            self.value("ns_trace")[...] = 0.0

    def begin(self, phase: PhasePlan, phases: tuple[PhasePlan, ...]) -> None:
        """Turn the rule on or off for one of the phases of a trial."""
        if self.rule is None:
            return
        on = self.q.name in phase.plastic
        self.value("ns_on")[...] = float(on)
        # A rule that is off sees the shared values of a phase in which it is on: 0 * finite = 0.
        seen = phase if on else next(other for other in phases if self.q.name in other.plastic)
        for name in self.rule.shared:
            self.value(f"ns_{name}")[...] = seen.shared[name]

    def apply(self) -> None:
        """Add what was collected to the weights."""
        assert self.rule is not None
        weights = self.weights() + self.held()
        self.matrix("ns_collected")[...] = 0.0
        low, high = self.rule.bounds
        if (low, high) != (None, None):
            np.clip(weights, low, high, out=weights)
        self.set(weights)
