"""`neurosim train`."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from typing import Any

from neurosim.cli.common import (
    Commands,
    output_folder,
    recorder_options,
    recording_arguments,
    shared_arguments,
)
from neurosim.errors import NeurosimError
from neurosim.exits import goes_on
from neurosim.files import user_text


def add(commands: Commands) -> None:
    """Add the subcommand."""
    train = commands.add(
        "train", _train, "Train a circuit; the test set is touched once, at the end.",
        "  neurosim train ghost_units\n"
        "  neurosim train experiment.toml --set learning_rate=0.002 --seed 3\n"
        "  neurosim train --resume runs/mnist\n"
        "  neurosim train ghost_units --data mnist --data-dir DATA --epochs 10 --out runs/mnist\n"
        "  neurosim train ghost_units --set mode=learned --set learning_rate=0.002 --seed 3\n"
        "  neurosim train ghost_units --level brian2:dense --set eta=1 --epochs 20\n"
        "  torchrun --nproc-per-node 2 -m neurosim train ghost_units --batch-size 64\n",
    )  # fmt: skip
    shared_arguments(train, level=None)
    train.add_argument(
        "--resume", type=user_text, metavar="RUN_DIR",
        help="go on with a run that was stopped or killed; needs no other argument",
    )  # fmt: skip
    train.add_argument(
        "--track", action="store_true", help="show the run in TensorBoard: events in RUN_DIR/tensorboard (extra track)"
    )
    recording_arguments(train, trials="one per epoch")
    train.add_argument("--epochs", type=int, metavar="E", help="passes over the training set")
    train.add_argument("--batch-size", type=int, metavar="B", help="samples per update")
    train.add_argument("--dt", metavar="TIME", help="Euler step of the trajectory levels (default 1*ms)")
    train.add_argument(
        "--method", metavar="METHOD",
        help="circuit: its own rules (default); or its reference net under backprop, feedback_alignment, direct_feedback_alignment",
    )  # fmt: skip

    train.add_argument(
        "--credits",
        type=user_text,
        metavar="SOURCE",
        help="tdca: a file or folder of `neurosim evolve`, or bp, fa, dfa (as --set credits=SOURCE)",
    )


def _train(arguments: argparse.Namespace) -> None:
    from neurosim.backends.torch.workers import is_first
    from neurosim.training import resolve
    from neurosim.training.report import go_on, kept, tell
    from neurosim.training.run import CONFIG
    from neurosim.training.start import start

    if arguments.resume:
        _check_alone(arguments)
        go_on(Path(arguments.resume))
        return
    values, weights, named_by = _experiment(arguments)
    # Complain before a folder is made.
    config = resolve(values.pop("model"), values.pop("settings"), named_by, **values)
    arguments.model = config.model
    place = contextlib.nullcontext(Path(arguments.out or "runs"))
    if is_first():  # which makes the folder, under torchrun too
        place = output_folder(arguments, CONFIG)
    with place as out, goes_on(lambda: kept(out)):
        run: Any = start(
            config,
            out,
            arguments.data_dir,
            weights,
            command=arguments.command_line,
            overwrite=arguments.overwrite,
            track=arguments.track,
        )
    tell(run, out)


def _check_alone(arguments: argparse.Namespace) -> None:
    """Refuse other options beside ``--resume``."""
    resumed = arguments.resume
    goes = f"--resume {resumed} goes on with the run of that folder"
    if arguments.model:
        raise NeurosimError(f"{goes}; leave '{arguments.model}' out.")
    own = ("command", "run", "debug", "command_line", "resume", "model")
    given = [
        "set" if name == "settings" else name.replace("_", "-")
        for name, value in vars(arguments).items()
        if name not in own and value not in (None, [], False)
    ]
    if given:
        raise NeurosimError(
            f"{goes}, as its config.toml says; leave {', '.join(f'--{name}' for name in given)} "
            f"out. A longer or changed run is a new one: --weights {resumed} begins from its "
            "weights."
        )


def _experiment(arguments: argparse.Namespace) -> tuple[dict[str, Any], Any, str | None]:
    """What is to be trained: an experiment file or a model's name, what the command line says beside it, weights to start from, the
    file that names the model."""
    from neurosim import registry
    from neurosim.training import load
    from neurosim.training.config import SWEEP_KEYS, read_toml

    values: dict[str, Any] = {"model": arguments.model, "settings": {}}
    if arguments.model is None:
        raise NeurosimError(
            "Wanted a model, an experiment file, or --resume RUN_DIR; `neurosim train --help` shows examples."
        )
    if arguments.model.endswith(".toml"):
        values = {"settings": {}, **read_toml(arguments.model, SWEEP_KEYS)}
        several = [key for key in SWEEP_KEYS if key in values]
        if several:
            raise NeurosimError(
                f"'{arguments.model}' describes several runs (it has {', '.join(several)}): `neurosim sweep {arguments.model}` trains them all."
            )
        if "model" not in values:
            raise NeurosimError(f"'{arguments.model}' names no model; wanted a line such as model = \"ghost_units\".")
    given = dict(
        level=arguments.level, seed=arguments.seed, data=arguments.data, epochs=arguments.epochs,
        batch_size=arguments.batch_size, dtype=arguments.dtype, dt=arguments.dt, method=arguments.method,
        device=arguments.device, codegen=arguments.codegen, limit=arguments.samples,
    )  # fmt: skip
    values |= {k: v for k, v in given.items() if v is not None}
    if recorder := recorder_options(arguments):
        values["recorder"] = {**values.get("recorder", {}), **recorder}
    weights = None
    if arguments.weights:
        begin = load(arguments.weights)
        values["settings"], weights = {**begin.config.settings, **values["settings"]}, begin.weights
        values.setdefault("data", begin.config.data)
        if values["data"] == begin.config.data:
            values.setdefault("normalise", begin.config.normalise)
    values["settings"] = {**values["settings"], **registry.parse_settings(arguments.settings)}
    if arguments.credits is not None:
        values["settings"]["credits"] = arguments.credits
    return values, weights, arguments.model if arguments.model.endswith(".toml") else None
