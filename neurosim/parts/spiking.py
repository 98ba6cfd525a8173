"""Spiking cells: three-compartment pyramidal cell with BAC firing, leaky integrate-and-fire cell, conductance synapses."""

from __future__ import annotations

from dataclasses import replace

from neurosim.description import Cell
from neurosim.equations import parse_cell
from neurosim.errors import unknown
from neurosim.parts.text import right_hand_side, with_right_hand_side


def bac_pyramidal() -> Cell:
    """A spiking pyramidal cell with soma V_s, basal V_b and apical V_a, whose apical dendrite fires calcium plateaus.

        C_s dV_s/dt = g_Ls (E_L - V_s) + g_Ls D_T exp((V_s - V_T)/D_T) - w_ad + g_sb (V_b - V_s) + g_sa (V_a - V_s) + I_s
        tau_w dw_ad/dt = a (V_s - E_L) - w_ad
        C_b dV_b/dt = g_Lb (E_L - V_b) + g_sb (V_s - V_b) + g_N n(V_b) s_N (E_N - V_b) + I_b
        C_a dV_a/dt = g_La (E_L - V_a) + g_sa (V_s - V_a) + g_Ca m (E_Ca - V_a) + g_K k (E_K - V_a) + i_bAP + I_a
        tau_m dm/dt = m_inf(V_a) - m,   tau_k dk/dt = k_inf(V_a) - k

    The soma is an adaptive exponential integrate-and-fire unit: it spikes above V_peak, is reset to V_reset with w_ad += b, and
    V_s stands still for 2 ms. Each spike sends a current pulse I_bAP into the apical dendrite while delay < t - t_spike <=
    delay + width (the back-propagating action potential). m activates the calcium current, k ends the plateau. A back-propagating
    spike with apical input makes a plateau and a burst: BAC firing (Larkum, Zhu & Sakmann 1999 for the phenomenon). The
    equations and constants are ours, none is taken from that paper; the NMDA term is off (s_N = 0).

    Ports (optional): currents I_s, I_b, I_a (amp). Potentials start at E_L, m, k and w_ad at 0. Use dt = 0.05 ms.
    """
    return Cell("BAC pyramidal", """
        dV_s/dt = (g_Ls*(E_L - V_s) + g_Ls*D_T*exp((V_s - V_T)/D_T) - w_ad + g_sb*(V_b - V_s) + g_sa*(V_a - V_s) + I_s)/C_s : volt (unless refractory)
        dw_ad/dt = (a_w*(V_s - E_L) - w_ad)/tau_w : amp
        dV_b/dt = (g_Lb*(E_L - V_b) + g_sb*(V_s - V_b) + g_N*n_inf*s_N*(E_N - V_b) + I_b)/C_b : volt
        dV_a/dt = (g_La*(E_L - V_a) + g_sa*(V_s - V_a) + i_Ca + i_K + i_bAP + I_a)/C_a : volt
        dm/dt = (m_inf - m)/tau_m : 1
        dk/dt = (k_inf - k)/tau_k : 1
        i_Ca = g_Ca*m*(E_Ca - V_a) : amp
        i_K = g_K*k*(E_K - V_a) : amp
        i_bAP = I_bAP*int(t - lastspike > delay)*int(t - lastspike <= delay + width) : amp
        m_inf = 1/(1 + exp((V_m - V_a)/D_m)) : 1
        k_inf = 1/(1 + exp((V_k - V_a)/D_k)) : 1
        n_inf = 1/(1 + exp((V_n - V_b)/D_n)) : 1
        I_s : amp (optional port)
        I_b : amp (optional port)
        I_a : amp (optional port)
        """, rate="spike_train", parameters={
            "C_s": "200*pF", "C_b": "60*pF", "C_a": "120*pF",
            "g_Ls": "12*nS", "g_Lb": "4*nS", "g_La": "6*nS", "g_sb": "25*nS", "g_sa": "16*nS",
            "g_Ca": "35*nS", "g_K": "40*nS", "g_N": "6*nS", "s_N": 0.0,
            "E_L": "-70*mV", "E_Ca": "60*mV", "E_K": "-90*mV", "E_N": "0*mV",
            "V_T": "-50*mV", "D_T": "2*mV", "V_peak": "-30*mV", "V_reset": "-60*mV",
            "a_w": "1*nS", "b_w": "15*pA", "tau_w": "100*ms",
            "V_m": "-28*mV", "D_m": "4*mV", "tau_m": "2*ms", "V_k": "-30*mV", "D_k": "4*mV", "tau_k": "30*ms",
            "V_n": "-40*mV", "D_n": "5*mV",
            "I_bAP": "2600*pA", "delay": "0.5*ms", "width": "1.5*ms",
        }, threshold="V_s > V_peak", reset="V_s = V_reset; w_ad += b_w", refractory="2*ms", initial={"V_s": -0.07, "V_b": -0.07, "V_a": -0.07})  # fmt: skip


def lif() -> Cell:
    """A leaky integrate-and-fire cell: ``C dV/dt = g_L (E_L - V) + I``, spike at V > V_T, reset to V_reset, 2 ms refractory.

    Port (optional): current I (amp). Constants of a fast-spiking interneuron (tau 10 ms), ours.
    """
    return Cell("LIF", """
        dV/dt = (g_L*(E_L - V) + I)/C : volt (unless refractory)
        I : amp (optional port)
        """, rate="spike_train", parameters={
            "C": "100*pF", "g_L": "10*nS", "E_L": "-70*mV", "V_T": "-50*mV", "V_reset": "-60*mV"
        }, threshold="V > V_T", reset="V = V_reset", refractory="2*ms", initial={"V": -0.07})  # fmt: skip


#: Reversal potential and decay time of common synapses.
SYNAPSES = {"AMPA": ("0*mV", "5*ms"), "GABA": ("-80*mV", "10*ms")}


def conductance_synapse(cell: Cell, name: str, current: str, potential: str, kind: str = "AMPA") -> Cell:
    """A conductance synapse on a compartment: each spike of a source opens it by the weight (siemens).

        dg/dt = -g/tau_syn + S(t) w,    I = ... + g (E_syn - V)

    The new port is ``S_name``; feed it with spike trains (``rate="spike_train"``), weights in siemens. May be applied again for
    another synapse.

    Parameters
    ----------
    cell
        A cell with a current port, such as `bac_pyramidal` or `lif`.
    name
        Name of the synapse: adds ``g_name``, ``S_name``, ``E_name``, ``tau_name``.
    current, potential
        The current port of the compartment (``I_a``), and its potential (``V_a``).
    kind
        ``"AMPA"`` (0 mV, 5 ms) or ``"GABA"`` (-80 mV, 10 ms).
    """
    if kind not in SYNAPSES:
        raise unknown("kind of synapse", kind, SYNAPSES)
    reversal, tau = SYNAPSES[kind]
    through = f"g_{name}*(E_{name} - {potential})"
    if current in parse_cell(cell.equations, f"Cell '{cell.name}'").ports:
        # The port becomes a sum of currents, with an electrode's port of its own in it.
        electrode = f"{current}_electrode"
        lines = [line for line in cell.equations.splitlines() if line.partition(":")[0].strip() != current]
        equations = "\n".join(
            [
                *lines,
                f"        {current} = {electrode} + {through} : amp",
                f"        {electrode} : amp (optional port)",
            ]
        )
    else:
        equations = with_right_hand_side(cell, current, f"{right_hand_side(cell, current)} + {through}")
    return replace(
        cell,
        equations=f"{equations.rstrip()}\n        dg_{name}/dt = -g_{name}/tau_{name} + S_{name} : siemens\n"
        f"        S_{name} : siemens/second (optional port)\n",
        parameters={**cell.parameters, f"E_{name}": reversal, f"tau_{name}": tau},
    )
