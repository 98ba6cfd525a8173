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

from dataclasses import dataclass
from typing import Annotated

from neurosim import (
    SOURCE, Cell, Circuit, Citation, Constant, Glorot, Phase, PlasticityRule, Population, Projection, Protocol, Readout,
    Tied,
)  # fmt: skip
from neurosim.checks import In, NotNegative, Positive, PositiveTime, Sizes
from neurosim.parts import transfer as rho
from neurosim.settings import ModelSettings, Parts, check_settles, model

PAPERS = (
    Citation(
        "Equilibrium Propagation: Bridging the Gap between Energy-Based Models and Backpropagation",
        "Scellier, B. and Bengio, Y.", 2017,
        """@article{scellier2017equilibrium,
          journal = {Frontiers in Computational Neuroscience}, volume = {11}, pages = {24}
        }""",
        note="from memory; see the module's text",
    ),
    Citation(
        "Scaling Equilibrium Propagation to Deep {ConvNets} by Drastically Reducing Its Gradient Estimator Bias",
        "Laborieux, A. and others", 2021,
        "@article{laborieux2021scaling, journal = {Frontiers in Neuroscience}, volume = {15}, pages = {633674}}",
        note="symmetric nudging; from memory; see the module's text",
    ),
)  # fmt: skip

TRANSFER = ("hard_sigmoid", "logistic", "tanh")
NUDGING = ("one_sided", "symmetric")


@dataclass(frozen=True)
class Settings(ModelSettings):
    """Settings of the layered Hopfield net."""

    #: Cells per layer, input and output included.
    sizes: Sizes = (64, 64, 32, 10)
    transfer: Annotated[str, In(TRANSFER)] = "hard_sigmoid"
    #: `symmetric` (free, +beta, -beta) or `one_sided` (free, +beta).
    nudging: Annotated[str, In(NUDGING)] = "symmetric"
    #: Nudging strength.
    beta: Positive = 0.5
    #: Learning rate: a presentation moves W by eta times minus the gradient, in the limit of small beta.
    eta: NotNegative = 0.1
    #: Membrane time constant.
    tau: PositiveTime = "10*ms"
    #: Length of the free phase, of each nudged one, and of the window at the end of a phase in which weights are plastic.
    t_free: PositiveTime = "300*ms"
    t_nudged: PositiveTime = "150*ms"
    t_learn: PositiveTime = "10*ms"
    #: Gain of the Glorot initial weights. Above about 0.5 (hard sigmoid, tanh) the layers' mutual excitation is so
    #: strong that the free state has several fixed points, or needs hundreds of time constants.
    gain: NotNegative = 0.4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settles(self.t_learn, t_free=self.t_free, t_nudged=self.t_nudged)


@model(Settings)
def circuit(s: Settings) -> Circuit:
    """Layers whose weights run both ways, and a target that nudges the topmost."""
    top = len(s.sizes) - 1
    parts: Parts = [Population("inp", s.sizes[0], SOURCE)]
    for l in range(1, top + 1):
        parts += layer(s, l, top)
    for l in range(1, top):
        parts.append(Projection(f"B{l}", f"pyr{l + 1}", f"pyr{l}.I_fb", Tied(f"W{l + 1}", transpose=True)))
    return Circuit(
        "equilibrium_propagation", parts, protocol(s, top), Readout(f"pyr{top}.r", "free"), citations=PAPERS
    )  # fmt: skip


HIDDEN = """
    du/dt = (-u + I_ff + I_bias + I_fb)/tau : 1
    r     = {r} : 1
    I_ff : 1 (port)
    I_bias : 1 (port)
    I_fb : 1 (port)
    """
OUTPUT = """
    du/dt = (-u + I_ff + I_bias + beta*(y - r))/tau : 1
    r     = {r} : 1
    I_ff : 1 (port)
    I_bias : 1 (port)
    y : 1 (input)
    beta : 1 (shared)
    """


def layer(s: Settings, l: int, top: int) -> Parts:
    """The cells of layer l, with W_l and b_l; both learn by the difference between the phases."""
    name, text = ("output pyramidal", OUTPUT) if l == top else ("pyramidal", HIDDEN)
    cell = Cell(name, text.format(r=rho(s.transfer)), {"tau": s.tau})
    values = {"eta": s.eta, "beta_0": s.beta, "T_learn": s.t_learn}
    change = "dw/dt = eta*phase_sign/(beta_0*T_learn)*r_post*r_pre"
    rule = PlasticityRule("feedforward", change, values, apply="trial")
    return [
        Population(f"pyr{l}", s.sizes[l], cell),
        Projection(f"W{l}", f"pyr{l - 1}" if l > 1 else "inp", f"pyr{l}.I_ff", Glorot(s.gain), rule),
        Projection(f"b{l}", "one", f"pyr{l}.I_bias", Constant(0), rule),
    ]


def protocol(s: Settings, top: int) -> Protocol:
    """A free phase, then one or two nudged ones; the rule reads their ends, each with its sign."""

    def read(name: str, length: str, beta: float, sign: float) -> Phase:
        return Phase(name, length, {"beta": beta, "phase_sign": sign}, plastic=("feedforward",), gate=s.t_learn)

    if s.nudging == "one_sided":
        phases = read("free", s.t_free, 0.0, -1.0), read("nudged", s.t_nudged, s.beta, 1.0)
    else:
        nudged, negative = read("nudged", s.t_nudged, s.beta, 0.5), read("negative", s.t_nudged, -s.beta, -0.5)
        phases = Phase("free", s.t_free), nudged, negative
    return Protocol(phases, {"inp.r": "image", f"pyr{top}.y": "target"}, {"beta": 0.0, "phase_sign": 0.0})
