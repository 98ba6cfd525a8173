"""Checkpoints: everything that the rest of a run depends on, in one safetensors file whose header holds JSON; no pickle.

Tensors: ``weights/PROJECTION``, ``optimiser/...`` (see `Transform.state`) and, where a run selects it, the best epoch's
``best/PROJECTION``. JSON: the configuration, where the run stands, rows of metrics. The
order of the data, augmentation and the cells' noise are functions of seed, epoch and step, so their state is a number. States, traces and
held values of a circuit start anew in each trial and checkpoints fall between trials.
"""

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

NAME = "checkpoint.safetensors"
FORMAT = 1


def save(folder: Path, tensors: dict[str, np.ndarray], state: dict[str, Any]) -> Path:
    """Write the checkpoint of a run folder, complete or not at all; the one before is replaced."""
    tensors = {name: np.asarray(values, order="C") for name, values in tensors.items()}  # a count stays without an axis
    header = json.dumps({"format": FORMAT, **state})
    metadata = {"neurosim": header, "checksum": str(_checksum(header, tensors))}
    return write_whole(folder / NAME, to_bytes(tensors, metadata=metadata))


def load(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read the checkpoint of a run folder.

    Raises
    ------
    NeurosimError
        A file that is truncated, no checkpoint, changed since it was written, or of a newer version.
    """
    path = folder / NAME
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        header = metadata.get("neurosim")
        if header is None:
            raise NeurosimError(f"'{path}' is no checkpoint of neurosim: its header has no entry 'neurosim'. {_MEND}")
        state = json.loads(header)
        found = state.get("format") if isinstance(state, dict) else None
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        if isinstance(error, NeurosimError):
            raise
        raise NeurosimError(f"'{path}' is truncated or no checkpoint: {error}. {_MEND}") from error
    if isinstance(found, int) and found > FORMAT:
        raise NeurosimError(f"'{path}' has format {found}; this version reads {FORMAT}. Use the version that wrote it.")
    if metadata.get("checksum") != str(_checksum(header, tensors)):
        raise NeurosimError(f"'{path}' is damaged: its checksum fails. {_MEND}")
    return tensors, state


_MEND = "Delete it to train again from the run's config.toml."


def _checksum(header: str, tensors: dict[str, np.ndarray]) -> int:
    """Of all that is read: the state, and each tensor's name, type, shape and bytes."""
    value = zlib.crc32(header.encode())
    for name, values in sorted(tensors.items()):
        value = zlib.crc32(f"{name} {values.dtype.str} {values.shape}".encode(), value)
        value = zlib.crc32(np.ascontiguousarray(values).view(np.uint8).data, value)
    return value
