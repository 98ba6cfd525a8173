"""The experiment files of counter-current learning: each describes runs that can be built, those without data here train on tiny files of
the same formats; and the scripts run at their smallest.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from neurosim import data
from neurosim.analysis import report
from neurosim.data.cifar import CIFAR100, CifarBinary
from neurosim.data.stl10 import STL10, Stl10Binary
from neurosim.training import load, resolve
from neurosim.training.start import start, train
from neurosim.training.sweep import expand

HERE = Path(__file__).parent.parent / "experiments" / "counter_current"
FILES = sorted(path.name for path in HERE.glob("*.toml"))
METHODS = {"circuit", "backprop", "feedback_alignment", "direct_feedback_alignment"}
RANDOM = np.random.RandomState(7)
TRAIN, TEST = 10, 4


def forget():
    """The folder's modules have names that other folders of experiments have too."""
    for name, module in list(sys.modules.items()):
        if Path(getattr(module, "__file__", None) or ".").parent == HERE:
            del sys.modules[name]


@pytest.fixture
def script(monkeypatch, tmp_path):
    """Run a script of the folder as its command line would; returns the folder of its results."""
    monkeypatch.syspath_prepend(HERE)
    for name in ("_common", "_tables"):  # of other experiments
        monkeypatch.delitem(sys.modules, name, raising=False)

    def run(name: str, *arguments: str) -> Path:
        monkeypatch.setattr(sys, "argv", [str(HERE / f"{name}.py"), "--out", str(tmp_path / "out"), *arguments])
        importlib.import_module(name).main()
        return tmp_path / "out"

    yield run
    forget()


# ---------------------------------------------------------------- experiment files


@pytest.mark.parametrize("file", FILES)
def test_a_file_describes_five_seeds_of_each_method(file):
    configs = expand(HERE / file)
    assert {config.seed for config in configs} == set(range(5))
    maps = file.endswith("_cnn.toml") or file == "stl10.toml"
    assert {config.method for config in configs} == ({"circuit", "backprop"} if maps else METHODS)
    for config in configs:
        assert config.select == "best" and config.test and config.hold_out
        if config.method == "circuit":
            assert config.learning_rate == (0.8 if file == "cifar10_jpeg.toml" else 1)
            assert config.clip_by == ("rule" if config.clip is not None else "all")
            assert config.settings["activation"] == "elu"


def md5(content):
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def write(folder, files):
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)


def tiny_cifar100(folder):
    """Records of a coarse and a fine label, then three planes of 32 x 32."""
    files = {
        f"{part}.bin": b"".join(
            bytes([RANDOM.randint(20), RANDOM.randint(100)]) + RANDOM.bytes(3 * 32 * 32) for _ in range(count)
        )
        for part, count in (("train", TRAIN), ("test", TEST))
    }
    write(folder / "cifar-100-binary", files)
    form = CifarBinary(
        folder="cifar-100-binary", archive="none", archive_md5="", records=(TRAIN, TEST), files=dict.fromkeys(files), classes=(20, 100),
    )  # fmt: skip
    return dataclasses.replace(CIFAR100, forms=(form,), train=TRAIN - 2, validation=2, test=TEST)


def tiny_stl10(folder):
    """Three planes of 96 x 96 per image, labels from 1 in a file of their own."""
    files = {}
    for part, count in (("train", TRAIN), ("test", TEST)):
        files[f"{part}_X.bin"] = RANDOM.bytes(count * 3 * 96 * 96)
        files[f"{part}_y.bin"] = bytes(1 + RANDOM.randint(0, 10, count).astype(np.uint8))
    write(folder / "stl10_binary", files)
    form = Stl10Binary(
        folder="stl10_binary", archive="none", archive_md5="", train=TRAIN, test=TEST, files={name: md5(x) for name, x in files.items()},
    )  # fmt: skip
    return dataclasses.replace(STL10, forms=(form,), train=TRAIN - 2, validation=2, test=TEST)


@pytest.mark.parametrize("name", ["cifar100", "stl10"])
def test_the_runs_train_on_tiny_files_of_the_published_formats(name, tmp_path, monkeypatch):
    make = {"cifar100": tiny_cifar100, "stl10": tiny_stl10}[name]
    monkeypatch.setitem(data._SOURCES, name, make(tmp_path))
    monkeypatch.setenv("NEUROSIM_CACHE", str(tmp_path / "cache"))
    configs = [config for config in expand(HERE / f"{name}.toml") if config.seed == 0]
    assert len(configs) == {"cifar100": 6, "stl10": 2}[name]
    for k, config in enumerate(configs):
        sizes = config.settings["sizes"]
        small = (sizes[0], *([4] * (len(sizes) - 2)), sizes[-1])
        config = dataclasses.replace(config, epochs=1, batch_size=4, settings={**config.settings, "sizes": small})
        start(config, tmp_path / f"run{k}", str(tmp_path), progress=False)
        assert np.isfinite(load(tmp_path / f"run{k}").result["test_loss"])


# ---------------------------------------------------------------- scripts


def test_a_table_collects_finished_and_unfinished_runs_and_keeps_earlier_ones(script, tmp_path):
    common = {"data": "digits", "epochs": 1, "progress": False, "settings": {"sizes": (64, 8, 10)}}
    train("counter_current", tmp_path / "runs" / "a", **common)
    train("counter_current", tmp_path / "runs" / "b", method="backprop", optimiser="sgd", learning_rate=0.1, **common)
    (tmp_path / "runs" / "b" / "result.json").unlink()
    rows = json.loads((script("table1", "--runs", str(tmp_path / "runs")) / "table1.json").read_text())["rows"]
    assert [(row["method"], row["state"]) for row in rows] == [
        ("counter_current", "finished"),
        ("backprop", "unfinished"),
    ]
    assert rows[0]["test"] > 0.05 and rows[1]["test"] is None and rows[1]["epochs_done"] == 1
    train("counter_current", tmp_path / "more", seed=1, **common)
    out = script("table1", "--runs", str(tmp_path / "more"))
    rows = json.loads((out / "table1.json").read_text())["rows"]
    assert [(row["method"], row["seed"]) for row in rows] == [
        ("counter_current", 0),
        ("counter_current", 1),
        ("backprop", 0),
    ]
    with pytest.raises(SystemExit):  # no CNN among them
        script("table3", "--runs", str(tmp_path / "runs"))


def test_the_published_operations_stand_beside_ours(script):
    rows = json.loads((script("flops") / "flops.json").read_text())["rows"]
    for row in rows[:2]:
        assert row["published"] == [round(row["backprop"], 2), round(row["ccl"], 2)]
    assert [round(row["ccl_per_sample"], 2) for row in rows[:2]] == [4.07, 43.01]


def test_follow_reads_at_the_updates_asked_for_and_stops(script):
    common = importlib.import_module("_common")
    config = resolve("counter_current", {"sizes": (64, 8, 10)}, data="digits", batch_size=64)
    seen: list[int] = []
    weights: list[np.ndarray] = []

    def read(update, trainer, found):
        seen.append(update)
        weights.append(found["U1"])

    trainer = common.follow(config, (0, 3, 25), read)  # 20 batches an epoch
    assert seen == [0, 3, 25] and not np.array_equal(weights[0], weights[1])
    np.testing.assert_array_equal(trainer.engine.weights()["U1"], weights[2])
    images, labels = common.validation(config, 30)
    activity = common.Streams(config.settings, images, labels)(trainer.engine.weights())
    own = trainer.engine.weights()["V2"][labels]
    np.testing.assert_allclose(activity["D1.r"], np.where(own > 0, own, np.expm1(own)), rtol=1e-5, atol=1e-6)


def test_streams_without_scikit_learn_says_what_to_install(script, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    with pytest.raises(SystemExit, match="pip install scikit-learn"):
        importlib.import_module("streams").embedding()


def test_collected_rows_are_not_run_again(tmp_path):
    ran: list[int] = []

    def run(seed, epochs):
        ran.append(seed)
        return {"test": 0.5 + seed / 10}

    jobs = [{"seed": seed, "epochs": 2} for seed in range(2)]
    rows = report.collect("name", jobs[:1], run, tmp_path)
    (tmp_path / "name.json").write_text(json.dumps({"rows": rows}))  # as of a whole experiment
    (tmp_path / "name.jsonl").unlink()
    assert report.collect("name", jobs, run, tmp_path) == [{**job, "test": 0.5 + job["seed"] / 10} for job in jobs]
    report.collect("name", jobs, run, tmp_path)
    assert ran == [0, 1]
    report.collect("name", [{"seed": 0, "epochs": 3}], run, tmp_path)
    assert ran == [0, 1, 0]
    assert report.mean_sd([0.5, 0.6]) == "55.0 ± 7.1" and report.mean_sd([0.5], places=2) == "50.00"
    assert report.mean_sd([]) == "-"
