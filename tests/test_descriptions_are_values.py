"""Descriptions are values: nobody changes them from outside or inside.

Oracle: the numbers that were given. A copy was taken here before the caller's objects were changed.
"""

from __future__ import annotations

import contextlib
import copy
import pickle
import warnings
from collections import OrderedDict, defaultdict
from dataclasses import FrozenInstanceError, fields, is_dataclass, replace
from types import MappingProxyType

import brian2
import numpy as np
import pytest
import torch
from circuits import LEVELS, alone, assemble, cell, circuit, phase, run, wire

import neurosim
from neurosim import (
    SOURCE,
    Cell,
    Circuit,
    Constant,
    Dense,
    FeedForward,
    Fragment,
    Given,
    Glorot,
    Gram,
    Orthogonal,
    Phase,
    PlasticityRule,
    Population,
    Projection,
    Protocol,
    RandomSign,
    Ratio,
    Readout,
    Relaxation,
    Uniform,
    Windows,
)  # fmt: skip
from neurosim.errors import CircuitError
from neurosim.models import (
    bac_firing,
    corinfomax,
    counter_current,
    counter_current_autoencoder,
    dendritic_microcircuit,
    equilibrium_propagation,
    ghost_units,
    predictive_coding,
    tdca,
    tdca_control,
    tdca_search,
)  # fmt: skip
from neurosim.parts import InverseCorrelation

STEADY = LEVELS[3]
# `brian2:equations` takes longest: where the others say the same, it waits for the slow tests.
MOST = [pytest.param(LEVELS[0], marks=pytest.mark.slow), *LEVELS[1:]]
MV, PA = brian2.mV, brian2.pA

# ------------------------------------------------------------------ what a caller gives

EQUATIONS = "du/dt = (-u + I + k*J)/tau : 1\nr = u : 1\nI : 1 (port)\nJ : 1 (optional port)\ny : 1 (input)"
A_CELL = Cell("c", EQUATIONS, {"tau": "10*ms", "k": 1.0})
A_POPULATION = Population("p", 2, A_CELL)
A_PHASE = Phase("one", "5*ms")

#: (class, arguments): each value is a list, a table or an array of the caller's.
GIVEN = {
    "Cell": lambda: (Cell, dict(
        name="c", equations=EQUATIONS, parameters={"tau": "10*ms", "k": np.array([1.0, 2.0])},
        initial={"u": np.array([0.1, 0.2])},
    )),
    "Population": lambda: (Population, dict(
        name="p", n=[2, 3, 4], cell=A_CELL,
        parameters={"k": np.linspace(0, 1, 24), "tau": np.full(24, 10.0) * brian2.ms,
            "list": [1.0, 2.0]},
    )),
    "Phase": lambda: (Phase, dict(
        name="one", duration="5*ms", shared={"a": 1.0, "b": np.array(2.0), "c": [1, 2]},
        clamps={"p.y": "image"}, plastic=["rule", "other"],
    )),
    "Windows": lambda: (Windows, dict(phases=[A_PHASE, Phase("two", "1*ms")], labels="all",
        clamps={"p.y": "label"})),
    "Protocol": lambda: (Protocol, dict(
        phases=[A_PHASE, Phase("two", "1*ms")], clamps={"p.y": "image"},
        shared={"a": 1.0, "b": np.array([2.0]) * MV, "s": RandomSign(1.0)},
    )),
    "Relaxation": lambda: (Relaxation, dict(
        order=["p", "q"], sweeps={"one": 3}, dt="1*ms", unslowed=["p"], instant=["q"],
        restart={"one": {"p.u": "r"}},
    )),
    "PlasticityRule": lambda: (PlasticityRule, dict(
        name="rule", equation="dw/dt = eta*r_post*r_pre",
        parameters={"eta": np.array(2.0), "x": "1*ms"}, bounds=[np.array(0.0), 1.0],
    )),
    "Circuit": lambda: (Circuit, dict(
        name="net",
        fragment=Fragment((A_POPULATION, Population("inp", 2, SOURCE)),
            (Projection("W", "inp", "p.I", Constant(1.0)),)),
        protocol=Protocol((A_PHASE,), {"inp.r": "image"}),
        measures={"m": Ratio(("p.u",), ("p.I",), "one")},
    )),
    "Fragment": lambda: (Fragment, dict(
        populations=[A_POPULATION, Population("inp", 2, SOURCE)],
        projections=[Projection("W", "inp", "p.I", Constant(1.0))],
    )),
    "FeedForward": lambda: (FeedForward,
        dict(weights=["W", "V"], biases=["b", ""], transfer=["tanh(u)", "u"])),
    "Ratio": lambda: (Ratio, dict(of=["p.u"], to=["p.I"], phase="one")),
    "Given, array": lambda: (Given, dict(values=np.arange(6.0).reshape(2, 3))),
    "Given, quantity": lambda: (Given, dict(values=np.arange(6.0).reshape(2, 3) * PA)),
    "Given, lists": lambda: (Given, dict(values=[[1.0, 2.0], [3.0, 4.0]])),
    "Constant": lambda: (Constant, dict(value=2 * PA)),
    "Constant, of no dimension": lambda: (Constant, dict(value=np.array(2.0))),
    "Uniform": lambda: (Uniform, dict(low=1 * PA, high=np.array(2.0) * PA)),
    "Glorot": lambda: (Glorot, dict(gain=2 * PA)),
    "Gram": lambda: (Gram, dict(gain=np.array(2.0))),
    "Orthogonal": lambda: (Orthogonal, dict(gain=np.array(2.0) * PA)),
    "RandomSign": lambda: (RandomSign, dict(value=2 * PA)),
}  # fmt: skip


def numbers(value):
    """A copy with tables as dicts, lists and tuples as lists, arrays as (list, unit)."""
    if isinstance(value, dict) or hasattr(value, "keys"):
        return {k: numbers(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [numbers(v) for v in value]
    if isinstance(value, np.ndarray):
        unit = str(brian2.get_dimensions(value)) if isinstance(value, np.ndarray) else "1"
        return np.array(value, dtype=float).tolist(), unit
    if is_dataclass(value):
        return type(value).__name__, {
            f.name: numbers(getattr(value, f.name)) for f in fields(value) if f.init
        }  # fmt: skip
    return value


def spoil(value) -> None:
    """Change a caller's list, table or array in every way that it has."""
    if isinstance(value, dict):
        for inner in value.values():
            spoil(inner)
        value.update({"more": "spoilt"})
        value.pop(next(iter(value)))
    elif isinstance(value, list):
        for inner in value:
            spoil(inner)
        value.append("spoilt")
        value[0] = "spoilt"
    elif isinstance(value, np.ndarray):
        value *= 3
        value += value


@pytest.mark.parametrize("what", GIVEN)
def test_what_the_caller_changes_later_changes_nothing(what):
    """The description holds the numbers that it was given."""
    make, arguments = GIVEN[what]()
    given = {name: numbers(value) for name, value in arguments.items()}
    described = make(**arguments)
    before = numbers(described)[1]
    spoil(arguments)
    found = numbers(described)[1]
    assert found == before
    for name, value in given.items():
        plain = (
            np.array(found[name][0]).tolist()
            if isinstance(value, list) and isinstance(found[name], tuple)
            else found[name]
        )
        assert (
            plain == value
            or (isinstance(value, tuple) and plain == value[0])
            or plain == (value, "1")
        ), name  # fmt: skip


def inside(value, path=""):
    """All tables, sequences and arrays in a description, with their places."""
    if isinstance(value, dict | MappingProxyType):
        yield path, value
        for k, v in value.items():
            yield from inside(v, f"{path}[{k!r}]")
    elif isinstance(value, np.ndarray):
        yield path, value
    elif isinstance(value, list | tuple):
        yield path, value
        for k, v in enumerate(value):
            yield from inside(v, f"{path}[{k}]")
    elif is_dataclass(value):
        for f in fields(value):
            if f.init:
                yield from inside(getattr(value, f.name), f"{path}.{f.name}")


CHANGES = {
    "set": lambda d: d.__setitem__("new", 1), "set old": lambda d: d.__setitem__(next(iter(d)), 1),
    "delete": lambda d: d.__delitem__(next(iter(d))),
    "update": lambda d: d.update(new=1), "pop": lambda d: d.pop(next(iter(d))),
    "popitem": lambda d: d.popitem(), "clear": lambda d: d.clear(),
    "setdefault": lambda d: d.setdefault("new", 1), "ior": lambda d: d.__ior__({"new": 1}),
}  # fmt: skip
ARRAY_CHANGES = {
    "all": lambda a: a.__setitem__(..., a * 0), "in place": lambda a: a.__imul__(3),
    "fill": lambda a: a.fill(0),
    "sort": lambda a: a.sort() if a.ndim else a.fill(0), "flat": lambda a: a.flat.__setitem__(0, 0),
    "view": lambda a: a.reshape(-1).__setitem__(0, a.reshape(-1)[0] * 2),
    "out": lambda a: np.multiply(np.asarray(a), 2, out=np.asarray(a)),
}  # fmt: skip


#: Of a number with a unit Brian2 may hand out a copy.
DETOURS = ("fill", "sort", "flat", "view", "out")


@pytest.mark.parametrize("what", GIVEN)
def test_nothing_inside_can_be_changed(what):
    """Every attempt raises TypeError or ValueError and leaves the numbers as they were."""
    make, arguments = GIVEN[what]()
    described = make(**arguments)
    before = numbers(described)
    looked = 0
    for path, value in inside(described):
        assert not isinstance(value, list), path
        changes = (
            CHANGES
            if hasattr(value, "keys")
            else ARRAY_CHANGES
            if isinstance(value, np.ndarray)
            else {}
        )  # fmt: skip
        for name, change in changes.items():
            if (
                hasattr(value, "keys")
                and not value
                and name in ("set old", "delete", "pop", "popitem", "clear")
            ):  # fmt: skip
                continue
            looked += 1
            if name in DETOURS or (np.ndim(value) == 0 and isinstance(value, brian2.Quantity)):
                with contextlib.suppress(TypeError, ValueError):  # it may change a copy
                    change(value)
            else:
                with pytest.raises((TypeError, ValueError)):
                    change(value)
            assert numbers(described) == before, (path, name)
    for f in fields(described):
        with pytest.raises((FrozenInstanceError, AttributeError, TypeError)):
            setattr(described, f.name, None)
    assert numbers(described) == before
    assert looked or what in ("FeedForward", "Ratio", "Given, lists")


def test_weights_given_as_a_tensor():
    """It is copied as an array is, without a warning."""
    tensor = torch.arange(4.0).reshape(2, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        given = Given(tensor)
    tensor += 5
    assert np.array_equal(given.draw(np.random.default_rng(0), 2, 2), [[0, 1], [2, 3]])


@pytest.mark.parametrize("table", [OrderedDict, MappingProxyType, lambda d: defaultdict(list, d)])
def test_any_kind_of_table(table):
    """A mapping of any class becomes one that stands still; what stood behind a view may change."""
    parameters = {"tau": "10*ms", "k": 1.0}
    c = assemble("c", EQUATIONS, ("I",), ("J",), ("y",), parameters=table(parameters))
    parameters["k"] = 7.0
    assert dict(c.parameters) == {"tau": "10*ms", "k": 1.0}
    with pytest.raises(TypeError):
        c.parameters["k"] = 3.0


def test_tables_of_a_description_are_ordinary_to_read():
    """``|`` and ``**`` make a table of one's own that may be changed."""
    for own in (
        {**A_CELL.parameters},
        A_CELL.parameters | {},
        dict(A_CELL.parameters),
        copy.copy(dict(A_CELL.parameters)),
    ):
        own["k"] = 5.0
        assert type(own) is dict and A_CELL.parameters["k"] == 1.0
    assert A_CELL.parameters == {"tau": "10*ms", "k": 1.0}


# ------------------------------------------------------------------ runs and reports say the same


def described_and_run(values, weights, shared):
    """A leaky cell per value of k, driven by the weights, times the shared value."""
    c = cell(
        "du/dt = (-u + k*I*gain)/tau : 1; r = u : 1; I : 1; gain : 1 (shared)", tau="10*ms", k=1.0
    )  # fmt: skip
    return circuit(
        {"inp": (2, SOURCE), "p": (3, c, {"k": values})},
        [wire("W", "inp", "p.I", Given(weights))],
        [phase("only", "20*ms", **shared)],
        {"inp.r": "image"},
    )


@pytest.mark.parametrize("level", MOST)
def test_runs_and_reports_follow_what_was_described(level):
    """Closed form of the numbers as they were; the caller's changes leave the report as it was."""
    values, weights, shared = (
        np.array([0.5, -1.0, 2.0]),
        np.array([[1.0, 2.0, 3.0], [0.5, 0.25, 0.125]]),
        {"gain": 2.0},
    )
    net = described_and_run(values, weights, shared)
    kept, report = (values.copy(), weights.copy()), neurosim.describe(net)
    spoil(values), spoil(weights), spoil(shared)
    image = np.array([[0.3, -0.7]])
    expected = 2.0 * kept[0] * (image @ kept[1]) * (1.0 if level == STEADY else 1 - 0.95**39)
    assert run(net, level, image).ends["only"]["p.u"] == pytest.approx(expected, rel=1e-10)
    assert neurosim.describe(net) == report
    weights = net.initial_weights(0)
    weights["W"] *= 0  # what is handed out is the caller's own
    assert run(net, level, image).ends["only"]["p.u"] == pytest.approx(expected, rel=1e-10)


def test_stimuli_and_given_weights_of_a_run_are_left_alone():
    """A run writes into nothing that it is given: weights that learn are copied."""
    c = cell("du/dt = (-u + I)/tau : 1; r = u : 1; I : 1", tau="10*ms")
    learns = PlasticityRule("rule", "dw/dt = eta*r_post*r_pre", {"eta": "1*Hz"})
    net = circuit(
        {"inp": (2, SOURCE), "p": (2, c)},
        [wire("W", "inp", "p.I", np.eye(2), learns)],
        [phase("only", "5*ms", ["rule"])],
        {"inp.r": "image"},
    )
    for level in LEVELS:
        images, weights = np.array([[0.3, -0.7]]), {"W": np.array([[1.0, 0.5], [0.2, 0.1]])}
        kept = images.copy(), weights["W"].copy()
        first = run(net, level, images, weights=weights).weights["W"]
        assert np.array_equal(images, kept[0]) and np.array_equal(weights["W"], kept[1])
        assert not np.array_equal(first, kept[1])
        images.setflags(write=False), weights["W"].setflags(write=False)
        assert np.array_equal(run(net, level, images, weights=weights).weights["W"], first)


# ------------------------------------------------------------------ copies

MODELS = {
    "bac_firing": lambda: bac_firing.circuit("0.2*ms", "0.2*ms", "1*ms"),
    "corinfomax": lambda: corinfomax.circuit(sizes=(6, 5, 4)),
    "counter_current": lambda: counter_current.circuit((6, 5, 4)),
    "counter_current maps": lambda: counter_current.circuit((1, 2, 4), layers="pooled", pixels=4),
    "counter_current_autoencoder": lambda: counter_current_autoencoder.circuit((1, 2, 2), 8),
    "dendritic_microcircuit": lambda: dendritic_microcircuit.circuit((6, 5, 4)),
    "equilibrium_propagation": lambda: equilibrium_propagation.circuit((6, 5, 4)),
    "ghost_units": lambda: ghost_units.circuit((6, 5, 4)),
    "ghost_units learned": lambda: ghost_units.circuit((6, 5, 4), "learned"),
    "predictive_coding": lambda: predictive_coding.circuit((6, 5, 4)),
    "tdca": lambda: tdca.circuit((6, 5, 4)),
    "tdca messenger": lambda: tdca.circuit((6, 5, 4), messenger=True, kernel="chain", ratio=2.0),
    "tdca_control": tdca_control.circuit,
    "tdca_search": tdca_search.circuit,
}
COPIES = {
    "pickle": lambda net: pickle.loads(pickle.dumps(net)),
    "old pickle": lambda net: pickle.loads(pickle.dumps(net, 2)),
    "deepcopy": copy.deepcopy, "copy": copy.copy, "replace": replace,
}  # fmt: skip


def shown(net: Circuit):
    """A run's numbers: fixed points, or, of a spiking cell, its potentials."""
    rng = np.random.default_rng(0)
    plan = net.plan
    images = (
        rng.uniform(0, 1, (1, plan.stimulus_size("image")))
        if "image" in plan.clamped_fields
        else None
    )  # fmt: skip
    labels = [0] if "target" in plan.clamped_fields else None
    return run(net, "torch:trajectory" if images is None else STEADY, images, labels)


LARGE = (
    "bac_firing",
    "corinfomax",
    "counter_current_autoencoder",
    "ghost_units learned",
    "tdca messenger",
)


@pytest.mark.parametrize(
    "model", [pytest.param(m, marks=pytest.mark.slow) if m in LARGE else m for m in MODELS]
)  # fmt: skip
def test_copies_of_every_model(model):
    """A copy has the same report, weights and run, bit for bit."""
    net = MODELS[model]()
    report, weights = neurosim.describe(net), net.initial_weights(5)
    first = shown(net)
    for name in ("pickle", "deepcopy"):
        other = COPIES[name](net)
        assert neurosim.describe(other) == report, name
        found = other.initial_weights(5)
        assert found.keys() == weights.keys() and all(
            np.array_equal(found[w], weights[w]) for w in weights
        ), name  # fmt: skip
        if name == "pickle":
            second = shown(other)
            assert all(np.array_equal(second.weights[w], x) for w, x in first.weights.items()), name
            for phase_name, values in first.ends.items():
                for variable, x in values.items():
                    assert np.array_equal(second.ends[phase_name][variable], x), (name, variable)


@pytest.mark.parametrize("what", GIVEN)
def test_copies_of_every_part(what):
    """Pickles and copies of single descriptions hold the same numbers, units included."""
    make, arguments = GIVEN[what]()
    described = make(**arguments)
    for name, copied in COPIES.items():
        other = copied(described)
        assert type(other) is make and numbers(other) == numbers(described), name


@pytest.mark.parametrize("how", COPIES)
def test_copies_stand_still(how):
    """Arrays of a copy are read-only and its tables do not change: it is a description too."""
    for what in GIVEN:
        make, arguments = GIVEN[what]()
        other = COPIES[how](make(**arguments))
        for path, value in inside(other):
            if isinstance(value, np.ndarray):
                assert not value.flags.writeable, (what, path)
            elif hasattr(value, "keys"):
                with pytest.raises(TypeError):
                    value["new"] = 1


def test_replace_builds_another_description():
    """`dataclasses.replace` changes one field; the circuit checks itself again and runs with it."""
    c = cell("du/dt = (-u + k)/tau : 1; r = u : 1", tau="10*ms", k=1.0)
    net = alone(c, 2)
    other = replace(net, fragment=[replace(net.populations[0], parameters={"k": 3.0})])
    longer = replace(
        net,
        protocol=replace(net.protocol, phases=(replace(net.protocol.phases[0], duration="5*ms"),)),
    )
    for one, expected in ((net, 1 - 0.95**39), (other, 3 * (1 - 0.95**39)), (longer, 1 - 0.95**9)):
        assert run(one, "torch:trajectory").ends["only"]["p.u"] == pytest.approx(
            expected, rel=1e-12
        )  # fmt: skip
    with pytest.raises(CircuitError, match="kk"):
        replace(net, fragment=[replace(net.populations[0], parameters={"kk": 3.0})])
    with pytest.raises(CircuitError, match="'p'"):
        replace(
            net,
            fragment=[
                replace(
                    net.populations[0],
                    cell=replace(c, equations="du/dt = (-u + z)/tau : 1\nr = u : 1"),
                )
            ],
        )


def test_a_circuit_may_be_compared_and_shared():
    """Two circuits share cells, rules and phases; a run of one leaves the other as it was."""
    c = cell("du/dt = (-u + I)/tau : 1; r = u : 1; I : 1", tau="10*ms")
    learns = PlasticityRule("rule", "dw/dt = eta*r_post*r_pre", {"eta": "100*Hz"})
    wires = (wire("W", "inp", "p.I", np.eye(2), learns),)
    phases = (phase("only", "5*ms", ["rule"]),)
    first, second = (
        circuit({"inp": (2, SOURCE), "p": (2, c)}, wires, phases, {"inp.r": "image"})
        for _ in range(2)
    )  # fmt: skip
    alone_ = run(second, "torch:trajectory", [[1.0, 1.0]]).weights["W"]
    run(first, "torch:trajectory", [[5.0, 5.0]])
    assert np.array_equal(run(second, "torch:trajectory", [[1.0, 1.0]]).weights["W"], alone_)
    assert np.array_equal(first.initial_weights()["W"], np.eye(2))


def test_the_inverse_correlation_and_readouts_are_plain():
    """Parts without tables are frozen as well."""
    for part in (
        InverseCorrelation("r", 0.9),
        Readout("p.r", "one"),
        Dense(),
    ):
        for f in fields(part):
            with pytest.raises(FrozenInstanceError):
                setattr(part, f.name, None)
