"""Read members of a tar archive, plain or in gzip or xz, without unpacking it to disk."""

from __future__ import annotations

import gzip
import lzma
import posixpath
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from neurosim.data.dataset import DataError
from neurosim.data.source import MEND, unreadable

# A small archive can unpack to anything. The largest archive known here, STL-10, unpacks to 3.1 GB.
_MAX_UNPACKED = 4 << 30
_GIB = 1 << 30
# Zeros after the last member: programs fill records of up to a MiB.
_MAX_END = 64 << 20
# Names and attributes of one member. tarfile alone would read as much as the archive says, before anyone is asked.
_MAX_HEADERS = 64 << 10


def members(path: Path, wanted: Callable[[str], bool], largest: int) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each wanted file in the archive, in the archive's order.

    The compression is told by the first bytes, not by the name. Whoever reads to the end has the archive's own
    checks (CRC of gzip and xz, tar's end mark) behind it.

    Parameters
    ----------
    path
        The archive.
    wanted
        Says of a member's name (normalised: no ``./``) whether its content is asked for.
    largest
        Bytes that a wanted member may have.

    Raises
    ------
    DataError
        For an archive that is damaged or truncated; and, before its content is touched, for a member that is a
        link or a device, has an absolute path or one that leads outside, has headers of more than 64 KiB, or is
        larger than `largest`.
    """
    try:
        with _opened(path) as file, _Tar(stream := _Stream(path, file)) as tar:
            while (member := tar.next()) is not None:
                name = _safe_name(path, member)
                if max(member.offset_data + member.size, tar.offset) > _MAX_UNPACKED:
                    raise DataError(
                        f"{path} unpacks to more than {_MAX_UNPACKED // _GIB} GiB (at member '{member.name}'); "
                        "wanted a set of small images."
                    )
                if not member.isreg() or not wanted(name):
                    continue
                if member.size > largest:
                    raise DataError(
                        f"{path}: member '{member.name}' has {member.size:,} bytes; wanted at most {largest:,}."
                    )
                content = tar.extractfile(member)
                assert content is not None  # a regular file
                stream.left = member.size
                yield name, content.read()
            _check_end(path, file, tar.offset)
    except EOFError as error:
        raise DataError(f"{path} is truncated: its compressed stream stops before its end. {MEND}") from error
    except (gzip.BadGzipFile, lzma.LZMAError, zlib.error, MemoryError) as error:
        raise DataError(f"{path} is damaged: it cannot be unpacked ({error}). {MEND}") from error
    except tarfile.TarError as error:
        raise DataError(f"{path} is damaged or no tar archive ({error}). {MEND}") from error
    except OSError as error:
        raise unreadable(path, error) from error


class _Stream:
    """The unpacked bytes of an archive, read once, front to back, and never more than `left` of them."""

    def __init__(self, path: Path, stream: IO[bytes]):
        self.path, self.left = path, 0
        self._stream = stream
        self.tell, self.seekable = stream.tell, stream.seekable

    def read(self, size: int) -> bytes:
        if not 0 <= size <= self.left:
            raise DataError(
                f"{self.path}: the headers at byte {self.tell():,} go on for {size:,} bytes; wanted at most "
                f"{_MAX_HEADERS:,} for each member. Pack the archive again."
            )
        self.left -= size
        return self._stream.read(size)

    def seek(self, position: int) -> int:
        if position < self.tell():  # a size below zero: the archive would never end
            raise DataError(f"{self.path} is damaged: byte {self.tell():,} leads back to {position:,}. {MEND}")
        return self._stream.seek(position)


class _Tar(tarfile.TarFile):
    """Reads one member after the other and keeps none of them."""

    def __init__(self, stream: _Stream):
        self._stream = stream
        super().__init__(fileobj=stream)  # type: ignore[arg-type]

    def next(self) -> tarfile.TarInfo | None:
        self._stream.left = _MAX_HEADERS
        self.members.clear()  # type: ignore[attr-defined]
        try:
            member = super().next()
        except DataError:
            raise
        except (LookupError, OverflowError, RecursionError, ValueError) as error:  # numbers that are none, and the like
            raise tarfile.ReadError(f"{type(error).__name__}: {error}") from error
        if sum(len(key) + len(value) for key, value in self.pax_headers.items()) > _MAX_HEADERS:
            raise DataError(
                f"{self._stream.path}: the headers for all members have more than {_MAX_HEADERS:,} bytes. "
                "Pack the archive again."
            )
        return member


def _opened(path: Path) -> IO[bytes]:
    with open(path, "rb") as file:
        magic = file.read(6)
    if magic.startswith(b"\x1f\x8b"):
        return gzip.open(path)  # type: ignore[return-value]
    if magic == b"\xfd7zXZ\0":
        return lzma.open(path)  # type: ignore[return-value]
    return open(path, "rb")


def _safe_name(path: Path, member: tarfile.TarInfo) -> str:
    name = posixpath.normpath(member.name)
    wrong = ""
    if not (member.isreg() or member.isdir()):
        wrong = "is a link, a device or another special file"
    elif posixpath.isabs(name):
        wrong = "has an absolute path"
    elif name.split("/")[0] == "..":
        wrong = "leads outside of the archive"
    elif member.size < 0:
        wrong = "has a negative size"
    if wrong:
        raise DataError(
            f"{path}: member '{member.name}' {wrong}; wanted plain files and folders. Pack the archive again."
        )
    return name


def _check_end(path: Path, stream: IO[bytes], offset: int) -> None:
    """Demand the zeros that end a tar archive from `offset` on, and read to the end, where gzip and xz have their CRC.

    tarfile takes a member's header that is damaged or cut off for the end, in silence.
    """
    whole = stream.tell() == offset + tarfile.BLOCKSIZE  # tarfile has read the first block of zeros
    while chunk := stream.read(1 << 20):
        whole = whole and not chunk.strip(b"\0")
        if stream.tell() > offset + _MAX_END:
            raise DataError(f"{path} goes on for more than {_MAX_END >> 20} MiB after its end. {MEND}")
    if not whole:
        raise DataError(f"{path} is damaged or truncated: no end mark of a tar archive at byte {offset:,}. {MEND}")
