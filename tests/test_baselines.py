"""Equilibrium propagation, predictive coding and the trainer's backward passes against independent NumPy oracles.

The trajectory levels against forward Euler, the steady level against fixed points solved by Newton's method, the circuits' weight
changes against the gradients that the theory names.
"""

from __future__ import annotations

from functools import lru_cache, partial

import numpy as np
import pytest
from oracles import equilibrium_propagation as ep
from oracles import feedback_alignment as fa
from oracles import ghost_units
from oracles import predictive_coding as pc

import neurosim
from neurosim.backends import engine_class
from neurosim.backends.engine import Options
from neurosim.models import equilibrium_propagation, predictive_coding
from neurosim.training import Trainer, resolve

DEEP, FLAT = (6, 5, 4, 3), (6, 5, 3)
EP = [
    ("hard_sigmoid", "symmetric", DEEP),
    ("logistic", "one_sided", DEEP),
    ("tanh", "symmetric", FLAT),
    ("tanh", "one_sided", FLAT),
]
PC = [("tanh", DEEP), ("logistic", FLAT), ("identity", DEEP)]
#: of the output's error, by transfer function
VARIANCE = {"tanh": 4.0, "logistic": 1.0, "identity": 2.5}
LEVELS = [
    ("brian2:equations", 1), ("brian2:dense", 1), ("brian2:dense", 4), ("torch:trajectory", 1), ("torch:trajectory", 4)
]  # fmt: skip
TIMES = {"tau": "10*ms", "t_learn": "5*ms"}
PHYSICS = {"tau": 10e-3, "t_learn": 5e-3, "dt": 5e-4}
STEPS = {
    "one_sided": {"free": 20, "free_end": 10, "nudged": 14, "nudged_end": 10},
    "symmetric": {"free": 30, "nudged": 14, "nudged_end": 10, "negative": 14, "negative_end": 10},
    "predictive_coding": {"free": 30, "clamped": 14, "clamped_end": 10},
}


def ends_of(steps: dict[str, int]) -> list[str]:
    """The oracle's last phase of each of the circuit's: `x_end` is the plastic end of `x`."""
    return [phase for phase in steps if f"{phase}_end" not in steps]


@lru_cache
def problem(sizes, transfer, samples):
    """Weights by name, images, targets."""
    known = transfer if transfer in ghost_units.TRANSFER else "tanh"
    W, b, images, targets = ghost_units.random_problem(sizes, samples, known, 3)
    weights = {f"W{l}": 0.5 * value for l, value in enumerate(W, 1)}
    return weights | {f"b{l}": value[None] for l, value in enumerate(b, 1)}, images, targets


def ep_circuit(transfer, nudging, sizes, beta=0.3, eta=1.0):
    times = TIMES | {"t_free": "15*ms", "t_nudged": "12*ms"}
    return equilibrium_propagation.circuit(sizes, transfer=transfer, nudging=nudging, beta=beta, eta=eta, **times)


def pc_circuit(transfer, sizes, eta=1.0, t_free="15*ms"):
    times = TIMES | {"tau_error": "3*ms", "t_free": t_free, "t_clamped": "12*ms"}
    return predictive_coding.circuit(sizes, transfer=transfer, variance=VARIANCE[transfer], eta=eta, **times)


def run(circuit, level, weights, images, targets, batch, **options):
    return neurosim.simulate(
        circuit, images, targets, level=level, batch_size=batch, weights=weights, dt="0.5*ms", progress=False, **options
    )


def trials(euler, weights, images, targets, batch):
    """Values at the ends of phases and the weights after all batches, by an oracle of one trial."""
    ends: dict = {}
    for rows in np.split(np.arange(len(images)), len(images) // batch):
        once, weights = euler(weights, images[rows], targets[rows])
        for phase, values in once.items():
            for name, value in values.items():
                ends.setdefault(phase, {}).setdefault(name, []).append(value)
    return {p: {n: np.concatenate(v) for n, v in values.items()} for p, values in ends.items()}, weights


def assert_near(found, wanted, limit, relative=False):
    for name, value in wanted.items():
        assert found[name].shape == value.shape, name
        scale = np.abs(value).max() if relative else 1
        assert np.abs(found[name] - value).max() <= limit * scale, name


def moved(weights, before):
    return {name: weights[name] - value for name, value in before.items()}


# ---------------------------------------------------------------- trajectory levels against forward Euler


def check_trajectory(circuit, euler, weights, images, targets, level, batch):
    ends, after = trials(euler, weights, images, targets, batch)
    assert min(np.abs(change).max() for change in moved(after, weights).values()) > 1e-4
    result = run(circuit, level, weights, images, targets, batch)
    assert list(result.ends) == [name.removesuffix("_end") for name in ends_of(ends)]
    for name in ends_of(ends):
        assert_near(result.ends[name.removesuffix("_end")], ends[name], 1e-12)
    assert_near(result.weights, after, 1e-12)


@pytest.mark.parametrize(("transfer", "nudging", "sizes"), EP)
@pytest.mark.parametrize(("level", "batch"), LEVELS)
def test_equilibrium_propagation_equals_the_euler_oracle(transfer, nudging, sizes, level, batch):
    options = {"transfer": transfer, "nudging": nudging, "beta": 0.3, "eta": 1.0, "steps": STEPS[nudging]}
    check_trajectory(
        ep_circuit(transfer, nudging, sizes), partial(ep.euler, **options, **PHYSICS),
        *problem(sizes, transfer, 2 * batch), level, batch,
    )  # fmt: skip


@pytest.mark.parametrize(("transfer", "sizes"), PC)
@pytest.mark.parametrize(("level", "batch"), LEVELS)
def test_predictive_coding_equals_the_euler_oracle(transfer, sizes, level, batch):
    options = {
        "transfer": transfer,
        "variance": VARIANCE[transfer],
        "eta": 1.0,
        "tau_error": 3e-3,
        "steps": STEPS["predictive_coding"],
    }
    check_trajectory(
        pc_circuit(transfer, sizes), partial(pc.euler, **options, **PHYSICS), *problem(sizes, transfer, 2 * batch),
        level, batch,
    )  # fmt: skip


# ---------------------------------------------------------------- the steady level against fixed points


def steady(circuit, weights, images, targets):
    """One batch on the steady level, as exact as it gets."""
    options = Options(batch=len(images), tolerance=1e-14, max_sweeps=2000, progress=False)
    engine = engine_class("torch:steady")(circuit.plan, dict(weights), options)
    return engine.present({"image": images, "target": targets})


@pytest.mark.parametrize(("transfer", "nudging", "sizes"), EP)
def test_equilibrium_propagation_at_rest_equals_the_fixed_points(transfer, nudging, sizes):
    weights, images, targets = problem(sizes, transfer, 4)
    states, changes = ep.steady(weights, images, targets, transfer=transfer, nudging=nudging, beta=0.3, eta=0.7)
    result = steady(ep_circuit(transfer, nudging, sizes, eta=0.7), weights, images, targets)
    for phase in (name.removesuffix("_end") for name in ends_of(STEPS[nudging])):
        u = states[phase]
        assert_near(result.ends[phase], {f"pyr{l}.u": value for l, value in enumerate(u, 1)}, 1e-8)
    assert_near(moved(result.weights, weights), changes, 1e-8)
    assert min(np.abs(change).max() for change in changes.values()) > 1e-3


@pytest.mark.parametrize(("transfer", "sizes"), PC)
def test_predictive_coding_at_rest_equals_the_minimum_of_the_energy(transfer, sizes):
    weights, images, targets = problem(sizes, transfer, 4)
    states, changes = pc.steady(weights, images, targets, transfer=transfer, variance=VARIANCE[transfer], eta=0.7)
    result = steady(pc_circuit(transfer, sizes, eta=0.7), weights, images, targets)
    for phase in (name.removesuffix("_end") for name in ends_of(STEPS["predictive_coding"])):
        assert_near(result.ends[phase], states[phase], 1e-8)
    assert_near(moved(result.weights, weights), changes, 1e-8)
    assert min(np.abs(change).max() for change in changes.values()) > 1e-3


# ---------------------------------------------------------------- theorems


@pytest.mark.parametrize("transfer", ["hard_sigmoid", "logistic", "tanh"])
@pytest.mark.parametrize(("nudging", "beta", "limit"), [("one_sided", 1e-5, 1e-4), ("symmetric", 1e-4, 1e-6)])
def test_a_small_nudge_follows_the_gradient_at_the_free_fixed_point(transfer, nudging, beta, limit):
    weights, images, targets = problem(DEEP, transfer, 4)
    result = steady(ep_circuit(transfer, nudging, DEEP, beta), weights, images, targets)
    assert_near(
        moved(result.weights, weights), ep.descent(weights, images, targets, transfer=transfer), limit, relative=True
    )


@pytest.mark.parametrize("transfer", list(pc.TRANSFER))
def test_predictive_coding_descends_the_minimal_energy(transfer):
    weights, images, targets = problem(DEEP, transfer, 4)
    result = steady(pc_circuit(transfer, DEEP), weights, images, targets)
    assert_near(
        moved(result.weights, weights),
        pc.descent(weights, images, targets, transfer=transfer, variance=VARIANCE[transfer]),
        1e-7,
        relative=True,
    )


@pytest.mark.parametrize("nudging", ["one_sided", "symmetric"])
def test_equilibrium_propagation_rests_where_the_target_is_the_free_output(nudging):
    weights, images, targets = problem(DEEP, "logistic", 4)
    circuit = ep_circuit("logistic", nudging, DEEP)
    output = steady(circuit, weights, images, targets).readout
    assert np.abs(output - targets).max() > 0.1
    assert_near(steady(circuit, weights, images, output).weights, weights, 1e-12)


@pytest.mark.parametrize("transfer", list(pc.TRANSFER))
def test_predictive_coding_reads_out_the_feedforward_net(transfer):
    """And its weights rest where the target is that net's output."""
    weights, images, targets = problem(DEEP, transfer, 4)
    output = pc.feedforward(weights, images, transfer=transfer)[-1]
    assert_near({"x": steady(pc_circuit(transfer, DEEP), weights, images, targets).readout}, {"x": output}, 1e-12)
    assert_near(steady(pc_circuit(transfer, DEEP), weights, images, output).weights, weights, 1e-12)
    result = run(pc_circuit(transfer, DEEP, t_free="1*second"), "torch:trajectory", weights, images, targets, 4)
    assert_near({"x": result.readout}, {"x": output}, 1e-10)


# ---------------------------------------------------------------- backward passes of the trainer

METHODS = ["backprop", "feedback_alignment", "direct_feedback_alignment"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("optimiser", "rate", "limit"), [("sgd", 0.3, 1e-12), ("adam", 0.01, 1e-10)])
@pytest.mark.parametrize(
    ("model", "transfers"),
    [("ghost_units", ("logistic",) * 3), ("predictive_coding", ("tanh", "tanh", "identity"))],
)
def test_twenty_updates_equal_the_oracle(model, transfers, method, optimiser, rate, limit):
    sizes = (64, 7, 6, 10)
    config = resolve(
        model, {"sizes": sizes, "transfer": transfers[0]}, method=method, dtype="float64", optimiser=optimiser,
        learning_rate=rate, batch_size=5, limit=5,
    )  # fmt: skip
    engine = Trainer(config, progress=False).engine
    feedback = {name: np.asarray(value).copy() for name, value in engine.feedback.items()}
    if method == "direct_feedback_alignment":
        assert {name: value.shape for name, value in feedback.items()} == {"W1": (10, 7), "W2": (10, 6)}
    before = engine.weights()
    rng = np.random.default_rng(8)
    images, targets = rng.uniform(size=(100, 64)), np.eye(10)[rng.integers(10, size=100)]
    engine.present({"image": images, "target": targets}, learn="on")
    batches = list(zip(np.split(images, 20), np.split(targets, 20), strict=True))
    train = partial(getattr(fa, optimiser), before, batches, rate=rate, transfers=transfers, feedback=feedback)
    wanted = train(method=method)
    assert_near(engine.weights(), wanted, limit, relative=optimiser == "adam")
    assert all(np.array_equal(engine.feedback[name], value) for name, value in feedback.items())  # they are fixed
    if method != "backprop":
        assert np.abs(wanted["W1"] - train(method="backprop")["W1"]).max() > 1e-3
