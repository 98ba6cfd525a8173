"""Texts and tables of JSON that files hold: of bounded size, in UTF-8, finite, of the keys and types that are wanted."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neurosim.checks import check
from neurosim.errors import NeurosimError

#: Bytes. The longest text here, the metrics of 100,000 generations, has a fifth of it.
LARGEST = 128 << 20


def read_text(path: Path, mend: str = "") -> str:
    """The text of a file, without the mark that some editors put in front.

    Raises
    ------
    NeurosimError
        It cannot be read, is not UTF-8, or is too large to be what its name says.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise NeurosimError(f"'{path}' cannot be read: {error.strerror or error}.") from error
    if len(content) > LARGEST:
        raise damaged(path, f"it has more than {LARGEST >> 20} MiB", mend)
    try:
        return content.decode("utf-8-sig")
    except ValueError as error:
        raise damaged(path, f"it is not UTF-8 text ({error})", mend) from error


def read_table(
    path: Path, needs: Mapping[str, Any] | None = None, may: Mapping[str, Any] | None = None, mend: str = ""
) -> dict[str, Any]:
    """The JSON object in a file, see `table`."""
    return table(read_text(path, mend), path, needs, may, mend)


def table(
    text: str, where: Path, needs: Mapping[str, Any] | None = None, may: Mapping[str, Any] | None = None,
    mend: str = "", part: str = "",
) -> dict[str, Any]:  # fmt: skip
    """The JSON object that a text is.

    Parameters
    ----------
    text
        The text.
    where, part
        The file that it stands in, and where in there, for messages.
    needs, may
        Keys that must be there and keys that may, with what each holds, as annotations (`neurosim.checks.check`).
    mend
        What to do about a damaged file.

    Raises
    ------
    NeurosimError
        No JSON, no object, NaN or infinity, a key that is missing or holds something else.
    """
    try:
        found = json.loads(text, parse_constant=_refused, parse_float=_finite)
        json.dumps(found, ensure_ascii=False).encode()  # half a surrogate pair cannot be written again
    except RecursionError:
        raise damaged(where, "its JSON is nested too deeply", mend, part) from None
    except ValueError as error:
        raise damaged(where, str(error), mend, part) from error
    return of_types(found, where, needs, may, mend, part)


def of_types(
    found: Any, where: Path, needs: Mapping[str, Any] | None = None, may: Mapping[str, Any] | None = None,
    mend: str = "", part: str = "",
) -> dict[str, Any]:  # fmt: skip
    """`found`, where it is a table of the keys and types that `table` describes."""
    if not isinstance(found, dict):
        raise damaged(where, f"it holds {_kind(found)}; wanted a table of keys and values", mend, part)
    if missing := [key for key in needs or {} if key not in found]:
        raise damaged(where, f"it lacks {', '.join(missing)}", mend, part)
    for key, hint in {**(needs or {}), **(may or {})}.items():
        if key in found:
            try:
                check(key, found[key], hint)
            except NeurosimError as error:
                raise damaged(where, str(error).rstrip("."), mend, part) from error
    return found


def damaged(where: Path, fault: str, mend: str = "", part: str = "") -> NeurosimError:
    """The error for a file that is not what it should be."""
    return NeurosimError(f"'{where}' is damaged: {part + ': ' if part else ''}{fault}.{' ' + mend if mend else ''}")


def _refused(constant: str) -> float:
    raise ValueError(f"it holds {constant}; wanted finite numbers")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refused(text)


def _kind(value: Any) -> str:
    if isinstance(value, list):
        return "a list"
    return "null" if value is None else json.dumps(value)[:40]
