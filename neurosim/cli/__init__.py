"""The command line: `neurosim list | describe | simulate | compare | train | evolve | sweep | table | plot | export | data | trust`."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence

from neurosim import _start
from neurosim._version import __version__
from neurosim.cli import data, describe, evolve, export, plot, simulate, sweep, train, trust
from neurosim.cli.common import Commands
from neurosim.exits import exit_status


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status (0 done, 1 error, 2 wrong usage, 130 Ctrl-C)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    arguments = argparse.Namespace()

    def command() -> None:
        _start.take_over()
        _check_model_first(argv)
        parser().parse_args(argv, arguments)
        arguments.command_line = "neurosim " + shlex.join(argv)
        arguments.run(arguments)

    def option() -> str | None:
        return next((f"--{name}" for name in ("to", "out") if hasattr(arguments, name)), None)

    try:
        return exit_status(command, option, debug="--debug" in argv)
    finally:
        _start.hand_back()


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
    top.add_argument("--version", action="version", version=f"neurosim {__version__}")
    commands = Commands(top)
    for module in (describe, simulate, train, evolve, sweep, plot, export, data, trust):
        module.add(commands)
    return top
