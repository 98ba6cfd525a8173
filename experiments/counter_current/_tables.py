"""Tables of finished run folders beside the published numbers, for table1.py and table3.py."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from _common import NAMES, parse
from matplotlib.figure import Figure

from neurosim.analysis.report import mean_sd, save, select, table
from neurosim.files import user_path
from neurosim.plot.style import GREY, PALETTE, empty_figure, style
from neurosim.training import load
from neurosim.training.table import collect

METHODS = {
    "counter_current": "CCL",
    "backprop": "BP",
    "feedback_alignment": "FA",
    "direct_feedback_alignment": "DFA",
}
COLOURS = dict(zip(METHODS, ("blue", "vermillion", "green", "purple"), strict=True))
#: What a row is named by: a run found again replaces the row of an earlier collection.
KEY = ("data", "method", "seed")


def rows_of(folders: list[Path], maps: bool) -> list[dict[str, Any]]:
    """A row per run folder in or below the given ones, of nets with maps or of those without."""
    rows = []
    for found in collect(folders):
        config, result = found.config, found.result
        if (config.settings.get("layers", "dense") != "dense") != maps:
            continue
        metrics = load(found.folder).metrics
        rows.append(
            {
                "data": config.data,
                "method": config.model if config.method == "circuit" else config.method,
                "seed": config.seed,
                "state": "finished" if found.finished else "failed" if result else "unfinished",
                "test": result.get("test_accuracy"),
                "validation": max((row["validation_accuracy"] for row in metrics), default=None),
                "chosen_epoch": result.get("epoch"),
                "epochs_done": len(metrics),
                "epochs": config.epochs,
                "learning_rate": config.learning_rate,
                "activation": config.settings.get("activation"),
                "sizes": list(config.settings["sizes"]),
                "seconds": result.get("seconds"),
            }
        )
    return rows


def merged(kept: list[dict[str, Any]], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of an earlier collection with the new ones in their places, by data set, method and seed."""
    by_key = {tuple(row[key] for key in KEY): row for row in (*kept, *rows)}
    orders = (list(NAMES), list(METHODS))
    return sorted(
        by_key.values(),
        key=lambda row: (orders[0].index(row["data"]), orders[1].index(row["method"]), row["seed"]),
    )


def report(title: str, text: str, rows: list[dict[str, Any]], published: Mapping[str, Mapping[str, str]]) -> str:
    """`published`: by data set and method, test accuracy in %."""
    lines = []
    for data in dict.fromkeys(row["data"] for row in rows):
        for method in METHODS:
            some = select(rows, data=data, method=method)
            done = select(some, state="finished")
            tested = [row["test"] for row in done if row["test"] is not None]
            paper = published.get("cifar10" if data == "cifar10_jpeg" else data, {}).get(method, "-")
            if not some:
                if paper != "-":
                    lines.append([NAMES[data], METHODS[method], "not run", *["-"] * 6, paper])
                continue
            lines.append(
                [
                    NAMES[data],
                    METHODS[method],
                    mean_sd(tested, places=2),
                    len(tested),
                    len(select(some, state="failed")),
                    _unfinished(some),
                    _span([row["epochs"] for row in some]),
                    _span([row["chosen_epoch"] for row in done if row["chosen_epoch"]]),
                    _span([row["learning_rate"] for row in some]),
                    paper,
                ]
            )
    header = [
        "data",
        "method",
        "test (%)",
        "seeds",
        "failed",
        "unfinished (epochs done, best validation)",
        "epochs",
        "epoch chosen",
        "rate",
        "paper's test (%)",
    ]
    return "\n".join([f"# {title}", "", text, "", table(header, lines)])


def _unfinished(rows: list[Mapping[str, Any]]) -> str:
    found = select(rows, state="unfinished")
    return (
        ", ".join(f"{row['epochs_done']}, {100 * row['validation']:.2f} %" for row in found if row["validation"]) or "0"
    )


def _span(values: list[Any]) -> str:
    values = sorted(set(values))
    return f"{values[0]:g} to {values[-1]:g}" if len(values) > 1 else f"{values[0]:g}" if values else "-"


def draw(rows: list[dict[str, Any]]) -> Figure:
    done = [row for row in rows if row["test"] is not None]
    sets = list(dict.fromkeys(row["data"] for row in done))
    with style():
        figure = empty_figure(2.4 * max(len(sets), 1) + 1.0, 3.6)
        for axes, data in zip(figure.subplots(1, max(len(sets), 1), squeeze=False)[0], sets or [""], strict=True):
            methods = [m for m in METHODS if select(done, data=data, method=m)] if sets else []
            for k, method in enumerate(methods):
                values = [100 * row["test"] for row in select(done, data=data, method=method)]
                axes.plot([k] * len(values), values, "o", ms=5, color=PALETTE[COLOURS[method]], alpha=0.7)
                axes.plot([k - 0.3, k + 0.3], [sum(values) / len(values)] * 2, color=GREY)
            axes.set_xticks(range(len(methods)), [METHODS[m] for m in methods])
            axes.set_xlim(-0.6, max(len(methods), 1) - 0.4)
            axes.set_title(NAMES.get(data, "no finished run"))
            axes.set_xlabel("method")
        figure.axes[0].set_ylabel("test accuracy (%), dot: seed, line: mean")
    return figure


def run(
    command: argparse.ArgumentParser, name: str, title: str, text: str, maps: bool,
    published: Mapping[str, Mapping[str, str]],
) -> None:  # fmt: skip
    """Collect the folders of --runs, join them with what NAME.json holds, write table and figure."""
    options = parse(command)
    kept = options.out / f"{name}.json"
    rows = json.loads(kept.read_text())["rows"] if kept.is_file() and not options.fresh else []
    rows = merged(rows, rows_of(options.runs, maps) if options.runs else [])
    if not rows:
        command.error(
            "nothing to tabulate: give the folders of runs with --runs; --help shows the sweep that makes them"
        )
    save(options.out, name, report(title, text, rows, published), draw(rows), {"published": published}, {"rows": rows})


def add_runs(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--runs", type=user_path, nargs="+", metavar="DIR",
        help="run folders, or folders of run folders; each run replaces the row of the same data set, method and seed",
    )  # fmt: skip
    command.add_argument("--fresh", action="store_true", help="forget the rows of earlier collections")
