"""Learned ghosts: how the feedback is cancelled by ghost plasticity alone, and how well the update then follows backprop.

Net 64-50-30-10, tanh, mode `learned`, feedback W^T, from small random ghost weights. The circuit is presented without its
nudged phases, batches of 32 training digits, so that only V, c, G, d and the running means change. After 0, 100, 300, 1000
and 2000 batches: rms of the feedback that the ghosts leave over rms of the raw feedback, on 64 digits in the free
state, and the cosine of the held update of each W_l with minus the backprop gradient by rules R3 and R4.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from _common import LAYERS, MAX_SWEEPS, SAMPLES, SIZES, command_line, digits, largest_sd, mean, probe, spread
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from neurosim import Circuit, Phase
from neurosim.analysis.report import listed, save, select, table
from neurosim.models import ghost_units
from neurosim.plot.style import GREY, LINES, empty_figure, style
from neurosim.simulation import build_engine
from neurosim.stimuli import stimulus_fields

KAPPAS = (0.3, 1.0)
BETAS = (1.0, 0.3, 0.1, 0.03)
RULES = ("R3", "R4")
BATCH = 32
ALIGNED = (0, 100, 300, 1000, 2000)  # batches after which cosines are taken
RESIDUALS = (0, 10, 30, 100, 200, 300, 600, 1000, 1500, 2000)


def target_free(circuit: Circuit) -> Circuit:
    """The circuit without its phases under a target."""
    phases = [p for p in circuit.protocol.phases if isinstance(p, Phase)]
    phases = [p for p in phases if "feedforward" not in p.plastic and not p.shared.get("beta")]
    return replace(circuit, protocol=replace(circuit.protocol, phases=tuple(phases)))


def measure(item: tuple[int, float]) -> list[dict[str, Any]]:
    seed, kappa = item
    settings: dict[str, Any] = {"mode": "learned", "transfer": "tanh", "kappa": kappa}
    circuit = target_free(ghost_units.circuit(SIZES, **settings))
    engine = build_engine(
        circuit, "torch:steady", None, seed, batch=BATCH, progress=False, tolerance=1e-10, max_sweeps=MAX_SWEEPS
    )
    fields = stimulus_fields(circuit, *digits())
    rows: list[dict[str, Any]] = []
    random, order, done, missed = np.random.default_rng([seed, 2]), np.empty(0, dtype=int), 0, 0
    for stop in RESIDUALS:
        while done < stop:
            if len(order) < BATCH:
                order = random.permutation(len(fields["image"]))
            chosen, order = order[:BATCH], order[BATCH:]
            missed += engine.present({n: v[chosen] for n, v in fields.items()}, learn="on", ends=False).unsettled
            done += 1
        for rule in RULES if stop in ALIGNED else RULES[-1:]:
            for beta in BETAS if stop in ALIGNED else BETAS[-1:]:
                found = probe(beta=beta, rule=rule, **settings)(engine.weights())
                left = np.divide(found.residual, found.feedback).tolist()
                labels = {"kappa": kappa, "batches": stop, "beta": beta, "rule": rule, "seed": seed, "left": left}
                rows.append(found.row(**labels, unsettled_so_far=missed))
    return rows


def report(rows: list[dict[str, Any]], seeds: int) -> str:
    text = [
        "# Learned ghosts: residual feedback and alignment with backprop",
        "",
        f"Net {'-'.join(map(str, SIZES))}, tanh, `learned`, B = W^T, ghost plasticity alone on batches of {BATCH} training digits, "
        f"measured on {SAMPLES} digits, mean of {seeds} seeds, torch:steady, float64. Residual: rms of the feedback that is "
        "left over rms of the raw feedback, layers 1 / 2, free state. Cosine: held update of W1 / W2 / W3 with minus the "
        "gradient.",
    ]
    for kappa in KAPPAS:
        some = select(rows, kappa=kappa)
        lines = []
        for batches in RESIDUALS:
            now = select(some, batches=batches, rule=RULES[-1], beta=BETAS[-1])
            lines.append([batches, listed(mean(now, "left")), int(sum(row["unsettled_so_far"] for row in now))])
        text += ["", f"## kappa {kappa:g}", "", table(["batches", "residual", "unsettled while learning"], lines)]
        lines = []
        for batches in ALIGNED:
            for beta in BETAS:
                now = select(some, batches=batches, beta=beta)
                found = [listed(mean(now, "cosine", rule=rule)) for rule in RULES]
                lines.append([batches, f"{beta:g}", *found, sum(row["unsettled"] for row in now)])
        text += [table(["batches", "beta", "R3 cosine", "R4 cosine", "unsettled"], lines)]
        late = [row for row in select(some, rule="R4") if row["batches"] >= 300]
        sd = largest_sd(late, "cosine", ("batches", "beta")), largest_sd(late, "left", ("batches",))
        text += [f"From 300 batches on: largest sd over seeds of an R4 cosine {sd[0]:.3f}, of a residual {sd[1]:.3f}."]
    text += [
        "",
        "Unsettled: (sample, phase) pairs, of all seeds, that missed the tolerance of the fixed point: while learning, in all "
        f"batches so far, out of {BATCH * seeds} a batch; beside the cosines, of both rules, out of {4 * SAMPLES * seeds}.",
        "",
    ]
    return "\n".join(text)


def draw(rows: list[dict[str, Any]]) -> Figure:
    """One row a kappa: residual against batches, and the cosine of each layer against beta."""
    with style():
        figure = empty_figure(12.5, 6.2)
        figure.suptitle(
            "Learned ghosts, tanh: the feedback that is left, and the update against minus the backprop gradient"
        )
        panels = figure.subplots(len(KAPPAS), 1 + len(LAYERS), sharex="col", width_ratios=[1.25, 1, 1, 1])
        for j, kappa in enumerate(KAPPAS):
            some = select(rows, kappa=kappa)
            axes = panels[j, 0]
            for k, marker in enumerate("os"):
                left = [mean(some, "left", batches=n, rule=RULES[-1], beta=BETAS[-1])[k] for n in RESIDUALS]
                axes.plot(RESIDUALS, left, color=GREY, marker=marker, markersize=4.0, label=f"layer {k + 1}")
            for n, colour in zip(ALIGNED, LINES, strict=False):
                axes.axvline(n, color=colour, linewidth=4.0, alpha=0.35, zorder=0)
            axes.set_yscale("log")
            axes.set_xscale("symlog", linthresh=10.0)
            axes.set_xlim(-1.0, 2600.0)
            axes.set_ylabel(f"kappa {kappa:g}\n\nresidual / raw feedback (rms)")
            axes.legend()
            for k, layer in enumerate(LAYERS):
                axes = panels[j, k + 1]
                for n, colour in zip(ALIGNED, LINES, strict=False):
                    for rule, dashes, marker in (("R3", "--", "s"), ("R4", "-", "o")):
                        curve = [mean(some, "cosine", batches=n, beta=b, rule=rule)[k] for b in BETAS]
                        axes.semilogx(BETAS, curve, dashes, color=colour, marker=marker, markersize=4.0)
                axes.axhline(0.0, color=GREY, linewidth=0.8, zorder=0)
                axes.set_ylim(-1.05, 1.05)
                if j == 0:
                    axes.set_title(layer)
                if k == 0:
                    axes.set_ylabel("cosine")
        panels[-1, 0].set_xlabel("target-free batches")
        for axes in panels[-1, 1:]:
            axes.set_xlabel("nudging strength beta")
        handles = [Line2D([], [], color=c, label=f"{n} batches") for n, c in zip(ALIGNED, LINES, strict=False)]
        handles += [Line2D([], [], color=GREY, linestyle="--", marker="s", markersize=4.0, label="R3")]
        handles += [Line2D([], [], color=GREY, linestyle="-", marker="o", markersize=4.0, label="R4")]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), handlelength=3.0)
    return figure


def main() -> None:
    options = command_line(__doc__ or "")
    # The slow ones first, so that the processes end together.
    items = [(seed, kappa) for kappa in sorted(KAPPAS, reverse=True) for seed in range(options.seeds)]
    rows = spread(measure, items, options.jobs)
    settings = {
        "sizes": SIZES,
        "samples": SAMPLES,
        "batch": BATCH,
        "transfer": "tanh",
        "mode": "learned",
        "feedback": "sym",
    }
    text, figure = report(rows, options.seeds), draw(rows)
    save(options.out, "learned_cancellation", text, figure, {**settings, "level": "torch:steady"}, {"rows": rows})


if __name__ == "__main__":
    main()
