"""The configuration of a training run."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Gt, Lt

from neurosim.backends import DTYPES, LEVELS, SOLVERS, STEADY, TARGETS
from neurosim.checks import Count, In, NotNegative, PositiveTime, Seed, Share, check_fields
from neurosim.errors import NeurosimError, unknown
from neurosim.training import toml
from neurosim.training.consistency import check_consistency

if TYPE_CHECKING:
    from neurosim.data import Dataset

#: What a sweep file holds beside the keys of an experiment file.
SWEEP_KEYS = ("seeds", "run", "grid")
#: Plain torch references that the trainer runs like a circuit: the same net, data order and budget.
REFERENCES = ("backprop", "feedback_alignment", "direct_feedback_alignment")
#: Keys that a preset may set and a run may want without a value: files say "none".
MAY_BE_NONE = ("collapse", "final_after", "final_decay", "clip")


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
        What tables and curves call the run; empty: the model, or the method where that is a
        reference.
    data
        Name of a data set.
    normalise
        Normalisation of the pixels, see `neurosim.data.normalise`: ``none`` (default, [0, 1]),
        ``standard``, ...
    crop, flip
        Augmentation of the training images: shift by up to `crop` pixels (padding, then a random
        crop), mirror left-right at random.
    padding
        Of `crop`: ``black`` (default), or ``edge``, which repeats the pixels at the image's edge.
    level
        ``torch:steady`` (default), ``torch:trajectory``, ``brian2:dense`` or ``brian2:equations``.
    method
        ``circuit`` (the circuit's own rules), or the reference net of the circuit under
        ``backprop``, ``feedback_alignment`` or ``direct_feedback_alignment``.
    seed
        Seeds the initial weights and the order of the data.
    epochs, batch_size
        Length of training.
    last_batch
        What becomes of the samples of an epoch that fill no batch: ``drop`` (default), they are
        left out (the data are shuffled anew in each epoch); ``keep``, they are a last, smaller
        batch, whose changes are means over its own size. Needs torch:steady.
    optimiser
        Update transform of the rules named in `optimise`: ``none`` (changes are added as the rule
        says), ``sgd`` (times `learning_rate`), ``adam``. Needs torch:steady. What follows up to
        `optimise` belongs to it; a batch's changes pass warm-up, centralisation, clipping, weight
        decay, momentum and the rate, in this order (see `neurosim.training.optimisers.Transform`).
    learning_rate
        The rate of the first epoch.
    learning_rates
        Rates in place of it, by the name of a rule in `optimise`; 0 leaves its weights as they are.
    schedule
        Rate of epoch n, counted from 1: ``exponential`` (default),
        ``learning_rate * decay**(n - 1)``, or ``cosine``,
        ``final_rate + (learning_rate - final_rate) * (1 + cos(pi*(n - 1)/epochs))/2``
        (Loshchilov & Hutter 2017, without restarts).
    decay
        Of the exponential schedule; 1 (default): a constant rate.
    final_after, final_decay
        Of the exponential schedule: after `final_after` epochs the rate is
        ``learning_rate * final_decay**(n - 1)`` (None: no such change).
    final_rate
        Of the cosine schedule: where it would end, in epoch `epochs` + 1 (default 0); no larger
        than the rates.
    momentum
        Of sgd, in [0, 1): what is added is ``v <- momentum*v + change`` (default 0).
    weight_decay
        ``weight_decay * w`` is taken from the change of each weight w (default 0).
    warm_up
        The changes of the first `warm_up` updates (batches) are scaled by 1/`warm_up`, 2/`warm_up`,
        ..., 1 (default 0: none).
    centralise
        Take from each change its mean over the sources of the cell (Yong et al. 2020: gradient
        centralisation). Weights that have one source only, such as biases, are left out.
    clip
        Largest norm of a batch's changes; longer ones are scaled down to it (None: none).
    clip_by
        What the norm is taken of: ``all`` optimised weights together (default), those of each
        ``rule``, or each ``matrix``.
    optimise
        Names of the rules whose changes go through the transform; the others are added as they are.
        ``feedforward`` (default) means all rules of a circuit that has none of that name.
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
        Stop, and count the run as failed, when an epoch's training accuracy is this far (in [0, 1])
        below the best so far (None: never).
    test
        Touch the test set at the end (default). Runs that serve a choice, such as that of a
        learning rate, say false.
    hold_out
        Keep a part of the training set for validation (default). False: train on all of it and
        follow the test set after each epoch, as many published protocols do; the last epoch is
        reported, and nothing may be chosen by such a run.
    validation
        Which part that is: the ``last`` (default), as many images as `neurosim.data.load` says, the
        same for every seed; or ``random``, drawn from the seed.
    validation_share
        Of ``random``: its share of the training set (default a tenth).
    recorder
        What is recorded while training, to ``recording.h5`` in the run folder: keys of
        `neurosim.Recorder` but for `path`. By default one trial (batch) per epoch, the first. Empty
        (default): nothing.
    select
        Whose weights the test set is touched with: those of the ``last`` epoch (default), or of the
        ``best``, the one with the lowest validation loss (the earliest of equals).
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
        check_consistency(self)

    @property
    def is_reference(self) -> bool:
        """Whether a plain reference net is trained in place of the circuit."""
        return self.method in REFERENCES

    @property
    def is_settled(self) -> bool:
        """Whether a batch is settled as a whole, or run through a reference net, in no time."""
        return self.level == STEADY or self.is_reference

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
            A value that TOML does not hold, or that would be read back as another one; the key is
            named.
        """
        given = asdict(self)
        values = {k: "none" if v is None and k in MAY_BE_NONE else v for k, v in given.items()}
        kept = {k: v for k, v in values.items() if v is not None and (v != {} or k == "settings")}
        text = toml.written(kept)
        if keys := differing(self, self.from_text(text, "The configuration")):
            shown = ", ".join(f"{key} = {flat(given).get(key)!r}" for key in keys)
            raise NeurosimError(f"A file cannot hold {shown}. Give other values.")
        return text

    @classmethod
    def from_toml(cls, path: str | Path) -> TrainConfig:
        """Read a file written by `to_toml`; unknown keys are refused with the nearest known one."""
        return cls._of(read_toml(path), str(path))

    @classmethod
    def from_text(cls, text: str, where: str) -> TrainConfig:
        """As `from_toml`, of what `to_toml` returned; messages call it `where`."""
        return cls._of(_known(toml.parsed(text, where), where), where)

    @classmethod
    def _of(cls, values: dict[str, Any], where: str) -> TrainConfig:
        if "model" not in values:
            line = 'model = "ghost_units"'
            raise NeurosimError(f"'{where}' names no model; wanted a line such as {line}.")
        return cls(**values)


def read_toml(path: str | Path, more: Collection[str] = ()) -> dict[str, Any]:
    """The keys of a `TrainConfig` that a file gives, lists as tuples.

    Parameters
    ----------
    path
        A TOML file: keys of `TrainConfig` at the top, those of the circuit in a table
        ``[settings]``.
    more
        Further keys that may stand in the file.

    Raises
    ------
    NeurosimError
        No such file, no TOML, or an unknown key (the nearest known one is named).
    """
    return _known(toml.read(path), str(path), more)


def _known(values: dict[str, Any], where: str, more: Collection[str] = ()) -> dict[str, Any]:
    check_keys(values, where, more)
    return {k: None if k in MAY_BE_NONE and v == "none" else v for k, v in values.items()}


def check_keys(values: Mapping[str, Any], where: str, more: Collection[str] = ()) -> None:
    """Refuse a key that is neither of `TrainConfig` nor in `more`, with the nearest known one."""
    known = [*(f.name for f in fields(TrainConfig)), *more]
    for key in values:
        if key not in known:
            raise unknown(f"key in {where}", key, known)


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Spread out two tables: keys ``settings.KEY`` and ``learning_rates.RULE``."""
    tables = ("settings", "learning_rates")
    flat = {k: v for k, v in values.items() if k not in tables}
    return flat | {f"{t}.{k}": v for t in tables for k, v in table_of(values.get(t, {}), t).items()}


def table_of(value: Any, what: str) -> dict[str, Any]:
    """A value that must be a table."""
    if not isinstance(value, dict):
        raise NeurosimError(f"{what} = {value!r}; wanted a table.")
    return value


def pair(key: str, value: Any) -> str:
    """``sizes=64,8,10``."""
    shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
    return f"{key.removeprefix('settings.')}={shown}"


def label(config: TrainConfig) -> str:
    """What tables and folders call a run: its name, or else its model (a reference: its method)."""
    return config.name or (config.method if config.is_reference else config.model)


def differing(a: TrainConfig, b: TrainConfig) -> list[str]:
    """The keys in which two configurations differ, settings as ``settings.KEY``."""
    one, other = (flat(toml.tuples(asdict(config))) for config in (a, b))
    return [key for key in {**one, **other} if one.get(key) != other.get(key)]
