"""Ghost-unit circuit after Mesnard et al. 2019 (reconstruction).

T. Mesnard, G. Vignoud, J. Sacramento, W. Senn, Y. Bengio, "Ghost Units Yield Biologically Plausible Backprop in Deep
Neural Networks", arXiv 1911.08585. READ in the paper's abstract: one-compartment neurons; ghost units cancel the top-down
feedback while there is no target; the mismatch under a target is the error; a range of mechanisms from duplicating the
connectivity to replicating the feedback online. RECONSTRUCTION, ours: every equation, rule and number below.

    tau du_l/dt = -u_l + a_l + E_l            a_l = W_l r_{l-1} + b_l           r = rho(u)
    E_l = kappa (B_l r_{l+1} - G_l rho(g_l))  in the hidden layers;             E_L = beta (y - r_L) at the top
    tau dg_l/dt = -g_l + V_l r_l + c_l        ghosts of layer l (they see no target)

Rules for W_l, all local, with s_l = eta/(beta kappa^(L-l)):  R1 (r - r_free) r_pre,  R2 (rho(u) - rho(a)) r_pre,
R3 rho'(a) E r_pre,  R4 (default) rho'(a) (E - E_free) r_pre.
Modes: `exact` (ghost weights tied to the forward and feedback weights), `learned` (ghost weights learn in target-free
time), `online` (one ghost per cell follows the feedback and holds it under the target), `none` (control).
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
    FeedForward,
    Fragment,
    Glorot,
    OneToOne,
    Phase,
    PlasticityRule,
    Population,
    Projection,
    Protocol,
    Ratio,
    Readout,
    Tied,
)  # fmt: skip
from neurosim.checks import In, NotNegative, Positive, PositiveTime, Sizes, checked
from neurosim.equations import seconds
from neurosim.errors import NeurosimError

#: The paper.
PAPER = Citation(
    "Ghost Units Yield Biologically Plausible Backprop in Deep Neural Networks",
    "Mesnard, T. and Vignoud, G. and Sacramento, J. and Senn, W. and Bengio, Y.",
    2019,
    "@misc{mesnard2019ghost, eprint = {1911.08585}, archivePrefix = {arXiv}}",
    note="reconstruction: the idea is the paper's, equations, rules and numbers are ours",
)

MODES = ("exact", "learned", "online", "none")
FEEDBACK = ("sym", "fa")

#: rate of a potential u, slope at a drive a (a text in `a` and `rho_a`, the rate at a)
TRANSFER = {
    "logistic": ("1/(1 + exp(-u))", "rho_a*(1 - rho_a)"),
    "tanh": ("tanh(u)", "1 - rho_a**2"),
    "hard_sigmoid": ("clip(u, 0, 1)", "int(a >= 0)*int(a <= 1)"),
}

RULES = {
    "R1": "dw/dt = eta/T_learn/(beta*scale) * (r_post - r_free_post)*before_pre",
    "R2": "dw/dt = eta/T_learn/(beta*scale) * (r_post - rho_a_post)*r_pre",
    "R3": "dw/dt = eta/T_learn/(beta*scale) * slope_post*E_post*r_pre",
    "R4": "dw/dt = eta/T_learn/(beta*scale) * slope_post*(E_post - E_free_post)*r_pre",
}


@checked
def circuit(
    sizes: Sizes = (64, 64, 32, 10),
    mode: Annotated[str, In(MODES)] = "exact",
    feedback: Annotated[str, In(FEEDBACK)] = "sym",
    rule: Annotated[str, In(RULES)] | None = None,
    transfer: Annotated[str, In(TRANSFER)] = "logistic",
    kappa: Positive | None = None,
    beta: Positive | None = None,
    eta: NotNegative = 0.1,
    eta_ghost: NotNegative = 0.5,
    eta_tonic: NotNegative = 0.2,
    tau: PositiveTime = "10*ms",
    tau_ghost: PositiveTime | None = None,
    t_free: PositiveTime | None = None,
    t_nudged: PositiveTime | None = None,
    t_learn: PositiveTime = "20*ms",
    gain: NotNegative | None = None,
) -> Circuit:
    """The ghost-unit circuit.

    The default rule is R4, but R3 for the control `none`: R4 subtracts the free state's top-down current, which is a
    cancellation of its own (without ghosts it still trains; measured, see docs/models/ghost_units.md).

    Parameters
    ----------
    sizes
        Cells per layer, input and output included.
    mode, feedback, rule, transfer
        See the module's text: `exact | learned | online | none`, `sym | fa`, `R1 | R2 | R3 | R4`,
        `logistic | tanh | hard_sigmoid`.
    kappa
        Gain of (feedback - ghost); default 1 (exact), 0.1 (learned, online), 0.3 (none).
    beta
        Nudging strength; default 0.1 (exact, none), 0.5 (learned, online).
    eta
        Learning rate: a presentation moves W by eta/(beta kappa^(L-l)) * post * pre.
    eta_ghost, eta_tonic
        Learning rates per presentation of ghost weights, and of ghost biases and tonic inhibition (`learned`).
    tau, tau_ghost
        Membrane time constants; the ghosts' default is tau, which cancellation during transients needs.
    t_free, t_nudged, t_learn
        Length of the free phase, of the nudged phase, and of the window at the end of a phase in which weights
        are plastic. Default 60, 60, 20 ms; 150, 150, 20 ms for `learned` and `online`, which settle slowly.
    gain
        Gain of the Glorot initial weights; default 4 (logistic) or 1.
    """
    rule = rule or ("R3" if mode == "none" else "R4")
    slow = mode in ("learned", "online")
    kappa = kappa if kappa is not None else {"exact": 1.0, "learned": 0.1, "online": 0.1, "none": 0.3}[mode]
    beta = beta if beta is not None else (0.5 if slow else 0.1)
    initial = Glorot(gain if gain is not None else (4.0 if transfer == "logistic" else 1.0))
    tau_ghost = tau_ghost or tau
    top = len(sizes) - 1

    populations = [Population("inp", sizes[0], SOURCE)]
    projections: list[Projection] = []
    for l in range(1, top + 1):
        cell = _output(transfer, tau) if l == top else _hidden(transfer, tau, kappa)
        populations.append(Population(f"pyr{l}", sizes[l], cell))
        below = "inp" if l == 1 else f"pyr{l - 1}"
        values = {"eta": eta, "scale": kappa ** (top - l), "T_learn": t_learn}
        forward = PlasticityRule(
            "feedforward", RULES[rule].replace("before_pre", "r_pre" if l == 1 else "r_free_pre"), values
        )
        bias = PlasticityRule("feedforward", RULES[rule].replace("before_pre", "r_pre"), values)
        projections += [
            Projection(f"W{l}", below, f"pyr{l}.I_ff", initial, forward),
            Projection(f"b{l}", "one", f"pyr{l}.I_bias", Constant(0), bias),
        ]
    for l in range(1, top):
        above = f"pyr{l + 1}"
        symmetric = Tied(f"W{l + 1}", transpose=True)
        projections.append(Projection(f"B{l}", above, f"pyr{l}.I_fb", initial if feedback == "fa" else symmetric))
        copy = Tied(f"B{l}") if feedback == "fa" else symmetric  # where a copy of the feedback weights is read
        if mode in ("exact", "learned"):
            populations.append(Population(f"ghost{l}", sizes[l + 1], _ghost(transfer, tau_ghost)))
        if mode == "exact":
            projections += [
                Projection(f"V{l}", f"pyr{l}", f"ghost{l}.I_in", Tied(f"W{l + 1}")),
                Projection(f"c{l}", "one", f"ghost{l}.I_bias", Tied(f"b{l + 1}")),
                Projection(f"G{l}", f"ghost{l}", f"pyr{l}.I_gh", copy),
            ]
        elif mode == "learned":
            small = Glorot(0.3)
            projections += [
                Projection(f"V{l}", f"pyr{l}", f"ghost{l}.I_in", small, _imitate("centred_pre", eta_ghost, t_learn)),
                Projection(f"c{l}", "one", f"ghost{l}.I_bias", Constant(0), _imitate("r_pre", eta_tonic, t_learn)),
                Projection(f"teach{l}", f"{above}.u", f"ghost{l}.I_above", connectivity=OneToOne()),
                Projection(f"G{l}", f"ghost{l}", f"pyr{l}.I_gh", small, _cancel("centred_pre", eta_ghost, t_learn)),
                Projection(f"d{l}", "one", f"pyr{l}.I_tonic", Constant(0), _cancel("r_pre", eta_tonic, t_learn)),
                Projection(f"mean{l}", "one", f"pyr{l}.I_mean", Constant(0), _running_mean(t_learn)),
                Projection(f"ghost_mean{l}", "one", f"ghost{l}.I_mean", Constant(0), _running_mean(t_learn)),
            ]
        elif mode == "online":
            populations.append(Population(f"ghost{l}", sizes[l], _tracker(tau_ghost)))
            projections += [
                Projection(f"track{l}", above, f"ghost{l}.I_fb", copy),
                Projection(f"G{l}", f"ghost{l}", f"pyr{l}.I_gh", connectivity=OneToOne()),
            ]
    return Circuit(
        "ghost_units", Fragment(populations, projections), _protocol(mode, top, beta, t_free, t_nudged, t_learn),
        readout=Readout(f"pyr{top}.r", "free"),
        reference=FeedForward(
            tuple(f"W{l}" for l in range(1, top + 1)), tuple(f"b{l}" for l in range(1, top + 1)), TRANSFER[transfer][0]
        ),
        measures=_residual(top) if top > 1 else {},
        citations=(PAPER,),
    )  # fmt: skip


def _residual(top: int) -> dict[str, Ratio]:
    """What the ghosts leave of the feedback in the free state."""
    hidden = range(1, top)
    return {
        "ghost_residual": Ratio(
            tuple(f"pyr{l}.residual" for l in hidden), tuple(f"pyr{l}.I_fb" for l in hidden), "free"
        )
    }


# ------------------------------------------------------------------ cells

#: centred, normalised presynaptic rate for learned ghosts; I_mean is a slow running mean of the rate
CENTRED = """
    centred = (r - I_mean)/(0.1 + power) : 1
    power = pool((r - I_mean)**2) : 1
    I_mean : 1 (optional port)
"""


#: The free phase, which the rules compare with.
HELD = """
    E_free = hold(E, free) : 1
    r_free = hold(r, free) : 1
"""


def _soma(transfer: str) -> str:
    rate, slope = TRANSFER[transfer]
    return f"""
    du/dt = (-u + a + E)/tau : 1
    a     = I_ff + I_bias : 1
    r     = {rate} : 1
    rho_a = {rate.replace("u", "a")} : 1
    slope = {slope} : 1
    I_ff : 1 (port)
    I_bias : 1 (port)
    """


def _hidden(transfer: str, tau: str, kappa: float) -> Cell:
    return Cell(
        "pyramidal",
        _soma(transfer) + CENTRED + """
    E        = kappa*residual : 1
    residual = I_fb - I_gh - I_tonic : 1
    I_fb : 1 (port)
    I_gh : 1 (optional port)
    I_tonic : 1 (optional port)
    """ + HELD,
        {"tau": tau, "kappa": kappa},
    )  # fmt: skip


def _output(transfer: str, tau: str) -> Cell:
    return Cell(
        "output pyramidal",
        _soma(transfer) + """
    E = beta*(y - r) : 1
    y : 1 (input)
    beta : 1 (shared)
    """ + HELD,
        {"tau": tau},
    )  # fmt: skip


def _ghost(transfer: str, tau: str) -> Cell:
    return Cell(
        "ghost",
        f"""
    du/dt = (-u + a)/tau : 1
    a     = I_in + I_bias : 1
    r     = {TRANSFER[transfer][0]} : 1
    I_in : 1 (port)
    I_bias : 1 (port)
    I_above : 1 (optional port)
    """ + CENTRED,
        {"tau": tau},
    )  # fmt: skip


def _tracker(tau: str) -> Cell:
    return Cell(
        "tracking ghost",
        """
    du/dt = tracking*(I_fb - u)/tau : 1
    I_fb : 1 (port)
    tracking : 1 (shared)
    """,
        rate="u",
        parameters={"tau": tau},
    )


# ------------------------------------------------------------------ plasticity of the ghosts, target-free


def _imitate(pre: str, eta: float, t_learn: str) -> PlasticityRule:
    """A ghost follows the potential of its partner in the layer above."""
    return PlasticityRule(
        "ghost", f"dw/dt = eta/T_learn*(I_above_post - u_post)*{pre}", {"eta": eta, "T_learn": t_learn}, apply="trial"
    )


def _cancel(pre: str, eta: float, t_learn: str) -> PlasticityRule:
    """Inhibitory plasticity nulls the net top-down current."""
    return PlasticityRule(
        "ghost", f"dw/dt = eta/T_learn*residual_post*{pre}", {"eta": eta, "T_learn": t_learn}, apply="trial"
    )


def _running_mean(t_learn: str) -> PlasticityRule:
    return PlasticityRule(
        "ghost", "dw/dt = share/T_learn*(r_post - w)", {"share": 0.05, "T_learn": t_learn}, apply="trial"
    )


def _protocol(mode: str, top: int, beta: float, t_free: str | None, t_nudged: str | None, t_learn: str) -> Protocol:
    default = "150*ms" if mode in ("learned", "online") else "60*ms"
    window = seconds(t_learn)
    free, nudged = seconds(t_free or default), seconds(t_nudged or default)
    if min(free, nudged) <= window:
        raise NeurosimError(
            f"Phases of {free * 1e3:g} and {nudged * 1e3:g} ms leave no time to settle before the {window * 1e3:g} ms in "
            "which weights are plastic; lengthen t_free and t_nudged, or shorten t_learn."
        )
    shared: dict[str, float] = {"beta": 0.0}
    no_target: dict[str, float] = {}
    if mode == "online":
        shared["tracking"] = 0.0
        no_target["tracking"] = 1.0

    ghosts: dict[str, Any] = {"plastic": ("ghost",), "gate": t_learn} if mode == "learned" else {}
    phases = (
        Phase("free", t_free or default, no_target, **ghosts),
        Phase("nudged", t_nudged or default, {"beta": beta}, plastic=("feedforward",), gate=t_learn),
    )
    return Protocol(phases, {"inp.r": "image", f"pyr{top}.y": "target"}, shared)


def training(settings: Mapping[str, Any], dataset: str) -> dict[str, Any]:
    """The preset of `neurosim train`: settings of circuit and schedule that reach the figures in docs/models/ghost_units.md.

    Found on the backprop twin's validation set: on MNIST hidden cells saturate at the fourfold Glorot gain that suits
    the digits.
    """
    if dataset == "digits":
        return {"epochs": 30, "batch_size": 32, "learning_rate": 0.005}
    return {
        "sizes": (784, 500, 10), "gain": 1.0, "epochs": 15, "batch_size": 128, "learning_rate": 0.003, "decay": 0.9,
    }  # fmt: skip
