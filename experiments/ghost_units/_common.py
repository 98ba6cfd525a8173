"""What the experiments on the ghost-unit circuit share: command line, digits, the held update against backprop, files."""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from neurosim import Circuit, data
from neurosim.analysis import ReferenceNet, cosine
from neurosim.analysis.report import column
from neurosim.files import user_path
from neurosim.models import ghost_units
from neurosim.simulation import build_engine
from neurosim.stimuli import stimulus_fields

#: The net of the note's section 8.
SIZES = (64, 50, 30, 10)
LAYERS = ("W1", "W2", "W3")
SAMPLES = 64
RESULTS = Path(__file__).parent / "results"
#: Sweeps after which the steady level gives up on a sample.
MAX_SWEEPS = 200


def command_line(text: str) -> argparse.Namespace:
    """The options that every experiment has."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, 0 to SEEDS - 1, of the initial weights")
    parser.add_argument("--out", type=user_path, default=RESULTS, help="folder of the results")
    parser.add_argument("--jobs", type=int, default=2, help="processes, each with one thread")
    options = parser.parse_args()
    if min(options.seeds, options.jobs) < 1:
        parser.error("--seeds and --jobs want a number of 1 or more")
    options.out.mkdir(parents=True, exist_ok=True)
    return options


def spread(task: Callable[[Any], list[dict[str, Any]]], items: Sequence[Any], jobs: int) -> list[dict[str, Any]]:
    """Rows of all items, in their order, worked out in `jobs` processes."""
    rows: list[dict[str, Any]] = []
    # spawn: a forked torch may hang
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), initializer=_one_thread) as pool:
        for found in tqdm(pool.map(task, items), total=len(items), unit="task"):
            rows += found
    return rows


def _one_thread() -> None:
    torch.set_num_threads(1)


# ------------------------------------------------------------------ the measurement


@cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Training digits; the experiments measure on the first 64."""
    return data.load("digits").split("train")


@dataclass
class Alignment:
    """The held update of each W_l against minus the gradient of the mean loss.

    Attributes
    ----------
    cosine, ratio
        By layer: cosine, and |update|/|gradient|.
    residual, feedback
        By hidden layer, in the free state: rms of the feedback that the ghosts leave, and of the raw feedback.
    unsettled
        (sample, phase) pairs that missed the tolerance of the steady level.
    """

    cosine: list[float]
    ratio: list[float]
    residual: list[float]
    feedback: list[float]
    unsettled: int

    def row(self, **labels: Any) -> dict[str, Any]:
        return {**labels, **vars(self)}


class Probe:
    """A circuit that presents the 64 digits as one batch with its weights held, again and again with other weights."""

    def __init__(self, circuit: Circuit, level: str = "torch:steady", dt: float = 1e-3):
        self.circuit = circuit
        images, labels = digits()
        self.fields = stimulus_fields(circuit, images[:SAMPLES], labels[:SAMPLES])
        self.engine = build_engine(
            circuit, level, None, 0, batch=SAMPLES, dt=dt, progress=False, tolerance=1e-10, max_sweeps=MAX_SWEEPS
        )

    def __call__(self, weights: Mapping[str, np.ndarray]) -> Alignment:
        self.engine.set_weights(dict(weights))
        result = self.engine.present(self.fields, learn="held")
        gradient = ReferenceNet(self.circuit, weights).gradient(self.fields["image"], self.fields["target"])
        readout = self.circuit.readout
        assert readout is not None
        free, hidden = result.ends[readout.phase], range(1, len(LAYERS))
        return Alignment(
            [cosine(result.collected[n], -gradient[n]) or 0.0 for n in LAYERS],
            [float(np.linalg.norm(result.collected[n]) / np.linalg.norm(gradient[n])) for n in LAYERS],
            [rms(free[f"pyr{l}.residual"]) for l in hidden],
            [rms(free[f"pyr{l}.I_fb"]) for l in hidden],
            result.unsettled,
        )


@cache
def probe(level: str = "torch:steady", **settings: Any) -> Probe:
    """The probe of a circuit of these settings with eta = 1 (building one costs a second, so each is kept)."""
    return Probe(ghost_units.circuit(SIZES, eta=1.0, **settings), level)


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


# ------------------------------------------------------------------ tables and files


def mean(rows: Iterable[Mapping[str, Any]], key: str, **labels: Any) -> np.ndarray:
    """Mean over the rows (seeds) that carry the labels."""
    return column(rows, key, **labels).mean(axis=0)


def largest_sd(rows: Iterable[Mapping[str, Any]], key: str, by: Sequence[str]) -> float:
    """The largest sd over seeds of any entry of a table."""
    groups: dict[tuple[Any, ...], list[Any]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in by), []).append(row[key])
    return float(max(np.max(np.std(values, axis=0, ddof=len(values) > 1)) for values in groups.values()))
