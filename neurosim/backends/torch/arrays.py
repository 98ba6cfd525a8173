"""torch tensors of one dtype on one device (see `neurosim.backends.stepping.arrays.Arrays`)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from neurosim.backends import DTYPES
from neurosim.backends.stepping.reductions import reductions
from neurosim.backends.torch.convolution import kernel
from neurosim.description import BatchRule
from neurosim.equations import NUMPY_FUNCTIONS, REDUCTIONS, RENDERED
from neurosim.errors import NeurosimError, unknown
from neurosim.plan import ProjectionPlan


def _each_map(reduce: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, maps: int) -> torch.Tensor:
    """A reduction of each map, repeated for every one of its cells."""
    cells = x.unflatten(-1, (maps, -1))
    return reduce(cells).expand_as(cells).flatten(-2)


#: ``{word: reduction of the last axis, which stays}``.
REDUCED: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    word: partial(getattr(torch, row.torch), dim=-1, keepdim=True) for word, row in REDUCTIONS.items() if row.torch
}


def _of_either(of_tensors: Callable[..., Any], of_numbers: Callable[..., Any]) -> Callable[..., Any]:
    """A function that takes tensors, or plain numbers (parameters, the time, shared values)."""

    def apply(*x: Any) -> Any:
        return (of_tensors if any(isinstance(v, torch.Tensor) for v in x) else of_numbers)(*x)

    return apply


def _exprel(x: torch.Tensor) -> torch.Tensor:
    zero = x == 0
    one = torch.ones_like(x)
    return torch.where(zero, one, torch.expm1(x) / torch.where(zero, one, x))


class TorchArrays:
    """Tensors; weights (n_pre, n_post), rates (batch, n)."""

    def __init__(self, dtype: str = "float64", device: str = "cpu"):
        if dtype not in DTYPES:
            raise unknown("dtype", dtype, DTYPES)
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise NeurosimError(
                f"Device '{device}' was asked for, but torch sees no CUDA device here; use --device cpu."
            )
        try:
            self.device = torch.device(device)
        except RuntimeError as error:
            raise NeurosimError(f"There is no device '{device}'; wanted cpu, or cuda (cuda:1, ...).") from error
        self.dtype_name, self.dtype = dtype, getattr(torch, dtype)
        own = {
            "int": self._int, "int_": self._int, "clip": self._clip, "exprel": _exprel, "ns_logistic": torch.sigmoid,
            "ns_elu": torch.nn.functional.elu,
        }  # fmt: skip
        self.functions: dict[str, Any] = {
            name: _of_either(own.get(name) or getattr(torch, name), of_numbers)
            for name, of_numbers in (NUMPY_FUNCTIONS | RENDERED).items()
        }
        self.functions |= {
            **reductions(lambda x: x.mean(0, keepdim=True), REDUCED, _each_map),
            "ns_match": lambda f, g: (f.reshape(-1, f.shape[-1]) @ g.reshape(-1, g.shape[-1]).T).unsqueeze(-1),
        }  # fmt: skip

    def _int(self, x: torch.Tensor) -> torch.Tensor:
        return torch.trunc(x.to(self.dtype))

    def _clip(self, x: Any, low: Any, high: Any) -> torch.Tensor:
        if isinstance(x, torch.Tensor) and not isinstance(low, torch.Tensor) and not isinstance(high, torch.Tensor):
            return torch.clamp(x, low, high)
        x, low, high = (torch.as_tensor(v, dtype=self.dtype, device=self.device) for v in (x, low, high))
        return torch.minimum(torch.maximum(x, low), high)

    def zeros(self, *shape: int) -> torch.Tensor:
        return torch.zeros(shape, dtype=self.dtype, device=self.device)

    def full(self, value: float) -> torch.Tensor:
        """A single number."""
        return torch.tensor(value, dtype=self.dtype, device=self.device)

    def asarray(self, values: Any) -> torch.Tensor:
        """Arrays are copied; a tensor that is right already is taken as it is."""
        if isinstance(values, torch.Tensor):
            return values.to(device=self.device, dtype=self.dtype)
        # torch knows neither negative strides (`X[::-1]`) nor other orders of bytes.
        return torch.from_numpy(np.array(values, dtype=self.dtype_name, order="C")).to(self.device)

    def to_numpy(self, values: torch.Tensor) -> np.ndarray:
        return values.detach().cpu().numpy()

    def shared(self, values: np.ndarray) -> tuple[torch.Tensor, ...] | None:
        # All at once: taking a row out of a tensor costs as much as filling it.
        return torch.from_numpy(values).unbind(0) if self.device.type == "cpu" else None

    def join(self, values: list[torch.Tensor], out: torch.Tensor) -> None:
        torch.cat(values, -1, out=out)

    def expand(self, value: Any, shape: tuple[int, ...]) -> torch.Tensor:
        if isinstance(value, torch.Tensor):
            return value if value.shape == shape else value.expand(shape)
        return torch.full(shape, float(value), dtype=self.dtype, device=self.device)

    def multiply(self, a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> None:
        torch.mm(a, b, out=out)

    def drive(self, rates: torch.Tensor, weights: torch.Tensor, transpose: bool) -> torch.Tensor:
        return rates @ (weights.T if transpose else weights)

    def add_outer(
        self, weights: torch.Tensor, pre: torch.Tensor, post: torch.Tensor, scale: float, keep: float = 1.0
    ) -> None:
        """weights = keep * weights + scale * pre^T post, in place."""
        weights.addmm_(pre.T, post, alpha=scale, beta=keep)

    def add_scaled(self, weights: torch.Tensor, change: torch.Tensor, scale: float) -> None:
        """weights += scale * change, in place."""
        weights.add_(change, alpha=scale)

    def outer(self, pre: torch.Tensor, post: torch.Tensor, scale: float) -> torch.Tensor:
        return scale * (pre.T @ post)

    def gram(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a @ b.T

    def batch_update(self, rule: BatchRule, weights: torch.Tensor, rates: torch.Tensor) -> torch.Tensor:
        return rule.update(weights.double(), rates.double(), torch).to(weights.dtype)

    def kernel(self, q: ProjectionPlan) -> Any:
        return kernel(q)

    def clip_(self, weights: torch.Tensor, low: float | None, high: float | None) -> None:
        weights.clamp_(low, high)

    def finite(self, values: torch.Tensor) -> bool:
        return bool(torch.isfinite(values.sum()))
