"""Teacher task: a student 30-20-10 learns the map of a random teacher net 30-20-10, plasticity always on, target always on.

Teacher (ours): the same net in its feed-forward form, logistic, weights uniform on -2 to 2. Its output potential is the
student's target potential. The student starts from weights uniform on -1 to 1 with self-predicting lateral weights; W, IP
and PI all learn. Error: rms of the student's output potential against the teacher's on 100 unseen inputs, no target on,
at the fixed point with weights held, noise-free. To be compared with: the sd of the teacher's output over inputs
(the error of an answer that is always the mean). Curves of all seeds on torch:steady; for the first seed brian2:dense runs the
dynamics (dt 0.25 ms), with the published noise of 0.3 per sqrt(ms) and, over fewer presentations, without.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from _common import (
    INPUTS,
    SIZES,
    STEADY,
    TEACHER,
    UNSEEN,
    UNSEEN_INPUTS,
    Unseen,
    inputs_of,
    parse,
    parser,
    rms,
    with_rates,
)
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from tqdm import tqdm

from neurosim.analysis import ReferenceNet
from neurosim.analysis.report import column, save, select, table
from neurosim.errors import DivergenceError
from neurosim.models import dendritic_microcircuit
from neurosim.plot.style import GREY, PALETTE, empty_figure, style
from neurosim.simulation import build_engine
from neurosim.stimuli import stimulus_fields

#: Half width of the teacher's weights. At 1, as the student's, nearly all of the first error is the outputs' means.
RANGE = 2.0
#: Target potential = y: the teacher's potentials are handed over as they are.
TARGET = (0.0, 1.0)
NOISE = 0.3
STEPS = (0, 10, 30, 100, 200, 300, 500, 1000, 1500, 2000, 3000, 4000, 5000, 7000, 10_000, 20_000, 30_000)
DYNAMICS, STEADY_LEVEL = "brian2:dense", "torch:steady"

#: 1/ms. The published ones are those of gittermarie's 50-20-10 net (`models/dendritic_microcircuit.py`).
PUBLISHED = {"W1": 1.1875e-3, "W2": 5e-4, "interneuron": 1.1875e-3, "apical": 5.9375e-3}
LARGER = {"W1": 2.375e-2, "W2": 1e-2, "interneuron": 1.1875e-2, "apical": 1.484375e-3}


@dataclass(frozen=True)
class Case:
    """A line of the table. `presentations` 0: as many as the command line says; `seeds` 0: likewise."""

    name: str
    rates: dict[str, float]
    feedback: str = "sym"
    level: str = STEADY_LEVEL
    sigma: float = 0.0
    presentations: int = 0
    seeds: int = 0
    look: dict[str, Any] = field(default_factory=dict)


SYM, FA, FIXED = "larger rates, sym", "larger rates, fa", "larger rates, fa, W1 held"
SLOW, QUIET, NOISY = "published rates, fa", "dynamics, no noise", "dynamics, noise 0.3"
FAST, FAST_DYNAMICS = "larger rates, sym, PI 5x published", "the same, dynamics"
CASES = (
    Case(SYM, LARGER, look={"color": PALETTE["blue"]}),
    Case(FA, LARGER, "fa", look={"color": PALETTE["vermillion"], "linestyle": "--"}),
    Case(FIXED, LARGER | {"W1": 0.0}, "fa", look={"color": PALETTE["green"], "linestyle": "-."}),
    Case(SLOW, PUBLISHED, "fa", look={"color": PALETTE["black"], "linestyle": (0, (1, 1))}),
    Case(FAST, LARGER | {"apical": 5 * PUBLISHED["apical"]}, presentations=300),
    Case(FAST_DYNAMICS, LARGER | {"apical": 5 * PUBLISHED["apical"]}, "sym", DYNAMICS, presentations=100, seeds=1),
    Case(QUIET, LARGER, "fa", DYNAMICS, presentations=300, seeds=1, look={"color": PALETTE["black"], "marker": "o"}),
    Case(NOISY, LARGER, "fa", DYNAMICS, NOISE, 1500, 1, {"color": PALETTE["purple"], "marker": "s"}),
)  # fmt: skip


def teacher(inputs: np.ndarray, seed: int) -> np.ndarray:
    """Output potentials of the teacher: u = share W2 phi(share W1 x), with the shares of the circuit."""
    circuit = dendritic_microcircuit.circuit(SIZES, task="teacher", target=TARGET)
    rng = np.random.default_rng([seed, TEACHER])
    weights = {f"W{l}": rng.uniform(-RANGE, RANGE, SIZES[l - 1 : l + 1]) for l in (1, 2)}
    net = ReferenceNet(circuit, weights)
    rates = net.arrays.to_numpy(net.forward(net.arrays.asarray(inputs)).detach())
    return np.log(rates / (1 - rates))  # the logistic's inverse


def learn(case: Case, seed: int, presentations: int, bar: tqdm) -> list[dict[str, Any]]:
    """Rows of the errors over presentations."""
    settings: dict[str, Any] = {"feedback": case.feedback, "target": TARGET}
    circuit = dendritic_microcircuit.circuit(SIZES, task="teacher", sigma=case.sigma, **settings)
    circuit = with_rates(circuit, case.rates)
    steady = case.level == STEADY_LEVEL
    engine = build_engine(
        circuit, case.level, circuit.initial_weights(seed), seed, batch=1, dt=1e-4 if steady else 2.5e-4, progress=False,
        **(STEADY if steady else {}),
    )  # fmt: skip
    unseen = Unseen(inputs_of(UNSEEN_INPUTS, seed, UNSEEN), **settings)
    wanted = teacher(unseen.fields["image"], seed)
    spread = rms(wanted - wanted.mean(axis=0))
    inputs = inputs_of(INPUTS, seed, presentations)
    fields = stimulus_fields(circuit, inputs, teacher(inputs, seed))
    rows, done, unsettled, started = [], 0, 0, time.process_time()
    for step in (*(x for x in STEPS if x < presentations), presentations):
        if step > done:
            try:
                # In parts, for the progress bar; states start anew in each.
                for part in np.array_split(np.arange(done, step), -(-(step - done) // 500)):
                    shown = {name: values[part] for name, values in fields.items()}
                    unsettled += engine.present(shown, ends=False).unsettled
                    bar.update(len(part))
            except DivergenceError:
                bar.update(presentations - part[0])
                break
            done = step
        found = unseen(engine.weights())
        error = rms(found["pyr2.u"] - wanted)
        rows.append(
            {
                "case": case.name,
                "seed": seed,
                "presentations": step,
                "error": error,
                "mse": error**2,
                "sd_of_teacher": spread,
                "apical": rms(found["pyr1.v_A"]),
                "mismatch": rms(found["int1.u"] - found["pyr2.u"]),
                "unsettled": unsettled,
                "seconds": time.process_time() - started,
            }
        )
    return rows


# ------------------------------------------------------------------ what is found


def ends(rows: list[dict[str, Any]], case: str) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """First and last rows of a case, by seed."""
    some = select(rows, case=case)
    curves = [select(some, seed=seed) for seed in sorted({row["seed"] for row in some})]
    return [curve[0] for curve in curves], [curve[-1] for curve in curves]


def report(rows: list[dict[str, Any]], seeds: int, presentations: int) -> str:
    first, _ = ends(rows, SYM)
    spread = [row["sd_of_teacher"] for row in first]
    text = [
        "# Dendritic microcircuit: teacher task",
        "",
        f"Student and teacher {'-'.join(map(str, SIZES))}, logistic, teacher's weights uniform on +-{RANGE:g} (ours), inputs uniform on 0 to "
        f"1, patterns of 100 ms, target and plasticity always on. Error: rms of the output potential against the teacher's on {UNSEEN} unseen "
        f"inputs without a target. sd of the teacher's output over inputs, by seed: {' / '.join(f'{x:.3f}' for x in spread)}.",
        "",
    ]
    lines = []
    for case in CASES:
        start, end = ends(rows, case.name)
        falls = [a["error"] / b["error"] for a, b in zip(start, end, strict=True)]
        errors = np.array([row["error"] for row in end])
        part = np.array([row["error"] / row["sd_of_teacher"] for row in end])
        # apical weights that run away do not reach an output: the error looks fine
        broken = any(not row["apical"] < 1e3 for row in end)
        lines.append(
            [
                case.name,
                case.level,
                min(row["presentations"] for row in end),
                f"{np.mean([row['error'] for row in start]):.3f}",
                f"{errors.mean():.3f}",
                f"{(errors**2).mean():.3f}",
                " / ".join(f"{x:.1f}" for x in falls),
                f"{part.mean():.2f}",
                "**diverges**" if broken else f"{np.mean([row['apical'] for row in end]):.3f}",
                f"{np.mean([row['mismatch'] for row in end]):.3f}",
                max(row["unsettled"] for row in end),
            ]
        )
    header = [
        "case", "level", "presentations", "error at 0", "error", "MSE", "fall of the error, by seed", "error / sd",
        "apical", "mismatch", "unsettled",
    ]  # fmt: skip
    text += [table(header, lines)]
    text += [
        "Apical: rms apical potential of hidden cells without a target; mismatch: rms of interneurons against their partners. Both 0 at "
        "the start. An error / sd of 1 is reached by answering the mean.",
        "",
        "| rates (1/ms) | W1 | W2 | IP | PI |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, rates in (("published (READ)", PUBLISHED), ("larger (ours)", LARGER)):
        text += [f"| {name} | {' | '.join(f'{rate:g}' for rate in rates.values())} |"]
    steps = [x for x in (*STEPS, presentations) if x <= presentations]
    shown = [x for x in dict.fromkeys(steps) if x in (0, 100, 300, 500, 1000, 1500, 2000, 3000, 5000, presentations)]
    text += ["", f"## Error over presentations (mean of {seeds} seeds; dynamics: seed 0)", ""]
    lines = []
    for case in (c for c in CASES if c.look):
        curve = {x: column(rows, "error", case=case.name, presentations=x).mean() for x in shown
                 if select(rows, case=case.name, presentations=x)}  # fmt: skip
        lines.append([case.name, *(f"{curve[x]:.3f}" if x in curve else "" for x in shown)])
    own = {x["presentations"]: x["error"] for x in select(rows, case=FA, seed=0)}
    lines.append(["larger rates, fa, seed 0 alone", *(f"{own[x]:.3f}" if x in own else "" for x in shown)])
    text += [table(["case", *map(str, shown)], lines)]
    return "\n".join(text)


def draw(rows: list[dict[str, Any]], seeds: int) -> Figure:
    with style():
        figure = empty_figure(9.8, 4.9)
        figure.suptitle(
            f"Teacher task, {'-'.join(map(str, SIZES))} cells: error on {UNSEEN} unseen inputs, no target on"
        )
        panels = figure.subplots(1, 2, sharey=True)
        handles = []
        for case in (c for c in CASES if c.look):
            axes = panels[int(case.level == DYNAMICS)]
            some = select(rows, case=case.name)
            steps = sorted({row["presentations"] for row in some})
            values = np.stack([column(some, "error", presentations=x) for x in steps])
            look = (
                {"markersize": 5, "markerfacecolor": "white", "linewidth": 1.0, **case.look}
                if case.seeds
                else case.look
            )
            axes.plot(steps, values.mean(1), **look)
            if not case.seeds:
                axes.fill_between(steps, values.min(1), values.max(1), color=look["color"], alpha=0.15, linewidth=0)
            handles.append(Line2D([], [], label=f"{case.name}{', seed 0' if case.seeds else ''}", **look))
        own = select(rows, case=FA, seed=0)
        look: dict[str, Any] = {"color": PALETTE["vermillion"], "linestyle": "--"}
        panels[1].plot([x["presentations"] for x in own], [x["error"] for x in own], **look)
        handles.append(Line2D([], [], label="larger rates, fa, torch:steady, seed 0", **look))
        longest = max(row["presentations"] for row in rows)
        titles = f"torch:steady, mean and range of {seeds} seeds", f"the dynamics ({DYNAMICS}), seed 0"
        for k, axes in enumerate(panels):
            axes.set_yscale("log")
            axes.set_xscale("symlog", linthresh=10)
            axes.set_xlim(0, longest)
            axes.set_title(titles[k])
            axes.set_xlabel("presentations of 100 ms")
            start = select(rows, case=FA, presentations=0)[: 1 if k else seeds]
            lines = (
                (np.mean([x["sd_of_teacher"] for x in start]), "sd of the teacher's output"),
                (np.mean([x["error"] for x in start]) / 5, "1/5 of the first error"),
            )
            for y, name in lines:
                axes.axhline(float(y), color=GREY, linewidth=0.8, linestyle=":")
                axes.annotate(
                    name, (0, float(y)), (4, 2), xycoords=("axes fraction", "data"), textcoords="offset points",
                    fontsize=8, color=GREY,
                )  # fmt: skip
        panels[0].set_ylabel("rms error of the output potential\n(dimensionless)")
        ticks = (0.2, 0.3, 0.5, 1.0, 2.0, 3.0)
        panels[0].set_yticks(ticks, [f"{x:g}" for x in ticks])
        panels[0].minorticks_off()
        figure.legend(handles=handles, loc="outside lower center", ncols=3, handlelength=3.0)
    return figure


def main() -> None:
    command = parser(__doc__ or "")
    command.add_argument(
        "--presentations", type=int, default=10_000, help="presentations of the curves of all seeds (default: 10000)"
    )
    options = parse(command)
    runs = [
        (case, seed, case.presentations or options.presentations)
        for case in CASES
        for seed in range(min(case.seeds or options.seeds, options.seeds))
    ]
    rows: list[dict[str, Any]] = []
    with tqdm(total=sum(run[-1] for run in runs), unit="presentation") as bar:
        for run in runs:
            bar.set_postfix_str(f"{run[0].name}, seed {run[1]}")
            rows += learn(*run, bar)
    settings = {
        "sizes": SIZES, "teacher": f"logistic, weights uniform on +-{RANGE:g}", "unseen": UNSEEN, "target": TARGET,
        "cases": {c.name: {"rates_per_ms": c.rates, "feedback": c.feedback, "level": c.level, "sigma": c.sigma} for c in CASES},
    }  # fmt: skip
    text = report(rows, options.seeds, options.presentations)
    save(options.out, "teacher", text, draw(rows, options.seeds), settings, {"rows": rows})


if __name__ == "__main__":
    main()
