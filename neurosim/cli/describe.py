"""`neurosim list` and `neurosim describe`."""

from __future__ import annotations

import argparse
from pathlib import Path

from neurosim.cli.common import TEXTS, Commands, check_files, circuit_of, model_argument
from neurosim.errors import NeurosimError
from neurosim.files import user_text, write_whole


def add(commands: Commands) -> None:
    """Add the subcommands."""
    commands.add("list", _list, "List the models.", "  neurosim list\n")
    describe = commands.add(
        "describe", _describe,
        "Report a model's populations, projections, equations, rules and protocol, in the tables of papers.",
        "  neurosim describe ghost_units --set mode=learned\n"
        "  neurosim describe bac_firing --to bac_firing.tex          # pdflatex, twice for references\n"
        "  neurosim describe tdca --format markdown --to tdca.md\n"
        "  neurosim describe tdca --format bibtex\n",
    )  # fmt: skip
    model_argument(describe)
    describe.add_argument("--data", metavar="NAME", help="data set that the preset's sizes are for (default digits)")
    describe.add_argument("--weights", type=user_text, metavar="RUN_DIR", help="describe the circuit of a trained run")
    describe.add_argument(
        "--format", metavar="FORMAT", help="text, markdown, latex or bibtex (default: by the file's suffix, else text)"
    )
    describe.add_argument(
        "--to",
        type=user_text,
        metavar="FILE",
        help="write a file (.txt, .md, .tex, .bib) in place of printing; run pdflatex twice on a .tex, for its references",
    )
    describe.add_argument("--overwrite", action="store_true", help="replace a file that is there")


def _list(arguments: argparse.Namespace) -> None:
    from neurosim import registry

    for name in registry.names():
        print(f"{name:24} {registry.model(name).summary}")


def _describe(arguments: argparse.Namespace) -> None:
    from neurosim.describe import FORMATS, SUFFIXES, describe

    path = Path(arguments.to) if arguments.to else None
    chosen = arguments.format or (SUFFIXES.get(path.suffix) if path else "text")
    if chosen is None:
        raise NeurosimError(
            f"--to {path}: wanted a suffix of {', '.join(SUFFIXES)}, or --format {' | '.join(FORMATS)}."
        )
    if path is not None:
        check_files([path], arguments.overwrite, TEXTS)
    circuit, *_ = circuit_of(arguments, arguments.data)
    report = describe(circuit, chosen).rstrip("\n") + "\n"
    if path is None:
        print(report, end="")
        return
    write_whole(path, report.encode())
    print(f"wrote {path}")
