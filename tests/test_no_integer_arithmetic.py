"""Numbers in equations are real numbers: `2**(-1)` is a half, everywhere and on every level.

Python, NumPy, SymPy, torch and C++ disagree about powers, quotients and large products of whole
numbers, so each is asked; what is wanted is written here in NumPy with decimal points.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
from circuits import IN_TIME, LEVELS, cell, circuit, phase, rule, run, wire

# Numbers, and what they are.
NUMBERS: dict[str, float] = {
    "2**(-1)": 0.5,  # negative powers of whole numbers
    "10**(-1)": 0.1,
    "3**(-2)": 1.0 / 9.0,
    "2**(-1)*10**(-1)": 0.05,
    "(2**(-1))**(-3)": 8.0,
    "2**3**(-1)": 2.0 ** (1.0 / 3.0),  # from the right
    "-2**(-2)": -0.25,
    "(-2)**(-3)": -0.125,
    "1/2": 0.5,  # quotients
    "7/2": 3.5,
    "(-7)/2": -3.5,
    "1/3/2": 1.0 / 6.0,
    "3*(1/4)": 0.75,
    "(1/2)**(-2)": 4.0,
    "1/2**2": 0.25,
    "10000000000/3": 1e10 / 3.0,  # beyond 32 bits
    "100000*100000": 1e10,
    "2**40": 1099511627776.0,
    "10**12/10**10": 100.0,
    "10**20": 1e20,  # beyond 64 bits
    "int(3.7)*int(2.2)": 6.0,  # whole numbers by a function
    "int(-2.7)/4": -0.5,
    "int(7.1)/int(2.9)": 3.5,
    "int(2.2)**(-1)": 0.5,
    "2**(-int(2.2))": 0.25,
    "floor(7.9)/ceil(1.1)": 3.5,
    "sign(-3)/2": -0.5,
    "abs(-3)/2": 1.5,
    "clip(7, 1, 3)/2": 1.5,
    "int(2 > 1)/2": 0.5,
    "1.e3": 1000.0,  # spellings
    ".5e1": 5.0,
    "1e-3": 0.001,
    "2.e-1/.5": 0.4,
}

X = np.array([-1.3, -0.4, 0.3, 1.7])

# Expressions of x.
OF_X: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "10**(-1)*x": lambda x: 0.1 * x,
    "x*2**(-1)": lambda x: 0.5 * x,
    "7/2*x": lambda x: 3.5 * x,
    "x*1/2": lambda x: 0.5 * x,
    "x/(1/2)": lambda x: 2.0 * x,
    "x**(-1)": lambda x: 1.0 / x,
    "abs(x)**(1/2)": lambda x: np.sqrt(np.abs(x)),
    "abs(x)**(2**(-1))": lambda x: np.sqrt(np.abs(x)),
    "10000000000*x": lambda x: 1e10 * x,
    "100000*100000*x": lambda x: 1e10 * x,
    "int(5e9*x)": lambda x: np.trunc(5e9 * x),
    "int(10**12*x)/10**12": lambda x: np.trunc(1e12 * x) / 1e12,
    "floor(5e9*x)": lambda x: np.floor(5e9 * x),
    "int(3.7*x)*int(2.2)": lambda x: 2.0 * np.trunc(3.7 * x),
    "int(3.7*x)/2": lambda x: np.trunc(3.7 * x) / 2.0,
    "int(3.7*x)/int(4.4)": lambda x: np.trunc(3.7 * x) / 4.0,
    "100000*int(30000*x)": lambda x: 1e5 * np.trunc(3e4 * x),
    "int(30000*x)**3": lambda x: np.trunc(3e4 * x) ** 3.0,
    "floor(3.7*x)/2": lambda x: np.floor(3.7 * x) / 2.0,
    "int(floor(3.7*x) <= 2)": lambda x: (np.floor(3.7 * x) <= 2.0) / 1.0,  # in relations
    "int(ceil(-3.7*x) > floor(x))": lambda x: (np.ceil(-3.7 * x) > np.floor(x)) / 1.0,
    "int(int(3.7*x) == -1)": lambda x: (np.trunc(3.7 * x) == -1.0) / 1.0,
    "ceil(3.7*x)/2": lambda x: np.ceil(3.7 * x) / 2.0,
    "sign(x)/2": lambda x: np.sign(x) / 2.0,
    "int(x > 0)/2": lambda x: (x > 0) / 2.0,
    "(1 + int(x > 0))**(-1)": lambda x: 1.0 / (1.0 + (x > 0)),
    "1/(2 + int(x > 0))": lambda x: 1.0 / (2.0 + (x > 0)),
    "2**(-int(x > 0))": lambda x: np.where(x > 0, 0.5, 1.0),
    "2**(-int(x > 0) - 1)": lambda x: np.where(x > 0, 0.25, 0.5),
    "(int(x > 0) + 2**(-1))**(-2)": lambda x: np.where(x > 0, 1.0 / 2.25, 4.0),
    "-int(x > 0)": lambda x: -1.0 * (x > 0),
    "int(x > 0) - int(x < 1) - 2": lambda x: 1.0 * (x > 0) - 1.0 * (x < 1) - 2.0,
    "1.e3*x + .5e1": lambda x: 1000.0 * x + 5.0,
    "clip(x, -1/2, 1/2)": lambda x: np.clip(x, -0.5, 0.5),
    "exp(-1/2*x)": lambda x: np.exp(-0.5 * x),
    "sqrt(2**(-2))*x": lambda x: 0.5 * x,
}

EXPRESSIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    **{text: (lambda x, it=number: np.full_like(x, it)) for text, number in NUMBERS.items()},
    **OF_X,
}


def together(texts: list[str], size: int = 8) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Sums of `size` expressions, each of a weight that makes it about as large as its neighbours.

    One variable for each expression would cost a level a tenth of a second each.
    """
    out = {}
    for first in range(0, len(texts), size):
        part = texts[first : first + size]
        sizes = [max(1.0, np.abs(EXPRESSIONS[text](X)).max()) for text in part]
        weights = [float(f"{(k + 1) / large:.3g}") for k, large in enumerate(sizes)]
        pairs = list(zip(weights, part, strict=True))
        total = " + ".join(f"{weight!r}*({text})" for weight, text in pairs)
        out[total] = lambda x, it=pairs: sum(weight * EXPRESSIONS[text](x) for weight, text in it)
    return out


SUMS = together(list(EXPRESSIONS))
SUMS_OF_NUMBERS = together(list(NUMBERS))

TAU, DT, STEPS = 0.02, 5e-4, 4


def same(got, wanted) -> bool:
    return got == pytest.approx(np.broadcast_to(wanted, np.shape(got)), rel=1e-12, abs=1e-14)


def ends_of(lines: list[str], level: str, pools=None, **options):
    """The last step of a population of four cells with these lines, whose input x is X."""
    c = cell(
        "\n".join(["du/dt = -u/tau : 1", "r = u : 1", "x : 1", *lines]), inputs=("x",), pools=pools,
        tau=f"{TAU}*second", unit=1.0,
    )  # fmt: skip
    phases = [phase("only", f"{STEPS * 500}*us")]
    net = circuit({"p": (len(X), c)}, phases=phases, clamps={"p.x": "image"})
    ends = run(net, level, X[None], **options).ends["only"]
    return {name[2:]: value[0] for name, value in ends.items()}


def wrong(ends, wanted: dict[str, np.ndarray]) -> dict[str, tuple]:
    """Expressions that came out otherwise, with both; `wanted` has the order of x_0, x_1."""
    pairs = {text: (ends[f"x_{k}"], value) for k, (text, value) in enumerate(wanted.items())}
    return {text: pair for text, pair in pairs.items() if not same(*pair)}


def settled_or_moved(level: str, rate: float | np.ndarray, drive: np.ndarray) -> np.ndarray:
    """z of dz/dt = (drive - rate*z)/tau from 0 at the last step, or where it settles."""
    if level == "torch:steady":
        return drive / rate
    z = np.zeros_like(drive)
    for _ in range(STEPS - 1):
        z = z + DT / TAU * (drive - rate * z)
    return z


def in_subexpressions(level, **options):
    ends = ends_of([f"x_{k} = {text} : 1" for k, text in enumerate(EXPRESSIONS)], level, **options)
    assert not wrong(ends, {text: f(X) for text, f in EXPRESSIONS.items()})


def in_pools(level, **options):
    """A pool of numbers alone, too, is a sum over four cells."""
    sums = SUMS_OF_NUMBERS | SUMS
    lines = [f"x_{k} = pool_{k} : 1" for k in range(len(sums))]
    ends = ends_of(lines, level, {f"pool_{k}": text for k, text in enumerate(sums)}, **options)
    assert not wrong(ends, {text: np.broadcast_to(f(X), X.shape).sum() for text, f in sums.items()})


def in_equations_of_states(level, **options):
    lines = [f"dx_{k}/dt = ({text} - x_{k})/tau : 1" for k, text in enumerate(SUMS)]
    ends = ends_of(lines, level, **options)
    assert not wrong(ends, {text: settled_or_moved(level, 1.0, f(X)) for text, f in SUMS.items()})


def in_rates_of_states(level, **options):
    """The expression stands before the state."""
    positive = [text for text, f in EXPRESSIONS.items() if f(X).min() > 0.04 and f(X).max() < 20]
    rates = {text: f(X) for text, f in together(positive).items()}
    lines = [f"dx_{k}/dt = (x - ({text})*x_{k})/tau : 1" for k, text in enumerate(rates)]
    ends = ends_of(lines, level, **options)
    assert not wrong(ends, {text: settled_or_moved(level, rate, X) for text, rate in rates.items()})


def spiking(lines: list[str], threshold: str, reset: str, **parameters):
    return cell(
        "\n".join(["du/dt = none*u : 1", "dv/dt = ramp : 1", "r = u : 1", *lines]),
        rate="spike_train", none="0*Hz", ramp="1*kHz", **parameters,
        parts={"threshold": threshold, "reset": reset},
    )  # fmt: skip


def in_thresholds(level, **options):
    """For each expression and x two cells, with limits just above and just below the value."""
    texts, n = list(EXPRESSIONS), 2 * len(X)
    x, below = np.resize(X, n * len(texts)), np.tile(np.arange(n) >= len(X), len(texts))
    chosen = np.repeat(np.arange(len(texts)), n)
    given = np.concatenate([EXPRESSIONS[text](np.resize(X, n)) for text in texts])
    margin = 1e-9 * np.maximum(1.0, np.abs(given))
    limit = np.where(below, given - margin, given + margin)
    condition = " + ".join(f"int(chosen == {k})*({text})" for k, text in enumerate(texts))
    c = spiking([], f"{condition} > limit", "u = 1", x=0.0, limit=0.0, chosen=0.0)
    own = {"x": x, "limit": limit, "chosen": chosen.astype(float)}
    spiked = run(circuit({"p": (len(x), c, own)}), level, **options).ends["only"]["p.u"][0] == 1
    assert not {texts[k] for k in chosen[spiked != below]}


# Conditions as one writes them, and the cells with x in X that fulfil them.
CONDITIONS: dict[str, np.ndarray] = {
    "x > 10**(-1)": X > 0.1,
    "x > 2**(-2)": X > 0.25,
    "x > 1/3": X > 1 / 3,
    "x > -1/2": X > -0.5,
    "2*x > 7/2 - 1": 2 * X > 2.5,
    "10000000000*x > 5e9": X > 0.5,
}


def in_conditions(level, **options):
    conditions = list(CONDITIONS)
    c = [spiking([], text, "u = 1", x=0.0) for text in conditions]
    net = circuit({f"p{k}": (len(X), c[k], {"x": X}) for k in range(len(c))})
    ends = run(net, level, **options).ends["only"]
    got = {text: ends[f"p{k}.u"][0] == 1 for k, text in enumerate(conditions)}
    assert not {text for text in conditions if (got[text] != CONDITIONS[text]).any()}


def in_resets(level, **options):
    sums = SUMS_OF_NUMBERS | SUMS
    sums |= {text: EXPRESSIONS[text] for text in ("2**(-1)", "7/2", "10**(-1)")}
    lines = [f"dx_{k}/dt = none*x_{k} : 1" for k in range(len(sums))]
    statements = [f"x_{k} {'=' if k % 2 else '+='} {text}" for k, text in enumerate(sums)]
    c = spiking(lines, "v > 0.9", "; ".join(["v = -1000", *statements]), x=0.0)
    ends = run(circuit({"p": (len(X), c, {"x": X})}), level, **options).ends["only"]
    got = {name[2:]: value[0] for name, value in ends.items()}
    assert not wrong(got, {text: f(X) for text, f in sums.items()})


ETA, POST, PRE = 0.5, 0.4, 0.8
LEARNING = [phase("only", f"{STEPS * 500}*us", ("rule",))]


def learned(text: str, masked: str, level: str, **options) -> np.ndarray:
    """Change of the weights between a cell for each sum and x, with masks m_k, and a plain cell."""
    count = len(SUMS)
    n = count * len(X)
    masks = {f"m_{k}": np.repeat(np.eye(count)[k], len(X)) for k in range(count)}
    still = "du/dt = none*u : 1 ; r = u : 1 ; I : 1"
    kinds = {
        side: cell(
            still, ports=(), optional=("I",), none="0*Hz", x=0.0, **dict.fromkeys(masks, 0.0),
            parts={"initial": {"u": start}},
        )
        for side, start in (("post", POST), ("pre", PRE))
    }  # fmt: skip
    own = {"x": np.resize(X, n), **masks}
    size = {"post": n, "pre": 1} if masked == "post" else {"post": 1, "pre": n}
    populations = {side: (size[side], kinds[side], own if side == masked else {}) for side in kinds}
    weights = np.zeros((size["pre"], size["post"]))
    learns = wire("W", "pre", "post.I", weights, rule(text, eta=f"{ETA}*Hz"))
    net = circuit(populations, [learns], LEARNING)
    return run(net, level, plasticity="held", **options).collected["W"].reshape(count, len(X))


def in_factors_of_rules(level, side, **options):
    own = [re.sub(r"\bx\b", f"x_{side}", text) for text in SUMS]
    masked = [f"m_{k}_{side}*({text})" for k, text in enumerate(own)]
    got = learned(f"eta*r_post*r_pre*({' + '.join(masked)})", side, level, **options)
    wanted = {text: ETA * POST * PRE * STEPS * DT * f(X) for text, f in SUMS.items()}
    assert not wrong({f"x_{k}": row for k, row in enumerate(got)}, wanted)


def in_coefficients_of_rules(level, **options):
    """Before two factors, before one, and before the weight."""
    still = cell(
        "du/dt = none*u : 1 ; r = u : 1 ; I : 1", ports=(), optional=("I",), none="0*Hz",
        parts={"initial": {"u": POST}},
    )  # fmt: skip
    wires, wanted = [], {}
    for k, (text, f) in enumerate(SUMS_OF_NUMBERS.items()):
        rhs = f"eta*({text})*r_post*r_pre - eta*w*({text}) + eta*r_pre*2**(-1)*({text})"
        wires.append(wire(f"W{k}", "q", "p.I", [[0.3]], rule(rhs, eta=f"{ETA}*Hz")))
        wanted[text] = ETA * STEPS * DT * f(X)[0] * (POST * POST - 0.3 + POST / 2.0)
    net = circuit({"p": (1, still), "q": (1, still)}, wires, LEARNING)
    collected = run(net, level, plasticity="held", **options).collected
    assert not wrong({f"x_{k}": collected[f"W{k}"][0, 0] for k in range(len(wires))}, wanted)


def in_noise(level, **options):
    """The equation is linear: half the noise moves the state half as far from the silent path."""

    def path(strength: str) -> np.ndarray:
        c = cell(
            f"du/dt = (-u + 3**(-2))/tau + {strength}*sigma*xi : 1 ; r = u : 1",
            tau=f"{TAU}*second",
            sigma="1*Hz**0.5",
        )
        net = circuit({"p": (3, c)}, phases=[phase("only", "5*ms")])
        return run(net, level, record=["p.u"], **options).traces["p.u"][:, 0]

    silent, full = path("0"), path("1")
    quiet = np.zeros(3)
    for row in silent:
        assert row == pytest.approx(quiet, rel=1e-12)
        quiet = quiet + DT / TAU * (1.0 / 9.0 - quiet)
    assert np.abs(full - silent).max() > 0.01
    for strength, number in (("2**(-1)", 0.5), ("1/2", 0.5), ("7/2", 3.5), ("10**(-1)", 0.1)):
        wanted = silent + number * (full - silent)
        assert path(strength) == pytest.approx(wanted, rel=1e-11, abs=1e-14), strength


PLACES: dict[str, Callable[..., None]] = {
    "subexpressions": in_subexpressions,
    "pools": in_pools,
    "equations of states": in_equations_of_states,
    "rates of states": in_rates_of_states,
    "post factors": lambda level, **options: in_factors_of_rules(level, "post", **options),
    "pre factors": lambda level, **options: in_factors_of_rules(level, "pre", **options),
    "coefficients of rules": in_coefficients_of_rules,
}
PLACES_IN_TIME: dict[str, Callable[..., None]] = {
    "thresholds": in_thresholds,
    "conditions": in_conditions,
    "resets": in_resets,
    "noise": in_noise,
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("level", LEVELS)
def test_whole_numbers_are_real_numbers(level, place):
    PLACES[place](level)


@pytest.mark.parametrize("place", PLACES_IN_TIME)
@pytest.mark.parametrize("level", IN_TIME)
def test_whole_numbers_are_real_numbers_where_cells_spike_or_are_noisy(level, place):
    PLACES_IN_TIME[place](level)


# Where variables are read alone, each is compiled for it: the others would take minutes.
COMPILED = ("equations of states", "thresholds", "resets", "coefficients of rules")


@pytest.mark.slow
@pytest.mark.parametrize("place", COMPILED)
@pytest.mark.parametrize("level", ["brian2:equations", "brian2:dense"])
def test_whole_numbers_are_real_numbers_in_compiled_code(level, place):
    (PLACES | PLACES_IN_TIME)[place](level, codegen="cython")
