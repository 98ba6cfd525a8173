"""Fragments: they add up to the circuit that is written at once, in order, and refuse a name twice.

Oracles: the same circuit written at once; plans, weights and runs are compared bit for bit.
"""

from __future__ import annotations

import pickle
import re
from dataclasses import replace

import numpy as np
import pytest
from circuits import IN_TIME, cell, run

from neurosim import (
    SOURCE,
    Circuit,
    Fragment,
    Glorot,
    Phase,
    PlasticityRule,
    Population,
    Projection,
    Protocol,
    Tied,
)
from neurosim.errors import CircuitError

LEAKY = cell("du/dt = (-u + I + I_fb)/tau : 1; r = tanh(u) : 1; I : 1", optional=("I_fb",), tau="10*ms")
HEBB = PlasticityRule("hebb", "dw/dt = eta*r_post*r_pre", {"eta": "20*Hz"})
PROTOCOL = Protocol((Phase("free", "10*ms", plastic=("hebb",)),), {"inp.r": "image"})
IMAGES = np.array([[0.3, 0.9, -0.4], [1.0, 0.2, 0.6]])

INP, MID, TOP = Population("inp", 3, SOURCE), Population("mid", 4, LEAKY), Population("top", 2, LEAKY)
W1 = Projection("W1", "inp", "mid.I", Glorot(), HEBB)
W2 = Projection("W2", "mid", "top.I", Glorot(), HEBB)
BIAS = Projection("b", "one", "top.I", Glorot())
BACK = Projection("B", "top", "mid.I_fb", Tied("W2", transpose=True))
#: The second names populations of the first, and the first none of the second.
LEARNER, TOP_DOWN = Fragment((INP, MID), (W1,)), Fragment((TOP,), (W2, BIAS, BACK))
AT_ONCE = Circuit("net", [INP, MID, TOP, W1, W2, BIAS, BACK], PROTOCOL)

ADDED = {
    "added": LEARNER + TOP_DOWN,
    "three": Fragment((INP,)) + Fragment((MID,), (W1,)) + TOP_DOWN,
    "written at once": Fragment((INP, MID, TOP), (W1, W2, BIAS, BACK)),
    "lists": Fragment([INP, MID, TOP], [W1, W2, BIAS, BACK]),
    "a flat list": [INP, MID, TOP, W1, W2, BIAS, BACK],
    "a mixed list": (W1, INP, W2, MID, BIAS, TOP, BACK),
    "unpacked": [*LEARNER, *TOP_DOWN],
}


@pytest.mark.parametrize("how", ADDED)
def test_the_sum_is_the_circuit_written_at_once(how):
    circuit = Circuit("net", ADDED[how], PROTOCOL)
    assert [p.name for p in circuit.populations] == ["one", "inp", "mid", "top"]
    assert [p.name for p in circuit.projections] == ["W1", "W2", "b", "B"]
    assert circuit == AT_ONCE
    assert list(circuit.plan.populations) == list(AT_ONCE.plan.populations)
    assert list(circuit.plan.projections) == list(AT_ONCE.plan.projections)
    for name, start in AT_ONCE.initial_weights(3).items():
        assert np.array_equal(circuit.initial_weights(3)[name], start), name


@pytest.mark.parametrize("level", [*IN_TIME[1:], "torch:steady"])
def test_the_sum_runs_bit_for_bit_as_the_circuit_written_at_once(level):
    found = run(Circuit("net", LEARNER + TOP_DOWN, PROTOCOL), level, IMAGES)
    expected = run(AT_ONCE, level, IMAGES)
    for name, weights in expected.weights.items():
        assert np.array_equal(found.weights[name], weights), name
    for name, end in expected.ends["free"].items():
        assert np.array_equal(found.ends["free"][name], end), name


def test_the_order_is_that_of_the_terms():
    assert [p.name for p in (TOP_DOWN + LEARNER).populations] == ["top", "inp", "mid"]
    assert [p.name for p in (TOP_DOWN + LEARNER).projections] == ["W2", "b", "B", "W1"]
    assert list(LEARNER) == [INP, MID, W1]


def test_addition_is_associative_and_an_empty_fragment_is_its_zero():
    a, b, c = Fragment((INP,)), Fragment((MID,), (W1,)), TOP_DOWN
    assert (a + b) + c == a + (b + c)
    assert a + Fragment() == a == Fragment() + a


@pytest.mark.parametrize(
    ("add", "name"),
    [
        (lambda: LEARNER + Fragment((replace(MID, n=2),)), "population 'mid'"),
        (lambda: LEARNER + Fragment((), (replace(BACK, name="W1"),)), "projection 'W1'"),
        (lambda: LEARNER + LEARNER, "population 'inp'"),
        (lambda: Fragment((INP, INP)), "population 'inp'"),
        (lambda: Circuit("net", [INP, MID, W1, W1], PROTOCOL), "projection 'W1'"),
        (lambda: Circuit("net", [*LEARNER, *LEARNER], PROTOCOL), "population 'inp'"),
    ],
)
def test_a_name_twice_is_refused(add, name):
    with pytest.raises(CircuitError) as error:
        add()
    assert str(error.value) == (
        f"Two of one name: {name}; expected each name once. Leave it out of one of the fragments, or rename one."
    )


def test_a_population_and_a_projection_may_share_a_name():
    assert Circuit("net", [INP, MID, replace(W1, name="inp")], PROTOCOL).projections[0].name == "inp"


def test_the_constant_source_stays_out_of_the_fragment():
    """Two circuits with biases can be joined: each gets the population `one` from its projections."""
    assert AT_ONCE.population("one").n == 1
    assert [p.name for p in AT_ONCE.fragment if isinstance(p, Population)] == ["inp", "mid", "top"]
    other = Circuit(
        "other", [Population("q", 2, LEAKY), replace(BIAS, name="c", target="q.I")], Protocol((Phase("p", "1*ms"),))
    )
    joined = replace(AT_ONCE, fragment=[*AT_ONCE.fragment, *other.fragment])
    assert [p.name for p in joined.populations] == ["one", "inp", "mid", "top", "q"]
    assert [p.name for p in replace(AT_ONCE, fragment=LEARNER).populations] == ["inp", "mid"]
    assert Circuit("net", [*AT_ONCE.populations, *AT_ONCE.projections], PROTOCOL).populations == AT_ONCE.populations


@pytest.mark.parametrize(
    "given", [INP, "inp", 3, None, [LEARNER, INP], [INP, 3], (p for p in [INP])]
)  # fmt: skip
def test_what_is_not_a_fragment_is_refused(given):
    with pytest.raises(CircuitError, match=r"Circuit 'net': fragment = .*; wanted a Fragment or a list of") as error:
        Circuit("net", given, PROTOCOL)
    assert "[*learner, Population(...)]" in str(error.value)


def test_the_former_form_is_refused_with_what_to_write():
    expected = "Circuit(name, [*populations, *projections], protocol)"
    with pytest.raises(CircuitError, match=re.escape(f"Circuit has no argument 'populations': write {expected}")):
        Circuit("net", populations=(INP, MID), projections=(W1,), protocol=PROTOCOL)  # type: ignore[call-arg]
    with pytest.raises(CircuitError, match=re.escape(f"Circuit has no argument 'projections': write {expected}")):
        replace(AT_ONCE, projections=(W1,))
    with pytest.raises(CircuitError, match=re.escape(f"It follows one list of both: {expected}")):
        Circuit("net", (INP, MID), (W1,), PROTOCOL)  # type: ignore[arg-type]


def test_only_fragments_add():
    with pytest.raises(TypeError):
        _ = LEARNER + (INP, MID)  # type: ignore[operator]  # noqa: RUF005


def test_a_copy_is_equal():
    again = pickle.loads(pickle.dumps(AT_ONCE))
    assert again == AT_ONCE and again.populations == AT_ONCE.populations
    assert pickle.loads(pickle.dumps(LEARNER)) == LEARNER
