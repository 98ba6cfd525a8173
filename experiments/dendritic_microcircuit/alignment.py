"""Self-predicting lateral weights: the update of each W_l against minus the backprop gradient, over the conductances.

Net 30-20-15-10, weights uniform on -1 to 1, 16 inputs uniform on 0 to 1 with random classes as one batch, weights held,
torch:steady in float64, rules without their low-pass. The apical and the somatic (teaching) conductance are the same and
go from 0.01 to 1.6 per ms (published: 0.8); latent_equilibrium is the other published set of constants, with
its own weights (forward +-0.1) and with those of the sweep. The model divides its rates by the factors by which errors
shrink on their way down (ours), so with eta = 1 |update|/|gradient| tends to 1 as the conductances fall.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from _common import parse, parser
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from tqdm import tqdm

from neurosim import Circuit
from neurosim.analysis import ReferenceNet, cosine
from neurosim.analysis.report import column, listed, save, select, table
from neurosim.models import dendritic_microcircuit
from neurosim.plot.style import GREY, PALETTE, empty_figure, style
from neurosim.simulation import build_engine
from neurosim.stimuli import stimulus_fields

SIZES, SAMPLES = (30, 20, 15, 10), 16
LAYERS = ("W1", "W2", "W3")
CONDUCTANCES = (1.6, 0.8, 0.4, 0.2, 0.1, 0.05, 0.02, 0.01)
FEEDBACK = {"sym": "B = W^T (sym)", "fa": "fixed random B (fa)"}
OWN, LARGER = "latent_equilibrium, own weights", "latent_equilibrium, weights +-1"
SETS = (*(f"{g:g}" for g in CONDUCTANCES), OWN, LARGER)
G_LATENT = 0.06  # its g_A and g_som


def circuit_of(label: str, feedback: str) -> Circuit:
    # Tied: the self-predicting values themselves.
    settings: dict[str, Any] = {"feedback": feedback, "lateral": "tied", "eta": 1.0, "tau_w": "off"}
    if label in (OWN, LARGER):
        return dendritic_microcircuit.circuit(SIZES, parameters="latent_equilibrium", **settings)
    return dendritic_microcircuit.circuit(SIZES, g_A=float(label), g_som=float(label), **settings)


def measure(label: str, feedback: str, seeds: int) -> list[dict[str, Any]]:
    circuit = circuit_of(label, feedback)
    engine = build_engine(circuit, "torch:steady", None, 0, batch=SAMPLES, dt=1e-4, progress=False)
    rows = []
    for seed in range(seeds):
        weights = circuit.initial_weights(seed)
        if label == LARGER:
            weights = {n: 10 * w if n.startswith("W") else w for n, w in weights.items()}
        rng = np.random.default_rng([seed, 3])
        fields = stimulus_fields(circuit, rng.uniform(size=(SAMPLES, SIZES[0])), rng.integers(SIZES[-1], size=SAMPLES))
        engine.set_weights(weights)
        result = engine.present(fields, learn="held")
        gradient = ReferenceNet(circuit, weights).gradient(fields["image"], fields["target"])
        change, free = result.collected, result.ends["free"]
        rows.append(
            {
                "set": label,
                "feedback": feedback,
                "seed": seed,
                "cosine": [cosine(change[n], -gradient[n]) or 0.0 for n in LAYERS],
                "ratio": [float(np.linalg.norm(change[n]) / np.linalg.norm(gradient[n])) for n in LAYERS],
                "free_apical": max(float(np.abs(free[f"pyr{l}.v_A"]).max()) for l in range(1, len(LAYERS))),
                "unsettled": result.unsettled,
            }
        )
    return rows


def report(rows: list[dict[str, Any]], seeds: int) -> str:
    text = [
        "# Dendritic microcircuit: the held update against minus the backprop gradient",
        "",
        f"Net {'-'.join(map(str, SIZES))}, logistic, self-predicting lateral weights, weights uniform on -1 to 1, {SAMPLES} inputs "
        f"uniform on 0 to 1 with random classes (targets -1 and 1), mean of {seeds} seeds, torch:steady, float64, no low-pass of the rules. "
        "Layers W1 / W2 / W3. Ratio: |update|/|gradient|, the division by the shrinking of errors included.",
    ]
    for feedback, name in FEEDBACK.items():
        lines = []
        for label in SETS:
            some = select(rows, set=label, feedback=feedback)
            cosines, ratios = column(some, "cosine"), column(some, "ratio")
            shown = 4 if feedback == "sym" else 2
            line = [label, listed(cosines.mean(0), shown), listed(cosines.min(0), shown)]
            lines.append([*line, listed(ratios.mean(0), 2)])
        header = ["g_A = g_som (1/ms)", "cosine", "lowest of the seeds", "ratio"]
        text += ["", f"## {name}", "", table(header, lines)]
    largest, missed = max(row["free_apical"] for row in rows), sum(row["unsettled"] for row in rows)
    text += [
        f"Largest |apical potential| of any cell and input without a target: {largest:.1e}. Samples that missed the tolerance: {missed}.",
        "",
    ]
    return "\n".join(text)


def draw(rows: list[dict[str, Any]], seeds: int) -> Figure:
    """1 - cosine and the ratio against the conductances, one column a layer."""
    looks: Mapping[str, dict[str, Any]] = {
        "sym": {"color": PALETTE["blue"], "marker": "o", "markersize": 4.5},
        "fa": {"color": PALETTE["vermillion"], "marker": "s", "markersize": 4.5, "linestyle": "--"},
    }
    singles: Mapping[str, dict[str, Any]] = {
        OWN: {"marker": "D", "markersize": 7, "linestyle": "none"},
        LARGER: {"marker": "^", "markersize": 7, "linestyle": "none", "markerfacecolor": "none"},
    }
    with style():
        figure = empty_figure(9.8, 6.6)
        figure.suptitle(f"The update against minus the backprop gradient, {'-'.join(map(str, SIZES))} cells")
        panels = figure.subplots(2, len(LAYERS), sharex=True, sharey="row")
        for k, layer in enumerate(LAYERS):
            for feedback, look in looks.items():
                band = np.stack([column(rows, "cosine", set=f"{g:g}", feedback=feedback)[:, k] for g in CONDUCTANCES])
                ratio = np.stack([column(rows, "ratio", set=f"{g:g}", feedback=feedback)[:, k] for g in CONDUCTANCES])
                for axes, values in ((panels[0, k], 1 - band), (panels[1, k], ratio)):
                    axes.semilogx(CONDUCTANCES, values.mean(1), **look)
                    axes.fill_between(
                        CONDUCTANCES, values.min(1), values.max(1), color=look["color"], alpha=0.2, linewidth=0
                    )
                for label, marker in singles.items():
                    some = select(rows, set=label, feedback=feedback)
                    at = {"color": look["color"], **marker}
                    panels[0, k].plot(G_LATENT, (1 - column(some, "cosine")[:, k]).mean(), **at)
                    panels[1, k].plot(G_LATENT, column(some, "ratio")[:, k].mean(), **at)
            panels[0, k].set_title(f"{layer} ({SIZES[k]} to {SIZES[k + 1]} cells)")
            panels[1, k].axhline(1.0, color=GREY, linewidth=0.8, zorder=0)
            panels[0, k].set_yscale("log")
            panels[1, k].set_ylim(0, 2)
            for row in (0, 1):
                panels[row, k].axvline(0.8, color=GREY, linewidth=0.8, linestyle=":", zorder=0)
            panels[1, k].set_xlabel("g_A = g_som (1/ms)")
        panels[0, 0].set_ylabel("1 - cosine")
        panels[1, 0].set_ylabel("|update| / |gradient|")
        panels[0, 0].annotate(
            "published\nvalue", (0.8, 0.0), (-4, 3), xycoords=("data", "axes fraction"), textcoords="offset points",
            ha="right", va="bottom", fontsize=8, color=GREY,
        )  # fmt: skip
        handles = [Line2D([], [], label=name, **looks[f]) for f, name in FEEDBACK.items()]
        handles += [Line2D([], [], color=GREY, label=label, **look) for label, look in singles.items()]
        handles += [Line2D([], [], color=GREY, alpha=0.3, linewidth=6, label=f"range of {seeds} seeds")]
        figure.legend(handles=handles, loc="outside lower center", ncols=3, handlelength=3.0)
    return figure


def main() -> None:
    options = parse(parser(__doc__ or "", seeds=10))
    items = [(label, feedback) for feedback in FEEDBACK for label in SETS]
    rows = [row for item in tqdm(items, unit="setting") for row in measure(*item, options.seeds)]
    settings = {"sizes": SIZES, "samples": SAMPLES, "lateral": "tied", "tau_w": "off", "level": "torch:steady"}
    save(options.out, "alignment", report(rows, options.seeds), draw(rows, options.seeds), settings, {"rows": rows})


if __name__ == "__main__":
    main()
