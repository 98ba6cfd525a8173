"""Operations of a training step against counts by hand and the published ones, and the alignment of activities against its definition."""

from __future__ import annotations

import numpy as np
import pytest
from circuits import assemble, pool

from neurosim import (
    SOURCE,
    Cell,
    Circuit,
    Conv2d,
    Dense,
    FeedForward,
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
    Windows,
)
from neurosim.analysis import flops
from neurosim.analysis.alignment import cka
from neurosim.errors import NeurosimError
from neurosim.models import counter_current, predictive_coding

# ---------------------------------------------------------------- operations


def total(count):
    return sum(count.values())


@pytest.mark.parametrize(
    ("sizes", "published"),
    [((784, *[256] * 5, 10), (2.39, 2.55)), ((3072, *[1024] * 3, 10), (25.23, 27.89))],
)
def test_the_published_operations_per_sample(sizes, published):
    """Kao & Hariharan 2024, Table 2: MFLOP per sample at a batch of 32, backprop and counter-current learning."""
    circuit = counter_current.circuit(sizes)
    found = [round(total(count) / 1e6, 2) for count in (flops.backprop(circuit), flops.steady(circuit, 32))]
    assert found == list(published)


PAIR = """
    du/dt = (-u + I)/tau : 1
    dv/dt = (-v + I_partner)/tau : 1
    r = tanh(u) : 1
    gain = 1 - r**2 : 1
    I : 1
    I_partner : 1
    R : 1
"""
LEARN = PlasticityRule("pair", "dw/dt = (match_post - R_post)*gain_post*v_post*r_pre/T", {"T": "10*ms"}, apply="trial")


def two_streams(shape, up, down, **windows):
    """A picture and a label, one level between them: F1 of the picture, D1 of the label, which match there."""
    cell = assemble(
        "pair", PAIR, ("I", "I_partner"), inputs=("R",), parameters={"tau": "10*ms"}, pools=(pool("match", "r*v"),)
    )
    return Circuit(
        "two_streams",
        [
            Population("F0", (2, 4, 4), SOURCE), Population("F1", shape, cell), Population("D1", shape, cell), Population("D2", 5, SOURCE),
            Projection("U", "F0", "F1.I", Uniform(-1, 1), LEARN, connectivity=up), Projection("V", "D2", "D1.I", Uniform(-1, 1), LEARN, connectivity=down),
            Projection("P", "D1", "F1.I_partner", connectivity=OneToOne()), Projection("Q", "F1", "D1.I_partner", connectivity=OneToOne())],
        Protocol(
            (
                Windows(
                    (Phase("settle", "90*ms"), Phase("learn", "10*ms", plastic=("pair",))),
                    clamps={"F0.r": "image", "D2.r": "label", "F1.R": "same", "D1.R": "same"}, **windows,
                ),
            )
        ),
        Readout("F1.r", "settle[0]"),
    )  # fmt: skip


def test_operations_by_hand_where_all_labels_are_shown():
    """N = 8 samples, K = 5 labels, a level of 3 maps of 2 x 2 cells; picture of 2 maps of 4 x 4, kernel 3 x 3 before pooling."""
    batch, labels, cells = 8, 5, 3 * 2 * 2
    circuit = two_streams((3, 2, 2), Conv2d(3, padding=1, pool=2), Dense())
    up = 2 * (2 * 3 * 3) * 3 * (4 * 4)  # a kernel of 2 x 3 x 3 weights for each of 3 maps at 4 x 4 positions
    down = 2 * labels * cells
    assert flops.product(circuit, "U") == up
    assert flops.product(circuit, "V") == down
    assert flops.steady(circuit, batch) == pytest.approx(
        {
            "drives": up + labels * down / batch,  # one row per sample; one per label and batch
            "rules": up + labels * down / batch,
            "contractions": 2 * batch * labels * cells * 3 / batch,  # the match; its sum over labels; that over samples
        }
    )


def test_operations_of_a_reference_with_convolutions_by_hand():
    first, second, third = 2 * (1 * 9) * 4 * (6 * 6), 2 * (4 * 9) * 2 * (6 * 6), 2 * (2 * 6 * 6) * 3
    cell = Cell("cell", "du/dt = (-u + I + I_bias)/tau : 1\nr = tanh(u) : 1\nI : 1 (port)\nI_bias : 1 (optional port)", parameters={"tau": "10*ms"})  # fmt: skip
    circuit = Circuit(
        "net",
        [
            Population("inp", (1, 6, 6), SOURCE), Population("p1", (4, 3, 3), cell), Population("p2", (2, 6, 6), cell), Population("p3", 3, cell),
            Projection("W1", "inp", "p1.I", Uniform(-1, 1), connectivity=Conv2d(3, padding=1, pool=2)),
            Projection("b1", "one", "p1.I_bias", Uniform(-1, 1), connectivity=PerMap()),
            Projection("W2", "p1", "p2.I", Uniform(-1, 1), connectivity=Conv2d(3, padding=1, upsample=2)),
            Projection("W3", "p2", "p3.I", Glorot())],
        Protocol((Phase("free", "100*ms"),), {"inp.r": "image"}),
        Readout("p3.r", "free"), FeedForward(("W1", "W2", "W3"), ("b1",), "tanh(u)"),
    )  # fmt: skip
    assert flops.backprop(circuit) == {
        "forward": first + second + third, "weights": first + second + third, "errors": second + third,
    }  # fmt: skip
    assert flops.steady(circuit, 7) == {"drives": first + second + third, "rules": 0, "contractions": 0}


def test_a_circuit_with_loops_counts_its_sweeps():
    """Predictive coding 6-5-3: values and errors of both layers drive one another. Biases are additions."""
    circuit = predictive_coding.circuit((6, 5, 3))
    up, down = 2 * (6 * 5 + 5 * 3), 2 * 5 * 3
    with pytest.raises(NeurosimError, match=r"depend on one another.*wanted `sweeps`"):
        flops.steady(circuit, 4)
    assert flops.steady(circuit, 4, sweeps=9) == {"drives": 9 * (up + down), "rules": up, "contractions": 0}


def test_drives_of_tied_weights_from_one_source_are_computed_once():
    cell = Cell("cell", "r = tanh(I) : 1\nI : 1 (port)")
    circuit = Circuit(
        "tied", [Population("inp", 4, SOURCE), Population("a", 3, cell), Population("b", 3, cell),
         Projection("W", "inp", "a.I", Glorot()), Projection("T", "inp", "b.I", Tied("W"))],
        Protocol((Phase("free", "1*ms"),), {"inp.r": "image"}),
    )  # fmt: skip
    assert total(flops.steady(circuit, 2)) == 2 * 4 * 3


def test_overlaps_cost_two_products_of_all_pairs():
    """R R^T and that times R, for N samples in the ascending levels 1, 2 and K labels in the descending levels 0, 1, 2."""
    batch, labels, cells = 8, 3, (6, 5, 4)
    with_, without = (
        flops.steady(counter_current.circuit((*cells, labels), loss="normalised", decorrelation=d), batch)
        for d in (0.5, 0)
    )
    wanted = sum(4 * batch**2 * n for n in cells[1:]) + sum(4 * labels**2 * n for n in cells)
    assert with_["contractions"] - without["contractions"] == pytest.approx(wanted / batch)
    assert (with_["drives"], with_["rules"]) == (without["drives"], without["rules"])


def test_what_cannot_be_counted_is_refused():
    with pytest.raises(NeurosimError, match="names no feed-forward reference"):
        flops.backprop(two_streams((3, 2, 2), Conv2d(3, padding=1, pool=2), Dense()))
    with pytest.raises(NeurosimError, match=r"Give Windows\(labels='all'\) alone"):
        flops.steady(counter_current.circuit((6, 5, 3), labels="true"), 4)


# ---------------------------------------------------------------- alignment of activities


def by_gram_matrices(x, y):
    """Kornblith et al. 2019: HSIC(K, L)/sqrt(HSIC(K, K) HSIC(L, L)), HSIC(K, L) = trace(K H L H)/(n - 1)^2, H = I - 1/n."""
    n = len(x)
    centre = np.eye(n) - np.ones((n, n)) / n

    def hsic(k, l):
        return np.trace(k @ centre @ l @ centre) / (n - 1) ** 2

    k, l = x @ x.T, y @ y.T
    return hsic(k, l) / np.sqrt(hsic(k, k) * hsic(l, l))


@pytest.mark.parametrize(("samples", "cells"), [(40, (5, 8)), (6, (9, 30)), (10, (3, 20))])
def test_cka_equals_its_definition_by_gram_matrices(samples, cells):
    rng = np.random.default_rng(0)
    x, y = (rng.normal(loc=2.0, size=(samples, n)) for n in cells)
    assert cka(x, y) == pytest.approx(by_gram_matrices(x, y), abs=1e-12)
    assert cka(y, x) == pytest.approx(cka(x, y), abs=1e-12)


@pytest.mark.parametrize("samples", [50, 7])
def test_cka_is_one_up_to_rotation_scale_and_shift(samples):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(samples, 12))
    rotation, _ = np.linalg.qr(rng.normal(size=(12, 12)))
    assert cka(x, -3.0 * x @ rotation + rng.normal(size=12)) == pytest.approx(1.0, abs=1e-12)


def test_cka_of_unrelated_activities():
    """0 where no column of one correlates with one of the other; of independent samples about cells/samples."""
    sine, cosine = (np.stack([f(k * 2 * np.pi * np.arange(64) / 64) for k in (1, 2, 3)], 1) for f in (np.sin, np.cos))
    assert cka(sine, cosine) == pytest.approx(0.0, abs=1e-12)
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(2, 20000, 4))
    assert 0 < cka(x, y) < 10 * 4 / 20000


def test_cka_of_one_direction_is_the_squared_correlation():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(2, 30, 1))
    assert cka(x, y) == pytest.approx(np.corrcoef(x[:, 0], y[:, 0])[0, 1] ** 2, abs=1e-12)


def test_cka_says_where_there_is_nothing_to_compare():
    assert cka(np.ones((5, 3)), np.random.default_rng(0).normal(size=(5, 2))) is None
    with pytest.raises(NeurosimError, match=r"wanted \(samples, cells\).*reshape"):
        cka(np.zeros((5, 3)), np.zeros((4, 3)))
    with pytest.raises(NeurosimError, match=r"wanted \(samples, cells\).*reshape"):
        cka(np.zeros((5, 3, 2)), np.zeros((5, 3)))
