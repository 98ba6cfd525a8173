"""Diffusion of credit: how few weights evolution may search, how the messenger spreads, and learners of other widths under the same top-down net.

Ratio       Cells per release site in the hidden levels of a digits learner 64-32-32-10, from 1 (a credit for each cell) to 32 (one site per
            level), kernel gauss; beside it the other kernels at ratio 4, and 64-36-36-10 with its cells on a line and on a sheet.
Effort      The same for all: meta-gradient, 300 generations of four learners, lives of 30 trials on 128 samples.
Test        Ten learners that evolution has not seen, all training samples, 30 trials, Adam 0.03 with clip 1, as in evolution.
Widths      The nets of ratio 4 teach learners with other hidden widths, not evolved again, beside backprop at a rate searched for each width.

    python experiments/tdca/diffusion.py
    python experiments/tdca/diffusion.py --seeds 1

Evolutions that are not in --runs yet are begun, those that were stopped go on. Finished rows are kept; delete results/diffusion.json to begin anew. About 25
minutes on one core.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from classification import Teacher, cost, evolved, without_hidden_credit
from matplotlib.figure import Figure

from neurosim import data
from neurosim.analysis import command_line
from neurosim.analysis.report import collect, mean_sd, save, select, table
from neurosim.evolved import load_evolved
from neurosim.files import user_path
from neurosim.plot.style import PALETTE, empty_figure, style
from neurosim.training.evolution.classification import UNSEEN
from neurosim.training.run import METRICS

HERE = Path(__file__).parent
RATIOS = (1, 2, 4, 8, 16, 32)
#: (hidden width, ratio, kernel, lattice)
CASES: list[tuple[int, int, str, str]] = [
    *((32, ratio, "gauss", "line") for ratio in RATIOS),
    *((32, 4, kernel, "line") for kernel in ("exp", "block", "chain")),
    (36, 4, "gauss", "line"),
    (36, 4, "gauss", "sheet"),
]
WIDTHS = (16, 24, 32, 48, 64, 128)
LIFE: dict[str, Any] = {"strategy": "meta_gradient", "fitness": "mean", "batch": 128, "tasks": 4, "generations": 300}
PLAN: dict[str, Any] = {"data": "digits", "normalise": "standard", "rates": {"adam": (0.003, 0.01, 0.03, 0.1)}}
RATE = 0.03
SPLITS = ("train", "validation", "test")


def name_of(width: int, ratio: int, kernel: str, lattice: str, seed: int) -> str:
    return f"{width} {lattice} {kernel} ratio {ratio} seed {seed}"


def entries(seeds: int) -> list[dict[str, Any]]:
    """Evolutions, the first seed of all cases before the second of any."""
    return [
        {
            "name": name_of(width, ratio, kernel, lattice, seed), "seed": seed, **LIFE,
            "settings": {"sizes": (64, width, width, 10), "ratio": float(ratio), "kernel": kernel, "lattice": lattice},
        }
        for seed in range(seeds)
        for width, ratio, kernel, lattice in CASES
    ]  # fmt: skip


def reached(folder: Path, level: float = -1.0, over: int = 10) -> int | None:
    """Generations until the mean fitness of the last `over` was above a level; None: never."""
    lines = (folder / METRICS).read_text().splitlines()
    fitness = np.array([json.loads(line).get("centre", -np.inf) for line in lines])
    for g in range(over, len(fitness) + 1):
        if fitness[g - over : g].mean() > level:
            return g
    return None


def taught(teacher: Teacher, rate: float = RATE) -> dict[str, list[float]]:
    found = teacher.live("adam", rate, UNSEEN, SPLITS)
    return {f"{s}_accuracy": found[f"{s}_accuracy"] for s in SPLITS} | {"train_loss": found["train_loss"]}


def at_its_end(folder: Path) -> bool:
    metrics = folder / METRICS
    return metrics.is_file() and len(metrics.read_text().splitlines()) >= LIFE["generations"]


def compute(folders: dict[str, Path], out: Path, quick: bool) -> list[dict[str, Any]]:
    """Rows of the cases, and of the widths; a case without a folder has none."""
    dataset = data.normalise(data.load(PLAN["data"]), PLAN["normalise"])

    def case(**labels: Any) -> dict[str, Any]:
        folder = folders[name_of(**labels)]
        teacher = Teacher({"credits": str(folder)}, PLAN, dataset, quick)
        return {
            "sites": load_evolved(folder).weights["V3_pyr1"].shape[1], "searched": teacher.learners.size, **taught(teacher),
            "train_without": without_hidden_credit(teacher, "adam", RATE)["train_without"], "reached": reached(folder), **cost(folder),
        }  # fmt: skip

    def other_width(width: int, credit: str, seed: int) -> dict[str, Any]:
        sizes = (64, width, width, 10)
        if credit == "evolved":
            folder = folders[name_of(32, 4, "gauss", "line", seed)]
            return {"rate": RATE, **taught(Teacher({"credits": str(folder), "sizes": sizes}, PLAN, dataset, quick))}
        teacher = Teacher({"credits": "bp", "sizes": sizes}, PLAN, dataset, quick)
        rate, _ = teacher.searched("adam")
        return {"rate": rate, **taught(teacher, rate)}

    names = ("width", "ratio", "kernel", "lattice", "seed")
    cases: list[dict[str, Any]] = [dict(zip(names, (*c, seed), strict=True)) for seed in range(9) for c in CASES]
    there = [labels for labels in cases if name_of(**labels) in folders]
    seeds = [labels["seed"] for labels in there if (*labels.values(),)[:4] == (32, 4, "gauss", "line")]
    jobs = [{"part": "cases", **labels} for labels in there]
    for width in WIDTHS:
        jobs += [{"part": "widths", "width": width, "credit": "evolved", "seed": seed} for seed in seeds]
        jobs.append({"part": "widths", "width": width, "credit": "backprop", "seed": 0})
    return collect("diffusion", jobs, lambda part, **job: (case if part == "cases" else other_width)(**job), out)


def pooled(rows: list[Any], key: str) -> np.ndarray:
    """Of all evolution seeds and learners."""
    return np.concatenate([row[key] for row in rows])


def report(rows: list[Any], widths: list[Any]) -> str:
    lines, by_width = [], []
    for width, ratio, kernel, lattice in CASES:
        found = select(rows, width=width, ratio=ratio, kernel=kernel, lattice=lattice)
        lines.append(
            [
                f"64-{width}-{width}-10", lattice, kernel, ratio, found[0]["sites"], found[0]["searched"],
                *(mean_sd(pooled(found, f"{s}_accuracy")) for s in SPLITS),
                " / ".join(f"{100 * np.mean(r['test_accuracy']):.1f}" for r in found), f"{100 * pooled(found, 'test_accuracy').min():.1f}",
                mean_sd(pooled(found, "train_without")), " / ".join(str(r["reached"] or "-") for r in found), f"{np.mean([r['seconds'] for r in found]):.0f}",
            ]
        )  # fmt: skip
    for width in WIDTHS:
        ours, reference = (select(widths, width=width, credit=credit) for credit in ("evolved", "backprop"))
        by_width.append(
            [
                width, mean_sd(pooled(ours, "test_accuracy")), " / ".join(f"{100 * np.mean(r['test_accuracy']):.1f}" for r in ours),
                mean_sd(pooled(ours, "train_accuracy")), mean_sd(reference[0]["test_accuracy"]), f"{reference[0]['rate']:g}",
            ]
        )  # fmt: skip
    seeds = len({row["seed"] for row in rows})
    some = "" if len(rows) == seeds * len(CASES) else ", the last of which only some cases have"
    first = rows[0]
    return "\n".join(
        [
            "# Diffusion of credit",
            "",
            f"Digits, lives of 30 trials, Adam {RATE}, clip 1; evolved by the meta-gradient, {first['generations']} generations for all "
            f"({first['presented'] / 1e6:.1f} M samples), {seeds} evolution seed{'s' * (seeds > 1)}{some}. Mean ± sd over evolution seeds and ten unseen "
            "learners of each. Generations to fitness -1: until the mean loss over lives, averaged over ten generations, was below 1. Seconds: of one evolution, on a shared core.",
            "",
            table(
                ["learner", "lattice", "kernel", "ratio", "sites per level", "searched weights", "train (%)", "validation (%)", "test (%)",
                 "test by evolution seed (%)", "lowest test (%)", "train without hidden credit (%)", "generations to fitness -1", "s"], lines,
            ),
            "## Other widths, not evolved again",
            "",
            "The nets of ratio 4 (gauss, line), evolved for 32 cells per hidden level; the same 8 sites per level reach the others. Backprop: Adam at the rate "
            "of the highest validation accuracy for each width.",
            "",
            table(
                ["hidden width", "test (%)", "test by evolution seed (%)", "train (%)", "backprop, test (%)", "its rate"], by_width
            ),
        ]
    )  # fmt: skip


def draw(rows: list[Any], widths: list[Any]) -> Figure:
    with style():
        figure = empty_figure(12.6, 3.8)
        left, middle, right = figure.subplots(1, 3)
        blue = {"color": PALETTE["blue"]}
        cases = [select(rows, width=32, ratio=r, kernel="gauss", lattice="line") for r in RATIOS]
        searched = [found[0]["searched"] for found in cases]
        values = [100 * pooled(found, "test_accuracy") for found in cases]
        mean, sd = np.array([v.mean() for v in values]), np.array([v.std(ddof=1) for v in values])
        left.plot(searched, mean, **blue)
        left.fill_between(searched, mean - sd, mean + sd, alpha=0.15, linewidth=0, **blue)
        for x, y, found in zip(searched, mean + sd, cases, strict=True):
            left.plot([x] * len(found), [100 * np.mean(r["test_accuracy"]) for r in found], "o", ms=4, **blue)
            left.annotate(f"{found[0]['ratio']}", (x, y), (-2, 4), textcoords="offset points", ha="right")
        left.margins(x=0.1)
        left.set(xlabel="searched weights (numbers: cells per release site)", ylabel="test accuracy (%)", ylim=(0, 106))
        others = [case for case in CASES if case[1] == 4]
        for place, (width, ratio, kernel, lattice) in enumerate(others):
            found = select(rows, width=width, ratio=ratio, kernel=kernel, lattice=lattice)
            of_learners = 100 * pooled(found, "test_accuracy")
            middle.errorbar(place, of_learners.mean(), of_learners.std(ddof=1), fmt="_", ms=14, **blue)
            middle.plot([place] * len(found), [100 * np.mean(r["test_accuracy"]) for r in found], "o", ms=4, **blue)
        middle.set_xticks(range(len(others)), [f"{k}\n{lattice}\n{width} cells" for width, _, k, lattice in others])
        middle.set(title="ratio 4", ylabel="test accuracy (%)")
        for credit, colour, label in (
            ("evolved", "blue", "evolved for 32, ratio 4"),
            ("backprop", "vermillion", "backprop"),
        ):
            found = [100 * pooled(select(widths, width=w, credit=credit), "test_accuracy") for w in WIDTHS]
            mean, sd = np.array([v.mean() for v in found]), np.array([v.std(ddof=1) for v in found])
            right.plot(WIDTHS, mean, "o-", color=PALETTE[colour], ms=4, label=label)
            right.fill_between(WIDTHS, mean - sd, mean + sd, color=PALETTE[colour], alpha=0.15, linewidth=0)
        right.set_xscale("log", base=2)
        right.set_xticks(WIDTHS, [str(w) for w in WIDTHS])
        right.minorticks_off()
        right.set(xlabel="cells per hidden level", ylabel="test accuracy (%)")
        right.legend(loc="lower right")
    return figure


def main() -> None:
    command = command_line.parser(__doc__ or "", HERE / "results", seeds=2)
    command.add_argument("--runs", type=user_path, default=Path("runs/tdca/diffusion"), help="folder of the evolutions")
    command.add_argument("--finished", action="store_true", help="evolve nothing: report the evolutions that are there")
    command.add_argument("--quick", action="store_true", help="a minute, to see that it runs; results go to runs/quick")
    if command.parse_args().quick:
        command.set_defaults(out=Path("runs/quick"), runs=Path("runs/quick/tdca_diffusion"), seeds=1)
    options = command_line.parse(command)
    torch.set_flush_denormal(True)
    plan = entries(options.seeds)
    if options.finished:
        plan = [e for e in plan if at_its_end(options.runs / e["name"].replace(" ", "_"))]
    folders = evolved({**PLAN, "evolution": plan}, options.runs, None, options.quick)
    rows = compute(folders, options.out, options.quick)
    parts = [select(rows, part=part) for part in ("cases", "widths")]
    settings = {**PLAN, "evolution": LIFE, "learners": UNSEEN}
    save(options.out, "diffusion", report(*parts), draw(*parts), settings, {"rows": rows})
    (options.out / "diffusion.jsonl").unlink(missing_ok=True)  # its rows lie in diffusion.json now


if __name__ == "__main__":
    main()
