"""Accuracy against the Euler step mu of the published relaxation, up to and beyond its limit 2/(g_lk + g_A + g_B).

Digits: 64-100-10, preset `digits` (30 epochs), initial weights `scaled`, test accuracy after the last epoch. MNIST: 784-500-10, preset
`mnist` (learning rates times 0.95 per epoch), the authors' initial weights, 3 epochs on all training images, one seed. From the limit on
explicit Euler diverges, and the circuit refuses to be built. Nothing is chosen by these runs. The ablation stored in the authors'
repository (MNIST and CIFAR-10, 50 epochs) stands beside it in the table; it is theirs, the rest is ours.

    python experiments/corinfomax/step_ablation.py --seeds 5

MNIST has to lie in the folder of the environment variable NEUROSIM_DATA. Finished runs are not repeated; delete
results/step_ablation.json to begin anew. About 20 minutes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from _common import collect, mean_sd, parse, parser, train
from matplotlib.figure import Figure

from neurosim.analysis.report import save, select, table
from neurosim.models import corinfomax
from neurosim.plot.style import GREY, PALETTE, empty_figure, style

STEPS = {"digits": (0.015, 0.05, 0.075, 0.1, 0.14, 0.15, 0.3), "mnist": (0.015, 0.05, 0.1, 0.15, 0.3)}
SETTINGS = {"digits": {"preset": "digits", "init": "scaled"}, "mnist": {"preset": "mnist", "init": "published"}}
SCHEDULE: dict[str, dict[str, Any]] = {"digits": {}, "mnist": {"epochs": 3, "hold_out": False}}
#: Test accuracy (%) in the authors' repository, 5 seeds, 50 epochs; MNIST with learning rates times 0.99 per epoch.
AUTHORS = {
    "MNIST": ("10.4", "97.43 ± 0.12", "97.37 ± 0.10", "83.4 ± 31.1", "10.0", "9.9"),
    "CIFAR-10": ("49.31 ± 0.20", "51.77 ± 0.41", "51.97 ± 0.17", "51.96 ± 0.32", "9.8", "11.0"),
}
AUTHORS_STEPS = (0.015, 0.05, 0.075, 0.1, 0.15, 0.3)
CHANCE = 10.0


def limit() -> float:
    """2/(g_lk + g_A + g_B) of the hidden cells; both nets have the same conductances."""
    return 2 / (corinfomax.COMMON["g_lk"] + 2 / 0.15)


def run(data: str, mu: float, seed: int) -> dict[str, Any]:
    row = train({**SETTINGS[data], "mu": mu}, data=data, seed=seed, **SCHEDULE[data])
    last = row["curve"][-1] if row["curve"] else {}
    silent = last.get("silent_outputs")
    return row | {"silent_outputs": silent, "residual": last.get("residual")}


def jobs(seeds: int) -> list[dict[str, Any]]:
    found = [{"data": "digits", "mu": mu, "seed": seed} for mu in STEPS["digits"] for seed in range(seeds)]
    return found + [{"data": "mnist", "mu": mu, "seed": 0} for mu in STEPS["mnist"]]


def report(rows: list[dict[str, Any]], seeds: int) -> str:
    text = [
        "# Accuracy against the Euler step",
        "",
        f"Limit of explicit Euler, 2/(g_lk + g_A + g_B): mu = {limit():.4f}. Beyond it the circuit is refused.",
        "",
        "## Ours",
        "",
    ]
    for data in STEPS:
        lines = []
        for mu in STEPS[data]:
            some = select(rows, data=data, mu=mu)
            done = [row for row in some if row["failed"] is None]
            refused = all((row["failed"] or "").startswith("refused") for row in some)
            if refused:
                lines.append([f"{mu:g}", "refused: beyond the limit", *["-"] * 3])
                continue
            lines.append(
                [
                    f"{mu:g}",
                    mean_sd([row["test"] for row in done], places=2 if data == "mnist" else 1),
                    f"{len(some) - len(done)} of {len(some)}",
                    listed(row["silent_outputs"] for row in done),
                    " / ".join(f"{np.median([row['residual'][p] for row in done]):.1e}" for p in ("free", "nudged")),
                ]
            )
        what = {
            "digits": f"Digits, 64-100-10, preset `digits` (slow rule), `scaled` initial weights, 30 epochs, {seeds} seeds, mean ± sd (n - 1).",
            "mnist": "MNIST, 784-500-10, preset `mnist` (constant step), `published` initial weights, 3 epochs on all training images, seed 0.",
        }[data]
        header = ["mu", "test (%)", "diverged", "silent outputs, each seed", "residual, free / nudged"]
        text += [what, "", table(header, lines)]
    lines = [[name, *values] for name, values in AUTHORS.items()]
    text += [
        "Silent outputs: output cells that are 0 for every sample read after the last epoch. Residual: largest distance (du) from the "
        "fixed point that the phases of the last epoch left, median over seeds.",
        "",
        "## The authors' (their repository's notebooks; 50 epochs, 5 seeds, test %)",
        "",
        table(["mu", *(f"{mu:g}" for mu in AUTHORS_STEPS)], lines),
        "The setting differs from ours: 50 epochs, MNIST's learning rates times 0.99 per epoch. Their runs beyond the limit "
        "are at chance.",
    ]
    return "\n".join([*text, ""])


def listed(values: Any) -> str:
    return ", ".join(str(value) for value in values)


def draw(rows: list[dict[str, Any]], seeds: int) -> Figure:
    titles = {"digits": f"Digits, 30 epochs, {seeds} seeds", "mnist": "MNIST, 3 epochs, one seed"}
    with style():
        figure = empty_figure(9.5, 3.9)
        for axes, (data, title) in zip(figure.subplots(1, 2, sharey=True), titles.items(), strict=True):
            some = [row for row in select(rows, data=data) if row["failed"] is None]
            steps = sorted({row["mu"] for row in some})
            means = [100 * np.mean([row["test"] for row in select(some, mu=mu)]) for mu in steps]
            axes.plot([row["mu"] for row in some], [100 * row["test"] for row in some], "o", color=PALETTE["sky"], ms=4)
            axes.plot(
                steps, means, color=PALETTE["blue"], marker="_", ms=12, label="mean" if data == "digits" else None
            )
            axes.axvspan(limit(), 0.32, color="#FBE0CC", lw=0)
            axes.text(
                (limit() + 0.32) / 2,
                55,
                f"refused:\nμ ≥ 2/(g_lk + g_A + g_B)\n= {limit():.4f}",
                ha="center",
                va="center",
            )
            refused = [mu for mu in STEPS[data] if mu >= limit()]
            axes.plot(refused, [CHANCE] * len(refused), "x", color=PALETTE["vermillion"], ms=7)
            axes.axhline(CHANCE, color=GREY, linestyle=":", linewidth=1.0)
            axes.text(0.001, CHANCE + 1.5, "chance", color=GREY, fontsize=9)
            axes.set_xlim(0, 0.32)
            axes.set_ylim(0, 102)
            axes.set_title(title)
            axes.set_xlabel("Euler step μ = dt/τ_u")
        figure.axes[0].set_ylabel("test accuracy (%)")
    return figure


def main() -> None:
    options = parse(parser(__doc__ or "", seeds=5))
    rows = collect("step_ablation", jobs(options.seeds), run, options.out)
    settings = {"settings": SETTINGS, "schedule": SCHEDULE, "limit": limit(), "authors": AUTHORS}
    figure = draw(rows, options.seeds)
    save(options.out, "step_ablation", report(rows, options.seeds), figure, settings, {"rows": rows})
    (options.out / "step_ablation.jsonl").unlink(missing_ok=True)  # its rows lie in step_ablation.json now


if __name__ == "__main__":
    main()
