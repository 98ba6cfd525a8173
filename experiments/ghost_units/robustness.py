"""What the cancellation bears: noisy ghost weights, ghosts of another time constant, ghosts that hold, no ghosts.

Net 64-50-30-10, feedback W^T, 64 digits as one batch, weights held; cosine of the update of each W_l with minus the
backprop gradient.

noise     Tied values times (1 + relative Gaussian noise) as V and G of the mode `learned`; logistic, kappa 1, beta 0.05.
tau       tau_ghost/tau from 0.2 to 5, mode `exact`, logistic, kappa 1, torch:trajectory: net feedback while the free state settles.
online    Mode `online`, beta 0.05, R4, against kappa, at the fixed point and on the trajectory; beside it the largest
          eigenvalue of the loop, which must stay below 1.
none      No ghosts, logistic, kappa 0.3, beta 0.1.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from _common import LAYERS, SAMPLES, SIZES, command_line, digits, largest_sd, mean, probe, rms, spread
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from neurosim import simulate
from neurosim.analysis.report import listed, save, select, table
from neurosim.models import ghost_units
from neurosim.plot.style import GREY, LINES, PALETTE, empty_figure, style

NOISES = (0.0, 0.01, 0.05, 0.1, 0.2)
RATIOS = (0.2, 0.5, 1.0, 2.0, 5.0)
KAPPAS = (1.0, 0.5, 0.3, 0.2, 0.1, 0.05)
TRANSFERS = ("logistic", "tanh")
NO_GHOST_RULES = ("R1", "R3", "R4")
HIDDEN = range(1, len(LAYERS))
TAU = 10.0  # ms
LONG = 60  # tau of a phase on the trajectory
DT = 0.1  # ms, of the runs with another tau_ghost


def measure(item: tuple[str, Any, int]) -> list[dict[str, Any]]:
    part, value, seeds = item
    work = {"noise": noisy, "tau": other_tau, "online": online, "none": no_ghosts}[part]
    return [{"part": part, **row} for row in work(value, seeds)]


def noisy(rule: str, seeds: int) -> list[dict[str, Any]]:
    held = probe(mode="learned", transfer="logistic", kappa=1.0, beta=0.05, rule=rule)
    rows = []
    for seed in range(seeds):
        exact = held.circuit.initial_weights(seed)
        for l in HIDDEN:
            exact |= {f"V{l}": exact[f"W{l + 1}"], f"c{l}": exact[f"b{l + 1}"], f"G{l}": exact[f"W{l + 1}"].T}
        for noise in NOISES:
            random = np.random.default_rng([seed, 3])  # one pattern, scaled
            weights = dict(exact)
            for name in [f"{letter}{l}" for letter in "VG" for l in HIDDEN]:
                weights[name] = exact[name] * (1 + noise * random.standard_normal(exact[name].shape))
            found = held(weights)
            left = np.divide(found.residual, found.feedback).tolist()
            rows.append(found.row(rule=rule, noise=noise, seed=seed, left=left))
    return rows


def other_tau(ratio: float, seeds: int) -> list[dict[str, Any]]:
    """Net feedback I_fb - I_gh of both hidden layers over a free phase that starts from rest."""
    images, labels = (part[:SAMPLES] for part in digits())
    free = f"{LONG * TAU:g}*ms"
    circuit = ghost_units.circuit(
        SIZES, mode="exact", transfer="logistic", kappa=1.0, tau_ghost=f"{ratio * TAU:g}*ms", t_free=free
    )
    circuit = replace(circuit, protocol=replace(circuit.protocol, phases=circuit.protocol.phases[:1]))
    names = [f"pyr{l}.{variable}" for l in HIDDEN for variable in ("residual", "I_fb")]
    rows = []
    for seed in range(seeds):
        result = simulate(
            circuit, images, labels, level="torch:trajectory", record=names, dt=f"{DT}*ms", seed=seed, batch_size=SAMPLES,
            plasticity="off", stride=5, progress=False,
        )  # fmt: skip
        traces = result.traces
        assert traces is not None
        left = [traces[f"pyr{l}.residual"] for l in HIDDEN]
        raw = [traces[f"pyr{l}.I_fb"] for l in HIDDEN]
        rows.append(
            {
                "ratio": ratio,
                "seed": seed,
                "peak": [float(np.abs(x).max()) for x in left],
                "peak_rms": [float(np.sqrt((x**2).mean(axis=(1, 2))).max()) for x in left],
                "end": [float(np.abs(x[-1]).max()) for x in left],
                "end_rms": [rms(x[-1]) for x in left],
                "feedback_end_rms": [rms(x[-1]) for x in raw],
                "curve": [np.sqrt((x[::10] ** 2).mean(axis=(1, 2))).tolist() for x in left],
                "time": (traces.time[::10] * 1e3 / TAU).tolist(),
            }
        )
    return rows


def online(value: tuple[str, float, str], seeds: int) -> list[dict[str, Any]]:
    transfer, kappa, level = value
    settings: dict[str, Any] = {"mode": "online", "transfer": transfer, "kappa": kappa, "beta": 0.05, "rule": "R4"}
    if level == "torch:trajectory":  # long phases, and the update read in the last step
        settings |= {"t_free": f"{LONG * TAU:g}*ms", "t_nudged": f"{LONG * TAU:g}*ms", "t_learn": "1*ms"}
    held = probe(level, **settings)
    rows = []
    for seed in range(seeds):
        weights = held.circuit.initial_weights(seed)
        found, loop = held(weights), kappa**0.5 * loop_eigenvalue(weights, transfer)
        rows.append(found.row(transfer=transfer, kappa=kappa, level=level, seed=seed, loop=loop))
    return rows


def loop_eigenvalue(weights: dict[str, np.ndarray], transfer: str) -> float:
    """Largest eigenvalue of forward and feedback weights times slopes at kappa 1, mean over the digits.

    The loop's matrix has W_l rho' below and kappa B_l rho' above the diagonal. With B = W^T it has the eigenvalues of
    the symmetric sqrt(kappa) D^(1/2) [W below, W^T above] D^(1/2), D = diag(rho'): it grows like sqrt(kappa).
    """
    rate = digits()[0][:SAMPLES]
    slopes = []
    for l in range(1, len(SIZES)):
        drive = rate @ weights[f"W{l}"] + weights[f"b{l}"]
        rate = np.tanh(drive) if transfer == "tanh" else 1 / (1 + np.exp(-drive))
        slopes.append(1 - rate**2 if transfer == "tanh" else rate * (1 - rate))
    starts = np.cumsum([0, *SIZES[1:]])
    matrix = np.zeros((starts[-1], starts[-1]))
    for l in HIDDEN:
        lower, upper = slice(starts[l - 1], starts[l]), slice(starts[l], starts[l + 1])
        matrix[lower, upper], matrix[upper, lower] = weights[f"W{l + 1}"], weights[f"W{l + 1}"].T
    root = np.sqrt(np.concatenate(slopes, axis=1))
    return float(np.linalg.eigvalsh(root[:, :, None] * matrix * root[:, None, :])[:, -1].mean())


def no_ghosts(rule: str, seeds: int) -> list[dict[str, Any]]:
    held = probe(mode="none", transfer="logistic", kappa=0.3, beta=0.1, rule=rule)
    return [held(held.circuit.initial_weights(seed)).row(rule=rule, seed=seed) for seed in range(seeds)]


# ------------------------------------------------------------------ table and figure


def report(rows: list[dict[str, Any]], seeds: int) -> str:
    text = [
        "# Robustness of the cancellation",
        "",
        f"Net {'-'.join(map(str, SIZES))}, B = W^T, {SAMPLES} digits, mean of {seeds} seeds, float64, torch:steady unless said. "
        "Cosine of the held update of W1 / W2 / W3 with minus the gradient.",
        "",
        "## Relative Gaussian noise on V and G (logistic, kappa 1, beta 0.05)",
        "",
    ]
    some = select(rows, part="noise")
    lines = [
        [
            f"{noise:.0%}",
            listed(mean(some, "left", noise=noise)),
            *(listed(mean(some, "cosine", noise=noise, rule=r)) for r in ("R3", "R4")),
        ]
        for noise in NOISES
    ]
    text += [
        table(["noise", "residual / raw feedback (rms), layers 1 / 2", "R3", "R4"], lines),
        _notes(some, ("rule", "noise")),
    ]
    some = select(rows, part="tau")
    lines = []
    for ratio in RATIOS:
        keys = ("peak", "end", "peak_rms", "end_rms", "feedback_end_rms")
        lines.append([f"{ratio:g}", *(_short(mean(some, key, ratio=ratio)) for key in keys)])
    text += [
        "",
        f"## tau_ghost other than tau (`exact`, logistic, kappa 1, torch:trajectory, dt {DT} ms, free phase of {LONG} tau)",
        "",
        "Net feedback I_fb - I_gh of layers 1 / 2: largest magnitude of any cell and digit, over the phase and at its end, and the "
        "same of its rms; last, rms of the raw feedback at the end.",
        "",
        table(["tau_ghost / tau", "peak", "at the end", "peak of the rms", "rms at the end", "raw at the end"], lines),
    ]
    for transfer in TRANSFERS:
        some = select(rows, part="online", transfer=transfer)
        lines = []
        for kappa in KAPPAS:
            steady, moving = (select(some, kappa=kappa, level=f"torch:{x}") for x in ("steady", "trajectory"))
            missed = sum(row["unsettled"] for row in steady)
            found = [listed(mean(x, "cosine")) for x in (moving, steady)]
            lines.append([f"{kappa:g}", f"{mean(steady, 'loop'):.2f}", *found, missed])
        header = ["kappa", "loop eigenvalue", f"trajectory, {LONG} tau a phase", "steady", "unsettled (steady)"]
        text += [
            "",
            f"## `online`, {transfer}, beta 0.05, R4",
            "",
            table(header, lines),
            _notes(some, ("kappa", "level")),
        ]
    some = select(rows, part="none")
    lines = [
        [rule, listed(mean(some, "cosine", rule=rule)), listed(mean(some, "ratio", rule=rule), 2)]
        for rule in NO_GHOST_RULES
    ]
    text += [
        "",
        "## No ghosts (logistic, kappa 0.3, beta 0.1)",
        "",
        table(["rule", "cosine", "norm of the update over that of the gradient"], lines),
    ]
    return "\n".join([*text, _notes(some, ("rule",)), ""])


def _notes(rows: list[Any], by: tuple[str, ...]) -> str:
    missed = sum(row["unsettled"] for row in rows)
    return f"Largest sd of a cosine over seeds: {largest_sd(rows, 'cosine', by):.3f}. Samples that missed the tolerance: {missed}."


def _short(values: np.ndarray) -> str:
    return " / ".join(f"{value:.3g}" for value in values)


def draw(rows: list[dict[str, Any]]) -> Figure:
    with style():
        figure = empty_figure(10.5, 8.2)
        (noise, tau), (hold, control) = figure.subplots(2, 2)
        _draw_noise(noise, select(rows, part="noise"))
        _draw_tau(tau, select(rows, part="tau"))
        _draw_online(hold, select(rows, part="online"))
        _draw_control(control, select(rows, part="none"))
        for axes in (noise, hold, control):
            axes.set_ylabel("cosine with minus the gradient")
            axes.axhline(0.0, color=GREY, linewidth=0.8, zorder=0)
    return figure


def _draw_noise(axes: Any, rows: list[Any]) -> None:
    marks: dict[str, Any] = {"R3": "--", "R4": "-"}
    for rule, line in marks.items():
        for k in range(len(LAYERS)):
            curve = [mean(rows, "cosine", rule=rule, noise=noise)[k] for noise in NOISES]
            axes.plot(np.multiply(NOISES, 100), curve, line, color=LINES[k], marker="os^"[k], markersize=4.0)
    handles = [Line2D([], [], color=LINES[k], marker="os^"[k], markersize=4.0, label=n) for k, n in enumerate(LAYERS)]
    handles += [Line2D([], [], color=GREY, linestyle=d, label=r) for r, d in marks.items()]
    axes.legend(handles=handles, ncols=2, loc="center right")
    axes.set_title("Noise on V and G: logistic, kappa 1, beta 0.05")
    axes.set_xlabel("relative noise (%)")


def _draw_tau(axes: Any, rows: list[Any]) -> None:
    for ratio, colour in zip(RATIOS, LINES, strict=False):
        some = select(rows, ratio=ratio)
        curve = np.asarray(mean(some, "curve"))[0]
        label = f"{ratio:g}" + (" (exactly 0, below the axis)" if not curve.any() else "")
        axes.plot(some[0]["time"], np.maximum(curve, 1e-9), color=colour, label=label)
    axes.set_yscale("log")
    axes.set_ylim(1e-8, 3.0)
    axes.legend(title="tau_ghost / tau", loc="lower left")
    axes.set_title("Free phase of `exact` from rest: logistic, kappa 1")
    axes.set_xlabel("time (tau)")
    axes.set_ylabel("net feedback in layer 1 (rms)")


def _draw_online(axes: Any, rows: list[Any]) -> None:
    for transfer, colour in zip(TRANSFERS, (PALETTE["blue"], PALETTE["vermillion"]), strict=True):
        for level, dashes in (("torch:trajectory", "-"), ("torch:steady", ":")):
            curve = [mean(rows, "cosine", transfer=transfer, kappa=k, level=level)[0] for k in KAPPAS]
            axes.semilogx(KAPPAS, curve, dashes, color=colour, marker="o", markersize=4.0)
        loop = float(mean(rows, "loop", transfer=transfer, kappa=1.0))
        axes.axvline(loop**-2, color=colour, linewidth=4.0, alpha=0.3, zorder=0)
    handles = [
        *(
            Line2D([], [], color=PALETTE[c], marker="o", markersize=4.0, label=t)
            for t, c in zip(TRANSFERS, ("blue", "vermillion"), strict=True)
        ),
        Line2D([], [], color=GREY, label=f"trajectory, {LONG} tau a phase"),
        Line2D([], [], color=GREY, linestyle=":", label="fixed point (steady)"),
        Line2D([], [], color=GREY, linewidth=4.0, alpha=0.3, label="loop eigenvalue 1"),
    ]
    axes.legend(handles=handles, loc="lower left")
    axes.set_title("`online`: W1, beta 0.05, R4")
    axes.set_xlabel("feedback gain kappa")


def _draw_control(axes: Any, rows: list[Any]) -> None:
    width = 0.25
    for j, rule in enumerate(NO_GHOST_RULES):
        values = np.array([row["cosine"] for row in select(rows, rule=rule)])
        spots = np.arange(len(LAYERS)) + (j - 1) * width
        axes.bar(spots, values.mean(axis=0), width, color=LINES[j], label=rule)
        for row in values:
            axes.plot(spots, row, "o", color=PALETTE["black"], markersize=2.5)
    axes.set_xticks(range(len(LAYERS)), LAYERS)
    handles, names = axes.get_legend_handles_labels()
    dot = Line2D([], [], marker="o", linestyle="none", color=PALETTE["black"], markersize=2.5)
    axes.legend([*handles, dot], [*names, "one seed"], loc="lower right")
    axes.set_title("No ghosts: logistic, kappa 0.3, beta 0.1")
    axes.set_xlabel("layer")


def main() -> None:
    options = command_line(__doc__ or "")
    items: list[tuple[str, Any, int]] = [("tau", ratio, options.seeds) for ratio in RATIOS]
    for level in ("torch:trajectory", "torch:steady"):
        items += [("online", (transfer, kappa, level), options.seeds) for transfer in TRANSFERS for kappa in KAPPAS]
    items += [("noise", rule, options.seeds) for rule in ("R3", "R4")]
    items += [("none", rule, options.seeds) for rule in NO_GHOST_RULES]
    rows = spread(measure, items, options.jobs)
    settings = {"sizes": SIZES, "samples": SAMPLES, "feedback": "sym", "tau_ms": TAU, "phase_tau": LONG, "dt_ms": DT}
    save(options.out, "robustness", report(rows, options.seeds), draw(rows), settings, {"rows": rows})


if __name__ == "__main__":
    main()
