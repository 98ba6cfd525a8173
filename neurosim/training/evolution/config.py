"""The configuration of `neurosim evolve`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Annotated, Any, Literal

from annotated_types import Ge

from neurosim import registry
from neurosim.backends import DTYPES
from neurosim.checks import Count, In, Positive, Seed, check_fields
from neurosim.errors import unknown

#: What a strategy changes of the defaults.
_BY_STRATEGY: dict[str, dict[str, Any]] = {"meta_gradient": {"tasks": 4, "generations": 600, "fitness": "mean"}}


@dataclass(frozen=True)
class EvolveConfig:
    """Everything that an evolution depends on.

    Parameters
    ----------
    model, settings
        The circuit, whose `Circuit.evolved` weights are searched.
    data, normalise
        The task: classification of this data set.
    seed
        Of theta's start, noise, tasks and newborn learners.
    strategy
        ``"pepg"`` (default), ``"cmaes"``, or ``"meta_gradient"``: backpropagation through whole lives, neither biologically plausible nor the paper's.
    generations
        Updates of theta.
    population, sigma, rate
        Candidates per generation, first standard deviation of their noise, and rate of theta (None: that of the strategy); the gradient has no use for the
        first two.
    optimiser, learning_rate, clip, steps
        A learner's life, see `Life`. `clip` None: no limit.
    fitness, batch, fresh, tasks, classes, fixed_start, chunk
        See `Classification`.
    test
        Read the test set once, when all generations are done.
    dtype, device
        Of the learners. Theta is float64.
    """

    model: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    data: str = "digits"
    normalise: str = "none"
    seed: Seed = 0
    strategy: Literal["pepg", "cmaes", "meta_gradient"] = "pepg"
    generations: Count = 400
    population: Annotated[int, Ge(3)] = 65
    sigma: Positive = 0.1
    rate: Positive | None = None
    optimiser: Literal["adam", "sgd"] = "adam"
    learning_rate: Positive = 0.03
    clip: Positive | None = 1.0
    steps: Count = 30
    fitness: Literal["last", "mean"] = "last"
    batch: Annotated[int, Ge(0)] = 128
    fresh: bool = False
    tasks: Count = 1
    classes: Count | None = None
    fixed_start: bool = False
    chunk: Count | None = None
    test: bool = True
    dtype: Annotated[str, In(DTYPES)] = "float32"
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_fields(self)

    def to_json(self) -> dict[str, Any]:
        """Plain values; without the number of generations, of which an evolution that goes on may have more."""
        return {k: v for k, v in asdict(self).items() if k != "generations"}


def resolved(model: str, settings: Mapping[str, Any], **given: Any) -> EvolveConfig:
    """A configuration from keys of the circuit and of `EvolveConfig` (`settings` may hold both), on the model's sizes for the data set.

    Raises
    ------
    NeurosimError
        A key that neither knows (the nearest is named), or a value that is out of range.
    """
    found = registry.model(model)
    keys = {f.name for f in fields(EvolveConfig)} - {"model", "settings"}
    given = {k: v for k, v in given.items() if v is not None}
    for key in settings:
        if key not in keys and key not in found.parameters:
            raise unknown(f"setting of {model} or of its evolution", key, [*found.parameters, *sorted(keys)])
    given |= {k: None if v == "none" and k != "normalise" else v for k, v in settings.items() if k in keys}
    circuit = found.checked({k: v for k, v in settings.items() if k in found.parameters})
    preset = found.preset(circuit, given.get("data", "digits"))
    defaults = {
        k: p.default for k, p in found.parameters.items() if isinstance(p.default, bool | int | float | str | tuple)
    }
    circuit = defaults | {k: v for k, v in preset.items() if k in found.parameters} | circuit
    return EvolveConfig(model, circuit, **{**_BY_STRATEGY.get(str(given.get("strategy")), {}), **given})
