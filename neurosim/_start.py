"""Ctrl-C while the command line starts: its imports take seconds, and end in silence, with exit status 130.

A script that imports neurosim keeps Python's KeyboardInterrupt.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

INTERRUPTED = 130


def _is_command() -> bool:
    """Whether this process is ``neurosim ...`` or ``python -m neurosim ...``."""
    if sys.argv[:1] == ["-m"]:  # Python looks for the module
        return any(pair == ("-m", "neurosim") for pair in zip(sys.orig_argv, sys.orig_argv[1:], strict=False))
    return Path(sys.argv[0] if sys.argv else "").name == "neurosim"


def _leave(number: int, frame: Any) -> None:
    os._exit(INTERRUPTED)  # without a traceback, whatever is being imported; nothing was written yet


def _swap(now: Any, then: Any) -> None:
    if _COMMAND and signal.getsignal(signal.SIGINT) is now:
        signal.signal(signal.SIGINT, then)


def take_over() -> None:
    """From here on Ctrl-C raises KeyboardInterrupt: the command runs."""
    _swap(_leave, signal.default_int_handler)


def hand_back() -> None:
    """The command has ended, and Python ends; that too is silent."""
    if _COMMAND:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
    _swap(signal.default_int_handler, _leave)


_COMMAND = _is_command() and threading.current_thread() is threading.main_thread()
_swap(signal.default_int_handler, _leave)
