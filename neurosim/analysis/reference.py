"""The feed-forward net that a circuit names as its reference, in plain torch, with autograd's gradient."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from itertools import zip_longest
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from neurosim.analysis.alignment import cosine
from neurosim.backends.settings import own_settings
from neurosim.backends.torch.arrays import TorchArrays
from neurosim.circuit import Circuit
from neurosim.description import Conv2d
from neurosim.equations import compile_block
from neurosim.errors import NeurosimError


class ReferenceNet:
    """``a_l = r_{l-1} W_l + b_l``, ``r_l = transfer_l(a_l)``; the loss has ``dC/dr_L = -error``, or is the cross-entropy (see `FeedForward`).

    Where the projection of a W is a `Conv2d`, ``a_l = pool(conv(upsample(r_{l-1}), W_l) + b_l)``: maps upsampled before the product, and the
    transfer applied to the largest drive of each window; b_l has one value per map. Rates are (samples, cells), maps flat. A layer
    without a bias has "" in its place, or none where the list of biases has ended.

    Parameters
    ----------
    circuit
        A circuit with a `reference`.
    weights
        Weights by projection; those of the reference are copied.
    dtype, device
        As on the torch levels.

    Attributes
    ----------
    parameters
        Weights and biases by projection, as tensors, in the circuit's shapes.
    cells
        Number of cells of each layer, by the name of its W.
    convolutions
        By the name of a W that is one: its `Conv2d`, and the maps (maps, height, width) that it reads.

    Raises
    ------
    NeurosimError
        The circuit has no reference; a bias that has not one value per map of a convolution, or per cell of another layer.
    """

    def __init__(self, circuit: Circuit, weights: Mapping[str, Any], dtype: str = "float64", device: str = "cpu"):
        if circuit.reference is None:
            raise NeurosimError(f"The circuit '{circuit.name}' names no feed-forward reference.")
        self.reference = circuit.reference
        self.arrays = TorchArrays(dtype, device)
        parameters = (*self.reference.weights, *filter(None, self.reference.biases))
        self.parameters = {n: self.arrays.asarray(weights[n]).requires_grad_(True) for n in parameters}
        self.cells: dict[str, int] = {}
        self.convolutions: dict[str, tuple[Conv2d, tuple[int, int, int]]] = {}  # with the maps that they read
        by_name = {p.name: p for p in circuit.projections}
        layers = list(zip_longest(self.reference.weights, self.reference.biases, fillvalue=""))
        for weight, bias in layers:
            projection = by_name[weight]
            wanted = self.cells[weight] = int(np.prod(circuit.population(projection.target_population).n))
            if isinstance(projection.connectivity, Conv2d):
                source: Any = circuit.population(projection.source_population).n
                self.convolutions[weight] = projection.connectivity, source
                self.parameters[weight] = _as_kernels(self.parameters[weight])
                wanted = self.parameters[weight].shape[1]
            if bias and self.parameters[bias].numel() != wanted:
                kind = ("map", "PerMap()") if weight in self.convolutions else ("cell", "Dense()")
                raise NeurosimError(
                    f"Reference of '{circuit.name}': the bias '{bias}' of layer '{weight}' has {self.parameters[bias].numel()} values; wanted "
                    f"{wanted}, one per {kind[0]}. Give its projection the connectivity {kind[1]}."
                )
        functions = {**self.arrays.functions, "clip": _clip}
        transfers = [compile_block([("r", text)], functions, {}) for text in self.reference.transfers]
        self._softmax = self.reference.loss == "cross_entropy"
        if self._softmax:
            transfers[-1] = lambda s: s.update(r=torch.softmax(s["u"].detach(), 1))
        self._stack = [(*names, transfer) for names, transfer in zip(layers, transfers, strict=True)]
        self._error = compile_block([("error", self.reference.error)], functions, {})

    def drive(self, rates: torch.Tensor, weight: str, bias: str) -> torch.Tensor:
        """``a = r W + b`` of one layer."""
        if weight in self.convolutions:
            return self.convolution(rates, weight, bias)
        if not bias:
            return rates @ self.parameters[weight]
        return torch.addmm(self.parameters[bias].squeeze(0), rates, self.parameters[weight])

    def kernels(self, weights: torch.Tensor, weight: str) -> torch.Tensor:
        """Weights like those of the convolution `weight`, seen as conv2d wants them: (maps, source maps, size, size)."""
        conv, (maps, _, _) = self.convolutions[weight]
        return weights.T.view(-1, maps, conv.size, conv.size)

    def convolution(
        self, rates: torch.Tensor, weight: str, bias: str, product: Callable[..., torch.Tensor] = F.conv2d
    ) -> torch.Tensor:
        """`drive` of a layer of maps; `product` takes the arguments of conv2d: maps, kernels, bias, stride, padding."""
        conv, source = self.convolutions[weight]
        maps = rates.reshape(-1, *source)
        if conv.upsample > 1:
            maps = F.interpolate(maps, scale_factor=conv.upsample, mode="nearest")
        added = self.parameters[bias].view(-1) if bias else None
        maps = product(maps, self.kernels(self.parameters[weight], weight), added, conv.stride, conv.padding)
        if conv.pool > 1:
            maps = F.max_pool2d(maps, conv.pool)
        return maps.flatten(1)

    def outputs(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Drives and rates of the output layer, (samples, cells) each."""
        *_, (drives, rates, _) = self._layers(images)
        return drives, rates

    def _layers(
        self, images: torch.Tensor, apart: bool = False
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor, list[str]]]:
        """Drives, rates and parameters of each layer, from the input up; `apart`: no gradient passes from layer to layer."""
        rates = images
        for weight, bias, transfer in self._stack:
            s = {"u": self.drive(rates.detach() if apart else rates, weight, bias)}
            transfer(s)
            rates = s["r"]
            yield s["u"], rates, [weight, bias] if bias else [weight]

    def _output_error(self, drives: torch.Tensor, rates: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Gradient of the mean loss by the output drives."""
        if self._softmax:
            return (rates.detach() - targets) / len(targets)
        s = {"u": drives.detach(), "r": rates.detach(), "target": targets}
        self._error(s)
        return torch.autograd.grad(rates, drives, -s["error"] / len(targets))[0]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Rates of the output layer, (samples, cells)."""
        return self.outputs(images)[1]

    def backward(self, images: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Rates of the output layer, and the gradient of the mean loss by projection, by autograd."""
        drives, rates = self.outputs(images)
        names = list(self.parameters)
        error = self._output_error(drives, rates, targets)
        gradients = torch.autograd.grad(drives, [self.parameters[n] for n in names], error)
        return rates.detach(), dict(zip(names, gradients, strict=True))

    def backward_direct(
        self, images: torch.Tensor, targets: torch.Tensor, feedback: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """As `backward`, but each hidden layer's rates receive dC/da_L through `feedback` (by the name of its W), and errors stop there."""
        layers = list(self._layers(images, apart=True))
        drives, rates, _ = layers[-1]
        error = self._output_error(drives, rates, targets)
        gradients: dict[str, torch.Tensor] = {}
        for u, r, parameters in layers:
            out, sent = (u, error) if u is drives else (r, error @ feedback[parameters[0]])
            found = torch.autograd.grad(out, [self.parameters[n] for n in parameters], sent)
            gradients |= dict(zip(parameters, found, strict=True))
        return rates.detach(), gradients

    def gradient(self, images: np.ndarray, targets: np.ndarray) -> dict[str, np.ndarray]:
        """Gradient of the mean loss by projection, by autograd."""
        _, gradients = self.backward(self.arrays.asarray(images), self.arrays.asarray(targets))
        return {n: self.arrays.to_numpy(g) for n, g in gradients.items()}


def _clip(x: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """As torch.clip; but ``clip(x, 0, inf)`` has the slope 0 at x = 0, for with 1 there both pieces of ELU would have it. It is faster, too."""
    return torch.relu(x) if (low, high) == (0, math.inf) else torch.clip(x, low, high)


def _as_kernels(weights: torch.Tensor) -> torch.Tensor:
    """The same weights with the columns in one piece each, so that `ReferenceNet.kernels` is a view that conv2d need not copy."""
    return weights.detach().T.contiguous().T.requires_grad_(True)


@own_settings()
def cosines_with_gradient(
    circuit: Circuit,
    weights: Mapping[str, np.ndarray],
    changes: Mapping[str, np.ndarray],
    stimuli: Mapping[str, np.ndarray],
) -> dict[str, float | None]:
    """``{projection: cosine}`` of weight changes with minus the gradient of the mean loss of the circuit's reference net.

    Parameters
    ----------
    circuit
        With a `reference`.
    weights
        At which both are taken.
    changes
        By projection, as in `Result.collected` of a run with ``plasticity="held"``.
    stimuli
        ``{field: (samples, cells)}``, from `neurosim.stimuli.stimulus_fields`.

    Returns
    -------
    Each plastic projection; None where it has no gradient, or one of both is 0.
    """
    gradient: dict[str, np.ndarray] = {}
    wanted = circuit.readout.wanted if circuit.readout is not None else "target"
    if circuit.reference is not None and {"image", wanted} <= stimuli.keys():
        gradient = ReferenceNet(circuit, weights).gradient(stimuli["image"], stimuli[wanted])
    return {
        p.name: cosine(changes[p.name], -gradient[p.name]) if p.name in gradient else None
        for p, _ in circuit.plan.plastic()
    }
