"""The dendritic microcircuit of Sacramento 2018 and BAC firing, live on every level that claims them.

Oracles: tests/oracles/dendritic_microcircuit.py (NumPy and SciPy, written from the note alone); numbers of the note; replays of a
run's own step by hand; for learning, how far an error falls.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import zlib
from functools import lru_cache
from unittest import mock

import numpy as np
import pytest
from conftest import run_circuit

import neurosim
from neurosim.analysis import ReferenceNet, cosine
from neurosim.backends import engine_class
from neurosim.backends.engine import Options
from neurosim.cli import main
from neurosim.errors import NeurosimError
from neurosim.models import bac_firing
from neurosim.models import dendritic_microcircuit as model
from neurosim.training import Trainer, resolve, train
from tests.oracles import dendritic_microcircuit as oracle

EULER = ("brian2:equations", "brian2:dense", "torch:trajectory")
STEADY = "torch:steady"
SIZES = (6, 5, 4, 3)
WEAK = {"g_A": 0.1, "g_som": 0.1}

# Numbers of the note, section 6.4, in seconds: eta of W from the bottom up in a net of three layers, of IP, of PI.
PUBLISHED = {
    "self_prediction": ((0.0, 0.0, 0.0), 0.2375, 0.5),
    "single_target": ((1.1875, 1.1875, 0.5), 1.1875, 0.5),
    "teacher": ((1.1875, 1.1875, 0.5), 1.1875, 5.9375),
}
#: dt, tau_0, tau_w of W, IP and PI, and conductances, in seconds.
SETS = {
    "standard": (1e-4, 3e-3, (30e-3, 30e-3, 30e-3), oracle.STANDARD),
    "latent_equilibrium": (1e-5, 1e-5, (100e-3, 1e-5, 1e-5), oracle.LATENT),
}


@lru_cache(maxsize=64)
def build(**settings):
    return model.circuit(**settings)


def faster(circuit, factors):
    """The circuit with the learning rates of W, IP, PI times these, so that weights move far in a short run."""
    plan, projections = circuit.plan, []
    factor = dict(zip(("feedforward", "interneuron", "apical"), factors, strict=True))
    for p in circuit.projections:
        if p.rule is not None:
            eta = plan.projections[p.name].rule.parameters["eta"] * factor[p.rule.name]
            p = dataclasses.replace(p, rule=dataclasses.replace(p.rule, parameters={"eta": f"{eta!r}*hertz"}))
        projections.append(p)
    return dataclasses.replace(circuit, projections=tuple(projections))


def in_seconds(text: str) -> float:
    number, unit = text.split("*")
    return float(number) * {"ms": 1e-3, "second": 1.0}[unit]


def layers(weights, n: int = 3, feedback: str = "sym"):
    """Weights by projection as the oracle's W, B (None: `sym`), IP, PI."""
    W = [weights[f"W{l}"] for l in range(1, n + 1)]
    B = None if feedback == "sym" else [weights[f"B{l}"] for l in range(1, n)]
    return W, B, [weights[f"IP{l}"] for l in range(1, n)], [weights[f"PI{l}"] for l in range(1, n)]


def shares(g, n: int) -> list[float]:
    """By what an error at the target shrinks on its way to each layer, by hand: conductances over their sums."""
    teaching = g["g_som"] / (g["g_lk"] + g["g_B"] + g["g_som"])
    apical = g["g_A"] / (g["g_lk"] + g["g_B"] + g["g_A"])
    mismatch = 1 - g["g_som"] / (g["g_lk"] + g["g_D"] + g["g_som"])  # what the interneuron's teacher leaves of it
    return [teaching * (apical * mismatch) ** (n - l) for l in range(1, n + 1)]


def samples(count: int, sizes=SIZES, seed: int = 3):
    rng = np.random.default_rng(seed)
    return rng.uniform(0, 1, (count, sizes[0])), np.eye(sizes[-1])[rng.integers(0, sizes[-1], count)]


# ---------------------------------------------------------------- Euler trajectories against the oracle


class Script:
    """What changes between the steps of one run of the oracle: stimulus, target potential, whether the rules are on.

    The oracle's `euler` plays one stimulus and learns in each step. It calls `noise` once per population and step, after the
    weights and before r_0 moves: there the next step's values are put into the arrays that it reads.
    """

    def __init__(self, x, u_target, on, normals):
        self.by_step, self.normals = (x, u_target, on), normals
        self.x, self.u_target, self.on = x[0].copy(), u_target[0].copy(), on[0]

    def noise(self, step, name, shape):
        x, u_target, on = self.by_step
        if name == "pyr1":
            following = min(step + 1, len(on) - 1)
            self.x[...] = x[step]  # r_0 of this step is still to come
            self.u_target[...], self.on = u_target[following], on[following]
        return self.normals(step, name, shape)

    def rates(self, values):
        script = self

        class Rates:
            def __getitem__(self, i):
                return values[i] if script.on else 0.0

        return Rates()

    def filter(self, taus):
        """tau_w of one projection after the other, as the oracle asks; a trace stands still while its rule is off."""
        script, cycle = self, itertools.cycle(taus)

        class Filter:
            def __rtruediv__(self, dt):
                tau = next(cycle)
                return dt / tau if script.on else 0.0

        return Filter()


def truth(settings, weights, x, y, batch, factors=(1, 1, 1), normals=None):
    """The oracle's run of what `model.circuit(**settings)` promises; states by name (steps, batch, n), weights by name."""
    task, parameters = settings.get("task", "classification"), settings.get("parameters", "standard")
    feedback, ahead = settings.get("feedback", "sym"), parameters == "latent_equilibrium"
    dt, tau_0, tau_w, g = SETS[parameters]
    pattern, n = in_seconds(settings["pattern"]), len(SIZES) - 1
    if task == "classification":
        lag = 0.2 * pattern if ahead else in_seconds(settings["lag"])
        phases = [(lag, 0.0, False), (pattern - lag, 0.0, True), (lag, 1.0, False), (pattern - lag, 1.0, True)]
        learning = [settings["eta"] / (pattern - lag) / s for s in shares(g, n)]
        etas = (learning, *([settings["eta_lateral"] / (pattern - lag)] * (n - 1) for _ in range(2)))
    else:
        phases = [(pattern, 0.0 if task == "self_prediction" else 1.0, True)]
        forward, interneuron, apical = PUBLISHED[task]
        etas = (forward, [interneuron] * (n - 1), [apical] * (n - 1))
    etas = [[factor * eta for eta in family] for factor, family in zip(factors, etas, strict=True)]
    if "tau_w" in settings:
        tau_w = None if settings["tau_w"] == "off" else (in_seconds(settings["tau_w"]),) * 3
    taus = tau_w and [tau_w[0]] * n + [tau_w[1]] * (n - 1) + [tau_w[2]] * (n - 1)
    trials = [slice(k, k + batch) for k in range(0, len(x), batch)]
    if task != "classification":  # states outlive a trial: one run over all patterns
        trials = [trials]
    parts, now = [], {name: w.copy() for name, w in weights.items()}
    for trial in trials:
        rows = trial if isinstance(trial, list) else [trial]
        plan = [(round(length / dt), teach, on, row) for row in rows for length, teach, on in phases]
        by_step = [(x[row], 2 * y[row] - 1, on) for count, _, on, row in plan for _ in range(count)]
        script = Script(*zip(*by_step, strict=True), normals or (lambda step, name, shape: np.zeros(shape)))
        with mock.patch.object(oracle, "target_potential", lambda *_, script=script: script.u_target):
            run = oracle.euler(
                *layers(now, n, feedback), script.x, None, g, dt=dt, learn=True, tau_0=tau_0, sym=feedback == "sym",
                protocol=[(count * dt, teach) for count, teach, *_ in plan], noise=script.noise,
                eta_W=script.rates(etas[0]), eta_IP=script.rates(etas[1]), eta_PI=script.rates(etas[2]),
                tau_w=script.filter(taus) if taus else None,
                tau_d=in_seconds(settings["tau_dendrite"]) if "tau_dendrite" in settings else None,
                sigma=settings.get("sigma", 0.0) * np.sqrt(1e3),
                tau_eff=oracle.effective_time_constants(g, n) if ahead else None, prospective_teaching=ahead,
            )  # fmt: skip
        for family in ("W", "IP", "PI"):
            now |= {f"{family}{l}": w for l, w in enumerate(run[family], 1)}
        states = {"inp.r": run["r_0"]}
        for name, of in (("u", "pyr"), ("r", "pyr"), ("v_B", "pyr"), ("v_A", "pyr"), ("v_D", "int")):
            states |= {f"{of}{l}.{name}": path for l, path in enumerate(run[name], 1)}
        for name, source in (("u", "u_int"), ("r", "r_int")):
            states |= {f"int{l}.{name}": path for l, path in enumerate(run[source], 1)}
        parts.append({name: path[:-1] for name, path in states.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, now


def normals_of(circuit, batch, seed, steps):
    """The numbers that neurosim/backends/noise.py documents: one stream per population and noise variable."""
    drawn = {}
    for name, p in circuit.plan.populations.items():
        for noise in p.noises:
            stream = np.random.default_rng([seed, 2, zlib.crc32(f"{name}.{noise}".encode())])
            drawn[name] = stream.standard_normal((steps, batch, p.n))
    return lambda step, name, shape: drawn[name][step]


def live(circuit, level, weights, x, y, batch, dt, variables, **options):
    fields = {"image": x, "target": y}
    weights = {name: w.copy() for name, w in weights.items()}
    return run_circuit(circuit, level, fields, weights, dt=dt, batch=batch, record=tuple(variables), **options)


CASES = {
    "teacher": {"task": "teacher", "pattern": "5*ms"},
    "teacher-fa-random": {"task": "teacher", "feedback": "fa", "lateral": "random", "tau_w": "off", "pattern": "5*ms"},
    "target-random-dendrites": {
        "task": "single_target", "lateral": "random", "tau_dendrite": "1*ms", "tau_w": "4*ms", "pattern": "5*ms",
    },
    "self-prediction": {"task": "self_prediction", "feedback": "fa", "lateral": "random", "pattern": "5*ms"},
    "classification": {"eta": 0.1, "eta_lateral": 0.1, "tau_w": "off", "pattern": "4*ms", "lag": "1.5*ms"},
    "classification-fa-random": {
        "feedback": "fa", "lateral": "random", "eta": 0.2, "eta_lateral": 0.3, "pattern": "4*ms", "lag": "1*ms",
    },
    "noise": {"task": "teacher", "sigma": 0.3, "pattern": "5*ms"},
    "latent-teacher": {"task": "teacher", "parameters": "latent_equilibrium", "pattern": "0.4*ms"},
    "latent-classification": {
        "parameters": "latent_equilibrium", "feedback": "fa", "lateral": "random", "eta": 0.1, "eta_lateral": 0.1,
        "pattern": "0.4*ms",
    },
}  # fmt: skip
#: Learning rates of W, IP and PI times these: the published ones move a weight by 1e-5 in so short a time.
FASTER = {
    "classification": (1, 1, 1), "latent-classification": (1e3, 1, 1), "latent-teacher": (1e5, 1e3, 1e2),
}  # fmt: skip
RUNS = [(name, "brian2:equations", 1) for name in CASES]
RUNS += [(name, level, 3) for name in CASES for level in EULER[1:]]
RUNS += [("teacher", level, 1) for level in EULER[1:]]


@lru_cache(maxsize=32)
def expected(case: str, batch: int):
    settings = CASES[case]
    factors = FASTER.get(case, (100, 100, 100))
    circuit = faster(build(sizes=SIZES, **settings), factors)
    weights = circuit.initial_weights(1)
    x, y = samples(2 * batch)
    steps = 2 * round(in_seconds(settings["pattern"]) / SETS[settings.get("parameters", "standard")][0])
    normals = normals_of(circuit, batch, 0, steps) if "sigma" in settings else None
    return circuit, weights, x, y, *truth(settings, weights, x, y, batch, factors, normals)


@pytest.mark.parametrize(("case", "level", "batch"), RUNS)
def test_two_patterns_equal_the_oracle(case, level, batch):
    """All states in each step, all weights at the end, learning on. Tasks with a standing target keep states and traces."""
    circuit, weights, x, y, states, after = expected(case, batch)
    dt = SETS[CASES[case].get("parameters", "standard")][0]
    result = live(circuit, level, weights, x, y, batch, dt, states)
    for name, path in states.items():
        assert result.traces[name].shape == path.shape, name
        assert np.abs(result.traces[name] - path).max() <= 1e-12, name
    for name, value in after.items():
        assert np.abs(result.weights[name] - value).max() <= 1e-12, name
    still = {"B1", "B2"} | ({"W1", "W2", "W3"} if "self-prediction" in case else set())
    for name in {"W1", "W2", "W3", "IP1", "IP2", "PI1", "PI2", "B1", "B2"} & set(after):
        moved = np.abs(after[name] - weights[name]).max()
        assert (moved == 0) == (name in still), name
        print(name, moved)
        assert moved == 0 or moved > 1e-4, name


def test_the_noise_is_that_of_the_seed():
    circuit, weights, x, y, states, _ = expected("noise", 3)
    other = live(circuit, "torch:trajectory", weights, x, y, 3, 1e-4, ["pyr1.u"])
    assert np.abs(other.traces["pyr1.u"] - states["pyr1.u"]).max() <= 1e-12
    engine = engine_class("torch:trajectory")(circuit.plan, weights, Options(batch=3, dt=1e-4, seed=1, progress=False))
    again = engine.present({"image": x, "target": y}, record=[("pyr1", "u")])
    assert np.abs(again.traces["pyr1.u"] - states["pyr1.u"]).max() > 0.01


