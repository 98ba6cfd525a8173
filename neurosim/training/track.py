"""A live view of long runs: metrics, recorded variables and weights as TensorBoard events."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from neurosim.errors import NeurosimError
from neurosim.traces import Traces

#: Folder of the events in a run folder.
FOLDER = "tensorboard"


class Tracker:
    """Writes events to ``tensorboard/`` in a run folder; ``tensorboard --logdir runs`` shows them while the run goes on.

    Parameters
    ----------
    folder
        The run folder.
    done
        Epochs or generations that the run has done already; later ones, of a run that was killed, are dropped from the view.

    Raises
    ------
    NeurosimError
        tensorboard is not installed.
    """

    def __init__(self, folder: Path, done: int = 0):
        require_tensorboard()
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / FOLDER), purge_step=done + 1)
        self._trials = 0  # of the recording, that are shown already

    def row(self, step: int, row: Mapping[str, Any]) -> None:
        """Every number of a row of metrics as a scalar: ``train_accuracy`` under ``accuracy/train``, others under ``metrics/NAME``."""
        for name, value in row.items():
            if name in ("epoch", "generation") or isinstance(value, bool) or not isinstance(value, (int, float)):
                continue
            split, _, what = name.partition("_")
            tag = f"{what}/{split}" if split in ("train", "validation", "test") else f"metrics/{name}"
            self._writer.add_scalar(tag, value, step)
        self._writer.flush()

    def recorded(self, step: int, traces: Traces) -> None:
        """The newest trial of a recording: each variable over its phases as a histogram, its time course as a figure, and the newest weights."""
        newest = max((span.trial for span in traces.phases if np.any(traces.time >= span.start)), default=-1)
        if newest >= self._trials and traces.values:
            last = traces.select(trials=[newest])
            self._trials = newest + 1
            for span in last.phases:
                inside = np.flatnonzero((last.time >= span.start) & (last.time < span.stop))
                for name, values in last.values.items() if len(inside) else ():  # none where the stride skips a phase
                    self._histogram(f"{name}/{span.name}", values[int(inside[-1])], step)
            if len(last.time) > len(last.phases):  # the steady level has one row per phase: no time course
                from neurosim.plot import traces_figure

                self._writer.add_figure("traces", traces_figure(last, list(last.values)[:8]), step)
        for name, weights in traces.weights.items():
            if len(weights):
                self._histogram(f"weights/{name}", np.asarray(weights[-1]), step)
        self._writer.flush()

    def _histogram(self, name: str, values: np.ndarray, step: int) -> None:
        finite = values[
            np.isfinite(values)
        ]  # TensorBoard has no place for others, and ends with an error where there are no others
        if finite.size:
            self._writer.add_histogram(name, finite, step)

    def close(self) -> None:
        self._writer.close()


def require_tensorboard() -> None:
    """Refuse where the extra is missing."""
    try:
        import tensorboard  # noqa: F401
    except ImportError as error:
        raise NeurosimError(
            "track (--track) writes TensorBoard events, and tensorboard is not installed: pip install 'neurosim[track]'."
        ) from error
