"""Evolved weights on disk: what `neurosim evolve` writes and a circuit reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from neurosim import tensors
from neurosim.errors import NeurosimError
from neurosim.files import check_replaceable, user_path
from neurosim.reading import damaged

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
        raise NeurosimError(f"'{path}' holds no evolved weights; wanted a file that `neurosim evolve` wrote.")
    if missing := [key for key in ("model", "settings", "facts") if key not in about]:
        raise damaged(path, f"it lacks {', '.join(missing)}", MEND)
    tensors.check_finite(path, weights, MEND)
    settings = {k: tuple(v) if isinstance(v, list) else v for k, v in about["settings"].items()}
    return Evolved(
        {n: np.asarray(w, dtype=np.float64) for n, w in weights.items()}, about["model"], settings, about["facts"]
    )
