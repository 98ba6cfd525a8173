"""The state of a training: where it stands, and what it has reached; as a checkpoint holds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from neurosim.backends.noise import Noise
from neurosim.checks import check_fields
from neurosim.errors import NeurosimError
from neurosim.training import checkpoint
from neurosim.training.config import TrainConfig
from neurosim.training.optimisers import Transform
from neurosim.training.run import CONFIG


@dataclass
class Position:
    """Where a run stands: the epoch (from 1), how many of its batches are done, their sums."""

    epoch: int = 1
    batches: int = 0
    right: float = 0.0
    loss: float = 0.0
    samples: float = 0.0
    unsettled: float = 0.0
    unstable: float = 0.0
    seconds: float = 0.0
    #: Of a published relaxation, the largest by phase.
    residual: dict[str, float] = field(default_factory=dict)

    def add(
        self,
        right: float,
        loss: float,
        samples: float,
        unsettled: float,
        unstable: float,
    ) -> None:
        """Add the sums of further batches."""
        self.right += right
        self.loss += loss
        self.samples += samples
        self.unsettled += unsettled
        self.unstable += unstable

    def row(self, classifies: bool) -> dict[str, Any]:
        """The present epoch, over its batches so far."""
        accuracy = {"train_accuracy": self.right / self.samples} if classifies else {}
        return {
            "train_loss": self.loss / self.samples,
            **accuracy,
            "samples": self.samples,
            "unsettled": int(self.unsettled),
            "unstable": int(self.unstable),
            **({"residual": dict(self.residual)} if self.residual else {}),
        }


@dataclass
class State:
    """What a training has reached.

    Attributes
    ----------
    at
        Where it stands.
    metrics, timing
        A row per epoch that ended: what the run reached (the same whenever it is repeated), and
        how fast.
    best
        The weights of the epoch with the lowest validation loss, where the run selects it; empty
        before the first one has ended.
    """

    at: Position = field(default_factory=Position)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    timing: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, np.ndarray] = field(default_factory=dict)

    def selected(self, select: str) -> dict[str, Any]:
        """The row of metrics of the ``last`` or the ``best`` epoch."""
        if select == "last":
            return self.metrics[-1]
        return min(self.metrics, key=lambda row: row["validation_loss"])

    def written(self) -> dict[str, Any]:
        """All but weights, as JSON."""
        return {"at": asdict(self.at), "metrics": self.metrics, "timing": self.timing}

    @classmethod
    def read(cls, state: Mapping[str, Any], best: dict[str, np.ndarray], path: Path) -> State:
        """Take up what `written` gave; the checkpoint at `path` holds it."""
        at = Position(**state["at"])
        check_fields(at, f"'{path}' is damaged: ")
        return cls(at, state["metrics"], state["timing"], best)


def check_same_config(text: str, config: TrainConfig, path: Path) -> None:
    """Refuse a checkpoint of another configuration."""
    # Not compared as text: a checkpoint of before a key was there means that key's default.
    was = TrainConfig.from_text(text, str(path)).to_toml().splitlines()
    now = config.to_toml().splitlines()
    changed = [f"it has '{a}'" for a in was if a not in now]
    changed += [f"the file '{a}'" for a in now if a not in was]
    if was != now:
        raise NeurosimError(
            f"'{path}' belongs to another configuration than {path.parent / CONFIG}: "
            f"{', '.join(changed[:4])}. Put the file back as it was, or start a run of its own "
            "with another --out."
        )


def check_same_weights(
    arrays: Mapping[str, np.ndarray],
    weights: Mapping[str, np.ndarray],
    path: Path,
    model: str,
) -> None:
    """Refuse a checkpoint with other weights than the circuit has."""
    shapes = {n: w.shape for n, w in checkpoint.part("weights", arrays).items()}
    if shapes != {n: w.shape for n, w in weights.items()}:
        raise NeurosimError(f"'{path}' holds weights of another circuit than {model} builds now.")


def learnt(
    engine: Any,
    reader: Any,
    transform: Transform | None,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The state of the engine that learns, and of the one that is evaluated: arrays and counts."""
    arrays = checkpoint.under("weights", engine.weights())
    if transform is not None:
        arrays |= checkpoint.under("optimiser", transform.state())
    counts = {
        "noise": [noise.step for noise in _noises(engine, reader)],
        "trials": [engine.trial, reader.trial],
    }
    return arrays, counts


def restore_learnt(
    engine: Any,
    reader: Any,
    transform: Transform | None,
    arrays: Mapping[str, np.ndarray],
    counts: Mapping[str, Any],
) -> None:
    """Take up what `learnt` gave."""
    engine.set_weights(checkpoint.part("weights", arrays))
    if transform is not None:
        transform.restore(checkpoint.part("optimiser", arrays))
    for noise, step in zip(_noises(engine, reader), counts["noise"], strict=True):
        noise.step = step
    engine.trial, reader.trial = counts["trials"]


def _noises(*engines: Any) -> list[Noise]:
    return [engine.noise for engine in engines if engine.noise is not None]
