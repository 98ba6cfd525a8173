"""Figures, all in one style: colours that colour-blind readers can tell apart, units on axes, phases shaded.

Functions return a ``matplotlib.figure.Figure`` and leave pyplot alone, so they work without a display.
"""

from neurosim.plot.style import PALETTE, save_figure
from neurosim.plot.traces import (
    comparison_figure,
    raster_figure,
    save_comparison,
    save_raster,
    save_traces,
    traces_figure,
)
from neurosim.plot.training import learning_curves, save_learning_curves

__all__ = [
    "PALETTE",
    "comparison_figure",
    "learning_curves",
    "raster_figure",
    "save_comparison",
    "save_figure",
    "save_learning_curves",
    "save_raster",
    "save_traces",
    "traces_figure",
]
