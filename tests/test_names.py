"""Names: a circuit runs alike on all levels or is refused, by name, when it is built.

Oracle: a leaky cell, u = c (1 - (1 - dt/tau)^k) after k steps towards c, which no name changes.
"""

from __future__ import annotations

import keyword
from contextlib import suppress
from functools import lru_cache

import brian2
import numpy as np
import pytest
from circuits import LEVELS, assemble, circuit, derivative, hold, phase, pool, run, wire

from neurosim import SOURCE, Cell, Phase, PlasticityRule
from neurosim.equations import parse_cell
from neurosim.errors import CircuitError

STEADY = LEVELS[3]
X = np.array([[0.3, 0.9, -0.4]])
SETTLED = {
    level: 1.0 if level == STEADY else 1 - 0.95**3 for level in LEVELS
}  # 2 ms in steps of 0.5 ms, tau 10 ms  # fmt: skip
LEAKY = "du/dt = (-u + I)/tau : 1\nrr = u : 1\nI : 1"


def ports_of(c: Cell) -> tuple[str, ...]:
    """Its ports; none of a text that cannot be read."""
    with suppress(CircuitError):
        return parse_cell(c.equations, "test").ports
    return ("I",)


def net(
    c: Cell, phases=None, clamps=None, parameters=None, learns=None, population="p", projection="W"
):  # fmt: skip
    """Three cells, driven one to one by the image where they have a port."""
    phases = phases or [phase("only", "2*ms", [learns.name] if learns else [])]
    populations = {"inp": (3, SOURCE), population: (3, c, parameters or {})}
    wires = [
        wire(projection, "inp", f"{population}.{port}", one_to_one=True, learns=learns)
        for port in ports_of(c)
    ]  # fmt: skip
    if not wires:
        del populations["inp"]
    return circuit(populations, wires, phases, clamps or {"inp.r": "image"})


def a_cell(text: str, **more) -> Cell:
    return assemble(
        "cell",
        text,
        more.pop("ports", ("I",)),
        rate=more.pop("rate", "rr"),
        parameters={"tau": "10*ms", **more.pop("parameters", {})},
        **more,
    )


#: What a name may stand for: the circuit, a variable, and its value at the fixed point.
ROLES = {
    "state": lambda n: (net(a_cell(f"d{n}/dt = (-{n} + I)/tau : 1\nrr = {n} : 1\nI : 1")), "p.rr",
        X),
    "named": lambda n: (net(a_cell(f"{LEAKY}\n{n} = 3*u : 1\nz = {n} : 1")), "p.z", 3 * X),
    "late": lambda n: (net(a_cell(f"du/dt = (-u + {n})/tau : 1\nrr = u : 1\n{n} = 2*I : 1\nI : 1")),
        "p.u", 2 * X),
    "parameter": lambda n: (net(a_cell(f"du/dt = (-u + I*{n})/tau : 1\nrr = u : 1\nI : 1",
        parameters={n: 3.0})), "p.u", 3 * X),
    "of single cells": lambda n: (
        net(a_cell(f"du/dt = (-u + I*{n})/tau : 1\nrr = u : 1\nI : 1", parameters={n: 3.0}),
            parameters={n: np.array([1.0, -2.0, 3.0])}),
        "p.u", np.array([1.0, -2.0, 3.0]) * X,
    ),
    "port": lambda n: (net(a_cell(f"du/dt = (-u + 2*{n})/tau : 1\nrr = u : 1\n{n} : 1",
        ports=(n,))), "p.u", 2 * X),
    "unfed port": lambda n: (
        net(a_cell(f"du/dt = (-u + I + {n})/tau : 1\nrr = u : 1\nI : 1\n{n} : 1",
            optional_ports=(n,))), "p.u", X),
    "input": lambda n: (
        net(a_cell(f"du/dt = (-u + 2*{n})/tau : 1\nrr = u : 1\n{n} : 1", ports=(), inputs=(n,)),
            clamps={f"p.{n}": "image"}), "p.u", 2 * X,
    ),
    "shared": lambda n: (
        net(a_cell(f"du/dt = (-u + I*{n})/tau : 1\nrr = u : 1\nI : 1\n{n} : 1 (shared)"),
            phases=[Phase("only", "2*ms", {n: 3.0})]),
        "p.u", 3 * X,
    ),
    "pool": lambda n: (net(a_cell(f"{LEAKY}\nz = {n} : 1", pools=(pool(n, "u"),))), "p.z",
        X.sum() + 0 * X),
    "maximum": lambda n: (net(a_cell(f"{LEAKY}\nz = {n} : 1", pools=(pool(n, "u", reduce="max"),))),
        "p.z", X.max() + 0 * X),
    "late pool": lambda n: (
        net(a_cell(f"du/dt = (-u + {n})/tau : 1\nrr = u : 1\nI : 1", pools=(pool(n, "I"),))), "p.u",
        X.sum() + 0 * X,
    ),
    "hold": lambda n: (
        net(a_cell(f"dv/dt = (-v + 2*{n} + 0*I)/tau : 1\nrr = v : 1\nI : 1",
            holds=(hold(n, "I", "first"),)),
            phases=[phase("first", "0.5*ms"), phase("only", "1.5*ms")]),
        "p.v", 2 * X,
    ),
    "slope": lambda n: (
        net(a_cell(f"{LEAKY}\nz = u + 0*tau*{n} : 1", derivatives=(derivative(n, "u"),))), "p.z", X,
    ),
    "sent": lambda n: (sends(n), "q.y", None),
    "of a rule": lambda n: (net(a_cell(LEAKY),
        learns=PlasticityRule("rule", f"dw/dt = {n}*rr_post*r_pre", {n: "0*Hz"})), "p.u", X),
    "rule": lambda n: (net(a_cell(LEAKY),
        learns=PlasticityRule(n, "dw/dt = eta*rr_post*r_pre", {"eta": "0*Hz"})), "p.u", X),
    "population": lambda n: (net(a_cell(LEAKY), population=n), f"{n}.u", X),
    "projection": lambda n: (net(a_cell(LEAKY), projection=n), "p.u", X),
}  # fmt: skip


def sends(n: str):
    """A cell that sends the variable to another one."""
    first = a_cell(f"du/dt = (-u + I)/tau : 1\n{n} = 3*u : 1\nI : 1", rate=n)
    second = a_cell("dy/dt = (-y + J)/tau : 1\nrr = y : 1\nJ : 1", ports=("J",))
    wires = [wire("W", "inp", "p.I", one_to_one=True), wire("V", "p", "q.J", one_to_one=True)]
    return circuit(
        {"inp": (3, SOURCE), "p": (3, first), "q": (3, second)},
        wires,
        [phase("only", "2*ms")],
        {"inp.r": "image"},
    )


def expected(role: str, level: str, settled) -> np.ndarray:
    if role == "sent":
        u = y = 0.0
        for _ in range(3):
            u, y = u + 0.05 * (X - u), y + 0.05 * (3 * u - y)
        return 3 * X if level == STEADY else y
    if role == "hold" and level != STEADY:
        # The state reads what is held from the step on in which it is taken, the first.
        return settled * (1 - 0.95**3)
    return settled * SETTLED[level]


def build(role: str, name: str):
    """The circuit, or None where it is refused by name."""
    try:
        return ROLES[role](name)
    except CircuitError as error:
        assert name in str(error), f"{name} as {role} is refused without its name: {error}"
        return None


def check(role: str, name: str, levels=LEVELS) -> None:
    made = build(role, name)
    if made is None:
        return
    circuit_, variable, settled = made
    for level in levels:
        found = run(circuit_, level, X).ends["only"][variable]
        assert found == pytest.approx(expected(role, level, settled), rel=1e-9), (role, name, level)


# ------------------------------------------------------------------ letters

LETTERS = ["é", "τ", "µ", "naïve", "x₁", "ｐ", "ﬁ", "Ω", "名", "x²", "ё", "a\u0301", "ª"]
NO_WORDS = ["", " ", "a b", "1a", "a-b", "a.b", "a/b", "a*b", "a'", 'a"', "$a", "a:b", "(a)", "a#b"]
BUILT = [role for role in ROLES if role != "rule"]


@pytest.mark.parametrize("role", ["population", "projection"])
def test_a_name_with_a_line_behind_it_is_refused(role):
    """The end of a text is not the end of its line."""
    with pytest.raises(CircuitError):
        ROLES[role]("a\n")


@pytest.mark.parametrize("role", BUILT)
def test_names_in_other_letters_are_refused(role):
    """Each is refused when the circuit is built, as is all that is no word of ASCII letters."""
    accepted = []
    for name in LETTERS + NO_WORDS:
        try:
            ROLES[role](name)
        except CircuitError:
            continue
        accepted.append(name)
    assert not accepted


# ------------------------------------------------------------------ words that somebody else uses


@lru_cache
def words() -> tuple[str, ...]:
    """Attributes and variables of Brian2's groups, words of Python, C, SymPy and of generators."""
    group = brian2.NeuronGroup(
        2, "dv/dt = -v/ms : 1", threshold="v > 1", reset="v = 0", refractory="1*ms", method="euler"
    )
    synapses = brian2.Synapses(group, group, "w : 1", on_pre="v += w", namespace={})
    found = {
        name
        for thing in (group, synapses)
        for name in (*dir(thing), *vars(thing), *thing.variables)
    }  # fmt: skip
    found |= {
        *keyword.kwlist, *keyword.softkwlist, "len", "sum", "max", "min", "list", "print", "type",
        "range",
        *"SNEIQOCDKBW", "beta", "gamma", "zeta", "rho", "Symbol", "re", "im", "Abs", "Max", "Min",
        "oo",
        "nan", "diff", "Lambda", "Eq", "double", "float", "long", "short", "char", "void",
        "unsigned",
        "static", "const", "struct", "switch", "template", "vector", "np", "numpy", "torch", "math",
        "array", "self", "cls", "out", "result", "state", "block", "keep", "operation", "network",
        "image", "target", "label", "same", "time", "phases", "spikes", "cells", "units", "weights",
        "trial", "step", "samples", "_x", "__x", "x_", "x__y", "_", "pre", "post", "a_b", "du",
        "dv",
        "tau_", "lambda_", "int_", "clip_", "exp_", "object", "id", "zip",
    }  # fmt: skip
    return tuple(sorted(n for n in found if not n.startswith("__") or n == "__x"))


#: Attributes of a group, endings of Synapses', steps of a run: tried one by one.
DELICATE = {
    "self": ("state", "named", "of single cells", "port", "shared", "hold", "sent"),
    "pre": ("state", "named", "pool", "late pool", "hold", "slope", "population"),
    "owner": ("state", "port"),
    "source": ("named", "input"), "variables": ("state", "pool"),
    "post": ("pool", "hold", "slope"), "keep": ("population",), "operation": ("population",),
    "clock": ("population", "state", "pool"),
}  # fmt: skip


@pytest.mark.parametrize("name", DELICATE)
def test_delicate_names(name):
    """The leaky cell where every variable has a place in a group; all that fails is named."""
    failed = []
    for role in DELICATE[name]:
        made = build(role, name)
        if made is None:
            continue
        try:
            found = run(made[0], LEVELS[0], X).ends["only"][made[1]]
        except Exception as error:
            failed.append(f"{role}: {type(error).__name__}")
            continue
        if not np.allclose(found, expected(role, LEVELS[0], made[2]), rtol=1e-9):
            failed.append(f"{role}: {found}")
    assert not failed


@pytest.mark.parametrize("name", ["self", "owner", "variables", "operation"])
def test_delicate_names_on_the_dense_level(name):
    """As above, for states and populations."""
    for role in ("state", "population"):
        check(role, name, [LEVELS[1]])


# A hundred variables or groups take `brian2:equations` some seconds.
MANY = [pytest.param(LEVELS[0], marks=pytest.mark.slow), *LEVELS[1:]]
#: Which words are tried in which place: a pool, a population and a projection cost a group each.
PARTS = {
    "named": slice(0, None, 2), "parameter": slice(1, None, 4), "pool": slice(0, None, 9),
    "population": slice(4, None, 9), "projection": slice(7, None, 9),
}  # fmt: skip


@lru_cache
def legal(role: str) -> tuple[str, ...]:
    """Words that the circuit takes in this place, but for those that are tried one by one."""
    chosen = [n for n in words()[PARTS[role]] if n not in DELICATE]
    return tuple(n for n in chosen if build(role, n) is not None)


@pytest.mark.parametrize("level", MANY)
def test_many_names_of_variables_at_once(level):
    """A cell with a subexpression k u of every word that is not refused, k counted through."""
    names = legal("named")
    assert len(names) > 50
    text = "\n".join([LEAKY, *(f"{name} = {k + 1}*u : 1" for k, name in enumerate(names))])
    ends = run(net(a_cell(text)), level, X).ends["only"]
    wrong = [
        n
        for k, n in enumerate(names)
        if not np.allclose(ends[f"p.{n}"], (k + 1) * X * SETTLED[level], rtol=1e-9)
    ]  # fmt: skip
    assert not wrong


@pytest.mark.parametrize("level", MANY)
def test_many_names_of_parameters_at_once(level):
    """Sums of ten parameters each, k the value of the k-th, every eighth with one for each cell."""
    names = legal("parameter")
    tens = [names[k : k + 10] for k in range(0, len(names), 10)]
    text = "\n".join([LEAKY, *(f"zz{k} = u*({' + '.join(ten)}) : 1" for k, ten in enumerate(tens))])
    values = {name: float(k + 1) for k, name in enumerate(names)}
    cells = {name: np.array([1.0, 2.0, 3.0]) * values[name] for name in names[::8]}
    ends = run(net(a_cell(text, parameters=values), parameters=cells), level, X).ends["only"]
    for k, ten in enumerate(tens):
        total = sum(cells.get(name, values[name] * np.ones(3)) for name in ten)
        assert ends[f"p.zz{k}"] == pytest.approx((total * X[0] * SETTLED[level])[None], rel=1e-9), (
            ten
        )  # fmt: skip


@pytest.mark.parametrize("level", MANY)
def test_many_names_of_pools_populations_and_projections(level):
    """Pools k u in one cell; a population and a projection of each word beside it."""
    pools, populations, projections = (
        legal(role) for role in ("pool", "population", "projection")
    )  # fmt: skip
    text = "\n".join([LEAKY, *(f"zz{k} = {name} : 1" for k, name in enumerate(pools))])
    pooled = a_cell(text, pools=tuple(pool(name, f"{k + 1}*u") for k, name in enumerate(pools)))
    groups = {n: (3, a_cell(LEAKY)) for n in populations if n not in ("first", "inp")}
    wires = [wire("to_first", "inp", "first.I", one_to_one=True)]
    names = [n for n in projections if n != "to_first"]
    wires += [
        wire(
            names[k] if k < len(names) else f"more_{k}",
            "inp",
            f"{p}.I",
            X[0] * 0 + k + 1,
            one_to_one=True,
        )
        for k, p in enumerate(groups)
    ]
    made = circuit(
        {"inp": (3, SOURCE), "first": (3, pooled), **groups},
        wires,
        [phase("only", "2*ms")],
        {"inp.r": "image"},
    )
    ends = run(made, level, X).ends["only"]
    for k in range(len(pools)):
        assert ends[f"first.zz{k}"] == pytest.approx(
            (k + 1) * X.sum() * SETTLED[level] + 0 * X, rel=1e-9
        ), pools[k]  # fmt: skip
    for k, name in enumerate(groups):
        assert ends[f"{name}.u"] == pytest.approx((k + 1) * X * SETTLED[level], rel=1e-9), name


# ------------------------------------------------------------------ names that meet

A = a_cell(LEAKY)


def pool_of(**pools: str) -> Cell:
    return a_cell(
        "\n".join([LEAKY, *(f"z_{n} = {n} : 1" for n in pools)]),
        pools=tuple(pool(n, t) for n, t in pools.items()),
    )


HELD = a_cell(f"{LEAKY}\nz_h = 1*h : 1\ntake_h = 2*u : 1", holds=(hold("h", "I", "only"),))
SLOPE = a_cell(
    f"{LEAKY}\nz_D = u + 0*tau*D : 1\nbefore_D = 2*u : 1", derivatives=(derivative("D", "u"),)
)  # fmt: skip
#: Populations by name; each is driven one to one by the image through a projection of its own.
MEETINGS = {
    "a, b_c and a_b, c": {"a": pool_of(b_c="u"), "a_b": pool_of(c="2*u")},
    "a pool and a population": {"p": pool_of(x="u"), "p_x": A},
    "a pool's sum and a population": {"p": pool_of(x="u"), "p_x_sum": A},
    "a pool and its sum": {"p": pool_of(x="u", x_sum="2*u")},
    "a pool and a late one": {"p": pool_of(x="u", x_late="2*I", late_x="3*I"), "p_late": A},
    "a projection and w_": {"w_X0": A, "w_X1": A},
    "a projection and a population": {"X0": A, "X1": A},
    "a projection and its ends": {"X0_pre": A, "X0_post": A, "X1_synapses": A},
    "stages": {"p": pool_of(x="u"), "p_early_10": A, "p_late_10": A, "p_early": A},
    "updaters": {"p": A, "p_stateupdater": A, "p_thresholder": A, "p_resetter": A,
        "p_subexpression_update": A},
    "the steps of a run": {"keep": A, "operation": A, "clock": A, "network": A, "recorder": A},
    "a hold": {"p": HELD, "p_h": A, "p_take_h": A, "take_h": A},
    "a slope": {"p": SLOPE, "p_D": A, "p_before_D": A, "before_D": A},
    "case": {"p": A, "P": A, "inP": A},
    "underscores": {"p_": A, "p__": A, "_p": A},
    "variables": {"u": A, "I": A, "rr": A, "tau": A},
    "words of the protocol": {"image": A, "only": A, "target": A, "trial": A, "rule": A},
    "the constant source": {"one": A},
}  # fmt: skip


ON_DENSE = ("a, b_c and a_b, c", "a projection and w_", "updaters", "the steps of a run", "case")


@pytest.mark.parametrize(
    ("meeting", "level"),
    [(m, x) for m in MEETINGS for x in LEVELS if x in LEVELS[::2] or m in ON_DENSE],
)
def test_names_that_meet(meeting, level):
    """The leaky cell in each population, or refused when it is built."""
    cells = MEETINGS[meeting]
    wires = [wire(f"X{k}", "inp", f"{name}.I", one_to_one=True) for k, name in enumerate(cells)]
    try:
        made = circuit(
            {"inp": (3, SOURCE), **{n: (3, c) for n, c in cells.items()}},
            wires,
            [phase("only", "2*ms")],
            {"inp.r": "image"},
        )
    except CircuitError as error:
        assert any(name in str(error) for name in cells)
        return
    ends = run(made, level, X).ends["only"]
    for name, c in cells.items():
        u = X * SETTLED[level]
        assert ends[f"{name}.u"] == pytest.approx(u, rel=1e-9)
        for summed in parse_cell(c.equations, name).reduced:
            factor, _, of = summed.expression.rpartition("*")
            wanted = float(factor or 1) * (X if of == "I" else u).sum() + 0 * X
            assert ends[f"{name}.z_{summed.name}"] == pytest.approx(wanted, rel=1e-9), (
                name,
                summed.name,
            )
        if c is SLOPE:
            assert ends[f"{name}.z_D"] == pytest.approx(u, rel=1e-9)


@pytest.mark.parametrize("level", LEVELS)
def test_a_population_of_ones_own_called_one(level):
    """The built-in source gives way to it, or it is refused; never are there two."""
    c = a_cell("dz/dt = (-z + 3)/tau : 1\nrr = z : 1", ports=())
    try:
        made = circuit(
            {"one": (1, c), "p": (3, A)},
            [wire("W", "one", "p.I", np.ones((1, 3)))],
            [phase("only", "2*ms")],
        )
    except CircuitError as error:
        assert "one" in str(error)
        return
    ends = run(made, level).ends["only"]
    assert ends["one.z"] == pytest.approx(np.full((1, 1), 3 * SETTLED[level]), rel=1e-9)
    u = z = 0.0
    for _ in range(3):
        u, z = u + 0.05 * (z - u), z + 0.05 * (3 - z)
    assert ends["p.u"] == pytest.approx(np.full((1, 3), 3.0 if level == STEADY else u), rel=1e-9)


def test_a_word_of_python_is_named():
    with pytest.raises(CircuitError, match="'yield' is a word of Python's own; give the variable another name"):
        circuit(
            {"p": (2, Cell("cell", "du/dt = -u*yield/tau : 1; r = u : 1", parameters={"tau": "1*ms", "yield": 1.0}))}
        )
