"""Equations as text: values with units, rules split into terms, steady states, decay rates, compiled blocks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sympy

from neurosim.backends.brian2.arrays import NumpyArrays
from neurosim.backends.torch.arrays import TorchArrays
from neurosim.equations import (
    NotSeparable,
    compile_block,
    linear_rates,
    names_in,
    python_source,
    quantity,
    seconds,
    separate,
    solve_steady,
    substitute,
    unit_text,
)
from neurosim.errors import CircuitError

FUNCTIONS = {n: getattr(np, n) for n in ("exp", "tanh", "clip", "sin", "sqrt")} | {
    "int": lambda x: np.asarray(x).astype(float),
    "abs": np.abs,
}


def evaluate(text: str, values: dict) -> np.ndarray:
    """The text as Python, on NumPy arrays."""
    return np.asarray(eval(text, {"__builtins__": {}}, {**FUNCTIONS, **values}), dtype=float)


# ------------------------------------------------------------------ values


@pytest.mark.parametrize(
    ("text", "number", "unit"),
    [
        ("10*ms", 0.01, "s"), ("-70*mV", -0.07, "volt"), ("2*(3 + 4)*Hz", 14.0, "hertz"), ("1/(5*ms)", 200.0, "hertz"),
        ("0.5", 0.5, "1"), (3, 3.0, "1"), ("1e-3*second", 1e-3, "s"), ("5*ms/(10*ms)", 0.5, "1"),
    ],
)  # fmt: skip
def test_quantity(text, number, unit):
    value, dimension = quantity(text)
    assert isinstance(value, float)
    assert value == pytest.approx(number, rel=1e-15)
    assert unit_text(dimension) == unit


def test_quantity_of_arrays():
    import brian2 as b2

    value, dimension = quantity(np.array([1.0, 2.0]) * b2.ms)
    assert value == pytest.approx([1e-3, 2e-3])
    assert unit_text(dimension) == "s"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("10*", ("'10*'", "such as '10*ms'")),
        ("10*mss", ("'mss'", "no unit", "Did you mean 'ms'?")),
        ("tau", ("'tau'", "no unit")),
        ("open('x')", ("open('x')",)),
        ("__import__('os')", ("__import__('os')",)),
        ("(3*ms).dim", ("only hold numbers",)),
        (float("nan"), ("not finite",)),
        ("1e999*ms", ("no number that floating point holds",)),
        (np.array([1.0, np.inf]), ("not finite",)),
    ],
)
def test_bad_values(text, parts):
    with pytest.raises(CircuitError) as caught:
        quantity(text)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize("text", ["3*ms + 2*mV", "1/0", "'a'", "[1, 2]*ms"])
def test_bad_arithmetic_is_refused_as_a_value_not_as_a_crash(text):
    with pytest.raises(CircuitError):
        quantity(text)


def test_seconds():
    assert seconds("60*ms") == pytest.approx(0.06, rel=1e-15)
    for wrong in ("60*mV", 60, "60"):
        with pytest.raises(CircuitError, match="units of time, such as"):
            seconds(wrong)


def test_substitute_replaces_whole_names_only():
    assert substitute("a*ab + b*a_b", {"a": "(x + y)", "b": "a"}) == "(x + y)*ab + a*a_b"
    assert substitute("a + b", {}) == "a + b"


def test_names_in():
    assert names_in("exp(a) + b*int(c > 0 and not d)") == {"a", "b", "c", "d"}


# ------------------------------------------------------------------ rules

RULES = [
    "eta*r_post*r_pre",
    "eta*r_post*(r_pre - w*r_post)",  # Oja
    "eta*(r_post*r_pre - w*r_post**2)",
    "-w/tau",
    "eta",
    "eta*w",
    "eta*(r_post - E_post)*r_pre",
    "eta*(r_post - r_free_post)*(r_pre + E_pre)",
    "eta*(r_post*r_pre - r_free_post*r_free_pre)",  # contrastive Hebb
    "eta*(r_post - theta)*r_post*r_pre",  # BCM
    "eta*beta*E_post*tanh(r_pre)/(1 + exp(-r_post)) - lam*w",
    "eta*(r_post + r_pre)",
    "eta*(r_post - r_pre)**2",
    "eta*w*(r_post - r_pre)",
    "eta*(r_post*r_pre - lam*w)*mod",
    "(r_post - w)/tau",
    "eta*r_pre*(E_post - lam*w*r_pre)*r_post",
    "eta*exp(beta)*r_post*r_pre/(beta*lam)",
    "eta*(r_post**2*r_pre**3 + 2*r_pre*E_post - 7) + w*r_pre**2/tau",
    "eta*clip(r_post, 0, 1)*r_pre",
    "eta*int(r_post > theta)*r_pre",
    "eta*r_post/(0.1 + r_pre)",
    "(eta*r_post)*((r_pre - r_free_pre)*(1 - w))",
]


@pytest.mark.parametrize("rhs", RULES)
def test_terms_of_a_rule_add_up_to_the_rule(rhs):
    rng = np.random.default_rng(len(rhs))
    pre, post, points = 4, 3, 5
    names = {"r", "E", "r_free"}
    shared = {n: rng.uniform(0.5, 2.0) for n in ("eta", "tau", "lam", "beta", "theta", "mod")}
    terms = separate(rhs)
    assert len({(t.pre, t.w_power) for t in terms}) == len(terms)  # as the docstring promises
    for _ in range(points):
        w = rng.standard_normal((pre, post))
        at_pre = {n: rng.uniform(0.1, 2, pre) for n in names}
        at_post = {n: rng.uniform(0.1, 2, post) for n in names}
        raw = {f"{n}_pre": v[:, None] for n, v in at_pre.items()} | {
            f"{n}_post": v[None, :] for n, v in at_post.items()
        }
        wanted = np.broadcast_to(evaluate(rhs, {**shared, **raw, "w": w}), w.shape)
        got = np.zeros_like(w)
        for term in terms:
            coefficient = float(evaluate(term.coefficient, shared))
            f = np.broadcast_to(evaluate(term.post, {**shared, **at_post}), post)
            g = np.broadcast_to(evaluate(term.pre, {**shared, **at_pre}), pre)
            got += coefficient * w**term.w_power * np.outer(g, f)
        assert got == pytest.approx(wanted, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(
    ("rhs", "count"),
    [("eta*r_post*r_pre", 1), ("eta*(r_post - E_post)*r_pre", 1), ("eta*(r_post*r_pre - w*r_post**2)", 2)],
)
def test_one_term_for_each_matrix_product(rhs, count):
    assert len(separate(rhs)) == count


@pytest.mark.parametrize(
    ("rhs", "part"),
    [
        ("eta*tanh(r_post - r_pre)", "tanh(r_post - r_pre)"),
        ("eta/(r_post + r_pre)", "r_post + r_pre"),
        ("eta*exp(-w)*r_post", "exp(-w)"),
        ("eta*w*(w - r_pre)", "power 2"),
        ("eta*int(r_post > r_pre)", "int("),
        ("eta*r_post**r_pre", "r_post**r_pre"),
        ("eta*sqrt(w)", "sqrt(w)"),
    ],
)
def test_rules_that_do_not_split(rhs, part):
    with pytest.raises(NotSeparable) as caught:
        separate(rhs)
    assert part in str(caught.value)
    assert f"dw/dt = {rhs}" in str(caught.value)


@pytest.mark.parametrize("power", ["w**2", "w**3", "1/w", "w*(w - 1)"])
def test_powers_of_w_do_not_split(power):
    with pytest.raises(NotSeparable):
        separate(f"-eta*{power}*r_post")


# ------------------------------------------------------------------ steady states


def conductance_cell(rng):
    """Three compartments with random conductances: equations, and G, c with dv/dt = -G v + c(ports)."""
    leak, couple, reversal = rng.uniform(0.1, 2, 3), rng.uniform(0.1, 2, (3, 3)), rng.uniform(-1, 1, 3)
    G = np.diag(leak + couple.sum(1) - np.diag(couple)) - (couple - np.diag(np.diag(couple)))
    ode = {}
    for k in range(3):
        flows = [f"{float(couple[k, m])!r}*(v{m} - v{k})" for m in range(3) if m != k]
        ode[f"v{k}"] = f"(-{float(leak[k])!r}*(v{k} - {float(reversal[k])!r}) + {' + '.join(flows)} + I{k})/tau"
    return ode, G, leak * reversal


@pytest.mark.parametrize("seed", range(6))
def test_steady_state_of_a_conductance_cell(seed):
    rng = np.random.default_rng(seed)
    ode, G, constant = conductance_cell(rng)
    solution, held = solve_steady(ode, {"r": "1/(1 + exp(-v0))"}, {"r"}, {})
    assert held == set()
    ports = rng.standard_normal(3)
    values = {f"I{k}": ports[k] for k in range(3)} | {"tau": 0.01}
    wanted = np.linalg.solve(G, constant + ports)
    got = [float(evaluate(solution[f"v{k}"], values)) for k in range(3)]
    assert got == pytest.approx(wanted, rel=1e-11)


@pytest.mark.parametrize("seed", range(3))
def test_steady_state_through_affine_subexpressions_and_parameters(seed):
    """A sum of potentials is put in, a rate is known, per-cell parameters stay as names."""
    rng = np.random.default_rng(seed)
    g, h, I, r, mod = rng.uniform(0.2, 2, 5)
    ode = {"u": "(-u + flow + mod*r)/tau", "v": "(h*(u - v) - v)/tau"}
    subexpressions = {"flow": "g*(v - u) + I", "r": "tanh(u)"}
    solution, held = solve_steady(ode, subexpressions, {"r"}, {"mod": mod})
    wanted = np.linalg.solve([[1 + g, -g], [-h, 1 + h]], [I + mod * r, 0])
    values = {"g": g, "h": h, "I": I, "r": r, "tau": 0.02, "mod": mod}
    assert held == set()
    assert [float(evaluate(solution[x], values)) for x in ("u", "v")] == pytest.approx(wanted, rel=1e-12)


def test_held_states():
    ode = {"u": "track*(I - u)/tau", "v": "(-v + u)/tau"}
    solution, held = solve_steady(ode, {}, set(), {"track": 0.0})
    assert held == {"u"}
    assert float(evaluate(solution["v"], {"u": 0.3, "I": 9.0, "tau": 1.0})) == pytest.approx(0.3)
    solution, held = solve_steady(ode, {}, set(), {"track": 0.5})
    assert held == set()
    assert float(evaluate(solution["u"], {"I": 9.0, "tau": 1.0, "track": 0.5})) == pytest.approx(9.0)


def test_cells_without_a_steady_state():
    with pytest.raises(ValueError, match="no unique steady state"):
        solve_steady({"u": "I/tau"}, {}, set(), {})
    with pytest.raises(ValueError, match="subexpression of its own"):
        solve_steady({"u": "(-u + tanh(u) + I)/tau"}, {}, set(), {})
    with pytest.raises(ValueError, match="subexpression of its own"):
        solve_steady({"u": "(-u**2 + I)/tau"}, {}, set(), {})


@pytest.mark.parametrize("seed", range(6))
def test_linear_rates_are_the_eigenvalues(seed):
    rng = np.random.default_rng(100 + seed)
    ode, G, _ = conductance_cell(rng)
    rates = linear_rates(ode, {"r": "tanh(v0)"}, {"tau": 0.01})
    assert np.sort_complex(rates) == pytest.approx(np.sort_complex(np.linalg.eigvals(-G / 0.01)), rel=1e-9)


def test_linear_rates_of_an_oscillation_and_of_nothing():
    rates = linear_rates({"u": "(-u - 3*v)/tau", "v": "(-v + 3*u)/tau"}, {}, {"tau": 0.1})
    assert np.sort_complex(rates) == pytest.approx(np.array([-10 - 30j, -10 + 30j]), rel=1e-12)
    assert linear_rates({}, {}, {}).size == 0
    rates = linear_rates({"u": "(-u + r)/tau"}, {"r": "clip(u, 0, 1)*int(u > 0)"}, {"tau": 0.1})
    assert rates == pytest.approx([-10.0])  # rates are held fixed


# ------------------------------------------------------------------ compiled blocks

BLOCK = [
    ("r", "1/(1 + exp(-gain*(u - theta)))"),
    ("q", "r**2 - u/(1 + abs(u)) + 0.5"),
    ("h", "clip(q, -0.2, 0.7)*int(u > 0) + tanh(u)"),
    ("k", "int(u >= -0.5 and u <= 0.5)*2 - int(not (r > 0.5))"),
    ("z", "-u**2 + 2**-1*q - 3"),
    ("c", "gain*theta"),
]


def by_hand(u, gain, theta):
    r = 1 / (1 + np.exp(-gain * (u - theta)))
    q = r**2 - u / (1 + np.abs(u)) + 0.5
    h = np.clip(q, -0.2, 0.7) * (u > 0) + np.tanh(u)
    k = ((u >= -0.5) & (u <= 0.5)) * 2.0 - (r <= 0.5)
    return {"r": r, "q": q, "h": h, "k": k, "z": -(u**2) + 0.5 * q - 3, "c": gain * theta}


@pytest.mark.parametrize("arrays", [NumpyArrays(), TorchArrays()], ids=["numpy", "torch"])
def test_compiled_block_against_numpy(arrays):
    u = np.random.default_rng(0).uniform(-2, 2, (4, 9))
    gain, theta = 1.7, np.linspace(-0.5, 0.5, 9)
    state = {"u": arrays.asarray(u)}
    compile_block(BLOCK, arrays.functions, {"gain": gain, "theta": arrays.asarray(theta)})(state)
    for name, wanted in by_hand(u, gain, theta).items():
        assert np.abs(arrays.to_numpy(state[name]) - wanted).max() < 2e-15 * 10, name


@pytest.mark.parametrize("arrays", [NumpyArrays(), TorchArrays()], ids=["numpy", "torch"])
def test_every_function_of_the_two_libraries(arrays):
    x = np.linspace(0.05, 0.95, 7)[None]
    oracle = {
        "exp": math.exp, "log": math.log, "log10": math.log10, "log1p": math.log1p, "expm1": math.expm1, "sqrt": math.sqrt,
        "sin": math.sin, "cos": math.cos, "tan": math.tan, "sinh": math.sinh, "cosh": math.cosh, "tanh": math.tanh,
        "arcsin": math.asin, "arccos": math.acos, "arctan": math.atan, "abs": abs, "floor": math.floor, "ceil": math.ceil,
        "sign": lambda v: math.copysign(1, v), "exprel": lambda v: math.expm1(v) / v,
    }  # fmt: skip
    for name, function in oracle.items():
        for argument in (x,) if name in ("log", "log10", "sqrt") else (x, -x):
            state = {"v": arrays.asarray(argument)}
            compile_block([("out", f"{name}(v)")], arrays.functions, {})(state)
            got = arrays.to_numpy(state["out"])[0]
            assert got == pytest.approx([function(v) for v in argument[0]], rel=1e-14, abs=1e-15), name


@pytest.mark.parametrize("arrays", [NumpyArrays(), TorchArrays()], ids=["numpy", "torch"])
def test_int_cuts_off_the_fraction_as_in_brian2(arrays):
    state = {"v": arrays.asarray([[-2.7, -0.5, 0.5, 2.7]])}
    compile_block([("out", "int(v)")], arrays.functions, {})(state)
    assert arrays.to_numpy(state["out"]).tolist() == [[-2.0, 0.0, 0.0, 2.0]]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1/(1 + exp(-v))", lambda v: v), ("1/(exp(-v) + 1)", lambda v: v), ("1.0/(1 + exp(-3*v))", lambda v: 3 * v),
        ("1/(1 + exp(-v/2))", lambda v: v / 2), ("1/(1 + exp(v))", lambda v: -v), ("1/(1 + exp(-(v - 1)))", lambda v: v - 1),
        ("2*v + 1/(1 + exp(1 - v))", lambda v: v - 1),
    ],
)  # fmt: skip
def test_the_logistic_function_is_one_call(text, value):
    assert "logistic(" in python_source(text)
    assert "exp(" not in python_source(text).replace("logistic(", "")
    v = np.linspace(-3, 3, 11)
    state = {"v": v}
    compile_block([("out", text)], NumpyArrays.functions, {})(state)
    wanted = 1 / (1 + np.exp(-value(v))) + (2 * v if text.startswith("2*v") else 0)
    assert state["out"] == pytest.approx(wanted, rel=1e-14)


def test_what_only_looks_like_a_logistic_is_left_alone():
    v = np.linspace(-2, 2, 9)
    for text in ("2/(1 + exp(-v))", "1/(2 + exp(-v))", "1/(1 - exp(-v - 5))", "1/(1 + exp(-v)*2)"):
        assert "logistic" not in python_source(text)
        state = {"v": v}
        compile_block([("out", text)], NumpyArrays.functions, {})(state)
        assert state["out"] == pytest.approx(evaluate(text, {"v": v}), rel=1e-14)


def test_the_logistic_of_a_strong_drive_is_silent():
    """The fused call neither overflows nor warns."""
    state = {"v": np.array([-800.0, 800.0])}
    with np.errstate(all="raise", under="ignore"):
        compile_block([("out", "1/(1 + exp(-v))")], NumpyArrays.functions, {})(state)
    assert state["out"] == pytest.approx([0.0, 1.0], abs=1e-300)


def test_terms_equal_the_rule_symbolically():
    """The terms' sum minus the rule simplifies to 0."""
    for rhs in RULES[:9]:
        symbols = {n: sympy.Symbol(n, real=True) for n in {*names_in(rhs), "w", "beta"}}

        def read(text, suffix="", rhs=rhs, symbols=symbols):
            full = {n: n + suffix for n in names_in(text) if n + suffix in names_in(rhs)}
            return sympy.sympify(substitute(text, full), locals=symbols)

        total = sum(
            read(t.coefficient) * symbols["w"] ** t.w_power * read(t.post, "_post") * read(t.pre, "_pre")
            for t in separate(rhs)
        )
        assert sympy.simplify(total - read(rhs)) == 0, rhs
