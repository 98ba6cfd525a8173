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

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from annotated_types import MinLen

from neurosim import (
    SOURCE, Cell, Circuit, Constant, OneToOne, Orthogonal, Phase, PlasticityRule, Population, Projection, Protocol, Readout,
)  # fmt: skip
from neurosim.checks import Cells, Count, In, NotNegative, Positive
from neurosim.models import counter_current
from neurosim.parts import DOUBLED, STRIDED, bias, fan_in_uniform, square_maps
from neurosim.settings import ModelSettings, Parts, model

PAPER = replace(counter_current.PAPER, note="nets, pairing, loss. The rate circuit is a reconstruction.")

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


@dataclass(frozen=True)
class Settings(ModelSettings):
    """Settings of counter-current learning of an autoencoder."""

    #: Channels of the picture, then maps of each halved level; the second half of the net has them in reverse.
    channels: Annotated[Sequence[Cells], MinLen(2)] = (3, 16, 32, 128, 256)
    #: Height and width of the picture.
    pixels: Count = 32
    #: Weights of the plain mismatch, and of that of the maps less their mean, over their norm.
    contrast: NotNegative = 1.0
    detail: NotNegative = 1.0
    #: `batch`: drives are normalised per map, over the batch. `none`: they are not, and convolutions have biases.
    normalise: Annotated[str, In(("batch", "none"))] = "batch"
    #: Time in which the streams settle (ms).
    settle: Positive = 300.0
    #: Factor of all rules.
    eta: Positive = 1.0


@model(Settings)
def circuit(s: Settings) -> Circuit:
    """Two streams of maps, halved and doubled again; their cells meet at every level."""
    half = len(s.channels) - 1
    top = 2 * half
    halved = [min(l, top - l) for l in range(top + 1)]
    shapes = square_maps([*s.channels, *s.channels[-2::-1]], s.pixels, halved)
    parts: Parts = [Population("F0", shapes[0], SOURCE), Population(f"D{top}", shapes[top], SOURCE)]
    for l in range(top + 1):
        for name in [f"F{l}"] * (l > 0) + [f"D{l}"] * (l < top):
            parts.append(cells(s, name, shapes[l], picture=name in ("D0", f"F{top}")))
    for l in range(1, top + 1):
        parts += weights(s, f"U{l}", f"F{l - 1}", f"F{l}", shapes[l - 1], shapes[l], first=l <= half, picture=l == top)
        parts += weights(s, f"V{l}", f"D{l}", f"D{l - 1}", shapes[l], shapes[l - 1], first=l > half, picture=l == 1)
    parts += [Projection(f"Q{l}", f"F{l}", f"D{l}.I_apical", connectivity=OneToOne()) for l in range(top)]
    parts += [Projection(f"P{l}", f"D{l}", f"F{l}.I_apical", connectivity=OneToOne()) for l in range(1, top + 1)]
    phases = (Phase("settle", f"{s.settle}*ms"), Phase("learn", f"{GATE}*ms", plastic=("forward", "feedback")))
    return Circuit(
        "counter_current_autoencoder", parts, Protocol(phases, {"F0.r": "image", f"D{top}.r": "image"}, dt="1*ms"),
        Readout(f"F{top}.u", "settle", wanted="image", loss="mean_squared"), citations=(PAPER,),
    )  # fmt: skip


SOMA = """
    du/dt   = (-u + I_basal)/tau : 1
    dv_a/dt = (-v_a + I_apical)/tau : 1
    I_basal : 1 (port)
    I_apical : 1 (port)
    """
PICTURE = "r = u : 1\ndelta = plain*(v_a - u) : 1\n"
RECTIFIED = "r = clip(z, 0, inf) : 1\ngain = int(z > 0) : 1\n"
#: The mismatch with the partner's rate alone.
PLAIN = "towards = plain*(v_a - r) : 1\n"
#: The mismatch also of maps less their mean, over their norm. The gradient through the norm takes the share along the
#: map's own pattern off, that through the mean the mean.
DETAIL = """
    towards = plain*(v_a - r) + fine*(turned - sum_turned/area) : 1
    turned  = (apart - c*(along/((norm + tiny)*(norm + eps))))/(norm + eps) : 1
    apart   = c_a/(sqrt(power_a) + eps) - c/(norm + eps) : 1
    c       = r - sum_r/area : 1
    c_a     = v_a - sum_a/area : 1
    norm    = sqrt(power) : 1
    sum_r   = pool(r, map) : 1
    power   = pool(c**2, map) : 1
    sum_a   = pool(v_a, map) : 1
    power_a = pool(c_a**2, map) : 1
    along   = pool(c*apart, map) : 1
    sum_turned = pool(turned, map) : 1
    """
NOT_NORMALISED = "z = u : 1\ndelta = gain*towards : 1\n"
#: Normalised by mean and variance of the batch and map; delta is the gradient through them.
BY_BATCH = """
    z       = centred/sd : 1
    centred = u - sum_u/area : 1
    sd      = sqrt(sum_square/area + smallest) : 1
    g       = gain*towards : 1
    delta   = (g - sum_g/area - z*sum_gz/area)/sd : 1
    sum_u   = pool(u, batch) : 1
    sum_square = pool(centred**2, batch) : 1
    sum_g   = pool(g, batch) : 1
    sum_gz  = pool(g*z, batch) : 1
    """


def cells(s: Settings, name: str, shape: tuple[int, int, int], picture: bool) -> Population:
    """Cells of either stream, or those that make the picture; mismatches count 2 H/n."""
    pull, area = 2.0 / (shape[0] * shape[1]), float(shape[1] ** 2)
    own = {"plain": s.contrast * pull}
    if picture:
        return Population(name, shape, Cell("picture", SOMA + PICTURE, {"tau": "10*ms", "plain": 1.0}), own)
    batch = s.normalise == "batch"
    text, values = SOMA + RECTIFIED + (DETAIL if s.detail else PLAIN) + (BY_BATCH if batch else NOT_NORMALISED), {}
    if s.detail or batch:
        values, own = values | {"area": 1.0}, own | {"area": area}
    if s.detail:
        values, own = values | {"fine": 1.0, "eps": 1e-8, "tiny": 1e-30}, own | {"fine": s.detail * pull}
    values |= {"smallest": 1e-5} if batch else {}
    return Population(name, shape, Cell("stream", text, {"tau": "10*ms", "plain": 1.0, **values}), own)


def weights(
    s: Settings, name: str, source: str, target: str, from_shape: tuple[int, int, int], to_shape: tuple[int, int, int],
    first: bool, picture: bool,
) -> Parts:  # fmt: skip
    """A convolution that halves the maps (first half of a stream) or doubles them, with biases where there are any."""
    forward, port = name[0] == "U", f"{target}.I_basal"
    values = {"eta": s.eta, "T_learn": f"{GATE}*ms"}
    rule = PlasticityRule(
        "forward" if forward else "feedback", "dw/dt = eta/T_learn*delta_post*r_pre", values, apply="trial"
    )
    orthogonal = (Transposed if to_shape[0] < from_shape[0] else Orthogonal)(1.0 if first else SMALL)
    start = Constant(0.0) if picture else orthogonal
    convolved = Projection(name, source, port, start, rule, STRIDED if first else DOUBLED)
    if not picture and s.normalise == "batch":
        return [convolved]
    biases = Constant(0.0) if forward else fan_in_uniform(9 * from_shape[0])
    return [convolved, bias(f"b{name}", port, biases, rule, per_map=True)]
