"""The command line: `neurosim list | describe | simulate | compare | train | evolve | sweep | table | plot | export | data | trust`."""

from __future__ import annotations

import argparse
import io
import shlex
import sys
import traceback
from collections.abc import Sequence

from neurosim import _start
from neurosim._version import __version__
from neurosim.cli import data, describe, evolve, export, plot, simulate, sweep, train, trust
from neurosim.cli.common import Commands, disk_problem
from neurosim.errors import NeurosimError


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status (0 done, 1 error, 2 wrong usage, 130 Ctrl-C)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in argv
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal of latin-1 gets what it lacks as \u2013
    arguments = argparse.Namespace()
    try:
        _start.take_over()
        _check_model_first(argv)
        arguments = parser().parse_args(argv)
        arguments.command_line = "neurosim " + shlex.join(argv)
        arguments.run(arguments)
        return 0
    except KeyboardInterrupt as interrupt:
        if debug:
            traceback.print_exc()
        print(f"\nStopped by Ctrl-C.{' ' + str(interrupt) if str(interrupt) else ''}", file=sys.stderr)
        return _start.INTERRUPTED
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
        option = next((f"--{name}" for name in ("to", "out") if hasattr(arguments, name)), None)
        print(f"error: {disk_problem(error, option)}", file=sys.stderr)
        return 1
    except Exception as error:
        if debug:
            traceback.print_exc()
        print(f"error: {type(error).__name__}: {error} (unexpected; --debug shows where)", file=sys.stderr)
        return 1
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
