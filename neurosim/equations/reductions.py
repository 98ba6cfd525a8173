"""What a reduction means: the one table of the words that gather the values of many cells or samples.

A line ``name = word(expression, axis) : unit`` of a cell's equations is a reduction. To add one, add a row here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Reduction:
    """A reduction, as the engines, the figures and the documents need it.

    Attributes
    ----------
    axes
        What it may run over, the default first: the cells of the ``population``, the cells of each ``map``, or
        the samples of the ``batch`` (the mean over samples of what the cells of each map give).
    numpy, torch
        The names of its function over an axis; empty where an engine has one of its own.
    constant
        What it is of n equal values x: a text in ``n`` and ``x``.
    symbol
        Its sign in diagrams.
    latex, plain
        How documents write it over each axis; ``{}`` is the expression.
    additive
        Whether it is a sum: then a sum of products stays one, and Brian2's synapses compute it.
    all_samples
        Whether it compares the samples of a batch, which only the steady level has at once. It keeps one value per
        cell and sample.
    """

    axes: tuple[str, ...]
    numpy: str
    torch: str
    constant: str
    symbol: str
    latex: Mapping[str, str]
    plain: Mapping[str, str]
    additive: bool = False
    all_samples: bool = False


_MAP = r"j \in \mathrm{{map}}"

REDUCTIONS: Mapping[str, Reduction] = MappingProxyType(
    {
        "pool": Reduction(
            axes=("population", "map", "batch"),
            numpy="sum",
            torch="sum",
            constant="{n}*({x})",
            symbol="Σ",
            latex={
                "population": r"\sum_{{j}} {}",
                "map": rf"\sum_{{{{{_MAP}}}}} {{}}",
                "batch": rf"\frac{{{{1}}}}{{{{B}}}} \sum_{{{{s = 1}}}}^{{{{B}}}} \sum_{{{{{_MAP}}}}} {{}}",
                "samples": r"\frac{{1}}{{B}} \sum_{{s = 1}}^{{B}} {}",
            },
            plain={
                "population": "sum over the population of {}",
                "map": "sum over each map of {}",
                "batch": "sum over each map, mean over the batch, of {}",
                "samples": "mean over the batch of {}",
            },
            additive=True,
        ),
        "pool_max": Reduction(
            axes=("population", "map"),
            numpy="max",
            torch="amax",
            constant="1*({x})",
            symbol="max",
            latex={"population": r"\max_{{j}} {}", "map": rf"\max_{{{{{_MAP}}}}} {{}}"},
            plain={"population": "maximum over the population of {}", "map": "maximum over each map of {}"},
        ),
        "overlap": Reduction(
            axes=("batch",),
            numpy="",
            torch="",
            constant="",
            symbol="",
            latex={},
            plain={},
            all_samples=True,
        ),
    }
)
