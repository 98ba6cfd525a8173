"""Local plasticity rules: an equation for dw/dt in pre, post and shared variables. Knows no engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from neurosim.checks import Amount, Time
from neurosim.description.batch_rule import BatchRule
from neurosim.description.value import Value


@dataclass(frozen=True)
class PlasticityRule(Value):
    """A plasticity rule, on in the phases that list its name.

    Parameters
    ----------
    name
        The name by which a `Phase` switches the rule on. Several projections may carry rules of one name.
    equation
        ``"dw/dt = ..."``: ``x_pre`` and ``x_post`` are variables of the source and target cells, ``w`` the weight, bare
        names are rule parameters or shared values of the protocol. The unit of the right-hand side must be the
        unit of the weight per second.
    parameters
        Constants: a number or a text with units.
    apply
        When the change reaches the weights: ``"now"`` (forward Euler, every step), ``"phase"`` or ``"trial"``
        (collected, added at the end of the phase or trial).
    bounds
        Lower and upper limit of the weights, None for no limit: texts with units such as ``"90*pA"``, Brian2 quantities, or bare numbers in
        base SI units.
    filter
        Time constant, a text with units, of a low-pass between the right-hand side F and the weight:
        ``filter dD/dt = -D + F``, ``dw/dt = D``, one trace D per synapse. D starts at 0 (in each trial where the
        protocol resets the states) and stands still while the rule is off. None: ``dw/dt = F``.
    symmetric
        Add the symmetric part of a collected change only (square weights, `apply` "phase" or "trial"): rounding then leaves
        symmetric weights symmetric.
    batch
        The form that the rule takes for a batch of samples where that is not a sum of outer products, a `BatchRule`. It replaces
        the equation, which stays beside it as what one synapse does.
    """

    name: str
    equation: str
    parameters: Mapping[str, Amount] = field(default_factory=dict)
    apply: Literal["now", "phase", "trial"] = "now"
    bounds: tuple[Amount | None, Amount | None] = (None, None)
    filter: Time | None = None
    symmetric: bool = False
    batch: BatchRule | None = None

    former: ClassVar[Mapping[str, str]] = {"exact": "write batch=neurosim.parts.InverseCorrelation(rate, forgetting)."}
