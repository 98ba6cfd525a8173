"""What a first try of the documentation stumbled over."""

from __future__ import annotations

import numpy as np
import pytest

from neurosim import SOURCE, Cell, Circuit, Constant, Phase, Population, Projection, Protocol, simulate
from neurosim.cli import main
from neurosim.errors import NeurosimError, UnsupportedError
from neurosim.training import train


def slow(tau: str, reset: bool) -> Circuit:
    """One cell with a running mean of its input; a trial lasts 50 ms."""
    cell = Cell("c", "du/dt = (I - u)/tau : 1\nr = u : 1\nI : 1 (port)", rate="r", parameters={"tau": tau})
    return Circuit(
        "running_mean",
        [Population("inp", 1, SOURCE), Population("p", 1, cell), Projection("W", "inp", "p.I", Constant(1.0))],
        Protocol((Phase("shown", "50*ms"),), clamps={"inp.r": "image"}, dt="1*ms", reset=reset),
    )


def test_a_state_that_outlives_trials_is_refused_on_the_steady_level():
    images = np.array([[1.0], [0.0]])
    with pytest.raises(
        UnsupportedError, match=r"no memory from trial to trial: a state of 'p' has the time constant 200 ms"
    ):
        simulate(slow("200*ms", False), images, level="torch:steady", progress=False)
    assert not slow("200*ms", False).plan.has_fixed_point
    # In time it is the exponential of both trials: (1 - q^50) q^50 after the second, q = 1 - dt/tau.
    ends = simulate(slow("200*ms", False), images, level="torch:trajectory", record=["p.u"], progress=False).traces[
        "p.u"
    ]
    q = 1 - 1 / 200
    np.testing.assert_allclose(ends[-1, 0, 0], (1 - q**50) * q**49, rtol=1e-12)


@pytest.mark.parametrize(("tau", "reset"), [("200*ms", True), ("5*ms", False)])
def test_other_states_are_not(tau, reset):
    result = simulate(slow(tau, reset), np.array([[1.0], [0.5]]), level="torch:steady", progress=False)
    np.testing.assert_allclose(result.ends["shown"]["p.u"][:, 0], [1.0, 0.5], atol=1e-9)


MODEL = '''
from neurosim import Cell, Circuit, Dense, Phase, PlasticityRule, Population, Projection, Protocol, Readout, Glorot
from neurosim.description import SOURCE


def circuit():
    """A layer that learns by a rule of another name."""
    cell = Cell(
        "c", "du/dt = (I - u)/tau : 1\\nr = u : 1\\nerr = on*(y - u) : 1\\ny : 1 (input)\\non : 1 (shared)\\nI : 1 (port)",
        {"tau": "5*ms"},
    )
    rule = PlasticityRule("delta_rule", "dw/dt = eta*err_post*r_pre", parameters={"eta": "1*Hz"})
    return Circuit(
        "own", [Population("inp", 64, SOURCE), Population("out", 10, cell), Projection("W", "inp", "out.I", Glorot(), rule)],
        Protocol([Phase("free", "50*ms", clamps={"inp.r": "image"}, shared={"on": 0}),
                  Phase("taught", "50*ms", clamps={"inp.r": "image", "out.y": "target"}, shared={"on": 1}, plastic=("delta_rule",))], dt="1*ms"),
        readout=Readout("out.u", "free"),
    )
'''


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(MODEL)
    return f"{path}:circuit"


def test_a_model_of_ones_own_trains_by_its_own_rules(own):
    result = train(own, epochs=3, limit=640, learning_rate=0.01, progress=False)
    assert result["test_accuracy"] > 0.7  # type: ignore[index]


def test_resume_takes_no_other_option(tmp_path, capsys):
    assert main(["train", "--resume", str(tmp_path), "--epochs", "50", "--set", "beta=1"]) == 1
    assert (
        "goes on with the run of that folder, as its config.toml says; leave --set, --epochs out"
        in capsys.readouterr().err
    )


def test_traces_and_results_say_in_a_few_lines_what_they_hold():
    result = simulate(
        slow("5*ms", True), np.ones((2, 1)), level="torch:trajectory", record=["p.u", "W"], progress=False
    )
    assert repr(result.traces) == (
        "Traces of running_mean: 100 rows, 2 trials, 0 to 0.099 s\n  p.u: (100, 1, 1) 1\n  W: (3, 1, 1) weights"
    )
    assert repr(result).startswith("Result of torch:trajectory: 100 steps in ")


def test_a_name_is_no_circuit():
    with pytest.raises(NeurosimError, match=r"circuit = 'ghost_units'; wanted a Circuit\. Build one"):
        simulate("ghost_units", np.ones((1, 64)))  # type: ignore[arg-type]
