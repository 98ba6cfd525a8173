"""What is computed from runs: the feed-forward reference and its gradient, alignment."""

from neurosim.analysis.alignment import cka, cosine
from neurosim.analysis.reference import ReferenceNet, cosines_with_gradient

__all__ = ["ReferenceNet", "cka", "cosine", "cosines_with_gradient"]
