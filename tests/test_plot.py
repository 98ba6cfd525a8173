"""Figures: what stands on axes and in legends, what lines are drawn from, and the text of refusals."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from neurosim import plot, simulate
from neurosim.errors import NeurosimError
from neurosim.plot import style
from neurosim.traces import PhaseSpan, Spikes, Traces

DT = 1e-3
PHASES = (("free", 60), ("nudged", 40), ("nudged_end", 20))


def make_traces(
    trials: int = 1, batch: int = 1, variables=("pyr1.u", "pyr1.E", "pyr2.r"), n: int = 12, unit: str = "1"
) -> Traces:
    """Each cell relaxes to its own value; cells 2, 5 and 9 move most."""
    spans, step = [], 0
    for trial in range(trials):
        for name, steps in PHASES:
            spans.append(PhaseSpan(name, trial, step * DT, (step + steps) * DT))
            step += steps
    time = np.arange(step) * DT
    size = np.full(n, 0.01)
    size[[k for k in (2, 5, 9) if k < n]] = 0.5
    shape = 1 - np.exp(-(time % (120 * DT)) / 0.02)
    one = shape[:, None, None] * size * (1 + np.arange(batch)[:, None])
    values = {name: one * (k + 1) for k, name in enumerate(variables)}
    return Traces(time, values, dict.fromkeys(variables, unit), spans, {"model": "ghost_units", "level": "torch:x"})


def shifted(traces: Traces, by: float) -> Traces:
    values = {name: value + by for name, value in traces.values.items()}
    return Traces(traces.time, values, traces.units, traces.phases, traces.metadata)


def ends_of(traces: Traces, by: float = 0.0) -> dict:
    """Values in the last step of each phase, one row per trial and sample."""
    ends: dict = {}
    for span in traces.phases:
        last = round(span.stop / DT) - 1
        for name, value in traces.values.items():
            ends.setdefault(span.name, {}).setdefault(name, []).append(value[last] + by)
    return {phase: {name: np.concatenate(rows) for name, rows in kept.items()} for phase, kept in ends.items()}


def legend_texts(holder) -> list[str]:
    return [text.get_text() for text in holder.get_texts()]


def drawn(axes):
    """The lines of a panel that hold data."""
    return [line for line in axes.lines if len(line.get_xdata()) > 2]


def shades(axes) -> list[tuple]:
    return [to_rgb(patch.get_facecolor()) for patch in axes.patches]


# ------------------------------------------------------------------------------------------------------- traces


def test_traces_one_panel_per_variable_with_units_and_legend():
    figure = plot.traces_figure(make_traces())
    assert len(figure.axes) == 3
    assert [axes.get_ylabel() for axes in figure.axes] == [
        "pyr1.u\n(dimensionless)", "pyr1.E\n(dimensionless)", "pyr2.r\n(dimensionless)",
    ]  # fmt: skip
    assert [axes.get_xlabel() for axes in figure.axes] == ["", "", "time (ms)"]
    assert legend_texts(figure.axes[0].get_legend()) == ["pyr1.u[2]", "pyr1.u[5]", "pyr1.u[9]"]
    assert figure.get_suptitle() == "ghost_units, torch:x"
    assert figure.axes[0].get_xlim() == pytest.approx((0, 120))


def test_default_cells_are_the_liveliest_of_each_third():
    traces = make_traces()
    rng = np.random.default_rng(0)
    u = 0.01 * rng.normal(size=(120, 1, 12))
    u[:, 0, [0, 7, 11]] *= 50
    traces.values = {"pyr1.u": u}
    labels = legend_texts(plot.traces_figure(traces).axes[0].get_legend())
    assert labels == ["pyr1.u[0]", "pyr1.u[7]", "pyr1.u[11]"]
    assert len(drawn(plot.traces_figure(make_traces(n=2)).axes[0])) == 2


def test_traces_draws_what_was_recorded():
    traces = make_traces(trials=2, batch=2)
    figure = plot.traces_figure(traces, ["pyr2.r"], cells=[9, 4], sample=1)
    (axes,) = figure.axes
    for line, cell in zip(drawn(axes), (9, 4), strict=True):
        y = np.asarray(line.get_ydata())
        assert np.isnan(y[120])  # no line across the reset between the trials
        np.testing.assert_array_equal(np.delete(y, 120), traces.values["pyr2.r"][:, 1, cell])
        np.testing.assert_allclose(np.delete(np.asarray(line.get_xdata()), 120), np.arange(240))
    assert "sample 1 of 2" in figure.get_suptitle()


def test_cells_by_population():
    figure = plot.traces_figure(make_traces(), cells={"pyr2": [0]})
    assert [legend_texts(axes.get_legend()) for axes in figure.axes][1:] == [
        ["pyr1.E[2]", "pyr1.E[5]", "pyr1.E[9]"], ["pyr2.r[0]"],
    ]  # fmt: skip


def test_phases_are_shaded_alike_and_named_once():
    figure = plot.traces_figure(make_traces(trials=2))
    for axes in figure.axes:
        colours = shades(axes)
        assert len(colours) == 6 and colours[:3] == colours[3:] and len(set(colours)) == 3
    named = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    assert named == [["free", "nudged", "nudged_end"], [], []]


def test_names_of_short_phases_take_turns_in_rows():
    traces = make_traces()
    traces.phases = [PhaseSpan(f"label_{k}", 0, k * 0.012, (k + 1) * 0.012) for k in range(10)]
    figure = plot.traces_figure(traces, ["pyr1.u"])
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(boxes) == 10
    assert not any(a.overlaps(b) for k, a in enumerate(boxes) for b in boxes[k + 1 :])
    assert len(set(shades(figure.axes[0])[:7])) == 7


def test_many_trials_are_cut_to_two_and_the_title_says_so():
    figure = plot.traces_figure(make_traces(trials=5), title="Reset")
    assert figure.get_suptitle() == "Reset (first 2 of 5 trials)"
    assert figure.axes[0].get_xlim() == pytest.approx((0, 240))
    assert np.nanmax(drawn(figure.axes[0])[0].get_xdata()) == pytest.approx(239)


def test_more_variables_than_panels():
    names = [f"pyr{k}.u" for k in range(10)]
    figure = plot.traces_figure(make_traces(variables=names))
    assert len(figure.axes) == 8
    assert figure.get_suptitle() == "ghost_units, torch:x (8 of 10 variables)"
    with pytest.raises(NeurosimError, match=r"Got 9 panels; one figure takes at most 8\. Ask for fewer\."):
        plot.traces_figure(make_traces(variables=names), names[:9])


def test_traces_without_phases_and_after_a_divergence():
    traces = make_traces()
    traces.phases, traces.metadata = [], {}
    traces.values["pyr1.u"][100:] = 1e300
    traces.values["pyr1.u"][110:, :, 2] = np.inf
    traces.values["pyr1.u"][115:, :, 5] = np.nan
    figure = plot.traces_figure(traces)
    figure.draw_without_rendering()
    assert figure.get_suptitle() == "" and not figure.axes[0].patches


@pytest.mark.parametrize(
    ("unit", "largest", "factor", "text"),
    [
        ("1", 0.2, 1.0, "dimensionless"),
        ("volt", 0.065, 1e3, "mV"),
        ("volt", 2e-5, 1e6, "µV"),
        ("volt", 0.0, 1e3, "mV"),
        ("volt", 30.0, 1.0, "V"),
        ("siemens", 5e-9, 1e9, "nS"),
        ("siemens", 2e-6, 1e9, "nS"),
        ("siemens", 2e-11, 1e12, "pS"),
        ("amp", 0.0, 1e12, "pA"),
        ("amp", 1.7e-9, 1e12, "pA"),
        ("amp", 1e-20, 1e12, "pA"),
        ("amp", 2e-8, 1e9, "nA"),
        ("farad", 2e-10, 1e12, "pF"),
        ("volt", np.inf, 1.0, "V"),
        ("s", 2e-5, 1e6, "µs"),
        ("hertz", 0.5, 1.0, "Hz"),
        ("volt2", 0.5, 1.0, "V²"),
        ("metre ** 2 * kilogram * s ** -4 * amp ** -1", 0.5, 1.0, "m² kg s⁻⁴ A⁻¹"),
    ],
)
def test_units_on_axes(unit, largest, factor, text):
    assert style.shown_unit(unit, largest) == (pytest.approx(factor), text)


def test_without_a_largest_value_the_base_unit_is_shown():
    """The differences of levels are given in base units."""
    assert style.shown_unit("volt") == (1.0, "V")
    figure = plot.comparison_figure(dict.fromkeys("ab", make_traces(unit="volt")), ["pyr1.u"])
    assert [axes.get_ylabel() for axes in figure.axes] == ["pyr1.u\n(mV)", "|difference|\n(V)"]


def test_potentials_are_drawn_in_millivolt():
    traces = make_traces(variables=("pyr1.v",), unit="volt")
    (axes,) = plot.traces_figure(traces, cells=[2]).axes
    assert axes.get_ylabel() == "pyr1.v\n(mV)"
    np.testing.assert_allclose(drawn(axes)[0].get_ydata(), 1e3 * traces.values["pyr1.v"][:, 0, 2])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"variables": ["pyr1.v"]}, r"no recorded variable 'pyr1\.v'\. Did you mean 'pyr1\.u'\? Known: pyr1\.u"),
        ({"variables": "pyr1.u"}, r"wanted a list, such as \['pyr1\.u'\]"),
        ({"variables": []}, "empty list of variables"),
        ({"cells": [3, 12]}, r"There is no cell 12 in 'pyr1': it has 12 cells, 0 to 11\."),
        ({"cells": [-1]}, "There is no cell -1"),
        ({"cells": []}, "Got 0 cells of 'pyr1'; wanted 1 to 21"),
        ({"cells": {"pyr3": [0]}}, "There is no drawn population 'pyr3'"),
        ({"sample": 1}, r"There is no sample 1: the batch has 1, counted from 0\."),
        ({"variables": [[]]}, "empty list of variables"),
        ({"variables": [["pyr1.u", "pyr1.v"]]}, r"no recorded variable 'pyr1\.v'"),
        ({"variables": [["pyr1.u", "pyr1.E"]], "cells": [0, 1, 2, 3]}, "Got 2 variables of 4 cells in one panel; at most 7 of 3"),
    ],
)  # fmt: skip
def test_traces_refusals(arguments, text):
    with pytest.raises(NeurosimError, match=text):
        plot.traces_figure(make_traces(), **arguments)


def test_empty_traces_are_refused():
    with pytest.raises(NeurosimError, match=r"hold no variable; pass record="):
        plot.traces_figure(Traces(np.arange(3.0), {}, {}, []))
    with pytest.raises(NeurosimError, match="hold no step"):
        plot.traces_figure(Traces(np.empty(0), {"a.u": np.empty((0, 1, 3))}, {"a.u": "1"}, []))


def test_several_variables_in_one_panel():
    figure = plot.traces_figure(make_traces(unit="volt"), [["pyr1.u", "pyr1.E"], ["pyr1.u", "pyr2.r"], "pyr2.r"])
    assert [axes.get_ylabel() for axes in figure.axes] == ["pyr1\n(mV)", "(mV)", "pyr2.r\n(mV)"]
    upper, middle, lower = (legend_texts(axes.get_legend()) for axes in figure.axes)
    assert upper == ["pyr1.u[2]", "pyr1.E[2]"]  # one cell
    assert middle == ["pyr1.u[2]", "pyr2.r[2]", "pyr2.r[5]", "pyr2.r[9]"] and lower == middle[1:]
    figure = plot.traces_figure(make_traces(), [["pyr1.u", "pyr1.E"]], cells=[2, 5])
    lines = drawn(figure.axes[0])
    assert [line.get_label() for line in lines] == ["pyr1.u[2]", "pyr1.u[5]", "pyr1.E[2]", "pyr1.E[5]"]
    assert len({line.get_color() for line in lines[:2]}) == len({line.get_color() for line in lines[2:]}) == 1
    assert lines[0].get_color() != lines[2].get_color()
    assert [line.get_linestyle() for line in lines] == ["-", "--", "-", "--"]
    traces = make_traces(variables=("a.u", "b.u"))
    assert plot.traces_figure(traces, [["a.u", "b.u"]]).axes[0].get_ylabel() == "u\n(dimensionless)"
    traces.units["b.u"] = "volt"
    with pytest.raises(NeurosimError, match=r"'a\.u' \(1\) and 'b\.u' \(volt\) in one panel: their units differ"):
        plot.traces_figure(traces, [["a.u", "b.u"]])


# ------------------------------------------------------------------------------------------------------- spikes


def spiking_traces(n: int = 2, batch: int = 1, trials: int = 1, stride: int = 1) -> Traces:
    """Cell k of sample s spikes every 10 + k + 3s ms: V_s ramps from -60 to -40 mV and is reset, V_a follows it smoothly."""
    steps, dt = 200, 1e-3
    time = np.arange(steps * trials) * dt
    soma, apical = np.empty((2, len(time), batch, n))
    spikes: list[tuple[float, int, int]] = []
    for trial in range(trials):
        for s in range(batch):
            for k in range(n):
                period = 10 + k + 3 * s
                phase = np.arange(steps) % period
                rows = slice(trial * steps, (trial + 1) * steps)
                soma[rows, s, k] = -0.06 + 0.02 * phase / (period - 1)
                apical[rows, s, k] = -0.06 + 0.01 * np.sin(2 * np.pi * phase / period)
                at = (trial * steps + np.flatnonzero(phase == period - 1)) * dt
                spikes += [(t, trial * batch + s, k) for t in at]
    spans = [PhaseSpan("trial", k, k * steps * dt, (k + 1) * steps * dt) for k in range(trials)]
    kept = Spikes(*(np.array(column) for column in zip(*sorted(spikes), strict=True)))
    values = {"pyr.V_a": apical[::stride], "pyr.V_s": soma[::stride], "pyr.w": soma[::stride] * 1e-9}
    units = {"pyr.V_a": "volt", "pyr.V_s": "volt", "pyr.w": "amp"}
    return Traces(time[::stride], values, units, spans, {"model": "spiking"}, {"pyr": kept})


def spike_lines(axes) -> list[np.ndarray]:
    """(time, foot, top) of the thin lines of a panel."""
    return [np.array([part[0][0], part[0][1], part[1][1]]) for c in axes.collections for part in c.get_segments()]


@pytest.mark.parametrize("stride", [1, 2])
def test_spikes_are_drawn_where_the_reset_is(stride):
    figure = plot.traces_figure(spiking_traces(stride=stride))
    assert [len(spike_lines(axes)) for axes in figure.axes] == [0, 20 + 18, 0]
    if stride == 1:
        np.testing.assert_allclose(spike_lines(figure.axes[1])[0], [9, -40, 20])
    figure = plot.traces_figure(spiking_traces(), [["pyr.V_a", "pyr.V_s"]], cells=[1])
    axes, _ = figure.axes
    assert [line[0] for line in spike_lines(axes)] == pytest.approx(list(np.arange(10, 200, 11)))
    assert to_rgb(axes.collections[0].get_colors()[0]) == to_rgb(drawn(axes)[1].get_color())
    silent = spiking_traces()
    silent.spikes = {"pyr": Spikes(np.empty(0), np.empty(0, dtype=int), np.empty(0, dtype=int))}
    assert not any(spike_lines(axes) for axes in plot.traces_figure(silent).axes)


def test_spikes_of_one_sample_in_the_trials_that_are_drawn():
    figure = plot.traces_figure(spiking_traces(batch=2, trials=3), ["pyr.V_s"], cells=[0], sample=1)
    times = [line[0] for line in spike_lines(figure.axes[0])]
    assert times == pytest.approx([*np.arange(12, 200, 13), *(200 + np.arange(12, 200, 13))])


def test_a_raster_stands_below_where_more_cells_spike_than_are_drawn():
    figure = plot.traces_figure(spiking_traces(n=5), ["pyr.V_s"])
    assert [axes.get_ylabel() for axes in figure.axes] == ["pyr.V_s\n(mV)", "pyr\n(cell)"]
    assert figure.axes[-1].get_xlabel() == "time (ms)" and figure.axes[0].get_xlabel() == ""
    assert len(spike_lines(figure.axes[1])) == sum(200 // (10 + k) for k in range(5))
    assert len(plot.traces_figure(spiking_traces(n=5), ["pyr.V_s"], cells=range(5)).axes) == 1


def test_raster_rows_and_shades():
    traces = spiking_traces(n=3, batch=2, trials=3)
    traces.spikes["lif"] = Spikes(np.array([0.05]), np.array([1]), np.array([0]))
    figure = plot.raster_figure(traces, sample=1)
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["pyr\n(3 cells)", "lif"]
    assert list(axes.get_yticks()) == [1, 3] and axes.get_ylim()[0] > axes.get_ylim()[1]  # the first on top
    assert axes.get_xlabel() == "time (ms)" and axes.get_xlim() == pytest.approx((0, 400))
    assert len(shades(axes)) == 2 and [text.get_text() for text in axes.texts] == ["trial"]
    assert figure.get_suptitle() == "spiking (sample 1 of 2, first 2 of 3 trials)"
    lines = spike_lines(axes)
    np.testing.assert_allclose(lines[-1], [50, 2.6, 3.4])
    first = sorted(line[0] for line in lines if line[1] < 0)
    assert first[:15] == pytest.approx(list(np.arange(12, 200, 13)))
    (axes,) = plot.raster_figure(traces, ["pyr"], title="Spikes").axes
    assert (
        axes.get_ylabel() == "pyr\n(cell)"
        and axes.figure.get_suptitle() == "Spikes (sample 0 of 2, first 2 of 3 trials)"
    )


def test_raster_refusals():
    with pytest.raises(NeurosimError, match="hold no spikes: no population has a threshold"):
        plot.raster_figure(make_traces())
    with pytest.raises(NeurosimError, match="no spiking population 'lif'"):
        plot.raster_figure(spiking_traces(), ["lif"])
    with pytest.raises(NeurosimError, match=r"for `populations`; wanted a list, such as \['pyr'\]"):
        plot.raster_figure(spiking_traces(), "pyr")
    with pytest.raises(NeurosimError, match="There is no sample 3"):
        plot.raster_figure(spiking_traces(), sample=3)


def test_a_spiking_run_is_drawn(tmp_path):
    """What the engine records and the figure agree on the row of a spike: each line starts above the cell's reset."""
    from neurosim.models import bac_firing

    run = simulate(bac_firing.circuit(duration="80*ms"), record=["both.V_s", "both.V_a"], progress=False)
    run.plot(tmp_path / "figure.png", variables=[["both.V_s", "both.V_a"]])
    (axes,) = plot.traces_figure(run.traces, [["both.V_s", "both.V_a"]]).axes
    lines = spike_lines(axes)
    np.testing.assert_allclose([line[0] for line in lines], 1e3 * run.spikes["both"].of(0))
    assert len(lines) == 2 and all(-45 < foot < -30 for _, foot, _ in lines)
    assert plot.save_raster(run.traces, tmp_path / "raster.pdf").exists()


# --------------------------------------------------------------------------------------------------- comparison


def test_comparison_panels_labels_and_legend():
    traces = make_traces()
    levels = {"brian2:equations": traces, "brian2:dense": traces, "torch:trajectory": shifted(traces, 1e-9)}
    figure = plot.comparison_figure(levels, ["pyr1.u", "pyr2.r"])
    assert [axes.get_ylabel() for axes in figure.axes] == [
        "pyr1.u\n(dimensionless)", "|difference|\n(dimensionless)",
        "pyr2.r\n(dimensionless)", "|difference|\n(dimensionless)",
    ]  # fmt: skip
    assert figure.axes[-1].get_xlabel() == "time (ms)"
    (legend,) = figure.legends
    assert legend_texts(legend) == [*levels, "a difference of 1e-12"]
    assert legend.get_title().get_text().endswith("to brian2:equations over all cells of the population")
    upper, lower = figure.axes[:2]
    assert lower.get_yscale() == "log" and upper.get_yscale() == "linear"
    assert [t.get_text() for t in upper.texts if "cell" in t.get_text()] == ["cell 2", "cell 5", "cell 9"]
    assert len(shades(lower)) == 3


def test_comparison_lines_can_be_told_apart_where_they_coincide():
    traces = make_traces()
    figure = plot.comparison_figure(dict.fromkeys("abcd", traces), ["pyr1.u"], cells=[2])
    lines = drawn(figure.axes[0])
    widths = [line.get_linewidth() for line in lines]
    assert widths[0] > widths[1] > widths[2]
    assert len({line.get_color() for line in lines}) == 4
    assert [line.get_linestyle() for line in lines] == ["-", "-", "--", "--"]


def test_differences_are_absolute_largest_over_cells_and_clipped():
    traces = make_traces(trials=2)
    other = shifted(traces, 0.0)
    other.values["pyr1.u"][50, 0, 7] -= 3e-6  # a cell that is not among those drawn
    levels = {"a": traces, "b": other}
    lower = plot.comparison_figure(levels, ["pyr1.u"]).axes[1]
    y = np.delete(np.asarray(drawn(lower)[0].get_ydata()), 120)
    assert y[50] == pytest.approx(3e-6)
    assert np.all(np.delete(y, 50) == 1e-18)
    assert any(np.all(np.asarray(line.get_ydata()) == 1e-12) for line in lower.lines)
    assert lower.get_ylim()[0] < 1e-18 and lower.get_ylim()[1] > 3e-6
    figure = plot.comparison_figure(levels, ["pyr1.u"], cells=[2])
    assert np.nanmax(drawn(figure.axes[1])[0].get_ydata()) == 1e-18
    assert figure.legends[0].get_title().get_text().endswith("over the cells shown")


def test_comparison_takes_the_common_variables_at_most_four():
    names = [f"pyr{k}.u" for k in range(6)]
    figure = plot.comparison_figure({"a": make_traces(variables=names), "b": make_traces(variables=names[1:])})
    assert [axes.get_ylabel().partition("\n")[0] for axes in figure.axes[::2]] == names[1:5]
    assert "4 of 5 variables" in figure.get_suptitle()


@pytest.mark.parametrize("batch", [1, 2])
def test_ends_stand_at_the_end_of_each_phase_of_each_trial(batch):
    traces = make_traces(trials=3, batch=batch)
    traces.values["pyr1.u"] *= np.repeat([1.0, 2.0, 3.0], 120)[:, None, None]  # trials differ
    sample = batch - 1
    figure = plot.comparison_figure(
        {"torch:trajectory": traces}, ["pyr1.u"], [5], sample, ends={"torch:steady": ends_of(traces, 1e-6)}
    )
    upper, lower = figure.axes
    marks = next(line for line in upper.lines if line.get_marker() == "o")
    last = np.array([59, 99, 119, 179, 219, 239])
    np.testing.assert_allclose(marks.get_xdata(), last)
    np.testing.assert_allclose(marks.get_ydata(), traces.values["pyr1.u"][last, sample, 5] + 1e-6)
    np.testing.assert_allclose(next(m for m in lower.lines if m.get_marker() == "o").get_ydata(), 1e-6, rtol=1e-6)
    assert "torch:steady (ends of phases)" in legend_texts(figure.legends[0])


def test_ends_of_the_first_level_are_what_markers_are_held_against():
    """With a stride the last step of a phase is not among the traces; the ends are exact."""
    traces = make_traces()
    ends = ends_of(traces)
    coarse = Traces(traces.time[::7], {k: v[::7] for k, v in traces.values.items()}, traces.units, traces.phases)
    figure = plot.comparison_figure({"a": coarse}, ["pyr1.u"], ends={"a": ends, "torch:steady": ends})
    marks = [line for line in figure.axes[1].lines if line.get_marker() == "o"]
    assert len(marks) == 1 and np.all(np.asarray(marks[0].get_ydata()) == 1e-18)


def test_comparison_refusals():
    traces = make_traces()
    pair = {"a": traces, "b": traces}
    with pytest.raises(NeurosimError, match="no level has traces"):
        plot.comparison_figure({})
    with pytest.raises(NeurosimError, match="needs two levels; got only 'a'"):
        plot.comparison_figure({"a": traces}, ends={"a": ends_of(traces)})
    with pytest.raises(NeurosimError, match=r"There is no a variable 'pyr9\.u'"):
        plot.comparison_figure(pair, ["pyr9.u"])
    with pytest.raises(NeurosimError, match="one figure takes at most 4"):
        names = [f"pyr{k}.u" for k in range(6)]
        plot.comparison_figure(dict.fromkeys("ab", make_traces(variables=names)), names)
    with pytest.raises(NeurosimError, match="There is no cell 40 in 'pyr1'"):
        plot.comparison_figure(pair, cells=[40])
    with pytest.raises(NeurosimError, match="There is no sample 4"):
        plot.comparison_figure(pair, sample=4)
    with pytest.raises(NeurosimError, match="no variable in common"):
        plot.comparison_figure({"a": traces, "b": make_traces(variables=("x.u",))})
    with pytest.raises(
        NeurosimError, match=r"different times \(120 from 0 to 119 ms; 240 .*same stimuli, batch, dt and stride"
    ):
        plot.comparison_figure({"a": traces, "b": make_traces(trials=2)})
    with pytest.raises(NeurosimError, match=r"shape \(120, 1, 12\) on 'a' and \(120, 1, 5\) on 'b'"):
        plot.comparison_figure({"a": traces, "b": make_traces(n=5)})
    with pytest.raises(NeurosimError, match="'b': The traces hold no variable"):
        plot.comparison_figure({"a": traces, "b": Traces(traces.time, {}, {}, [])})
    with pytest.raises(NeurosimError, match="Got 5 levels with traces"):
        plot.comparison_figure(dict.fromkeys("abcde", traces))


def test_refusals_of_ends():
    traces = make_traces(trials=2)
    ends = ends_of(traces)
    ends["free"]["pyr1.u"] = np.repeat(ends["free"]["pyr1.u"], 2, axis=0)
    with pytest.raises(NeurosimError, match=r"in phase 'free' have the shape \(4, 12\); wanted \(2, 12\) for 2 trials"):
        plot.comparison_figure({"a": traces}, ends={"torch:steady": ends})
    other = {"settle": ends["nudged"]}
    with pytest.raises(NeurosimError, match=r"none of the phases shown \(free, nudged, nudged_end\); it has settle"):
        plot.comparison_figure({"a": traces}, ends={"torch:steady": other})
    with pytest.raises(NeurosimError, match=r"There is no torch:steady variable 'pyr1\.E'"):
        only = {"free": {"pyr1.u": ends["free"]["pyr1.u"]}}
        plot.comparison_figure({"a": traces}, ["pyr1.E"], ends={"torch:steady": only})
    traces.phases = []
    with pytest.raises(NeurosimError, match="traces of 'a' name no phases"):
        plot.comparison_figure({"a": traces}, ends={"torch:steady": ends})


# ----------------------------------------------------------------------------------------------------- training


def rows(epochs: int = 4, shift: float = 0.0, residual: float | None = None) -> list[dict]:
    return [
        {
            "epoch": k, "train_loss": 1 / k + shift, "validation_loss": 2 / k + shift, "train_accuracy": 0.5 + 0.1 * k,
            "validation_accuracy": 0.4 + 0.1 * k + shift, "ghost_residual": residual, "seconds": 1.0,
            "samples_per_second": 1437.0,
        }
        for k in range(1, epochs + 1)
    ]  # fmt: skip


def test_learning_curves_accuracy_in_percent_and_loss():
    figure = plot.learning_curves({"ghost_units": rows(), "backprop": rows()})
    assert [axes.get_ylabel() for axes in figure.axes] == ["accuracy (%)", "loss"]
    assert [axes.get_xlabel() for axes in figure.axes] == ["epoch", "epoch"]
    assert legend_texts(figure.legends[0]) == ["ghost_units", "backprop"]
    assert legend_texts(figure.axes[0].get_legend()) == ["training", "validation"]
    training, validation = figure.axes[0].lines[:2]
    assert training.get_linestyle() == "--" and validation.get_linestyle() == "-"
    np.testing.assert_allclose(training.get_ydata(), [60, 70, 80, 90])
    np.testing.assert_allclose(validation.get_ydata(), [50, 60, 70, 80])
    np.testing.assert_allclose(figure.axes[1].lines[1].get_ydata(), [2, 1, 2 / 3, 1 / 2])


def test_third_panel_where_there_is_a_ghost_residual():
    figure = plot.learning_curves({"ghost_units": rows(residual=0.1), "backprop": rows()})
    assert [axes.get_ylabel() for axes in figure.axes] == ["accuracy (%)", "loss", "ghost residual"]
    assert len(figure.axes[2].lines) == 1


def test_seeds_are_drawn_as_mean_and_standard_deviation():
    figure = plot.learning_curves({"a": [rows(shift=0.0), rows(shift=0.1), rows(shift=0.05, epochs=2)]})
    assert legend_texts(figure.legends[0]) == ["a (3 seeds, 1 incomplete)"]
    assert "mean ± sd over seeds" in legend_texts(figure.axes[0].get_legend())
    validation = figure.axes[0].lines[1]
    np.testing.assert_allclose(validation.get_ydata(), [55, 65, 75, 85])
    band = figure.axes[0].collections[1].get_paths()[0].vertices
    for epoch, centre, sd in ((1, 55, 5.0), (4, 85, 10 / np.sqrt(2))):  # sd of {0, 5, 10} and of {0, 10}
        y = band[band[:, 0] == epoch][:, 1]
        assert (y.min(), y.max()) == (pytest.approx(centre - sd), pytest.approx(centre + sd))


def test_one_epoch_shows_as_points_and_wide_losses_on_a_log_axis():
    figure = plot.learning_curves({"a": rows(epochs=1)})
    assert {line.get_marker() for line in figure.axes[0].lines} == {"o"}
    assert figure.axes[1].get_yscale() == "linear"
    losses = [{"epoch": k, "train_loss": 10.0**-k} for k in range(5)]
    assert plot.learning_curves({"a": losses}).axes[0].get_yscale() == "log"


def test_learning_curves_without_accuracy():
    table = [{**row, "train_accuracy": None, "validation_accuracy": float("nan")} for row in rows()]
    assert [axes.get_ylabel() for axes in plot.learning_curves({"a": table}).axes] == ["loss"]


def test_learning_curve_refusals():
    with pytest.raises(NeurosimError, match="got no run"):
        plot.learning_curves({})
    for empty in ([], [[]], [rows(), []]):
        with pytest.raises(NeurosimError, match=r"The run 'a' has no rows; its metrics\.jsonl is empty"):
            plot.learning_curves({"a": empty})
    with pytest.raises(NeurosimError, match=r"A row of the run 'a' has no 'epoch'; it has epochs\."):
        plot.learning_curves({"a": [{"epochs": 1}]})
    with pytest.raises(NeurosimError, match="has an epoch twice: pass several seeds as a list of lists"):
        plot.learning_curves({"a": rows() + rows()})
    with pytest.raises(NeurosimError, match="'train_accuracy' of 'a' is 97; wanted a fraction from 0 to 1"):
        plot.learning_curves({"a": [{"epoch": 1, "train_accuracy": 97.0}]})
    with pytest.raises(NeurosimError, match="no row has a finite value of train_accuracy"):
        plot.learning_curves({"a": [{"epoch": 1, "train_loss": float("inf")}]})
    with pytest.raises(NeurosimError, match="Got 22 runs; at most 21"):
        plot.learning_curves({str(k): rows() for k in range(22)})


# -------------------------------------------------------------------------------------------------------- files

SAVERS = {
    "raster": lambda path: plot.save_raster(spiking_traces(), path),
    "traces": lambda path: plot.save_traces(make_traces(), path, variables=["pyr1.u"], title="t"),
    "comparison": lambda path: plot.save_comparison(
        {"a": make_traces()}, path, ends={"b": ends_of(make_traces())}, variables=["pyr1.u"]
    ),
    "learning": lambda path: plot.save_learning_curves({"a": [rows(), rows(shift=0.1)]}, path),
}
MAGIC = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}


@pytest.mark.parametrize("suffix", MAGIC)
@pytest.mark.parametrize("kind", SAVERS)
def test_files(tmp_path, kind, suffix):
    path = SAVERS[kind](tmp_path / f"figure{suffix}")
    assert path == tmp_path / f"figure{suffix}"
    content = path.read_bytes()
    assert content.startswith(MAGIC[suffix]) and len(content) > 2000
    assert SAVERS[kind](tmp_path / f"again{suffix}").read_bytes() == content


@pytest.mark.parametrize("kind", SAVERS)
def test_other_suffixes_are_refused(tmp_path, kind):
    for name, got in (("figure.jpg", r"the suffix '\.jpg'"), ("figure", "no suffix")):
        with pytest.raises(NeurosimError, match=rf"\({got}\); wanted one of \.png, \.pdf, \.svg\."):
            SAVERS[kind](tmp_path / name)
    with pytest.raises(NeurosimError, match=r"there is no folder '.*nowhere'\. Create it first"):
        SAVERS[kind](tmp_path / "nowhere" / "figure.png")
    assert not list(tmp_path.iterdir())


def test_the_users_settings_neither_leak_in_nor_change(tmp_path):
    with matplotlib.rc_context({"axes.facecolor": "black", "font.size": 3.0}):
        figure = plot.traces_figure(make_traces())
        plot.save_figure(figure, tmp_path / "figure.png")
        assert matplotlib.rcParams["font.size"] == 3.0
    assert to_rgb(figure.axes[0].get_facecolor()) == (1, 1, 1)
    sizes = [text.get_fontsize() for axes in figure.axes for text in (axes.yaxis.label, *axes.get_xticklabels())]
    assert min(sizes) >= 9


def test_pyplot_knows_none_of_the_figures(tmp_path):
    """Brian2 imports pyplot; a figure that it knew would never be freed."""
    from matplotlib import pyplot

    before = pyplot.get_fignums()
    for kind, save in SAVERS.items():
        save(tmp_path / f"{kind}.png")
    assert pyplot.get_fignums() == before
