"""Noise and constants make sense or are refused; growing cells are counted and named.

Oracles: which texts are legal follows from the calculus (a strength that its own noise drives has
two meanings) and from signs (a time constant is above 0, a conductance is not below); increments of
noise are standard normal numbers; unstable means an eigenvalue with a positive real part of a
Jacobian written here by hand.
"""

from __future__ import annotations

import warnings

import brian2
import numpy as np
import pytest
from circuits import IN_TIME, LEVELS, alone, cell, circuit, derivative, phase, rule, run, wire

from neurosim import PlasticityRule, RandomSign
from neurosim.errors import CircuitError, NeurosimWarning

STEADY = LEVELS[3]
# `brian2:equations` takes longest: where the others say the same, it waits for the slow tests.
MOST = [pytest.param(LEVELS[0], marks=pytest.mark.slow), *LEVELS[1:]]
MS, NS = brian2.ms, brian2.nS

# ------------------------------------------------------------------ noise

NOISE = {
    "tau": "10*ms",
    "s": "0.5*Hz**0.5",
    "long": "0.1*second**0.5",
    "half": "1*Hz**0.5",
    "k": "1*Hz**1.5",
    "q": "1*second**0.5",
}
LEAK = "du/dt = -u/tau + {} : 1; r = u : 1"

#: (equations, parts of the cell): the strength of a noise depends on what that noise drives.
OWN_STRENGTH = {
    "the state": (LEAK.format("s*u*xi"), {}),
    "a power": (LEAK.format("s*(1 + u**2)*xi"), {}),
    "a root": (LEAK.format("s*sqrt(abs(u))*xi"), {}),
    "a condition": (LEAK.format("s*int(u > 0.5)*xi"), {}),
    "a named noise": (LEAK.format("s*u*xi_own"), {}),
    "one of two": (LEAK.format("s*xi_1 + s*u*xi_2"), {}),
    "a subexpression": (LEAK.format("a*xi") + "; a = s*(1 + u) : hertz**0.5", {}),
    "two subexpressions": (LEAK.format("a*xi") + "; a = s*b : hertz**0.5; b = tanh(2*r) : 1", {}),
    "a pool": (LEAK.format("s*P*xi"), {"pools": {"P": "u**2"}}),
    "a pool of a rate": (LEAK.format("a*xi") + "; a = s*P : hertz**0.5", {"pools": {"P": "r"}}),
    "a maximum": (LEAK.format("s*P*xi"), {"pools": {"P": ("max", "u")}}),
    "a slope": (LEAK.format("s*tau*D*xi"), {"parts": {"derivatives": (derivative("D", "u"),)}}),
    "a factor outside": ("du/dt = u*(-1/tau + s*xi) : 1; r = u : 1", {}),
    "a divisor": (LEAK.format("s*xi/(1 + u**2)"), {}),
}

#: Noise that is no sum.
NO_SUM = {
    "a function": LEAK.format("sin(xi*q)/tau"), "its own exponential": LEAK.format("exp(xi*q)/tau"),
    "abs": LEAK.format("s*abs(xi)"),
    "a root": LEAK.format("s*sqrt(xi**2)"), "a power": LEAK.format("xi**2"),
    "a divisor": LEAK.format("k/xi"),
    "two noises": LEAK.format("xi*xi_2"), "itself": LEAK.format("xi*xi"),
    "a quotient": LEAK.format("xi_1/xi_2/tau"),
    "a condition": LEAK.format("int(xi > half)/tau"),
    "a clip": LEAK.format("clip(xi, 0*half, half)*s"),
    "an exponent": LEAK.format("2**(xi*q)/tau"), "brackets": LEAK.format("(s + xi)*(s + xi_2)"),
    "a subexpression": "du/dt = (-u + a)/tau : 1; a = long*xi : 1; r = u : 1",
    "a rate": "du/dt = -u/tau : 1; r = u + long*xi : 1",
}  # fmt: skip


def lone(text: str, more: dict | None = None, values: dict | None = None, **parameters):
    """A population of three cells of which only the parameters that are named exist."""
    known = {name: value for name, value in {**NOISE, **parameters}.items() if name in text}
    return alone(cell(text, **(more or {}), **known), 3, "2*ms", values)


@pytest.mark.parametrize("what", OWN_STRENGTH)
def test_a_strength_that_its_own_noise_drives(what):
    """Refused: Ito and Stratonovich would differ by half the derivative of its square."""
    text, more = OWN_STRENGTH[what]
    with pytest.raises(CircuitError, match="strength of xi"):
        lone(text, more)


@pytest.mark.parametrize("what", NO_SUM)
def test_noise_that_is_no_sum(what):
    """Refused: white noise has no finite square, so none of these has a limit as dt goes to 0."""
    with pytest.raises(CircuitError, match="xi"):
        lone(NO_SUM[what])


LEGAL_NOISE = """
    du/dt = -u/tau + s*(1 + v**2)*xi_a : 1
    dv/dt = -v/tau + s*xi_b : 1
    dx/dt = -x/tau + s*J*xi_c : 1
    dy/dt = (-y + long*g*xi_d)/tau : 1
    dz/dt = -z/tau - s*xi_e + s*(1 + c)*xi_f : 1
    dc/dt = (1 - c)/tau : 1
    g = 1 + 0.5*tanh(v)*c : 1
    r = u : 1
    J : 1
"""
DT = 0.5e-3


@pytest.fixture(scope="module")
def noisy():
    """Traces by level: (steps, cells) of each state; a strength may be 0 in single cells."""
    s = np.where(np.arange(120) % 3, 0.5, 0.0) * brian2.Hz**0.5
    known = {name: NOISE[name] for name in ("tau", "s", "long")}
    net = circuit(
        {"p": (120, cell(LEGAL_NOISE, inputs=["J"], **known), {"s": s})},
        phases=[phase("one", "20*ms")],
        clamps={"p.J": "image"},
    )
    image = np.linspace(-1, 1, 120)[None]
    names = [*"uvxyzc"]
    found = {}
    for level in IN_TIME:
        result = run(net, level, image, record=[f"p.{name}" for name in names], seed=7)
        found[level] = {name: result.traces[f"p.{name}"][:, 0] for name in names}
    return image[0], found


@pytest.mark.parametrize("level", MOST[:3])
def test_legal_noise_is_white_with_the_strength_of_the_step(level, noisy):
    """Increments over strength and root of dt: mean 0, variance 1, no correlation; 5 errors."""
    image, found = noisy
    x = {name: values[:-1] for name, values in found[level].items()}
    on = np.arange(120) % 3 != 0
    s = 0.5
    strength = {
        "u": s * (1 + x["v"] ** 2), "v": s + 0 * x["v"], "x": s * image + 0 * x["x"],
        "y": 0.1 * (1 + 0.5 * np.tanh(x["v"]) * x["c"]) / 10e-3,
        "z": s * np.sqrt(1 + (1 + x["c"]) ** 2),
    }  # fmt: skip
    z = {}
    for name, sigma in strength.items():
        moved = found[level][name][1:] - x[name] * (1 - DT / 10e-3)
        z[name] = (moved / (sigma * np.sqrt(DT)))[:, on].ravel()
        if name in "uvxz":
            assert np.abs(moved[:, ~on]).max() < 1e-14
    error = 1 / np.sqrt(len(z["u"]))
    for name, numbers in z.items():
        assert (
            abs(numbers.mean()) < 5 * error and abs(numbers.var() - 1) < 5 * np.sqrt(2) * error
        ), name  # fmt: skip
    assert max(abs(np.mean(z[a] * z[b])) for a in z for b in z if a < b) < 5 * error
    assert np.allclose(found[level]["c"][:, 0], 1 - (1 - DT / 10e-3) ** np.arange(40), rtol=1e-12)


@pytest.mark.parametrize("level", IN_TIME[1:])
def test_legal_noise_is_the_same_on_every_level(level, noisy):
    """One stream: levels agree to round-off."""
    _, found = noisy
    for name, values in found[level].items():
        assert np.abs(values - found[IN_TIME[0]][name]).max() < 1e-12, name


AMPLITUDES = {
    "alone": (LEAK.format("s*xi"), {"s": "-0.5*Hz**0.5"}, {}),
    "in brackets": ("du/dt = (-u + long*xi)/tau : 1; r = u : 1", {"long": "-0.1*second**0.5"}, {}),
    "one of two": (LEAK.format("s*xi_1 + half*xi_2"), {"half": "-1*Hz**0.5"}, {}),
    "one cell": (LEAK.format("s*xi"), {}, {"s": np.array([0.5, 0.0, -0.5]) * brian2.Hz**0.5}),
    "of the population": (LEAK.format("s*xi"), {}, {"s": "-1*Hz**0.5"}),
    "beside a state": (LEAK.format("s*v*xi") + "; dv/dt = -v/tau : 1", {"s": "-0.5*Hz**0.5"}, {}),
    "named": (LEAK.format("a*xi") + "; a = 2*s : hertz**0.5", {"s": "-0.5*Hz**0.5"}, {}),
}


@pytest.mark.parametrize("what", AMPLITUDES)
def test_an_amplitude_below_zero(what):
    """Refused by name: a standard deviation has no sign."""
    text, parameters, values = AMPLITUDES[what]
    with pytest.raises(CircuitError, match=r"amplitude"):
        lone(text, values=values, **parameters)


# ------------------------------------------------------------------ what divides a derivative

RATE = "r = u : 1; I : 1"
VOLT = "r = V/one : 1; I : amp"
DIVISORS = {
    "brackets": f"du/dt = (-u + I)/tau : 1; {RATE}",
    "two terms": f"du/dt = -u/tau + I/tau : 1; {RATE}",
    "minus outside": f"du/dt = -(u - I)/tau : 1; {RATE}",
    "a factor behind": f"du/dt = (I - u)*(1/tau) : 1; {RATE}",
    "a power": f"du/dt = (I - u)*tau**-1 : 1; {RATE}",
    "a quotient below": f"du/dt = (I - u)/(tau/two) : 1; {RATE}",
    "twice": f"du/dt = ((I - u)/two)/tau : 1; {RATE}",
    "a product": f"du/dt = (I - u)/(two*tau) : 1; {RATE}",
    "the drive has a name": f"du/dt = F/tau : 1; F = I - u : 1; {RATE}",
    "the whole has a name": f"du/dt = F : 1; F = (I - u)/tau : hertz; {RATE}",
    "the constant has a name": f"du/dt = (I - u)/T : 1; T = two*tau : second; {RATE}",
    "a second state": f"du/dt = (I - u)/other : 1; dv/dt = (u - v)/tau : 1; {RATE}",
}
CABLE = {
    "capacity": (f"dV/dt = (g*(E - V) + I)/C : volt; {VOLT}", "C", "100*pF"),
    "capacity of two terms": (f"dV/dt = g*(E - V)/C + I/C : volt; {VOLT}", "C", "100*pF"),
    "R of R*C": (f"dV/dt = (E - V + R*I)/(R*C) : volt; {VOLT}", "R", "100*Mohm"),
    "C of R*C": (f"dV/dt = (E - V + R*I)/(R*C) : volt; {VOLT}", "C", "100*pF"),
    "R, then C": (f"dV/dt = ((E - V)/R + I)/C : volt; {VOLT}", "R", "100*Mohm"),
    "a sum": (f"dV/dt = (E - V + R*I)/(tau1 + tau2) : volt; {VOLT}", "tau1", "10*ms"),
}
PARAMETERS = {
    "tau": "10*ms", "other": "10*ms", "two": 2.0, "g": "10*nS", "E": "-70*mV", "C": "100*pF",
    "R": "100*Mohm", "one": "1*volt",
    "tau1": "10*ms", "tau2": "10*ms",
}  # fmt: skip


def fed(text: str, values: dict | None = None, **parameters):
    """Three cells whose port I is fed by `one`; parameters that the text names have defaults."""
    words = set("".join(c if c.isalnum() or c == "_" else " " for c in text).split())
    c = cell(
        text,
        **{n: v for n, v in PARAMETERS.items() if n in words and n not in parameters},
        **parameters,
    )
    return circuit(
        {"p": (3, c, values or {})},
        [wire("W", "one", "p.I", np.full((1, 3), 0.3))],
        [phase("one", "2*ms")],
    )


@pytest.mark.parametrize("value", ["-10*ms", "0*ms"])
@pytest.mark.parametrize("form", DIVISORS)
def test_a_time_constant_that_is_not_above_zero(form, value):
    """Refused by name wherever the equation has it; with 10 ms it is legal."""
    with pytest.raises(CircuitError, match=r"\btau\b"):
        fed(DIVISORS[form], tau=value)
    fed(DIVISORS[form])


@pytest.mark.parametrize("sign", [-1, 0])
@pytest.mark.parametrize("form", CABLE)
def test_a_capacity_or_resistance_that_is_not_above_zero(form, sign):
    """Refused by name; a sum of two times, where the sum is not above zero."""
    text, name, value = CABLE[form]
    bad = f"{sign}*{value}" if form != "a sum" else {-1: "-20*ms", 0: "-10*ms"}[sign]
    with pytest.raises(CircuitError, match=rf"\b{name}\b"):
        fed(text, **{name: bad})
    fed(text)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        (DIVISORS["brackets"], {"tau": np.array([10, -10, 10]) * MS}),
        (DIVISORS["brackets"], {"tau": np.array([10, 0, 10]) * MS}),
        (DIVISORS["brackets"], {"tau": "-3*ms"}),
        (DIVISORS["two terms"], {"tau": np.array([10, 10, -1e-9]) * MS}),
        (CABLE["R of R*C"][0], {"R": np.array([1, 1, -1]) * 1e8 * brian2.ohm}),
        (CABLE["a sum"][0], {"tau2": np.array([10, -10, 10]) * MS}),
    ],
)  # fmt: skip
def test_a_population_with_such_a_cell(text, values):
    """One cell of three, or the population's own value, is enough."""
    with pytest.raises(CircuitError, match=rf"'p'.*\b{next(iter(values))}\b"):
        fed(text, values)


SHARED = {
    "alone": "du/dt = (1 - u)/T : 1; r = u : 1; T : second (shared)",
    "in a product": "du/dt = (1 - u)/(two*T) : 1; r = u : 1; T : second (shared)",
    "in two terms": "du/dt = 1/T - u/T : 1; r = u : 1; T : second (shared)",
    "in a sum": "du/dt = (1 - u)/(T + T) : 1; r = u : 1; T : second (shared)",
}


@pytest.mark.parametrize("value", ["-5*ms", "0*ms", -0.005, RandomSign("5*ms")])
@pytest.mark.parametrize("form", SHARED)
def test_a_shared_value_that_divides(form, value):
    """Refused where one phase has it at or below zero, or with either sign."""
    c = cell(SHARED[form], **({"two": 2.0} if "two" in SHARED[form] else {}))
    with pytest.raises(CircuitError, match=r"'p'.*\bT\b"):
        circuit({"p": (3, c)}, phases=[phase("a"), phase("b", T=value)], shared={"T": "3*ms"})
    circuit({"p": (3, c)}, phases=[phase("a"), phase("b", T="4*ms")], shared={"T": "3*ms"})


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("du/dt = (-u - g*u)/tau : 1; r = u : 1; g : 1 (shared)", "conductance"),
     ("du/dt = (-u + g*sqrt(tau)*xi)/tau : 1; r = u : 1; g : 1 (shared)", "noise amplitude g .*[*]xi")],
)  # fmt: skip
def test_a_shared_value_below_zero(text, wanted):
    """Shared values are conductances and amplitudes as parameters are; zero is legal."""
    c = cell(text, tau="10*ms")
    with pytest.raises(CircuitError, match=f"'p' in phase 'b': .*{wanted}"):
        circuit({"p": (3, c)}, phases=[phase("a"), phase("b", g=-1.0)], shared={"g": 1.0})
    circuit({"p": (3, c)}, phases=[phase("a"), phase("b", g=0.0)], shared={"g": 1.0})


def test_a_number_that_divides_a_drive_may_be_negative():
    """It turns the drive; the cell still decays. A time constant, and what divides a state, may not."""
    text = "du/dt = (-u + {}/k)/tau : 1; r = u : 1"
    net = alone(cell(text.format("1"), tau="1*ms", k=-2.0), 2, "30*ms")
    for level in LEVELS:
        np.testing.assert_allclose(run(net, level, dt="0.1*ms", record=["p.u"]).traces["p.u"][-1], -0.5, rtol=1e-6)
    for wrong in (cell(text.format("u"), tau="1*ms", k=-2.0), cell(text.format("1"), tau="1*ms", k=0.0)):
        with pytest.raises(CircuitError, match=r"\bk\b"):
            alone(wrong)
    with pytest.raises(CircuitError, match=r"two = -0\.01"):
        alone(cell("du/dt = -u/tau + 1/two : 1; r = u : 1", tau="1*ms", two="-10*ms"))


CONDUCTANCES = {
    "leak": f"dV/dt = (g*(E - V) + I)/C : volt; {VOLT}",
    "other way round": f"dV/dt = (-g*(V - E) + I)/C : volt; {VOLT}",
    "without brackets": f"dV/dt = (g*E - g*V + I)/C : volt; {VOLT}",
    "to zero": f"dV/dt = (-g*V + I)/C : volt; {VOLT}",
    "named current": f"dV/dt = (i_leak + I)/C : volt; i_leak = g*(E - V) : amp; {VOLT}",
    "gated": f"dV/dt = (g*m*(E - V) + I)/C : volt; m = 1/(1 + exp(-V/one)) : 1; {VOLT}",
    "gate with a state": f"dV/dt = (g*m*(E - V) + I)/C : volt; dm/dt = (1 - m)/tau : 1; {VOLT}",
    "to a compartment": f"dV/dt = (g*(W - V) + I)/C : volt; dW/dt = (E - W)/tau : volt; {VOLT}",
    "of a dendrite": f"dV/dt = (E - V + R*I)/tau : volt; dW/dt = g*(V - W)/C : volt; {VOLT}",
}


@pytest.mark.parametrize("form", CONDUCTANCES)
def test_a_conductance_below_zero(form):
    """Refused by name, as a default and in a single cell; zero is legal in both places."""
    text = CONDUCTANCES[form]
    with pytest.raises(CircuitError, match=r"\bg\b"):
        fed(text, g="-10*nS")
    with pytest.raises(CircuitError, match=r"'p'.*\bg\b"):
        fed(text, {"g": np.array([1, 0, -1]) * NS})
    fed(text, g="0*nS")
    fed(text, {"g": np.array([1, 0, 1]) * NS})


@pytest.mark.parametrize("value", ["-5*ms", "0*ms"])
@pytest.mark.parametrize(
    "right",
    [
        "eta/T*r_post*r_pre",
        "(r_post*r_pre - w)/T",
        "eta*r_post*r_pre/T",
        "eta/(two*T)*r_post*r_pre",
        "-eta*w/T",
    ],
)
def test_a_time_constant_of_a_rule(right, value):
    """Refused by name; rates of either sign are legal."""
    c = cell(f"du/dt = (-u + I)/tau : 1; {RATE}", tau="10*ms")

    def learning(T, eta=1.0):
        known = {"eta": eta, "two": 2.0, "T": T}
        learns = rule(right, **{n: v for n, v in known.items() if n in right})
        return circuit(
            {"p": (2, c)},
            [wire("W", "one", "p.I", np.ones((1, 2)), learns)],
            [phase("a", plastic=["rule"])],
        )

    with pytest.raises(CircuitError, match=r"\bT\b"):
        learning(value)
    learning("5*ms"), learning("5*ms", -1.0), learning("5*ms", 0.0)


@pytest.mark.parametrize("value", ["-5*ms", "0*ms"])
def test_a_filter_that_is_not_above_zero(value):
    """Refused by name."""
    c = cell(f"du/dt = (-u + I)/tau : 1; {RATE}", tau="10*ms")
    learns = PlasticityRule("rule", "dw/dt = eta*r_post*r_pre", {"eta": "1*Hz"}, filter=value)
    with pytest.raises(CircuitError, match="filter"):
        circuit(
            {"p": (2, c)},
            [wire("W", "one", "p.I", np.ones((1, 2)), learns)],
            [phase("a", plastic=["rule"])],
        )


# ------------------------------------------------------------------ legal

ADEX = """
    dV/dt = (g*(E - V) + g*D*exp((V - V_T)/D) - w_ad + I)/C : volt
    dw_ad/dt = (a_w*(V - E) - w_ad)/tau : amp
    r = V/one : 1; I : amp
"""
LEGAL = {
    "reversal potential": (CONDUCTANCES["leak"], {"E": "-90*mV"}),
    "quadratic": (f"dV/dt = ((V - V_r)*(V - V_t)*k + I)/C : volt; {VOLT}",
        {"V_r": "-60*mV", "V_t": "-40*mV", "k": "0.7*nS/mV"}),
    "quadratic, k first": (f"dV/dt = (k*(V - V_r)*(V - V_t) + I)/C : volt; {VOLT}",
        {"V_r": "-60*mV", "V_t": "-40*mV", "k": "0.7*nS/mV"}),
    "quadratic without brackets": (f"dV/dt = (k*V**2 + I)/C : volt; {VOLT}", {"k": "0.7*nS/mV"}),
    "quadratic upside down": (f"dV/dt = (k*(V - V_r)*(V - V_t) + I)/C : volt; {VOLT}",
        {"V_r": "-60*mV", "V_t": "-40*mV", "k": "-0.7*nS/mV"}),
    "AdEx": (ADEX, {"a_w": "-2*nS", "D": "2*mV", "V_T": "-50*mV"}),
    "AdEx, other way round": (ADEX.replace("a_w*(V - E)", "-a_w*(E - V)"),
        {"a_w": "-2*nS", "D": "2*mV", "V_T": "-50*mV"}),
    "slope": ("dV/dt = (g*(E - V) + g*m*(E_2 - V) + I)/C : volt; "
              f"m = 1/(1 + exp((V - V_h)/k)) : 1; {VOLT}",
              {"V_h": "-40*mV", "k": "-4*mV", "E_2": "-90*mV"}),
    "slope inside": (
        f"dV/dt = (g*(E - V) + g*(E_2 - V)/(1 + exp((V - V_h)/k)) + I)/C : volt; {VOLT}",
                     {"V_h": "-40*mV", "k": "-4*mV", "E_2": "-90*mV"}),
    "slope of a tanh": (f"du/dt = (-u + tanh(I/k))/tau : 1; {RATE}", {"k": -2.0}),
    "slope of a rate": ("du/dt = (-u + I)/tau : 1; r = tanh(u/k) : 1; I : 1", {"k": -2.0}),
    "other states": (f"du/dt = (-u + c*v + I)/tau : 1; dv/dt = (-v - c*u)/tau : 1; {RATE}",
        {"c": -0.5}),
    "difference of other states": (
        "du/dt = (-u + c*(v - x) + I)/tau : 1; dv/dt = (-v + c*(u - x))/tau : 1; "
        f"dx/dt = -x/tau : 1; {RATE}", {"c": -0.5}),
    "feedback of the rate": ("du/dt = (-u + c*(I - r))/tau : 1; r = tanh(u) : 1; I : 1",
        {"c": -0.5}),
    "gain": (f"du/dt = (-u + c*(I - b))/tau : 1; {RATE}", {"c": -0.5, "b": -1.0}),
    "inhibition": (f"du/dt = (-u + c*u + I)/tau : 1; {RATE}", {"c": -0.5}),
    "threshold of a rate": ("du/dt = (-u + I)/tau : 1; r = clip(u - theta, 0, inf) : 1; I : 1",
        {"theta": -0.5}),
}  # fmt: skip


@pytest.mark.parametrize("what", LEGAL)
def test_legal_values_below_zero(what):
    """None of these is a time, a capacity or a conductance of the state itself."""
    text, parameters = LEGAL[what]
    fed(text, **parameters)


def test_legal_weights_thresholds_and_resets():
    """Inhibition by weights, and potentials below zero."""
    c = cell(
        f"dV/dt = (g*(E - V) + I)/C : volt; {VOLT}", g="10*nS", E="-70*mV", C="100*pF",
        one="1*volt", V_T="-50*mV", V_r="-80*mV",
        parts={"threshold": "V > V_T", "reset": "V = V_r"},
    )  # fmt: skip
    circuit({"p": (2, c)}, [wire("W", "one", "p.I", np.full((1, 2), -1e-12))])


@pytest.mark.parametrize("level", MOST)
def test_conductances_of_zero_run(level):
    """Closed form per cell: V moves as (1 - dt g/C)^k towards E, and not at all where g is 0."""
    c = cell(
        "dV/dt = g*(E - V)/C : volt; r = V/one : 1", g="1*nS", E="-70*mV", C="100*pF", one="1*volt"
    )  # fmt: skip
    g = np.array([10.0, 0.0, 20.0])
    if level == STEADY:
        g[1] = 5.0  # there is no fixed point to solve for where nothing draws
    result = run(alone(c, 3, "5*ms", {"g": g * NS}), level)
    expected = -0.07 * (1 - (1 - 0.5e-3 * g * 1e-9 / 100e-12) ** (9 if level != STEADY else np.inf))
    assert result.ends["only"]["p.V"][0] == pytest.approx(expected, rel=1e-12)


# ------------------------------------------------------------------ growth

TAU = 10e-3


def linear(matrix: np.ndarray):
    """du_i/dt = (sum_j a_ij u_j + I if i is 0)/tau, as one cell of compartments; I is an input."""
    n = len(matrix)
    rows = []
    for i in range(n):
        drive = " + ".join([f"a{i}{j}*u{j}" for j in range(n)] + (["I"] if i == 0 else []))
        rows.append(f"du{i}/dt = ({drive})/tau : 1")
    values = {f"a{i}{j}": float(matrix[i, j]) for i in range(n) for j in range(n)}
    c = cell("; ".join(rows) + "; r = u0 : 1; I : 1", tau="10*ms", inputs=["I"], **values)
    return circuit(
        {"p": (1, c)}, phases=[phase("only", "2*ms")], clamps={"p.I": "image"}, dt="0.1*ms"
    )  # fmt: skip


def matrices():
    """Random Jacobians of 1 to 4 compartments, some growing, some turning."""
    rng = np.random.default_rng(5)
    found = []
    for n in (1, 2, 3, 4):
        grown = {True: 0, False: 0}
        while min(grown.values()) < 2:
            a = rng.uniform(0.1, 1.5, (n, n)) - 1.2 * np.eye(n) * rng.uniform(0, 2.5)
            if n > 1:
                a[0, 1] *= -1  # so that some of them turn
            top = np.linalg.eigvals(a).real.max()
            if abs(top) > 0.05 and np.linalg.cond(a) < 100 and grown[top > 0] < 2:
                grown[top > 0] += 1
                found.append(a)
    return found


IMAGES = np.array([[0.3], [-0.2], [0.5]])


@pytest.mark.parametrize("matrix", matrices(), ids=lambda a: f"{len(a)}")
def test_linear_compartments_against_eigenvalues(matrix):
    """numpy.linalg: the fixed point is -A^-1 b, every sample of it unstable or none."""
    growing = np.linalg.eigvals(matrix).real.max() > 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NeurosimWarning)
        net = linear(matrix)
    result = run(net, STEADY, IMAGES, batch_size=3)
    found = np.hstack([result.ends["only"][f"p.u{i}"] for i in range(len(matrix))])
    drive = np.hstack([IMAGES, np.zeros((3, len(matrix) - 1))])
    assert found == pytest.approx(-np.linalg.solve(matrix, drive.T).T, rel=1e-9, abs=1e-12)
    assert (result.unstable, result.unsettled) == (3 * growing, 3 * growing)


@pytest.mark.parametrize("level", MOST[:3])
def test_linear_growth_warns_in_time(level):
    """A warning names the population where an eigenvalue is positive, and only there."""
    for matrix in matrices()[1:6:2]:
        growing = np.linalg.eigvals(matrix).real.max() > 0
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", NeurosimWarning)
            run(linear(matrix), level, IMAGES[:1])
        said = [str(w.message) for w in caught if issubclass(w.category, NeurosimWarning)]
        assert bool(said) == growing, matrix
        assert all("'p'" in message and "unstable" in message for message in said)


@pytest.mark.parametrize("level", MOST[:3])
def test_spiking_cells_may_grow(level):
    """Growth ends at the threshold: no warning for a linear and a quadratic one."""
    threshold = {"threshold": "V > V_T", "reset": "V = V_r"}
    common = {"V_T": "-30*mV", "V_r": "-60*mV", "tau": "10*ms", "one": "1*volt"}
    grows = cell(
        "dV/dt = (V - E)/tau : volt; r = V/one : 1",
        E="-70*mV",
        parts=threshold | {"initial": {"V": -0.065}},
        **common,
    )
    quadratic = cell(
        "dV/dt = (V - V_r)*(V - E)/(D*tau) : volt; r = V/one : 1",
        E="-50*mV",
        D="5*mV",
        parts=threshold | {"initial": {"V": -0.045}},
        **common,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", NeurosimWarning)
        result = run(
            circuit(
                {"a": (1, grows), "b": (1, quadratic)}, phases=[phase("one", "30*ms")], dt="0.1*ms"
            ),
            level,
        )  # fmt: skip
    assert len(result.spikes["a"].time) > 0 and len(result.spikes["b"].time) > 0


def bistable(second: float = 1e-3, **more):
    text = (
        "du/dt = (-u + a + I + extra)/tau : 1; a = tanh(3*u) : 1; r = u : 1; I : 1; "
        "extra : 1 (shared)"
    )  # fmt: skip
    c = cell(text, tau="10*ms", inputs=["I"], **more)
    phases = [phase("one", "5*ms"), phase("two", "5*ms", extra=second)]
    return circuit({"p": (1, c)}, phases=phases, clamps={"p.I": "image"}, shared={"extra": 0.0})


@pytest.mark.parametrize("method", ["anderson", "sweeps"])
def test_the_middle_of_three_fixed_points(method):
    """u = 0 has the eigenvalue (-1 + 3)/tau; each sample is judged where it was left."""
    images = np.array([[0.0], [0.5], [-0.5], [0.02], [0.0], [3.0]])
    result = run(bistable(), STEADY, images, batch_size=3, solver=method)
    unstable = 0
    for name, extra in (("one", 0.0), ("two", 1e-3)):
        u = result.ends[name]["p.u"]
        assert np.abs(-u + np.tanh(3 * u) + images + extra).max() < 1e-8
        unstable += int((-1 + 3 / np.cosh(3 * u) ** 2 > 0).sum())
    assert result.ends["one"]["p.u"][0] == 0 and unstable >= 2
    assert (result.unstable, result.unsettled) == (unstable, unstable)


def test_a_phase_like_the_one_before_is_counted_too():
    """Pairs of sample and phase: both samples of both phases rest on u = 0."""
    result = run(bistable(second=0.0), STEADY, [[0.0], [0.0]], batch_size=2)
    assert not result.ends["two"]["p.u"].any()
    assert (result.unstable, result.unsettled) == (4, 4)


@pytest.mark.parametrize("start", [0.7, -0.7])
def test_the_outer_fixed_points(start):
    """From either side the cell settles at a root of u = tanh(3 u) with a negative eigenvalue."""
    result = run(bistable(parts={"initial": {"u": start}}), STEADY, [[0.0]])
    u = result.ends["one"]["p.u"][0, 0]
    assert abs(u - np.tanh(3 * u)) < 1e-9 and np.sign(u) == np.sign(start) and abs(u) > 0.9
    assert (result.unstable, result.unsettled) == (0, 0)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_non_linear_compartments_against_the_jacobian_by_hand(n):
    """A chain with a tanh at either end: eigenvalues at the reported point of each sample."""
    rng = np.random.default_rng(n)
    counts = set()
    for k in ([0.4, 0.6], rng.uniform(0.5, 4.0, 2), rng.uniform(3.0, 6.0, 2)):
        g = rng.uniform(0.2, 1.5, n - 1)
        rows = []
        for i in range(n):
            terms = (
                [f"-u{i}"]
                + [f"g{i - 1}*(u{i - 1} - u{i})"] * (i > 0)
                + [f"g{i}*(u{i + 1} - u{i})"] * (i < n - 1)
            )  # fmt: skip
            terms += ["a + I"] * (i == 0) + ["b"] * (i == n - 1)
            rows.append(f"du{i}/dt = ({' + '.join(terms)})/tau : 1")
        text = (
            "; ".join(rows) + f"; a = tanh(k0*u0) : 1; b = tanh(k1*u{n - 1}) : 1; r = u0 : 1; I : 1"
        )  # fmt: skip
        values = {f"g{i}": float(x) for i, x in enumerate(g)} | {
            "k0": float(k[0]),
            "k1": float(k[1]),
        }
        c = cell(text, tau="10*ms", inputs=["I"], **values)
        images = np.array([[0.0], [0.05], [0.8], [-2.0]])
        result = run(circuit({"p": (1, c)}, clamps={"p.I": "image"}), STEADY, images, batch_size=4)
        u = np.hstack([result.ends["only"][f"p.u{i}"] for i in range(n)])
        leak = -np.eye(n)
        for i, x in enumerate(g):
            leak[i, i], leak[i, i + 1], leak[i + 1, i], leak[i + 1, i + 1] = (
                leak[i, i] - x,
                x,
                x,
                leak[i + 1, i + 1] - x,
            )
        flow, unstable = u @ leak.T, 0
        flow[:, 0] += np.tanh(k[0] * u[:, 0]) + images[:, 0]
        flow[:, -1] += np.tanh(k[1] * u[:, -1])
        for point in u:
            jacobian = leak.copy()
            jacobian[0, 0] += k[0] / np.cosh(k[0] * point[0]) ** 2
            jacobian[-1, -1] += k[1] / np.cosh(k[1] * point[-1]) ** 2
            unstable += int(np.linalg.eigvals(jacobian).real.max() > 0)
        assert result.unstable == unstable
        if np.abs(flow).max() < 1e-7:  # all have settled, or are where they would leave
            assert result.unsettled == unstable
        counts.add(unstable)
    assert len(counts) > 1


def test_one_cell_of_many_makes_the_sample_unstable():
    """The pair of sample and phase is counted once, however many of its cells grow."""
    c = cell("du/dt = (a*u + I)/tau : 1; r = u : 1; I : 1", tau="10*ms", inputs=["I"], a=-1.0)
    net = circuit(
        {"p": (4, c, {"a": np.array([-1.0, 0.5, -2.0, 0.3])}), "q": (1, c)}, clamps={"p.I": "image"}
    )  # fmt: skip
    result = run(net, STEADY, np.ones((2, 4)), batch_size=2)
    assert (result.unstable, result.unsettled) == (2, 2)
    assert result.ends["only"]["p.u"][0] == pytest.approx([1.0, -2.0, 0.5, -1 / 0.3], rel=1e-10)
