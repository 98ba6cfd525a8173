"""Long runs that can be stopped between two units of work, and are alone in their folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from neurosim.errors import NeurosimError


@contextlib.contextmanager
def stop_between(units: str) -> Iterator[threading.Event]:
    """The event is set by Ctrl-C or SIGTERM, so that a unit (``the present batches``) is never cut in two; the second one stops at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # signals reach the main thread only
        yield stop
        return

    def ask(number: int, frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        with contextlib.suppress(RuntimeError):  # in the middle of a line of the progress bar nothing can be printed
            print(f"\nstopping after {units}; once more stops at once", file=sys.stderr)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def locked(path: Path, folder: Path, doing: str) -> Iterator[None]:
    """Hold a lock on `path`, so that no other process does the same in `folder`; it ends with its process, however that ends."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NeurosimError(
                f"Another process is {doing} in '{folder}'; wait until it ends, or stop it, then resume."
            ) from None
        except OSError as error:  # a file system without locks
            print(
                f"warning: '{folder}' cannot be locked ({error}); see to it that one process is {doing} there",
                file=sys.stderr,
            )
        yield
    finally:
        os.close(descriptor)
