"""The command line: `neurosim list | describe | simulate | compare | train | evolve | sweep | table | plot | data`."""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import os
import shlex
import sys
import textwrap
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from neurosim.errors import DivergenceError, NeurosimError
from neurosim.files import write_whole

INTERRUPTED = 130
SOLVER = "of torch:steady: anderson (default), sweeps, or relaxation: the circuit's published scheme"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status (0 done, 1 error, 2 wrong usage, 130 Ctrl-C)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in argv
    try:
        _check_model_first(argv)
        arguments = parser().parse_args(argv)
        arguments.command_line = "neurosim " + shlex.join(argv)
        arguments.run(arguments)
        return 0
    except KeyboardInterrupt as interrupt:
        if debug:
            traceback.print_exc()
        print(f"\nStopped by Ctrl-C.{' ' + str(interrupt) if str(interrupt) else ''}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        return 1
    except NeurosimError as error:
        if debug:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        if debug:
            traceback.print_exc()
        print(f"error: {_disk(error)}", file=sys.stderr)
        return 1
    except Exception as error:
        if debug:
            traceback.print_exc()
        print(f"error: {type(error).__name__}: {error} (unexpected; --debug shows where)", file=sys.stderr)
        return 1


def _disk(error: OSError) -> str:
    where = f" '{error.filename}'" if error.filename else ""
    cure = {
        errno.ENOSPC: "The disk is full: free some space, or give another folder with --out.",
        errno.EDQUOT: "The quota is used up: free some space, or give another folder with --out.",
        errno.EFBIG: "A limit on the size of files was reached (ulimit -f): raise it, or give another folder with --out.",
        errno.EROFS: "The file system is read-only: give another folder with --out.",
        errno.EACCES: "No permission to write there: give another folder with --out.",
    }
    return f"{error.strerror or error}{where}. {cure.get(error.errno or 0, '')}".strip()


def _check_model_first(argv: list[str]) -> None:
    """An unknown model is reported before any other option."""
    named = len(argv) > 1 and not argv[1].startswith("-") and not argv[1].endswith(".toml")
    if named and argv[0] in ("describe", "simulate", "compare", "train", "evolve"):
        from neurosim import registry

        registry.model(argv[1])


def parser() -> argparse.ArgumentParser:
    """The argument parser."""
    top = argparse.ArgumentParser(
        prog="neurosim",
        description="Write a circuit once; run it in Brian2, batched in torch, and at its steady state.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=(
            "examples:\n"
            "  neurosim list\n"
            "  neurosim compare ghost_units --levels brian2:dense torch:trajectory --out runs/compare\n"
            "  neurosim train ghost_units --out runs/ghost --seed 1\n"
            "  neurosim simulate ghost_units --weights runs/ghost --record pyr1.u pyr1.E --out runs/traces\n"
        ),
    )
    from neurosim import __version__

    top.add_argument("--version", action="version", version=f"neurosim {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, run: Any, text: str, examples: str = "") -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name, help=text, description=text, formatter_class=argparse.RawDescriptionHelpFormatter,
            epilog=f"examples:\n{examples}" if examples else None,
        )  # fmt: skip
        sub.add_argument("--debug", action="store_true", help="show the traceback of an error")
        sub.set_defaults(run=run)
        return sub

    add("list", _list, "List the models.", "  neurosim list\n")
    describe = add(
        "describe", _describe, "Print a model's populations, equations, projections, rules and protocol.",
        "  neurosim describe ghost_units --set mode=learned\n",
    )  # fmt: skip
    _model_argument(describe)
    describe.add_argument("--data", metavar="NAME", help="data set that the preset's sizes are for (default digits)")
    describe.add_argument("--weights", metavar="RUN_DIR", help="describe the circuit of a trained run")

    simulate = add(
        "simulate", _simulate, "Present samples to a circuit and record traces.",
        "  neurosim simulate ghost_units --record pyr1.u pyr1.E --out runs/traces\n"
        "  neurosim simulate ghost_units --level torch:trajectory --samples 8 --batch-size 8 --plasticity off\n",
    )  # fmt: skip
    _shared(simulate, level="brian2:dense")
    _dynamics(simulate)
    simulate.add_argument("--record", nargs="+", metavar="POP.VAR", help="variables to record (default: all states)")
    simulate.add_argument("--solver", default="anderson", help=SOLVER)
    simulate.add_argument("--stride", type=int, default=1, metavar="K", help="record every K steps (default 1)")

    compare = add(
        "compare", _compare, "Run a circuit on several levels and say how far they differ.",
        "  neurosim compare ghost_units\n"
        "  neurosim compare ghost_units --levels brian2:dense torch:steady --set beta=0.01 --set t_free=300*ms\n"
        "  neurosim compare ghost_units --weights runs/ghost --samples 16\n",
    )  # fmt: skip
    _shared(compare, level=None)
    _dynamics(compare)
    compare.add_argument(
        "--levels", nargs="+", metavar="LEVEL", help="levels to compare (default: all that can run it)"
    )
    compare.add_argument("--solver", default="anderson", help=SOLVER)
    compare.add_argument("--record", nargs="+", metavar="POP.VAR", help="variables of the figure beside the states")

    train = add(
        "train", _train, "Train a circuit; the test set is touched once, at the end.",
        "  neurosim train ghost_units\n"
        "  neurosim train experiment.toml --set learning_rate=0.002 --seed 3\n"
        "  neurosim train --resume runs/mnist\n"
        "  neurosim train ghost_units --data mnist --data-dir DATA --epochs 10 --out runs/mnist\n"
        "  neurosim train ghost_units --set mode=learned --set learning_rate=0.002 --seed 3\n"
        "  neurosim train ghost_units --level brian2:dense --set eta=1 --epochs 20\n"
        "  torchrun --nproc-per-node 2 -m neurosim train ghost_units --batch-size 64\n",
    )  # fmt: skip
    _shared(train, level=None)
    train.add_argument(
        "--resume", metavar="RUN_DIR", help="go on with a run that was stopped or killed; needs no other argument"
    )
    train.add_argument("--epochs", type=int, metavar="E", help="passes over the training set")
    train.add_argument("--batch-size", type=int, metavar="B", help="samples per update")
    train.add_argument("--dt", metavar="TIME", help="Euler step of the trajectory levels (default 1*ms)")
    train.add_argument(
        "--method", metavar="METHOD",
        help="circuit: its own rules (default); or its reference net under backprop, feedback_alignment, direct_feedback_alignment",
    )  # fmt: skip

    train.add_argument(
        "--credits",
        metavar="SOURCE",
        help="tdca: a file or folder of `neurosim evolve`, or bp, fa, dfa (as --set credits=SOURCE)",
    )

    evolve = add(
        "evolve", _evolve, "Find the weights of a circuit that stand still while others learn, such as tdca's top-down net.",
        "  neurosim evolve tdca --out runs/credits\n"
        "  neurosim evolve tdca --strategy meta_gradient --set ratio=4 --out runs/credits4\n"
        "  neurosim evolve tdca --data mnist --set batch=256 --set fresh=true --minutes 30 --out runs/mnist_credits\n"
        "  neurosim evolve --resume runs/credits --generations 1000\n"
        "  torchrun --nproc-per-node 2 -m neurosim evolve tdca --out runs/credits\n"
        "  neurosim train tdca --credits runs/credits\n",
    )  # fmt: skip
    _model_argument(evolve)
    evolve.add_argument(
        "--resume", metavar="DIR", help="go on with an evolution that was stopped or killed; needs no other argument"
    )
    evolve.add_argument("--data", metavar="NAME", help="data set that learners classify (default digits)")
    evolve.add_argument("--data-dir", metavar="DIR", help="folder of data sets (default: NEUROSIM_DATA)")
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
    evolve.add_argument("--out", metavar="DIR", help="output folder (default runs/evolve-MODEL-TIME)")
    evolve.add_argument("--overwrite", action="store_true", help="replace an evolution in the folder")

    sweep = add(
        "sweep", _sweep, "Train the runs of a file side by side; the same command again goes on with what is left.",
        "  neurosim sweep compare.toml --dry-run\n"
        "  neurosim sweep compare.toml --workers 4\n"
        "  neurosim sweep compare.toml --scheduler tcp://node1:8786\n",
    )  # fmt: skip
    sweep.add_argument("file", metavar="FILE", help="an experiment file with seeds, [[run]] tables or a [grid]")
    sweep.add_argument("--out", metavar="DIR", help="folder of the runs (default runs/FILE without its ending)")
    sweep.add_argument("--workers", type=int, metavar="N", help="runs at a time (default: the number of cores)")
    sweep.add_argument(
        "--scheduler", metavar="ADDRESS",
        help="train on a dask cluster that sees the same files, or 'local' for one on this machine",
    )  # fmt: skip
    sweep.add_argument(
        "--tries", type=int, default=2, metavar="K", help="go on K times with a run that dies (default 2)"
    )
    sweep.add_argument("--data-dir", metavar="DIR", help="folder of data sets (default: NEUROSIM_DATA)")
    sweep.add_argument("--only", metavar="TEXT", help="only runs with TEXT in the name of their folder")
    sweep.add_argument("--dry-run", action="store_true", help="list the runs and how far they are, and train none")

    table = add(
        "table", _table, "Compare finished runs: mean, sd, intervals, cost, and a paired test against a baseline.",
        "  neurosim table runs/compare\n"
        "  neurosim table runs/compare --baseline feedback_alignment --format latex --to table.tex\n",
    )  # fmt: skip
    table.add_argument("folders", nargs="+", metavar="DIR", help="folders with run folders in or below them")
    table.add_argument("--format", default="markdown", metavar="FORMAT", help="markdown (default), latex or csv")
    table.add_argument("--to", metavar="FILE", help="file to write (default: print)")
    table.add_argument("--baseline", metavar="NAME", help="the method to compare with (default backprop)")
    table.add_argument(
        "--metric",
        default="test_accuracy",
        metavar="METRIC",
        help="test_accuracy (default), validation_accuracy, test_loss or validation_loss",
    )

    plot = add(
        "plot", _plot, "Draw traces.h5, or the learning curves of run folders.",
        "  neurosim plot runs/traces/traces.h5 --record pyr1.u --to traces.pdf\n"
        "  neurosim plot runs/ghost runs/ghost2 --to curves.svg\n",
    )  # fmt: skip
    plot.add_argument("paths", nargs="+", metavar="PATH", help="a traces.h5, or run folders of `neurosim train`")
    plot.add_argument("--record", nargs="+", metavar="POP.VAR", help="variables to draw (default: all)")
    plot.add_argument("--cells", nargs="+", type=int, metavar="K", help="cells to draw (default: three)")
    plot.add_argument("--to", metavar="FILE", help="PNG, PDF or SVG (default: beside the first path)")

    data = add(
        "data", _data, "List the data sets, where they are found and whether they are whole; or fetch one.",
        "  neurosim data\n"
        "  neurosim data fetch cifar10 --data-dir DATA\n",
    )  # fmt: skip
    data.add_argument("--data-dir", metavar="DIR", help="folder of data sets (default: NEUROSIM_DATA)")
    fetch = data.add_subparsers(metavar="fetch").add_parser(
        "fetch", help="download a data set", description="Download a data set; one that broke off goes on where it stopped."
    )  # fmt: skip
    fetch.add_argument("name", metavar="NAME", help="mnist, fashion_mnist, cifar10, cifar100 or stl10")
    # Without a default, so that what stands before "fetch" is kept.
    fetch.add_argument(
        "--data-dir", metavar="DIR", default=argparse.SUPPRESS, help="folder of data sets (default: NEUROSIM_DATA)"
    )
    fetch.add_argument("--url", metavar="URL", help="folder to take the files from, in place of the standard one")
    fetch.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error")
    fetch.set_defaults(run=_fetch)
    return top


def _model_argument(sub: argparse.ArgumentParser) -> None:
    name = "a name from `neurosim list`, or file.py:function"
    if sub.prog.endswith(" train"):
        sub.add_argument("model", nargs="?", metavar="MODEL", help=f"{name}, or an experiment file (.toml)")
    elif sub.prog.endswith(" evolve"):
        sub.add_argument("model", nargs="?", metavar="MODEL", help=name)
    else:
        sub.add_argument("model", metavar="MODEL", help=name)
    sub.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="settings",
        help="a parameter of model, protocol or schedule; may be repeated (--set mode=learned --set sizes=784,500,10)",
    )  # fmt: skip


def _shared(sub: argparse.ArgumentParser, level: str | None) -> None:
    from neurosim.backends import LEVELS

    _model_argument(sub)
    sub.add_argument("--data", metavar="NAME", help="data set (default digits)")
    sub.add_argument("--data-dir", metavar="DIR", help="folder of data sets (default: NEUROSIM_DATA)")
    sub.add_argument("--samples", type=int, metavar="N", help="number of samples (default 4; train: all)")
    sub.add_argument("--seed", type=int, help="seed of weights and order (default 0)")
    default = "torch:steady" if sub.prog.endswith(" train") else level or "all"
    sub.add_argument("--level", default=level, metavar="LEVEL", help=f"{', '.join(LEVELS)} (default {default})")
    sub.add_argument("--dtype", help="float64 or float32 (default float64; train on torch float32)")
    sub.add_argument("--device", help="cpu or cuda, torch levels (default cpu)")
    sub.add_argument(
        "--codegen",
        metavar="TARGET",
        help="Brian2's target: numpy (default) or cython (compiles first)",
    )
    sub.add_argument("--weights", metavar="RUN_DIR", help="settings and weights of a trained run")
    sub.add_argument("--out", metavar="DIR", help="output folder (default runs/COMMAND-MODEL-TIME)")
    sub.add_argument("--overwrite", action="store_true", help="write into a folder that is not empty")


def _dynamics(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--dt", metavar="TIME", help="Euler step (default: the circuit's)")
    sub.add_argument("--batch-size", type=int, default=1, metavar="B", help="samples presented at once (default 1)")
    sub.add_argument("--plasticity", default="on", help="on (default), off, or held: collect the change only")


# ---------------------------------------------------------------- commands


def _list(arguments: argparse.Namespace) -> None:
    from neurosim import registry

    for name in registry.names():
        print(f"{name:24} {registry.model(name).summary}")


def _describe(arguments: argparse.Namespace) -> None:
    from neurosim.describe import describe

    circuit, *_ = _circuit(arguments, arguments.data)
    print(describe(circuit))


def _simulate(arguments: argparse.Namespace) -> None:
    from neurosim import simulate
    from neurosim.plot import save_traces

    circuit, weights, name, normalise = _circuit(arguments, arguments.data)
    images, labels = _samples(arguments, name, normalise) if circuit.plan.clamped_fields else (None, None)
    record = arguments.record or [f"{p.name}.{x}" for p in circuit.plan.populations.values() for x in p.ode]
    for variable in record:
        circuit.plan.variable(variable)
    out = _folder(arguments)
    steady = arguments.level == "torch:steady"
    with _kept(out):
        result = simulate(
            circuit, images, labels, level=arguments.level, record=() if steady and not arguments.record else record,
            weights=weights, stride=arguments.stride, **_options(arguments),
        )  # fmt: skip
    samples = arguments.batch_size if images is None else len(images)
    print(
        f"{result.level}: {samples} samples, {result.steps} {'sweeps' if steady else 'steps'}, {result.seconds:.1f} s"
    )
    picture = circuit.readout is not None and circuit.readout.wanted == "image"
    if picture and images is not None:
        error = float(((result.readout - images.reshape(len(images), -1)) ** 2).mean())
        print(f"mean squared error of the pictures: {error:.4g}")
    elif result.readout is not None and labels is not None:
        note = "" if arguments.weights else " (weights not trained; --weights RUN_DIR takes those of a run)"
        print(f"accuracy over these samples: {float((result.readout.argmax(1) == labels).mean()):.4f}{note}")
    for phase, value in result.settling_by_phase.items() if not result.spikes else ():
        print(f"settling, {phase}: {value:.2e}")
    for population, spikes in result.spikes.items():
        print(f"spikes, {population}: {_listed(spikes)}")
    if result.traces is not None:
        print(f"wrote {result.traces.save(out / 'traces.h5')}")
        panels = None if arguments.record else _panels(result.traces)
        save_traces(result.traces, out / "traces.png", variables=panels)
        print(f"wrote {out / 'traces.png'}")
    write_whole(out / "result.json", (json.dumps(_summary(circuit, result, labels), indent=2) + "\n").encode())
    print(f"wrote {out / 'result.json'}")


def _panels(traces: Any) -> list[Any] | None:
    """Compartments of a spiking population in one panel, their potentials only; None (a panel each) without spikes."""
    panels = [
        [name for name, unit in traces.units.items() if name.partition(".")[0] == population and unit == "volt"]
        for population in traces.spikes
    ]
    return [panel for panel in panels if panel] or None


def _summary(circuit: Any, result: Any, labels: Any) -> dict[str, Any]:
    """What ``result.json`` of `simulate` holds; spikes are counts per population."""
    classifies = circuit.readout is not None and circuit.readout.wanted == "target" and labels is not None
    right = float((result.readout.argmax(1) == labels).mean()) if classifies else None
    return {
        "model": circuit.name,
        "level": result.level,
        "steps": result.steps,
        "seconds": result.seconds,
        "accuracy": right,
        "settling": result.settling,
        "unsettled": result.unsettled,
        "spikes": {population: len(spikes.time) for population, spikes in result.spikes.items()},
    }


def _listed(spikes: Any) -> str:
    times = ", ".join(f"{1e3 * t:.2f}" for t in spikes.time[:8])
    return f"{len(spikes.time)}" + (f" (at {times}{', ...' if len(spikes.time) > 8 else ''} ms)" if times else "")


def _compare(arguments: argparse.Namespace) -> None:
    from neurosim import compare

    circuit, weights, name, normalise = _circuit(arguments, arguments.data)
    images, labels = _samples(arguments, name, normalise) if circuit.plan.clamped_fields else (None, None)
    levels = arguments.levels or (None if arguments.level is None else [arguments.level])
    out = _folder(arguments)
    with _kept(out):
        comparison = compare(
            circuit, images, labels, levels=levels, weights=weights, record=arguments.record, data=name,
            predictions=weights is not None, **_options(arguments),
        )  # fmt: skip
    print(comparison.markdown())
    for path in comparison.save(out):
        print(f"wrote {path}")


def _train(arguments: argparse.Namespace) -> None:
    from neurosim.backends.torch.workers import is_first, leave
    from neurosim.training import resolve, resume
    from neurosim.training.run import RESULT, accuracy_text, remarks
    from neurosim.training.trainer import start

    if arguments.resume:
        if arguments.model:
            raise NeurosimError(
                f"--resume {arguments.resume} goes on with the run of that folder; leave '{arguments.model}' out."
            )
        out = Path(arguments.resume)
        finished = (out / RESULT).is_file()
        with _resumable(out):
            run: Any = resume(out)
    else:
        values, weights = _experiment(arguments)
        config = resolve(values.pop("model"), values.pop("settings"), **values)  # complain before a folder is made
        arguments.model = config.model
        finished = False
        out = _folder(arguments) if is_first() else Path(arguments.out or "runs")  # under torchrun one process makes it
        with _resumable(out):
            run = start(
                config, out, arguments.data_dir, weights, command=arguments.command_line, overwrite=arguments.overwrite
            )
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
    print(f"wrote config.toml, metrics.jsonl, result.json, weights.safetensors{best} in {out}")


def _experiment(arguments: argparse.Namespace) -> tuple[dict[str, Any], Any]:
    """What is to be trained: an experiment file or a model's name, what the command line says beside it, weights to start from."""
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
    return values, weights


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
        out = Path(arguments.resume)
        config = evolution.kept(out)
        if arguments.generations is not None:
            config = replace(config, generations=arguments.generations)
    else:
        if arguments.model is None:
            raise NeurosimError("Wanted a model, or --resume DIR; `neurosim evolve --help` shows examples.")
        names = ("data", "strategy", "generations", "population", "steps", "seed", "dtype", "device")
        given = {name: getattr(arguments, name) for name in names}
        config = configuration.resolved(arguments.model, registry.parse_settings(arguments.settings), **given)
        out = _folder(arguments) if is_first() else Path(arguments.out or "runs")
    try:
        result = evolution.run(
            config,
            out,
            arguments.data_dir,
            resume=bool(arguments.resume),
            overwrite=arguments.overwrite,
            minutes=arguments.minutes,
            command=arguments.command_line,
        )
    except KeyboardInterrupt as interrupt:
        if not (out / evolution.CONFIG).is_file():  # nothing was evolved yet
            raise
        raise KeyboardInterrupt(f"{interrupt} `neurosim evolve --resume {out}` goes on.".strip()) from None
    leave()
    if result:
        if text := evolution.text_of(result):  # none where tasks have fewer classes than the data set
            print(text)
        print(
            f"wrote {evolution.NAME} ({result['searched']} evolved weights) and result.json in {out} after {result['generations']} generations"
        )


@contextlib.contextmanager
def _resumable(out: Path) -> Iterator[None]:
    """After Ctrl-C or a full disk: what is kept, and how to go on."""
    from neurosim.training.run import CONFIG

    try:
        yield
    except (KeyboardInterrupt, OSError) as error:
        if not (out / CONFIG).exists():
            raise
        kept = (
            f"Metrics and weights of the epochs that ended are kept in {out}; `neurosim train --resume {out}` goes on."
        )
        if isinstance(error, OSError):
            raise NeurosimError(f"{_disk(error)} {kept}") from error
        raise KeyboardInterrupt(kept) from None


def _sweep(arguments: argparse.Namespace) -> None:
    from tqdm import tqdm

    from neurosim.training import sweep
    from neurosim.training.run import accuracy_text

    for option, value, least in (("--workers", arguments.workers, 1), ("--tries", arguments.tries, 0)):
        if value is not None and value < least:
            raise NeurosimError(f"{option} {value}: wanted at least {least}.")
    if arguments.workers and arguments.scheduler not in (None, "local"):
        raise NeurosimError("--workers belongs to this machine; a dask cluster has workers of its own. Leave it out.")
    out = Path(arguments.out or Path("runs") / Path(arguments.file).stem)
    placed = sweep.folders(sweep.expand(arguments.file), out)
    chosen = {f: c for f, c in placed.items() if not arguments.only or arguments.only in str(f.relative_to(out))}
    if not chosen:
        names = ", ".join(str(f.relative_to(out)) for f in placed)
        raise NeurosimError(f"--only {arguments.only}: no run has that in its name. Runs: {names}.")
    states = {folder: sweep.state(folder, config) for folder, config in chosen.items()}
    if arguments.dry_run:
        for folder, state in states.items():
            print(f"{state:11}{folder}")
        return
    out.mkdir(parents=True, exist_ok=True)
    shared = {
        "data_dir": arguments.data_dir and str(Path(arguments.data_dir).absolute()),
        "command": arguments.command_line,
        "tries": arguments.tries,
        "threads": os.environ.get("OMP_NUM_THREADS", "1"),
        "cwd": os.getcwd(),
    }
    names = {folder.absolute(): folder for folder in chosen}
    jobs = [sweep.Job(folder.absolute(), config, **shared) for folder, config in chosen.items()]
    failed: list[Path] = []

    def tell(folder: Path, result: dict[str, Any], when: str = "") -> None:
        if result and "failed" not in result:
            tqdm.write(f"finished{when}  {folder}: {accuracy_text(result)}, {result['seconds']:.1f} s")
        else:
            failed.append(folder)
            tqdm.write(f"failed{when}  {folder}: {result.get('failed', 'it was stopped.')}")
        bar.update(1)

    with tqdm(total=len(jobs), desc="runs", unit="run") as bar:
        left = [job for job in jobs if states[names[job.folder]] in ("new", "unfinished")]
        for job in jobs:
            if job not in left:
                tell(names[job.folder], sweep.read_result(job.folder), " before")
        try:
            with contextlib.closing(sweep.train_all(left, arguments.workers, arguments.scheduler)) as results:
                for job, result in results:
                    tell(names[job.folder], result)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"`{arguments.command_line}` goes on from the checkpoints.") from None
    if failed:
        raise NeurosimError(
            f"{len(failed)} of {len(jobs)} runs failed: {', '.join(map(str, failed))}. Each says why in its {sweep.LOG}. One that diverged "
            "would do so again; delete its folder to train it anew."
        )


def _table(arguments: argparse.Namespace) -> None:
    from neurosim.errors import unknown
    from neurosim.training import table

    if arguments.format not in table.FORMATS:
        raise unknown("format", arguments.format, table.FORMATS)
    rows = table.collect(arguments.folders)
    summaries = table.summarise(rows, arguments.baseline, arguments.metric)
    text = table.FORMATS[arguments.format](summaries, rows, arguments.metric)
    if arguments.to is None:
        print(text, end="")
    else:
        print(f"wrote {write_whole(Path(arguments.to), text.encode())}")


def _plot(arguments: argparse.Namespace) -> None:
    from neurosim.plot import save_learning_curves, save_traces
    from neurosim.traces import Traces
    from neurosim.training import load

    paths = [Path(p) for p in arguments.paths]
    for path in paths:
        if not path.exists():
            raise NeurosimError(f"There is no '{path}'; give a traces.h5 or a run folder of `neurosim train`.")
    if all(p.is_dir() and not (p / "traces.h5").exists() for p in paths):
        to = Path(arguments.to or paths[0] / "curves.png")
        names = [p.name for p in paths]
        labels = [p.name if names.count(p.name) == 1 else str(p) for p in paths]
        curves = {label: load(p).metrics for label, p in zip(labels, paths, strict=True)}
        for label, metrics in curves.items():
            if not metrics:
                raise NeurosimError(f"The run '{label}' has no epoch that ended, so there is no curve to draw.")
        save_learning_curves(curves, to)
    else:
        if len(paths) > 1:
            raise NeurosimError("Traces are drawn one file at a time; give one path.")
        path = paths[0] / "traces.h5" if paths[0].is_dir() else paths[0]
        to = Path(arguments.to or path.with_suffix(".png"))
        save_traces(Traces.load(path), to, variables=arguments.record, cells=arguments.cells)
    print(f"wrote {to}")


def _data(arguments: argparse.Namespace) -> None:
    from neurosim import data

    for row in data.status(arguments.data_dir):
        where = (
            f"{row.train} train, {row.validation} validation, {row.test} test; {row.where}"
            if row.found
            else "not found"
        )
        print(f"{row.name:16} {where}{f'; {row.remark}' if row.remark else ''} ({row.licence})")
        if row.problem:
            print(textwrap.indent(row.problem, " " * 17))
    print(f"{'images:PATH':16} a folder or tar archive of your own with train/<class>/<image> and test/<class>/<image>")


def _fetch(arguments: argparse.Namespace) -> None:
    from neurosim import data

    for path in data.fetch(arguments.name, arguments.data_dir, arguments.url):
        print(path)


# ---------------------------------------------------------------- shared by commands


def _circuit(arguments: argparse.Namespace, dataset: str | None) -> tuple[Any, Any, str, str]:
    """The circuit, the weights of ``--weights`` (or None), the data set and the normalisation that the run was trained with."""
    from neurosim import registry
    from neurosim.training import load

    model = registry.model(arguments.model)
    settings, weights = registry.parse_settings(arguments.settings), None
    name, normalise = dataset or "digits", "none"
    if arguments.weights:
        run = load(arguments.weights)
        settings, weights = {**run.config.settings, **settings}, run.weights
        name, normalise = dataset or run.config.data, run.config.normalise
    else:  # the circuit that `train` would start from
        settings = {k: v for k, v in model.preset(settings, name).items() if k in model.parameters} | settings
    return model.circuit(settings), weights, name, normalise


def _samples(arguments: argparse.Namespace, name: str, normalise: str) -> tuple[Any, Any]:
    """The first samples of the test set (weights given: unseen ones) or of the training set."""
    from neurosim import data

    count = arguments.samples if arguments.samples is not None else 4
    dataset = data.normalise(data.load(name, arguments.data_dir), normalise)
    images, labels = dataset.split("test" if arguments.weights else "train")
    if not 1 <= count <= len(images):
        raise NeurosimError(f"--samples {count}: wanted between 1 and {len(images)}.")
    return images[:count], labels[:count]


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
    return dict(
        dt=arguments.dt, seed=arguments.seed or 0, batch_size=arguments.batch_size, plasticity=arguments.plasticity,
        dtype=arguments.dtype or "float64", device=arguments.device or "cpu", codegen=arguments.codegen or "numpy",
        solver=arguments.solver,
    )  # fmt: skip


def _folder(arguments: argparse.Namespace) -> Path:
    """The output folder, made; one that is not empty is refused unless ``--overwrite``."""
    stem = Path(arguments.model.partition(":")[0]).stem
    default = f"runs/{arguments.command}-{stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    out = Path(arguments.out or default)
    if out.exists() and not out.is_dir():
        raise NeurosimError(f"--out {out} is a file; give a folder.")
    if out.is_dir() and any(out.iterdir()) and not arguments.overwrite:
        raise NeurosimError(f"The folder '{out}' is not empty; give another --out, or --overwrite.")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NeurosimError(f"The folder '{out}' cannot be made: {error.strerror}; give another --out.") from error
    if not os.access(out, os.W_OK):
        raise NeurosimError(
            f"The folder '{out}' cannot be written to (read-only, or no permission); give another --out."
        )
    return out


@contextlib.contextmanager
def _kept(out: Path) -> Iterator[None]:
    """Saves what was recorded before a divergence, and says where."""
    try:
        yield
    except DivergenceError as error:
        traces = getattr(error.result, "traces", None)
        if traces is None:
            raise
        path = traces.save(out / "traces.h5")
        raise DivergenceError(f"{error} What was recorded so far is in {path}.", error.result) from error


if __name__ == "__main__":
    sys.exit(main())
