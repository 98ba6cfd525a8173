"""What a figure says is so: signs of arrows in the network's diagram, and bins of rates."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import matplotlib.colors
import numpy as np
import pytest
from brian2 import mV
from circuits import cell, circuit, phase, rule, run, wire

from neurosim import Constant, Glorot, Orthogonal, Overlap, RandomSign, Uniform, plot
from neurosim.parts import conductance_synapse, lif
from neurosim.plot.diagram import diagram

# --------------------------------------------------------------------------------- signs of arrows

MEMBRANE = {
    "g_L": "10*nS", "E_L": "-70*mV", "C": "100*pF", "V_T": "-50*mV", "V_r": "-60*mV", "tau": "10*ms"
}  # fmt: skip
SPIKES = {"threshold": "V > V_T", "reset": "V = V_r", "initial": {"V": "-70*mV"}}
LEAK = "dV/dt = (g_L*(E_L - V) + {})/C : volt"
#: The gating variable of a synapse in the cell that sends it.
GATE = "ds/dt = -s/tau + spike_train : 1"

#: How what arrives at port J opens a conductance to E: equations beside the gate.
OPENED = {
    "at once": [LEAK.format("g*J*(E - V)"), "J : 1"],
    "by a subexpression": [
        LEAK.format("current"), "current = open*(E - V) : amp", "open = g*J : siemens", "J : 1",
    ],
    "by a gate": [LEAK.format("g*x*(E - V)"), "dx/dt = -x/tau + J : 1", "J : Hz"],
    "by a gate that stands first": [
        "dx/dt = -x/tau + J : siemens", LEAK.format("x*(E - V)"), "J : siemens/second",
    ],
    "by a power": [LEAK.format("g*x**4/(x**4 + K)*(E - V)"), "dx/dt = -x/tau + J : 1", "J : Hz"],
    "by two gates": [
        LEAK.format("g*x*(E - V)"), "dy/dt = -y/tau + J : 1",
        "dx/dt = (y*(1 - x) - x)/tau : 1", "J : Hz",
    ],
    "by a block of voltage": [LEAK.format("g*J/(1 + exp(-V/D))*(E - V)"), "J : 1"],
}  # fmt: skip


def sender():
    """A cell that a current makes spike; what it sends is the gate."""
    return cell(
        "\n".join([LEAK.format("I_tonic"), GATE]),
        rate="s",
        parts=SPIKES,
        I_tonic="400*pA",
        **MEMBRANE,
    )


def synapse(
    lines, reversal="-80*mV", rate="s", weights=None, *, gate=GATE, parts=None, more=(), **what
):  # fmt: skip
    """A cell whose port J gets the gate of another one by projection W; `more` projections."""
    others = [projection.port for projection in more]
    text = "\n".join([*lines, gate])
    parameters = {**MEMBRANE, "g": "5*nS", "E": "-80*mV", **what}
    target = cell(
        text,
        ports=(),
        optional=("J", *others),
        rate=rate,
        parts={**SPIKES, **(parts or {})},
        **parameters,
    )
    weights = np.full((2, 2), 0.5) if weights is None else weights
    populations = {"a": (2, sender()), "b": (2, target, {"E": reversal})}
    return circuit(populations, [wire("W", "a.s", "b.J", weights), *more], [phase("only", "40*ms")])


def effects(net):
    return {name: arrow.effect for name, arrow in diagram(net).arrows.items()}


@pytest.mark.parametrize("rate", ["s", "spike_train", "V"])
@pytest.mark.parametrize("opened", OPENED)
@pytest.mark.parametrize("reversal", [-80, -60, 0])
def test_a_conductance_has_the_sign_of_its_reversal_above_rest(opened, reversal, rate):
    """With g > 0 the current g (E - V) has the sign of E - V, and V rests at E_L = -70 mV."""
    net = synapse(OPENED[opened], f"{reversal}*mV", rate, K=0.1, D="20*mV")
    assert effects(net) == {"W": np.sign(reversal + 70)}


@pytest.mark.parametrize("opened", OPENED)
@pytest.mark.parametrize("reversal", [-80, -60])
def test_the_sign_is_that_of_a_run(opened, reversal):
    """The potential of the cell, against that of a cell whose weight is 0, which stays at rest."""
    unit = OPENED[opened][-1].partition(": ")[2]
    weight = {"1": "{}", "Hz": "{}*100*Hz", "siemens/second": "{}*500*nS/second"}[unit]
    nets = [
        synapse(
            OPENED[opened],
            f"{reversal}*mV",
            "s",
            Constant(weight.format(k) if unit != "1" else k),
            K=0.1,
            D="20*mV",
        )
        for k in (1.0, 0.0)
    ]
    open_, shut = (run(n, "torch:trajectory", record=["b.V"]).traces["b.V"][-1, 0] for n in nets)
    np.testing.assert_allclose(shut, -0.07)
    np.testing.assert_array_equal(np.sign(open_ - shut), effects(nets[0])["W"])


def test_a_library_synapse_of_a_cell_that_sends_its_gate():
    for kind, sign in (("AMPA", 1), ("GABA", -1)):
        target = conductance_synapse(lif(), "syn", "I", "V", kind)
        gate = "ds/dt = -s/tau_syn + spike_train : 1"
        target = replace(target, equations=f"{target.equations}\n{gate}", rate="s")
        weights = Constant("50*nS/second")
        net = circuit({"a": (2, target)}, [wire("W", "a", "a.S_syn", weights)])
        assert effects(net) == {"W": sign}


def test_a_gate_that_opens_in_the_reset():
    parts = {"reset": "V = V_r; s += 1"}
    for reversal, sign in (("-80*mV", -1), ("0*mV", 1)):
        net = synapse(OPENED["at once"], reversal, gate="ds/dt = -s/tau : 1", parts=parts)
        assert effects(net) == {"W": sign}


def test_a_shunt_lowers_what_something_else_has_raised():
    """g (E_L - V) is 0 at rest, and below 0 wherever the potential is above it."""
    assert effects(synapse(OPENED["at once"], "-70*mV")) == {"W": -1}


def test_a_cell_that_starts_elsewhere_than_it_rests():
    """Without an initial value V starts at 0 V, from which the leak takes it to -70 mV."""
    for reversal, sign in (
        ("-80*mV", -1),
        ("0*mV", 1),
        ("-60*mV", None),
    ):  # -60 mV lies between the two
        assert effects(synapse(OPENED["at once"], reversal, parts={"initial": {}})) == {"W": sign}


def test_what_another_port_gets_decides():
    """J K (E - V) grows or falls with J as K is above or below 0."""
    lines = [LEAK.format("g*J*{}*(E - V)"), "J : 1", "K : 1"]
    gated = [lines[0].format("K"), *lines[1:]]
    other = wire("V", "a.s", "b.K", np.ones((2, 2)))
    assert effects(synapse(gated, more=[other])) == {"W": None, "V": None}
    ungated = [lines[0].format("(1 + K)"), *lines[1:]]
    assert effects(synapse(ungated, more=[other])) == {"W": -1, "V": None}


def test_cells_that_differ():
    weights = Constant("1*Hz")
    for reversals, sign in (([-80, 0] * mV, None), ([-80, -90] * mV, -1), ([0, -60] * mV, 1)):
        assert effects(synapse(OPENED["by a gate"], reversals, weights=weights)) == {"W": sign}
    many = cell("du/dt = (-u + k*J)/tau : 1\nJ : 1", ports=("J",), rate="u", k=1.0, tau="10*ms")
    for last, sign in ((0.1, 1), (-0.1, None)):
        k = np.linspace(1.0, 2.0, 400)
        k[-1] = last  # one of 400
        net = circuit(
            {"a": (2, sender()), "b": (400, many, {"k": k})},
            [wire("W", "a", "b.J", np.ones((2, 400)))],
        )
        assert effects(net) == {"W": sign}


def test_a_sign_that_changes_as_the_cell_settles():
    """z goes from 0 to 1, with which (z - 1/2) changes its sign and (z + 1/2) does not."""
    for shift, sign in (("-", None), ("+", -1)):
        lines = [LEAK.format(f"g*J*(z {shift} h)*E"), "dz/dt = (1 - z)/tau : 1", "J : 1"]
        assert effects(synapse(lines, h=0.5)) == {"W": sign}  # E = -80 mV


def test_a_square_has_one_sign_for_weights_of_one_sign():
    """E J^2 with E < 0 lowers the potential with J of either sign: its slope in J has none."""
    lines = [LEAK.format("g*J**2*E"), "J : 1"]
    for weights, sign in (
        (Constant(1.0), -1),
        (Constant(-1.0), -1),
        (Uniform(-1.0, 1.0), None),
        (Glorot(), None),
    ):
        assert effects(synapse(lines, weights=weights)) == {"W": sign}


def test_a_shared_value_of_both_signs():
    target = cell(
        "du/dt = (-u + beta*J)/tau : 1\nbeta : 1 (shared)\nJ : 1",
        ports=("J",),
        rate="u",
        tau="10*ms",
    )
    for values, sign in (
        ((0.0, 2.0), 1),
        ((0.0, -2.0), -1),
        ((-1.0, 2.0), None),
        ((0.0, RandomSign(2.0)), None),
        ((0.0, 0.0), 0),
    ):
        phases = [phase(f"p{k}", beta=value) for k, value in enumerate(values)]
        wires = [wire("W", "a", "b.J", [[1.0]])]
        net = circuit({"a": (1, sender()), "b": (1, target)}, wires, phases)
        assert effects(net) == {"W": sign}


def test_what_samples_have_in_common_raises_and_lowers():
    text = "du/dt = (-u - X)/tau : 1\ndv/dt = (-v + J)/tau : 1\nJ : 1"
    parts = {"overlaps": (Overlap("X", "v"),)}
    target = cell(text, ports=("J",), rate="u", parts=parts, tau="10*ms")
    net = circuit({"a": (1, sender()), "b": (1, target)}, [wire("W", "a", "b.J", [[1.0]])])
    assert effects(net) == {"W": None}


def test_ports_that_nothing_but_a_rule_reads_move_nothing():
    lines = [LEAK.format("g*(E_L - V)"), "seen = 2*J : 1", "J : 1"]
    assert effects(synapse(lines)) == {"W": 0}
    for rate in ("s", "V"):  # times a parameter that is 0
        assert effects(synapse(OPENED["at once"], rate=rate, g="0*nS")) == {"W": 0}


@pytest.mark.parametrize(
    ("projection", "sign"),
    [
        ({"weights": Constant(1.0)}, 1),
        ({"weights": Constant(-1.0)}, -1),
        ({"weights": [[-1.0, -2.0], [0.0, -0.5]]}, -1),
        ({"weights": [-1.0, -2.0], "one_to_one": True}, -1),
        ({"one_to_one": True}, 1),
        ({"tied": "other", "factor": -1.0}, -1),
        ({"tied": "other", "factor": -1.0, "transpose": True}, -1),
        ({"weights": Constant(0.0), "learns": rule("u_post")}, 1),
        ({"weights": Constant(0.0), "learns": rule("u_post", bounds=(0.0, 1.0))}, 1),
        ({"weights": Constant(0.0), "learns": rule("u_post", bounds=(-1.0, 0.0))}, -1),
        ({"weights": Constant(-0.5), "learns": rule("u_post")}, -1),
        ({"weights": SimpleNamespace(draw=lambda rng, *shape: -rng.uniform(0.0, 1.0, shape))}, -1),
    ],
)
def test_weights_turn_the_sign_of_their_port(projection, sign):
    """At a port that opens a conductance, which lowers the potential, it is the other way round."""
    lines = [LEAK.format("g*(J*(E - V) + K*E_unit)"), "du/dt = -u/tau : Hz", "J : 1", "K : 1"]
    at = {"J": -1, "K": 1}
    for port, own in at.items():
        other = wire("other", "a.s", f"b.{port}", np.full((2, 2), 0.5))
        more = [
            wire("P", "a.s", f"b.{port}", **projection),
            other,
            wire("also", "a.s", "b.K", np.ones((2, 2))),
        ]
        found = effects(synapse(lines, more=more, E_unit="1*mV"))
        assert (found["P"], found["other"]) == (sign * own, own)


def test_weights_of_few_cells_count_as_drawn_with_both_signs():
    """One weight is of one sign by chance; the diagram shows what is drawn from, not the draw."""
    for weights in (Glorot(), Orthogonal()):
        assert effects(synapse(OPENED["at once"], weights=weights))["W"] == -1  # as the port


def test_no_level_of_a_chain_of_inversions_is_lost():
    """Each state lowers the next one: n states make (-1)^n."""
    for n in range(1, 6):
        lines = [
            "du1/dt = (-u1 - J)/tau : 1",
            *(f"du{k}/dt = (-u{k} - u{k - 1})/tau : 1" for k in range(2, n + 1)),
        ]
        target = cell("\n".join([*lines, "J : 1"]), ports=("J",), rate=f"u{n}", tau="10*ms")
        net = circuit({"a": (1, sender()), "b": (1, target)}, [wire("W", "a", "b.J", [[1.0]])])
        assert effects(net) == {"W": (-1) ** n}


def test_a_cell_that_sends_nothing_shows_its_potential():
    """Its rate follows nothing: the conductance rises, the potential falls."""
    lines = [
        "dq/dt = -q/tau + J : siemens",
        "dV/dt = (g_L*(E_L - V) + q*(E - V))/C : volt",
        "r = 1 : 1",
        "J : siemens/second",
    ]
    parts = {"initial": {"V": "-70*mV"}}
    target = cell("\n".join(lines), ports=("J",), parts=parts, E="-80*mV", **MEMBRANE)
    wires = [wire("W", "a", "b.J", Constant("1*nS/second"))]
    net = circuit({"a": (1, sender()), "b": (1, target)}, wires)
    assert effects(net) == {"W": -1}


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_the_figure_draws_what_is_unknown_and_explains_it():
    other = wire("V", "a.s", "b.K", np.ones((2, 2)))
    gated = [LEAK.format("g*J*K*(E - V)"), "J : 1", "K : 1"]
    unknown = plot.network_figure(synapse(gated, more=[other]))
    inhibition = plot.network_figure(synapse(OPENED["at once"]))
    excitation = plot.network_figure(synapse(OPENED["at once"], "0*mV"))
    assert legend(unknown) == ["unknown: may add or subtract", "fixed"]
    assert legend(inhibition) == ["subtracts from it", "fixed"]
    assert legend(excitation) == ["adds to the potential", "fixed"]
    colours = []
    for figure in (unknown, inhibition, excitation):
        (line,) = [patch for patch in figure.axes[0].patches if patch.get_gid() == "W"]
        colours.append(matplotlib.colors.to_hex(line.get_edgecolor()).upper())
        figure.draw_without_rendering()
        box, page = figure.legends[0].get_window_extent(), figure.bbox
        assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0
    assert colours == [plot.PALETTE[name] for name in ("purple", "vermillion", "blue")]
