"""Relations with the time against counted steps: no rounding of a multiple of dt moves an edge.

A cell k of a population of 201 has a limit b = k dt, in three roundings; what a relation should
say follows from the number of the step alone, an integer.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from brian2 import second
from circuits import IN_TIME, LEVELS, alone, cell, circuit, derivative, phase, rule, run, wire

from neurosim import SOURCE, Phase, Windows
from neurosim.errors import CircuitError, UnsupportedError
from neurosim.parts import current_step, epsc

STEADY = LEVELS[3]
# `brian2:equations` takes longest: where the others say the same, it waits for the slow tests.
MOST = [pytest.param(LEVELS[0], marks=pytest.mark.slow), *LEVELS[1:]]
N = 201  # cells, and steps
K = np.arange(N)  # a cell's limit in steps
STEP = np.arange(N)[:, None]
DTS = {"0.1*ms": 1e-4, "0.25*ms": 2.5e-4, "0.05*ms": 5e-5}


def roundings(dt: str) -> dict[str, np.ndarray]:
    """k dt as it may come out of a calculation; they differ in the last digits."""
    milliseconds = float(dt.partition("*")[0])
    return {
        "b": K * DTS[dt],
        "c": np.array([float(f"{k * milliseconds:.2f}e-3") for k in K]),
        "d": np.cumsum(np.full(N, DTS[dt])) - DTS[dt],
    }


#: What a condition should be, from the step and the limit k; ten steps of onset, a tau of k steps.
CONDITIONS = {
    **{f"t {sign} {x}": law for x in "bc" for sign, law in {
        ">=": lambda s, k: s >= k, ">": lambda s, k: s > k, "<=": lambda s, k: s <= k,
        "<": lambda s, k: s < k,
        "==": lambda s, k: s == k, "!=": lambda s, k: s != k,
    }.items()},
    "b >= t": lambda s, k: k >= s, "c > t": lambda s, k: k > s, "d <= t": lambda s, k: k <= s,
    "b < t": lambda s, k: k < s,
    "c == t": lambda s, k: k == s, "d != t": lambda s, k: k != s,
    "since >= ten*zero": lambda s, k: s >= k, "since > ten": lambda s, k: s > k + 10,
    "ten < since": lambda s, k: s > k + 10,
    "since <= ten": lambda s, k: s <= k + 10, "since == ten": lambda s, k: s == k + 10,
    "-since > -ten": lambda s, k: s < k + 10,
    "t >= d": lambda s, k: s >= k, "t > d": lambda s, k: s > k, "t == d": lambda s, k: s == k,
    "-t >= -b": lambda s, k: s <= k, "-t < -c": lambda s, k: s > k, "b - t > zero*b": lambda s,
    k: s < k,
    "t/tau >= 3": lambda s, k: s >= 3 * (k + 1), "t/tau > 3": lambda s, k: s > 3 * (k + 1),
    "3 <= t/tau": lambda s, k: s >= 3 * (k + 1),
    "t/tau < 7": lambda s, k: s < 7 * (k + 1), "t/tau != 2": lambda s, k: s != 2 * (k + 1),
    "1 - t/tau <= 0": lambda s, k: s >= k + 1,
    "t*pace >= 5": lambda s, k: s >= 5 * (k + 1), "scaled >= 1": lambda s, k: s >= 2 * k + 1,
    "scaled < 2": lambda s, k: s < 3 * k + 2,
    "2*t >= b + c": lambda s, k: s >= k, "2*t > t + d": lambda s, k: s > k,
    "t - b >= c - t": lambda s, k: s >= k,
    "t >= 7*dt": lambda s, k: (s >= 7) | (k < 0), "t - 7*dt == b": lambda s, k: s == k + 7,
    "t/dt >= 9": lambda s, k: (s >= 9) | (k < 0),
    "t >= b and t < b + ten": lambda s, k: (s >= k) & (s < k + 10), "not t < c": lambda s,
    k: s >= k,
    "t < b or t > c + ten": lambda s, k: (s < k) | (s > k + 10), "t >= later": lambda s,
    k: s >= k + 10,
    "t % tau < ten": lambda s, k: s % (k + 1) < 10, "t % tau >= ten": lambda s, k: s % (k + 1) >= 10,
    "(t % tau)/tau < 0.5": lambda s, k: 2 * (s % (k + 1)) < k + 1,
    "floor(t/tau) >= 3": lambda s, k: s // (k + 1) >= 3, "t/tau // 1 == 2": lambda s, k: s // (k + 1) == 2,
    "ceil(t/tau) <= 2": lambda s, k: -(-s // (k + 1)) <= 2, "ceil(scaled) == 1": lambda s, k: -(-(s - k) // (k + 1)) == 1,
    "floor(-t/tau) <= -2": lambda s, k: -s // (k + 1) <= -2,
    "int(t/tau) % 2 == 0": lambda s, k: s // (k + 1) % 2 == 0, "int(scaled) == 0": lambda s, k: abs(s - k) < k + 1,
    "sign(t - b) == 0": lambda s, k: s == k, "sign(c - t) > 0": lambda s, k: s < k,
    "(t/tau)**2 >= 9": lambda s, k: s >= 3 * (k + 1), "(t/tau)**2 < (b/tau)**2": lambda s, k: s < k,
    "clip(t/tau, 0, 2) >= 2": lambda s, k: s >= 2 * (k + 1), "abs(t - b)/tau < 1": lambda s, k: abs(s - k) < k + 1,
    "sin(2*pi*t/tau) > 0": lambda s, k: (s % (k + 1) > 0) & (2 * (s % (k + 1)) < k + 1),
}  # fmt: skip


#: Those that are looked at with every step; the others with the first.
CORE = 26


def packed(texts: list[str]) -> list[list[str]]:
    """Eight conditions make one number, so that an equation is long and not many are needed."""
    return [texts[i : i + 8] for i in range(0, len(texts), 8)]


@lru_cache
def conditions(dt: str):
    chosen = list(CONDITIONS)[: None if dt == "0.1*ms" else CORE]
    bits = [" + ".join(f"{2**i}*int({t})" for i, t in enumerate(few)) for few in packed(chosen)]
    named = "\n".join(f"q{i} = {text} : 1" for i, text in enumerate(bits))
    lines = (
        "du/dt = -u/tau : 1; r = u : 1; since = t - b : second; scaled = (t - c)/tau : 1; "
        "later = d + ten : second"
    )  # fmt: skip
    x = roundings(dt)
    parameters = {name: values * second for name, values in x.items()} | {
        "ten": 10 * DTS[dt] * second, "tau": (K + 1) * DTS[dt] * second,
        "pace": 1 / ((K + 1) * DTS[dt]) / second,
    }  # fmt: skip
    units = dict(b="1*ms", c="1*ms", d="1*ms", ten="1*ms", tau="1*ms", pace="1*Hz", zero=0.0)
    return alone(cell(f"{lines}\n{named}", **units), N, f"{N}*{dt}", parameters), chosen


def wrong(result, population: str, expected: dict[str, np.ndarray]) -> dict[str, list]:
    """Variables that differ from what is expected, with the first places (step, cell)."""
    found = {}
    for name, law in expected.items():
        values = result.traces[f"{population}.{name}"][:, 0]
        bad = np.argwhere(values != law)
        if len(bad):
            found[name] = bad[:4].tolist()
    return found


ALL = [(level, dt, "float64") for level in IN_TIME for dt in DTS] + [
    ("torch:trajectory", "0.25*ms", "float32")
]  # fmt: skip


@pytest.mark.parametrize(
    ("level", "dt", "dtype"),
    [
        c if c[0] != LEVELS[0] or c[1] == "0.25*ms" else pytest.param(*c, marks=pytest.mark.slow)
        for c in ALL
    ],
)  # fmt: skip
def test_all_multiples_of_the_step(level, dt, dtype):
    """Integers: the limit of cell k is k steps, whatever its last digits are."""
    net, texts = conditions(dt)
    result = run(
        net, level, dt=dt, dtype=dtype, record=[f"p.q{i}" for i in range(len(packed(texts)))]
    )  # fmt: skip
    bad = {}
    for i, few in enumerate(packed(texts)):
        number = result.traces[f"p.q{i}"][:, 0].astype(int)
        for bit, text in enumerate(few):
            places = np.argwhere(((number >> bit) & 1) != CONDITIONS[text](STEP, K[None]))
            if len(places):
                bad[text] = places[:4].tolist()
    assert not bad  # conditions with their first wrong (step, cell)


@pytest.mark.parametrize("level", MOST[:3])
def test_a_limit_between_two_steps(level):
    """What is more than dt/1000 away counts as it is: limits at k + 0.49 and k - 0.01 steps."""
    low, high = (K - 0.01) * 1e-4, (K + 0.49) * 1e-4
    lines = [
        f"{name}{i} = int(t {sign} {name}) : 1"
        for name in ("low", "high")
        for i, sign in enumerate(("<", "<=", ">", ">=", "==", "!="))
    ]
    net = alone(
        cell("du/dt = -u/tau : 1; r = u : 1;" + ";".join(lines), low="1*ms", high="1*ms",
            tau="10*ms"), N, "20.1*ms",
        {"low": low * second, "high": high * second},
    )  # fmt: skip
    names = [line.partition(" ")[0] for line in lines]
    result = run(net, level, dt="0.1*ms", record=[f"p.{name}" for name in names])
    k = K[None]
    before, never, after = {"low": k - 1, "high": k}, np.zeros((N, N)), {"low": k, "high": k + 1}
    laws = {}
    for x in ("low", "high"):
        laws |= {
            f"{x}0": before[x] >= STEP,
            f"{x}1": before[x] >= STEP,
            f"{x}2": after[x] <= STEP,
            f"{x}3": after[x] <= STEP,
        }
        laws |= {f"{x}4": never, f"{x}5": never + 1}
    assert not wrong(result, "p", laws)


@pytest.mark.parametrize("level", MOST[:3])
def test_a_relation_without_a_time_is_exact(level):
    """IEEE: 1 and its neighbours are told apart, as are 0 and 1e-300."""
    near = np.array([np.nextafter(1, 0), 1.0, np.nextafter(1, 2)])
    c = cell(
        "du/dt = -u/tau : 1; r = u : 1; a = int(one >= x) : 1; b = int(one > x) : 1; "
        "c = int(u <= y) : 1; d = int(u < y) : 1",
        tau="10*ms", x=1.0, one=1.0, y=0.0,
    )  # fmt: skip
    result = run(
        alone(c, 3, "1*ms", {"x": near, "y": np.array([-1e-300, 0, 1e-300])}),
        level,
        record=["p.a", "p.b", "p.c", "p.d"],
    )
    for name, expected in {"a": [1, 1, 0], "b": [1, 0, 0], "c": [0, 1, 1], "d": [0, 0, 1]}.items():
        assert np.array_equal(result.traces[f"p.{name}"][:, 0], np.tile(expected, (2, 1))), name


# ------------------------------------------------------------------ trials, phases, windows

ONE, TWO = 41, 59  # steps
RESETS = [
    pytest.param(LEVELS[0], True, marks=pytest.mark.slow),
    *((level, reset) for level in IN_TIME[1:] for reset in (True, False)),
]
TIMES = ("t", "t_trial", "t_phase")
CLOCK = (
    "x = int(t >= b) : 1; y = int(t_trial >= c) : 1; z = int(t_phase >= d) : 1; "
    "start = int(t - t_trial >= b) : 1"
)  # fmt: skip
READ = "; at = t : second; at_trial = t_trial : second; at_phase = t_phase : second"
READ += "; gone = int(t_trial - t_phase > c) : 1"
LIMITS = {name: values * second for name, values in roundings("0.1*ms").items()}


def clock(phases, clamps, reset: bool, more=()):
    c = cell(
        f"du/dt = (-u + I)/tau : 1; r = u : 1; {CLOCK}{READ}; I : 1; B = int(t_phase < c) : 1",
        inputs=["I"],
        pools={"count": "int(t_trial >= b)", "early": "int(since_phase > 0*tau)"}
        | {"last": ("max", "x*t")},
        tau="10*ms", b="1*ms", c="1*ms", d="1*ms",
    )  # fmt: skip
    lines = (
        f"{c.equations}\nsince_phase = t_phase - d : second\nn = count : 1\nm = early : 1\nl = "
        "last : second"
    )  # fmt: skip
    c = replace(c, equations=lines)
    return circuit(
        {"p": (N, c, LIMITS), **dict(more)}, phases=phases, clamps=clamps, reset=reset, dt="0.1*ms"
    )  # fmt: skip


def check_clock(result, total: np.ndarray, trial: np.ndarray, within: np.ndarray) -> None:
    """The three counts of steps, one per recorded row."""
    total, trial, within, k = total[:, None], trial[:, None], within[:, None], K[None]
    laws = {
        "x": total >= k, "y": trial >= k, "z": within >= k, "start": total - trial >= k,
        "gone": trial - within > k,
        "B": within < k, "n": (trial >= k).sum(axis=1, keepdims=True),
        "m": (within > k).sum(axis=1, keepdims=True),
    }  # fmt: skip
    assert not wrong(result, "p", laws)
    for name, steps in {"at": total, "at_trial": trial, "at_phase": within, "l": total}.items():
        assert np.abs(result.traces[f"p.{name}"][:, 0] - steps * 1e-4).max() < 1e-12, name


RECORD = [
    f"p.{name}"
    for name in ("x", "y", "z", "start", "gone", "B", "n", "m", "at", "at_trial", "at_phase", "l")
]  # fmt: skip


@pytest.mark.parametrize(("level", "reset"), RESETS)
def test_three_clocks_in_trials_and_phases(level, reset):
    """Counted steps: `t` goes on through trials, `t_trial` through phases, with a reset or none."""
    net = clock([phase("one", "4.1*ms"), phase("two", "5.9*ms")], {"p.I": "image"}, reset)
    result = run(net, level, np.zeros((2, N)), record=RECORD, dt="0.1*ms")
    trial = np.tile(np.arange(ONE + TWO), 2)
    check_clock(
        result, np.arange(2 * (ONE + TWO)), trial, np.where(trial < ONE, trial, trial - ONE)
    )  # fmt: skip


@pytest.mark.parametrize("level", MOST[:3])
def test_three_clocks_in_windows(level):
    """Counted steps: a window begins no trial, and each of its phases begins anew."""
    windows = Windows(
        (Phase("settle", "3.7*ms"), Phase("learn", "1.3*ms")), clamps={"label.r": "label"}
    )  # fmt: skip
    net = clock(
        [phase("first", "2.9*ms"), windows],
        {"p.I": "image", "inp.r": "target"},
        True,
        {"label": (3, SOURCE), "inp": (3, SOURCE)},
    )
    result = run(net, level, np.zeros((2, N)), [0, 2], record=RECORD, dt="0.1*ms")
    counts = [29, *([37, 13] * 3)]
    within = np.tile(np.concatenate([np.arange(n) for n in counts]), 2)
    check_clock(result, np.arange(2 * sum(counts)), np.tile(np.arange(sum(counts)), 2), within)


@pytest.mark.parametrize("level", MOST[:3])
def test_time_since_a_spike(level):
    """Counted steps: the cell spikes in every fifth step, and so many steps have gone since."""
    c = cell(
        "dv/dt = slope : 1; since = t - lastspike : second; x = int(since >= b) : 1; "
        "y = int(t - lastspike == c) : 1; z = int(t > lastspike + d) : 1",
        rate="v", slope="2/ms", b="1*ms", c="1*ms", d="1*ms",
        parts={"threshold": "v > 0.95", "reset": "v = 0"},
    )  # fmt: skip
    limits = {name: value[:12] for name, value in LIMITS.items()}
    result = run(alone(c, 12, "20*ms", limits), level, dt="0.1*ms", record=["p.x", "p.y", "p.z"])
    spikes = np.rint(np.unique(result.spikes["p"].time) / 1e-4).astype(int)
    assert np.array_equal(spikes, np.arange(4, 200, 5))
    step = np.arange(200)
    # A row shows the last spike before it: that of this step comes at its end.
    last = np.array([spikes[spikes < s].max(initial=-(10**8)) for s in step])
    gone, k = (step - last)[:, None], np.arange(12)[None]
    assert not wrong(result, "p", {"x": gone >= k, "y": gone == k, "z": gone > k})


# ------------------------------------------------------------------ electrodes

RELAY = cell("dV/dt = I/C : volt; r = V/unit : 1; I : amp", C="100*pF", unit="1*volt")


@pytest.mark.parametrize(("level", "reset"), RESETS)
def test_electrodes_act_in_every_trial(level, reset):
    """Formulas of the step and of the difference of exponentials, at t_trial, in three trials."""
    populations = {
        "step": (1, current_step("100*pA", "4.9*ms", "2.3*ms")),
        "psc": (1, epsc("80*pA", "3.3*ms", "1*ms", "8*ms")),
        "at_once": (1, current_step("30*pA", "0*ms", "0.7*ms")), "p": (1, RELAY),
        "inp": (1, SOURCE),
    }  # fmt: skip
    wires = [
        wire(f"to_{name}", name, "p.I", one_to_one=True) for name in ("step", "psc", "at_once")
    ]  # fmt: skip
    net = circuit(
        populations,
        wires,
        [phase("one", "4*ms"), phase("two", "6*ms")],
        {"inp.r": "image"},
        reset=reset,
        dt="0.1*ms",
    )
    result = run(
        net, level, np.zeros((3, 1)), record=["step.I", "psc.I", "at_once.I", "p.I"], dt="0.1*ms"
    )  # fmt: skip
    step = np.tile(np.arange(100), 3)
    on = 100e-12 * ((step >= 49) & (step < 72))
    once = 30e-12 * (step < 7)
    s = np.maximum(step * 0.1 - 3.3, 0.0)
    top = math.log(8) * 8 / 7
    psc = 80e-12 * (np.exp(-s / 8) - np.exp(-s)) / (math.exp(-top / 8) - math.exp(-top))
    found = {name: result.traces[f"{name}.I"][:, 0, 0] for name in ("step", "psc", "at_once", "p")}
    assert np.array_equal(found["step"] > 0, on > 0) and np.array_equal(
        found["at_once"] > 0, once > 0
    )  # fmt: skip
    assert found["step"] == pytest.approx(on, rel=1e-12)
    assert found["psc"] == pytest.approx(psc, rel=1e-9, abs=1e-24)
    assert found["p"] == pytest.approx(on + once + psc, rel=1e-9, abs=1e-24)


@pytest.mark.parametrize("level", IN_TIME)
def test_electrodes_in_pools(level):
    """A pool of currents that begin one after another: their number times the current."""
    c = cell(
        "du/dt = (-u + total/unit + I)/tau : 1; r = total/unit : 1; "
        "on = amplitude*int(t_trial >= onset)*int(t_trial < onset + long) : amp; I : 1",
        pools={"total": "on"}, inputs=["I"], amplitude="2*pA", onset="1*ms", long="2*ms",
        unit="1*pA", tau="5*ms",
    )  # fmt: skip
    onsets = np.array([0.3, 0.7, 1.1, 2.9]) * 1e-3
    net = circuit(
        {"p": (4, c, {"onset": onsets * second})},
        phases=[phase("one", "6*ms")],
        clamps={"p.I": "image"},
        dt="0.1*ms",
    )
    result = run(net, level, np.zeros((2, 4)), record=["p.r", "p.u"], dt="0.1*ms")
    step = np.tile(np.arange(60), 2)
    first = np.array([3, 7, 11, 29])[:, None]
    expected = 2.0 * ((step >= first) & (step < first + 20)).sum(axis=0)
    assert result.traces["p.r"][:, 0, 0] == pytest.approx(expected, rel=1e-12)
    u = np.zeros(120)
    for k in range(119):
        u[k + 1] = 0 if k == 59 else u[k] + (expected[k] - u[k]) / 50
    assert result.traces["p.u"][:, 0, 3] == pytest.approx(u, rel=1e-10, abs=1e-13)


# ------------------------------------------------------------------ refused

READERS = {
    "state": ("du/dt = (-u + {0}/s)/s : 1; r = u : 1", {}),
    "rate": ("du/dt = -u/s : 1; r = u + {0}/s : 1", {}),
    "relation": ("du/dt = -u/s : 1; r = u*int({0} > s) : 1", {}),
    "through": ("du/dt = (-u + b)/s : 1; a = {0}/s : 1; b = 2*a : 1; r = u : 1", {}),
    "pool": ("du/dt = (-u + P)/s : 1; r = u : 1", {"P": "int({0} > s)"}),
}


@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("where", READERS)
def test_the_steady_level_has_no_time(where, time):
    """It refuses the circuit, names the population, and `compare` leaves it out."""
    text, pools = READERS[where]
    net = alone(
        cell(text.format(time), pools={k: v.format(time) for k, v in pools.items()}, s="10*ms"),
        duration="2*ms",
    )
    with pytest.raises(UnsupportedError, match=r"torch:steady .*'p'.*the time t"):
        run(net, STEADY)


@pytest.mark.parametrize("name", ["t_trial", "t_phase"])
@pytest.mark.parametrize(
    "make",
    [
        lambda n: alone(cell(f"d{n}/dt = -{n}/tau : 1; r = {n} : 1", tau="1*ms")),
        lambda n: alone(cell(f"du/dt = -u/tau : 1; {n} = 2*u : 1; r = u : 1", tau="1*ms")),
        lambda n: alone(cell(f"du/dt = -u/{n} : 1; r = u : 1", **{n: "1*ms"})),
        lambda n: alone(cell(f"du/dt = (-u + {n})/tau : 1; r = u : 1; {n} : 1", tau="1*ms",
            inputs=[n])),
        lambda n: alone(cell(f"du/dt = (-u + {n})/tau : 1; r = u : 1; {n} : 1", tau="1*ms",
            optional=[n])),
        lambda n: alone(cell(f"du/dt = (-u + {n})/tau : 1; r = u : 1; {n} : 1 (shared)",
            tau="1*ms"), shared={n: 1.0}),
        lambda n: alone(cell("du/dt = -u/tau : 1; r = u : 1", tau="1*ms", pools={n: "u"})),
        lambda n: alone(cell("du/dt = -u/tau : 1; r = u : 1", tau="1*ms",
            holds={n: ("u", "only")})),
        lambda n: alone(cell("du/dt = -u/tau : 1; r = u : 1", tau="1*ms",
            parts={"derivatives": (derivative(n, "u"),)})),
        lambda n: learning(f"{n}*r_post*r_pre", **{n: "1*Hz"}),
        lambda n: learning(f"eta*r_post*r_pre*{n}", eta="1*Hz**2"),
        lambda n: learning(f"eta*r_post*r_pre*int({n} > T)", eta="1*Hz", T="1*ms"),
        lambda n: learning(f"eta*{n}_post*r_pre", eta="1*Hz**2"),
    ],
    ids=["state", "named", "parameter", "input", "port", "shared", "pool", "hold", "slope",
        "of a rule", "in a rule", "in its relation", "post"],
)  # fmt: skip
def test_the_names_of_the_clocks_are_taken(make, name):
    """Refused when the circuit is built, by name."""
    with pytest.raises(CircuitError, match=name):
        make(name)


def learning(right: str, **parameters):
    c = cell("du/dt = (-u + I)/tau : 1; r = u : 1; I : 1", tau="1*ms")
    wires = [wire("W", "one", "p.I", np.ones((1, 2)), rule(right, **parameters))]
    return circuit({"p": (2, c)}, wires, [phase("one", "2*ms", ["rule"])])
