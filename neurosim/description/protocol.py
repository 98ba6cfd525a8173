"""The protocol of a trial: its phases, clamps and shared values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from neurosim.checks import PositiveTime
from neurosim.description.loops import Loop
from neurosim.description.phase import Phase
from neurosim.description.value import Value


@dataclass(frozen=True)
class Protocol(Value):
    """The phases of one trial, run once per stimulus.

    Parameters
    ----------
    phases
        The phases in their order; a `Loop` such as `Windows` stands for phases repeated.
    clamps
        Clamps of every phase: ``{"population.input": field of the stimulus}``, as in `Phase`.
    shared
        Values of shared variables where a phase says nothing, as in `Phase`.
    reset
        Start the states of every trial from their initial values (default), or go on from the last trial.
    dt
        The Euler step for which the circuit is meant: the default of `simulate` and `compare`.
    """

    phases: tuple[Phase | Loop, ...]
    clamps: Mapping[str, str] = field(default_factory=dict)
    shared: Mapping[str, Any] = field(default_factory=dict)
    reset: bool = True
    dt: PositiveTime = "0.1*ms"
