"""BAC firing of a spiking three-compartment pyramidal cell: four protocols, one cell each.

Larkum, Zhu & Sakmann 1999 found the phenomenon: a back-propagating action potential that meets apical input sets off a
calcium plateau in the apical dendrite and a burst at the soma. Equations and constants are ours (see
`neurosim.parts.bac_pyramidal`), none is the paper's.
"""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge

from neurosim import Circuit, Citation, Fragment, OneToOne, Phase, Population, Projection, Protocol
from neurosim.checks import PositiveTime, Time, checked
from neurosim.parts import bac_pyramidal, current_step, epsc

#: The paper of the phenomenon.
PAPER = Citation(
    "A new cellular mechanism for coupling inputs arriving at different cortical layers",
    "Larkum, M. E. and Zhu, J. J. and Sakmann, B.",
    1999,
    "@article{larkum1999coupling, journal = {Nature}, volume = {398}, pages = {338--341}}",
    note="the phenomenon; equations and constants are ours",
)

#: somatic step and apical EPSC (peak) of each protocol, in pA
PROTOCOLS = {
    "soma_step": (1700, 0),
    "apical_weak": (0, 600),
    "both": (1700, 600),
    "apical_strong": (0, 2600),
}


@checked
def circuit(
    onset: Annotated[Time, Ge(0)] = "60*ms", lag: Time = "5*ms", duration: PositiveTime = "300*ms"
) -> Circuit:  # fmt: skip
    """One cell per protocol: a brief step into the soma, weak apical input, both, strong apical input.

    Parameters
    ----------
    onset
        When the somatic step (1700 pA for 5 ms) begins.
    lag
        How much later the apical EPSC (rise 1 ms, decay 8 ms) begins; from -20 to 10 ms `both` bursts.
    duration
        Length of the trial.
    """
    populations, projections = [], []
    for name, (soma, apical) in PROTOCOLS.items():
        populations.append(Population(name, 1, bac_pyramidal()))
        for port, cell, on in (
            ("I_s", current_step(f"{soma}*pA", onset, "5*ms"), soma),
            ("I_a", epsc(f"{apical}*pA", f"{onset} + {lag}"), apical),
        ):  # fmt: skip
            if on:
                electrode = f"{name}_{port}"
                populations.append(Population(electrode, 1, cell))
                projections.append(
                    Projection(f"into_{electrode}", electrode, f"{name}.{port}", connectivity=OneToOne())
                )
    return Circuit(
        "bac_firing", Fragment(populations, projections), Protocol((Phase("trial", duration),), dt="0.05*ms"),
        citations=(PAPER,),
    )  # fmt: skip
