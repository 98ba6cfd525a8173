"""Dendritic cortical microcircuit of Sacramento, Costa, Bengio & Senn 2018.

"Dendritic cortical microcircuits approximate the backpropagation algorithm", NeurIPS 2018, arXiv 1810.11393. READ in
public code and a report of others (phll/Neuro-Backprop, miyosuda/dendritic_bp, gittermarie/DendriticCorticalMicrocircuitThesis;
latent equilibrium: unibe-cns/pal_microcircuits_genn, kma-code/Error-Neuron-Microcircuits), not in the paper itself:
equations, rules, self-predicting state, constants, learning rates of the published tasks (in presets/). OURS: biases, the
tie of top-down weights in `sym`, compensation of the layers' rates, the trial of `classification` and all its defaults.

    du/dt = -g_lk u + g_B (v_B - u) + g_A (v_A - u) (+ sigma xi)         pyramidal, hidden
    du/dt = -g_lk u + g_B (v_B - u) + teach g_som (u_target - u)         pyramidal, output
    du/dt = -g_lk u + g_D (v_D - u) + g_som (u_partner - u)              SST interneuron, one per cell of the layer above
    v_B,l = W_l r_(l-1)    v_A,l = B_l r_(l+1) + PI_l r_int,l    v_D,l = IP_l r_l    r = phi(u), r_hat = phi(dendrite's share)

    dW/dt = eta (r - r_hat) r_pre    dIP/dt = eta (r - r_hat) r_pre    dPI/dt = eta (v_rest - v_A) r_pre     (low-passed by tau_w)

In the self-predicting state, PI_l = -B_l and IP_l = f W_(l+1), the apical potential is 0 without a target and the net is a
feed-forward net; under a target the apical potential is the backpropagated error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from neurosim import (
    Cell, Circuit, Citation, Constant, Glorot, Like, OneToOne, Phase, PlasticityRule, Population, Projection,
    Protocol, Ratio, Readout, Tied, Uniform,
)  # fmt: skip
from neurosim.checks import In, NotNegative, PositiveTime, Sizes
from neurosim.equations import seconds
from neurosim.parts import (
    TEACHING, TRANSFER, error_share, low_pass_input, microcircuit_cells, predicts_soma, self_predicting_factor,
    self_predicting_net, silences_apical,
)  # fmt: skip
from neurosim.settings import ModelSettings, Parts, computed, model, preset_of, presets, refuse_if

PAPER = Citation(
    "Dendritic cortical microcircuits approximate the backpropagation algorithm",
    "Sacramento, J. and Costa, R. P. and Bengio, Y. and Senn, W.", 2018,
    """@inproceedings{sacramento2018dendritic,
      booktitle = {Advances in Neural Information Processing Systems 31}, eprint = {1810.11393}, archivePrefix = {arXiv}
    }""",
    note="equations and constants read in public code of others; see the module's text",
)  # fmt: skip

#: The published constants, by `parameters`, and the published learning rates, by `task`.
PUBLISHED = presets(__file__)


@dataclass(frozen=True)
class Settings(ModelSettings):
    """Settings of the dendritic microcircuit."""

    #: Cells per layer, input and output included.
    sizes: Sizes = (30, 20, 10)
    #: `classification`: free phase, then target on. `self_prediction`: no target, W fixed. `single_target`, `teacher`:
    #: target always on; states outlive a trial. Plasticity is on in every phase of the last three.
    task: Annotated[str, In(("self_prediction", "single_target", "teacher", "classification"))] = "classification"
    #: Top-down weights: `sym` (tied to the transpose of W) or `fa` (fixed random).
    feedback: Annotated[str, In(("sym", "fa"))] = "sym"
    #: IP and PI: plastic from a `self_predicting` or `random` start, or `tied`: self-predicting while W learns (ours).
    lateral: Annotated[str, In(("self_predicting", "random", "tied"))] = "self_predicting"
    #: `latent_equilibrium`: its conductances and time constants, prospective rates and teaching.
    parameters: Annotated[str, In(("standard", "latent_equilibrium"))] = "standard"
    #: Apical and somatic (teaching) conductance, 1/ms.
    g_A: NotNegative = computed(lambda s: PUBLISHED[s.parameters]["conductances"]["g_A"])
    g_som: NotNegative = computed(lambda s: PUBLISHED[s.parameters]["conductances"]["g_som"])
    #: Of the cells, see `neurosim.parts`; `target` holds the potentials of y = 0 and y = 1, relative to rest.
    transfer: Annotated[str, In(TRANSFER)] = "logistic"
    target: tuple[float, float] = (-1.0, 1.0)
    teaching: Annotated[str, In(TEACHING)] = "current"
    units: Annotated[str, In(("dimensionless", "physical"))] = "dimensionless"
    tau_dendrite: PositiveTime | None = None
    #: White noise of every soma, per sqrt(ms) (dimensionless units).
    sigma: NotNegative = 0.0
    #: Of `classification` (other tasks have published rates): a presentation moves W by eta times minus the gradient in
    #: the limit of small g_A and g_som, by about that otherwise, and IP and PI by eta_lateral post pre in each phase.
    eta: NotNegative = computed(lambda s: 0.02 if s.task == "classification" else None)
    eta_lateral: NotNegative = computed(lambda s: 0.02 if s.task == "classification" else None)
    #: Low-pass of all rules in place of that of `parameters`; `off` for none.
    tau_w: PositiveTime | Annotated[str, In(("off",))] | None = None
    #: Length of each phase, and of its beginning without plasticity (`classification`).
    pattern: PositiveTime = computed(lambda s: PUBLISHED[s.parameters]["pattern"])
    lag: PositiveTime = computed(lambda s: PUBLISHED[s.parameters]["lag"])
    #: Initial W of `Glorot(gain)` in place of uniform on +-1 (latent equilibrium: +-0.1). Biases: of W and IP.
    gain: NotNegative | None = None
    biases: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        s, learns, g, whole = self, self.task == "classification", (self.g_A, self.g_som), seconds(self.pattern)
        refuse_if(s.sigma > 0 and s.units == "physical",
            f"sigma = {s.sigma} with units=physical; expected units=dimensionless for a noisy circuit.")  # fmt: skip
        refuse_if(not learns and (s.eta, s.eta_lateral) != (None, None),
            f"eta and eta_lateral are settings of task=classification; task={s.task} has published rates. Leave them out.")  # fmt: skip
        refuse_if(learns and min(g) <= 0,
            f"g_A = {g[0]}, g_som = {g[1]}: classification divides its learning rates by both; expected values above 0.")  # fmt: skip
        refuse_if(s.lateral == "tied" and s.task == "self_prediction",
            "task=self_prediction learns the lateral weights; lateral=tied leaves nothing to learn.")  # fmt: skip
        refuse_if(learns and seconds(s.lag) >= whole,
            f"lag = {s.lag}: expected a time above 0 and below the pattern's {whole * 1e3:g} ms.")  # fmt: skip

    @property
    def g(self) -> dict[str, float]:
        return {**PUBLISHED[self.parameters]["conductances"], "g_A": self.g_A, "g_som": self.g_som}

    @property
    def wait(self) -> float:
        """Seconds of a phase before plasticity begins."""
        return seconds(self.lag) if self.task == "classification" else 0.0


@model(Settings)
def circuit(s: Settings) -> Circuit:
    """Layers of pyramidal cells; beside each hidden layer the interneurons that predict the one above."""
    top, ahead, classifies = len(s.sizes) - 1, s.parameters == "latent_equilibrium", s.task == "classification"
    layers, hidden, (forward, follow, silence) = range(1, top + 1), range(1, top), rules(s, top)
    form = {"transfer": s.transfer, "units": s.units, "tau_dendrite": s.tau_dendrite, "conductances": s.g}
    pyramidal, output, interneuron = microcircuit_cells(s.teaching, s.target, ahead, s.sigma, **form)
    parts: Parts = [Population("inp", s.sizes[0], low_pass_input(PUBLISHED[s.parameters]["tau_0"]))]
    for l in layers:
        parts += layer(s, l, output if l == top else pyramidal, forward[l - 1])
    for l in hidden:
        parts += microcircuit(s, l, top, interneuron, follow, silence)
    left = Ratio(tuple(f"pyr{l}.v_A" for l in hidden), tuple(f"pyr{l}.v_B" for l in hidden), "free")
    return Circuit(
        "dendritic_microcircuit", parts, protocol(s, top), Readout(f"pyr{top}.r", "free") if classifies else None,
        self_predicting_net(s.g, layers, s.biases, s.transfer, s.target), citations=(PAPER,),
        measures={"apical_to_basal": left} if hidden and classifies and s.units == "dimensionless" else {},
    )  # fmt: skip


def layer(s: Settings, l: int, cell: Cell, rule: PlasticityRule) -> Parts:
    """Pyramidal cells of layer l, and what the basal dendrite learns from the soma: W_l and b_l."""
    bound = PUBLISHED[s.parameters]["forward"]
    start = Uniform(-bound, bound) if s.gain is None else Glorot(s.gain)
    forward = Projection(f"W{l}", f"pyr{l - 1}" if l > 1 else "inp", f"pyr{l}.I_basal", start, rule)
    bias = [Projection(f"b{l}", "one", f"pyr{l}.I_basal", Constant(0), rule)] if s.biases else []
    return [Population(f"pyr{l}", s.sizes[l], cell), forward, *bias]


def microcircuit(s: Settings, l: int, top: int, cell: Cell, follow: PlasticityRule, silence: PlasticityRule) -> Parts:
    """Feedback to layer l, and the interneurons that cancel it: each has a partner in the layer above."""
    above, symmetric, bound = f"pyr{l + 1}", s.feedback == "sym", PUBLISHED[s.parameters]["lateral"]
    factor = self_predicting_factor(s.g, output=l + 1 == top)

    def lateral(name: str, source: str, target: str, tie: Tied, start: Any, rule: PlasticityRule) -> Projection:
        """Tied to its self-predicting value, or plastic from there or from an unknown start."""
        weights = {"tied": tie, "random": start, "self_predicting": Like(tie.projection, tie.factor, tie.transpose)}
        return Projection(name, source, target, weights[s.lateral], None if s.lateral == "tied" else rule)

    back = Tied(f"W{l + 1}", transpose=True) if symmetric else Uniform(-1.0, 1.0)
    cancel = Tied(f"W{l + 1}" if symmetric else f"B{l}", -1.0, symmetric)
    bias = lateral(f"c{l}", "one", f"int{l}.I_dend", Tied(f"b{l + 1}", factor), Constant(0), follow)
    partner = f"{above}.u_ahead" if s.parameters == "latent_equilibrium" else f"{above}.u"
    return [
        Population(f"int{l}", s.sizes[l + 1], cell),
        Projection(f"B{l}", above, f"pyr{l}.I_apical", back),
        lateral(f"IP{l}", f"pyr{l}", f"int{l}.I_dend", Tied(f"W{l + 1}", factor), Uniform(-bound, bound), follow),
        lateral(f"PI{l}", f"int{l}", f"pyr{l}.I_apical", cancel, Uniform(-bound, bound), silence),
        Projection(f"teach{l}", partner, f"int{l}.u_partner", connectivity=OneToOne()),
        *([bias] if s.biases else []),
    ]


def rules(s: Settings, top: int) -> tuple[list[PlasticityRule], PlasticityRule, PlasticityRule]:
    """Of W_1 to W_L, of IP and of PI: at published rates, or such that eta means minus the gradient."""
    per_ms, names = 1e-3 / (seconds(s.pattern) - s.wait), ("feedforward", "interneuron", "apical")
    if s.task == "classification":
        forward = [s.eta * per_ms / error_share(s.g, below=top - l) for l in range(1, top + 1)]
        interneuron = apical = s.eta_lateral * per_ms
    else:
        (hidden, output), interneuron, apical = (PUBLISHED[s.task][name] for name in names)
        forward = [*[hidden] * (top - 1), output]
    tau = {name: None if s.tau_w == "off" else s.tau_w or PUBLISHED[s.parameters]["tau_w"][name] for name in names}
    follow = predicts_soma("interneuron", interneuron, tau["interneuron"])
    silence = silences_apical("apical", apical, tau["apical"], s.units)
    return [predicts_soma("feedforward", eta, tau["feedforward"]) for eta in forward], follow, silence


def protocol(s: Settings, top: int) -> Protocol:
    """Of `classification` a free phase, then one with the target; of the other tasks the one or the other."""
    target = {f"pyr{top}.y": "target"} if s.task != "self_prediction" else {}
    lateral = () if s.lateral == "tied" or top == 1 else ("interneuron", "apical")
    rules, dt = (*(("feedforward",) if target else ()), *lateral), PUBLISHED[s.parameters]["dt"]
    plastic = seconds(s.pattern) - s.wait
    whole, gate = f"{s.wait + plastic!r}*second", f"{plastic!r}*second" if s.wait else None
    free = Phase("free", whole, plastic=rules, gate=gate)
    taught = Phase("taught", whole, {"teach": 1}, plastic=rules, gate=gate)
    phases = {"classification": (free, taught), "self_prediction": (free,)}.get(s.task, (taught,))
    return Protocol(phases, {"inp.x": "image"} | target, {"teach": 0}, s.task == "classification", dt)


def training(settings: Mapping[str, Any], dataset: str) -> dict[str, Any]:
    """The preset of `neurosim train`; tasks other than classification take sizes that fit the data."""
    found, ahead = preset_of(__file__, dataset), settings.get("parameters") == "latent_equilibrium"
    if settings.get("task", "classification") != "classification":
        return {"sizes": (found["sizes"][0], 30, 10)}
    return found | ({"dt": PUBLISHED["latent_equilibrium"]["dt"]} if ahead else {})
