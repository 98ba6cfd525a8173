"""Cell and rule equations through Brian2's parser."""

from __future__ import annotations

import ast
import keyword
import re
from collections.abc import Iterator
from contextlib import suppress
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

from neurosim.equations.bounds import bounded
from neurosim.equations.functions import FUNCTIONS
from neurosim.equations.render import is_noise, names_in
from neurosim.errors import CircuitError

#: Prefix of every name that neurosim generates; users may not use it.
RESERVED_PREFIX = "ns_"
#: Names that Brian2 accepts and then takes for its own, of variables or beginning with our prefix.
_TAKEN = ("self", "owner", "variables", "source", "pre", "post")
#: Functions of Brian2 that draw a random number in each step.
_RANDOM = ("rand", "randn", "poisson")
#: Words of Python that mean the same in an equation.
_WORDS = ("and", "or", "not", "True", "False")
_WANTED = "wanted `name = expression : unit`, `dname/dt = expression : unit` or `name : unit`"
#: How a statement of a cell's equations begins.
_START = re.compile(r"\s*(?:d\w+\s*/\s*dt|\w+)\s*(?:=(?!=)|:)")


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
    for statement in _statements(text):
        with suppress(SyntaxError):  # which Brian2 finds, and `_check_statements` words
            bounded(statement.partition("=")[2].rpartition(":")[0], where)
    try:
        equations = Equations(text)
        ordered = equations.ordered
    except (EquationError, SyntaxError, ValueError, KeyError) as error:
        _check_statements(text, where)
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
    for name, code in states.items():
        check_expression(code, f"d{name}/dt = {code}", where)
    for name, code in subexpressions.items():
        check_expression(code, f"{name} = {code}", where)
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


def check_expression(expression: str, shown: str, where: str) -> None:
    """Refuse what no level computes: unknown functions, random numbers, units, conditions used as numbers; `shown` is the text in messages.

    Raises
    ------
    CircuitError
        With the cure.
    """
    try:
        tree = bounded(expression, where)
    except SyntaxError as error:
        words = [word for word in re.findall(r"\w+", expression) if keyword.iskeyword(word) and word not in _WORDS]
        cure = f" '{words[0]}' is a word of Python's own; give the variable another name." if words else ""
        raise CircuitError(f"{where}: cannot read '{shown}': {error.msg}.{cure}") from error
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id not in FUNCTIONS:
            name = node.func.id
            if name in _RANDOM:
                raise CircuitError(
                    f"{where}: '{name}()' in '{shown}': its numbers do not follow from the seed; use xi, white noise in the equation of a state "
                    "(dx/dt = ... + sigma*xi), which is drawn from the seed on every level."
                )
            raise CircuitError(
                f"{where}: unknown function '{name}' in '{shown}'. Equations know: {', '.join(FUNCTIONS)}."
            )
        if isinstance(node, ast.Name) and id(node) not in called and node.id in DEFAULT_UNITS:
            raise CircuitError(
                f"{where}: '{node.id}' in '{shown}' is a unit; units do not stand in equations: write a parameter, "
                "parameters={'tau': '10*ms'}, and its name here."
            )
        if isinstance(node, ast.Compare) and len(node.ops) > 1:
            raise CircuitError(
                f"{where}: '{ast.unparse(node)}' in '{shown}' compares twice; write two conditions joined by 'and'."
            )
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitXor):
            raise CircuitError(
                f"{where}: '^' in '{shown}' is no power; write {ast.unparse(node).replace(' ^ ', '**')}."
            )
        operands = {ast.BinOp: ("left", "right"), ast.UnaryOp: ("operand",)}.get(type(node), ())
        for operand in (getattr(node, name) for name in operands):
            condition = isinstance(operand, ast.Compare | ast.BoolOp)
            if condition and not (isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)):
                text = ast.unparse(operand)
                raise CircuitError(
                    f"{where}: '{text}' in '{shown}' is a condition, no number; write int({text}), which is 1 or 0."
                )


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


def _statements(text: str) -> Iterator[str]:
    """The statements of a cell's equations, comments left out; a line that begins none goes on with the last one."""
    statement = ""
    for line in text.splitlines():
        line = line.partition("#")[0].strip()
        begin = _START.match(line)
        unfinished = statement.count("(") > statement.count(")") or statement.endswith(("+", "-", "*", "/", "=", ","))
        goes_on = ":" not in statement and unfinished and "=" not in line  # `v : 1` under `r = u +`
        if statement and begin and not goes_on:
            yield statement
            statement = ""
        statement = f"{statement} {line}".strip()
    if statement:
        yield statement


def _check_statements(text: str, where: str) -> None:
    """Show the statement that Brian2 could not read, and what is wrong with it; nothing where the mistake is another one."""
    for statement in _statements(text):
        if statement.count("(") != statement.count(")"):
            what = "never closed" if statement.count("(") > statement.count(")") else "never opened"
            raise CircuitError(f"{where}: cannot read '{statement}': a bracket is {what}.")
        begin = _START.match(statement)
        left, colon, unit = statement.partition(":")
        if begin is None or not colon or not unit.strip():
            raise CircuitError(f"{where}: cannot read '{statement}'; {_WANTED} (unit 1 for a number).")
        if "=" in begin[0]:
            check_expression(left[begin.end() :], left.strip(), where)


def check_name(name: str, where: str) -> None:
    """Refuse a name that Brian2 or neurosim reserves (functions, constants, units, i, j, t, dt, w, ...)."""
    cure = "Rename the variable."
    if not name.isascii():
        raise CircuitError(f"{where}: the name '{name}' holds letters other than a to z and A to Z. {cure}")
    if name in _TAKEN:
        raise CircuitError(f"{where}: the name '{name}' is one that Brian2 uses itself. {cure}")
    if name in ("t_trial", "t_phase"):
        raise CircuitError(f"{where}: '{name}' is the time since the trial or the phase began. {cure}")
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
    rhs = _one_line(match["rhs"])
    check_expression(rhs, f"dw/dt = {rhs}", where)
    return rhs


def _one_line(code: str) -> str:
    return " ".join(code.split())


def _message(error: Exception) -> str:
    text = str(error)
    unread = re.match(r"Parsing failed:\s*\n(?P<line>.*)\n", text)
    if unread is not None:
        return f"cannot read '{unread['line'].strip()}', or what stands before it; {_WANTED} (unit 1 for a number)."
    about_a_name = "specification" not in text and any(word in text for word in ("reserved", "unit", "as a variable"))
    return f"{text} Rename the variable." if about_a_name else text
