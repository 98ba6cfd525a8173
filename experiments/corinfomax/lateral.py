"""How inert the lateral weights are: the forgetting factor lam against the rule that learns the inverse correlation B.

Digits, 64-100-10, preset `digits`, 8 epochs, for lam from 0.99999 (published) to 0.9 and the three rules, beside the net without
interneurons: test accuracy, lateral share (rms of the lateral part of the apical potential over rms of the rest, validation set, end of
the free phase, both layers), smallest eigenvalue of B, failed runs with their message. lam < 0.999 and `woodbury` run in float64, as
the model's preset says.

    python experiments/corinfomax/lateral.py --seeds 3

Finished runs are not repeated; delete results/lateral.json to begin anew. About 3 minutes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from _common import collect, mean_sd, parse, parser, train
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from neurosim.analysis.report import save, select, table
from neurosim.plot.style import GREY, PALETTE, empty_figure, style

FORGETTING = (0.99999, 0.9999, 0.999, 0.99, 0.95, 0.9)
RULES = ("published", "rank_one", "woodbury")
EPOCHS = 8
MEASURES = ("lateral_share", "smallest_eigenvalue_1", "smallest_eigenvalue_2")


def run(lateral: str, lam: float, seed: int) -> dict[str, Any]:
    row = train({"preset": "digits", "lateral": lateral, "lam": lam}, data="digits", epochs=EPOCHS, seed=seed)
    curve = row.pop("curve")
    last = curve[-1] if curve else {}
    residual = last.get("residual", {}).get("free")
    return {**row, **{name: last.get(name) for name in MEASURES}, "residual_free": residual}


def jobs(seeds: int) -> list[dict[str, Any]]:
    points = [("none", FORGETTING[0]), *((rule, lam) for rule in RULES for lam in FORGETTING)]
    return [{"lateral": rule, "lam": lam, "seed": seed} for rule, lam in points for seed in range(seeds)]


def report(rows: list[dict[str, Any]], seeds: int) -> str:
    lines, messages = [], []
    for rule, lam in dict.fromkeys((row["lateral"], row["lam"]) for row in rows):
        some = select(rows, lateral=rule, lam=lam)
        done = [row for row in some if row["failed"] is None]
        failed = [row for row in some if row["failed"] is not None]
        eigenvalues = [
            f"{np.median([row[name] for row in done]):.1e}" if done and rule != "none" else "-" for name in MEASURES[1:]
        ]
        lines.append(
            [
                rule,
                "-" if rule == "none" else f"{lam:g}",
                mean_sd([row["test"] for row in done]),
                f"{np.median([row['lateral_share'] for row in done]):.2g}" if done and rule != "none" else "-",
                *eigenvalues,
                f"{np.median([row['residual_free'] for row in done]):.1e}" if done else "-",
                f"{len(failed)} of {len(some)}",
            ]
        )
        messages += [
            f"* {rule}, lam {lam:g}, seed {row['seed']}, after {row['epochs_done']} whole epochs: {row['failed']}"
            for row in failed
        ]
    header = ["rule", "lam", "test (%)", "lateral share", "smallest eigenvalue of B1", "of B2", "residual", "failed"]
    text = [
        "# How inert the lateral weights are",
        "",
        f"Digits, 64-100-10, preset `digits`, {EPOCHS} epochs, {seeds} seeds; test accuracy mean ± sd (n - 1) over the runs that did "
        "not fail, the other columns their median. Lateral share: rms of the lateral over rms of the other apical potential, end of "
        "the free phase. Residual: largest distance of a cell from its steady state at the end of a free phase, last epoch.",
        "",
        table(header, lines),
    ]
    return "\n".join([*text, "## Failed runs", "", *(messages or ["None."]), ""])


def lams_of(rows: Iterable[Mapping[str, Any]]) -> list[float]:
    return sorted({row["lam"] for row in rows}, reverse=True)


def draw(rows: list[dict[str, Any]]) -> Figure:
    colours = dict(zip(RULES, (PALETTE["vermillion"], PALETTE["blue"], PALETTE["green"]), strict=True))
    shifts = dict(zip(RULES, (0.9, 1.0, 1.1), strict=True))  # side by side where they agree
    with style():
        figure = empty_figure(10.0, 4.2)
        left, right = figure.subplots(1, 2)
        for rule in RULES:
            some = [row for row in select(rows, lateral=rule) if row["failed"] is None]
            lams = lams_of(some)
            for axes, name, factor in ((left, "lateral_share", 1.0), (right, "test", 100.0)):
                spots = [shifts[rule] * (1 - row["lam"]) for row in some]
                axes.plot(spots, [factor * row[name] for row in some], "o", color=colours[rule], ms=4, alpha=0.6)
                middle = [factor * np.median([row[name] for row in select(some, lam=lam)]) for lam in lams]
                axes.plot([shifts[rule] * (1 - lam) for lam in lams], middle, color=colours[rule])
            lost = [row for row in select(rows, lateral=rule) if row["failed"] is not None]
            right.plot(
                [shifts[rule] * (1 - row["lam"]) for row in lost], [4.0] * len(lost), "x", color=colours[rule], ms=7
            )
        none = 100 * np.mean([row["test"] for row in select(rows, lateral="none")])
        right.axhline(none, color=GREY, linestyle="--", linewidth=1.0)
        for axes in (left, right):
            axes.set_xscale("log")
            axes.set_xlabel("1 − λ (published: 10⁻⁵)")
        left.set_yscale("log")
        left.set_ylim(3e-6, 300)
        for rule in RULES:  # shares of weights that exploded lie far above the axis
            some = [row for row in select(rows, lateral=rule) if row["failed"] is None]
            shares = [np.median([row["lateral_share"] for row in select(some, lam=lam)]) for lam in lams_of(some)]
            high = [f"{share:.0e}" for share in shares if share > 300]
            if high:
                text = f"{rule}: {', '.join(high)} ↑"
                left.text(0.72, 0.99, text, transform=left.transAxes, color=colours[rule], ha="right", va="top")
        left.axhline(1.0, color=GREY, linestyle=":", linewidth=1.0)
        left.set_ylabel("lateral / other apical potential (rms ratio)")
        right.set_ylabel("test accuracy (%)")
        right.set_ylim(0, 100)
        handles: list[Any] = [Line2D([], [], color=colours[r], marker="o", ms=4, label=r) for r in RULES]
        handles += [
            Line2D([], [], color=GREY, linestyle="--", linewidth=1.0, label="no interneurons"),
            Line2D([], [], color=GREY, marker="x", ms=7, linestyle="none", label="run failed"),
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=5, title="points: seeds; lines: medians")
    return figure


def main() -> None:
    options = parse(parser(__doc__ or "", seeds=3))
    rows = collect("lateral", jobs(options.seeds), run, options.out)
    settings = {"preset": "digits", "epochs": EPOCHS}
    save(options.out, "lateral", report(rows, options.seeds), draw(rows), settings, {"rows": rows})
    (options.out / "lateral.jsonl").unlink(missing_ok=True)  # its rows lie in lateral.json now


if __name__ == "__main__":
    main()
