"""The interface of array libraries."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from neurosim.description import BatchRule
from neurosim.plan import ProjectionPlan


class Arrays(Protocol):
    """What a step asks of an array library."""

    functions: dict[str, Any]
    dtype_name: str

    def zeros(self, *shape: int) -> Any: ...
    def asarray(self, values: Any) -> Any: ...
    def to_numpy(self, values: Any) -> np.ndarray: ...
    def expand(self, value: Any, shape: tuple[int, int]) -> Any: ...
    def shared(self, values: np.ndarray) -> Any:
        """The rows of an array, in the same memory; None where the library cannot."""

    def join(self, values: list[Any], out: Any) -> None:
        """Write arrays one after another along the last axis."""

    def multiply(self, a: Any, b: Any, out: Any) -> None: ...
    def add_outer(
        self,
        weights: Any,
        pre: Any,
        post: Any,
        scale: float,
        keep: float = 1.0,
    ) -> None: ...
    def add_scaled(self, weights: Any, change: Any, scale: float) -> None: ...
    def outer(self, pre: Any, post: Any, scale: float) -> Any: ...
    def gram(self, a: Any, b: Any) -> Any: ...
    def batch_update(self, rule: BatchRule, weights: Any, rates: Any) -> Any: ...
    def kernel(self, q: ProjectionPlan) -> Any: ...
    def clip_(self, weights: Any, low: float | None, high: float | None) -> None: ...
    def finite(self, values: Any) -> bool: ...
