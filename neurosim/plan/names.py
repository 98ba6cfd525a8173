"""The names of a circuit's populations, projections and phases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from neurosim.description import Loop, Phase, Population, Projection, Protocol
from neurosim.equations import CellEquations
from neurosim.errors import CircuitError, suggest, unknown

#: Names of what stands beside the populations in a file of traces.
RESERVED_POPULATIONS = ("time", "phases", "spikes")


def check_names(populations: Sequence[Population], projections: Sequence[Projection], protocol: Protocol) -> None:
    """Refuse names that occur twice or that no file or equation can hold."""
    for what, named in (("Population", populations), ("Projection", projections)):
        for item in named:
            if not (item.name.isidentifier() and item.name.isascii()):
                raise CircuitError(
                    f"{what} '{item.name}': expected a name of letters (a to z, A to Z), digits and '_' that does not "
                    "begin with a digit."
                )
            if what == "Population" and item.name in RESERVED_POPULATIONS:
                raise CircuitError(f"Population '{item.name}': files of traces use this name; choose another.")
    check_unique("phase", [phase.name for phase in described_phases(protocol)])


def described_phases(protocol: Protocol) -> list[Phase]:
    """The phases as the protocol lists them, those of windows once."""
    return [phase for item in protocol.phases for phase in (item.phases if isinstance(item, Loop) else (item,))]


def check_unique(what: str, names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise CircuitError(f"Two of one name: {what} '{name}'; rename one.")


def check_target(projection: Projection, cells: Mapping[str, CellEquations]) -> None:
    """Refuse a port that is not there, before its misspelling reads as another port that nothing feeds."""
    where = f"Projection '{projection.name}'"
    name, port = projection.target_population, projection.port
    if name not in cells:
        raise CircuitError(f"{where}: {unknown('population', name, cells)}")
    ports = cells[name].ports
    if not port:
        raise CircuitError(
            f"{where}: target = '{projection.target}' names no port; wanted '{name}.PORT'. Ports: {', '.join(ports)}."
        )
    if port not in ports:
        raise CircuitError(
            f"{where}: {name} has no port '{port}'.{suggest(port, ports)} Ports: {', '.join(ports) or '(none)'}; a port is a "
            "line 'name : unit (port)' or '(optional port)' of its cell's text."
        )
