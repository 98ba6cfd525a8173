"""Time per Euler step of many three-compartment cells in one group, with and without pooled lateral inhibition.

Three things are timed alternately, trial by trial: the cells without inhibition, the same cells with a shunting inhibition
in proportion to the population's summed rate (a `pool`), and Brian2's own `NeuronGroup` of the bare equations with the same
code generation target. Ratios are medians of such trials, times are CPU time of the one thread. Where a circuit reads the
rates anyhow (a projection), the pool costs a sum; where nothing else does, it also costs the rates (10,000 exponentials).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import brian2 as b2
import numpy as np
import torch
import tyro

from neurosim import SOURCE, Cell, Circuit, Fragment, Given, OneToOne, Phase, Population, Projection, Protocol
from neurosim.backends import engine_class
from neurosim.backends.engine import Options
from neurosim.parts import CONDUCTANCES, pyramidal
from neurosim.parts.text import right_hand_side, with_right_hand_side

TAU_DENDRITE, BACK = 2.0, 0.2  # ms, relative to the dendrite's leak
STEPS = 2000


@dataclass(frozen=True)
class Settings:
    """Pooled lateral inhibition: microseconds per step, and ratios to the same cells without it and to Brian2 alone."""

    cells: int = 10_000
    """Three-compartment cells in one group."""
    levels: tuple[str, ...] = ("brian2:dense:cython", "brian2:dense:numpy", "torch:trajectory:float64")
    """Level, then code generation target (Brian2) or dtype (torch)."""
    repeats: int = 9
    """Timed trials of 2000 steps each."""
    out: Path | None = None
    """Write the measurements to this JSON file, for example benchmarks/results/pooled_inhibition.json."""


def cell(inhibited: bool) -> Cell:
    """Soma, basal and apical states; with inhibition, g_I sum(r) (E_I - u) is added to the soma."""
    bare = pyramidal(tau_dendrite=f"{TAU_DENDRITE}*ms", back=BACK)
    if not inhibited:
        return bare
    soma = f"{right_hand_side(bare, 'du/dt')} + g_I*inhibition*(E_I - u)"
    return replace(
        bare,
        equations=f"{with_right_hand_side(bare, 'du/dt', soma).rstrip()}\n        inhibition = pool(r) : 1\n",
        parameters={**bare.parameters, "g_I": "1e-4/ms", "E_I": -1.0},
    )


def circuit(cells: int, inhibited: bool, read: bool) -> Circuit:
    """The cells under a constant drive; `read`: one unit reads their mean rate, as a projection would."""
    reader = Cell("reader", "du/dt = (I - u)/tau : 1\n I : 1 (port)", rate="u", parameters={"tau": "1*ms"})
    populations = [Population("inp", cells, SOURCE), Population("pyr", cells, cell(inhibited))]
    projections = [Projection("drive", "inp", "pyr.I_basal", connectivity=OneToOne())]
    if read:
        populations.append(Population("mean", 1, reader))
        projections.append(Projection("read", "pyr", "mean.I", Given(np.full((cells, 1), 1 / cells))))
    phases = (Phase("trial", f"{STEPS * 0.1}*ms"),)
    return Circuit("pooled", Fragment(populations, projections), Protocol(phases, {"inp.r": "image"}))


def brian2_alone(drive: np.ndarray, target: str) -> Callable[[], Any]:
    """A run of Brian2's own group of the bare equations."""
    b2.prefs.codegen.target = target
    namespace: dict[str, Any] = {n: CONDUCTANCES[n] / b2.ms for n in ("g_lk", "g_B", "g_A")}
    namespace |= {"tau_d": TAU_DENDRITE * b2.ms, "back": BACK}
    group = b2.NeuronGroup(
        drive.size,
        """
        du/dt = -g_lk*u + g_B*(v_B - u) + g_A*(v_A - u) : 1
        dv_B/dt = (I_basal - v_B + back*(u - v_B))/tau_d : 1
        dv_A/dt = (I_apical - v_A + back*(u - v_A))/tau_d : 1
        I_basal : 1
        I_apical : 1
        """,
        method="euler", namespace=namespace, dt=0.1 * b2.ms, name=f"alone_{target}",
    )  # fmt: skip
    group.I_basal = drive[0]
    network = b2.Network(group)

    def run() -> None:
        b2.prefs.codegen.target = target
        network.run(STEPS * 0.1 * b2.ms)

    return run


def measure(settings: Settings, level: str, read: bool) -> dict[str, Any]:
    """Medians of microseconds per step and of the ratios."""
    name, kind = level.rsplit(":", 1)
    compiled = name.startswith("brian2")
    options = Options(progress=False, codegen=kind) if compiled else Options(progress=False, dtype=kind)
    drive = np.random.default_rng(0).normal(size=(1, settings.cells))
    runs: dict[str, Callable[[], Any]] = {}
    for what, inhibited in (("without", False), ("with", True)):
        built = circuit(settings.cells, inhibited, read)
        engine = engine_class(name)(built.plan, built.initial_weights(0), options)
        runs[what] = lambda engine=engine: engine.present({"image": drive}, learn="off", ends=False)
    runs["brian2"] = brian2_alone(drive, kind if compiled else "cython")
    for run in runs.values():
        run()  # compiles
    times: dict[str, list[float]] = {what: [] for what in runs}
    for _ in range(settings.repeats):
        for what, run in runs.items():
            started = time.thread_time()
            run()
            times[what].append(1e6 * (time.thread_time() - started) / STEPS)
    pairs = list(zip(times["without"], times["with"], times["brian2"], strict=True))
    return {
        "level": level, "rates read": read, **{what: median(values) for what, values in times.items()},
        "with/without": median(b / a for a, b, _ in pairs), "without/brian2": median(a / c for a, _, c in pairs),
    }  # fmt: skip


def main(settings: Settings) -> None:
    torch.set_num_threads(1)
    print(f"{settings.cells} three-compartment cells, B = 1, microseconds per step (CPU time)\n")
    print("| level | rates read by | without | with inhibition | with/without | Brian2 alone | without/Brian2 |")
    print("|---|---|--:|--:|--:|--:|--:|")
    rows = []
    for level in settings.levels:
        for read in (True, False):
            row = measure(settings, level, read)
            rows.append(row)
            print(
                f"| {level} | {'a projection' if read else 'the pool only'} | {row['without']:.0f} | {row['with']:.0f} | "
                f"{row['with/without']:.2f} | {row['brian2']:.0f} | {row['without/brian2']:.2f} |",
                flush=True,
            )
    if settings.out:
        settings.out.write_text(json.dumps({"settings": asdict(settings), "rows": rows}, indent=2, default=str) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
