"""Kernels of the first convolution after counter-current learning and after backprop of the same net, from the same initial weights.

MNIST, the preset's CNN of two levels of maps, 300 updates of 128 images. Backprop: the same clipping and momentum, learning rate 0.1, not searched.
How rough a kernel is, in one number: mean square of the difference of neighbours over twice the variance of its weights (1: no
relation between neighbours, near 0: smooth).

    python experiments/counter_current/kernels.py
    python experiments/counter_current/kernels.py --runs runs/ccl_cifar_cnn runs/bp_cifar_cnn      kernels of finished runs, whatever their data

MNIST lies in the folder of NEUROSIM_DATA. About 3 minutes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from _common import MODEL, follow, parse, parser
from matplotlib.figure import Figure

from neurosim.analysis.report import column, mean_sd, save, table
from neurosim.files import user_path
from neurosim.plot.style import empty_figure, style
from neurosim.training import load, resolve
from neurosim.training.config import label

UPDATES = (0, 300)
METHODS: dict[str, dict[str, Any]] = {
    "counter_current": {},
    "backprop": {"method": "backprop", "optimiser": "sgd", "learning_rate": 0.1, "momentum": 0.5, "clip": 1.0},
}
NAMES = {"counter_current": "counter-current learning", "backprop": "backprop"}


def kernels(weights: np.ndarray, channels: int) -> np.ndarray:
    """(maps, channels, rows, columns) from the circuit's (channels rows columns, maps)."""
    side = round((len(weights) / channels) ** 0.5)
    return weights.T.reshape(-1, channels, side, side)


def roughness(found: np.ndarray) -> float:
    """Median over kernels, see above."""
    steps = [np.diff(found, axis=axis) for axis in (2, 3)]
    squares = sum((step**2).sum(axis=(1, 2, 3)) for step in steps) / sum(step[0].size for step in steps)
    return float(np.median(squares / (2 * found.var(axis=(1, 2, 3)))))


def draw(found: dict[str, np.ndarray]) -> Figure:
    """A mosaic per name; maps of three channels in colour, each kernel scaled on its own, maps of one in grey."""
    with style():
        figure = empty_figure(4.2 * len(found) + 0.4, 2.6)
        for axes, (name, maps) in zip(figure.subplots(1, len(found), squeeze=False)[0], found.items(), strict=True):
            across = int(np.ceil(np.sqrt(2 * len(maps))))
            side = maps.shape[2] + 1
            colour = maps.shape[1] == 3
            largest = np.abs(maps).max()
            picture = np.full((side * -(-len(maps) // across) - 1, side * across - 1, *([3] if colour else [])), np.nan)
            for k, kernel in enumerate(maps):
                i, j = side * (k // across), side * (k % across)
                shown = np.moveaxis(kernel, 0, -1) if colour else kernel.mean(axis=0)
                if colour:
                    shown = (shown - shown.min()) / np.ptp(shown)
                picture[i : i + side - 1, j : j + side - 1] = shown
            if colour:
                axes.imshow(np.nan_to_num(picture, nan=1.0))
                axes.set_xlabel("red, green, blue; each kernel on its own scale")
            else:
                image = axes.imshow(picture, cmap="gray", vmin=-largest, vmax=largest)
                figure.colorbar(image, ax=axes, label="weight (dimensionless)", shrink=0.7)
            axes.set_title(name)
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
    return figure


def of_runs(folders: list[Path], out: Path) -> None:
    found, lines = {}, []
    for folder in folders:
        run = load(folder)
        channels = run.config.settings["sizes"][0]
        name = f"{NAMES.get(label(run.config), label(run.config))}, {run.config.data}, {len(run.metrics)} epochs"
        found[name] = kernels(run.weights["U1"], channels)
        drawn = kernels(run.circuit.initial_weights(run.config.seed)["U1"], channels)
        lines.append([name, f"{roughness(drawn):.3f}", f"{roughness(found[name]):.3f}"])
    text = "# First kernels of finished runs\n\n" + table(["run", "roughness, drawn", "roughness, trained"], lines)
    rows = [dict(zip(("run", "drawn", "trained"), line, strict=True)) for line in lines]
    save(out, "kernels_of_runs", text, draw(found), {}, {"rows": rows})


def main() -> None:
    command = parser(__doc__ or "", seeds=3)
    command.add_argument(
        "--runs", type=user_path, nargs="+", metavar="DIR", help="draw the kernels of these run folders instead"
    )
    options = parse(command)
    if options.runs:
        of_runs(options.runs, options.out)
        return
    shown: dict[str, np.ndarray] = {}
    rows: list[dict[str, Any]] = []
    updates = (0, 20) if options.quick else UPDATES
    for method, schedule in METHODS.items():
        for seed in range(options.seeds):
            config = resolve(MODEL, {"layers": "pooled"}, data="mnist", seed=seed, **schedule)

            def read(
                update: int, trainer: Any, weights: dict[str, np.ndarray], method: str = method, seed: int = seed
            ) -> None:
                found = kernels(weights["U1"], 1)
                rows.append(
                    {
                        "method": method,
                        "seed": seed,
                        "update": update,
                        "roughness": roughness(found),
                        "rms": float(found.std()),
                    }
                )
                if seed == 0 and update:
                    shown[NAMES[method]] = found
                elif seed == 0:
                    shown.setdefault("drawn weights", found)

            trainer = follow(config, updates, read)
            rows[-1]["validation"] = trainer.evaluate("validation")["accuracy"]
    lines = []
    for method, name in NAMES.items():
        last = {"method": method, "update": updates[-1]}
        measured = [
            mean_sd(column(rows, "roughness", method=method, update=0), 1.0, 3), mean_sd(column(rows, "roughness", **last), 1.0, 3),
            mean_sd(column(rows, "rms", **last), 1.0, 3), mean_sd(column(rows, "validation", **last)),
        ]  # fmt: skip
        lines.append([name, *measured])
    header = ["method", "roughness, drawn", f"roughness, {updates[-1]} updates", "rms weight", "validation (%)"]
    text = (
        f"# First kernels, MNIST\n\nMean ± sd (n - 1) over {options.seeds} seeds of the median over 32 kernels.\n\n"
        + table(header, lines)
    )
    save(options.out, "kernels", text, draw(shown), {"updates": updates, "methods": METHODS}, {"rows": rows})


if __name__ == "__main__":
    main()
