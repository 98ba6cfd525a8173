"""Text of others (names, labels, paths) inside Markdown and CSV, where it must stay text."""

from __future__ import annotations

import re

#: Line breaks and other control characters, which would end a row or steer a terminal.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
#: What begins a formula in a spreadsheet.
_FORMULA = tuple("=+-@\t\r\n＝＋－＠")


def one_line(text: str) -> str:
    """The text with a space in the place of line breaks and control characters."""
    return _CONTROL.sub(" ", text)


def markdown(text: str) -> str:
    """Text that makes no column, code, link or HTML element; emphasis is left alone."""
    text = re.sub(r"\\(?=[!-/:-@\[-`{-~]|$)", r"\\\\", one_line(text))
    text = re.sub(r"[|`]|(?<=\])\(", r"\\\g<0>", text)
    # As entities: not all renderers know a backslash before them. "<0.001" begins no element.
    return re.sub(r"<(?=[a-zA-Z/!?])", "&lt;", re.sub(r"&(?=#?\w+;)", "&amp;", text))


def markdown_code(name: str) -> str:
    """A name as code."""
    name = one_line(name)
    longest = max(map(len, re.findall("`+", name)), default=0)
    space = " " if longest else ""
    return f"{'`' * (longest + 1)}{space}{name}{space}{'`' * (longest + 1)}"


def csv_cell(value: object) -> object:
    """A cell that no spreadsheet computes: an apostrophe before text that it would take for a formula; numbers stay."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
