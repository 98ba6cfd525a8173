"""What is computed from runs: the feed-forward reference and its gradient, alignment."""

from neurosim.analysis.alignment import cosine
from neurosim.analysis.reference import ReferenceNet

__all__ = ["ReferenceNet", "cosine"]
