"""A slice of `tests/soak/fuzz.py`: damaged, odd and hostile inputs of every kind are refused by name."""

from __future__ import annotations

import importlib
import itertools
import time
from pathlib import Path

import pytest

#: Fewer would leave out models, options or kinds of files.
INPUTS = 150


@pytest.fixture(scope="module")
def fuzz():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parent / "soak")
        yield importlib.import_module("fuzz")


@pytest.fixture(scope="module")
def valid(fuzz, tmp_path_factory):
    return fuzz.make_valid(tmp_path_factory.mktemp("fuzz"))


def test_inputs_of_every_target_are_refused_by_name(fuzz, valid, tmp_path):
    answers = list(fuzz.fuzz(0, range(INPUTS), 2, valid, tmp_path))
    findings = [finding for answer in answers for finding in answer.findings]
    assert not findings, "\n".join(f"seed 0, input {finding}" for finding in findings)
    assert sorted(answer.number for answer in answers) == [*range(INPUTS)]
    assert {*fuzz.SCHEDULE[:INPUTS]} == {*fuzz.TARGETS}


def made(fuzz, number, box):
    with box.entered():
        return fuzz.make(0, number, box)[1]


def accepts(argv):
    return 0


def raises(argv):
    raise KeyError("images")


def prints(argv):
    print("error: KeyError: 'images' (unexpected; --debug shows where)")
    return 1


def runs_code(argv):
    Path("mark").touch()
    return 1


def overwrites(argv):
    Path("x.npz").write_bytes(b"")
    return 1


def hangs(argv):
    time.sleep(60)


def takes_memory(argv):
    raise MemoryError


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        (accepts, "accepted"), (raises, "exception"), (prints, "unexpected"), (runs_code, "code from data"),
        (overwrites, "file outside"), (hangs, "hang"), (takes_memory, "memory"),
    ],
)  # fmt: skip
def test_each_kind_of_finding_is_found(fuzz, valid, tmp_path, monkeypatch, command, kind):
    """Stimuli with NaN, and commands with one fault each."""
    stimuli = (n for n in itertools.count() if fuzz.SCHEDULE[n % len(fuzz.SCHEDULE)] == "stimuli_file")
    with_nan = next(n for n in stimuli if made(fuzz, n, fuzz.Box(tmp_path / f"{n}", valid)).refuse)
    monkeypatch.setattr(fuzz.cli, "main", command)
    monkeypatch.setattr(fuzz, "LIMIT", 0.1)
    found = fuzz.examine(0, with_nan, valid, tmp_path / "input")
    assert kind in [finding.kind for finding in found]
