"""A phase of a trial with everything resolved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from neurosim.description import WINDOW_FIELDS
from neurosim.equations import Hold


@dataclass(frozen=True)
class Window:
    """Which of a trial's windows a phase belongs to, and what labels they show (see `Windows`)."""

    index: int
    count: int
    labels: str
    classes: int


@dataclass(frozen=True)
class PhasePlan:
    """One phase with everything resolved."""

    name: str
    seconds: float
    shared: dict[str, float]
    clamps: dict[tuple[str, str], str]
    plastic: tuple[str, ...]  # projections
    holds: tuple[tuple[str, Hold], ...]  # (population, hold) taken at this phase's end
    sign: int = 1  # of the random signs
    window: Window | None = None

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
