"""How a command ends: its exit status, and what it tells the user."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from neurosim._start import INTERRUPTED
from neurosim.errors import NeurosimError, StoppedError
from neurosim.files import meant


def exit_status(
    command: Callable[[], None],
    option: Callable[[], str | None] = lambda: None,
    debug: bool = False,
) -> int:
    """Run a command; returns the exit status (0 done, 1 error, 130 Ctrl-C).

    Parameters
    ----------
    command
        What to run. Its errors are told on standard error, in one line each.
    option
        The command's option that says where it writes, if it has one; asked after an error.
    debug
        Show the tracebacks of errors.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal of latin-1 gets what it lacks as \u2013.
            stream.reconfigure(errors="backslashreplace")
    try:
        command()
    except BrokenPipeError:
        return 1
    except (KeyboardInterrupt, Exception) as error:
        if debug:
            traceback.print_exc()
        if isinstance(error, KeyboardInterrupt):
            told = f"Stopped by Ctrl-C. {error}".strip()
            print(f"\n{told}", file=sys.stderr)
            return INTERRUPTED
        print(f"error: {_said(error, option)}", file=sys.stderr)
        return 1
    return 0


def _said(error: Exception, option: Callable[[], str | None]) -> str:
    if isinstance(error, NeurosimError):
        return str(error)
    if isinstance(error, OSError):
        return disk_problem(error, option())
    return f"{type(error).__name__}: {error} (unexpected; --debug shows where)"


@contextlib.contextmanager
def goes_on(how: Callable[[], str]) -> Iterator[None]:
    """After Ctrl-C, a full disk or the death of another process: say what is kept and how to go on.

    `how` gives the text; empty: nothing was begun yet.
    """
    try:
        yield
    except (KeyboardInterrupt, OSError, StoppedError) as error:
        text = how()
        if not text:
            raise
        if isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt(f"{error} {text}".strip()) from None
        said = disk_problem(error) if isinstance(error, OSError) else str(error)
        raise NeurosimError(f"{said} {text}") from error


def how_to_go_on(command: str, out: Path) -> str:
    """The command that goes on with a run that was stopped."""
    together = " under torchrun, as before" if int(os.environ.get("WORLD_SIZE", "1")) > 1 else ""
    return f"`neurosim {command} --resume {out}` goes on{together}."


def disk_problem(error: OSError, option: str | None = "--out") -> str:
    """What went wrong with a file, and what to do.

    `option` is the one that says where a command writes, None where there is none.
    """
    name = error.filename
    where = f" '{meant(name)}'" if isinstance(name, str | bytes | os.PathLike) else ""
    elsewhere = f"write elsewhere with {option}" if option else ""
    cures = {
        errno.ENOSPC: ("The disk is full (or has as many files as it can hold)", "free some space"),
        errno.EDQUOT: ("The quota is used up", "free some space"),
        errno.EFBIG: ("A limit on the size of files was reached (ulimit -f)", "raise it"),
        errno.EROFS: ("The file system is read-only", ""),
        errno.EACCES: ("No permission there", ""),
    }
    text = f"{error.strerror or error}{where}."
    if error.errno not in cures:
        return text
    what, cure = cures[error.errno]
    advice = ", or ".join(filter(None, (cure, elsewhere)))
    return f"{text} {what}{': ' + advice if advice else ''}."
