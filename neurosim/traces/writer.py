"""Writing a file of traces (see `neurosim.traces.layout`).

A file is written in HDF5's single-writer-multiple-readers mode: its datasets only grow, and a
reader finds it whole at any moment, also after its writer was killed. HDF5 does not survive a full
disk, so room is reserved on the disk before the file grows.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from neurosim.errors import NeurosimError, StoppedError
from neurosim.files import FULL, check_replaceable, meant, reserve, whole_file, write_whole
from neurosim.traces import contained, reader
from neurosim.traces.layout import FORMAT, RESERVED, SIGNATURE, Layout, phase_columns, population_of
from neurosim.traces.stored import blocks

if TYPE_CHECKING:
    from neurosim.traces.traces import Traces

#: Bytes of a chunk: what is read at least, and the room that a short recording takes.
CHUNK = 64 * 1024
#: The same for what is short as a rule: phases, spikes.
SHORT = 4 * 1024
#: Bytes of HDF5's own that one growth may add.
OWN = 32 * 1024


class TraceFile:
    """A file of traces that grows.

    Raises
    ------
    NeurosimError
        From `grow`: the disk is full. What was written before stays readable.
    """

    def __init__(self, path: Path, layout: Layout):
        _check_path(path, layout)
        empty = io.BytesIO()
        with h5py.File(empty, "w", libver="latest", track_order=True) as file:
            names = _describe(file, layout)
        try:
            write_whole(path, empty.getbuffer())  # an earlier file goes once this one is there
        except OSError as error:
            mend = "Give another path."
            if error.errno in FULL:
                mend = "Free some space, or give another path."
            raise StoppedError(
                f"Cannot record to '{meant(path)}': {error.strerror}. {mend}",
            ) from error
        self._file = h5py.File(path, "r+", libver="latest")
        self._file.swmr_mode = True
        self._descriptor = os.open(path, os.O_RDWR)
        self._datasets: dict[str, Any] = {name: self._file[name] for name in names}
        self.lengths = dict.fromkeys(names, 0)
        self.shapes = {name: data.shape[1:] for name, data in self._datasets.items()}
        self.path = path

    def grow(self, columns: Mapping[str, np.ndarray]) -> None:
        """Append rows to datasets (by their names in the file), and flush: readers see them now."""
        columns = {name: rows for name, rows in columns.items() if len(rows)}
        if not columns:
            return
        self._reserve(columns)
        for name, rows in columns.items():
            data, before = self._datasets[name], self.lengths[name]
            data.resize(before + len(rows), axis=0)
            data[before:] = rows
            self.lengths[name] = before + len(rows)
        self._file.flush()

    def replace_last(self, name: str, value: Any) -> None:
        """Put another value at the end of a dataset."""
        self._datasets[name][self.lengths[name] - 1] = value

    def _reserve(self, columns: Mapping[str, np.ndarray]) -> None:
        """Reserve disk space for the next growth: HDF5 would crash on a full disk."""
        needed = OWN * len(columns)
        for name, rows in columns.items():
            data, before = self._datasets[name], self.lengths[name]
            each = data.chunks[0]
            more = -(-(before + len(rows)) // each) - -(-before // each)  # chunks
            needed += more * int(np.prod(data.chunks)) * data.dtype.itemsize
        try:
            reserve(self._descriptor, self._file.id.get_filesize(), needed)
        except OSError as error:
            rows = f" Its {self.lengths['time']} rows can be read." if self.lengths["time"] else ""
            raise StoppedError(
                f"The recording '{meant(self.path)}' cannot grow: {error.strerror}.{rows} Free "
                "some space, or record less: fewer variables, cells or phases, a larger stride."
            ) from error

    def fields(self) -> dict[str, Any]:
        """What the file holds by now, as the fields of `Traces`."""
        return reader.fields(self._file, self.path)

    def close(self) -> None:
        size = self._file.id.get_filesize()
        self._file.close()
        with contextlib.suppress(OSError):
            if os.fstat(self._descriptor).st_size > size:  # room that was reserved and not used
                os.ftruncate(self._descriptor, size)
        os.close(self._descriptor)


def _check_path(path: Path, layout: Layout) -> None:
    for population in dict.fromkeys(map(population_of, layout.variables)):
        if population in RESERVED:
            raise NeurosimError(
                f"A population called '{population}' cannot be recorded to a file, which uses that "
                "name itself; call it otherwise."
            )
    if path.is_dir():
        raise NeurosimError(f"Cannot record to '{path}': it is a folder. Give a file.")
    if path.is_file() and not _replaceable(path):
        raise NeurosimError(
            f"Cannot record to '{path}': it is there and is no recording. Give another path.",
        )
    if not path.parent.is_dir():
        raise NeurosimError(
            f"Cannot record to '{path}': there is no folder '{path.parent}'. Create it first.",
        )


def _replaceable(path: Path) -> bool:
    """Whether a file is a recording, or as empty as one that was just begun."""
    with path.open("rb") as file:
        head = file.read(len(SIGNATURE))
    return head in (b"", SIGNATURE)


def _describe(file: h5py.File, layout: Layout) -> list[str]:
    """Make the attributes and empty datasets of a file; returns the names of the datasets."""
    names: list[str] = []

    def make(name: str, shape: tuple[int, ...], kind: str, chunk: int = CHUNK) -> h5py.Dataset:
        each = max(1, chunk // max(int(np.prod(shape, dtype=int)) * np.dtype(kind).itemsize, 1))
        names.append(name)
        grows, chunks = (None, *shape), (each, *shape)
        return file.create_dataset(name, (0, *shape), kind, maxshape=grows, chunks=chunks)

    for key, value in layout.metadata.items():
        file.attrs[key] = value if isinstance(value, (int, float, str)) else json.dumps(value)
    file.attrs["format"] = FORMAT
    file.attrs["metadata"] = json.dumps(layout.metadata)
    groups = [*map(population_of, layout.variables), "phases", "spikes", "weights"]
    for group in dict.fromkeys(groups):
        file.create_group(group, track_order=True)
    for population in layout.spike_cells:
        file.create_group(f"spikes/{population}")
    make("time", (), "f8").attrs["unit"] = "s"
    for name, shape in layout.variables.items():
        population, _, variable = name.partition(".")
        data = make(f"{population}/{variable}", shape, layout.dtype)
        data.attrs["unit"] = layout.units[name]
        data.attrs["population"] = population
        data.attrs["axes"] = "time, sample of the batch, cell"
        data.attrs["indices"] = layout.cells.get(population, np.arange(shape[-1]))
        data.attrs["all"] = population not in layout.cells
    longest = max((len(name.encode()) for name in layout.phases), default=1)
    for name, kind in (("name", f"S{longest}"), ("trial", "i8"), ("start", "f8"), ("stop", "f8")):
        make(f"phases/{name}", (), kind, SHORT)
    for population, cells in layout.spike_cells.items():
        make(f"spikes/{population}/time", (), "f8", SHORT).attrs["unit"] = "s"
        for name in ("sample", "cell"):
            make(f"spikes/{population}/{name}", (), "i8", SHORT)
        if len(cells):
            file["spikes"][population].attrs["indices"] = cells  # type: ignore[index]
    if layout.spike_cells:
        make("spikes_until", (), "f8", SHORT).attrs["unit"] = "s"
    make("weight_trials", (), "i8", SHORT)
    for name, shape in layout.weights.items():
        make(f"weights/{name}", shape, layout.dtype).attrs["unit"] = layout.units.get(name, "1")
    return names


def save(traces: Traces, path: Path) -> Path:
    """See `Traces.save`."""
    check_replaceable(path, ".h5")
    layout, values = _layout_of(traces), traces.values
    with whole_file(path) as temporary, contextlib.closing(TraceFile(temporary, layout)) as file:
        for rows in blocks(len(traces.time), *values.values()):
            columns = {name.replace(".", "/"): values[name][rows] for name in values}
            file.grow({"time": traces.time[rows], **columns})
        for k in range(len(traces.weight_trials)):
            file.grow({f"weights/{name}": w[k : k + 1] for name, w in traces.weights.items()})
        file.grow({"weight_trials": traces.weight_trials} | phase_columns(traces.phases))
        if traces.spikes and traces.spike_span is not None:
            file.grow({"spikes_until": np.array(traces.spike_span[1:])})
        for population, spikes in traces.spikes.items():
            columns = {"time": spikes.time, "sample": spikes.sample, "cell": spikes.cell}
            file.grow({f"spikes/{population}/{name}": rows for name, rows in columns.items()})
    return path


def _layout_of(traces: Traces) -> Layout:
    arrays = (*traces.values.values(), *traces.weights.values())
    kinds = {np.dtype(values.dtype) for values in arrays}
    none = np.empty(0, dtype=np.int64)
    return Layout(
        {name: tuple(values.shape[1:]) for name, values in traces.values.items()},
        traces.units,
        traces.cells,
        {p: np.asarray(traces.spike_cells.get(p, none)) for p in traces.spikes},
        {name: tuple(w.shape[1:]) for name, w in traces.weights.items()},
        str(np.result_type(*kinds)) if kinds else "float64",
        traces.metadata,
        [span.name for span in traces.phases],
    )


def copy_until(path: Path, lengths: Mapping[str, int], layout: Layout) -> TraceFile:
    """Open a recording to go on with: a new file in its place, with the first `lengths` rows of it.

    Parameters
    ----------
    path
        The recording.
    lengths
        Rows that are kept, by dataset.
    layout
        What the recording holds.

    Raises
    ------
    NeurosimError
        The old file lacks a dataset, or is shorter.
    """
    if not path.is_file():
        lost = f"The recording '{path}' is gone, and the run's checkpoint counts on it"
        raise NeurosimError(f"{lost}. Put it back to go on.")
    old = reader.opened(path)
    new = None
    try:
        with whole_file(path) as temporary:
            new = TraceFile(temporary, layout)
            for name, count in lengths.items():
                kept = old.get(name)
                fits = isinstance(kept, h5py.Dataset) and kept.shape[1:] == new.shapes.get(name)
                if not fits or contained.whole_rows(kept) < count:
                    raise NeurosimError(
                        f"'{path}' does not hold what its checkpoint counts ({count} rows of "
                        f"'{name}'). Put back the file that was there when the run was stopped."
                    )
                for rows in blocks(count, kept):
                    with reader.readable(path):
                        part = kept[rows]
                    new.grow({name: part})
    except BaseException:
        if new is not None:
            new.close()
        raise
    finally:
        old.close()
    new.path = path
    return new
