"""Fitness by control: each candidate's credits teach policies while these act, see `neurosim.models.tdca_control`. All of it is a reconstruction.

A life is a number of steps in one environment, which begins anew whenever an episode has terminated. At step t the policy sees s_t (divided by the
environment's scales) and an action is drawn from pi; then the top-down net sees [s_t, pi, s_{t+1}, one-hot action, terminated], and the weights change.

    CartPole   fitness = (T/2)/(1 + falls in the second half)
    Acrobot    fitness = goals reached in the second half + mean of (height + 2)/4 there     height of the free end, -2 to 2; ours: the mean
                                                                                              height only decides between equal numbers of goals

Both are means over the environments of a generation. With ``exam=True`` (ours) the weights stand still in the second half: what counts is the policy
that has been learnt, not a top-down net that steers it at every step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from neurosim.checks import Count, In, Positive, Seed, check, checked
from neurosim.environments.control import Acrobot, CartPole, Environment
from neurosim.errors import NeurosimError
from neurosim.models import tdca_control
from neurosim.training.evolution.lanes import Lanes, generator
from neurosim.training.evolution.lifetime import Weights

ENVIRONMENTS: dict[str, type[CartPole] | type[Acrobot]] = {"cart_pole": CartPole, "acrobot": Acrobot}
#: Lengths (half the pole; a link) in evolution, and of tests that it does not see.
LENGTHS = {"cart_pole": (0.4, 0.6), "acrobot": (0.9, 1.1)}
UNSEEN = {"cart_pole": (0.25, 1.0), "acrobot": (0.7, 1.4)}
#: Learner seeds, lengths; draws in a life; draws in a test of a frozen policy. Lives of evolution, lives of tests.
BIRTHS, DRAWS, EXAM = 0, 1, 2
TRAINING, TEST = 0, 1


@dataclass(frozen=True)
class Lives:
    """Lives of P candidates, M learners, T steps.

    Attributes
    ----------
    ended
        (T, P, M) bool: the step that ended an episode (a fall, or the goal).
    height
        (T, P, M): of Acrobot's free end; 0 for CartPole.
    weights
        (P, M, ...) at the end.
    """

    ended: Tensor
    height: Tensor
    weights: Weights


class Control:
    """The objective: how well a candidate's policies do in the second half of their lives.

    All candidates of a generation get the same newborn policies, lengths, starts and numbers to draw actions with; they follow from seed and
    generation.

    Parameters
    ----------
    environment
        ``"cart_pole"`` or ``"acrobot"``.
    steps
        Of a life T.
    environments
        Policies of each candidate, each in an environment of its own.
    rate
        Learning rate.
    lengths
        Each environment's length is drawn from U(low, high) (None: 0.4 to 0.6 for CartPole's half-length, 0.9 to 1.1 for Acrobot's links).
    exam
        Weights stand still in the second half.
    cells, hidden
        Hidden cells of the policy, and of each of the top-down net's two layers.
    bound
        Largest absolute weight of a policy.
    seed
        Of births, lengths, starts and actions.

    Raises
    ------
    NeurosimError
        A setting that is unknown or out of range.
    """

    @checked
    def __init__(
        self, environment: Annotated[str, In(ENVIRONMENTS)] = "cart_pole", steps: Count = 300, environments: Count = 8, rate: Positive = 0.1,
        lengths: tuple[Positive, Positive] | None = None, exam: bool = False, cells: Count = 16, hidden: Count = 16, bound: Positive = 5.0, seed: Seed = 0,
        dtype: str = "float32", device: str = "cpu",
    ):  # fmt: skip
        self.name, self.kind = environment, ENVIRONMENTS[environment]
        self.lengths = LENGTHS[environment] if lengths is None else lengths
        if self.lengths[0] > self.lengths[1]:
            raise NeurosimError(f"lengths = {self.lengths}; wanted (low, high), low not above high.")
        self.steps, self.environments, self.exam, self.seed = steps, environments, exam, seed
        sizes = (self.kind.n_observations, cells, self.kind.n_actions)
        self.circuit = tdca_control.circuit(sizes, hidden=hidden, bound=bound, eta=rate)
        self.lanes = Lanes(self.circuit, dtype, device)
        self._arrays = self.lanes.learners.arrays
        self._scales = self._arrays.asarray(np.array(self.kind.scales))

    @property
    def size(self) -> int:
        """Number of evolved weights d (802 for CartPole, 915 for Acrobot)."""
        return self.lanes.learners.size

    def first(self, seed: int = 0) -> np.ndarray:
        """Evolved weights (d,) as the circuit draws them, where an evolution starts."""
        return self.lanes.learners.theta(self.circuit.initial_weights(seed))

    def born(self, generation: int, learners: int | None = None, test: bool = False) -> tuple[list[int], Tensor]:
        """Seeds of newborn policies and lengths (M,) of their environments, of a generation or of a test that evolution never sees."""
        count = self.environments if learners is None else learners
        kind = TEST if test else TRAINING
        seeds = np.random.SeedSequence([self.seed, kind, check("generation", generation, Seed), BIRTHS]).generate_state(
            count
        )
        source = generator(self._arrays.device, self.seed, kind, generation, BIRTHS, 1)
        low, high = self.lengths
        draw = torch.rand(count, generator=source, dtype=self._arrays.dtype, device=self._arrays.device)
        return [int(seed) for seed in seeds], low + (high - low) * draw

    def __call__(self, candidates: Tensor, generation: int) -> Tensor:
        """The fitness (P,) of candidates (P, d)."""
        seeds, lengths = self.born(generation)
        half = self.steps // 2
        lives = self.live(candidates, seeds, lengths, (TRAINING, generation), plastic=half if self.exam else None)
        return self.fitness(lives).cpu()

    def fitness(self, lives: Lives) -> Tensor:
        """See the top of this file: (P,), float64."""
        half = self.steps // 2
        ended = lives.ended[half:].sum(0).double()
        if self.kind is CartPole:
            return (half / (1 + ended)).mean(-1)
        return (ended + (lives.height[half:].double().mean(0) + 2) / 4).mean(-1)

    @torch.no_grad()
    def live(
        self, candidates: Any, seeds: list[int], lengths: Tensor, key: tuple[int, int], plastic: int | None = None, steps: int | None = None,
    ) -> Lives:  # fmt: skip
        """Lives of newborn policies under candidates (P, d).

        Parameters
        ----------
        candidates
            Evolved weights (P, d).
        seeds, lengths
            Of the M policies and their environments, see `born`.
        key
            Whole numbers that starts and actions follow from, together with the seed of the objective.
        plastic
            Number of steps after which the weights stand still (None: never; 0: they never change).
        steps
            Of a life (None: those of the objective).
        """
        steps = self.steps if steps is None else steps
        check("steps", steps, Count)
        if lengths.shape != (len(seeds),):
            raise NeurosimError(
                f"lengths have shape {tuple(lengths.shape)}; wanted ({len(seeds)},), one for each seed."
            )
        evolved = self.lanes.evolved(candidates)
        population, many = len(candidates), len(seeds)
        weights = self.lanes.born(seeds, population)
        environment: Environment = self.kind(length=lengths)
        # A stream for each, so that a longer life begins like a shorter one.
        first, second = (generator(self._arrays.device, self.seed, *key, DRAWS, k) for k in (0, 1))
        starts = environment.reset((steps + 1, many), first, self._arrays.dtype)
        draws = torch.rand((steps, many), generator=second, dtype=self._arrays.dtype, device=self._arrays.device)
        actions = torch.eye(environment.n_actions, dtype=self._arrays.dtype, device=self._arrays.device)
        state = starts[0].expand(population, -1, -1)
        ended, height = [], []
        for t in range(steps):
            seen = self._seen(environment, state)[:, :, None, :]
            pi = self._policy(weights, evolved, seen)[:, :, 0, :]
            action = drawn_action(pi, draws[t])
            after, _, over = environment.step(state, action)
            if plastic is None or t < plastic:
                outcome = torch.cat(
                    [self._seen(environment, after), actions[action], over[..., None].to(after.dtype)], -1
                )
                _, weights = self.lanes(weights, evolved, {"image": seen, "target": outcome[:, :, None, :]})
            ended.append(over)
            height.append(self._height(after))
            state = torch.where(over[..., None], starts[t + 1], after)
        return Lives(torch.stack(ended), torch.stack(height), weights)

    @torch.no_grad()
    def frozen(
        self, candidates: Any, weights: Weights, lengths: Tensor, key: tuple[int, int], episodes: int = 5, greedy: bool = False,
        limit: int | None = None,
    ) -> Tensor:  # fmt: skip
        """Length of episodes (P, M, episodes) under policies that do not learn, `limit` where they last that long.

        Parameters
        ----------
        candidates
            (P, d); they have no say here.
        weights
            Of the policies (P, M, ...), as `Lives` holds them.
        lengths, key
            See `live`.
        episodes
            Of each policy.
        greedy
            The likeliest action in place of a drawn one.
        limit
            Longest episode (None: that of the environment, 500).
        """
        check("episodes", episodes, Count)
        evolved = self.lanes.evolved(candidates)
        limit = self.kind.limit if limit is None else limit
        population, many = len(candidates), len(lengths)
        environment: Environment = self.kind(length=lengths[:, None])
        source = generator(self._arrays.device, self.seed, *key, EXAM)
        state = environment.reset((many, episodes), source, self._arrays.dtype).expand(population, -1, -1, -1)
        lasted = torch.full(state.shape[:-1], limit, device=state.device)
        alive = torch.ones_like(lasted, dtype=torch.bool)
        for t in range(limit):
            pi = self._policy(weights, evolved, self._seen(environment, state))
            draw = torch.rand((many, episodes), generator=source, dtype=self._arrays.dtype, device=state.device)
            action = pi.argmax(-1) if greedy else drawn_action(pi, draw)
            state, _, over = environment.step(state, action)
            lasted = torch.where(alive & over, t + 1, lasted)
            alive &= ~over
            if not bool(alive.any()):
                break
        return lasted

    def _policy(self, weights: Weights, evolved: Weights, seen: Tensor) -> Tensor:
        found, _ = self.lanes(weights, evolved, {"image": seen}, ("pyr2.r",), learn=False)
        return found["pyr2.r"]

    def _seen(self, environment: Environment, state: Tensor) -> Tensor:
        return environment.observe(state) / self._scales

    def _height(self, state: Tensor) -> Tensor:
        if self.kind is CartPole:
            return torch.zeros_like(state[..., 0])
        return -torch.cos(state[..., 0]) - torch.cos(state[..., 0] + state[..., 1])


def drawn_action(pi: Tensor, draw: Tensor) -> Tensor:
    """Actions (...) of probabilities (..., n), by numbers in [0, 1) that broadcast to (...)."""
    return (draw[..., None] >= pi.cumsum(-1)[..., :-1]).sum(-1)


def evaluate(
    control: Control, theta: Any, length: float | None = None, learners: int = 20, seed: int = 0, episodes: int = 5, plastic: int | None = None,
    steps: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Newborn policies that evolution has not seen, under one theta (d,); per learner, (learners,).

    Parameters
    ----------
    length
        Of all environments (None: drawn like those of evolution).
    learners, seed
        How many, and which.
    episodes
        Of each frozen policy.
    plastic, steps
        See `Control.live`; ``plastic=0`` is the control without plasticity, whose frozen policies are untrained learners.

    Returns
    -------
    ``{"ended": number of episodes that ended in the life (falls, goals), "second_half": in its second half, "frozen": mean length of the episodes of the policy
    at the end of the life, plasticity off, actions drawn, "greedy": the same with the likeliest action, "raster": (learners, steps) bool}``.
    """
    seeds, lengths = control.born(seed, learners, test=True)
    lengths = lengths if length is None else torch.full_like(lengths, length)
    candidate = torch.as_tensor(theta)[None]
    lives = control.live(candidate, seeds, lengths, (TEST, seed), plastic, steps)
    ended = lives.ended[:, 0].cpu().numpy()
    found = {"ended": ended.sum(0), "second_half": ended[len(ended) // 2 :].sum(0), "raster": ended.T}
    for name, greedy in (("frozen", False), ("greedy", True)):
        lasted = control.frozen(candidate, lives.weights, lengths, (TEST, seed), episodes, greedy)
        found[name] = lasted[0].double().mean(-1).cpu().numpy()
    return found
