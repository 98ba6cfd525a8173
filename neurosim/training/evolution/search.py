"""Fitness by search: each candidate's credits lead two parameters over a landscape, see `neurosim.models.tdca_search`. All of it is a reconstruction.

    seen at step t    [h_t/box, v(f_t), v(f_{t-1}), h_t - h_{t-1}]           at t = 0: f_{-1} = f_0, h_{-1} = h_0
    step              h_{t+1} = h_t - rate c                                  the circuit's own rule
    fitness           -mean over tasks of tanh f(h_T), or of ln(1 + f(h_T)) (log)

v(f) is tanh(f), or ln(1 + f)/4 for landscapes that reach far above 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from neurosim.checks import Count, In, Positive, Seed, check, checked
from neurosim.environments.landscapes import LANDSCAPES, Landscape, landscape
from neurosim.errors import NeurosimError
from neurosim.models import tdca_search
from neurosim.training.evolution.lanes import Lanes, generator

SHIFTS = ("none", "family")
SQUASH = ("tanh", "log")
TRAINING, UNSEEN = 0, 1


@dataclass(frozen=True)
class Paths:
    """Searches of P candidates, N starts, T steps: `places` (P, N, T + 1, 2) and `values` (P, N, T + 1), f at them, the start first."""

    places: Tensor
    values: Tensor


class Search:
    """The objective: how low a candidate's searches end.

    All candidates of a generation get the same starts and shifts, which follow from seed and generation.

    Parameters
    ----------
    on
        A name of `neurosim.environments.landscapes.LANDSCAPES`.
    shifts
        ``"none"``: one function, so that a candidate can store where its minimum lies. ``"family"``: each task has a shift of its own,
        U(-1, 1)^2; only this shows search.
    tasks
        Starts (and shifts) per generation.
    steps
        Steps of a search T.
    rate
        Step size.
    hidden
        Cells of each of the top-down net's two layers.
    squash
        ``"tanh"`` or ``"log"``, see above (None: tanh for the egg-box, log for the others).
    seed
        Of starts and shifts.

    Raises
    ------
    NeurosimError
        A setting that is unknown or out of range.
    """

    @checked
    def __init__(
        self, on: str = "egg_box", shifts: Annotated[str, In(SHIFTS)] = "none", tasks: Count = 64, steps: Count = 50, rate: Positive = 0.5,
        hidden: Count = 20, squash: Annotated[str, In(SQUASH)] | None = None, seed: Seed = 0, dtype: str = "float32", device: str = "cpu",
    ):  # fmt: skip
        self.landscape: Landscape = landscape(on)
        squash = ("tanh" if on == "egg_box" else "log") if squash is None else squash
        self.shifts, self.tasks, self.steps, self.squash = shifts, tasks, steps, squash
        self.seed = seed
        self.circuit = tdca_search.circuit(hidden=hidden, box=self.landscape.box, eta=rate)
        self.lanes = Lanes(self.circuit, dtype, device)
        self._arrays = self.lanes.learners.arrays

    @property
    def size(self) -> int:
        """Number of evolved weights d (602 with hidden = 20)."""
        return self.lanes.learners.size

    def first(self, seed: int = 0) -> np.ndarray:
        """Evolved weights (d,) as the circuit draws them, where an evolution starts."""
        return self.lanes.learners.theta(self.circuit.initial_weights(seed))

    def drawn(self, generation: int, tasks: int | None = None, unseen: bool = False) -> tuple[Tensor, Tensor]:
        """Starts (tasks, 2) and shifts (tasks, 2; zeros without any) of a generation, or of a test that evolution never sees."""
        source = generator(
            self._arrays.device, self.seed, UNSEEN if unseen else TRAINING, check("generation", generation, Seed)
        )
        shape = (self.tasks if tasks is None else tasks,)
        starts = self.landscape.starts(shape, source, self._arrays.dtype)
        shifts = self.landscape.shifts(shape, source, self._arrays.dtype)
        return starts, shifts if self.shifts == "family" else torch.zeros_like(shifts)

    def __call__(self, candidates: Tensor, generation: int) -> Tensor:
        """The fitness (P,) of candidates (P, d); autograd goes through the searches."""
        last = self.paths(candidates, *self.drawn(generation), keep=False).values[..., -1]
        # Bounded: by the mean of f itself a few searches that end far away outweigh those that find the minimum.
        return -(last.tanh() if self.squash == "tanh" else last.log1p()).double().mean(-1).cpu()

    def paths(self, candidates: Any, starts: Tensor, shifts: Tensor | None = None, keep: bool = True) -> Paths:
        """Searches of candidates (P, d) from starts (N, 2), on landscapes with shifts (N, 2).

        `keep`: all places; else those of the end alone, (P, N, 1, 2).
        """
        evolved = self.lanes.evolved(candidates)
        if starts.dim() != 2 or starts.shape[1] != 2:
            raise NeurosimError(f"The starts have shape {tuple(starts.shape)}; wanted (starts, 2).")
        population, box = len(candidates), self.landscape.box
        place = starts.to(self._arrays.device, self._arrays.dtype).expand(population, -1, -1)
        weights = {"W": place[:, :, None, :]}
        value = self._value(place, shifts)
        before, move = value, torch.zeros_like(place)
        places, values = [place], [value]
        for _ in range(self.steps):
            seen = torch.cat([place / box, self._seen(value)[..., None], self._seen(before)[..., None], move], -1)
            _, weights = self.lanes(weights, evolved, {"image": seen[:, :, None, :]})
            new = weights["W"][:, :, 0, :]
            before, move, place = value, new - place, new
            value = self._value(place, shifts)
            if keep:
                places.append(place)
                values.append(value)
        if not keep:
            places, values = [place], [value]
        return Paths(torch.stack(places, -2), torch.stack(values, -1))

    def _value(self, place: Tensor, shifts: Tensor | None) -> Tensor:
        # A valley's bottom may come out a rounding below its minimum, where the logarithm would have no value.
        return (self.landscape.value(place, shifts) - self.landscape.minimum).clamp_min(0.0)

    def _seen(self, value: Tensor) -> Tensor:
        return value.tanh() if self.squash == "tanh" else value.log1p() / 4


@torch.no_grad()
def evaluate(search: Search, theta: Any, tasks: int = 2000, seed: int = 0) -> dict[str, Any]:
    """Searches from unseen starts (and shifts) under one theta (d,).

    Returns
    -------
    ``{"success": share of ends below the landscape's threshold, "mean": mean f of the ends, "median": ..., "best": share of searches that were below the
    threshold at any step, "tasks": number}``.
    """
    check("tasks", tasks, Count)
    found = search.paths(torch.as_tensor(theta)[None], *search.drawn(seed, tasks, unseen=True))
    return scores(found.values[0], search.landscape) | {"tasks": tasks}


def scores(values: Tensor, on: Landscape) -> dict[str, float]:
    """Of values (N, T + 1) of f along searches, see `evaluate`."""
    end = values[:, -1].double()
    return {
        "success": float((end < on.threshold).double().mean()),
        "mean": float(end.mean()),
        "median": float(end.median()),
        "best": float((values < on.threshold).any(-1).double().mean()),
    }


__all__ = ["LANDSCAPES", "Paths", "Search", "evaluate", "scores"]
