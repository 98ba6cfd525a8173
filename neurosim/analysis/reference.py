"""The feed-forward net that a circuit names as its reference, in plain torch, with autograd's gradient."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from neurosim.backends.torch.arrays import TorchArrays
from neurosim.circuit import Circuit
from neurosim.equations import compile_block
from neurosim.errors import NeurosimError


class ReferenceNet:
    """``a_l = r_{l-1} W_l + b_l``, ``r_l = transfer(a_l)``, loss ``C = mean over samples of 1/2 |target - r_L|^2``.

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
        self._transfer = compile_block([("r", self.reference.transfer)], self.arrays.functions, {})

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Rates of the output layer, (samples, classes)."""
        rates = images
        for weight, bias in zip(self.reference.weights, self.reference.biases, strict=True):
            s = {"u": torch.addmm(self.parameters[bias].squeeze(0), rates, self.parameters[weight])}
            self._transfer(s)
            rates = s["r"]
        return rates

    def loss(self, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean over the samples of half the squared error."""
        return 0.5 * ((targets - self.forward(images)) ** 2).sum(dim=1).mean()

    def gradient(self, images: np.ndarray, targets: np.ndarray) -> dict[str, np.ndarray]:
        """Gradient of the mean loss by projection, by autograd."""
        for parameter in self.parameters.values():
            parameter.grad = None
        self.loss(self.arrays.asarray(images), self.arrays.asarray(targets)).backward()
        return {n: self.arrays.to_numpy(p.grad) for n, p in self.parameters.items() if p.grad is not None}
