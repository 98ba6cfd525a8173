"""Predictive coding of Rao & Ballard 1999, as the supervised net of Whittington & Bogacz 2017.

R. P. N. Rao, D. H. Ballard, "Predictive coding in the visual cortex", Nature Neuroscience 2:79-87, 1999; J. C. R. Whittington,
R. Bogacz, "An Approximation of the Error Backpropagation Algorithm in a Predictive Coding Network with Local Hebbian Synaptic
Plasticity", Neural Computation 29(5):1229-1262, 2017. FROM MEMORY of both: values and errors, their dynamics, the rule, variances, output
fixed to the target, the limit of a large variance at the output. OURS: value and error as two states of one cell; all lengths and rates.

    tau_error de_l/dt = -e_l + (x_l - f(x_{l-1}) W_l - b_l)/v_l                              error, v_L = variance, else 1
    tau       dx_l/dt = -e_l + f'(x_l) (e_{l+1} W_{l+1}^T)                                   value, hidden
    tau       dx_L/dt = -v_L e_L, and under a target y - x_L                                 value, output

    dW_l/dt = eta e_l f(x_{l-1}) / T_learn                                                   in the last T_learn under the target

Without a target all errors vanish and x is the feed-forward net; under one, values settle at the minimum of F = 1/2 sum_l v_l |e_l|^2 and
the rule is minus eta times the gradient of F. The larger the output's variance, the nearer that is to backprop's gradient over v_L.
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
    Phase,
    PlasticityRule,
    Population,
    Projection,
    Protocol,
    Readout,
    Tied,
)
from neurosim.checks import In, NotNegative, Positive, PositiveTime, Sizes, checked
from neurosim.equations import seconds, substitute
from neurosim.errors import NeurosimError

#: The papers: the circuit, and what it goes back to.
PAPERS = (
    Citation(
        "An Approximation of the Error Backpropagation Algorithm in a Predictive Coding Network with Local {Hebbian} "
        "Synaptic Plasticity",
        "Whittington, J. C. R. and Bogacz, R.",
        2017,
        """@article{whittington2017approximation,
          journal = {Neural Computation}, volume = {29}, number = {5}, pages = {1229--1262}
        }""",
        note="after Rao & Ballard 1999; from memory; see the module's text",
    ),
    Citation(
        "Predictive coding in the visual cortex: a functional interpretation of some extra-classical receptive-field effects",
        "Rao, R. P. N. and Ballard, D. H.",
        1999,
        "@article{rao1999predictive, journal = {Nature Neuroscience}, volume = {2}, pages = {79--87}}",
        note="from memory; see the module's text",
    ),
)

#: rate of a value x, and its slope
TRANSFER = {
    "tanh": ("tanh(x)", "1 - r**2"),
    "logistic": ("1/(1 + exp(-x))", "r*(1 - r)"),
    "identity": ("1*x", "1"),
}


@checked
def circuit(
    sizes: Sizes = (64, 64, 32, 10),
    transfer: Annotated[str, In(TRANSFER)] = "tanh",
    variance: Positive = 10.0,
    eta: NotNegative = 1.0,
    tau: PositiveTime = "10*ms",
    tau_error: PositiveTime = "2*ms",
    t_free: PositiveTime = "300*ms",
    t_clamped: PositiveTime = "150*ms",
    t_learn: PositiveTime = "10*ms",
    gain: NotNegative = 1.0,
) -> Circuit:
    """The predictive coding net.

    Parameters
    ----------
    sizes
        Cells per layer, input and output included.
    transfer
        ``tanh``, ``logistic`` or ``identity``. (Of a rectified rate F often has its minimum at the corner, where no fixed point is.)
    variance
        Variance of the output, relative to that of hidden layers: how loosely the target is met. At 1, hidden values explain much of the
        target away; what is learnt is then far from backprop's gradient.
    eta
        Learning rate: a presentation moves W by eta times minus the gradient of F.
    tau, tau_error
        Time constants of values and errors.
    t_free, t_clamped, t_learn
        Length of the phase without a target, of the one with it, and of the window at its end in which weights are plastic.
    gain
        Gain of the Glorot initial weights.
    """
    window, clamped = seconds(t_learn), seconds(t_clamped)
    if clamped <= window:
        raise NeurosimError(
            f"t_clamped = {clamped * 1e3:g} ms leaves no time to settle before the {window * 1e3:g} ms in which weights are "
            "plastic; lengthen it, or shorten t_learn."
        )
    top = len(sizes) - 1
    rule = PlasticityRule(
        "feedforward", "dw/dt = eta/T_learn*err_post*r_pre", {"eta": eta, "T_learn": t_learn}, apply="trial"
    )
    populations = [Population("inp", sizes[0], SOURCE)]
    projections: list[Projection] = []
    for l in range(1, top + 1):
        cell = _output(tau, tau_error, variance) if l == top else _hidden(transfer, tau, tau_error)
        populations.append(Population(f"pyr{l}", sizes[l], cell))
        below = "inp" if l == 1 else f"pyr{l - 1}"
        projections += [
            Projection(f"W{l}", below, f"pyr{l}.I_predicted", Glorot(gain), rule),
            Projection(f"b{l}", "one", f"pyr{l}.I_bias", Constant(0), rule),
        ]
    projections += [
        Projection(f"B{l}", f"pyr{l + 1}.err", f"pyr{l}.I_error", Tied(f"W{l + 1}", transpose=True))
        for l in range(1, top)
    ]
    protocol = Protocol(
        (
            Phase("free", t_free),
            Phase("clamped", t_clamped, {"clamped": 1}, plastic=("feedforward",), gate=t_learn),
        ),
        {"inp.r": "image", f"pyr{top}.y": "target"},
        {"clamped": 0},
    )
    hidden = substitute(TRANSFER[transfer][0], {"x": "u"})
    return Circuit(
        "predictive_coding", Fragment(populations, projections), protocol,
        readout=Readout(f"pyr{top}.x", "free"),
        reference=FeedForward(
            tuple(f"W{l}" for l in range(1, top + 1)), tuple(f"b{l}" for l in range(1, top + 1)),
            (*[hidden] * (top - 1), "1*u"),
        ),
        citations=PAPERS,
    )  # fmt: skip


ERROR = """
    derr/dt = (-err + (x - I_predicted - I_bias)/variance)/tau_error : 1
    I_predicted : 1 (port)
    I_bias : 1 (port)
"""


def _hidden(transfer: str, tau: str, tau_error: str) -> Cell:
    rate, slope = TRANSFER[transfer]
    return Cell("pyramidal", ERROR + f"""
    dx/dt = (-err + slope*I_error)/tau : 1
    r     = {rate} : 1
    slope = {slope} : 1
    I_error : 1 (port)
    """, parameters={"tau": tau, "tau_error": tau_error, "variance": 1.0})  # fmt: skip


def _output(tau: str, tau_error: str, variance: float) -> Cell:
    return Cell("output pyramidal", ERROR + """
    dx/dt = (-(1 - clamped)*variance*err + clamped*(y - x))/tau : 1
    y : 1 (input)
    clamped : 1 (shared)
    """, rate="x", parameters={"tau": tau, "tau_error": tau_error, "variance": variance})  # fmt: skip


def training(settings: Mapping[str, Any], dataset: str) -> dict[str, Any]:
    """The preset of `neurosim train`."""
    common = {"tolerance": 1e-3, "max_sweeps": 10}
    if dataset == "digits":
        return common | {"epochs": 30, "batch_size": 32, "learning_rate": 0.003}
    return common | {"sizes": (784, 500, 10), "epochs": 15, "batch_size": 128, "learning_rate": 0.001, "decay": 0.9}
