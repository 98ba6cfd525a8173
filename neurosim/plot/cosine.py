"""The cosine of a circuit's weight change with the backprop gradient, over training."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from neurosim.backends import rate_level
from neurosim.circuit import Circuit
from neurosim.describe.pieces import counted
from neurosim.errors import NeurosimError
from neurosim.plot.selection import title_of
from neurosim.plot.style import DASHES, GREY, LINES, WIDTH, empty_figure, style
from neurosim.plot.weights import progress
from neurosim.traces import Traces

#: Most snapshots at which the circuit is run.
SNAPSHOTS = 25


def cosine_figure(
    circuit: Circuit,
    traces: Traces,
    images: np.ndarray,
    labels: np.ndarray | None = None,
    weights: Mapping[str, np.ndarray] | None = None,
    title: str | None = None,
) -> Figure:
    """Draw the cosine of each projection's change with minus the gradient of the mean loss, at the weights recorded in training.

    The change is what the circuit's own rules collect over the samples with its weights held, on torch:steady (torch:trajectory where the
    circuit has no fixed point); the gradient that of its feed-forward reference, as `neurosim.compare` takes both.

    Parameters
    ----------
    circuit
        With a `reference`.
    traces
        With `Traces.weights`; of more than 25 snapshots 25 are taken, evenly. See `weights_figure` for the axis.
    images, labels
        A fixed set of samples, as in `neurosim.simulate`.
    weights
        Of the projections that were not recorded because they do not change; by default the circuit's initial ones from the seed in the
        metadata.
    title
        By default the model and the number of samples.

    Raises
    ------
    NeurosimError
        No reference, no weights recorded, or not those of every plastic projection.
    """
    found = update_cosines(circuit, traces, images, labels, weights)
    x, axis = progress(traces)
    x = x[_rows(traces)]
    with style():
        figure = empty_figure(WIDTH * 0.8, 3.9)
        notes = [counted(len(images), "sample"), f"{counted(len(x), 'snapshot')} of one run"]
        figure.suptitle(title_of(title, traces, notes, level=False))
        axes: Axes = figure.subplots()
        for k, (name, values) in enumerate(found.items()):
            look = {"color": LINES[k % len(LINES)], "linestyle": DASHES[(k // 2) % len(DASHES)]}
            axes.plot(x, values, label=name, marker="os^Dv"[k % 5], markersize=4, **look)
        for level in (0.0, 1.0):
            axes.axhline(level, color=GREY, linewidth=0.8, linestyle=":", zorder=1)
        low, _ = axes.get_ylim()
        axes.set_ylim(min(low, -0.05), 1.05)
        axes.set_xlabel(axis)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.set_ylabel("cosine of change and −gradient\n(dimensionless)")
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), handlelength=3.0)
    return figure


def update_cosines(
    circuit: Circuit,
    traces: Traces,
    images: np.ndarray,
    labels: np.ndarray | None = None,
    weights: Mapping[str, np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """``{projection: (snapshots,)}``, what `cosine_figure` draws; NaN where a change or a gradient is 0."""
    from neurosim.analysis import cosines_with_gradient
    from neurosim.simulation import simulate, stimuli

    plan = circuit.plan
    if circuit.reference is None:
        raise NeurosimError(
            f"The circuit '{circuit.name}' names no feed-forward reference, so there is no gradient to compare with."
        )
    missing = [p.name for p in plan.plastic() if p.name not in traces.weights]
    if missing or not len(traces.weight_trials):
        names = " ".join(p.name for p in plan.plastic())
        raise NeurosimError(
            f"The weights of {', '.join(missing)} were not recorded in training, so the circuit cannot be run at them; record all that change: "
            f"`neurosim train MODEL --record {names}`."
        )
    start = dict(weights) if weights is not None else circuit.initial_weights(int(traces.metadata.get("seed", 0)))
    fields = stimuli(circuit, images, labels)
    found: dict[str, list[float]] = {}
    for row in _rows(traces):
        one = start | {name: np.asarray(w[row], dtype=float) for name, w in traces.weights.items() if name in start}
        held = simulate(
            circuit,
            images,
            labels,
            level=rate_level(plan),
            weights=one,
            batch_size=len(images),
            plasticity="held",
            progress=False,
        )
        for name, value in cosines_with_gradient(circuit, one, held.collected, fields).items():
            found.setdefault(name, []).append(np.nan if value is None else value)
    return {name: np.array(values) for name, values in found.items() if np.isfinite(values).any()}


def _rows(traces: Traces) -> np.ndarray:
    count = len(traces.weight_trials)
    return np.unique(np.linspace(0, count - 1, min(count, SNAPSHOTS)).round().astype(int))
