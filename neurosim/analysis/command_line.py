"""The command line that experiments share."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from neurosim.files import user_path


def parser(text: str, results: Path, seeds: int | None = None) -> argparse.ArgumentParser:
    """``--out`` (default `results`), and ``--seeds`` (default `seeds`) unless the experiment is a single run."""
    found = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    if seeds is not None:
        found.add_argument(
            "--seeds", type=_count, default=seeds, help=f"number of seeds, 0 to SEEDS - 1 (default: {seeds})"
        )
    found.add_argument(
        "--out", type=user_path, default=results, help="folder of the results (default: results/ beside this)"
    )
    return found


def parse(command: argparse.ArgumentParser) -> argparse.Namespace:
    """The options; the folder of the results is made, and torch runs on one thread."""
    options = command.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    return options


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("wanted a whole number of 1 or more")
    return value
