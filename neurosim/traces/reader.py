"""Reading a file of traces: whatever it holds, each part is checked to be what it should be."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from neurosim.checks import check_memory
from neurosim.errors import NeurosimError
from neurosim.reading import damaged, table
from neurosim.traces import contained
from neurosim.traces.layout import FORMAT, RESERVED, SIGNATURE, phase_spans, population_of
from neurosim.traces.spans import PhaseSpan, Spikes
from neurosim.traces.stored import Stored

#: Kinds of NumPy types in words.
_WORDS = {"f": "floating-point numbers", "iu": "whole numbers", "S": "text of fixed length"}
#: Columns of phases and of spikes, and the kinds of their types.
_PHASES = {"name": "S", "trial": "iu", "start": "f", "stop": "f"}
_SPIKES = {"time": "f", "sample": "iu", "cell": "iu"}


def read(path: Path) -> dict[str, Any]:
    """The fields of `Traces`; the file stays open, and values are read when they are indexed.

    Raises
    ------
    NeurosimError
        No file, no trace file, a damaged one, or one from a newer version.
    """
    if not path.is_file():
        raise NeurosimError(
            f"There is no trace file '{path}'; `neurosim simulate` writes traces.h5.",
        )
    file = opened(path)
    try:
        return fields(file, path)
    except BaseException:
        file.close()
        raise


def opened(path: Path) -> Any:
    """The file, opened for reading.

    A file that is being written, or whose writer was killed, opens for shared reading only.
    """
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
                file.visititems(_refresh)
    except BaseException:
        file.close()
        raise
    return file


def _refresh(name: str, item: Any) -> None:
    if isinstance(item, h5py.Dataset):
        item.refresh()


def _is_being_written(path: Path) -> bool:
    """Whether HDF5's superblock (version 3) marks the file as open for writing, and gives its size.

    With a truncated file HDF5 would wait for the rest.
    """
    with open(path, "rb") as file:
        head = file.read(48)
        size = os.fstat(file.fileno()).st_size
    if len(head) < 48 or head[:8] != SIGNATURE or head[8] != 3:
        return False
    return bool(head[11] & 0x05) and size >= int.from_bytes(head[28:36], "little")


@contextlib.contextmanager
def readable(path: str | Path) -> Iterator[None]:
    """Name the file in every error that comes from a part HDF5 cannot read."""
    try:
        yield
    except NeurosimError:
        raise
    except Exception as error:  # a damaged file can raise anything
        what = f"there is no {error}" if isinstance(error, KeyError) else str(error)
        raise NeurosimError(f"'{path}' is damaged, a part of it cannot be read: {what}") from error


# ------------------------------------------------------------------------- the fields of Traces


def fields(file: h5py.File, path: Path) -> dict[str, Any]:
    """The fields of `Traces`, read from an open file."""
    with readable(path):
        given = _File(file, path)
        _check_format(given)
        values = _values(given)
        phases = _phases(given)
        spikes = _spikes(given)
        weights = _weights(given)
        metadata = table(given.text(file, "metadata"), path, part="metadata")
        units = values["units"] | weights.pop("units")
        rest = {"units": units, "phases": phases, "metadata": metadata, "file": file}
        return values | spikes | weights | rest


class _File:
    """The datasets and attributes of a file, each of the kind that it should be."""

    def __init__(self, file: h5py.File, path: Path):
        self.file, self.path = file, path

    def fault(self, text: str) -> NeurosimError:
        return damaged(self.path, text)

    def data(self, name: str, kinds: str, axes: int | None) -> h5py.Dataset:
        """A dataset of so many axes (None: any number), whose values are of one of these kinds."""
        data = self.file.get(name)
        if not isinstance(data, h5py.Dataset):
            what = "there is none" if data is None else "it is a group"
            raise self.fault(f"'{name}' should be a data set, and {what}")
        shape, count = data.shape, axes or data.ndim
        if shape is None or not data.ndim or data.ndim != count or 0 in shape[1:]:
            raise self.fault(
                f"'{name}' has the shape {shape}; wanted {axes or 'one or more'} axes, none empty",
            )
        if data.dtype.kind not in kinds:
            raise self.fault(
                f"'{name}' holds values of the type {data.dtype}; wanted {_WORDS[kinds]}",
            )
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
        """Columns of finite numbers, counts not below 0, cut to the length that all have."""
        datasets = [self.data(f"{group}/{name}", kind, 1) for name, kind in kinds.items()]
        count = min(contained.whole_rows(data) for data in datasets)
        return [self.values(data, count) for data in datasets]

    def values(self, data: h5py.Dataset, count: int) -> np.ndarray:
        needed = 4 * count * data.dtype.itemsize  # with what the checks take
        check_memory(needed, f"'{data.name}' of '{self.path}'")
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
            raise self.fault(
                f"the attribute '{name}' of '{item.name}' is {value!r:.60}; wanted a text",
            )
        try:
            value.encode()
        except UnicodeEncodeError:
            raise self.fault(f"the attribute '{name}' of '{item.name}' is not UTF-8") from None
        return value

    def numbers(self, item: Any, name: str) -> np.ndarray:
        """An attribute that is a list of numbers of cells."""
        value = np.asarray(item.attrs.get(name))
        whole = value.ndim == 1 and value.dtype.kind in "iu"
        if not whole or (value < 0).any() or len(np.unique(value)) < len(value):
            what = f"the attribute '{name}' of '{item.name}'"
            raise self.fault(f"{what} should be a list of different numbers of cells")
        return value


def _check_format(given: _File) -> None:
    attributes = given.file.attrs
    if "format" not in attributes or "time" not in given.file:
        raise NeurosimError(f"'{given.path}' is an HDF5 file but not one of neurosim's traces.")
    layout = attributes["format"]
    if not isinstance(layout, np.integer) or layout < 1:
        raise given.fault(
            f"the attribute 'format' is {layout!r:.60}; wanted a whole number from 1 to {FORMAT}",
        )
    if layout > FORMAT:
        known = f"this version reads up to {FORMAT}"
        raise NeurosimError(f"'{given.path}' has layout {layout}; {known}. Update neurosim.")


def _values(given: _File) -> dict[str, Any]:
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
        values[name], units[name] = Stored(data, every), given.text(data, "unit")
        indices, whole = _cells(given, data)
        if not whole:
            cells[population_of(name)] = indices
    if len({data.shape[1] for data in datasets.values()}) > 1:
        raise given.fault("its variables differ in the number of samples")
    return {"time": times, "values": values, "units": units, "cells": cells}


def _variables(given: _File) -> dict[str, h5py.Dataset]:
    populations = [str(name) for name in given.file if name not in RESERVED]
    for population in populations:
        if not isinstance(given.file[population], h5py.Group):
            raise given.fault(
                f"'{population}' should be a group of variables, and it is a data set",
            )
    return {
        f"{population}.{variable}": given.data(f"{population}/{variable}", "f", 3)
        for population in populations
        for variable in given.names(population, h5py.Dataset)
    }


def _cells(given: _File, data: h5py.Dataset) -> tuple[np.ndarray, bool]:
    """Numbers of a variable's recorded cells, and whether these are all of its population."""
    indices = given.numbers(data, "indices")
    count = data.shape[-1]
    if len(indices) != count:
        raise given.fault(
            f"'{data.name}' has {count} columns and 'indices' of {len(indices)} cells",
        )
    whole = data.attrs.get("all", np.array_equal(indices, np.arange(count)))  # not in layouts 1, 2
    if not isinstance(whole, bool | np.bool_):
        raise given.fault(
            f"the attribute 'all' of '{data.name}' is {whole!r:.60}; wanted true or false",
        )
    return indices, bool(whole)


def _phases(given: _File) -> list[PhaseSpan]:
    try:
        phases = phase_spans(*given.columns("phases", _PHASES))
    except UnicodeDecodeError as error:
        raise given.fault(f"'phases/name' is not UTF-8 ({error})") from error
    for span in phases:
        if span.stop < span.start:
            raise given.fault(
                f"the phase '{span.name}' of trial {span.trial} ends before it starts",
            )
    return phases


def _spikes(given: _File) -> dict[str, Any]:
    spikes, cells = {}, {}
    for population in given.names("spikes", h5py.Group):  # not in layout 1
        group = given.file[f"spikes/{population}"]
        spikes[population] = Spikes(*given.columns(f"spikes/{population}", _SPIKES))
        if "indices" in group.attrs:
            kept = cells[population] = given.numbers(group, "indices")
            if not np.isin(spikes[population].cell, kept).all():
                raise given.fault(
                    f"'spikes/{population}' has spikes of cells that 'indices' does not name",
                )
    span = None
    if "spikes_until" in given.file:
        until = given.data("spikes_until", "f", 1)
        ends = given.values(until, contained.whole_rows(until))
        span = (0.0, float(ends[-1])) if len(ends) else None
    return {"spikes": spikes, "spike_cells": cells, "spike_span": span}


def _weights(given: _File) -> dict[str, Any]:
    if "weights" not in given.file:
        return {"units": {}}
    names = given.names("weights", h5py.Dataset)
    stored = {name: given.data(f"weights/{name}", "f", None) for name in names}
    counts = given.data("weight_trials", "iu", 1)
    count = min(contained.whole_rows(data) for data in (counts, *stored.values()))
    units = {n: given.text(d, "unit") if "unit" in d.attrs else "1" for n, d in stored.items()}
    return {
        "weights": {name: Stored(data, np.arange(count)) for name, data in stored.items()},
        "weight_trials": given.values(counts, count),
        "units": units,
    }
