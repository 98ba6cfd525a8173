"""The command line: what each command writes, and what it says and does when something is wrong.

Commands run in this process through `neurosim.cli.main`. Oracles: the forward pass of tests/oracles/ghost_units.py, the same
call in Python, one level against another; for bad input the text of the message, the exit code and what is left on disk.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from conftest import largest_file

import neurosim
from neurosim import data, registry
from neurosim.cli import main, parser
from neurosim.errors import NeurosimError
from neurosim.models import ghost_units
from neurosim.traces import Traces
from neurosim.training import trainer as training
from tests.oracles import ghost_units as oracle

PNG = b"\x89PNG\r\n\x1a\n"
SIZES = (64, 8, 10)
SMALL = ("--set", "sizes=64,8,10", "--set", "t_free=30*ms", "--set", "t_nudged=30*ms")
EULER = ("brian2:equations", "brian2:dense", "torch:trajectory")

EXPLODING = '''
"""A cell whose potential blows up in finite time: du/dt = (1 + u**2)/tau reaches infinity at t = pi/2 tau."""
from neurosim import SOURCE, Cell, Circuit, Constant, Dense, Phase, Population, Projection, Protocol


def circuit():
    cell = Cell(
        "exploding", "du/dt = (1 + u**2 + I)/tau : 1\\nr = u : 1\\nI : 1 (port)", {"tau": "10*ms"}
    )
    return Circuit(
        "exploding",
        [Population("inp", 64, SOURCE), Population("bomb", 3, cell), Projection("W", "inp", "bomb.I", Constant(0))],
        Protocol((Phase("calm", "10*ms"), Phase("storm", "100*ms")), {"inp.r": "image"}),
    )


def failing():
    return 1 / 0


def nothing():
    return None
'''


@pytest.fixture
def cli(capsys):
    """Runs a command; returns exit code, output and errors. No command ever shows a traceback unless it was asked to."""

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            code = main([str(a) for a in arguments])
        except SystemExit as stop:  # argparse: wrong usage
            code = stop.code if isinstance(stop.code, int) else 1
        out, err = capsys.readouterr()
        if "--debug" not in arguments:
            assert "Traceback" not in err
        return code, out, err

    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A small net trained on the steady level: a folder that the tests only read."""
    out = tmp_path_factory.mktemp("trained") / "run"
    arguments = [
        "--set",
        "sizes=64,16,10",
        "--samples",
        "640",
        "--epochs",
        "8",
        "--seed",
        "2",
        "--set",
        "learning_rate=0.02",
    ]
    assert main(["train", "ghost_units", *arguments, "--out", str(out)]) == 0
    return out


@pytest.fixture
def model(tmp_path) -> Path:
    """The file of a user's own model."""
    path = tmp_path / "my_model.py"
    path.write_text(EXPLODING)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# ---------------------------------------------------------------- list, describe, data


def test_list_names_every_model(cli):
    code, out, _ = cli("list")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == registry.names()
    assert "ghost_units" in out


def test_describe_says_what_the_circuit_is_made_of(cli):
    code, out, _ = cli("describe", "ghost_units", "--set", "mode=learned", "--set", "sizes=64,8,10")
    assert code == 0
    for text in (
        "pyr1 8 cells pyramidal",
        "du/dt = (-u + a + E)/tau",
        "tau 10 ms",
        "V1 pyr1.r ghost1.I_in all-to-all, 8 x 10",
        "free 150 ms beta = 0 ghost (last 20 ms)",
    ):
        assert text in " ".join(out.split())


def test_describe_without_shared_values_has_no_empty_place(cli, model):
    code, out, _ = cli("describe", f"{model}:circuit")
    assert code == 0
    assert "calm 10 ms - nothing" in " ".join(out.split())


def test_describe_for_a_data_set_shows_the_circuit_that_train_starts_from(cli):
    code, out, _ = cli("describe", "ghost_units", "--data", "mnist")
    assert code == 0
    assert "inp 784 cells" in " ".join(out.split())
    code, out, _ = cli("describe", "ghost_units", "--data", "mnist", "--set", "sizes=784,30,10")
    assert code == 0
    assert "pyr1 30 cells" in " ".join(out.split())


def test_data_lists_the_sets(cli, tmp_path):
    code, out, _ = cli("data", "--data-dir", tmp_path)
    assert code == 0
    assert "1294 train, 143 validation, 360 test" in out
    assert "not found" in next(line for line in out.splitlines() if line.startswith("mnist"))


@pytest.mark.parametrize("command", ["simulate", "compare", "train"])
def test_shared_options_and_their_defaults(command):
    given = parser().parse_args([command, "ghost_units"])
    level = {"simulate": "brian2:dense", "compare": None, "train": None}[command]
    assert (given.level, given.seed, given.codegen, given.out, given.weights) == (level, None, None, None, None)
    options = [
        "--data",
        "x",
        "--samples",
        "2",
        "--seed",
        "3",
        "--level",
        "l",
        "--dtype",
        "float32",
        "--codegen",
        "cython",
    ]
    given = parser().parse_args(
        [command, "m", *options, "--weights", "w", "--out", "o", "--set", "a=1", "--set", "b=2"]
    )
    assert (given.data, given.samples, given.seed, given.level) == ("x", 2, 3, "l")
    assert (given.dtype, given.codegen, given.weights, given.out, given.settings) == (
        "float32", "cython", "w", "o", ["a=1", "b=2"]
    )  # fmt: skip


def test_values_of_set():
    pairs = ["beta=0.01", "sizes=784,500,10", "mode=learned", "tau=10*ms", "x=true", "y=None", "z=[1, 2]", "k=a=b"]
    assert registry.parse_settings(pairs) == {
        "beta": 0.01, "sizes": (784, 500, 10), "mode": "learned", "tau": "10*ms", "x": True, "y": None, "z": (1, 2),
        "k": "a=b",
    }  # fmt: skip


# ---------------------------------------------------------------- simulate


def test_simulate_writes_the_traces_that_python_gets(cli, tmp_path):
    code, out, err = cli(
        "simulate", "ghost_units", *SMALL, "--dt", "0.5*ms", "--samples", "2", "--seed", "3", "--record", "pyr1.u", "pyr1.E",
        "--out", tmp_path,
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert f"wrote {tmp_path / 'traces.h5'}" in out
    assert (tmp_path / "traces.png").read_bytes().startswith(PNG)
    circuit = ghost_units.circuit(SIZES, t_free="30*ms", t_nudged="30*ms")
    digits = data.load("digits")
    run = neurosim.simulate(
        circuit, digits.train_images[:2], digits.train_labels[:2], dt="0.5*ms", seed=3, record=["pyr1.u", "pyr1.E"],
        progress=False,
    )  # fmt: skip
    with h5py.File(tmp_path / "traces.h5") as opened:
        file: Any = opened
        np.testing.assert_allclose(file["time"][()], np.arange(240) * 0.5e-3, rtol=1e-12)
        assert file["time"].attrs["unit"] == "s"
        for name in ("u", "E"):
            values = file[f"pyr1/{name}"]
            np.testing.assert_array_equal(values[()], run.traces[f"pyr1.{name}"])
            assert (values.shape, values.attrs["unit"], values.attrs["population"]) == ((240, 1, 8), "1", "pyr1")
            np.testing.assert_array_equal(values.attrs["indices"], np.arange(8))
        assert (file.attrs["seed"], file.attrs["model"], file.attrs["level"]) == (3, "ghost_units", "brian2:dense")
        assert set(json.loads(file.attrs["versions"])) == {"neurosim", "brian2", "torch", "numpy"}
        names = [n.decode() for n in file["phases/name"][()]]
        assert names == ["free", "nudged"] * 2
        np.testing.assert_allclose(file["phases/start"][()], [0, 0.03, 0.06, 0.09], atol=1e-12)
        np.testing.assert_allclose(file["phases/stop"][()], [0.03, 0.06, 0.09, 0.12], atol=1e-12)
        assert list(file["phases/trial"][()]) == [0, 0, 1, 1]


def test_simulate_records_all_states_unless_told(cli, tmp_path):
    code, _, _ = cli("simulate", "ghost_units", *SMALL, "--level", "torch:trajectory", "--dt", "1*ms", "--samples", "1",
                     "--stride", "4", "--out", tmp_path)  # fmt: skip
    assert code == 0
    traces = Traces.load(tmp_path / "traces.h5")
    assert set(traces.values) == {"pyr1.u", "pyr2.u", "ghost1.u"}
    np.testing.assert_allclose(traces.time, np.arange(0, 60, 4) * 1e-3, rtol=1e-12)


def test_simulate_with_a_circuit_of_ones_own(cli, tmp_path, model):
    text = model.read_text().replace("1 + u**2 + I", "1 - u + I")
    model.write_text(text)
    code, _, _ = cli("simulate", f"{model}:circuit", "--samples", "1", "--dt", "0.1*ms", "--out", tmp_path / "out")
    assert code == 0
    traces = Traces.load(tmp_path / "out" / "traces.h5")
    exact = 1 - np.exp(-traces.time / 10e-3)  # du/dt = (1 - u)/tau from 0
    assert (
        np.abs(traces["bomb.u"][:, 0, 0] - exact).max() < 3e-3
    )  # the Euler error at dt = tau/100: at most dt/(2 tau e)
    assert cli("simulate", model, "--samples", "1", "--out", tmp_path / "default")[0] == 0  # `circuit` is the default


OWN_INPUT = """
from neurosim import SOURCE, Cell, Circuit, OneToOne, Phase, Population, Projection, Protocol

relay = Cell("relay", "du/dt = (-u + I)/tau : 1\\nI : 1 (port)", {"tau": "10*ms"}, rate="u", initial={"u": 0.0})

def circuit(target=False, clamped=True):
    populations = [Population("inp", 3, SOURCE), Population("out", 3, relay)]
    projections = [Projection("P", "inp", "out.I", connectivity=OneToOne())]
    clamps = {"inp.r": "image"} if clamped else {}
    if target:
        populations.append(Population("goal", 2, SOURCE))
        clamps["goal.r"] = "target"
    return Circuit("relay", populations + projections, Protocol(phases=(Phase("on", "20*ms"),), clamps=clamps, dt="0.1*ms"))
"""


@pytest.fixture
def own_input(tmp_path) -> Path:
    """A model of one's own that follows its input: tau du/dt = -u + x."""
    path = tmp_path / "relay.py"
    path.write_text(OWN_INPUT)
    return path


@pytest.mark.parametrize("count", [None, 2])
def test_simulate_with_stimuli_of_ones_own(cli, tmp_path, own_input, count):
    x = np.array([[1.0, -2.0, 0.5], [3.0, 0.0, 1e3], [0.0, 1.0, 2.0]])
    np.savez(tmp_path / "x.npz", images=x)
    few = () if count is None else ("--samples", str(count))
    code, _, err = cli("simulate", own_input, "--stimuli", tmp_path / "x.npz", *few, "--level", "torch:steady", "--out", tmp_path / "out")  # fmt: skip
    assert (code, err) == (0, "")
    traces = Traces.load(tmp_path / "out" / "traces.h5")
    np.testing.assert_allclose(traces["out.u"][:, 0], x[:count], atol=1e-6)  # at rest u = x
    code, out, _ = cli("compare", own_input, "--stimuli", tmp_path / "x.npz", "--levels", "brian2:dense", "torch:trajectory", "--out", tmp_path / "both")  # fmt: skip
    assert code == 0 and f"3 samples of {tmp_path / 'x.npz'}" in out


def test_stimuli_of_ones_own_with_labels_or_targets(cli, tmp_path):
    """The same targets as class numbers and as rows; pictures as (samples, height, width)."""
    digits = data.load("digits")
    images, labels = digits.train_images[:3], digits.train_labels[:3]
    np.savez(tmp_path / "labels.npz", images=images, labels=labels)
    np.savez_compressed(tmp_path / "targets.npz", images=images.reshape(3, 8, 8), labels=np.eye(10)[labels])
    command = ("simulate", "ghost_units", *SMALL, "--level", "torch:steady")
    for name, options in (
        ("labels", ("--stimuli", tmp_path / "labels.npz")),
        ("targets", ("--stimuli", tmp_path / "targets.npz")),
        ("digits", ("--samples", "3")),
    ):
        assert cli(*command, *options, "--out", tmp_path / name)[0] == 0
    first = Traces.load(tmp_path / "digits" / "traces.h5")
    for name in ("labels", "targets"):
        np.testing.assert_array_equal(Traces.load(tmp_path / name / "traces.h5")["pyr2.u"], first["pyr2.u"])
    accuracies = [json.loads((tmp_path / n / "result.json").read_text())["accuracy"] for n in ("digits", "labels", "targets")]  # fmt: skip
    assert accuracies[0] == accuracies[1] is not None and accuracies[2] is None


STIMULI = {
    "no such file": (None, "there is no such file"),
    "a text": (b"1, 2, 3", "wanted a file .npz as numpy.savez(FILE, images=..., labels=...) writes it"),
    "empty": (b"", "is damaged"),
    "another name": ({"x": np.ones((2, 3))}, "holds x; wanted"),
    "no samples": ({"images": np.ones((0, 3))}, "has the shapes images (0, 3)"),
    "words": ({"images": np.array([["a", "b", "c"]])}, "holds values of the type <U1; wanted numbers"),
    "flat": ({"images": np.ones(3)}, "has the shapes images (3,); wanted images (samples, pixels)"),
    "more labels": ({"images": np.ones((2, 3)), "labels": np.arange(3)}, "images (2, 3), labels (3,)"),
    "objects": ({"images": np.array([[{}]])}, "holds values of the type object; wanted numbers"),
    "too few pixels": ({"images": np.ones((2, 2))}, "The images have 2 pixels"),
    "nan": ({"images": np.full((1, 3), np.nan)}, "Image 0 holds NaN"),
    "infinite": ({"images": np.full((1, 3), -np.inf)}, "Image 0 holds NaN"),
    "no labels": ({"images": np.ones((1, 3))}, "labels are needed"),
}


@pytest.mark.parametrize("what", STIMULI)
def test_stimuli_of_ones_own_that_fail(cli, tmp_path, own_input, what):
    content, message = STIMULI[what]
    path = tmp_path / "x.npz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.savez(path, **content)
    options = ("--set", "target=true") if what == "no labels" else ()
    code, _, err = cli("simulate", own_input, *options, "--stimuli", path, "--out", tmp_path / "out")
    assert code == 1 and message in err, err
    assert not list((tmp_path / "out").glob("*.json"))


def test_stimuli_that_nobody_would_see(cli, tmp_path, own_input):
    np.savez(tmp_path / "x.npz", images=np.ones((3, 3)))
    whole = (tmp_path / "x.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    for options, message in (
        (("x.npz", "--data", "digits"), "give one of them"),
        (("x.npz", "--samples", "4"), "--samples 4: wanted between 1 and 3"),
        (("cut.npz",), "is damaged"),
        (("x.npy",), "wanted a file .npz"),
        (("x.npz", "--set", "clamped=false"), "The circuit clamps nothing"),
    ):
        code, _, err = cli("simulate", own_input, "--stimuli", tmp_path / options[0], *options[1:], "--out", tmp_path / "out")  # fmt: skip
        assert code == 1 and message in err, err


# ---------------------------------------------------------------- compare


def test_compare_reports_what_it_promises(cli, tmp_path):
    code, out, _ = cli(
        "compare", "ghost_units", *SMALL, "--levels", "brian2:dense", "torch:trajectory", "torch:steady", "--dt", "1*ms",
        "--samples", "2", "--seed", "1", "--out", tmp_path,
    )  # fmt: skip
    assert code == 0
    assert (tmp_path / "report.md").read_text().strip() in out
    assert (tmp_path / "traces.png").read_bytes().startswith(PNG)
    report = json.loads((tmp_path / "report.json").read_text())
    levels = ["brian2:dense", "torch:trajectory", "torch:steady"]
    head = {k: report[k] for k in ("model", "data", "seed", "samples", "steps", "dt", "dtype", "levels")}
    assert head == {
        "model": "ghost_units", "data": "digits", "seed": 1, "samples": 2, "steps": 120, "dt": 1e-3, "dtype": "float64",
        "levels": levels,
    }  # fmt: skip
    circuit = ghost_units.circuit(SIZES, t_free="30*ms", t_nudged="30*ms")
    digits = data.load("digits")
    images, labels = digits.train_images[:2], digits.train_labels[:2]
    run = neurosim.simulate(circuit, images, labels, level="torch:trajectory", dt="1*ms", seed=1, progress=False)
    start = circuit.initial_weights(1)
    assert set(report["weight_change"]) == {"W1", "b1", "W2", "b2"}
    for name, change in report["weight_change"].items():
        assert change == pytest.approx(np.abs(run.weights[name] - start[name]).max(), rel=1e-9)
    pairs = {(p["a"], p["b"]): p for p in report["pairs"]}
    assert list(pairs) == [(levels[0], levels[1]), (levels[0], levels[2]), (levels[1], levels[2])]
    for (a, b), pair in pairs.items():
        assert set(pair) == {"a", "b", "max_abs_state", "max_abs_weight", "by_variable", "by_projection", "spike_times"}
        assert set(pair["by_variable"]) == {"pyr1.u", "pyr2.u", "ghost1.u"}
        assert set(pair["by_projection"]) == {"W1", "b1", "W2", "b2"}
        assert pair["max_abs_state"] == max(pair["by_variable"].values())
        assert pair["max_abs_weight"] == max(pair["by_projection"].values())
        if "torch:steady" not in (a, b):
            assert max(pair["max_abs_state"], pair["max_abs_weight"]) < 1e-12
        else:  # three time constants settle to e^-3, no better
            assert 1e-6 < pair["max_abs_state"] < 1
    phases = {"free", "nudged"}
    assert all(set(report["settling"][level]) == phases for level in levels)
    assert report["settling"]["torch:steady"]["free"] < 1e-9 < report["settling"]["brian2:dense"]["free"]
    assert report["order"]["torch:steady"] is None
    assert report["order"]["brian2:dense"] == pytest.approx(1, abs=0.1)
    assert set(report["update_cosine"]) == set(levels)
    assert all(0.9 < c <= 1 for level in levels for c in report["update_cosine"][level].values())
    assert "accuracy" not in report


def test_compare_without_a_reference_net_has_no_cosine(cli, tmp_path, model):
    text = model.read_text().replace("1 + u**2 + I", "1 - u + I").replace("Constant(0))", "Constant(0), rule)")
    rule = '\n    rule = PlasticityRule("hebb", "dw/dt = r_post*r_pre/T", {"T": "1*second"})\n    cell ='
    text = text.replace("\n    cell =", rule, 1).replace("import SOURCE,", "import SOURCE, PlasticityRule,")
    model.write_text(text.replace('Phase("storm", "100*ms")', 'Phase("storm", "100*ms", plastic=("hebb",))'))
    code, _, err = cli("compare", model, "--levels", "brian2:dense", "torch:steady", "--dt", "1*ms", "--samples", "1",
                         "--out", tmp_path / "out")  # fmt: skip
    assert code == 0, err
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["update_cosine"] == {"brian2:dense": {"W": None}, "torch:steady": {"W": None}}


def test_a_net_trained_on_the_steady_level_crosses_to_the_others(cli, tmp_path, trained):
    """Accuracy of each level is that of the forward pass (tied ghosts cancel the feedback), and all answers are equal."""
    code, out, err = cli(
        "compare", "ghost_units", "--weights", trained, "--samples", "12", "--levels", *EULER[1:], "torch:steady",
        "--dt", "1*ms", "--set", "t_free=100*ms", "--plasticity", "off", "--batch-size", "12", "--out", tmp_path,
    )  # fmt: skip
    assert code == 0, err
    report = json.loads((tmp_path / "report.json").read_text())
    weights = neurosim.load(trained).weights
    digits = data.load("digits")
    _, rates = oracle.forward(
        [weights["W1"], weights["W2"]], [weights["b1"][0], weights["b2"][0]], digits.test_images[:12], "logistic"
    )
    accuracy = float((rates[-1].argmax(1) == digits.test_labels[:12]).mean())
    assert accuracy >= 0.5  # it has learned: chance is 0.1
    assert report["accuracy"] == dict.fromkeys([*EULER[1:], "torch:steady"], accuracy)
    assert set(report["equal_predictions"].values()) == {1.0}
    assert len(report["equal_predictions"]) == 3
    assert "| brian2:dense / torch:trajectory | 1.0000 |" in out


def test_a_trained_net_runs_in_python_as_on_the_command_line(cli, tmp_path, trained):
    run = neurosim.load(trained)
    assert run.circuit.population("pyr1").n == 16  # the settings of the run, not the default sizes
    code, out, _ = cli("simulate", "ghost_units", "--weights", trained, "--level", "torch:steady", "--samples", "20",
                       "--plasticity", "off", "--out", tmp_path)  # fmt: skip
    assert code == 0
    digits = data.load("digits")
    images, labels = digits.test_images[:20], digits.test_labels[:20]
    result = neurosim.simulate(run.circuit, images, labels, level="torch:steady", weights=run.weights, plasticity="off")
    assert f"accuracy over these samples: {(result.readout.argmax(1) == labels).mean():.4f}" in out


# ---------------------------------------------------------------- train


def test_train_writes_its_files(trained):
    assert set(contents(trained)) == {
        "config.toml", "run.json", "metrics.jsonl", "timing.jsonl", "result.json", "weights.safetensors",
    }  # fmt: skip
    config = tomllib.loads((trained / "config.toml").read_text())
    wanted = {
        "model": "ghost_units",
        "data": "digits",
        "level": "torch:steady",
        "seed": 2,
        "epochs": 8,
        "batch_size": 32,
    }
    wanted |= {"limit": 640, "learning_rate": 0.02, "optimiser": "adam", "dtype": "float32"}
    assert wanted.items() <= config.items()
    # Resolved: the circuit's settings are there too, so that a later change of a default does not change this run.
    assert {"sizes": [64, 16, 10], "mode": "exact", "eta": 0.1, "tau": "10*ms"}.items() <= config["settings"].items()
    result = json.loads((trained / "result.json").read_text())
    assert {"model", "data", "level", "seed", "test_accuracy", "seconds"} <= set(result)
    origin = json.loads((trained / "run.json").read_text())
    assert origin["command"].startswith("neurosim train ghost_units --set sizes=64,16,10")
    assert (result["model"], result["data"], result["level"], result["seed"]) == (
        "ghost_units",
        "digits",
        "torch:steady",
        2,
    )


def test_train_shows_epoch_batch_time_left_and_accuracy(cli, tmp_path):
    code, out, err = cli("train", "ghost_units", *SMALL, "--samples", "300", "--batch-size", "1", "--epochs", "1",
                         "--out", tmp_path)  # fmt: skip
    assert code == 0
    for text in ("epochs:", "1/1", "epoch 1:", "/300 [", "accuracy=", "validation=", "<"):
        assert text in err
    assert "test accuracy" in out


# ---------------------------------------------------------------- bad input: said plainly, exit code 1


@pytest.mark.parametrize("command", ["describe", "simulate", "compare", "train"])
@pytest.mark.parametrize(
    "rest", [(), ("--samples", "many"), ("--level", "nowhere"), ("--nonsense",), ("--weights", "nowhere")]
)
def test_an_unknown_model_is_reported_first(cli, command, rest):
    code, _, err = cli(command, "gost_units", *rest)
    assert code == 1
    assert "There is no model 'gost_units'. Did you mean 'ghost_units'?" in err


SIMULATE, COMPARE, TRAIN = ("simulate", "ghost_units"), ("compare", "ghost_units"), ("train", "ghost_units")
WRONG = [
    ((*SIMULATE, "--record", "pyr1.rho"), "'rho'. Did you mean 'rho_a'?"),
    ((*SIMULATE, "--record", "pyr9.u"), "There is no population 'pyr9'. Did you mean 'pyr"),
    ((*SIMULATE, "--record", "u"), "There is no projection 'u' whose weights could be recorded. Or the variable pyr1.u,"),
    ((*SIMULATE, "--level", "brian2:dens"), "There is no level 'brian2:dens'. Did you mean 'brian2:dense'?"),
    ((*SIMULATE, "--data", "digit"), "There is no data set 'digit'. Did you mean 'digits'?"),
    ((*SIMULATE, "--set", "beeta=1"), "There is no setting of ghost_units 'beeta'. Did you mean 'beta'?"),
    ((*SIMULATE, "--set", "mode=exat"), "There is no mode 'exat'. Did you mean 'exact'?"),
    ((*SIMULATE, "--set", "beta"), "wanted --set key=value"),
    ((*SIMULATE, "--set", "tau=10"), "tau = 10; wanted a time above 0 with units, such as '10*ms'. Write '10*ms'"),
    ((*SIMULATE, "--set", "sizes=5"), "sizes = 5; wanted a list of at least 2 whole numbers"),
    ((*SIMULATE, "--set", "sizes=60,8,10"), "The images have 64 pixels but the circuit's input takes 60"),
    ((*SIMULATE, "--set", "sizes=64,8,3"), "the circuit's target has 3 classes"),
    ((*SIMULATE, "--dt", "50*ms"), "dt = 50 ms is beyond the stability limit of explicit Euler for population 'pyr1'"),
    ((*SIMULATE, "--dt", "0*ms"), "dt = '0*ms'; wanted a time above 0"),
    ((*SIMULATE, "--dt", "5"), "dt = '5'; wanted a time above 0 with units"),
    ((*SIMULATE, "--dt", "0.7*ms"), "which is no whole number of steps"),
    ((*SIMULATE, "--dtype", "float32"), "brian2:dense runs in float64"),
    ((*SIMULATE, "--level", "torch:steady", "--dtype", "float16"), "There is no dtype 'float16'. Did you mean 'float64'?"),
    ((*SIMULATE, "--codegen", "cyton"), "There is no codegen 'cyton'. Did you mean 'cython'?"),
    ((*SIMULATE, "--plasticity", "of"), "There is no plasticity 'of'. Did you mean 'off'?"),
    ((*SIMULATE, "--samples", "0"), "--samples 0: wanted between 1 and 1294"),
    ((*SIMULATE, "--samples", "2000"), "--samples 2000: wanted between 1 and 1294"),
    ((*SIMULATE, "--batch-size", "3"), "4 samples do not fill batches of 3"),
    ((*SIMULATE, "--batch-size", "0"), "batch_size = 0; wanted a whole number of at least 1"),
    ((*SIMULATE, "--seed", "-1"), "seed = -1; wanted a whole number of at least 0"),
    ((*SIMULATE, "--stride", "0"), "stride = 0; wanted a whole number of at least 1"),
    ((*SIMULATE, "--weights", "nowhere"), "'nowhere' is no run folder: it has no config.toml"),
    ((*COMPARE, "--levels", "brian2:dense", "torch:stedy"), "Did you mean 'torch:steady'?"),
    ((*COMPARE, "--record", "pyr1.rho"), "Did you mean 'rho_a'?"),
    ((*COMPARE, "--batch-size", "2"), "brian2:equations presents one sample at a time"),
    ((*TRAIN, "--epochs", "0"), "epochs = 0; wanted a whole number of at least 1"),
    ((*TRAIN, "--batch-size", "-2"), "batch_size = -2; wanted a whole number of at least 1"),
    ((*TRAIN, "--batch-size", "5000"), "batch_size = 5000 is larger than the 1294 training samples"),
    ((*TRAIN, "--samples", "0"), "limit = 0; wanted a whole number of at least 1"),
    ((*TRAIN, "--samples", "-5"), "limit = -5; wanted a whole number of at least 1"),
    ((*TRAIN, "--seed", "-1"), "seed = -1; wanted a whole number of at least 0"),
    ((*TRAIN, "--set", "seed=one"), "seed = 'one'; wanted a whole number"),
    ((*TRAIN, "--set", "epoch=3"), "of its schedule 'epoch'. Did you mean 'epochs'?"),
    ((*TRAIN, "--set", "learning_rat=3"), "Did you mean 'learning_rate'?"),
    ((*TRAIN, "--set", "learning_rate=fast"), "learning_rate = 'fast'; wanted a number of at least 0"),
    ((*TRAIN, "--set", "tolerance=1e999"), "tolerance = inf; wanted a number of at least 0"),
    ((*TRAIN, "--set", "dt=5"), "dt = 5; wanted a time above 0 with units"),
    ((*TRAIN, "--set", "optimiser=adm"), "There is no optimiser 'adm'. Did you mean 'adam'?"),
    ((*TRAIN, "--set", "optimise=feedforwad"), "Did you mean 'feedforward'?"),
    ((*TRAIN, "--set", "solver=sweep"), "Did you mean 'sweeps'?"),
    ((*TRAIN, "--level", "torch:stead"), "Did you mean 'torch:steady'?"),
    ((*TRAIN, "--level", "brian2:dense", "--set", "optimiser=adam"), "Use --set optimiser=none"),
    ((*TRAIN, "--level", "brian2:dense", "--dt", "100*ms"), "beyond the stability limit"),
    ((*TRAIN, "--level", "brian2:equations"), "brian2:equations presents one sample at a time"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=[" ".join(a) for a, _ in WRONG])
def test_bad_input(cli, tmp_path, arguments, message):
    code, out, err = cli(*arguments, "--out", tmp_path / "out")
    assert code == 1, out
    assert err.startswith("error: ")
    assert message in err
    assert not contents(tmp_path)


@pytest.mark.parametrize("arguments", [("simulate",), ("fly",), ("train", "ghost_units", "--epochs", "few"), ()])
def test_wrong_usage_is_two(cli, arguments):
    code, _, err = cli(*arguments)
    assert code == 2
    assert "usage: neurosim" in err


def test_missing_data_set(cli, tmp_path, monkeypatch):
    monkeypatch.delenv("NEUROSIM_DATA", raising=False)
    code, _, err = cli("train", "ghost_units", "--data", "mnist", "--out", tmp_path / "out")
    assert code == 1
    assert "--data-dir" in err and "NEUROSIM_DATA" in err


@pytest.mark.parametrize("command", ["simulate", "compare", "train"])
def test_nan_in_the_data(cli, tmp_path, monkeypatch, command):
    digits = data.load("digits")
    spoiled = digits.train_images.copy()
    spoiled[2, 5] = np.nan
    values = {**vars(digits), "train_images": spoiled}
    monkeypatch.setattr(data, "load", lambda *_: data.Dataset(**values))
    code, _, err = cli(command, "ghost_units", "--out", tmp_path / "out")
    assert code == 1
    assert "NaN or infinity" in err and "digits" in err
    assert not contents(tmp_path)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.ones(64), [1], "images have shape (64,); wanted (samples, pixels)"),
        (np.ones((2, 63)), [1, 2], "The images have 63 pixels"),
        (np.ones((0, 64)), [], "There are no samples"),
        (np.full((1, 64), np.inf), [1], "Image 0 holds NaN or infinity"),
        (np.ones((2, 64)), [1], "labels have shape (1,); wanted (2,)"),
        (np.ones((2, 64)), [1, 10], "labels run from 1 to 10"),
        (np.ones((2, 64)), [0.5, 1.0], "wanted whole numbers"),
        (np.ones((2, 64)), None, "labels are needed"),
    ],
)
def test_wrong_arrays_in_python(images, labels, message):
    with pytest.raises(NeurosimError) as error:
        neurosim.simulate(ghost_units.circuit(SIZES), images, labels)
    assert message in str(error.value)


def test_files_of_ones_own_that_fail(cli, tmp_path, model):
    def said(name):
        code, _, err = cli("describe", name)
        assert code == 1
        return err

    assert "There is no file 'nowhere.py'" in said("nowhere.py:circuit")
    assert "'circut'. Did you mean 'circuit'?" in said(f"{model}:circut")
    assert "cannot be built with its defaults: ZeroDivisionError" in said(f"{model}:failing")
    assert "returned None; wanted a neurosim.Circuit" in said(f"{model}:nothing")
    (tmp_path / "broken.py").write_text("def circuit(:\n")
    assert "broken.py' cannot be run: SyntaxError" in said(tmp_path / "broken.py")
    (tmp_path / "numpy.py").write_text(EXPLODING)  # a name that something else has
    assert cli("describe", tmp_path / "numpy.py")[0] == 0
    assert sys.modules["numpy"] is np


def test_the_unexpected_is_one_line_and_debug_shows_where(cli, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("no such luck")

    monkeypatch.setattr(neurosim, "simulate", fail)
    code, _, err = cli("simulate", "ghost_units", "--out", tmp_path / "a")
    assert code == 1
    assert err.strip() == "error: RuntimeError: no such luck (unexpected; --debug shows where)"
    code, _, err = cli("simulate", "ghost_units", "--out", tmp_path / "b", "--debug")
    assert code == 1
    assert "Traceback" in err and "in fail" in err


# ---------------------------------------------------------------- divergence keeps what was recorded


@pytest.mark.parametrize("level", EULER)
@pytest.mark.filterwarnings("ignore:overflow")
def test_divergence_names_the_place_and_keeps_the_traces(cli, tmp_path, model, level):
    code, _, err = cli("simulate", model, "--level", level, "--samples", "1", "--out", tmp_path / "out")
    assert code == 1
    assert f"{level}: 'bomb.u' is not finite at step" in err
    assert "phase 'storm'" in err
    assert f"What was recorded so far is in {tmp_path / 'out' / 'traces.h5'}" in err
    traces = Traces.load(tmp_path / "out" / "traces.h5")
    u, t = traces["bomb.u"][:, 0, 0], traces.time
    early = t < 10e-3
    # u = tan(t/tau) from 0; Euler's error at u' up to 3.4, dt = tau/100
    assert np.abs(u[early] - np.tan(t[early] / 10e-3)).max() < 0.05
    assert t[-1] >= np.pi / 2 * 10e-3
    assert not np.isfinite(u[-1])
    assert traces.phases[0].name == "calm"
    code, _, _ = cli("plot", tmp_path / "out" / "traces.h5")
    assert code == 0
    assert (tmp_path / "out" / "traces.png").read_bytes().startswith(PNG)


@pytest.mark.filterwarnings("ignore:overflow")
def test_divergence_in_compare_keeps_the_traces_too(cli, tmp_path, model):
    code, _, err = cli(
        "compare", model, "--levels", "torch:trajectory", "brian2:dense", "--samples", "1", "--out", tmp_path / "o"
    )
    assert code == 1
    assert "'bomb.u' is not finite" in err
    assert len(Traces.load(tmp_path / "o" / "traces.h5").time) > 100


# ---------------------------------------------------------------- output folders


@pytest.mark.parametrize("command", ["simulate", "compare", "train"])
def test_a_folder_that_is_not_empty_is_refused(cli, tmp_path, command):
    (tmp_path / "precious.txt").write_text("years of work")
    code, _, err = cli(command, "ghost_units", "--out", tmp_path)
    assert code == 1
    assert f"The folder '{tmp_path}' is not empty; give another --out, or --overwrite." in err
    assert contents(tmp_path) == {"precious.txt": b"years of work"}


def test_overwrite_leaves_other_files_and_no_stale_result(cli, tmp_path, monkeypatch):
    (tmp_path / "precious.txt").write_text("years of work")
    arguments = ("train", "ghost_units", *SMALL, "--samples", "64", "--out", tmp_path, "--overwrite")
    assert cli(*arguments, "--epochs", "1")[0] == 0
    assert (tmp_path / "result.json").exists()
    monkeypatch.setattr(training.Trainer, "epoch", interrupted_after(1, training.Trainer.epoch))
    assert cli(*arguments, "--epochs", "3")[0] == 130
    run = neurosim.load(tmp_path)
    assert (len(run.metrics), run.result) == (1, {})
    assert (tmp_path / "precious.txt").read_text() == "years of work"


def test_out_that_is_no_folder(cli, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = cli("simulate", "ghost_units", "--out", tmp_path / "file")
    assert (code, "is a file; give a folder" in err) == (1, True)
    code, _, err = cli("simulate", "ghost_units", "--out", tmp_path / "file" / "below")
    assert (code, "cannot be made: Not a directory; give another one" in err) == (1, True)
    code, _, err = cli("simulate", "ghost_units", "--out", "/proc/neurosim")
    assert (code, "The folder '/proc/neurosim' cannot be made" in err) == (1, True)


def test_read_only_is_told_before_the_run(cli, tmp_path, monkeypatch):
    monkeypatch.setattr(neurosim, "simulate", lambda *_, **__: pytest.fail("ran before looking at the folder"))
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode, **k: mode != os.W_OK and real(path, mode, **k))
    code, _, err = cli("simulate", "ghost_units", "--out", tmp_path)
    assert code == 1
    assert "cannot be written to (read-only, or no permission)" in err


SHORT = ("--level", "torch:trajectory", "--dt", "1*ms", "--samples", "1", "--overwrite")


def test_a_write_that_fails_half_way_leaves_the_earlier_file(cli, tmp_path):
    assert cli("simulate", "ghost_units", *SMALL, *SHORT, "--out", tmp_path)[0] == 0
    before = contents(tmp_path)
    with largest_file(4096):
        code, _, err = cli("simulate", "ghost_units", *SMALL, *SHORT, "--seed", "5", "--out", tmp_path)
    assert code == 1
    assert err.strip().splitlines()[-1] == (
        f"error: Cannot record to '{tmp_path / 'traces.h5'}': File too large. Free some space, or give another path. The same "
        "command with --overwrite runs it again."
    )
    assert contents(tmp_path) == before


@pytest.mark.parametrize("size", [100, 2048])
def test_training_that_cannot_write(cli, tmp_path, size):
    """The limit strikes the configuration (100 bytes) or the first weights (2048)."""
    with largest_file(size):
        code, _, err = cli("train", "ghost_units", *SMALL, "--samples", "64", "--epochs", "1", "--out", tmp_path)
    assert code == 1
    assert "error: File too large" in err
    assert not list(tmp_path.glob("*.part"))


def test_a_disk_that_fills_in_training_keeps_the_epochs_so_far(cli, tmp_path, monkeypatch):
    real, calls = training.save_weights, []

    def full(folder, weights):
        calls.append(folder)
        if len(calls) == 3:  # after epoch 3
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(folder, weights)

    monkeypatch.setattr(training, "save_weights", full)
    code, _, err = cli("train", "ghost_units", *SMALL, "--samples", "64", "--epochs", "5", "--out", tmp_path)
    assert code == 1
    assert "The disk is full" in err
    assert f"Metrics and weights of the epochs that ended are kept in {tmp_path}" in err
    assert [row["epoch"] for row in neurosim.load(tmp_path).metrics] == [1, 2]


# ---------------------------------------------------------------- Ctrl-C


def interrupted_after(epochs: int, epoch):
    def run(self, number, bar=None, between=None):
        if number > epochs:
            raise KeyboardInterrupt
        return epoch(self, number, bar, between)

    return run


def test_interrupted_training_equals_a_shorter_one(cli, tmp_path, monkeypatch):
    """Weights after Ctrl-C in epoch 3 are those of a run of two epochs."""
    arguments = ("train", "ghost_units", *SMALL, "--samples", "64")
    assert cli(*arguments, "--epochs", "2", "--out", tmp_path / "short")[0] == 0
    monkeypatch.setattr(training.Trainer, "epoch", interrupted_after(2, training.Trainer.epoch))
    code, _, err = cli(*arguments, "--epochs", "9", "--out", tmp_path / "long")
    assert code == 130
    assert f"Stopped by Ctrl-C. Metrics and weights of the epochs that ended are kept in {tmp_path / 'long'}" in err
    short, long = neurosim.load(tmp_path / "short"), neurosim.load(tmp_path / "long")
    assert len(long.metrics) == 2
    for name, value in short.weights.items():
        np.testing.assert_array_equal(long.weights[name], value)


@pytest.mark.parametrize("level", ["torch:steady", pytest.param("brian2:dense", marks=pytest.mark.slow)])
def test_ctrl_c_in_a_real_process(tmp_path, level):
    out = tmp_path / "run"
    arguments = [*SMALL, "--samples", "64", "--batch-size", "8", "--epochs", "10000", "--level", level]
    command = [sys.executable, "-m", "neurosim", "train", "ghost_units", *arguments, "--out", str(out)]
    # A test run in the background may ignore SIGINT, and children inherit that.
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    try:
        started = time.monotonic()
        while not (out / "metrics.jsonl").exists() or not (out / "metrics.jsonl").read_text():
            assert process.poll() is None and time.monotonic() - started < 120
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert (
        f"Stopped by Ctrl-C. Metrics and weights of the epochs that ended are kept in {out}; `neurosim train --resume {out}` goes on."
        in err
    )
    assert "Traceback" not in err
    run = neurosim.load(out)
    assert len(run.metrics) >= 1
    assert run.weights["W1"].shape == (64, 8)
    assert run.result == {}


# ---------------------------------------------------------------- damaged run folders


def damaged(trained: Path, folder: Path, name: str, change) -> Path:
    folder.mkdir()
    for file, content in contents(trained).items():
        (folder / file).write_bytes(change(content) if file == name else content)
    return folder


DAMAGE = [
    ("weights.safetensors", lambda b: b[:-100], "is truncated or no weights file"),
    ("weights.safetensors", lambda b: b[:4], "is truncated or no weights file"),
    ("weights.safetensors", lambda b: b"", "is truncated or no weights file"),
    ("config.toml", lambda b: b.replace(b"epochs", b"epoch"), "'epoch'. Did you mean 'epochs'?"),
    ("config.toml", lambda b: b[: b.index(b"ghost_units") + 3], "config.toml' is damaged"),
    ("config.toml", lambda b: b"\xff\xfe", "config.toml' is damaged"),
    ("config.toml", lambda b: b.replace(b'model = "ghost_units"', b""), "names no model"),
    ("config.toml", lambda b: b.replace(b"epochs = 8", b'epochs = "8"'), "epochs = '8'; wanted a whole number"),
    ("config.toml", lambda b: b.replace(b"eta = 0.1", b"etta = 0.1"), "'etta'. Did you mean 'eta'?"),
    ("config.toml", lambda b: b.replace(b"    16,\n", b"    9,\n"), "Weights of 'W1' have shape (64, 16); wanted (64, 9)"),
    ("result.json", lambda b: b[:10], "result.json' is damaged"),
    ("metrics.jsonl", lambda b: b[5:], "metrics.jsonl' is damaged"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change", "message"), DAMAGE)
def test_damaged_run_folders(cli, tmp_path, trained, name, change, message):
    folder = damaged(trained, tmp_path / "run", name, change)
    code, _, err = cli("simulate", "ghost_units", "--weights", folder, "--out", tmp_path / "out")
    assert code == 1
    assert message in err


def test_a_cut_off_last_line_of_metrics_is_left_out(tmp_path, trained):
    folder = damaged(trained, tmp_path / "run", "metrics.jsonl", lambda b: b[:-20])
    assert neurosim.load(folder).metrics == neurosim.load(trained).metrics[:-1]


# ---------------------------------------------------------------- plot


def test_plot_draws_learning_curves_and_traces(cli, tmp_path, trained):
    assert cli("plot", trained, "--to", tmp_path / "curves.svg")[0] == 0
    assert b"<svg" in (tmp_path / "curves.svg").read_bytes()
    assert cli("simulate", "ghost_units", *SMALL, *SHORT, "--out", tmp_path / "t")[0] == 0
    code, _, _ = cli("plot", tmp_path / "t", "--record", "pyr1.u", "--cells", "0", "2", "--to", tmp_path / "t.pdf")
    assert code == 0
    assert (tmp_path / "t.pdf").read_bytes().startswith(b"%PDF")


def test_plot_refuses(cli, tmp_path, trained):
    def said(*arguments):
        code, _, err = cli("plot", *arguments)
        assert code == 1
        return err

    assert "There is no 'nowhere'" in said("nowhere")
    assert cli("simulate", "ghost_units", *SMALL, *SHORT, "--out", tmp_path / "t")[0] == 0
    assert "There is no recorded variable 'pyr1.v'. Did you mean 'pyr1.u'?" in said(
        tmp_path / "t", "--record", "pyr1.v", "--overwrite"
    )
    (tmp_path / "t.h5").write_bytes((tmp_path / "t" / "traces.h5").read_bytes()[:1000])
    assert "is no HDF5 file, or it is truncated" in said(tmp_path / "t.h5")
    unfinished = damaged(trained, tmp_path / "unfinished", "metrics.jsonl", lambda b: b"")
    assert "The run 'unfinished' has no epoch that ended" in said(unfinished)


# ---------------------------------------------------------------- number of threads


def test_results_do_not_depend_on_torch_threads(tmp_path, cli):
    """What other tests lean on when they set one thread."""
    weights = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            out = tmp_path / str(threads)
            cli("train", "ghost_units", *SMALL, "--samples", "64", "--epochs", "1", "--out", out)
        finally:
            torch.set_num_threads(1)
        weights.append(neurosim.load(out).weights)
    for name, value in weights[0].items():
        np.testing.assert_allclose(weights[1][name], value, atol=1e-6)
