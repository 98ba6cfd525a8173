"""The cell type: equations as text, ports, rate, parameters, pools and holds.

Part of the description: plain data, no engine. See ``docs/circuits.md`` for the language.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Pool:
    """Fast pool: the sum of `expression` over a population, one number per sample.

    ``pool(s) = sum_j expression_j(s)`` for sample s. It has the unit of the expression.
    """

    name: str
    expression: str


@dataclass(frozen=True)
class Hold:
    """Sample-and-hold: `name` keeps the value that `of` had in the last step of `phase` (0 before)."""

    name: str
    of: str
    phase: str


@dataclass(frozen=True)
class Cell:
    """A cell type.

    Parameters
    ----------
    name
        Name of the cell type.
    equations
        Brian2 equation syntax. ``dx/dt = f : unit`` is a state, ``x = f : unit`` a subexpression, ``x : unit`` a
        port, an input or (with the flag ``(shared)``) a value set by the protocol.
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
    pools, holds
        See `Pool` and `Hold`.
    initial
        Initial value of states (default 0), in base SI units.
    """

    name: str
    equations: str
    ports: tuple[str, ...] = ()
    optional_ports: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    rate: str = "r"
    parameters: Mapping[str, float | str] = field(default_factory=dict)
    pools: tuple[Pool, ...] = ()
    holds: tuple[Hold, ...] = ()
    initial: Mapping[str, float] = field(default_factory=dict)


ONE = Cell("one", "r = 1 : 1")
"""The built-in cell of the population `one`: a constant rate of 1, the source of every bias."""

SOURCE = Cell("source", "r : 1", inputs=("r",))
"""A population whose rate is clamped to the stimulus."""
