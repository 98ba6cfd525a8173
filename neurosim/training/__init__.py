"""Training on data sets: configuration, update transforms, the loop, checkpoints, saved runs, sweeps, tables."""

from neurosim.training.config import TrainConfig, resolve
from neurosim.training.run import Run, load
from neurosim.training.trainer import Trainer, resume, train

__all__ = ["Run", "TrainConfig", "Trainer", "load", "resolve", "resume", "train"]
