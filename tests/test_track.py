"""The live view: what TensorBoard's own reader finds in the events against the run's files."""

from __future__ import annotations

import builtins
import json

import numpy as np
import pytest

import neurosim
from neurosim import Traces
from neurosim.errors import NeurosimError
from neurosim.traces import PhaseSpan
from neurosim.training import resume, train
from neurosim.training import trainer as training
from neurosim.training.run import RECORDING
from neurosim.training.track import FOLDER, Tracker

SMALL = {"sizes": (64, 8, 10), "t_free": "30*ms", "t_nudged": "30*ms"}


def read_rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def events(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder / FOLDER), size_guidance={"scalars": 0, "histograms": 0, "images": 0})
    found.Reload()
    return found


def curve(found, tag):
    return [(e.step, e.value) for e in found.Scalars(tag)]


def assert_shows(folder):
    rows, timing = neurosim.load(folder).metrics, read_rows(folder / "timing.jsonl")
    found = events(folder)
    for tag, key, source in (
        ("accuracy/train", "train_accuracy", rows), ("loss/validation", "validation_loss", rows),
        ("metrics/ghost_residual", "ghost_residual", rows), ("metrics/seconds", "seconds", timing),
    ):  # fmt: skip
        steps, values = zip(*curve(found, tag), strict=True)
        assert steps == tuple(row["epoch"] for row in rows)
        np.testing.assert_allclose(values, [row[key] for row in source], rtol=1e-6)


def test_a_training_is_shown_with_what_it_records(tmp_path):
    train(
        "ghost_units", tmp_path, settings=SMALL, epochs=2, limit=64, level="torch:trajectory", batch_size=16, track=True,
        recorder={"variables": ["pyr1.u", "W1"], "stride": 5}, progress=False,
    )  # fmt: skip
    assert_shows(tmp_path)
    found, traces = events(tmp_path), Traces.load(tmp_path / RECORDING)
    assert [e.step for e in found.Images("traces")] == [1, 2]
    trials = sorted({span.trial for span in traces.phases})
    assert trials == [0, 4]
    for k, shown in enumerate(found.Histograms("pyr1.u/nudged")):
        last = traces.select(["pyr1.u"], trials=[trials[k]], phases=["nudged"])["pyr1.u"][-1]
        value = shown.histogram_value
        assert value.num == last.size
        np.testing.assert_allclose((value.min, value.max), (last.min(), last.max()), rtol=1e-6)
    # Taken at the starts of the epochs: the first is of the initial weights.
    first, second = (e.histogram_value for e in found.Histograms("weights/W1"))
    np.testing.assert_allclose(first.max, traces.weights["W1"][0].max(), rtol=1e-6)
    np.testing.assert_allclose(second.max, traces.weights["W1"][1].max(), rtol=1e-6)


def test_a_run_that_goes_on_is_shown_on_without_doubles(tmp_path, monkeypatch):
    real, calls = training.Trainer.epoch, []

    def stop_in_the_third(self, number, *rest):
        calls.append(number)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, number, *rest)

    monkeypatch.setattr(training.Trainer, "epoch", stop_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        train("ghost_units", tmp_path, settings=SMALL, epochs=4, limit=64, track=True, checkpoint=0.0, progress=False)
    resume(tmp_path, progress=False)
    assert_shows(tmp_path)


def test_another_run_in_the_folder_begins_a_new_view(tmp_path):
    for epochs in (3, 1):
        train(
            "ghost_units", tmp_path, settings=SMALL, epochs=epochs, limit=64, track=True, overwrite=True, progress=False
        )
    assert_shows(tmp_path)


def test_an_evolution_is_shown(tmp_path, capsys):
    from neurosim.cli import main

    command = [
        "evolve",
        "tdca",
        "--generations",
        "3",
        "--population",
        "5",
        "--steps",
        "2",
        "--set",
        "sizes=64,8,10",
        "--track",
    ]
    assert main([*command, "--out", str(tmp_path)]) == 0, capsys.readouterr().err
    rows = read_rows(tmp_path / "metrics.jsonl")
    found = curve(events(tmp_path), "metrics/best")
    assert [step for step, _ in found] == [0, 1, 2]
    np.testing.assert_allclose([value for _, value in found], [row["best"] for row in rows], rtol=1e-6)


def test_without_tensorboard_the_extra_is_named_before_anything_is_written(tmp_path, monkeypatch):
    real = builtins.__import__

    def no_tensorboard(name, *rest):
        if name.startswith("tensorboard"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", no_tensorboard)
    with pytest.raises(NeurosimError, match=r"pip install 'neurosim\[track\]'"):
        train("ghost_units", tmp_path / "run", settings=SMALL, epochs=1, track=True, progress=False)
    assert not (tmp_path / "run").exists()


def test_tracking_wants_a_folder():
    with pytest.raises(NeurosimError, match="track writes into the run folder"):
        train("ghost_units", settings=SMALL, epochs=1, track=True, progress=False)


def test_values_without_a_place_in_a_histogram_do_not_end_the_run(tmp_path):
    tracker = Tracker(tmp_path)
    values = np.array([[[1.0, np.inf, 2.0]]]), np.full((1, 1, 3), np.inf), np.array([[[np.nan, -1.0, 3.0]]])
    for epoch, value in enumerate(values):
        span = PhaseSpan("free", epoch, epoch * 1.0, epoch + 1.0)
        tracker.recorded(epoch, Traces(np.array([epoch + 0.5]), {"out.s": value}, {"out.s": "1"}, [span], {}))
    tracker.close()
    shown = events(tmp_path).Histograms("out.s/free")
    assert [(e.step, e.histogram_value.num, e.histogram_value.sum) for e in shown] == [(0, 2, 3.0), (2, 2, 2.0)]
