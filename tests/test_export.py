"""Export: traces come back equal to the last bit; other programs and validators read what was written.

Oracles: the recording itself; h5py, PyNWB's validator, the NWB inspector, Neo's own NWB reader, the unit conversion of
`quantities`, NumPy and the csv module reading the files; the protocol of the circuit.
"""

from __future__ import annotations

import csv
import json
import pickle
import re
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import neo
import numpy as np
import nwbinspector
import pynwb
import pytest
import quantities as pq
from conftest import largest_file

from neurosim import Recorder, data, simulate
from neurosim.cli import main
from neurosim.errors import NeurosimError
from neurosim.export import csv as csv_export
from neurosim.export import from_neo, from_nwb, layout, to_csv, to_neo, to_nwb
from neurosim.export import nwb as nwb_export
from neurosim.export.neo import _unit
from neurosim.models import bac_firing, ghost_units
from neurosim.traces import PhaseSpan, Spikes, Traces, stored

DT = 1e-4


def ghosts(level: str, record, **options) -> Traces:
    """Two trials of two samples each: 30 ms free, 10 ms nudged, 20 ms nudged and plastic."""
    images, labels = data.load("digits").split("train")
    circuit = ghost_units.circuit(sizes=(64, 8, 10), t_free="30*ms", t_nudged="30*ms")
    return simulate(
        circuit, images[:4], labels[:4], level=level, record=record, batch_size=2, progress=False, **options
    ).traces


def convolution() -> Traces:
    """Weights with four axes, as a convolution has."""
    rng = np.random.default_rng(0)
    values, trials = {"map.u": rng.normal(size=(40, 1, 6))}, np.array([0, 5, 10])
    weights = {"K": rng.normal(size=(3, 2, 4, 3, 3)), "W": rng.normal(size=(3, 6, 2)), "one": rng.normal(size=(3, 6))}
    phases = [PhaseSpan("settle[0]", 7, 0.0, 0.02), PhaseSpan("settle[1]", 7, 0.02, 0.04)]
    return Traces(
        np.arange(40) * 1e-3, values, {"map.u": "siemens / (meter ** 2)"}, phases, {"model": "m"},
        cells={"map": np.array([4, 0, 9, 2, 7, 11])}, weights=weights, weight_trials=trials,
    )  # fmt: skip


MAKE = {
    "brian2": lambda: ghosts("brian2:dense", ["pyr1.u", "pyr1.E", "pyr2.u"]),
    "float32": lambda: ghosts("torch:trajectory", ["pyr1.u", "pyr2.u", "W1"], dtype="float32"),
    "chosen": lambda: ghosts(
        "torch:trajectory", Recorder(["pyr1.u", "W1"], cells={"pyr1": [1, 5, 2]}, phases=["nudged"], stride=7)
    ),
    "strided": lambda: ghosts("torch:trajectory", Recorder(["pyr1.u"], stride=3)),
    "steady": lambda: ghosts("torch:steady", Recorder(["pyr2.u"], cells={"pyr2": [0, 9]})),
    "weights": lambda: ghosts("torch:steady", Recorder(["W1", "W2"])),
    "spikes": lambda: (
        simulate(
            bac_firing.circuit(duration="120*ms"),
            level="torch:trajectory",
            record=["both.V_s", "both.I_s"],
            batch_size=2,
            progress=False,
        ).traces
    ),
    "convolution": convolution,
}
REGULAR = ("brian2", "float32", "strided", "spikes", "convolution")


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> dict[str, Path]:
    """Each recording as HDF5."""
    folder = tmp_path_factory.mktemp("recordings")
    return {name: make().save(folder / f"{name}.h5") for name, make in MAKE.items()}


@pytest.fixture(scope="module")
def files(recordings, tmp_path_factory) -> dict[str, Path]:
    """Each recording as NWB, written from its HDF5 file."""
    folder, written = tmp_path_factory.mktemp("nwb"), {}
    for name, path in recordings.items():
        with Traces.load(path) as traces:
            written[name] = to_nwb(traces, folder / f"{name}.nwb")
    return written


def assert_equal(got: Traces, wanted: Traces) -> None:
    """Equal in every bit, type, name and order."""

    def same(a, b):
        a, b = np.asarray(a), np.asarray(b)
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert a.tobytes() == b.tobytes()

    same(got.time, wanted.time)
    same(got.weight_trials, wanted.weight_trials)
    for field in ("values", "cells", "weights"):
        ours, theirs = getattr(got, field), getattr(wanted, field)
        assert list(ours) == list(theirs)
        for name in theirs:
            same(ours[name], theirs[name])
    assert dict(got.units) == dict(wanted.units)
    assert list(got.phases) == list(wanted.phases)
    assert got.metadata == wanted.metadata
    assert list(got.spikes) == list(wanted.spikes)
    for population, spikes in wanted.spikes.items():
        for column in ("time", "sample", "cell"):
            same(getattr(got.spikes[population], column), getattr(spikes, column))


# ---------------------------------------------------------------------------------------------------- there and back


@pytest.mark.parametrize("name", MAKE)
def test_hdf5_neo_nwb_and_back(name, recordings, tmp_path):
    with Traces.load(recordings[name]) as traces:
        through_neo = from_neo(pickle.loads(pickle.dumps(to_neo(traces))))
        assert_equal(through_neo, traces)
        assert_equal(from_nwb(to_nwb(through_neo, tmp_path / "traces.nwb")), traces)


def test_the_recordings_hold_what_the_tests_are_about(recordings):
    with Traces.load(recordings["float32"]) as traces:
        assert traces["pyr1.u"].dtype == np.float32 and traces["pyr1.u"].shape == (1200, 2, 8)
        assert len(traces.weight_trials) == 3 and len(traces.phases) == 4
    with Traces.load(recordings["chosen"]) as traces:
        assert list(traces.cells["pyr1"]) == [1, 5, 2] and layout.spacing(traces.time) is None
    with Traces.load(recordings["spikes"]) as traces:
        assert {p: len(s.time) > 0 for p, s in traces.spikes.items()}["apical_weak"] is False
        assert set(traces.spikes["both"].sample) == {0, 1}
    for name in REGULAR:
        with Traces.load(recordings[name]) as traces:
            assert layout.spacing(traces.time) is not None


def test_values_of_a_file_are_copied_a_block_at_a_time(tmp_path, monkeypatch):
    """Nothing but blocks of rows is asked of the values, and all of them arrive."""
    wanted = convolution()
    limit = 40 * 1 * 6 * 8 // 4

    class Blocks:
        def __init__(self, array):
            self._array, self.shape, self.dtype, self.ndim = array, array.shape, array.dtype, array.ndim

        def __len__(self):
            return len(self._array)

        def __getitem__(self, key):
            assert self._array[key].nbytes <= max(limit, self._array[0].nbytes)
            return self._array[key]

        def __array__(self, *_, **__):
            raise AssertionError("read whole")

    lazy = replace(
        wanted,
        values={name: Blocks(v) for name, v in wanted.values.items()},
        weights={name: Blocks(w) for name, w in wanted.weights.items()},
    )
    monkeypatch.setattr(stored, "BLOCK", limit)
    monkeypatch.setattr(csv_export, "BLOCK", 16 * limit)  # numbers as text: 128 bytes in place of 8
    assert_equal(from_nwb(to_nwb(lazy, tmp_path / "traces.nwb")), wanted)
    to_csv(lazy, tmp_path / "traces.csv")
    table = np.loadtxt(tmp_path / "traces.csv", delimiter=",", skiprows=1)
    assert np.array_equal(table[:, 1:], wanted["map.u"][:, 0])


@pytest.mark.parametrize("start, stride", [(0, 1), (0, 7), (123456, 10)])
def test_equally_spaced_rows_are_seen_through_rounding(start, stride):
    time = (start + stride * np.arange(1000)) * DT
    assert layout.spacing(time) == pytest.approx(stride * DT, rel=1e-12)
    assert layout.spacing(np.delete(time, 500)) is None
    assert layout.spacing(time[:1]) is None


# ----------------------------------------------------------------------------------------------------------- Neo


def test_neo_block_of_a_batch(recordings):
    with Traces.load(recordings["float32"]) as traces:
        block = to_neo(traces)
        assert [s.annotations["position"] for s in block.segments] == [0, 1]
        signal = next(s for s in block.segments[1].analogsignals if s.name == "pyr1.u")
        assert np.array_equal(signal.magnitude, traces["pyr1.u"][:, 1])
        assert signal.sampling_rate == 10 * pq.kHz and signal.t_start == 0 * pq.s
        assert np.allclose(signal.times.rescale("ms").magnitude, 0.1 * np.arange(1200))
        assert list(signal.array_annotations["cell"]) == list(range(8))
        epoch = block.segments[0].epochs[0]
        assert list(epoch.labels) == ["free", "nudged"] * 2
        assert np.allclose(epoch.durations.rescale("ms").magnitude, [30, 30, 30, 30])
        assert list(epoch.array_annotations["trial"]) == [0, 0, 1, 1]
        assert np.array_equal(block.annotations["weights"]["W1"], traces.weights["W1"][...])
        assert block.annotations["metadata"]["model"] == block.name == "ghost_units"
        assert len(block.filter(objects="AnalogSignal", population="pyr2")) == 2


def test_neo_units_and_spike_trains(recordings):
    with Traces.load(recordings["spikes"]) as traces:
        block = to_neo(traces)
        segment = block.segments[1]
        signals = {s.name: s for s in segment.analogsignals}
        assert np.allclose(signals["both.V_s"].rescale("mV").magnitude, 1e3 * traces["both.V_s"][:, 1], rtol=1e-12)
        assert np.allclose(signals["both.I_s"].rescale("pA").magnitude, 1e12 * traces["both.I_s"][:, 1], rtol=1e-12)
        trains = {t.name: t for t in segment.spiketrains}
        assert np.array_equal(trains["both[0]"].magnitude, traces.spikes["both"].of(0, sample=1))
        assert (trains["both[0]"].array_annotations["sample"] == 1).all()
        assert trains["both[0]"].annotations["population"] == "both"
        assert all(
            t.t_start == 0 * pq.s and float(t.t_stop.rescale("ms")) == pytest.approx(120) for t in trains.values()
        )


def test_silent_recorded_cells_have_an_empty_train():
    values = {"p.u": np.zeros((3, 2, 4))}
    spikes = {"p": Spikes(np.array([0.001, 0.001, 0.002]), np.array([4, 5, 4]), np.array([3, 8, 3]))}
    cells = {"p": np.array([1, 3, 5, 8])}
    traces = Traces(np.arange(3) * 1e-3, values, {"p.u": "1"}, [], {}, spikes, cells)
    counts = [{t.annotations["cell"]: len(t) for t in s.spiketrains} for s in to_neo(traces).segments]
    assert counts == [{1: 0, 3: 2, 5: 0, 8: 0}, {1: 0, 3: 0, 5: 0, 8: 1}]  # samples 4, 5 of batches of two
    assert_equal(from_neo(to_neo(traces)), traces)


def test_signals_that_were_rescaled_and_cut_come_back(recordings):
    with Traces.load(recordings["spikes"]) as traces:
        block = to_neo(traces)
        for segment in block.segments:
            signals = [s.time_slice(60 * pq.ms, 90 * pq.ms) for s in segment.analogsignals]
            segment.analogsignals = [s.rescale("mV") if s.units == pq.V else s for s in signals]
        got, wanted = from_neo(block), traces.select(time=(0.06, 0.09))
        count = len(got.time)  # Neo may keep the row at the end of the slice
        assert 0 <= count - len(wanted.time) <= 1
        assert np.array_equal(got.time[: len(wanted.time)], wanted.time)
        assert np.allclose(got["both.V_s"][: len(wanted.time)], wanted["both.V_s"][...], rtol=1e-14, atol=0)
        first = to_neo(traces)
        for segment in first.segments:
            segment.analogsignals = [s[:, :1] for s in segment.analogsignals[:1]]
        assert list(from_neo(first).values) == [next(iter(traces.values))]


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("volt", pq.V), ("amp", pq.A), ("siemens", pq.S), ("farad", pq.F), ("hertz", pq.Hz), ("s", pq.s), ("ohm", pq.ohm),
        ("volt2", pq.V**2), ("hertz2", pq.Hz**2), ("siemens / (meter ** 2)", pq.S / pq.m**2), ("s ** -1 * amp", pq.A / pq.s),
        ("metre ** 2 * kilogram * s ** -4 * amp ** -1", pq.V / pq.s), ("mmolar", pq.mol / pq.m**3), ("1", pq.dimensionless),
    ],
)  # fmt: skip
def test_units_as_brian2_writes_them(text, unit):
    assert float((_unit(pq, text) / unit).simplified) == 1.0
    assert (_unit(pq, text) / unit).simplified.dimensionality == pq.dimensionless.dimensionality


# ----------------------------------------------------------------------------------------------------------- NWB


@pytest.mark.parametrize("name", ["brian2", "chosen", "steady", "weights", "spikes", "convolution"])
def test_validators_find_nothing_serious(name, files):
    assert pynwb.validate(path=str(files[name])) == []
    serious = {nwbinspector.Importance.CRITICAL, nwbinspector.Importance.ERROR}
    serious |= {nwbinspector.Importance.PYNWB_VALIDATION}
    messages = list(nwbinspector.inspect_nwbfile(nwbfile_path=str(files[name])))
    assert messages  # the species is missing, so the inspector did look
    assert [m for m in messages if m.importance in serious] == []
    violations = {m.check_function_name for m in messages if m.importance.name == "BEST_PRACTICE_VIOLATION"}
    assert violations == {"check_subject_species_exists"}


def test_the_inspector_doubts_the_orientation_of_few_rows(tmp_path):
    """As the page says: what it suspects is not so, time is the first axis."""
    wide = Traces(np.arange(3) * DT, {"a.u": np.zeros((3, 1, 7))}, {"a.u": "1"}, [], {"model": "m"})
    messages = nwbinspector.inspect_nwbfile(nwbfile_path=str(to_nwb(wide, tmp_path / "wide.nwb")))
    critical = {m.check_function_name for m in messages if m.importance == nwbinspector.Importance.CRITICAL}
    assert critical == {"check_data_orientation"}


def test_nwb_by_h5py(files, recordings):
    with Traces.load(recordings["brian2"]) as traces, h5py.File(files["brian2"]) as file:
        series = file["acquisition/pyr1.u sample 1"]
        assert np.array_equal(series["data"][()], traces["pyr1.u"][:, 1])
        assert (series["data"].attrs["unit"], series["data"].attrs["conversion"]) == ("1", 1.0)
        assert (series["starting_time"][()], series["starting_time"].attrs["rate"]) == (0.0, 10000.0)
        epochs = file["intervals/epochs"]
        assert np.array_equal(epochs["stop_time"][()], [p.stop for p in traces.phases])
        assert list(epochs["phase"].asstr()[:2]) == ["free", "nudged"]
        assert np.allclose(file["intervals/trials/start_time"][()], [0, 0.06])
        assert np.allclose(file["intervals/trials/stop_time"][()], [0.06, 0.12])
        assert json.loads(file["general/notes"].asstr()[()])["metadata"] == traces.metadata
        assert file["session_start_time"].asstr()[()] == "1970-01-01T00:00:00+00:00"


def test_nwb_of_rows_that_are_not_equally_spaced(files, recordings):
    with Traces.load(recordings["chosen"]) as traces, h5py.File(files["chosen"]) as file:
        for position in (0, 1):
            series = file[f"acquisition/pyr1.u sample {position}"]
            assert np.array_equal(series["timestamps"][()], traces.time)
            assert "1, 5, 2" in series.attrs["description"]
        assert np.array_equal(file["analysis/weights W1/weights"][()], traces.weights["W1"][...])
        assert file["analysis/weights W1/weights"].attrs["description"] == "The weights (1)."
        assert list(file["analysis/weights W1/trials_presented"][()]) == [0, 1, 2]


def test_nwb_spikes_by_h5py(files, recordings):
    """Ragged columns: the index holds the end of each cell's part."""
    with Traces.load(recordings["spikes"]) as traces, h5py.File(files["spikes"]) as file:
        units = file["units"]
        assert file["acquisition/both.V_s sample 0/data"].attrs["unit"] == "volts"
        ends = units["spike_times_index"][()].astype(int)
        parts = np.split(units["spike_times"][()], ends[:-1])
        rows = zip(units["population"].asstr()[()], units["cell"][()], units["position"][()], parts, strict=True)
        found = 0
        for population, cell, position, times in rows:
            assert np.array_equal(times, traces.spikes[population].of(cell, sample=position))
            found += len(times)
        assert found == sum(len(s.time) for s in traces.spikes.values())
        assert units["spike_times"].attrs["resolution"] == 5e-5


def test_neo_reads_the_nwb_file(files, recordings):
    """Neo's own reader of NWB, which knows nothing of neurosim."""
    block = neo.io.NWBIO(str(files["spikes"]), mode="r").read_all_blocks()[0]
    with Traces.load(recordings["spikes"]) as traces:
        signals = {s.name: s for segment in block.segments for s in segment.analogsignals}
        got = signals["both.V_s sample 0"]
        assert np.allclose(got.rescale("mV").magnitude, 1e3 * traces["both.V_s"][:, 0])
        assert got.sampling_rate == 20 * pq.kHz
        epoch = next(e for segment in block.segments for e in segment.epochs)
        assert list(np.ravel(epoch.labels)) == ["trial"]
        assert float(epoch.durations[0].rescale("ms")) == pytest.approx(120)
        trains = [t for segment in block.segments for t in segment.spiketrains]
        assert sorted(len(t) for t in trains if len(t)) == sorted(
            len(s.of(0, sample=k)) for s in traces.spikes.values() for k in (0, 1) if len(s.time)
        )


def gapped(phases, *, rows=True) -> Traces:
    """Spikes every 10 ms, and rows every ms, in the given phases (start, stop) in ms."""
    inside = lambda t: np.any([(a <= t) & (t < b) for a, b in phases], axis=0)  # noqa: E731
    time, spikes = np.arange(0.0, 300.0), np.arange(5.0, 300.0, 10.0)
    time, spikes = time[inside(time)] * 1e-3, spikes[inside(spikes)] * 1e-3
    none = np.zeros(len(spikes), dtype=np.int64)
    return Traces(
        time if rows else np.empty(0), {"n.I": np.ones((len(time), 1, 1))} if rows else {}, {"n.I": "amp"} if rows else {},
        [PhaseSpan(f"p{k}", 0, a * 1e-3, b * 1e-3) for k, (a, b) in enumerate(phases)], {}, {"n": Spikes(spikes, none, none)},
        spike_cells={"n": np.array([0, 1])} if not rows else {},
    )  # fmt: skip


@pytest.mark.parametrize("rows", [True, False])
@pytest.mark.parametrize(
    ("phases", "spans"),
    [
        ([(0, 100), (200, 300)], [(0, 0.1), (0.2, 0.3)]),
        ([(0, 100), (100, 150), (200, 230), (230, 300)], [(0, 0.15), (0.2, 0.3)]),
        ([(20, 60), (60, 100)], [(0.02, 0.1)]),
    ],
)
def test_unrecorded_time_is_not_called_observed(phases, spans, rows, tmp_path):
    traces = gapped(phases, rows=rows)
    with h5py.File(to_nwb(traces, tmp_path / "gap.nwb")) as file:
        cells = len(file["units/id"])
        assert cells == (1 if rows else 2)
        assert np.allclose(file["units/obs_intervals"][()], spans * cells, rtol=0, atol=1e-12)
        assert list(file["units/obs_intervals_index"][()]) == [len(spans) * (k + 1) for k in range(cells)]
    train = to_neo(traces).segments[0].spiketrains[0]  # one start and one stop: as the page says, gaps included
    assert (float(train.t_start), float(train.t_stop)) == pytest.approx((spans[0][0], spans[-1][1]))


def test_observed_time_without_phases_is_that_of_rows_and_spikes(recordings):
    none = replace(gapped([(0, 100), (200, 300)]), phases=[])
    assert np.allclose(layout.observed(none), [(0, 0.299)])
    assert layout.observed(Traces(np.empty(0), {}, {}, [], {}, {"n": Spikes(*np.empty((3, 0)))})) == []
    with Traces.load(recordings["spikes"]) as traces:
        assert np.allclose(layout.observed(traces), [(0, 0.12)])


@pytest.mark.parametrize("suffix", ["nwb", "csv"])
def test_a_full_disk_leaves_the_earlier_file_and_nothing_else(suffix, recordings, tmp_path):
    write, path = {"nwb": to_nwb, "csv": to_csv}[suffix], tmp_path / f"traces.{suffix}"
    with Traces.load(recordings["brian2"]) as traces:
        write(traces, path)
        before, there = path.read_bytes(), sorted(tmp_path.iterdir())
        for size in (1000, len(before) // 2, len(before) - 1000):
            with largest_file(size), pytest.raises(OSError, match="File too large"):
                write(traces, path)
            assert path.read_bytes() == before and sorted(tmp_path.iterdir()) == there


# ----------------------------------------------------------------------------------------------------------- CSV


@pytest.mark.parametrize("name", ["brian2", "float32", "chosen"])
def test_csv_holds_the_same_numbers(name, recordings, tmp_path):
    with Traces.load(recordings[name]) as traces:
        written = to_csv(traces, tmp_path / "traces.csv")
        assert [path.name for path in written] == ["traces.csv", "traces.phases.csv"]
        table = np.genfromtxt(written[0], delimiter=",", names=True, deletechars="", replace_space=" ")
        assert np.array_equal(table["time (s)"], traces.time)
        columns = 1
        for variable, values in traces.values.items():
            population = variable.partition(".")[0]
            for column, cell in enumerate(traces.cells_of(population)):
                for sample in (0, 1):
                    got = table[f"{variable}[{cell}] sample {sample} (1)"].astype(values.dtype)
                    assert np.array_equal(got, values[:, sample, column])
                    columns += 1
        assert columns == len(table.dtype.names)
        rows = list(csv.DictReader(written[1].open()))
        assert [(r["phase"], int(r["trial"]), float(r["start (s)"]), float(r["stop (s)"])) for r in rows] == [
            (p.name, p.trial, p.start, p.stop) for p in traces.phases
        ]


def test_csv_of_spikes(recordings, tmp_path):
    with Traces.load(recordings["spikes"]) as traces:
        path = to_csv(traces, tmp_path / "traces.csv")[2]
        rows = [(r["population"], r["cell"], r["sample"], r["time (s)"]) for r in csv.DictReader(path.open())]
        assert path.name == "traces.spikes.csv" and len(rows) == sum(len(s.time) for s in traces.spikes.values())
        for population, spikes in traces.spikes.items():
            times = [float(time) for p, c, s, time in rows if (p, c, s) == (population, "0", "1")]
            assert np.array_equal(times, spikes.of(0, sample=1))
        assert (tmp_path / "traces.csv").read_text().startswith("time (s),both.V_s[0] sample 0 (volt),")
    with Traces.load(recordings["convolution"]) as traces:
        before = {file: file.read_bytes() for file in tmp_path.iterdir()}
        wanted = f"There is '{path}', but these traces have no spikes: it would seem to be of them. Move or remove it"
        with pytest.raises(NeurosimError, match=re.escape(wanted)):
            to_csv(traces, tmp_path / "traces.csv")
        assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before
        to_csv(traces, tmp_path / "other.csv")
        header = (tmp_path / "other.csv").read_text().partition("\n")[0]
        assert header.startswith("time (s),map.u[4] (siemens / (meter ** 2)),map.u[0]")


# ------------------------------------------------------------------------------------------------ what goes wrong


EMPTY = Traces(np.empty(0), {"a.u": np.empty((0, 1, 2))}, {"a.u": "1"}, [])


@pytest.mark.parametrize("write", [to_neo, lambda t: to_nwb(t, "a.nwb"), lambda t: to_csv(t, "a.csv")])
def test_empty_traces_are_refused(write):
    with pytest.raises(NeurosimError, match=r"The traces are empty: no row of a variable.*Record something"):
        write(EMPTY)


@pytest.mark.parametrize(
    ("module", "call", "text"),
    [
        ("neo", lambda: to_neo(convolution()), r"This needs neo .*pip install 'neurosim\[neo\]'"),
        ("pynwb", lambda: to_nwb(convolution(), "a.nwb"), r"This needs pynwb .*pip install 'neurosim\[nwb\]'"),
        ("pynwb", lambda: from_nwb("a.nwb"), r"This needs pynwb .*pip install 'neurosim\[nwb\]'"),
    ],
)
def test_a_missing_library_is_named_with_its_extra(module, call, text, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(NeurosimError, match=text):
        call()


def test_wrong_targets(tmp_path):
    traces = convolution()
    for write, suffix in ((to_nwb, "nwb"), (to_csv, "csv")):
        with pytest.raises(NeurosimError, match=f"wanted a name that ends in .{suffix}"):
            write(traces, tmp_path / "traces.txt")
        with pytest.raises(NeurosimError, match=r"The folder '.*nowhere' does not exist; make it"):
            write(traces, tmp_path / "nowhere" / f"traces.{suffix}")
    with pytest.raises(NeurosimError, match="Only weights were recorded, and CSV holds none"):
        to_csv(replace(traces, values={}, units={}), tmp_path / "traces.csv")
    with pytest.raises(NeurosimError, match="The unit 'furlongz' is none that Neo's package quantities knows"):
        to_neo(replace(traces, units={"map.u": "furlongz"}))


def test_files_and_blocks_of_others(tmp_path, recordings, files):
    with pytest.raises(NeurosimError, match=r"There is no NWB file '.*none.nwb'"):
        from_nwb(tmp_path / "none.nwb")
    (tmp_path / "text.nwb").write_text("no HDF5")
    with pytest.raises(NeurosimError, match="is no HDF5 file, as NWB files are"):
        from_nwb(tmp_path / "text.nwb")
    with pytest.raises(NeurosimError, match="is an HDF5 file but no NWB file"):
        from_nwb(recordings["brian2"])
    foreign = tmp_path / "foreign.nwb"
    with pynwb.NWBHDF5IO(foreign, "w") as writer:
        writer.write(pynwb.NWBFile("a session", "1", nwb_export.NO_DATE, notes="washed at noon"))
    with pytest.raises(NeurosimError, match=r"was not written by neurosim.export.to_nwb"):
        from_nwb(foreign)
    newer = tmp_path / "newer.nwb"
    newer.write_bytes(files["convolution"].read_bytes())
    with h5py.File(newer, "r+") as file:
        notes = json.loads(file["general/notes"].asstr()[()])
        file["general/notes"][()] = json.dumps(notes | {"neurosim": nwb_export.FORMAT + 1})
    with pytest.raises(NeurosimError, match=r"has layout 2; this version reads up to 1. Update neurosim"):
        from_nwb(newer)
    with pytest.raises(
        NeurosimError, match=r"The block 'mine' lacks the annotations time, .*made by neurosim.export.to_neo"
    ):
        from_neo(neo.Block(name="mine"))
    block = to_neo(Traces(np.arange(3) * DT, {"a.u": np.zeros((3, 2, 1))}, {"a.u": "1"}, [], {}))
    block.segments[1].analogsignals.pop()
    with pytest.raises(NeurosimError, match=r"The signals 'a.u' do not match: .* in 2 segments; wanted one in each"):
        from_neo(block)


# --------------------------------------------------------------------------------------------------- command line


@pytest.fixture
def cli(capsys):
    def run(*words) -> tuple[int, str, str]:
        code = main([str(word) for word in ("export", *words)])
        return code, *capsys.readouterr()

    return run


def test_command_line_writes_by_suffix(cli, recordings, tmp_path):
    assert cli(recordings["chosen"], "--to", tmp_path / "a.nwb") == (0, f"wrote {tmp_path / 'a.nwb'}\n", "")
    with Traces.load(recordings["chosen"]) as traces:
        assert_equal(from_nwb(tmp_path / "a.nwb"), traces)
    code, out, _ = cli(recordings["chosen"], "--to", tmp_path / "a.csv")
    assert code == 0 and out.splitlines() == [
        f"wrote {tmp_path / 'a.csv'}",
        f"wrote {tmp_path / 'a.phases.csv'}",
        "left out the weights of W1: CSV holds none, .nwb does",
    ]


def test_command_line_selects(cli, recordings, tmp_path):
    folder, to = tmp_path / "run", tmp_path / "part.nwb"
    folder.mkdir()
    (folder / "recording.h5").write_bytes(recordings["brian2"].read_bytes())
    words = ("--record", "pyr1.u", "--cells", "pyr1=6,2", "--phases", "free", "--trials", "1")
    assert cli(folder, "--to", to, *words)[0] == 0
    with Traces.load(recordings["brian2"]) as traces:
        got = from_nwb(to)
        assert list(got.values) == ["pyr1.u"] and list(got.cells["pyr1"]) == [6, 2]
        assert np.array_equal(got["pyr1.u"], traces["pyr1.u"][600:900][:, :, [6, 2]])
        assert [(p.name, p.trial) for p in got.phases] == [("free", 1)]


def test_command_line_refusals(cli, recordings, tmp_path):
    recording, to = recordings["convolution"], tmp_path / "a.csv"
    assert cli(recording, "--to", to)[0] == 0
    before = to.read_bytes()
    code, _, err = cli(recordings["brian2"], "--to", to)
    assert (code, to.read_bytes()) == (1, before)
    assert err == f"error: There is already {to} and {tmp_path / 'a.phases.csv'}; give another --to, or --overwrite.\n"
    assert cli(recordings["brian2"], "--to", to, "--overwrite")[0] == 0 and to.read_bytes() != before
    (tmp_path / "mine.spikes.csv").write_text("my own")
    code, _, err = cli(recording, "--to", tmp_path / "mine.csv", "--overwrite")
    assert code == 1 and f"There is '{tmp_path / 'mine.spikes.csv'}', but these traces have no spikes" in err
    assert (tmp_path / "mine.spikes.csv").read_text() == "my own"
    (tmp_path / "mine.spikes.csv").unlink()
    folder = tmp_path / "folder.nwb"
    folder.mkdir()
    code, _, err = cli(recording, "--to", folder, "--overwrite")
    assert (code, err) == (1, f"error: --to {folder} is a folder; give the name of a file.\n")
    folder.rmdir()
    with largest_file(1000):
        code, _, err = cli(recordings["brian2"], "--to", tmp_path / "b.nwb")
    assert code == 1 and err.endswith("(ulimit -f): raise it, or write elsewhere with --to.\n") and "--out" not in err
    for words, text in (
        ((recording, "--to", tmp_path / "a.mat"), "(the suffix '.mat'); wanted one of .nwb, .csv. Neo objects: neurosim.export.to_neo"),
        ((recording, "--to", tmp_path / "traces"), "(no suffix); wanted one of .nwb, .csv."),
        ((tmp_path / "none.h5", "--to", tmp_path / "b.nwb"), f"There is no trace file '{tmp_path / 'none.h5'}'"),
        ((tmp_path, "--to", tmp_path / "b.nwb"), f"The folder '{tmp_path}' holds no traces.h5 and no recording.h5"),
        ((recording, "--to", tmp_path / "no" / "b.nwb"), f"The folder '{tmp_path / 'no'}' does not exist"),
        ((recording, "--to", tmp_path / "b.nwb", "--record", "map.v"), "There is no recorded variable or projection 'map.v'"),
        ((recording, "--to", tmp_path / "b.nwb", "--cells", "map"), "--cells map: wanted a population and numbers of cells"),
    ):  # fmt: skip
        code, _, err = cli(*words)
        assert code == 1 and text in err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.csv", "a.phases.csv"]
