"""Time per Euler step of `brian2:dense` and `torch:trajectory` against the BLAS floor; prints Markdown tables.

The floor of a step is, for each projection, one product rates x weights (gemv, or gemm for a batch) and, for each
plastic one in a phase in which it learns, one in-place rank-B update (ger or gemm), by the same library, in the same
dtype, on arrays of the same sizes. It is measured between the phases of the very run that it is compared with, because
other work on the machine moves both; ratios are medians of such pairs. With one thread, times are CPU time of the
thread, which leaves out the time that other processes had the core; with more, wall-clock time.

A level may beat the floor, since it leaves work out exactly: tied projections share drives, a drive from a clamped
source is computed once per phase, and its weights are written once. The `moving` floor therefore counts only distinct
drives and updates whose source moves.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from brian2 import get_device, prefs
from scipy.linalg.blas import dgemm, dger  # type: ignore[attr-defined]
from threadpoolctl import threadpool_limits

from neurosim import Cell, Circuit, Glorot, Phase, PlasticityRule, Population, Projection, Protocol
from neurosim.backends import engine_class
from neurosim.backends.brian2.network import object_name
from neurosim.backends.engine import Options
from neurosim.backends.result import ResultBuilder
from neurosim.description import OneToOne
from neurosim.models import ghost_units
from neurosim.plan import PhasePlan, Plan

MICRO = 1e6
Clock = Callable[[], float]
FLOOR_SECONDS = 5e-3  # of each measurement of the floor, at the least


@dataclass(frozen=True)
class Settings:
    """Microseconds per step of the trajectory levels, as ratios to the BLAS floor of the same run."""

    cases: tuple[Literal["projection", "ghost"], ...] = ("projection", "ghost")
    """`projection`: one plastic 1000x1000 whose source's rate moves, so that each step writes every weight;
    `ghost`: the whole ghost circuit."""
    levels: tuple[str, ...] = (
        "brian2:dense:cython", "brian2:dense:numpy", "torch:trajectory:float64", "torch:trajectory:float32",
    )  # fmt: skip
    """Level, then code generation target (Brian2) or dtype (torch)."""
    batches: tuple[int, ...] = (1, 128)
    """Samples at once."""
    threads: tuple[int, ...] = (1,)
    """Threads of BLAS and torch; 0 for all."""
    repeats: int = 5
    """Timed trials."""
    n: int = 1000
    """Cells on each side of the one projection."""
    sizes: tuple[int, ...] = (784, 100, 10)
    """Layers of the ghost circuit."""
    out: Path | None = None
    """Write the measurements to this JSON file, for example benchmarks/results/trajectory_levels.json."""


# ------------------------------------------------------------------ circuits


def projection_circuit(n: int) -> Circuit:
    """One plastic n x n projection; the source follows the stimulus with a time constant, so its rate moves."""
    source = Cell("source", "du/dt = (x - u)/tau : 1\n r = tanh(u) : 1\n x : 1 (input)", parameters={"tau": "10*ms"})
    target = Cell("target", "du/dt = (I - u)/tau : 1\n r = tanh(u) : 1\n I : 1 (port)", parameters={"tau": "10*ms"})
    rule = PlasticityRule("hebb", "dw/dt = eta*r_post*r_pre", {"eta": "1e-3*Hz"})
    return Circuit(
        "one_projection",
        [Population("pre", n, source), Population("post", n, target), Projection("W", "pre", "post.I", Glorot(), rule)],
        Protocol((Phase("plastic", "20*ms", plastic=("hebb",)),), {"pre.x": "image"}),
    )


def stimuli(plan: Plan, samples: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    sizes = {field: plan.stimulus_size(field) for field in ("image", "target")}
    return {field: rng.random((samples, size)) for field, size in sizes.items() if size}


# ------------------------------------------------------------------ the floor


def numpy_operations(n_pre: int, n_post: int, batch: int, _: str) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Drive and update of one dense projection by NumPy's and SciPy's BLAS."""
    rng = np.random.default_rng(0)
    w, r, f = (rng.random(shape) for shape in ((n_pre, n_post), (batch, n_pre), (batch, n_post)))
    drive = np.empty_like(f)
    if batch == 1:
        return (
            lambda: np.dot(r, w, out=drive),
            lambda: dger(1e-9, f[0], r[0], a=w.T, overwrite_x=0, overwrite_y=0, overwrite_a=1),
        )
    return lambda: np.dot(r, w, out=drive), lambda: dgemm(1e-9, f.T, r.T, beta=1.0, c=w.T, trans_b=1, overwrite_c=1)


def torch_operations(n_pre: int, n_post: int, batch: int, dtype: str) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Drive and update of one dense projection by torch."""
    kind = getattr(torch, dtype)
    w, r, f = (torch.rand(shape, dtype=kind) for shape in ((n_pre, n_post), (batch, n_pre), (batch, n_post)))
    drive = torch.empty_like(f)
    return lambda: torch.mm(r, w, out=drive), lambda: w.addmm_(r.T, f, alpha=1e-9)


class Floor:
    """The BLAS calls of one step, phase by phase."""

    def __init__(self, plan: Plan, operations: Any, batch: int, dtype: str):
        dense = {n: q for n, q in plan.projections.items() if not isinstance(q.connectivity, OneToOne)}
        calls = {n: operations(q.n_pre, q.n_post, batch, dtype) for n, q in dense.items()}
        moving = {n: q for n, q in dense.items() if q.variable not in plan.populations[q.source].static}
        distinct = {q.key: n for n, q in moving.items()}.values()
        self.calls = {}
        for p in plan.phases:
            self.calls[p.name] = (
                [calls[n][0] for n in dense] + [calls[n][1] for n in p.plastic if n in dense],
                [calls[n][0] for n in distinct] + [calls[n][1] for n in p.plastic if n in moving],
            )

    def seconds(self, phase: str, clock: Clock) -> list[float]:
        """Of one step: the whole floor, the moving floor."""
        taken = []
        for calls in self.calls[phase]:
            for call in calls * 3:  # for the caches
                call()
            steps, started = 0, clock()
            while steps == 0 or clock() - started < FLOOR_SECONDS:
                for call in calls * 10:
                    call()
                steps += 10
            taken.append((clock() - started) / steps)
        return taken


# ------------------------------------------------------------------ measuring


@contextlib.contextmanager
def phase_clock(clock: Clock, ended: Callable[[PhasePlan, float], None]) -> Iterator[None]:
    """Call `ended(phase, seconds)` after each phase of the runs inside, from the hooks that every engine calls."""
    begin, end = ResultBuilder.begin, ResultBuilder.end
    running: tuple[PhasePlan, float]

    def timed_begin(self: ResultBuilder, phase: PhasePlan) -> None:
        nonlocal running
        begin(self, phase)
        running = phase, clock()

    def timed_end(self: ResultBuilder) -> None:
        elapsed = clock() - running[1]
        end(self)
        ended(running[0], elapsed)

    ResultBuilder.begin, ResultBuilder.end = timed_begin, timed_end
    try:
        yield
    finally:
        ResultBuilder.begin, ResultBuilder.end = begin, end


@contextlib.contextmanager
def threads_limited(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    count = count or os.cpu_count() or 1
    torch.set_num_threads(count)
    try:
        with threadpool_limits(count):
            yield
    finally:
        torch.set_num_threads(before)


def bytes_per_synapse(engine: Any) -> float:
    """What Brian2 holds for the plastic projections: weights, indices and counts, spare capacity included."""
    plastic = {object_name("weights", q.name) for q, _ in engine.plan.plastic()}
    arrays: dict[Any, Any] = vars(get_device())["arrays"]
    held = [a for v, a in arrays.items() if getattr(v.owner, "name", "") in plastic]
    # A growing array of Brian2 keeps its memory in `_data`.
    return sum(getattr(a, "_data", a).nbytes for a in held) / sum(len(s) for s in engine.synapses if s.name in plastic)


@dataclass
class Measurement:
    """One row of a table. Times are microseconds per step; ratios are medians over pairs of level and floor."""

    case: str
    level: str
    batch: int
    threads: int
    phase: str
    steps: int
    level_us: float
    floor_us: float
    ratio: float
    moving_floor_us: float
    moving_ratio: float


def measure(case: str, circuit: Circuit, level: str, batch: int, threads: int, repeats: int) -> list[Measurement]:
    name, _, kind = level.rpartition(":")
    plan, brian2 = circuit.plan, name.startswith("brian2")
    options = Options(batch=batch, progress=False)
    options = replace(options, codegen=kind) if brian2 else replace(options, dtype=kind)
    floor = Floor(plan, numpy_operations if brian2 else torch_operations, batch, kind)
    counts = dict(zip((p.name for p in plan.phases), plan.steps(options.dt), strict=True))
    clock = time.thread_time if threads == 1 else time.perf_counter
    times: dict[str, list[np.ndarray]] = {phase: [] for phase in counts}  # per step: level, floor, moving floor

    def ended(phase: PhasePlan, seconds: float) -> None:
        times[phase.name].append(np.array([seconds / counts[phase.name], *floor.seconds(phase.name, clock)]) * MICRO)

    engine = engine_class(name)(plan, circuit.initial_weights(0), options)
    # Two more trials: the first warms up, the last phase of the last one holds the end of Brian2's run.
    with phase_clock(clock, ended):
        engine.present(stimuli(plan, (repeats + 2) * batch), ends=False)
    times = {phase: t[1:-1] for phase, t in times.items()}
    total = sum(counts.values())
    if len(counts) > 1:
        weighted = [[t * n for t in times[phase]] for phase, n in counts.items()]
        times["whole trial"] = [np.sum(trial, axis=0) / total for trial in zip(*weighted, strict=True)]
    rows = []
    for phase, taken in times.items():
        own, whole, moving = np.median(taken, axis=0)
        ratios = np.median([(t[0] / t[1], t[0] / t[2]) for t in taken], axis=0)
        rows.append(
            Measurement(
                case, level, batch, threads, phase, counts.get(phase, total), own, whole, ratios[0], moving, ratios[1]
            )
        )
    return rows


def compile_facts(circuit: Circuit) -> dict[str, float]:
    """Cython code objects of a circuit and the time to compile them, in an empty cache."""
    before = prefs["codegen.runtime.cython.cache_dir"]
    with tempfile.TemporaryDirectory() as folder:
        prefs["codegen.runtime.cython.cache_dir"] = folder
        try:
            taken = []
            for _ in range(2):
                started = time.perf_counter()
                engine = engine_class("brian2:dense")(
                    circuit.plan, circuit.initial_weights(0), Options(codegen="cython", progress=False)
                )
                engine.present(stimuli(circuit.plan, 1), ends=False)
                taken.append(time.perf_counter() - started)
            objects = len([f for f in Path(folder).rglob("*") if f.suffix in (".so", ".pyd")])
        finally:
            prefs["codegen.runtime.cython.cache_dir"] = before
    return {
        "code_objects": objects,
        "compile_seconds": taken[0] - taken[1],
        "bytes_per_plastic_synapse": bytes_per_synapse(engine),
    }


# ------------------------------------------------------------------ output


def table(rows: list[Measurement]) -> str:
    lines = [
        "| circuit | level | B | threads | phase | steps | us/step | us/step/sample | floor | ratio | moving | ratio |",
        "|---|---|--:|--:|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for m in rows:
        lines.append(
            f"| {m.case} | {m.level} | {m.batch} | {m.threads} | {m.phase} | {m.steps} | {m.level_us:.1f} | "
            f"{m.level_us / m.batch:.2f} | {m.floor_us:.1f} | {m.ratio:.2f} | {m.moving_floor_us:.1f} | "
            f"{m.moving_ratio:.2f} |"
        )
    return "\n".join(lines)


def main(settings: Settings) -> None:
    circuits = {
        "projection": (f"{settings.n}x{settings.n}", projection_circuit(settings.n)),
        "ghost": ("ghost " + "-".join(map(str, settings.sizes)), ghost_units.circuit(sizes=settings.sizes)),
    }
    chosen = [circuits[case] for case in settings.cases]
    facts = {}
    if "brian2:dense:cython" in settings.levels:
        facts = {name: compile_facts(circuit) for name, circuit in chosen}
        print("| circuit | Cython code objects | compile time s | bytes per plastic synapse |\n|---|--:|--:|--:|")
        for name, f in facts.items():
            print(
                f"| {name} | {f['code_objects']} | {f['compile_seconds']:.1f} | {f['bytes_per_plastic_synapse']:.2f} |"
            )
        print(flush=True)
    rows: list[Measurement] = []
    for threads in settings.threads:
        with threads_limited(threads):
            for name, circuit in chosen:
                for batch in settings.batches:
                    for level in settings.levels:
                        used = threads or os.cpu_count() or 1
                        rows += measure(name, circuit, level, batch, used, settings.repeats)
    print(table(rows))
    if settings.out is not None:
        record = {
            "machine": {"processor": platform.processor() or platform.machine(), "cpus": os.cpu_count()},
            "settings": {k: str(v) for k, v in asdict(replace(settings, out=None)).items()},
            "compile": facts,
            "rows": [asdict(m) for m in rows],
        }
        settings.out.parent.mkdir(parents=True, exist_ok=True)
        settings.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
