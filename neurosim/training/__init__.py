"""Training on data sets: configuration, update transforms, the loop, saved runs."""

from neurosim.training.config import TrainConfig, resolve
from neurosim.training.run import Run, load
from neurosim.training.trainer import Trainer, train

__all__ = ["Run", "TrainConfig", "Trainer", "load", "resolve", "train"]
