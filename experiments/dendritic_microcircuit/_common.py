"""What the experiments on the dendritic microcircuit share: command line, rates, the state without a target, files."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from neurosim import Circuit, Fragment
from neurosim.analysis import command_line
from neurosim.analysis.command_line import parse
from neurosim.models import dendritic_microcircuit
from neurosim.simulation import build_engine

RESULTS = Path(__file__).parent / "results"
#: The net of the published two-layer tasks.
SIZES = (30, 20, 10)
#: Unseen inputs on which the two tasks are measured.
UNSEEN = 100
#: Plain sweeps settle as well as Anderson's here, in half the time.
STEADY: dict[str, Any] = {"method": "sweeps", "tolerance": 1e-8}
#: Random streams of a seed, apart from those of the weights.
INPUTS, UNSEEN_INPUTS, TEACHER = 7, 9, 11


def parser(text: str, seeds: int = 3) -> argparse.ArgumentParser:
    """The options that every experiment has."""
    return command_line.parser(text, RESULTS, seeds)


# ------------------------------------------------------------------ circuits


def with_rates(circuit: Circuit, rates: Mapping[str, float]) -> Circuit:
    """The circuit with other learning rates (1/ms), by name of a projection or of a rule; 0 takes the rule away."""
    changed = []
    for p in circuit.projections:
        if p.rule is not None:
            eta = rates.get(p.name, rates.get(p.rule.name))
            if eta is not None:
                rule = replace(p.rule, parameters={**p.rule.parameters, "eta": f"{eta!r}/ms"}) if eta else None
                p = replace(p, rule=rule)
        changed.append(p)
    return replace(circuit, fragment=Fragment(circuit.populations, tuple(changed)))


class Unseen:
    """Fixed points without a target for unseen inputs, weights held: what both tasks are measured in."""

    def __init__(self, inputs: np.ndarray, **settings: Any):
        free = dendritic_microcircuit.circuit(SIZES, task="self_prediction", **settings)
        self.fields = {"image": inputs}
        self.engine = build_engine(free, "torch:steady", None, 0, batch=len(inputs), dt=1e-4, progress=False)

    def __call__(self, weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.engine.set_weights(dict(weights))
        return self.engine.present(self.fields, learn="off").ends["free"]


def inputs_of(stream: int, seed: int, count: int) -> np.ndarray:
    """Inputs, uniform on 0 to 1."""
    return np.random.default_rng([seed, stream]).uniform(size=(count, SIZES[0]))


def rms(values: np.ndarray) -> float:
    with np.errstate(over="ignore"):  # weights of a run that diverges
        return float(np.sqrt(np.mean(np.square(values))))


__all__ = [
    "INPUTS",
    "RESULTS",
    "SIZES",
    "STEADY",
    "TEACHER",
    "UNSEEN",
    "UNSEEN_INPUTS",
    "Unseen",
    "inputs_of",
    "parse",
    "parser",
    "rms",
    "with_rates",
]
