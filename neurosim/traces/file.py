"""The HDF5 file of recorded traces.

Layout (version 3)::

    /                       format, metadata (JSON; each entry also as an attribute of its own)
    time                    (rows,) s
    POPULATION/VARIABLE     (rows, samples of the batch, cells); unit, population, axes, indices (numbers of the cells)
    phases/{name, trial, start, stop}
    spikes_until            (writings,) s: spikes were kept from 0 to the last of these
    spikes/POPULATION/{time, sample, cell}; indices (numbers of the cells whose spikes are kept)
    weights/PROJECTION      (snapshots, *shape)
    weight_trials           (snapshots,)

A file is written in HDF5's single-writer-multiple-readers mode: its datasets only grow, and a reader finds it whole at any moment, also after
its writer was killed. Before it grows, room is reserved on the disk: HDF5 does not survive a full disk, so it never meets one.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from neurosim.checks import check_memory
from neurosim.errors import NeurosimError, StoppedError
from neurosim.files import FULL, check_replaceable, meant, reserve, whole_file, write_whole
from neurosim.reading import damaged, table
from neurosim.traces import contained
from neurosim.traces.layout import Layout, phase_columns, phase_spans
from neurosim.traces.traces import Spikes, Traces

#: Version of the file layout; a newer one is refused.
FORMAT = 3
#: Bytes of a chunk: what is read at least, and the room that a short recording takes.
CHUNK = 64 * 1024
#: The same for what is short as a rule: phases, spikes.
SHORT = 4 * 1024
#: Bytes that are copied at a time.
BLOCK = 4 * 1024 * 1024
#: Bytes of HDF5's own that one growth may add.
OWN = 32 * 1024
#: How an HDF5 file begins.
SIGNATURE = b"\x89HDF\r\n\x1a\n"
#: Rows that nobody asked for are read along where they are no more than these in a row.
GAP = 8
#: Groups and datasets that are not populations.
RESERVED = ("time", "phases", "spikes", "spikes_until", "weights", "weight_trials")


class TraceFile:
    """A file of traces that grows.

    Raises
    ------
    NeurosimError
        From `grow`: the disk is full. What was written before stays readable.
    """

    def __init__(self, path: Path, layout: Layout):
        for population in dict.fromkeys(name.partition(".")[0] for name in layout.variables):
            if population in RESERVED:
                raise NeurosimError(
                    f"A population called '{population}' cannot be recorded to a file, which uses that name itself; call it otherwise."
                )
        if path.is_dir():
            raise NeurosimError(f"Cannot record to '{path}': it is a folder. Give a file.")
        if path.is_file() and not _replaceable(path):
            raise NeurosimError(f"Cannot record to '{path}': it is there and is no recording. Give another path.")
        if not path.parent.is_dir():
            raise NeurosimError(f"Cannot record to '{path}': there is no folder '{path.parent}'. Create it first.")
        empty = io.BytesIO()
        with h5py.File(empty, "w", libver="latest", track_order=True) as file:
            names = _describe(file, layout)
        try:
            write_whole(path, empty.getbuffer())  # an earlier file goes once this one is there
        except OSError as error:
            mend = "Free some space, or give another path." if error.errno in FULL else "Give another path."
            raise StoppedError(f"Cannot record to '{meant(path)}': {error.strerror}. {mend}") from error
        self._file = h5py.File(path, "r+", libver="latest")
        self._file.swmr_mode = True
        self._descriptor = os.open(path, os.O_RDWR)
        self._datasets: dict[str, Any] = {name: self._file[name] for name in names}
        self.lengths = dict.fromkeys(names, 0)
        self.shapes = {name: data.shape[1:] for name, data in self._datasets.items()}
        self.path = path

    def grow(self, columns: Mapping[str, np.ndarray]) -> None:
        """Append rows to datasets (by their names in the file), then flush: what was appended is readable from now on."""
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
        """Take the room on the disk that the next growth needs, and find out here whether there is any."""
        needed = 0
        for name, rows in columns.items():
            data, before = self._datasets[name], self.lengths[name]
            each = data.chunks[0]
            needed += (
                (-(-(before + len(rows)) // each) - -(-before // each))
                * int(np.prod(data.chunks))
                * data.dtype.itemsize
            )
            needed += OWN
        try:
            reserve(self._descriptor, self._file.id.get_filesize(), needed)
        except OSError as error:
            rows = f" Its {self.lengths['time']} rows can be read." if self.lengths["time"] else ""
            raise StoppedError(
                f"The recording '{meant(self.path)}' cannot grow: {error.strerror}.{rows} Free some space, or record less: fewer variables, cells or "
                "phases, a larger stride."
            ) from error

    def traces(self) -> Traces:
        """What the file holds by now."""
        return _traces(self._file, self.path)

    def close(self) -> None:
        size = self._file.id.get_filesize()
        self._file.close()
        with contextlib.suppress(OSError):
            if os.fstat(self._descriptor).st_size > size:  # room that was reserved and not used
                os.ftruncate(self._descriptor, size)
        os.close(self._descriptor)


def _describe(file: h5py.File, layout: Layout) -> list[str]:
    """Make the attributes and empty datasets of a file; returns the names of the datasets."""
    names: list[str] = []

    def make(name: str, shape: tuple[int, ...], kind: str, chunk: int = CHUNK) -> h5py.Dataset:
        each = max(1, chunk // max(int(np.prod(shape, dtype=int)) * np.dtype(kind).itemsize, 1))
        names.append(name)
        return file.create_dataset(name, (0, *shape), kind, maxshape=(None, *shape), chunks=(each, *shape))

    for key, value in layout.metadata.items():
        file.attrs[key] = value if isinstance(value, (int, float, str)) else json.dumps(value)
    file.attrs["format"] = FORMAT
    file.attrs["metadata"] = json.dumps(layout.metadata)
    groups = [*(name.partition(".")[0] for name in layout.variables), "phases", "spikes", "weights"]
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


class Stored(NDArrayOperatorsMixin):
    """An array in a file, read when it is indexed; rows (first axis) and columns (last axis) may be a choice of those in the file.

    Has ``shape``, ``ndim``, ``dtype``, ``len``, NumPy's indexing, and is converted by ``np.asarray``. Whatever else is asked of it (``x > 0``,
    ``np.abs(x)``, ``x.mean(axis=0)``) reads all of it and is answered by NumPy.
    """

    def __init__(self, data: h5py.Dataset, rows: np.ndarray, columns: np.ndarray | None = None):
        self._data, self._rows, self._columns = data, rows, columns
        self.dtype = data.dtype
        tail = data.shape[1:] if columns is None else (*data.shape[1:-1], len(columns))
        self.shape = (len(rows), *tail)
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"<{self.dtype} array of {self.shape} in a file>"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        values = self[...]
        return values if dtype is None else values.astype(dtype)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        return getattr(ufunc, method)(*(np.asarray(x) if isinstance(x, Stored) else x for x in inputs), **options)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or not hasattr(np.ndarray, name):
            raise AttributeError(f"'{type(self).__name__}' has no attribute '{name}'")
        return getattr(self[...], name)

    def part(self, rows: np.ndarray, columns: np.ndarray | None) -> Stored:
        """A choice of its rows and columns, still in the file."""
        if columns is not None and self._columns is not None:
            columns = self._columns[columns]
        return Stored(self._data, self._rows[rows], self._columns if columns is None else columns)

    def __getitem__(self, key: Any) -> np.ndarray:
        keys = list(key) if isinstance(key, tuple) else [key]
        lists = sum(isinstance(k, (list, np.ndarray)) for k in keys)
        simple = all(k is Ellipsis or isinstance(k, (int, np.integer, slice, list, np.ndarray)) for k in keys)
        simple &= lists <= 1 and all(np.ndim(k) <= 1 for k in keys if isinstance(k, (list, np.ndarray)))
        simple &= not (lists and any(isinstance(k, (int, np.integer)) for k in keys))
        simple &= sum(k is Ellipsis for k in keys) <= 1 and not any(isinstance(k, bool) for k in keys)
        if not simple:  # as NumPy does it
            return self._read([np.arange(n) for n in self.shape])[key]
        if not any(k is Ellipsis for k in keys):
            keys.append(Ellipsis)
        at = next(n for n, k in enumerate(keys) if k is Ellipsis)
        if len(keys) - 1 > self.ndim:
            raise IndexError(f"{len(keys) - 1} indices for an array of {self.ndim} axes.")
        keys[at : at + 1] = [slice(None)] * (self.ndim - len(keys) + 1)
        chosen = [np.arange(n)[k] for n, k in zip(self.shape, keys, strict=True)]
        values = self._read([np.atleast_1d(numbers) for numbers in chosen])
        return values[tuple(0 if numbers.ndim == 0 else slice(None) for numbers in chosen)]

    def _read(self, chosen: list[np.ndarray]) -> np.ndarray:
        """What stands at the crossings of the chosen numbers of each axis. Of every axis but the first the smallest block that holds them is read."""
        rows, *others = chosen
        rows = self._rows[rows]
        if self._columns is not None:
            others[-1] = self._columns[others[-1]]
        blocks = [slice(int(n.min()), int(n.max()) + 1) if len(n) else slice(0, 0) for n in others]
        values = self._read_rows(rows, blocks)
        for axis, numbers in enumerate(others, start=1):
            if len(numbers) and not np.array_equal(numbers, np.arange(numbers[0], numbers[0] + len(numbers))):
                values = np.take(values, numbers - numbers.min(), axis=axis)
        return values

    def _read_rows(self, rows: np.ndarray, blocks: list[slice]) -> np.ndarray:
        try:
            return self._read_stored(rows, blocks)
        except (OSError, RuntimeError) as error:
            where = f"{self._data.name} in '{self._data.file.filename}'" if self._data else "a closed file"
            raise NeurosimError(f"Values of {where} cannot be read: {error}.") from error

    def _read_stored(self, rows: np.ndarray, blocks: list[slice]) -> np.ndarray:
        if not len(rows):
            return self._data[(slice(0, 0), *blocks)]
        if (np.diff(rows) == 1).all():
            return self._data[(slice(int(rows[0]), int(rows[-1]) + 1), *blocks)]
        order = np.unique(rows)
        runs = np.split(order, np.flatnonzero(np.diff(order) > GAP) + 1)
        parts = [self._data[(slice(int(run[0]), int(run[-1]) + 1), *blocks)][run - run[0]] for run in runs]
        return np.concatenate(parts)[np.searchsorted(order, rows)]


# ---------------------------------------------------------------------------------------------------- save, load


def blocks(count: int, *arrays: Any) -> Iterator[slice]:
    """The first `count` rows of arrays in blocks of a few megabytes."""
    each = sum(math.prod(array.shape[1:]) * array.dtype.itemsize for array in arrays)
    step = max(1, BLOCK // max(each, 1))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def save(traces: Traces, path: Path) -> Path:
    """See `Traces.save`."""
    names = list(traces.values)
    kinds = {np.dtype(values.dtype) for values in (*traces.values.values(), *traces.weights.values())}
    layout = Layout(
        {name: tuple(traces.values[name].shape[1:]) for name in names},
        traces.units,
        traces.cells,
        {p: np.asarray(traces.spike_cells.get(p, np.empty(0, dtype=np.int64))) for p in traces.spikes},
        {name: tuple(w.shape[1:]) for name, w in traces.weights.items()},
        str(np.result_type(*kinds)) if kinds else "float64",
        traces.metadata,
        [span.name for span in traces.phases],
    )
    check_replaceable(path, ".h5")
    with whole_file(path) as temporary, contextlib.closing(TraceFile(temporary, layout)) as file:
        for rows in blocks(len(traces.time), *traces.values.values()):
            file.grow({"time": traces.time[rows], **{n.replace(".", "/"): traces.values[n][rows] for n in names}})
        for k in range(len(traces.weight_trials)):
            file.grow({f"weights/{name}": w[k : k + 1] for name, w in traces.weights.items()})
        file.grow({"weight_trials": traces.weight_trials} | phase_columns(traces.phases))
        if traces.spikes and traces.spike_span is not None:
            file.grow({"spikes_until": np.array(traces.spike_span[1:])})
        for population, spikes in traces.spikes.items():
            file.grow({f"spikes/{population}/{name}": getattr(spikes, name) for name in ("time", "sample", "cell")})
    return path


def load(path: Path) -> Traces:
    """See `Traces.load`."""
    if not path.is_file():
        raise NeurosimError(f"There is no trace file '{path}'; `neurosim simulate` writes traces.h5.")
    file = _opened(path)
    try:
        return _traces(file, path)
    except BaseException:
        file.close()
        raise


def _opened(path: Path) -> Any:
    """A file that is being written, or whose writer was killed, opens for shared reading only."""
    try:
        file = h5py.File(path, "r")
    except (OSError, RuntimeError) as error:
        if not _is_being_written(path):
            raise NeurosimError(f"'{path}' is no HDF5 file, or it is truncated: {error}") from error
        try:
            file = h5py.File(path, "r", swmr=True)
        except (OSError, RuntimeError) as error:
            raise NeurosimError(f"'{path}' cannot be read: {error}") from error
    try:
        with readable(path):
            contained.check(file, path)
            if file.swmr_mode:  # it may have grown since this process first opened it
                file.visititems(lambda _, item: item.refresh() if isinstance(item, h5py.Dataset) else None)
    except BaseException:
        file.close()
        raise
    return file


@contextlib.contextmanager
def readable(path: str | Path) -> Iterator[None]:
    """A part of a file that HDF5 cannot read is said of the file."""
    try:
        yield
    except NeurosimError:
        raise
    except Exception as error:  # a damaged file can raise anything
        what = f"there is no {error}" if isinstance(error, KeyError) else str(error)
        raise NeurosimError(f"'{path}' is damaged, a part of it cannot be read: {what}") from error


def _is_being_written(path: Path) -> bool:
    """By HDF5's superblock (version 3): marked as open for writing, and as long as it says. A truncated file would keep HDF5 waiting for the rest."""
    with open(path, "rb") as file:
        head = file.read(48)
        size = os.fstat(file.fileno()).st_size
    if len(head) < 48 or head[:8] != SIGNATURE or head[8] != 3:
        return False
    return bool(head[11] & 0x05) and size >= int.from_bytes(head[28:36], "little")


def _replaceable(path: Path) -> bool:
    """Whether a file is a recording, or as empty as one that was just begun."""
    with path.open("rb") as file:
        head = file.read(len(SIGNATURE))
    return head in (b"", SIGNATURE)


def _traces(file: Any, path: Path) -> Traces:
    with readable(path):
        return _checked_traces(_File(file, path))


class _File:
    """The data sets and attributes of a file, each of the kind that it should be."""

    def __init__(self, file: h5py.File, path: Path):
        self.file, self.path = file, path

    def fault(self, text: str) -> NeurosimError:
        return damaged(self.path, text)

    def data(self, name: str, kinds: str, axes: int | None) -> h5py.Dataset:
        """A data set of so many axes (None: any number), of numbers or text of one of these kinds."""
        data = self.file.get(name)
        if not isinstance(data, h5py.Dataset):
            what = "there is none" if data is None else "it is a group"
            raise self.fault(f"'{name}' should be a data set, and {what}")
        if data.shape is None or not data.ndim or data.ndim != (axes or data.ndim) or 0 in data.shape[1:]:
            raise self.fault(f"'{name}' has the shape {data.shape}; wanted {axes or 'one or more'} axes, none empty")
        if data.dtype.kind not in kinds:
            raise self.fault(f"'{name}' holds values of the type {data.dtype}; wanted {_WORDS[kinds]}")
        return data

    def names(self, group: str, of: type) -> list[str]:
        """The names in a group, of groups or data sets; none where there is no such group."""
        found = self.file.get(group, {})
        if not isinstance(found, h5py.Group | dict):
            raise self.fault(f"'{group}' should be a group, and it is a data set")
        for name, item in found.items():
            if not isinstance(item, of):
                what = "a data set" if of is h5py.Dataset else "a group"
                raise self.fault(f"'{group.rstrip('/')}/{name}' should be {what}, and it is not")
        return list(found)

    def columns(self, group: str, kinds: Mapping[str, str]) -> list[np.ndarray]:
        """Columns of one length (what all have) of finite numbers, counts not below 0."""
        datasets = [self.data(f"{group}/{name}", kind, 1) for name, kind in kinds.items()]
        count = min(contained.whole_rows(data) for data in datasets)
        return [self.values(data, count) for data in datasets]

    def values(self, data: h5py.Dataset, count: int) -> np.ndarray:
        check_memory(4 * count * data.dtype.itemsize, f"'{data.name}' of '{self.path}'")  # with what checks take
        values = data[:count]
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise self.fault(f"'{data.name}' holds NaN or infinity")
        if values.dtype.kind in "iu" and len(values) and values.min() < 0:
            raise self.fault(f"'{data.name}' holds {values.min()}; wanted no number below 0")
        return values

    def text(self, item: Any, name: str) -> str:
        """An attribute that is a text."""
        value = item.attrs.get(name)
        if not isinstance(value, str):
            raise self.fault(f"the attribute '{name}' of '{item.name}' is {value!r:.60}; wanted a text")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise self.fault(f"the attribute '{name}' of '{item.name}' is not UTF-8") from None
        return value

    def numbers(self, item: Any, name: str) -> np.ndarray:
        """An attribute that is a list of numbers of cells."""
        value = np.asarray(item.attrs.get(name))
        if value.ndim != 1 or value.dtype.kind not in "iu" or (value < 0).any() or len(np.unique(value)) < len(value):
            raise self.fault(f"the attribute '{name}' of '{item.name}' should be a list of different numbers of cells")
        return value


#: Kinds of NumPy types in words.
_WORDS = {"f": "floating-point numbers", "iu": "whole numbers", "S": "text of fixed length"}
#: Columns of phases and of spikes, and the kinds of their types.
_PHASES = {"name": "S", "trial": "iu", "start": "f", "stop": "f"}
_SPIKES = {"time": "f", "sample": "iu", "cell": "iu"}


def _checked_traces(given: _File) -> Traces:
    file, path = given.file, given.path
    if "format" not in file.attrs or "time" not in file:
        raise NeurosimError(f"'{path}' is an HDF5 file but not one of neurosim's traces.")
    layout = file.attrs["format"]
    if not isinstance(layout, np.integer) or layout < 1:
        raise given.fault(f"the attribute 'format' is {layout!r:.60}; wanted a whole number from 1 to {FORMAT}")
    if layout > FORMAT:
        raise NeurosimError(f"'{path}' has layout {layout}; this version reads up to {FORMAT}. Update neurosim.")
    datasets = _variables(given)
    # While a file is written its datasets may differ in length: what all of them have is whole.
    time = given.data("time", "f", 1)
    rows = min(contained.whole_rows(data) for data in (time, *datasets.values()))
    times = given.values(time, rows)
    if (np.diff(times) < 0).any():
        raise given.fault("'time' goes back; wanted rows in the order of time")
    every = np.arange(rows)
    values, units, cells = {}, {}, {}
    for name, data in datasets.items():
        population = name.partition(".")[0]
        values[name], units[name] = Stored(data, every), given.text(data, "unit")
        indices = given.numbers(data, "indices")
        if len(indices) != data.shape[-1]:
            raise given.fault(f"'{data.name}' has {data.shape[-1]} columns and 'indices' of {len(indices)} cells")
        whole = data.attrs.get("all", np.array_equal(indices, np.arange(data.shape[-1])))  # not in layouts 1 and 2
        if not isinstance(whole, bool | np.bool_):
            raise given.fault(f"the attribute 'all' of '{data.name}' is {whole!r:.60}; wanted true or false")
        if not whole:
            cells[population] = indices
    if len({data.shape[1] for data in datasets.values()}) > 1:
        raise given.fault("its variables differ in the number of samples")
    try:
        phases = phase_spans(*given.columns("phases", _PHASES))
    except UnicodeDecodeError as error:
        raise given.fault(f"'phases/name' is not UTF-8 ({error})") from error
    for span in phases:
        if span.stop < span.start:
            raise given.fault(f"the phase '{span.name}' of trial {span.trial} ends before it starts")
    spikes, spike_cells = {}, {}
    for population in given.names("spikes", h5py.Group):  # not in layout 1
        group = file[f"spikes/{population}"]
        spikes[population] = Spikes(*given.columns(f"spikes/{population}", _SPIKES))
        if "indices" in group.attrs:
            kept = spike_cells[population] = given.numbers(group, "indices")
            if not np.isin(spikes[population].cell, kept).all():
                raise given.fault(f"'spikes/{population}' has spikes of cells that 'indices' does not name")
    span = None
    if "spikes_until" in file:
        until = given.data("spikes_until", "f", 1)
        ends = given.values(until, contained.whole_rows(until))
        span = (0.0, float(ends[-1])) if len(ends) else None
    matrices, trials = {}, np.empty(0, dtype=np.int64)
    if "weights" in file:
        stored = {name: given.data(f"weights/{name}", "f", None) for name in given.names("weights", h5py.Dataset)}
        counts = given.data("weight_trials", "iu", 1)
        count = min(contained.whole_rows(data) for data in (counts, *stored.values()))
        trials = given.values(counts, count)
        matrices = {name: Stored(data, np.arange(count)) for name, data in stored.items()}
        units |= {name: given.text(data, "unit") if "unit" in data.attrs else "1" for name, data in stored.items()}
    metadata = table(given.text(file, "metadata"), path, part="metadata")
    return Traces(times, values, units, phases, metadata, spikes, cells, matrices, trials, file, spike_cells, span)


def _variables(given: _File) -> dict[str, h5py.Dataset]:
    populations = [str(name) for name in given.file if name not in RESERVED]
    for population in populations:
        if not isinstance(given.file[population], h5py.Group):
            raise given.fault(f"'{population}' should be a group of variables, and it is a data set")
    return {
        f"{population}.{variable}": given.data(f"{population}/{variable}", "f", 3)
        for population in populations
        for variable in given.names(population, h5py.Dataset)
    }


def copy_until(path: Path, lengths: Mapping[str, int], layout: Layout) -> TraceFile:
    """Open a recording to go on with: a new file with the first `lengths` rows of each dataset of the old one, in its place.

    Raises
    ------
    NeurosimError
        The old file lacks a dataset, or is shorter.
    """
    if not path.is_file():
        raise NeurosimError(
            f"The recording '{path}' is gone, and the run's checkpoint counts on it. Put it back to go on."
        )
    old = _opened(path)
    new = None
    try:
        with whole_file(path) as temporary:
            new = TraceFile(temporary, layout)
            for name, count in lengths.items():
                kept = old.get(name)
                fits = isinstance(kept, h5py.Dataset) and kept.shape[1:] == new.shapes.get(name)
                if not fits or contained.whole_rows(kept) < count:
                    raise NeurosimError(
                        f"'{path}' does not hold what its checkpoint counts ({count} rows of '{name}'). Put back the file that was there when the run "
                        "was stopped."
                    )
                for rows in blocks(count, kept):
                    with readable(path):
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


__all__ = ["BLOCK", "FORMAT", "Stored", "TraceFile", "blocks", "copy_until", "load", "readable", "save"]
