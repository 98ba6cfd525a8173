"""BAC firing of a spiking three-compartment pyramidal cell: four protocols, one cell each.

M. E. Larkum, J. J. Zhu, B. Sakmann, Nature 398:338-341, 1999, found the phenomenon: a back-propagating action potential
that meets apical input sets off a calcium plateau in the apical dendrite and a burst at the soma. OURS: equations and
constants (see `neurosim.parts.bac_pyramidal`); none is the paper's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from neurosim import Cell, Circuit, Citation, OneToOne, Phase, Population, Projection, Protocol
from neurosim.checks import PositiveTime, Time
from neurosim.parts import bac_pyramidal, current_step, epsc
from neurosim.settings import ModelSettings, Parts, model

PAPER = Citation(
    "A new cellular mechanism for coupling inputs arriving at different cortical layers",
    "Larkum, M. E. and Zhu, J. J. and Sakmann, B.", 1999,
    "@article{larkum1999coupling, journal = {Nature}, volume = {398}, pages = {338--341}}",
    note="the phenomenon; equations and constants are ours",
)  # fmt: skip

#: Somatic step and apical EPSC (peak) of each protocol, in pA.
PROTOCOLS = {"soma_step": (1700, 0), "apical_weak": (0, 600), "both": (1700, 600), "apical_strong": (0, 2600)}


@dataclass(frozen=True)
class Settings(ModelSettings):
    """Settings of the four protocols."""

    #: When the somatic step (5 ms) begins.
    onset: Annotated[Time, Ge(0)] = "60*ms"
    #: How much later the apical EPSC (rise 1 ms, decay 8 ms) begins; from -20 to 10 ms `both` bursts.
    lag: Time = "5*ms"
    #: Length of the trial.
    duration: PositiveTime = "300*ms"


@model(Settings)
def circuit(s: Settings) -> Circuit:
    """One cell per protocol: a brief step into the soma, weak apical input, both, strong apical input."""
    parts: Parts = []
    for name, (soma, apical) in PROTOCOLS.items():
        parts.append(Population(name, 1, bac_pyramidal()))
        if soma:
            parts += electrode(name, "I_s", current_step(f"{soma}*pA", s.onset, "5*ms"))
        if apical:
            parts += electrode(name, "I_a", epsc(f"{apical}*pA", f"{s.onset} + {s.lag}"))
    return Circuit("bac_firing", parts, Protocol((Phase("trial", s.duration),), dt="0.05*ms"), citations=(PAPER,))


def electrode(cell: str, port: str, current: Cell) -> Parts:
    """An electrode of its own in one compartment of a cell."""
    name = f"{cell}_{port}"
    return [
        Population(name, 1, current),
        Projection(f"into_{name}", name, f"{cell}.{port}", connectivity=OneToOne()),
    ]
