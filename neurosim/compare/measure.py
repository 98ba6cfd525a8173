"""How far the runs of the levels differ, in numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, pairwise
from typing import Any, NamedTuple

import numpy as np

from neurosim.backends import STEADY
from neurosim.backends.result import Result, ResultBuilder
from neurosim.compare.runs import Runs
from neurosim.equations import unit_text
from neurosim.plan import Plan
from neurosim.simulation import answering_circuit
from neurosim.traces import Spikes, Traces


class Held(NamedTuple):
    """A run with its weights held, and what its traces said of each variable.

    Traces of all samples and steps are large: those of one level at a time are kept.
    """

    result: Result
    settling: dict[str, dict[str, float]] | None  # {phase: {variable: number}}; None without traces
    ranges: dict[str, float] | None  # {variable: number}


def held_runs(runs: Runs, levels: Sequence[str], states: Sequence[str]) -> dict[str, Held]:
    """A run of each level with its weights held."""
    plasticity = "held" if runs.circuit.plan.plastic() else "off"
    found = {}
    for level in levels:
        result = runs.run(level, plasticity, states)
        moved = ranges = None
        if level != STEADY and result.traces is not None:
            moved = _settling(result.traces, states, runs.dt)
            ranges = {name: float(np.ptp(result.traces[name])) for name in states}
            result.traces = None  # type: ignore[assignment]
        found[level] = Held(result, moved, ranges)
    return found


def between_levels(
    plan: Plan, live: Mapping[str, Result], start: Mapping[str, np.ndarray], states: Sequence[str]
) -> dict[str, Any]:
    """Differences of each two levels in the runs with plasticity, and what to hold them against.

    `start` are the weights at the beginning.
    """
    first = next(iter(live.values()))
    plastic = [p.name for p, _ in plan.plastic()]
    return {
        "weight_change": {name: _gap(first.weights[name], start[name]) for name in plastic},
        "largest_value": {name: _largest(first, name) for name in states},
        "units": _units(plan, first.weights),
        "pairs": [_pair(a, b, live, states) for a, b in combinations(live, 2)],
    }


def within_levels(
    runs: Runs,
    held: Mapping[str, Held],
    start: Mapping[str, np.ndarray],
    stimuli: Mapping[str, np.ndarray],
    states: Sequence[str],
) -> dict[str, Any]:
    """What each level says of itself in the runs with weights held at `start`."""
    from neurosim.analysis.reference import cosines_with_gradient  # loads torch

    circuit = runs.circuit
    steady = {level: h.result for level, h in held.items() if level == STEADY}
    changes = {level: h.result.collected for level, h in held.items()}
    cosines = {n: cosines_with_gradient(circuit, start, c, stimuli) for n, c in changes.items()}
    return {
        "settling": {level: h.result.settling for level, h in held.items()},
        "settling_by_variable": {n: h.settling for n, h in held.items() if h.settling is not None},
        "range": {n: h.ranges for n, h in held.items() if h.ranges is not None},
        "unsettled": {level: result.unsettled for level, result in steady.items()},
        "unstable": {level: result.unstable for level, result in steady.items()},
        "order": {n: None if n == STEADY else _order(runs, n, states) for n in held},
        "update_cosine": cosines,
    }


def predictions_of(held: Mapping[str, Held], labels: Any) -> dict[str, Any]:
    """Accuracies, and the share of equal answers of each two levels."""
    answers = {}
    for level, (result, *_) in held.items():
        assert result.readout is not None
        answers[level] = result.readout.argmax(axis=1)
    equal = {(a, b): answers[a] == answers[b] for a, b in combinations(answers, 2)}
    return {
        "accuracy": {n: float((a == np.asarray(labels)).mean()) for n, a in answers.items()},
        "equal_predictions": {f"{a} | {b}": float(e.mean()) for (a, b), e in equal.items()},
    }


def _units(plan: Plan, projections: Iterable[str]) -> dict[str, str]:
    units = {}
    for p in plan.populations.values():
        units |= {f"{p.name}.{x}": unit_text(p.dimensions[x]) for x in p.ode}
    return units | {n: unit_text(plan.projections[n].weight_dimension) for n in projections}


def _gap(a: np.ndarray, b: np.ndarray) -> float:
    """Largest absolute difference of two arrays."""
    return float(np.abs(a - b).max())


def _settling(traces: Traces, states: Sequence[str], dt: float) -> dict[str, dict[str, float]]:
    """`Result.settling` of each variable, ``{phase: {variable: number}}``.

    The traces have to hold all steps.
    """
    found: dict[str, dict[str, float]] = {}
    row = 0
    for span in traces.phases:
        count = round((span.stop - span.start) / dt)
        mark, end = row + ResultBuilder.mark_step(count), row + count - 1
        row += count
        kept = found.setdefault(span.name, {})
        for name in states:
            change = _gap(traces[name][end], traces[name][mark])
            kept[name] = max(kept.get(name, 0.0), change)
    return found


def _largest(result: Result, name: str) -> float:
    """Largest absolute value of a variable over the run; on the steady level, at phase ends."""
    if result.level != STEADY and result.traces is not None:
        return float(np.abs(result.traces[name]).max())
    ends = [float(np.abs(kept[name]).max()) for kept in result.ends.values() if name in kept]
    return max(ends, default=0.0)


def _pair(a: str, b: str, results: Mapping[str, Result], states: Sequence[str]) -> dict[str, Any]:
    first, second = results[a], results[b]
    at_ends = STEADY in (a, b)
    by_variable = {name: _state_gap(first, second, name, at_ends) for name in states}
    weights = second.weights
    by_projection = {name: _gap(w, weights[name]) for name, w in first.weights.items()}
    return {
        "a": a,
        "b": b,
        "max_abs_state": max(by_variable.values(), default=0.0),
        "max_abs_weight": max(by_projection.values(), default=0.0),
        "spike_times": _spike_gap(first, second),
        "by_variable": by_variable,
        "by_projection": by_projection,
    }


def _state_gap(first: Result, second: Result, name: str, at_ends: bool) -> float:
    """Largest difference of a variable over the whole run, or at the ends of phases."""
    if not at_ends:
        assert first.traces is not None and second.traces is not None
        return _gap(first.traces[name], second.traces[name])
    shared = [phase for phase, kept in first.ends.items() if name in kept]
    gaps = (_gap(first.ends[phase][name], second.ends[phase][name]) for phase in shared)
    return max(gaps, default=0.0)


def _spike_gap(first: Result, second: Result) -> float | None:
    """Largest difference in s between the spike times of two runs.

    Infinite where the runs have different spikes; None without spiking cells.
    """
    gaps = []
    for name, spikes in first.spikes.items():
        a, b = _sorted(spikes), _sorted(second.spikes[name])
        same = np.array_equal(a.cell, b.cell) and np.array_equal(a.sample, b.sample)
        gaps.append(float(np.abs(a.time - b.time).max(initial=0.0)) if same else float("inf"))
    return max(gaps, default=None)


def _sorted(spikes: Spikes) -> Spikes:
    """By sample, cell and time."""
    order = np.lexsort((spikes.time, spikes.cell, spikes.sample))
    return Spikes(spikes.time[order], spikes.sample[order], spikes.cell[order])


def _order(runs: Runs, level: str, states: Sequence[str]) -> float | None:
    """Order of the Euler error: log2 of the ratio of differences at steps h, h/2, h/4.

    Weights are constant. h is a twentieth of the fastest time constant of a cell, or less, so that
    it divides every phase.
    """
    plan = runs.circuit.plan
    if not states or any(p.noises or p.spiking for p in plan.populations.values()):
        return None  # another step is another noise; a spike moves by whole steps
    fastest = min(plan.time_constants(), default=None)
    if fastest is None:
        return None
    shortest = min(p.seconds for p in plan.phases)
    h = shortest / int(np.ceil(shortest / (fastest / 40)))
    circuit = answering_circuit(runs.circuit)  # of windows over labels one is enough
    traces = [runs.first(level, circuit, f"{h / k!r}*second", k, states).traces for k in (1, 2, 4)]
    gaps = [max(_gap(a[name], b[name]) for name in states) for a, b in pairwise(traces)]
    return float(np.log2(gaps[0] / gaps[1])) if gaps[1] > 0 else None
