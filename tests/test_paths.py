"""``~`` at the beginning of a path is the home folder, wherever a person gives a path."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
from circuits import cell, circuit, driven, phase, run
from PIL import Image

from neurosim import Recorder, compare, data, plot, registry, simulate
from neurosim.analysis.command_line import parser as experiment
from neurosim.cli import main, parser
from neurosim.data import cache
from neurosim.errors import NeurosimError
from neurosim.evolved import Evolved, load_evolved
from neurosim.export import to_csv
from neurosim.files import user_path, user_text
from neurosim.traces import Traces
from neurosim.training import TrainConfig, load, resolve, resume, sweep, table, train
from neurosim.training.config import read_toml
from neurosim.training.evolution.loop import load as evolved

CIRCUIT = """
import neurosim
from neurosim.models import ghost_units

def small(sizes=(64, 6, 10)):
    return ghost_units.circuit(sizes=sizes)
"""
TRAINING = ["ghost_units", "--set", "sizes=64,6,10", "--set", "limit=64", "--epochs", "1"]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    """The home folder, beside the one where commands run; at the end nothing is called ``~``."""
    folder, here = tmp_path / "home", tmp_path / "here"
    folder.mkdir()
    here.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.chdir(here)
    yield folder
    assert not list(tmp_path.rglob("~*"))


# ------------------------------------------------------------------------------------- the helper


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("~", "{home}"),
        ("~/", "{home}"),
        ("~/runs/x", "{home}/runs/x"),
        ("~/runs/~x", "{home}/runs/~x"),
        ("runs/~x", "runs/~x"),
        ("runs/~", "runs/~"),
        ("runs/~/x", "runs/~/x"),
        ("./~/x", "{here}/~/x"),  # so that it is not taken for the home folder later on
        ("x~", "x~"),
        ("/~/x", "/~/x"),
        ("~nobody_of_this_name/x", "~nobody_of_this_name/x"),
        ("$HOME/x", "$HOME/x"),
        ("", ""),
        ("runs//x/", "runs//x/"),
    ],
)
def test_only_a_home_folder_at_the_beginning_is_put_in(home, given, wanted):
    wanted = wanted.format(home=home, here=Path.cwd())
    assert user_text(given).rstrip("/") == wanted.rstrip("/")
    assert user_path(given) == user_path(user_path(given)) == Path(wanted)
    if not given.startswith("./"):
        assert user_path(Path(given)) == Path(wanted)


# ------------------------------------------------------------------------------- the command line

#: What stands for a path in the help of a command.
PATHS = {"DIR", "RUN_DIR", "FILE", "FILE.npz", "PATH", "MODEL", "SOURCE"}


def actions(command: argparse.ArgumentParser):
    for action in command._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                yield from actions(sub)
        else:
            yield command.prog, action


def test_every_option_that_takes_a_path_knows_the_home_folder(home):
    found = [(prog, action) for prog, action in actions(parser()) if action.metavar in PATHS]
    assert len(found) > 30
    for prog, action in found:
        assert action.type is not None, f"{prog} {action.dest}"
        assert str(action.type("~/x")) == str(home / "x"), f"{prog} {action.dest}"
        assert str(action.type("runs/~x")) == "runs/~x", f"{prog} {action.dest}"


def test_options_that_take_no_path_are_left_as_they_are():
    arguments = parser().parse_args(["plot", "a", "--set", "name=~/x", "--record", "~"])
    assert (arguments.settings, arguments.record) == (["name=~/x"], ["~"])


def test_simulate_plot_export_describe_and_compare(home, capsys):
    (home / "mine.py").write_text(CIRCUIT)
    np.savez(home / "s.npz", images=np.ones((2, 64)), labels=np.array([1, 2]))
    own = ["~/mine.py:small", "--stimuli=~/s.npz"]
    recorded = ["--level", "torch:trajectory", "--record", "pyr1.u", "--stride", "9"]
    assert main(["simulate", *own, *recorded, "--out=~/runs/a"]) == 0, capsys.readouterr().err
    written = {p.name for p in (home / "runs/a").iterdir()}
    assert written >= {"traces.h5", "result.json", "traces.png"}
    assert main(["plot", "~/runs/a", "--to=~/a.png"]) == 0
    assert main(["plot", "~/runs/a/traces.h5", "--kind", "traces", "--to", "~/traces.svg"]) == 0
    assert main(["plot", "~/mine.py:small", "--to=~/network.svg"]) == 0
    assert main(["export", "~/runs/a", "--to=~/a.csv"]) == 0
    assert main(["describe", "~/mine.py:small", "--to=~/a.md"]) == 0
    levels = ["--levels", "torch:trajectory", "torch:steady"]
    assert main(["compare", *own, *levels, "--out=~/runs/b"]) == 0, capsys.readouterr().err
    written = {"a.png", "traces.svg", "network.svg", "a.csv", "a.phases.csv", "a.md"}
    assert written <= {p.name for p in home.iterdir()}
    assert (home / "runs/b/report.md").is_file()
    assert not list(Path().iterdir())


def test_train_resume_weights_table_and_sweep(home, capsys):
    assert main(["train", *TRAINING, "--out=~/runs/t"]) == 0, capsys.readouterr().err
    assert main(["train", "--resume=~/runs/t"]) == 0
    assert "finished already" in capsys.readouterr().out
    assert main(["train", *TRAINING, "--weights=~/runs/t", "--out=~/runs/u"]) == 0
    assert json.loads((home / "runs/u/run.json").read_text())["weights"]
    assert main(["describe", "ghost_units", "--weights=~/runs/t", "--to=~/t.md"]) == 0
    assert main(["plot", "~/runs/t", "--to=~/curves.png"]) == 0
    assert main(["table", "~/runs/t", "--to=~/table.md"]) == 0
    experiment_file = 'model = "~/mine.py:small"\nepochs = 1\nlimit = 64\n'
    (home / "mine.py").write_text(CIRCUIT)
    (home / "e.toml").write_text(experiment_file)
    assert main(["trust", "~/mine.py"]) == 0
    assert main(["train", "~/e.toml", "--out=~/runs/e"]) == 0, capsys.readouterr().err
    assert load("~/runs/e").circuit.name == "ghost_units"
    (home / "s.toml").write_text(experiment_file + "seeds = [0]\n")
    assert main(["sweep", "~/s.toml", "--out=~/runs/s", "--data-dir=~/data"]) == 0
    (found,) = (home / "runs/s").rglob("result.json")
    assert json.loads((found.parent / "run.json").read_text())["data_dir"] == str(home / "data")
    assert main(["sweep", "~/s.toml", "--dry-run"]) == 0  # by default into a folder here
    assert "runs/s/" in capsys.readouterr().out and not list(Path().iterdir())


def test_the_data_directory(home, monkeypatch, capsys):
    assert main(["train", "ghost_units", "--data", "mnist", "--data-dir=~/data"]) == 1
    assert f"the data directory {home / 'data'} " in capsys.readouterr().err
    for given in (
        ["--data-dir=~/data"],
        ["fetch", "mnist", "--data-dir=~/data", "--url", "http://localhost:9"],
    ):
        main(["data", *given])
        said = capsys.readouterr()
        assert str(home / "data") in said.out + said.err
    monkeypatch.setenv("NEUROSIM_DATA", "~/elsewhere")
    with pytest.raises(data.DataError, match=str(home / "elsewhere")):
        data.load("mnist")


def test_the_command_line_of_experiments(home):
    assert experiment("text", Path("results")).parse_args(["--out=~/x"]).out == home / "x"


# -------------------------------------------------------------------------------------- in Python


@pytest.fixture
def traces():
    c = cell("du/dt = (I - u)/tau : 1\nI : 1", rate="u", tau="10*ms")
    net = driven(c, duration="5*ms")
    return run(net, "torch:trajectory", np.ones((1, 3)), record=["p.u", "W"]).traces


def test_traces_are_saved_loaded_streamed_and_exported(home, traces):
    assert traces.save("~/t.h5") == home / "t.h5"
    with Traces.load("~/t.h5") as loaded:
        np.testing.assert_array_equal(loaded["p.u"], traces["p.u"])
    assert to_csv(traces, "~/t.csv")[0] == home / "t.csv"
    c = cell("du/dt = -u/tau : 1", rate="u", tau="10*ms")
    net = circuit({"p": (1, c)}, phases=[phase("only", "5*ms")])
    recorder = Recorder(("p.u",), path="~/streamed.h5")
    streamed = simulate(net, record=recorder, level="torch:trajectory", progress=False).traces
    assert len(streamed.time) == 10 and (home / "streamed.h5").is_file()


def test_nwb_is_written_and_read(home, traces):
    pytest.importorskip("pynwb")
    from neurosim.export import from_nwb, to_nwb

    assert to_nwb(traces, "~/t.nwb") == home / "t.nwb"
    np.testing.assert_array_equal(from_nwb("~/t.nwb")["p.u"], traces["p.u"])


def test_figures_and_comparisons_are_saved(home):
    c = cell("du/dt = (I - u)/tau : 1\nI : 1", rate="u", tau="10*ms")
    net = driven(c, duration="100*ms")
    result = run(net, "torch:trajectory", np.ones((1, 3)), record=["p.u"])
    result.plot("~/a.png")
    saved = [
        plot.save_traces(result.traces, "~/b.png"),
        plot.save_figure(plot.network_figure(net), "~/c.svg"),
    ]
    assert saved == [home / "b.png", home / "c.svg"] and (home / "a.png").is_file()
    with pytest.raises(NeurosimError, match=f"there is no folder '{home / 'none'}'"):
        plot.save_traces(result.traces, "~/none/a.png")
    levels = ["torch:trajectory", "torch:steady"]
    compared = compare(net, np.ones((1, 3)), levels=levels, progress=False)
    assert compared.save("~/c")[0] == home / "c/report.md"


def test_models_of_ones_own(home):
    (home / "mine.py").write_text(CIRCUIT)
    assert registry.model("~/mine.py:small").circuit().name == "ghost_units"
    with pytest.raises(NeurosimError, match=rf"There is no file '{home}/none\.py'"):
        registry.model("~/none.py")


def test_trainings_and_their_files(home):
    options = {"settings": {"sizes": (64, 6, 10)}, "limit": 64, "epochs": 1, "progress": False}
    assert train("ghost_units", "~/t", data_dir="~/data", **options).folder == home / "t"
    assert json.loads((home / "t/run.json").read_text())["data_dir"] == str(home / "data")
    assert load("~/t").folder == resume("~/t").folder == home / "t"
    assert TrainConfig.from_toml("~/t/config.toml") == load("~/t").config
    assert [row.folder for row in table.collect(["~/t"])] == [(home / "t").resolve()]
    (home / "s.toml").write_text('model = "ghost_units"\nseeds = [0, 1]\n')
    assert read_toml("~/s.toml", ("seeds",))["seeds"] == (0, 1)
    placed = sweep.folders(sweep.expand("~/s.toml"), "~/out")
    assert {folder.parent.parent for folder in placed} == {home / "out"}
    with pytest.raises(NeurosimError, match="holds a run already"):
        train("ghost_units", "~/t", **options)


def test_an_evolution(home, capsys):
    small = ["--set", "sizes=64,6,10", "--set", "hidden=5", "--set", "batch=16"]
    few = ["--steps", "3", "--population", "5", "--generations", "1"]
    assert main(["evolve", "tdca", *small, *few, "--out=~/runs/v"]) == 0, capsys.readouterr().err
    assert main(["evolve", "--resume=~/runs/v", "--generations", "2"]) == 0
    assert len((home / "runs/v/metrics.jsonl").read_text().splitlines()) == 2
    assert evolved("~/runs/v").history == evolved(home / "runs/v").history
    assert main(["plot", "~/runs/v", "--to=~/v.svg"]) == 0
    assert (home / "v.svg").is_file() and load_evolved("~/runs/v").model == "tdca"


def test_credits_are_a_setting_that_is_a_path(home):
    """The file is found for a circuit, for the preset of a training, and from an experiment."""
    sizes = {"sizes": (64, 6, 10), "hidden": 5, "ratio": 2.0}
    begun = registry.model("tdca").circuit(sizes)
    weights = begun.initial_weights(0)
    told = {"architecture": "mlp", "kernel": "gauss", "width": 0.5, "lattice": "line"} | sizes
    facts = {"life": {"optimiser": "sgd", "rate": 0.4, "clip": 2.0, "steps": 30}}
    found = Evolved({name: weights[name] for name in begun.evolved}, "tdca", told, facts)
    assert found.save("~/evolved.safetensors") == home / "evolved.safetensors"
    for path in ("~/evolved.safetensors", "~"):  # the file, and the folder of an evolution
        assert set(load_evolved(path).weights) == set(begun.evolved)
        net = registry.model("tdca").circuit({"credits": path, "sizes": (64, 6, 10)})
        again = net.initial_weights(3)
        for name in begun.evolved:
            np.testing.assert_array_equal(again[name], weights[name])
        assert resolve("tdca", {"credits": path}).settings["credits"] == path
    lines = ["limit = 64", "batch_size = 16", "epochs = 1", "[settings]", 'credits = "~"']
    (home / "e.toml").write_text("\n".join(['model = "tdca"', *lines]))
    assert main(["train", "~/e.toml", "--out=~/runs/c"]) == 0
    short = ["--samples", "64", "--batch-size", "16", "--epochs", "1"]
    assert main(["train", "tdca", "--credits=~", *short, "--out=~/runs/d"]) == 0


def test_pictures_and_their_cache(home, monkeypatch):
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for kind in ("a", "b"):
            folder = home / "pictures" / part / kind
            folder.mkdir(parents=True)
            for k in range(6):
                pixels = rng.integers(0, 255, (4, 4), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{k}.png")
    monkeypatch.setenv("NEUROSIM_CACHE", "~/cache")
    assert len(data.load("images:~/pictures").split("test")[0]) == 12
    assert cache.directory() == home / "cache" and list((home / "cache").iterdir())
    assert len(data.load("images:pictures", "~").split("test")[0]) == 12  # in the data directory
    monkeypatch.delenv("NEUROSIM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "~/xdg")
    assert cache.directory() == home / "xdg/neurosim"
    with pytest.raises(data.DataError, match="there is no ~nobody_of_this_name/x"):
        data.load("images:~nobody_of_this_name/x")
