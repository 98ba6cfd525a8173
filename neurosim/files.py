"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


def user_path(path: str | os.PathLike[str]) -> Path:
    """A path that a person gives: ``~`` and ``~name`` at its beginning are the home folders.

    A shell does so by itself, but not after an equals sign (``--out=~/runs``), in a file, or in Python.
    """
    return Path(user_text(path))


def user_text(path: str | os.PathLike[str]) -> str:
    """As `user_path`, otherwise letter by letter as it was given: of what need not be a path."""
    text = os.path.expanduser(os.fspath(path))
    # `Path` drops the `./` by which a person says that a folder here is called `~`.
    return os.path.abspath(text) if text.startswith("./") and str(Path(text))[0] == "~" else text


#: What a disk without room says.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def reserve(descriptor: int, start: int, needed: int) -> None:
    """Take room on the disk for `needed` bytes from `start` on. HDF5 does not survive a full disk, so it is found here.

    Raises
    ------
    OSError
        There is no room. File systems that reserve nothing are passed over.
    """
    try:
        os.posix_fallocate(descriptor, start, needed)
    except OSError as error:
        if error.errno in FULL:
            raise


def write_whole(path: Path, content: Any) -> Path:
    """Write bytes to a file, complete or not at all, also when the process is killed or the power fails.

    Temporary file, fsync, rename, fsync of the folder.
    """
    with whole_file(path) as temporary, open(temporary, "wb") as file:
        file.write(content)
    return path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary file to fill: it takes the place of `path` when the block ends, and is removed when the block fails."""
    temporary = path.with_name(path.name + ".part")
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename last. Not every system lets a folder be opened or synced; the file itself is whole in any case."""
    with suppress(OSError):
        _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
