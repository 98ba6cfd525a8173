"""Equilibrium propagation of Scellier & Bengio 2017: a layered Hopfield net that learns from a nudge of its output.

B. Scellier, Y. Bengio, "Equilibrium Propagation: Bridging the Gap between Energy-Based Models and Backpropagation", Frontiers in
Computational Neuroscience 11:24, 2017; `symmetric`: A. Laborieux et al., "Scaling Equilibrium Propagation to Deep ConvNets by
Drastically Reducing its Gradient Estimator Bias", Frontiers in Neuroscience 15:633674, 2021. FROM MEMORY of both: energy, phases,
the contrastive rule, hard sigmoid rates, symmetric nudging. OURS: potentials that leak to their input with the rate as the energy's
variable (Hopfield 1984), in place of the papers' states that are clipped after each step (the fixed points are the same for the hard
sigmoid); all lengths and rates.

    tau du_l/dt = -u_l + r_{l-1} W_l + b_l + r_{l+1} W_{l+1}^T     hidden            r = rho(u)
    tau du_L/dt = -u_L + r_{L-1} W_L + b_L + beta (y - r_L)        output

    dW/dt = eta s r_pre r_post / (|beta| T_learn)               s = -1 at the end of the free phase, +1 of the nudged one

The fixed points are those of E + beta C with C = 1/2 |y - r_L|^2; as beta -> 0 the sum over both phases is minus eta times the gradient of
C at the free fixed point. With `symmetric` nudging the phases are +beta and -beta, with s +1/2 and -1/2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from neurosim import (
    SOURCE,
    Cell,
    Circuit,
    Citation,
    Constant,
    Fragment,
    Glorot,
    Phase,
    PlasticityRule,
    Population,
    Projection,
    Protocol,
    Readout,
    Tied,
)
from neurosim.checks import In, NotNegative, Positive, PositiveTime, Sizes, checked
from neurosim.equations import seconds
from neurosim.errors import NeurosimError

#: The papers: the circuit, and symmetric nudging.
PAPERS = (
    Citation(
        "Equilibrium Propagation: Bridging the Gap between Energy-Based Models and Backpropagation",
        "Scellier, B. and Bengio, Y.",
        2017,
        """@article{scellier2017equilibrium,
          journal = {Frontiers in Computational Neuroscience}, volume = {11}, pages = {24}
        }""",
        note="from memory; see the module's text",
    ),
    Citation(
        "Scaling Equilibrium Propagation to Deep {ConvNets} by Drastically Reducing Its Gradient Estimator Bias",
        "Laborieux, A. and others",
        2021,
        "@article{laborieux2021scaling, journal = {Frontiers in Neuroscience}, volume = {15}, pages = {633674}}",
        note="symmetric nudging; from memory; see the module's text",
    ),
)

TRANSFER = {"hard_sigmoid": "clip(u, 0, 1)", "logistic": "1/(1 + exp(-u))", "tanh": "tanh(u)"}
NUDGING = ("one_sided", "symmetric")


@checked
def circuit(
    sizes: Sizes = (64, 64, 32, 10),
    transfer: Annotated[str, In(TRANSFER)] = "hard_sigmoid",
    nudging: Annotated[str, In(NUDGING)] = "symmetric",
    beta: Positive = 0.5,
    eta: NotNegative = 0.1,
    tau: PositiveTime = "10*ms",
    t_free: PositiveTime = "300*ms",
    t_nudged: PositiveTime = "150*ms",
    t_learn: PositiveTime = "10*ms",
    gain: NotNegative = 0.4,
) -> Circuit:
    """The layered Hopfield net.

    Parameters
    ----------
    sizes
        Cells per layer, input and output included.
    transfer
        ``hard_sigmoid``, ``logistic`` or ``tanh``.
    nudging
        ``symmetric`` (free, +beta, -beta) or ``one_sided`` (free, +beta).
    beta
        Nudging strength.
    eta
        Learning rate: a presentation moves W by eta times minus the gradient, in the limit of small beta.
    tau
        Membrane time constant.
    t_free, t_nudged, t_learn
        Length of the free phase, of each nudged phase, and of the window at the end of a phase in which weights are plastic.
    gain
        Gain of the Glorot initial weights. Above about 0.5 (hard sigmoid, tanh) the layers' mutual excitation is so strong that the
        free state has several fixed points, or needs hundreds of time constants.
    """
    top = len(sizes) - 1
    rule = PlasticityRule(
        "feedforward", "dw/dt = eta*phase_sign/(beta_0*T_learn)*r_post*r_pre", {"eta": eta, "beta_0": beta, "T_learn": t_learn},
        apply="trial",
    )  # fmt: skip
    populations = [Population("inp", sizes[0], SOURCE)]
    projections: list[Projection] = []
    for l in range(1, top + 1):
        populations.append(Population(f"pyr{l}", sizes[l], _cell(transfer, tau, output=l == top)))
        projections += [
            Projection(f"W{l}", "inp" if l == 1 else f"pyr{l - 1}", f"pyr{l}.I_ff", Glorot(gain), rule),
            Projection(f"b{l}", "one", f"pyr{l}.I_bias", Constant(0), rule),
        ]
    projections += [
        Projection(f"B{l}", f"pyr{l + 1}", f"pyr{l}.I_fb", Tied(f"W{l + 1}", transpose=True)) for l in range(1, top)
    ]
    one_sided = nudging == "one_sided"
    return Circuit(
        "equilibrium_propagation", Fragment(populations, projections),
        _protocol(top, beta, one_sided, t_free, t_nudged, t_learn),
        readout=Readout(f"pyr{top}.r", "free"),
        citations=PAPERS,
    )  # fmt: skip


def _cell(transfer: str, tau: str, output: bool) -> Cell:
    apical = "beta*(y - r)" if output else "I_fb"
    ports = ("I_ff", "I_bias") if output else ("I_ff", "I_bias", "I_fb")
    declared = "\n".join(
        [*(f"{port} : 1 (port)" for port in ports), *(("y : 1 (input)", "beta : 1 (shared)") if output else ())]
    )
    return Cell(
        "output pyramidal" if output else "pyramidal",
        f"""
    du/dt = (-u + I_ff + I_bias + {apical})/tau : 1
    r = {TRANSFER[transfer]} : 1
    {declared}
    """,
        parameters={"tau": tau},
    )


def _protocol(top: int, beta: float, one_sided: bool, t_free: str, t_nudged: str, t_learn: str) -> Protocol:
    window, free, nudged = seconds(t_learn), seconds(t_free), seconds(t_nudged)
    if min(free, nudged) <= window:
        raise NeurosimError(
            f"Phases of {free * 1e3:g} and {nudged * 1e3:g} ms leave no time to settle before the {window * 1e3:g} ms in "
            "which weights are plastic; lengthen t_free and t_nudged, or shorten t_learn."
        )

    def contrast(name: str, length: str, nudge: float, sign: float) -> Phase:
        """A phase that is plastic in its end."""
        return Phase(name, length, {"beta": nudge, "phase_sign": sign}, plastic=("feedforward",), gate=t_learn)

    if one_sided:
        phases = (contrast("free", t_free, 0.0, -1.0), contrast("nudged", t_nudged, beta, 1.0))
    else:
        phases = (
            Phase("free", t_free), contrast("nudged", t_nudged, beta, 0.5), contrast("negative", t_nudged, -beta, -0.5),
        )  # fmt: skip
    return Protocol(phases, {"inp.r": "image", f"pyr{top}.y": "target"}, {"beta": 0.0, "phase_sign": 0.0})


def training(settings: Mapping[str, Any], dataset: str) -> dict[str, Any]:
    """The preset of `neurosim train`."""
    common = {"tolerance": 1e-3, "max_sweeps": 10}
    if dataset == "digits":
        return common | {"epochs": 30, "batch_size": 32, "learning_rate": 0.003}
    return common | {"sizes": (784, 500, 10), "epochs": 15, "batch_size": 128, "learning_rate": 0.001, "decay": 0.9}
