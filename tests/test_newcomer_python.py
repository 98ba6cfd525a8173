"""What those meet who know Python and try things out: files beside a model, wrong objects, folders of another command, captions."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from neurosim import (
    SOURCE,
    Cell,
    Circuit,
    Constant,
    Fragment,
    Phase,
    PlasticityRule,
    Population,
    Projection,
    Protocol,
    Traces,
    compare,
    export,
    plot,
    registry,
    simulate,
)
from neurosim.cli import main
from neurosim.errors import NeurosimError
from neurosim.traces import PhaseSpan, Spikes
from neurosim.training import train

LEAK = Cell("leak", "du/dt = (I - u)/tau : 1\nr = u : 1\nI : 1 (port)", parameters={"tau": "5*ms"})


def leak() -> Circuit:
    return Circuit(
        "leak", [Population("inp", 1, SOURCE), Population("p", 1, LEAK), Projection("W", "inp", "p.I", Constant(1.0))],
        Protocol((Phase("shown", "5*ms"),), {"inp.r": "image"}, dt="1*ms"),
    )  # fmt: skip


def spiking() -> Circuit:
    """Two cells that fire without input."""
    lif = Cell(
        "lif", "dV/dt = (V_rest - V)/tau : volt\nr = V/V_rest : 1", parameters={"tau": "5*ms", "V_rest": "2*volt", "V_th": "1*volt"},
        threshold="V > V_th", reset="V = 0*V_th",
    )  # fmt: skip
    return Circuit("lif", [Population("exc", 2, lif)], Protocol((Phase("run", "10*ms"),), dt="1*ms"))


def recorded(samples: int = 1, cells: int = 1, unit: str = "1") -> Traces:
    """20 ms of ``exc.u``, whose value is the number of its column."""
    values = np.broadcast_to(np.arange(float(cells)), (20, samples, cells))
    return Traces(np.arange(20) * 1e-3, {"exc.u": values}, {"exc.u": unit}, [PhaseSpan("run", 0, 0.0, 0.02)])


def fired(**changed) -> Traces:
    one = Spikes(np.array([0.002]), np.array([0]), np.array([0]))
    return replace(recorded(**changed), spikes={"exc": one})


# ------------------------------------------------------------------------------------------- files beside a model


MODEL = """
from winner import SIZE
from neurosim import SOURCE, Circuit, Phase, Population, Protocol

def circuit():
    return Circuit("mine", [Population("inp", SIZE, SOURCE)], Protocol((Phase("p", "1*ms"),), {"inp.r": "image"}))
"""


def model_beside(folder: Path, size: int) -> Path:
    folder.mkdir()
    (folder / "winner.py").write_text(f"from parts.size import twice\nSIZE = twice({size})\n")
    (folder / "parts").mkdir()
    (folder / "parts" / "__init__.py").write_text("")
    (folder / "parts" / "size.py").write_text("def twice(n):\n    return 2 * n\n")
    (folder / "spiking.py").write_text(MODEL)
    return folder / "spiking.py"


def test_a_model_file_imports_the_files_beside_it_as_python_would(tmp_path, capsys, monkeypatch):
    first, second = model_beside(tmp_path / "mine", 2), model_beside(tmp_path / "other", 3)
    path, modules = list(sys.path), set(sys.modules)
    assert registry.model(f"{first}:circuit").circuit().population("inp").n == 4
    # A file of the same name beside another model is another file.
    assert registry.model(f"{second}").circuit().population("inp").n == 6
    assert sys.path == path and not {"winner", "parts", "parts.size"} & (set(sys.modules) - modules)
    monkeypatch.chdir(tmp_path)
    assert main(["describe", "mine/spiking.py"]) == 0 and "mine" in capsys.readouterr().out


def test_the_path_is_as_before_where_a_model_file_fails(tmp_path):
    file = tmp_path / "broken.py"
    file.write_text("import sys\nimport no_such_neighbour\n")
    path = list(sys.path)
    with pytest.raises(NeurosimError, match="cannot be run: ModuleNotFoundError: No module named 'no_such_neighbour'"):
        registry.model(str(file))
    assert sys.path == path


def test_modules_that_are_not_beside_the_file_stay(tmp_path):
    """Libraries in a virtual environment below the file's folder are loaded once, as anywhere."""
    library = tmp_path / "venv" / "lib" / "site"
    library.mkdir(parents=True)
    (library / "a_library.py").write_text("")
    file = tmp_path / "uses.py"
    file.write_text(f"import sys\nsys.path.append({str(library)!r})\nimport a_library\ncircuit = lambda: None\n")
    try:
        registry.model(str(file))
        assert "a_library" in sys.modules and str(library) in sys.path  # what the file did to the path is its own
        assert str(tmp_path) not in sys.path
    finally:
        sys.modules.pop("a_library", None)
        sys.path.remove(str(library))


# ----------------------------------------------------------------------------------------------- levels compared


def test_the_report_says_which_levels_were_left_out_and_why():
    report = compare(spiking(), progress=False)
    assert "torch:steady" not in report.report["levels"]
    assert "\nLeft out: torch:steady: there is no fixed point with spiking cells.\n" in report.markdown()


def test_levels_left_out_for_a_rule_are_told_with_its_reason():
    rule = PlasticityRule("odd", "dw/dt = eta*exp(r_post*r_pre)", {"eta": "1*Hz"})
    projection = Projection("W", "inp", "p.I", Constant(1.0), rule)
    protocol = Protocol((Phase("shown", "5*ms", plastic=("odd",)),), {"inp.r": "image"}, dt="1*ms")
    circuit = replace(leak(), fragment=Fragment(leak().populations, (projection,)), protocol=protocol)
    comparison = compare(circuit, np.ones((1, 1)), progress=False)
    assert comparison.report["levels"] == ["brian2:equations"]
    text = comparison.markdown()
    assert "Left out: brian2:dense: The rule 'odd' of projection 'W' cannot run on brian2:dense" in text


def test_levels_that_are_named_leave_none_out():
    markdown = compare(leak(), np.ones((1, 1)), levels=["brian2:dense", "torch:trajectory"], progress=False).markdown()
    assert "Left out" not in markdown


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        (["brian2:dens", "torch:steady"], "There is no level 'brian2:dens'. Did you mean 'brian2:dense'?"),
        (["brian2:dens"], "There is no level 'brian2:dens'."),
    ],
)
def test_wrong_levels_leave_no_folder(tmp_path, capsys, levels, message):
    out = tmp_path / "d"
    assert main(["compare", "ghost_units", "--levels", *levels, "--out", str(out)]) != 0
    assert message in capsys.readouterr().err and not out.exists()


def test_plot_of_a_comparison_says_what_it_got(tmp_path, capsys):
    folder = tmp_path / "compared"
    compare(leak(), np.ones((1, 1)), levels=["brian2:dense", "torch:trajectory"], progress=False).save(folder)
    assert main(["plot", str(folder)]) != 0
    text = capsys.readouterr().err
    assert f"'{folder}' is a folder of `neurosim compare`, which holds its report and its figure" in text
    assert "plot takes a traces.h5, a run folder" in text and "`train` makes" not in text


# ------------------------------------------------------------------------------------------------- wrong objects


NO_TRACES = r"wanted Traces, such as simulate\("


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plot.network_figure(recorded()), r"Got an object of type Traces; wanted a Circuit"),
        (lambda: plot.learning_curves(recorded()), r"Got an object of type Traces; wanted \{label: rows of metrics"),
        (lambda: plot.evolution_figure([1]), r"Got an object of type list; wanted \{label: rows"),
        (lambda: plot.comparison_figure(recorded()), r"Got an object of type Traces; wanted \{level: Traces\}"),
        (lambda: plot.traces_figure(leak()), rf"Got an object of type Circuit; {NO_TRACES}"),
        (lambda: plot.rates_figure(None), rf"Got None; {NO_TRACES}"),
        (lambda: plot.raster_figure(3), rf"Got an object of type int; {NO_TRACES}"),
        (lambda: plot.weights_figure(leak()), rf"Got an object of type Circuit; {NO_TRACES}"),
        (lambda: plot.fi_figure([], "exc.I"), rf"Got an object of type list; {NO_TRACES}"),
        (lambda: export.from_neo(3), r"Got an object of type int; wanted a neo\.Block made by .*to_neo"),
        (lambda: export.to_neo(3), r"Got an object of type int; wanted Traces"),
        (lambda: export.to_csv(3, "x.csv"), r"Got an object of type int; wanted Traces"),
        (lambda: export.to_nwb(3, "x.nwb"), r"Got an object of type int; wanted Traces"),
    ],
)
def test_another_object_is_refused_by_what_it_is(draw, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NeurosimError, match=message):
        draw()


# --------------------------------------------------------------------------------------------------- the figures


def test_bins_longer_than_the_recording_are_refused():
    with pytest.raises(NeurosimError, match=r"bin = 10 is longer than the 0\.02 s that are drawn; bin is in seconds"):
        plot.rates_figure(fired(), bin=10)
    (axes,) = plot.rates_figure(fired(), bin=0.02).axes  # all of it: 1 spike of 1 cell in 20 ms
    np.testing.assert_allclose(axes.patches[0].get_data().values, [50])


def test_the_default_bin_is_for_short_recordings_too():
    short = Traces(
        np.array([0.0, 1e-3]), {"exc.u": np.zeros((2, 1, 1))}, {"exc.u": "1"}, [PhaseSpan("run", 0, 0.0, 2e-3)],
        spikes={"exc": Spikes(np.array([0.001]), np.array([0]), np.array([0]))},
    )  # fmt: skip
    (axes,) = plot.rates_figure(short).axes
    np.testing.assert_allclose(axes.patches[0].get_data().values, [500])


def test_rates_of_another_variable_have_its_name_and_unit():
    (axes,) = plot.rates_figure(recorded(cells=3, unit="volt"), ["exc.u"]).axes
    assert axes.get_ylabel() == "exc.u\n(mV)"
    np.testing.assert_allclose(axes.lines[0].get_ydata(), 1000)  # the mean of 0, 1 and 2 V


@pytest.mark.parametrize(("cells", "label"), [(1, "1 cell"), (3, "mean of 3 cells")])
def test_one_cell_is_no_mean(cells, label):
    (axes,) = plot.rates_figure(recorded(cells=cells), ["exc.u"]).axes
    assert axes.lines[0].get_label() == label


def weights(**metadata) -> Traces:
    return Traces(
        np.empty(0), {}, {}, [], metadata, weights={"W": np.ones((2, 1, 1))}, weight_trials=np.array([0, 4]),
    )  # fmt: skip


def test_weights_of_a_simulation_are_over_trials_and_of_a_training_over_epochs():
    assert plot.weights_figure(weights()).axes[0].get_xlabel() == "trials"
    assert plot.weights_figure(weights(trials_per_epoch=2)).axes[0].get_xlabel() == "epochs of training"
    images = np.ones((2, 1))
    simulated = simulate(leak(), images, level="torch:trajectory", record=["W"], progress=False).traces
    assert plot.weights_figure(simulated).axes[0].get_xlabel() == "trials"


def test_counts_of_one_are_singular():
    one = replace(weights(), weights={"W": np.ones((1, 1, 1))}, weight_trials=np.array([0]))
    assert "1 snapshot of one run" in plot.weights_figure(one).get_suptitle()
    title = plot.network_figure(leak()).texts[0].get_text()
    assert title == "leak: 2 populations, 1 projection"
    evolution = plot.evolution_figure({"a": [{"generation": 0, "best": 1.0, "non_finite": 1}]})
    assert evolution.legends[0].get_texts()[0].get_text() == "a (1 generation, 1 candidate not finite)"


def responses(spread: float) -> Traces:
    """50 cells in a batch of 2, cell k at the current k; the samples of the last cell differ by `spread`."""
    current = np.broadcast_to(np.arange(50.0), (20, 2, 50))
    rate = np.array(current)
    rate[:, 1, :] *= 1 + 1e-15  # round-off
    rate[:, 1, -1] += spread
    return Traces(
        np.arange(20) * 1e-3, {"exc.I": current, "exc.r": rate}, {"exc.I": "1", "exc.r": "1"}, [PhaseSpan("run", 0, 0.0, 0.02)]
    )  # fmt: skip


def test_error_bars_stand_where_equal_currents_differ_alone():
    (axes,) = plot.fi_figure(responses(0.0), "exc.I").axes
    assert len(axes.lines) == 1 and not axes.collections
    (axes,) = plot.fi_figure(responses(2.0), "exc.I").axes
    (bars,) = axes.collections
    assert "mean ± sd of equal currents" in axes.get_ylabel()
    (bar,) = bars.get_segments()  # one, at the last current: mean 50, sd sqrt(2)
    np.testing.assert_allclose(bar, [[49, 50 - 2**0.5], [49, 50 + 2**0.5]])


# ------------------------------------------------------------------------------------------------------ training


def test_training_without_a_readout_points_to_simulate(tmp_path):
    file = tmp_path / "silent.py"
    file.write_text(MODEL.replace("from winner import SIZE", "SIZE = 64"))
    with pytest.raises(NeurosimError) as error:
        train(str(file), progress=False)
    text = str(error.value)
    assert "names no readout, so it cannot be trained to classify" in text
    assert "`neurosim simulate` with plasticity on (the default) lets its rules learn from the stimuli" in text
    assert "readout=Readout(" in text
