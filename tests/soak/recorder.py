"""A recording of a gigabyte, and recordings killed with signal 9 at random moments.

Memory: a run of leaky cells in a process of its own, once without and once with all cells streamed to a file. What the second takes more at its peak
(VmHWM of /proc; pages of the file that the system still has to write are not the process's) must stay under `most` megabytes. The file is then read
in parts in a further process, by the same measure.

Kills: such a run is killed at moments uniform over its duration; what is in the file must be the first rows of the closed form of explicit Euler,
v_k = I (1 - (1 - dt/tau)^k), with their times and phases. The exit status is 1 if anything differs.

Examples:
    python tests/soak/recorder.py --kills 0
    python tests/soak/recorder.py --kills 100 --out tests/soak/results
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from neurosim import (
    SOURCE,
    Cell,
    Circuit,
    OneToOne,
    Phase,
    Population,
    Projection,
    Protocol,
    Recorder,
    Traces,
    simulate,
)
from neurosim.simulation import versions

DT, TAU, RISE, HOLD = 1e-3, 10e-3, 400, 200
STEPS = RISE + HOLD


@dataclass(frozen=True)
class Settings:
    """Stream a gigabyte with flat memory; kill recordings at random moments and read them."""

    megabytes: int = 1000
    """Of the recording."""
    most: int = 200
    """Megabytes that it may add."""
    kills: int = 30
    """Recordings that are killed."""
    seed: int = 0
    """Of the moments."""
    cells: int = 3000
    """Values of each row."""
    out: Path | None = None
    """Write recorder.json to this folder."""


def circuit(cells: int) -> Circuit:
    """Leaky cells, each under the current that is its pixel."""
    cell = Cell("leaky", "du/dt = (I - u)/tau : 1\n I : 1 (port)\n", rate="u", parameters={"tau": "10*ms"})
    return Circuit(
        "leaky", [Population("inp", cells, SOURCE), Population("c", cells, cell), Projection("W", "inp", "c.I", connectivity=OneToOne())],
        Protocol((Phase("rise", f"{RISE}*ms"), Phase("hold", f"{HOLD}*ms")), {"inp.r": "image"}, dt="1*ms"),
    )  # fmt: skip


def currents(trials: int, cells: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(trials, cells)).astype(np.float32)


def peak() -> float:
    """Megabytes of this process at its peak."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) / 1024


def run(cells: int, trials: int, path: str) -> None:
    """In a process of its own; an empty path records nothing."""
    recorder: Any = Recorder(["c.u"], path=path) if path else ()
    started = time.monotonic()
    result = simulate(
        circuit(cells), currents(trials, cells), level="torch:trajectory", weights={"W": np.ones(cells)}, record=recorder, progress=False
    )  # fmt: skip
    if path:
        result.traces.close()
    print(json.dumps({"peak": peak(), "seconds": time.monotonic() - started}))


def read(cells: int, path: str) -> None:
    """The course of one cell, and all cells of the last phase."""
    with Traces.load(path) as traces:
        one = traces.select(cells={"c": [cells // 2]})["c.u"][:, 0, 0]
        last = traces.select(phases=["hold"], trials=[traces.phases[-1].trial])["c.u"][...]
        trial = len(traces.time) // STEPS - 1
    step = np.arange(len(one))
    current = currents(trial + 1, cells).astype(float)
    off = np.abs(one - current[step // STEPS, cells // 2] * relaxed(step % STEPS)).max()
    off = max(off, np.abs(last[:, 0] - current[trial] * relaxed(np.arange(RISE, STEPS))[:, None]).max())
    print(json.dumps({"peak": peak(), "off": float(off)}))


def relaxed(steps: np.ndarray) -> np.ndarray:
    return 1.0 - (1.0 - DT / TAU) ** steps


def child(*arguments: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, __file__, "child", *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def answer(*arguments: Any) -> dict[str, float]:
    process = child(*arguments)
    output, errors = process.communicate()
    if process.returncode:
        raise SystemExit(f"{arguments}: exit status {process.returncode}\n{errors}")
    return json.loads(output.splitlines()[-1])


def difference(path: Path, cells: int, trials: int) -> str:
    """What is wrong with a file whose writer was killed; an empty text: nothing."""
    current = currents(trials, cells).astype(float)
    with Traces.load(path) as traces:
        rows = len(traces.time)
        if not np.array_equal(traces.time, np.arange(rows) * DT):
            return "time"
        for start in range(0, rows, STEPS):  # a trial at a time
            values = traces["c.u"][start : start + STEPS, 0]
            wanted = relaxed(np.arange(len(values)))[:, None] * current[start // STEPS]
            if np.abs(values - wanted).max() > 1e-12:
                return f"values of trial {start // STEPS}"
        spans = [(n, k, k * STEPS * DT + a) for k in range(trials) for n, a in (("rise", 0.0), ("hold", RISE * DT))]
        found = [(p.name, p.trial, p.start) for p in traces.phases]
        if any(a[:2] != b[:2] or abs(a[2] - b[2]) > 1e-9 for a, b in zip(found, spans, strict=False)):
            return "phases"
        if rows and not traces.phases[-1].start <= traces.time[-1] < traces.phases[-1].stop:
            return "rows without a phase"
    return ""


def memory(settings: Settings, folder: Path) -> dict[str, float]:
    trials = round(settings.megabytes * 1e6 / (8 * settings.cells * STEPS))
    path = folder / "large.h5"
    without = answer("run", settings.cells, trials, "")
    recorded = answer("run", settings.cells, trials, path)
    size = path.stat().st_size / 1e6
    reading = answer("read", settings.cells, path)
    path.unlink()
    return {
        "megabytes": size, "rows": trials * STEPS, "without": without["peak"], "with": recorded["peak"],
        "added": recorded["peak"] - without["peak"], "reading": reading["peak"], "off": reading["off"],
        "seconds without": without["seconds"], "seconds with": recorded["seconds"],
    }  # fmt: skip


def made(path: Path, process: subprocess.Popen[str]) -> float:
    """Wait until a recording has been begun; returns the time."""
    while not path.is_file() and process.poll() is None:
        time.sleep(0.001)
    return time.time()


def kills(settings: Settings, folder: Path) -> list[dict[str, Any]]:
    trials, rng, found = round(200e6 / (8 * settings.cells * STEPS)), np.random.default_rng(settings.seed), []
    path = folder / "killed.h5"
    process = child("run", settings.cells, trials, path)
    begun = made(path, process)
    process.communicate()
    whole = path.stat().st_mtime - begun  # seconds in which it grew
    for number in range(settings.kills):
        path.unlink(missing_ok=True)
        process = child("run", settings.cells, trials, path)
        made(path, process)
        moment = float(rng.uniform(0, whole))
        time.sleep(moment)
        process.kill()
        process.communicate()
        wrong = difference(path, settings.cells, trials)
        with Traces.load(path) as traces:
            rows = len(traces.time)
        found.append({"moment": moment, "killed": process.returncode < 0, "rows": rows, "wrong": wrong})
        print(
            f"kill {number + 1}: {moment:.2f} s after the file was made, {rows} rows {wrong or 'as they should be'}",
            flush=True,
        )
    return found


def main(settings: Settings) -> int:
    with tempfile.TemporaryDirectory() as scratch:
        measured = memory(settings, Path(scratch))
        print(
            f"{measured['megabytes']:.0f} MB in {measured['rows']} rows: peak {measured['without']:.0f} MB without, {measured['with']:.0f} MB with recording "
            f"(+{measured['added']:.0f}); reading parts of it {measured['reading']:.0f} MB; off by {measured['off']:.1e}",
            flush=True,
        )
        killed = kills(settings, Path(scratch)) if settings.kills else []
    wrong = sum(bool(k["wrong"]) for k in killed)
    bad = measured["added"] > settings.most or measured["off"] > 1e-12 or wrong > 0
    if killed:
        print(f"{len(killed)} kills ({sum(k['killed'] for k in killed)} in mid-run): {wrong} files differ")
    if settings.out is not None:
        settings.out.mkdir(parents=True, exist_ok=True)
        given = {k: v for k, v in asdict(settings).items() if k != "out"}
        record = {"versions": versions(), "settings": given, "memory": measured, "kills": killed}
        (settings.out / "recorder.json").write_text(json.dumps(record, indent=1) + "\n")
    return int(bad)


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        if sys.argv[2] == "run":
            run(int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
        else:
            read(int(sys.argv[3]), sys.argv[4])
    else:
        raise SystemExit(main(tyro.cli(Settings, description=__doc__)))
