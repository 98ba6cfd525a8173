"""The embedded 8x8 digits: no network, no files to find.

1,797 handwritten digits of 13 writers, pixels 0..16 (the number of inked dots in each 4x4 block of a 32x32
bitmap). They are the test part of the UCI "Optical Recognition of Handwritten Digits" data set, as
scikit-learn ships it; `DIGITS_LICENSE.md` beside this file has licence and attribution. `digits.csv.gz` keeps
that order: one image a line, 64 pixels row by row, then the label.
"""

from __future__ import annotations

import gzip
import io
from importlib import resources

import numpy as np

from neurosim.data.dataset import Dataset

NAME = "digits"
TRAIN, VALIDATION, TEST = 1294, 143, 360
SHAPE = (8, 8)
CLASSES = 10
LICENCE = "CC BY 4.0 (E. Alpaydin, C. Kaynak)"
FILE = "digits.csv.gz"

_SHUFFLE_SEED = 0
_MAX_PIXEL = 16


def read() -> tuple[np.ndarray, np.ndarray]:
    """Return the digits in their published order, before any split.

    Returns
    -------
    images
        uint8, shape ``(1797, 64)``, values 0..16.
    labels
        int64, shape ``(1797,)``, values 0..9.
    """
    text = gzip.decompress(resources.files("neurosim.data").joinpath(FILE).read_bytes()).decode("ascii")
    table = np.loadtxt(io.StringIO(text), dtype=np.uint8, delimiter=",")
    return np.ascontiguousarray(table[:, :-1]), table[:, -1].astype(np.int64)


def split_indices(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the rows of `read` that make up train, validation and test: the one fixed stratified shuffle.

    The rows of each class are shuffled; test takes the first of them, validation the next, train the rest,
    each class giving its share of 360 and of 143 (rounded by largest remainder). Then each part is shuffled,
    so classes are mixed within it. Train followed by validation is the training set of 1,437, whose last 143
    are the validation images. No seed of a run enters: the shuffle draws from the legacy MT19937 generator,
    whose stream NumPy keeps unchanged across versions, so every model, seed and machine sees the same parts
    in the same order.

    Parameters
    ----------
    labels
        Shape ``(1797,)``, in the published order.

    Returns
    -------
    train, validation, test
        int64, shapes ``(1294,)``, ``(143,)`` and ``(360,)``; disjoint, together every row once.
    """
    random = np.random.RandomState(_SHUFFLE_SEED)
    counts = np.bincount(labels, minlength=CLASSES)
    n_test, n_validation = _shares(counts, TEST), _shares(counts, VALIDATION)
    train, validation, test = [], [], []
    for label in range(CLASSES):
        rows = random.permutation(np.flatnonzero(labels == label))
        a, b = n_test[label], n_test[label] + n_validation[label]
        test.append(rows[:a])
        validation.append(rows[a:b])
        train.append(rows[b:])
    train, validation, test = (random.permutation(np.concatenate(part)) for part in (train, validation, test))
    return train, validation, test


def load() -> Dataset:
    """Return the digits: float64 ``pixels / 16``, 1,294 train, 143 validation and 360 test images of 8x8."""
    images, labels = read()
    images = images / float(_MAX_PIXEL)
    train, validation, test = split_indices(labels)
    return Dataset(
        name=NAME,
        train_images=images[train],
        train_labels=labels[train],
        validation_images=images[validation],
        validation_labels=labels[validation],
        test_images=images[test],
        test_labels=labels[test],
        shape=SHAPE,
        classes=CLASSES,
    )


def _shares(counts: np.ndarray, total: int) -> np.ndarray:
    """Split `total` in proportion to `counts`, rounded by largest remainder (ties to the lower class)."""
    whole, remainder = np.divmod(counts * total, counts.sum())
    whole[np.argsort(-remainder, kind="stable")[: total - whole.sum()]] += 1
    return whole
