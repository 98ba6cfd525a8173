"""The angle between F_1 and W_2^T against iterations: one epoch of MNIST, read every 100 batches.

784-500-10, preset `mnist_slow`, the authors' initial weights, seed 0, all training images. The paper draws the angle against thousands of
iterations; its curve starts at 90 degrees, reaches about 64 at 8,000 iterations and climbs to about 83 at 150,000 (read off a picture).

    python experiments/corinfomax/angle.py

MNIST has to lie in the folder of the environment variable NEUROSIM_DATA. About 2 minutes.
"""

from __future__ import annotations

import numpy as np
from _common import parse, parser
from matplotlib.figure import Figure
from tqdm import tqdm

from neurosim.analysis.report import save, table
from neurosim.analysis.weights import angle
from neurosim.plot.style import GREY, PALETTE, empty_figure, style
from neurosim.training import Trainer, resolve

EVERY = 100
SETTINGS = {"preset": "mnist_slow", "init": "published"}
SHOWN = (0, 100, 200, 500, 1000, 2000, 3000)


def draw(batches: np.ndarray, angles: np.ndarray) -> Figure:
    with style():
        figure = empty_figure(6.0, 3.8)
        axes = figure.subplots()
        axes.plot(batches / 1000, angles, color=PALETTE["blue"], marker="o", ms=3)
        axes.axhline(90, color=GREY, linestyle=":", linewidth=1.0)
        axes.set_xlabel("iterations (thousands of batches of 20)")
        axes.set_ylabel("angle between F₁ and W₂ᵀ (degrees)")
        axes.set_title("MNIST, 784-500-10, first epoch, seed 0")
    return figure


def main() -> None:
    options = parse(parser(__doc__ or ""))
    trainer = Trainer(resolve("corinfomax", SETTINGS, data="mnist", epochs=1, hold_out=False, seed=0), progress=False)
    rows: list[dict[str, float]] = []

    def read() -> None:
        if trainer.at.batches % EVERY == 0:
            weights = trainer.engine.weights()
            rows.append({"batch": trainer.at.batches, "angle": angle(weights["F1"], weights["W2"].T)})

    read()
    with tqdm(total=len(trainer.splits["train"]["image"]) // trainer.config.batch_size, unit="batch") as bar:
        trainer.epoch(1, bar, read)
    test = trainer.evaluate("test")["accuracy"]
    batches, angles = (np.array([row[key] for row in rows]) for key in ("batch", "angle"))
    lowest = int(angles.argmin())
    lines = [[n, f"{angles[batches == n][0]:.1f}"] for n in SHOWN]
    text = "\n".join(
        [
            "# Angle between F_1 and W_2^T against iterations",
            "",
            f"MNIST, 784-500-10, preset `mnist_slow`, `published` initial weights, seed 0, batches of 20. Lowest: {angles[lowest]:.1f} "
            f"degrees after {batches[lowest]} batches. Test accuracy after the epoch: {100 * test:.2f} %.",
            "",
            table(["batches", "angle (degrees)"], lines),
        ]
    )
    settings = {**SETTINGS, "seed": 0, "every": EVERY, "test_accuracy": test}
    save(options.out, "angle", text, draw(batches, angles), settings, {"rows": rows})


if __name__ == "__main__":
    main()
