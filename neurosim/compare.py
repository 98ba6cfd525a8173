"""Are the levels of one circuit the same? Trajectories, weights, fixed points, order of the error, update against gradient."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from neurosim.backends import LEVELS, STEADY, engine_class
from neurosim.backends.result import Result, largest_by_phase
from neurosim.circuit import Circuit
from neurosim.equations import seconds
from neurosim.errors import NeurosimError
from neurosim.protocol import Windows
from neurosim.simulation import simulate, stimuli

#: Cells per population whose traces a report keeps.
CELLS = 3


@dataclass
class Comparison:
    """A comparison of levels.

    `report` is what ``report.json`` holds (times in seconds); `traces` and `ends` are what the figure shows.
    """

    report: dict[str, Any]
    traces: dict[str, Any] = field(default_factory=dict)
    ends: dict[str, Any] = field(default_factory=dict)

    def markdown(self) -> str:
        """The report as a table a person reads."""
        return _markdown(self.report)

    def _repr_markdown_(self) -> str:
        """What a notebook shows."""
        return self.markdown()

    def save(self, folder: str | Path) -> list[Path]:
        """Write ``report.md``, ``report.json`` and ``traces.png``."""
        from neurosim.plot import save_comparison

        folder = Path(folder)
        paths = [folder / "report.md", folder / "report.json"]
        paths[0].write_text(self.markdown())
        paths[1].write_text(json.dumps(self.report, indent=2) + "\n")
        if self.traces:
            paths.append(folder / "traces.png")
            save_comparison(self.traces, paths[-1], ends=self.ends)
        return paths


def compare(
    circuit: Circuit,
    images: Any = None,
    labels: Any = None,
    *,
    levels: Sequence[str] | None = None,
    dt: str | None = None,
    seed: int = 0,
    weights: Mapping[str, np.ndarray] | None = None,
    batch_size: int = 1,
    plasticity: str = "on",
    dtype: str = "float64",
    device: str = "cpu",
    codegen: str = "numpy",
    data: str = "",
    record: Sequence[str] | None = None,
    predictions: bool = False,
    solver: str = "anderson",
    progress: bool = True,
) -> Comparison:
    """Run a circuit on several levels and say in numbers how far they differ.

    Three runs per level: with plasticity as asked (states and weights compared with those of the other levels); with weights held
    (`settling`, and `update_cosine`: the collected change against minus the gradient of the mean loss); and, on
    trajectory levels, one stimulus at three step sizes (`order` of the Euler error, from the largest difference over
    the whole trajectory).

    Levels default to all that can run the circuit (no steady level for spiking or noisy cells). The other parameters are
    those of `simulate`; `record` chooses the variables of the figure (default: all states), `predictions` adds
    accuracies and the share of equal answers. Returns a `Comparison`.
    """
    from neurosim.analysis import cosines_with_gradient

    plan, dt = circuit.plan, dt or circuit.protocol.dt
    levels = list(dict.fromkeys(levels or (n for n in LEVELS if n != STEADY or plan.has_fixed_point)))
    if len(levels) < 2:
        raise NeurosimError(f"Got the levels {levels}; wanted at least two to compare. Known: {', '.join(LEVELS)}.")
    for level in levels:
        engine_class(level)
    if solver != "anderson" and STEADY not in levels:
        raise NeurosimError(
            f"solver = '{solver}' without the level {STEADY}, which alone solves for a fixed point. Leave one out."
        )
    states = [f"{p.name}.{x}" for p in plan.populations.values() for x in p.ode]
    record = list(dict.fromkeys([*states, *(record or ())]))
    fields = stimuli(circuit, images, labels)
    common: dict[str, Any] = dict(
        dt=dt, seed=seed, weights=weights, batch_size=batch_size, dtype="float64", device=device, codegen=codegen,
        progress=progress,
    )  # fmt: skip

    def run(level: str, learn: str, recorded: Sequence[str] = (), **changed: Any) -> Result:
        settings = {**common, **changed, "dtype": dtype if level.startswith("torch") else "float64"}
        kept = () if level == STEADY else recorded
        settings |= {"solver": solver} if level == STEADY else {}
        chosen = slice(None) if "samples" not in settings else slice(settings.pop("samples"))
        return simulate(
            settings.pop("circuit", circuit), None if images is None else images[chosen], None if labels is None else labels[chosen], level=level,
            plasticity=learn, record=kept, **settings,
        )  # fmt: skip

    if batch_size != 1 and "brian2:equations" in levels:
        raise NeurosimError(
            f"brian2:equations presents one sample at a time, the other levels batches of {batch_size}: their trials and "
            "weights would differ by design. Use --batch-size 1, or name levels without brian2:equations."
        )
    live = {level: run(level, plasticity, record) for level in levels}
    held = {level: run(level, "held" if plan.plastic() else "off") for level in levels}
    start = dict(weights) if weights is not None else circuit.initial_weights(seed)
    steps = max(r.steps for name, r in live.items() if name != STEADY) if set(levels) != {STEADY} else 0
    report: dict[str, Any] = {
        "model": circuit.name,
        "data": data if fields else "",
        "seed": seed,
        "samples": len(fields["image"]) if fields else batch_size,
        "batch_size": batch_size,
        "steps": steps,
        "dt": seconds(dt),
        "dtype": dtype,
        "levels": levels,
        "weight_change": {
            p.name: float(np.abs(live[levels[0]].weights[p.name] - start[p.name]).max()) for p in plan.plastic()
        },
        "pairs": [_pair(a, b, live, states) for a, b in combinations(levels, 2)],
        "settling": {level: result.settling for level, result in held.items()},
        "unsettled": {level: held[level].unsettled for level in levels if level == STEADY},
        "order": {level: None if level == STEADY else _order(circuit, run, level, states) for level in levels},
        "update_cosine": {
            level: cosines_with_gradient(circuit, start, held[level].collected, fields) for level in levels
        },
    }
    if predictions and circuit.readout is not None and circuit.readout.wanted == "target":
        report |= _predictions(levels, held, labels)
    traces = {level: result.traces for level, result in live.items() if result.traces is not None}
    ends = {level: result.ends for level, result in live.items() if level == STEADY}
    return Comparison(report, traces, ends)


def _pair(a: str, b: str, results: dict[str, Result], states: list[str]) -> dict[str, Any]:
    first, second = results[a], results[b]
    by_variable: dict[str, float] = {}
    for name in states:
        if STEADY in (a, b):
            gaps = [
                np.abs(first.ends[phase][name] - second.ends[phase][name]).max()
                for phase in first.ends if name in first.ends[phase]
            ]  # fmt: skip
        else:
            assert first.traces is not None and second.traces is not None
            gaps = [np.abs(first.traces[name] - second.traces[name]).max()]
        by_variable[name] = float(max(gaps, default=0.0))
    by_projection = {n: float(np.abs(first.weights[n] - second.weights[n]).max()) for n in first.weights}
    return {
        "a": a,
        "b": b,
        "max_abs_state": max(by_variable.values(), default=0.0),
        "max_abs_weight": max(by_projection.values(), default=0.0),
        "spike_times": _spike_gap(first, second),
        "by_variable": by_variable,
        "by_projection": by_projection,
    }


def _spike_gap(first: Result, second: Result) -> float | None:
    """Largest difference in s between the spike times of two runs; infinite where they have not the same spikes; None without
    spiking cells."""
    gaps = []
    for name, a in first.spikes.items():
        b = second.spikes[name]
        order = [np.lexsort((s.time, s.cell, s.sample)) for s in (a, b)]
        same = len(a.time) == len(b.time) and all(
            np.array_equal(getattr(a, n)[order[0]], getattr(b, n)[order[1]]) for n in ("cell", "sample")
        )
        gaps.append(float(np.abs(a.time[order[0]] - b.time[order[1]]).max(initial=0.0)) if same else float("inf"))
    return max(gaps, default=None)


def _order(circuit: Circuit, run: Any, level: str, states: list[str]) -> float | None:
    """Order of the Euler error: log2 of the ratio of differences at steps h, h/2, h/4, weights constant.

    h is a twentieth of the fastest time constant of a cell, or less, so that it divides every phase.
    """
    plan = circuit.plan
    if not states or any(p.noises or p.spiking for p in plan.populations.values()):
        return None  # another step is another noise; a spike moves by whole steps
    fastest = min(plan.time_constants(), default=None)
    if fastest is None:
        return None
    shortest = min(p.seconds for p in plan.phases)
    h = shortest / int(np.ceil(shortest / (fastest / 40)))
    # Of windows over labels one is enough.
    phases = tuple(replace(p, labels="true") if isinstance(p, Windows) else p for p in circuit.protocol.phases)
    short = (
        replace(circuit, protocol=replace(circuit.protocol, phases=phases))
        if phases != circuit.protocol.phases
        else circuit
    )
    runs = [
        run(
            level,
            "off",
            states,
            circuit=short,
            dt=f"{h / k!r}*second",
            stride=k,
            samples=1,
            batch_size=1,
            progress=False,
        ).traces
        for k in (1, 2, 4)
    ]
    gaps = [max(float(np.abs(a[n] - b[n]).max()) for n in states) for a, b in pairwise(runs)]
    return float(np.log2(gaps[0] / gaps[1])) if gaps[1] > 0 else None


def _predictions(levels: list[str], results: dict[str, Result], labels: Any) -> dict[str, Any]:
    answers = {level: results[level].readout.argmax(axis=1) for level in levels}  # type: ignore[union-attr]
    return {
        "accuracy": {level: float((answers[level] == np.asarray(labels)).mean()) for level in levels},
        "equal_predictions": {
            f"{a} | {b}": float((answers[a] == answers[b]).mean()) for a, b in combinations(levels, 2)
        },
    }


def _markdown(report: dict[str, Any]) -> str:
    number = "{:.2e}".format
    spiking = any(pair["spike_times"] is not None for pair in report["pairs"])
    lines = [
        f"# {report['model']}: levels compared",
        "",
        f"{report['samples']} samples{' of ' + report['data'] if report['data'] else ''}, batch {report['batch_size']}, seed {report['seed']}, "
        f"dt {report['dt'] * 1e3:g} ms, {report['steps']} steps, {report['dtype']}.",
        "",
        f"| levels | largest difference of states | of weights |{' of spike times |' if spiking else ''}",
        f"|---|---|---|{'---|' if spiking else ''}",
    ]
    for pair in report["pairs"]:
        note = " (phase ends)" if STEADY in (pair["a"], pair["b"]) else ""
        lines.append(
            f"| {pair['a']} / {pair['b']} | {number(pair['max_abs_state'])}{note} | {number(pair['max_abs_weight'])} |"
            + ("" if pair["spike_times"] is None else f" {pair['spike_times'] * 1e3:g} ms |")
        )
    change = ", ".join(f"{n} {number(v)}" for n, v in report["weight_change"].items())
    lines += ["", f"Weights moved by at most: {change or 'nothing is plastic'}.", ""]
    settling = {level: largest_by_phase(values) for level, values in report["settling"].items()}
    phases = list(next(iter(settling.values()), {}))
    projections = list(next(iter(report["update_cosine"].values()), {}))
    header = ["level", "order", *(f"settling: {p}" for p in phases), *(f"cosine: {p}" for p in projections)]
    lines += ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for level in report["levels"]:
        order = report["order"][level]
        row = [level, "-" if order is None else f"{order:.3f}"]
        row += [number(settling[level][p]) for p in phases]
        cosines = report["update_cosine"][level]
        row += ["-" if cosines[p] is None else f"{cosines[p]:.5f}" for p in projections]
        lines.append("| " + " | ".join(row) + " |")
    if "accuracy" in report:
        lines += ["", "| level | accuracy |", "|---|---|"]
        lines += [f"| {level} | {value:.4f} |" for level, value in report["accuracy"].items()]
        lines += ["", "| levels | equal predictions |", "|---|---|"]
        lines += [
            f"| {pair.replace(' | ', ' / ')} | {value:.4f} |" for pair, value in report["equal_predictions"].items()
        ]
    lines += [
        "",
        "States and weights: the run with plasticity. Settling (weights held): change of a state over the last tenth of the "
        "phase; at the steady level the residual of the fixed point. Order: of the Euler error, from three step sizes. "
        "Cosine: the change collected at held weights against minus the gradient of the mean loss.",
        "",
    ]
    return "\n".join(lines)


__all__ = ["Comparison", "compare"]
