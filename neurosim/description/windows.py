"""Windows: phases repeated over class labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, Self

import numpy as np

from neurosim.description.loops import Loop
from neurosim.description.phase import Phase

#: Which labels the windows of a trial show.
LABELS = ("all", "true_and_random", "true")
#: Fields that a clamp may name inside `Windows`, beside those of the stimulus.
WINDOW_FIELDS = ("label", "same", "multiplicity")


@dataclass(frozen=True)
class Windows(Loop):
    """Phases repeated over class labels: one window of a trial shows one label to each sample.

    Inside, clamps may name three further fields: ``label``, the window's label, one-hot (classes,); ``same``, 1 where it is the sample's own
    class and 0 elsewhere, one number per sample; ``multiplicity``, for how many classes the window stands (one number per sample). On the
    steady level windows of all labels are run at once, as rows of an axis of their own, where the circuit allows it (windows are the whole
    trial, rules collect their changes until its end, nothing is held from one to the next); each then starts from the initial states, so
    that a circuit with several fixed points may settle at another one than in time.

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

    names: ClassVar[tuple[str, ...]] = WINDOW_FIELDS
    sized_by: ClassVar[tuple[str, ...]] = ("label", "target")

    def count(self, classes: int) -> int:
        return {"all": classes, "true_and_random": 2, "true": 1}[self.labels]

    def fields(self, index: int, target: np.ndarray | None, rng: np.random.Generator) -> Mapping[str, np.ndarray]:
        assert target is not None
        own, classes = np.argmax(target, axis=1), target.shape[1]
        shown, multiplicity = np.full(len(own), index), 1.0
        if self.labels != "all":
            shown = own
        if self.labels == "true_and_random" and index == 1:
            shown, multiplicity = (own + rng.integers(1, classes, len(own))) % classes, classes - 1.0
        return {
            "label": np.eye(classes)[shown],
            "same": (shown == own).astype(float)[:, None],
            "multiplicity": np.full((len(own), 1), multiplicity),
        }

    def text(self, classes: int) -> str:
        return {
            "all": f"one window for each of the {classes} labels",
            "true_and_random": f"two windows: the sample's own label, then a wrong one drawn anew in each trial (of {classes})",
            "true": f"one window: the sample's own label (of {classes})",
        }[self.labels]

    @property
    def at_once(self) -> bool:
        return self.labels == "all"

    @property
    def draws(self) -> bool:
        return self.labels == "true_and_random"

    def answering(self) -> Self:
        return replace(self, labels="true")
