"""Fitness by classification: each candidate teaches a newborn learner for one life."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge

from neurosim.checks import Count, In, Seed, checked
from neurosim.data.dataset import Dataset
from neurosim.errors import NeurosimError
from neurosim.stimuli import stimulus_fields
from neurosim.training.evolution.lifetime import Learners, Life, Weights, accuracy, loss

#: Seeds of the learners that evaluate; evolution draws its own from a far larger range.
UNSEEN = tuple(range(10_000, 10_010))
#: Samples at once where accuracies are read.
READ = 2048
FITNESS = ("last", "mean")


class Classification:
    """The objective: minus the loss on what a learner learns from, the mean over tasks.

    All candidates of a generation teach equal learners on the same samples.

    Parameters
    ----------
    learners
        The circuit whose readout is to classify.
    dataset
        Training images and labels are drawn from its split "train".
    life
        What a learner does.
    fitness
        ``"last"``: the loss of a life's last trial, before its update (the released fitness of Chen et al.); ``"mean"``: the mean over all trials, ours,
        which a gradient through whole lives needs (that of the last trial alone is chaotic until learners are stable).
    batch
        Samples of a trial, drawn anew for each task; 0: the whole split.
    fresh
        Draw them anew for each trial of a life, too.
    tasks
        Tasks per generation M, each with a newborn learner of its own.
    classes
        Draw this many of the data set's classes for each task, relabelled from 0 (None: all of them).
    fixed_start
        Learners of all tasks are born with the weights of `seed` (the released setting; it over-fits to them). Else each task draws its own.
    seed
        What samples, classes and newborn weights follow from, together with the generation.
    chunk
        Candidates at a time, to bound memory (None: all).
    """

    @checked
    def __init__(
        self, learners: Learners, dataset: Dataset, life: Life, *, fitness: Annotated[str, In(FITNESS)] = "last", batch: Annotated[int, Ge(0)] = 128,
        fresh: bool = False, tasks: Count = 1, classes: Count | None = None, fixed_start: bool = False, seed: Seed = 0, chunk: Count | None = None,
    ):  # fmt: skip
        self.learners, self.life, self.fitness = learners, life, fitness
        self.batch, self.fresh, self.tasks, self.classes = batch, fresh, tasks, classes
        self.fixed_start, self.seed, self.chunk = fixed_start, seed, chunk
        images, labels = dataset.split("train")
        self.labels = labels
        known = int(labels.max()) + 1
        wanted = known if classes is None else classes
        cells = learners.circuit.plan.stimulus_size("target")
        if wanted > known or wanted != cells:
            raise NeurosimError(
                f"Tasks of {wanted} classes out of the {known} of {dataset.name}, and '{learners.circuit.name}' has {cells} output cells; wanted equal "
                "numbers, no more than the data set has."
            )
        if classes is None:
            fields = stimulus_fields(learners.circuit, images, labels)
            self.fields = {n: learners.arrays.asarray(v) for n, v in fields.items()}
        else:
            fields = stimulus_fields(learners.circuit, images, np.zeros(len(images), int))  # checks the images
            self.fields = {"image": learners.arrays.asarray(fields["image"])}
        rows = len(images) if classes is None else int(np.sort(np.bincount(labels))[:classes].sum())
        if batch > rows:
            raise NeurosimError(f"batch = {batch}; wanted at most the {rows} training samples, or 0 for all of them.")

    def start(self, generation: int, task: int) -> int:
        """The seed of a newborn learner's weights."""
        if self.fixed_start:
            return self.seed
        return int(np.random.SeedSequence([self.seed, 1, generation, task]).generate_state(1)[0])

    def samples(self, generation: int, task: int) -> list[dict[str, torch.Tensor]]:
        """The stimuli of a life's trials; one that stands for all where they are not fresh."""
        rng = np.random.default_rng([self.seed, 2, generation, task])
        pool, place = np.arange(len(self.labels)), np.arange(int(self.labels.max()) + 1)
        if self.classes is not None:
            chosen = rng.permutation(len(place))[: self.classes]
            place = np.full(len(place), -1)
            place[chosen] = np.arange(self.classes)
            pool = np.flatnonzero(place[self.labels] >= 0)
        count = self.batch or len(pool)
        drawn = []
        for _ in range(self.life.steps if self.fresh else 1):
            rows = rng.choice(pool, count, replace=False) if self.batch else pool
            at = torch.as_tensor(rows, device=self.fields["image"].device)
            fields = {name: values[at] for name, values in self.fields.items()}
            if self.classes is not None:
                fields["target"] = self.learners.arrays.asarray(np.eye(self.classes)[place[self.labels[rows]]])
            drawn.append(fields)
        return drawn

    def __call__(self, candidates: torch.Tensor, generation: int) -> torch.Tensor:
        """The fitness (P,) of candidates (P, d)."""
        parts = candidates.split(self.chunk or len(candidates))
        return torch.cat([self._fitness(part, generation) for part in parts])

    def _fitness(self, candidates: torch.Tensor, generation: int) -> torch.Tensor:
        evolved = {n: w.to(self.learners.arrays.dtype) for n, w in self.learners.stacked(candidates).items()}
        starts = [self.start(generation, m) for m in range(self.tasks)]
        drawn = [self.samples(generation, m) for m in range(self.tasks)]
        # Classes need not have equally many samples: tasks of whole classes are no rectangle.
        if len(candidates) == 1 and len({len(d[0]["image"]) for d in drawn}) == 1:  # the learners of all tasks at once
            if self.tasks == 1:
                together = drawn[0]
            else:
                together = [
                    {n: torch.stack([d[t][n] for d in drawn]) for n in drawn[0][0]} for t in range(len(drawn[0]))
                ]
            return -self._live(evolved, self.learners.born(starts), together).mean(0, keepdim=True)
        total: Any = 0.0
        for start, samples in zip(starts, drawn, strict=True):
            born = self.learners.born([start])
            total = total + self._live(
                evolved, {n: w.expand(len(candidates), *w.shape[1:]) for n, w in born.items()}, samples
            )
        return -total / self.tasks

    def _live(self, evolved: Weights, born: Weights, samples: list[dict[str, torch.Tensor]]) -> torch.Tensor:
        losses = self.learners.live(self.life, born, evolved, lambda t: samples[t % len(samples)])[1].double()
        return losses[-1] if self.fitness == "last" else losses.mean(0)


@torch.no_grad()
def evaluate(
    learners: Learners, evolved: Mapping[str, np.ndarray] | None, dataset: Dataset, life: Life, *, batch: int = 0, fresh: bool = False,
    seeds: Sequence[int] = UNSEEN, splits: Sequence[str] = ("train", "validation"), curve: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Newborn learners, one per seed, taught for one life; losses and accuracies after it.

    Parameters
    ----------
    learners, dataset, life
        As in `Classification`.
    evolved
        Evolved weights by projection; None for circuits without any.
    batch, fresh
        Samples of a trial (0: the whole training split), drawn anew for each trial or once; the same for all learners.
    seeds
        Of the learners' first weights.
    splits
        What to read losses and accuracies of.
    curve
        A split whose accuracy is read before each update.

    Returns
    -------
    ``{"train_loss": [per seed], "train_accuracy": [...], ..., "curve": [steps + 1][seeds], "weights": (seeds, ...)}``.
    """
    found = {n: learners.arrays.asarray(w)[None] for n, w in (evolved or {}).items()}
    objective = Classification(learners, dataset, life, batch=batch, fresh=fresh, seed=int(seeds[0]))
    drawn = objective.samples(0, 0)
    fields = {
        s: {n: learners.arrays.asarray(v) for n, v in stimulus_fields(learners.circuit, *dataset.split(s)).items()}
        for s in splits
    }
    points: list[list[float]] = []
    shown = stimulus_fields(learners.circuit, *dataset.split(curve)) if curve is not None else {}
    shown = {n: learners.arrays.asarray(v) for n, v in shown.items()}

    def watch(t: int, weights: Weights) -> None:
        points.append(read(learners, weights, found, shown)[1].tolist())

    weights, _ = learners.live(
        life, learners.born(seeds), found, lambda t: drawn[t % len(drawn)], watch if shown else None
    )
    result: dict[str, Any] = {"weights": weights}
    for split, values in fields.items():
        losses, right = read(learners, weights, found, values)
        result |= {f"{split}_loss": losses.tolist(), f"{split}_accuracy": right.tolist()}
    return result | ({"curve": points} if curve is not None else {})


@torch.no_grad()
def read(
    learners: Learners, weights: Weights, evolved: Mapping[str, torch.Tensor], fields: Mapping[str, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses and accuracies (learners,) on these stimuli (samples, values), without learning."""
    readout = learners.circuit.readout
    assert readout is not None
    total, losses, right = len(fields["image"]), 0.0, 0.0
    for first in range(0, total, READ):
        part = {n: v[first : first + READ] for n, v in fields.items()}
        found, _ = learners.present(weights, evolved, part, (readout.variable,), learn=False)
        share, answers = len(part["image"]) / total, found[readout.variable]
        losses = losses + share * loss(answers, part[readout.wanted], readout.loss)
        right = right + share * accuracy(answers, part[readout.wanted])
    return torch.as_tensor(losses), torch.as_tensor(right)
