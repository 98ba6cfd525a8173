"""The configuration of `neurosim evolve`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from neurosim import registry
from neurosim.errors import NeurosimError, unknown

STRATEGIES = ("pepg", "cmaes", "meta_gradient")
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
    seed: int = 0
    strategy: str = "pepg"
    generations: int = 400
    population: int = 65
    sigma: float = 0.1
    rate: float | None = None
    optimiser: str = "adam"
    learning_rate: float = 0.03
    clip: float | None = 1.0
    steps: int = 30
    fitness: str = "last"
    batch: int = 128
    fresh: bool = False
    tasks: int = 1
    classes: int | None = None
    fixed_start: bool = False
    chunk: int | None = None
    test: bool = True
    dtype: str = "float32"
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in ("data", "normalise", "strategy", "optimiser", "fitness", "dtype", "device"):
            if not isinstance(getattr(self, name), str):
                raise NeurosimError(f"{name} = {getattr(self, name)!r}; wanted a name.")
        if self.strategy not in STRATEGIES:
            raise unknown("strategy", self.strategy, STRATEGIES)
        for name, least in (
            ("seed", 0),
            ("generations", 1),
            ("population", 3),
            ("steps", 1),
            ("batch", 0),
            ("tasks", 1),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise NeurosimError(f"{name} = {value!r}; wanted a whole number of at least {least}.")
        for name in ("classes", "chunk"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise NeurosimError(f"{name} = {value!r}; wanted a whole number of at least 1, or none.")
        for name in ("fresh", "fixed_start", "test"):
            if not isinstance(getattr(self, name), bool):
                raise NeurosimError(f"{name} = {getattr(self, name)!r}; wanted true or false.")
        for name in ("sigma", "rate", "learning_rate", "clip"):
            value = getattr(self, name)
            if name in ("rate", "clip") and value is None:
                continue
            if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < float("inf"):
                raise NeurosimError(f"{name} = {value!r}; wanted a number above 0.")

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
    circuit = {k: v for k, v in settings.items() if k in found.parameters}
    preset = found.preset(circuit, given.get("data", "digits"))
    defaults = {
        k: p.default for k, p in found.parameters.items() if isinstance(p.default, bool | int | float | str | tuple)
    }
    circuit = defaults | {k: v for k, v in preset.items() if k in found.parameters} | circuit
    return EvolveConfig(model, circuit, **{**_BY_STRATEGY.get(given.get("strategy", "pepg"), {}), **given})
