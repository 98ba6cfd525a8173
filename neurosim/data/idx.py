"""MNIST and FashionMNIST from their IDX files, plain or gzip.

IDX, all integers big-endian: two zero bytes, a type byte (08 = unsigned byte), the number of dimensions, one
uint32 for each dimension, then the values in C order.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import struct
import zlib
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path

import numpy as np

from neurosim.data.dataset import DataError
from neurosim.data.source import MAX_FILE, MEND, Arrays, Source, lacking, not_found, unreadable
from neurosim.files import user_path

# The four files, in the order of IdxSource.md5. Some copies spell the dash before "idx" as a dot.
FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)

_GZIP_MAGIC = b"\x1f\x8b"
_UINT8 = 8
_CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class IdxSource(Source):
    """A data set published as four IDX files.

    They may lie in ``<directory>/<folder>/raw`` (torchvision's layout), ``<directory>/<folder>`` or ``<directory>``; the
    first of them that holds all four counts. Each may be spelled with a dot before "idx" and end in ``.gz``.

    Attributes
    ----------
    folder
        torchvision's folder for it, inside the data directory.
    md5
        MD5 of the *uncompressed* bytes of each of `FILES`, in that order.
    """

    folder: str
    md5: tuple[str, str, str, str]
    train: int = 55_000
    validation: int = 5_000
    test: int = 10_000
    shape: tuple[int, ...] = (28, 28)
    classes: int = 10

    def find(self, directory: Path) -> Path:
        tried = []
        for place in (directory / self.folder / "raw", directory / self.folder, directory):
            missing = [file for file in FILES if _spelled(place, file) is None]
            if not missing:
                return place
            tried.append(lacking(place, FILES, missing))
        wanted = f"Wanted, together in one of these, each plain or with .gz: {', '.join(FILES)}."
        raise not_found(self.name, directory, tried, wanted)

    def read(self, place: Path) -> Arrays:
        total = self.train + self.validation
        shapes = ((total, *self.shape), (total,), (self.test, *self.shape), (self.test,))
        images, labels, test_images, test_labels = (
            read_idx(_spelled(place, file) or place / file, shape=shape, md5=md5)
            for file, shape, md5 in zip(FILES, shapes, self.md5, strict=True)
        )
        return Arrays(images, labels.astype(np.int64), test_images, test_labels.astype(np.int64))


MNIST = IdxSource(
    name="mnist",
    folder="MNIST",
    md5=(
        "6bbc9ace898e44ae57da46a324031adb",
        "a25bea736e30d166cdddb491f175f624",
        "2646ac647ad5339dbf082846283269ea",
        "27ae3e4e09519cfbb04c329615203637",
    ),
    licence="CC BY-SA 3.0 (Y. LeCun, C. Cortes)",
)

FASHION_MNIST = IdxSource(
    name="fashion_mnist",
    folder="FashionMNIST",
    md5=(
        "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "9018921c3c673c538a1fc5bad174d6f9",
        "8181f5470baa50b63fa0f6fddb340f0a",
        "15d484375f8d13e6eb1aabb0c3f46965",
    ),
    licence="MIT (Zalando SE, 2017)",
)

_PUBLISHED = {
    md5: f"{file} of {source.name}"
    for source in (MNIST, FASHION_MNIST)
    for file, md5 in zip(FILES, source.md5, strict=True)
}


def read_idx(path: Path | str, *, shape: tuple[int, ...] | None = None, md5: str | None = None) -> np.ndarray:
    """Read one IDX file of unsigned bytes; gzip is recognised by its first bytes 1F 8B, whatever the name.

    Parameters
    ----------
    path
        The file.
    shape
        The shape it must have, if known.
    md5
        MD5 (hexadecimal) that its uncompressed bytes must have, if known.

    Returns
    -------
    numpy.ndarray
        uint8, in the shape that the file states; read-only.

    Raises
    ------
    DataError
        When the file cannot be read, is no IDX file of unsigned bytes, has another shape, is shorter or
        longer than its header says, or fails the checksum. The message names the file, what was got, what is
        wanted and the mend.
    """
    path = user_path(path)
    try:
        with open(path, "rb") as file:
            zipped = file.read(2) == _GZIP_MAGIC
            file.seek(0)
            if not zipped:
                return _parse(file, path, shape, md5)
            with gzip.GzipFile(fileobj=file) as unzipped:
                return _parse(unzipped, path, shape, md5)
    except EOFError as error:
        raise DataError(f"{path} is truncated: its gzip stream stops before its end. {MEND}") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path} is damaged: its gzip stream cannot be unpacked ({error}). {MEND}") from error
    except OSError as error:
        raise unreadable(path, error) from error


def _spelled(place: Path, file: str) -> Path | None:
    dotted = file.replace("-idx", ".idx")
    for name in (file, f"{file}.gz", dotted, f"{dotted}.gz"):
        if (place / name).is_file():
            return place / name
    return None


def _parse(stream: BufferedIOBase, path: Path, shape: tuple[int, ...] | None, md5: str | None) -> np.ndarray:
    magic = _read(stream, 4)
    if len(magic) < 4:
        raise DataError(f"{path} is truncated: got {len(magic)} bytes, wanted an IDX header. {MEND}")
    ndim = magic[3]
    if magic[:3] != bytes((0, 0, _UINT8)) or ndim == 0 or (shape is not None and ndim != len(shape)):
        wanted = "00 00 08 and the number of dimensions" if shape is None else f"00 00 08 {len(shape):02X}"
        raise DataError(
            f"{path} is not the IDX file wanted: it starts with {magic.hex(' ').upper()}, wanted {wanted}. {MEND}"
        )
    header = _read(stream, 4 * ndim)
    if len(header) < 4 * ndim:
        raise DataError(f"{path} is truncated: got {4 + len(header)} bytes, wanted a header of {4 + 4 * ndim}. {MEND}")
    got = struct.unpack(f">{ndim}I", header)
    if shape is not None and got != shape:
        raise DataError(f"{path} holds {_times(got)} values, wanted {_times(shape)}. {MEND}")
    size = math.prod(got)
    if size > MAX_FILE:
        raise DataError(f"{path} claims {_times(got)} = {size:,} values; wanted at most {MAX_FILE:,}. {MEND}")
    body = _read(stream, size + 1)
    if len(body) < size:
        raise DataError(f"{path} is truncated: got {len(body):,} values, wanted {_times(got)} = {size:,}. {MEND}")
    if len(body) > size:
        raise DataError(f"{path} is too long: it goes on after the {_times(got)} = {size:,} values wanted. {MEND}")
    if md5 is not None:
        digest = hashlib.md5(magic + header, usedforsecurity=False)
        digest.update(body)
        if digest.hexdigest() != md5:
            known = _PUBLISHED.get(digest.hexdigest())
            hint = f" (that is {known})" if known else ""
            raise DataError(
                f"{path} fails its checksum: got MD5 {digest.hexdigest()}{hint}, wanted {md5} "
                f"(over the uncompressed bytes). {MEND}"
            )
    return np.frombuffer(body, dtype=np.uint8).reshape(got)


def _read(stream: BufferedIOBase, size: int) -> bytes:
    """Read up to `size` bytes in pieces: a false header cannot ask for more memory than the file fills."""
    pieces = []
    while size > 0 and (piece := stream.read(min(size, _CHUNK))):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(f"{n:,}" for n in shape)
