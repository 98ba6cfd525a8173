"""A validation set drawn at random from the training set, in place of its last part."""

from __future__ import annotations

import dataclasses
import zlib

import numpy as np

from neurosim.data.dataset import DataError, Dataset

#: Names the random stream of the draw: nothing else in a run takes numbers from it.
STREAM = zlib.crc32(b"validation")


def draw_validation(dataset: Dataset, share: float, seed: int) -> Dataset:
    """Return the data set with another validation set, drawn from train and validation together.

    Parameters
    ----------
    dataset
        It is left as it is; of train and validation a copy is made.
    share
        Of these images, rounded to a whole number of images.
    seed
        The draw follows from it alone. The images keep their order.

    Raises
    ------
    DataError
        When the share leaves no image for one of the two.
    """
    parts = (dataset.split("train"), dataset.split("validation"))
    first = len(parts[0][0])
    total = first + len(parts[1][0])
    count = round(share * total)
    if not 0 < count < total:
        raise DataError(
            f"Data set '{dataset.name}': a share of {share:g} for validation is {count} of "
            f"{total:,} images; wanted at least one, and at least one to train on."
        )
    held = np.zeros(total, dtype=bool)
    held[np.random.default_rng([seed, STREAM]).permutation(total)[:count]] = True

    def chosen(which: np.ndarray, k: int) -> np.ndarray:
        train, validation = (part[k] for part in parts)
        return np.concatenate([train[which[:first]], validation[which[first:]]])

    return dataclasses.replace(
        dataset, train_images=chosen(~held, 0), train_labels=chosen(~held, 1),
        validation_images=chosen(held, 0), validation_labels=chosen(held, 1),
    )  # fmt: skip
