"""`neurosim list` and `neurosim describe`."""

from __future__ import annotations

import argparse

from neurosim.cli.common import Commands, circuit_of, model_argument


def add(commands: Commands) -> None:
    """Add the subcommands."""
    commands.add("list", _list, "List the models.", "  neurosim list\n")
    describe = commands.add(
        "describe", _describe, "Print a model's populations, equations, projections, rules and protocol.",
        "  neurosim describe ghost_units --set mode=learned\n",
    )  # fmt: skip
    model_argument(describe)
    describe.add_argument("--data", metavar="NAME", help="data set that the preset's sizes are for (default digits)")
    describe.add_argument("--weights", metavar="RUN_DIR", help="describe the circuit of a trained run")


def _list(arguments: argparse.Namespace) -> None:
    from neurosim import registry

    for name in registry.names():
        print(f"{name:24} {registry.model(name).summary}")


def _describe(arguments: argparse.Namespace) -> None:
    from neurosim.describe import describe

    circuit, *_ = circuit_of(arguments, arguments.data)
    print(describe(circuit))
