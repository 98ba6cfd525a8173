"""The training loop, the same for every level and for the plain references.

It can stop between any two batches and go on.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from neurosim import registry
from neurosim.backends import STEADY, engine_class
from neurosim.backends.engine import Options
from neurosim.backends.settings import named_overflow
from neurosim.backends.torch.workers import Workers
from neurosim.circuit import Circuit
from neurosim.files import user_path
from neurosim.simulation import step_size
from neurosim.training import checkpoint
from neurosim.training.backprop import BackpropEngine
from neurosim.training.config import TrainConfig
from neurosim.training.divergence import check_collapse, cure
from neurosim.training.interrupt import stop_between
from neurosim.training.measures import Measures
from neurosim.training.optimisers import transform_of
from neurosim.training.recording import TrainingRecording
from neurosim.training.requirements import (
    check_batches,
    check_circuit,
    check_evolved,
    check_picture,
    check_workers,
    readout_of,
)
from neurosim.training.run import BEST, save_weights, write_rows
from neurosim.training.score import Evaluator, classifies, score
from neurosim.training.splits import Splits
from neurosim.training.state import (
    Position,
    State,
    check_same_config,
    check_same_weights,
    learnt,
    restore_learnt,
)
from neurosim.training.track import Tracker

#: Batches in one call of a trajectory engine: each call has a start-up cost, and the progress bar
#: moves between calls.
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

    Attributes
    ----------
    state
        Where the run stands, and what it has reached.
    splits
        The data, by split and field.
    tracker
        What shows the run while it goes on, or None.
    """

    def __init__(
        self,
        config: TrainConfig,
        data_dir: str | None = None,
        weights: Mapping[str, np.ndarray] | None = None,
        progress: bool = True,
    ):
        self.config = config
        model = registry.model(config.model, "The configuration")
        self.circuit = model.circuit(config.settings)
        self.readout = readout_of(self.circuit)
        if weights is None:
            check_evolved(config, self.circuit)
        self.classifies = classifies(self.readout)
        check_circuit(config, self.circuit, self.classifies)
        self.workers = Workers(config.device)
        check_workers(config, self.workers)
        self.progress = progress and self.workers.first
        dataset = config.dataset(data_dir)
        if not self.classifies:
            check_picture(self.circuit, self.readout, dataset)
        drawn = weights if weights is not None else self.circuit.initial_weights(config.seed)
        self.splits = Splits(config, dataset, self.circuit)
        check_batches(config, self.splits, self.workers)
        self.engine = _engine(config, self.circuit, dict(drawn), self.workers)
        self.transform = transform_of(config, self.circuit.plan, self.engine._weights)
        if self.transform is not None:
            self.engine.transform = self.transform
        if config.level.startswith("torch"):
            self.splits.convert(self.engine.arrays.asarray)
        self.measures = Measures(self.circuit, not config.is_reference, self.workers)
        self._evaluator = Evaluator(
            config,
            self.circuit,
            self.engine,
            self.workers,
            self.measures,
        )
        plan, size = self.circuit.plan, self.workers.size
        self.recording = TrainingRecording(config, plan, self.splits, size)
        self.tracker: Tracker | None = None
        self.state = State()
        self._chunk = 1 if config.is_settled else BATCHES
        self._relaxed = _relaxed(config, self.circuit)

    @property
    def at(self) -> Position:
        """Where the run stands."""
        return self.state.at

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """A row per epoch that ended: what the run reached, the same whenever it is repeated."""
        return self.state.metrics

    @property
    def timing(self) -> list[dict[str, Any]]:
        """A row per epoch that ended: how fast it was."""
        return self.state.timing

    @property
    def best(self) -> dict[str, np.ndarray]:
        """With ``select = "best"``, the weights of the best epoch so far."""
        return self.state.best

    @property
    def selected(self) -> dict[str, Any]:
        """The row of metrics of the epoch that the result is of."""
        return self.state.selected(self.config.select)

    @property
    def followed(self) -> str:
        """The split that is followed from epoch to epoch."""
        return self.splits.followed

    @property
    def batches(self) -> int:
        """Of an epoch, the last incomplete one where it is kept."""
        return self.splits.batches

    # ---------------------------------------------------------------- one epoch

    def epoch(
        self,
        number: int,
        bar: Any = None,
        between: Callable[[], None] | None = None,
    ) -> dict[str, Any]:
        """Train one epoch, or the rest of the one in which the run stands.

        `between` is called after each call of the engine. Returns loss and accuracy (of a circuit
        that classifies) over the epoch's batches, read in the readout's phase, before each update.
        """
        if self.at.epoch != number:
            self.state.at = Position(number)
        if self.transform is not None:
            self.transform.begin_epoch(number)
        order = self.splits.order(number)
        for first in range(self.at.batches, self.batches, self._chunk):
            last = min(first + self._chunk, self.batches)
            self._train(order, first, last)
            if bar is not None:
                bar.update(last - first)
                what, text = self._shown(self.at.row(self.classifies), "train")
                bar.set_postfix({what: text}, refresh=False)
            if between is not None:
                between()
        return self.at.row(self.classifies)

    def _train(self, order: np.ndarray, first: int, last: int) -> None:
        """Train some batches of the present epoch."""
        at, started = self.at, time.perf_counter()
        rows = order[first * self.config.batch_size : last * self.config.batch_size]
        fields = self.splits.training(rows, at.epoch, first)
        if self.workers.size > 1:  # one batch a call
            own = self.workers.share(len(rows))
            fields = {name: values[own] for name, values in fields.items()}
        with named_overflow(cure(self.config)):
            result = self.engine.present(fields, learn="on", ends=False, record=self.recording.open)
        wanted = fields[self.readout.wanted]
        right, loss = score(self.readout, result.readout, wanted)
        samples = len(wanted)
        at.add(*self.workers.total(right, loss, samples, result.unsettled, result.unstable))
        for phase in self._relaxed:
            at.residual[phase] = max(at.residual.get(phase, 0.0), result.settling[phase])
        at.batches, at.seconds = last, at.seconds + time.perf_counter() - started

    def evaluate(self, split: str, measures: bool = False) -> dict[str, Any]:
        """Loss and accuracy (of a circuit that classifies) of a split, plasticity off.

        With `measures`, those of the circuit's states as well.
        """
        return self._evaluator.evaluate(self.splits[split], measures)

    def weight_measures(self) -> dict[str, float | None]:
        """Measures of the circuit's weights; those that a reference net lacks are left out."""
        return self.measures.read_weights(self.engine.weights() if self.measures.all else {})

    def check_measures(self) -> None:
        """Raise `DivergenceError` where a measure says that the run diverges.

        Reads what `weight_measures` and the last row of metrics found.
        """
        self.measures.check(self.metrics[-1] if self.metrics else {})

    # ---------------------------------------------------------------- the whole run

    def fit(self, folder: Path | None = None) -> list[dict[str, Any]]:
        """Train the epochs that are left; returns the rows of metrics.

        With a folder, metrics and weights are written after each, and checkpoints between. On
        Ctrl-C (or SIGTERM) a checkpoint is written first; on divergence the folder keeps the last
        one.
        """
        folder = user_path(folder) if folder is not None and self.workers.first else None
        with contextlib.ExitStack() as opened, stop_between("the present batches") as stop:
            done, total = self.at.epoch - 1, self.config.epochs
            bar = _bar("epochs", "epoch", done, total, shown=self.progress)
            opened.enter_context(bar)
            opened.callback(self.recording.close)
            self.recording.begin(folder, self.engine.options)
            between = self._between(folder, stop)
            for number in range(self.at.epoch, total + 1):
                shown = self._fit_epoch(number, folder, between)
                between()
                bar.update(1)
                bar.set_postfix(shown, refresh=False)
            self.recording.complete(self.engine.weights)
        if folder is not None:
            self.save_checkpoint(folder)
        return self.metrics

    def _fit_epoch(
        self,
        number: int,
        folder: Path | None,
        between: Callable[[], None],
    ) -> dict[str, str]:
        """Train, evaluate and write an epoch; returns what the progress bar shows of it."""
        done, total, shown = self.at.batches, self.batches, self.progress
        with _bar(f"epoch {number}", "batch", done, total, shown=shown, inner=True) as bar:
            row = self.epoch(number, bar, between)
        seconds = self.at.seconds
        checked = self.evaluate(self.followed, measures=True)
        self.metrics.append(self._row(number, row, checked))
        speed = row["samples"] / seconds
        self.timing.append({"epoch": number, "seconds": seconds, "samples_per_second": speed})
        self.state.at = Position(number + 1)
        if self.config.select == "best" and self.selected is self.metrics[-1]:
            self.state.best = self.engine.weights()
            if folder is not None:
                save_weights(folder, self.best, BEST)
        if folder is not None:
            # Weights first: a row of metrics then always has weights at least as new.
            save_weights(folder, self.engine.weights())
            write_rows(folder, self.metrics, self.timing)
        self._track(number)
        self.check_measures()
        check_collapse(self.metrics, self.config)
        splits = ("train", self.followed)
        return {split: self._shown(self.metrics[-1], split)[1] for split in splits}

    def _row(self, number: int, row: dict[str, Any], checked: dict[str, Any]) -> dict[str, Any]:
        """The metrics of an epoch: what was trained, the split that is followed, measures."""
        names, last = self.measures.all, ("unsettled", "unstable", "residual")
        scores = ("loss", "accuracy") if self.classifies else ("loss",)
        found: dict[str, Any] = {"epoch": number}
        for what in scores:
            found[f"train_{what}"] = row[f"train_{what}"]
            found[f"{self.followed}_{what}"] = checked[what]
        found |= dict.fromkeys(names)
        found |= {name: checked[name] for name in names if name in checked}
        found |= self.weight_measures()
        return found | {key: row[key] for key in last if key in row}

    def _shown(self, row: Mapping[str, Any], split: str) -> tuple[str, str]:
        """What progress bars show of a split: the name of a score, and its value."""
        what, form = ("accuracy", ".3f") if self.classifies else ("loss", ".4g")
        return what, format(row[f"{split}_{what}"], form)

    def _track(self, number: int) -> None:
        """Show an epoch that ended."""
        if self.tracker is not None:
            self.tracker.row(number, {**self.metrics[-1], **self.timing[-1]})
            if self.recording.open is not None:
                self.tracker.recorded(number, self.recording.open.so_far())

    def _between(self, folder: Path | None, stop: threading.Event) -> Callable[[], None]:
        """What is done between calls of the engine: checkpoints; the end, where it is asked for."""
        due = time.monotonic() + self.config.checkpoint

        def between() -> None:
            nonlocal due
            (stopped,) = self.workers.total(float(stop.is_set()))
            if folder is not None and (stopped or time.monotonic() >= due):
                self.save_checkpoint(folder)
                due = time.monotonic() + self.config.checkpoint
            if stopped:
                raise KeyboardInterrupt

        return between

    # ---------------------------------------------------------------- checkpoints

    def save_checkpoint(self, folder: Path) -> None:
        """Write everything that the rest of the run depends on."""
        arrays, counts = learnt(self.engine, self._evaluator.reader, self.transform)
        state = {
            "config": self.config.to_toml(),
            **self.state.written(),
            **counts,
            "recording": self.recording.position(),
        }
        arrays |= checkpoint.under("best", self.best)
        checkpoint.save(user_path(folder), arrays, state)

    def restore(self, folder: Path) -> None:
        """Take up the checkpoint of a run folder; metrics are written anew, up to it."""
        folder = user_path(folder)
        arrays, state = checkpoint.load(folder)
        path = folder / checkpoint.NAME
        check_same_config(state["config"], self.config, path)
        check_same_weights(arrays, self.engine.weights(), path, self.config.model)
        restore_learnt(self.engine, self._evaluator.reader, self.transform, arrays, state)
        self.recording.restore(state.get("recording"))
        self.state = State.read(state, checkpoint.part("best", arrays), path)
        if self.workers.first:
            write_rows(folder, self.metrics, self.timing)
            (folder / BEST).unlink(missing_ok=True)
            if self.best:
                save_weights(folder, self.best, BEST)


def _engine(
    config: TrainConfig,
    circuit: Circuit,
    weights: dict[str, np.ndarray],
    workers: Workers,
) -> Any:
    """The engine that learns."""
    options = Options(
        batch=config.batch_size // workers.size,
        dt=step_size(config.dt),
        dtype=config.dtype,
        device=workers.device,
        codegen=config.codegen,
        progress=False,
        seed=config.seed,
        tolerance=config.tolerance,
        max_sweeps=config.max_sweeps,
        method=config.solver,
    )
    if config.is_reference:
        engine: Any = BackpropEngine(circuit, weights, options, config)
    else:
        engine = engine_class(config.level)(circuit.plan, weights, options)
    if workers.size > 1:
        engine.workers = workers
    return engine


def _relaxed(config: TrainConfig, circuit: Circuit) -> tuple[str, ...]:
    """Phases that follow a published relaxation, whose residuals are reported."""
    scheme = circuit.relaxation
    if scheme is None or config.solver != "relaxation" or config.level != STEADY:
        return ()
    return tuple(scheme.sweeps) if not config.is_reference else ()


def _bar(what: str, unit: str, done: int, total: int, *, shown: bool, inner: bool = False) -> tqdm:
    """A progress bar; an inner one stands below another and goes away."""
    return tqdm(
        total=total,
        initial=done,
        desc=what,
        unit=unit,
        disable=not shown,
        leave=not inner,
        position=int(inner),
    )
