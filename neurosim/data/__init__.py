"""Data sets: the embedded 8x8 digits, and MNIST and FashionMNIST from their standard files.

    dataset = neurosim.data.load("digits")
    images, labels = dataset.split("train")         # (1294, 64) in [0, 1], (1294,)

Each set has three fixed parts, the same for every model and seed: train, validation (the last part of the
training set) and test. Nothing is downloaded: files are read from ``data_dir`` or, without it, from the
directory that the environment variable ``NEUROSIM_DATA`` names.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from neurosim.data import digits, idx
from neurosim.data.dataset import SPLITS, DataError, Dataset
from neurosim.errors import unknown

__all__ = ["SPLITS", "DataError", "Dataset", "Status", "load", "names", "status"]

ENVIRONMENT = "NEUROSIM_DATA"

_IDX = {source.name: source for source in (idx.MNIST, idx.FASHION_MNIST)}


@dataclass(frozen=True)
class Status:
    """One row of `status`.

    Attributes
    ----------
    name
        The name that `load` knows it by.
    found
        Whether `load` would succeed: every file is there and passes its checksum.
    where
        The folder of its files, ``"in the package"`` for embedded data, or ``""`` when not all are there.
    train, validation, test
        Numbers of images.
    shape
        Shape of one image.
    classes
        Number of classes.
    licence
        Licence and holder.
    problem
        Why it cannot be loaded: the whole error message, or ``""``.
    """

    name: str
    found: bool
    where: str
    train: int
    validation: int
    test: int
    shape: tuple[int, ...]
    classes: int
    licence: str
    problem: str = ""


def names() -> tuple[str, ...]:
    """Return the names that `load` knows."""
    return (digits.NAME, *_IDX)


def load(name: str, data_dir: str | os.PathLike[str] | None = None) -> Dataset:
    """Load a data set.

    Parameters
    ----------
    name
        ``"digits"`` (embedded), ``"mnist"`` or ``"fashion_mnist"``; see `names`.
    data_dir
        Directory of the files, as torchvision lays it out (``<data_dir>/MNIST/raw/...``); the four files may
        also lie in ``<data_dir>/MNIST`` or in ``<data_dir>`` itself. It wins over ``NEUROSIM_DATA``. Not
        needed for digits.

    Returns
    -------
    Dataset
        Pixels in [0, 1], one flat row for each image; digits float64 (1,294 / 143 / 360 images of 8x8), the
        others float32 (55,000 / 5,000 / 10,000 images of 28x28); labels int64.

    Raises
    ------
    DataError
        For an unknown name, a missing directory or file, and a file that is truncated, foreign or fails its
        checksum.
    """
    if name == digits.NAME:
        return digits.load()
    if name in _IDX:
        return idx.load(_IDX[name], _directory(name, data_dir))
    raise unknown("data set", name, names(), DataError)


def status(data_dir: str | os.PathLike[str] | None = None) -> list[Status]:
    """Return one row for each data set: is it there, where, how large, under which licence.

    Files are read and checked as `load` does (about a second when all are there), but nothing is raised: what
    is wrong stands in `Status.problem`.

    Parameters
    ----------
    data_dir
        As for `load`.
    """
    rows = [
        Status(
            name=digits.NAME,
            found=True,
            where="in the package",
            train=digits.TRAIN,
            validation=digits.VALIDATION,
            test=digits.TEST,
            shape=digits.SHAPE,
            classes=digits.CLASSES,
            licence=digits.LICENCE,
        )
    ]
    for source in _IDX.values():
        where, problem = "", ""
        try:
            directory = _directory(source.name, data_dir)
            where = str(idx.find(source, directory)[0].parent)
            idx.load(source, directory)
        except DataError as error:
            problem = str(error)
        rows.append(
            Status(
                name=source.name,
                found=not problem,
                where=where,
                train=source.train,
                validation=source.validation,
                test=source.test,
                shape=source.shape,
                classes=source.classes,
                licence=source.licence,
                problem=problem,
            )
        )
    return rows


def _directory(name: str, data_dir: str | os.PathLike[str] | None) -> Path:
    """Return the data directory: `data_dir`, else what ``NEUROSIM_DATA`` names."""
    given, origin = data_dir, "--data-dir"
    if given is None:
        given, origin = os.environ.get(ENVIRONMENT) or None, ENVIRONMENT
    if given is None:
        raise DataError(
            f"Data set '{name}' is read from files, and no data directory was given. Give one with "
            f"--data-dir (data_dir= in Python) or in the environment variable {ENVIRONMENT}. "
            f"Without files there is '{digits.NAME}', which is embedded."
        )
    directory = Path(given).expanduser()
    if not directory.is_dir():
        raise DataError(
            f"Data set '{name}': the data directory {directory} (from {origin}) is not a directory. "
            f"Give one that exists with --data-dir (data_dir= in Python) or in the environment variable "
            f"{ENVIRONMENT}."
        )
    return directory
