"""Kinds of figures: what is drawn equals an independent computation; every kind through the command line."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import cache
from itertools import pairwise
from types import SimpleNamespace

import matplotlib.colors
import numpy as np
import pytest
from matplotlib.text import Text

from neurosim import (
    Cell,
    Circuit,
    Constant,
    Fragment,
    Given,
    Glorot,
    Like,
    OneToOne,
    Phase,
    Population,
    Projection,
    Protocol,
    Tied,
    Uniform,
    plot,
    registry,
    simulate,
)
from neurosim.analysis import representations
from neurosim.analysis.representations import activities
from neurosim.analysis.updates import update_cosines
from neurosim.cli import main
from neurosim.errors import NeurosimError
from neurosim.models import corinfomax, ghost_units
from neurosim.parts import bac_pyramidal
from neurosim.plot.diagram import diagram
from neurosim.plot.fi import curve, read_response
from neurosim.plot.raster import binned_rate
from neurosim.plot.weights import feedback_pairs
from neurosim.traces import PhaseSpan, Spikes, Traces
from neurosim.training import load as load_run

DT = 1e-3


class Lazy:
    """Like an HDF5 dataset: read by indexing; index arrays rise. Counts what is read."""

    def __init__(self, values: np.ndarray):
        self._values, self.read = values, 0
        self.shape, self.dtype = values.shape, values.dtype

    def __getitem__(self, key):
        for part in key if isinstance(key, tuple) else (key,):
            if isinstance(part, np.ndarray | list):
                assert np.all(np.diff(part) > 0), "an HDF5 dataset refuses such an index"
        found = self._values[key]
        self.read += found.size
        return found

    def __array__(self, *_args, **_kwargs):
        raise AssertionError("all of it was read")


def make(n: int = 12, batch: int = 2, trials: int = 2, cells: dict | None = None, lazy: bool = False) -> Traces:
    """Two populations, 100 steps a trial in two phases; every value is another."""
    spans, time = [], np.arange(100 * trials) * DT
    for k in range(trials):
        spans += [PhaseSpan("free", k, 0.1 * k, 0.1 * k + 0.06), PhaseSpan("nudged", k, 0.1 * k + 0.06, 0.1 * (k + 1))]
    rng = np.random.default_rng(0)
    values = {name: rng.normal(size=(len(time), batch, n)) for name in ("pyr.r", "int.r")}
    wrapped = {name: Lazy(v) for name, v in values.items()} if lazy else values
    return Traces(time, wrapped, dict.fromkeys(values, "1"), spans, {"model": "m"}, cells=cells or {})


def spiking(times, samples, numbers, n: int = 3, batch: int = 2, trials: int = 1, cells: dict | None = None) -> Traces:
    traces = make(n, batch, trials, cells)
    traces.spikes = {"pyr": Spikes(np.array(times), np.array(samples), np.array(numbers))}
    return traces


def texts(holder) -> list[str]:
    return [text.get_text() for text in holder.get_texts()]


def overlaps(figure) -> list[tuple[str, str]]:
    """Pairs of texts that stand on one another."""
    figure.draw_without_rendering()
    axes = [axis for one in figure.axes for axis in (one.xaxis, one.yaxis) if one.get_visible() and one.axison]
    ticks = {
        label
        for axis in axes
        for tick in axis.get_major_ticks() + axis.get_minor_ticks()
        for label in (tick.label1, tick.label2)
    }
    shown = {tick.label1 for axis in axes for tick in axis._update_ticks()}  # those within the limits
    found = [t for t in figure.findobj(Text) if t.get_visible() and (t not in ticks or t in shown)]
    boxes = [(t.get_text(), t.get_window_extent()) for t in found if t.get_text().strip()]
    inner = [(text, box.padded(-1)) for text, box in boxes]
    return [(a, b) for k, (a, x) in enumerate(inner) for b, y in inner[k + 1 :] if a != b and x.overlaps(y)]


# ---------------------------------------------------------------------------------------------- traces and levels


def test_labels_are_the_numbers_of_the_recorded_cells():
    traces = make(n=3, cells={"pyr": np.array([17, 4, 30])})
    (axes,) = plot.traces_figure(traces, ["pyr.r"]).axes
    assert texts(axes.get_legend()) == ["pyr.r[17]", "pyr.r[4]", "pyr.r[30]"]
    (axes,) = plot.traces_figure(traces, ["pyr.r"], cells=[30, 4]).axes
    assert texts(axes.get_legend()) == ["pyr.r[30]", "pyr.r[4]"]
    for line, column in zip(axes.lines[:2], (2, 1), strict=True):
        np.testing.assert_array_equal(np.delete(line.get_ydata(), 100), traces["pyr.r"][:, 0, column])
    with pytest.raises(NeurosimError, match=r"Cell 5 of 'pyr' was not recorded; recorded: 17, 4, 30\."):
        plot.traces_figure(traces, ["pyr.r"], cells=[5])
    figure = plot.comparison_figure({"a": traces, "b": traces}, ["pyr.r"], cells=[30])
    assert "cell 30" in [t.get_text() for t in figure.axes[0].texts]
    other = replace(traces, cells={"pyr": np.array([1, 2, 3])})
    with pytest.raises(NeurosimError, match="Other cells of 'pyr' were recorded on 'a' than on 'b'"):
        plot.comparison_figure({"a": traces, "b": other}, ["pyr.r"])


def test_only_what_is_drawn_is_read():
    traces = make(n=50, trials=6, lazy=True)
    (axes,) = plot.traces_figure(traces, ["pyr.r"], cells=[7, 3], sample=1).axes
    assert traces.values["pyr.r"].read == 200 * 2  # two trials, two cells, one sample
    assert traces.values["int.r"].read == 0
    wanted = make(n=50, trials=6)["pyr.r"][:200, 1]
    np.testing.assert_array_equal(np.delete(axes.lines[0].get_ydata(), 100), wanted[:, 7])
    plot.comparison_figure({"a": traces, "b": traces}, ["pyr.r"], cells=[3])
    assert traces.values["pyr.r"].read == 200 * 2 + 2 * 200
    plot.rates_figure(traces, ["int.r"])
    assert traces.values["int.r"].read == 200 * 2 * 50


def test_windows_are_numbered_and_their_phases_named_once():
    traces = make(trials=1)
    traces.phases = [
        PhaseSpan(f"{n}[{k}]", 0, 0.01 * k + a, 0.01 * k + b)
        for k in range(10)
        for n, a, b in (("settle", 0, 0.008), ("learn", 0.008, 0.01))
    ]
    figure = plot.traces_figure(traces, ["pyr.r"])
    (axes,) = figure.axes
    assert [t.get_text() for t in axes.texts] == ["k = 0", *map(str, range(1, 10)), "settle[k]", "learn[k]"]
    colours = [matplotlib.colors.to_rgb(p.get_facecolor()) for p in axes.patches]
    assert len(colours) == 20 and colours[::2] == colours[:1] * 10 and colours[1::2] == colours[1:2] * 10
    assert colours[0] != colours[1]
    assert matplotlib.colors.to_rgb(axes.texts[-1].get_bbox_patch().get_facecolor()) == colours[1]
    assert not overlaps(figure)


def test_no_line_across_time_that_was_left_out():
    traces = make(trials=3)
    keep = np.r_[0:60, 200:300]  # phase nudged of the first trial and the second trial were not recorded
    values = {n: v[keep] for n, v in traces.values.items()}
    spans = [traces.phases[0], *traces.phases[4:]]
    part = replace(traces, time=traces.time[keep], values=values, phases=spans)
    figure = plot.traces_figure(part, ["pyr.r"])
    assert figure.axes[0].get_xlim() == pytest.approx((0, 60)) and "first of 2 trials" in figure.get_suptitle()
    spans = [PhaseSpan("free", 0, 0.0, 0.06), PhaseSpan("end", 0, 0.2, 0.3)]
    (axes,) = plot.traces_figure(replace(part, phases=spans), ["pyr.r"]).axes
    y = np.asarray(axes.lines[0].get_ydata())
    assert np.isnan(y[60]) and np.isnan(y).sum() == 1


def test_a_row_per_phase_is_drawn_as_points():
    traces = make(trials=2)
    keep = [59, 99, 159, 199]  # what the steady level records
    part = replace(traces, time=traces.time[keep], values={n: v[keep] for n, v in traces.values.items()})
    line = plot.traces_figure(part, ["pyr.r"], cells=[0]).axes[0].lines[0]
    assert line.get_marker() == "o" and plot.rates_figure(part).axes[0].lines[0].get_marker() == "o"
    np.testing.assert_allclose(np.asarray(line.get_xdata())[[0, 1, 3, 4]], [59, 99, 159, 199])
    assert plot.traces_figure(traces, ["pyr.r"]).axes[0].lines[0].get_marker() == "None"


# ------------------------------------------------------------------------------------------------ raster and rates


def test_raster_of_chosen_cells_has_a_row_for_each_of_them():
    traces = spiking([0.01, 0.02, 0.03], [0, 0, 0], [40, 7, 40], cells={"pyr": np.array([40, 7, 9])})
    (axes,) = plot.raster_figure(traces).axes
    marks = sorted((s[0][0], s[:, 1].mean()) for c in axes.collections for s in c.get_segments())
    np.testing.assert_allclose(marks, [(10, 0), (20, 1), (30, 0)], atol=1e-9)
    assert [t.get_text() for t in axes.get_yticklabels()] == ["40", "7", "9"]
    traces.spikes["pyr"].cell[1] = 8  # not among those recorded
    (axes,) = plot.raster_figure(traces).axes
    assert sum(len(c.get_segments()) for c in axes.collections) == 2


@pytest.mark.parametrize(("width", "bins"), [(0.01, 10), (0.03, 3)])
def test_rates_of_spikes_are_a_histogram_per_second_cell_and_sample(width, bins):
    rng = np.random.default_rng(1)
    times = np.sort(rng.uniform(0, 0.1, 200))
    traces = spiking(times, rng.integers(0, 2, 200), rng.integers(0, 3, 200))
    edges, rate = binned_rate(traces, "pyr", (0.0, 0.1), width)
    np.testing.assert_allclose(edges, width * np.arange(bins + 1))
    counts, _ = np.histogram(times, edges)
    np.testing.assert_allclose(rate, counts / width / (3 * 2))
    assert (rate * width).sum() * 6 == pytest.approx((times < edges[-1]).sum())
    figure = plot.rates_figure(traces, ["pyr"], bin=width)
    (axes,) = figure.axes
    (stairs,) = [p for p in axes.patches if hasattr(p, "get_data")]
    np.testing.assert_allclose(stairs.get_data().values, rate)
    np.testing.assert_allclose(stairs.get_data().edges, edges * 1e3)
    assert axes.get_ylabel() == f"firing rate (Hz)\nin bins of {width * 1e3:g} ms"
    assert texts(axes.get_legend()) == ["pyr (3 cells)"] and "mean over 2 samples" in figure.get_suptitle()


def test_a_spike_on_an_edge_belongs_to_the_bin_that_it_begins():
    traces = spiking(np.arange(10) * 0.01, np.zeros(10, int), np.zeros(10, int), n=1, batch=1)
    _, rate = binned_rate(traces, "pyr", (0.0, 0.1), 0.01)
    np.testing.assert_allclose(rate, 100.0)


def with_a_gap(cells: int = 2) -> Traces:
    """Spikes at 100 Hz in every cell; phases a (0 to 60 ms) and c (from 100 ms) of a trial of 150 ms, b between them left out."""
    rows = np.r_[0:60, 100:150]
    times = np.repeat(np.arange(15) * 0.01 + 0.005, cells)
    numbers = np.tile(np.arange(cells), 15)
    recorded = (times < 0.06) | (times > 0.1)
    current = np.where(rows < 60, 1e-9, 4e-9)[:, None, None] * np.ones((1, 1, cells))
    return Traces(
        rows * DT, {"pyr.I": current}, {"pyr.I": "amp"}, [PhaseSpan("a", 0, 0.0, 0.06), PhaseSpan("c", 0, 0.1, 0.15)],
        spikes={"pyr": Spikes(times[recorded], np.zeros(recorded.sum(), int), numbers[recorded])},
    )  # fmt: skip


def test_rates_where_time_was_left_out_are_those_of_the_time_that_was_recorded():
    traces = with_a_gap()
    edges, rate = binned_rate(traces, "pyr", (0.0, 0.15), 0.01)
    unrecorded = (edges[:-1] > 0.059) & (edges[1:] < 0.101)
    assert unrecorded.sum() == 4 and np.isnan(rate[unrecorded]).all()
    np.testing.assert_allclose(rate[~unrecorded], 100.0)
    (axes,) = plot.rates_figure(traces, ["pyr"], bin=0.01).axes
    (stairs,) = [p for p in axes.patches if hasattr(p, "get_data")]
    np.testing.assert_array_equal(np.isnan(stairs.get_data().values), unrecorded)
    assert axes.get_ylim()[1] >= 100
    # Bins of 40 ms: one in each phase; 20 ms of the first and 10 ms of the second fill none.
    edges, rate = binned_rate(traces, "pyr", (0.0, 0.15), 0.04)
    drawn = np.isfinite(rate)
    np.testing.assert_allclose(rate[drawn], [100, 100])
    np.testing.assert_allclose(np.transpose([edges[:-1], edges[1:]])[drawn], [(0.0, 0.04), (0.1, 0.14)])
    # A part that ends in mid-phase: 30 ms, in which there is one bin of 20 ms.
    part = traces.select(time=(0.0, 0.03))
    part.phases = [PhaseSpan("a", 0, 0.0, 0.03)]
    edges, rate = binned_rate(part, "pyr", (0.0, 0.04), 0.02)
    np.testing.assert_allclose(edges, [0.0, 0.02])
    np.testing.assert_allclose(rate, [100])


def test_rates_of_variables_are_means_over_cells_and_samples():
    traces = make()
    figure = plot.rates_figure(traces)
    assert [axes.get_ylabel() for axes in figure.axes] == ["pyr.r\n(dimensionless)", "int.r\n(dimensionless)"]
    mean, low, high = (np.delete(line.get_ydata(), 100) for line in figure.axes[1].lines[:3])
    flat = traces["int.r"].reshape(200, -1)
    np.testing.assert_allclose(mean, flat.mean(axis=1))
    ordered = np.sort(flat, axis=1)
    place = 0.1 * (flat.shape[1] - 1)
    between = ordered[:, int(place)] + (place % 1) * (ordered[:, int(place) + 1] - ordered[:, int(place)])
    np.testing.assert_allclose(low, between)
    assert np.all(high > mean)


def test_rate_refusals():
    with pytest.raises(
        NeurosimError, match=r"no spiking population or recorded variable 'pyr\.q'\. Did you mean 'pyr\.r'"
    ):
        plot.rates_figure(make(), ["pyr.q"])
    with pytest.raises(NeurosimError, match=r"bin = 0; wanted a time above 0, in seconds"):
        plot.rates_figure(make(), bin=0)
    with pytest.raises(NeurosimError, match=r"wanted a list, such as \['pyr\.r'\]"):
        plot.rates_figure(make(), "pyr.r")
    traces = spiking([0.01], [0], [5])
    traces.spikes = {"lif": traces.spikes["pyr"]}
    with pytest.raises(NeurosimError, match=r"do not say how many cells 'lif' has.*record=\['lif\.V'\]"):
        plot.rates_figure(traces, ["lif"])
    traces.spikes["pyr"] = traces.spikes["lif"]
    assert "1 of 2 spiking populations" in plot.rates_figure(traces).get_suptitle()
    none = make()
    none.values = {"pyr.u": none["pyr.r"]}
    with pytest.raises(NeurosimError, match="neither spikes nor a variable 'r'"):
        plot.rates_figure(none)


# ------------------------------------------------------------------------------------------------------------- f-I


def fi_traces() -> Traces:
    """Cell k of 6 gets (k // 2) nA (so that currents come twice) and fires k + 1 times in each phase nudged, twice in free."""
    traces = make(n=6, batch=1, trials=2)
    traces.values["pyr.I"] = np.broadcast_to(1e-9 * (np.arange(6) // 2), (200, 1, 6))
    traces.values["pyr.g"] = np.broadcast_to(np.array([0.0, 0, 0, 1, 1, 1]), (200, 1, 6))
    traces.units |= {"pyr.I": "amp", "pyr.g": "1"}
    at = [
        (0.1 * t + s, t, k) for t in range(2) for k in range(6) for s in [0.01, 0.05, *np.linspace(0.06, 0.099, k + 1)]
    ]
    traces.spikes = {"pyr": Spikes(*(np.array(column) for column in zip(*sorted(at), strict=True)))}
    return traces


def test_fi_counts_spikes_per_second_in_the_phase():
    found = read_response(fi_traces(), "pyr.I", "pyr", phase="nudged")
    np.testing.assert_allclose(found.response, np.tile(np.arange(1, 7), 2) / 0.04)
    np.testing.assert_allclose(found.current, np.tile(np.arange(6) // 2, 2) * 1e-9)
    late = read_response(fi_traces(), "pyr.I", "pyr", phase="free", discard=0.03)
    np.testing.assert_allclose(late.response, 1 / 0.03)
    whole = read_response(fi_traces(), "pyr.I", "pyr")
    np.testing.assert_allclose(whole.response, np.tile(np.arange(3, 9), 2) / 0.1)


def test_fi_reads_only_the_time_that_was_recorded():
    traces = with_a_gap()
    found = read_response(traces, "pyr.I", "pyr")
    np.testing.assert_allclose(found.response, 100)
    np.testing.assert_allclose(found.seconds, 0.11)
    np.testing.assert_allclose(found.current, (60 * 1e-9 + 50 * 4e-9) / 110)
    late = read_response(traces, "pyr.I", "pyr", discard=0.05)  # 10 ms of a, and c
    np.testing.assert_allclose(late.response, 100)
    np.testing.assert_allclose(late.current, (10 * 1e-9 + 50 * 4e-9) / 60)
    traces.values["pyr.r"] = traces["pyr.I"] * 1e9
    traces.units["pyr.r"] = "1"
    rate = read_response(traces, "pyr.I", "pyr.r", discard=0.08)  # begins where nothing was recorded
    np.testing.assert_allclose(rate.response, 4)
    np.testing.assert_allclose(rate.seconds, 0.05)
    assert "2 points, mean over 110 ms each" in plot.fi_figure(traces, "pyr.I", "pyr").get_suptitle()


def test_fi_of_trials_that_were_recorded_for_unequal_times():
    traces = make(n=1, batch=1, trials=2)
    traces.values["pyr.I"] = np.ones((200, 1, 1))
    traces.units["pyr.I"] = "1"
    times = np.arange(20) * 0.01 + 0.005
    traces.spikes = {"pyr": Spikes(times, (times > 0.1).astype(int), np.zeros(20, int))}
    traces.phases = [PhaseSpan("free", 0, 0.05, 0.06), *traces.phases[1:]]
    found = read_response(traces, "pyr.I", "pyr")
    np.testing.assert_allclose(found.response, 100)
    np.testing.assert_allclose(found.seconds, [0.05, 0.1])
    assert "2 points, mean over 50 to 100 ms each" in plot.fi_figure(traces, "pyr.I", "pyr").get_suptitle()


def test_fi_curve_gathers_equal_currents():
    figure = plot.fi_figure(fi_traces(), "pyr.I", phase="nudged")
    (axes,) = figure.axes
    x, y = axes.lines[0].get_data()
    np.testing.assert_allclose(x, [0, 1000, 2000])  # pA
    np.testing.assert_allclose(y, np.array([1.5, 3.5, 5.5]) / 0.04)
    assert axes.get_xlabel() == "pyr.I, mean (pA)" and axes.get_ylabel().startswith("firing rate of pyr (Hz)\n6 cells")
    assert "nudged, 12 points, mean over 40 ms each" in figure.get_suptitle()
    values, means, sd, counts = curve(np.array([1.0, 2.0, 1.0]), np.array([3.0, 5.0, 7.0]))
    assert list(values) == [1, 2] and list(means) == [5, 5] and list(counts) == [2, 1]
    np.testing.assert_allclose(sd, [np.std([3, 7], ddof=1), 0])


def test_fi_by_another_variable_and_of_a_rate():
    (axes,) = plot.fi_figure(fi_traces(), "pyr.I", by="pyr.g", phase="nudged").axes
    assert texts(axes.get_legend()) == ["0", "1"] and axes.get_legend().get_title().get_text() == "pyr.g"
    curves = [line.get_data() for line in axes.lines if line.get_label() in ("0", "1")]
    np.testing.assert_allclose(curves[0], [[0, 1000], [1.5 / 0.04, 3 / 0.04]])
    np.testing.assert_allclose(curves[1], [[1000, 2000], [4 / 0.04, 5.5 / 0.04]])
    traces = fi_traces()
    found = read_response(traces, "pyr.I", "pyr.r", phase="free")
    np.testing.assert_allclose(found.response[6:], traces["pyr.r"][100:160, 0].mean(axis=0))
    axes = plot.fi_figure(traces, "pyr.I", "int.r").axes[0]
    assert axes.get_ylabel().startswith("int.r, mean (dimensionless)\n6 cells")


def test_fi_refusals():
    traces = fi_traces()
    with pytest.raises(NeurosimError, match=r"no recorded variable 'pyr\.J'\. Did you mean"):
        plot.fi_figure(traces, "pyr.J")
    with pytest.raises(NeurosimError, match=r"There is no phase 'nugded'\. Did you mean 'nudged'"):
        plot.fi_figure(traces, "pyr.I", phase="nugded")
    with pytest.raises(NeurosimError, match=r"discard = 0\.05 s leaves nothing of phase 'nudged', which lasts 0\.04 s"):
        plot.fi_figure(traces, "pyr.I", phase="nudged", discard=0.05)
    traces.values["pyr.I"] = traces.values["pyr.I"][..., :4]
    with pytest.raises(NeurosimError, match=r"'pyr\.I' has 4 cells and 'int\.r' has 6; wanted as many, or one"):
        plot.fi_figure(traces, "pyr.I", "int.r")
    traces.values["pyr.g"] = np.broadcast_to(np.arange(8.0), (200, 1, 8))
    traces.values["pyr.I"] = np.broadcast_to(np.arange(8.0), (200, 1, 8))
    traces.values["pyr.r"] = np.zeros((200, 1, 8))
    with pytest.raises(NeurosimError, match=r"'pyr\.g' has 8 values; at most 7 curves"):
        plot.fi_figure(traces, "pyr.I", "pyr.r", by="pyr.g")


def test_fi_of_a_spiking_cell_rises():
    """A simulated cell fires more with more current: 0, and then increasing rates."""
    from brian2 import pA

    from neurosim import OneToOne
    from neurosim.parts import current_step

    soma = Population(
        "soma", 4, current_step("0*pA", "0*ms", "200*ms"), {"amplitude": np.array([0, 500, 900, 1300]) * pA}
    )
    circuit = Circuit(
        "cells", [Population("cell", 4, bac_pyramidal()), soma, Projection("into", "soma", "cell.I_s", connectivity=OneToOne())],
        Protocol((Phase("current", "200*ms"),), dt="0.05*ms"),
    )  # fmt: skip
    traces = simulate(circuit, record=["cell.I_s"], progress=False).traces
    x, y = plot.fi_figure(traces, "cell.I_s").axes[0].lines[0].get_data()
    np.testing.assert_allclose(x, [0, 500, 900, 1300], rtol=1e-3)
    assert y[0] == 0 and np.all(np.diff(y) > 0)
    assert y[3] == pytest.approx((traces.spikes["cell"].cell == 3).sum() / 0.2)


# ---------------------------------------------------------------------------------------------- weights and cosine


def weight_traces(circuit: Circuit | None = None, snapshots: int = 3, **metadata) -> Traces:
    circuit = circuit or ghost_units.circuit(sizes=(6, 4, 3), beta=1e-3)
    drawn = [circuit.initial_weights(seed) for seed in range(snapshots)]
    weights = {p.name: np.stack([w[p.name] for w in drawn]) for p, _ in circuit.plan.plastic()}
    return Traces(
        np.empty(0),
        {},
        {},
        [],
        {"model": circuit.name, **metadata},
        weights=weights,
        weight_trials=10 * np.arange(snapshots),
    )


def test_weights_norm_quantiles_and_angle():
    circuit = corinfomax.circuit(sizes=(8, 6, 4))
    traces = weight_traces(circuit, trials_per_epoch=5)
    pairs = feedback_pairs(circuit)
    assert pairs == [("W2", "F1")] or pairs == [("F1", "W2")]
    figure = plot.weights_figure(traces, ["W1", "W2"], pairs)
    norm, angle, first, second = figure.axes
    assert norm.get_xlabel() == angle.get_xlabel() == "epochs of training"
    x, y = norm.lines[0].get_data()
    np.testing.assert_allclose(x, [0, 2, 4])
    np.testing.assert_allclose(y, [np.sqrt((w**2).sum()) for w in traces.weights["W1"]])
    a, b = (traces.weights[name][1] for name in pairs[0])
    cosine = sum(a[i, j] * b[j, i] for i in range(a.shape[0]) for j in range(a.shape[1])) / np.sqrt(
        (a**2).sum() * (b**2).sum()
    )
    assert angle.lines[0].get_ydata()[1] == pytest.approx(np.degrees(np.arccos(cosine)))
    np.testing.assert_allclose(second.lines[0].get_ydata(), np.median(traces.weights["W2"], axis=(1, 2)))
    assert first.get_title() == "W1 (8 × 6 weights)" and "3 snapshots of one run" in figure.get_suptitle()
    assert not overlaps(figure)


def test_weights_alone_count_trials():
    figure = plot.weights_figure(weight_traces())
    assert figure.axes[0].get_xlabel() == "trials"
    np.testing.assert_allclose(figure.axes[0].lines[0].get_xdata(), [0, 10, 20])


def test_equal_weights_have_the_angle_0_and_opposite_ones_180():
    w = np.random.default_rng(0).normal(size=(2, 5, 3))
    weights = {"W": w, "B": np.stack([w[0].T, -w[1].T])}
    traces = Traces(np.empty(0), {}, {}, [], weights=weights, weight_trials=np.arange(2))
    figure = plot.weights_figure(traces, pairs=[("W", "B")])
    np.testing.assert_allclose(figure.axes[1].lines[0].get_ydata(), [0, 180], atol=1e-5)


def test_pairs_of_circuits():
    learned = feedback_pairs(ghost_units.circuit(mode="learned"))
    assert set(learned) == {("W2", "G1"), ("W3", "G2")}
    assert feedback_pairs(ghost_units.circuit()) == []  # all feedback is tied


def test_weights_refusals():
    with pytest.raises(NeurosimError, match=r"No weights were recorded; name projections.*train MODEL --record W1 W2"):
        plot.weights_figure(make())
    traces = weight_traces()
    with pytest.raises(NeurosimError, match=r"no recorded projection 'W9'\. Did you mean"):
        plot.weights_figure(traces, ["W9"])
    with pytest.raises(NeurosimError, match="no recorded projection 'B1'"):
        plot.weights_figure(traces, pairs=[("W2", "B1")])
    with pytest.raises(
        NeurosimError, match=r"'W1' have the shape \(6, 4\) and those of 'W2' \(4, 3\); wanted the second"
    ):
        plot.weights_figure(traces, pairs=[("W1", "W2")])


def test_cosine_is_1_where_the_update_is_the_gradient():
    """Exact ghosts with a weak nudge follow the gradient; reversed ones would have the cosine -1."""
    circuit = ghost_units.circuit(sizes=(6, 4, 3), beta=1e-4)
    rng = np.random.default_rng(0)
    images, labels = rng.uniform(size=(12, 6)), rng.integers(0, 3, 12)
    traces = weight_traces(circuit)
    found = update_cosines(circuit, traces, images, labels)
    assert list(found) == [p.name for p, _ in circuit.plan.plastic()]
    for values in found.values():
        assert values.shape == (3,) and np.all(values > 0.999)
    figure = plot.cosine_figure(found, traces, len(images))
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_ydata(), found["W1"])
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_xdata(), [0, 10, 20])
    assert "12 samples, 3 snapshots of one run" in figure.get_suptitle()


def test_cosine_equals_that_of_compare():
    import neurosim

    circuit = corinfomax.circuit(sizes=(6, 5, 3))
    rng = np.random.default_rng(0)
    images, labels = rng.uniform(size=(4, 6)), rng.integers(0, 3, 4)
    traces = weight_traces(circuit, snapshots=1)
    found = update_cosines(circuit, traces, images, labels)
    weights = circuit.initial_weights(0) | {n: w[0] for n, w in traces.weights.items()}
    wanted = neurosim.compare(
        circuit, images, labels, levels=["torch:steady", "torch:trajectory"], weights=weights, batch_size=4, progress=False
    ).report["update_cosine"]["torch:steady"]  # fmt: skip
    for name, values in found.items():
        assert values[0] == pytest.approx(wanted[name], abs=1e-6)


def test_cosine_refusals():
    circuit = ghost_units.circuit(sizes=(6, 4, 3))
    traces = weight_traces(circuit)
    traces.weights = {"W1": traces.weights["W1"]}
    with pytest.raises(
        NeurosimError, match=r"weights of b1, W2, b2 were not recorded.*train MODEL --record W1 b1 W2 b2"
    ):
        update_cosines(circuit, traces, np.zeros((2, 6)), np.zeros(2, int))
    bac = registry.model("bac_firing").circuit()
    with pytest.raises(NeurosimError, match="'bac_firing' names no feed-forward reference"):
        update_cosines(bac, weight_traces(), np.zeros((2, 6)))
    with pytest.raises(NeurosimError, match=r"cosines of 'W1' have the shape \(2,\); wanted \(3,\), one per snapshot"):
        plot.cosine_figure({"W1": np.zeros(2)}, traces)
    with pytest.raises(NeurosimError, match="object of type Circuit; wanted cosines by projection"):
        plot.cosine_figure(circuit, traces)  # type: ignore[arg-type]


# ----------------------------------------------------------------------------------------------- representations


def hsic_cka(x: np.ndarray, y: np.ndarray) -> float:
    """By the centring matrix, as Kornblith et al. write it."""
    n = len(x)
    h = np.eye(n) - 1.0 / n
    k, l = h @ x @ x.T @ h, h @ y @ y.T @ h
    return float(np.trace(k @ l) / np.sqrt(np.trace(k @ k) * np.trace(l @ l)))


def test_cka_matrix():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 5))
    rotation, _ = np.linalg.qr(rng.normal(size=(5, 5)))
    activity = {"a": x, "turned": 3 * x @ rotation + 1, "other": rng.normal(size=(30, 8))}
    before = {name: rng.normal(size=v.shape) for name, v in activity.items()}
    figure = plot.cka_figure(activity, before)
    left, right = (axes.images[0].get_array() for axes in figure.axes[:2])
    assert right[0, 1] == pytest.approx(1) and np.allclose(np.diag(right), 1)
    for matrix, part in ((left, before), (right, activity)):
        wanted = [[hsic_cka(a, b) for b in part.values()] for a in part.values()]
        np.testing.assert_allclose(matrix, wanted, atol=1e-10)
    assert figure.axes[0].images[0].get_clim() == figure.axes[1].images[0].get_clim() == (0, 1)
    assert [t.get_text() for t in figure.axes[1].get_xticklabels()] == list(activity)
    assert figure.get_suptitle() == "linear CKA, 30 samples" and not overlaps(figure)
    with pytest.raises(NeurosimError, match="Got the activity of a; wanted at least two"):
        plot.cka_figure({"a": x})
    with pytest.raises(NeurosimError, match="Before training: b; after it: a, turned, other"):
        plot.cka_figure(activity, {"b": x})


def test_activities_are_the_rates_of_the_feedforward_net():
    """Without nudging, exact ghosts cancel: rates are those of the feed-forward net."""
    circuit = ghost_units.circuit(sizes=(6, 4, 3))
    weights = circuit.initial_weights(3)
    images = np.random.default_rng(0).uniform(size=(5, 6))
    found = activities(circuit, weights, images, np.zeros(5, int))
    assert list(found) == ["inp", "pyr1", "pyr2", "ghost1"]
    np.testing.assert_array_equal(found["inp"], images)
    rate = images
    for layer, name in ((1, "pyr1"), (2, "pyr2")):
        rate = 1 / (1 + np.exp(-(rate @ weights[f"W{layer}"] + weights[f"b{layer}"])))
        np.testing.assert_allclose(found[name], rate, atol=1e-6)
    assert list(activities(circuit, weights, images, np.zeros(5, int), ["pyr2"])) == ["pyr2"]
    with pytest.raises(NeurosimError, match="There is no population 'pyr9'"):
        activities(circuit, weights, images, np.zeros(5, int), ["pyr9"])


def test_activities_in_windows_show_each_sample_its_own_label():
    circuit = registry.model("counter_current").circuit({"sizes": (6, 5, 4, 3)})
    labels = np.array([2, 0, 1, 1])
    images = np.random.default_rng(0).uniform(size=(4, 6))
    found = activities(circuit, circuit.initial_weights(0), images, labels)
    np.testing.assert_array_equal(found["D3"].argmax(axis=1), labels)  # the source of labels
    np.testing.assert_allclose(found["D2"][2], found["D2"][3], atol=1e-6)  # driven by labels alone


def test_tsne_draws_each_class_as_its_number_and_is_seeded():
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 3, 11], 12)
    activity = {"pyr": rng.normal(size=(36, 4)) + 10 * labels[:, None], "one": rng.normal(size=(36, 1))}
    figures = [plot.tsne_figure(activity, labels, seed=1) for _ in range(2)]
    points = [[np.asarray(c.get_offsets()) for axes in f.axes for c in axes.collections] for f in figures]
    for a, b in zip(*points, strict=True):
        np.testing.assert_array_equal(a, b)
    assert [len(p) for p in points[0]] == [12] * 6
    axes = figures[0].axes[0]
    spread = max(np.ptp(p, axis=0).max() for p in points[0][:3])
    centres = np.array([p.mean(axis=0) for p in points[0][:3]])
    assert min(np.linalg.norm(a - b) for a, b in pairwise(centres)) > spread  # far classes stay apart
    assert len({tuple(c.get_facecolor()[0]) for c in axes.collections}) == 3
    assert axes.get_title() == "pyr (4 cells)" and "36 samples, 3 classes" in figures[0].get_suptitle()
    with pytest.raises(
        NeurosimError, match=r"'pyr' has 36 samples and the labels have the shape \(3,\); wanted \(36,\)"
    ):
        plot.tsne_figure(activity, labels[:3])
    with pytest.raises(NeurosimError, match="Got 0 populations; wanted 1 to 6"):
        plot.tsne_figure({}, labels)


def test_tsne_without_scikit_learn_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    with pytest.raises(
        NeurosimError,
        match=r"needs scikit-learn, which is not installed; install it with pip install 'neurosim\[analysis\]'",
    ):
        plot.tsne_figure({"a": np.zeros((3, 2))}, np.arange(3))


# --------------------------------------------------------------------------------------------------------- fields


def test_fields_are_the_columns_of_the_weights_in_one_symmetric_scale():
    w = np.random.default_rng(0).normal(size=(12, 5))
    figure = plot.fields_figure(w, (3, 4), cells=[4, 1], name="W1")
    pictures = [axes for axes in figure.axes if axes.get_title() in ("4", "1")]
    for axes, cell in zip(pictures, (4, 1), strict=True):
        shown = axes.images[0].get_array()
        np.testing.assert_array_equal(shown, [[w[4 * row + column, cell] for column in range(4)] for row in range(3)])
    limits = {axes.images[0].get_clim() for axes in pictures}
    assert limits == {(-np.abs(w[:, [4, 1]]).max(), np.abs(w[:, [4, 1]]).max())}
    assert figure.axes[-1].get_ylabel() == "weight W1\n(dimensionless)"
    assert figure.get_suptitle() == "incoming weights W1 of 2 of 5 cells, 3 × 4 pixels"
    white = pictures[0].images[0].cmap(0.5)
    assert min(white[:3]) > 0.95


def test_fields_of_channels_stand_side_by_side():
    w = np.arange(3 * 4 * 4 * 2.0).reshape(48, 2)
    axes = plot.fields_figure(w).axes[0]
    shown = np.asarray(axes.images[0].get_array())
    assert shown.shape == (4, 4 * 3 + 2)
    np.testing.assert_array_equal(shown[:, 5:9], w[16:32, 0].reshape(4, 4))


def test_fields_refusals():
    with pytest.raises(NeurosimError, match=r"The weights have the shape \(4,\); wanted \(pixels, cells\)"):
        plot.fields_figure(np.zeros(4))
    with pytest.raises(NeurosimError, match=r"7 weights per cell do not make a picture of 3 x 3; give shape"):
        plot.fields_figure(np.zeros((7, 2)))
    with pytest.raises(NeurosimError, match="There is no cell 2: the weights reach 2 cells, 0 to 1"):
        plot.fields_figure(np.zeros((4, 2)), cells=[2])
    with pytest.raises(NeurosimError, match="Got no cell"):
        plot.fields_figure(np.zeros((4, 2)), cells=[])


# -------------------------------------------------------------------------------------------------------- network


@cache
def placed(name: str):
    return diagram(registry.model(name).circuit())


def segments(arrow):
    return [(a, b) for a, b in pairwise(arrow.points) if np.hypot(b[0] - a[0], b[1] - a[1]) > 1e-9]


@pytest.mark.parametrize("name", registry.names())
def test_network_has_an_arrow_per_projection_that_ends_at_its_port(name):
    circuit = registry.model(name).circuit()
    found = placed(name)
    assert set(found.arrows) == {p.name for p in circuit.projections}
    assert set(found.boxes) == {p.name for p in circuit.populations} - {"one"}
    for q in circuit.plan.projections.values():
        arrow, box = found.arrows[q.name], found.boxes[q.target]
        x, y = arrow.points[-1]
        low, high = box.port_y[q.port]
        assert low < y < high and box.y <= low and high <= box.y + box.height + 1e-9
        assert x == pytest.approx(box.x) or x == pytest.approx(box.x + box.width)
        if q.source != "one":
            source = found.boxes[q.source]
            x, y = arrow.points[0]
            assert source.y < y < source.y + source.height
            assert x == pytest.approx(source.x) or x == pytest.approx(source.x + source.width)
        for a, b in segments(arrow):
            assert a[0] == pytest.approx(b[0]) or a[1] == pytest.approx(b[1])
        assert all(0 <= x <= found.width and 0 <= y <= found.height for x, y in arrow.points)


@pytest.mark.parametrize("name", registry.names())
def test_nothing_in_a_network_lies_on_top_of_another(name):
    found = placed(name)
    boxes = list(found.boxes.values())
    for k, a in enumerate(boxes):
        for b in boxes[k + 1 :]:
            assert a.x + a.width < b.x or b.x + b.width < a.x or a.y + a.height < b.y or b.y + b.height < a.y
    every = [(arrow.name, a, b) for arrow in found.arrows.values() for a, b in segments(arrow)]
    for _, a, b in every:  # no arrow runs through a box
        for box in boxes:
            left, right = sorted((a[0], b[0]))
            low, high = sorted((a[1], b[1]))
            clear = (
                right <= box.x + 1e-9 or left >= box.x + box.width - 1e-9 or high <= box.y or low >= box.y + box.height
            )
            assert clear, (name, box.name)
    for k, (first, a, b) in enumerate(every):  # none along another one
        for second, c, d in every[k + 1 :]:
            if first == second:
                continue
            for along, across in ((0, 1), (1, 0)):
                flat = abs(a[across] - b[across]) < 1e-9 and abs(c[across] - d[across]) < 1e-9
                if flat and abs(a[across] - c[across]) < 0.01:
                    (p, q), (r, s) = sorted((a[along], b[along])), sorted((c[along], d[along]))
                    assert min(q, s) - max(p, r) < 1e-6, (name, first, second)


def test_pools_by_which_cells_act_on_one_another_stand_in_their_box():
    """TDCA's softmax divides by a sum over the cells; its mean credit, and the ghost units' power, are read by rules alone."""
    found = placed("tdca").boxes
    assert [port for port in found["pyr3"].ports if port.startswith("Σ")] == ["Σ total"]
    others = [port for name, box in found.items() if name != "pyr3" for port in box.ports]
    others += [port for box in placed("ghost_units").boxes.values() for port in box.ports]
    assert not any(port.startswith("Σ") for port in others)
    for name, legend in (("tdca", True), ("ghost_units", False)):
        texts = [t.get_text() for t in plot.network_figure(registry.model(name).circuit()).legends[0].get_texts()]
        assert ("pool of its cells" in texts) is legend


def test_kinds_and_effects_of_arrows():
    learned = diagram(ghost_units.circuit(mode="learned")).arrows
    assert learned["W2"].kind == "plastic" and learned["B1"].kind == "tied" and learned["teach1"].kind == "one to one"
    assert learned["G1"].effect == -1 and learned["B1"].effect == learned["W2"].effect == 1
    assert learned["teach1"].effect == 0  # only the rule reads it
    assert diagram(registry.model("tdca").circuit()).arrows["V2"].kind == "evolved"
    micro = registry.model("dendritic_microcircuit")
    for lateral, effect in (("tied", -1), ("self_predicting", -1), ("random", 1)):  # -B, starts as -B, both signs
        arrows = diagram(micro.circuit({"sizes": (8, 6, 5, 4), "lateral": lateral})).arrows
        assert [arrows[name].effect for name in ("PI1", "PI2")] == [effect, effect]
        assert arrows["IP1"].effect == arrows["W1"].effect == arrows["B1"].effect == 1


NEGATIVE = np.array([[-1.0, 0.0], [-2.0, -1.0]])


@pytest.mark.parametrize(
    ("projection", "effect"),
    [
        ({"weights": Constant(1.0)}, 1),
        ({"weights": Constant(-1.0)}, -1),
        ({"weights": Constant(0.0)}, 1),
        ({"weights": Given(NEGATIVE)}, -1),
        ({"weights": Given(NEGATIVE + 1.5)}, 1),
        ({"weights": Uniform(-1.0, 0.0)}, -1),
        ({"weights": Uniform(-1.0, 1.0)}, 1),
        ({"weights": Glorot()}, 1),
        ({"weights": Like("minus", 0.5)}, -1),
        ({"weights": Like("minus", -0.5)}, 1),
        ({"weights": Like("drawn", -0.5, transpose=True)}, -1),
        ({"weights": Tied("minus")}, -1),
        ({"weights": Tied("minus", factor=-1.0)}, 1),
        ({"connectivity": OneToOne()}, 1),
        ({"connectivity": OneToOne(), "weights": Constant(-1.0)}, -1),
        ({"weights": Given(NEGATIVE)}, -1),
        ({"weights": Given(-NEGATIVE)}, 1),
    ],
)
def test_weights_below_zero_subtract_and_a_port_that_subtracts_turns_them(projection, effect):
    cell = Cell(
        "cell",
        "du/dt = (-u + I - J)/tau : 1\nr = u : 1\nI : 1 (optional port)\nJ : 1 (optional port)",
        parameters={"tau": "10*ms"},
    )
    projections = (
        Projection("minus", "a", "b.I", Constant(-1.0)),
        Projection("drawn", "a", "b.I", Glorot()),
        Projection("plus", "a", "b.I", **projection),
        Projection("turned", "a", "b.J", **projection),
    )
    circuit = Circuit(
        "pair",
        Fragment((Population("a", 2, cell), Population("b", 2, cell)), projections),
        Protocol((Phase("p", "10*ms"),)),
    )
    arrows = diagram(circuit).arrows
    assert (arrows["plus"].effect, arrows["turned"].effect) == (effect, -effect)


def test_levels_go_from_left_to_right():
    boxes = diagram(registry.model("ghost_units").circuit()).boxes
    assert [boxes[n].column for n in ("inp", "pyr1", "pyr2", "pyr3", "ghost1", "ghost2")] == [0, 1, 2, 3, 1, 2]
    assert len({boxes[n].row for n in ("inp", "pyr1", "pyr2", "pyr3")}) == 1
    boxes = diagram(registry.model("counter_current").circuit()).boxes
    assert all(boxes[f"F{k}"].column == boxes[f"D{k}"].column == k for k in range(4))


def test_network_figure_draws_boxes_and_arrows_and_says_what_styles_mean():
    circuit = ghost_units.circuit()
    figure = plot.network_figure(circuit)
    gids = [patch.get_gid() for patch in figure.axes[0].patches if patch.get_gid()]
    assert sorted(gids) == sorted(
        [*(p.name for p in circuit.projections), *(p.name for p in circuit.populations if p.name != "one")]
    )
    assert texts(figure.legends[0]) == [
        "adds to the potential",
        "subtracts from it",
        "bias",
        "plastic",
        "tied to other weights",
    ]
    words = [t.get_text() for t in figure.axes[0].texts]
    assert {"pyr1", "64 cells", "I_gh", "W1", "B1"} <= set(words)
    assert "ghost_units: 6 populations, 14 projections" in [t.get_text() for t in figure.texts]
    assert not overlaps(figure)


# ------------------------------------------------------------------------------------------------------ evolution


def generations(count: int = 4) -> list[dict]:
    return [
        {
            "generation": k,
            "best": 3.0 + k,
            "mean": 1.0 + k,
            "centre": 2.0 * k,
            "sigma": 0.1 / (k + 1),
            "non_finite": k % 2,
        }
        for k in range(count)
    ]


def test_evolution_draws_fitness_and_width():
    figure = plot.evolution_figure(
        {"pepg": generations(), "gradient": [{"generation": 0, "best": 1.0}, {"generation": 1, "best": 2.0}]}
    )
    upper, lower = figure.axes
    best, mean, centre = upper.lines[:3]
    np.testing.assert_array_equal(best.get_xydata(), [[k, 3 + k] for k in range(4)])
    np.testing.assert_array_equal(mean.get_ydata(), [1, 2, 3, 4])
    np.testing.assert_array_equal(centre.get_ydata(), [0, 2, 4, 6])
    np.testing.assert_allclose(lower.lines[0].get_ydata(), [0.1, 0.05, 0.1 / 3, 0.025])
    assert len({line.get_linestyle() for line in (best, mean, centre)}) >= 2
    assert texts(figure.legends[0]) == ["pepg (4 generations, 2 candidates not finite)", "gradient (2 generations)"]
    assert upper.get_ylabel().startswith("fitness") and lower.get_xlabel() == "generation"


def test_evolution_refusals():
    with pytest.raises(NeurosimError, match="Got 0 evolutions; wanted 1 to 7"):
        plot.evolution_figure({})
    with pytest.raises(NeurosimError, match="The evolution 'a' has no generation that ended"):
        plot.evolution_figure({"a": []})
    with pytest.raises(NeurosimError, match="A row of 'a' has no 'generation'; it has best"):
        plot.evolution_figure({"a": [{"best": 1.0}]})
    with pytest.raises(NeurosimError, match="no row has a finite value of best, mean, centre"):
        plot.evolution_figure({"a": [{"generation": 0}]})


# ---------------------------------------------------------------------------------------------------------- files

MAGIC = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}
KINDS = {
    "rates": lambda: plot.rates_figure(spiking([0.01, 0.02], [0, 1], [0, 1])),
    "fi": lambda: plot.fi_figure(fi_traces(), "pyr.I"),
    "weights": lambda: plot.weights_figure(weight_traces()),
    "cka": lambda: plot.cka_figure({"a": np.eye(4), "b": np.eye(4)[:, :2]}),
    "fields": lambda: plot.fields_figure(np.eye(4)),
    "network": lambda: plot.network_figure(ghost_units.circuit()),
    "evolution": lambda: plot.evolution_figure({"a": generations()}),
}


@cache
def drawn(kind: str):
    return KINDS[kind]()


@pytest.mark.parametrize("kind", KINDS)
def test_files_are_written_and_equal_when_drawn_again(tmp_path, kind):
    first, second = drawn(kind), KINDS[kind]()
    for suffix, magic in MAGIC.items():
        one, two = (plot.save_figure(f, tmp_path / f"{k}{suffix}").read_bytes() for k, f in enumerate((first, second)))
        assert one.startswith(magic) and one == two


@pytest.mark.parametrize("kind", KINDS)
def test_every_axis_has_a_label_and_no_text_stands_on_another(kind):
    figure = drawn(kind)
    assert not overlaps(figure)
    if kind in ("network", "fields"):  # pictures without axes
        return
    for axes in filter(lambda one: one.get_visible(), figure.axes):
        shown = axes.get_xlabel() or not any(t.get_text() for t in axes.get_xticklabels() if t.get_visible())
        assert shown or axes.get_subplotspec() is None or not axes.xaxis.get_tick_params()["labelbottom"]
    assert any(axes.get_xlabel() for axes in figure.axes) and any(axes.get_ylabel() for axes in figure.axes)


# ---------------------------------------------------------------------------------------------------- command line


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two tiny runs that differ by seed, traces on two levels, spikes, weights, an evolution."""
    from neurosim.training import train

    base = tmp_path_factory.mktemp("folders")
    settings = {"sizes": (64, 8, 6, 10)}
    circuit = ghost_units.circuit(**settings)
    for seed in range(2):
        schedule = {"epochs": 2, "limit": 64, "seed": seed, "progress": False}
        if seed:
            schedule["recorder"] = {"variables": [p.name for p, _ in circuit.plan.plastic()]}
        train("ghost_units", base / "ghost" / f"seed{seed}", settings=settings, **schedule)
    train(
        "ghost_units",
        base / "ghost" / "other",
        settings=settings,
        epochs=1,
        limit=64,
        learning_rate=0.01,
        progress=False,
    )
    began = load_run(base / "ghost" / "seed0").weights
    for name in ("plain", "recorded"):
        schedule = {"epochs": 2, "limit": 64, "seed": int(name == "recorded"), "weights": began, "progress": False}
        if name == "recorded":
            schedule["recorder"] = {"variables": [p.name for p, _ in circuit.plan.plastic()]}
        train("ghost_units", base / "given" / name, settings=settings, **schedule)
    images = np.random.default_rng(0).uniform(size=(2, 64))
    for level in ("torch:trajectory", "brian2:dense"):
        run = simulate(
            circuit, images, np.arange(2), level=level, record=["pyr1.a", "pyr1.r"], stride=5, progress=False
        )
        run.traces.save(base / f"{level.partition(':')[0]}.h5")
    bac = simulate(
        registry.model("bac_firing").circuit({"duration": "80*ms"}), record=["both.V_s", "both.I_s"], progress=False
    )
    bac.traces.save(base / "bac.h5")
    (base / "evolved").mkdir()
    (base / "evolved" / "config.json").write_text("{}")
    import json

    rows = "".join(json.dumps(row) + "\n" for row in generations())
    (base / "evolved" / "metrics.jsonl").write_text(rows + '{"generation": 4, "be')  # killed in mid-line
    return base


@pytest.fixture
def cli(capsys):
    def call(*arguments):
        code = main([str(a) for a in arguments])
        said = capsys.readouterr()
        return SimpleNamespace(code=code, out=said.out, err=said.err)

    return call


COMMANDS = {
    "traces": ["torch.h5"],
    "levels": ["torch.h5", "brian2.h5"],
    "raster": ["bac.h5"],
    "rates": ["torch.h5"],
    "fi": ["torch.h5", "--record", "pyr1.a", "pyr1.r", "--phase", "free"],
    "weights": ["ghost/seed1"],
    "cosine": ["ghost/seed1", "--samples", "10"],
    "cka": ["ghost/seed0", "--before", "--samples", "20"],
    "tsne": ["ghost/seed0", "--samples", "20", "--record", "inp", "pyr1"],
    "learning": ["ghost/seed0", "ghost/seed1", "ghost/other"],
    "fields": ["ghost/seed0", "--cells", "0", "5"],
    "network": ["ghost/seed0"],
    "evolution": ["evolved"],
}


@pytest.mark.parametrize("kind", COMMANDS)
def test_every_kind_through_the_command_line(cli, folders, tmp_path, kind):
    if kind == "tsne":
        pytest.importorskip("sklearn")
    paths = [folders / a if (folders / a).exists() else a for a in COMMANDS[kind]]
    done = cli("plot", *paths, "--kind", kind, "--to", tmp_path / "figure.svg")
    assert done.code == 0, done.err
    assert done.out == f"wrote {tmp_path / 'figure.svg'}\n" and b"<svg" in (tmp_path / "figure.svg").read_bytes()


@pytest.mark.parametrize(
    ("paths", "written"),
    [
        (["torch.h5"], "torch.png"),
        (["torch.h5", "brian2.h5"], "torch-levels.png"),
        (["ghost/seed0"], "ghost/seed0/curves.png"),
        (["evolved"], "evolved/evolution.png"),
        (["ghost/seed1", "--kind", "weights"], "ghost/seed1/weights.png"),
        (["ghost/seed1/recording.h5"], "ghost/seed1/recording-weights.png"),  # nothing but weights in it
    ],
)
def test_the_kind_follows_from_the_path(cli, folders, paths, written):
    done = cli("plot", *(folders / a if (folders / a).exists() else a for a in paths))
    assert done.code == 0, done.err
    assert (folders / written).read_bytes().startswith(MAGIC[".png"])


def test_network_of_a_model_with_settings(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli("plot", "tdca").code == 0 and (tmp_path / "tdca-network.png").is_file()
    assert cli("plot", "ghost_units", "--set", "mode=learned", "--to", "learned.svg").code == 0
    assert "teach1" in (tmp_path / "learned.svg").read_text()


def test_runs_that_differ_by_seed_only_are_grouped(folders):
    from neurosim.cli.plot import _by_seed

    runs = [load_run(folders / "ghost" / name) for name in ("seed0", "other", "seed1")]
    grouped = _by_seed(runs)
    assert list(grouped) == ["ghost_units", "other"]
    assert grouped["ghost_units"] == [runs[0].metrics, runs[2].metrics] and grouped["other"] == runs[1].metrics
    given = [load_run(folders / "given" / name) for name in ("plain", "recorded")]
    assert given[0].config == runs[0].config  # but from the weights of another run
    assert list(_by_seed([given[0], runs[2]])) == ["plain", "seed1"]
    assert list(_by_seed(given)) == ["ghost_units"]
    again = replace(runs[0], folder=folders / "again")
    assert list(_by_seed([runs[0], again])) == ["seed0", "again"]  # the same seed twice is no second seed


def test_before_training_is_what_the_run_began_with(cli, folders, tmp_path, monkeypatch):
    drawn = []
    real = representations.activities
    monkeypatch.setattr(
        representations,
        "activities",
        lambda circuit, weights, *rest: drawn.append(weights) or real(circuit, weights, *rest),
    )
    arguments = ["--kind", "cka", "--before", "--samples", "20", "--to", tmp_path / "cka.svg", "--overwrite"]
    done = cli("plot", folders / "given" / "recorded", *arguments)
    assert done.code == 0, done.err
    before = drawn[1]
    began = load_run(folders / "ghost" / "seed0").weights  # given to it
    for name in began:
        np.testing.assert_array_equal(before[name], began[name])
    assert any(np.any(drawn[0][name] != began[name]) for name in began)
    assert cli("plot", folders / "ghost" / "seed0", *arguments).code == 0
    first = ghost_units.circuit(sizes=(64, 8, 6, 10)).initial_weights(0)
    for name in first:
        np.testing.assert_array_equal(drawn[3][name], first[name])
    done = cli("plot", folders / "given" / "plain", *arguments)
    assert done.code == 1 and "The run 'plain' began from other weights than its seed draws (--weights)" in done.err
    assert (
        "no recording of all plastic weights at its start" in done.err
        and "--record W1 b1 W2 b2 W3 b3), or leave --before out" in done.err
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ghost/seed1", "--kind", "weights", "--cells", "3"], "--cells belongs to --kind traces, levels or fields; --kind weights takes --record."),
        (["ghost/seed1", "--kind", "weights", "--by", "foo.bar"], "--by belongs to --kind fi; --kind weights takes --record."),
        (["ghost/seed1", "--kind", "weights", "--samples", "0"], "--samples belongs to --kind cosine, cka or tsne; --kind weights"),
        (["ghost/seed0", "--record", "foo"], "--kind learning takes none of these options."),
        (["torch.h5", "--phase", "free"], "--phase belongs to --kind fi; --kind traces takes --record, --cells."),
        (["ghost/seed0", "--kind", "tsne", "--before"], "--before belongs to --kind cka; --kind tsne takes --record, --samples, --data-dir."),
        (["evolved", "--data-dir", "."], "--data-dir belongs to --kind cosine, cka or tsne; --kind evolution takes none"),
        (["ghost/seed0", "--set", "mode=learned"], "--set belongs to --kind network; --kind learning takes none"),
        (["ghost/seed0", "--kind", "network", "--set", "mode=learned"], "is a run folder, whose settings stand in its config.toml. Give the model's name"),
    ],
)  # fmt: skip
def test_options_that_would_do_nothing_are_refused(cli, folders, tmp_path, arguments, said):
    done = cli("plot", folders / arguments[0], *arguments[1:], "--to", tmp_path / "figure.png")
    assert done.code == 1 and said in done.err
    assert not (tmp_path / "figure.png").exists()


def test_every_option_belongs_to_a_kind():
    import argparse

    from neurosim.cli import parser
    from neurosim.cli.plot import KINDS as kinds

    (commands,) = (a for a in parser()._actions if isinstance(a, argparse._SubParsersAction))
    options = {a.option_strings[-1] for a in commands.choices["plot"]._actions if a.option_strings}
    assert {o for kind in kinds.values() for o in kind.options} == options - {
        "--help",
        "--debug",
        "--kind",
        "--to",
        "--overwrite",
    }


def test_misfits_say_what_is_wanted_and_how_to_make_it(cli, folders):
    def said(*arguments):
        done = cli("plot", "--to", folders / "refused.png", *arguments)  # where no other test draws
        assert done.code == 1
        assert not (folders / "refused.png").exists()
        return done.err

    assert "There is no kind of figure 'wieghts'. Did you mean 'weights'? Known: traces, levels, " in said(
        "ghost_units", "--kind", "wieghts"
    )
    err = said(folders / "torch.h5", "--kind", "cka")
    assert (
        "--kind cka wants a run folder of `neurosim train`; " in err
        and "For example: neurosim plot runs/ghost --kind cka" in err
    )
    err = said(folders / "ghost" / "seed0", "--kind", "raster")
    assert (
        "--kind raster wants a traces.h5 of `neurosim simulate`" in err and "without traces.h5 or recording.h5" in err
    )
    err = said(folders / "ghost" / "seed0", "--kind", "weights")
    assert (
        "wants a run folder of `neurosim train MODEL --record W1 W2`" in err and "a folder without recording.h5" in err
    )
    assert "--kind evolution wants a folder of `neurosim evolve`" in said(
        folders / "ghost" / "seed0", "--kind", "evolution"
    )
    assert "The paths do not go together" in said(folders / "torch.h5", folders / "evolved")
    assert "--kind traces draws one path at a time, and got 2; give one" in said(
        *[folders / "torch.h5"] * 2, "--kind", "traces"
    )
    err = said(folders / "torch.h5", "--kind", "fi")
    assert "--kind fi wants --record CURRENT, or CURRENT and RESPONSE, and got 0 names; recorded: pyr1.a, pyr1.r" in err
    assert "--samples 0: wanted between 1 and" in said(folders / "ghost" / "seed0", "--kind", "cka", "--samples", "0")
    err = said(folders / "ghost" / "seed0", "--kind", "fields", "--record", "W9")
    assert "There is no projection with weights of its own 'W9'" in err
    assert "wanted one of .png, .pdf, .svg" in said("ghost_units", "--to", "figure.jpg")


def test_help_lists_every_kind_with_an_example(cli, capsys):
    with pytest.raises(SystemExit):
        main(["plot", "--help"])
    text = capsys.readouterr().out
    for kind in COMMANDS:
        assert f"\n  {kind} " in text
    assert text.count("\n             neurosim plot ") == len(COMMANDS)
