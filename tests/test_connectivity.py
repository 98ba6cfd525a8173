"""Kinds of connectivity, described and of one's own. Oracle: the same net with a dense matrix, zeros where no synapse is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from circuits import SOURCE

from neurosim import (
    Cell,
    Circuit,
    Constant,
    Conv2d,
    Dense,
    Given,
    OneToOne,
    PerMap,
    Phase,
    PlasticityRule,
    Population,
    Projection,
    Protocol,
    Uniform,
    describe,
    simulate,
)
from neurosim.analysis.flops import product
from neurosim.description import Connectivity
from neurosim.errors import CircuitError

LEVELS = ("brian2:equations", "brian2:dense", "torch:trajectory", "torch:steady")
LEAKY = Cell("leaky", "du/dt = (-u + I)/tau : 1\nr = tanh(u) : 1\nI : 1 (port)", {"tau": "10*ms"})
RATES = np.random.default_rng(0).uniform(0, 1, (3, 6))


@dataclass(frozen=True)
class Neighbours(Connectivity):
    """Cell k reaches the cells k - reach to k + reach of a ring, each with a weight of its own."""

    reach: int = 1

    def weight_shape(self, source, target):
        if source != target:
            raise CircuitError(f"a ring of {source} cells onto one of {target}; expected equal numbers.")
        return (target, 2 * self.reach + 1)

    def synapses(self, source, target):
        k, d = np.indices((target, 2 * self.reach + 1))
        return k.ravel(), ((k + d - self.reach) % target).ravel(), np.arange(k.size)

    def text(self, source, target):
        return f"neighbours on a ring, {target} x {2 * self.reach + 1}"


def net(weights, connectivity=Dense(), apply="now", n=(6, 6)):  # noqa: B008
    rule = PlasticityRule("hebb", "dw/dt = eta*(r_post*r_pre - w)", {"eta": "5*Hz"}, apply=apply)
    parts = [
        Population("inp", n[0], SOURCE),
        Population("p", n[1], LEAKY),
        Projection("W", "inp", "p.I", weights, rule, connectivity),
    ]
    protocol = Protocol((Phase("learn", "30*ms", plastic=("hebb",)),), {"inp.r": "image"}, dt="1*ms")
    return Circuit("ring", parts, protocol)


def dense(weights, synapses, shape=(6, 6)):
    """The weights of a list of synapses as a matrix (n_pre, n_post)."""
    pre, post, entry = synapses
    matrix = np.zeros(shape)
    matrix[pre, post] = np.ravel(weights)[entry]
    return matrix


@pytest.mark.parametrize("apply", ["phase", "trial"])
@pytest.mark.parametrize("level", LEVELS)
def test_a_kind_of_ones_own_drives_and_learns_like_a_matrix_with_zeros(level, apply):
    ring, start = Neighbours(1), np.random.default_rng(1).uniform(-1, 1, (6, 3))
    pre, post, entry = ring.synapses(6, 6)
    shown = {"level": level, "record": ["p.u"], "progress": False}
    own = simulate(net(Given(start), ring, apply), RATES[:1], **shown)
    full = simulate(net(Given(dense(start, (pre, post, entry))), apply=apply), RATES[:1], **shown)
    np.testing.assert_allclose(own.ends["learn"]["p.u"], full.ends["learn"]["p.u"], atol=1e-12)
    np.testing.assert_allclose(own.weights["W"].ravel()[entry], full.weights["W"][pre, post], atol=1e-12)


@pytest.mark.parametrize("apply", ["now", "trial"])
def test_levels_in_time_agree_on_it(apply):
    circuit = net(Uniform(-1, 1), Neighbours(2), apply)
    runs = [simulate(circuit, RATES, level=level, progress=False) for level in LEVELS[:3]]
    for run in runs[1:]:
        np.testing.assert_allclose(run.weights["W"], runs[0].weights["W"], atol=1e-12)
    assert np.abs(runs[0].weights["W"] - circuit.initial_weights()["W"]).max() > 1e-2


@pytest.mark.parametrize(
    ("kind", "source", "target"),
    [
        (Dense(), 3, 4),
        (OneToOne(), 4, 4),
        (Conv2d(3, padding=1), (2, 4, 4), (3, 4, 4)),
        (Conv2d(3, stride=2, padding=1), (2, 4, 4), (3, 2, 2)),
        (Conv2d(3, padding=1, upsample=2), (2, 2, 2), (1, 4, 4)),
        (PerMap(), 1, (3, 2, 2)),
    ],
)
@pytest.mark.parametrize("level", ["brian2:dense", "torch:trajectory"])
def test_the_drive_of_each_kind_is_that_of_its_list_of_synapses(kind, source, target, level):
    n_pre, n_post = int(np.prod(source)), int(np.prod(target))
    start = np.random.default_rng(2).uniform(-1, 1, kind.weight_shape(source, target))
    rates = np.random.default_rng(3).uniform(0, 1, (2, n_pre))
    pre, post, entry = kind.synapses(source, target)
    drive = np.zeros((2, n_post))
    np.add.at(drive, (slice(None), post), rates[:, pre] * start.ravel()[entry])
    cell = Cell("port", "du/dt = (-u + I)/tau : 1\nI : 1 (port)", {"tau": "1*ms"}, rate="u")
    protocol = Protocol((Phase("one", "3*ms"),), {"inp.r": "image"}, dt="1*ms")
    parts = [
        Population("inp", source, SOURCE),
        Population("p", target, cell),
        Projection("W", "inp", "p.I", Given(start), connectivity=kind),
    ]
    ends = simulate(Circuit("c", parts, protocol), rates, level=level, record=["p.u"], progress=False).ends
    np.testing.assert_allclose(ends["one"]["p.u"], drive, atol=1e-12)  # tau = dt: u = I


def test_it_is_described_and_counted():
    circuit = net(Constant(1), Neighbours(1))
    assert "neighbours on a ring, 6 x 3" in " ".join(describe(circuit).split())
    assert product(circuit, "W") == 2 * 18


def test_populations_that_do_not_fit():
    with pytest.raises(CircuitError, match=r"'W', from 'inp' to 'p': a ring of 6 cells onto one of 5; expected equal"):
        net(Constant(1), Neighbours(1), n=(6, 5))
