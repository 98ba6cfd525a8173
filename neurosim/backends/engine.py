"""What every engine is built from and asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from neurosim.backends.result import Result
from neurosim.backends.step import Learn
from neurosim.plan import Plan


@dataclass(frozen=True)
class Options:
    """Settings of a run.

    Parameters
    ----------
    batch
        Samples presented at once; a rule's change is their mean.
    dt
        Euler step in seconds.
    dtype, device
        ``float64`` or ``float32``; ``cpu`` or ``cuda`` (torch levels).
    codegen
        ``numpy`` or ``cython`` (Brian2 levels).
    progress
        Show a progress bar when a run lasts longer than two seconds.
    tolerance, max_sweeps, method
        Steady level: largest residual of the fixed point, limit of sweeps, ``"anderson"`` or ``"sweeps"``.
    """

    batch: int = 1
    dt: float = 1e-4
    dtype: str = "float64"
    device: str = "cpu"
    codegen: str = "numpy"
    progress: bool = True
    tolerance: float = 1e-10
    max_sweeps: int = 200
    method: str = "anderson"


class Engine(Protocol):
    """A circuit lowered to one level. `present` may be called again and again; weights go on from call to call."""

    def __init__(self, plan: Plan, weights: dict[str, np.ndarray], options: Options): ...

    def present(
        self,
        stimuli: dict[str, np.ndarray],
        *,
        learn: Learn = "on",
        record: list[tuple[str, str]] | None = None,
        stride: int = 1,
        ends: bool = True,
    ) -> Result:
        """Present stimuli (``{field: (samples, cells)}``; samples a multiple of the batch) one trial after another."""
        ...

    def weights(self) -> dict[str, np.ndarray]:
        """Copies of the present weights."""
        ...

    def set_weights(self, weights: dict[str, np.ndarray]) -> None:
        """Put in other weights of the same shapes."""
        ...
