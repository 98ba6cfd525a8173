"""Weights that are the inverse of a correlation, kept exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from annotated_types import Gt, Lt

from neurosim.description import BatchRule, Given, Gram


@dataclass(frozen=True)
class InverseCorrelation(BatchRule):
    """The exact change of weights W that are the inverse of a forgetting correlation of the source's rates r.

    With ``C <- forgetting*C + (1 - forgetting)*mean_s r_s r_s^T`` over the b samples of a trial, ``W = C^-1`` becomes, by
    Woodbury's identity with Z = R W (R: samples x cells) and gamma = (1 - forgetting)/forgetting,

        W <- (W - Z^T [(b/gamma) I + R Z^T]^-1 Z)/forgetting

    computed in float64 and symmetrised. W starts symmetric (`Gram`, or a symmetric `Given`) and stays positive definite;
    directions in which r never points grow by 1/forgetting a trial.

    Parameters
    ----------
    rate
        Variable of the source population that is r, as it stands at the end of the rule's last phase.
    forgetting
        The factor of the old correlation, above 0 and below 1.
    """

    rate: str
    forgetting: Annotated[float, Gt(0), Lt(1)]

    def reads(self) -> str:
        return self.rate

    def update(self, w: Any, rates: Any, xp: Any) -> Any:
        z = rates @ w
        gamma = (1.0 - self.forgetting) / self.forgetting
        small = xp.diag(xp.ones_like(rates[:, 0]) * (len(rates) / gamma)) + rates @ z.T
        new = (w - z.T @ xp.linalg.solve(small, z)) / self.forgetting
        return 0.5 * (new + new.T)

    def formula(self) -> tuple[str, str]:
        return (
            "W <- (W - Z^T [(b/gamma) I + R Z^T]^-1 Z)/lambda",
            r"W \leftarrow \frac{1}{\lambda} \left( W - Z^{\mathsf{T}} \left( \frac{b}{\gamma} \mathbf{I} + R Z^{\mathsf{T}} \right)^{-1} Z \right)",
        )

    def text(self) -> str:
        return (
            f"Z = R W, R the rows `{self.rate}` of the b samples, I the identity matrix, "
            f"lambda = {self.forgetting:g}, gamma = (1 - lambda)/lambda"
        )

    def misfit(self, start: Any) -> str:
        if isinstance(start, Gram) or (
            isinstance(start, Given) and np.array_equal(start.values, np.transpose(start.values))
        ):
            return ""
        return "an inverse correlation is symmetric; start its weights from Gram() or a symmetric Given(...)"
