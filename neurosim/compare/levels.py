"""Which levels are compared."""

from __future__ import annotations

from collections.abc import Sequence

from neurosim.backends import LEVELS, STEADY, engine_class
from neurosim.errors import NeurosimError, UnsupportedError, check_list
from neurosim.plan import Plan


def choose_levels(
    plan: Plan,
    levels: Sequence[str] | None = None,
) -> tuple[list[str], dict[str, str]]:
    """The levels to compare, each once, and ``{level: why it is left out}``.

    None is left out where levels are named. A level alone is compared with no other, but its
    update with the gradient.

    Raises
    ------
    NeurosimError
        An unknown level, or none that can run the circuit.
    """
    check_list("levels", levels)
    for level in levels or ():
        engine_class(level)
    if levels is not None:
        chosen, left_out = list(dict.fromkeys(levels)), {}
    else:
        reasons = {level: _why_not(plan, level) for level in LEVELS}
        left_out = {level: reason for level, reason in reasons.items() if reason}
        chosen = [level for level in LEVELS if level not in left_out]
    if not chosen:
        known = ", ".join(LEVELS)
        others = [f" Left out: {level}: {why.rstrip('.')}." for level, why in left_out.items()]
        raise NeurosimError(
            f"Got no level to compare; expected at least one of: {known}.{''.join(others)}",
        )
    return chosen, left_out


def _why_not(plan: Plan, level: str) -> str:
    """Why a level is not compared unless it is named; empty where it is."""
    if level == STEADY and not plan.has_fixed_point:
        cells = plan.populations.values()
        found = {
            "spiking cells": any(p.spiking for p in cells),
            "noise": any(p.noises for p in cells),
            "equations that read the time": any(p.timed for p in cells),
            "states that outlive a trial": plan.memory is not None,
        }
        there = [what for what, is_there in found.items() if is_there]
        return f"there is no fixed point with {' and '.join(there)}"
    try:
        plan.check_rules(level)
    except UnsupportedError as error:
        return str(error)
    return ""
