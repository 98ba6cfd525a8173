"""The recording of a training, over all calls of its engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from neurosim.backends.engine import Options
from neurosim.errors import NeurosimError
from neurosim.plan import Plan
from neurosim.simulation import versions
from neurosim.traces import Recorder
from neurosim.traces.recording import Recording
from neurosim.training.config import TrainConfig
from neurosim.training.run import RECORDING
from neurosim.training.splits import Splits

#: Stands in a checkpoint whose recording is complete.
WHOLE = "whole"


class TrainingRecording:
    """What is recorded by the configuration of a training, if anything.

    Attributes
    ----------
    open
        The recording while it goes on, or None.
    """

    def __init__(self, config: TrainConfig, plan: Plan, splits: Splits, workers: int):
        self.config, self.plan, self.batches = config, plan, splits.batches
        self.recorder = _recorder(config, plan, splits, workers)
        self.open: Recording | None = None
        self._position: Any = None  # where the recording of a run that goes on stood

    def begin(self, folder: Path | None, options: Options) -> None:
        """Record to the folder of a run; one that goes on, from where its checkpoint stood."""
        if self.recorder is None or self._position == WHOLE:
            return
        if folder is None:
            raise NeurosimError(
                f"recorder wants a run folder, where {RECORDING} is written; give out (--out DIR), "
                "or leave recorder out."
            )
        metadata = {
            **self.config.labels,
            "dt": self.config.dt,
            "trials_per_epoch": self.batches,
            "versions": versions(),
        }
        self.open = Recording(
            replace(self.recorder, path=folder / RECORDING),
            self.plan,
            options.batch,
            options.dt,
            options.dtype,
            metadata,
            self._position,
        )

    def close(self) -> None:
        """Keep what there is of a training that was stopped."""
        if self.open is not None:
            self.open.close()

    def complete(self, weights: Callable[[], dict[str, np.ndarray]]) -> None:
        """The training has ended, with these weights."""
        if self.open is not None:
            self.open.close(weights().__getitem__)
            self.open, self._position = None, WHOLE

    def position(self) -> Any:
        """What `restore` goes on from."""
        return self._position if self.open is None else self.open.position()

    def restore(self, position: Any) -> None:
        """Take up what `position` gave."""
        self._position = position


def _recorder(config: TrainConfig, plan: Plan, splits: Splits, workers: int) -> Recorder | None:
    """The recorder of a configuration; None where nothing is recorded."""
    if not config.recorder:
        return None
    if workers > 1:
        cure = "leave recorder out, or train without torchrun"
        raise NeurosimError(f"A recording is of one process; {cure}.")
    batches = splits.batches
    recorder = Recorder(**{"trials": batches, **config.recorder})
    variables = recorder.resolve(plan).variables
    if variables and splits.rest and config.last_batch == "keep":
        # Trial k*batches - 1, counted from 0 through the run, is the smaller one of epoch k.
        ends = (number * batches - 1 for number in range(1, config.epochs + 1))
        if any(trial % recorder.trials == 0 for trial in ends):
            raise NeurosimError(
                f"recorder with trials = {recorder.trials} would come to the last batch of an "
                f"epoch, which last_batch = 'keep' makes one of {splits.rest} samples; a recording "
                "holds batches of one size. Leave trials out (the first batch of each epoch), or "
                "use --set last_batch=drop."
            )
    return recorder
