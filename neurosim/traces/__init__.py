"""Recorded traces: time, values, units, phases; saved to and read from HDF5."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from neurosim.errors import NeurosimError, unknown
from neurosim.files import write_whole

#: Version of the file layout; a newer one is refused.
FORMAT = 2


@dataclass(frozen=True)
class PhaseSpan:
    """A phase of one trial on the time axis: ``start <= t < stop``, in seconds."""

    name: str
    trial: int
    start: float
    stop: float


@dataclass(frozen=True)
class Spikes:
    """Spikes of one population: time in seconds, number of the sample, number of the cell, one entry per spike."""

    time: np.ndarray
    sample: np.ndarray
    cell: np.ndarray

    def of(self, cell: int, sample: int = 0) -> np.ndarray:
        """Spike times of one cell in one sample."""
        return self.time[(self.cell == cell) & (self.sample == sample)]


@dataclass
class Traces:
    """Recorded variables.

    Attributes
    ----------
    time
        (steps,) in seconds.
    values
        ``{"population.variable": (steps, batch, cells)}``, base SI units.
    units
        ``{"population.variable": unit as text}``.
    phases
        Phases in their order on the time axis.
    spikes
        ``{population: Spikes}`` of the spiking populations.
    metadata
        Model, level, seed, dt, versions, ...
    cells
        ``{population: (columns,) numbers of the recorded cells}``; a population that is not named was recorded whole.
    weights
        ``{projection: (snapshots, *shape of its weights)}``.
    weight_trials
        (snapshots,) how many trials had been presented before each snapshot of the weights.
    """

    time: np.ndarray
    values: Mapping[str, np.ndarray]
    units: Mapping[str, str]
    phases: Sequence[PhaseSpan]
    metadata: dict[str, Any] = field(default_factory=dict)
    spikes: Mapping[str, Spikes] = field(default_factory=dict)
    cells: Mapping[str, np.ndarray] = field(default_factory=dict)
    weights: Mapping[str, np.ndarray] = field(default_factory=dict)
    weight_trials: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.values:
            raise unknown("recorded variable", name, self.values)
        return self.values[name]

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write one HDF5 file, complete or not at all (temporary file, then rename)."""
        content = io.BytesIO()  # HDF5 meets a full disk with noise of its own, so it does not see the disk
        with h5py.File(content, "w") as file:
            self._write(file)
        return write_whole(Path(path), content.getbuffer())

    def _write(self, file: h5py.File) -> None:
        file.attrs["format"] = FORMAT
        file.attrs["metadata"] = json.dumps(self.metadata)
        for key, value in self.metadata.items():
            file.attrs[key] = value if isinstance(value, (int, float, str)) else json.dumps(value)
        time = file.create_dataset("time", data=self.time)
        time.attrs["unit"] = "s"
        for name, value in self.values.items():
            population, _, variable = name.partition(".")
            data = file.create_dataset(f"{population}/{variable}", data=value, compression="gzip", compression_opts=1)
            data.attrs["unit"] = self.units[name]
            data.attrs["population"] = population
            data.attrs["axes"] = "time, sample of the batch, cell"
            data.attrs["indices"] = np.arange(value.shape[-1])
        kept = file.create_group("spikes")
        for population, spikes in self.spikes.items():
            group = kept.create_group(population)
            for name in ("time", "sample", "cell"):
                group.create_dataset(name, data=getattr(spikes, name))
            group["time"].attrs["unit"] = "s"
        spans = file.create_group("phases")
        spans.create_dataset("name", data=[p.name for p in self.phases], dtype=h5py.string_dtype())
        spans.create_dataset("trial", data=np.array([p.trial for p in self.phases], dtype=np.int64))
        spans.create_dataset("start", data=np.array([p.start for p in self.phases], dtype=float))
        spans.create_dataset("stop", data=np.array([p.stop for p in self.phases], dtype=float))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Traces:
        """Read a file written by `save`.

        Raises
        ------
        NeurosimError
            No file, no trace file, or one from a newer version.
        """
        path = Path(path)
        if not path.is_file():
            raise NeurosimError(f"There is no trace file '{path}'; `neurosim simulate` writes traces.h5.")
        try:
            file = h5py.File(path, "r")
        except OSError as error:
            raise NeurosimError(f"'{path}' is no HDF5 file, or it is truncated: {error}") from error
        contents: Any = file
        with file:
            if "format" not in file.attrs or "time" not in file:
                raise NeurosimError(f"'{path}' is an HDF5 file but not one of neurosim's traces.")
            if int(contents.attrs["format"]) > FORMAT:
                raise NeurosimError(
                    f"'{path}' has layout {file.attrs['format']}; this version reads up to {FORMAT}. Update neurosim."
                )
            values, units = {}, {}
            for population, group in contents.items():
                if population in ("time", "phases", "spikes"):
                    continue
                for variable, data in group.items():
                    values[f"{population}.{variable}"] = data[()]
                    units[f"{population}.{variable}"] = str(data.attrs["unit"])
            spans = contents["phases"]
            phases = [
                PhaseSpan(n.decode(), int(k), float(a), float(b))
                for n, k, a, b in zip(
                    spans["name"][()], spans["trial"][()], spans["start"][()], spans["stop"][()], strict=True
                )
            ]
            spikes = {
                population: Spikes(group["time"][()], group["sample"][()], group["cell"][()])
                for population, group in (contents["spikes"].items() if "spikes" in contents else ())  # not in layout 1
            }
            metadata = json.loads(str(contents.attrs["metadata"]))
            return cls(contents["time"][()], values, units, phases, metadata, spikes)
