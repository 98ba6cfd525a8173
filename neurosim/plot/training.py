"""Learning curves from the rows of metrics.jsonl."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from neurosim.errors import NeurosimError
from neurosim.plot.selection import check_type
from neurosim.plot.style import GREY, LINES, WIDTH, check_suffix, empty_figure, plain, save_figure, style

#: One row per epoch, as in metrics.jsonl; a value may be None.
Rows = Sequence[Mapping[str, Any]]

_MARKERS = (
    "",
    "o",
    "s",
    "^",
    "D",
    "v",
    "P",
)  # so that runs can be told apart in grey, and more of them than there are colours
_RUNS = 3 * len(LINES)


class _Panel(NamedTuple):
    ylabel: str
    curves: tuple[tuple[str, str], ...]  # (key, line style)
    factor: float = 1.0
    log: bool = False  # logarithmic where the values span more than two decades


_TRAINING, _VALIDATION = "--", "-"


def _followed(what: str) -> tuple[tuple[str, str], ...]:
    """The validation set's curve; in a run that held none out, the test set's."""
    return (f"validation_{what}", _VALIDATION), (f"test_{what}", _VALIDATION)


_PANELS = [
    _Panel("accuracy (%)", (("train_accuracy", _TRAINING), *_followed("accuracy")), 100.0),
    _Panel("loss", (("train_loss", _TRAINING), *_followed("loss")), log=True),
    _Panel("ghost residual", (("ghost_residual", _VALIDATION),), log=True),
]
_KEYS = [key for panel in _PANELS for key, _ in panel.curves]


def learning_curves(runs: Mapping[str, Rows | Sequence[Rows]], title: str | None = None) -> Figure:
    """Draw accuracy and loss over epochs, training dashed and validation (test, where none was held out) solid; and the ghost residual if there is one.

    Parameters
    ----------
    runs
        ``{label: rows}``, or ``{label: [rows of seed 0, rows of seed 1, ...]}``, which is drawn as the mean with a
        band of one standard deviation. A row has ``epoch`` and any of ``train_accuracy``, ``validation_accuracy``,
        ``test_accuracy`` (fractions), ``train_loss``, ``validation_loss``, ``test_loss``, ``ghost_residual``; None where there is no value. Where
        seeds are shorter than others or not finite, the mean is over those that remain, and the legend says so.
    title
        By default none.

    Raises
    ------
    NeurosimError
        No mapping, no run, a run without rows, a row without an epoch, accuracies that are no fractions, nothing to draw.
    """
    check_type(
        runs, Mapping, "{label: rows of metrics.jsonl}, such as {'ghost': neurosim.training.load(RUN_DIR).metrics}"
    )
    if not runs:
        raise NeurosimError("Nothing to draw: got no run.")
    if len(runs) > _RUNS:
        raise NeurosimError(f"Got {len(runs)} runs; at most {_RUNS} can be told apart in one figure. Draw fewer.")
    seeds = {label: _seeds(label, rows) for label, rows in runs.items()}
    tables = {label: {key: _table(label, s, key) for key in _KEYS} for label, s in seeds.items()}
    keys = [key for key in _KEYS if any(np.isfinite(table[key]).any() for table in tables.values())]
    panels = [panel for panel in _PANELS if any(key in keys for key, _ in panel.curves)]
    if not panels:
        raise NeurosimError(f"Nothing to draw: no row has a finite value of {', '.join(_KEYS)}.")
    with style():
        figure = empty_figure(min(max(5.0, 4.2 * len(panels)), WIDTH), 3.5 + 0.2 * (len(runs) // 3))
        if title:
            figure.suptitle(title)
        for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            for k, label in enumerate(seeds):
                for key, line in panel.curves:
                    if key in keys:
                        _curve(axes, _epochs(seeds[label]), panel.factor * tables[label][key], line, _look(k))
            shown = np.concatenate([tables[label][key].ravel() for label in seeds for key, _ in panel.curves])
            _axes(axes, panel, shown[np.isfinite(shown)])
        key = _key(keys, several=any(len(runs) > 1 for runs in seeds.values()))
        if key:
            figure.axes[0].legend(
                handles=key, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3 if len(panels) < 3 else 1, handlelength=2.2, columnspacing=1.0,
                borderaxespad=0.2, fontsize=8,
            )  # fmt: skip
        figure.legend(handles=_legend(seeds, tables), loc="outside lower center", ncols=3, handlelength=3.0)
    return figure


def save_learning_curves(
    runs: Mapping[str, Rows | Sequence[Rows]], path: str | os.PathLike[str], **kwargs: Any
) -> Path:
    """Save `learning_curves` as PNG, PDF or SVG, by the suffix of the path."""
    check_suffix(path)
    return save_figure(learning_curves(runs, **kwargs), path)


# ------------------------------------------------------------------------------------------------------ numbers


def _seeds(label: str, rows: Rows | Sequence[Rows]) -> list[Rows]:
    """The runs of one label, each a non-empty list of rows with distinct epochs."""
    single = bool(rows) and isinstance(rows[0], Mapping)
    seeds: list[Any] = [rows] if single else list(rows)
    if not seeds or not all(len(seed) for seed in seeds):
        raise NeurosimError(f"The run '{label}' has no rows; its metrics.jsonl is empty.")
    for seed in seeds:
        for row in seed:
            if row.get("epoch") is None:
                raise NeurosimError(f"A row of the run '{label}' has no 'epoch'; it has {', '.join(row) or 'nothing'}.")
        epochs = [row["epoch"] for row in seed]
        if len(set(epochs)) < len(epochs):
            raise NeurosimError(f"The run '{label}' has an epoch twice: pass several seeds as a list of lists of rows.")
    return seeds


def _epochs(seeds: Sequence[Rows]) -> list[Any]:
    return sorted({row["epoch"] for seed in seeds for row in seed})


def _table(label: str, seeds: Sequence[Rows], key: str) -> np.ndarray:
    """(seeds, epochs) of one quantity, NaN where there is none."""
    column = {epoch: k for k, epoch in enumerate(_epochs(seeds))}
    table = np.full((len(seeds), len(column)), np.nan)
    for k, seed in enumerate(seeds):
        for row in seed:
            value = row.get(key)
            if value is not None and np.isfinite(value):
                table[k, column[row["epoch"]]] = value
    if key.endswith("accuracy") and (table > 1).any():
        raise NeurosimError(f"'{key}' of '{label}' is {np.nanmax(table):g}; wanted a fraction from 0 to 1.")
    return table


def _short(table: Mapping[str, np.ndarray]) -> int:
    """How many seeds lack values that others have."""
    short = [np.isnan(x) & ~np.isnan(x).all(axis=0) for x in table.values()]
    return int(np.any([s.any(axis=1) for s in short], axis=0).sum())


# ------------------------------------------------------------------------------------------------ how to draw


def _look(k: int) -> dict[str, Any]:
    return {"color": LINES[k % len(LINES)], "marker": _MARKERS[(k + k // len(LINES)) % len(_MARKERS)]}


def _curve(axes: Axes, epochs: Sequence[Any], table: np.ndarray, line: str, look: Mapping[str, Any]) -> None:
    some = ~np.isnan(table).all(axis=0)
    if not some.any():
        return
    x, table = np.asarray(epochs)[some], table[:, some]
    mean = np.nanmean(table, axis=0)
    if len(x) == 1:  # no line to see
        look = {**look, "marker": look["marker"] or "o"}
    axes.plot(x, mean, line, markersize=4, markevery=max(1, len(x) // 12), zorder=3, **look)
    several = (~np.isnan(table)).sum(axis=0) > 1
    if several.any():
        sd = np.zeros(len(x))
        sd[several] = np.nanstd(table[:, several], axis=0, ddof=1)
        axes.fill_between(x, mean - sd, mean + sd, color=look["color"], alpha=0.2, linewidth=0, zorder=2)


def _axes(axes: Axes, panel: _Panel, shown: np.ndarray) -> None:
    axes.set_xlabel("epoch")
    axes.set_ylabel(panel.ylabel)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, steps=[1, 2, 5, 10]))
    if panel.log and shown.min() > 0 and shown.max() > 100 * shown.min():
        axes.set_yscale("log")
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)


def _legend(seeds: Mapping[str, list[Rows]], tables: Mapping[str, Mapping[str, np.ndarray]]) -> list[Any]:
    handles: list[Any] = []
    for k, (label, runs) in enumerate(seeds.items()):
        notes = [f"{len(runs)} seeds"] if len(runs) > 1 else []
        short = _short(tables[label])
        notes += [f"{short} incomplete"] if short else []
        text = plain(f"{label} ({', '.join(notes)})" if notes else label)
        handles.append(Line2D([], [], label=text, markersize=4, **_look(k)))
    return handles


def _key(keys: Sequence[str], several: bool) -> list[Any]:
    """What lines and bands mean, whatever their colour."""
    handles: list[Any] = []
    if any(key.startswith("train") for key in keys):
        handles.append(Line2D([], [], label="training", color=GREY, linestyle=_TRAINING))
    for followed in ("validation", "test"):
        if any(key.startswith(followed) for key in keys):
            handles.append(Line2D([], [], label=followed, color=GREY, linestyle=_VALIDATION))
    if several:
        handles.append(Patch(label="mean ± sd over seeds", color=GREY, alpha=0.3, linewidth=0))
    return handles
