"""Fixed points of trees, rings and products against matrices; what has none is refused."""

from __future__ import annotations

import time

import numpy as np
import pytest
from circuits import IN_TIME, LEVELS, alone, cell, circuit, driven, phase, rule, run, wire

import neurosim
from neurosim import SOURCE, Phase, Windows
from neurosim.errors import NeurosimError

STEADY = LEVELS[3]
X = np.random.default_rng(4).uniform(-1.2, 1.2, (5, 3))

# ------------------------------------------------------------------ products that are sent


@pytest.mark.parametrize("order", ["v first", "u first"])
@pytest.mark.parametrize("method", ["anderson", "sweeps"])
def test_a_product_of_two_rates_is_sent(method, order):
    """v settles at tanh(u); tanh(v) tanh(u) is sent, drives the cells behind and teaches them."""
    rows = [
        "du/dt = (-u + I)/tau : 1",
        "dv/dt = (-v + s)/tau : 1",
        "s = tanh(u) : 1",
        "p = tanh(v) : 1",
        "b = p*s : 1",
        "I : 1",
    ]
    first = cell(
        "; ".join(
            rows if order == "u first" else [rows[1], rows[4], rows[3], rows[2], rows[0], rows[5]]
        ),
        rate="b",
        tau="10*ms",
    )  # fmt: skip
    second = cell("dz/dt = (-z + J)/tau : 1; r = z : 1; J : 1", ports=["J"], tau="10*ms")
    V = np.random.default_rng(5).uniform(-1, 1, (3, 2))
    learns = rule("eta*r_post*b_pre*p_pre", apply="trial", eta="10*Hz")
    net = circuit(
        {"inp": (3, SOURCE), "p": (3, first), "q": (2, second)},
        [wire("W", "inp", "p.I", one_to_one=True), wire("V", "p", "q.J", V, learns)],
        [phase("one", "50*ms", ["rule"])], {"inp.r": "image"},
    )  # fmt: skip
    result = run(net, STEADY, X, batch_size=5, solver=method)
    s = np.tanh(X)
    p = np.tanh(s)
    ends = result.ends["one"]
    for name, expected in {"p.u": X, "p.v": s, "p.p": p, "p.b": p * s, "q.z": (p * s) @ V}.items():
        assert ends[name] == pytest.approx(expected, rel=1e-9, abs=1e-12), name
    change = 10 * 0.05 * np.einsum("bi,bj->ij", p * s * p, (p * s) @ V) / 5
    assert result.weights["V"] == pytest.approx(V + change, rel=1e-9)
    assert (result.unsettled, result.unstable) == (0, 0)


def test_a_product_that_comes_back():
    """b = tanh(v) tanh(u) comes back to its cells: u = x + b W, solved here by a loop."""
    first = cell(
        "du/dt = (-u + I + J)/tau : 1; dv/dt = (-v + s)/tau : 1; s = tanh(u) : 1; p = tanh(v) : 1; "
        "b = p*s : 1; I : 1; J : 1",
                 ports=["I", "J"], rate="b", tau="10*ms")  # fmt: skip
    W = 0.4 * np.random.default_rng(6).uniform(-1, 1, (3, 3))
    net = circuit(
        {"inp": (3, SOURCE), "p": (3, first)},
        [wire("S", "inp", "p.I", one_to_one=True), wire("W", "p", "p.J", W)],
        [phase("one", "400*ms")],
        {"inp.r": "image"},
        dt="1*ms",
    )
    u = X.copy()
    for _ in range(500):
        s = np.tanh(u)
        u = X + (np.tanh(s) * s) @ W
    for level in LEVELS[2:]:
        assert run(net, level, X, batch_size=5).ends["one"]["p.u"] == pytest.approx(
            u, rel=1e-8, abs=1e-9
        ), level  # fmt: skip


# ------------------------------------------------------------------ compartments

#: Which compartments touch; every second one has a synapse.
SHAPES = {
    **{f"chain {n}": [(i, i + 1) for i in range(n - 1)] for n in range(2, 7)},
    **{f"star {n}": [(0, i) for i in range(1, n)] for n in (4, 6)},
    **{f"ring {n}": [(i, (i + 1) % n) for i in range(n)] for n in (3, 4, 5)},
    "tree": [(0, 1), (0, 2), (1, 3), (1, 4), (2, 5)],
}
GATE = "G**2/(1 + G**2)*(E - {})"


def compartments(shape: str, order: str):
    """A cell whose compartments leak, touch, and have a conductance of a port G; u0 is the soma."""
    edges = SHAPES[shape]
    n = 1 + max(max(edge) for edge in edges)
    rows = []
    for i in range(n):
        near = [j for edge in edges for j in edge if i in edge and j != i]
        terms = [f"g{i}*(L{i} - u{i})"] + [f"c{min(i, j)}{max(i, j)}*(u{j} - u{i})" for j in near]
        terms += [GATE.format(f"u{i}")] * (i % 2 or n == 2) + ["I"] * (i == 0)
        rows.append(f"du{i}/dt = ({' + '.join(terms)})/tau : 1")
    rows = rows if order == "soma first" else rows[::-1]
    return n, edges, "; ".join([*rows, "r = tanh(u0) : 1", "G : 1", "I : 1"])


def values_of(n: int, edges):
    rng = np.random.default_rng(n + len(edges))
    values = {f"g{i}": float(rng.uniform(0.1, 1.0)) for i in range(n)} | {
        f"L{i}": float(rng.uniform(-1, 1)) for i in range(n)
    }
    return values | {f"c{min(e)}{max(e)}": float(rng.uniform(0.2, 2.0)) for e in edges} | {"E": 1.5}


def solved(n: int, edges, v, gate: float, drive: float) -> np.ndarray:
    """Kirchhoff's law as a matrix."""
    a, b = np.zeros((n, n)), np.zeros(n)
    for i in range(n):
        a[i, i] += v[f"g{i}"]
        b[i] += v[f"g{i}"] * v[f"L{i}"]
        if i % 2 or n == 2:
            a[i, i] += gate**2 / (1 + gate**2)
            b[i] += gate**2 / (1 + gate**2) * v["E"]
    b[0] += drive
    for e in edges:
        c = v[f"c{min(e)}{max(e)}"]
        for i, j in (e, e[::-1]):
            a[i, i] += c
            a[i, j] -= c
    return np.linalg.solve(a, b)


#: Both orders of the small ones; of the others, one at least at every turn.
QUICK = ("chain 2", "chain 3", "chain 4", "star 4", "ring 3", "ring 4")
ORDERS = ("soma first", "dendrites first")
CASES = [(s, order) for s in SHAPES for order in ORDERS if s != "ring 5" or order == ORDERS[0]]
ONCE = (("chain 6", ORDERS[1]), ("tree", ORDERS[0]))


@pytest.mark.parametrize(
    ("shape", "order"),
    [c if c[0] in QUICK or c in ONCE else pytest.param(*c, marks=pytest.mark.slow) for c in CASES],
)
def test_compartments_against_a_matrix(shape, order):
    """Kirchhoff's law for each sample and cell, built and solved in less than 10 s."""
    n, edges, text = compartments(shape, order)
    values = values_of(n, edges)
    start = time.process_time()
    c = cell(text, ports=["G", "I"], tau="10*ms", **values)
    net = circuit(
        {"inp": (3, SOURCE), "p": (3, c)},
        [wire("G", "inp", "p.G", one_to_one=True), wire("I", "inp", "p.I", 2 * np.eye(3))],
        clamps={"inp.r": "image"},
    )
    images = X.copy()
    images[0, 0] = 0.0
    result = run(net, STEADY, images, batch_size=5)
    took = time.process_time() - start
    found = np.stack([result.ends["only"][f"p.u{i}"] for i in range(n)], axis=-1)
    expected = np.array([[solved(n, edges, values, x, 2 * x) for x in row] for row in images])
    assert found == pytest.approx(expected, rel=1e-9)
    assert (result.unsettled, result.unstable) == (0, 0)
    assert took < 10, took


def test_conductances_that_differ_from_cell_to_cell():
    """The same with a parameter per cell: each cell has a matrix of its own."""
    n, edges, text = compartments("chain 3", "dendrites first")
    values = values_of(n, edges)
    c = cell(text, ports=["G", "I"], tau="10*ms", **values)
    per_cell = {"c01": np.array([0.3, 0.0, 2.0]), "g2": np.array([0.1, 0.2, 0.0])}
    net = circuit(
        {"inp": (3, SOURCE), "p": (3, c, per_cell)},
        [wire("G", "inp", "p.G", one_to_one=True), wire("I", "inp", "p.I", 2 * np.eye(3))],
        clamps={"inp.r": "image"},
    )
    result = run(net, STEADY, X, batch_size=5)
    found = np.stack([result.ends["only"][f"p.u{i}"] for i in range(n)], axis=-1)
    for k in range(3):
        own = values | {name: float(array[k]) for name, array in per_cell.items()}
        expected = np.array([solved(n, edges, own, x, 2 * x) for x in X[:, k]])
        assert found[:, k] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("shape", ["chain 4", "ring 4"])
def test_a_level_in_time_comes_to_the_same_rest(shape):
    """400 ms of Euler steps end where the matrix does."""
    n, edges, text = compartments(shape, "dendrites first")
    values = values_of(n, edges)
    c = cell(text, ports=["G", "I"], tau="10*ms", **values)
    net = circuit(
        {"inp": (3, SOURCE), "p": (3, c)},
        [wire("G", "inp", "p.G", one_to_one=True), wire("I", "inp", "p.I", 2 * np.eye(3))],
        [phase("only", "1000*ms")],
        {"inp.r": "image"},
        dt="2*ms",
    )
    ends = run(net, "torch:trajectory", X, batch_size=5).ends["only"]
    expected = np.array([[solved(n, edges, values, x, 2 * x) for x in row] for row in X])
    assert np.stack([ends[f"p.u{i}"] for i in range(n)], axis=-1) == pytest.approx(
        expected, rel=1e-6
    )  # fmt: skip


# ------------------------------------------------------------------ no fixed point

SINGULAR = {
    "two that only follow one another": "du/dt = (v - u)/tau : 1; dv/dt = (u - v)/tau : 1; "
                                        "r = u : 1; I : 1",
    "the same with a drive": "du/dt = (v - u + I)/tau : 1; dv/dt = (u - v)/tau : 1; r = u : 1; "
                             "I : 1",
    "an integrator": "du/dt = I/tau : 1; r = u : 1; I : 1",
    "a ring of three": "du/dt = (v - u)/tau : 1; dv/dt = (x - v)/tau : 1; "
                       "dx/dt = (u - x + I)/tau : 1; r = u : 1; I : 1",
    "equal rows": "du/dt = (-u - v + I)/tau : 1; dv/dt = (-2*u - 2*v + I)/tau : 1; r = u : 1; "
                  "I : 1",
    "numbers that cancel": "du/dt = (-u + one*u + I)/tau : 1; r = u : 1; I : 1",
    "conductances of zero": "du/dt = (zero*(E - u) + I)/tau : 1; r = u : 1; I : 1",
}  # fmt: skip


@pytest.mark.parametrize("what", SINGULAR)
def test_singular_systems_are_refused(what):
    """Nothing draws the states to one point: an error names the population."""
    values = {k: v for k, v in {"one": 1.0, "zero": 0.0, "E": 1.0}.items() if k in SINGULAR[what]}
    with pytest.raises(NeurosimError, match=r"'p['.]"):
        run(driven(cell(SINGULAR[what], tau="10*ms", **values)), STEADY, X[:2])


def test_one_cell_without_a_fixed_point():
    """One cell of three has a conductance of zero, and a drive: an error, never a number."""
    c = cell("du/dt = (g*(E - u) + I)/tau : 1; r = u : 1; I : 1", tau="10*ms", g=1.0, E=1.0)
    net = circuit(
        {"inp": (3, SOURCE), "p": (3, c, {"g": np.array([1.0, 0.0, 2.0])})},
        [wire("W", "inp", "p.I", np.eye(3))],
        clamps={"inp.r": "image"},
    )
    with pytest.raises(NeurosimError, match=r"'p['.]"):
        run(net, STEADY, X[:2], batch_size=2)


@pytest.mark.parametrize(
    "values",
    [0.0, np.array([0.0, 0.0, 0.0]), np.array([1.0, 0.0, 2.0])],
    ids=["all", "each", "one of three"],
)
def test_a_compartment_that_nothing_moves_stays_where_it_began(values):
    """Without coupling v stays at its start, also in one cell of three; else it is u = E + I."""
    text = "du/dt = (E - u + c*(v - u) + I)/tau : 1; dv/dt = c*(u - v)/tau : 1; r = u : 1; I : 1"
    c = cell(text, tau="10*ms", c=1.0, E=1.0, parts={"initial": {"v": 0.25}})
    net = circuit(
        {"inp": (3, SOURCE), "p": (3, c, {"c": values})},
        [wire("W", "inp", "p.I", np.eye(3))],
        clamps={"inp.r": "image"},
    )
    try:
        ends = run(net, STEADY, X[:2], batch_size=2).ends["only"]
    except NeurosimError as error:
        assert "'p'" in str(error)
        return
    assert ends["p.u"] == pytest.approx(1 + X[:2], rel=1e-9)
    assert ends["p.v"] == pytest.approx(
        np.where(np.zeros(3) + values > 0, 1 + X[:2], 0.25), rel=1e-9
    )  # fmt: skip


def test_a_shared_value_that_switches_the_leak_off():
    """A phase in which nothing draws the state is refused; one that holds it still is not."""
    c = cell("du/dt = (leak*(1 - u) + I)/tau : 1; r = u : 1; I : 1; leak : 1 (shared)", tau="10*ms")
    phases = [phase("on", leak=1.0), phase("off", leak=0.0)]
    with pytest.raises(NeurosimError, match=r"'p'.*'off'"):
        run(driven(c, phases=phases), STEADY, X[:1])
    c = cell("du/dt = leak*(1 - u + I)/tau : 1; r = u : 1; I : 1; leak : 1 (shared)", tau="10*ms")
    ends = run(driven(c, phases=phases), STEADY, X[:1]).ends
    assert ends["off"]["p.u"] == pytest.approx(ends["on"]["p.u"])


# ------------------------------------------------------------------ windows over all labels

LABELS = np.array([[0.8, -0.6], [-0.3, 1.1], [0.2, 0.4]])

READS = ("a state", "a rule", "a rate that is sent")


@pytest.mark.parametrize(
    ("level", "reads"),
    [
        *((level, reads) for level in LEVELS[2:] for reads in READS),
        *((level, READS[0]) for level in LEVELS[:2]),
    ],
)
def test_a_pool_of_samples_and_labels(level, reads):
    """P = sum tanh(u + v), u by sample, v by label: each window's own fixed point."""
    text = (
        "du/dt = (-u + I)/tau : 1; dv/dt = (-v + A)/tau : 1; "
        f"dz/dt = (-z + {'P' if reads == 'a state' else '0*u'})/tau : 1"
    )  # fmt: skip
    c = cell(
        f"{text}; r = u : 1; sent = {'u*P' if reads == 'a rate that is sent' else 'u'} : 1; "
        "I : 1; A : 1",
        ports=["I", "A"],
        pools={"P": "tanh(u + v)"},
        tau="5*ms",
    )  # fmt: skip
    d = cell("dy/dt = (-y + J)/tau : 1; r = y : 1; J : 1", ports=["J"], tau="5*ms")
    learns = rule(
        "eta*P_post*r_pre" if reads == "a rule" else "eta*z_post*r_pre", apply="trial", eta="10*Hz"
    )  # fmt: skip
    windows = Windows(
        (Phase("settle", "150*ms"), Phase("learn", "10*ms", plastic=("rule",))),
        clamps={"label.r": "label"},
    )
    start = np.array([[0.5, -0.2], [0.3, 0.7]])
    net = circuit(
        {"inp": (2, SOURCE), "label": (3, SOURCE), "p": (2, c), "q": (2, d),
            "t": (3, cell("r = y : 1; y : 1", inputs=["y"]))},
        [wire("W", "inp", "p.I", start, learns), wire("L", "label", "p.A", LABELS),
            wire("V", "p.sent", "q.J", np.eye(2))],
        [windows], {"inp.r": "image", "t.y": "target"}, dt="1*ms",
    )  # fmt: skip
    images, own = np.array([[0.4, -0.9], [1.1, 0.3]]), [2, 0]
    batch = 1 if level == LEVELS[0] else 2
    result = run(net, level, images[:batch], own[:batch], batch_size=batch)
    x = images[:batch]
    u, near, total = x @ start, 1e-8 if level == STEADY else 1e-6, 0.0
    for k in range(3):
        P = np.tanh(u + LABELS[k]).sum(axis=1, keepdims=True)
        z = P + 0 * u if reads == "a state" else 0 * u
        sent = u * P if reads == "a rate that is sent" else u
        found = result.ends[f"settle[{k}]"]
        for name, expected in {"p.u": u, "p.v": LABELS[k] + 0 * u, "p.z": z, "q.y": sent}.items():
            assert found[name] == pytest.approx(
                np.broadcast_to(expected, found[name].shape), rel=near, abs=near
            ), (
                k,
                name,
            )  # fmt: skip
        total = (
            total
            + 10 * 0.01 * np.einsum("bi,bj->ij", x, P + 0 * u if reads == "a rule" else z) / batch
        )  # fmt: skip
    assert result.weights["W"] == pytest.approx(start + total, rel=10 * near, abs=10 * near)


# ------------------------------------------------------------------ one level


@pytest.mark.parametrize("level", [LEVELS[0], *LEVELS[2:]])
def test_a_comparison_of_one_level(level):
    """No pairs, its own settling and no order on the steady level; the tables can be written."""
    c = cell("du/dt = (-u + I)/tau : 1; r = tanh(u) : 1; I : 1", tau="10*ms")
    made = neurosim.compare(driven(c, n=2, duration="5*ms"), X[:1], levels=[level], progress=False)
    report = made.report
    assert (report["levels"], report["pairs"]) == ([level], [])
    assert level in made.markdown() and set(report["settling"]) == {level}
    if level == STEADY:
        assert report["settling"][level]["only"] < 1e-9
    else:
        # Closed form: the change of a leaky cell over the last tenth of ten steps, one step.
        u = X[0] @ np.linspace(-0.6, 0.8, 6).reshape(3, 2)
        assert report["settling"][level]["only"] == pytest.approx(
            np.abs(u).max() * (0.95**8 - 0.95**9), rel=1e-9
        )  # fmt: skip
        assert report["order"][level] == pytest.approx(1.0, abs=0.1)


def test_comparisons_of_nothing():
    """An unknown level is refused, and the same twice is refused or said once."""
    net = alone(cell("du/dt = (-u + 1)/tau : 1; r = u : 1", tau="10*ms"), duration="2*ms")
    with pytest.raises(NeurosimError, match="level"):
        neurosim.compare(net, levels=["torch:stedy"], progress=False)
    try:
        report = neurosim.compare(net, levels=[STEADY, STEADY], progress=False).report
    except NeurosimError as error:
        assert STEADY in str(error)
    else:
        assert report["levels"] == [STEADY] and report["pairs"] == []


@pytest.mark.parametrize("level", IN_TIME[2:])
def test_a_comparison_with_the_steady_level_says_the_distance(level):
    """The gap of a leaky cell after k steps is u (1 - dt/tau)^k."""
    c = cell("du/dt = (-u + I)/tau : 1; r = u : 1; I : 1", tau="10*ms")
    report = neurosim.compare(
        driven(c, n=2, duration="5*ms"), X[:1], levels=[level, STEADY], progress=False
    ).report  # fmt: skip
    u = X[0] @ np.linspace(-0.6, 0.8, 6).reshape(3, 2)
    assert report["pairs"][0]["max_abs_state"] == pytest.approx(np.abs(u).max() * 0.95**9, rel=1e-9)
