"""Cell and rule equations through Brian2's parser."""

from __future__ import annotations

import re
from dataclasses import dataclass

from brian2.core.functions import DEFAULT_CONSTANTS, DEFAULT_FUNCTIONS
from brian2.core.namespace import DEFAULT_UNITS
from brian2.equations.equations import (
    DIFFERENTIAL_EQUATION,
    PARAMETER,
    SUBEXPRESSION,
    EquationError,
    Equations,
)
from brian2.units.fundamentalunits import Dimension

from neurosim.equations.render import names_in
from neurosim.errors import CircuitError

#: Prefix of every name that neurosim generates; users may not use it.
RESERVED_PREFIX = "ns_"


@dataclass(frozen=True)
class CellEquations:
    """Parsed equations of a cell: expressions by name, in the order of their dependence, and units of all names."""

    states: dict[str, str]
    subexpressions: dict[str, str]
    declared: tuple[str, ...]  # lines `name : unit`
    shared: tuple[str, ...]  # lines `name : unit (shared)`
    dimensions: dict[str, Dimension]
    noises: tuple[str, ...]  # xi, xi_name
    unless_refractory: tuple[str, ...]  # states that stand still while the cell is refractory


def parse_cell(text: str, where: str) -> CellEquations:
    """Parse a cell's equations; `where` opens every message.

    Raises
    ------
    CircuitError
        Text that Brian2 cannot read, reserved names, circular subexpressions, unknown flags.
    """
    try:
        equations = Equations(text)
        ordered = equations.ordered
    except (EquationError, SyntaxError, ValueError) as error:
        raise CircuitError(f"{where}: {_message(error)}") from error
    states: dict[str, str] = {}
    subexpressions: dict[str, str] = {}
    declared: list[str] = []
    shared: list[str] = []
    unless_refractory: list[str] = []
    for single in ordered:
        name = single.varname
        check_name(name, where)
        flags = set(single.flags)
        unknown_flags = flags - {"shared", "unless refractory"}
        if unknown_flags or ("unless refractory" in flags and single.type != DIFFERENTIAL_EQUATION):
            raise CircuitError(
                f"{where}: '{name}' has the flag {sorted(unknown_flags or flags)}; known here are (shared) on a line "
                "'name : unit' and (unless refractory) on the equation of a state."
            )
        if "unless refractory" in flags:
            unless_refractory.append(name)
            flags = set()
        if single.type == DIFFERENTIAL_EQUATION:
            states[name] = _one_line(single.expr.code)
        elif single.type == SUBEXPRESSION:
            subexpressions[name] = _one_line(single.expr.code)
        elif single.type == PARAMETER:
            (shared if flags else declared).append(name)
        if flags and single.type != PARAMETER:
            raise CircuitError(
                f"{where}: only a line 'name : unit (shared)' may be shared, not the equation of '{name}'."
            )
    states = {name: states[name] for name in equations if name in states}  # as the text has them
    noises = sorted({n for text in states.values() for n in names_in(text) if is_noise(n)})
    for name, text in subexpressions.items():
        if any(is_noise(n) for n in names_in(text)):
            raise CircuitError(
                f"{where}: white noise in '{name} = {text}'; noise enters the equation of a state (dx/dt = ... + sigma*xi)."
            )
    return CellEquations(
        states, subexpressions, tuple(declared), tuple(shared), {s.varname: s.dim for s in ordered}, tuple(noises),
        tuple(unless_refractory),
    )  # fmt: skip


def is_noise(name: str) -> bool:
    """Whether a name stands for white noise: ``xi``, ``xi_name``."""
    return name == "xi" or name.startswith("xi_")


def parse_reset(text: str, where: str) -> list[tuple[str, str]]:
    """Statements of a reset as ``(state, new value)``; ``x += e`` becomes ``x = x + (e)``."""
    statements = []
    for line in re.split(r"[;\n]", text):
        if not line.strip():
            continue
        match = re.fullmatch(r"\s*(\w+)\s*([-+*/]?)=(?!=)(.+)", line)
        if match is None:
            raise CircuitError(f"{where}: cannot read '{line.strip()}' in the reset; wanted 'x = ...' or 'x += ...'.")
        name, operator, value = match[1], match[2], match[3].strip()
        statements.append((name, f"{name} {operator} ({value})" if operator else value))
    return statements


def check_name(name: str, where: str) -> None:
    """Refuse a name that Brian2 or neurosim reserves (functions, constants, units, i, j, t, dt, w, ...)."""
    cure = "Rename the variable."
    if name.startswith(RESERVED_PREFIX) or name.endswith(("_pre", "_post")) or name in ("w", "int_"):
        raise CircuitError(
            f"{where}: the name '{name}' is reserved (names that begin with '{RESERVED_PREFIX}', end in '_pre' or '_post', "
            f"'w' and 'int_'). {cure}"
        )
    if name in {*DEFAULT_FUNCTIONS, *DEFAULT_UNITS, *DEFAULT_CONSTANTS}:
        raise CircuitError(f"{where}: '{name}' is the name of a function, constant or unit in Brian2. {cure}")
    try:
        Equations.check_identifier(name)
    except (SyntaxError, ValueError) as error:
        raise CircuitError(f"{where}: '{name}' is no name for a variable: {error} {cure}") from error


def parse_rule(text: str, where: str) -> str:
    """The right-hand side of ``dw/dt = ...``."""
    match = re.fullmatch(r"\s*dw\s*/\s*dt\s*=(?P<rhs>.+)", text, flags=re.DOTALL)
    if match is None:
        raise CircuitError(f"{where}: got '{text.strip()}'; wanted an equation 'dw/dt = ...' (no unit after it).")
    return _one_line(match["rhs"])


def _one_line(code: str) -> str:
    return " ".join(code.split())


def _message(error: Exception) -> str:
    text = str(error)
    return (
        f"{text} Rename the variable." if any(word in text for word in ("reserved", "unit", "as a variable")) else text
    )
