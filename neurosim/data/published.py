"""Data sets published as a few binary files in one archive: found unpacked or packed, checked, read."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from neurosim.data import archive
from neurosim.data.dataset import DataError
from neurosim.data.source import MAX_FILE, MEND, Arrays, Source, check_size, file_md5, lacking, not_found, unreadable


class File(NamedTuple):
    """One file's content, and where it lies, for messages."""

    where: str
    content: bytes


@dataclass(frozen=True, kw_only=True)
class Form(ABC):
    """One form that a set is published in.

    Attributes
    ----------
    folder
        Folder of the files, in the data directory and inside the archive.
    archive
        Name of the archive in the data directory.
    archive_md5
        MD5 of the archive.
    files
        Name and MD5 of each file; None where no sum is published.
    """

    folder: str
    archive: str
    archive_md5: str
    files: Mapping[str, str | None]

    @abstractmethod
    def arrays(self, files: Mapping[str, File]) -> Arrays:
        """Return what the files hold; DataError for a file that is not what its name says."""


@dataclass(frozen=True, kw_only=True)
class PublishedSource(Source):
    """A data set in one or more forms.

    Attributes
    ----------
    forms
        In the order in which they are looked for, each unpacked first.
    """

    forms: tuple[Form, ...]

    def find(self, directory: Path) -> Path:
        tried = []
        for form in self.forms:
            folder = directory / form.folder
            missing = [file for file in form.files if not (folder / file).is_file()]
            if not missing:
                return folder
            tried.append(lacking(folder, form.files, missing))
            if (directory / form.archive).is_file():
                return directory / form.archive
            tried.append(f"{directory / form.archive} (no such file)")
        raise not_found(
            self.name, directory, tried, f"Wanted one of these; `neurosim data fetch {self.name}` gets the archive."
        )

    def read(self, place: Path) -> Arrays:
        form = next(form for form in self.forms if place.name in (form.folder, form.archive))
        if place.is_file():
            return form.arrays(_unpacked(form, place))
        return form.arrays({name: _checked(place / name, md5) for name, md5 in form.files.items()})


def sized(file: File, size: int) -> bytes:
    """Return the content; DataError unless it has `size` bytes."""
    if len(file.content) != size:
        what = "truncated" if len(file.content) < size else "too long"
        raise DataError(f"{file.where} is {what}: got {len(file.content):,} bytes, wanted {size:,}. {MEND}")
    return file.content


def _checked(path: Path, md5: str | None) -> File:
    check_size(path, MAX_FILE)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error
    if md5 is not None and (got := hashlib.md5(content, usedforsecurity=False).hexdigest()) != md5:
        raise DataError(f"{path} fails its checksum: got {len(content):,} bytes of MD5 {got}, wanted MD5 {md5}. {MEND}")
    return File(str(path), content)


def _unpacked(form: Form, path: Path) -> dict[str, File]:
    """The files of `form` in its archive, whose MD5 is checked first: it stands for those of the files."""
    got = file_md5(path)
    if got != form.archive_md5:
        raise DataError(f"{path} fails its checksum: got MD5 {got}, wanted {form.archive_md5}. {MEND}")
    names = {f"{form.folder}/{file}": file for file in form.files}
    files: dict[str, File] = {}
    for name, content in archive.members(path, names.__contains__, MAX_FILE):
        files[names[name]] = File(f"{path}: member '{name}'", content)
        if len(files) == len(names):
            return files
    raise DataError(f"{path} lacks {', '.join(name for name, file in names.items() if file not in files)}. {MEND}")
