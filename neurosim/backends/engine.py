"""What every engine is built from and asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from neurosim.backends.noise import Noise
from neurosim.backends.result import Result
from neurosim.errors import NeurosimError
from neurosim.plan import Plan
from neurosim.traces.recording import Recording

#: What becomes of the rules' changes: applied, not formed, or collected while the weights stay.
Learn = Literal["on", "off", "held"]


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
    seed
        Of the cells' white noise.
    progress
        Show a progress bar when a run lasts longer than two seconds.
    tolerance, max_sweeps, method
        Steady level: largest residual of the fixed point (in the states' base units), limit of sweeps, and ``"anderson"``, ``"sweeps"`` or
        ``"relaxation"`` (the circuit's published scheme, which asks for no tolerance).
    """

    batch: int = 1
    dt: float = 1e-4
    dtype: str = "float64"
    device: str = "cpu"
    codegen: str = "numpy"
    seed: int = 0
    progress: bool = True
    tolerance: float = 1e-10
    max_sweeps: int = 200
    method: str = "anderson"


class Engine(Protocol):
    """A circuit lowered to one level. `present` may be called again and again; weights and noise go on from call to call."""

    noise: Noise | None
    trial: int  # trials (batches) presented so far; with the seed it fixes the random signs

    def __init__(self, plan: Plan, weights: dict[str, np.ndarray], options: Options): ...

    def present(
        self,
        stimuli: dict[str, np.ndarray],
        *,
        learn: Learn = "on",
        record: Recording | None = None,
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


def check_stimuli(plan: Plan, stimuli: dict[str, np.ndarray], batch: int) -> int:
    """Number of trials, once the fields are those that the clamps need, in the right shapes. Without any field: one.

    Raises
    ------
    NeurosimError
        A missing field, a wrong shape, or samples that do not fill the batches.
    """
    samples = {name: len(values) for name, values in stimuli.items()}
    if len(set(samples.values())) > 1:
        raise NeurosimError(f"The stimulus fields have {samples} samples; wanted the same number.")
    for (source, n), name in plan.clamped_sizes.items():
        if source not in stimuli:
            raise NeurosimError(f"'{name}' is clamped to '{source}', but the stimuli hold {[*stimuli]}.")
        if tuple(stimuli[source].shape[1:]) != (n,):
            raise NeurosimError(
                f"'{name}' is clamped to '{source}' of shape {tuple(stimuli[source].shape)}; wanted (samples, {n})."
            )
    count = next(iter(samples.values()), batch)
    if count % batch:
        raise NeurosimError(f"{count} samples do not fill batches of {batch}; wanted a multiple.")
    return count // batch
