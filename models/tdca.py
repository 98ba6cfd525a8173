"""TDCA of Chen, Liu & Wang 2022: a top-down network gives each neuron its credit; evolution finds the network, diffusion spreads the credit.

J.-H. Chen, C.-L. Liu, Z. Wang, "Biologically Plausible Training of Deep Neural Networks Using a Top-down Credit Assignment Network",
arXiv 2208.01416 (v1 2022, v2 2024). READ in the abstracts: a learner without a loss, a smaller top-down net that sees output and target and emits one
credit per neuron, two levels of training, credit diffusion. READ in the authors' code (classification only): both nets, the local rule, evolution and
its constants. NOT FOUND: the paper's body, its results, the kernel of diffusion. OURS: the rate circuit and its times, apical tufts, release sites,
every kernel, convolutions, the inner layers' own credits, the credit sources `bp`, `fa`, `dfa` as circuits; a floor of the fitness: the authors
take the log of a probability that has underflowed to 0 as it is, so that one such sample makes a
candidate's fitness -inf (READ), here such a probability counts as the smallest normal number of its
type (a log of -87.3 in float32, -708.4 in float64).

    hidden     tau_s du/dt = -u + r_{l-1} W_l + b_l + kappa v_a      r = tanh(u)        delta = v_a (1 - r^2)
    output     tau_s du/dt = -u + r_{L-1} W_L + b_L                  r = softmax(u)     delta = r (v_a - sum_k r_k v_a,k)
    apical     tau_a dv_a/dt = -v_a + c                              c: the credit; positive credit lowers the rate
    top-down   tau_td du/dt = -u + [p, y] V_1 + e_1                  r = tanh(u); a second such layer; sites k = u_2 V_3 + e_3
    diffusion  c = k D, or a messenger  tau_m dm/dt = w^2 (sum of neighbours' m - degree m) - m + (n/K) release

    dW_l = -eta delta_l r_{l-1}                                      mean over samples; b_l likewise

The top-down weights stand still while the learner learns (`neurosim evolve tdca` finds them).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Ge

from neurosim import (
    SOURCE, Cell, Circuit, Citation, Dense, FeedForward, OneToOne, Phase, PlasticityRule, Population, Projection,
    Protocol, Readout,
)  # fmt: skip
from neurosim.checks import Cells, Count, In, Levels, NotNegative, Positive
from neurosim.evolved import EvolvedSettings, as_evolved, with_evolved
from neurosim.parts import (
    KERNELS, LATTICES, MESSENGER, POOLED, SOFTMAX, STILL, Release, affine, all_sent_back, credit_network, evolved_sites,
    fan_in_uniform, level_shapes, release, sent_back,
)  # fmt: skip
from neurosim.settings import Parts, check_classes, computed, model, presets, refuse_if

PAPER = Citation(
    "Biologically Plausible Training of Deep Neural Networks Using a Top-down Credit Assignment Network",
    "Chen, J.-H. and Liu, C.-L. and Wang, Z.", 2024,
    "@misc{chen2024credit, eprint = {2208.01416}, archivePrefix = {arXiv}, note = {Version 2; version 1 of 2022 has another title}}",
    note="learner, top-down net, local rule, evolution. The rate circuit and every kernel of diffusion are a reconstruction.",
)  # fmt: skip

#: Time of the gate in which the rule reads the rates; time constants of somata and apical tufts (ms); step in time.
GATE, TAU_S, TAU_A, DT = 20.0, 10.0, 5.0, "1.0*ms"
TIMES = {"tau_s": f"{TAU_S}*ms", "tau_a": f"{TAU_A}*ms"}
#: Credits that follow from the answer's error, without a top-down net: backprop, feedback alignment, direct feedback alignment.
DERIVED = ("bp", "fa", "dfa")


@dataclass(frozen=True)
class Settings(EvolvedSettings):
    """Settings of a classifier taught by credits; defaults of `as_evolved` are those of the file in `credits`, if any."""

    MODEL, KEY, FIXED = "tdca", "credits", ("hidden", "ratio", "architecture", "inner")
    WORDS = ("unevolved", *DERIVED)
    #: Cells of each level, from the picture to the classes. `conv`: the picture's channels, then maps. `residual`: the
    #: first hidden level is plain, each further one a block of two layers as wide as the level below.
    sizes: Levels = as_evolved("sizes", (64, 32, 32, 10))
    #: A file of `neurosim evolve` (release sites spread over hidden levels of other widths), `unevolved`, or `DERIVED`.
    credits: str | int | os.PathLike[str] = "unevolved"
    #: `conv`: 3 x 3 kernels, 2 x 2 max-pooling of drives, a dense classifier; `pixels`: height and width of the picture.
    architecture: Annotated[str, In(("mlp", "residual", "conv"))] = as_evolved("architecture", "mlp")
    pixels: Count = 8
    #: Evolved credit of a block's inner layer: `transposed`, backprop within the block, READ in the authors' code; `own`,
    #: release sites of its own, local in the strict sense.
    inner: Annotated[str, In(("transposed", "own"))] = as_evolved("inner", "transposed")
    #: Cells of each of the top-down net's two layers; cells per release site in hidden levels (1: each has its own credit).
    hidden: Cells = as_evolved("hidden", 30)
    ratio: Annotated[float, Ge(1)] = as_evolved("ratio", 1.0)
    #: How credit spreads where sites are fewer than cells, see `neurosim.parts.diffusion_kernel`. Maps are sheets.
    kernel: Annotated[str, In(KERNELS)] = as_evolved("kernel", "gauss")
    width: Positive = as_evolved("width", 0.5)
    lattice: Annotated[str, In(LATTICES)] = as_evolved("lattice", "line")
    #: The messenger diffuses in time (kernel `chain`) in place of the kernel that it settles at; its decay time (ms).
    messenger: bool = False
    tau_m: Positive = 20.0
    #: Apical drive of the soma: 0 as published; above it credit leaks into the rates.
    kappa: NotNegative = 0.0
    #: Time before the weights learn (ms); factor of the rule, on top of which the trainer's rates come.
    settle: Positive = computed(lambda s: 30 * max(TAU_S, s.tau_m if s.messenger else 0.0))
    eta: Positive = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_classes(self.sizes)
        uneven = self.architecture == "residual" and len(set(self.sizes[1:-1])) > 1
        refuse_if(uneven, f"sizes = {self.sizes}; expected hidden levels of one width, which skips join.")
        unspread = f"messenger = True with credits = '{self.credits}'; expected a file, or 'unevolved'."
        refuse_if(self.messenger and self.credits in DERIVED, unspread)

    shapes = property(lambda self: level_shapes(self.sizes, self.pixels if self.architecture == "conv" else None))

    @property
    def credited(self) -> dict[str, int]:
        """Hidden populations whose credit comes from above, and their levels."""
        own = self.inner == "own" and self.architecture == "residual" and self.credits not in ("bp", "fa")
        levels = range(1, len(self.sizes) - 1)
        return {f"{name}{l}": l for l in levels for name in (("pyr", "inner") if own and l > 1 else ("pyr",))}


@model(Settings)
def circuit(s: Settings) -> Circuit:
    """Levels of pyramidal cells, and what sends credits to their apical tufts."""
    top, classes, top_down = len(s.sizes) - 1, s.sizes[-1], s.credits not in DERIVED
    layers, out, below = range(1, top + 1), f"pyr{top}", f"pyr{top - 1}"
    sites = releases(s) if top_down else {}
    cell = Cell("output pyramidal", OUTPUT + ("" if top_down else TAUGHT), TIMES)
    parts: Parts = [Population("inp", s.shapes[0], SOURCE)]
    for l in layers[:-1]:
        parts += level(s, l, sites)
    parts += [Population(out, classes, cell), *onto(s, f"{top}", below, s.shapes[-2], out)]
    if top_down:
        seen, taught = [(out, classes), ("target", classes)], [*sites.values(), Release(out, classes, classes)]
        net = with_evolved(credit_network(seen, s.hidden, taught), s.evolved, s.credits)
        parts += [Population("target", classes, SOURCE), *net]
    else:
        direct = fan_in_uniform(classes)
        sent = [Projection(f"B_{name}", f"{out}.wrong", f"{name}.I_apical", direct) for name in s.credited]
        sent = sent if s.credits == "dfa" else all_sent_back(parts, fixed=s.credits == "fa")
        parts += [Projection("own", f"{out}.own", f"{out}.I_apical", connectivity=OneToOne()), *sent]
    phases = (Phase("settle", f"{s.settle}*ms"), Phase("learn", f"{GATE}*ms", plastic=("credit",)))
    names, biases = (tuple(f"{w}{l}" for l in layers) for w in "Wb")
    return Circuit(
        "tdca", parts, Protocol(phases, {"inp.r": "image", "target.r" if top_down else f"{out}.y": "target"}, dt=DT),
        Readout(f"{out}.r", "settle", loss="cross_entropy"),
        None if s.architecture == "residual" else FeedForward(names, biases, "tanh(u)", loss="cross_entropy"), citations=(PAPER,),
    )  # fmt: skip


PORTS = "I_basal : 1 (port)\nI_apical : 1 (port)\n"
DIRECT = "dv_a/dt = (-v_a + I_apical)/tau_a : 1\n"
BY_MESSENGER = "dv_a/dt = (-v_a + m)/tau_a : 1\n" + MESSENGER
HIDDEN = PORTS + """
    du/dt = (-u + I_basal + kappa*v_a)/tau_s : 1
    r     = tanh(u) : 1
    delta = v_a*(1 - r**2) : 1
    """  # fmt: skip
OUTPUT = PORTS + DIRECT + SOFTMAX + """
    du/dt = (-u + I_basal)/tau_s : 1
    delta = r*(v_a - mean_credit) : 1
    mean_credit = pool(r*v_a) : 1
    """  # fmt: skip
#: What an output cell adds that knows the target: its own credit, and the error for direct feedback alignment.
TAUGHT = "own = -y/clip(r, 1e-30, 1) : 1\nwrong = r - y : 1\ny : 1 (input)\n"


def onto(s: Settings, label: str, source: str, shape: Any, target: str, kind: Any = None) -> list[Projection]:
    """Weights and biases that learn by ``dW = -eta delta r``, ``db = -eta delta``, once a trial."""
    values = {"eta": s.eta, "T_learn": f"{GATE}*ms"}
    rule = PlasticityRule("credit", "dw/dt = -eta/T_learn*delta_post*r_pre", values, apply="trial")
    return affine(f"W{label}", source, shape, f"{target}.I_basal", rule, kind or Dense(), biases=f"b{label}")


def level(s: Settings, l: int, sites: Mapping[str, Release]) -> Parts:
    """Cells of hidden level l and the weights onto them; of a residual block also its inner layer and its skip."""

    def cells(name: str) -> Population:
        tuft, more, own = DIRECT, {}, {}
        if s.messenger and name in sites:
            tuft, more = BY_MESSENGER, STILL | {"tau_m": f"{s.tau_m}*ms"}
            own = sites[name].messenger(s.width, f"{s.tau_m}*ms", DT)
        kind = "pyramidal with a messenger" if own else "pyramidal"
        return Population(name, s.shapes[l], Cell(kind, HIDDEN + tuft, TIMES | more | {"kappa": s.kappa}), own)

    name, inner, below = f"pyr{l}", f"inner{l}", (f"pyr{l - 1}" if l > 1 else "inp", s.shapes[l - 1])
    if s.architecture != "residual" or l == 1:
        return [cells(name), *onto(s, f"{l}", *below, name, POOLED if s.architecture == "conv" else None)]
    weights, biases = onto(s, f"{l}", inner, s.shapes[l], name)
    within = [] if inner in s.credited else [sent_back(weights, f"back{l}", s.sizes[l], fixed=s.credits == "fa")]
    skip = Projection(f"skip{l}", below[0], f"{name}.I_basal", connectivity=OneToOne())
    onto_inner = onto(s, f"in{l}", *below, inner)
    return [cells(name), cells(inner), *onto_inner, weights, biases, skip, *within]


def releases(s: Settings) -> dict[str, Release]:
    """Release sites of the hidden populations, those of the file if there is one."""
    spread = (s.ratio, s.kernel, s.width, s.lattice, s.messenger)
    found = [(name, l, s.shapes[l]) for name, l in s.credited.items()]
    return {name: release(name, n, *spread, evolved_sites(s.evolved, name, n, l)) for name, l, n in found}


def training(settings: Mapping[str, Any], dataset: str) -> dict[str, Any]:
    """The preset of `neurosim train`: the learner's life as in evolution where `credits` is a file, else Adam."""
    tables, found = presets(__file__), Settings.load(settings.get("credits", "unevolved"))
    preset = tables.get(dataset, tables["others"])
    if found is None:
        return preset
    first, *levels = found.settings["sizes"]
    maps = found.settings.get("architecture") == "conv"  # sizes begin with the picture's channels
    picture = {"pixels": found.settings.get("pixels", 8)} if maps else {}
    picture["sizes"] = (first if maps else preset["sizes"][0], *levels)
    return preset | Settings.of_file(found) | found.training | picture
