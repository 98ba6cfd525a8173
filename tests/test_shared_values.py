"""A shared value reaches what declares it, and rules; the same name elsewhere is another thing.

Expected values are Euler loops in plain NumPy and closed forms of leaky cells: after k steps
towards a constant c, u = c (1 - (1 - dt/tau)^k).
"""

from __future__ import annotations

import re

import brian2
import numpy as np
import pytest
from circuits import LEVELS, cell, circuit, derivative, phase, rule, run, wire

from neurosim import SOURCE, RandomSign
from neurosim.errors import CircuitError

STEADY = LEVELS[3]
# `brian2:equations` takes longest: where the others say the same, it waits for the slow tests.
MOST = [pytest.param(LEVELS[0], marks=pytest.mark.slow), *LEVELS[1:]]
DT, TAU = 0.5e-3, 10e-3
IMAGE = np.array([[0.3, 0.9, -0.4]])
FIRST, SECOND = 12, 9  # steps
TIMES = {"one": "6*ms", "two": "4.5*ms"}
MOD = {"one": 1.5, "two": -0.5}

# ------------------------------------------------------------------ the same name in many places

PER_CELL = np.array([0.1, -0.2, 0.3])
LEAKY = "du/dt = (-u + {})/tau : 1; r = {} : 1; {}"


def leaky(drive: str, r: str = "u", lines: str = "I : 1", **more):
    return cell(LEAKY.format(drive, r, lines), tau="10*ms", **more)


def kinds() -> dict[str, tuple]:
    """Populations in which `mod` is something else each time, driven by the image one to one."""
    return {
        "shared": (3, leaky("mod*I", lines="I : 1; mod : 1 (shared)")),
        "port": (3, leaky("2*mod", lines="mod : 1", ports=["mod"])),
        "unfed": (3, leaky("I + mod", lines="I : 1; mod : 1", optional=["mod"])),
        "input": (3, leaky("mod**2 + 0*I", lines="I : 1; mod : 1", inputs=["mod"])),
        "hold": (3, leaky("I + 0.5*mod", holds={"mod": ("u", "one")})),
        "state": (3, cell("dmod/dt = (-mod + I)/tau : 1; r = 3*mod : 1; I : 1", tau="10*ms")),
        "parameter": (3, leaky("mod*I", mod=0.7)),
        "cells": (3, leaky("mod*I", mod=0.7), {"mod": PER_CELL}),
        "pool": (3, leaky("I", r="u*mod", pools={"mod": "u"})),
        "late": (3, leaky("mod", pools={"mod": "I"})),
        "named": (3, leaky("mod", lines="mod = 3*I : 1; I : 1")),
        "slope": (3, leaky("I", r="u + tau*mod", parts={"derivatives": (derivative("mod", "u"),)})),
    }


def everywhere():
    """One circuit of them all; the protocol says the first value, the second phase another one."""
    populations = {"inp": (3, SOURCE), **kinds()}
    wires = [
        wire(f"to_{name}", "inp", f"{name}.{'mod' if name == 'port' else 'I'}", one_to_one=True)
        for name in populations
        if name != "inp"
    ]
    return circuit(
        populations, wires, [phase("one", TIMES["one"]),
            phase("two", TIMES["two"], mod=MOD["two"])],
        {"inp.r": "image", "input.mod": "image"}, {"mod": MOD["one"]},
    )  # fmt: skip


def targets(x: np.ndarray, mod: float, held: np.ndarray) -> dict[str, np.ndarray]:
    """What each population's state is drawn to."""
    return {
        "shared": mod * x, "port": 2 * x, "unfed": x, "input": x**2, "hold": x + 0.5 * held,
        "state": x,
        "parameter": 0.7 * x, "cells": PER_CELL * x, "pool": x, "late": np.full(3, x.sum()),
        "named": 3 * x, "slope": x,
    }  # fmt: skip


def rates(u: dict[str, np.ndarray], slope: np.ndarray) -> dict[str, np.ndarray]:
    """What each population sends."""
    sent = {
        "state": 3 * u["state"],
        "pool": u["pool"] * u["pool"].sum(),
        "slope": u["slope"] + TAU * slope,
    }
    return {**u, **sent}


def in_time(x: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    """Rates in the last step of each phase, by an Euler loop."""
    names = [*kinds()]
    u, before, held = {name: np.zeros(3) for name in names}, np.zeros(3), np.zeros(3)
    found = {}
    for name, steps in (("one", FIRST), ("two", SECOND)):
        for step in range(steps):
            slope = (u["slope"] - before) / DT
            if step == steps - 1:
                found[name] = rates(u, slope)
                held = u["hold"] if name == "one" else held  # before the potentials move
            before = u["slope"]
            aim = targets(x, MOD[name], held)
            u = {k: v + DT * (aim[k] - v) / TAU for k, v in u.items()}
    return found


def at_rest(x: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    """Rates at the fixed point of each phase; what is held is the first phase's."""
    one = targets(x, MOD["one"], np.zeros(3))
    return {
        "one": rates(one, np.zeros(3)),
        "two": rates(targets(x, MOD["two"], one["hold"]), np.zeros(3)),
    }


@pytest.mark.parametrize("level", LEVELS)
def test_the_same_name_is_another_thing_in_each_population(level):
    """Euler loop, or fixed point, in which one population alone follows the protocol's value."""
    result = run(everywhere(), level, IMAGE)
    expected = at_rest(IMAGE[0]) if level == STEADY else in_time(IMAGE[0])
    for name in TIMES:
        for population in kinds():
            found = result.ends[name][f"{population}.r"][0]
            assert found == pytest.approx(expected[name][population], rel=1e-9, abs=1e-12), (
                name,
                population,
            )


# ------------------------------------------------------------------ rules

#: Right-hand sides, as text and of (w, r_post, the post cell's port mod, shared value, r_pre).
RULES = {
    "factor": ("eta*(r_post - mod)*r_pre", lambda w, r, port, mod, x: (r - mod) * x),
    "bare": ("eta*mod*r_post*r_pre", lambda w, r, port, mod, x: mod * r * x),
    "both": ("eta*(mod_post - 2*mod)*r_pre", lambda w, r, port, mod, x: (port - 2 * mod) * x),
    "decay": ("eta*mod*(r_post*r_pre - w)", lambda w, r, port, mod, x: mod * (r * x - w)),
}
PORT = np.array([0.5, 0.6])
#: When the weights follow; "own" has a parameter mod = 3.
APPLY = {"factor": "now", "bare": "trial", "both": "now", "decay": "trial", "own": "now"}


def learning(steady: bool):
    """Populations `p_...` with a port `mod`, fed with 0.5 and 0.6, and a rule each."""
    c = cell(
        "du/dt = (-u + I + mod)/tau : 1; r = u : 1; I : 1; mod : 1", ports=["I", "mod"], tau="10*ms"
    )  # fmt: skip
    populations, wires = {"inp": (3, SOURCE)}, []
    for name, apply in APPLY.items():
        right, own = (RULES["both"][0], {"mod": 3.0}) if name == "own" else (RULES[name][0], {})
        learns = rule(right, apply="trial" if steady else apply, eta="40*Hz", **own)
        populations[f"p_{name}"] = (2, c)
        wires += [
            wire(f"W_{name}", "inp", f"p_{name}.I", np.full((3, 2), 0.2), learns),
            wire(f"M_{name}", "one", f"p_{name}.mod", PORT[None]),
        ]
    phases = [phase("one", TIMES["one"], ["rule"], mod=0.25), phase("two", TIMES["two"], ["rule"])]
    return circuit(populations, wires, phases, {"inp.r": "image"}, {"mod": -0.75})


def weights_by_hand(name: str, steady: bool) -> np.ndarray:
    """The weights after a trial: an Euler loop, or the change at rest times the phase's length."""
    x, w, u, total = IMAGE[0], np.full((3, 2), 0.2), np.zeros(2), 0.0
    for shared, steps in ((0.25, FIRST), (-0.75, SECOND)):
        if steady:
            u, steps, dt = x @ w + PORT, 1, steps * DT
        else:
            dt = DT
        for _ in range(steps):
            kind, mod = ("both", 3.0) if name == "own" else (name, shared)
            change = dt * 40 * RULES[kind][1](w, u, PORT, mod, x[:, None])
            u = u + dt * (x @ w + PORT - u) / TAU
            w, total = (
                (w + change, total) if APPLY[name] == "now" and not steady else (w, total + change)
            )  # fmt: skip
    return w + total


@pytest.mark.parametrize("level", MOST)
def test_a_bare_name_in_a_rule_is_the_shared_value(level):
    """Euler loop: `mod` is the phase's, or the rule's own; `mod_post` is the port's."""
    result = run(learning(level == STEADY), level, IMAGE)
    for name in APPLY:
        assert result.weights[f"W_{name}"] == pytest.approx(
            weights_by_hand(name, level == STEADY), rel=1e-10
        ), name  # fmt: skip


# ------------------------------------------------------------------ values with units

MV = brian2.mV
VALUES = {
    "text": "2*mV", "other_text": "0.002*volt", "sum": "1*mV + 1000*uvolt", "quantity": 2 * MV,
    "bare": 0.002,
    "of_numpy": np.float64(0.002), "quotient": "4*pA/(2*nsiemens)",
}  # fmt: skip
SIGNED = {"text": "2*mV", "quantity": 2 * MV, "bare": 0.002}


def volts(value, where: str = "phase"):
    c = cell(
        "dV/dt = (-V + mod)/tau : volt; r = V/one_volt : 1; mod : volt (shared)",
        tau="10*ms",
        one_volt="1*volt",
    )
    shared = {"mod": value} if where == "protocol" else {"mod": 1.0}
    phases = [phase("one", "5*ms", **({"mod": value} if where == "phase" else {}))]
    return circuit({"p": (2, c)}, phases=phases, shared=shared)


@pytest.mark.parametrize("where", ["phase", "protocol"])
@pytest.mark.parametrize("level", MOST)
def test_two_millivolts_in_any_form(level, where):
    """Closed form of leaky cells towards 2 mV, one population for each form."""
    populations = {
        form: (
            2,
            cell(f"dV/dt = (-V + {form}_)/tau : volt; r = V/one_volt : 1; {form}_ : volt (shared)",
                 tau="10*ms", one_volt="1*volt"),
        )
        for form in VALUES
    }  # fmt: skip
    values = {f"{form}_": value for form, value in VALUES.items()}
    net = circuit(
        populations, phases=[phase("one", "5*ms", **(values if where == "phase" else {}))],
        shared=values if where == "protocol" else None,
    )  # fmt: skip
    expected = 0.002 if level == STEADY else 0.002 * (1 - (1 - DT / TAU) ** 9)
    found = run(net, level).ends["one"]
    for form in VALUES:
        assert found[f"{form}.V"] == pytest.approx(expected, rel=1e-12), form


def test_a_random_sign_with_a_unit():
    """|V| is the closed form; signs of trials are equal on all levels, and both occur."""
    signs = {}
    trials = 12
    c = cell(
        "dV/dt = (-V + mod + 0*I)/tau : volt; r = V/one_volt : 1; I : volt; mod : volt (shared)",
        tau="10*ms", one_volt="1*volt", inputs=["I"],
    )  # fmt: skip
    for form, value in SIGNED.items():
        net = circuit(
            {"p": (2, c)}, phases=[phase("one", "2*ms", mod=RandomSign(value)),
                phase("two", "2*ms", mod=RandomSign(value))],
            clamps={"p.I": "image"},
        )  # fmt: skip
        for level in LEVELS if form == "text" else LEVELS[2:]:
            found = run(net, level, np.zeros((trials, 2)), seed=4).ends
            u = found["one"]["p.V"] / (1.0 if level == STEADY else 1 - (1 - DT / TAU) ** 3)
            assert np.abs(u) == pytest.approx(np.full((trials, 2), 0.002), rel=1e-12)
            assert np.array_equal(np.sign(u), np.sign(found["two"]["p.V"]))  # one sign for a trial
            signs[form, level] = np.sign(u)
    first = next(iter(signs.values()))
    assert set(first.ravel()) == {-1.0, 1.0}
    assert all(np.array_equal(first, found) for found in signs.values())


@pytest.mark.parametrize("level", MOST)
def test_a_value_with_a_unit_in_a_rule(level):
    """`eta*mod` is 2 mV times 10/(mV s), in a population that declares it and in a rule alike."""
    c = cell(
        "du/dt = (-u + mod/one)/tau : 1; r = 1 + 0*u : 1; I : 1; mod : volt (shared)",
        tau="10*ms",
        one="1*mV",
    )
    learns = rule("eta*mod*r_post*r_pre", apply="trial", eta="10/(mV*second)")
    net = circuit(
        {"p": (2, c)},
        [wire("W", "one", "p.I", np.zeros((1, 2)), learns)],
        [phase("one", "5*ms", ["rule"], mod="2*mV")],
    )
    assert run(net, level).weights["W"] == pytest.approx(np.full((1, 2), 20 * 5e-3), rel=1e-10)


# ------------------------------------------------------------------ refused

NONSENSE = {
    "list": [0.002], "tuple": (0.002,), "array": np.array([0.002, 0.003]),
    "array of one": np.array([0.002]),
    "true": True, "NumPy's true": np.True_, "nan": np.nan, "inf": np.inf, "minus inf": -np.inf,
    "text nan": "nan*mV",
    "text inf": "inf*mV", "letter": "x", "empty": "", "other unit": "2*mA", "bare text": "2",
    "other quantity": 2 * brian2.nA,
    "plain quantity": brian2.Quantity(2.0), "quantities": np.array([1, 2]) * MV, "nothing": None,
    "complex": 1j, "table": {"a": 1},
    "nan quantity": np.nan * MV, "code": "__import__('os').getcwd()", "overflow": "1e400*mV",
}  # fmt: skip


@pytest.mark.parametrize("where", ["phase", "protocol", "sign"])
@pytest.mark.parametrize("what", [*NONSENSE])
def test_values_that_are_none(what, where):
    """Each is refused when the circuit is built, and the message names the value."""
    value = NONSENSE[what]
    with pytest.raises(CircuitError, match=r"mod|RandomSign"):
        volts(
            RandomSign(value) if where == "sign" else value, "phase" if where == "sign" else where
        )  # fmt: skip


def test_a_sign_of_a_sign_is_refused():
    """RandomSign(RandomSign(...)) says nothing that can be drawn."""
    with pytest.raises(CircuitError, match=r"mod|RandomSign"):
        volts(RandomSign(RandomSign("2*mV")))


@pytest.mark.parametrize("value", [1.0, "1*mV", 0.0])
def test_one_value_cannot_have_two_units(value):
    """Two populations that declare one shared value with different units are named."""
    a = cell("dV/dt = (-V + mod)/tau : volt; r = 1 : 1; mod : volt (shared)", tau="10*ms")
    b = cell(
        "dV/dt = (-V + R*mod)/tau : volt; r = 1 : 1; mod : amp (shared)", tau="10*ms", R="1*Mohm"
    )  # fmt: skip
    with pytest.raises(CircuitError) as caught:
        circuit({"first": (2, a), "second": (2, b)}, phases=[phase("one", mod=value)])
    message = str(caught.value)
    assert re.search(r"\bmod\b", message) and "first" in message and "second" in message


def test_one_phase_that_is_wrong_is_enough():
    """The unit is checked in every phase, also where the protocol's own value is right."""
    c = volts("1*mV").populations[0].cell
    with pytest.raises(CircuitError, match=r"two.*mod|mod.*two"):
        circuit(
            {"p": (1, c)}, phases=[phase("one"), phase("two", mod="1*pA")], shared={"mod": "1*mV"}
        )  # fmt: skip
