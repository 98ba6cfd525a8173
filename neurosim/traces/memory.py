"""A recording that stays in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from neurosim.traces.layout import Layout, phase_columns, phase_spans
from neurosim.traces.spans import Spikes


class Memory:
    """Gathers rows in memory; the counterpart of `neurosim.traces.writer.TraceFile`."""

    def __init__(self, layout: Layout):
        self._layout = layout
        numbers, times = np.empty(0, dtype=np.int64), np.empty(0)
        empty = {"time": times, "weight_trials": numbers, **phase_columns([])}
        shapes = {name.replace(".", "/"): shape for name, shape in layout.variables.items()}
        shapes |= {f"weights/{name}": shape for name, shape in layout.weights.items()}
        empty |= {name: np.empty((0, *shape), layout.dtype) for name, shape in shapes.items()}
        if layout.spike_cells:
            empty["spikes_until"] = times
        for p in layout.spike_cells:
            columns = {"time": times, "sample": numbers, "cell": numbers}
            empty |= {f"spikes/{p}/{name}": column for name, column in columns.items()}
        self._parts = {name: [column] for name, column in empty.items()}

    def grow(self, columns: Mapping[str, np.ndarray]) -> None:
        for name, rows in columns.items():
            if len(rows):
                self._parts[name].append(rows.copy())

    def replace_last(self, name: str, value: Any) -> None:
        self._parts[name][-1][-1] = value

    def close(self) -> None:
        pass

    def fields(self) -> dict[str, Any]:
        """What was gathered by now, as the fields of `Traces`."""
        whole = {name: np.concatenate(parts) for name, parts in self._parts.items()}
        layout, until = self._layout, whole.get("spikes_until", np.empty(0))
        spikes = {}
        for p in layout.spike_cells:
            columns = (whole[f"spikes/{p}/{name}"] for name in ("time", "sample", "cell"))
            spikes[p] = Spikes(*columns)
        return {
            "time": whole["time"],
            "values": {name: whole[name.replace(".", "/")] for name in layout.variables},
            "units": dict(layout.units),
            "phases": phase_spans(*(whole[name] for name in phase_columns([]))),
            "metadata": dict(layout.metadata),
            "spikes": spikes,
            "cells": dict(layout.cells),
            "weights": {name: whole[f"weights/{name}"] for name in layout.weights},
            "weight_trials": whole["weight_trials"],
            "spike_cells": {p: np.asarray(k) for p, k in layout.spike_cells.items() if len(k)},
            "spike_span": (0.0, float(until[-1])) if len(until) else None,
        }
