"""Ghost-unit circuit after Mesnard et al. 2019 (reconstruction).

T. Mesnard, G. Vignoud, J. Sacramento, W. Senn, Y. Bengio, "Ghost Units Yield Biologically Plausible Backprop in Deep
Neural Networks", arXiv 1911.08585. READ in the paper's abstract: one-compartment neurons; ghost units cancel the top-down
feedback while there is no target; the mismatch under a target is the error; a range of mechanisms from duplicating the
connectivity to replicating the feedback online. RECONSTRUCTION, ours: every equation, rule and number below.

    tau du_l/dt = -u_l + a_l + E_l            a_l = W_l r_{l-1} + b_l           r = rho(u)
    E_l = kappa (B_l r_{l+1} - G_l rho(g_l))  in the hidden layers;             E_L = beta (y - r_L) at the top
    tau dg_l/dt = -g_l + V_l r_l + c_l        ghosts of layer l (they see no target)

Rules for W_l, all local, with s_l = eta/(beta kappa^(L-l)):  R1 (r - r_free) r_pre,  R2 (rho(u) - rho(a)) r_pre,
R3 rho'(a) E r_pre,  R4 (default) rho'(a) (E - E_free) r_pre. In R1 r_pre of a hidden layer is that of the free phase.
Modes: `exact` (ghost weights tied to the forward and feedback weights), `learned` (ghost weights learn in target-free
time), `online` (one ghost per cell follows the feedback and holds it under the target), `none` (control).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from neurosim import (
    SOURCE, Cell, Circuit, Citation, Constant, FeedForward, Glorot, OneToOne, Phase, PlasticityRule, Population, Projection,
    Protocol, Ratio, Readout, Tied,
)  # fmt: skip
from neurosim.checks import In, NotNegative, Positive, PositiveTime, Sizes
from neurosim.parts import CENTRED, ghost_unit, slope, tracking_ghost
from neurosim.parts import transfer as rho
from neurosim.settings import ModelSettings, Parts, check_settles, computed, model

PAPER = Citation(
    "Ghost Units Yield Biologically Plausible Backprop in Deep Neural Networks",
    "Mesnard, T. and Vignoud, G. and Sacramento, J. and Senn, W. and Bengio, Y.", 2019,
    "@misc{mesnard2019ghost, eprint = {1911.08585}, archivePrefix = {arXiv}}",
    note="reconstruction: the idea is the paper's, equations, rules and numbers are ours",
)  # fmt: skip

MODES, FEEDBACK = ("exact", "learned", "online", "none"), ("sym", "fa")
SLOW = ("learned", "online")  # ghosts that learn or follow the feedback settle slowly
TRANSFER = ("logistic", "tanh", "hard_sigmoid")
#: Postsynaptic factor of each rule.
RULES = {
    "R1": "(r_post - r_free_post)",
    "R2": "(r_post - rho_a_post)",
    "R3": "slope_post*E_post",
    "R4": "slope_post*(E_post - E_free_post)",
}


@dataclass(frozen=True)
class Settings(ModelSettings):
    """Settings of the ghost-unit circuit; for `mode`, `feedback`, `rule` see the module's text.

    The rule of the control `none` is R3: R4 subtracts the free state's top-down current, which is a cancellation
    of its own (without ghosts it still trains; measured, see docs/models/ghost_units.md).
    """

    #: Cells per layer, input and output included.
    sizes: Sizes = (64, 64, 32, 10)
    mode: Annotated[str, In(MODES)] = "exact"
    feedback: Annotated[str, In(FEEDBACK)] = "sym"
    rule: Annotated[str, In(RULES)] = computed(lambda s: "R3" if s.mode == "none" else "R4")
    transfer: Annotated[str, In(TRANSFER)] = "logistic"
    #: Gain of (feedback - ghost).
    kappa: Positive = computed(lambda s: {"exact": 1.0, "learned": 0.1, "online": 0.1, "none": 0.3}[s.mode])
    #: Nudging strength.
    beta: Positive = computed(lambda s: 0.5 if s.mode in SLOW else 0.1)
    #: Learning rate: a presentation moves W by eta/(beta kappa^(L-l)) * post * pre.
    eta: NotNegative = 0.1
    #: Learning rates per presentation of ghost weights, and of ghost biases and tonic inhibition (`learned`).
    eta_ghost: NotNegative = 0.5
    eta_tonic: NotNegative = 0.2
    #: Membrane time constants. That of the ghosts is the cells' own: cancellation during transients needs it.
    tau: PositiveTime = "10*ms"
    tau_ghost: PositiveTime = computed(lambda s: s.tau)
    #: Length of the free and nudged phases, and of the window at the end of a phase in which weights are plastic.
    t_free: PositiveTime = computed(lambda s: "150*ms" if s.mode in SLOW else "60*ms")
    t_nudged: PositiveTime = computed(lambda s: "150*ms" if s.mode in SLOW else "60*ms")
    t_learn: PositiveTime = "20*ms"
    #: Gain of the Glorot initial weights.
    gain: NotNegative = computed(lambda s: 4.0 if s.transfer == "logistic" else 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settles(self.t_learn, t_free=self.t_free, t_nudged=self.t_nudged)


@model(Settings)
def circuit(s: Settings) -> Circuit:
    """Layers of pyramidal cells, the feedback between them, and the ghosts that cancel it."""
    top = len(s.sizes) - 1
    layers, hidden = range(1, top + 1), range(1, top)
    parts: Parts = [Population("inp", s.sizes[0], SOURCE)]
    for l in layers:
        parts += layer(s, l, top)
    for l in hidden:
        weights = Glorot(s.gain) if s.feedback == "fa" else Tied(f"W{l + 1}", transpose=True)
        parts += [Projection(f"B{l}", f"pyr{l + 1}", f"pyr{l}.I_fb", weights), *GHOSTS[s.mode](s, l)]
    residual = Ratio(tuple(f"pyr{l}.residual" for l in hidden), tuple(f"pyr{l}.I_fb" for l in hidden), "free")
    return Circuit(
        "ghost_units", parts, protocol(s, top), Readout(f"pyr{top}.r", "free"),
        FeedForward(tuple(f"W{l}" for l in layers), tuple(f"b{l}" for l in layers), rho(s.transfer)),
        measures={"ghost_residual": residual} if hidden else {}, citations=(PAPER,),
    )  # fmt: skip


SOMA = """
    du/dt  = (-u + a + E)/tau : 1
    a      = I_ff + I_bias : 1
    r      = {r} : 1
    rho_a  = {rho_a} : 1
    slope  = {slope} : 1
    E_free = hold(E, free) : 1
    r_free = hold(r, free) : 1
    I_ff : 1 (port)
    I_bias : 1 (port)
    """
#: What a hidden cell adds: the residual of feedback and ghost drives it.
HIDDEN = """
    E        = kappa*residual : 1
    residual = I_fb - I_gh - I_tonic : 1
    I_fb : 1 (port)
    I_gh : 1 (optional port)
    I_tonic : 1 (optional port)
    """
#: What an output cell adds: the target nudges it.
OUTPUT = """
    E = beta*(y - r) : 1
    y : 1 (input)
    beta : 1 (shared)
    """


def layer(s: Settings, l: int, top: int) -> Parts:
    """Pyramidal cells of layer l, with W_l and b_l and the rule that they learn by."""
    soma = SOMA.format(r=rho(s.transfer), rho_a=rho(s.transfer, "a"), slope=slope(s.transfer, "a", "rho_a"))
    hidden = Cell("pyramidal", soma + CENTRED + HIDDEN, {"tau": s.tau, "kappa": s.kappa})
    output = Cell("output pyramidal", soma + OUTPUT, {"tau": s.tau})
    values = {"eta": s.eta, "scale": s.kappa ** (top - l), "T_learn": s.t_learn}
    before = "r_free_pre" if s.rule == "R1" and l > 1 else "r_pre"
    change = f"dw/dt = eta/T_learn/(beta*scale) * {RULES[s.rule]}"
    forward, bias = (PlasticityRule("feedforward", f"{change}*{pre}", values) for pre in (before, "r_pre"))
    return [
        Population(f"pyr{l}", s.sizes[l], output if l == top else hidden),
        Projection(f"W{l}", f"pyr{l - 1}" if l > 1 else "inp", f"pyr{l}.I_ff", Glorot(s.gain), forward),
        Projection(f"b{l}", "one", f"pyr{l}.I_bias", Constant(0), bias),
    ]


def exact_ghosts(s: Settings, l: int) -> Parts:
    """Ghosts with copies of the weights of the layer above: they predict its rates exactly."""
    return [
        Population(f"ghost{l}", s.sizes[l + 1], ghost_unit(s.transfer, s.tau_ghost)),
        Projection(f"V{l}", f"pyr{l}", f"ghost{l}.I_in", Tied(f"W{l + 1}")),
        Projection(f"c{l}", "one", f"ghost{l}.I_bias", Tied(f"b{l + 1}")),
        Projection(f"G{l}", f"ghost{l}", f"pyr{l}.I_gh", Tied(f"B{l}")),
    ]


def learned_ghosts(s: Settings, l: int) -> Parts:
    """Ghosts that learn, while there is no target, to imitate the layer above and to cancel its feedback."""

    def learns(change: str, eta: float) -> PlasticityRule:
        values = {"eta": eta, "T_learn": s.t_learn}
        return PlasticityRule("ghost", f"dw/dt = eta/T_learn*{change}", values, apply="trial")

    imitate, cancel, running_mean = "(I_above_post - u_post)", "residual_post", learns("(r_post - w)", 0.05)
    return [
        Population(f"ghost{l}", s.sizes[l + 1], ghost_unit(s.transfer, s.tau_ghost)),
        Projection(f"V{l}", f"pyr{l}", f"ghost{l}.I_in", Glorot(0.3), learns(f"{imitate}*centred_pre", s.eta_ghost)),
        Projection(f"c{l}", "one", f"ghost{l}.I_bias", Constant(0), learns(f"{imitate}*r_pre", s.eta_tonic)),
        Projection(f"teach{l}", f"pyr{l + 1}.u", f"ghost{l}.I_above", connectivity=OneToOne()),
        Projection(f"G{l}", f"ghost{l}", f"pyr{l}.I_gh", Glorot(0.3), learns(f"{cancel}*centred_pre", s.eta_ghost)),
        Projection(f"d{l}", "one", f"pyr{l}.I_tonic", Constant(0), learns(f"{cancel}*r_pre", s.eta_tonic)),
        Projection(f"mean{l}", "one", f"pyr{l}.I_mean", Constant(0), running_mean),
        Projection(f"ghost_mean{l}", "one", f"ghost{l}.I_mean", Constant(0), running_mean),
    ]


def online_ghosts(s: Settings, l: int) -> Parts:
    """One ghost per cell: it follows the feedback while there is no target, and holds it under the target."""
    return [
        Population(f"ghost{l}", s.sizes[l], tracking_ghost(s.tau_ghost)),
        Projection(f"track{l}", f"pyr{l + 1}", f"ghost{l}.I_fb", Tied(f"B{l}")),
        Projection(f"G{l}", f"ghost{l}", f"pyr{l}.I_gh", connectivity=OneToOne()),
    ]


GHOSTS = {"exact": exact_ghosts, "learned": learned_ghosts, "online": online_ghosts, "none": lambda s, l: []}


def protocol(s: Settings, top: int) -> Protocol:
    """A free phase, in which ghosts learn or follow, then a nudged phase, in which W learns."""
    rest, follow = ({"tracking": 0.0}, {"tracking": 1.0}) if s.mode == "online" else ({}, {})
    learn: dict[str, Any] = {"plastic": ("ghost",), "gate": s.t_learn} if s.mode == "learned" else {}
    free = Phase("free", s.t_free, follow, **learn)
    nudged = Phase("nudged", s.t_nudged, {"beta": s.beta}, plastic=("feedforward",), gate=s.t_learn)
    return Protocol((free, nudged), {"inp.r": "image", f"pyr{top}.y": "target"}, {"beta": 0.0, **rest})
