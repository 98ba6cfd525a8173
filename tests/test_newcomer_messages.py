"""What those meet who know Brian2 and write their first circuit: messages by their text, values with units by Brian2's own conversion."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable
from typing import Any

import brian2
import numpy as np
import pytest
from brian2 import Hz, mV, nS, pA
from circuits import assemble, pool

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
    OneToOne,
    Orthogonal,
    Phase,
    PlasticityRule,
    Population,
    Projection,
    Protocol,
    Ratio,
    Recorder,
    Relaxation,
    Uniform,
    compare,
    simulate,
)
from neurosim.backends.brian2.arrays import NumpyArrays
from neurosim.backends.torch.arrays import TorchArrays
from neurosim.equations import FUNCTIONS
from neurosim.errors import CircuitError, NeurosimError
from neurosim.parts import divisive_normalisation, lif

LEAK = "du/dt = (-u + I_dend)/tau : 1\nr = u : 1\nI_dend : 1"
#: A membrane: potential in volt, drive in ampere.
MEMBRANE = "dV/dt = (E_L - V)/tau + I/C : volt\nr = V/E_L : 1\nI : amp"
CONSTANTS = {"tau": "10*ms", "E_L": "-70*mV", "C": "100*pF"}
HEBB = PlasticityRule("bcm", "dw/dt = eta*r_post*r_pre", {"eta": "1*Hz"})


def cell(equations: str = LEAK, **more: Any) -> Cell:
    return assemble("pyramidal", equations, **{"ports": ("I_dend",), "parameters": {"tau": "10*ms"}, **more})


def circuit(
    of: Cell | None = None,
    target: str = "pyr.I_dend",
    rule: PlasticityRule | None = None,
    plastic: Any = (),
    **more: Any,
) -> Circuit:
    """inp (2 cells) -> pyr (3 cells)."""
    return Circuit(
        "first", [Population("inp", 2, SOURCE), Population("pyr", 3, of or cell()),
         Projection("W", "inp", target, Constant(0.5), rule)],
        Protocol((Phase("free", "5*ms", plastic=plastic),), {"inp.r": "image"}), **more,
    )  # fmt: skip


def membrane(
    weights: Any = None, initial: dict[str, Any] | None = None, n: int = 3, one_to_one: bool = False, **more: Any
) -> Circuit:
    of = assemble("membrane", MEMBRANE, ("I",), parameters=CONSTANTS, initial=initial or {}, **more)
    kind = OneToOne() if one_to_one else Dense()
    return Circuit(
        "membrane", [Population("inp", n, SOURCE), Population("pyr", n, of),
         Projection("W", "inp", "pyr.I", Constant(0) if weights is None else weights, connectivity=kind)],
        Protocol((Phase("free", "5*ms"),), {"inp.r": "image"}),
    )  # fmt: skip


def recorded(described: Circuit, level: str, variable: str) -> np.ndarray:
    """(rows, cells) of a run in steps of 1 ms with all inputs at 1, recorded."""
    images = np.ones((1, int(np.prod(described.population("inp").n))))
    traces = simulate(described, images, level=level, record=[variable], dt="1*ms", progress=False).traces
    assert traces is not None
    return np.asarray(traces[variable])[:, 0]


def refused(text: str, error: type[Exception] = CircuitError):
    return pytest.raises(error, match=re.escape(text))


# ---------------------------------------------------------------- equations


PYR = "Population 'pyr' (cell 'pyramidal'): "
WANTED = (
    "wanted `name = expression : unit`, `dname/dt = expression : unit` or `name : unit (role)` (unit 1 for a number)."
)
A_UNIT = (
    "is a unit; units do not stand in equations: write a parameter, parameters={'tau': '10*ms'}, and its name here."
)
NO_SEED = (
    "its numbers do not follow from the seed; use xi, white noise in the equation of a state (dx/dt = ... + sigma*xi), which is drawn from "
    "the seed on every level."
)


@pytest.mark.parametrize(
    ("equations", "message"),
    [
        (LEAK.replace("/tau", "/(10*ms)"), f"'ms' in 'du/dt = (-u + I_dend)/(10*ms)' {A_UNIT}"),
        (LEAK.replace("r = u : 1", "r = u"), f"cannot read 'r = u'; {WANTED}"),
        (LEAK.replace("/tau : 1", "/tau"), f"cannot read 'du/dt = (-u + I_dend)/tau'; {WANTED}"),
        (LEAK.replace("r = u : 1", "r = u :"), f"cannot read 'r = u :'; {WANTED}"),
        (LEAK.replace("r = u : 1", "r = u  # rate"), f"cannot read 'r = u'; {WANTED}"),
        (LEAK.replace("r = u", "r u"), f"cannot read 'r u : 1', or what stands before it; {WANTED}"),
        (LEAK.replace("r = u", "r = exp(u"), "cannot read 'r = exp(u : 1': a bracket is never closed."),
        (LEAK.replace("r = u", "r = u)"), "cannot read 'r = u) : 1': a bracket is never opened."),
        (LEAK.replace("r = u", "r = u*(1 +\n   u"), "cannot read 'r = u*(1 + u : 1': a bracket is never closed."),
        (LEAK.replace("r = u : 1", "r = u +\n   u : 1\nq = u"), f"cannot read 'q = u'; {WANTED}"),
        (LEAK.replace("r = u", "r = u *"), "cannot read 'r = u *': invalid syntax."),
        (
            LEAK.replace("r = u", "r = u**2*(u>0)"),
            "'u > 0' in 'r = u**2*(u>0)' is a condition, no number; write int(u > 0), which is 1 or 0.",
        ),
        (LEAK.replace("r = u", "r = -(u>0 and u<1)"), "write int(u > 0 and u < 1), which is 1 or 0."),
        (LEAK.replace("r = u", "r = u^2"), "'^' in 'r = u^2' is no power; write u**2."),
        (LEAK.replace("r = u", "r = max(u, 0)"), f"unknown function 'max' in 'r = max(u, 0)'. Equations know: {', '.join(FUNCTIONS)}."),
        (LEAK.replace("r = u", "r = erf(u)"), "unknown function 'erf' in 'r = erf(u)'. Equations know: abs, "),
        (LEAK.replace("r = u", "r = 1/sigmoid(u)"), "unknown function 'sigmoid' in 'r = 1/sigmoid(u)'. Equations know: abs, "),
        (LEAK.replace("r = u", "r = rand()"), f"'rand()' in 'r = rand()': {NO_SEED}"),
        (LEAK.replace("+ I_dend", "+ randn()"), f"'randn()' in 'du/dt = (-u + randn())/tau': {NO_SEED}"),
        (LEAK.replace("r = u", "r = poisson(u)"), f"'poisson()' in 'r = poisson(u)': {NO_SEED}"),
    ],
)  # fmt: skip
def test_equations_that_cannot_be_read(equations, message):
    with refused(PYR + message) if "write int(u > 0 and" not in message else refused(message):
        circuit(cell(equations))


def test_a_scaled_unit_after_the_colon():
    with pytest.raises(CircuitError, match=r"'mV', but this is not a base unit\. Use 'volt' instead") as caught:
        circuit(cell(LEAK.replace("/tau : 1", "/tau : mV")))
    assert "Rename" not in str(caught.value)


def test_a_reserved_name_is_still_to_be_renamed():
    with pytest.raises(CircuitError, match="Rename the variable"):
        circuit(cell(LEAK + "\nms = 2*u : 1"))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: circuit(cell(pools=(pool("P", "randn()*u"),))), f"'randn()' in 'P = pool(randn()*u)': {NO_SEED}"),
        (lambda: circuit(cell(pools=(pool("P", "max(u, 0)"),))), "unknown function 'max' in 'P = pool(max(u, 0))'"),
        (lambda: circuit(cell(threshold="u > rand()", reset="u = 0")), f"'rand()' in 'u > rand()': {NO_SEED}"),
        (lambda: circuit(cell(threshold="u > 1", reset="u = 0*mV")), f"'mV' in '0*mV' {A_UNIT}"),
        (
            lambda: circuit(rule=PlasticityRule("bcm", "dw/dt = r_post*r_pre/(20*ms)"), plastic=["bcm"]),
            f"Rule 'bcm' of projection 'W': 'ms' in 'dw/dt = r_post*r_pre/(20*ms)' {A_UNIT}",
        ),
        (
            lambda: circuit(rule=PlasticityRule("bcm", "dw/dt = eta*r_post*(r_pre > 0)", {"eta": "1*Hz"}), plastic=["bcm"]),
            "write int(r_pre > 0), which is 1 or 0.",
        ),
    ],
)  # fmt: skip
def test_pools_thresholds_resets_and_rules_are_read_alike(build, message):
    with refused(message):
        build()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_that_is_listed_is_known_on_every_level(name):
    """Also on Brian2, where the equations go through its parser."""
    assert name in NumpyArrays.functions and name in TorchArrays().functions
    arguments = "0.3*u, 0, 1" if name == "clip" else "0.5 + 0.3*u"
    described = circuit(cell(LEAK.replace("r = u", f"r = {name}({arguments})")))
    ends = [recorded(described, level, "pyr.r") for level in ("brian2:dense", "torch:trajectory")]
    assert np.isfinite(ends[0]).all()
    np.testing.assert_allclose(ends[0], ends[1], rtol=1e-12)


def test_the_functions_are_all_that_the_levels_share_with_brian2():
    shared = set(brian2.core.functions.DEFAULT_FUNCTIONS) & set(NumpyArrays.functions) & set(TorchArrays().functions)  # type: ignore[attr-defined]
    assert set(FUNCTIONS) == shared


# ---------------------------------------------------------------- ports


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("pyr.I_dendd", "Projection 'W': pyr has no port 'I_dendd'. Did you mean 'I_dend'? Ports: I_dend; a port is a line"),
        ("pyrr.I_dend", "Projection 'W': There is no population 'pyrr'. Did you mean 'pyr'?"),
        ("pyr", "Projection 'W': target = 'pyr' names no port; wanted 'pyr.PORT'. Ports: I_dend."),
        ("inp.r", "Projection 'W': inp has no port 'r'. Ports: (none); a port is a line 'name : unit (port)' or"),
    ],
)  # fmt: skip
def test_a_misspelt_target_is_named_before_the_port_that_it_leaves_empty(target, message):
    with refused(message):
        circuit(target=target)


# ---------------------------------------------------------------- values with units


@pytest.mark.parametrize("given", ["-70*mV", -70 * mV, float(-70 * mV)])
def test_an_initial_value_in_any_form_is_the_number_that_brian2_makes_of_it(given):
    described = membrane(initial={"V": given})
    assert described.plan.populations["pyr"].initial["V"] == float(-70 * mV)
    assert np.all(recorded(described, "torch:trajectory", "pyr.V")[0] == float(-70 * mV))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("-70*pA", "the initial value of 'V' = '-70*pA' has the unit amp; wanted volt. A bare number is taken in base SI units."),
        ("-70", "the initial value of 'V' = '-70' has the unit 1; wanted volt."),
        (-70 * pA, "has the unit amp; wanted volt."),
        ("-70*mVV", "the initial value of 'V': 'mVV' in the value '-70*mVV' is no unit. Did you mean 'mV'?"),
        (np.zeros(3), "the initial value of 'V' is an array; wanted one number."),
        (np.zeros(3) * mV, "the initial value of 'V' is an array; wanted one number."),
    ],
)  # fmt: skip
def test_initial_values_of_another_unit(given, message):
    with refused("Population 'pyr' (cell 'membrane'): "):
        membrane(initial={"V": given})
    with refused(message):
        membrane(initial={"V": given})


@pytest.mark.parametrize(
    ("with_units", "bare"),
    [
        (Constant("20*pA"), Constant(float(20 * pA))),
        (Constant(20 * pA), Constant(float(20 * pA))),
        (Uniform("1*pA", "2*pA"), Uniform(float(1 * pA), float(2 * pA))),
        (Uniform(1 * pA, 2e-12), Uniform(float(1 * pA), 2e-12)),
        (Glorot("20*pA"), Glorot(float(20 * pA))),
        (Orthogonal(20 * pA), Orthogonal(float(20 * pA))),
        (Gram("4*pA**0.5"), Gram(float(4 * pA**0.5))),
        (Given(np.arange(9.0).reshape(3, 3) * pA), Given(np.asarray(np.arange(9.0).reshape(3, 3) * pA))),
    ],
)
def test_weights_with_units_start_as_those_in_base_units(with_units, bare):
    got, wanted = membrane(with_units).initial_weights(3)["W"], membrane(bare).initial_weights(3)["W"]
    assert np.array_equal(got, wanted) and np.abs(got).max() > 1e-13


@pytest.mark.parametrize("start", [Constant("20*pA"), Given(np.full(3, 20.0) * pA)])
def test_one_to_one_weights_with_units(start):
    weights = membrane(start, one_to_one=True).initial_weights()["W"]
    assert type(weights) is np.ndarray and np.array_equal(weights, np.full(3, float(20 * pA)))


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (Constant("20*mV"), "Projection 'W': value of Constant = '20*mV' has the unit volt; wanted amp."),
        (Constant("20"), "Projection 'W': value of Constant = '20' has the unit 1; wanted amp."),
        (Uniform("1*pA", 2 * nS), "has the unit siemens; wanted amp."),
        (Uniform("1*pA", "2*pAA"), "Projection 'W': high of Uniform: 'pAA' in the value '2*pAA' is no unit."),
        (Glorot("1*nS"), "Projection 'W': gain of Glorot = '1*nS' has the unit siemens; wanted amp."),
        (Gram("1*pA"), "Projection 'W': gain of Gram = '1*pA' has the unit amp; wanted"),
        (Given(np.ones((3, 3)) * mV), "Projection 'W': values of Given = "),
        ("20*pA", "Projection 'W': weights = '20*pA'; wanted how they are drawn, such as Constant('20*pA') or Glorot()."),
    ],
)  # fmt: skip
def test_weights_of_another_unit(start, message):
    with refused(message):
        membrane(start)


def test_a_weight_has_the_ports_unit_over_that_of_what_is_sent():
    """A port in ampere that is sent potentials in volt has weights in siemens."""
    of = assemble("membrane", MEMBRANE, ("I",), parameters=CONSTANTS)

    def sending(weight: Any) -> Circuit:
        return Circuit(
            "loop", [Population("pyr", 3, of), Projection("W", "pyr.V", "pyr.I", Constant(weight))],
            Protocol((Phase("free", "5*ms"),)),
        )  # fmt: skip

    assert sending("2*nS").initial_weights()["W"][0, 0] == float(2 * nS)
    with refused("has the unit amp; wanted siemens."):
        sending("2*pA")


def test_weights_without_a_unit_take_texts_too():
    described = circuit()
    for text, number in (("0.25", 0.25), ("2*mV/(8*mV)", 0.25)):
        other = Circuit(
            "first", Fragment(described.populations, (Projection("W", "inp", "pyr.I_dend", Constant(text)),)),
            described.protocol,
        )  # fmt: skip
        assert np.all(other.initial_weights()["W"] == number)


def test_weights_drawn_by_ones_own_class_stay_what_they_are():
    class Diagonal:
        scale = "anything"

        def draw(self, rng: np.random.Generator, n_pre: int, n_post: int) -> np.ndarray:
            return 1e-12 * np.eye(n_pre, n_post)

    assert np.array_equal(membrane(Diagonal()).initial_weights()["W"], 1e-12 * np.eye(3))


# ---------------------------------------------------------------- lists of names


def one_text(what: str, given: str) -> str:
    return f"{what} = '{given}' is one text; wanted a list: ['{given}']."


@pytest.mark.parametrize(
    ("build", "what", "given"),
    [
        (lambda: circuit(rule=HEBB, plastic="bcm"), "Phase 'free': plastic", "bcm"),
        (lambda: circuit(measures={"m": Ratio("pyr.u", ("pyr.r",), "free")}), "Ratio: of", "pyr.u"),  # type: ignore[arg-type]
        (lambda: circuit(measures={"m": Ratio(("pyr.u",), "pyr.r", "free")}), "Ratio: to", "pyr.r"),  # type: ignore[arg-type]
        (lambda: circuit(reference=FeedForward("W", (), "u")), "FeedForward: weights", "W"),  # type: ignore[arg-type]
        (lambda: circuit(reference=FeedForward(("W",), "b", "u")), "FeedForward: biases", "b"),  # type: ignore[arg-type]
        (lambda: circuit(relaxation=Relaxation("pyr", {"free": 5}, "1*ms")), "Relaxation: order", "pyr"),  # type: ignore[arg-type]
        (lambda: circuit(relaxation=Relaxation(("pyr",), {"free": 5}, "1*ms", instant="pyr")), "Relaxation: instant", "pyr"),  # type: ignore[arg-type]
        (lambda: circuit(relaxation=Relaxation(("pyr",), {"free": 5}, "1*ms", unslowed="pyr")), "Relaxation: unslowed", "pyr"),  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_one_text_in_place_of_a_list_of_names(build: Callable[[], Any], what: str, given: str):
    with refused(one_text(what, given)):
        build()


def test_one_level_in_place_of_a_list():
    with refused(one_text("levels", "brian2:dense"), NeurosimError):
        compare(circuit(), np.ones((1, 2)), levels="brian2:dense")  # type: ignore[arg-type]


def test_lists_are_as_good_as_tuples():
    described = circuit(cell(ports=["I_dend"]), rule=HEBB, plastic=["bcm"])
    assert [p.name for p, _ in described.plan.plastic()] == ["W"]


# ---------------------------------------------------------------- parts


def test_divisive_normalisation_says_which_units_it_takes():
    rates = Cell("rates", "du/dt = (-u + I_dend)/tau : 1\nr = r_max*tanh(u) : hertz\nI_dend : 1 (port)", parameters={"tau": "10*ms", "r_max": "100*Hz"})  # fmt: skip
    with refused(
        "divisive_normalisation: the rate 'r' of the cell 'rates' has the unit hertz; wanted 1, the unit of the normalised rate. Divide it "
        "by a parameter: 'r = (r_max*tanh(u))/r_max : 1' with r_max in hertz."
    ):
        divisive_normalisation(rates)
    with refused("divisive_normalisation: semisaturation = '5*Hz' has the unit hertz; wanted 1."):
        divisive_normalisation(cell(), "5*Hz")  # type: ignore[arg-type]
    with refused("semisaturation"):
        divisive_normalisation(cell(), 5 * Hz)  # type: ignore[arg-type]
    assert circuit(divisive_normalisation(cell(), 2.0)).plan.populations["pyr"].parameters["semisaturation"] == 2.0


def test_a_ready_made_cell_with_weights_in_picoampere():
    described = Circuit(
        "spikes", [Population("inp", 1, SOURCE), Population("lif", 1, lif()),
         Projection("W", "inp", "lif.I", Constant("300*pA"))],
        Protocol((Phase("on", "20*ms"),), {"inp.r": "image"}),
    )  # fmt: skip
    assert described.initial_weights()["W"].item() == float(300 * pA)


# -------------------------------------------------------------------------------------------------- limits of weights


def limited(bounds: Any) -> Circuit:
    """W grows at eta r_post = 1 nA/s for each unit of input, which is 1."""
    grows = PlasticityRule("grow", "dw/dt = eta*r_pre", {"eta": "1*nA/second"}, bounds=bounds)
    of = assemble("membrane", MEMBRANE, ("I",), parameters=CONSTANTS)
    return Circuit(
        "limited", [Population("inp", 2, SOURCE), Population("pyr", 3, of),
         Projection("W", "inp", "pyr.I", Constant("20*pA"), grows)],
        Protocol((Phase("free", "5*ms", plastic=("grow",)),), {"inp.r": "image"}),
    )  # fmt: skip


@pytest.mark.parametrize("bounds", [("0*pA", "22*pA"), (0, 22 * pA), (None, 22e-12), ["-1*nA", "22*pA"]])
@pytest.mark.parametrize("level", ["brian2:equations", "brian2:dense", "torch:trajectory"])
def test_limits_of_weights_in_any_form(bounds, level):
    """20 pA + 1 nA/s * 5 ms = 25 pA without a limit."""
    after = simulate(limited(bounds), np.ones((1, 2)), level=level, progress=False).weights["W"]
    np.testing.assert_allclose(after, 22e-12, rtol=1e-12)
    free = simulate(limited((None, None)), np.ones((1, 2)), level=level, progress=False).weights["W"]
    np.testing.assert_allclose(free, 25e-12, rtol=1e-9)


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        (("90*pA", "0*pA"), "bounds = ('90*pA', '0*pA'); wanted the lower limit first"),
        ((1.0, 0.0), "wanted the lower limit first"),
        ((0, "90*mV"), "a limit in bounds = '90*mV' has the unit volt; wanted amp"),
        ((0,), "bounds = (0,); wanted 2 numbers, texts with units such as '20*pA' or Brian2 quantities, or none"),
        (5e-12, "bounds = 5e-12; wanted 2 numbers"),
        ((0, float("nan")), "It must be finite"),
        ((0, [1.0, 2.0]), "wanted 2 numbers"),
        ((0, "90*pS"), "'pS' in the value '90*pS' is no unit. Did you mean 'psiemens'?"),
    ],
)
def test_limits_of_weights_that_are_none(bounds, message):
    with refused(message):
        _ = limited(bounds).plan


def test_uniform_weights_the_wrong_way_round():
    with refused("wanted the lower limit first"):
        _ = membrane(Uniform("20*pA", "10*pA")).plan


@pytest.mark.parametrize(("eta", "cure"), [(1.0, "Give its rate a unit of 1/time"), ("20*mV", "the weight's unit per second")])  # fmt: skip
def test_the_cure_for_a_rules_unit_fits_the_fault(eta, cure):
    rule = PlasticityRule("grow", "dw/dt = eta*w", {"eta": eta})
    with refused(cure):
        _ = circuit(rule=rule, plastic=("grow",)).plan


def test_a_membrane_without_a_capacitance():
    of = assemble("membrane", MEMBRANE, ("I",), parameters={**CONSTANTS, "C": "0*pF"})
    with refused("divides by zero: C = 0. Give another value"):
        _ = Circuit(
            "none", [Population("inp", 2, SOURCE), Population("pyr", 3, of),
             Projection("W", "inp", "pyr.I", Constant(0))], Protocol((Phase("free", "5*ms"),), {"inp.r": "image"}),
        ).plan  # fmt: skip
    resting = assemble("membrane", MEMBRANE, ("I",), parameters={**CONSTANTS, "E_L": "1*mV"}, initial={"V": "0*mV"})
    _ = Circuit(
        "fine", [Population("inp", 2, SOURCE), Population("pyr", 3, resting),
         Projection("W", "inp", "pyr.I", Constant(0))], Protocol((Phase("free", "5*ms"),), {"inp.r": "image"}),
    ).plan  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- stimuli


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        ("stim.npz", None, "images have the type <U8; wanted an array of numbers"),
        (np.ones((1, 2), dtype=complex), None, "images have the type complex128"),
        (np.ones((2, 2)), [0, 1, 2], "labels have shape (3,); wanted one for each of the 2 images"),
        (np.ones((2, 3)), None, "stimuli of your own come from --stimuli FILE.npz"),
    ],
)
def test_stimuli_that_are_none(images, labels, message):
    with refused(message, NeurosimError):
        simulate(circuit(), images, labels, progress=False)


@pytest.mark.parametrize("level", ["brian2:equations", "brian2:dense", "torch:trajectory"])
def test_a_step_that_does_not_divide_a_phase_is_found_before_anything_is_built(level, caplog):
    with refused("is no whole number of steps of dt = 0.3 ms", NeurosimError):
        simulate(circuit(), np.ones((1, 2)), level=level, dt="0.3*ms", progress=False)
    gc.collect()
    assert not caplog.records  # Brian2 warns of objects that were made and never run


# ---------------------------------------------------------------------------------------------------- parts of traces


def test_parts_of_traces_by_texts_and_by_trials(tmp_path):
    run = simulate(circuit(), np.ones((6, 2)), record=["pyr.u", "W"], progress=False)
    assert run.traces is not None
    a, b = run.traces.select(time=("5*ms", 10e-3)), run.traces.select(time=(5e-3, 0.01))
    np.testing.assert_array_equal(a.time, b.time)
    assert 0 < len(a.time) < len(run.traces.time) and len(a.weights["W"]) == 7  # six trials and the end
    with refused("recorded are 6 trials, 0 to 5", NeurosimError):
        run.traces.select(trials=[99])
    assert len(run.traces.select(["W"], trials=[6]).weights["W"]) == 1  # the end of the run
    for time in ("300*ms", (0.1,), (None, 1), ("a", "b"), ("3*mV", 1)):
        with pytest.raises(NeurosimError, match="wanted"):
            run.traces.select(time=time)


def test_a_recording_replaces_recordings_only(tmp_path):
    notes = tmp_path / "notes.h5"
    notes.write_text("my notes")
    with refused("it is there and is no recording", NeurosimError):
        simulate(circuit(), np.ones((1, 2)), record=Recorder(["pyr.u"], path=notes), progress=False)
    assert notes.read_text() == "my notes"
    for _ in range(2):
        simulate(circuit(), np.ones((1, 2)), record=Recorder(["pyr.u"], path=tmp_path / "r.h5"), progress=False)


# ------------------------------------------------------------------------------------------------------ units and pools


@pytest.mark.parametrize("unit", ["amp/metre**2", "volt**2", "siemens/metre**2", "mole/metre**3", "second**-2"])
@pytest.mark.parametrize("level", ["brian2:equations", "brian2:dense", "torch:trajectory"])
def test_states_in_powers_of_units(unit, level):
    """dx/dt = (k - x)/tau from 0: Euler gives k (1 - (1 - dt/tau)^steps)."""
    area = Cell(
        "area", f"dx/dt = (k - x)/tau : {unit}\ny = 2*x : {unit}\nz = x*x*s : {unit}", rate="y",
        parameters={"tau": "10*ms", "k": f"2*{unit}", "s": f"3/({unit})"},
    )  # fmt: skip
    of = Circuit("area", [Population("a", 2, area)], Protocol((Phase("free", "2*ms"),), dt="0.1*ms"))
    traces = simulate(of, level=level, record=["a.x", "a.y", "a.z"], progress=False).traces
    assert traces is not None
    exact = 2 * (1 - (1 - 0.01) ** np.arange(20))
    np.testing.assert_allclose(traces["a.x"][:, 0, 0], exact, rtol=1e-9)
    np.testing.assert_allclose(traces["a.z"][:, 0, 1], 3 * exact**2, rtol=1e-9)
    read = eval(traces.units["a.x"].replace("s**", "second**"), {}, dict(brian2.units.allunits.__dict__))
    assert brian2.get_dimensions(read) is brian2.get_dimensions(eval(unit, {}, dict(brian2.units.allunits.__dict__)))


@pytest.mark.parametrize("level", ["brian2:equations", "brian2:dense", "torch:trajectory", "torch:steady"])
@pytest.mark.parametrize(
    ("pools", "rest"),
    [((pool("S", "I_inh"),), 1.0), ((pool("S", "k"),), -0.5), ((pool("T", "k"), pool("S", "T/3")), -0.5)],
)
def test_pools_of_what_is_the_same_in_all_cells(level, pools, rest):
    """Three cells: sum_j 0.5 = 1.5, and the sum over the cells of a third of a sum is that sum; a port that nothing feeds is 0."""
    of = assemble(
        "pv", "du/dt = (1 - u - S)/tau : 1\nI_inh : 1", optional_ports=("I_inh",), rate="u", pools=pools,
        parameters={"tau": "10*ms", "k": 0.5},
    )  # fmt: skip
    made = Circuit("pv", [Population("a", 3, of)], Protocol((Phase("free", "300*ms"),)))
    got = simulate(made, level=level, dt="1*ms", progress=False).ends["free"]["a.u"]
    np.testing.assert_allclose(got, rest, atol=1e-6)
