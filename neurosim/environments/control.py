"""Control tasks as batched dynamics: many poles or arms step at once, one row of a tensor each.

    generator = torch.Generator().manual_seed(0)
    task = CartPole(length=torch.tensor([0.25, 0.5, 1.0]))
    state = task.reset((3,), generator)                        # (3, 4)
    state, reward, terminated = task.step(state, torch.tensor([0, 1, 1]))

An environment keeps nothing between steps: who calls it holds the states, counts the steps up to `limit` and puts rows
of `reset` in the place of those that have terminated. Equations and constants are those of gymnasium 1.x, against which
the tests check every step; gymnasium itself is not needed.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from neurosim.errors import NeurosimError

_INTEGERS = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


class Environment(ABC):
    """What the tasks share: shapes, starts, checks.

    Attributes
    ----------
    n_actions
        Actions are the whole numbers from 0 to below it.
    n_observations
        Numbers in one observation.
    limit
        Steps after which an episode ends by the clock (500); `step` does not know of it.
    scales
        One for each number of an observation: divided by them, observations are of the order of 1.
    start
        A state starts in U(-start, start)^4.
    """

    n_actions: ClassVar[int]
    n_observations: ClassVar[int]
    limit: ClassVar[int] = 500
    scales: ClassVar[tuple[float, ...]]
    start: ClassVar[float]

    def reset(self, shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype | None = None) -> Tensor:
        """Draw states at the start of an episode.

        Parameters
        ----------
        shape
            Shape of the batch; () for a single one.
        generator
            Where the numbers come from; the states lie on its device.
        dtype
            Floating-point type, torch's default when absent.

        Returns
        -------
        Tensor
            States, shape (*shape, 4).
        """
        draw = torch.rand((*shape, 4), generator=generator, dtype=dtype, device=generator.device)
        return self.start * (2 * draw - 1)

    def step(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Do an action in each state.

        Parameters
        ----------
        state
            Shape (..., 4), floating point. One that has terminated moves on like any other.
        action
            Shape (...), whole numbers. Their range is not looked at: that would make a GPU wait at every step.

        Returns
        -------
        state
            The next states, shape (..., 4), in the type of `state`.
        reward
            Shape (...), in the type of `state`.
        terminated
            Shape (...), bool: the next state ends the episode.

        Raises
        ------
        NeurosimError
            For states and actions of another shape or type, and a parameter that has no value for each state.
        """
        self._check(state)
        if action.shape != state.shape[:-1] or action.dtype not in _INTEGERS:
            raise NeurosimError(
                f"{self._name}: the actions have shape {tuple(action.shape)} and are {action.dtype}. Wanted whole numbers "
                f"0..{self.n_actions - 1} of shape {tuple(state.shape[:-1])}, one for each state (not one-hot)."
            )
        after = self._advance(state, action.to(state.dtype))
        terminated = self._terminated(after)
        return after, self._reward(terminated).to(state.dtype), terminated

    def observe(self, state: Tensor) -> Tensor:
        """Return what a learner sees of states (..., 4): shape (..., `n_observations`)."""
        self._check(state)
        return self._observation(state)

    @abstractmethod
    def _advance(self, state: Tensor, action: Tensor) -> Tensor: ...

    @abstractmethod
    def _terminated(self, state: Tensor) -> Tensor: ...

    @abstractmethod
    def _reward(self, terminated: Tensor) -> Tensor: ...

    def _observation(self, state: Tensor) -> Tensor:
        return state

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _check(self, state: Tensor) -> None:
        if state.shape[-1:] != (4,) or not state.is_floating_point():
            raise NeurosimError(
                f"{self._name}: the states have shape {tuple(state.shape)} and are {state.dtype}. "
                "Wanted floats of shape (..., 4), as reset gives them."
            )

    def _positive(self, parameter: str) -> None:
        value = torch.as_tensor(getattr(self, parameter))
        if not bool((torch.isfinite(value) & (value > 0)).all()):
            raise NeurosimError(f"{self._name}: {parameter} = {value.tolist()}; wanted numbers above 0.")

    def _parameter(self, name: str, state: Tensor) -> float | Tensor:
        """The parameter as it enters the equations of these states."""
        value = getattr(self, name)
        if not isinstance(value, Tensor):
            return value
        own, batch = value.shape, state.shape[:-1]
        # It may not widen the batch: there would be fewer states than next states.
        if len(own) > len(batch) or any(a not in (1, b) for a, b in zip(reversed(own), reversed(batch), strict=False)):
            raise NeurosimError(
                f"{self._name}: {name} has shape {tuple(own)}, and there are states of shape {tuple(batch)}. "
                "Wanted one number, or a shape that broadcasts to theirs."
            )
        return value.to(state)


@final
@dataclass(frozen=True, eq=False)
class CartPole(Environment):
    """A pole on a cart that is pushed left (0) or right (1); gymnasium's CartPole-v1.

        a    = (F + m l w^2 sin(theta))/(M + m)                    F = -10 N or 10 N
        w'   = (g sin(theta) - a cos(theta))/(l (4/3 - m cos(theta)^2/(M + m)))
        v'   = a - m l w' cos(theta)/(M + m)
        x'   = v,  theta' = w                                      Euler steps of 0.02 s

    State and observation are (x, v, theta, w): place (m) and speed of the cart, angle of the pole from upright (rad) and
    its speed. M = 1 kg, m = 0.1 kg, g = 9.8 m/s^2. It has terminated where |x| > 2.4 or |theta| > 12 degrees. Every step
    earns 1, the last one too. Source: Barto, Sutton & Anderson 1983, as corrected by Florian 2007 and put into gymnasium.

    Attributes
    ----------
    length
        Half the pole's length l in metres, 0.5: one number, or a tensor that broadcasts to the shape of the states. The
        pole's mass stays.

    Raises
    ------
    NeurosimError
        For lengths that are not above 0.
    """

    length: float | Tensor = 0.5

    n_actions: ClassVar[int] = 2
    n_observations: ClassVar[int] = 4
    # Places and angles by where they end; 99 % of the speeds under random pushes are below 1.5 and 2.2.
    scales: ClassVar[tuple[float, ...]] = (2.4, 2.0, math.radians(12), 2.0)
    start: ClassVar[float] = 0.05

    def __post_init__(self) -> None:
        self._positive("length")

    def _advance(self, state: Tensor, action: Tensor) -> Tensor:
        cart, pole, gravity, tau = 1.0, 0.1, 9.8, 0.02
        total, length = cart + pole, self._parameter("length", state)
        _, v, theta, w = state.unbind(-1)
        sin, cos = torch.sin(theta), torch.cos(theta)
        push = (20 * action - 10 + pole * length * w**2 * sin) / total
        turn = (gravity * sin - push * cos) / (length * (4 / 3 - pole / total * cos**2))
        return state + tau * torch.stack((v, push - pole * length / total * turn * cos, w, turn), -1)

    def _terminated(self, state: Tensor) -> Tensor:
        return (state[..., 0].abs() > 2.4) | (state[..., 2].abs() > math.radians(12))

    def _reward(self, terminated: Tensor) -> Tensor:
        return torch.ones_like(terminated)


@final
@dataclass(frozen=True, eq=False)
class Acrobot(Environment):
    """Two hanging links to be swung up by a torque of -1, 0 or 1 N m (actions 0, 1, 2) at their joint; gymnasium's Acrobot-v1.

        d1   = m c^2 + m (l^2 + c^2 + 2 l c cos(q2)) + 2 I
        d2   = m (c^2 + l c cos(q2)) + I
        p2   = m c g sin(q1 + q2)
        p1   = -m l c w2 (w2 + 2 w1) sin(q2) + m (c + l) g sin(q1) + p2
        w2'  = (torque + d2/d1 p1 - m l c w1^2 sin(q2) - p2)/(m c^2 + I - d2^2/d1)
        w1'  = -(d2 w2' + p1)/d1
        q1'  = w1,  q2' = w2                                       one step of Runge-Kutta 4 over 0.2 s

    The state is (q1, q2, w1, w2): angle of the upper link from hanging down, of the lower link from the upper one (rad),
    wrapped to [-pi, pi], and their speeds, cut off at 4 pi and 9 pi. The observation is (cos q1, sin q1, cos q2, sin q2,
    w1, w2). It has terminated where the free end is higher than one link above the fixed one: -cos(q1) - cos(q1 + q2) > 1.
    A step earns -1, the last one 0. g = 9.8 m/s^2, I = 1 kg m^2, c = l/2. Source: Sutton 1996, in the dynamics of
    Sutton & Barto's book (gymnasium's ``book``).

    Attributes
    ----------
    length
        Length l of either link in metres, 1.0: one number, or a tensor that broadcasts to the shape of the states. The
        centre of mass moves along; mass and moment of inertia I stay.
    mass
        Mass m of either link in kg, 1.0, likewise.

    Raises
    ------
    NeurosimError
        For lengths or masses that are not above 0.
    """

    length: float | Tensor = 1.0
    mass: float | Tensor = 1.0

    n_actions: ClassVar[int] = 3
    n_observations: ClassVar[int] = 6
    # 99 % of the speeds under random torques are below 3.3 and 5.5, 90 % below 3.6 and 7.9 when it is swung up.
    scales: ClassVar[tuple[float, ...]] = (1.0, 1.0, 1.0, 1.0, 4.0, 8.0)
    start: ClassVar[float] = 0.1

    def __post_init__(self) -> None:
        self._positive("length")
        self._positive("mass")

    def _advance(self, state: Tensor, action: Tensor) -> Tensor:
        tau, torque = 0.2, action - 1
        k1 = self._slope(state, torque)
        k2 = self._slope(state + tau / 2 * k1, torque)
        k3 = self._slope(state + tau / 2 * k2, torque)
        k4 = self._slope(state + tau * k3, torque)
        q1, q2, w1, w2 = (state + tau / 6 * (k1 + 2 * k2 + 2 * k3 + k4)).unbind(-1)
        bounded = w1.clamp(-4 * math.pi, 4 * math.pi), w2.clamp(-9 * math.pi, 9 * math.pi)
        return torch.stack((_wrap(q1), _wrap(q2), *bounded), -1)

    def _slope(self, state: Tensor, torque: Tensor) -> Tensor:
        m, l, gravity, inertia = self._parameter("mass", state), self._parameter("length", state), 9.8, 1.0
        c = l / 2
        q1, q2, w1, w2 = state.unbind(-1)
        sin, cos = m * l * c * torch.sin(q2), m * l * c * torch.cos(q2)
        own = m * c**2 + inertia
        d2 = own + cos
        d1 = own + d2 + cos + m * l**2
        p2 = m * c * gravity * torch.sin(q1 + q2)
        p1 = m * (c + l) * gravity * torch.sin(q1) - w2 * (w2 + 2 * w1) * sin + p2
        turn2 = (torque + d2 / d1 * p1 - w1**2 * sin - p2) / (own - d2**2 / d1)
        turn1 = -(d2 * turn2 + p1) / d1
        return torch.stack((w1, w2, turn1, turn2), -1)

    def _terminated(self, state: Tensor) -> Tensor:
        q1, q2 = state[..., 0], state[..., 1]
        return -torch.cos(q1) - torch.cos(q1 + q2) > 1

    def _reward(self, terminated: Tensor) -> Tensor:
        return terminated.long() - 1

    def _observation(self, state: Tensor) -> Tensor:
        q1, q2, w1, w2 = state.unbind(-1)
        return torch.stack((torch.cos(q1), torch.sin(q1), torch.cos(q2), torch.sin(q2), w1, w2), -1)


def _wrap(angle: Tensor) -> Tensor:
    return angle - 2 * math.pi * torch.round(angle / (2 * math.pi))
