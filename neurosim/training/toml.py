"""Configurations as TOML: texts, numbers, lists (tuples in Python), tables."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from neurosim.errors import NeurosimError
from neurosim.files import user_path
from neurosim.reading import read_text


def read(path: str | Path) -> dict[str, Any]:
    """The keys of a file.

    Raises
    ------
    NeurosimError
        No such file, or no TOML.
    """
    path = user_path(path)
    if not path.is_file():
        raise NeurosimError(f"There is no file '{path}'.")
    return parsed(read_text(path), str(path))


def parsed(text: str, where: str) -> dict[str, Any]:
    """The keys of a text; messages call it `where`."""
    try:
        return tuples(tomllib.loads(text))
    except ValueError as error:
        raise NeurosimError(f"'{where}' is damaged: {error}") from error
    except RecursionError:
        reason = "its tables and lists are nested too deeply"
        raise NeurosimError(f"'{where}' is damaged: {reason}.") from None


def tuples(value: Any) -> Any:
    """A file's lists as tuples, which settings and keys hold; tables and lists of tables stay."""
    if isinstance(value, dict):
        return {key: tuples(x) for key, x in value.items()}
    if isinstance(value, list):
        if value and isinstance(value[0], dict):
            return [tuples(x) for x in value]
        return tuple(map(tuples, value))
    return value


def written(values: Mapping[str, Any]) -> str:
    """Keys and tables of keys as a text.

    Raises
    ------
    NeurosimError
        A value that TOML does not hold; its key is named.
    """
    text: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            text[key] = {k: _plain(f"{key}.{k}", v) for k, v in value.items()}
        else:
            text[key] = _plain(key, value)
    return tomli_w.dumps(text)


def _plain(key: str, value: Any) -> Any:
    """A value as TOML holds it."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, tuple | list):
        return [_plain(key, v) for v in value]
    if isinstance(value, dict) and all(isinstance(k, str) for k in value):
        return {k: _plain(f"{key}.{k}", v) for k, v in value.items()}
    if not _holds(value):
        wanted = "a text, a number or a list of them"
        raise NeurosimError(f"{key} = {value!r} cannot be written to a file; wanted {wanted}.")
    return value


def _holds(value: Any) -> bool:
    """Whether TOML holds a single value."""
    if isinstance(value, str):
        return not any("\ud800" <= letter <= "\udfff" for letter in value)
    if isinstance(value, int):
        return abs(value) < 2**63
    return isinstance(value, float)
