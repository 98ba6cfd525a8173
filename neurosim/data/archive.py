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

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz")

# A small archive can unpack to anything. The largest archive known here, STL-10, unpacks to 3.1 GB.
_MAX_UNPACKED = 16 << 30
_GIB = 1 << 30


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
        link or a device, has an absolute path or one that leads outside, or is larger than `largest`.
    """
    try:
        with _opened(path) as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
            for member in tar:
                name = _safe_name(path, member)
                if member.offset_data + member.size > _MAX_UNPACKED:
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
                yield name, content.read()
            _check_end(path, stream, tar.offset)
    except EOFError as error:
        raise DataError(f"{path} is truncated: its compressed stream stops before its end. {MEND}") from error
    except (gzip.BadGzipFile, lzma.LZMAError, zlib.error) as error:
        raise DataError(f"{path} is damaged: it cannot be unpacked ({error}). {MEND}") from error
    except tarfile.TarError as error:
        raise DataError(f"{path} is damaged or no tar archive ({error}). {MEND}") from error
    except OSError as error:
        raise unreadable(path, error) from error


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
    if not whole:
        raise DataError(f"{path} is damaged or truncated: no end mark of a tar archive at byte {offset:,}. {MEND}")
