"""Every function of the language in every place that takes an expression, on every level.

What a function is applied to matters as much as the function: an array of cells, an array of
samples, one number of the protocol or of a parameter, a literal. Each circuit holds all functions
of all of these in one place, and NumPy says what they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from circuits import IN_TIME, LEVELS, cell, circuit, phase, rule, run, wire

from neurosim import SOURCE
from neurosim.equations import FUNCTIONS

EXACT = {"rel": 1e-12, "abs": 1e-12}

# The functions as NumPy knows them; `int` cuts off towards 0.
NUMPY: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    **{name: getattr(np, name) for name in FUNCTIONS if name not in ("clip", "exprel", "int")},
    "clip": lambda x: np.clip(x, -0.6, 0.8),
    "exprel": lambda x: np.where(x == 0, 1.0, np.expm1(x) / np.where(x == 0, 1.0, x)),
    "int": np.trunc,
}

# Arguments are scale*x + offset, so that x between -1 and 1 stays within the function's domain and,
# for those that jump, crosses several whole numbers.
AFFINE = {
    "abs": (1.3, 0), "arccos": (1, 0), "arcsin": (0.9, 0), "arctan": (2.1, 0.1), "ceil": (3.7, 0),
    "clip": (1, 0), "cos": (2.1, 0.3), "cosh": (1.5, 0.2), "exp": (1, 0), "expm1": (1.1, 0),
    "exprel": (1, 0), "floor": (3.7, 0), "int": (3.7, 0), "log": (0.8, 1.1), "log10": (0.7, 0.9),
    "log1p": (0.8, 0), "sign": (1, 0), "sin": (2.1, 0.1), "sinh": (1, 0), "sqrt": (0.8, 1.1),
    "tan": (1.2, 0.1), "tanh": (1, 0),
}  # fmt: skip

# Whole numbers as arguments, of both signs where the domain has both.
WHOLE = {name: 2 for name in FUNCTIONS} | {
    "arccos": -1, "arcsin": 1, "tan": -1,
    "abs": -3, "ceil": -3, "clip": -3, "floor": -3, "int": -3, "sign": -3,
}  # fmt: skip


def called(name: str, x: str) -> str:
    """The text of the function of `x`."""
    scale, offset = AFFINE[name]
    argument = f"{x}" if scale == 1 else f"{scale}*{x}"
    argument += f" + {offset}" if offset else ""
    return f"clip({argument}, -0.6, 0.8)" if name == "clip" else f"{name}({argument})"


def value(name: str, x) -> np.ndarray:
    scale, offset = AFFINE[name]
    return NUMPY[name](scale * np.asarray(x, dtype=float) + offset)


def test_every_function_is_tested():
    assert set(NUMPY) == set(AFFINE) == set(FUNCTIONS)


# ------------------------------------------------------------------ what functions are of

CELLS = 4
SINGLE = np.array([-0.83, -0.21, 0.34, 0.97])  # a parameter of single cells
IMAGE = np.array([[-0.62, 0.18, 0.91, -0.07]])
SHARED = {"first": -0.45, "second": 0.72}
MINUS, PLUS = -0.37, 0.61  # parameters
TAU = 0.02
DT = 5e-4
STEPS = {"first": 6, "second": 5}


@dataclass
class Moment:
    """What the cells read at one step."""

    phase: str
    t: float
    u: np.ndarray  # the state that follows `single`
    single: np.ndarray
    y: np.ndarray


#: Kinds of arguments, as text and as numbers. All have unit 1.
KINDS: dict[str, tuple[str, Callable[[Moment], np.ndarray | float]]] = {
    "a state": ("u", lambda now: now.u),
    "a port": ("I", lambda now: now.y),
    "an input": ("y", lambda now: now.y),
    "a port that nothing feeds": ("spare", lambda now: 0.0),
    "a negative number": ("(-0.29)", lambda now: -0.29),
    "a positive number": ("0.53", lambda now: 0.53),
    "a negative parameter": ("minus", lambda now: MINUS),
    "a positive parameter": ("plus", lambda now: PLUS),
    "a parameter of single cells": ("single", lambda now: now.single),
    "a shared value": ("s", lambda now: SHARED[now.phase]),
    "the time": ("t/tau", lambda now: now.t / TAU),
    "the step": ("dt/tau", lambda now: DT / TAU),
    "a whole number": ("", lambda now: 0.0),  # WHOLE has one for each function
}
NO_TIME = tuple(kind for kind in KINDS if kind not in ("the time", "the step"))
NUMBERS = (
    "a port that nothing feeds", "a negative number", "a positive number", "a negative parameter",
    "a positive parameter", "a shared value", "the step", "a whole number",
)  # fmt: skip


# Functions given arguments of both signs everywhere; the others get one number and one parameter.
SIGNED = ("abs", "ceil", "clip", "floor", "int", "sign")
OTHER_SIGN = ("a positive number", "a negative parameter")


def kinds_on(level: str, among=tuple(KINDS)) -> tuple[str, ...]:
    """What the level has: no time passes on the steady one."""
    return tuple(k for k in among if k in NO_TIME or level != "torch:steady")


def kinds_of(name: str, among) -> list[tuple[int, str]]:
    """Numbered kinds of arguments that the function is given."""
    return [(k, kind) for k, kind in enumerate(among) if name in SIGNED or kind not in OTHER_SIGN]


def called_kind(name: str, kind: str, suffix: str = "") -> str:
    """The text of the function of such an argument; `suffix` is that of a variable in a rule."""
    if kind == "a whole number":
        return f"clip({WHOLE[name]}, -0.6, 0.8)" if name == "clip" else f"{name}({WHOLE[name]})"
    return called(name, KINDS[kind][0] + suffix)


def value_kind(name: str, kind: str, now: Moment) -> np.ndarray:
    if kind == "a whole number":
        return NUMPY[name](np.float64(WHOLE[name]))
    return value(name, KINDS[kind][1](now))


def weighted(name: str, kinds) -> str:
    """All kinds in one sum, each with a weight of its own."""
    return " + ".join(f"{k + 1}*{called_kind(name, kind)}" for k, kind in kinds_of(name, kinds))


def weighted_value(name: str, kinds, now: Moment) -> np.ndarray:
    """The same sum, for each cell."""
    return sum(
        ((k + 1) * value_kind(name, kind, now) for k, kind in kinds_of(name, kinds)),
        np.zeros(len(now.single)),
    )


def moments(level: str, n: int = CELLS, start: float = 0.0, steps=None) -> dict[str, list[Moment]]:
    """The steps of the phases; on the steady level the fixed points."""
    single, y = np.resize(SINGLE, n), np.resize(IMAGE, n)
    steps = steps or STEPS
    if level == "torch:steady":
        return {name: [Moment(name, 0.0, single, single, y)] for name in steps}
    out: dict[str, list[Moment]] = {}
    u, step = np.full(n, start), 0
    for name, count in steps.items():
        out[name] = []
        for _ in range(count):
            out[name].append(Moment(name, step * DT, u, single, y))
            u, step = u + DT / TAU * (single - u), step + 1
    return out


BASE = """
    du/dt = (single - u)/tau : 1
    r = u : 1
    I : 1
    y : 1
    s : 1 (shared)
    spare : 1
"""


def one_population(lines: list[str], pools: dict[str, str] | None = None):
    """A population of four cells with further equations; its phases differ in the shared value."""
    reader = cell(
        BASE + "\n".join(lines), ports=("I",), optional=("spare",), inputs=("y",), pools=pools,
        tau=f"{TAU}*second", single=0.0, minus=MINUS, plus=PLUS,
    )  # fmt: skip
    return circuit(
        {"inp": (CELLS, SOURCE), "p": (CELLS, reader, {"single": SINGLE})},
        [wire("W", "inp", "p.I", np.ones(CELLS), one_to_one=True)],
        [phase(name, f"{count * 500}*us", s=SHARED[name]) for name, count in STEPS.items()],
        {"inp.r": "image", "p.y": "image"},
    )


def differing(ends, wanted: dict[str, dict[str, np.ndarray]]) -> dict[str, tuple]:
    """Variables that are not what NumPy says, with both."""
    out = {}
    for name, values in wanted.items():
        for variable, value_ in values.items():
            got = np.broadcast_to(ends[name][f"p.{variable}"], (1, CELLS))[0]
            if got != pytest.approx(np.broadcast_to(value_, CELLS), **EXACT):
                out[f"{variable} in {name}"] = (got, value_)
    return out


# ------------------------------------------------------------------ in cells


VARYING = tuple(kind for kind in NUMBERS if not kind.endswith("number"))


SUBEXPRESSIONS = {
    "cells": ("a state", "an input", "a parameter of single cells", "the time"),
    "port": ("a port",),
    "numbers": NUMBERS,
}


@pytest.mark.parametrize("level", LEVELS)
def test_in_subexpressions(level):
    groups = {group: kinds_on(level, kinds) for group, kinds in SUBEXPRESSIONS.items()}
    variables = {f"x_{f}_{group}": (f, groups[group]) for f in FUNCTIONS for group in groups}
    net = one_population([f"{x} = {weighted(*parts)} : 1" for x, parts in variables.items()])
    ends = run(net, level, IMAGE).ends
    wanted = {
        name: {x: weighted_value(*parts, steps[-1]) for x, parts in variables.items()}
        for name, steps in moments(level).items()
    }
    assert not differing(ends, wanted)


@pytest.mark.parametrize("level", LEVELS)
def test_in_equations_of_states(level):
    # The steady level solves for states: there a function of one has to stand in a subexpression.
    state = () if level == "torch:steady" else ("a state",)
    kinds = kinds_on(level, (*state, "a port", "a parameter of single cells", *VARYING, "the time"))
    net = one_population([f"dx_{f}/dt = ({weighted(f, kinds)} - x_{f})/tau : 1" for f in FUNCTIONS])
    ends = run(net, level, IMAGE).ends
    x, wanted = {f: np.zeros(CELLS) for f in FUNCTIONS}, {}
    for name, steps in moments(level).items():
        for now in steps:
            drive = {f: weighted_value(f, kinds, now) for f in FUNCTIONS}
            reached = drive if level == "torch:steady" else x
            wanted[name] = {f"x_{f}": value_ for f, value_ in reached.items()}
            x = {f: x[f] + DT / TAU * (drive[f] - x[f]) for f in FUNCTIONS}
    assert not differing(ends, wanted)


POOLED = {
    "early": ("a state", "a parameter of single cells"),
    "late": ("a port",),
    "the same for all cells": NUMBERS,  # the number of cells times the number
}


@pytest.mark.parametrize("what", POOLED)
@pytest.mark.parametrize("level", LEVELS)
def test_in_pools(level, what):
    """Pools of states, inputs and parameters are early; a port makes them late."""
    kinds = kinds_on(level, POOLED[what])
    net = one_population(
        [f"x_{f} = pool_{f} : 1" for f in FUNCTIONS],
        {f"pool_{f}": weighted(f, kinds) for f in FUNCTIONS},
    )
    ends = run(net, level, IMAGE).ends
    wanted = {
        name: {f"x_{f}": weighted_value(f, kinds, steps[-1]).sum() for f in FUNCTIONS}
        for name, steps in moments(level).items()
    }
    assert not differing(ends, wanted)


# ------------------------------------------------------------------ in spiking cells

STILL = (
    "a state", "a positive number", "a negative parameter", "a positive parameter",
    "a parameter of single cells",
)  # fmt: skip
START = 0.44  # of a state that stands still


@pytest.mark.parametrize("level", IN_TIME)
def test_in_thresholds(level):
    """Two cells for each function, with limits just above and just below what it gives."""
    n = 2 * len(FUNCTIONS)
    (now,) = moments("", n, START, {"first": 1})["first"]
    chosen = np.repeat(np.arange(len(FUNCTIONS)), 2)
    given = np.array([weighted_value(FUNCTIONS[k], STILL, now)[j] for j, k in enumerate(chosen)])
    below = np.arange(n) % 2 == 1
    terms = [f"int(chosen == {k})*({weighted(f, STILL)})" for k, f in enumerate(FUNCTIONS)]
    threshold = f"{' + '.join(terms)} > limit"
    spiking = cell(
        "du/dt = none*u : 1 ; dv/dt = none*v : 1 ; r = u : 1",
        rate="spike_train", none="0*Hz", single=0.0, minus=MINUS, plus=PLUS, limit=0.0, chosen=0.0,
        parts={"threshold": threshold, "reset": "v = 1", "initial": {"u": START}},
    )  # fmt: skip
    own = {
        "single": now.single,
        "limit": given + np.where(below, -1e-9, 1e-9),
        "chosen": chosen.astype(float),
    }
    spiked = run(circuit({"p": (n, spiking, own)}), level).ends["only"]["p.v"][0] == 1
    assert not {FUNCTIONS[k] for k in chosen[spiked != below]}


@pytest.mark.parametrize("level", IN_TIME)
def test_in_resets(level):
    lines = [f"dx_{f}/dt = none*x_{f} : 1" for f in FUNCTIONS]
    statements = [f"x_{f} = {weighted(f, STILL)}" for f in FUNCTIONS]
    spiking = cell(
        "\n".join(["du/dt = none*u : 1", "dv/dt = ramp : 1", "r = u : 1", *lines]),
        rate="spike_train", none="0*Hz", ramp="1*kHz", single=0.0, minus=MINUS, plus=PLUS,
        parts={
            "threshold": "v > 0.9",
            "reset": "; ".join(["v = -1000", *statements]),
            "initial": {"u": START},
        },
    )  # fmt: skip
    ends = run(circuit({"p": (CELLS, spiking, {"single": SINGLE})}), level).ends
    (now,) = moments("", CELLS, START, {"first": 1})["first"]
    wanted = {f"x_{f}": weighted_value(f, STILL, now) for f in FUNCTIONS}
    assert not differing(ends, {"only": wanted})


# ------------------------------------------------------------------ in rules

OF_CELLS = (
    "a state", "an input", "a port that nothing feeds", "a negative parameter",
    "a positive parameter", "a parameter of single cells",
)  # fmt: skip
ETA, PARTNER = 0.5, 0.4  # 1/s; rate of the cells at the other side
LEARNING = 4  # steps


def learned(text: str, side: str, level: str) -> dict[str, np.ndarray]:
    """What each function moved, from a rule with `m_function` on that `side` of the synapse.

    Cell k has the mask of the k-th function and no other; at the other side stand two plain cells.
    """
    n = len(FUNCTIONS)
    masks = {f"m_{f}": np.eye(n)[k] for k, f in enumerate(FUNCTIONS)}
    reader = cell(
        "du/dt = (single - u)/tau : 1 ; r = u : 1 ; y : 1 ; spare : 1 ; I : 1",
        ports=(), optional=("I", "spare"), inputs=("y",), tau=f"{TAU}*second", single=0.0,
        minus=MINUS, plus=PLUS, **dict.fromkeys(masks, 0.0), parts={"initial": {"u": START}},
    )  # fmt: skip
    plain = cell(
        "du/dt = (partner - u)/tau : 1 ; r = u : 1 ; I : 1", ports=(), optional=("I",),
        tau=f"{TAU}*second", partner=PARTNER, parts={"initial": {"u": PARTNER}},
    )  # fmt: skip
    source, target = ("plain", "p") if side == "post" else ("p", "plain")
    weights = np.zeros((2, n) if side == "post" else (n, 2))
    learns = rule(text, eta=f"{ETA}*Hz", theta=MINUS, gamma=PLUS)
    net = circuit(
        {"p": (n, reader, {"single": np.resize(SINGLE, n), **masks}), "plain": (2, plain)},
        [wire("W", source, f"{target}.I", weights, learns)],
        [phase("first", f"{LEARNING * 500}*us", ("rule",), s=SHARED["first"])], {"p.y": "image"},
    )  # fmt: skip
    moved = run(net, level, np.resize(IMAGE, (1, n)), plasticity="held").collected["W"]
    return dict(zip(FUNCTIONS, moved.T if side == "post" else moved, strict=True))


def not_learned(
    got: dict[str, np.ndarray], level: str, factor: Callable[[str, Moment], np.ndarray]
) -> dict[str, tuple]:
    """Functions whose change is not what NumPy says, with both; `factor` is that of all cells."""
    out = {}
    steps = moments(level, len(FUNCTIONS), START, {"first": LEARNING})["first"]
    seconds = LEARNING * DT if level == "torch:steady" else DT
    for k, f in enumerate(FUNCTIONS):
        own = [np.broadcast_to(factor(f, now), len(FUNCTIONS))[k] for now in steps]
        wanted = ETA * PARTNER * seconds * sum(own)
        if got[f] != pytest.approx(np.full(2, wanted), rel=1e-12, abs=1e-15):
            out[f] = (got[f], wanted)
    return out


@pytest.mark.parametrize("side", ["post", "pre"])
@pytest.mark.parametrize("level", LEVELS)
def test_in_factors_of_rules(level, side):
    other = "pre" if side == "post" else "post"
    parts = [
        f"m_{f}_{side}*{k + 1}*{called_kind(f, kind, f'_{side}')}"
        for f in FUNCTIONS
        for k, kind in kinds_of(f, OF_CELLS)
    ]
    got = learned(f"eta*r_{other}*({' + '.join(parts)})", side, level)
    assert not not_learned(got, level, lambda f, now: weighted_value(f, OF_CELLS, now))


@pytest.mark.parametrize("level", LEVELS)
def test_in_coefficients_of_rules(level):
    """Functions of the rule's parameters, one of each sign, of a shared value, of whole numbers."""
    text = " + ".join(
        f"m_{f}_post*({called(f, 'theta')} + 2*{called(f, 'gamma')} + 3*{called(f, 's')}"
        f" + 4*{called_kind(f, 'a whole number')})"
        for f in FUNCTIONS
    )
    got = learned(f"eta*r_pre*({text})", "post", level)

    def coefficient(f, now):
        own = value(f, MINUS) + 2 * value(f, PLUS) + 3 * value(f, SHARED["first"])
        return own + 4 * value_kind(f, "a whole number", now)

    assert not not_learned(got, level, coefficient)
