"""Trials of candidates times tasks at once: each candidate's evolved weights are shared by its tasks, each task has a learner of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from neurosim.circuit import Circuit
from neurosim.training.evolution.lifetime import Learners, Weights


class Lanes:
    """A circuit's trial for P candidates with M learners each; tensors begin with (P, M).

    Parameters
    ----------
    circuit, dtype, device
        As of `Learners`.
    """

    def __init__(self, circuit: Circuit, dtype: str = "float32", device: str = "cpu"):
        self.learners = Learners(circuit, dtype, device)
        self._batched: dict[Any, Callable[..., Any]] = {}

    def evolved(self, candidates: Any) -> Weights:
        """Evolved weights (P, ...) of vectors (P, size)."""
        arrays = self.learners.arrays
        return self.learners.stacked(torch.as_tensor(candidates, device=arrays.device).to(arrays.dtype))

    def born(self, seeds: Sequence[int], candidates: int) -> Weights:
        """Weights (P, M, ...) of newborn learners, one per seed, the same for all candidates."""
        found = self.learners.born(seeds)
        return {n: w.expand(candidates, *w.shape).clone() for n, w in found.items()}

    def __call__(
        self, weights: Weights, evolved: Weights, stimuli: Mapping[str, torch.Tensor], wanted: Sequence[str] = (), learn: bool = True
    ) -> tuple[dict[str, torch.Tensor], Weights]:  # fmt: skip
        """One trial: variables (P, M, samples, cells) and weights (P, M, ...) after it, within the bounds of their rules.

        Parameters
        ----------
        weights, evolved
            As `born` and `evolved` give them.
        stimuli
            ``{field: (P, M, samples, values)}``.
        wanted
            Variables to give back.
        learn
            Whether the weights change.
        """
        key = (tuple(wanted), learn)
        if key not in self._batched:
            learners = self.learners

            def trial(own: Weights, theirs: Weights, shown: Weights) -> Any:
                fixed = {n: w for n, w in learners.fixed.items() if n not in own}
                return learners.trial({**fixed, **own, **theirs}, shown, wanted, learn)

            self._batched[key] = torch.func.vmap(torch.func.vmap(trial, in_dims=(0, None, 0)), in_dims=(0, 0, 0))
        found, changes = self._batched[key](weights, evolved, dict(stimuli))
        after = dict(weights)
        for name, change in changes.items():
            after[name] = weights[name] + change
            if name in self.learners.bounds:
                after[name] = after[name].clamp(*self.learners.bounds[name])
        return found, after


def generator(device: torch.device | str, *key: int) -> torch.Generator:
    """Random numbers that are a function of these whole numbers of at least 0."""
    seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)
    return torch.Generator(device).manual_seed(seed)
