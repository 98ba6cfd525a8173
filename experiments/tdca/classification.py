"""Classification: learners taught by evolved credits, beside backprop, direct feedback alignment and feedback alignment.

Every learner lives the same life: T trials from newborn weights, all training samples at once (the digits) or fresh batches (MNIST, FashionMNIST), changes
clipped to norm 1, Adam or SGD. For each source of credit the optimiser's rate is searched on the same grid, on the validation set, with five learners; the
test set is read once, with ten others that evolution has not seen. Evolved credits are also shown at the rate that they were evolved for. Evolutions
that are not in --runs yet are begun, those that were stopped go on.

    python experiments/tdca/classification.py --data digits
    python experiments/tdca/classification.py --data mnist --minutes 30

digits: about 2 hours on one core; with --quick a minute.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from neurosim import data, registry
from neurosim.analysis import command_line
from neurosim.analysis.report import mean_sd, save, table
from neurosim.evolved import NAME, load_evolved
from neurosim.files import user_path
from neurosim.plot.style import LINES, empty_figure, style
from neurosim.training.evolution.classification import UNSEEN, evaluate
from neurosim.training.evolution.config import resolved
from neurosim.training.evolution.lifetime import Learners, Life
from neurosim.training.evolution.loop import CONFIG
from neurosim.training.evolution.run import run

HERE = Path(__file__).parent
NAMES = {"digits": "digits", "mnist": "MNIST", "fashion_mnist": "FashionMNIST"}
#: Learners by whose validation accuracy rates are chosen.
TUNING = tuple(range(20_000, 20_005))
REFERENCES = {"bp": "backprop", "dfa": "direct feedback alignment", "fa": "feedback alignment"}


def evolved(plan: Mapping[str, Any], folder: Path, minutes: float | None, quick: bool) -> dict[str, Path]:
    """The folders of a file's evolutions, those run that are not there or not at their end."""
    found = {}
    for entry in plan["evolution"]:
        entry = dict(entry)
        name, limit = entry.pop("name"), entry.pop("minutes", minutes)
        settings = entry.pop("settings", {})
        config = resolved("tdca", settings, data=plan["data"], normalise=plan["normalise"], test=False, **entry)
        if quick:
            config = replace(config, generations=2, batch=config.batch and 16)
        out = folder / name.replace(", ", "_").replace(" ", "_")
        done = len((out / "metrics.jsonl").read_text().splitlines()) if (out / "metrics.jsonl").is_file() else 0
        kept = (out / NAME).is_file()
        if not kept or (done < config.generations and limit is None):
            print(f"{name}: {done} of {config.generations} generations")
            run(config, out, resume=(out / CONFIG).is_file(), minutes=limit)
        found[name] = out
    return found


def cost(folder: Path) -> dict[str, float]:
    """What an evolution took: seconds, and samples presented to learners."""
    config = json.loads((folder / CONFIG).read_text())["config"]
    rows = [json.loads(line) for line in (folder / "timing.jsonl").read_text().splitlines()]
    candidates = {"meta_gradient": 1, "pepg": config["population"], "cmaes": config["population"] + 1}[
        config["strategy"]
    ]
    samples = config["batch"] or len(data.load(config["data"]).split("train")[1])
    presented = len(rows) * candidates * config["tasks"] * config["steps"] * samples
    return {"generations": len(rows), "seconds": sum(r["seconds"] for r in rows), "presented": presented}


class Teacher:
    """A source of credits on a data set."""

    def __init__(self, settings: Mapping[str, Any], plan: Mapping[str, Any], dataset: Any, quick: bool):
        self.learners = Learners(registry.model("tdca").circuit(settings))
        self.weights = self.learners.circuit.initial_weights(0) if self.learners.evolved else None
        if self.weights is not None:
            self.weights = {n: self.weights[n] for n in self.learners.evolved}
        self.plan, self.dataset = plan, dataset
        self.batch = {"batch": plan.get("batch", 0), "fresh": plan.get("fresh", False)}
        self.steps = 3 if quick else plan.get("steps", 30)

    def live(
        self,
        optimiser: str,
        rate: float,
        seeds: tuple[int, ...],
        splits: tuple[str, ...],
        steps: int = 0,
        curve: bool = False,
    ) -> Any:
        life = Life(optimiser, rate, 1.0, steps or self.steps)
        return evaluate(
            self.learners, self.weights, self.dataset, life, seeds=seeds, splits=splits, curve="validation" if curve else None, **self.batch
        )  # fmt: skip

    def searched(self, optimiser: str, seeds: tuple[int, ...] = TUNING) -> tuple[float, dict[str, float]]:
        """The rate of the highest mean validation accuracy, and that accuracy by rate."""
        tried = {
            rate: float(np.mean(self.live(optimiser, rate, seeds, ("validation",))["validation_accuracy"]))
            for rate in self.plan["rates"][optimiser]
        }
        return max(tried, key=tried.__getitem__), {str(k): v for k, v in tried.items()}


def row(
    teacher: Teacher, name: str, optimiser: str, rate: float, tried: Mapping[str, float], more: Mapping[str, Any]
) -> dict[str, Any]:
    """Ten unseen learners, and what becomes of them in longer lives."""
    found = teacher.live(optimiser, rate, UNSEEN, ("train", "validation", "test"), curve=True)
    found.pop("weights")
    longer = {
        f"{k} times": teacher.live(optimiser, rate, UNSEEN, ("validation",), steps=k * teacher.steps)[
            "validation_accuracy"
        ]
        for k in (2, 5)
    }
    failed = int(np.sum(np.array(found["test_accuracy"]) < 2 / teacher.learners.circuit.plan.stimulus_size("target")))  # type: ignore[operator]
    print(f"{name} {optimiser} {rate}: test {mean_sd(found['test_accuracy'], places=2)} %")
    return {
        "credit": name,
        "optimiser": optimiser,
        "rate": rate,
        "tried": dict(tried),
        "longer": longer,
        "failed": failed,
        **found,
        **more,
    }


def without_hidden_credit(teacher: Teacher, optimiser: str, rate: float) -> dict[str, Any]:
    """The same with the credits of hidden cells at 0, at the life's rate."""
    kept = teacher.weights
    top = teacher.learners.circuit.readout.variable.partition(".")[0]  # type: ignore[union-attr]
    teacher.weights = {
        n: w * 0 if n.startswith(("V3_", "e3_")) and not n.endswith(top) else w for n, w in (kept or {}).items()
    }
    found = teacher.live(optimiser, rate, UNSEEN, ("train", "validation"))
    teacher.weights = kept
    return {"train_without": found["train_accuracy"], "validation_without": found["validation_accuracy"]}


def alignment(teacher: Teacher, rate: float) -> dict[str, list[list[float]]]:
    """Cosine of each layer's update with backprop's along a life: (steps, learners) by projection."""
    settings = {
        "credits": "bp",
        "sizes": tuple(teacher.learners.circuit.plan.populations[p].n for p in _levels(teacher)),
    }
    reference = Learners(registry.model("tdca").circuit(settings))
    names = [n for n in teacher.learners.plastic if n.startswith("W")]
    cosines: dict[str, list[list[float]]] = {n: [] for n in names}
    found = {n: torch.as_tensor(w, dtype=torch.float32)[None] for n, w in (teacher.weights or {}).items()}
    life = Life("adam", rate, 1.0, teacher.steps)
    from neurosim.training.evolution.classification import Classification

    drawn = Classification(teacher.learners, teacher.dataset, life, seed=UNSEEN[0], **teacher.batch).samples(0, 0)

    def watch(t: int, weights: dict[str, torch.Tensor]) -> None:
        if t == life.steps:
            return
        stimuli = drawn[t % len(drawn)]
        ours = teacher.learners.present(weights, found, stimuli)[1]
        theirs = reference.present(weights, {}, stimuli)[1]
        for n in names:
            cosines[n].append(torch.nn.functional.cosine_similarity(ours[n].flatten(1), theirs[n].flatten(1)).tolist())

    with torch.no_grad():
        teacher.learners.live(life, teacher.learners.born(UNSEEN), found, lambda t: drawn[t % len(drawn)], watch)
    return cosines


def _levels(teacher: Teacher) -> list[str]:
    top = int(teacher.learners.circuit.readout.variable.partition(".")[0].removeprefix("pyr"))  # type: ignore[union-attr]
    return ["inp", *(f"pyr{l}" for l in range(1, top + 1))]


def compute(
    plan: Mapping[str, Any], folders: Mapping[str, Path], quick: bool
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    dataset = data.normalise(data.load(plan["data"]), plan["normalise"])
    sizes = tuple(load_evolved(next(iter(folders.values()))).settings["sizes"])
    rows, cosines = [], {}
    for name, folder in folders.items():
        teacher, facts = Teacher({"credits": str(folder)}, plan, dataset, quick), load_evolved(folder).facts
        life = facts["life"]
        more = {"searched": teacher.learners.size, "sources": _sources(teacher), **cost(folder)}
        more |= without_hidden_credit(teacher, life["optimiser"], life["rate"])
        rate, tried = teacher.searched(life["optimiser"])
        rows.append(row(teacher, name, life["optimiser"], rate, tried, more))
        if rate != life["rate"]:
            rows.append(row(teacher, f"{name} (its own rate)", life["optimiser"], life["rate"], {}, more))
        rate, tried = teacher.searched("sgd")  # not what it was evolved for
        rows.append(row(teacher, name, "sgd", rate, tried, more))
        cosines[name] = alignment(teacher, life["rate"])
    for credits, name in REFERENCES.items():
        teacher = Teacher({"credits": credits, "sizes": sizes}, plan, dataset, quick)
        for optimiser in plan["rates"]:
            rate, tried = teacher.searched(optimiser)
            rows.append(row(teacher, name, optimiser, rate, tried, {}))
    return rows, cosines


def _sources(teacher: Teacher) -> int:
    populations = teacher.learners.circuit.plan.populations
    return sum(p.n for name, p in populations.items() if name.startswith("site_"))


def report(plan: Mapping[str, Any], rows: list[dict[str, Any]]) -> str:
    lines = []
    for r in rows:
        evolution = (
            f"{r['generations']} gen., {r['presented'] / 1e6:.0f} M, {r['seconds']:.0f} s" if "searched" in r else "-"
        )
        zeroed = mean_sd(r["train_without"]) if "train_without" in r else "-"
        tried = list(r["tried"])
        edge = " (edge)" if tried and str(r["rate"]) in (tried[0], tried[-1]) else ""
        lines.append(
            [
                r["credit"], r["optimiser"], f"{r['rate']:g}{edge}", r.get("sources", "-"), r.get("searched", "-"), f"{np.mean(r['train_loss']):.3f}",
                mean_sd(r["train_accuracy"]), mean_sd(r["test_accuracy"], places=2), f"{100 * min(r['test_accuracy']):.1f}", r["failed"],
                " / ".join(mean_sd(v) for v in r["longer"].values()), zeroed, evolution,
            ]
        )  # fmt: skip
    header = [
        "credit", "optimiser", "rate", "sources", "searched weights", "train loss", "train (%)", "test (%)", "lowest test (%)", "failed of 10",
        "validation after 2 / 5 times the life (%)", "train without hidden credit (%)", "cost of evolution",
    ]  # fmt: skip
    best = {
        kind: max((r for r in rows if ("searched" in r) == kind), key=lambda r: np.mean(r["validation_accuracy"]))
        for kind in (True, False)
    }
    ours, theirs = (100 * np.mean(best[kind]["test_accuracy"]) for kind in (True, False))
    verdict = "more" if ours > theirs else "less"
    return "\n".join(
        [
            f"# Classification of {NAMES[plan['data']]} by evolved credits",
            "",
            f"Lives of {plan.get('steps', 30)} trials, {'fresh batches of ' + str(plan['batch']) if plan.get('fresh') else 'all training samples at once'}, pixels "
            f"normalised: {plan['normalise']}; clip 1. Mean ± sd over ten learners that evolution and the search of rates have not seen; failed: below twice chance. Cost: "
            "generations, samples presented to learners in evolution (millions), seconds on one shared core.",
            "",
            table(header, lines),
            f"By the validation set the best evolved credits ({best[True]['credit']}, {best[True]['optimiser']}) reach {ours:.2f} % on the test set, {verdict} than the best other "
            f"({best[False]['credit']}, {best[False]['optimiser']}) with {theirs:.2f} %, which needs no evolution.",
            "",
        ]
    )


def draw(plan: Mapping[str, Any], rows: list[dict[str, Any]], cosines: Mapping[str, Any]) -> dict[str, Figure]:
    shown = [r for r in rows if r["optimiser"] == "adam" and not r["credit"].endswith("(its own rate)")]
    with style():
        figure = empty_figure(7.0, 3.8)
        axes = figure.subplots()
        for r, colour in zip(shown, LINES * 2, strict=False):
            curve = 100 * np.array(r["curve"])
            mean, sd = curve.mean(1), curve.std(1, ddof=1)
            dashed = "-" if "searched" in r else "--"
            axes.plot(range(len(curve)), mean, dashed, color=colour, label=f"{r['credit']}, rate {r['rate']:g}")
            axes.fill_between(range(len(curve)), mean - sd, mean + sd, color=colour, alpha=0.15, linewidth=0)
        axes.set(xlabel="trial of the life", ylabel="validation accuracy (%)", ylim=(0, 100))
        figure.legend(loc="outside right upper")
        aligned = empty_figure(3.0 * len(cosines) + 1.0, 3.2)
        for panel, (name, found) in zip(
            aligned.subplots(1, len(cosines), sharey=True, squeeze=False)[0], cosines.items(), strict=True
        ):
            for (projection, values), colour in zip(found.items(), LINES, strict=False):
                mean, sd = np.mean(values, axis=1), np.std(values, axis=1, ddof=1)
                panel.plot(mean, color=colour, label=projection)
                panel.fill_between(range(len(mean)), mean - sd, mean + sd, color=colour, alpha=0.15, linewidth=0)
            panel.axhline(0, color="black", linewidth=0.6)
            panel.set(title=name, xlabel="trial of the life")
        aligned.axes[0].set_ylabel("cosine with backprop's update")
        aligned.legend(*aligned.axes[0].get_legend_handles_labels(), loc="outside right upper")
    return {plan["data"]: figure, f"{plan['data']}_alignment": aligned}


def main() -> None:
    command = command_line.parser(__doc__ or "", HERE / "results")
    command.add_argument("--data", default="digits", choices=tuple(NAMES), help="data set (default: digits)")
    command.add_argument("--runs", type=user_path, help="folder of the evolutions (default: runs/tdca/DATA)")
    command.add_argument(
        "--minutes",
        type=float,
        help="time limit of an evolution whose file sets none; one that it ended is taken as it is",
    )
    command.add_argument("--quick", action="store_true", help="a minute, to see that it runs; results go to runs/quick")
    if command.parse_args().quick:
        command.set_defaults(out=Path("runs/quick"), runs=Path("runs/quick/tdca"))
    options = command_line.parse(command)
    torch.set_flush_denormal(True)
    plan = tomllib.loads((HERE / f"{options.data}.toml").read_text())
    folders = evolved(plan, options.runs or Path("runs/tdca") / options.data, options.minutes, options.quick)
    rows, cosines = compute(plan, folders, options.quick)
    settings = {k: v for k, v in plan.items()} | {"learners": UNSEEN, "tuning": TUNING}
    save(
        options.out,
        options.data,
        report(plan, rows),
        draw(plan, rows, cosines),
        settings,
        {"rows": rows, "cosines": cosines},
    )


if __name__ == "__main__":
    main()
