"""The measures that a circuit names, read while it is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from neurosim.backends.torch.workers import Workers
from neurosim.circuit import Circuit
from neurosim.description import Measure
from neurosim.errors import DivergenceError


class Measures:
    """The measures of a circuit, or those that its reference net has.

    Parameters
    ----------
    circuit
        Whose measures.
    states
        Whether the states are there: a reference net has none.
    workers
        The processes that share the samples.
    """

    def __init__(self, circuit: Circuit, states: bool, workers: Workers):
        self.all: Mapping[str, Measure] = circuit.measures
        self.of_states = {name: m for name, m in self.all.items() if states and m.reads().phase is not None}
        self._workers = workers
        self._weights: Mapping[str, np.ndarray] = {}

    def read_states(self, ends: Mapping[str, Mapping[str, np.ndarray]], samples: int) -> dict[str, Any]:
        """The measures of the states at the ends of phases, over this worker's first samples."""
        found = {}
        for name, measure in self.of_states.items():
            reads = measure.reads()
            kept = {n: ends[reads.phase][n][:samples] for n in reads.names if reads.phase is not None}
            found[name] = measure.value(kept, self._workers.total)
        return found

    def read_weights(self, weights: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """The measures of weights; those that a reference net lacks are left out."""
        self._weights = weights
        return {
            name: measure.value({n: weights[n] for n in measure.reads().names}, _own)
            for name, measure in self.all.items()
            if measure.reads().phase is None and set(measure.reads().names) <= set(weights)
        }

    def check(self, row: Mapping[str, Any]) -> None:
        """Raise `DivergenceError` where a measure says that the training cannot go on.

        Reads a row of metrics, and the weights that `read_weights` saw last.
        """
        for name, measure in self.all.items():
            read = {n: self._weights[n] for n in measure.reads().names if n in self._weights}
            if verdict := measure.verdict(name, row.get(name), read):
                raise DivergenceError(verdict)


def _own(*values: float) -> list[float]:
    """Weights are the same in every process: nothing is added up."""
    return list(values)
