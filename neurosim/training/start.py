"""Trainings in run folders: started, gone on with, and ended with the test set."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch

from neurosim import data as datasets
from neurosim import registry
from neurosim.backends.settings import own_settings
from neurosim.backends.torch.workers import Workers, is_first
from neurosim.checks import Array, Cure, checked
from neurosim.errors import DivergenceError, NeurosimError
from neurosim.files import check_owner, locked, user_path, write_whole
from neurosim.simulation import versions
from neurosim.training import checkpoint
from neurosim.training.config import TrainConfig
from neurosim.training.resolve import resolve
from neurosim.training.run import (
    BEST,
    CONFIG,
    ORIGIN,
    RECORDING,
    RESULT,
    Run,
    load,
    read_origin,
    read_result,
    save_weights,
    write_rows,
)
from neurosim.training.track import FOLDER as EVENTS
from neurosim.training.track import Tracker, require_tensorboard
from neurosim.training.trainer import Trainer

#: Of a training, which its folder must be able to repeat.
ModelName = Annotated[
    str,
    Cure(
        "A circuit is trained by the function that builds it, so that the run folder can build it again: write the function "
        "into a file, and train('FILE.py:FUNCTION', settings={...})."
    ),
]


@checked
@own_settings()
def train(
    model: ModelName,
    out: str | os.PathLike[str] | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    data_dir: str | None = None,
    weights: Mapping[str, Array] | None = None,
    progress: bool = True,
    command: str | None = None,
    overwrite: bool = False,
    track: bool = False,
    **schedule: Any,
) -> Run | dict[str, Any]:
    """Train a model and touch the test set once, at the end.

    Parameters
    ----------
    model
        A name from `neurosim list`, or ``file.py:function``.
    out
        Run folder, see `neurosim.training.run` (None: keep nothing).
    settings, schedule
        Settings of the circuit, and keys of `TrainConfig` (``epochs=5``, ``level="brian2:dense"``, ...).
    data_dir
        Where data sets lie.
    weights
        Weights to start from.
    command
        What the run folder notes as the command.
    overwrite
        Replace an earlier run in the folder; without it, such a folder is refused.
    track
        Show the run in TensorBoard while it goes on: events in ``tensorboard/`` of the run folder (extra ``track``).

    Returns
    -------
    The `Run` of the folder, or its result where nothing is kept.
    """
    return start(resolve(model, settings, **schedule), out, data_dir, weights, progress, command, overwrite, track)


def start(
    config: TrainConfig,
    out: str | os.PathLike[str] | None = None,
    data_dir: str | None = None,
    weights: Mapping[str, np.ndarray] | None = None,
    progress: bool = True,
    command: str | None = None,
    overwrite: bool = False,
    track: bool = False,
) -> Run | dict[str, Any]:
    """As `train`, by a configuration."""
    out = None if out is None else user_path(out)
    if track:
        require_tensorboard()
        if out is None:
            raise NeurosimError("track writes into the run folder, and there is none; give out, or leave track out.")
    if out is not None and registry.is_file(config.model):
        path = registry.split(config.model)[0].resolve()
        if out.resolve() in path.parents:
            raise NeurosimError(
                f"The model file '{path}' lies in '{out}', and no code in a run folder runs. Give another folder."
            )
    if out is None:
        trainer = Trainer(config, data_dir, weights, progress)
        trainer.fit()
        return _result(trainer)
    with _locked(out):
        return _start(config, out, data_dir, weights, progress, command, overwrite, track)


def _start(
    config: TrainConfig, folder: Path, data_dir: str | None, weights: Mapping[str, np.ndarray] | None, progress: bool,
    command: str | None, overwrite: bool, track: bool,
) -> Run:  # fmt: skip
    earlier = (folder / CONFIG).is_file()  # which this one overwrites
    if is_first():
        if earlier and not overwrite:
            raise NeurosimError(f"The folder '{folder}' holds a run already; give another one, or overwrite=True.")
        check_owner(folder, CONFIG)
    trainer = Trainer(config, data_dir, weights, progress)
    if trainer.workers.first:
        if not earlier and config.recorder and (folder / RECORDING).exists():
            raise NeurosimError(
                f"'{folder / RECORDING}' is there, and no run that it could be of. Move it away, or give another folder."
            )
        for name in (CONFIG, RESULT, checkpoint.NAME, *((RECORDING,) if earlier else ())):
            (folder / name).unlink(missing_ok=True)
        if earlier:
            shutil.rmtree(folder / EVENTS, ignore_errors=True)
        folder_of_data = datasets.given_directory(data_dir)
        origin = {
            "command": command or shlex.join(sys.argv),
            "data_dir": folder_of_data and str(folder_of_data.absolute()),
            "weights": weights is not None,
            "track": track,
            "threads": torch.get_num_threads(),
            "workers": trainer.workers.size,
            "versions": versions(),
        }
        write_whole(folder / ORIGIN, (json.dumps(origin, indent=2) + "\n").encode())
        _begin(trainer, folder)
        if weights is not None:  # which the configuration does not tell
            trainer.save_checkpoint(folder)
        registry.trust(config.model)
        write_whole(folder / CONFIG, config.to_toml().encode())  # last: with it, the folder can be resumed
    return _finish(trainer, folder, track)


def resume(folder: str | os.PathLike[str], progress: bool = True) -> Run:
    """Go on with a run that was stopped or killed: bit for bit as if it had not been (same machine, same number of threads).

    Without a checkpoint the run starts again from its configuration. A finished run is returned as it is.

    Raises
    ------
    NeurosimError
        No run folder, a run that failed, or a checkpoint that is damaged or does not belong to the configuration.
    """
    folder = user_path(folder)
    if not (folder / CONFIG).is_file():
        raise NeurosimError(
            f"'{folder}' is no run folder: it has no {CONFIG}. Start the run again with `neurosim train`."
        )
    if ended := _ended(folder):  # before the lock, which a finished run in a read-only folder does not need
        return ended
    with _locked(folder):
        return _ended(folder) or _resume(folder, progress)


def _ended(folder: Path) -> Run | None:
    """The run of a folder if it is finished."""
    result = read_result(folder)
    if "failed" in result:
        raise NeurosimError(f"The run in '{folder}' failed: {result['failed']} It would fail again at the same place.")
    if not result:
        return None
    with contextlib.suppress(OSError):
        (folder / checkpoint.NAME).unlink()  # of a run that was killed right after its last file
    return load(folder)


def _resume(folder: Path, progress: bool) -> Run:
    origin, kept = read_origin(folder), (folder / checkpoint.NAME).is_file()
    if origin.get("weights") and not kept:
        raise NeurosimError(
            f"The run in '{folder}' was started from other weights than its {CONFIG} tells, and has no {checkpoint.NAME} that holds them. "
            f"Start it again: {origin.get('command')} (with --overwrite, or another --out)."
        )
    data_dir = origin.get("data_dir")
    if data_dir and not Path(data_dir).is_dir():  # moved, or another machine
        data_dir = None
    config = TrainConfig.from_toml(folder / CONFIG)
    registry.check_allowed(config.model, str(folder / CONFIG))
    trainer = Trainer(config, data_dir, None, progress)
    _warn_of_round_off(origin, trainer.workers)
    if kept:
        with checkpoint.taken_up(folder):
            trainer.restore(folder)
    elif trainer.workers.first:
        _begin(trainer, folder)
    return _finish(trainer, folder, bool(origin.get("track")))


def _locked(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Two trainings in one folder would spoil it; the first worker holds the lock."""
    return locked(folder) if is_first() else contextlib.nullcontext()


def _warn_of_round_off(origin: Mapping[str, Any], workers: Workers) -> None:
    """Sums over another number of threads or workers are rounded in another order."""
    threads = torch.get_num_threads()
    now = {
        "threads": (threads, f"OMP_NUM_THREADS={origin.get('threads')}"),
        "workers": (workers.size, "torchrun --nproc-per-node"),
    }
    for what, (number, cure) in now.items() if workers.first else ():
        if origin.get(what, number) != number:
            print(
                f"warning: the run was started with {origin[what]} {what} and goes on with {number}: it will agree to round-off only "
                f"({cure} makes it exact)",
                file=sys.stderr,
            )


def _begin(trainer: Trainer, folder: Path) -> None:
    """The files of a run in which nothing was trained yet."""
    write_rows(folder, [], [])
    (folder / BEST).unlink(missing_ok=True)
    save_weights(folder, trainer.engine.weights())


def _finish(trainer: Trainer, folder: Path, track: bool) -> Run:
    """Train what is left, touch the test set, write the result."""
    try:
        if track and trainer.workers.first:
            trainer.tracker = Tracker(folder, len(trainer.metrics))
        try:
            trainer.fit(folder)
        finally:
            if trainer.tracker is not None:
                trainer.tracker.close()
        result = _result(trainer)
    except DivergenceError as error:
        reason = str(error)
        try:  # weights out of range say more than the state that gave way
            trainer.weight_measures()
            trainer.check_measures()
        except DivergenceError as cause:
            reason = reason if str(cause) in reason else f"{reason} {cause}"
        if trainer.workers.first:
            _write_result(folder, {**trainer.config.labels, "failed": reason})
        raise DivergenceError(f"{reason} Metrics and weights of the last whole epoch are kept in {folder}.") from error
    if trainer.workers.first:
        _write_result(folder, result)
        (folder / checkpoint.NAME).unlink(missing_ok=True)
    weights = {n: w.astype(np.float64) for n, w in trainer.engine.weights().items()}
    run = Run(folder, trainer.config, weights, trainer.metrics, result)
    vars(run)["circuit"] = trainer.circuit  # it is built: a model file may have changed meanwhile
    return run


def _result(trainer: Trainer) -> dict[str, Any]:
    """What ``result.json`` holds; the engine is left with the selected weights."""
    config, row = trainer.config, trainer.selected
    accuracy = ["accuracy"] if trainer.classifies else []
    found: dict[str, Any] = {}
    if config.select == "best":
        trainer.engine.set_weights(trainer.best)
        found["epoch"] = row["epoch"]
    if not config.hold_out:  # read already
        found |= {f"test_{what}": row[f"test_{what}"] for what in (*accuracy, "loss")} | {"hold_out": False}
    elif config.test:
        tested = trainer.evaluate("test")
        found |= {f"test_{what}": tested[what] for what in (*accuracy, "loss")}
    if config.hold_out:
        told = [*accuracy, "loss"] if config.select == "best" or not accuracy else accuracy
        found |= {f"validation_{what}": row[f"validation_{what}"] for what in told}
    return {
        **config.labels,
        **found,
        "seconds": sum(row["seconds"] for row in trainer.timing),
        "seconds_per_epoch": float(np.median([row["seconds"] for row in trainer.timing])),
    }


def _write_result(folder: Path, result: dict[str, Any]) -> None:
    write_whole(folder / RESULT, (json.dumps(result, indent=2) + "\n").encode())
