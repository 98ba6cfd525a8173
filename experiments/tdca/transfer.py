"""Frozen top-down nets that teach what they were not evolved for: other data sets, and new tasks of four classes.

Data sets   The nets of `classification.py` that the meta-gradient found on the digits, MNIST and FashionMNIST teach learners of each of the three. Hidden
            levels are those of evolution, inputs fit the pictures. Lives of 30, 60, 150 trials on fresh batches of 256. The rate of evolution, and the rate
            of the highest validation accuracy for the same length of life; beside backprop and direct feedback alignment with theirs.
Tasks       Evolved on tasks of four digits: other classes, learners and samples in every generation. Tested on 20 drawn tasks of the digits (their classes
            were all seen in evolution, if not these choices; the images that are tested not), of MNIST and of FashionMNIST. Rates by 20 further tasks.

    python experiments/tdca/transfer.py
    python experiments/tdca/transfer.py --runs runs/tdca

What lies in RUNS/DATA/unrolled is taken; the digits' net and that of the tasks are evolved if they are not there, other data sets without a net or without
files are skipped. Finished rows are kept; delete results/transfer.json to begin anew. About 20 minutes on one core.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from classification import NAMES, TUNING, evolved
from matplotlib.figure import Figure

from neurosim import data, registry
from neurosim.analysis import command_line
from neurosim.analysis.report import collect, mean_sd, save, select, table
from neurosim.data import Dataset
from neurosim.evolved import NAME, load_evolved
from neurosim.files import user_path
from neurosim.plot.style import PALETTE, empty_figure, style
from neurosim.training.evolution.classification import UNSEEN, evaluate
from neurosim.training.evolution.lifetime import Learners, Life

HERE = Path(__file__).parent
STEPS, BATCH = (30, 60, 150), 256
RATES = (0.001, 0.003, 0.01, 0.03, 0.1)
#: Three learners per rate: lives of 150 trials are long.
CHOOSING = TUNING[:3]
#: Of the tasks.
CLASSES, TASK_STEPS, TASK_BATCH, TASKS = 4, 30, 128, 20
TASK_SIZES = (64, 32, 32, CLASSES)
MULTI: dict[str, Any] = {
    "data": "digits",
    "normalise": "standard",
    "evolution": [
        {
            "name": "4-way tasks", "strategy": "meta_gradient", "classes": CLASSES, "tasks": 4, "batch": TASK_BATCH, "fresh": True, "generations": 400,
            "settings": {"sizes": TASK_SIZES},
        }
    ],
}  # fmt: skip
OTHERS = {"bp": "backprop", "dfa": "direct feedback alignment"}


@lru_cache(maxsize=1)
def loaded(name: str) -> Dataset:
    return data.normalise(data.load(name), "standard")


def chosen_classes(task: int, known: int) -> np.ndarray:
    """The classes of a task, in the order of their new labels."""
    return np.random.default_rng([77, task]).permutation(known)[:CLASSES]


def task_of(dataset: Dataset, task: int) -> Dataset:
    """The data set's images of the task's classes, relabelled from 0."""
    place = np.full(dataset.classes, -1)
    place[chosen_classes(task, dataset.classes)] = np.arange(CLASSES)
    parts: dict[str, Any] = {}
    for split in ("train", "validation", "test"):
        images, labels = dataset.split(split)
        rows = np.flatnonzero(place[labels] >= 0)
        parts |= {f"{split}_images": images[rows], f"{split}_labels": place[labels[rows]]}
    return replace(dataset, classes=CLASSES, **parts)


class Lives:
    """Learners of one size under one source of credit.

    Parameters
    ----------
    credit
        A folder of an evolution, or a key of `OTHERS`.
    """

    def __init__(self, credit: str, sizes: Sequence[int]):
        self.learners = Learners(registry.model("tdca").circuit({"credits": credit, "sizes": tuple(sizes)}))
        drawn = self.learners.circuit.initial_weights(0)
        self.weights = {n: drawn[n] for n in self.learners.evolved}
        self.own = None if credit in OTHERS else load_evolved(credit).facts["life"]["rate"]

    def live(
        self, dataset: Dataset, rate: float, steps: int, batch: int, seeds: Sequence[int], splits: Sequence[str]
    ) -> dict[str, Any]:
        life = Life("adam", rate, 1.0, steps)
        found = evaluate(
            self.learners, self.weights, dataset, life, batch=batch, fresh=True, seeds=seeds, splits=splits
        )
        return {f"{s}_accuracy": found[f"{s}_accuracy"] for s in splits}

    def searched(self, live: Any) -> dict[str, Any]:
        """The rate whose mean validation accuracy is the highest (``live(rate)`` gives accuracies), and that accuracy by rate."""
        tried = {rate: float(np.mean(live(rate))) for rate in RATES}
        return {"rate": max(tried, key=tried.__getitem__), "tried": {str(k): v for k, v in tried.items()}}


def across(credit: str, target: str, sizes: str, steps: int, batch: int) -> dict[str, Any]:
    """Lives on a data set: ten learners at the searched rate, and at that of evolution."""
    lives = Lives(credit, [int(n) for n in sizes.split("-")])
    dataset = loaded(target)
    found = lives.searched(
        lambda rate: lives.live(dataset, rate, steps, batch, CHOOSING, ("validation",))["validation_accuracy"]
    )
    splits = ("validation", "test")
    return _shown(found, lives.own, lambda rate: lives.live(dataset, rate, steps, batch, UNSEEN, splits))


def on_tasks(credit: str, target: str, sizes: str, steps: int, batch: int, tasks: int, choosing: int) -> dict[str, Any]:
    """One learner on each task: `tasks` at the searched rate, and at that of evolution; the rate is chosen by `choosing` further tasks."""
    lives = Lives(credit, [int(n) for n in sizes.split("-")])
    dataset = loaded(target)

    def live(rates: Sequence[float], numbers: Sequence[int], splits: Sequence[str]) -> dict[float, dict[str, Any]]:
        found: dict[float, dict[str, Any]] = {rate: {f"{s}_accuracy": [] for s in splits} for rate in rates}
        for m in numbers:
            task = task_of(dataset, m)
            for rate in rates:
                one = lives.live(task, rate, steps, batch, (UNSEEN[0] + m,), splits)
                for key, values in one.items():
                    found[rate][key] += values
        return found

    tried = live(RATES, range(tasks, tasks + choosing), ("validation",))
    found = lives.searched(lambda rate: tried[rate]["validation_accuracy"])
    rates = {found["rate"], lives.own or found["rate"]}
    shown = live(sorted(rates), range(tasks), ("validation", "test"))
    return _shown(found, lives.own, lambda rate: shown[rate])


def _shown(found: dict[str, Any], own: float | None, live: Any) -> dict[str, Any]:
    found |= live(found["rate"])
    if own is None:
        return found
    at_own = found if own == found["rate"] else live(own)
    return found | {"own_rate": own, "own_test_accuracy": at_own["test_accuracy"]}


# ---------------------------------------------------------------- what is compared


def sources(runs: Path, quick: bool) -> dict[str, Path]:
    """Folders of the evolved nets by data set; the digits' is evolved if it is not there."""
    plan = tomllib.loads((HERE / "digits.toml").read_text())
    plan["evolution"] = [e for e in plan["evolution"] if e["name"] == "unrolled"]
    found = {"digits": evolved(plan, runs / "digits", None, quick)["unrolled"]}
    for name in NAMES:
        if name == "digits":
            continue
        if (runs / name / "unrolled" / NAME).is_file():
            found[name] = runs / name / "unrolled"
        else:
            print(
                f"Skipped: no net evolved on {NAMES[name]}, {runs / name / 'unrolled' / NAME} is not there (classification.py --data {name})."
            )
    return found


def targets() -> list[str]:
    found = {status.name for status in data.status() if status.found}
    there = [name for name in NAMES if name in found]
    for name in NAMES:
        if name not in there:
            print(f"Skipped: {NAMES[name]} as a target, its files are not there.")
    return there


def jobs_of(found: dict[str, Path], there: list[str], quick: bool) -> list[dict[str, Any]]:
    """By target, so that each data set is read once."""
    jobs = []
    steps = (2,) if quick else STEPS
    for target in there:
        pixels = int(np.prod(data.load(target).shape))
        hidden: dict[tuple[int, ...], list[str]] = {}
        for name, folder in found.items():
            hidden.setdefault(tuple(load_evolved(folder).settings["sizes"][1:]), []).append(name)
        for widths, names in hidden.items():
            sizes = "-".join(map(str, (pixels, *widths)))
            jobs += [
                {
                    "part": "data sets",
                    "credit": credit,
                    "target": target,
                    "sizes": sizes,
                    "steps": t,
                    "batch": 32 if quick else BATCH,
                }
                for t in steps
                for credit in (*names, *OTHERS)
            ]
        sizes = "-".join(map(str, (pixels, *TASK_SIZES[1:])))
        length = (
            {"steps": 2, "batch": 32, "tasks": 2, "choosing": 1}
            if quick
            else {"steps": TASK_STEPS, "batch": TASK_BATCH, "tasks": TASKS, "choosing": TASKS}
        )
        jobs += [
            {"part": "tasks", "credit": credit, "target": target, "sizes": sizes, **length}
            for credit in ("4-way tasks", *OTHERS)
        ]
    return jobs


def shown_name(credit: str) -> str:
    return OTHERS.get(credit) or f"evolved on {NAMES.get(credit, 'tasks of four digits')}"


def report(rows: list[dict[str, Any]]) -> str:
    def lines(part: str) -> list[list[Any]]:
        return [
            [
                NAMES[r["target"]], r["sizes"], *([r["steps"]] if part == "data sets" else []), shown_name(r["credit"]),
                f"{r['rate']:g}" + (" (edge)" if r["rate"] in (RATES[0], RATES[-1]) else ""), mean_sd(r["validation_accuracy"]), mean_sd(r["test_accuracy"]),
                f"{100 * min(r['test_accuracy']):.1f}", mean_sd(r["own_test_accuracy"]) + f" ({r['own_rate']:g})" if "own_rate" in r else "-",
            ]
            for r in select(rows, part=part)
        ]  # fmt: skip

    columns = ["credit", "rate", "validation (%)", "test (%)", "lowest test (%)", "test at the rate of evolution (%)"]
    task = select(rows, part="tasks")[0]
    return "\n".join(
        [
            "# Transfer of evolved credits",
            "",
            f"Adam, clip 1, pixels normalised: standard. Rates by the validation set, out of {', '.join(map(str, RATES))}, for each length of life.",
            "",
            "## Other data sets",
            "",
            f"Fresh batches of {select(rows, part='data sets')[0]['batch']}; mean ± sd over ten unseen learners. Nets were evolved for lives of 30 trials.",
            "",
            table(["target", "learner", "trials", *columns], lines("data sets")),
            "## Tasks of four classes",
            "",
            f"Lives of {task['steps']} trials on fresh batches of {task['batch']}; mean ± sd over {task['tasks']} tasks (the same for all credits), "
            "each with a learner of its own. Chance: 25 %.",
            "",
            table(["target", "learner", *columns], lines("tasks")),
        ]
    )  # fmt: skip


def draw(rows: list[dict[str, Any]]) -> dict[str, Figure]:
    """One panel per target and learner, a group of bars per length of life; and the tasks, a group per data set."""
    colours = {
        "digits": PALETTE["blue"], "mnist": PALETTE["green"], "fashion_mnist": PALETTE["purple"], "4-way tasks": PALETTE["blue"],
        "bp": PALETTE["vermillion"], "dfa": PALETTE["orange"],
    }  # fmt: skip

    def bars(axes: Any, groups: list[list[Any]], names: list[str]) -> None:
        credits = list(dict.fromkeys(r["credit"] for group in groups for r in group))
        for k, credit in enumerate(credits):
            at, mean, sd = [], [], []
            for place, group in enumerate(groups):
                for r in select(group, credit=credit):
                    at.append(place + 0.8 * (k - (len(credits) - 1) / 2) / len(credits))
                    values = 100 * np.array(r["test_accuracy"])
                    mean.append(values.mean())
                    sd.append(values.std(ddof=1) if len(values) > 1 else 0.0)
            axes.bar(
                at,
                mean,
                0.8 / len(credits),
                yerr=sd,
                color=colours[credit],
                label=shown_name(credit),
                error_kw={"linewidth": 0.8},
            )
        axes.set_xticks(range(len(groups)), names)
        axes.set_ylim(0, 100)

    across_rows, task_rows = select(rows, part="data sets"), select(rows, part="tasks")
    panels = list(dict.fromkeys((r["target"], r["sizes"]) for r in across_rows))
    with style():
        figure = empty_figure(3.2 * len(panels) + 2.2, 3.4)
        for axes, (target, sizes) in zip(
            figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels, strict=True
        ):
            found = select(across_rows, target=target, sizes=sizes)
            steps = list(dict.fromkeys(r["steps"] for r in found))
            bars(axes, [select(found, steps=t) for t in steps], [str(t) for t in steps])
            axes.set(title=f"{NAMES[target]}\n{sizes}", xlabel="trials of the life")
        figure.axes[0].set_ylabel("test accuracy (%)")
        _legend(figure)
        tasks = empty_figure(7.0, 3.4)
        axes = tasks.subplots()
        names = list(dict.fromkeys(r["target"] for r in task_rows))
        bars(axes, [select(task_rows, target=n) for n in names], [NAMES[n] for n in names])
        axes.axhline(100 / CLASSES, color="black", linewidth=0.6, linestyle=":")
        axes.set(ylabel="test accuracy (%)", title="tasks of four classes")
        _legend(tasks)
    return {"transfer": figure, "transfer_tasks": tasks}


def _legend(figure: Figure) -> None:
    entries = {
        label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(entries.values(), entries.keys(), loc="outside right upper")


def main() -> None:
    command = command_line.parser(__doc__ or "", HERE / "results")
    command.add_argument(
        "--runs",
        type=user_path,
        default=Path("runs/tdca"),
        help="folder of the evolutions, DATA/unrolled in it (default: runs/tdca)",
    )
    command.add_argument("--quick", action="store_true", help="a minute, to see that it runs; results go to runs/quick")
    if command.parse_args().quick:
        command.set_defaults(out=Path("runs/quick"), runs=Path("runs/quick/tdca"))
    options = command_line.parse(command)
    torch.set_flush_denormal(True)
    found = sources(options.runs, options.quick)
    folders = {**found, **evolved(MULTI, options.runs / "transfer", None, options.quick)}

    def run(part: str, credit: str, **job: Any) -> dict[str, Any]:
        return (across if part == "data sets" else on_tasks)(str(folders.get(credit, credit)), **job)

    rows = collect("transfer", jobs_of(found, targets(), options.quick), run, options.out)
    settings = {
        "steps": STEPS,
        "batch": BATCH,
        "rates": RATES,
        "learners": UNSEEN,
        "choosing": CHOOSING,
        "tasks": MULTI,
    }
    save(options.out, "transfer", report(rows), draw(rows), settings, {"rows": rows})
    (options.out / "transfer.jsonl").unlink(missing_ok=True)  # its rows lie in transfer.json now


if __name__ == "__main__":
    main()
