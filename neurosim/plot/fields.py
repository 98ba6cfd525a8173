"""Receptive fields: the weights that a cell gets from an image, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from neurosim.describe.pieces import counted
from neurosim.errors import NeurosimError
from neurosim.plot.style import DIVERGING, WIDTH, empty_figure, plain, shown_unit, style

#: Cells that are drawn where none are named.
CELLS = 40
COLUMNS = 10


def fields_figure(
    weights: np.ndarray,
    shape: Sequence[int] | None = None,
    cells: Sequence[int] | None = None,
    name: str = "",
    title: str | None = None,
    unit: str = "1",
) -> Figure:
    """Draw the incoming weights of cells as pictures, all in one scale of colours that is symmetric about 0.

    Parameters
    ----------
    weights
        (pixels, cells), of a dense projection from an image; or the kernels (maps * size**2, target maps) of a `Conv2d`.
    shape
        (height, width), or (channels, height, width), whose channels stand side by side. By default a square, or three.
    cells
        Numbers of the cells; by default the first 40.
    name
        What the colour bar calls the weights.
    title
        By default what is drawn.
    unit
        Base unit of the weights, such as ``"amp"``, in which they are given (default: dimensionless).

    Raises
    ------
    NeurosimError
        Weights that are no matrix; pixels that do not fit the shape; a cell out of range, or none.
    """
    weights = np.asarray(weights, dtype=float)
    if weights.ndim != 2:
        raise NeurosimError(
            f"The weights have the shape {weights.shape}; wanted (pixels, cells) of a dense projection."
        )
    pixels, count = weights.shape
    side, third = round(pixels**0.5), round((pixels / 3) ** 0.5)
    guess = (3, third, third) if side**2 != pixels and 3 * third**2 == pixels else (side, side)
    shape = tuple(shape) if shape is not None else guess
    if int(np.prod(shape)) != pixels or len(shape) not in (2, 3):
        raise NeurosimError(
            f"{pixels} weights per cell do not make a picture of {' x '.join(map(str, shape))}; give shape = (height, width) or "
            "(channels, height, width)."
        )
    chosen = list(range(min(CELLS, count))) if cells is None else [int(cell) for cell in cells]
    if not chosen:
        raise NeurosimError("Got no cell; wanted at least one.")
    for cell in chosen:
        if not 0 <= cell < count:
            raise NeurosimError(f"There is no cell {cell}: the weights reach {count} cells, 0 to {count - 1}.")
    pictures = [picture(weights[:, cell], shape) for cell in chosen]
    limit = float(np.nanmax(np.abs([p[np.isfinite(p)].max(initial=0) for p in map(np.abs, pictures)]))) or 1.0
    factor, shown = shown_unit(unit, limit)
    columns = min(COLUMNS, len(chosen))
    name = plain(name)
    rows = -(-len(chosen) // columns)
    wide = min(0.78 * max(1, pictures[0].shape[1] / pictures[0].shape[0]), (WIDTH - 1.0) / columns)
    tall = 0.95 * wide * pictures[0].shape[0] / pictures[0].shape[1] + 0.18
    with style():
        figure = empty_figure(max(columns * wide + 1.0, 4.0), max(rows * tall + 0.32, 1.8))
        of = f"{len(chosen)} of {count} cells" if len(chosen) < count else counted(count, "cell")
        figure.suptitle(
            title or f"incoming weights{f' {name}' if name else ''} of {of}, {' × '.join(map(str, shape))} pixels"
        )
        layout: Any = figure.get_layout_engine()
        layout.set(w_pad=0.03, h_pad=0.035, wspace=0.0, hspace=0.0)
        panels = figure.subplots(rows, columns, squeeze=False)
        for axes in panels.ravel():
            axes.set_axis_off()
        for axes, cell, one in zip(panels.ravel(), chosen, pictures, strict=False):
            image = axes.imshow(
                one * factor, cmap=DIVERGING, vmin=-limit * factor, vmax=limit * factor, interpolation="nearest"
            )
            axes.set_title(str(cell), fontsize=8, pad=2)
        bar = figure.colorbar(
            image, ax=panels, label=f"weight{f' {name}' if name else ''}\n({shown})", shrink=0.9, pad=0.02
        )
        bar.outline.set_visible(False)  # type: ignore[operator]
    return figure


def picture(weights: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """The weights of one cell as (height, width); channels side by side, a column of NaN between them."""
    if len(shape) == 2:
        return weights.reshape(shape)
    maps = weights.reshape(shape)
    gap = np.full((shape[1], 1), np.nan)
    return np.hstack([part for one in maps for part in (one, gap)][:-1])
