"""The comparison report of a circuit in physical units: units, shares and the least settled variables, against closed forms."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

import neurosim
from neurosim import SOURCE, Cell, Circuit, Constant, Fragment, Phase, PlasticityRule, Population, Projection, Protocol
from neurosim.compare import Comparison, runs
from neurosim.errors import NeurosimError
from neurosim.models import counter_current, ghost_units

TAU_V, TAU_F, STEP = 20e-3, 50e-3, 1e-3
COUNTS = {"rest": 60, "learn": 20}
CURRENT, RATE = 30e-12, 40.0  # what flows into the cell (A), what its second state tends to (Hz)
RESISTANCE = 1e8  # ohm
BEGIN = {"v": 0.0, "f": 10.0}  # V, Hz: the range of f is not its largest value
MOVED = {"W": 1.2e-10, "D": 3.0}  # A and Hz, of the closed form: the rules are constant
LEVELS = ["brian2:dense", "torch:trajectory", "torch:steady"]


def circuit() -> Circuit:
    """One cell with a potential (V) and a rate (Hz) that depend on nothing but constant inputs; weights grow steadily."""
    cell = Cell(
        "leaky",
        """
        dv/dt = (-v + R*I)/tau_v : volt
        df/dt = (-f + drive)/tau_f : Hz
        r = f*tau_f : 1
        I : amp (port)
        drive : Hz (port)
        """,
        parameters={"R": "100*Mohm", "tau_v": "20*ms", "tau_f": "50*ms"},
        initial=BEGIN,
    )
    grow = PlasticityRule("grow", "dw/dt = r_pre*a/T", {"a": f"{MOVED['W']!r}*amp", "T": "20*ms"})
    rise = PlasticityRule("rise", "dw/dt = r_pre*a/T", {"a": f"{MOVED['D']!r}*Hz", "T": "20*ms"})
    return Circuit(
        "physical",
        [
            Population("inp", 1, SOURCE),
            Population("cell", 1, cell),
            Projection("W", "inp", "cell.I", Constant(CURRENT), grow),
            Projection("D", "inp", "cell.drive", Constant(RATE), rise),
        ],
        Protocol(
            tuple(
                Phase(name, f"{count}*ms", plastic=("grow", "rise") if name == "learn" else ())
                for name, count in COUNTS.items()
            ),
            clamps={"inp.r": "image"},
        ),
    )


def euler(tau: float, target: float, begin: float) -> np.ndarray:
    """The state at the times of all rows, with constant input."""
    return target + (begin - target) * (1 - STEP / tau) ** np.arange(sum(COUNTS.values()))


@pytest.fixture(scope="module")
def compared() -> Comparison:
    """The torch level changed by known amounts: W by a third of its move, v by 1 % of its largest value (weights on)."""
    real = runs.simulate

    def changed(*arguments, **settings):
        result = real(*arguments, **settings)
        if settings["level"] == "torch:trajectory" and settings["plasticity"] == "on":
            result.weights["W"] = result.weights["W"] + MOVED["W"] / 3
            result.traces.values["cell.v"] = result.traces["cell.v"] * 1.01
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "simulate", changed)
        return neurosim.compare(circuit(), np.ones((1, 1)), levels=LEVELS, dt="1*ms", progress=False)


def table(text: str, first: str) -> list[dict[str, str]]:
    """The rows of the table whose first column and second column are so headed."""
    lines = text.splitlines()
    at = next(k for k, line in enumerate(lines) if line.startswith(first))
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in lines[at:]]
    stop = next((k for k, line in enumerate(lines[at:]) if not line.startswith("|")), len(cells))
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:stop]]


def parts(pattern: str, text: str) -> tuple[str, ...]:
    """The groups of a cell of a table."""
    match = re.fullmatch(pattern, text)
    assert match, text
    return match.groups()


def test_weights_are_measured_by_their_own_move_and_unit(compared):
    W, D = table(compared.markdown(), "| weights |")
    assert (W["weights"], W["unit"], W["moved by at most"]) == ("W", "A", "1.20e-10")
    assert (D["weights"], D["unit"], D["moved by at most"]) == ("D", "Hz", "3.00e+00")
    assert W["brian2:dense / torch:trajectory"] == "4.00e-11 (33 %)"
    assert re.fullmatch(r"\d\.\d\de[+-]\d\d \(< 1e-9 %\)", D["brian2:dense / torch:trajectory"])
    assert "torch:trajectory / torch:steady" not in W  # the first level against each other one
    assert compared.report["units"] == {"cell.v": "volt", "cell.f": "hertz", "W": "amp", "D": "hertz"}


def test_states_are_measured_by_their_own_largest_value_and_unit(compared):
    v, f = table(compared.markdown(), "| state |")
    largest = {}
    for name, tau, target, moved in (
        ("v", TAU_V, RESISTANCE * CURRENT, RESISTANCE * MOVED["W"]),
        ("f", TAU_F, RATE, MOVED["D"]),
    ):
        state = BEGIN[name]
        for step in range(
            sum(COUNTS.values()) - 1
        ):  # while learning, each step adds a twentieth of the move to the weight
            state += STEP / tau * (target + moved * max(step - COUNTS["rest"], 0) / COUNTS["learn"] - state)
        largest[name] = state
    assert (v["state"], v["unit"], f["state"], f["unit"]) == ("cell.v", "V", "cell.f", "Hz")
    assert float(v["largest value"]) == pytest.approx(largest["v"], rel=0.005)
    assert float(f["largest value"]) == pytest.approx(largest["f"], rel=0.005)
    found, share = parts(r"(\S+) \((\S+) %\)", v["brian2:dense / torch:trajectory"])
    assert share == "1" and float(found) == pytest.approx(0.01 * float(v["largest value"]), rel=0.01)
    assert re.fullmatch(r"\S+ \(< 1e-9 %\)", f["brian2:dense / torch:trajectory"])
    assert "brian2:dense / torch:steady (phase ends)" in v
    gap = compared.report["pairs"][1]["by_variable"]["cell.f"]
    found, share = parts(r"(\S+) \((\S+) %\)", f["brian2:dense / torch:steady (phase ends)"])
    assert float(found) == pytest.approx(gap, rel=0.01)
    assert float(share) == pytest.approx(100 * gap / float(f["largest value"]), rel=0.06)


def test_settling_names_the_variable_of_each_unit(compared):
    """With weights held both states are geometric series."""
    rows = table(compared.markdown(), "| level | unit |")
    assert [(row["level"], row["unit"]) for row in rows] == [
        *((level, unit) for level in LEVELS[:2] for unit in ("V", "Hz")), ("torch:steady", "mixed"),
    ]  # fmt: skip
    series = {"cell.v": euler(TAU_V, RESISTANCE * CURRENT, BEGIN["v"]), "cell.f": euler(TAU_F, RATE, BEGIN["f"])}
    for row, (name, values) in zip(rows, [*series.items()] * 2, strict=False):
        begin = 0
        for phase, count in COUNTS.items():
            last = begin + count - 1
            moved = values[last] - values[last - count // 10]
            number, variable, share = parts(r"(\S+) \((\S+), (\S+) %\)", row[f"settling: {phase}"])
            assert variable == name
            assert float(number) == pytest.approx(moved, rel=0.01)
            assert float(share) == pytest.approx(100 * moved / (values[-1] - values[0]), rel=0.06)
            begin += count
    assert re.fullmatch(r"\d\.\d\de[+-]\d\d", rows[-1]["settling: rest"])


def test_mixed_units_are_named_in_the_first_table(compared):
    header = next(line for line in compared.markdown().splitlines() if line.startswith("| levels |"))
    assert header == "| levels | largest difference of states (mixed units) | of weights (mixed units) |"


@pytest.mark.parametrize("name", ["ghost", "windows"])
def test_settling_by_variable_is_that_of_the_engines(name):
    """The largest of all variables is what the engine says itself, of batches and of windows over labels too."""
    rng = np.random.default_rng(0)
    if name == "ghost":
        net = ghost_units.circuit((6, 5, 4), t_free="30*ms", t_nudged="30*ms")
    else:
        net = counter_current.circuit(sizes=(6, 5, 4), settle=5.0)
    report = neurosim.compare(
        net,
        rng.uniform(size=(4, 6)),
        np.array([0, 1, 2, 3]),
        levels=LEVELS[:2],
        batch_size=2,
        dt="1*ms",
        progress=False,
    )
    for level in LEVELS[:2]:
        found = report.report["settling_by_variable"][level]
        assert {phase: max(values.values()) for phase, values in found.items()} == report.report["settling"][level]
    assert "(mixed units)" not in report.markdown()
    shown = table(report.markdown(), "| level | unit |")
    assert {row["unit"] for row in shown} == {"1"}
    for row in shown:  # the state that is named is the one that moved so far
        for phase, changes in report.report["settling_by_variable"][row["level"]].items():
            if f"settling: {phase}" in row:  # not one of several windows
                number, variable, _ = parts(r"(\S+) \((\S+), ([^%]+) %\)", row[f"settling: {phase}"])
                assert (
                    changes[variable] == pytest.approx(max(changes.values())) == pytest.approx(float(number), rel=0.01)
                )
    if name == "windows":
        assert {"settling: settle[k]", "settling: learn[k]"} < set(shown[0])


def test_nothing_plastic_and_nothing_moved():
    still = Circuit(
        "still", Fragment(circuit().populations, tuple(Projection(q.name, q.source, q.target, q.weights, connectivity=q.connectivity) for q in circuit().projections)),
        Protocol((Phase("rest", "20*ms"),), clamps={"inp.r": "image"}),
    )  # fmt: skip
    text = neurosim.compare(still, np.ones((1, 1)), levels=LEVELS[:2], dt="1*ms", progress=False).markdown()
    assert "\nNothing is plastic.\n" in text
    text = neurosim.compare(
        circuit(), np.ones((1, 1)), levels=LEVELS[:2], dt="1*ms", plasticity="off", progress=False
    ).markdown()
    assert "\nNo weight moved.\n" in text and "| weights |" not in text


def by_hand(gaps: dict[str, float], largest: dict[str, float], moved: dict[str, float] | None = None) -> str:
    """The report of two levels whose states differ so, and moved so at the end of the phase `rest`."""
    moved = moved or dict.fromkeys(gaps, 0.0)
    report = {
        "model": "hand", "data": "", "seed": 0, "samples": 1, "batch_size": 1, "steps": 10, "dt": 1e-3, "dtype": "float64",
        "levels": LEVELS[:2], "weight_change": {}, "largest_value": largest, "units": dict.fromkeys(gaps, "volt"),
        "pairs": [{
            "a": LEVELS[0], "b": LEVELS[1], "max_abs_state": max(gaps.values()), "max_abs_weight": 0.0, "spike_times": None,
            "by_variable": gaps, "by_projection": {},
        }],
        "settling": {level: {"rest": 0.0} for level in LEVELS[:2]},
        "settling_by_variable": {level: {"rest": moved} for level in LEVELS[:2]},
        "range": {level: largest for level in LEVELS[:2]},
        "order": dict.fromkeys(LEVELS[:2]), "update_cosine": {level: {} for level in LEVELS[:2]},
    }  # fmt: skip
    return Comparison(report).markdown()


@pytest.mark.parametrize(
    ("gap", "largest", "text"),
    [
        (3.9e-11, 1.2e-10, "3.90e-11 (32 %)"),
        (1e-15, 0.07, "1.00e-15 (< 1e-9 %)"),
        (0.0, 0.07, "0.00e+00 (< 1e-9 %)"),
        (1e-6, 1.0, "1.00e-06 (0.0001 %)"),
        (2e-10, 1.0, "2.00e-10 (2e-08 %)"),
        (0.3, 0.1, "3.00e-01 (300 %)"),
        (0.996, 1.0, "9.96e-01 (100 %)"),
        (0.3, 0.0, "3.00e-01 (of 0)"),
        (0.0, 0.0, "0.00e+00 (< 1e-9 %)"),
        (0.5, 1e-9, "5.00e-01 (5e+10 %)"),
    ],
)
def test_shares_read_well(gap, largest, text):
    (row,) = table(by_hand({"p.v": gap}, {"p.v": largest}), "| state |")
    assert row["brian2:dense / torch:trajectory"] == text


def test_of_many_states_the_largest_shares_are_kept():
    """The share, not the difference, chooses; the order stays that of the circuit; the rest is counted."""
    largest = {f"p{k}.v": 10.0 ** (k % 4) for k in range(15)}
    share = {name: (k * 7 % 15) + 1 for k, name in enumerate(largest)}  # each of 1 to 15 % once
    text = by_hand({name: largest[name] * share[name] / 100 for name in largest}, largest)
    rows = table(text, "| state |")
    assert [row["state"] for row in rows] == [name for name in largest if share[name] > 3]
    assert "\n3 more states with smaller shares: `by_variable` in report.json.\n" in text
    twelve = dict(list(largest.items())[:12])
    assert len(table(by_hand(twelve, twelve), "| state |")) == 12
    assert "more state" not in by_hand(twelve, twelve)


def test_settling_names_the_state_that_moved_most():
    """By what it moved, not by its share; of equal ones, but for round-off, the first."""
    names = ["p.v", "q.v", "r.v", "s.v"]
    largest = dict(zip(names, (0.01, 0.5, 0.5, 0.001), strict=True))
    moved = dict(zip(names, (0.009, 0.1, 0.1 * (1 + 1e-12), 0.001), strict=True))
    for row in table(by_hand(dict.fromkeys(names, 0.0), largest, moved), "| level | unit |"):
        assert (row["unit"], row["settling: rest"]) == ("V", "1.00e-01 (q.v, 20 %)")


def test_save_makes_its_folder(compared, tmp_path):
    paths = compared.save(tmp_path / "runs" / "deep")
    assert [path.name for path in paths] == ["report.md", "report.json", "traces.png"]
    assert paths[0].read_text() == compared.markdown()
    assert json.loads(paths[1].read_text()) == compared.report
    assert compared.save(tmp_path / "runs" / "deep") == paths  # again, into what is there


def test_no_level_is_refused():
    """An empty list is no wish for all of them."""
    circuit = ghost_units.circuit(sizes=(4, 3, 2, 2))
    with pytest.raises(NeurosimError, match="Got no level to compare; expected at least one of: brian2:equations"):
        neurosim.compare(circuit, np.zeros((1, 4)), [0], levels=[])
