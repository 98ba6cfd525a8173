"""`neurosim sweep` and `neurosim table`."""

from __future__ import annotations

import argparse
import contextlib
import os
from pathlib import Path
from typing import Any

from neurosim.cli.common import TEXTS, Commands, check_files
from neurosim.errors import NeurosimError
from neurosim.exits import goes_on
from neurosim.files import user_text, write_whole


def add(commands: Commands) -> None:
    """Add the subcommands."""
    sweep = commands.add(
        "sweep", _sweep, "Train the runs of a file side by side; the same command again goes on with what is left.",
        "  neurosim sweep compare.toml --dry-run\n"
        "  neurosim sweep compare.toml --workers 4\n"
        "  neurosim sweep compare.toml --scheduler tcp://node1:8786\n",
    )  # fmt: skip
    sweep.add_argument(
        "file", type=user_text, metavar="FILE", help="an experiment file with seeds, [[run]] tables or a [grid]"
    )
    sweep.add_argument(
        "--out", type=user_text, metavar="DIR", help="folder of the runs (default runs/FILE without its ending)"
    )
    sweep.add_argument("--workers", type=int, metavar="N", help="runs at a time (default: the number of cores)")
    sweep.add_argument(
        "--scheduler", metavar="ADDRESS",
        help="train on a dask cluster that sees the same files, or 'local' for one on this machine",
    )  # fmt: skip
    sweep.add_argument(
        "--tries", type=int, default=2, metavar="K", help="go on K times with a run that dies (default 2)"
    )
    sweep.add_argument("--data-dir", type=user_text, metavar="DIR", help="folder of data sets (default: NEUROSIM_DATA)")
    sweep.add_argument("--only", metavar="TEXT", help="only runs with TEXT in the name of their folder")
    sweep.add_argument("--dry-run", action="store_true", help="list the runs and how far they are, and train none")

    table = commands.add(
        "table", _table, "Compare finished runs: mean, sd, intervals, cost, and a paired test against a baseline.",
        "  neurosim table runs/compare\n"
        "  neurosim table runs/compare --baseline feedback_alignment --format latex --to table.tex\n",
    )  # fmt: skip
    table.add_argument(
        "folders", nargs="+", type=user_text, metavar="DIR", help="folders with run folders in or below them"
    )
    table.add_argument("--format", default="markdown", metavar="FORMAT", help="markdown (default), latex or csv")
    table.add_argument("--to", type=user_text, metavar="FILE", help="file to write (default: print)")
    table.add_argument("--overwrite", action="store_true", help="replace a table that is there")
    table.add_argument("--baseline", metavar="NAME", help="the method to compare with (default backprop)")
    table.add_argument(
        "--metric",
        default="test_accuracy",
        metavar="METRIC",
        help="test_accuracy (default), validation_accuracy, test_loss or validation_loss",
    )


def _sweep(arguments: argparse.Namespace) -> None:
    from tqdm import tqdm

    from neurosim import registry
    from neurosim.training import sweep
    from neurosim.training.run import accuracy_text

    for option, value, least in (("--workers", arguments.workers, 1), ("--tries", arguments.tries, 0)):
        if value is not None and value < least:
            raise NeurosimError(f"{option} {value}: wanted at least {least}.")
    if arguments.workers and arguments.scheduler not in (None, "local"):
        raise NeurosimError("--workers belongs to this machine; a dask cluster has workers of its own. Leave it out.")
    out = Path(arguments.out or Path("runs") / Path(arguments.file).stem)
    placed = sweep.folders(sweep.expand(arguments.file, look=arguments.dry_run), out)
    chosen = {f: c for f, c in placed.items() if not arguments.only or arguments.only in str(f.relative_to(out))}
    if not chosen:
        names = ", ".join(str(f.relative_to(out)) for f in placed)
        raise NeurosimError(f"--only {arguments.only}: no run has that in its name. Runs: {names}.")
    unread = {folder for folder, config in chosen.items() if arguments.dry_run and registry.is_file(config.model)}
    states = {folder: sweep.state(folder, None if folder in unread else c) for folder, c in chosen.items()}
    if arguments.dry_run:
        for folder, state in states.items():
            print(f"{state:11}{folder}")
        return
    if (out.exists() or out.is_symlink()) and not out.is_dir():
        raise NeurosimError(f"--out {out} is a file; give a folder.")
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
        runs = contextlib.closing(sweep.train_all(left, arguments.workers, arguments.scheduler))
        with goes_on(lambda: f"`{arguments.command_line}` goes on from the checkpoints."), runs as results:
            for job, result in results:
                tell(names[job.folder], result)
    if failed:
        diverged = [folder for folder in failed if "failed" in sweep.read_result(folder)]
        again = "One that diverged would do so again; delete its folder to train it anew." if diverged else ""
        if len(diverged) < len(failed):
            again = f"`{arguments.command_line}` goes on with {'the others' if diverged else 'them'}. {again}".strip()
        raise NeurosimError(
            f"{len(failed)} of {len(jobs)} runs failed: {', '.join(map(str, failed))}. Each says why in its {sweep.LOG}. {again}"
        )


def _table(arguments: argparse.Namespace) -> None:
    from neurosim.errors import unknown
    from neurosim.training import table

    if arguments.format not in table.FORMATS:
        raise unknown("format", arguments.format, table.FORMATS)
    if arguments.to is not None:
        check_files([Path(arguments.to)], arguments.overwrite, TEXTS)
    rows = table.collect(arguments.folders)
    summaries = table.summarise(rows, arguments.baseline, arguments.metric)
    text = table.FORMATS[arguments.format](summaries, rows, arguments.metric)
    if arguments.to is None:
        print(text, end="")
    else:
        print(f"wrote {write_whole(Path(arguments.to), text.encode())}")
