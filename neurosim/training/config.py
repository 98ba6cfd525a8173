"""What a training run is made of, and its resolved form as TOML."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from neurosim import registry
from neurosim.errors import NeurosimError, unknown

OPTIMISERS = ("none", "sgd", "adam")
#: Plain torch references that the trainer runs like a circuit: the same net, data order and budget.
REFERENCES = ("backprop", "feedback_alignment")


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    Parameters
    ----------
    model
        Name of a model, or ``file.py:function``.
    settings
        Settings of the circuit (its function's arguments).
    data
        Name of a data set.
    level
        ``torch:steady`` (default), ``torch:trajectory``, ``brian2:dense`` or ``brian2:equations``.
    method
        ``circuit`` (the circuit's own rules), or the reference net of the circuit under ``backprop`` or
        ``feedback_alignment``.
    seed
        Seeds the initial weights and the order of the data.
    epochs, batch_size
        Length of training. The last incomplete batch of an epoch is left out (the data are shuffled anew in each).
    optimiser
        Update transform of the rules named in `optimise`: ``none`` (changes are added as the rule says), ``sgd``
        (times `learning_rate`), ``adam``. Needs torch:steady.
    learning_rate, decay
        Of the transform; the rate is multiplied by `decay` after each epoch.
    optimise
        Names of the rules whose changes go through the transform; the others are added as they are.
    dt
        Euler step of the trajectory levels.
    tolerance, max_sweeps, solver
        Of the steady level, see `neurosim.backends.engine.Options`.
    dtype, device, codegen
        See `neurosim.simulate`.
    limit
        Use only the first `limit` training samples (None: all).
    """

    model: str
    settings: dict[str, Any] = field(default_factory=dict)
    data: str = "digits"
    level: str = "torch:steady"
    method: str = "circuit"
    seed: int = 0
    epochs: int = 30
    batch_size: int = 32
    optimiser: str = "adam"
    learning_rate: float = 0.005
    decay: float = 1.0
    optimise: tuple[str, ...] = ("feedforward",)
    dt: str = "1*ms"
    tolerance: float = 1e-5
    max_sweeps: int = 50
    solver: str = "sweeps"
    dtype: str = "float32"
    device: str = "cpu"
    codegen: str = "numpy"
    limit: int | None = None

    def __post_init__(self) -> None:
        for key in fields(self):
            value, wanted = getattr(self, key.name), _wanted(key.name, getattr(self, key.name))
            if wanted:
                raise NeurosimError(f"{key.name} = {value!r}; wanted {wanted}.")
        if self.optimiser not in OPTIMISERS:
            raise unknown("optimiser", self.optimiser, OPTIMISERS)
        if self.method not in ("circuit", *REFERENCES):
            raise unknown("method", self.method, ("circuit", *REFERENCES))
        if self.optimiser != "none" and self.level != "torch:steady" and self.method == "circuit":
            raise NeurosimError(
                f"The optimiser '{self.optimiser}' transforms a whole batch's change, which only torch:steady hands over; "
                f"on {self.level} plasticity is part of the dynamics. Use --set optimiser=none (and eta as the rate)."
            )

    def to_toml(self) -> str:
        """The run as TOML."""
        lines, tables = [], []
        for key, value in asdict(self).items():
            if isinstance(value, dict):
                tables += [f"\n[{key}]", *(f"{k} = {_toml(v)}" for k, v in value.items() if v is not None)]
            elif value is not None:
                lines.append(f"{key} = {_toml(value)}")
        return "\n".join([*lines, *tables]) + "\n"

    @classmethod
    def from_toml(cls, path: str | Path) -> TrainConfig:
        """Read a file written by `to_toml`; unknown keys are refused with the nearest known one."""
        try:
            values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:  # TOML that cannot be read, or no text at all
            raise NeurosimError(f"'{path}' is damaged: {error}") from error
        known = [f.name for f in fields(cls)]
        for key in values:
            if key not in known:
                raise unknown(f"key in {path}", key, known)
        if "model" not in values:
            raise NeurosimError(f"'{path}' names no model; wanted a line such as model = \"ghost_units\".")
        values["settings"] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.get("settings", {}).items()}
        if "optimise" in values:
            values["optimise"] = tuple(values["optimise"])
        return cls(**values)


_LEAST = {"seed": 0, "epochs": 1, "batch_size": 1, "max_sweeps": 1, "limit": 1}
_NUMBERS = ("learning_rate", "decay", "tolerance")


def _wanted(name: str, value: Any) -> str:
    """What a key should hold, where `value` is not that; else an empty text."""
    if name == "limit" and value is None:
        return ""
    if name in _LEAST:
        right = isinstance(value, int) and not isinstance(value, bool) and value >= _LEAST[name]
        return "" if right else f"a whole number of at least {_LEAST[name]}"
    if name in _NUMBERS:
        right = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
        return "" if right else "a number of at least 0"
    if name == "settings":
        return "" if isinstance(value, dict) else "a table of settings of the circuit"
    if name == "optimise":
        return "" if isinstance(value, tuple) and all(isinstance(v, str) for v in value) else "names of rules"
    return "" if isinstance(value, str) else "a text" + (" with units, such as '1*ms'" if name == "dt" else "")


def _toml(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    return json.dumps(value, ensure_ascii=False)  # TOML's strings, numbers and booleans are JSON's


def resolve(model: str, settings: Mapping[str, Any] | None = None, **given: Any) -> TrainConfig:
    """A configuration from the model's preset, then `given` schedule values, then `settings`.

    `settings` may hold keys of the circuit and of the schedule; a key that is neither is refused with the nearest name.
    """
    found = registry.model(model)
    schedule_keys = {f.name for f in fields(TrainConfig)} - {"model", "settings"}
    given = {k: v for k, v in given.items() if v is not None}
    settings = dict(settings or {})
    for key in settings:
        if key not in schedule_keys and key not in found.parameters:
            raise unknown(f"setting of {model} or of its schedule", key, [*found.parameters, *sorted(schedule_keys)])
    wanted = {**given, **{k: v for k, v in settings.items() if k in schedule_keys and k not in found.parameters}}
    if wanted.get("level", "torch:steady") != "torch:steady":
        wanted.setdefault("optimiser", "none")
        if wanted["level"].startswith("brian2"):
            wanted.setdefault("dtype", "float64")
    preset = found.preset(settings, wanted.get("data", "digits"))
    # Defaults are written down too, so that a saved run does not change with them.
    circuit = {
        k: p.default for k, p in found.parameters.items() if isinstance(p.default, (bool, int, float, str, tuple))
    }
    circuit |= {k: v for k, v in preset.items() if k in found.parameters}
    circuit |= {k: v for k, v in settings.items() if k in found.parameters}
    schedule = {k: v for k, v in preset.items() if k in schedule_keys} | wanted
    if isinstance(schedule.get("optimise"), str):
        schedule["optimise"] = tuple(schedule["optimise"].split(","))
    return TrainConfig(model, circuit, **schedule)
