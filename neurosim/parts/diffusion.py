"""Volume transmission: how a messenger released at few sites spreads over the cells of a line or a sheet.

Cells lie on a lattice of unit spacing, release sites at the centres of equal stretches of it: on a line of n cells and K sites
``s_k = (k + 1/2) n/K - 1/2``, on a sheet the same along both sides. Widths are given in spacings of the sites, n/K along a line, so that a
kernel keeps its shape when the same sites reach another number of cells. Our reconstruction: no kernel of a published credit diffusion was found.
"""

from __future__ import annotations

import math

import numpy as np

from neurosim.errors import NeurosimError, unknown

KERNELS = ("gauss", "exp", "block", "chain")
LATTICES = ("line", "sheet")


def release_sites(n: int, ratio: float, lattice: str = "line") -> int:
    """Number of release sites K for n cells, one for each `ratio` cells: ``ceil(n/ratio)``, on a sheet ``ceil(sqrt(n/ratio))**2``."""
    if lattice == "line":
        return max(1, math.ceil(n / ratio - 1e-9))
    return max(1, math.ceil(_side(n, "cells") / math.sqrt(ratio) - 1e-9)) ** 2


def diffusion_kernel(
    sites: int, n: int, kernel: str = "gauss", width: float = 0.5, lattice: str = "line"
) -> np.ndarray:
    """The matrix D (sites, n) with which release at the sites reaches the cells, ``c = k D``.

    Parameters
    ----------
    sites, n
        Numbers of release sites and of cells; on a sheet both are squares.
    kernel
        ``"gauss"``: exp(-d^2/(2 w^2)); ``"exp"``: exp(-d/w), the steady state of diffusion with decay on an unbounded line; ``"block"``: 1 at the
        nearest site (of two equally near ones the lower), all normalised so that the weights of each cell sum to 1. ``"chain"``: the
        steady state of a messenger that diffuses between neighbours and decays, ``(n/sites) (1 + w^2 L)^-1`` at the sites' nearest cells,
        L the Laplacian of the lattice with reflecting ends; its columns are not normalised, each site's weights sum to n/sites.
    width
        w in spacings of the sites.
    lattice
        ``"line"`` or ``"sheet"``.

    Raises
    ------
    NeurosimError
        An unknown kernel or lattice, more sites than cells, no square where a sheet wants one, a width that is not above 0.
    """
    if kernel not in KERNELS:
        raise unknown("kernel of diffusion", kernel, KERNELS)
    if lattice not in LATTICES:
        raise unknown("lattice", lattice, LATTICES)
    if not 1 <= sites <= n:
        raise NeurosimError(
            f"{sites} release sites for {n} cells; expected at least one, and no more than cells. Raise the ratio of cells to sites."
        )
    if not width > 0 or not math.isfinite(width):
        raise NeurosimError(f"width = {width}; expected a number above 0, in spacings of the release sites.")
    cells, places = positions(n, n, lattice), positions(sites, n, lattice)
    spacing = (n / sites) ** (1.0 if lattice == "line" else 0.5)
    if kernel == "chain":
        spread = np.linalg.inv(
            np.eye(n) + (width * spacing) ** 2 * (np.diag(degree(n, lattice)) - neighbours(n, lattice))
        )
        return n / sites * spread[nearest_cells(sites, n, lattice)]
    distance = np.linalg.norm(places[:, None] - cells[None], axis=2)
    if kernel == "block":
        found = np.zeros((sites, n))
        nearest = (distance < distance.min(axis=0) + 1e-9).argmax(axis=0)  # equally near but for rounding: the lower
        found[nearest, np.arange(n)] = 1.0
        return found
    power = (distance / (width * spacing)) ** 2 / 2 if kernel == "gauss" else distance / (width * spacing)
    found = np.exp(
        power.min(axis=0) - power
    )  # the nearest site's weight is 1 before the division: no 0/0 for a narrow kernel
    return found / found.sum(axis=0)


def positions(count: int, n: int, lattice: str) -> np.ndarray:
    """Where `count` places, evenly spread over n cells, lie on the lattice (count, dimensions)."""
    if lattice == "line":
        return ((np.arange(count) + 0.5) * n / count - 0.5)[:, None]
    side, cells = _side(count, "release sites"), _side(n, "cells")
    along = (np.arange(side) + 0.5) * cells / side - 0.5
    return np.stack(np.meshgrid(along, along, indexing="ij"), axis=-1).reshape(-1, 2)


def nearest_cells(sites: int, n: int, lattice: str) -> np.ndarray:
    """The cell that each release site lies nearest to (of two equally near ones the lower)."""
    places = np.ceil(positions(sites, n, lattice) - 0.5 - 1e-9).astype(int)
    return places[:, 0] if lattice == "line" else places[:, 0] * _side(n, "cells") + places[:, 1]


def neighbours(n: int, lattice: str) -> np.ndarray:
    """1 between neighbours of the lattice, else 0 (n, n); ends have fewer neighbours, so nothing leaves there."""
    along = np.eye(n, k=1) + np.eye(n, k=-1)
    if lattice == "line":
        return along
    side = _side(n, "cells")
    along = np.eye(side, k=1) + np.eye(side, k=-1)
    return np.kron(along, np.eye(side)) + np.kron(np.eye(side), along)


def degree(n: int, lattice: str) -> np.ndarray:
    """Number of neighbours of each cell (n,)."""
    return neighbours(n, lattice).sum(axis=0)


def _side(n: int, what: str) -> int:
    side = math.isqrt(n)
    if side * side != n:
        raise NeurosimError(f"{n} {what} do not fill a square sheet; expected a square number, or lattice = 'line'.")
    return side
