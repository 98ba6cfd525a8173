"""Errors that say what was got, what is wanted and how to mend it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class NeurosimError(ValueError):
    """Base of every error that a user can mend."""


class CircuitError(NeurosimError):
    """A description that does not hold together (unknown name, unit mismatch, unfed port, ...)."""


class UnsupportedError(NeurosimError):
    """A level cannot run this circuit; the message says why and which level can."""


class DivergenceError(NeurosimError):
    """A state became NaN or infinite in mid-run.

    Attributes
    ----------
    result
        What was recorded up to the divergence (a ``Result``), or ``None``.
    """

    def __init__(self, message: str, result: Any = None):
        super().__init__(message)
        self.result = result


class StoppedError(NeurosimError):
    """Something outside stopped a run: a full disk, another process that died. What was kept is whole, and goes on."""


class NeurosimWarning(UserWarning):
    """A circuit that runs, but hardly as it was meant."""


def check_list(what: str, given: Any, error: type[NeurosimError] = NeurosimError) -> None:
    """Refuse one text where a list of names is wanted: its letters would be taken for names."""
    if isinstance(given, str):
        raise error(f"{what} = '{given}' is one text; wanted a list: ['{given}'].")


def suggest(name: str, known: Iterable[str], cutoff: float = 0.4) -> str:
    """Return `` Did you mean 'x'?`` for the nearest known name, or an empty string.

    `cutoff` is the similarity, between 0 and 1, below which no name is near.
    """
    match = difflib.get_close_matches(str(name), list(known), n=1, cutoff=cutoff)
    return f" Did you mean '{match[0]}'?" if match else ""


def unknown(what: str, name: str, known: Iterable[str], error: type[NeurosimError] = NeurosimError) -> NeurosimError:
    """An error for a name that does not exist, with the nearest one and the whole list."""
    known = list(known)
    listing = ", ".join(known) if known else "(none)"
    return error(f"There is no {what} '{name}'.{suggest(name, known)} Known: {listing}.")
