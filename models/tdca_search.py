"""TDCA as an optimiser: two parameters move down an unknown landscape by the credits of a top-down network that sees no slope.

J.-H. Chen, C.-L. Liu, Z. Wang, arXiv 2208.01416. READ in the abstracts: optimisation of functions that are not convex, with paths that pass local
minima. NOT FOUND: the functions, what the top-down net sees, any number. OURS: all that follows (see `tdca` for the circuit's other parts).

    parameter   tau_s du/dt = -u + w r_one            r = u: the place h, one cell for each coordinate
    apical      tau_a dv_a/dt = -v_a + c              c: the credit
    seen        [h/box, f_t, f_{t-1}, h_t - h_{t-1}]  clamped (values squashed): no slope and no place of a minimum
    top-down    two tanh layers, linear release sites, as in `tdca`

    dw = -eta v_a r_one

One trial is one step of the search; `neurosim.training.evolution.search` presents them and evolves the top-down weights (602 for the default).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from neurosim import SOURCE, Cell, Circuit, Phase, PlasticityRule, Population, Projection, Protocol, Uniform
from neurosim.checks import Cells, Positive
from neurosim.models import tdca
from neurosim.parts import Release, credit_network
from neurosim.settings import ModelSettings, computed, model

PAPER = replace(
    tdca.PAPER, note="of the paper only the abstract speaks of functions; everything here is a reconstruction."
)


@dataclass(frozen=True)
class Settings(ModelSettings):
    """Settings of a searcher."""

    #: Cells of each of the top-down net's two layers.
    hidden: Cells = 20
    #: Parameters of the function.
    dimensions: Cells = 2
    #: Numbers that the top-down net sees: place, two values, last move.
    seen: Cells = computed(lambda s: 2 * s.dimensions + 2)
    #: Starts are drawn from U(-box, box).
    box: Positive = 4.0
    #: Time before the weights learn (ms).
    settle: Positive = 300.0
    #: Step of the search: ``h <- h - eta c``.
    eta: Positive = 0.5


PARAMETER = Cell(
    "parameter",
    """
    du/dt = (-u + I_basal)/tau_s : 1
    dv_a/dt = (-v_a + I_apical)/tau_a : 1
    r = u : 1
    I_basal : 1 (port)
    I_apical : 1 (port)
    """,
    tdca.TIMES,
)


@model(Settings)
def circuit(s: Settings) -> Circuit:
    """A place that moves by the credits of a top-down network, which sees no slope."""
    values = {"eta": s.eta, "T_learn": f"{tdca.GATE}*ms"}
    learns = PlasticityRule("credit", "dw/dt = -eta/T_learn*v_a_post*r_pre", values, apply="trial")
    return Circuit(
        "tdca_search",
        [
            Population("seen", s.seen, SOURCE),
            Population("par", s.dimensions, PARAMETER),
            Projection("W", "one", "par.I_basal", Uniform(-s.box, s.box), learns),
            *credit_network([("seen", s.seen)], s.hidden, [Release("par", s.dimensions, s.dimensions)]),
        ],
        Protocol(
            (Phase("settle", f"{s.settle}*ms"), Phase("learn", f"{tdca.GATE}*ms", plastic=("credit",))),
            {"seen.r": "image"},
            dt=tdca.DT,
        ),
        citations=(PAPER,),
    )
