"""The cell type: everything that one cell does, in its text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from neurosim.checks import Constant, Time
from neurosim.description.value import Value


@dataclass(frozen=True)
class Cell(Value):
    """A cell type: its equations as text, in Brian2's syntax, one line per variable.

    ::

        Cell("pyramidal", '''
            du/dt  = (-u + a + E)/tau    : 1            # a state
            a      = I_ff + I_bias       : 1            # a subexpression
            r      = 1/(1 + exp(-u))     : 1
            E      = kappa*(I_fb - I_gh) : 1
            power  = pool(r**2)          : 1            # the sum over the population
            E_free = hold(E, free)       : 1            # its value in the last step of phase `free`
            u_dot  = derivative(u)       : 1/second     # of the previous step
            I_ff   : 1 (port)                           # a projection feeds it
            I_bias : 1 (optional port)                  # 0 where nothing feeds it
            I_fb   : 1 (optional port)
            I_gh   : 1 (optional port)
            y      : 1 (input)                          # a clamp sets it, 0 otherwise
            beta   : 1 (shared)                         # one number per phase, from the protocol
            ''', {"tau": "10*ms", "kappa": 1.0})

    In an equation, ``xi`` and ``xi_name`` are white noise (unit ``second**-0.5``), independent in each cell; ``t`` is the
    time since the run began, ``t_trial`` and ``t_phase`` that since the trial and the phase began, ``dt`` the step. In
    a relation, times that differ by dt/1000 or less count as equal. Units stand in `parameters`, not in equations; the
    functions are `neurosim.equations.FUNCTIONS`.

    Four words gather values; each is the whole right-hand side of its line:

    * ``pool(x)`` is the sum of x over the population, in the same step: ``sum_j x_j``. ``pool(x, map)`` sums over each
      map of a population of maps, ``pool(x, batch)`` over each map and takes the mean over the samples of the batch.
      ``pool_max(x)`` and ``pool_max(x, map)`` are the largest value: a softmax that does not overflow is
      ``top = pool_max(u)``, ``total = pool(exp(u - top))``, ``r = exp(u - top)/total``.
    * ``overlap(r)`` is what the samples of a batch that resemble a sample have in common: with the rows R (samples x
      cells) of r, ``X = (R R^T - I) R/(number of samples)``. Following -X makes the patterns of different samples
      orthonormal. Only the steady level has all samples at once.
    * ``hold(x, phase)`` keeps the value of x in the last step of the phase, 0 before. A phase inside a loop may be
      named with its pass (``settle[0]``); without it, the value of each pass is taken in turn.
    * ``derivative(u)`` is the time derivative of a state in the previous step, ``(u(t) - u(t-dt))/dt``, 0 before.

    Parameters
    ----------
    name
        Name of the cell type.
    equations
        The text.
    parameters
        Constants with defaults: a number, or a text with units such as ``"10*ms"``. A population may override
        them, also with one value per cell.
    rate
        The variable that a projection sends unless it names another one.
    threshold
        A condition on states and parameters; the cell spikes in a step that ends with it fulfilled. A spiking cell has
        two further variables: ``spike_train``, sum_k delta(t - t_k), which is 1/dt in the step after a spike and 0
        otherwise (a projection of it adds w to dg/dt's integral with each spike), and ``lastspike``, the time of the
        last spike (-10000 s before the first).
    reset
        Statements ``x = ...`` or ``x += ...`` on states, separated by ``;``, carried out with each spike.
    refractory
        Time after a spike in which the cell does not spike and states marked ``(unless refractory)`` stand still.
    initial
        Initial value of states (default 0): a text with units such as ``"-70*mV"``, a Brian2 quantity, or a bare
        number, which is in base SI units.
    """

    former: ClassVar[Mapping[str, str]] = {
        "ports": "mark the line in the equations, 'I : 1 (port)'.",
        "optional_ports": "mark the line in the equations, 'I : 1 (optional port)'.",
        "inputs": "mark the line in the equations, 'y : 1 (input)'.",
        "pools": "write a line in the equations, 'total = pool(r) : 1'.",
        "holds": "write a line in the equations, 'E_free = hold(E, free) : 1'.",
        "derivatives": "write a line in the equations, 'u_dot = derivative(u) : 1/second'.",
        "overlaps": "write a line in the equations, 'crowd = overlap(r) : 1'.",
    }

    name: str
    equations: str
    parameters: Mapping[str, Constant] = field(default_factory=dict)
    rate: str = "r"
    threshold: str = ""
    reset: str = ""
    refractory: Time = "0*ms"
    initial: Mapping[str, Constant] = field(default_factory=dict)


ONE = Cell("one", "r = 1 : 1")
"""The built-in cell of the population `one`: a constant rate of 1, the source of every bias."""

SOURCE = Cell("source", "r : 1 (input)")
"""A population whose rate is clamped to the stimulus."""
