"""A circuit's weight changes against backprop's, at the weights of a training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from neurosim.analysis.reference import cosines_with_gradient
from neurosim.analysis.weights import snapshots
from neurosim.backends import rate_level
from neurosim.circuit import Circuit
from neurosim.errors import NeurosimError
from neurosim.simulation import simulate
from neurosim.stimuli import stimulus_fields
from neurosim.traces import Traces


def update_cosines(
    circuit: Circuit,
    traces: Traces,
    stimuli: Any,
    labels: np.ndarray | None = None,
    weights: Mapping[str, np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """Cosines of each projection's change with minus the gradient, over a training.

    The change is what the circuit's own rules collect over the samples with its weights held, on
    torch:steady (torch:trajectory where the circuit has no fixed point); the gradient is that of
    the mean loss of its feed-forward reference. `neurosim.compare` takes both in the same way;
    `neurosim.plot.cosine_figure` draws the cosines.

    Parameters
    ----------
    circuit
        With a `reference`.
    traces
        With `Traces.weights`; of more than 25 snapshots 25 are taken, evenly.
    stimuli, labels
        A fixed set of samples, as in `neurosim.simulate`.
    weights
        Of the projections that were not recorded because they do not change; by default the
        circuit's initial ones from the seed in the metadata.

    Returns
    -------
    dict
        ``{projection: (snapshots,)}``; NaN where a change or a gradient is 0.

    Raises
    ------
    NeurosimError
        No reference, no weights recorded, or not those of every plastic projection.
    """
    _check(circuit, traces)
    start = weights
    if start is None:
        start = circuit.initial_weights(int(traces.metadata.get("seed", 0)))
    fields = stimulus_fields(circuit, stimuli, labels)
    found: dict[str, list[float]] = {}
    for row in snapshots(traces):
        recorded = {n: np.asarray(w[row], float) for n, w in traces.weights.items() if n in start}
        now = {**start, **recorded}
        held = simulate(
            circuit,
            stimuli,
            labels,
            level=rate_level(circuit.plan),
            weights=now,
            batch_size=len(next(iter(fields.values()), [0])),
            plasticity="held",
            progress=False,
        )
        for name, value in cosines_with_gradient(circuit, now, held.collected, fields).items():
            found.setdefault(name, []).append(np.nan if value is None else value)
    return {name: np.array(values) for name, values in found.items() if np.isfinite(values).any()}


def _check(circuit: Circuit, traces: Traces) -> None:
    if circuit.reference is None:
        missing = "no feed-forward reference, so there is no gradient to compare with"
        raise NeurosimError(f"The circuit '{circuit.name}' names {missing}.")
    plastic = [p.name for p, _ in circuit.plan.plastic()]
    lost = [name for name in plastic if name not in traces.weights]
    if lost or not len(traces.weight_trials):
        raise NeurosimError(
            f"The weights of {', '.join(lost)} were not recorded in training, so the circuit "
            "cannot be run at them; record all that change: `neurosim train MODEL --record "
            f"{' '.join(plastic)}`."
        )
