"""Are the levels of one circuit the same?

Compared are trajectories, weights, fixed points, the order of the error, and update and gradient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from neurosim.backends import DTYPES, SOLVERS, STEADY, TARGETS
from neurosim.backends.settings import own_settings
from neurosim.checks import Array, Count, In, PositiveTime, Seed, checked
from neurosim.circuit import GivenCircuit
from neurosim.compare.levels import choose_levels
from neurosim.compare.measure import between_levels, held_runs, predictions_of, within_levels
from neurosim.compare.report import Comparison
from neurosim.compare.runs import Runs
from neurosim.equations import seconds
from neurosim.errors import NeurosimError
from neurosim.simulation import PLASTICITY
from neurosim.stimuli import stimulus_fields


@checked
@own_settings()
def compare(
    circuit: GivenCircuit,
    stimuli: Any = None,
    labels: Any = None,
    *,
    levels: Sequence[str] | None = None,
    dt: PositiveTime | None = None,
    seed: Seed = 0,
    weights: Mapping[str, Array] | None = None,
    batch_size: Count = 1,
    plasticity: Annotated[str, In(PLASTICITY)] = "on",
    dtype: Annotated[str, In(DTYPES)] = "float64",
    device: str = "cpu",
    codegen: Annotated[str, In(TARGETS)] = "numpy",
    data: str = "",
    record: Sequence[str] | None = None,
    predictions: bool = False,
    solver: Annotated[str, In(SOLVERS)] = "anderson",
    progress: bool = True,
) -> Comparison:
    """Run a circuit on several levels and say in numbers how far they differ.

    Three runs per level: with plasticity as asked (states and weights compared with those of the
    other levels); with weights held (`settling`, and `update_cosine`: the collected change against
    minus the gradient of the mean loss); and, on trajectory levels, one stimulus at three step
    sizes (`order` of the Euler error, from the largest difference over the whole trajectory).

    Levels default to all that can run the circuit (no steady level for spiking or noisy cells); the
    report says which were left out and why. The other parameters are those of `simulate`; `record`
    chooses the variables of the figure (default: all states), `predictions` adds accuracies and the
    share of equal answers. Returns a `Comparison`.
    """
    plan, dt = circuit.plan, dt or circuit.protocol.dt
    levels, left_out = choose_levels(plan, levels)
    if solver != "anderson" and STEADY not in levels:
        alone = f"the level {STEADY}, which alone solves for a fixed point"
        raise NeurosimError(f"solver = '{solver}' without {alone}. Leave one out.")
    fields = stimulus_fields(circuit, stimuli, labels)
    if batch_size != 1 and "brian2:equations" in levels:
        raise NeurosimError(
            "brian2:equations presents one sample at a time, the other levels batches of "
            f"{batch_size}: their trials and weights would differ by design. Use --batch-size 1, "
            "or name levels without brian2:equations."
        )
    states = [f"{p.name}.{x}" for p in plan.populations.values() for x in p.ode]
    settings = {"dt": dt, "seed": seed, "weights": weights, "batch_size": batch_size}
    settings |= {"device": device, "codegen": codegen, "progress": progress}
    runs = Runs(circuit, stimuli, labels, settings, dtype, solver)
    recorded = list(dict.fromkeys([*states, *(record or ())]))
    live = {level: runs.run(level, plasticity, recorded) for level in levels}
    held = held_runs(runs, levels, states)
    start = dict(weights) if weights is not None else circuit.initial_weights(seed)
    report = {
        "model": circuit.name,
        "data": data if fields else "",
        "seed": seed,
        "samples": len(next(iter(fields.values()))) if fields else batch_size,
        "batch_size": batch_size,
        "steps": max((r.steps for level, r in live.items() if level != STEADY), default=0),
        "dt": seconds(dt),
        "dtype": dtype,
        "levels": levels,
        "left_out": left_out,
        **between_levels(plan, live, start, states),
        **within_levels(runs, held, start, fields, states),
    }
    if predictions and circuit.readout is not None and circuit.readout.wanted == "target":
        right = fields["target"].argmax(axis=1) if "target" in fields else labels
        report |= predictions_of(held, right)
    traces = {level: result.traces for level, result in live.items() if result.traces is not None}
    ends = {level: result.ends for level, result in live.items() if level == STEADY}
    return Comparison(report, traces, ends)


__all__ = ["Comparison", "compare"]
