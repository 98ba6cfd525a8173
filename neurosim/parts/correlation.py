"""Interneurons that learn the inverse correlation of the rates of a population, and one that bounds their sum.

Bozkurt, Pehlevan & Erdogan 2023 (arXiv 2306.04810). Each function returns the populations and projections beside the
population `cells`; `l` ends their names.
"""

from __future__ import annotations

from collections.abc import Mapping

from neurosim.description import (
    Cell,
    Constant,
    Gram,
    InverseCorrelation,
    Measure,
    OneToOne,
    PlasticityRule,
    Population,
    Projection,
    Ratio,
    Relaxation,
    SmallestEigenvalue,
)

Parts = list[Population | Projection]


def inverse_correlation(cells: str, l: int, n: int, lam: float, form: str, tau: str) -> Parts:
    """Lateral interneurons z, one for each of the n cells: ``tau dz/dt = r B - z``; B learns the inverse correlation.

    With gamma = (1 - lam)/lam, ``B <- B/lam - (gamma/lam) mean z z^T``, in the last `tau` of the phases in which the rule
    ``lateral`` is on. The cells have the port `z` and, unless the form is ``published``, ``gamma`` and
    ``power = pool(r*z)``.

    Parameters
    ----------
    form
        ``published``: without a denominator, loses definiteness unless lam is near 1. ``rank_one``: each sample's z z^T over
        1 + gamma r z, exact for one sample; the mean of a batch stays positive definite. ``woodbury``: the exact
        inverse for the whole batch.
    """
    exact = form == "woodbury"
    share = "" if form == "published" else "/(1 + gamma_pre*power_pre)"
    rule = PlasticityRule(
        "lateral",
        f"dw/dt = gamma/T_gate*(w - z_post*z_pre{share}/lam)",
        {"gamma": (1 - lam) / lam, "lam": lam, "T_gate": tau},
        apply="trial",
        symmetric=not exact,
        exact=InverseCorrelation("r", lam) if exact else None,
    )
    text = "dz/dt = (I_lat - z)/tau_i : 1\nI_lat : 1 (port)"
    return [
        Population(f"int{l}", n, Cell("lateral interneuron", text, {"tau_i": tau}, rate="z")),
        Projection(f"B{l}", cells, f"int{l}.I_lat", Gram(), rule),
        Projection(f"Z{l}", f"int{l}", f"{cells}.z", connectivity=OneToOne()),
    ]


def contrastive_prediction(name: str, drive: str, eta: float, window: str) -> PlasticityRule:
    """Prediction error times presynaptic rate, nudged minus free, over beta with its sign: ``(r - drive) r_pre``.

    The phases set the shared values ``contrast`` and ``beta``; they are read in the last `window` of each.
    """
    change = f"dw/dt = contrast*eta/(beta*T_gate)*(r_post - {drive}_post)*r_pre"
    return PlasticityRule(name, change, {"eta": eta, "T_gate": window}, apply="trial")


def correlation_measures(layers: range, lam: float, form: str) -> dict[str, Measure]:
    """Whether B stays definite, and the lateral share ``v_lat`` of the apical potential (the rest: ``v_rest``) bounded."""
    now = f"(lam = {lam:g}, lateral = {form})"
    share = (tuple(f"pyr{l}.{v}" for l in layers) for v in ("v_lat", "v_rest"))
    grown = f"B grows as lam^-t where rates never point: use lam nearer to 1 {now}"
    cure = f"use --set lateral=woodbury, or lam nearer to 1 {now}"
    lateral: dict[str, Measure] = {"lateral_share": Ratio(*share, phase="free", limit=100, cure=grown)}
    return lateral | {f"smallest_eigenvalue_{l}": SmallestEigenvalue(f"B{l}", cure) for l in layers}


def sum_bound(cells: str, l: int, tau: str) -> Parts:
    """An interneuron q, the Lagrange multiplier of sum r <= 1: ``tau dq~/dt = -q~ + (sum r - 1) + q``, q = max(0, q~).

    The cells have the port `I_q`, which inhibits.
    """
    text = "dqt/dt = (-qt + (R_tot - 1) + q)/tau_q : 1\nq = clip(qt, 0, inf) : 1\nR_tot : 1 (port)"
    return [
        Population(f"spa{l}", 1, Cell("sparsity interneuron", text, {"tau_q": tau}, rate="q")),
        Projection(f"S{l}", cells, f"spa{l}.R_tot", Constant(1)),
        Projection(f"Q{l}", f"spa{l}", f"{cells}.I_q", Constant(1)),
    ]


def layerwise(
    layers: range,
    lateral: bool,
    sparse: bool,
    sweeps: Mapping[str, int],
    dt: str,
    slowing: float = 0.0,
    floor: str = "0*ms",
) -> Relaxation:
    """The published scheme: layer after layer, each with the latest rates of the one below.

    In each layer the lateral interneurons go first and follow their drives at once; the sparsity one goes last, with a step of
    its own, `dt`, in every sweep. All but the first phase begin at what the one before showed: at clipped rates, and at
    multipliers of at least 0, however far below it their state had fallen.
    """
    order = (f"{kind}{l}" for l in layers for kind in ("int" * lateral, "pyr", "spa" * sparse) if kind)
    shown = {f"pyr{l}.u": "r" for l in layers} | {f"spa{l}.qt": "q" for l in layers if sparse}
    return Relaxation(
        tuple(order),
        sweeps,
        dt,
        slowing,
        floor,
        unslowed=tuple(f"spa{l}" for l in layers if sparse),
        instant=tuple(f"int{l}" for l in layers if lateral),
        restart=dict.fromkeys(list(sweeps)[1:], shown),
    )
