"""The description checks itself: each mistake is refused by a message that says where, what, and how to mend it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from circuits import assemble, hold, pool
from conftest import run_circuit

from neurosim import (
    SOURCE,
    Angle,
    Cell,
    Circuit,
    Constant,
    Dense,
    Fragment,
    Given,
    Gram,
    OneToOne,
    Phase,
    PlasticityRule,
    Population,
    Projection,
    Protocol,
    RandomSign,
    Readout,
    Relaxation,
    Silent,
    SmallestEigenvalue,
    Tied,
)
from neurosim.backends import engine_class
from neurosim.backends.engine import Options
from neurosim.errors import CircuitError, NeurosimError, UnsupportedError
from neurosim.parts import InverseCorrelation

LEVELS = ("brian2:equations", "brian2:dense", "torch:trajectory")
LEAK = """
    dv/dt = (-v + I)/tau : 1
    r = tanh(v) : 1
    I : 1
"""
HEBB = PlasticityRule("hebb", "dw/dt = eta*r_post*r_pre", {"eta": "20*Hz"})
STIMULUS = {"image": np.array([[1.0, 0.5]])}
DT = 5e-4


def leaky(equations: str = LEAK, **kwargs) -> Cell:
    return assemble("leaky", equations, **{"ports": ("I",), "parameters": {"tau": "10*ms"}, **kwargs})


def wire(name: str = "W", source: str = "inp", target: str = "p.I", *args, **kwargs) -> Projection:
    kwargs = kwargs if args or {"weights", "connectivity"} & set(kwargs) else {"weights": Constant(0.5), **kwargs}
    return Projection(name, source, target, *args, **kwargs)


def circuit(
    cell: Cell | None = None, *more: Projection, n: int = 3, rule: PlasticityRule | None = None, **kwargs
) -> Circuit:
    """inp (2 cells) -> p (n cells); `more` projections are added."""
    populations = kwargs.pop("populations", (Population("inp", 2, SOURCE), Population("p", n, cell or leaky())))
    projections = kwargs.pop("projections", (wire(rule=rule), *more))
    phases = kwargs.pop("phases", (Phase("free", "5*ms", plastic=(rule.name,) if rule else ()),))
    protocol = Protocol(phases, kwargs.pop("clamps", {"inp.r": "image"}), kwargs.pop("shared", {}))
    return Circuit("test", Fragment(populations, projections), protocol, **kwargs)


def refused(*parts: str, error: type[Exception] = CircuitError):
    """`pytest.raises` for a message that holds all the parts."""
    return _Refused(parts, error)


class _Refused:
    def __init__(self, parts, error):
        self.parts, self.raises = parts, pytest.raises(error)

    def __enter__(self):
        self.info = self.raises.__enter__()

    def __exit__(self, *args):
        caught = self.raises.__exit__(*args)
        for part in self.parts:
            assert part in str(self.info.value)
        return caught


def euler_weights(steps: int, change, w0: float = 0.5, tau: float = 10e-3) -> np.ndarray:
    """W of `circuit(rule=...)` after one trial, by hand: ``w += dt*change(w, post, pre)``, then v."""
    x, w, v = STIMULUS["image"][0], np.full((2, 3), w0), np.zeros(3)
    for _ in range(steps):
        drive = x @ w
        w = w + DT * change(w, np.tanh(v)[None, :], x[:, None])
        v = v + DT * (drive - v) / tau
    return w


# ------------------------------------------------------------------ cells


def test_unknown_variable_names_population_equation_and_nearest_name():
    with refused("Population 'p'", "'II'", "(-v + II)/tau", "Did you mean 'I'?", "Declare it"):
        circuit(leaky("dv/dt = (-v + II)/tau : 1\nr = tanh(v) : 1\nI : 1"))


def test_unknown_variable_in_a_state_equation_is_shown_as_a_derivative():
    with refused("dv/dt = (-v + II)/tau"):
        circuit(leaky("dv/dt = (-v + II)/tau : 1\nr = tanh(v) : 1\nI : 1"))


def test_unit_mismatch_in_a_state_equation():
    with refused("Population 'p'", "'dv/dt = -v + I'", "unit 1", "wanted hertz", "Check the units"):
        circuit(leaky("dv/dt = -v + I : 1\nr = tanh(v) : 1\nI : 1"))


def test_unit_mismatch_in_a_subexpression():
    with refused("Population 'p'", "'r = tanh(v)/tau'", "hertz", "wanted 1", "Check the units"):
        circuit(leaky("dv/dt = (-v + I)/tau : 1\nr = tanh(v)/tau : 1\nI : 1"))


@pytest.mark.parametrize("text", ["v + tau", "tanh(tau)"])
def test_unit_mismatch_inside_an_expression(text):
    with refused("Population 'p'", text, "units"):
        circuit(leaky(LEAK + f"q = {text} : 1"))


def test_unit_mismatch_in_a_rule():
    with refused("Rule 'hebb'", "projection 'W'", "'dw/dt = eta*r_post*r_pre'", "unit 1", "wanted hertz"):
        circuit(rule=PlasticityRule("hebb", "dw/dt = eta*r_post*r_pre", {"eta": 1.0}))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("dw/dt = eta*rr_post*r_pre", ("variable of p 'rr'", "Did you mean 'r'?")),
        ("dw/dt = eta*r_post*rr_pre", ("variable of inp 'rr'", "Did you mean 'r'?")),
        ("dw/dt = etta*r_post*r_pre", ("'etta'", "Did you mean 'eta'?", "_pre or _post")),
        ("dv/dt = eta*r_post*r_pre", ("dw/dt = ...",)),
    ],
)
def test_unknown_names_in_a_rule(text, parts):
    with refused("Rule 'hebb'", "projection 'W'", *parts):
        circuit(rule=PlasticityRule("hebb", text, {"eta": "1*Hz"}))


def test_apply_must_be_known():
    with refused("PlasticityRule 'hebb'", "'never'", "now, phase, trial"):
        circuit(rule=PlasticityRule("hebb", HEBB.equation, HEBB.parameters, apply="never"))  # type: ignore[arg-type]


def test_port_that_nothing_feeds():
    with refused("Population 'p'", "port 'I'", "target='p.I'", "(optional port)"):
        circuit(projections=())


@pytest.mark.parametrize("level", LEVELS)
def test_optional_port_that_nothing_feeds_reads_zero(level):
    cell = leaky(LEAK.replace("+ I", "+ I + 7*Z") + "Z : 1", optional_ports=("Z",))
    result = run_circuit(circuit(cell), level, STIMULUS, learn="off")
    assert result.ends["free"]["p.v"][0] == pytest.approx(0.75 * (1 - (1 - DT / 10e-3) ** 9), rel=1e-12)


RESERVED = ["i", "t", "dt", "xi", "N", "ms", "volt", "e", "pi", "exp", "ns_x", "w", "a_pre", "a_post"]
WITH = "dv/dt = (-{}*v + I)/tau : 1\nr = tanh(v) : 1\nI : 1"


@pytest.mark.parametrize("name", RESERVED)
def test_reserved_name_of_a_variable(name):
    with refused("Population 'p'", f"'{name}'"):
        circuit(leaky(LEAK + f"{name} = 2*v : 1"))


@pytest.mark.parametrize("name", RESERVED)
def test_the_message_for_a_reserved_name_gives_the_cure(name):
    with pytest.raises(CircuitError, match=r"(?i)rename"):
        circuit(leaky(LEAK + f"{name} = 2*v : 1"))


@pytest.mark.parametrize("name", RESERVED)
@pytest.mark.parametrize(
    "where",
    [
        lambda name: {"parameters": {"tau": "10*ms", name: 1.0}},
        lambda name: {"pools": (pool(name, "r**2"),)},
        lambda name: {"holds": (hold(name, "r", "free"),)},
    ],
    ids=["parameter", "pool", "hold"],
)
def test_reserved_name_of_a_parameter_pool_or_hold(where, name):
    with refused(f"'{name}'"):
        circuit(leaky(WITH.format(name), **where(name)))


@pytest.mark.parametrize("name", ["i", "t", "ms", "N", "ns_x", "w"])
def test_reserved_name_of_a_rule_parameter(name):
    with refused(f"'{name}'"):
        circuit(rule=PlasticityRule("hebb", f"dw/dt = {name}*r_post*r_pre", {name: "1*Hz"}))


@pytest.mark.parametrize("name", ["s", "j", "block", "logistic", "int_", "total", "dv", "clip_"])
def test_a_name_that_is_not_reserved_works_on_every_level(name):
    """Whatever a level calls its own things, a cell's variables do not collide with them."""
    plain = run_circuit(circuit(), "torch:trajectory", STIMULUS).ends["free"]["p.r"]
    cell = leaky(f"d{name}/dt = (-{name} + I)/tau : 1\nr = tanh({name}) : 1\nI : 1")
    try:
        tested = circuit(cell)
    except CircuitError as error:
        assert f"'{name}'" in str(error)  # refusing it by name is as good
        return
    for level in LEVELS:
        assert run_circuit(tested, level, STIMULUS).ends["free"]["p.r"] == pytest.approx(plain, rel=1e-13)


def test_circular_subexpressions():
    with refused("Population 'p'", "cycle"):
        circuit(leaky("dv/dt = (-v + I)/tau : 1\nr = tanh(v) + q : 1\nq = 2*z : 1\nz = r : 1\nI : 1"))


def test_circle_through_a_pool():
    with refused("Population 'p'", "P, r", "circle", "make one of them a state"):
        circuit(leaky(LEAK.replace("tanh(v)", "tanh(v)/(1 + P)"), pools=(pool("P", "r"),)))


def test_shared_value_that_the_protocol_does_not_give():
    cell = leaky(LEAK + "beta : 1 (shared)")
    with refused("Population 'p'", "'beta'", "Protocol(shared={...})", "Did you mean 'betta'?"):
        circuit(cell, shared={"betta": 1.0})
    with refused("Phase 'two'", "'beta'", "Protocol(shared={...})"):
        circuit(cell, phases=(Phase("one", "5*ms", shared={"beta": 1.0}), Phase("two", "5*ms")))


def test_declared_but_never_set():
    roles = "'z : 1 (port)'", "'(optional port)'", "'(input)'", "'(shared)'", "`parameters`"
    with refused("Population 'p' (cell 'leaky'): the line 'z : 1' has no role", *roles):
        circuit(leaky(LEAK + "z : 1"))
    with refused("the line 'z : volt' has the flags (prot)", "Did you mean 'port'?"):
        circuit(leaky(LEAK + "z : volt (prot)"))


@pytest.mark.parametrize(
    ("cell", "parts"),
    [
        (leaky(rate="rr"), ("rate 'rr'", "Did you mean 'r'?")),
        (leaky(initial={"r": 1.0}), ("'r'", "no state")),
        (leaky(holds=(hold("h", "rr", "free"),)), ("hold 'h'", "'rr'", "Did you mean 'r'?")),
        (leaky(holds=(hold("h", "r", "fre"),)), ("hold 'h'", "phase 'fre'", "Did you mean 'free'?")),
        (leaky(LEAK + "r = v : 1"), ("'r'",)),
        (leaky(LEAK + "tau = 2*dt : second"), ("'tau'", "parameter and an equation", "rename")),
        (leaky(pools=(pool("v", "r"),)), ("two lines define 'v'", "rename")),
    ],
)
def test_what_a_cell_lists_must_exist_once(cell, parts):
    with refused("Population 'p'", *parts):
        circuit(cell)


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({"tao": "3*ms"}, ("'tao'", "Did you mean 'tau'?")),
        ({"tau": "3*mV"}, ("'tau'", "volt", "wanted s", "10*ms")),
        ({"tau": 3.0}, ("'tau'", "unit 1", "wanted s")),
        ({"gain": np.ones(2)}, ("'gain'", "(2,)", "wanted (3,)")),
    ],
)
def test_parameters_of_a_population(values, parts):
    cell = leaky(parameters={"tau": "10*ms", "gain": 1.0})
    with refused("Population 'p'", *parts):
        circuit(populations=(Population("inp", 2, SOURCE), Population("p", 3, cell, values)))


def test_no_cells():
    with refused("Population 'p'", "n = 0", "at least 1"):
        circuit(n=0)


# ------------------------------------------------------------------ projections


@pytest.mark.parametrize("sent", ["p", "p.I"])
def test_sending_a_late_variable_is_an_algebraic_loop(sent):
    cell = leaky("dv/dt = (-v + I)/tau : 1\nr = tanh(v + I) : 1\nI : 1")
    name = "p.r" if sent == "p" else "p.I"
    with refused("Projection 'R'", f"'{name}'", "algebraic loop", "Send a state"):
        circuit(cell, wire("R", sent))


def test_sending_what_a_late_pool_reaches_is_an_algebraic_loop():
    cell = leaky(LEAK + "q = v/(1 + P) : 1", pools=(pool("P", "I**2"),))
    with refused("Projection 'R'", "'p.q'", "algebraic loop"):
        circuit(cell, wire("R", "p.q"))


@pytest.mark.parametrize(
    ("projection", "parts"),
    [
        (wire("R", "ip"), ("population 'ip'", "Did you mean 'inp'?")),
        (wire("R", "inp", "q.I"), ("population 'q'", "Known: inp, p")),
        (wire("R", "inp", "p.II"), ("p has no port 'II'", "Did you mean 'I'?")),
        (wire("R", "p.vv"), ("variable of p 'vv'", "Did you mean 'v'?")),
        (wire("R", "inp", "p.I", connectivity=OneToOne()), ("one-to-one", "2 and 3 cells", "equal numbers")),
        (wire("R", "inp", "p.I", Given(np.ones((3, 2)))), ("given weights", "(3, 2)", "wanted (2, 3)")),
        (wire("R", "inp", "p.I", None), ("no weights", "weights=Glorot()", "Tied")),
        (wire("R", "p", weights=Tied("W")), ("(3, 3)", "'W' has (2, 3)")),
        (wire("R", "p", weights=Tied("W", transpose=True)), ("(3, 3)", "'W' transposed has (3, 2)")),
        (wire("R", "p", weights=Tied("V")), ("unknown projection", "'V'")),
        (wire("R", "inp", weights=Tied("R")), ("tied to 'R'", "owns no weights")),
        (wire("R", "inp", weights=Tied("W"), rule=HEBB), ("plastic", "put the rule on 'W'")),
    ],
)  # fmt: skip
def test_projections_that_do_not_fit(projection, parts):
    with refused("Projection 'R'", *parts):
        circuit(None, projection)


def test_a_connectivity_in_the_place_of_weights():
    with refused("Projection 'R'", "weights = Dense()", "connectivity=Dense()"):
        wire("R", "inp", "p.I", Dense())


@pytest.mark.parametrize("sent", ["P", "h"])
def test_a_pool_or_hold_cannot_be_sent_and_the_message_does_not_suggest_it(sent):
    cell = leaky(pools=(pool("P", "v"),), holds=(hold("h", "v", "free"),))
    with pytest.raises(CircuitError, match="Projection 'R'") as caught:
        circuit(cell, wire("R", f"p.{sent}"))
    assert f"Did you mean '{sent}'?" not in str(caught.value)


def test_given_weights_of_the_transposed_shape():
    with refused("(3, 2)", "wanted (2, 3)", "transposed"):
        circuit(None, projections=(wire(weights=Given(np.ones((3, 2)))),)).initial_weights()


def test_a_tie_may_name_a_later_projection():
    tied = circuit(projections=(wire("R", weights=Tied("W")), wire()))
    own = circuit(projections=(wire("R"), wire()))
    results = [run_circuit(c, "torch:trajectory", STIMULUS).ends["free"]["p.v"] for c in (tied, own)]
    assert results[0] == pytest.approx(results[1], rel=1e-14)


def test_ties_to_ties_lead_to_the_owner():
    plans = circuit(
        projections=(wire(), wire("half", weights=Tied("W", 0.5)), wire("less", weights=Tied("half", -0.5)))
    ).plan.projections
    assert (plans["less"].root, plans["less"].factor, plans["less"].transpose) == ("W", -0.25, False)
    with refused("'a'", "tied to 'b' to 'a'", "owns no weights"):
        circuit(projections=(wire(), wire("a", weights=Tied("b")), wire("b", weights=Tied("a"))))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    ("value", "parts"),
    [
        ({"W": np.ones((3, 2))}, ("'W'", "(3, 2)", "wanted (2, 3)")),
        ({"W": np.full((2, 3), np.nan)}, ("'W'", "NaN")),
        ({"W": np.full((2, 3), np.inf)}, ("'W'", "infinity")),
        ({}, ("No weights", "'W'")),
        ({"W": np.ones((2, 3)), "WW": np.ones((2, 3))}, ("'WW'", "Did you mean 'W'?")),
    ],
)
def test_weights_that_do_not_fit(level, value, parts):
    with refused(*parts, error=NeurosimError):
        engine_class(level)(circuit().plan, value, Options(dt=DT))


# ------------------------------------------------------------------ protocol and circuit


@pytest.mark.parametrize(
    ("clamps", "parts"),
    [
        ({"inpp.r": "image"}, ("'inpp.r'", "population 'inpp'", "Did you mean 'inp'?")),
        ({"inp.rr": "image"}, ("'inp.rr'", "input of inp 'rr'", "Did you mean 'r'?")),
        ({"p.v": "image"}, ("'p.v'", "input of p 'v'")),
        ({"inp.r": "my image"}, ("'inp.r'", "field 'my image'", "wanted letters, digits and _")),
    ],
)
def test_clamps_that_do_not_fit(clamps, parts):
    with refused(*parts):
        circuit(clamps=clamps)


@pytest.mark.parametrize(
    ("phase", "parts"),
    [
        (Phase("free", "5*ms", plastic=("heb",)), ("Phase 'free'", "plasticity rule 'heb'", "Did you mean 'hebb'?")),
        (Phase("free", "0*ms"), ("Phase 'free'", "positive time")),
    ],
)
def test_phases_that_do_not_fit(phase, parts):
    with refused(*parts):
        circuit(rule=HEBB, phases=(phase,))


def test_protocol_without_a_phase():
    with refused("no phase", "Phase('free', '100*ms')"):
        circuit(phases=())


@pytest.mark.parametrize(
    ("readout", "parts"),
    [
        (Readout("p.r", "fre"), ("phase 'fre'", "Did you mean 'free'?")),
        (Readout("p.rr", "free"), ("'rr'", "Did you mean 'r'?")),
        (Readout("q.r", "free"), ("population 'q'", "Known: inp, p")),
    ],
)
def test_readouts_that_do_not_fit(readout, parts):
    with refused(*parts, error=NeurosimError):
        circuit(readout=readout)


@pytest.mark.parametrize("level", LEVELS)
def test_phase_that_is_no_whole_number_of_steps(level):
    with refused("phase 'free'", "5.2 ms", "dt = 0.5 ms", "choose a dt", error=NeurosimError):
        run_circuit(circuit(phases=(Phase("free", "5.2*ms"),)), level, STIMULUS, dt=DT)


@pytest.mark.parametrize("level", LEVELS)
def test_step_beyond_the_stability_limit(level):
    """Euler on a leak: v <- (1 - dt/tau) v, stable while dt <= 2 tau."""
    fast = circuit(leaky(parameters={"tau": "0.249*ms"}))
    with refused("dt = 0.5 ms", "stability limit", "'p'", "'free'", "0.498 ms", "smaller dt", error=NeurosimError):
        run_circuit(fast, level, STIMULUS, dt=DT)
    run_circuit(circuit(leaky(parameters={"tau": "0.25*ms"})), level, STIMULUS, dt=DT)  # at the limit


def test_step_beyond_the_stability_limit_of_a_single_cell():
    import brian2 as b2

    tau = np.array([10.0, 10.0, 0.2]) * b2.ms
    fast = circuit(populations=(Population("inp", 2, SOURCE), Population("p", 3, leaky(), {"tau": tau})))
    with refused("stability limit", "'p'", error=NeurosimError):
        run_circuit(fast, "torch:trajectory", STIMULUS, dt=DT)


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (lambda: circuit(populations=(Population("inp", 2, SOURCE), *2 * (Population("p", 3, leaky()),))), "population 'p'"),
        (lambda: circuit(projections=(wire(), wire())), "projection 'W'"),
        (lambda: circuit(phases=(Phase("free", "5*ms"), Phase("free", "5*ms"))), "phase 'free'"),
    ],
)  # fmt: skip
def test_duplicate_names(build, name):
    with refused("Two of one name", name, "rename one"):
        build()


@pytest.mark.parametrize("name", ["p x", "p.x", "p-1", "1p"])
def test_names_of_populations_and_projections_are_identifiers(name):
    populations = (Population("inp", 2, SOURCE), Population(name, 3, leaky()))
    with refused(f"'{name}'"):
        circuit(populations=populations, projections=(wire("W", "inp", f"{name}.I"),))
    with refused(f"'{name}'"):
        circuit(projections=(wire(name),))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    ("stimuli", "part"),
    [({"image": np.ones((1, 5))}, "image"), ({"target": np.ones((1, 2))}, "image")],
    ids=["wrong width", "missing field"],
)
def test_stimuli_that_do_not_fit(level, stimuli, part):
    with refused(part, error=NeurosimError):
        run_circuit(circuit(), level, stimuli)


@pytest.mark.parametrize("level", ["brian2:dense", "torch:trajectory"])
def test_stimuli_must_fill_the_batches(level):
    """Five samples in batches of two: the fifth must not be lost in silence."""
    with refused("5", "2", error=NeurosimError):
        run_circuit(circuit(), level, {"image": np.ones((5, 2))}, batch=2)


def test_equations_level_refuses_a_batch_and_float32():
    with refused("brian2:equations", "one sample", "batch of 2", "brian2:dense", error=UnsupportedError):
        run_circuit(circuit(), "brian2:equations", STIMULUS, batch=2)
    for level in ("brian2:equations", "brian2:dense"):
        with refused(level, "float64", "torch:trajectory", error=UnsupportedError):
            run_circuit(circuit(), level, STIMULUS, dtype="float32")


def test_unknown_level_and_recorded_variable():
    with refused("'torch:traj'", "Did you mean 'torch:trajectory'?", error=NeurosimError):
        engine_class("torch:traj")
    with refused("'rr'", "Did you mean 'r'?", error=NeurosimError):
        circuit().plan.variable("p.rr")


# ------------------------------------------------------------------ rules


MIXED = PlasticityRule("mixed", "dw/dt = eta*tanh(r_post - r_pre)", {"eta": "20*Hz"})
SQUARE = PlasticityRule("square", "dw/dt = -eta*w**2*r_post", {"eta": "20*Hz"})


@pytest.mark.parametrize("level", ["brian2:dense", "torch:trajectory"])
@pytest.mark.parametrize(("rule", "why"), [(MIXED, "tanh(r_post - r_pre)"), (SQUARE, "w")], ids=["mixed", "square"])
def test_rule_that_does_not_split_is_refused_by_name(level, rule, why):
    with refused(f"rule '{rule.name}'", "projection 'W'", level, why, "brian2:equations", error=UnsupportedError):
        run_circuit(circuit(rule=rule), level, STIMULUS)


def test_rule_that_does_not_split_runs_on_the_equations_level():
    result = run_circuit(circuit(rule=MIXED), "brian2:equations", STIMULUS)
    wanted = euler_weights(10, lambda w, post, pre: 20 * np.tanh(post - pre))
    assert np.abs(wanted - 0.5).max() > 0.01
    assert result.weights["W"] == pytest.approx(wanted, abs=1e-13)


def test_rule_with_the_square_of_w_runs_on_the_equations_level():
    result = run_circuit(circuit(rule=SQUARE), "brian2:equations", STIMULUS)
    wanted = euler_weights(10, lambda w, post, pre: -20 * w**2 * post)
    assert np.abs(wanted - 0.5).max() > 1e-3
    assert result.weights["W"] == pytest.approx(wanted, abs=1e-13)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    ("rule", "extra", "change"),
    [
        (HEBB, {}, lambda w, post, pre: 20 * post * pre),
        (PlasticityRule("r", "dw/dt = eta", {"eta": "3*Hz"}), {}, lambda w, post, pre: 3 + 0 * w),
        (PlasticityRule("r", "dw/dt = -eta*w", {"eta": "3*Hz"}), {}, lambda w, post, pre: -3 * w),
        (PlasticityRule("r", "dw/dt = r_post*r_pre/tau_post"), {}, lambda w, post, pre: post * pre / 10e-3),
        (
            PlasticityRule("r", "dw/dt = eta*exp(mod)*r_post*r_pre", {"eta": "20*Hz"}), {"shared": {"mod": 0.3}},
            lambda w, post, pre: 20 * np.exp(0.3) * post * pre,
        ),
        (
            PlasticityRule("r", "dw/dt = -eta*P_post*r_pre", {"eta": "2*Hz"}), {"cell": leaky(pools=(pool("P", "I"),))},
            lambda w, post, pre: -2 * (STIMULUS["image"] @ w).sum() * pre + 0 * w,
        ),
    ],
    ids=["hebb", "constant", "decay", "cell parameter", "function of a shared value", "pool"],
)  # fmt: skip
def test_rules_on_every_level(level, rule, extra, change):
    result = run_circuit(circuit(rule=rule, **extra), level, STIMULUS)
    wanted = euler_weights(10, change)
    assert np.abs(wanted - 0.5).max() > 1e-3
    assert result.weights["W"] == pytest.approx(wanted, abs=1e-13)


@pytest.mark.parametrize("level", LEVELS)
def test_weights_outside_their_bounds_wait_for_the_rule(level):
    """A rule that is off, or whose change is only collected, moves no weight, not even to its bounds."""
    bounded = PlasticityRule("hebb", HEBB.equation, HEBB.parameters, "trial", (None, 0.4))
    phases = (Phase("free", "5*ms"), Phase("learn", "5*ms", plastic=("hebb",)))
    result = run_circuit(circuit(rule=bounded, phases=phases), level, STIMULUS)
    assert result.ends["learn"]["p.I"][0] == pytest.approx(0.75, rel=1e-13)  # weights of 0.5 in the whole trial
    assert result.weights["W"] == pytest.approx(0.4)
    held = run_circuit(circuit(rule=bounded, phases=phases), level, STIMULUS, learn="held")
    assert held.weights["W"] == pytest.approx(0.5)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    ("rate", "oracle"),
    [
        ("clip(v, 0, 1)*int(v > 0.1)", lambda v: np.clip(v, 0, 1) * (v > 0.1)),
        ("int(v > 0.1 and v < 0.2)", lambda v: ((v > 0.1) & (v < 0.2)).astype(float)),
        ("abs(v)**2 + sign(v)", lambda v: v**2 + np.sign(v)),
    ],
)
def test_steps_and_conditions_in_a_rate(level, rate, oracle):
    result = run_circuit(
        circuit(leaky(f"dv/dt = (-v + I)/tau : 1\nr = {rate} : 1\nI : 1")), level, STIMULUS, record=("p.v", "p.r")
    )
    assert np.abs(result.traces["p.r"] - oracle(result.traces["p.v"])).max() < 1e-15


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("order", [("P", "Q"), ("Q", "P")])
def test_a_pool_of_a_pool(level, order):
    pools = {"P": pool("P", "v"), "Q": pool("Q", "v*P")}
    cell = leaky("dv/dt = (-v + I + Q)/tau : 1\nr = tanh(v) : 1\nI : 1", pools=tuple(pools[n] for n in order))
    result = run_circuit(circuit(cell), level, STIMULUS)
    v = 0.0  # the three cells are alike
    for _ in range(9):
        v += DT * (-v + 0.75 + 3 * v * 3 * v) / 10e-3
    assert result.ends["free"]["p.v"][0] == pytest.approx(v, rel=1e-12)


@pytest.mark.parametrize("level", LEVELS)
def test_the_readout_and_the_ends_have_one_row_for_each_sample(level):
    result = run_circuit(circuit(readout=Readout("p.r", "free")), level, {"image": np.ones((2, 2))})
    assert result.readout.shape == (2, 3)
    assert result.ends["free"]["p.r"].shape == (2, 3)
    assert result.ends["free"]["p.v"].shape == (2, 3)


@pytest.mark.parametrize("level", LEVELS)
def test_present_again_and_again(level):
    engine = engine_class(level)(circuit().plan, circuit().initial_weights(), Options(dt=DT, progress=False))
    first = engine.present(STIMULUS).ends["free"]["p.v"]
    second = engine.present(STIMULUS).ends["free"]["p.v"]
    assert np.array_equal(first, second)


# ------------------------------------------------------------------ imports


def test_a_description_needs_no_torch():
    code = """
import sys
from neurosim import Cell, Circuit, Constant, Phase, Population, Projection, Protocol, SOURCE
cell = Cell("leaky", "dv/dt = (-v + I)/tau : 1\\nr = tanh(v) : 1\\nI : 1 (port)", {"tau": "10*ms"})
circuit = Circuit("c", [Population("inp", 2, SOURCE), Population("p", 3, cell), Projection("W", "inp", "p.I", Constant(1))],
                  Protocol((Phase("free", "5*ms"),), {"inp.r": "image"}))
assert circuit.initial_weights()["W"].shape == (2, 3)
from neurosim.models import ghost_units
ghost_units.circuit()
print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == ["False"]


# ---------------------------------------------------------------- relaxations, random signs, whole matrices, measures


SCHEME = {"order": ("p",), "sweeps": {"free": 5}, "dt": "2*ms"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"order": ("q",)}, r"no population with states 'q'"),
        ({"order": ("p", "p")}, r"must visit each population with states once: p"),
        ({"sweeps": {"b": 5}}, r"Relaxation: There is no phase 'b'"),
        ({"sweeps": {"free": 0}}, r"sweeps.free = 0; wanted a whole number of at least 1"),
        ({"restart": {"free": {"p.v": "w"}}}, r"no variable of population p 'w'"),
        ({"restart": {"c": {"p.v": "r"}}}, r"There is no phase 'c'"),
        ({"instant": ("inp",)}, r"no population with states 'inp'"),
        ({"slowing": -1.0}, r"slowing = -1.0; wanted a number of at least 0"),
        ({"dt": "30*ms"}, r"dt = 30 ms is beyond the stability limit of explicit Euler for population 'p'"),
    ],
)
def test_relaxations_that_make_no_sense(values, message):
    with pytest.raises(NeurosimError, match=message):
        circuit(relaxation=Relaxation(**{**SCHEME, **values}))


@pytest.mark.parametrize("scheme", [{}, {"slowing": 0.5, "floor": "1*ms"}, {"slowing": 0.5, "unslowed": ("p",)}])
def test_a_relaxation_is_euler_and_says_what_it_leaves(scheme):
    """Closed form: tau dv/dt = -v + I makes v_n = I (1 - prod_s (1 - h_s/tau)); what is left is I - v_n."""
    relaxed = circuit(relaxation=Relaxation(**{**SCHEME, **scheme}))
    options = Options(method="relaxation", progress=False)
    engine = engine_class("torch:steady")(relaxed.plan, relaxed.initial_weights(), options)
    result = engine.present(STIMULUS, learn="off")
    drive = 0.5 * STIMULUS["image"].sum()
    steps = [2.0 if "unslowed" in scheme else max(2.0 / (1 + scheme.get("slowing", 0) * s), 1.0) for s in range(5)]
    if not scheme:
        steps = [2.0] * 5
    left = drive * np.prod([1 - h / 10 for h in steps])
    np.testing.assert_allclose(result.ends["free"]["p.v"], drive - left, rtol=1e-13)
    np.testing.assert_allclose(result.settling["free"], left, rtol=1e-12)
    assert result.unsettled == 0


def test_a_circuit_without_relaxation_offers_none():
    plain = circuit()
    with pytest.raises(UnsupportedError, match="names no published relaxation"):
        engine_class("torch:steady")(plain.plan, plain.initial_weights(), Options(method="relaxation"))


def test_gram_weights_are_symmetric_and_positive():
    weights = Gram().draw(np.random.default_rng(0), 6, 6)
    assert np.array_equal(weights, weights.T)
    assert np.linalg.eigvalsh(weights)[0] > -1e-12
    # E[A A^T] = n/3 (limit of the uniform)^2 I, limit^2 = 6/(2n): ones on the diagonal
    mean = np.mean([np.diag(Gram().draw(np.random.default_rng(k), 40, 40)) for k in range(50)])
    assert abs(mean - 1.0) < 0.05
    with pytest.raises(CircuitError, match="Gram weights between 3 and 4 cells"):
        Gram().draw(np.random.default_rng(0), 3, 4)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"symmetric": True}, r"symmetric with apply = 'now' between 2 and 3 cells; expected square weights"),
        ({"batch": InverseCorrelation("r", 0.9)}, r"batch with apply = 'now' between 2 and 3 cells"),
    ],
)
def test_rules_of_whole_matrices(rule, message):
    with pytest.raises(CircuitError, match=message):
        circuit(rule=PlasticityRule("hebb", "dw/dt = eta*r_post*r_pre", {"eta": "20*Hz"}, **rule))


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"apply": "phase", "batch": InverseCorrelation("r", 0.9)}, r"takes apply='trial', no filter and no bounds"),
        ({"apply": "trial", "batch": InverseCorrelation("q", 0.9)}, r"no variable of inp 'q'"),
    ],
)
def test_rules_of_an_inverse(rule, message):
    with pytest.raises(CircuitError, match=message):
        hebb = PlasticityRule("hebb", "dw/dt = eta*r_post*r_pre", {"eta": "20*Hz"}, **rule)
        weights = Constant(0.5) if "Gram" in message else Gram()
        circuit(n=2, rule=hebb, projections=(wire("W", weights=weights, rule=hebb),))


@pytest.mark.parametrize(
    ("measure", "message"),
    [
        (Silent("p.q", "free", ""), r"no variable of population p 'q'"),
        (Silent("p.r", "b", ""), r"Measure 'm': There is no phase 'b'"),
        (Angle("W", "V"), r"Measure 'm': There is no projection with weights of its own 'V'"),
        (SmallestEigenvalue("V", ""), r"Measure 'm': There is no projection with weights of its own 'V'"),
    ],
)
def test_measures_name_what_there_is(measure, message):
    with pytest.raises(NeurosimError, match=message):
        circuit(measures={"m": measure})


def test_a_factor_may_hold_numbers_of_the_rule():
    """A factor is computed by its cell, and a number that only the rule knows comes along: as Brian2's synapses do it."""
    hidden = PlasticityRule("hebb", "dw/dt = eta*r_post*exp(-slope*r_pre)", {"eta": "20*Hz", "slope": 2.0})
    plain, found = circuit(rule=hidden), []
    for level in LEVELS:
        engine = engine_class(level)(plain.plan, plain.initial_weights(), Options(dt=DT, progress=False))
        found.append(engine.present(STIMULUS).weights["W"])
    assert np.abs(found[0] - plain.initial_weights()["W"]).max() > 1e-4
    for weights in found[1:]:
        np.testing.assert_allclose(weights, found[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("level", [*LEVELS, "torch:steady"])
def test_a_random_sign_is_the_same_on_every_level(level):
    """dw = +-1 per trial: the sum over trials counts the signs, which follow from the seed and the trial's number alone."""
    rule = PlasticityRule("count", "dw/dt = sgn/T", {"T": "10*ms"}, apply="trial")
    phases = (Phase("a", "10*ms", plastic=("count",)),)
    counted = circuit(rule=rule, phases=phases, shared={"sgn": RandomSign(1.0)})
    engine = engine_class(level)(counted.plan, counted.initial_weights(), Options(dt=DT, progress=False, seed=4))
    signs = []
    for _ in range(3):  # also from call to call
        before = engine.weights()["W"]
        engine.present({"image": np.ones((1, 2))})
        signs.append(float((engine.weights()["W"] - before)[0, 0]))
    drawn = [counted.plan.trial_phases(4, k)[0].shared["sgn"] for k in range(3)]
    np.testing.assert_allclose(signs, drawn, atol=1e-12)
    assert {counted.plan.trial_phases(4, k)[0].shared["sgn"] for k in range(20)} == {-1.0, 1.0}


def settled(described: Circuit, method: str, **fields) -> dict[str, dict[str, np.ndarray]]:
    """Values at the phases' ends on the steady level."""
    options = Options(method=method, tolerance=1e-13, progress=False)
    engine = engine_class("torch:steady")(described.plan, described.initial_weights(), options)
    return engine.present({**STIMULUS, **fields}, learn="off").ends


RELAY = """
    dz/dt = (I - z)/tau : 1
    I : 1
"""


@pytest.mark.parametrize(
    ("relay", "reads", "more"),
    [
        (RELAY, "z", ()),
        (RELAY + "s = clip(z, 0.2, 0.3) : 1", "z", ()),
        (RELAY, "z*z", ()),
        (RELAY, "clip(z, 0, 0.1)", ()),
        (RELAY, "0.5*z + 0.1*z*v", ()),
        (RELAY, "z", (wire("more", "inp", "q.z"),)),
    ],
)
def test_what_an_instant_population_hands_on(relay, reads, more):
    """A relay between p and q, whatever q makes of it: the relaxation ends where the solver does."""
    z = assemble("relay", relay, ("I",), rate="s" if "s =" in relay else "z", parameters={"tau": "1*ms"})
    q = leaky(f"dv/dt = (-v + {reads} + J)/tau : 1\nr = tanh(v) : 1\nz : 1\nJ : 1", ports=("z", "J"))
    described = circuit(
        populations=(Population("inp", 2, SOURCE), Population("p", 3, leaky()), Population("i", 3, z), Population("q", 3, q)),
        projections=(
            wire(), wire("B", "p", "i.I", weights=Given(np.arange(9.0).reshape(3, 3) / 9)),
            Projection("Z", "i", "q.z", connectivity=OneToOne()), wire("J", "p", "q.J"), *more,
        ),
        relaxation=Relaxation(("p", "i", "q"), {"free": 400}, "2*ms", instant=("i",)),
    )  # fmt: skip
    relaxed, solved = settled(described, "relaxation"), settled(described, "sweeps")
    np.testing.assert_allclose(relaxed["free"]["q.v"], solved["free"]["q.v"], atol=1e-10)
    assert np.abs(solved["free"]["q.v"]).max() > 0.05


def test_a_phase_of_a_relaxation_goes_on_from_the_one_before():
    """Closed form: 5 and then 7 sweeps with equal inputs are 12; a restart from r = tanh(v) begins anew from there."""
    drive = 0.5 * STIMULUS["image"].sum()
    phases = (Phase("a", "5*ms"), Phase("b", "5*ms"))
    for restart, wanted in (({}, drive * (1 - 0.8**12)), ({"b": {"p.v": "r"}}, None)):
        ends = settled(
            circuit(phases=phases, relaxation=Relaxation(("p",), {"a": 5, "b": 7}, "2*ms", restart=restart)),
            "relaxation",
        )
        first = drive * (1 - 0.8**5)
        np.testing.assert_allclose(ends["a"]["p.v"], first, rtol=1e-12)
        wanted = drive + (np.tanh(first) - drive) * 0.8**7 if wanted is None else wanted
        np.testing.assert_allclose(ends["b"]["p.v"], wanted, rtol=1e-12)


def test_a_relaxation_with_a_state_that_a_phase_holds():
    cell = leaky(LEAK + "dm/dt = gate*(r - m)/tau : 1\ngate : 1 (shared)")
    held = circuit(cell, shared={"gate": 0}, relaxation=Relaxation(("p",), {"free": 5}, "2*ms"))
    ends = settled(held, "relaxation")["free"]
    np.testing.assert_allclose(ends["p.v"], 0.5 * STIMULUS["image"].sum() * (1 - 0.8**5), rtol=1e-12)
    assert not ends["p.m"].any()


@pytest.mark.parametrize(
    ("restart", "message"),
    [
        ({"free": {"p.v": "r"}}, r"restart in the first phase, 'free'"),
        ({"late": {"p.r": "v"}}, r"restart of 'p.r', which is no state"),
    ],
)
def test_restarts_that_make_no_sense(restart, message):
    phases = (Phase("free", "5*ms"), Phase("late", "5*ms"))
    with pytest.raises(CircuitError, match=message):
        circuit(phases=phases, relaxation=Relaxation(("p",), {"free": 5, "late": 5}, "2*ms", restart=restart))


@pytest.mark.parametrize("level", [*LEVELS, "torch:steady"])
def test_a_symmetric_rule_collects_what_it_would_add(level):
    """dW = sym(c r_post r_pre): held is what is added when it is on, and is symmetric."""
    rule = PlasticityRule("hebb", "dw/dt = eta*r_post*r_pre", {"eta": "20*Hz"}, apply="trial", symmetric=True)
    square = circuit(
        n=2, rule=rule, projections=(wire("W", weights=Given(np.array([[0.1, 0.9], [0.4, 0.2]])), rule=rule),)
    )
    changes = []
    for learn in ("on", "held"):
        start = square.initial_weights()
        engine = engine_class(level)(square.plan, start, Options(dt=DT, progress=False))
        result = engine.present(STIMULUS, learn=learn)
        changes.append(result.weights["W"] - start["W"] if learn == "on" else result.collected["W"])
    np.testing.assert_allclose(changes[0], changes[1], atol=1e-15)
    assert changes[1][0, 1] == changes[1][1, 0] and np.abs(changes[1]).max() > 1e-4


@pytest.mark.parametrize("level", [*LEVELS, "torch:steady"])
def test_inputs_of_the_last_phase_do_not_reach_the_next_trial(level):
    """States that outlive a trial: an input clamped in the last phase only is 0 again in the first one."""
    cell = leaky("dv/dt = (-v + I + y)/tau : 1\nr = tanh(v) : 1\nI : 1\ny : 1", inputs=("y",))
    phases = (Phase("a", "200*ms"), Phase("b", "200*ms", clamps={"p.y": "target"}))
    lasting = Circuit(
        "lasting", [Population("inp", 2, SOURCE), Population("p", 3, cell), wire()],
        Protocol(phases, {"inp.r": "image"}, reset=False),
    )  # fmt: skip
    engine = engine_class(level)(lasting.plan, lasting.initial_weights(), Options(dt=DT, progress=False))
    fields = {"image": np.ones((2, 2)), "target": np.ones((2, 3))}
    ends = engine.present(fields, learn="off").ends
    np.testing.assert_allclose(ends["a"]["p.v"], 1.0, atol=1e-6)
    np.testing.assert_allclose(ends["b"]["p.v"], 2.0, atol=1e-6)


@pytest.mark.parametrize(
    ("measure", "message"),
    [
        (
            Angle("W", "W"),
            r"weights of 2 x 3 \('W'\) and 2 x 3 \('W'\); expected one shape, once the second is transposed",
        ),
        (SmallestEigenvalue("W", ""), r"expected square weights"),
        (
            Silent("p.r", "late", ""),
            r"taken in phase 'late'; to evaluate, a trial ends with the readout's phase, 'free'",
        ),
    ],
)
def test_measures_that_could_not_be_taken(measure, message):
    phases = (Phase("free", "5*ms"), Phase("late", "5*ms"))
    with pytest.raises(CircuitError, match=message):
        circuit(phases=phases, readout=Readout("p.r", "free"), measures={"m": measure})
