"""`Windows` over labels, and states visited once in order, on every level against loops over samples and windows.

Oracle: `Loops`, NumPy for one sample at a time: explicit Euler through the windows one after another, or the fixed point of each window by
damped iteration. The circuit has loops within both streams, so that no order of single visits exists, and a population in which picture and
label meet.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from circuits import assemble, hold, overlap, pool

import neurosim
from neurosim import (
    SOURCE,
    Cell,
    Circuit,
    Fragment,
    Given,
    OneToOne,
    Phase,
    PlasticityRule,
    Population,
    Projection,
    Protocol,
    Readout,
    Uniform,
    Windows,
    simulate,
)
from neurosim.backends import engine_class
from neurosim.backends.engine import Options
from neurosim.description import Loop
from neurosim.errors import CircuitError, NeurosimError, UnsupportedError
from neurosim.traces import Recorder
from neurosim.traces.recording import Recording

EQUATIONS, DENSE, TRAJECTORY, STEADY = "brian2:equations", "brian2:dense", "torch:trajectory", "torch:steady"
EULER = (EQUATIONS, DENSE, TRAJECTORY)
TAU, DT, K, N, PIXELS = 0.01, 1e-3, 3, 4, 5
SETTLE, LEARN = 6, 4  # steps


def near(got, wanted, limit=1e-12, what=""):
    assert np.shape(got) == np.shape(wanted), f"{what}: shape {np.shape(got)}, wanted {np.shape(wanted)}"
    worst = float(np.abs(np.asarray(got) - wanted).max())
    assert worst <= limit * max(1.0, float(np.abs(wanted).max())), f"{what}: off by {worst:.1e}"


def engine_of(circuit, level, batch, weights=None, plan=None, **options):
    options = Options(batch=batch, dt=DT, progress=False, **options)
    return engine_class(level)(plan or circuit.plan, weights or circuit.initial_weights(0), options)


def stimuli_of(samples, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.array([0, 2, 1, 2, 0, 1, 1, 2])[:samples]
    return {"image": rng.uniform(-1, 1, (samples, PIXELS)), "target": np.eye(K)[labels]}


def play(circuit, level, stimuli, *, learn="held", batch=None, weights=None, plan=None, **options):
    engine = engine_of(circuit, level, batch or len(stimuli["image"]), weights, plan, **options)
    return engine.present(stimuli, learn=learn)


def samples_on(level):
    return 1 if level == EQUATIONS else 4


# ------------------------------------------------------------------ a circuit with loops

STREAM = """
    du/dt = (-u + I)/tau : 1
    dv/dt = (-v + A)/tau : 1
    r = tanh(u) : 1
    I : 1
    A : 1
    R : 1
    M : 1
"""
MEET = Cell("meet", "dm/dt = (-m + J)/tau : 1\nr = tanh(m) : 1\nJ : 1 (port)", parameters={"tau": f"{TAU}*second"})
SEEN = Cell("seen", "dy/dt = (-y + I)/tau : 1\nI : 1 (port)", rate="y", parameters={"tau": f"{TAU}*second"})
#: name: source, target, shape; the loops are those within F, within D and within P.
WIRES = {
    "U": ("x", "F.I", (PIXELS, N)), "RF": ("F", "F.I", (N, N)), "b": ("one", "F.I", (1, N)),
    "V": ("l", "D.I", (K, N)), "RD": ("D", "D.I", (N, N)),
    "PF": ("F", "P.J", (N, 2)), "PD": ("D", "P.J", (N, 2)), "RP": ("P", "P.J", (2, 2)),
}  # fmt: skip
PLASTIC = ("U", "RF", "b", "V", "RD")
PAIR = "dw/dt = eta*((match_post - R_post)*v_post - 0.2*r_post)*r_pre*M_post - 0.3*eta*w"


def start_weights():
    rng = np.random.default_rng(7)
    return {n: (0.35 if n[0] == "R" else 0.7) * rng.uniform(-1, 1, shape) for n, (_, _, shape) in WIRES.items()}


def looped(
    labels="all", settle=f"{SETTLE}*ms", learn=f"{LEARN}*ms", apply="trial", filter=None, bounds=(None, None), holds=(), first=(),
    reset=True, rule=PAIR, readout=None,
) -> Circuit:  # fmt: skip
    stream = assemble(
        "stream", STREAM, ports=("I", "A"), inputs=("R", "M"), parameters={"tau": f"{TAU}*second"},
        pools=(pool("match", "r*v"),), holds=holds,
    )  # fmt: skip
    pair = PlasticityRule("pair", rule, {"eta": "10*Hz"}, apply=apply, filter=filter, bounds=bounds)
    weights = start_weights()
    projections = [
        Projection(n, s, t, Given(weights[n]), pair if n in PLASTIC else None) for n, (s, t, _) in WIRES.items()
    ]
    projections += [
        Projection("FD", "F", "D.A", connectivity=OneToOne()), Projection("DF", "D", "F.A", connectivity=OneToOne()), Projection("label", "l", "s.I", connectivity=OneToOne())
    ]  # fmt: skip
    windows = Windows(
        (Phase("settle", settle), Phase("learn", learn, plastic=("pair",))), labels=labels,
        clamps={"x.r": "image", "l.r": "label", "F.R": "same", "D.R": "same", "F.M": "multiplicity", "D.M": "multiplicity"},
    )  # fmt: skip
    return Circuit(
        "looped",
        Fragment((Population("x", PIXELS, SOURCE), Population("l", K, SOURCE), Population("F", N, stream), Population("D", N, stream),
         Population("P", 2, MEET), Population("s", K, SEEN)), projections), Protocol((*first, windows), reset=reset), readout=readout,
    )  # fmt: skip


class Loops:
    """The looped circuit in plain NumPy."""

    def __init__(self, stimuli, windows):
        self.x, self.own = stimuli["image"], stimuli["target"].argmax(axis=1)
        self.windows = windows  # [(label of each sample, multiplicity)]

    @staticmethod
    def fields(w, x, k, u):
        r = {n: np.tanh(u[n]) for n in ("F", "D", "P")}
        return {
            "F": x @ w["U"] + r["F"] @ w["RF"] + w["b"][0],
            "D": w["V"][k] + r["D"] @ w["RD"],
            "vF": r["D"], "vD": r["F"],
            "P": r["F"] @ w["PF"] + r["D"] @ w["PD"] + r["P"] @ w["RP"],
        }  # fmt: skip

    @staticmethod
    def rule(w, x, k, same, multiplicity, u):
        """F of each plastic projection, one sample."""
        r = {n: np.tanh(u[n]) for n in ("F", "D")}
        post = {n: 10 * multiplicity * (((r[n] @ u["v" + n]) - same) * u["v" + n] - 0.2 * r[n]) for n in ("F", "D")}
        pre = {"U": x, "RF": r["F"], "b": np.ones(1), "V": np.eye(K)[k], "RD": r["D"]}
        return {n: np.outer(pre[n], post[WIRES[n][1][0]]) - 3 * w[n] for n in PLASTIC}

    @staticmethod
    def rest():
        return {"F": np.zeros(N), "D": np.zeros(N), "vF": np.zeros(N), "vD": np.zeros(N), "P": np.zeros(2)}

    def mean_rule(self, w, window, states, trial):
        rows = self.rows(trial)
        label, multiplicity = self.windows[window]
        found = [
            self.rule(w, self.x[i], label[i], float(label[i] == self.own[i]), multiplicity, u)
            for i, u in zip(rows, states, strict=True)
        ]
        return {n: np.mean([f[n] for f in found], axis=0) for n in PLASTIC}

    def rows(self, trial):
        return range(trial * self.batch, (trial + 1) * self.batch)

    def run(
        self,
        mode,
        *,
        trials=1,
        apply="trial",
        learn="held",
        tau_filter=None,
        bounds=(None, None),
        reset=True,
        seconds=(0.3, 0.05),
    ):
        """`mode` "euler" or "steady". Weights, what was collected, states at the ends of phases of the last trial."""
        w = start_weights()
        self.batch = len(self.x) // trials
        collected = {n: 0 * w[n] for n in PLASTIC}
        ends, states = {}, None

        def add():
            for n in PLASTIC:
                w[n] = np.clip(w[n] + collected[n], *bounds) if bounds != (None, None) else w[n] + collected[n]
                collected[n] = 0 * w[n]

        for trial in range(trials):
            if states is None or reset:
                states = [self.rest() for _ in self.rows(trial)]
                D = {n: 0 * w[n] for n in PLASTIC}
            for window in range(len(self.windows)):
                label = self.windows[window][0]
                for phase, count in (("settle", SETTLE), ("learn", LEARN)):
                    if mode == "steady":
                        for _ in range(120):
                            for j, i in enumerate(self.rows(trial)):
                                f = self.fields(w, self.x[i], label[i], states[j])
                                states[j] = {n: 0.3 * v + 0.7 * f[n] for n, v in states[j].items()}
                        if phase == "learn":
                            F, T = self.mean_rule(w, window, states, trial), seconds[1]
                            for n in PLASTIC:
                                if tau_filter is None:
                                    collected[n] = collected[n] + T * F[n]
                                else:
                                    collected[n] = (
                                        collected[n]
                                        + F[n] * T
                                        + (D[n] - F[n]) * tau_filter * (1 - np.exp(-T / tau_filter))
                                    )
                                    D[n] = F[n] + (D[n] - F[n]) * np.exp(-T / tau_filter)
                            if learn == "on" and apply == "now":
                                add()
                        ends[f"{phase}[{window}]"] = [dict(u) for u in states]
                    for _ in range(count if mode == "euler" else 0):
                        ends[f"{phase}[{window}]"] = [dict(u) for u in states]
                        fields = [
                            self.fields(w, self.x[i], label[i], u)
                            for i, u in zip(self.rows(trial), states, strict=True)
                        ]
                        if phase == "learn":
                            F = self.mean_rule(w, window, states, trial)
                            for n in PLASTIC:
                                step = F[n] if tau_filter is None else D[n]
                                collected[n] = collected[n] + DT * step
                                if tau_filter is not None:
                                    D[n] = D[n] + DT / tau_filter * (F[n] - D[n])
                            if learn == "on" and apply == "now":
                                add()
                        states = [
                            {n: v + DT / TAU * (f[n] - v) for n, v in u.items()}
                            for u, f in zip(states, fields, strict=True)
                        ]
                    if phase == "learn" and learn == "on" and apply == "phase":
                        add()
            if learn == "on" and apply == "trial":
                add()
        return w, collected, ends


NAMES = {"F": "F.u", "D": "D.u", "vF": "F.v", "vD": "D.v", "P": "P.m"}


def all_windows(samples):
    return [(np.full(samples, k), 1.0) for k in range(K)]


def assert_ends(result, ends, limit, last=None):
    assert set(result.ends) == set(ends)
    for phase, states in ends.items():
        for n, name in NAMES.items():
            got = result.ends[phase][name]
            near(got if last is None else got[-last:], np.array([u[n] for u in states]), limit, f"{phase} {name}")


def assert_changes(got, wanted, limit):
    for n in PLASTIC:
        assert np.abs(wanted[n]).max() > 1e-5, "nothing to learn"
        near(got[n], wanted[n], limit, n)


LONG = {"settle": "300*ms", "learn": "50*ms"}
HOLD = (hold("u_held", "u", "settle[0]"),)
#: Changes that leave the fixed points and what is collected as they are, and make the steady level run the windows one after another.
ONE_AFTER_ANOTHER = {
    "hold": {"holds": HOLD}, "apply phase": {"apply": "phase"}, "no reset": {"reset": False},
}  # fmt: skip


@pytest.mark.parametrize("method", ["anderson", "sweeps"])
@pytest.mark.parametrize("samples", [1, 4])
@pytest.mark.parametrize("forced", ["joined", *ONE_AFTER_ANOTHER])
def test_steady_windows_equal_the_loops(forced, samples, method):
    circuit = looped(**LONG, **ONE_AFTER_ANOTHER.get(forced, {}))
    stimuli = stimuli_of(samples)
    engine = engine_of(circuit, STEADY, samples, method=method)
    assert bool(engine._labels) == (forced == "joined")
    result = engine.present(stimuli, learn="held")
    assert not result.unsettled
    _, collected, ends = Loops(stimuli, all_windows(samples)).run("steady")
    assert_ends(result, ends, 1e-8)
    assert_changes(result.collected, collected, 1e-8)


def test_windows_after_an_ordinary_phase():
    circuit = looped(**LONG, first=(Phase("free", "300*ms", clamps={"x.r": "image"}),))
    stimuli = stimuli_of(4)
    result = play(circuit, STEADY, stimuli)
    _, collected, ends = Loops(stimuli, all_windows(4)).run("steady")
    assert next(iter(result.ends)) == "free"
    near(result.ends["free"]["F.u"], result.ends["settle[1]"]["F.u"], 1e-8)
    assert np.abs(result.ends["free"]["D.u"]).max() < 1e-8  # no label, no bias
    assert_ends(dataclasses.replace(result, ends={p: v for p, v in result.ends.items() if p != "free"}), ends, 1e-8)
    assert_changes(result.collected, collected, 1e-8)


def test_settled_trajectory_equals_the_joined_windows():
    circuit, stimuli = looped(**LONG), stimuli_of(4)
    steady, time = (play(circuit, level, stimuli) for level in (STEADY, TRAJECTORY))
    for phase, values in steady.ends.items():
        for name in NAMES.values():
            near(time.ends[phase][name], values[name], 1e-8, f"{phase} {name}")
    assert_changes(steady.collected, time.collected, 1e-8)


@pytest.mark.parametrize("level", EULER)
@pytest.mark.parametrize("apply", ["now", "phase", "trial"])
def test_windows_in_time(level, apply):
    samples = samples_on(level)
    stimuli = stimuli_of(2 * samples)
    bounds = (-0.62, 0.65) if apply != "now" else (None, None)
    result = play(looped(apply=apply, bounds=bounds), level, stimuli, learn="on", batch=samples)
    w, _, ends = Loops(stimuli, all_windows(2 * samples)).run("euler", trials=2, apply=apply, learn="on", bounds=bounds)
    assert_ends(result, ends, 1e-12, last=samples)
    for n in PLASTIC:
        assert np.abs(w[n] - start_weights()[n]).max() > 1e-3
        near(result.weights[n], w[n], 1e-12, n)


@pytest.mark.parametrize("level", EULER)
def test_windows_in_time_that_go_on_between_trials_and_with_a_filter(level):
    samples = samples_on(level)
    stimuli = stimuli_of(2 * samples)
    result = play(looped(apply="phase", reset=False, filter="5*ms"), level, stimuli, learn="on", batch=samples)
    w, _, ends = Loops(stimuli, all_windows(2 * samples)).run(
        "euler", trials=2, apply="phase", learn="on", reset=False, tau_filter=0.005
    )
    assert_ends(result, ends, 1e-12, last=samples)
    for n in PLASTIC:
        near(result.weights[n], w[n], 1e-12, n)


@pytest.mark.parametrize("apply", ["now", "phase", "trial"])
@pytest.mark.parametrize("filter", [None, 0.02])
def test_steady_weights_after_two_batches(apply, filter):
    stimuli = stimuli_of(8)
    circuit = looped(**LONG, apply=apply, filter=filter and f"{filter}*second")
    result = play(circuit, STEADY, stimuli, learn="on", batch=4)
    w, _, _ = Loops(stimuli, all_windows(8)).run("steady", trials=2, apply=apply, learn="on", tau_filter=filter)
    for n in PLASTIC:
        assert np.abs(w[n] - start_weights()[n]).max() > 1e-2
        near(result.weights[n], w[n], 1e-8, n)


@pytest.mark.parametrize("level", [STEADY, *EULER])
def test_weights_stand_still_unless_learning_is_on(level):
    stimuli = stimuli_of(samples_on(level))
    for learn in ("off", "held"):
        result = play(looped(), level, stimuli, learn=learn)
        assert all(np.array_equal(result.weights[n], w) for n, w in start_weights().items())
        assert bool(result.collected) == (learn == "held")


# ------------------------------------------------------------------ which labels are shown


def shown_in(result, window):
    """What the population `seen` receives."""
    rows = result.ends[f"learn[{window}]"]["s.I"]
    assert np.all((rows == 0) | (rows == 1)) and np.all(rows.sum(axis=1) == 1)
    return rows.argmax(axis=1)


@pytest.mark.parametrize("level", [STEADY, *EULER])
@pytest.mark.parametrize("labels", ["true", "true_and_random"])
def test_other_schedules_equal_the_loops(level, labels):
    samples = samples_on(level)
    stimuli = stimuli_of(samples)
    steady = level == STEADY
    result = play(looped(labels, **(LONG if steady else {})), level, stimuli)
    own = stimuli["target"].argmax(axis=1)
    assert np.array_equal(shown_in(result, 0), own)
    windows = [(own, 1.0)]
    if labels == "true_and_random":
        wrong = shown_in(result, 1)
        assert (wrong != own).all()
        windows.append((wrong, K - 1.0))
    _, collected, ends = Loops(stimuli, windows).run("steady" if steady else "euler")
    assert_ends(result, ends, 1e-8 if steady else 1e-12)
    assert_changes(result.collected, collected, 1e-8 if steady else 1e-12)


def test_all_levels_draw_the_same_wrong_labels_anew_in_each_trial():
    stimuli = stimuli_of(8)
    stimuli["target"][:] = stimuli["target"][0]
    found = {}
    for level in (STEADY, DENSE, TRAJECTORY):
        result = play(looped("true_and_random"), level, stimuli, batch=4)
        found[level] = shown_in(result, 1)
        assert not np.array_equal(found[level][:4], found[level][4:])  # of the two trials, same samples' labels
    assert np.array_equal(found[DENSE], found[TRAJECTORY])
    assert np.array_equal(found[STEADY], found[TRAJECTORY])


# ------------------------------------------------------------------ until, readout


@pytest.mark.parametrize("phase", ["settle[0]", "learn[1]", "settle[2]"])
@pytest.mark.parametrize("level", [STEADY, TRAJECTORY])
def test_trials_that_end_early(level, phase):
    circuit, stimuli = looped(**LONG), stimuli_of(4)
    short = circuit.plan.until(phase)
    result = play(circuit, level, stimuli, learn="off", plan=short)
    names = [p.name for p in circuit.plan.phases]
    assert set(result.ends) == set(names[: names.index(phase) + 1])
    _, _, ends = Loops(stimuli, all_windows(4)).run("steady")
    assert_ends(result, {p: v for p, v in ends.items() if p in result.ends}, 1e-8)


@pytest.mark.parametrize("level", [STEADY, TRAJECTORY])
@pytest.mark.parametrize("phase", ["settle[0]", "settle[2]"])
def test_readout_in_a_window(level, phase):
    circuit = looped(**LONG, readout=Readout("s.y", phase))
    stimuli = stimuli_of(4)
    result = neurosim.simulate(
        circuit,
        stimuli["image"],
        stimuli["target"].argmax(axis=1),
        level=level,
        batch_size=4,
        dt="1*ms",
        plasticity="off",
        progress=False,
    )
    assert (result.ends[phase]["s.y"].argmax(axis=1) == int(phase[-2])).all()


@pytest.mark.parametrize("level", EULER)
def test_recorded_phases_follow_one_another(level):
    circuit, stimuli = looped(), stimuli_of(samples_on(level))
    engine = engine_of(circuit, level, len(stimuli["image"]))
    options = engine.options
    recording = Recording(Recorder(["s.I", "D.u"]), circuit.plan, len(stimuli["image"]), options.dt)
    engine.present(stimuli, learn="off", record=recording)
    traces = recording.traces()
    shown = traces.values["s.I"][:, 0].argmax(axis=1)
    assert np.array_equal(shown, np.repeat(range(K), SETTLE + LEARN))
    assert [p.name for p in circuit.plan.phases] == [f"{b}[{k}]" for k in range(K) for b in ("settle", "learn")]


# ------------------------------------------------------------------ axes: a circuit of two streams without loops

PLAIN = """
    du/dt = (-u + I)/tau : 1
    dv/dt = (-v + A)/tau : 1
    r = tanh(u) : 1
    I : 1
    A : 1
    R : 1
"""


def plain(
    rule, extra="", *, pools=(), parameters=None, values=None, inputs=(), phases=None, clamps=None, overlaps=(), holds=(), n=N,
    shared=None, start=None,
) -> Circuit:  # fmt: skip
    """x -> c.I by U, label -> c.A by V: u differs between samples, v between labels."""
    cell = assemble(
        "both", PLAIN + extra, ports=("I", "A"), inputs=("R", *inputs), parameters={"tau": f"{TAU}*second", **(parameters or {})},
        pools=pools, overlaps=overlaps, holds=holds,
    )  # fmt: skip
    phases = phases or (Phase("settle", "400*ms"), Phase("learn", "50*ms", plastic=("q",)))
    return Circuit(
        "plain", [Population("x", PIXELS, SOURCE), Population("l", K, SOURCE), Population("c", n, cell, values or {}),
         Projection("U", "x", "c.I", Uniform(-1, 1), PlasticityRule("q", rule, {"eta": "1*Hz"}, apply="trial")),
         Projection("V", "l", "c.A", Uniform(-1, 1))],
        Protocol((Windows(phases, clamps={"x.r": "image", "l.r": "label", "c.R": "same", **(clamps or {})}),), shared=shared or {}),
    )  # fmt: skip


def plain_change(circuit, stimuli, post):
    """``post(u, v, R, x, k)`` -> post factor of one sample and window; change of U after 50 ms in each window."""
    w = circuit.initial_weights(0)
    found = 0.0
    for x, own in zip(stimuli["image"], stimuli["target"].argmax(axis=1), strict=True):
        for k in range(K):
            found = found + 0.05 * np.outer(x, post(x @ w["U"], w["V"][k], float(k == own), x, k))
    return found / len(stimuli["image"])


A = np.arange(1.0, N + 1)


def per_map(z):
    return np.repeat(z.reshape(2, -1).sum(axis=1), N // 2)


MIXED = {
    "pool": ("dw/dt = eta*(m_post - R_post)*v_post*r_pre", {"pools": (pool("m", "r*v"),)},
             lambda u, v, R, x, k: (np.tanh(u) @ v - R) * v),
    "pool of a number per sample and window": ("dw/dt = eta*m_post*v_post*r_pre", {"pools": (pool("m", "R"),)},
             lambda u, v, R, x, k: N * R * v),
    "pool of a sum with that number": ("dw/dt = eta*m_post*v_post*r_pre", {"pools": (pool("m", "r*v + R"),)},
             lambda u, v, R, x, k: (np.tanh(u) @ v + N * R) * v),
    "pool of a sum with a constant": ("dw/dt = eta*m_post*v_post*r_pre", {"pools": (pool("m", "r*v + c"),), "parameters": {"c": 0.3}},
             lambda u, v, R, x, k: (np.tanh(u) @ v + N * 0.3) * v),
    "pool of a sum with a variable": ("dw/dt = eta*m_post*v_post*r_pre", {"pools": (pool("m", "r*v + r**2 - v"),)},
             lambda u, v, R, x, k: (np.tanh(u) @ v + (np.tanh(u) ** 2).sum() - v.sum()) * v),
    "pool with values of cells": ("dw/dt = eta*m_post*v_post*r_pre",
             {"pools": (pool("m", "R*a*v"),), "parameters": {"a": 1.0}, "values": {"a": A}},
             lambda u, v, R, x, k: R * (A @ v) * v),
    "pool of a pool": ("dw/dt = eta*m2_post*v_post*r_pre",
             {"pools": (pool("m", "r*v"), pool("m2", "(r - v)*m")), "extra": ""},
             lambda u, v, R, x, k: (np.tanh(u) @ v) * (np.tanh(u) - v).sum() * v),
    "rule with values of cells": ("dw/dt = eta*R_post*a_post*r_pre", {"parameters": {"a": 1.0}, "values": {"a": A}},
             lambda u, v, R, x, k: R * A),
    "rule with values of cells and labels": ("dw/dt = eta*(R_post - 0.2)*a_post*v_post*r_pre", {"parameters": {"a": 1.0}, "values": {"a": A}},
             lambda u, v, R, x, k: (R - 0.2) * A * v),
    "square of a sum": ("dw/dt = eta*(r_post + v_post)**2*r_pre", {}, lambda u, v, R, x, k: (np.tanh(u) + v) ** 2),
    "subexpression": ("dw/dt = eta*mix_post**2*r_pre", {"extra": "mix = r*v + R*u : 1\n"},
             lambda u, v, R, x, k: (np.tanh(u) * v + R * u) ** 2),
    "sample alone": ("dw/dt = eta*r_post*r_pre", {}, lambda u, v, R, x, k: np.tanh(u)),
    "label alone": ("dw/dt = eta*v_post*r_pre", {}, lambda u, v, R, x, k: v),
    "neither": ("dw/dt = eta*R_post*r_pre", {}, lambda u, v, R, x, k: R * np.ones(N)),
    "pool over a map": ("dw/dt = eta*m_post*r_post*r_pre", {"pools": (pool("m", "v", over="map"),), "n": (2, 1, N // 2)},
             lambda u, v, R, x, k: per_map(v) * np.tanh(u)),
    "input that changes within the window": ("dw/dt = eta*Y_post*v_post*r_pre",
             {"extra": "Y : 1\n", "inputs": ("Y",), "phases": (Phase("settle", "400*ms"), Phase("learn", "50*ms", clamps={"c.Y": "same"}, plastic=("q",)))},
             lambda u, v, R, x, k: R * v),
}  # fmt: skip


@pytest.mark.parametrize("samples", [1, 4])
@pytest.mark.parametrize("case", MIXED)
def test_joined_windows_of_two_streams(case, samples):
    rule, settings, post = MIXED[case]
    circuit, stimuli = plain(rule, **settings), stimuli_of(samples)
    result = play(circuit, STEADY, stimuli)
    near(result.collected["U"], plain_change(circuit, stimuli, post), 1e-12, case)


@pytest.mark.parametrize("case", MIXED)
def test_settled_windows_of_two_streams_in_time(case):
    """The same loops hold for the trajectory, which knows nothing of axes."""
    rule, settings, post = MIXED[case]
    circuit, stimuli = plain(rule, **settings), stimuli_of(4)
    near(play(circuit, TRAJECTORY, stimuli).collected["U"], plain_change(circuit, stimuli, post), 1e-9, case)


def test_pool_of_an_input_over_the_batch():
    circuit = plain("dw/dt = eta*m_post*v_post*r_pre", pools=(pool("m", "R", over="batch"),))
    stimuli = stimuli_of(4)
    own = stimuli["target"].argmax(axis=1)
    wanted = plain_change(circuit, stimuli, lambda u, v, R, x, k: (own == k).mean() * v)
    near(play(circuit, TRAJECTORY, stimuli).collected["U"], wanted, 1e-9)
    near(play(circuit, STEADY, stimuli).collected["U"], wanted)


def test_a_state_that_is_held_in_one_phase_and_moves_in_another():
    """In window k it starts from what window k - 1 has left, so windows cannot all be run at once."""
    circuit = plain(
        "dw/dt = eta*mem_post*r_pre", extra="dmem/dt = gate*(A - mem)/tau : 1\ngate : 1 (shared)\n",
        phases=(Phase("use", "50*ms", shared={"gate": 0.0}, plastic=("q",)), Phase("store", "400*ms", shared={"gate": 1.0})),
    )  # fmt: skip
    stimuli, w = stimuli_of(4), circuit.initial_weights(0)
    wanted = plain_change(circuit, stimuli, lambda u, v, R, x, k: w["V"][k - 1] if k else 0 * v)
    near(play(circuit, TRAJECTORY, stimuli).collected["U"], wanted, 1e-9)
    near(play(circuit, STEADY, stimuli).collected["U"], wanted)


def test_a_rule_that_is_no_product_is_refused_or_right():
    """tanh(r v) mixes what differs between samples with what differs between labels; a hold makes the windows follow one another."""
    stimuli = stimuli_of(4)
    rule, post = "dw/dt = eta*tanh(r_post*v_post)*r_pre", lambda u, v, R, x, k: np.tanh(np.tanh(u) * v)
    circuit = plain(rule, holds=(hold("h", "u", "settle[0]"),))
    near(play(circuit, STEADY, stimuli).collected["U"], plain_change(circuit, stimuli, post))
    circuit = plain(rule)
    try:
        result = play(circuit, STEADY, stimuli)
    except UnsupportedError as error:
        assert "Population 'c': 'tanh(r*v)'" in str(error) and "Write it as a sum of products" in str(error)
    else:
        near(result.collected["U"], plain_change(circuit, stimuli, post))


def test_such_a_rule_does_not_stand_in_the_way_of_evaluation():
    """Without learning its factors are not needed."""
    circuit, stimuli = plain("dw/dt = eta*tanh(r_post*v_post)*r_pre"), stimuli_of(4)
    result = play(circuit, STEADY, stimuli, learn="off")
    near(result.ends["learn[1]"]["c.v"], np.tile(circuit.initial_weights(0)["V"][1], (4, 1)))


# ------------------------------------------------------------------ overlaps in windows


def overlap_of(rows):
    return (rows @ rows.T @ rows - rows) / len(rows)


@pytest.mark.parametrize("of", ["r", "v"])
@pytest.mark.parametrize("samples", [1, 4])
def test_overlap_in_joined_windows(of, samples):
    """Of a variable by sample: between samples. By label: between labels."""
    circuit, stimuli = plain("dw/dt = eta*X_post*r_pre", overlaps=(overlap("X", of),)), stimuli_of(samples)
    w = circuit.initial_weights(0)
    rows = overlap_of(np.tanh(stimuli["image"] @ w["U"])) if of == "r" else overlap_of(w["V"])
    order = {x.tobytes(): i for i, x in enumerate(stimuli["image"])}
    wanted = plain_change(circuit, stimuli, lambda u, v, R, x, k: rows[order[x.tobytes()] if of == "r" else k])
    near(play(circuit, STEADY, stimuli).collected["U"], wanted)


def test_overlap_of_labels_in_windows_one_after_another_is_the_same_or_refused():
    stimuli = stimuli_of(4)
    settings = {"overlaps": (overlap("X", "v"),)}
    joined = play(plain("dw/dt = eta*X_post*r_pre", **settings), STEADY, stimuli).collected["U"]
    try:
        result = play(
            plain("dw/dt = eta*X_post*r_pre", holds=(hold("h", "u", "settle[0]"),), **settings), STEADY, stimuli
        )
    except NeurosimError:
        return
    near(result.collected["U"], joined)


# ------------------------------------------------------------------ states visited once in order; drives kept between phases

LEAKY = Cell("leaky", "du/dt = (-u + I)/tau : 1\nr = tanh(u) : 1\nI : 1 (port)", parameters={"tau": f"{TAU}*second"})


def chain(cell, phases, *, sent="", clamps=None, loop=False):
    """x -> s.I (identity) where s has a port; s.`sent` -> p.I by W; p -> q.I by V; with `loop` p -> p."""
    projections = [
        Projection("W", f"s{sent}", "p.I", Uniform(-1, 1)),
        Projection("V", "p", "q.I", Uniform(-1, 1)),
    ]
    if "(port)" in cell.equations:
        projections.append(Projection("E", "x", "s.I", connectivity=OneToOne()))
    if loop:
        projections.append(Projection("L", "p", "p.I", Uniform(-0.3, 0.3)))
    return Circuit(
        "chain", Fragment((Population("x", PIXELS, SOURCE), Population("s", PIXELS, cell), Population("p", 3, LEAKY), Population("q", 2, LEAKY)), projections), Protocol(phases, clamps={"x.r": "image", **(clamps or {})}),
    )  # fmt: skip


def assert_settled(circuit, stimuli, wanted, loop=False):
    """`wanted`: what s sends in each phase."""
    w = circuit.initial_weights(0)
    for level in (TRAJECTORY, STEADY):
        result = play(circuit, level, stimuli, learn="off")
        for phase, sent in wanted.items():
            u = sent @ w["W"]
            for _ in range(200 if loop else 0):
                u = sent @ w["W"] + np.tanh(u) @ w["L"]
            near(result.ends[phase]["p.u"], u, 1e-8, f"{level} {phase} p")
            near(result.ends[phase]["q.u"], np.tanh(u) @ w["V"], 1e-8, f"{level} {phase} q")


def two(**shared):
    return tuple(
        Phase(name, "500*ms", shared={n: v[k] for n, v in shared.items()}) for k, name in enumerate(("first", "second"))
    )


TAUS = {"tau": f"{TAU}*second"}


@pytest.mark.parametrize("loop", [False, True])
def test_a_source_without_states_reads_a_shared_value(loop):
    cell = Cell("s", "r = gain*y : 1\ny : 1 (input)\ngain : 1 (shared)")
    circuit, stimuli = chain(cell, two(gain=(0.5, 2.0)), clamps={"s.y": "image"}, loop=loop), stimuli_of(3)
    x = stimuli["image"]
    assert_settled(circuit, stimuli, {"first": 0.5 * x, "second": 2.0 * x}, loop)


@pytest.mark.parametrize("loop", [False, True])
def test_a_source_whose_state_is_held_reads_a_shared_value(loop):
    cell = Cell(
        "s",
        "dm/dt = gate*(I - m)/tau : 1\nr = gain*m : 1\nI : 1 (port)\ngate : 1 (shared)\ngain : 1 (shared)",
        parameters=TAUS,
    )
    circuit, stimuli = chain(cell, two(gain=(0.5, 2.0), gate=(1.0, 0.0)), loop=loop), stimuli_of(3)
    x = stimuli["image"]
    assert_settled(circuit, stimuli, {"first": 0.5 * x, "second": 2.0 * x}, loop)


@pytest.mark.parametrize("loop", [False, True])
def test_a_sent_variable_of_a_hold(loop):
    cell = Cell("s", "du/dt = (-u + I)/tau : 1\nr = tanh(u) : 1\ng = 1 + h : 1\nI : 1 (port)\nh = hold(u, first) : 1", parameters=TAUS)  # fmt: skip
    circuit, stimuli = chain(cell, two(), sent=".g", loop=loop), stimuli_of(3)
    x = stimuli["image"]
    assert_settled(circuit, stimuli, {"first": np.ones_like(x), "second": 1 + x}, loop)


@pytest.mark.parametrize("loop", [False, True])
def test_a_sent_variable_that_no_state_reaches(loop):
    """s sends its rate and, to p, a variable of an input and of a shared value."""
    cell = Cell("s", "du/dt = (-u + I)/tau : 1\nr = tanh(u) : 1\ng = gain*y**2 : 1\nI : 1 (port)\ny : 1 (input)\ngain : 1 (shared)", parameters=TAUS)  # fmt: skip
    circuit = chain(cell, two(gain=(0.5, 2.0)), sent=".g", clamps={"s.y": "image"}, loop=loop)
    circuit = dataclasses.replace(circuit, fragment=[*circuit.fragment, Projection("T", "s", "q.I", Uniform(0, 0))])
    stimuli = stimuli_of(3)
    x = stimuli["image"]
    assert_settled(circuit, stimuli, {"first": 0.5 * x**2, "second": 2.0 * x**2}, loop)


@pytest.mark.parametrize("loop", [False, True])
def test_a_pool_of_inputs_in_a_population_that_sends(loop):
    cell = Cell("s", "du/dt = (-u + I/(1 + norm))/tau : 1\nr = tanh(u) : 1\nI : 1 (port)\ny : 1 (input)\nnorm = pool(y**2) : 1", parameters=TAUS)  # fmt: skip
    phases = (Phase("first", "500*ms"), Phase("second", "500*ms", clamps={"s.y": "image"}))
    circuit, stimuli = chain(cell, phases, loop=loop), stimuli_of(3)
    x = stimuli["image"]
    shunted = x / (1 + (x**2).sum(axis=1, keepdims=True))
    assert_settled(circuit, stimuli, {"first": np.tanh(x), "second": np.tanh(shunted)}, loop)


# ------------------------------------------------------------------ errors


LABELS_AND_PICTURE = (Population("l", K, SOURCE), Population("x", PIXELS, SOURCE))


def small(windows, *more, populations=LABELS_AND_PICTURE):
    return Circuit("small", Fragment(populations), Protocol((*more, windows)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: small(Windows((Phase("a", "1*ms"),))), r"Windows show labels: nothing is clamped to it; wanted inputs"),
        (lambda: small(Windows((), clamps={"l.r": "label"})), r"Windows without a phase; give"),
        (lambda: small(Windows((Phase("a", "1*ms"),), labels="every", clamps={"l.r": "label"})), r"no labels 'every'. Known: all, true_and_random, true"),
        (lambda: small(Windows((Phase("a", "1*ms"),), clamps={"l.r": "label", "x.r": "label"})), r"those clamped have \[3, 5\] cells"),
        (lambda: small(Windows((Phase("a", "1*ms"),), clamps={"l.r": "label"}), Phase("a", "1*ms")), r"Two of one name: phase 'a'"),
        (lambda: small(Phase("a", "1*ms", clamps={"l.r": "label"})), r"'l.r' names the field 'label', which has a value inside Windows alone \(so have label, same and multiplicity\)"),
        (lambda: small(Windows((Phase("a", "1*ms"),), clamps={"l.r": "label"}), populations=(Population("l", 1, SOURCE),)), r"Windows over the labels of 1 class; wanted at least two"),
        (lambda: looped(readout=Readout("s.y", "settle")), r"Readout: There is no phase 'settle'. .* Known: settle\[0\]"),
        (lambda: looped(holds=(hold("h", "u", "setle"),)), r"the hold 'h' waits for a phase. There is no phase 'setle'. Did you mean 'settle'"),
    ],
)  # fmt: skip
def test_errors_name_the_cure(make, message):
    with pytest.raises(CircuitError, match=message):
        make()


def test_a_typo_in_the_label_clamp_is_named():
    with pytest.raises(CircuitError, match=r"no population 'll'"):
        small(Windows((Phase("a", "1*ms"),), clamps={"ll.r": "label"}))


def test_windows_of_a_bare_phase_are_refused_by_name():
    with pytest.raises(CircuitError, match=r"Windows"):
        small(Windows(Phase("a", "1*ms"), clamps={"l.r": "label"}))


@pytest.mark.parametrize("labels", [[0, 1, 3, 2], [0, -1, 1, 2]])
def test_labels_that_are_no_classes(labels):
    with pytest.raises(NeurosimError, match=r"circuit's target has 3 classes \(0 to 2\)"):
        neurosim.simulate(looped(), stimuli_of(4)["image"], np.array(labels), level=STEADY, progress=False)


def test_missing_labels():
    with pytest.raises(NeurosimError, match=r"labels are needed"):
        neurosim.simulate(looped(), stimuli_of(4)["image"], level=STEADY, progress=False)


# ---------------------------------------------------------------- loops of one's own


@dataclass(frozen=True)
class Repeat(Loop):
    """The same phases several times; `turn_number` counts them."""

    times: int
    phases: tuple[Phase, ...]
    clamps: Mapping[str, str] = field(default_factory=dict)
    names = ("turn_number",)

    def count(self, classes: int) -> int:
        return self.times

    def fields(self, index: int, target: Any, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return {"turn_number": np.full((1, 1), float(index))}

    def text(self, classes: int) -> str:
        return f"{self.times} times"


@pytest.mark.parametrize("level", ["brian2:equations", "brian2:dense", "torch:trajectory", "torch:steady"])
def test_a_loop_of_ones_own_runs_on_every_level(level):
    """Leaky cells that are driven by the picture and the turn's number."""
    text = "du/dt = (-u + x + n)/tau : 1\nx : 1 (input)\nn : 1 (input)"
    cell = Cell("leaky", text, {"tau": "10*ms"}, rate="u")
    protocol = Protocol((Repeat(3, (Phase("rest", "20*ms"),)),), {"a.x": "image", "a.n": "turn_number"}, dt="1*ms")
    circuit = Circuit("repeated", [Population("a", 1, cell)], protocol)
    ends = simulate(circuit, np.array([[1.0], [2.0]]), level=level, record=["a.u"], progress=False).ends
    assert list(ends) == ["rest[0]", "rest[1]", "rest[2]"]
    u, x = np.zeros((2, 1)), np.array([[1.0], [2.0]])
    for k in range(3):
        steps = [u := 0.9 * u + 0.1 * (x + k) for _ in range(20)]
        shown = x + k if level == "torch:steady" else steps[-2]  # a step is recorded before its states move on
        np.testing.assert_allclose(ends[f"rest[{k}]"]["a.u"], shown, atol=1e-6)
