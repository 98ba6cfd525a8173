"""Traces as CSV: one wide table of the variables, and tables of phases and spikes beside it."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from neurosim.errors import NeurosimError
from neurosim.escape import csv_cell
from neurosim.export.layout import require_content, require_folder
from neurosim.files import check_replaceable, user_path, whole_file
from neurosim.traces import Traces
from neurosim.traces.stored import BLOCK


def tables(traces: Traces, path: str | os.PathLike[str]) -> dict[str, Path]:
    """The files that `to_csv` writes: ``values``, ``phases`` and, of circuits that spike, ``spikes``."""
    path = user_path(path)
    parts = ("phases", "spikes") if traces.spikes else ("phases",)
    return {"values": path, **{part: _beside(path, part) for part in parts}}


def _beside(path: Path, part: str) -> Path:
    return path.with_name(f"{path.stem}.{part}.csv")


def to_csv(traces: Traces, path: str | os.PathLike[str]) -> list[Path]:
    """Write the variables to one table, a row per recorded time; phases and spikes go to tables beside it.

    ``traces.csv`` has the columns ``time (s)`` and one per variable and cell with its unit, ``pyr1.u[3] (volt)``;
    with several samples in the batch ``pyr1.u[3] sample 1 (volt)``. Numbers are written so that they are read back
    exactly. ``traces.phases.csv`` has ``phase, trial, start (s), stop (s)`` (``start <= t < stop``),
    ``traces.spikes.csv`` ``population, cell, sample, time (s)``. Weights and metadata are not written; NWB and Neo
    keep them.

    Parameters
    ----------
    traces
        What was recorded. Values that lie in a file are read block by block.
    path
        The wide table, ending in ``.csv``. Those files that are returned replace earlier ones, each complete or not at
        all; others are left alone.

    Returns
    -------
    list
        The files that were written.

    Raises
    ------
    NeurosimError
        Empty traces, traces of weights alone, another suffix, or a folder that does not exist; a ``traces.spikes.csv``
        that is there while the traces have no spikes, which would seem to be theirs.
    """
    path = user_path(path)
    if path.suffix.lower() != ".csv":
        raise NeurosimError(f"Cannot write a table as '{path}'; wanted a name that ends in .csv.")
    require_content(traces)
    if not traces.values and not traces.spikes:
        raise NeurosimError(
            "Only weights were recorded, and CSV holds none; write .nwb, or use neurosim.export.to_neo."
        )
    require_folder(path)
    files = tables(traces, path)
    for file in files.values():
        check_replaceable(file)
    if not traces.spikes and (other := _beside(path, "spikes")).exists():
        raise NeurosimError(
            f"There is '{other}', but these traces have no spikes: it would seem to be of them. Move or remove it, or write "
            "to another name."
        )
    _write(files["values"], ["time (s)", *_columns(traces)], _rows(traces))
    _write(
        files["phases"],
        ["phase", "trial", "start (s)", "stop (s)"],
        ((csv_cell(span.name), span.trial, span.start, span.stop) for span in traces.phases),
    )
    if traces.spikes:
        _write(files["spikes"], ["population", "cell", "sample", "time (s)"], _spikes(traces))
    return list(files.values())


def _columns(traces: Traces) -> Iterator[str]:
    for name, values in traces.values.items():
        cells = traces.cells_of(name.partition(".")[0])
        for sample in range(values.shape[1]):
            which = f" sample {sample}" if values.shape[1] > 1 else ""
            yield from (f"{name}[{cell}]{which} ({traces.units[name]})" for cell in cells)


def _rows(traces: Traces) -> Iterator[Sequence[str]]:
    columns = sum(int(np.prod(values.shape[1:])) for values in traces.values.values())
    step = max(1, BLOCK // (128 * (1 + columns)))  # a number as text takes NumPy 128 bytes
    for start in range(0, len(traces.time), step):
        rows = slice(start, start + step)
        blocks = [np.asarray(traces.time[rows])[:, None]]
        blocks += [np.asarray(values[rows]).reshape(len(blocks[0]), -1) for values in traces.values.values()]
        # The shortest text that reads back to the same number, of float32 as of float64.
        yield from np.concatenate([block.astype(str) for block in blocks], axis=1).tolist()


def _spikes(traces: Traces) -> Iterator[tuple[object, int, int, float]]:
    for population, spikes in traces.spikes.items():
        for cell, sample, time in zip(spikes.cell, spikes.sample, spikes.time, strict=True):
            yield csv_cell(population), int(cell), int(sample), float(time)


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with whole_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(map(csv_cell, header))
        writer.writerows(rows)
