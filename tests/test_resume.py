"""Trainings that stop, by an exception, a signal or damage, and go on.

Oracle: the same training undisturbed. What is left must be equal to it bit for bit: metrics, weights, the result but for its seconds. A
folder that cannot be gone on with must stay as it is, byte for byte.
"""

from __future__ import annotations

import contextlib
import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from neurosim import data, files
from neurosim import tensors as tensor_files
from neurosim.cli import main
from neurosim.errors import NeurosimError
from neurosim.files import write_whole
from neurosim.models import ghost_units
from neurosim.training import Trainer, checkpoint, load, resolve, resume, trainer
from neurosim.training.start import start

FILES = {"config.toml", "run.json", "metrics.jsonl", "timing.jsonl", "weights.safetensors", "result.json"}
GHOST = {"sizes": (64, 8, 6, 10), "t_free": "30*ms", "t_nudged": "30*ms"}
PLASTIC = {"sizes": (64, 8, 10), "mode": "learned", "t_free": "30*ms", "t_nudged": "30*ms"}
MICRO = {"sizes": (64, 8, 10), "lateral": "self_predicting", "tau_w": "30*ms", "pattern": "25*ms"}
NOISY = {**MICRO, "sigma": 0.1}
EQPROP = {"sizes": (64, 8, 10), "t_free": "40*ms", "t_nudged": "30*ms"}
CODING = {"sizes": (64, 8, 10), "t_free": "40*ms", "t_clamped": "40*ms"}
SIGNS = {"sizes": (64, 8, 10)}
CLIPPED = {"decay": 0.9, "clip": 0.01}
WARM = {
    "warm_up": 6, "momentum": 0.8, "weight_decay": 1e-3, "schedule": "cosine", "final_rate": 0.01, "centralise": True, "clip": 0.05,
    "clip_by": "rule", "optimise": ("feedforward", "ghost"), "learning_rates": {"ghost": 0.1}, "select": "best",
}  # fmt: skip
ONE = {"batch_size": 1, "limit": 3, "epochs": 1}

#: model, settings, schedule. Four batches an epoch, two epochs, unless the schedule says otherwise.
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "steady, adam": ("ghost_units", GHOST, {"optimiser": "adam", **CLIPPED}),
    "steady, sgd": ("ghost_units", GHOST, {"optimiser": "sgd", "learning_rate": 0.5, **CLIPPED}),
    "steady, warm-up": ("ghost_units", PLASTIC, {"optimiser": "sgd", "learning_rate": 0.5, **WARM}),
    "steady, none": ("ghost_units", {**GHOST, "eta": 1.0}, {"optimiser": "none"}),
    "steady, anderson": ("predictive_coding", CODING, {"solver": "anderson", "tolerance": 1e-9, "dtype": "float64"}),
    "steady, plastic ghosts": ("ghost_units", PLASTIC, {"optimise": ("feedforward", "ghost")}),
    "steady, filtered": ("dendritic_microcircuit", MICRO, {"optimiser": "none"}),
    "steady, whole trials": ("equilibrium_propagation", EQPROP, {}),
    "trajectory, plastic ghosts": ("ghost_units", PLASTIC, {"level": "torch:trajectory"}),
    "trajectory, noise and filter": ("dendritic_microcircuit", NOISY, {"level": "torch:trajectory"}),
    "dense, plastic ghosts": ("ghost_units", PLASTIC, {"level": "brian2:dense"}),
    "dense, noise and filter": ("dendritic_microcircuit", NOISY, {"level": "brian2:dense"}),
    "dense, whole trials": ("equilibrium_propagation", EQPROP, {"level": "brian2:dense"}),
    "equations": ("ghost_units", {**PLASTIC, "sizes": (64, 4, 10)}, {"level": "brian2:equations", **ONE}),
    "equations, noise and filter": ("dendritic_microcircuit", {**NOISY, "sizes": (64, 4, 10)}, {"level": "brian2:equations", **ONE}),
    "steady, random signs": ("corinfomax", SIGNS, {"optimiser": "sgd", "final_after": 1, "final_decay": 0.5}),
    "trajectory, random signs": ("corinfomax", SIGNS, {"level": "torch:trajectory"}),
    "backprop": ("ghost_units", GHOST, {"method": "backprop", **CLIPPED}),
    "feedback alignment": ("ghost_units", GHOST, {"method": "feedback_alignment"}),
    "direct feedback alignment": ("ghost_units", GHOST, {"method": "direct_feedback_alignment", "optimiser": "sgd"}),
}  # fmt: skip
#: Brian2 builds its objects anew for each of these; one case of each of its levels is quick enough for every day.
SLOW = ("dense, plastic ghosts", "dense, whole trials", "equations")
#: Checkpoints after which a run is stopped: in the first epoch, at its end before it is evaluated, in the second, before the test.
POSITIONS = (1, 4, 8, 11)
FEW = {"trajectory": (1, 5, 7), "dense": (4,), "equations": (1,)}  # calls of two batches there


def configure(case: str, **more: Any) -> Any:
    model, settings, schedule = CASES[case]
    values = {"limit": 64, "batch_size": 16, "epochs": 2, "checkpoint": 0.0, "seed": 3, **schedule, **more}
    return resolve(model, settings, **values)


class Stopped(Exception):
    """In place of a signal."""


@contextlib.contextmanager
def stopped_after(saves: int) -> Iterator[None]:
    """Trainings inside stop once they have written so many checkpoints."""
    save, done = Trainer.save_checkpoint, 0

    def saved(self: Trainer, folder: Path) -> None:
        nonlocal done
        save(self, folder)
        done += 1
        if done == saves:
            raise Stopped

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(Trainer, "save_checkpoint", saved)
        yield


def result_of(folder: Path) -> dict[str, Any]:
    """The result but for what no two runs share."""
    result = json.loads((folder / "result.json").read_text())
    return {k: v for k, v in result.items() if not k.startswith("seconds")}


def assert_same(folder: Path, expected: Path) -> None:
    assert {p.name for p in folder.iterdir()} == FILES | (
        {"best.safetensors"} if load(folder).config.select == "best" else set()
    )
    assert (folder / "metrics.jsonl").read_bytes() == (expected / "metrics.jsonl").read_bytes()
    assert len((folder / "timing.jsonl").read_text().splitlines()) == len(load(expected).metrics)
    for file in expected.glob("*.safetensors"):
        mine, theirs = load_file(folder / file.name), load_file(file)
        assert mine.keys() == theirs.keys()
        for name, value in theirs.items():
            assert (mine[name].dtype, mine[name].shape) == (value.dtype, value.shape)
            assert np.array_equal(mine[name], value), name
    assert result_of(folder) == result_of(expected)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


# ------------------------------------------------------------------ in this process


@pytest.fixture(autouse=True)
def few_digits(monkeypatch) -> None:
    """In this process: 21 images (no whole number of batches) to validate and to test with."""
    digits = data.load("digits")
    parts = {f"{s}_{x}": getattr(digits, f"{s}_{x}")[:21] for s in ("validation", "test") for x in ("images", "labels")}
    few = replace(digits, **parts)
    monkeypatch.setattr(data, "load", lambda *a, **k: few)


@pytest.mark.parametrize("case", [pytest.param(c, marks=pytest.mark.slow) if c in SLOW else c for c in CASES])
def test_a_run_stopped_anywhere_goes_on_as_if_it_had_not_been(tmp_path, monkeypatch, case):
    monkeypatch.setattr(trainer, "BATCHES", 2)  # engines in time: checkpoints within an epoch
    config = configure(case)
    start(config, tmp_path / "whole", progress=False)
    for saves in FEW.get(case.partition(",")[0], POSITIONS):
        folder = tmp_path / f"stopped{saves}"
        with stopped_after(saves):
            start(config, folder, progress=False)
        assert not (folder / "result.json").exists()
        resume(folder, progress=False)
        assert_same(folder, tmp_path / "whole")


def test_a_run_stopped_after_each_batch_goes_on_as_if_it_had_not_been(tmp_path):
    config = configure("steady, adam")
    start(config, tmp_path / "whole", progress=False)
    with stopped_after(1):
        start(config, tmp_path / "run", progress=False)
    for _ in range(8):  # four batches and the end of each epoch
        with stopped_after(1):
            resume(tmp_path / "run", progress=False)
    resume(tmp_path / "run", progress=False)
    assert_same(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize("case", ["steady, adam", "trajectory, noise and filter"])
def test_a_run_from_given_weights(tmp_path, monkeypatch, case):
    monkeypatch.setattr(trainer, "BATCHES", 2)
    config = configure(case)
    weights = Trainer(configure(case, seed=8), progress=False).engine.weights()
    start(config, tmp_path / "whole", weights=weights, progress=False)
    for saves in (2, 4):  # the first one stands before the first batch, and a configuration follows it
        folder = tmp_path / f"stopped{saves}"
        with stopped_after(saves):
            start(config, folder, weights=weights, progress=False)
        resume(folder, progress=False)
        assert_same(folder, tmp_path / "whole")
    start(config, tmp_path / "drawn", progress=False)
    assert (tmp_path / "drawn" / "metrics.jsonl").read_bytes() != (tmp_path / "whole" / "metrics.jsonl").read_bytes()


def test_given_weights_are_not_replaced_by_drawn_ones(tmp_path):
    """They stand in the checkpoint only: without it the run cannot begin again."""
    config = configure("steady, adam")
    with stopped_after(2):
        start(
            config,
            tmp_path / "run",
            weights=ghost_units.circuit(**GHOST).initial_weights(8),
            progress=False,
            command="neurosim ...",
        )
    (tmp_path / "run" / checkpoint.NAME).unlink()
    before = contents(tmp_path / "run")
    with pytest.raises(
        NeurosimError, match=r"started from other weights .* Start it again: neurosim \.\.\. \(with --overwrite"
    ):
        resume(tmp_path / "run", progress=False)
    assert contents(tmp_path / "run") == before


@pytest.mark.parametrize(
    ("case", "forgotten"),
    [
        ("steady, adam", "optimiser"),
        ("steady, warm-up", "updates"),
        ("trajectory, noise and filter", "noise"),
        ("steady, random signs", "trials"),
        ("steady, none", "batches"),
        ("backprop", "weights"),
    ],
)
def test_a_checkpoint_that_forgets_is_noticed(tmp_path, monkeypatch, case, forgotten):
    """The comparison has teeth: whatever a checkpoint leaves out shows in the weights."""
    monkeypatch.setattr(trainer, "BATCHES", 2)
    config = configure(case)
    start(config, tmp_path / "whole", progress=False)
    with stopped_after(2):
        start(config, tmp_path / "run", progress=False)
    read = checkpoint.load

    def forgetful(folder: Path) -> Any:
        tensors, state = read(folder)
        if forgotten == "noise":
            state["noise"] = [0, 0]
        elif forgotten == "trials":
            state["trials"] = [7, 7]
        elif forgotten == "batches":
            state["at"]["batches"] = 0
        elif forgotten == "updates":
            tensors["optimiser/updates"] = np.array(0)
        else:
            tensors = {
                n: 0 * w if forgotten == "weights" else w for n, w in tensors.items() if not n.startswith("optimiser/")
            }
        return tensors, state

    monkeypatch.setattr(checkpoint, "load", forgetful)
    resume(tmp_path / "run", progress=False)
    with pytest.raises(AssertionError):
        assert_same(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize("junk", ['{"epoch": 2, "train_lo', '{"epoch": 2, "train_loss": 1.0}\n', "\x00\x00\n{"])
def test_lines_beyond_the_checkpoint_are_dropped(tmp_path, junk):
    """Metrics are written before the checkpoint that knows of them, and a full disk cuts a line in two."""
    config = configure("steady, adam")
    start(config, tmp_path / "whole", progress=False)
    with stopped_after(7):
        start(config, tmp_path / "run", progress=False)
    for name in ("metrics.jsonl", "timing.jsonl"):
        with open(tmp_path / "run" / name, "a") as file:
            file.write(junk)
    resume(tmp_path / "run", progress=False)
    assert_same(tmp_path / "run", tmp_path / "whole")


def test_without_a_checkpoint_a_run_begins_again(tmp_path):
    config = configure("steady, adam")
    start(config, tmp_path / "whole", progress=False)
    with stopped_after(7):
        start(config, tmp_path / "run", progress=False)
    (tmp_path / "run" / checkpoint.NAME).unlink()
    assert (tmp_path / "run" / "metrics.jsonl").read_text()
    resume(tmp_path / "run", progress=False)
    assert_same(tmp_path / "run", tmp_path / "whole")


def test_a_finished_run_is_left_as_it_is(tmp_path, capsys):
    start(configure("steady, adam"), tmp_path / "run", progress=False)
    before = contents(tmp_path / "run")
    accuracy = load(tmp_path / "run").result["test_accuracy"]
    assert main(["train", "--resume", str(tmp_path / "run")]) == 0
    assert (
        f"the run in {tmp_path / 'run'} has finished already: test accuracy {accuracy:.4f}" in capsys.readouterr().out
    )
    assert contents(tmp_path / "run") == before


def test_a_run_that_diverged_is_not_gone_on_with(tmp_path, capsys):
    """A linear delta-rule neuron with far too large a rate."""
    (tmp_path / "delta.py").write_text('''
from neurosim import SOURCE, Cell, Circuit, Constant, Dense, Phase, PlasticityRule, Population, Projection, Protocol, Readout

def circuit():
    cell = Cell("linear", """
        du/dt = (-u + I)/tau : 1
        r = u : 1
        error = y - u : 1
        I : 1 (port)
        y : 1 (input)
    """, {"tau": "10*ms"})
    rule = PlasticityRule("delta", "dw/dt = eta/T*error_post*r_pre", {"eta": 1e9, "T": "20*ms"})
    phases = (Phase("free", "60*ms"), Phase("learn", "20*ms", plastic=("delta",)))
    return Circuit(
        "delta",
        [Population("inp", 64, SOURCE), Population("out", 10, cell), Projection("W", "inp", "out.I", Constant(0), rule)],
        Protocol(phases, {"inp.r": "image", "out.y": "target"}), readout=Readout("out.r", "free"),
    )
''')  # fmt: skip
    config = resolve(f"{tmp_path / 'delta.py'}:circuit", optimiser="none", limit=512, batch_size=8, checkpoint=0.0)
    with pytest.raises(NeurosimError, match=r"'out\.u' is not finite"):
        start(config, tmp_path / "run", progress=False)
    failed = load(tmp_path / "run").result["failed"]
    assert "'out.u' is not finite" in failed
    before = contents(tmp_path / "run")
    assert main(["train", "--resume", str(tmp_path / "run")]) == 1
    err = capsys.readouterr().err
    assert f"The run in '{tmp_path / 'run'}' failed: {failed} It would fail again at the same place." in err
    assert contents(tmp_path / "run") == before


# ------------------------------------------------------------------ damage


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> Path:
    """A run that was stopped in its second epoch, which tests only read."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    with stopped_after(7):
        start(configure("steady, adam"), folder, progress=False)
    return folder


def header_of(content: bytes) -> int:
    """Where the tensors begin."""
    return 8 + int.from_bytes(content[:8], "little")


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def edited(pattern: str, other: str) -> Callable[[bytes], bytes]:
    """The header with a text of the same length in place of another."""

    def change(content: bytes) -> bytes:
        assert content.count(pattern.encode()) >= 1 and len(pattern) == len(other)
        return content.replace(pattern.encode(), other.encode(), 1)

    return change


DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda c: b"", "is truncated or no checkpoint"),
    "cut in the length": (lambda c: c[:5], "is truncated or no checkpoint"),
    "cut after the length": (lambda c: c[:8], "is truncated or no checkpoint"),
    "cut in the header": (lambda c: c[:200], "is truncated or no checkpoint"),
    "cut after the header": (lambda c: c[: header_of(c)], "is truncated or no checkpoint"),
    "cut in the tensors": (lambda c: c[: (header_of(c) + len(c)) // 2], "is truncated or no checkpoint"),
    "without its last byte": (lambda c: c[:-1], "is truncated or no checkpoint"),
    "longer": (lambda c: c + b"\0", "is truncated or no checkpoint"),
    "text": (lambda c: b"not a checkpoint" * 100, "is truncated or no checkpoint"),
    "a byte of a tensor": (lambda c: flipped(c, header_of(c) + 40), "is damaged: its checksum fails"),
    "the last byte": (lambda c: flipped(c, len(c) - 1), "is damaged: its checksum fails"),
    "the position": (edited('\\"batches\\": 2', '\\"batches\\": 3'), "is damaged: its checksum fails"),
    "the seed": (edited("seed = 3", "seed = 4"), "is damaged: its checksum fails"),
    "the type of a tensor": (edited('"F32"', '"I32"'), "is damaged: its checksum fails"),
    "the shape of a tensor": (edited("[64,8]", "[8,64]"), "is damaged: its checksum fails"),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_checkpoint_is_refused_by_name(tmp_path, stopped, capsys, kind):
    change, message = DAMAGE[kind]
    folder = tmp_path / "run"
    folder.mkdir()
    for name, content in contents(stopped).items():
        (folder / name).write_bytes(change(content) if name == checkpoint.NAME else content)
    before = contents(folder)
    assert before[checkpoint.NAME] != contents(stopped)[checkpoint.NAME]
    assert main(["train", "--resume", str(folder)]) == 1
    err = capsys.readouterr().err
    assert f"'{folder / checkpoint.NAME}' {message}" in err
    assert "Delete it to train again from the run's config.toml." in err
    assert "Traceback" not in err and "unexpected" not in err
    assert contents(folder) == before


def test_no_flipped_bit_of_a_header_goes_unnoticed(tmp_path, stopped):
    """Each byte of length and header in turn: refused, or nothing that is read has changed."""
    content = (stopped / checkpoint.NAME).read_bytes()
    tensors, state = checkpoint.load(stopped)
    refused = 0
    for at in range(header_of(content)):
        (tmp_path / checkpoint.NAME).write_bytes(flipped(content, at))
        try:
            found, said = checkpoint.load(tmp_path)
        except NeurosimError:
            refused += 1
            continue
        assert said == state, at
        assert {n: (w.dtype, w.shape, w.tobytes()) for n, w in found.items()} == {
            n: (w.dtype, w.shape, w.tobytes()) for n, w in tensors.items()
        }, at
    assert refused > 0.95 * header_of(content)


def test_a_checkpoint_keeps_types_shapes_and_state(tmp_path):
    tensors = {
        "a": np.arange(6.0).reshape(2, 3).T,
        "b": np.float32(3.5) * np.ones(()),
        "c": np.zeros((0, 4)),
        "d": np.arange(3),
    }
    state = {"at": {"loss": 0.1 + 0.2, "epoch": 3}, "rows": [None, 1e308, 1e-310], "text": "µ"}
    checkpoint.save(tmp_path, tensors, state)
    found, said = tensor_files.load(tmp_path / checkpoint.NAME, "checkpoint", "")
    assert said == {"format": checkpoint.FORMAT, **state}
    for name, value in tensors.items():
        assert (found[name].dtype, found[name].shape) == (value.dtype, value.shape)
        np.testing.assert_array_equal(found[name], value)


def copied(stopped: Path, folder: Path) -> Path:
    folder.mkdir()
    for name, content in contents(stopped).items():
        (folder / name).write_bytes(content)
    return folder


def refused(folder: Path, capsys: Any) -> str:
    """What is said to a folder that cannot be gone on with, and that leaves it as it is."""
    before = contents(folder)
    capsys.readouterr()
    assert main(["train", "--resume", str(folder)]) == 1
    assert contents(folder) == before
    err = capsys.readouterr().err
    assert "Traceback" not in err and "unexpected" not in err
    return err


def test_a_checkpoint_of_another_model(tmp_path, stopped, capsys):
    folder, other = copied(stopped, tmp_path / "run"), tmp_path / "other"
    with stopped_after(2):
        start(configure("steady, whole trials"), other, progress=False)
    (folder / checkpoint.NAME).write_bytes((other / checkpoint.NAME).read_bytes())
    err = refused(folder, capsys)
    assert f"'{folder / checkpoint.NAME}' belongs to another configuration than {folder / 'config.toml'}" in err
    assert "it has 'model = \"equilibrium_propagation\"'" in err


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("epochs = 2", "epochs = 7", "it has 'epochs = 2', the file 'epochs = 7'"),
        ("epochs = 2\n", "epochs = 2\nlevel = \"brian2:dense\"\n", None),
        ("limit = 64\n", "", "it has 'limit = 64'. Put the file back"),
    ],
)  # fmt: skip
def test_an_edited_configuration(tmp_path, stopped, capsys, old, new, said):
    folder = copied(stopped, tmp_path / "run")
    text = (folder / "config.toml").read_text()
    assert old in text
    (folder / "config.toml").write_text(text.replace(old, new))
    err = refused(folder, capsys)
    if said is None:
        assert f"'{folder / 'config.toml'}' is damaged" in err  # the key stands there twice
    else:
        assert f"belongs to another configuration than {folder / 'config.toml'}: {said}" in err


def test_a_comment_in_the_configuration_changes_nothing(tmp_path, stopped):
    folder = copied(stopped, tmp_path / "run")
    (folder / "config.toml").write_text("# mine\n" + (folder / "config.toml").read_text())
    assert resume(folder, progress=False).result


def test_weights_of_another_circuit(tmp_path, stopped, capsys):
    """The file of a user's model was edited since: the configuration is the same, the circuit is not."""
    folder = copied(stopped, tmp_path / "run")
    tensors, state = checkpoint.load(folder)
    state.pop("format")
    checkpoint.save(folder, {**tensors, "weights/W1": np.zeros((64, 9), np.float32)}, state)
    assert f"'{folder / checkpoint.NAME}' holds weights of another circuit than ghost_units builds now" in refused(
        folder, capsys
    )


@pytest.mark.parametrize(
    ("version", "says"),
    [
        (3, "has format 3; this version reads 2. Use the version that wrote it."),
        (1, "has format 1 (neurosim 0.1); this version reads 2. Use the version that wrote it. Or make it again:"),
    ],
)
def test_a_checkpoint_of_another_version(tmp_path, stopped, capsys, version, says):
    folder = copied(stopped, tmp_path / "run")
    tensors, state = checkpoint.load(folder)
    checkpoint.save(folder, tensors, {**state, "format": version})
    assert f"'{folder / checkpoint.NAME}' {says}" in refused(folder, capsys)


@pytest.mark.parametrize("read", [load, lambda folder: main(["compare", "ghost_units", "--weights", str(folder)])])
def test_a_run_folder_of_the_first_version_is_refused(tmp_path, stopped, capsys, read):
    """Its weights have format 1: circuits were described in other words."""
    folder = copied(stopped, tmp_path / "run")
    weights, state = tensor_files.load(folder / "weights.safetensors", "weights file", "")
    tensor_files.save(folder / "weights.safetensors", weights, {**state, "format": 1})
    try:
        read(folder)
    except NeurosimError as error:
        said = str(error)
    else:
        said = capsys.readouterr().err
    assert "weights.safetensors' has format 1 (neurosim 0.1); this version reads 2" in said


def test_weights_are_no_checkpoint(tmp_path, stopped, capsys):
    folder = copied(stopped, tmp_path / "run")
    (folder / checkpoint.NAME).write_bytes((folder / "weights.safetensors").read_bytes())
    assert "is damaged: it lacks config, at, noise, trials, metrics, timing" in refused(folder, capsys)


def test_files_that_are_missing_or_damaged(tmp_path, stopped, capsys):
    assert "is no run folder: it has no config.toml" in refused(
        _without(copied(stopped, tmp_path / "a"), "config.toml"), capsys
    )
    for name, text in (("config.toml", "epochs = = 3"), ("run.json", "{"), ("result.json", '{"failed": ')):
        folder = copied(stopped, tmp_path / name)
        (folder / name).write_text(text)
        assert f"'{folder / name}' is damaged" in refused(folder, capsys)
    assert main(["train", "--resume", str(tmp_path / "nowhere")]) == 1
    assert f"'{tmp_path / 'nowhere'}' is no run folder" in capsys.readouterr().err
    assert not (tmp_path / "nowhere").exists()


def _without(folder: Path, name: str) -> Path:
    (folder / name).unlink()
    return folder


# ------------------------------------------------------------------ whole files


@pytest.mark.parametrize("broken", ["write", "fsync", "replace"])
def test_a_file_is_whole_or_the_old_one(tmp_path, monkeypatch, broken):
    path = write_whole(tmp_path / "file", b"old")

    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if broken == "write":
        monkeypatch.setattr(files, "open", lambda *a: FullDisk(open(*a)), raising=False)  # noqa: SIM115
    else:
        monkeypatch.setattr(os, broken, fail)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, b"new" * 1000)
    monkeypatch.undo()
    assert contents(tmp_path) == {"file": b"old"}
    assert contents(write_whole(path, b"new").parent) == {"file": b"new"}


class FullDisk:
    """A file that takes the first half of what it is given."""

    def __init__(self, file: Any):
        self.file = file

    def __enter__(self) -> FullDisk:
        return self

    def __exit__(self, *_: Any) -> None:
        self.file.close()

    def write(self, content: Any) -> None:
        self.file.write(content[: len(content) // 2])
        self.file.flush()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("full", [checkpoint.NAME, "weights.safetensors", "metrics.jsonl", "result.json"])
def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch, capsys, full):
    """The disk is full when such a file is to be written next; with space again, the run goes on."""
    start(configure("steady, adam"), tmp_path / "whole", progress=False)
    folder = tmp_path / "run"
    with stopped_after(3):
        start(configure("steady, adam"), folder, progress=False)
    with monkeypatch.context() as patch:

        def opened(path: Any, mode: str = "r") -> Any:
            return FullDisk(open(path, mode)) if full in str(path) and mode == "wb" else open(path, mode)

        patch.setattr(files, "open", opened, raising=False)
        assert main(["train", "--resume", str(folder)]) == 1
    err = capsys.readouterr().err
    assert "The disk is full (or has as many files as it can hold): free some space" in err
    assert f"`neurosim train --resume {folder}` goes on" in err
    checkpoint.load(folder)
    assert not list(folder.glob("*.part"))
    resume(folder, progress=False)
    assert_same(folder, tmp_path / "whole")


# ------------------------------------------------------------------ processes

#: A clean process that has imported everything; forks of it start at once.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["neurosim.training.start", "neurosim.training.backprop", "neurosim.cli", "brian2"])
#: About two seconds each.
LONG = {
    "torch:steady": [
        "ghost_units", "--set", "sizes=64,8,6,10", "--set", "mode=learned", "--samples", "320", "--batch-size", "16", "--epochs", "10",
        "--set", "checkpoint=0.05",
    ],
    "brian2:dense": [
        "equilibrium_propagation", "--set", "sizes=64,8,10", "--set", "t_free=40*ms", "--set", "t_nudged=30*ms", "--level", "brian2:dense",
        "--samples", "640", "--batch-size", "8", "--epochs", "2", "--set", "checkpoint=0",
    ],
    "torch:trajectory": [
        "dendritic_microcircuit", "--set", "sizes=64,8,10", "--set", "pattern=25*ms", "--set", "sigma=0.1", "--set", "tau_w=30*ms",
        "--set", "lateral=self_predicting", "--level", "torch:trajectory", "--samples", "640", "--batch-size", "8", "--epochs", "2",
        "--set", "checkpoint=0",
    ],
}  # fmt: skip


def _command(arguments: list[str], log: str, killed_in_rename: int = 0) -> None:
    """In a child: `neurosim ...`, its output in a file; dies by signal 9 where its n-th file would be renamed."""
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1)
    os.dup2(out, 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    if killed_in_rename:
        rename, done = os.replace, 0

        def replace(source: Any, target: Any) -> None:
            nonlocal done
            done += 1
            if done == killed_in_rename:
                os.kill(os.getpid(), signal.SIGKILL)
            rename(source, target)

        os.replace = replace
    sys.exit(main(arguments))


class Child:
    """A running command."""

    def __init__(self, tmp_path: Path, arguments: list[Any], **more: int):
        self.log = tmp_path / f"log{time.monotonic_ns()}"
        self.process = CONTEXT.Process(target=_command, args=([str(a) for a in arguments], str(self.log)), kwargs=more)
        self.started = time.monotonic()
        self.process.start()

    def end(self, timeout: float = 300.0) -> tuple[int | None, str]:
        """Exit status (negative: the signal) and output."""
        self.process.join(timeout)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
            raise AssertionError(f"no end in {timeout} s: {self.log.read_text()}")
        text = self.log.read_text() if self.log.exists() else ""
        assert "Traceback" not in text
        return self.process.exitcode, text

    def until(self, ready: Callable[[], bool]) -> None:
        while not ready():
            assert self.process.is_alive() and time.monotonic() < self.started + 300, self.log.read_text()
            time.sleep(0.002)

    def send(self, number: int) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[str, tuple[Path, float]]:
    """By engine: what a run leaves, and the seconds it takes."""
    found, folder = {}, tmp_path_factory.mktemp("undisturbed")
    for level, words in LONG.items():
        out = folder / level.replace(":", "_")
        started = time.monotonic()
        status, text = Child(folder, ["train", *words, "--out", out]).end()
        assert status == 0, text
        found[level] = out, time.monotonic() - started
    return found


def go_on(tmp_path: Path, words: list[str], out: Path, **more: int) -> Child:
    """Resume, or begin again where the run was killed before there was anything to resume."""
    resumable = (out / "config.toml").is_file()
    return Child(
        tmp_path, ["train", "--resume", out] if resumable else ["train", *words, "--out", out, "--overwrite"], **more
    )


@pytest.mark.parametrize(
    ("level", "kills"),
    [
        ("torch:steady", 4),
        pytest.param("brian2:dense", 2, marks=pytest.mark.slow),
        pytest.param("torch:trajectory", 2, marks=pytest.mark.slow),
    ],
)
def test_killed_at_random_moments(tmp_path, undisturbed, level, kills):
    """Signal 9; each moment is drawn anew, so that other runs of this test try others."""
    expected, seconds = undisturbed[level]
    out, rng = tmp_path / "run", np.random.default_rng()
    child = Child(tmp_path, ["train", *LONG[level], "--out", out])
    for _ in range(kills):
        child.process.join(rng.uniform(0, 0.8 * seconds))
        child.process.kill()
        child.end()
        child = go_on(tmp_path, LONG[level], out)
    status, text = child.end()
    assert status == 0, text
    assert_same(out, expected)


def test_killed_and_resumed_by_the_command_itself(tmp_path, undisturbed):
    """As above with processes of their own, in the middle of the training."""
    out, words = tmp_path / "run", LONG["torch:steady"]
    command = [sys.executable, "-m", "neurosim", "train"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*command, *words, "--out", str(out)], stderr=subprocess.DEVNULL, env=environment)
    try:
        limit = time.monotonic() + 300
        while not (out / checkpoint.NAME).exists():
            assert process.poll() is None and time.monotonic() < limit
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL
    done = subprocess.run(
        [*command, "--resume", str(out)], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("test accuracy ")
    assert_same(out, undisturbed["torch:steady"][0])


@pytest.mark.parametrize("rename", [1, 4, 5, 9])
def test_killed_between_writing_and_renaming(tmp_path, rename):
    """run.json, no rows yet, weights, config.toml, then checkpoints and weights: the file before stays, and nothing is left over in the end."""
    words = [*LONG["torch:steady"], "--epochs", "2", "--samples", "64", "--set", "checkpoint=0"]
    out = tmp_path / "run"
    assert Child(tmp_path, ["train", *words, "--out", tmp_path / "whole"]).end()[0] == 0
    assert Child(tmp_path, ["train", *words, "--out", out], killed_in_rename=rename).end()[0] == -signal.SIGKILL
    assert len(list(out.glob("*.part"))) == 1
    assert (out / "config.toml").exists() == (rename > 5)
    if rename > 6:
        checkpoint.load(out)
    assert go_on(tmp_path, words, out).end()[0] == 0
    assert_same(out, tmp_path / "whole")


@pytest.mark.parametrize(
    ("number", "level"),
    [(signal.SIGINT, "torch:steady"), (signal.SIGTERM, "torch:steady"), (signal.SIGINT, "brian2:dense")],
)
def test_ctrl_c_and_sigterm_write_a_checkpoint(tmp_path, undisturbed, number, level):
    out = tmp_path / "run"
    words = [*LONG[level], "--set", "checkpoint=1000"]
    child = Child(tmp_path, ["train", *words, "--out", out])
    child.until(lambda: (out / "metrics.jsonl").exists() and b"\n" in (out / "metrics.jsonl").read_bytes())
    assert not (out / checkpoint.NAME).exists()
    child.send(number)
    status, text = child.end()
    assert status == 130, text
    assert "stopping after the present batches; once more stops at once" in text
    assert f"`neurosim train --resume {out}` goes on" in text
    checkpoint.load(out)
    assert not (out / "result.json").exists()
    status, text = Child(tmp_path, ["train", "--resume", out]).end()
    assert status == 0, text
    assert_same(out, undisturbed[level][0])


def test_killed_before_the_first_checkpoint(tmp_path, undisturbed):
    words = [*LONG["torch:steady"], "--set", "checkpoint=1000"]
    out = tmp_path / "run"
    child = Child(tmp_path, ["train", *words, "--out", out])
    child.until(lambda: (out / "metrics.jsonl").exists() and b"\n" in (out / "metrics.jsonl").read_bytes())
    child.process.kill()
    child.end()
    assert not (out / checkpoint.NAME).exists()
    assert Child(tmp_path, ["train", "--resume", out]).end()[0] == 0
    assert_same(out, undisturbed["torch:steady"][0])
