"""CorInfoMax of Bozkurt, Pehlevan & Erdogan 2023: pyramidal cells whose interneurons learn an inverse correlation.

B. Bozkurt, C. Pehlevan, A. T. Erdogan, "Correlative Information Maximization: A Biologically Plausible Approach to Supervised Deep
Neural Networks without Weight Symmetry", NeurIPS 2023, arXiv 2306.04810. READ in the authors' public code: dynamics, rules, constants,
learning rates, the order of updates; in a follow-up (arXiv 2504.11558): M, tau_u and g_lk by name; in a figure: three compartments, one
lateral interneuron per cell. NOT READ: the paper's body. OURS: all times in ms, the interneuron's time constant, one interneuron for
the whole of a cell's row of B (the figure keeps the diagonal apart as an autapse; here the autapse is g_lk r), the names of the ports.

    hidden   tau_u du/dt = -g_lk u + (v_B - u)/eps + (v_A - u)/eps      v_B = r_{k-1} W_k
             v_A = r_{k+1} F_k + eps (2 gamma z + g_lk r) [- eps q]     r = clip(u, 0, 1), sparse set: clip(u, 0, inf)
    output   tau_u du/dt = -g_lk u + (v_B - u)/eps + (v_A - u)          v_A = gamma z + g_lk r + beta (y - r) [- q]
    lateral  tau_i dz/dt = r B - z                                      gamma = (1 - lam)/lam
    sparsity tau_q dq~/dt = -q~ + (sum r - 1) + q                       q = max(0, q~), one cell per layer, sparse set only
             in the published relaxation u begins each later phase at r, and q~ at q (READ)

    dW = eta_ff/beta (mean (r_k - v_B) r_{k-1} nudged - free)           basal prediction error of the cell times presynaptic rate
    dF = eta_fb/beta (mean (r_k - v_fb) r_{k+1} nudged - free)          v_fb = r_{k+1} F_k, the tuft's share of v_A
    dB = gamma B - (gamma/lam) mean z z^T nudged                        lateral="published"; others: see `circuit`

The entropy of a layer (B) and the prediction errors of its two neighbours are what each cell climbs; the label is a weak nudge of
the output, its sign drawn anew for each batch.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from annotated_types import Ge, Gt, Lt

from neurosim import (
    SOURCE,
    Angle,
    Cell,
    Circuit,
    Citation,
    Constant,
    FeedForward,
    Fragment,
    Glorot,
    Gram,
    OneToOne,
    Phase,
    PlasticityRule,
    Population,
    Projection,
    Protocol,
    RandomSign,
    Ratio,
    Readout,
    Relaxation,
    Silent,
    SmallestEigenvalue,
)
from neurosim.checks import In, NotNegative, Positive, PositiveTime, Sizes, checked
from neurosim.equations import seconds
from neurosim.parts import InverseCorrelation
from neurosim.errors import NeurosimError

#: The paper.
PAPER = Citation(
    "Correlative Information Maximization: A Biologically Plausible Approach to Supervised Deep Neural Networks without "
    "Weight Symmetry",
    "Bozkurt, B. and Pehlevan, C. and Erdogan, A. T.",
    2023,
    """@inproceedings{bozkurt2023correlative,
      booktitle = {Advances in Neural Information Processing Systems 36}, eprint = {2306.04810}, archivePrefix = {arXiv}
    }""",
    note="equations and constants read in the authors' code; times in ms are ours; see the module's text",
)

RATES = {"box": "clip(u, 0, 1)", "sparse": "clip(u, 0, inf)"}
LATERAL = ("auto", "published", "rank_one", "woodbury", "none")
NUDGING = ("one_sided", "symmetric")
STEP_RULES = ("constant", "slow")
#: Gain of the last layer's initial weights: 0.2 keeps output cells from being silent from the start.
INIT = {"scaled": 0.2, "published": 1.0}

#: Settings and schedules READ in the authors' scripts (the first, or best, of each group; `digits` is OURS: MNIST's on a small net).
#: The learning rates of epoch e (from 0) are `decay`^e, from `final_after` on `final_decay`^e. The *_4layer and *_5layer ones are
#: unstable in the authors' own trials.
PRESETS: dict[str, dict[str, Any]] = {
    "digits": dict(sizes=(64, 100, 10), eta_ff=(1.0, 0.7), eta_fb=(0.15,), step_rule="slow", epochs=30),
    "digits_sparse": dict(
        sizes=(64, 100, 10), constraint="sparse", eta_ff=(1.0, 0.7), eta_fb=(0.12,), steps_free=20, steps_nudged=4, epochs=30
    ),
    "mnist": dict(sizes=(784, 500, 10), eta_ff=(1.0, 0.7), eta_fb=(0.15,)),
    "mnist_slow": dict(sizes=(784, 500, 10), eta_ff=(1.0, 0.7), eta_fb=(0.15,), step_rule="slow"),
    "mnist_3layer": dict(sizes=(784, 500, 500, 10), eta_ff=(1.1, 0.75, 0.6), eta_fb=(0.17, 0.07)),
    "mnist_sparse": dict(
        sizes=(784, 500, 10), constraint="sparse", eta_ff=(1.0, 0.7), eta_fb=(0.12,), steps_free=20, steps_nudged=4
    ),
    "fashion_mnist": dict(
        sizes=(784, 500, 10), eta_ff=(0.3, 0.22), eta_fb=(0.07,), mu=0.07, step_rule="slow", g_lk=0.3, final_after=20
    ),
    "fashion_mnist_sparse": dict(
        sizes=(784, 500, 10), constraint="sparse", eta_ff=(0.35, 0.23), eta_fb=(0.06,), mu=0.045, step_rule="slow", steps_free=20,
        g_lk=0.2, final_after=11,
    ),
    "cifar10": dict(
        sizes=(3072, 1000, 10), eta_ff=(0.08, 0.04), eta_fb=(0.04,), g_lk=0.1, lam=0.99995, normalise="corinfomax"
    ),
    "cifar10_3layer": dict(
        sizes=(3072, 1000, 500, 10), eta_ff=(0.11, 0.06, 0.035), eta_fb=(0.045, 0.015), g_lk=0.1, normalise="corinfomax"
    ),
    "cifar10_sparse": dict(
        sizes=(3072, 1000, 10), constraint="sparse", eta_ff=(0.095, 0.075), eta_fb=(0.05,), mu=0.025, step_rule="slow", g_lk=0.1,
        eta_q=(1e-5, 0.01), normalise="corinfomax",
    ),
    "cifar10_4layer": dict(
        sizes=(3072, 1000, 1000, 500, 10), eta_ff=(0.25, 0.14, 0.075, 0.045), eta_fb=(0.095, 0.075, 0.04), steps_free=80,
        steps_nudged=15, g_lk=0.1, beta=0.25, normalise="corinfomax",
    ),
    "cifar10_5layer": dict(
        sizes=(3072, 2000, 2000, 1000, 1000, 10), eta_ff=(0.25, 0.14, 0.075, 0.045, 0.045), eta_fb=(0.095, 0.075, 0.04, 0.04), mu=0.04,
        steps_free=75, steps_nudged=20, g_lk=0.1, beta=0.25, decay=0.9, normalise="corinfomax",
    ),
    "cifar100": dict(
        sizes=(3072, 2000, 1000, 100), eta_ff=(0.18, 0.15, 0.09), eta_fb=(0.08, 0.06), mu=0.06, steps_free=50, steps_nudged=20,
        g_lk=0.1, decay=0.99, final_after=20, normalise="corinfomax",
    ),
    "cifar100_4layer": dict(
        sizes=(3072, 2000, 2000, 1000, 100), eta_ff=(0.21, 0.17, 0.12, 0.07), eta_fb=(0.11, 0.06, 0.04), steps_free=100,
        steps_nudged=25, g_lk=0.1, beta=0.5, decay=0.99, final_after=20, normalise="corinfomax",
    ),
}  # fmt: skip
#: Of the circuit, where a preset says nothing; READ, but `constraint`, `step_rule` and `eta_q` are those of most runs.
COMMON: dict[str, Any] = dict(
    constraint="box", mu=0.05, step_rule="constant", steps_free=30, steps_nudged=10, g_lk=0.5, lam=0.99999, beta=1.0, eta_q=(1e-6, 0.01)
)  # fmt: skip
#: Of the training, where a preset says nothing.
SCHEDULE: dict[str, Any] = dict(
    epochs=50, batch_size=20, optimiser="sgd", optimise=("feedforward", "feedback"), learning_rate=1.0, decay=0.95, final_decay=0.9,
    final_after=15, solver="relaxation", collapse=0.2,
)  # fmt: skip


#: Steps of a phase; the last one is read by the rules.
Steps = Annotated[int, Ge(2)]


@checked
def circuit(
    preset: Annotated[str, In(PRESETS)] = "digits",
    sizes: Sizes | None = None,
    constraint: Annotated[str, In(RATES)] | None = None,
    eta_ff: Sequence[NotNegative] | None = None,
    eta_fb: Sequence[NotNegative] | None = None,
    nudging: Annotated[str, In(NUDGING)] = "one_sided",
    lateral: Annotated[str, In(LATERAL)] = "auto",
    lam: Annotated[float, Gt(0), Lt(1)] | None = None,
    epsilon: Positive = 0.15,
    beta: Positive | None = None,
    g_lk: NotNegative | None = None,
    mu: Positive | None = None,
    step_rule: Annotated[str, In(STEP_RULES)] | None = None,
    steps_free: Steps | None = None,
    steps_nudged: Steps | None = None,
    eta_q: tuple[Positive, Positive] | None = None,
    init: Annotated[str, In(INIT)] = "scaled",
    random_sign: bool = True,
    tau_u: PositiveTime = "200*ms",
) -> Circuit:
    """The CorInfoMax network.

    What is None comes from the preset; see `PRESETS`.

    Parameters
    ----------
    preset
        Sizes, learning rates and constants of the authors' runs: ``digits`` (ours), ``mnist``, ``mnist_slow``, ``mnist_3layer``,
        ``mnist_sparse``, ``fashion_mnist``, ``cifar10``, ``cifar100``, ...
    sizes
        Cells per layer, input and output included.
    constraint
        Set of the rates: ``box`` (0 <= r <= 1) or ``sparse`` (r >= 0, sum r <= 1, kept by one sparsity interneuron per layer).
    eta_ff, eta_fb
        Learning rates of W_1, ..., W_L and of F_1, ..., F_{L-1}, from the input up.
    nudging
        ``one_sided`` (free, nudged) or ``symmetric`` (free, +beta, -beta: the paper's three-phase option).
    lateral
        The rule of the lateral weights B. ``published``: B <- (B - gamma mean z z^T)/lam, which has no denominator and loses
        definiteness unless lam is near 1; ``rank_one``: each sample's z z^T over 1 + gamma r z (exact for one sample; in a batch the
        mean, which stays positive definite); ``woodbury``: the exact inverse for the whole batch; ``none``: no interneurons;
        ``auto``: ``published`` from lam = 0.999 on, below that ``woodbury``.
    lam
        Forgetting factor of the correlation. At the published 0.99999 the lateral share of the apical potential is about 1e-5 of
        the rest; 0.99 makes it about a seventh.
    epsilon
        Regulariser of the log-determinants; 1/epsilon is the conductance between dendrites and soma.
    beta
        Nudging strength.
    g_lk
        Somatic leak conductance.
    mu
        Euler step dt/tau_u of the published scheme; below 2/(g_lk + g_A + g_B).
    step_rule
        ``constant``, or ``slow``: sweep s steps by max(mu/(1 + 0.01 s), 0.001).
    steps_free, steps_nudged
        Number of steps of each phase. On the levels in time a phase lasts as many steps of mu*tau_u.
    eta_q
        Step of the sparsity interneurons (hidden layers, output layer) in one Euler step.
    init
        ``scaled`` (last layer's W times 0.2) or ``published``.
    random_sign
        Draw the sign of beta anew for each batch.
    tau_u
        Membrane time constant; the effective one is about tau_u/13.8. Interneurons have mu*tau_u, one step.

    Raises
    ------
    NeurosimError
        Unknown options, numbers outside their range, a step beyond the limit of explicit Euler.
    """
    given = dict(
        sizes=sizes, constraint=constraint, eta_ff=eta_ff, eta_fb=eta_fb, lam=lam, beta=beta, g_lk=g_lk, mu=mu, step_rule=step_rule,
        steps_free=steps_free, steps_nudged=steps_nudged, eta_q=eta_q,
    )  # fmt: skip
    p = {**COMMON, **PRESETS[preset], **{k: v for k, v in given.items() if v is not None}}
    p |= dict(epsilon=epsilon, init=init, lateral=lateral, nudging=nudging)
    _check(p)
    cells, forgetting, step = p["sizes"], p["lam"], p["mu"] * seconds(tau_u)
    if lateral == "auto":
        lateral = "published" if forgetting >= 0.999 else "woodbury"
    gamma = (1 - forgetting) / forgetting
    interneurons, sparse, top = lateral != "none", p["constraint"] == "sparse", len(cells) - 1
    constants = {"g_lk": p["g_lk"], "eps": epsilon, "gamma": gamma, "tau_u": tau_u}
    pooled = lateral in ("rank_one", "woodbury")
    hidden, output = (_cell(p["constraint"], constants, pooled, output=o) for o in (False, True))
    lateral_cell = Cell("lateral interneuron", "dz/dt = (I_lat - z)/tau_i : 1\nI_lat : 1 (port)", rate="z", parameters={"tau_i": _ms(step)})  # fmt: skip
    window = {"T_gate": _ms(step)}
    rule = _lateral(lateral, forgetting, gamma, window)
    populations, projections = [Population("inp", cells[0], SOURCE)], []
    for l in range(1, top + 1):
        n, last = cells[l], l == top
        below = "inp" if l == 1 else f"pyr{l - 1}"
        populations.append(Population(f"pyr{l}", n, output if last else hidden))
        ff = _contrast("feedforward", "I_ff", p["eta_ff"][l - 1], window)
        projections.append(Projection(f"W{l}", below, f"pyr{l}.I_ff", Glorot(INIT[init] if last else 1.0), ff))
        if not last:
            fb = _contrast("feedback", "I_fb", p["eta_fb"][l - 1], window)
            projections.append(Projection(f"F{l}", f"pyr{l + 1}", f"pyr{l}.I_fb", Glorot(), fb))
        if interneurons:
            populations.append(Population(f"int{l}", n, lateral_cell))
            projections += [
                Projection(f"B{l}", f"pyr{l}", f"int{l}.I_lat", Gram(), rule),
                Projection(f"Z{l}", f"int{l}", f"pyr{l}.z", connectivity=OneToOne()),
            ]
        if sparse:
            populations.append(Population(f"spa{l}", 1, _sparsity(step / p["eta_q"][last])))
            projections += [
                Projection(f"S{l}", f"pyr{l}", f"spa{l}.R_tot", Constant(1)),
                Projection(f"Q{l}", f"spa{l}", f"pyr{l}.I_q", Constant(1)),
            ]
    layers = range(1, top + 1)
    silent = "lower eta_ff, or take a larger mu or more steps so that the phases settle"
    silent = silent if init == "scaled" else "start with smaller weights of the last layer (--set init=scaled)"
    measures: dict[str, Any] = {"silent_outputs": Silent(f"pyr{top}.r", "free", silent)}
    measures |= {f"angle_{l}": Angle(f"F{l - 1}", f"W{l}") for l in layers[1:]}
    if interneurons:
        cure = f"use --set lateral=woodbury, or lam nearer to 1 (lam = {forgetting:g}, lateral = {lateral})"
        shares = [tuple(f"pyr{l}.{v}" for l in layers) for v in ("v_lat", "v_rest")]
        grown = f"B grows as lam^-t where rates never point: use lam nearer to 1 (lam = {forgetting:g}, lateral = {lateral})"
        measures |= {"lateral_share": Ratio(*shares, phase="free", limit=100, cure=grown)}
        measures |= {f"smallest_eigenvalue_{l}": SmallestEigenvalue(f"B{l}", cure) for l in layers}
    return Circuit(
        "corinfomax", Fragment(populations, projections), _protocol(p, top, step, random_sign, interneurons),
        readout=Readout(f"pyr{top}.r", "free"),
        reference=FeedForward(tuple(f"W{l}" for l in layers), (), (*["clip(u, 0, 1)"] * (top - 1), "u")),
        measures=measures, relaxation=_relaxation(p, top, step, interneurons, sparse),
        citations=(PAPER,),
    )  # fmt: skip


def _check(p: dict[str, Any]) -> None:
    """Refuse what does not fit together."""
    sizes = p["sizes"]
    for name, count in (("eta_ff", len(sizes) - 1), ("eta_fb", len(sizes) - 2)):
        if len(p[name]) != count:
            raise NeurosimError(
                f"{name} = {tuple(p[name])}: wanted {count} numbers, one per matrix of a net with sizes {tuple(sizes)}."
            )
    conductances = [p["g_lk"], 1 / p["epsilon"], 1 / p["epsilon"] if len(sizes) > 2 else 1.0]
    limit = 2 / sum(conductances)
    if p["mu"] >= limit:
        raise NeurosimError(
            f"mu = {p['mu']}: explicit Euler diverges from mu = 2/(g_lk + g_A + g_B) = 2/({conductances[0]:g} + {conductances[2]:.4g} + "
            f"{conductances[1]:.4g}) = {limit:.4g} on; choose a smaller mu (published: 0.025 to 0.07), or a larger epsilon."
        )


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.12g}*ms"


def _cell(constraint: str, constants: Mapping[str, Any], pooled: bool, output: bool) -> Cell:
    if output:
        apical, lateral, rest = "(v_A - u)", "gamma*z", "g_lk*r + nudge*beta*(y - r)"
        q, ports, declared = "I_q", ("I_ff",), ("y : 1 (input)", "beta : 1 (shared)", "nudge : 1 (shared)")
    else:
        apical, lateral, rest = "(v_A - u)/eps", "2*eps*gamma*z", "I_fb + eps*g_lk*r"
        q, ports, declared = "eps*I_q", ("I_ff", "I_fb"), ()
    lines = [
        f"du/dt = (-g_lk*u + (v_B - u)/eps + {apical})/tau_u : 1",
        "v_B = I_ff : 1",
        f"v_A = v_rest + v_lat - {q} : 1",
        f"v_rest = {rest} : 1",
        f"v_lat = {lateral} : 1",
        f"r = {RATES[constraint]} : 1",
        *(f"{port} : 1 (port)" for port in ports),
        "z : 1 (optional port)",
        "I_q : 1 (optional port)",
        *declared,
        *(["power = pool(r*z) : 1"] if pooled else []),
    ]
    return Cell("output pyramidal" if output else "pyramidal", "\n".join(lines), constants)


def _sparsity(tau_q: float) -> Cell:
    """The Lagrange multiplier of sum r <= 1."""
    return Cell("sparsity interneuron", "dqt/dt = (-qt + (R_tot - 1) + q)/tau_q : 1\nq = clip(qt, 0, inf) : 1\nR_tot : 1 (port)", rate="q", parameters={"tau_q": _ms(tau_q)})  # fmt: skip


def _contrast(name: str, drive: str, eta: float, window: dict[str, Any]) -> PlasticityRule:
    """Prediction error times presynaptic rate, nudged minus free, over beta with its sign."""
    equation = f"dw/dt = contrast*eta/(beta*T_gate)*(r_post - {drive}_post)*r_pre"
    return PlasticityRule(name, equation, {"eta": eta} | window, apply="trial")


def _lateral(lateral: str, lam: float, gamma: float, window: dict[str, Any]) -> PlasticityRule | None:
    """The rule of the lateral weights."""
    if lateral == "none":
        return None
    share = "" if lateral == "published" else "/(1 + gamma_pre*power_pre)"
    return PlasticityRule(
        "lateral", f"dw/dt = gamma/T_gate*(w - z_post*z_pre{share}/lam)", {"gamma": gamma, "lam": lam} | window, apply="trial",
        symmetric=lateral != "woodbury", batch=InverseCorrelation("r", lam) if lateral == "woodbury" else None,
    )  # fmt: skip


def _protocol(p: dict[str, Any], top: int, step: float, random_sign: bool, interneurons: bool) -> Protocol:
    rules = ("feedforward", "feedback") if top > 1 else ("feedforward",)
    lateral = ("lateral",) if interneurons else ()

    def phase(name: str, steps: int, nudge: float, contrast: float, plastic: tuple[str, ...]) -> Phase:
        """A phase in whose last published step the rules read the rates."""
        shared = {"nudge": nudge, "contrast": contrast}
        return Phase(name, _ms(steps * step), shared, plastic=plastic, gate=_ms(step) if plastic else None)

    if p["nudging"] == "one_sided":
        phases = (
            phase("free", p["steps_free"], 0, -1, rules), phase("nudged", p["steps_nudged"], 1, 1, (*rules, *lateral))
        )  # fmt: skip
    else:
        phases = (
            phase("free", p["steps_free"], 0, 0, ()), phase("nudged", p["steps_nudged"], 1, 0.5, (*rules, *lateral)),
            phase("negative", p["steps_nudged"], -1, -0.5, rules),
        )  # fmt: skip
    beta = RandomSign(p["beta"]) if random_sign else p["beta"]
    clamps = {"inp.r": "image", f"pyr{top}.y": "target"}
    return Protocol(phases, clamps, {"beta": beta, "nudge": 0.0, "contrast": 0.0}, dt=_ms(step))


def _relaxation(p: dict[str, Any], top: int, step: float, interneurons: bool, sparse: bool) -> Relaxation:
    """The published scheme: layer after layer, each with the latest rates of the one below."""
    order = [
        name for l in range(1, top + 1)
        for name in (*([f"int{l}"] if interneurons else []), f"pyr{l}", *([f"spa{l}"] if sparse else []))
    ]  # fmt: skip
    nudged = ("nudged",) if p["nudging"] == "one_sided" else ("nudged", "negative")
    slow = p["step_rule"] == "slow"
    # A phase begins at what the one before showed: at clipped rates, and at multipliers of at least 0,
    # however far below it their state had fallen.
    shown = {f"pyr{l}.u": "r" for l in range(1, top + 1)}
    shown |= {f"spa{l}.qt": "q" for l in range(1, top + 1)} if sparse else {}
    return Relaxation(
        tuple(order), {"free": p["steps_free"], **dict.fromkeys(nudged, p["steps_nudged"])}, _ms(step),
        slowing=0.01 if slow else 0.0, floor=_ms(0.001 * step / p["mu"]) if slow else "0*ms",
        unslowed=tuple(name for name in order if name.startswith("spa")),  # the authors' q has a step of its own
        instant=tuple(name for name in order if name.startswith("int")),
        restart=dict.fromkeys(nudged, shown),
    )  # fmt: skip


def training(settings: Mapping[str, Any], dataset: str) -> dict[str, Any]:
    """The preset of `neurosim train`: the authors' settings and schedule for the data set."""
    name = settings.get("preset")
    if name is None:
        name = {"cifar10_jpeg": "cifar10"}.get(dataset, dataset)
        name += "_sparse" if settings.get("constraint") == "sparse" and f"{name}_sparse" in PRESETS else ""
        name = name if name in PRESETS else "digits"
    chosen: dict[str, Any] = {**COMMON, **SCHEDULE, **PRESETS[name], "preset": name}
    own = {k: v for k, v in settings.items() if v is not None and k in inspect.signature(circuit).parameters}
    built = circuit(**{**own, "preset": name})  # complains of settings that make no circuit
    rules = [rule for _, rule in built.plan.plastic()]
    chosen["optimise"] = tuple(n for n in chosen["optimise"] if n in {rule.name for rule in rules})
    if any(rule.batch is not None for rule in rules):
        chosen["dtype"] = "float64"  # an inverse that grows where nothing is seen
    chosen["dt"] = built.protocol.dt  # the published step
    return chosen
