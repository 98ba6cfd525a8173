"""What the experiments on CorInfoMax share: command line, one training."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neurosim.analysis import command_line
from neurosim.analysis.command_line import parse
from neurosim.analysis.report import collect, mean_sd
from neurosim.errors import DivergenceError, NeurosimError
from neurosim.training import Trainer, resolve

HERE = Path(__file__).parent


def parser(text: str, seeds: int | None = None) -> argparse.ArgumentParser:
    """The options that the experiments have; those of a single run have no --seeds."""
    return command_line.parser(text, HERE / "results", seeds)


def train(settings: Mapping[str, Any], **schedule: Any) -> dict[str, Any]:
    """A training: test accuracy after the last epoch, the rows of all epochs, and why it failed where it did.

    `failed` is ``refused: ...`` where the circuit cannot be built, else the reason of the divergence.
    """
    started = time.process_time()
    row: dict[str, Any] = {"test": None, "failed": None, "epochs_done": 0, "curve": []}
    try:
        trainer = Trainer(resolve("corinfomax", settings, **schedule), progress=False)
    except NeurosimError as refusal:
        return row | {"failed": f"refused: {refusal}", "seconds": 0.0}
    try:
        trainer.fit()
        last = trainer.metrics[-1]
        row["test"] = last["test_accuracy"] if trainer.followed == "test" else trainer.evaluate("test")["accuracy"]
    except DivergenceError as error:
        row["failed"] = str(error)
        try:  # weights out of range say more than the state that gave way
            trainer.weight_measures()
            trainer.check_measures()
        except DivergenceError as cause:
            row["failed"] += "" if str(cause) == row["failed"] else f" {cause}"
    curve = trainer.metrics
    return row | {"epochs_done": len(curve), "curve": curve, "seconds": time.process_time() - started}


__all__ = ["HERE", "collect", "mean_sd", "parse", "parser", "train"]
