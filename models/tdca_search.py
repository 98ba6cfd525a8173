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

from dataclasses import replace

from neurosim import SOURCE, Cell, Circuit, Phase, PlasticityRule, Population, Projection, Protocol, Uniform
from neurosim.checks import Cells, Positive, checked
from neurosim.models.tdca import DT, GATE, PAPER, TAU_A, TAU_S, Release, credit_network

PARAMETER = Cell(
    "parameter",
    """
    du/dt = (-u + I_basal)/tau_s : 1
    dv_a/dt = (-v_a + I_apical)/tau_a : 1
    r = u : 1
    I_basal : 1 (port)
    I_apical : 1 (port)
    """,
    parameters={"tau_s": f"{TAU_S}*ms", "tau_a": f"{TAU_A}*ms"},
)


@checked
def circuit(
    hidden: Cells = 20, dimensions: Cells = 2, seen: Cells | None = None, box: Positive = 4.0, settle: Positive = 300.0, eta: Positive = 0.5
) -> Circuit:  # fmt: skip
    """A searcher.

    Parameters
    ----------
    hidden
        Cells of each of the top-down net's two layers.
    dimensions
        Parameters of the function.
    seen
        Numbers that the top-down net sees (default 2 dimensions + 2: place, two values, last move).
    box
        Starts are drawn from U(-box, box).
    settle
        Time before the weights learn (ms).
    eta
        Step of the search: ``h <- h - eta c``.
    """
    seen = 2 * dimensions + 2 if seen is None else seen
    learns = PlasticityRule(
        "credit", "dw/dt = -eta/T_learn*v_a_post*r_pre", {"eta": eta, "T_learn": f"{GATE}*ms"}, apply="trial"
    )
    top_down, down = credit_network([("seen", seen)], hidden, [Release("par", dimensions, dimensions)])
    return Circuit(
        "tdca_search",
        [Population("seen", seen, SOURCE), Population("par", dimensions, PARAMETER), *top_down,
         Projection("W", "one", "par.I_basal", Uniform(-box, box), learns), *down],
        Protocol(
            (Phase("settle", f"{settle}*ms"), Phase("learn", f"{GATE}*ms", plastic=("credit",))),
            clamps={"seen.r": "image"}, dt=f"{DT}*ms",
        ),
        citations=(
            replace(
                PAPER, note="of the paper only the abstract speaks of functions; everything here is a reconstruction."
            ),
        ),
    )  # fmt: skip
