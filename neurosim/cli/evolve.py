"""`neurosim evolve`."""

from __future__ import annotations

import argparse
import contextlib
from dataclasses import replace
from pathlib import Path

from neurosim.cli.common import Commands, model_argument, output_folder
from neurosim.errors import NeurosimError
from neurosim.exits import goes_on, how_to_go_on
from neurosim.files import user_text


def add(commands: Commands) -> None:
    """Add the subcommand."""
    evolve = commands.add(
        "evolve", _evolve, "Find the weights of a circuit that stand still while others learn, such as tdca's top-down net.",
        "  neurosim evolve tdca --out runs/credits\n"
        "  neurosim evolve tdca --strategy meta_gradient --set ratio=4 --out runs/credits4\n"
        "  neurosim evolve tdca --data mnist --set batch=256 --set fresh=true --minutes 30 --out runs/mnist_credits\n"
        "  neurosim evolve --resume runs/credits --generations 1000\n"
        "  torchrun --nproc-per-node 2 -m neurosim evolve tdca --out runs/credits\n"
        "  neurosim train tdca --credits runs/credits\n",
    )  # fmt: skip
    model_argument(evolve)
    evolve.add_argument(
        "--resume", type=user_text, metavar="DIR",
        help="go on with an evolution that was stopped or killed; needs no other argument",
    )  # fmt: skip
    evolve.add_argument("--data", metavar="NAME", help="data set that learners classify (default digits)")
    evolve.add_argument(
        "--data-dir", type=user_text, metavar="DIR", help="folder of data sets (default: NEUROSIM_DATA)"
    )
    evolve.add_argument(
        "--strategy", metavar="NAME", help="pepg (default), cmaes, or meta_gradient: through whole lives, not biologically plausible"
    )  # fmt: skip
    evolve.add_argument(
        "--generations", type=int, metavar="G", help="updates of the evolved weights (default 400; meta_gradient 600)"
    )
    evolve.add_argument("--population", type=int, metavar="P", help="candidates per generation (default 65)")
    evolve.add_argument("--steps", type=int, metavar="T", help="trials of a learner's life (default 30)")
    evolve.add_argument("--minutes", type=float, metavar="M", help="stop after so much time; --resume goes on")
    evolve.add_argument("--seed", type=int, help="seed of the start, the search and the learners (default 0)")
    evolve.add_argument("--dtype", help="of the learners: float32 (default) or float64")
    evolve.add_argument("--device", help="cpu or cuda (default cpu)")
    evolve.add_argument("--out", type=user_text, metavar="DIR", help="output folder (default runs/evolve-MODEL-TIME)")
    evolve.add_argument(
        "--track",
        action="store_true",
        help="show the evolution in TensorBoard: events in DIR/tensorboard (extra track)",
    )
    evolve.add_argument("--overwrite", action="store_true", help="replace an evolution in the folder")


def _evolve(arguments: argparse.Namespace) -> None:
    import torch

    from neurosim import registry
    from neurosim.backends.torch.workers import is_first, leave
    from neurosim.training.evolution import config as configuration
    from neurosim.training.evolution import run as evolution

    torch.set_flush_denormal(True)  # saturated learners make denormals, which are slow
    if arguments.resume:
        if arguments.model:
            raise NeurosimError(
                f"--resume {arguments.resume} goes on with that folder's evolution; leave '{arguments.model}' out."
            )
        names = ("set", "data", "strategy", "population", "steps", "seed", "dtype", "device", "out", "overwrite")
        values = {**vars(arguments), "set": arguments.settings}
        if beside := [f"--{name}" for name in names if values[name] or (name == "seed" and values[name] == 0)]:
            raise NeurosimError(
                f"--resume {arguments.resume} goes on with that folder's evolution, as its config.json says; leave {', '.join(beside)} out."
            )
        config = evolution.kept(Path(arguments.resume))
        if arguments.generations is not None:
            config = replace(config, generations=arguments.generations)
        place = contextlib.nullcontext(Path(arguments.resume))
    else:
        if arguments.model is None:
            raise NeurosimError("Wanted a model, or --resume DIR; `neurosim evolve --help` shows examples.")
        names = ("data", "strategy", "generations", "population", "steps", "seed", "dtype", "device")
        given = {name: getattr(arguments, name) for name in names}
        config = configuration.resolved(arguments.model, registry.parse_settings(arguments.settings), **given)
        place = (
            output_folder(arguments, evolution.CONFIG)
            if is_first()
            else contextlib.nullcontext(Path(arguments.out or "runs"))
        )
    with place as out, goes_on(lambda: _kept(out)):
        result = evolution.run(
            config,
            out,
            arguments.data_dir,
            resume=bool(arguments.resume),
            overwrite=arguments.overwrite,
            minutes=arguments.minutes,
            command=arguments.command_line,
            track=arguments.track,
        )
    leave()
    if result:
        if text := evolution.text_of(result):  # none where tasks have fewer classes than the data set
            print(text)
        print(
            f"wrote {evolution.NAME} ({result['searched']} evolved weights) and result.json in {out} after {result['generations']} generations"
        )


def _kept(out: Path) -> str:
    """How an evolution that was stopped goes on; empty where nothing was evolved yet."""
    from neurosim.training.evolution import run as evolution

    both = all((out / name).is_file() for name in (evolution.CONFIG, evolution.ORIGIN))
    return how_to_go_on("evolve", out) if both else ""
