"""Small circuits for tests, built in one place: a change of the description language changes this module and no test.

cell("du/dt = (-u + I)/tau : 1\n r = tanh(u) : 1\n I : 1", tau="10*ms")      # I is a port, tau a parameter
net = circuit({"inp": (3, SOURCE), "p": (2, c)}, [wire("W", "inp", "p.I", w)], clamps={"inp.r": "image"})
run(net, "torch:steady", x)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

import neurosim
from neurosim import (
    SOURCE,
    Cell,
    Circuit,
    Given,
    Hold,
    OneToOne,
    Phase,
    PlasticityRule,
    Pool,
    Population,
    Projection,
    Protocol,
    Readout,
    Tied,
)
from neurosim.backends.result import Result

#: The levels in the order of the README; those that integrate in time.
LEVELS = ("brian2:equations", "brian2:dense", "torch:trajectory", "torch:steady")
IN_TIME = LEVELS[:3]


def cell(
    equations: str, *, ports: Sequence[str] | None = None, optional: Sequence[str] = (), inputs: Sequence[str] = (), rate: str = "r",
    pools: Mapping[str, str | tuple[str, str]] | None = None, holds: Mapping[str, tuple[str, str]] | None = None,
    parts: Mapping[str, Any] | None = None, **parameters: Any,
) -> Cell:  # fmt: skip
    """A cell type; keywords are its parameters.

    Parameters
    ----------
    equations
        As in `Cell`; statements may be separated by newlines or by ``;``.
    ports
        By default every line ``I... : unit`` that is neither an optional port, an input nor a parameter.
    pools
        ``{name: expression}``, or ``{name: (reduction, expression)}`` with the reductions ``"sum"``, ``"max"``, and ``"map"``, ``"batch"`` and
        ``"map max"`` over maps and samples.
    holds
        ``{name: (variable, phase)}``.
    parts
        Further arguments of `Cell`: threshold, reset, refractory, initial.
    """
    lines = [line.strip() for line in equations.replace(";", "\n").splitlines() if line.strip()]
    declared = [line.partition(":")[0].strip() for line in lines if "=" not in line and "(shared)" not in line]
    if ports is None:
        known = {*optional, *inputs, *parameters}
        ports = [name for name in declared if name.startswith("I") and name not in known]
    return Cell(
        "cell", "\n".join(lines), tuple(ports), tuple(optional), tuple(inputs), rate, parameters,
        tuple(_pool(name, what) for name, what in (pools or {}).items()),
        tuple(Hold(name, of, phase) for name, (of, phase) in (holds or {}).items()),
        **(parts or {}),
    )  # fmt: skip


def _pool(name: str, what: str | tuple[str, str]) -> Pool:
    reduction, expression = what if isinstance(what, tuple) else ("sum", what)
    over, _, reduce = reduction.rpartition(" ")
    if reduction in ("map", "batch"):
        over, reduce = reduction, "sum"
    return Pool(name, expression, over or "population", **({"reduce": reduce} if reduce != "sum" else {}))  # type: ignore[arg-type]


def rule(
    equation: str, name: str = "rule", apply: str = "now", bounds: tuple[Any, Any] = (None, None), **parameters: Any
):
    """A plasticity rule; `equation` is the right-hand side of dw/dt, keywords are its parameters."""
    return PlasticityRule(name, f"dw/dt = {equation}", parameters, apply, bounds)  # type: ignore[arg-type]


def wire(
    name: str, source: str, target: str, weights: Any = None, learns: PlasticityRule | None = None, *, tied: str | None = None,
    transpose: bool = False, factor: float = 1.0, one_to_one: bool = False,
) -> Projection:  # fmt: skip
    """A projection, dense unless `one_to_one`; `weights` is an array, an initialiser, or None (tied; one to one: 1)."""
    if weights is not None and not hasattr(weights, "draw") and not isinstance(weights, neurosim.Like):
        weights = Given(np.asarray(weights, dtype=float))
    kind: dict[str, Any] = {"connectivity": OneToOne()} if one_to_one else {}
    tie = None if tied is None else Tied(tied, transpose, factor)
    return Projection(name, source, target, weights=weights, rule=learns, tied=tie, **kind)


def phase(name: str, duration: str = "20*ms", plastic: Sequence[str] = (), **shared: Any) -> Phase:
    """A phase; keywords are its shared values."""
    return Phase(name, duration, shared, plastic=tuple(plastic))


def circuit(
    populations: Mapping[str, tuple[Any, Cell] | tuple[Any, Cell, Mapping[str, Any]]], projections: Sequence[Projection] = (),
    phases: Sequence[Any] = (), clamps: Mapping[str, str] | None = None, shared: Mapping[str, Any] | None = None,
    readout: tuple[str, str] | None = None, reset: bool = True, dt: str = "0.5*ms",
) -> Circuit:  # fmt: skip
    """A circuit; `populations` is ``{name: (n, cell)}`` or ``{name: (n, cell, parameters)}``, `readout` (variable, phase)."""
    return Circuit(
        "net",
        tuple(Population(name, *what) for name, what in populations.items()),
        tuple(projections),
        Protocol(tuple(phases) or (phase("only"),), clamps or {}, shared or {}, reset, dt),
        Readout(*readout) if readout else None,
    )


def alone(
    c: Cell, n: int = 3, duration: str = "20*ms", parameters: Mapping[str, Any] | None = None, **more: Any
) -> Circuit:
    """A circuit of one population ``p`` of `n` cells with nothing in front of it."""
    return circuit({"p": (n, c, parameters or {})}, phases=(phase("only", duration),), **more)


def driven(c: Cell, n: int = 3, learns: PlasticityRule | None = None, duration: str = "20*ms", **more: Any) -> Circuit:
    """An image of three pixels, dense weights ``W`` (fixed numbers between -0.6 and 0.8) onto the first port of population ``p``."""
    weights = np.linspace(-0.6, 0.8, 3 * n).reshape(3, n)
    plastic = (learns.name,) if learns else ()
    more = {"phases": (phase("only", duration, plastic),), "clamps": {"inp.r": "image"}} | more
    port = (*c.ports, *c.optional_ports)[0]
    return circuit({"inp": (3, SOURCE), "p": (n, c)}, [wire("W", "inp", f"p.{port}", weights, learns)], **more)


#: Two images for `driven`.
IMAGES = np.array([[0.3, 0.9, -0.4], [1.0, 0.2, 0.6]])


def run(net: Circuit, level: str, images: Any = None, labels: Any = None, **options: Any) -> Result:
    """`neurosim.simulate` without a progress bar."""
    return neurosim.simulate(net, images, labels, level=level, **{"progress": False, **options})


def changed(net: Circuit, **what: Any) -> Circuit:
    """The circuit with other fields."""
    return replace(net, **what)
