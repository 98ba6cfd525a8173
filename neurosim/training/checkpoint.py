"""Checkpoints: everything that the rest of a run depends on, in one safetensors file whose header holds JSON; no pickle.

Tensors: ``weights/PROJECTION``, ``optimiser/...`` (see `Transform.state`) and, where a run selects it, the best epoch's
``best/PROJECTION``. JSON: the configuration, where the run stands, rows of metrics. The
order of the data, augmentation and the cells' noise are functions of seed, epoch and step, so their state is a number. States, traces and
held values of a circuit start anew in each trial and checkpoints fall between trials.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from neurosim import tensors as files

NAME = "checkpoint.safetensors"
FORMAT = files.FORMAT


def save(folder: Path, tensors: dict[str, np.ndarray], state: dict[str, Any]) -> Path:
    """Write the checkpoint of a run folder, complete or not at all; the one before is replaced."""
    return files.save(folder / NAME, tensors, state)


def load(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read the checkpoint of a run folder.

    Raises
    ------
    NeurosimError
        A file that is truncated, no checkpoint, changed since it was written, or of a newer version.
    """
    return files.load(folder / NAME, "checkpoint", "Delete it to train again from the run's config.toml.")
