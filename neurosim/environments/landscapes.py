"""Functions of two variables with many valleys: where an optimiser starts, where it should end, what counts as there.

    egg_box      0.1 |d|^2 + 1 - (cos(2 pi d_x/1.5) + cos(2 pi d_y/1.5))/2
    ackley       20 - 20 exp(-0.2 sqrt(|d|^2/2)) + e - exp((cos(2 pi d_x) + cos(2 pi d_y))/2)
    rastrigin    20 + d_x^2 - 10 cos(2 pi d_x) + d_y^2 - 10 cos(2 pi d_y)
    himmelblau   (d_x^2 + d_y - 11)^2 + (d_x + d_y^2 - 7)^2
    rosenbrock   (1 - d_x)^2 + 100 (d_y - d_x^2)^2

Here d = h - s: the shift s carries a landscape along, so that a place learnt by heart is of no use in the next task.

Sources: the egg-box tilted towards s is ours. Ackley 1987 (A connectionist machine for genetic hillclimbing), Rastrigin 1974
(as Muehlenbein et al. 1991 widened it), Himmelblau 1972 (Applied nonlinear programming), Rosenbrock 1960 (Comput. J. 3, 175)
are written from memory with their usual constants, and so are the boxes; the literature also has wider ones for Ackley
(32.768) and Rosenbrock ([-5, 10]).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from neurosim.errors import NeurosimError, unknown

#: Shifts are drawn from U(-SHIFT, SHIFT)^2.
SHIFT = 1.0


@dataclass(frozen=True)
class Landscape:
    """One function f(h; s) and what is known about it.

    Attributes
    ----------
    name
        What `landscape` knows it by.
    formula
        f of d = h - s: shape (..., 2) to (...).
    minima
        Every global minimum where s = 0; a shift is added to it.
    box
        Starts are drawn from U(-box, box)^2, whatever the shift.
    minimum
        f at the minima.
    threshold
        A search has found a minimum when f - `minimum` is below it; 0.1 shuts out every other valley.
    """

    name: str
    formula: Callable[[Tensor], Tensor]
    minima: tuple[tuple[float, float], ...]
    box: float
    minimum: float = 0.0
    threshold: float = 0.1

    def value(self, h: Tensor, shift: Tensor | None = None) -> Tensor:
        """Return f(h; s), in the floating-point type of h; autograd goes through it.

        Parameters
        ----------
        h
            Places, shape (..., 2).
        shift
            s, a shape (..., 2) that broadcasts with that of h; 0 when absent.

        Raises
        ------
        NeurosimError
            For places that are not floating-point numbers, and shapes that do not end in 2 or do not broadcast.
        """
        if not h.is_floating_point():
            raise NeurosimError(f"Landscape '{self.name}': the places h are {h.dtype}. Wanted floats: use h.float().")
        if h.shape[-1:] != (2,):
            raise NeurosimError(
                f"Landscape '{self.name}': the places h have shape {tuple(h.shape)}. Wanted (..., 2), x and y last."
            )
        if shift is None:
            return self.formula(h)
        if shift.shape[-1:] != (2,) or not _broadcast(h, shift):
            raise NeurosimError(
                f"Landscape '{self.name}': the shift has shape {tuple(shift.shape)} and the places h have {tuple(h.shape)}. "
                "Wanted (..., 2) that broadcasts with them: one shift (2,), or one for each place."
            )
        return self.formula(h - shift.to(h))

    def starts(self, shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype | None = None) -> Tensor:
        """Draw places U(-box, box)^2, shape (*shape, 2), on the generator's device; torch's default type without `dtype`."""
        return _uniform(self.box, shape, generator, dtype)

    def shifts(self, shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype | None = None) -> Tensor:
        """Draw shifts U(-1, 1)^2, otherwise as `starts`."""
        return _uniform(SHIFT, shape, generator, dtype)


def _broadcast(h: Tensor, shift: Tensor) -> bool:
    return all(1 in (a, b) or a == b for a, b in zip(reversed(h.shape), reversed(shift.shape), strict=False))


def _uniform(width: float, shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype | None) -> Tensor:
    return width * (2 * torch.rand((*shape, 2), generator=generator, dtype=dtype, device=generator.device) - 1)


# 1 - cos(2a) is written 2 sin(a)^2, and exp(a) - 1 as expm1(a): single precision then resolves the bottom of a valley.


def _egg_box(d: Tensor) -> Tensor:
    return (0.1 * d**2 + torch.sin(math.pi / 1.5 * d) ** 2).sum(-1)


def _ackley(d: Tensor) -> Tensor:
    # The minimum is the tip of a cone: vector_norm has slope 0 there, where a square root would give NaN.
    cone = -20 * torch.expm1(-0.2 / math.sqrt(2) * torch.linalg.vector_norm(d, dim=-1))
    return cone - math.e * torch.expm1(-(torch.sin(math.pi * d) ** 2).sum(-1))


def _rastrigin(d: Tensor) -> Tensor:
    return (d**2 + 20 * torch.sin(math.pi * d) ** 2).sum(-1)


def _himmelblau(d: Tensor) -> Tensor:
    x, y = d.unbind(-1)
    return (x**2 + y - 11) ** 2 + (x + y**2 - 7) ** 2


def _rosenbrock(d: Tensor) -> Tensor:
    x, y = d.unbind(-1)
    return (1 - x) ** 2 + 100 * (y - x**2) ** 2


_HIMMELBLAU = (
    (3.0, 2.0),
    (-2.805118086952745, 3.131312518250573),
    (-3.779310253377747, -3.283185991286170),
    (3.584428340330492, -1.848126526964404),
)

LANDSCAPES: dict[str, Landscape] = {
    entry.name: entry
    for entry in (
        Landscape("egg_box", _egg_box, ((0.0, 0.0),), box=4.0),
        Landscape("ackley", _ackley, ((0.0, 0.0),), box=5.0),
        Landscape("rastrigin", _rastrigin, ((0.0, 0.0),), box=5.12),
        Landscape("himmelblau", _himmelblau, _HIMMELBLAU, box=5.0),
        Landscape("rosenbrock", _rosenbrock, ((1.0, 1.0),), box=2.048),
    )
}


def landscape(name: str) -> Landscape:
    """Return a landscape by its name; `NeurosimError` for one that does not exist, with the nearest."""
    if name not in LANDSCAPES:
        raise unknown("landscape", name, LANDSCAPES)
    return LANDSCAPES[name]
