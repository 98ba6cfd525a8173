"""`neurosim trust`."""

from __future__ import annotations

import argparse

from neurosim.cli.common import Commands
from neurosim.files import user_text


def add(commands: Commands) -> None:
    """Add the subcommand."""
    trust = commands.add(
        "trust", _trust,
        "Trust a model file as it is now: it may run where only a run folder or an experiment file names it.",
        "  neurosim trust net.py\n",
    )  # fmt: skip
    trust.add_argument("files", nargs="+", type=user_text, metavar="FILE", help="a model file, which you have read")


def _trust(arguments: argparse.Namespace) -> None:
    from neurosim import registry, trusted

    for name in arguments.files:
        path, _ = registry.split(name)
        registry.allowed(path, None)
        trusted.add(path)
        print(f"trusts {path.resolve()}, until it changes ({trusted.list_of_files()})")
