"""CorInfoMax of Bozkurt, Pehlevan & Erdogan 2023: pyramidal cells whose interneurons learn an inverse correlation.

NeurIPS 2023, arXiv 2306.04810. READ in the authors' public code: dynamics, rules, constants, learning rates (in presets/), the
order of updates; in a follow-up (arXiv 2504.11558): M, tau_u and g_lk by name; in a figure: three compartments, one lateral
interneuron per cell. NOT READ: the paper's body. OURS: all times in ms, the interneuron's time constant, one interneuron for a
cell's whole row of B (in the figure the diagonal is an autapse; here that is g_lk r), the names of the ports.

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
    SOURCE, Angle, Cell, Circuit, Citation, FeedForward, Glorot, Phase, Population, Projection, Protocol, RandomSign,
    Readout, Silent,
)  # fmt: skip
from neurosim.checks import In, NotNegative, Positive, PositiveTime, Sizes
from neurosim.equations import seconds
from neurosim.parts import contrastive_prediction, correlation_measures, inverse_correlation, layerwise, sum_bound
from neurosim.settings import ModelSettings, Parts, check_euler, check_length, default_of, model, presets

PAPER = Citation(
    "Correlative Information Maximization: A Biologically Plausible Approach to Supervised Deep Neural Networks without Weight Symmetry",
    "Bozkurt, B. and Pehlevan, C. and Erdogan, A. T.", 2023,
    """@inproceedings{bozkurt2023correlative,
      booktitle = {Advances in Neural Information Processing Systems 36}, eprint = {2306.04810}, archivePrefix = {arXiv}
    }""",
    note="equations and constants read in the authors' code; times in ms are ours; see the module's text",
)  # fmt: skip

PRESETS = {name: table for name, table in presets(__file__).items() if name != "common"}
RATES = {"box": "clip(u, 0, 1)", "sparse": "clip(u, 0, inf)"}
#: Phases, each with its nudge in units of beta and the sign with which the rules read its end.
NUDGING = {
    "one_sided": {"free": (0, -1), "nudged": (1, 1)},
    "symmetric": {"free": (0, 0), "nudged": (1, 0.5), "negative": (-1, -0.5)},
}
SILENT = {  # what to do where output cells stay silent
    "scaled": "lower eta_ff, or take a larger mu or more steps so that the phases settle",
    "published": "start with smaller weights of the last layer (--set init=scaled)",
}
of_preset = default_of(PRESETS, "preset")


@dataclass(frozen=True)
class Settings(ModelSettings):
    """Settings of the CorInfoMax network; what is not given comes from the preset."""

    #: The authors' runs (`digits`: ours). Sizes are cells per layer, input and output included.
    preset: Annotated[str, In(PRESETS)] = "digits"
    sizes: Sizes = of_preset("sizes")
    #: Set of the rates: `box` (0 <= r <= 1) or `sparse` (r >= 0, sum r <= 1, kept by a sparsity interneuron per layer).
    constraint: Annotated[str, In(RATES)] = of_preset("constraint")
    #: Learning rates of W_1, ..., W_L and of F_1, ..., F_{L-1}, from the input up.
    eta_ff: Sequence[NotNegative] = of_preset("eta_ff")
    eta_fb: Sequence[NotNegative] = of_preset("eta_fb")
    #: `one_sided` (free, nudged) or `symmetric` (free, +beta, -beta: the paper's three-phase option).
    nudging: Annotated[str, In(NUDGING)] = "one_sided"
    #: Rule of B, see `inverse_correlation`; `none`: no such cells; `auto`: `published` if lam >= 0.999, else `woodbury`.
    lateral: Annotated[str, In(("auto", "published", "rank_one", "woodbury", "none"))] = "auto"
    #: Forgetting factor of the correlation. At the published 0.99999 v_lat is about 1e-5 of v_rest, at 0.99 a seventh.
    lam: Annotated[float, Gt(0), Lt(1)] = of_preset("lam")
    #: Regulariser of the log-determinants (1/epsilon couples dendrites and soma), nudging strength, somatic leak.
    epsilon: Positive = 0.15
    beta: Positive = of_preset("beta")
    g_lk: NotNegative = of_preset("g_lk")
    #: Euler step dt/tau_u of the published scheme; `constant`, or `slow`: sweep s steps by max(mu/(1 + 0.01 s), 0.001).
    mu: Positive = of_preset("mu")
    step_rule: Annotated[str, In(("constant", "slow"))] = of_preset("step_rule")
    #: Number of steps of each phase. On the levels in time a phase lasts as many steps of mu*tau_u.
    steps_free: Annotated[int, Ge(2)] = of_preset("steps_free")
    steps_nudged: Annotated[int, Ge(2)] = of_preset("steps_nudged")
    #: Step of the sparsity interneurons (hidden layers, output layer) in one Euler step.
    eta_q: tuple[Positive, Positive] = of_preset("eta_q")
    #: `scaled`: the last layer's W times 0.2, so that output cells are not silent at first. Sign of beta drawn for each batch.
    init: Annotated[str, In(SILENT)] = "scaled"
    random_sign: bool = True
    #: Membrane time constant; the effective one is about tau_u/13.8. Interneurons have mu*tau_u, one step.
    tau_u: PositiveTime = "200*ms"

    def __post_init__(self) -> None:
        super().__post_init__()
        count, matrix = len(self.sizes) - 1, f"matrix of a net with sizes {tuple(self.sizes)}"
        check_length(matrix, eta_ff=(self.eta_ff, count), eta_fb=(self.eta_fb, count - 1))
        g, cure = 1 / self.epsilon, "Lower mu (published: 0.025 to 0.07), or take a larger epsilon."
        check_euler(self.mu, cure, g_lk=self.g_lk, g_A=g if count > 1 else 1.0, g_B=g)
        auto = "published" if self.lam >= 0.999 else "woodbury"
        object.__setattr__(self, "lateral", auto if self.lateral == "auto" else self.lateral)

    @property
    def sweeps(self) -> dict[str, int]:
        return {name: self.steps_free if name == "free" else self.steps_nudged for name in NUDGING[self.nudging]}

    def steps(self, count: float = 1) -> str:
        """The time of so many published steps."""
        return f"{count * self.mu * seconds(self.tau_u) * 1e3:.12g}*ms"


@model(Settings)
def circuit(s: Settings) -> Circuit:
    """Layers of pyramidal cells with their interneurons: lateral ones, and a sparsity one in a sparse set."""
    layers, top = range(1, len(s.sizes)), len(s.sizes) - 1
    lateral, sparse = s.lateral != "none", s.constraint == "sparse"
    parts: Parts = [Population("inp", s.sizes[0], SOURCE)]
    for l in layers:
        parts += layer(s, l, top)
        parts += inverse_correlation(f"pyr{l}", l, s.sizes[l], s.lam, s.lateral, s.steps()) if lateral else []
        parts += sum_bound(f"pyr{l}", l, s.steps(1 / s.eta_q[l == top])) if sparse else []
    reference = FeedForward(tuple(f"W{l}" for l in layers), (), (*["clip(u, 0, 1)"] * (top - 1), "u"))
    measures = {"silent_outputs": Silent(f"pyr{top}.r", "free", SILENT[s.init])}
    measures |= {f"angle_{l}": Angle(f"F{l - 1}", f"W{l}") for l in layers[1:]}
    measures |= correlation_measures(layers, s.lam, s.lateral) if lateral else {}
    slow = {"slowing": 0.01, "floor": s.steps(0.001 / s.mu)} if s.step_rule == "slow" else {}
    relaxation = layerwise(layers, lateral, sparse, s.sweeps, s.steps(), **slow)
    return Circuit(
        "corinfomax", parts, protocol(s, top), Readout(f"pyr{top}.r", "free"), reference, measures, relaxation, (PAPER,)
    )  # fmt: skip


#: v_lat is the lateral interneuron's share of the apical potential.
HIDDEN = """
    du/dt  = (-g_lk*u + (v_B - u)/eps + (v_A - u)/eps)/tau_u : 1
    v_A    = v_rest + v_lat - eps*I_q : 1
    v_lat  = 2*eps*gamma*z : 1
    v_rest = I_fb + eps*g_lk*r : 1
    I_fb : 1 (port)
    """
OUTPUT = """
    du/dt  = (-g_lk*u + (v_B - u)/eps + (v_A - u))/tau_u : 1
    v_A    = v_rest + v_lat - I_q : 1
    v_lat  = gamma*z : 1
    v_rest = g_lk*r + nudge*beta*(y - r) : 1
    y : 1 (input)
    beta : 1 (shared)
    nudge : 1 (shared)
    """
BOTH = """
    v_B = I_ff : 1
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
    start, source = Glorot(0.2 if l == top and s.init == "scaled" else 1.0), f"pyr{l - 1}" if l > 1 else "inp"
    ff = contrastive_prediction("feedforward", "I_ff", s.eta_ff[l - 1], s.steps())
    parts: Parts = [Population(f"pyr{l}", s.sizes[l], cell), Projection(f"W{l}", source, f"pyr{l}.I_ff", start, ff)]
    if l < top:
        fb = contrastive_prediction("feedback", "I_fb", s.eta_fb[l - 1], s.steps())
        parts.append(Projection(f"F{l}", f"pyr{l + 1}", f"pyr{l}.I_fb", Glorot(), fb))
    return parts


def protocol(s: Settings, top: int) -> Protocol:
    """Phases in whose last published step the rules read the rates."""
    phases, rules = [], ("feedforward", "feedback") if top > 1 else ("feedforward",)
    for name, (nudge, contrast) in NUDGING[s.nudging].items():
        lateral = ("lateral",) if name == "nudged" and s.lateral != "none" else ()
        plastic = {"plastic": (*rules, *lateral), "gate": s.steps()} if contrast else {}
        phases.append(Phase(name, s.steps(s.sweeps[name]), {"nudge": nudge, "contrast": contrast}, **plastic))
    shared = {"beta": RandomSign(s.beta) if s.random_sign else s.beta, "nudge": 0.0, "contrast": 0.0}
    return Protocol(tuple(phases), {"inp.r": "image", f"pyr{top}.y": "target"}, shared, dt=s.steps())


def training(settings: Mapping[str, Any], dataset: str) -> dict[str, Any]:
    """The preset of `neurosim train`: the authors' settings and schedule for the data set."""
    known = {"cifar10_jpeg": "cifar10"}.get(dataset, dataset)
    sparse = f"{known}_sparse" if settings.get("constraint") == "sparse" else known
    name = settings.get("preset") or next((n for n in (sparse, known) if n in PRESETS), "digits")
    own = {k: v for k, v in settings.items() if v is not None and k in Settings.hints()}
    built = circuit(**{**own, "preset": name})  # complains of settings that make no circuit
    rules = {rule.name: rule for _, rule in built.plan.plastic()}
    exact = any(rule.batch for rule in rules.values())  # an inverse that grows where nothing is seen
    own = {"preset": name, "optimise": tuple(n for n in PRESETS[name]["optimise"] if n in rules)}
    return PRESETS[name] | own | {"dt": built.protocol.dt} | ({"dtype": "float64"} if exact else {})
