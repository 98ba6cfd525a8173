"""The dendritic microcircuit with its rules on at different times (ours): W learns in the nudged phase only.

In the published circuit, and in the model, all rules are always on. `neurosim train .../apart.py:circuit` trains this one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from neurosim import Circuit, Phase
from neurosim.models import dendritic_microcircuit

LATERAL = ("interneuron", "apical")


def circuit(
    sizes: tuple[int, ...] = (64, 64, 32, 10),
    feedback: str = "sym",
    lateral: str = "self_predicting",
    eta: float = 0.1,
    eta_lateral: float = 0.1,
    gain: float = 8.0,
    target: tuple[float, float] = (-2.0, 2.0),
    biases: bool = True,
    tau_w: str = "off",
    lateral_rules: str = "free",
) -> Circuit:
    """W learns in the nudged phase; IP and PI in the free phase (`lateral_rules` ``free``) or in both (``always``).

    The other settings are the model's.
    """
    whole = dendritic_microcircuit.circuit(
        sizes, feedback=feedback, lateral=lateral, eta=eta, eta_lateral=eta_lateral, gain=gain, target=target,
        biases=biases, tau_w=tau_w,
    )  # fmt: skip
    on = {"free": LATERAL, "taught": ("feedforward", *(LATERAL if lateral_rules == "always" else ()))}
    phases = tuple(replace(p, plastic=on[p.name]) for p in whole.protocol.phases if isinstance(p, Phase))
    return replace(whole, protocol=replace(whole.protocol, phases=phases))


def training(settings: Mapping[str, Any], dataset: str) -> dict[str, Any]:
    """The model's preset, with all three rules through Adam."""
    preset = dendritic_microcircuit.training(settings, dataset) | {"lateral": "self_predicting"}
    return preset | {"optimise": ("feedforward", *LATERAL), "learning_rate": 0.005, "gain": 4.0}
