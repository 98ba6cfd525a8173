"""What several commands share: options, the circuit they name, samples, the output folder."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from neurosim.errors import NeurosimError
from neurosim.files import LOCK, check_owner, check_replaceable, locked, user_text

#: Recordings of `neurosim simulate` and `neurosim train` in their folders.
RECORDINGS = ("traces.h5", "recording.h5")
SOLVER = "of torch:steady: anderson (default), sweeps, or relaxation: the circuit's published scheme"


class Commands:
    """The subcommands of `neurosim`; each module of this package adds its own."""

    def __init__(self, parser: argparse.ArgumentParser):
        self._subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(self, name: str, run: Any, text: str, examples: str = "") -> argparse.ArgumentParser:
        """A subcommand that calls ``run(arguments)``."""
        sub = self._subparsers.add_parser(
            name, help=text, description=text, formatter_class=argparse.RawDescriptionHelpFormatter,
            epilog=f"examples:\n{examples}" if examples else None,
        )  # fmt: skip
        sub.add_argument("--debug", action="store_true", help="show the traceback of an error")
        sub.set_defaults(run=run)
        return sub


def model_argument(sub: argparse.ArgumentParser) -> None:
    name = "a name from `neurosim list`, or file.py:function"
    if sub.prog.endswith(" train"):
        sub.add_argument(
            "model", nargs="?", type=user_text, metavar="MODEL", help=f"{name}, or an experiment file (.toml)"
        )
    elif sub.prog.endswith(" evolve"):
        sub.add_argument("model", nargs="?", type=user_text, metavar="MODEL", help=name)
    else:
        sub.add_argument("model", type=user_text, metavar="MODEL", help=name)
    sub.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="settings",
        help="a parameter of model, protocol or schedule; may be repeated (--set mode=learned --set sizes=784,500,10)",
    )  # fmt: skip


def shared_arguments(sub: argparse.ArgumentParser, level: str | None) -> None:
    from neurosim.backends import LEVELS

    model_argument(sub)
    sub.add_argument("--data", metavar="NAME", help="data set (default digits)")
    sub.add_argument("--data-dir", type=user_text, metavar="DIR", help="folder of data sets (default: NEUROSIM_DATA)")
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
    sub.add_argument("--weights", type=user_text, metavar="RUN_DIR", help="settings and weights of a trained run")
    sub.add_argument("--out", type=user_text, metavar="DIR", help="output folder (default runs/COMMAND-MODEL-TIME)")
    sub.add_argument("--overwrite", action="store_true", help="write into a folder that is not empty")


def dynamics_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--stimuli", type=user_text, metavar="FILE.npz", help="stimuli of your own in place of --data: arrays images (samples, pixels) and, where the circuit clamps a target, labels: class numbers (samples,) or values (samples, classes)"
    )  # fmt: skip
    sub.add_argument("--dt", metavar="TIME", help="Euler step (default: the circuit's)")
    sub.add_argument("--batch-size", type=int, default=1, metavar="B", help="samples presented at once (default 1)")
    sub.add_argument("--plasticity", default="on", help="on (default), off, or held: collect the change only")


def recording_arguments(sub: argparse.ArgumentParser, trials: str) -> None:
    """What is recorded; `trials` says which trials are by default."""
    sub.add_argument(
        "--record", nargs="+", metavar="NAME", help="variables (pyr1.u) and projections whose weights (W1) are recorded"
    )
    sub.add_argument(
        "--cells", action="append", default=[], metavar="POP=K,K", help="cells of a population that are recorded (pyr1=0,3,7; default all); may be repeated"
    )  # fmt: skip
    sub.add_argument(
        "--spikes", action="append", default=[], metavar="POP=K,K",
        help="cells of a population whose spikes are kept (exc=0,3,7; exc= for none; default all); may be repeated",
    )  # fmt: skip
    sub.add_argument(
        "--stride", type=int, metavar="K", help="record every K steps (default 1); torch:steady has one row per phase"
    )
    sub.add_argument("--phases", nargs="+", metavar="PHASE", help="record in these phases only")
    sub.add_argument("--trials", type=int, metavar="N", help=f"record every N-th trial (default {trials})")


def recorder_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Those options of a `Recorder` that the command line names."""
    given = {
        "variables": arguments.record,
        "cells": _numbers_of_cells("cells", arguments.cells),
        "spikes": _numbers_of_cells("spikes", getattr(arguments, "spikes", [])),
        "stride": arguments.stride,
        "phases": arguments.phases,
        "trials": arguments.trials,
    }
    return {name: value for name, value in given.items() if value not in (None, {})}


def _numbers_of_cells(option: str, texts: Sequence[str]) -> dict[str, list[int]]:
    """``POP=K,K`` as a table; ``POP=`` names no cell."""
    cells: dict[str, list[int]] = {}
    for text in texts:
        population, _, numbers = text.partition("=")
        try:
            cells[population] = [int(k) for k in numbers.split(",")] if numbers or "=" not in text else []
        except ValueError:
            raise NeurosimError(
                f"--{option} {text}: wanted a population and numbers of cells, such as pyr1=0,3,7."
            ) from None
    return cells


def circuit_of(arguments: argparse.Namespace, dataset: str | None) -> tuple[Any, Any, str, str]:
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
        settings = model.checked(settings)
        settings = {k: v for k, v in model.preset(settings, name).items() if k in model.parameters} | settings
    return model.circuit(settings), weights, name, normalise


def samples_of(arguments: argparse.Namespace, circuit: Any, name: str, normalise: str) -> tuple[Any, Any]:
    """The first samples of the test set (weights given: unseen ones) or of the training set, or of ``--stimuli`` (default all); None of a
    circuit that clamps nothing."""
    from neurosim import data
    from neurosim.stimuli import call, check_short

    if arguments.stimuli and arguments.data:
        raise NeurosimError(f"Got --stimuli {arguments.stimuli} and --data {arguments.data}; give one of them.")
    if not circuit.plan.clamped_fields:
        if arguments.stimuli:
            raise NeurosimError(f"The circuit clamps nothing, so --stimuli {arguments.stimuli} would not be seen.")
        return None, None
    python = f"In Python, {call(circuit, f'neurosim.{arguments.command}')} takes any field."
    check_short(circuit, "the command line presents", python)
    if arguments.stimuli:
        images, labels = _stimuli_in(Path(arguments.stimuli))
        default = len(images)
    else:
        dataset = data.normalise(data.load(name, arguments.data_dir), normalise)
        images, labels = dataset.split("test" if arguments.weights else "train")
        default = 4
    count = arguments.samples if arguments.samples is not None else default
    if not 1 <= count <= len(images):
        raise NeurosimError(f"--samples {count}: wanted between 1 and {len(images)}.")
    return images[:count], None if labels is None else labels[:count]


def _stimuli_in(path: Path) -> tuple[Any, Any]:
    """Images and labels (or None) of a file that ``numpy.savez`` wrote; `neurosim.stimuli` checks them against the circuit."""
    from neurosim.data.npz import read_npz

    wanted = "wanted a file .npz as numpy.savez(FILE, images=..., labels=...) writes it"
    if path.suffix.lower() != ".npz":
        raise NeurosimError(f"--stimuli {path}: {wanted}.")
    if not path.is_file():
        raise NeurosimError(f"--stimuli {path}: there is no such file; {wanted}.")
    try:
        arrays = read_npz(path)
    except NeurosimError as error:
        raise NeurosimError(f"--stimuli {str(error).rstrip('.')}; {wanted}.") from error
    if "images" not in arrays or not set(arrays) <= {"images", "labels"}:
        raise NeurosimError(f"--stimuli {path} holds {', '.join(sorted(arrays)) or 'nothing'}; {wanted}.")
    images, labels = arrays["images"], arrays.get("labels")
    if images.ndim < 2 or not len(images) or (labels is not None and labels.shape[:1] != images.shape[:1]):
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise NeurosimError(
            f"--stimuli {path} has the shapes {shapes}; wanted images (samples, pixels) and labels (samples,) or (samples, classes)."
        )
    return images, labels


def options_of(arguments: argparse.Namespace) -> dict[str, Any]:
    return dict(
        dt=arguments.dt, seed=arguments.seed or 0, batch_size=arguments.batch_size, plasticity=arguments.plasticity,
        dtype=arguments.dtype or "float64", device=arguments.device or "cpu", codegen=arguments.codegen or "numpy",
        solver=arguments.solver,
    )  # fmt: skip


@contextlib.contextmanager
def output_folder(arguments: argparse.Namespace, own: str | None = None) -> Iterator[Path]:
    """The output folder, made and held against other processes; one that is not empty is refused unless ``--overwrite``.

    `own` is the configuration file of what this command leaves there, see `check_owner`. Without ``--out`` the folder is a new one.
    """
    out = Path(arguments.out) if arguments.out else _new_folder(arguments)
    if (out.exists() or out.is_symlink()) and not out.is_dir():
        raise NeurosimError(f"--out {out} is a file; give a folder.")
    if out.is_dir() and not os.access(out, os.W_OK):
        raise NeurosimError(
            f"The folder '{out}' cannot be written to (read-only, or no permission); give another --out."
        )
    try:
        with locked(out):
            if not arguments.overwrite and any(path.name != LOCK for path in out.iterdir()):
                raise NeurosimError(f"The folder '{out}' is not empty; give another --out, or --overwrite.")
            check_owner(out, own)
            yield out
    finally:
        if not arguments.out:
            with contextlib.suppress(OSError):  # where nothing was written
                out.rmdir()


def _new_folder(arguments: argparse.Namespace) -> Path:
    """``runs/COMMAND-MODEL-TIME``, or with -2, -3, ... behind: commands of the same second each get their own."""
    from neurosim import registry

    stem = registry.split(arguments.model)[0].stem
    name = f"{arguments.command}-{stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    for number in itertools.count(1):
        out = Path("runs") / (name if number == 1 else f"{name}-{number}")
        try:
            out.parent.mkdir(exist_ok=True)
            out.mkdir()
        except FileExistsError:
            if out.parent.is_dir():
                continue
            raise NeurosimError("'runs' is a file, and runs go to a folder of that name; give --out.") from None
        except OSError as error:
            raise NeurosimError(f"The folder '{out}' cannot be made: {error.strerror}; give another --out.") from error
        return out
    raise AssertionError


def recording_in(path: Path) -> Path | None:
    """The recording that a path names, itself or in its folder; None where the folder holds none."""
    if not path.is_dir():
        return path  # `Traces.load` says whether it is one
    return next((path / name for name in RECORDINGS if (path / name).is_file()), None)


#: Suffixes of reports and tables, which are text.
TEXTS = (".txt", ".md", ".markdown", ".tex", ".bib", ".csv")


def check_files(files: Iterable[Path], overwrite: bool, suffixes: Sequence[str], source: Path | None = None) -> None:
    """Refuse ``--to`` of files that are there unless ``--overwrite``, which replaces files of these suffixes only.

    Also a folder, a file in a folder that does not exist, and the `source` that the command reads.
    """
    files = list(files)
    for file in files:
        if file.is_dir():
            raise NeurosimError(f"--to {file} is a folder; give the name of a file.")
        if not file.parent.is_dir():
            raise NeurosimError(f"The folder '{file.parent}' does not exist; make it, or give another --to.")
    there = [file for file in files if os.path.lexists(file)]
    if there and not overwrite:
        names = " and ".join(map(str, there))
        raise NeurosimError(f"There is already {names}; give another --to, or --overwrite.")
    for file in there:
        if source is not None and file.exists() and file.samefile(source):
            raise NeurosimError(f"--to {file} is the file that is read; give another name.")
        if file.suffix.lower() not in suffixes:
            raise NeurosimError(
                f"--overwrite replaces files that end in {', '.join(suffixes)}, and '{file}' is there; give another --to."
            )
        check_replaceable(file)
