"""Correlative information between neighbouring layers while the cells settle: free phase, then nudged phase.

Digits, 64-100-10, preset `digits`, trained for 30 epochs; then 500 training samples on torch:trajectory with plasticity off and the nudge
+beta. At each step (10 ms), with R_x = mean of x x^T over the samples (uncentred) and the circuit's own predictors W and F:

    right form, layer k below, k + 1 above    1/2 log det(R_{r_{k+1}} + eps I) - 1/2 log det(R_e + eps I)    e = r_{k+1} - r_k W_{k+1}
    left form (not for the input)             1/2 log det(R_{r_k} + eps I) - 1/2 log det(R_e + eps I)        e = r_k - r_{k+1} F_k

in nats, with the model's eps = 0.15. This is what the dynamics climb, as far as the label and the trace approximation of the second term let
them. It is negative where a predictor does worse than predicting 0. Beside it, the definition's own best linear predictor, for which
both forms are the same number:

    1/2 log det(R_low + eps I) + 1/2 log det(R_up + eps I) - 1/2 log det(R_both + eps I)

The authors' code logs layer-wise information while the cells settle; this is our reconstruction of such a log, not a figure of the
paper. The same is done for the drawn weights.

    python experiments/corinfomax/information.py

About 1 minute.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from _common import parse, parser
from matplotlib.figure import Figure

from neurosim import data, simulate
from neurosim.analysis.report import save, select, table
from neurosim.models import corinfomax
from neurosim.plot.style import PALETTE, SHADES, empty_figure, style
from neurosim.training import Trainer, resolve

SAMPLES = 500
EPSILON = 0.15
SEED = 0
#: predictor, layers (lower, upper), line
CURVES = (
    ("best", 0, 1, "-"), ("right", 0, 1, "--"),
    ("best", 1, 2, "-"), ("right", 1, 2, "--"), ("left", 1, 2, ":"),
)  # fmt: skip
NAMES = {(0, 1): "input, hidden", (1, 2): "hidden, output"}
COLOURS = {(0, 1): "blue", (1, 2): "vermillion"}
PREDICTORS = {"best": "best linear predictor", "right": "right form, W", "left": "left form, F"}


def log_det(x: np.ndarray) -> np.ndarray:
    """1/2 log det(R_x + eps I) at each step; x is (steps, samples, cells)."""
    correlation = np.swapaxes(x, 1, 2) @ x / x.shape[1]
    return 0.5 * np.linalg.slogdet(correlation + EPSILON * np.eye(x.shape[2]))[1]


def information(form: str, lower: np.ndarray, upper: np.ndarray, weights: dict[str, np.ndarray], k: int) -> np.ndarray:
    """Nats at each step: the right form (upper predicted from lower), the left one, or that of the best linear predictor."""
    if form == "best":
        return log_det(lower) + log_det(upper) - log_det(np.concatenate([lower, upper], axis=2))
    target, prediction = (upper, lower @ weights[f"W{k + 1}"]) if form == "right" else (lower, upper @ weights[f"F{k}"])
    return log_det(target) - log_det(target - prediction)


def measure(weights: dict[str, np.ndarray]) -> tuple[list[dict[str, Any]], np.ndarray, list[Any]]:
    """Curves by pair, time (ms) and the phases."""
    circuit = corinfomax.circuit("digits", random_sign=False)
    images, labels = (part[:SAMPLES] for part in data.load("digits").split("train"))
    result = simulate(
        circuit, images, labels, level="torch:trajectory", batch_size=SAMPLES, record=["pyr1.r", "pyr2.r"], weights=weights,
        plasticity="off", progress=False,
    )  # fmt: skip
    traces = result.traces
    inputs = np.broadcast_to(images.reshape(1, SAMPLES, -1), (len(traces.time), SAMPLES, images[0].size))
    rates = [inputs, traces["pyr1.r"], traces["pyr2.r"]]
    rows = []
    for form, below, above, _ in CURVES:
        curve = information(form, rates[below], rates[above], weights, below)
        rows.append({"form": form, "lower": below, "upper": above, "nats": curve.tolist()})
    return rows, 1e3 * traces.time, traces.phases


def report(rows: list[dict[str, Any]], nudge: int, test: float) -> str:
    lines = []
    for state in ("drawn", "trained"):
        for form, below, above, _ in CURVES:
            (row,) = select(rows, weights=state, form=form, lower=below)
            ends = [f"{row['nats'][k]:.3f}" for k in (0, nudge - 1, -1)]
            lines.append([state, NAMES[below, above], PREDICTORS[form], *ends])
    header = ["weights", "layers", "predictor", "start (rates 0)", "end of the free phase", "end of the nudged phase"]
    return "\n".join(
        [
            "# Correlative information while the cells settle (nats)",
            "",
            f"Digits, 64-100-10, seed {SEED}, {SAMPLES} training samples, plasticity off, beta = +1, eps = {EPSILON}. Test accuracy of the "
            f"trained net: {100 * test:.1f} %.",
            "",
            table(header, lines),
        ]
    )


def draw(rows: list[dict[str, Any]], time: np.ndarray, nudge: int) -> Figure:
    step = time[1] - time[0]
    edges = (time[0], time[nudge], time[-1] + step)
    with style():
        figure = empty_figure(9.5, 4.6)
        for axes, state in zip(figure.subplots(1, 2, sharey=True), ("drawn", "trained"), strict=True):
            for name, start, stop, shade in zip(("free", "nudged"), edges, edges[1:], SHADES[1:], strict=False):
                axes.axvspan(start, stop, color=shade, lw=0)
                axes.text((start + stop) / 2, 1.0, name, ha="center", va="bottom", transform=axes.get_xaxis_transform())
            for form, below, above, dashes in CURVES:
                (row,) = select(rows, weights=state, form=form, lower=below)
                label, colour = f"{NAMES[below, above]}: {PREDICTORS[form]}", PALETTE[COLOURS[below, above]]
                axes.plot(time, row["nats"], dashes, color=colour, label=label)
            axes.set_xlim(edges[0], edges[-1])
            axes.set_xlabel("time (ms)")
            axes.set_title(f"{state} weights", pad=18)
        figure.axes[0].set_ylabel("correlative information (nats)")
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


def main() -> None:
    options = parse(parser(__doc__ or ""))
    trainer = Trainer(resolve("corinfomax", {"preset": "digits"}, data="digits", seed=SEED))
    drawn = {name: w.astype(float) for name, w in trainer.engine.weights().items()}
    trainer.fit()
    trained = {name: w.astype(float) for name, w in trainer.engine.weights().items()}
    rows: list[dict[str, Any]] = []
    for state, weights in (("drawn", drawn), ("trained", trained)):
        found, time, phases = measure(weights)
        rows += [{"weights": state, **row} for row in found]
    start = next(span.start for span in phases if span.name == "nudged")
    nudge = int(np.searchsorted(time, 1e3 * start - 1e-6))
    test = trainer.evaluate("test")["accuracy"]
    settings = {"preset": "digits", "seed": SEED, "samples": SAMPLES, "epsilon": EPSILON, "test_accuracy": test}
    results = {"time_ms": time.tolist(), "nudge_from_step": nudge, "rows": rows}
    save(options.out, "information", report(rows, nudge, test), draw(rows, time, nudge), settings, results)


if __name__ == "__main__":
    main()
