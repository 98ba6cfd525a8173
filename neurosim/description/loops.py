"""Phases repeated over an index."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Self

import numpy as np

from neurosim.description.phase import Phase
from neurosim.description.value import Value


class Loop(Value, ABC):
    """Phases that a trial repeats, each turn with fields of its own.

    The turns follow one another in time, states going on; phase ``settle`` of turn k is called ``settle[k]``, and
    ``hold(x, settle)`` keeps this turn's value. A loop of one's own is a frozen dataclass with the fields `phases` and
    `clamps` that says its `count`, its `names` and their `fields`, and its `text`; `Windows` is an example.
    """

    phases: tuple[Phase, ...]
    clamps: Mapping[str, str]

    #: Fields that clamps may name inside the loop, beside those of the stimulus.
    names: ClassVar[tuple[str, ...]] = ()
    #: Fields, of the stimulus or the loop, whose length is the number of classes; none where the loop has no classes.
    sized_by: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def count(self, classes: int) -> int:
        """How many turns a trial has."""

    @abstractmethod
    def fields(self, index: int, target: np.ndarray | None, rng: np.random.Generator) -> Mapping[str, np.ndarray]:
        """The fields of a turn, each (samples, values).

        Parameters
        ----------
        index
            The turn, from 0.
        target
            The stimulus's field `target` (samples, classes), None where nothing is clamped to it.
        rng
            Random numbers of the trial: the same ones in each of its turns.
        """

    @abstractmethod
    def text(self, classes: int) -> str:
        """What the turns are, in words: ``one window for each of the 10 labels``."""

    @property
    def at_once(self) -> bool:
        """Whether `torch:steady` may run all turns at once, as rows of an axis beside that of the samples."""
        return False

    @property
    def draws(self) -> bool:
        """Whether the fields are random."""
        return False

    def answering(self) -> Self:
        """The loop for trials whose answer alone is of interest."""
        return self


def answering(phases: tuple[Phase | Loop, ...]) -> tuple[Phase | Loop, ...]:
    """The phases of a protocol for trials whose answer alone is of interest."""
    return tuple(item.answering() if isinstance(item, Loop) else item for item in phases)
