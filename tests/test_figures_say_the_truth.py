"""What a figure says is so: signs of arrows in the network's diagram, and bins of rates."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import matplotlib.colors
import numpy as np
import pytest
from brian2 import mV
from circuits import cell, circuit, overlap, phase, rule, run, wire

from neurosim import (
    SOURCE,
    Constant,
    Glorot,
    Orthogonal,
    RandomSign,
    Recorder,
    Uniform,
    plot,
)
from neurosim.errors import NeurosimError
from neurosim.parts import conductance_synapse, lif
from neurosim.plot.diagram import diagram
from neurosim.plot.fi import read_response
from neurosim.plot.raster import binned_rate
from neurosim.plot.window import recorded_spans
from neurosim.traces import PhaseSpan, Spikes, Traces

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
    parts = {"overlaps": (overlap("X", "v"),)}
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


# ------------------------------------------------------------------------------------ bins of rates


def regular(*spans, every=0.01, first=0.005, cells=2, rows=None, step=1e-3):
    """Cells that spike every 10 ms; spans (trial, start, stop) in s are what was recorded."""
    phases = [PhaseSpan(f"p{k}", *span) for k, span in enumerate(spans)]
    end = max(stop for _, _, stop in spans)
    times = np.arange(first, end, every)
    inside = [any(a <= t < b for _, a, b in spans) for t in times]
    times = np.repeat(times[inside], cells)
    trials = [next(trial for trial, a, b in spans if a <= t < b) for t in times]
    numbers = np.tile(np.arange(cells), len(times) // cells)
    spikes = {"c": Spikes(times, np.array(trials, dtype=int), numbers)}
    if rows is None:
        count = np.arange(round(end / step) + 1) * step
        rows = np.array([t for t in count if any(a - 1e-9 <= t < b - 1e-9 for _, a, b in spans)])
    values = {"c.V": np.zeros((len(rows), 1, cells))}
    return Traces(np.asarray(rows), values, {"c.V": "volt"}, phases, {"model": "m"}, spikes=spikes)


def drawn(figure):
    """``(left and right edges in ms, rates)`` of the bins that are drawn."""
    (stairs,) = [patch for patch in figure.axes[0].patches if hasattr(patch, "get_data")]
    data = stairs.get_data()
    kept = np.isfinite(data.values)
    return np.transpose([data.edges[:-1], data.edges[1:]])[kept], data.values[kept]


@pytest.mark.parametrize("stub", [1e-4, 1e-3, 3e-3, 4.9e-3])
def test_a_stub_at_the_end_is_no_bin(stub):
    """Spikes every 10 ms, one of them in the stub: 100 Hz in all; in bins of 5 ms 0 and 200 Hz."""
    figure = plot.rates_figure(regular((0, 0.0, 0.1 + stub), first=0.0), bin=5e-3)
    bins, rates = drawn(figure)
    np.testing.assert_allclose(bins, np.arange(20)[:, None] * 5 + [0, 5])
    np.testing.assert_allclose(rates, np.tile([200, 0], 10))
    assert figure.get_suptitle() == f"m ({stub * 1e3:.4g} ms at the end fill no bin)"
    assert figure.axes[0].get_xlim() == pytest.approx((0, 100 + stub * 1e3))
    assert figure.axes[0].get_ylabel() == "firing rate (Hz)\nin bins of 5 ms"


@pytest.mark.parametrize(
    ("seconds", "width", "count"),
    [
        (0.1, 5e-3, 20), (0.3, 0.1, 3), (0.7, 0.1, 7), (1.1, 0.1, 11), (0.6, 0.2, 3),
        (0.15, 0.05, 3), (2.9, 1e-2, 290), (0.0500000000001, 5e-3, 10),
        (0.0499999999999, 5e-3, 10), (0.054, 5e-3, 10), (0.056, 5e-3, 11),
    ],
)  # fmt: skip
def test_round_off_makes_no_stub_and_costs_no_bin(seconds, width, count):
    for start in (0.0, 0.1, 1000.0):
        traces = regular((0, start, start + seconds))
        edges, rates = binned_rate(traces, "c", (start, start + seconds), width)
        assert len(rates) == count
        np.testing.assert_allclose(np.diff(edges), width)


def test_bins_begin_anew_where_time_was_left_out():
    """Stretches of 23, 18 and 4 ms in bins of 5 ms: 4, 3 and none, and 3 + 3 + 4 ms are left."""
    traces = regular((0, 0.0, 0.023), (0, 0.0471, 0.0651), (0, 0.08, 0.084), first=0.0)
    figure = plot.rates_figure(traces, bin=5e-3)
    bins, rates = drawn(figure)
    starts = [0, 5, 10, 15, 47.1, 52.1, 57.1]
    np.testing.assert_allclose(bins, np.add.outer(starts, [0, 5]))
    spikes = [any(low <= t < low + 5 for t in (0, 10, 50, 60)) for low in starts]
    np.testing.assert_allclose(rates, np.where(spikes, 200, 0))
    assert figure.get_suptitle() == "m (10 ms in 3 places fill no bin)"


def test_phases_and_trials_that_touch_are_one_stretch():
    """7 ms of one phase and 8 ms of the next, and again in a second trial: 30 ms make 6 bins."""
    spans = (0, 0.0, 0.007), (0, 0.007, 0.015), (1, 0.015, 0.022), (1, 0.022, 0.03)
    traces = regular(*spans, first=0.001)
    bins, rates = drawn(plot.rates_figure(traces, bin=5e-3))
    np.testing.assert_allclose(bins, np.arange(6)[:, None] * 5 + [0, 5])
    np.testing.assert_allclose(rates, [200, 0] * 3)


def test_bins_wider_than_what_was_recorded():
    short = regular((0, 0.0, 0.002), first=0.001)
    figure = plot.rates_figure(short)  # the default is cut to the recording, and the axis says so
    np.testing.assert_allclose(drawn(figure)[0], [(0, 2)])
    np.testing.assert_allclose(drawn(figure)[1], [500])
    assert figure.axes[0].get_ylabel().endswith("in bins of 2 ms")
    message = r"bin = 0\.003 is longer than the 0\.002 s that are drawn"
    with pytest.raises(NeurosimError, match=message):
        plot.rates_figure(short, bin=3e-3)
    apart = regular((0, 0.0, 0.004), (0, 0.01, 0.016))
    message = r"bin = 0\.01 is longer than the 0\.006 s of the longest stretch that was recorded"
    with pytest.raises(NeurosimError, match=message):
        plot.rates_figure(apart, bin=0.01)
    np.testing.assert_allclose(drawn(plot.rates_figure(apart))[0], [(10, 15)])


def test_no_rate_is_above_that_of_a_spike_in_each_bin():
    """A cell that spikes once in each bin at most has at most one spike per bin's width."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        spans, at = [], 0.0
        for _ in range(rng.integers(1, 4)):
            at += rng.choice([0.0, rng.uniform(0.0, 0.02)])
            spans.append((0, at, at + rng.uniform(0.006, 0.03)))
            at = spans[-1][2]
        traces = regular(*spans, every=5e-3, first=rng.uniform(0.0, 5e-3))
        edges, rates = binned_rate(traces, "c", (spans[0][1], at), 4e-3)
        kept = np.isfinite(rates)
        np.testing.assert_allclose(np.diff(edges)[kept], 4e-3)
        assert np.nanmax(rates) <= 250 * (1 + 1e-9)
        inside = np.zeros(kept.sum())
        for k, low in enumerate(edges[:-1][kept]):
            moments = low + 4e-3 * np.linspace(0.001, 0.999, 50)
            assert all(any(a <= t < b for _, a, b in spans) for t in moments)
            times = traces.spikes["c"].time
            inside[k] = ((times >= low - 1e-9) & (times < low + 4e-3 - 1e-9)).sum()
        np.testing.assert_allclose(rates[kept], inside / (2 * 4e-3))


def test_a_recording_that_was_cut_short_ends_with_its_rows():
    """Its writer was killed 42 ms into a phase of 100 ms: what follows is no rate of 0 Hz."""
    traces = regular((0, 0.0, 0.1), rows=np.arange(42) * 1e-3)
    kept = traces.spikes["c"].time < 0.042
    traces.spikes["c"] = Spikes(*(column[kept] for column in vars(traces.spikes["c"]).values()))
    (span,) = recorded_spans(traces)
    assert (span.start, span.stop) == (0.0, pytest.approx(0.042))
    figure = plot.rates_figure(traces, bin=0.01)
    np.testing.assert_allclose(drawn(figure)[1], 100)
    assert figure.axes[0].get_xlim() == pytest.approx((0, 42))
    assert "2 ms at the end fill no bin" in figure.get_suptitle()


@pytest.mark.parametrize("stride", [1, 7, 400, 1000])
def test_a_whole_recording_is_not_cut(stride):
    """Rows every `stride` steps of 0.1 ms, in the phases that are recorded: all are there."""
    c = cell("du/dt = (I - u)/tau : 1\nI : 1", ports=(), optional=("I",), rate="u", tau="10*ms")
    phases = [phase("a", "13*ms"), phase("b", "4*ms"), phase("c", "30*ms")]
    net = circuit(
        {"inp": (1, SOURCE), "p": (1, c)},
        [wire("W", "inp", "p.I", [[1.0]])],
        phases,
        clamps={"inp.r": "image"},
        dt="0.1*ms",
    )
    recorder = Recorder(("p.u",), phases=("a", "c"), stride=stride)
    traces = run(net, "torch:trajectory", np.ones((4, 1)), record=recorder).traces
    assert recorded_spans(traces) == traces.phases and len(traces.phases) == 8


def test_a_trial_that_was_cut_short_has_no_point_in_an_fi_curve():
    """Three trials of 100 ms and one of 0.1 ms with a spike, which would have 10,000 Hz."""
    spans = [(k, 0.1 * k, 0.1 * (k + 1)) for k in range(3)] + [(3, 0.3, 0.3001)]
    traces = regular(*spans, first=0.0)
    traces.values["c.I"], traces.units["c.I"] = np.full(traces["c.V"].shape, 1e-9), "amp"
    found = read_response(traces, "c.I", "c")
    np.testing.assert_allclose(found.response, np.full(6, 100.0))
    title = plot.fi_figure(traces, "c.I", "c").get_suptitle()
    assert "6 points, mean over 100 ms each, without 1 trial cut short" in title


def test_the_bins_of_a_run():
    """A cell with a steady current: its bins hold the counts of its spikes."""
    lines = [LEAK.format("I_tonic"), GATE]
    c = cell("\n".join(lines), rate="s", parts=SPIKES, I_tonic="400*pA", **MEMBRANE)
    net = circuit({"c": (1, c)}, phases=[phase("only", "50.1*ms")], dt="0.1*ms")
    traces = run(net, "torch:trajectory", record=["c.V"]).traces
    edges, rates = binned_rate(traces, "c", (0.0, 0.0501), 5e-3)
    times = np.asarray(traces.spikes["c"].time)
    lows = 5e-3 * np.arange(10)
    counts = [((times > low - 1e-6) & (times < low + 5e-3 - 1e-6)).sum() for low in lows]
    np.testing.assert_allclose(edges, 5e-3 * np.arange(11))
    np.testing.assert_allclose(rates, np.array(counts) / 5e-3)
