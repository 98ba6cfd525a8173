"""The runs of one comparison: the same samples and settings on each level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from neurosim.backends import STEADY
from neurosim.backends.result import Result
from neurosim.circuit import Circuit
from neurosim.equations import seconds
from neurosim.simulation import simulate

#: Variables that are recorded.
Names = Sequence[str]


@dataclass(frozen=True)
class Runs:
    """Runs of a circuit that differ in level and plasticity.

    Parameters
    ----------
    circuit, stimuli, labels
        As in `neurosim.simulate`.
    settings
        Of `neurosim.simulate`, for all levels.
    dtype
        Of the torch levels; Brian2 runs in float64.
    solver
        Of the steady level.
    """

    circuit: Circuit
    stimuli: Any
    labels: Any
    settings: Mapping[str, Any]
    dtype: str
    solver: str

    @property
    def dt(self) -> float:
        """The Euler step in seconds."""
        return seconds(self.settings["dt"])

    def run(self, level: str, plasticity: str, record: Names = ()) -> Result:
        """All samples; the steady level records nothing."""
        if level == STEADY:
            return self._run(level, plasticity, (), solver=self.solver)
        return self._run(level, plasticity, record)

    def first(self, level: str, circuit: Circuit, dt: str, stride: int, record: Names) -> Result:
        """The first sample alone, presented to `circuit` without plasticity."""
        stimuli, labels = _first(self.stimuli), _first(self.labels)
        one = replace(self, circuit=circuit, stimuli=stimuli, labels=labels)
        settings = {"dt": dt, "stride": stride, "batch_size": 1, "progress": False}
        return one._run(level, "off", record, **settings)

    def _run(self, level: str, plasticity: str, record: Names, **settings: Any) -> Result:
        return simulate(
            self.circuit,
            self.stimuli,
            self.labels,
            level=level,
            plasticity=plasticity,
            record=record,
            dtype=self.dtype if level.startswith("torch") else "float64",
            **{**self.settings, **settings},
        )


def _first(stimuli: Any) -> Any:
    """Return the first sample of an array, or of each field of a table."""
    if isinstance(stimuli, Mapping):
        return {field: values[:1] for field, values in stimuli.items()}
    return None if stimuli is None else stimuli[:1]
