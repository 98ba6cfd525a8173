"""Dendritic cortical microcircuit of Sacramento, Costa, Bengio & Senn 2018.

J. Sacramento, R. P. Costa, Y. Bengio, W. Senn, "Dendritic cortical microcircuits approximate the backpropagation algorithm",
NeurIPS 2018, arXiv 1810.11393. READ in public code and a report of others (phll/Neuro-Backprop, miyosuda/dendritic_bp,
gittermarie/DendriticCorticalMicrocircuitThesis; latent equilibrium: unibe-cns/pal_microcircuits_genn,
kma-code/Error-Neuron-Microcircuits), not in the paper itself: equations, rules, self-predicting state, constants, learning rates of
the published tasks. OURS: biases, the tie of top-down weights in `sym`, compensation of the layers' rates, the split of a
classification trial, all defaults of `classification`.

    du/dt = -g_lk u + g_B (v_B - u) + g_A (v_A - u) (+ sigma xi)         pyramidal, hidden
    du/dt = -g_lk u + g_B (v_B - u) + teach g_som (u_target - u)         pyramidal, output
    du/dt = -g_lk u + g_D (v_D - u) + g_som (u_partner - u)              SST interneuron, one per cell of the layer above
    v_B,l = W_l r_(l-1)    v_A,l = B_l r_(l+1) + PI_l r_int,l    v_D,l = IP_l r_l    r = phi(u), r_hat = phi(dendrite's share)

    dW/dt = eta (r - r_hat) r_pre    dIP/dt = eta (r - r_hat) r_pre    dPI/dt = eta (v_rest - v_A) r_pre     (low-passed by tau_w)

In the self-predicting state, PI_l = -B_l and IP_l = f W_(l+1), the apical potential is 0 without a target and the net is a
feed-forward net; under a target the apical potential is the backpropagated error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

from neurosim import (
    Cell,
    Circuit,
    Citation,
    Constant,
    FeedForward,
    Fragment,
    Glorot,
    Like,
    OneToOne,
    Phase,
    PlasticityRule,
    Population,
    Projection,
    Protocol,
    Ratio,
    Readout,
    Tied,
    Uniform,
)
from neurosim.checks import In, NotNegative, PositiveTime, Sizes, checked
from neurosim.description import Initialiser
from neurosim.equations import seconds
from neurosim.errors import NeurosimError
from neurosim.parts import (
    CONDUCTANCES,
    TRANSFER,
    low_pass_input,
    noisy,
    output_pyramidal,
    prospective,
    pyramidal,
    sst_interneuron,
)
from neurosim.parts import transfer as transfer_text
from neurosim.parts.pyramidal import TEACHING

#: The paper.
PAPER = Citation(
    "Dendritic cortical microcircuits approximate the backpropagation algorithm",
    "Sacramento, J. and Costa, R. P. and Bengio, Y. and Senn, W.",
    2018,
    """@inproceedings{sacramento2018dendritic,
      booktitle = {Advances in Neural Information Processing Systems 31}, eprint = {1810.11393}, archivePrefix = {arXiv}
    }""",
    note="equations and constants read in public code of others; see the module's text",
)

#: Published learning rates (1/ms, READ) of W in hidden layers and at the top, of IP, of PI.
PUBLISHED: dict[str, dict[str, Any]] = {
    "self_prediction": {"feedforward": (0.0, 0.0), "interneuron": 2.375e-4, "apical": 5e-4},
    "single_target": {"feedforward": (1.1875e-3, 5e-4), "interneuron": 1.1875e-3, "apical": 5e-4},
    "teacher": {"feedforward": (1.1875e-3, 5e-4), "interneuron": 1.1875e-3, "apical": 5.9375e-3},
}
TASKS = (*PUBLISHED, "classification")
#: Conductances (1/ms), time constants and pattern length of the two published parameter sets (READ).
PARAMETERS: dict[str, dict[str, Any]] = {
    "standard": {
        "conductances": CONDUCTANCES, "tau_0": "3*ms", "pattern": "100*ms", "dt": "0.1*ms", "forward": 1.0,
        "tau_w": {"feedforward": "30*ms", "interneuron": "30*ms", "apical": "30*ms"},
    },
    "latent_equilibrium": {
        "conductances": {"g_lk": 0.03, "g_B": 0.1, "g_A": 0.06, "g_D": 0.1, "g_som": 0.06}, "tau_0": "0.01*ms",
        "pattern": "1*ms", "dt": "0.01*ms", "forward": 0.1,
        "tau_w": {"feedforward": "100*ms", "interneuron": "0.01*ms", "apical": "0.01*ms"},
    },
}  # fmt: skip
FEEDBACK = ("sym", "fa")
LATERAL = ("self_predicting", "random", "tied")
UNITS = ("dimensionless", "physical")


@checked
def circuit(
    sizes: Sizes = (30, 20, 10),
    task: Annotated[str, In(TASKS)] = "classification",
    feedback: Annotated[str, In(FEEDBACK)] = "sym",
    lateral: Annotated[str, In(LATERAL)] = "self_predicting",
    parameters: Annotated[str, In(PARAMETERS)] = "standard",
    g_A: NotNegative | None = None,
    g_som: NotNegative | None = None,
    transfer: Annotated[str, In(TRANSFER)] = "logistic",
    target: tuple[float, float] = (-1.0, 1.0),
    teaching: Annotated[str, In(TEACHING)] = "current",
    units: Annotated[str, In(UNITS)] = "dimensionless",
    tau_dendrite: PositiveTime | None = None,
    sigma: NotNegative = 0.0,
    eta: NotNegative | None = None,
    eta_lateral: NotNegative | None = None,
    tau_w: PositiveTime | Annotated[str, In(("off",))] | None = None,
    pattern: PositiveTime | None = None,
    lag: PositiveTime | None = None,
    gain: NotNegative | None = None,
    biases: bool = False,
) -> Circuit:
    """The dendritic microcircuit.

    Parameters
    ----------
    sizes
        Cells per layer, input and output included.
    task
        ``classification``: free phase, then target on. ``self_prediction``: no target, W fixed. ``single_target`` and ``teacher``:
        target always on; states outlive a trial. Plasticity is on in every phase of the last three.
    feedback
        Top-down weights: ``sym`` (tied to the transpose of W) or ``fa`` (fixed random).
    lateral
        Lateral weights IP and PI: plastic from a ``self_predicting`` or ``random`` start, or ``tied``: kept self-predicting
        while W learns, without a rule of their own (ours).
    parameters
        ``standard``, or ``latent_equilibrium`` (its conductances and time constants, prospective rates and teaching).
    g_A, g_som
        Apical and somatic (teaching) conductance, 1/ms, in place of those of `parameters`.
    transfer, target, teaching, units, tau_dendrite
        Of the cells, see `neurosim.parts`; `target` holds the potentials of y = 0 and y = 1, relative to rest.
    sigma
        White noise of every soma, per sqrt(ms) (dimensionless units).
    eta
        `classification`: learning rate, default 0.02; a presentation moves W by eta times minus the gradient in the limit of small g_A and
        g_som, and by about that otherwise (each layer's rate is divided by the factors by which errors shrink on their
        way down).
    eta_lateral
        `classification`: a presentation moves IP and PI by eta_lateral * post * pre in each phase, default 0.02. The other
        tasks run at their published rates.
    tau_w
        Low-pass of all rules in place of that of `parameters`; ``"off"`` for none.
    pattern
        Length of each phase, default 100 ms (latent equilibrium: 1 ms).
    lag
        `classification`: time after the onset of a phase without plasticity, default 20 ms (latent equilibrium: 0.2 ms).
    gain
        Initial W of ``Glorot(gain)`` in place of uniform on +-1 (latent equilibrium: +-0.1).
    biases
        Biases of W and IP.
    """
    if sigma and units == "physical":
        raise NeurosimError("sigma is in dimensionless units; use units=dimensionless for a noisy circuit.")
    if task != "classification" and (eta, eta_lateral) != (None, None):
        raise NeurosimError(
            f"eta and eta_lateral are settings of task=classification; task={task} runs at its published rates (change them with "
            "dataclasses.replace on the projections' rules)."
        )
    eta, eta_lateral = 0.02 if eta is None else eta, 0.02 if eta_lateral is None else eta_lateral
    chosen, ahead = PARAMETERS[parameters], parameters == "latent_equilibrium"
    g = {**chosen["conductances"], **{n: v for n, v in (("g_A", g_A), ("g_som", g_som)) if v is not None}}
    if task == "classification" and min(g["g_A"], g["g_som"]) <= 0:
        raise NeurosimError(
            f"g_A = {g['g_A']}, g_som = {g['g_som']}: classification divides its learning rates by both; wanted values above 0."
        )
    length: str = pattern or chosen["pattern"]
    top = len(sizes) - 1
    forward = Uniform(-chosen["forward"], chosen["forward"]) if gain is None else Glorot(gain)
    unknown_start = Uniform(-1.0, 1.0) if not ahead else Uniform(-0.1, 0.1)
    if lateral == "tied" and task == "self_prediction":
        raise NeurosimError("task=self_prediction learns the lateral weights; lateral=tied leaves nothing to learn.")
    windows = _windows(task, length, lag, ahead)
    rates = _rates(task, g, top, eta, eta_lateral, windows)

    def low_pass(rule: str) -> str | None:
        return None if tau_w == "off" else tau_w or chosen["tau_w"][rule]

    def predict(name: str, rate: float) -> PlasticityRule:
        """The soma teaches the weights onto its dendrite to predict it (Urbanczik & Senn 2014)."""
        return PlasticityRule(
            name, "dw/dt = eta*(r_post - r_hat_post)*r_pre", {"eta": f"{rate!r}/ms"}, filter=low_pass(name)
        )

    deviation = "(E_L_post - v_A_post)/v_0_post" if units == "physical" else "-v_A_post"
    silence = PlasticityRule(
        "apical", f"dw/dt = eta*{deviation}*r_pre", {"eta": f"{rates['apical']!r}/ms"}, filter=low_pass("apical")
    )
    follow = predict("interneuron", rates["interneuron"])
    build: dict[str, Any] = dict(transfer=transfer, units=units, tau_dendrite=tau_dendrite, conductances=g)
    hidden = _finished(pyramidal(**build), "1/(g_lk + g_B + g_A)", units, ahead, sigma)
    output = output_pyramidal(**build, teaching=teaching, target=target)
    output = _finished(output, "1/(g_lk + g_B + teach*g_som)", units, ahead, sigma)
    interneuron = _finished(sst_interneuron(**build), "1/(g_lk + g_D + g_som)", units, ahead, sigma)
    populations = [Population("inp", sizes[0], low_pass_input(chosen["tau_0"]))]
    projections: list[Projection] = []
    for l in range(1, top + 1):
        populations.append(Population(f"pyr{l}", sizes[l], output if l == top else hidden))
        below = "inp" if l == 1 else f"pyr{l - 1}"
        rule = predict("feedforward", rates["feedforward"][l - 1])
        projections.append(Projection(f"W{l}", below, f"pyr{l}.I_basal", forward, rule))
        if biases:
            projections.append(Projection(f"b{l}", "one", f"pyr{l}.I_basal", Constant(0), rule))
    for l in range(1, top):
        above = f"pyr{l + 1}"
        populations.append(Population(f"int{l}", sizes[l + 1], interneuron))
        ratio = _self_predicting(g, output=l + 1 == top)
        tie = Tied(f"W{l + 1}", transpose=True) if feedback == "sym" else None
        top_down = Projection(f"B{l}", above, f"pyr{l}.I_apical", tie or Uniform(-1.0, 1.0))
        partner = f"{above}.{'u_ahead' if ahead else 'u'}"
        projections += [
            top_down,
            _lateral(
                lateral,
                Projection(f"IP{l}", f"pyr{l}", f"int{l}.I_dend"),
                Tied(f"W{l + 1}", factor=ratio),
                unknown_start,
                follow,
            ),
            _lateral(
                lateral,
                Projection(f"PI{l}", f"int{l}", f"pyr{l}.I_apical"),
                replace(tie, factor=-1.0) if tie else Tied(f"B{l}", factor=-1.0),
                unknown_start,
                silence,
            ),
            Projection(f"teach{l}", partner, f"int{l}.u_partner", connectivity=OneToOne()),
        ]
        if biases:
            own = Projection(f"c{l}", "one", f"int{l}.I_dend")
            projections.append(_lateral(lateral, own, Tied(f"b{l + 1}", factor=ratio), Constant(0), follow))
    return Circuit(
        "dendritic_microcircuit", Fragment(populations, projections), _protocol(task, top, lateral, windows, chosen["dt"]),
        readout=Readout(f"pyr{top}.r", "free") if task == "classification" else None,
        reference=_reference(g, top, biases, transfer, target),
        measures={
            "apical_to_basal": Ratio(
                tuple(f"pyr{l}.v_A" for l in range(1, top)), tuple(f"pyr{l}.v_B" for l in range(1, top)), "free"
            )
        } if top > 1 and task == "classification" and units == "dimensionless" else {},
        citations=(PAPER,),
    )  # fmt: skip


def _lateral(
    lateral: str, bare: Projection, self_predicting: Tied, unknown_start: Initialiser, rule: PlasticityRule
) -> Projection:
    """A lateral projection: tied to its self-predicting value, or plastic from there or from an unknown start."""
    if lateral == "tied":
        return replace(bare, weights=self_predicting)
    like = Like(self_predicting.projection, self_predicting.factor, self_predicting.transpose)
    return replace(bare, weights=like if lateral == "self_predicting" else unknown_start, rule=rule)


def _finished(cell: Cell, tau_eff: str, units: str, ahead: bool, sigma: float) -> Cell:
    """The cell with prospective rate and noise where they are wanted."""
    if ahead:
        cell = prospective(cell, f"C_m{tau_eff[1:]}" if units == "physical" else tau_eff)
    return noisy(cell, f"{sigma!r}*ms**-0.5") if sigma else cell


def _self_predicting(g: Mapping[str, float], output: bool) -> float:
    """IP_l / W_(l+1) at which an interneuron without its teaching current rests at its partner's potential."""
    apical = 0.0 if output else g["g_A"]
    return g["g_B"] * (g["g_lk"] + g["g_D"]) / (g["g_D"] * (g["g_lk"] + g["g_B"] + apical))


def _attenuation(g: Mapping[str, float], output: bool) -> float:
    """Share of a basal potential that reaches the soma."""
    return g["g_B"] / (g["g_lk"] + g["g_B"] + (0.0 if output else g["g_A"]))


def _windows(task: str, pattern: str, lag: str | None, ahead: bool) -> tuple[float, float]:
    """Length in seconds of the part of a phase without and with plasticity."""
    whole = seconds(pattern)
    if task != "classification":
        return 0.0, whole
    wait = seconds(lag or ("0.2*ms" if ahead else "20*ms"))
    if not 0 < wait < whole:
        raise NeurosimError(
            f"lag = {wait * 1e3:g} ms: wanted a time above 0 and below the pattern's {whole * 1e3:g} ms."
        )
    return wait, whole - wait


def _rates(
    task: str, g: Mapping[str, float], top: int, eta: float, eta_lateral: float, windows: tuple[float, float]
) -> dict[str, Any]:
    """Learning rates in 1/ms: of W from the bottom up, of IP, of PI."""
    if task == "classification":
        per_ms = 1e-3 / windows[1]
        apical = g["g_A"] / (g["g_lk"] + g["g_B"] + g["g_A"])
        teaching = g["g_som"] / (g["g_lk"] + g["g_B"] + g["g_som"])
        mismatch = (g["g_lk"] + g["g_D"]) / (g["g_lk"] + g["g_D"] + g["g_som"])  # the interneuron follows its partner
        shares = [teaching * (apical * mismatch) ** (top - l) for l in range(1, top + 1)]
        for l in range(1, top + 1):  # the gradient passes the shares of the basal potentials from this layer up
            shares[l - 1] /= math.prod(_attenuation(g, output=k == top) for k in range(l, top + 1))
        lateral = eta_lateral * per_ms
        return {"feedforward": [eta * per_ms / s for s in shares], "interneuron": lateral, "apical": lateral}
    hidden, output = PUBLISHED[task]["feedforward"]
    return {**PUBLISHED[task], "feedforward": (*([hidden] * (top - 1)), output)}


def _protocol(task: str, top: int, lateral: str, windows: tuple[float, float], dt: str) -> Protocol:
    follow = () if lateral == "tied" or top == 1 else ("interneuron", "apical")
    everything = ("feedforward", *follow)
    clamps = {"inp.x": "image", f"pyr{top}.y": "target"}
    plastic = f"{windows[1]!r}*second"
    if task == "self_prediction":
        phases: tuple[Phase, ...] = (Phase("free", plastic, plastic=follow),)
        return Protocol(phases, {"inp.x": "image"}, {"teach": 0}, reset=False, dt=dt)
    if task != "classification":
        return Protocol((Phase("taught", plastic, {"teach": 1}, plastic=everything),), clamps, {"teach": 0}, False, dt)
    whole = f"{sum(windows)!r}*second"
    phases = (
        Phase("free", whole, plastic=everything, gate=plastic),
        Phase("taught", whole, {"teach": 1}, plastic=everything, gate=plastic),
    )
    return Protocol(phases, clamps, {"teach": 0}, dt=dt)


def _reference(
    g: Mapping[str, float], top: int, biases: bool, transfer: str, target: tuple[float, float]
) -> FeedForward:
    """The feed-forward net of the self-predicting state. Its loss has dC/dr = u - u_target (logistic: KL(r || phi(u_target)))."""
    shares = [_attenuation(g, output=l == top) for l in range(1, top + 1)]
    low, high = target
    return FeedForward(
        tuple(f"W{l}" for l in range(1, top + 1)),
        tuple(f"b{l}" for l in range(1, top + 1)) if biases else (),
        tuple(transfer_text(transfer, f"{share!r}*u") for share in shares),
        f"{low!r} + {high - low!r}*target - {shares[-1]!r}*u",
    )


def training(settings: Mapping[str, Any], dataset: str) -> dict[str, Any]:
    """The preset of `neurosim train` (for other tasks than classification: sizes that fit the data)."""
    if settings.get("task", "classification") != "classification":
        return {"sizes": (64, 30, 10) if dataset == "digits" else (784, 30, 10)}
    common = {
        "lateral": "tied", "target": (-2.0, 2.0), "biases": True, "tau_w": "off", "learning_rate": 0.02, "gain": 8.0,
        "dt": "0.01*ms" if settings.get("parameters") == "latent_equilibrium" else "0.5*ms",  # of the levels in time
    }  # fmt: skip
    if dataset == "digits":
        return common | {"sizes": (64, 64, 32, 10), "epochs": 30, "batch_size": 32}
    return common | {
        "sizes": (784, 500, 500, 10), "gain": 2.0, "epochs": 15, "batch_size": 128, "learning_rate": 0.003, "decay": 0.9,
    }  # fmt: skip
