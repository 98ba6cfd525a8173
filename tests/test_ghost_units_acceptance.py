"""Acceptance tests of the ghost-unit circuit (the reconstruction's theorems), live on every level that claims them.

Oracles: the feed-forward pass and backprop of tests/oracles/ghost_units.py (hand-written NumPy), theorems P1 to P6.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import neurosim
from neurosim import data
from neurosim.analysis import cosine
from neurosim.models import ghost_units
from tests.oracles import ghost_units as oracle

EULER = ("brian2:equations", "brian2:dense", "torch:trajectory")
LEVELS = (*EULER, "torch:steady")
SIZES = (64, 20, 15, 10)


def problem(samples=4):
    digits = data.load("digits")
    return digits.train_images[:samples], digits.train_labels[:samples]


def nets(circuit, seed=0):
    weights = circuit.initial_weights(seed)
    layers = range(1, len(SIZES))
    return [weights[f"W{l}"] for l in layers], [weights[f"b{l}"][0] for l in layers]


def minus_gradient(W, b, images, labels, transfer):
    dW, db = oracle.gradient(W, b, images, np.eye(10)[labels], transfer)
    return {f"W{l + 1}": -g for l, g in enumerate(dW)} | {f"b{l + 1}": -g for l, g in enumerate(db)}


@pytest.mark.parametrize("level", LEVELS)
def test_free_state_is_the_forward_pass(level):
    """P1: with tied ghosts the net feedback is 0 and the free state is the feed-forward net's."""
    circuit = ghost_units.circuit(SIZES, t_free="400*ms", t_nudged="40*ms")
    images, labels = problem(2)
    W, b = nets(circuit)
    run = neurosim.simulate(circuit, images, labels, level=level, dt="0.5*ms", plasticity="off", progress=False)
    a, rates = oracle.forward(W, b, images, "logistic")
    for l in range(1, len(SIZES)):
        np.testing.assert_allclose(run.ends["free"][f"pyr{l}.u"], a[l - 1], atol=1e-6, rtol=0)
        if l < len(SIZES) - 1:
            assert np.abs(run.ends["free"][f"pyr{l}.E"]).max() < 1e-14
    np.testing.assert_allclose(run.readout, rates[-1], atol=1e-6, rtol=0)


def test_free_state_is_the_forward_pass_in_float32():
    circuit = ghost_units.circuit(SIZES)
    images, labels = problem(8)
    W, b = nets(circuit)
    run = neurosim.simulate(
        circuit, images, labels, level="torch:steady", batch_size=8, dtype="float32", plasticity="off", progress=False
    )
    _, rates = oracle.forward(W, b, images, "logistic")
    np.testing.assert_allclose(run.readout, rates[-1], atol=1e-6, rtol=0)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("transfer", ["logistic", "tanh"])
def test_r4_is_the_gradient(level, transfer):
    """P2, P3: the update of every layer points along minus the gradient, cosine at least 0.999 at beta 0.01."""
    circuit = ghost_units.circuit(SIZES, transfer=transfer, beta=0.01, eta=1.0, t_free="150*ms", t_nudged="150*ms")
    images, labels = problem(2)
    W, b = nets(circuit)
    run = neurosim.simulate(circuit, images, labels, level=level, dt="0.5*ms", plasticity="held", progress=False)
    gradient = minus_gradient(W, b, images, labels, transfer)
    for name, wanted in gradient.items():
        got = run.collected[name] / len(images)
        assert cosine(got, np.reshape(wanted, got.shape)) >= 0.999, name
        # eta = 1 divides the update by beta kappa^(L-l), so its norm is the gradient's.
        assert np.linalg.norm(got) / np.linalg.norm(wanted) == pytest.approx(1, abs=0.03), name


@pytest.mark.parametrize("kappa", [1.0, 0.3])
def test_norm_falls_with_kappa(kappa):
    """|R4| / (beta |gradient|) is kappa^(L-l) without the rule's scaling."""
    circuit = ghost_units.circuit(SIZES, beta=0.01, kappa=kappa, eta=1.0)
    images, labels = problem(32)
    W, b = nets(circuit)
    run = neurosim.simulate(
        circuit, images, labels, level="torch:steady", batch_size=32, plasticity="held", progress=False
    )
    gradient = minus_gradient(W, b, images, labels, "logistic")
    top = len(SIZES) - 1
    for l in range(1, top + 1):
        unscaled = run.collected[f"W{l}"] * 0.01 * kappa ** (top - l)
        ratio = np.linalg.norm(unscaled) / (0.01 * np.linalg.norm(gradient[f"W{l}"]))
        assert ratio == pytest.approx(kappa ** (top - l), rel=0.03)


def test_contrast_of_rates_is_biased():
    """P4: R1 is not aligned for l >= 2 (tanh), and is for l = 1."""
    circuit = ghost_units.circuit(SIZES, rule="R1", transfer="tanh", beta=0.01)
    images, labels = problem(32)
    W, b = nets(circuit)
    run = neurosim.simulate(
        circuit, images, labels, level="torch:steady", batch_size=32, plasticity="held", progress=False
    )
    gradient = minus_gradient(W, b, images, labels, "tanh")
    cosines = [cosine(run.collected[f"W{l}"], gradient[f"W{l}"]) for l in (1, 2, 3)]
    assert cosines[0] > 0.99
    assert cosines[1] < 0.99
    assert cosines[2] < 0.99


def target_free(circuit):
    """The circuit with trials of the free phase only: ghosts learn, W stays."""
    protocol = dataclasses.replace(circuit.protocol, phases=circuit.protocol.phases[:1])
    return dataclasses.replace(circuit, protocol=protocol)


def test_ghosts_learn_to_cancel():
    """300 target-free batches cut the residual below 15 % (tanh, kappa 0.3), and then R4 is aligned to at least 0.98."""
    circuit = ghost_units.circuit(SIZES, mode="learned", transfer="tanh", kappa=0.3, beta=0.1)
    digits = data.load("digits")
    rows = np.random.default_rng(0).integers(0, len(digits.train_images), 300 * 32)
    learned = neurosim.simulate(
        target_free(circuit), digits.train_images[rows], digits.train_labels[rows], level="torch:steady", batch_size=32,
        progress=False,
    ).weights  # fmt: skip
    images, labels = problem(64)
    run = neurosim.simulate(
        circuit, images, labels, level="torch:steady", batch_size=64, plasticity="held", weights=learned, progress=False
    )
    free = run.ends["free"]
    for l in (1, 2):
        left = np.sqrt((free[f"pyr{l}.residual"] ** 2).mean() / (free[f"pyr{l}.I_fb"] ** 2).mean())
        assert left < 0.15, f"layer {l}"
    W, b = [learned[f"W{l}"] for l in (1, 2, 3)], [learned[f"b{l}"][0] for l in (1, 2, 3)]
    gradient = minus_gradient(W, b, images, labels, "tanh")
    for l in (1, 2, 3):
        assert cosine(run.collected[f"W{l}"], gradient[f"W{l}"]) >= 0.98, f"layer {l}"


def test_without_ghosts_uncancelled_feedback_misleads():
    """`none` fails: R3 in hidden layers points away from minus the gradient."""
    circuit = ghost_units.circuit(SIZES, mode="none")
    images, labels = problem(64)
    W, b = nets(circuit)
    run = neurosim.simulate(
        circuit, images, labels, level="torch:steady", batch_size=64, plasticity="held", progress=False
    )
    gradient = minus_gradient(W, b, images, labels, "logistic")
    assert cosine(run.collected["W2"], gradient["W2"]) < 0


@pytest.mark.parametrize("level", LEVELS)
def test_online_ghosts_hold_the_feedback(level):
    """P6: `online` cancels the free feedback on every level and is aligned at small kappa."""
    circuit = ghost_units.circuit(SIZES, mode="online", beta=0.05, kappa=0.05, t_free="300*ms", t_nudged="300*ms")
    images, labels = problem(2)
    W, b = nets(circuit)
    run = neurosim.simulate(circuit, images, labels, level=level, dt="0.5*ms", plasticity="held", progress=False)
    assert np.abs(run.ends["free"]["pyr1.E"]).max() < 1e-8
    gradient = minus_gradient(W, b, images, labels, "logistic")
    for l in (1, 2, 3):
        assert cosine(run.collected[f"W{l}"], gradient[f"W{l}"]) >= 0.99, f"layer {l}"


def test_comparison_reports_what_it_promises():
    """Defaults of `compare`: Euler levels to 1e-12, order 1, cosine at beta 0.01, settling with phases of 30 tau."""
    circuit = ghost_units.circuit((64, 12, 11, 10), beta=0.01, t_free="300*ms", t_nudged="320*ms")
    images, labels = problem(2)
    report = neurosim.compare(circuit, images, labels, levels=LEVELS, dt="0.5*ms", progress=False).report
    assert report["steps"] >= 1000
    for pair in report["pairs"]:
        if "torch:steady" not in (pair["a"], pair["b"]):
            assert pair["max_abs_state"] < 1e-12
            assert pair["max_abs_weight"] < 1e-12
    for level in EULER:
        assert report["order"][level] == pytest.approx(1, abs=0.1)
    for level in LEVELS:
        assert all(c >= 0.999 for c in report["update_cosine"][level].values())
        assert all(s < 1e-6 for s in report["settling"][level].values())
    assert all(change > 0 for change in report["weight_change"].values())
