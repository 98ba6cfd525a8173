"""Phases repeated over an index."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from neurosim.description.phase import Phase
from neurosim.description.value import Value

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
