"""What a run hands back, the same from every engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from neurosim.traces import Traces


@dataclass
class Result:
    """Outcome of presenting stimuli to a circuit.

    Attributes
    ----------
    level, dtype
        The engine and its floating-point type.
    weights
        Weights at the end, by projection.
    collected
        With ``learn="held"``: the change that each plastic projection collected, weights held (the sum over trials of
        the mean over a batch).
    readout
        (samples, cells): the readout variable at the end of its phase, NaN where the circuit names none.
    ends
        ``{phase: {"population.variable": (samples, cells)}}``: values in the last step of each phase.
    settling
        ``{phase: number}``: the largest change of a state over the last tenth of the phase (steady level: the
        largest residual of the fixed point).
    traces
        What was recorded, or None.
    steps, seconds
        Number of Euler steps (steady level: sweeps) and wall-clock time of the run.
    unsettled
        Steady level: number of (sample, phase) pairs that missed the tolerance.
    """

    level: str
    dtype: str
    weights: dict[str, np.ndarray]
    collected: dict[str, np.ndarray] = field(default_factory=dict)
    readout: np.ndarray | None = None
    ends: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    settling: dict[str, float] = field(default_factory=dict)
    traces: Traces | None = None
    steps: int = 0
    seconds: float = 0.0
    unsettled: int = 0
    info: dict[str, Any] = field(default_factory=dict)

    def plot(self, path: str, **kwargs: Any) -> None:
        """Draw the recorded traces to a file; see `neurosim.plot.traces_figure`."""
        from neurosim.errors import NeurosimError
        from neurosim.plot import save_traces

        if self.traces is None:
            raise NeurosimError("Nothing was recorded; pass record=['population.variable', ...] to simulate.")
        save_traces(self.traces, path, **kwargs)
