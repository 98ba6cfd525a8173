"""Arrays and JSON in one safetensors file, checked when read; no pickle."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from neurosim.errors import NeurosimError
from neurosim.files import write_whole

FORMAT = 1


def save(path: Path, tensors: dict[str, np.ndarray], state: dict[str, Any]) -> Path:
    """Write a file, complete or not at all; one before it is replaced. `state` is JSON, in the file's header."""
    tensors = {name: np.asarray(values, order="C") for name, values in tensors.items()}  # a count stays without an axis
    header = json.dumps({"format": FORMAT, **state})
    metadata = {"neurosim": header, "checksum": str(_checksum(header, tensors))}
    return write_whole(path, to_bytes(tensors, metadata=metadata))


def load(path: Path, what: str, mend: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read what `save` wrote; `what` and `mend` say in errors what the file should be and what to do.

    Raises
    ------
    NeurosimError
        A file that is truncated, none of ours, changed since it was written, or of a newer version.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        header = metadata.get("neurosim")
        if header is None:
            raise NeurosimError(f"'{path}' is no {what} of neurosim: its header has no entry 'neurosim'. {mend}")
        state = json.loads(header)
        found = state.get("format") if isinstance(state, dict) else None
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        if isinstance(error, NeurosimError):
            raise
        raise NeurosimError(f"'{path}' is truncated or no {what}: {error}. {mend}") from error
    if isinstance(found, int) and found > FORMAT:
        raise NeurosimError(f"'{path}' has format {found}; this version reads {FORMAT}. Use the version that wrote it.")
    if metadata.get("checksum") != str(_checksum(header, tensors)):
        raise NeurosimError(f"'{path}' is damaged: its checksum fails. {mend}")
    return tensors, state


def _checksum(header: str, tensors: dict[str, np.ndarray]) -> int:
    """Of all that is read: the state, and each tensor's name, type, shape and bytes."""
    value = zlib.crc32(header.encode())
    for name, values in sorted(tensors.items()):
        value = zlib.crc32(f"{name} {values.dtype.str} {values.shape}".encode(), value)
        value = zlib.crc32(np.ascontiguousarray(values).view(np.uint8).data, value)
    return value
