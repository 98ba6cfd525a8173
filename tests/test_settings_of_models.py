"""Settings and arguments of a wrong type, unit or range are refused by name, whoever gives them."""

from __future__ import annotations

import inspect
from typing import Annotated, Any, Literal

import brian2
import numpy as np
import pytest
from annotated_types import Ge, Gt, Lt

import neurosim
from neurosim import (
    SOURCE,
    Cell,
    Circuit,
    Constant,
    InverseCorrelation,
    Phase,
    PlasticityRule,
    Population,
    Projection,
    Protocol,
    Readout,
    Windows,
    registry,
)
from neurosim.checks import Amount, Count, In, NotNegative, Positive, PositiveTime, Seed, Sizes, Time, check, checked
from neurosim.cli import main
from neurosim.errors import DivergenceError, NeurosimError
from neurosim.models import ghost_units
from neurosim.training import resolve
from neurosim.training.config import TrainConfig
from neurosim.training.evolution.config import EvolveConfig

MS, MV = brian2.ms, brian2.mV
FRACTION = Annotated[float, Ge(0), Lt(1)]

# ---------------------------------------------------------------- one value


@pytest.mark.parametrize(
    ("hint", "value", "got"),
    [
        (float, 2, 2), (float, np.float32(0.5), 0.5), (float, np.array(3.0), 3.0), (float, 2 * MS / MS, 2.0),
        (Count, np.int64(4), 4), (Seed, 2**63 - 1, 2**63 - 1), (bool, np.bool_(True), True),
        (Sizes, [64, 10], (64, 10)), (Sizes, np.array([64, 10]), (64, 10)),
        (Positive | None, None, None), (Time, "-5*ms", "-5*ms"), (PositiveTime, "1e-3*second", "1e-3*second"),
        (Literal["a", "b"], "b", "b"), (Annotated[str, In(("a",))] | None, "a", "a"),
    ],
)  # fmt: skip
def test_what_is_meant_is_taken(hint: Any, value: Any, got: Any):
    found = check("key", value, hint)
    assert found == got
    assert type(found) is type(got)


def test_a_time_given_as_a_quantity_becomes_a_text_of_the_same_time():
    text = check("tau", 10 * MS, PositiveTime)
    assert isinstance(text, str)
    assert neurosim.equations.seconds(text) == 0.01


@pytest.mark.parametrize(
    ("hint", "value", "message"),
    [
        (float, "abc", "key = 'abc'; wanted a number."),
        (float, "0.5", "Write 0.5 without quotes."),
        (float, (1, 5), "key = (1, 5); wanted a number. Write 1.5, with a point."),
        (float, float("nan"), "key = nan; wanted a number. It must be finite."),
        (float, 1e400, "key = inf; wanted a number. It must be finite."),
        (float, 10**400, "It must be finite."),
        (float, True, "key = True; wanted a number."),
        (float, 1j, "key = 1j; wanted a number."),
        (float, b"a", "key = b'a'; wanted a number."),
        (float, 3 * MS, "The unit is s."),
        (float, None, "key = None; wanted a number."),
        (Positive | None, 0, "key = 0; wanted a number above 0, or none."),
        (NotNegative, -1, "key = -1; wanted a number of at least 0."),
        (FRACTION, 1.0, "key = 1.0; wanted a number of at least 0 and below 1."),
        (Seed, "1", "key = '1'; wanted a whole number of at least 0. Write 1 without quotes."),
        (Seed, 1.5, "wanted a whole number of at least 0."),
        (Seed, 2.0, "Write 2."),
        (Seed, 2**70, "It must fit into 64 bits"),
        (Sizes, (64, 0), "key = (64, 0); wanted a list of at least 2 whole numbers of at least 1"),
        (Sizes, (10**12, 10), "at most 2147483647"),
        (Sizes, 64, "wanted a list of at least 2"),
        (Time, 10, "key = 10; wanted a time with units, such as '10*ms'. Write '10*ms'."),
        (Time, "10 ms", "Write '10*ms'."),
        (Time, 10 * MV, "The unit is volt."),
        (PositiveTime, "-1*ms", "key = '-1*ms'; wanted a time above 0 with units"),
        (Literal["exact", "none"], "exat", "There is no key 'exat'. Did you mean 'exact'? Known: exact, none."),
        (Literal["exact", "none"], 3, "key = 3; wanted one of exact, none."),
        (bool, 1, "key = 1; wanted true or false."),
        (tuple[str, ...], "abc", "key = 'abc' is one text; wanted a list: ['abc']."),
        (tuple[float, float], (1,), "key = (1,); wanted 2 numbers."),
        (dict[str, NotNegative], {"a": -1}, "key.a = -1; wanted a number of at least 0."),
        (Amount, {}, "key = {}; wanted a number, a text with units"),
    ],
)
def test_what_is_not_meant_is_refused(hint: Any, value: Any, message: str):
    with pytest.raises(NeurosimError) as error:
        check("key", value, hint)
    assert message in str(error.value)


def test_the_arguments_of_a_checked_function():
    @checked
    def f(a: Annotated[float, Gt(0)], *more: int, b: Count = 1, **rest: Any) -> Any:
        return a, more, b, rest

    assert f(np.float64(2.0), "x", b=3, c="y") == (2.0, ("x",), 3, {"c": "y"})
    with pytest.raises(NeurosimError, match="a = -1; wanted a number above 0"):
        f(-1)
    with pytest.raises(TypeError, match="'a'"):
        f()  # type: ignore[call-arg]


# ---------------------------------------------------------------- every setting of every model

ODD = [float("nan"), float("inf"), b"a", 1j, object(), {}, [None], "no such word", 10**400, (1, 5, "x")]


@pytest.mark.parametrize("name", registry.names())
def test_no_setting_of_a_model_takes_what_it_cannot_mean(name: str):
    model = registry.model(name)
    for key in model.parameters:
        for value in ODD:
            if key == "credits" and value == "no such word":
                continue  # a file may have this name
            with pytest.raises(NeurosimError) as error:
                model.circuit({key: value})
            text = str(error.value)
            assert f"{key} = " in text or f"no {key} " in text, text
            assert "cannot be built" not in text


@pytest.mark.parametrize("config", [TrainConfig, EvolveConfig])
def test_no_key_of_a_schedule_takes_what_it_cannot_mean(config: type):
    for key in inspect.signature(config).parameters:
        for value in (float("nan"), b"a", 1j, object(), [None]):
            with pytest.raises(NeurosimError) as error:
                config(**{"model": "ghost_units", key: value})
            assert f"{key} = " in str(error.value)


def test_products_beyond_the_range_of_numbers_are_refused_by_the_settings_that_were_given():
    with pytest.raises(NeurosimError, match=r"^kappa = 1e\+300: products of these leave the range of numbers"):
        ghost_units.circuit(kappa=1e300)


def test_a_setting_is_checked_where_the_mode_does_not_use_it():
    with pytest.raises(NeurosimError, match=r"eta_ghost = -1; wanted a number of at least 0"):
        ghost_units.circuit(mode="exact", eta_ghost=-1)


def test_python_the_command_line_and_files_say_the_same(tmp_path, capsys):
    """Of `beta=abc`: Python, --set in three commands, an experiment file, a sweep."""
    with pytest.raises(NeurosimError) as error:
        ghost_units.circuit(beta="abc")
    message = "beta = 'abc'; wanted a number above 0, or none."
    assert str(error.value) == message
    experiment, sweep = tmp_path / "experiment.toml", tmp_path / "sweep.toml"
    experiment.write_text('model = "ghost_units"\n[settings]\nbeta = "abc"\n')
    sweep.write_text('model = "ghost_units"\nseeds = [0]\n[settings]\nbeta = "abc"\n')
    out = ("--out", str(tmp_path / "out"))
    for argv in (
        ("simulate", "ghost_units", "--set", "beta=abc", *out),
        ("train", "ghost_units", "--set", "beta=abc", *out),
        ("describe", "ghost_units", "--set", "beta=abc"),
        ("train", str(experiment), *out),
        ("sweep", str(sweep), *out),
    ):
        assert main(argv) == 1
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["(" * 5000, "0x" + "f" * 9000, "1e400", "b'\\d'", "{1,2}", "-", ""])
def test_odd_texts_on_the_command_line(text, capsys):
    assert main(["describe", "ghost_units", "--set", f"gain={text}"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: gain = ")
    assert len(error) < 300


def test_sizes_that_no_memory_holds_are_refused_before_they_are_made():
    circuit = ghost_units.circuit(sizes=(64, 2**30, 2**30, 10))
    with pytest.raises(NeurosimError, match=r"'ghost_units'.*would need 9\.\d+e\+09 GB of memory"):
        circuit.initial_weights()


# ---------------------------------------------------------------- Python's functions and classes

CELL = Cell("leaky", "dv/dt = (-v + I)/tau : 1\nr = tanh(v) : 1\nI : 1 (port)\ny : 1 (input)", parameters={"tau": "10*ms"})  # fmt: skip
HEBB = PlasticityRule("hebb", "dw/dt = eta*r_post*r_pre", {"eta": "1*Hz"})
CIRCUIT = Circuit(
    "tiny",
    [Population("inp", 2, SOURCE), Population("p", 3, CELL), Projection("W", "inp", "p.I", Constant(0.1), HEBB)],
    Protocol((Phase("free", "2*ms", plastic=("hebb",)),), {"inp.r": "image"}, dt="1*ms"),
    Readout("p.r", "free"),
)
FREE = Phase("free", "1*ms")
#: Arguments with which each public name works.
WORKS: dict[str, dict[str, Any]] = {
    "Angle": {"of": "W", "to": "V"}, "Cell": {"name": "c", "equations": "r = 1 : 1"},
    "Citation": {"title": "Title", "authors": "Author, A.", "year": 2000},
    "Circuit": {"name": "c", "populations": CIRCUIT.populations, "projections": CIRCUIT.projections, "protocol": CIRCUIT.protocol},
    "Conv2d": {"size": 3}, "FeedForward": {"weights": ("W",), "biases": (), "transfer": "u"},
    "Given": {"values": [[1.0]]}, "InverseCorrelation": {"rate": "r", "forgetting": 0.5},
    "Like": {"projection": "W"}, "Phase": {"name": "a", "duration": "1*ms"},
    "PlasticityRule": {"name": "h", "equation": "dw/dt = 1*Hz"},
    "Population": {"name": "p", "n": 2, "cell": CELL}, "Projection": {"name": "W", "source": "inp", "target": "p.I"},
    "Protocol": {"phases": (FREE,)}, "RandomSign": {"value": 1}, "Ratio": {"of": ("p.v",), "to": ("p.I",), "phase": "free"},
    "Readout": {"variable": "p.r", "phase": "free"}, "Relaxation": {"order": ("p",), "sweeps": {"free": 2}, "dt": "1*ms"},
    "Silent": {"variable": "p.r", "phase": "free", "cure": "x"}, "SmallestEigenvalue": {"of": "W", "cure": "x"}, "Tied": {"projection": "W"},
    "Traces": {"time": np.zeros(1), "values": {}, "units": {}, "phases": []}, "Uniform": {"low": 0, "high": 1}, "Windows": {"phases": (FREE,)},
    "compare": {"circuit": CIRCUIT, "images": np.ones((1, 2)), "levels": ["torch:steady"], "progress": False},
    "describe": {"circuit": CIRCUIT}, "load": {"folder": "nowhere"},
    "simulate": {"circuit": CIRCUIT, "stimuli": np.ones((1, 2)), "level": "torch:trajectory", "progress": False},
    "train": {"model": "no_such_model", "progress": False},
}  # fmt: skip


PUBLIC = [n for n in neurosim.__all__ if callable(getattr(neurosim, n)) and n != "compare"]


@pytest.mark.parametrize("name", [*PUBLIC, pytest.param("compare", marks=pytest.mark.slow)])
def test_a_wrong_type_is_refused_by_the_name_of_its_parameter(name: str):
    function = getattr(neurosim, name)
    for key, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        for value in (None, "abc", 1, 1.5, [], {}, object()):
            try:
                function(**{**WORKS.get(name, {}), key: value})
            except NeurosimError:
                continue
            except TypeError as error:
                assert key in str(error)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: neurosim.compare("ghost_units"), r"circuit = 'ghost_units'; wanted a Circuit. Build one: .*ghost_units"),
        (lambda: neurosim.simulate(None), r"circuit = None; wanted a Circuit"),
        (lambda: neurosim.train(CIRCUIT), r"model = a Circuit 'tiny'; wanted a text. A circuit is trained by the function .*FILE\.py:FUNCTION"),
        (lambda: Protocol(FREE), r"Protocol: phases = a Phase 'free'; wanted .* Write \(VALUE,\), with its comma"),
        (lambda: Phase("free", 5), r"Phase 'free': duration = 5; wanted a time with units, such as '10\*ms'. Write '5\*ms'"),
        (lambda: Windows((FREE,), labels="al"), r"Windows: There is no labels 'al'. Did you mean 'all'"),
        (lambda: InverseCorrelation("r", 1.0), r"forgetting = 1\.0; wanted a number above 0 and below 1"),
        (lambda: Cell("c", None), r"Cell 'c': equations = None; wanted a text"),
        (lambda: Population("p", 2, CELL, {"tau": None}), r"Population 'p': parameters\.tau = None; wanted a number"),
        (lambda: Population("p", 2, CELL, {"tau": ["1*ms", "2*mV"]}), r"parameters\.tau = .*The units are s, volt"),
    ],
)  # fmt: skip
def test_messages_of_wrong_types(make: Any, message: str):
    with pytest.raises(NeurosimError, match=message):
        make()


def test_a_list_of_texts_is_one_value_for_each_cell():
    """v settles at E_L, which differs from cell to cell."""
    cell = Cell(
        "rests",
        "dv/dt = (E_L - v)/tau : volt\nr = v/v_0 : 1",
        parameters={"E_L": "-70*mV", "tau": "1*ms", "v_0": "1*mV"},
    )
    circuit = Circuit(
        "rest", [Population("p", 2, cell, {"E_L": ["-70*mV", "-60*mV"]})], Protocol((Phase("free", "50*ms"),))
    )
    result = neurosim.simulate(circuit, level="torch:trajectory", progress=False)
    np.testing.assert_allclose(result.ends["free"]["p.v"][0], [-0.07, -0.06], rtol=1e-12)


def test_the_cells_of_a_figure_are_a_list():
    result = neurosim.simulate(CIRCUIT, np.ones((1, 2)), level="torch:trajectory", record=["p.v"], progress=False)
    with pytest.raises(NeurosimError, match=r"cells = 1; wanted a list of whole numbers or a table"):
        result.plot(cells=1)


# ---------------------------------------------------------------- divergence


@pytest.mark.parametrize(
    ("model", "keys", "message"),
    [
        ("ghost_units", {"learning_rate": 1e38}, "range|not finite|NaN"),
        (
            "ghost_units",
            {"learning_rate": 1e308},
            r"weights of 'W1' hold NaN or infinity\. Lower learning_rate = 1e\+308",
        ),
        ("ghost_units", {"weight_decay": 1e308}, "range"),
        ("ghost_units", {"settings": {"eta": 1e300}}, "range"),
        ("equilibrium_propagation", {"learning_rate": 1e308}, r"Lower learning_rate = 1e\+308"),
        ("corinfomax", {"settings": {"lam": 1e-4}}, "lateral_share is .* use lam nearer to 1"),
        ("corinfomax", {"settings": {"lam": 1e-300}}, "range|lam"),
        ("corinfomax", {"settings": {"eta_fb": (1e300,)}}, "F1"),
    ],
)
def test_a_training_that_diverges_says_what_to_lower(model: str, keys: dict[str, Any], message: str):
    settings = {"sizes": (64, 6, 10), **keys.pop("settings", {})}
    with pytest.raises(DivergenceError, match=message):
        neurosim.train(model, settings=settings, limit=32, epochs=1, progress=False, **keys)


def test_more_steps_than_can_be_counted_are_refused():
    with pytest.raises(NeurosimError, match=r"phase 'free' lasts 2 ms, which is 2e\+300 steps .* a larger dt"):
        neurosim.simulate(CIRCUIT, np.ones((1, 2)), level="torch:trajectory", dt="1e-300*ms", progress=False)


def test_settings_of_a_run_are_plain_values():
    """What NumPy and Brian2 hold becomes numbers and texts, which a file can keep."""
    config = resolve("ghost_units", {"beta": np.float64(0.5), "tau": 10 * MS, "sizes": np.array([64, 8, 10])})
    assert {k: config.settings[k] for k in ("beta", "sizes")} == {"beta": 0.5, "sizes": (64, 8, 10)}
    assert TrainConfig.from_text(config.to_toml(), "text") == config
