"""Learned self-prediction: random lateral weights IP and PI learn to cancel the feedback, W and B held, no target.

Net 30-20-10, inputs uniform on 0 to 1, noise off. Measured on 100 unseen inputs at the fixed point, weights held: rms
apical potential of the hidden cells, and rms interneuron mismatch u_int - u_pyr of the layer above. Two schedules: the published
rates, and larger ones (ours). Curves of all seeds: torch:steady, each presentation the rules' exact 100 ms at the fixed point. For
the first seed brian2:dense runs the dynamics over the first presentations (dt 0.1 ms, the same inputs), and draws the
apical potential before and after learning.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from _common import INPUTS, SIZES, STEADY, UNSEEN, UNSEEN_INPUTS, Unseen, inputs_of, parse, parser, rms, with_rates
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from tqdm import tqdm

from neurosim import Circuit, simulate
from neurosim.analysis.report import column, save, select, table
from neurosim.models import dendritic_microcircuit
from neurosim.plot.style import GREY, LINES, PALETTE, empty_figure, style
from neurosim.simulation import build_engine
from neurosim.traces import Traces

PUBLISHED, LARGER = "published rates", "larger rates"
#: Learning rates in 1/ms.
SCHEDULES: Mapping[str, dict[str, float]] = {
    PUBLISHED: {"interneuron": 2.375e-4, "apical": 5e-4},
    LARGER: {"interneuron": 9.5e-3, "apical": 5e-3},
}
STEPS = (0, 10, 20, 50, 100, 200, 300, 500, 1000, 2000, 3000, 5000, 7000, 10_000, 20_000, 30_000, 50_000, 100_000)
MEASURES = {"apical": "rms apical potential", "mismatch": "rms interneuron mismatch"}
DYNAMICS, STEADY_LEVEL = "brian2:dense", "torch:steady"
CELLS = (0, 1, 2, 3)


def circuit_of(schedule: str) -> Circuit:
    circuit = dendritic_microcircuit.circuit(SIZES, task="self_prediction", lateral="random")
    return with_rates(circuit, SCHEDULES[schedule])


def learn(
    schedule: str, seed: int, level: str, presentations: int, bar: tqdm
) -> tuple[list[dict[str, Any]], Mapping[str, np.ndarray]]:
    """Rows of the measures over presentations, and the weights at the end."""
    circuit, started = circuit_of(schedule), time.process_time()
    weights = circuit.initial_weights(seed)
    options = STEADY if level == STEADY_LEVEL else {}
    engine = build_engine(circuit, level, weights, seed, batch=1, dt=1e-4, progress=False, **options)
    unseen = Unseen(inputs_of(UNSEEN_INPUTS, seed, UNSEEN), lateral="random")
    inputs = inputs_of(INPUTS, seed, presentations)
    rows, done, unsettled = [], 0, 0
    for step in (*(x for x in STEPS if x < presentations), presentations):
        if step > done:
            # In parts, for the progress bar; states start anew in each.
            for part in np.array_split(inputs[done:step], -(-(step - done) // 500)):
                unsettled += engine.present({"image": part}, ends=False).unsettled
                bar.update(len(part))
            done = step
        found = unseen(engine.weights())
        rows.append(
            {
                "schedule": schedule,
                "level": level,
                "seed": seed,
                "presentations": step,
                "apical": rms(found["pyr1.v_A"]),
                "mismatch": rms(found["int1.u"] - found["pyr2.u"]),
                "unsettled": unsettled,
                "seconds": time.process_time() - started,
            }
        )
    return rows, engine.weights()


def traces_of(weights: Mapping[str, np.ndarray]) -> Traces:
    """The apical potential through two patterns, weights held."""
    result = simulate(
        circuit_of(PUBLISHED), inputs_of(UNSEEN_INPUTS, 0, 2), level=DYNAMICS, record=["pyr1.v_A"], weights=weights,
        plasticity="off", progress=False,
    )  # fmt: skip
    return result.traces


# ------------------------------------------------------------------ what is found


def fall(rows: Sequence[Mapping[str, Any]], key: str) -> tuple[list[float], dict[int, list[int | None]]]:
    """By seed: the factor of the fall, and after how many presentations it first was 10 and 20."""
    factors: list[float] = []
    reached: dict[int, list[int | None]] = {10: [], 20: []}
    for seed in sorted({row["seed"] for row in rows}):
        curve = select(rows, seed=seed)
        start = curve[0][key]
        factors.append(start / curve[-1][key])
        for factor, at in reached.items():
            at.append(next((row["presentations"] for row in curve if row[key] * factor <= start), None))
    return factors, reached


def report(rows: list[dict[str, Any]], seeds: int, presentations: int, dynamics: int) -> str:
    text = [
        "# Dendritic microcircuit: learned self-prediction",
        "",
        f"Net {'-'.join(map(str, SIZES))}, random lateral weights, W and B held, noise off, inputs uniform on 0 to 1, 100 ms each. "
        f"On {UNSEEN} unseen inputs at the fixed point, mean of {seeds} seeds: rms apical potential (hidden cells), and rms "
        "mismatch of interneurons and their partners; potentials are dimensionless.",
    ]
    for schedule, rates in SCHEDULES.items():
        some = select(rows, schedule=schedule, level=STEADY_LEVEL)
        named = ", ".join(f"{name} {rate:g}/ms" for name, rate in rates.items())
        lines = []
        for step in sorted({row["presentations"] for row in some}):
            here = select(some, presentations=step)
            line: list[Any] = [step, f"{step / 10:g}"]
            for key in MEASURES:
                values = column(here, key)
                start = column(select(some, presentations=0), key)
                line += [f"{values.mean():.4f}", f"{(start / values).mean():.1f}"]
            lines.append(line)
        header = ["presentations", "time (s)", "apical", "fall", "mismatch", "fall"]
        text += ["", f"## {schedule.capitalize()} ({named}), {STEADY_LEVEL}", "", table(header, lines)]
        for key, name in MEASURES.items():
            factors, reached = fall(some, key)
            times = "; ".join(
                f"{factor}x after {', '.join('-' if x is None else str(x) for x in at)}"
                for factor, at in reached.items()
            )
            text += [f"{name}: {' / '.join(f'{x:.1f}' for x in factors)} times lower, by seed; {times} presentations."]
            text += [""]
        text += [f"Samples that missed the tolerance: {max(row['unsettled'] for row in some)}."]
    lines = []
    for schedule in SCHEDULES:
        for level in (STEADY_LEVEL, DYNAMICS):
            curve = {x["presentations"]: x for x in select(rows, schedule=schedule, level=level, seed=0)}
            shown = [x for x in (10, 50, 100, 200, dynamics) if x in curve]
            lines.append([schedule, level, *(f"{curve[x]['apical']:.4f} / {curve[x]['mismatch']:.4f}" for x in shown)])
    text += [
        "",
        f"## The dynamics: {DYNAMICS}, dt 0.1 ms, seed 0, the same inputs",
        "",
        "Apical / mismatch, measured at the fixed point of the weights that were learned.",
        "",
        table(["rates", "level", *(f"after {x}" for x in shown)], lines),
    ]
    return "\n".join(text)


# ------------------------------------------------------------------ figure


def draw(rows: list[dict[str, Any]], before: Traces, after: Traces, seeds: int, presentations: int) -> Figure:
    looks: Mapping[str, dict[str, Any]] = {
        PUBLISHED: {"color": PALETTE["blue"]},
        LARGER: {"color": PALETTE["vermillion"], "linestyle": "--"},
    }
    with style():
        figure = empty_figure(9.8, 7.4)
        figure.suptitle(f"Learned self-prediction, {'-'.join(map(str, SIZES))} cells, from random lateral weights")
        (apical, mismatch), (left, right) = figure.subplots(2, 2)
        for axes, (key, name) in zip((apical, mismatch), MEASURES.items(), strict=True):
            for schedule, look in looks.items():
                some = select(rows, schedule=schedule, level=STEADY_LEVEL)
                steps = sorted({row["presentations"] for row in some})
                values = np.stack([column(some, key, presentations=x) for x in steps])
                seconds = np.array(steps) / 10
                axes.plot(seconds, values.mean(1), **look)
                axes.fill_between(seconds, values.min(1), values.max(1), color=look["color"], alpha=0.2, linewidth=0)
                curve = select(rows, schedule=schedule, level=DYNAMICS)
                axes.plot(
                    [x["presentations"] / 10 for x in curve], [x[key] for x in curve], "o", color=look["color"],
                    markersize=5, markerfacecolor="white", zorder=4,
                )  # fmt: skip
                own = select(some, seed=0)
                axes.plot(
                    [x["presentations"] / 10 for x in own], [x[key] for x in own], color=look["color"], linewidth=0.8,
                    linestyle=":",
                )  # fmt: skip
            start = float(column(rows, key, presentations=0, level=STEADY_LEVEL).mean())
            for factor in (10, 20):
                axes.axhline(start / factor, color=GREY, linewidth=0.8, linestyle=":")
                axes.annotate(
                    f"1/{factor}", (0, start / factor), (3, 2), xycoords=("axes fraction", "data"),
                    textcoords="offset points", fontsize=8, color=GREY,
                )  # fmt: skip
            axes.set_yscale("log")
            axes.set_xscale("symlog", linthresh=1)
            axes.set_xlim(0, presentations / 10)
            axes.xaxis.set_major_formatter("{x:g}")
            axes.set_xlabel("simulated time (s), ten patterns a second")
            axes.set_ylabel(f"{name}\n(dimensionless)")
        handles = [Line2D([], [], label=f"{name}, mean and range of {seeds} seeds", **looks[name]) for name in looks]
        handles += [
            Line2D([], [], color=GREY, linestyle=":", linewidth=0.8, label="seed 0 at the fixed point"),
            Line2D([], [], color=GREY, linestyle="none", marker="o", markerfacecolor="white", label="seed 0, dynamics"),
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=2, handlelength=3.0)
        _traces(left, before, "Apical potential before learning")
        _traces(right, after, f"after {presentations:,} presentations at the larger rates")
        low, high = left.get_ylim()
        for axes in (left, right):
            axes.set_ylim(low, high + 0.25 * (high - low))  # room for the legend
        _inset(right, after)
    return figure


def _traces(axes: Axes, traces: Traces, title: str) -> None:
    for k, cell in enumerate(CELLS):
        axes.plot(
            traces.time * 1e3, traces["pyr1.v_A"][:, 0, cell], color=LINES[k], linewidth=1.2, label=f"cell {cell}"
        )
    axes.axvline(100, color=GREY, linewidth=0.8)
    axes.axhline(0, color=GREY, linewidth=0.8, zorder=0)
    axes.set_xlim(0, 200)
    axes.set_title(title)
    axes.set_xlabel("time (ms), two unseen patterns of 100 ms")
    axes.set_ylabel("v_A (dimensionless)")
    axes.legend(loc="upper right", ncols=2, fontsize=8)


def _inset(axes: Axes, traces: Traces) -> None:
    """The same traces, enlarged: what is left when patterns change."""
    inset = axes.inset_axes((0.13, 0.1, 0.8, 0.34))
    settled = np.abs(traces["pyr1.v_A"][traces.time > 0.01, 0][:, list(CELLS)]).max()
    for k, cell in enumerate(CELLS):
        inset.plot(traces.time * 1e3, traces["pyr1.v_A"][:, 0, cell], color=LINES[k], linewidth=0.9)
    inset.axvline(100, color=GREY, linewidth=0.8)
    inset.set_xlim(0, 200)
    inset.set_ylim(-1.5 * settled, 1.5 * settled)
    inset.tick_params(labelsize=7)
    inset.set_title("enlarged", fontsize=8)


def main() -> None:
    command = parser(__doc__ or "")
    command.add_argument(
        "--presentations", type=int, default=10_000, help="presentations of each curve (default: 10000)"
    )
    command.add_argument(
        "--dynamics", type=int, default=300, help="presentations of the run on brian2:dense (default: 300)"
    )
    options = parse(command)
    rows: list[dict[str, Any]] = []
    start = circuit_of(PUBLISHED).initial_weights(0)
    learned: Mapping[str, np.ndarray] = start
    runs = [(s, k, STEADY_LEVEL, options.presentations) for s in SCHEDULES for k in range(options.seeds)]
    runs += [(s, 0, DYNAMICS, options.dynamics) for s in SCHEDULES]
    with tqdm(total=sum(run[-1] for run in runs), unit="presentation") as bar:
        for run in runs:
            bar.set_postfix_str(f"{run[0]}, seed {run[1]}, {run[2]}")
            found, weights = learn(*run, bar)
            rows += found
            if run[:3] == (LARGER, 0, STEADY_LEVEL):
                learned = weights
    settings = {"sizes": SIZES, "rates_per_ms": SCHEDULES, "inputs": "uniform on 0 to 1", "unseen": UNSEEN, "sigma": 0}
    figure = draw(rows, traces_of(start), traces_of(learned), options.seeds, options.presentations)
    text = report(rows, options.seeds, options.presentations, options.dynamics)
    save(options.out, "self_prediction", text, figure, settings, {"rows": rows})


if __name__ == "__main__":
    main()
