"""What a `Recorder` keeps, on every level, in memory and in a file, also when the run ends early.

Oracles: the closed form of explicit Euler on leaky cells, v_k = I (1 - (1 - dt/tau)^k); spike times from it; a whole recording in memory, indexed by NumPy;
runs of one trial at a time; undisturbed runs.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

import neurosim
from neurosim import SOURCE, Cell, Circuit, Given, OneToOne, Phase, Population, Projection, Protocol, Recorder, Traces
from neurosim.cli import main
from neurosim.errors import DivergenceError, NeurosimError
from neurosim.models import bac_firing, counter_current, ghost_units
from neurosim.traces import recording as recording_module
from neurosim.traces.layout import FORMAT
from neurosim.traces.recording import Recording
from neurosim.traces.stored import Stored
from neurosim.training import Trainer, checkpoint, resume, train, trainer

EQUATIONS, DENSE, TRAJECTORY, STEADY = "brian2:equations", "brian2:dense", "torch:trajectory", "torch:steady"
EULER = (EQUATIONS, DENSE, TRAJECTORY)
LEVELS = (*EULER, STEADY)
DT, TAU, N = 1e-3, 10e-3, 5
STEPS = {"rise": 20, "hold": 13}
CURRENTS = np.array(
    [[1.0, -2.0, 0.5, 3.0, 0.0], [0.3, 1.5, -1.0, 2.0, 4.0], [2.5, -0.5, 1.0, 0.0, -3.0], [1.0, 2.0, 3.0, 4.0, 5.0]]
)

LEAKY = Cell("leaky", "du/dt = (I - u)/tau : 1\n r = 2*u : 1\n I : 1 (port)\n", rate="r", parameters={"tau": "10*ms"})


def relaxation(n: int = N, names: tuple[str, str] = ("inp", "c"), steps: dict[str, int] = STEPS) -> Circuit:
    """Leaky cells, each under the current that is its pixel."""
    return Circuit(
        "relaxation", [Population(names[0], n, SOURCE), Population(names[1], n, LEAKY),
         Projection("W", names[0], f"{names[1]}.I", Given(np.eye(n)))],
        Protocol(tuple(Phase(p, f"{k}*ms") for p, k in steps.items()), {f"{names[0]}.r": "image"}, dt="1*ms"),
    )  # fmt: skip


def simulate(circuit: Circuit, *data: Any, **options: Any) -> Any:
    return neurosim.simulate(circuit, *data, **{"progress": False, **options})


def relaxed(steps: np.ndarray) -> np.ndarray:
    """v_k / I of explicit Euler."""
    return 1.0 - (1.0 - DT / TAU) ** steps


def batch_on(level: str, batch: int) -> int:
    return 1 if level == EQUATIONS else batch


def same(a: Traces, b: Traces) -> None:
    """Bit for bit."""
    assert np.array_equal(a.time, b.time)
    assert (
        a.values.keys() == b.values.keys()
        and a.weights.keys() == b.weights.keys()
        and a.spikes.keys() == b.spikes.keys()
    )
    for mine, theirs in ((a.values, b.values), (a.weights, b.weights)):
        for name in mine:
            assert mine[name].dtype == theirs[name].dtype and mine[name].shape == theirs[name].shape, name
            assert np.array_equal(np.asarray(mine[name]), np.asarray(theirs[name])), name
    assert np.array_equal(a.weight_trials, b.weight_trials)
    assert list(a.phases) == list(b.phases) and dict(a.units) == dict(b.units)
    for name in a.spikes:
        for what in ("time", "sample", "cell"):
            assert np.array_equal(getattr(a.spikes[name], what), getattr(b.spikes[name], what)), (name, what)
    assert {p: list(c) for p, c in a.cells.items()} == {p: list(c) for p, c in b.cells.items()}


# ------------------------------------------------------------------ closed form

CHOICES: dict[str, dict[str, Any]] = {
    "all": {},
    "stride": {"stride": 7},
    "cells": {"cells": {"c": [3, 0]}},
    "phase": {"phases": ["hold"], "stride": 3},
    "trials": {"trials": 2, "stride": 4},
    "everything": {"cells": {"c": [4]}, "phases": ["rise"], "trials": 3, "stride": 5},
}


def wanted_rows(choice: dict[str, Any], trials: int) -> list[tuple[int, int, int]]:
    """(step of the run, trial, step of the trial) of each row."""
    per = sum(STEPS.values())
    phase_of = [name for name, count in STEPS.items() for _ in range(count)]
    return [
        (g, g // per, g % per)
        for g in range(trials * per)
        if g % choice.get("stride", 1) == 0
        and (g // per) % choice.get("trials", 1) == 0
        and phase_of[g % per] in choice.get("phases", STEPS)
    ]


@pytest.mark.parametrize(
    ("level", "choice"),
    [
        pytest.param(level, choice, marks=[pytest.mark.slow] * (level == EQUATIONS and choice != "everything"))
        for level in EULER
        for choice in CHOICES
    ],
)
def test_relaxation_at_the_chosen_steps(tmp_path, level, choice):
    batch, chosen = batch_on(level, 2), CHOICES[choice]
    result = simulate(
        relaxation(), CURRENTS, level=level, batch_size=batch,
        record=Recorder(["c.u", "c.r", "c.I", "inp.r"], **chosen, path=tmp_path / "t.h5"),
    )  # fmt: skip
    traces, cells = result.traces, chosen.get("cells", {}).get("c", list(range(N)))
    rows = wanted_rows(chosen, len(CURRENTS) // batch)
    assert np.array_equal(traces.time, [g * DT for g, _, _ in rows])  # exact: whole steps, never summed
    current = np.array([CURRENTS[k * batch : (k + 1) * batch] for _, k, _ in rows])
    share = relaxed(np.array([k for *_, k in rows]))[:, None, None]
    for name, factor in (("c.u", 1.0), ("c.r", 2.0)):
        assert traces[name].shape == (len(rows), batch, len(cells))
        np.testing.assert_allclose(traces[name][:], factor * (current * share)[..., cells], rtol=0, atol=1e-13)
    assert np.array_equal(np.asarray(traces["c.I"]), current[..., cells])
    assert np.array_equal(np.asarray(traces["inp.r"]), current)
    spans = [
        (name, k, (k * 33 + first) * DT, (k * 33 + first + STEPS[name]) * DT)
        for k in range(0, len(CURRENTS) // batch, chosen.get("trials", 1))
        for name, first in (("rise", 0), ("hold", 20))
        if name in chosen.get("phases", STEPS)
    ]
    assert [(p.name, p.trial, p.start, p.stop) for p in traces.phases] == spans
    assert np.array_equal(traces.cells_of("c"), cells)
    assert traces.units == {"c.u": "1", "c.r": "1", "c.I": "1", "inp.r": "1"}
    assert traces.metadata["level"] == level and traces.metadata["model"] == "relaxation"
    traces.close()


@pytest.mark.parametrize("choice", CHOICES)
def test_steady_level_has_a_row_at_the_end_of_each_chosen_phase(choice):
    chosen = CHOICES[choice]
    traces = simulate(
        relaxation(), CURRENTS, level=STEADY, batch_size=1, record=Recorder(["c.u"], **chosen)
    ).traces  # fmt: skip
    ends = [
        (k, k * 33 + last)
        for k in range(0, len(CURRENTS), chosen.get("trials", 1))
        for name, last in (("rise", 19), ("hold", 32))
        if name in chosen.get("phases", STEPS)
    ]
    assert np.array_equal(traces.time, [step * DT for _, step in ends])
    cells = chosen.get("cells", {}).get("c", list(range(N)))
    np.testing.assert_allclose(traces["c.u"][:, 0], CURRENTS[[k for k, _ in ends]][:, cells], rtol=0, atol=1e-9)
    assert [p.trial for p in traces.phases] == [k for k, _ in ends]


@pytest.mark.parametrize("level", (DENSE, TRAJECTORY))
def test_spikes_have_a_selection_of_their_own(tmp_path, level):
    """Chosen cells, phases, trials and rows of variables leave the spikes as they are; `spikes` chooses them.

    A cell spikes in each n-th step, n the first with I (1 - (1 - dt/tau)^n) > theta, and its potential begins at 0 again."""
    cell = Cell("lif", "dv/dt = (I - v)/tau : 1\n I : 1 (port)\n", rate="spike_train", threshold="v > 1", reset="v = 0", parameters={"tau": "10*ms"})  # fmt: skip
    circuit = Circuit(
        "lif", [Population("inp", 3, SOURCE), Population("p", 3, cell), Projection("W", "inp", "p.I", connectivity=OneToOne())],
        Protocol((Phase("one", "50*ms"), Phase("two", "70*ms")), {"inp.r": "image"}, dt="1*ms"),
    )  # fmt: skip
    weights = {"W": np.ones(3)}
    currents = np.array([[0.9, 1.7, 4.0], [2.2, 1.2, 3.1]])
    every = [
        (trial * 120 + k, trial, cell)
        for trial in (0, 1) for cell in (0, 1, 2) for k in range(120)
        if currents[trial, cell] > 1
        and (k + 1) % next(n for n in range(1, 200) if currents[trial, cell] * relaxed(np.array(n)) > 1) == 0
    ]  # fmt: skip
    assert len(every) > 40
    for path, spikes, cells in (
        (None, {}, (0, 1, 2)),
        (tmp_path / "all.h5", {}, (0, 1, 2)),
        (None, {"p": [2, 0]}, (0, 2)),
        (tmp_path / "two.h5", {"p": [2, 0]}, (0, 2)),
        (tmp_path / "none.h5", {"p": []}, ()),
    ):
        wanted = [spike for spike in every if spike[2] in cells]
        recorder = Recorder(["p.v"], cells={"p": [1]}, phases=["two"], trials=2, stride=7, path=path, spikes=spikes)
        result = simulate(circuit, currents, level=level, weights=weights, record=recorder)
        traces = result.traces
        assert traces["p.v"].shape[-1] == 1 and {span.name for span in traces.phases} == {"two"}
        assert sorted(traces.spike_cells.get("p", [])) == sorted(cells)
        assert traces.spike_span == pytest.approx((0.0, 0.24))
        spikes = result.spikes["p"]
        found = sorted(zip(np.round(spikes.time / DT).astype(int), spikes.sample, spikes.cell, strict=True))
        assert found == sorted(wanted)
        assert np.abs(spikes.time - np.round(spikes.time / DT) * DT).max(initial=0.0) < 1e-12


# ------------------------------------------------------------------ a choice is an index into the whole

GHOST = {"sizes": (6, 4, 3), "mode": "learned", "t_free": "20*ms", "t_nudged": "25*ms", "t_learn": "10*ms", "eta": 5.0}
RNG = np.random.default_rng(1)
IMAGES, LABELS = RNG.uniform(size=(4, 6)), np.array([0, 2, 1, 1])
NAMES = ["pyr1.u", "pyr1.r", "pyr1.E", "pyr2.u", "ghost1.u"]


def ghosts(level: str, **options: Any) -> Any:
    circuit = ghost_units.circuit(**GHOST)
    return simulate(circuit, IMAGES, LABELS, level=level, batch_size=batch_on(level, 2), dt="1*ms", **options)


def ghost_names() -> list[str]:
    populations = ghost_units.circuit(**GHOST).plan.populations
    return [f"{p.name}.{v}" for p in populations.values() for v in (*p.ode, *p.subexpressions, *p.ports)]


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    """Every variable in every step of each level, in memory."""
    return {level: ghosts(level, record=ghost_names()) for level in LEVELS}


@pytest.mark.parametrize("level", LEVELS)
def test_a_choice_is_the_whole_recording_indexed(tmp_path, whole, level):
    everything, rnd = whole[level].traces, random.Random(3)
    populations = {name.partition(".")[0]: v.shape[-1] for name, v in everything.values.items()}
    bases = list(dict.fromkeys(p.name for p in everything.phases))
    for k in range(1 if level in (EQUATIONS, DENSE) else 3):
        names = rnd.sample(list(everything.values), 4)
        used = sorted({n.partition(".")[0] for n in names})
        cells = {p: rnd.sample(range(populations[p]), rnd.randint(1, populations[p])) for p in used[:2]}
        stride, trials, phases = rnd.choice((1, 3, 11)), rnd.choice((1, 2)), rnd.sample(bases, rnd.randint(1, 2))
        path = tmp_path / f"{k}.h5"
        recorder = Recorder(names, cells=cells, stride=stride, trials=trials, phases=phases, path=path)
        part = ghosts(level, record=recorder).traces
        spans = [p for p in everything.phases if p.name in phases and p.trial % trials == 0]
        step = np.round(everything.time / DT).astype(int)
        rows = [
            r for r in range(len(step))
            if (level == STEADY or step[r] % stride == 0)
            and any(p.start - DT / 2 < everything.time[r] < p.stop - DT / 2 for p in spans)
        ]  # fmt: skip
        assert np.array_equal(part.time, everything.time[rows])
        assert list(part.phases) == spans
        for name in names:
            columns = cells.get(name.partition(".")[0], slice(None))
            assert np.array_equal(np.asarray(part[name]), everything[name][rows][..., columns]), name
        part.close()


@pytest.mark.parametrize("level", (DENSE, TRAJECTORY))
def test_levels_record_the_same(whole, level):
    """Brian2's equations run one sample at a time, so the others do too."""
    circuit = ghost_units.circuit(**GHOST)
    recorder = Recorder([*NAMES, "W1", "W2"], cells={"pyr1": [3, 1]}, stride=2)
    one = simulate(circuit, IMAGES, LABELS, level=level, dt="1*ms", record=recorder).traces
    assert np.array_equal(one.time, whole[EQUATIONS].traces.time[::2])
    for name in NAMES:
        other = whole[EQUATIONS].traces[name][::2]
        np.testing.assert_allclose(
            one[name], other[..., [3, 1]] if name.startswith("pyr1") else other, rtol=0, atol=1e-12
        )
    assert [(p.name, p.trial, p.start, p.stop) for p in one.phases] == [
        (p.name, p.trial, p.start, p.stop) for p in whole[EQUATIONS].traces.phases
    ]


def test_recording_does_not_change_the_run(whole):
    for level in LEVELS:
        plain = ghosts(level)
        assert plain.traces is None
        for name, weights in plain.weights.items():
            assert np.array_equal(weights, whole[level].weights[name]), (level, name)


@pytest.mark.parametrize("level", (DENSE, TRAJECTORY, STEADY))
def test_file_and_memory_hold_the_same(tmp_path, level):
    choice: dict[str, Any] = {
        "variables": [*NAMES, "W1", "W2"],
        "cells": {"pyr1": [0, 1]},
        "phases": ["free", "nudged"],
        "stride": 3,
    }
    memory = ghosts(level, record=Recorder(**choice)).traces
    with ghosts(level, record=Recorder(**choice, path=tmp_path / "t.h5")).traces as stored:
        same(stored, memory)
        assert stored.metadata == memory.metadata
        memory.save(tmp_path / "saved.h5")
        with Traces.load(tmp_path / "saved.h5") as again:
            same(again, memory)
        stored.select(["pyr1.u", "W2"], phases=["free"]).save(tmp_path / "part.h5")
        with Traces.load(tmp_path / "part.h5") as part:
            same(part, memory.select(["pyr1.u", "W2"], phases=["free"]))
    for what in (memory, stored):  # a choice of the first cells is a choice too
        assert {p: list(c) for p, c in what.cells.items()} == {"pyr1": [0, 1]}


def test_order_of_variables_is_kept(tmp_path):
    """Pictures follow it."""
    names = ["pyr2.u", "pyr1.u", "pyr1.E", "ghost1.u", "W2", "W1"]
    with ghosts(TRAJECTORY, record=Recorder(names, path=tmp_path / "t.h5")).traces as traces:
        assert [*traces.values, *traces.weights] == names
        with Traces.load(traces.save(tmp_path / "saved.h5")) as saved:
            assert [*saved.values, *saved.weights] == names


def test_float32_stays_float32(tmp_path):
    circuit = ghost_units.circuit(**GHOST)
    result = simulate(
        circuit,
        IMAGES,
        LABELS,
        level=TRAJECTORY,
        dtype="float32",
        record=Recorder(["pyr1.u", "W1"], path=tmp_path / "t.h5"),
    )
    with result.traces as traces:
        assert traces["pyr1.u"].dtype == traces.weights["W1"].dtype == np.float32
        assert np.array_equal(traces.weights["W1"][-1], result.weights["W1"])


def test_a_population_of_20000_cells(tmp_path):
    """The numbers of its cells take more than an HDF5 attribute ordinarily holds."""
    small, cells = relaxation(steps={"rise": 3}), np.arange(0, 20_000, 2)
    image = np.random.default_rng(0).normal(size=(1, 20_000))
    circuit = Circuit(
        "large", [Population("inp", 20_000, SOURCE), Population("c", 20_000, LEAKY), Projection("W", "inp", "c.I", connectivity=OneToOne())],
        small.protocol,
    )  # fmt: skip
    recorder = Recorder(["c.u", "inp.r"], cells={"c": cells}, path=tmp_path / "t.h5")  # type: ignore[arg-type]
    with simulate(circuit, image, level=TRAJECTORY, weights={"W": np.ones(20_000)}, record=recorder).traces as traces:
        assert np.array_equal(traces.cells_of("c"), cells) and len(traces.cells_of("inp")) == 20_000
        wanted = relaxed(np.arange(3))[:, None] * image[0, cells]
        np.testing.assert_allclose(traces["c.u"][:, 0], wanted, rtol=0, atol=1e-14)


# ------------------------------------------------------------------ the steady level


def test_steady_rows_are_the_ends_of_phases_at_their_last_step(whole):
    steady, moving = whole[STEADY], whole[TRAJECTORY].traces
    phases = [p.name for p in moving.phases if p.trial == 0]
    last = {(p.name, p.trial): moving.time[moving.time < p.stop - DT / 2][-1] for p in moving.phases}
    assert np.array_equal(steady.traces.time, [last[p.name, p.trial] for p in steady.traces.phases])
    assert list(steady.traces.phases) == list(moving.phases)
    checked = 0
    for k, phase in enumerate(phases):
        for name, ends in steady.ends[phase].items():
            if name in steady.traces.values:
                rows = steady.traces[name][k :: len(phases)]  # (trials, batch, cells)
                assert np.array_equal(rows.reshape(-1, rows.shape[-1]), ends), (phase, name)
                checked += 1
    assert checked >= 3 * len(NAMES)


def test_label_windows_follow_one_another_on_the_steady_level():
    """They run at once there; recorded they stand in the order of time, as on the trajectory level."""
    circuit = counter_current.circuit(sizes=(6, 5, 4, 3))
    names = [f"{p.name}.{x}" for p in circuit.plan.populations.values() for x in (*p.ode, *p.ports)][:6]
    runs = {
        level: simulate(circuit, IMAGES, LABELS, level=level, batch_size=2, plasticity="off", record=Recorder(names))
        for level in (TRAJECTORY, STEADY)
    }
    steady, moving = runs[STEADY].traces, runs[TRAJECTORY].traces
    order = [p.name for p in moving.phases if p.trial == 0]
    assert order == [f"{base}[{k}]" for k in range(3) for base in dict.fromkeys(n.partition("[")[0] for n in order)]
    assert list(steady.phases) == list(moving.phases)
    ends = [moving.select(phases=[p.name], trials=[p.trial]).time[-1] for p in moving.phases]
    assert np.array_equal(steady.time, ends)
    different = 0
    for row, phase in enumerate(steady.phases):
        for name in names:
            wanted = runs[STEADY].ends[phase.name][name].reshape(2, 2, -1)[phase.trial]
            assert np.array_equal(steady[name][row], wanted)
            different += not np.array_equal(steady[name][row], steady[name][0])
    assert different
    base = order[0].partition("[")[0]
    chosen = simulate(
        circuit, IMAGES, LABELS, level=STEADY, batch_size=2, plasticity="off", record=Recorder(names, phases=[base])
    ).traces
    assert [p.name for p in chosen.phases] == [f"{base}[{k}]" for k in range(3)] * 2
    rows = [r for r, p in enumerate(steady.phases) if p.name.startswith(base)]
    for name in names:
        assert np.array_equal(chosen[name], steady[name][rows])
    one = chosen.select(phases=[f"{base}[1]"])
    assert np.array_equal(one[names[0]], chosen[names[0]][1::3])
    same(chosen.select(phases=[base]), chosen)


# ------------------------------------------------------------------ weights


@pytest.mark.parametrize(
    "level", [*(pytest.param(k, marks=pytest.mark.slow) for k in (EQUATIONS, DENSE)), TRAJECTORY, STEADY]
)
def test_weights_are_those_of_runs_of_one_trial_at_a_time(level):
    circuit = ghost_units.circuit(**GHOST)
    recorder = Recorder(["W1", "W2", "pyr1.u"], trials=2)
    traces = simulate(circuit, IMAGES, LABELS, level=level, dt="1*ms", record=recorder).traces
    weights, after = circuit.initial_weights(0), []
    for k in range(3 if level == EQUATIONS else 4):
        after.append(weights)
        one = (IMAGES[k : k + 1], LABELS[k : k + 1])
        weights = simulate(circuit, *one, level=level, dt="1*ms", weights=weights).weights
    after.append(weights)
    assert list(traces.weight_trials) == [0, 2, 4]
    for name in ("W1", "W2"):
        assert not np.array_equal(after[0][name], after[2][name])
        for snapshot, trial in enumerate((0, 2) if level == EQUATIONS else (0, 2, 4)):
            np.testing.assert_allclose(traces.weights[name][snapshot], after[trial][name], rtol=0, atol=1e-13)


def test_weights_alone(tmp_path):
    result = ghosts(TRAJECTORY, record=Recorder(["W1"], path=tmp_path / "w.h5"))
    with result.traces as traces:
        assert list(traces.values) == [] and len(traces.time) == 0
        assert np.array_equal(traces.weights["W1"][-1], result.weights["W1"])
        assert list(traces.select(["W1"], trials=[1]).weight_trials) == [1]


# ------------------------------------------------------------------ arrays in a file


def keys(rnd: random.Random, shape: tuple[int, ...]) -> Any:
    """A random index: whole numbers, slices, at most one array or mask (NumPy pairs several), an Ellipsis."""

    def axis(n: int, arrays: bool) -> Any:
        kind = rnd.randrange(6 if arrays else 3)
        if kind == 0 and n:
            return rnd.randrange(-n, n)
        if kind == 3 and n:
            return np.array([rnd.randrange(-n, n) for _ in range(rnd.randrange(5))], dtype=int)
        if kind == 4 and n:
            return [rnd.randrange(-n, n) for _ in range(rnd.randrange(1, 5))]
        if kind == 5:
            return np.array([rnd.random() < 0.5 for _ in range(n)], dtype=bool)
        ends = [None, *range(-n - 1, n + 2)]
        return slice(rnd.choice(ends), rnd.choice(ends), rnd.choice([None, 1, 2, 3, -1, -2]))

    array = rnd.randrange(-1, len(shape))
    full = [axis(n, k == array) for k, n in enumerate(shape)]
    first = rnd.randrange(len(shape) + 1)
    if rnd.random() < 0.4:
        last = rnd.randrange(first, len(shape) + 1)
        return (*full[:first], Ellipsis, *full[last:])
    return tuple(full[:first]) if first != 1 or rnd.random() < 0.5 else full[0]


@pytest.fixture
def stored() -> Iterator[Any]:
    """Makes a `Stored` of an array in a file that stays in memory."""
    with h5py.File("stored", "w", driver="core", backing_store=False) as file:

        def make(values: np.ndarray) -> Stored:
            name = f"x{len(file)}"
            return Stored(file.create_dataset(name, data=values, chunks=True), np.arange(len(values)))

        yield make


@pytest.mark.parametrize("axes", (1, 2, 3, 4))
def test_stored_arrays_are_indexed_like_numpys(stored, axes):
    rnd, checked = random.Random(axes), 0
    values = np.random.default_rng(axes).normal(size=(13, 4, 5, 3)[:axes])
    array, expected = stored(values), values
    for turn in range(800):
        if turn % 200 == 199 and axes in (2, 3):  # rows and columns of rows and columns
            rows = np.array(sorted(rnd.sample(range(len(expected)), max(1, len(expected) - 3))))
            columns = np.array(rnd.sample(range(expected.shape[-1]), max(1, expected.shape[-1] - 1)))
            array, expected = array.part(rows, columns), expected[rows][..., columns]
            assert array.shape == expected.shape and array.ndim == axes and len(array) == len(expected)
            assert np.array_equal(np.asarray(array), expected)
        key = keys(rnd, expected.shape)
        wanted = expected[key]
        parts = key if isinstance(key, tuple) else (key,)
        if any(isinstance(k, int) for k in parts) and any(isinstance(k, np.ndarray | list) for k in parts):
            continue  # NumPy moves the array's axis to the front if a slice lies between; see below
        found = array[key]
        assert np.shape(found) == wanted.shape and np.array_equal(found, wanted), key
        checked += 1
    assert checked > 500


def test_stored_arrays_take_masks_and_arrays_of_any_shape(stored):
    values = np.random.default_rng(0).normal(size=(13, 4, 5))
    array = stored(values)
    for key in (
        values > 0, values[..., 0] > 0, np.array([[0, 1], [-2, 3]]), (slice(None), np.array([[0, 1], [3, 3]])), None,
        (slice(2, 9), None), (np.array([1, 2]), np.array([0, 3])), (np.array([1, 2]), slice(None), np.array([0, 3])), (0, [1, 2]),
        (2, 3, -1), np.int64(-2), (Ellipsis, 0), (), Ellipsis, (5, Ellipsis, 4), ([0, 1], 2, slice(None)), np.zeros(13, bool),
    ):  # fmt: skip
        assert np.array_equal(array[key], values[key]), key
    for key in (13, -14, (0, 4), (0, 0, 5), (0, 0, 0, 0), [13], np.zeros(12, bool)):
        with pytest.raises(IndexError):
            array[key]
    assert np.asarray(array, dtype=np.float32).dtype == np.float32
    assert repr(array) == "<float64 array of (13, 4, 5) in a file>"


def test_values_are_read_when_they_are_indexed(tmp_path, monkeypatch):
    simulate(relaxation(), CURRENTS, level=TRAJECTORY, record=Recorder(["c.u"], path=tmp_path / "t.h5"))
    read, of = [], h5py.Dataset.__getitem__

    def counted(self: Any, key: Any, *more: Any) -> Any:
        found = of(self, key, *more)
        if self.name == "/c/u":
            read.append(np.size(found))
        return found

    monkeypatch.setattr(h5py.Dataset, "__getitem__", counted)
    with Traces.load(tmp_path / "t.h5") as traces:
        part = traces.select(cells={"c": [2]}, phases=["hold"], trials=[1, 3])
        assert part["c.u"].shape == (26, 1, 1) and not read
        np.testing.assert_allclose(part["c.u"][:13, 0, 0], CURRENTS[1, 2] * relaxed(np.arange(20, 33)), atol=1e-13)
        assert read == [13]


# ------------------------------------------------------------------ select

PARTS: list[dict[str, Any]] = [
    {"variables": ["pyr1.u", "pyr1.E", "ghost1.u"]}, {"populations": ["pyr1", "ghost1"]}, {"cells": {"pyr1": [3, 0]}}, {"time": (0.02, 0.131)},
    {"phases": ["nudged", "free"]}, {"trials": [1]},
]  # fmt: skip


@pytest.mark.parametrize("where", ("memory", "file"))
def test_select_equals_numpy(tmp_path, whole, where):
    everything = traces = whole[TRAJECTORY].traces
    if where == "file":
        everything.save(tmp_path / "t.h5")
        traces = Traces.load(tmp_path / "t.h5")
    step = np.round(everything.time / DT).astype(int)
    per = len(step) // 2
    found = traces.select(
        ["pyr1.u", "pyr1.E", "pyr2.u"], populations=["pyr1"], cells={"pyr1": [3, 1]}, time=(0.004, 0.072), phases=["nudged"], trials=[1]
    )  # fmt: skip
    (span,) = [p for p in everything.phases if p.name == "nudged" and p.trial == 1]
    rows = (step >= max(round(span.start / DT), 4)) & (step < min(round(span.stop / DT), 72)) & (step // per == 1)
    assert rows.any()
    assert found.values.keys() == found.units.keys() == {"pyr1.u", "pyr1.E"}
    assert np.array_equal(found.time, everything.time[rows])
    assert np.array_equal(found["pyr1.E"][...], everything["pyr1.E"][rows][..., [3, 1]])
    assert list(found.cells_of("pyr1")) == [3, 1]
    (cut,) = found.phases  # to the part that lies in the window of time
    assert (cut.name, cut.trial) == ("nudged", 1)
    assert (cut.start, cut.stop) == (max(span.start, 0.004), min(span.stop, 0.072))
    # one after another, in any order, as all at once
    for seed in range(6):
        rnd = random.Random(seed)
        chosen = rnd.sample(PARTS, 3)
        once, twice = traces.select(**{k: v for part in chosen for k, v in part.items()}), traces
        for part in chosen:
            twice = twice.select(**part)
        same(twice, once)
    # cells of a selection are named as in the circuit
    again = traces.select(cells={"pyr1": [3, 1, 2]}).select(cells={"pyr1": [2, 3]})
    assert np.array_equal(again["pyr1.u"][...], everything["pyr1.u"][..., [2, 3]])


def test_select_of_spikes_alone():
    traces = simulate(bac_firing.circuit(onset="10*ms", duration="60*ms"), level=DENSE, record=Recorder([])).traces
    spikes = traces.spikes["both"]
    assert len(spikes.time) > 1
    part = traces.select(cells={"both": [0]}, populations=["both"], time=(spikes.time[1], 1.0))
    assert list(part.spikes) == ["both"] and np.array_equal(part.spikes["both"].time, spikes.time[1:])


@pytest.mark.parametrize(
    ("selection", "text"),
    [
        ({"variables": ["c.v"]}, r"There is no recorded variable or projection 'c.v'. Did you mean 'c.u'\? Known: c.u, c.r."),
        ({"variables": "c.u"}, r"variables = 'c.u' is one text; wanted a list: \['c.u'\]."),
        ({"variables": []}, r"The selection is empty: variables = \[\], populations = None. Recorded: c.u, c.r."),
        ({"populations": ["d"]}, "There is no recorded population 'd'. Known: c."),
        ({"cells": {"c": [0, 1]}}, r"Cells \[1\] of 'c' were not recorded; the file has 2: 3, 0."),
        ({"cells": {"c": []}}, "No cell of 'c' is named; wanted at least one."),
        ({"cells": {"d": [0]}}, "There is no recorded population 'd'. Known: c."),
        ({"phases": ["rises"]}, r"There is no recorded phase 'rises'. Did you mean 'rise'\? Known: rise, hold."),
        ({"trials": [4]}, "Trial 4 was not recorded; recorded are 4 trials, 0 to 3."),
        ({"time": (5.0, 6.0)}, r"No row lies in the selection \(time = \(5.0, 6.0\).*the 132 rows run from 0 to 0.131 s."),
        ({"time": (0.02, 0.01)}, "No row lies in the selection"),
        ({"phases": ["hold"], "time": (0.0, 0.02)}, "No row lies in the selection"),
    ],
)  # fmt: skip
def test_select_refuses(selection, text):
    recorder = Recorder(["c.u", "c.r"], cells={"c": [3, 0]})
    traces = simulate(relaxation(), CURRENTS, level=TRAJECTORY, record=recorder).traces
    with pytest.raises(NeurosimError, match=text):
        traces.select(**selection)


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("choice", "text"),
    [
        ({"variables": "c.u"}, r"variables = 'c.u' is one text; wanted a list: \['c.u'\]."),
        ({"phases": "rise"}, r"phases = 'rise' is one text; wanted a list: \['rise'\]."),
        ({"stride": 0}, "stride = 0; wanted a whole number of at least 1."),
        ({"stride": 2.0}, "stride = 2.0; wanted a whole number of at least 1."),
        ({"trials": True}, "trials = True; wanted a whole number of at least 1."),
        ({"cells": [0, 1]}, r"cells = \[0, 1\]; wanted a table of populations: {'pyr1': \[0, 1\]}."),
        ({"variables": []}, "There is nothing to record: name variables such as 'population.variable', or projections"),
        ({"variables": ["d.u"]}, "There is no population 'd'. Known: inp, c."),
        ({"variables": ["c.w"]}, "There is no variable of population c 'w'. Known: u, "),
        ({"variables": ["V"]}, "There is no projection 'V' whose weights could be recorded. .*variables are named 'population.variable'."),
        ({"variables": ["u"]}, "There is no projection 'u' whose weights could be recorded. Or the variable c.u"),
        ({"variables": ["c"]}, "There is no projection 'c' whose weights could be recorded. Or the variable c.u"),
        ({"cells": {"d": [0]}}, "There is no recorded population 'd'."),
        ({"cells": {"inp": [0]}}, "There is no recorded population 'inp'. .*Known: c."),
        ({"cells": {"c": [0, 5]}}, r"cells of 'c' = \[0, 5\]; wanted whole numbers from 0 to 4."),
        ({"cells": {"c": [-1]}}, r"cells of 'c' = \[-1\]; wanted whole numbers from 0 to 4."),
        ({"cells": {"c": [0.5]}}, r"cells of 'c' = \[0.5\]; wanted whole numbers from 0 to 4."),
        ({"cells": {"c": []}}, r"cells of 'c' = \[\]; wanted a list of at least one number."),
        ({"cells": {"c": 3}}, "cells of 'c' = 3; wanted a list of at least one number."),
        ({"cells": {"c": [1, 1]}}, r"cells of 'c' = \[1, 1\]: one is named twice."),
        ({"phases": ["hold", "rest"]}, "There is no phase 'rest'."),
    ],
)  # fmt: skip
def test_recorders_refuse(tmp_path, capfd, choice, text):
    with pytest.raises(NeurosimError, match=text):
        simulate(relaxation(), CURRENTS, record=Recorder(**{"variables": ["c.u"], "path": tmp_path / "t.h5", **choice}))
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr().err == ""  # found before Brian2 builds what is then thrown away


def test_tied_weights_and_a_second_stride_are_refused():
    circuit = ghost_units.circuit(**{**GHOST, "mode": "exact"})
    tied = [q for q in circuit.plan.projections.values() if q.root != q.name]
    with pytest.raises(
        NeurosimError, match=f"The weights of '{tied[0].name}' are tied to those of '{tied[0].root}'; record those."
    ):
        simulate(circuit, IMAGES, LABELS, level=TRAJECTORY, record=[tied[0].name])
    with pytest.raises(
        NeurosimError, match=r"stride = 3 beside a Recorder, which has one of its own \(2\). Leave one out."
    ):
        simulate(relaxation(), CURRENTS, level=TRAJECTORY, stride=3, record=Recorder(["c.u"], stride=2))


@pytest.mark.parametrize("name", ("time", "phases", "spikes", "weights", "weight_trials"))
def test_populations_named_like_a_group_of_the_file(tmp_path, name):
    with pytest.raises(
        NeurosimError,
        match=f"(Population '{name}': files of traces use|A population called '{name}' cannot be recorded)",
    ):
        simulate(
            relaxation(names=("inp", name)),
            CURRENTS,
            level=TRAJECTORY,
            record=Recorder([f"{name}.u"], path=tmp_path / "t.h5"),
        )


def test_paths_that_cannot_be_written(tmp_path, capfd):
    (tmp_path / "folder").mkdir()
    (tmp_path / "text").write_text("")
    for path, text in (
        (
            tmp_path / "missing" / "t.h5",
            f"Cannot record to '{tmp_path}/missing/t.h5': there is no folder '{tmp_path}/missing'. Create it",
        ),
        (tmp_path / "text" / "t.h5", "Cannot record to .*: there is no folder"),
        (tmp_path / "folder", "Cannot record to "),
        (Path("/proc/t.h5"), "Cannot record to "),
    ):
        with pytest.raises(NeurosimError, match=text):
            simulate(relaxation(), CURRENTS, level=TRAJECTORY, record=Recorder(["c.u"], path=path))
    assert not list(tmp_path.glob("*.part")) and capfd.readouterr().err == ""


def test_long_names_of_phases_are_kept(tmp_path):
    name = "a_phase_" * 20
    traces = simulate(
        relaxation(steps={name: 5}), CURRENTS, level=TRAJECTORY, record=Recorder(["c.u"], path=tmp_path / "t.h5")
    ).traces
    with traces:
        assert {p.name for p in traces.phases} == {name}
        assert len(traces.select(phases=[name]).time) == 20


# ------------------------------------------------------------------ files that are wrong


@pytest.fixture
def recorded(tmp_path) -> Path:
    path = tmp_path / "recorded.h5"
    ghosts(TRAJECTORY, record=Recorder([*NAMES, "W1"], path=path)).traces.close()
    return path


def test_files_that_are_no_traces(tmp_path):
    path = tmp_path / "t.h5"
    with pytest.raises(NeurosimError, match=f"There is no trace file '{path}'; `neurosim simulate` writes traces.h5."):
        Traces.load(path)
    for content in (b"", b"a text", b"\x89HDF\r\n\x1a\n"):
        path.write_bytes(content)
        with pytest.raises(NeurosimError, match=f"'{path}' is no HDF5 file, or it is truncated: "):
            Traces.load(path)
    with h5py.File(path, "w") as file:
        file["x"] = [1.0]
    with pytest.raises(NeurosimError, match=f"'{path}' is an HDF5 file but not one of neurosim's traces."):
        Traces.load(path)


def test_files_of_other_versions(recorded, capsys):
    with h5py.File(recorded, "r+") as file:
        file.attrs["format"] = FORMAT + 1
    with pytest.raises(
        NeurosimError,
        match=f"'{recorded}' has layout {FORMAT + 1}; this version reads up to {FORMAT}. Update neurosim.",
    ):
        Traces.load(recorded)
    assert main(["plot", str(recorded)]) == 1
    assert "Update neurosim." in capsys.readouterr().err


@pytest.mark.parametrize("damage", ("format", "phases", "top", "metadata", "time"))
def test_damaged_files_are_refused(recorded, damage):
    with h5py.File(recorded, "r+") as file:
        if damage == "format":
            file.attrs["format"] = "three"
        elif damage == "metadata":
            file.attrs["metadata"] = "{"
        elif damage == "top":
            file["extra"] = np.arange(3)
        else:
            del file[damage]
            if damage == "phases":
                file[damage] = np.arange(3)
    with pytest.raises(NeurosimError, match=f"'{recorded}' is (damaged|an HDF5 file but not one of neurosim's traces)"):
        Traces.load(recorded)


def cut_and_load(errors: Path, path: Path) -> None:
    """Load a file cut at many lengths; prints how many were refused."""
    redirected(errors)
    whole = path.read_bytes()
    with Traces.load(path) as traces:
        wanted = {name: np.asarray(values) for name, values in traces.values.items()}
    cut, refused, sizes = path.with_suffix(".cut"), 0, np.linspace(2000, len(whole) - 1, 60).astype(int)
    for size in (0, 1, 7, 8, 48, 100, 1000, *sizes):
        cut.write_bytes(whole[:size])
        try:
            with Traces.load(cut) as traces:
                for name, values in traces.values.items():
                    assert np.array_equal(np.asarray(values), wanted[name][: len(values)]), (size, name)
        except NeurosimError as error:
            assert f"'{cut}'" in str(error), error
            refused += 1
    assert refused > 50, refused


def test_truncated_files_are_refused_or_read(recorded):
    """Cut anywhere: an error with the file's name, or every value as it was; never a crash."""
    assert ended(in_process(cut_and_load, recorded.with_suffix(".err"), recorded)) == 0, recorded.with_suffix(
        ".err"
    ).read_text()
    assert recorded.with_suffix(".err").read_text() == ""


def test_metadata_may_use_any_key(tmp_path):
    metadata = {"format": 99, "metadata": "m", "n": 3, "table": {"a": [1, 2]}}
    traces = Traces(np.arange(3.0), {"c.u": np.ones((3, 1, 2))}, {"c.u": "1"}, [], metadata)
    with Traces.load(traces.save(tmp_path / "t.h5")) as loaded:
        assert loaded.metadata == metadata


# ------------------------------------------------------------------ runs that end early


#: A clean process that has imported everything; forks of it start at once.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["neurosim.training.start", "neurosim.training.backprop", "neurosim.cli", "brian2"])


def redirected(errors: Path) -> None:
    """What this process writes as errors, HDF5 and the interpreter too, goes to a file."""
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 2)


def in_process(function: Any, *arguments: Any) -> Any:
    process = CONTEXT.Process(target=function, args=arguments)
    process.start()
    return process


def ended(process: Any) -> int | None:
    """The exit status."""
    try:
        process.join(120)
        assert not process.is_alive()
        return process.exitcode
    finally:
        process.kill()


LONG = {"rise": 400, "hold": 200}


def long_run(errors: Path, path: Path, slow: float, limit: int, level: str) -> None:
    """Leaky cells, rows written every 50, `slow` seconds each time; files of at most `limit` bytes."""
    redirected(errors)
    recording_module.MOST_ROWS = 50
    flush = Recording.flush

    def slowly(self: Recording) -> None:
        flush(self)
        time.sleep(slow)

    Recording.flush = slowly
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    recorder = Recorder(["c.u", "c.I"], path=path)
    simulate(relaxation(steps=LONG), np.tile(CURRENTS, (5, 1)), level=level, record=recorder)


def check_prefix(traces: Traces, least: int) -> None:
    """The first rows of what `long_run` records."""
    rows, per = len(traces.time), 600
    assert rows >= least
    step = np.arange(rows)
    assert np.array_equal(traces.time, step * DT)
    current = np.tile(CURRENTS, (5, 1))[step // per][:, None]
    assert np.array_equal(np.asarray(traces["c.I"]), current)
    np.testing.assert_allclose(traces["c.u"][:], current * relaxed(step % per)[:, None, None], rtol=0, atol=1e-13)
    spans = [
        (n, k, (k * per + a) * DT, (k * per + b) * DT)
        for k in range(20)
        for n, a, b in (("rise", 0, 400), ("hold", 400, 600))
    ]
    found = [(p.name, p.trial, p.start, p.stop) for p in traces.phases]
    assert found[:-1] == spans[: len(found) - 1] and found[-1][:3] == spans[len(found) - 1][:3]
    assert traces.phases[-1].start <= traces.time[-1] < traces.phases[-1].stop


def with_rows(path: Path, rows: int, process: Any) -> Traces:
    """Opened by a reader beside the writer, once there are so many rows."""
    until = time.monotonic() + 60
    while process.is_alive() and time.monotonic() < until:
        if path.is_file():
            traces = Traces.load(path)
            if len(traces.time) >= rows:
                return traces
            traces.close()
        time.sleep(0.02)
    raise AssertionError(f"no {rows} rows; exit status {process.exitcode}")


def test_readable_while_it_is_written_and_after_a_kill(tmp_path):
    path, errors = tmp_path / "t.h5", tmp_path / "errors"
    process = in_process(long_run, errors, path, 0.03, 0, TRAJECTORY)
    try:
        with with_rows(path, 50, process) as early:
            check_prefix(early, 50)
            with with_rows(path, len(early.time) + 150, process) as later:  # while the first reader is there
                check_prefix(later, 200)
                read = len(later.time)
            check_prefix(early, 50)
        assert process.is_alive()
        process.kill()
    finally:
        status = ended(process)
    assert status == -signal.SIGKILL and errors.read_text() == ""
    for _ in range(2):  # reading changes nothing
        with Traces.load(path) as traces:
            check_prefix(traces, read)
            assert len(traces.time) % 50 == 0 and len(traces.time) < 12_000
            kept = traces.select(phases=["rise"], trials=[0])
            assert np.array_equal(kept.time, np.arange(min(400, len(traces.time))) * DT)


@pytest.mark.parametrize("level", (EQUATIONS, DENSE, TRAJECTORY))
def test_a_full_disk(tmp_path, level):
    """A limit on the size of files refuses as a full disk does: one message, nothing of HDF5's, rows stay readable."""
    path, errors = tmp_path / "t.h5", tmp_path / "errors"
    assert ended(in_process(long_run, errors, path, 0.0, 1_000_000, level)) == 1
    assert path.stat().st_size <= 1_000_000
    with Traces.load(path) as traces:
        check_prefix(traces, 50)
        rows = len(traces.time)
    said = errors.read_text()
    assert said.strip().splitlines()[-1] == (
        f"neurosim.errors.StoppedError: The recording '{path}' cannot grow: File too large. Its {rows} rows can be read. Free some space, "
        "or record less: fewer variables, cells or phases, a larger stride."
    )
    assert not [word for word in ("HDF5", "h5py", "Exception ignored", "WARNING") if word in said], said


def test_a_disk_that_is_full_at_once(tmp_path):
    path, errors = tmp_path / "t.h5", tmp_path / "errors"
    assert ended(in_process(long_run, errors, path, 0.0, 4000, TRAJECTORY)) == 1
    assert errors.read_text().strip().splitlines()[-1].startswith("neurosim.errors.StoppedError: Cannot record to ")
    assert [p.name for p in tmp_path.iterdir()] == ["errors"]


@contextlib.contextmanager
def interrupted_in(step: int) -> Iterator[None]:
    """Ctrl-C (its signal) in this step of a run."""
    due, count = Recording.due, -1

    def looked(self: Recording, now: int) -> bool:
        nonlocal count
        count += 1
        if count == step:
            signal.raise_signal(signal.SIGINT)
        return due(self, now)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Recording, "due", looked)
        yield


@pytest.mark.parametrize("level", EULER)
def test_ctrl_c_keeps_the_rows(tmp_path, level):
    with interrupted_in(47):
        simulate(relaxation(), CURRENTS, level=level, record=Recorder(["c.u"], path=tmp_path / "t.h5"))
    with Traces.load(tmp_path / "t.h5") as traces:
        step = np.arange(len(traces.time))
        assert len(step) in (47, 48)  # Brian2 ends the step
        assert np.array_equal(traces.time, step * DT)
        wanted = CURRENTS[step // 33] * relaxed(step % 33)[:, None]
        np.testing.assert_allclose(traces["c.u"][:, 0], wanted, rtol=0, atol=1e-13)
        assert [(p.name, p.trial) for p in traces.phases] == [("rise", 0), ("hold", 0), ("rise", 1)]
        assert traces.phases[-1].start == 33 * DT and traces.phases[-1].stop == pytest.approx(len(step) * DT, abs=1e-12)


def test_ctrl_c_in_a_phase_without_rows(tmp_path):
    with interrupted_in(35):
        simulate(relaxation(), CURRENTS, level=TRAJECTORY, record=Recorder(["c.u"], stride=30, path=tmp_path / "t.h5"))
    with Traces.load(tmp_path / "t.h5") as traces:
        assert np.array_equal(traces.time, [0.0, 30 * DT])
        assert all(0 <= p.start <= p.stop <= 53 * DT for p in traces.phases)


@pytest.mark.parametrize("where", ("memory", "file"))
@pytest.mark.parametrize("level", EULER)
def test_divergence_keeps_the_rows_before_it(tmp_path, level, where):
    """du/dt = (I + 30 u^2)/tau grows beyond all numbers; Euler in NumPy says when."""
    cell = Cell("grow", "du/dt = (I + 30*u*u)/tau : 1\n I : 1 (port)\n", rate="u", parameters={"tau": "10*ms"})
    circuit = Circuit(
        "grow", [Population("inp", 2, SOURCE), Population("c", 2, cell), Projection("W", "inp", "c.I", Given(np.eye(2)))],
        Protocol((Phase("a", "20*ms"), Phase("b", "500*ms")), {"inp.r": "image"}, dt="1*ms"),
    )  # fmt: skip
    u, wanted = np.zeros(2), []
    with np.errstate(over="ignore", invalid="ignore"):
        while np.isfinite(u).all():
            wanted.append(u)
            u = u + DT / TAU * (np.array([0.1, 0.05]) + 30 * u * u)
    path = tmp_path / "t.h5" if where == "file" else None
    with pytest.raises(DivergenceError, match=r"'c.u' is not finite at step") as caught:
        simulate(circuit, [[0.1, 0.05]], level=level, record=Recorder(["c.u"], path=path))
    traces = caught.value.result.traces
    rows = len(wanted)
    assert 20 < rows <= len(traces.time) <= rows + 21  # looked at every 20 steps
    np.testing.assert_allclose(traces["c.u"][:rows, 0], wanted, rtol=1e-10)
    assert np.array_equal(traces.time, np.arange(len(traces.time)) * DT)
    assert [(p.name, p.start) for p in traces.phases] == [("a", 0.0), ("b", 0.02)]
    stop = traces.phases[1].stop
    assert stop == pytest.approx(len(traces.time) * DT, abs=1e-12)  # cut short after the last row
    assert len(traces.select(phases=["b"]).time) == len(traces.time) - 20
    traces.close()


def test_a_file_that_is_read_may_be_replaced(tmp_path):
    path, circuit = tmp_path / "t.h5", relaxation()
    with simulate(circuit, CURRENTS, level=TRAJECTORY, record=Recorder(["c.u"], path=path)).traces as old:
        with simulate(circuit, 2 * CURRENTS, level=TRAJECTORY, record=Recorder(["c.u"], path=path)).traces as new:
            assert np.array_equal(new["c.u"][...], 2 * old["c.u"][...])
        assert old["c.u"][33 + 5, 0, 1] == pytest.approx(CURRENTS[1, 1] * relaxed(np.array(5)), abs=1e-13)
        old.save(path)  # over the file that it reads from's name
        with Traces.load(path) as again:
            same(again, old)


# ------------------------------------------------------------------ while training

NET = {"sizes": (64, 6, 10), "mode": "learned", "t_free": "20*ms", "t_nudged": "25*ms", "t_learn": "10*ms"}
#: level, and schedule: four batches an epoch.
TRAINED: dict[str, dict[str, Any]] = {
    STEADY: {"batch_size": 8, "limit": 32, "epochs": 2},
    TRAJECTORY: {"batch_size": 8, "limit": 32, "epochs": 2, "optimiser": "none"},
    DENSE: {"batch_size": 8, "limit": 32, "epochs": 2, "optimiser": "none"},
    EQUATIONS: {"batch_size": 1, "limit": 2, "epochs": 1, "optimiser": "none"},
}


@pytest.fixture(autouse=True)
def few_digits(monkeypatch) -> None:
    """In this process: 9 images to validate and to test with."""
    from dataclasses import replace

    from neurosim import data

    digits = data.load("digits")
    parts = {f"{s}_{x}": getattr(digits, f"{s}_{x}")[:9] for s in ("validation", "test") for x in ("images", "labels")}
    few = replace(digits, **parts)
    monkeypatch.setattr(data, "load", lambda *a, **k: few)


def trained(out: Path, level: str, recorder: dict[str, Any], **more: Any) -> Any:
    return train(
        "ghost_units", out, settings=NET, level=level, seed=4, progress=False, recorder=recorder, **{**TRAINED[level], **more}
    )  # fmt: skip


@pytest.mark.parametrize(
    "level", [*(pytest.param(k, marks=pytest.mark.slow) for k in (EQUATIONS, DENSE)), TRAJECTORY, STEADY]
)
def test_recorded_while_training(tmp_path, level):
    """Snapshots are the weights of shorter trainings; recorded batches are what a fresh engine shows of the batches that were presented."""
    shown: list[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]] = []
    chosen = {
        "variables": ["pyr1.u", "pyr2.r", "W1", "W2"],
        "cells": {"pyr1": [5, 0]},
        "stride": 4,
        "phases": ["free", "nudged"],
    }

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "BATCHES", 1)  # a call of the engine per batch
        first = Trainer.fit

        def fit(self: Trainer, folder: Path | None = None) -> Any:
            present, engine = self.engine.present, self.engine

            def noted(fields: dict[str, Any], **options: Any) -> Any:
                if options.get("record") is not None:
                    shown.append(({k: torch.as_tensor(v).numpy().copy() for k, v in fields.items()}, engine.weights()))
                return present(fields, **options)

            self.engine.present = noted
            return first(self, folder)

        patch.setattr(Trainer, "fit", fit)
        run = trained(tmp_path / "run", level, chosen)
    batches = TRAINED[level]["limit"] // TRAINED[level]["batch_size"]
    epochs = TRAINED[level]["epochs"]
    assert len(shown) == batches * epochs
    with Traces.load(tmp_path / "run" / "recording.h5") as traces:
        assert traces.metadata["trials_per_epoch"] == batches and traces.metadata["level"] == level
        assert list(traces.weight_trials) == [*range(0, batches * epochs, batches), batches * epochs]
        for name in ("W1", "W2"):
            assert np.array_equal(traces.weights[name][-1], run.weights[name])
            assert not np.array_equal(traces.weights[name][0], run.weights[name])
        for k in range(1, epochs):
            shorter = trained(tmp_path / f"shorter{k}", level, {}, epochs=k)
            for name in ("W1", "W2"):
                assert np.array_equal(traces.weights[name][k], shorter.weights[name])
        # Each recorded batch again, alone
        circuit, options = run.circuit, run.config
        per = sum(circuit.plan.steps(DT))
        for trial in range(0, batches * epochs, batches):
            fields, weights = shown[trial]
            again = simulate(
                circuit, fields["image"], fields["target"], level=level, weights=weights, batch_size=options.batch_size,
                dt="1*ms", dtype=options.dtype if level.startswith("torch") else "float64", plasticity="off" if level == STEADY else "on",
                record=["pyr1.u", "pyr2.r"], **({"solver": options.solver} if level == STEADY else {}),
            ).traces  # fmt: skip
            step = np.round(again.time / DT).astype(int) + trial * per
            spans = [p for p in again.phases if p.name in chosen["phases"]]
            rows = [
                r for r in range(len(step))
                if (level == STEADY or step[r] % 4 == 0) and any(p.start - DT / 2 < again.time[r] < p.stop - DT / 2 for p in spans)
            ]  # fmt: skip
            part = traces.select(trials=[trial])
            assert [p.name for p in part.phases] == ["free", "nudged"] and len(part.time) == len(rows) > 0
            assert np.array_equal(np.round(part.time / DT).astype(int), step[rows])
            for name, columns in (("pyr1.u", [5, 0]), ("pyr2.r", slice(None))):
                wanted = again[name][rows][..., columns]
                tolerance = 2e-5 if level == STEADY else 0  # the trainer's solver stops at its own tolerance
                np.testing.assert_allclose(part[name][...], wanted, rtol=0, atol=tolerance)
        assert [p.trial for p in traces.phases] == [t for t in range(0, batches * epochs, batches) for _ in range(2)]


@pytest.mark.parametrize("method", ("backprop", "feedback_alignment"))
def test_weights_of_reference_nets_while_training(tmp_path, method):
    run = trained(tmp_path / "run", STEADY, {"variables": ["W1"], "trials": 3}, method=method)
    with Traces.load(tmp_path / "run" / "recording.h5") as traces:
        assert list(traces.weight_trials) == [0, 3, 6, 8]
        assert np.array_equal(traces.weights["W1"][-1], run.weights["W1"])
    one = trained(tmp_path / "one", STEADY, {"variables": ["W1"], "trials": 1}, method=method, epochs=1)
    with (
        Traces.load(tmp_path / "one" / "recording.h5") as each,
        Traces.load(tmp_path / "run" / "recording.h5") as third,
    ):
        assert np.array_equal(each.weights["W1"][3], third.weights["W1"][1])
        assert np.array_equal(each.weights["W1"][-1], one.weights["W1"])
        assert not np.array_equal(each.weights["W1"][0], each.weights["W1"][1])
    with pytest.raises(
        NeurosimError,
        match=f"recorder names variables of populations with method = '{method}': a reference net has weights only",
    ):
        trained(tmp_path / "no", STEADY, {"variables": ["pyr1.u"]}, method=method)


def test_training_refuses_before_it_begins(tmp_path):
    for recorder, text in (
        ({"variables": ["pyr1.w"]}, "There is no variable of population pyr1 'w'."),
        ({"variable": ["pyr1.u"]}, r"There is no key of recorder 'variable'. Did you mean 'variables'\?"),
        ({"variables": ["pyr1.u"], "path": "x.h5"}, "There is no key of recorder 'path'."),
        ({"variables": ["pyr1.u"], "phases": ["settle"]}, "There is no phase 'settle'."),
        ({"variables": ["pyr1.u"], "stride": 0}, "stride = 0; wanted a whole number of at least 1."),
    ):
        with pytest.raises(NeurosimError, match=text):
            trained(tmp_path / "run", STEADY, recorder)
        assert not (tmp_path / "run").exists() or not (tmp_path / "run" / "recording.h5").exists()
    with pytest.raises(
        NeurosimError, match=r"recorder wants a run folder, where recording.h5 is written; give out \(--out DIR\)"
    ):
        trained(None, STEADY, {"variables": ["pyr1.u"]})  # type: ignore[arg-type]


class Stopped(Exception):
    """In place of a signal."""


@pytest.mark.parametrize("level", [pytest.param(DENSE, marks=pytest.mark.slow), TRAJECTORY, STEADY])
def test_a_training_that_stopped_records_as_if_it_had_not(tmp_path, monkeypatch, level):
    monkeypatch.setattr(trainer, "BATCHES", 1)
    chosen = {"variables": ["pyr1.u", "W1"], "cells": {"pyr1": [2, 4]}, "stride": 7, "trials": 2}
    trained(tmp_path / "whole", level, chosen)
    save = Trainer.save_checkpoint
    for stop, later in (
        ((3, 0), (5, 2)) if level == STEADY else ((5, 2),)
    ):  # the second: batches after the last checkpoint are recorded and lost
        done = 0

        def saved(self: Trainer, folder: Path, stop: int = stop, later: int = later) -> None:
            nonlocal done
            done += 1
            if done <= stop:
                save(self, folder)
            if done == stop + later:
                self.recording.open.flush()  # type: ignore[union-attr]
                raise Stopped

        folder = tmp_path / f"stopped{stop}"
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Stopped):
            patch.setattr(Trainer, "save_checkpoint", saved)
            trained(folder, level, chosen, checkpoint=0.0)
        with Traces.load(folder / "recording.h5") as half, Traces.load(tmp_path / "whole" / "recording.h5") as whole:
            assert 0 < len(half.time) < len(whole.time)
            assert np.array_equal(half["pyr1.u"][...], whole["pyr1.u"][: len(half.time)])
        resume(folder, progress=False)
        with Traces.load(folder / "recording.h5") as mine, Traces.load(tmp_path / "whole" / "recording.h5") as theirs:
            same(mine, theirs)
            assert mine.metadata == theirs.metadata
        assert not list(folder.glob("*.part"))


def test_a_recording_that_is_gone_or_short_is_not_gone_on_with(tmp_path, monkeypatch):
    chosen = {"variables": ["pyr1.u", "W1"], "trials": 1}
    save = Trainer.save_checkpoint

    def saved(self: Trainer, folder: Path) -> None:
        save(self, folder)
        raise Stopped

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(Trainer, "save_checkpoint", saved)
        trained(tmp_path / "run", STEADY, chosen, checkpoint=0.0)
    path = tmp_path / "run" / "recording.h5"
    whole = path.read_bytes()
    path.unlink()
    with pytest.raises(NeurosimError, match=r"recording\.h5"):
        resume(tmp_path / "run", progress=False)
    trained(tmp_path / "short", STEADY, chosen, limit=8, epochs=1)
    path.write_bytes(b"")
    with pytest.raises(NeurosimError, match=r"recording\.h5"):
        resume(tmp_path / "run", progress=False)
    assert checkpoint.load(tmp_path / "run")[1]["recording"]["lengths"]["time"] > 0
    path.write_bytes(whole)
    resume(tmp_path / "run", progress=False)
    trained(tmp_path / "whole", STEADY, chosen)
    with Traces.load(path) as mine, Traces.load(tmp_path / "whole" / "recording.h5") as theirs:
        same(mine, theirs)


def test_command_line_records_while_training(tmp_path, capsys):
    words = ["--record", "pyr1.u", "W1", "--cells", "pyr1=0,3", "--phases", "nudged", "--stride", "2", "--trials", "3"]
    words += ["--epochs", "1", "--batch-size", "8", "--samples", "32"]
    settings = [w for k, v in (("sizes", "64,6,10"), ("mode", "learned")) for w in ("--set", f"{k}={v}")]
    main(["train", "ghost_units", *words, *settings, "--out", str(tmp_path / "run")])
    assert "recording.h5" in capsys.readouterr().out
    with Traces.load(tmp_path / "run" / "recording.h5") as traces:
        assert list(traces.cells_of("pyr1")) == [0, 3] and traces["pyr1.u"].shape == (2, 8, 2)
        assert [(p.name, p.trial) for p in traces.phases] == [("nudged", 0), ("nudged", 3)]
        assert list(traces.weight_trials) == [0, 3, 4]


@pytest.mark.slow
def test_a_training_that_was_killed_records_as_if_it_had_not_been(tmp_path):
    """Signal 9 at some moment, twice, with a checkpoint after nearly every batch; then the recording of an undisturbed run."""
    arguments = [
        "train", "ghost_units", "--level", TRAJECTORY, "--samples", "480", "--batch-size", "4", "--epochs", "2", "--seed", "2", "--record",
        "pyr1.u", "W1", "--cells", "pyr1=1,0", "--trials", "20", "--stride", "5", "--set", "sizes=64,8,10", "--set", "mode=learned", "--set",
        "checkpoint=0.02",
    ]  # fmt: skip

    def start(words: list[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "neurosim", *words],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    assert start([*arguments, "--out", str(tmp_path / "whole")]).wait(120) == 0
    folder, words, kills = tmp_path / "killed", [*arguments, "--out", str(tmp_path / "killed")], 0
    for _ in range(2):
        process, before = start(words), written(folder / checkpoint.NAME)
        until = time.monotonic() + 60
        while process.poll() is None and written(folder / checkpoint.NAME) == before and time.monotonic() < until:
            time.sleep(0.005)
        time.sleep(0.1)
        process.kill()
        kills += process.wait() == -signal.SIGKILL
        words = ["train", "--resume", str(folder)]
    assert kills == 2 and not (folder / "result.json").exists()
    assert start(words).wait(120) == 0
    with Traces.load(folder / "recording.h5") as mine, Traces.load(tmp_path / "whole" / "recording.h5") as theirs:
        same(mine, theirs)
    assert {p.name for p in folder.iterdir()} == {p.name for p in (tmp_path / "whole").iterdir()}


def written(path: Path) -> int:
    return path.stat().st_mtime_ns if path.is_file() else 0


@pytest.mark.slow
def test_a_gigabyte_adds_little_memory():
    """`tests/soak/recorder.py`: under 200 MB at the peak, values by the closed form, and a few kills."""
    script = Path(__file__).parent / "soak" / "recorder.py"
    done = subprocess.run([sys.executable, str(script), "--kills", "3"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


# ------------------------------------------------------------------ what a review found


def test_an_interrupted_row_does_not_count(monkeypatch):
    """Ctrl-C while the values of a row are gathered."""
    recording = Recording(Recorder(["c.u"]), relaxation().plan, 1, DT)
    recording.begin_trial(lambda name: np.empty(0))
    recording.begin_phase(relaxation().plan.phases[0], 0)
    recording.row(0, lambda *_: 1.0)

    def interrupted(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recording.row(1, interrupted)
    traces = recording.traces()
    assert len(traces.time) == 1 and (traces["c.u"] == 1.0).all()


@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_writer_that_fails_leaves_phases_as_they_were(tmp_path, monkeypatch, after):
    """What the writer could write before is a beginning of the whole recording, phases included."""
    from neurosim.traces import recording as module
    from neurosim.traces.writer import TraceFile

    monkeypatch.setattr(module, "MOST_ROWS", 7)
    circuit = relaxation(steps={"a": 10, "b": 10})
    whole = simulate(circuit, CURRENTS, level=TRAJECTORY, record=["c.u"]).traces
    grow, calls = TraceFile.grow, []

    def failing(self, columns):
        calls.append(1)
        if len(calls) >= after:
            raise NeurosimError("no room (test)")
        grow(self, columns)

    monkeypatch.setattr(TraceFile, "grow", failing)
    with pytest.raises(NeurosimError, match="no room"):
        simulate(circuit, CURRENTS, level=TRAJECTORY, record=Recorder(["c.u"], path=tmp_path / "t.h5"))
    with Traces.load(tmp_path / "t.h5") as kept:
        assert len(kept.time) == 7 * (after - 1)
        assert np.array_equal(kept["c.u"][...], whole["c.u"][: len(kept.time)])
        assert list(kept.phases) == list(whole.phases)[: len(kept.phases)]


def test_a_writer_that_fails_late_is_heard(tmp_path, monkeypatch):
    """The last rows wait behind other work of the writer when the recording ends: their error is raised all the same."""
    from neurosim.traces.writer import TraceFile

    circuit = relaxation()
    recording = Recording(Recorder(["c.u"], path=tmp_path / "t.h5"), circuit.plan, 1, 1e-3)
    recording.begin_trial(lambda name: np.zeros(0))
    recording.begin_phase(circuit.plan.phases[0], 0)
    recording.row(0, lambda population, variable: 1.0)

    def failing(self, columns):
        raise NeurosimError("no room (test)")

    monkeypatch.setattr(TraceFile, "grow", failing)
    recording._writer.submit(time.sleep, 0.3)
    with pytest.raises(NeurosimError, match="no room"):
        recording.close()


def test_training_leaves_files_alone_that_are_of_no_run(tmp_path):
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "tensorboard" / "mine").write_text("mine")
    (tmp_path / "recording.h5").write_text("mine")
    settings = {"sizes": (64, 8, 10)}
    with pytest.raises(NeurosimError, match=r"recording\.h5' is there, and no run that it could be of"):
        train(
            "ghost_units",
            tmp_path,
            settings=settings,
            limit=64,
            epochs=1,
            recorder={"variables": ["W1"]},
            progress=False,
        )
    train("ghost_units", tmp_path, settings=settings, limit=64, epochs=1, progress=False)
    assert (tmp_path / "recording.h5").read_text() == (tmp_path / "tensorboard" / "mine").read_text() == "mine"


def test_chosen_cells_of_spikes_stay_named():
    traces = simulate(
        bac_firing.circuit(duration="110*ms"), level=DENSE, record=Recorder([], spikes={"both": [0]})
    ).traces
    assert list(traces.select(time=(0.0, 0.1)).spike_cells["both"]) == [0]
    with pytest.raises(NeurosimError, match=r"Cells \[99\] of 'both' were not recorded"):
        traces.select(cells={"both": [99]})


@pytest.mark.parametrize(
    ("selection", "text"),
    [
        ({"time": 5}, r"time = 5; wanted \(start, stop\) in seconds"),
        ({"trials": 0}, r"trials = 0; wanted a list"),
        ({"cells": {"c": 3}}, "cells of 'c' = 3; wanted a list of whole numbers"),
        ({"cells": {"c": ["a"]}}, "wanted a list of whole numbers"),
        ({"cells": {"c": [0, 0]}}, "one is named twice"),
    ],
)
def test_selections_of_the_wrong_kind(selection, text):
    traces = simulate(relaxation(), CURRENTS, level=TRAJECTORY, record=["c.u"]).traces
    with pytest.raises(NeurosimError, match=text):
        traces.select(**selection)


def test_what_is_stored_answers_like_numpy(tmp_path):
    whole = simulate(relaxation(), CURRENTS, level=TRAJECTORY, record=["c.u"]).traces["c.u"]
    with simulate(
        relaxation(), CURRENTS, level=TRAJECTORY, record=Recorder(["c.u"], path=tmp_path / "t.h5")
    ).traces as traces:
        x = traces["c.u"]
        for ask in (
            lambda a: a > 0.5, lambda a: 2 * a - a[0], np.abs, lambda a: a.mean(axis=0), lambda a: a.max(),
            lambda a: a.T, lambda a: np.maximum(a, 0.5), lambda a: a.reshape(len(a), -1),
        ):  # fmt: skip
            assert np.array_equal(ask(x), ask(whole))
        with pytest.raises(AttributeError, match="has no attribute 'volts'"):
            _ = x.volts
