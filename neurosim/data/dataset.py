"""What a data set is: images, labels and their three fixed parts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from neurosim.errors import NeurosimError, unknown

SPLITS = ("train", "validation", "test")


class DataError(NeurosimError):
    """A data set that is unknown, missing, damaged or not what its name says."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled images in three parts that share no image.

    Pixels are dimensionless, 0 (background, black) to 1 (ink, full colour), until `neurosim.data.normalise` moves them.
    Every image is one flat row, in C order; of a colour image red, then green, then blue.

    Attributes
    ----------
    name
        The name that `load` knows it by.
    train_images, validation_images, test_images
        Floating point, shape ``(N, d)`` with ``d = prod(shape)``; as loaded in [0, 1].
    train_labels, validation_labels, test_labels
        int64, shape ``(N,)``, values ``0 .. classes - 1``.
    shape
        Shape of one image, e.g. ``(8, 8)`` or ``(3, 32, 32)``: ``images.reshape(-1, *shape)`` undoes the flattening.
    classes
        Number of classes.

    Raises
    ------
    DataError
        When the arrays do not fit ``shape``, ``classes`` or each other.
    """

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    validation_images: np.ndarray
    validation_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    shape: tuple[int, ...]
    classes: int

    def __post_init__(self) -> None:
        pixels = math.prod(self.shape)
        for part in SPLITS:
            images, labels = self.split(part)
            if images.ndim != 2 or images.shape[1] != pixels:
                raise DataError(
                    f"Data set '{self.name}': {part}_images has shape {images.shape}; "
                    f"wanted (N, {pixels}), images of {self.shape} flattened to rows."
                )
            if images.size and not (math.isfinite(images.min()) and math.isfinite(images.max())):
                raise DataError(f"Data set '{self.name}': {part}_images hold NaN or infinity; wanted finite pixels.")
            if labels.shape != images.shape[:1]:
                raise DataError(
                    f"Data set '{self.name}': {part}_labels has shape {labels.shape}; "
                    f"wanted one label for each of the {len(images):,} images."
                )
            if labels.size and not 0 <= labels.min() <= labels.max() < self.classes:
                raise DataError(
                    f"Data set '{self.name}': {part}_labels run from {labels.min()} to {labels.max()}; "
                    f"wanted 0 to {self.classes - 1} for {self.classes} classes."
                )

    def split(self, part: str) -> tuple[np.ndarray, np.ndarray]:
        """Return ``(images, labels)`` of one part, shapes ``(N, d)`` and ``(N,)``; no copy is made.

        Parameters
        ----------
        part
            ``"train"``, ``"validation"`` or ``"test"``.

        Raises
        ------
        DataError
            For any other name.
        """
        if part not in SPLITS:
            raise unknown("split", part, SPLITS, DataError)
        return getattr(self, f"{part}_images"), getattr(self, f"{part}_labels")
