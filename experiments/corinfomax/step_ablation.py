"""Accuracy against the Euler step mu of the published relaxation, up to and beyond its limit 2/(g_lk + g_A + g_B).

Digits: 64-100-10, preset `digits` (30 epochs), initial weights `scaled`, test accuracy after the last epoch. MNIST: 784-500-10, preset
`mnist` (learning rates times 0.95 per epoch), the authors' initial weights and the scaled ones, 3 epochs on all training images, one
seed. From the limit on explicit Euler diverges, and the circuit refuses to be built. Nothing is chosen by these runs. The ablation stored in the authors'
repository (MNIST and CIFAR-10, 50 epochs) stands beside it in the table; it is theirs, the rest is ours.

    python experiments/corinfomax/step_ablation.py --seeds 5

MNIST has to lie in the folder of the environment variable NEUROSIM_DATA. Finished runs are not repeated; delete
results/step_ablation.json to begin anew. About 15 minutes of one core.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from _common import collect, mean_sd, parse, parser, train
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from neurosim.analysis.report import save, select, table
from neurosim.models import corinfomax
from neurosim.plot.style import PALETTE, SHADES, empty_figure, style

#: Steps by data set and initial weights of the last layer.
STEPS = {
    ("digits", "scaled"): (0.015, 0.05, 0.075, 0.1, 0.14, 0.15, 0.3),
    ("mnist", "published"): (0.015, 0.05, 0.1, 0.15, 0.3),
    ("mnist", "scaled"): (0.015, 0.05),
}
SCHEDULE: dict[str, dict[str, Any]] = {"digits": {}, "mnist": {"epochs": 3, "hold_out": False}}
#: What each part of the table is, and its colour.
PARTS = {
    ("digits", "scaled"): ("Digits, 64-100-10, preset `digits` (slow rule), `scaled` initial weights, 30 epochs", "blue"),
    ("mnist", "published"): (
        "MNIST, 784-500-10, preset `mnist` (constant step), `published` initial weights, 3 epochs on all training images", "blue"
    ),
    ("mnist", "scaled"): ("The same with `scaled` initial weights", "green"),
}  # fmt: skip
#: Test accuracy (%) in the authors' repository, 5 seeds, 50 epochs; MNIST with learning rates times 0.99 per epoch.
AUTHORS = {
    "MNIST": ("10.4", "97.43 ± 0.12", "97.37 ± 0.10", "83.4 ± 31.1", "10.0", "9.9"),
    "CIFAR-10": ("49.31 ± 0.20", "51.77 ± 0.41", "51.97 ± 0.17", "51.96 ± 0.32", "9.8", "11.0"),
}
LOWEST = 60.0  # of the axis of accuracies
AUTHORS_STEPS = (0.015, 0.05, 0.075, 0.1, 0.15, 0.3)


def limit() -> float:
    """2/(g_lk + g_A + g_B) of the hidden cells; both nets have the same conductances."""
    return 2 / (corinfomax.PRESETS["digits"]["g_lk"] + 2 / 0.15)


def run(data: str, init: str, mu: float, seed: int) -> dict[str, Any]:
    row = train({"preset": data, "init": init, "mu": mu}, data=data, seed=seed, **SCHEDULE[data])
    curve = row.pop("curve")
    last = curve[-1] if curve else {}
    followed = "validation_accuracy" if data == "digits" else "test_accuracy"
    accuracies = {"followed": followed, "accuracies": [epoch[followed] for epoch in curve]}
    return row | accuracies | {"silent_outputs": last.get("silent_outputs"), "residual": last.get("residual")}


def jobs(seeds: int) -> list[dict[str, Any]]:
    return [
        {"data": data, "init": init, "mu": mu, "seed": seed}
        for (data, init), steps in STEPS.items()
        for mu in steps
        for seed in range(seeds if data == "digits" else 1)
    ]


def report(rows: list[dict[str, Any]], seeds: int) -> str:
    text = [
        "# Accuracy against the Euler step",
        "",
        f"Limit of explicit Euler, 2/(g_lk + g_A + g_B): mu = {limit():.4f}. Beyond it the circuit is refused.",
        "",
        "## Ours",
        "",
    ]
    for (data, init), steps in STEPS.items():
        lines = []
        for mu in steps:
            some = select(rows, data=data, init=init, mu=mu)
            done = [row for row in some if row["failed"] is None]
            if all((row["failed"] or "").startswith("refused") for row in some):
                lines.append([f"{mu:g}", "refused: beyond the limit", *["-"] * 3])
                continue
            lines.append(
                [
                    f"{mu:g}",
                    mean_sd([row["test"] for row in done], places=2 if data == "mnist" else 1),
                    f"{len(some) - len(done)} of {len(some)}",
                    ", ".join(str(row["silent_outputs"]) for row in done),
                    " / ".join(f"{np.median([row['residual'][p] for row in done]):.1e}" for p in ("free", "nudged")),
                ]
            )
        runs = f"{seeds} seeds, mean ± sd (n - 1)" if data == "digits" else "seed 0"
        header = ["mu", "test (%)", "failed", "silent outputs, each seed", "residual, free / nudged"]
        text += [f"{PARTS[data, init][0]}; {runs}.", "", table(header, lines)]
    lines = [[name, *values] for name, values in AUTHORS.items()]
    text += [
        "Silent outputs: output cells that are 0 for every sample of the validation set (MNIST: test set) after the last epoch. Residual: "
        "largest distance of a cell from its steady state at the end of a phase, last epoch, median over seeds.",
        "",
        "## The authors' (their repository's notebooks; 50 epochs, 5 seeds, test %)",
        "",
        table(["mu", *(f"{mu:g}" for mu in AUTHORS_STEPS)], lines),
        "The setting differs from ours: 50 epochs, MNIST's learning rates times 0.99 per epoch. Their runs beyond the limit "
        "are at chance.",
    ]
    return "\n".join([*text, ""])


def draw(rows: list[dict[str, Any]], seeds: int) -> Figure:
    titles = {"digits": f"Digits, 30 epochs, {seeds} seeds", "mnist": "MNIST, 3 epochs, one seed"}
    with style():
        figure = empty_figure(9.5, 3.9)
        panels = dict(zip(titles, figure.subplots(1, 2, sharey=True), strict=True))
        for (data, init), steps in STEPS.items():
            axes, colour = panels[data], PALETTE[PARTS[data, init][1]]
            some = [row for row in select(rows, data=data, init=init) if row["failed"] is None]
            done = sorted({row["mu"] for row in some})
            means = [100 * np.mean([row["test"] for row in select(some, mu=mu)]) for mu in done]
            axes.plot(done, means, color=colour)
            axes.plot(
                [row["mu"] for row in some], [100 * row["test"] for row in some], "o", color=colour, ms=4, alpha=0.5
            )
            refused = [mu for mu in steps if mu >= limit()]
            if refused:
                axes.plot(refused, [LOWEST] * len(refused), "x", color=PALETTE["vermillion"], ms=7, clip_on=False)
        for data, axes in panels.items():
            axes.axvspan(limit(), 0.32, color=SHADES[2], lw=0)
            text = f"μ ≥ 2/(g_lk + g_A + g_B)\n= {limit():.4f}:\nthe circuit is refused"
            axes.text((limit() + 0.32) / 2, (LOWEST + 100) / 2, text, ha="center", va="center")
            axes.set_xlim(0, 0.32)
            axes.set_ylim(LOWEST, 100)
            axes.set_title(titles[data])
            axes.set_xlabel("Euler step μ = dt/τ_u")
        panels["digits"].set_ylabel("test accuracy (%)")
        cross = Line2D(
            [], [], color=PALETTE["vermillion"], marker="x", ms=7, linestyle="none", label="refused, no accuracy"
        )
        names = ("digits: scaled, MNIST: published start", "MNIST: scaled start")
        points = [
            Line2D([], [], color=PALETTE[c], marker="o", ms=4, label=n)
            for n, c in zip(names, ("blue", "green"), strict=True)
        ]
        figure.legend(
            handles=[*points, cross], loc="outside upper center", ncols=3, title="points: seeds; lines: means"
        )
    return figure


def main() -> None:
    options = parse(parser(__doc__ or "", seeds=5))
    rows = collect("step_ablation", jobs(options.seeds), run, options.out)
    settings = {"schedule": SCHEDULE, "limit": limit(), "authors": AUTHORS}
    figure = draw(rows, options.seeds)
    save(options.out, "step_ablation", report(rows, options.seeds), figure, settings, {"rows": rows})
    (options.out / "step_ablation.jsonl").unlink(missing_ok=True)  # its rows lie in step_ablation.json now


if __name__ == "__main__":
    main()
