"""Test accuracy of ghost-unit circuits, of their backprop twin, of feedback alignment and of the controls.

    python experiments/ghost_units/training_table.py                                       digits, 5 seeds
    python experiments/ghost_units/training_table.py --data mnist --data-dir DATA           MNIST, 3 seeds
    python experiments/ghost_units/training_table.py --quick                                a look, in a minute

Nothing is chosen here: settings are the model's defaults and its `training` preset, or those of the prototypes. The test
set is read once, after a run's last epoch; the validation set is read for learning curves only. Each finished run is a
line in NAME.jsonl of the output folder; after a cut, --resume goes on from there. When all runs are done the folder holds
NAME.md, NAME.json (with every run) and NAME.png, and the .jsonl is removed.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from neurosim.errors import DivergenceError, NeurosimError
from neurosim.files import user_path
from neurosim.plot import learning_curves
from neurosim.plot.style import GREY, PALETTE, empty_figure, save_figure, style
from neurosim.simulation import versions
from neurosim.training import TrainConfig, Trainer, load, resolve, train

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
MODEL = "ghost_units"
SEEDS = {"digits": 5, "mnist": 3}
TRAIN = {"digits": 1294, "mnist": 55_000}  # training samples
CHANCE = 10.0
FAILED = CHANCE + 5  # a run of at most this accuracy (%) has failed
ENLARGED = 84.0  # where the right panel of the figure begins

PRESET, TANH, PLAIN, MNIST = "preset, logistic", "preset, tanh", "plain updates, logistic", "preset, logistic, MNIST"
#: The prototypes' update: changes are added as the rules say.
AS_NOTE = {"optimiser": "none", "epochs": 40, "batch_size": 32}


@dataclass(frozen=True)
class Row:
    """A line of the table. `prototype`: accuracy (%) of our earlier prototype of that circuit and rule."""

    label: str
    group: str
    settings: dict[str, Any] = field(default_factory=dict)
    schedule: dict[str, Any] = field(default_factory=dict)
    prototype: float | None = None

    @property
    def key(self) -> str:
        return f"{self.group}: {self.label}"

    def config(self, data: str, seed: int, quick: bool) -> TrainConfig:
        small = {"epochs": 2, "limit": 320 if data == "digits" else 2560} if quick else {}
        return resolve(MODEL, self.settings, data=data, seed=seed, **{**self.schedule, **small})


def _tanh(**settings: Any) -> dict[str, Any]:
    return {"transfer": "tanh", **settings}


TWIN, ALIGNED = {"method": "backprop"}, {"method": "feedback_alignment"}
DIGITS = (
    Row("backprop twin", PRESET, schedule=TWIN, prototype=96.9),
    Row("feedback alignment", PRESET, schedule=ALIGNED, prototype=89.9),
    Row("exact, sym, R4 (default)", PRESET, prototype=97.0),
    Row("exact, sym, R1", PRESET, {"rule": "R1"}, prototype=96.5),
    Row("exact, sym, R2", PRESET, {"rule": "R2"}),
    Row("exact, sym, R3", PRESET, {"rule": "R3"}, prototype=97.0),
    Row("exact, fa, R4", PRESET, {"feedback": "fa"}, prototype=89.9),
    Row("learned, sym, R4", PRESET, {"mode": "learned"}, prototype=97.0),
    Row("learned, fa, R4", PRESET, {"mode": "learned", "feedback": "fa"}),
    Row("online, sym, R4", PRESET, {"mode": "online"}, prototype=97.0),
    Row("none, R3 (default)", PRESET, {"mode": "none"}, prototype=10.3),
    Row("none, R1", PRESET, {"mode": "none", "rule": "R1"}, prototype=38.9),
    Row("none, R4", PRESET, {"mode": "none", "rule": "R4"}),
    Row("backprop twin", TANH, _tanh(), TWIN, prototype=95.3),
    Row("exact, sym, R4", TANH, _tanh(), prototype=94.4),
    Row("learned, sym, R4", TANH, _tanh(mode="learned"), prototype=95.3),
    Row("online, sym, R4", TANH, _tanh(mode="online")),
    Row("backprop twin", PLAIN, {}, {**AS_NOTE, **TWIN, "optimiser": "sgd", "learning_rate": 1.0}, prototype=96.9),
    Row("exact, sym, R4", PLAIN, {"eta": 1.0}, AS_NOTE, prototype=97.0),
    Row("learned, sym, R4", PLAIN, {"eta": 1.0, "mode": "learned"}, AS_NOTE, prototype=97.0),
    Row("none, R3", PLAIN, {"eta": 1.0, "mode": "none"}, AS_NOTE, prototype=10.3),
    Row("none, R1", PLAIN, {"eta": 1.0, "mode": "none", "rule": "R1"}, AS_NOTE, prototype=38.9),
)  # fmt: skip
PAIR = (Row("backprop twin", MNIST, schedule=TWIN), Row("exact, sym, R4", MNIST))

#: What was asked for before the runs: label, text, test of the mean accuracy (%).
GOALS: tuple[tuple[str, str, Callable[[float], bool]], ...] = (
    ("exact, sym, R4 (default)", "≥ 96.0", lambda x: x >= 96.0),
    ("learned, sym, R4", "≥ 95.5", lambda x: x >= 95.5),
    ("online, sym, R4", "≥ 95.5", lambda x: x >= 95.5),
    ("none, R3 (default)", "< 50", lambda x: x < 50),
    ("none, R1", "< 50", lambda x: x < 50),
    ("none, R4", "< 50", lambda x: x < 50),
)


# ------------------------------------------------------------------------------------------------- runs, in workers


@dataclass(frozen=True)
class Job:
    """What all runs of a table share."""

    data: str
    quick: bool
    data_dir: str | None
    commit: str | None


def _begin() -> None:
    """Load at once all that a run needs, so that no source file is read later; die quietly on Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    for module in ("neurosim.training.backprop", "neurosim.training.optimisers", "neurosim.backends.torch.steady"):
        importlib.import_module(module)


def run_alone(job: Job, rows: tuple[Row, ...], seed: int) -> list[dict[str, Any]]:
    """Train one row with one seed; the test set is read once, at the end."""
    config = rows[0].config(job.data, seed, job.quick)
    schedule = {k: v for k, v in asdict(config).items() if k not in ("model", "settings")}
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        try:
            run: Any = train(MODEL, folder, settings=config.settings, data_dir=job.data_dir, progress=False, **schedule)
            test = {"accuracy": run.result["test_accuracy"], "loss": run.result["test_loss"]}
        except NeurosimError as error:
            if not isinstance(error.__cause__, DivergenceError):
                raise
            run, test = load(folder), {}
    return [_record(job, rows[0], config, run.metrics, time.perf_counter() - started, test)]


def run_pair(job: Job, rows: tuple[Row, ...], seed: int) -> list[dict[str, Any]]:
    """Train rows side by side, one epoch of each in turn, so that what else the machine does burdens them alike."""
    trainers = {row.key: Trainer(row.config(job.data, seed, job.quick), job.data_dir, progress=False) for row in rows}
    curves: dict[str, list[dict[str, Any]]] = {row.key: [] for row in rows}
    alive = list(trainers)
    for number in range(1, trainers[rows[0].key].config.epochs + 1):
        for key in alive[:: 1 if number % 2 else -1]:  # neither is always first
            started = time.perf_counter()
            try:
                trained = trainers[key].epoch(number)
            except DivergenceError:
                alive.remove(key)
                continue
            seconds = time.perf_counter() - started
            checked = trainers[key].evaluate("validation")
            found = {"epoch": number, **trained, "seconds": seconds}
            curves[key].append(found | {f"validation_{k}": checked[k] for k in ("accuracy", "loss")})
    records = []
    for row in rows:
        curve, test = curves[row.key], trainers[row.key].evaluate("test") if row.key in alive else {}
        record = _record(job, row, trainers[row.key].config, curve, sum(x["seconds"] for x in curve), test)
        records.append(record | {"curve": [{k: _finite(v) for k, v in x.items()} for x in curve]})
    return records


def _record(
    job: Job, row: Row, config: TrainConfig, curve: list[dict[str, Any]], seconds: float, test: dict[str, Any]
) -> dict[str, Any]:
    """A line of the .jsonl. A run whose loss is not finite has no accuracy: argmax over NaN is no answer."""
    diverged = not test or not math.isfinite(test["loss"])
    batches = (config.limit or TRAIN[config.data]) // config.batch_size
    last = curve[-1] if curve else {}
    return {
        "key": row.key,
        "seed": config.seed,
        "test_accuracy": None if diverged else test["accuracy"],
        "test_loss": None if diverged else _finite(test["loss"]),
        "diverged": diverged,
        "epochs": len(curve),
        **{k: _finite(last.get(k)) for k in ("train_accuracy", "validation_accuracy", "ghost_residual")},
        "unsettled": int(sum(x["unsettled"] for x in curve)),
        "presented": len(curve) * batches * config.batch_size,
        "seconds": round(seconds, 2),
        "fingerprint": fingerprint(config),
        "commit": job.commit,
        "load_average": round(os.getloadavg()[0], 1),
    }


def _finite(value: Any) -> Any:
    """A number for JSON: five digits, None where it is not finite."""
    if not isinstance(value, float):
        return value
    return float(f"{value:.5g}") if math.isfinite(value) else None


def fingerprint(config: TrainConfig) -> str:
    """Tells whether a stored run was made with the configuration of today."""
    return hashlib.sha256(json.dumps(asdict(config), sort_keys=True).encode()).hexdigest()[:12]


# --------------------------------------------------------------------------------------------------- all runs, stored


def run_all(job: Job, rows: tuple[Row, ...], seeds: int, store: Path, resume: bool) -> list[dict[str, Any]]:
    """Run what is not stored yet. Returns the records of all rows and seeds."""
    wanted = {(r.key, s): fingerprint(r.config(job.data, s, job.quick)) for r in rows for s in range(seeds)}
    stored = [*_finished(store.with_suffix(".json")), *_lines(store)] if resume else []
    done = {(x["key"], x["seed"]): x for x in stored if wanted.get((x["key"], x["seed"])) == x["fingerprint"]}
    store.write_text("".join(json.dumps(x) + "\n" for x in done.values()))
    print(f"{len(wanted)} runs, {len(done)} of them stored already; output folder {store.parent}", flush=True)

    units = [rows] if job.data == "mnist" else [(row,) for row in rows]
    missing = [(u, s) for u in units for s in range(seeds) if any((r.key, s) not in done for r in u)]
    # A new interpreter reads the thread limits before torch is loaded. Timed pairs run one after another.
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))
    workers, run = (1, run_pair) if job.data == "mnist" else (2, run_alone)
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin)
    try:
        with open(store, "a") as file:
            for future in as_completed([pool.submit(run, job, unit, seed) for unit, seed in missing]):
                for record in future.result():
                    done[record["key"], record["seed"]] = record
                    file.write(json.dumps(record) + "\n")
                    file.flush()
                    print(f"[{len(done)}/{len(wanted)}] {_said(record)}", flush=True)
    except BaseException:
        print(f"Stopped: {len(done)} finished runs are kept in {store}; go on with --resume.", file=sys.stderr)
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    return [done[key] for key in wanted]


def _said(record: dict[str, Any]) -> str:
    accuracy = record["test_accuracy"]
    result = f"diverged, {record['epochs']} epochs" if accuracy is None else f"{100 * accuracy:.2f} %"
    return f"{record['key']}, seed {record['seed']}: {result} ({record['seconds']:.0f} s)"


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a .jsonl; one cut off in the middle is left out."""
    for line in path.read_text().splitlines() if path.is_file() else ():
        with contextlib.suppress(json.JSONDecodeError):
            yield json.loads(line)


def _finished(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text())["runs"] if path.is_file() else []


def commit() -> str | None:
    """The commit that runs; `+changes` where package or models differ from it."""
    try:
        words = (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "--", "neurosim", "models"])
        head, changes = (subprocess.check_output(["git", "-C", str(ROOT), *w], text=True).strip() for w in words)
        return head + ("+changes" if changes else "")
    except (OSError, subprocess.CalledProcessError):
        return None


# ----------------------------------------------------------------------------------------------------------- numbers


def summary(row: Row, config: TrainConfig, runs: list[dict[str, Any]], twin: list[dict[str, Any]]) -> dict[str, Any]:
    """Accuracies in %, over the runs that have one (a diverged run has none; it counts as failed)."""
    accuracies = [100 * x["test_accuracy"] for x in runs if x["test_accuracy"] is not None]
    of_twin = {x["seed"]: x["test_accuracy"] for x in twin}
    pairs = [(x["test_accuracy"], of_twin[x["seed"]]) for x in runs if twin is not runs]
    seconds = [r["seconds"] for x in runs for r in x.get("curve", ())]
    return {
        "group": row.group,
        "label": row.label,
        "config": {k: v for k, v in asdict(config).items() if k != "seed"},
        "runs": len(runs),
        **dict(zip(("mean", "sd", "interval"), _moments(accuracies), strict=True)),
        "min": min(accuracies, default=None),
        "minus_twin": _moments([100 * (a - b) for a, b in pairs if a is not None and b is not None])[::2],
        "failed_seeds": [x["seed"] for x in runs if x["test_accuracy"] is None or 100 * x["test_accuracy"] <= FAILED],
        "diverged_seeds": [x["seed"] for x in runs if x["diverged"]],
        "unsettled": sum(x["unsettled"] for x in runs),
        "presented": sum(x["presented"] for x in runs),
        "seconds_per_run": float(np.median([x["seconds"] for x in runs])),
        "seconds_per_epoch": float(np.median(seconds)) if seconds else None,
        "prototype": row.prototype,
    }


def _moments(values: list[float]) -> tuple[float | None, float | None, tuple[float, float] | None]:
    """Mean, sd (n - 1), 95 % interval of the mean by Student's t."""
    if len(values) < 2:
        return (values[0] if values else None), None, None
    mean, sd = float(np.mean(values)), float(np.std(values, ddof=1))
    half = float(stats.t.ppf(0.975, len(values) - 1)) * sd / math.sqrt(len(values))
    return mean, sd, (mean - half, mean + half)


def ratios(runs: list[dict[str, Any]]) -> list[float]:
    """Seconds of each epoch of the circuit by those of the twin's epoch beside it."""
    seconds = {(x["key"], x["seed"], r["epoch"]): r["seconds"] for x in runs for r in x["curve"]}
    twin, ghost = (row.key for row in PAIR)
    return [v / seconds[twin, s, e] for (k, s, e), v in seconds.items() if k == ghost and (twin, s, e) in seconds]


def _json(result: dict[str, Any]) -> str:
    """JSON with a line for each row and run."""
    parts = []
    for key, value in result.items():
        lists = isinstance(value, list) and value and isinstance(value[0], dict)
        text = "[\n  " + ",\n  ".join(json.dumps(x) for x in value) + "\n ]" if lists else json.dumps(value)
        parts.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def environment(runs: list[dict[str, Any]]) -> dict[str, Any]:
    loads = [x["load_average"] for x in runs]
    about = {"commits": sorted({str(x["commit"]) for x in runs}), "versions": versions(), "cores": os.cpu_count()}
    return {**about, "threads_per_run": 1, "load_average": [min(loads), max(loads)]}


# ------------------------------------------------------------------------------------------------------------- texts


def _number(value: float | None, form: str = ".2f") -> str:
    return "–" if value is None else format(value, form).replace("-", "−")


def _interval(value: Any, form: str = ".2f") -> str:
    return "–" if value is None else f"{_number(value[0], form)} to {_number(value[1], form)}"


def _failed(s: dict[str, Any]) -> str:
    if not s["failed_seeds"]:
        return "0"
    listed = ", ".join(f"{x} diverged" if x in s["diverged_seeds"] else str(x) for x in s["failed_seeds"])
    return f"{len(s['failed_seeds'])} ({listed})"


def _unsettled(s: dict[str, Any]) -> str:
    return f"{s['unsettled']:,} of {s['presented']:,}" if s["unsettled"] else "0"


HEAD = ("mean", "sd", "min", "95 % interval", "minus twin", "failed seeds", "unsettled")


def _cells(s: dict[str, Any]) -> list[str]:
    difference = _number(s["minus_twin"][0], "+.2f")
    if s["minus_twin"][1] is not None:
        difference += f" ({_interval(s['minus_twin'][1], '+.2f')})"
    return [
        s["label"], _number(s["mean"]), _number(s["sd"]), _number(s["min"]), _interval(s["interval"]), difference,
        _failed(s), _unsettled(s),
    ]  # fmt: skip


def _table(head: list[str], lines: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(x)} |" for x in (head, ["---"] + ["---:"] * (len(head) - 1), *lines)]


READING = """
Accuracies in %; sd with n − 1; interval: 95 % of the mean over seeds, Student's t. Minus twin: mean difference from the
backprop twin of the same table with the same seed (same initial weights, same order of data), with its 95 % interval.
Failed seeds: diverged (a state or the loss not finite; listed, and without an accuracy) or test accuracy ≤ 15 %. Unsettled:
fixed points that missed the tolerance during training, summed over seeds and phases. Seeds vary initial weights and order
of data on one fixed split, so the intervals do not cover the draw of the {test:,} test images; one image is {one:.2g} %.
The test set was read once per run, after its last epoch; nothing was chosen by these figures."""

PROTOTYPE = """
Prototype [CHK]: our earlier prototype code, 3 seeds, Euler steps in place of fixed points, split 1,347 / 450 in place of
1,294 / 143 / 360, plain updates (eta 1.0 logistic, 0.1 tanh), 40 epochs. In brackets where update and schedule of the row
differ from that. The prototypes of `exact` (but R1) used R3, which equals R4 where the free state has no top-down current;
that of tanh `learned` had kappa 0.3 and beta 0.3."""

CONTROL = """
Without ghosts the circuit fails with R3, which reads the top-down current itself. R1 and R4 compare with the free state, and
at the fixed points of both phases that contrast alone trains (the feedback is the transpose of the forward weights, as in
equilibrium propagation). It needs time to settle and a stored free state, and that is where it differs from the circuit with
ghosts. The prototype's 38.9 % for R1 has its cause in the phases, probably of 10 tau [INF], in which a circuit without ghosts
does not settle [CHK, one seed, validation accuracy after 13 epochs of plain updates, weights changed in the last step of a
phase]: phases of 300 ms 84 % (fixed points: 85 %), 100 ms 37 %, 60 ms (the default) 10 %. With the default window of 20 ms,
in which the changing weights move the rates that R1 reads, 300 ms too stay near chance. The command for 100 ms:"""

SETTLING = """
    neurosim train ghost_units --level torch:trajectory --dt '5*ms' --epochs 13 --set mode=none --set rule=R1 \\
        --set eta=1 --set t_free='100*ms' --set t_nudged='100*ms' --set t_learn='5*ms'
"""

WHERE = """
Commit {commits}; torch {torch}, float32, one thread per run, two runs at a time; {cores} cores shared with other jobs (load
average {load[0]} to {load[1]}), so times are rough."""


def _prose(text: str, **values: Any) -> list[str]:
    return [*textwrap.wrap(text.strip().format(**values), 120, break_on_hyphens=False), ""]


def _where(e: dict[str, Any], two: bool) -> list[str]:
    text = WHERE if two else WHERE.replace(", two runs at a time", "")
    values = {"torch": e["versions"]["torch"], "cores": e["cores"], "load": e["load_average"]}
    return _prose(text, commits=", ".join(e["commits"]), **values)


def digits_text(summaries: list[dict[str, Any]], e: dict[str, Any]) -> str:
    count = summaries[0]["runs"]
    lines = ["## Training table: digits", "", "    python experiments/ghost_units/training_table.py", ""]
    lines += [f"Level `torch:steady`, net 64-64-32-10, {count} seeds, split 1,294 / 143 / 360.", ""]
    about = {
        PRESET: "The model's `training` preset: the rules' changes go through Adam (rate 0.005), batches of 32, 30 epochs, "
        "as `neurosim train ghost_units`.",
        TANH: "The same preset with `--set transfer=tanh`.",
        PLAIN: "The prototypes' setting: changes are added as the rules say, eta 1.0 (twin: SGD, rate 1.0), batches of 32, "
        "40 epochs.",
    }
    for group, text in about.items():
        cells = []
        for s in [s for s in summaries if s["group"] == group]:
            prototype = _number(s["prototype"], ".1f")
            bracketed = f"({prototype})" if s["prototype"] and group != PLAIN else prototype
            cells.append([*_cells(s), _number(s["seconds_per_run"], ".0f"), bracketed])
        lines += [f"### {group[0].upper()}{group[1:]}", "", *_prose(text)]
        lines += [*_table(["method", *HEAD, "s per run", "prototype"], cells), ""]
    lines += [*_prose(READING, test=360, one=100 / 360), *_prose(PROTOTYPE), "### Goals", ""]
    found = {s["label"]: s for s in summaries if s["group"] == PRESET}
    goals = []
    for label, wanted, test in GOALS:
        mean, failed = found[label]["mean"], _failed(found[label])
        met = mean is not None and test(mean)
        goals.append([label, wanted, _number(mean), failed, "met" if met else "**not met**"])
    lines += [*_table(["preset, logistic", "wanted mean", "found", "failed seeds", "result"], goals), ""]
    lines += [*_prose(CONTROL), SETTLING.strip("\n"), ""] if found["none, R4"]["mean"] > 50 else []
    return "\n".join([*lines, *_where(e, two=True)])


def mnist_text(summaries: list[dict[str, Any]], e: dict[str, Any], speed: dict[str, Any]) -> str:
    cells = [[*_cells(s), _number(s["seconds_per_epoch"], ".1f")] for s in summaries]
    lines = ["## Training table: MNIST", ""]
    lines += ["    python experiments/ghost_units/training_table.py --data mnist --data-dir DATA", ""]
    lines += _prose(
        "Level `torch:steady`, net 784-500-10, logistic, {n} seeds, split 55,000 / 5,000 / 10,000. Preset: Adam, rate 0.003 "
        "times 0.9 per epoch, batches of 128, 15 epochs, as `neurosim train ghost_units --data mnist` (found on the twin's "
        "validation set).",
        n=summaries[0]["runs"],
    )
    lines += [*_table(["method", *HEAD, "s per epoch"], cells), "", *_prose(READING, test=10_000, one=0.01)]
    lines += _prose(
        "**An epoch of the circuit takes {median:.2f} times as long as one of its backprop twin** (median over {epochs} pairs "
        "of epochs, quartiles {quartiles[0]:.2f} and {quartiles[1]:.2f}): both train in one process, one epoch of each in "
        "turn. Seconds per epoch: median over epochs and seeds, training alone, validation left out.",
        **speed,
    )
    return "\n".join([*lines, *_where(e, two=False)])


# ------------------------------------------------------------------------------------------------------------ figures


def dot_plot(summaries: list[dict[str, Any]], runs: list[dict[str, Any]]) -> Figure:
    """Mean and sd of each row: all accuracies on the left, the upper ones enlarged on the right."""
    groups = list(dict.fromkeys(s["group"] for s in summaries))
    colours = dict(zip(groups, (PALETTE["blue"], PALETTE["vermillion"], PALETTE["green"]), strict=True))
    heights = [k + 0.8 * groups.index(s["group"]) for k, s in enumerate(summaries)]
    seed: dict[str, Any] = {"ms": 2.5, "color": GREY, "alpha": 0.6}
    with style():
        figure = empty_figure(9.0, 1.4 + 0.27 * len(summaries))
        left, right = figure.subplots(1, 2, sharey=True)
        for axes, low, title in ((left, 0.0, "all"), (right, ENLARGED, f"enlarged, from {ENLARGED:g} %")):
            for s, height in zip(summaries, heights, strict=True):
                own = [x["test_accuracy"] for x in runs if x["key"] == f"{s['group']}: {s['label']}"]
                one = [100 * x for x in own if x is not None]
                if one:
                    axes.plot(one, [height + 0.25] * len(one), "o", **seed)
                    axes.errorbar(
                        s["mean"], height, xerr=s["sd"] or 0, fmt="o", ms=5, capsize=3, color=colours[s["group"]]
                    )
            axes.set_xlim(low, 100.0)
            axes.grid(axis="x", color="#DDDDDD", linewidth=0.6)
            axes.set_axisbelow(True)
            axes.set_xlabel("test accuracy (%)")
            axes.set_title(title)
        left.axvline(CHANCE, color=GREY, linestyle=":")
        left.annotate("chance", (CHANCE, heights[0]), (3, 0), textcoords="offset points", color=GREY, va="center")
        left.set_yticks(heights, [s["label"] for s in summaries])
        left.set_ylabel("method")
        left.invert_yaxis()
        for group in groups:
            left.plot([], [], "o", ms=5, color=colours[group], label=group)
        left.plot([], [], "o", label="one seed", **seed)
        figure.legend(loc="outside upper center", ncols=len(groups) + 1, title="mean ± sd over seeds")
    return figure


# --------------------------------------------------------------------------------------------------------------- main


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", choices=SEEDS, default="digits", help="data set (default digits, which needs no files)")
    p.add_argument("--data-dir", metavar="DIR", help="where MNIST lies (default: environment variable NEUROSIM_DATA)")
    p.add_argument("--seeds", type=int, metavar="N", help="seeds 0 to N-1 (default 5, MNIST 3)")
    p.add_argument("--quick", action="store_true", help="2 seeds, 2 epochs, few samples: only shows that it runs")
    p.add_argument(
        "--out",
        type=user_path,
        metavar="DIR",
        help="output folder (default: results beside this file; quick: runs/quick)",
    )
    p.add_argument("--resume", action="store_true", help="keep stored runs of the same configuration, run the others")
    return p


def main() -> int:
    p = parser()
    options = p.parse_args()
    data, quick = options.data, options.quick
    seeds = options.seeds if options.seeds is not None else 2 if quick else SEEDS[data]
    if seeds < 1:
        p.error("--seeds wants a number of 1 or more")
    out = options.out or (ROOT / "runs" / "quick" if quick else HERE / "results")
    name = "training_table" if data == "digits" else "training_mnist"
    store = out / f"{name}.jsonl"
    if store.exists() and not options.resume:
        print(f"error: {store} holds runs of a cut-off table: add --resume to go on, or delete it.", file=sys.stderr)
        return 1
    out.mkdir(parents=True, exist_ok=True)
    rows, job = DIGITS if data == "digits" else PAIR, Job(data, quick, options.data_dir, commit())
    try:
        runs = run_all(job, rows, seeds, store, options.resume)
    except KeyboardInterrupt:
        return 130
    except NeurosimError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    of = {row.key: [x for x in runs if x["key"] == row.key] for row in rows}
    twins = {row.group: of[row.key] for row in rows if row.schedule.get("method") == "backprop"}
    summaries = [summary(row, row.config(data, 0, quick), of[row.key], twins[row.group]) for row in rows]
    result = {"quick": quick, "environment": environment(runs)}
    if data == "digits":
        text, figure = digits_text(summaries, result["environment"]), dot_plot(summaries, runs)
    else:
        r = ratios(runs)
        speed = {"median": float(np.median(r)), "quartiles": np.quantile(r, (0.25, 0.75)).tolist(), "epochs": len(r)}
        result["seconds_by_those_of_backprop"] = speed
        text = mnist_text(summaries, result["environment"], speed)
        curves = {row.label: [x["curve"] for x in of[row.key]] for row in rows}
        figure = learning_curves(curves, title="MNIST, 784-500-10, logistic")
    (out / f"{name}.json").write_text(_json(result | {"rows": summaries, "runs": runs}))
    (out / f"{name}.md").write_text(text)
    save_figure(figure, out / f"{name}.png")
    store.unlink()
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
