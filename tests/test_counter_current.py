"""Counter-current learning (Kao & Hariharan 2024) on every level against an oracle, and the checks of its note.

Oracle: tests/oracles/counter_current.py, written from the note alone: autograd of the detached losses, the explicit rules in NumPy, and
an Euler integration in time; the three are first checked against one another, and the losses by finite differences.
"""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from importlib import import_module

import numpy as np
import pytest
import torch

import neurosim
from neurosim.equations import seconds
from neurosim.errors import NeurosimError
from neurosim.models import counter_current as model
from neurosim.training import train
from tests.oracles import counter_current as oracle

MODEL = "counter_current"
AUTOENCODER = "counter_current_autoencoder"
EQUATIONS, DENSE, TRAJECTORY, STEADY = "brian2:equations", "brian2:dense", "torch:trajectory", "torch:steady"
EULER = (EQUATIONS, DENSE, TRAJECTORY)
#: Names of the activations: the oracle's and the model's.
ACTIVATIONS = {
    "elu": "elu", "relu": "relu", "tanh": "tanh", "softplus": "softplus", "sigmoid": "sigmoid",
    "softplus - ln 2": "softplus_shifted", "2*sigmoid - 1": "sigmoid_shifted",
}  # fmt: skip
KINDS = {"pooled": "pool", "strided": "stride"}
SCHEDULES = ("all", "true_and_random", "true")
#: What the model's own_class loss is, times kappa/(N d) |A - T B|^2. With kappa = 1 it is the plain mean-squared error.
OWN_CLASS = 1.0
#: How the trainer is told that each of the two nets is clipped by itself.
RULES = {"optimise": ("forward", "feedback"), "clip_by": "rule"}
CLASSES = 4
TAU = 0.01


@lru_cache(maxsize=128)
def build(module: str = MODEL, **settings):
    return import_module(f"neurosim.models.{module}").circuit(**settings)


def both(layers="dense", sizes=(7, 6, 5, CLASSES), pixels=None, **settings) -> tuple:
    """Circuit and oracle of the same net."""
    told = dict(settings)
    for name in ("settle", "eta", "labels"):
        told.pop(name, None)
    threshold = told.pop("filter", 0.0)
    if told.pop("own_class", False):
        told["loss"] = "own_class"
    if layers == "dense":
        net = oracle.mlp(sizes, threshold=threshold, **told)
    else:
        settings["pixels"] = pixels
        net = oracle.cnn(sizes, pixels, KINDS[layers], threshold=threshold, **told)
    if "activation" in settings:
        settings["activation"] = ACTIVATIONS[settings["activation"]]
    return build(sizes=sizes, layers=layers, **settings), net


def both_autoencoders(channels=(2, 3, 4), pixels=8, batch_norm=False, **settings) -> tuple:
    told = {name: value for name, value in settings.items() if name not in ("settle", "eta")}
    normalise = "batch" if batch_norm else "none"
    circuit = build(AUTOENCODER, channels=channels, pixels=pixels, normalise=normalise, **settings)
    return circuit, oracle.autoencoder(channels, pixels, batch_norm=batch_norm, **told)


def learnt(weights) -> dict:
    return {name: value for name, value in weights.items() if name.lstrip("b")[0] in "UV"}


def problem(net, samples=5, seed=0, circuit=None) -> tuple:
    """Images, labels (None for the autoencoder) and weights; strided and autoencoder nets have biases, those that `circuit` has."""
    rng = np.random.default_rng(seed)
    biases = "stride" in net.up
    weights = oracle.random_weights(net, seed, biases=biases)
    if circuit is not None:
        there = learnt(circuit.initial_weights(0))
        weights = {name: value for name, value in weights.items() if name in there or not name.startswith("b")}
    labels = rng.integers(0, net.classes, samples) if net.labelled else None
    return rng.standard_normal((samples, net.sizes[0])), labels, weights


def play(circuit, images, labels, level, weights, **options):
    start = circuit.initial_weights(0)
    assert {n: v.shape for n, v in learnt(start).items()} == {n: v.shape for n, v in weights.items()}
    everything = start | {name: value.copy() for name, value in weights.items()}
    options = {"plasticity": "held", "batch_size": len(images)} | options
    return neurosim.simulate(circuit, images, labels, level=level, weights=everything, progress=False, **options)


def near(got, wanted, limit, what=""):
    got = np.asarray(got)
    assert got.shape == np.shape(wanted), f"{what}: shape {got.shape}, wanted {np.shape(wanted)}"
    worst = float(np.abs(got - wanted).max())
    assert worst <= limit, f"{what}: off by {worst:.1e}"


def distances(got: dict, wanted: dict) -> dict:
    """Relative Frobenius distance of each matrix."""
    return {name: float(np.linalg.norm(got[name] - wanted[name]) / np.linalg.norm(wanted[name])) for name in wanted}


def assert_changes(collected: dict, wanted: dict, limit=1e-12, zero=()):
    """Each collected change equals the wanted one, which must not be 0 unless its name is in `zero`."""
    for name in zero:
        near(collected[name], np.zeros_like(wanted[name]), 1e-12, name)
    wanted = {name: value for name, value in wanted.items() if name not in zero}
    assert set(wanted) <= set(collected)
    for name, value in wanted.items():
        assert np.linalg.norm(value) > 1e-6, f"{name}: nothing to learn, the problem is no test"
        assert collected[name].shape == value.shape, name
    found = distances(collected, wanted)
    assert max(found.values()) <= limit, found


def minus(values: dict) -> dict:
    return {name: -value for name, value in values.items()}


def drawn(result, net, weights) -> np.ndarray:
    """The wrong labels that the second window has shown: whose row of V_L the level below receives."""
    V = weights[f"V{net.top}"]
    received = result.ends["learn[1]"][f"D{net.top - 1}.I_basal"]
    misses = np.abs(received[:, None] - V[None]).max(axis=2)
    near(misses.min(axis=1), np.zeros(len(received)), 1e-12, "drive of a single label")
    return misses.argmin(axis=1)


# ---------------------------------------------------------------- the oracle against itself

ORACLES = {
    "raw": oracle.mlp((7, 6, 5, 4)),
    "raw, six layers": oracle.mlp((7, 6, 5, 6, 5, 6, 4)),
    "normalised": oracle.mlp((7, 6, 5, 10), loss="normalised", contrast=0.7, decorrelation=0.3),
    "own class": oracle.mlp((7, 6, 5, 4), loss="own_class", kappa=3.0),
    "filtered": oracle.mlp((7, 6, 5, 4), threshold=0.3),
    "normalised, filtered": oracle.mlp((7, 6, 5, 4), loss="normalised", threshold=0.3),
    "pooled": oracle.cnn((2, 3, 4, 5), 8, "pool"),
    "pooled, normalised": oracle.cnn((1, 3, 4, 5, 4), 8, "pool", loss="normalised"),
    "strided": oracle.cnn((2, 3, 4, 5), 8, "stride"),
    "strided, normalised": oracle.cnn((2, 3, 4, 5), 8, "stride", loss="normalised"),
    "autoencoder": oracle.autoencoder((2, 3, 4), 8, contrast=0.6, detail=0.8),
    "autoencoder, one pixel inside": oracle.autoencoder((2, 3, 4, 5), 8, activation="elu"),
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("samples", [1, 5])
@pytest.mark.parametrize("name", ORACLES)
def test_the_explicit_rules_equal_autograd(name, samples, activation):
    net = dataclasses.replace(ORACLES[name], activation=activation)
    images, labels, weights = problem(net, samples, seed=1)
    wanted = oracle.gradients(net, weights, images, labels)
    found = oracle.explicit(net, weights, images, labels)
    assert set(found) == set(wanted)
    for weight, value in wanted.items():
        assert np.linalg.norm(found[weight] - value) <= 1e-13 * max(1.0, np.linalg.norm(value)), weight


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", ["raw", "normalised", "pooled"])
def test_the_explicit_rules_equal_autograd_for_every_schedule(name, schedule):
    net = ORACLES[name]
    images, labels, weights = problem(net, 6, seed=2)
    M = oracle.multiplicities(net, labels, schedule, (labels + 1) % net.classes)
    wanted = oracle.gradients(net, weights, images, labels, M)
    assert max(distances(oracle.explicit(net, weights, images, labels, M), wanted).values()) <= 1e-13


@pytest.mark.parametrize("name", [*ORACLES, "batch norm", "batch norm, one pixel inside"])
def test_the_gradients_are_those_of_the_losses(name):
    """Finite differences along a random direction: U_l by the loss of level l, V_{l+1} likewise (each layer's input is detached)."""
    norm = {"batch norm": oracle.autoencoder((2, 3, 4), 8, batch_norm=True)}
    norm["batch norm, one pixel inside"] = oracle.autoencoder((2, 3, 4), 4, batch_norm=True, activation="elu")
    net = (ORACLES | norm)[name]
    images, labels, weights = problem(net, 5, seed=3)
    found = oracle.gradients(net, weights, images, labels)
    rng = np.random.default_rng(0)
    step, image = 1e-6, torch.as_tensor(images)
    for weight, gradient in found.items():
        letter, level = weight.lstrip("b")[0], int(weight.lstrip("bUV"))
        level = level if letter == "U" else level - 1
        direction = rng.standard_normal(gradient.shape)
        values = []
        for sign in (1, -1):
            moved = weights | {weight: weights[weight] + sign * step * direction}
            tensors = {key: torch.as_tensor(value) for key, value in moved.items()}
            values.append(float(oracle.losses(net, tensors, image, labels)[level]))
        slope = (values[0] - values[1]) / (2 * step)
        assert abs((gradient * direction).sum() - slope) <= 1e-6 * max(1.0, abs(slope)), weight


def test_batch_norm_leaves_nothing_for_a_bias_before_it():
    net = oracle.autoencoder((2, 3, 4), 8, batch_norm=True)
    images, _, weights = problem(net, 5)
    found = oracle.gradients(net, weights, images)
    for name, value in found.items():
        if name.startswith("b"):
            assert (np.abs(value).max() > 1e-6) == (name in ("bU4", "bV1")), name


@pytest.mark.parametrize(
    ("name", "schedule"),
    [
        (name, schedule)
        for name in ORACLES
        if name not in ("raw, six layers", "pooled, normalised")
        for schedule in SCHEDULES
        if ORACLES[name].labelled or schedule == "all"
    ],
)
def test_the_oracle_in_time_settles_at_the_gradients(name, schedule):
    net = dataclasses.replace(ORACLES[name], decorrelation=0.0)
    images, labels, weights = problem(net, 3, seed=4)
    wrong = (labels + 1) % net.classes if net.labelled else None
    M = oracle.multiplicities(net, labels, schedule, wrong) if net.labelled else None
    windows = oracle.shown(net, labels, schedule, wrong) if net.labelled else None
    _, found = oracle.in_time(net, weights, images, labels, windows, dt=2.5e-3, settle=160, learn=4)
    for weight, value in minus(oracle.gradients(net, weights, images, labels, M)).items():
        assert np.linalg.norm(found[weight] - value) <= 1e-12 * max(1.0, np.linalg.norm(value)), weight


@pytest.mark.parametrize(
    ("sizes", "backprop", "counter_current"),
    [((784, *[256] * 5, 10), "2.39", "2.55"), ((3072, *[1024] * 3, 10), "25.23", "27.89")],
)
def test_operations_of_the_published_table(sizes, backprop, counter_current):
    """Table 2, in millions per sample, batches of 32: every matrix product of a step that is also checked to be right."""
    net = oracle.mlp(sizes)
    rng = np.random.default_rng(0)
    weights = oracle.random_weights(net, 0, gain=1.0)
    images, labels = rng.standard_normal((32, sizes[0])), rng.integers(0, 10, 32)
    found, operations = oracle.counted_step(weights, images, oracle.indicator(net, labels))
    assert f"{operations / 32 / 1e6:.2f}" == counter_current
    assert max(distances(found, oracle.gradients(net, weights, images, labels)).values()) < 1e-13
    found, operations = oracle.counted_backprop(weights, images, oracle.indicator(net, labels))
    assert f"{operations / 32 / 1e6:.2f}" == backprop
    tensors = {n: torch.tensor(v, requires_grad=True) for n, v in weights.items() if n.startswith("U")}
    rates = torch.as_tensor(images)
    for l in range(1, net.top):
        rates = torch.nn.functional.elu(rates @ tensors[f"U{l}"])
    loss = torch.nn.functional.cross_entropy(rates @ tensors[f"U{net.top}"], torch.as_tensor(labels))
    truth = dict(zip(tensors, torch.autograd.grad(loss, list(tensors.values())), strict=True))
    assert max(distances(found, {name: value.numpy() for name, value in truth.items()}).values()) < 1e-13


@pytest.mark.parametrize(
    ("net", "wanted"),
    [
        (oracle.mlp((784, *[256] * 5, 10)), 465_408),
        (oracle.mlp((3072, *[1024] * 3, 100)), 5_345_280),
        (oracle.cnn((3, 128, 128, 256, 256, 512, 10), 32, "pool"), 2_220_416),
        (oracle.cnn((3, 128, 128, 256, 256, 512, 100), 32, "pool"), 2_266_496),
    ],
)
def test_numbers_of_weights_of_the_published_nets(net, wanted):
    for letter in "UV":
        shapes = [shape for name, shape in oracle.weight_shapes(net).items() if name.startswith(letter)]
        assert sum(int(np.prod(shape)) for shape in shapes) == wanted


# ---------------------------------------------------------------- steady level: changes = minus the gradients


def assert_steady(circuit, net, images, labels, weights, limit=1e-12, zero=()):
    result = play(circuit, images, labels, STEADY, weights)
    assert_changes(result.collected, minus(oracle.gradients(net, weights, images, labels)), limit, zero)
    return result


@pytest.mark.parametrize("samples", [1, 5])
@pytest.mark.parametrize("classes", [4, 10])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("loss", ["raw", "normalised"])
def test_changes_equal_autograd(loss, activation, classes, samples):
    circuit, net = both(sizes=(7, 6, 5, classes), loss=loss, activation=activation)
    assert_steady(circuit, net, *problem(net, samples))


@pytest.mark.parametrize(
    "settings",
    [
        {"sizes": (5, 6, 3)}, {"sizes": (9, 8, 7, 6, 7, 8, 10)}, {"kappa": 3.0}, {"eta": 0.25},
        {"loss": "normalised", "contrast": 0.5, "decorrelation": 0.25}, {"loss": "normalised", "decorrelation": 0.0},
        {"loss": "normalised", "contrast": 0.01, "decorrelation": 2.0, "sizes": (7, 6, 5, 10)},
    ],
)  # fmt: skip
def test_changes_equal_autograd_at_other_settings(settings):
    circuit, net = both(**settings)
    images, labels, weights = problem(net, 6)
    result = play(circuit, images, labels, STEADY, weights)
    wanted = oracle.gradients(net, weights, images, labels)
    assert_changes(result.collected, {name: -settings.get("eta", 1.0) * value for name, value in wanted.items()})


CNNS = {  # two levels, top map 2 x 2; three levels, top map one cell
    "pooled, 2 x 2": {"layers": "pooled", "sizes": (2, 3, 4, CLASSES), "pixels": 8},
    "pooled, one cell": {"layers": "pooled", "sizes": (1, 3, 4, 5, CLASSES), "pixels": 8},
    "strided, 2 x 2": {"layers": "strided", "sizes": (2, 3, 4, CLASSES), "pixels": 8},
    "strided, one cell": {"layers": "strided", "sizes": (1, 3, 4, 5, CLASSES), "pixels": 8},
}


@pytest.mark.parametrize("samples", [1, 5])
@pytest.mark.parametrize("loss", ["raw", "normalised"])
@pytest.mark.parametrize("name", CNNS)
def test_changes_of_convolutions_equal_autograd(name, loss, samples):
    circuit, net = both(**CNNS[name], loss=loss)
    assert_steady(circuit, net, *problem(net, samples))


@pytest.mark.parametrize("activation", ["relu", "tanh", "softplus - ln 2"])
@pytest.mark.parametrize("name", ["pooled, 2 x 2", "strided, 2 x 2"])
def test_changes_of_convolutions_equal_autograd_for_other_activations(name, activation):
    circuit, net = both(**CNNS[name], loss="normalised", activation=activation)
    assert_steady(circuit, net, *problem(net, 4))


AUTOENCODERS = [{}, {"contrast": 0.5, "detail": 0.3}, {"detail": 0.0}, {"channels": (2, 3, 4, 5), "pixels": 16}]


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("samples", [2, 5])
@pytest.mark.parametrize("settings", AUTOENCODERS)
def test_changes_of_the_autoencoder_equal_autograd(settings, samples, batch_norm):
    circuit, net = both_autoencoders(batch_norm=batch_norm, **settings)
    images, _, weights = problem(net, samples, circuit=circuit)
    ends = (f"bU{net.top}", "bV1")
    zero = [name for name in weights if name.startswith("b") and name not in ends] if batch_norm else []
    assert_steady(circuit, net, images, None, weights, zero=zero)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_changes_of_the_autoencoder_with_one_pixel_inside(batch_norm):
    """A map of one cell has no detail: that part of the loss is constant there."""
    circuit, net = both_autoencoders((2, 3, 4), 4, batch_norm)
    images, _, weights = problem(net, 5, circuit=circuit)
    found = play(circuit, images, None, STEADY, weights).collected
    for name, value in minus(oracle.gradients(net, weights, images)).items():
        assert np.linalg.norm(found[name] - value) <= 1e-12 * max(1.0, np.linalg.norm(value)), name


def threshold(net, images, labels, weights, passing: int) -> float:
    """Between the probabilities of the true class, so that `passing` samples are taught."""
    logits = oracle.rates(net, weights, images)[0][-1]
    found = np.sort((oracle.softmax(logits) * oracle.indicator(net, labels)).sum(axis=1))
    return float(found[passing - 1 : passing + 1].mean())


@pytest.mark.parametrize("loss", ["raw", "normalised"])
@pytest.mark.parametrize("case", [{}, CNNS["pooled, 2 x 2"], CNNS["strided, one cell"]])
def test_changes_with_the_sample_filter_equal_autograd(case, loss):
    _, net = both(**case, loss=loss)
    images, labels, weights = problem(net, 6)
    limit = threshold(net, images, labels, weights, 3)
    everybody = oracle.gradients(net, weights, images, labels)
    circuit, net = both(**case, loss=loss, filter=limit)
    result = assert_steady(circuit, net, images, labels, weights)
    assert min(distances({n: -v for n, v in result.collected.items() if n in everybody and n != f"U{net.top}"},
                         {n: v for n, v in everybody.items() if n != f"U{net.top}"}).values()) > 1e-3  # fmt: skip
    near(-result.collected[f"U{net.top}"], everybody[f"U{net.top}"], 1e-12)  # the cross-entropy acts on all


def test_a_filter_that_stops_every_sample_leaves_the_output_alone_to_learn():
    _, net = both()
    images, labels, weights = problem(net, 5)
    circuit, net = both(filter=1e-9)
    found = play(circuit, images, labels, STEADY, weights).collected
    for name in weights:
        assert bool(np.any(found[name])) == (name == "U3"), name


@pytest.mark.parametrize("loss", ["raw", "normalised"])
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("case", [{}, CNNS["pooled, 2 x 2"]])
def test_changes_of_every_schedule_equal_autograd(case, schedule, loss):
    circuit, net = both(**case, loss=loss, labels=schedule, decorrelation=0.0)
    images, labels, weights = problem(net, 8)
    result = play(circuit, images, labels, STEADY, weights)
    wrong = drawn(result, net, weights) if schedule == "true_and_random" else None
    M = oracle.multiplicities(net, labels, schedule, wrong)
    assert_changes(result.collected, minus(oracle.gradients(net, weights, images, labels, M)))
    windows = {"all": CLASSES, "true_and_random": 2, "true": 1}[schedule]
    assert {name for name in result.ends if name.startswith("learn")} == {f"learn[{k}]" for k in range(windows)}


def test_the_random_label_is_wrong_even_and_drawn_anew():
    circuit, net = both(sizes=(7, 6, CLASSES), labels="true_and_random")
    images, labels, weights = problem(net, 600)
    wrong = drawn(play(circuit, images, labels, STEADY, weights), net, weights)
    assert not np.any(wrong == labels)
    counts = np.bincount((wrong - labels) % CLASSES, minlength=CLASSES)[1:]
    assert np.abs(counts - 200).max() <= 47  # four standard deviations
    assert not np.array_equal(wrong, drawn(play(circuit, images, labels, STEADY, weights, seed=1), net, weights))
    assert np.array_equal(wrong, drawn(play(circuit, images, labels, STEADY, weights), net, weights))
    twice = play(circuit, np.tile(images[:60], (2, 1)), np.tile(labels[:60], 2), STEADY, weights, batch_size=60)
    first, second = drawn(twice, net, weights).reshape(2, 60)
    assert not np.array_equal(first, second)  # drawn anew in each trial


def test_true_and_random_is_all_labels_on_average():
    """Unbiased for the sum over labels: the mean over all wrong labels is the rule with all labels."""
    net = oracle.mlp((7, 6, 5, CLASSES))
    images, labels, weights = problem(net, 5)
    parts = [
        oracle.gradients(net, weights, images, labels, oracle.multiplicities(net, labels, "true_and_random", (labels + k) % CLASSES))
        for k in range(1, CLASSES)
    ]  # fmt: skip
    mean = {name: sum(part[name] for part in parts) / len(parts) for name in weights}
    assert max(distances(mean, oracle.gradients(net, weights, images, labels)).values()) < 1e-13


@pytest.mark.parametrize("schedule", ["all", "true"])
def test_changes_of_the_own_class_rule_equal_autograd(schedule):
    circuit, net = both(own_class=True, labels=schedule)
    images, labels, weights = problem(net, 5)
    found = play(circuit, images, labels, STEADY, weights).collected
    wanted = minus(oracle.gradients(net, weights, images, labels))
    factors = {name: float((found[name] * v).sum() / (v * v).sum()) for name, v in wanted.items() if name != "U3"}
    assert max(factors.values()) - min(factors.values()) < 1e-12 * max(factors.values()), factors
    assert_changes(found, {name: (OWN_CLASS if name in factors else 1.0) * value for name, value in wanted.items()})


@pytest.mark.parametrize("case", [{}, CNNS["pooled, 2 x 2"], CNNS["strided, one cell"]])
def test_rates_equal_the_oracle(case):
    circuit, net = both(**case)
    images, labels, weights = problem(net, 5)
    result = play(circuit, images, labels, STEADY, weights)
    a, b = oracle.rates(net, weights, images)
    for k in range(CLASSES):
        for phase in (f"settle[{k}]", f"learn[{k}]"):
            for l in range(net.top):
                if l > 0:
                    near(result.ends[phase][f"F{l}.r"], a[l], 1e-12, f"{phase} F{l}")
                near(result.ends[phase][f"D{l}.r"], np.tile(b[l][k], (5, 1)), 1e-12, f"{phase} D{l}")
            near(result.ends[phase][f"F{net.top}.u"], a[-1], 1e-12, f"{phase} logits")
            near(result.ends[phase][f"F{net.top}.r"], oracle.softmax(a[-1]), 1e-12, f"{phase} probabilities")
    near(result.readout, oracle.softmax(a[-1]), 1e-12, "readout")
    assert result.unsettled == 0


@pytest.mark.parametrize("case", [{}, CNNS["strided, 2 x 2"]])
def test_weights_after_several_batches_equal_steps_of_the_oracle(case):
    circuit, net = both(**case, eta=0.02)
    images, labels, weights = problem(net, 12)
    result = play(circuit, images, labels, STEADY, weights, batch_size=4, plasticity="on")
    wanted = dict(weights)
    for k in range(3):
        rows = slice(4 * k, 4 * k + 4)
        found = oracle.gradients(net, wanted, images[rows], labels[rows])
        wanted = {name: value - 0.02 * found[name] for name, value in wanted.items()}
    for name, value in wanted.items():
        assert np.abs(value - weights[name]).max() > 1e-4
        near(result.weights[name], value, 1e-12 * max(1.0, np.abs(value).max()), name)


@pytest.mark.parametrize("level", [DENSE, TRAJECTORY, STEADY])
def test_neither_stream_reads_the_other(level):
    """Rates of F do not depend on V nor those of D on U."""
    circuit, net = both(settle=20.0)
    images, labels, weights = problem(net, 2)
    base = play(circuit, images, labels, level, weights, plasticity="off").ends["learn[1]"]
    for letter, still in (("V", "F"), ("U", "D")):
        other = {name: value + 0.1 * name.startswith(letter) for name, value in weights.items()}
        ends = play(circuit, images, labels, level, other, plasticity="off").ends["learn[1]"]
        for name, value in base.items():
            if name.startswith(still) and name.endswith((".r", ".u")):
                assert np.array_equal(ends[name], value), name
        moved = {"V": "D1.r", "U": "F1.r"}[letter]
        assert np.abs(ends[moved] - base[moved]).max() > 1e-3


# ---------------------------------------------------------------- in time


def steps_of(circuit, dt: float) -> dict:
    """Euler steps of settling and of learning in a window."""
    first = circuit.protocol.phases[0]
    phases = first.phases if isinstance(first, neurosim.Windows) else circuit.protocol.phases
    found = {phase.name: round(seconds(phase.duration) / dt) for phase in phases}
    assert set(found) == {"settle", "learn"}
    return found


def assert_in_time(circuit, net, level, images, labels, weights, schedule="all", dt=1e-3, limit=1e-12):
    result = play(circuit, images, labels, level, weights, dt=f"{dt!r}*second")
    wrong = drawn(result, net, weights) if schedule == "true_and_random" else None
    windows = oracle.shown(net, labels, schedule, wrong) if net.labelled else None
    ends, changes = oracle.in_time(net, weights, images, labels, windows, dt=dt, **steps_of(circuit, dt))
    assert set(ends) <= set(result.ends)
    for phase, values in ends.items():
        there = set(values) & set(result.ends[phase])
        wanted = {f"{stream}{l}.{name}" for stream in "FD" for l in range(1, net.top) for name in ("r", "u", "v_a")}
        wanted |= {"D0.u", "D0.v_a", f"F{net.top}.u"}
        assert wanted <= there, wanted - there
        for name in there:
            near(result.ends[phase][name], values[name], limit, f"{phase} {name}")
    assert_changes(result.collected, changes, limit)
    return result


def samples_on(level: str) -> int:
    return 1 if level == EQUATIONS else 3


@pytest.mark.parametrize("level", EULER)
@pytest.mark.parametrize(
    "settings",
    [{"loss": "raw"}, {"loss": "normalised", "decorrelation": 0.0}, {"loss": "raw", "labels": "true_and_random"}],
)
def test_trials_equal_the_oracle_in_time(settings, level):
    """Windows short of settling: states at the ends of all phases and collected changes."""
    circuit, net = both(settle=20.0, **settings)
    images, labels, weights = problem(net, samples_on(level))
    assert_in_time(circuit, net, level, images, labels, weights, settings.get("labels", "all"))


@pytest.mark.parametrize(
    ("settings", "level"),
    [
        ({"loss": "normalised", "decorrelation": 0.0, "labels": "true", "activation": "tanh"}, TRAJECTORY),
        ({"labels": "true", "activation": "softplus - ln 2"}, DENSE),
        ({"sizes": (7, 6, 5, 6, 5, 6, CLASSES), "activation": "softplus"}, TRAJECTORY),
        ({"sizes": (7, 6, 10), "activation": "2*sigmoid - 1"}, TRAJECTORY),
        ({"own_class": True}, TRAJECTORY),
    ],
)
def test_other_trials_equal_the_oracle_in_time(settings, level):
    circuit, net = both(settle=20.0, **settings)
    if net.loss == "own_class" and OWN_CLASS != 1.0:
        net = dataclasses.replace(net, kappa=OWN_CLASS * net.kappa)
    images, labels, weights = problem(net, samples_on(level))
    assert_in_time(circuit, net, level, images, labels, weights, settings.get("labels", "all"))


@pytest.mark.parametrize("level", [DENSE, TRAJECTORY])
def test_filtered_trials_equal_the_oracle_in_time(level):
    _, net = both()
    images, labels, weights = problem(net, 4)
    limit = threshold(net, images, labels, weights, 2)
    circuit, net = both(settle=100.0, filter=limit)
    assert_in_time(circuit, net, level, images, labels, weights, dt=2e-3)


@pytest.mark.parametrize(
    ("name", "level"),
    [("pooled, 2 x 2", level) for level in (DENSE, TRAJECTORY)] + [("strided, 2 x 2", level) for level in EULER],
)
def test_trials_of_convolutions_equal_the_oracle_in_time(name, level):
    circuit, net = both(**CNNS[name], settle=20.0)
    images, labels, weights = problem(net, samples_on(level))
    assert_in_time(circuit, net, level, images, labels, weights, dt=2e-3)


def test_trials_of_the_autoencoder_equal_the_oracle_in_time():
    circuit, net = both_autoencoders(settle=40.0)
    images, _, weights = problem(net, 2, circuit=circuit)
    assert_in_time(circuit, net, TRAJECTORY, images, None, weights, dt=2e-3)


def test_the_levels_draw_the_same_random_labels():
    circuit, net = both(settle=5.0, labels="true_and_random")
    images, labels, weights = problem(net, 6)
    found = [
        drawn(play(circuit, images, labels, level, weights, seed=3, batch_size=1, dt="1*ms"), net, weights)
        for level in (*EULER, STEADY)
    ]
    for wrong in found[1:]:
        assert np.array_equal(wrong, found[0])


@pytest.mark.parametrize("sizes", [(7, 6, 5, CLASSES), (12, 10, 10, 10, 10, 10, CLASSES)])
def test_changes_in_time_approach_the_gradients(sizes):
    """Settling of 5, 10, 20, 30 tau: what is missing falls as the note measured for six layers (its 8.3)."""
    bounds = {5: 0.67, 10: 7.9e-2, 20: 6.7e-5, 30: 1.7e-8}
    missing = {}
    for times in bounds:
        circuit, net = both(sizes=sizes, settle=1e3 * times * TAU)
        images, labels, weights = problem(net, 8)
        weights = oracle.random_weights(net, 0, gain=1.0)
        found = play(circuit, images, labels, TRAJECTORY, weights, dt="1*ms").collected
        rest = play(circuit, images, labels, STEADY, weights).collected
        missing[times] = max(distances(found, {name: rest[name] for name in weights}).values())
    print("relative distance from the steady changes:", missing)
    found = list(missing.values())
    assert found == sorted(found, reverse=True)
    for times, bound in bounds.items():
        assert missing[times] <= bound, missing


@pytest.mark.parametrize(
    "case", [CNNS["pooled, one cell"], CNNS["strided, one cell"], {"loss": "normalised", "decorrelation": 0.0}]
)
def test_changes_in_time_are_the_steady_ones_after_20_tau(case):
    circuit, net = both(**case, settle=200.0)
    images, labels, weights = problem(net, 3)
    found = play(circuit, images, labels, TRAJECTORY, weights, dt="2*ms").collected
    rest = play(circuit, images, labels, STEADY, weights).collected
    assert max(distances(found, {name: rest[name] for name in weights}).values()) <= 1e-4


@pytest.mark.parametrize("batch_norm", [False, True])
def test_changes_of_the_autoencoder_in_time_are_the_steady_ones(batch_norm):
    circuit, net = both_autoencoders(settle=300.0, batch_norm=batch_norm)
    images, _, weights = problem(net, 3, circuit=circuit)
    found = play(circuit, images, None, TRAJECTORY, weights, dt="2*ms").collected
    rest = play(circuit, images, None, STEADY, weights).collected
    wanted = {n: rest[n] for n in weights if not (batch_norm and n.startswith("b"))}
    assert max(distances(found, wanted).values()) <= 1e-4


@pytest.mark.parametrize("levels", [(DENSE, TRAJECTORY), (EQUATIONS, DENSE)])
def test_the_default_step_and_settling_are_close_to_the_steady_changes(levels):
    circuit, net = both(sizes=(5, 4, 3))
    images, labels, weights = problem(net, 1)
    rest = play(circuit, images, labels, STEADY, weights).collected
    for level in levels:
        found = play(circuit, images, labels, level, weights).collected
        assert max(distances(found, {name: rest[name] for name in weights}).values()) <= 1e-4, level


# ---------------------------------------------------------------- initial weights


@pytest.mark.parametrize(
    "settings",
    [
        {"sizes": (400, 300, 200, 10)},
        {"sizes": (3, 24, 32, 10), "layers": "pooled", "pixels": 16},
        {"sizes": (3, 24, 32, 10), "layers": "strided", "pixels": 16},
    ],
)
def test_initial_weights(settings):
    """U(-1/sqrt(fan in), 1/sqrt(fan in)) in both nets, biases too; shapes of the note; no two alike."""
    circuit, net = both(**settings)
    weights = learnt(circuit.initial_weights(1))
    shapes = oracle.weight_shapes(net, biases=settings.get("layers") == "strided")
    assert {name: value.shape for name, value in weights.items()} == shapes
    for name, value in weights.items():
        limit = 1 / np.sqrt(shapes[name.lstrip("b")][0])
        assert np.abs(value).max() <= limit, name
        if value.size > 500:
            assert np.abs(value).max() > 0.98 * limit, name
            assert value.std() == pytest.approx(limit / np.sqrt(3), rel=0.1)
    if settings.get("layers") is None:
        assert abs(np.corrcoef(weights["U2"].T.ravel(), weights["V2"].ravel())[0, 1]) < 0.02


def test_initial_weights_of_the_autoencoder():
    """The two image-producing layers start at 0, forward biases too, the upper half of each net small (x 0.001)."""
    circuit, _ = both_autoencoders((3, 8, 16), 8)
    weights = learnt(circuit.initial_weights(1))
    for name, value in weights.items():
        if name in ("U4", "V1") or name.startswith("bU"):
            assert not value.any(), name
    for small, large in (("U3", "U1"), ("U3", "U2"), ("V2", "V3"), ("V2", "V4")):
        ratio = np.linalg.norm(weights[small], 2) / np.linalg.norm(weights[large], 2)
        assert 2e-4 < ratio < 5e-3, (small, large)


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": "poled"}, r"'poled'.*pooled"),
        ({"layers": "dens"}, r"'dens'.*dense"),
        ({"loss": "normalized"}, r"'normalized'.*normalised"),
        ({"activation": "eluu"}, r"'eluu'.*elu"),
        ({"labels": "true_and_randm"}, r"'true_and_randm'.*true_and_random"),
        ({"sizes": (5,)}, r"sizes"),
        ({"sizes": ()}, r"sizes"),
        ({"sizes": (5, 4, 1)}, r"sizes|class"),
        ({"sizes": (5, 0, 4)}, r"0"),
        ({"layers": "pooled", "sizes": (3, 10), "pixels": 8}, r"sizes"),
        ({"layers": "pooled", "sizes": (3, 4, 5, 10), "pixels": 6}, r"pixels"),
        ({"layers": "strided", "sizes": (3, 4, 5, 10), "pixels": 6}, r"pixels"),
        ({"layers": "pooled", "sizes": (3, 4, 5, 6, 10), "pixels": 4}, r"pixels"),
        ({"kappa": -1.0}, r"kappa = -1\.0"),
        ({"kappa": 0.0}, r"kappa = 0\.0"),
        ({"contrast": -0.5}, r"contrast = -0\.5"),
        ({"decorrelation": -0.5}, r"decorrelation = -0\.5"),
        ({"filter": 1.5}, r"filter = 1\.5"),
        ({"filter": -0.1}, r"filter = -0\.1"),
        ({"settle": 0.0}, r"settle = 0\.0"),
        ({"settle": -5.0}, r"settle = -5\.0"),
        ({"eta": -1.0}, r"eta = -1\.0"),
    ],
)
def test_errors_name_the_setting_and_the_cure(settings, message):
    with pytest.raises(NeurosimError, match=f"(?s){message}"):
        build(**({"sizes": (7, 6, 5, CLASSES)} | settings))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": (3,)}, r"channels"),
        ({"pixels": 6}, r"pixels"),
        ({"normalise": "batsh"}, r"'batsh'.*batch"),
        ({"contrast": -1.0}, r"contrast = -1\.0"),
        ({"detail": -1.0}, r"detail = -1\.0"),
    ],
)
def test_errors_of_the_autoencoder_name_the_setting(settings, message):
    with pytest.raises(NeurosimError, match=f"(?s){message}"):
        build(AUTOENCODER, **({"channels": (2, 3, 4), "pixels": 8} | settings))


@pytest.mark.parametrize("level", [DENSE, TRAJECTORY, STEADY])
@pytest.mark.parametrize("case", [{}, CNNS["pooled, 2 x 2"]])
def test_images_of_another_shape_are_refused(case, level):
    circuit, net = both(**case, settle=5.0)
    images, labels, weights = problem(net, 2)
    with pytest.raises(
        NeurosimError, match=rf"(?s)({net.sizes[0] + 1}.*{net.sizes[0]}|{net.sizes[0]}.*{net.sizes[0] + 1})"
    ):
        play(circuit, np.pad(images, ((0, 0), (0, 1))), labels, level, weights)
    with pytest.raises(NeurosimError):
        play(circuit, images, labels[:1], level, weights)
    with pytest.raises(NeurosimError, match=str(CLASSES)):
        play(circuit, images, labels * 0 + CLASSES, level, weights)


@pytest.mark.parametrize("level", EULER)
def test_decorrelation_is_refused_in_time(level):
    """It needs the other samples of the batch and all labels at once."""
    circuit, net = both(loss="normalised", decorrelation=0.5)
    images, labels, weights = problem(net, 1)
    with pytest.raises(NeurosimError, match=r"torch:steady"):
        play(circuit, images, labels, level, weights)


def test_pooling_is_refused_on_the_equations_level():
    circuit, net = both(**CNNS["pooled, 2 x 2"])
    images, labels, weights = problem(net, 1)
    with pytest.raises(NeurosimError, match=r"(?s)pool.*(brian2:dense|torch)|(brian2:dense|torch).*pool"):
        play(circuit, images, labels, EQUATIONS, weights)


# ---------------------------------------------------------------- learning


def digits(epochs=8, seed=0, sizes=(64, 128, 128, 128, 10), **settings) -> float:
    """Test accuracy by the note's 8.4 but pixels in [0, 1]: batch 64, rate 0.5, the changes of each net clipped to 1."""
    schedule = {"batch_size": 64, "optimiser": "sgd", "learning_rate": 0.5, "clip": 1.0} | RULES
    if "activation" in settings:
        settings["activation"] = ACTIVATIONS[settings["activation"]]
    settings = {"sizes": sizes} | settings
    run = train(MODEL, None, settings=settings, data="digits", epochs=epochs, seed=seed, progress=False, **schedule)
    print(settings, "test accuracy:", run["test_accuracy"])
    return run["test_accuracy"]


@pytest.mark.parametrize("level", [STEADY, TRAJECTORY, "brian2:dense"])
def test_rates_above_a_baseline_teach_the_same(level):
    """With a baseline b cells send r + b, at least 0 for ELU and b = 1; tonic inhibition takes it off: the same changes."""
    settings = {"sizes": (6, 5, 4, 3), "settle": 60.0}
    plain, raised = (model.circuit(**settings, baseline=b) for b in (0.0, 1.0))
    rng = np.random.default_rng(0)
    images, labels, weights = rng.standard_normal((4, 6)), np.array([0, 2, 1, 2]), learnt(plain.initial_weights(0))
    found = play(plain, images, labels, level, weights).collected
    result = play(raised, images, labels, level, weights)
    assert max(distances({n: result.collected[n] for n in found}, found).values()) <= 1e-12
    sent = [v for ends in result.ends.values() for n, v in ends.items() if n.endswith(".f")]
    assert sent and min(float(v.min()) for v in sent) >= 0.0


def test_matching_the_own_class_alone_collapses():
    """Elementwise matching has a constant solution, the contrast over labels has not."""
    assert digits(own_class=True) <= 0.2
    assert digits() > 0.9


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "accuracy"),
    [
        ({}, 0.93), ({"sizes": (64, *[256] * 5, 10)}, 0.93), ({"labels": "true_and_random"}, 0.91), ({"labels": "true"}, 0.85),
        ({"activation": "relu"}, 0.93), ({"activation": "tanh"}, 0.93), ({"loss": "normalised", "decorrelation": 0.0}, 0.93),
        ({"loss": "normalised"}, 0.92), ({"filter": 0.9}, 0.92),
    ],
)  # fmt: skip
def test_digits(settings, accuracy):
    """Some 2 % below the oracle's own training on the same pixels, which is 1 to 2 % below the note's on centred ones (8.4)."""
    assert digits(epochs=40, **settings) >= accuracy


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["softplus - ln 2", "2*sigmoid - 1"])
def test_rates_above_a_baseline_learn_once_it_is_subtracted(activation):
    plain = {"softplus - ln 2": "softplus", "2*sigmoid - 1": "sigmoid"}[activation]
    assert digits(epochs=40, activation=activation) > 0.7
    assert digits(epochs=40, activation=plain) <= 0.2


@pytest.mark.slow
@pytest.mark.parametrize("layers", ["pooled", "strided"])
def test_digits_by_convolutions(layers):
    assert digits(epochs=30, sizes=(1, 16, 32, 10), layers=layers, pixels=8, loss="normalised") > 0.85
