"""Lives of a population of learners, as one batched computation: circuits that learn for T trials, each under its own evolved weights.

`torch.func.vmap` runs the settled trial of one circuit (`neurosim.backends.torch.functional`) for all at once; the inner optimiser works on the stacked
weights. Everything is differentiable, for those who unroll it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch

from neurosim.backends.torch.functional import FunctionalTrial
from neurosim.checks import Count, In, Positive, check_fields
from neurosim.circuit import Circuit
from neurosim.errors import NeurosimError

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Life:
    """What a learner does with a trial's changes, and for how long.

    A change d is a direction to go, in the place of minus a gradient: ``d <- d min(1, clip/(|d| + 1e-6))`` with the norm over all weights of one learner, then
    ``w <- w + rate d`` (sgd) or Adam (Kingma & Ba 2015: 0.9, 0.999, 1e-8), maximising along d. The released code of Chen et al.: Adam 0.01, clip 1, 150 steps.

    Parameters
    ----------
    optimiser
        ``"adam"`` or ``"sgd"``.
    rate
        One number, or one per learner.
    clip
        Largest norm, None for no limit.
    steps
        Trials of a life.
    """

    optimiser: Annotated[str, In(("adam", "sgd"))] = "adam"
    rate: Positive | torch.Tensor = 0.03
    clip: Positive | None = 1.0
    steps: Count = 30

    def __post_init__(self) -> None:
        check_fields(self)
        if not bool(torch.as_tensor(self.rate).gt(0).all()):
            raise NeurosimError(f"rate = {self.rate}; wanted a number above 0, or one for each learner.")


class InnerOptimiser:
    """Adds changes to stacked weights (learners, ...), see `Life`; keeps the moments of one life. Out of place, so that autograd may follow."""

    def __init__(self, life: Life):
        self.life, self.step = life, 0
        self.first: Weights = {}
        self.second: Weights = {}

    def __call__(self, weights: Weights, changes: Mapping[str, torch.Tensor]) -> Weights:
        """The weights after one update; those without a change as they were."""
        life, new = self.life, dict(weights)
        self.step += 1
        shrink = None
        if life.clip is not None:
            squares = [c.flatten(1).square().sum(1) for c in changes.values()]
            # The square root's slope at 0 is infinite: a learner that stands still must not spoil a gradient.
            norm = torch.stack(squares).sum(0).clamp_min(torch.finfo(squares[0].dtype).tiny).sqrt()
            shrink = (life.clip / (norm + 1e-6)).clamp_max(1.0)
        for name, change in changes.items():
            if shrink is not None:
                change = change * _beside(shrink, change)
            rate = _beside(life.rate, change) if isinstance(life.rate, torch.Tensor) else life.rate
            if life.optimiser == "sgd":
                new[name] = weights[name] + rate * change
                continue
            m = torch.lerp(self.first[name], change, 0.1) if self.step > 1 else 0.1 * change
            v = 0.999 * self.second[name] + 0.001 * change * change if self.step > 1 else 0.001 * change * change
            self.first[name], self.second[name] = m, v
            root = v.clamp_min(torch.finfo(v.dtype).tiny).sqrt() if v.requires_grad else v.sqrt()
            scale = (1 - 0.999**self.step) ** 0.5 / (1 - 0.9**self.step)
            new[name] = weights[name] + rate * scale * (m / (root + 1e-8 * (1 - 0.999**self.step) ** 0.5))
        return new


def _beside(per_learner: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    return per_learner.reshape(-1, *[1] * (values.dim() - 1))


class Learners:
    """A circuit's trial for many learners at once.

    Parameters
    ----------
    circuit
        One that `FunctionalTrial` can run.
    dtype, device
        float32 by default: evolution ranks, and rounding is far below its noise.

    Attributes
    ----------
    evolved
        Projections that a vector theta holds, in this order, flattened.
    """

    def __init__(self, circuit: Circuit, dtype: str = "float32", device: str = "cpu"):
        self.circuit, self.trial = circuit, FunctionalTrial(circuit.plan, dtype, device)
        self.arrays = self.trial.arrays
        self.evolved = circuit.evolved
        self.plastic = tuple(self.trial.learn)
        shapes = {q.name: q.weight_shape for q in circuit.plan.projections.values() if q.root == q.name}
        self._shapes = {name: shapes[name] for name in self.evolved}
        drawn = circuit.initial_weights(0)
        moving = {*self.evolved, *self.plastic}
        self.fixed = {n: self.arrays.asarray(w) for n, w in drawn.items() if n not in moving}
        self._drawn = {
            n for n, w in circuit.initial_weights(1).items() if n in self.fixed and not np.array_equal(w, drawn[n])
        }
        self.bounds = {q.name: rule.bounds for q, rule in circuit.plan.plastic() if rule.bounds != (None, None)}
        self._batched: dict[Any, Callable[..., Any]] = {}

    # ---------------------------------------------------------------- weights

    @property
    def size(self) -> int:
        """Number of evolved weights."""
        return sum(int(np.prod(shape)) for shape in self._shapes.values())

    def theta(self, weights: Mapping[str, np.ndarray]) -> np.ndarray:
        """A circuit's evolved weights as one vector, float64."""
        return np.concatenate([np.ravel(weights[name]) for name in self.evolved])

    def unpacked(self, theta: Any) -> dict[str, np.ndarray]:
        """The evolved weights of one vector by projection."""
        return {name: w[0].numpy(force=True).copy() for name, w in self.stacked(torch.as_tensor(theta)[None]).items()}

    def stacked(self, candidates: torch.Tensor) -> Weights:
        """Evolved weights (candidates, ...) of vectors (candidates, size), in their dtype."""
        if candidates.dim() != 2 or candidates.shape[1] != self.size:
            raise NeurosimError(
                f"Candidates have shape {tuple(candidates.shape)}; wanted (candidates, {self.size}), the evolved weights of '{self.circuit.name}'."
            )
        parts = candidates.split([int(np.prod(s)) for s in self._shapes.values()], dim=1)
        return {n: part.reshape(-1, *shape) for (n, shape), part in zip(self._shapes.items(), parts, strict=True)}

    def born(self, seeds: Sequence[int]) -> Weights:
        """Weights (learners, ...) of newborn learners, one per seed; what is neither plastic nor evolved but drawn (fixed feedback) too."""
        drawn = [self.circuit.initial_weights(seed) for seed in seeds]
        names = [*self.plastic, *sorted(self._drawn)]
        return {n: self.arrays.asarray(np.stack([d[n] for d in drawn])) for n in names}

    # ---------------------------------------------------------------- trials

    def present(
        self, weights: Mapping[str, torch.Tensor], evolved: Mapping[str, torch.Tensor], stimuli: Mapping[str, torch.Tensor],
        wanted: Sequence[str] = (), learn: bool = True,
    ) -> tuple[dict[str, torch.Tensor], Weights]:  # fmt: skip
        """One trial of every learner.

        Parameters
        ----------
        weights
            (learners, ...), as `born` gives them.
        evolved
            (learners, ...), or (1, ...): the same for all.
        stimuli
            ``{field: (learners, samples, values)}``, or (samples, values): the same for all.
        wanted
            Variables to give back, (learners, samples, cells).
        learn
            Whether to form the changes, (learners, ...).
        """
        fixed = {n: w for n, w in self.fixed.items() if n not in weights}
        one = {n: w[0] for n, w in evolved.items() if len(w) == 1}
        many = {n: w for n, w in evolved.items() if len(w) > 1}
        shared = {n: s for n, s in stimuli.items() if s.dim() == 2}
        own = {n: s for n, s in stimuli.items() if s.dim() == 3}
        key = (tuple(wanted), learn)
        if key not in self._batched:

            def trial(own_weights: Weights, common: Weights, own_stimuli: Weights, common_stimuli: Weights) -> Any:
                return self.trial({**own_weights, **common}, {**own_stimuli, **common_stimuli}, wanted, learn)

            self._batched[key] = torch.func.vmap(trial, in_dims=(0, None, 0, None))
        return self._batched[key]({**weights, **many}, {**fixed, **one}, own, shared)

    def live(
        self, life: Life, weights: Weights, evolved: Mapping[str, torch.Tensor], batch: Callable[[int], Mapping[str, torch.Tensor]],
        watch: Callable[[int, Weights], None] | None = None,
    ) -> tuple[Weights, torch.Tensor]:  # fmt: skip
        """Whole lives on a readout's task.

        Parameters
        ----------
        life
            See `Life`.
        weights, evolved
            See `present`.
        batch
            The stimuli of step t = 0, 1, ...
        watch
            Called with t and the weights before each trial t, and at the end with the number of trials.

        Returns
        -------
        The weights at the end, and the losses (steps, learners) of each trial, before its update.
        """
        readout = self.circuit.readout
        assert readout is not None
        optimiser, losses = InnerOptimiser(life), []
        for t in range(life.steps):
            if watch is not None:
                watch(t, weights)
            stimuli = batch(t)
            found, changes = self.present(weights, evolved, stimuli, (readout.variable,))
            losses.append(loss(found[readout.variable], stimuli[readout.wanted], readout.loss))
            weights = optimiser(weights, changes)
            for name, (low, high) in self.bounds.items():
                weights[name] = weights[name].clamp(low, high)
        if watch is not None:
            watch(life.steps, weights)
        return weights, torch.stack(losses)


def loss(answers: torch.Tensor, wanted: torch.Tensor, kind: str) -> torch.Tensor:
    """The readout's loss (see `neurosim.description.Readout`), the mean over samples: (learners, samples, cells) -> (learners,)."""
    if kind == "cross_entropy":
        return -(wanted * answers.clamp_min(torch.finfo(answers.dtype).tiny).log()).sum(-1).mean(-1)
    squares = (answers - wanted).square()
    return squares.mean((-1, -2)) if kind == "mean_squared" else 0.5 * squares.sum(-1).mean(-1)


def accuracy(answers: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Share of samples whose largest answer is the wanted class: (learners, samples, classes) -> (learners,)."""
    return (answers.argmax(-1) == wanted.argmax(-1)).to(answers.dtype).mean(-1)
