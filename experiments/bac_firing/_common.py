"""What the experiments on the spiking pyramidal cell share: command line, a population with electrodes, tables, files."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from neurosim import Cell, Circuit, OneToOne, Phase, Population, Projection, Protocol
from neurosim.files import user_path
from neurosim.parts import bac_pyramidal
from neurosim.plot.style import PALETTE
from neurosim.traces import Spikes

RESULTS = Path(__file__).parent / "results"
DT = "0.05*ms"
#: Above this an apical dendrite is on a plateau, in mV.
PLATEAU = -40.0
#: Up to here spikes are drawn by hand, in mV: the recorded V_s is reset at the threshold and never shows the peak.
PEAK = 20.0
SOMA, BASAL, APICAL = PALETTE["blue"], PALETTE["orange"], PALETTE["vermillion"]


def command_line(text: str) -> argparse.Namespace:
    """The options that every experiment has."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=user_path, default=RESULTS, help="folder of the results (default: results/ beside it)"
    )
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    return options


def cells_with_electrodes(
    n: int,
    soma: tuple[Cell, Mapping[str, Any]],
    apical: tuple[Cell, Mapping[str, Any]],
    duration: str,
    parameters: Mapping[str, Any] | None = None,
) -> Circuit:
    """`n` pyramidal cells, each with an electrode in the soma and one in the apical dendrite.

    An electrode is ``(cell, parameters)``; a parameter may be an array of Brian2 quantities, one per cell.
    """
    return Circuit(
        "bac_cells",
        [
            Population("cell", n, bac_pyramidal(), parameters or {}),
            Population("soma", n, *soma),
            Population("apical", n, *apical),
            Projection("into_soma", "soma", "cell.I_s", connectivity=OneToOne()),
            Projection("into_apical", "apical", "cell.I_a", connectivity=OneToOne()),
        ],
        Protocol((Phase("trial", duration),), dt=DT),
    )


def counts(spikes: Spikes, n: int) -> np.ndarray:
    """Number of spikes of each of the n cells."""
    return np.bincount(spikes.cell, minlength=n)


def above_plateau(apical: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Time (ms) with V_a > -40 mV of each cell; `apical` is (steps, cells) in mV, `time` in ms."""
    return (apical > PLATEAU).sum(axis=0) * (time[1] - time[0])


def draw_spikes(axes: Axes, spikes: np.ndarray, time: np.ndarray, values: np.ndarray, color: str) -> None:
    """Thin lines from a trace up to +20 mV; times in ms, values in mV."""
    feet = values[np.searchsorted(time, spikes + 1e-6) - 1]
    axes.vlines(spikes, feet, PEAK, color=color, linewidth=0.9, zorder=3)


def span(values: Sequence[float] | np.ndarray, on: np.ndarray) -> str:
    """Where a condition holds on an ordered axis: ``-20 to 10``, or several such stretches."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], on.astype(int), [0]])))
    ends = [(values[a], values[b - 1]) for a, b in zip(edges[::2], edges[1::2], strict=True)]
    return ", ".join(f"{a:g} to {b:g}" if a != b else f"{a:g}" for a, b in ends) or "nowhere"
