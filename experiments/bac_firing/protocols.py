"""BAC firing: four protocols, the coincidence window of its two inputs, and dendritic inhibition.

1. Four protocols (`neurosim.models.bac_firing`): soma step, weak apical EPSC, both, strong apical EPSC. Spikes, peak of
   V_a, time with V_a > -40 mV, beside the figures of the note that the cell was built from.
2. Spikes of the combined protocol against the lag between its inputs, -100 to +100 ms: 201 cells in one population.
3. A LIF interneuron inhibits the apical dendrite through a GABA conductance: the burst against the time and strength of
   the inhibition, one cell and one interneuron for each pair.
4. The same spikes on brian2:equations, brian2:dense and torch:trajectory over 1 s.

One to two minutes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from _common import (
    APICAL,
    BASAL,
    DT,
    PLATEAU,
    SOMA,
    above_plateau,
    cells_with_electrodes,
    command_line,
    counts,
    draw_spikes,
    span,
)
from brian2 import ms, pA
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure

from neurosim import Circuit, Given, OneToOne, Phase, Population, Projection, Protocol, simulate
from neurosim.analysis.report import save, table
from neurosim.equations import seconds
from neurosim.models import bac_firing
from neurosim.parts import bac_pyramidal, conductance_synapse, current_step, epsc, lif
from neurosim.plot.style import GREY, PALETTE, empty_figure, style

TITLES = {
    "soma_step": "soma step",
    "apical_weak": "weak apical EPSC",
    "both": "both: BAC firing",
    "apical_strong": "strong apical EPSC",
}
#: The note's figures: spikes (ms), peak V_a (mV), time above -40 mV (ms).
NOTE = {
    "soma_step": ("65.0", -33.6, 2.5),
    "apical_weak": ("none", -52.6, 0.0),
    "both": ("65.0, 75.4, 83.8, 95.7", 23.0, 46.0),
    "apical_strong": ("74.8, 81.4, 90.4, 105.2", 39.0, 50.0),
}
LEVELS = ("brian2:equations", "brian2:dense", "torch:trajectory")
#: Apical onset minus somatic onset, ms.
LAGS = np.arange(-100.0, 101.0)
#: Onset of the somatic step in parts 2 and 3, ms.
ONSET = 150.0
#: Part 3: onset of the interneuron's current minus that of the somatic step (ms), and conductance per spike (nS).
INHIBITION_AT, CONDUCTANCES = np.arange(-40.0, 31.0), np.arange(0.0, 31.0)
#: The pair that is shown.
SHOWN_AT, SHOWN = -5.0, 10.0


# ------------------------------------------------------------------------------------------------- 1 protocols


def four_protocols() -> dict[str, Any]:
    """Time (ms), potentials (mV) and currents (pA) by protocol."""
    circuit = bac_firing.circuit()
    electrodes = [p.name for p in circuit.populations if p.name not in TITLES]
    record = [f"{name}.{v}" for name in TITLES for v in ("V_s", "V_b", "V_a")] + [f"{e}.I" for e in electrodes]
    traces = simulate(circuit, record=record, progress=False).traces
    time = traces.time * 1e3
    found: dict[str, Any] = {"time": time}
    for name in TITLES:
        one = {v: traces[f"{name}.{v}"][:, 0, 0] * 1e3 for v in ("V_s", "V_b", "V_a")}
        for port in ("I_s", "I_a"):
            electrode = f"{name}_{port}"
            one[port] = traces[f"{electrode}.I"][:, 0, 0] * 1e12 if electrode in electrodes else 0 * time
        one["spikes"] = traces.spikes[name].of(0) * 1e3
        one["peak"] = one["V_a"].max()
        one["above"] = above_plateau(one["V_a"][:, None], time)[0]
        found[name] = one
    return found


def draw_protocols(found: dict[str, Any]) -> Figure:
    time = found["time"]
    with style():
        figure = empty_figure(11.0, 5.2)
        figure.suptitle("Spiking pyramidal cell: four protocols")
        panels = figure.subplots(2, 4, sharex=True, sharey="row", height_ratios=[3.0, 1.0])
        for (name, title), upper, lower in zip(TITLES.items(), *panels, strict=True):
            one = found[name]
            for variable, color, label in (
                ("V_s", SOMA, "soma V_s"), ("V_b", BASAL, "basal V_b"), ("V_a", APICAL, "apical V_a"),
            ):  # fmt: skip
                upper.plot(time, one[variable], color=color, label=label)
            draw_spikes(upper, one["spikes"], time, one["V_s"], SOMA)
            upper.axhline(PLATEAU, color=GREY, linewidth=0.8, linestyle=":", label="-40 mV: plateau")
            upper.set_title(title)
            lower.plot(time, one["I_s"], color=SOMA)
            lower.plot(time, one["I_a"], color=APICAL)
            lower.set_xlabel("time (ms)")
            lower.set_xlim(50, 150)
        panels[0, 0].set_ylabel("potential (mV)")
        panels[1, 0].set_ylabel("injected\ncurrent (pA)")
        handles, labels = panels[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


# ------------------------------------------------------------------------------------------ 2 coincidence window


def coincidence() -> dict[str, np.ndarray]:
    """Spikes and plateau of the combined protocol for each lag."""
    circuit = cells_with_electrodes(
        len(LAGS),
        (current_step("1700*pA", f"{ONSET}*ms", "5*ms"), {}),
        (epsc("600*pA"), {"onset": (ONSET + LAGS) * ms}),
        "400*ms",
    )
    result = simulate(circuit, record=["cell.V_a"], progress=False)
    apical = result.traces["cell.V_a"][:, 0] * 1e3
    return {
        "lag": LAGS,
        "spikes": counts(result.spikes["cell"], len(LAGS)),
        "plateau": above_plateau(apical, result.traces.time * 1e3),
        "peak": apical.max(axis=0),
    }


def draw_coincidence(found: dict[str, np.ndarray]) -> Figure:
    with style():
        figure = empty_figure(8.0, 4.6)
        figure.suptitle("Coincidence window of the combined protocol (one cell per lag)")
        upper, lower = figure.subplots(2, sharex=True)
        upper.plot(found["lag"], found["spikes"], ".", color=SOMA, markersize=5)
        upper.axhline(1, color=GREY, linewidth=0.8, linestyle=":", zorder=0)
        upper.annotate("soma step alone", (99, 1.12), color=GREY, fontsize=9, ha="right")
        upper.set(ylabel="somatic spikes", ylim=(0, found["spikes"].max() + 0.5))
        lower.plot(found["lag"], found["plateau"], ".", color=APICAL, markersize=5)
        lower.set_ylabel("time with\nV_a > -40 mV (ms)")
        lower.set_xlabel("onset of the apical EPSC minus onset of the somatic step (ms)")
        lower.set_xlim(-102, 102)
        for axes in (upper, lower):
            axes.axvline(0, color=GREY, linewidth=0.8, zorder=0)
    return figure


# ---------------------------------------------------------------------------------------------- 3 inhibition


def inhibition_circuit(onsets: np.ndarray, conductances: np.ndarray) -> Circuit:
    """Cell k gets the combined protocol; interneuron k, driven by 600 pA for 10 ms from onsets[k], inhibits its apical dendrite.

    A current step makes a LIF cell spike; each of its spikes opens a GABA conductance (-80 mV, 10 ms) of the apical dendrite by
    conductances[k] (nS). Onsets are in ms from that of the somatic step.
    """
    n = len(onsets)
    pyramidal = conductance_synapse(bac_pyramidal(), "inh", "I_a", "V_a", kind="GABA")
    return Circuit(
        "dendritic_inhibition",
        [
            Population("cell", n, pyramidal),
            Population("interneuron", n, lif()),
            Population("soma", n, current_step("1700*pA", f"{ONSET}*ms", "5*ms")),
            Population("apical", n, epsc("600*pA", f"{ONSET + 5}*ms")),
            Population("drive", n, current_step("600*pA", duration="10*ms"), {"onset": (ONSET + onsets) * ms}),
            Projection("into_soma", "soma", "cell.I_s", connectivity=OneToOne()),
            Projection("into_apical", "apical", "cell.I_a_electrode", connectivity=OneToOne()),
            Projection("into_interneuron", "drive", "interneuron.I", connectivity=OneToOne()),
            Projection("gaba", "interneuron", "cell.S_inh", Given(conductances[None] * 1e-9), connectivity=OneToOne()),
        ],
        Protocol((Phase("trial", "300*ms"),), dt=DT),
    )


def inhibition() -> dict[str, Any]:
    """Spikes by (conductance, onset), and traces of the shown pair beside those without inhibition."""
    conductances, onsets = (x.ravel() for x in np.meshgrid(CONDUCTANCES, INHIBITION_AT, indexing="ij"))
    shape = len(CONDUCTANCES), len(INHIBITION_AT)
    result = simulate(inhibition_circuit(onsets, conductances), progress=False)
    interneuron = result.spikes["interneuron"]
    shown = simulate(
        inhibition_circuit(np.array([SHOWN_AT, SHOWN_AT]), np.array([0.0, SHOWN])),
        record=["cell.V_s", "cell.V_a", "interneuron.V", "cell.g_inh"],
        progress=False,
    )
    traces = shown.traces
    time = traces.time * 1e3 - ONSET
    cells = []
    for k in range(2):
        one: dict[str, Any] = {
            "V_s": traces["cell.V_s"][:, 0, k] * 1e3,
            "V_a": traces["cell.V_a"][:, 0, k] * 1e3,
            "V": traces["interneuron.V"][:, 0, k] * 1e3,
            "g": traces["cell.g_inh"][:, 0, k] * 1e9,
            "spikes": shown.spikes["cell"].of(k) * 1e3 - ONSET,
            "interneuron_spikes": shown.spikes["interneuron"].of(k) * 1e3 - ONSET,
        }
        one["above"] = above_plateau(one["V_a"][:, None], time)[0]
        cells.append(one)
    return {
        "spikes": counts(result.spikes["cell"], len(onsets)).reshape(shape),
        "interneuron": counts(interneuron, len(onsets)),
        "time": time,
        "control": cells[0],
        "inhibited": cells[1],
    }


def draw_inhibition(found: dict[str, Any]) -> Figure:
    time = found["time"]
    with style():
        figure = empty_figure(11.0, 5.4)
        figure.suptitle("Dendritic inhibition of the combined protocol")
        halves: Any = figure.subfigures(1, 2, width_ratios=[1.25, 1.0])
        left, right = halves
        panels = left.subplots(3, 2, sharex=True, sharey="row", height_ratios=[3.0, 1.3, 1.0])
        for axes, name, title in zip(
            panels.T, ("control", "inhibited"), ("no inhibition", f"{SHOWN:g} nS per spike"), strict=True
        ):
            one = found[name]
            axes[0].plot(time, one["V_s"], color=SOMA, label="soma V_s")
            axes[0].plot(time, one["V_a"], color=APICAL, label="apical V_a")
            draw_spikes(axes[0], one["spikes"], time, one["V_s"], SOMA)
            axes[0].set_title(title)
            axes[1].plot(time, one["V"], color=PALETTE["green"], label="interneuron V")
            draw_spikes(axes[1], one["interneuron_spikes"], time, one["V"], PALETTE["green"])
            axes[2].plot(time, one["g"], color=PALETTE["black"], label="GABA conductance")
            axes[2].set_xlabel("time from the somatic step (ms)")
            axes[2].set_xlim(-10, 80)
        for axes, label in zip(panels[:, 0], ("potential (mV)", "potential\n(mV)", "g (nS)"), strict=True):
            axes.set_ylabel(label)
        for axes in panels[:, 1]:
            axes.legend(loc="upper right")
        axes = right.subplots()
        most = found["spikes"].max()
        colours = ["#FFFFFF", "#C9DDEE", "#7FB2D9", "#3B84BD", "#0B4F86", "#06294A"][: most + 1]
        image = axes.pcolormesh(
            INHIBITION_AT, CONDUCTANCES, found["spikes"], cmap=ListedColormap(colours),
            norm=BoundaryNorm(np.arange(most + 2) - 0.5, len(colours)), shading="nearest",
        )  # fmt: skip
        right.colorbar(image, ax=axes, ticks=range(most + 1), label="somatic spikes")
        axes.plot([SHOWN_AT], [SHOWN], "o", color=PALETTE["orange"], markeredgecolor="black")
        axes.annotate(
            "shown", (SHOWN_AT, SHOWN), xytext=(6, 5), textcoords="offset points", fontsize=9, color=PALETTE["black"]
        )
        axes.set_xlabel("onset of the interneuron's current\nminus onset of the somatic step (ms)")
        axes.set_ylabel("conductance per spike (nS)")
    return figure


# --------------------------------------------------------------------------------------------------- 4 levels


def driven(duration: str = "1000*ms") -> Circuit:
    """The four protocols and, for spikes all along, eight cells under constant currents (pA), for 1 s."""
    base = bac_firing.circuit(duration=duration)
    soma = np.array([0, 200, 400, 450, 600, 800, 1000, 1200])
    apical = np.array([450, 300, 150, 0, 300, 0, 450, 0])
    more = cells_with_electrodes(
        len(soma),
        (current_step(duration=duration), {"amplitude": soma * pA}),
        (current_step(duration=duration), {"amplitude": apical * pA}),
        duration,
    )
    return replace(base, fragment=[*base.fragment, *more.fragment])


def levels() -> dict[str, Any]:
    """Spikes by population on each level, and the largest difference in steps of dt."""
    circuit = driven()
    found = {level: simulate(circuit, level=level, progress=False) for level in LEVELS}
    first = found[LEVELS[0]].spikes
    rows: dict[str, Any] = {"spikes": {}, "steps_off": {}}
    for level, result in found.items():
        rows["spikes"][level] = {name: len(s.time) for name, s in result.spikes.items()}
        off = 0.0
        for name, expected in first.items():
            got = result.spikes[name]
            if len(got.time) != len(expected.time):
                off = np.inf
                continue
            order, wanted = np.lexsort((got.time, got.cell)), np.lexsort((expected.time, expected.cell))
            if (got.cell[order] != expected.cell[wanted]).any():
                off = np.inf
                continue
            apart = np.abs(got.time[order] - expected.time[wanted]).max(initial=0.0) / seconds(DT)
            off = max(off, float(np.rint(apart)))
        rows["steps_off"][level] = off
    return rows


# --------------------------------------------------------------------------------------------------- the report


def report(
    protocols: dict[str, Any], window: dict[str, np.ndarray], blocked: dict[str, Any], same: dict[str, Any]
) -> str:
    rows = []
    for name, title in TITLES.items():
        one, (spikes, peak, above) = protocols[name], NOTE[name]
        listed = ", ".join(f"{t:.2f}" for t in one["spikes"]) or "none"
        rows.append([title, listed, spikes, f"{one['peak']:.1f}", f"{peak:g}", f"{one['above']:.2f}", f"{above:g}"])
    lag, n = window["lag"], window["spikes"]
    lags = [
        [f"{a:+g}", n[lag == a][0], f"{window['plateau'][lag == a][0]:.2f}", f"{window['peak'][lag == a][0]:.1f}"]
        for a in (-100, -60, -40, -20, -10, -5, 0, 5, 8, 9, 10, 12, 15, 20, 40, 60, 100)
    ]
    map_, at = blocked["spikes"], np.searchsorted(INHIBITION_AT, SHOWN_AT)
    blocks = []
    for t in (-30, -20, -15, -10, -5, 0, 5, 10):
        column = map_[:, np.searchsorted(INHIBITION_AT, t)]
        blocks.append([f"{t:+d}", *(span(CONDUCTANCES, on) for on in (column == 0, column == 1, column >= 2))])
    shown = [
        [title, ", ".join(f"{t:.2f}" for t in one["spikes"]), f"{one['V_a'].max():.1f}", f"{one['above']:.2f}"]
        for title, one in (("no inhibition", blocked["control"]), (f"{SHOWN:g} nS", blocked["inhibited"]))
    ]
    total = [[level, sum(s.values()), same["steps_off"][level]] for level, s in same["spikes"].items()]
    return "\n".join(
        [
            "# BAC firing: protocols, coincidence window, dendritic inhibition",
            "",
            f"dt {DT.replace('*', ' ')}; figures of the note in the columns named so. Phenomena after Larkum, Zhu & Sakmann "
            "1999; equations and constants are ours.",
            "",
            "## Four protocols (`protocols.png`)",
            "",
            table(
                ["protocol", "spikes (ms)", "note", "peak V_a (mV)", "note", "V_a > -40 mV (ms)", "note"],
                rows,
            ),
            "## Coincidence window (`coincidence.png`)",
            "",
            "Lag: onset of the apical EPSC minus onset of the somatic step (5 ms long).",
            "",
            table(["lag (ms)", "spikes", "V_a > -40 mV (ms)", "peak V_a (mV)"], lags),
            f"Lags in steps of 1 ms (ms) with 3 or more spikes: {span(lag, n >= 3)}; with two: {span(lag, n == 2)}; with one: "
            f"{span(lag, n == 1)}.",
            "",
            "## Dendritic inhibition (`inhibition.png`)",
            "",
            f"A LIF interneuron fires {blocked['interneuron'].max()} spikes ({', '.join(f'{t:.1f}' for t in blocked['inhibited']['interneuron_spikes'])} "
            f"ms from the somatic step when its current begins at {SHOWN_AT:g} ms), each opening a GABA conductance of the "
            "apical dendrite.",
            "",
            table(["", "spikes (ms from the somatic step)", "peak V_a (mV)", "V_a > -40 mV (ms)"], shown),
            f"Conductance per spike (nS, 0 to {CONDUCTANCES[-1]:g}) at which the cell fires so many spikes:",
            "",
            table(["interneuron's onset (ms)", "none", "one: burst abolished", "two or more"], blocks),
            f"The least conductance that abolishes the burst and leaves the somatic spike: "
            f"{min(CONDUCTANCES[k] for k in range(len(CONDUCTANCES)) if (map_[k] == 1).any()):g} nS; at "
            f"{SHOWN_AT:g} ms it is {CONDUCTANCES[np.flatnonzero(map_[:, at] == 1)[0]]:g} nS.",
            "",
            "## Levels over 1 s",
            "",
            "The four protocols and eight cells under constant currents. Off: largest difference to "
            f"{LEVELS[0]} of any spike, in steps of {DT.replace('*', ' ')} (inf: another number of spikes).",
            "",
            table(["level", "spikes", "off"], [[a, b, f"{c:g}"] for a, b, c in total]),
        ]
    )


def main() -> None:
    options = command_line(__doc__ or "")
    protocols, window, blocked, same = four_protocols(), coincidence(), inhibition(), levels()
    figures = {
        "protocols": draw_protocols(protocols),
        "coincidence": draw_coincidence(window),
        "inhibition": draw_inhibition(blocked),
    }
    results = {
        "protocols": {
            name: {"spikes_ms": protocols[name]["spikes"], "peak_mV": protocols[name]["peak"], "plateau_ms": protocols[name]["above"]}
            for name in TITLES
        },
        "coincidence": window,
        "inhibition": {"conductances_nS": CONDUCTANCES, "onsets_ms": INHIBITION_AT, "spikes": blocked["spikes"]},
        "levels": same,
    }  # fmt: skip
    save(
        options.out,
        "protocols",
        report(protocols, window, blocked, same),
        figures,
        {"dt": DT, "onset_ms": ONSET},
        results,
    )


if __name__ == "__main__":
    main()
