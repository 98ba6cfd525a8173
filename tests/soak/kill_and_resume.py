"""Stops trainings, evolutions and sweeps by signals at random moments, goes on with them, and compares what they leave with undisturbed runs.

A case is a command: `train` of a model on an engine, `evolve`, or `sweep`. It runs once undisturbed. Then it runs again in new folders:
stopped by SIGKILL, SIGTERM or SIGINT, gone on with as its messages say (or begun again where it was stopped before it could be resumed),
stopped again, and at last left to its end. One stop in six falls into start-up; the moments of the others are uniform over what is left.
Of a sweep, one in two hits the process of a run in place of the sweep. metrics.jsonl and weights must then be those of the undisturbed
run byte for byte, result.json too but for its seconds, no other file may lie about, and no stop may print a traceback. Checkpoints are
frequent, so that most runs go on from the middle of an epoch. What is stopped in start-up is a process of its own; all others are forks
of this one. Prints a line per stop; the exit status is 1 if anything differs.

Examples:
    python tests/soak/kill_and_resume.py --kills 3 --models tdca --out /tmp/soak
    python tests/soak/kill_and_resume.py --seed 1 --kills 60 --data digits mnist --out tests/soak/results
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

# Before torch is imported: forks want no threads, and exact repeats want one.
os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

import numpy as np
import tyro
from safetensors.numpy import load_file

import neurosim.training.evolution.run
import neurosim.training.start  # noqa: F401 (both before processes are forked)
from neurosim.analysis.report import as_json, table
from neurosim.cli import main as command_line
from neurosim.errors import NeurosimError
from neurosim.simulation import versions
from neurosim.training import TrainConfig, checkpoint
from neurosim.training.evolution.loop import load

NAME = "kill_and_resume"
SECONDS = ("seconds", "seconds_per_epoch")  # of result.json
RUN = {"config.toml", "run.json", "metrics.jsonl", "timing.jsonl", "weights.safetensors", "result.json"}
EVOLUTION = {"config.json", "run.json", "metrics.jsonl", "timing.jsonl", "checkpoint.safetensors", "result.json"}
#: What a folder may hold, without and with what depends on the case.
FILES = {
    "train": (RUN, {"best.safetensors"}),
    "evolve": (EVOLUTION | {"evolved.safetensors"}, set()),
    "sweep": (RUN, {"log.txt"}),
}
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True)
class Settings:
    """Stop runs at random moments, go on with them, compare them with undisturbed ones."""

    seed: int = 0
    """Of the moments."""
    kills: int = 60
    """Stops in all, shared out over the cases."""
    data: tuple[Literal["digits", "mnist"], ...] = ("digits", "mnist")
    """Data sets (mnist needs NEUROSIM_DATA)."""
    models: tuple[str, ...] = ()
    """Cases by model, and "evolve", "sweep" (default: all)."""
    checkpoint: float = 0.3
    """Seconds between checkpoints."""
    timeout: float = 600.0
    """Seconds after which a run counts as hanging."""
    out: Path | None = None
    """Write kill_and_resume.md and kill_and_resume.json to this folder."""


# ------------------------------------------------------------------ cases

#: Per model and engine: settings, and (samples, batch, epochs) on the digits and on MNIST. Together: optimisers with a memory, rules that
#: are part of the dynamics, plastic ghosts, filtered rules, noise of the cells, the best epoch's weights. Engines in time get over 50
#: batches an epoch: after each 50 they can write a checkpoint.
CASES: dict[str, dict[str, tuple[tuple[str, ...], dict[str, tuple[int, int, int]]]]] = {
    "ghost_units": {
        "torch:steady": (("mode=learned", "optimiser=adam"), {"digits": (640, 32, 4), "mnist": (2000, 32, 15)}),
        "brian2:dense": (
            ("mode=exact", "t_free=30*ms", "t_nudged=30*ms", "eta=1"), {"digits": (480, 8, 2), "mnist": (7000, 128, 2)},
        ),
    },
    "dendritic_microcircuit": {
        "torch:steady": (
            ("lateral=self_predicting", "tau_w=30*ms", "optimiser=adam"), {"digits": (640, 32, 3), "mnist": (2000, 32, 8)},
        ),
        "torch:trajectory": (
            ("lateral=self_predicting", "tau_w=30*ms", "sigma=0.1", "pattern=30*ms"),
            {"digits": (480, 8, 1), "mnist": (7000, 128, 1)},
        ),
    },
    "equilibrium_propagation": {
        "torch:steady": (("optimiser=sgd", "learning_rate=0.5"), {"digits": (640, 32, 3), "mnist": (2000, 32, 8)}),
        "brian2:dense": (("t_free=40*ms", "t_nudged=30*ms", "eta=1"), {"digits": (480, 8, 2), "mnist": (7000, 128, 2)}),
    },
    "corinfomax": {"torch:steady": ((), {"digits": (640, 32, 3), "mnist": (1280, 32, 4)})},
    "counter_current": {"torch:steady": ((), {"digits": (640, 32, 6), "mnist": (2000, 32, 12)})},
    "counter_current_autoencoder": {"torch:steady": ((), {"digits": (640, 32, 3), "mnist": (640, 32, 4)})},
    "predictive_coding": {"torch:steady": ((), {"digits": (640, 32, 3), "mnist": (1280, 32, 4)})},
    "tdca": {"torch:steady": (("credits=bp",), {"digits": (640, 32, 6), "mnist": (2000, 32, 12)})},
}  # fmt: skip
#: Models whose presets say more by layer than the sizes.
OWN_SIZES = ("corinfomax", "counter_current_autoencoder")
SIZES = {"digits": "64,16,12,10", "mnist": "784,24,10"}
SWEEP = """data = "{data}"
seeds = [0, 1]
epochs = 3
limit = 640
batch_size = 32
checkpoint = {interval}
[settings]
sizes = [{sizes}]
[[run]]
model = "ghost_units"
[[run]]
model = "ghost_units"
method = "backprop"
epochs = 15
"""


@dataclass
class Case:
    """A command, and what its undisturbed run left."""

    name: str
    command: list[str]
    startup: float  # seconds until training begins
    seconds: float  # of training and the last evaluation
    expected: Path

    def resumed(self, folder: Path) -> list[str]:
        """The command that goes on in a folder."""
        kind = self.command[0]
        begun = {"train": ("config.toml",), "evolve": ("config.json", "run.json"), "sweep": ()}[kind]
        if kind == "sweep":
            return [*self.command, "--out", str(folder)]
        if all((folder / name).is_file() for name in begun):
            return [kind, "--resume", str(folder)]
        return [*self.command, "--out", str(folder), "--overwrite"]


def _cases(models: tuple[str, ...]) -> list[tuple[str, str]]:
    known = [*CASES, "evolve", "sweep"]
    for model in models:
        if model not in known:
            raise NeurosimError(f"There is no case for the model '{model}'; wanted one of {', '.join(known)}.")
    return [(model, level) for model in models or known for level in CASES.get(model, ("",))]


def command(data: str, model: str, level: str, interval: float, scratch: Path) -> list[str]:
    if model == "evolve":
        settings = ("sizes=64,8,10" if data == "digits" else "sizes=784,8,10", "hidden=6", "batch=32")
        words = [word for setting in settings for word in ("--set", setting)]
        return [
            "evolve",
            "tdca",
            "--data",
            data,
            "--population",
            "9",
            "--steps",
            "4",
            "--generations",
            "30",
            "--seed",
            "1",
            *words,
        ]
    if model == "sweep":
        file = scratch / f"{data}.toml"
        file.write_text(SWEEP.format(data=data, interval=interval, sizes=SIZES[data]))
        return ["sweep", str(file), "--workers", "2", "--tries", "3"]
    settings, lengths = CASES[model][level]
    samples, batch, epochs = lengths[data]
    sizes = () if model in OWN_SIZES else (f"sizes={SIZES[data]}",)
    chosen = (*settings, *sizes, f"checkpoint={interval}")
    return [
        "train", model, "--data", data, "--level", level, "--samples", str(samples), "--batch-size", str(batch),
        "--epochs", str(epochs), "--seed", "1",
        *(word for setting in chosen for word in ("--set", setting)),
    ]  # fmt: skip


# ------------------------------------------------------------------ processes


class Forked:
    """A command in a fork of this process, which has imported everything: as `subprocess.Popen`, without the seconds of the imports."""

    def __init__(self, arguments: list[str]):
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = multiprocessing.get_context("fork").Process(target=self._run, args=(arguments,))
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    def _run(self, arguments: list[str]) -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(self._errors.fileno(), 2)
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
        for number in SIGNALS[1:]:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        sys.exit(command_line(arguments))

    def poll(self) -> int | None:
        return self._process.exitcode

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def kill(self) -> None:
        self._process.kill()

    def communicate(self, timeout: float | None = None) -> tuple[None, str]:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("neurosim", timeout or 0.0)
        self._errors.seek(0)
        return None, self._errors.read()


def started(arguments: list[str]) -> subprocess.Popen[str]:
    """A command as a user starts it."""
    return subprocess.Popen(
        [sys.executable, "-m", "neurosim", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        # What runs in the background may ignore SIGINT, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip


def imports() -> float:
    """Seconds that a command takes to begin."""
    begun = time.monotonic()
    started(["list"]).communicate()
    return time.monotonic() - begun


def begins(process: Forked, folder: Path, before: int) -> None:
    """Wait until a run begins to train: it then writes metrics.jsonl, which was last written at `before`."""
    while process.poll() is None and written(folder) == before:
        time.sleep(0.01)


def written(folder: Path) -> int:
    return max((path.stat().st_mtime_ns for path in folder.rglob("metrics.jsonl")), default=0)


def finish(arguments: list[str], folder: Path, timeout: float) -> tuple[float, float]:
    """Run a command to its end; returns the seconds of start-up and of the rest."""
    since = time.monotonic()
    process = Forked(arguments)
    try:
        begins(process, folder, written(folder))
        begun = time.monotonic()
        _, errors = process.communicate(timeout=timeout)
    finally:
        process.kill()
    if process.returncode:
        raise SystemExit(f"neurosim {' '.join(arguments)}: exit status {process.returncode}\n{errors}")
    return begun - since, time.monotonic() - begun


def stopped(
    arguments: list[str], folder: Path, moment: float, startup: bool, number: int, run: int, timeout: float
) -> tuple[bool, str]:
    """Run a command and send it a signal some seconds after it was started, or after training began.

    Of a sweep, `run` says which of its runs' processes is hit in its place, if there are so many. Returns whether it was still at work,
    and what is wrong with its end.
    """
    before = written(folder)
    process = started(arguments) if startup else Forked(arguments)
    if isinstance(process, Forked):
        begins(process, folder, before)
    try:
        _, errors = process.communicate(timeout=moment)
    except subprocess.TimeoutExpired:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        runs = [int(k) for k in children.read_text().split()] if arguments[0] == "sweep" and children.is_file() else []
        with contextlib.suppress(ProcessLookupError):
            os.kill(runs[run] if 0 <= run < len(runs) else process.pid, number)
        try:
            _, errors = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return True, f"hangs after {signal.Signals(number).name}"
        return True, "a traceback" if "Traceback" in errors else ""
    if process.returncode:
        raise SystemExit(f"neurosim {' '.join(arguments)}: exit status {process.returncode}\n{errors}")
    return False, ""


# ------------------------------------------------------------------ what is compared


def folders(case: Case, where: Path) -> list[Path]:
    """Run folders of a case, as in its undisturbed run."""
    if case.command[0] != "sweep":
        return [where]
    return sorted(where / path.parent.relative_to(case.expected) for path in case.expected.rglob("result.json"))


def position(case: Case, where: Path) -> str:
    """Where a command will go on from."""
    found = [_position(folder) for folder in folders(case, where)]
    return "; ".join(found)


def _position(folder: Path) -> str:
    if not any((folder / name).is_file() for name in ("config.toml", "config.json")):
        return "begun again: stopped before the run folder was made"
    if (folder / "result.json").is_file():
        return "finished: stopped after its last file"
    if not (folder / checkpoint.NAME).is_file():
        return "begun again: no checkpoint yet"
    rows = len((folder / "metrics.jsonl").read_text().splitlines())
    if (folder / "config.json").is_file():
        return f"generation {len(load(folder).history)}"
    state = checkpoint.load(folder)[1]
    at, beyond = state["at"], rows - len(state["metrics"])
    return f"epoch {at['epoch']}, batch {at['batches']}" + (f" ({beyond} rows of metrics beyond)" if beyond else "")


def left(case: Case, where: Path) -> float:
    """The share of the training that is left, in whole epochs or generations; the largest of a sweep's runs."""
    return max(_left(folder) for folder in folders(case, where))


def _left(folder: Path) -> float:
    if (folder / "result.json").is_file():
        return 0.0
    if not (folder / checkpoint.NAME).is_file():
        return 1.0
    if (folder / "config.json").is_file():
        return 1.0 - len(load(folder).history) / json.loads((folder / "run.json").read_text())["generations"]
    epochs = TrainConfig.from_toml(folder / "config.toml").epochs
    return 1.0 - (checkpoint.load(folder)[1]["at"]["epoch"] - 1) / epochs


def differences(case: Case, where: Path) -> list[str]:
    """What finished runs left that the undisturbed ones did not."""
    pairs = zip(folders(case, where), folders(case, case.expected), strict=True)
    return [difference for mine, expected in pairs for difference in _differences(case, mine, expected)]


def _differences(case: Case, folder: Path, expected: Path) -> list[str]:
    found = []
    names, (always, sometimes) = {p.name for p in folder.iterdir()}, FILES[case.command[0]]
    if not always <= names <= always | sometimes:
        found.append(f"files {sorted(names ^ always)}")
    if (folder / "metrics.jsonl").read_bytes() != (expected / "metrics.jsonl").read_bytes():
        found.append("metrics.jsonl")
    for name in ("weights.safetensors", "best.safetensors", "evolved.safetensors"):
        if not (expected / name).is_file():
            continue
        mine, theirs = load_file(folder / name), load_file(expected / name)
        if mine.keys() != theirs.keys() or any(mine[n].tobytes() != theirs[n].tobytes() for n in mine):
            shared = mine.keys() & theirs.keys()
            largest = max((float(np.abs(mine[n] - theirs[n]).max()) for n in shared), default=np.nan)
            found.append(f"{name} (by up to {largest:.2g})")
    if _result(folder) != _result(expected):
        found.append("result.json")
    return found


def _result(folder: Path) -> dict[str, Any]:
    return {k: v for k, v in json.loads((folder / "result.json").read_text()).items() if k not in SECONDS}


# ------------------------------------------------------------------ the soak


@dataclass
class Kill:
    """One stop, and what came of the run."""

    number: int
    run: str
    signal: str
    moment: float
    phase: str
    went_on_from: str
    differs: str = "?"


def disturb(case: Case, folder: Path, rng: np.random.Generator, kills: list[Kill], most: int, timeout: float) -> None:
    """One run, stopped up to so many times; appends its kills."""
    arguments, mine, ended, found = [*case.command, "--out", str(folder)], [], False, []
    while len(mine) < most:
        startup = bool(rng.random() < 1 / 6)
        moment = float(rng.uniform(0.1, case.startup if startup else 0.9 * max(left(case, folder), 0.2) * case.seconds))
        number, run = SIGNALS[rng.integers(len(SIGNALS))], int(rng.integers(-2, 2))
        at_work, wrong = stopped(arguments, folder, moment, startup, number, run, timeout)
        if not at_work:
            ended = True  # what was left took less time than that
            break
        found += [wrong] if wrong else []
        at = position(case, folder)
        phase = "start-up" if startup else "training"
        mine.append(Kill(len(kills) + len(mine) + 1, case.name, number.name, moment, phase, at))
        print(f"kill {mine[-1].number}: {case.name}, {number.name} {moment:.2f} s into {phase}; {at}", flush=True)
        arguments = case.resumed(folder)
        if left(case, folder) == 0:
            break
    if not ended:
        finish(arguments, folder, timeout)
    found += differences(case, folder)
    for kill in mine:
        kill.differs = ", ".join(found)
    print(f"    {case.name}, {len(mine)} kills: {'DIFFERS: ' + ', '.join(found) if found else 'identical'}", flush=True)
    kills += mine


def main(settings: Settings) -> int:
    rng = np.random.default_rng(settings.seed)
    kills: list[Kill] = []
    since, before_all = time.monotonic(), imports()
    wanted = [(data, model, level) for data in settings.data for model, level in _cases(settings.models)]
    shares = [settings.kills // len(wanted) + (k < settings.kills % len(wanted)) for k in range(len(wanted))]
    cases, runs = [], 0
    with tempfile.TemporaryDirectory() as scratch:
        for words, share in zip(wanted, shares, strict=True):
            if not share:
                continue
            expected = Path(scratch) / f"undisturbed{len(cases)}"
            arguments = command(*words, settings.checkpoint, Path(scratch))
            seconds = finish([*arguments, "--out", str(expected)], expected, settings.timeout)
            startup = before_all + seconds[0]
            cases.append(Case(" ".join(filter(None, words)), arguments, startup, seconds[1], expected))
            print(f"undisturbed: {cases[-1].name}, {seconds[0]:.1f} s of start-up, {seconds[1]:.1f} s", flush=True)
            until = len(kills) + share
            while len(kills) < until:
                runs += 1
                disturb(cases[-1], Path(scratch) / f"run{runs}", rng, kills, until - len(kills), settings.timeout)
    summary, different = summarise(kills, runs, len(cases)), any(kill.differs for kill in kills)
    print(f"\n{summary}")
    if settings.out is not None:
        settings.out.mkdir(parents=True, exist_ok=True)
        report = _report(settings, summary, cases, kills, time.monotonic() - since)
        for suffix, text in report.items():
            (settings.out / f"{NAME}.{suffix}").write_text(text)
        print(f"Wrote {', '.join(f'{NAME}.{suffix}' for suffix in report)} to {settings.out}.")
    return int(different)


def summarise(kills: list[Kill], runs: int, cases: int) -> str:
    """Outcome, and how many kills tested what: only those with a checkpoint test that it holds everything."""
    different = sum(bool(kill.differs) for kill in kills)
    went = [kill.went_on_from for kill in kills]
    held = [
        (kill.run, at) for kill, at in zip(kills, went, strict=True) if any(x in at for x in ("epoch", "generation"))
    ]
    middle = {pair for pair in held if "batch 0" not in pair[1] and "batch" in pair[1]}
    signals = [kill.signal for kill in kills]
    counted = ", ".join(f"{signals.count(number.name)} {number.name}" for number in SIGNALS)
    return (
        f"{len(kills)} stops ({counted}; {sum(kill.phase == 'start-up' for kill in kills)} in start-up) in {runs} runs of {cases} cases: "
        f"{len(kills) - different} identical, {different} different. "
        f"{len(held)} went on from a checkpoint ({len(set(held))} distinct ones, in {len({run for run, _ in held})} cases; {len(middle)} of "
        f"them within an epoch), {sum('no checkpoint' in at for at in went)} began again for want of one, "
        f"{sum('run folder' in at for at in went)} were stopped before there was a run folder, "
        f"{sum(at.startswith('finished') and 'epoch' not in at for at in went)} after the last file."
    )


def _report(
    settings: Settings, summary: str, cases: list[Case], kills: list[Kill], seconds: float
) -> Mapping[str, str]:
    given = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(settings).items() if k != "out"}
    undisturbed = [
        {
            "run": c.name,
            "startup": c.startup,
            "seconds": c.seconds,
            "command": "neurosim " + " ".join(Path(word).name for word in c.command),
        }
        for c in cases
    ]
    markdown = "\n".join(
        [
            "# Trainings, evolutions and sweeps stopped and gone on with\n",
            f"`python tests/soak/{NAME}.py --seed {settings.seed} --kills {settings.kills} --data {' '.join(settings.data)} "
            "--out tests/soak/results`\n",
            f"{summary} One in six in start-up, else at moments uniform over what was left; compared: metrics.jsonl and weights bit for bit, "
            f"result.json but for its seconds, no file left over, no traceback. A checkpoint each "
            f"{settings.checkpoint:g} s. {seconds / 60:.0f} minutes on {os.cpu_count()} shared cores, one thread each "
            f"({', '.join(f'{k} {v}' for k, v in versions().items())}).\n",
            table(
                ["stop", "run", "signal", "seconds", "into", "went on from", "outcome"],
                [
                    [k.number, k.run, k.signal, f"{k.moment:.2f}", k.phase, k.went_on_from, k.differs or "identical"]
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
