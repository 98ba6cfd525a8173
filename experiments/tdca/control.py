"""Policies that learn while they act, by credits from a top-down network: CartPole and Acrobot.

Evolution   PEPG finds top-down nets whose newborn policies (4-16-2, 6-16-3) do well in the second half of one short life; lengths of pole or links vary.
            "exam": weights stand still in that half, so that the policy itself counts (ours).
Test        Newborn policies that evolution has not seen, with lengths as in evolution and two outside. Score of the life with plasticity on; then of
            the policy that is left, plasticity off, in episodes of up to 500 steps, actions drawn or the likeliest one.
Beside it   The same learners without plasticity (untrained), under a top-down net as evolution starts, and under an online policy gradient with
            an eligibility trace (w += rate reward z, z <- 0.95 z + grad ln pi; Baxter & Bartlett 2001) at the best of several rates.

    python experiments/tdca/control.py
    python experiments/tdca/control.py --quick

Evolutions lie in RUNS and go on where they were stopped. About 12 minutes of one core for each seed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from _evolution import evolved
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from neurosim.analysis import command_line
from neurosim.analysis.report import mean_sd, save, select, table
from neurosim.files import user_path
from neurosim.plot.style import LINES, empty_figure, style
from neurosim.training.evolution.control import TEST, UNSEEN, Control, drawn_action, evaluate

HERE = Path(__file__).parent
#: Environment, steps of a life, exam, generations.
CASES: dict[str, tuple[str, int, bool, int]] = {
    "CartPole": ("cart_pole", 300, False, 100),
    "CartPole, exam": ("cart_pole", 300, True, 150),
    "Acrobot": ("acrobot", 400, False, 100),
}
STRATEGY: dict[str, Any] = {"population": 33, "sigma": 0.1, "rate": 0.3}
ENVIRONMENTS, EVERY = 8, 25
#: Unseen learners, episodes of each frozen policy.
TESTED = {"learners": 20, "episodes": 5}
#: Nets as evolution starts.
UNEVOLVED = 3
GRADIENT_RATES, LONG = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0), 3000
GRADIENT = "policy gradient"
#: Steps that a point of the learning curves joins.
BIN = 25


# ---------------------------------------------------------------- what TDCA is compared with


@torch.no_grad()
def policy_gradient(control: Control, length: float | None, steps: int) -> dict[str, Any]:
    """The rate with the longest frozen episodes on this very test, and how it does: as `evaluate`, per learner."""
    learners, episodes = TESTED["learners"], TESTED["episodes"]
    seeds, lengths = control.born(0, learners, test=True)
    lengths = lengths if length is None else torch.full_like(lengths, length)
    rates = torch.tensor(GRADIENT_RATES)[:, None, None, None]
    weights = control.lanes.born(seeds, len(GRADIENT_RATES))
    weights = {name: weights[name] for name in ("W1", "b1", "W2", "b2")}
    trace = {name: torch.zeros_like(w) for name, w in weights.items()}
    environment = control.kind(length=lengths)
    scales, eye = torch.tensor(control.kind.scales), torch.eye(environment.n_actions)
    source = torch.Generator().manual_seed(2)
    reward = -1.0 if control.name == "cart_pole" else 1.0
    starts = environment.reset((steps + 1, learners), source)
    state = starts[0].expand(len(GRADIENT_RATES), -1, -1)
    ended = []
    for t in range(steps):
        x = (environment.observe(state) / scales)[:, :, None]
        h = torch.tanh(x @ weights["W1"] + weights["b1"])
        pi = torch.softmax(h @ weights["W2"] + weights["b2"], -1)
        action = drawn_action(pi[:, :, 0], torch.rand(learners, generator=source))
        state, _, over = environment.step(state, action)
        out = eye[action][:, :, None] - pi
        hidden = (out @ weights["W2"].mT) * (1 - h * h)
        slope = {"W1": x.mT @ hidden, "b1": hidden, "W2": h.mT @ out, "b2": out}
        end = over[..., None, None].float()
        for name, g in slope.items():
            trace[name] = 0.95 * trace[name] + g
            weights[name] = (weights[name] + rates * reward * end * trace[name]).clamp(-5, 5)
            trace[name] = trace[name] * (1 - end)
        ended.append(over)
        state = torch.where(over[..., None], starts[t + 1], state)
    nobody = np.zeros((len(GRADIENT_RATES), control.size))
    lasted = {
        name: control.frozen(nobody, weights, lengths, (TEST, 0), episodes, greedy).double().mean(-1).numpy()
        for name, greedy in (("frozen", False), ("greedy", True))
    }
    sign = 1 if control.name == "cart_pole" else -1
    best = int((sign * lasted["frozen"].mean(1)).argmax())
    raster = torch.stack(ended)[:, best].numpy()
    return {
        "rate": GRADIENT_RATES[best], "ended": raster.sum(0), "second_half": raster[steps // 2 :].sum(0), "raster": raster.T,
        **{name: values[best] for name, values in lasted.items()},
    }  # fmt: skip


# ---------------------------------------------------------------- the experiment


def evolve_case(case: str, seed: int, runs: Path, quick: bool) -> dict[str, Any]:
    """One evolution: theta, and how it does over generations."""
    environment, steps, exam, generations = CASES[case]
    control = Control(environment, steps, ENVIRONMENTS, exam=exam, seed=seed)
    config = {"environment": environment, "steps": steps, "environments": ENVIRONMENTS, "exam": exam, "seed": seed}
    folder = runs / f"control_{environment}{'_exam' * exam}_{seed}"
    theta, history, tests = evolved(
        control, control.first(seed), 4 if quick else generations, EVERY, folder, lambda now: tested(case, now), config, seed=seed, **STRATEGY
    )  # fmt: skip
    return {"case": case, "seed": seed, "theta": theta, "tests": tests, "centre": [row["centre"] for row in history]}


def tested(case: str, theta: np.ndarray) -> dict[str, Any]:
    """Means over the unseen learners, which all evolution seeds have in common; lengths as in evolution."""
    found = measured(case, theta)
    return {name: float(np.mean(found[name])) for name in ("ended", "second_half", "frozen", "greedy")}


def measured(case: str, theta: np.ndarray, length: float | None = None, plastic: int | None = None) -> dict[str, Any]:
    environment, steps, exam, _ = CASES[case]
    plastic = steps // 2 if exam and plastic is None else plastic
    control = Control(environment, steps, ENVIRONMENTS, exam=exam)
    return evaluate(control, theta, length, **TESTED, plastic=plastic)


def compared(case: str, found: list[dict[str, Any]], quick: bool) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """Rows by method and length, and the rasters (learners, steps) with lengths as in evolution."""
    environment, steps, _, _ = CASES[case]
    control = Control(environment, steps, ENVIRONMENTS)
    rows, rasters = [], {}
    for length in (None,) if quick else (None, *UNSEEN[environment]):
        methods: dict[str, dict[str, Any]] = {}
        for one in found:
            methods[f"TDCA, evolution seed {one['seed']}"] = measured(case, one["theta"], length)
        others = [measured(case, control.first(100 + k), length) for k in range(UNEVOLVED)]
        methods[f"top-down net not evolved ({UNEVOLVED} nets)"] = {
            k: np.concatenate([one[k] for one in others]) for k in others[0]
        }
        methods["no plasticity (untrained)"] = measured(case, control.first(0), length, plastic=0)
        methods[f"{GRADIENT}, {steps} steps"] = policy_gradient(control, length, steps)
        if not quick:
            methods[f"{GRADIENT}, {LONG} steps"] = policy_gradient(control, length, LONG)
        for method, values in methods.items():
            raster = values.pop("raster")
            if length is None and raster.shape[1] == steps:
                rasters[method] = raster
            lists = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in values.items()}
            rows.append({"case": case, "length": "as in evolution" if length is None else length, "method": method, **lists})  # fmt: skip
    return rows, rasters


def report(rows: list[dict[str, Any]], tests: list[dict[str, Any]]) -> str:
    parts = [
        "# Policies taught by credits",
        "",
        f"{TESTED['learners']} newborn policies that evolution has not seen, mean ± sd (n - 1) over them; {TESTED['episodes']} episodes of each frozen policy. CartPole: falls are bad, "
        "long episodes good (at most 500). Acrobot: goals are good, short episodes good (500: never reached). Nothing here is a number of the paper, which "
        "could not be had.",
        "",
    ]
    for case in dict.fromkeys(row["case"] for row in rows):
        environment, steps, exam, _ = CASES[case]
        what = "falls" if environment == "cart_pole" else "goals"
        generations = max(row["generation"] for one in select(tests, case=case) for row in one["tests"])
        about = f"Lives of {steps} steps, plastic {'in the first half' if exam else 'throughout'}; {generations} generations."
        header = ["length (m)", "method", f"{what} in the life", f"{what}, second half", "episode, plasticity off", "the same, likeliest action", "worst learner"]  # fmt: skip
        lines = []
        for row in select(rows, case=case):
            worst = min(row["frozen"]) if environment == "cart_pole" else max(row["frozen"])
            rate = f" (rate {row['rate']:g})" if "rate" in row else ""
            lines.append(
                [row["length"], row["method"] + rate, *(mean_sd(row[key], 1.0, 2) for key in ("ended", "second_half")),
                 *(mean_sd(row[key], 1.0, 0) for key in ("frozen", "greedy")), f"{worst:.0f}"]
            )  # fmt: skip
        parts += [f"## {case}", "", about, "", table(header, lines), ""]
    return "\n".join(parts)


def learning(rasters: dict[str, dict[str, np.ndarray]]) -> Figure:
    """Episodes that end in each stretch of a life; bands: sd over learners."""
    with style():
        figure = empty_figure(10.5, 3.9)
        for axes, (case, methods) in zip(figure.subplots(1, len(rasters), squeeze=False)[0], rasters.items(), strict=True):  # fmt: skip
            for k, (method, raster) in enumerate(methods.items()):
                bins = raster.reshape(len(raster), -1, BIN).sum(2)
                x = BIN * (np.arange(bins.shape[1]) + 0.5)
                mean, sd = bins.mean(0), bins.std(0, ddof=1)
                axes.plot(x, mean, color=LINES[k], label=method.split(", ")[0])
                axes.fill_between(x, np.maximum(mean - sd, 0), mean + sd, color=LINES[k], alpha=0.15, linewidth=0)
            if CASES[case][2]:
                axes.axvline(CASES[case][1] / 2, color="black", linewidth=0.8, linestyle=":")
                axes.text(CASES[case][1] / 2, axes.get_ylim()[1], " plasticity off", va="top", fontsize=8)
            axes.set_title(case)
            axes.set_xlabel("step of the life")
            what = "falls" if CASES[case][0] == "cart_pole" else "goals"
            axes.set_ylabel(f"{what} in {BIN} steps, one learner")
            axes.set_ylim(bottom=0)
        handles = figure.axes[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside upper center", ncols=4)
    return figure


def evolution(tests: list[dict[str, Any]]) -> Figure:
    """How unseen learners do over generations; bands: range over evolution seeds."""
    cases = list(dict.fromkeys(row["case"] for row in tests))
    with style():
        figure = empty_figure(10.5, 3.7)
        for axes, case in zip(figure.subplots(1, len(cases), squeeze=False)[0], cases, strict=True):
            some = select(tests, case=case)
            at = [row["generation"] for row in some[0]["tests"]]
            other = axes.twinx()
            what = "falls" if CASES[case][0] == "cart_pole" else "goals"
            for target, key, colour in ((axes, "ended", LINES[0]), (other, "frozen", LINES[1]), (other, "greedy", LINES[5])):  # fmt: skip
                values = np.array([[row[key] for row in one["tests"]] for one in some])
                target.plot(at, values.mean(0), color=colour, marker=".")
                target.fill_between(at, values.min(0), values.max(0), color=colour, alpha=0.2, linewidth=0)
            other.set_ylim(0, 515)
            axes.set_ylim(bottom=0)
            other.spines["right"].set_visible(True)
            axes.set_title(f"{case} ({len(some)} seed{'s' * (len(some) > 1)})")
            axes.set_xlabel("generation")
            axes.set_ylabel(f"{what} in a life", color=LINES[0])
            other.set_ylabel("episode, plasticity off (steps)", color=LINES[1])
        lines = {"drawn actions": LINES[1], "likeliest actions": LINES[5]}
        handles = [Line2D([], [], color=colour, label=f"plasticity off, {name}") for name, colour in lines.items()]
        figure.legend(handles=handles, loc="outside upper center", ncols=2)
    return figure


def main() -> None:
    command = command_line.parser(__doc__ or "", HERE / "results", seeds=1)
    command.add_argument(
        "--runs", type=user_path, default=Path("runs/tdca"), help="folder of the evolutions (default: runs/tdca)"
    )
    command.add_argument("--quick", action="store_true", help="4 generations, to see that it runs; results and runs go to runs/quick")  # fmt: skip
    if command.parse_args().quick:
        command.set_defaults(out=Path("runs/quick"), runs=Path("runs/quick"), seeds=1)
        TESTED.update(learners=4, episodes=1)
    options = command_line.parse(command)
    torch.set_flush_denormal(True)
    rows: list[dict[str, Any]] = []
    tests: list[dict[str, Any]] = []
    rasters: dict[str, dict[str, np.ndarray]] = {}
    for case in CASES:
        found = [evolve_case(case, seed, options.runs, options.quick) for seed in range(options.seeds)]
        tests += [{name: one[name] for name in ("case", "seed", "tests", "centre")} for one in found]
        more, rasters[case] = compared(case, found, options.quick)
        rows += more
    settings = {"cases": CASES, "strategy": STRATEGY, "environments": ENVIRONMENTS, **TESTED, "gradient_rates": GRADIENT_RATES}  # fmt: skip
    figures = {"control_learning": learning(rasters), "control_evolution": evolution(tests)}
    save(options.out, "control", report(rows, tests), figures, settings, {"rows": rows, "tests": tests})


if __name__ == "__main__":
    main()
