"""f-I curves of the spiking pyramidal cell: mean rate against a constant somatic current, for several constant apical currents.

One population holds every combination of somatic current, apical current and calcium conductance (35 nS, or 0: a passive
apical dendrite). Currents are on for 1 s; spikes of the first 200 ms are left out. Half a minute.

Threshold: the least somatic current with a spike after 200 ms. Gain: slope of the line through rates from 20 to 120 Hz
(least squares), and from 1000 to 1500 pA.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from _common import cells_with_electrodes, command_line, counts, span
from brian2 import nS, pA
from matplotlib.figure import Figure

from neurosim import simulate
from neurosim.analysis.report import save, table
from neurosim.parts import current_step
from neurosim.plot.style import empty_figure, style
from neurosim.traces import Spikes

#: Somatic and apical currents (pA), calcium conductances (nS) and what the figure calls them.
SOMATIC = np.arange(0.0, 1501.0, 10.0)
APICAL = (0.0, 150.0, 300.0, 450.0, 600.0)
CALCIUM = {35.0: "calcium conductance on (35 nS)", 0.0: "calcium conductance off"}
#: Seconds that a current is on, and of which spikes are left out.
ON, DISCARDED = 1.0, 0.2
#: Rates (Hz) and currents (pA) between which gains are read.
LINEAR, FAR = (20.0, 120.0), (1000.0, 1500.0)
COLOURS = ("#000000", "#0072B2", "#009E73", "#E69F00", "#D55E00")


def rates() -> tuple[np.ndarray, np.ndarray]:
    """Rate (Hz), and longest interval between spikes over the median one, by calcium conductance, apical and somatic current."""
    axes = np.meshgrid(list(CALCIUM), APICAL, SOMATIC, indexing="ij")
    calcium, apical, somatic = (x.ravel() for x in axes)
    n, on = len(calcium), f"{ON}*second"
    circuit = cells_with_electrodes(
        n,
        (current_step(duration=on), {"amplitude": somatic * pA}),
        (current_step(duration=on), {"amplitude": apical * pA}),
        on,
        {"g_Ca": calcium * nS},
    )
    spikes = simulate(circuit, progress=False).spikes["cell"]
    late = spikes.time >= DISCARDED
    kept = Spikes(spikes.time[late], spikes.sample[late], spikes.cell[late])
    uneven = np.zeros(n)
    for k in range(n):
        intervals = np.diff(kept.of(k))
        if len(intervals):
            uneven[k] = intervals.max() / np.median(intervals)
    return counts(kept, n).reshape(axes[0].shape) / (ON - DISCARDED), uneven.reshape(axes[0].shape)


def measure(curve: np.ndarray, alone: np.ndarray) -> dict[str, Any]:
    """Threshold (pA), gains (Hz/pA) and gain over the curve without apical current (Hz)."""
    firing = np.flatnonzero(curve)
    inside = np.clip(curve, *LINEAR) == curve
    far = np.clip(SOMATIC, *FAR) == SOMATIC
    extra = curve - alone
    return {
        "threshold_pA": SOMATIC[firing[0]] if len(firing) else None,
        "onset_Hz": curve[firing[0]] if len(firing) else None,
        "gain": np.polyfit(SOMATIC[inside], curve[inside], 1)[0],
        "far_gain": np.polyfit(SOMATIC[far], curve[far], 1)[0],
        "largest_extra_Hz": extra.max(),
        "at_pA": SOMATIC[extra.argmax()],
    }


def report(found: np.ndarray, uneven: np.ndarray) -> tuple[str, list[dict[str, Any]]]:
    text = [
        "# f-I curves with constant apical current",
        "",
        f"Mean rate over {ON - DISCARDED:g} s of a constant current, {len(SOMATIC)} somatic currents from 0 to "
        f"{SOMATIC[-1]:g} pA. Threshold: least somatic current with a spike in that time, and the rate there. Gain: slope over rates from "
        f"{LINEAR[0]:g} to {LINEAR[1]:g} Hz, and over {FAR[0]:g} to {FAR[1]:g} pA. Most added: largest gain in rate over the "
        "curve without apical current, and where. Bursts: somatic currents at which the longest interval between spikes exceeds "
        "twice the median one. Rates have a grain of 1.25 Hz. Equations and constants are ours.",
    ]
    rows: list[dict[str, Any]] = []
    for curves, ratios, (calcium, name) in zip(found, uneven, CALCIUM.items(), strict=True):
        lines = []
        for curve, ratio, apical in zip(curves, ratios, APICAL, strict=True):
            m = measure(curve, curves[0]) | {"bursts_pA": span(SOMATIC, ratio > 2)}
            rows.append({"g_Ca_nS": calcium, "apical_pA": apical, **m, "rates_Hz": curve})
            at = [f"{curve[np.searchsorted(SOMATIC, i)]:.0f}" for i in (0, 300, 500, 700, 1000, 1500)]
            added = f"{m['largest_extra_Hz']:.0f} Hz at {m['at_pA']:g} pA" if apical else "-"
            threshold = f"{m['threshold_pA']:g} ({m['onset_Hz']:.0f} Hz)"
            lines.append(
                [f"{apical:g}", threshold, f"{m['gain']:.3f}", f"{m['far_gain']:.3f}", added, m["bursts_pA"], *at]
            )
        header = ["apical (pA)", "threshold (pA)", "gain (Hz/pA)", "gain at 1-1.5 nA", "most added", "bursts (pA)"]
        header += [f"Hz at {i} pA" for i in (0, 300, 500, 700, 1000, 1500)]
        text += ["", f"## {name[0].upper()}{name[1:]}", "", table(header, lines).rstrip()]
    return "\n".join(text) + "\n", rows


def draw(found: np.ndarray) -> Figure:
    with style():
        figure = empty_figure(9.5, 4.6)
        figure.suptitle("f-I curves of the spiking pyramidal cell")
        panels = figure.subplots(1, len(CALCIUM), sharex=True, sharey=True)
        for axes, curves, name in zip(panels, found, CALCIUM.values(), strict=True):
            for curve, apical, colour in zip(curves, APICAL, COLOURS, strict=True):
                axes.plot(SOMATIC, curve, color=colour, label=f"{apical:g} pA")
            axes.set_title(name)
            axes.set_xlabel("constant somatic current (pA)")
            axes.set_xlim(SOMATIC[0], SOMATIC[-1])
            axes.set_ylim(bottom=0)
        panels[0].set_ylabel("mean rate (Hz)")
        panels[1].legend(title="apical current", loc="lower right")
    return figure


def main() -> None:
    options = command_line(__doc__ or "")
    found, uneven = rates()
    text, rows = report(found, uneven)
    settings = {"somatic_pA": SOMATIC, "apical_pA": APICAL, "on_s": ON, "discarded_s": DISCARDED}
    results = {f"g_Ca {row['g_Ca_nS']:g} nS, apical {row['apical_pA']:g} pA": row for row in rows}
    save(options.out, "fi_curves", text, {"fi_curves": draw(found)}, settings, results)


if __name__ == "__main__":
    main()
