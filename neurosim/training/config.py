"""What a training run is made of, and its resolved form as TOML."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import tomli_w
from annotated_types import Ge, Gt, Lt

from neurosim import registry
from neurosim.backends import DTYPES, LEVELS, SOLVERS, STEADY, TARGETS
from neurosim.checks import Count, In, NotNegative, PositiveTime, Seed, Share, check, check_fields
from neurosim.errors import NeurosimError, suggest, unknown
from neurosim.files import user_path
from neurosim.reading import read_text
from neurosim.traces import Recorder

if TYPE_CHECKING:
    from neurosim.data import Dataset

#: What a sweep file holds beside the keys of an experiment file.
SWEEP_KEYS = ("seeds", "run", "grid")
#: Plain torch references that the trainer runs like a circuit: the same net, data order and budget.
REFERENCES = ("backprop", "feedback_alignment", "direct_feedback_alignment")


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    Parameters
    ----------
    model
        Name of a model, or ``file.py:function``.
    settings
        Settings of the circuit (its function's arguments).
    name
        What tables and curves call the run; empty: the model, or the method where that is a reference.
    data
        Name of a data set.
    normalise
        Normalisation of the pixels, see `neurosim.data.normalise`: ``none`` (default, [0, 1]), ``standard``, ...
    crop, flip
        Augmentation of the training images: shift by up to `crop` pixels (padding, then a random crop), mirror left-right at random.
    padding
        Of `crop`: ``black`` (default), or ``edge``, which repeats the pixels at the image's edge.
    level
        ``torch:steady`` (default), ``torch:trajectory``, ``brian2:dense`` or ``brian2:equations``.
    method
        ``circuit`` (the circuit's own rules), or the reference net of the circuit under ``backprop``,
        ``feedback_alignment`` or ``direct_feedback_alignment``.
    seed
        Seeds the initial weights and the order of the data.
    epochs, batch_size
        Length of training.
    last_batch
        What becomes of the samples of an epoch that fill no batch: ``drop`` (default), they are
        left out (the data are shuffled anew in each epoch); ``keep``, they are a last, smaller
        batch, whose changes are means over its own size. Needs torch:steady.
    optimiser
        Update transform of the rules named in `optimise`: ``none`` (changes are added as the rule says), ``sgd``
        (times `learning_rate`), ``adam``. Needs torch:steady. What follows up to `optimise` belongs to it; a batch's changes pass warm-up,
        centralisation, clipping, weight decay, momentum and the rate, in this order (see `neurosim.training.optimisers.Transform`).
    learning_rate
        The rate of the first epoch.
    learning_rates
        Rates in place of it, by the name of a rule in `optimise`; 0 leaves its weights as they are.
    schedule
        Rate of epoch n, counted from 1: ``exponential`` (default), ``learning_rate * decay**(n - 1)``, or ``cosine``,
        ``final_rate + (learning_rate - final_rate) * (1 + cos(pi*(n - 1)/epochs))/2`` (Loshchilov & Hutter 2017, without restarts).
    decay
        Of the exponential schedule; 1 (default): a constant rate.
    final_after, final_decay
        Of the exponential schedule: after `final_after` epochs the rate is ``learning_rate * final_decay**(n - 1)`` (None: no such change).
    final_rate
        Of the cosine schedule: where it would end, in epoch `epochs` + 1 (default 0); no larger than the rates.
    momentum
        Of sgd, in [0, 1): what is added is ``v <- momentum*v + change`` (default 0).
    weight_decay
        ``weight_decay * w`` is taken from the change of each weight w (default 0).
    warm_up
        The changes of the first `warm_up` updates (batches) are scaled by 1/`warm_up`, 2/`warm_up`, ..., 1 (default 0: none).
    centralise
        Take from each change its mean over the sources of the cell (Yong et al. 2020: gradient centralisation). Weights that have one source
        only, such as biases, are left out.
    clip
        Largest norm of a batch's changes; longer ones are scaled down to it (None: none).
    clip_by
        What the norm is taken of: ``all`` optimised weights together (default), those of each ``rule``, or each ``matrix``.
    optimise
        Names of the rules whose changes go through the transform; the others are added as they are. ``feedforward`` (default) means all
        rules of a circuit that has none of that name.
    dt
        Euler step of the trajectory levels.
    tolerance, max_sweeps, solver
        Of the steady level, see `neurosim.backends.engine.Options`.
    dtype, device, codegen
        See `neurosim.simulate`.
    limit
        Use only the first `limit` training samples (None: all).
    checkpoint
        Seconds between checkpoints.
    collapse
        Stop, and count the run as failed, when an epoch's training accuracy is this far (in [0, 1]) below the best so far (None: never).
    test
        Touch the test set at the end (default). Runs that serve a choice, such as that of a learning rate, say false.
    hold_out
        Keep a part of the training set for validation (default). False: train on all of it and
        follow the test set after each epoch, as many published protocols do; the last epoch is reported, and nothing may be chosen by such a run.
    validation
        Which part that is: the ``last`` (default), as many images as `neurosim.data.load` says,
        the same for every seed; or ``random``, drawn from the seed.
    validation_share
        Of ``random``: its share of the training set (default a tenth).
    recorder
        What is recorded while training, to ``recording.h5`` in the run folder: keys of `neurosim.Recorder` but for `path`. By default one trial (batch) per
        epoch, the first. Empty (default): nothing.
    select
        Whose weights the test set is touched with: those of the ``last`` epoch (default), or of the ``best``, the one with the lowest
        validation loss (the earliest of equals).
    """

    model: str
    settings: dict[str, Any] = field(default_factory=dict)
    name: str = ""
    data: str = "digits"
    normalise: str = "none"
    crop: Annotated[int, Ge(0)] = 0
    flip: bool = False
    padding: Literal["black", "edge"] = "black"
    level: Annotated[str, In(LEVELS)] = STEADY
    method: Annotated[str, In(("circuit", *REFERENCES))] = "circuit"
    seed: Seed = 0
    epochs: Count = 30
    batch_size: Count = 32
    last_batch: Literal["drop", "keep"] = "drop"
    optimiser: Literal["none", "sgd", "adam"] = "adam"
    learning_rate: NotNegative = 0.005
    learning_rates: dict[str, NotNegative] = field(default_factory=dict)
    schedule: Literal["exponential", "cosine"] = "exponential"
    decay: Share = 1.0
    final_after: Count | None = None
    final_decay: Share | None = None
    final_rate: NotNegative = 0.0
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.0
    weight_decay: NotNegative = 0.0
    warm_up: Annotated[int, Ge(0)] = 0
    centralise: bool = False
    clip: NotNegative | None = None
    clip_by: Literal["all", "rule", "matrix"] = "all"
    optimise: tuple[str, ...] = ("feedforward",)
    dt: PositiveTime = "1*ms"
    tolerance: NotNegative = 1e-5
    max_sweeps: Count = 50
    solver: Annotated[str, In(SOLVERS)] = "sweeps"
    dtype: Annotated[str, In(DTYPES)] = "float32"
    device: str = "cpu"
    codegen: Annotated[str, In(TARGETS)] = "numpy"
    limit: Count | None = None
    collapse: Share | None = None
    checkpoint: NotNegative = 60.0
    test: bool = True
    hold_out: bool = True
    validation: Literal["last", "random"] = "last"
    validation_share: Annotated[float, Gt(0), Lt(1)] = 0.1
    select: Literal["last", "best"] = "last"
    recorder: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.method in REFERENCES and (self.optimiser == "none" or self.level != "torch:steady"):
            raise NeurosimError(
                f"method = '{self.method}' with optimiser = '{self.optimiser}' and level = '{self.level}': a reference net is plain torch, its "
                "gradients go through an optimiser (sgd, adam) and it knows no level. Leave level out."
            )
        if (self.final_after is None) != (self.final_decay is None):
            raise NeurosimError(
                f"final_after = {self.final_after}, final_decay = {self.final_decay}: one says when, the other how fast; give both or none."
            )
        if self.padding != "black" and not self.crop:
            raise NeurosimError(
                f"padding = '{self.padding}' without crop: nothing is padded. Give crop, or leave padding out."
            )
        if not self.test and not self.hold_out:
            raise NeurosimError(
                "test = false leaves the test set alone, hold_out = false follows it in place of a validation set; wanted one of them."
            )
        if self.select == "best" and not self.hold_out:
            raise NeurosimError(
                "select = 'best' chooses by the validation loss, and hold_out = false leaves no validation set. Leave one of them out."
            )
        if self.validation != "last" and not self.hold_out:
            raise NeurosimError(
                f"validation = '{self.validation}' draws a validation set, and hold_out = false "
                "leaves none. Leave one of them out."
            )
        if self.validation != "random" and self._beside_defaults(("validation_share",)):
            raise NeurosimError(
                f"validation_share = {self.validation_share} with validation = '{self.validation}', "
                "whose size the data set says. Leave it out, or use --set validation=random."
            )
        if self.last_batch == "keep" and self.level != STEADY:
            raise NeurosimError(
                f"last_batch = 'keep' on {self.level}, which holds whole batches: only {STEADY} takes "
                "a smaller one. Use --set last_batch=drop."
            )
        self._check_transform()
        for key in self.recorder:
            known = [f.name for f in fields(Recorder) if f.name != "path"]
            if key not in known:
                raise unknown("key of recorder", key, known)
        Recorder(**self.recorder)
        if self.method in REFERENCES and any("." in name for name in self.recorder.get("variables", ())):
            raise NeurosimError(
                f"recorder names variables of populations with method = '{self.method}': a reference net has weights only. Name projections."
            )
        if self.optimiser != "none" and self.level != "torch:steady" and self.method == "circuit":
            raise NeurosimError(
                f"The optimiser '{self.optimiser}' transforms a whole batch's change, which only torch:steady hands over; "
                f"on {self.level} plasticity is part of the dynamics. Use --set optimiser=none (and eta as the rate)."
            )

    def _check_transform(self) -> None:
        """Refuse keys of the update transform that contradict each other."""
        given = self._beside_defaults
        if self.optimiser == "none" and given(_TRANSFORM):
            raise NeurosimError(
                f"{given(_TRANSFORM)}: they belong to an update transform, and optimiser = 'none' has none. "
                "Leave them out, or use --set optimiser=sgd."
            )
        if self.momentum and self.optimiser != "sgd":
            raise NeurosimError(
                f"momentum = {self.momentum} with optimiser = '{self.optimiser}', which has moments of its own. Leave it out, or use "
                "--set optimiser=sgd."
            )
        for schedule, keys in _OF_SCHEDULE.items():
            if self.schedule != schedule and given(keys):
                raise NeurosimError(
                    f"{given(keys)} with schedule = '{self.schedule}': wanted for schedule = '{schedule}'. Leave one out."
                )
        if self.clip_by != "all" and self.clip is None:
            raise NeurosimError(
                f"clip_by = '{self.clip_by}' without clip: there is no norm to clip to. Give clip, or leave clip_by out."
            )
        if self.method in REFERENCES and (self.learning_rates or self.clip_by == "rule"):
            raise NeurosimError(
                f"{given(('learning_rates', 'clip_by'))} with method = '{self.method}': a reference net has no rules. "
                "Use learning_rate, and clip_by = 'all' or 'matrix'."
            )
        for rule in self.learning_rates:
            if rule not in self.optimise:
                raise NeurosimError(
                    f"learning_rates names '{rule}', and optimise only {', '.join(self.optimise)}.{suggest(rule, self.optimise)} A rule whose "
                    "rate is set must be named in optimise."
                )
        rates = {
            "learning_rate": self.learning_rate,
            **{f"learning_rates.{k}": v for k, v in self.learning_rates.items()},
        }
        for name, rate in rates.items():
            if 0 < rate < self.final_rate:
                raise NeurosimError(
                    f"final_rate = {self.final_rate} is above {name} = {rate}; wanted one that is no larger."
                )

    def _beside_defaults(self, keys: Collection[str]) -> str:
        """Those of the keys that are not at their default, as text."""
        usual = {f.name: f.default if f.default is not MISSING else {} for f in fields(self)}
        return ", ".join(f"{key} = {getattr(self, key)!r}" for key in keys if getattr(self, key) != usual[key])

    def dataset(self, data_dir: str | None = None) -> Dataset:
        """The data set as the run sees it: validation set as `validation` says, normalised."""
        from neurosim import data
        from neurosim.data.validation import draw_validation

        found = data.load(self.data, data_dir)
        if self.validation == "random":
            found = draw_validation(found, self.validation_share, self.seed)
        return data.normalise(found, self.normalise)

    @property
    def labels(self) -> dict[str, Any]:
        """What results and recordings say of the run."""
        level = self.level if self.method == "circuit" else self.method
        return {"model": self.model, "data": self.data, "level": level, "seed": self.seed}

    def to_toml(self) -> str:
        """The run as TOML.

        Raises
        ------
        NeurosimError
            A value that TOML does not hold, or that would be read back as another one; the key is named.
        """
        values = {key: "none" if value is None and key in _PRESET else value for key, value in asdict(self).items()}
        values = {k: v for k, v in values.items() if v is not None and (v != {} or k == "settings")}
        written: dict[str, Any] = {}
        for key, value in values.items():
            if isinstance(value, dict):
                written[key] = {k: _plain(f"{key}.{k}", v) for k, v in value.items()}
            else:
                written[key] = _plain(key, value)
        text = tomli_w.dumps(written)
        if keys := differing(self, self.from_text(text, "The configuration")):
            given = flat(asdict(self))
            shown = ", ".join(f"{key} = {given.get(key)!r}" for key in keys)
            raise NeurosimError(f"A file cannot hold {shown}. Give other values.")
        return text

    @classmethod
    def from_toml(cls, path: str | Path) -> TrainConfig:
        """Read a file written by `to_toml`; unknown keys are refused with the nearest known one."""
        return cls._of(read_toml(path), str(path))

    @classmethod
    def from_text(cls, text: str, where: str) -> TrainConfig:
        """As `from_toml`, of what `to_toml` returned; messages call it `where`."""
        return cls._of(_parsed(text, where), where)

    @classmethod
    def _of(cls, values: dict[str, Any], where: str) -> TrainConfig:
        if "model" not in values:
            raise NeurosimError(f"'{where}' names no model; wanted a line such as model = \"ghost_units\".")
        return cls(**values)


def read_toml(path: str | Path, more: Collection[str] = ()) -> dict[str, Any]:
    """The keys of a `TrainConfig` that a file gives, lists as tuples.

    Parameters
    ----------
    path
        A TOML file: keys of `TrainConfig` at the top, those of the circuit in a table ``[settings]``.
    more
        Further keys that may stand in the file.

    Raises
    ------
    NeurosimError
        No such file, no TOML, or an unknown key (the nearest known one is named).
    """
    path = user_path(path)
    if not path.is_file():
        raise NeurosimError(f"There is no file '{path}'.")
    return _parsed(read_text(path), str(path), more)


def _parsed(text: str, where: str, more: Collection[str] = ()) -> dict[str, Any]:
    try:
        values = tomllib.loads(text)
    except ValueError as error:
        raise NeurosimError(f"'{where}' is damaged: {error}") from error
    except RecursionError:
        raise NeurosimError(f"'{where}' is damaged: its tables and lists are nested too deeply.") from None
    check_keys(values, where, more)
    return {key: None if key in _PRESET and value == "none" else value for key, value in _tuples(values).items()}


def check_keys(values: Mapping[str, Any], where: str, more: Collection[str] = ()) -> None:
    """Refuse a key that is neither of `TrainConfig` nor in `more`, with the nearest known one."""
    known = [*(f.name for f in fields(TrainConfig)), *more]
    for key in values:
        if key not in known:
            raise unknown(f"key in {where}", key, known)


def _tuples(value: Any) -> Any:
    """A file's lists as tuples, which is what settings and keys hold; tables and lists of tables stay."""
    if isinstance(value, dict):
        return {key: _tuples(x) for key, x in value.items()}
    if isinstance(value, list):
        return [_tuples(x) for x in value] if value and isinstance(value[0], dict) else tuple(map(_tuples, value))
    return value


#: Keys that a preset may set and a run may want without a value: files say "none".
_PRESET = ("collapse", "final_after", "final_decay", "clip")
#: Keys that say nothing without the schedule, and without an update transform.
_OF_SCHEDULE = {"exponential": ("decay", "final_after", "final_decay"), "cosine": ("final_rate",)}
_TRANSFORM = (
    "learning_rates", "schedule", "decay", "final_after", "final_decay", "final_rate", "momentum", "weight_decay", "warm_up", "centralise",
    "clip", "clip_by",
)  # fmt: skip
_RATES = "learning_rates."


def _plain(key: str, value: Any) -> Any:
    """A value as TOML holds it: texts, numbers, booleans, lists, tables."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, tuple | list):
        return [_plain(key, v) for v in value]
    if isinstance(value, dict) and all(isinstance(k, str) for k in value):
        return {k: _plain(f"{key}.{k}", v) for k, v in value.items()}
    unwritable = isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value)
    if (
        unwritable
        or not isinstance(value, str | bool | int | float)
        or (isinstance(value, int) and abs(value) >= 2**63)
    ):
        raise NeurosimError(
            f"{key} = {value!r} cannot be written to a file; wanted a text, a number or a list of them."
        )
    return value


def resolve(
    model: str, settings: Mapping[str, Any] | None = None, named_by: str | None = None, look: bool = False,
    **given: Any,
) -> TrainConfig:  # fmt: skip
    """A configuration from the model's preset, then `given` schedule values, then `settings`.

    `settings` may hold keys of the circuit and of the schedule; a key that is neither is refused with the nearest name. A key
    ``learning_rates.RULE`` is an entry of that table, and tables are joined entry by entry. `named_by` is the file in which
    the model is named, see `registry.model`; with `look`, a model file is not imported (and has no preset).
    """
    check("model", model, str)
    only_looked_at = look and registry.is_file(model)
    found = registry.unread(model, settings or {}) if only_looked_at else registry.model(model, named_by)
    schedule_keys = {f.name for f in fields(TrainConfig)} - {"model", "settings"}
    asked = {k: None for k in _PRESET if k in given and given[k] in (None, "none")}
    given = _joined({k: v for k, v in given.items() if v is not None} | asked)
    settings = _joined({k: None if k in _PRESET and v == "none" else v for k, v in (settings or {}).items()})
    for key in settings:
        if key not in schedule_keys and key not in found.parameters:
            raise unknown(f"setting of {model} or of its schedule", key, [*found.parameters, *sorted(schedule_keys)])
    wanted = {**given, **{k: v for k, v in settings.items() if k in schedule_keys and k not in found.parameters}}
    if "learning_rates" in given and "learning_rates" in settings:
        wanted["learning_rates"] = given["learning_rates"] | settings["learning_rates"]
    circuit_learns = wanted.get("method", "circuit") == "circuit"
    if wanted.get("level", "torch:steady") != "torch:steady" and circuit_learns:
        wanted.setdefault("optimiser", "none")
        if str(wanted["level"]).startswith("brian2"):
            wanted.setdefault("dtype", "float64")
    if "solver" in wanted and wanted.get("level", STEADY) != STEADY:
        raise NeurosimError(
            f"solver = '{wanted['solver']}' on {wanted['level']}: only {STEADY} solves for a fixed point. Leave one out."
        )
    settings |= found.checked({k: v for k, v in settings.items() if k in found.parameters})
    preset = found.preset(settings, wanted.get("data", "digits"))
    # Defaults are written down too, so that a saved run does not change with them.
    circuit = {
        k: p.default for k, p in found.parameters.items() if isinstance(p.default, (bool, int, float, str, tuple))
    }
    circuit |= {k: v for k, v in preset.items() if k in found.parameters}
    circuit |= {k: v for k, v in settings.items() if k in found.parameters}
    schedule = {k: v for k, v in preset.items() if k in schedule_keys}
    if "optimiser" in preset and (
        not circuit_learns or wanted.get("optimiser", preset["optimiser"]) != preset["optimiser"]
    ):
        for key in ("optimiser", "learning_rate", *_TRANSFORM):  # of another optimiser
            schedule.pop(key, None)
    rates = schedule.pop("learning_rates", {})
    schedule |= wanted
    if schedule.get("level", STEADY) != STEADY:
        schedule.pop("solver", None)  # a preset's
    if isinstance(schedule.get("optimise"), str):
        schedule["optimise"] = tuple(schedule["optimise"].split(","))
    rates = {rule: rate for rule, rate in rates.items() if rule in schedule.get("optimise", (rule,))}
    if schedule.get("optimiser") == "none":
        rates, idle = {}, _TRANSFORM
    else:
        chosen = schedule.get("schedule", "exponential")
        idle = tuple(k for name, keys in _OF_SCHEDULE.items() if name != chosen for k in keys)
        idle += ("clip_by",) if schedule.get("clip") is None else ()
    idle += () if schedule.get("crop") else ("padding",)
    idle += () if schedule.get("hold_out", True) else ("validation",)
    idle += () if schedule.get("level", STEADY) == STEADY else ("last_batch",)
    for key in idle:
        if key not in wanted:
            schedule.pop(key, None)  # a preset's
    if schedule.get("validation") != "random" and "validation_share" not in wanted:
        schedule.pop("validation_share", None)
    if rates:
        schedule["learning_rates"] = rates | wanted.get("learning_rates", {})
    config = TrainConfig(model, circuit, **schedule)
    config.to_toml()  # what its file cannot hold is refused before a folder is made
    return config


def _joined(values: Mapping[str, Any]) -> dict[str, Any]:
    """Keys ``learning_rates.RULE`` put into the table."""
    rates = {k.removeprefix(_RATES): v for k, v in values.items() if k.startswith(_RATES)}
    joined = {k: v for k, v in values.items() if not k.startswith(_RATES)}
    if rates or "learning_rates" in joined:
        joined["learning_rates"] = table_of(joined.get("learning_rates", {}), "learning_rates") | rates
    return joined


def pair(key: str, value: Any) -> str:
    """``sizes=64,8,10``."""
    return f"{key.removeprefix('settings.')}={','.join(map(str, value)) if isinstance(value, tuple) else value}"


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """The tables ``settings`` and ``learning_rates`` spread out as keys ``settings.KEY`` and ``learning_rates.RULE``."""
    tables = ("settings", "learning_rates")
    flat = {k: v for k, v in values.items() if k not in tables}
    return flat | {f"{t}.{k}": v for t in tables for k, v in table_of(values.get(t, {}), t).items()}


def table_of(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise NeurosimError(f"{what} = {value!r}; wanted a table.")
    return value


def label(config: TrainConfig) -> str:
    """What tables and folders call a run: its name, else its model, or the method where that is a reference."""
    return config.name or (config.method if config.method in REFERENCES else config.model)


def differing(a: TrainConfig, b: TrainConfig) -> list[str]:
    """The keys in which two configurations differ, settings as ``settings.KEY``."""
    one, other = flat(_tuples(asdict(a))), flat(_tuples(asdict(b)))
    return [key for key in {**one, **other} if one.get(key) != other.get(key)]
