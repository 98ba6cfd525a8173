"""neurosim: write a circuit once, run it in Brian2, batched in torch, and at its steady state."""

from typing import TYPE_CHECKING, Any

# Before anything else: the command line is silent when Ctrl-C ends it here, and the first import of Brian2 is the one that counts.
from neurosim import _start  # noqa: F401

# ruff: isort: split
from neurosim import _brian2  # noqa: F401

# ruff: isort: split
from neurosim._version import __version__ as __version__
from neurosim.circuit import Circuit
from neurosim.description import (
    SOURCE,
    Angle,
    Cell,
    Citation,
    Constant,
    Conv2d,
    Dense,
    FeedForward,
    Fragment,
    Given,
    Glorot,
    Gram,
    Like,
    OneToOne,
    Orthogonal,
    PerMap,
    Phase,
    PlasticityRule,
    Population,
    Projection,
    Protocol,
    RandomSign,
    Ratio,
    Readout,
    Relaxation,
    Silent,
    SmallestEigenvalue,
    Tied,
    Uniform,
    Windows,
)

# ruff: isort: split
from neurosim.compare import compare
from neurosim.describe import describe
from neurosim.simulation import simulate
from neurosim.traces import Recorder, Traces
from neurosim.training import load

if TYPE_CHECKING:
    from neurosim.training import train

__all__ = [
    "SOURCE",
    "Angle",
    "Cell",
    "Circuit",
    "Citation",
    "Constant",
    "Conv2d",
    "Dense",
    "FeedForward",
    "Fragment",
    "Given",
    "Glorot",
    "Gram",
    "Like",
    "OneToOne",
    "Orthogonal",
    "PerMap",
    "Phase",
    "PlasticityRule",
    "Population",
    "Projection",
    "Protocol",
    "RandomSign",
    "Ratio",
    "Readout",
    "Recorder",
    "Relaxation",
    "Silent",
    "SmallestEigenvalue",
    "Tied",
    "Traces",
    "Uniform",
    "Windows",
    "compare",
    "describe",
    "load",
    "simulate",
    "train",
]


#: Words of version 0.1, and what to write now.
_FORMER = {
    "Derivative": "write a line in the cell's text, u_dot = derivative(u) : 1/second",
    "Hold": "write a line in the cell's text, E_free = hold(E, free) : 1",
    "InverseCorrelation": "it is one of the parts: from neurosim.parts import InverseCorrelation",
    "Kernel": "a fixed kernel is given weights without a rule: Projection(name, source, target, Given(matrix))",
    "Overlap": "write a line in the cell's text, crowd = overlap(r) : 1",
    "Pool": "write a line in the cell's text, power = pool(r**2) : 1, or pool_max(u)",
}


def __getattr__(name: str) -> Any:
    """`train` loads torch: imported when it is asked for."""
    if name in _FORMER:
        raise ImportError(f"neurosim {__version__} has no {name}: {_FORMER[name]}.")
    if name != "train":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from neurosim.training import train

    return train
