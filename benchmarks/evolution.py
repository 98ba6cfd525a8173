"""Lives per second of a population of learners: batched, one candidate at a time, and the arithmetic's floor.

`batched` is what `neurosim evolve` does with a generation (`Learners.live`; for the search, `Search.paths`). `loop` calls the same for one candidate after
another, on the first few candidates of the same population; its time is scaled to all of them. `floor` is the matrix products of all lives, as batched gemm
of the same sizes into buffers that are there already: drives, top-down net, weight changes; no rates, no optimiser, no losses. All three take turns in one
run; ratios are medians over the turns. With one thread on the CPU ratios are of CPU seconds, so a neighbour on the machine matters less; else of wall time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, cast

import numpy as np
import torch
import tyro

from neurosim.models import tdca
from neurosim.training.evolution.lifetime import Learners, Life
from neurosim.training.evolution.search import Search

#: Cells of each of the top-down net's two layers.
HIDDEN, HIDDEN_OF_SEARCH = 30, 20


@dataclass(frozen=True)
class Settings:
    """Lives per second of a population, by a loop over candidates and by the products alone."""

    cases: tuple[str, ...] = ("digits", "small", "search", "mnist")
    """digits: 64-32-32-10, 128 samples, 30 trials; small: 64-16-10, 16 samples, 30 trials; search: two parameters under 6-20-20-2, 64 searches of 50 steps
    per candidate; mnist: 784-100-100-100-10, 128 samples, 3 trials, up to 65 candidates."""
    populations: tuple[int, ...] = (1, 5, 17, 65, 129, 257)
    repeats: int = 7
    """Timed turns, after one that is not timed."""
    loop: int = 4
    """Candidates that the loop is measured on in each turn."""
    threads: int = 1
    device: str = "cpu"
    dtype: str = "float32"
    quick: bool = False
    """Two small populations, one turn, two trials: whether it runs."""
    out: Path | None = None
    """Write the measurements to this JSON file, for example benchmarks/results/evolution.json."""


@dataclass(frozen=True)
class Case:
    """Learners of these sizes, or searches (no sizes); `batch` samples of a trial, or searches of a candidate."""

    sizes: tuple[int, ...]
    batch: int
    steps: int
    most: int = 10_000
    """Largest population."""


CASES = {
    "digits": Case((64, 32, 32, 10), 128, 30),
    "small": Case((64, 16, 10), 16, 30),
    "search": Case((), 64, 50),
    "mnist": Case((784, 100, 100, 100, 10), 128, 3, 65),
}
#: All candidates' lives, the lives of one candidate, all products.
Runs = tuple[Callable[[], None], Callable[[int], None], Callable[[], None]]


class Products:
    """Batched products (population, n, k) x (population, k, m) of random numbers, repeated."""

    def __init__(self, settings: Settings, population: int, steps: int):
        self.population, self.steps = population, steps
        self.draw = partial(torch.randn, device=settings.device, dtype=getattr(torch, settings.dtype))
        self.calls: list[Callable[[], torch.Tensor]] = []

    def drive(self, rates: torch.Tensor, n: int, bias: bool = True) -> None:
        """Rates (population, samples, k) into n cells."""
        weights, out = self.draw(self.population, rates.shape[2], n), self.draw(self.population, rates.shape[1], n)
        if bias:
            row = self.draw(self.population, 1, n)
            self.calls.append(partial(torch.baddbmm, row, rates, weights, out=out))
        else:
            self.calls.append(partial(torch.bmm, rates, weights, out=out))

    def change(self, post: torch.Tensor, pre: torch.Tensor) -> None:
        """The change of weights between cells with these factors (population, samples, cells)."""
        out = self.draw(self.population, pre.shape[2], post.shape[2])
        self.calls.append(partial(torch.bmm, pre.mT, post, out=out))

    def __call__(self) -> None:
        last = None
        for _ in range(self.steps):
            for call in self.calls:
                last = call()
        if last is not None:
            float(last.flatten()[0])  # waits for the device


def classifiers(case: Case, settings: Settings, population: int) -> Runs:
    """Learners with credits of their own for each cell, each candidate with other top-down weights."""
    circuit = tdca.circuit(sizes=case.sizes, hidden=HIDDEN)
    learners = Learners(circuit, settings.dtype, settings.device)
    arrays, rng, life = learners.arrays, np.random.default_rng(0), Life(steps=case.steps)
    stimuli: dict[str, torch.Tensor] = {
        "image": arrays.asarray(rng.standard_normal((case.batch, case.sizes[0]))),
        "target": arrays.asarray(np.eye(case.sizes[-1])[rng.integers(case.sizes[-1], size=case.batch)]),
    }
    theta = learners.theta(circuit.initial_weights(0))
    candidates = arrays.asarray(theta + 0.1 * rng.standard_normal((population, learners.size)))
    evolved = learners.stacked(candidates)
    born = {n: w.expand(population, *w.shape[1:]) for n, w in learners.born([1]).items()}

    def live(first: int, count: int) -> None:
        own, theirs = ({n: w[first : first + count] for n, w in weights.items()} for weights in (born, evolved))
        _, losses = learners.live(life, own, theirs, lambda t: stimuli)
        float(losses[-1, 0])  # waits for the device

    products = Products(settings, population, case.steps)
    draw, classes = products.draw, case.sizes[-1]
    image = draw(case.batch, case.sizes[0]).expand(population, -1, -1)  # the same for all
    rates = [image, *(draw(population, case.batch, n) for n in case.sizes[1:])]
    target = draw(case.batch, classes).expand(population, -1, -1)
    above = draw(population, case.batch, HIDDEN)
    for pre, n in zip(rates[:-1], case.sizes[1:], strict=True):
        products.drive(pre, n)
    products.drive(rates[-1], HIDDEN)
    products.drive(target, HIDDEN, bias=False)
    products.drive(above, HIDDEN)
    for n in case.sizes[1:]:
        products.drive(above, n)
    for pre, post in pairwise(rates):
        products.change(post, pre)
    return partial(live, 0, population), lambda i: live(i, 1), products


def searches(case: Case, settings: Settings, population: int) -> Runs:
    """Searches of the tilted egg-box. The products are the top-down net's: the learner has one weight per parameter."""
    search = Search(
        tasks=case.batch, steps=case.steps, hidden=HIDDEN_OF_SEARCH, dtype=settings.dtype, device=settings.device
    )
    rng = np.random.default_rng(0)
    candidates = torch.as_tensor(search.first() + 0.1 * rng.standard_normal((population, search.size)))
    starts, shifts = search.drawn(0)

    @torch.no_grad()
    def live(first: int, count: int) -> None:
        found = search.paths(candidates[first : first + count], starts, shifts, keep=False)
        float(found.values[0, 0, -1])  # waits for the device

    products = Products(settings, population, case.steps)
    for k, n in ((6, HIDDEN_OF_SEARCH), (HIDDEN_OF_SEARCH, HIDDEN_OF_SEARCH), (HIDDEN_OF_SEARCH, 2)):
        products.drive(products.draw(population, case.batch, k), n)
    return partial(live, 0, population), lambda i: live(i, 1), products


def timed(run: Callable[[], None]) -> np.ndarray:
    """CPU seconds and wall seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    run()
    return np.array([time.process_time() - cpu, time.perf_counter() - wall])


def measure(name: str, case: Case, settings: Settings, population: int) -> dict[str, Any]:
    """The row of one population."""
    batched, one, floor = (classifiers if case.sizes else searches)(case, settings, population)
    some = min(settings.loop, population)

    def loop() -> None:
        for i in range(some):
            one(i)

    seconds: dict[str, list[np.ndarray]] = {"batched": [], "loop": [], "floor": []}
    for turn in range(1 + settings.repeats):
        for method, run, scale in (("batched", batched, 1.0), ("loop", loop, population / some), ("floor", floor, 1.0)):
            found = scale * timed(run)
            if turn:
                seconds[method].append(found)
    clock = 0 if settings.threads == 1 and settings.device == "cpu" else 1
    taken = {method: np.array(found) for method, found in seconds.items()}
    by = {method: found[:, clock] for method, found in taken.items()}
    lives = population * (1 if case.sizes else case.batch)
    return {
        "case": name, "population": population, "lives": lives, "loop_measured_on": some,
        "lives_per_second": lives / median(by["batched"]),
        "loop_by_batched": median(by["loop"] / by["batched"]),
        "share_of_floor": median(by["floor"] / by["batched"]),
        **{f"{m}_{c}_seconds": median(found[:, i]) for m, found in taken.items() for i, c in enumerate(("cpu", "wall"))},
    }  # fmt: skip


def main(settings: Settings) -> None:
    torch.set_num_threads(settings.threads)
    torch.set_flush_denormal(True)  # as `neurosim evolve` does
    cases = {name: CASES[name] for name in settings.cases}
    if settings.quick:
        settings = replace(settings, populations=(1, 5), repeats=1, loop=1)
        cases = {name: replace(case, steps=2) for name, case in cases.items()}
    rows: list[dict[str, Any]] = []
    print(f"{settings.threads} thread(s), {settings.dtype}, {settings.device}")
    print(
        "| case | P | lives/s | times P = 1 | loop / batched | share of floor | batched, CPU s | wall s | loop, CPU s | floor, CPU s |\n"
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    )
    for name, case in cases.items():
        alone = None
        for population in sorted(p for p in settings.populations if p <= case.most):
            row = measure(name, case, settings, population)
            if population == 1:
                alone = row["lives_per_second"]
            row["by_population_of_one"] = None if alone is None else row["lives_per_second"] / alone
            rows.append(row)
            more = cast("float | None", row["by_population_of_one"])
            print(
                f"| {name} | {population} | {row['lives_per_second']:.4g} | {'' if more is None else f'{more:.1f}'} | {row['loop_by_batched']:.2f} | "
                f"{row['share_of_floor']:.0%} | {row['batched_cpu_seconds']:.4g} | {row['batched_wall_seconds']:.4g} | "
                f"{row['loop_cpu_seconds']:.4g} | {row['floor_cpu_seconds']:.4g} |",
                flush=True,
            )
    if settings.out is not None:
        about = {"settings": {**asdict(settings), "out": str(settings.out)}, "torch": torch.__version__}
        settings.out.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Settings))
