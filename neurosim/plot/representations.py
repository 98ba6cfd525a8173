"""What populations represent: how alike they are (CKA), and classes in the plane (t-SNE)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from neurosim.describe.pieces import counted
from neurosim.errors import NeurosimError
from neurosim.plot.style import LINES, SEQUENTIAL, WIDTH, empty_figure, style

#: ``{population: (samples, cells)}``, the same samples in the same order; such as those of
#: `neurosim.analysis.representations.activities`.
Activities = Mapping[str, np.ndarray]

#: Most populations of a t-SNE figure.
PANELS = 6
#: Populations up to which the numbers stand in the matrix of CKA.
NUMBERED = 12


def cka_figure(activities: Activities, before: Activities | None = None, title: str | None = None) -> Figure:
    """Draw the linear CKA between all pairs of populations, as a matrix (with its numbers, up to 12 populations).

    Parameters
    ----------
    activities
        ``{population: (samples, cells)}``, see `neurosim.analysis.representations.activities`. At least two.
    before
        The same populations before training; drawn at the left, in the same colours.
    title
        By default the number of samples.

    Raises
    ------
    NeurosimError
        Fewer than two populations, other ones before training, different numbers of samples.
    """
    from neurosim.analysis.alignment import cka  # its package loads torch

    names = list(activities)
    if len(names) < 2:
        raise NeurosimError(f"Got the activity of {', '.join(names) or 'no population'}; wanted at least two.")
    if before is not None and list(before) != names:
        raise NeurosimError(f"Before training: {', '.join(before)}; after it: {', '.join(names)}. Wanted the same.")
    parts = {"before training": before, "after training": activities} if before is not None else {"": activities}
    samples = len(next(iter(activities.values())))
    numbered = len(names) <= NUMBERED
    side = min(max(0.8 + 0.5 * len(names), 2.6), (WIDTH - 0.9) / len(parts))
    with style():
        figure = empty_figure(side * len(parts) + 0.9, side + 0.5)
        figure.suptitle(title or f"linear CKA, {samples} samples")
        panels = figure.subplots(1, len(parts), squeeze=False)[0]
        for axes, (name, one) in zip(panels, parts.items(), strict=True):
            assert one is not None
            values = [[cka(one[a], one[b]) for b in names] for a in names]
            matrix = np.array([[np.nan if x is None else x for x in row] for row in values])
            image = axes.imshow(matrix, vmin=0.0, vmax=1.0, cmap=SEQUENTIAL)
            for (row, column), value in np.ndenumerate(matrix) if numbered else ():
                text = f"{value:.2f}".replace("0.", ".", 1) if value < 0.995 else "1" if value == value else "–"
                axes.text(
                    column,
                    row,
                    text,
                    ha="center",
                    va="center",
                    size=9 - 0.25 * len(names),
                    color="white" if value < 0.5 else "black",
                )
            axes.set_xticks(range(len(names)), names, rotation=90 if max(map(len, names)) > 4 else 0)
            axes.set_yticks(range(len(names)), names)
            axes.tick_params(length=0)
            axes.spines[:].set_visible(False)
            axes.set_xlabel("population")
            axes.set_title(name)
        panels[0].set_ylabel("population")
        figure.colorbar(image, ax=list(panels), label="CKA (dimensionless)", shrink=0.8)
    return figure


def tsne_figure(
    activities: Activities, labels: np.ndarray, seed: int = 0, perplexity: float = 30.0, title: str | None = None
) -> Figure:
    """Draw each population's activity in the plane by t-SNE; a sample is drawn as the number of its class.

    Every panel is an embedding of its own: positions and axes of two panels have nothing to do with each other.

    Parameters
    ----------
    activities
        ``{population: (samples, cells)}``, see `neurosim.analysis.representations.activities`; at most 6.
    labels
        (samples,) class numbers.
    seed
        Of the embedding, which starts from principal components.
    perplexity
        Of the embedding, below the number of samples (default 30, or a third of the samples where these are fewer than 90).
    title
        By default the number of samples.

    Raises
    ------
    NeurosimError
        scikit-learn is missing; no population or too many; labels that do not fit.
    """
    try:
        from sklearn.manifold import TSNE
    except ImportError:
        raise NeurosimError(
            "t-SNE needs scikit-learn, which is not installed; install it with pip install 'neurosim[analysis]'."
        ) from None
    if not 0 < len(activities) <= PANELS:
        raise NeurosimError(f"Got {len(activities)} populations; wanted 1 to {PANELS}. Name those to draw.")
    labels = np.asarray(labels)
    for name, values in activities.items():
        if labels.shape != (len(values),):
            raise NeurosimError(
                f"'{name}' has {len(values)} samples and the labels have the shape {labels.shape}; wanted ({len(values)},)."
            )
    classes = np.unique(labels)
    perplexity = min(perplexity, len(labels) / 3)
    columns = min(3, len(activities))
    rows = -(-len(activities) // columns)
    with style():
        figure = empty_figure(WIDTH * columns / 3 + 0.2, 0.7 + 2.75 * rows)
        numbers = f"{len(labels)} samples, {len(classes)} classes, each drawn as its number; perplexity {perplexity:g}"
        figure.suptitle(f"{title} ({numbers})" if title else f"t-SNE of {numbers}")
        panels: list[Axes] = list(figure.subplots(rows, columns, squeeze=False).ravel())
        for axes, (name, values) in zip(panels, activities.items(), strict=False):
            embed: Any = TSNE(perplexity=perplexity, init="pca" if values.shape[1] > 1 else "random", random_state=seed)
            points = embed.fit_transform(np.asarray(values, dtype=np.float64))
            for k, label in enumerate(classes):
                mine = labels == label
                axes.scatter(
                    *points[mine].T,
                    marker=f"${label}$",
                    s=26 if label < 10 else 50,
                    color=LINES[k % len(LINES)],
                    linewidths=0.2,
                )
            axes.set_title(f"{name} ({counted(values.shape[1], 'cell')})")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_xlabel("t-SNE 1 (arbitrary unit)")
            axes.set_ylabel("t-SNE 2 (arbitrary unit)")
        for axes in panels[len(activities) :]:
            axes.set_visible(False)
    return figure
