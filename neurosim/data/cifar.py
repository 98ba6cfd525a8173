"""CIFAR-10 and CIFAR-100 from the binary files or the Python batches, unpacked or in the published archive.

Binary: records of a label byte (CIFAR-100: coarse, then fine) and 3,072 pixels, 32x32 red, then green, then blue.
Python: pickled dicts with the same pixels as an array ``data`` (N, 3072) and a list of labels. A pickle can name any
function to be called, so it is read by an unpickler that knows the few names those files need and refuses all others.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from neurosim.data.dataset import DataError
from neurosim.data.published import File, Form, PublishedSource, sized
from neurosim.data.source import MEND, Arrays

SHAPE = (3, 32, 32)
_PIXELS = 3072
_BATCHES = (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch")
_LICENCE = "none stated; research use, cite A. Krizhevsky 2009"


@dataclass(frozen=True, kw_only=True)
class CifarBinary(Form):
    """The binary form. No MD5 of the single files is published: sizes and the range of the labels are all that is checked.

    So a flipped bit in a pixel is found in the archive (by its MD5), but not in the unpacked files.

    Attributes
    ----------
    records
        Images in each file of `files`; the last file is the test set.
    classes
        Number of classes of each label byte; the last label is the one that counts.
    """

    records: tuple[int, ...]
    classes: tuple[int, ...]

    def arrays(self, files: Mapping[str, File]) -> Arrays:
        bytes_each = len(self.classes) + _PIXELS
        parts = []
        for name, records in zip(self.files, self.records, strict=True):
            file = files[name]
            table = np.frombuffer(sized(file, records * bytes_each), np.uint8).reshape(records, bytes_each)
            for column, classes in enumerate(self.classes):
                _check_labels(file, table[:, column], classes)
            parts.append((table[:, len(self.classes) :], table[:, len(self.classes) - 1]))
        return _joined(parts)


@dataclass(frozen=True, kw_only=True)
class CifarPython(Form):
    """The Python batches, each checked by its MD5 before it is unpickled.

    Attributes
    ----------
    records
        Images in each file of `files`; the last file is the test set.
    labels
        Key of the labels.
    classes
        Number of classes.
    """

    records: tuple[int, ...]
    labels: str
    classes: int

    def arrays(self, files: Mapping[str, File]) -> Arrays:
        parts = []
        for name, records in zip(self.files, self.records, strict=True):
            file = files[name]
            batch = unpickle(file)
            data, labels = (batch.get(key) for key in ("data", self.labels)) if isinstance(batch, dict) else (0, 0)
            if not (
                isinstance(data, np.ndarray) and data.dtype == np.uint8 and data.shape == (records, _PIXELS)
                and isinstance(labels, list) and len(labels) == records and all(type(k) is int for k in labels)
            ):  # fmt: skip
                raise DataError(
                    f"{file.where} is no CIFAR batch: wanted a dict with 'data', uint8 of ({records}, {_PIXELS}), "
                    f"and '{self.labels}', a list of {records} numbers. {MEND}"
                )
            _check_labels(file, np.array(labels), self.classes)
            parts.append((data, np.array(labels)))
        return _joined(parts)


CIFAR10 = PublishedSource(
    name="cifar10",
    licence=_LICENCE,
    train=45_000,
    validation=5_000,
    test=10_000,
    shape=SHAPE,
    classes=10,
    forms=(
        CifarBinary(
            folder="cifar-10-batches-bin",
            archive="cifar-10-binary.tar.gz",
            archive_md5="c32a1d4ab5d03f1284b67883e8d87530",
            files=dict.fromkeys(f"{batch}.bin" for batch in _BATCHES),
            records=(10_000,) * 6,
            classes=(10,),
        ),
        CifarPython(
            folder="cifar-10-batches-py",
            archive="cifar-10-python.tar.gz",
            archive_md5="c58f30108f718f92721af3b95e74349a",
            files={
                "data_batch_1": "c99cafc152244af753f735de768cd75f",
                "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
                "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
                "data_batch_4": "634d18415352ddfa80567beed471001a",
                "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
                "test_batch": "40351d587109b95175f43aff81a1287e",
            },
            records=(10_000,) * 6,
            labels="labels",
            classes=10,
        ),
    ),
)

CIFAR100 = PublishedSource(
    name="cifar100",
    licence=_LICENCE,
    train=45_000,
    validation=5_000,
    test=10_000,
    shape=SHAPE,
    classes=100,
    forms=(
        CifarBinary(
            folder="cifar-100-binary",
            archive="cifar-100-binary.tar.gz",
            archive_md5="03b5dce01913d631647c71ecec9e9cb8",
            files={"train.bin": None, "test.bin": None},
            records=(50_000, 10_000),
            classes=(20, 100),
        ),
        CifarPython(
            folder="cifar-100-python",
            archive="cifar-100-python.tar.gz",
            archive_md5="eb9058c3a382ffc7106e4002c42a8d85",
            files={"train": "16019d7e3df5f24257cddd939b257f8d", "test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
            records=(50_000, 10_000),
            labels="fine_labels",
            classes=100,
        ),
    ),
)


def unpickle(file: File) -> Any:
    """Return the object of a pickle made of dicts, lists, texts, numbers and uint8 arrays.

    Raises
    ------
    DataError
        For a pickle that names anything else, before that is called; and for bytes that are no pickle.
    """
    try:
        return _Unpickler(file).load()
    except DataError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        raise DataError(f"{file.where} cannot be unpickled ({type(error).__name__}: {error}). {MEND}") from error


def _uint8(name: str, *_: object) -> np.dtype:
    """In the place of ``numpy.dtype``: a new object, because the pickle then sets its state."""
    if name not in ("u1", "|u1", "uint8"):
        raise DataError(f"A pickled array has the type {name!r}; wanted uint8. {MEND}")
    return np.dtype("u1", copy=True)


def _latin1(text: str, encoding: str) -> bytes:
    """In the place of ``_codecs.encode``, by which Python 3 writes bytes for Python 2."""
    if encoding != "latin1":
        raise DataError(f"A pickle asks for the encoding {encoding!r}; wanted latin1. {MEND}")
    return text.encode("latin1")


_RECONSTRUCT, _FROM_BUFFER = (np.zeros(1, np.uint8).__reduce_ex__(protocol)[0] for protocol in (2, 5))
_ALLOWED = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _uint8,
    ("_codecs", "encode"): _latin1,
    # NumPy 2 moved its private modules.
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy.core.numeric", "_frombuffer"): _FROM_BUFFER,
    ("numpy._core.numeric", "_frombuffer"): _FROM_BUFFER,
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: File):
        super().__init__(io.BytesIO(file.content), encoding="latin1")  # the files are from Python 2
        self.where = file.where

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise DataError(
                f"{self.where} is a pickle that asks for '{module}.{name}', which no CIFAR batch needs: nothing of it "
                f"was run. Do not trust this file. {MEND}"
            )
        return _ALLOWED[module, name]


def _check_labels(file: File, labels: np.ndarray, classes: int) -> None:
    if labels.size and not 0 <= labels.min() <= labels.max() < classes:
        raise DataError(
            f"{file.where} has labels from {labels.min()} to {labels.max()}; wanted 0 to {classes - 1}. {MEND}"
        )


def _joined(parts: list[tuple[np.ndarray, np.ndarray]]) -> Arrays:
    """All but the last part are the training set."""
    *train, test = parts
    return Arrays(
        np.concatenate([images for images, _ in train]).reshape(-1, *SHAPE),
        np.concatenate([labels for _, labels in train]).astype(np.int64),
        np.ascontiguousarray(test[0]).reshape(-1, *SHAPE),
        test[1].astype(np.int64),
    )
