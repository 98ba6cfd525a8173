"""The protocol of a trial: phases, clamps, shared values, and what is plastic when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge

from neurosim.checks import Amount, Count, NotNegative, PositiveTime, Time
from neurosim.immutable import Value


@dataclass(frozen=True)
class RandomSign(Value):
    """A shared value whose sign is drawn anew for each trial, + or - with equal chance; the same for all such values of a trial.

    The sign of a trial follows from the run's seed and the number of the trial alone, so every level draws the same. A trial is a
    batch: with B samples at once one sign holds for all of them. `value` is a number in base SI units, a text
    with units such as ``"5*pA"``, or a Brian2 quantity.
    """

    value: Amount


@dataclass(frozen=True)
class Phase(Value):
    """A stretch of a trial.

    Parameters
    ----------
    name
        Name of the phase.
    duration
        A text with units, such as ``"60*ms"``.
    shared
        Values of shared variables in this phase, on top of the protocol's: a number (in base SI units), a text with
        units such as ``"5*pA"``, a Brian2 quantity, or a `RandomSign`. They reach the cells that declare them, and rules.
    clamps
        ``{"population.input": field}`` on top of the protocol's; field is a field of the stimulus
        (``image``, ``target``).
    plastic
        Names of the plasticity rules that are on.
    """

    name: str
    duration: Time
    shared: Mapping[str, Any] = field(default_factory=dict)
    clamps: Mapping[str, str] = field(default_factory=dict)
    plastic: tuple[str, ...] = ()


#: Which labels the windows of a trial show.
LABELS = ("all", "true_and_random", "true")
#: Fields that a clamp may name inside `Windows`, beside those of the stimulus.
WINDOW_FIELDS = ("label", "same", "multiplicity")


@dataclass(frozen=True)
class Windows(Value):
    """Phases repeated over class labels: one window of a trial shows one label to each sample.

    Inside, clamps may name three further fields: ``label``, the window's label, one-hot (classes,); ``same``, 1 where it is the sample's own
    class and 0 elsewhere, one number per sample; ``multiplicity``, for how many classes the window stands (one number per sample). The
    windows follow one another in time, states going on; phase ``settle`` of window k is called ``settle[k]``. On the steady level
    windows of all labels are run at once, as rows of an axis of their own, where the circuit allows it (windows are the whole trial, rules collect
    their changes until its end, nothing is held from one to the next); each then starts from the initial states, so that a circuit with
    several fixed points may settle at another one than in time.

    Parameters
    ----------
    phases
        The phases of one window.
    labels
        ``"all"``: window k shows label k. ``"true_and_random"``: two windows, the sample's own label and a wrong one, drawn anew in each
        trial from the run's seed, with multiplicity (classes - 1). ``"true"``: the sample's own label alone.
    clamps
        Clamps of all these phases.
    """

    phases: tuple[Phase, ...]
    labels: Literal["all", "true_and_random", "true"] = "all"
    clamps: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Protocol(Value):
    """The phases of one trial, run once per stimulus.

    Parameters
    ----------
    phases
        The phases in their order; `Windows` stands for phases repeated over labels.
    clamps
        Clamps of every phase: ``{"population.input": field of the stimulus}``.
    shared
        Values of shared variables where a phase says nothing, as in `Phase`.
    reset
        Start the states of every trial from their initial values (default), or go on from the last trial.
    dt
        The Euler step for which the circuit is meant: the default of `simulate` and `compare`.
    """

    phases: tuple[Phase | Windows, ...]
    clamps: Mapping[str, str] = field(default_factory=dict)
    shared: Mapping[str, Any] = field(default_factory=dict)
    reset: bool = True
    dt: PositiveTime = "0.1*ms"


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
