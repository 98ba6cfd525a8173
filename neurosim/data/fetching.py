"""Download of published data sets, on request only: `load` never does it.

The addresses are from general knowledge. None was tried when this was written, and the table says so; what arrives is
checked against the published MD5, wherever it came from.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import os
import sys
import urllib.error
import urllib.parse
import urllib.request
import zlib
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from neurosim.data.cifar import CIFAR10, CIFAR100
from neurosim.data.dataset import DataError
from neurosim.data.idx import FASHION_MNIST, FILES, MNIST, IdxSource
from neurosim.data.published import PublishedSource
from neurosim.data.source import file_md5
from neurosim.data.stl10 import STL10

_TIMEOUT = 60  # seconds without a byte
_CHUNK = 1 << 18


@dataclass(frozen=True)
class Address:
    """Where a data set is published.

    Attributes
    ----------
    source
        The data set.
    url
        Folder of its files.
    tried
        Whether a developer has fetched from it.
    """

    source: IdxSource | PublishedSource
    url: str
    tried: bool = False


ADDRESSES = {
    address.source.name: address
    for address in (
        Address(MNIST, "https://ossci-datasets.s3.amazonaws.com/mnist/"),
        Address(FASHION_MNIST, "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/"),
        Address(CIFAR10, "https://www.cs.toronto.edu/~kriz/"),
        Address(CIFAR100, "https://www.cs.toronto.edu/~kriz/"),
        Address(STL10, "https://ai.stanford.edu/~acoates/stl10/"),
    )
}


@dataclass(frozen=True)
class _File:
    name: str
    folder: str  # in the data directory
    md5: str
    unzipped: bool  # whether the MD5 is that of the bytes after gzip


def fetch(address: Address, directory: Path, url: str | None = None) -> list[Path]:
    """Download the files of a data set to where `neurosim.data.load` finds them.

    A download that was interrupted leaves ``FILE.part`` and goes on from there the next time. A file that is there
    and whole is left alone.

    Parameters
    ----------
    address
        One of `ADDRESSES`.
    directory
        Data directory; made if need be.
    url
        Another http(s) folder to take the files from.

    Returns
    -------
    list of pathlib.Path
        The files.

    Raises
    ------
    DataError
        Without network, for an HTTP error, a broken connection, a full disk, and a file of a wrong MD5.
    """
    base = (url or address.url).rstrip("/") + "/"
    if urllib.parse.urlsplit(base).scheme not in ("http", "https"):
        raise DataError(f"--url {url}: wanted the address of a folder, http:// or https://.")
    if url is None and not address.tried:
        _say(f"the address {base} is from general knowledge and has never been tried by the developers.")
    paths = []
    for file in _files(address.source):
        target = directory / file.folder / file.name
        if target.is_file() and _md5(target, file.unzipped) == file.md5:
            _say(f"{target} is there and whole.")
        else:
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                _download(base + file.name, target, file)
            except OSError as error:
                raise DataError(
                    f"{target} cannot be written: {error.strerror or error}. Free some space, or give another folder "
                    "with --data-dir; running the command again goes on where it stopped."
                ) from error
        paths.append(target)
    return paths


def _files(source: IdxSource | PublishedSource) -> list[_File]:
    if isinstance(source, IdxSource):
        folder = f"{source.folder}/raw"
        return [_File(f"{name}.gz", folder, md5, True) for name, md5 in zip(FILES, source.md5, strict=True)]
    form = source.forms[0]
    return [_File(form.archive, "", form.archive_md5, False)]


def _download(url: str, target: Path, file: _File) -> None:
    part = target.with_name(target.name + ".part")
    _say(f"fetching {url}")
    if not _transfer(url, part):
        part.unlink()  # it is no beginning of this file
        _transfer(url, part)
    got = _md5(part, file.unzipped)
    if got != file.md5:
        size = part.stat().st_size
        part.unlink()
        of = " of the unzipped bytes" if file.unzipped else ""
        raise DataError(
            f"{url} is not the file wanted: got {size:,} bytes with MD5 {got}{of}, wanted {file.md5}; they were deleted. "
            "Give another address with --url, or put the file there by hand."
        )
    os.replace(part, target)


def _transfer(url: str, part: Path) -> bool:
    """Append to `part` what it lacks; False when the server says that nothing follows its last byte, but it is longer."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and have:
                return error.headers.get("Content-Range", "").endswith(f"/{have}")
            raise DataError(
                f"{url} answers with HTTP status {error.code} ({error.reason}). Give another address with --url."
            ) from error
    except (OSError, http.client.HTTPException) as error:
        raise DataError(
            f"{url} cannot be reached ({getattr(error, 'reason', None) or error}). Is there a network? Run the command "
            f"again, give another address with --url, or put the file into {part.parent} by hand."
        ) from error
    with response:
        if response.status != http.client.PARTIAL_CONTENT:
            have = 0  # the server ignores Range and sends everything
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        with (
            open(part, "ab" if have else "wb", buffering=0) as file,
            tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=part.stem) as bar,
        ):
            while chunk := _received(response, url, part):
                while chunk:  # unbuffered: a full disk may take a part
                    written = file.write(chunk) or 0
                    bar.update(written)
                    chunk = chunk[written:]
    if total is not None and part.stat().st_size < total:
        raise _broken(url, part, f"after {part.stat().st_size:,} of {total:,} bytes")
    return True


def _received(response: http.client.HTTPResponse, url: str, part: Path) -> bytes:
    # Apart from the writing, whose errors are OSError too.
    try:
        return response.read(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _broken(url, part, f"({error})") from error


def _broken(url: str, part: Path, when: str) -> DataError:
    return DataError(
        f"The connection to {url} broke {when}. What came is kept in {part}: run the command again, and it goes on there."
    )


def _md5(path: Path, unzipped: bool) -> str:
    if not unzipped:
        return file_md5(path)
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with gzip.open(path) as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        return "none (no whole gzip file)"
    return digest.hexdigest()


def _say(text: str) -> None:
    print(f"neurosim: {text}", file=sys.stderr)
