"""Counter-current learning of Kao & Hariharan 2024: two streams in opposite directions, each taught by the other.

READ in the paper and in the authors' code: the two nets, their pairing, losses, sizes, activations, initial weights, training settings (of the
code, where the two differ). DERIVED from the losses, and checked against their gradients: the plasticity rules. OURS: the rate circuit and its
times, apical contacts, the pool as a matching interneuron, the windows in time, the signal R, the baseline.

    ascending   tau du/dt = -u + r_{l-1} U_l       r = sigma(u)        level 0 is the picture, level L the softmax of the classes
    descending  tau du/dt = -u + r_{l+1} V_{l+1}   r = sigma(u)        level L is the label of the window, level 0 is linear
    apical      tau_a dv_a/dt = -v_a + (rate of the partner cell of the other stream): read by plasticity, does not move the soma
    matching    match = sum over the level's cells of r v_a            R = 1 where the window's label is the sample's own, else 0

    dU_l, dV_l = -eta c (match - R) sigma'(u) v_a r_pre                c = 2 kappa/(cells of the level * classes), loss "raw"
    dU_L       =  eta R (label - r) r_pre

With the loss "normalised" the rates of a level are divided by their norm over the level, and samples (labels) whose patterns overlap push
each other apart (`decorrelation`), which needs the whole batch at once: the steady level only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Ge, Lt

from neurosim import (
    SOURCE, Cell, Circuit, Citation, Dense, FeedForward, OneToOne, Phase, PlasticityRule, Population, Projection,
    Protocol, Readout, Windows,
)  # fmt: skip
from neurosim.checks import Count, In, Levels, NotNegative, Positive
from neurosim.parts import (
    APART, COSINE, COSINE_VALUES, DOT_PRODUCT, DOUBLED, POOLED, SOFTMAX, STRIDED, affine, cells_of, level_shapes, slope,
    tonic_inhibition, certainty_gate,
)  # fmt: skip
from neurosim.parts import transfer as sigma
from neurosim.settings import ModelSettings, Parts, check_classes, computed, model, presets, refuse_if

PAPER = Citation(
    "Counter-Current Learning: A Biologically Plausible Dual Network Approach for Deep Learning",
    "Kao, C.-H. and Hariharan, B.", 2024,
    """@inproceedings{kao2024counter, eprint = {2409.19841}, archivePrefix = {arXiv},
      booktitle = {Advances in Neural Information Processing Systems 37}}""",
    note="nets, pairing, losses, settings. The rate circuit is a reconstruction.",
)  # fmt: skip

#: Activations, and their names among the parts. Those with rates of one sign fail (docs page).
ACTIVATIONS = dict(sigmoid="logistic", sigmoid_shifted="shifted_logistic", softplus_shifted="shifted_softplus")
ACTIVATIONS |= {name: name for name in ("elu", "relu", "tanh", "softplus", "linear")}
LAYERS = {"dense": Dense(), "pooled": POOLED, "strided": STRIDED}
#: Time of the gate in which the rules read the rates, and time constant of somata and apical dendrites (ms).
GATE, TAU, TIME = 10.0, 10.0, {"tau": "10*ms"}


@dataclass(frozen=True)
class Settings(ModelSettings):
    """Settings of counter-current learning of a classifier."""

    #: Cells of each level, from the picture to the classes; with maps, channels of the picture and maps of each level.
    sizes: Levels = (64, 64, 32, 10)
    #: `pooled`: 3 x 3, 2 x 2 max-pooling, no biases; `strided`: stride 2, biases from 0 (READ). Down: doubled, then convolved.
    layers: Annotated[str, In(LAYERS)] = "dense"
    #: Height and width of the picture, where there are maps.
    pixels: Count = 32
    #: `raw` (of the authors' MLPs): dot products of the two streams' rates, times `kappa`. `normalised` (of their CNNs, and
    #: the paper's equation 2): cosines, times `contrast`, and `decorrelation` (0: none) between samples and between labels.
    loss: Annotated[str, In(("raw", "normalised"))] = "raw"
    kappa: Positive = 128.0
    contrast: Positive = 1.0
    decorrelation: NotNegative = 0.5
    activation: Annotated[str, In(ACTIVATIONS)] = "elu"
    #: Which labels the windows of a trial show, see `Windows`.
    labels: Annotated[str, In(("all", "true_and_random", "true"))] = "all"
    #: A sample whose class has at least this probability teaches the pairs no more (0: all teach).
    filter: Annotated[float, Ge(0), Lt(1)] = 0.0
    #: Match a cell to its partner for the own class, ``kappa/cells * |a - b|^2``: collapses, shows what contrast is for.
    own_class: bool = False
    #: Firing rate of a cell with r = 0: cells send r + baseline (at least 0 for ELU and 1), tonic inhibition takes it off.
    baseline: NotNegative = 0.0
    #: Time in which the streams settle in each window (ms; six layers: 200); factor of all rules, below the trainer's rates.
    settle: Positive = computed(lambda s: TAU * (2 * len(s.sizes) + 6))
    eta: Positive = 1.0
    #: Cells of each level, or its (maps, height, width).
    shapes = property(lambda self: level_shapes(self.sizes, None if self.layers == "dense" else self.pixels))

    def __post_init__(self) -> None:
        super().__post_init__()
        check_classes(self.sizes)
        uneven = f"baseline = {self.baseline} with layers = '{self.layers}'; expected dense layers, or 0."
        refuse_if(self.baseline > 0 and self.layers != "dense", uneven)
        refuse_if(self.own_class and self.loss != "raw", "own_class has no normalised form; expected loss = 'raw'.")


@model(Settings)
def circuit(s: Settings) -> Circuit:
    """Two streams in opposite directions, and their apical contacts; then the filter and the baseline, where there are any."""
    top, classes = len(s.sizes) - 1, s.sizes[-1]
    layers, out = range(1, top + 1), f"F{top}"
    paired = ["D0", *(f"{stream}{l}" for l in layers[:-1] for stream in "FD")]
    parts: Parts = [Population("F0", s.shapes[0], SOURCE), Population(f"D{top}", classes, SOURCE)]
    parts += [Population(name, s.shapes[int(name[1:])], cell(s, name)) for name in paired]
    parts.append(Population(out, classes, Cell("class", CLASS, TIME)))
    for l in layers:
        parts += weights(s, l)
    parts += [Projection(f"Q{l}", f"F{l}", f"D{l}.I_apical", connectivity=OneToOne()) for l in range(top)]
    parts += [Projection(f"P{l}", f"D{l}", f"F{l}.I_apical", connectivity=OneToOne()) for l in layers[:-1]]
    clamps = {"F0.r": "image", f"D{top}.r": "label", f"{out}.label": "label"}
    clamps |= {f"{name}.R": "same" for name in (out, *paired)}
    clamps |= {f"{name}.multiplicity": "multiplicity" for name in paired if s.labels == "true_and_random"}
    if s.filter:
        parts, clamps[f"{out}.y"] = certainty_gate(parts, f"{out}.certain", s.filter, paired, TIME["tau"]), "target"
    if s.baseline:
        parts = tonic_inhibition(parts, paired, s.baseline)
    phases = Phase("settle", f"{s.settle}*ms"), Phase("learn", f"{GATE}*ms", plastic=("forward", "feedback"))
    windows = Windows(phases, s.labels, clamps)  # type: ignore[arg-type]
    biases = tuple(f"bU{l}" for l in layers[:-1]) if s.layers == "strided" else ()
    names, activation = tuple(f"U{l}" for l in layers), sigma(ACTIVATIONS[s.activation])
    return Circuit(
        "counter_current", parts, Protocol((windows,), dt="1*ms"), Readout(f"{out}.r", "settle[0]", loss="cross_entropy"),
        FeedForward(names, biases, activation, loss="cross_entropy"), citations=(PAPER,),
    )  # fmt: skip


STREAM = """
    du/dt = (-u + I_basal)/tau : 1
    r     = {r} : 1
    gain  = {gain} : 1
    I_basal : 1 (port)
    I_apical : 1 (port)
    R : 1 (input)
    """
APICAL = "dv_a/dt = (-v_a + I_apical)/tau : 1\n"
RAISED = "dv_a/dt = (-v_a + I_apical - baseline)/tau : 1\nf = r + baseline : 1\n"
ALL_SHOWN, TEACHERS_SHOWN = "shown = r_hat : 1\n", "shown = r_hat*keep : 1\n"
KEEP, MULTIPLICITY = "keep : 1 (port)\n", "multiplicity : 1 (input)\n"
CLASS = SOFTMAX + """
    du/dt   = (-u + I_basal)/tau : 1
    certain = y*r : 1
    error   = R*(label - r) : 1
    I_basal : 1 (port)
    label : 1 (input)
    R : 1 (input)
    y : 1 (input)
    """  # fmt: skip


def cell(s: Settings, name: str) -> Cell:
    """A cell of either stream: soma u, apical potential v_a, and what its pair loss needs."""
    ascending, picture = name[0] == "F", name == "D0"
    activation = "linear" if picture else ACTIVATIONS[s.activation]
    text = STREAM.format(r=sigma(activation), gain=slope(activation))
    text += RAISED if s.baseline and not picture else APICAL
    text += COSINE if s.loss == "normalised" else DOT_PRODUCT
    if s.loss == "normalised" and s.decorrelation:
        text += APART + (TEACHERS_SHOWN if s.filter and ascending else ALL_SHOWN)
    text += (KEEP if s.filter else "") + (MULTIPLICITY if s.labels == "true_and_random" else "")
    values = TIME | (COSINE_VALUES if s.loss == "normalised" else {})
    values |= {"baseline": s.baseline} if RAISED in text else {}
    return Cell("ascending" if ascending else "descending", text, values)


#: What the weights onto a level learn by, by its pair loss.
PAIR_RULES = {
    "raw": "-eta*c/T_learn*(match_post - R_post)*gain_post*v_a_post*r_pre",
    "normalised": "-eta*c/T_learn*(match_post - R_post)*gain_post*towards_post*r_pre",
    "own_class": "eta*c/T_learn*R_post*gain_post*(v_a_post - r_post)*r_pre",
}


def pair_rule(s: Settings, name: str, level: int) -> PlasticityRule:
    """The rule of the weights onto a level, by the pair loss of that level."""
    loss, cells, classes = "own_class" if s.own_class else s.loss, cells_of(s.shapes[level]), s.sizes[-1]
    c = {"raw": s.kappa / (cells * classes), "normalised": s.contrast / classes, "own_class": s.kappa / cells}[loss]
    keep, twice = "*keep_post" if s.filter else "", s.labels == "true_and_random" and not s.own_class
    equation = f"dw/dt = {PAIR_RULES[loss]}{keep}{'*multiplicity_post' if twice else ''}"
    values: dict[str, Any] = {"eta": s.eta, "c": 2 * c, "T_learn": f"{GATE}*ms"}
    if loss == "normalised" and s.decorrelation:
        equation += f" - eta*d/T_learn*gain_post*apart_post*r_pre{keep if name == 'forward' else ''}"  # labels all stay
        values["d"] = 4 * s.decorrelation / classes
    return PlasticityRule(name, equation, values, apply="trial")


def weights(s: Settings, l: int) -> Parts:
    """U_l up to level l, and V_l down from it."""
    top, maps = l == len(s.sizes) - 1, s.layers != "dense" and l < len(s.sizes) - 1
    values = {"eta": s.eta, "T_learn": f"{GATE}*ms"}
    output = PlasticityRule("forward", "dw/dt = eta/T_learn*error_post*r_pre", values, apply="trial")
    biases = [f"bU{l}", f"bV{l}"] if s.layers == "strided" and maps else ["", ""]
    up, down = (LAYERS[s.layers], DOUBLED) if maps else (Dense(), Dense())
    onto, back = output if top else pair_rule(s, "forward", l), pair_rule(s, "feedback", l - 1)
    return [
        *affine(f"U{l}", f"F{l - 1}", s.shapes[l - 1], f"F{l}.I_basal", onto, up, biases[0]),
        *affine(f"V{l}", f"D{l}", s.shapes[l], f"D{l - 1}.I_basal", back, down, biases[1]),
    ]


def training(settings: Mapping[str, Any], dataset: str) -> dict[str, Any]:
    """The preset of `neurosim train`: the authors' net and schedule for the data set; of a CNN where `layers` asks for maps."""
    tables, name = presets(__file__), {"cifar10_jpeg": "cifar10"}.get(dataset, dataset)
    return tables.get(name if settings.get("layers", "dense") == "dense" else f"{name}_cnn", tables["others"])
