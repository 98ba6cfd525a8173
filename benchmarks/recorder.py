"""What recording costs: seconds per Euler step with 300 values per step streamed to a file, by those without.

On each level the same engine presents the same samples with and without a `Recorder` in turn; ratios are medians over the turns, of CPU time of the one
thread (on a machine with other work, wall-clock time measures the others). 300 values: three variables of the 100
hidden cells, one sample at a time. On torch:steady, which has a row per phase, a step is a phase. Opening and closing the file, once per run, has a
column of its own.

    OMP_NUM_THREADS=1 python benchmarks/recorder.py --out benchmarks/results/recorder.json
"""

from __future__ import annotations

import gc
import json
import os
import platform
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import tyro

from neurosim import Circuit, Recorder, Traces
from neurosim.backends import engine_class
from neurosim.backends.engine import Options
from neurosim.models import dendritic_microcircuit, ghost_units
from neurosim.simulation import versions
from neurosim.traces.recording import Recording

WANTED = 1.05
VALUES = 300
#: Circuit, and three variables of 100 cells.
CIRCUITS = {
    "dendritic_microcircuit": (dendritic_microcircuit, ("pyr1.u", "pyr1.v_B", "pyr1.v_A")),
    "ghost_units": (ghost_units, ("pyr1.u", "pyr1.E", "pyr1.r")),
}


@dataclass(frozen=True)
class Settings:
    """Recording 300 values per step to a file: time per step by that of the same run without."""

    circuits: tuple[str, ...] = tuple(CIRCUITS)
    """Circuits, 784-100-10."""
    levels: tuple[str, ...] = (
        "brian2:equations:numpy",
        "brian2:dense:numpy",
        "brian2:dense:cython",
        "torch:trajectory:float64",
        "torch:steady:float64",
    )
    """Level, then code generation target (Brian2) or dtype (torch)."""
    repeats: int = 25
    """Turns; fewer where a single trial takes longer than `seconds`."""
    seconds: float = 0.4
    """Of CPU time that one run takes, about: short, so that what else runs on the machine hits both."""
    out: Path | None = None
    """Write the measurements to this JSON file, for example benchmarks/results/recorder.json."""


def measure(settings: Settings, name: str, level: str, folder: Path) -> dict[str, Any]:
    """Medians of microseconds per step and of the ratios."""
    module, variables = CIRCUITS[name]
    circuit: Circuit = module.circuit(sizes=(784, 100, 10))
    engine_name, _, how = level.rpartition(":")
    kind = level.partition(":")[0]
    steady = engine_name == "torch:steady"
    options = Options(progress=False, codegen=how) if kind == "brian2" else Options(progress=False, dtype=how)
    engine = engine_class(engine_name)(circuit.plan, circuit.initial_weights(0), options)
    per_trial = len(circuit.plan.phases) if steady else sum(circuit.plan.steps(options.dt))

    def present(trials: int, path: Path | None) -> tuple[float, float]:
        """CPU seconds per step, and of opening and closing the file; each time from the same weights, of the same samples."""
        rng = np.random.default_rng(0)
        engine.set_weights(circuit.initial_weights(0))
        stimuli = {"image": rng.uniform(size=(trials, 784)), "target": np.eye(10)[rng.integers(10, size=trials)]}
        gc.collect()
        opened = time.thread_time()
        recording = None
        if path is not None:
            recording = Recording(
                Recorder(variables, path=path),
                circuit.plan,
                1,
                options.dt,
                options.dtype if kind == "torch" else "float64",
            )
        started = time.thread_time()
        engine.present(
            {k: v for k, v in stimuli.items() if k in circuit.plan.clamped_fields}, learn="on", record=recording
        )
        ended = time.thread_time()
        if recording is not None:
            recording.close()
        around = time.thread_time() - ended + started - opened
        if path is not None:
            with Traces.load(path) as traces:
                assert sum(int(np.prod(v.shape[1:])) for v in traces.values.values()) == VALUES
                assert len(traces.time) == trials * per_trial
            path.unlink()
        return (ended - started) / (trials * per_trial), around

    present(1, None)
    one = present(1, folder / "warm.h5")[0] * per_trial
    trials = max(1, round(settings.seconds / one))
    times = []
    for turn in range(min(settings.repeats, max(3, round(settings.repeats * settings.seconds / one)))):
        pair = [present(trials, path) for path in ((None, folder / "t.h5") if turn % 2 else (folder / "t.h5", None))]
        times.append(pair if turn % 2 else pair[::-1])
    ratios = [b / a for (a, _), (b, _) in times]
    return {
        "circuit": name, "level": level, "turns": len(times), "trials": trials, "steps": trials * per_trial,
        "without_us": 1e6 * median(a for (a, _), _ in times), "with_us": 1e6 * median(b for _, (b, _) in times), "ratio": median(ratios),
        "open_and_close_ms": 1e3 * median(around for _, (_, around) in times), "ratios": sorted(ratios),
    }  # fmt: skip


def main(settings: Settings) -> None:
    torch.set_num_threads(1)
    print(
        f"{VALUES} values per step to a file, B = 1, 784-100-10, microseconds per step (CPU time), median of {settings.repeats} turns\n"
    )
    print(
        "| circuit | level | without | with | with / without | quartiles | goal | open and close (ms) |\n|---|---|--:|--:|--:|--:|--:|--:|"
    )
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in settings.circuits:
            for level in settings.levels:
                row = measure(settings, name, level, Path(folder))
                rows.append(row)
                low, high = np.percentile(row["ratios"], (25, 75))
                print(
                    f"| {name} | {level} | {row['without_us']:.1f} | {row['with_us']:.1f} | {row['ratio']:.3f} | {low:.3f}-{high:.3f} | {WANTED} | {row['open_and_close_ms']:.1f} |",
                    flush=True,
                )
    if settings.out:
        record = {
            "machine": {"processor": platform.processor() or platform.machine(), "cpus": os.cpu_count()}, "versions": versions(),
            "settings": {k: str(v) for k, v in asdict(settings).items() if k != "out"}, "rows": rows,
        }  # fmt: skip
        settings.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
