"""Pyramidal cells: soma u, basal dendrite v_B, apical dendrite v_A, coupled by conductances.

Sacramento, Costa, Bengio & Senn 2018 (arXiv 1810.11393), with C = 1 and potentials relative to rest:

    du/dt = -g_lk u + g_B (v_B - u) + g_A (v_A - u)             hidden cell
    du/dt = -g_lk u + g_B (v_B - u) + teach i                   output cell, i = g_som (u_target - u)
    v_B = I_basal, v_A = I_apical                               instantaneous dendrites
    tau_d dv_B/dt = I_basal - v_B + back (u - v_B)              dendrites with a time constant (ours)
    r = phi(u),  r_hat = phi(g_B/(g_lk + g_B + g_A) v_B)        rate, and its prediction by the basal dendrite

In physical units potentials are E_L + v_0 times these (mV), conductances C_m times these (nS), and
``C_m du/dt = g_lk (E_L - u) + ...``: the same numbers behind both, so r and r_hat are the same to round-off. Drives stay
numbers: a drive of 1 lifts a dendrite by v_0. v_0, E_L and C_m are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from neurosim.description import Cell
from neurosim.errors import unknown
from neurosim.parts.transfer import transfer as transfer_text

#: Leak, basal, apical, interneuron-dendrite and somatic (teaching) conductance, 1/ms for C = 1.
CONDUCTANCES = {"g_lk": 0.1, "g_B": 1.0, "g_A": 0.8, "g_D": 1.0, "g_som": 0.8}
#: Resting potential, potential unit and membrane capacitance of the physical form.
REST, SCALE, CAPACITANCE_PF = "-70*mV", "10*mV", 100.0


@dataclass(frozen=True)
class Form:
    """How potentials and conductances are written: dimensionless, or in physical units."""

    physical: bool

    @classmethod
    def of(cls, units: str) -> Form:
        if units not in ("dimensionless", "physical"):
            raise unknown("units of a cell", units, ("dimensionless", "physical"))
        return cls(units == "physical")

    @property
    def unit(self) -> str:
        return "volt" if self.physical else "1"

    def relative(self, potential: str) -> str:
        """A potential as a number relative to rest."""
        return f"((({potential}) - E_L)/v_0)" if self.physical else potential

    def potential(self, number: str) -> str:
        """The potential of a number relative to rest."""
        return f"E_L + v_0*({number})" if self.physical else number

    def membrane(self, currents: str) -> str:
        """dV/dt of the sum of the currents other than leak, leak included."""
        return f"(g_lk*(E_L - u) + {currents})/C_m" if self.physical else f"-g_lk*u + {currents}"

    def parameters(self, names: tuple[str, ...], conductances: Mapping[str, float]) -> dict[str, float | str]:
        values = {**CONDUCTANCES, **conductances}
        for name in conductances:
            if name not in CONDUCTANCES:
                raise unknown("conductance", name, CONDUCTANCES)
        if not self.physical:
            return {n: f"{values[n]!r}/ms" for n in names}
        constants: dict[str, float | str] = {"E_L": REST, "v_0": SCALE, "C_m": f"{CAPACITANCE_PF!r}*pF"}
        return {n: f"{values[n] * CAPACITANCE_PF!r}*nS" for n in names} | constants

    def dendrite(self, name: str, drive: str, tau: str | None) -> str:
        """Equation of a dendritic potential."""
        if tau is None:
            return f"{name} = {self.potential(drive)} : {self.unit}"
        return f"d{name}/dt = ({self.potential(drive)} - {name} + back*(u - {name}))/tau_d : {self.unit}"

    def initial(self, *states: str) -> dict[str, float]:
        return dict.fromkeys(states, -0.07) if self.physical else {}


def dendritic(tau: str | None, back: float) -> dict[str, float | str]:
    """Parameters of dendrites with a time constant."""
    return {} if tau is None else {"tau_d": tau, "back": back}


def pyramidal(
    transfer: str = "logistic",
    units: str = "dimensionless",
    tau_dendrite: str | None = None,
    back: float = 0.0,
    conductances: Mapping[str, float] | None = None,
) -> Cell:
    """A pyramidal cell with soma u, basal v_B and apical v_A; see the module's text.

    Ports `I_basal` and `I_apical` (numbers). Sends `r`; `u` may be sent too.

    Parameters
    ----------
    transfer
        Name of the transfer function, see `neurosim.parts.transfer`.
    units
        ``"dimensionless"`` (conductances in 1/ms), or ``"physical"`` (mV, nS, pF).
    tau_dendrite
        None: the dendrites follow their drive at once. A time: they are states with this time constant.
    back
        Coupling of the soma back into dendrites with a time constant, relative to the dendrites' own leak.
    conductances
        Other values than `CONDUCTANCES`, in 1/ms.
    """
    form = Form.of(units)
    prediction = f"g_B/(g_lk + g_B + g_A)*{form.relative('v_B')}"
    return Cell("pyramidal", f"""
        du/dt = {form.membrane("g_B*(v_B - u) + g_A*(v_A - u)")} : {form.unit}
        {form.dendrite("v_B", "I_basal", tau_dendrite)}
        {form.dendrite("v_A", "I_apical", tau_dendrite)}
        r     = {transfer_text(transfer, form.relative("u"))} : 1
        r_hat = {transfer_text(transfer, prediction)} : 1
        I_basal : 1 (port)
        I_apical : 1 (optional port)
        """, parameters={
            **form.parameters(("g_lk", "g_B", "g_A"), conductances or {}), **dendritic(tau_dendrite, back)
        }, initial=form.initial("u", *(("v_B", "v_A") if tau_dendrite else ())))  # fmt: skip


#: Forms of the teaching current.
TEACHING = {
    "current": "i_teach = g_som*(u_target - u)",
    "conductance": "i_teach = g_exc*(E_exc - u) + g_inh*(E_inh - u)",
}


def output_pyramidal(
    transfer: str = "logistic",
    units: str = "dimensionless",
    tau_dendrite: str | None = None,
    back: float = 0.0,
    teaching: str = "current",
    target: tuple[float, float] = (-1.0, 1.0),
    conductances: Mapping[str, float] | None = None,
) -> Cell:
    """An output cell: soma u and basal v_B, no apical dendrite, a teaching current into the soma while `teach` = 1.

    Port `I_basal`; input `y` (the target, 0 to 1), which becomes the target potential ``low + (high - low) y``; shared
    `teach`. Sends `r`; `u` may be sent too.

    Parameters
    ----------
    transfer, units, tau_dendrite, back, conductances
        As in `pyramidal`.
    teaching
        ``"current"``: ``i = g_som (u_target - u)``. ``"conductance"``: ``i = g_exc (E_exc - u) + g_inh (E_inh - u)`` with
        ``g_exc = g_som (u_target - E_inh)/(E_exc - E_inh)`` and ``g_inh = g_som (E_exc - u_target)/(E_exc - E_inh)``,
        E_exc = 1 and E_inh = -1 (relative to rest): the same current.
    target
        Potentials (low, high) of y = 0 and y = 1, relative to rest.
    """
    form = Form.of(units)
    if teaching not in TEACHING:
        raise unknown("form of teaching", teaching, TEACHING)
    current, siemens = ("amp", "siemens") if form.physical else ("hertz", "hertz")
    parameters = form.parameters(("g_lk", "g_B", "g_som"), conductances or {})
    parameters |= {"low": target[0], "high": target[1], **dendritic(tau_dendrite, back)}
    lines = f"{TEACHING[teaching]} : {current}"
    if teaching == "conductance":
        lines += f"""
        g_exc = g_som*(u_target - E_inh)/(E_exc - E_inh) : {siemens}
        g_inh = g_som*(E_exc - u_target)/(E_exc - E_inh) : {siemens}"""
        parameters |= {"E_exc": "-60*mV", "E_inh": "-80*mV"} if form.physical else {"E_exc": 1.0, "E_inh": -1.0}
    return Cell(
        "output pyramidal",
        f"""
        du/dt = {form.membrane("g_B*(v_B - u) + teach*i_teach")} : {form.unit}
        {form.dendrite("v_B", "I_basal", tau_dendrite)}
        u_target = {form.potential("low + (high - low)*y")} : {form.unit}
        {lines}
        r     = {transfer_text(transfer, form.relative("u"))} : 1
        r_hat = {transfer_text(transfer, f"g_B/(g_lk + g_B)*{form.relative('v_B')}")} : 1
        I_basal : 1 (port)
        y : 1 (input)
        teach : 1 (shared)
        """,
        parameters=parameters,
        initial=form.initial("u", *(("v_B",) if tau_dendrite else ())),
    )


def low_pass_input(tau: str = "3*ms") -> Cell:
    """A source whose rate follows the clamped input x: ``tau dr/dt = x - r``."""
    return Cell(
        "low-pass input",
        """
        dr/dt = (x - r)/tau_0 : 1
        x : 1 (input)
        """,
        parameters={"tau_0": tau},
    )
