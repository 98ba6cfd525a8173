"""Recorded traces: what to record, what was recorded, and its file."""

from neurosim.traces.recorder import Recorder
from neurosim.traces.spans import PhaseSpan, Spikes
from neurosim.traces.traces import Traces

__all__ = ["PhaseSpan", "Recorder", "Spikes", "Traces"]
