"""Model files that may run although nobody has named them: the user's own list, of paths and contents.

A model file that a person names, on a command line or in a script, runs. One that only a run folder or an experiment
file names is a stranger's word: it runs if it stands in the list, at that path and with that content. A file inside a
run folder never runs. The list is a text of lines ``SHA256  PATH``, as ``sha256sum`` writes them; `neurosim trust`
adds to it, and so does a training that a person begins with a file of their own.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from neurosim.errors import NeurosimError
from neurosim.files import user_path

#: Which files were named in this process: ``(path, SHA-256)``.
_named: set[tuple[Path, str]] = set()


def list_of_files() -> Path:
    """Where the list is: ``$XDG_CONFIG_HOME/neurosim/trusted``, else below ``~/.config``."""
    return user_path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "neurosim" / "trusted"


def add(path: Path) -> None:
    """Add a file to the list, as it was when a person named it in this process; nothing where nobody has."""
    file = list_of_files()
    for named, sha in sorted({entry for entry in _named if entry[0] == path.resolve()} - _listed()):
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(file, "a", encoding="utf-8") as lines:  # one write: several processes may add at once
            lines.write(f"{sha}  {named}\n")


def name(path: Path, source: bytes) -> None:
    """Say that a person has named this file in this process."""
    _named.add((path.resolve(), _hash(source)))


def check(path: Path, source: bytes, named_by: str) -> None:
    """Refuse a file that no person has named in this process, and that is not in the list.

    Raises
    ------
    NeurosimError
        With the command that adds it; `named_by` is the file that names it.
    """
    entry = path.resolve(), _hash(source)
    if entry in _named:
        return
    listed = _listed()
    if entry in listed:
        return
    changed = any(path == entry[0] for path, _ in listed)
    why = "it has changed since you trusted it" if changed else "it is not among your trusted files"
    raise NeurosimError(
        f"{named_by} names the model file '{path}', which runs code, and {why} ({list_of_files()}). "
        f"Read it; if you trust it: neurosim trust '{path}'"
    )


def check_place(path: Path) -> None:
    """Refuse a file inside a run folder, whoever names it."""
    for folder in path.resolve().parents:
        if (folder / "run.json").is_file() and (
            (folder / "config.toml").is_file() or (folder / "config.json").is_file()
        ):
            raise NeurosimError(
                f"The file '{path}' lies in the run folder '{folder}', and no code in a run folder runs. Read it; copy "
                "it elsewhere to use it."
            )


def _hash(source: bytes) -> str:
    return hashlib.sha256(source).hexdigest()


def _listed() -> set[tuple[Path, str]]:
    try:
        lines = list_of_files().read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return set()
    except (OSError, ValueError) as error:
        raise NeurosimError(f"The list of trusted files '{list_of_files()}' cannot be read: {error}") from error
    # sha256sum puts a second space, or a star for binary files, before the path.
    parts = [line.split(" ", 1) for line in lines if " " in line]
    return {(Path(path[1:]), sha) for sha, path in parts}
