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

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, MinLen

from neurosim import (
    SOURCE,
    Cell,
    Circuit,
    Citation,
    Conv2d,
    Dense,
    FeedForward,
    Fragment,
    Given,
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
)
from neurosim.checks import Cells, Count, In, NotNegative, Positive, check, check_memory, checked, hints_of, shown
from neurosim.errors import NeurosimError, suggest
from neurosim.evolved import Evolved, load_evolved
from neurosim.parts.diffusion import (
    KERNELS,
    LATTICES,
    degree,
    diffusion_kernel,
    nearest_cells,
    neighbours,
    release_sites,
)

#: The paper.
PAPER = Citation(
    "Biologically Plausible Training of Deep Neural Networks Using a Top-down Credit Assignment Network",
    "Chen, J.-H. and Liu, C.-L. and Wang, Z.",
    2024,
    """@misc{chen2024credit,
      eprint = {2208.01416}, archivePrefix = {arXiv}, note = {Version 2; version 1 of 2022 has another title}
    }""",
    note="learner, top-down net, local rule, evolution. The rate circuit and every kernel of diffusion are a reconstruction.",
)

ARCHITECTURES = ("mlp", "residual", "conv")
#: Credits that need no evolution: a net as evolution starts, backprop, feedback alignment, direct feedback alignment.
CREDITS = ("unevolved", "bp", "fa", "dfa")
INNER = ("transposed", "own")
#: Time of the gate in which the rule reads the rates; time constants (ms) of somata, apical tufts, top-down cells.
GATE, TAU_S, TAU_A, TAU_TD = 20.0, 10.0, 5.0, 5.0
#: Step of the levels in time (ms).
DT = 1.0

#: Learners by data set. MNIST and FashionMNIST READ in the authors' code; digits and CIFAR are OURS.
SIZES: dict[str, tuple[int, ...]] = {
    "digits": (64, 32, 32, 10),
    "mnist": (784, 100, 100, 100, 10),
    "fashion_mnist": (784, 100, 100, 100, 10),
    "cifar10": (3072, 256, 256, 10),
    "cifar10_jpeg": (3072, 256, 256, 10),
    "cifar100": (3072, 256, 256, 100),
}

#: What is meant where neither the caller nor a file of evolved weights says it.
USUAL: dict[str, Any] = {
    "sizes": SIZES["digits"], "architecture": "mlp", "inner": "transposed", "hidden": 30, "ratio": 1.0, "kernel": "gauss", "width": 0.5,
    "lattice": "line",
}  # fmt: skip


@checked
def circuit(
    sizes: Annotated[Sequence[Cells], MinLen(3)] | None = None,
    credits: str | int | os.PathLike[str] = "unevolved",
    architecture: Annotated[str, In(ARCHITECTURES)] | None = None,
    pixels: Count = 8,
    inner: Annotated[str, In(INNER)] | None = None,
    hidden: Cells | None = None,
    ratio: Annotated[float, Ge(1)] | None = None,
    kernel: Annotated[str, In(KERNELS)] | None = None,
    width: Positive | None = None,
    lattice: Annotated[str, In(LATTICES)] | None = None,
    messenger: bool = False,
    tau_m: Positive = 20.0,
    kappa: NotNegative = 0.0,
    settle: Positive | None = None,
    eta: Positive = 1.0,
) -> Circuit:
    """A classifier taught by credits.

    Parameters
    ----------
    sizes
        Cells of each level, from the picture to the classes (default 64,32,32,10, or the sizes of the evolved net). `conv`: the picture's channels, then
        maps. `residual`: the first hidden level is plain, each further one a block of two layers as wide as the level below.
    credits
        A file of `neurosim evolve`, or ``"unevolved"``, ``"bp"``, ``"fa"``, ``"dfa"``. A file's hidden levels may have other widths here than in
        evolution: its release sites spread over them.
    architecture
        ``"mlp"`` (default, or as in the file), ``"residual"`` or ``"conv"`` (3 x 3 kernels, 2 x 2 max-pooling of drives, a dense classifier).
    pixels
        Height and width of the picture, where there are maps.
    inner
        Evolved credit of a residual block's inner layer: ``"transposed"`` (default, or as in the file), backprop within the block, READ in the authors'
        code; ``"own"``, release sites of its own, local in the strict sense.
    hidden
        Cells of each of the top-down net's two layers (default 30, or those of the file).
    ratio
        Cells per release site in hidden levels (default 1: a credit of its own for each cell; or as in the file).
    kernel, width, lattice
        How credit spreads where sites are fewer than cells, see `neurosim.parts.diffusion.diffusion_kernel` (default gauss, 0.5 spacings, line; or as in
        the file). Maps are sheets.
    messenger
        The messenger diffuses in time (kernel ``chain``) in place of the kernel that it settles at.
    tau_m
        Decay time of the messenger (ms).
    kappa
        Apical drive of the soma. 0 is the published case; above it credit leaks into the rates.
    settle
        Time before the weights learn (ms; default 30 times the slowest time constant).
    eta
        Factor of the rule. The trainer's rates come on top.
    """
    evolved = _evolved(credits)
    usual = USUAL | {k: v for k, v in (evolved.settings.items() if evolved else ()) if k in USUAL}
    for name, value in (("hidden", hidden), ("ratio", ratio), ("architecture", architecture), ("inner", inner)):
        if evolved is not None and value is not None and value != usual[name]:
            raise NeurosimError(
                f"{name} = {value} with credits = '{credits}', which was evolved with {name} = {usual[name]}. Leave it out."
            )
    given = {
        "sizes": sizes, "architecture": architecture, "inner": inner, "hidden": hidden, "ratio": ratio, "kernel": kernel, "width": width, "lattice": lattice,
    }  # fmt: skip
    chosen = usual | {name: value for name, value in given.items() if value is not None}
    return _circuit(
        evolved, credits, **chosen, pixels=pixels, messenger=messenger, tau_m=tau_m, kappa=kappa, settle=settle, eta=eta
    )


def _evolved(credits: Any) -> Evolved | None:
    """The evolved weights that `credits` names; None of credits that need none."""
    if credits in CREDITS:
        return None
    try:
        found = load_evolved(credits)
    except (NeurosimError, OSError) as error:  # a name may be too long for a file
        reason = f"{getattr(error, 'strerror', None) or error}".rstrip(".")
        raise NeurosimError(
            f"credits = {shown(credits)}: {reason}.{suggest(credits, CREDITS)} Wanted such a file, or {', '.join(CREDITS)}."
        ) from error
    if found.model != "tdca":
        raise NeurosimError(f"'{credits}' was evolved for {found.model}; wanted a file of `neurosim evolve tdca`.")
    for name, value in found.settings.items():
        if name in USUAL:
            check(name, value, hints_of(circuit)[name], f"'{credits}': ")
    if found.settings.get("sizes") is None:
        raise NeurosimError(
            f"'{credits}' does not say for which sizes it was evolved. Evolve again, or take another file."
        )
    check("life", found.facts.get("life", {}), dict[str, Any], f"'{credits}': ")
    for name, weights in found.weights.items():
        if weights.ndim < 2:
            raise NeurosimError(f"'{credits}': '{name}' has the shape {weights.shape}; wanted (sources, targets).")
    return found


def _circuit(
    evolved: Evolved | None, credits: Any, sizes: Sequence[int], architecture: str, inner: str, hidden: int, ratio: float, kernel: str, width: float,
    lattice: str, pixels: int, messenger: bool, tau_m: float, kappa: float, settle: float | None, eta: float,
) -> Circuit:  # fmt: skip
    """`circuit` with everything said."""
    sizes = tuple(sizes)
    _check(sizes, architecture, pixels, kernel, messenger)
    top, classes = len(sizes) - 1, sizes[-1]
    if evolved is not None and classes != evolved.settings["sizes"][-1]:
        raise NeurosimError(
            f"sizes = {sizes} with credits = '{credits}', which was evolved for {evolved.settings['sizes'][-1]} classes; wanted as many."
        )
    shapes = _shapes(sizes, architecture, pixels)
    cells = [math.prod(shape) if isinstance(shape, tuple) else shape for shape in shapes]
    settle = 30 * max(TAU_S, tau_m if messenger else 0.0) if settle is None else settle
    slow = {"tau_s": f"{TAU_S}*ms", "tau_a": f"{TAU_A}*ms"}
    learns = PlasticityRule(
        "credit", "dw/dt = -eta/T_learn*delta_post*r_pre", {"eta": eta, "T_learn": f"{GATE}*ms"}, apply="trial"
    )
    populations = [Population("inp", shapes[0], SOURCE)]
    projections: list[Projection] = []
    clamps = {"inp.r": "image"}

    def synapses(name: str, bias: str, source: str, target: str, kind: Any = None, fan_in: int = 0) -> None:
        k = fan_in**-0.5
        projections.append(
            Projection(name, source, f"{target}.I_basal", Uniform(-k, k), learns, connectivity=kind or Dense())
        )
        each = PerMap() if isinstance(kind, Conv2d) else Dense()
        projections.append(Projection(bias, "one", f"{target}.I_basal", Uniform(0.0, 0.0), learns, connectivity=each))

    block = [architecture == "residual" and 1 < l < top for l in range(top + 1)]
    tuft = Cell("pyramidal", _HIDDEN.format(tuft="I_apical", more=""), slow | {"kappa": kappa})
    given_credit = credits in ("bp", "fa", "dfa")
    credited: dict[str, Any] = {}  # shape by population, where credit is released
    for l in range(1, top):
        name, below = f"pyr{l}", f"pyr{l - 1}" if l > 1 else "inp"
        cell, parameters = tuft, {}
        if messenger:
            cell = Cell(
                "pyramidal with a messenger", _HIDDEN.format(tuft="m", more=_MESSENGER),
                slow | {"kappa": kappa, "tau_m": f"{tau_m}*ms", "spread": 0.0, "gain": 1.0, "degree": 1.0},
            )  # fmt: skip
        populations.append(Population(name, shapes[l], cell, parameters))
        credited[name] = shapes[l]
        if block[l]:
            mine = cell if inner == "own" and not given_credit else tuft
            populations.append(Population(f"inner{l}", cells[l], mine))
            synapses(f"Win{l}", f"bin{l}", below, f"inner{l}", fan_in=cells[l - 1])
            synapses(f"W{l}", f"b{l}", f"inner{l}", name, fan_in=cells[l])
            projections.append(Projection(f"skip{l}", below, f"{name}.I_basal", connectivity=OneToOne()))
            if credits == "bp" or (inner == "transposed" and credits != "fa"):
                back = Tied(f"W{l}", transpose=True)
                projections.append(Projection(f"back{l}", f"{name}.delta", f"inner{l}.I_apical", back))
            elif credits == "fa":
                projections.append(_fixed(f"back{l}", f"{name}.delta", f"inner{l}", cells[l]))
            else:
                credited[f"inner{l}"] = cells[l]
        elif architecture == "conv":
            synapses(f"W{l}", f"b{l}", below, name, Conv2d(3, padding=1, pool=2), fan_in=9 * sizes[l - 1])
        else:
            synapses(f"W{l}", f"b{l}", below, name, fan_in=cells[l - 1])
    out, last = f"pyr{top}", f"pyr{top - 1}" if top > 1 else "inp"
    synapses(f"W{top}", f"b{top}", last, out, fan_in=cells[top - 1])
    output = Cell("output pyramidal", _OUTPUT + (_TAUGHT if given_credit else ""), slow)
    populations.append(Population(out, classes, output))
    if given_credit:
        clamps[f"{out}.y"] = "target"
        projections.append(Projection("own", f"{out}.own", f"{out}.I_apical", connectivity=OneToOne()))
        projections += _sent_down(credits, credited, block, cells, top, architecture)
    else:
        populations.append(Population("target", classes, SOURCE))
        clamps["target.r"] = "target"
        targets = [
            _spread(name, shape, ratio, kernel, width, lattice, messenger, evolved) for name, shape in credited.items()
        ] + [Release(out, classes, classes)]
        top_down, down = credit_network([(out, classes), ("target", classes)], hidden, targets)
        populations, projections = [*populations, *top_down], [*projections, *down]
        if messenger:
            populations = [_with_messenger(p, targets, width, lattice) for p in populations]
        if evolved is not None:
            projections = [_given(q, evolved.weights, credits) if q.evolved else q for q in projections]
            unused = sorted(set(evolved.weights) - {q.name for q in down if q.evolved})
            if unused:
                raise NeurosimError(
                    f"'{credits}' holds weights for '{unused[0]}', which this learner has not: they are for sizes = {evolved.settings['sizes']}, "
                    f"architecture = '{evolved.settings.get('architecture', 'mlp')}', inner = '{evolved.settings.get('inner', 'transposed')}'. Wanted the same levels."
                )
    protocol = Protocol(
        (Phase("settle", f"{settle}*ms"), Phase("learn", f"{GATE}*ms", plastic=("credit",))), clamps, dt=f"{DT}*ms"
    )
    plain = architecture != "residual"
    reference = FeedForward(
        tuple(f"W{l}" for l in range(1, top + 1)), tuple(f"b{l}" for l in range(1, top + 1)), "tanh(u)",
        loss="cross_entropy",
    ) if plain else None  # fmt: skip
    return Circuit(
        "tdca", Fragment(populations, projections), protocol, Readout(f"{out}.r", "settle", loss="cross_entropy"),
        reference,
        citations=(PAPER,),
    )  # fmt: skip


_HIDDEN = """
    du/dt = (-u + I_basal + kappa*v_a)/tau_s : 1
    dv_a/dt = (-v_a + {tuft})/tau_a : 1
    r = tanh(u) : 1
    delta = v_a*(1 - r**2) : 1
    I_basal : 1 (port)
    I_apical : 1 (port){more}
    """
# The diagonal of the Laplacian stands apart, so that each visit of the steady level draws m nearer to rest for any width.
_MESSENGER = """
    dm/dt = (spread*(I_near - degree*m) - m + gain*I_apical)/tau_m : 1
    I_near : 1 (port)"""
_OUTPUT = """
    du/dt = (-u + I_basal)/tau_s : 1
    dv_a/dt = (-v_a + I_apical)/tau_a : 1
    r = exp(u - top)/total : 1
    delta = r*(v_a - mean_credit) : 1
    I_basal : 1 (port)
    I_apical : 1 (port)
    top = pool_max(u) : 1
    total = pool(exp(u - top)) : 1
    mean_credit = pool(r*v_a) : 1
    """
_TAUGHT = """
    own = -y/clip(r, 1e-30, 1) : 1
    wrong = r - y : 1
    y : 1 (input)
    """
TOP_DOWN = Cell(
    "top-down", "du/dt = (-u + I_in)/tau : 1\nr = tanh(u) : 1\nI_in : 1 (port)", parameters={"tau": f"{TAU_TD}*ms"}
)
SITE = Cell(
    "release site", "du/dt = (-u + I_in)/tau : 1\nI_in : 1 (port)", rate="u", parameters={"tau": f"{TAU_TD}*ms"}
)
"""Linear and signed."""


class Release:
    """Credit of one population: `sites` release sites, which reach its `n` cells through `spread` (sites, n), or one to one where that is None."""

    def __init__(
        self, population: str, n: int, sites: int, spread: np.ndarray | None = None, near: np.ndarray | None = None
    ):
        self.population, self.n, self.sites, self.spread, self.near = population, n, sites, spread, near


def credit_network(
    sources: Sequence[tuple[str, int]], hidden: int, targets: Sequence[Release]
) -> tuple[list[Population], list[Projection]]:
    """The top-down net: `sources` to two tanh layers of `hidden` cells to release sites to apical tufts.

    Projections ``V1_SOURCE``, ``e1``, ``V2``, ``e2``, ``V3_TARGET``, ``e3_TARGET`` are to be evolved; weights start Glorot-uniform over each whole layer, biases
    at 0 (READ in the authors' code). ``D_TARGET`` is fixed.
    """

    def glorot(n_in: int, n_out: int) -> Uniform:
        limit = math.sqrt(6.0 / (n_in + n_out))
        return Uniform(-limit, limit)

    zero = Uniform(0.0, 0.0)
    populations = [Population("td1", hidden, TOP_DOWN), Population("td2", hidden, TOP_DOWN)]
    first, third = glorot(sum(n for _, n in sources), hidden), glorot(hidden, sum(t.sites for t in targets))
    projections = [
        Projection(f"V1_{source.replace('.', '_')}", source, "td1.I_in", first, evolved=True) for source, _ in sources
    ]
    projections += [
        Projection("e1", "one", "td1.I_in", zero, evolved=True),
        Projection("V2", "td1", "td2.I_in", glorot(hidden, hidden), evolved=True),
        Projection("e2", "one", "td2.I_in", zero, evolved=True),
    ]
    for t in targets:
        site = f"site_{t.population}"
        populations.append(Population(site, t.sites, SITE))
        projections.append(Projection(f"V3_{t.population}", "td2", f"{site}.I_in", third, evolved=True))
        projections.append(Projection(f"e3_{t.population}", "one", f"{site}.I_in", zero, evolved=True))
        kind = OneToOne() if t.spread is None else Dense()
        spread = None if t.spread is None else Given(t.spread)
        projections.append(Projection(f"D_{t.population}", site, f"{t.population}.I_apical", spread, connectivity=kind))
        if t.near is not None:
            near = Projection(f"near_{t.population}", f"{t.population}.m", f"{t.population}.I_near", Given(t.near))
            projections.append(near)
    return populations, projections


def _spread(
    name: str, shape: Any, ratio: float, kernel: str, width: float, lattice: str, messenger: bool, evolved: Any
) -> Release:
    """Release sites of a hidden population, and how they reach its cells."""
    maps, n = (shape[0], shape[1] * shape[2]) if isinstance(shape, tuple) else (1, shape)
    lattice = "sheet" if isinstance(shape, tuple) else lattice
    sites = release_sites(n, ratio, lattice)
    if evolved is not None:
        found = evolved.weights.get(f"V3_{name}")
        if found is None:
            raise NeurosimError(
                f"The evolved weights have no credit for '{name}': they are for sizes = {evolved.settings['sizes']}, architecture = "
                f"'{evolved.settings.get('architecture', 'mlp')}'. Wanted a learner with the same hidden levels (their widths may differ)."
            )
        if isinstance(shape, tuple) and maps != evolved.settings["sizes"][int(name.removeprefix("pyr"))]:
            raise NeurosimError(
                f"'{name}' has {maps} maps, and the credits were evolved for sizes = {evolved.settings['sizes']}; wanted as many maps at each level (pixels may "
                "differ)."
            )
        sites = found.shape[1] // maps
        if sites > n:
            raise NeurosimError(
                f"'{name}' has {n} cells, and the credits were evolved for {sites} release sites there; wanted at least as many cells as sites."
            )
    if sites < n or ratio != 1 or messenger:  # matrices of all cells
        check_memory(
            8 * maps * maps * n * max(n if messenger or kernel == "chain" else sites, sites),
            f"The diffusion of credit over {n} cells",
        )
    if messenger:
        spread = np.zeros((sites, n))
        spread[np.arange(sites), nearest_cells(sites, n, lattice)] = 1.0
        return Release(name, n, sites, spread, neighbours(n, lattice))
    if sites == n and ratio == 1:
        return Release(name, maps * n, maps * sites)
    spread = np.kron(np.eye(maps), diffusion_kernel(sites, n, kernel, width, lattice))
    return Release(name, maps * n, maps * sites, spread)


def _with_messenger(population: Population, targets: Sequence[Release], width: float, lattice: str) -> Population:
    """The constants of a population's messenger."""
    for t in targets:
        if t.population == population.name and t.near is not None:
            spacing = (t.n / t.sites) ** (1.0 if lattice == "line" else 0.5)
            own = {"spread": (width * spacing) ** 2, "gain": t.n / t.sites, "degree": degree(t.n, lattice)}
            largest = 2 * float(own["degree"].max())
            tau_m = float(str(population.cell.parameters["tau_m"]).removesuffix("*ms"))
            if not DT * (largest * own["spread"] + 1) / tau_m < 2:
                raise NeurosimError(
                    f"The messenger of '{population.name}' is unstable in steps of {DT} ms: dt ({largest:g} w^2 + 1)/tau_m = "
                    f"{DT * (largest * own['spread'] + 1) / tau_m:.3g}; wanted below 2. Use tau_m above {DT * (largest * own['spread'] + 1) / 2:.4g} ms, "
                    "a smaller width, or messenger = False."
                )
            return Population(population.name, population.n, population.cell, own)
    return population


def _given(q: Projection, weights: Mapping[str, np.ndarray], credits: str) -> Projection:
    """A projection with its evolved weights."""
    if q.name not in weights:
        raise NeurosimError(
            f"'{credits}' holds no weights for '{q.name}'; wanted a file evolved for the same levels and architecture."
        )
    return replace(q, weights=Given(weights[q.name]))


def _fixed(name: str, source: str, target: str, n: int) -> Projection:
    """Fixed random feedback."""
    return Projection(name, source, f"{target}.I_apical", Uniform(-(n**-0.5), n**-0.5))


def _sent_down(
    credits: str, credited: Mapping[str, Any], block: Sequence[bool], cells: Sequence[int], top: int, architecture: str
) -> list[Projection]:  # fmt: skip
    """Credits of backprop (transposed weights), feedback alignment (fixed ones), direct feedback alignment (from the output)."""
    if credits == "dfa":
        return [_fixed(f"B_{name}", f"pyr{top}.wrong", name, cells[top]) for name in credited]
    if architecture == "conv" and top > 2:
        raise NeurosimError(
            f"credits = '{credits}' through a convolution needs its adjoint, which no projection is; wanted one convolution (three sizes), credits = 'dfa', "
            "or `neurosim train tdca --method backprop`."
        )
    down = []
    for l in range(1, top):
        above = f"inner{l + 1}" if block[l + 1] else f"pyr{l + 1}"
        if credits == "fa":
            down.append(_fixed(f"B_pyr{l}", f"{above}.delta", f"pyr{l}", cells[l + 1]))
        else:
            weights = Tied(f"Win{l + 1}" if block[l + 1] else f"W{l + 1}", transpose=True)
            down.append(Projection(f"B_pyr{l}", f"{above}.delta", f"pyr{l}.I_apical", weights))
        if block[l + 1]:
            down.append(Projection(f"C_pyr{l}", f"pyr{l + 1}.delta", f"pyr{l}.I_apical", connectivity=OneToOne()))
    return down


def _shapes(sizes: tuple[int, ...], architecture: str, pixels: int) -> list[Any]:
    """Cells, or (maps, height, width), of each level."""
    if architecture != "conv":
        return list(sizes)
    side = [pixels // 2**l for l in range(len(sizes) - 1)]
    return [(n, s, s) for n, s in zip(sizes[:-1], side, strict=True)] + [sizes[-1]]


def _check(sizes: tuple[int, ...], architecture: str, pixels: int, kernel: str, messenger: bool) -> None:
    """Refuse what does not fit together."""
    if sizes[-1] < 2:
        raise NeurosimError(f"sizes = {sizes}; wanted at least two classes, the last of them.")
    if architecture == "residual" and len(set(sizes[1:-1])) > 1:
        raise NeurosimError(
            f"sizes = {sizes}; wanted hidden levels of one width, which the skips of residual blocks join."
        )
    halved = len(sizes) - 2
    if architecture == "conv" and pixels % 2**halved:
        raise NeurosimError(
            f"pixels = {pixels} cannot be halved {halved} times, once per level of maps; wanted a multiple of {2**halved}."
        )
    if messenger and (kernel != "chain" or architecture == "conv"):
        raise NeurosimError(
            f"messenger = True with kernel = '{kernel}' and architecture = '{architecture}': the messenger diffuses between neighbours of a line or "
            "sheet, which settles at kernel = 'chain'; wanted that kernel, and no maps."
        )


def training(settings: Mapping[str, Any], dataset: str) -> dict[str, Any]:
    """The preset of `neurosim train`: the learner's life as in evolution where `credits` is a file, else Adam.

    Raises
    ------
    NeurosimError
        No source of credits is named.
    """
    credits = settings.get("credits", "unevolved")
    preset: dict[str, Any] = {"sizes": SIZES.get(dataset, SIZES["mnist"])}
    preset |= {
        "optimiser": "adam",
        "optimise": ("credit",),
        "learning_rate": 0.003,
        "clip": 1.0,
        "epochs": 30,
        "batch_size": 128,
    }
    found = _evolved(credits)
    if found is not None:
        widths = tuple(found.settings["sizes"])
        preset["sizes"] = (preset["sizes"][0], *widths[1:])
        if found.settings.get("architecture") == "conv":  # sizes begin with the picture's channels
            preset |= {"sizes": widths, "pixels": found.settings.get("pixels", 8)}
        life = found.facts.get("life", {})
        # Said, so that what is evolved from here, or trained, keeps them.
        preset |= {k: v for k, v in found.settings.items() if k in USUAL and k != "sizes"}
        preset |= {
            k: life[key]
            for k, key in (("optimiser", "optimiser"), ("learning_rate", "rate"), ("clip", "clip"))
            if key in life
        }
    return preset
