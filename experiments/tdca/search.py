"""Two parameters led over a landscape by credits alone, beside gradient descent, momentum, Adam and random search.

Functions   The tilted egg-box (one function, and a family with its minimum anywhere in [-1, 1]^2), and families of Ackley, Rastrigin, Himmelblau,
            Rosenbrock. Top-down nets (6-20-20-2, 602 weights) are found by PEPG, 129 candidates, 64 searches of 50 steps each in a generation.
Test        2000 starts and shifts that evolution has not seen, the same for all methods, 50 steps (evaluations) each. Gradient methods have their best rate
            on this very test; those that know the prior of the minimum say so.

    python experiments/tdca/search.py
    python experiments/tdca/search.py --quick

Evolutions lie in RUNS and go on where they were stopped. About 8 minutes of one core.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from _evolution import evolved
from matplotlib.figure import Figure
from tqdm import tqdm

from neurosim.analysis import command_line
from neurosim.analysis.report import mean_sd, save, select, table
from neurosim.environments.landscapes import SHIFT, Landscape
from neurosim.files import user_path
from neurosim.plot.style import LINES, empty_figure, style
from neurosim.training.evolution.search import Search, evaluate, scores

HERE = Path(__file__).parent
STEPS, TESTS = 50, 2000
#: Landscape, shifts, generations, evolution seeds.
CASES: dict[str, tuple[str, str, int, int]] = {
    "egg-box, one function": ("egg_box", "none", 200, 3),
    "egg-box, family": ("egg_box", "family", 1600, 2),
    "Ackley, family": ("ackley", "family", 150, 1),
    "Rastrigin, family": ("rastrigin", "family", 150, 1),
    "Himmelblau, family": ("himmelblau", "family", 150, 1),
    "Rosenbrock, family": ("rosenbrock", "family", 150, 1),
}
STRATEGY: dict[str, Any] = {"population": 129, "sigma": 0.1, "rate": 0.2}
EVERY = 50
#: Rates that were tried, for all landscapes.
RATES = {
    "gradient descent": (1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0),
    "momentum 0.9": (1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3),
    "Adam": (3e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0),
}
#: How much wider than the prior the box of the random search with knowledge is.
WIDER = 0.2
TDCA = "TDCA"


# ---------------------------------------------------------------- what TDCA is compared with


def descend(
    on: Landscape, method: str, rate: float, starts: torch.Tensor, shifts: torch.Tensor, steps: int
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Places (N, steps + 1, 2) and values (N, steps + 1) along a descent; places that overflow stay where they were."""
    h = starts.clone()
    first, second = torch.zeros_like(h), torch.zeros_like(h)
    places, values = [h], [on.value(h, shifts)]
    for t in range(1, steps + 1):
        at = h.detach().requires_grad_()
        (g,) = torch.autograd.grad(on.value(at, shifts).sum(), at)
        if method == "Adam":
            first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g * g
            step = (first / (1 - 0.9**t)) / ((second / (1 - 0.999**t)).sqrt() + 1e-8)
        else:
            first = (0.9 if method == "momentum 0.9" else 0.0) * first + g
            step = first
        new = h - rate * step
        h = torch.where(new.abs().amax(-1, keepdim=True) < 1e4, new, h)
        places.append(h)
        values.append(on.value(h, shifts))
    return torch.stack(places, 1), torch.stack(values, 1) - on.minimum


def tuned(on: Landscape, method: str, starts: torch.Tensor, shifts: torch.Tensor, steps: int) -> dict[str, Any]:
    """The rate with the most successes (of equals, the lowest mean) on this test, and how it does."""
    found = [
        {"rate": rate, **scores(descend(on, method, rate, starts, shifts, steps)[1], on)} for rate in RATES[method]
    ]
    return max(found, key=lambda row: (row["success"], -row["mean"]))


def baselines(search: Search, starts: torch.Tensor, shifts: torch.Tensor) -> list[dict[str, Any]]:
    """Rows by method."""
    on, n = search.landscape, len(starts)
    rows = [{"method": method, "knows": "slope", **tuned(on, method, starts, shifts, STEPS)} for method in RATES]
    source = torch.Generator().manual_seed(1)

    def best_of(places: torch.Tensor) -> torch.Tensor:
        values = on.value(places, shifts[:, None]) - on.minimum
        rows = values.argmin(1)
        return places[torch.arange(n), rows]

    def ends(places: torch.Tensor) -> dict[str, float]:
        return scores((on.value(places, shifts) - on.minimum)[:, None], on)

    rows.append({"method": f"random search, {STEPS}", "knows": "values", **ends(best_of(on.starts((n, STEPS), source)))})  # fmt: skip
    centre = torch.tensor(on.minima[0]).expand(n, 2)
    rows.append({"method": "centre of the prior", "knows": "prior", **ends(centre)})
    half = (SHIFT if search.shifts == "family" else 0.0) + WIDER

    def prior(count: int) -> torch.Tensor:
        which = torch.tensor(on.minima)[torch.randint(len(on.minima), (n, count), generator=source)]
        return which + half * (2 * torch.rand((n, count, 2), generator=source) - 1)

    rows.append({"method": f"random search in the prior, {STEPS}", "knows": "values, prior", **ends(best_of(prior(STEPS)))})  # fmt: skip
    rows.append(
        {"method": "gradient descent from the centre of the prior", "knows": "slope, prior", **tuned(on, "gradient descent", centre, shifts, STEPS)}
    )  # fmt: skip
    good = best_of(prior(STEPS // 2))
    rows.append(
        {"method": f"random search in the prior, {STEPS // 2}, then gradient descent, {STEPS // 2}", "knows": "slope, prior",
         **tuned(on, "gradient descent", good, shifts, STEPS // 2)}
    )  # fmt: skip
    return rows


# ---------------------------------------------------------------- the experiment


def evolve_case(case: str, seed: int, runs: Path, quick: bool) -> dict[str, Any]:
    """One evolution: theta, how it does on the test, and both over generations."""
    on, shifts, generations, _ = CASES[case]
    search = Search(on, shifts, steps=STEPS, seed=seed)
    config = {"on": on, "shifts": shifts, "tasks": search.tasks, "steps": STEPS, "squash": search.squash, "seed": seed}
    folder = runs / f"search_{on}_{shifts}_{seed}"
    theta, history, tests = evolved(
        search, search.first(seed), 5 if quick else generations, min(EVERY, generations // 10), folder, lambda now: tested(case, now), config,
        seed=seed, **STRATEGY,
    )  # fmt: skip
    return {"case": case, "seed": seed, "theta": theta, "tests": tests, "centre": [row["centre"] for row in history]}


def tested(case: str, theta: np.ndarray) -> dict[str, Any]:
    """On the test that all seeds and methods have in common."""
    on, shifts, _, _ = CASES[case]
    return evaluate(Search(on, shifts, steps=STEPS, seed=0), theta, TESTS)


def report(rows: list[dict[str, Any]], tests: list[dict[str, Any]]) -> str:
    parts = [
        "# Search by credits",
        "",
        f"{TESTS} unseen starts (and shifts), {STEPS} steps. Success: f < 0.1 at the end; visited: at any step. Mean ± sd (n - 1) over evolution seeds where there "
        "are several. Nothing here is a number of the paper, which could not be had.",
        "",
    ]
    for case in dict.fromkeys(row["case"] for row in rows):
        lines = []
        for method in dict.fromkeys(row["method"] for row in select(rows, case=case)):
            some = select(rows, case=case, method=method)
            lines.append(
                [
                    f"{method} ({len(some)} seed{'s' * (len(some) > 1)}, {some[0]['generations']} generations)" if method == TDCA else method,
                    some[0]["knows"], f"{some[0]['rate']:g}" if "rate" in some[0] else "-",
                    mean_sd([row["success"] for row in some]), mean_sd([row["best"] for row in some]),
                    *(mean_sd([row[key] for row in some], 1.0, 3) if max(row[key] for row in some) < 1e4 else "above 10,000" for key in ("mean", "median")),
                ]
            )  # fmt: skip
        header = ["method", "knows", "best rate", "success (%)", "visited (%)", "mean f", "median f"]
        parts += [f"## {case}", "", table(header, lines), ""]
    seeds = select(tests, case="egg-box, family")
    if seeds:
        parts += ["## Egg-box, family: each seed over generations (success %)", ""]
        header = ["seed", *(row["generation"] for row in seeds[0]["tests"])]
        parts += [table(header, [[s["seed"], *(f"{100 * r['success']:.1f}" for r in s["tests"])] for s in seeds]), ""]
    return "\n".join(parts)


def curves(tests: list[dict[str, Any]]) -> Figure:
    """Success and mean f over generations; the band is the range over seeds."""
    cases = list(dict.fromkeys(row["case"] for row in tests))
    with style():
        figure = empty_figure(10.5, 6.2)
        for axes, case in zip(figure.subplots(2, 3).flat, cases, strict=False):
            some = select(tests, case=case)
            at = [row["generation"] for row in some[0]["tests"]]
            other = axes.twinx()
            for target, key, colour, factor in ((axes, "success", LINES[0], 100.0), (other, "mean", LINES[1], 1.0)):
                values = factor * np.array([[row[key] for row in one["tests"]] for one in some])
                target.plot(at, values.mean(0), color=colour)
                if len(some) > 1:
                    target.fill_between(at, values.min(0), values.max(0), color=colour, alpha=0.25, linewidth=0)
            axes.set_ylim(-3, 103)
            other.set_yscale("log")
            other.spines["right"].set_visible(True)
            axes.set_title(f"{case} ({len(some)} seed{'s' * (len(some) > 1)})", fontsize=10)
            axes.set_xlabel("generation")
            axes.set_ylabel("success (%)", color=LINES[0])
            other.set_ylabel("mean f at the end", color=LINES[1])
    return figure


def landscapes(shown: dict[str, dict[str, Any]]) -> Figure:
    """Paths from the same starts on the same function of each family: rows of landscapes, columns of methods."""
    with style():
        figure = empty_figure(7.6, 2.5 * len(shown))
        grid = figure.subplots(len(shown), 3, squeeze=False)
        for line, (case, what) in zip(grid, shown.items(), strict=True):
            on: Landscape = what["landscape"]
            box = on.box * 1.08
            x = torch.linspace(-box, box, 241)
            places = torch.stack(torch.meshgrid(x, x, indexing="xy"), -1)
            f = (on.value(places, what["shift"]) - on.minimum).log1p().numpy()
            for axes, (method, paths) in zip(line, what["paths"].items(), strict=True):
                axes.contourf(x, x, f, levels=12, cmap="Greys_r", alpha=0.75)
                for k, path in enumerate(paths):
                    axes.plot(*path.T, color=LINES[k % len(LINES)], linewidth=1.1, marker=".", markersize=2.5)
                    axes.plot(*path[0], "o", color=LINES[k % len(LINES)], markersize=4.5, markeredgecolor="white")
                    axes.plot(*path[-1], "s", color=LINES[k % len(LINES)], markersize=5.5, markeredgecolor="white")
                for minimum in on.minima:
                    axes.plot(*(np.array(minimum) + what["shift"].numpy()), "*", color="#F0E442", markersize=12, markeredgecolor="black")  # fmt: skip
                axes.set_xlim(-box, box)
                axes.set_ylim(-box, box)
                axes.set_aspect("equal")
                axes.set_title(method, fontsize=8)
            line[0].set_ylabel(case, fontsize=10)
    return figure


def paths(search: Search, theta: np.ndarray, rates: dict[str, float], starts: int = 6) -> dict[str, Any]:
    """What `landscapes` draws of one case."""
    begin, shifts = search.drawn(7, starts, unseen=True)
    shift = shifts[:1].expand(starts, 2)
    own = search.paths(torch.as_tensor(theta)[None], begin, shift).places[0]
    found = {"TDCA (no slope)": own.numpy()}
    for method in ("gradient descent", "Adam"):
        way = descend(search.landscape, method, rates[method], begin, shift, STEPS)[0]
        found[f"{method}, rate {rates[method]:g}"] = way.numpy()
    return {"landscape": search.landscape, "shift": shift[0], "paths": found}


def main() -> None:
    command = command_line.parser(__doc__ or "", HERE / "results")
    command.add_argument(
        "--runs", type=user_path, default=Path("runs/tdca"), help="folder of the evolutions (default: runs/tdca)"
    )
    command.add_argument("--seeds", type=int, help="evolution seeds of each case, 0 to SEEDS - 1 (default: 3 of one function, 2 of its family, 1 of the others)")  # fmt: skip
    command.add_argument("--quick", action="store_true", help="10 generations, to see that it runs; results and runs go to runs/quick")  # fmt: skip
    if command.parse_args().quick:
        command.set_defaults(out=Path("runs/quick"), runs=Path("runs/quick"))
    options = command_line.parse(command)
    torch.set_flush_denormal(True)
    rows: list[dict[str, Any]] = []
    tests: list[dict[str, Any]] = []
    shown: dict[str, dict[str, Any]] = {}
    for case, (_, _, _, count) in CASES.items():
        best: dict[str, Any] = {}
        for seed in range(options.seeds or (1 if options.quick else count)):
            found = evolve_case(case, seed, options.runs, options.quick)
            last = found["tests"][-1]
            tqdm.write(f"{case}, seed {seed}: success {100 * last['success']:.1f} %, mean f {last['mean']:.4f}")
            rows.append({"case": case, "method": TDCA, "knows": "values; prior, by evolution", "seed": seed, "generations": last["generation"], **last})  # fmt: skip
            tests.append({name: found[name] for name in ("case", "seed", "tests")})
            if not best or last["success"] > best["success"]:
                best = {"success": last["success"], "theta": found["theta"]}
        common = Search(CASES[case][0], CASES[case][1], steps=STEPS, seed=0)
        others = baselines(common, *common.drawn(0, TESTS, unseen=True))
        rows += [{"case": case, **row} for row in others]
        rates = {row["method"]: row["rate"] for row in others if "rate" in row}
        shown[case] = paths(common, best["theta"], rates)
    settings = {"cases": CASES, "strategy": STRATEGY, "steps": STEPS, "tests": TESTS, "rates": RATES}
    figures = {"search_paths": landscapes(shown), "search_evolution": curves(tests)}
    save(options.out, "search", report(rows, tests), figures, settings, {"rows": rows, "tests": tests})


if __name__ == "__main__":
    main()
