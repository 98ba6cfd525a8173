"""Nothing that is read is NaN in silence; maxima keep exponentials finite.

Oracles: NumPy's maxima in Euler loops, scipy.special.softmax, and IEEE arithmetic, where
exp(800)/(1 + exp(800)) is inf/inf.
"""

from __future__ import annotations

import re

import numpy as np
import pytest
from circuits import IN_TIME, LEVELS, alone, cell, circuit, phase, rule, run, wire
from scipy.special import softmax

from neurosim import SOURCE, Phase, Windows
from neurosim.errors import CircuitError, DivergenceError
from neurosim.models import counter_current, tdca

STEADY = LEVELS[3]
# `brian2:equations` takes longest: where the others say the same, it waits for the slow tests.
MOST = [pytest.param(LEVELS[0], marks=pytest.mark.slow), *LEVELS[1:]]
DT, TAU = 0.5e-3, 10e-3


def batch_of(level: str, samples: int) -> int:
    """`brian2:equations` presents one sample at a time."""
    return 1 if level == LEVELS[0] else samples


# ------------------------------------------------------------------ maxima

MAXIMA = """
    du/dt = (-u + I - 0.3*late)/tau : 1
    dv/dt = (-v + early)/tau : 1
    r = u - early : 1
    early_ = early : 1
    late_ = late : 1
    I : 1
"""
POOLS = {"early": "tanh(u) - 2", "late": "2*I - 1"}
STEPS = 8
N = 12
X = np.random.default_rng(0).uniform(
    -3, -1, (3, N)
)  # all drives are negative, and so are all maxima  # fmt: skip


def maxima(over: str, duration: str = "4*ms"):
    pools = {name: ("map max" if over == "map" else "max", text) for name, text in POOLS.items()}
    shape = (2, 2, 3) if over == "map" else N
    c = cell(MAXIMA, pools=pools, tau="10*ms", parts={"initial": {"u": -0.5}})
    wires = [wire("W", "inp", "p.I", one_to_one=True)]
    return circuit(
        {"inp": (shape, SOURCE), "p": (shape, c)},
        wires,
        [phase("only", duration)],
        {"inp.r": "image"},
    )


def largest(x: np.ndarray, over: str) -> np.ndarray:
    """The maximum over the cells, or over those of each map of six, at each cell."""
    maps = x.reshape(len(x), 2 if over == "map" else 1, -1)
    return np.broadcast_to(maps.max(axis=2, keepdims=True), maps.shape).reshape(x.shape)


def moved(u, v, drive, over, steps: int, tau: float = TAU):
    """Euler: u and v in the last of so many steps."""
    for _ in range(steps - 1):
        early = largest(np.tanh(u) - 2, over)
        u, v = (
            u + DT / tau * (-u + drive - 0.3 * largest(2 * drive - 1, over)),
            v + DT / tau * (early - v),
        )
    return u, v


@pytest.mark.parametrize("over", ["population", "map"])
@pytest.mark.parametrize("level", MOST)
def test_maxima_of_states_and_of_drives(level, over):
    """Euler loop, or fixed point, with NumPy's maxima of negative numbers, sample by sample."""
    found = run(maxima(over), level, X, batch_size=batch_of(level, 3)).ends["only"]
    late = largest(2 * X - 1, over)
    if level == STEADY:
        u = X - 0.3 * late
        v = largest(np.tanh(u) - 2, over)
    else:
        u, v = moved(np.full((3, N), -0.5), np.zeros((3, N)), X, over, STEPS)
    early = largest(np.tanh(u) - 2, over)
    for name, expected in {"u": u, "v": v, "early_": early, "late_": late, "r": u - early}.items():
        shown = np.broadcast_to(found[f"p.{name}"], (3, N))
        assert shown == pytest.approx(expected, rel=1e-10, abs=1e-12), name


LABELS = np.array(
    [[-1.0, -2.0, -0.5], [-3.0, -0.2, -2.0]]
)  # drive of label k in each of three cells  # fmt: skip
PIXELS = np.array([[-0.5, 0.3, -1.5], [-2.5, -0.4, -1.0], [0.1, -3.0, -0.2]])


@pytest.mark.parametrize(
    ("level", "labels"),
    [*((level, "all") for level in LEVELS), *((level, "true") for level in LEVELS[2:])],
)
def test_maxima_in_windows(level, labels):
    """Each window has its own maxima: fixed points, or an Euler loop through the windows."""
    c = cell(MAXIMA, pools={name: ("max", text) for name, text in POOLS.items()}, tau="10*ms")
    windows = Windows((Phase("settle", "4*ms"),), labels=labels, clamps={"label.r": "label"})
    net = circuit(
        {"inp": (3, SOURCE), "label": (2, SOURCE), "p": (3, c),
            "t": (2, cell("r = y : 1; y : 1", inputs=["y"]))},
        [wire("W", "inp", "p.I", one_to_one=True), wire("L", "label", "p.I", LABELS)], [windows],
        {"inp.r": "image", "t.y": "target"},
    )  # fmt: skip
    own = np.array([1, 0, 1])
    found = run(net, level, PIXELS, own, batch_size=batch_of(level, 3)).ends
    u = v = before = np.zeros((3, 3))
    for k in range(2 if labels == "all" else 1):
        drive = PIXELS + (LABELS[own] if labels == "true" else LABELS[k])
        late = largest(2 * drive - 1, "population")
        if level == STEADY:
            u = drive - 0.3 * late
            v = largest(np.tanh(u) - 2, "population")
        else:
            # A window begins with the step that ends the one before.
            u, v = moved(u, v, drive if k == 0 else before, "population", 1 if k == 0 else 2)
            u, v = moved(u, v, drive, "population", STEPS)
        before = drive
        for name, expected in {
            "u": u,
            "v": v,
            "late_": late,
            "early_": largest(np.tanh(u) - 2, "population"),
        }.items():
            shown = np.broadcast_to(found[f"settle[{k}]"][f"p.{name}"], (3, 3))
            assert shown == pytest.approx(expected, rel=1e-9, abs=1e-12), (k, name)


def test_a_maximum_over_the_batch_is_refused():
    """It would be no sum that is divided by the number of samples."""
    c = cell("du/dt = (-u + P)/tau : 1; r = u : 1; P = pool_max(u, batch) : 1", tau="1*ms")
    with pytest.raises(CircuitError, match="the axis 'batch' in 'P = pool_max"):
        alone(c)


SOFTMAX = (
    "du/dt = (-u + I)/tau : 1; r = exp(u - top)/total : 1; own = exp(v - peak)/sum_ : 1; "
    "v = 2*I : 1; I : 1"
)  # fmt: skip
SOFT_POOLS = {
    "top": ("max", "u"),
    "total": "exp(u - top)",
    "peak": ("max", "v"),
    "sum_": "exp(v - peak)",
}


@pytest.mark.parametrize(
    ("level", "dtype", "scale"),
    [(level, "float64", 1e4) for level in LEVELS[:2]]
    + [
        (level, dtype, scale)
        for level in LEVELS[2:]
        for dtype in ("float64", "float32")
        for scale in (1.0, 1e2, 1e4)
    ],
)  # fmt: skip
def test_softmax_of_large_logits(level, dtype, scale):
    """scipy.special.softmax of the level's own logits, of a state and of a drive."""
    images = scale * np.array(
        [[0.5, 1.0, -1.0, 0.999], [-1.0, -0.5, -0.9, -0.501], [0.0, 0.0, 0.0, 0.0]]
    )  # fmt: skip
    c = cell(SOFTMAX, pools=SOFT_POOLS, tau="10*ms")
    net = circuit(
        {"inp": (4, SOURCE), "p": (4, c)},
        [wire("W", "inp", "p.I", one_to_one=True)],
        clamps={"inp.r": "image"},
    )
    found = run(net, level, images, batch_size=batch_of(level, 3), dtype=dtype).ends["only"]
    u = found["p.u"].astype(float)
    near = 1e-12 if dtype == "float64" else 2e-7
    settled = 1.0 if level == STEADY else 1 - (1 - DT / TAU) ** 39
    assert u == pytest.approx(images * settled, rel=1e-10 if dtype == "float64" else 1e-5)
    # Of rounded logits the softmax is exact, as their difference to the largest is.
    assert np.abs(found["p.r"] - softmax(u, axis=1)).max() < 10 * near
    assert np.abs(found["p.own"] - softmax(found["p.v"].astype(float), axis=1)).max() < 10 * near
    assert found["p.r"].sum(axis=1) == pytest.approx(np.ones(3), abs=10 * near)


# ------------------------------------------------------------------ NaN and infinity are named

FAR = {"parts": {"initial": {"u": 800.0}}, "goal": 800.0, "tau": "10*ms"}
BROKEN = "du/dt = (-u + goal)/tau : 1; r = exp(u)/(1 + exp(u)) : 1"


@pytest.mark.parametrize("how", ["sent", "read out", "recorded"])
@pytest.mark.parametrize("level", LEVELS)
def test_a_rate_that_is_no_number(level, how):
    """inf/inf at u = 800 in what somebody reads: the error names it."""
    populations = {
        "p": (2, cell(BROKEN, **FAR)),
        "q": (2, cell("du/dt = (-u + I)/tau : 1; r = u : 1; I : 1", tau="10*ms")),
    }
    source = "p" if how == "sent" else "p.u"
    net = circuit(
        populations,
        [wire("W", source, "q.I", 1e-3 * np.eye(2))],
        readout=("p.r", "only") if how == "read out" else None,
    )
    with pytest.raises(DivergenceError, match=re.escape(f"{level}: 'p.r'")):
        run(net, level, record=["p.r"] if how == "recorded" else ())


RECORDED = {
    "logarithm": "q = log(u - 1) : 1",
    "root": "q = sqrt(u - 1) : 1",
    "quotient": "q = one/(u - u) : 1",
    "zero by zero": "q = (u - u)/(u - u) : 1",
    "overflow": "q = exp(far + u) : 1",
    "power": "q = (u - 1)**half : 1",
    "of a port": "q = log(I - 1) : 1",
    "of another": "q = log(a) : 1; a = -one - u**2 : 1",
}


@pytest.mark.parametrize(
    ("level", "what"),
    [*((x, what) for x in LEVELS[2:] for what in RECORDED), ("brian2:dense", "of a port")],
)
def test_a_recorded_variable_that_nothing_else_reads(level, what):
    """It is NaN or infinite in every step, and recorded alone: the error names it."""
    values = {
        name: value
        for name, value in {"one": 1.0, "far": 1000.0, "half": 0.5}.items()
        if name in RECORDED[what]
    }  # fmt: skip
    c = cell(f"du/dt = (-u + I)/tau : 1; r = u : 1; I : 1; {RECORDED[what]}", tau="10*ms", **values)
    net = circuit(
        {"p": (2, c)}, [wire("W", "one", "p.I", np.full((1, 2), 0.3))], [phase("only", "2*ms")]
    )  # fmt: skip
    if level != LEVELS[1]:
        assert run(net, level).ends["only"]["p.u"].all()  # nobody asked for it
    with pytest.raises(DivergenceError, match=r"'p\.q'"):
        run(net, level, record=["p.u", "p.q"])


def test_a_recorded_variable_on_the_equations_level():
    """As above, where each run takes longer."""
    c = cell(f"du/dt = (-u + 1)/tau : 1; r = u : 1; {RECORDED['logarithm']}", tau="10*ms")
    with pytest.raises(DivergenceError, match=r"'p\.q'"):
        run(alone(c, 2, "2*ms"), LEVELS[0], record=["p.q"])


ONCE = "du/dt = (-u + 1)/tau : 1; r = u : 1; q = 1/(1 - int(t >= a)*int(t < b)) : 1"


@pytest.mark.parametrize(
    ("level", "step"),
    [(level, step) for level in IN_TIME[1:] for step in (0, 7, 39)] + [(LEVELS[0], 7)],
)
def test_infinite_in_one_step_only(level, step):
    """1/0 in one of forty steps, finite when somebody looks later: the error names it."""
    c = cell(ONCE, tau="10*ms", a=f"{step * 0.5}*ms", b=f"{step * 0.5 + 0.5}*ms")
    with pytest.raises(DivergenceError, match=r"'p\.q'"):
        run(alone(c, 2), level, record=["p.q"])


@pytest.mark.parametrize("level", IN_TIME[1:])
def test_a_step_that_is_not_recorded_may_be_infinite(level):
    """Of every third step, step 7 is none: nobody reads it, and all rows are finite."""
    c = cell(ONCE, tau="10*ms", a="3.5*ms", b="4*ms")
    rows = run(alone(c, 2), level, record=["p.q"], stride=3).traces["p.q"]
    assert np.array_equal(rows, np.ones((14, 1, 2)))


@pytest.mark.parametrize("level", MOST[:3])
def test_what_is_sent_is_infinite_in_one_step(level):
    """The cells behind it are lost for good: the error names the source or what it drove."""
    populations = {
        "p": (1, cell(ONCE, rate="q", tau="10*ms", a="3.5*ms", b="4*ms")),
        "z": (1, cell("du/dt = (-u + I)/tau : 1; r = u : 1; I : 1", tau="10*ms")),
    }
    with pytest.raises(DivergenceError, match=r"'(p\.q|z\.u)'"):
        run(circuit(populations, [wire("W", "p", "z.I", np.ones((1, 1)))]), level)


@pytest.mark.parametrize("level", MOST)
def test_a_readout_that_is_no_number_in_one_window(level):
    """The logarithm of 0.5 - I in the second label's window; joined windows are looked at too."""
    c = cell(
        "du/dt = (-u + I)/tau : 1; r = u : 1; q = log(half - I) : 1; I : 1", tau="10*ms", half=0.5
    )  # fmt: skip
    windows = Windows((Phase("settle", "2*ms"),), clamps={"label.r": "label"})
    weights = np.array([[0.1, 0.2], [0.3, 0.9]])  # of label 1, the second cell's 0.9 is above 0.5
    populations = {
        "label": (2, SOURCE),
        "p": (2, c),
        "t": (2, cell("r = y : 1; y : 1", inputs=["y"])),
    }
    more = dict(phases=[windows], clamps={"t.y": "target"}, readout=("p.q", "settle[1]"))
    with pytest.raises(DivergenceError, match=r"'p\.q'"):
        run(
            circuit(populations, [wire("W", "label", "p.I", weights)], **more),
            level,
            np.zeros((1, 1)),
            [0],
        )
    weights[1, 1] = 0.4
    read = run(
        circuit(populations, [wire("W", "label", "p.I", weights)], **more),
        level,
        np.zeros((1, 1)),
        [0],
    ).readout
    assert read == pytest.approx(np.log(0.5 - weights[1:]), rel=1e-12)


@pytest.mark.parametrize(
    ("level", "apply"),
    [
        *((x, a) for x in LEVELS[2:] for a in ("now", "phase", "trial")),
        *((x, "now") for x in LEVELS[:2]),
    ],
)
def test_weights_that_a_rule_turns_into_nan(level, apply):
    """log(-0.5) in a rule: the error names the weights or what they drive."""
    learns = rule("eta*r_post*log(r_pre)", apply=apply, eta="1*Hz")
    c = cell("du/dt = (-u + I + 1)/tau : 1; r = u : 1; I : 1", tau="10*ms")
    net = circuit(
        {"inp": (2, SOURCE), "p": (2, c)},
        [wire("W", "inp", "p.I", np.ones((2, 2)), learns)],
        [phase("only", "4*ms", ["rule"])],
        {"inp.r": "image"},
    )
    with pytest.raises(DivergenceError, match=r"'(W|p\.\w+)'"):
        run(net, level, np.array([[-0.5, 0.5], [0.3, 0.3]]))


@pytest.mark.parametrize("level", MOST)
def test_weights_that_are_nan_after_the_last_trial(level):
    """One trial, the change added at its end: no state is NaN by then, the weights are."""
    learns = rule("eta*r_post*log(r_pre)", apply="trial", eta="1*Hz")
    c = cell("du/dt = (-u + I + 1)/tau : 1; r = u : 1; I : 1", tau="10*ms")
    net = circuit(
        {"inp": (2, SOURCE), "p": (2, c)},
        [wire("W", "inp", "p.I", np.ones((2, 2)), learns)],
        [phase("only", "4*ms", ["rule"])],
        {"inp.r": "image"},
    )
    with pytest.raises(DivergenceError, match=r"\bW\b"):
        run(net, level, np.array([[-0.5, 0.5]]))


@pytest.mark.parametrize("level", MOST[:3])
def test_the_error_holds_what_was_recorded(level):
    """The eight rows up to step 7 stand in `error.result`, u by its closed form."""
    c = cell(ONCE, tau="10*ms", a="3.5*ms", b="4*ms")
    with pytest.raises(DivergenceError) as caught:
        run(alone(c, 2), level, record=["p.u", "p.q"])
    traces = caught.value.result.traces
    assert len(traces["p.u"]) >= 8
    assert traces["p.u"][:8, 0, 1] == pytest.approx(1 - (1 - DT / TAU) ** np.arange(8), rel=1e-12)
    assert np.array_equal(np.isfinite(traces["p.q"][:8, 0, 0]), np.arange(8) != 7)


def test_the_error_on_the_steady_level_holds_the_phases_before():
    """The first phase has a row; in the second the logarithm has no value."""
    c = cell("du/dt = (-u + 1)/tau : 1; r = u : 1; q = log(a - 1) : 1; a : 1 (shared)", tau="10*ms")
    net = circuit({"p": (2, c)}, phases=[phase("one", a=3.0), phase("two", a=0.5)])
    with pytest.raises(DivergenceError, match=r"'p\.q'.*phase 'two'") as caught:
        run(net, STEADY, record=["p.q"])
    assert caught.value.result.traces["p.q"][0] == pytest.approx(np.log(2.0))


# ------------------------------------------------------------------ models

MODELS = {
    "counter-current": (counter_current.circuit, dict(sizes=(9, 6, 5, 3), settle=60.0)),
    "counter-current, normalised": (counter_current.circuit,
        dict(sizes=(9, 6, 5, 3), settle=60.0, loss="normalised", decorrelation=0.0)),
    "tdca": (tdca.circuit, dict(sizes=(9, 6, 5, 3), settle=60.0)),
    "tdca, backprop": (tdca.circuit, dict(sizes=(9, 6, 5, 3), settle=60.0, credits="bp")),
}  # fmt: skip


@pytest.mark.parametrize("level", LEVELS[2:])
@pytest.mark.parametrize("model", MODELS)
def test_strong_weights_leave_finite_probabilities(model, level):
    """Ten thousand times the weights: rates of the readout are probabilities in float32."""
    make, options = MODELS[model]
    net = make(**options)
    weights = {name: 1e4 * w for name, w in net.initial_weights(3).items()}
    images = np.random.default_rng(1).uniform(0, 1, (4, 9))
    read = run(
        net,
        level,
        images,
        [0, 1, 2, 0],
        weights=weights,
        batch_size=4,
        dtype="float32",
        plasticity="off",
        dt="1*ms",
    ).readout
    assert np.isfinite(read).all() and (read >= 0).all()
    assert read.sum(axis=1) == pytest.approx(np.ones(4), abs=1e-5)
