"""How alike a population's rates r and its apical copy v_a of another's are: a third factor, and the pull towards the other.

Texts for any cell with a rate r and an apical potential v_a. Dot products and cosines, and the repulsion of overlapping
patterns, are READ in Kao & Hariharan 2024 (arXiv 2409.19841); their gradients are DERIVED.
"""

from __future__ import annotations

#: ``match = sum_i r_i v_a,i``; its gradient in r is v_a.
DOT_PRODUCT = """
    match = pool(r*v_a) : 1
    """
#: ``match = r.v_a/(|r| |v_a|)``; its gradient in r is `towards`: through the norm, the share along the cell's own pattern
#: comes off (Oja 1982). Parameters: ``COSINE_VALUES``.
COSINE = """
    match   = pool(r_hat*a_hat) : 1
    towards = (a_hat - r*(match/(norm + tiny)))/(norm + eps) : 1
    r_hat   = r/(norm + eps) : 1
    a_hat   = v_a/(sqrt(power_a) + eps) : 1
    norm    = sqrt(power) : 1
    power   = pool(r**2) : 1
    power_a = pool(v_a**2) : 1
    """
COSINE_VALUES = {"eps": 1e-8, "tiny": 1e-30}
#: For cells with `COSINE`: `apart` leads samples apart whose patterns overlap, of those whose pattern is `shown`
#: (``shown = r_hat : 1`` for all). It needs the whole batch at once: the steady level only.
APART = """
    apart = (crowd - r_hat*(along/(norm + tiny)))/(norm + eps) : 1
    crowd = overlap(shown) : 1
    along = pool(r*crowd) : 1
    """
