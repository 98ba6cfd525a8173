"""The measures that a circuit names, read while it is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from neurosim.analysis.weights import angle, eigenvalues
from neurosim.backends.torch.workers import Workers
from neurosim.circuit import Circuit
from neurosim.description import Angle, Ratio, Silent, SmallestEigenvalue
from neurosim.errors import DivergenceError

#: Weights count as indefinite where their smallest eigenvalue is below this share of the largest
#: (rounding reaches 1e-7 in float32).
INDEFINITE = 1e-4


class Measures:
    """The measures of a circuit, or those that its reference net has.

    Parameters
    ----------
    circuit
        Whose measures.
    states
        Whether the states are there: a reference net has none.
    """

    def __init__(self, circuit: Circuit, states: bool):
        self.all = circuit.measures
        #: Measures of the states.
        self.of_states: dict[str, Ratio | Silent] = {
            name: m for name, m in self.all.items() if states and isinstance(m, Ratio | Silent)
        }
        self._spectra: dict[str, tuple[float, float]] = {}  # smallest and largest eigenvalue

    def read_states(
        self,
        ends: Mapping[str, Mapping[str, np.ndarray]],
        samples: int,
        workers: Workers,
    ) -> dict[str, Any]:
        """The measures of the states at the ends of phases, over the workers' first samples."""
        return {
            name: _silent(measure, ends[measure.phase], samples, workers)
            if isinstance(measure, Silent)
            else _ratio(measure, ends[measure.phase], samples, workers)
            for name, measure in self.of_states.items()
        }

    def read_weights(self, weights: Mapping[str, np.ndarray]) -> dict[str, float | None]:
        """The measures of weights; those that a reference net lacks are left out."""
        found: dict[str, float | None] = {}
        self._spectra.clear()
        for name, measure in self.all.items():
            if isinstance(measure, Angle) and measure.of in weights:
                degrees = angle(weights[measure.of], weights[measure.to].T)
                # Weights of 0 have no direction.
                found[name] = degrees if np.isfinite(degrees) else None
            elif isinstance(measure, SmallestEigenvalue) and measure.of in weights:
                self._spectra[measure.of] = eigenvalues(weights[measure.of])
                found[name] = self._spectra[measure.of][0]
        return found

    def check(self, row: Mapping[str, Any]) -> None:
        """Raise `DivergenceError` where weights must be positive definite and are not any more.

        Also where a ratio in a row of metrics has passed its limit. Of the weights, what
        `read_weights` found last.
        """
        for measure in self.all.values():
            if isinstance(measure, SmallestEigenvalue) and measure.of in self._spectra:
                low, high = self._spectra[measure.of]
                if not low >= -INDEFINITE * high:
                    what = "are no longer positive definite: eigenvalues from "
                    what += f"{low:.3g} to {high:.3g}"
                    what = "hold NaN or infinity" if np.isnan(low) else what
                    cure = _sentence(measure.cure)
                    raise DivergenceError(f"The weights {measure.of} {what}. {cure}")
        for name, measure in self.all.items():
            value = row.get(name)
            if not isinstance(measure, Ratio) or measure.limit is None or value is None:
                continue
            if not value <= measure.limit:
                limit, cure = measure.limit, _sentence(measure.cure)
                raise DivergenceError(f"{name} is {value:.3g}, above {limit:g}. {cure}")


def _silent(
    measure: Silent,
    kept: Mapping[str, np.ndarray],
    samples: int,
    workers: Workers,
) -> int:
    """Cells that are 0 for every sample."""
    active = (kept[measure.variable][:samples] != 0).sum(axis=0)
    return workers.total(*active.tolist()).count(0)


def _ratio(
    measure: Ratio,
    kept: Mapping[str, np.ndarray],
    samples: int,
    workers: Workers,
) -> float:
    """Root mean square of some variables over that of others."""
    sums = [x for names in (measure.of, measure.to) for x in _squares(kept, names, samples)]
    of, of_count, to, to_count = workers.total(*sums)
    return float(np.sqrt(of / of_count) / max(np.sqrt(to / to_count), np.finfo(float).tiny))


def _squares(
    kept: Mapping[str, np.ndarray],
    names: tuple[str, ...],
    samples: int,
) -> tuple[float, int]:
    """Sum of the squares of some variables over the first samples, and their number."""
    values = np.concatenate([kept[n][:samples].ravel() for n in names])
    return float((values.astype(np.float64) ** 2).sum()), values.size


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}." if text else ""
