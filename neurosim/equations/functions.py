"""The functions of the language, in one table: what each is in NumPy, for arrays and plain numbers.

`torch` has most of them under the same names (`neurosim.backends.torch.arrays`); Brian2 knows all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def _trunc(x: Any) -> Any:
    return np.trunc(np.asarray(x, dtype=np.float64))[()]


def _exprel(x: Any) -> Any:
    """(exp(x) - 1)/x, and 1 at 0."""
    zero = np.equal(x, 0)
    return np.where(zero, 1.0, np.expm1(x) / np.where(zero, 1.0, x))[()]


#: ``{name: function}``: what may be called in equations, thresholds, resets, pools and rules.
NUMPY_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{
        name: getattr(np, name)
        for name in (
            "abs", "arccos", "arcsin", "arctan", "ceil", "clip", "cos", "cosh", "exp", "expm1",
            "floor", "log", "log10", "log1p", "sign", "sin", "sinh", "sqrt", "tan", "tanh",
        )
    },
    "exprel": _exprel,
    "int": _trunc,
}  # fmt: skip
#: Their names.
FUNCTIONS = tuple(sorted(NUMPY_FUNCTIONS))
#: What `neurosim.equations.render` writes for words and signs, and in one call for several.
RENDERED: dict[str, Callable[..., Any]] = {
    "int_": _trunc,
    "ns_logistic": lambda x: 1.0 / (1.0 + np.exp(-x)),
    "ns_elu": lambda x: np.maximum(x, 0.0) + np.expm1(np.minimum(x, 0.0)),
    "logical_and": np.logical_and,
    "logical_or": np.logical_or,
    "logical_not": np.logical_not,
}
