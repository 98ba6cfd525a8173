"""Test accuracy against the learning rates of the two nets, each with its own; the feedback net's may be 0.

MLPs of the presets, clipping at 1 as always (before the rate). Digits: 30 epochs of 20 updates. MNIST: a part of the training set
and few updates, see BUDGET. --cifar: three points of the CIFAR grid (JPEG copy) where the paper reports a collapse, and their neighbours, also short.

    python experiments/counter_current/learning_rates.py              digits and MNIST
    python experiments/counter_current/learning_rates.py --cifar      three points of CIFAR-10, JPEG copy
    python experiments/counter_current/learning_rates.py --quick

Finished runs are kept and not repeated; delete results/learning_rates.json to begin anew. MNIST lies in the folder of NEUROSIM_DATA.
--seeds are those of the digits; MNIST and CIFAR have seed 0. About 7 minutes; --cifar 3 more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from _common import NAMES, parse, parser, train
from matplotlib.figure import Figure

from neurosim.analysis.report import collect, mean_sd, save, select, table
from neurosim.plot.style import empty_figure, style

FORWARD = (0.05, 0.1, 0.2, 0.4, 0.8)
FEEDBACK = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)
#: Points of the CIFAR grid (forward, feedback): where the paper reports a collapse, beside it, and where it reports none without feedback.
CIFAR = ((0.8, 0.0), (0.8, 0.4), (0.05, 0.0))
BUDGET: dict[str, dict[str, int]] = {
    "digits": {"epochs": 30},
    "mnist": {"epochs": 4, "limit": 12_800},
    "cifar10_jpeg": {"epochs": 8, "limit": 6_400},
}
QUICK = {"epochs": 1, "limit": 512}


def run(data: str, forward: float, feedback: float, seed: int, **budget: int) -> dict[str, Any]:
    rates = {"forward": forward, "feedback": feedback}
    row = train({}, data=data, seed=seed, learning_rates=rates, **budget)
    curve = row.pop("curve")
    return row | {"train": [round(epoch["train_accuracy"], 4) for epoch in curve]}


def report(rows: list[dict[str, Any]]) -> str:
    parts = ["# Learning rates of the two nets", ""]
    for data in dict.fromkeys(row["data"] for row in rows):
        some = select(rows, data=data)
        parts += [f"## {title(some)}", "", "Test accuracy (%) of the epoch with the lowest validation loss.", ""]
        forward, feedback = (sorted({row[key] for row in some}) for key in ("forward", "feedback"))
        lines = [
            [f"{b:g}", *(_cell(select(some, forward=f, feedback=b)) for f in forward)] for b in feedback
        ]  # fmt: skip
        parts += [table(["feedback \\ forward", *(f"{f:g}" for f in forward)], lines), ""]
    return "\n".join(parts)


def title(rows: Sequence[Mapping[str, Any]]) -> str:
    """Data set and length of the trainings."""
    first = rows[0]
    limit = f" of the first {first['limit']:,} images" if "limit" in first else ""
    return f"{NAMES[first['data']]}, {first['epochs']} epochs{limit}"


def _cell(rows: Sequence[Any]) -> str:
    failed = len([row for row in rows if row["failed"]])
    return mean_sd([row["test"] for row in rows if row["test"] is not None]) + (f", {failed} failed" if failed else "")


def draw(rows: list[dict[str, Any]]) -> Figure:
    sets = [data for data in ("digits", "mnist") if select(rows, data=data)]
    with style():
        figure = empty_figure(4.3 * len(sets) + 0.4, 3.9)
        for axes, data in zip(figure.subplots(1, len(sets), squeeze=False)[0], sets, strict=True):
            some = select(rows, data=data)
            forward, feedback = (sorted({row[key] for row in some}) for key in ("forward", "feedback"))
            grid = np.full((len(feedback), len(forward)), np.nan)
            for i, j in np.ndindex(grid.shape):
                found = [r["test"] for r in select(some, forward=forward[j], feedback=feedback[i]) if r["test"]]
                grid[i, j] = 100 * np.mean(found) if found else np.nan
            image = axes.imshow(grid, cmap="viridis", aspect="auto")
            middle = (np.nanmin(grid) + np.nanmax(grid)) / 2
            for i, j in np.ndindex(grid.shape):
                colour = "white" if grid[i, j] < middle else "black"
                axes.text(j, i, f"{grid[i, j]:.1f}", ha="center", va="center", color=colour, fontsize=9)
            axes.set_xticks(range(len(forward)), [f"{f:g}" for f in forward])
            axes.set_yticks(range(len(feedback)), [f"{b:g}" for b in feedback])
            axes.spines[:].set_visible(False)
            axes.set_xlabel("learning rate of the forward net")
            axes.set_ylabel("learning rate of the feedback net")
            axes.set_title(title(some))
            figure.colorbar(image, ax=axes, label="test accuracy (%)")
    return figure


def main() -> None:
    command = parser(__doc__ or "", seeds=1)
    command.add_argument("--cifar", action="store_true", help="also three points of CIFAR-10 (JPEG copy), seed 0")
    options = parse(command)

    def jobs_of(data: str, points: Any, seeds: int) -> list[dict[str, Any]]:
        budget = {**BUDGET[data], **(QUICK if options.quick else {})}
        return [
            {"data": data, "forward": f, "feedback": b, "seed": s, **budget} for f, b in points for s in range(seeds)
        ]

    step = 4 if options.quick else 1
    grid = [(f, b) for f in FORWARD[::step] for b in FEEDBACK[::step]]
    jobs = jobs_of("digits", grid, options.seeds) + jobs_of("mnist", grid, 1)
    if options.cifar:
        jobs += jobs_of("cifar10_jpeg", CIFAR, 1)
    rows = collect("learning_rates", jobs, run, options.out)
    save(options.out, "learning_rates", report(rows), draw(rows), {"budget": BUDGET}, {"rows": rows})
    (options.out / "learning_rates.jsonl").unlink(missing_ok=True)  # its rows lie in learning_rates.json now


if __name__ == "__main__":
    main()
