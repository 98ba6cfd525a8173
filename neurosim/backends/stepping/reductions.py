"""Reductions as functions of an array library; see `REDUCTIONS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from neurosim.plan import Assignment


def pooled(a: Assignment) -> tuple[str, str]:
    """An assignment as ``(name, text)``, a reduction as one of the `reductions`."""
    if not a.word:
        return a.name, a.expression
    if a.axis == "population":
        return a.name, f"ns_{a.word}({a.expression})"
    return a.name, f"ns_{a.word}_{a.axis}({a.expression}, ns_maps)"


def reductions(
    mean: Callable[[Any], Any],
    functions: Mapping[str, Callable[[Any], Any]],
    each_map: Callable[[Callable[[Any], Any], Any, int], Any],
) -> dict[str, Callable[..., Any]]:
    """The functions that `pooled` names, for one array library.

    Parameters
    ----------
    mean
        The mean over the samples.
    functions
        ``{word: function of the last axis, which stays}``.
    each_map
        ``each_map(function, x, maps)`` applies a function to each map and repeats its value for the map's cells.
    """
    found: dict[str, Callable[..., Any]] = {}
    for word, function in functions.items():
        found[f"ns_{word}"] = function
        found[f"ns_{word}_map"] = partial(each_map, function)
        found[f"ns_{word}_batch"] = lambda x, maps, f=function: each_map(f, mean(x), maps)
    return found
