"""Figures of recordings that are not as usual: some cells, few rows, many potentials, odd names; and the signs of arrows by simulation."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from circuits import Line, assemble, pool
from matplotlib.text import Text

from neurosim import (
    Cell,
    Circuit,
    Constant,
    Fragment,
    Phase,
    Population,
    Projection,
    Protocol,
    Uniform,
    plot,
    registry,
    simulate,
)
from neurosim.cli import main
from neurosim.errors import NeurosimError
from neurosim.plot.diagram import diagram
from neurosim.plot.fi import read_response
from neurosim.plot.style import plain
from neurosim.traces import PhaseSpan, Spikes, Traces

# ------------------------------------------------------------------------------------------------- f-I curves of some cells

CURRENTS = np.linspace(1e-10, 9e-10, 9)
COUNTS = np.arange(9) * 3  # spikes of each cell in the 0.1 s that are recorded


def recorded(cells: dict[str, list[int]]) -> Traces:
    """A current of 0.1, ..., 0.9 nA into nine cells that spike 0, 3, ..., 24 times; of each population the cells named, or all."""
    columns = {name: np.asarray(cells.get(name, np.arange(9))) for name in ("inp", "cell")}
    time = np.arange(10) * 0.01
    spiking = [(k, cell) for cell in columns["cell"] for k in range(COUNTS[cell])]
    spikes = Spikes(
        np.array([0.001 + 0.003 * k for k, _ in spiking]),
        np.zeros(len(spiking), int),
        np.array([cell for _, cell in spiking], int),
    )
    return Traces(
        time,
        {
            "inp.I": np.broadcast_to(CURRENTS[columns["inp"]], (10, 1, len(columns["inp"]))),
            "cell.V": np.zeros((10, 1, len(columns["cell"]))),
            "one.I": np.full((10, 1, 1), 2e-10),
        },
        {"inp.I": "amp", "cell.V": "volt", "one.I": "amp"},
        [PhaseSpan("p", 0, 0.0, 0.1)],
        spikes={"cell": spikes},
        cells={name: columns[name] for name in cells},
    )


@pytest.mark.parametrize(
    ("cells", "wanted"),
    [
        ({}, range(9)),
        ({"cell": [8, 0, 4], "inp": [0, 4, 8]}, [0, 4, 8]),
        ({"cell": [8, 0, 4]}, [0, 4, 8]),
        ({"inp": [7, 2]}, [2, 7]),
        ({"cell": [6, 1, 3], "inp": [3, 5, 6]}, [3, 6]),
        ({"cell": [5], "inp": [5]}, [5]),
    ],
)
def test_each_cell_is_paired_with_its_own_current(cells, wanted):
    found = read_response(recorded(cells), "inp.I", "cell")
    pairs = sorted(zip(found.current, found.response, strict=True))
    np.testing.assert_allclose(pairs, [(CURRENTS[k], COUNTS[k] / 0.1) for k in wanted])
    label = plot.fi_figure(recorded(cells), "inp.I", "cell").axes[0].get_ylabel()
    assert f"\n{len(wanted)} cell{'s' if len(wanted) > 1 else ''}" in label


def test_the_variable_that_tells_curves_apart_is_paired_by_number_too():
    traces = recorded({"cell": [8, 0, 4], "inp": [0, 4, 8]})
    found = read_response(traces, "one.I", "cell", by="inp.I")
    np.testing.assert_allclose(found.by, CURRENTS[[8, 0, 4]])
    np.testing.assert_allclose(found.response, COUNTS[[8, 0, 4]] / 0.1)


def test_a_population_of_one_cell_goes_with_all_and_one_cell_of_many_does_not():
    found = read_response(recorded({}), "one.I", "cell")
    np.testing.assert_allclose(found.current, 2e-10)
    np.testing.assert_allclose(found.response, COUNTS / 0.1)
    message = r"'inp\.I' was recorded of cell 5 and not of 0, 1, 2, 3, 4, 6, 7, 8, of which 'cell' was; record the same cells of both\."
    with pytest.raises(NeurosimError, match=message):
        plot.fi_figure(recorded({"inp": [5]}), "inp.I", "cell")
    with pytest.raises(NeurosimError, match=r"'inp\.I' was recorded of cell 0, 1 and not of 7, 8, of which 'cell' was"):
        plot.fi_figure(recorded({"inp": [0, 1], "cell": [7, 8]}), "inp.I", "cell")


# ------------------------------------------------------------------------------------------------------ signs of arrows

SOURCE = Cell("source", "dx/dt = (1 - x)/tau : 1", rate="x", parameters={"tau": "10*ms"})
MEMBRANE = {"C": "100*pF", "g_L": "10*nS", "E_L": "-70*mV"}


def conductance(reversal: str, synapse: bool) -> tuple[Cell, str]:
    """A cell with a conductance that is the port itself, or a synapse's state."""
    leak = "dV/dt = (g_L*(E_L - V) + g*(E - V))/C : volt"
    if synapse:
        text, port = f"{leak}\ndg/dt = -g/tau_g + I : siemens\nI : siemens/second", "I"
    else:
        text, port = f"{leak}\ng : siemens", "g"
    parameters = MEMBRANE | {"E": reversal} | ({"tau_g": "5*ms"} if synapse else {})
    return assemble(
        "membrane", text, optional_ports=(port,), rate="V", parameters=parameters, initial={"V": "-70*mV"}
    ), port


def through(
    equations: str, port: str, rate: str = "u", pools: tuple[Line, ...] = (), **parameters: str
) -> tuple[Cell, str]:
    return assemble(
        "cell", equations, optional_ports=(port,), rate=rate, pools=pools, parameters={"tau": "10*ms"} | parameters
    ), port


SIGNS = {
    "inhibition": (conductance("-80*mV", False), "5*nS", -1),
    "excitation": (conductance("0*mV", False), "5*nS", 1),
    "inhibitory synapse": (conductance("-80*mV", True), "500*nS/second", -1),
    "excitatory synapse": (conductance("-20*mV", True), "500*nS/second", 1),
    "adaptation": (through("dn/dt = (-n + J)/tau : 1\ndu/dt = (1 - u - n)/tau : 1\nJ : 1", "J"), 1.0, -1),
    "two inversions": (through("dn/dt = (-n - J)/tau : 1\ndu/dt = (-u - n)/tau : 1\nJ : 1", "J"), 1.0, 1),
    "pool": (through("du/dt = (1 - u - S)/tau : 1\nq = J : 1\nJ : 1", "J", pools=(pool("S", "q"),)), 1.0, -1),
    "falling rate": (through("du/dt = (-u + J)/tau : 1\nr = 1 - u : 1\nJ : 1", "J", "r"), 1.0, -1),
    "rectified": (through("du/dt = (-u - J)/tau : 1\nr = clip(u + b, 0, inf) : 1\nJ : 1", "J", "r", b="1"), 0.5, -1),
    "a negative parameter": (through("du/dt = (-u + k*J)/tau : 1\nJ : 1", "J", k="-2"), 1.0, -1),
}


@pytest.mark.parametrize("name", SIGNS)
def test_an_arrow_subtracts_where_its_source_lowers_the_rate_in_a_run(name):
    (cell, port), weight, effect = SIGNS[name]
    populations = Population("s", 1, SOURCE), Population("a", 2, cell)
    projection = Projection("P", "s", f"a.{port}", Constant(weight))
    circuit = Circuit("net", Fragment(populations, (projection,)), Protocol((Phase("p", "40*ms"),)))
    nothing = 0.0 if isinstance(weight, float) else f"0*{weight.partition('*')[2]}"
    without = replace(circuit, fragment=[*circuit.populations, replace(projection, weights=Constant(nothing))])
    rates = [
        simulate(c, record=[f"a.{cell.rate}"], level="torch:trajectory", progress=False).traces[f"a.{cell.rate}"][
            -1, 0, 0
        ]
        for c in (circuit, without)
    ]
    assert np.sign(rates[0] - rates[1]) == effect  # of the run
    assert diagram(circuit).arrows["P"].effect == effect


def test_a_threshold_that_rises_subtracts():
    cell = Cell("adapting", "du/dt = (-u + I)/tau : 1\ndtheta/dt = (1 - theta + J)/tau : 1\nI : 1 (optional port)\nJ : 1 (optional port)", rate="spike_train", threshold="u > theta", reset="u = 0", parameters={"tau": "10*ms"}, initial={"theta": 1.0})  # fmt: skip
    projections = [Projection(port, "s", f"a.{port}", Constant(1.0)) for port in ("I", "J")]
    circuit = Circuit(
        "net",
        Fragment((Population("s", 1, SOURCE), Population("a", 2, cell)), projections),
        Protocol((Phase("p", "40*ms"),)),
    )
    assert {name: arrow.effect for name, arrow in diagram(circuit).arrows.items()} == {"I": 1, "J": -1}


def test_predictions_raise_the_cells_that_they_predict():
    """Over the error, which falls with the prediction and lowers the value: twice minus."""
    arrows = diagram(registry.model("predictive_coding").circuit()).arrows
    assert arrows["W1"].effect == arrows["W2"].effect == 1


# ------------------------------------------------------------------------------------------------------------- units


def test_panels_of_weights_with_other_prefixes_say_so():
    cell = Cell("c", "dV/dt = (g*(E - V) + I)/C : volt\nI : amp (optional port)", rate="V", parameters={"g": "10*nS", "E": "-70*mV", "C": "100*pF"}, initial={"V": "-70*mV"})  # fmt: skip
    limits = {"U": ("5*pA", "20*pA"), "B": ("50*nA", "200*nA"), "X": ("50*nA", "200*nA")}
    projections = tuple(Projection(name, "s", "a.I", Uniform(*pair)) for name, pair in limits.items())
    circuit = Circuit(
        "m",
        Fragment((Population("s", 3, SOURCE), Population("a", 3, cell)), projections),
        Protocol((Phase("p", "5*ms"),)),
    )
    traces = simulate(circuit, record=list(limits), level="torch:trajectory", progress=False).traces
    figure = plot.weights_figure(traces)
    panels = {axes.get_title()[0]: axes for axes in figure.axes if axes.get_title()}
    for name, unit, factor in (("U", "pA", 1e12), ("B", "nA", 1e9), ("X", "nA", 1e9)):
        assert panels[name].get_ylabel() == f"weight\n({unit})"
        np.testing.assert_allclose(
            panels[name].lines[0].get_ydata(), np.median(traces.weights[name], axis=(1, 2)) * factor
        )


def test_fields_have_the_unit_of_their_weights():
    weights = np.linspace(-3e-11, 4e-11, 8).reshape(4, 2)
    figure = plot.fields_figure(weights, name="W1", unit="amp")
    assert figure.axes[-1].get_ylabel() == "weight W1\n(pA)"
    image = figure.axes[1].images[0]
    np.testing.assert_allclose(np.ravel(image.get_array()), weights[:, 1] * 1e12)
    np.testing.assert_allclose(image.get_clim(), (-40, 40))
    assert plot.fields_figure(weights, name="W1").axes[-1].get_ylabel() == "weight W1\n(dimensionless)"


# ---------------------------------------------------------------------------------------------------------- few rows


def few_rows(rows: dict[int, int], trials: int) -> Traces:
    """Trials of 0.1 s; `rows` of some of them, evenly."""
    time = np.array([trial + k / count for trial, count in sorted(rows.items()) for k in range(count)]) * 0.1
    spikes = Spikes(0.05 + 0.1 * np.arange(trials), np.arange(trials), np.zeros(trials, int))
    return Traces(
        time, {"a.V": np.arange(len(time) * 2.0).reshape(-1, 1, 2)}, {"a.V": "volt"},
        [PhaseSpan("p", trial, 0.1 * trial, 0.1 * (trial + 1)) for trial in range(trials)],
        metadata={"model": "m"}, spikes={"a": spikes},
    )  # fmt: skip


@pytest.mark.parametrize("draw", [plot.traces_figure, plot.raster_figure, plot.rates_figure])
@pytest.mark.parametrize(("rows", "trials"), [({0: 1}, 1), ({0: 3}, 1), ({0: 1, 1: 1}, 2)])
def test_the_time_axis_ends_with_what_was_recorded(draw, rows, trials):
    axes = draw(few_rows(rows, trials)).axes[0]
    np.testing.assert_allclose(axes.get_xlim(), (0.0, 100.0 * trials))


def test_trials_without_a_row_are_passed_over():
    figure = plot.traces_figure(few_rows({2: 4, 3: 4, 4: 4}, 5))
    np.testing.assert_allclose(figure.axes[0].get_xlim(), (200.0, 400.0))
    assert figure.get_suptitle() == "m (first 2 with a row of 5 trials)"
    line = figure.axes[0].lines[0]
    kept = np.isfinite(line.get_ydata())
    np.testing.assert_allclose(line.get_xdata()[kept], [200, 225, 250, 275, 300, 325, 350, 375])
    assert plot.traces_figure(few_rows({2: 1}, 3)).get_suptitle() == "m (first with a row of 3 trials)"


# --------------------------------------------------------------------------------------------------------- command line

CELLS = """
from neurosim import *
from neurosim.parts import lif

def populations():
    return Circuit("nine", [Population(f"p{k}", 1, lif()) for k in range(9)], Protocol((Phase("p", "5*ms"),)))

def compartments():
    text = "\\n".join(f"dV{k}/dt = (E - V{k})/tau : volt" for k in range(9))
    cell = Cell("tree", text, rate="spike_train", threshold="V0 > 0*E", reset="V0 = E",
                parameters={"tau": "10*ms", "E": "-70*mV"})
    return Circuit("tree", [Population("a", 2, cell)], Protocol((Phase("p", "5*ms"),)))
"""


@pytest.mark.parametrize(
    ("circuit", "said"),
    [("populations", "the first 8 of 9 potentials"), ("compartments", "the first 7 of 9 potentials")],
)
def test_simulate_draws_the_first_of_many_potentials(tmp_path, capsys, circuit, said):
    (tmp_path / "cells.py").write_text(CELLS)
    out = tmp_path / "out"
    assert (
        main(["simulate", f"{tmp_path / 'cells.py'}:{circuit}", "--level", "torch:trajectory", "--out", str(out)]) == 0
    )
    assert f"wrote {out / 'traces.png'} ({said}; name others with --record)" in capsys.readouterr().out
    assert (out / "traces.png").is_file() and json.loads((out / "result.json").read_text())["steps"] == 50


def test_simulate_with_a_row_in_the_last_trials_only(tmp_path, capsys):
    options = [
        "--samples",
        "3",
        "--record",
        "pyr1.u",
        "--phases",
        "nudged",
        "--stride",
        "700",
        "--level",
        "torch:trajectory",
    ]
    code = main(["simulate", "ghost_units", *options, "--out", str(tmp_path / "out")])
    assert code == 0, capsys.readouterr().err
    assert {"result.json", "traces.h5", "traces.png"} <= {path.name for path in (tmp_path / "out").iterdir()}


def test_the_result_is_there_though_the_picture_fails(tmp_path, monkeypatch, capsys):
    def fail(*_, **__):
        raise NeurosimError("no ink")

    monkeypatch.setattr(plot, "save_traces", fail)
    (tmp_path / "cells.py").write_text(CELLS)
    out = tmp_path / "out"
    assert (
        main(["simulate", f"{tmp_path / 'cells.py'}:populations", "--level", "torch:trajectory", "--out", str(out)])
        != 0
    )
    assert "no ink" in capsys.readouterr().err
    assert json.loads((out / "result.json").read_text())["model"] == "nine"


# ----------------------------------------------------------------------------------------------------------- odd names


@pytest.mark.parametrize("name", ["cost_$x_$", r"a $\frac$ b", "50 % & #1", "$"])
def test_names_are_drawn_as_they_are(tmp_path, name):
    traces = replace(few_rows({0: 4, 1: 4}, 2), metadata={"model": name})
    network = Circuit(name, [Population("s", 1, SOURCE)], Protocol((Phase("p", "5*ms"),)))
    rows = [{"epoch": k, "train_loss": 1.0 + k} for k in range(3)]
    evolved = [{"generation": k, "best": 1.0 + k, "mean": 0.5} for k in range(3)]
    figures = {
        "traces": plot.traces_figure(traces),
        "phases": plot.raster_figure(replace(traces, phases=[PhaseSpan(name, 0, 0.0, 0.2)])),
        "levels": plot.comparison_figure({name: traces, "b": traces}),
        "network": plot.network_figure(network),
        "fields": plot.fields_figure(np.eye(4), name=name),
        "learning": plot.learning_curves({name: rows}),
        "evolution": plot.evolution_figure({name: evolved}),
    }
    for kind, figure in figures.items():
        plot.save_figure(figure, tmp_path / f"{kind}.svg")
        assert any(plain(name) in text.get_text() for text in figure.findobj(Text)), kind
