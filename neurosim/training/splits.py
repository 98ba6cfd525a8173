"""The data of a training: its splits, and the batches of each epoch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from neurosim.circuit import Circuit
from neurosim.data import Dataset
from neurosim.data.augment import Augment
from neurosim.data.normalise import black
from neurosim.stimuli import stimulus_fields
from neurosim.training.config import TrainConfig

#: Stimuli by the name of a field.
Fields = dict[str, Any]


class Splits(dict[str, Fields]):
    """The fields of each split: ``train``, ``test``, and ``validation`` where one is held out.

    Attributes
    ----------
    followed
        The split that is followed from epoch to epoch.
    augment
        What shifts and mirrors training images, or None.
    """

    def __init__(self, config: TrainConfig, dataset: Dataset, circuit: Circuit):
        self.config = config
        self.augment: Augment | None = None
        if config.crop or config.flip:
            fill = black(dataset.name, config.normalise)
            self.augment = Augment(dataset.shape, config.crop, config.flip, fill, config.padding)
        names = ("train", "validation", "test")
        super().__init__({name: stimulus_fields(circuit, *dataset.split(name)) for name in names})
        self.followed = "validation" if config.hold_out else "test"
        if not config.hold_out:
            held = self.pop("validation")
            self["train"] = {k: np.concatenate([v, held[k]]) for k, v in self["train"].items()}
        if config.limit:
            self["train"] = {k: v[: config.limit] for k, v in self["train"].items()}

    @property
    def samples(self) -> int:
        """Of the training set."""
        return len(self["train"]["image"])

    @property
    def batches(self) -> int:
        """Of an epoch, the last incomplete one where it is kept."""
        whole = self.samples // self.config.batch_size
        return whole + (self.config.last_batch == "keep" and self.rest > 0)

    @property
    def rest(self) -> int:
        """Training samples that fill no batch."""
        return self.samples % self.config.batch_size

    def convert(self, asarray: Callable[[Any], Any]) -> None:
        """Hold the training set as arrays of the engine's library."""
        self["train"] = {name: asarray(values) for name, values in self["train"].items()}

    def order(self, epoch: int) -> np.ndarray:
        """The order of the training samples in an epoch."""
        return np.random.default_rng([self.config.seed, 1, epoch]).permutation(self.samples)

    def training(self, rows: np.ndarray, epoch: int, first: int) -> Fields:
        """Training samples, augmented; `first` is the number of their first batch."""
        fields = {name: values[rows] for name, values in self["train"].items()}
        if self.augment is not None:
            seed = [self.config.seed, 4, epoch, first]
            fields["image"] = _augmented(self.augment, fields["image"], seed)
        return fields


def _augmented(augment: Augment, images: Any, seed: list[int]) -> Any:
    if isinstance(images, torch.Tensor):
        return augment(images, seed)
    return augment(torch.from_numpy(images), seed).numpy()  # Brian2's levels
