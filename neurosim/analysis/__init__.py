"""What is computed from runs: the feed-forward reference and its gradient, alignment.

What runs a circuit is imported from its module (`representations`, `updates`): figures compute with
the functions named here, and a run can be drawn.
"""

from neurosim.analysis.alignment import cka, cosine
from neurosim.analysis.reference import ReferenceNet, cosines_with_gradient

__all__ = ["ReferenceNet", "cka", "cosine", "cosines_with_gradient"]
