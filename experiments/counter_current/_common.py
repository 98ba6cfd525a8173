"""What the experiments on counter-current learning share: command line, one training, weights on the way, activity of the streams."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from neurosim import Circuit
from neurosim.analysis import command_line
from neurosim.backends.engine import Engine
from neurosim.errors import DivergenceError
from neurosim.models import counter_current
from neurosim.simulation import build_engine
from neurosim.stimuli import stimulus_fields
from neurosim.training import TrainConfig, Trainer, resolve

HERE = Path(__file__).parent
MODEL = "counter_current"
NAMES = {
    "digits": "digits",
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
    "cifar10_jpeg": "CIFAR-10 (JPEG copy)",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "stl10": "STL-10",
}


def parser(text: str, seeds: int | None = None, quick: bool = True) -> argparse.ArgumentParser:
    """The options that the experiments have; those of a single run have no --seeds."""
    command = command_line.parser(text, HERE / "results", seeds)
    if quick:
        command.add_argument(
            "--quick", action="store_true", help="a minute at most, to see that it runs; results go to runs/quick"
        )
    return command


def parse(command: argparse.ArgumentParser, quick_seeds: int = 1) -> argparse.Namespace:
    """The options. With --quick: fewer seeds, and another folder than that of the committed results unless one is given."""
    if getattr(command.parse_args(), "quick", False):
        command.set_defaults(out=Path("runs/quick"))
        if command.get_default("seeds") is not None:
            command.set_defaults(seeds=quick_seeds)
    return command_line.parse(command)


# ---------------------------------------------------------------- trainings


def train(settings: Mapping[str, Any], **schedule: Any) -> dict[str, Any]:
    """A training of the preset with these changes: test accuracy of the selected epoch, rows of all epochs, and why it failed where it did."""
    trainer = Trainer(resolve(MODEL, settings, **schedule), progress=False)
    row: dict[str, Any] = {"test": None, "failed": None}
    try:
        trainer.fit()
        if trainer.best:
            trainer.engine.set_weights(trainer.best)
        row["test"] = trainer.evaluate("test")["accuracy"]
    except DivergenceError as error:
        row["failed"] = str(error)
    return row | {"curve": trainer.metrics}


class _Enough(Exception):
    """The last update that was asked for is done."""


def follow(
    config: TrainConfig, updates: Sequence[int], read: Callable[[int, Trainer, dict[str, np.ndarray]], None]
) -> Trainer:
    """Train until the last of `updates` (batches); at each of them, 0 for before the first, call ``read(update, trainer, weights)``."""
    trainer = Trainer(config, progress=False)
    with tqdm(total=max(updates), unit="update", desc=f"seed {config.seed}") as bar:

        def between() -> None:
            done = (trainer.at.epoch - 1) * trainer.batches + trainer.at.batches
            bar.update(done - bar.n)
            if done in updates:
                read(done, trainer, trainer.engine.weights())
            if done >= max(updates):
                raise _Enough

        try:
            between()
            for number in range(1, -(-max(updates) // trainer.batches) + 1):
                trainer.epoch(number, between=between)
        except _Enough:
            pass
    return trainer


# ---------------------------------------------------------------- activity


class Streams:
    """Activity of both streams for some samples, the label population clamped to each sample's own label."""

    def __init__(self, settings: Mapping[str, Any], images: np.ndarray, labels: np.ndarray):
        settings = {**settings, "labels": "true", "decorrelation": 0.0}
        self.circuit: Circuit = counter_current.circuit(**settings)
        self.top = len(settings["sizes"]) - 1
        self.fields = stimulus_fields(self.circuit, images, labels)
        options: dict[str, Any] = {"batch": len(images), "dtype": "float32", "method": "sweeps", "progress": False}
        self.engine: Engine = build_engine(self.circuit, "torch:steady", None, 0, **options)
        self.names = set(self.engine.weights())

    def __call__(self, weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """``{"F1.r": (samples, cells), ...}`` at the end of the window."""
        self.engine.set_weights({name: w for name, w in weights.items() if name in self.names})
        return self.engine.present(self.fields, learn="off").ends["settle[0]"]


def validation(config: TrainConfig, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """The first samples of the run's validation set, normalised as it sees them, and their labels."""
    images, labels = config.dataset().split("validation")
    return images[:samples], labels[:samples]


__all__ = ["HERE", "MODEL", "NAMES", "Streams", "follow", "parse", "parser", "train", "validation"]
