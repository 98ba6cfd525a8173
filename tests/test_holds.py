"""Sample-and-hold on every level, against a loop in NumPy in the documented order of a step.

Pools and early variables, drives, late variables and rule factors; then what is held; then
recorders, weights and potentials. So in the last step of its phase a hold still has its old value
in expressions and rules, and its new one in the rows of a recording and in a state's equation.
"""

from __future__ import annotations

import numpy as np
import pytest
from circuits import LEVELS, cell, circuit, hold, phase, rule, run, wire

import neurosim
from neurosim import SOURCE, Phase, Windows
from neurosim.errors import CircuitError

STEADY = LEVELS[3]
# `brian2:equations` takes longest: where the others say the same, it waits for the slow tests.
MOST = [pytest.param(LEVELS[0], marks=pytest.mark.slow), *LEVELS[1:]]
DT, TAU = 0.5e-3, 10e-3
STEPS = {"one": 8, "two": 6, "three": 5}
DURATIONS = {"one": "4*ms", "two": "3*ms", "three": "2.5*ms"}
X = np.random.default_rng(3).uniform(-1.5, 1.5, (4, 3))
W = np.array([[0.3, -0.4], [0.5, 0.2], [-0.6, 0.7]])
Q = np.array([[0.5, 0.1], [-0.3, 0.4]])

PYRAMIDAL = """
    du/dt = (-u + I + 0.2*h_u + 0.1*shown)/tau : 1
    r = tanh(u) - 0.1*h_r : 1
    error = I - h_drive : 1
    shown = h_early + h_late : 1
    I : 1
    y : 1
"""
#: What is held, and when; two of them in one phase, one in the last.
HOLDS = {
    "h_u": ("u", "one"), "h_r": ("r", "one"), "h_drive": ("I", "one"), "h_error": ("error", "two"),
    "h_early": ("early", "one"),
    "h_late": ("late", "two"), "h_y": ("y", "two"), "h_last": ("u", "three"),
}  # fmt: skip
RULES = {
    "w": "eta*(r_post - h_r_post + 0.3*h_early_post)*r_pre",
    "q": "eta*(h_drive_post + 1)*(h_u_pre + 0.2*h_late_pre)",
}
ETA = 30.0
SHOWN = ("u", "r", "error", "shown", *HOLDS)


def held(apply: str):
    """`inp` drives `p`, `p` drives `q`; both weights learn from what `p` holds, in all phases."""
    c = cell(
        PYRAMIDAL,
        ports=["I"],
        inputs=["y"],
        pools={"early": "r**2", "late": "I"},
        holds=HOLDS,
        tau="10*ms",
    )
    d = cell(
        "dv/dt = (-v + I)/tau : 1; r = v : 1; I : 1", holds={"h_drive": ("I", "two")}, tau="10*ms"
    )  # fmt: skip
    first = rule(RULES["w"], "w", apply, eta=f"{ETA}*Hz")
    second = rule(RULES["q"], "q", apply, eta=f"{ETA}*Hz")
    return circuit(
        {"inp": (3, SOURCE), "p": (2, c), "q": (2, d)},
        [wire("W", "inp", "p.I", W, first), wire("Q", "p", "q.I", Q, second)],
        [phase(name, duration, ["w", "q"]) for name, duration in DURATIONS.items()],
        {"inp.r": "image", "p.y": "target"},
    )  # fmt: skip


def nothing(batch: int) -> dict[str, np.ndarray]:
    return {
        **{name: np.zeros((batch, 2)) for name in HOLDS},
        "h_early": np.zeros((batch, 1)),
        "h_late": np.zeros((batch, 1)),
        "q.h_drive": np.zeros((batch, 2)),
    }


def outer(pre, post):
    """The mean over samples of the outer products."""
    return np.einsum("bi,bj->ij", pre, np.broadcast_to(post, (len(pre), 2))) / len(pre)


def by_hand(y: np.ndarray, batch: int, apply: str, level: str):
    """Weights, rows of all variables (trials x steps), and the last row of each phase."""
    w, q, rows, ends = W.copy(), Q.copy(), [], {name: [] for name in STEPS}
    for k in range(len(X) // batch):
        part = slice(k * batch, (k + 1) * batch)
        x, target, h = X[part], y[part], nothing(batch)
        u, v = np.zeros((batch, 2)), np.zeros((batch, 2))
        total = [0 * w, 0 * q]
        for name, steps in STEPS.items():
            for step in range(1 if level == STEADY else steps):
                drive = x @ w
                shown = h["h_early"] + h["h_late"]
                if level == STEADY:  # q's input does not come back, so both are explicit
                    u = drive + 0.2 * h["h_u"] + 0.1 * shown
                r = np.tanh(u) - 0.1 * h["h_r"]
                behind = r @ q
                if level == STEADY:
                    v = behind
                error = drive - h["h_drive"]
                now = {
                    "u": u,
                    "r": r,
                    "error": error,
                    "shown": np.broadcast_to(shown, u.shape),
                    "I": drive,
                    "y": target,
                }
                pools = {
                    "early": (r**2).sum(axis=1, keepdims=True),
                    "late": drive.sum(axis=1, keepdims=True),
                }
                change = [
                    ETA * outer(x, r - h["h_r"] + 0.3 * h["h_early"]),
                    ETA
                    * outer(
                        np.broadcast_to(h["h_u"] + 0.2 * h["h_late"], u.shape), h["q.h_drive"] + 1
                    ),
                ]  # fmt: skip
                last = step == steps - 1 or level == STEADY
                if last:
                    h = {
                        n: h[n]
                        if n == "q.h_drive" or HOLDS[n][1] != name
                        else {**now, **pools}[HOLDS[n][0]]
                        for n in h
                    }  # fmt: skip
                    if name == "two":
                        h["q.h_drive"] = behind
                row = {
                    **{n: now[n] for n in ("u", "r", "error", "shown")},
                    **{n: h[n] for n in HOLDS},
                    "v": v,
                }
                rows.append({n: np.broadcast_to(a, (batch, 2)) for n, a in row.items()})
                if last:
                    ends[name].append(rows[-1])
                dt = steps * DT if level == STEADY else DT
                if apply == "now":
                    w, q = w + dt * change[0], q + dt * change[1]
                else:
                    total = [a + dt * b for a, b in zip(total, change, strict=True)]
                if level != STEADY:
                    u, v = (
                        u
                        + DT
                        / TAU
                        * (-u + drive + 0.2 * h["h_u"] + 0.1 * shown),  # `shown` is an expression
                        v + DT / TAU * (-v + behind),
                    )  # fmt: skip
            if apply == "phase":
                w, q, total = w + total[0], q + total[1], [0 * w, 0 * q]
        w, q = w + total[0], q + total[1]
    return (
        w,
        q,
        rows,
        {
            name: {n: np.concatenate([row[n] for row in kept]) for n in kept[0]}
            for name, kept in ends.items()
        },
    )  # fmt: skip


RUNS = [(level, 1, "now") for level in LEVELS] + [
    ("brian2:dense", 2, "phase"), ("torch:trajectory", 4, "now"), ("torch:trajectory", 2, "trial"),
    (STEADY, 2, "trial"),
    (STEADY, 4, "phase"), ("torch:trajectory", 2, "phase"),
]  # fmt: skip


@pytest.mark.parametrize(("level", "batch", "apply"), RUNS)
def test_rules_read_what_was_held_before(level, batch, apply):
    """Weights, states and all rows of holds and of what reads them; a new trial holds nothing."""
    y = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    record = [f"p.{name}" for name in SHOWN]
    result = run(held(apply), level, X, y, batch_size=batch, record=record)
    w, q, rows, ends = by_hand(y, batch, apply, level)
    for name in SHOWN:
        wanted = np.array([row[name] for row in rows])
        # Of weights that stand still within a trial, the held error is 0.
        assert np.abs(wanted).max() > 1e-2 or name == "h_error"
        assert result.traces[f"p.{name}"] == pytest.approx(wanted, rel=1e-9, abs=1e-12), name
    for name in STEPS:
        for variable in ("u", "r", "error", "shown"):
            assert result.ends[name][f"p.{variable}"] == pytest.approx(
                ends[name][variable], rel=1e-9, abs=1e-12
            )  # fmt: skip
        assert result.ends[name]["q.v"] == pytest.approx(ends[name]["v"], rel=1e-9, abs=1e-12)
    assert np.abs(w - W).max() > 1e-2 and np.abs(q - Q).max() > 1e-2
    assert result.weights["W"] == pytest.approx(w, rel=1e-9)
    assert result.weights["Q"] == pytest.approx(q, rel=1e-9)


@pytest.mark.parametrize("level", MOST[:3])
def test_a_state_reads_the_new_value_and_an_expression_the_old_one(level):
    """In the last step u moves by the new value, v by an expression in which the old one stands."""
    text = (
        "dx/dt = (-x + 1)/tau : 1; du/dt = h/tau : 1; dv/dt = through/tau : 1; through = 2*h : 1; "
        "r = x : 1"
    )  # fmt: skip
    net = circuit(
        {"p": (1, cell(text, holds={"h": ("x", "one")}, tau="10*ms"))},
        phases=[phase("one", "2*ms"), phase("two", "2*ms")],
    )
    traces = run(net, level, record=["p.x", "p.u", "p.v", "p.h", "p.through"]).traces
    x = 1 - (1 - DT / TAU) ** np.arange(8)
    new, old = (np.arange(8) >= k for k in (3, 4))
    assert traces["p.x"][:, 0, 0] == pytest.approx(x, rel=1e-12)
    assert traces["p.h"][:, 0, 0] == pytest.approx(x[3] * new, rel=1e-12)
    assert traces["p.through"][:, 0, 0] == pytest.approx(2 * x[3] * old, rel=1e-12)
    assert traces["p.u"][:, 0, 0] == pytest.approx(
        DT / TAU * x[3] * np.concatenate([[0], np.cumsum(new)[:-1]]), rel=1e-12
    )
    assert traces["p.v"][:, 0, 0] == pytest.approx(
        DT / TAU * 2 * x[3] * np.concatenate([[0], np.cumsum(old)[:-1]]), rel=1e-12
    )


@pytest.mark.parametrize("level", LEVELS)
def test_another_name_for_a_hold(level):
    """`a = h` is half of `b = 2*h` in all rows, also in the last of a phase."""
    holds = {"h": ("x", "one"), "g": ("P", "one"), "f": ("I", "one")}
    names = "; ".join(f"a_{h} = {h} : 1; b_{h} = 2*{h} : 1" for h in holds)
    c = cell(
        f"dx/dt = (-x + 1)/tau : 1; r = x : 1; I : 1; {names}",
        pools={"P": "x**2"},
        holds=holds,
        inputs=["I"],
        tau="10*ms",
    )
    net = circuit(
        {"p": (1, c)}, phases=[phase("one", "2*ms"), phase("two", "2*ms")], clamps={"p.I": "image"}
    )  # fmt: skip
    result = run(net, level, [[0.5]], record=[f"p.{x}_{h}" for x in "ab" for h in holds])
    for h in holds:
        a, b = (result.traces[f"p.{x}_{h}"][:, 0, 0] for x in "ab")
        assert (b[:2] == 0).sum() >= 1 and b[-1] > 0
        assert np.array_equal(2 * a, b), h
        for name in ("one", "two"):
            assert 2 * result.ends[name][f"p.a_{h}"] == result.ends[name][f"p.b_{h}"], (h, name)


# ------------------------------------------------------------------ windows

LABELS = np.array([[0.5, -1.0], [1.5, 0.25], [-2.0, 0.75]])
WINDOWED = """
    du/dt = (-u + I + 0.5*each)/tau : 1
    r = u : 1
    seen = each - first : 1
    sum_ = 2*pooled : 1
    I : 1
"""
WINDOW_HOLDS = {
    "each": ("u", "settle"),
    "first": ("u", "settle[0]"),
    "later": ("I", "learn[1]"),
    "pooled": ("P", "settle"),
    "early_": ("u", "free"),
}


def windowed():
    c = cell(WINDOWED, pools={"P": "u**2"}, holds=WINDOW_HOLDS, tau="10*ms")
    windows = Windows(
        (Phase("settle", "3*ms"), Phase("learn", "2*ms", plastic=("rule",))),
        clamps={"label.r": "label"},
    )
    learns = rule("eta*(u_post - each_post)*r_pre", apply="trial", eta="50*Hz")
    populations = {
        "inp": (2, SOURCE),
        "label": (3, SOURCE),
        "p": (2, c),
        "t": (3, cell("r = y : 1; y : 1", inputs=["y"])),
    }
    wires = [wire("X", "inp", "p.I", one_to_one=True), wire("L", "label", "p.I", LABELS, learns)]
    return circuit(
        populations, wires, [phase("free", "2*ms"), windows], {"inp.r": "image", "t.y": "target"}
    )  # fmt: skip


@pytest.mark.parametrize("level", MOST)
def test_the_value_of_each_window_is_taken_in_turn(level):
    """A loop through windows: `settle` is taken in each, `settle[0]` and `learn[1]` in one only."""
    images, own = np.array([[0.3, -0.8], [0.9, 0.1]]), [1, 2]
    names = ["u", "seen", "sum_", *WINDOW_HOLDS]
    result = run(windowed(), level, images, own, record=[f"p.{name}" for name in names])
    rows, weights = [], LABELS.copy()
    for x in images:
        u, h, total = np.zeros(2), dict.fromkeys(WINDOW_HOLDS, np.zeros(2)), np.zeros((3, 2))
        phases = [("free", 4, None)] + [
            (f"{n}[{k}]", s, k) for k in range(3) for n, s in (("settle", 6), ("learn", 4))
        ]  # fmt: skip
        for name, steps, k in phases:
            drive = x + (0 if k is None else weights[k])
            for step in range(1 if level == STEADY else steps):
                if level == STEADY:
                    u = drive + 0.5 * h["each"]
                pool, seen, sum_ = np.full(2, (u**2).sum()), h["each"] - h["first"], 2 * h["pooled"]
                change = 50.0 * (u - h["each"])
                if step == steps - 1 or level == STEADY:
                    taken = {"u": u, "I": drive, "P": pool}
                    for hold, (of, when) in WINDOW_HOLDS.items():
                        if name == when or name.partition("[")[0] == when:
                            h = {**h, hold: taken[of]}
                rows.append({"u": u, "seen": seen, "sum_": sum_, **h})
                if name.startswith("learn"):
                    total[k] = total[k] + (steps * DT if level == STEADY else DT) * change
                if level != STEADY:
                    u = u + DT / TAU * (-u + drive + 0.5 * h["each"])
        weights = weights + total
    for name in names:
        wanted = np.array([row[name] for row in rows])
        assert result.traces[f"p.{name}"][:, 0] == pytest.approx(wanted, rel=1e-9, abs=1e-12), name
    assert result.weights["L"] == pytest.approx(weights, rel=1e-9)


# ------------------------------------------------------------------ refused, described


@pytest.mark.parametrize(
    ("held", "message"),
    [
        (hold("h", "nothing", "one"), "nothing"), (hold("h", "u", "another"), "another"),
        (hold("h", "u", "one[0]"), "one"),
        (hold("u", "r", "one"), "'u'"), (hold("tau", "r", "one"), "'tau'"),
        (hold("h", "tau", "one"), "tau"),
    ],
)  # fmt: skip
def test_holds_that_cannot_be(held, message):
    """An unknown variable or phase, and a name that is taken."""
    c = cell("du/dt = (-u + 1)/tau : 1; r = u : 1", tau="10*ms", parts={"holds": (held,)})
    with pytest.raises(CircuitError, match=message):
        circuit({"p": (2, c)}, phases=[phase("one")])


def test_two_holds_of_one_name_are_refused():
    """The second would hide the first."""
    twice = (hold("h", "u", "one"), hold("h", "r", "one"))
    c = cell("du/dt = (-u + 1)/tau : 1; r = u : 1", tau="10*ms", parts={"holds": twice})
    with pytest.raises(CircuitError, match="'h'"):
        circuit({"p": (2, c)}, phases=[phase("one")])


@pytest.mark.parametrize("level", MOST)
def test_units_of_holds(level):
    """A held current has its unit and acts as one: V moves by R times what I was."""
    text = "dV/dt = (-V + R*(I + h))/tau : volt; r = V/one : 1; I : amp"
    c = cell(text, holds={"h": ("I", "one")}, tau="10*ms", R="100*Mohm", one="1*volt")
    net = circuit(
        {"p": (2, c)},
        [wire("W", "one", "p.I", np.array([[1e-10, -2e-10]]))],
        [phase("one", "4*ms"), phase("two", "4*ms")],
    )
    result = run(net, level, record=["p.h", "p.V"])
    assert "h" in neurosim.describe(net) and result.traces.units["p.h"] in ("A", "amp")
    volts = 1e8 * np.array([1e-10, -2e-10])
    if level == STEADY:
        expected = 2 * volts
    else:
        v = 0.0
        for step in range(15):
            v = v + DT / TAU * (-v + (2.0 if step >= 7 else 1.0))
        expected = v * volts
    assert result.ends["two"]["p.V"][0] == pytest.approx(expected, rel=1e-10)
    assert result.traces["p.h"][-1, 0] == pytest.approx([1e-10, -2e-10], rel=1e-12)
