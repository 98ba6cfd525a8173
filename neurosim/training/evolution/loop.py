"""The outer loop: a strategy asks, an objective evaluates, the strategy is told; every generation is kept.

A folder of an evolution:

``config.json``            what the strategy was made with, and the caller's `config`
``metrics.jsonl``          a line per generation, the same whenever the evolution is repeated (same machine, threads, versions)
``timing.jsonl``           seconds of each generation
``checkpoint.safetensors`` theta, and all that the next generation depends on; written after every generation
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from tqdm import tqdm

from neurosim import tensors
from neurosim.backends.torch.workers import Workers, peers
from neurosim.checks import Count, Positive, check
from neurosim.errors import DivergenceError, NeurosimError, StoppedError
from neurosim.files import check_owner, locked, user_path, write_whole
from neurosim.training import checkpoint, interrupt
from neurosim.training.evolution.strategy import Strategy, finite
from neurosim.training.run import METRICS, TIMING, as_lines
from neurosim.training.track import Tracker, require_tensorboard

CONFIG = "config.json"
MEND = "Put a copy of it back, or begin again with overwrite=True."
#: Of a row of metrics; those that a generation does not have are NaN in checkpoints and left out in rows.
COLUMNS = ("generation", "best", "mean", "centre", "sigma", "non_finite")
#: What the processes agree on after a generation; the largest counts.
GO_ON, TIME_IS_UP, SIGNALLED = 0, 1, 2
#: Evaluates candidates (p, d) of a generation: fitness (p,), higher is better.
Objective = Callable[[torch.Tensor, int], torch.Tensor]
T = TypeVar("T")


@dataclass(frozen=True)
class Evolution:
    """What an evolution reached.

    Attributes
    ----------
    theta
        The centre (d,) after the last generation, see `Strategy.theta`.
    history
        A row per generation: ``generation`` (from 0), ``best`` and ``mean`` of the finite fitnesses, ``centre`` (fitness of theta before the generation's
        update; left out where it is not finite), ``sigma`` (mean width, before the update; where there is one), ``non_finite`` (how many fitnesses were not).
    """

    theta: np.ndarray
    history: list[dict[str, Any]]


@dataclass
class _Records:
    """Rows of metrics and timing so far."""

    metrics: list[dict[str, Any]] = field(default_factory=list)
    timing: list[dict[str, Any]] = field(default_factory=list)


def evolve(
    objective: Objective,
    strategy: Strategy,
    generations: int,
    out: str | os.PathLike[str] | None = None,
    *,
    resume: bool = False,
    minutes: float | None = None,
    config: Mapping[str, Any] | None = None,
    progress: bool = True,
    overwrite: bool = False,
    track: bool = False,
) -> Evolution:
    """Let a strategy search for theta, for some generations.

    With a folder, the state is kept after each generation. An evolution that was stopped or killed goes on with ``resume=True``, bit for
    bit as if it had not been (same machine, same number of threads), given an objective that is a function of candidates and generation.

    Under `torchrun`, or wherever torch.distributed is initialised, each process evaluates its contiguous share of the candidates and all are told all
    fitnesses; the first alone writes files and shows progress. They read the same folder, run on machines of one kind, and make the same
    strategy; end the group with `neurosim.backends.torch.workers.leave`.

    Parameters
    ----------
    objective
        Gets candidates (p, d), float64 on the CPU, and the number of the generation (from 0); returns their fitness (p,), higher is better.
        Called without gradients unless the strategy differentiates. p is 1 to P, so a candidate's fitness should depend on neither p nor
        the others; draws that all candidates share (tasks, initial weights) are seeded by the generation.
    strategy
        `PEPG`, `CMAES`, `MetaGradient`, or what has the same methods. Fresh; a resumed one takes up the saved state.
    generations
        How many in all. A resumed evolution may have more than it was started with.
    out
        Folder (None: keep nothing).
    resume
        Go on with the evolution in `out`.
    minutes
        Stop after the generation in which so much time has passed since the call (None: no limit). What is returned is then shorter than
        `generations`, and `resume` goes on.
    config
        What else the objective depends on, as JSON holds it; written down, and a resumed evolution must have the same.
    progress
        Show a line with best, mean and time left.
    overwrite
        Replace an earlier evolution in `out`; without it, such a folder is refused.
    track
        Show it in TensorBoard while it goes on: events in ``tensorboard/`` of the folder (extra ``track``).

    Raises
    ------
    NeurosimError
        A folder that holds an evolution (without `resume` or `overwrite`) or holds none (with `resume`), a changed strategy or config,
        a damaged checkpoint, a full disk, fitness of a wrong shape.
    DivergenceError
        No fitness of a generation is finite. The folder keeps the generation before.
    KeyboardInterrupt
        Ctrl-C or SIGTERM, after the present generation was kept; a second one stops at once.
    """
    started = time.monotonic()
    check("generations", generations, Count)
    check_minutes(minutes)
    folder = None if out is None else user_path(out)
    if track:
        require_tensorboard()
    if folder is None and (resume or overwrite):
        raise NeurosimError(f"{'resume' if resume else 'overwrite'} = True without a folder; wanted out=FOLDER.")
    if resume and overwrite:
        raise NeurosimError(
            "resume and overwrite: one goes on with what is there, the other replaces it. Leave one out."
        )
    described = _described(strategy, config)
    ranks = _Ranks()
    if strategy.differentiates and ranks.size > 1:
        raise NeurosimError(
            f"{type(strategy).__name__} in {ranks.size} processes: its gradient goes through one candidate, which cannot be shared. Start one "
            "process, or take PEPG."
        )
    with contextlib.ExitStack() as stack:

        def begin() -> _Records:
            if folder is None:
                return _Records()
            if ranks.first:
                if resume and not folder.is_dir():
                    raise _nothing_in(folder)
                with _worded(folder, ""):
                    stack.enter_context(locked(folder))
            return _begin(folder, strategy, described, resume, overwrite, ranks.first)

        records = ranks.together(begin)
        done = len(records.metrics)
        if done > generations:
            raise NeurosimError(
                f"generations = {generations}, and the evolution in '{folder}' has {done} already; wanted at least as many, or a new one with overwrite=True."
            )
        ranks.check_same(strategy.theta)
        stop = stack.enter_context(interrupt.stop_between("the present generation"))
        tracker = Tracker(folder, done - 1) if track and folder and ranks.first else None
        if tracker is not None:
            stack.callback(tracker.close)
        bar = stack.enter_context(
            tqdm(total=generations, initial=done, desc="evolution", unit="gen", disable=not (progress and ranks.first))
        )
        for generation in range(done, generations):
            began = time.perf_counter()
            sigma, candidates = strategy.sigma, strategy.ask(generation)
            fitness = ranks.evaluate(objective, candidates, generation, strategy.differentiates)
            try:
                row = _row(generation, fitness, sigma)
                strategy.tell(fitness)
            except DivergenceError as error:
                raise DivergenceError(f"Generation {generation}: {error}{_kept(folder, generation)}") from error
            records.metrics.append(row)
            records.timing.append({"generation": generation, "seconds": time.perf_counter() - began})
            ranks.together(lambda: _keep(folder, strategy, described, records) if folder and ranks.first else None)
            if tracker is not None:
                tracker.row(generation, row)
            bar.update()
            bar.set_postfix({name: f"{row[name]:.4g}" for name in ("best", "mean")}, refresh=False)
            late = minutes is not None and time.monotonic() - started >= 60.0 * minutes
            asked = ranks.largest(SIGNALLED if stop.is_set() else TIME_IS_UP if late else GO_ON)
            how = f"after generation {generation}.{_kept(folder, generation + 1)}"
            if asked == SIGNALLED:
                raise KeyboardInterrupt(f"The evolution was stopped {how}")
            if asked == TIME_IS_UP and generation + 1 < generations:
                bar.close()
                if progress and ranks.first:
                    print(f"minutes = {minutes:g} are over: stopped {how}", file=sys.stderr)
                break
    return Evolution(strategy.theta.numpy(), records.metrics)


def check_minutes(minutes: float | None) -> None:
    """Refuse a limit of time that is none."""
    check("minutes", minutes, Positive | None)


def load(folder: str | os.PathLike[str]) -> Evolution:
    """Read what the evolution in a folder has reached, finished or not.

    Raises
    ------
    NeurosimError
        No folder of an evolution, or a damaged checkpoint.
    """
    folder = user_path(folder)
    if not (folder / checkpoint.NAME).is_file():
        raise _nothing_in(folder)
    arrays, _ = _read(folder)
    with checkpoint.taken_up(folder, MEND):
        return Evolution(arrays["theta"], _rows(arrays["history"]))


# -------------------------------------------------------------------- a generation


def _row(generation: int, fitness: torch.Tensor, sigma: torch.Tensor | None) -> dict[str, Any]:
    """The row of metrics of a generation, by the fitness (P,) of its candidates, of which the first is the centre."""
    finite(fitness, len(fitness))  # complains where none is
    values = fitness.detach().to("cpu", torch.float64)
    good = values[values.isfinite()]
    row = [generation, good.max(), good.mean(), values[0], math.nan if sigma is None else sigma.mean()]
    return _rows(np.array([[*map(float, row), len(values) - len(good)]]))[0]


def _rows(history: np.ndarray) -> list[dict[str, Any]]:
    """Rows of metrics from an array (generations, columns)."""
    counts = ("generation", "non_finite")
    return [
        {name: int(x) if name in counts else x for name, x in zip(COLUMNS, row, strict=True) if math.isfinite(x)}
        for row in history.tolist()
    ]


class _Ranks:
    """This process among those that share the candidates; alone, all of it is the identity."""

    def __init__(self):
        if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
            Workers()  # started by torchrun: joins the group
        together = dist.is_initialized()
        self.size, self.rank = (dist.get_world_size(), dist.get_rank()) if together else (1, 0)
        self.first = self.rank == 0
        self.device = "cuda" if together and dist.get_backend() == "nccl" else "cpu"

    def largest(self, value: int) -> int:
        """The largest of the processes' values."""
        if self.size == 1:
            return value
        values = torch.tensor(value, device=self.device)
        with peers():
            dist.all_reduce(values, op=dist.ReduceOp.MAX)
        return int(values)

    def gather(self, values: torch.Tensor) -> torch.Tensor:
        """The values of all processes, one below another, on the CPU."""
        values = values.to(self.device).contiguous()
        parts = [torch.empty_like(values) for _ in range(self.size)]
        with peers():
            dist.all_gather(parts, values)
        return torch.cat(parts).cpu()

    def together(self, step: Callable[[], T]) -> T:
        """A step that each takes; where one fails all do, since those that went on would wait for it for ever."""
        if self.size == 1:
            return step()
        result, failure = None, None
        try:
            result = step()
        except Exception as error:
            failure = error
        if failed := self.largest(0 if failure is None else 1 + self.rank):
            raise failure or NeurosimError(f"Process {failed - 1} failed; what it printed says why.")
        return result  # type: ignore[return-value]

    def check_same(self, theta: torch.Tensor) -> None:
        """Refuse processes that start from different thetas."""
        if self.size == 1:
            return
        mine = theta[None]
        if self.largest(len(theta)) != -self.largest(-len(theta)) or not (self.gather(mine) == mine).all():
            raise NeurosimError(
                "The processes start from different thetas; wanted the same in all of them: seed what theta is drawn by."
            )

    def evaluate(
        self, objective: Objective, candidates: torch.Tensor, generation: int, differentiates: bool
    ) -> torch.Tensor:
        """Fitness (P,) of the candidates (P, d), each process evaluating a contiguous share."""
        if self.size == 1:
            return _evaluate(objective, candidates, generation, differentiates)
        part = -(-len(candidates) // self.size)
        own = candidates[self.rank * part : (self.rank + 1) * part]
        found = torch.full((part,), math.nan, dtype=torch.float64)  # the last shares may be shorter, or empty

        def evaluate() -> None:
            if len(own):
                found[: len(own)] = _evaluate(objective, own, generation, differentiates).to("cpu", torch.float64)

        self.together(evaluate)
        return self.gather(found)[: len(candidates)]


def _evaluate(objective: Objective, candidates: torch.Tensor, generation: int, differentiates: bool) -> torch.Tensor:
    with torch.set_grad_enabled(differentiates):
        fitness = torch.as_tensor(objective(candidates, generation))
    if tuple(fitness.shape) != (len(candidates),):
        raise NeurosimError(
            f"The objective gave fitness of shape {tuple(fitness.shape)} for {len(candidates)} candidates; wanted ({len(candidates)},), one number each."
        )
    return fitness


# -------------------------------------------------------------------- the folder


def _described(strategy: Strategy, config: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a resumed evolution must have in common with the one that was started, as it comes back from JSON."""
    described = {"strategy": strategy.settings, "config": dict(config or {})}
    try:
        return json.loads(json.dumps(described, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise NeurosimError(
            f"config cannot be written down ({error}); wanted what JSON holds: texts, finite numbers, true, false, None, lists, tables of those."
        ) from error


def _begin(
    folder: Path, strategy: Strategy, described: dict[str, Any], resume: bool, overwrite: bool, first: bool
) -> _Records:
    """Make the folder of a new evolution, or take up the one that it holds; the first process alone writes."""
    kept, told = (folder / checkpoint.NAME).is_file(), (folder / CONFIG).is_file()
    if resume and kept:
        return _restore(folder, strategy, described, first)
    if not first:
        return _Records()
    if resume and not told:
        raise _nothing_in(folder)
    check_owner(folder, CONFIG)
    if (kept or told) and not (resume or overwrite):
        raise NeurosimError(
            f"The folder '{folder}' holds an evolution already; give another one, resume=True to go on with it, or overwrite=True."
        )
    records = _Records()
    with _worded(folder, "Nothing was evolved yet."):
        # A folder with a checkpoint has all its files; one that was killed before has at least the configuration, and begins again.
        (folder / checkpoint.NAME).unlink(missing_ok=True)
        write_whole(folder / CONFIG, (json.dumps(described, indent=2) + "\n").encode())
        _write_rows(folder, records)
        _save(folder, strategy, described, records)
    return records


def _restore(folder: Path, strategy: Strategy, described: dict[str, Any], first: bool) -> _Records:
    """Take up the checkpoint; rows of later generations are cut off."""
    arrays, state = _read(folder)
    was, now = _flat(state["evolution"]), _flat(described)
    changed = [
        f"{key} is {_said(now, key)}, and the evolution was started with {_said(was, key)}"
        for key in {**was, **now}
        if (key in was, was.get(key)) != (key in now, now.get(key))
    ]
    if changed:
        raise NeurosimError(
            f"The evolution in '{folder}' has another configuration: {'; '.join(changed)}. Give what it was started with, or another folder."
        )
    with checkpoint.taken_up(folder, MEND):
        strategy.restore({n.removeprefix("strategy/"): v for n, v in arrays.items() if n.startswith("strategy/")})
        metrics = _rows(arrays["history"])
        timing = [{"generation": g, "seconds": s} for g, s in enumerate(arrays["seconds"].tolist())]
    records = _Records(metrics, timing)
    if first:
        with _worded(folder, _kept(folder, len(metrics)).strip()):
            write_whole(folder / CONFIG, (json.dumps(described, indent=2) + "\n").encode())
            _write_rows(folder, records)
    return records


def _keep(folder: Path, strategy: Strategy, described: dict[str, Any], records: _Records) -> None:
    """Write down a generation. Rows first: what the checkpoint does not have is cut off again when the evolution goes on."""
    with _worded(folder, _kept(folder, len(records.metrics) - 1).strip()):
        for name, rows in ((METRICS, records.metrics), (TIMING, records.timing)):
            with open(folder / name, "a") as file:
                file.write(as_lines(rows[-1:]))
        _save(folder, strategy, described, records)


def _save(folder: Path, strategy: Strategy, described: dict[str, Any], records: _Records) -> None:
    history = [[row.get(name, math.nan) for name in COLUMNS] for row in records.metrics]
    arrays = {f"strategy/{name}": values for name, values in strategy.state().items()}
    arrays["theta"] = strategy.theta.numpy()
    arrays["history"] = np.array(history, dtype=np.float64).reshape(-1, len(COLUMNS))
    arrays["seconds"] = np.array([row["seconds"] for row in records.timing], dtype=np.float64)
    checkpoint.save(folder, arrays, {"evolution": described})


def _read(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    path = folder / checkpoint.NAME
    arrays, state = tensors.load(path, "checkpoint", MEND, may={"evolution": dict[str, Any]})
    if "evolution" not in state:
        raise NeurosimError(f"'{path}' is the checkpoint of a training, not of an evolution. Give another folder.")
    # A candidate's fitness may be NaN, what goes on from here may not.
    numbers = {n: a for n, a in arrays.items() if n == "theta" or (n != "history" and a.dtype.kind == "f")}
    tensors.check_finite(path, numbers, MEND)
    return arrays, state


def _write_rows(folder: Path, records: _Records) -> None:
    write_whole(folder / METRICS, as_lines(records.metrics).encode())
    write_whole(folder / TIMING, as_lines(records.timing).encode())


@contextlib.contextmanager
def _worded(folder: Path, kept: str) -> Iterator[None]:
    """A full disk and the like, said with what is left."""
    try:
        yield
    except OSError as error:
        raise StoppedError(
            f"'{folder}' could not be written: {error.strerror or error}. Free some space, or see to its permissions. {kept}"
        ) from error


# -------------------------------------------------------------------- words


def _kept(folder: Path | None, generations: int) -> str:
    """What is safe, and how to go on."""
    if folder is None:
        return " Nothing was kept: there is no folder (out)."
    return f" The checkpoint in '{folder}' holds the first {generations} generations; evolve with resume=True goes on from it."


def _nothing_in(folder: Path) -> NeurosimError:
    return NeurosimError(f"'{folder}' holds no evolution: it has no {checkpoint.NAME}. Leave resume out to begin one.")


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """Nested tables as keys ``strategy.sigma``, ``config.life.steps``."""
    if not isinstance(values, dict) or not values:
        return {prefix: values} if prefix else {}
    return {
        k: v for name, value in values.items() for k, v in _flat(value, f"{prefix}.{name}" if prefix else name).items()
    }


def _said(values: Mapping[str, Any], key: str) -> str:
    return repr(values[key]) if key in values else "nothing"
