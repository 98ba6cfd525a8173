"""`neurosim plot`."""

from __future__ import annotations

import argparse
from pathlib import Path

from neurosim.cli.common import Commands
from neurosim.errors import NeurosimError


def add(commands: Commands) -> None:
    """Add the subcommand."""
    plot = commands.add(
        "plot", _plot, "Draw traces.h5, or the learning curves of run folders.",
        "  neurosim plot runs/traces/traces.h5 --record pyr1.u --to traces.pdf\n"
        "  neurosim plot runs/ghost runs/ghost2 --to curves.svg\n",
    )  # fmt: skip
    plot.add_argument("paths", nargs="+", metavar="PATH", help="a traces.h5, or run folders of `neurosim train`")
    plot.add_argument("--record", nargs="+", metavar="POP.VAR", help="variables to draw (default: all)")
    plot.add_argument("--cells", nargs="+", type=int, metavar="K", help="cells to draw (default: three)")
    plot.add_argument("--to", metavar="FILE", help="PNG, PDF or SVG (default: beside the first path)")


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
