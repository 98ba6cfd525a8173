"""The process that trains one run of a sweep: ``python -m neurosim.training.worker RUN_DIR``."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

from neurosim.exits import exit_status


def main(folder: str) -> int:
    """Train the run of a folder; returns the exit status.

    The end of standard input counts as Ctrl-C, which writes a checkpoint.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_watch, daemon=True).start()
    return exit_status(lambda: _train(Path(folder)), lambda: "--out")


def _watch() -> None:
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGINT)


def _train(folder: Path) -> None:
    from neurosim.training.report import go_on  # torch, whose import Ctrl-C may end

    go_on(folder)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
