"""Backprop, feedback alignment and direct feedback alignment on the circuit's reference net: baselines under the same trainer.

The only place, with `compare` and tests, where autograd or a backward pass stands.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn.grad import conv2d_input, conv2d_weight

from neurosim.analysis.reference import ReferenceNet
from neurosim.backends.engine import Options
from neurosim.backends.result import Result
from neurosim.backends.torch.workers import Workers
from neurosim.circuit import Circuit
from neurosim.errors import DivergenceError
from neurosim.traces.recording import Recording
from neurosim.training.config import TrainConfig

#: Added to a run's seed for its feedback weights, so that they are no other seed's initial weights.
FEEDBACK = 1_000_000


class _Aligned(torch.autograd.Function):
    """A product whose backward pass reads fixed random feedback weights (Lillicrap et al. 2016)."""

    @staticmethod
    def forward(ctx: Any, rates: Any, weight: Any, feedback: Any) -> Any:  # type: ignore[override]
        ctx.save_for_backward(rates, feedback)
        return rates @ weight

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:  # type: ignore[override]
        rates, feedback = ctx.saved_tensors
        return gradient @ feedback.T, rates.T @ gradient, None


class _AlignedConvolution(torch.autograd.Function):
    """As `_Aligned`, for conv2d: the gradient by the maps below goes through fixed random kernels."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, feedback: Any, maps: Any, kernels: Any, bias: Any, stride: int, padding: int
    ) -> Any:
        ctx.save_for_backward(feedback, maps)
        ctx.geometry = stride, padding
        return torch.nn.functional.conv2d(maps, kernels, bias, stride, padding)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:  # type: ignore[override]
        feedback, maps = ctx.saved_tensors
        below = conv2d_input(maps.shape, feedback, gradient, *ctx.geometry) if ctx.needs_input_grad[1] else None
        kernels = conv2d_weight(maps, feedback.shape, gradient, *ctx.geometry)
        return None, below, kernels, gradient.sum((0, 2, 3)) if ctx.needs_input_grad[3] else None, None, None


class BackpropEngine:
    """The reference net with the interface of an engine: `present` one batch, changes = minus the gradient.

    `feedback` holds the fixed random weights that carry errors down: for feedback alignment one matrix like each W (of a convolution, kernels);
    for direct feedback alignment (Nøkland 2016), by the name of a hidden layer's W, one of shape (cells of the output, cells of the layer),
    uniform on +-1/sqrt(cells of the output). The target is what the circuit's readout wants: the label, or the image itself.
    """

    def __init__(self, circuit: Circuit, weights: dict[str, np.ndarray], options: Options, config: TrainConfig):
        self.net = ReferenceNet(circuit, weights, options.dtype, options.device)
        self.arrays, self.options = self.net.arrays, options
        self.transform: Any = None
        self.workers: Workers | None = None
        self.noise, self.trial = None, 0
        self.method = config.method
        assert circuit.readout is not None  # the trainer asks for one
        self.wanted = circuit.readout.wanted
        self.feedback: dict[str, torch.Tensor] = {}
        names = self.net.reference.weights
        if config.method == "feedback_alignment":
            drawn = circuit.initial_weights(config.seed + FEEDBACK)
            self.feedback = {n: self.arrays.asarray(drawn[n]) for n in names}
            self.net.drive = self._aligned_drive  # type: ignore[method-assign]
        elif config.method == "direct_feedback_alignment":
            classes = self.net.cells[names[-1]]
            for l, name in enumerate(names[:-1]):
                rng = np.random.default_rng([config.seed, 3, l])
                drawn = rng.uniform(-1.0, 1.0, (classes, self.net.cells[name])) / np.sqrt(classes)
                self.feedback[name] = self.arrays.asarray(drawn)

    @property
    def _weights(self) -> dict[str, torch.Tensor]:
        return {n: p.data for n, p in self.net.parameters.items()}

    def _aligned_drive(self, rates: torch.Tensor, weight: str, bias: str) -> torch.Tensor:
        if weight in self.net.convolutions:
            kernels = self.net.kernels(self.feedback[weight], weight)
            return self.net.convolution(rates, weight, bias, partial(_AlignedConvolution.apply, kernels))
        product = _Aligned.apply(rates, self.net.parameters[weight], self.feedback[weight])
        return product + self.net.parameters[bias] if bias else product

    def weights(self) -> dict[str, np.ndarray]:
        return {n: self.arrays.to_numpy(p).copy() for n, p in self.net.parameters.items()}

    def set_weights(self, weights: dict[str, np.ndarray]) -> None:
        for name, parameter in self.net.parameters.items():
            parameter.data.copy_(self.arrays.asarray(weights[name]))

    def present(
        self, stimuli: dict[str, Any], *, learn: str = "on", ends: bool = True, record: Recording | None = None
    ) -> Result:
        """As an engine's, but there are no states to keep (`ends`), and of a recording the weights only."""
        started = time.perf_counter()
        answers = []
        for start in range(0, len(stimuli["image"]), self.options.batch):
            rows = slice(start, start + self.options.batch)
            if record is not None:
                record.begin_trial(lambda name: self.arrays.to_numpy(self.net.parameters[name]))
                record.end_trial()
            images, targets = (self.arrays.asarray(stimuli[name][rows]) for name in ("image", self.wanted))
            if learn == "on":
                direct = self.method == "direct_feedback_alignment"
                rates, gradients = (
                    self.net.backward_direct(images, targets, self.feedback)
                    if direct
                    else self.net.backward(images, targets)
                )
                self._check(rates)
                with torch.no_grad():
                    for gradient in gradients.values() if self.workers else ():
                        self.workers.average(gradient)  # type: ignore[union-attr]
                    self.transform({n: -g for n, g in gradients.items()})
            else:
                with torch.no_grad():
                    rates = self.net.forward(images)
                self._check(rates)
            answers.append(self.arrays.to_numpy(rates))
        result = Result("backprop", self.options.dtype, {}, readout=np.concatenate(answers))
        result.seconds = time.perf_counter() - started
        return result

    def _check(self, rates: torch.Tensor) -> None:
        finite = self.arrays.finite(rates)
        if self.workers is not None:  # all of them stop
            finite = self.workers.largest(float(not finite)) == 0
        if not finite:
            raise DivergenceError(
                f"The output rates of the net under {self.method} became NaN or infinite: its weights diverged. Lower learning_rate."
            )
