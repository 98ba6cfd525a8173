"""The cosine of a circuit's weight change with the backprop gradient, over training."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from neurosim.describe.pieces import counted
from neurosim.errors import NeurosimError
from neurosim.plot.selection import check_traces, check_type, title_of
from neurosim.plot.style import DASHES, GREY, LINES, WIDTH, empty_figure, style
from neurosim.plot.weights import progress
from neurosim.traces import Traces


def cosine_figure(
    cosines: Mapping[str, np.ndarray],
    traces: Traces,
    samples: int | None = None,
    title: str | None = None,
) -> Figure:
    """Draw the cosine of each projection's change with minus the gradient of the mean loss.

    Parameters
    ----------
    cosines
        ``{projection: (snapshots,)}``, as `neurosim.analysis.updates.update_cosines` finds them.
    traces
        At whose recorded weights they were taken. See `weights_figure` for the axis.
    samples
        How many samples they were taken over, for the title.
    title
        By default the model and the number of samples.

    Raises
    ------
    NeurosimError
        Cosines of other snapshots than those that `update_cosines` takes of the traces.
    """
    from neurosim.analysis.weights import snapshots  # its package loads torch

    check_type(
        cosines,
        Mapping,
        "cosines by projection, such as neurosim.analysis.updates.update_cosines(...)",
    )
    check_traces(traces)
    rows = snapshots(traces)
    for name, values in cosines.items():
        if np.shape(values) != rows.shape:
            raise NeurosimError(
                f"The cosines of '{name}' have the shape {np.shape(values)}; wanted {rows.shape}, "
                "one per snapshot of these traces. Give the traces that they were computed at."
            )
    x, axis = progress(traces)
    x = x[rows]
    with style():
        figure = empty_figure(WIDTH * 0.8, 3.9)
        notes = [counted(samples, "sample") if samples is not None else ""]
        notes += [f"{counted(len(x), 'snapshot')} of one run"]
        figure.suptitle(title_of(title, traces, notes, level=False))
        axes: Axes = figure.subplots()
        for k, (name, values) in enumerate(cosines.items()):
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
