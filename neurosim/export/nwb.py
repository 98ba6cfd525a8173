"""Traces as NWB files, and back."""

from __future__ import annotations

import io
import json
import math
import os
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import h5py
import numpy as np
from annotated_types import Ge

from neurosim._version import __version__
from neurosim.equations import seconds
from neurosim.errors import NeurosimError
from neurosim.export.layout import (
    Train,
    observed,
    optional,
    require_content,
    require_folder,
    spacing,
    spikes_of,
    trains,
)
from neurosim.files import check_replaceable, reserve, user_path, whole_file
from neurosim.reading import damaged, of_types
from neurosim.reading import table as json_table
from neurosim.traces import PhaseSpan, Traces, contained
from neurosim.traces.layout import phase_spans
from neurosim.traces.reader import readable
from neurosim.traces.stored import blocks

#: NWB asks for the date of the session. A simulation has none: its t = 0 is called the beginning of Unix time.
NO_DATE = datetime(1970, 1, 1, tzinfo=UTC)
#: Version of what `to_nwb` writes into the notes; a newer one is refused.
FORMAT = 1
#: What `from_nwb` needs of the notes, as annotations.
CELLS = dict[str, list[int]]
NOTES = {
    "metadata": dict[str, Any], "units": dict[str, str], "batch": Annotated[int, Ge(1)], "cells": CELLS,
    "spiking": list[str], "weights": CELLS,
}  # fmt: skip
#: NWB's names of units; others are written as they are.
UNITS = {"volt": "volts", "amp": "amperes", "farad": "farads", "s": "seconds"}


def to_nwb(traces: Traces, path: str | os.PathLike[str]) -> Path:
    """Write an NWB file, complete or not at all; values that lie in a file are copied block by block.

    - ``acquisition``: a `TimeSeries` per variable, (rows, cells), called ``pyr1.u``; with several samples in the
      batch one for each, ``pyr1.u sample 0``, ... In SI units. Equally spaced rows have a rate, others timestamps.
    - ``intervals``: ``epochs``, the phases (columns ``phase``, ``trial``), and ``trials``, from the first to the last
      recorded phase of each trial.
    - ``units``: a row per cell of the spiking populations (and sample of the batch): ``population``, ``cell``,
      ``position``; beside the spike times ``spike_samples``, the number of the sample at each spike, and
      ``obs_intervals``, the recorded time: phases that follow one another joined, without the gaps between others.
    - ``analysis``: a table ``weights PROJECTION`` per projection, a row per snapshot: ``trials_presented`` before it,
      ``weights`` (the axes of weights of more than three, as in convolutions, are joined to one).
    - ``scratch/time``: the exact times of the rows, from which starting time and rate differ by rounding.
    - ``general/notes``: the metadata and what else `from_nwb` needs, as JSON.

    What NWB demands and a simulation does not have is filled in and says so: the session starts at
    1970-01-01T00:00:00Z, which stands for t = 0 of the simulation; the subject is the circuit, of age 0 and unknown
    sex. `nwbinspector` takes a series with fewer rows than cells to be turned on its side
    (``check_data_orientation``); it is not.

    Parameters
    ----------
    traces
        What was recorded.
    path
        Ends in ``.nwb``. A file that is there is replaced.

    Raises
    ------
    NeurosimError
        PyNWB is not installed; empty traces; another suffix, or a folder that does not exist.
    OSError
        The disk is full; an earlier file is left as it was.
    """
    pynwb = optional("pynwb", "nwb")
    path = user_path(path)
    if path.suffix.lower() != ".nwb":
        raise NeurosimError(f"Cannot write an NWB file as '{path}'; wanted a name that ends in .nwb.")
    require_content(traces)
    require_folder(path)
    check_replaceable(path)
    content = io.BytesIO()  # all but the large arrays, which are described and hold nothing yet
    with h5py.File(content, "w") as file, pynwb.NWBHDF5IO(file=file, mode="w") as writer:
        writer.write(_file(pynwb, traces))
    with whole_file(path) as temporary:
        with open(temporary, "wb") as file:
            file.write(content.getbuffer())
            if large := _large(traces):
                reserve(file.fileno(), file.tell(), large)
        with h5py.File(temporary, "r+") as file:
            _fill(file, traces)
    return path


def _file(pynwb: Any, traces: Traces) -> Any:
    """The NWB file; values and weights are described by shape and type."""
    about = traces.metadata
    model = str(about.get("model", "circuit"))
    file = pynwb.NWBFile(
        session_description=f"Simulation of the circuit '{model}' by neurosim, level {about.get('level', 'unknown')}.",
        identifier=str(uuid.uuid4()),
        session_start_time=NO_DATE,
        experiment_description="A simulation; session_start_time stands for t = 0 and is no date.",
        notes=json.dumps(_notes(traces)),
        was_generated_by=[("neurosim", __version__)],
        subject=pynwb.file.Subject(
            subject_id=model, description="No animal: a simulated circuit. Age and sex are fillers.", age="P0D", sex="U"
        ),
    )
    file.add_scratch(np.asarray(traces.time), name="time", description="Exact times of the rows, in seconds.")
    for series in _series(pynwb, traces):
        file.add_acquisition(series)
    if traces.phases:
        file.epochs, file.trials = _phases(pynwb, traces)
    if found := list(trains(traces)):
        file.units = _units(pynwb, traces, found)
    for name, weights in traces.weights.items():
        file.add_analysis(_weights(name, weights, traces.weight_trials, traces.units.get(name, "1")))
    return file


def _notes(traces: Traces) -> dict[str, Any]:
    """What `from_nwb` needs beside NWB's own."""
    return {
        "neurosim": FORMAT,
        "metadata": traces.metadata,
        "units": dict(traces.units),
        "batch": traces.batch,
        "cells": {population: np.asarray(cells).tolist() for population, cells in traces.cells.items()},
        "spiking": list(traces.spikes),
        "spike_span": traces.spike_span,
        "spike_cells": {population: np.asarray(cells).tolist() for population, cells in traces.spike_cells.items()},
        "weights": {name: list(weights.shape[1:]) for name, weights in traces.weights.items()},
    }


def _name(variable: str, position: int, batch: int) -> str:
    return f"{variable} sample {position}" if batch > 1 else variable


def _weights_name(projection: str) -> str:
    return f"weights {projection}"


def _empty(shape: tuple[int, ...], dtype: Any) -> Any:
    """A data set that is filled later."""
    from hdmf.backends.hdf5 import H5DataIO

    return H5DataIO(shape=shape, dtype=np.dtype(dtype))


def _series(pynwb: Any, traces: Traces) -> Iterator[Any]:
    period, batch = spacing(traces.time), traces.batch
    when: dict[str, Any] = {"timestamps": np.asarray(traces.time)}
    if period is not None:
        when = {"starting_time": float(traces.time[0]), "rate": float(f"{1 / period:.12g}")}
    for name, values in traces.values.items():
        population, _, variable = name.partition(".")
        unit = traces.units[name]
        cells = traces.cells_of(population)
        whole = np.array_equal(cells, np.arange(len(cells)))
        columns = "column k is cell k" if whole else f"columns are the cells {', '.join(map(str, cells))}"
        for position in range(batch):
            series = pynwb.TimeSeries(
                name=_name(name, position, batch),
                data=_empty((values.shape[0], values.shape[2]), values.dtype),
                unit=UNITS.get(unit, unit),
                description=f"Variable {variable} of the population {population}; {columns}.",
                comments=f"Sample {position} of the {batch} that are presented at once.",
                **when,
            )
            if period is None:
                when = {"timestamps": series if "timestamps" in when else when}
            yield series


def _column(name: str, description: str, data: Any) -> Any:
    from hdmf.common import VectorData

    return VectorData(name=name, description=description, data=data)


def _ragged(name: str, description: str, rows: Sequence[Sequence[Any] | np.ndarray]) -> tuple[Any, Any]:
    from hdmf.common import VectorIndex

    joined = np.concatenate(rows)
    target = _column(name, description, joined.tolist() if joined.dtype.kind == "U" else joined)  # HDF5 knows no "U"
    return target, VectorIndex(name=f"{name}_index", target=target, data=np.cumsum([len(row) for row in rows]))


def _phases(pynwb: Any, traces: Traces) -> tuple[Any, Any]:
    """Tables of phases and of trials."""
    spans = traces.phases
    trials: dict[int, list[PhaseSpan]] = {}
    for span in spans:
        trials.setdefault(span.trial, []).append(span)
    epochs = pynwb.epoch.TimeIntervals(
        name="epochs",
        description="Phases of the protocol, start <= t < stop.",
        columns=[
            _column("start_time", "Start in seconds.", np.array([s.start for s in spans], dtype=float)),
            _column("stop_time", "Stop in seconds.", np.array([s.stop for s in spans], dtype=float)),
            _column("phase", "Name of the phase.", [s.name for s in spans]),
            *_ragged("tags", "Name of the phase.", [[s.name] for s in spans]),  # where readers such as Neo's look
            _column("trial", "Number of the trial.", np.array([s.trial for s in spans], dtype=np.int64)),
        ],
    )
    return epochs, pynwb.epoch.TimeIntervals(
        name="trials",
        description="Trials: presentations of a batch of samples, from the first to the last recorded phase.",
        columns=[
            _column("start_time", "Start in seconds.", np.array([t[0].start for t in trials.values()], dtype=float)),
            _column("stop_time", "Stop in seconds.", np.array([t[-1].stop for t in trials.values()], dtype=float)),
            _column("trial", "Number of the trial.", np.array(list(trials), dtype=np.int64)),
        ],
    )


def _units(pynwb: Any, traces: Traces, found: list[Train]) -> Any:
    recorded = np.array(observed(traces)).reshape(-1, 2)
    dt = traces.metadata.get("dt")
    return pynwb.misc.Units(
        name="units",
        description="Simulated cells; a row per cell and sample of the batch, silent cells included.",
        resolution=seconds(dt) if isinstance(dt, str) else None,
        columns=[
            *_ragged("spike_times", "Spike times in seconds.", [train.times for train in found]),
            *_ragged("obs_intervals", "Recorded time in seconds.", [recorded] * len(found)),
            *_ragged("spike_samples", "Number of the sample at each spike.", [train.samples for train in found]),
            _column("population", "Population of the cell.", [train.population for train in found]),
            _column("cell", "Number of the cell in its population.", np.array([train.cell for train in found])),
            _column("position", "Position of the sample in the batch.", np.array([train.position for train in found])),
        ],
    )


def _weights(projection: str, weights: Any, trials: np.ndarray, unit: str) -> Any:
    from hdmf.common import DynamicTable

    return DynamicTable(
        name=_weights_name(projection),
        description=f"Weights of the projection {projection}; a row per snapshot, each of shape {tuple(weights.shape[1:])}.",
        columns=[
            _column("trials_presented", "Trials presented before the snapshot.", np.asarray(trials, dtype=np.int64)),
            _column("weights", f"The weights ({unit}).", _empty(_stored_shape(weights.shape), weights.dtype)),
        ],
    )


def _stored_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A column of a table has four axes at most."""
    return shape if len(shape) <= 4 else (shape[0], math.prod(shape[1:]))


# ------------------------------------------------------------------------------------------------- large arrays


def _large(traces: Traces) -> int:
    """Bytes of the arrays that are filled in last."""
    arrays = [*traces.values.values(), *traces.weights.values()]
    return sum(math.prod(array.shape) * array.dtype.itemsize for array in arrays)


def _fill(file: Any, traces: Traces) -> None:
    batch = traces.batch
    for name, values in traces.values.items():
        data = [file[f"acquisition/{_name(name, position, batch)}/data"] for position in range(batch)]
        for rows in blocks(len(values), values):
            block = np.asarray(values[rows])
            for position in range(batch):
                data[position][rows] = block[:, position]
    for name, weights in traces.weights.items():
        data = file[f"analysis/{_weights_name(name)}/weights"]
        for rows in blocks(len(weights), weights):
            block = np.asarray(weights[rows])
            data[rows] = block.reshape(len(block), *data.shape[1:])


# -------------------------------------------------------------------------------------------------------- reading


def from_nwb(path: str | os.PathLike[str]) -> Traces:
    """Read a file that `to_nwb` wrote, into memory.

    Raises
    ------
    NeurosimError
        PyNWB is not installed; no such file, no NWB file, or one that was not written by `to_nwb` or by a newer
        version.
    """
    pynwb = optional("pynwb", "nwb")
    path = user_path(path)
    if not path.is_file():
        raise NeurosimError(f"There is no NWB file '{path}'; neurosim.export.to_nwb writes one.")
    try:
        stored = h5py.File(path, "r")
    except OSError as error:
        raise NeurosimError(f"'{path}' is no HDF5 file, as NWB files are, or it is truncated: {error}") from error
    with stored, readable(path):
        contained.check(stored, path, nwb=True)
        if "nwb_version" not in stored.attrs:
            raise NeurosimError(f"'{path}' is an HDF5 file but no NWB file.")
        with pynwb.NWBHDF5IO(file=stored, mode="r") as reader:
            return _traces(reader.read(), path)


def _traces(file: Any, path: Path) -> Traces:
    try:
        notes = json_table(file.notes or "", path, {"neurosim": int})
    except NeurosimError:
        raise NeurosimError(f"'{path}' is an NWB file but was not written by neurosim.export.to_nwb.") from None
    if notes["neurosim"] > FORMAT:
        raise NeurosimError(
            f"'{path}' has layout {notes['neurosim']}; this version reads up to {FORMAT}. Update neurosim."
        )
    of_types(notes, path, NOTES, {"spike_cells": CELLS, "spike_span": tuple[float, float] | None}, part="notes")
    time = file.scratch["time"].data[()]
    if not np.isfinite(time).all():
        raise damaged(path, "'scratch/time' holds NaN or infinity")
    batch = notes["batch"]
    values = {
        name: np.stack([file.acquisition[_name(name, position, batch)].data[()] for position in range(batch)], axis=1)
        for name in notes["units"]
        if name not in notes["weights"]
    }
    phases = []
    if file.epochs is not None:
        phases = phase_spans(*(file.epochs[name][:] for name in ("phase", "trial", "start_time", "stop_time")))
    weights, trials = {}, np.empty(0, dtype=np.int64)
    for name, shape in notes["weights"].items():
        table = file.analysis[_weights_name(name)]
        trials = table["trials_presented"][:]
        weights[name] = table["weights"][:].reshape(len(trials), *shape)
    return Traces(
        time,
        values,
        notes["units"],
        phases,
        notes["metadata"],
        _spikes(file, notes["spiking"]),
        {population: np.array(cells, dtype=np.int64) for population, cells in notes["cells"].items()},
        weights,
        trials,
        spike_cells={p: np.array(cells, dtype=np.int64) for p, cells in notes.get("spike_cells", {}).items()},
        spike_span=tuple(notes["spike_span"]) if notes.get("spike_span") else None,
    )


def _spikes(file: Any, populations: list[str]) -> dict[str, Any]:
    found: dict[str, list[Train]] = {population: [] for population in populations}
    if file.units is not None:
        columns = (file.units[name][:] for name in ("population", "cell", "position", "spike_times", "spike_samples"))
        for row in zip(*columns, strict=True):
            found[row[0]].append(Train(*row))
    return {population: spikes_of(rows) for population, rows in found.items()}
