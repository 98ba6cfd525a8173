"""Credit from above: a network that computes a credit for each cell, and its release at few sites or by a messenger.

    top-down   tau du/dt = -u + x V_1 + e_1     r = tanh(u);  a second such layer;  sites k = u_2 V_3 + e_3
    spread     c = k D                          D (sites, cells), see `neurosim.parts.diffusion`
    messenger  tau_m dm/dt = w^2 (sum of neighbours' m - degree m) - m + (n/K) release,  which settles at the kernel `chain`

Chen, Liu & Wang 2022, arXiv 2208.01416: the network is READ in the authors' code, release sites and messenger are OURS.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neurosim.checks import check_memory
from neurosim.description import (
    SOURCE,
    Cell,
    Constant,
    Conv2d,
    Dense,
    Given,
    OneToOne,
    Population,
    Projection,
    Tied,
    Uniform,
)
from neurosim.equations import seconds
from neurosim.errors import NeurosimError
from neurosim.evolved import Evolved
from neurosim.parts.diffusion import degree, diffusion_kernel, nearest_cells, neighbours, release_sites
from neurosim.parts.maps import Shape, cells_of, fan_in_uniform
from neurosim.settings import Parts

#: A messenger m that diffuses among the cells of a lattice and decays, for the text of any cell with the port `I_apical`.
#: Its constants are those of `Release.messenger`, and `tau_m`. The diagonal of the Laplacian stands apart, so that each
#: visit of the steady level draws m nearer to rest for any width.
MESSENGER = """
    dm/dt = (spread*(I_near - degree*m) - m + gain*I_apical)/tau_m : 1
    I_near : 1 (port)
    """
#: The messenger's constants before `Release.messenger` gives a population its own: decay without diffusion.
STILL = {"spread": 0.0, "gain": 1.0, "degree": 1.0}


@dataclass(frozen=True, eq=False)
class Release:
    """How the credit of a population is released.

    Parameters
    ----------
    population
        The name of the population; its port `I_apical` takes the credit.
    n, sites
        Cells, and release sites.
    spread
        How the sites reach the cells (sites, n); None: one to one.
    near
        Neighbours among the cells (n, n), between which a messenger diffuses; None: no messenger.
    lattice
        The lattice of the cells, see `neurosim.parts.diffusion`.
    """

    population: str
    n: int
    sites: int
    spread: np.ndarray | None = None
    near: np.ndarray | None = None
    lattice: str = "line"

    def messenger(self, width: float, tau_m: str, dt: str) -> dict[str, Any]:
        """Constants of the messenger: spread w^2 (width in spacings of the sites), gain n/sites, degree of each cell.

        Raises
        ------
        NeurosimError
            A messenger that explicit Euler in steps of dt would let explode: ``dt (2 degree w^2 + 1)/tau_m >= 2``.
        """
        per_site = self.n / self.sites
        spread, degrees = (
            (width * per_site ** (1.0 if self.lattice == "line" else 0.5)) ** 2,
            degree(self.n, self.lattice),
        )
        largest, tau, step = 2 * float(degrees.max()), 1e3 * seconds(tau_m), 1e3 * seconds(dt)
        if not step * (largest * spread + 1) / tau < 2:
            raise NeurosimError(
                f"The messenger of '{self.population}' is unstable in steps of {step:g} ms: dt ({largest:g} w^2 + 1)/tau_m = "
                f"{step * (largest * spread + 1) / tau:.3g}; expected below 2. Use tau_m above "
                f"{step * (largest * spread + 1) / 2:.4g} ms, a smaller width, or messenger = False."
            )
        return {"spread": spread, "gain": per_site, "degree": degrees}


def release(
    population: str,
    shape: Shape,
    ratio: float = 1.0,
    kernel: str = "gauss",
    width: float = 0.5,
    lattice: str = "line",
    messenger: bool = False,
    sites: int | None = None,
) -> Release:
    """Release sites of a population, one for each `ratio` cells, and how they reach its cells; each map by itself.

    Parameters
    ----------
    shape
        Cells, or (maps, height, width), which are sheets.
    kernel, width, lattice
        How credit spreads, see `neurosim.parts.diffusion.diffusion_kernel`; ratio 1 needs none.
    messenger
        Release at the sites' nearest cells, from which a messenger diffuses in time.
    sites
        Sites of each map, where another number than that of `ratio` is given.

    Raises
    ------
    NeurosimError
        A messenger with another kernel or among maps, more sites than cells, a sheet that is no square, matrices that the machine cannot hold.
    """
    if messenger and (kernel != "chain" or isinstance(shape, tuple)):
        raise NeurosimError(
            f"messenger = True with kernel = '{kernel}' for '{population}' of {shape} cells: the messenger diffuses between "
            "neighbours of a line or sheet, which settles at kernel = 'chain'; expected that kernel, and no maps."
        )
    maps, n = (shape[0], shape[1] * shape[2]) if isinstance(shape, tuple) else (1, shape)
    lattice = "sheet" if isinstance(shape, tuple) else lattice
    usual = release_sites(n, ratio, lattice)
    sites = usual if sites is None else sites
    if sites > n:
        raise NeurosimError(
            f"'{population}' has {n} cells, and its credits were evolved for {sites} release sites; expected at least as "
            "many cells as sites. Make it wider, or evolve credits of a larger ratio."
        )
    if sites == n and ratio == 1 and not messenger:
        return Release(population, maps * n, maps * sites)
    largest = n if messenger or kernel == "chain" else sites
    check_memory(8 * maps * maps * n * largest, f"The diffusion of credit over {n} cells")
    if messenger:
        spread = np.zeros((sites, n))
        spread[np.arange(sites), nearest_cells(sites, n, lattice)] = 1.0
        return Release(population, n, sites, spread, neighbours(n, lattice), lattice)
    spread = np.kron(np.eye(maps), diffusion_kernel(sites, n, kernel, width, lattice))
    return Release(population, maps * n, maps * sites, spread, lattice=lattice)


def evolved_sites(evolved: Evolved | None, population: str, shape: Shape, level: int) -> int | None:
    """Release sites of a population, of each map, in a file of evolved credits; they spread over the cells there are; None without a file.

    Raises
    ------
    NeurosimError
        A population without a credit in the file, another number of maps.
    """
    if evolved is None:
        return None
    weights = evolved.weights.get(f"V3_{population}")
    if weights is None:
        raise NeurosimError(
            f"The evolved weights have no credit for '{population}': they are for {evolved.said}. Expected a learner with "
            "the same hidden levels (their widths may differ)."
        )
    maps = shape[0] if isinstance(shape, tuple) else 1
    if isinstance(shape, tuple) and maps != evolved.settings["sizes"][level]:
        raise NeurosimError(
            f"'{population}' has {maps} maps, and the credits were evolved for sizes = {evolved.settings['sizes']}; expected "
            "as many maps at each level (pixels may differ)."
        )
    return weights.shape[1] // maps


def sent_back(forward: Projection, name: str, cells: int, fixed: bool = False) -> Projection:
    """Credit along a forward projection, ``I_apical = delta B``: B is its transpose (backprop), or fixed (feedback alignment).

    Parameters
    ----------
    forward
        From the population that gets the credit to the one, of so many `cells`, whose `delta` is sent.
    fixed
        B from U(-k, k), ``k = 1/sqrt(cells)`` (Lillicrap et al. 2016). One-to-one projections stay as they are.
    """
    source, target = f"{forward.target_population}.delta", f"{forward.source}.I_apical"
    if isinstance(forward.connectivity, OneToOne):
        return Projection(name, source, target, connectivity=OneToOne())
    return Projection(name, source, target, fan_in_uniform(cells) if fixed else Tied(forward.name, transpose=True))


def all_sent_back(learner: Parts, fixed: bool = False) -> Parts:
    """`sent_back` along all forward projections of a learner from cells with a tuft that nothing reaches so far.

    Names are ``B_SOURCE``, along skips (one to one) ``C_SOURCE``.

    Raises
    ------
    NeurosimError
        A convolution above such cells: the ways out.
    """
    cells = {p.name: cells_of(p.n) for p in learner if isinstance(p, Population) and p.cell is not SOURCE}
    forward = [p for p in learner if isinstance(p, Projection)]
    if any(isinstance(q.connectivity, Conv2d) and q.source in cells for q in forward):
        raise NeurosimError(
            f"credits = '{'fa' if fixed else 'bp'}' through a convolution needs its adjoint, which no projection is; expected "
            "one convolution (three sizes), credits = 'dfa', or `neurosim train tdca --method backprop`."
        )
    reached = {q.target_population for q in forward if q.port == "I_apical"}
    return [
        sent_back(
            q, f"{'C' if isinstance(q.connectivity, OneToOne) else 'B'}_{q.source}", cells[q.target_population], fixed
        )
        for q in forward
        if q.port == "I_basal" and q.source in cells and q.source not in reached
    ]


def top_down_cell(tau: str = "5*ms") -> Cell:
    """A tanh cell of the network: ``tau du/dt = -u + I_in``, ``r = tanh(u)``."""
    return Cell("top-down", "du/dt = (-u + I_in)/tau : 1\nr = tanh(u) : 1\nI_in : 1 (port)", {"tau": tau})


def release_site(tau: str = "5*ms") -> Cell:
    """A release site, linear and signed: ``tau du/dt = -u + I_in``; it sends u."""
    return Cell("release site", "du/dt = (-u + I_in)/tau : 1\nI_in : 1 (port)", {"tau": tau}, rate="u")


def credit_network(
    sources: Sequence[tuple[str, int]], hidden: int, targets: Sequence[Release], tau: str = "5*ms"
) -> Parts:
    """The top-down net: `sources` (name, cells) to two tanh layers of `hidden` cells to release sites to apical tufts.

    Projections ``V1_SOURCE``, ``e1``, ``V2``, ``e2``, ``V3_TARGET``, ``e3_TARGET`` are to be evolved; weights start
    Glorot-uniform over each whole layer, biases at 0 (READ in the authors' code). ``D_TARGET`` is fixed, and so is
    ``near_TARGET``, between the neighbours of a target with a messenger.
    """

    def evolved(name: str, source: str, target: str, cells_in: int = 0, cells_out: int = 0) -> Projection:
        limit = math.sqrt(6.0 / (cells_in + cells_out)) if cells_in else 0.0
        start = Uniform(-limit, limit) if limit else Constant(0.0)
        return Projection(name, source, f"{target}.I_in", start, evolved=True)

    seen, sites = sum(n for _, n in sources), sum(t.sites for t in targets)
    parts: Parts = [
        Population("td1", hidden, top_down_cell(tau)),
        Population("td2", hidden, top_down_cell(tau)),
        *(evolved(f"V1_{source}", source, "td1", seen, hidden) for source, _ in sources),
        evolved("e1", "one", "td1"),
        evolved("V2", "td1", "td2", hidden, hidden),
        evolved("e2", "one", "td2"),
    ]
    for t in targets:
        site = f"site_{t.population}"
        parts += [
            Population(site, t.sites, release_site(tau)),
            evolved(f"V3_{t.population}", "td2", site, hidden, sites),
            evolved(f"e3_{t.population}", "one", site),
            Projection(
                f"D_{t.population}", site, f"{t.population}.I_apical",
                None if t.spread is None else Given(t.spread), connectivity=OneToOne() if t.spread is None else Dense(),
            ),
        ]  # fmt: skip
        if t.near is not None:
            parts.append(
                Projection(f"near_{t.population}", f"{t.population}.m", f"{t.population}.I_near", Given(t.near))
            )
    return parts
