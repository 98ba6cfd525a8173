"""Many runs from one file: each trains in a process of its own, on this machine or on a dask cluster.

A process that dies loses one attempt of one run, never the sweep. A run folder says by itself how far it is (`neurosim.training.run`),
so there is no state of the sweep to keep: the same command again skips what is finished and goes on with the rest.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor, as_completed, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Protocol

from neurosim.errors import NeurosimError
from neurosim.files import check_owner, locked, meant, user_path, write_whole
from neurosim.simulation import versions
from neurosim.training import worker
from neurosim.training.config import (
    SWEEP_KEYS,
    TrainConfig,
    check_keys,
    differing,
    flat,
    label,
    pair,
    read_toml,
    table_of,
)
from neurosim.training.resolve import resolve
from neurosim.training.run import CONFIG, ORIGIN, read_result

LOG = "log.txt"
#: Seconds that a run waits for a process that still trains in its folder (one whose parent was killed writes its checkpoint first).
PATIENCE = 120.0


# ---------------------------------------------------------------- the file


def expand(path: str | Path, look: bool = False) -> list[TrainConfig]:
    """The runs of a sweep file: every ``[[run]]`` (or the one that the top describes) x the product of ``[grid]`` x ``seeds``.

    Keys of a ``[[run]]`` override those at the top, keys of the grid override both. Runs of a grid get names that say where in the grid
    they stand, so that tables tell them apart. With `look`, no model file is imported: its runs have no preset.

    Raises
    ------
    NeurosimError
        An unknown key or setting (the nearest is named), a grid entry that is no list, the same run twice.
    """
    shared = read_toml(path, SWEEP_KEYS)
    seeds, runs, grid = (shared.pop(key, default) for key, default in zip(SWEEP_KEYS, (None, [{}], {}), strict=True))
    if not isinstance(runs, list):
        raise NeurosimError(f"'{path}': run = {runs!r}; wanted tables, each headed by [[run]].")
    grid = flat(table_of(grid, f"'{path}': grid"))
    check_keys({key.partition(".")[0]: 0 for key in grid}, f"[grid] of {path}")
    for key, values in grid.items():
        if not isinstance(values, tuple) or not values:
            raise NeurosimError(f"'{path}': {key} = {values!r} in [grid]; wanted a list of values, such as [0.1, 0.2].")
    if seeds is None:
        seeds = (shared.pop("seed", 0),)
    if "seed" in shared or "seed" in grid or any("seed" in run for run in runs):
        raise NeurosimError(
            f"'{path}' gives a seed beside or below 'seeds'; wanted one line at the top: seeds = [0, 1, 2]."
        )
    if not isinstance(seeds, tuple) or not seeds:
        raise NeurosimError(f"'{path}': seeds = {seeds!r}; wanted a list of whole numbers, such as [0, 1, 2].")

    configs: list[TrainConfig] = []
    for number, run in enumerate(runs, 1):
        check_keys(run, f"[[run]] {number} of {path}")
        given = flat(shared) | flat(run)
        for point in itertools.product(*grid.values()):
            chosen = dict(zip(grid, point, strict=True))
            for seed in seeds:
                try:
                    config = _configuration(given, chosen, seed, str(path), look)
                except NeurosimError as error:
                    raise NeurosimError(f"'{path}', run {number}{_at(chosen)}: {error}") from error
                if config in configs:
                    raise NeurosimError(f"'{path}' describes the same run twice: {label(config)}, seed {seed}.")
                configs.append(config)
    return configs


def _configuration(
    given: Mapping[str, Any], chosen: Mapping[str, Any], seed: Any, named_by: str, look: bool
) -> TrainConfig:
    values = {**given, **chosen, "seed": seed}
    settings = {k.removeprefix("settings."): values.pop(k) for k in list(values) if k.startswith("settings.")}
    if "model" not in values:
        raise NeurosimError('no model is named; wanted a line such as model = "ghost_units".')
    config = resolve(values.pop("model"), settings, named_by, look, **values)
    # What the label says already, and the data set, which is a column of tables, are no part of the name.
    told = {k: v for k, v in chosen.items() if k not in ("data", "name") and v != label(config)}
    return replace(config, name=label(config) + _at(told)) if told else config


def _at(chosen: Mapping[str, Any]) -> str:
    """``-learning_rate=0.01-sizes=64,8,10``: a point of the grid."""
    return "".join(f"-{pair(key, value)}" for key, value in chosen.items())


def folders(configs: Sequence[TrainConfig], out: Path) -> dict[Path, TrainConfig]:
    """The folder of each run: ``OUT/LABEL/seedK``, and ``LABEL-data=NAME`` where there are several data sets."""
    several = len({config.data for config in configs}) > 1
    placed: dict[Path, TrainConfig] = {}
    for config in configs:
        name = label(config) + (f"-data={config.data}" if several else "")
        folder = user_path(out) / re.sub(r"[^\w.,=+-]+", "_", name).lstrip(".") / f"seed{config.seed}"
        if folder in placed:
            raise NeurosimError(
                f"Two runs would share the folder '{folder}'; they differ in {', '.join(differing(config, placed[folder]))}. "
                "Give each [[run]] a name of its own (name = ...)."
            )
        placed[folder] = config
    return placed


def state(folder: Path, config: TrainConfig | None) -> str:
    """How far a run is: ``new``, ``unfinished``, ``failed`` or ``finished``.

    A folder of another configuration is refused by name; with None, it is not compared.
    """
    if not (folder / CONFIG).is_file():
        return "new"
    if config and (keys := differing(TrainConfig.from_toml(folder / CONFIG), config)):
        raise NeurosimError(
            f"The folder '{folder}' holds a run of another configuration (it differs in {', '.join(keys)}). "
            "Delete it, or give the sweep another --out."
        )
    result = read_result(folder)
    return "unfinished" if not result else "failed" if "failed" in result else "finished"


# ---------------------------------------------------------------- one run


class Stop(Protocol):
    """Says whether the sweep was stopped: `threading.Event`, or dask's."""

    def is_set(self) -> bool: ...


@dataclass(frozen=True)
class Job:
    """A run to be trained, with all that a process on another machine with the same file system needs."""

    folder: Path
    config: TrainConfig
    data_dir: str | None
    command: str
    tries: int
    threads: str
    cwd: str


def train_one(job: Job, stop: Stop) -> dict[str, Any]:
    """Train one run in a process of its own; one that a signal kills goes on from its checkpoint, `tries` times.

    Returns what ``result.json`` holds; ``{"failed": why}`` if the process said why it could not finish; nothing if the sweep was stopped.
    """
    if stop.is_set():
        return {}
    job.folder.mkdir(parents=True, exist_ok=True)
    with open(job.folder / LOG, "ab") as log:
        if not _locked(log, stop):
            return (
                {} if stop.is_set() else {"failed": f"another process is training in '{job.folder}'; wait, or stop it."}
            )
        if not (job.folder / CONFIG).is_file():
            origin = {"command": job.command, "data_dir": job.data_dir, "versions": versions()}
            if job.threads.isdigit():
                origin["threads"] = int(job.threads)
            with locked(job.folder):
                check_owner(job.folder, CONFIG)
                write_whole(job.folder / ORIGIN, (json.dumps(origin, indent=2) + "\n").encode())
                write_whole(job.folder / CONFIG, job.config.to_toml().encode())
        code = 0
        for _ in range(1 + job.tries):
            result = read_result(job.folder)
            if result or stop.is_set():
                return result
            begin = log.seek(0, os.SEEK_END)
            code = _process(job, log, stop)
            if code >= 0 and not stop.is_set():
                return read_result(job.folder) or {"failed": _last_words(job.folder / LOG, begin, code)}
        died = f"its process was ended by {signal.Signals(-code).name}, {1 + job.tries} times" if code < 0 else ""
        return read_result(job.folder) or ({} if stop.is_set() else {"failed": f"{died}; see {job.folder / LOG}."})


def _locked(log: IO[bytes], stop: Stop) -> bool:
    """Lock the log. The process that trains inherits the lock, so it holds for as long as anyone trains in the folder."""
    due = time.monotonic() + PATIENCE
    while not stop.is_set():
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > due:
                return False
            time.sleep(0.5)
        except OSError:  # a file system without locks
            return True
    return False


def _process(job: Job, log: IO[bytes], stop: Stop) -> int:
    """Run the process of a run to its end; returns its exit status, negative for a signal."""
    process = subprocess.Popen(
        # -P: as the command `neurosim`, it does not import what happens to lie in the present folder
        [sys.executable, "-P", "-m", worker.__name__, str(job.folder)],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=subprocess.STDOUT,
        cwd=job.cwd,
        start_new_session=True,  # Ctrl-C in the terminal reaches the sweep alone, which passes it on
        env={**os.environ, "OMP_NUM_THREADS": job.threads, "TQDM_MININTERVAL": "10"},
    )
    assert process.stdin is not None
    with process.stdin:  # closed when the sweep stops, and by the system if this process is killed
        while not stop.is_set():
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(0.2)
    return process.wait()


def _last_words(log: Path, begin: int, code: int) -> str:
    """The error that a process wrote to the log, else its last line."""
    with open(log, "rb") as file:
        file.seek(begin)
        lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (errors or lines or [f"its process ended with status {code}"])[-1]


# ---------------------------------------------------------------- all runs


def train_all(
    jobs: Sequence[Job], workers: int | None = None, scheduler: str | None = None
) -> Generator[tuple[Job, dict[str, Any]], None, None]:
    """Train runs side by side, `workers` at a time or on a dask cluster; yields each with its result when it is done.

    On Ctrl-C (or SIGTERM) the runs write their checkpoints first.
    """
    pool = _cluster(scheduler, workers, jobs) if scheduler else _threads(workers or cores())
    with pool as (executor, stop), _interruptible():
        futures = {executor.submit(train_one, job, stop): job for job in jobs}
        try:
            for future in as_completed(futures):
                cancelled = future.cancelled()
                error = None if cancelled else future.exception()
                if cancelled:
                    result = {"failed": "the dask scheduler has lost it, or died."}
                else:
                    result = {"failed": _reason(error, futures[future])} if error else future.result()
                yield futures[future], result
        except KeyboardInterrupt:
            print("\nstopping: each run writes a checkpoint after its present batches", file=sys.stderr)
            raise
        finally:
            stop.set()
            wait(futures)


def _reason(error: BaseException, job: Job) -> str:
    """Why a run could not be trained, where its process did not say so: the disk, or dask."""
    if isinstance(error, OSError):
        return f"'{meant(error.filename or job.folder)}' cannot be written: {error.strerror or error}."
    if type(error).__name__ == "KilledWorker":  # of distributed, which may not be installed
        return "its dask workers died, one after the other, perhaps for want of memory."
    return str(error) if isinstance(error, NeurosimError) else f"{type(error).__name__}: {error}"


def cores() -> int:
    """How many runs this machine trains at a time: its cores, over the threads of each run."""
    threads = os.environ.get("OMP_NUM_THREADS", "1")
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, available // max(1, int(threads) if threads.isdigit() else 1))


@contextlib.contextmanager
def _threads(workers: int) -> Iterator[tuple[Executor, Any]]:
    with ThreadPoolExecutor(workers) as executor:  # a thread waits for each process
        yield executor, threading.Event()


@contextlib.contextmanager
def _cluster(address: str, workers: int | None, jobs: Sequence[Job]) -> Iterator[tuple[Executor, Any]]:
    """A dask cluster: ``local``, or the address of a scheduler.

    Dask hands a run whose worker dies to another worker, which goes on from the checkpoint; after ``distributed.scheduler.allowed-failures``
    deaths it gives the run up. A local cluster is told `Job.tries`; a scheduler of one's own has its own setting.
    """
    try:
        import dask.config
        from distributed import Client, Event, LocalCluster
    except ImportError as error:
        raise NeurosimError(
            f"--scheduler {address} needs the package distributed, which is not installed: pip install 'neurosim[cluster]'."
        ) from error
    with contextlib.ExitStack() as stack:
        if address == "local":
            stack.enter_context(
                dask.config.set({"distributed.scheduler.allowed-failures": jobs[0].tries if jobs else 0})
            )
            cluster = LocalCluster(
                n_workers=workers or cores(), threads_per_worker=1, silence_logs=logging.CRITICAL,
                dashboard_address=None,  # pyright: ignore[reportArgumentType] (None: no dashboard, says its documentation)
                memory_limit=0,  # none: runs are processes of their own, so a worker's memory says nothing
                preload=["import os\nos.setpgid(0, 0)"],  # Ctrl-C in the terminal is for the sweep, which tells the workers
            )  # fmt: skip
            stack.enter_context(cluster)
            client = stack.enter_context(Client(cluster))
        else:
            try:
                client = stack.enter_context(Client(address, timeout=20))
            except (OSError, ValueError) as error:
                raise NeurosimError(
                    f"--scheduler {address}: no dask scheduler answers there ({error}). Wanted 'local', or an address such as "
                    "tcp://host:8786 that `dask scheduler` prints."
                ) from error
        yield client.get_executor(pure=False), Event(client=client)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM stops a sweep like Ctrl-C, also where the shell started it in the background with SIGINT ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {s: signal.signal(s, signal.default_int_handler) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
