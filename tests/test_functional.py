"""The settled trial as a pure function: `torch:steady` is its twin, finite differences and loops its oracles, and what it refuses.

`zoo` has on purpose every kind of connectivity, tie, pool, parameter and rule term that the function claims.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from importlib import import_module

import numpy as np
import pytest
import torch
from circuits import assemble, pool

from neurosim import (
    SOURCE,
    Cell,
    Circuit,
    Conv2d,
    Fragment,
    Given,
    Glorot,
    OneToOne,
    PerMap,
    Phase,
    PlasticityRule,
    Population,
    Projection,
    Protocol,
    Readout,
    Tied,
    Uniform,
)
from neurosim.backends.torch.functional import FunctionalTrial
from neurosim.errors import NeurosimError, UnsupportedError
from neurosim.training.evolution.lifetime import InnerOptimiser, Learners, Life, accuracy, loss
from tests.conftest import run_circuit

STEADY = "torch:steady"
TAU = {"tau": "10*ms"}
LEAKY = Cell("leaky", "du/dt = (-u + I)/tau : 1\nr = tanh(u) : 1\nI : 1 (port)", parameters=TAU)


def near(got, wanted, limit=1e-12, what=""):
    got, wanted = np.asarray(got), np.asarray(wanted)
    assert got.shape == wanted.shape, f"{what}: shape {got.shape}, wanted {wanted.shape}"
    worst = float(np.abs(got - wanted).max())
    assert worst <= limit * max(1.0, float(np.abs(wanted).max())), f"{what}: off by {worst:.1e}"


def tensors(values) -> dict[str, torch.Tensor]:
    return {name: torch.as_tensor(value, dtype=torch.float64) for name, value in values.items()}


def stimuli_of(circuit, samples=5, seed=0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {f: rng.uniform(-1, 1, (samples, n)) for (f, n), _ in circuit.plan.clamped_sizes.items()}


def assert_twin(circuit, samples=5, weights=None, limit=1e-12, moving=True):
    """Every variable and every change of the function are those of the steady level. Nothing may be empty."""
    stimuli = stimuli_of(circuit, samples)
    weights = circuit.initial_weights(3) if weights is None else weights
    wanted = run_circuit(circuit, STEADY, stimuli, weights, batch=samples, learn="held")
    ends = wanted.ends[circuit.plan.phases[-1].name]
    found, changes = FunctionalTrial(circuit.plan)(tensors(weights), tensors(stimuli), list(ends))
    assert ends and set(found) == set(ends) and set(changes) == set(wanted.collected)
    for name, value in ends.items():
        near(found[name].expand(samples, -1), value, limit, name)
    for name, value in wanted.collected.items():
        assert not moving or np.abs(value).max() > 1e-6, f"{name}: nothing to learn, the circuit is no test"
        near(changes[name], value, limit, name)
    return found, changes


# ------------------------------------------------------------------ hand-made circuits

RULE = "dw/dt = eta/T*(err_post*r_pre - 0.3*w*r_post**2 - 0.2*w*err_post*r_pre - 0.1*w)"
PLAIN = "dw/dt = eta/T*(err_post*r_pre - 0.3*w)"
NODE = """
    du/dt = (-u + gain*I)/tau : 1
    dv/dt = (-v + A)/tau : 1
    r = tanh(u) : 1
    err = v*(1 - r**2) + offset : 1
    s = r**2 : 1
    I : 1
    A : 1
    offset : 1
"""
STREAMS = {"ports": ("I", "A"), "inputs": ("offset",), "parameters": TAU | {"gain": 1.0}}
TONIC = Cell("tonic", "du/dt = (-u + level)/tau : 1\nr = tanh(u) : 1", parameters=TAU | {"level": 0.8})


@lru_cache
def zoo() -> Circuit:
    """Maps below, vectors above; a stream up through `I` and one down through `A`; tonic cells; two rules in three phases."""
    hebb = PlasticityRule("hebb", RULE, {"eta": 0.7, "T": "20*ms"}, apply="trial")
    maps = PlasticityRule("maps", PLAIN, {"eta": 0.5, "T": "20*ms"}, apply="trial")
    node = assemble("node", NODE, **STREAMS)
    pools = (pool("total", "tanh(2*u)"), pool("each", "s*u", over="map"))
    pooled = assemble("pooled", NODE + "    z = r*total + each : 1\n", **STREAMS, pools=pools)
    asked = Cell("asked", "du/dt = (-u + I)/tau : 1\nr = tanh(u) + 0.5 : 1\nI : 1 (port)", parameters=TAU)
    populations = (
        Population("inp", (2, 4, 6), SOURCE), Population("y", 3, SOURCE), Population("quiet", 3, SOURCE),
        Population("tonic", 2, TONIC), Population("relay", 4, asked),
        Population("m1", (3, 2, 3), pooled), Population("m2", (2, 4, 6), node),
        Population("h", 5, node, {"gain": np.linspace(0.5, 1.5, 5)}), Population("o", 3, node),
    )  # fmt: skip
    uniform = Uniform(-0.6, 0.6)
    projections = (
        Projection("K1", "inp", "m1.I", uniform, maps, connectivity=Conv2d(3, padding=1, pool=2)),
        Projection("k1", "one", "m1.I", uniform, maps, connectivity=PerMap()),
        Projection("K2", "m1", "m2.I", uniform, maps, connectivity=Conv2d(3, padding=1, upsample=2)),
        Projection("skip", "inp", "m2.I", Given(np.linspace(-1, 1, 48)), connectivity=OneToOne()),
        Projection("W3", "m2", "h.I", uniform, hebb),
        Projection("b3", "one", "h.I", uniform, hebb),
        Projection("relayed", "relay", "h.I", uniform, hebb),
        Projection("silent", "quiet", "h.I", uniform),
        Projection("ton", "tonic", "relay.I", uniform),
        Projection("W4", "h", "o.I", uniform, hebb),
        Projection("squares", "h.s", "o.I", uniform),
        Projection("pooled", "m1.z", "o.I", uniform),
        Projection("wanted", "y", "o.A", connectivity=OneToOne()),
        Projection("less", "o", "o.A", Given(-np.ones(3)), connectivity=OneToOne()),
        Projection("back4", "o.err", "h.A", Tied("W4", factor=-0.7, transpose=True)),
        Projection("again", "o.err", "h.A", Tied("W4", transpose=True)),
        Projection("back3", "h.err", "m2.A", Tied("W3", factor=0.5, transpose=True)),
        Projection("down", "h.err", "m1.A", uniform),
        Projection("straight", "relay", "m1.A", uniform),
    )  # fmt: skip
    protocol = Protocol(
        (Phase("one_", "30*ms", plastic=("maps",)), Phase("two", "10*ms", plastic=("hebb", "maps")), Phase("three", "5*ms", plastic=("hebb",))),
        {"inp.r": "image", "y.r": "target"},
    )  # fmt: skip
    return Circuit("zoo", Fragment(populations, projections), protocol)


@pytest.mark.parametrize("samples", [1, 4])
def test_every_kind_of_projection_pool_and_rule_equals_the_steady_level(samples):
    assert_twin(zoo(), samples)


def test_phases_of_a_rule_add_up():
    """`hebb` learns for 15 ms with T = 20 ms, `maps` for 40 ms: doubling a phase doubles its share."""
    trial = FunctionalTrial(zoo().plan)
    assert trial.learn == pytest.approx(
        {n: 0.04 for n in ("K1", "k1", "K2")} | dict.fromkeys(("W3", "b3", "relayed", "W4"), 0.015)
    )


def test_the_zoo_by_hand():
    """One sample, by the equations in NumPy where the zoo has no maps: cells `relay`, `h` (given m2) and `o`, and W4's change."""
    circuit, weights = zoo(), zoo().initial_weights(3)
    stimuli = stimuli_of(circuit, 1)
    names = ["m2.r", "m1.z", "h.r", "h.err", "o.err", "relay.r"]
    found, changes = FunctionalTrial(circuit.plan)(tensors(weights), tensors(stimuli), names)
    got = {n: v.numpy() for n, v in found.items()}
    relay = np.tanh(np.full((1, 2), np.tanh(0.8)) @ weights["ton"]) + 0.5
    near(got["relay.r"], relay, 1e-14)
    h = np.tanh(np.linspace(0.5, 1.5, 5) * (got["m2.r"] @ weights["W3"] + weights["b3"] + relay @ weights["relayed"]))
    near(got["h.r"], h, 1e-14)
    o = np.tanh(h @ weights["W4"] + h**2 @ weights["squares"] + got["m1.z"] @ weights["pooled"])
    e = (stimuli["target"] - o) * (1 - o**2)
    near(got["o.err"], e, 1e-14)
    near(got["h.err"], 0.3 * e @ weights["W4"].T * (1 - h**2), 1e-14)
    w = weights["W4"]
    near(changes["W4"], 0.7 * 0.75 * (h.T @ e - 0.3 * w * o**2 - 0.2 * w * (h.T @ e) - 0.1 * w), 1e-14)


def test_a_circuit_of_maps_equals_the_steady_level():
    """Of the models with no circle, no window and no held value: the counter-current autoencoder without normalisation."""
    module = import_module("neurosim.models.counter_current_autoencoder")
    assert_twin(module.circuit(channels=(2, 3, 4), pixels=8, normalise="none"), 3)


def small(
    rule="dw/dt = eta/T*delta_post*r_pre", cell=None, phases=None, clamps=None, bounds=(None, None), **options
) -> Circuit:
    """Two levels; the target drives the tuft of the upper one, whose error goes down."""
    taught = Cell("taught", "du/dt = (-u + I)/tau : 1\ndv/dt = (-v + A)/tau : 1\nr = tanh(u) : 1\ndelta = v*(1 - r**2) : 1\nI : 1 (port)\nA : 1 (port)", parameters=TAU)  # fmt: skip
    learn = PlasticityRule("learn", rule, {"eta": 1.0, "T": "20*ms"}, bounds=bounds, **({"apply": "trial"} | options))
    populations = [
        Population("inp", 4, SOURCE), Population("y", 2, SOURCE), Population("h", 3, cell or taught), Population("o", 2, taught),
    ]  # fmt: skip
    projections = [
        Projection("W1", "inp", "h.I", Glorot(), learn), Projection("W2", "h", "o.I", Glorot(), learn),
        Projection("B1", "o", "h.A", Uniform(-1, 1)), Projection("Y1", "y", "h.A", Uniform(-1, 1)),
        Projection("to", "y", "o.A", Given(np.array([[1.0, 0.3], [0.2, -0.8]]))),
    ]  # fmt: skip
    protocol = Protocol(
        phases or (Phase("settle", "20*ms"), Phase("learn", "20*ms", plastic=("learn",))),
        clamps or {"inp.r": "image", "y.r": "target"},
    )
    return Circuit(
        "small", Fragment(populations, tuple(replace(p, evolved=p.name in ("B1", "Y1")) for p in projections)), protocol, Readout("o.r", protocol.phases[0].name, loss="mean_squared"),
    )  # fmt: skip


# ------------------------------------------------------------------ gradients, a batch of circuits


def test_autograd_through_the_trial_equals_finite_differences():
    """Of a random sum of variables and changes, along a random direction of all weights and stimuli at once."""
    circuit, rng = zoo(), np.random.default_rng(1)
    trial = FunctionalTrial(circuit.plan)
    at = circuit.initial_weights(3) | stimuli_of(circuit, 3)
    direction = {n: rng.standard_normal(v.shape) for n, v in at.items()}
    coefficients = {}

    def value(values):
        stimuli = {n: values.pop(n) for n in ("image", "target")}
        found, changes = trial(values, stimuli, ["h.err", "m1.z"])
        for n, v in (found | changes).items():
            if n not in coefficients:
                coefficients[n] = torch.as_tensor(rng.standard_normal(v.shape))
        return sum((coefficients[n] * v).sum() for n, v in (found | changes).items())

    leaves = {n: torch.tensor(v, requires_grad=True) for n, v in at.items()}
    value(dict(leaves)).backward()
    slope = sum(
        float((leaf.grad * torch.as_tensor(direction[n])).sum()) for n, leaf in leaves.items() if leaf.grad is not None
    )
    assert {n for n, leaf in leaves.items() if leaf.grad is None} <= {"silent"}  # its source is silent
    step = 1e-6
    up, down = (float(value(tensors({n: v + sign * step * direction[n] for n, v in at.items()}))) for sign in (1, -1))
    assert abs(slope) > 0.1
    assert abs((up - down) / (2 * step) - slope) <= 1e-6 * abs(slope)


def test_vmap_equals_a_loop():
    circuit, count = zoo(), 4
    trial = FunctionalTrial(circuit.plan)
    each = [tensors(circuit.initial_weights(seed)) for seed in range(count)]
    shown = [tensors(stimuli_of(circuit, 3, seed)) for seed in range(count)]
    stacked, images = ({n: torch.stack([v[n] for v in values]) for n in values[0]} for values in (each, shown))
    found, changes = torch.func.vmap(lambda w, s: trial(w, s, ["o.r", "m2.err"]))(stacked, images)
    for k in range(count):
        one, change = trial(each[k], shown[k], ["o.r", "m2.err"])
        for name, value in (one | change).items():
            near((found | changes)[name][k], value, 1e-13, name)
    assert float((changes["K1"][0] - changes["K1"][1]).abs().max()) > 1e-3


def test_nothing_is_owned_or_changed():
    circuit = zoo()
    weights, stimuli = tensors(circuit.initial_weights(0)), tensors(stimuli_of(circuit))
    before = {n: v.clone() for n, v in (weights | stimuli).items()}
    trial = FunctionalTrial(circuit.plan)
    first, second = trial(weights, stimuli, ["o.r"]), trial(weights, stimuli, ["o.r"])
    assert all(torch.equal(v, before[n]) for n, v in (weights | stimuli).items())
    assert all(torch.equal(a[n], b[n]) for a, b in zip(first, second, strict=True) for n in a)


def test_only_the_fields_that_are_read_are_asked_for():
    circuit = small()
    weights, stimuli = tensors(circuit.initial_weights(0)), tensors(stimuli_of(circuit))
    trial = FunctionalTrial(circuit.plan)
    found, changes = trial(weights, {"image": stimuli["image"]}, ["o.r"], learn=False)
    assert changes == {}
    near(found["o.r"], trial(weights, stimuli, ["o.r"])[0]["o.r"], 0.0)
    with pytest.raises(NeurosimError, match=r"has image; wanted image, target, which o\.r of 'small' follow from"):
        trial(weights, {"image": stimuli["image"]}, ["o.r"])
    with pytest.raises(NeurosimError, match=r"has no field; wanted image, which o\.r"):
        trial(weights, {}, ["o.r"], learn=False)
    with pytest.raises(NeurosimError, match=r"(?s)'o\.rr'|'rr'"):
        trial(weights, stimuli, ["o.rr"])


def test_the_types_of_tensors():
    circuit = small()
    trial = FunctionalTrial(circuit.plan, "float32")
    weights, stimuli = circuit.initial_weights(0), stimuli_of(circuit)
    single = [{n: v.float() for n, v in tensors(values).items()} for values in (weights, stimuli)]
    found, changes = trial(*single, ["o.r"])
    assert {v.dtype for v in (found | changes).values()} == {torch.float32}
    exact = FunctionalTrial(circuit.plan)(tensors(weights), tensors(stimuli), ["o.r"])[1]
    for name, change in changes.items():
        near(change, exact[name], 1e-5, name)


# ------------------------------------------------------------------ what it refuses

NOISY = Cell(
    "noisy",
    "du/dt = (-u + I)/tau + xi*tau**-0.5 : 1\nr = tanh(u) : 1\nI : 1 (port)\nA : 1 (port)\ndelta = u : 1",
    parameters=TAU,
)
HOLDS = Cell("holds", "du/dt = (-u + I)/tau : 1\nr = tanh(u) : 1\nI : 1 (port)\nA : 1 (port)\ndelta = A*before : 1\nbefore = hold(r, settle) : 1", parameters=TAU)  # fmt: skip
STANDS = Cell(
    "stands", "du/dt = 0*(I + A)/tau : 1\nr = tanh(u) : 1\nI : 1 (port)\nA : 1 (port)\ndelta = A : 1", parameters=TAU
)
BATCH = Cell("batch", "du/dt = (-u + I - mean)/tau : 1\nr = tanh(u) : 1\nI : 1 (port)\nA : 1 (port)\ndelta = A*both : 1\nmean = 0.0 : 1\nboth = pool(r, batch) : 1", parameters=TAU)  # fmt: skip
TIMED = Cell(
    "timed",
    "du/dt = (-u + I + t/tau)/tau : 1\nr = tanh(u) : 1\nI : 1 (port)\nA : 1 (port)\ndelta = A : 1",
    parameters=TAU,
)
CUBE = Cell(
    "cube", "du/dt = (-u**3 + I)/tau : 1\nr = tanh(u) : 1\nI : 1 (port)\nA : 1 (port)\ndelta = A : 1", parameters=TAU
)
LOOP = Cell(
    "loop",
    "du/dt = (-u + I + 0.1*A)/tau : 1\nr = tanh(u) : 1\nI : 1 (port)\nA : 1 (port)\ndelta = A : 1",
    parameters=TAU,
)


def other(name, **settings) -> Circuit:
    return import_module(f"neurosim.models.{name}").circuit(**settings)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: small(cell=NOISY), r"'small': the cells of 'h' have no steady rate"),
        (lambda: small(cell=TIMED), r"'small': the cells of 'h' have no steady rate"),
        (lambda: other("bac_firing"), r"'bac_firing': the cells of '\w+' have no steady rate"),
        (lambda: small(cell=HOLDS), r"'small': its cells hold values from one phase to the next"),
        (lambda: small(cell=STANDS), r"population 'h': its state 'u' keeps the value that it had before"),
        (lambda: small(cell=CUBE), r"cannot solve population 'h'"),
        (lambda: small(cell=BATCH), r"pools of 'h' join samples"),
        (lambda: small(apply="now"), r"the rule 'learn' of 'W\d' is not simply collected over the trial"),
        (lambda: small(apply="phase"), r"the rule 'learn' of 'W\d' is not simply collected over the trial"),
        (lambda: small(filter="5*ms"), r"the rule 'learn' of 'W\d' is not simply collected over the trial"),
        (lambda: small(phases=(Phase("settle", "20*ms"), Phase("learn", "20*ms", plastic=("learn",), clamps={"y.r": "target"})), clamps={"inp.r": "image"}), r"its phases differ in clamps or shared values"),
        (lambda: other("counter_current", sizes=(6, 5, 4, 3)), r"'counter_current': its protocol has windows"),
        (lambda: other("equilibrium_propagation"), r"'equilibrium_propagation': its phases differ"),
        (lambda: other("predictive_coding"), r"'predictive_coding': its phases differ"),
        (lambda: other("dendritic_microcircuit"), r"the rule '\w+' of '\w+' is not simply collected"),
        (lambda: other("corinfomax"), r"the rule '\w+' of '\w+' is not simply collected"),
        (lambda: other("ghost_units"), r"the rule '\w+' of '\w+' is not simply collected"),
    ],
)  # fmt: skip
def test_what_it_cannot_run_is_refused_by_name(make, message):
    circuit = make()
    with pytest.raises(UnsupportedError, match=message) as caught:
        FunctionalTrial(circuit.plan)
    assert "torch:" in str(caught.value)  # where it runs


def test_a_circle_is_refused_where_it_is_read():
    """`o` depends on itself through the tuft of `h`; what lies before the circle can still be had."""
    circuit = small(cell=LOOP)
    weights, stimuli = tensors(circuit.initial_weights(0)), tensors(stimuli_of(circuit))
    trial = FunctionalTrial(circuit.plan)
    with pytest.raises(
        UnsupportedError, match=r"'small': '(h|o)\.\w+' depends on itself, through '(h|o)\.\w+'.*torch:steady"
    ):
        trial(weights, stimuli, ["o.r"])
    near(trial(weights, stimuli, ["inp.r"], learn=False)[0]["inp.r"], stimuli["image"], 0.0)
    own = Population("own", 3, LEAKY)
    loops = Circuit(
        "loops", [Population("inp", 4, SOURCE), own,
         Projection("W", "inp", "own.I", Glorot()), Projection("R", "own", "own.I", Glorot())],
        Protocol((Phase("free", "20*ms"),), {"inp.r": "image"}),
    )  # fmt: skip
    with pytest.raises(UnsupportedError, match="depends on itself"):
        FunctionalTrial(loops.plan)(tensors(loops.initial_weights(0)), tensors(stimuli_of(loops)), ["own.r"])


# ------------------------------------------------------------------ lives: the optimiser, the loss, bounds


@pytest.mark.parametrize("clip", [None, 0.5, 2.0])
@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_the_inner_optimiser_is_torch_s_for_each_learner(name, clip):
    """torch.optim on minus the change, the norm over all weights of one learner clipped by torch's own function."""
    rng, count, steps = np.random.default_rng(0), 3, 12
    scales = torch.tensor([0.01, 1.0, 30.0], dtype=torch.float64)[:, None, None]  # the clipping meets some of them
    rates = torch.tensor([0.03, 0.1, 0.5], dtype=torch.float64)
    start = {
        n: torch.as_tensor(rng.standard_normal((count, *shape))) for n, shape in {"W": (4, 3), "b": (1, 3)}.items()
    }
    changes = [
        {n: scales * torch.as_tensor(rng.standard_normal(w.shape)) for n, w in start.items()} for _ in range(steps)
    ]
    optimiser, weights = InnerOptimiser(Life(name, rates, clip, steps)), dict(start)
    for change in changes:
        weights = optimiser(weights, change)
    for k in range(count):
        leaves = {n: torch.nn.Parameter(w[k].clone()) for n, w in start.items()}
        torch_s = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[name](list(leaves.values()), lr=float(rates[k]))
        for change in changes:
            for n, leaf in leaves.items():
                leaf.grad = -change[n][k].clone()
            if clip is not None:
                torch.nn.utils.clip_grad_norm_(list(leaves.values()), clip)
            torch_s.step()
        for n, leaf in leaves.items():
            near(weights[n][k], leaf.detach(), 1e-13, n)


def test_an_update_of_nothing_keeps_a_gradient_finite():
    """Where a learner stands still, the norm and Adam's root have an infinite slope at 0."""
    for name in ("adam", "sgd"):
        change = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
        optimiser, weights = InnerOptimiser(Life(name, 0.1)), {"W": torch.zeros(2, 3, dtype=torch.float64)}
        for _ in range(3):
            weights = optimiser(weights, {"W": change})
        weights["W"].sum().backward()
        assert torch.isfinite(change.grad).all()


def test_losses_and_accuracy():
    rng = np.random.default_rng(0)
    logits = torch.as_tensor(rng.standard_normal((3, 6, 4)))
    labels = torch.as_tensor(rng.integers(0, 4, (3, 6)))
    wanted, answers = torch.nn.functional.one_hot(labels, 4).double(), logits.softmax(-1)
    truth = [torch.nn.functional.cross_entropy(logits[k], labels[k]) for k in range(3)]
    near(loss(answers, wanted, "cross_entropy"), torch.stack(truth), 1e-14)
    gap = (answers - wanted).numpy()
    near(loss(answers, wanted, "squared"), 0.5 * (gap**2).sum(2).mean(1), 1e-14)
    near(loss(answers, wanted, "mean_squared"), (gap**2).mean((1, 2)), 1e-14)
    near(accuracy(answers, wanted), (logits.argmax(-1) == labels).double().mean(1), 0.0)
    dead = torch.tensor([[[0.0, 1.0]]], dtype=torch.float64)
    assert torch.isfinite(loss(dead, 1 - dead, "cross_entropy")).all()  # -ln 0 does not spoil a fitness


def test_bounds_of_a_rule_hold_in_a_life():
    free, bound = small(), small(bounds=(-0.4, 0.3))
    ends = []
    for circuit in (free, bound):
        learners = Learners(circuit, "float64")
        stimuli = tensors(stimuli_of(circuit, 6))
        evolved = learners.stacked(torch.as_tensor(learners.theta(circuit.initial_weights(0)))[None])
        ends.append(learners.live(Life("sgd", 0.5, None, 8), learners.born([0, 1]), evolved, lambda t, s=stimuli: s)[0])
    assert max(float(w.max()) for w in ends[0].values()) > 0.3
    assert max(float(w.max()) for w in ends[1].values()) == 0.3
    assert min(float(w.min()) for w in ends[1].values()) >= -0.4


def test_theta_is_the_evolved_weights_in_their_order():
    circuit = small()
    learners = Learners(circuit)
    weights = circuit.initial_weights(5)
    theta = learners.theta(weights)
    assert learners.evolved == ("B1", "Y1") and learners.size == len(theta) == 2 * 3 + 2 * 3
    assert np.array_equal(theta, np.concatenate([weights["B1"].ravel(), weights["Y1"].ravel()]))
    back = learners.unpacked(theta)
    assert set(back) == {"B1", "Y1"} and all(np.array_equal(back[n], weights[n]) for n in back)
    born = learners.born([0, 7])
    for n in ("W1", "W2"):
        near(born[n][1], circuit.initial_weights(7)[n], 1e-6)
    for shape in ((3, 11), (12,), (2, 3, 2)):
        with pytest.raises(NeurosimError, match=r"Candidates have shape .*; wanted \(candidates, 12\).*'small'"):
            learners.stacked(torch.zeros(shape))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimiser": "adamm"}, r"optimiser 'adamm'.*(?s:.)*adam"),
        ({"steps": 0}, r"steps = 0; wanted a whole number of at least 1"),
        ({"steps": 2.5}, r"steps = 2.5; wanted a whole number of at least 1"),
        ({"rate": 0.0}, r"rate = 0\.0; wanted a number above 0"),
        ({"rate": torch.tensor([0.1, -0.1])}, r"rate = .*; wanted a number above 0"),
        ({"clip": -1.0}, r"clip = -1\.0; wanted a number above 0"),
        ({"rate": float("nan")}, r"rate = nan; wanted a number above 0"),
    ],
)
def test_bad_lives_are_refused(settings, message):
    with pytest.raises(NeurosimError, match=message):
        Life(**settings)
