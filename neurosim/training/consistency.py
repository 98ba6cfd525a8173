"""Keys of a training configuration that contradict each other."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING

from neurosim.backends import STEADY
from neurosim.errors import NeurosimError, suggest, unknown
from neurosim.traces import Recorder

if TYPE_CHECKING:
    from neurosim.training.config import TrainConfig

#: Keys that say nothing without their schedule.
OF_SCHEDULE = {
    "exponential": ("decay", "final_after", "final_decay"),
    "cosine": ("final_rate",),
}
#: Keys that say nothing without an update transform.
TRANSFORM = (
    "learning_rates",
    "schedule",
    *OF_SCHEDULE["exponential"],
    *OF_SCHEDULE["cosine"],
    "momentum",
    "weight_decay",
    "warm_up",
    "centralise",
    "clip",
    "clip_by",
)


def check_consistency(config: TrainConfig) -> None:
    """Refuse keys that contradict each other.

    Raises
    ------
    NeurosimError
        Which keys, and what to leave out or to give.
    """
    _check_reference(config)
    _check_schedule(config)
    _check_data(config)
    _check_transform(config)
    _check_recorder(config)
    _check_level(config)


def _check_reference(config: TrainConfig) -> None:
    if config.is_reference and (config.optimiser == "none" or config.level != STEADY):
        raise NeurosimError(
            f"method = '{config.method}' with optimiser = '{config.optimiser}' and level = "
            f"'{config.level}': a reference net is plain torch, its gradients go through an "
            "optimiser (sgd, adam) and it knows no level. Leave level out."
        )


def _check_schedule(config: TrainConfig) -> None:
    if (config.final_after is None) != (config.final_decay is None):
        raise NeurosimError(
            f"final_after = {config.final_after}, final_decay = {config.final_decay}: one says "
            "when, the other how fast; give both or none."
        )


def _check_data(config: TrainConfig) -> None:
    """Augmentation, and the sets that are held out."""
    if config.padding != "black" and not config.crop:
        what = f"padding = '{config.padding}' without crop: nothing is padded"
        raise NeurosimError(f"{what}. Give crop, or leave padding out.")
    if not config.test and not config.hold_out:
        raise NeurosimError(
            "test = false leaves the test set alone, hold_out = false follows it in place of a "
            "validation set; wanted one of them."
        )
    if config.select == "best" and not config.hold_out:
        raise NeurosimError(
            "select = 'best' chooses by the validation loss, and hold_out = false leaves no "
            "validation set. Leave one of them out."
        )
    if config.validation != "last" and not config.hold_out:
        raise NeurosimError(
            f"validation = '{config.validation}' draws a validation set, and hold_out = false "
            "leaves none. Leave one of them out."
        )
    if config.validation != "random" and given(config, ("validation_share",)):
        raise NeurosimError(
            f"validation_share = {config.validation_share} with validation = "
            f"'{config.validation}', whose size the data set says. Leave it out, or use --set "
            "validation=random."
        )
    if config.last_batch == "keep" and config.level != STEADY:
        raise NeurosimError(
            f"last_batch = 'keep' on {config.level}, which holds whole batches: only {STEADY} "
            "takes a smaller one. Use --set last_batch=drop."
        )


def _check_transform(config: TrainConfig) -> None:
    """The update transform."""
    if config.optimiser == "none" and (idle := given(config, TRANSFORM)):
        raise NeurosimError(
            f"{idle}: they belong to an update transform, and optimiser = 'none' has none. "
            "Leave them out, or use --set optimiser=sgd."
        )
    if config.momentum and config.optimiser != "sgd":
        raise NeurosimError(
            f"momentum = {config.momentum} with optimiser = '{config.optimiser}', which has "
            "moments of its own. Leave it out, or use --set optimiser=sgd."
        )
    for schedule, keys in OF_SCHEDULE.items():
        if config.schedule != schedule and (idle := given(config, keys)):
            what = f"{idle} with schedule = '{config.schedule}'"
            raise NeurosimError(f"{what}: wanted for schedule = '{schedule}'. Leave one out.")
    if config.clip_by != "all" and config.clip is None:
        what = f"clip_by = '{config.clip_by}' without clip: there is no norm to clip to"
        raise NeurosimError(f"{what}. Give clip, or leave clip_by out.")
    if config.is_reference and (config.learning_rates or config.clip_by == "rule"):
        raise NeurosimError(
            f"{given(config, ('learning_rates', 'clip_by'))} with method = '{config.method}': a "
            "reference net has no rules. Use learning_rate, and clip_by = 'all' or 'matrix'."
        )
    _check_rates(config)


def _check_rates(config: TrainConfig) -> None:
    optimise = config.optimise
    for rule in config.learning_rates:
        if rule not in optimise:
            raise NeurosimError(
                f"learning_rates names '{rule}', and optimise only {', '.join(optimise)}."
                f"{suggest(rule, optimise)} A rule whose rate is set must be named in optimise."
            )
    for name, rate in _rates(config):
        if 0 < rate < config.final_rate:
            what = f"final_rate = {config.final_rate} is above {name} = {rate}"
            raise NeurosimError(f"{what}; wanted one that is no larger.")


def _rates(config: TrainConfig) -> Iterator[tuple[str, float]]:
    """Each learning rate, with its key."""
    yield "learning_rate", config.learning_rate
    for rule, rate in config.learning_rates.items():
        yield f"learning_rates.{rule}", rate


def _check_recorder(config: TrainConfig) -> None:
    known = [f.name for f in fields(Recorder) if f.name != "path"]
    for key in config.recorder:
        if key not in known:
            raise unknown("key of recorder", key, known)
    Recorder(**config.recorder)
    if config.is_reference and any("." in name for name in config.recorder.get("variables", ())):
        raise NeurosimError(
            f"recorder names variables of populations with method = '{config.method}': a reference "
            "net has weights only. Name projections."
        )


def _check_level(config: TrainConfig) -> None:
    if config.optimiser != "none" and config.level != STEADY and not config.is_reference:
        raise NeurosimError(
            f"The optimiser '{config.optimiser}' transforms a whole batch's change, which only "
            f"{STEADY} hands over; on {config.level} plasticity is part of the dynamics. Use --set "
            "optimiser=none (and eta as the rate)."
        )


def given(config: TrainConfig, keys: Collection[str]) -> str:
    """Those of the keys that are not at their default, as text."""
    usual = {f.name: f.default if f.default is not MISSING else {} for f in fields(config)}
    told = {key: getattr(config, key) for key in keys}
    return ", ".join(f"{key} = {v!r}" for key, v in told.items() if v != usual[key])
