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
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from neurosim import registry, tensors
from neurosim.checks import checked
from neurosim.circuit import Circuit
from neurosim.errors import NeurosimError
from neurosim.files import user_path, write_whole
from neurosim.reading import damaged, of_types, read_table, read_text, table
from neurosim.training.config import TrainConfig

CONFIG, ORIGIN, METRICS, TIMING = "config.toml", "run.json", "metrics.jsonl", "timing.jsonl"
WEIGHTS, BEST, RESULT = "weights.safetensors", "best.safetensors", "result.json"
RECORDING = "recording.h5"
MEND = "Put a copy of it back, or begin again."

#: What the files hold, as annotations.
_VALUE = float | None
_ORIGIN = {
    "command": str, "data_dir": str | None, "weights": bool, "track": bool, "threads": int, "workers": int,
    "generations": int, "versions": dict[str, str],
}  # fmt: skip
_SCORES = dict.fromkeys((f"{part}_{what}" for part in ("test", "validation") for what in ("accuracy", "loss")), float)
_LABELS = {"model": str, "data": str, "level": str, "seed": int, "failed": str, "epoch": int, "hold_out": bool}
_FINISHED = {"seconds": float, "seconds_per_epoch": float}


@dataclass(frozen=True)
class Run:
    """A trained circuit: its configuration, weights by projection (the selected ones), rows of metrics, result (empty while unfinished)."""

    folder: Path
    config: TrainConfig
    weights: dict[str, np.ndarray]
    metrics: list[dict[str, Any]]
    result: dict[str, Any]

    @cached_property
    def circuit(self) -> Circuit:
        """The circuit that was trained."""
        return registry.model(self.config.model, str(self.folder / CONFIG)).circuit(self.config.settings)


@checked
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
    weights = load_weights(folder / (BEST if (folder / BEST).is_file() else WEIGHTS))
    return Run(folder, TrainConfig.from_toml(folder / CONFIG), weights, read_metrics(folder), read_result(folder))


def save_weights(folder: Path, weights: dict[str, np.ndarray], name: str = WEIGHTS) -> Path:
    """Write the weights, complete or not at all."""
    return tensors.save(folder / name, weights, {"kind": "weights"})


def load_weights(path: Path) -> dict[str, np.ndarray]:
    """The weights in a file; one that another program wrote has no checksum and is taken as it is, if all are finite.

    Raises
    ------
    NeurosimError
        A file that is truncated, none of weights, or changed since it was written; NaN or infinity.
    """
    weights, _ = tensors.load(path, "weights file", MEND, elsewhere=True)
    tensors.check_finite(path, weights, MEND)
    return {name: np.asarray(values, dtype=np.float64) for name, values in weights.items()}


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The rows of ``metrics.jsonl``, of a training or an evolution; none where there is no such file."""
    path = folder / METRICS
    if not path.is_file():
        return []
    # A line without its end was cut off in writing (full disk): those before it are whole.
    whole, _, _ = read_text(path).rpartition("\n")
    lines = ((k, line) for k, line in enumerate(whole.split("\n"), 1) if line)
    return [checked_row(table(line, path, mend=MEND, part=f"line {k}"), path, f"line {k}") for k, line in lines]


def checked_row(row: Any, path: Path, part: str) -> dict[str, Any]:
    """A row of metrics, where it is one: numbers by name."""
    hints = dict.fromkeys(row if isinstance(row, dict) else (), _VALUE)
    hints |= {"epoch": int, "generation": int, "residual": dict[str, _VALUE]}
    return of_types(row, path, may=hints, mend=MEND, part=part)


def read_result(folder: Path) -> dict[str, Any]:
    """What ``result.json`` holds; empty while the run is unfinished."""
    path = folder / RESULT
    if not path.is_file():
        return {}
    result = read_table(path, may={**_LABELS, **_SCORES, **_FINISHED}, mend=MEND)
    if "failed" not in result:
        if missing := [key for key in _FINISHED if key not in result]:
            raise damaged(path, f"it lacks {', '.join(missing)}", MEND)
        if not any(name in result for name in _SCORES):
            raise damaged(path, f"it has none of {', '.join(_SCORES)}", MEND)
    return result


def read_origin(folder: Path) -> dict[str, Any]:
    """What ``run.json`` holds: command, folder of the data, versions, threads."""
    path = folder / ORIGIN
    return read_table(path, may=_ORIGIN, mend=MEND) if path.is_file() else {}


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
    for name, measure in run.circuit.measures.items():
        if remark := measure.remark(last.get(name)):
            lines.append(f"warning: {remark}")
    return lines


def write_rows(
    folder: Path,
    metrics: list[dict[str, Any]],
    timing: list[dict[str, Any]],
) -> None:
    """Write ``metrics.jsonl`` and ``timing.jsonl``."""
    write_whole(folder / METRICS, as_lines(metrics).encode())
    write_whole(folder / TIMING, as_lines(timing).encode())


def as_lines(rows: list[dict[str, Any]]) -> str:
    """Rows as lines of JSON."""
    return "".join(json.dumps(row) + "\n" for row in rows)
