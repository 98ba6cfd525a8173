"""`neurosim data`."""

from __future__ import annotations

import argparse
import textwrap

from neurosim.cli.common import Commands
from neurosim.files import user_text


def add(commands: Commands) -> None:
    """Add the subcommand."""
    data = commands.add(
        "data", _data, "List the data sets, where they are found and whether they are whole; or fetch one.",
        "  neurosim data\n"
        "  neurosim data fetch cifar10 --data-dir DATA\n",
    )  # fmt: skip
    data.add_argument("--data-dir", type=user_text, metavar="DIR", help="folder of data sets (default: NEUROSIM_DATA)")
    fetch = data.add_subparsers(metavar="fetch").add_parser(
        "fetch", help="download a data set", description="Download a data set; one that broke off goes on where it stopped."
    )  # fmt: skip
    fetch.add_argument("name", metavar="NAME", help="mnist, fashion_mnist, cifar10, cifar100 or stl10")
    # Without a default, so that what stands before "fetch" is kept.
    fetch.add_argument(
        "--data-dir", type=user_text, metavar="DIR", default=argparse.SUPPRESS,
        help="folder of data sets (default: NEUROSIM_DATA)",
    )  # fmt: skip
    fetch.add_argument("--url", metavar="URL", help="folder to take the files from, in place of the standard one")
    fetch.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error")
    fetch.set_defaults(run=_fetch)


def _data(arguments: argparse.Namespace) -> None:
    from neurosim import data

    for row in data.status(arguments.data_dir):
        where = (
            f"{row.train} train, {row.validation} validation, {row.test} test; {row.where}"
            if row.found
            else "not found"
        )
        print(f"{row.name:16} {where}{f'; {row.remark}' if row.remark else ''} ({row.licence})")
        if row.problem:
            print(textwrap.indent(row.problem, " " * 17))
    print(f"{'images:PATH':16} a folder or tar archive of your own with train/<class>/<image> and test/<class>/<image>")


def _fetch(arguments: argparse.Namespace) -> None:
    from neurosim import data

    for path in data.fetch(arguments.name, arguments.data_dir, arguments.url):
        print(path)
