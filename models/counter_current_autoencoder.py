"""Counter-current autoencoder of Kao & Hariharan 2024: an ascending and a descending stream that meet at every level of the picture.

C.-H. Kao, B. Hariharan, NeurIPS 2024, arXiv 2409.19841. READ in the paper and in the authors' code: the two nets, their pairing, the loss,
initial weights, training settings (STL-10, 96 pixels, channels 3-128-256-1024-2048). DERIVED from the loss, and checked against its gradient: the
rules. OURS: the rate circuit (see `counter_current`), the default channels (an eighth of the authors', for 32 pixels), and that means and
variances of the batch are used in evaluation too.

    ascending   picture -> maps halved (stride 2) L/2 times -> doubled (nearest neighbour) L/2 times -> picture; level l is u_l, r_l
    descending  the same the other way round, from the picture that is wanted at level L down to level 0
    soma        tau du/dt = -u + I_basal       r = clip(z, 0, inf), z = (u - mean)/sqrt(variance + 1e-5) over batch and map; levels 0, L: r = u
    apical      tau dv_a/dt = -v_a + (rate of the partner cell): read by plasticity, does not move the soma

    dU, dV = eta delta r_pre       delta: towards, led back through the normalisation of the batch
    towards = 2 contrast H/n (v_a - r) + (2 detail H/n) d/dr of the same for maps less their mean, over their norm

n is the number of cells of the level, H its height. No label and no third factor: each cell moves its rate towards its partner's. The normalisation
by the batch needs more than one sample at once and is not local; ``normalise="none"`` does without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
from annotated_types import MinLen

from neurosim import (
    SOURCE,
    Cell,
    Circuit,
    Constant,
    Conv2d,
    Fragment,
    OneToOne,
    Orthogonal,
    PerMap,
    Phase,
    PlasticityRule,
    Population,
    Projection,
    Protocol,
    Readout,
    Uniform,
)
from neurosim.checks import Cells, Count, In, NotNegative, Positive, checked
from neurosim.errors import NeurosimError
from neurosim.models.counter_current import PAPER, PROTOCOL

NORMALISE = ("batch", "none")
#: Time of the gate in which the rules read the rates (ms).
GATE = 10.0
#: Gain of the weights of each stream's second half, READ; those that make a picture start at 0.
SMALL = 0.001


@dataclass(frozen=True)
class Transposed(Orthogonal):
    """Start of a 3 x 3 kernel onto fewer maps than it reads from, READ: the transposed one is orthogonal.

    That is the matrix (source maps, 9 * target maps), as a transposed convolution reads its kernel. As
    a convolution reads it, (9 * source maps, target maps) would be, with a norm that is smaller by
    the square root of target maps over source maps.
    """

    def draw(self, rng: np.random.Generator, n_pre: int, n_post: int) -> np.ndarray:
        # Which column is which position and map does not matter: all are drawn alike.
        return Orthogonal(self.gain).draw(rng, n_pre // 9, 9 * n_post).reshape(n_pre, n_post)


@checked
def circuit(
    channels: Annotated[Sequence[Cells], MinLen(2)] = (3, 16, 32, 128, 256),
    pixels: Count = 32,
    contrast: NotNegative = 1.0,
    detail: NotNegative = 1.0,
    normalise: Annotated[str, In(NORMALISE)] = "batch",
    settle: Positive = 300.0,
    eta: Positive = 1.0,
) -> Circuit:
    """Counter-current learning of an autoencoder.

    Parameters
    ----------
    channels
        Channels of the picture, then maps of each halved level; the second half of the net has them in reverse.
    pixels
        Height and width of the picture.
    contrast, detail
        Weights of the plain mismatch, and of that of the maps less their mean, over their norm.
    normalise
        ``"batch"``: drives are normalised per map, over the batch. ``"none"``: they are not, and convolutions have biases.
    settle
        Time in which the streams settle (ms).
    eta
        Factor of all rules.
    """
    channels = tuple(channels)
    half = len(channels) - 1
    if pixels % 2**half:
        raise NeurosimError(
            f"pixels = {pixels} cannot be halved {half} times, once per level; wanted a multiple of {2**half}."
        )
    top = 2 * half
    maps = [*channels, *channels[-2::-1]]
    side = [pixels // 2 ** (l if l <= half else top - l) for l in range(top + 1)]
    shapes = [(n, s, s) for n, s in zip(maps, side, strict=True)]
    populations = [Population("F0", shapes[0], SOURCE), Population(f"D{top}", shapes[top], SOURCE)]
    projections: list[Projection] = []
    for l in range(top + 1):
        for name in [f"F{l}"] * (l > 0) + [f"D{l}"] * (l < top):
            picture = name in ("D0", f"F{top}")
            pull = 2.0 / (maps[l] * side[l])  # 2 H/n
            area = float(side[l] ** 2)
            cell = PICTURE if picture else _stream(normalise == "batch", detail > 0)
            parameters = {"plain": contrast * pull}
            if not picture:
                parameters |= {"area": area} if detail > 0 or normalise == "batch" else {}
                parameters |= {"fine": detail * pull} if detail > 0 else {}
            populations.append(Population(name, shapes[l], cell, parameters))
    times = {"eta": eta, "T_learn": f"{GATE}*ms"}
    down, up = Conv2d(3, stride=2, padding=1), Conv2d(3, padding=1, upsample=2)
    for l in range(1, top + 1):
        for name, source, target, halves, first in (
            ("U", f"F{l - 1}", f"F{l}", l <= half, l <= half), ("V", f"D{l}", f"D{l - 1}", l > half, l > half)
        ):  # fmt: skip
            picture = target in (f"F{top}", "D0")
            fewer = maps[int(target[1:])] < maps[int(source[1:])]
            orthogonal = (Transposed if fewer else Orthogonal)(1.0 if first else SMALL)
            start = Constant(0.0) if picture else orthogonal
            rule = PlasticityRule(
                "forward" if name == "U" else "feedback", "dw/dt = eta/T_learn*delta_post*r_pre", times, apply="trial"
            )
            kind = down if halves else up
            projections.append(Projection(f"{name}{l}", source, f"{target}.I_basal", start, rule, connectivity=kind))
            if picture or normalise == "none":
                k = (9 * shapes[int(source[1:])][0]) ** -0.5
                bias = Constant(0.0) if name == "U" else Uniform(-k, k)
                projections.append(
                    Projection(f"b{name}{l}", "one", f"{target}.I_basal", bias, rule, connectivity=PerMap())
                )
    for l in range(top + 1):
        projections += [Projection(f"Q{l}", f"F{l}", f"D{l}.I_apical", connectivity=OneToOne())] if l < top else []
        projections += [Projection(f"P{l}", f"D{l}", f"F{l}.I_apical", connectivity=OneToOne())] if l else []
    return Circuit(
        "counter_current_autoencoder",
        Fragment(populations, projections),
        Protocol(
            (Phase("settle", f"{settle}*ms"), Phase("learn", f"{GATE}*ms", plastic=("forward", "feedback"))),
            clamps={"F0.r": "image", f"D{top}.r": "image"},
            dt="1*ms",
        ),
        Readout(f"F{top}.u", "settle", wanted="image", loss="mean_squared"),
        citations=(replace(PAPER, note="nets, pairing, loss. The rate circuit is a reconstruction."),),
    )


PICTURE = Cell(
    "picture",
    """
    du/dt = (-u + I_basal)/tau : 1
    dv_a/dt = (-v_a + I_apical)/tau : 1
    r = u : 1
    delta = plain*(v_a - u) : 1
    I_basal : 1 (port)
    I_apical : 1 (port)
    """,
    parameters={"tau": "10*ms", "plain": 1.0},
)


def _stream(batch: bool, detail: bool) -> Cell:
    """A cell of either stream between the pictures."""
    lines = [
        "du/dt = (-u + I_basal)/tau : 1",
        "dv_a/dt = (-v_a + I_apical)/tau : 1",
        "r = clip(z, 0, inf) : 1",
        "gain = int(z > 0) : 1",
        "I_basal : 1 (port)",
        "I_apical : 1 (port)",
    ]
    parameters: dict[str, Any] = {"tau": "10*ms", "plain": 1.0}
    if detail or batch:
        parameters["area"] = 1.0
    if detail:
        parameters |= {"fine": 1.0, "eps": 1e-8, "tiny": 1e-30}
        lines += [
            "c = r - sum_r/area : 1",
            "norm = sqrt(power) : 1",
            "c_a = v_a - sum_a/area : 1",
            "apart = c_a/(sqrt(power_a) + eps) - c/(norm + eps) : 1",
            # The gradient through the norm takes the share along the map's own pattern off, that through the mean the mean.
            "turned = (apart - c*(along/((norm + tiny)*(norm + eps))))/(norm + eps) : 1",
            "towards = plain*(v_a - r) + fine*(turned - sum_turned/area) : 1",
        ]
        lines += [
            "sum_r = pool(r, map) : 1",
            "power = pool(c**2, map) : 1",
            "sum_a = pool(v_a, map) : 1",
            "power_a = pool(c_a**2, map) : 1",
            "along = pool(c*apart, map) : 1",
            "sum_turned = pool(turned, map) : 1",
        ]
    else:
        lines += ["towards = plain*(v_a - r) : 1"]
    if batch:
        parameters["smallest"] = 1e-5
        lines += [
            "centred = u - sum_u/area : 1",
            "sd = sqrt(sum_square/area + smallest) : 1",
            "z = centred/sd : 1",
            "g = gain*towards : 1",
            # The gradient through the mean and the variance of the batch.
            "delta = (g - sum_g/area - z*sum_gz/area)/sd : 1",
        ]
        lines += [
            "sum_u = pool(u, batch) : 1",
            "sum_square = pool(centred**2, batch) : 1",
            "sum_g = pool(g, batch) : 1",
            "sum_gz = pool(g*z, batch) : 1",
        ]
    else:
        lines += ["z = u : 1", "delta = gain*towards : 1"]
    return Cell("stream", "\n".join(lines), parameters)


def training(settings: Mapping[str, Any], dataset: str) -> dict[str, Any]:
    """The preset of `neurosim train`: the authors' settings of STL-10 (their 101 batches an epoch are not kept: an epoch is the data set)."""
    one_channel = {"channels": (1, 16, 32), "pixels": {"digits": 8}.get(dataset, 28)}
    stl10 = {"pixels": 96, "crop": 4, "flip": True, "padding": "edge"}
    maps = {"cifar10": {}, "cifar10_jpeg": {}, "cifar100": {}, "stl10": stl10}.get(dataset, one_channel)
    protocol = {} if dataset == "digits" else PROTOCOL
    return {
        "optimiser": "sgd", "optimise": ("forward", "feedback"), "select": "best", "batch_size": 32, "epochs": 4, "learning_rate": 0.01,
        "momentum": 0.9, "weight_decay": 1e-4, "schedule": "cosine", "final_rate": 1e-3, "warm_up": 100, "clip": 0.2, "clip_by": "rule",
        "centralise": True, **protocol, **maps,
    }  # fmt: skip
