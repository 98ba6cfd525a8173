"""What to record of a run, and where to."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from neurosim.errors import NeurosimError, check_list, suggest, unknown

if TYPE_CHECKING:
    from neurosim.plan import Plan


@dataclass(frozen=True)
class Recorder:
    """Which variables of which cells are recorded, how often, and where to.

    Parameters
    ----------
    variables
        Names such as ``"pyr1.u"``: states, subexpressions and ports of a population. A projection's
        name, such as ``"W1"``, records its weights at the start of each recorded trial and at the
        end of the run.
    cells
        ``{population: numbers of cells}`` whose variables are recorded (default: all cells). Spikes
        are chosen by `spikes`.
    stride
        Record every `stride`-th Euler step, counted from the start of the run. The steady level has
        one row per phase, at its end.
    phases
        Names of phases (default: all); ``settle`` names all windows of ``settle[0]``,
        ``settle[1]``, ...
    trials
        Record every `trials`-th trial, a trial being one presentation of a batch of samples.
    spikes
        ``{population: numbers of cells}`` whose spikes are kept, ``[]`` for none (default: all
        spikes of all spiking populations). `cells`, `stride`, `phases` and `trials` choose rows of
        variables and leave the spikes as they are.
    path
        HDF5 file that rows are streamed to while the run goes on, readable at any moment with
        `Traces.load` (None: memory). It replaces a file that is there.

    Raises
    ------
    NeurosimError
        Nothing to record, a stride or number of trials below 1; an unknown variable, cell or phase
        (when a run begins).
    """

    variables: Sequence[str] = ()
    cells: Mapping[str, Sequence[int]] = field(default_factory=dict)
    stride: int = 1
    phases: Sequence[str] = ()
    trials: int = 1
    path: str | os.PathLike[str] | None = None
    spikes: Mapping[str, Sequence[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for what in ("variables", "phases"):
            names = getattr(self, what)
            check_list(what, names)
            listed = isinstance(names, Collection) and getattr(names, "ndim", 1) == 1
            if not listed or not all(isinstance(name, str) for name in names):
                raise NeurosimError(f"{what} = {names!r}; wanted a list of names.")
        for what in ("stride", "trials"):
            value = getattr(self, what)
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
                raise NeurosimError(f"{what} = {value!r}; wanted a whole number of at least 1.")
        for what in ("cells", "spikes"):
            value = getattr(self, what)
            if not isinstance(value, Mapping):
                raise NeurosimError(
                    f"{what} = {value!r}; wanted a table of populations: {{'pyr1': [0, 1]}}.",
                )

    def resolve(self, plan: Plan) -> Resolved:
        """What it records of a circuit.

        Raises
        ------
        NeurosimError
            Nothing to record, an unknown variable, projection, population, cell or phase.
        """
        variables, projections = _names(self, plan)
        spiking = {p.name: p.n for p in plan.populations.values() if p.spiking}
        if not variables and not projections and not spiking:
            raise NeurosimError(
                "There is nothing to record: name variables such as 'population.variable', or "
                "projections; `neurosim describe` lists them."
            )
        recorded = dict.fromkeys(p for p, _ in variables)
        for population in self.cells:
            if population in spiking and population not in recorded:
                raise NeurosimError(
                    f"cells names '{population}', of which no variable is recorded; its spikes are "
                    f"chosen by spikes={{'{population}': {list(self.cells[population])}}}."
                )
        chosen = _numbers("spikes", self.spikes, plan, spiking, least=0)
        kept = {name: chosen.get(name, np.arange(n)) for name, n in spiking.items()}
        cells = _numbers("cells", self.cells, plan, recorded, least=1)
        return Resolved(variables, projections, cells, _phases(self, plan), kept)


class Resolved(NamedTuple):
    """A recorder's names, found in a circuit."""

    variables: list[tuple[str, str]]  # population and name
    projections: list[str]
    cells: dict[str, np.ndarray]
    phases: set[str] | None  # None: all
    spikes: dict[str, np.ndarray]  # cells of each spiking population


def _names(recorder: Recorder, plan: Plan) -> tuple[list[tuple[str, str]], list[str]]:
    """Variables and projections, in the order in which they are named, each once."""
    variables, projections = [], []
    for name in dict.fromkeys(recorder.variables):
        if "." in name:
            variables.append(plan.variable(name))
        elif name not in plan.projections:
            raise _no_projection(name, plan)
        elif (root := plan.projections[name].root) != name:
            raise NeurosimError(
                f"The weights of '{name}' are tied to those of '{root}'; record those.",
            )
        else:
            projections.append(name)
    return variables, projections


def _no_projection(name: str, plan: Plan) -> NeurosimError:
    named = [f"{p.name}.{name}" for p in plan.populations.values() if name in p.variables]
    if name in plan.populations:
        named += [f"{name}.{v}" for v in plan.populations[name].variables]
    hint = suggest(name, plan.projections)
    if named:
        hint = f" Or the variable {', '.join(named[:4])}?"
    return NeurosimError(
        f"There is no projection '{name}' whose weights could be recorded.{hint} Projections: "
        f"{', '.join(plan.projections)}; variables are named 'population.variable'."
    )


def _numbers(
    what: str, given: Mapping[str, Sequence[int]], plan: Plan, known: Iterable[str], least: int
) -> dict[str, np.ndarray]:  # fmt: skip
    """Numbers of cells by population, checked; at `least` so many of each."""
    found = {}
    for population, cells in given.items():
        if population not in known:
            kind = "recorded population" if what == "cells" else "spiking population"
            raise unknown(kind, population, known)
        name = f"{what} of '{population}'"
        found[population] = _chosen(name, cells, plan.populations[population].n, least)
    return found


def _chosen(name: str, cells: Sequence[int], n: int, least: int) -> np.ndarray:
    """Different numbers of cells, each below `n`; at `least` so many."""
    try:
        chosen = np.asarray(cells)
    except ValueError:  # lists of several lengths
        chosen = np.empty(())
    if chosen.ndim != 1 or len(chosen) < least:
        some = " of at least one number" if least else " of numbers"
        raise NeurosimError(f"{name} = {cells!r}; wanted a list{some}.")
    if not len(chosen):
        return np.empty(0, dtype=np.int64)
    if not np.issubdtype(chosen.dtype, np.integer) or chosen.min() < 0 or chosen.max() >= n:
        raise NeurosimError(f"{name} = {chosen.tolist()}; wanted whole numbers from 0 to {n - 1}.")
    if len(np.unique(chosen)) < len(chosen):
        raise NeurosimError(f"{name} = {chosen.tolist()}: one is named twice.")
    return chosen


def _phases(recorder: Recorder, plan: Plan) -> set[str] | None:
    if not recorder.phases:
        return None
    names = {phase.name: phase.base for phase in plan.phases}
    for phase in recorder.phases:
        if phase not in names and phase not in names.values():
            raise unknown("phase", phase, dict.fromkeys([*names.values(), *names]))
    chosen = set(recorder.phases)
    return {name for name, base in names.items() if name in chosen or base in chosen}
