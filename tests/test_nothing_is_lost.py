"""No command loses a file: nothing is replaced unasked or by another kind, folders are claimed and locked, full disks and dead peers are said."""

from __future__ import annotations

import errno
import os
import platform
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import largest_file
from matplotlib.figure import Figure

from neurosim import files, plot
from neurosim.backends.torch.workers import Workers
from neurosim.cli import main
from neurosim.errors import NeurosimError, StoppedError
from neurosim.evolved import load_evolved
from neurosim.files import LOCK, locked, whole_file
from neurosim.training import evolution, load, sweep, train

SMALL = {"sizes": (64, 6, 10)}
RUN = ("train", "ghost_units", "--set", "sizes=64,6,10", "--samples", "64")
SIMULATE = ("simulate", "ghost_units", "--set", "sizes=64,6,10", "--samples", "1", "--level", "torch:steady")
EVOLVE = ("evolve", "tdca", "--set", "sizes=64,6,10", "--set", "hidden=5", "--set", "batch=16", "--steps", "2")
EVOLVE += ("--population", "3", "--set", "test=false")


@pytest.fixture
def cli(capsys):
    def run(*arguments: object) -> tuple[int, str]:
        code = main([str(a) for a in arguments])
        return code, capsys.readouterr().err.splitlines()[-1] if code else ""

    return run


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory) -> Path:
    """A finished run with a recording."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    recorder = {"variables": ["pyr1.r"]}
    train("ghost_units", folder, settings=SMALL, epochs=1, limit=64, recorder=recorder, progress=False)
    return folder


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return all(one[name].tobytes() == other[name].tobytes() for name in {**one, **other})


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# ------------------------------------------------------------------------------- files that are there

WRITERS = {
    "plot": (("plot", "ghost_units"), "x.svg", b"<svg"),
    "table": (("table", "RUN"), "x.md", b"| "),
    "describe": (("describe", "tdca_search"), "x.txt", b"tdca"),
    "export": (("export", "RUN"), "x.csv", b"time"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_to_replaces_when_asked_and_only_its_like(cli, run_folder, tmp_path, name):
    words, to, begin = WRITERS[name]
    command = [run_folder if w == "RUN" else w for w in words]
    to = tmp_path / to
    to.write_bytes(old := {".svg": b"<svg/>"}.get(to.suffix, b"old"))
    before = contents(run_folder)

    code, said = cli(*command, "--to", to)
    assert code == 1 and said == f"error: There is already {to}; give another --to, or --overwrite."
    assert to.read_bytes() == old
    assert cli(*command, "--to", to, "--overwrite")[0] == 0
    assert begin in to.read_bytes()[:400]

    to.write_bytes(b"\x93data\0")  # of another kind under this name
    assert "is there and is not" in cli(*command, "--to", to, "--overwrite")[1]
    assert to.read_bytes() == b"\x93data\0"
    for other in ("weights.safetensors", "config.toml", "metrics.jsonl"):
        arguments = ["--format", "markdown"] if name in ("table", "describe") else []
        assert cli(*command, *arguments, "--to", run_folder / other, "--overwrite")[0] == 1
    assert cli(*command, "--to", to.parent, "--overwrite")[0] == 1

    elsewhere = tmp_path / "elsewhere"
    to.unlink()
    to.symlink_to(elsewhere)  # nowhere yet: the link is there all the same
    assert cli(*command, "--to", to)[0] == 1
    elsewhere.write_bytes(old)
    assert cli(*command, "--to", to, "--overwrite")[0] == 0
    assert elsewhere.read_bytes() == old and not to.is_symlink()  # what a link points to is left alone
    assert contents(run_folder) == before


def test_pictures_beside_what_is_drawn_are_not_replaced_either(cli, run_folder):
    assert cli("plot", run_folder)[0] == 0
    before = (run_folder / "curves.png").read_bytes()
    assert "There is already" in cli("plot", run_folder)[1]
    assert (run_folder / "curves.png").read_bytes() == before
    assert cli("plot", run_folder, "--overwrite")[0] == 0
    (run_folder / "curves.png").unlink()


def test_what_is_read_is_not_written(cli, run_folder, tmp_path):
    pytest.importorskip("pynwb")
    source = tmp_path / "x.nwb"
    source.write_bytes((run_folder / "recording.h5").read_bytes())
    (tmp_path / "y.nwb").symlink_to(source)
    for to in (source, tmp_path / "y.nwb"):
        assert cli("export", source, "--to", to, "--overwrite")[1].endswith(
            "is the file that is read; give another name."
        )


def test_python_replaces_pictures_by_pictures(tmp_path):
    path, figure = tmp_path / "x.png", Figure()
    for old in (b"", b"\x89PNG old"):
        path.write_bytes(old)
        plot.save_figure(figure, path)
        assert path.read_bytes().startswith(b"\x89PNG\r\n")
    before = path.read_bytes()
    with largest_file(100), pytest.raises(OSError, match="File too large"):
        plot.save_figure(figure, path)
    assert contents(tmp_path) == {"x.png": before}
    path.write_bytes(b"1,2,3")
    with pytest.raises(NeurosimError, match="is there and is not a PNG file"):
        plot.save_figure(figure, path)


def test_temporary_files_are_nobody_elses(tmp_path):
    """A file called x.part stays, and what a link in the place of the temporary file points to."""
    (tmp_path / "x.part").write_text("mine")
    (tmp_path / "target").write_text("mine")
    (tmp_path / ".x.part").symlink_to(tmp_path / "target")
    with whole_file(tmp_path / "x") as temporary:
        temporary.write_text("new")
    assert contents(tmp_path) == {"x.part": b"mine", "target": b"mine", "x": b"new"}


# ------------------------------------------------------------------------------- folders


def test_commands_of_one_second_have_folders_of_their_own(tmp_path, monkeypatch):
    from types import SimpleNamespace

    from neurosim.cli import common

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(common.time, "strftime", lambda form: "NOW")
    barrier = threading.Barrier(8)

    def claim(k: int) -> Path:
        barrier.wait()
        given = SimpleNamespace(out=None, overwrite=False, model="ghost_units", command="simulate")
        with common.output_folder(given) as out:  # pyright: ignore[reportArgumentType]
            (out / "mine").write_text(str(k))
        return out

    with ThreadPoolExecutor(8) as pool:
        out = list(pool.map(claim, range(8)))
    names = {"simulate-ghost_units-NOW", *(f"simulate-ghost_units-NOW-{k}" for k in range(2, 9))}
    assert {path.name for path in out} == names
    assert [(path / "mine").read_text() for path in out] == [str(k) for k in range(8)]


def test_a_command_that_writes_nothing_leaves_no_folder(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli(*SIMULATE, "--dtype", "float64", "--device", "nowhere")[0] == 1
    assert not [p for p in tmp_path.rglob("*") if p.name != "runs"]


HOLD = """
import sys, time
from pathlib import Path
from neurosim.files import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_folder_that_is_being_written_is_refused_until_its_process_dies(cli, tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        wanted = (
            f"error: The folder '{tmp_path}' is being written by process {holder.pid} on {platform.node()}. Wait until it ends, or "
            "stop it, or give another folder."
        )
        for command in (SIMULATE, ("compare", *SIMULATE[1:]), RUN, EVOLVE):
            assert cli(*command, "--out", tmp_path, "--overwrite") == (1, wanted)
    finally:
        holder.kill()
        holder.wait()
    assert [p.name for p in tmp_path.iterdir()] == [
        LOCK
    ]  # of a dead process: it holds nobody up, nor is the folder full
    assert cli(*SIMULATE, "--out", tmp_path)[0] == 0
    assert not (tmp_path / LOCK).exists()


def test_locks(tmp_path, capsys):
    with locked(tmp_path / "a" / "b"):  # made, taken again within the thread, and gone again as it is empty
        with locked(tmp_path / "a" / ".." / "a" / "b"):
            pass
        with ThreadPoolExecutor(1) as pool, pytest.raises(NeurosimError, match="is being written by process"):
            pool.submit(locked(tmp_path / "a" / "b").__enter__).result()
    assert not (tmp_path / "a" / "b").exists()
    (tmp_path / LOCK).write_text("process 5 on saturn")
    with locked(tmp_path):
        pass
    said = capsys.readouterr().err
    assert (
        said
        == f"warning: {tmp_path / LOCK} was left by process 5 on saturn, and its lock is gone: going on. See to it that it has ended.\n"
    )
    (tmp_path / LOCK).symlink_to(tmp_path / "mine")
    with pytest.raises(NeurosimError, match="cannot be written to"), locked(tmp_path):
        pass
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize(("number", "said"), [(errno.EROFS, "Read-only file system"), (errno.ENOSPC, "disk is full")])
def test_folders_that_take_no_file(cli, tmp_path, monkeypatch, number, said):
    real = os.open

    def refusing(path, *more, **options):
        if Path(path).name == LOCK:
            raise OSError(number, os.strerror(number), str(path))
        return real(path, *more, **options)

    monkeypatch.setattr(files.os, "open", refusing)
    code, message = cli(*RUN, "--out", tmp_path / "run")
    assert code == 1 and said in message and "unexpected" not in message
    assert "free some space" in message if number == errno.ENOSPC else "Give another one" in message


def test_one_kind_of_folder_does_not_replace_another(cli, run_folder, tmp_path):
    evolved = tmp_path / "evolved"
    strategy = evolution.PEPG(np.zeros(2), population=3)
    evolution.evolve(lambda thetas, generation: -(thetas**2).sum(1), strategy, 1, evolved, progress=False)
    before = contents(run_folder), contents(evolved)
    for folder, own in ((run_folder, "train"), (evolved, "evolve")):
        for command in (SIMULATE, ("compare", *SIMULATE[1:]), RUN, EVOLVE):
            if command[0] != own:
                code, said = cli(*command, "--out", folder, "--overwrite")
                assert code == 1 and f"of `neurosim {own}`" in said and "whose files would be lost" in said, said
    with pytest.raises(NeurosimError, match="holds an evolution"):
        train("ghost_units", evolved, settings=SMALL, epochs=1, limit=64, progress=False)
    assert (contents(run_folder), contents(evolved)) == before


# ------------------------------------------------------------------------------- full disks, and peers that die


def test_a_recording_that_fills_the_disk_goes_on_bit_for_bit(cli, tmp_path):
    words = (*RUN, "--epochs", "3", "--record", "W1", "pyr1.r", "--set", "checkpoint=0")
    whole, out = tmp_path / "whole", tmp_path / "run"
    assert cli(*words, "--out", whole)[0] == 0
    size = (whole / "recording.h5").stat().st_size
    with largest_file(size * 3 // 4):
        code, said = cli(*words, "--out", out)
    assert code == 1 and "cannot grow: File too large" in said
    assert said.endswith(f"`neurosim train --resume {out}` goes on.")
    assert cli("train", "--resume", out)[0] == 0
    assert (out / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert same(load(out).weights, load(whole).weights)
    assert cli("export", whole, "--to", tmp_path / "a.csv")[0] == cli("export", out, "--to", tmp_path / "b.csv")[0] == 0
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert {p.name for p in out.iterdir()} == {p.name for p in whole.iterdir()}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_an_evolution_without_room_goes_on_bit_for_bit(cli, tmp_path, monkeypatch, number):
    words = (*EVOLVE, "--generations", "3")
    whole, out, real, left = tmp_path / "whole", tmp_path / "run", os.replace, [7]
    assert cli(*words, "--out", whole)[0] == 0

    def full(old, new):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(number, os.strerror(number), str(new))
        real(old, new)

    monkeypatch.setattr(os, "replace", full)
    code, said = cli(*words, "--out", out)
    monkeypatch.undo()
    assert code == 1 and os.strerror(number) in said and said.endswith(f"`neurosim evolve --resume {out}` goes on.")
    assert cli("evolve", "--resume", out)[0] == 0
    for name in ("metrics.jsonl", "result.json"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    assert same(load_evolved(out).weights, load_evolved(whole).weights)


def test_a_simulation_without_room_says_what_to_do(cli, tmp_path):
    words = ("simulate", "ghost_units", "--set", "sizes=64,6,10", "--samples", "2", "--level", "torch:trajectory")
    with largest_file(60_000):
        code, said = cli(*words, "--out", tmp_path / "t")
    assert code == 1 and "File too large" in said and said.endswith("The same command with --overwrite runs it again.")
    assert cli(*words, "--out", tmp_path / "t", "--overwrite")[0] == 0


def test_a_sweep_without_room_names_the_same_command(cli, tmp_path, monkeypatch):
    (tmp_path / "x.toml").write_text('model = "ghost_units"\nseeds = [0, 1]\n')

    def train_one(job: sweep.Job, stop: sweep.Stop) -> dict[str, object]:
        if job.config.seed:
            raise OSError(errno.ENOSPC, "No space left on device", str(job.folder / "log.txt"))
        raise type("KilledWorker", (Exception,), {})("attempted to run task on 3 workers")

    monkeypatch.setattr(sweep, "train_one", train_one)
    code = main(words := ["sweep", str(tmp_path / "x.toml"), "--out", str(tmp_path / "out")])
    assert code == 1
    with pytest.raises(NeurosimError, match="2 of 2 runs failed") as caught:
        from neurosim.cli import parser

        arguments = parser().parse_args(words)
        arguments.command_line = "neurosim sweep x.toml"
        arguments.run(arguments)
    assert str(caught.value).endswith("Each says why in its log.txt. `neurosim sweep x.toml` goes on with them.")


def test_a_peer_that_died_is_said_by_name(cli, tmp_path, monkeypatch):
    import torch.distributed as dist

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(dist, "is_initialized", lambda: True)

    def reduce(*a, **b):
        raise RuntimeError("[pair.cc:534] Connection closed by peer [127.0.0.1]:2222\nException raised from ...")

    monkeypatch.setattr(dist, "all_reduce", reduce)
    for step in (lambda w: w.total(1.0), lambda w: w.largest(1.0), lambda w: w.average(np.zeros(1))):
        with pytest.raises(StoppedError, match=r"has lost another one, which died .*\(Connection closed by peer \[127"):
            step(Workers())
    monkeypatch.setattr(dist, "destroy_process_group", lambda: None)
    code, said = cli(*RUN, "--epochs", "1", "--batch-size", "16", "--out", tmp_path / "run")
    assert code == 1 and "has lost another one" in said
    assert said.endswith(f"`neurosim train --resume {tmp_path / 'run'}` goes on under torchrun, as before.")


# ------------------------------------------------------------------------------- Ctrl-C


def test_ctrl_c_in_start_up_is_silent():
    """While neurosim is being imported, whichever way the command is started; a script gets Python's KeyboardInterrupt."""
    stop = "import os, signal, sys; sys.modules['brian2'] = None; os.kill(os.getpid(), signal.SIGINT)"
    for argv, ends in (
        ("neurosim", (130, "")),
        ("/usr/bin/neurosim", (130, "")),
        ("script.py", (-signal.SIGINT, None)),
    ):
        code = f"import sys; sys.argv = ['{argv}']; import importlib.util as u, signal; signal.signal(2, signal.default_int_handler)\n"
        code += f"s = u.spec_from_file_location('_start', {str(Path(files.__file__).with_name('_start.py'))!r})\n"
        code += f"s.loader.exec_module(u.module_from_spec(s))\n{stop}"
        done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True)
        assert done.returncode == ends[0] and (ends[1] is None or done.stderr == ends[1])
        assert ("KeyboardInterrupt" in done.stderr) == (ends[1] is None)
