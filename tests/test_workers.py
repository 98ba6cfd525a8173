"""Several processes share each batch: two of them train like one that has the whole batch.

Oracle: the same training in one process, in float64. The shares of a batch are means that are averaged, so that only the order of
sums differs: 1e-10 after 50 updates. One pair of processes (this file, run as a script) does all that needs no command line.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from neurosim import data
from neurosim.backends.torch.workers import leave
from neurosim.errors import DivergenceError, NeurosimError
from neurosim.training import Trainer, checkpoint, load, resolve
from neurosim.training.start import start

TIMEOUT = 300.0  # for a hang: a loaded machine takes its time to start processes
GHOST = {"sizes": (64, 8, 6, 10)}
PLASTIC = {"sizes": (64, 8, 10), "mode": "learned"}
MICRO = {"sizes": (64, 8, 10), "lateral": "self_predicting", "tau_w": "30*ms", "biases": True}
SHORT = {"sizes": (64, 8, 10)}
ANDERSON = {"solver": "anderson", "tolerance": 1e-10, "max_sweeps": 100}

#: model, settings, schedule. Ten batches of 16 in five epochs: 50 updates.
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "adam, clipped": ("ghost_units", GHOST, {"clip": 1e-3, "decay": 0.9}),
    "sgd, clipped": ("equilibrium_propagation", SHORT, {"optimiser": "sgd", "learning_rate": 0.5, "clip": 1e-2}),
    "no optimiser": ("ghost_units", {**GHOST, "eta": 1.0}, {"optimiser": "none"}),
    "plastic ghosts": ("ghost_units", PLASTIC, {"optimise": ("feedforward", "ghost")}),
    "plastic ghosts, anderson": ("ghost_units", PLASTIC, {"optimiser": "none", **ANDERSON}),
    "filtered rules": ("dendritic_microcircuit", MICRO, {"optimiser": "none"}),
    "filtered rules, anderson": ("dendritic_microcircuit", MICRO, {"optimiser": "adam", **ANDERSON}),
    "whole trials": ("equilibrium_propagation", SHORT, {"optimiser": "none"}),
    "predictive coding": ("predictive_coding", SHORT, {}),
    "published relaxation": ("corinfomax", {"sizes": (64, 8, 10)}, {}),
    "whole matrix, sparse": (
        "corinfomax", {"sizes": (64, 8, 10), "lateral": "woodbury", "lam": 0.99, "constraint": "sparse"}, {"optimiser": "none"}
    ),
    "smaller last batch": (
        "ghost_units", GHOST,
        {"limit": 150, "last_batch": "keep", "validation": "random", "validation_share": 0.5},
    ),
    "smaller last batch, overlap": (
        "counter_current", {"sizes": (64, 12, 10), "loss": "normalised"},
        {"limit": 150, "last_batch": "keep", "epochs": 2},
    ),
    "autoencoder": (
        "counter_current_autoencoder", {"channels": (1, 4), "pixels": 8},
        {"limit": 150, "last_batch": "keep", "learning_rate": 0.1, "epochs": 2},
    ),
    "smaller last batch, backprop": (
        "ghost_units", GHOST, {"limit": 150, "last_batch": "keep", "method": "backprop"}
    ),
    "backprop, clipped": ("ghost_units", GHOST, {"method": "backprop", "clip": 1e-3}),
    "direct feedback alignment": ("ghost_units", GHOST, {"method": "direct_feedback_alignment"}),
}  # fmt: skip


def configure(case: str, **more: Any) -> Any:
    model, settings, schedule = CASES[case]
    return resolve(
        model,
        settings,
        **{"limit": 160, "batch_size": 16, "epochs": 5, "dtype": "float64", "seed": 2, **schedule, **more},
    )


def few_digits() -> Any:
    """21 images to validate and to test with: two workers hold 11 and 10 of them."""
    digits = data.load("digits")
    parts = {f"{s}_{x}": getattr(digits, f"{s}_{x}")[:21] for s in ("validation", "test") for x in ("images", "labels")}
    return replace(digits, **parts)


def trained(case: str) -> dict[str, Any]:
    """Rows of metrics, weights by projection, the test's row."""
    trainer = Trainer(configure(case), progress=False)
    rows = trainer.fit()
    return {
        "metrics": rows,
        "weights": {n: w.tolist() for n, w in trainer.engine.weights().items()},
        "test": trainer.evaluate("test"),
    }


# ------------------------------------------------------------------ one of the pair


def worker(out: Path) -> None:
    """Each case in turn, then what is refused; everything found goes to a file."""
    torch.set_num_threads(1)
    few = few_digits()
    data.load = lambda *a, **k: few  # type: ignore[assignment]
    found: dict[str, Any] = {"trained": {case: trained(case) for case in CASES}, "refused": {}}
    for what, more in (
        ("odd batch", {"batch_size": 15}),
        ("odd last batch", {"limit": 149, "last_batch": "keep"}),
        ("trajectory", {"level": "torch:trajectory", "optimiser": "none", "clip": None, "decay": 1.0})
    ):  # fmt: skip
        try:
            Trainer(configure("adam, clipped", **more), progress=False)
        except NeurosimError as error:
            found["refused"][what] = str(error)
    trainer = Trainer(configure("no optimiser"), progress=False)
    if os.environ["RANK"] == "1":  # the other one's samples are finite
        trainer.splits["train"]["image"][:] = float("nan")
    try:
        trainer.fit()
    except DivergenceError as error:
        found["diverged"] = str(error)
    leave()
    (out / f"found{os.environ['RANK']}.json").write_text(json.dumps(found))


def free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> list[dict[str, Any]]:
    """What both workers found."""
    out = tmp_path_factory.mktemp("pair")
    environment = {
        **os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(p for p in (str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")) if p),
    }  # fmt: skip
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(out)], env={**environment, "RANK": str(rank)}, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        for process in processes:
            said, _ = process.communicate(timeout=TIMEOUT)
            assert process.returncode == 0, said
    finally:
        for process in processes:
            process.kill()
    return [json.loads((out / f"found{rank}.json").read_text()) for rank in range(2)]


def assert_rows_agree(mine: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    assert [list(row) for row in mine] == [list(row) for row in theirs]
    for a, b in zip(mine, theirs, strict=True):
        for name, value in b.items():
            assert a[name] == (value if value is None else pytest.approx(value, rel=1e-9, abs=1e-9)), name


@pytest.mark.parametrize("case", CASES)
def test_two_workers_train_as_one(monkeypatch, pair, case):
    few = few_digits()
    monkeypatch.setattr(data, "load", lambda *a, **k: few)
    alone, (first, second) = trained(case), (found["trained"][case] for found in pair)
    drawn = Trainer(configure(case), progress=False).engine.weights()
    moved = False
    for name, value in alone["weights"].items():
        np.testing.assert_allclose(first["weights"][name], value, rtol=0, atol=1e-10)
        np.testing.assert_array_equal(first["weights"][name], second["weights"][name])  # the workers never drift apart
        moved = moved or bool(np.abs(np.array(value) - drawn[name]).max() > 1e-3)
    assert moved
    assert_rows_agree(first["metrics"], alone["metrics"])
    assert_rows_agree([first["test"]], [alone["test"]])
    assert second == first


def test_clipping_acts(monkeypatch):
    """The cases above named so would end elsewhere without it."""
    few = few_digits()
    monkeypatch.setattr(data, "load", lambda *a, **k: few)
    for case in CASES:
        if "clipped" in case:
            ends = []
            for more in ({}, {"clip": None}):
                trainer = Trainer(configure(case, epochs=1, limit=32, **more), progress=False)
                trainer.fit()
                ends.append(trainer.engine.weights()["W1"])
            assert np.abs(ends[0] - ends[1]).max() > 1e-6, case


def test_a_batch_that_cannot_be_shared(pair):
    for found in pair:
        assert found["refused"]["odd batch"] == "batch_size = 15 cannot be shared by 2 workers; wanted a multiple."


def test_a_last_batch_that_cannot_be_shared(pair):
    for found in pair:
        assert found["refused"]["odd last batch"] == (
            "last_batch = 'keep': the last batch of an epoch has 5 samples, which 2 workers cannot "
            "share; wanted a multiple. Use --set last_batch=drop, or another batch_size or number of "
            "workers."
        )


def test_levels_in_time_are_refused(pair):
    for found in pair:
        assert found["refused"]["trajectory"].startswith(
            "torch:trajectory runs in one process: its rules move the weights in every step. Several workers share a batch on torch:steady"
        )


def test_a_worker_that_diverges_takes_the_others_along(pair):
    for found in pair:
        assert "is not finite" in found["diverged"]


# ------------------------------------------------------------------ torchrun

COMMAND = [
    "train", "ghost_units", "--set", "sizes=64,8,10", "--set", "mode=learned", "--dtype", "float64", "--samples", "160", "--batch-size",
    "16", "--set", "checkpoint=0", "--seed", "1",
]  # fmt: skip


def torchrun(*arguments: Any) -> subprocess.Popen[str]:
    launcher = [
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--master-addr",
        "127.0.0.1",
        "--master-port",
        free_port(),
    ]
    return subprocess.Popen(
        [sys.executable, *launcher, "-m", "neurosim", *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True,
    )  # fmt: skip


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=TIMEOUT)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    return process.returncode, out, err


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_under_torchrun_one_process_writes_and_prints(tmp_path):
    """The whole command; then the same with a worker that dies, which ends the other one, and is resumed."""
    epochs = ["--epochs", "6"]
    status, out, err = ended(torchrun(*COMMAND, *epochs, "--out", tmp_path / "whole"))
    assert status == 0, err
    assert [line.partition(" ")[0] for line in out.splitlines()] == ["test", "wrote"]
    assert err.count("epochs: 100%") >= 1
    assert "warning" not in err.lower()
    assert {p.name for p in (tmp_path / "whole").iterdir()} == {
        "config.toml", "run.json", "metrics.jsonl", "timing.jsonl", "weights.safetensors", "result.json",
    }  # fmt: skip
    two, origin = load(tmp_path / "whole"), json.loads((tmp_path / "whole" / "run.json").read_text())
    assert origin["workers"] == 2
    one: Any = start(two.config, tmp_path / "one", progress=False)
    assert_rows_agree(two.metrics, one.metrics)
    for name, value in one.weights.items():
        np.testing.assert_allclose(two.weights[name], value, rtol=0, atol=1e-10)

    folder = tmp_path / "run"
    process = torchrun(*COMMAND, *epochs, "--out", folder)
    try:
        limit = time.monotonic() + TIMEOUT
        while not (folder / checkpoint.NAME).exists():
            assert process.poll() is None and time.monotonic() < limit
            time.sleep(0.002)
        workers = children(process.pid)
        assert len(workers) == 2
        os.kill(workers[-1], signal.SIGKILL)
        status, out, _ = ended(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    assert status != 0 and out == ""
    for pid in workers:  # none is left waiting for the dead one
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert not (folder / "result.json").exists()
    checkpoint.load(folder)
    status, out, err = ended(torchrun("train", "--resume", folder))
    assert status == 0, err
    assert [line.partition(" ")[0] for line in out.splitlines()] == ["test", "wrote"]
    for name in ("metrics.jsonl", "weights.safetensors"):
        assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


if __name__ == "__main__":
    worker(Path(sys.argv[1]))
