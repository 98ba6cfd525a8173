"""Arrays in a file, which are read in part."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from neurosim.errors import NeurosimError

#: Bytes that are copied at a time.
BLOCK = 4 * 1024 * 1024
#: A gap of at most so many rows that nobody asked for is read along.
GAP = 8


class Stored(NDArrayOperatorsMixin):
    """An array in a file, read when it is indexed.

    Its rows (first axis) and columns (last axis) may be a choice of those in the file. It has
    ``shape``, ``ndim``, ``dtype``, ``len``, NumPy's indexing, and ``np.asarray`` converts it.
    Anything else (``x > 0``, ``np.abs(x)``, ``x.mean(axis=0)``) reads the whole array first.
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
        arrays = (np.asarray(x) if isinstance(x, Stored) else x for x in inputs)
        return getattr(ufunc, method)(*arrays, **options)

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
        if not _by_axis(keys):  # as NumPy does it
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
        """Values at the selected indices of each axis.

        Along every axis but the first, the smallest enclosing block is read.
        """
        rows, *others = chosen
        rows = self._rows[rows]
        if self._columns is not None:
            others[-1] = self._columns[others[-1]]
        blocks = [slice(int(n.min()), int(n.max()) + 1) if len(n) else slice(0, 0) for n in others]
        values = self._read_rows(rows, blocks)
        for axis, numbers in enumerate(others, start=1):
            if (np.diff(numbers) != 1).any():
                values = np.take(values, numbers - numbers.min(), axis=axis)
        return values

    def _read_rows(self, rows: np.ndarray, blocks: list[slice]) -> np.ndarray:
        try:
            return self._read_stored(rows, blocks)
        except (OSError, RuntimeError) as error:
            data = self._data
            where = f"{data.name} in '{data.file.filename}'" if data else "a closed file"
            raise NeurosimError(f"Values of {where} cannot be read: {error}.") from error

    def _read_stored(self, rows: np.ndarray, blocks: list[slice]) -> np.ndarray:
        def read(first: int, last: int) -> np.ndarray:
            return self._data[(slice(int(first), int(last) + 1), *blocks)]

        if not len(rows):
            return self._data[(slice(0, 0), *blocks)]
        if (np.diff(rows) == 1).all():
            return read(rows[0], rows[-1])
        order = np.unique(rows)
        runs = np.split(order, np.flatnonzero(np.diff(order) > GAP) + 1)
        parts = [read(run[0], run[-1])[run - run[0]] for run in runs]
        return np.concatenate(parts)[np.searchsorted(order, rows)]


def _by_axis(keys: list[Any]) -> bool:
    """Whether each key selects along its own axis: numbers and slices, or slices and a list."""
    lists = [k for k in keys if isinstance(k, (list, np.ndarray))]
    numbers = [k for k in keys if isinstance(k, (int, np.integer))]
    others = [k for k in keys if k is Ellipsis or isinstance(k, slice)]
    if len(lists) + len(numbers) + len(others) < len(keys):
        return False
    if len(lists) > 1 or any(np.ndim(k) > 1 for k in lists) or (lists and numbers):
        return False
    return sum(k is Ellipsis for k in keys) <= 1 and not any(isinstance(k, bool) for k in keys)


def blocks(count: int, *arrays: Any) -> Iterator[slice]:
    """The first `count` rows of arrays in blocks of a few megabytes."""
    each = sum(math.prod(array.shape[1:]) * array.dtype.itemsize for array in arrays)
    step = max(1, BLOCK // max(each, 1))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))
