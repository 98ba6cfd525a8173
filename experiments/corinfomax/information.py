"""Correlative information between neighbouring layers while the cells settle: free phase, then nudged phase.

Digits, 64-100-10, preset `digits`, trained for 30 epochs; then 500 training samples on torch:trajectory with plasticity off and the nudge
+beta. At each step (10 ms), with R_x = mean of x x^T over the samples (uncentred) and the circuit's own predictors W and F:

    right form, layer k below, k + 1 above    1/2 log det(R_{r_{k+1}} + eps I) - 1/2 log det(R_e + eps I)    e = r_{k+1} - r_k W_{k+1}
    left form (not for the input)             1/2 log det(R_{r_k} + eps I) - 1/2 log det(R_e + eps I)        e = r_k - r_{k+1} F_k

in nats, with the model's eps = 0.15. This is what the dynamics climb, as far as the label and the trace approximation of the second term let
them. It is negative where a predictor does worse than predicting 0. Beside it, the same with the best linear predictor of these samples
in place of W or F: the correlative information that the rates hold, and the largest that any W or F could reach.

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
from matplotlib.lines import Line2D

from neurosim import data, simulate
from neurosim.analysis.report import save, select, table
from neurosim.models import corinfomax
from neurosim.plot.style import GREY, PALETTE, SHADES, empty_figure, style
from neurosim.training import Trainer, resolve

SAMPLES = 500
EPSILON = 0.15
SEED = 0
#: form, layers (lower, upper), colour
PAIRS = (("right", 0, 1, "blue"), ("right", 1, 2, "green"), ("left", 1, 2, "vermillion"))
NAMES = {(0, 1): "input, hidden", (1, 2): "hidden, output"}
PREDICTORS = {"circuit": "-", "best": "--"}


def correlation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Uncentred, at each step; x and y are (steps, samples, cells)."""
    return np.swapaxes(x, 1, 2) @ y / x.shape[1]


def log_det(correlation: np.ndarray) -> np.ndarray:
    return 0.5 * np.linalg.slogdet(correlation + EPSILON * np.eye(correlation.shape[-1]))[1]


def information(target: np.ndarray, source: np.ndarray, predictor: np.ndarray | None) -> np.ndarray:
    """Nats at each step that `source` holds on `target`, with a predictor (source, target) or, for None, the best linear one."""
    own = correlation(target, target)
    if predictor is None:
        cross = correlation(source, target)
        error = own - np.swapaxes(cross, 1, 2) @ np.linalg.pinv(correlation(source, source), hermitian=True) @ cross
    else:
        rest = target - source @ predictor
        error = correlation(rest, rest)
    return log_det(own) - log_det(error)


def rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(x))))


def measure(weights: dict[str, np.ndarray]) -> tuple[list[dict[str, Any]], list[dict[str, Any]], np.ndarray, int]:
    """Curves by pair, errors of W by layer at the end of the free phase, time (ms), first step of the nudged phase."""
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
    for form, below, above, _ in PAIRS:
        target, source = (above, below) if form == "right" else (below, above)
        of_circuit = weights[f"W{above}" if form == "right" else f"F{below}"]
        for name, predictor in zip(PREDICTORS, (of_circuit, None), strict=True):
            curve = information(rates[target], rates[source], predictor)
            rows.append({"form": form, "lower": below, "upper": above, "predictor": name, "nats": curve.tolist()})
    start = next(span.start for span in traces.phases if span.name == "nudged")
    nudge = int(np.searchsorted(traces.time, start - 1e-9))
    errors = []
    for k in (1, 2):
        rate = rates[k][nudge - 1]
        error, silent = rate - rates[k - 1][nudge - 1] @ weights[f"W{k}"], rate == 0
        errors.append(
            {
                "layer": ("hidden", "output")[k - 1],
                "silent": float(silent.mean()),
                "rate": rms(rate),
                "rate_active": rms(rate[~silent]),
                "error_active": rms(error[~silent]),
                "error_silent": rms(error[silent]),
            }
        )
    return rows, errors, 1e3 * traces.time, nudge


def report(rows: list[dict[str, Any]], errors: list[dict[str, Any]], nudge: int, test: float) -> str:
    lines = []
    for state in ("drawn", "trained"):
        for form, below, above, _ in PAIRS:
            for name in PREDICTORS:
                (row,) = select(rows, weights=state, form=form, lower=below, predictor=name)
                ends = [f"{row['nats'][k] + 0.0:.3f}" for k in (0, nudge - 1, -1)]
                lines.append([state, NAMES[below, above], form, name, *ends])
    header = [
        "weights",
        "layers",
        "form",
        "predictor",
        "start (rates 0)",
        "end of the free phase",
        "end of the nudged phase",
    ]
    names = ("silent", "rate", "rate_active", "error_active", "error_silent")
    of_errors = [[row["weights"], row["layer"], *(f"{row[name]:.2f}" for name in names)] for row in errors]
    return "\n".join(
        [
            "# Correlative information while the cells settle (nats)",
            "",
            f"Digits, 64-100-10, seed {SEED}, {SAMPLES} training samples, plasticity off, beta = +1, eps = {EPSILON}. Test accuracy of the "
            f"trained net: {100 * test:.1f} %.",
            "",
            table(header, lines),
            "Forward prediction error r - W r_below at the end of the free phase (rms), of cells whose rate is above 0 and of silent ones:",
            "",
            table(
                ["weights", "layer", "silent share", "rate", "rate, active", "error, active", "error, silent"],
                of_errors,
            ),
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
            for form, below, _, colour in PAIRS:
                for name, dashes in PREDICTORS.items():
                    (row,) = select(rows, weights=state, form=form, lower=below, predictor=name)
                    axes.plot(time, row["nats"], dashes, color=PALETTE[colour])
            axes.axhline(0.0, color=GREY, linewidth=0.6)
            axes.set_ylim(-8, 8)  # at rest, where v_B = W r below meets rates of 0, the first curve starts lower
            axes.set_xlim(edges[0], edges[-1])
            axes.set_xlabel("time (ms)")
            axes.set_title(f"{state} weights", pad=18)
        figure.axes[0].set_ylabel("correlative information (nats)")
        handles = [
            Line2D([], [], color=PALETTE[colour], label=f"{form} form: {NAMES[below, above]}")
            for form, below, above, colour in PAIRS
        ]
        handles += [
            Line2D([], [], color=GREY, label="with the circuit's W or F"),
            Line2D([], [], color=GREY, linestyle="--", label="with the best linear predictor"),
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=3)
    return figure


def main() -> None:
    options = parse(parser(__doc__ or ""))
    trainer = Trainer(resolve("corinfomax", {"preset": "digits"}, data="digits", seed=SEED))
    drawn = {name: w.astype(float) for name, w in trainer.engine.weights().items()}
    trainer.fit()
    trained = {name: w.astype(float) for name, w in trainer.engine.weights().items()}
    rows: list[dict[str, Any]] = []
    errors: list[dict[str, Any]] = []
    for state, weights in (("drawn", drawn), ("trained", trained)):
        curves, of_layers, time, nudge = measure(weights)
        rows += [{"weights": state, **row} for row in curves]
        errors += [{"weights": state, **row} for row in of_layers]
    test = trainer.evaluate("test")["accuracy"]
    settings = {"preset": "digits", "seed": SEED, "samples": SAMPLES, "epsilon": EPSILON, "test_accuracy": test}
    results = {"time_ms": time.tolist(), "nudge_from_step": nudge, "rows": rows, "errors": errors}
    save(options.out, "information", report(rows, errors, nudge, test), draw(rows, time, nudge), settings, results)


if __name__ == "__main__":
    main()
