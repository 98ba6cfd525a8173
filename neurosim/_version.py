"""The version of neurosim."""

__version__ = "0.2.0"
