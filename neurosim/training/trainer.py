"""The training loop: the same for every level and for the plain references."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from neurosim import data as datasets
from neurosim import registry
from neurosim.backends import engine_class
from neurosim.backends.engine import Options
from neurosim.errors import DivergenceError, NeurosimError
from neurosim.files import write_whole
from neurosim.simulation import step_size, stimuli
from neurosim.training.config import REFERENCES, TrainConfig, resolve
from neurosim.training.run import CONFIG, METRICS, RESULT, Run, load, save_weights

#: Batches in one call of a trajectory engine: each call has a start-up cost, and the progress bar moves between calls.
BATCHES = 50


class Trainer:
    """Trains a circuit (or its plain reference) by a configuration.

    Parameters
    ----------
    config
        The run.
    data_dir
        Where data sets lie, see `neurosim.data.load`.
    weights
        Start from these weights in place of drawn ones.
    progress
        Show progress bars.
    """

    def __init__(
        self, config: TrainConfig, data_dir: str | None = None, weights: Mapping[str, np.ndarray] | None = None,
        progress: bool = True,
    ):  # fmt: skip
        self.config, self.progress = config, progress
        self.circuit = registry.model(config.model).circuit(config.settings)
        readout = self.circuit.readout
        if readout is None:
            raise NeurosimError(
                f"The circuit '{self.circuit.name}' names no readout, so it cannot be trained to classify."
            )
        self.dataset = datasets.load(config.data, data_dir)
        drawn = dict(weights) if weights is not None else self.circuit.initial_weights(config.seed)
        self.splits = {
            name: stimuli(self.circuit, *self.dataset.split(name)) for name in ("train", "validation", "test")
        }
        if config.limit:
            self.splits["train"] = {k: v[: config.limit] for k, v in self.splits["train"].items()}
        if len(self.splits["train"]["image"]) < config.batch_size:
            raise NeurosimError(
                f"batch_size = {config.batch_size} is larger than the {len(self.splits['train']['image'])} training samples."
            )
        options = Options(
            batch=config.batch_size, dt=step_size(config.dt), dtype=config.dtype, device=config.device, codegen=config.codegen,
            progress=False, seed=config.seed, tolerance=config.tolerance, max_sweeps=config.max_sweeps, method=config.solver,
        )  # fmt: skip
        if config.method in REFERENCES:
            from neurosim.training.backprop import BackpropEngine

            self.engine: Any = BackpropEngine(self.circuit, drawn, options, config)
        else:
            self.engine = engine_class(config.level)(self.circuit.plan, drawn, options)
        self.transform: Any = None
        if config.optimiser != "none" or config.method in REFERENCES:
            self._set_transform()
        if config.level.startswith("torch") or config.method in REFERENCES:
            arrays = getattr(self.engine, "arrays", None) or self.engine.net.arrays
            self.splits["train"] = {k: arrays.asarray(v) for k, v in self.splits["train"].items()}

    @cached_property
    def reader(self) -> Any:
        """The engine that `evaluate` asks: it runs no further than the phase of the readout."""
        if self.config.method in REFERENCES:
            return self.engine
        assert self.circuit.readout is not None
        plan = self.circuit.plan.until(self.circuit.readout.phase)
        return type(self.engine)(plan, self.engine.weights(), self.engine.options)

    def _set_transform(self) -> None:
        from neurosim.training.optimisers import Transform

        names = list(self.engine._weights)
        if self.config.method == "circuit":
            rules = {p.rule.rule.name for p in self.circuit.plan.plastic()}
            for name in self.config.optimise:
                if name not in rules:
                    from neurosim.errors import unknown

                    raise unknown("plasticity rule to optimise", name, sorted(rules))
            names = [p.name for p in self.circuit.plan.plastic() if p.rule.rule.name in self.config.optimise]
        self.transform = Transform(self.config, self.engine._weights, names)
        self.engine.transform = self.transform

    # ---------------------------------------------------------------- one epoch

    def epoch(self, number: int, bar: Any = None) -> dict[str, float]:
        """Train one epoch; returns loss and accuracy over its batches (read in the free phase, before each update)."""
        train, batch = self.splits["train"], self.config.batch_size
        order = np.random.default_rng([self.config.seed, 1, number]).permutation(len(train["image"]))
        order = order[: len(order) // batch * batch]
        chunk = batch * (1 if self.config.level == "torch:steady" else BATCHES)
        right = loss = seen = 0.0
        missed = 0
        for start in range(0, len(order), chunk):
            rows = order[start : start + chunk]
            fields = {name: values[rows] for name, values in train.items()}
            result = self.engine.present(fields, learn="on", ends=False)
            missed += result.unsettled
            scores = _score(result.readout, _numpy(fields["target"]))
            right, loss, seen = right + scores[0], loss + scores[1], seen + len(rows)
            if bar is not None:
                bar.update(len(rows) // batch)
                bar.set_postfix(accuracy=f"{right / seen:.3f}", refresh=False)
        if self.transform is not None:
            self.transform.schedule.step()
        return {"train_loss": loss / seen, "train_accuracy": right / seen, "samples": seen, "unsettled": missed}

    def evaluate(self, split: str, measures: bool = False) -> dict[str, Any]:
        """Loss and accuracy of a split with plasticity off, and the circuit's measures."""
        fields, batch = self.splits[split], self.config.batch_size
        count = len(fields["image"])
        # Brian2's groups hold whole batches: fill the last one up with repeats, and leave those out of the score.
        rows = np.arange(-(-count // batch) * batch).clip(max=count - 1)
        if self.reader is not self.engine:
            self.reader.set_weights(self.engine.weights())
        wanted = self.circuit.measures if measures and self.reader is not self.engine else {}
        result = self.reader.present({k: v[rows] for k, v in fields.items()}, learn="off", ends=bool(wanted))
        right, loss = _score(result.readout[:count], _numpy(fields["target"]))
        row: dict[str, Any] = {"accuracy": right / count, "loss": loss / count}
        for name, measure in wanted.items():
            kept = result.ends[measure.phase]
            row[name] = _rms(kept, measure.of) / max(_rms(kept, measure.to), np.finfo(float).tiny)
        return row

    # ---------------------------------------------------------------- the whole run

    def fit(self, folder: Path | None = None) -> list[dict[str, Any]]:
        """Train all epochs; with a folder, metrics and weights are written after each.

        On Ctrl-C or divergence what was reached so far stays in the folder.
        """
        rows: list[dict[str, Any]] = []
        batches = len(self.splits["train"]["image"]) // self.config.batch_size
        epochs = tqdm(total=self.config.epochs, desc="epochs", unit="epoch", disable=not self.progress, position=0)
        try:
            for number in range(1, self.config.epochs + 1):
                started = time.perf_counter()
                with tqdm(
                    total=batches,
                    desc=f"epoch {number}",
                    unit="batch",
                    disable=not self.progress,
                    leave=False,
                    position=1,
                ) as bar:
                    row = self.epoch(number, bar)
                seconds = time.perf_counter() - started
                checked = self.evaluate("validation", measures=True)
                rows.append(
                    {
                        "epoch": number,
                        "train_loss": row["train_loss"],
                        "validation_loss": checked["loss"],
                        "train_accuracy": row["train_accuracy"],
                        "validation_accuracy": checked["accuracy"],
                        **{name: checked.get(name) for name in self.circuit.measures},
                        "unsettled": row["unsettled"],
                        "seconds": seconds,
                        "samples_per_second": row["samples"] / seconds,
                    }
                )
                if folder is not None:  # weights first: a row of metrics then always has weights at least as new
                    save_weights(folder, self.engine.weights())
                    with open(folder / METRICS, "a") as file:
                        file.write(json.dumps(rows[-1]) + "\n")
                epochs.update(1)
                epochs.set_postfix(
                    train=f"{row['train_accuracy']:.3f}", validation=f"{checked['accuracy']:.3f}", refresh=False
                )
        finally:
            epochs.close()
        return rows


def train(
    model: str,
    out: str | os.PathLike[str] | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    data_dir: str | None = None,
    weights: Mapping[str, np.ndarray] | None = None,
    progress: bool = True,
    command: str | None = None,
    **schedule: Any,
) -> Run | dict[str, Any]:
    """Train a model and touch the test set once, at the end.

    Parameters
    ----------
    model
        A name from `neurosim list`, or ``file.py:function``.
    out
        Folder for ``config.toml``, ``metrics.jsonl``, ``result.json``, ``weights.safetensors`` (None: keep nothing).
    settings, schedule
        Settings of the circuit, and keys of `TrainConfig` (``epochs=5``, ``level="brian2:dense"``, ...).
    data_dir
        Where data sets lie.
    weights
        Weights to start from.

    Returns
    -------
    The `Run` of the folder, or its result where nothing is kept.
    """
    config = resolve(model, settings, **schedule)
    started = time.perf_counter()
    trainer = Trainer(config, data_dir, weights, progress)
    folder = Path(out) if out is not None else None
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RESULT).unlink(missing_ok=True)  # of an earlier run that this one overwrites
        write_whole(folder / CONFIG, config.to_toml().encode())
        (folder / METRICS).write_text("")
        save_weights(folder, trainer.engine.weights())
    try:
        rows = trainer.fit(folder)
    except DivergenceError as error:
        kept = f" Metrics and weights of the last whole epoch are kept in {folder}." if folder else ""
        raise NeurosimError(f"{error}{kept}") from error
    test = trainer.evaluate("test")
    result = {
        "model": config.model,
        "data": config.data,
        "level": config.level if config.method == "circuit" else config.method,
        "seed": config.seed,
        "test_accuracy": test["accuracy"],
        "test_loss": test["loss"],
        "validation_accuracy": rows[-1]["validation_accuracy"],
        "seconds": time.perf_counter() - started,
        "command": command or " ".join(sys.argv),
    }
    if folder is None:
        return result
    write_whole(folder / RESULT, (json.dumps(result, indent=2) + "\n").encode())
    return load(folder)


def _score(readout: np.ndarray, targets: np.ndarray) -> tuple[float, float]:
    """Number of right answers and summed loss 1/2 |target - rate|^2."""
    right = float((readout.argmax(axis=1) == targets.argmax(axis=1)).sum())
    with np.errstate(over="ignore"):  # a net that diverges is reported by its engine
        return right, float(0.5 * ((targets - readout) ** 2).sum())


def _rms(kept: dict[str, np.ndarray], names: tuple[str, ...]) -> float:
    values = np.concatenate([kept[n].ravel() for n in names])
    return float(np.sqrt((values.astype(np.float64) ** 2).mean()))


def _numpy(values: Any) -> np.ndarray:
    return values.cpu().numpy() if hasattr(values, "cpu") else values
