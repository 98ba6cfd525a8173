"""Starts and protocols that a page calls READ, against what the authors' code does.

Oracles, written from the paper notes alone: CorInfoMax's relaxation in the authors' layout (columns
are samples), closed forms, and loops over single pixels, samples and batches.
"""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import neurosim
from neurosim import data, registry
from neurosim.data.augment import Augment
from neurosim.data.dataset import Dataset
from neurosim.data.validation import draw_validation
from neurosim.errors import NeurosimError
from neurosim.models import corinfomax, counter_current, counter_current_autoencoder
from neurosim.training import TrainConfig, Trainer, checkpoint, resolve, resume
from neurosim.training.evolution.lifetime import loss
from neurosim.training.start import start
from tests.test_resume import assert_same, stopped_after

#: Models that no trainer takes.
NOT_TRAINED = ("bac_firing", "tdca_control", "tdca_search")

# ------------------------------------------------------------ CorInfoMax: what a phase begins with


def authors_batch(w: dict, x, y, sign: int, p: dict, clipped: bool = True) -> tuple[dict, dict]:
    """One batch on the sparse set by the note's 2.4 to 2.6: ends of both phases, new weights.

    Rates are (cells, samples), matrices (target, source). `clipped` says whether multipliers are
    restarted at their clipped value.
    """
    eps, g, lam, eta_q = 0.15, p["g_lk"], p["lam"], p["eta_q"]
    gamma, samples = (1 - lam) / lam, x.shape[1]
    r1, r2 = np.zeros((len(w["B1"]), samples)), np.zeros((len(w["B2"]), samples))
    u1, u2, raw1, raw2 = r1.copy(), r2.copy(), np.zeros(samples), np.zeros(samples)
    ends = {}
    for name, nudge in (("free", 0.0), ("nudged", sign * p["beta"])):
        if name == "nudged":
            u1, u2 = r1.copy(), r2.copy()
            raw1, raw2 = (np.maximum(raw, 0) if clipped else raw for raw in (raw1, raw2))
        for s in range(p[f"steps_{name}"]):
            mu = max(p["mu"] / (1 + 0.01 * s), 0.001) if p["step_rule"] == "slow" else p["mu"]
            basal = w["W1"] @ x
            own = eps * (2 * gamma * w["B1"] @ r1 + g * r1)
            apical = own + w["F1"] @ r2 - eps * np.maximum(raw1, 0)
            u1 = u1 + mu * (-g * u1 + (basal - u1) / eps + (apical - u1) / eps)
            r1 = np.maximum(u1, 0)
            raw1 = raw1 + eta_q[0] * (-raw1 + r1.sum(axis=0) - 1 + np.maximum(raw1, 0))
            basal = w["W2"] @ r1
            apical = gamma * w["B2"] @ r2 + g * r2 - nudge * (r2 - y) - np.maximum(raw2, 0)
            u2 = u2 + mu * (-g * u2 + (basal - u2) / eps + apical - u2)
            r2 = np.maximum(u2, 0)
            raw2 = raw2 + eta_q[1] * (-raw2 + r2.sum(axis=0) - 1 + np.maximum(raw2, 0))
        ends[name] = {1: r1, 2: r2, "raw": (raw1, raw2)}
    new = dict(w)
    eta = {"W1": p["eta_ff"][0], "W2": p["eta_ff"][1], "F1": p["eta_fb"][0]}
    for name, to, of in (("W1", 1, 0), ("W2", 2, 1), ("F1", 1, 2)):
        for phase, factor in (("nudged", 1), ("free", -1)):
            r = {0: x, **ends[phase]}
            error = r[to] - w[name] @ r[of]
            rate = factor * eta[name] / (sign * p["beta"])
            new[name] = new[name] + rate * error @ r[of].T / samples
    for l in (1, 2):
        z = w[f"B{l}"] @ ends["nudged"][l]
        new[f"B{l}"] = (w[f"B{l}"] - gamma * z @ z.T / samples) / lam
    return ends, new


@pytest.mark.parametrize("preset", ["digits_sparse", "fashion_mnist_sparse"])
def test_multipliers_begin_the_nudged_phase_at_their_clipped_value(preset):
    """50 batches with the published constants: the authors' rates to round-off; else 3e-4 off."""
    p = corinfomax.PRESETS[preset] | {"sizes": (64, 50, 10)}
    circuit = corinfomax.circuit(preset, sizes=p["sizes"], random_sign=False, init="published")
    digits, batch, batches = data.load("digits"), 20, 50
    images, labels = digits.train_images[: batch * batches], digits.train_labels[: batch * batches]
    start = circuit.initial_weights(2)
    result = neurosim.simulate(
        circuit, images, labels, level="torch:steady", solver="relaxation", batch_size=batch,
        weights=start, dtype="float64", progress=False,
    )  # fmt: skip
    off = {}
    for clipped in (True, False):
        w = {name: start[name].T for name in ("W1", "W2", "F1", "B1", "B2")}
        worst, lowest = 0.0, 0.0
        for k in range(batches):
            rows = slice(k * batch, (k + 1) * batch)
            ends, w = authors_batch(w, images[rows].T, np.eye(10)[labels[rows]].T, 1, p, clipped)
            lowest = min(lowest, ends["free"]["raw"][1].min())
            for phase in ("free", "nudged"):
                for l in (1, 2):
                    found = result.ends[phase][f"pyr{l}.r"][rows].T
                    worst = max(worst, np.abs(found - ends[phase][l]).max())
        off[clipped] = worst
        assert lowest < -0.1  # multipliers do fall below 0 in the free phase
        if clipped:
            for name, value in w.items():
                np.testing.assert_allclose(result.weights[name].T, value, atol=1e-12, err_msg=name)
    print(f"rates off by {off[True]:.1e}, without the restart by {off[False]:.1e}")
    assert off[True] < 1e-12
    assert off[False] > 1e-4


@pytest.mark.parametrize("nudging", corinfomax.NUDGING)
@pytest.mark.parametrize("constraint", corinfomax.RATES)
def test_every_state_that_is_shown_clipped_is_restarted_as_it_is_shown(constraint, nudging):
    """The kind: what a cell shows as clip(x, ...) is what x begins each later phase with."""
    settings = {"constraint": constraint, "nudging": nudging}
    circuit = corinfomax.circuit(sizes=(5, 4, 3, 2), eta_ff=(1, 1, 1), eta_fb=(1, 1), **settings)
    wanted = {}
    for population in circuit.populations:
        for name, state in re.findall(r"(\w+) = clip\((\w+), ", population.cell.equations):
            wanted[f"{population.name}.{state}"] = name
    assert len(wanted) == {"box": 3, "sparse": 6}[constraint]
    scheme = circuit.relaxation
    assert set(scheme.restart) == set(scheme.sweeps) - {"free"}
    assert all(restart == wanted for restart in scheme.restart.values())


# ------------------------------------------------------------ counter-current learning: starts


def test_biases_of_strided_nets_start_at_zero():
    """bias_init: "zero" in the authors' files; weights stay uniform up to 1/sqrt(fan in)."""
    circuit = counter_current.circuit((3, 24, 32, 10), layers="strided", pixels=16)
    weights = circuit.initial_weights(1)
    biases = [name for name in weights if name.startswith("b")]
    assert biases == ["bU1", "bV1", "bU2", "bV2"]
    assert not any(weights[name].any() for name in biases)
    limit = 1 / np.sqrt(9 * 24)
    assert 0.98 * limit < np.abs(weights["U2"]).max() <= limit


@pytest.mark.parametrize("channels", [(3, 8, 16), (3, 16, 8), (2, 30, 3), (1, 5, 5)])
def test_kernels_of_the_autoencoder_are_orthogonal_as_the_authors_draw_them(channels):
    """torch's orthogonal_ on (target, source, 3, 3), on (source, target, 3, 3) for fewer targets.

    It makes the matrix of the first axis against all others orthogonal: its smaller Gram matrix
    is 1.
    """
    weights = counter_current_autoencoder.circuit(channels, 8).initial_weights(3)
    maps, top = [*channels, *channels[-2::-1]], 2 * (len(channels) - 1)
    for l in range(1, top + 1):
        for name, source, target in (
            (f"U{l}", maps[l - 1], maps[l]),
            (f"V{l}", maps[l], maps[l - 1]),
        ):
            if name in (f"U{top}", "V1"):
                assert not weights[name].any()
                continue
            small = l > top // 2 if name[0] == "U" else l <= top // 2
            kernel = weights[name].reshape(source, 3, 3, target).transpose(3, 0, 1, 2)
            theirs = torch.empty(source, target, 3, 3, dtype=torch.float64)
            if target >= source:
                theirs = theirs.transpose(0, 1).contiguous()
            torch.nn.init.orthogonal_(theirs)
            mine = kernel if target >= source else kernel.transpose(1, 0, 2, 3)
            assert mine.shape == theirs.shape
            flat, gain = mine.reshape(len(mine), -1), 0.001 if small else 1.0
            gram = flat @ flat.T if len(flat) <= flat.shape[1] else flat.T @ flat
            np.testing.assert_allclose(gram, gain**2 * np.eye(len(gram)), atol=1e-12 * gain**2)
            norm = gain * float(theirs.norm())
            assert np.linalg.norm(kernel) == pytest.approx(norm, rel=1e-12), name


def test_transposed_kernels_are_drawn_alike():
    """Mean 0 and variance gain^2/(9 * target maps) at every place, 5 sigma of 2,000 draws."""
    start, rng = counter_current_autoencoder.Transposed(0.5), np.random.default_rng(0)
    drawn = np.stack([start.draw(rng, 36, 2) for _ in range(2000)])
    variance = 0.25 / 18
    assert np.abs(drawn.mean(axis=0)).max() < 5 * np.sqrt(variance / 2000)
    assert np.abs(drawn.var(axis=0) / variance - 1).max() < 5 * np.sqrt(2 / 2000)


# ------------------------------------------------------------ crops


@pytest.mark.parametrize("shape", [(5, 4), (3, 4, 5)])
@pytest.mark.parametrize("padding", [1, 3])
def test_crops_padded_by_the_edge_equal_numpys(shape, padding):
    """np.pad(mode="edge"), a window of it, mirrored or not; draws are those of black padding."""
    images = np.random.RandomState(1).rand(40, int(np.prod(shape)))
    augment = Augment(shape, padding, True, (7.0,), "edge")
    got = augment(torch.from_numpy(images), [3, 1, 4]).numpy().reshape(40, -1, *shape[-2:])
    shift, mirrored = augment._draw(40, [3, 1, 4])
    height, width = shape[-2:]
    for n, image in enumerate(images.reshape(40, -1, height, width)):
        padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)), mode="edge")
        top, left = padding + shift[n]
        window = padded[:, top : top + height, left : left + width]
        np.testing.assert_array_equal(got[n], window[:, :, ::-1] if mirrored[n] else window)
    assert mirrored.any() and not mirrored.all()
    black = Augment(shape, padding, True, (7.0,))(torch.from_numpy(images), [3, 1, 4]).numpy()
    inside = black != 7.0
    np.testing.assert_array_equal(got.reshape(40, -1)[inside], black[inside])
    assert not inside.all() and (got < 1.0).all()


def test_padding_is_a_key_of_a_training(tmp_path):
    """It reaches the augmentation, stands in config.toml, gives way without crop, is checked."""
    config = resolve("ghost_units", {"sizes": (64, 8, 10), "crop": 2, "padding": "edge"})
    assert Trainer(config, progress=False).splits.augment.padding == "edge"
    (tmp_path / "config.toml").write_text(config.to_toml())
    assert TrainConfig.from_toml(tmp_path / "config.toml") == config
    assert resolve("ghost_units", crop=2).padding == "black"
    for model, settings, name in (
        ("counter_current", {"layers": "pooled"}, "cifar10"),
        ("counter_current", {"layers": "pooled"}, "cifar10_jpeg"),
        ("counter_current", {"layers": "pooled"}, "cifar100"),
        ("counter_current_autoencoder", {}, "stl10"),
    ):
        found = resolve(model, settings, data=name)
        assert (found.crop, found.flip, found.padding) == (4, True, "edge"), name
        assert resolve(model, settings, data=name, crop=0).padding == "black"
    with pytest.raises(NeurosimError, match=r"padding 'egde'.* Did you mean 'edge'"):
        TrainConfig("ghost_units", crop=1, padding="egde")
    with pytest.raises(NeurosimError, match=r"padding = 'edge' without crop: nothing is padded"):
        resolve("ghost_units", padding="edge")
    with pytest.raises(data.DataError, match=r"padding 'egde'.* Did you mean 'edge'"):
        Augment((4, 4), 1, False, padding="egde")


# ------------------------------------------------------------ which images are held out


def numbered(train: int, validation: int, name: str = "numbered") -> Dataset:
    """Image k of train and validation has the value k, label k % 3."""
    k = np.arange(train + validation)
    x, y = k[:, None].repeat(4, axis=1).astype(float), k % 3
    test = np.zeros((5, 4)), np.zeros(5, np.int64)
    return Dataset(name, x[:train], y[:train], x[train:], y[train:], *test, (2, 2), 3)


@pytest.mark.parametrize(("train", "validation", "share", "wanted"), [
    (55_000, 5_000, 0.1, 6_000), (45_000, 5_000, 0.1, 5_000), (1294, 143, 0.1, 144), (4, 3, 0.5, 4),
    (9, 1, 0.9, 9),
])  # fmt: skip
def test_the_drawn_validation_set_is_a_share_of_the_whole(train, validation, share, wanted):
    """Nothing twice, nothing lost, labels along with their images, order kept; test as it was."""
    dataset = numbered(train, validation)
    drawn = draw_validation(dataset, share, 3)
    kept, held = (drawn.split(part)[0][:, 0].astype(int) for part in ("train", "validation"))
    assert len(held) == wanted
    assert sorted([*kept, *held]) == list(range(train + validation))
    for part, numbers in (("train", kept), ("validation", held)):
        images, labels = drawn.split(part)
        assert (np.diff(numbers) > 0).all()
        np.testing.assert_array_equal(images, numbers[:, None].repeat(4, axis=1))
        np.testing.assert_array_equal(labels, numbers % 3)
    assert drawn.test_images is dataset.test_images
    again = draw_validation(dataset, share, 3).validation_images[:, 0]
    np.testing.assert_array_equal(again, held)
    assert len(dataset.train_images) == train  # left as it is


def test_every_image_is_held_out_alike():
    """300 images, 400 seeds: each is held out in a fifth; seeds agree by chance. 5 sigma."""
    dataset, share, seeds = numbered(250, 50), 0.2, 400
    held = np.zeros((seeds, 300), bool)
    for seed in range(seeds):
        held[seed, draw_validation(dataset, share, seed).validation_images[:, 0].astype(int)] = True
    assert (held.sum(axis=1) == 60).all()
    assert np.abs(held.mean(axis=0) - share).max() < 5 * np.sqrt(share * (1 - share) / seeds)
    both = (held[:-1] & held[1:]).sum(axis=1).mean()  # hypergeometric: mean 12, variance 7.7
    assert abs(both - 12) < 5 * np.sqrt(7.7 / seeds)
    with pytest.raises(data.DataError, match=r"'numbered': a share of 0.001 .* is 0 of 300 images"):
        draw_validation(dataset, 0.001, 0)
    with pytest.raises(data.DataError, match=r"a share of 0.999 .* is 300 of 300 .* to train on"):
        draw_validation(dataset, 0.999, 0)


def test_the_draw_takes_no_number_of_another_stream():
    """Weights, order and augmentation of a run are the same under either validation set."""
    configs = [resolve("ghost_units", seed=4, validation=which) for which in ("last", "random")]
    runs = [Trainer(config, progress=False) for config in configs]
    for name, value in runs[0].engine.weights().items():
        np.testing.assert_array_equal(value, runs[1].engine.weights()[name])
    drawn = np.random.default_rng([4, zlib.crc32(b"validation")]).permutation(1437)[:144]
    digits = data.load("digits")
    wanted = np.concatenate([digits.train_images, digits.validation_images])
    np.testing.assert_array_equal(runs[1].splits["validation"]["image"], wanted[np.sort(drawn)])
    np.testing.assert_array_equal(runs[0].splits["validation"]["image"], digits.validation_images)


FILES = ("mnist", "fashion_mnist", "cifar10", "cifar10_jpeg", "cifar100")
AUTHORS = [("counter_current", layers, name) for layers in ("dense", "pooled") for name in FILES]
AUTHORS += [("counter_current", "pooled", "stl10")]
AUTHORS += [("counter_current_autoencoder", None, name) for name in (*FILES, "stl10")]


@pytest.mark.parametrize(("model", "layers", "name"), AUTHORS)
def test_published_presets_have_the_authors_protocol(model, layers, name):
    settings = {"layers": layers} if layers else {}
    config = resolve(model, settings, data=name)
    assert (config.validation, config.validation_share, config.last_batch) == (
        "random",
        0.1,
        "keep",
    )
    twin = resolve(model, settings, data=name, method="backprop", optimiser="sgd")
    assert (twin.validation, twin.last_batch) == ("random", "keep")
    old = resolve(model, settings, data=name, validation="last", last_batch="drop")
    assert (old.validation, old.validation_share, old.last_batch) == ("last", 0.1, "drop")


@pytest.mark.parametrize("model", [*(n for n in registry.names() if n not in NOT_TRAINED)])
@pytest.mark.parametrize("name", ["digits", "mnist", "cifar10"])
def test_the_digits_and_other_models_keep_their_protocol(model, name):
    if model.startswith("counter_current") and name != "digits":
        return
    config = resolve(model, data=name)
    assert (config.validation, config.last_batch, config.padding) == ("last", "drop", "black")


# ------------------------------------------------------------ the last batch of an epoch

#: A linear layer under the delta rule: dW = eta mean (y - x W) x.
DELTA = """
from neurosim import Constant, PlasticityRule, SOURCE
from tests import circuits


def circuit(eta=1.0):
    cell = circuits.cell(
        "du/dt = (-u + I)/tau : 1 ; r = u : 1 ; error = y - u : 1 ; I : 1 ; y : 1",
        inputs=("y",), tau="10*ms",
    )
    rule = circuits.rule("eta/T*error_post*r_pre", "feedforward", eta=eta, T="20*ms")
    return circuits.circuit(
        {"inp": (64, SOURCE), "out": (10, cell)},
        [circuits.wire("W", "inp", "out.I", Constant(0.0), rule)],
        (circuits.phase("free", "60*ms"), circuits.phase("learn", "20*ms", ["feedforward"])),
        {"inp.r": "image", "out.y": "target"}, readout=("out.r", "free"),
    )
"""


@pytest.fixture
def delta(tmp_path) -> str:
    path = tmp_path / "delta.py"
    path.write_text(DELTA)
    return f"{path}:circuit"


@pytest.mark.parametrize("last_batch", ["drop", "keep"])
@pytest.mark.parametrize("validation", ["last", "random"])
def test_an_epoch_equals_the_loop_by_hand(delta, last_batch, validation):
    """Weights, loss and accuracy of three epochs; the last batch of 6 counts with its own size."""
    config = resolve(
        delta, validation=validation, last_batch=last_batch, limit=70, batch_size=16, epochs=3,
        optimiser="sgd", learning_rate=0.1, decay=0.9, seed=5, dtype="float64", tolerance=1e-14,
        max_sweeps=100,
    )  # fmt: skip
    rows = (trainer := Trainer(config, progress=False)).fit()
    digits = data.load("digits")
    x = np.concatenate([digits.train_images, digits.validation_images])
    labels = np.concatenate([digits.train_labels, digits.validation_labels])
    held = np.arange(1294, 1437)
    if validation == "random":
        held = np.random.default_rng([5, zlib.crc32(b"validation")]).permutation(1437)[:144]
    rest = np.setdiff1d(np.arange(1437), held)[:70]
    w, y = np.zeros((64, 10)), np.eye(10)[labels]
    sizes = [16, 16, 16, 16, *([6] if last_batch == "keep" else [])]
    for epoch, row in enumerate(rows, start=1):
        order, right, loss = rest[np.random.default_rng([5, 1, epoch]).permutation(70)], 0, 0.0
        for k, size in enumerate(sizes):
            batch = order[16 * k : 16 * k + size]
            answer = x[batch] @ w
            right += (answer.argmax(axis=1) == labels[batch]).sum()
            loss += 0.5 * ((y[batch] - answer) ** 2).sum()
            change = np.zeros_like(w)
            for sample in range(size):
                change += np.outer(x[batch][sample], y[batch][sample] - answer[sample])
            w += 0.1 * 0.9 ** (epoch - 1) * change / size
        assert row["train_accuracy"] == pytest.approx(right / sum(sizes), abs=1e-12)
        assert row["train_loss"] == pytest.approx(loss / sum(sizes), rel=1e-10)
        wanted = ((x[held] @ w).argmax(axis=1) == labels[held]).mean()
        assert row["validation_accuracy"] == pytest.approx(wanted, abs=1e-12)
    np.testing.assert_allclose(trainer.engine.weights()["W"], w, atol=1e-11)


NET = {"sizes": (64, 8, 10)}
MAPS = {"sizes": (1, 4, 10), "layers": "pooled", "pixels": 8, "loss": "normalised"}
BOTH = {"optimise": ("feedforward", "ghost")}
SMALLER = {
    "counter_current": ("counter_current", NET, {}),
    "by overlap": ("counter_current", MAPS, {"clip": None}),
    "one wrong label": ("counter_current", {**NET, "labels": "true_and_random"}, {}),
    "batch normalised": ("counter_current_autoencoder", {"channels": (1, 4), "pixels": 8}, {}),
    "corinfomax": ("corinfomax", {**NET, "lateral": "woodbury", "lam": 0.99}, {}),
    "sweeps": ("ghost_units", {**NET, "mode": "learned"}, BOTH),
    "filtered": ("dendritic_microcircuit", {**NET, "tau_w": "30*ms"}, {}),
    "backprop": ("ghost_units", NET, {"method": "backprop"}),
    "feedback": ("ghost_units", NET, {"method": "direct_feedback_alignment"}),
}  # fmt: skip


@pytest.mark.parametrize("case", SMALLER)
def test_an_engine_takes_batches_of_two_sizes_as_engines_of_their_own_do(case):
    """Batches of 8 and 5, two epochs, against an engine that is built anew for each of them."""
    model, settings, schedule = SMALLER[case]
    plain = {
        "optimiser": "sgd", "momentum": 0.0, "warm_up": 0, "weight_decay": 0.0, "decay": 1.0,
        "schedule": "exponential", "learning_rate": 0.05, "final_after": "none",
        "final_decay": "none", "collapse": "none", "select": "last", "dtype": "float64",
    }  # fmt: skip
    common = {"limit": 13, "batch_size": 8, "last_batch": "keep", "epochs": 2, "seed": 3}
    config = resolve(model, settings, **{**plain, **common, **schedule})
    trainer = Trainer(config, progress=False)
    assert trainer.batches == 2
    weights, trial = trainer.engine.weights(), 0
    trainer.fit()
    images = trainer.splits["train"]
    for epoch in (1, 2):
        order = np.random.default_rng([3, 1, epoch]).permutation(13)
        for first in (0, 8):
            rows = order[first : first + 8]
            one = Trainer(replace(config, batch_size=len(rows)), weights=weights, progress=False)
            one.engine.trial = trial  # random signs and labels follow from it
            one.transform.begin_epoch(epoch)
            one.engine.present({k: v[rows] for k, v in images.items()}, learn="on", ends=False)
            weights, trial = one.engine.weights(), trial + 1
    drawn = Trainer(config, progress=False).engine.weights()
    assert max(np.abs(value - drawn[name]).max() for name, value in weights.items()) > 1e-3
    for name, value in trainer.engine.weights().items():
        np.testing.assert_allclose(value, weights[name], rtol=0, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("saves", [1, 4, 5, 8, 11])
@pytest.mark.parametrize("model", ["counter_current", "ghost_units"])
def test_a_run_with_a_smaller_last_batch_is_resumed_bit_for_bit(tmp_path, model, saves):
    """Stopped before and right after the smaller batch, in the next epoch, before the test."""
    config = resolve(
        model, {"sizes": (64, 8, 10)}, limit=58, batch_size=16, epochs=2, seed=3, checkpoint=0.0,
        crop=1, padding="edge", validation="random", validation_share=0.05, last_batch="keep",
        select="best",
    )  # fmt: skip
    start(config, tmp_path / "whole", progress=False)
    with stopped_after(saves):
        start(config, tmp_path / "stopped", progress=False)
    resume(tmp_path / "stopped", progress=False)
    assert_same(tmp_path / "stopped", tmp_path / "whole")


def test_a_checkpoint_of_before_these_keys_is_gone_on_with(tmp_path):
    """It means their defaults; another value in config.toml is still another configuration."""
    config = resolve("ghost_units", NET, limit=64, batch_size=16, epochs=2, checkpoint=0.0)
    start(config, tmp_path / "whole", progress=False)
    folder = tmp_path / "old"
    with stopped_after(2):
        start(config, folder, progress=False)
    tensors, state = checkpoint.load(folder)
    keys = ("validation", "validation_share", "last_batch", "padding")

    def without(text: str) -> str:
        return "".join(line for line in text.splitlines(True) if line.partition(" ")[0] not in keys)

    assert len(state["config"].splitlines()) - len(without(state["config"]).splitlines()) == 4
    checkpoint.save(folder, tensors, {**state, "config": without(state["config"])})
    text = (folder / "config.toml").read_text()
    (folder / "config.toml").write_text(text.replace('last_batch = "drop"', 'last_batch = "keep"'))
    message = r"it has 'last_batch = \"drop\"', the file 'last_batch = \"keep\"'"
    with pytest.raises(NeurosimError, match=message):
        resume(folder, progress=False)
    (folder / "config.toml").write_text(without(text))
    resume(folder, progress=False)
    assert_same(folder, tmp_path / "whole")


def test_the_keys_are_checked_and_written_down(tmp_path):
    values = {"validation": "random", "validation_share": 0.25, "last_batch": "keep"}
    config = resolve("ghost_units", {k: v for k, v in values.items()})
    assert (config.validation, config.validation_share, config.last_batch) == (
        "random",
        0.25,
        "keep",
    )
    (tmp_path / "config.toml").write_text(config.to_toml())
    assert TrainConfig.from_toml(tmp_path / "config.toml") == config
    assert TrainConfig.from_text(config.to_toml(), "x") == config
    trainer = Trainer(replace(config, batch_size=1000), progress=False)
    assert len(trainer.splits["validation"]["image"]) == 359
    assert len(trainer.splits["train"]["image"]) == 1078 and (trainer.batches, trainer.splits.rest) == (
        2,
        78,
    )
    for given, message in (
        ({"validation": "randm"}, r"validation 'randm'.* Did you mean 'random'"),
        ({"last_batch": "kep"}, r"last_batch 'kep'.* Did you mean 'keep'"),
        ({"validation": True}, r"validation = True; wanted one of last, random"),
        (
            {"validation": "random", "validation_share": 0},
            r"validation_share = 0; wanted a number above 0 and below 1",
        ),
        (
            {"validation": "random", "validation_share": 1.0},
            r"validation_share = 1.0; wanted a number above 0",
        ),
        (
            {"validation": "random", "validation_share": float("nan")},
            r"validation_share = nan; wanted",
        ),
        (
            {"validation_share": 0.2},
            r"validation_share = 0.2 with validation = 'last', whose size the data set says",
        ),
        (
            {"validation": "random", "hold_out": False},
            r"validation = 'random' draws .* hold_out = false leaves none",
        ),
        (
            {"last_batch": "keep", "level": "torch:trajectory"},
            r"last_batch = 'keep' on torch:trajectory, which holds",
        ),
        (
            {"last_batch": "keep", "level": "brian2:dense"},
            r"last_batch = 'keep' on brian2:dense, which holds",
        ),
    ):
        with pytest.raises(NeurosimError, match=message):
            resolve("ghost_units", **given)


def test_a_presets_protocol_gives_way_where_it_has_no_meaning():
    for level in ("torch:trajectory", "brian2:dense", "brian2:equations"):
        config = resolve("counter_current", data="mnist", level=level)
        assert (config.last_batch, config.validation) == ("drop", "random")
    config = resolve("counter_current", data="mnist", hold_out=False, select="last")
    assert (config.validation, config.last_batch) == ("last", "keep")
    with pytest.raises(NeurosimError, match="last_batch = 'keep' on torch:trajectory"):
        resolve("counter_current", data="mnist", level="torch:trajectory", last_batch="keep")


def test_a_recording_holds_batches_of_one_size(tmp_path):
    """The first of each epoch by default; a smaller one is refused, its weights are not."""
    values = {"limit": 58, "batch_size": 16, "epochs": 2, "last_batch": "keep"}

    def trainer(**recorder):
        return Trainer(resolve("ghost_units", NET, recorder=recorder, **values), progress=False)

    for trials in (1, 7):  # 7: batch 8, the last of the second epoch
        message = rf"trials = {trials} would come to the last batch .* 10 samples"
        with pytest.raises(NeurosimError, match=message):
            trainer(variables=("pyr1.u",), trials=trials)
    trainer(variables=("pyr1.u",), trials=4)
    trainer(variables=("W1",), trials=1)
    run = start(trainer(variables=("pyr1.u", "W1")).config, tmp_path / "run", progress=False)
    traces = neurosim.Traces.load(tmp_path / "run" / "recording.h5")
    assert traces["pyr1.u"].shape[1:] == (16, 8)
    assert len(run.metrics) == 2
    assert json.loads((Path(tmp_path) / "run" / "result.json").read_text())["test_accuracy"] >= 0


# ------------------------------------------------------------ TDCA: what an underflow costs


@pytest.mark.parametrize(("dtype", "floor"), [(torch.float32, 126), (torch.float64, 1022)])
def test_a_probability_of_zero_costs_the_log_of_the_smallest_normal_number(dtype, floor):
    """The page's departure: minus ln 2^-126 (2^-1022) for that sample; the authors' is infinite."""
    answers = torch.tensor([[[0.0, 1.0], [0.5, 0.5]]], dtype=dtype)
    wanted = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]], dtype=dtype)
    found = float(loss(answers, wanted, "cross_entropy"))
    assert found == pytest.approx((floor + 1) * np.log(2) / 2, rel=1e-6)
    assert torch.isinf(-(answers[0, 0, 0].log()))
