"""Gives neurosim damaged, odd and hostile inputs, and reports each that it does not refuse by name.

An input is a valid one with a fault: a command line, an experiment file, a run folder, a recording, a data
file, equations. Commands run in-process, many to a worker process that has a limit on memory; an input has
20 seconds, and a folder of its own. A finding is

* a traceback, an exception that is not a NeurosimError, or "(unexpected;" in what a command prints;
* an exception of Python's that a message of ours passes on ("... cannot be built with ...: TypeError: ...");
* a hang, a worker that dies, more memory than the limit;
* success although NaN, infinity or a link to another file was planted where it must be refused;
* a file made, changed or deleted outside what the command line names; code run out of data.

Input N of a seed is always the same, so `--only N` repeats it. The exit status is 1 if anything was found.

Examples:
    python tests/soak/fuzz.py --seed 0 --inputs 5000
    python tests/soak/fuzz.py --seed 0 --only 1234
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import resource
import shutil
import signal
import stat
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported; workers are forked

import numpy as np
import tyro
from fuzz_inputs import SCHEDULE, TARGETS, Box, Input, captured, make, make_valid, short
from safetensors import safe_open
from tqdm import tqdm

from neurosim import cli
from neurosim.analysis.report import table
from neurosim.errors import NeurosimError

LIMIT = 20.0  # seconds of an input
GRACE = 10.0  # seconds after them, in which a worker that does not answer to signals is ended
MEMORY = 4 << 30  # bytes of address space of a worker
LIFE = 250  # inputs of a worker, whose caches grow


@dataclass(frozen=True)
class Settings:
    """Give neurosim damaged, odd and hostile inputs."""

    seed: int = 0
    """Of the inputs."""
    inputs: int = 5000
    """How many."""
    only: int | None = None
    """Repeat this one and show its folder."""
    workers: int = len(os.sched_getaffinity(0))
    """Processes at a time."""


@dataclass(frozen=True)
class Finding:
    number: int
    target: str
    kind: str
    input: str
    detail: str

    def __str__(self) -> str:
        return f"{self.number} {self.target}: {self.kind}\n    {short(self.input)}\n    {self.detail}"

    @property
    def cause(self) -> tuple[str, str]:
        """What findings of one cause have in common: kind, and the last lines without numbers and texts."""
        return self.kind, re.sub(r"'[^']*'|[\d.]+", "_", self.detail[-160:])


@dataclass(frozen=True)
class Answer:
    number: int
    seconds: float
    findings: list[Finding]


# ---------------------------------------------------------------- one input


class TimeUp(BaseException):
    """An input has had its time."""


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    """Raise `TimeUp` after the limit. On a busy machine the time of others does not count, up to three limits."""
    began, used = time.monotonic(), time.process_time()

    def up(*_: object) -> None:
        if time.process_time() - used > LIMIT / 2 or time.monotonic() - began > 3 * LIMIT:
            raise TimeUp
        signal.setitimer(signal.ITIMER_REAL, LIMIT / 4)

    before = signal.signal(signal.SIGALRM, up)
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


#: An exception of Python's in a message of ours.
PASSED_ON = re.compile(r"cannot be built with .*: ([A-Z]\w+Error|\w+Exception): ", re.DOTALL)


def examine(seed: int, number: int, valid: Path, root: Path) -> list[Finding]:
    """Run one input in a folder of its own and judge what happened."""
    box = Box(root, valid)
    with box.entered():
        name, given = make(seed, number, box)
        before = box.files()
        with captured() as output:
            status, failure = _run(given.run)
        text = output()
        found = [(kind, detail) for kind, detail in _judged(given, status, failure, text)]
        after = box.files()
        named = _named(given.run) if isinstance(given.run, list) else []
        overwrite = isinstance(given.run, list) and {"--overwrite", "--resume"} & {
            word.partition("=")[0] for word in given.run
        }
        for path in sorted(before.keys() | after.keys()):
            if before.get(path) == after.get(path):
                continue
            what = "changed" if path in before and path in after else "deleted" if path in before else "made"
            if Path(path).name.startswith("mark"):
                found.append(("code from data", f"{path} was {what}"))
            elif not _belongs(root / path, named, given.run) or (
                what != "made" and not overwrite and not _is_folder(before, path)
            ):
                found.append(("file outside", f"{path} was {what}"))
        if status == 0:
            found += [("not finite", f"wrote {path}") for path in _weights_not_finite(box.cwd)]
    return [Finding(number, name, kind, str(given), short(detail, 1500)) for kind, detail in found]


def _run(run: list[str] | Callable[[], object]) -> tuple[int | None, BaseException | None]:
    """Exit status (0 of a call that returns), and the exception that escaped."""
    try:
        with _limited():
            if isinstance(run, list):
                return cli.main(list(run)), None
            run()
            return 0, None
    except SystemExit as error:
        return (error.code if isinstance(error.code, int) else 1), None
    except BaseException as error:
        return None, error
    finally:
        if "matplotlib.pyplot" in sys.modules:
            sys.modules["matplotlib.pyplot"].close("all")


def _judged(given: Input, status: int | None, failure: BaseException | None, text: str) -> Iterator[tuple[str, str]]:
    """Findings in how a command or a call ended."""
    if isinstance(failure, TimeUp):
        yield "hang", f"over {LIMIT:g} s at " + _frames(failure)
    elif isinstance(failure, MemoryError):
        yield "memory", _frames(failure)
    elif failure is not None and (isinstance(given.run, list) or not isinstance(failure, NeurosimError)):
        yield "exception", _frames(failure)
    elif "(unexpected;" in text:
        line = next(line for line in text.splitlines()[::-1] if "(unexpected;" in line)
        memory = "MemoryError" in line or "allocate memory" in line
        yield "memory" if memory else "unexpected", line + "\n" + _debugged(given)
    elif "Traceback (most recent call last)" in text:
        yield "traceback", text[-600:]
    elif match := PASSED_ON.search(text):
        yield "passed on", match[0][-60:] + text[match.end() : match.end() + 200]
    elif given.refuse and status == 0:
        yield "accepted", f"success although it must be refused: {given.fault}"


def _debugged(given: Input) -> str:
    """The traceback of an unexpected error, by another try."""
    assert isinstance(given.run, list)
    with captured() as output:
        _run([*given.run, "--debug"])
    lines = output().splitlines()
    return "\n".join(line for line in lines if re.match(r'\s+File ".*neurosim|\w+Error|\w+Exception', line))[-500:]


def _frames(error: BaseException) -> str:
    places = [
        f"{Path(f.filename).name}:{f.lineno} {f.name}"
        for f in traceback.extract_tb(error.__traceback__)
        if "soak" not in f.filename
    ]
    return f"{' < '.join(places[:-7:-1])}\n    {type(error).__name__}: {error}"


def _named(argv: Sequence[str]) -> list[Path]:
    """Where a command line says that it may write."""
    places = [Path("runs"), *([Path.home()] if argv[:1] == ["trust"] else [])]
    for k, word in enumerate(argv):
        option, equals, value = word.partition("=")
        if option in ("--out", "--to", "--resume"):
            value = value if equals else argv[k + 1] if k + 1 < len(argv) else ""
            places.append(Path(os.path.expanduser(value)))
    return [Path(os.path.abspath(place)) for place in places]


def _belongs(path: Path, named: Iterable[Path], run: list[str] | Callable[[], object]) -> bool:
    """Whether a file is one of those, in one of those folders, or beside one of those files and named after it."""
    if any(path == place or place in path.parents or path in place.parents for place in named):
        return True
    if any(path.parent == place.parent and path.name.startswith(place.stem) for place in named):  # o_spikes.csv
        return True
    # A figure without --to lies beside what it shows.
    return (
        isinstance(run, list)
        and run[:1] == ["plot"]
        and not any(w.startswith("--to") for w in run)
        and path.suffix in (".png", ".svg", ".pdf")
    )


def _is_folder(files: dict[str, str], path: str) -> bool:
    return files.get(path, "").startswith(f"{stat.S_IFDIR} ")


def _weights_not_finite(folder: Path) -> Iterator[str]:
    for path in folder.glob("o/*.safetensors"):
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118 (not a dict)
                if not np.isfinite(file.get_tensor(name).astype(float)).all():
                    yield f"{path.name} with {name}"
                    break


# ---------------------------------------------------------------- workers


def _work(seed: int, valid: Path, connection: Connection) -> None:
    """Examine the inputs whose numbers arrive, and answer each."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):  # what libraries print past Python
        os.dup2(null, descriptor)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while True:
        number, root = connection.recv()
        begin = time.perf_counter()
        try:
            findings = examine(seed, number, valid, root)
        except BaseException as error:  # a fault of the fuzzer's own, or memory that is gone
            findings = [Finding(number, SCHEDULE[number % len(SCHEDULE)], "fuzzer", "", _frames(error))]
        connection.send(Answer(number, time.perf_counter() - begin, findings))


@dataclass
class Worker:
    """A process at work, and the input that it has."""

    seed: int
    valid: Path
    done: int = 0
    number: int | None = None
    due: float = 0.0
    root: Path = field(default_factory=Path)

    def __post_init__(self) -> None:
        fork = multiprocessing.get_context("fork")
        self.connection, theirs = fork.Pipe()
        self.process = fork.Process(target=_work, args=(self.seed, self.valid, theirs), daemon=True)
        self.process.start()
        theirs.close()

    def give(self, number: int, root: Path) -> None:
        self.number, self.root, self.due = number, root, time.monotonic() + 6 * LIMIT + GRACE
        self.connection.send((number, root))

    def answer(self) -> Answer | None:
        """The answer, or that there will be none; None while it may come."""
        assert self.number is not None
        if self.connection.poll():
            with contextlib.suppress(EOFError, OSError):
                self.done += 1
                return self.connection.recv()
            self.process.join()
            what = "died", f"exit status {self.process.exitcode}"
        elif time.monotonic() > self.due:
            what = "hang", "deaf to signals"
        else:
            return None
        self.done = LIFE
        shutil.rmtree(self.root, ignore_errors=True)
        box = Box(self.root, self.valid)
        with box.entered():
            name, given = make(self.seed, self.number, box)
        return Answer(self.number, LIMIT, [Finding(self.number, name, what[0], str(given), what[1])])

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


def fuzz(seed: int, numbers: Sequence[int], workers: int, valid: Path, folder: Path) -> Iterator[Answer]:
    """Examine inputs in worker processes; an answer for each, as they come."""
    left, crew = list(numbers)[::-1], []
    try:
        while left or crew:
            while left and len(crew) < workers:
                crew.append(Worker(seed, valid))
                crew[-1].give(left[-1], folder / f"{left.pop()}")
            wait([worker.connection for worker in crew], 0.5)
            for worker in list(crew):
                answer = worker.answer()
                if answer is None:
                    continue
                shutil.rmtree(worker.root, ignore_errors=True)
                yield answer
                if left and worker.done < LIFE:
                    worker.give(left[-1], folder / f"{left.pop()}")
                else:
                    worker.end()
                    crew.remove(worker)
    finally:
        for worker in crew:
            worker.end()


def main(settings: Settings) -> int:
    if settings.only is not None:
        return _repeat(settings.seed, settings.only)
    inputs: Counter[str] = Counter()
    causes: Counter[tuple[str, str]] = Counter()
    seconds = dict.fromkeys(TARGETS, 0.0)
    findings: list[Finding] = []
    with tempfile.TemporaryDirectory(prefix="fuzz") as name:
        valid = make_valid(Path(name))
        answers = fuzz(settings.seed, range(settings.inputs), settings.workers, valid, Path(name))
        for answer in tqdm(answers, total=settings.inputs, unit="input"):
            target = SCHEDULE[answer.number % len(SCHEDULE)]
            inputs[target] += 1
            seconds[target] += answer.seconds
            for finding in answer.findings:
                causes[finding.cause] += 1
                if causes[finding.cause] <= 3:  # the table counts the others
                    tqdm.write(f"seed {settings.seed}, input {finding}")
            findings += answer.findings
    by_target, by_kind = Counter(f.target for f in findings), Counter(f.kind for f in findings)
    rows = [[t, str(inputs[t]), str(by_target[t]), f"{1e3 * seconds[t] / max(inputs[t], 1):.0f}"] for t in TARGETS]
    rows.append(
        ["all", str(inputs.total()), str(len(findings)), f"{1e3 * sum(seconds.values()) / max(inputs.total(), 1):.0f}"]
    )
    print(table(["target", "inputs", "findings", "ms each"], rows))
    print(
        f"{len(findings)} findings of {len(causes)} causes: "
        + (", ".join(f"{n} {k}" for k, n in by_kind.most_common()) or "none")
    )
    return bool(findings)


def _repeat(seed: int, number: int) -> int:
    """One input again, in this process; its folder is kept."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz"))
    valid = make_valid(folder)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    findings = examine(seed, number, valid, folder / "input")
    for finding in findings:
        print(f"seed {seed}, input {finding}")
    print(f"{len(findings)} findings; its files lie in {folder / 'input'}")
    return bool(findings)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Settings, description=__doc__)))
