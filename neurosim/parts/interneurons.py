"""Inhibitory interneurons: SST type (soma and dendrite, taught by a partner cell), PV type (divisive normalisation), tonic inhibition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from neurosim.description import Cell, Constant, Population, Projection, Tied
from neurosim.equations import amount
from neurosim.equations.units import DIMENSIONLESS
from neurosim.errors import CircuitError
from neurosim.parts.pyramidal import Form, dendritic
from neurosim.parts.text import right_hand_side, unit_of, with_right_hand_side
from neurosim.parts.transfer import transfer as transfer_text
from neurosim.settings import Parts


def sst_interneuron(
    transfer: str = "logistic",
    units: str = "dimensionless",
    tau_dendrite: str | None = None,
    back: float = 0.0,
    conductances: Mapping[str, float] | None = None,
) -> Cell:
    """An interneuron with soma u and dendrite v_D, taught by the soma of a partner cell at all times.

        du/dt = -g_lk u + g_D (v_D - u) + g_som (u_partner - u)
        r = phi(u),   r_hat = phi(g_D/(g_lk + g_D) v_D)

    (Sacramento 2018; forms, units and dendrites as in `neurosim.parts.pyramidal`.) Ports `I_dend` (a number), and `u_partner`,
    fed one-to-one with the potential `u` of the partner. Without a partner it is taught to rest.
    """
    form = Form.of(units)
    return Cell(
        "SST interneuron",
        f"""
        du/dt = {form.membrane("g_D*(v_D - u) + g_som*(u_partner - u)")} : {form.unit}
        {form.dendrite("v_D", "I_dend", tau_dendrite)}
        r     = {transfer_text(transfer, form.relative("u"))} : 1
        r_hat = {transfer_text(transfer, f"g_D/(g_lk + g_D)*{form.relative('v_D')}")} : 1
        I_dend : 1 (port)
        u_partner : {form.unit} (port)
        """,
        parameters={**form.parameters(("g_lk", "g_D", "g_som"), conductances or {}), **dendritic(tau_dendrite, back)},
        initial=form.initial("u", *(("v_D",) if tau_dendrite else ())),
    )


def divisive_normalisation(cell: Cell, semisaturation: float = 1.0) -> Cell:
    """The cell's rate divided by the population's: a fast PV pool (Carandini & Heeger 2012, with exponent 1).

        r_i = rho_i/(semisaturation + sum_j rho_j)        rho: the rate before normalisation

    The pool acts within the step, as inhibition much faster than the membrane does. `rate_before` is rho, `inhibition`
    the pool's sum. Rates and `semisaturation` are numbers, since the normalised rate is one.

    Raises
    ------
    CircuitError
        A rate or a semisaturation with a unit.
    """
    rho, unit = right_hand_side(cell, cell.rate), unit_of(cell, cell.rate)
    if unit != "1":
        raise CircuitError(
            f"divisive_normalisation: the rate '{cell.rate}' of the cell '{cell.name}' has the unit {unit}; wanted 1, the unit of the "
            f"normalised rate. Divide it by a parameter: '{cell.rate} = ({rho})/r_max : 1' with r_max in {unit}."
        )
    semisaturation = amount(semisaturation, DIMENSIONLESS, "divisive_normalisation: semisaturation")
    equations = with_right_hand_side(cell, cell.rate, "rate_before/(semisaturation + inhibition)")
    return replace(
        cell,
        name=f"{cell.name}, normalised",
        equations=f"{equations.rstrip()}\n        rate_before = {rho} : 1\n"
        "        inhibition = pool(rate_before) : 1\n",
        parameters={**cell.parameters, "semisaturation": semisaturation},
    )


def tonic_inhibition(
    parts: Parts, populations: Sequence[str], baseline: float, sent: str = "f", port: str = "I_basal"
) -> Parts:
    """The parts with populations that send their rate and a baseline, which tonic inhibition takes off again.

    The cells have a variable `sent`, ``f = r + baseline``, which all projections of their rate send from now on. For each
    onto `port`, a population ``tonicNAME`` of constant rate `baseline` inhibits the same cells by weights tied to
    its own, ``T`` + name: ``I = f W - baseline W = r W``. Rates of both signs so become firing rates. Ours.
    """
    sizes = {p.name: p.n for p in parts if isinstance(p, Population)}
    raised: Parts = []
    for q in parts:
        if isinstance(q, Population) or q.source not in populations:
            raised.append(q)
            continue
        raised.append(replace(q, source=f"{q.source}.{sent}"))
        if q.port == port:
            tonic = Cell("tonic inhibition", "r = baseline : 1", {"baseline": baseline})
            raised.append(Population(f"tonic{q.source}", sizes[q.source], tonic))
            raised.append(Projection(f"T{q.name}", f"tonic{q.source}", q.target, Tied(q.name, factor=-1)))
    return raised


def certainty_gate(parts: Parts, certain: str, threshold: float, gated: Sequence[str], tau: str) -> Parts:
    """The parts with a gate that closes for samples whose class is certain: ``tau du/dt = -u + sum certain``, ``keep = u < threshold``.

    Each population of `gated` has a port `keep` that takes the gate's 1 or 0; `certain` names a variable,
    ``population.variable``, that sums to the probability of the sample's own class. Kao & Hariharan 2024's filter of samples.
    """
    text = "du/dt = (-u + I_certain)/tau : 1\nkeep = int(u < threshold) : 1\nI_certain : 1 (port)"
    gate = Population("gate", 1, Cell("gate", text, {"tau": tau, "threshold": threshold}, rate="keep"))
    opens = [Projection(f"keep_{name}", "gate.keep", f"{name}.keep", Constant(1.0)) for name in gated]
    return [*parts, gate, Projection("certain", certain, "gate.I_certain", Constant(1.0)), *opens]
