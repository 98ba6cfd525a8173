"""Looking at a run folder runs no code: a model file runs where a person has named it, or where it is trusted.

The oracle is a model file that leaves a mark when it runs.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import neurosim
from neurosim import trusted
from neurosim.cli import main
from neurosim.errors import NeurosimError
from neurosim.training import load, resume

NET = """
from pathlib import Path
Path("ran").touch()
from neurosim import registry
from neurosim.models import ghost_units
def circuit(sizes=(64, 6, 5, 10), beta=0.1):
    return ghost_units.circuit(sizes=sizes)
training = registry.model("ghost_units").preset
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A finished run, and the model file that it names."""
    folder = tmp_path_factory.mktemp("trained")
    with contextlib.chdir(folder):
        Path("net.py").write_text(NET)
        command = ["train", "net.py", "--samples", "64", "--epochs", "1", "--record", "W1", "W2", "--out", "run"]
        assert main(command) == 0
        assert Path("ran").exists()
        Path("ran").unlink()
    return folder


@pytest.fixture
def stranger(trained, tmp_path, monkeypatch):
    """The run of another, in a process that has not named its model file, by a user who trusts no file."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    trusted._named.clear()
    return tmp_path


def refused(capsys, *command: str) -> str:
    assert main([*command]) == 1
    assert not Path("ran").exists()
    said = capsys.readouterr().err
    assert "unexpected" not in said
    return said


LOOKS = (
    ("plot", "run", "--kind", "weights"), ("plot", "run"), ("table", "run"), ("sweep", "sweep.toml", "--dry-run"),
    ("plot", "run", "--kind", "learning"),
)  # fmt: skip
SWEEP = 'model = "net.py"\nepochs = 1\nlimit = 64\nseeds = [0, 1]\n[grid]\n"settings.beta" = [0.1, 0.2]\n'


@pytest.mark.parametrize("look", LOOKS, ids=" ".join)
@pytest.mark.parametrize("trusts", [False, True])
def test_a_look_never_imports_a_file(stranger, capsys, look, trusts):
    """Not even one that is trusted."""
    Path("sweep.toml").write_text(SWEEP)
    if trusts:
        assert main(["trust", "net.py"]) == 0
    assert main([*look]) == 0
    assert not Path("ran").exists()


RUNS = (
    ("plot", "run", "--kind", "network"), ("plot", "run", "--kind", "cka"), ("plot", "run", "--kind", "fields"),
    ("plot", "run", "--kind", "tsne"), ("plot", "run", "--kind", "cosine"), ("train", "--resume", "run"),
    ("train", "experiment.toml", "--out", "other"), ("sweep", "sweep.toml"),
)  # fmt: skip


@pytest.mark.parametrize("command", RUNS, ids=" ".join)
def test_what_needs_the_code_asks_for_trust(stranger, capsys, command):
    """The message names the file, who names it and the command that adds it; then the run goes on."""
    Path("run/result.json").unlink()
    Path("sweep.toml").write_text(SWEEP)
    Path("experiment.toml").write_text('model = "net.py"\nepochs = 1\nlimit = 64\n')
    said = refused(capsys, *command)
    assert "names the model file 'net.py', which runs code, and it is not among your trusted files" in said
    assert "neurosim trust 'net.py'" in said
    assert any(name in said for name in ("run/config.toml", "experiment.toml", "sweep.toml"))


def test_trust_is_of_a_path_and_a_content(stranger, capsys):
    Path("run/result.json").unlink()
    net = Path("net.py").read_text()
    assert main(["trust", "net.py"]) == 0
    line = f"{hashlib.sha256(net.encode()).hexdigest()}  {Path('net.py').resolve()}\n"
    assert trusted.list_of_files().read_text() == line
    trusted._named.clear()
    Path("net.py").write_text(net + "\n")
    assert "it has changed since you trusted it" in refused(capsys, "train", "--resume", "run")
    Path("net.py").write_text(net)
    Path("elsewhere").mkdir()
    Path("elsewhere/net.py").write_text(net)  # beside it, a stranger's modules could lie
    config = Path("run/config.toml").read_text()
    Path("run/config.toml").write_text(config.replace('"net.py"', '"elsewhere/net.py"'))
    assert "it is not among your trusted files" in refused(capsys, "train", "--resume", "run")
    Path("run/config.toml").write_text(config)
    assert main(["train", "--resume", "run"]) == 0
    assert Path("ran").exists()


def test_a_list_that_sha256sum_writes_is_read(stranger):
    Path("run/result.json").unlink()
    path = Path("net.py").resolve()
    trusted.list_of_files().parent.mkdir(parents=True)
    with open(trusted.list_of_files(), "w") as lines:
        subprocess.run(["sha256sum", str(path)], stdout=lines, check=True)
    assert main(["train", "--resume", "run"]) == 0


def test_no_code_in_a_run_folder_runs(stranger, capsys):
    """Whoever names it, by any road."""
    (stranger / "run" / "net.py").write_text(Path("net.py").read_text())
    os.symlink(stranger / "run" / "net.py", "link.py")
    for command in (
        ("describe", "run/net.py"), ("trust", "run/net.py"), ("simulate", "run/net.py:circuit"), ("describe", "link.py"),
        ("compare", "link.py"),
    ):  # fmt: skip
        assert "no code in a run folder runs" in refused(capsys, *command)
    Path("run/result.json").unlink()
    for inside in (
        "run/net.py",
        str(stranger / "run/net.py"),
        "link.py",
        "../" + stranger.name + "/run/net.py:circuit",
    ):
        config = Path("run/config.toml").read_text()
        Path("run/config.toml").write_text(config.replace('"net.py"', json.dumps(inside)))
        refused(capsys, "train", "--resume", "run")
        refused(capsys, "plot", "run", "--kind", "network")
        Path("run/config.toml").write_text(config)
    os.chdir("run")
    assert main(["train", "--resume", "."]) == 1
    assert not Path("ran").exists()


def test_a_compiled_file_beside_it_does_not_run_in_its_place(stranger):
    """A loader would prefer __pycache__ where the times agree."""
    assert main(["trust", "net.py"]) == 0
    other = Path("other.py")
    other.write_text(Path("net.py").read_text().replace("ran", "was"))
    code = "import py_compile, sys; py_compile.compile('other.py', sys.argv[1], invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)"  # fmt: skip
    cached = f"__pycache__/net.{sys.implementation.cache_tag}.pyc"
    subprocess.run([sys.executable, "-c", code, cached], check=True)
    load("run").circuit.plan  # noqa: B018
    assert Path("ran").exists()
    assert not Path("was").exists()


def test_naming_a_file_is_enough(stranger):
    """On the command line and in Python; a run that is begun so can be resumed in another process."""
    assert main(["describe", "net.py"]) == 0
    assert load("run").circuit.name == "ghost_units"  # named in this process
    trusted._named.clear()
    with pytest.raises(NeurosimError, match="neurosim trust"):
        load("run").circuit.plan  # noqa: B018
    neurosim.train("net.py", "mine", epochs=1, limit=64, progress=False)
    trusted._named.clear()
    Path("mine/result.json").unlink()
    resume("mine", progress=False)


def test_a_training_does_not_make_its_model_files_folder_a_run_folder(stranger, capsys):
    Path("ran").unlink(missing_ok=True)
    assert main(["train", "net.py", "--samples", "64", "--epochs", "1", "--out", ".", "--overwrite"]) == 1
    assert "no code in a run folder runs. Give another folder." in capsys.readouterr().err
    assert not Path("config.toml").exists()


def test_evolve_resumes_trusted_files_only(stranger, capsys):
    Path("task.py").write_text(
        "from pathlib import Path\nPath('ran').touch()\nfrom neurosim.models.tdca import circuit, training\n"
    )
    begin = ["--set", "credits=unevolved", "--set", "steps=2", "--generations", "1", "--population", "3", "--seed", "1"]
    assert main(["evolve", "task.py", *begin, "--set", "test=false", "--out", "search"]) == 0
    Path("ran").unlink()
    trusted._named.clear()
    trusted.list_of_files().unlink()
    said = refused(capsys, "evolve", "--resume", "search", "--generations", "2")
    assert "search/config.json names the model file 'task.py'" in said
    assert main(["plot", "search"]) == 0
    assert not Path("ran").exists()
    assert main(["trust", "task.py"]) == 0
    assert main(["evolve", "--resume", "search", "--generations", "2"]) == 0


def test_a_path_may_hold_colons(stranger):
    folder = Path("path:with.py:colon")
    folder.mkdir()
    (folder / "net.py").write_text(Path("net.py").read_text())
    for name in ("path:with.py:colon/net.py:circuit", "path:with.py:colon/net.py"):
        assert main(["describe", name]) == 0
    with pytest.raises(NeurosimError, match="Did you mean 'circuit'"):
        neurosim.registry.model("path:with.py:colon/net.py:circiut")


def test_a_file_that_changes_while_it_trains_is_trusted_as_it_ran(stranger):
    """Not as it lies there when the run folder is written."""
    neurosim.registry.model("net.py")
    ran = hashlib.sha256(Path("net.py").read_bytes()).hexdigest()
    Path("net.py").write_text(NET + "\n# another's line\n")
    neurosim.registry.trust("net.py")
    assert trusted.list_of_files().read_text() == f"{ran}  {Path('net.py').resolve()}\n"
