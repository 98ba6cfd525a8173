"""Recorded traces: what to record, what was recorded, and its file."""

from neurosim.traces.recorder import Recorder
from neurosim.traces.traces import PhaseSpan, Spikes, Traces

__all__ = ["PhaseSpan", "Recorder", "Spikes", "Traces"]
