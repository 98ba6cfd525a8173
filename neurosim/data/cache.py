"""Decoded images are kept outside the data directory, so that an archive is unpacked once and not at every load.

One file for each data set and place of its files, in ``NEUROSIM_CACHE``, else ``$XDG_CACHE_HOME/neurosim``, else
``~/.cache/neurosim``: the arrays as safetensors, with the size and time of the files that they were made from
(other files: decoded again) and a SHA-256 of the arrays (damaged: decoded again, with a line on stderr). Deleting
the folder is always safe.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from neurosim.files import user_path, write_whole

ENVIRONMENT = "NEUROSIM_CACHE"

# Raised when the same files would give other arrays (another order, another layout).
_VERSION = "1"
_FIELDS = ("train_images", "train_labels", "test_images", "test_labels")


def directory() -> Path:
    """Return the folder of the cache; it need not exist."""
    if given := os.environ.get(ENVIRONMENT):
        return user_path(given)
    return user_path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "neurosim"


def through(name: str, place: Path, read: Callable[[Path], Sequence[np.ndarray]]) -> Sequence[np.ndarray]:
    """Return ``read(place)``: from the cache where that holds it, else read and put there.

    Parameters
    ----------
    name
        Data set, for the file's name and for messages.
    place
        The archive or folder that is decoded.
    read
        Decodes it: four arrays, training images and labels, test images and labels.
    """
    file, stamp = _file(name, place), _stamp(place)
    if _is_of(file, stamp):
        arrays = _stored(file)
        if arrays is not None:
            return arrays
        _say(f"the cache {file} is damaged; decoding {place} again.")
    arrays = read(place)
    metadata = {"version": _VERSION, "source": str(place.resolve()), "stamp": stamp, "sha256": _digest(arrays)}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        content = save({k: np.ascontiguousarray(v) for k, v in zip(_FIELDS, arrays, strict=True)}, metadata)
        # Several processes may decode at once: each writes a file of its own, and the last one stays.
        os.replace(write_whole(file.with_name(f"{file.name}.{os.getpid()}"), content), file)
    except OSError as error:
        _say(
            f"'{name}' could not be kept in {file.parent} ({error.strerror or error}), so every load decodes it. "
            f"Name a folder that can be written with {ENVIRONMENT}."
        )
    return arrays


def is_fresh(name: str, place: Path) -> bool:
    """Whether `through` would find `place` in the cache (its arrays are not checked)."""
    return _is_of(_file(name, place), _stamp(place))


def _file(name: str, place: Path) -> Path:
    key = hashlib.sha256(os.fsencode(place.resolve())).hexdigest()[:16]
    return directory() / f"{name.partition(':')[0]}-{key}.safetensors"


def _stamp(place: Path) -> str:
    """Size and time of a file; of a folder, a digest over those of all files in it."""
    if place.is_file():
        return _size_and_time(place)
    files = sorted(path for path in place.rglob("*") if path.is_file())
    text = "\n".join(f"{path.relative_to(place)} {_size_and_time(path)}" for path in files)
    return hashlib.sha256(os.fsencode(text)).hexdigest()


def _size_and_time(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}"


def _is_of(file: Path, stamp: str) -> bool:
    """Whether the cache file was made from the files that have this stamp; a damaged header counts as yes."""
    if not file.is_file():
        return False
    try:
        with safe_open(file, framework="numpy") as stored:
            metadata = stored.metadata() or {}
    except (SafetensorError, OSError):
        return True
    return metadata.get("version") == _VERSION and metadata.get("stamp") == stamp


def _stored(file: Path) -> list[np.ndarray] | None:
    """The arrays of a cache file; None when it is damaged."""
    try:
        with safe_open(file, framework="numpy") as stored:
            arrays = [stored.get_tensor(field) for field in _FIELDS]
            return arrays if stored.metadata()["sha256"] == _digest(arrays) else None
    except (SafetensorError, OSError, KeyError, ValueError):
        return None


def _digest(arrays: Sequence[np.ndarray]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _say(text: str) -> None:
    print(f"neurosim: {text}", file=sys.stderr)
