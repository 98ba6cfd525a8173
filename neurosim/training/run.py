"""A run folder.

``config.toml``         the resolved configuration
``run.json``            the exact command, folder of the data, versions, threads
``metrics.jsonl``       one line per epoch, the same whenever the run is repeated (same machine, threads, versions)
``timing.jsonl``        seconds and samples per second of each epoch
``weights.safetensors`` weights after the last whole epoch
``best.safetensors``    with select = "best", those of the epoch with the lowest validation loss
``checkpoint.safetensors`` what `neurosim train --resume` goes on from, while the run is unfinished
``recording.h5``        what the configuration's recorder names, see `neurosim.Recorder`
``result.json``         written last: accuracy on the test set, or why the run failed
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from neurosim import registry
from neurosim.circuit import Circuit, Silent
from neurosim.errors import NeurosimError
from neurosim.files import user_path, write_whole
from neurosim.training.config import TrainConfig

CONFIG, ORIGIN, METRICS, TIMING = "config.toml", "run.json", "metrics.jsonl", "timing.jsonl"
WEIGHTS, BEST, RESULT = "weights.safetensors", "best.safetensors", "result.json"
RECORDING = "recording.h5"


@dataclass(frozen=True)
class Run:
    """A trained circuit: its configuration, weights by projection (the selected ones), rows of metrics, result (empty while unfinished)."""

    folder: Path
    config: TrainConfig
    weights: dict[str, np.ndarray]
    metrics: list[dict[str, Any]]
    result: dict[str, Any]

    @property
    def circuit(self) -> Circuit:
        """The circuit that was trained."""
        return registry.model(self.config.model).circuit(self.config.settings)


def load(folder: str | os.PathLike[str]) -> Run:
    """Read a run folder; the weights are those of the best epoch where the run selects it, else those of the last.

    Raises
    ------
    NeurosimError
        No run folder, or a damaged file in it.
    """
    folder = user_path(folder)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise NeurosimError(
                f"'{folder}' is no run folder: it has no {name}. `neurosim train MODEL --out {folder}` makes one."
            )
    path = folder / (BEST if (folder / BEST).is_file() else WEIGHTS)
    try:
        weights = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise NeurosimError(f"'{path}' is truncated or no weights file: {error}") from error
    weights = {n: np.asarray(w, dtype=np.float64) for n, w in weights.items()}
    return Run(folder, TrainConfig.from_toml(folder / CONFIG), weights, read_metrics(folder), read_result(folder))


def save_weights(folder: Path, weights: dict[str, np.ndarray], name: str = WEIGHTS) -> Path:
    """Write the weights, complete or not at all."""
    # Bytes, not safetensors' save_file: a full disk is then an OSError like everywhere else.
    return write_whole(folder / name, save({n: np.ascontiguousarray(w) for n, w in weights.items()}))


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The rows of ``metrics.jsonl``, of a training or an evolution; none where there is no such file."""
    path = folder / METRICS
    if not path.is_file():
        return []
    # A line without its end was cut off in writing (full disk): those before it are whole.
    whole, _, _ = path.read_text().rpartition("\n")
    return [_json(path, line) for line in whole.splitlines() if line]


def read_result(folder: Path) -> dict[str, Any]:
    """What ``result.json`` holds; empty while the run is unfinished."""
    path = folder / RESULT
    return _json(path, path.read_text()) if path.is_file() else {}


def read_origin(folder: Path) -> dict[str, Any]:
    """What ``run.json`` holds: command, folder of the data, versions, threads."""
    path = folder / ORIGIN
    return _json(path, path.read_text()) if path.is_file() else {}


def accuracy_text(result: Mapping[str, Any]) -> str:
    """The accuracy of a finished run in words (the loss, where there is none): on the test set, or the validation set if that was left alone."""
    part = "test" if "test_loss" in result or "test_accuracy" in result else "validation"
    what = "accuracy" if f"{part}_accuracy" in result else "loss"
    note = "" if result.get("hold_out", True) else " (nothing held out for validation, last epoch)"
    note = f" (of epoch {result['epoch']}, which has the lowest validation loss)" if "epoch" in result else note
    return f"{part} {what} {result[f'{part}_{what}']:.4f}{note}"


def remarks(run: Run) -> list[str]:
    """What a user should know of a finished run beside its accuracy: residuals of a published relaxation, silent cells."""
    last = run.metrics[-1] if run.metrics else {}
    lines = []
    if "residual" in last:
        residuals = ", ".join(f"{value:.1e} in {phase}" for phase, value in last["residual"].items())
        lines.append(
            f"distance from the fixed point left by the published relaxation (largest of the last epoch): {residuals}"
        )
    for name, measure in registry.model(run.config.model).circuit(run.config.settings).measures.items():
        if isinstance(measure, Silent) and last.get(name):
            lines.append(f"warning: {last[name]} cells of {measure.variable} are 0 for every sample: {measure.cure}")
    return lines


def as_lines(rows: list[dict[str, Any]]) -> str:
    """Rows as lines of JSON."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def _json(path: Path, text: str) -> dict[str, Any]:
    try:
        return json.loads(text)
    except ValueError as error:
        raise NeurosimError(f"'{path}' is damaged: {error}") from error
