"""Noise, spikes, filtered rules, derivatives and `Like` starts: closed forms, plain NumPy loops, level against level."""

from __future__ import annotations

import gc
import logging
import re
import tracemalloc
from dataclasses import replace

import h5py
import numpy as np
import pytest
from circuits import assemble, derivative, pool
from oracles import bac_cell

from neurosim import (
    SOURCE,
    Cell,
    Circuit,
    Constant,
    Dense,
    Fragment,
    Given,
    Glorot,
    Like,
    OneToOne,
    Phase,
    PlasticityRule,
    Population,
    Projection,
    Protocol,
    Tied,
    Uniform,
    simulate,
)
from neurosim.backends import engine_class
from neurosim.backends.engine import Options
from neurosim.errors import CircuitError, NeurosimError, UnsupportedError
from neurosim.models import bac_firing
from neurosim.parts import bac_pyramidal, conductance_synapse, current_step, lif
from neurosim.traces import Recorder, Traces
from neurosim.traces.recording import Recording

LEVELS = ("brian2:equations", "brian2:dense", "torch:trajectory")
BATCHED = ("brian2:dense", "torch:trajectory")
every_level = pytest.mark.parametrize("level", LEVELS)


def run(circuit: Circuit, images=None, labels=None, level: str = "torch:trajectory", record=(), **kwargs):
    return simulate(circuit, images, labels, level=level, record=record, **{"progress": False, **kwargs})


GROW = Cell("grow", "dv/dt = (k - v)/tau : 1", rate="v", parameters={"tau": "4*ms", "k": 2.0})


def alone(cell: Cell, n: int = 1, duration: str = "5*ms", **protocol) -> Circuit:
    """One population without input."""
    return Circuit("alone", [Population("p", n, cell)], Protocol((Phase("f", duration),), **protocol))


def raises(make, *parts: str, error: type[Exception] = CircuitError) -> None:
    with pytest.raises(error) as caught:
        make()
    for part in parts:
        assert part in str(caught.value), (part, str(caught.value))


def assert_same(a, b, names, tolerance: float = 1e-12) -> None:
    for name in names:
        assert np.abs(a.traces[name] - b.traces[name]).max() <= tolerance, (name, a.level, b.level)
    assert a.weights.keys() == b.weights.keys()
    for name, value in a.weights.items():
        assert np.abs(b.weights[name] - value).max(initial=0) <= tolerance, (name, a.level, b.level)


# ================================================================== white noise

OU = Cell("ou", "dv/dt = -v/tau + s*xi : 1", rate="v", parameters={"tau": "10*ms", "s": "1*ms**-0.5"})
TWO_NOISES = Cell(
    "two",
    """
    dv/dt = (-v + I)/tau + s*xi_quick + 0.5*s*xi_slow : 1
    dz/dt = -z/tau + s*v*xi_fast + 0.3*s*xi_slow : 1
    r = tanh(v) : 1
    I : 1 (port)
    """,
    parameters={"tau": "5*ms", "s": "0.1*ms**-0.5"},
)
HEBB = PlasticityRule("hebb", "dw/dt = eta*(r_post - w)*r_pre", {"eta": "20*Hz"})
IMAGE = np.array([[1.0, 0.4], [0.2, 0.8]])


def noisy_circuit() -> Circuit:
    """Two noisy populations, a loop between them, learning on."""
    return Circuit(
        "noisy",
        [
            Population("inp", 2, SOURCE),
            Population("p", 3, TWO_NOISES),
            Population("q", 4, TWO_NOISES),
            Projection("W", "inp", "p.I", Glorot(), HEBB),
            Projection("V", "p", "q.I", Glorot(), HEBB),
            Projection("B", "q", "p.I", Glorot()),
        ],
        Protocol((Phase("a", "5*ms"), Phase("b", "8*ms", plastic=("hebb",))), {"inp.r": "image"}),
    )


def test_levels_meet_the_same_noise():
    names = ["p.v", "p.z", "q.v", "q.z"]
    results = [run(noisy_circuit(), IMAGE, level=level, record=names, seed=5) for level in LEVELS]
    for other in results[1:]:
        assert_same(results[0], other, names)
    start = noisy_circuit().initial_weights(5)
    assert np.abs(results[0].weights["V"] - start["V"]).max() > 1e-3
    assert np.std(results[0].traces["p.z"]) > 1e-2


@pytest.mark.parametrize("level", BATCHED)
def test_batches_meet_the_same_noise_and_samples_have_their_own(level):
    names = ["p.v", "q.v"]
    same = np.repeat(IMAGE[:1], 3, axis=0)
    a, b = (run(noisy_circuit(), same, level=x, record=names, batch_size=3) for x in (level, "torch:trajectory"))
    assert_same(a, b, names)
    v = a.traces["p.v"]
    for i, j in ((0, 1), (1, 2), (0, 2)):
        assert np.abs(v[:, i] - v[:, j]).max() > 1e-2


@every_level
def test_noise_follows_the_seed(level):
    weights = noisy_circuit().initial_weights(0)
    seeds = (1, 2) if level == "brian2:equations" else (1, 2, 1)
    first, other, *again = (
        run(noisy_circuit(), IMAGE[:1], level=level, record=["p.v"], seed=seed, weights=weights).traces["p.v"]
        for seed in seeds
    )
    assert np.abs(first - other).max() > 1e-2
    for same in again:
        np.testing.assert_array_equal(first, same)


def increments(circuit: Circuit, names, level: str = "torch:trajectory", dt: float = 0.1, **kwargs) -> list[np.ndarray]:
    """What the noise of an Ornstein-Uhlenbeck cell was in each step: standard normal numbers (steps, batch*cells)."""
    traces = run(circuit, level=level, record=names, dt=f"{dt}*ms", **kwargs).traces
    values = (traces[n].reshape(len(traces.time), -1) for n in names)
    return [(v[1:] - v[:-1] * (1 - dt / 10)) / np.sqrt(dt) for v in values]


def test_populations_cells_samples_and_steps_are_independent():
    populations = (Population("p", 6, OU), Population("q", 6, OU))
    circuit = Circuit("two", Fragment(populations), Protocol((Phase("f", "150*ms"),)))
    p, q = increments(circuit, ["p.v", "q.v"], batch_size=2)
    everything = np.concatenate([p, q], axis=1)  # 24 streams
    limit = 5 / np.sqrt(len(everything))
    correlation = np.corrcoef(everything.T)
    assert np.abs(correlation - np.eye(24)).max() < limit
    lagged = np.corrcoef(everything[1:].T, everything[:-1].T)[:24, 24:]
    assert np.abs(lagged).max() < limit
    assert everything.mean() == pytest.approx(0, abs=5 / np.sqrt(everything.size))
    assert everything.var() == pytest.approx(1, abs=5 * np.sqrt(2 / everything.size))


def test_names_of_noise_are_independent_streams_and_one_name_is_shared_by_states():
    cell = Cell(
        "c",
        "da/dt = -a/tau + s*xi_a : 1\ndb/dt = -b/tau + s*xi_a : 1\ndc/dt = -c/tau + s*xi_c : 1",
        rate="a",
        parameters=OU.parameters,
    )
    a, b, c = increments(alone(cell, 4, "250*ms"), ["p.a", "p.b", "p.c"])
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-9)
    assert abs(np.corrcoef(a.ravel(), c.ravel())[0, 1]) < 5 / np.sqrt(a.size)


@pytest.mark.parametrize("level", BATCHED)
def test_variance_of_the_discrete_ornstein_uhlenbeck_process(level):
    """v(t+dt) = a v + s sqrt(dt) N, a = 1 - dt/tau: variance s^2 dt (1 - a^(2k))/(1 - a^2) after k steps, autocorrelation a.

    dt = tau/2, where the variance of the process in continuous time, s^2 tau/2, is 25 % less.
    """
    dt, a = 5.0, 0.5
    circuit = alone(OU, 1500, "100*ms")
    v = run(circuit, level=level, record=["p.v"], dt="5*ms", batch_size=4).traces["p.v"].reshape(20, -1)
    n = v.shape[1]
    for k in (1, 2, 5, 19):
        expected = dt * (1 - a ** (2 * k)) / (1 - a**2)
        assert v[k].var() == pytest.approx(expected, rel=5 * np.sqrt(2 / n)), k
        assert abs(v[k].mean()) < 5 * np.sqrt(expected / n)
    assert np.corrcoef(v[18], v[19])[0, 1] == pytest.approx(a, abs=5 / np.sqrt(n))


@every_level
def test_two_presentations_go_on_with_the_stream(level):
    """Two trials in one call are the same as two calls of one trial: no number comes twice, none is left out."""
    circuit = noisy_circuit()
    names = ("p.v", "q.z")

    def engine():
        return engine_class(level)(circuit.plan, circuit.initial_weights(0), Options(dt=1e-4, seed=7, progress=False))

    at_once, in_parts = engine(), engine()
    one, two = (Recording(Recorder(names), circuit.plan, 1, 1e-4) for _ in range(2))
    whole = at_once.present({"image": IMAGE}, record=one)
    in_parts.present({"image": IMAGE[:1]}, record=two)
    second = in_parts.present({"image": IMAGE[1:]}, record=two)
    expected, found = one.traces(), two.traces()
    for name in names:
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-13)
    np.testing.assert_allclose(found.time, expected.time, rtol=0, atol=1e-15)
    assert found.phases == expected.phases and {span.trial for span in found.phases} == set(range(len(IMAGE)))
    first, last = (found.select(["q.z"], trials=[trial])["q.z"] for trial in (0, len(IMAGE) - 1))
    assert np.abs(first - last).max() > 1e-2
    for name, value in whole.weights.items():
        np.testing.assert_allclose(second.weights[name], value, rtol=0, atol=1e-13)


def test_noise_of_single_cells_may_differ():
    circuit = Circuit(
        "ou",
        [Population("p", 3, Cell("ou", "dv/dt = -v/tau + k*s*xi : 1", rate="v",
                                      parameters={**OU.parameters, "k": 1.0}), {"k": np.array([0.0, 1.0, 2.0])})],
        Protocol((Phase("f", "100*ms"),)),
    )  # fmt: skip
    (x,) = increments(circuit, ["p.v"])
    assert not x[:, 0].any()
    np.testing.assert_allclose(x.std(axis=0)[1:], [1, 2], rtol=5 / np.sqrt(2 * len(x)))


# ================================================================== spikes

ELECTRODE = Cell("electrode", "I : amp (input)", rate="I")
CURRENTS = np.array([[0.15, 0.25, 0.4, 0.9]]) * 1e-9  # A; the first stays below threshold
# the constants of `lif`, once more, in ms and mV
TAU, R, REST, V_T, V_RESET, REFRACTORY = 10.0, 0.1, -70.0, -50.0, -60.0, 2.0  # R in mV/pA


def lif_circuit(n: int = 4, duration: str = "100*ms", cell: Cell | None = None, **protocol) -> Circuit:
    return Circuit(
        "lif",
        [
            Population("el", n, ELECTRODE),
            Population("p", n, cell or lif()),
            Projection("I", "el", "p.I", connectivity=OneToOne()),
        ],
        Protocol((Phase("f", duration),), {"el.I": "image"}, **protocol),
    )


def lif_loop(current: float, dt: float, steps: int) -> tuple[np.ndarray, list[int]]:
    """Potential before each step, and steps at whose end the cell spikes. Current in pA."""
    v, last, trace, spikes = REST, -(10**9), [], []
    for step in range(steps):
        trace.append(v)
        awake = step - last >= round(REFRACTORY / dt)
        if awake:
            v += dt / TAU * (REST - v + R * current)
            if v > V_T:
                v, last = V_RESET, step
                spikes.append(step)
    return np.array(trace), spikes


@every_level
def test_lif_against_a_loop_and_the_exact_discrete_interval(level):
    """From reset the k-th active step ends at V* + (V_r - V*) (1 - dt/tau)^k; the interval is k + refractory steps - 1."""
    dt = 0.1
    result = run(lif_circuit(), CURRENTS, level=level, record=["p.V"])
    for cell, current in enumerate(CURRENTS[0] * 1e12):
        trace, steps = lif_loop(current, dt, 1000)
        np.testing.assert_allclose(result.traces["p.V"][:, 0, cell] * 1e3, trace, rtol=0, atol=1e-10)
        np.testing.assert_allclose(result.spikes["p"].of(cell), np.array(steps) * dt * 1e-3, rtol=0, atol=1e-12)
        star = REST + R * current
        if star <= V_T:
            assert not steps
            continue
        active = np.floor(np.log((star - V_T) / (star - V_RESET)) / np.log(1 - dt / TAU)) + 1
        interval = active + round(REFRACTORY / dt) - 1
        got = np.diff(result.spikes["p"].of(cell)) / (dt * 1e-3)
        assert len(got) >= 3
        np.testing.assert_allclose(got, interval, rtol=0, atol=1e-6)


def test_firing_rate_goes_to_the_curve_of_continuous_time():
    """1/f = t_ref + tau ln((V* - V_r)/(V* - V_T)); the interval on the grid is never more than two steps off."""
    current = CURRENTS[0, 1:] * 1e12
    star = REST + R * current
    exact = REFRACTORY + TAU * np.log((star - V_RESET) / (star - V_T))
    errors = []
    for dt in (0.2, 0.05, 0.0125):
        spikes = run(lif_circuit(3, "40*ms"), CURRENTS[:, 1:], dt=f"{dt}*ms").spikes["p"]
        intervals = np.array([np.diff(spikes.of(c))[0] * 1e3 for c in range(3)])
        errors.append(np.abs(intervals - exact).max())
        assert errors[-1] <= 2 * dt
    assert errors[2] < 0.25 * errors[0]


BAC_STATES = {
    "V_s": ("V_s", 1e3), "V_b": ("V_b", 1e3), "V_a": ("V_a", 1e3), "w_ad": ("w", 1e12), "m": ("m", 1), "k": ("k", 1),
}  # fmt: skip
BAC_NAMES = {"soma_step": "soma", "apical_weak": "weak EPSC", "both": "both", "apical_strong": "strong EPSC"}


def bac_against_oracle(level: str, onset: float, duration: float) -> None:
    record = [f"{cell}.{state}" for cell in BAC_NAMES for state in BAC_STATES]
    circuit = bac_firing.circuit(onset=f"{onset}*ms", duration=f"{duration}*ms")
    result = run(circuit, level=level, record=record, dt="0.05*ms", stride=4)
    start = bac_cell.leak_state() | {"m": 0.0, "k": 0.0}  # the part's gates start at 0
    count = {}
    for cell, theirs in BAC_NAMES.items():
        currents = bac_cell.protocol(theirs, onset, onset + 5)
        trial = bac_cell.simulate(duration, dt=0.05, box="closed", start=start, **currents)
        count[cell] = len(trial["spikes"][0])
        np.testing.assert_allclose(result.spikes[cell].time * 1e3, trial["spikes"][0], rtol=0, atol=1e-9, err_msg=cell)
        for ours, (name, scale) in BAC_STATES.items():
            got, expected = result.traces[f"{cell}.{ours}"][:, 0, 0] * scale, trial[name][:-1:4, 0]
            unit = max(1.0, np.abs(expected).max())
            np.testing.assert_allclose(got, expected, rtol=0, atol=1e-9 * unit, err_msg=f"{cell}.{ours}")
    assert count["soma_step"] == 1 and count["apical_weak"] == 0 and count["both"] >= 3 and count["apical_strong"] >= 3


@every_level
def test_bac_firing_against_the_oracle(level):
    bac_against_oracle(level, 5.0, 50.0)


@pytest.mark.slow
@every_level
def test_bac_firing_against_the_oracle_for_a_second(level):
    bac_against_oracle(level, 60.0, 1000.0)


FROZEN = Cell(
    "frozen",
    """
    dv/dt = (-v + drive)/tau : 1 (unless refractory)
    dfree/dt = (-free + drive)/tau : 1
    drive : 1 (input)
    """,
    rate="v",
    parameters={"tau": "5*ms", "theta": 1.0},
    threshold="v > theta",
    reset="""
        free *= 0.5
        free -= 0.02 + 0.08; v = 0.25*free
        free += v
        v /= 1 + 1
    """,
    refractory="1.5*ms",
)


@every_level
def test_reset_statements_refractory_states_and_lastspike(level):
    """A loop over FROZEN: resets run in their order, `free` moves on while `v` stands still, lastspike keeps the last time."""
    circuit = Circuit("frozen", [Population("p", 2, FROZEN)], Protocol((Phase("f", "30*ms"),), {"p.drive": "image"}))
    names = ["v", "free", "lastspike", "spike_train"]
    traces = run(circuit, np.array([[1.6, 3.0]]), level=level, record=[f"p.{n}" for n in names]).traces
    for cell, drive in enumerate((1.6, 3.0)):
        v = free = 0.0
        last, rows, count = -(10**9), [], 0
        for step in range(300):
            rows.append((v, free, last * 1e-4 if last >= 0 else -1e4, 1e4 if last == step - 1 else 0.0))
            awake = step - last >= 15
            v, free = v + awake * 0.02 * (drive - v), free + 0.02 * (drive - free)
            if awake and v > 1.0:
                last, count = step, count + 1
                free = free * 0.5
                free = free - (0.02 + 0.08)
                v = 0.25 * free
                free = free + v
                v = v / 2
        assert count >= 4
        got = np.stack([traces[f"p.{n}"][:, 0, cell] for n in names], axis=1)
        np.testing.assert_allclose(got, rows, rtol=1e-12, atol=1e-12)


@every_level
def test_threshold_of_single_cells_and_no_refractoriness(level):
    """Without refractoriness a cell may spike in every step; thresholds may differ from cell to cell."""
    cell = Cell(
        "c", "dv/dt = k : 1", rate="v", parameters={"k": "1/ms", "theta": 0.35},
        threshold="v > theta and v < 10", reset="v = 0",
    )  # fmt: skip
    circuit = Circuit(
        "c", [Population("p", 3, cell, {"theta": np.array([0.05, 0.35, 20.0])})], Protocol((Phase("f", "2*ms"),))
    )
    spikes = run(circuit, level=level).spikes["p"]
    assert np.rint(spikes.of(0) * 1e4).astype(int).tolist() == list(range(20))
    assert np.rint(spikes.of(1) * 1e4).astype(int).tolist() == [3, 7, 11, 15, 19]
    assert len(spikes.of(2)) == 0


def loop_circuit(duration: str = "45*ms") -> Circuit:
    """Two pyramidal cells with AMPA contacts onto a LIF cell, which inhibits both apical dendrites."""
    inhibited = conductance_synapse(bac_pyramidal(), "inh", "I_a", "V_a", "GABA")
    excited = conductance_synapse(lif(), "exc", "I", "V", "AMPA")
    return Circuit(
        "loop",
        [
            Population("el", 2, ELECTRODE),
            Population("pyr", 2, inhibited),
            Population("basket", 1, excited),
            Projection("in", "el", "pyr.I_s", connectivity=OneToOne()),
            Projection("E", "pyr", "basket.S_exc", Given(np.array([[6e-9], [9e-9]]))),
            Projection("I", "basket", "pyr.S_inh", Given(np.array([[4e-9, 7e-9]]))),
        ],
        Protocol((Phase("f", duration),), {"el.I": "image"}, dt="0.05*ms"),
    )


LOOP_STATES = ["pyr.V_s", "pyr.V_b", "pyr.V_a", "pyr.w_ad", "pyr.m", "pyr.k", "pyr.g_inh", "basket.V", "basket.g_exc"]
LOOP_IMAGE = np.array([[2.0e-9, 1.3e-9], [1.6e-9, 2.2e-9]])
STEPS = 900


@pytest.fixture(scope="module")
def loop_runs():
    """One sample after the other, on each level."""
    return {level: run(loop_circuit(), LOOP_IMAGE, level=level, record=LOOP_STATES, dt="0.05*ms") for level in LEVELS}


def test_levels_agree_on_spiking_cells_through_synapses(loop_runs):
    first = loop_runs[LEVELS[0]]
    assert len(first.spikes["pyr"].time) > 10 and len(first.spikes["basket"].time) > 3
    for level in LEVELS[1:]:
        other = loop_runs[level]
        for name in LOOP_STATES:
            scale = np.abs(first.traces[name]).max()
            assert np.abs(first.traces[name] - other.traces[name]).max() <= 1e-9 * scale, (name, level)
        for population in ("pyr", "basket"):
            for field in ("time", "sample", "cell"):
                a, b = getattr(first.spikes[population], field), getattr(other.spikes[population], field)
                np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


@every_level
def test_a_spike_opens_the_conductance_by_its_weight(loop_runs, level):
    """g(t) = sum_k w (1 - dt/tau)^(n - n_k - 2) over spikes at steps n_k <= n - 2: sent in the next step, there at its end."""
    result, decay = loop_runs[level], {"exc": 1 - 0.05 / 5, "inh": 1 - 0.05 / 10}
    weights = {"exc": np.array([[6e-9], [9e-9]]), "inh": np.array([[4e-9, 7e-9]])}
    for source, target, name in (("pyr", "basket", "exc"), ("basket", "pyr", "inh")):
        got = result.traces[f"{target}.g_{name}"][:, 0]
        for sample in range(2):
            expected, steps = np.zeros((STEPS, got.shape[1])), np.arange(STEPS)
            for pre in range(len(weights[name])):
                for time in result.spikes[source].of(pre, sample):
                    since = steps - (round(time / 5e-5) - STEPS * sample) - 2
                    expected += (
                        np.where(since >= 0, decay[name] ** np.maximum(since, 0), 0)[:, None] * weights[name][pre]
                    )
            np.testing.assert_allclose(got[STEPS * sample : STEPS * (sample + 1)], expected, rtol=1e-10, atol=1e-20)
            assert expected.max() > 1e-9


@every_level
def test_conductances_reach_the_potential(loop_runs, level):
    """C dV/dt of the LIF cell, outside spikes and refractoriness, is g_L (E_L - V) + g (0 mV - V)."""
    result = loop_runs[level]
    v, g = (result.traces[f"basket.{n}"][:STEPS, 0, 0] for n in ("V", "g_exc"))
    blocked = np.zeros(STEPS, dtype=bool)
    for time in result.spikes["basket"].of(0, 0):
        step = round(time / 5e-5)
        blocked[step : step + 40] = True
    free = np.flatnonzero(~blocked[:-1])
    change = 5e-5 / 100e-12 * (10e-9 * (-0.07 - v) + g * (0 - v))
    np.testing.assert_allclose((v[1:] - v[:-1])[free], change[:-1][free], rtol=0, atol=1e-15)
    held = np.flatnonzero(blocked[1:-1] & blocked[:-2]) + 1
    assert len(held) > 50 and not (v[held + 1] - v[held]).any()


def test_a_second_synapse_on_one_compartment():
    """Both conductances, and the electrode's current, add up in the current of the compartment."""
    cell = conductance_synapse(conductance_synapse(lif(), "a", "I", "V"), "b", "I", "V", "GABA")
    circuit = Circuit(
        "two",
        [
            Population("el", 1, ELECTRODE),
            Population("pre", 1, lif()),
            Population("p", 1, cell),
            Projection("x", "el", "pre.I", connectivity=OneToOne()),
            Projection("y", "el", "p.I_electrode", Constant(0.1), connectivity=OneToOne()),
            Projection("A", "pre", "p.S_a", Constant(2e-9)),
            Projection("B", "pre", "p.S_b", Constant(5e-9)),
        ],
        Protocol((Phase("f", "40*ms"),), {"el.I": "image"}),
    )
    names = ["p.V", "p.g_a", "p.g_b", "p.I"]
    traces = run(circuit, np.array([[0.6e-9]]), record=names).traces
    v, a, b, current = (traces[n][:, 0, 0] for n in names)
    assert a.max() > 1e-9 and b.max() > 1e-9
    np.testing.assert_allclose(current, 0.06e-9 + a * (0 - v) + b * (-0.08 - v), rtol=1e-12)


@pytest.mark.parametrize("level", BATCHED)
def test_a_batch_of_spiking_cells_is_the_single_runs(loop_runs, level):
    batch = run(loop_circuit(), LOOP_IMAGE, level=level, record=LOOP_STATES, dt="0.05*ms", batch_size=2)
    single = loop_runs[level]
    for name in LOOP_STATES:
        one_by_one = np.moveaxis(single.traces[name][:, 0].reshape(2, STEPS, -1), 0, 1)
        scale = np.abs(one_by_one).max()
        np.testing.assert_allclose(batch.traces[name], one_by_one, rtol=0, atol=1e-9 * scale, err_msg=name)
    for population, cells in (("pyr", 2), ("basket", 1)):
        for sample in range(2):
            for cell in range(cells):
                alone_ = single.spikes[population].of(cell, sample) - 0.045 * sample
                np.testing.assert_allclose(batch.spikes[population].of(cell, sample), alone_, rtol=0, atol=1e-12)


@every_level
def test_trials_begin_anew_unless_the_protocol_says_otherwise(level):
    """With reset: the same spikes in each trial. Without: the potential, the refractory time and a spike on its way go on."""
    image = np.repeat(CURRENTS[:, 2:3], 3, axis=0)
    reader = Cell("reader", "dg/dt = S : 1\nS : hertz (port)", rate="g")
    circuit = lif_circuit(1, "13.5*ms")
    circuit = replace(
        circuit,
        fragment=[*circuit.fragment, Population("q", 1, reader), Projection("W", "p", "q.S", Constant(1.0))],
    )
    _, steps = lif_loop(400.0, 0.1, 135)
    anew = run(circuit, image, level=level, record=["q.g"])
    assert len(steps) >= 2 and steps[-1] > 135 - 20  # still refractory when the next trial begins
    for trial in range(3):
        got = np.rint(anew.spikes["p"].of(0, trial) * 1e4).astype(int) - 135 * trial
        assert got.tolist() == steps
    counted = np.searchsorted(steps, np.arange(135) - 2, side="right")
    np.testing.assert_allclose(anew.traces["q.g"][:, 0, 0], np.tile(counted, 3), rtol=0, atol=1e-12)

    on = replace(circuit, protocol=replace(circuit.protocol, reset=False))
    _, steps = lif_loop(400.0, 0.1, 405)
    assert steps[:2] != [s - 135 for s in steps if s >= 135][:2]
    going = run(on, image, level=level, record=["q.g"])
    assert np.rint(going.spikes["p"].time * 1e4).astype(int).tolist() == steps
    counted = np.searchsorted(steps, np.arange(405) - 2, side="right")
    np.testing.assert_allclose(going.traces["q.g"][:, 0, 0], counted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("level", LEVELS)
def test_a_spike_in_the_last_step_is_kept_and_does_not_reach_the_next_trial(level):
    cell = Cell("c", "dv/dt = k : 1", rate="spike_train", parameters={"k": "1/ms"}, threshold="v > 0.95", reset="v = 0")
    reader = Cell("reader", "dg/dt = S : 1\nS : hertz (port)", rate="g")
    for reset, expected in ((True, [0.0, 0.0]), (False, [1.0, 2.0])):
        circuit = Circuit(
            "c",
            [
                Population("inp", 1, SOURCE),
                Population("p", 1, cell),
                Population("q", 1, reader),
                Projection("W", "p", "q.S", Constant(1.0)),
            ],
            Protocol((Phase("f", "1*ms"),), {"inp.r": "image"}, reset=reset),
        )
        result = run(circuit, np.zeros((3, 1)), level=level, record=["q.g"])
        assert np.rint(result.spikes["p"].time * 1e4).astype(int).tolist() == [9, 19, 29]
        assert result.spikes["p"].sample.tolist() == [0, 1, 2]
        np.testing.assert_allclose(result.traces["q.g"][[11, 21], 0, 0], expected, rtol=0, atol=1e-12)


def test_an_electrode_counts_from_the_beginning_of_each_trial():
    """A step between 2 and 5 ms comes in both trials of 10 ms."""
    circuit = Circuit(
        "t",
        [
            Population("inp", 1, SOURCE),
            Population("el", 1, current_step("1*pA", "2*ms", "3*ms")),
            Population("p", 1, lif()),
            Projection("I", "el", "p.I", connectivity=OneToOne()),
        ],
        Protocol((Phase("f", "10*ms"),), {"inp.r": "image"}),
    )
    step = np.arange(200)
    for level in LEVELS:
        current = run(circuit, np.zeros((2, 1)), level=level, record=["p.I"]).traces["p.I"][:, 0, 0]
        np.testing.assert_allclose(current * 1e12, (step % 100 >= 20) & (step % 100 < 50), rtol=0, atol=1e-12)


def spike_rule(text: str = "eta*spike_train_post*r_pre") -> Circuit:
    cell = Cell("c", "dv/dt = (-v + I)/tau : 1\nI : 1 (port)", rate="spike_train", parameters={"tau": "10*ms"}, threshold="v > 0.05", reset="v = 0")  # fmt: skip
    rule = PlasticityRule("h", f"dw/dt = {text}", {"eta": 0.1})
    return Circuit(
        "c",
        [
            Population("inp", 2, SOURCE),
            Population("p", 3, cell),
            Projection("W", "inp", "p.I", Given(np.array([[0.5, 0.3, 0.1], [0.2, 0.4, 0.9]])), rule),
        ],
        Protocol((Phase("f", "10*ms", plastic=("h",)),), {"inp.r": "image"}),
    )


@every_level
def test_a_rule_that_reads_the_spike_train(level):
    """Each postsynaptic spike adds eta r_pre to the weight, one step after."""
    result = run(spike_rule(), IMAGE[:1], level=level, record=["p.I"])
    w, v, train, drives = np.array([[0.5, 0.3, 0.1], [0.2, 0.4, 0.9]]), np.zeros(3), np.zeros(3), []
    for _ in range(100):
        drive = IMAGE[0] @ w
        drives.append(drive)
        w = w + 0.1 * np.outer(IMAGE[0], train)
        v = v + 0.01 * (drive - v)
        train = (v > 0.05).astype(float)
        v = np.where(train > 0, 0.0, v)
    np.testing.assert_allclose(result.traces["p.I"][:, 0], drives, rtol=0, atol=1e-12)
    np.testing.assert_allclose(result.weights["W"], w, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("factor", "level", "batch", "cells"),
    [
        ("v", LEVELS[0], 1, 3),
        ("v", LEVELS[1], 1, 3),
        ("v", LEVELS[1], 8, 30),
        ("v", LEVELS[2], 8, 30),
        ("I", LEVELS[0], 1, 3),
        ("I", LEVELS[1], 1, 3),
        ("I", LEVELS[1], 64, 100),
        ("I", LEVELS[2], 1, 3),
        ("I", LEVELS[2], 8, 30),
        ("y", LEVELS[1], 8, 30),
        ("y", LEVELS[2], 8, 30),
    ],
)
def test_a_rule_whose_post_factor_is_a_variable_itself(factor, level, batch, cells):
    """`v` is a state, `I` a port, `y` an input; against a loop."""
    cell = Cell("c", "dv/dt = (-v + I)/tau : 1\nI : 1 (port)\ny : 1 (input)", rate="v", parameters={"tau": "10*ms"})
    rule = PlasticityRule("h", f"dw/dt = eta*{factor}_post*r_pre", {"eta": "20*Hz"})
    rng = np.random.default_rng(0)
    image, target = rng.uniform(0, 1, (batch, cells + 2)), rng.uniform(0, 1, (batch, cells))
    w, v = rng.normal(0, 0.1, (cells + 2, cells)), np.zeros((batch, cells))
    circuit = Circuit(
        "c",
        [
            Population("inp", cells + 2, SOURCE),
            Population("p", cells, cell),
            Projection("W", "inp", "p.I", Given(w), rule),
        ],
        Protocol((Phase("f", "2*ms", plastic=("h",)),), {"inp.r": "image", "p.y": "target"}),
    )
    result = run(circuit, image, target, level=level, batch_size=batch, record=["p.v"])
    for row in result.traces["p.v"]:
        np.testing.assert_allclose(row, v, rtol=0, atol=1e-12)
        drive = image @ w
        post = {"v": v, "I": drive, "y": target}[factor]
        w, v = w + 0.1e-3 * 20 / batch * image.T @ post, v + 0.01 * (drive - v)
    np.testing.assert_allclose(result.weights["W"], w, rtol=0, atol=1e-12)


def test_a_rule_of_spikes_on_both_sides():
    """Presynaptic trace times postsynaptic spike, with decay: levels agree, weights move."""
    cell = Cell("c", "dv/dt = (-v + I)/tau : 1 (unless refractory)\ndx/dt = -x/tau + spike_train : 1\nI : 1 (port)", rate="x", parameters={"tau": "5*ms"}, threshold="v > 0.3", reset="v = 0", refractory="1*ms")  # fmt: skip
    rule = PlasticityRule(
        "stdp", "dw/dt = 0.1*(x_pre*spike_train_post - 0.4*spike_train_pre*x_post - 0.1*w*spike_train_post)"
    )
    circuit = Circuit(
        "stdp",
        [
            Population("inp", 2, SOURCE),
            Population("p", 3, cell),
            Population("q", 2, cell),
            Projection("W", "inp", "p.I", Uniform(0.5, 2)),
            Projection("V", "p", "q.I", Uniform(0.5, 2), rule),
        ],
        Protocol((Phase("f", "40*ms", plastic=("stdp",)),), {"inp.r": "image"}),
    )
    names = ["p.x", "q.x", "q.v"]
    results = [run(circuit, IMAGE, level=level, record=names) for level in LEVELS]
    for other in results[1:]:
        assert_same(results[0], other, names)
        np.testing.assert_array_equal(other.spikes["q"].time, results[0].spikes["q"].time)
    assert np.abs(results[0].weights["V"] - circuit.initial_weights(0)["V"]).max() > 1e-2


def test_spikes_are_counted_by_a_pool():
    """Each spike in the population takes 0.1 from every potential, one step later."""
    cell = Cell("c", "dv/dt = (-v + drive)/tau - 0.1*count : 1\ndrive : 1 (input)\ncount = pool(spike_train) : Hz", rate="v", parameters={"tau": "10*ms"}, threshold="v > 0.3", reset="v = 0")  # fmt: skip
    circuit = Circuit("c", [Population("p", 3, cell)], Protocol((Phase("f", "10*ms"),), {"p.drive": "image"}))
    drive, v, train, rows = np.array([1.0, 2.5, 4.0]), np.zeros(3), np.zeros(3), []
    for _ in range(100):
        rows.append(v)
        v = v + 0.01 * (drive - v) - 0.1 * train.sum()
        train = (v > 0.3).astype(float)
        v = np.where(train > 0, 0.0, v)
    for level in LEVELS:
        got = run(circuit, drive[None], level=level, record=["p.v"]).traces["p.v"][:, 0]
        np.testing.assert_allclose(got, rows, rtol=0, atol=1e-12, err_msg=level)


def test_spikes_survive_saving(tmp_path):
    result = run(lif_circuit(), np.vstack([CURRENTS, 0.8 * CURRENTS]), record=["p.V"], batch_size=2)
    assert set(result.spikes) == {"p"}
    assert set(result.spikes["p"].sample) == {0, 1} and set(result.spikes["p"].cell) == {1, 2, 3}
    loaded = Traces.load(result.traces.save(tmp_path / "traces.h5"))
    np.testing.assert_array_equal(loaded["p.V"], result.traces["p.V"])
    for field in ("time", "sample", "cell"):
        np.testing.assert_array_equal(getattr(loaded.spikes["p"], field), getattr(result.spikes["p"], field))
    for cell in range(4):
        for sample in range(2):
            _, steps = lif_loop(CURRENTS[0, cell] * 1e12 * (0.8 if sample else 1.0), 0.1, 1000)
            np.testing.assert_allclose(loaded.spikes["p"].of(cell, sample), np.array(steps) * 1e-4, rtol=0, atol=1e-12)


def test_a_population_without_spikes_has_an_empty_list(tmp_path):
    result = run(lif_circuit(1), CURRENTS[:, :1], record=["p.V"])
    assert result.spikes["p"].time.size == 0 and result.spikes["p"].of(0).size == 0
    loaded = Traces.load(result.traces.save(tmp_path / "traces.h5"))
    assert loaded.spikes["p"].time.size == 0


def test_a_file_of_the_first_layout_still_loads(tmp_path):
    """Layout 1 had no group of spikes."""
    result = run(lif_circuit(), CURRENTS, record=["p.V"])
    path = result.traces.save(tmp_path / "traces.h5")
    with h5py.File(path, "a") as file:
        del file["spikes"]
        file.attrs["format"] = 1
    loaded = Traces.load(path)
    assert loaded.spikes == {}
    np.testing.assert_array_equal(loaded["p.V"], result.traces["p.V"])
    assert [p.name for p in loaded.phases] == ["f"]
    loaded.close()
    with h5py.File(path, "a") as file:
        file.attrs["format"] = 99
    raises(lambda: Traces.load(path), "layout 99", error=NeurosimError)


@pytest.mark.slow
def test_refractoriness_in_single_precision():
    """Whole steps: the interval is the same in float32, also late in a run."""
    cell = Cell(
        "c",
        "dv/dt = (2 - v)/tau : 1 (unless refractory)",
        rate="v",
        parameters={"tau": "1*ms"},
        threshold="v > 1",
        reset="v = 0",
        refractory="2*ms",
    )
    spikes = run(alone(cell, 1, "4000*ms"), dtype="float32").spikes["p"].time
    assert set(np.rint(np.diff(spikes) * 1e4)) == {26.0}  # 7 active steps: 2 (1 - 0.9^7) > 1, and 20 - 1


@every_level
def test_a_threshold_on_parameters_alone(level):
    """A cell without states whose threshold holds spikes in every step."""
    cell = Cell("c", "r = k : 1", parameters={"k": 2.0, "theta": 1.0}, threshold="k > theta")
    assert len(run(alone(cell, 1, "1*ms"), level=level).spikes["p"].time) == 10


@pytest.mark.parametrize("name", ["spikes", "phases", "time"])
def test_any_name_of_a_population_can_be_saved_or_is_refused(name, tmp_path):
    try:
        circuit = Circuit("c", [Population(name, 2, GROW)], Protocol((Phase("f", "1*ms"),)))
    except CircuitError:
        return
    result = run(circuit, record=[f"{name}.v"])
    loaded = Traces.load(result.traces.save(tmp_path / "traces.h5"))
    np.testing.assert_array_equal(loaded[f"{name}.v"], result.traces[f"{name}.v"])


def test_an_electrode_does_not_fill_the_memory():
    cell = Cell("c", "dv/dt = -v/tau + I : 1\nI : hertz (port)", rate="v", parameters={"tau": "10*ms"})
    source = Cell("s", "r = sin(t/tau) : 1", parameters={"tau": "3*ms"})
    circuit = Circuit(
        "c",
        [Population("s", 40, source), Population("p", 2, cell), Projection("W", "s", "p.I", Constant(1.0))],
        Protocol((Phase("f", "100*ms"),)),
    )
    run(circuit, level="brian2:dense", batch_size=25)
    tracemalloc.start()
    run(circuit, level="brian2:dense", batch_size=25)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4e6  # 1000 steps of 25 x 40 numbers are 8 MB


@pytest.mark.parametrize("level", LEVELS[:2])
def test_a_run_without_spiking_cells_is_silent(level):
    heard = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = heard.append
    logger = logging.getLogger("brian2")
    logger.addHandler(handler)
    try:
        run(alone(GROW), level=level)
        gc.collect()
    finally:
        logger.removeHandler(handler)
    assert not [r.getMessage() for r in heard]


# ================================================================== derivatives


@every_level
def test_derivative_is_that_of_the_previous_step(level):
    cell = Cell(
        "c",
        "dv/dt = (-v + I)/tau : 1\nr = v + tau*slope : 1\nI : 1 (port)\nslope = derivative(v) : 1/second",
        parameters={"tau": "5*ms"},
        initial={"v": 0.3},
    )
    circuit = Circuit(
        "d",
        [
            Population("inp", 2, SOURCE),
            Population("p", 2, cell),
            Projection("W", "inp", "p.I", Constant(0.5)),
            Projection("R", "p", "p.I", Given(np.array([[0.2, -0.4], [0.1, 0.3]]))),
        ],
        Protocol((Phase("a", "3*ms"), Phase("b", "2*ms")), {"inp.r": "image"}),
    )
    names = ["p.v", "p.slope", "p.r"]
    going = replace(circuit, protocol=replace(circuit.protocol, reset=False))
    for tested, reset in ((circuit, True), (going, False)):
        traces = run(tested, IMAGE, level=level, record=names).traces
        v = before = np.full(2, 0.3)
        rows = []
        for image in IMAGE:
            if reset:
                v = before = np.full(2, 0.3)
            for _ in range(50):
                slope = (v - before) / 0.1
                r = v + 5 * slope
                rows.append(np.stack([v, slope, r]))
                drive = 0.5 * image.sum() + r @ np.array([[0.2, -0.4], [0.1, 0.3]])
                before, v = v, v + 0.1 / 5 * (drive - v)
        for k, (name, scale) in enumerate(zip(names, (1, 1e-3, 1), strict=True)):
            np.testing.assert_allclose(
                traces[name][:, 0] * scale, np.array(rows)[:, k], rtol=0, atol=1e-12, err_msg=name
            )
    ends = run(circuit, IMAGE, level="torch:steady").ends["a"]
    a = np.eye(2) - np.array([[0.2, -0.4], [0.1, 0.3]])
    expected = np.linalg.solve(a.T, (0.5 * IMAGE.sum(1, keepdims=True) * np.ones(2)).T).T
    np.testing.assert_allclose(ends["p.v"], expected, rtol=0, atol=1e-9)


# ================================================================== filtered rules

STILL = Cell("still", "u = y : 1\nI : 1 (port)\ny : 1 (input)", rate="u")
W0 = np.array([[0.3, -0.2, 0.5], [0.1, 0.4, -0.6]])
X2 = np.array([[1.0, 0.4], [0.2, 0.9]])
Y2 = np.array([[0.5, 1.5, -1.0], [2.0, -0.3, 0.7]])
ETA, FILTER = 8.0, 6.0  # 1/s, ms


def filtered(
    phases: tuple[Phase, ...] = (Phase("on", "10*ms", plastic=("h",)),),
    text: str = "eta*y_post*r_pre",
    low_pass: str | None = "6*ms",
    reset: bool = True,
    **rule,
) -> Circuit:
    """Constant pre- and postsynaptic factors: the rule's right-hand side is F = eta x^T y in every step."""
    plasticity = PlasticityRule("h", f"dw/dt = {text}", {"eta": f"{ETA}*Hz"}, filter=low_pass, **rule)
    return Circuit(
        "filtered",
        [Population("inp", 2, SOURCE), Population("p", 3, STILL), Projection("W", "inp", "p.I", Given(W0), plasticity)],
        Protocol(phases, {"inp.r": "image", "p.y": "target"}, reset=reset),
    )


def learnt(steps: int, dt: float = 0.1, tau: float = FILTER) -> float:
    """w - w0 over F (ms) after n steps: the trace D_k = F (1 - q^k), q = 1 - dt/tau, and dt times the sum of D_0..D_(n-1)."""
    return dt * steps - tau * (1 - (1 - dt / tau) ** steps)


def integrated(t: float, tau: float = FILTER) -> float:
    """The same in continuous time."""
    return t - tau * (1 - np.exp(-t / tau))


F = ETA * 1e-3 * np.einsum("si,sj->sij", X2, Y2)  # 1/ms, one matrix per sample
ALL = (*LEVELS, "torch:steady")


def time_of(level: str, steps: int) -> float:
    return integrated(0.1 * steps) if level == "torch:steady" else learnt(steps)


@pytest.mark.parametrize("level", ALL)
def test_filtered_rule_against_the_closed_form(level):
    weights = run(filtered(), X2[:1], Y2[:1], level=level).weights["W"]
    np.testing.assert_allclose(weights, W0 + F[0] * time_of(level, 100), rtol=0, atol=1e-12)
    assert np.abs(weights - W0).max() > 1e-2


@pytest.mark.parametrize("level", ALL)
@pytest.mark.parametrize("apply", ["phase", "trial"])
def test_filtered_rule_applied_at_the_end(level, apply):
    """Two trials, each with a trace from 0."""
    phases = (Phase("on", "4*ms", plastic=("h",)), Phase("more", "6*ms", plastic=("h",)))
    weights = run(filtered(phases, apply=apply), X2, Y2, level=level).weights["W"]
    np.testing.assert_allclose(weights, W0 + (F[0] + F[1]) * time_of(level, 100), rtol=0, atol=1e-12)


@pytest.mark.parametrize("level", ALL)
def test_filtered_rule_held(level):
    for apply in ("now", "trial"):
        result = run(filtered(apply=apply), X2, Y2, level=level, plasticity="held")
        np.testing.assert_array_equal(result.weights["W"], W0)
        np.testing.assert_allclose(result.collected["W"], (F[0] + F[1]) * time_of(level, 100), rtol=0, atol=1e-12)
    result = run(filtered(), X2, Y2, level=level, plasticity="off")
    np.testing.assert_array_equal(result.weights["W"], W0)


@pytest.mark.parametrize("level", (*BATCHED, "torch:steady"))
@pytest.mark.parametrize("apply", ["now", "trial"])
def test_filtered_rule_of_a_batch_is_the_mean(level, apply):
    weights = run(filtered(apply=apply), X2, Y2, level=level, batch_size=2).weights["W"]
    np.testing.assert_allclose(weights, W0 + F.mean(0) * time_of(level, 100), rtol=0, atol=1e-12)


@pytest.mark.parametrize("level", ALL)
@pytest.mark.parametrize("apply", ["now", "phase", "trial"])
def test_the_trace_outlives_a_phase_without_the_rule(level, apply):
    """Two windows with a gap are one window of their joint length: D and w stand still while the rule is off."""
    phases = (
        Phase("one", "3*ms", plastic=("h",)),
        Phase("gap", "5*ms"),
        Phase("two", "7*ms", plastic=("h",)),
    )
    weights = run(filtered(phases, apply=apply), X2[:1], Y2[:1], level=level).weights["W"]
    np.testing.assert_allclose(weights, W0 + F[0] * time_of(level, 100), rtol=0, atol=1e-12)
    assert abs(time_of(level, 100) - time_of(level, 30) - time_of(level, 70)) > 0.5  # a trace from 0 would tell


@pytest.mark.parametrize("level", ALL)
def test_the_trace_goes_on_where_states_do(level):
    """Without reset, trial 2 begins with D = F1 (1 - q^n): it adds F2 (T - tau (1 - q^n)) + D tau (1 - q^n)."""
    weights = run(filtered(reset=False), X2, Y2, level=level).weights["W"]
    forgotten = 1 - (np.exp(-10 / FILTER) if level == "torch:steady" else (1 - 0.1 / FILTER) ** 100)
    expected = (F[0] + F[1]) * time_of(level, 100) + F[0] * forgotten * FILTER * forgotten
    np.testing.assert_allclose(weights, W0 + expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("level", ALL)
def test_the_trace_decays_where_the_product_is_gone(level):
    """The clamp of `y` ends: F = 0, and the trace goes on to give the rest, D tau (1 - q^n)."""
    plasticity = PlasticityRule("h", "dw/dt = eta*y_post*r_pre", {"eta": f"{ETA}*Hz"}, filter="6*ms")
    circuit = Circuit(
        "tail",
        [Population("inp", 2, SOURCE), Population("p", 3, STILL), Projection("W", "inp", "p.I", Given(W0), plasticity)],
        Protocol(
            (
                Phase("on", "4*ms", clamps={"p.y": "target"}, plastic=("h",)),
                Phase("off", "6*ms", plastic=("h",)),
            ),
            {"inp.r": "image"},
        ),
    )
    weights = run(circuit, X2[:1], Y2[:1], level=level).weights["W"]
    first, second = (
        1 - np.exp([-4 / FILTER, -6 / FILTER])
        if level == "torch:steady"
        else 1 - (1 - 0.1 / FILTER) ** np.array([40, 60])
    )
    expected = W0 + F[0] * (time_of(level, 40) + first * FILTER * second)
    np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-12)


@every_level
@pytest.mark.parametrize("apply", ["now", "trial"])
def test_filtered_rule_with_decay_of_the_weight(level, apply):
    """tau dD/dt = -D + F - lambda w, dw/dt = D: a power of a 2x2 matrix; applied at the end, w stays and F - lambda w0 counts."""
    circuit = filtered(text="eta*y_post*r_pre - 5*eta*w", apply=apply)
    weights = run(circuit, X2[:1], Y2[:1], level=level).weights["W"]
    decay = 5 * ETA * 1e-3
    if apply == "trial":
        expected = W0 + (F[0] - decay * W0) * learnt(100)
    else:
        step = np.array([[1 - 0.1 / FILTER, -0.1 / FILTER * decay, 0.1 / FILTER], [0.1, 1, 0], [0, 0, 1]])
        power = np.linalg.matrix_power(step, 100)
        expected = power[1, 1] * W0 + power[1, 2] * F[0]  # from (D, w, F) = (0, w0, F)
    np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-12)
    plain = W0 + F[0] * learnt(100)
    assert np.abs(weights - plain).max() > 1e-3


@every_level
def test_filtered_rule_between_bounds(level):
    """Weights are cut in every step, the trace is not."""
    bounds = (-0.25, 0.35)
    phases = (Phase("on", "10*ms", plastic=("h",)), Phase("gap", "1*ms"), Phase("more", "5*ms", plastic=("h",)))
    weights = run(filtered(phases, bounds=bounds), X2, Y2, level=level).weights["W"]
    w = W0
    for sample in F:
        d = np.zeros_like(W0)
        for _ in range(150):
            w, d = np.clip(w + 0.1 * d, *bounds), d + 0.1 / FILTER * (sample - d)
    np.testing.assert_allclose(weights, w, rtol=0, atol=1e-12)
    assert ((w == bounds[0]) | (w == bounds[1])).any() and ((w > bounds[0]) & (w < bounds[1])).any()


def test_filtered_rule_goes_to_the_integral_of_continuous_time():
    exact = W0 + F[0] * integrated(10)
    errors = [
        np.abs(run(filtered(), X2[:1], Y2[:1], dt=dt).weights["W"] - exact).max()
        for dt in ("0.2*ms", "0.1*ms", "0.05*ms")
    ]
    np.testing.assert_allclose(np.log2(np.array(errors[:-1]) / errors[1:]), 1, atol=0.05)


@every_level
def test_a_filter_of_one_step_is_a_delay(level):
    """dt = tau: D is the product of the step before, so w moves by F dt in every step but the first."""
    weights = run(filtered(low_pass="0.1*ms"), X2[:1], Y2[:1], level=level).weights["W"]
    np.testing.assert_allclose(weights, W0 + F[0] * 9.9, rtol=0, atol=1e-12)


LEAKY = Cell("leaky", "dv/dt = (-v + I)/tau : 1\nr = tanh(v) : 1\nI : 1 (port)", parameters={"tau": "4*ms"})  # fmt: skip


def learning_network(**rule) -> Circuit:
    """Filtered and plain rules side by side in a recurrent network, two windows with a gap."""
    low = PlasticityRule("low", "dw/dt = eta*(r_post - w)*r_pre", {"eta": "40*Hz"}, filter="3*ms", **rule)
    bias = PlasticityRule("low", "dw/dt = eta*r_post", {"eta": "40*Hz"}, filter="5*ms", **rule)
    plain = PlasticityRule("low", "dw/dt = eta*r_post*r_pre", {"eta": "20*Hz"}, **rule)
    return Circuit(
        "net",
        [
            Population("inp", 2, SOURCE),
            Population("p", 3, LEAKY),
            Population("q", 2, LEAKY),
            Projection("W", "inp", "p.I", Glorot(2), low),
            Projection("b", "one", "p.I", Constant(0.1), bias),
            Projection("V", "p", "q.I", Glorot(2), low),
            Projection("B", "q", "p.I", Tied("V", transpose=True)),
            Projection("R", "q", "q.I", Glorot(), plain),
        ],
        Protocol(
            (
                Phase("a", "4*ms", plastic=("low",)),
                Phase("gap", "2*ms"),
                Phase("c", "5*ms", plastic=("low",)),
            ),
            {"inp.r": "image"},
        ),
    )


@pytest.mark.parametrize(
    ("apply", "bounds"),
    [("phase", (None, None)), ("trial", (-0.5, 0.55)), ("now", (-0.5, 0.55))],
)
def test_levels_agree_on_filtered_rules(apply, bounds):
    circuit = learning_network(apply=apply, bounds=bounds)
    results = [run(circuit, X2, level=level, record=["p.v", "q.v"]) for level in LEVELS]
    for other in results[1:]:
        assert_same(results[0], other, ["p.v", "q.v"])
    start = circuit.initial_weights(0)
    for name in ("W", "b", "V", "R"):
        assert np.abs(results[0].weights[name] - start[name]).max() > 1e-3
    batched = [run(circuit, X2, level=level, record=["p.v", "q.v"], batch_size=2) for level in BATCHED]
    assert_same(*batched, ["p.v", "q.v"])
    assert np.abs(batched[0].weights["V"] - results[0].weights["V"]).max() > 1e-4


def test_the_filter_acts_on_what_the_loop_says():
    """The network's first plastic projection in a loop of its own, with the network's rates as given."""
    circuit = learning_network()
    names = ["p.r", "q.r", "q.v"]
    result = run(circuit, X2[:1], record=names)
    w = circuit.initial_weights(0)["W"]
    d = np.zeros_like(w)
    for step, r in enumerate(result.traces["p.r"][:, 0]):
        if not 40 <= step < 60:
            product = 40e-3 * X2[0][:, None] * (r - w)
            w, d = w + 0.1 * d, d + 0.1 / 3 * (product - d)
    np.testing.assert_allclose(result.weights["W"], w, rtol=0, atol=1e-12)


# ================================================================== Like


def drawn_by(*projections: Projection, sizes=(2, 3), seed: int = 4) -> dict[str, np.ndarray]:
    a, b = sizes
    cell = Cell("c", "dv/dt = (-v + I)/tau : 1\nI : 1 (optional port)", rate="v", parameters={"tau": "10*ms"})
    circuit = Circuit(
        "like",
        Fragment((Population("a", a, cell), Population("b", b, cell)), projections),
        Protocol((Phase("f", "1*ms"),)),
    )
    return circuit.initial_weights(seed)


def forward(name: str = "W", weights=None, **kwargs) -> Projection:
    return Projection(name, "a", "b.I", weights, **kwargs)


def backward(name: str = "B", weights=None, **kwargs) -> Projection:
    return Projection(name, "b", "a.I", weights, **kwargs)


DRAWN = drawn_by(forward(weights=Glorot()))["W"]


@pytest.mark.parametrize(
    ("projections", "name", "expected"),
    [
        ((forward(weights=Glorot()), forward("V", Like("W"))), "V", DRAWN),
        ((forward(weights=Glorot()), forward("V", Like("W", -0.5))), "V", -0.5 * DRAWN),
        ((forward(weights=Glorot()), backward("B", Like("W", transpose=True))), "B", DRAWN.T),
        ((forward(weights=Glorot()), backward("B", Like("W", 3.0, True))), "B", 3 * DRAWN.T),
        ((backward("B", Like("W", 3.0, True)), forward(weights=Glorot())), "B", 3 * DRAWN.T),
        (
            (forward(weights=Glorot()), backward("T", weights=Tied("W", transpose=True)), backward("B", Like("T", 2.0))),
            "B",
            2 * DRAWN.T,
        ),
        (
            (forward("V", Like("T", -1.0, True)), backward("T", weights=Tied("W", transpose=True)), forward(weights=Glorot())),
            "V",
            -DRAWN,
        ),
        (
            (forward(weights=Glorot()), backward("B", Like("W", 2.0, True)), forward("V", Like("B", 0.5, True))),
            "V",
            DRAWN,
        ),
        (
            (backward("C", Like("B", 5.0)), backward("B", Like("T", 2.0, True)), forward("T", weights=Tied("V")),
             forward("V", Like("W", 3.0)), forward(weights=Glorot())),
            "C",
            30 * DRAWN.T,
        ),
        ((forward(weights=Glorot()), backward("T", weights=Tied("V", transpose=True)), forward("V", Like("W", 2.0))), "V", 2 * DRAWN),
    ],
    ids=["same", "factor", "transpose", "both", "first", "tie", "tie-back", "chain", "chain-tie", "tied-to-like"],
)  # fmt: skip
def test_like_starts_from_the_other(projections, name, expected):
    weights = drawn_by(*projections)
    np.testing.assert_allclose(weights[name], expected, rtol=1e-15)
    np.testing.assert_array_equal(weights["W"], DRAWN)  # drawn as ever


def test_like_is_a_start_and_no_tie():
    """Weights part as soon as one of them learns, and no memory is shared."""
    rule = PlasticityRule("hebb", "dw/dt = eta*r_pre*r_post", {"eta": "50*Hz"})
    circuit = Circuit(
        "like",
        [
            Population("inp", 2, SOURCE),
            Population("p", 3, LEAKY),
            Projection("W", "inp", "p.I", Glorot(), rule),
            Projection("V", "inp", "p.I", Like("W")),
        ],
        Protocol((Phase("f", "5*ms", plastic=("hebb",)),), {"inp.r": "image"}),
    )
    start = circuit.initial_weights(0)
    assert not np.shares_memory(start["W"], start["V"])
    for level in (*LEVELS, "torch:steady"):
        result = run(circuit, X2, level=level)
        np.testing.assert_array_equal(result.weights["V"], start["W"])
        assert np.abs(result.weights["W"] - start["W"]).max() > 1e-4


def test_like_through_a_tie_with_a_factor():
    tied = Tied("W", factor=-2.0, transpose=True)
    weights = drawn_by(forward(weights=Glorot()), backward("T", weights=tied), backward("B", Like("T", 0.25)))
    np.testing.assert_allclose(weights["B"], -0.5 * DRAWN.T, rtol=1e-15)


@pytest.mark.parametrize(
    ("projections", "parts"),
    [
        ((forward("V", Like("U")), forward(weights=Glorot())), ("'V'", "unknown projection", "'U'", "Known: V, W")),
        ((forward("V", Like("V")),), ("'V'", "each start like the other")),
        ((forward("V", Like("U")), forward("U", Like("V"))), ("each start like the other", "draw one")),
        ((forward("V", Like("U")), forward("U", Like("T")), forward("T", Like("V"))), ("each start like the other",)),
        ((forward(weights=Glorot()), backward("B", Like("W"))), ("'B'", "(3, 2)", "'W' has (2, 3)")),
        ((forward(weights=Glorot()), forward("V", Like("W", transpose=True))), ("(2, 3)", "transposed has (3, 2)")),
        (
            (forward(weights=Glorot()), backward("T", weights=Tied("W", transpose=True)), forward("V", Like("T"))),
            ("'V'", "(2, 3)"),
        ),
        (
            (forward(weights=Glorot()), Projection("V", "a", "a.I", Like("W"), connectivity=OneToOne())),
            ("'V'", "dense weights"),
        ),
        ((forward("V", Like("T")), forward("T", weights=Tied("V"))), ("each start like the other",)),
        (
            (forward("V", Like("T")), forward("T", weights=Tied("U")), forward("U", Like("S")), forward("S", weights=Tied("V"))),
            ("each start like the other",),
        ),
        pytest.param(
            (forward("V", Like("T")), forward("T", weights=Tied("nope"))), ("tied to an unknown projection",)
        ),
        pytest.param(
            (forward("V", Like("U")), Projection("U", "aa", "b.I", Glorot())),
            ("'U'", "population 'aa'"),
        ),
    ],
)  # fmt: skip
def test_like_that_cannot_be(projections, parts):
    raises(lambda: drawn_by(*projections), *parts)


# ================================================================== refusals


def cell_of(equations: str = "dv/dt = (-v + I)/tau : 1", **kwargs) -> Circuit:
    """One population with the port I from an input; r = v unless told."""
    parameters = {"tau": "10*ms", "s": "1*Hz**0.5", **kwargs.pop("parameters", {})}
    rule = kwargs.pop("rule", None)
    cell = assemble("c", f"{equations}\nI : 1", **{"ports": ("I",), "rate": "v", "parameters": parameters, **kwargs})
    return Circuit(
        "c",
        [Population("inp", 2, SOURCE), Population("p", 3, cell), Projection("W", "inp", "p.I", Constant(0.5), rule)],
        Protocol((Phase("f", "5*ms", plastic=(rule.name,) if rule else ()),), {"inp.r": "image"}),
    )


LEAK = "dv/dt = (-v + I)/tau : 1"


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (lambda: cell_of(f"{LEAK}\nq = v + xi*s : 1"), ("'p'", "'q'", "'xi'", "not a differential equation")),
        (lambda: cell_of(f"{LEAK}\nq = v + xi_b*s : 1"), ("'p'", "white noise in 'q = v + xi_b*s'", "equation of a state")),
        (lambda: cell_of("dv/dt = (-v + I)/tau + 2*xi : 1"), ("'p'", "unit")),
        (lambda: cell_of(reset="v = 0"), ("'p'", "reset without a threshold", "threshold='u > theta'")),
        (lambda: cell_of(LEAK + " (unless refractory)"), ("'p'", "(unless refractory) without a threshold")),
        (
            lambda: cell_of(f"{LEAK}\nq = 2*v : 1", threshold="v > 1", reset="q = 0"),
            ("the reset changes 'q'", "which is no state"),
        ),
        (lambda: cell_of(threshold="v > 1", reset="vv = 0"), ("the reset changes 'vv'", "Did you mean 'v'?")),
        (lambda: cell_of(threshold="v > 1", reset="v == 0"), ("cannot read 'v == 0'", "'x = ...' or 'x += ...'")),
        (lambda: cell_of(threshold="v > 1", reset="v"), ("cannot read 'v'",)),
        (lambda: cell_of(threshold="v > 1", reset="v = tau"), ("reset 'v = tau'", "unit s", "wanted 1")),
        (lambda: cell_of(threshold="v > I"), ("'I' in 'v > I'", "states and parameters only")),
        (lambda: cell_of(threshold="v > 1", reset="v = I"), ("'I' in 'I'", "states and parameters only")),
        (lambda: cell_of(f"{LEAK}\nq = 2*v : 1", threshold="q > 1"), ("'q' in 'q > 1'", "states and parameters only")),
        (lambda: cell_of(threshold="v > xi"), ("'xi' in 'v > xi'",)),
        (lambda: cell_of(threshold="v > t"), ("'t' in 'v > t'",)),
        (lambda: cell_of(threshold="v > theta"), ("'theta' in 'v > theta'",)),
        (lambda: cell_of(threshold="v > tau"), ("'p'", "threshold", "units do not fit")),
        (lambda: cell_of(threshold="v > 1", refractory="-1*ms"), ("refractory = -1*ms", "at least 0")),
        (lambda: cell_of(threshold="v > 1", refractory="2"), ("refractory = '2'",)),
        (lambda: cell_of(LEAK + " (unless refractry)", threshold="v > 1"), ("'v'", "unless refractry", "known here")),
        (lambda: cell_of(LEAK + " (constant)"), ("'v'", "constant", "known here are (unless refractory)")),
        (
            lambda: cell_of(f"{LEAK}\nq = v : 1 (unless refractory)", threshold="v > 1"),
            ("'q'", "unless refractory", "equation of a state"),
        ),
        (lambda: cell_of(derivatives=(derivative("d", "I"),)), ("derivative 'd' is of 'I'", "no state")),
        (lambda: cell_of(derivatives=(derivative("d", "vv"),)), ("'vv'", "no state", "Did you mean 'v'?")),
        (lambda: cell_of(derivatives=(derivative("v", "v"),)), ("'v'", "rename")),
        (lambda: cell_of(derivatives=(derivative("exp", "v"),)), ("'exp'",)),
        (
            lambda: cell_of(f"{LEAK}\nq = d : 1", derivatives=(derivative("d", "v"),)),
            ("'q = d'", "unit hertz", "wanted 1"),
        ),
        (lambda: cell_of(f"{LEAK}\nspike_train = v : 1", threshold="v > 1"), ("'spike_train'", "rename")),
        (lambda: cell_of(f"{LEAK}\nlastspike = v : 1", threshold="v > 1"), ("'lastspike'", "rename")),
        (lambda: cell_of(threshold="v > 1", parameters={"spike_train": 1.0}), ("'spike_train'", "rename")),
        (lambda: cell_of(threshold="v > 1", derivatives=(derivative("lastspike", "v"),)), ("'lastspike'", "rename")),
        (lambda: cell_of(f"{LEAK}\nq = spike_train*tau : 1"), ("unknown variable 'spike_train'",)),
        (lambda: cell_of(rate="spike_train"), ("rate 'spike_train'",)),
        (lambda: filtered(low_pass="0*ms"), ("Rule 'h'", "projection 'W'", "filter = 0*ms", "above 0")),
        (lambda: filtered(low_pass="-3*ms"), ("filter = -3*ms", "above 0")),
        (lambda: filtered(low_pass="30"), ("filter = '30'", "a time with units")),
        (lambda: filtered(low_pass="30*mV"), ("filter = '30*mV'",)),
        (lambda: filtered(low_pass="quick"), ("'quick'",)),
        (lambda: cell_of(rule=PlasticityRule("h", "dw/dt = eta*spike_train_post", {"eta": 1.0})), ("'spike_train'",)),
    ],
)  # fmt: skip
def test_refused_by_message(make, parts):
    raises(make, *parts)


def test_what_stands_beside_the_refused_is_fine():
    cell_of("dv/dt = (-v + I)/tau + s*xi_some_name : 1")
    cell_of(f"{LEAK} (unless refractory)", threshold="v > 1", reset="v -= 1", refractory="0*ms")
    cell_of(f"{LEAK}\nq = d*tau : 1", derivatives=(derivative("d", "v"),))
    cell_of(f"{LEAK}\nspike_train = v : 1")


@pytest.mark.parametrize("level", LEVELS)
def test_a_step_beyond_the_filter_is_refused(level):
    circuit = filtered(low_pass="0.4*ms")
    run(circuit, X2, Y2, level=level, dt="0.5*ms")
    tight = filtered(low_pass="0.2*ms")
    raises(
        lambda: run(tight, X2, Y2, level=level, dt="0.5*ms"),
        "dt = 0.5 ms", "filter of rule 'h'", "projection 'W'", "0.4 ms", error=NeurosimError,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("circuit", "part"),
    [
        (alone(OU), "white noise"),
        (lif_circuit(), "spike"),
        (alone(Cell("c", "dv/dt = (sin(t/tau) - v)/tau : 1", rate="v", parameters={"tau": "10*ms"})), "time t"),
        (alone(Cell("c", "r = t/tau : 1", parameters={"tau": "10*ms"})), "time t"),
    ],
)
def test_the_steady_level_refuses_what_has_no_fixed_point(circuit, part):
    images = CURRENTS if circuit.plan.clamped_fields else None
    with pytest.raises(UnsupportedError, match=re.escape(part)) as caught:
        run(circuit, images, level="torch:steady")
    assert "torch:steady has no fixed point for population 'p'" in str(caught.value)
    assert "torch:trajectory" in str(caught.value)


RULE_READS = {"t": "dw/dt = eta*t_post*r_pre", "xi": "dw/dt = eta*xi_post*r_pre", "pool_t": "", "pool_xi": ""}


@pytest.mark.parametrize("what", RULE_READS)
def test_time_and_noise_in_rules_and_pools_work_or_are_refused(what):
    equations = LEAK.replace("(-v + I)/tau", "(-v + I)/tau + s*xi" if "xi" in what else "(-v + I)/tau")
    unit = {"t": "1*Hz**2", "xi": "1*Hz**0.5", "pool_t": "1*Hz", "pool_xi": "1*Hz"}[what]
    rule = PlasticityRule("h", RULE_READS[what], {"eta": unit}) if RULE_READS[what] else None
    pools = () if rule else (pool("P", "t*int(v < 5)" if what == "pool_t" else "v*xi"),)
    if what == "pool_t":
        equations = "dv/dt = (-v + I)/tau + P*k*k : 1"
    elif what == "pool_xi":
        equations = "dv/dt = (-v + I)/tau + s*xi + s*P : 1"
    try:
        circuit = cell_of(equations, pools=pools, rule=rule, parameters={"k": "1*Hz"})
    except CircuitError:
        return
    results = [run(circuit, IMAGE, level=level, record=["p.v"]) for level in ("torch:trajectory", "brian2:equations")]
    assert_same(*results, ["p.v"])


def test_a_threshold_that_is_no_condition_is_refused():
    raises(lambda: cell_of(threshold="v - 1"), "threshold")


# ================================================================== circuits without stimuli, targets


@every_level
def test_a_circuit_without_stimuli_runs_one_trial(level):
    result = run(alone(GROW, 2), level=level, record=["p.v"])
    expected = 2 * (1 - (1 - 0.1 / 4) ** np.arange(50))
    np.testing.assert_allclose(result.traces["p.v"][:, 0, 0], expected, rtol=0, atol=1e-12)
    assert result.ends["f"]["p.v"].shape == (1, 2) and result.steps == 50


def test_a_circuit_without_stimuli_has_a_fixed_point():
    ends = run(alone(GROW, 2), level="torch:steady").ends["f"]["p.v"]
    np.testing.assert_allclose(ends, [[2.0, 2.0]], rtol=0, atol=1e-12)


@pytest.mark.parametrize("level", BATCHED)
def test_a_circuit_without_stimuli_may_be_a_batch(level):
    result = run(alone(OU, 2), level=level, batch_size=3)
    v = result.ends["f"]["p.v"]
    assert v.shape == (3, 2) and len(np.unique(v)) == 6


@pytest.mark.parametrize("level", ALL)
def test_stimuli_that_are_missing_are_asked_for(level):
    raises(
        lambda: run(lif_circuit(), level=level),
        "clamps image",
        "simulate(circuit, images, labels)",
        error=NeurosimError,
    )
    raises(lambda: run(filtered(), level=level), "clamps image and target", error=NeurosimError)
    raises(lambda: run(filtered(), X2, level=level), "labels are needed", error=NeurosimError)


@pytest.mark.parametrize("level", ALL)
def test_targets_are_used_as_given(level):
    circuit = filtered((Phase("on", "1*ms"),))
    for labels, expected in (
        (Y2, Y2),
        (np.array([2, 0]), [[0, 0, 1], [1, 0, 0]]),
        (np.array([[3, -2, 1], [0, 5, 4]]), [[3, -2, 1], [0, 5, 4]]),
    ):
        result = run(circuit, X2, labels, level=level)
        np.testing.assert_array_equal(result.ends["on"]["p.u"], expected)


@pytest.mark.parametrize(
    ("labels", "parts"),
    [
        (Y2[:, :2], ("targets have shape (2, 2)", "wanted (2, 3)")),
        (Y2[:1], ("targets have shape (1, 3)", "wanted (2, 3)")),
        (Y2.T, ("targets have shape (3, 2)", "wanted (2, 3)")),
        (np.where(Y2 > 1, np.nan, Y2), ("targets hold NaN or infinity",)),
        (np.where(Y2 > 1, np.inf, Y2), ("targets hold NaN or infinity",)),
        (np.array([0.0, 1.0]), ("labels have the type float64",)),
        (np.array([0, 1, 2]), ("labels have shape (3,)", "wanted (2,)", "(2, 3)")),
        (np.array([0, 3]), ("labels run from 0 to 3",)),
        (Y2[None], ("labels have shape (1, 2, 3)",)),
    ],
)
def test_targets_that_do_not_fit(labels, parts):
    raises(lambda: run(filtered(), X2, labels), *parts, error=NeurosimError)


def test_dense_weights_are_the_default_of_a_projection():
    assert forward(weights=Glorot()).connectivity == Dense()
