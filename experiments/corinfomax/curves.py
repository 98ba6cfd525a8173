"""Accuracy, and the angle between F_k and W_{k+1}^T, against epochs of the long runs.

Reads the files metrics.jsonl of the folders results/DATA and results/DATA-seedN, copied from the run folders of `neurosim train
experiments/corinfomax/DATA.toml` for DATA = mnist, fashion_mnist, cifar10_jpeg (unfinished runs too), and draws accuracy.png and angles.png. The training
accuracy is the mean over an epoch, each sample read before its update. The angle at epoch 0 is that of the drawn weights. The authors'
final test accuracies (their repository's notebooks, 50 epochs, 10 seeds; CIFAR-10 from uncompressed images) are marked in grey.

    python experiments/corinfomax/curves.py --runs experiments/corinfomax/results

A few seconds.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from _common import HERE, mean_sd, parse, parser
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from neurosim.analysis.report import save, select, table
from neurosim.analysis.weights import angle
from neurosim.files import user_path
from neurosim.models import corinfomax
from neurosim.plot.style import GREY, LINES, PALETTE, empty_figure, style
from neurosim.training.config import read_toml

NAMES = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "cifar10_jpeg": "CIFAR-10 (JPEG)"}
#: Final test accuracy (%) of the best setting in the authors' repository.
AUTHORS = {"mnist": "97.62 ± 0.12", "fashion_mnist": "88.14 ± 0.28", "cifar10_jpeg": "51.86 ± 0.33"}


def runs(folder: Path) -> list[dict[str, Any]]:
    """The runs of a folder, by data set and seed: rows of metrics, and angles from epoch 0 on."""
    found = []
    for path in sorted(folder.glob("*/metrics.jsonl")):
        match = re.fullmatch(rf"({'|'.join(NAMES)})(?:-seed(\d+))?", path.parent.name)
        whole = path.read_text().rpartition("\n")[0]  # the last line of a run that goes on may be cut
        metrics = [json.loads(line) for line in whole.splitlines()]
        if match and metrics:
            data, seed = match[1], int(match[2] or 0)
            angles = {k: [first, *(row[k] for row in metrics)] for k, first in drawn_angles(data, seed).items()}
            found.append({"data": data, "seed": seed, "metrics": metrics, "angles": angles})
    return sorted(found, key=lambda run: (list(NAMES).index(run["data"]), run["seed"]))


def drawn_angles(data: str, seed: int) -> dict[str, float]:
    weights = corinfomax.circuit(**read_toml(HERE / f"{data}.toml")["settings"]).initial_weights(seed)
    backward = [int(name[1:]) for name in weights if name.startswith("F")]
    return {f"angle_{k + 1}": angle(weights[f"F{k}"], weights[f"W{k + 1}"].T) for k in backward}


def report(found: list[dict[str, Any]]) -> str:
    lines = []
    for data in dict.fromkeys(run["data"] for run in found):
        some = select(found, data=data)
        last = [run["metrics"][-1] for run in some]
        epochs = sorted({len(run["metrics"]) for run in some})
        columns = [mean_sd([row[key] for row in last], places=2) for key in ("train_accuracy", "test_accuracy")]
        angles = [mean_sd([run["angles"]["angle_2"][k] for run in some], factor=1.0) for k in (0, -1)]
        silent = ", ".join(str(row["silent_outputs"]) for row in last)
        lines.append([NAMES[data], len(some), ", ".join(map(str, epochs)), *columns, AUTHORS[data], *angles, silent])
    header = [
        "data",
        "seeds",
        "epochs",
        "train (%)",
        "test (%)",
        "authors' test (%)",
        "angle at epoch 0",
        "angle at the end",
        "silent outputs",
    ]
    return "\n".join(
        [
            "# Long runs",
            "",
            "Protocol of the authors: all training images, the last epoch is reported, the test set is followed from epoch to epoch. "
            "Mean ± sd (n - 1) over seeds; angles between F_1 and W_2^T in degrees. Train: mean over the epoch, each sample "
            "read before its update. Authors: their repository's notebooks, 50 epochs, 10 seeds, best setting.",
            "",
            table(header, lines),
        ]
    )


def draw_accuracy(found: list[dict[str, Any]]) -> Figure:
    data_sets = list(dict.fromkeys(run["data"] for run in found))
    with style():
        figure = empty_figure(3.6 * len(data_sets) + 1.0, 4.0)
        for axes, data in zip(figure.subplots(1, len(data_sets), squeeze=False)[0], data_sets, strict=True):
            for run in select(found, data=data):
                epochs = [row["epoch"] for row in run["metrics"]]
                for key, dashes in (("train_accuracy", "--"), ("test_accuracy", "-")):
                    values = [100 * row[key] for row in run["metrics"]]
                    axes.plot(epochs, values, dashes, color=PALETTE["blue"], linewidth=1.2)
            axes.axhline(float(AUTHORS[data].split()[0]), color=GREY, linestyle=":", linewidth=1.0)
            axes.set_title(NAMES[data])
            axes.set_xlabel("epoch")
            axes.locator_params(axis="x", integer=True)
        figure.axes[0].set_ylabel("accuracy (%)")
        handles = [
            Line2D([], [], color=PALETTE["blue"], label="test"),
            Line2D([], [], color=PALETTE["blue"], linestyle="--", label="train"),
            Line2D([], [], color=GREY, linestyle=":", label="authors' final test accuracy"),
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=3)
    return figure


def draw_angles(found: list[dict[str, Any]]) -> Figure:
    data_sets = list(dict.fromkeys(run["data"] for run in found))
    markers = ("o", "s", "^")
    with style():
        figure = empty_figure(6.5, 4.2)
        axes = figure.subplots()
        for run in found:
            k = data_sets.index(run["data"])
            for values in run["angles"].values():
                axes.plot(range(len(values)), values, color=LINES[k], marker=markers[k], ms=3, linewidth=1.2)
        axes.axhline(90, color=GREY, linestyle=":", linewidth=1.0)
        axes.set_xlabel("epoch (0: drawn weights)")
        axes.locator_params(axis="x", integer=True)
        axes.set_ylabel("angle between F₁ and W₂ᵀ (degrees)")
        handles = [
            Line2D([], [], color=LINES[k], marker=markers[k], ms=3, label=NAMES[data])
            for k, data in enumerate(data_sets)
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=3)
    return figure


def main() -> None:
    command = parser(__doc__ or "")
    command.add_argument(
        "--runs",
        type=user_path,
        default=HERE / "results",
        help="folder of the run folders (default: results/ beside this)",
    )
    options = parse(command)
    found = runs(options.runs)
    if not found:
        command.error(f"{options.runs} holds no metrics.jsonl with an epoch in it, in folders named {', '.join(NAMES)}")
    figures = {"accuracy": draw_accuracy(found), "angles": draw_angles(found)}
    rows = [  # of each run; the curves themselves are in metrics.jsonl
        {
            "data": run["data"],
            "seed": run["seed"],
            "last": run["metrics"][-1],
            "drawn_angles": drawn_angles(run["data"], run["seed"]),
        }
        for run in found
    ]
    save(options.out, "curves", report(found), figures, {"authors": AUTHORS}, {"rows": rows})


if __name__ == "__main__":
    main()
