"""Transfer functions and their slopes by name, as Brian2 text."""

from __future__ import annotations

from neurosim.equations import substitute
from neurosim.errors import unknown

#: log(1 + exp(u)), written so that exp does not overflow.
SOFTPLUS = "0.5*(u + abs(u)) + log1p(exp(-abs(u)))"
#: rate of a potential u (in units of v_0 above rest, see `neurosim.parts.pyramidal`)
TRANSFER = {
    "logistic": "1/(1 + exp(-u))",
    "tanh": "tanh(u)",
    "hard_sigmoid": "clip(u, 0, 1)",
    "relu": "clip(u, 0, inf)",
    "softplus": SOFTPLUS,
    # the teacher's of the dendritic microcircuit, 0.1 log(1 + exp(u - 3))
    "soft_relu": f"0.1*({substitute(SOFTPLUS, {'u': '(u - 3)'})})",
    "linear": "u",
    # exponential linear unit (Clevert et al. 2016)
    "elu": "clip(u, 0, inf) + exp(clip(u, -inf, 0)) - 1",
    # moved and stretched so that the rate is 0 at u = 0
    "shifted_logistic": "2/(1 + exp(-u)) - 1",
    "shifted_softplus": f"{SOFTPLUS} - 0.6931471805599453",
}
#: slope of the rate in the potential u, in terms of the rate r where that is possible
SLOPES = {
    "logistic": "r*(1 - r)",
    "tanh": "1 - r**2",
    "hard_sigmoid": "int(u >= 0)*int(u <= 1)",
    "relu": "int(u > 0)",
    "softplus": "1/(1 + exp(-u))",
    "linear": "1",
    "elu": "clip(r + 1, 0, 1)",
    "shifted_logistic": "(1 - r**2)/2",
    "shifted_softplus": "1/(1 + exp(-u))",
}

#: r is the softmax of the population's potentials u, by a divisive pool; the largest potential cancels, and keeps exp
#: from overflowing. For the text of any cell with a potential u.
SOFTMAX = """
    r     = exp(u - top)/total : 1
    top   = pool_max(u) : 1
    total = pool(exp(u - top)) : 1
    """


def transfer(name: str, of: str = "u") -> str:
    """The transfer function `name` of the expression `of`, as text."""
    if name not in TRANSFER:
        raise unknown("transfer function", name, TRANSFER)
    return substitute(TRANSFER[name], {"u": of if of.isidentifier() else f"({of})"})


def slope(name: str, of: str = "u", rate: str = "r") -> str:
    """The slope of the transfer function `name` at the expression `of`, where its value is `rate`, as text."""
    if name not in SLOPES:
        raise unknown("transfer function with a slope", name, SLOPES)
    parts = {"u": of, "r": rate}
    return substitute(SLOPES[name], {k: v if v.isidentifier() else f"({v})" for k, v in parts.items()})
