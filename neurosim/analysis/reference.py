"""The feed-forward net that a circuit names as its reference, in plain torch, with autograd's gradient."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import Any

import numpy as np
import torch

from neurosim.backends.torch.arrays import TorchArrays
from neurosim.circuit import Circuit
from neurosim.equations import compile_block
from neurosim.errors import NeurosimError


class ReferenceNet:
    """``a_l = r_{l-1} W_l + b_l``, ``r_l = transfer_l(a_l)``; the loss has ``dC/dr_L = -error`` (see `FeedForward`).

    Parameters
    ----------
    circuit
        A circuit with a `reference`.
    weights
        Weights by projection; those of the reference are copied.
    dtype, device
        As on the torch levels.
    """

    def __init__(self, circuit: Circuit, weights: Mapping[str, Any], dtype: str = "float64", device: str = "cpu"):
        if circuit.reference is None:
            raise NeurosimError(f"The circuit '{circuit.name}' names no feed-forward reference.")
        self.reference = circuit.reference
        self.arrays = TorchArrays(dtype, device)
        names = (*self.reference.weights, *self.reference.biases)
        self.parameters = {n: self.arrays.asarray(weights[n]).requires_grad_(True) for n in names}
        functions = self.arrays.functions
        self._transfers = [compile_block([("r", text)], functions, {}) for text in self.reference.transfers]
        self._error = compile_block([("error", self.reference.error)], functions, {})

    def drive(self, rates: torch.Tensor, weight: str, bias: str | None) -> torch.Tensor:
        """``a = r W + b`` of one layer."""
        if bias is None:
            return rates @ self.parameters[weight]
        return torch.addmm(self.parameters[bias].squeeze(0), rates, self.parameters[weight])

    def outputs(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Drives and rates of the output layer, (samples, classes) each."""
        *_, (drives, rates, _) = self._layers(images)
        return drives, rates

    def _layers(
        self, images: torch.Tensor, apart: bool = False
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor, list[str]]]:
        """Drives, rates and parameters of each layer, from the input up; `apart`: no gradient passes from layer to layer."""
        rates = images
        for weight, bias, transfer in zip_longest(self.reference.weights, self.reference.biases, self._transfers):
            s = {"u": self.drive(rates.detach() if apart else rates, weight, bias)}
            transfer(s)
            rates = s["r"]
            yield s["u"], rates, [weight] if bias is None else [weight, bias]

    def _loss_gradient(self, drives: torch.Tensor, rates: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Gradient of the mean loss by the output rates."""
        s = {"u": drives.detach(), "r": rates.detach(), "target": targets}
        self._error(s)
        return -s["error"] / len(targets)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Rates of the output layer, (samples, classes)."""
        return self.outputs(images)[1]

    def backward(self, images: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Rates of the output layer, and the gradient of the mean loss by projection, by autograd."""
        drives, rates = self.outputs(images)
        names = list(self.parameters)
        loss = self._loss_gradient(drives, rates, targets)
        gradients = torch.autograd.grad(rates, [self.parameters[n] for n in names], loss)
        return rates, dict(zip(names, gradients, strict=True))

    def backward_direct(
        self, images: torch.Tensor, targets: torch.Tensor, feedback: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """As `backward`, but each hidden layer's rates receive dC/da_L through `feedback` (by the name of its W), and errors stop there."""
        layers = list(self._layers(images, apart=True))
        drives, rates, _ = layers[-1]
        loss = self._loss_gradient(drives, rates, targets)
        (error,) = torch.autograd.grad(rates, drives, loss, retain_graph=True)
        gradients: dict[str, torch.Tensor] = {}
        for _, out, parameters in layers:
            sent = loss if out is rates else error @ feedback[parameters[0]]
            found = torch.autograd.grad(out, [self.parameters[n] for n in parameters], sent)
            gradients |= dict(zip(parameters, found, strict=True))
        return rates.detach(), gradients

    def gradient(self, images: np.ndarray, targets: np.ndarray) -> dict[str, np.ndarray]:
        """Gradient of the mean loss by projection, by autograd."""
        _, gradients = self.backward(self.arrays.asarray(images), self.arrays.asarray(targets))
        return {n: self.arrays.to_numpy(g) for n, g in gradients.items()}
