"""Tied ghosts: the circuit's update of each W_l against minus the backprop gradient, for nudges from 1 to 0.01.

Net 64-50-30-10, mode `exact`, feedback W^T, 64 digits as one batch, weights held, level torch:steady in float64. The
rules divide by s_l = 1/(beta kappa^(L-l)), so |update|/|gradient| tends to 1 as beta goes to 0; with s_l undone, at kappa
0.3, it tends to kappa^(L-l).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from _common import LAYERS, SAMPLES, SIZES, command_line, largest_sd, mean, probe, spread
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from neurosim.analysis.report import listed, save, select, table
from neurosim.plot.style import GREY, PALETTE, empty_figure, style

BETAS = (1.0, 0.5, 0.2, 0.1, 0.03, 0.01)
KAPPAS = (1.0, 0.3)
RULES = ("R1", "R2", "R3", "R4")
TRANSFERS = {"logistic": "logistic, 4x Glorot", "tanh": "tanh, Glorot"}

Item = tuple[str, float, float, str, int]


def measure(item: Item) -> list[dict[str, Any]]:
    transfer, kappa, beta, rule, seeds = item
    held = probe(mode="exact", transfer=transfer, kappa=kappa, beta=beta, rule=rule)
    rows = []
    for seed in range(seeds):
        found = held(held.circuit.initial_weights(seed))
        rows.append(found.row(transfer=transfer, kappa=kappa, beta=beta, rule=rule, seed=seed))
    return rows


def report(rows: list[dict[str, Any]], seeds: int) -> str:
    text = [
        "# Tied ghosts: alignment with backprop",
        "",
        f"Net {'-'.join(map(str, SIZES))}, `exact`, B = W^T, {SAMPLES} digits, mean of {seeds} seeds, torch:steady, float64. "
        "Layers W1 / W2 / W3. Cosine of the held update with minus the gradient; ratio |update|/|gradient|, the rule's "
        "s_l = 1/(beta kappa^(L-l)) included.",
    ]
    by = ("transfer", "kappa", "beta", "rule")
    for transfer, name in TRANSFERS.items():
        for kappa in KAPPAS:
            some = select(rows, transfer=transfer, kappa=kappa)
            header = ["beta", *(f"{rule} {what}" for rule in RULES for what in ("cosine", "ratio"))]
            lines = []
            for beta in BETAS:
                line: list[Any] = [f"{beta:g}"]
                for rule in RULES:
                    line.append(listed(mean(some, "cosine", beta=beta, rule=rule), 4))
                    line.append(listed(mean(some, "ratio", beta=beta, rule=rule), 2))
                lines.append(line)
            text += ["", f"## {name}, kappa {kappa:g}", "", table(header, lines)]
            sd, missed = largest_sd(some, "cosine", by), sum(row["unsettled"] for row in some)
            text += [f"Largest sd of a cosine over seeds: {sd:.3f}. Samples that missed the tolerance: {missed}."]
    kappa = min(KAPPAS)
    undone = [kappa ** (len(LAYERS) - l) for l in range(1, len(LAYERS) + 1)]
    lines = []
    for transfer, name in TRANSFERS.items():
        for beta in (0.1, 0.01):
            found = [mean(rows, "ratio", transfer=transfer, kappa=kappa, beta=beta, rule=r) * undone for r in RULES]
            lines.append([name, f"{beta:g}", *(listed(ratio) for ratio in found)])
    text += [
        "",
        f"## The error shrinks by kappa a layer: |update|/(s_l beta |gradient|) at kappa {kappa:g}",
        "",
        f"Expected as beta goes to 0 for R2, R3, R4: kappa^(L-l) = {listed(undone)}.",
        "",
        table(["net", "beta", *RULES], lines),
    ]
    return "\n".join(text)


def draw(rows: list[dict[str, Any]]) -> Figure:
    """1 - cosine and the ratio against beta, one column a layer, kappa 1."""
    looks: dict[str, dict[str, Any]] = {
        # Coincident rules all show: R3 wide below R4, hollow markers around it.
        "R1": {"color": PALETTE["vermillion"], "marker": "s", "markersize": 9.0, "markerfacecolor": "none"},
        "R2": {"color": PALETTE["green"], "marker": "D", "markersize": 7.0, "markerfacecolor": "none"},
        "R3": {"color": PALETTE["sky"], "linewidth": 5.0, "alpha": 0.7},
        "R4": {"color": PALETTE["black"], "marker": "o", "markersize": 3.5},
    }
    lines: dict[str, Any] = {"logistic": "-", "tanh": "--"}
    with style():
        figure = empty_figure(9.5, 6.2)
        figure.suptitle("Tied ghosts, kappa 1: the update against minus the backprop gradient")
        panels = figure.subplots(2, len(LAYERS), sharex=True, sharey="row")
        for k, layer in enumerate(LAYERS):
            for rule in ("R3", "R2", "R1", "R4"):
                for transfer, dashes in lines.items():
                    some = select(rows, transfer=transfer, kappa=1.0, rule=rule)
                    look = {"linestyle": dashes, **looks[rule]}
                    off = [1 - np.asarray([row["cosine"][k] for row in select(some, beta=b)]).mean() for b in BETAS]
                    ratio = [mean(some, "ratio", beta=b)[k] for b in BETAS]
                    panels[0, k].loglog(BETAS, np.maximum(off, 1e-8), **look)
                    panels[1, k].semilogx(BETAS, ratio, **look)
            panels[0, k].set_title(f"{layer} ({SIZES[k]} to {SIZES[k + 1]} cells)")
            panels[1, k].axhline(1.0, color=GREY, linewidth=0.8, zorder=0)
            panels[1, k].set_xlabel("nudging strength beta")
        panels[0, 0].set_ylabel("1 - cosine")
        panels[1, 0].set_ylabel("|update| / |gradient|")
        handles = [Line2D([], [], label=rule, **looks[rule]) for rule in RULES]
        handles += [Line2D([], [], color=GREY, linestyle=lines[t], label=name) for t, name in TRANSFERS.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=6, handlelength=3.0)
    return figure


def main() -> None:
    options = command_line(__doc__ or "")
    items = [(t, k, b, r, options.seeds) for t in TRANSFERS for k in KAPPAS for b in BETAS for r in RULES]
    rows = spread(measure, items, options.jobs)
    settings = {"sizes": SIZES, "samples": SAMPLES, "mode": "exact", "feedback": "sym", "level": "torch:steady"}
    save(options.out, "alignment", report(rows, options.seeds), draw(rows), settings, {"rows": rows})


if __name__ == "__main__":
    main()
