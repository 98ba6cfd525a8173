"""The form of a plasticity rule for a whole batch, where that is not a sum of outer products."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from neurosim.description.value import Value


class BatchRule(Value, ABC):
    """New weights of a `Dense` projection from its weights and the rates of all samples, at the end of a trial.

    It replaces the equation of its `PlasticityRule`, which stays beside it as what one synapse does;
    `brian2:equations`, which has synapses only, refuses it by name. No optimiser transforms it. One of one's own is a
    frozen dataclass with the four methods; `neurosim.parts.InverseCorrelation` is an example.
    """

    @abstractmethod
    def reads(self) -> str:
        """The variable of the source population that `update` gets, as it stands at the end of the rule's last phase."""

    @abstractmethod
    def update(self, w: Any, rates: Any, xp: Any) -> Any:
        """The new weights.

        Parameters
        ----------
        w
            The weights (n_pre, n_post), float64.
        rates
            What the rule reads (samples, n_pre), float64.
        xp
            The library of both, `numpy` or `torch`: written with what the two share, it runs on every level that
            has batches.
        """

    @abstractmethod
    def formula(self) -> tuple[str, str]:
        """The update as plain text and as LaTeX, for `neurosim describe`."""

    @abstractmethod
    def text(self) -> str:
        """What the symbols of the formula mean; names in backticks."""

    def misfit(self, start: Any) -> str:
        """What start of the weights is expected, if this one does not fit; else an empty text."""
        return ""
