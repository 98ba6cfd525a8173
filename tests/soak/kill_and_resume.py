"""Kills trainings with signal 9 at random moments, resumes them, and compares what they leave with undisturbed runs.

A case is a data set, a model and an engine. Its command runs once undisturbed. Then it runs again in new folders: killed, resumed (or
begun again where it was killed before its run folder could be resumed), killed again, and at last left to its end. One kill in six falls
into start-up; the moments of the others are uniform over what is left of the training. metrics.jsonl and weights.safetensors must then be
those of the undisturbed run byte for byte, result.json too but for its seconds, and no other file may lie about. Checkpoints are
frequent, so that most runs go on from the middle of an epoch. Prints a line per kill; the exit status is 1 if anything differs.

Examples:
    python tests/soak/kill_and_resume.py --kills 3 --data digits --out /tmp/soak
    python tests/soak/kill_and_resume.py --seed 1 --kills 30 --data digits mnist --out tests/soak/results
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from safetensors.numpy import load_file

from neurosim.analysis.report import as_json, table
from neurosim.errors import NeurosimError
from neurosim.simulation import versions
from neurosim.training import TrainConfig, checkpoint

NAME = "kill_and_resume"
SECONDS = ("seconds", "seconds_per_epoch")  # of result.json
FILES = {"config.toml", "run.json", "metrics.jsonl", "timing.jsonl", "weights.safetensors", "result.json"}


@dataclass(frozen=True)
class Settings:
    """Kill trainings at random moments, resume them, compare them with undisturbed ones."""

    seed: int = 0
    """Of the moments."""
    kills: int = 30
    """Kills in all, shared out over the cases."""
    data: tuple[Literal["digits", "mnist"], ...] = ("digits", "mnist")
    """Data sets (mnist needs NEUROSIM_DATA)."""
    models: tuple[str, ...] = ("ghost_units", "dendritic_microcircuit", "equilibrium_propagation")
    """Models, each on two engines."""
    checkpoint: float = 0.3
    """Seconds between checkpoints."""
    timeout: float = 600.0
    """Seconds after which a training counts as hanging."""
    out: Path | None = None
    """Write kill_and_resume.md and kill_and_resume.json to this folder."""


# ------------------------------------------------------------------ cases

#: Per model and engine: settings, and (samples, batch, epochs) on the digits and on MNIST. Together: optimisers with a memory, rules that
#: are part of the dynamics, plastic ghosts, filtered rules, noise of the cells. Engines in time get over 50 batches an epoch: after
#: each 50 they can write a checkpoint.
CASES: dict[str, dict[str, tuple[tuple[str, ...], dict[str, tuple[int, int, int]]]]] = {
    "ghost_units": {
        "torch:steady": (("mode=learned", "optimiser=adam"), {"digits": (1280, 32, 20), "mnist": (2000, 32, 15)}),
        "brian2:dense": (
            ("mode=exact", "t_free=30*ms", "t_nudged=30*ms", "eta=1"), {"digits": (640, 8, 3), "mnist": (7000, 128, 2)},
        ),
    },
    "dendritic_microcircuit": {
        "torch:steady": (
            ("lateral=self_predicting", "tau_w=30*ms", "optimiser=adam"), {"digits": (1280, 32, 6), "mnist": (2000, 32, 8)},
        ),
        "torch:trajectory": (
            ("lateral=self_predicting", "tau_w=30*ms", "sigma=0.1", "pattern=30*ms"),
            {"digits": (480, 8, 2), "mnist": (7000, 128, 1)},
        ),
    },
    "equilibrium_propagation": {
        "torch:steady": (("optimiser=sgd", "learning_rate=0.5"), {"digits": (1280, 32, 5), "mnist": (2000, 32, 8)}),
        "brian2:dense": (("t_free=40*ms", "t_nudged=30*ms", "eta=1"), {"digits": (640, 8, 3), "mnist": (7000, 128, 2)}),
    },
}  # fmt: skip
SIZES = {"digits": "64,16,12,10", "mnist": "784,24,10"}


@dataclass
class Case:
    """A command, and what its undisturbed run left."""

    name: str
    command: list[str]
    startup: float  # seconds until training begins
    seconds: float  # of training and the last evaluation
    expected: Path


def _levels(model: str) -> list[str]:
    if model not in CASES:
        raise NeurosimError(f"There is no case for the model '{model}'; wanted one of {', '.join(CASES)}.")
    return [*CASES[model]]


def command(data: str, model: str, level: str, interval: float) -> list[str]:
    settings, lengths = CASES[model][level]
    samples, batch, epochs = lengths[data]
    chosen = (*settings, f"sizes={SIZES[data]}", f"checkpoint={interval}")
    return [
        "train", model, "--data", data, "--level", level, "--samples", str(samples), "--batch-size", str(batch),
        "--epochs", str(epochs), "--seed", "1",
        *(word for setting in chosen for word in ("--set", setting)),
    ]  # fmt: skip


# ------------------------------------------------------------------ processes


def start(arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "neurosim", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip


def begins(process: subprocess.Popen[str], folder: Path, before: int) -> None:
    """Wait until a run begins to train: it then writes metrics.jsonl, which was last written at `before`."""
    while process.poll() is None and written(folder) == before:
        time.sleep(0.01)


def written(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    return path.stat().st_mtime_ns if path.is_file() else 0


def finish(arguments: list[str], folder: Path, timeout: float) -> tuple[float, float]:
    """Run a command to its end; returns the seconds of start-up and of the rest."""
    started = time.monotonic()
    process = start(arguments)
    try:
        begins(process, folder, written(folder))
        begun = time.monotonic()
        _, errors = process.communicate(timeout=timeout)
    finally:
        process.kill()
    if process.returncode:
        raise SystemExit(f"neurosim {' '.join(arguments)}: exit status {process.returncode}\n{errors}")
    return begun - started, time.monotonic() - begun


def killed(arguments: list[str], folder: Path, moment: float, startup: bool) -> bool:
    """Run a command and kill it some seconds after it was started, or after training began; False where it ended before."""
    before = written(folder)
    process = start(arguments)
    if not startup:
        begins(process, folder, before)
    try:
        _, errors = process.communicate(timeout=moment)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return True
    if process.returncode:
        raise SystemExit(f"neurosim {' '.join(arguments)}: exit status {process.returncode}\n{errors}")
    return False


# ------------------------------------------------------------------ what is compared


def position(folder: Path) -> str:
    """Where a run will go on from."""
    if not (folder / "config.toml").is_file():
        return "begun again: killed before the run folder was made"
    if (folder / "result.json").is_file():
        return "finished: killed after its last file"
    if not (folder / checkpoint.NAME).is_file():
        return "begun again: no checkpoint yet"
    _, state = checkpoint.load(folder)
    at, rows = state["at"], len((folder / "metrics.jsonl").read_text().splitlines())
    beyond = rows - len(state["metrics"])
    return f"epoch {at['epoch']}, batch {at['batches']}" + (f" ({beyond} rows of metrics beyond)" if beyond else "")


def left(folder: Path) -> float:
    """The share of the training that is left, in whole epochs."""
    if not (folder / checkpoint.NAME).is_file():
        return 1.0
    epochs = TrainConfig.from_toml(folder / "config.toml").epochs
    return 1.0 - (checkpoint.load(folder)[1]["at"]["epoch"] - 1) / epochs


def differences(folder: Path, expected: Path) -> list[str]:
    """What a finished run left that the undisturbed one did not."""
    found = []
    names = {p.name for p in folder.iterdir()}
    if names != FILES:
        found.append(f"files {sorted(names ^ FILES)}")
    if (folder / "metrics.jsonl").read_bytes() != (expected / "metrics.jsonl").read_bytes():
        found.append("metrics.jsonl")
    mine, theirs = load_file(folder / "weights.safetensors"), load_file(expected / "weights.safetensors")
    if mine.keys() != theirs.keys() or any(mine[n].tobytes() != theirs[n].tobytes() for n in mine):
        largest = max((float(np.abs(mine[n] - theirs[n]).max()) for n in mine.keys() & theirs.keys()), default=np.nan)
        found.append(f"weights (by up to {largest:.2g})")
    if _result(folder) != _result(expected):
        found.append("result.json")
    return found


def _result(folder: Path) -> dict[str, Any]:
    return {k: v for k, v in json.loads((folder / "result.json").read_text()).items() if k not in SECONDS}


# ------------------------------------------------------------------ the soak


@dataclass
class Kill:
    """One kill, and what came of the run."""

    number: int
    run: str
    moment: float
    phase: str
    went_on_from: str
    differs: str = "?"


def disturb(case: Case, folder: Path, rng: np.random.Generator, kills: list[Kill], most: int, timeout: float) -> None:
    """One run, killed up to so many times; appends its kills."""
    arguments, mine, ended = [*case.command, "--out", str(folder)], [], False
    while len(mine) < most:
        startup = bool(rng.random() < 1 / 6)
        moment = float(rng.uniform(0.0, case.startup if startup else 0.9 * max(left(folder), 0.2) * case.seconds))
        if not killed(arguments, folder, moment, startup):
            ended = True  # what was left took less time than that
            break
        at = position(folder)
        phase = "start-up" if startup else "training"
        mine.append(Kill(len(kills) + len(mine) + 1, case.name, moment, phase, at))
        print(f"kill {mine[-1].number}: {case.name}, {moment:.2f} s into {phase}; {at}", flush=True)
        resumable = (folder / "config.toml").is_file()
        arguments = (
            ["train", "--resume", str(folder)] if resumable else [*case.command, "--out", str(folder), "--overwrite"]
        )
        if at.startswith("finished"):
            break
    if not ended:
        finish(arguments, folder, timeout)
    found = differences(folder, case.expected)
    for kill in mine:
        kill.differs = ", ".join(found)
    print(f"    {case.name}, {len(mine)} kills: {'DIFFERS: ' + ', '.join(found) if found else 'identical'}", flush=True)
    kills += mine


def main(settings: Settings) -> int:
    rng = np.random.default_rng(settings.seed)
    kills: list[Kill] = []
    started = time.monotonic()
    wanted = [(data, model, level) for data in settings.data for model in settings.models for level in _levels(model)]
    shares = [settings.kills // len(wanted) + (k < settings.kills % len(wanted)) for k in range(len(wanted))]
    cases, runs = [], 0
    with tempfile.TemporaryDirectory() as scratch:
        for words, share in zip(wanted, shares, strict=True):
            expected = Path(scratch) / f"undisturbed{len(cases)}"
            arguments = command(*words, settings.checkpoint)
            seconds = finish([*arguments, "--out", str(expected)], expected, settings.timeout)
            cases.append(Case(" ".join(words), arguments, *seconds, expected))
            print(f"undisturbed: {cases[-1].name}, {seconds[0]:.1f} s of start-up, {seconds[1]:.1f} s", flush=True)
            until = len(kills) + share
            while len(kills) < until:
                runs += 1
                disturb(cases[-1], Path(scratch) / f"run{runs}", rng, kills, until - len(kills), settings.timeout)
    summary, different = summarise(kills, runs, len(cases)), any(kill.differs for kill in kills)
    print(f"\n{summary}")
    if settings.out is not None:
        settings.out.mkdir(parents=True, exist_ok=True)
        report = _report(settings, summary, cases, kills, time.monotonic() - started)
        for suffix, text in report.items():
            (settings.out / f"{NAME}.{suffix}").write_text(text)
        print(f"Wrote {', '.join(f'{NAME}.{suffix}' for suffix in report)} to {settings.out}.")
    return int(different)


def summarise(kills: list[Kill], runs: int, cases: int) -> str:
    """Outcome, and how many kills tested what: only those with a checkpoint test that it holds everything."""
    different = sum(bool(kill.differs) for kill in kills)
    went = [kill.went_on_from for kill in kills]
    held = [(kill.run, at) for kill, at in zip(kills, went, strict=True) if at.startswith("epoch")]
    middle = {pair for pair in held if "batch 0" not in pair[1]}
    return (
        f"{len(kills)} kills in {runs} runs of {cases} cases: {len(kills) - different} identical, {different} different. "
        f"{len(held)} went on from a checkpoint ({len(set(held))} distinct ones, in {len({run for run, _ in held})} cases; {len(middle)} of "
        f"them within an epoch), {sum('no checkpoint' in at for at in went)} began again for want of one, "
        f"{sum('run folder' in at for at in went)} were killed before there was a run folder, "
        f"{sum(at.startswith('finished') for at in went)} after the last file."
    )


def _report(
    settings: Settings, summary: str, cases: list[Case], kills: list[Kill], seconds: float
) -> Mapping[str, str]:
    given = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(settings).items() if k != "out"}
    undisturbed = [
        {"run": c.name, "startup": c.startup, "seconds": c.seconds, "command": "neurosim " + " ".join(c.command)}
        for c in cases
    ]
    markdown = "\n".join(
        [
            "# Trainings killed and resumed\n",
            f"`python tests/soak/{NAME}.py --seed {settings.seed} --kills {settings.kills} --data {' '.join(settings.data)} "
            "--out tests/soak/results`\n",
            f"{summary} Signal 9, one in six in start-up, else at moments uniform over what was left of the training; compared: metrics.jsonl and "
            f"weights.safetensors bit for bit, result.json but for its seconds, no file left over. A checkpoint each "
            f"{settings.checkpoint:g} s. {seconds / 60:.0f} minutes on {os.cpu_count()} shared cores, one thread each "
            f"({', '.join(f'{k} {v}' for k, v in versions().items())}).\n",
            table(
                ["kill", "run", "seconds", "into", "went on from", "outcome"],
                [
                    [k.number, k.run, f"{k.moment:.2f}", k.phase, k.went_on_from, k.differs or "identical"]
                    for k in kills
                ],
            ),
            "Undisturbed runs:\n",
            table(
                ["run", "start-up, s", "rest, s", "command"],
                [[u["run"], f"{u['startup']:.1f}", f"{u['seconds']:.1f}", f"`{u['command']}`"] for u in undisturbed],
            ),
        ]
    )
    whole = {
        "summary": summary, "processor": platform.processor() or platform.machine(), "versions": versions(), "settings": given,
        "undisturbed": undisturbed, "kills": [asdict(k) for k in kills],
    }  # fmt: skip
    return {"md": markdown, "json": as_json(whole) + "\n"}


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Settings, description=__doc__)))
