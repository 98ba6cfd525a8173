"""What a training tells its user when it ends."""

from __future__ import annotations

import sys
from pathlib import Path

from neurosim.backends.torch.workers import is_first, leave
from neurosim.exits import goes_on, how_to_go_on
from neurosim.training.run import BEST, CONFIG, RECORDING, RESULT, Run, accuracy_text, remarks
from neurosim.training.start import resume


def go_on(folder: Path) -> None:
    """Go on with the run of a folder, and tell how it ended."""
    finished = (folder / RESULT).is_file()
    with goes_on(lambda: kept(folder)):
        run = resume(folder)
    if not finished:
        tell(run, folder)
    elif _ends():
        told = accuracy_text(run.result)
        print(f"the run in {folder} has finished already: {told}")


def tell(run: Run, folder: Path) -> None:
    """Tell of a run that has just finished."""
    if not _ends():
        return
    result = run.result
    epochs, seconds = len(run.metrics), result["seconds"]
    print(f"{accuracy_text(result)} after {epochs} epochs, {seconds:.1f} s")
    for line in remarks(run):
        print(line, file=sys.stderr if line.startswith("warning") else sys.stdout)
    best = f", {BEST}" if (folder / BEST).is_file() else ""
    recording = f", {RECORDING}" if run.config.recorder else ""
    files = f"config.toml, metrics.jsonl, result.json, weights.safetensors{best}{recording}"
    print(f"wrote {files} in {folder}")


def _ends() -> bool:
    """Leave the group of workers; returns whether this is the one that tells."""
    leave()
    return is_first()


def kept(folder: Path) -> str:
    """What is kept of a run that was stopped, and how to go on; empty where nothing is."""
    if not (folder / CONFIG).exists():
        return ""
    how = how_to_go_on("train", folder)
    return f"Metrics and weights of the epochs that ended are kept in {folder}; {how}"
