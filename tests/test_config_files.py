"""A run's configuration is written so that it is read back as it was given, or refused before anything is written."""

from __future__ import annotations

import math
import tomllib

import numpy as np
import pytest

import neurosim
from neurosim.errors import NeurosimError
from neurosim.training import resolve
from neurosim.training.config import TrainConfig

ODD = (
    "a\x00b",
    "\x1b[31m",
    "\\",
    '"',
    "'''",
    "\u2028",
    "é",
    "=",
    "#",
    "[x]",
    "a\nb",
    "\r\n",
    "",
    " ",
    "🧠",
    "x" * 5000,
)


@pytest.mark.parametrize("text", ODD, ids=range(len(ODD)))
def test_odd_texts_and_keys(text):
    """TOML itself says what was written: tomllib reads it, an implementation of its own."""
    config = resolve("ghost_units", name=text, optimise=(text, "feedforward"), learning_rates={text: 0.25})
    written = config.to_toml()
    assert tomllib.loads(written)["name"] == text
    assert tomllib.loads(written)["learning_rates"] == {text: 0.25}
    assert TrainConfig.from_text(written, "here") == config


def test_numbers_keep_every_digit():
    values = [0.1, 1e-300, 1 / 3, 5e-324, 1.7976931348623157e308, np.float32(0.1), np.int64(7), np.float64(2.5)]
    for value in values:
        config = resolve("ghost_units", learning_rates={"feedforward": value})
        assert TrainConfig.from_text(config.to_toml(), "here").learning_rates["feedforward"] == value


@pytest.mark.parametrize("given", [{"name": "\udcff"}, {"settings": {"eta": 1j}}])
def test_what_a_file_cannot_hold_is_refused_before_anything_is_written(tmp_path, given):
    """By the name of the key."""
    with pytest.raises(NeurosimError, match=r"name|eta"):
        neurosim.train("ghost_units", tmp_path / "run", epochs=1, limit=64, progress=False, **given)
    assert not any(tmp_path.iterdir())


def test_infinity_is_read_back():
    config = resolve("ghost_units")
    object.__setattr__(config, "settings", {**config.settings, "eta": math.inf})
    assert TrainConfig.from_text(config.to_toml(), "here").settings["eta"] == math.inf
    object.__setattr__(config, "settings", {**config.settings, "eta": math.nan})
    with pytest.raises(NeurosimError, match=r"settings.eta = nan"):
        config.to_toml()
