"""The protocol of a trial: phases, clamps, shared values, and what is plastic when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Phase:
    """A stretch of a trial.

    Parameters
    ----------
    name
        Name of the phase.
    duration
        A text with units, such as ``"60*ms"``.
    shared
        Values of shared variables in this phase, on top of the protocol's.
    clamps
        ``{"population.input": field}`` on top of the protocol's; field is a field of the stimulus
        (``image``, ``target``).
    plastic
        Names of the plasticity rules that are on.
    """

    name: str
    duration: str
    shared: Mapping[str, float] = field(default_factory=dict)
    clamps: Mapping[str, str] = field(default_factory=dict)
    plastic: tuple[str, ...] = ()


@dataclass(frozen=True)
class Protocol:
    """The phases of one trial, run once per stimulus.

    Parameters
    ----------
    phases
        The phases in their order.
    clamps
        Clamps of every phase: ``{"population.input": field of the stimulus}``.
    shared
        Values of shared variables where a phase says nothing.
    reset
        Start the states of every trial from their initial values (default), or go on from the last trial.
    dt
        The Euler step for which the circuit is meant: the default of `simulate` and `compare`.
    """

    phases: tuple[Phase, ...]
    clamps: Mapping[str, str] = field(default_factory=dict)
    shared: Mapping[str, float] = field(default_factory=dict)
    reset: bool = True
    dt: str = "0.1*ms"
