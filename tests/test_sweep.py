"""Sweeps: what a file describes, and that no run is lost to an error, a killed process, Ctrl-C or a dead dask worker.

Oracle of the runs: metrics.jsonl of the same run trained here without a break, byte for byte.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from neurosim.cli import main
from neurosim.errors import NeurosimError
from neurosim.training import resolve, sweep
from neurosim.training.start import start
from tests.test_training import DELTA

#: The ghost-unit circuit; the process that builds it is killed as often as `deaths` says.
MORTAL = """
import os, signal
from pathlib import Path
from neurosim.models import ghost_units


def circuit(deaths=1, tally="tally"):
    with open(tally, "a") as file:
        file.write("x")
    if len(Path(tally).read_text()) <= deaths:
        os.kill(os.getpid(), signal.SIGKILL)
    return ghost_units.circuit(sizes=(64, 8, 10))
"""
DOCS = Path(__file__).parent.parent / "docs"
LONG = 'model = "ghost_units"\nepochs = 16\n[settings]\nsizes = [64, 32, 10]\n'


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


def written(text: str) -> str:
    Path("file.toml").write_text(text)
    return "file.toml"


def uninterrupted(config: Any) -> bytes:
    start(config, "alone", progress=False)
    return Path("alone/metrics.jsonl").read_bytes()


def waited(ready, seconds: float = 200.0) -> Any:
    due = time.monotonic() + seconds
    while time.monotonic() < due:
        if found := ready():
            return found
        time.sleep(0.02)
    pytest.fail("it did not come to pass")


def trained(folder: str) -> Any:
    """Wait until a run has ended its first epoch."""
    return waited(lambda: Path(folder, "metrics.jsonl").exists() and Path(folder, "metrics.jsonl").read_text())


# ---------------------------------------------------------------- the file


def test_runs_times_grid_times_seeds():
    path = written("""
        model = "ghost_units"
        epochs = 3
        seeds = [0, 7]
        [settings]
        eta = 0.5
        [[run]]
        [[run]]
        name = "small"
        epochs = 1
        settings = { sizes = [64, 8, 10] }
        [[run]]
        method = "backprop"
        [grid]
        learning_rate = [0.01, 0.02]
        settings.gain = [1.0]
    """)
    configs = sweep.expand(path)
    assert len(configs) == 3 * 2 * 2
    assert configs[6] == resolve(
        "ghost_units", {"eta": 0.5, "sizes": (64, 8, 10), "gain": 1.0}, epochs=1, learning_rate=0.02, seed=0,
        name="small-learning_rate=0.02-gain=1.0",
    )  # fmt: skip
    assert [str(folder) for folder in sweep.folders(configs, Path("o"))][::2] == [
        "o/ghost_units-learning_rate=0.01-gain=1.0/seed0",
        "o/ghost_units-learning_rate=0.02-gain=1.0/seed0",
        "o/small-learning_rate=0.01-gain=1.0/seed0",
        "o/small-learning_rate=0.02-gain=1.0/seed0",
        "o/backprop-learning_rate=0.01-gain=1.0/seed0",
        "o/backprop-learning_rate=0.02-gain=1.0/seed0",
    ]


def test_data_sets_and_methods_of_a_grid():
    path = written("""
        model = "ghost_units"
        [grid]
        data = ["digits", "mnist"]
        method = ["circuit", "backprop"]
        "settings.sizes" = [[784, 9, 10]]
    """)
    placed = sweep.folders(sweep.expand(path), Path("o"))
    assert [str(folder) for folder in placed] == [
        "o/ghost_units-method=circuit-sizes=784,9,10-data=digits/seed0",
        "o/backprop-sizes=784,9,10-data=digits/seed0",
        "o/ghost_units-method=circuit-sizes=784,9,10-data=mnist/seed0",
        "o/backprop-sizes=784,9,10-data=mnist/seed0",
    ]
    assert {config.settings["sizes"] for config in placed.values()} == {(784, 9, 10)}


def test_a_plain_experiment_file_is_one_run():
    assert sweep.expand(written('model = "ghost_units"\nseed = 4\n')) == [resolve("ghost_units", seed=4)]


def test_the_files_of_the_pages_on_training_and_scaling_out():
    pages = (DOCS / "training.md", DOCS / "scaling_out.md")
    one, several, grid = (b for page in pages for b in re.findall(r"```toml\n(.*?)```", page.read_text(), re.DOTALL))
    assert sweep.expand(written(one)) == [
        resolve("ghost_units", {"sizes": (64, 32, 10)}, epochs=5, learning_rate=0.005)
    ]
    assert [str(f) for f in sweep.folders(sweep.expand(written(several)), Path("o"))] == [
        f"o/{name}/seed{seed}" for name in ("ghost_units", "backprop") for seed in (0, 1)
    ]
    assert len(sweep.expand(written(grid))) == 4


def test_folders_are_safe_for_the_file_system():
    (config,) = sweep.expand(written('model = "ghost_units"\nname = "../a b/c:é"\n'))
    assert list(sweep.folders([config], Path("o"))) == [Path("o/_a_b_c_é/seed0")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = 3", "There is no key in file.toml 'epoch'. Did you mean 'epochs'?"),
        ("[[run]]\nmetod = 'backprop'", "There is no key in [[run]] 1 of file.toml 'metod'. Did you mean 'method'?"),
        ("[grid]\nbeta = [1, 2]", "There is no key in [grid] of file.toml 'beta'"),
        ("[grid]\nsettings.betta = [1, 2]", "'file.toml', run 1-betta=1: There is no setting of ghost_units"),
        ("[grid]\nepochs = 3", "epochs = 3 in [grid]; wanted a list of values"),
        ("[[run]]\nepochs = 0", "'file.toml', run 1: epochs = 0; wanted a whole number of at least 1"),
        ("seeds = 3", "seeds = 3; wanted a list of whole numbers"),
        ("seeds = [1, 1]", "describes the same run twice: ghost_units, seed 1"),
        ("seeds = [1]\nseed = 2", "gives a seed beside or below 'seeds'"),
        ("[[run]]\nseed = 2", "gives a seed beside or below 'seeds'"),
        ("[run]\nepochs = 2", "wanted tables, each headed by [[run]]"),
        ("settings = 3", "settings = 3; wanted a table"),
    ],
)
def test_mistakes_in_a_file(text, message):
    with pytest.raises(NeurosimError) as error:
        sweep.expand(written(f'model = "ghost_units"\n{text}\n'))
    assert message in str(error.value)


def test_a_run_needs_a_model():
    with pytest.raises(NeurosimError, match="run 2: no model is named"):
        sweep.expand(written("[[run]]\nmodel = 'ghost_units'\n[[run]]\nepochs = 2\n"))


def test_two_runs_in_one_folder_are_refused():
    path = written('model = "ghost_units"\n[[run]]\nepochs = 2\n[[run]]\nepochs = 3\n')
    with pytest.raises(
        NeurosimError, match=r"'o/ghost_units/seed0'; they differ in epochs. Give each \[\[run\]\] a name"
    ):
        sweep.folders(sweep.expand(path), Path("o"))


def test_a_dry_run_lists_the_chosen_runs(capsys):
    path = written('model = "ghost_units"\nseeds = [0, 1]\n[grid]\nepochs = [1, 2]\n')
    assert main(["sweep", path, "--dry-run", "--only", "epochs=2"]) == 0
    assert capsys.readouterr().out == "".join(
        f"new        runs/file/ghost_units-epochs=2/seed{seed}\n" for seed in (0, 1)
    )
    assert not Path("runs").exists()
    assert main(["sweep", path, "--only", "epochs=3"]) == 1
    assert "--only epochs=3: no run has that in its name" in capsys.readouterr().err


# ---------------------------------------------------------------- runs


def test_a_failing_run_does_not_stop_the_others(capsys):
    Path("delta.py").write_text(DELTA)
    assert main(["trust", "delta.py"]) == 0
    path = written("""
        epochs = 1
        limit = 64
        [[run]]
        model = "delta.py:circuit"
        optimiser = "none"
        level = "torch:trajectory"
        dtype = "float64"
        batch_size = 1
        settings = { eta = 1e30 }
        [[run]]
        model = "ghost_units"
        settings = { sizes = [64, 8, 10] }
        [[run]]
        model = "ghost_units"
        name = "nowhere"
        data = "images:nowhere"
    """)
    assert main(["sweep", path, "--out", "o", "--workers", "3"]) == 1
    told = capsys.readouterr()
    diverged, fine, nowhere = sweep.folders(sweep.expand(path), Path("o"))
    assert f"finished  {fine}: test accuracy" in told.out
    reason = json.loads((diverged / "result.json").read_text())["failed"]
    assert f"failed  {diverged}: {reason}" in told.out
    assert f"failed  {nowhere}: " in told.out and "nowhere" in (nowhere / "log.txt").read_text()
    assert "2 of 3 runs failed: " in told.err and str(diverged) in told.err
    assert (fine / "metrics.jsonl").read_bytes() == uninterrupted(sweep.expand(path)[1])

    # Again: what is finished or would fail again is left alone.
    before = (fine / "log.txt").read_bytes()
    assert main(["sweep", path, "--out", "o", "--only", fine.parent.name]) == 0
    assert f"finished before  {fine}" in capsys.readouterr().out
    assert (fine / "log.txt").read_bytes() == before

    # Another file may not go on in these folders.
    assert main(["sweep", written(Path(path).read_text().replace("limit = 64", "limit = 96")), "--out", "o"]) == 1
    assert (
        f"The folder '{diverged}' holds a run of another configuration (it differs in limit)" in capsys.readouterr().err
    )


def test_a_run_whose_process_is_killed_is_tried_again(capsys):
    Path("mortal.py").write_text(MORTAL)
    assert main(["trust", "mortal.py"]) == 0
    path = written("""
        model = "mortal.py:circuit"
        epochs = 1
        [[run]]
        name = "once"
        settings = { tally = "once" }
        [[run]]
        name = "always"
        settings = { tally = "always", deaths = 9 }
    """)
    assert main(["sweep", path, "--out", "o", "--tries", "1"]) == 1
    told = capsys.readouterr()
    assert "finished  o/once/seed0: test accuracy" in told.out
    assert "failed  o/always/seed0: its process was ended by SIGKILL, 2 times" in told.out
    assert "1 of 2 runs failed: o/always/seed0" in told.err
    assert Path("always").read_text() == "xx"


@pytest.mark.parametrize(
    ("number", "options"),
    [
        (signal.SIGINT, []),
        pytest.param(signal.SIGKILL, [], marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, ["--scheduler", "local"], marks=pytest.mark.slow),
    ],
)
def test_a_stopped_sweep_goes_on(number, options, capsys):
    """After Ctrl-C, which the terminal sends to the whole group, and after the sweep was killed: then its runs stop by themselves."""
    path = written(LONG)
    Path("signal.py").write_text("raise RuntimeError")  # the module of that name is not this one
    command = [sys.executable, "-P", "-m", "neurosim", "sweep", path, *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    trained("runs/file/ghost_units/seed0")
    os.killpg(process.pid, number)
    assert process.stderr is not None
    errors = process.stderr.read()
    assert process.wait() == (130 if number == signal.SIGINT else -number)
    if number == signal.SIGINT:
        assert "each run writes a checkpoint" in errors
        assert f"Stopped by Ctrl-C. `neurosim {shlex.join(command[4:])}` goes on from the checkpoints." in errors
        assert main(["sweep", path, "--dry-run"]) == 0
        assert capsys.readouterr().out == "unfinished runs/file/ghost_units/seed0\n"
    folder = Path("runs/file/ghost_units/seed0")
    waited((folder / "checkpoint.safetensors").exists)
    assert not (folder / "result.json").exists()
    assert main(["sweep", path]) == 0
    assert (folder / "metrics.jsonl").read_bytes() == uninterrupted(sweep.expand(path)[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--workers", "0"], "--workers 0: wanted at least 1"),
        (["--tries", "-1"], "--tries -1: wanted at least 0"),
        (["--scheduler", "tcp://x:1", "--workers", "2"], "a dask cluster has workers of its own"),
        (["--scheduler", "nonsense://x:1"], "--scheduler nonsense://x:1: no dask scheduler answers there"),
    ],
)
def test_wrong_options(capsys, options, message):
    assert main(["sweep", written('model = "ghost_units"\n'), *options]) == 1
    assert message in capsys.readouterr().err


# ---------------------------------------------------------------- dask


def test_without_dask_a_scheduler_is_refused(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert main(["sweep", written('model = "ghost_units"\n'), "--scheduler", "local"]) == 1
    assert "pip install 'neurosim[cluster]'" in capsys.readouterr().err


def test_a_dask_cluster_trains_the_same(capsys):
    path = written('model = "ghost_units"\nepochs = 1\nlimit = 64\n')
    assert main(["sweep", path, "--scheduler", "local", "--workers", "1"]) == 0
    assert "finished  runs/file/ghost_units/seed0: test accuracy" in capsys.readouterr().out
    folder = Path("runs/file/ghost_units/seed0")
    assert (folder / "metrics.jsonl").read_bytes() == uninterrupted(sweep.expand(path)[0])


@pytest.mark.slow
def test_a_killed_dask_worker_loses_no_run(capsys):
    """The worker of a run is killed in mid-run; another one goes on from the checkpoint."""
    psutil = pytest.importorskip("psutil")
    path = written(LONG.replace("epochs", "seeds = [0, 1]\nepochs"))
    command = [sys.executable, "-m", "neurosim", "sweep", path, "--scheduler", "local", "--workers", "2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    found = Path("runs/file/ghost_units").glob
    folder = waited(lambda: next((f.parent for f in found("seed*/metrics.jsonl") if f.read_text()), None))
    (child,) = [
        p for p in psutil.Process(process.pid).children(recursive=True) if str(folder.absolute()) in p.cmdline()
    ]
    worker = child.ppid()
    assert worker not in (process.pid, 1)
    os.kill(worker, signal.SIGKILL)
    assert not (folder / "result.json").exists()
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    assert out.count("finished  ") == 2
    assert "stopping after the present batches" in (folder / "log.txt").read_text()
    (config,) = [config for config in sweep.expand(path) if folder.name == f"seed{config.seed}"]
    assert (folder / "metrics.jsonl").read_bytes() == uninterrupted(config)
