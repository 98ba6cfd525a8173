"""A phase of a trial with everything resolved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from neurosim.description import WINDOW_FIELDS
from neurosim.equations import Hold
from neurosim.errors import NeurosimError

#: A gate that is open in the last step of a phase.
ONE_STEP = "dt"
#: How long before a phase's end a projection becomes plastic: seconds, or `ONE_STEP`.
Gate = float | str
#: Steps of a phase; the fastest circuit takes hours for as many.
MOST_STEPS = 2**31 - 1


@dataclass(frozen=True)
class Window:
    """Which of a trial's windows a phase belongs to, and what labels they show (see `Windows`)."""

    index: int
    count: int
    labels: str
    classes: int


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
    window: Window | None = None
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
        """The name without the number of a window."""
        return self.name.rpartition("[")[0] if self.window is not None else self.name

    def fields(self, fields: Mapping[str, Any], seed: int, trial: int) -> Mapping[str, Any]:
        """The fields that a phase's clamps may name: those of the stimuli (arrays of any library), and in a window those of `Windows`.

        The wrong labels of a trial follow from the seed and the trial's number alone.
        """
        window = self.window
        if window is None or not {*self.clamps.values()} & {*WINDOW_FIELDS}:
            return fields
        target = fields["target"]
        own = np.argmax(target.cpu().numpy() if hasattr(target, "cpu") else target, axis=1)
        shown = np.full(len(own), window.index)
        multiplicity = 1.0
        if window.labels != "all":
            shown = own
        if window.labels == "true_and_random" and window.index == 1:
            shift = np.random.default_rng([seed, 6, trial]).integers(1, window.classes, len(own))
            shown, multiplicity = (own + shift) % window.classes, window.classes - 1.0
        rows = {
            "label": np.eye(window.classes)[shown],
            "same": (shown == own).astype(float)[:, None],
            "multiplicity": np.full((len(own), 1), multiplicity),
        }
        if hasattr(target, "new_tensor"):
            rows = {name: target.new_tensor(value) for name, value in rows.items()}
        return {**fields, **rows}


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
