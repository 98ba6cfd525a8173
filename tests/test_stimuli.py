"""Stimuli: fields of any name, their short form, and what is refused."""

import re

import brian2
import numpy as np
import pytest
from brian2 import mV, nA, nS, pA, pF
from circuits import LEVELS, cell, circuit, driven, phase, rule, run, wire

import neurosim
from neurosim import SOURCE, Cell, Circuit, Phase, PlasticityRule, Population, Protocol, Windows
from neurosim.analysis.representations import activities
from neurosim.cli import main
from neurosim.errors import CircuitError, NeurosimError
from neurosim.stimuli import stimulus_fields

X = np.array([[0.3, 0.9, -0.4], [1.0, 0.2, 0.6]])
Y = np.array([[0.0, 1.0], [1.0, 0.0]])

#: Follows an input y of its own beside its drive.
TAUGHT = cell("du/dt = (-u + I + y)/tau : 1; r = tanh(u) : 1; I : 1; y : 1", inputs=["y"], tau="10*ms")


def taught(first: str = "image", second: str = "target") -> Circuit:
    """Three inputs, two cells that learn; clamped to the fields `first` and `second`."""
    return circuit(
        {"inp": (3, SOURCE), "p": (2, TAUGHT)},
        [wire("W", "inp", "p.I", np.full((3, 2), 0.2), rule("r_post*r_pre/T", T="100*ms"))],
        [phase("free", "10*ms"), phase("learn", "10*ms", ["rule"])],
        {"inp.r": first, "p.y": second},
    )


def check_same(a, b):
    """All that two runs left is equal, bit for bit."""
    assert a.ends.keys() == b.ends.keys() and a.weights.keys() == b.weights.keys()
    for when, values in a.ends.items():
        for name, value in values.items():
            np.testing.assert_array_equal(b.ends[when][name], value)
    for name, weights in a.weights.items():
        np.testing.assert_array_equal(b.weights[name], weights)
    for name in a.traces.values:
        np.testing.assert_array_equal(b.traces[name], a.traces[name])


# ---------------------------------------------------------------------- the short form


@pytest.mark.parametrize("level", LEVELS)
def test_images_and_labels_are_short_for_two_fields(level):
    short = run(taught(), level, X, Y, record=["p.u"])
    named = run(taught(), level, {"target": Y, "image": X}, record=["p.u"])
    check_same(short, named)
    numbers = run(taught(), level, {"image": X, "target": [1, 0]}, record=["p.u"])
    check_same(short, numbers)


@pytest.mark.parametrize("level", LEVELS)
def test_the_name_of_a_field_changes_no_bit(level):
    short = run(taught(), level, X, Y, record=["p.u"])
    other = run(taught("x", "teacher"), level, {"x": X, "teacher": Y}, record=["p.u"])
    check_same(short, other)
    assert np.abs(short.weights["W"] - 0.2).max() > 1e-3  # and it learned


@pytest.mark.parametrize("level", LEVELS[1:])
def test_batches_of_fields(level):
    four = {"x": np.tile(X, (2, 1)), "teacher": np.tile(Y, (2, 1))}
    short = run(taught(), level, four["x"], four["teacher"], batch_size=2, record=["p.u"])
    check_same(short, run(taught("x", "teacher"), level, four, batch_size=2, record=["p.u"]))


@pytest.mark.parametrize("level", LEVELS)
def test_windows_beside_a_field_of_any_name(level):
    """Windows over labels read `target`; the other field goes by any name."""
    follower = cell("du/dt = (-u + I + I_label)/tau : 1; r = u : 1; I : 1; I_label : 1", tau="2*ms")

    def shown(field):
        windows = Windows((Phase("settle", "20*ms"),), clamps={"l.r": "label", "x.r": field})
        return circuit(
            {"x": (3, SOURCE), "l": (2, SOURCE), "p": (2, follower)},
            [wire("W", "x", "p.I", np.full((3, 2), 0.2)), wire("V", "l", "p.I_label", np.eye(2))],
            [windows],
        )

    short = run(shown("image"), level, X, [1, 0], record=["p.u"])
    check_same(short, run(shown("picture"), level, {"picture": X, "target": [1, 0]}, record=["p.u"]))
    np.testing.assert_allclose(
        short.ends["settle[1]"]["p.u"][0],  # the sum of the drives, up to exp(-10)
        [0.2 * X[0].sum(), 0.2 * X[0].sum() + 1],
        atol=1e-4,
    )


def test_single_precision_stays_single():
    given = {"x": X.astype(np.float32), "teacher": Y}
    fields = stimulus_fields(taught("x", "teacher"), given)
    assert fields["x"].dtype == np.float32 and fields["teacher"].dtype == np.float64


def test_further_axes_are_flattened(tmp_path):
    pictures = np.arange(12.0).reshape(2, 3, 2)
    net = circuit({"inp": ((1, 3, 2), SOURCE)}, clamps={"inp.r": "x"})
    np.testing.assert_array_equal(stimulus_fields(net, {"x": pictures})["x"], pictures.reshape(2, 6))
    np.savez(tmp_path / "x.npz", x=pictures)
    with np.load(tmp_path / "x.npz") as stored:  # it is a table of fields itself
        found = stimulus_fields(net, stored)
    np.testing.assert_array_equal(found["x"], pictures.reshape(2, 6))


# ---------------------------------------------------------------------- units


LEAKY = Cell(
    "leaky",
    """
    dv/dt = (-g*v + I + I_syn)/C : volt
    I     : amp (input)
    I_syn : amp (optional port)
    """,
    {"g": "10*nS", "C": "100*pF"},
    rate="v",
)
CURRENTS = np.array([[100.0, -50.0], [20.0, 0.0]]) * pA
STEP, STEPS = 0.5e-3, 40  # of a trial


def leaky(*projections, **clamps) -> Circuit:
    """Two leaky cells, the current I clamped to the field `current`."""
    populations = {"cell": (2, LEAKY)} | ({"inp": (3, SOURCE)} if projections else {})
    return circuit(populations, projections, [phase("on")], {"cell.I": "current", **clamps})


def charged(currents: np.ndarray, level: str) -> np.ndarray:
    """v in the last step of a trial: C dv/dt = -g v + I by Euler from 0, or its fixed point."""
    g, C = float(10 * nS), float(100 * pF)
    left = 0.0 if level == "torch:steady" else (1 - STEP * g / C) ** (STEPS - 1)
    return currents / g * (1 - left)


@pytest.mark.parametrize("level", LEVELS)
def test_a_clamped_current_charges_a_leaky_cell(level):
    found = run(leaky(), level, {"current": CURRENTS}).ends["on"]["cell.v"]
    expected = charged(np.asarray(CURRENTS), level)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-15)
    bare = run(leaky(), level, {"current": np.asarray(CURRENTS)}).ends["on"]["cell.v"]
    np.testing.assert_array_equal(bare, found)


@pytest.mark.parametrize("level", LEVELS)
def test_a_current_beside_inputs(level):
    """The cell is linear: what x and the current do adds up."""
    W = np.array([[1.0, 2.0], [0.0, 1.0], [-1.0, 0.5]]) * 10
    net = leaky(wire("W", "inp", "cell.I_syn", neurosim.Given(W * pA)), **{"inp.r": "x"})
    found = run(net, level, {"x": X, "current": CURRENTS}).ends["on"]["cell.v"]
    expected = charged(np.asarray(CURRENTS) + X @ W * 1e-12, level)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-15)


def test_prefixes_of_units_are_numbers():
    for current in (CURRENTS, CURRENTS / nA * nA, [[100 * pA, -0.05 * nA], [20 * pA, 0 * pA]]):
        fields = stimulus_fields(leaky(), {"current": current})
        np.testing.assert_allclose(fields["current"], [[1e-10, -5e-11], [2e-11, 0]], rtol=1e-12)
        assert type(fields["current"]) is np.ndarray


def test_quantities_of_another_unit_are_refused():
    wrong = r"The field 'current' has the unit volt, and 'cell.I', which is clamped to it, amp"
    with pytest.raises(NeurosimError, match=wrong):
        run(leaky(), "torch:steady", {"current": np.ones((1, 2)) * mV})
    with pytest.raises(NeurosimError, match=r"'current' mixes the units amp and volt"):
        stimulus_fields(leaky(), {"current": [[1 * nA, 1 * mV]]})
    with pytest.raises(NeurosimError, match=r"'image' has the unit amp, and 'inp.r', .*, 1\."):
        stimulus_fields(taught(), X * nA, Y)
    with pytest.raises(NeurosimError, match=r"'target' has the unit volt, and 'p.y'"):
        stimulus_fields(taught(), X, Y * mV)


# ---------------------------------------------------------------------- what is refused


TWO = taught("x", "current")


@pytest.mark.parametrize(
    ("stimuli", "parts"),
    [
        (
            {"x": X, "curent": Y},
            ["no clamp of 'net' names", "'curent'", "Did you mean 'current'?", "x ('inp.r')"],
        ),
        (
            {"x": X},
            ["no field 'current'", "the clamp of 'p.y' needs", '{"current": ..., "x": ...}'],
        ),
        ({}, ["no field 'x'", "Got none"]),
        ({"x": X, "current": Y, "image": X}, ["a field 'image', which no clamp"]),
        (
            {"x": X[:, :2], "current": Y},
            ["'x' has 2 values per sample", "'inp.r'", "takes 3", "(samples, 3)"],
        ),
        ({"x": X[0], "current": Y}, ["The values of 'x' have shape (3,); wanted (samples, 3)"]),
        ({"x": X, "current": Y[:1]}, ["different numbers of samples: x 2, current 1"]),
        ({"x": X[:0], "current": Y[:0]}, ["no samples", "(samples, 3)"]),
        ({"x": X, "current": np.where(Y > 0, np.nan, Y)}, ["Sample 0 of the field 'current'"]),
        ({"x": X, "current": np.array([[0, 0], [0, np.inf]])}, ["Sample 1", "NaN or infinity"]),
        ({"x": X, "current": X.astype(str)}, ["'current' have the type <U32", "numbers"]),
        ({"x": X, "current": X * 1j}, ["the type complex128"]),
        (X, ["'x'", "images and labels give", 'simulate(circuit, {"current": ..., "x"']),
        (None, ["clamps current and x, so it needs stimuli", '{"current": ..., "x": ...}']),
    ],
)
def test_fields_that_do_not_fit(stimuli, parts):
    for function in (neurosim.simulate, neurosim.compare):
        with pytest.raises(NeurosimError) as error:
            function(TWO, stimuli, progress=False)
        assert all(part in str(error.value) for part in parts), str(error.value)


@pytest.mark.parametrize(
    ("stimuli", "message"),
    [
        ({"image": X, "target": [0, 2]}, "labels run from 0 to 2"),
        ({"image": X, "target": [0]}, r"labels have shape \(1,\); wanted \(2,\)"),
        ({"image": X, "target": Y[:1]}, r"targets have shape \(1, 2\); wanted \(2, 2\)"),
        ({"image": X[:, :2], "target": Y}, "The images have 2 pixels"),
        ({"images": X, "labels": Y}, r"a field 'images'.* Did you mean 'image'\?"),
    ],
)
def test_image_and_target_by_name_are_checked_as_in_the_short_form(stimuli, message):
    with pytest.raises(NeurosimError, match=message):
        stimulus_fields(taught(), stimuli)


def test_targets_alone():
    net = circuit({"p": (2, TAUGHT)}, [wire("b", "one", "p.I", np.ones((1, 2)))], clamps={"p.y": "target"})
    np.testing.assert_array_equal(stimulus_fields(net, {"target": [1, 0]})["target"], Y)
    with pytest.raises(NeurosimError, match="There are no samples"):
        stimulus_fields(net, {"target": np.zeros(0, int)})


def test_labels_beside_fields_are_refused():
    with pytest.raises(NeurosimError, match=r'\{..., "target": labels\}'):
        run(taught(), "torch:steady", {"image": X}, Y)


def test_a_circuit_that_clamps_nothing():
    net = circuit({"p": (2, TAUGHT)}, [wire("b", "one", "p.I", np.ones((1, 2)))])
    assert stimulus_fields(net) == stimulus_fields(net, {}) == {}
    with pytest.raises(NeurosimError, match=r"a field 'x', which no clamp .* clamps nothing"):
        stimulus_fields(net, {"x": X})


def test_one_field_for_populations_of_two_sizes():
    net = taught("x", "x")
    with pytest.raises(NeurosimError, match=r"'x' is clamped to 'inp.r' of 3 cells and 'p.y' of 2"):
        stimulus_fields(net, {"x": X})


def test_a_misspelt_field_of_windows_is_named_at_the_call():
    windows = Windows((Phase("a", "1*ms"),), clamps={"l.r": "label", "x.r": "sam"})
    populations = (Population("l", 3, SOURCE), Population("x", 1, SOURCE))
    net = Circuit("small", populations, Protocol((windows,)))
    for stimuli in ({"target": [0, 1]}, X):
        with pytest.raises(NeurosimError, match=r"'x.r'.* Did you mean 'same'\?"):
            run(net, "torch:steady", stimuli)


@pytest.mark.parametrize("field", ["", "2x", "a b", "x.r", "a-b"])
def test_a_field_is_named_like_a_variable(field):
    with pytest.raises(CircuitError, match=re.escape(f"'inp.r' names the field '{field}'")):
        taught(field)


@pytest.mark.parametrize("field", ["label", "same", "multiplicity"])
def test_fields_of_windows_stay_in_windows(field):
    with pytest.raises(CircuitError, match=f"'{field}', which has a value inside Windows alone"):
        taught(field)


# ---------------------------------------------------------------------- around


def test_compare_takes_fields():
    levels = ["torch:trajectory", "torch:steady"]
    short = neurosim.compare(taught(), X, Y, levels=levels, progress=False)
    named = neurosim.compare(taught("x", "teacher"), {"x": X, "teacher": Y}, levels=levels, progress=False)
    for what in ("samples", "pairs", "settling", "order", "weight_change"):
        assert named.report[what] == short.report[what], what


def test_activities_of_fields():
    weights = {"W": np.ones((3, 2))}
    short = activities(taught(), weights, X, Y)
    named = activities(taught("x", "teacher"), weights, {"x": X, "teacher": Y})
    assert short.keys() == named.keys() == {"inp", "p"}
    np.testing.assert_array_equal(named["inp"], X)
    np.testing.assert_array_equal(named["p"], short["p"])


def test_the_report_lists_the_fields():
    net = leaky(wire("W", "inp", "cell.I_syn", neurosim.Given(np.ones((3, 2)) * pA)), **{"inp.r": "x"})
    report = " ".join(neurosim.describe(net).split())
    assert "current: a field of the stimulus, 2 values in amp; x: a field of the stimulus, 3 values" in report
    assert "image: the stimulus, 3 values; target: " in " ".join(neurosim.describe(taught()).split())


MODEL = """
from neurosim import *

def circuit():
    source = Cell("source", "r : 1 (input)")
    output = Cell("output", "du/dt = (-u + I)/tau : 1\\nI : 1 (port)", {"tau": "1*ms"}, rate="u")
    return Circuit("other", [Population("inp", 64, source), Population("out", 10, output),
        Projection("W", "inp", "out.I", Constant(0))],
        Protocol((Phase("only", "5*ms"),), {"inp.r": "current"}), Readout("out.u", "only"))
"""


@pytest.mark.parametrize("command", ["simulate", "compare"])
def test_the_command_line_names_other_fields(command, tmp_path, capsys):
    (tmp_path / "model.py").write_text(MODEL)
    np.savez(tmp_path / "x.npz", images=np.ones((2, 64)))
    for more in ([], ["--stimuli", str(tmp_path / "x.npz")]):
        code = main([command, f"{tmp_path}/model.py:circuit", "--out", str(tmp_path / "out"), *more])
        said = capsys.readouterr().err
        assert code == 1 and not (tmp_path / "out").exists()
        assert "'other' clamps 'inp.r' to the field 'current', and the command line presents" in said
        assert f'In Python, neurosim.{command}(circuit, {{"current": ...}})' in said


def test_training_keeps_image_and_target(tmp_path):
    (tmp_path / "model.py").write_text(MODEL)
    with pytest.raises(NeurosimError, match=r"'inp.r' to the field 'current', and training presents"):
        neurosim.train(f"{tmp_path}/model.py:circuit", tmp_path / "run", method="circuit", epochs=1)
    assert not (tmp_path / "run" / "config.toml").exists()


# ---------------------------------------------------------------------- times


@pytest.mark.parametrize(
    "make",
    [
        lambda t: Phase("free", t),
        lambda t: Protocol((Phase("free", "1*ms"),), dt=t),
        lambda t: PlasticityRule("hebb", "dw/dt = r_post*r_pre/T", {"T": "1*ms"}, filter=t),
        lambda t: run(driven(TAUGHT), "torch:trajectory", X, dt=t),
    ],
)
def test_a_time_has_a_unit(make):
    with pytest.raises(NeurosimError, match=re.escape("Write '60*ms'")):
        make(60)
    with pytest.raises(NeurosimError, match="The unit is volt"):
        make("60*mV")


def test_times_are_texts_or_quantities():
    for time in ("60*ms", 60 * brian2.ms, 0.06 * brian2.second):
        net = circuit({"inp": (3, SOURCE)}, phases=[Phase("free", time)], clamps={"inp.r": "x"})
        assert net.plan.phases[0].seconds == pytest.approx(0.06, rel=1e-15)
