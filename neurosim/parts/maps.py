"""Stacks of levels, of cells or of maps of cells: their shapes, their convolutions, biases, and how weights start."""

from __future__ import annotations

import math
from collections.abc import Sequence

from neurosim.description import Constant, Conv2d, Dense, PerMap, PlasticityRule, Projection, Uniform, Weights
from neurosim.errors import NeurosimError

#: Cells of a level, or its (maps, height, width).
Shape = int | tuple[int, int, int]

#: 3 x 3 convolutions that halve the maps' height and width, by max-pooling or by their stride, or double them.
POOLED = Conv2d(3, padding=1, pool=2)
STRIDED = Conv2d(3, stride=2, padding=1)
DOUBLED = Conv2d(3, padding=1, upsample=2)


def cells_of(shape: Shape) -> int:
    """Number of cells of a level."""
    return math.prod(shape) if isinstance(shape, tuple) else shape


def square_maps(maps: Sequence[int], pixels: int, halved: Sequence[int]) -> list[tuple[int, int, int]]:
    """Shapes (maps, side, side) of levels whose maps the levels below have halved so many times, ``side = pixels/2^halved``.

    Raises
    ------
    NeurosimError
        Pixels that cannot be halved as often.
    """
    most = max(halved)
    if pixels % 2**most:
        raise NeurosimError(
            f"pixels = {pixels} cannot be halved {most} times, once per level of maps; expected a multiple of {2**most}. "
            "Pad the pictures, or leave levels out."
        )
    return [(n, pixels // 2**h, pixels // 2**h) for n, h in zip(maps, halved, strict=True)]


def level_shapes(sizes: Sequence[int], pixels: int | None = None) -> list[Shape]:
    """Shapes of the levels of a classifier, the last of which are its classes.

    Parameters
    ----------
    sizes
        Cells of each level; with `pixels` the channels of the picture, then maps of each level, then classes.
    pixels
        Height and width of the picture; each level of maps halves them. None: no maps.
    """
    if pixels is None:
        return list(sizes)
    return [*square_maps(sizes[:-1], pixels, range(len(sizes) - 1)), sizes[-1]]


def fan_in_uniform(cells: int) -> Uniform:
    """Weights from U(-k, k), ``k = 1/sqrt(cells)``, for cells with so many inputs each: where torch's layers start."""
    return Uniform(-(cells**-0.5), cells**-0.5)


def bias(name: str, port: str, start: Weights, rule: PlasticityRule | None = None, per_map: bool = False) -> Projection:
    """A bias ``I_j = b_j`` of each cell, or of each map: weights (1, cells) or (1, maps) from the rate 1 of `one`."""
    return Projection(name, "one", port, start, rule, PerMap() if per_map else Dense())


def affine(
    name: str,
    source: str,
    shape: Shape,
    port: str,
    rule: PlasticityRule | None = None,
    connectivity: Dense | Conv2d = Dense(),
    biases: str = "",
) -> list[Projection]:
    """Weights onto a port, and biases where they have a name: ``I = r W + b``. They start as in torch's layers, biases at 0.

    Parameters
    ----------
    name
        Name of the weights.
    source, shape
        The population below, and its cells or (maps, height, width).
    connectivity
        `Dense`, or a convolution; its biases are one per map.
    """
    maps = isinstance(connectivity, Conv2d)
    inputs = shape[0] * connectivity.size**2 if maps and isinstance(shape, tuple) else cells_of(shape)
    weights = Projection(name, source, port, fan_in_uniform(inputs), rule, connectivity)
    return [weights, *([bias(biases, port, Constant(0.0), rule, per_map=maps)] if biases else [])]
