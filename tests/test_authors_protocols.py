"""Starts and protocols that a page calls READ, against what the authors' code does.

Oracles, written from the paper notes alone: CorInfoMax's relaxation in the authors' layout (columns
are samples), closed forms, and loops over single pixels, samples and batches.
"""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

import neurosim
from neurosim import data
from neurosim.data.augment import Augment
from neurosim.errors import NeurosimError
from neurosim.models import corinfomax, counter_current, counter_current_autoencoder
from neurosim.training import TrainConfig, Trainer, resolve

# ------------------------------------------------------------ CorInfoMax: what a phase begins with


def authors_batch(w: dict, x, y, sign: int, p: dict, clipped: bool = True) -> tuple[dict, dict]:
    """One batch on the sparse set, sections 2.4 to 2.6 of the note: ends of both phases, new weights.

    Rates are (cells, samples), matrices (target, source). `clipped` says whether the multipliers are
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
    p = corinfomax.COMMON | corinfomax.PRESETS[preset] | {"sizes": (64, 50, 10)}
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
    weights = counter_current.circuit((3, 24, 32, 10), layers="strided", pixels=16).initial_weights(1)
    biases = [name for name in weights if name.startswith("b")]
    assert biases == ["bU1", "bV1", "bU2", "bV2"]
    assert not any(weights[name].any() for name in biases)
    limit = 1 / np.sqrt(9 * 24)
    assert 0.98 * limit < np.abs(weights["U2"]).max() <= limit


@pytest.mark.parametrize("channels", [(3, 8, 16), (3, 16, 8), (2, 30, 3), (1, 5, 5)])
def test_kernels_of_the_autoencoder_are_orthogonal_as_the_authors_draw_them(channels):
    """torch's orthogonal_ on (target, source, 3, 3), or on (source, target, 3, 3) where target < source.

    It makes the matrix of the first axis against all others orthogonal: its smaller Gram matrix is 1.
    """
    weights = counter_current_autoencoder.circuit(channels, 8).initial_weights(3)
    maps, top = [*channels, *channels[-2::-1]], 2 * (len(channels) - 1)
    for l in range(1, top + 1):
        for name, source, target in ((f"U{l}", maps[l - 1], maps[l]), (f"V{l}", maps[l], maps[l - 1])):
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
            assert np.linalg.norm(kernel) == pytest.approx(gain * float(theirs.norm()), rel=1e-12), name


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
    assert Trainer(config, progress=False).augment.padding == "edge"
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
