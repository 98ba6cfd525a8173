"""Fitness over generations, from the rows of metrics.jsonl of `neurosim evolve`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from neurosim.describe.pieces import counted
from neurosim.errors import NeurosimError
from neurosim.plot.selection import check_type
from neurosim.plot.style import GREY, LINES, WIDTH, empty_figure, plain, style

#: One row per generation, as in metrics.jsonl; a value may be missing.
Rows = Sequence[Mapping[str, Any]]

_CURVES: dict[str, tuple[str, dict[str, Any]]] = {
    "best": ("best candidate", {"linestyle": ":", "linewidth": 1.0}),
    "mean": ("mean of candidates", {"linestyle": "-", "linewidth": 1.8}),
    "centre": ("centre of the search", {"linestyle": (0, (5, 1.5)), "linewidth": 1.2}),
}


def evolution_figure(evolutions: Mapping[str, Rows], title: str | None = None) -> Figure:
    """Draw best, mean and centre of the fitness over generations, and below it the width of the search where there is one.

    Parameters
    ----------
    evolutions
        ``{label: rows}``, at most 7. A row has ``generation`` and any of ``best``, ``mean``, ``centre``, ``sigma``, ``non_finite``.
    title
        By default none.

    Raises
    ------
    NeurosimError
        No mapping, no evolution or too many, one without rows, a row without a generation, nothing to draw.
    """
    check_type(evolutions, Mapping, "{label: rows of metrics.jsonl of `neurosim evolve`}")
    if not 0 < len(evolutions) <= len(LINES):
        raise NeurosimError(f"Got {len(evolutions)} evolutions; wanted 1 to {len(LINES)}, to tell them apart.")
    for label, rows in evolutions.items():
        if not rows:
            raise NeurosimError(f"The evolution '{label}' has no generation that ended, so there is nothing to draw.")
        for row in rows:
            if row.get("generation") is None:
                raise NeurosimError(f"A row of '{label}' has no 'generation'; it has {', '.join(row) or 'nothing'}.")
    tables = {label: {key: _column(rows, key) for key in (*_CURVES, "sigma")} for label, rows in evolutions.items()}
    keys = [key for key in (*_CURVES, "sigma") if any(np.isfinite(t[key][1]).any() for t in tables.values())]
    if not set(keys) & set(_CURVES):
        raise NeurosimError(f"Nothing to draw: no row has a finite value of {', '.join(_CURVES)}.")
    ratios = [2.2, 1.0] if "sigma" in keys else [1.0]
    with style():
        figure = empty_figure(WIDTH, 1.0 + 1.45 * sum(ratios))
        if title:
            figure.suptitle(title)
        panels = list(figure.subplots(len(ratios), sharex=True, squeeze=False, height_ratios=ratios)[:, 0])
        for k, table in enumerate(tables.values()):
            for key in keys:
                x, y = table[key]
                look = _CURVES[key][1] if key in _CURVES else {}
                panels[key == "sigma"].plot(x, y, color=LINES[k], marker="o" if len(x) == 1 else "", **look)
        panels[0].set_ylabel("fitness, higher is better\n(dimensionless)")
        if "sigma" in keys:
            panels[1].set_ylabel("width of search\n(dimensionless)")
        panels[-1].set_xlabel("generation")
        panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
        panels[0].grid(axis="y", color="#DDDDDD", linewidth=0.6)
        meaning = [
            Line2D([], [], color=GREY, label=_CURVES[key][0], **_CURVES[key][1]) for key in keys if key in _CURVES
        ]
        panels[0].legend(handles=meaning, loc="best", handlelength=3.0)
        handles = [
            Line2D([], [], color=LINES[k], label=plain(_label(n, rows)))
            for k, (n, rows) in enumerate(evolutions.items())
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


def _column(rows: Rows, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Generations and values, where there are any."""
    pairs = [(row["generation"], row[key]) for row in rows if row.get(key) is not None]
    table = np.array(pairs, dtype=float).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def _label(name: str, rows: Rows) -> str:
    lost = sum(row.get("non_finite") or 0 for row in rows)
    note = f", {counted(lost, 'candidate')} not finite" if lost else ""
    return f"{name} ({counted(len(rows), 'generation')}{note})"
