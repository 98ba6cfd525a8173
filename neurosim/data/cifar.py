"""CIFAR-10 and CIFAR-100 from the binary files or the Python batches, unpacked or in the published archive.

Binary: records of a label byte (CIFAR-100: coarse, then fine) and 3,072 pixels, 32x32 red, then green, then blue.
Python: pickled dicts with the same pixels as an array ``data`` (N, 3072) and a list of labels. A pickle can name any
function to be called, so it is read by an unpickler that knows the few names those files need and refuses all others.
Those few lead to objects of this module: nothing of NumPy is called while a pickle is read.
"""

from __future__ import annotations

import io
import math
import pickle
import reprlib
from collections.abc import Callable, Mapping
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
                isinstance(data, PickledArray) and data.shape == (records, _PIXELS)
                and isinstance(labels, list) and len(labels) == records and all(type(k) is int for k in labels)
            ):  # fmt: skip
                raise DataError(
                    f"{file.where} is no CIFAR batch: wanted a dict with 'data', uint8 of ({records}, {_PIXELS}), "
                    f"and '{self.labels}', a list of {records} numbers. {MEND}"
                )
            _check_labels(file, np.array(labels), self.classes)
            parts.append((data.array, np.array(labels)))
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
    """Return the object of a pickle made of dicts, lists, texts, numbers and uint8 arrays (as `PickledArray`).

    Bytes come as text, one character each, as those of Python 2 do.

    Raises
    ------
    DataError
        For a pickle that names anything else, before that is called; and for bytes that are no pickle.
    """
    try:
        return _Unpickler(file).load()
    except DataError as error:
        raise DataError(f"{file.where} cannot be unpickled: {error} {MEND}") from error
    except Exception as error:  # a damaged pickle can raise anything
        raise DataError(f"{file.where} cannot be unpickled ({type(error).__name__}: {error}). {MEND}") from error


class PickledArray:
    """A uint8 array out of a pickle: its bytes and its shape, checked against each other.

    Attributes
    ----------
    shape
        Its shape.
    """

    # What a pickle can lay its hands on has no attributes but these, and a __setstate__, without which it could set them.
    __slots__ = ("_columns_first", "_raw", "shape")

    def __init__(self) -> None:
        self.shape, self._columns_first, self._raw = (0,), False, memoryview(b"")

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, columns_first, raw = state
        _demand(dtype is _UINT8, "a type", dtype)
        is_shape = type(shape) is tuple and len(shape) <= 32 and all(type(n) is int and n >= 0 for n in shape)
        _demand(is_shape, "a shape", shape)
        if not isinstance(raw, str):  # a text has the bytes of Python 2
            raw = memoryview(raw)  # in which a bytearray keeps its length
        length = len(raw.encode("latin1")) if isinstance(raw, str) else raw.nbytes
        if length != math.prod(shape):
            raise DataError(f"It has an array of the shape {shape} with {length:,} bytes.")
        self.shape, self._columns_first, self._raw = shape, bool(columns_first), raw

    @property
    def array(self) -> np.ndarray:
        """The array. It is made here, where a pickle cannot ask for it over and over."""
        raw = self._raw.encode("latin1") if isinstance(self._raw, str) else self._raw
        return np.frombuffer(raw, np.uint8).reshape(self.shape, order="F" if self._columns_first else "C")


class _UInt8:
    """What ``numpy.dtype`` makes: one object for all, whose state (byte order, fields) says nothing of uint8."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        pass


class _Name:
    """What a name in a pickle stands for: no class and no function, whose attributes a pickle could set."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., object]):
        self._call = call

    def __call__(self, *arguments: object) -> object:
        return self._call(*arguments)

    def __setstate__(self, state: object) -> None:
        raise DataError("It sets the state of a function.")


def _demand(right: bool, what: str, got: object) -> None:
    if not right:
        raise DataError(f"It has an array with {what} that no CIFAR batch has: {reprlib.repr(got)}.")


def _ndarray(*_: object) -> object:
    raise DataError("It calls 'numpy.ndarray', which no CIFAR batch does. Do not trust this file.")


def _reconstruct(kind: object, *_: object) -> PickledArray:
    """An empty array, of which the pickle then sets the state."""
    _demand(kind is _NDARRAY, "a class", kind)
    return PickledArray()


def _from_buffer(raw: object, dtype: object, shape: object, order: object) -> PickledArray:
    array = PickledArray()
    array.__setstate__((1, shape, dtype, order == "F", raw))
    return array


def _dtype(name: object, *_: object) -> _UInt8:
    if name not in ("u1", "|u1", "uint8"):
        raise DataError(f"A pickled array has the type {reprlib.repr(name)}; wanted uint8.")
    return _UINT8


def _latin1(text: str, encoding: object) -> str:
    """For ``_codecs.encode``, by which Python 3 writes bytes for Python 2: left as the text that Python 2 had."""
    if encoding != "latin1":
        raise DataError(f"It asks for the encoding {reprlib.repr(encoding)}; wanted latin1.")
    return text


_UINT8 = _UInt8()
_NDARRAY = _Name(_ndarray)
_ALLOWED = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _Name(_dtype),
    ("_codecs", "encode"): _Name(_latin1),
    # NumPy 2 moved its private modules.
    ("numpy.core.multiarray", "_reconstruct"): _Name(_reconstruct),
    ("numpy._core.multiarray", "_reconstruct"): _Name(_reconstruct),
    ("numpy.core.numeric", "_frombuffer"): _Name(_from_buffer),
    ("numpy._core.numeric", "_frombuffer"): _Name(_from_buffer),
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: File):
        super().__init__(io.BytesIO(file.content), encoding="latin1")  # the files are from Python 2

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise DataError(
                f"It asks for '{module}.{name}', which no CIFAR batch needs: nothing of it was run. "
                "Do not trust this file."
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
