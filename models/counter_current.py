"""Counter-current learning of Kao & Hariharan 2024: two streams in opposite directions, each taught by the other.

C.-H. Kao, B. Hariharan, "Counter-Current Learning: A Biologically Plausible Dual Network Approach for Deep Learning", NeurIPS 2024,
arXiv 2409.19841. READ in the paper and in the authors' code: the two nets, their pairing, losses, sizes, activations, initial weights,
training settings (of the code, where the two differ). DERIVED from the losses, and checked against their gradients: the plasticity rules.
OURS: the rate circuit and its times, apical contacts, the pool as a matching interneuron, the windows in time, the signal R, the baseline.

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

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from annotated_types import Ge, Lt, MinLen

from neurosim import (
    SOURCE,
    Cell,
    Circuit,
    Citation,
    Constant,
    Conv2d,
    Dense,
    FeedForward,
    Fragment,
    OneToOne,
    PerMap,
    Phase,
    PlasticityRule,
    Population,
    Projection,
    Protocol,
    Readout,
    Tied,
    Uniform,
    Windows,
)
from neurosim.checks import Cells, Count, In, NotNegative, Positive, checked
from neurosim.errors import NeurosimError

#: The paper.
PAPER = Citation(
    "Counter-Current Learning: A Biologically Plausible Dual Network Approach for Deep Learning",
    "Kao, C.-H. and Hariharan, B.",
    2024,
    """@inproceedings{kao2024counter,
      booktitle = {Advances in Neural Information Processing Systems 37}, eprint = {2409.19841}, archivePrefix = {arXiv}
    }""",
    note="nets, pairing, losses, settings. The rate circuit is a reconstruction.",
)

#: Rate and its slope; the slope in terms of the cell's own rate where that is possible. Those with rates of one sign fail (docs page).
ACTIVATIONS = {
    "elu": ("clip(u, 0, inf) + exp(clip(u, -inf, 0)) - 1", "clip(r + 1, 0, 1)"),
    "relu": ("clip(u, 0, inf)", "int(u > 0)"),
    "tanh": ("tanh(u)", "1 - r**2"),
    "sigmoid": ("1/(1 + exp(-u))", "r*(1 - r)"),
    "softplus": ("clip(u, 0, inf) + log(1 + exp(-abs(u)))", "1/(1 + exp(-u))"),
    "sigmoid_shifted": ("2/(1 + exp(-u)) - 1", "(1 - r**2)/2"),
    "softplus_shifted": ("clip(u, 0, inf) + log(1 + exp(-abs(u))) - 0.6931471805599453", "1/(1 + exp(-u))"),
    "linear": ("u", "1"),
}
LAYERS = ("dense", "pooled", "strided")
LOSSES = ("raw", "normalised")
LABELS = ("all", "true_and_random", "true")
#: Time of the gate in which the rules read the rates, and time constant of somata and apical dendrites (ms).
GATE, TAU = 10.0, 10.0

#: READ: a random tenth of the training images is held out, and the last incomplete batch is kept.
PROTOCOL: dict[str, Any] = dict(validation="random", last_batch="keep")
#: Of the digits, OURS: the part and the batches that other models have.
OURS: dict[str, Any] = dict(validation="last", last_batch="drop")
#: Training of the MLPs, READ in the authors' configuration files: loss "raw", plain SGD with one clipping norm per stream.
MLP: dict[str, Any] = PROTOCOL | dict(
    epochs=100, batch_size=256, learning_rate=1.0, clip=1.0, clip_by="rule", normalise="standard"
)  # fmt: skip
#: Training of the CNNs with pooling, READ likewise.
CNN: dict[str, Any] = PROTOCOL | dict(
    layers="pooled", loss="normalised", epochs=100, batch_size=128, learning_rate=1.0, momentum=0.5, weight_decay=1e-6, schedule="cosine",
    final_rate=1e-3, warm_up=100, centralise=True, normalise="standard",
)  # fmt: skip
#: By data set: the authors' nets and settings. `digits` is OURS (the MLP of MNIST), and so are the CNNs of the digits, MNIST and FashionMNIST: two
#: levels of maps, which 28 pixels allow, trained like the CNN of CIFAR-100, clipped like the MLPs.
PRESETS: dict[str, dict[str, Any]] = {
    "digits": MLP | OURS | dict(sizes=(64, 256, 256, 256, 256, 256, 10), batch_size=64),
    "mnist": MLP | dict(sizes=(784, 256, 256, 256, 256, 256, 10)),
    "fashion_mnist": MLP | dict(sizes=(784, 256, 256, 256, 256, 256, 10)),
    "cifar10": MLP | dict(sizes=(3072, 1024, 1024, 1024, 10)),
    "cifar100": MLP | dict(sizes=(3072, 1024, 1024, 1024, 100)),
    "digits_cnn": CNN | OURS | dict(
        sizes=(1, 16, 32, 10), pixels=8, epochs=30, batch_size=64, clip=1.0, clip_by="rule"
    ),
    "mnist_cnn": CNN | dict(sizes=(1, 32, 64, 10), pixels=28, contrast=0.5, epochs=20, clip=1.0, clip_by="rule"),
    "fashion_mnist_cnn": CNN | dict(sizes=(1, 32, 64, 10), pixels=28, contrast=0.5, epochs=20, clip=1.0, clip_by="rule"),
    "cifar10_cnn": CNN | dict(
        sizes=(3, 128, 128, 256, 256, 512, 10), filter=0.9, momentum=0.8, clip=0.3, clip_by="rule", crop=4, flip=True,
        padding="edge", normalise="imagenet",
    ),
    "cifar100_cnn": CNN | dict(
        sizes=(3, 128, 128, 256, 256, 512, 100), crop=4, flip=True, padding="edge", normalise="imagenet"
    ),
    "stl10_cnn": CNN | dict(sizes=(3, 128, 128, 256, 256, 512, 10), pixels=96, flip=True, normalise="none"),
}  # fmt: skip


@checked
def circuit(
    sizes: Annotated[Sequence[Cells], MinLen(3)] = (64, 64, 32, 10),
    layers: Annotated[str, In(LAYERS)] = "dense",
    pixels: Count = 32,
    loss: Annotated[str, In(LOSSES)] = "raw",
    kappa: Positive = 128.0,
    contrast: Positive = 1.0,
    decorrelation: NotNegative = 0.5,
    activation: Annotated[str, In(ACTIVATIONS)] = "elu",
    labels: Annotated[str, In(LABELS)] = "all",
    filter: Annotated[float, Ge(0), Lt(1)] = 0.0,
    own_class: bool = False,
    baseline: NotNegative = 0.0,
    settle: Positive | None = None,
    eta: Positive = 1.0,
) -> Circuit:
    """Counter-current learning of a classifier.

    Parameters
    ----------
    sizes
        Cells of each level, from the picture to the classes. With maps (`layers`), sizes[0] is the picture's channels and sizes[1:-1] are the maps
        of each level.
    layers
        ``"dense"``; ``"pooled"``, 3 x 3 convolutions with 2 x 2 max-pooling, no biases; ``"strided"``, 3 x 3 convolutions of stride 2 with
        biases, which start at 0 (READ). The descending stream doubles the maps (nearest neighbour)
        and convolves. The classifier is dense.
    pixels
        Height and width of the picture, where there are maps.
    loss
        ``"raw"`` (of the authors' MLPs): dot products of the two streams' rates, times `kappa`. ``"normalised"`` (of their CNNs, and the paper's
        equation 2): cosines, times `contrast`, and `decorrelation` (0: none) between samples and between labels.
    activation
        A name of `ACTIVATIONS`.
    labels
        Which labels the windows of a trial show, see `Windows`.
    filter
        A sample whose class has at least this probability teaches the pairs no more (0: all teach).
    own_class
        Match a cell to its partner's rate for the sample's own class, ``kappa/cells * |a - b|^2``, without contrast. It collapses: shown
        for what the contrast is for.
    baseline
        Firing rate of a cell with r = 0: cells send r + baseline (at least 0 for ELU and baseline = 1), tonic inhibition takes the baseline off.
    settle
        Time in which the streams settle in each window (ms; default: 2 tau per layer and 8 tau, 200 ms for six layers, which leaves the change
        of a trial within 1e-4).
    eta
        Factor of all rules. The trainer's rates come on top.
    """
    sizes = tuple(sizes)
    settle = TAU * (2 * len(sizes) + 6) if settle is None else settle
    _check(sizes, layers, pixels, loss, own_class, baseline)
    top, classes = len(sizes) - 1, sizes[-1]
    shapes = _shapes(sizes, layers, pixels)
    cells = [math.prod(shape) if isinstance(shape, tuple) else shape for shape in shapes]
    normalised = loss == "normalised"
    overlap = normalised and decorrelation > 0
    times = {"T_learn": f"{GATE}*ms"}
    sent = "f" if baseline else "r"

    def rule(name: str, level: int) -> PlasticityRule:
        """The rule of the weights onto a level, by the pair loss of that level."""
        keep = "*keep_post" if filter else ""
        more = "*multiplicity_post" if labels == "true_and_random" else ""
        if own_class:
            equation = f"dw/dt = eta*c/T_learn*R_post*gain_post*(v_a_post - r_post)*r_pre{keep}"
            return PlasticityRule(name, equation, {"eta": eta, "c": 2 * kappa / cells[level], **times}, apply="trial")
        if not normalised:
            equation = f"dw/dt = -eta*c/T_learn*(match_post - R_post)*gain_post*v_a_post*r_pre{keep}{more}"
            c = 2 * kappa / (cells[level] * classes)
            return PlasticityRule(name, equation, {"eta": eta, "c": c, **times}, apply="trial")
        equation = f"dw/dt = -eta*c/T_learn*(match_post - R_post)*gain_post*towards_post*r_pre{keep}{more}"
        parameters: dict[str, Any] = {"eta": eta, "c": 2 * contrast / classes, **times}
        if overlap:
            alone = keep if name == "forward" else ""  # labels are never left out
            equation += f" - eta*d/T_learn*gain_post*apart_post*r_pre{alone}"
            parameters["d"] = 4 * decorrelation / classes
        return PlasticityRule(name, equation, parameters, apply="trial")

    output = PlasticityRule("forward", "dw/dt = eta/T_learn*error_post*r_pre", {"eta": eta, **times}, apply="trial")
    stream = {
        name: _stream(
            ACTIVATIONS[text], normalised, overlap, forward, bool(filter), labels, baseline if name != "D0" else 0.0
        )
        for name, text, forward in (("F", activation, True), ("D", activation, False), ("D0", "linear", False))
    }
    populations = [Population("F0", shapes[0], SOURCE), Population(f"D{top}", classes, SOURCE)]
    projections: list[Projection] = []
    clamps = {"F0.r": "image", f"D{top}.r": "label", f"F{top}.label": "label", f"F{top}.R": "same"}
    if filter:
        clamps[f"F{top}.y"] = "target"
        populations.append(Population("gate", 1, GATED, {"threshold": filter}))
        projections.append(Projection("certain", f"F{top}.certain", "gate.I_certain", Constant(1.0)))
    for l in range(top):
        for name in (f"F{l}", f"D{l}") if l else ("D0",):
            populations.append(Population(name, shapes[l], stream[name if l == 0 else name[0]]))
            clamps[f"{name}.R"] = "same"
            if labels == "true_and_random":
                clamps[f"{name}.multiplicity"] = "multiplicity"
            if filter:
                projections.append(Projection(f"keep_{name}", "gate.keep", f"{name}.keep", Constant(1.0)))
    populations.append(Population(f"F{top}", classes, LOGIT))

    for l in range(1, top + 1):
        dense = layers == "dense" or l == top
        up = Conv2d(3, padding=1, pool=2) if layers == "pooled" else Conv2d(3, stride=2, padding=1)
        forward: Any = Dense() if dense else up
        backward: Any = Dense() if dense else Conv2d(3, padding=1, upsample=2)
        fan_in = {"U": cells[l - 1], "V": cells[l]} if dense else {"U": 9 * sizes[l - 1], "V": 9 * sizes[l]}
        for name, source, target, kind, learns in (
            ("U", f"F{l - 1}", f"F{l}", forward, output if l == top else rule("forward", l)),
            ("V", f"D{l}", f"D{l - 1}", backward, rule("feedback", l - 1)),
        ):  # fmt: skip
            k = fan_in[name] ** -0.5
            start = Uniform(-k, k)
            hidden = source not in ("F0", f"D{top}")
            variable = f".{sent}" if baseline and hidden else ""
            projections.append(
                Projection(f"{name}{l}", source + variable, f"{target}.I_basal", start, learns, connectivity=kind)
            )
            if baseline and hidden:
                tonic = f"tonic{source}"
                populations.append(Population(tonic, cells[int(source[1:])], TONIC, {"baseline": baseline}))
                tied = Tied(f"{name}{l}", factor=-1)
                projections.append(Projection(f"T{name}{l}", tonic, f"{target}.I_basal", tied))
            if layers == "strided" and not dense:  # READ: biases start at 0
                port, zero = f"{target}.I_basal", Constant(0.0)
                projections.append(Projection(f"b{name}{l}", "one", port, zero, learns, connectivity=PerMap()))
    for l in range(top):
        apical = [(f"Q{l}", f"F{l}", f"D{l}")] + ([(f"P{l}", f"D{l}", f"F{l}")] if l else [])
        for name, source, target in apical:
            variable = "" if source == "F0" or not baseline else f".{sent}"
            projections.append(Projection(name, source + variable, f"{target}.I_apical", connectivity=OneToOne()))

    protocol = Protocol(
        (
            Windows(
                (
                    Phase("settle", f"{settle}*ms"),
                    Phase("learn", f"{GATE}*ms", plastic=("forward", "feedback")),
                ),
                labels=labels,  # type: ignore[arg-type]
                clamps=clamps,
            ),
        ),
        dt="1*ms",
    )
    biases = tuple(f"bU{l}" if layers == "strided" and l < top else "" for l in range(1, top + 1))
    reference = FeedForward(
        tuple(f"U{l}" for l in range(1, top + 1)), biases if any(biases) else (), ACTIVATIONS[activation][0],
        loss="cross_entropy",
    )  # fmt: skip
    return Circuit(
        "counter_current", Fragment(populations, projections), protocol,
        Readout(f"F{top}.r", "settle[0]", loss="cross_entropy"), reference,
        citations=(PAPER,),
    )  # fmt: skip


LOGIT = Cell(
    "class",
    """
    du/dt = (-u + I_basal)/tau : 1
    r = exp(u - top)/total : 1
    certain = y*r : 1
    error = R*(label - r) : 1
    I_basal : 1 (port)
    label : 1 (input)
    R : 1 (input)
    y : 1 (input)
    top = pool_max(u) : 1
    total = pool(exp(u - top)) : 1
    """,
    parameters={"tau": f"{TAU}*ms"},
)
"""Softmax by a divisive pool; the largest potential cancels, and keeps exp from overflowing."""

GATED = Cell(
    "gate",
    """
    du/dt = (-u + I_certain)/tau : 1
    keep = int(u < threshold) : 1
    I_certain : 1 (port)
    """,
    rate="keep",
    parameters={"tau": f"{TAU}*ms", "threshold": 0.9},
)
"""The sample filter: open while the own class is not yet certain."""

TONIC = Cell("tonic inhibition", "r = baseline : 1", parameters={"baseline": 1.0})


def _stream(
    activation: tuple[str, str], normalised: bool, overlap: bool, forward: bool, filtered: bool, labels: str,
    baseline: float,
) -> Cell:  # fmt: skip
    """A cell of either stream: soma u, apical potential v_a."""
    rate, gain = activation
    lines = [
        "du/dt = (-u + I_basal)/tau : 1",
        f"dv_a/dt = (-v_a + I_apical{' - baseline' if baseline else ''})/tau : 1",
        f"r = {rate} : 1",
        f"gain = {gain} : 1",
        "I_basal : 1 (port)",
        "I_apical : 1 (port)",
        "R : 1 (input)",
    ]
    lines += ["f = r + baseline : 1"] if baseline else []
    lines += ["multiplicity : 1 (input)"] if labels == "true_and_random" else []
    lines += ["keep : 1 (port)"] if filtered else []
    if normalised:
        lines += [
            "norm = sqrt(power) : 1",
            "r_hat = r/(norm + eps) : 1",
            "a_hat = v_a/(sqrt(power_a) + eps) : 1",
            # The gradient through the norm takes the share along the cell's own pattern off (Oja 1982).
            "towards = (a_hat - r*(match/(norm + tiny)))/(norm + eps) : 1",
        ]
        lines += ["power = pool(r**2) : 1", "power_a = pool(v_a**2) : 1", "match = pool(r_hat*a_hat) : 1"]
        if overlap:
            lines += [
                f"shown = r_hat{'*keep' if filtered and forward else ''} : 1",
                "apart = (crowd - r_hat*(along/(norm + tiny)))/(norm + eps) : 1",
            ]
            lines += ["crowd = overlap(shown) : 1", "along = pool(r*crowd) : 1"]
    else:
        lines += ["match = pool(r*v_a) : 1"]
    parameters: dict[str, Any] = {"tau": f"{TAU}*ms"}
    parameters |= {"eps": 1e-8, "tiny": 1e-30} if normalised else {}
    parameters |= {"baseline": baseline} if baseline else {}
    return Cell("ascending" if forward else "descending", "\n".join(lines), parameters)


def _shapes(sizes: tuple[int, ...], layers: str, pixels: int) -> list[Any]:
    """Cells, or (maps, height, width), of each level."""
    if layers == "dense":
        return list(sizes)
    side = [pixels // 2**l for l in range(len(sizes) - 1)]
    return [(n, s, s) for n, s in zip(sizes[:-1], side, strict=True)] + [sizes[-1]]


def _check(
    sizes: tuple[int, ...], layers: str, pixels: int, loss: str, own_class: bool, baseline: float
) -> None:  # fmt: skip
    """Refuse what does not fit together."""
    if sizes[-1] < 2:
        raise NeurosimError(f"sizes = {sizes}; wanted at least two classes, the last of them.")
    halved = len(sizes) - 2
    if layers != "dense" and pixels % 2**halved:
        raise NeurosimError(
            f"pixels = {pixels} cannot be halved {halved} times, once per level of maps; wanted a multiple of {2**halved}."
        )
    if baseline and layers != "dense":
        raise NeurosimError(
            f"baseline = {baseline} with layers = '{layers}'; wanted dense layers (tonic inhibition is tied to dense weights)."
        )
    if own_class and loss != "raw":
        raise NeurosimError("own_class = True has no normalised form; wanted loss = 'raw'.")


def training(settings: Mapping[str, Any], dataset: str) -> dict[str, Any]:
    """The preset of `neurosim train`: the authors' net and schedule for the data set; of a CNN where `layers` asks for maps."""
    name = {"cifar10_jpeg": "cifar10"}.get(dataset, dataset)
    if settings.get("layers", "dense") != "dense":
        name += "_cnn"
    return {"optimiser": "sgd", "optimise": ("forward", "feedback"), "select": "best"} | PRESETS.get(name, MLP)
