"""Named normalisations of the pixels: x -> (x - mean) / scale, one mean and scale for each channel.

    none         pixels as loaded, in [0, 1]
    standard     the published mean and standard deviation of the training set
    corinfomax   CIFAR-10 as Bozkurt et al. 2023 scale it: (x - mean) / (3 sd)
    imagenet     mean and standard deviation of ImageNet's training set, as nets of convolutions often have them

Constants are offered where they are published; none are computed from the images at hand, so that a run on part of the
data sees the same pixels.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from neurosim.data.dataset import SPLITS, DataError, Dataset
from neurosim.errors import suggest

Constants = tuple[tuple[float, ...], tuple[float, ...]]

_MNIST: Constants = ((0.1307,), (0.3081,))
_FASHION: Constants = ((0.2860,), (0.3530,))
_CIFAR10: Constants = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
_CIFAR100: Constants = ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))
_DIGITS: Constants = ((0.3061,), (0.3766,))
_IMAGENET: Constants = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CORINFOMAX: Constants = ((0.4914, 0.4822, 0.4465), (3 * 0.2023, 3 * 0.1994, 3 * 0.2010))

_PUBLISHED: dict[str, dict[str, Constants]] = {
    "digits": {"standard": _DIGITS},
    "mnist": {"standard": _MNIST},
    "fashion_mnist": {"standard": _FASHION},
    "cifar10": {"standard": _CIFAR10, "corinfomax": _CORINFOMAX, "imagenet": _IMAGENET},
    "cifar10_jpeg": {"standard": _CIFAR10, "corinfomax": _CORINFOMAX, "imagenet": _IMAGENET},
    "cifar100": {"standard": _CIFAR100, "imagenet": _IMAGENET},
}


def constants(dataset: str, name: str) -> Constants:
    """Return mean and scale, one for each channel; ``none`` has 0 and 1, for every channel.

    Parameters
    ----------
    dataset
        Name of the data set.
    name
        Name of the normalisation.

    Raises
    ------
    DataError
        When the data set has no such normalisation; the message lists those on offer.
    """
    offered: dict[str, Constants] = {"none": ((0.0,), (1.0,)), **_PUBLISHED.get(dataset, {})}
    if name not in offered:
        raise DataError(
            f"Data set '{dataset}' has no normalisation '{name}'.{suggest(name, offered)} On offer: {', '.join(offered)}."
        )
    return offered[name]


def normalise(dataset: Dataset, name: str) -> Dataset:
    """Return the data set with normalised pixels, in the floating-point type that they had.

    Parameters
    ----------
    dataset
        As loaded, pixels in [0, 1]. It is left as it is; of each part one copy is made, with ``none`` no copy.
    name
        ``"none"``, ``"standard"``, ``"corinfomax"`` or ``"imagenet"``.

    Raises
    ------
    DataError
        As `constants` does.
    """
    mean, scale = constants(dataset.name, name)
    if name == "none":
        return dataset
    images = {f"{part}_images": _normalised(dataset.split(part)[0], mean, scale) for part in SPLITS}
    return dataclasses.replace(dataset, **images)


def black(dataset: str, name: str) -> tuple[float, ...]:
    """Return what a pixel of 0 becomes in each channel: what `neurosim.data.augment.Augment` pads with."""
    mean, scale = constants(dataset, name)
    return tuple((0.0 - m) / s for m, s in zip(mean, scale, strict=True))


def _normalised(images: np.ndarray, mean: tuple[float, ...], scale: tuple[float, ...]) -> np.ndarray:
    planes = (
        images.reshape(len(images), len(mean), images.shape[1] // len(mean)) - np.array(mean, images.dtype)[:, None]
    )
    planes /= np.array(scale, images.dtype)[:, None]
    return planes.reshape(images.shape)
