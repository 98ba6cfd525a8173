"""The cell type: equations as text, ports, rate, parameters, pools, holds, threshold and reset.

Part of the description: plain data, no engine. See ``docs/circuits.md`` for the language.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from neurosim.checks import Constant, Time
from neurosim.description.value import Value


@dataclass(frozen=True)
class Pool(Value):
    """Fast pool: the sum of `expression` over a population, one number per sample.

    ``pool(s) = sum_j expression_j(s)`` for sample s. It has the unit of the expression. `over` = ``"map"`` sums over the cells of
    each map of a population of maps, ``"batch"`` over the cells of each map and the samples of the batch (of a population without maps: over
    the samples, for each cell), divided by the number of samples.

    `reduce` = ``"max"`` takes the maximum over the cells in place of the sum, ``max_j expression_j(s)``
    (over a population or its maps). A softmax needs it: ``exp(u - top)/total`` with
    ``Pool("top", "u", reduce="max")`` and ``Pool("total", "exp(u - top)")`` does not overflow.
    """

    name: str
    expression: str
    over: Literal["population", "map", "batch"] = "population"
    reduce: Literal["sum", "max"] = "sum"


@dataclass(frozen=True)
class Overlap(Value):
    """What the samples of a batch that resemble a sample have in common: with the rows R (samples, cells) of the variable `of`,

        X = (R R^T - I) R/(number of samples)

    one value per cell and sample. Following -X makes the patterns of different samples orthonormal. It needs all samples at once, so only
    the steady level has it; of a variable with one value per label, the labels take the place of the samples.
    """

    name: str
    of: str


@dataclass(frozen=True)
class Hold(Value):
    """Sample-and-hold: `name` keeps the value that `of` had in the last step of `phase` (0 before).

    `of` is a state, a subexpression, a port, an input or a pool. A phase inside `Windows` may be named
    with its number (``settle[0]``), or without it: then the value of each window is taken in turn.
    """

    name: str
    of: str
    phase: str


@dataclass(frozen=True)
class Derivative(Value):
    """`name` is the time derivative of the state `of` in the previous step, ``(x(t) - x(t-dt))/dt`` (0 before).

    Of the previous step, because with the present one a rate that looks ahead would close an algebraic loop.
    """

    name: str
    of: str


@dataclass(frozen=True)
class Cell(Value):
    """A cell type.

    Parameters
    ----------
    name
        Name of the cell type.
    equations
        Brian2 equation syntax. ``dx/dt = f : unit`` is a state, ``x = f : unit`` a subexpression, ``x : unit`` a
        port, an input or (with the flag ``(shared)``) a value set by the protocol. ``xi`` and ``xi_name`` in the
        equation of a state are white noise (unit ``second**-0.5``), independent in each cell; ``t`` is the time
        since the run began, ``t_trial`` and ``t_phase`` that since the trial and the phase began, ``dt`` the step.
        In a relation, times that differ by dt/1000 or less count as equal. Units stand in `parameters`, not in expressions; the functions are
        `neurosim.equations.FUNCTIONS`.
    ports
        Names of the receiving variables that must be fed by a projection.
    optional_ports
        Receiving variables that read 0 where nothing feeds them.
    inputs
        Variables with one value per cell and sample, set by the protocol's clamps (0 otherwise).
    rate
        The variable that a projection sends unless it names another one.
    parameters
        Constants with defaults: a number, or a text with units such as ``"10*ms"``. A population may override
        them, also with one value per cell.
    pools, holds, derivatives, overlaps
        See `Pool`, `Hold`, `Derivative` and `Overlap`.
    threshold
        A condition on states and parameters; the cell spikes in a step that ends with it fulfilled. A spiking cell has
        two further variables: ``spike_train``, sum_k delta(t - t_k), which is 1/dt in the step after a
        spike and 0 otherwise (a projection of it adds w to dg/dt's integral with each spike), and ``lastspike``, the
        time of the last spike (-10000 s before the first).
    reset
        Statements ``x = ...`` or ``x += ...`` on states, separated by ``;``, carried out with each spike.
    refractory
        Time after a spike in which the cell does not spike and states marked ``(unless refractory)`` stand still.
    initial
        Initial value of states (default 0): a text with units such as ``"-70*mV"``, a Brian2 quantity, or a bare number, which is in base
        SI units.
    """

    name: str
    equations: str
    ports: tuple[str, ...] = ()
    optional_ports: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    rate: str = "r"
    parameters: Mapping[str, Constant] = field(default_factory=dict)
    pools: tuple[Pool, ...] = ()
    holds: tuple[Hold, ...] = ()
    derivatives: tuple[Derivative, ...] = ()
    overlaps: tuple[Overlap, ...] = ()
    threshold: str = ""
    reset: str = ""
    refractory: Time = "0*ms"
    initial: Mapping[str, Constant] = field(default_factory=dict)


ONE = Cell("one", "r = 1 : 1")
"""The built-in cell of the population `one`: a constant rate of 1, the source of every bias."""

SOURCE = Cell("source", "r : 1", inputs=("r",))
"""A population whose rate is clamped to the stimulus."""
