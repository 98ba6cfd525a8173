"""t-SNE of the last hidden level of the forward net with that of the feedback net, before and after 10, 100 and 1,000 updates.

MNIST, MLP of six layers, preset (batches of 256), 500 validation images: the activity of level 5 for each image (circles), and the activity of the
feedback net's level 5 for each of the ten labels (squares), in one t-SNE per time, each on its own: positions and axes of two panels have nothing
to do with each other. The feedback net runs on labels alone, so it has ten points and no more.

Needs scikit-learn (pip install 'neurosim[analysis]').

    python experiments/counter_current/streams.py
    python experiments/counter_current/streams.py --seed 1 --quick

In numbers: the share of images whose nearest label (largest cosine of the two activities, in the full space, no t-SNE) is their own. MNIST lies in
the folder of NEUROSIM_DATA. About 1 minute.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from _common import MODEL, Streams, follow, parse, parser, validation
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from neurosim.analysis.report import save, table
from neurosim.plot.style import GREY, empty_figure, style
from neurosim.training import resolve

UPDATES = (0, 10, 100, 1000)
SAMPLES = 500
TSNE = {"perplexity": 30.0, "init": "pca", "random_state": 0}


def embedding() -> Any:
    """scikit-learn's t-SNE."""
    try:
        from sklearn.manifold import TSNE as found
    except ImportError:
        raise SystemExit(
            "streams.py draws a t-SNE and needs scikit-learn, which is not installed. Install it with pip install 'neurosim[analysis]' (or "
            "pip install scikit-learn)."
        ) from None
    return found(**TSNE)


def nearest(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """For each row of a, the row of b with the largest cosine."""
    return (a @ (b / np.linalg.norm(b, axis=1, keepdims=True)).T).argmax(axis=1)


def draw(found: dict[int, dict[str, np.ndarray]], labels: np.ndarray) -> Figure:
    with style():
        figure = empty_figure(3.1 * len(found) + 0.2, 4.0)
        for axes, (update, one) in zip(figure.subplots(1, len(found), squeeze=False)[0], found.items(), strict=True):
            images, classes = one["points"][: len(labels)], one["points"][len(labels) :]
            axes.scatter(*images.T, c=labels, cmap="tab10", vmin=-0.5, vmax=9.5, s=9, linewidths=0)
            image = axes.scatter(
                *classes.T, c=np.arange(len(classes)), cmap="tab10", vmin=-0.5, vmax=9.5, s=70, marker="s", edgecolors="black",
            )  # fmt: skip
            axes.set_title(f"{update:,} updates")
            axes.set_xlabel("t-SNE 1 (arbitrary units)")
            axes.set_xticks([])
            axes.set_yticks([])
        figure.axes[0].set_ylabel("t-SNE 2 (arbitrary units)")
        figure.colorbar(image, ax=figure.axes, label="class", ticks=range(10), shrink=0.9)
        handles = [
            Line2D([], [], linestyle="", marker="o", ms=4, color=GREY, label="forward net, one image"),
            Line2D([], [], linestyle="", marker="s", ms=8, color=GREY, markeredgecolor="black", label="feedback net, one label"),
        ]  # fmt: skip
        figure.legend(handles=handles, loc="outside upper center", ncols=2)
    return figure


def main() -> None:
    command = parser(__doc__ or "")
    command.add_argument("--seed", type=int, default=0, help="of weights and order of the data (default: 0)")
    options = parse(command)
    tsne = embedding()
    config = resolve(MODEL, {}, data="mnist", seed=options.seed)
    images, labels = validation(config, SAMPLES)
    streams = Streams(config.settings, images, labels)
    level = streams.top - 1
    found: dict[int, dict[str, np.ndarray]] = {}
    rows = []

    def read(update: int, trainer: Any, weights: dict[str, np.ndarray]) -> None:
        activity = streams(weights)
        first = [int(np.flatnonzero(labels == k)[0]) for k in range(10)]
        forward, feedback = activity[f"F{level}.r"], activity[f"D{level}.r"][first]
        own = float((nearest(forward, feedback) == labels).mean())
        found[update] = {"points": tsne.fit_transform(np.concatenate([forward, feedback]).astype(np.float64))}
        rows.append({"update": update, "own_label_nearest": own})

    trainer = follow(config, UPDATES[:3] if options.quick else UPDATES, read)
    accuracy = trainer.evaluate("validation")["accuracy"]
    text = "\n".join(
        [
            "# The two streams at the last hidden level",
            "",
            f"MNIST, MLP of six layers, seed {options.seed}, {SAMPLES} validation images. Validation accuracy at the end: {100 * accuracy:.1f} %.",
            "",
            table(
                ["updates", "nearest label is the own (%), chance 10"],
                [[f"{row['update']:,}", f"{100 * row['own_label_nearest']:.1f}"] for row in rows],
            ),
        ]
    )
    settings = {"seed": options.seed, "samples": SAMPLES, "level": level, "tsne": TSNE}
    save(options.out, "streams", text, draw(found, labels), settings, {"rows": rows, "validation": accuracy})


if __name__ == "__main__":
    main()
