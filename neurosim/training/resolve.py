"""Configurations from what a user gives, the model's preset, and defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from neurosim import registry
from neurosim.backends import STEADY
from neurosim.checks import check
from neurosim.errors import NeurosimError, unknown
from neurosim.training.config import MAY_BE_NONE, TrainConfig, table_of
from neurosim.training.consistency import OF_SCHEDULE, TRANSFORM

_RATES = "learning_rates."
_SCHEDULE = {f.name for f in fields(TrainConfig)} - {"model", "settings"}


def resolve(
    model: str,
    settings: Mapping[str, Any] | None = None,
    named_by: str | None = None,
    look: bool = False,
    **given: Any,
) -> TrainConfig:
    """A configuration from the model's preset, then `given` schedule values, then `settings`.

    `settings` may hold keys of the circuit and of the schedule; a key that is neither is refused
    with the nearest name. A key ``learning_rates.RULE`` is an entry of that table, and tables are
    joined entry by entry. `named_by` is the file in which the model is named, see
    `registry.model`; with `look`, a model file is not imported (and has no preset).
    """
    check("model", model, str)
    only_looked_at = look and registry.is_file(model)
    unread = registry.unread(model, settings or {}) if only_looked_at else None
    found = unread or registry.model(model, named_by)
    asked = {k: None for k in MAY_BE_NONE if k in given and given[k] in (None, "none")}
    given = _joined({k: v for k, v in given.items() if v is not None} | asked)
    none = {k: None for k, v in (settings or {}).items() if k in MAY_BE_NONE and v == "none"}
    settings = _joined({**(settings or {}), **none})
    _check_known(model, settings, found)
    wanted = _wanted(given, settings, found)
    settings |= found.checked({k: v for k, v in settings.items() if k in found.parameters})
    preset = found.preset(settings, wanted.get("data", "digits"))
    circuit = _circuit_settings(found, preset, settings)
    config = TrainConfig(model, circuit, **_schedule(preset, wanted))
    config.to_toml()  # what its file cannot hold is refused before a folder is made
    return config


def _joined(values: Mapping[str, Any]) -> dict[str, Any]:
    """Keys ``learning_rates.RULE`` put into the table."""
    rates = {k.removeprefix(_RATES): v for k, v in values.items() if k.startswith(_RATES)}
    joined = {k: v for k, v in values.items() if not k.startswith(_RATES)}
    if rates or "learning_rates" in joined:
        table = table_of(joined.get("learning_rates", {}), "learning_rates")
        joined["learning_rates"] = table | rates
    return joined


def _check_known(model: str, settings: Mapping[str, Any], found: registry.Model) -> None:
    for key in settings:
        if key not in _SCHEDULE and key not in found.parameters:
            known = [*found.parameters, *sorted(_SCHEDULE)]
            raise unknown(f"setting of {model} or of its schedule", key, known)


def _wanted(
    given: dict[str, Any],
    settings: dict[str, Any],
    found: registry.Model,
) -> dict[str, Any]:
    """Keys of the schedule that a user gives, and what follows from them."""
    own = {k: v for k, v in settings.items() if k in _SCHEDULE and k not in found.parameters}
    wanted = {**given, **own}
    if "learning_rates" in given and "learning_rates" in settings:
        wanted["learning_rates"] = given["learning_rates"] | settings["learning_rates"]
    level = wanted.get("level", STEADY)
    if level != STEADY and _circuit_learns(wanted):
        wanted.setdefault("optimiser", "none")
        if str(level).startswith("brian2"):
            wanted.setdefault("dtype", "float64")
    if "solver" in wanted and level != STEADY:
        what = f"solver = '{wanted['solver']}' on {level}: only {STEADY} solves for a fixed point"
        raise NeurosimError(f"{what}. Leave one out.")
    return wanted


def _circuit_learns(wanted: Mapping[str, Any]) -> bool:
    return wanted.get("method", "circuit") == "circuit"


def _circuit_settings(
    found: registry.Model,
    preset: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """The settings of the circuit.

    Defaults are written down too, so that a saved run does not change with them.
    """
    defaults = {name: p.default for name, p in found.parameters.items()}
    circuit = {k: v for k, v in defaults.items() if isinstance(v, bool | int | float | str | tuple)}
    for values in (preset, settings):
        circuit |= {k: v for k, v in values.items() if k in found.parameters}
    return circuit


def _schedule(preset: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of the schedule: those of the preset that still say something, and those wanted."""
    schedule = {k: v for k, v in preset.items() if k in _SCHEDULE}
    if "optimiser" in preset and not _keeps_optimiser(preset["optimiser"], wanted):
        for key in ("optimiser", "learning_rate", *TRANSFORM):
            schedule.pop(key, None)
    rates = schedule.pop("learning_rates", {})
    schedule |= wanted
    if isinstance(schedule.get("optimise"), str):
        schedule["optimise"] = tuple(schedule["optimise"].split(","))
    if schedule.get("level", STEADY) != STEADY:
        schedule.pop("solver", None)
    for key in _idle(schedule) - set(wanted):
        schedule.pop(key, None)
    if schedule.get("validation") != "random" and "validation_share" not in wanted:
        schedule.pop("validation_share", None)
    optimised = schedule.get("optimise", tuple(rates))
    rates = {rule: rate for rule, rate in rates.items() if rule in optimised}
    if rates and schedule.get("optimiser") != "none":
        schedule["learning_rates"] = rates | wanted.get("learning_rates", {})
    return schedule


def _keeps_optimiser(optimiser: str, wanted: Mapping[str, Any]) -> bool:
    """Whether the circuit learns by the preset's optimiser; another one has keys of its own."""
    return _circuit_learns(wanted) and wanted.get("optimiser", optimiser) == optimiser


def _idle(schedule: Mapping[str, Any]) -> set[str]:
    """Keys that say nothing beside the others."""
    idle: set[str] = set()
    if schedule.get("optimiser") == "none":
        idle.update(TRANSFORM)
    else:
        chosen = schedule.get("schedule", "exponential")
        idle.update(*(keys for name, keys in OF_SCHEDULE.items() if name != chosen))
        if schedule.get("clip") is None:
            idle.add("clip_by")
    if not schedule.get("crop"):
        idle.add("padding")
    if not schedule.get("hold_out", True):
        idle.add("validation")
    if schedule.get("level", STEADY) != STEADY:
        idle.add("last_batch")
    return idle
