"""Data sets: the embedded 8x8 digits, and image sets from their standard files.

    dataset = neurosim.data.load("digits")
    images, labels = dataset.split("train")         # (1294, 64) in [0, 1], (1294,)

Each set has three fixed parts, the same for every model and seed: train, validation (the last part of the
training set) and test. Loading downloads nothing: files are read from ``data_dir`` or, without it, from the
directory that the environment variable ``NEUROSIM_DATA`` names; `fetch` puts them there.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from neurosim.data import digits, images
from neurosim.data.cifar import CIFAR10, CIFAR100
from neurosim.data.dataset import SPLITS, DataError, Dataset
from neurosim.data.idx import FASHION_MNIST, MNIST
from neurosim.data.normalise import normalise
from neurosim.data.source import Source
from neurosim.data.stl10 import STL10
from neurosim.errors import unknown
from neurosim.files import user_path

__all__ = ["SPLITS", "DataError", "Dataset", "Status", "fetch", "load", "names", "normalise", "status"]

ENVIRONMENT = "NEUROSIM_DATA"

_SOURCES: dict[str, Source] = {
    source.name: source for source in (MNIST, FASHION_MNIST, CIFAR10, images.CIFAR10_JPEG, CIFAR100, STL10)
}


@dataclass(frozen=True)
class Status:
    """One row of `status`.

    Attributes
    ----------
    name
        The name that `load` knows it by.
    found
        Whether `load` would succeed: every file is there and passes its checks. Of an archive that has not been
        decoded yet it says only that it is there.
    where
        The folder of its files or the archive, ``"in the package"`` for embedded data, or ``""`` when not all are there.
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
    remark
        What else there is to say, or ``""``.
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
    remark: str = ""


def names() -> tuple[str, ...]:
    """Return the names that `load` knows, beside ``images:PATH``."""
    return (digits.NAME, *_SOURCES)


def load(name: str, data_dir: str | os.PathLike[str] | None = None) -> Dataset:
    """Load a data set.

    Parameters
    ----------
    name
        One of `names`; or ``"images:PATH"`` for a folder or tar archive of your own that holds
        ``train/<class>/<image>`` and ``test/<class>/<image>`` (see `neurosim.data.images`), the path absolute or
        relative to the working directory or the data directory.
    data_dir
        Directory of the files, as torchvision lays it out (``<data_dir>/MNIST/raw/...``). It wins over
        ``NEUROSIM_DATA``. Not needed for digits and ``images:``.

    Returns
    -------
    Dataset
        Pixels in [0, 1], one flat row for each image; digits float64 (1,294 / 143 / 360 images of 8x8), the
        others float32 (MNIST, FashionMNIST 55,000 / 5,000 / 10,000 of 28x28; CIFAR 45,000 / 5,000 / 10,000 of
        3x32x32; STL-10 4,500 / 500 / 8,000 of 3x96x96); labels int64.

    Raises
    ------
    DataError
        For an unknown name, a missing directory or file, and a file that is truncated, foreign or fails its
        checksum.
    """
    if name == digits.NAME:
        return digits.load()
    if name.startswith(images.PREFIX):
        return images.load(name, _own(name, data_dir))
    return _source(name).load(_directory(name, data_dir))


def fetch(name: str, data_dir: str | os.PathLike[str] | None = None, url: str | None = None) -> list[Path]:
    """Download a published data set into the data directory; see `neurosim.data.fetching.fetch`.

    Parameters
    ----------
    name
        ``"mnist"``, ``"fashion_mnist"``, ``"cifar10"``, ``"cifar100"`` or ``"stl10"``.
    data_dir
        As for `load`, but made if need be.
    url
        Folder to take the files from, in place of the standard one.

    Returns
    -------
    list of pathlib.Path
        The files, all of them whole.

    Raises
    ------
    DataError
        For a data set that is not to be had, no network, a broken connection, a full disk and a wrong file.
    """
    from neurosim.data import fetching

    if name not in fetching.ADDRESSES:
        raise unknown("data set to fetch", name, fetching.ADDRESSES, DataError)
    return fetching.fetch(fetching.ADDRESSES[name], _named(name, data_dir)[0], url)


def status(data_dir: str | os.PathLike[str] | None = None) -> list[Status]:
    """Return one row for each data set: is it there, where, how large, under which licence.

    Unpacked files are read and checked as `load` does (a second or two when all are there), archives are not, and
    nothing is raised: what is wrong stands in `Status.problem`.

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
    for source in _SOURCES.values():
        where, problem, remark = "", "", ""
        try:
            directory = _directory(source.name, data_dir)
            where = str(source.find(directory))
            remark = source.check(directory)
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
                remark=remark,
            )
        )
    return rows


def _source(name: str) -> Source:
    if name not in _SOURCES:
        raise unknown("data set", name, (*names(), f"{images.PREFIX}PATH"), DataError)
    return _SOURCES[name]


def _own(name: str, data_dir: str | os.PathLike[str] | None) -> Path:
    """The folder or archive that ``images:PATH`` names."""
    path = user_path(name.removeprefix(images.PREFIX))
    given = given_directory(data_dir)
    places = [path, given / path] if given and not path.is_absolute() else [path]
    for place in places:
        if path.name and place.exists():
            return place
    raise DataError(
        f"Data set '{name}': there is no {' and no '.join(str(place) for place in places)}. Wanted after '{images.PREFIX}' "
        "a folder or tar archive, its path absolute or relative to the working directory or the data directory."
    )


def _directory(name: str, data_dir: str | os.PathLike[str] | None) -> Path:
    """Return the data directory, which must exist."""
    directory, origin = _named(name, data_dir)
    if not directory.is_dir():
        raise DataError(
            f"Data set '{name}': the data directory {directory} (from {origin}) is not a directory. "
            f"Give one that exists with --data-dir (data_dir= in Python) or in the environment variable "
            f"{ENVIRONMENT}."
        )
    return directory


def _named(name: str, data_dir: str | os.PathLike[str] | None) -> tuple[Path, str]:
    """Return the data directory and who named it: `data_dir`, else ``NEUROSIM_DATA``."""
    given = given_directory(data_dir)
    if given is None:
        raise DataError(
            f"Data set '{name}' is kept in files, and no data directory was given. Give one with "
            f"--data-dir (data_dir= in Python) or in the environment variable {ENVIRONMENT}. "
            f"Without files there is '{digits.NAME}', which is embedded."
        )
    return given, ENVIRONMENT if data_dir is None else "--data-dir"


def given_directory(data_dir: str | os.PathLike[str] | None) -> Path | None:
    """Return `data_dir`, else what ``NEUROSIM_DATA`` names; None where neither is given."""
    named = (os.environ.get(ENVIRONMENT) or None) if data_dir is None else data_dir
    return None if named is None else user_path(named)
