"""Training on data sets: configuration, update transforms, the loop, checkpoints, saved runs, sweeps, tables."""

from typing import TYPE_CHECKING, Any

from neurosim.training.config import TrainConfig
from neurosim.training.resolve import resolve
from neurosim.training.run import Run, load

if TYPE_CHECKING:
    from neurosim.training.start import resume, train
    from neurosim.training.trainer import Trainer

__all__ = ["Run", "TrainConfig", "Trainer", "load", "resolve", "resume", "train"]


def __getattr__(name: str) -> Any:
    """The trainer loads torch, which those who describe or run a circuit may not need: imported when it is asked for."""
    if name not in ("Trainer", "resume", "train"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from neurosim.training import start

    return getattr(start, name)
