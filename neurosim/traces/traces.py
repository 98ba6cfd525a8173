"""Recorded traces: time, values, units, phases; in memory, or in a file that is read in part."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from neurosim.errors import unknown
from neurosim.files import user_path
from neurosim.traces.layout import population_of
from neurosim.traces.selection import selected
from neurosim.traces.spans import PhaseSpan, Spikes


@dataclass(repr=False)
class Traces:
    """Recorded variables.

    Attributes
    ----------
    time
        (rows,) in seconds, increasing; not always equally spaced (chosen phases, chosen trials, the
        steady level).
    values
        ``{"population.variable": (rows, batch, cells)}``, base SI units. NumPy arrays, or
        `neurosim.traces.stored.Stored` ones, which read from their file what is asked for: index
        them like an array (``traces["pyr1.u"][:100, 0]``).
    units
        ``{"population.variable": unit as text}``, and of recorded weights by projection.
    phases
        Phases in their order on the time axis.
    metadata
        Model, level, seed, dt, versions, ...
    spikes
        ``{population: Spikes}`` of the spiking populations.
    cells
        ``{population: (columns,) numbers of the recorded cells}``; a population that is not named
        was recorded whole.
    spike_cells
        ``{population: numbers of the cells whose spikes were kept}``, silent cells included.
    spike_span
        (start, stop) in seconds over which spikes were kept; None: over `phases`.
    weights
        ``{projection: (snapshots, *shape of its weights)}``.
    weight_trials
        (snapshots,) how many trials had been presented before each snapshot of the weights.
    file
        The open file, where values are read from one.
    """

    time: np.ndarray
    values: Mapping[str, Any]
    units: Mapping[str, str]
    phases: Sequence[PhaseSpan]
    metadata: dict[str, Any] = field(default_factory=dict)
    spikes: Mapping[str, Spikes] = field(default_factory=dict)
    cells: Mapping[str, np.ndarray] = field(default_factory=dict)
    weights: Mapping[str, Any] = field(default_factory=dict)
    weight_trials: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    file: Any = field(default=None, repr=False, compare=False)
    spike_cells: Mapping[str, np.ndarray] = field(default_factory=dict)
    spike_span: tuple[float, float] | None = None

    def __getitem__(self, name: str) -> Any:
        if name not in self.values:
            raise unknown("recorded variable", name, self.values)
        return self.values[name]

    def __repr__(self) -> str:
        trials = len({span.trial for span in self.phases})
        model = self.metadata.get("model", "a circuit")
        lines = [f"Traces of {model}: {len(self.time)} rows, {trials} trials"]
        if len(self.time):
            lines[0] += f", {self.time[0]:g} to {self.time[-1]:g} s"
        lines += [
            f"  {name}: {tuple(values.shape)} {self.units.get(name, '')}".rstrip()
            for name, values in self.values.items()
        ]
        lines += [f"  {name}: {tuple(w.shape)} weights" for name, w in self.weights.items()]
        lines += [f"  spikes of {name}: {len(spikes.time)}" for name, spikes in self.spikes.items()]
        return "\n".join(lines)

    def __enter__(self) -> Traces:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Close the file that values are read from; nothing to do in memory."""
        if self.file is not None:
            self.file.close()

    # ---------------------------------------------------------------- parts

    @property
    def batch(self) -> int:
        """Samples presented at once.

        Spikes alone do not say it: then each sample stands for itself.
        """
        for values in self.values.values():
            return values.shape[1]
        last = (int(np.max(s.sample)) for s in self.spikes.values() if len(s.sample))
        return 1 + max(last, default=0)

    def cells_of(self, population: str) -> np.ndarray:
        """Numbers of the recorded cells of a population, one per column of its variables."""
        if population in self.cells:
            return np.asarray(self.cells[population])
        for name, values in self.values.items():
            if population_of(name) == population:
                return np.arange(values.shape[-1])
        known = dict.fromkeys(map(population_of, self.values))
        raise unknown("population with recorded variables", population, known)

    def select(
        self,
        variables: Sequence[str] | None = None,
        *,
        populations: Sequence[str] | None = None,
        cells: Mapping[str, Sequence[int]] | None = None,
        time: tuple[float | str, float | str] | None = None,
        phases: Sequence[str] | None = None,
        trials: Sequence[int] | None = None,
    ) -> Traces:
        """A part of the traces; what lies in a file is not read.

        Parameters
        ----------
        variables
            Names such as ``"pyr1.u"``, or of projections whose weights were recorded (default:
            all).
        populations
            Variables and spikes of these populations only.
        cells
            ``{population: numbers of cells}``, in their numbering in the circuit.
        time
            ``(start, stop)``, numbers in seconds or texts such as ``"300*ms"``: ``start <= t <
            stop``. Snapshots of weights have no time and are all kept.
        phases, trials
            Rows and spikes within these phases (windows by ``settle[3]``, or all of them by
            ``settle``), of these trials. Of the weights the snapshots at the start of these trials;
            the last snapshot, at the end of a run of n trials, is that of trial n.

        Raises
        ------
        NeurosimError
            A name, cell, phase or trial that was not recorded; a selection that holds nothing.
        """
        part = selected(self, variables, populations, cells or {}, time, phases, trials)
        return replace(self, **part)

    # ---------------------------------------------------------------- file

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write one HDF5 file, complete or not at all (temporary file, then rename)."""
        from neurosim.traces.writer import save  # loads h5py

        return save(self, user_path(path))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Traces:
        """Open a file of traces; values are read when they are indexed.

        The file may be one that is being written, or whose writer was killed. Close it with
        `close`, or use it in a ``with`` block.

        Raises
        ------
        NeurosimError
            No file, no trace file, or one from a newer version.
        """
        from neurosim.traces.reader import read  # loads h5py

        return cls(**read(user_path(path)))
