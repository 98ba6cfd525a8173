"""`neurosim train`."""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path
from typing import Any

from neurosim.cli.common import (
    Commands,
    goes_on,
    how_to_go_on,
    output_folder,
    recorder_options,
    recording_arguments,
    shared_arguments,
)
from neurosim.errors import NeurosimError
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
    from neurosim.backends.torch.workers import is_first, leave
    from neurosim.training import resolve, resume
    from neurosim.training.run import CONFIG, RECORDING, RESULT, accuracy_text, remarks
    from neurosim.training.start import start

    if arguments.resume:
        if arguments.model:
            raise NeurosimError(
                f"--resume {arguments.resume} goes on with the run of that folder; leave '{arguments.model}' out."
            )
        given = {
            name: value
            for name, value in vars(arguments).items()
            if name not in ("command", "run", "debug", "command_line", "resume", "model")
        }
        if beside := [
            f"--{'set' if name == 'settings' else name.replace('_', '-')}"
            for name, value in given.items()
            if value not in (None, [], False)
        ]:
            raise NeurosimError(
                f"--resume {arguments.resume} goes on with the run of that folder, as its config.toml says; leave {', '.join(beside)} out. A longer or "
                f"changed run is a new one: --weights {arguments.resume} begins from its weights."
            )
        out = Path(arguments.resume)
        finished = (out / RESULT).is_file()
        with goes_on(lambda: _kept(out)):
            run: Any = resume(out)
    else:
        values, weights, named_by = _experiment(arguments)
        config = resolve(
            values.pop("model"), values.pop("settings"), named_by, **values
        )  # complain before a folder is made
        arguments.model = config.model
        finished = False
        place = (  # under torchrun one process makes it
            output_folder(arguments, CONFIG) if is_first() else contextlib.nullcontext(Path(arguments.out or "runs"))
        )
        with place as out, goes_on(lambda: _kept(out)):
            run = start(
                config, out, arguments.data_dir, weights, command=arguments.command_line, overwrite=arguments.overwrite,
                track=arguments.track,
            )  # fmt: skip
    leave()
    if not is_first():
        return
    result = run.result
    if finished:
        print(f"the run in {out} has finished already: {accuracy_text(result)}")
        return
    print(f"{accuracy_text(result)} after {len(run.metrics)} epochs, {result['seconds']:.1f} s")
    for line in remarks(run):
        print(line, file=sys.stderr if line.startswith("warning") else sys.stdout)
    best = ", best.safetensors" if (out / "best.safetensors").is_file() else ""
    recording = f", {RECORDING}" if run.config.recorder else ""
    print(f"wrote config.toml, metrics.jsonl, result.json, weights.safetensors{best}{recording} in {out}")


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


def _kept(out: Path) -> str:
    """What is kept of a run that was stopped, and how to go on; empty where nothing is."""
    from neurosim.training.run import CONFIG

    if not (out / CONFIG).exists():
        return ""
    return f"Metrics and weights of the epochs that ended are kept in {out}; {how_to_go_on('train', out)}"
