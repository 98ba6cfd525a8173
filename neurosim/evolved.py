"""Evolved weights on disk: what `neurosim evolve` writes and a circuit reads."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from neurosim import tensors
from neurosim.checks import check, shown
from neurosim.description import Given, Projection
from neurosim.errors import NeurosimError, suggest
from neurosim.files import check_replaceable, user_path
from neurosim.reading import damaged
from neurosim.settings import ModelSettings, Parts

KIND = "evolved weights"
#: The file in a folder of `neurosim evolve`.
NAME = "evolved.safetensors"
MEND = "Evolve again, or take another file."


@dataclass(frozen=True)
class Evolved:
    """Weights that evolution has found for a circuit.

    Attributes
    ----------
    weights
        By projection, as `Circuit.initial_weights` shapes them.
    model, settings
        The circuit for which they were found.
    facts
        How: the learner's life (optimiser, rate, clipping, steps), data set, strategy, seed, generations, population.
    """

    weights: dict[str, np.ndarray]
    model: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def said(self) -> str:
        """The settings in words."""
        return ", ".join(f"{k} = {v}" for k, v in self.settings.items())

    @property
    def training(self) -> dict[str, Any]:
        """Optimiser, rate and clipping of the learner's life, as `neurosim train` calls them."""
        life = self.facts.get("life", {})
        names = {"optimiser": "optimiser", "rate": "learning_rate", "clip": "clip"}
        return {name: life[key] for key, name in names.items() if key in life}

    def save(self, path: str | Path) -> Path:
        """Write the file, complete or not at all."""
        about = {"kind": KIND, "model": self.model, "settings": dict(self.settings), "facts": dict(self.facts)}
        return tensors.save(check_replaceable(user_path(path), ".safetensors"), self.weights, about)


def load_evolved(path: str | Path) -> Evolved:
    """Read a file that `Evolved.save` wrote, or the one in a folder of `neurosim evolve`.

    Raises
    ------
    NeurosimError
        No such file, or one that is truncated, damaged, of a newer version or something else; NaN or infinity.
    """
    path = user_path(str(path))  # of a folder named 5, a setting is the number
    path = path / NAME if path.is_dir() else path
    if not path.is_file():
        raise NeurosimError(f"There is no file '{path}' of evolved weights; `neurosim evolve` writes one.")
    weights, about = tensors.load(
        path, "file of evolved weights", MEND, may={"kind": str, "model": str, "settings": dict, "facts": dict}
    )
    if about.get("kind") != KIND:
        raise NeurosimError(f"'{path}' holds no evolved weights; expected a file that `neurosim evolve` wrote.")
    if missing := [key for key in ("model", "settings", "facts") if key not in about]:
        raise damaged(path, f"it lacks {', '.join(missing)}", MEND)
    tensors.check_finite(path, weights, MEND)
    settings = {k: tuple(v) if isinstance(v, list) else v for k, v in about["settings"].items()}
    return Evolved(
        {n: np.asarray(w, dtype=np.float64) for n, w in weights.items()}, about["model"], settings, about["facts"]
    )


def as_evolved(name: str, usual: Any) -> Any:
    """A field of `EvolvedSettings` whose default is what the file was evolved with, else the usual value."""
    return field(default=None, metadata={"computed": lambda s: s.said_by_file.get(name, usual), "evolved": usual})


@dataclass(frozen=True)
class EvolvedSettings(ModelSettings):
    """Settings of a model some of whose weights may come from a file of `neurosim evolve`.

    A class of them says the model (`MODEL`), the setting that names the file (`KEY`), the words that may stand in its
    place (`WORDS`), and the settings that evolution has fixed (`FIXED`). The model has `sizes`.

    Raises
    ------
    NeurosimError
        A fixed setting that is not the file's, another number of classes; see also `load`.
    """

    MODEL: ClassVar[str]
    KEY: ClassVar[str]
    WORDS: ClassVar[Collection[str]]
    FIXED: ClassVar[Collection[str]]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.evolved is None:
            return
        value = getattr(self, self.KEY)
        usual = {item.name: item.metadata["evolved"] for item in fields(self) if "evolved" in item.metadata}
        for name in self.FIXED:
            then = self.said_by_file.get(name, usual[name])
            if getattr(self, name) != then:
                raise NeurosimError(
                    f"{name} = {getattr(self, name)} with {self.KEY} = '{value}', which was evolved with {name} = {then}. "
                    "Leave it out."
                )
        sizes, classes = getattr(self, "sizes"), self.evolved.settings["sizes"][-1]  # noqa: B009
        if sizes[-1] != classes:
            raise NeurosimError(
                f"sizes = {tuple(sizes)} with {self.KEY} = '{value}', which was evolved for {classes} classes; expected as many."
            )

    @classmethod
    def load(cls, value: Any) -> Evolved | None:
        """The file that the value of `KEY` names, checked; None of a word that stands in its place.

        Raises
        ------
        NeurosimError
            No such file, a damaged one, one for another model, one whose settings or weights cannot be; the cure.
        """
        if value in cls.WORDS:
            return None
        try:
            found = load_evolved(value)
        except (NeurosimError, OSError) as error:  # a name may be too long for a file
            reason = f"{getattr(error, 'strerror', None) or error}".rstrip(".")
            raise NeurosimError(
                f"{cls.KEY} = {shown(value)}: {reason}.{suggest(value, cls.WORDS)} Expected such a file, or "
                f"{', '.join(cls.WORDS)}."
            ) from error
        if found.model != cls.MODEL:
            raise NeurosimError(
                f"'{value}' was evolved for {found.model}; expected a file of `neurosim evolve {cls.MODEL}`. Give another file."
            )
        hints, where = cls.hints(), f"'{value}': "
        settings = {k: check(k, v, hints[k], where) if k in hints else v for k, v in found.settings.items()}
        if settings.get("sizes") is None:
            raise NeurosimError(f"{where[:-2]} does not say for which sizes it was evolved. {MEND}")
        check("life", found.facts.get("life", {}), dict[str, Any], where)
        for name, weights in found.weights.items():
            if weights.ndim < 2:
                raise NeurosimError(
                    f"{where}'{name}' has the shape {weights.shape}; expected (sources, targets). {MEND}"
                )
        return replace(found, settings=settings)

    @classmethod
    def of_file(cls, found: Evolved) -> dict[str, Any]:
        """What a file says of the fields made by `as_evolved`."""
        names = {item.name for item in fields(cls) if "evolved" in item.metadata}
        return {k: v for k, v in found.settings.items() if k in names and v is not None}

    @cached_property
    def evolved(self) -> Evolved | None:
        """The file, if there is one."""
        return self.load(getattr(self, self.KEY))

    @cached_property
    def said_by_file(self) -> dict[str, Any]:
        return {} if self.evolved is None else self.of_file(self.evolved)


def with_evolved(parts: Parts, evolved: Evolved | None, file: Any) -> Parts:
    """The parts with the evolved weights, if there are any, on the projections that are to be evolved.

    Raises
    ------
    NeurosimError
        Weights that the file lacks, or that no projection has: a name.
    """
    if evolved is None:
        return parts
    names = [p.name for p in parts if isinstance(p, Projection) and p.evolved]
    if missing := [name for name in names if name not in evolved.weights]:
        raise NeurosimError(
            f"'{file}' holds no weights for '{missing[0]}'; expected a file evolved for the same levels and architecture."
        )
    if unused := sorted(set(evolved.weights) - set(names)):
        raise NeurosimError(
            f"'{file}' holds weights for '{unused[0]}', which this learner has not: they are for {evolved.said}. "
            "Expected the same levels."
        )
    return [
        replace(p, weights=Given(evolved.weights[p.name])) if isinstance(p, Projection) and p.evolved else p
        for p in parts
    ]
