"""What the readers of data sets share: where a set lies, what its files give, how it becomes a `Dataset`."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from neurosim.data import cache
from neurosim.data.dataset import DataError, Dataset

MEND = "Fetch the file again from its publisher and put it in the place of this one."
_CHUNK = 1 << 20
#: Bytes of the largest files here, with room: STL-10's test images (221 MB) and its archive (2.6 GB).
MAX_FILE, MAX_ARCHIVE = 1 << 30, 4 << 30


class Arrays(NamedTuple):
    """Published training and test set: images uint8 ``(N, *shape)`` in C order, labels int64 ``(N,)``."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Source(ABC):
    """A data set that is read from files.

    Attributes
    ----------
    name
        The name that `neurosim.data.load` knows it by.
    licence
        Licence and holder.
    train, validation, test
        Numbers of images. Validation is the last part of the training set, train the rest.
    shape
        Shape of one image, channels first.
    classes
        Number of classes.
    """

    name: str
    licence: str
    train: int
    validation: int
    test: int
    shape: tuple[int, ...]
    classes: int

    @abstractmethod
    def find(self, directory: Path) -> Path:
        """Return the folder or archive to read in the data directory; DataError lists where it was looked for."""

    @abstractmethod
    def read(self, place: Path) -> Arrays:
        """Read and check what `find` returned; DataError names the file, what was got, what is wanted, the mend."""

    def load(self, directory: Path) -> Dataset:
        """Return the data set. An archive is unpacked once, into the cache; unpacked files are read each time."""
        place = self.find(directory)
        arrays = Arrays(*cache.through(self.name, place, self.read)) if place.is_file() else self.read(place)
        return dataset(self.name, arrays, self.validation, self.classes)

    def check(self, directory: Path) -> str:
        """Raise what `load` would, as far as that takes about a second; returns a remark, or ``""``."""
        place = self.find(directory)
        if not place.is_file():
            self.read(place)
        elif not cache.is_fresh(self.name, place):
            return "not yet decoded: the first load does that"
        return ""


def dataset(name: str, arrays: Arrays, validation: int, classes: int) -> Dataset:
    """Return a `Dataset` of float32 ``pixels / 255`` in flat rows; validation is the last of the training set."""
    train_images, test_images = _scaled(arrays.train_images), _scaled(arrays.test_images)
    cut = len(train_images) - validation
    return Dataset(
        name=name,
        train_images=train_images[:cut],
        train_labels=arrays.train_labels[:cut],
        validation_images=train_images[cut:],
        validation_labels=arrays.train_labels[cut:],
        test_images=test_images,
        test_labels=arrays.test_labels,
        shape=arrays.train_images.shape[1:],
        classes=classes,
    )


def not_found(name: str, directory: Path, tried: Iterable[str], wanted: str) -> DataError:
    """The error of `Source.find`: what each place lacks, and what is wanted."""
    listing = "\n".join(f"  {line}" for line in tried)
    return DataError(
        f"Data set '{name}' is not in {directory}. Tried:\n{listing}\n{wanted} "
        "Give the directory with --data-dir (data_dir= in Python) or in the environment variable NEUROSIM_DATA."
    )


def lacking(place: Path, files: Iterable[str], missing: Iterable[str]) -> str:
    """One line of `not_found`: what `place` lacks of `files`."""
    files, missing = list(files), list(missing)
    if not place.is_dir():
        return f"{place} (no such directory)"
    if len(missing) == len(files):
        return f"{place} (none of its {len(files)} files)"
    return f"{place} (missing: {', '.join(missing)})"


def check_size(path: Path, largest: int) -> None:
    """Refuse a file that is larger than any that is wanted, before it is read: it may be all holes."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise unreadable(path, error) from error
    if size > largest:
        raise DataError(f"{path} has {size:,} bytes; wanted at most {largest:,}. {MEND}")


def file_md5(path: Path) -> str:
    """Return the MD5 (hexadecimal) of a file; DataError when it cannot be read, or is too large to be an archive."""
    check_size(path, MAX_ARCHIVE)
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with open(path, "rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise unreadable(path, error) from error
    return digest.hexdigest()


def unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"{path} cannot be read: {error.strerror or error}. Mend its path or its permissions.")


def _scaled(images: np.ndarray) -> np.ndarray:
    flat = images.reshape(len(images), -1).astype(np.float32)
    flat /= 255
    return flat
