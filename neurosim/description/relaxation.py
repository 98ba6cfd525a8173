"""A published scheme of approaching the fixed point."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Ge

from neurosim.checks import Count, NotNegative, PositiveTime, Time
from neurosim.description.value import Value


@dataclass(frozen=True)
class Relaxation(Value):
    """A published scheme by which a circuit approaches its fixed point, offered by the steady level as ``solver="relaxation"``.

    Each sweep visits the populations of `order` one after another; each reads what the earlier ones have just become (Gauss-Seidel).
    A population's states move by one Euler step, ``x <- x + dt_s f``, those of an `instant` population to their steady state. The scheme
    does not ask whether it has settled: what is left is reported as the residual.

    Parameters
    ----------
    order
        Populations in the order in which a sweep visits them; those without states are left out.
    sweeps
        Number of sweeps in each phase. In a phase that is not named nothing moves: clamps, weights and what the cells read of the shared
        values must be those of the phase before, as in the window of a rule at the end of another phase.
    dt
        Euler step of a phase's first sweep, a text with units.
    slowing, floor
        Sweep s, counted from 0, takes the step ``max(dt/(1 + slowing*s), floor)`` (`slowing` is a number, `floor` a time; default: `dt`).
    unslowed
        Populations whose step is `dt` in every sweep.
    instant
        Populations that follow their drives at once.
    restart
        ``{phase: {"population.state": variable}}``: what states are set to when the phase begins, the variable as it stood at the end of the
        phase before.

    Raises
    ------
    CircuitError, NeurosimError
        When the circuit is built: unknown names, an order that leaves a population out, a restart in the first phase, a step beyond the
        limit of explicit Euler.
    """

    order: tuple[str, ...]
    sweeps: Mapping[str, Count]
    dt: PositiveTime
    slowing: NotNegative = 0.0
    floor: Annotated[Time, Ge(0)] = "0*ms"
    unslowed: tuple[str, ...] = ()
    instant: tuple[str, ...] = ()
    restart: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
