"""CorInfoMax trained inside Brian2 by the circuit's own plasticity, beside the published relaxation in torch.

Digits, 64-100-10, 30 epochs, batches of 20, the same seeds (weights, order of the samples, signs of beta), float64, and the same updates:
changes are added as the rules say, without decay of the learning rates. brian2:dense integrates the equations in time, all
populations at once, each step of 10 ms (mu = 0.05); torch:steady sweeps layer after layer as the authors' code does, with the same
constant step. Validation accuracy is followed from epoch to epoch; the test set is read once, after the last. Wanted: final test
accuracies within 2 points.

    python experiments/corinfomax/inside_brian2.py --seeds 3

Finished runs are not repeated; delete results/inside_brian2.json to begin anew. About 3 minutes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from _common import collect, mean_sd, parse, parser, train
from matplotlib.figure import Figure

from neurosim.analysis.report import listed, save, select, table
from neurosim.plot.style import PALETTE, empty_figure, style

EPOCHS = 30
SETTINGS = {"preset": "digits", "step_rule": "constant"}
SCHEDULE: dict[str, Any] = {
    "data": "digits",
    "epochs": EPOCHS,
    "batch_size": 20,
    "optimiser": "none",
    "dtype": "float64",
}
LEVELS = ("brian2:dense", "torch:steady")


def run(level: str, seed: int) -> dict[str, Any]:
    row = train(SETTINGS, level=level, seed=seed, **SCHEDULE)
    curve = row.pop("curve")
    angle = curve[-1]["angle_2"] if curve else None
    return row | {"validation": [epoch["validation_accuracy"] for epoch in curve], "angle": angle}


def report(rows: list[dict[str, Any]]) -> str:
    lines, means = [], []
    for level in LEVELS:
        some = select(rows, level=level)
        done = [row for row in some if row["failed"] is None]
        means.append(100 * np.mean([row["test"] for row in done]))
        lines.append(
            [
                level,
                listed([100 * row["test"] for row in done], 1),
                mean_sd([row["test"] for row in done]),
                mean_sd([row["validation"][-1] for row in done]),
                mean_sd([row["angle"] for row in done], factor=1.0),
                len(some) - len(done),
                f"{np.median([row['seconds'] for row in some]):.0f}",
            ]
        )
    header = [
        "level",
        "test (%), each seed",
        "test (%)",
        "validation (%)",
        "angle F1, W2^T (degrees)",
        "failed",
        "s a run",
    ]
    return "\n".join(
        [
            "# Training inside Brian2",
            "",
            f"Digits, 64-100-10, {EPOCHS} epochs, batches of 20, plain updates without decay, float64; mean ± sd (n - 1) after the last "
            "epoch. Seconds: processor time of a whole run, one thread.",
            "",
            table(header, lines),
            f"Difference of the mean test accuracies: {abs(means[0] - means[1]):.1f} points (wanted: at most 2).",
            "",
        ]
    )


def draw(rows: list[dict[str, Any]]) -> Figure:
    seeds = sorted({row["seed"] for row in rows})
    looks: dict[str, Any] = {
        "torch:steady": {"color": PALETTE["sky"], "linewidth": 4.0},  # below, broad: the curves nearly coincide
        "brian2:dense": {"color": PALETTE["vermillion"], "linewidth": 1.2},
    }
    with style():
        figure = empty_figure(3.2 * len(seeds) + 0.6, 3.6)
        for axes, seed in zip(figure.subplots(1, len(seeds), sharey=True, squeeze=False)[0], seeds, strict=True):
            for level, look in looks.items():
                (row,) = select(rows, level=level, seed=seed)
                curve = [100 * accuracy for accuracy in row["validation"]]
                axes.plot(range(1, len(curve) + 1), curve, label=level, **look)
            axes.set_xlabel("epoch")
            axes.set_title(f"seed {seed}")
        figure.axes[0].set_ylabel("validation accuracy (%)")
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


def main() -> None:
    options = parse(parser(__doc__ or "", seeds=3))
    jobs = [{"level": level, "seed": seed} for level in LEVELS for seed in range(options.seeds)]
    rows = collect("inside_brian2", jobs, run, options.out)
    save(options.out, "inside_brian2", report(rows), draw(rows), {**SETTINGS, **SCHEDULE}, {"rows": rows})
    (options.out / "inside_brian2.jsonl").unlink(missing_ok=True)  # its rows lie in inside_brian2.json now


if __name__ == "__main__":
    main()
