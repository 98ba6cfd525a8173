"""Gates: a rule that is on in the last part of a phase does what it does in a phase of its own there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from circuits import IN_TIME, LEVELS, cell, circuit, rule, run, wire

from neurosim import SOURCE, Phase
from neurosim.errors import CircuitError, NeurosimError

IMAGES = np.array([[0.3, 0.9, -0.4], [1.0, 0.2, 0.6]])
W = np.linspace(-0.6, 0.8, 6).reshape(3, 2)
CELL = cell("du/dt = (-u + I)/tau : 1; r = tanh(u) : 1; I : 1", tau="10*ms")
CLOCK = cell("du/dt = (-u + I)/tau : 1; r = tanh(u) : 1; seen = t_phase/tau : 1; I : 1", tau="10*ms")
FORMS = {
    "now": {"apply": "now"},
    "phase": {"apply": "phase"},
    "trial": {"apply": "trial"},
    "bounded": {"apply": "now", "bounds": (-0.5, 0.5)},
}


def net(phases, form="now", low_pass=None, made_of=CELL, eta="20*Hz"):
    learns = replace(rule("eta*r_post*r_pre", eta=eta, **FORMS[form]), filter=low_pass)
    decays = rule("-k*w", name="decay", apply=FORMS[form]["apply"], k="3*Hz")
    return circuit(
        {"inp": (3, SOURCE), "p": (2, made_of)},
        [wire("W", "inp", "p.I", W, learns), wire("V", "inp", "p.I", 0.3 * W, decays)],
        phases=phases,
        clamps={"inp.r": "image"},
    )


def cut(plastic_first=()):
    """Two phases where a gate makes one."""
    return (
        Phase("free", "10*ms"),
        Phase("a", "15*ms", plastic=plastic_first),
        Phase("b", "5*ms", plastic=("rule", *plastic_first)),
    )


def gated(gate="5*ms", plastic=("rule",)):
    return (Phase("free", "10*ms"), Phase("a", "20*ms", plastic=plastic, gate=gate))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("low_pass", [None, "4*ms"])
def test_a_gate_is_a_phase_of_its_own_at_the_end(level, form, low_pass):
    """Weights and the values at the phase's end are those of two phases, to the last bit."""
    one, two = net(gated(), form, low_pass), net(cut(), form, low_pass)
    found, wanted = (run(n, level, IMAGES) for n in (one, two))
    for name in ("W", "V"):
        assert np.array_equal(found.weights[name], wanted.weights[name])
    assert not np.array_equal(found.weights["W"], W)
    for name in ("p.u", "p.r"):
        assert np.array_equal(found.ends["a"][name], wanted.ends["b"][name])
    assert list(found.ends) == ["free", "a"]


#: In time weights may move within a phase; the steady level meets one fixed point per phase.
BOTH = [*((level, "now") for level in IN_TIME), *((level, "trial") for level in LEVELS)]


@pytest.mark.parametrize(("level", "form"), BOTH)
def test_gates_by_rule(level, form):
    """A rule without a gate is on all the time, the other in the phase's end."""
    one = net(gated({"rule": "5*ms"}, ("rule", "decay")), form)
    two = net(cut(("decay",)), form)
    found, wanted = (run(n, level, IMAGES) for n in (one, two))
    for name in ("W", "V"):
        assert found.weights[name] == pytest.approx(wanted.weights[name], rel=1e-14, abs=1e-16)
    assert not np.array_equal(found.weights["W"], W)


@pytest.mark.parametrize(("level", "form"), BOTH)
def test_three_stretches(level, form):
    """Two gates cut a phase in three."""
    one = net(gated({"rule": "dt", "decay": "5*ms"}, ("rule", "decay")), form)
    two = net(
        (
            Phase("free", "10*ms"),
            Phase("a", "15*ms"),
            Phase("b", "4.5*ms", plastic=("decay",)),
            Phase("c", "0.5*ms", plastic=("rule", "decay")),
        ),
        form,
    )
    found, wanted = (run(n, level, IMAGES) for n in (one, two))
    for name in ("W", "V"):
        assert found.weights[name] == pytest.approx(wanted.weights[name], rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("level", IN_TIME)
def test_dt_is_the_last_step_at_every_step(level):
    """A gate of one step moves a weight by dt eta r_post r_pre of the last step."""
    made = net(gated("dt"))
    for dt in ("0.5*ms", "0.25*ms"):
        found = run(made, level, IMAGES[:1], dt=dt)
        change = float(dt[:-3]) * 1e-3 * 20 * np.outer(IMAGES[0], found.ends["a"]["p.r"][0])
        assert found.weights["W"] - W == pytest.approx(change, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("level", IN_TIME)
def test_a_gated_phase_is_one_phase_to_recordings_clocks_and_settling(level):
    """Its span, the time since it began and its settling are those of the same phase without a gate."""
    record = {"record": ["p.u", "p.seen"]}
    one = run(net(gated(), made_of=CLOCK, eta="0*Hz"), level, IMAGES, **record)
    two = run(net(gated(gate=None), made_of=CLOCK, eta="0*Hz"), level, IMAGES, **record)
    assert [(s.name, s.start, s.stop) for s in one.traces.phases] == [
        (s.name, s.start, s.stop) for s in two.traces.phases
    ]
    for name in ("p.u", "p.seen"):
        assert np.array_equal(one.traces[name], two.traces[name])
    assert one.settling == two.settling


@pytest.mark.parametrize(
    ("phase", "message"),
    [
        (Phase("a", "20*ms", gate="5*ms"), "Phase 'a': gate = '5*ms', and no rule is plastic in it"),
        (Phase("a", "20*ms", plastic=("rule",), gate="30*ms"), "the gate 30*ms of rule 'rule' in a phase of 20 ms"),
        (Phase("a", "20*ms", plastic=("rule",), gate="0*ms"), "expected a time above 0"),
        (Phase("a", "20*ms", plastic=("rule",), gate={"rul": "5*ms"}), "Did you mean 'rule'"),
        (Phase("a", "20*ms", plastic=("rule",), gate="5*mV"), "units of time"),
    ],
)
def test_gates_that_cannot_be(phase, message):
    with pytest.raises(CircuitError) as error:
        net((phase,))
    assert message in str(error.value)


def test_a_gate_of_half_a_step_is_refused():
    with pytest.raises(NeurosimError, match=r"A gate of the phase 'a' lasts 0.7 ms, which is no whole number of steps"):
        run(net(gated("0.7*ms")), "torch:trajectory", IMAGES)
