"""Checkpoints: everything that the rest of a run depends on, in one safetensors file whose header holds JSON; no pickle.

Tensors: ``weights/PROJECTION``, ``optimiser/...`` (see `Transform.state`) and, where a run selects it, the best epoch's
``best/PROJECTION``. JSON: the configuration, where the run stands, rows of metrics. The
order of the data, augmentation and the cells' noise are functions of seed, epoch and step, so their state is a number. States, traces and
held values of a circuit start anew in each trial and checkpoints fall between trials.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from neurosim import tensors as files
from neurosim.errors import NeurosimError
from neurosim.reading import damaged

NAME = "checkpoint.safetensors"
FORMAT = files.FORMAT
MEND = "Delete it to train again from the run's config.toml."
#: The state of a training, as annotations.
STATE = {
    "config": str, "at": dict[str, Any], "noise": list[int], "trials": list[int], "metrics": list[dict[str, Any]],
    "timing": list[dict[str, float]],
}  # fmt: skip


def save(folder: Path, tensors: dict[str, np.ndarray], state: dict[str, Any]) -> Path:
    """Write the checkpoint of a run folder, complete or not at all; the one before is replaced."""
    return files.save(folder / NAME, tensors, state)


def load(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read the checkpoint of a run folder.

    Raises
    ------
    NeurosimError
        A file that is truncated, no checkpoint, changed since it was written, or of a newer version; weights that are not
        finite.
    """
    path = folder / NAME
    tensors, state = files.load(path, "checkpoint", MEND, STATE, {"recording": dict[str, Any] | None})
    everything = {name: values for name, values in tensors.items() if name != "optimiser/updates"}  # that is a count
    files.check_finite(path, everything, MEND)
    return tensors, state


def under(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays of a checkpoint with their names under a prefix: ``weights/W1``."""
    return {f"{prefix}/{name}": values for name, values in arrays.items()}


def part(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Those of a checkpoint's arrays that `under` put under a prefix."""
    start = f"{prefix}/"
    return {n.removeprefix(start): values for n, values in arrays.items() if n.startswith(start)}


@contextmanager
def taken_up(folder: Path, mend: str = MEND) -> Iterator[None]:
    """What does not fit while a checkpoint is taken up (a key, a shape, a type) is said of the file."""
    try:
        yield
    except NeurosimError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise damaged(folder / NAME, f"it does not fit the run ({type(error).__name__}: {error})", mend) from error
