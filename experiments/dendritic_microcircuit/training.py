"""Nudged classification: test accuracy of the dendritic microcircuit and of the backprop twin of the same net.

Digits, 64-64-32-10, torch:steady, the model's `training` preset unless said. Rows: lateral weights tied to their
self-predicting values (B = W^T or fixed random); lateral weights that start there and learn with rules of their own; backprop on the feed-forward
net of the self-predicting state. `apart.py` is the circuit with W plastic in the nudged phase and the lateral weights in the
free phase only. The settings of the rows with plastic lateral weights were chosen on the validation set of seed 0
among those of SEARCH (--search runs them again, about 5 minutes); nothing else was chosen here. The test set is read
once per run. --mnist adds a table of finished run folders of `neurosim train dendritic_microcircuit --data mnist`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from _common import parse, parser
from matplotlib.figure import Figure
from tqdm import tqdm

from neurosim.analysis.report import as_json, save, select, table
from neurosim.errors import DivergenceError, NeurosimError
from neurosim.files import user_path
from neurosim.plot.style import GREY, LINES, empty_figure, style
from neurosim.simulation import versions
from neurosim.training import Trainer, load, resolve

MODEL = "dendritic_microcircuit"
APART = f"{Path(__file__).with_name('apart.py')}:circuit"
PLASTIC = {"lateral": "self_predicting"}
ALL_RULES = ("feedforward", "interneuron", "apical")


@dataclass(frozen=True)
class Row:
    """A line of the table: settings of the circuit, and of the schedule."""

    label: str
    settings: dict[str, Any] = field(default_factory=dict)
    schedule: dict[str, Any] = field(default_factory=dict)
    model: str = MODEL


def _plain(eta: float, lateral: float, gain: float = 8.0, **more: Any) -> Row:
    """Plastic lateral weights, changes added as the rules say."""
    settings = {**PLASTIC, "eta": eta, "eta_lateral": lateral, "gain": gain, **more}
    said = "".join(f", {key} {value}" for key, value in more.items())
    return Row(f"none: eta {eta:g}, eta_lateral {lateral:g}, gain {gain:g}{said}", settings, {"optimiser": "none"})


def _adam(rate: float, **more: Any) -> Row:
    """Plastic lateral weights, all three rules through Adam."""
    said = "".join(f", {key} {value}" for key, value in more.items())
    return Row(
        f"Adam on all three, rate {rate:g}{said}", {**PLASTIC, **more}, {"learning_rate": rate, "optimise": ALL_RULES}
    )


def _apart(rate: float, gain: float = 4.0, **more: Any) -> Row:
    said = "".join(f", {key} {value}" for key, value in more.items())
    label = f"apart: Adam on all three, rate {rate:g}, gain {gain:g}{said}"
    return Row(label, {"gain": gain, **more}, {"learning_rate": rate}, APART)


#: What was tried for plastic lateral weights, seed 0.
SEARCH = (
    _adam(0.02), _adam(0.005), _adam(0.002),
    Row("Adam on W, rate 0.02; eta_lateral 0.1", {**PLASTIC, "eta_lateral": 0.1}),
    Row("Adam on W, rate 0.02; eta_lateral 0.3", {**PLASTIC, "eta_lateral": 0.3}),
    Row("SGD x10 on W and IP: eta 0.1, IP 1, PI 0.1", {**PLASTIC, "eta": 0.01, "eta_lateral": 0.1},
        {"optimiser": "sgd", "learning_rate": 10.0, "optimise": ("feedforward", "interneuron")}),
    _plain(0.1, 0.1), _plain(0.2, 0.1), _plain(0.3, 0.1), _plain(0.5, 0.1), _plain(0.3, 0.2), _plain(0.3, 0.3), _plain(0.5, 0.3),
    _plain(0.1, 0.1, 4), _plain(0.2, 0.1, 4), _plain(0.3, 0.1, 4), _plain(0.3, 0.3, 4),
    _plain(0.2, 0.1, 4, target=(-1.0, 1.0)), _plain(0.2, 0.1, 4, feedback="fa"),
    Row("apart: none, eta 0.3, eta_lateral 0.15, gain 8", {"eta": 0.3, "eta_lateral": 0.15, "gain": 8.0},
        {"optimiser": "none"}, APART),
    _apart(0.01, 8.0), _apart(0.005, 8.0), _apart(0.003, 8.0), _apart(0.005),
    _apart(0.005, 8.0, lateral_rules="always"), _apart(0.005, 8.0, feedback="fa"),
)  # fmt: skip
BEST = _plain(0.3, 0.2)
TWIN = "backprop twin"
TABLE = (
    Row(TWIN, schedule={"method": "backprop"}),
    Row("tied, sym (default)"),
    Row("tied, fa", {"feedback": "fa"}),
    Row("plastic, sym, plain updates", BEST.settings, BEST.schedule),
    Row("tied, sym, plain updates", {**BEST.settings, "lateral": "tied"}, BEST.schedule),
    Row("plastic, sym, rules apart", model=APART),
)


def run(row: Row, seed: int, test: bool = True) -> dict[str, Any]:
    """Train; the validation set is read after each epoch, the test set once, at the end."""
    started = time.process_time()
    config = resolve(row.model, row.settings, data="digits", seed=seed, **row.schedule)
    trainer = Trainer(config, progress=False)
    found: dict[str, Any] = {
        "label": row.label,
        "seed": seed,
        "test": None,
        "validation": None,
        "apical_to_basal": None,
    }
    try:
        curve = trainer.fit()
        last = curve[-1]
        found |= {"validation": last["validation_accuracy"], "apical_to_basal": last.get("apical_to_basal")}
        found |= {"unsettled": int(sum(x["unsettled"] for x in curve))}
        if test:
            found["test"] = trainer.evaluate("test")["accuracy"]
    except DivergenceError:
        found["diverged"] = True
    return found | {"seconds": time.process_time() - started}


def search(out: Path) -> None:
    """Validation accuracies of what was tried, seed 0; the test set is not read."""
    rows = [run(row, 0, test=False) for row in tqdm(SEARCH, unit="run")]
    (out / "training_search.json").write_text(as_json({"versions": versions(), "rows": rows}) + "\n")


def of_folder(folder: Path) -> dict[str, Any]:
    """A row from a finished run folder.

    Raises
    ------
    NeurosimError
        No run folder, an unfinished run, or one of another model.
    """
    found = load(folder)
    config = found.config
    if config.model != MODEL or not found.result:
        raise NeurosimError(f"'{folder}' holds no finished run of {MODEL}: its model is {config.model}.")
    s = config.settings
    lateral = "tied" if s["lateral"] == "tied" else "plastic"
    names = {"backprop": TWIN, "feedback_alignment": "feedback alignment"}
    label = names.get(config.method, f"{lateral}, {s['feedback']}")
    if config.method == "circuit" and config.level != "torch:steady":
        label += f", {config.level}"
    return {
        "label": label,
        "net": "-".join(map(str, s["sizes"])),
        "data": config.data,
        "level": found.result["level"],
        "seed": config.seed,
        "epochs": config.epochs,
        "test": found.result["test_accuracy"],
        "validation": found.result["validation_accuracy"],
        "apical_to_basal": found.metrics[-1].get("apical_to_basal") if found.metrics else None,
        "unsettled": int(sum(x["unsettled"] for x in found.metrics)),
        "seconds": found.result["seconds"],
    }


# ------------------------------------------------------------------ what is found


def lines_of(rows: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> list[list[Any]]:
    lines = []
    for label in labels:
        some = select(rows, label=label)
        done = [100 * row["test"] for row in some if row["test"] is not None]
        left = [row["apical_to_basal"] for row in some if row["apical_to_basal"] is not None]
        lines.append(
            [
                label,
                len(some),
                f"{np.mean(done):.2f}" if done else "-",
                f"{np.std(done, ddof=1):.2f}" if len(done) > 1 else "-",
                f"{min(done):.2f}" if done else "-",
                f"{100 * np.mean([row['validation'] for row in some if row['validation'] is not None]):.2f}",
                f"{np.mean(left):.1e}" if left else "-",
                sum(row.get("unsettled", 0) for row in some),
                sum(row["test"] is None for row in some),
                f"{np.median([row['seconds'] for row in some]):.0f}",
            ]
        )
    return lines


HEADER = ["lateral weights, B", "seeds", "test (%)", "sd", "lowest", "validation (%)", "apical / basal", "unsettled", "diverged", "s a run"]  # fmt: skip


def report(rows: list[dict[str, Any]], mnist: list[dict[str, Any]], tried: list[dict[str, Any]]) -> str:
    text = [
        "# Dendritic microcircuit: nudged classification",
        "",
        "## Digits, 64-64-32-10, torch:steady",
        "",
        table(HEADER, lines_of(rows, [row.label for row in TABLE])),
        "Split 1,294 / 143 / 360; 30 epochs, batches of 32. sd over seeds with n - 1. Preset: Adam on W, rate 0.02, biases, targets -2 "
        "and 2, 8x Glorot. Plain updates: changes added as the rules say, eta {eta:g}, eta_lateral {eta_lateral:g}, {gain:g}x "
        "Glorot. Rules apart (`apart.py`, ours): W plastic in the nudged phase, lateral weights in the free phase, all "
        "through Adam, rate 0.005, 4x Glorot. Apical / basal: rms apical over rms basal potential without a target (validation set, last "
        "epoch): what the lateral weights leave. Unsettled: fixed points that missed the tolerance "
        "in training. Seconds: processor time of one run, one thread.".format(**BEST.settings),
    ]
    if mnist:
        first = mnist[0]
        labels = list(dict.fromkeys(row["label"] for row in mnist))
        text += ["", f"## {first['data'].upper()}, {first['net']}", "", table(HEADER, lines_of(mnist, labels))]
        text += [
            f"Run folders of `neurosim train {MODEL} --data {first['data']}`, {first['epochs']} epochs; seconds: wall clock."
        ]
    if tried:
        done = [row for row in tried if row["validation"] is not None]
        best = {max((row for row in done if ("apart" in row["label"]) is apart), key=lambda row: row["validation"])["label"]
                for apart in (False, True)}  # fmt: skip
        lines = [
            [
                row["label"] + (" (chosen)" if row["label"] in best else ""),
                "diverged" if row["validation"] is None else f"{100 * row['validation']:.1f}",
                "-" if row["apical_to_basal"] is None else f"{row['apical_to_basal']:.2g}",
            ]
            for row in tried
        ]
        text += ["", "## What was tried for plastic lateral weights: validation accuracy (%), seed 0", ""]
        text += [table(["setting (sym unless said; preset otherwise)", "validation (%)", "apical / basal"], lines)]
    return "\n".join(text)


def draw(rows: list[dict[str, Any]], mnist: list[dict[str, Any]]) -> Figure:
    """A point per run, the mean as a line."""
    groups = [("digits, 64-64-32-10", rows, [row.label for row in TABLE])]
    if mnist:
        labels = list(dict.fromkeys(row["label"] for row in mnist))
        groups.append((f"{mnist[0]['data'].upper()}, {mnist[0]['net']}", mnist, labels))
    with style():
        figure = empty_figure(7.5, 0.8 + 0.45 * sum(len(g[2]) + 2 for g in groups))
        heights = [len(g[2]) + 1 for g in groups]
        panels = figure.subplots(len(groups), squeeze=False, height_ratios=heights)[:, 0]
        for axes, (title, some, labels) in zip(panels, groups, strict=True):
            for k, label in enumerate(labels):
                values = [100 * row["test"] for row in select(some, label=label) if row["test"] is not None]
                axes.plot(values, [k] * len(values), "o", color=LINES[k], markersize=5, alpha=0.6)
                if values:
                    axes.plot([np.mean(values)] * 2, [k - 0.3, k + 0.3], color=LINES[k], linewidth=2)
            axes.set_yticks(range(len(labels)), labels)
            axes.set_ylim(len(labels) - 0.4, -0.6)
            axes.grid(axis="x", color=GREY, alpha=0.25, linewidth=0.6)
            axes.set_title(f"{title} (points: seeds; bars: means)")
            axes.set_xlabel("test accuracy (%)")
    return figure


def main() -> None:
    command = parser(__doc__ or "")
    command.add_argument(
        "--mnist",
        type=user_path,
        nargs="+",
        default=[],
        metavar="RUN_DIR",
        help="finished run folders of `neurosim train`; without: the MNIST rows of --out are kept",
    )
    command.add_argument("--search", action="store_true", help="run the search again instead (seed 0, validation only)")
    command.add_argument(
        "--only-mnist", action="store_true", help="keep the digits rows of --out and add the run folders to them"
    )
    options = parse(command)
    if options.search:
        search(options.out)
        return
    stored = options.out / "training.json"
    before = json.loads(stored.read_text()) if stored.is_file() else {"rows": [], "mnist": []}
    mnist = [of_folder(folder) for folder in options.mnist] or before["mnist"]
    if options.only_mnist:
        rows = before["rows"]
    else:
        jobs = [(row, seed) for row in TABLE for seed in range(options.seeds)]
        rows = []
        with tqdm(jobs, unit="run") as bar:
            for row, seed in bar:
                bar.set_postfix_str(f"{row.label}, seed {seed}")
                rows.append(run(row, seed))
    found = options.out / "training_search.json"
    tried = json.loads(found.read_text())["rows"] if found.is_file() else []
    settings = {"data": "digits", "rows": {r.label: {**r.settings, **r.schedule} for r in TABLE}}
    results = {"rows": rows, "mnist": mnist}
    save(options.out, "training", report(rows, mnist, tried), draw(rows, mnist), settings, results)


if __name__ == "__main__":
    main()
