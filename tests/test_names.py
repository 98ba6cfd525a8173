"""Names: a circuit runs alike on all levels or is refused, by name, when it is built.

Oracle: a leaky cell, u = c (1 - (1 - dt/tau)^k) after k steps towards c, which no name changes.
"""

from __future__ import annotations

import keyword
from functools import lru_cache

import brian2
import numpy as np
import pytest
from circuits import LEVELS, circuit, phase, run, wire

from neurosim import SOURCE, Cell, Derivative, Hold, Phase, PlasticityRule, Pool
from neurosim.errors import CircuitError

STEADY = LEVELS[3]
X = np.array([[0.3, 0.9, -0.4]])
SETTLED = {
    level: 1.0 if level == STEADY else 1 - 0.95**3 for level in LEVELS
}  # 2 ms in steps of 0.5 ms, tau 10 ms  # fmt: skip
LEAKY = "du/dt = (-u + I)/tau : 1\nrr = u : 1\nI : 1"


def net(
    c: Cell, phases=None, clamps=None, parameters=None, learns=None, population="p", projection="W"
):  # fmt: skip
    """Three cells, driven one to one by the image where they have a port."""
    phases = phases or [phase("only", "2*ms", [learns.name] if learns else [])]
    populations = {"inp": (3, SOURCE), population: (3, c, parameters or {})}
    wires = [
        wire(projection, "inp", f"{population}.{port}", one_to_one=True, learns=learns)
        for port in c.ports
    ]  # fmt: skip
    if not wires:
        del populations["inp"]
    return circuit(populations, wires, phases, clamps or {"inp.r": "image"})


def a_cell(text: str, **more) -> Cell:
    return Cell(
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
    "pool": lambda n: (net(a_cell(f"{LEAKY}\nz = {n} : 1", pools=(Pool(n, "u"),))), "p.z",
        X.sum() + 0 * X),
    "maximum": lambda n: (net(a_cell(f"{LEAKY}\nz = {n} : 1", pools=(Pool(n, "u", reduce="max"),))),
        "p.z", X.max() + 0 * X),
    "late pool": lambda n: (
        net(a_cell(f"du/dt = (-u + {n})/tau : 1\nrr = u : 1\nI : 1", pools=(Pool(n, "I"),))), "p.u",
        X.sum() + 0 * X,
    ),
    "hold": lambda n: (
        net(a_cell(f"dv/dt = (-v + 2*{n} + 0*I)/tau : 1\nrr = v : 1\nI : 1",
            holds=(Hold(n, "I", "first"),)),
            phases=[phase("first", "0.5*ms"), phase("only", "1.5*ms")]),
        "p.v", 2 * X,
    ),
    "slope": lambda n: (
        net(a_cell(f"{LEAKY}\nz = u + 0*tau*{n} : 1", derivatives=(Derivative(n, "u"),))), "p.z", X,
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
        "tau_", "lambda_", "int_", "clip_", "exp_", "w_W", "object", "id", "zip",
    }  # fmt: skip
    return tuple(sorted(n for n in found if not n.startswith("__") or n == "__x"))


#: Attributes of a group, endings of Synapses', steps of a run: tried one by one.
DELICATE = {
    "self": tuple(ROLES), "pre": tuple(ROLES), "owner": ("state", "port"),
    "source": ("named", "input"), "variables": ("state", "pool"),
    "post": ("pool", "hold", "slope"), "keep": ("population",), "operation": ("population",),
    "clock": ("population", "state", "pool"),
}  # fmt: skip
