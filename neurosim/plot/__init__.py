"""Figures, all in one style: colours that colour-blind readers can tell apart, units on axes, phases shaded.

They are drawn from what was recorded or computed; nothing is simulated here (see `neurosim.analysis`).
Functions return a ``matplotlib.figure.Figure`` and leave pyplot alone, so they work without a display; `save_figure` writes PNG, PDF or SVG.
``docs/gallery.md`` shows one of each.
"""

from neurosim.plot.cosine import cosine_figure
from neurosim.plot.evolution import evolution_figure
from neurosim.plot.fi import fi_figure
from neurosim.plot.fields import fields_figure
from neurosim.plot.levels import comparison_figure, save_comparison
from neurosim.plot.network import network_figure
from neurosim.plot.raster import raster_figure, rates_figure, save_raster
from neurosim.plot.representations import cka_figure, tsne_figure
from neurosim.plot.style import PALETTE, save_figure
from neurosim.plot.traces import save_traces, traces_figure
from neurosim.plot.training import learning_curves, save_learning_curves
from neurosim.plot.weights import feedback_pairs, weights_figure

__all__ = [
    "PALETTE",
    "cka_figure",
    "comparison_figure",
    "cosine_figure",
    "evolution_figure",
    "feedback_pairs",
    "fi_figure",
    "fields_figure",
    "learning_curves",
    "network_figure",
    "raster_figure",
    "rates_figure",
    "save_comparison",
    "save_figure",
    "save_learning_curves",
    "save_raster",
    "save_traces",
    "traces_figure",
    "tsne_figure",
    "weights_figure",
]
