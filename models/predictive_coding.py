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

from dataclasses import dataclass
from typing import Annotated

from neurosim import (
    SOURCE, Cell, Circuit, Citation, Constant, FeedForward, Glorot, Phase, PlasticityRule, Population, Projection,
    Protocol, Readout, Tied,
)  # fmt: skip
from neurosim.checks import In, NotNegative, Positive, PositiveTime, Sizes
from neurosim.equations import substitute
from neurosim.settings import ModelSettings, Parts, check_settles, model

PAPERS = (
    Citation(
        "An Approximation of the Error Backpropagation Algorithm in a Predictive Coding Network with Local {Hebbian} "
        "Synaptic Plasticity",
        "Whittington, J. C. R. and Bogacz, R.", 2017,
        """@article{whittington2017approximation,
          journal = {Neural Computation}, volume = {29}, number = {5}, pages = {1229--1262}
        }""",
        note="after Rao & Ballard 1999; from memory; see the module's text",
    ),
    Citation(
        "Predictive coding in the visual cortex: a functional interpretation of some extra-classical receptive-field effects",
        "Rao, R. P. N. and Ballard, D. H.", 1999,
        "@article{rao1999predictive, journal = {Nature Neuroscience}, volume = {2}, pages = {79--87}}",
        note="from memory; see the module's text",
    ),
)  # fmt: skip

#: f(x) and f'(x), in terms of the rate r = f(x).
TRANSFER = {
    "tanh": ("tanh(x)", "1 - r**2"),
    "logistic": ("1/(1 + exp(-x))", "r*(1 - r)"),
    "identity": ("1*x", "1"),
}


@dataclass(frozen=True)
class Settings(ModelSettings):
    """Settings of the predictive coding net."""

    #: Cells per layer, input and output included.
    sizes: Sizes = (64, 64, 32, 10)
    #: Of hidden layers. (Of a rectified rate F often has its minimum at the corner, where no fixed point is.)
    transfer: Annotated[str, In(TRANSFER)] = "tanh"
    #: Variance of the output, relative to that of hidden layers: how loosely the target is met. At 1, hidden values
    #: explain much of the target away; what is learnt is then far from backprop's gradient.
    variance: Positive = 10.0
    #: Learning rate: a presentation moves W by eta times minus the gradient of F.
    eta: NotNegative = 1.0
    #: Time constants of values and errors.
    tau: PositiveTime = "10*ms"
    tau_error: PositiveTime = "2*ms"
    #: Length of the phase without a target, of the one with it, and of the window at its end in which weights are plastic.
    t_free: PositiveTime = "300*ms"
    t_clamped: PositiveTime = "150*ms"
    t_learn: PositiveTime = "10*ms"
    #: Gain of the Glorot initial weights.
    gain: NotNegative = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settles(self.t_learn, t_clamped=self.t_clamped)


@model(Settings)
def circuit(s: Settings) -> Circuit:
    """Layers of values with their errors; errors run back through the weights of the predictions."""
    top = len(s.sizes) - 1
    parts: Parts = [Population("inp", s.sizes[0], SOURCE)]
    for l in range(1, top + 1):
        parts += layer(s, l, top)
    for l in range(1, top):
        parts.append(Projection(f"B{l}", f"pyr{l + 1}.err", f"pyr{l}.I_error", Tied(f"W{l + 1}", transpose=True)))
    weights, biases = (tuple(f"{name}{l}" for l in range(1, top + 1)) for name in "Wb")
    f = substitute(TRANSFER[s.transfer][0], {"x": "u"})
    return Circuit(
        "predictive_coding", parts, protocol(s, top), Readout(f"pyr{top}.x", "free"),
        FeedForward(weights, biases, (*[f] * (top - 1), "1*u")), citations=PAPERS,
    )  # fmt: skip


ERROR = """
    derr/dt = (-err + (x - I_predicted - I_bias)/variance)/tau_error : 1
    I_predicted : 1 (port)
    I_bias : 1 (port)
    """
#: The value of a hidden cell: it moves to where its own error and those that it causes above balance.
HIDDEN = """
    dx/dt = (-err + slope*I_error)/tau : 1
    r     = {r} : 1
    slope = {slope} : 1
    I_error : 1 (port)
    """
#: The value of an output cell: its prediction, or the target while that is clamped.
OUTPUT = """
    dx/dt = (-(1 - clamped)*variance*err + clamped*(y - x))/tau : 1
    y : 1 (input)
    clamped : 1 (shared)
    """


def layer(s: Settings, l: int, top: int) -> Parts:
    """Values and errors of layer l, with W_l and b_l; both learn by the error times the rate below."""
    times = {"tau": s.tau, "tau_error": s.tau_error}
    rate, slope = TRANSFER[s.transfer]
    hidden = Cell("pyramidal", ERROR + HIDDEN.format(r=rate, slope=slope), {**times, "variance": 1.0})
    output = Cell("output pyramidal", ERROR + OUTPUT, {**times, "variance": s.variance}, rate="x")
    values = {"eta": s.eta, "T_learn": s.t_learn}
    rule = PlasticityRule("feedforward", "dw/dt = eta/T_learn*err_post*r_pre", values, apply="trial")
    return [
        Population(f"pyr{l}", s.sizes[l], output if l == top else hidden),
        Projection(f"W{l}", f"pyr{l - 1}" if l > 1 else "inp", f"pyr{l}.I_predicted", Glorot(s.gain), rule),
        Projection(f"b{l}", "one", f"pyr{l}.I_bias", Constant(0), rule),
    ]


def protocol(s: Settings, top: int) -> Protocol:
    """A phase without a target, then one with it, at whose end weights learn."""
    clamped = Phase("clamped", s.t_clamped, {"clamped": 1}, plastic=("feedforward",), gate=s.t_learn)
    clamps = {"inp.r": "image", f"pyr{top}.y": "target"}
    return Protocol((Phase("free", s.t_free), clamped), clamps, {"clamped": 0})
