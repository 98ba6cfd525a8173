"""Arrays and JSON in one safetensors file, checked when read; no pickle."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save as to_bytes

from neurosim._version import __version__
from neurosim.errors import NeurosimError
from neurosim.files import write_whole
from neurosim.reading import damaged, table

#: 1: of neurosim 0.1, whose circuits were described in other words.
FORMAT = 2


def save(path: Path, tensors: Mapping[str, np.ndarray], state: Mapping[str, Any]) -> Path:
    """Write a file, complete or not at all; one before it is replaced. `state` is JSON, in the file's header."""
    arrays = {name: np.asarray(values, order="C") for name, values in tensors.items()}  # a count stays without an axis
    header = json.dumps({"format": FORMAT, **state})
    # One entry: safetensors writes several in a random order, and equal files have equal bytes.
    return write_whole(path, to_bytes(arrays, metadata={"neurosim": f"{_checksum(header, arrays)} {header}"}))


def load(
    path: Path, what: str, mend: str, needs: Mapping[str, Any] | None = None, may: Mapping[str, Any] | None = None,
    elsewhere: bool = False,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:  # fmt: skip
    """Read what `save` wrote; `what` and `mend` say in errors what the file should be and what to do.

    `needs` and `may` are the keys of the state, see `neurosim.reading.table`. With `elsewhere`, a file of another program
    is read too: it has neither state nor checksum.

    Raises
    ------
    NeurosimError
        A file that is truncated, none of ours, changed since it was written, of another version, or without such keys.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except Exception as error:  # SafetensorError, and what NumPy says of types that it does not know
        raise NeurosimError(f"'{path}' is truncated or no {what}: {error}. {mend}") from error
    if elsewhere and not set(metadata) - {"format"}:  # which PyTorch writes
        return tensors, {}
    checksum, _, header = metadata.get("neurosim", "").partition(" ")
    if not header:
        raise NeurosimError(f"'{path}' is no {what} of neurosim: its header has no entry 'neurosim'. {mend}")
    state = table(header, path, {"format": int}, mend=mend)
    if state["format"] != FORMAT:
        older = (
            f" Or make it again: neurosim {__version__} describes circuits anew." if state["format"] < FORMAT else ""
        )
        raise NeurosimError(
            f"'{path}' has format {state['format']}{' (neurosim 0.1)' if state['format'] == 1 else ''}; this version reads "
            f"{FORMAT}. Use the version that wrote it.{older}"
        )
    if checksum != str(_checksum(header, tensors)):
        raise NeurosimError(f"'{path}' is damaged: its checksum fails. {mend}")
    return tensors, table(header, path, needs, may, mend)


def check_finite(path: Path, tensors: Mapping[str, np.ndarray], mend: str) -> None:
    """Refuse arrays that are not of finite floating-point numbers."""
    for name, values in tensors.items():
        if values.dtype.kind != "f":
            raise damaged(path, f"'{name}' holds numbers of the type {values.dtype}; wanted floating-point", mend)
        if not np.isfinite(values).all():
            raise damaged(path, f"'{name}' holds NaN or infinity", mend)


def _checksum(header: str, tensors: dict[str, np.ndarray]) -> int:
    """Of all that is read: the state, and each tensor's name, type, shape and bytes."""
    value = zlib.crc32(header.encode())
    for name, values in sorted(tensors.items()):
        value = zlib.crc32(f"{name} {values.dtype.str} {values.shape}".encode(), value)
        value = zlib.crc32(np.ascontiguousarray(values).view(np.uint8).data, value)
    return value
