"""Learners taught by evolved credits inside Brian2, by the circuit's own plasticity, beside the fixed point in torch and backprop.

Digits, 64-32-32-10, batches of 20, the same seed (weights, order of the samples), float64, and the same updates: changes are added as the rule says,
eta is the rate, without clipping or Adam (which a circuit cannot do). brian2:dense integrates learner, top-down net and release sites together in
Euler steps; torch:steady jumps to the fixed point. Once with a credit for each cell, once with a messenger that diffuses between neighbours (one
release site for 4 cells, kernel `chain` in torch:steady's evolution).

Credits are evolved for such a life: plain steps without clipping, a fresh batch of 20 for each of 60 trials (one epoch). Evolution and rate are
chosen by the validation accuracy after the last epoch, on torch:steady with other seeds than those shown; the test set is read once, after the
last epoch. Wanted: mean test accuracies within 2 points.

    python experiments/tdca/inside_brian2.py
    python experiments/tdca/inside_brian2.py --epochs 10 --seeds 1

Evolutions that are not in --runs yet are begun, those that were stopped go on. Finished trainings are kept; delete results/inside_brian2.json to begin
anew. About 12 minutes on one core, 8 of them evolution.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from classification import evolved
from matplotlib.figure import Figure

from neurosim import data, registry
from neurosim.analysis import command_line
from neurosim.analysis.report import collect, listed, mean_sd, save, select, table
from neurosim.errors import DivergenceError
from neurosim.files import user_path
from neurosim.plot.style import PALETTE, empty_figure, style
from neurosim.simulation import build_engine, step_size
from neurosim.stimuli import stimulus_fields
from neurosim.training import Trainer, resolve

HERE = Path(__file__).parent
LIFE: dict[str, Any] = {
    "strategy": "meta_gradient", "optimiser": "sgd", "batch": 20, "fresh": True, "steps": 60, "generations": 400,
}  # fmt: skip
CELLS, MESSENGER = "a credit for each cell", "a messenger, ratio 4"
#: What the circuits are evolved with, and what Brian2 runs in place of it. Time to settle (ms): see `unsettled`.
KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    CELLS: ({}, {"settle": 120.0}),
    MESSENGER: ({"ratio": 4.0, "kernel": "chain"}, {"messenger": True, "settle": 200.0}),
}
#: That the learners of evolution have.
RATES: dict[str, tuple[float, ...]] = {CELLS: (1.0, 0.3), MESSENGER: (1.0,)}
#: Of the rate that credits were evolved for.
SHARES = (0.1, 0.3, 1.0)
PLAN: dict[str, Any] = {
    "data": "digits",
    "normalise": "standard",
    "evolution": [
        {"name": f"{kind}, rate {rate}", **LIFE, "learning_rate": rate, "settings": {"clip": "none", **settings}}
        for kind, (settings, _) in KINDS.items()
        for rate in RATES[kind]
    ],
}
SCHEDULE: dict[str, Any] = {
    "data": "digits", "normalise": "standard", "batch_size": 20, "optimiser": "none", "dtype": "float64", "select": "last",
}  # fmt: skip
LEVELS = ("brian2:dense", "torch:steady")
BACKPROP_RATES = (0.03, 0.1, 0.3, 1.0)
#: Of the trainings that choose.
CHOOSING = (100, 101)


def train(settings: dict[str, Any], **schedule: Any) -> tuple[Trainer, str | None]:
    """A training to its end, or to where it diverged, and how."""
    trainer = Trainer(resolve("tdca", settings, **{**SCHEDULE, **schedule}), progress=False)
    try:
        trainer.fit()
    except DivergenceError as error:
        return trainer, str(error)
    return trainer, None


def choose(name: str, folder: Path, share: float, seed: int, epochs: int, limit: int) -> dict[str, Any]:
    """Validation accuracy on torch:steady; 0 where training diverges."""
    rate = float(name.rpartition(" ")[2])
    trainer, failed = train(
        {"credits": str(folder), "eta": share * rate}, seed=seed, epochs=epochs, limit=limit, test=False
    )
    return {"validation": 0.0 if failed else trainer.metrics[-1]["validation_accuracy"]}


def run(kind: str, folder: Path, eta: float, level: str, seed: int, epochs: int, limit: int, dt: str) -> dict[str, Any]:
    """A training whose test set is read once, after it."""
    started = time.process_time()
    brian2 = level == LEVELS[0]
    settings = {"credits": str(folder), "eta": eta, **(KINDS[kind][1] if brian2 else {})}
    trainer, failed = train(
        settings, level=level, seed=seed, epochs=epochs, limit=limit, **({"dt": dt} if brian2 else {})
    )
    return {
        "failed": failed,
        "test": None if failed else trainer.evaluate("test")["accuracy"],
        **{name: [r[f"{name}_accuracy"] for r in trainer.metrics] for name in ("train", "validation")},
        "seconds": time.process_time() - started,
    }


def backprop(seeds: int, epochs: int, limit: int, quick: bool) -> dict[str, Any]:
    """The same learner, schedule and seeds under backprop's credits on torch:steady, its eta chosen in the same way."""
    length = {"epochs": epochs, "limit": limit}
    tried: dict[float, list[float]] = {}
    for eta in BACKPROP_RATES[: 1 if quick else None]:
        for seed in CHOOSING:
            trainer, failed = train({"credits": "bp", "eta": eta}, seed=seed, test=False, **length)
            tried.setdefault(eta, []).append(0.0 if failed else trainer.metrics[-1]["validation_accuracy"])
    eta = max(tried, key=lambda rate: np.mean(tried[rate]))
    trainers = [train({"credits": "bp", "eta": eta}, seed=seed, **length)[0] for seed in range(seeds)]
    return {
        "eta": eta,
        "tried": list(tried.items()),
        "epochs": epochs,
        "test": [t.evaluate("test")["accuracy"] for t in trainers],
    }


def unsettled(kind: str, folder: Path, dt: str) -> float:
    """Largest distance of a local error delta from its fixed point when the rule begins to read, relative to the largest of its layer."""
    images, labels = data.normalise(data.load("digits"), "standard").split("validation")
    ends = []
    for level in LEVELS:
        more = KINDS[kind][1] if level == LEVELS[0] else {}
        circuit = registry.model("tdca").circuit({"credits": str(folder), **more})
        options: dict[str, Any] = {"batch": 20, "dtype": "float64", "progress": False}
        options |= {"dt": step_size(dt)} if level == LEVELS[0] else {"tolerance": 1e-10}
        engine = build_engine(circuit, level, None, 0, **options)
        ends.append(engine.present(stimulus_fields(circuit, images[:20], labels[:20]), learn="off").ends["settle"])
    names = [name for name in ends[1] if name.endswith(".delta")]
    return max(float(np.abs(ends[0][n] - ends[1][n]).max() / np.abs(ends[1][n]).max()) for n in names)


def report(rows: list[dict[str, Any]], chosen: dict[str, Any], reference: dict[str, Any]) -> str:
    lines, words = [], []
    for kind, found in chosen.items():
        means = {}
        for level in LEVELS:
            shown = select(rows, kind=kind, level=level)
            means[level] = [r["test"] for r in shown if r["test"] is not None]
            lines += [
                [
                    kind, level, r["seed"], r["epochs"], r["failed"] or f"{100 * r['test']:.2f}",
                    *(f"{100 * r[part][-1]:.2f}" if r[part] else "-" for part in ("validation", "train")), f"{r['seconds']:.0f}",
                ]
                for r in shown
            ]  # fmt: skip
            words += [
                f"- {kind}, {level}, seed {r['seed']}: {listed(np.array(r['validation']) * 100, 1)}" for r in shown
            ]
        apart = abs(100 * (np.mean(means[LEVELS[0]]) - np.mean(means[LEVELS[1]]))) if all(means.values()) else np.nan
        curves = [[np.array(r["validation"]) for r in select(rows, kind=kind, level=level)] for level in LEVELS]
        common = [(a[: len(b)], b[: len(a)]) for a, b in zip(*curves, strict=True)]  # one that diverged is shorter
        largest = max((100 * np.abs(a - b).max() for a, b in common if len(a)), default=np.nan)
        found["apart"] = float(apart)
        words.append(
            f"\n{kind}: mean test accuracies differ by {apart:.2f} points (wanted: at most 2), validation accuracies in any epoch by at most {largest:.2f}. "
            f"Evolved for rate {found['name'].rpartition(' ')[2]}, run with eta {found['eta']:g}. When the rule begins to read, after "
            f"{KINDS[kind][1]['settle']:g} ms, delta is {found['unsettled']:.1e} of its largest value from the fixed point.\n"
        )
    tried = [[f"{name}, eta {eta:g}", mean_sd(v)] for f in chosen.values() for name, eta, v in f["tried"]]
    tried += [[f"backprop, eta {eta:g}", mean_sd(v)] for eta, v in reference["tried"]]
    return "\n".join(
        [
            "# Training inside Brian2",
            "",
            f"Digits, 64-32-32-10, epochs of {rows[0]['limit'] // SCHEDULE['batch_size']} updates, batches of 20, steps of {rows[0]['dt'].replace('*', ' ')}, plain "
            "updates without clipping, after the last epoch. Train: mean over the epoch, read before each update.",
            "",
            table(
                ["credit", "level", "seed", "epochs", "test (%)", "validation (%)", "train (%)", "s, one core"], lines
            ),
            f"Backprop's credits, torch:steady, eta {reference['eta']:g}, {reference['epochs']} epochs, the same seeds: test "
            f"{listed(100 * np.array(reference['test']), 2)} %.",
            "",
            "Validation accuracy (%) from epoch to epoch:",
            "",
            *words,
            f"Choice of evolution and rate, validation accuracy (%) after the last epoch on torch:steady, seeds {CHOOSING[0]} and {CHOOSING[-1]} (0: diverged):",
            "",
            table(["evolved for, run with", "validation (%)"], tried),
        ]
    )


def draw(rows: list[dict[str, Any]], kinds: list[str]) -> Figure:
    looks: dict[str, Any] = {
        "torch:steady": {"color": PALETTE["sky"], "linewidth": 4.0},  # below, broad: the curves nearly coincide
        "brian2:dense": {"color": PALETTE["vermillion"], "linewidth": 1.2, "marker": "o", "ms": 3},
    }
    panels = [(kind, seed) for kind in kinds for seed in sorted({r["seed"] for r in select(rows, kind=kind)})]
    with style():
        figure = empty_figure(3.4 * len(panels) + 1.0, 3.6)
        for axes, (kind, seed) in zip(
            figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels, strict=True
        ):
            for level, look in looks.items():
                (row,) = select(rows, kind=kind, level=level, seed=seed)
                curve = [100 * accuracy for accuracy in row["validation"]]
                axes.plot(range(1, len(curve) + 1), curve, label=level, **look)
            axes.set(xlabel="epoch", title=f"{kind}\nseed {seed}")
            axes.locator_params(axis="x", integer=True)
        figure.axes[0].set_ylabel("validation accuracy (%)")
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


def main() -> None:
    command = command_line.parser(__doc__ or "", HERE / "results", seeds=2)
    command.add_argument(
        "--runs", type=user_path, default=Path("runs/tdca/inside_brian2"), help="folder of the evolutions"
    )
    command.add_argument("--epochs", type=int, default=40, help="length of training (default: 40)")
    command.add_argument("--messenger-epochs", type=int, default=20, help="the same with the messenger (default: 20)")
    command.add_argument("--dt", default="2*ms", help="Euler step of Brian2 (default: 2*ms)")
    command.add_argument("--quick", action="store_true", help="a minute, to see that it runs; results go to runs/quick")
    if command.parse_args().quick:
        command.set_defaults(out=Path("runs/quick"), runs=Path("runs/quick/tdca_inside_brian2"), seeds=1)
    options = command_line.parse(command)
    torch.set_flush_denormal(True)
    limit = 60 if options.quick else 1280
    epochs = {CELLS: 1, MESSENGER: 1} if options.quick else {CELLS: options.epochs, MESSENGER: options.messenger_epochs}
    folders = evolved(PLAN, options.runs, None, options.quick)
    chosen, jobs = {}, []
    for kind in KINDS:
        length = {"epochs": epochs[kind], "limit": limit}
        choices = [
            {"name": name, "share": share, "seed": seed, **length}
            for name in folders
            if name.startswith(kind)
            for share in SHARES[: 1 if options.quick else None]
            for seed in CHOOSING
        ]
        tried = collect(
            "inside_brian2_choice", choices, lambda name, **job: choose(name, folders[name], **job), options.out
        )
        means = {}
        for r in tried:
            means.setdefault((r["name"], round(r["share"] * float(r["name"].rpartition(" ")[2]), 6)), []).append(
                r["validation"]
            )
        name, eta = max(means, key=lambda key: np.mean(means[key]))
        chosen[kind] = {
            "name": name, "eta": eta, "tried": [[*key, v] for key, v in means.items()], "unsettled": unsettled(kind, folders[name], options.dt),
        }  # fmt: skip
        jobs += [
            {"kind": kind, "level": level, "eta": eta, "seed": seed, **length, "dt": options.dt}
            for level in LEVELS
            for seed in range(options.seeds)
        ]
    rows = collect(
        "inside_brian2", jobs, lambda kind, **job: run(kind, folders[chosen[kind]["name"]], **job), options.out
    )
    reference = backprop(options.seeds, epochs[CELLS], limit, options.quick)
    text = report(rows, chosen, reference)
    settings = {**SCHEDULE, "evolution": LIFE, "brian2": {kind: KINDS[kind][1] for kind in KINDS}}
    save(
        options.out,
        "inside_brian2",
        text,
        draw(rows, list(KINDS)),
        settings,
        {"chosen": chosen, "backprop": reference, "rows": rows},
    )
    for name in ("inside_brian2", "inside_brian2_choice"):
        (options.out / f"{name}.jsonl").unlink(missing_ok=True)  # what lies in inside_brian2.json now, and the choice


if __name__ == "__main__":
    main()
