"""The outer loop: strategies, and evolutions that stop, by an exception, a signal, a full disk or damage, and go on.

Oracles: PEPG in plain loops (`oracles/pepg.py`) and the figures noted for its released form on a quadratic; the closed form of a first generation of
CMA-ES; Adam by hand; for what stops, the same evolution undisturbed, bit for bit. This file, run as a script, is one of two processes.
"""

from __future__ import annotations

import errno
import json
import math
import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from neurosim import files, tensors
from neurosim.backends.torch.workers import leave
from neurosim.errors import DivergenceError, NeurosimError
from neurosim.files import LOCK, PART
from neurosim.training import checkpoint
from neurosim.training.evolution import CMAES, PEPG, MetaGradient, Strategy, evolve, load, loop
from neurosim.training.evolution.pepg import centred_ranks

sys.path.insert(0, str(Path(__file__).parent))  # when run as a script
from oracles import pepg as oracle

TIMEOUT = 120.0  # for a hang
START = np.linspace(-1.0, 1.0, 6)


def quadratic(candidates: torch.Tensor, generation: int) -> torch.Tensor:
    """Highest, 0, at 1.5."""
    return -(candidates - 1.5).square().sum(dim=1)


def tasks(candidates: torch.Tensor, generation: int) -> torch.Tensor:
    """A quadratic whose place moves with the generation."""
    place = torch.from_numpy(np.random.default_rng([7, generation]).standard_normal(candidates.shape[1]))
    return -(candidates - place).square().sum(dim=1)


STRATEGIES: dict[str, Callable[[], Strategy]] = {
    "pepg": lambda: PEPG(START, population=9, rate=0.5, weight_decay=0.1, seed=4),
    "cmaes": lambda: CMAES(START, 0.3, population=8, seed=4),
    "separable": lambda: CMAES(np.linspace(-1.0, 1.0, 201), 0.3, population=6, seed=4),
    "meta gradient": lambda: MetaGradient(START, rate=0.1, clip=0.5),
}


def contents(folder: Path) -> dict[str, bytes]:
    """Files of a folder, without the seconds."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name not in ("timing.jsonl", checkpoint.NAME)}


def assert_same(folder: Path, whole: Path) -> None:
    """Two evolutions are equal bit for bit, but for their seconds."""
    assert contents(folder) == contents(whole)
    (mine, told), (theirs, said) = (tensors.load(f / checkpoint.NAME, "checkpoint", "") for f in (folder, whole))
    assert told == said
    assert mine.keys() == theirs.keys()
    for name in mine.keys() - {"seconds"}:
        np.testing.assert_array_equal(mine[name], theirs[name], err_msg=name)
    assert len(mine["seconds"]) == len(theirs["seconds"])


# ------------------------------------------------------------------ PEPG


def normals(seed: int, generation: int, n: int, d: int) -> np.ndarray:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(generation,))).standard_normal((n, d))


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"weight_decay": 0.3, "momentum": 0.5, "sigma_decay": 0.9},
        {"sigma_rate": 3.0, "sigma_max_change": 0.1, "sigma_limit": 0.1},
        {"momentum": 0.0, "sigma_limit": 10.0},
    ],
)
def test_pepg_is_that_of_the_note(more):
    strategy = PEPG(START, population=13, sigma=0.1, rate=0.7, seed=3, **more)
    settings = dict(more)
    for mine, its in (("sigma_max_change", "max_change"), ("sigma_decay", "decay"), ("sigma_limit", "limit")):
        if mine in settings:
            settings[its] = settings.pop(mine)
    noise = [normals(3, generation, 6, 6) for generation in range(5)]
    wanted = oracle.pepg(
        lambda x, generation: float(tasks(torch.from_numpy(x[None]), generation)[0]), noise, START, 0.1, 0.7, **settings
    )
    for generation, after in enumerate(wanted):
        strategy.tell(tasks(strategy.ask(generation), generation))
        for name, value in strategy.state().items():
            np.testing.assert_allclose(value, after[name], rtol=0, atol=1e-12, err_msg=f"{name} {generation}")
        np.testing.assert_array_equal(strategy.theta, strategy.state()["mu"])


def test_candidates_are_the_centre_and_pairs():
    strategy = PEPG(START, population=7, sigma=0.2, seed=5)
    candidates = strategy.ask(2)
    assert candidates.shape == (7, 6) and candidates.dtype == torch.float64
    steps = 0.2 * normals(5, 2, 3, 6)
    np.testing.assert_allclose(candidates, np.vstack([START, START + steps, START - steps]), rtol=0, atol=1e-15)


def test_noise_is_a_function_of_seed_and_generation():
    one, other = PEPG(START, seed=1), PEPG(START, seed=2)
    first = one.ask(0)
    one.ask(1)
    assert torch.equal(one.ask(0), first)
    assert not torch.equal(one.ask(1), first)
    assert not torch.equal(other.ask(0), first)
    drawn = (first[1:33] - first[0]) / 0.1
    tasks_of_generation = np.random.default_rng([1, 0]).standard_normal(drawn.shape)
    assert np.abs(drawn.numpy() - tasks_of_generation).min() > 1e-9  # streams of their own


def test_ranks_are_centred_and_ties_in_order():
    assert centred_ranks(torch.tensor([3.0, -1.0, 10.0, 3.0, 2.0])).tolist() == [0.0, -0.5, 0.5, 0.25, -0.25]
    assert centred_ranks(torch.zeros(101, dtype=torch.float64)).tolist() == pytest.approx(
        np.linspace(-0.5, 0.5, 101).tolist(), abs=1e-15
    )


def test_first_generation():
    """v was 0, so that mu moves by rate (1 - momentum) g; the widths are the first ones."""
    strategy = PEPG(np.zeros(3), population=3, sigma=0.25, rate=2.0, momentum=0.9, sigma_decay=1.0, seed=0)
    step = strategy.ask(0)[1].numpy()
    strategy.tell(torch.tensor([1.0, 2.0, 0.0]))  # ranks 0, 0.5, -0.5: g = eps, and the pair is as good as mu
    np.testing.assert_allclose(strategy.theta, 0.2 * step, rtol=1e-13)
    np.testing.assert_array_equal(strategy.sigma, [0.25] * 3)
    strategy.ask(1)
    strategy.tell(torch.tensor([0.0, 1.0, 2.0]))  # ranks -0.5, 0, 0.5: mean of the pair 0.75 above mu's
    eps = 0.25 * normals(0, 1, 1, 3)[0]
    np.testing.assert_allclose(
        strategy.sigma, 0.25 + np.clip(0.1 * 0.75 * (eps**2 - 0.0625) / 0.25 / 2, -0.05, 0.05), rtol=1e-13
    )


def test_widths_change_by_a_fifth_at_most_and_decay_above_the_limit():
    strategy = PEPG(np.zeros(40), population=9, sigma=0.1, sigma_rate=1e6, seed=1)
    strategy.tell(quadratic(strategy.ask(0), 0))
    ratios = strategy.sigma.numpy() / 0.1
    assert sorted({round(r, 12) for r in ratios}) == [pytest.approx(0.8 * 0.999), pytest.approx(1.2 * 0.999)]
    strategy = PEPG(np.zeros(40), population=9, sigma=0.1, sigma_rate=1e6, sigma_limit=0.1, seed=1)
    strategy.tell(quadratic(strategy.ask(0), 0))
    assert sorted({round(r, 12) for r in strategy.sigma.numpy() / 0.1}) == [0.8, pytest.approx(1.2 * 0.999)]


def test_quadratic_as_noted():
    """P = 65, rate 0.3, ten parameters: -22.5, about -0.02 at generation 50, -1e-4 at 150; sigma 0.10 to 0.044."""
    strategy = PEPG(np.zeros(10), population=65, rate=0.3)
    history = evolve(quadratic, strategy, 151, progress=False).history
    centres = [row["centre"] for row in history]
    assert centres[0] == -22.5
    assert -0.06 < centres[50] < -0.005
    assert -5e-4 < centres[150] < -2e-5
    assert history[0]["sigma"] == pytest.approx(0.1)
    assert 0.035 < history[150]["sigma"] < 0.055


@pytest.mark.parametrize(("population", "rate"), [(801, 0.1), (65, 0.1 * math.sqrt(12.5)), (201, 0.2)])
def test_the_default_rate_keeps_rate_times_root_of_pairs(population, rate):
    assert PEPG(START, population=population).rate == pytest.approx(rate)
    assert PEPG(START, population=population, rate=0.7).rate == 0.7


def test_what_is_not_finite_counts_as_the_worst():
    told, replaced = PEPG(START, population=9, seed=2), PEPG(START, population=9, seed=2)
    fitness = torch.tensor([1.0, math.nan, 5.0, math.inf, 2.0, -math.inf, 3.0, -4.0, 0.0])
    for strategy, values in ((told, fitness), (replaced, [1.0, -4.0, 5.0, -4.0, 2.0, -4.0, 3.0, -4.0, 0.0])):
        strategy.ask(0)
        strategy.tell(torch.as_tensor(values))
    for name, value in told.state().items():
        np.testing.assert_array_equal(value, replaced.state()[name])
    before = told.state()
    told.ask(1)
    with pytest.raises(DivergenceError, match=r"None of the 9 fitnesses is finite. Lower sigma or the rate"):
        told.tell(torch.full((9,), math.nan))
    for name, value in told.state().items():
        np.testing.assert_array_equal(value, before[name])


# ------------------------------------------------------------------ CMA-ES and the gradient


@pytest.mark.parametrize("dimensions", [10, 201])
def test_cmaes_first_generation_in_closed_form(dimensions):
    """The mean goes to the weighted mean of the better half of the draws; candidate 0, the mean itself, does not count."""
    strategy = CMAES(np.zeros(dimensions), 0.3, population=8, seed=1)
    candidates = strategy.ask(0)
    assert candidates.shape == (9, dimensions) and not candidates[0].any()
    assert 0.2 < candidates[1:].std() < 0.4
    fitness = quadratic(candidates, 0)
    fitness[0] = 1e3
    strategy.tell(fitness)
    best = candidates[1:][fitness[1:].argsort(descending=True)][:4].numpy()
    weights = np.log(4.5 if dimensions == 10 else 5.0) - np.log(np.arange(1, 5))
    np.testing.assert_allclose(strategy.theta, weights @ best / weights.sum(), rtol=0, atol=1e-14)


@pytest.mark.parametrize(("dimensions", "reached"), [(10, -1e-3), (201, -200.0)])
def test_cmaes_improves_a_quadratic(dimensions, reached):
    history = evolve(quadratic, CMAES(np.zeros(dimensions), 0.3, seed=3), 100, progress=False).history
    assert history[0]["centre"] == -2.25 * dimensions
    assert history[-1]["centre"] > reached
    assert (history[-1]["sigma"] < 0.05) == (dimensions == 10)


def test_cmaes_full_covariance_up_to_200():
    assert CMAES(np.zeros(200), 0.1).settings["full"] and not CMAES(np.zeros(201), 0.1).settings["full"]


def test_cmaes_without_its_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "cmaes", None)
    with pytest.raises(NeurosimError, match=r"pip install neurosim\[evolution\]"):
        CMAES(START, 0.1)


def test_meta_gradient_is_adam():
    """Adam by hand, on a quadratic whose gradient is clipped at first and no longer at the end."""
    strategy = MetaGradient(np.zeros(3), rate=0.2, clip=3.0)
    evolution = evolve(quadratic, strategy, 12, progress=False)
    theta, first, second, clipped = np.zeros(3), np.zeros(3), np.zeros(3), []
    for step in range(1, 13):
        assert evolution.history[step - 1]["centre"] == pytest.approx(-((theta - 1.5) ** 2).sum(), rel=1e-9)
        g = 2.0 * (theta - 1.5)  # of minus the fitness
        norm = np.linalg.norm(g)
        clipped.append(norm > 3.0)
        g = g * min(1.0, 3.0 / (norm + 1e-6))
        first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g**2
        theta = theta - 0.2 * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    np.testing.assert_allclose(evolution.theta, theta, rtol=0, atol=1e-12)
    assert clipped[0] and not clipped[-1]


def test_meta_gradient_errors():
    with pytest.raises(NeurosimError, match="The fitness has no gradient; wanted one that torch computes"):
        evolve(lambda c, g: quadratic(c, g).detach(), MetaGradient(START), 1, progress=False)
    other = torch.zeros(1, requires_grad=True)
    with pytest.raises(NeurosimError, match="does not depend on the candidates"):
        evolve(lambda c, g: other * 1.0, MetaGradient(START), 1, progress=False)
    strategy = MetaGradient(np.zeros(2))
    with pytest.raises(DivergenceError, match="Generation 0: The gradient of the fitness is not finite"):
        evolve(lambda c, g: c.abs().sqrt().sum(dim=1), strategy, 1, progress=False)
    assert strategy.theta.tolist() == [0.0, 0.0]


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: PEPG(START, population=64), "population = 64 is even; wanted an odd one.* Take 63 or 65."),
        (lambda: PEPG(START, population=1), "population = 1; wanted a whole number of at least 3"),
        (lambda: PEPG(START, sigma=0.0), "sigma = 0.0; wanted a number above 0"),
        (lambda: PEPG(START, sigma_decay=1.1), "sigma_decay = 1.1; wanted"),
        (lambda: PEPG(START, sigma_max_change=1.0), "sigma_max_change = 1.0; wanted"),
        (lambda: PEPG(START, momentum=1.0), "momentum = 1.0; wanted"),
        (lambda: PEPG(START, rate=-1.0), "rate = -1.0; wanted a number above 0, or none"),
        (lambda: PEPG(START, weight_decay=math.nan), "weight_decay = nan; wanted"),
        (lambda: PEPG(START, seed=-1), "seed = -1; wanted"),
        (lambda: PEPG(START[None]), r"theta has shape \(1, 6\); wanted \(d,\)"),
        (lambda: PEPG([1.0, math.nan]), "theta holds NaN or infinity"),
        (lambda: CMAES(START, -0.1), "sigma = -0.1; wanted a number above 0"),
        (lambda: CMAES(START, 0.1, population=2), "population = 2; wanted a whole number of at least 3"),
        (lambda: MetaGradient(START, rate=0.0), "rate = 0.0; wanted"),
        (lambda: MetaGradient(START, clip=0.0), "clip = 0.0; wanted"),
        (lambda: PEPG(START).tell(torch.zeros(65)), "wanted one tell after each ask"),
        (lambda: CMAES(START, 0.1).tell(torch.zeros(65)), "wanted one tell after each ask"),
        (lambda: MetaGradient(START).tell(torch.zeros(1)), "wanted one tell after each ask"),
        (lambda: evolve(quadratic, PEPG(START), 0), "generations = 0; wanted a whole number of at least 1"),
        (lambda: evolve(quadratic, PEPG(START), 1, minutes=0.0), "minutes = 0.0; wanted a number above 0"),
        (lambda: evolve(quadratic, PEPG(START), 1, resume=True), "resume = True without a folder; wanted out=FOLDER"),
        (lambda: evolve(quadratic, PEPG(START), 1, config={"x": {1, 2}}), "config cannot be written down"),
        (lambda: evolve(quadratic, PEPG(START), 1, config={"x": math.inf}), "config cannot be written down"),
        (
            lambda: evolve(lambda c, g: quadratic(c, g)[:-1], PEPG(START), 1, progress=False),
            r"shape \(64,\) for 65 candidates; wanted \(65,\)",
        ),
    ],
)  # fmt: skip
def test_refused(make, said):
    with pytest.raises(NeurosimError, match=said):
        make()


def test_fitness_of_another_number_of_candidates():
    strategy = PEPG(START, population=9)
    strategy.ask(0)
    with pytest.raises(NeurosimError, match=r"shape \(8,\); wanted \(9,\)"):
        strategy.tell(torch.zeros(8))
    strategy.tell(torch.arange(9.0))
    with pytest.raises(NeurosimError, match="one tell after each ask"):
        strategy.tell(torch.zeros(9))


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("other", STRATEGIES)
def test_a_state_of_another_strategy_is_refused(name, other):
    strategy = STRATEGIES[name]()
    if name == other:
        return strategy.restore(strategy.state())
    with pytest.raises(NeurosimError, match="it is of another strategy or another theta"):
        strategy.restore(STRATEGIES[other]().state())


def test_a_state_of_another_theta_is_refused():
    with pytest.raises(NeurosimError, match=r"has mu of shape \(5,\); wanted mu of shape \(6,\)"):
        PEPG(START).restore(PEPG(START[:5]).state())


# ------------------------------------------------------------------ the loop


def test_rows_are_those_of_the_objective(tmp_path):
    seen: list[tuple[int, torch.Tensor, bool]] = []

    def objective(candidates: torch.Tensor, generation: int) -> torch.Tensor:
        seen.append((generation, candidates.clone(), torch.is_grad_enabled()))
        fitness = tasks(candidates, generation)
        if generation == 1:
            fitness[[0, 3]] = torch.tensor([math.nan, math.inf], dtype=torch.float64)
        return fitness

    config = {"life": {"steps": 30}, "data": "digits"}
    strategy = STRATEGIES["pepg"]()
    evolution = evolve(objective, strategy, 3, tmp_path / "a" / "b", config=config, progress=False)
    assert [generation for generation, _, _ in seen] == [0, 1, 2]
    assert not any(gradients for _, _, gradients in seen)
    for generation, candidates, _ in seen:
        fitness, row = tasks(candidates, generation), evolution.history[generation]
        good = fitness if generation != 1 else fitness[[1, 2, 4, 5, 6, 7, 8]]
        assert row["generation"] == generation and row["non_finite"] == len(fitness) - len(good)
        assert (row["best"], row["mean"]) == (good.max().item(), pytest.approx(good.mean().item(), rel=1e-14))
        assert row.get("centre") == (None if generation == 1 else fitness[0].item())
    assert evolution.history[0]["sigma"] == pytest.approx(0.1, rel=1e-14)
    np.testing.assert_array_equal(evolution.theta, strategy.theta)
    folder = tmp_path / "a" / "b"
    assert [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()] == evolution.history
    timing = [json.loads(line) for line in (folder / "timing.jsonl").read_text().splitlines()]
    assert [row["generation"] for row in timing] == [0, 1, 2] and all(row["seconds"] > 0 for row in timing)
    assert json.loads((folder / "config.json").read_text()) == {"strategy": strategy.settings, "config": config}
    assert {p.name for p in folder.iterdir()} == {"config.json", "metrics.jsonl", "timing.jsonl", checkpoint.NAME}
    assert load(folder).history == evolution.history
    np.testing.assert_array_equal(load(folder).theta, evolution.theta)


def test_meta_gradient_has_gradients_even_where_they_are_off():
    with torch.no_grad():
        history = evolve(quadratic, MetaGradient(START, rate=0.1), 20, progress=False).history
    assert history[-1]["best"] > 0.5 * history[0]["best"]
    assert "sigma" not in history[0]


def test_the_progress_line(capsys):
    evolve(quadratic, PEPG(START, population=9), 3)
    said = capsys.readouterr().err
    assert "3/3" in said and "best=" in said and "mean=" in said
    evolve(quadratic, PEPG(START, population=9), 3, progress=False)
    assert capsys.readouterr() == ("", "")


def test_a_folder_that_holds_an_evolution(tmp_path):
    make = STRATEGIES["pepg"]
    evolve(tasks, make(), 3, tmp_path / "run", progress=False)
    before = contents(tmp_path / "run")
    with pytest.raises(
        NeurosimError, match=r"holds an evolution already; give another one, resume=True .* or overwrite=True"
    ):
        evolve(tasks, make(), 3, tmp_path / "run", progress=False)
    with pytest.raises(NeurosimError, match="Leave one out"):
        evolve(tasks, make(), 3, tmp_path / "run", progress=False, resume=True, overwrite=True)
    with pytest.raises(NeurosimError, match=r"generations = 2, and the evolution in .* has 3 already"):
        evolve(tasks, make(), 2, tmp_path / "run", progress=False, resume=True)
    assert contents(tmp_path / "run") == before
    evolve(quadratic, make(), 2, tmp_path / "run", progress=False, overwrite=True)
    evolve(quadratic, make(), 2, tmp_path / "fresh", progress=False)
    assert_same(tmp_path / "run", tmp_path / "fresh")


@pytest.mark.parametrize("ask", [lambda f: load(f), lambda f: evolve(tasks, PEPG(START), 3, f, resume=True)])
def test_a_folder_that_holds_none(tmp_path, ask):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(NeurosimError, match=r"holds no evolution: it has no checkpoint.safetensors"):
            ask(folder)
    assert not list(tmp_path.iterdir())


def test_one_process_evolves_in_a_folder(tmp_path):
    def other() -> None:
        with pytest.raises(NeurosimError, match=f"is being written by process {os.getpid()} on"):
            evolve(tasks, PEPG(START), 1, tmp_path, overwrite=True, progress=False)
        refused.append(True)

    def objective(candidates: torch.Tensor, generation: int) -> torch.Tensor:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        return tasks(candidates, generation)

    refused: list[bool] = []
    evolve(objective, PEPG(START), 2, tmp_path, progress=False)
    assert refused == [True, True]
    assert len(evolve(tasks, PEPG(START), 3, tmp_path, resume=True, progress=False).history) == 3


# ------------------------------------------------------------------ stopping and going on


class Died(BaseException):
    """In place of a signal that kills."""


@pytest.mark.parametrize("name", STRATEGIES)
def test_resume_after_each_generation(tmp_path, name):
    whole = evolve(tasks, STRATEGIES[name](), 5, tmp_path / "whole", progress=False)
    for generations in range(1, 6):
        found = evolve(
            tasks, STRATEGIES[name](), generations, tmp_path / "parts", resume=generations > 1, progress=False
        )
    assert found.history == whole.history
    np.testing.assert_array_equal(found.theta, whole.theta)
    assert_same(tmp_path / "parts", tmp_path / "whole")


@pytest.mark.parametrize("overwrite", [False, True])
def test_death_before_and_after_each_write(tmp_path, monkeypatch, overwrite):
    """An evolution that dies at its k-th change of a file, for all k, goes on to the same end; also one that replaces another."""
    evolve(tasks, STRATEGIES["pepg"](), 3, tmp_path / "whole", progress=False)
    replace, real = os.replace, open
    deaths = 0
    for k in range(1000):
        left = k

        def step() -> None:
            nonlocal left
            if left == 0:
                raise Died
            left -= 1

        def dying(*a: Any) -> None:
            step()
            replace(*a)
            step()

        def appending(path: Any, mode: str = "r") -> Any:
            step()
            return real(path, mode)

        folder = tmp_path / str(k)
        if overwrite:
            evolve(quadratic, STRATEGIES["pepg"](), 1, folder, progress=False)
        monkeypatch.setattr(os, "replace", dying)
        monkeypatch.setattr(loop, "open", appending, raising=False)
        try:
            evolve(tasks, STRATEGIES["pepg"](), 3, folder, overwrite=overwrite, progress=False)
            survived = True
        except Died:
            survived, deaths = False, deaths + 1
        monkeypatch.undo()
        if not survived:
            evolve(tasks, STRATEGIES["pepg"](), 3, folder, resume=(folder / "config.json").is_file(), progress=False)
        assert_same(folder, tmp_path / "whole")
        if survived:
            break
    assert deaths == 20  # before and after 4 whole files at first; in each generation 2 appended to, and one whole


def slow(candidates: torch.Tensor, generation: int) -> torch.Tensor:
    time.sleep(0.03)  # 60 generations take far longer than the longest life below, however busy the machine is
    return tasks(candidates, generation)


def live(folder: Path, generations: int) -> None:
    """What is killed."""
    torch.set_num_threads(1)
    evolve(slow, STRATEGIES["pepg"](), generations, folder, resume=(folder / "config.json").is_file(), progress=False)


def test_killed_at_random_moments(tmp_path):
    generations, chance, kills = 60, random.Random(0), 0
    whole = evolve(tasks, STRATEGIES["pepg"](), generations, tmp_path / "whole", progress=False)
    context = multiprocessing.get_context("fork")
    for _ in range(200):
        process = context.Process(target=live, args=(tmp_path / "run", generations))
        process.start()
        process.join(chance.uniform(0.05, 0.25))
        if process.exitcode is None:
            os.kill(process.pid or 0, signal.SIGKILL)
            kills += 1
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
    assert kills >= 2
    found = load(tmp_path / "run")
    assert found.history == whole.history
    np.testing.assert_array_equal(found.theta, whole.theta)
    for left in (*(tmp_path / "run").glob(f"*{PART}"), tmp_path / "run" / LOCK):  # of the last one that was killed
        left.unlink(missing_ok=True)
    assert_same(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_the_generation(tmp_path, number, capsys):
    def objective(candidates: torch.Tensor, generation: int) -> torch.Tensor:
        if generation == 2:
            os.kill(os.getpid(), number)
        return tasks(candidates, generation)

    before = signal.getsignal(number)
    with pytest.raises(
        KeyboardInterrupt, match=r"stopped after generation 2.* first 3 generations; evolve with resume=True"
    ):
        evolve(objective, STRATEGIES["pepg"](), 5, tmp_path / "run", progress=False)
    assert signal.getsignal(number) is before
    assert "once more stops at once" in capsys.readouterr().err
    assert len(load(tmp_path / "run").history) == 3
    evolve(tasks, STRATEGIES["pepg"](), 5, tmp_path / "run", resume=True, progress=False)
    evolve(tasks, STRATEGIES["pepg"](), 5, tmp_path / "whole", progress=False)
    assert_same(tmp_path / "run", tmp_path / "whole")


def test_a_second_signal_stops_at_once(tmp_path):
    def objective(candidates: torch.Tensor, generation: int) -> torch.Tensor:
        for _ in range(2 if generation == 2 else 0):
            os.kill(os.getpid(), signal.SIGTERM)
        return tasks(candidates, generation)

    with pytest.raises(KeyboardInterrupt):
        evolve(objective, STRATEGIES["pepg"](), 5, tmp_path, progress=False)
    assert len(load(tmp_path).history) == 2


def test_minutes(tmp_path, monkeypatch, capsys):
    """By a clock that goes on by 20 s in each generation."""
    now = 0.0

    def objective(candidates: torch.Tensor, generation: int) -> torch.Tensor:
        nonlocal now
        now += 20.0
        return tasks(candidates, generation)

    monkeypatch.setattr(time, "monotonic", lambda: now)
    found = evolve(objective, STRATEGIES["pepg"](), 7, tmp_path / "run", minutes=1)
    assert len(found.history) == 3
    assert "minutes = 1 are over: stopped after generation 2." in capsys.readouterr().err
    for done in (6, 7):
        found = evolve(objective, STRATEGIES["pepg"](), 7, tmp_path / "run", minutes=1, resume=True, progress=False)
        assert len(found.history) == done
    evolve(tasks, STRATEGIES["pepg"](), 7, tmp_path / "whole", progress=False)
    assert_same(tmp_path / "run", tmp_path / "whole")


def test_divergence_keeps_the_generation_before(tmp_path):
    def objective(candidates: torch.Tensor, generation: int) -> torch.Tensor:
        fitness = tasks(candidates, generation)
        return fitness if generation < 2 else fitness * math.nan

    with pytest.raises(
        DivergenceError, match=r"Generation 2: None of the 9 fitnesses is finite.* the first 2 generations"
    ):
        evolve(objective, STRATEGIES["pepg"](), 5, tmp_path / "run", progress=False)
    evolve(tasks, STRATEGIES["pepg"](), 2, tmp_path / "whole", progress=False)
    assert_same(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize("full", ["metrics.jsonl", checkpoint.NAME])
def test_a_full_disk(tmp_path, monkeypatch, full):
    real, left = open, 2

    class Full:
        """Takes half of what it is given."""

        def __init__(self, file: Any):
            self.file = file

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: Any) -> None:
            self.file.close()

        def write(self, content: Any) -> None:
            self.file.write(content[: len(content) // 2])
            self.file.flush()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def opening(path: Any, mode: str = "r") -> Any:
        nonlocal left
        file = real(path, mode)
        if full not in str(path) or mode == "r":
            return file
        left -= 1
        return file if left >= 0 else Full(file)

    def objective(candidates: torch.Tensor, generation: int) -> torch.Tensor:
        if generation == 1:  # space for two more
            monkeypatch.setattr(loop, "open", opening, raising=False)
            monkeypatch.setattr(files, "open", opening, raising=False)
        return tasks(candidates, generation)

    with pytest.raises(NeurosimError, match=r"could not be written: No space left on device.* the first 3 generations"):
        evolve(objective, STRATEGIES["pepg"](), 6, tmp_path / "run", progress=False)
    monkeypatch.undo()
    assert len(load(tmp_path / "run").history) == 3
    evolve(tasks, STRATEGIES["pepg"](), 6, tmp_path / "run", resume=True, progress=False)
    evolve(tasks, STRATEGIES["pepg"](), 6, tmp_path / "whole", progress=False)
    assert_same(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize("damage", ["truncated", "changed", "empty"])
def test_a_damaged_checkpoint_is_refused(tmp_path, damage):
    evolve(tasks, STRATEGIES["pepg"](), 3, tmp_path, progress=False)
    path = tmp_path / checkpoint.NAME
    whole = path.read_bytes()
    at = len(whole) - 20
    changed = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
    path.write_bytes({"truncated": whole[:-10], "changed": changed, "empty": b""}[damage])
    before = contents(tmp_path)
    said = "its checksum fails" if damage == "changed" else "is truncated or no checkpoint"
    for ask in (lambda: load(tmp_path), lambda: evolve(tasks, STRATEGIES["pepg"](), 4, tmp_path, resume=True)):
        with pytest.raises(NeurosimError, match=f"{said}.*begin again with overwrite=True"):
            ask()
    assert contents(tmp_path) == before


def test_the_checkpoint_of_a_training_is_refused(tmp_path):
    checkpoint.save(tmp_path, {}, {"config": ""})
    with pytest.raises(NeurosimError, match="is the checkpoint of a training, not of an evolution"):
        evolve(tasks, STRATEGIES["pepg"](), 4, tmp_path, resume=True)


def test_files_beside_the_checkpoint_are_written_anew(tmp_path):
    for name in ("run", "whole"):
        evolve(tasks, STRATEGIES["pepg"](), 3, tmp_path / name, progress=False)
    (tmp_path / "run" / "metrics.jsonl").write_text("spoiled")
    (tmp_path / "run" / "config.json").unlink()
    evolve(tasks, STRATEGIES["pepg"](), 3, tmp_path / "run", resume=True, progress=False)
    assert_same(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize(
    ("strategy", "config", "said"),
    [
        ({}, {"life": {"steps": 31}, "sizes": (1, 2)}, r"config.life.steps is 31, and the evolution was started with 30. Give"),
        ({}, {"life": {"steps": 30}}, r"config.sizes is nothing, and the evolution was started with \[1, 2\]"),
        ({}, {"life": {"steps": 30}, "sizes": (1, 2), "x": None}, r"config.x is None, and the evolution was started with nothing"),
        ({"sigma": 0.2}, {"life": {"steps": 30}, "sizes": (1, 2)}, r"strategy.sigma is 0.2, and the evolution was started with 0.1"),
        ({"population": 11, "rate": 0.5}, {"life": {"steps": 30}, "sizes": (1, 2)}, "strategy.population is 11, .* with 9. Give"),
    ],
)  # fmt: skip
def test_another_configuration_is_refused(tmp_path, strategy, config, said):
    def make(**more: Any) -> PEPG:
        return PEPG(START, **{"population": 9, "rate": 0.5, **more})

    started = {"life": {"steps": 30}, "sizes": (1, 2)}
    evolve(tasks, make(), 2, tmp_path, config=started, progress=False)
    before = contents(tmp_path)
    with pytest.raises(NeurosimError, match=said):
        evolve(tasks, make(**strategy), 4, tmp_path, config=config, resume=True, progress=False)
    assert contents(tmp_path) == before
    assert len(evolve(tasks, make(), 4, tmp_path, config=started, resume=True, progress=False).history) == 4


# ------------------------------------------------------------------ two processes


def worker(out: Path) -> None:
    """Evolutions by two processes, then what is refused; what each found goes to a file."""
    torch.set_num_threads(1)
    rank = int(os.environ["RANK"])
    shares: list[int] = []
    refused: dict[str, str] = {}

    def objective(candidates: torch.Tensor, generation: int) -> torch.Tensor:
        shares.append(len(candidates))
        return tasks(candidates, generation)

    thetas = {}
    for name in ("pepg", "cmaes"):
        evolve(objective, STRATEGIES[name](), 3, out / name, progress=rank == 1)
        thetas[name] = evolve(objective, STRATEGIES[name](), 5, out / name, resume=True, progress=False).theta.tolist()
    thetas["few"] = evolve(objective, PEPG(START, population=3), 2, progress=False).theta.tolist()

    def refuse(what: str, *arguments: Any, **more: Any) -> None:
        try:
            evolve(*arguments, progress=False, **more)
        except (NeurosimError, ArithmeticError) as error:
            refused[what] = f"{type(error).__name__}: {error}"

    def failing(candidates: torch.Tensor, generation: int) -> torch.Tensor:
        if rank == 1 and generation == 1:
            raise ArithmeticError("mine")
        return tasks(candidates, generation)

    refuse("gradient", quadratic, MetaGradient(START), 1)
    refuse("folder", objective, STRATEGIES["pepg"](), 3, out / "pepg")
    refuse("start", objective, PEPG(START + rank, population=9), 3)
    refuse("sizes", objective, PEPG(START[: 6 - rank], population=9), 3)
    refuse("failure", failing, STRATEGIES["pepg"](), 3)
    found = {"thetas": thetas, "shares": shares[:5], "refused": refused}
    leave()
    (out / f"found{rank}.json").write_text(json.dumps(found))


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> tuple[Path, list[dict[str, Any]], list[str]]:
    """The folder of both processes, what they found and what they said."""
    out = tmp_path_factory.mktemp("pair")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    environment = {
        **os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(p for p in (str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")) if p),
    }  # fmt: skip
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(out)], env={**environment, "RANK": str(rank)}, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    said = []
    try:
        for process in processes:
            said.append(process.communicate(timeout=TIMEOUT)[0])
            assert process.returncode == 0, said[-1]
    finally:
        for process in processes:
            process.kill()
    return out, [json.loads((out / f"found{rank}.json").read_text()) for rank in range(2)], said


@pytest.mark.parametrize("name", ["pepg", "cmaes"])
def test_two_processes_are_as_one(tmp_path, pair, name):
    out, found, said = pair
    alone = evolve(tasks, STRATEGIES[name](), 5, tmp_path / name, progress=False)
    for mine in found:
        assert mine["thetas"][name] == alone.theta.tolist()
    assert_same(out / name, tmp_path / name)
    assert [mine["shares"] for mine in found] == [[5] * 5, [4] * 5]  # of nine candidates
    assert "gen/s" not in said[1]  # which asked for a progress line


def test_shares_of_few_candidates(pair):
    alone = evolve(tasks, PEPG(START, population=3), 2, progress=False)
    assert [mine["thetas"]["few"] for mine in pair[1]] == [alone.theta.tolist()] * 2


def test_what_two_processes_refuse(pair):
    first, second = (mine["refused"] for mine in pair[1])
    for refused in (first, second):
        assert "MetaGradient in 2 processes: its gradient goes through one candidate" in refused["gradient"]
        for what in ("start", "sizes"):
            assert "The processes start from different thetas; wanted the same in all" in refused[what]
    assert "holds an evolution already" in first["folder"]
    assert "Process 0 failed; what it printed says why" in second["folder"]
    assert second["failure"] == "ArithmeticError: mine"
    assert "Process 1 failed" in first["failure"]


if __name__ == "__main__":
    worker(Path(sys.argv[1]))
