"""Are the levels of one circuit the same? Trajectories, weights, fixed points, order of the error, update against gradient."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from neurosim import escape
from neurosim.backends import DTYPES, LEVELS, SOLVERS, STEADY, TARGETS, engine_class
from neurosim.backends.result import Result, ResultBuilder, largest_by_phase
from neurosim.backends.settings import own_settings
from neurosim.checks import Array, Count, In, PositiveTime, Seed, checked
from neurosim.circuit import Circuit, GivenCircuit
from neurosim.describe.quantities import unit as shown_unit
from neurosim.description import Windows
from neurosim.equations import seconds, unit_text
from neurosim.errors import NeurosimError, UnsupportedError, check_list
from neurosim.files import user_path, write_whole
from neurosim.plan import Plan
from neurosim.simulation import PLASTICITY, simulate, stimuli
from neurosim.traces import Traces

#: The table of states has at most so many rows.
MOST_STATES = 12
#: A smaller share, in percent, is the round-off of float64, and its digits say nothing.
ROUND_OFF = 1e-9


@dataclass
class Comparison:
    """A comparison of levels.

    `report` is what ``report.json`` holds (times in seconds); `traces` and `ends` are what the figure shows.
    """

    report: dict[str, Any]
    traces: dict[str, Any] = field(default_factory=dict)
    ends: dict[str, Any] = field(default_factory=dict)

    def markdown(self) -> str:
        """The report as tables a person reads."""
        return _markdown(self.report)

    def _repr_markdown_(self) -> str:
        """What a notebook shows."""
        return self.markdown()

    def save(self, folder: str | Path) -> list[Path]:
        """Write ``report.md``, ``report.json`` and ``traces.png`` into a folder, which is made where it is missing."""
        from neurosim.plot import save_comparison, save_traces

        folder = user_path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / "report.md", folder / "report.json"]
        write_whole(paths[0], self.markdown().encode())
        write_whole(paths[1], (json.dumps(self.report, indent=2) + "\n").encode())
        if self.traces:
            paths.append(folder / "traces.png")
            if len(self.traces) + len(self.ends) > 1:
                save_comparison(self.traces, paths[-1], ends=self.ends)
            else:
                save_traces(next(iter(self.traces.values())), paths[-1])
        return paths


@checked
@own_settings()
def compare(
    circuit: GivenCircuit,
    images: Any = None,
    labels: Any = None,
    *,
    levels: Sequence[str] | None = None,
    dt: PositiveTime | None = None,
    seed: Seed = 0,
    weights: Mapping[str, Array] | None = None,
    batch_size: Count = 1,
    plasticity: Annotated[str, In(PLASTICITY)] = "on",
    dtype: Annotated[str, In(DTYPES)] = "float64",
    device: str = "cpu",
    codegen: Annotated[str, In(TARGETS)] = "numpy",
    data: str = "",
    record: Sequence[str] | None = None,
    predictions: bool = False,
    solver: Annotated[str, In(SOLVERS)] = "anderson",
    progress: bool = True,
) -> Comparison:
    """Run a circuit on several levels and say in numbers how far they differ.

    Three runs per level: with plasticity as asked (states and weights compared with those of the other levels); with weights held
    (`settling`, and `update_cosine`: the collected change against minus the gradient of the mean loss); and, on
    trajectory levels, one stimulus at three step sizes (`order` of the Euler error, from the largest difference over
    the whole trajectory).

    Levels default to all that can run the circuit (no steady level for spiking or noisy cells); the report says which
    were left out and why. The other parameters are those of `simulate`; `record` chooses the variables of the figure
    (default: all states), `predictions` adds accuracies and the share of equal answers. Returns a `Comparison`.
    """
    from neurosim.analysis.reference import cosines_with_gradient

    plan, dt = circuit.plan, dt or circuit.protocol.dt
    levels, left_out = choose_levels(plan, levels)
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
    held: dict[str, Result] = {}
    moved: dict[str, dict[str, dict[str, float]]] = {}
    ranges: dict[str, dict[str, float]] = {}
    for level in levels:
        held[level] = run(level, "held" if plan.plastic() else "off", states)
        traces = held[level].traces
        if level != STEADY and traces is not None:
            moved[level] = _settling(traces, states, seconds(dt))
            ranges[level] = {name: float(np.ptp(traces[name])) for name in states}
            held[level].traces = None  # type: ignore[assignment] # of all samples and steps: one level at a time
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
        "left_out": left_out,
        "weight_change": {
            p.name: float(np.abs(live[levels[0]].weights[p.name] - start[p.name]).max()) for p in plan.plastic()
        },
        "largest_value": {name: _largest(live[levels[0]], name) for name in states},
        "units": {f"{p.name}.{x}": unit_text(p.dimensions[x]) for p in plan.populations.values() for x in p.ode}
        | {name: unit_text(plan.projections[name].weight_dimension) for name in live[levels[0]].weights},
        "pairs": [_pair(a, b, live, states) for a, b in combinations(levels, 2)],
        "settling": {level: result.settling for level, result in held.items()},
        "settling_by_variable": moved,
        "range": ranges,
        "unsettled": {level: held[level].unsettled for level in levels if level == STEADY},
        "unstable": {level: held[level].unstable for level in levels if level == STEADY},
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


def _settling(traces: Traces, states: list[str], dt: float) -> dict[str, dict[str, float]]:
    """``{phase: {variable: number}}``: `Result.settling` of each variable, from traces of all steps."""
    found: dict[str, dict[str, float]] = {}
    row = 0
    for span in traces.phases:
        count = round((span.stop - span.start) / dt)
        mark, end = row + ResultBuilder.mark_step(count), row + count - 1
        row += count
        kept = found.setdefault(span.name, {})
        for name in states:
            kept[name] = max(kept.get(name, 0.0), float(np.abs(traces[name][end] - traces[name][mark]).max()))
    return found


def _largest(result: Result, name: str) -> float:
    """Largest absolute value of a variable over the run; on the steady level, at the ends of phases."""
    if result.level != STEADY and result.traces is not None:
        return float(np.abs(result.traces[name]).max())
    return max((float(np.abs(kept[name]).max()) for kept in result.ends.values() if name in kept), default=0.0)


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


def choose_levels(plan: Plan, levels: Sequence[str] | None = None) -> tuple[list[str], dict[str, str]]:
    """The levels to compare, each once, and why others are left out where none are named: ``{level: reason}``.

    One level alone is compared with nothing, but its update with the gradient.

    Raises
    ------
    NeurosimError
        An unknown level, or none that can run the circuit.
    """
    check_list("levels", levels)
    for level in levels or ():
        engine_class(level)
    reasons = {} if levels is not None else {level: _why_not(plan, level) for level in LEVELS}
    left_out = {level: reason for level, reason in reasons.items() if reason}
    chosen = [level for level in dict.fromkeys(LEVELS if levels is None else levels) if level not in left_out]
    if not chosen:
        others = "".join(f" Left out: {level}: {reason.rstrip('.')}." for level, reason in left_out.items())
        raise NeurosimError(f"Got no level to compare; expected at least one of: {', '.join(LEVELS)}.{others}")
    return chosen, left_out


def _why_not(plan: Plan, level: str) -> str:
    """Why a level is not compared unless it is named; empty where it is."""
    if level == STEADY and not plan.has_fixed_point:
        cells = plan.populations.values()
        found = {
            "spiking cells": any(p.spiking for p in cells),
            "noise": any(p.noises for p in cells),
            "equations that read the time": any(p.timed for p in cells),
            "states that outlive a trial": plan.memory is not None,
        }
        return f"there is no fixed point with {' and '.join(what for what, there in found.items() if there)}"
    try:
        plan.check_rules(level)
    except UnsupportedError as error:
        return str(error)
    return ""


def _predictions(levels: list[str], results: dict[str, Result], labels: Any) -> dict[str, Any]:
    answers = {level: results[level].readout.argmax(axis=1) for level in levels}  # type: ignore[union-attr]
    return {
        "accuracy": {level: float((answers[level] == np.asarray(labels)).mean()) for level in levels},
        "equal_predictions": {
            f"{a} | {b}": float((answers[a] == answers[b]).mean()) for a, b in combinations(levels, 2)
        },
    }


def _markdown(report: dict[str, Any]) -> str:
    lines = [
        f"# {escape.markdown(report['model'])}: levels compared",
        "",
        f"{report['samples']} samples{' of ' + escape.markdown(report['data']) if report['data'] else ''}, batch {report['batch_size']}, seed {report['seed']}, "
        f"dt {report['dt'] * 1e3:g} ms, {report['steps']} steps, {report['dtype']}.",
        "",
        *(
            line
            for level, why in report.get("left_out", {}).items()
            for line in (f"Left out: {level}: {why.rstrip('.')}.", "")
        ),
        *([*_pair_table(report), ""] if report["pairs"] else []),
        *_unsettled(report),
        *_weight_table(report),
        "",
        *_state_table(report),
        *_settling_table(report),
    ]
    projections = list(next(iter(report["update_cosine"].values()), {}))
    rows = []
    for level in report["levels"]:
        order, cosines = report["order"][level], report["update_cosine"][level]
        rows.append([level, "-" if order is None else f"{order:.3f}"])
        rows[-1] += ["-" if cosines[p] is None else f"{cosines[p]:.5f}" for p in projections]
    lines += _table(["level", "order", *(f"cosine: {p}" for p in projections)], rows)
    if "accuracy" in report:
        lines += ["", *_table(["level", "accuracy"], [[n, f"{v:.4f}"] for n, v in report["accuracy"].items()])]
        equal = [[pair.replace(" | ", " / "), f"{v:.4f}"] for pair, v in report["equal_predictions"].items()]
        lines += ["", *_table(["levels", "equal predictions"], equal)]
    lines += [
        "",
        "States and weights: the run with plasticity; in brackets the share of how far the weights moved, or of the state's largest "
        "absolute value, both on the first level. Settling (weights held): change of a state over the last tenth of the phase, the state "
        "that changed most and the share of its range in this run; at the steady level the residual of the fixed point. Order: of the "
        "Euler error, from three step sizes. Cosine: the change collected at held weights against minus the gradient of the mean loss.",
        "",
    ]
    return "\n".join(lines)


def _table(header: list[str], rows: list[list[str]]) -> list[str]:
    lines = [f"| {' | '.join(map(escape.markdown, row))} |" for row in [header, *rows]]
    return [lines[0], "|" + "---|" * len(header), *lines[1:]]


def _pair_table(report: dict[str, Any]) -> list[str]:
    pairs, units = report["pairs"], report["units"]
    spiking = any(pair["spike_times"] is not None for pair in pairs)

    def mixed(names: Iterable[str]) -> str:
        return " (mixed units)" if len({units[name] for name in names}) > 1 else ""

    states, weights = mixed(report["largest_value"]), mixed(report["weight_change"])
    header = ["levels", f"largest difference of states{states}", f"of weights{weights}"]
    rows = []
    for pair in pairs:
        note = " (phase ends)" if STEADY in (pair["a"], pair["b"]) else ""
        row = [f"{pair['a']} / {pair['b']}", f"{pair['max_abs_state']:.2e}{note}", f"{pair['max_abs_weight']:.2e}"]
        rows.append(row + ([] if pair["spike_times"] is None else [f"{pair['spike_times'] * 1e3:g} ms"]))
    return _table(header + ["of spike times"] * spiking, rows)


def _unsettled(report: dict[str, Any]) -> list[str]:
    """A line where the steady level found no steady state, or one that no run in time reaches."""
    lines = []
    for level, count in report.get("unsettled", {}).items():
        unstable = report["unstable"][level]
        if count:
            lines += [
                f"{level}: {count} pairs of sample and phase did not settle"
                + (f", {unstable} of them at an unstable fixed point." if unstable else "."),
                "",
            ]
    return lines


def _weight_table(report: dict[str, Any]) -> list[str]:
    """How far weights moved on the first level, and what that is to its differences from the others."""
    if not report["weight_change"]:
        return ["Nothing is plastic."]
    pairs = _with_first(report)
    if not any(report["weight_change"].values()) and not any(pair["max_abs_weight"] for pair in pairs):
        return ["No weight moved."]
    rows = []
    for name, change in report["weight_change"].items():
        gaps = [_with_share(pair["by_projection"][name], change) for pair in pairs]
        rows.append([name, _symbol(report, name), f"{change:.2e}", *gaps])
    return _table(["weights", "unit", "moved by at most", *(f"{p['a']} / {p['b']}" for p in pairs)], rows)


def _state_table(report: dict[str, Any]) -> list[str]:
    """Differences of the other levels from the first, by variable; those with the largest shares, in the circuit's order."""
    pairs, largest = _with_first(report), report["largest_value"]
    if not largest:
        return []

    def worst(name: str) -> float:
        return max((_share(pair["by_variable"][name], largest[name]) for pair in pairs), default=0.0)

    kept = sorted(largest, key=worst, reverse=True)[:MOST_STATES]
    rows = []
    for name in (name for name in largest if name in kept):
        gaps = [_with_share(pair["by_variable"][name], largest[name]) for pair in pairs]
        rows.append([name, _symbol(report, name), f"{largest[name]:.2e}", *gaps])
    ends = [" (phase ends)" if STEADY in (p["a"], p["b"]) else "" for p in pairs]
    header = ["state", "unit", "largest value", *(f"{p['a']} / {p['b']}{e}" for p, e in zip(pairs, ends, strict=True))]
    left = len(largest) - len(kept)
    note = f"{left} more state{'s' if left > 1 else ''} with smaller shares: `by_variable` in report.json."
    return [*_table(header, rows), *(["", note] if left else []), ""]


def _settling_table(report: dict[str, Any]) -> list[str]:
    """The least settled variable of each unit: numbers of one unit alone can be compared."""
    total = {level: largest_by_phase(values) for level, values in report["settling"].items()}
    phases = list(next(iter(total.values()), {}))
    by_unit: dict[str, list[str]] = {}
    for name in report["largest_value"]:
        by_unit.setdefault(_symbol(report, name), []).append(name)
    if not phases or not by_unit:
        return []
    rows = []
    for level in report["levels"]:
        if level == STEADY:  # its residual is one number for all states
            unit = next(iter(by_unit)) if len(by_unit) == 1 else "mixed"
            rows.append([level, unit, *(f"{total[level][phase]:.2e}" for phase in phases)])
            continue
        by_phase, ranges = report["settling_by_variable"][level], report["range"][level]
        moved = {
            name: largest_by_phase({phase: values[name] for phase, values in by_phase.items()})
            for name in report["largest_value"]
        }
        for unit, names in by_unit.items():
            row = [level, unit]
            for phase in phases:
                most = max(moved[name][phase] for name in names)
                # Of equal ones the first, so that round-off does not choose another on each level.
                name = next(name for name in names if moved[name][phase] >= most * (1 - 1e-9))
                row.append(_with_share(most, ranges[name], f"{name}, "))
            rows.append(row)
    return [*_table(["level", "unit", *(f"settling: {phase}" for phase in phases)], rows), ""]


def _with_first(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The pairs [first level / each other level]."""
    return [pair for pair in report["pairs"] if pair["a"] == report["levels"][0]]


def _symbol(report: dict[str, Any], name: str) -> str:
    """The unit of a state or of weights as people write it: V, Hz, 1."""
    return shown_unit(report["units"][name]).plain


def _share(gap: float, whole: float) -> float:
    """Percent; infinite where there is a gap but no whole."""
    return 100 * gap / whole if whole else (np.inf if gap else 0.0)


def _with_share(gap: float, whole: float, what: str = "") -> str:
    """``3.90e-11 (33 %)``."""
    share = _share(gap, whole)
    if np.isinf(share):
        text = "of 0"
    elif share < ROUND_OFF:
        text = f"< {ROUND_OFF:.0e} %".replace("e-0", "e-")
    else:
        text = f"{share:.0f} %" if 99.5 <= share < 1e4 else f"{share:.2g} %"
    return f"{gap:.2e} ({what}{text})"


__all__ = ["Comparison", "compare"]
