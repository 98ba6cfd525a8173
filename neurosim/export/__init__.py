"""Recorded traces in the formats of other programs: Neo objects, NWB files, CSV tables."""

from neurosim.export.csv import to_csv
from neurosim.export.neo import from_neo, to_neo
from neurosim.export.nwb import from_nwb, to_nwb

__all__ = ["from_neo", "from_nwb", "to_csv", "to_neo", "to_nwb"]
