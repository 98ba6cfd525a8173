"""What the experiments on CorInfoMax share: command line, one training, rows that outlive an interruption."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from neurosim.analysis import command_line
from neurosim.analysis.command_line import parse
from neurosim.analysis.report import select
from neurosim.errors import DivergenceError, NeurosimError
from neurosim.training import Trainer, resolve

HERE = Path(__file__).parent


def parser(text: str, seeds: int | None = None) -> argparse.ArgumentParser:
    """The options that the experiments have; those of a single run have no --seeds."""
    return command_line.parser(text, HERE / "results", seeds)


def collect(
    name: str, jobs: Sequence[Mapping[str, Any]], run: Callable[..., Mapping[str, Any]], out: Path
) -> list[dict[str, Any]]:
    """Rows ``{**job, **run(**job)}``, in the order of the jobs.

    Each is written to NAME.jsonl as it is finished. Rows found there, or in the NAME.json of a whole experiment, are not run again.
    """
    store, whole = out / f"{name}.jsonl", out / f"{name}.json"
    kept = json.loads(whole.read_text())["rows"] if whole.is_file() else []
    kept += [json.loads(line) for line in store.read_text().splitlines()] if store.is_file() else []
    rows = []
    with tqdm(jobs, unit="run") as bar:
        for job in bar:
            bar.set_postfix_str(", ".join(f"{key} {value}" for key, value in job.items()))
            found = select(kept, **job)
            if not found:
                found = [{**job, **run(**job)}]
                with store.open("a") as file:
                    file.write(json.dumps(found[0]) + "\n")
            rows.append(dict(found[-1]))
    return rows


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


def mean_sd(values: Sequence[float], factor: float = 100.0, places: int = 1) -> str:
    """Mean ± sd (n - 1), in % unless said."""
    if not len(values):
        return "-"
    scaled = factor * np.asarray(values)
    return f"{scaled.mean():.{places}f}" + (f" ± {scaled.std(ddof=1):.{places}f}" if len(scaled) > 1 else "")


__all__ = ["HERE", "collect", "mean_sd", "parse", "parser", "train"]
