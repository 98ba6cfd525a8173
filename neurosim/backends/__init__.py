"""Lowerings: each turns a plan into a running simulation. One folder per simulator, mirrored file names.

``LEVELS`` names them; an engine class is imported when it is asked for, so that torch is not loaded for a Brian2 run.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from neurosim.errors import unknown

if TYPE_CHECKING:
    from neurosim.plan import Plan

STEADY = "torch:steady"
#: Solvers of the steady level, numbers of the torch levels, and how Brian2 runs its code.
SOLVERS = ("anderson", "sweeps", "relaxation")
DTYPES = ("float64", "float32")
TARGETS = ("numpy", "cython")
LEVELS: dict[str, str] = {
    "brian2:equations": "neurosim.backends.brian2.equations.engine:EquationsEngine",
    "brian2:dense": "neurosim.backends.brian2.dense:DenseEngine",
    "torch:trajectory": "neurosim.backends.torch.trajectory:TrajectoryEngine",
    "torch:steady": "neurosim.backends.torch.steady:SteadyEngine",
}


def rate_level(plan: Plan) -> str:
    """The cheapest level that says what the rates of a circuit are: torch:steady where it has a fixed point, else torch:trajectory."""
    return STEADY if plan.has_fixed_point else "torch:trajectory"


def engine_class(level: str) -> Any:
    """The engine of a level, or an error with the nearest name."""
    if level not in LEVELS:
        raise unknown("level", level, LEVELS)
    module, _, name = LEVELS[level].partition(":")
    return getattr(import_module(module), name)
