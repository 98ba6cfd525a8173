"""Small circuits for tests, built in one place: a change of the description language changes this module and no test.

cell("du/dt = (-u + I)/tau : 1\n r = tanh(u) : 1\n I : 1", tau="10*ms")      # I is a port, tau a parameter
net = circuit({"inp": (3, SOURCE), "p": (2, c)}, [wire("W", "inp", "p.I", w)], clamps={"inp.r": "image"})
run(net, "torch:steady", x)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

import neurosim
from neurosim import (
    SOURCE,
    Cell,
    Circuit,
    Dense,
    Fragment,
    Given,
    Like,
    OneToOne,
    Phase,
    PlasticityRule,
    Population,
    Projection,
    Protocol,
    Readout,
    Tied,
)
from neurosim.backends.result import Result
from neurosim.equations import dimensions_of, parse_cell, quantity
from neurosim.equations.units import unit_string

#: The levels in the order of the README; those that integrate in time.
LEVELS = ("brian2:equations", "brian2:dense", "torch:trajectory", "torch:steady")
IN_TIME = LEVELS[:3]


class Line(NamedTuple):
    """A line ``name = text`` of a cell's equations, whose unit is found by `assemble`; `of` is what it reads."""

    name: str
    text: str
    of: str
    per: str = ""


def pool(name: str, expression: str, over: str = "population", reduce: str = "sum") -> Line:
    """The sum or the largest value of an expression over a ``"population"``, each ``"map"`` or the ``"batch"``."""
    word = "pool_max" if reduce == "max" else "pool"
    return Line(name, f"{word}({expression}{'' if over == 'population' else f', {over}'})", expression)


def overlap(name: str, of: str) -> Line:
    """What the samples of a batch have in common."""
    return Line(name, f"overlap({of})", of)


def hold(name: str, of: str, phase: str) -> Line:
    """The value at the end of a phase."""
    return Line(name, f"hold({of}, {phase})", of)


def derivative(name: str, of: str) -> Line:
    """The time derivative in the step before."""
    return Line(name, f"derivative({of})", of, "/second")


def assemble(
    name: str, equations: str, ports: Sequence[str] = (), optional_ports: Sequence[str] = (), inputs: Sequence[str] = (), rate: str = "r",
    parameters: Mapping[str, Any] | None = None, pools: Sequence[Line] = (), holds: Sequence[Line] = (),
    derivatives: Sequence[Line] = (), overlaps: Sequence[Line] = (), **more: Any,
) -> Cell:  # fmt: skip
    """A cell whose roles and marked lines are given beside its text; the unit of a marked line is that of what it reads."""
    roles = (
        dict.fromkeys(ports, "port") | dict.fromkeys(optional_ports, "optional port") | dict.fromkeys(inputs, "input")
    )
    lines = [line.strip() for line in equations.splitlines() if line.strip()]
    text = [f"{line} ({roles[declared]})" if (declared := _declared(line)) in roles else line for line in lines]
    text += [f"{n} : 1 ({role})" for n, role in roles.items() if n not in map(_declared, lines)]
    waiting = [*pools, *holds, *derivatives, *overlaps]
    while waiting:
        known = _units("\n".join(text), parameters or {})
        found = {line: unit for line in waiting if (unit := _unit(line, known))} or {waiting[0]: "1"}
        text += [f"{line.name} = {line.text} : {unit}" for line, unit in found.items()]
        waiting = [line for line in waiting if line not in found]
    return Cell(name, "\n".join(text), parameters or {}, rate, **more)


def _declared(line: str) -> str:
    """The name of a line ``name : unit``, or an empty text."""
    return "" if "=" in line or "(" in line else line.partition(":")[0].strip()


def _units(text: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    try:
        known = dict(parse_cell(text, "test").dimensions)
    except neurosim.errors.CircuitError:  # a test of bad text
        known = {}
    for name, value in parameters.items():
        with suppress(neurosim.errors.CircuitError):
            known[name] = quantity(value)[1]
    second = quantity("1*second")[1]
    return known | dict.fromkeys(("t", "t_trial", "t_phase", "dt"), second)


def _unit(line: Line, known: Mapping[str, Any]) -> str:
    """The unit of a line, or an empty text where it is not known yet."""
    try:
        dimension = dimensions_of(line.of, known, "test")
    except neurosim.errors.CircuitError:
        return ""
    return unit_string(dimension / quantity("1*second")[1] if line.per else dimension)


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
        By default every line ``I... : unit`` without a role that is neither an optional port, an input nor a parameter.
    pools
        ``{name: expression}``, or ``{name: (reduction, expression)}`` with the reductions ``"sum"``, ``"max"``, and ``"map"``, ``"batch"`` and
        ``"map max"`` over maps and samples.
    holds
        ``{name: (variable, phase)}``.
    parts
        Further arguments of `assemble`: derivatives, overlaps, threshold, reset, refractory, initial.
    """
    lines = [line.strip() for line in equations.replace(";", "\n").splitlines() if line.strip()]
    if ports is None:
        known = {*optional, *inputs, *parameters}
        ports = [name for name in map(_declared, lines) if name.startswith("I") and name not in known]
    summed = [
        pool(name, what[1], what[0].replace("max", "").replace("sum", "").strip() or "population", "max" if "max" in what[0] else "sum")
        for name, what in ((n, w if isinstance(w, tuple) else ("sum", w)) for n, w in (pools or {}).items())
    ]  # fmt: skip
    held = [hold(name, of, phase) for name, (of, phase) in (holds or {}).items()]
    return assemble(
        "cell",
        "\n".join(lines),
        ports,
        optional,
        inputs,
        rate,
        parameters,
        **{"pools": summed, "holds": held, **(parts or {})},
    )


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
    if weights is not None and not hasattr(weights, "draw") and not isinstance(weights, Like | Tied):
        weights = Given(np.asarray(weights, dtype=float))
    if tied is not None:
        weights = Tied(tied, factor, transpose)
    return Projection(name, source, target, weights, learns, OneToOne() if one_to_one else Dense())


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
        Fragment(tuple(Population(name, *what) for name, what in populations.items()), projections),
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
    port = parse_cell(c.equations, "driven").ports[0]
    return circuit({"inp": (3, SOURCE), "p": (n, c)}, [wire("W", "inp", f"p.{port}", weights, learns)], **more)


#: Two images for `driven`.
IMAGES = np.array([[0.3, 0.9, -0.4], [1.0, 0.2, 0.6]])


def run(net: Circuit, level: str, images: Any = None, labels: Any = None, **options: Any) -> Result:
    """`neurosim.simulate` without a progress bar."""
    return neurosim.simulate(net, images, labels, level=level, **{"progress": False, **options})


def changed(net: Circuit, **what: Any) -> Circuit:
    """The circuit with other fields."""
    return replace(net, **what)
