"""Rules on one-to-one weights and ties to them, on every level, against a loop in NumPy.

Each population has a weight per cell; the loop below keeps states (samples, cells) and weights
(cells,) and knows nothing of matrices. The order of a step is that of the documentation: drives,
rules, weights, then potentials.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from circuits import LEVELS, cell, circuit, phase, run, wire

from neurosim import (
    SOURCE,
    Conv2d,
    Given,
    OneToOne,
    PlasticityRule,
    Projection,
    Tied,
)
from neurosim.errors import CircuitError, NeurosimError

STEADY = LEVELS[3]
# `brian2:equations` takes longest: where the others say the same, it waits for the slow tests.
MOST = [pytest.param(LEVELS[0], marks=pytest.mark.slow), *LEVELS[1:]]
DT, TAU = 0.5e-3, 10e-3
STEPS = {"one": 10, "two": 8}  # of the phases
N = 3
ETA = 40.0
X = np.random.default_rng(2).uniform(0.2, 1.5, (6, N)) * np.array([1, -1, 1])
START = np.array([0.4, -0.2, 0.7])
FACTOR = -0.5


@dataclass(frozen=True)
class Case:
    """A rule: its right-hand side as text and as F(w, r, I, x), and when the weights follow."""

    right: str
    law: object
    apply: str = "now"
    bounds: tuple = (None, None)
    filter: float | None = None  # s
    phases: tuple[str, ...] = ("two",)

    @property
    def name(self) -> str:
        return "both" if len(self.phases) == 2 else "second"


def hebb(w, r, drive, x):
    return r * x


def decay(w, r, drive, x):
    return r * x - w


def late(w, r, drive, x):
    return (drive - 0.5 * r) * x + 0 * w


def by_rate(w, r, drive, x):
    return x - w * r**2


def bias(w, r, drive, x):
    return 0.3 - r + 0 * x


TEXT = {
    hebb: "eta*r_post*r_pre", decay: "eta*(r_post*r_pre - w)",
    late: "eta*(I_post - half*r_post)*r_pre",
    by_rate: "eta*r_pre - eta*w*r_post**2", bias: "eta*(third - r_post)",
}  # fmt: skip
BOTH = ("one", "two")
CASES = {
    "a": Case(TEXT[hebb], hebb),
    "b": Case(TEXT[decay], decay, bounds=(-0.1, 0.45), phases=BOTH),
    "c": Case(TEXT[late], late, "phase", phases=BOTH),
    "d": Case(TEXT[by_rate], by_rate, "trial", filter=5e-3),
    "e": Case(TEXT[hebb], hebb, filter=4e-3, phases=BOTH),
    "f": Case(TEXT[decay], decay, "trial", (None, 0.4)),
    "g": Case(TEXT[by_rate], by_rate, "phase", (-0.05, None), 3e-3, BOTH),
    "h": Case(TEXT[bias], bias, phases=BOTH),
}
TIED = ("a", "b", "d")
CONSTANTS = {"eta": f"{ETA}*Hz", "half": 0.5, "third": 0.3}


def learner(reset: bool):
    """A population for each case, and behind some of them one driven by tied weights, -0.5 w."""
    c = cell("du/dt = (-u + I)/tau : 1; r = tanh(u) : 1; I : 1", tau="10*ms")
    populations, wires = {"inp": (N, SOURCE)}, []
    for name, case in CASES.items():
        known = {k: v for k, v in CONSTANTS.items() if k in case.right}
        filter = None if case.filter is None else f"{case.filter}*second"
        learns = PlasticityRule(
            case.name, f"dw/dt = {case.right}", known, case.apply, case.bounds, filter
        )  # fmt: skip
        populations[f"p_{name}"] = (N, c)
        wires.append(wire(f"W_{name}", "inp", f"p_{name}.I", START, learns, one_to_one=True))
        if name in TIED:
            populations[f"q_{name}"] = (N, c)
            wires.append(
                wire(
                    f"T_{name}",
                    f"p_{name}",
                    f"q_{name}.I",
                    tied=f"W_{name}",
                    factor=FACTOR,
                    one_to_one=True,
                )
            )
    phases = [phase("one", "5*ms", ["both"]), phase("two", "4*ms", ["both", "second"])]
    return circuit(populations, wires, phases, {"inp.r": "image"}, reset=reset)


def clipped(w, bounds):
    return (
        w
        if bounds == (None, None)
        else np.clip(
            w, *(np.inf * s if b is None else b for b, s in zip(bounds, (-1, 1), strict=True))
        )
    )  # fmt: skip


def by_hand(case: Case, batch: int, reset: bool, steady: bool, held: bool = False):
    """Weights, what was collected, u and v (of the tied population) at the ends of phases."""
    w, collected, ends = START.copy(), np.zeros(N), {name: ([], []) for name in STEPS}
    u = v = None
    for k in range(len(X) // batch):
        x = X[k * batch : (k + 1) * batch]
        if reset or u is None:
            u, v, trace = np.zeros((batch, N)), np.zeros((batch, N)), np.zeros(N)
        total = np.zeros(N)
        for name, steps in STEPS.items():
            on = name in case.phases
            if steady:
                u = x * w
                v = np.tanh(u) * FACTOR * w
                ends[name][0].append(u), ends[name][1].append(v)
                F, T = ETA * case.law(w, np.tanh(u), u, x).mean(axis=0), steps * DT
                change = T * F
                if case.filter is not None:  # integrated exactly, as the trace relaxes to F
                    left = np.exp(-T / case.filter)
                    change = F * T + (trace - F) * case.filter * (1 - left)
                    trace = F + (trace - F) * left if on else trace
                total = total + change * on
                if case.apply == "now" and not held:
                    w, total = clipped(w + total, case.bounds) if on else w, np.zeros(N)
            for step in range(0 if steady else steps):
                r, drive, follow = np.tanh(u), x * w, np.tanh(u) * FACTOR * w
                if step == steps - 1:
                    ends[name][0].append(u), ends[name][1].append(v)
                if on:
                    F = ETA * case.law(w, r, drive, x).mean(axis=0)
                    change = DT * (F if case.filter is None else trace)
                    trace = trace if case.filter is None else trace + DT / case.filter * (F - trace)
                    if case.apply == "now" and not held:
                        w = clipped(w + change, case.bounds)
                    else:
                        total = total + change
                u, v = u + DT / TAU * (drive - u), v + DT / TAU * (follow - v)
            if case.apply == "phase" and not held and on:
                w, total = clipped(w + total, case.bounds), np.zeros(N)
        if case.apply == "trial" and not held:
            w = clipped(w + total, case.bounds)
        collected = collected + total
    return w, collected, {name: tuple(map(np.concatenate, values)) for name, values in ends.items()}


RUNS = [
    ("brian2:equations", 1, "float64", True), ("brian2:dense", 1, "float64", True),
    ("brian2:dense", 3, "float64", False),
    ("torch:trajectory", 1, "float64", True), ("torch:trajectory", 3, "float64", True),
    ("torch:trajectory", 3, "float64", False),
    ("torch:trajectory", 3, "float32", True), (STEADY, 1, "float64", True),
    (STEADY, 3, "float64", True), (STEADY, 3, "float32", True),
]  # fmt: skip


@pytest.mark.parametrize(("level", "batch", "dtype", "reset"), RUNS)
def test_rules_and_ties_against_the_loop(level, batch, dtype, reset):
    """Weights, and states at the ends of phases, of the cells and of those behind the tie."""
    result = run(learner(reset), level, X, batch_size=batch, dtype=dtype)
    near = dict(rel=1e-9, abs=1e-11) if dtype == "float64" else dict(rel=2e-5, abs=2e-5)
    for name, case in CASES.items():
        w, _, ends = by_hand(case, batch, reset, level == STEADY)
        assert np.abs(w - START).max() > 1e-2
        assert result.weights[f"W_{name}"].shape == (N,)
        assert result.weights[f"W_{name}"] == pytest.approx(w, **near), (
            name,
            case.right,
            case.apply,
        )
        for phase_name in STEPS:
            u, v = ends[phase_name]
            assert result.ends[phase_name][f"p_{name}.u"] == pytest.approx(u, **near), (
                name,
                phase_name,
            )
            if name in TIED:
                assert result.ends[phase_name][f"q_{name}.u"] == pytest.approx(v, **near), (
                    name,
                    phase_name,
                )


@pytest.mark.parametrize(
    ("level", "batch"), [(level, 3) for level in LEVELS[1:]]
)  # fmt: skip
def test_a_held_change_is_collected_per_cell(level, batch):
    """The sum over trials of the mean over a batch, weights held; the bounds have no say in it."""
    result = run(learner(True), level, X, batch_size=batch, plasticity="held")
    for name, case in CASES.items():
        _, collected, _ = by_hand(case, batch, True, level == STEADY, held=True)
        assert np.array_equal(result.weights[f"W_{name}"], START)
        assert result.collected[f"W_{name}"] == pytest.approx(collected, rel=1e-9, abs=1e-12), name


def test_a_batch_is_a_mean_of_samples():
    """With weights held, six trials of one sample collect six times what a batch of six does."""
    one, six = (
        run(learner(True), "torch:trajectory", X, batch_size=b, plasticity="held").collected
        for b in (1, 6)
    )  # fmt: skip
    for name in one:
        assert one[name] == pytest.approx(6 * six[name], rel=1e-12), name


@pytest.mark.parametrize("level", MOST)
def test_one_to_one_is_the_diagonal_of_a_dense_projection(level):
    """Under a rule that leaves zeros alone a dense diagonal has the same numbers."""
    c = cell("du/dt = (-u + I)/tau : 1; r = tanh(u) : 1; I : 1", tau="10*ms")
    learns = PlasticityRule(
        "both", "dw/dt = eta*w*(half - r_post)", {"eta": "40*Hz", "half": 0.5}, "trial"
    )  # fmt: skip
    found = []
    for one_to_one in (True, False):
        weights = START if one_to_one else np.diag(START)
        wires = [wire("W", "inp", "p.I", weights, learns, one_to_one=one_to_one)]
        net = circuit(
            {"inp": (N, SOURCE), "p": (N, c)},
            wires,
            [phase("one", "5*ms", ["both"])],
            {"inp.r": "image"},
        )
        found.append(run(net, level, X[:2]).weights["W"])
    assert np.diag(found[1]) == pytest.approx(found[0], rel=1e-12)
    assert not (found[1] - np.diag(np.diag(found[1]))).any()


@pytest.mark.parametrize("level", MOST)
def test_recorded_weights_and_a_recurrent_population(level):
    """Cells that drive themselves: recorded weights go from what was given to what is returned."""
    c = cell(
        "du/dt = (-u + I + J)/tau : 1; r = tanh(u) : 1; I : 1; J : 1", ports=["I", "J"], tau="10*ms"
    )  # fmt: skip
    learns = PlasticityRule("both", "dw/dt = eta*(r_post*r_pre - w)", {"eta": "20*Hz"}, "trial")
    wires = [
        wire("S", "inp", "p.J", one_to_one=True),
        wire("W", "p", "p.I", 0.3 * START, learns, one_to_one=True),
    ]
    net = circuit(
        {"inp": (N, SOURCE), "p": (N, c)},
        wires,
        [phase("one", "5*ms", ["both"])],
        {"inp.r": "image"},
    )
    result = run(net, level, X[:2], record=["W"])
    u, w, rows = np.zeros(N), 0.3 * START, [0.3 * START]
    for x in X[:2]:
        u, total = np.zeros(N), np.zeros(N)
        if level == STEADY:
            for _ in range(400):
                u = x + np.tanh(u) * w
            total = 20 * 5e-3 * (np.tanh(u) ** 2 - w)
        for _ in range(0 if level == STEADY else 10):
            r = np.tanh(u)
            total, u = total + DT * 20 * (r * r - w), u + DT / TAU * (x + r * w - u)
        w = w + total
        rows.append(w)
    assert result.traces.weights["W"] == pytest.approx(np.array(rows), rel=1e-8)
    assert result.weights["W"] == pytest.approx(w, rel=1e-8)


# ------------------------------------------------------------------ refused

CELL = cell("du/dt = (-u + I)/tau : 1; r = tanh(u) : 1; I : 1", tau="10*ms")
LEARNS = PlasticityRule("both", "dw/dt = eta*r_post*r_pre", {"eta": "1*Hz"})


def refused(*projections: Projection, n: int = N, message: str = ""):
    populations = {"inp": (N, SOURCE), "p": (n, CELL), "q": (n, CELL)}
    with pytest.raises((CircuitError, NeurosimError), match=message):
        net = circuit(
            populations, projections, [phase("one", "5*ms", ["both"])], {"inp.r": "image"}
        )  # fmt: skip
        net.initial_weights(0)


OWNER = Projection("W", "inp", "p.I", Given(START), LEARNS, connectivity=OneToOne())


def test_ties_between_unlike_projections():
    """One to one and dense weights have other shapes, and so have convolutions."""
    refused(OWNER, Projection("T", "p", "q.I", Tied("W")), message="T")
    dense = Projection("W", "inp", "p.I", Given(np.eye(N)), LEARNS)
    refused(dense, Projection("T", "p", "q.I", Tied("W"), connectivity=OneToOne()), message="T")
    refused(OWNER, Projection("T", "p", "q.I", Tied("W"), connectivity=Conv2d(1)), message="T")


def test_ties_have_neither_weights_nor_rules():
    """What is tied reads: a start or a rule of its own would never be seen."""
    refused(
        OWNER, Projection("T", "p", "q.I", Tied("W"), LEARNS, connectivity=OneToOne()), message="T"
    )  # fmt: skip


def test_shapes_and_sizes():
    """As many cells on both sides, and as many weights."""
    refused(OWNER, Projection("T", "p", "q.I", connectivity=OneToOne()), n=N + 1, message="W")
    for values in (np.eye(N), START[:2], np.ones((2, N))):
        refused(
            replace(OWNER, weights=Given(values)),
            Projection("T", "p", "q.I", connectivity=OneToOne()),
            message="shape",
        )


def test_a_vector_that_is_transposed():
    """A vector is its own transpose: a tie says the same either way, or is refused by name."""
    tie = Projection("T", "p", "q.I", Tied("W", factor=2.0, transpose=True), connectivity=OneToOne())
    populations = {"inp": (N, SOURCE), "p": (N, CELL), "q": (N, CELL)}
    try:
        net = circuit(
            populations,
            [replace(OWNER, rule=None), tie],
            [phase("one", "400*ms")],
            {"inp.r": "image"},
        )
    except CircuitError as error:
        assert "T" in str(error)
        return
    for level in LEVELS[2:]:
        found = run(net, level, X[:1], dt="1*ms").ends["one"]["q.u"][0]
        assert found == pytest.approx(2 * START * np.tanh(X[0] * START), rel=1e-9)


@pytest.mark.parametrize(("one_to_one", "shape", "wanted"), [(True, (3, 3), r"\(3,\)"), (True, (2,), r"\(3,\)"), (False, (3, 2), r"\(2, 3\)")])  # fmt: skip
def test_given_weights_of_a_wrong_shape_are_refused_when_built(one_to_one, shape, wanted):
    """By the projection's name; a row of n numbers is one number per cell."""
    source = "t" if one_to_one else "s"
    c = cell("du/dt = (-u + I)/tau : 1; r = u : 1; I : 1", tau="1*ms", optional=["I"])

    def build(weights):
        return circuit({"s": (2, c), "t": (3, c)}, [wire("W", source, "t.I", weights, one_to_one=one_to_one)])

    with pytest.raises(CircuitError, match=rf"'W': given weights have shape .*; wanted {wanted}"):
        build(np.ones(shape))
    build(np.ones((1, 3) if one_to_one else (2, 3)))
