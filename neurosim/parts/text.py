"""Changing single equations of a cell's text."""

from __future__ import annotations

import re

from neurosim.description import Cell
from neurosim.errors import CircuitError


def _pattern(left: str) -> re.Pattern[str]:
    return re.compile(rf"^(?P<left>[ \t]*{left}[ \t]*=)(?P<right>[^:\n]+)(?P<unit>:.*)$", re.MULTILINE)


def right_hand_side(cell: Cell, left: str) -> str:
    """The right-hand side of the line ``left = ... : unit`` (left: ``r``, or ``du/dt``)."""
    match = _pattern(re.escape(left)).search(cell.equations)
    if match is None:
        raise CircuitError(f"The cell '{cell.name}' has no equation '{left} = ... : unit' on a line of its own.")
    return match["right"].strip()


def unit_of(cell: Cell, name: str) -> str:
    """The unit, as text, of a variable (a state, a subexpression or a declared line)."""
    match = re.search(
        rf"^[ \t]*(?:d{name}/dt[ \t]*=[^:\n]*|{name}[ \t]*=[^:\n]*|{name})[ \t]*:[ \t]*(?P<unit>[^(#\n]+)",
        cell.equations, re.MULTILINE,
    )  # fmt: skip
    if match is None:
        raise CircuitError(f"The cell '{cell.name}' has no variable '{name}'.")
    return match["unit"].strip()


def with_right_hand_side(cell: Cell, left: str, right: str) -> str:
    """The cell's equations with another right-hand side in the line ``left = ... : unit``."""
    right_hand_side(cell, left)
    return _pattern(re.escape(left)).sub(lambda m: f"{m['left']} {right} {m['unit']}", cell.equations)
