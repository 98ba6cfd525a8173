"""Training: configuration, update transforms, the loop on every level, saved runs.

Oracles: a transform's closed form; gradient and feedback alignment of a net written out in NumPy; one level against another; one
run against the same run again.
"""

from __future__ import annotations

import fcntl
import json
import re
import sys
from typing import Any

import numpy as np
import pytest
import torch

import neurosim
from neurosim import data, registry
from neurosim.cli import main
from neurosim.errors import DivergenceError, NeurosimError
from neurosim.files import LOCK
from neurosim.models import ghost_units
from neurosim.training import TrainConfig, Trainer, load, resolve, resume, train
from neurosim.training.config import read_toml
from neurosim.training.optimisers import Transform
from neurosim.training.run import accuracy_text, save_weights
from neurosim.training.start import start
from tests.oracles import ghost_units as oracle

KEYS = [
    "epoch", "train_loss", "validation_loss", "train_accuracy", "validation_accuracy", "ghost_residual", "unsettled", "unstable",
]  # fmt: skip
SIZES = (64, 8, 10)
SMALL = {"sizes": SIZES, "t_free": "30*ms", "t_nudged": "30*ms"}

#: A linear delta-rule neuron. With a large eta its weights grow without bound.
DELTA = '''
from neurosim import SOURCE, Cell, Circuit, Constant, Phase, PlasticityRule, Population, Projection, Protocol, Readout


def circuit(eta=1.0):
    cell = Cell("linear", """
        du/dt = (-u + I)/tau : 1
        r = u : 1
        error = y - u : 1
        I : 1 (port)
        y : 1 (input)
    """, {"tau": "10*ms"})
    rule = PlasticityRule("delta", "dw/dt = eta/T*error_post*r_pre", {"eta": eta, "T": "20*ms"})
    phases = (Phase("free", "60*ms"), Phase("learn", "20*ms", plastic=("delta",)))
    return Circuit(
        "delta", [Population("inp", 64, SOURCE), Population("out", 10, cell), Projection("W", "inp", "out.I", Constant(0), rule)],
        Protocol(phases, {"inp.r": "image", "out.y": "target"}), readout=Readout("out.r", "free"),
    )
'''


@pytest.fixture
def delta(tmp_path) -> str:
    path = tmp_path / "delta.py"
    path.write_text(DELTA)
    return f"{path}:circuit"


def short(folder=None, settings=SMALL, **schedule) -> Any:
    values = {"epochs": 2, "limit": 64, "progress": False, **schedule}
    return train("ghost_units", folder, settings=settings, **values)


# ---------------------------------------------------------------- configuration


def test_resolve_puts_settings_and_schedule_in_their_places():
    given = {"eta": 1.0, "learning_rate": 0.1, "optimise": "feedforward,ghost", "mode": "learned", "epochs": 7}
    config = resolve("ghost_units", given, seed=4, batch_size=None)
    assert (config.learning_rate, config.epochs, config.seed, config.batch_size) == (0.1, 7, 4, 32)
    assert config.optimise == ("feedforward", "ghost")
    assert (config.settings["eta"], config.settings["mode"]) == (1.0, "learned")
    assert config.settings["sizes"] == (64, 64, 32, 10)  # resolved: defaults are written down


def test_the_preset_of_a_data_set_gives_way_to_settings():
    preset = registry.model("ghost_units").preset({}, "mnist")
    config = resolve("ghost_units", data="mnist")
    assert (config.settings["sizes"], config.batch_size) == (preset["sizes"], preset["batch_size"])
    assert resolve("ghost_units", {"sizes": (784, 9, 10)}, data="mnist").settings["sizes"] == (784, 9, 10)


def test_levels_bring_their_defaults():
    assert (resolve("ghost_units").dtype, resolve("ghost_units").optimiser) == ("float32", "adam")
    dense = resolve("ghost_units", level="brian2:dense")
    assert (dense.dtype, dense.optimiser) == ("float64", "none")
    assert resolve("ghost_units", {"level": "torch:trajectory"}).optimiser == "none"


@pytest.mark.parametrize(("key", "nearest"), [("epoch", "epochs"), ("betta", "beta"), ("optimizer", "optimiser")])
def test_an_unknown_setting_suggests_the_nearest(key, nearest):
    with pytest.raises(NeurosimError, match=f"'{key}'. Did you mean '{nearest}'"):
        resolve("ghost_units", {key: 1})


def test_a_configuration_survives_its_file(tmp_path):
    settings = {"sizes": (64, 8, 10), "mode": "exact", "eta": 1e-7, "flag": True, "text": 'a "quoted" \\ é 🧠'}
    config = TrainConfig("mödel.py:circuit", settings, limit=10, optimise=("a", "b"), learning_rate=1e-5)
    (tmp_path / "config.toml").write_text(config.to_toml(), encoding="utf-8")
    assert TrainConfig.from_toml(tmp_path / "config.toml") == config


def test_an_unknown_key_of_a_file_suggests_the_nearest(tmp_path):
    (tmp_path / "config.toml").write_text('model = "ghost_units"\nbatchsize = 3\n')
    with pytest.raises(NeurosimError, match=r"'batchsize'. Did you mean 'batch_size'"):
        TrainConfig.from_toml(tmp_path / "config.toml")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": True}, "epochs = True; wanted a whole number of at least 1"),
        ({"batch_size": 1.5}, "batch_size = 1.5; wanted a whole number"),
        ({"max_sweeps": 0}, "max_sweeps = 0; wanted a whole number of at least 1"),
        ({"decay": float("nan")}, "decay = nan; wanted a number of at least 0"),
        ({"learning_rate": -0.1}, "learning_rate = -0.1; wanted a number of at least 0"),
        ({"level": None}, "level = None; wanted one of brian2:equations"),
        ({"method": "backprob"}, "Did you mean 'backprop'"),
    ],
)
def test_values_of_a_wrong_kind(values, message):
    with pytest.raises(NeurosimError) as error:
        TrainConfig("ghost_units", **values)
    assert message in str(error.value)


# ---------------------------------------------------------------- update transforms


def transformed(optimiser: str, steps: int, **values):
    """Weights a (named) and b (not named) after `steps` equal changes, each followed by the end of an epoch."""
    config = TrainConfig("m", optimiser=optimiser, **values)
    weights = {n: torch.zeros(2, 3, dtype=torch.float64) for n in "ab"}
    change = torch.tensor([[1.0, -2.0, 0.5], [3.0, -0.1, 4.0]], dtype=torch.float64)
    transform = Transform(config, weights, {"a": "feedforward"})
    for epoch in range(1, steps + 1):
        transform.begin_epoch(epoch)
        for name, weight in weights.items():  # as the steady level does
            rate = transform.rate(name)
            if rate is None:
                transform({name: change.clone()})
            else:
                weight += rate * change
    return weights["a"].numpy(), weights["b"].numpy(), change.numpy()


def test_sgd_adds_the_rate_times_the_change():
    """Closed form: rate c (1 + d + d^2) after three epochs with decay d; what is not named is added as it is."""
    a, b, change = transformed("sgd", 3, learning_rate=0.1, decay=0.5)
    np.testing.assert_allclose(a, 0.1 * change * (1 + 0.5 + 0.25), rtol=1e-14)
    np.testing.assert_allclose(b, 3 * change, rtol=1e-14)


def test_final_decay_takes_over():
    """Closed form: rates c (1 + d + f^2 + f^3) where d is the decay of the first two epochs and f the final one."""
    a, _, change = transformed("sgd", 4, learning_rate=0.1, decay=0.5, final_after=2, final_decay=0.2)
    np.testing.assert_allclose(a, 0.1 * change * (1 + 0.5 + 0.2**2 + 0.2**3), rtol=1e-14)


def test_adam_moves_by_the_rate_along_the_sign():
    """Kingma & Ba: with a constant change both corrected moments are constant, so each step is rate c/(|c| + eps)."""
    a, _, change = transformed("adam", 4, learning_rate=0.01)
    np.testing.assert_allclose(a, 4 * 0.01 * change / (np.abs(change) + 1e-8), rtol=1e-9)


def test_no_transform_is_sgd_with_rate_one():
    """Theorem: `none` adds the changes during the trial, `sgd` with rate 1 after it; each W learns in the last phase only."""
    settings = {**SMALL, "eta": 1.0}
    common = {"dtype": "float64", "tolerance": 1e-12, "max_sweeps": 200}
    weights = []
    for transform in ({"optimiser": "none"}, {"optimiser": "sgd", "learning_rate": 1.0}):
        trainer = Trainer(resolve("ghost_units", settings, limit=64, **common, **transform), progress=False)
        trainer.epoch(1)
        weights.append(trainer.engine.weights())
    for name, value in weights[0].items():
        np.testing.assert_allclose(weights[1][name], value, atol=1e-9)


# ---------------------------------------------------------------- plain references


def one_batch(method: str):
    """Weights before and after one update of one batch (sgd, rate 1), with its images and targets."""
    config = resolve(
        "ghost_units", {"sizes": (64, 12, 9, 10)}, method=method, optimiser="sgd", learning_rate=1.0, dtype="float64", limit=16,
        batch_size=16, seed=3,
    )  # fmt: skip
    trainer = Trainer(config, progress=False)
    before = trainer.engine.weights()
    trainer.epoch(1)
    digits = data.load("digits")
    return before, trainer.engine.weights(), digits.train_images[:16], np.eye(10)[digits.train_labels[:16]]


def test_backprop_steps_along_minus_the_gradient():
    before, after, images, targets = one_batch("backprop")
    W, b = [before[f"W{l}"] for l in (1, 2, 3)], [before[f"b{l}"][0] for l in (1, 2, 3)]
    gradient: Any = oracle.gradient(W, b, images, targets, "logistic")
    dW, db = gradient
    for l in (1, 2, 3):
        np.testing.assert_allclose(after[f"W{l}"] - before[f"W{l}"], -dW[l - 1], atol=1e-12)
        np.testing.assert_allclose((after[f"b{l}"] - before[f"b{l}"])[0], -db[l - 1], atol=1e-12)
        assert np.abs(dW[l - 1]).max() > 1e-5


def test_feedback_alignment_reads_other_weights_backwards():
    """Lillicrap et al. 2016: delta_l = (delta_{l+1} B_l^T) rho'(a_l) with fixed random B (drawn with seed + 1,000,000)."""
    before, after, images, targets = one_batch("feedback_alignment")
    fixed = ghost_units.circuit((64, 12, 9, 10)).initial_weights(1_000_003)
    rates = [images]
    for l in (1, 2, 3):
        rates.append(1 / (1 + np.exp(-(rates[-1] @ before[f"W{l}"] + before[f"b{l}"]))))
    delta = (targets - rates[3]) * rates[3] * (1 - rates[3])
    for l in (3, 2, 1):
        np.testing.assert_allclose(after[f"W{l}"] - before[f"W{l}"], rates[l - 1].T @ delta / 16, atol=1e-12)
        delta = (delta @ fixed[f"W{l}"].T) * rates[l - 1] * (1 - rates[l - 1])


# ---------------------------------------------------------------- the loop


def test_metrics_are_as_promised(tmp_path):
    run = short(tmp_path / "run", epochs=3)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [list(json.loads(line)) for line in lines] == [KEYS] * 3
    for number, row in enumerate(run.metrics, start=1):
        assert row["epoch"] == number
        assert 0 <= row["train_accuracy"] <= 1 and 0 <= row["validation_accuracy"] <= 1
        assert row["unsettled"] == 0
    timing = [json.loads(line) for line in (tmp_path / "run" / "timing.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in timing] == [1, 2, 3]
    for row in timing:
        assert row["seconds"] > 0
        assert row["samples_per_second"] == pytest.approx(64 / row["seconds"])
    assert run.result["validation_accuracy"] == run.metrics[-1]["validation_accuracy"]


def test_two_runs_of_one_seed_are_equal_and_another_seed_differs(tmp_path):
    runs = [short(tmp_path / str(k), seed=seed) for k, seed in enumerate((5, 5, 6))]
    rows = [run.metrics for run in runs]
    assert rows[0] == rows[1]
    assert rows[0] != rows[2]
    for name, value in runs[0].weights.items():
        np.testing.assert_array_equal(runs[1].weights[name], value)
    assert not np.array_equal(runs[0].weights["W1"], runs[2].weights["W1"])
    assert runs[0].result["test_accuracy"] == runs[1].result["test_accuracy"]


def test_accuracies_are_those_of_the_forward_pass(tmp_path):
    """Validation and test accuracy of tied ghosts; 143 and 360 samples do not fill batches of 32."""
    run = short(tmp_path, {"sizes": (64, 16, 10)}, epochs=6, limit=640, learning_rate=0.02)
    W, b = [run.weights["W1"], run.weights["W2"]], [run.weights["b1"][0], run.weights["b2"][0]]
    digits = data.load("digits")
    for split, got in (
        ("validation", run.metrics[-1]["validation_accuracy"]), ("test", run.result["test_accuracy"])
    ):  # fmt: skip
        images, labels = digits.split(split)
        _, rates = oracle.forward(W, b, images, "logistic")
        assert got == pytest.approx((rates[-1].argmax(1) == labels).mean(), abs=1e-12)
        if split == "validation":
            loss = 0.5 * ((np.eye(10)[labels] - rates[-1]) ** 2).sum(1).mean()
            assert run.metrics[-1]["validation_loss"] == pytest.approx(loss, rel=1e-5)
    assert run.result["test_accuracy"] > 0.5


def test_an_incomplete_batch_is_left_out_and_orders_differ_by_epoch():
    trainer = Trainer(resolve("ghost_units", SMALL, limit=70, batch_size=32, seed=1), progress=False)
    seen = []
    present = trainer.engine.present

    def listen(fields, **options):
        seen.append(fields["image"].numpy().copy())
        return present(fields, **options)

    trainer.engine.present = listen
    assert trainer.epoch(1)["samples"] == 64
    assert trainer.epoch(2)["samples"] == 64
    first, second = np.concatenate(seen[:2]), np.concatenate(seen[2:])
    assert not np.array_equal(first, second)
    known = {row.tobytes() for row in data.load("digits").train_images[:70].astype(np.float32)}
    assert {row.tobytes() for row in first} <= known


@pytest.mark.parametrize(
    ("mode", "low", "high"), [("exact", 0, 1e-6), ("none", 1 - 1e-6, 1 + 1e-6), ("learned", 0.05, 10)]
)
def test_ghost_residual(mode, low, high):
    """What the ghosts leave of the feedback: nothing when tied, all of it without ghosts."""
    trainer = Trainer(resolve("ghost_units", {"sizes": SIZES, "mode": mode}), progress=False)
    assert low <= trainer.evaluate("validation", measures=True)["ghost_residual"] <= high


def test_a_plain_reference_has_no_residual_and_is_named_in_the_result(tmp_path):
    run = short(tmp_path, method="backprop", epochs=1)
    assert run.metrics[0]["ghost_residual"] is None
    assert run.result["level"] == "backprop"


def test_weights_to_start_from():
    start = ghost_units.circuit(**SMALL).initial_weights(9)
    trainer = Trainer(
        resolve("ghost_units", SMALL, dtype="float64", learning_rate=0, limit=64), weights=start, progress=False
    )
    trainer.epoch(1)  # a rate of 0: the weights stay
    for name, value in trainer.engine.weights().items():
        np.testing.assert_array_equal(value, start[name])


def test_training_goes_on_from_a_run(tmp_path):
    first = short(tmp_path / "first", epochs=1)
    again = short(tmp_path / "again", epochs=1, weights=first.weights, learning_rate=0)
    for name, value in first.weights.items():
        np.testing.assert_array_equal(again.weights[name], value)


@pytest.mark.filterwarnings("ignore:invalid value")
def test_the_delta_rule_learns_and_a_large_rate_diverges(tmp_path, delta):
    """Least mean squares: stable for eta |x|^2 < 2 (about 15 for the digits), exponential growth far above."""
    run: Any = train(
        delta, tmp_path / "fine", settings={"eta": 0.05}, optimiser="none", epochs=3, batch_size=8, progress=False
    )
    assert run.result["test_accuracy"] > 0.8
    for level in ("torch:steady", "torch:trajectory", "brian2:dense"):
        folder = tmp_path / level
        with pytest.raises(NeurosimError, match=r"'out\.u' is not finite") as error:
            train(
                delta, folder, settings={"eta": 1e30}, level=level, optimiser="none", dtype="float64", batch_size=1,
                limit=100, progress=False,
            )  # fmt: skip
        assert isinstance(error.value.__cause__, DivergenceError)
        assert f"Metrics and weights of the last whole epoch are kept in {folder}" in str(error.value)
        assert load(folder).metrics == []
        np.testing.assert_array_equal(load(folder).weights["W"], np.zeros((64, 10)))


def test_a_circuit_without_readout_cannot_be_trained(tmp_path):
    path = tmp_path / "silent.py"
    path.write_text(DELTA.replace(', readout=Readout("out.r", "free"),', ","))
    with pytest.raises(NeurosimError, match="names no readout"):
        train(f"{path}:circuit", progress=False)


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = short(epochs=1)
    assert 0 <= result["test_accuracy"] <= 1
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- levels


def patterns(level: str, count: int, batch: int, **settings):
    times = {"t_free": "20*ms", "t_nudged": "20*ms", "t_learn": "10*ms", "dt": "2*ms"}
    values = {"sizes": (64, 12, 10), "eta": 1.0, **times, **settings}
    config = resolve("ghost_units", values, level=level, dtype="float64", batch_size=batch, limit=count, seed=1)
    trainer = Trainer(config, progress=False)
    before = trainer.engine.weights()
    row = trainer.epoch(1)
    return before, trainer.engine.weights(), row


@pytest.mark.parametrize("mode", ["exact", pytest.param("learned", marks=pytest.mark.slow)])
def test_300_patterns_one_by_one_inside_brian2_equal_the_trajectory_level(mode):
    settings = {"mode": mode}
    before, dense, first = patterns("brian2:dense", 300, 1, **settings)
    _, trajectory, second = patterns("torch:trajectory", 300, 1, **settings)
    for name, value in dense.items():
        assert np.abs(value - trajectory[name]).max() < 1e-9, name
    assert np.abs(dense["W1"] - before["W1"]).max() > 0.1  # it has learned
    assert first == pytest.approx(second, abs=1e-9)


@pytest.mark.slow
def test_patterns_inside_pure_brian2_equal_the_trajectory_level():
    before, equations, first = patterns("brian2:equations", 60, 1)
    _, trajectory, second = patterns("torch:trajectory", 60, 1)
    for name, value in equations.items():
        assert np.abs(value - trajectory[name]).max() < 1e-9, name
    assert np.abs(equations["W1"] - before["W1"]).max() > 0.01
    assert first == pytest.approx(second, abs=1e-9)


def test_whole_runs_on_the_trajectory_levels_are_equal(tmp_path):
    """Metrics and weights of a run of one epoch; 60 samples in batches of 20."""
    runs = {}
    for level in ("brian2:dense", "torch:trajectory"):
        schedule = {"level": level, "dtype": "float64", "epochs": 1, "batch_size": 20, "limit": 60}
        runs[level] = short(tmp_path / level, {**SMALL, "eta": 1.0}, **schedule)
        assert runs[level].result["level"] == level
    dense, trajectory = runs.values()
    for name, value in dense.weights.items():
        assert np.abs(value - trajectory.weights[name]).max() < 1e-9, name
    for key in KEYS[:-2]:
        assert dense.metrics[0][key] == pytest.approx(trajectory.metrics[0][key], abs=1e-9), key
    assert dense.result["test_accuracy"] == trajectory.result["test_accuracy"]


# ---------------------------------------------------------------- saved runs


def test_weights_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    save_weights(tmp_path, {"W": np.ones((2, 2))})
    before = (tmp_path / "weights.safetensors").read_bytes()

    def stopped(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", stopped)
        with pytest.raises(KeyboardInterrupt):
            save_weights(tmp_path, {"W": np.zeros((2, 2))})
    assert [p.name for p in tmp_path.iterdir()] == ["weights.safetensors"]
    assert (tmp_path / "weights.safetensors").read_bytes() == before


def test_a_transposed_view_is_saved_as_it_reads(tmp_path):
    """safetensors writes memory as it lies; weights may be views."""
    run = short(tmp_path, epochs=1)
    value = np.arange(12.0).reshape(3, 4).T
    save_weights(tmp_path, {**run.weights, "extra": value})
    np.testing.assert_array_equal(neurosim.load(tmp_path).weights["extra"], value)


def test_no_run_folder(tmp_path):
    with pytest.raises(NeurosimError, match=r"is no run folder: it has no config\.toml"):
        load(tmp_path)


# ---------------------------------------------------------------- slow: whole trainings


@pytest.mark.slow
def test_exact_ghosts_reach_96_percent_on_the_digits(record_property):
    runs: list[Any] = [train("ghost_units", seed=seed, progress=False) for seed in range(5)]
    accuracies = [run["test_accuracy"] for run in runs]
    record_property("test_accuracies", accuracies)
    print(f"test accuracies {accuracies}, mean {np.mean(accuracies):.4f}")
    assert np.mean(accuracies) >= 0.96


@pytest.mark.slow
def test_the_digits_wholly_inside_brian2_are_as_good_as_on_the_steady_level(record_property):
    """Equal updates: no transform, eta 1, batches of 32, 20 epochs, dt 1 ms; within 1.5 points of test accuracy."""
    accuracies = {}
    for level in ("brian2:dense", "torch:steady"):
        schedule = {
            "level": level,
            "optimiser": "none",
            "batch_size": 32,
            "epochs": 20,
            "dt": "1*ms",
            "dtype": "float64",
        }
        result: Any = train("ghost_units", settings={"eta": 1.0}, progress=False, **schedule)
        accuracies[level] = result["test_accuracy"]
        print(f"{level}: test accuracy {result['test_accuracy']:.4f} in {result['seconds']:.0f} s")
    record_property("test_accuracies", accuracies)
    assert abs(accuracies["brian2:dense"] - accuracies["torch:steady"]) <= 0.015
    assert accuracies["torch:steady"] > 0.9


# ---------------------------------------------------------------- experiment files


def test_a_file_gives_way_to_the_command_line(tmp_path, capsys):
    """Keys of the file, then options, then --set; the resolved file is itself an experiment file that names the same run."""
    path = tmp_path / "experiment.toml"
    path.write_text(
        'model = "ghost_units"\nepochs = 9\nlimit = 64\nlearning_rate = 0.5\nseed = 7\n[settings]\nsizes = [64, 8, 10]\neta = 0.3\n'
    )
    arguments = ["--epochs", "1", "--set", "learning_rate=0.25", "--set", "eta=0.2"]
    assert main(["train", str(path), *arguments, "--out", str(tmp_path / "run")]) == 0
    config = load(tmp_path / "run").config
    assert (config.epochs, config.limit, config.learning_rate, config.seed) == (1, 64, 0.25, 7)
    assert (config.settings["sizes"], config.settings["eta"]) == ((64, 8, 10), 0.2)
    assert main(["train", str(tmp_path / "run" / "config.toml"), "--out", str(tmp_path / "again")]) == 0
    assert load(tmp_path / "again").config == config
    assert (tmp_path / "again" / "metrics.jsonl").read_bytes() == (tmp_path / "run" / "metrics.jsonl").read_bytes()
    origin = json.loads((tmp_path / "run" / "run.json").read_text())
    assert origin["command"] == f"neurosim train {path} {' '.join(arguments)} --out {tmp_path / 'run'}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('model = "ghost_units"\nepoch = 1', "'epoch'. Did you mean 'epochs'?"),
        ('model = "ghost_units"\n[settings]\nbetta = 1', "'betta'. Did you mean 'beta'?"),
        ('model = "ghost_unit"', "no model 'ghost_unit'. Did you mean 'ghost_units'?"),
        ("epochs = 1", "names no model"),
        ("epochs == 1", "is damaged"),
        ('model = "ghost_units"\nseeds = [0, 1]', "describes several runs (it has seeds): `neurosim sweep"),
    ],
)
def test_a_file_that_says_something_else_is_refused(tmp_path, capsys, text, message):
    (tmp_path / "experiment.toml").write_text(text)
    assert main(["train", str(tmp_path / "experiment.toml"), "--out", str(tmp_path / "run")]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_missing_file_and_no_model(tmp_path, capsys):
    assert main(["train", str(tmp_path / "none.toml")]) == 1
    assert "There is no file" in capsys.readouterr().err
    assert main(["train"]) == 1
    assert "Wanted a model, an experiment file, or --resume RUN_DIR" in capsys.readouterr().err
    assert main(["train", "ghost_units", "--resume", str(tmp_path)]) == 1
    assert "leave 'ghost_units' out" in capsys.readouterr().err


# ---------------------------------------------------------------- clipping, augmentation, the untouched test set


def test_clip_scales_all_changes_by_their_common_norm():
    """Closed form: norm of (3, 4) and (12) together is 13; clipped to 1.3 each is a tenth."""
    config = TrainConfig("m", optimiser="sgd", learning_rate=1.0, clip=1.3)
    weights = {name: torch.zeros(2, dtype=torch.float64) for name in "ab"}
    changes = {"a": [3.0, 4.0], "b": [12.0, 0.0]}
    transform = Transform(config, weights, dict.fromkeys("ab", "feedforward"))
    transform.begin_epoch(1)
    transform({name: torch.tensor(value, dtype=torch.float64) for name, value in changes.items()})
    np.testing.assert_allclose(weights["a"], [0.3, 0.4], rtol=1e-6)  # torch adds 1e-6 to the norm
    np.testing.assert_allclose(weights["b"], [1.2, 0.0], rtol=1e-6)


@pytest.mark.parametrize("values", [{"decay": 0.9}, {"clip": 1.0}, {"final_decay": 0.9, "final_after": 3}])
def test_what_belongs_to_a_transform_is_refused_without_one(values):
    with pytest.raises(NeurosimError, match="belong to an update transform"):
        resolve("ghost_units", optimiser="none", **values)


@pytest.mark.parametrize("level", ["torch:steady", "brian2:dense"])
def test_augmented_images_differ_from_epoch_to_epoch_and_not_from_run_to_run(level):
    """Recorded where the engine gets them; validation images are left alone."""

    def presented(**schedule):
        extra = {"epochs": 2, "limit": 64, "level": level, **schedule}
        trainer = Trainer(resolve("ghost_units", SMALL, **extra), progress=False)
        trainer.splits["validation"] = {k: v[:32] for k, v in trainer.splits["validation"].items()}
        seen, present = [], trainer.engine.present
        trainer.engine.present = lambda fields, **k: (
            seen.append(torch.as_tensor(fields["image"]).clone().numpy()),
            present(fields, **k),
        )[1]
        trainer.fit()
        chosen = [np.random.default_rng([0, 1, epoch]).permutation(64) for epoch in (1, 2)]
        images = np.concatenate(seen).reshape(2, 64, 64)
        plain = torch.as_tensor(trainer.splits["train"]["image"]).numpy()
        return [images[k][np.argsort(chosen[k])] for k in range(2)], plain

    (first, second), plain = presented(crop=1, flip=True)
    again, _ = presented(crop=1, flip=True)
    np.testing.assert_array_equal(first, again[0])
    np.testing.assert_array_equal(second, again[1])
    assert not np.array_equal(first, second)
    shifted = np.pad(plain.reshape(64, 8, 8), ((0, 0), (1, 1), (1, 1)))
    for image, candidate in zip(first.reshape(64, 8, 8), shifted, strict=True):
        windows = [candidate[a : a + 8, b : b + 8] for a in range(3) for b in range(3)]
        assert any(np.array_equal(image, w) or np.array_equal(image, w[:, ::-1]) for w in windows)
    (untouched, _), plain = presented()
    np.testing.assert_array_equal(untouched, plain)


def test_a_run_that_serves_a_choice_leaves_the_test_set_alone(tmp_path, monkeypatch):
    asked, real = [], Trainer.evaluate
    monkeypatch.setattr(Trainer, "evaluate", lambda self, split, **k: (asked.append(split), real(self, split, **k))[1])
    run = short(tmp_path / "run", test=False)
    assert asked == ["validation"] * 2
    assert "test_accuracy" not in run.result and 0 <= run.result["validation_accuracy"] <= 1


def test_states_that_outlive_a_trial_cannot_be_trained(tmp_path, delta):
    path = tmp_path / "kept.py"
    path.write_text(DELTA.replace('"out.y": "target"})', '"out.y": "target"}, reset=False)'))
    with pytest.raises(NeurosimError, match=r"outlive a trial .*needs reset = True"):
        train(f"{path}:circuit", limit=64, epochs=1, optimiser="none", progress=False)


# ---------------------------------------------------------------- what must not pass in silence


@pytest.mark.parametrize("method", ["backprop", "feedback_alignment", "direct_feedback_alignment"])
def test_a_reference_that_diverges_has_failed(tmp_path, method):
    schedule = {
        "method": method,
        "optimiser": "sgd",
        "learning_rate": 1e15,
        "epochs": 2,
        "limit": 64,
        "progress": False,
    }
    with pytest.raises(NeurosimError, match=f"net under {method} became NaN or infinite"):
        train("predictive_coding", tmp_path, settings={"sizes": (64, 16, 12, 10)}, **schedule)
    assert "became NaN or infinite" in json.loads((tmp_path / "result.json").read_text())["failed"]


@pytest.mark.parametrize("given", [{"level": "brian2:dense"}, {"optimiser": "none"}])
def test_a_reference_knows_no_level_and_needs_an_optimiser(given):
    with pytest.raises(NeurosimError, match="a reference net is plain torch"):
        resolve("ghost_units", method="backprop", **given)


def test_an_earlier_run_is_not_replaced_unasked(tmp_path):
    first = short(tmp_path, seed=1)
    with pytest.raises(NeurosimError, match="holds a run already; give another one, or overwrite=True"):
        short(tmp_path, seed=2)
    np.testing.assert_array_equal(load(tmp_path).weights["W1"], first.weights["W1"])
    assert short(tmp_path, seed=2, overwrite=True).config.seed == 2


def test_one_training_at_a_time_in_a_folder(tmp_path):
    """The lock is that of a process which trains there; here it is held as that process would."""
    short(tmp_path)
    (tmp_path / "result.json").unlink()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with open(tmp_path / LOCK, "w") as other:
        other.write("process 7 on saturn\n")
        other.flush()
        fcntl.flock(other, fcntl.LOCK_EX)
        for attempt in (lambda: resume(tmp_path, progress=False), lambda: short(tmp_path, overwrite=True)):
            with pytest.raises(NeurosimError, match="is being written by process 7 on saturn"):
                attempt()
    (tmp_path / LOCK).unlink()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert resume(tmp_path, progress=False).result["test_accuracy"] > 0


def test_weights_of_a_run_bring_its_normalisation(tmp_path, monkeypatch):
    """A net trained on normalised pixels is shown normalised pixels; digits have no published constants, so they are given some."""
    constants = ((0.5,), (0.25,))
    published = sys.modules["neurosim.data.normalise"]._PUBLISHED  # its name in the package is the function's
    monkeypatch.setitem(published, "digits", {"standard": constants})
    short(tmp_path / "run", normalise="standard", epochs=1)
    seen = []
    monkeypatch.setattr(neurosim, "simulate", lambda circuit, images, labels, **_: seen.append(images) or 1 / 0)
    assert main(["simulate", "ghost_units", "--weights", str(tmp_path / "run"), "--out", str(tmp_path / "out")]) == 1
    np.testing.assert_allclose(seen[0], (data.load("digits").test_images[:4] - 0.5) / 0.25)


# ---------------------------------------------------------------- all training images, collapse, measures


def test_hold_out_false_trains_on_all_and_follows_the_test_set(tmp_path):
    config = resolve("corinfomax", {"sizes": (64, 8, 10)}, epochs=2, hold_out=False)
    trainer = Trainer(config, progress=False)
    assert len(trainer.splits["train"]["image"]) == 1437  # 1294 and 143 held out
    run = start(config, tmp_path / "run", progress=False)
    assert [set(row) & {"test_accuracy", "validation_accuracy"} for row in run.metrics] == [{"test_accuracy"}] * 2
    assert run.result["test_accuracy"] == run.metrics[-1]["test_accuracy"]
    assert run.result["hold_out"] is False and "validation_accuracy" not in run.result
    assert "nothing held out for validation, last epoch" in accuracy_text(run.result)
    with pytest.raises(NeurosimError, match="wanted one of them"):
        resolve("corinfomax", hold_out=False, test=False)


def test_a_collapse_ends_the_run_as_failed(tmp_path, monkeypatch):
    accuracies = iter([0.5, 0.9, 0.65])
    epoch = Trainer.epoch
    monkeypatch.setattr(Trainer, "epoch", lambda self, *a: epoch(self, *a) | {"train_accuracy": next(accuracies)})
    config = resolve("corinfomax", {"sizes": (64, 8, 10)}, limit=40, epochs=3)
    with pytest.raises(NeurosimError, match=r"fell from 0.900 to 0.650 in epoch 3: the net collapsed.*lower them"):
        start(config, tmp_path / "run", progress=False)
    assert "collapsed" in json.loads((tmp_path / "run" / "result.json").read_text())["failed"]


def test_weights_that_lose_definiteness_end_the_run_by_name(tmp_path):
    """The published lateral rule has no denominator: at lam = 0.9 it breaks."""
    config = resolve("corinfomax", {"lam": 0.9, "lateral": "published"}, epochs=3)
    message = r"after \d+ sweeps.*B1 (hold NaN|are no longer).*lateral=woodbury, or lam nearer to 1"
    with pytest.raises(NeurosimError, match=message):
        start(config, tmp_path / "run", progress=False)


def test_a_lateral_share_beyond_its_limit_ends_the_run(tmp_path):
    """lam = 0.9: where rates never point B grows by 1/0.9 a batch, also in a form that stays definite."""
    config = resolve("corinfomax", {"lam": 0.9, "lateral": "rank_one"}, epochs=8)
    with pytest.raises(NeurosimError, match=r"lateral_share is .*, above 100\. B grows as lam\^-t.*lam nearer to 1"):
        start(config, tmp_path / "run", progress=False)


def test_measures_of_weights_and_of_silent_cells():
    """By NumPy from the weights, and from the rates of the free phase."""
    trainer = Trainer(resolve("corinfomax", {"sizes": (64, 8, 10)}, limit=40, epochs=1), progress=False)
    weights = trainer.engine.weights()
    weights["W2"][:, [3, 7]] = -1.0  # two cells that nothing drives
    trainer.engine.set_weights(weights)
    row = trainer.evaluate("validation", measures=True)
    assert row["silent_outputs"] >= 2
    measured = trainer.weight_measures()
    w, f = weights["W2"].ravel().astype(float), weights["F1"].T.ravel().astype(float)
    cosine = w @ f / np.sqrt((w @ w) * (f @ f))
    np.testing.assert_allclose(np.cos(np.radians(measured["angle_2"])), cosine, atol=1e-12)
    smallest = min(np.linalg.eigvals(weights["B2"].astype(float)).real)
    np.testing.assert_allclose(measured["smallest_eigenvalue_2"], smallest, atol=1e-7)


def test_the_residual_of_a_published_relaxation_is_told(tmp_path, capsys):
    assert main(["train", "corinfomax", "--set", "sizes=64,8,10", "--set", "limit=40", "--set", "epochs=1",
                 "--set", "init=published", "--seed", "7", "--out", str(tmp_path / "run")]) == 0  # fmt: skip
    said = capsys.readouterr()
    assert re.search(r"left by the published relaxation .*: \d\.\de-\d\d in free, \d\.\de-\d\d in nudged", said.out)
    row = load(tmp_path / "run").metrics[0]
    assert set(row["residual"]) == {"free", "nudged"} and 0 < row["residual"]["free"] < 0.1
    assert ("cells of pyr2.r are 0 for every sample" in said.err) == (row["silent_outputs"] > 0)


def test_none_wins_over_a_preset_also_from_the_file(tmp_path):
    """corinfomax's preset has collapse = 0.2: a run without it stays without it when its file is trained again."""
    for config in (resolve("corinfomax", collapse="none"), resolve("corinfomax", {"collapse": None})):
        assert config.collapse is None
        (tmp_path / "config.toml").write_text(config.to_toml())
        assert TrainConfig.from_toml(tmp_path / "config.toml") == config
        values = read_toml(tmp_path / "config.toml")
        assert resolve(values.pop("model"), values.pop("settings"), **values).collapse is None
    assert resolve("corinfomax").collapse == 0.2


def test_another_optimiser_does_not_take_the_presets_rate():
    """Rates of plain SGD (1.0) mean nothing to Adam, nor to a reference net."""
    assert resolve("corinfomax").learning_rate == 1.0
    assert resolve("corinfomax", optimiser="adam").learning_rate == TrainConfig("m").learning_rate
    backprop = resolve("corinfomax", method="backprop")
    assert (backprop.optimiser, backprop.learning_rate) == ("adam", TrainConfig("m").learning_rate)


def test_a_net_without_hidden_layer_trains():
    settings = {"sizes": (64, 10), "eta_ff": (0.7,), "eta_fb": ()}
    trainer = Trainer(resolve("corinfomax", settings, limit=40, epochs=1), progress=False)
    before = trainer.engine.weights()["W1"]
    trainer.epoch(1)
    assert np.abs(trainer.engine.weights()["W1"] - before).max() > 1e-3


def test_an_exact_rule_cannot_be_optimised():
    config = resolve("corinfomax", {"lateral": "woodbury", "sizes": (64, 8, 10)}, optimise=("lateral",), limit=40)
    with pytest.raises(NeurosimError, match="optimise names 'lateral', whose batch rule gives the weights of 'B1'"):
        Trainer(config, progress=False)
