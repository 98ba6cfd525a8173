"""The recording of a run: its rows and spikes."""

from __future__ import annotations

from typing import Any

import numpy as np

from neurosim.backends.stepping.memory import Memory
from neurosim.traces.recording import Recording


class Rows:
    """Writes rows to a recording; in one call, where all that is recorded is whole arrays."""

    def __init__(self, recording: Recording, memory: Memory):
        self.recording, self.memory = recording, memory
        self._sources = [(memory.state[c.population], c.variable) for c in recording.columns]
        self._whole: bool | None = None  # None: not known of this phase yet

    def begin(self) -> None:
        """A phase begins: other variables may be whole arrays now."""
        self._whole = None

    def keep(self, step: int, last: bool) -> None:
        """Write the row of a step, if it is due; the `last` of a phase has its own program."""
        recording = self.recording
        if not recording.due(step):
            return
        rows, k = recording.begin_row()
        if rows.shared is None:
            rows.shared = self.memory.arrays.shared(rows.rows)
        values = [state[variable] for state, variable in self._sources]
        if self._whole is None or last:
            self._whole = rows.shared is not None and self._are_whole(values)
        if not self._whole or rows.shared is None:
            recording.row(step, self.memory.look)
            return
        if recording.recorder.cells:
            columns = zip(recording.columns, values, strict=True)
            values = [v if c.cells is None else v[:, c.cells] for c, v in columns]
        self.memory.arrays.join(values, rows.shared[k])
        recording.end_row(step)

    def _are_whole(self, values: list[Any]) -> bool:
        batch, populations = self.memory.batch, self.memory.plan.populations
        return all(
            getattr(value, "shape", ()) == (batch, populations[c.population].n)
            for c, value in zip(self.recording.columns, values, strict=True)
        )

    def note_spikes(self, step: int) -> None:
        """Keep the spikes of a step."""
        for p in self.memory.plan.populations.values():
            if p.spiking:
                fired = self.memory.look(p.name, "spike_train")
                self.recording.note_spikes(p.name, step, *np.nonzero(fired))
