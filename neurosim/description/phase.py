"""A stretch of a trial."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from neurosim.checks import Amount, Time
from neurosim.description.value import Value


@dataclass(frozen=True)
class RandomSign(Value):
    """A shared value whose sign is drawn anew for each trial, + or - with equal chance; the same for all such values of a trial.

    The sign of a trial follows from the run's seed and the number of the trial alone, so every level draws the same. A trial is a
    batch: with B samples at once one sign holds for all of them. `value` is a number in base SI units, a text
    with units such as ``"5*pA"``, or a Brian2 quantity.
    """

    value: Amount


@dataclass(frozen=True)
class Phase(Value):
    """A stretch of a trial.

    Parameters
    ----------
    name
        Name of the phase.
    duration
        A text with units such as ``"60*ms"``, or a Brian2 quantity.
    shared
        Values of shared variables in this phase, on top of the protocol's: a number (in base SI units), a text with
        units such as ``"5*pA"``, a Brian2 quantity, or a `RandomSign`. They reach the cells that declare them, and rules.
    clamps
        ``{"population.input": field}`` on top of the protocol's. The field of the stimulus is any
        identifier; `simulate` takes its values by that name. ``image`` and ``target`` have the
        short form ``simulate(circuit, images, labels)``, and are those that training presents.
    plastic
        Names of the plasticity rules that are on.
    gate
        How long before the phase's end they go on, a time such as ``"20*ms"``, or ``"dt"`` for its last step; or
        one gate by rule, ``{"ff": "20*ms", "ghost": "dt"}`` (rules without one are on all the time). None: all the
        time. A gate does not move the moment at which a collected change is applied. At the steady level ``"dt"``
        is the protocol's own step.
    """

    name: str
    duration: Time
    shared: Mapping[str, Any] = field(default_factory=dict)
    clamps: Mapping[str, str] = field(default_factory=dict)
    plastic: tuple[str, ...] = ()
    gate: str | Mapping[str, str] | None = None
