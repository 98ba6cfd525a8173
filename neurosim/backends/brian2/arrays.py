"""NumPy arrays with in-place BLAS, for weights that live in Brian2's memory (see `neurosim.backends.stepping.arrays.Arrays`)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from scipy.linalg.blas import daxpy, dgemm, dger  # type: ignore[attr-defined]
from scipy.special import expit

from neurosim.backends.brian2.convolution import kernel
from neurosim.backends.stepping.reductions import reductions
from neurosim.description import BatchRule
from neurosim.equations import NUMPY_FUNCTIONS, REDUCTIONS, RENDERED
from neurosim.plan import ProjectionPlan


def _logistic(x: Any) -> Any:
    """1/(1 + exp(-x)). expit is one call but no vector code: from some hundred cells on, four vectorised calls win."""
    if np.size(x) < 600:
        return expit(x)
    with np.errstate(over="ignore"):  # exp(710) = inf, and 1/inf = 0 is right
        y = np.exp(-x)
    y += 1.0
    return np.divide(1.0, y, out=y)


def _each_map(reduce: Callable[[np.ndarray], np.ndarray], x: np.ndarray, maps: int) -> np.ndarray:
    """A reduction of each map, repeated for every one of its cells."""
    cells = x.reshape(*x.shape[:-1], maps, -1)
    return np.broadcast_to(reduce(cells), cells.shape).reshape(x.shape)


#: ``{word: reduction of the last axis, which stays}``.
REDUCED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    word: partial(getattr(np, row.numpy), axis=-1, keepdims=True) for word, row in REDUCTIONS.items() if row.numpy
}


class NumpyArrays:
    """float64 NumPy; matrices are C-contiguous (n_pre, n_post), so ``W.T`` is what BLAS calls a column-major array."""

    dtype_name = "float64"
    functions: dict[str, Any] = {  # noqa: RUF012
        **NUMPY_FUNCTIONS, **RENDERED, "ns_logistic": _logistic,
        **reductions(lambda x: x.mean(0, keepdims=True), REDUCED, _each_map),
    }  # fmt: skip

    def zeros(self, *shape: int) -> np.ndarray:
        return np.zeros(shape)

    def asarray(self, values: Any) -> np.ndarray:
        return np.array(values, dtype=np.float64)

    def to_numpy(self, values: np.ndarray) -> np.ndarray:
        return values

    def shared(self, values: np.ndarray) -> np.ndarray:
        return values

    def join(self, values: list[np.ndarray], out: np.ndarray) -> None:
        np.concatenate(values, axis=-1, out=out)

    def expand(self, value: Any, shape: tuple[int, int]) -> np.ndarray:
        if isinstance(value, np.ndarray) and value.shape == shape:
            return value
        return np.broadcast_to(np.asarray(value, dtype=np.float64), shape)

    def multiply(self, a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
        np.dot(a, b, out=out)

    def add_outer(
        self, weights: np.ndarray, pre: np.ndarray, post: np.ndarray, scale: float, keep: float = 1.0
    ) -> None:
        """weights = keep * weights + scale * pre^T post, in place."""
        target = weights.T
        if len(pre) == 1 and keep == 1.0:
            result = dger(scale, post[0], pre[0], a=target, overwrite_x=0, overwrite_y=0, overwrite_a=1)
        else:
            result = dgemm(scale, post.T, pre.T, beta=keep, c=target, trans_b=1, overwrite_c=1)
        if result is not target:  # BLAS worked on a copy: the array was not laid out as assumed
            weights[...] = result.T

    def add_scaled(self, weights: np.ndarray, change: np.ndarray, scale: float) -> None:
        """weights += scale * change, in place."""
        daxpy(change.reshape(-1), weights.reshape(-1), a=scale)

    def outer(self, pre: np.ndarray, post: np.ndarray, scale: float) -> np.ndarray:
        return scale * (pre.T @ post)

    def gram(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return a @ b.T

    def batch_update(self, rule: BatchRule, weights: np.ndarray, rates: np.ndarray) -> np.ndarray:
        return rule.update(weights, rates, np)

    def kernel(self, q: ProjectionPlan) -> Any:
        return kernel(q)

    def clip_(self, weights: np.ndarray, low: float | None, high: float | None) -> None:
        np.clip(weights, low, high, out=weights)

    def finite(self, values: np.ndarray) -> bool:
        return bool(np.isfinite(values.sum()))
