"""Measures of weight matrices, and which recorded ones are looked at."""

from __future__ import annotations

import numpy as np

from neurosim.matrices import angle, eigenvalues
from neurosim.traces import Traces

__all__ = ["SNAPSHOTS", "angle", "eigenvalues", "snapshots"]

#: Most recorded snapshots of the weights at which a circuit is run again.
SNAPSHOTS = 25


def snapshots(traces: Traces) -> np.ndarray:
    """Rows of `Traces.weights` that are looked at: all, or 25 of them, evenly."""
    count = len(traces.weight_trials)
    return np.unique(np.linspace(0, count - 1, min(count, SNAPSHOTS)).round().astype(int))
