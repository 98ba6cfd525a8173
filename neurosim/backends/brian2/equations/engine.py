"""The engine of `brian2:equations`."""

from __future__ import annotations

import time

import numpy as np

from neurosim.backends.brian2.equations.names import LEVEL
from neurosim.backends.brian2.equations.run import Run
from neurosim.backends.brian2.network import brian2_settings
from neurosim.backends.engine import Learn, Options, check_stimuli
from neurosim.backends.noise import Noise
from neurosim.backends.result import Result
from neurosim.description import Conv2d
from neurosim.errors import UnsupportedError
from neurosim.plan import Plan, ProjectionPlan, RulePlan
from neurosim.traces.recording import Recording

#: Synapses of one convolution, beyond which a maps' circuit is refused (about 100 bytes each).
MAX_SYNAPSES = 4_000_000


class EquationsEngine:
    """See `neurosim.backends.engine.Engine`. float64, batch 1."""

    level = LEVEL

    def __init__(self, plan: Plan, weights: dict[str, np.ndarray], options: Options):
        plan.check_weights(weights)
        plan.check_step(options.dt)
        plan.warn_of_growth(LEVEL)
        # Refused before Brian2's objects are made, which complain when they are dropped.
        plan.steps(options.dt)
        _check_options(options)
        plan.check_no_overlaps(LEVEL)
        for q in plan.projections.values():
            _check_kernel(q)
        for q, rule in plan.plastic():
            _check_rule(q, rule)
        self.plan, self.options = plan, options
        self._weights = {name: np.array(w, dtype=float) for name, w in weights.items()}
        self.noise, self.trial = Noise(plan, options.seed, 1, options.dt), 0

    def weights(self) -> dict[str, np.ndarray]:
        return {name: w.copy() for name, w in self._weights.items()}

    def set_weights(self, weights: dict[str, np.ndarray]) -> None:
        for name, value in weights.items():
            self._weights[name][...] = value

    def present(
        self,
        stimuli: dict[str, np.ndarray],
        *,
        learn: Learn = "on",
        record: Recording | None = None,
        ends: bool = True,
    ) -> Result:
        started = time.perf_counter()
        trials = check_stimuli(self.plan, stimuli, 1)
        with brian2_settings(self.options.codegen):
            run = Run(
                self.plan,
                self._weights,
                self.options,
                self.noise,
                learn,
                record=record,
                ends=ends,
            )
            result = run.run(stimuli, trials, self.trial)
        self._weights = {name: w.copy() for name, w in result.weights.items()}
        self.trial += trials
        result.seconds = time.perf_counter() - started
        return result


def _check_options(options: Options) -> None:
    if options.batch != 1:
        raise UnsupportedError(
            f"{LEVEL} presents one sample at a time; got a batch of {options.batch}. Use "
            "brian2:dense or torch:trajectory for batches."
        )
    if options.dtype != "float64":
        got = f"got dtype {options.dtype}"
        raise UnsupportedError(
            f"{LEVEL} runs in float64; {got}. Use torch:trajectory for float32.",
        )


def _check_kernel(q: ProjectionPlan) -> None:
    """Refuse convolutions that synapses cannot do."""
    if isinstance(q.connectivity, Conv2d) and (pool := q.connectivity.pool) > 1:
        raise UnsupportedError(
            f"{LEVEL} cannot run projection '{q.name}': it takes the maximum over {pool} x {pool} "
            "positions, and what reaches a cell through Synapses is a sum. Use brian2:dense, or a "
            "convolution with a stride in place of the pool."
        )
    if q.shared_kernel and (count := q.weight_shape[0] * q.n_post) > MAX_SYNAPSES:
        raise UnsupportedError(
            f"{LEVEL} would need about {count:,} synapses for the convolution '{q.name}', one per "
            f"position; the limit is {MAX_SYNAPSES:,}. Use smaller maps, brian2:dense or a torch "
            "level."
        )


def _check_rule(q: ProjectionPlan, rule: RulePlan) -> None:
    """Refuse rules that synapses cannot do."""
    cannot = f"The rule '{rule.name}' of projection '{q.name}' cannot run on {LEVEL}"
    if q.shared_kernel and rule.apply == "now":
        raise UnsupportedError(
            f"{cannot}: with apply='now' the synapses of one kernel would part in every step. Give "
            "the rule apply='phase' or 'trial', or use brian2:dense."
        )
    if q.shared_kernel and any(t.decay is not None for t in rule.terms or ()):
        unmet = int(np.prod(q.weight_shape)) - len(np.unique(q.synapses()[2]))
        if unmet > 0:
            raise UnsupportedError(
                f"{cannot}: it lets weights decay, and {unmet} of the kernel's meet no cell of "
                "these maps, so they have no synapse. Use larger maps or brian2:dense."
            )
    if rule.batch is not None:
        raise UnsupportedError(
            f"{cannot}: its batch rule changes a whole matrix at once, which no synapse can do by itself. "
            "Use brian2:dense or a torch level, or a rule without `batch`."
        )
