"""Ghost units: interneurons that predict the top-down feedback onto a cell, so that it cancels without a target."""

from __future__ import annotations

from neurosim.description import Cell
from neurosim.parts.transfer import transfer as transfer_text

#: The centred, normalised presynaptic rate ``(r - <r>)/(0.1 + sum (r - <r>)^2)`` that a cancelling weight learns
#: with; the port `I_mean` brings the slow running mean <r>. For the text of any cell with a rate r.
CENTRED = """
    centred = (r - I_mean)/(0.1 + power) : 1
    power   = pool((r - I_mean)**2) : 1
    I_mean : 1 (optional port)
    """


def ghost_unit(transfer: str = "logistic", tau: str = "10*ms") -> Cell:
    """A ghost that predicts the rate of a cell of the layer above: ``tau du/dt = -u + I_in + I_bias``, ``r = rho(u)``.

    The optional port `I_above` brings its partner's potential, which a rule may compare with u (ghosts that learn).
    Reconstruction of Mesnard et al. 2019.
    """
    return Cell(
        "ghost",
        f"""
        du/dt = (-u + a)/tau : 1
        a     = I_in + I_bias : 1
        r     = {transfer_text(transfer)} : 1
        I_in : 1 (port)
        I_bias : 1 (port)
        I_above : 1 (optional port)
        """
        + CENTRED,
        {"tau": tau},
    )


def tracking_ghost(tau: str = "10*ms") -> Cell:
    """A ghost that follows its port `I_fb` while the shared value `tracking` is 1, and holds it while that is 0.

    ``tau du/dt = tracking (I_fb - u)``; it sends u. Reconstruction of Mesnard et al. 2019.
    """
    text = "du/dt = tracking*(I_fb - u)/tau : 1\nI_fb : 1 (port)\ntracking : 1 (shared)"
    return Cell("tracking ghost", text, {"tau": tau}, rate="u")
