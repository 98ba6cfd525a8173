"""What the populations of a circuit represent: their rates for a set of samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from neurosim.backends import rate_level
from neurosim.circuit import Circuit
from neurosim.errors import unknown
from neurosim.simulation import answering_circuit, simulate
from neurosim.stimuli import stimulus_fields


def activities(
    circuit: Circuit,
    weights: Mapping[str, np.ndarray],
    stimuli: Any,
    labels: np.ndarray | None = None,
    populations: Sequence[str] | None = None,
) -> dict[str, np.ndarray]:
    """Rates of the populations, ``{population: (samples, cells)}``, weights held.

    `neurosim.plot.cka_figure` and `neurosim.plot.tsne_figure` draw them. They are read at the end
    of the phase in which the circuit answers (without a readout, of the last one), on torch:steady,
    or on torch:trajectory where the circuit has no fixed point. Where a protocol shows labels in
    windows, each sample sees its own.

    Parameters
    ----------
    circuit, weights
        Such as `Run.circuit` and `Run.weights`.
    stimuli, labels
        As in `neurosim.simulate`.
    populations
        By default all with more than one cell, in the circuit's order.

    Raises
    ------
    NeurosimError
        An unknown population; what `neurosim.simulate` refuses.
    """
    names = [p.name for p in circuit.populations]
    for name in populations or ():
        if name not in names:
            raise unknown("population", name, names)
    shown = answering_circuit(circuit)
    plan, fields = shown.plan, stimulus_fields(shown, stimuli, labels)
    result = simulate(
        shown,
        stimuli,
        labels,
        level=rate_level(circuit.plan),
        weights={name: w for name, w in weights.items() if name in shown.initial_weights(0)},
        batch_size=len(next(iter(fields.values()), [0])),
        plasticity="off",
        progress=False,
    )
    phase = shown.readout.phase if shown.readout else plan.phases[-1].name
    clamps = next(p.clamps for p in plan.phases if p.name == phase)
    found: dict[str, np.ndarray] = {}
    for name in populations or [n for n in names if plan.populations[n].n > 1]:
        rate = plan.populations[name].rate
        values = result.ends[phase].get(f"{name}.{rate}")
        if values is None:  # clamped; a window's label is the sample's own
            field = clamps.get((name, rate)) or ""
            values = fields.get({"label": "target"}.get(field, field))
        if values is not None:
            found[name] = np.asarray(values, dtype=float)
    return found
