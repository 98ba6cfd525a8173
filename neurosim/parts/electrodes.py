"""Electrodes: currents at given times, counted from the start of each trial.

Connect one with `OneToOne` to a cell's current port.
"""

from __future__ import annotations

import math

from neurosim.description import Cell
from neurosim.equations import seconds
from neurosim.errors import NeurosimError


def current_step(amplitude: str = "100*pA", onset: str = "0*ms", duration: str = "5*ms") -> Cell:
    """A current step in each trial: I = amplitude for onset <= t_trial < onset + duration, else 0."""
    return Cell(
        "current step",
        "I = amplitude*int(t_trial >= onset)*int(t_trial < onset + duration) : amp",
        rate="I",
        parameters={"amplitude": amplitude, "onset": onset, "duration": duration},
    )


def epsc(peak: str = "100*pA", onset: str = "0*ms", rise: str = "1*ms", decay: str = "8*ms") -> Cell:
    """An excitatory postsynaptic current of given peak in each trial.

    I = peak f(s)/max f, f(s) = exp(-s/decay) - exp(-s/rise), s = t_trial - onset.
    """
    fast, slow = seconds(rise), seconds(decay)
    if not 0 < fast < slow:
        raise NeurosimError(f"rise = {rise}, decay = {decay}: wanted 0 < rise < decay.")
    top = math.log(slow / fast) * fast * slow / (slow - fast)
    return Cell(
        "EPSC",
        """
        since = (t_trial - onset)*int(t_trial > onset) : second
        I = peak*scale*(exp(-since/decay) - exp(-since/rise)) : amp
        """,
        rate="I",
        parameters={
            "peak": peak, "onset": onset, "rise": rise, "decay": decay,
            "scale": 1 / (math.exp(-top / slow) - math.exp(-top / fast)),
        },
    )  # fmt: skip
