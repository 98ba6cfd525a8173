"""The reference net and its backward passes against torch.nn modules with autograd, and loops over positions."""

from __future__ import annotations

from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from neurosim import (
    SOURCE,
    Cell,
    Circuit,
    Conv2d,
    Dense,
    FeedForward,
    Fragment,
    PerMap,
    Phase,
    Population,
    Projection,
    Protocol,
    Readout,
    Uniform,
)
from neurosim.analysis import ReferenceNet
from neurosim.backends.engine import Options
from neurosim.errors import NeurosimError
from neurosim.training.backprop import BackpropEngine

ELU = "clip(u, 0, inf) + exp(clip(u, -inf, 0)) - 1"
ACTIVATIONS = {
    "tanh(u)": nn.Tanh,
    ELU: nn.ELU,
    "clip(u, 0, inf)": nn.ReLU,
    "1/(1 + exp(-u))": nn.Sigmoid,
    "1*u": nn.Identity,
}
CELL = Cell("cell", "du/dt = (-u + I + I_bias)/tau : 1\nr = tanh(u) : 1\nI : 1 (port)\nI_bias : 1 (optional port)", parameters={"tau": "10*ms"})  # fmt: skip
#: name -> the picture, then (connectivity, cells) of each layer; biases
NETS = {
    "pooled": (
        (2, 8, 8), [(Conv2d(3, padding=1, pool=2), (3, 4, 4)), (Conv2d(3, padding=1, pool=2), (4, 2, 2)), (Dense(), 5)], (),
    ),
    "strided": (
        (1, 8, 8), [(Conv2d(3, stride=2, padding=1), (3, 4, 4)), (Conv2d(2, stride=2), (4, 2, 2)), (Dense(), 5)], ("b1", "b2"),
    ),
    "one bias": ((1, 6, 6), [(Conv2d(5, pool=2), (2, 1, 1)), (Dense(), 4), (Dense(), 5)], ("", "b2", "")),
    "decoder": (
        (3, 4, 4), [(Dense(), (2, 3, 3)), (Conv2d(3, padding=1, upsample=2), (4, 6, 6)), (Conv2d(4, upsample=2, pool=3), (1, 3, 3))],
        ("b1", "b2", "b3"),
    ),
    "autoencoder": (
        (1, 4, 4), [(Conv2d(3, stride=2, padding=1), (3, 2, 2)), (Conv2d(3, padding=1, upsample=2), (1, 4, 4))], ("b1", "b2"),
    ),
}  # fmt: skip


def circuit(net, transfer="tanh(u)", loss="cross_entropy", wanted="target"):
    """A circuit whose reference is that net."""
    picture, layers, biases = NETS[net]
    populations = [Population("inp", picture, SOURCE)]
    projections = []
    for l, (connectivity, n) in enumerate(layers, 1):
        populations.append(Population(f"p{l}", n, CELL))
        source = "inp" if l == 1 else f"p{l - 1}"
        projections.append(Projection(f"W{l}", source, f"p{l}.I", Uniform(-0.5, 0.5), connectivity=connectivity))
        kind = PerMap() if isinstance(connectivity, Conv2d) else Dense()
        if f"b{l}" in biases:
            projections.append(Projection(f"b{l}", "one", f"p{l}.I_bias", Uniform(-0.5, 0.5), connectivity=kind))
    return Circuit(
        net, Fragment(populations, projections), Protocol((Phase("free", "10*ms"),), {"inp.r": "image"}),
        Readout(f"p{len(layers)}.r", "free", wanted=wanted),
        FeedForward(tuple(f"W{l}" for l in range(1, len(layers) + 1)), biases, transfer, loss=loss),
    )  # fmt: skip


def kernels(weights, c_in, size):
    """(c_in*size*size, c_out) with rows (c, y, x) as nn.Conv2d has it, entry by entry."""
    found = np.zeros((weights.shape[1], c_in, size, size))
    for row, (c, y, x) in enumerate(product(range(c_in), range(size), range(size))):
        found[:, c, y, x] = weights[row]
    return found


class Layer(nn.Module):
    """One layer by torch.nn alone: what comes before the product, the product, what comes after it."""

    def __init__(self, picture, connectivity, n, weights, bias, activation):
        super().__init__()
        if isinstance(connectivity, Conv2d):
            c = connectivity
            self.before = nn.Sequential(nn.Unflatten(1, picture), nn.Upsample(scale_factor=c.upsample, mode="nearest"))
            self.inner = nn.Conv2d(picture[0], n[0], c.size, c.stride, c.padding, bias=bias is not None)
            values = kernels(weights, picture[0], c.size)
            pool = [nn.MaxPool2d(c.pool)]
        else:
            self.before, pool = nn.Identity(), []
            self.inner = nn.Linear(*weights.shape, bias=bias is not None)
            values = weights.T
        self.after = nn.Sequential(*pool, nn.Flatten(), activation())
        self.double()
        self.inner.weight.data = torch.tensor(values).double()
        if bias is not None:
            self.inner.bias.data = torch.tensor(bias[0]).double()

    def forward(self, rates):
        return self.after(self.inner(self.before(rates)))


def modules(net, weights, transfer="tanh(u)", loss="cross_entropy"):
    picture, layers, _ = NETS[net]
    found = []
    for l, (connectivity, n) in enumerate(layers, 1):
        last = l == len(layers) and loss == "cross_entropy"
        activation = nn.Identity if last else ACTIVATIONS[transfer]
        found.append(Layer(picture, connectivity, n, weights[f"W{l}"], weights.get(f"b{l}"), activation))
        picture = n
    return nn.Sequential(*found)


def problem(net, samples=6):
    """Weights, images, targets of one class each."""
    picture, layers, _ = NETS[net]
    rng = np.random.default_rng(1)
    classes = int(np.prod(layers[-1][1]))
    images = rng.normal(size=(samples, int(np.prod(picture))))
    return circuit(net).initial_weights(4), images, np.eye(classes)[rng.integers(classes, size=samples)]


def as_ours(gradients):
    """Gradients of modules, by the names and in the shapes of the circuit."""
    found = {}
    for l, (weight, *bias) in enumerate(gradients, 1):
        found[f"W{l}"] = weight.flatten(1).T.numpy()
        if bias:
            found[f"b{l}"] = bias[0][None].numpy()
    return found


def parameters(layer):
    return [layer.inner.weight, *([] if layer.inner.bias is None else [layer.inner.bias])]


def assert_equal(found, wanted, limit=1e-13):
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        assert found[name].shape == value.shape, name
        assert np.abs(found[name] - value).max() <= limit * max(1, np.abs(value).max()), name


# ---------------------------------------------------------------- the net and its gradient


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("loss", ["cross_entropy", "given_by_error"])
@pytest.mark.parametrize("transfer", ACTIVATIONS)
def test_rates_and_gradient_equal_those_of_torch_modules(net, loss, transfer):
    weights, images, targets = problem(net)
    net_ = ReferenceNet(circuit(net, transfer, loss), weights)
    oracle = modules(net, weights, transfer, loss)
    out = oracle(torch.tensor(images))
    if loss == "cross_entropy":
        nn.CrossEntropyLoss()(out, torch.tensor(targets)).backward()
        out = nn.Softmax(1)(out)
    else:
        (0.5 * (torch.tensor(targets) - out) ** 2).sum(1).mean().backward()
    rates, _ = net_.backward(torch.tensor(images), torch.tensor(targets))
    assert np.abs(rates.numpy() - out.detach().numpy()).max() < 1e-14
    assert np.array_equal(net_.forward(torch.tensor(images)).detach().numpy(), rates.numpy())
    assert_equal(net_.gradient(images, targets), as_ours([[p.grad for p in parameters(m)] for m in oracle]))


@pytest.mark.parametrize("connectivity", [Conv2d(3, 2, 1), Conv2d(3, 1, 0, 2, 3), Conv2d(3, padding=1, pool=2)])
def test_the_drive_is_the_sum_over_positions_that_the_connectivity_states(connectivity):
    """``a[o, p] = sum_{c,u} w[(c, u), o] up(r)[c, stride*p + u - padding]``, the largest of each window; by loops."""
    c, picture = connectivity, (2, 4, 4)
    shape = (3, *c.maps(picture))
    built = Circuit(
        "loops", [Population("inp", picture, SOURCE), Population("p1", shape, CELL),
         Projection("W1", "inp", "p1.I", Uniform(-1, 1), connectivity=c)], Protocol((Phase("free", "10*ms"),), {"inp.r": "image"}),
        reference=FeedForward(("W1",), (), "1*u"),
    )  # fmt: skip
    rng = np.random.default_rng(0)
    weights, images = rng.normal(size=(2 * c.size**2, 3)), rng.normal(size=(2, 32))
    wanted = np.full((2, *shape), -np.inf)
    for s, o, py, px in product(range(2), range(3), range(shape[1] * c.pool), range(shape[2] * c.pool)):
        a = 0.0
        for row, (m, uy, ux) in enumerate(product(range(2), range(c.size), range(c.size))):
            y, x = c.stride * py + uy - c.padding, c.stride * px + ux - c.padding
            if 0 <= y < 4 * c.upsample and 0 <= x < 4 * c.upsample:
                a += weights[row, o] * images[s].reshape(picture)[m, y // c.upsample, x // c.upsample]
        at = s, o, py // c.pool, px // c.pool
        wanted[at] = max(wanted[at], a)
    found = ReferenceNet(built, {"W1": weights}).forward(torch.tensor(images)).detach().numpy()
    assert np.abs(found - wanted.reshape(2, -1)).max() < 1e-13


@pytest.mark.parametrize(
    ("transfer", "slope"), [(ELU, 1.0), ("exp(clip(u, -inf, 0)) - 1 + clip(u, 0, inf)", 1.0), ("clip(u,0,inf)", 0.0)]
)
def test_the_slope_at_a_drive_of_exactly_zero(transfer, slope):
    """A blank picture drives nothing; the pieces of ELU's text have a slope of 1 each there, ELU itself has 1."""
    built = circuit("one bias", transfer, "given_by_error")
    weights = {n: np.zeros_like(w) for n, w in built.initial_weights(0).items()}
    targets = np.arange(10.0).reshape(2, 5)
    weights["W3"] = np.ones((4, 5))
    found = ReferenceNet(built, weights).gradient(np.zeros((2, 36)), targets)
    assert_equal({"b2": found["b2"]}, {"b2": np.full((1, 4), -slope * slope * targets.sum() / 2)})


def test_a_net_may_end_its_list_of_biases_early():
    weights, images, targets = problem("strided")
    long = circuit("strided")
    object.__setattr__(
        long, "reference", FeedForward(("W1", "W2", "W3"), ("b1", "b2", ""), "tanh(u)", loss="cross_entropy")
    )
    assert_equal(
        ReferenceNet(long, weights).gradient(images, targets),
        ReferenceNet(circuit("strided"), weights).gradient(images, targets),
        0,
    )


def test_a_convolution_reads_its_weights_in_place():
    weights, images, targets = problem("pooled")
    net = ReferenceNet(circuit("pooled"), weights)
    kernel = net.kernels(net.parameters["W2"], "W2")
    assert kernel.is_contiguous() and kernel.data_ptr() == net.parameters["W2"].data_ptr()
    _, gradients = net.backward(torch.tensor(images), torch.tensor(targets))
    assert all(gradients[n].stride() == p.stride() for n, p in net.parameters.items())


def test_a_reference_that_does_not_fit_is_refused():
    built = circuit("strided")
    weights = built.initial_weights(0)
    with pytest.raises(
        NeurosimError, match=r"bias 'b2' of layer 'W1' has 4 values; wanted 3, one per map. .*PerMap\(\)"
    ):
        object.__setattr__(built, "reference", FeedForward(("W1", "W2"), ("b2", "b1"), "tanh(u)"))
        ReferenceNet(built, weights)
    with pytest.raises(
        NeurosimError, match=r"bias 'b1' of layer 'W3' has 3 values; wanted 5, one per cell. .*Dense\(\)"
    ):
        object.__setattr__(built, "reference", FeedForward(("W1", "W2", "W3"), ("", "", "b1"), "tanh(u)"))
        ReferenceNet(built, weights)
    with pytest.raises(NeurosimError, match="names no feed-forward reference"):
        object.__setattr__(built, "reference", None)
        ReferenceNet(built, weights)


# ---------------------------------------------------------------- backward passes of the trainer


def aligned(net, weights, feedback, images, targets):
    """Feedback alignment, layer by layer: the error goes down as through a net of modules with the weights `feedback`."""
    layers, others = modules(net, weights), modules(net, weights | feedback)
    inputs = [torch.tensor(images)]
    for layer in layers:
        inputs.append(layer(inputs[-1]).detach())
    error = (torch.softmax(inputs[-1], 1) - torch.tensor(targets)) / len(images)
    found = []
    for layer, other, rates in reversed(list(zip(layers, others, inputs, strict=False))):
        rates = rates.requires_grad_(True)
        drive = layer.inner(layer.before(rates))
        (at_drive,) = torch.autograd.grad(layer.after(drive), drive, error)
        found.append(torch.autograd.grad(layer.inner(layer.before(rates)), parameters(layer), at_drive))
        (error,) = torch.autograd.grad(other.inner(other.before(rates)), rates, at_drive)
    return as_ours(found[::-1])


def direct(net, weights, feedback, images, targets):
    """Direct feedback alignment: each hidden layer's rates receive the output's error through one matrix."""
    rates, found = torch.tensor(images), []
    layers = modules(net, weights)
    error = (torch.softmax(layers(rates), 1).detach() - torch.tensor(targets)) / len(images)
    for l, layer in enumerate(layers, 1):
        out = layer(rates.detach())
        sent = error @ torch.tensor(feedback[f"W{l}"]) if l < len(layers) else error
        found.append(torch.autograd.grad(out, parameters(layer), sent))
        rates = out
    return as_ours(found)


def engine(built, weights, method):
    config = SimpleNamespace(method=method, seed=3)
    made = BackpropEngine(built, weights, Options(batch=6), config)  # type: ignore[arg-type]
    made.changes = []  # type: ignore[attr-defined]
    made.transform = made.changes.append  # type: ignore[attr-defined]
    return made


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize(("method", "oracle"), [("feedback_alignment", aligned), ("direct_feedback_alignment", direct)])
def test_alignment_through_maps_equals_the_oracle(net, method, oracle):
    weights, images, targets = problem(net)
    made = engine(circuit(net), weights, method)
    feedback = {n: f.numpy().copy() for n, f in made.feedback.items()}
    if method == "direct_feedback_alignment":
        _, layers, _ = NETS[net]
        cells = [int(np.prod(n)) for _, n in layers]
        assert {n: f.shape for n, f in feedback.items()} == {
            f"W{l}": (cells[-1], cells[l - 1]) for l in range(1, len(cells))
        }
    else:
        assert {n: f.shape for n, f in feedback.items()} == {n: w.shape for n, w in weights.items() if n[0] == "W"}
        assert not any(np.array_equal(feedback[n], weights[n]) for n in feedback)
    result = made.present({"image": images, "target": targets}, learn="on")
    ((changes,), wanted) = made.changes, oracle(net, weights, feedback, images, targets)  # type: ignore[attr-defined]
    assert_equal({n: -c.numpy() for n, c in changes.items()}, wanted)
    probabilities = torch.softmax(modules(net, weights)(torch.tensor(images)), 1).detach().numpy()
    assert np.abs(result.readout - probabilities).max() < 1e-14
    backprop = ReferenceNet(circuit(net), weights).gradient(images, targets)
    assert np.abs(wanted["W1"] - backprop["W1"]).max() > 1e-3


def test_a_net_that_reconstructs_takes_the_image_as_its_target():
    """C = 1/2 |image - r_L|^2, the mean over samples and the sum over cells."""
    built = circuit("autoencoder", loss="given_by_error", wanted="image")
    weights, images, targets = problem("autoencoder")
    made = engine(built, weights, "backprop")
    made.present({"image": images, "target": targets}, learn="on")
    oracle = modules("autoencoder", weights, loss="given_by_error")
    loss = 0.5 * ((torch.tensor(images) - oracle(torch.tensor(images))) ** 2).sum() / len(images)
    loss.backward()
    ((changes,),) = (made.changes,)  # type: ignore[attr-defined]
    assert_equal(
        {n: -c.numpy() for n, c in changes.items()}, as_ours([[p.grad for p in parameters(m)] for m in oracle])
    )
