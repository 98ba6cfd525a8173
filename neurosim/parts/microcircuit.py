"""Microcircuits of pyramidal cells and SST interneurons: their cells in one form, their rules, their self-predicting state.

Sacramento, Costa, Bengio & Senn 2018 (arXiv 1810.11393); prospective rates: Haider et al. 2021. Conductances are those of
`neurosim.parts.pyramidal`, in 1/ms; an output cell has no apical dendrite.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from neurosim.description import Cell, FeedForward, PlasticityRule
from neurosim.parts.dynamics import noisy, prospective
from neurosim.parts.interneurons import sst_interneuron
from neurosim.parts.pyramidal import output_pyramidal, pyramidal
from neurosim.parts.transfer import transfer as transfer_text


def microcircuit_cells(
    teaching: str = "current",
    target: tuple[float, float] = (-1.0, 1.0),
    ahead: bool = False,
    sigma: float = 0.0,
    **form: Any,
) -> tuple[Cell, Cell, Cell]:
    """Hidden pyramidal cell, output pyramidal cell and SST interneuron of one form.

    Parameters
    ----------
    teaching, target
        Of the output cell, see `output_pyramidal`.
    ahead
        Prospective rates, with the effective time constant of each soma.
    sigma
        White noise of each soma, per sqrt(ms) (dimensionless units); 0 for none.
    form
        What all three share, see `pyramidal`: transfer, units, tau_dendrite, back, conductances.
    """
    membrane = "C_m" if form.get("units") == "physical" else "1"

    def finished(cell: Cell, conductances: str) -> Cell:
        cell = prospective(cell, f"{membrane}/({conductances})") if ahead else cell
        return noisy(cell, f"{sigma!r}*ms**-0.5") if sigma else cell

    return (
        finished(pyramidal(**form), "g_lk + g_B + g_A"),
        finished(output_pyramidal(**form, teaching=teaching, target=target), "g_lk + g_B + teach*g_som"),
        finished(sst_interneuron(**form), "g_lk + g_D + g_som"),
    )


def predicts_soma(name: str, eta: float, low_pass: str | None = None) -> PlasticityRule:
    """``eta (r - r_hat) r_pre``, eta in 1/ms: the soma teaches its dendrite to predict it (Urbanczik & Senn 2014)."""
    return _rule(name, "(r_post - r_hat_post)", eta, low_pass)


def silences_apical(name: str, eta: float, low_pass: str | None = None, units: str = "dimensionless") -> PlasticityRule:
    """``eta (v_rest - v_A) r_pre``, eta in 1/ms: inhibition learns to hold the apical dendrite at rest."""
    return _rule(name, "(E_L_post - v_A_post)/v_0_post" if units == "physical" else "-v_A_post", eta, low_pass)


def _rule(name: str, change: str, eta: float, low_pass: str | None) -> PlasticityRule:
    return PlasticityRule(name, f"dw/dt = eta*{change}*r_pre", {"eta": f"{eta!r}/ms"}, filter=low_pass)


def basal_share(g: Mapping[str, float], output: bool = False) -> float:
    """Share of the basal dendrite's potential that reaches the soma."""
    return g["g_B"] / (g["g_lk"] + g["g_B"] + (0.0 if output else g["g_A"]))


def self_predicting_factor(g: Mapping[str, float], output: bool = False) -> float:
    """IP_l/W_(l+1) at which an interneuron without its teaching current rests at the potential of its partner."""
    return g["g_B"] * (g["g_lk"] + g["g_D"]) / (g["g_D"] * (g["g_lk"] + g["g_B"] + (0.0 if output else g["g_A"])))


def error_share(g: Mapping[str, float], below: int) -> float:
    """Share of the gradient that moves the soma `below` layers under the output, in the limit of small g_A and g_som.

    Teaching and each apical dendrite on the way down pass a share of the error, and an interneuron that follows its partner
    cancels a part; the gradient in turn passes the basal shares of the layers above.
    """
    apical, teaching = (g[name] / (g["g_lk"] + g["g_B"] + g[name]) for name in ("g_A", "g_som"))
    mismatch = (g["g_lk"] + g["g_D"]) / (g["g_lk"] + g["g_D"] + g["g_som"])
    return (
        teaching * (apical * mismatch) ** below / math.prod(basal_share(g, output=k == below) for k in range(below + 1))
    )


def self_predicting_net(
    g: Mapping[str, float], layers: range, biases: bool, transfer: str, target: tuple[float, float]
) -> FeedForward:
    """The feed-forward net of the self-predicting state, of weights W_l and biases b_l.

    Its loss has dC/dr = u - u_target (logistic: C = KL(r || phi(u_target))).
    """
    shares, (low, high) = [basal_share(g, output=l == layers[-1]) for l in layers], target
    return FeedForward(
        tuple(f"W{l}" for l in layers),
        tuple(f"b{l}" for l in layers if biases),
        tuple(transfer_text(transfer, f"{share!r}*u") for share in shares),
        f"{low!r} + {high - low!r}*target - {shares[-1]!r}*u",
    )
