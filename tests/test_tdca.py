"""TDCA (Chen, Liu & Wang 2022) on every level against an oracle, and the checks of its note.

Oracle: tests/oracles/tdca.py, written from the note alone: the closed-form rule and the vector-Jacobian products of the authors' code, the
top-down net, kernels of diffusion, whole lives in NumPy, and the circuit in time by SciPy. Acceptance tests 1 to 4, 6 and 8 of the note's section 7.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import numpy as np
import pytest
import torch

import neurosim
from neurosim.analysis import ReferenceNet
from neurosim.backends.torch.functional import FunctionalTrial
from neurosim.errors import NeurosimError, UnsupportedError
from neurosim.evolved import Evolved, load_evolved
from neurosim.models import tdca as model
from neurosim.parts.diffusion import diffusion_kernel, release_sites
from neurosim.training.evolution.lifetime import Learners, Life
from tests.oracles import tdca as oracle

EQUATIONS, DENSE, TRAJECTORY, STEADY = "brian2:equations", "brian2:dense", "torch:trajectory", "torch:steady"
EULER = (EQUATIONS, DENSE, TRAJECTORY)
CLASSES, HIDDEN = 4, 7


@lru_cache(maxsize=64)
def build(**settings):
    return model.circuit(**settings)


def near(got, wanted, limit, what=""):
    got, wanted = np.asarray(got), np.asarray(wanted)
    assert got.shape == wanted.shape, f"{what}: shape {got.shape}, wanted {wanted.shape}"
    worst = float(np.abs(got - wanted).max())
    assert worst <= limit, f"{what}: off by {worst:.1e}"


def tensors(values) -> dict[str, torch.Tensor]:
    return {name: torch.as_tensor(value, dtype=torch.float64) for name, value in values.items()}


# ---------------------------------------------------------------- the same learner in circuit and oracle

CASES = {
    "mlp, one hidden": {"sizes": (7, 6, CLASSES)},
    "mlp": {"sizes": (7, 6, 5, CLASSES)},
    "mlp, four hidden": {"sizes": (5, 6, 7, 5, 6, 3)},
    "residual": {"sizes": (7, 6, 6, 6, CLASSES), "architecture": "residual"},
    "residual, own": {"sizes": (7, 6, 6, 6, CLASSES), "architecture": "residual", "inner": "own"},
    "one convolution": {"sizes": (2, 3, CLASSES), "architecture": "conv", "pixels": 6},
    "two convolutions": {"sizes": (1, 3, 2, CLASSES), "architecture": "conv", "pixels": 8},
}


def net_of(settings) -> oracle.Net:
    sizes, architecture = settings["sizes"], settings.get("architecture", "mlp")
    if architecture == "mlp":
        return oracle.mlp(sizes)
    if architecture == "residual":
        strict = settings.get("inner") == "own"
        return oracle.resnet(sizes[0], sizes[1], len(sizes) - 3, sizes[-1], strict=strict)
    blocks, side = [], settings["pixels"]
    for below, maps in pairwise(sizes[:-1]):
        blocks.append(oracle.Conv(below, maps, side, side, pool=True))
        side //= 2
    return oracle.Net((*blocks, oracle.Output(sizes[-2] * side**2, sizes[-1])))


def names_of(circuit) -> dict[str, str]:
    """The oracle's names of the learner's weights -> the circuit's."""
    plastic = {q.name for q, _ in circuit.plan.plastic()}
    found = {}
    for l in range(1, len(plastic) + 1):
        if f"Win{l}" in plastic:
            found |= {f"Wa{l}": f"Win{l}", f"ba{l}": f"bin{l}", f"Wb{l}": f"W{l}", f"bb{l}": f"b{l}"}
        elif f"W{l}" in plastic:
            found |= {f"W{l}": f"W{l}", f"b{l}": f"b{l}"}
    assert set(found.values()) == plastic
    return found


def learner(circuit, weights) -> dict:
    """The circuit's learner in the oracle's names and shapes."""
    return {n: weights[m][0] if n[0] == "b" else weights[m] for n, m in names_of(circuit).items()}


def credited(circuit, settings) -> list[str]:
    """Populations in the order of the oracle's credits: an inner layer before its block's output."""
    found = []
    for l in range(1, len(settings["sizes"])):
        if f"D_inner{l}" in circuit.plan.projections:
            found.append(f"inner{l}")
        found.append(f"pyr{l}")
    return found


def top_down(circuit, settings, weights) -> tuple[dict, np.ndarray]:
    """The circuit's top-down net and its kernel in the oracle's form."""
    out, names = f"pyr{len(settings['sizes']) - 1}", credited(circuit, settings)
    theta = {
        "V1": np.concatenate([weights[f"V1_{out}"], weights["V1_target"]]), "e1": weights["e1"][0], "V2": weights["V2"],
        "e2": weights["e2"][0], "V3": np.concatenate([weights[f"V3_{n}"] for n in names], axis=1),
        "e3": np.concatenate([weights[f"e3_{n}"][0] for n in names]),
    }  # fmt: skip
    kernels = [np.diag(weights[f"D_{n}"]) if weights[f"D_{n}"].ndim == 1 else weights[f"D_{n}"] for n in names]
    return theta, oracle.block_diagonal(kernels)


def drawn(circuit, seed=0, scale=1.0) -> dict:
    """Weights of a learner and of a top-down net, all biases of both drawn too."""
    rng, weights = np.random.default_rng(seed), circuit.initial_weights(seed)
    for name, value in weights.items():
        if name.lstrip("bine").split("_")[0].isdigit():  # b1, bin2, e1, e3_pyr1
            weights[name] = 0.3 * rng.standard_normal(value.shape)
        elif name in circuit.evolved:
            weights[name] = scale * value
    return weights


def samples_of(circuit, samples=9, seed=0) -> tuple[np.ndarray, np.ndarray]:
    sizes = dict((field, n) for (field, n) in circuit.plan.clamped_sizes)
    rng = np.random.default_rng(seed)
    return rng.standard_normal((samples, sizes["image"])), oracle.one_hot(
        rng.integers(sizes["target"], size=samples), sizes["target"]
    )


def play(circuit, images, targets, level, weights, **options):
    options = {"plasticity": "held", "batch_size": len(images)} | options
    return neurosim.simulate(circuit, images, targets, level=level, weights=weights, progress=False, **options)


def assert_descends(circuit, collected, update, limit=1e-12, relative=False):
    """The circuit's changes are minus the oracle's update, none of which is nothing."""
    for name, mine in names_of(circuit).items():
        wanted = -update[name].reshape(collected[mine].shape)
        size = float(np.abs(wanted).max())
        assert size > 1e-5, f"{mine}: nothing to learn, the problem is no test"
        near(collected[mine], wanted, limit * (size if relative else 1.0), mine)


# ---------------------------------------------------------------- acceptance 1: the local rule


@pytest.mark.parametrize("samples", [1, 6])
@pytest.mark.parametrize("ratio", [1.0, 2.0])
@pytest.mark.parametrize("name", CASES)
def test_changes_are_the_closed_form_and_the_vector_jacobian_products(name, ratio, samples):
    settings = CASES[name]
    circuit, net = build(**settings, hidden=HIDDEN, ratio=ratio), net_of(settings)
    weights = drawn(circuit, 1, 1.5)
    images, targets = samples_of(circuit, samples)
    result = play(circuit, images, targets, STEADY, weights)
    mine = learner(circuit, weights)
    acts = oracle.forward(net, mine, images)
    near(result.readout, acts.h[-1], 1e-13, "probabilities")
    theta, D = top_down(circuit, settings, weights)
    credits = oracle.tdca_credits(theta, acts.h[-1], targets, D)
    at = 0
    for population in credited(circuit, settings):
        received = result.ends["learn"][f"{population}.v_a"]
        near(received, credits[:, at : at + received.shape[1]], 1e-12, f"credits of {population}")
        at += received.shape[1]
    assert at == credits.shape[1] == sum(oracle.credit_sizes(net))
    closed, products = oracle.local_update(net, mine, images, credits), oracle.vjp_update(net, mine, images, credits)
    assert oracle.largest(closed, products) < 1e-13
    assert_descends(circuit, result.collected, products)


@pytest.mark.parametrize("name", ["mlp", "residual", "residual, own", "one convolution"])
def test_given_credits_teach_by_the_closed_form(name):
    """Of the top-down net only the sites' biases are left: the same credit for all samples, whatever output and target."""
    settings = CASES[name]
    circuit, net = build(**settings, hidden=HIDDEN), net_of(settings)
    weights, rng = drawn(circuit, 2), np.random.default_rng(0)
    given = {n: rng.standard_normal((1, circuit.plan.populations[n].n)) for n in credited(circuit, settings)}
    for population, credit in given.items():
        weights[f"V3_{population}"] = np.zeros_like(weights[f"V3_{population}"])
        weights[f"e3_{population}"] = credit
    images, targets = samples_of(circuit, 5)
    credits = np.repeat(np.concatenate(list(given.values()), axis=1), 5, axis=0)
    result = play(circuit, images, targets, STEADY, weights)
    assert_descends(circuit, result.collected, oracle.vjp_update(net, learner(circuit, weights), images, credits))


def test_the_factor_of_the_rule_and_kernels_reach_the_changes():
    """eta scales; every kernel of diffusion is the one the circuit uses, also on a sheet."""
    for kernel, lattice, sizes in (("exp", "line", (7, 9, CLASSES)), ("chain", "sheet", (7, 9, CLASSES)), ("block", "line", (7, 8, 6, CLASSES))):  # fmt: skip
        settings = {"sizes": sizes, "kernel": kernel, "lattice": lattice, "ratio": 3.0, "width": 0.8, "eta": 0.25}
        circuit, net = build(**settings, hidden=HIDDEN), net_of(settings)
        weights = drawn(circuit, 3, 1.5)
        images, targets = samples_of(circuit, 4)
        mine = learner(circuit, weights)
        theta, _ = top_down(circuit, settings, weights)
        D = oracle.block_diagonal([kernel_of(n, 3.0, kernel, 0.8, lattice) for n in sizes[1:-1]] + [np.eye(CLASSES)])
        credits = oracle.tdca_credits(theta, oracle.forward(net, mine, images).h[-1], targets, D)
        update = oracle.local_update(net, mine, images, credits)
        found = play(circuit, images, targets, STEADY, weights).collected
        assert_descends(circuit, found, {n: 0.25 * g for n, g in update.items()})


# ---------------------------------------------------------------- acceptance 2: backprop and alignment


@pytest.mark.parametrize("name", ["mlp, one hidden", "mlp", "mlp, four hidden", "residual", "residual, own", "one convolution"])  # fmt: skip
def test_credits_of_backprop_reproduce_backprop(name):
    settings = CASES[name]
    circuit, net = build(**settings, credits="bp"), net_of({k: v for k, v in settings.items() if k != "inner"})
    weights = drawn(circuit, 4)
    images, targets = samples_of(circuit)
    result = play(circuit, images, targets, STEADY, weights)
    mine = learner(circuit, weights)
    truth = oracle.bp_update(net, mine, images, targets)
    credits = oracle.bp_credits(net, mine, oracle.forward(net, mine, images), targets)
    assert oracle.largest(oracle.local_update(net, mine, images, credits), truth) < 1e-13
    assert_descends(circuit, result.collected, truth)
    if circuit.reference is not None:
        reference = ReferenceNet(circuit, weights)
        _, gradient = reference.backward(torch.as_tensor(images), torch.as_tensor(targets))
        for weight, value in gradient.items():
            near(-value.reshape(result.collected[weight].shape), result.collected[weight], 1e-12, weight)
    else:
        assert settings["architecture"] == "residual"


@pytest.mark.parametrize("name", CASES)
def test_direct_feedback_alignment(name):
    """c_l = (p - y) B_l with fixed B_l; the output takes -y/p."""
    settings = CASES[name]
    circuit, net = build(**settings, credits="dfa"), net_of(settings)
    weights = drawn(circuit, 5)
    images, targets = samples_of(circuit)
    mine = learner(circuit, weights)
    order = [n for l in range(1, len(settings["sizes"]) - 1) for n in (f"inner{l}", f"pyr{l}")]
    order = [n for n in order if f"B_{n}" in circuit.plan.projections]
    acts = oracle.forward(net, mine, images)
    credits = oracle.dfa_credits(net, acts, targets, [weights[f"B_{n}"] for n in order])
    result = play(circuit, images, targets, STEADY, weights)
    assert_descends(circuit, result.collected, oracle.vjp_update(net, mine, images, credits))


@pytest.mark.parametrize("name", ["mlp, one hidden", "mlp", "mlp, four hidden", "residual", "residual, own", "one convolution"])  # fmt: skip
def test_feedback_alignment(name):
    """Backprop's credits with fixed matrices in the place of the transposed weights, by hand on the oracle's forward pass."""
    settings = CASES[name]
    circuit, net = build(**settings, credits="fa"), net_of(settings)
    weights = drawn(circuit, 6)
    images, targets = samples_of(circuit)
    mine = learner(circuit, weights)
    acts = oracle.forward(net, mine, images)
    top = len(settings["sizes"]) - 1
    found, delta = [-targets / acts.h[top]], acts.h[top] - targets  # softmax with c = -y/p
    inner = {}
    for l in range(top - 1, 0, -1):
        credit = delta @ weights[f"B_pyr{l}"]
        if l + 1 < top and isinstance(net.blocks[l], oracle.Residual):
            credit = inner[l + 1] @ weights[f"B_pyr{l}"] + delta  # through the inner layer and along the skip
        found.insert(0, credit)
        delta = credit * (1 - acts.h[l] ** 2)
        if isinstance(net.blocks[l - 1], oracle.Residual):
            down = weights[f"back{l}"]
            inner[l] = (delta @ down) * (1 - acts.inner[l] ** 2)
            found.insert(0, delta @ down)
    strict = oracle.Net(
        tuple(oracle.Residual(b.post, True) if isinstance(b, oracle.Residual) else b for b in net.blocks)
    )
    update = oracle.vjp_update(strict, mine, images, np.concatenate(found, axis=1))
    result = play(circuit, images, targets, STEADY, weights)
    assert_descends(circuit, result.collected, update)


def test_backprop_of_an_answer_that_is_certainly_wrong_stays_finite():
    """p of the target underflows to 0: -y/p is cut off at 1e-30, and nothing becomes NaN."""
    circuit = build(sizes=(7, 6, CLASSES), credits="bp")
    weights = drawn(circuit, 7)
    weights["b2"] = np.array([[-900.0, 0.0, 0.0, 0.0]])
    images, _ = samples_of(circuit, 3)
    result = play(circuit, images, oracle.one_hot([0, 0, 0], CLASSES), STEADY, weights)
    assert all(np.isfinite(v).all() for v in result.collected.values())


# ---------------------------------------------------------------- acceptance 3: many lives at once

LIFE = {"sizes": (8, 7, 6, CLASSES), "hidden": 6, "ratio": 2.0}


def population(circuit, count, seed=0, scale=1.0) -> torch.Tensor:
    """Candidates (count, size), in double."""
    learners, rng = Learners(circuit, "float64"), np.random.default_rng(seed)
    rows = [learners.theta({n: scale * w for n, w in circuit.initial_weights(seed + k).items()}) for k in range(count)]
    return torch.as_tensor(np.array(rows) + 0.1 * rng.standard_normal((count, learners.size)))


def task(circuit, samples=20, seed=0) -> dict[str, torch.Tensor]:
    """Clusters around one centre per class."""
    sizes = dict((field, n) for (field, n) in circuit.plan.clamped_sizes)
    rng = np.random.default_rng(seed)
    labels = rng.integers(sizes["target"], size=samples)
    images = rng.standard_normal((sizes["target"], sizes["image"]))[labels] + 0.5 * rng.standard_normal((samples, sizes["image"]))  # fmt: skip
    return tensors({"image": images, "target": oracle.one_hot(labels, sizes["target"])})


def unstack(values, k) -> dict[str, torch.Tensor]:
    return {n: w[k] for n, w in values.items()}


def lives_by_the_oracle(circuit, settings, life, weights, evolved, stimuli, k, source=None):
    """Learner k alone. `stimuli`: the fields of every step."""
    all_weights = {n: np.asarray(w) for n, w in circuit.initial_weights(0).items()}
    all_weights |= {n: w[k].numpy() for n, w in (evolved | weights).items()}
    if source is None:
        source = oracle.tdca_source(*top_down(circuit, settings, all_weights))
    rate = float(life.rate[k]) if isinstance(life.rate, torch.Tensor) else life.rate
    images, targets = stimuli["image"].numpy(), stimuli["target"].numpy()
    return oracle.lifetime(
        net_of(settings),
        learner(circuit, all_weights),
        images,
        targets,
        life.steps,
        source,
        life.optimiser,
        rate,
        life.clip,
    )


def assert_same_learner(circuit, ends, k, wanted, limit):
    for name, mine in names_of(circuit).items():
        near(ends[mine][k].double().reshape(wanted[name].shape), wanted[name], limit, f"{mine} of learner {k}")


@pytest.mark.parametrize(
    "life",
    [
        Life("adam", 0.03, 1.0, 30),
        Life("sgd", 0.3, 1.0, 30),
        Life("sgd", 0.05, None, 30),
        Life("adam", 0.01, None, 3),
        Life("adam", torch.tensor([0.01, 0.03, 0.1, 0.03], dtype=torch.float64), 0.2, 30),
        Life("sgd", torch.tensor([0.1, 0.3, 1.0, 0.01], dtype=torch.float64), 0.5, 1),
    ],
    ids=lambda life: (
        f"{life.optimiser}, clip {life.clip}, {life.steps} steps, {'own rates' if torch.is_tensor(life.rate) else life.rate}"
    ),
)
@pytest.mark.parametrize("own", [False, True])
def test_lives_in_double_are_the_oracle_s(life, own):
    """Four learners; `own`: each has its own samples. Their credits differ by a factor of 100, so the clipping meets each differently."""
    circuit, count = build(**LIFE), 4
    learners = Learners(circuit, "float64")
    candidates = population(circuit, count)
    at = [n for n in learners.evolved if n.startswith(("V3", "e3"))]
    evolved = learners.stacked(candidates)
    scales = torch.tensor([0.03, 0.3, 1.0, 3.0], dtype=torch.float64)[:, None, None]
    evolved = {n: w * scales if n in at else w for n, w in evolved.items()}
    weights = learners.born([0, 1, 1, 5])
    tasks = [task(circuit, seed=k if own else 0) for k in range(count)]
    stimuli = {n: torch.stack([s[n] for s in tasks]) for n in tasks[0]} if own else tasks[0]
    ends, losses = learners.live(life, weights, evolved, lambda t: stimuli)
    for k in range(count):
        found = lives_by_the_oracle(circuit, LIFE, life, weights, evolved, tasks[k], k)
        assert_same_learner(circuit, ends, k, found.weights, 1e-9)
        near(losses[:, k], found.losses, 1e-9, f"losses of learner {k}")
        assert np.abs(found.weights["W1"] - weights["W1"][k].numpy()).max() > 1e-4


@pytest.mark.parametrize("name", ["mlp", "residual", "residual, own", "one convolution"])
def test_a_batch_of_lives_is_a_loop_without_vmap(name):
    """One learner after another through the trial itself, torch's Adam and torch's clipping; and the oracle; 30 steps."""
    settings = CASES[name] | {"hidden": 6}
    circuit, count, life = build(**settings), 3, Life("adam", 0.03, 1.0, 30)
    learners = Learners(circuit, "float64")
    evolved, weights = learners.stacked(population(circuit, count)), learners.born(range(count))
    stimuli = task(circuit, 12)
    ends, losses = learners.live(life, weights, evolved, lambda t: stimuli)
    trial = FunctionalTrial(circuit.plan)
    for k in range(count):
        leaves = {n: torch.nn.Parameter(w.clone()) for n, w in unstack(weights, k).items()}
        adam = torch.optim.Adam(list(leaves.values()), lr=0.03, maximize=True)
        for _ in range(life.steps):
            with torch.no_grad():
                found, changes = trial(
                    learners.fixed | unstack(evolved, k) | dict(leaves), stimuli, [circuit.readout.variable]
                )
            for n, leaf in leaves.items():
                leaf.grad = changes[n]
            torch.nn.utils.clip_grad_norm_(list(leaves.values()), 1.0)
            adam.step()
        p = found[circuit.readout.variable]
        near(losses[-1, k], -(stimuli["target"] * p.log()).sum(1).mean(), 1e-9, "loss")
        for n, leaf in leaves.items():
            near(ends[n][k], leaf.detach(), 1e-9, n)
        by_oracle = lives_by_the_oracle(circuit, settings, life, weights, evolved, stimuli, k)
        assert_same_learner(circuit, ends, k, by_oracle.weights, 1e-9)


def test_lives_in_single_precision():
    """Adam amplifies rounding: below 1e-3 after 30 steps."""
    circuit, count, life = build(**LIFE), 5, Life("adam", 0.03, 1.0, 30)
    candidates, stimuli = population(circuit, count), task(circuit)
    exact, single = Learners(circuit, "float64"), Learners(circuit, "float32")
    evolved, weights = exact.stacked(candidates), exact.born(range(count))
    ends, losses = single.live(
        life, {n: w.float() for n, w in weights.items()}, single.stacked(candidates.float()),
        lambda t: {n: s.float() for n, s in stimuli.items()},
    )  # fmt: skip
    assert {w.dtype for w in ends.values()} == {torch.float32}
    for k in range(count):
        found = lives_by_the_oracle(circuit, LIFE, life, weights, evolved, stimuli, k)
        assert_same_learner(circuit, ends, k, found.weights, 1e-3)
        near(losses[:, k], found.losses, 1e-3, "losses")


def test_one_candidate_for_all_learners_and_new_samples_in_each_step():
    circuit, count, life = build(**LIFE), 3, Life("sgd", 0.3, 1.0, 4)
    learners = Learners(circuit, "float64")
    evolved, weights = learners.stacked(population(circuit, 1)), learners.born(range(count))
    tasks = [task(circuit, seed=t) for t in range(life.steps)]
    ends, _ = learners.live(life, weights, evolved, lambda t: tasks[t])
    for k in range(count):
        mine = {n: w[k : k + 1] for n, w in weights.items()}
        for t in range(life.steps):
            found = lives_by_the_oracle(circuit, LIFE, Life("sgd", 0.3, 1.0, 1), mine, evolved, tasks[t], 0)
            mine = {m: torch.as_tensor(found.weights[n]).reshape(mine[m].shape) for n, m in names_of(circuit).items()}
        for name, w in mine.items():
            near(ends[name][k], w[0], 1e-9, name)


@pytest.mark.parametrize("credits", ["bp", "dfa"])
def test_lives_without_evolution_are_the_controls_of_the_note(credits):
    """Backprop and direct feedback alignment; each newborn draws its own fixed feedback."""
    settings = {"sizes": (8, 7, 6, CLASSES)}
    circuit, life = build(**settings, credits=credits), Life("adam", 0.03, 1.0, 30)
    learners = Learners(circuit, "float64")
    assert learners.evolved == () and learners.size == 0
    weights, stimuli = learners.born([0, 3]), task(circuit)
    ends, losses = learners.live(life, weights, {}, lambda t: stimuli)
    if credits == "dfa":
        near(weights["B_pyr1"][1], circuit.initial_weights(3)["B_pyr1"], 0.0)
        assert torch.equal(weights["B_pyr1"], ends["B_pyr1"])
    for k in range(2):
        feedback = [weights[f"B_pyr{l}"][k].numpy() for l in (1, 2)] if credits == "dfa" else None
        source = oracle.dfa_source(feedback) if feedback else oracle.bp_source()
        found = lives_by_the_oracle(circuit, settings, life, weights, {}, stimuli, k, source)
        assert_same_learner(circuit, ends, k, found.weights, 1e-9)
        near(losses[:, k], found.losses, 1e-9, "losses")
        assert found.losses[-1] < 0.5 * found.losses[0]


def test_the_loss_can_be_followed_back_through_a_life():
    """For unrolled training: autograd of the last loss by the evolved weights equals finite differences."""
    circuit, life = build(**LIFE), Life("adam", 0.03, 1.0, 5)
    learners = Learners(circuit, "float64")
    theta, weights, stimuli = population(circuit, 2), learners.born([0, 1]), task(circuit)
    direction = torch.as_tensor(np.random.default_rng(0).standard_normal(theta.shape))

    def last(candidates):
        return learners.live(life, weights, learners.stacked(candidates), lambda t: stimuli)[1][-1].sum()

    leaf = theta.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(last(leaf), leaf)
    slope, step = float((slope * direction).sum()), 1e-5
    finite = float(last(theta + step * direction) - last(theta - step * direction)) / (2 * step)
    assert abs(slope) > 1e-3 and abs(finite - slope) <= 1e-5 * abs(slope)


# ---------------------------------------------------------------- acceptance 4: diffusion


def sites_of(n, ratio, lattice) -> int:
    if lattice == "line":
        return oracle.site_count(n, ratio)
    return oracle.site_count(round(n**0.5), ratio**0.5) ** 2


def kernel_of(n, ratio, kind, width=0.5, lattice="line", sites=None):
    """By the oracle; `width` in spacings of the sites. `sites`: those of another lattice, spread over this one."""
    count = sites_of(n, ratio, lattice) if sites is None else sites
    if kind == "chain":
        if lattice == "line":
            return oracle.chain_kernel(
                n, oracle.lattice_sites(n, count), (width * n / count) ** 2 * count / n, count / n
            )
        side, along = round(n**0.5), round(count**0.5)
        one, line = np.eye(side), oracle.path_laplacian(side)
        at = oracle.lattice_sites(side, along)
        laplacian = np.kron(line, one) + np.kron(one, line)
        spread = np.linalg.inv(np.eye(n) + width**2 * n / count * laplacian)
        return n / count * spread[(at[:, None] * side + at).ravel()]
    spacing = n / count if lattice == "line" else (n / count) ** 0.5
    if lattice == "line":
        d = np.array([[abs(i - s) for i in range(n)] for s in oracle.line_sites(n, count)])
    else:
        d = oracle.sheet_distances(round(n**0.5), round(count**0.5))
    return oracle.weights_of_distance(d, kind, width * spacing)


@pytest.mark.parametrize("width", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("kind", ["gauss", "exp", "block", "chain"])
@pytest.mark.parametrize(("n", "lattice"), [(32, "line"), (37, "line"), (1, "line"), (36, "sheet"), (49, "sheet")])
def test_kernels_are_the_oracle_s(n, lattice, kind, width):
    for ratio in (1.0, 1.7, 2.0, 3.0, 4.0, 10.0, 1e9):
        sites = release_sites(n, ratio, lattice)
        assert sites == sites_of(n, ratio, lattice)
        found = diffusion_kernel(sites, n, kind, width, lattice)
        near(found, kernel_of(n, ratio, kind, width, lattice), 1e-12, f"ratio {ratio}")
        if kind == "chain":
            near(found.sum(axis=1), np.full(sites, n / sites), 1e-11, "released by each site")
        else:
            near(found.sum(axis=0), np.ones(n), 1e-13, "received by each cell")


@pytest.mark.parametrize("kind", ["gauss", "exp", "block"])
@pytest.mark.parametrize("ratio", [2, 4, 8])
def test_kernels_of_the_note_where_the_ratio_divides(kind, ratio):
    """Width rho/2 in cells, sites and normalisation as the note has them; re-gridded the same sites reach another number of cells."""
    for n, new in ((32, 64), (32, 48), (64, 32)):
        found = release_sites(n, ratio)
        near(diffusion_kernel(found, n, kind), oracle.line_kernel(n, ratio, kind), 1e-13)
        near(diffusion_kernel(found, new, kind), oracle.regridded_line(n, new, ratio, kind), 1e-13, f"on {new} cells")
    if ratio == 4:
        found = release_sites(64, 4, "sheet")
        near(diffusion_kernel(found, 64, kind, lattice="sheet"), oracle.sheet_kernel(64, 4, kind), 1e-13)
        near(diffusion_kernel(found, 144, kind, lattice="sheet"), oracle.regridded_sheet(64, 144, 4, kind), 1e-13)


def test_sites_are_never_none_and_never_more_than_cells():
    for ratio in (1.0, 1.0001, 7.0, 1e9, 1e30):
        for n, lattice in ((1, "line"), (10, "line"), (100, "sheet")):
            assert 1 <= release_sites(n, ratio, lattice) <= n
    assert release_sites(10, 10 / 3) == 3  # no site more by rounding


def test_without_diffusion_each_cell_has_a_credit_of_its_own():
    """ratio 1 is a no-op: no kernel stands between sites and tufts, whatever kernel is named."""
    plain = build(sizes=(7, 6, 5, CLASSES), hidden=HIDDEN)
    for kernel in ("gauss", "exp", "block", "chain"):
        circuit = build(sizes=(7, 6, 5, CLASSES), hidden=HIDDEN, ratio=1.0, kernel=kernel, width=2.0)
        weights = circuit.initial_weights(0)
        assert all(np.array_equal(weights[f"D_pyr{l}"], np.ones(n)) for l, n in ((1, 6), (2, 5), (3, 4)))
        images, targets = samples_of(circuit, 3)
        found = [play(c, images, targets, STEADY, drawn(plain)).collected for c in (plain, circuit)]
        assert all(np.array_equal(found[0][n], found[1][n]) for n in found[0])


@pytest.mark.parametrize("name", ["mlp", "residual, own", "one convolution"])
def test_a_kernel_folded_into_the_last_weights_gives_the_same_changes(name, tmp_path):
    """V3' = V3 D and e3' = e3 D, handed to the undiffused circuit as a file."""
    settings = CASES[name] | {"hidden": HIDDEN}
    circuit = build(**settings, ratio=3.0 if name != "one convolution" else 9.0)
    weights = drawn(circuit, 8, 1.5)
    plain = build(**settings)
    folded = {n: weights[n] for n in circuit.evolved}
    for population in credited(circuit, settings)[:-1]:
        for matrix in ("V3", "e3"):
            folded[f"{matrix}_{population}"] = weights[f"{matrix}_{population}"] @ weights[f"D_{population}"]
    shapes = {n: w.shape for n, w in plain.initial_weights(0).items() if n in plain.evolved}
    assert {n: w.shape for n, w in folded.items()} == shapes != {n: weights[n].shape for n in folded}
    told = {
        "sizes": settings["sizes"],
        "hidden": HIDDEN,
        "ratio": 1.0,
        "architecture": settings.get("architecture", "mlp"),
        "inner": settings.get("inner", "transposed"),
    }
    path = Evolved(folded, "tdca", told).save(tmp_path / "folded.safetensors")
    again = model.circuit(**CASES[name], credits=str(path))
    images, targets = samples_of(circuit, 5)
    explicit = play(circuit, images, targets, STEADY, weights).collected
    mine = {n: w for n, w in weights.items() if n not in circuit.evolved and not n.startswith("D_")}
    found = play(again, images, targets, STEADY, again.initial_weights(0) | mine).collected
    for n in explicit:
        near(found[n], explicit[n], 1e-12, n)


def test_each_map_diffuses_by_itself():
    circuit = build(**CASES["one convolution"], ratio=9.0 / 4)
    one = kernel_of(9, 9 / 4, "gauss", lattice="sheet")
    assert one.shape == (4, 9)
    near(circuit.initial_weights(0)["D_pyr1"], oracle.block_diagonal([one] * 3), 1e-13)


# ---------------------------------------------------------------- acceptance 6: numbers


def parameters(circuit, names) -> int:
    return sum(int(np.prod(circuit.plan.projections[n].weight_shape)) for n in names)


@pytest.mark.parametrize(
    ("settings", "weights", "credits", "searched"),
    [
        ({"sizes": (784, 100, 100, 100, 10), "architecture": "residual"}, 119_910, 310, 11_170),
        ({"sizes": (784, 100, 100, 100, 10)}, 99_710, 310, 11_170),
        ({"sizes": (784, 100, 100, 100, 10), "architecture": "residual", "inner": "own"}, 119_910, 510, None),
        ({"sizes": (64, 32, 32, 10)}, 3_466, 74, 3_854),
        ({"sizes": (64, 32, 32, 10), "ratio": 4.0}, 3_466, 74, 2_366),
    ],
)
def test_numbers_of_the_released_configuration(settings, weights, credits, searched):
    circuit = build(**settings)
    assert parameters(circuit, [q.name for q, _ in circuit.plan.plastic()]) == weights == oracle.parameter_count(net_of(settings))  # fmt: skip
    targets = {q.target for q in circuit.plan.projections.values() if q.name.startswith("D_")}
    assert sum(circuit.plan.populations[t].n for t in targets) == credits
    if searched is None:
        searched = oracle.tdca_parameter_count(10, 30, credits)
    assert parameters(circuit, circuit.evolved) == searched
    if settings["sizes"][0] == 64:
        assert Learners(circuit).size == searched == len(Learners(circuit).theta(circuit.initial_weights(0)))


def test_the_usual_circuit_is_the_note_s_learner_of_digits():
    sizes = {name: model.training({}, name)["sizes"] for name in ("mnist", "fashion_mnist")}
    assert sizes["mnist"] == sizes["fashion_mnist"] == (784, 100, 100, 100, 10)
    circuit = model.circuit()
    assert [p.n for p in circuit.populations if p.name.startswith(("inp", "pyr"))] == [64, 32, 32, 10]
    assert [p.n for p in circuit.populations if p.name.startswith("td")] == [30, 30]


TABLE = {  # searched parameters, C = 10, H = 30 (section 2.4 of the note)
    (100, 100, 100): (11_170, 6_520, 4_195, 2_800, 2_242, 1_963),
    (256, 256): (17_742, 9_806, 5_838, 3_482, 2_552, 1_932),
    (1024, 1024, 1024): (97_102, 49_486, 25_678, 11_449, 5_683, 1_963),
}


@pytest.mark.parametrize("levels", TABLE)
def test_searched_parameters_of_the_note_s_table(levels):
    for ratio, wanted in zip((1.0, 2.0, 4.0, 10.0, 25.0, 1e12), TABLE[levels], strict=True):
        circuit = model.circuit(sizes=(16, *levels, 10), ratio=ratio, kernel="block")
        assert parameters(circuit, circuit.evolved) == wanted, ratio


def test_initial_weights_are_the_released_ones():
    """Learner: uniform on +-fan_in^-0.5, biases 0; top-down: Glorot uniform over each whole layer, biases 0."""
    circuit = build(sizes=(100, 80, 60, 10))
    weights = circuit.initial_weights(0)
    sites = 80 + 60 + 10
    limits = {"W1": 100**-0.5, "W2": 80**-0.5, "W3": 60**-0.5, "V1_pyr3": (6 / 50) ** 0.5, "V1_target": (6 / 50) ** 0.5}
    limits |= {"V2": (6 / 60) ** 0.5} | {f"V3_pyr{l}": (6 / (30 + sites)) ** 0.5 for l in (1, 2, 3)}
    for name, limit in limits.items():
        largest = np.abs(weights[name]).max()
        assert 0.97 * limit < largest <= limit, name
    assert all(not w.any() for n, w in weights.items() if n[0] in "be")
    conv = build(sizes=(3, 8, 16, 10), architecture="conv", pixels=8).initial_weights(0)
    for name, fan_in in (("W1", 27), ("W2", 72), ("W3", 64)):
        assert 0.95 * fan_in**-0.5 < np.abs(conv[name]).max() <= fan_in**-0.5, name


# ---------------------------------------------------------------- acceptance 8: dynamics against algebra

SMALL = {"sizes": (6, 5, 4, 3), "hidden": 4, "settle": 300.0}
#: Hidden levels of one width, so that one chain of the oracle has all their constants.
MESSENGER = {"sizes": (6, 6, 6, 3), "hidden": 4, "ratio": 2.0, "kernel": "chain", "width": 0.6, "messenger": True, "settle": 300.0}  # fmt: skip
IN_TIME = {
    "ordinary": SMALL, "diffused": SMALL | {"ratio": 2.0}, "messenger": MESSENGER,
    "messenger, own credits": MESSENGER | {"ratio": 1.0},
}  # fmt: skip


def algebra(circuit, settings, weights, images, targets, D=None):
    net, mine = net_of(settings), learner(circuit, weights)
    theta, own = top_down(circuit, settings, weights)
    credits = oracle.tdca_credits(theta, oracle.forward(net, mine, images).h[-1], targets, own if D is None else D)
    acts = oracle.forward(net, mine, images)
    return acts, credits, oracle.deltas(net, mine, acts, credits), oracle.local_update(net, mine, images, credits)


def settled_kernel(settings) -> np.ndarray | None:
    """What a messenger settles at; None without one."""
    if not settings.get("messenger"):
        return None
    kernels = [kernel_of(n, settings["ratio"], "chain", settings["width"]) for n in settings["sizes"][1:-1]]
    return oracle.block_diagonal([*kernels, np.eye(settings["sizes"][-1])])


@pytest.mark.parametrize("level", [DENSE, TRAJECTORY, STEADY])
@pytest.mark.parametrize("name", IN_TIME)
def test_the_circuit_in_time_settles_at_the_algebra(name, level):
    """After 300 ms, 15 times the messenger's tau_m: credits and delta within 1e-6, changes within 1e-3 of their size."""
    settings = IN_TIME[name]
    circuit = build(**settings)
    weights = drawn(circuit, 9, 1.5)
    samples = 2 if level != STEADY else 5
    images, targets = samples_of(circuit, samples)
    acts, credits, deltas, update = algebra(circuit, settings, weights, images, targets, settled_kernel(settings))
    result = play(circuit, images, targets, level, weights)
    end, at = result.ends["settle"], 0
    top = len(settings["sizes"]) - 1
    for l in range(1, top + 1):
        n = settings["sizes"][l]
        near(end[f"pyr{l}.r"], acts.h[l], 1e-9, f"rates of pyr{l}")
        near(end[f"pyr{l}.v_a"], credits[:, at : at + n], 1e-6, f"credits of pyr{l}")
        near(end[f"pyr{l}.delta"], deltas[f"W{l}"], 1e-6, f"delta of pyr{l}")
        at += n
    assert_descends(circuit, result.collected, update, 1e-3, relative=True)


@pytest.mark.parametrize("level", [DENSE, TRAJECTORY])
def test_a_residual_block_in_time_settles_at_the_algebra(level):
    settings = {"sizes": (6, 4, 4, 3), "architecture": "residual", "hidden": 4, "settle": 300.0}
    circuit = build(**settings)
    weights = drawn(circuit, 9, 1.5)
    images, targets = samples_of(circuit, 2)
    acts, credits, _, update = algebra(circuit, settings, weights, images, targets)
    result = play(circuit, images, targets, level, weights)
    near(result.ends["settle"]["inner2.r"], acts.inner[2], 1e-9)
    near(result.ends["settle"]["pyr2.v_a"], credits[:, 4:8], 1e-6)
    assert_descends(circuit, result.collected, update, 1e-3, relative=True)


def in_time_by_scipy(circuit, settings, weights, image, target, kappa=0.0, duration=1.0):
    theta, D = top_down(circuit, settings, weights)
    mine, told = learner(circuit, weights), {"D": D}
    if settings.get("messenger"):
        # tau_m dm/dt = w^2 (flow) - m + n/K S is the oracle's equation, times n/K
        n = settings["sizes"][1]
        sites = oracle.site_count(n, settings["ratio"])
        chain = {"diffusion": (settings["width"] * n / sites) ** 2 * sites / n, "decay": sites / n}
        at = [oracle.lattice_sites(n, sites)] * (len(settings["sizes"]) - 2)
        told = {"chain": chain | {"sites": at}, "tau_messenger": 20e-3 * sites / n}
    return oracle.settle(
        net_of(settings), mine, theta, image, target, kappa=kappa, kappa_output=0.0, duration=duration, **told
    )


@pytest.mark.parametrize("kappa", [0.0, 0.4])
@pytest.mark.parametrize("name", ["ordinary", "messenger"])
def test_fixed_points_are_those_of_the_oracle_s_differential_equations(name, kappa):
    """kappa > 0: credit leaks into the rates, and the answer moves."""
    settings = (
        IN_TIME[name] | {"kappa": kappa} | ({"settle": 600.0} if kappa else {})
    )  # the loop slows the messenger down
    circuit = build(**settings)
    weights = drawn(circuit, 10)
    images, targets = samples_of(circuit, 2)
    level = [STEADY, TRAJECTORY]
    results = [play(circuit, images, targets, l, weights) for l in level]
    top = len(settings["sizes"]) - 1
    for k in range(2):
        wanted = in_time_by_scipy(circuit, settings, weights, images[k], targets[k], kappa)
        assert wanted.residual < 1e-9
        for result in results:
            end = result.ends["settle"]
            for l in range(1, top + 1):
                near(end[f"pyr{l}.r"][k], wanted.rates[l], 1e-6, f"rates of pyr{l} on {result.level}")
                near(end[f"pyr{l}.v_a"][k], wanted.apical[l], 1e-6, f"credits of pyr{l} on {result.level}")
                near(end[f"pyr{l}.delta"][k], wanted.delta[l], 1e-6, f"delta of pyr{l} on {result.level}")
            for l, m in wanted.messenger.items():
                near(end[f"pyr{l}.m"][k], m, 1e-6, f"messenger of pyr{l} on {result.level}")
        still = in_time_by_scipy(circuit, settings, weights, images[k], targets[k], 0.0)
        moved = max(np.abs(a - b).max() for a, b in zip(still.rates, wanted.rates, strict=True))
        assert (moved > 1e-2) == (kappa > 0)
    single = play(circuit, images[:1], targets[:1], STEADY, weights).collected
    wanted = in_time_by_scipy(circuit, settings, weights, images[0], targets[0], kappa)
    assert_descends(circuit, single, wanted.update, 1e-7)


@pytest.mark.parametrize("name", ["ordinary", "messenger"])
def test_euler_is_of_first_order(name):
    """States at the last step of a phase of 12 ms, while all still move, at three steps against SciPy."""
    settings = IN_TIME[name] | {"kappa": 0.4, "settle": 12.0}
    circuit = build(**settings)
    weights = drawn(circuit, 11)
    images, targets = samples_of(circuit, 1)
    errors = []
    for dt in (0.2, 0.1, 0.05):
        end = play(circuit, images, targets, TRAJECTORY, weights, dt=f"{dt}*ms", plasticity="off").ends["settle"]
        wanted = in_time_by_scipy(circuit, settings, weights, images[0], targets[0], 0.4, (12.0 - dt) * 1e-3)
        pairs = [(end[f"pyr{l}.u"][0], wanted.drives[l]) for l in (1, 2, 3)]
        pairs += [(end[f"pyr{l}.v_a"][0], wanted.apical[l]) for l in (1, 2, 3)]
        pairs += [(end[f"pyr{l}.m"][0], m) for l, m in wanted.messenger.items()]
        errors.append(max(np.abs(a - b).max() for a, b in pairs))
        assert wanted.residual > 1e-2  # nothing has settled
    orders = [np.log2(a / b) for a, b in pairwise(errors)]
    assert errors[-1] < 1e-2 and all(0.9 < order < 1.1 for order in orders), (errors, orders)


LEVELS = {
    "ordinary": {"sizes": (5, 4, 3, 2), "hidden": 3, "ratio": 2.0, "settle": 20.0, "kappa": 0.3},
    "messenger": MESSENGER | {"sizes": (4, 4, 4, 2), "hidden": 3, "settle": 20.0},
    "residual": {"sizes": (5, 3, 3, 2), "architecture": "residual", "hidden": 3, "settle": 20.0},
    "bp": {"sizes": (5, 4, 3, 2), "credits": "bp", "settle": 20.0},
}


@pytest.mark.parametrize("name", LEVELS)
def test_levels_in_time_agree_with_plasticity_on(name):
    """Two trials of one sample, the second with what the first has taught."""
    circuit = build(**LEVELS[name], eta=3.0)
    weights = drawn(circuit, 12)
    images, targets = samples_of(circuit, 2)
    runs = {l: play(circuit, images, targets, l, weights, plasticity="on", batch_size=1) for l in EULER}
    first = runs[EQUATIONS]
    for mine in names_of(circuit).values():
        assert np.abs(first.weights[mine] - weights[mine]).max() > 1e-4, mine
    for level in (DENSE, TRAJECTORY):
        for mine in first.weights:
            near(runs[level].weights[mine], first.weights[mine], 1e-12, f"{mine} on {level}")
        for phase, ends in first.ends.items():
            for variable, value in ends.items():
                near(runs[level].ends[phase][variable], value, 1e-12, f"{variable} on {level}")


@pytest.mark.parametrize(
    "settings",
    [c | {"hidden": HIDDEN} for c in CASES.values()]
    + [CASES["mlp"] | {"credits": c} for c in ("bp", "fa", "dfa")]
    + [CASES["mlp"] | {"ratio": 3.0, "kernel": k, "hidden": HIDDEN} for k in ("exp", "chain")],
    ids=str,
)
def test_the_functional_trial_is_the_steady_level(settings):
    """All states and variables of the learner, and the changes."""
    circuit = build(**settings)
    weights = drawn(circuit, 13)
    images, targets = samples_of(circuit, 4)
    wanted = play(circuit, images, targets, STEADY, weights)
    ends = wanted.ends["learn"]
    stimuli = tensors({"image": images, "target": targets})
    found, changes = FunctionalTrial(circuit.plan)(tensors(weights), stimuli, list(ends))
    for name, value in ends.items():
        near(found[name].expand(len(images), -1), value, 1e-12 * max(1.0, np.abs(value).max()), name)
    assert set(changes) == set(wanted.collected)
    for name, value in wanted.collected.items():
        near(changes[name], value, 1e-12, name)


@pytest.mark.parametrize("settings", [{"kappa": 0.1}, {"messenger": True, "kernel": "chain", "ratio": 2.0}])
def test_a_circle_is_refused_by_the_functional_trial(settings):
    circuit = build(sizes=(6, 5, 4, 3), hidden=4, **settings)
    stimuli = task(circuit, 3)
    with pytest.raises(UnsupportedError, match=r"'tdca'.*depends on itself.*torch:steady"):
        Learners(circuit, "float64").present(
            Learners(circuit, "float64").born([0]),
            Learners(circuit, "float64").stacked(population(circuit, 1)),
            stimuli,
        )


# ---------------------------------------------------------------- files of evolved weights


def evolved_file(folder, settings=None, seed=0, **changed) -> tuple:
    """A circuit with drawn top-down weights, and the file that holds them."""
    settings = {"sizes": (7, 6, 6, CLASSES), "hidden": 5, "ratio": 2.0} | (settings or {})
    circuit = build(**settings)
    weights = drawn(circuit, seed, 1.5)
    told = {"architecture": "mlp", "kernel": "gauss", "width": 0.5, "lattice": "line"} | settings | changed
    facts = {"life": {"optimiser": "sgd", "rate": 0.4, "clip": 2.0, "steps": 30}, "dataset": "digits"}
    found = Evolved({n: weights[n] for n in circuit.evolved}, "tdca", told, facts)
    return circuit, weights, found.save(folder / "evolved.safetensors")


def test_a_file_comes_back_as_it_was_written(tmp_path):
    circuit, weights, path = evolved_file(tmp_path)
    for place in (path, str(path), tmp_path, str(tmp_path)):  # the folder of a run too
        found = load_evolved(place)
        assert found.model == "tdca" and found.settings["sizes"] == (7, 6, 6, CLASSES)
        assert found.settings["ratio"] == 2.0 and found.facts["life"]["rate"] == 0.4
        assert set(found.weights) == set(circuit.evolved)
        assert all(np.array_equal(found.weights[n], weights[n]) for n in circuit.evolved)


@pytest.mark.parametrize(
    "settings",
    [{}, {"kernel": "exp", "width": 0.9}, {"architecture": "residual"}, {"architecture": "residual", "inner": "own"}],
    ids=str,
)
def test_credits_from_a_file_teach_as_in_evolution(settings, tmp_path):
    """Sizes, top-down cells, ratio and kernel follow from the file; they need not be said again."""
    circuit, weights, path = evolved_file(tmp_path, settings)
    asked = {k: v for k, v in settings.items() if k in ("architecture", "inner")}
    again = model.circuit(credits=str(path), **asked)
    assert all(np.array_equal(again.initial_weights(9)[n], weights[n]) for n in again.evolved)
    images, targets = samples_of(circuit, 4)
    wanted = play(circuit, images, targets, STEADY, weights)
    found = play(again, images, targets, STEADY, {n: weights[n] for n in again.initial_weights(0)})
    for n, change in wanted.collected.items():
        near(found.collected[n], change, 0.0, n)


@pytest.mark.parametrize(("ratio", "kernel"), [(2.0, "gauss"), (3.0, "exp"), (2.0, "block"), (2.0, "chain"), (1.0, "gauss")])  # fmt: skip
@pytest.mark.parametrize("widths", [(9, 14), (12, 6)])
def test_a_file_drives_learners_of_another_width(widths, ratio, kernel, tmp_path):
    """The sites of evolution spread over the new cells; the picture may have another size too."""
    _, weights, path = evolved_file(tmp_path, {"ratio": ratio, "kernel": kernel})
    settings = {"sizes": (11, *widths, CLASSES)}
    circuit, net = model.circuit(**settings, credits=str(path)), net_of(settings)
    mine = drawn(build(**settings))
    mine = circuit.initial_weights(0) | {n: mine[n] for n in names_of(circuit).values()}
    theta, _ = top_down(circuit, settings, mine)
    sites = oracle.site_count(6, ratio)
    assert theta["V3"].shape == (5, 2 * sites + CLASSES) and np.array_equal(mine["V3_pyr1"], weights["V3_pyr1"])
    kernels = [np.eye(n) if ratio == 1 and n == 6 else kernel_of(n, ratio, kernel, sites=sites) for n in widths]
    if kernel != "chain" and 6 % ratio == 0:
        for D, n in zip(kernels, widths, strict=True):
            near(D, oracle.regridded_line(6, n, ratio, kernel), 1e-13)
    images, targets = samples_of(circuit, 4)
    learner_weights = learner(circuit, mine)
    p = oracle.forward(net, learner_weights, images).h[-1]
    credits = oracle.tdca_credits(theta, p, targets, oracle.block_diagonal([*kernels, np.eye(CLASSES)]))
    result = play(circuit, images, targets, STEADY, mine)
    assert_descends(circuit, result.collected, oracle.local_update(net, learner_weights, images, credits))


def test_training_lives_as_in_evolution(tmp_path):
    _, _, path = evolved_file(tmp_path)
    preset = model.training({"credits": str(path)}, "digits")
    assert preset["sizes"] == (64, 6, 6, CLASSES) and preset["architecture"] == "mlp"
    assert (preset["optimiser"], preset["learning_rate"], preset["clip"]) == ("sgd", 0.4, 2.0)
    plain = model.training({"credits": "bp"}, "mnist")
    assert plain["sizes"] == (784, 100, 100, 100, 10) and plain["optimiser"] == "adam" and plain["clip"] == 1.0


def test_bad_files_are_refused(tmp_path):
    _, _, path = evolved_file(tmp_path)
    whole = path.read_bytes()
    bad = tmp_path / "bad.safetensors"
    for length in (0, 5, 60, len(whole) // 2, len(whole) - 1):
        bad.write_bytes(whole[:length])
        with pytest.raises(NeurosimError, match=r"bad\.safetensors' is truncated"):
            model.circuit(credits=str(bad))
    for at in (-1, -100, len(whole) - 500):
        damaged = bytearray(whole)
        damaged[at] ^= 0x40
        bad.write_bytes(bytes(damaged))
        with pytest.raises(NeurosimError, match=r"bad\.safetensors' is damaged: its checksum fails"):
            model.circuit(credits=str(bad))
    bad.write_text("no weights at all, only text that is long enough to be read")
    with pytest.raises(NeurosimError, match="truncated or no file of evolved weights"):
        model.circuit(credits=str(bad))
    from neurosim import tensors as files

    files.save(bad, {"W": np.zeros(2)}, {"kind": "something else"})
    with pytest.raises(NeurosimError, match="holds no evolved weights; expected a file that `neurosim evolve` wrote"):
        load_evolved(bad)


def test_files_for_something_else_are_refused(tmp_path):
    _, _, path = evolved_file(tmp_path)
    with pytest.raises(
        NeurosimError, match=r"no file '.*none\.safetensors' of evolved weights; `neurosim evolve` writes one"
    ):
        model.circuit(credits=str(tmp_path / "none.safetensors"))
    with pytest.raises(NeurosimError, match="no file 'pb' of evolved weights"):
        model.circuit(credits="pb")
    found = load_evolved(path)
    Evolved(found.weights, "tdca_search", found.settings).save(path)
    with pytest.raises(NeurosimError, match="was evolved for tdca_search; expected a file of `neurosim evolve tdca`"):
        model.circuit(credits=str(path))
    Evolved(found.weights, "tdca", found.settings).save(path)
    for name, value in (("hidden", 6), ("ratio", 1.0)):
        wanted = rf"{name} = {value} with credits = '.*', which was evolved with {name} = {found.settings[name]}. Leave it out"
        with pytest.raises(NeurosimError, match=wanted):
            model.circuit(credits=str(path), **{name: value})
    model.circuit(credits=str(path), hidden=5, ratio=2.0)  # said again, and right
    with pytest.raises(
        NeurosimError, match=r"(no credit for 'pyr3'|no weights for 'V1_pyr4').*(same hidden levels|same levels)"
    ):
        model.circuit(credits=str(path), sizes=(7, 6, 6, 6, CLASSES))
    with pytest.raises(
        NeurosimError, match=r"holds no weights for 'V1_pyr2'; expected a file evolved for the same levels"
    ):
        model.circuit(credits=str(path), sizes=(7, 6, CLASSES))
    with pytest.raises(
        NeurosimError, match=r"architecture = residual .* evolved with architecture = mlp. Leave it out"
    ):
        model.circuit(credits=str(path), architecture="residual", inner="own")
    with pytest.raises(NeurosimError, match=r"sizes = \(7, 6, 6, 5\) .*evolved for 4 classes"):
        model.circuit(credits=str(path), sizes=(7, 6, 6, CLASSES + 1))
    own = {"architecture": "residual", "inner": "own"}
    _, _, strict = evolved_file(tmp_path, own)
    assert "V3_inner2" in model.circuit(credits=str(strict)).evolved  # architecture and inner as in the file
    with pytest.raises(NeurosimError, match=r"inner = transposed .* evolved with inner = own. Leave it out"):
        model.circuit(credits=str(strict), inner="transposed")
    assert {k: model.training({"credits": str(strict)}, "digits")[k] for k in own} == own
    missing = {n: w for n, w in found.weights.items() if n != "V2"}
    Evolved(missing, "tdca", found.settings).save(path)
    with pytest.raises(NeurosimError, match="holds no weights for 'V2'"):
        model.circuit(credits=str(path))


def test_sites_need_cells_and_maps_those_of_evolution(tmp_path):
    _, _, path = evolved_file(tmp_path, {"kernel": "chain"})
    for messenger in (False, True):
        with pytest.raises(NeurosimError, match=r"'pyr1' has 2 cells.*evolved for 3 release sites"):
            model.circuit(sizes=(7, 2, 6, CLASSES), credits=str(path), messenger=messenger)
    _, _, path = evolved_file(tmp_path, {"architecture": "conv", "sizes": (1, 2, CLASSES), "ratio": 4.0})
    model.circuit(credits=str(path), pixels=16)
    with pytest.raises(NeurosimError, match=r"'pyr1' has 8 maps.*sizes = \(1, 2, 4\); expected as many maps"):
        model.circuit(credits=str(path), sizes=(1, 8, CLASSES))


def test_inner_cells_with_credits_of_their_own_have_the_messenger():
    settings = {
        "sizes": (5, 8, 8, 3),
        "hidden": 4,
        "ratio": 2.0,
        "kernel": "chain",
        "architecture": "residual",
        "inner": "own",
    }
    plain, slow = model.circuit(**settings), model.circuit(**settings, messenger=True)
    images, targets = samples_of(plain, 2)
    weights, mine = drawn(plain, 0), slow.initial_weights(0)
    mine |= {n: w for n, w in weights.items() if not n.startswith("D_")}
    wanted = play(plain, images, targets, STEADY, weights).ends["settle"]
    found = play(slow, images, targets, STEADY, mine).ends["settle"]
    for name in ("inner2", "pyr1", "pyr2"):
        near(found[f"{name}.v_a"], wanted[f"{name}.v_a"], 1e-6, name)


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sizes": (7, 4)}, r"sizes = \(7, 4\); wanted a list of at least 3 whole numbers"),
        ({"sizes": (7, 0, 4)}, r"sizes = \(7, 0, 4\)"),
        ({"sizes": (7, 5.5, 4)}, r"sizes = \(7, 5\.5, 4\)"),
        ({"sizes": (7, 5, 1)}, r"sizes = \(7, 5, 1\).*at least two classes"),
        ({"architecture": "residul"}, r"'residul'.*residual"),
        ({"inner": "transpose"}, r"'transpose'.*transposed"),
        ({"kernel": "gaus"}, r"'gaus'.*gauss"),
        ({"lattice": "shet"}, r"'shet'.*sheet"),
        ({"sizes": (7, 5, 6, 4), "architecture": "residual"}, r"sizes = .*expected hidden levels of one width"),
        ({"sizes": (3, 4, 5, 10), "architecture": "conv", "pixels": 6}, r"pixels = 6 cannot be halved 2 times.*multiple of 4"),
        ({"sizes": (3, 4, 5, 10), "architecture": "conv", "pixels": 2}, r"pixels = 2"),
        ({"hidden": 0}, r"hidden = 0; wanted a whole number"),
        ({"hidden": 2.5}, r"hidden = 2\.5; wanted a whole number"),
        ({"ratio": 0.5}, r"ratio = 0\.5; wanted a number of at least 1"),
        ({"ratio": float("nan")}, r"ratio = nan"),
        ({"ratio": float("inf")}, r"ratio = inf"),
        ({"width": 0.0}, r"width = 0\.0; wanted a number above 0"),
        ({"width": -1.0, "ratio": 2.0}, r"width = -1\.0"),
        ({"tau_m": 0.0}, r"tau_m = 0\.0; wanted a number above 0"),
        ({"kappa": -0.1}, r"kappa = -0\.1; wanted a number of at least 0"),
        ({"eta": 0.0}, r"eta = 0\.0; wanted a number above 0"),
        ({"settle": 0.0}, r"settle = 0\.0; wanted a number above 0"),
        ({"settle": float("inf")}, r"settle = inf"),
        ({"sizes": (7, 6, 4), "lattice": "sheet", "ratio": 2.0}, r"6 cells do not fill a square sheet; expected a square number, or lattice = 'line'"),
        ({"messenger": True}, r"messenger = True with kernel = 'gauss'.*expected that kernel"),
        ({"messenger": True, "kernel": "chain", "architecture": "conv", "sizes": (1, 2, 4)}, r"messenger = True.*no maps"),
        ({"messenger": True, "kernel": "chain", "ratio": 4.0, "width": 3.0, "tau_m": 20.0, "sizes": (7, 16, 4)}, r"messenger of 'pyr1' is unstable.*tau_m above 288\.5 ms"),
        ({"sizes": (1, 2, 3, 4), "architecture": "conv", "credits": "bp"}, r"credits = 'bp' through a convolution.*--method backprop"),
        ({"sizes": (1, 2, 3, 4), "architecture": "conv", "credits": "fa"}, r"credits = 'fa' through a convolution"),
    ],
)  # fmt: skip
def test_errors_name_the_setting_and_the_cure(settings, message):
    with pytest.raises(NeurosimError, match=f"(?s){message}"):
        model.circuit(**({"sizes": (7, 6, 5, CLASSES)} | settings))


def test_the_limit_of_the_messenger_s_step_is_the_true_one():
    """dt (4 w^2 + 1)/tau_m < 2 on a line, 8 w^2 on a sheet: just inside it settles, just outside it is refused."""
    settings = {"sizes": (5, 16, 3), "hidden": 4, "ratio": 4.0, "width": 0.5, "messenger": True, "kernel": "chain"}
    limit = (4 * (0.5 * 4) ** 2 + 1) / 2
    with pytest.raises(NeurosimError, match="unstable"):
        model.circuit(**settings, tau_m=0.99 * limit)
    with pytest.raises(NeurosimError, match="unstable"):
        model.circuit(**settings, lattice="sheet", tau_m=0.99 * (8 * (0.5 * 2) ** 2 + 1) / 2)
    model.circuit(**settings, lattice="sheet", tau_m=1.01 * (8 * (0.5 * 2) ** 2 + 1) / 2)
    circuit = model.circuit(**settings, tau_m=1.01 * limit, settle=600.0)
    weights = drawn(circuit, 0)
    images, targets = samples_of(circuit, 1)
    ends = [play(circuit, images, targets, level, weights).ends["settle"]["pyr1.m"] for level in (TRAJECTORY, STEADY)]
    near(*ends, 1e-6, "messenger")
