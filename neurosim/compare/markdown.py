"""The report of a comparison as tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from neurosim import escape
from neurosim.backends import STEADY
from neurosim.backends.result import largest_by_phase
from neurosim.describe.quantities import unit as shown_unit

#: The table of states has at most so many rows.
MOST_STATES = 12
#: A smaller share, in percent, is the round-off of float64, and its digits say nothing.
ROUND_OFF = 1e-9


_LEGEND = (
    "States and weights: the run with plasticity; in brackets the share of how far the weights "
    "moved, or of the state's largest absolute value, both on the first level. Settling (weights "
    "held): change of a state over the last tenth of the phase, the state that changed most and "
    "the share of its range in this run; at the steady level the residual of the fixed point. "
    "Order: of the Euler error, from three step sizes. Cosine: the change collected at held "
    "weights against minus the gradient of the mean loss."
)


def as_markdown(report: dict[str, Any]) -> str:
    """The text of a comparison's report."""
    samples = f"{report['samples']} samples"
    if report["data"]:
        samples += f" of {escape.markdown(report['data'])}"
    lines = [
        f"# {escape.markdown(report['model'])}: levels compared",
        "",
        f"{samples}, batch {report['batch_size']}, seed {report['seed']}, "
        f"dt {report['dt'] * 1e3:g} ms, {report['steps']} steps, {report['dtype']}.",
        "",
    ]
    for level, why in report.get("left_out", {}).items():
        lines += [f"Left out: {level}: {why.rstrip('.')}.", ""]
    lines += [*_pair_table(report), ""] if report["pairs"] else []
    lines += [*_unsettled(report), *_weight_table(report), ""]
    lines += [*_state_table(report), *_settling_table(report), *_order_table(report)]
    if "accuracy" in report:
        rows = [[level, f"{value:.4f}"] for level, value in report["accuracy"].items()]
        lines += ["", *_table(["level", "accuracy"], rows)]
        equal = report["equal_predictions"].items()
        rows = [[pair.replace(" | ", " / "), f"{value:.4f}"] for pair, value in equal]
        lines += ["", *_table(["levels", "equal predictions"], rows)]
    return "\n".join([*lines, "", _LEGEND, ""])


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
        row = [
            f"{pair['a']} / {pair['b']}",
            f"{pair['max_abs_state']:.2e}{note}",
            f"{pair['max_abs_weight']:.2e}",
        ]
        rows.append(
            row + ([] if pair["spike_times"] is None else [f"{pair['spike_times'] * 1e3:g} ms"]),
        )
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
    """How far weights moved on the first level, and the share of that in the differences."""
    changes, pairs = report["weight_change"], _with_first(report)
    if not changes:
        return ["Nothing is plastic."]
    if not any(changes.values()) and not any(pair["max_abs_weight"] for pair in pairs):
        return ["No weight moved."]
    rows = []
    for name, change in changes.items():
        gaps = [_with_share(pair["by_projection"][name], change) for pair in pairs]
        rows.append([name, _symbol(report, name), f"{change:.2e}", *gaps])
    return _table(
        ["weights", "unit", "moved by at most", *(f"{p['a']} / {p['b']}" for p in pairs)],
        rows,
    )


def _state_table(report: dict[str, Any]) -> list[str]:
    """Differences of the other levels from the first, by variable.

    Shown are those with the largest shares, in the circuit's order.
    """
    pairs, largest = _with_first(report), report["largest_value"]
    if not largest:
        return []

    def worst(name: str) -> float:
        return max(
            (_share(pair["by_variable"][name], largest[name]) for pair in pairs),
            default=0.0,
        )

    kept = sorted(largest, key=worst, reverse=True)[:MOST_STATES]
    rows = []
    for name in (name for name in largest if name in kept):
        gaps = [_with_share(pair["by_variable"][name], largest[name]) for pair in pairs]
        rows.append([name, _symbol(report, name), f"{largest[name]:.2e}", *gaps])
    ends = [" (phase ends)" if STEADY in (p["a"], p["b"]) else "" for p in pairs]
    header = [
        "state",
        "unit",
        "largest value",
        *(f"{p['a']} / {p['b']}{e}" for p, e in zip(pairs, ends, strict=True)),
    ]
    left = len(largest) - len(kept)
    more = f"{left} more state{'s' if left > 1 else ''}"
    note = f"{more} with smaller shares: `by_variable` in report.json."
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


def _order_table(report: dict[str, Any]) -> list[str]:
    """Order of the Euler error and cosines with the gradient, by level."""
    projections = list(next(iter(report["update_cosine"].values()), {}))
    rows = []
    for level in report["levels"]:
        order, cosines = report["order"][level], report["update_cosine"][level]
        row = [level, "-" if order is None else f"{order:.3f}"]
        rows.append(row + ["-" if cosines[p] is None else f"{cosines[p]:.5f}" for p in projections])
    return _table(["level", "order", *(f"cosine: {p}" for p in projections)], rows)


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
