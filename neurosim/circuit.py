"""Populations and the circuit. Plain data; `Circuit` checks itself when it is built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np

from neurosim.cells import ONE, Cell
from neurosim.checks import Constant, Count, Cure, Positive
from neurosim.connectivity import Projection
from neurosim.errors import unknown
from neurosim.immutable import Value
from neurosim.protocol import Protocol, Relaxation


@dataclass(frozen=True)
class Population(Value):
    """`n` cells of one type, or maps of cells: `n` = (maps, height, width), stored flat in this order.

    `parameters` overrides the cell's defaults, in the same units; a value may hold one number per cell
    (an array, a Brian2 quantity such as ``np.linspace(0, 500, n)*pA``, or a list such as ``["-70*mV", "-60*mV"]``)."""

    name: str
    n: Count | tuple[Count, Count, Count]
    cell: Cell
    parameters: Mapping[str, Constant] = field(default_factory=dict)


@dataclass(frozen=True)
class Readout(Value):
    """Where the answer is read: ``population.variable`` at the end of `phase`.

    The answer to ``target`` is a class, the largest of the variable's values; that to ``image`` is a picture, read as it is. The loss
    that training reports is, per sample, ``"squared"`` 1/2 |answer - wanted|^2, ``"cross_entropy"`` -sum wanted ln(answer), for answers that
    are probabilities, or ``"mean_squared"``, the mean over cells of (answer - wanted)^2.
    """

    variable: str
    phase: str
    wanted: Literal["target", "image"] = "target"
    loss: Literal["squared", "cross_entropy", "mean_squared"] = "squared"


@dataclass(frozen=True)
class FeedForward(Value):
    """The feed-forward net that a circuit's update is compared with.

    ``a_l = r_{l-1} W_l + b_l``, ``r_l = transfer_l(a_l)``. The loss C, averaged over samples, is given by its gradient at the
    output, ``dC/dr_L = -error``; by default ``C = 1/2 |target - r_L|^2``.

    Parameters
    ----------
    weights, biases
        Names of projections from the input up; no biases: (), none of one layer: "" in its place (or the list ends early). Weights of a
        `Conv2d` take a `PerMap` bias and make ``pool(conv(upsample(r)) + b)``; the transfer is applied after the pool.
    transfer
        Brian2 text in ``u`` (which stands for a), one for all layers or one per layer.
    error
        Brian2 text in ``target``, ``r`` and ``u`` of the output layer.
    loss
        ``"cross_entropy"``: ``r_L = softmax(u)``, ``C = -sum target ln(r_L)``, ``dC/du = r_L - target``; the last transfer and `error`
        are then not read.
    """

    weights: tuple[str, ...]
    biases: tuple[str, ...]
    transfer: str | tuple[str, ...]
    error: str = "target - r"
    loss: Literal["given_by_error", "cross_entropy"] = "given_by_error"

    @property
    def transfers(self) -> tuple[str, ...]:
        """The transfer function of each layer."""
        return (self.transfer,) * len(self.weights) if isinstance(self.transfer, str) else self.transfer


@dataclass(frozen=True)
class Ratio(Value):
    """A measure of a circuit: rms of the variables `of` over rms of the variables `to`, at the end of `phase`.

    Training stops where it passes `limit` (None: no limit), and says `cure`.
    """

    of: tuple[str, ...]
    to: tuple[str, ...]
    phase: str
    limit: Positive | None = None
    cure: str = ""


@dataclass(frozen=True)
class Silent(Value):
    """A measure of a circuit: the number of cells of `population.variable` that are 0 for every sample, at the end of `phase`.

    Where there are any at the end of a training, a warning says `cure`.
    """

    variable: str
    phase: str
    cure: str


@dataclass(frozen=True)
class Angle(Value):
    """A measure of weights: the angle (degrees) between the weights of one projection and those of `to`, transposed.

    ``arccos(<A, B^T>/(|A| |B|))`` with the Frobenius norm, A (n_pre, n_post) and B (n_post, n_pre).
    """

    of: str
    to: str


@dataclass(frozen=True)
class SmallestEigenvalue(Value):
    """A measure of weights: the smallest eigenvalue of the symmetric part of a projection's square weights (n, n).

    Where it falls below -1e-4 times the largest, they are no longer positive definite: training stops, and says `cure`.
    """

    of: str
    cure: str


Measure = Ratio | Silent | Angle | SmallestEigenvalue


@dataclass(frozen=True)
class Circuit(Value):
    """Populations, projections and a protocol, checked as a whole.

    Parameters
    ----------
    name
        Name of the circuit.
    populations, projections, protocol
        The description. A population `one` (one cell, rate 1) is added when a projection names it.
    readout
        Where the answer is read, for circuits that classify.
    reference
        The feed-forward net whose gradient the update is compared with, if there is one.
    measures
        Named measures that training reports, such as what is left of a cancelled feedback: `Ratio`, `Silent`, `Angle`,
        `SmallestEigenvalue`.
    relaxation
        A published scheme of approaching the fixed point, if the circuit has one; see `Relaxation`.
    evolved
        Names of projections whose weights an outer loop finds (`neurosim evolve`) and that stand still during a life.
    citation
        Source of the model, and what in it is reconstruction; the BibTeX entries of its papers may follow, which reports cite.

    Raises
    ------
    CircuitError
        An unknown or reserved name, a unit mismatch, an unfed port, an algebraic loop. The message names the
        population, the equation and the cure.
    """

    name: str
    populations: tuple[Population, ...]
    projections: tuple[Projection, ...]
    protocol: Protocol
    readout: Readout | None = None
    reference: FeedForward | None = None
    measures: Mapping[str, Measure] = field(default_factory=dict)
    relaxation: Relaxation | None = None
    evolved: tuple[str, ...] = ()
    citation: str = ""

    def __post_init__(self) -> None:
        from neurosim.plan import Plan  # the plan reads the description, so it cannot be imported above

        Value.__post_init__(self)
        names = [p.name for p in self.populations]
        if "one" not in names and any(p.source_population == "one" for p in self.projections):
            object.__setattr__(self, "populations", (Population("one", 1, ONE), *self.populations))
        object.__setattr__(self, "plan", Plan(self))

    plan: Any = field(init=False, repr=False, compare=False, default=None)

    @cached_property
    def _by_name(self) -> dict[str, Population]:
        return {p.name: p for p in self.populations}

    def population(self, name: str) -> Population:
        """The population of that name."""
        if name not in self._by_name:
            raise unknown("population", name, self._by_name)
        return self._by_name[name]

    def initial_weights(self, seed: int = 0) -> dict[str, np.ndarray]:
        """Draw the weights of every projection that has its own, from one seed.

        Each projection has a random stream of its own (seed and name), so adding a projection leaves the others'
        weights as they were. Shapes: Dense (n_pre, n_post), OneToOne (n,).
        """
        return self.plan.initial_weights(seed)


#: An argument that is a circuit.
GivenCircuit = Annotated[
    Circuit, Cure("Build one: neurosim.models.ghost_units.circuit(), or registry.model(NAME).circuit().")
]
