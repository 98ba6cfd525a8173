"""Files that are written whole or not at all, replace only their like, and folders that one process writes into at a time."""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from neurosim.errors import NeurosimError


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
#: How a file ends that is being written, see `whole_file`.
PART = ".part"


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
    """A temporary file to fill: it takes the place of `path` when the block ends, and is removed when the block fails.

    Where `path` is a link, the link is replaced, and what it points to stays.
    """
    temporary = path.with_name(f".{path.name}{PART}")
    try:
        temporary.unlink(missing_ok=True)  # of a process that was killed; a link must not be written through
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(path.parent)


def meant(name: str | bytes | os.PathLike[Any]) -> str:
    """The file that is meant where an error names the temporary one that becomes it."""
    path = Path(os.fsdecode(name))
    temporary = path.name.startswith(".") and path.name.endswith(PART)
    return str(path.with_name(path.name[1 : -len(PART)]) if temporary else path)


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


# ------------------------------------------------------------------------------------- what may be replaced

#: By which bytes kinds of files are known, and where those stand; all others that are replaced are text.
_KNOWN_BY = {
    ".png": (0, (b"\x89PNG",)),
    ".pdf": (0, (b"%PDF",)),
    ".svg": (0, (b"<?xml", b"<svg", b"<!--", b"\xef\xbb\xbf<")),
    ".nwb": (0, (b"\x89HDF",)),
    ".h5": (0, (b"\x89HDF",)),
    ".safetensors": (8, (b"{",)),
}


def check_replaceable(path: Path, kind: str | None = None) -> Path:
    """Refuse to replace a file by another kind (a suffix; default that of the path), and anything that is no file; an empty one may go.

    Raises
    ------
    NeurosimError
        For example data under the name of a picture, or a folder.
    """
    if path.is_dir():
        raise NeurosimError(f"'{path}' is a folder; give the name of a file.")
    if not path.exists():  # also of a link that points nowhere
        return path
    if not path.is_file():
        raise NeurosimError(f"'{path}' is no ordinary file; give another name.")
    with path.open("rb") as file:
        head = file.read(4096)
    kind = path.suffix.lower() if kind is None else kind
    at, begins = _KNOWN_BY.get(kind, (0, ()))
    if head and not (head.startswith(begins, at) if begins else b"\0" not in head):
        what = f"a {kind[1:].upper()} file" if begins else "text"
        raise NeurosimError(
            f"'{path}' is there and is not {what}, so it is not replaced. Move it away, or give another name."
        )
    return path


#: Files by which a folder is known, and what such a folder is. One command does not replace what another one left.
_OWNED = {"config.toml": "a run of `neurosim train`", "config.json": "an evolution of `neurosim evolve`"}


def check_owner(folder: Path, own: str | None = None) -> None:
    """Refuse to write into a folder that holds a training or an evolution, but for that of the configuration file `own`."""
    for name, what in _OWNED.items():
        if name != own and all((folder / file).is_file() for file in (name, "metrics.jsonl")):
            raise NeurosimError(
                f"The folder '{folder}' holds {what} ({name}), whose files would be lost. Give another folder, or delete this one."
            )


# ------------------------------------------------------------------------------------- one process per folder

#: The file whose lock says that a process writes into a folder, and which process.
LOCK = ".lock"
#: Folders that this process writes into, and in which thread.
_held: set[tuple[str, int]] = set()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder, so that nobody else writes into it; it is made where it is missing, and goes again if it stays empty.

    The lock ends with its process, however that ends. Within a thread it may be taken again.

    Raises
    ------
    NeurosimError
        Another process (or thread) writes there, or nobody may.
    """
    key = (os.path.realpath(folder), threading.get_ident())
    if key in _held:
        yield
        return
    made = not folder.is_dir()
    descriptor = _lock(folder)
    _held.add(key)
    try:
        yield
    finally:
        _held.discard(key)
        with suppress(OSError):  # removed while it is held: nobody who waits can take what is about to go
            (folder / LOCK).unlink()
        os.close(descriptor)
        if made:
            with suppress(OSError):
                folder.rmdir()


def _lock(folder: Path) -> int:
    """The descriptor of the lock file, locked, with the name of this process in it."""
    path = folder / LOCK
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if error.errno in FULL:
                raise
            raise NeurosimError(
                f"The folder '{folder}' cannot be made: {error.strerror or error}; give another one."
            ) from error
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except FileNotFoundError:  # the folder went in between
            continue
        except OSError as error:
            if error.errno in FULL:
                raise
            raise NeurosimError(
                f"The folder '{folder}' cannot be written to: {error.strerror or error}. Give another one, or see to its permissions."
            ) from error
        try:
            _take(descriptor, folder)
            if os.fstat(descriptor).st_nlink:
                mine = f"process {os.getpid()} on {platform.node()}\n".encode()
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, mine, 0)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its holder has just removed it


def _take(descriptor: int, folder: Path) -> None:
    """Lock a lock file, or refuse by the name that stands in it."""
    holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another process"
        raise NeurosimError(
            f"The folder '{folder}' is being written by {holder}. Wait until it ends, or stop it, or give another folder."
        ) from None
    except OSError as error:  # a file system without locks
        said = f"{folder / LOCK} names {holder}: " if holder else ""
        print(
            f"warning: '{folder}' cannot be locked ({error.strerror}); {said}see to it that no other process writes there",
            file=sys.stderr,
        )
        return
    if holder and not holder.endswith(f" on {platform.node()}"):
        print(
            f"warning: {folder / LOCK} was left by {holder}, and its lock is gone: going on. See to it that it has ended.",
            file=sys.stderr,
        )
