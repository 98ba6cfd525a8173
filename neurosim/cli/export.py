"""`neurosim export`."""

from __future__ import annotations

import argparse
from pathlib import Path

from neurosim.cli.common import RECORDINGS, Commands, check_files, recorder_options, recording_in
from neurosim.errors import NeurosimError
from neurosim.files import user_text

#: Suffixes that can be written.
SUFFIXES = (".nwb", ".csv")


def add(commands: Commands) -> None:
    """Add the subcommand."""
    export = commands.add(
        "export", _export,
        "Write recorded traces as NWB (needs the extra nwb) or CSV. For Neo objects, which stay in memory, use Python: "
        "neurosim.export.to_neo.",
        "  neurosim export runs/traces/traces.h5 --to traces.nwb\n"
        "  neurosim export runs/traces --to pyr1.csv --record pyr1.u --cells pyr1=0,3 --phases nudged\n",
    )  # fmt: skip
    export.add_argument(
        "path", type=user_text, metavar="PATH", help="a traces.h5 or recording.h5, or the folder that holds it"
    )
    export.add_argument("--to", type=user_text, required=True, metavar="FILE", help="file to write, .nwb or .csv")
    export.add_argument("--record", nargs="+", metavar="NAME", help="variables and projections to write (default: all)")
    export.add_argument(
        "--cells", action="append", default=[], metavar="POP=K,K",
        help="cells of a population to write (pyr1=0,3,7; default all); may be repeated",
    )  # fmt: skip
    export.add_argument("--phases", nargs="+", metavar="PHASE", help="rows and spikes in these phases only")
    export.add_argument("--trials", nargs="+", type=int, metavar="K", help="rows and spikes of these trials only")
    export.add_argument("--overwrite", action="store_true", help="replace files that are there")
    export.set_defaults(stride=None)


def _export(arguments: argparse.Namespace) -> None:
    from neurosim.export import to_csv, to_nwb
    from neurosim.export.csv import tables
    from neurosim.traces import Traces

    to, path = Path(arguments.to), recording_in(Path(arguments.path))
    if path is None:
        raise NeurosimError(
            f"The folder '{arguments.path}' holds no {' and no '.join(RECORDINGS)}; record something with --record."
        )
    suffix = to.suffix.lower()
    if suffix not in SUFFIXES:
        got = f"the suffix '{to.suffix}'" if to.suffix else "no suffix"
        raise NeurosimError(
            f"Cannot export to '{to}' ({got}); wanted one of {', '.join(SUFFIXES)}. Neo objects: neurosim.export.to_neo in Python."
        )
    with Traces.load(path) as traces:
        selection = recorder_options(arguments)
        chosen = traces.select(**selection) if selection else traces
        files = tables(chosen, to).values() if suffix == ".csv" else [to]
        check_files(files, arguments.overwrite, SUFFIXES, source=path)
        written = to_csv(chosen, to) if suffix == ".csv" else [to_nwb(chosen, to)]
        for file in written:
            print(f"wrote {file}")
        if suffix == ".csv" and chosen.weights:
            print(f"left out the weights of {', '.join(chosen.weights)}: CSV holds none, .nwb does")
