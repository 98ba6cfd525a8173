"""The time axis that figures of traces share: which trials are drawn, phases shaded and named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.textpath import TextPath

from neurosim.plot.style import GREY, SHADES, WIDTH, plain
from neurosim.traces import PhaseSpan, Traces
from neurosim.traces.spans import INSTANT, base

#: Trials that are shown; more would hide what happens within one.
TRIALS = 2


class Window(NamedTuple):
    """The part of the time axis that is drawn."""

    keep: slice
    spans: list[PhaseSpan]
    shades: dict[str, str]
    limits: tuple[float, float]  # seconds
    breaks: np.ndarray  # rows where another trial begins: states jump there, and a line would cross the panel
    note: str

    def cut(self, values: np.ndarray) -> np.ndarray:
        """The rows that `read` gives, with a row of NaN between trials."""
        return np.insert(np.asarray(values, dtype=float), self.breaks, np.nan, axis=0)


def read(traces: Traces, name: str, rows: slice, sample: int, columns: Sequence[int]) -> np.ndarray:
    """(rows, columns) of a variable as floats; only these are read, and in the order of the file."""
    unique, place = np.unique(np.asarray(columns, dtype=int), return_inverse=True)
    return np.asarray(traces.values[name][rows, sample, unique], dtype=float)[:, place]


def window_of(traces: Traces) -> Window:
    """The first trials that hold a row, and the shade of each phase: the same name, the same shade; windows (``settle[0]``, ...) by what is
    repeated."""
    recorded = recorded_spans(traces)
    names = list(dict.fromkeys(base(p.name) for p in recorded))
    shades = {name: SHADES[k if k < len(SHADES) else 1 + k % (len(SHADES) - 1)] for k, name in enumerate(names)}
    time, trials = np.asarray(traces.time), list(dict.fromkeys(p.trial for p in recorded))
    count, spans, note = len(time), recorded, ""
    step = float(np.median(np.diff(time))) if len(time) > 1 else 1e-3
    stop = max((p.stop for p in spans), default=time[-1] + step)
    held = list(dict.fromkeys(p.trial for p in spans if p.stop > time[0] + INSTANT))
    shown = held[: 1 if _gap_before(recorded, held[1:]) else TRIALS]
    if len(trials) > len(shown):
        spans = [p for p in recorded if p.trial in shown]
        stop = max(p.stop for p in spans)
        count = int(np.searchsorted(time, stop - INSTANT))
        first = f"first {len(shown)}" if len(shown) > 1 else "first"
        note = f"{first} of {len(trials)} trials" if held == trials else f"{first} with a row of {len(trials)} trials"
    starts = [b.start for a, b in pairwise(spans) if a.trial != b.trial or b.start - a.stop > INSTANT]
    breaks = np.searchsorted(time[:count], np.array(starts) - INSTANT)
    start = min([time[0], *(p.start for p in spans)])  # the steady level has a row at the end of each phase
    return Window(slice(0, count), spans, shades, (float(start), float(stop)), breaks, note)


def recorded_spans(traces: Traces) -> list[PhaseSpan]:
    """The phases as far as they were recorded.

    A recording that goes on, or whose writer was killed, names the phase that it was in as a whole; here
    that phase ends where the first row is missing.
    """
    time, spans = np.asarray(traces.time), list(traces.phases)
    step = float(np.diff(time).min()) if len(time) > 1 else 0.0
    if not step > 0:
        return spans
    # Rows lie a multiple of the step apart, so those that would follow the last one are known.
    missing = []
    for span in spans:
        row = time[-1] + step * max(1.0, np.ceil((span.start - time[-1] - INSTANT) / step))
        if row < span.stop - INSTANT:
            missing.append(float(row))
    end = min(missing, default=np.inf)
    return [replace(span, stop=min(span.stop, end)) for span in spans if span.start < end - INSTANT]


def stretches(spans: Sequence[PhaseSpan], limits: tuple[float, float]) -> list[tuple[float, float]]:
    """What of the time between the limits (s) was recorded: phases that touch are one stretch; all of it without phases."""
    found: list[tuple[float, float]] = []
    for start, stop in sorted((max(p.start, limits[0]), min(p.stop, limits[1])) for p in spans):
        if stop - start < INSTANT:
            continue
        if found and start <= found[-1][1] + INSTANT:
            found[-1] = found[-1][0], max(stop, found[-1][1])
        else:
            found.append((start, stop))
    return found if spans else [limits]


def _gap_before(spans: Sequence[PhaseSpan], trials: list[int]) -> bool:
    """Whether time was left out before the first of the trials."""
    if not trials:
        return False
    start = min(p.start for p in spans if p.trial == trials[0])
    before = max(p.stop for p in spans if p.trial != trials[0] and p.start < start)
    return start - before > INSTANT


def time_axis(panels: Sequence[Axes], window: Window) -> None:
    panels[-1].set_xlabel("time (ms)")
    panels[-1].set_xlim(window.limits[0] * 1e3, window.limits[1] * 1e3)
    for axes in panels[:-1]:
        axes.tick_params(labelbottom=False)


def shade(axes: Axes, window: Window) -> None:
    for span in window.spans:
        axes.axvspan(span.start * 1e3, span.stop * 1e3, color=window.shades[base(span.name)], linewidth=0, zorder=0)
    for before, after in pairwise(window.spans):
        if before.trial != after.trial:
            axes.axvline(after.start * 1e3, color=GREY, linewidth=0.8, zorder=1)
        elif _number(before) != _number(after):
            axes.axvline(after.start * 1e3, color=GREY, linewidth=0.5, linestyle=":", zorder=1)


def _number(span: PhaseSpan) -> str:
    """``[3]`` of ``settle[3]``."""
    return span.name.removeprefix(base(span.name))


def name_phases(axes: Axes, window: Window) -> None:
    """Write each phase's name once, above its first span; a name that has no room goes a row higher.

    Of phases in windows, the number of each window stands above it, and over these the names of its phases on their shades.
    """
    low, high = window.limits
    scale = 0.68 * WIDTH * 72 / (high - low)  # points per second; the panel takes about this share of the width
    if any(_number(span) for span in window.spans):
        _name_windows(axes, window, scale)
        return
    taken: list[float] = []  # per row, where its last name ends
    first = {span.name: span for span in reversed(window.spans)}
    for span in sorted(first.values(), key=lambda p: p.start):
        start, stop = max(span.start, low), min(span.stop, high)
        if start >= stop:
            continue
        centre = 0.5 * (start + stop)
        half = 0.5 * _width(plain(span.name), 9) + 3
        middle = (centre - low) * scale
        fits = 2 * half <= (stop - start) * scale
        row = next((r for r, end in enumerate(taken) if end <= middle - half), len(taken))
        taken[row : row + 1] = [middle + half]
        axes.annotate(
            plain(span.name),
            xy=(centre * 1e3, 1.0),
            xycoords=axes.get_xaxis_transform(),
            xytext=(0, 4 + 13 * row),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=9,
            color=GREY,
            annotation_clip=False,
            arrowprops=None if fits and not row else {"arrowstyle": "-", "color": GREY, "linewidth": 0.6, "shrinkB": 0},
        )


def _name_windows(axes: Axes, window: Window, scale: float) -> None:
    low, high = window.limits
    numbered: dict[tuple[int, str], list[PhaseSpan]] = {}
    for span in window.spans:
        if _number(span):
            numbered.setdefault((span.trial, _number(span)), []).append(span)
    end = -np.inf
    for k, ((_, number), spans) in enumerate(numbered.items()):
        middle = 0.5 * (max(spans[0].start, low) + min(spans[-1].stop, high))
        text = number.strip("[]") if k else f"k = {number.strip('[]')}"
        half = 0.5 * _width(text, 8) + 2
        if (middle - low) * scale - half < end:
            continue
        end = (middle - low) * scale + half
        axes.annotate(
            text, (middle * 1e3, 1.0), (0, 3), xycoords=axes.get_xaxis_transform(), textcoords="offset points", ha="center", va="bottom",
            fontsize=8, color=GREY, annotation_clip=False,
        )  # fmt: skip
    x = 2.0
    for span in _first(window.spans):
        name = plain(base(span.name)) + ("[k]" if _number(span) else "")
        axes.annotate(
            name, (0.0, 1.0), (x, 19), xycoords="axes fraction", textcoords="offset points", ha="left", va="bottom", fontsize=9, color=GREY,
            annotation_clip=False,
            bbox={"facecolor": window.shades[base(span.name)], "edgecolor": "#BBBBBB", "linewidth": 0.6, "boxstyle": "square,pad=0.15"},
        )  # fmt: skip
        x += _width(name, 9) + 14


def _first(spans: Sequence[PhaseSpan]) -> list[PhaseSpan]:
    """The first span of each phase, windows as one."""
    found: dict[str, PhaseSpan] = {}
    for span in spans:
        found.setdefault(base(span.name), span)
    return list(found.values())


def _width(text: str, size: float) -> float:
    """Points."""
    return float(TextPath((0, 0), text, size=size).get_extents().width)
