"""CorInfoMax of Bozkurt, Pehlevan & Erdogan 2023: pyramidal cells whose interneurons learn an inverse correlation.

"Correlative Information Maximization: A Biologically Plausible Approach to Supervised Deep Neural Networks without Weight
Symmetry", NeurIPS 2023, arXiv 2306.04810. READ in the authors' public code: dynamics, rules, constants, learning rates (in
presets/), the order of updates; in a follow-up (arXiv 2504.11558): M, tau_u and g_lk by name; in a figure: three
compartments, one lateral interneuron per cell. NOT READ: the paper's body. OURS: all times in ms, the interneuron's time
constant, one interneuron for the whole of a cell's row of B (the figure keeps the diagonal apart as an autapse; here the
autapse is g_lk r), the names of the ports.

    hidden   tau_u du/dt = -g_lk u + (v_B - u)/eps + (v_A - u)/eps      v_B = r_{k-1} W_k
             v_A = r_{k+1} F_k + eps (2 gamma z + g_lk r) [- eps q]     r = clip(u, 0, 1), sparse set: clip(u, 0, inf)
    output   tau_u du/dt = -g_lk u + (v_B - u)/eps + (v_A - u)          v_A = gamma z + g_lk r + beta (y - r) [- q]
    lateral  tau_i dz/dt = r B - z                                      gamma = (1 - lam)/lam
    sparsity tau_q dq~/dt = -q~ + (sum r - 1) + q                       q = max(0, q~), one cell per layer, sparse set only
             in the published relaxation u begins each later phase at r, and q~ at q (READ)

    dW = eta_ff/beta (mean (r_k - v_B) r_{k-1} nudged - free)           basal prediction error of the cell times presynaptic rate
    dF = eta_fb/beta (mean (r_k - v_fb) r_{k+1} nudged - free)          v_fb = r_{k+1} F_k, the tuft's share of v_A
    dB = gamma B - (gamma/lam) mean z z^T nudged                        lateral="published"; others: see `Settings`

The entropy of a layer (B) and the prediction errors of its two neighbours are what each cell climbs; the label is a weak
nudge of the output, its sign drawn anew for each batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Ge, Gt, Lt

from neurosim import (
    SOURCE, Angle, Cell, Circuit, Citation, Constant, FeedForward, Glorot, Gram, InverseCorrelation, OneToOne, Phase,
    PlasticityRule, Population, Projection, Protocol, RandomSign, Ratio, Readout, Relaxation, Silent, SmallestEigenvalue,
)  # fmt: skip
from neurosim.checks import In, NotNegative, Positive, PositiveTime, Sizes
from neurosim.equations import seconds
from neurosim.settings import ModelSettings, Parts, check_length, computed, model, presets, refuse_if

PAPER = Citation(
    "Correlative Information Maximization: A Biologically Plausible Approach to Supervised Deep Neural Networks without "
    "Weight Symmetry",
    "Bozkurt, B. and Pehlevan, C. and Erdogan, A. T.", 2023,
    """@inproceedings{bozkurt2023correlative,
      booktitle = {Advances in Neural Information Processing Systems 36}, eprint = {2306.04810}, archivePrefix = {arXiv}
    }""",
    note="equations and constants read in the authors' code; times in ms are ours; see the module's text",
)  # fmt: skip

PRESETS = {name: table for name, table in presets(__file__).items() if name != "common"}
RATES = {"box": "clip(u, 0, 1)", "sparse": "clip(u, 0, inf)"}
LATERAL = ("auto", "published", "rank_one", "woodbury", "none")
#: Phases, each with its nudge in units of beta and the sign with which the rules read its end.
NUDGING = {
    "one_sided": {"free": (0, -1), "nudged": (1, 1)},
    "symmetric": {"free": (0, 0), "nudged": (1, 0.5), "negative": (-1, -0.5)},
}
#: Gain of the last layer's initial weights: 0.2 keeps output cells from being silent from the start.
INIT = {"scaled": 0.2, "published": 1.0}
#: Steps of a phase; the last one is read by the rules.
Steps = Annotated[int, Ge(2)]


def of_preset(name: str) -> Any:
    """A field whose default is that of the preset."""
    return computed(lambda s: PRESETS[s.preset][name])


@dataclass(frozen=True)
class Settings(ModelSettings):
    """Settings of the CorInfoMax network; what is not given comes from the preset."""

    #: Sizes, learning rates and constants of the authors' runs (`digits`: ours).
    preset: Annotated[str, In(PRESETS)] = "digits"
    #: Cells per layer, input and output included.
    sizes: Sizes = of_preset("sizes")
    #: Set of the rates: `box` (0 <= r <= 1) or `sparse` (r >= 0, sum r <= 1, kept by a sparsity interneuron per layer).
    constraint: Annotated[str, In(RATES)] = of_preset("constraint")
    #: Learning rates of W_1, ..., W_L and of F_1, ..., F_{L-1}, from the input up.
    eta_ff: Sequence[NotNegative] = of_preset("eta_ff")
    eta_fb: Sequence[NotNegative] = of_preset("eta_fb")
    #: `one_sided` (free, nudged) or `symmetric` (free, +beta, -beta: the paper's three-phase option).
    nudging: Annotated[str, In(NUDGING)] = "one_sided"
    #: Rule of B. `published`: B <- (B - gamma mean z z^T)/lam, without a denominator, loses definiteness unless lam is
    #: near 1; `rank_one`: each sample's z z^T over 1 + gamma r z (exact for one sample; the mean of a batch stays positive
    #: definite); `woodbury`: the batch's exact inverse; `none`: no interneurons; `auto`: `published` from lam = 0.999 on,
    #: below that `woodbury`.
    lateral: Annotated[str, In(LATERAL)] = "auto"
    #: Forgetting factor of the correlation. At the published 0.99999 the lateral share of the apical potential is about
    #: 1e-5 of the rest; 0.99 makes it about a seventh.
    lam: Annotated[float, Gt(0), Lt(1)] = of_preset("lam")
    #: Regulariser of the log-determinants; 1/epsilon is the conductance between dendrites and soma.
    epsilon: Positive = 0.15
    #: Nudging strength, and the somatic leak conductance.
    beta: Positive = of_preset("beta")
    g_lk: NotNegative = of_preset("g_lk")
    #: Euler step dt/tau_u of the published scheme; below 2/(g_lk + g_A + g_B).
    mu: Positive = of_preset("mu")
    #: `constant`, or `slow`: sweep s steps by max(mu/(1 + 0.01 s), 0.001).
    step_rule: Annotated[str, In(("constant", "slow"))] = of_preset("step_rule")
    #: Number of steps of each phase. On the levels in time a phase lasts as many steps of mu*tau_u.
    steps_free: Steps = of_preset("steps_free")
    steps_nudged: Steps = of_preset("steps_nudged")
    #: Step of the sparsity interneurons (hidden layers, output layer) in one Euler step.
    eta_q: tuple[Positive, Positive] = of_preset("eta_q")
    #: `scaled` (last layer's W times 0.2) or `published`.
    init: Annotated[str, In(INIT)] = "scaled"
    #: Draw the sign of beta anew for each batch.
    random_sign: bool = True
    #: Membrane time constant; the effective one is about tau_u/13.8. Interneurons have mu*tau_u, one step.
    tau_u: PositiveTime = "200*ms"

    def __post_init__(self) -> None:
        super().__post_init__()
        count, matrix = len(self.sizes), f"matrix of a net with sizes {tuple(self.sizes)}"
        check_length(matrix, count - 1, eta_ff=self.eta_ff)
        check_length(matrix, count - 2, eta_fb=self.eta_fb)
        g_lk, g_B, g_A = self.g_lk, 1 / self.epsilon, 1 / self.epsilon if count > 2 else 1.0
        refuse_if(self.mu >= (limit := 2 / sum([g_lk, g_B, g_A])),
            f"mu = {self.mu}: explicit Euler diverges from mu = 2/(g_lk + g_A + g_B) = 2/({g_lk:g} + {g_A:.4g} + {g_B:.4g}) = "
            f"{limit:.4g} on; expected a smaller one (published: 0.025 to 0.07). Lower mu, or take a larger epsilon.")  # fmt: skip
        if self.lateral == "auto":
            object.__setattr__(self, "lateral", "published" if self.lam >= 0.999 else "woodbury")

    @property
    def step(self) -> float:
        """The published step in seconds."""
        return self.mu * seconds(self.tau_u)


@model(Settings)
def circuit(s: Settings) -> Circuit:
    """Layers of pyramidal cells, with lateral interneurons, and sparsity interneurons where rates are a sparse set."""
    top = len(s.sizes) - 1
    layers = range(1, top + 1)
    parts: Parts = [Population("inp", s.sizes[0], SOURCE)]
    for l in layers:
        parts += layer(s, l, top)
        parts += interneurons(s, l) if s.lateral != "none" else []
        parts += sparsity(s, l, s.eta_q[l == top]) if s.constraint == "sparse" else []
    reference = FeedForward(tuple(f"W{l}" for l in layers), (), (*["clip(u, 0, 1)"] * (top - 1), "u"))
    return Circuit(
        "corinfomax", parts, protocol(s, top), Readout(f"pyr{top}.r", "free"), reference, measures(s, layers),
        relaxation(s, layers), (PAPER,),
    )  # fmt: skip


#: v_lat is the lateral interneuron's share of the apical potential.
HIDDEN = """
    du/dt  = (-g_lk*u + (v_B - u)/eps + (v_A - u)/eps)/tau_u : 1
    v_B    = I_ff : 1
    v_A    = v_rest + v_lat - eps*I_q : 1
    v_lat  = 2*eps*gamma*z : 1
    v_rest = I_fb + eps*g_lk*r : 1
    I_fb : 1 (port)
    """
OUTPUT = """
    du/dt  = (-g_lk*u + (v_B - u)/eps + (v_A - u))/tau_u : 1
    v_B    = I_ff : 1
    v_A    = v_rest + v_lat - I_q : 1
    v_lat  = gamma*z : 1
    v_rest = g_lk*r + nudge*beta*(y - r) : 1
    y : 1 (input)
    beta : 1 (shared)
    nudge : 1 (shared)
    """
BOTH = """
    r = {r} : 1
    I_ff : 1 (port)
    z : 1 (optional port)
    I_q : 1 (optional port)
    """


def layer(s: Settings, l: int, top: int) -> Parts:
    """Pyramidal cells of layer l, with W_l from below and F_l from above."""
    pooled = "power = pool(r*z) : 1" if s.lateral in ("rank_one", "woodbury") else ""
    name, text = ("output pyramidal", OUTPUT) if l == top else ("pyramidal", HIDDEN)
    constants = {"g_lk": s.g_lk, "eps": s.epsilon, "gamma": (1 - s.lam) / s.lam, "tau_u": s.tau_u}
    cell = Cell(name, text + BOTH.format(r=RATES[s.constraint]) + pooled, constants)

    def contrast(name: str, drive: str, eta: float) -> PlasticityRule:
        """Prediction error times presynaptic rate, nudged minus free, over beta with its sign."""
        change = f"dw/dt = contrast*eta/(beta*T_gate)*(r_post - {drive}_post)*r_pre"
        return PlasticityRule(name, change, {"eta": eta, "T_gate": ms(s.step)}, apply="trial")

    ff, source = contrast("feedforward", "I_ff", s.eta_ff[l - 1]), f"pyr{l - 1}" if l > 1 else "inp"
    parts: Parts = [Population(f"pyr{l}", s.sizes[l], cell)]
    parts += [Projection(f"W{l}", source, f"pyr{l}.I_ff", Glorot(INIT[s.init] if l == top else 1.0), ff)]
    if l < top:
        fb = contrast("feedback", "I_fb", s.eta_fb[l - 1])
        parts += [Projection(f"F{l}", f"pyr{l + 1}", f"pyr{l}.I_fb", Glorot(), fb)]
    return parts


def interneurons(s: Settings, l: int) -> Parts:
    """Lateral interneurons of layer l, one per cell, whose weights B_l learn the inverse correlation of its rates."""
    share = "" if s.lateral == "published" else "/(1 + gamma_pre*power_pre)"
    rule = PlasticityRule(
        "lateral", f"dw/dt = gamma/T_gate*(w - z_post*z_pre{share}/lam)",
        {"gamma": (1 - s.lam) / s.lam, "lam": s.lam, "T_gate": ms(s.step)}, apply="trial",
        symmetric=s.lateral != "woodbury", exact=InverseCorrelation("r", s.lam) if s.lateral == "woodbury" else None,
    )  # fmt: skip
    text = "dz/dt = (I_lat - z)/tau_i : 1\nI_lat : 1 (port)"
    return [
        Population(f"int{l}", s.sizes[l], Cell("lateral interneuron", text, {"tau_i": ms(s.step)}, rate="z")),
        Projection(f"B{l}", f"pyr{l}", f"int{l}.I_lat", Gram(), rule),
        Projection(f"Z{l}", f"int{l}", f"pyr{l}.z", connectivity=OneToOne()),
    ]


def sparsity(s: Settings, l: int, eta: float) -> Parts:
    """The interneuron of layer l that is the Lagrange multiplier of sum r <= 1."""
    text = "dqt/dt = (-qt + (R_tot - 1) + q)/tau_q : 1\nq = clip(qt, 0, inf) : 1\nR_tot : 1 (port)"
    return [
        Population(f"spa{l}", 1, Cell("sparsity interneuron", text, {"tau_q": ms(s.step / eta)}, rate="q")),
        Projection(f"S{l}", f"pyr{l}", f"spa{l}.R_tot", Constant(1)),
        Projection(f"Q{l}", f"spa{l}", f"pyr{l}.I_q", Constant(1)),
    ]


def ms(time: float) -> str:
    return f"{time * 1e3:.12g}*ms"


def protocol(s: Settings, top: int) -> Protocol:
    """Phases in whose last published step the rules read the rates."""
    rules = ("feedforward", "feedback") if top > 1 else ("feedforward",)
    phases = []
    for name, (nudge, contrast) in NUDGING[s.nudging].items():
        steps, lateral = s.steps_free if name == "free" else s.steps_nudged, name == "nudged" and s.lateral != "none"
        plastic = (*(rules if contrast else ()), *(("lateral",) if lateral else ()))
        shared, gate = {"nudge": nudge, "contrast": contrast}, ms(s.step) if plastic else None
        phases.append(Phase(name, ms(steps * s.step), shared, plastic=plastic, gate=gate))
    shared = {"beta": RandomSign(s.beta) if s.random_sign else s.beta, "nudge": 0.0, "contrast": 0.0}
    return Protocol(tuple(phases), {"inp.r": "image", f"pyr{top}.y": "target"}, shared, dt=ms(s.step))


def relaxation(s: Settings, layers: range) -> Relaxation:
    """The published scheme: layer after layer, each with the latest rates of the one below."""
    lateral, sparse, slow = s.lateral != "none", s.constraint == "sparse", s.step_rule == "slow"
    kinds = (*(["int"] if lateral else []), "pyr", *(["spa"] if sparse else []))
    # A phase begins at what the one before showed: at clipped rates, and at multipliers of at least 0.
    shown = {f"pyr{l}.u": "r" for l in layers} | {f"spa{l}.qt": "q" for l in layers if sparse}
    nudged = [name for name in NUDGING[s.nudging] if name != "free"]
    return Relaxation(
        tuple(f"{kind}{l}" for l in layers for kind in kinds), {"free": s.steps_free, **dict.fromkeys(nudged, s.steps_nudged)},
        ms(s.step), slowing=0.01 if slow else 0.0, floor=ms(0.001 * s.step / s.mu) if slow else "0*ms",
        unslowed=tuple(f"spa{l}" for l in layers if sparse),  # the authors' q has a step of its own
        instant=tuple(f"int{l}" for l in layers if lateral), restart=dict.fromkeys(nudged, shown),
    )  # fmt: skip


def measures(s: Settings, layers: range) -> dict[str, Any]:
    """Silent output cells, angles between F and W, the lateral share of the apical potential, definiteness of B."""
    silent = "lower eta_ff, or take a larger mu or more steps so that the phases settle"
    if s.init != "scaled":
        silent = "start with smaller weights of the last layer (--set init=scaled)"
    found: dict[str, Any] = {"silent_outputs": Silent(f"pyr{layers[-1]}.r", "free", silent)}
    found |= {f"angle_{l}": Angle(f"F{l - 1}", f"W{l}") for l in layers[1:]}
    if s.lateral != "none":
        is_now = f"(lam = {s.lam:g}, lateral = {s.lateral})"
        grown = f"B grows as lam^-t where rates never point: use lam nearer to 1 {is_now}"
        cure = f"use --set lateral=woodbury, or lam nearer to 1 {is_now}"
        share = (tuple(f"pyr{l}.{v}" for l in layers) for v in ("v_lat", "v_rest"))
        found["lateral_share"] = Ratio(*share, phase="free", limit=100, cure=grown)
        found |= {f"smallest_eigenvalue_{l}": SmallestEigenvalue(f"B{l}", cure) for l in layers}
    return found


def training(settings: Mapping[str, Any], dataset: str) -> dict[str, Any]:
    """The preset of `neurosim train`: the authors' settings and schedule for the data set."""
    name = settings.get("preset")
    if name is None:
        name = {"cifar10_jpeg": "cifar10"}.get(dataset, dataset)
        name += "_sparse" if settings.get("constraint") == "sparse" and f"{name}_sparse" in PRESETS else ""
        name = name if name in PRESETS else "digits"
    own = {k: v for k, v in settings.items() if v is not None and k in Settings.hints()}
    built = circuit(**{**own, "preset": name})  # complains of settings that make no circuit
    rules = [rule for _, rule in built.plan.plastic()]
    chosen = PRESETS[name] | {"preset": name, "dt": built.protocol.dt}  # the published step
    chosen["optimise"] = tuple(n for n in chosen["optimise"] if n in {rule.name for rule in rules})
    exact = any(rule.exact is not None for rule in rules)  # an inverse that grows where nothing is seen
    return chosen | ({"dtype": "float64"} if exact else {})
