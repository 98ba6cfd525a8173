"""The ghost-unit circuit on the trajectory levels against an independent NumPy oracle, one trial with live plasticity."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from conftest import run_circuit
from oracles import ghost_units as oracle

from neurosim.backends import engine_class
from neurosim.backends.engine import Options
from neurosim.models import ghost_units

SIZES = (12, 8, 6, 4)
LAYERS = len(SIZES) - 1
TAU, DT = 10e-3, 5e-4
T_FREE, T_NUDGED, T_LEARN = 15e-3, 12e-3, 5e-3
STEPS = {"steps_free": 30, "steps_nudged": 14, "steps_gate": 10}
KAPPA, BETA, ETA = 0.4, 0.3, 1.0
LEVELS = [
    pytest.param("brian2:dense", 1, marks=pytest.mark.slow),
    ("torch:trajectory", 1),
    ("brian2:dense", 3),
    ("torch:trajectory", 3),
]
MODES = ["exact", "learned", "online", "none"]


@lru_cache(maxsize=32)
def circuit(mode: str, feedback: str = "sym", transfer: str = "logistic"):
    return ghost_units.circuit(
        SIZES, mode, feedback, "R4", transfer, kappa=KAPPA, beta=BETA, eta=ETA, tau=f"{TAU!r}*second",
        t_free=f"{T_FREE!r}*second", t_nudged=f"{T_NUDGED!r}*second", t_learn=f"{T_LEARN!r}*second",
    )  # fmt: skip


@lru_cache(maxsize=32)
def problem(mode: str, feedback: str, transfer: str, samples: int):
    """Random weights in the oracle's form and in the circuit's, stimuli."""
    W, b, x, y = oracle.random_problem(SIZES, samples, transfer, seed=5)
    weights = {f"W{l}": w for l, w in enumerate(W, 1)} | {f"b{l}": v[None] for l, v in enumerate(b, 1)}
    extra = {}
    rng = np.random.default_rng(6)
    if feedback == "fa":
        extra["B"] = [rng.standard_normal(w.T.shape) for w in W[1:]]
        weights |= {f"B{l}": v for l, v in enumerate(extra["B"], 1)}
    if mode == "learned":
        extra |= oracle.noisy_ghosts(W, b, 0.2, seed=7)
        for l in range(1, LAYERS):
            weights |= {f"V{l}": extra["V"][l - 1], f"c{l}": extra["c"][l - 1][None], f"G{l}": extra["G"][l - 1]}
            weights |= {f"teach{l}": np.ones(SIZES[l + 1]), f"d{l}": np.zeros((1, SIZES[l]))}
            weights |= {f"mean{l}": np.zeros((1, SIZES[l])), f"ghost_mean{l}": np.zeros((1, SIZES[l + 1]))}
    if mode == "online":
        weights |= {f"G{l}": np.ones(SIZES[l]) for l in range(1, LAYERS)}
    return W, b, extra, weights, {"image": x, "target": y}


@lru_cache(maxsize=64)
def expected(mode, feedback, transfer, samples, hold_weights=False):
    W, b, extra, _, stimuli = problem(mode, feedback, transfer, samples)
    return oracle.euler(
        W, b, stimuli["image"], stimuli["target"], transfer=transfer, mode=mode, kappa=KAPPA, beta=BETA, tau=TAU, dt=DT,
        eta=ETA, hold_weights=hold_weights, **STEPS, **extra,
    )  # fmt: skip


def recorded(mode: str) -> tuple[str, ...]:
    ghosts = () if mode == "none" else tuple(f"ghost{l}.u" for l in range(1, LAYERS))
    return (*(f"pyr{l}.{v}" for l in range(1, LAYERS + 1) for v in ("u", "E", "E_free")), *ghosts)


@lru_cache(maxsize=64)
def play(mode, feedback, transfer, level, samples, dtype="float64", learn="on"):
    *_, weights, stimuli = problem(mode, feedback, transfer, samples)
    return run_circuit(
        circuit(mode, feedback, transfer), level, stimuli, {name: w.copy() for name, w in weights.items()}, dt=DT,
        batch=samples, dtype=dtype, learn=learn, record=recorded(mode),
    )  # fmt: skip


def assert_equals_oracle(result, truth, mode, limit, transfer="logistic"):
    for l in range(1, LAYERS + 1):
        assert np.abs(result.traces[f"pyr{l}.u"] - truth["u"][l - 1][:-1]).max() <= limit, f"u{l}"
        assert np.abs(result.traces[f"pyr{l}.E"] - truth["E"][l - 1]).max() <= limit, f"E{l}"
        assert np.abs(result.traces[f"pyr{l}.E_free"][-1] - truth["E_free"][l - 1]).max() <= limit, f"E_free{l}"
        assert np.abs(result.weights[f"W{l}"] - truth["W"][l - 1]).max() <= limit, f"W{l}"
        assert np.abs(result.weights[f"b{l}"][0] - truth["b"][l - 1]).max() <= limit, f"b{l}"
    if mode != "none":
        for l in range(1, LAYERS):
            assert np.abs(result.traces[f"ghost{l}.u"] - truth["g"][l - 1][:-1]).max() <= limit, f"g{l}"
    top = oracle.TRANSFER[transfer][0](truth["u"][-1][STEPS["steps_free"] - 1])
    assert np.abs(result.readout - top).max() <= limit


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("feedback", ["sym", "fa"])
@pytest.mark.parametrize(("level", "samples"), LEVELS)
def test_trial_equals_the_oracle(mode, feedback, level, samples):
    truth = expected(mode, feedback, "logistic", samples)
    assert max(np.abs(d).max() for d in truth["dW"]) > 1e-3  # the weights move
    assert_equals_oracle(play(mode, feedback, "logistic", level, samples), truth, mode, 1e-12)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("feedback", ["sym", pytest.param("fa", marks=pytest.mark.slow)])
def test_trial_on_the_equations_level_equals_the_oracle(mode, feedback):
    truth = expected(mode, feedback, "logistic", 1)
    assert_equals_oracle(play(mode, feedback, "logistic", "brian2:equations", 1), truth, mode, 1e-12)


SLOW_EQUATIONS = [
    pytest.param("brian2:equations", 1, marks=pytest.mark.slow), ("brian2:dense", 3), ("torch:trajectory", 3)
]  # fmt: skip


@pytest.mark.parametrize("transfer", ["tanh", "hard_sigmoid"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("level", "samples"), SLOW_EQUATIONS)
def test_transfers_equal_the_oracle(transfer, mode, level, samples):
    truth = expected(mode, "sym", transfer, samples)
    result = play(mode, "sym", transfer, level, samples)
    assert_equals_oracle(result, truth, mode, 1e-12, transfer)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("feedback", ["sym", "fa"])
def test_float32_is_near(mode, feedback):
    truth = expected(mode, feedback, "logistic", 3)
    result = play(mode, feedback, "logistic", "torch:trajectory", 3, dtype="float32")
    assert result.weights["W1"].dtype == np.float32
    assert_equals_oracle(result, truth, mode, 1e-4)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("level", "samples"), SLOW_EQUATIONS)
def test_held_change_equals_the_oracle(mode, level, samples):
    """``learn="held"``: the change is collected, the weights stay."""
    truth = expected(mode, "sym", "logistic", samples, hold_weights=True)
    result = play(mode, "sym", "logistic", level, samples, learn="held")
    weights = problem(mode, "sym", "logistic", samples)[3]
    for l in range(1, LAYERS + 1):
        assert np.abs(result.collected[f"W{l}"] - truth["dW"][l - 1]).max() <= 1e-12, f"W{l}"
        assert np.abs(result.collected[f"b{l}"][0] - truth["db"][l - 1]).max() <= 1e-12, f"b{l}"
    for name, value in weights.items():
        assert np.array_equal(result.weights[name], value), name


@pytest.mark.parametrize(("level", "samples"), SLOW_EQUATIONS)
def test_learned_ghosts_change_as_their_rules_say(level, samples):
    """V, c, G, d and the means: the rules of docs/circuits.md, summed over the free phase's end, added after the trial."""
    mode = "learned"
    *_, weights, _ = problem(mode, "sym", "logistic", samples)
    truth = expected(mode, "sym", "logistic", samples)
    rho = oracle.TRANSFER["logistic"][0]
    window = round(T_LEARN / DT)
    steps = slice(STEPS["steps_free"] - window, STEPS["steps_free"])
    result = play(mode, "sym", "logistic", level, samples)
    share = DT / T_LEARN / samples
    for l in range(1, LAYERS):
        u, g, above = truth["u"][l - 1][steps], truth["g"][l - 1][steps], truth["u"][l][steps]
        residual = truth["E"][l - 1][steps] / KAPPA
        r, rg = rho(u), rho(g)
        # the running means are 0 in the first trial
        centred = r / (0.1 + (r**2).sum(-1, keepdims=True))
        ghost_centred = rg / (0.1 + (rg**2).sum(-1, keepdims=True))
        change = {
            "V": 0.5 * np.einsum("sbi,sbj->ij", centred, above - g),
            "c": 0.2 * (above - g).sum((0, 1))[None],
            "G": 0.5 * np.einsum("sbi,sbj->ij", ghost_centred, residual),
            "d": 0.2 * residual.sum((0, 1))[None],
            "mean": 0.05 * r.sum((0, 1))[None],
            "ghost_mean": 0.05 * rg.sum((0, 1))[None],
        }
        for name, value in change.items():
            wanted = weights[f"{name}{l}"] + share * value
            assert np.abs(share * value).max() > 1e-6
            assert np.abs(result.weights[f"{name}{l}"] - wanted).max() <= 1e-12, f"{name}{l}"


@pytest.mark.parametrize("level", ["brian2:equations", "brian2:dense", "torch:trajectory"])
def test_exact_ghosts_cancel_the_feedback_without_a_target(level):
    """Theorem: with tied ghosts and equal time constants E is 0 in the hidden layers while there is no target."""
    result = play("exact", "sym", "logistic", level, 1)
    for l in range(1, LAYERS):
        assert np.abs(result.traces[f"pyr{l}.E"][: STEPS["steps_free"]]).max() < 1e-14
        assert np.abs(result.traces[f"pyr{l}.E"][STEPS["steps_free"] :]).max() > 1e-4


@pytest.mark.parametrize("level", ["brian2:equations", "brian2:dense", "torch:trajectory"])
def test_weights_go_on_from_call_to_call(level):
    """Two trials in one call equal one trial in each of two calls."""
    _, _, _, weights, _ = problem("exact", "fa", "logistic", 1)
    _, _, x, y = oracle.random_problem(SIZES, 2, "logistic", seed=9)
    plan = circuit("exact", "fa").plan
    options = Options(batch=1, dt=DT, progress=False)
    together = engine_class(level)(plan, {n: w.copy() for n, w in weights.items()}, options)
    together.present({"image": x, "target": y})
    apart = engine_class(level)(plan, {n: w.copy() for n, w in weights.items()}, options)
    for k in range(2):
        apart.present({"image": x[k : k + 1], "target": y[k : k + 1]})
    moved = 0.0
    for name, value in together.weights().items():
        assert np.abs(apart.weights()[name] - value).max() <= 1e-13, name
        moved = max(moved, np.abs(value - weights[name]).max())
    assert moved > 1e-3
