"""What an update transform does with changes, which epoch's weights are tested, and losses of other readouts.

Oracles: torch.optim going down the gradient, recurrences written out in NumPy, the forward pass of a linear net.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from neurosim import data
from neurosim.cli import main
from neurosim.errors import NeurosimError
from neurosim.training import TrainConfig, Trainer, load, resolve, train
from neurosim.training.optimisers import Transform
from neurosim.training.run import accuracy_text
from neurosim.training.start import start
from neurosim.training.sweep import expand, folders
from neurosim.training.table import collect, markdown, summarise

#: Weights by name and shape; the forward net has a matrix and a bias, the feedback net a matrix and one-to-one weights.
SHAPES = {"U": (4, 3), "b": (1, 3), "V": (3, 5), "g": (6,)}
RULES = {"U": "feedforward", "b": "feedforward", "V": "feedback", "g": "feedback"}
BOTH = ("feedforward", "feedback")
PLASTIC = {"sizes": (64, 8, 10), "mode": "learned", "t_free": "30*ms", "t_nudged": "30*ms"}

#: A linear net of one layer that learns by the delta rule: digits, or the images themselves.
LINEAR = '''
from neurosim import SOURCE, Cell, Circuit, Constant, FeedForward, Phase, PlasticityRule, Population, Projection, Protocol, Readout

PRESET = {preset}


def circuit(eta=0.02):
    cell = Cell("linear", """
        du/dt = (-u + I)/tau : 1
        r = {rate} : 1
        error = y - u : 1
        I : 1 (port)
        y : 1 (input)
    """, {{"tau": "10*ms"}})
    rule = PlasticityRule("delta", "dw/dt = eta/T*error_post*r_pre", {{"eta": eta, "T": "20*ms"}})
    phases = (Phase("free", "60*ms"), Phase("learn", "20*ms", plastic=("delta",)))
    return Circuit(
        "linear",
        [Population("inp", 64, SOURCE), Population("out", {cells}, cell), Projection("W", "inp", "out.I", Constant(0.01), rule)],
        Protocol(phases, {{"inp.r": "image", "out.y": "{wanted}"}}), readout=Readout("out.r", "free", "{wanted}", "{loss}"),
        reference=FeedForward(("W",), (), "u"),
    )


def training(settings, dataset):
    return PRESET
'''


def linear(folder, wanted="target", loss="squared", rate="u", cells=None, preset=None) -> str:
    path = folder / "linear.py"
    cells = cells or {"target": 10, "image": 64}[wanted]
    path.write_text(LINEAR.format(wanted=wanted, loss=loss, rate=rate, cells=cells, preset=preset or {}))
    return f"{path}:circuit"


def drawn(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape) for name, shape in SHAPES.items()}


def run(epochs: int, updates: int, **keys: Any) -> dict[str, np.ndarray]:
    """Weights that start from `drawn(0)` after `updates` changes in each epoch, the k-th of them `drawn(k)`, k from 1."""
    config = TrainConfig("m", **{"epochs": epochs, "optimise": BOTH, **keys})
    weights = {n: torch.tensor(w) for n, w in drawn(0).items()}
    transform, k = Transform(config, weights, RULES), 0
    for epoch in range(1, epochs + 1):
        transform.begin_epoch(epoch)
        for _ in range(updates):
            k += 1
            transform({n: torch.tensor(c) for n, c in drawn(k).items()})
    return {n: w.numpy() for n, w in weights.items()}


# ---------------------------------------------------------------- update transforms


@pytest.mark.parametrize(
    ("keys", "optimiser"),
    [
        (
            {"optimiser": "sgd", "momentum": 0.8, "weight_decay": 0.03},
            lambda w: torch.optim.SGD(w, 0.5, 0.8, weight_decay=0.03),
        ),
        ({"optimiser": "adam", "weight_decay": 0.03}, lambda w: torch.optim.Adam(w, 0.5, weight_decay=0.03)),
    ],
)
def test_torch_descends_alike(keys, optimiser):
    """torch.optim with its cosine schedule goes down the gradient -change; a step of the schedule per epoch."""
    weights = {n: torch.tensor(w) for n, w in drawn(0).items()}
    oracle = optimiser(list(weights.values()))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(oracle, T_max=4, eta_min=0.01)
    for k in range(1, 13):
        for name, change in drawn(k).items():
            weights[name].grad = -torch.tensor(change)
        oracle.step()
        if k % 3 == 0:
            schedule.step()
    found = run(4, 3, learning_rate=0.5, schedule="cosine", final_rate=0.01, **keys)
    for name, weight in weights.items():
        np.testing.assert_allclose(found[name], weight.numpy(), rtol=1e-12, atol=1e-14)


def shared_norm(changes: dict[str, np.ndarray], name: str, by: str) -> float:
    """Norm of all changes that are clipped together with those of a projection."""
    together = {"all": list(changes), "rule": [n for n in changes if RULES[n] == RULES[name]], "matrix": [name]}[by]
    return float(np.sqrt(sum((changes[n] ** 2).sum() for n in together)))


@pytest.mark.parametrize("by", ["all", "rule", "matrix"])
def test_the_whole_transform_written_out(by):
    """Warm-up over five updates, centralisation, clipping, decay and momentum, rates by rule: in this order, in NumPy."""
    rates = {"feedforward": 0.3, "feedback": 0.7}
    weights = drawn(0)
    velocity = {name: np.zeros_like(w) for name, w in weights.items()}
    for k in range(1, 9):
        changes = {n: c * min(1.0, k / 5) for n, c in drawn(k).items()}
        for name in ("U", "V"):  # b has one source; g is one-to-one
            changes[name] = changes[name] - changes[name].mean(axis=0)
        clipped = {n: c * min(1.0, 0.4 / shared_norm(changes, n, by)) for n, c in changes.items()}
        for name, w in weights.items():
            velocity[name] = 0.6 * velocity[name] + clipped[name] - 0.01 * w
            weights[name] = w + rates[RULES[name]] * velocity[name]
    found = run(
        1, 8, optimiser="sgd", learning_rate=0.3, learning_rates={"feedback": 0.7}, momentum=0.6, weight_decay=0.01, warm_up=5,
        centralise=True, clip=0.4, clip_by=by,
    )  # fmt: skip
    for name, weight in weights.items():
        np.testing.assert_allclose(found[name], weight, rtol=1e-5)  # torch adds 1e-6 to the norm


@pytest.mark.parametrize("keys", [{"momentum": 0.9, "weight_decay": 0.1}, {"clip": 0.1}, {"optimiser": "adam"}, {}])
def test_a_rate_of_0_leaves_weights_untouched(keys):
    """Also where a cosine ends above 0; the other rule learns."""
    schedule = {"schedule": "cosine", "final_rate": 0.01}
    found = run(3, 2, **{"optimiser": "sgd", **schedule, **keys}, learning_rate=0.1, learning_rates={"feedback": 0.0})
    before = drawn(0)
    for name, rule in RULES.items():
        assert np.array_equal(found[name], before[name]) == (rule == "feedback")


def test_a_plain_rate_takes_the_direct_path_and_nothing_else_does():
    def rates(**keys):
        config = TrainConfig("m", optimise=BOTH, **{"optimiser": "sgd", **keys})
        transform = Transform(config, {n: torch.zeros(s) for n, s in SHAPES.items()}, RULES)
        transform.begin_epoch(2)
        return [transform.rate(name) for name in ("U", "V", "another")]

    assert rates(learning_rate=0.5, decay=0.5, learning_rates={"feedback": 0.125}) == [0.25, 0.0625, 1.0]
    assert rates(learning_rate=0.5, schedule="cosine", epochs=2, final_rate=0.1)[0] == pytest.approx(0.3)
    for keys in (
        {"momentum": 0.1}, {"weight_decay": 0.1}, {"warm_up": 1}, {"centralise": True}, {"clip": 1.0}, {"optimiser": "adam"},
    ):  # fmt: skip
        assert rates(**keys) == [None, None, 1.0]


def test_weights_without_a_change_keep_still():
    """A trial in which a rule was off: what it changed before is not added again."""
    weights = {n: torch.tensor(w) for n, w in drawn(0).items()}
    transform = Transform(TrainConfig("m", optimiser="sgd", clip=1.0, optimise=BOTH), weights, RULES)
    transform.begin_epoch(1)
    transform({n: torch.tensor(c) for n, c in drawn(1).items()})
    kept = weights["V"].clone()
    transform({n: torch.tensor(c) for n, c in drawn(2).items() if RULES[n] == "feedforward"})
    assert torch.equal(weights["V"], kept)


def test_rules_of_a_circuit_have_rates_of_their_own():
    """Ghosts at rate 0 stay, and the forward weights move as they do without the ghosts' rate (the first batch)."""
    moved = {}
    for name, keys in {
        "frozen": {"learning_rates.ghost": 0},
        "slow": {"learning_rates.ghost": 0.1},
        "same": {},
    }.items():
        config = resolve(
            "ghost_units", PLASTIC, optimise="feedforward,ghost", optimiser="sgd", learning_rate=0.5, clip=0.1, clip_by="rule",
            limit=32, **keys,
        )  # fmt: skip
        trainer = Trainer(config, progress=False)
        before = trainer.engine.weights()
        trainer.epoch(1)
        moved[name] = {n: w - before[n] for n, w in trainer.engine.weights().items()}
    ghosts = {p.name for p, rule in trainer.circuit.plan.plastic() if rule.name == "ghost"}
    for name, change in moved["same"].items():
        share = 0.2 if name in ghosts else 1.0
        np.testing.assert_allclose(moved["slow"][name], share * change, atol=1e-6)
        np.testing.assert_array_equal(moved["frozen"][name], 0 * change if name in ghosts else change)
    assert ghosts and all(np.abs(moved["same"][n]).max() > 1e-4 for n in (*ghosts, "W1"))


def test_a_reference_net_goes_through_the_same_transform():
    """One batch of backprop with weight decay on a net of two layers: the gradient by finite differences of the loss."""
    config = resolve(
        "ghost_units", {"sizes": (64, 5, 10)}, method="backprop", optimiser="sgd", learning_rate=1.0, weight_decay=0.1, warm_up=4,
        clip=1e9, clip_by="matrix", dtype="float64", limit=16, batch_size=16,
    )  # fmt: skip
    trainer = Trainer(config, progress=False)
    before = trainer.engine.weights()
    trainer.epoch(1)
    digits = data.load("digits")
    images, targets = digits.train_images[:16], np.eye(10)[digits.train_labels[:16]]

    def loss(w):
        rates = images
        for l in (1, 2):
            rates = 1 / (1 + np.exp(-(rates @ w[f"W{l}"] + w[f"b{l}"])))
        return 0.5 * ((targets - rates) ** 2).sum() / 16

    for name, place in (("W1", (20, 3)), ("W2", (4, 9)), ("b1", (0, 2))):
        step = np.zeros_like(before[name])
        step[place] = 1e-5
        slope = (loss(before | {name: before[name] + step}) - loss(before | {name: before[name] - step})) / 2e-5
        moved = (trainer.engine.weights()[name] - before[name])[place]
        assert moved == pytest.approx(-slope / 4 - 0.1 * before[name][place], abs=1e-9)


# ---------------------------------------------------------------- keys

SGD = {"optimiser": "sgd"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({**SGD, "momentum": -0.1}, "momentum = -0.1; wanted a number of at least 0 and below 1"),
        ({**SGD, "momentum": 1}, "momentum = 1; wanted a number of at least 0 and below 1"),
        ({"momentum": 0.9}, "momentum = 0.9 with optimiser = 'adam', which has moments of its own"),
        ({"weight_decay": -1}, "weight_decay = -1; wanted a number of at least 0"),
        ({"schedule": "cosin"}, "There is no schedule 'cosin'. Did you mean 'cosine'?"),
        ({"schedule": "cosine", "decay": 0.9}, "decay = 0.9 with schedule = 'cosine': wanted for schedule = 'exponential'"),
        ({"final_rate": 0.001}, "final_rate = 0.001 with schedule = 'exponential': wanted for schedule = 'cosine'"),
        ({"schedule": "cosine", "final_rate": 0.1}, "final_rate = 0.1 is above learning_rate = 0.005"),
        ({"warm_up": -1}, "warm_up = -1; wanted a whole number of at least 0"),
        ({"warm_up": 1.5}, "warm_up = 1.5; wanted a whole number of at least 0"),
        ({"centralise": 1}, "centralise = 1; wanted true or false"),
        ({"clip": 1.0, "clip_by": "rules"}, "There is no clip_by 'rules'. Did you mean 'rule'?"),
        ({"clip_by": "rule"}, "clip_by = 'rule' without clip"),
        ({"learning_rates": {"feedforward": -1}}, "learning_rates.feedforward = -1; wanted a number of at least 0"),
        ({"learning_rates": {"feedforwards": 1}}, "learning_rates names 'feedforwards', and optimise only feedforward. Did you mean 'feedf"),
        ({"method": "backprop", "learning_rates": {"feedforward": 1}}, "a reference net has no rules. Use learning_rate"),
        ({"method": "backprop", "clip": 1.0, "clip_by": "rule"}, "clip_by = 'rule' with method = 'backprop'"),
        ({"select": "first"}, "There is no select 'first'"),
        ({"select": "best", "hold_out": False}, "hold_out = false leaves no validation set"),
    ],
)  # fmt: skip
def test_values_that_are_refused(values, message):
    with pytest.raises(NeurosimError) as error:
        TrainConfig("m", **values)
    assert message in str(error.value)


@pytest.mark.parametrize(
    "values",
    [
        {"learning_rates": {"feedforward": 1}}, {"schedule": "cosine"}, {"momentum": 0.5}, {"weight_decay": 1e-4}, {"warm_up": 3},
        {"centralise": True},
    ],
)  # fmt: skip
def test_keys_of_a_transform_need_one(values):
    with pytest.raises(NeurosimError, match=f"{next(iter(values))} = .*: they belong to an update transform"):
        resolve("ghost_units", optimiser="none", **values)


PRESET = {
    "optimiser": "sgd", "learning_rate": 1.0, "learning_rates": {"delta": 0.5}, "schedule": "cosine", "final_rate": 0.001, "momentum": 0.8,
    "weight_decay": 1e-6, "warm_up": 100, "centralise": True, "clip": 1.0, "clip_by": "rule", "optimise": ("delta",), "select": "best",
}  # fmt: skip


def test_a_preset_gives_way(tmp_path):
    model, plain = linear(tmp_path, preset=PRESET), TrainConfig("m")
    whole = resolve(model)
    assert {key: getattr(whole, key) for key in PRESET} == PRESET
    for other in ({"optimiser": "adam"}, {"method": "backprop"}, {"optimiser": "none"}, {"level": "torch:trajectory"}):
        config = resolve(model, **other)
        for key in set(PRESET) - {"optimiser", "optimise", "select"}:
            assert getattr(config, key) == getattr(plain, key), key
        assert config.select == "best"
    exponential = resolve(model, {"schedule": "exponential", "clip": "none", "decay": 0.9})
    assert (exponential.final_rate, exponential.clip, exponential.clip_by, exponential.momentum) == (
        0,
        None,
        "all",
        0.8,
    )
    (tmp_path / "config.toml").write_text(exponential.to_toml())  # none stays none when its file is trained again
    values = TrainConfig.from_toml(tmp_path / "config.toml")
    assert values == exponential and 'clip = "none"' in exponential.to_toml()


def test_rates_by_rule_from_files_and_the_command_line(tmp_path, capsys):
    path = tmp_path / "experiment.toml"
    path.write_text(
        'model = "ghost_units"\noptimiser = "sgd"\noptimise = ["feedforward", "ghost"]\nlimit = 64\nepochs = 1\n'
        '[settings]\nsizes = [64, 8, 10]\nmode = "learned"\n[learning_rates]\nghost = 0.25\nfeedforward = 0.125\n'
    )
    words = ["--set", "learning_rates.ghost=0.5", "--out", str(tmp_path / "run")]
    assert main(["train", str(path), *words]) == 0
    config = load(tmp_path / "run").config
    assert config.learning_rates == {"ghost": 0.5, "feedforward": 0.125}
    assert main(["train", str(tmp_path / "run" / "config.toml"), "--out", str(tmp_path / "again")]) == 0
    assert load(tmp_path / "again").config == config
    assert main(["train", str(path), "--set", "learning_rates.gost=0.5", "--out", str(tmp_path / "no")]) == 1
    assert (
        "learning_rates names 'gost', and optimise only feedforward, ghost. Did you mean 'ghost'?"
        in capsys.readouterr().err
    )
    assert main(["train", str(path), "--set", "learning_rates=0.5", "--out", str(tmp_path / "no")]) == 1
    assert "learning_rates = 0.5; wanted a table" in capsys.readouterr().err


def test_rates_by_rule_in_a_grid(tmp_path):
    path = tmp_path / "grid.toml"
    path.write_text(
        'model = "ghost_units"\noptimiser = "sgd"\noptimise = ["feedforward", "ghost"]\n[learning_rates]\nfeedforward = 0.1\n'
        "[grid]\nlearning_rates.ghost = [0, 0.5]\nmomentum = [0.0, 0.9]\n"
    )
    configs = expand(path)
    assert [(c.learning_rates, c.momentum) for c in configs] == [
        ({"feedforward": 0.1, "ghost": ghost}, m) for m in (0.0, 0.9) for ghost in (0, 0.5)
    ]
    names = [str(folder.parent.name) for folder in folders(configs, tmp_path)]
    assert names[3] == "ghost_units-momentum=0.9-learning_rates.ghost=0.5" and len(set(names)) == 4


# ---------------------------------------------------------------- the epoch that is tested


def test_the_best_epoch_is_tested(tmp_path, monkeypatch):
    """Losses on the validation set as given; weights of the second epoch are those of a run of two epochs."""
    keys: dict[str, Any] = {"optimiser": "none", "batch_size": 8, "limit": 64, "progress": False}
    second = train(linear(tmp_path), tmp_path / "two", epochs=2, **keys)
    losses, real = iter([0.5, 0.25, 0.75, 0.25]), Trainer.evaluate

    def evaluate(self, split, **more):
        row = real(self, split, **more)
        return row | {"loss": next(losses)} if split == "validation" else row

    monkeypatch.setattr(Trainer, "evaluate", evaluate)
    run: Any = train(linear(tmp_path), tmp_path / "run", epochs=4, select="best", **keys)
    np.testing.assert_array_equal(run.weights["W"], second.weights["W"])
    np.testing.assert_array_equal(load(tmp_path / "run").weights["W"], second.weights["W"])
    last = load(tmp_path / "run").folder / "weights.safetensors"
    assert last.read_bytes() != (tmp_path / "run" / "best.safetensors").read_bytes()
    told = {"epoch": 2, "validation_loss": 0.25, "validation_accuracy": run.metrics[1]["validation_accuracy"]}
    assert {key: run.result[key] for key in told} == told
    assert run.result["test_loss"] == second.result["test_loss"]
    assert "(of epoch 2, which has the lowest validation loss)" in accuracy_text(run.result)


def test_a_run_in_the_place_of_another_leaves_no_best_weights(tmp_path):
    keys: dict[str, Any] = {"optimiser": "none", "limit": 64, "epochs": 1, "progress": False}
    train(linear(tmp_path), tmp_path / "run", select="best", **keys)
    assert (tmp_path / "run" / "best.safetensors").is_file()
    train(linear(tmp_path), tmp_path / "run", overwrite=True, **keys)
    assert not (tmp_path / "run" / "best.safetensors").exists()


# ---------------------------------------------------------------- losses


def answers(run: Any, split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    images, labels = data.load("digits").split(split)
    return images @ run.weights["W"], images, np.eye(10)[labels]


def test_cross_entropy(tmp_path):
    """Rates in (0, 1), and as they are where some are negative: the logarithm's argument is then the smallest number."""
    keys: dict[str, Any] = {"optimiser": "none", "limit": 64, "epochs": 1, "progress": False, "dtype": "float64"}
    run: Any = train(linear(tmp_path, loss="cross_entropy", rate="1/(1 + exp(-u))"), tmp_path / "run", **keys)
    for split, got in (("validation", run.metrics[0]["validation_loss"]), ("test", run.result["test_loss"])):
        u, _, targets = answers(run, split)
        assert got == pytest.approx((targets * np.log1p(np.exp(-u))).sum(1).mean(), rel=1e-9)
    run = train(linear(tmp_path, loss="cross_entropy"), tmp_path / "clamped", **keys)
    u, _, targets = answers(run, "test")
    own = u[targets == 1]
    expected = np.where(own > 0, -np.log(np.where(own > 0, own, 1)), 1022 * np.log(2))  # 2**-1022
    assert run.result["test_loss"] == pytest.approx(expected.mean(), rel=1e-6)


@pytest.mark.parametrize("method", ["circuit", "backprop"])
def test_a_circuit_that_answers_with_images(tmp_path, method, capsys):
    """The loss of an untrained and of a trained net by NumPy; no accuracy in any file, table or line."""
    model = linear(tmp_path, "image", "mean_squared")
    keys = {
        "epochs": 2,
        "select": "best",
        "method": method,
        "optimise": ("delta",),
        "optimiser": "sgd",
        "dtype": "float64",
    }
    keys |= {"learning_rate": 1.0 if method == "circuit" else 0.02}
    trainer = Trainer(resolve(model, **keys), progress=False)
    images = data.load("digits").validation_images
    assert trainer.evaluate("validation") == {
        "loss": pytest.approx(((images - 0.01 * images.sum(1, keepdims=True)) ** 2).mean())
    }
    run: Any = start(trainer.config, tmp_path / "run" / "seed0", progress=False)
    for split, got in (("validation", run.result["validation_loss"]), ("test", run.result["test_loss"])):
        rates, images, _ = answers(run, split)
        assert got == pytest.approx(((rates - images) ** 2).mean(), rel=1e-9)
    assert list(run.metrics[0]) == ["epoch", "train_loss", "validation_loss", "unsettled", "unstable"]
    assert run.metrics[1]["train_loss"] < 0.8 * run.metrics[0]["train_loss"]
    text = "".join(path.read_text() for path in run.folder.iterdir() if path.suffix in (".json", ".jsonl"))
    assert "accuracy" not in text
    assert accuracy_text(run.result).startswith(f"test loss {run.result['test_loss']:.4f}")
    rows = collect([tmp_path / "run"])
    assert f"{run.result['test_loss']:.4f} n=1" in markdown(summarise(rows, metric="test_loss"), rows, "test_loss")
    assert main(["table", str(tmp_path / "run")]) == 1
    said = capsys.readouterr().err
    assert "one that answers with images has no accuracy). It has test_loss, validation_loss" in said


def test_what_an_image_cannot_be_asked(tmp_path):
    with pytest.raises(
        NeurosimError, match=r"collapse = 0.2 watches the training accuracy, .* Use --set collapse=none"
    ):
        Trainer(resolve(linear(tmp_path, "image"), optimiser="none", collapse=0.2), progress=False)
    model = linear(tmp_path)
    (tmp_path / "linear.py").write_text(
        (tmp_path / "linear.py").read_text().replace('"free", "target"', '"free", "image"')
    )
    with pytest.raises(
        NeurosimError, match=r"The readout 'out\.r' of 'linear' has 10 cells, and the answer is an image of 64 pixels"
    ):
        Trainer(resolve(model, optimiser="none"), progress=False)


def test_files_of_classifying_circuits_are_as_before(tmp_path):
    """Keys and their order, from before there were other answers."""
    run: Any = train(linear(tmp_path), tmp_path / "run", optimiser="none", limit=64, epochs=1, progress=False)
    row = json.loads((tmp_path / "run" / "metrics.jsonl").read_text())
    assert list(row) == [
        "epoch",
        "train_loss",
        "validation_loss",
        "train_accuracy",
        "validation_accuracy",
        "unsettled",
        "unstable",
    ]
    labels, seconds = ["model", "data", "level", "seed"], ["seconds", "seconds_per_epoch"]
    assert list(run.result) == [*labels, "test_accuracy", "test_loss", "validation_accuracy", *seconds]
    rates, _, targets = answers(run, "test")
    assert run.result["test_loss"] == pytest.approx(0.5 * ((rates - targets) ** 2).sum(1).mean(), rel=1e-5)
