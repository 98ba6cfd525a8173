"""The experiments on evolved credits at their smallest, and what hidden credit is good for."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from neurosim import data
from neurosim.training.evolution.config import resolved
from neurosim.training.evolution.run import run

HERE = Path(__file__).parent.parent / "experiments" / "tdca"


def forget():
    """The folder's modules have names that other folders of experiments have too."""
    for name, module in list(sys.modules.items()):
        if Path(getattr(module, "__file__", None) or ".").parent == HERE:
            del sys.modules[name]


@pytest.fixture
def folder(monkeypatch):
    """The folder of the experiments, from which modules can be imported."""
    monkeypatch.syspath_prepend(HERE)
    yield HERE
    forget()


@pytest.fixture
def script(folder, monkeypatch, tmp_path):
    """Run a script of the folder as its command line would; returns the folder of its results."""
    monkeypatch.setenv("NEUROSIM_DATA", str(tmp_path / "no_data"))

    def run(name: str, *arguments: str) -> Path:
        options = ["--quick", "--out", str(tmp_path / "out"), "--runs", str(tmp_path / "runs"), *arguments]
        monkeypatch.setattr(sys, "argv", [str(folder / f"{name}.py"), *options])
        importlib.import_module(name).main()
        return tmp_path / "out"

    return run


def results(out: Path, name: str, *figures: str) -> dict:
    for file in (f"{name}.md", *(f"{figure}.png" for figure in figures or (name,))):
        assert (out / file).stat().st_size > 0
    assert not list(out.glob("*.jsonl"))
    return json.loads((out / f"{name}.json").read_text())


# ---------------------------------------------------------------- plans


def test_plans_of_diffusion_differ_in_diffusion_alone(folder):
    entries = importlib.import_module("diffusion").entries(2)
    configs = [
        resolved("tdca", e["settings"], data="digits", **{k: v for k, v in e.items() if k not in ("name", "settings")})
        for e in entries
    ]
    assert len({e["name"] for e in entries}) == len(entries) == 22
    assert {c.seed for c in configs[:11]} == {0} and {c.seed for c in configs[11:]} == {
        1
    }  # one seed of all cases first
    for c in configs:
        assert (c.strategy, c.fitness, c.batch, c.tasks, c.generations, c.steps) == (
            "meta_gradient",
            "mean",
            128,
            4,
            300,
            30,
        )


def test_tasks_of_the_test_are_drawn_and_relabelled(folder):
    transfer = importlib.import_module("transfer")
    digits = data.load("digits")
    seen = set()
    for m in range(5):
        chosen = transfer.chosen_classes(m, digits.classes)
        seen.add(tuple(chosen))
        task = transfer.task_of(digits, m)
        images, labels = digits.split("test")
        rows = np.flatnonzero(np.isin(labels, chosen))
        np.testing.assert_array_equal(task.test_images, images[rows])
        np.testing.assert_array_equal(chosen[task.test_labels], labels[rows])
        assert task.classes == 4 and len(set(chosen)) == 4
    assert len(seen) == 5


# ---------------------------------------------------------------- scripts


def test_training_inside_brian2_follows_the_fixed_point(script):
    found = results(script("inside_brian2"), "inside_brian2")
    assert [(r["level"], r["kind"].split(",")[0]) for r in found["rows"]] == [
        ("brian2:dense", "a credit for each cell"),
        ("torch:steady", "a credit for each cell"),
        ("brian2:dense", "a messenger"),
        ("torch:steady", "a messenger"),
    ]
    for inside, outside in zip(found["rows"][::2], found["rows"][1::2], strict=True):
        assert (
            inside["failed"] is None
            and inside["validation"] == outside["validation"]
            and inside["test"] == outside["test"]
        )
    for chosen in found["chosen"].values():
        assert chosen["unsettled"] < 1e-3 and chosen["apart"] == 0


def test_other_data_sets_and_tasks_are_taught(script, tmp_path, capsys):
    found = results(script("transfer"), "transfer", "transfer", "transfer_tasks")
    assert [(r["part"], r["credit"]) for r in found["rows"]] == [
        ("data sets", "digits"), ("data sets", "bp"), ("data sets", "dfa"), ("tasks", "4-way tasks"), ("tasks", "bp"), ("tasks", "dfa"),
    ]  # fmt: skip
    said = capsys.readouterr().out
    for missing in (
        "no net evolved on MNIST",
        "no net evolved on FashionMNIST",
        "MNIST as a target",
        "FashionMNIST as a target",
    ):
        assert f"Skipped: {missing}" in said
    for r in found["rows"]:
        assert len(r["test_accuracy"]) == (10 if r["part"] == "data sets" else 2)
        assert ("own_rate" in r) == (r["credit"] not in ("bp", "dfa"))
    # A net of another folder joins, and what was found is kept.
    shutil.copytree(tmp_path / "runs" / "digits", tmp_path / "runs" / "mnist")
    more = results(script("transfer"), "transfer", "transfer", "transfer_tasks")["rows"]
    assert [r["credit"] for r in more] == ["digits", "mnist", "bp", "dfa", "4-way tasks", "bp", "dfa"]
    assert more[0] == found["rows"][0] and more[1]["test_accuracy"] == more[0]["test_accuracy"]


@pytest.mark.slow
def test_diffusion_compares_ratios_kernels_lattices_and_widths(script):
    found = results(script("diffusion"), "diffusion")
    cases, widths = ([r for r in found["rows"] if r["part"] == part] for part in ("cases", "widths"))
    searched = [r["searched"] for r in cases if r["kernel"] == "gauss" and r["width"] == 32]
    assert searched == [3854, 2862, 2366, 2118, 1994, 1932]
    assert [r["sites"] for r in cases] == [32, 16, 8, 4, 2, 1, 8, 8, 8, 9, 9]
    assert len({r["presented"] for r in cases}) == 1
    assert [(r["width"], r["credit"]) for r in widths] == [
        (w, c) for w in (16, 24, 32, 48, 64, 128) for c in ("evolved", "backprop")
    ]


# ---------------------------------------------------------------- acceptance


@pytest.mark.slow
def test_learning_needs_the_credit_of_hidden_cells(folder, tmp_path):
    """A short unrolled evolution; with the credits of hidden cells at 0 its learners end far lower on what they learn from."""
    classification = importlib.import_module("classification")
    config = resolved(
        "tdca", {"sizes": (64, 16, 16, 10)}, normalise="standard", strategy="meta_gradient", generations=120, tasks=2, test=False
    )  # fmt: skip
    run(config, tmp_path / "run", progress=False)
    dataset = data.normalise(data.load("digits"), "standard")
    teacher = classification.Teacher({"credits": str(tmp_path / "run")}, {}, dataset, quick=False)
    whole = np.mean(teacher.live("adam", 0.03, tuple(range(10_000, 10_010)), ("train",))["train_accuracy"])
    without = np.mean(classification.without_hidden_credit(teacher, 0.03)["train_without"])
    assert whole > 0.65 and without < whole - 0.2, (whole, without)
