"""A phase of a trial with everything resolved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from neurosim.description import Loop
from neurosim.equations import Hold
from neurosim.errors import NeurosimError

#: A gate that is open in the last step of a phase.
ONE_STEP = "dt"
#: How long before a phase's end a projection becomes plastic: seconds, or `ONE_STEP`.
Gate = float | str
#: Steps of a phase; the fastest circuit takes hours for as many.
MOST_STEPS = 2**31 - 1


@dataclass(frozen=True)
class Turn:
    """Which turn of a loop a phase belongs to."""

    loop: Loop
    index: int
    count: int
    classes: int  # 0 of a loop without classes


@dataclass(frozen=True)
class PhasePlan:
    """One phase with everything resolved, or a stretch of it in which the same rules are on (see `stretches`)."""

    name: str
    seconds: float
    shared: dict[str, float]
    clamps: dict[tuple[str, str], str]
    plastic: tuple[str, ...]  # projections
    holds: tuple[tuple[str, Hold], ...]  # (population, hold) taken at this phase's end
    sign: int = 1  # of the random signs
    turn: Turn | None = None
    gates: Mapping[str, Gate] = field(default_factory=dict)  # of projections that are plastic in the phase's end only
    dt: float = 0.0  # the protocol's step (s), which is as long as the gate ONE_STEP
    number: int = 0  # among the phases of a trial
    first: bool = True  # of a stretch: whether the phase begins with it
    last: bool = True  # whether the phase ends with it

    def open_for(self, projection: str) -> float:
        """How long (s) a projection is plastic in this phase."""
        gate = self.gates.get(projection, self.seconds)
        return self.dt if gate == ONE_STEP else float(gate)

    def stretches(self) -> tuple[PhasePlan, ...]:
        """The phase cut where a gate opens: each stretch knows which projections are plastic throughout it."""
        if not self.gates:
            return (self,)
        opens = {n: self.open_for(n) for n in self.plastic}
        edges = sorted({self.seconds, *opens.values()}, reverse=True)
        return tuple(
            replace(
                self,
                seconds=start - stop,
                plastic=tuple(n for n in self.plastic if opens[n] >= start),
                holds=self.holds if stop == 0.0 else (),
                gates={},
                first=start == self.seconds,
                last=stop == 0.0,
            )
            for start, stop in zip(edges, (*edges[1:], 0.0), strict=True)
        )

    def steps(self, dt: float) -> list[int]:
        """The number of steps of each stretch.

        Raises
        ------
        NeurosimError
            A phase or a gate that is no whole number of steps, or too many of them.
        """
        whole = _whole(self.seconds, dt, f"The phase '{self.name}'")
        gates = {
            1 if gate == ONE_STEP else _whole(float(gate), dt, f"A gate of the phase '{self.name}'")
            for gate in self.gates.values()
        }
        if any(gate > whole for gate in gates):
            raise NeurosimError(
                f"The phase '{self.name}' has {whole} steps of dt = {dt * 1e3:g} ms, fewer than its gate."
            )
        edges = sorted({whole, *gates}, reverse=True)
        return [start - stop for start, stop in zip(edges, (*edges[1:], 0), strict=True)]

    @property
    def base(self) -> str:
        """The name without the number of a turn."""
        return self.name.rpartition("[")[0] if self.turn is not None else self.name

    def fields(self, fields: Mapping[str, Any], seed: int, trial: int) -> Mapping[str, Any]:
        """The fields that a phase's clamps may name: those of the stimuli (arrays of any library), and in a turn of a loop the loop's.

        Random fields of a trial follow from the seed and the trial's number alone.
        """
        turn = self.turn
        if turn is None or not {*self.clamps.values()} & {*turn.loop.names}:
            return fields
        target = fields.get("target")
        own = target.cpu().numpy() if hasattr(target, "cpu") else target  # type: ignore[union-attr]
        rows = turn.loop.fields(turn.index, own, np.random.default_rng([seed, 6, trial]))
        like = next(iter(fields.values()))
        return {**fields, **{n: like.new_tensor(v) if hasattr(like, "new_tensor") else v for n, v in rows.items()}}


def _whole(seconds: float, dt: float, what: str) -> int:
    """The number of steps of a time."""
    exact = seconds / dt
    lasts = f"{what} lasts {seconds * 1e3:g} ms"
    if exact > MOST_STEPS:
        raise NeurosimError(
            f"{lasts}, which is {exact:.3g} steps of dt = {dt * 1e3:g} ms; wanted at most {MOST_STEPS:.3g}: a larger "
            "dt, or a shorter phase."
        )
    if abs(exact - round(exact)) > 1e-6 * max(exact, 1) or round(exact) < 1:
        raise NeurosimError(
            f"{lasts}, which is no whole number of steps of dt = {dt * 1e3:g} ms; choose a dt that divides it."
        )
    return round(exact)
