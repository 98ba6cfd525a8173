"""Reading one BibTeX entry: its kind, its key and its fields."""

from __future__ import annotations

import re

from neurosim.errors import CircuitError

_START = re.compile(r"\s*@(\w+)\s*\{")
_FIELD = re.compile(r"\s*,?\s*(\w+)\s*=\s*")
_PLAIN = re.compile(r'"([^"]*)"|(\w+)')
_KEY = re.compile(r"[^\s{},=\"#%\\]+")


def read_entry(text: str, where: str) -> tuple[str, str, dict[str, str]]:
    """Kind, key and fields of a text that is one BibTeX entry; the fields may be missing.

    Raises
    ------
    CircuitError
        No entry or several, an entry that is not closed or has no key, a field without a value;
        `where` begins the message.
    """
    match = _START.match(text)
    if match is None:
        raise CircuitError(
            f"{where}got bibtex = '{_shortened(text)}'; expected one entry, such as "
            "'@article{key, journal = {Nature}}'."
        )
    body, end = _braced(text, match.end() - 1, where)
    if text[end:].strip():
        raise CircuitError(
            f"{where}got '{_shortened(text[end:])}' after the BibTeX entry; expected one entry. Give "
            "every paper a Citation of its own."
        )
    key, comma, rest = body.partition(",")
    key = key.strip()
    if not _KEY.fullmatch(key):
        raise CircuitError(
            f"{where}got the BibTeX entry '@{match[1]}{{{_shortened(key)}'; expected a key, then a comma "
            "and the fields."
        )
    return match[1].lower(), key, _fields(rest, key, where) if comma else {}


def _braced(text: str, start: int, where: str) -> tuple[str, int]:
    """The text in the braces that open at `start`, and where they end."""
    depth = 0
    for k in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[k], 0)
        if depth == 0:
            return text[start + 1 : k], k + 1
    begin = text[max(0, start - 12) : start + 30].strip()
    raise CircuitError(f"{where}the braces of '{begin}...' are not closed; close the BibTeX entry.")


def _fields(text: str, key: str, where: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    position = 0
    while match := _FIELD.match(text, position):
        position = match.end()
        if text[position : position + 1] == "{":
            value, position = _braced(text, position, where)
        else:
            plain = _PLAIN.match(text, position)
            if plain is None:
                raise CircuitError(
                    f"{where}the field '{match[1]}' of '{key}' has no value; expected {match[1]} = {{...}}."
                )
            value, position = plain[1] or plain[2] or "", plain.end()
        fields[match[1].lower()] = " ".join(value.split())
    if text[position:].strip(" ,\n\t\r"):
        raise CircuitError(
            f"{where}cannot read '{_shortened(text[position:])}' in the BibTeX entry '{key}'; "
            "expected name = {value}, with commas between."
        )
    return fields


def _shortened(text: str) -> str:
    return " ".join(text.split())[:40]
