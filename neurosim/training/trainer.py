"""The training loop: the same for every level and for the plain references; it can stop between any two batches and go on."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from neurosim import registry
from neurosim.analysis.weights import angle, eigenvalues
from neurosim.backends import engine_class
from neurosim.backends.engine import Options
from neurosim.backends.settings import named_overflow
from neurosim.backends.torch.workers import Workers
from neurosim.checks import check_fields
from neurosim.data.augment import Augment
from neurosim.data.normalise import black
from neurosim.description import Angle, Given, Ratio, Silent, SmallestEigenvalue
from neurosim.errors import DivergenceError, NeurosimError, unknown
from neurosim.files import user_path, write_whole
from neurosim.simulation import step_size, versions
from neurosim.stimuli import call, check_short, stimulus_fields
from neurosim.traces import Recorder
from neurosim.traces.recording import Recording
from neurosim.training import checkpoint
from neurosim.training.config import REFERENCES, TrainConfig
from neurosim.training.interrupt import stop_between
from neurosim.training.run import (
    BEST,
    CONFIG,
    METRICS,
    RECORDING,
    TIMING,
    as_lines,
    save_weights,
)
from neurosim.training.track import Tracker

#: Batches in one call of a trajectory engine: each call has a start-up cost, and the progress bar moves between calls.
BATCHES = 50
#: Stands in a checkpoint whose recording is complete.
WHOLE = "whole"
#: Weights count as indefinite where their smallest eigenvalue is below this share of the largest (rounding reaches 1e-7 in float32).
INDEFINITE = 1e-4


@dataclass
class Position:
    """Where a run stands: the present epoch (from 1), how many of its batches are done, their sums, their seconds."""

    epoch: int = 1
    batches: int = 0
    right: float = 0.0
    loss: float = 0.0
    samples: float = 0.0
    unsettled: float = 0.0
    unstable: float = 0.0
    seconds: float = 0.0
    residual: dict[str, float] = field(default_factory=dict)  # of a published relaxation, the largest by phase


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
    at
        Where the run stands.
    metrics, timing
        A row per epoch that ended: what the run reached (the same whenever it is repeated), and how fast.
    tracker
        What shows the run while it goes on, or None.
    best
        With ``select = "best"``, the weights of the epoch with the lowest validation loss; empty before the first one has ended.
    """

    def __init__(
        self, config: TrainConfig, data_dir: str | None = None, weights: Mapping[str, np.ndarray] | None = None,
        progress: bool = True,
    ):  # fmt: skip
        self.config = config
        self.circuit = registry.model(config.model, "The configuration").circuit(config.settings)
        readout = self.circuit.readout
        if readout is None:
            raise NeurosimError(
                f"The circuit '{self.circuit.name}' names no readout, so it cannot be trained to classify. `neurosim simulate` with plasticity on "
                "(the default) lets its rules learn from the stimuli that it shows; to train, give the circuit a readout=Readout(...)."
            )
        self.readout = readout
        check_short(
            self.circuit, "training presents", f"Run it with {call(self.circuit)}, or clamp its inputs to these two."
        )
        given = {q.name for q in self.circuit.projections if isinstance(q.weights, Given)}
        if config.method == "circuit" and weights is None and not set(self.circuit.evolved) <= given:
            raise NeurosimError(
                f"The weights {', '.join(self.circuit.evolved[:2])}, ... of '{self.circuit.name}' are to be found by evolution, and these would be drawn at "
                f"random. `neurosim evolve {config.model} --out DIR` finds some, for credits = DIR (tdca: --credits DIR, or bp, fa, dfa)."
            )
        #: Whether answers are classes, which are right or wrong; a picture has a loss only.
        self.classifies = readout.wanted == "target"
        self._shown = ("accuracy", ".3f") if self.classifies else ("loss", ".4g")  # by progress bars
        if not self.classifies and config.collapse is not None:
            raise NeurosimError(
                f"collapse = {config.collapse} watches the training accuracy, and the answer of '{self.circuit.name}' is a picture, which has none. "
                "Use --set collapse=none."
            )
        if not self.circuit.protocol.reset:
            raise NeurosimError(
                f"The states of '{self.circuit.name}' outlive a trial (Protocol.reset = False), which has no meaning for shuffled "
                "samples; train needs reset = True."
            )
        steady = config.level == "torch:steady" or config.method in REFERENCES
        self.workers = Workers(config.device)
        if self.workers.size > 1 and not steady:
            raise NeurosimError(
                f"{config.level} runs in one process: its rules move the weights in every step. Several workers share a batch on "
                "torch:steady, or run one training each with `neurosim sweep`."
            )
        self.progress = progress and self.workers.first
        self.workers.share(config.batch_size)  # complains where it cannot be shared
        dataset = config.dataset(data_dir)
        self.augment: Any = None
        if config.crop or config.flip:
            fill = black(dataset.name, config.normalise)
            self.augment = Augment(dataset.shape, config.crop, config.flip, fill, config.padding)
        cells = self.circuit.plan.populations[readout.variable.partition(".")[0]].n
        if not self.classifies and cells != np.prod(dataset.shape):
            raise NeurosimError(
                f"The readout '{readout.variable}' of '{self.circuit.name}' has {cells} cells, and the answer is an image of "
                f"{np.prod(dataset.shape)} pixels; wanted equal numbers: read another population, or set sizes to end with that number."
            )
        drawn = dict(weights) if weights is not None else self.circuit.initial_weights(config.seed)
        self.splits = {
            name: stimulus_fields(self.circuit, *dataset.split(name)) for name in ("train", "validation", "test")
        }
        #: The split that is followed from epoch to epoch.
        self.followed = "validation" if config.hold_out else "test"
        if not config.hold_out:
            held = self.splits.pop("validation")
            self.splits["train"] = {k: np.concatenate([v, held[k]]) for k, v in self.splits["train"].items()}
        if config.limit:
            self.splits["train"] = {k: v[: config.limit] for k, v in self.splits["train"].items()}
        if len(self.splits["train"]["image"]) < config.batch_size:
            raise NeurosimError(
                f"batch_size = {config.batch_size} is larger than the {len(self.splits['train']['image'])} training samples."
            )
        if config.last_batch == "keep" and self.rest % self.workers.size:
            raise NeurosimError(
                f"last_batch = 'keep': the last batch of an epoch has {self.rest} samples, which "
                f"{self.workers.size} workers cannot share; wanted a multiple. Use --set "
                "last_batch=drop, or another batch_size or number of workers."
            )
        options = Options(
            batch=config.batch_size // self.workers.size, dt=step_size(config.dt), dtype=config.dtype,
            device=self.workers.device, codegen=config.codegen, progress=False, seed=config.seed, tolerance=config.tolerance,
            max_sweeps=config.max_sweeps, method=config.solver,
        )  # fmt: skip
        if config.method in REFERENCES:
            from neurosim.training.backprop import BackpropEngine

            self.engine: Any = BackpropEngine(self.circuit, drawn, options, config)
        else:
            self.engine = engine_class(config.level)(self.circuit.plan, drawn, options)
        self.transform: Any = None
        if config.optimiser != "none":
            self._set_transform()
        if self.workers.size > 1:
            self.engine.workers = self.workers
        if config.level.startswith("torch") or config.method in REFERENCES:
            self.splits["train"] = {k: self.engine.arrays.asarray(v) for k, v in self.splits["train"].items()}
        self.chunk = 1 if steady else BATCHES
        self.spectra: dict[
            str, tuple[float, float]
        ] = {}  # smallest and largest eigenvalue of weights that a measure names
        self.recorder = self._recorder()
        self.recording: Recording | None = None
        self.tracker: Tracker | None = None
        self._recorded: Any = None  # where the recording of a run that goes on stood
        self.at = Position()
        self.metrics: list[dict[str, Any]] = []
        self.timing: list[dict[str, Any]] = []
        self.best: dict[str, np.ndarray] = {}

    @property
    def batches(self) -> int:
        """Of an epoch, the last incomplete one where it is kept."""
        whole = len(self.splits["train"]["image"]) // self.config.batch_size
        return whole + (self.config.last_batch == "keep" and self.rest > 0)

    @property
    def rest(self) -> int:
        """Training samples that fill no batch."""
        return len(self.splits["train"]["image"]) % self.config.batch_size

    def _recorder(self) -> Recorder | None:
        """By the configuration; None where nothing is recorded."""
        if not self.config.recorder:
            return None
        if self.workers.size > 1:
            raise NeurosimError("A recording is of one process; leave recorder out, or train without torchrun.")
        recorder = Recorder(**{"trials": self.batches, **self.config.recorder})
        variables = recorder.resolve(self.circuit.plan).variables
        if variables and self.rest and self.config.last_batch == "keep":
            # Trial k*batches - 1, counted from 0 through the run, is the smaller one of epoch k.
            ends = (number * self.batches - 1 for number in range(1, self.config.epochs + 1))
            if any(trial % recorder.trials == 0 for trial in ends):
                raise NeurosimError(
                    f"recorder with trials = {recorder.trials} would come to the last batch of an "
                    f"epoch, which last_batch = 'keep' makes one of {self.rest} samples; a recording "
                    "holds batches of one size. Leave trials out (the first batch of each epoch), or "
                    "use --set last_batch=drop."
                )
        return recorder

    def _record(self, folder: Path | None) -> Recording | None:
        """The recording of this run, in its folder; that of a run that goes on, up to its checkpoint."""
        if self.recorder is None or self._recorded == WHOLE:
            return None
        if folder is None:
            raise NeurosimError(
                f"recorder wants a run folder, where {RECORDING} is written; give out (--out DIR), or leave recorder out."
            )
        options = self.engine.options
        metadata = {
            **self.config.labels,
            "dt": self.config.dt,
            "trials_per_epoch": self.batches,
            "versions": versions(),
        }
        return Recording(
            replace(self.recorder, path=folder / RECORDING), self.circuit.plan, options.batch, options.dt, options.dtype, metadata, self._recorded
        )  # fmt: skip

    @cached_property
    def reader(self) -> Any:
        """The engine that `evaluate` asks: it runs no further than the phase of the readout."""
        if self.config.method in REFERENCES:
            return self.engine
        plan = self.circuit.plan.until(self.readout.phase)
        reader = type(self.engine)(plan, self.engine.weights(), self.engine.options)
        if self.workers.size > 1:  # on the steady level a batch settles as a whole
            reader.workers = self.workers
        return reader

    def _set_transform(self) -> None:
        from neurosim.training.optimisers import Transform

        optimised = dict.fromkeys(self.engine._weights, "")  # a reference net has no rules
        if self.config.method == "circuit":
            rules = {rule.name for _, rule in self.circuit.plan.plastic()}
            chosen = self.config.optimise
            if chosen == ("feedforward",) and "feedforward" not in rules:  # a model of the user's own
                chosen = tuple(rule.name for _, rule in self.circuit.plan.plastic() if rule.exact is None)
            for name in chosen:
                if name not in rules:
                    raise unknown("plasticity rule to optimise", name, sorted(rules))
            for p, rule in self.circuit.plan.plastic():
                if rule.exact is not None and rule.name in chosen:
                    raise NeurosimError(
                        f"optimise names '{rule.name}', whose exact form gives the weights of '{p.name}' and no change that an optimiser "
                        "could transform; leave it out."
                    )
            plastic = {p.name: rule.name for p, rule in self.circuit.plan.plastic()}
            optimised = {name: rule for name, rule in plastic.items() if rule in chosen}
        self.transform = Transform(self.config, self.engine._weights, optimised)
        self.engine.transform = self.transform

    # ---------------------------------------------------------------- one epoch

    def epoch(self, number: int, bar: Any = None, between: Callable[[], None] | None = None) -> dict[str, Any]:
        """Train one epoch, or the rest of the one in which the run stands; `between` is called after each call of the engine.

        Returns loss and accuracy (of a circuit that classifies) over its batches, read in the readout's phase, before each update.
        """
        if self.at.epoch != number:
            self.at = Position(number)
        at, train, batch = self.at, self.splits["train"], self.config.batch_size
        if self.transform is not None:
            self.transform.begin_epoch(number)
        order = np.random.default_rng([self.config.seed, 1, number]).permutation(len(train["image"]))
        for first in range(at.batches, self.batches, self.chunk):
            last = min(first + self.chunk, self.batches)
            started = time.perf_counter()
            rows = order[first * batch : last * batch]
            fields = {name: values[rows] for name, values in train.items()}
            if self.augment is not None:
                fields["image"] = self._augmented(fields["image"], [self.config.seed, 4, number, first])
            if self.workers.size > 1:  # one batch a call
                own = self.workers.share(len(rows))
                fields = {name: values[own] for name, values in fields.items()}
            with named_overflow(self._cure()):
                result = self.engine.present(fields, learn="on", ends=False, record=self.recording)
            wanted = _numpy(fields[self.readout.wanted])
            right, loss = self._score(result.readout, wanted)
            sums = self.workers.total(right, loss, len(wanted), result.unsettled, result.unstable)
            before = at.right, at.loss, at.samples, at.unsettled, at.unstable
            at.right, at.loss, at.samples, at.unsettled, at.unstable = (
                old + new for old, new in zip(before, sums, strict=True)
            )
            for phase in self._relaxed:
                at.residual[phase] = max(at.residual.get(phase, 0.0), result.settling[phase])
            at.batches, at.seconds = last, at.seconds + time.perf_counter() - started
            if bar is not None:
                bar.update(last - first)
                what, form = self._shown
                value = (at.right if self.classifies else at.loss) / at.samples
                bar.set_postfix({what: format(value, form)}, refresh=False)
            if between is not None:
                between()
        accuracy = {"train_accuracy": at.right / at.samples} if self.classifies else {}
        return {
            "train_loss": at.loss / at.samples, **accuracy, "samples": at.samples,
            "unsettled": int(at.unsettled), "unstable": int(at.unstable), **({"residual": dict(at.residual)} if self._relaxed else {}),
        }  # fmt: skip

    @cached_property
    def _relaxed(self) -> tuple[str, ...]:
        """Phases that follow a published relaxation, whose residuals are reported."""
        scheme = self.circuit.relaxation
        if scheme is None or self.config.solver != "relaxation" or self.config.level != "torch:steady":
            return ()
        return tuple(scheme.sweeps) if self.config.method not in REFERENCES else ()

    def _augmented(self, images: Any, seed: list[int]) -> Any:
        """Training images, shifted and mirrored by a seed of this call of the engine."""
        if isinstance(images, torch.Tensor):
            return self.augment(images, seed)
        return self.augment(torch.from_numpy(images), seed).numpy()  # Brian2's levels

    def evaluate(self, split: str, measures: bool = False) -> dict[str, Any]:
        """Loss and accuracy (of a circuit that classifies) of a split with plasticity off, and the circuit's measures."""
        fields, batch = self.splits[split], self.engine.options.batch
        total = len(fields["image"])
        own = np.arange(self.workers.rank, total, self.workers.size)
        # Brian2's groups hold whole batches: the first samples fill the last one, and are left out of the score there.
        # Workers take turns, so that together they hold the batches of one process (a circuit may pool over a batch).
        filled = -(-total // (batch * self.workers.size)) * batch * self.workers.size
        rows = np.arange(self.workers.rank, filled, self.workers.size) % total
        weights = self.engine.weights()
        for name, values in weights.items():
            if not np.isfinite(values).all():
                raise DivergenceError(f"The weights of '{name}' hold NaN or infinity. {self._cure()}")
        if self.reader is not self.engine:
            self.reader.set_weights(weights)
        measured = self._of_states() if measures else {}
        with named_overflow(self._cure()):
            result = self.reader.present({k: v[rows] for k, v in fields.items()}, learn="off", ends=bool(measured))
        score = self._score(result.readout[: len(own)], _numpy(fields[self.readout.wanted][own]))
        right, loss = self.workers.total(*score)
        if not np.isfinite(loss):
            raise DivergenceError(f"The loss is {loss}. {self._cure()}")
        row: dict[str, Any] = {**({"accuracy": right / total} if self.classifies else {}), "loss": loss / total}
        for name, measure in measured.items():
            kept = result.ends[measure.phase]
            if isinstance(measure, Silent):
                active = self.workers.total(*(kept[measure.variable][: len(own)] != 0).sum(axis=0).tolist())
                row[name] = active.count(0)
                continue
            sums = [x for names in (measure.of, measure.to) for x in _squares(kept, names, len(own))]
            of, of_count, to, to_count = self.workers.total(*sums)
            row[name] = float(np.sqrt(of / of_count) / max(np.sqrt(to / to_count), np.finfo(float).tiny))
        return row

    def _cure(self) -> str:
        """What to lower where training diverges: factors of the changes, and numbers that are far from the usual."""
        config = self.config
        factors: dict[str, Any] = {}
        if config.optimiser != "none":
            factors = {"learning_rate": config.learning_rate} | {
                f"learning_rates.{rule}": rate for rule, rate in config.learning_rates.items()
            }
            factors |= {"weight_decay": config.weight_decay} if config.weight_decay else {}
        numbers = {k: v for k, v in config.settings.items() if isinstance(v, float) and v}
        factors |= {k: v for k, v in numbers.items() if abs(v) >= 1e9 or k.startswith("eta")}
        raised = {k: v for k, v in numbers.items() if abs(v) <= 1e-9 and k not in factors}
        lower, higher = (", ".join(f"{k} = {v:g}" for k, v in found.items()) for found in (factors, raised))
        return f"Lower {lower or 'the factors of the rules'}{', or raise ' + higher if higher else ''}."

    def _score(self, answers: np.ndarray, wanted: np.ndarray) -> tuple[float, float]:
        """Number of right answers (0 where there are no classes) and summed loss, see `Readout`."""
        right = float((answers.argmax(axis=1) == wanted.argmax(axis=1)).sum()) if self.classifies else 0.0
        with np.errstate(over="ignore"):  # a net that diverges is reported by its engine
            if self.readout.loss == "cross_entropy":
                logs = np.log(np.maximum(answers, np.finfo(answers.dtype).tiny))
                return right, float((wanted * -logs).sum())
            squares = float(((wanted - answers) ** 2).sum())
            return right, squares / answers.shape[1] if self.readout.loss == "mean_squared" else 0.5 * squares

    def _of_states(self) -> dict[str, Ratio | Silent]:
        """Measures of the circuit's states; a reference net has none."""
        if self.config.method in REFERENCES:
            return {}
        return {name: m for name, m in self.circuit.measures.items() if isinstance(m, Ratio | Silent)}

    def weight_measures(self) -> dict[str, float | None]:
        """Measures of the circuit's weights; those that a reference net lacks are left out."""
        found: dict[str, float | None] = {}
        self.spectra.clear()
        weights = self.engine.weights() if self.circuit.measures else {}
        for name, measure in self.circuit.measures.items():
            if isinstance(measure, Angle) and measure.of in weights:
                degrees = angle(weights[measure.of], weights[measure.to].T)
                found[name] = degrees if np.isfinite(degrees) else None  # weights of 0 have no direction
            elif isinstance(measure, SmallestEigenvalue) and measure.of in weights:
                self.spectra[measure.of] = eigenvalues(weights[measure.of])
                found[name] = self.spectra[measure.of][0]
        return found

    def _check_collapse(self) -> None:
        if self.config.collapse is None:
            return
        accuracies = [row["train_accuracy"] for row in self.metrics]
        if accuracies[-1] < max(accuracies) - self.config.collapse:
            raise DivergenceError(
                f"The training accuracy fell from {max(accuracies):.3f} to {accuracies[-1]:.3f} in epoch {len(accuracies)}: the net collapsed. "
                "Let the learning rates decay faster, or lower them (a new run with --set collapse=none would go on)."
            )

    def check_measures(self) -> None:
        """Raise `DivergenceError` where weights that must be positive definite no longer are, or a ratio has passed its limit.

        Reads what `weight_measures` and the last row of metrics found.
        """
        for measure in self.circuit.measures.values():
            if isinstance(measure, SmallestEigenvalue) and measure.of in self.spectra:
                low, high = self.spectra[measure.of]
                if not low >= -INDEFINITE * high:
                    what = f"are no longer positive definite: eigenvalues from {low:.3g} to {high:.3g}"
                    what = "hold NaN or infinity" if np.isnan(low) else what
                    raise DivergenceError(f"The weights {measure.of} {what}. {_sentence(measure.cure)}")
        for name, measure in self.circuit.measures.items() if self.metrics else ():
            value = self.metrics[-1].get(name)
            if (
                isinstance(measure, Ratio)
                and measure.limit is not None
                and value is not None
                and not value <= measure.limit
            ):
                raise DivergenceError(f"{name} is {value:.3g}, above {measure.limit:g}. {_sentence(measure.cure)}")

    # ---------------------------------------------------------------- the whole run

    def fit(self, folder: Path | None = None) -> list[dict[str, Any]]:
        """Train the epochs that are left; with a folder, metrics and weights are written after each, and checkpoints between.

        Returns the rows of metrics. On Ctrl-C (or SIGTERM) a checkpoint is written first; on divergence the folder keeps the last one.
        """
        folder = user_path(folder) if folder is not None and self.workers.first else None
        epochs = tqdm(
            total=self.config.epochs, initial=self.at.epoch - 1, desc="epochs", unit="epoch", disable=not self.progress, position=0,
        )  # fmt: skip
        with contextlib.closing(epochs), contextlib.ExitStack() as opened, stop_between("the present batches") as stop:
            self.recording = self._record(folder)
            if self.recording is not None:
                opened.callback(self.recording.close)
            due = time.monotonic() + self.config.checkpoint

            def between() -> None:
                nonlocal due
                (stopped,) = self.workers.total(float(stop.is_set()))
                if folder is not None and (stopped or time.monotonic() >= due):
                    self.save_checkpoint(folder)
                    due = time.monotonic() + self.config.checkpoint
                if stopped:
                    raise KeyboardInterrupt

            for number in range(self.at.epoch, self.config.epochs + 1):
                done = self.at.batches
                with tqdm(
                    total=self.batches,
                    initial=done,
                    desc=f"epoch {number}",
                    unit="batch",
                    disable=not self.progress,
                    leave=False,
                    position=1,
                ) as bar:
                    row = self.epoch(number, bar, between)
                seconds = self.at.seconds
                checked = self.evaluate(self.followed, measures=True)
                self.metrics.append(
                    {
                        "epoch": number,
                        "train_loss": row["train_loss"],
                        f"{self.followed}_loss": checked["loss"],
                        **({"train_accuracy": row["train_accuracy"]} if self.classifies else {}),
                        **({f"{self.followed}_accuracy": checked["accuracy"]} if self.classifies else {}),
                        **{name: None for name in self.circuit.measures},
                        **{name: checked[name] for name in self.circuit.measures if name in checked},
                        **self.weight_measures(),
                        **{key: row[key] for key in ("unsettled", "unstable", "residual") if key in row},
                    }
                )
                self.timing.append(
                    {"epoch": number, "seconds": seconds, "samples_per_second": row["samples"] / seconds}
                )
                self.at = Position(number + 1)
                if self.config.select == "best" and self.selected is self.metrics[-1]:
                    self.best = self.engine.weights()
                    if folder is not None:
                        save_weights(folder, self.best, BEST)
                if folder is not None:  # weights first: a row of metrics then always has weights at least as new
                    save_weights(folder, self.engine.weights())
                    self._write_rows(folder)
                if self.tracker is not None:
                    self.tracker.row(number, {**self.metrics[-1], **self.timing[-1]})
                    if self.recording is not None:
                        self.tracker.recorded(number, self.recording.so_far())
                self.check_measures()
                self._check_collapse()
                between()
                epochs.update(1)
                what, form = self._shown
                shown = {"train": format(row[f"train_{what}"], form), self.followed: format(checked[what], form)}
                epochs.set_postfix(shown, refresh=False)
            if self.recording is not None:
                self.recording.close(self.engine.weights().__getitem__)
                self.recording, self._recorded = None, WHOLE
        if folder is not None:
            self.save_checkpoint(folder)
        return self.metrics

    @property
    def selected(self) -> dict[str, Any]:
        """The row of metrics of the epoch that the result is of."""
        if self.config.select == "last":
            return self.metrics[-1]
        return min(self.metrics, key=lambda row: row["validation_loss"])

    # ---------------------------------------------------------------- checkpoints

    def save_checkpoint(self, folder: Path) -> None:
        """Write everything that the rest of the run depends on."""
        tensors = {f"weights/{n}": w for n, w in self.engine.weights().items()}
        tensors |= {f"best/{n}": w for n, w in self.best.items()}
        if self.transform is not None:
            tensors |= {f"optimiser/{n}": w for n, w in self.transform.state().items()}
        noise = [engine.noise.step for engine in self._noisy()]
        trials = [engine.trial for engine in (self.engine, self.reader)]
        state = {
            "config": self.config.to_toml(),
            "at": asdict(self.at),
            "noise": noise,
            "trials": trials,
            "metrics": self.metrics,
            "timing": self.timing,
            "recording": self._recorded if self.recording is None else self.recording.position(),
        }
        checkpoint.save(user_path(folder), tensors, state)

    def restore(self, folder: Path) -> None:
        """Take up the checkpoint of a run folder; the files of metrics are written anew, up to it."""
        folder = user_path(folder)
        tensors, state = checkpoint.load(folder)
        path = folder / checkpoint.NAME
        # Not compared as text: a checkpoint of before a key was there means that key's default.
        kept = TrainConfig.from_text(state["config"], str(path)).to_toml()
        mine = self.config.to_toml()
        if kept != mine:
            was, now = kept.splitlines(), mine.splitlines()
            changed = [f"it has '{a}'" for a in was if a not in now] + [f"the file '{a}'" for a in now if a not in was]
            raise NeurosimError(
                f"'{path}' belongs to another configuration than {folder / CONFIG}: {', '.join(changed[:4])}. Put the file back as it was, "
                "or start a run of its own with another --out."
            )
        weights = {n.removeprefix("weights/"): w for n, w in tensors.items() if n.startswith("weights/")}
        expected = {n: w.shape for n, w in self.engine.weights().items()}
        if {n: w.shape for n, w in weights.items()} != expected:
            raise NeurosimError(f"'{path}' holds weights of another circuit than {self.config.model} builds now.")
        self.engine.set_weights(weights)
        self.best = {n.removeprefix("best/"): w for n, w in tensors.items() if n.startswith("best/")}
        if self.transform is not None:
            self.transform.restore(
                {n.removeprefix("optimiser/"): w for n, w in tensors.items() if n.startswith("optimiser/")}
            )
        for engine, step in zip(self._noisy(), state["noise"], strict=True):
            engine.noise.step = step
        for engine, trial in zip((self.engine, self.reader), state["trials"], strict=True):
            engine.trial = trial
        self._recorded = state.get("recording")
        self.at, self.metrics, self.timing = Position(**state["at"]), state["metrics"], state["timing"]
        check_fields(self.at, f"'{path}' is damaged: ")
        if self.workers.first:
            self._write_rows(folder)
            (folder / BEST).unlink(missing_ok=True)
            if self.best:
                save_weights(folder, self.best, BEST)

    def _write_rows(self, folder: Path) -> None:
        write_whole(folder / METRICS, as_lines(self.metrics).encode())
        write_whole(folder / TIMING, as_lines(self.timing).encode())

    def _noisy(self) -> list[Any]:
        return [engine for engine in (self.engine, self.reader) if engine.noise is not None]


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _squares(kept: dict[str, np.ndarray], names: tuple[str, ...], samples: int) -> tuple[float, int]:
    """Sum of the squares of some variables over the first samples, and how many values that are."""
    values = np.concatenate([kept[n][:samples].ravel() for n in names])
    return float((values.astype(np.float64) ** 2).sum()), values.size


def _numpy(values: Any) -> np.ndarray:
    return values.cpu().numpy() if hasattr(values, "cpu") else values
