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
    SingleEquation,
)
from brian2.units.fundamentalunits import Dimension

from neurosim.equations.bounds import bounded
from neurosim.equations.functions import FUNCTIONS
from neurosim.equations.reductions import REDUCTIONS
from neurosim.equations.render import is_noise, names_in
from neurosim.equations.units import unit_string
from neurosim.errors import CircuitError, suggest

#: Prefix of every name that neurosim generates; users may not use it.
RESERVED_PREFIX = "ns_"
#: Names that Brian2 accepts and then takes for its own, of variables or beginning with our prefix.
_TAKEN = ("self", "owner", "variables", "source", "pre", "post")
#: Functions of Brian2 that draw a random number in each step.
_RANDOM = ("rand", "randn", "poisson")
#: Words of Python that mean the same in an equation.
_WORDS = ("and", "or", "not", "True", "False")
_WANTED = "wanted `name = expression : unit`, `dname/dt = expression : unit` or `name : unit (role)`"
#: How a statement of a cell's equations begins.
_START = re.compile(r"\s*(?:d\w+\s*/\s*dt|\w+)\s*(?:=(?!=)|:)")


@dataclass(frozen=True)
class Reduced:
    """A line ``name = word(expression, axis)``; see `REDUCTIONS`."""

    name: str
    word: str
    expression: str
    axis: str


@dataclass(frozen=True)
class Hold:
    """A line ``name = hold(of, phase)``: the value in the last step of the phase, 0 before.

    A phase inside a loop may be named with its pass, ``settle[0]``; without it, the value of each pass is taken in turn.
    """

    name: str
    of: str
    phase: str


@dataclass(frozen=True)
class Derivative:
    """A line ``name = derivative(of)``: ``(x(t) - x(t-dt))/dt`` of a state in the previous step, 0 before.

    Of the previous step, because with the present one a rate that looks ahead would close an algebraic loop.
    """

    name: str
    of: str


@dataclass(frozen=True)
class CellEquations:
    """A cell's text, parsed: expressions by name, in the order of their dependence, and the units of all names."""

    states: dict[str, str]
    subexpressions: dict[str, str]
    reduced: tuple[Reduced, ...]
    holds: tuple[Hold, ...]
    derivatives: tuple[Derivative, ...]
    required_ports: tuple[str, ...]
    optional_ports: tuple[str, ...]
    inputs: tuple[str, ...]
    shared: tuple[str, ...]
    dimensions: dict[str, Dimension]
    noises: tuple[str, ...]  # xi, xi_name
    unless_refractory: tuple[str, ...]  # states that stand still while the cell is refractory

    @property
    def ports(self) -> tuple[str, ...]:
        """All ports, those that must be fed first."""
        return (*self.required_ports, *self.optional_ports)

    @property
    def marked(self) -> tuple[Reduced | Hold | Derivative, ...]:
        """The lines whose right-hand side is one of `WORDS`."""
        return (*self.reduced, *self.holds, *self.derivatives)


#: What a line ``name : unit (role)`` may be.
ROLES = ("port", "optional port", "input", "shared")
#: Words that are the whole right-hand side of a line.
WORDS = (*REDUCTIONS, "hold", "derivative")
#: Names that the text of a cell uses itself.
KEPT = (*WORDS, "map", "batch")


def parse_cell(text: str, where: str) -> CellEquations:
    """Parse a cell's text; `where` opens every message.

    Raises
    ------
    CircuitError
        Text that Brian2 cannot read, reserved names, circular subexpressions, unknown flags, a variable without a role.
    """
    marked, rest = _take_marked(text, where)
    for statement in _statements(text):
        with suppress(SyntaxError):  # which Brian2 finds, and `_check_statements` words
            bounded(statement.partition("=")[2].rpartition(":")[0], where)
    try:
        equations = Equations(rest)
        ordered = equations.ordered
    except (EquationError, SyntaxError, ValueError, KeyError) as error:
        _check_statements(rest, where)
        raise CircuitError(f"{where}: {_message(error)}") from error
    names = {item.name for item in marked}
    roles: dict[str, list[str]] = {role: [] for role in (*ROLES, "unless refractory")}
    texts: dict[str, dict[str, str]] = {DIFFERENTIAL_EQUATION: {}, SUBEXPRESSION: {}}
    for single in ordered:
        name = single.varname
        check_name(name, where)
        if single.type == PARAMETER and name not in names:
            roles[_role(single, where)].append(name)
            continue
        _check_flags(single, where)
        if "unless refractory" in single.flags:
            roles["unless refractory"].append(name)
        if single.type != PARAMETER:
            texts[single.type][name] = _one_line(single.expr.code)
    states = {n: texts[DIFFERENTIAL_EQUATION][n] for n in equations if n in texts[DIFFERENTIAL_EQUATION]}
    subexpressions = texts[SUBEXPRESSION]
    for name, code in states.items():
        check_expression(code, f"d{name}/dt = {code}", where)
    for name, code in subexpressions.items():
        check_expression(code, f"{name} = {code}", where)
        if any(is_noise(n) for n in names_in(code)):
            raise CircuitError(
                f"{where}: white noise in '{name} = {code}'; noise enters the equation of a state "
                "(dx/dt = ... + sigma*xi)."
            )
    noises = sorted({n for text in states.values() for n in names_in(text) if is_noise(n)})
    return CellEquations(
        states=states,
        subexpressions=subexpressions,
        reduced=tuple(item for item in marked if isinstance(item, Reduced)),
        holds=tuple(item for item in marked if isinstance(item, Hold)),
        derivatives=tuple(item for item in marked if isinstance(item, Derivative)),
        required_ports=tuple(roles["port"]),
        optional_ports=tuple(roles["optional port"]),
        inputs=tuple(roles["input"]),
        shared=tuple(roles["shared"]),
        dimensions={s.varname: s.dim for s in ordered},
        noises=tuple(noises),
        unless_refractory=tuple(roles["unless refractory"]),
    )


def _role(single: SingleEquation, where: str) -> str:
    """The role of a line ``name : unit (role)``."""
    flags: tuple[str, ...] = tuple(map(str, single.flags))
    if len(flags) == 1 and flags[0] in ROLES:
        return flags[0]
    got = f"the flags ({', '.join(flags)})" if flags else "no role"
    line = f"{single.varname} : {unit_string(single.dim)}"
    raise CircuitError(
        f"{where}: the line '{line}' has {got}; write one of '{line} (port)', which a projection must feed, "
        "'(optional port)', which reads 0 where nothing feeds it, '(input)', which a clamp sets, and '(shared)', "
        "one number per phase. A constant stands in `parameters` and has no line."
        f"{suggest(flags[0], ROLES) if flags else ''}"
    )


def _check_flags(single: SingleEquation, where: str) -> None:
    """Refuse flags of equations, but for ``(unless refractory)`` on that of a state."""
    allowed: set[str] = {"unless refractory"} if single.type == DIFFERENTIAL_EQUATION else set()
    if other := sorted(set(single.flags) - allowed):
        raise CircuitError(
            f"{where}: '{single.varname}' has the flag {other}; known here are (unless refractory) on the equation of a "
            f"state, and ({'), ('.join(ROLES)}) on a line 'name : unit'."
        )


def _take_marked(text: str, where: str) -> tuple[list[Reduced | Hold | Derivative], str]:
    """The lines whose right-hand side is one of `WORDS`, and the text with a line ``name : unit`` in their place."""
    marked: list[Reduced | Hold | Derivative] = []
    kept: list[str] = []
    for statement in _statements(text):
        left, _, unit = statement.rpartition(":")
        name, equals, right = (part.strip() for part in left.partition("="))
        if not equals or not re.search(rf"\b({'|'.join(WORDS)})\s*\(", right):
            kept.append(statement)
            continue
        shown = f"{name} = {right}"
        try:
            call = bounded(right, where)
        except SyntaxError as error:
            _check_brackets(statement, where)
            raise CircuitError(f"{where}: cannot read '{shown}': {error.msg}.") from error
        inner = [n for n in ast.walk(call) if n is not call and _word(n)]
        if not _word(call) or inner or not name.isidentifier():
            word = _word(inner[0] if inner else call)
            raise CircuitError(
                f"{where}: {word}(...) stands inside '{shown}'; give it a line of its own, such as "
                f"'x = {word}(...) : 1', and write x here."
            )
        marked.append(_read_marked(name, call, shown, where))  # type: ignore[arg-type]
        kept.append(f"{name} : {unit}")
    return marked, "\n".join(kept) if marked else text


def _word(node: ast.AST) -> str:
    """Which of `WORDS` a node calls, or an empty text."""
    called = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
    return called if called in WORDS else ""


def _read_marked(name: str, call: ast.Call, shown: str, where: str) -> Reduced | Hold | Derivative:
    word, arguments = _word(call), [_one_line(ast.unparse(a)) for a in call.args]
    row = REDUCTIONS.get(word)
    axes = list(row.axes) if row else []
    most = 2 if word == "hold" or len(axes) > 1 else 1
    if call.keywords or not (2 if word == "hold" else 1) <= len(arguments) <= most:
        form = {"hold": "hold(variable, phase)", "derivative": "derivative(state)"}.get(word)
        form = form or (f"{word}(expression) or {word}(expression, axis)" if most == 2 else f"{word}(variable)")
        raise CircuitError(f"{where}: cannot read '{shown}'; expected {form}.")
    if word == "derivative":
        return Derivative(name, arguments[0])
    if word == "hold":
        return Hold(name, arguments[0], arguments[1])
    axis = (*arguments, *axes)[1]  # as given, or the first
    if axis not in axes:
        listing = ", ".join(axes[1:])
        raise CircuitError(
            f"{where}: the axis '{axis}' in '{shown}'; {word} runs over {listing}, or without an axis over the "
            f"{axes[0]}.{suggest(axis, axes[1:])}"
        )
    source = ast.unparse(call.args[0]) if word == "overlap" else _source_of(call.args[0], shown)
    return Reduced(name, word, source, axis)


def _source_of(node: ast.expr, shown: str) -> str:
    """The text of an argument as it was written."""
    right = shown.partition("=")[2].strip()
    return _one_line(ast.get_source_segment(right, node) or ast.unparse(node))


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
        _check_brackets(statement, where)
        begin = _START.match(statement)
        left, colon, unit = statement.partition(":")
        if begin is None or not colon or not unit.strip():
            raise CircuitError(f"{where}: cannot read '{statement}'; {_WANTED} (unit 1 for a number).")
        if "=" in begin[0]:
            check_expression(left[begin.end() :], left.strip(), where)


def _check_brackets(statement: str, where: str) -> None:
    if statement.count("(") != statement.count(")"):
        what = "never closed" if statement.count("(") > statement.count(")") else "never opened"
        raise CircuitError(f"{where}: cannot read '{statement}': a bracket is {what}.")


def check_name(name: str, where: str) -> None:
    """Refuse a name that Brian2 or neurosim reserves (functions, constants, units, i, j, t, dt, w, ...)."""
    cure = "Rename the variable."
    if not name.isascii():
        raise CircuitError(f"{where}: the name '{name}' holds letters other than a to z and A to Z. {cure}")
    if name in _TAKEN:
        raise CircuitError(f"{where}: the name '{name}' is one that Brian2 uses itself. {cure}")
    if name in KEPT:
        raise CircuitError(f"{where}: '{name}' is a word of the equations ({', '.join(KEPT)}). {cure}")
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
    if twice := re.search(r"Duplicate definition of variable '(\w+)'", text):
        return f"two lines define '{twice[1]}'; rename one."
    about_a_name = "specification" not in text and any(word in text for word in ("reserved", "unit", "as a variable"))
    return f"{text} Rename the variable." if about_a_name else text
