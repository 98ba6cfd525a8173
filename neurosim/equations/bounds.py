"""Bounds of what is written: an expression that would take minutes or all memory is refused before anything reads it."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable

from neurosim.errors import CircuitError

#: Characters of an expression, brackets within brackets, operations within operations, and whole powers of a sum.
LONGEST, BRACKETS, DEEPEST, POWER = 20_000, 50, 150, 64


def bounded(text: str, where: str) -> ast.expr:
    """The tree of an expression.

    Raises
    ------
    CircuitError
        An expression that is too long or nested too deeply, or a number in it that is beyond floating point.
    SyntaxError
        A text that is no expression.
    """
    text = text.strip()
    depth = deepest = 0
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        deepest = max(deepest, depth)
    if len(text) > LONGEST or deepest > BRACKETS:
        what = f"{len(text)} characters" if len(text) > LONGEST else f"{deepest} brackets within one another"
        raise CircuitError(
            f"{where}: '{shortened(text)}' has {what}; wanted at most {LONGEST if len(text) > LONGEST else BRACKETS}. "
            "Name its parts."
        )
    try:
        tree = ast.parse(text, mode="eval").body
    except (RecursionError, MemoryError):
        raise _too_deep(text, where) from None
    except ValueError as error:  # null bytes
        raise SyntaxError(str(error)) from None
    level, below = 0, [tree]
    while below:
        level += 1
        below = [child for node in below for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)]
    if level > DEEPEST:
        raise _too_deep(text, where)
    _number(tree, text, where)
    return tree


def shortened(text: str) -> str:
    """The beginning of a long text."""
    return text if len(text) <= 80 else text[:77] + "..."


def _too_deep(text: str, where: str) -> CircuitError:
    return CircuitError(
        f"{where}: '{shortened(text)}' nests more than {DEEPEST} operations. Name its parts, as subexpressions or parameters."
    )


def _number(node: ast.AST, text: str, where: str) -> float | None:
    """What a node without names is, in floating point: as whole numbers, ``9**9**9`` would be computed digit by digit."""
    parts = [_number(child, text, where) for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)]
    if isinstance(node, ast.Constant):
        if type(node.value) not in (int, float):
            return None
        return _computed(lambda: float(node.value), node, text, where)  # type: ignore[arg-type]
    power = isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow) and parts[0] is None and parts[1]
    if power and abs(power) > POWER and float(power).is_integer():
        raise CircuitError(f"{where}: a power of {power:g} in '{shortened(text)}'; wanted at most {POWER}.")
    if not isinstance(node, ast.BinOp | ast.UnaryOp) or None in parts:
        return None
    values = [part for part in parts if part is not None]
    value = _computed(lambda: _ARITHMETIC[type(node.op)](*values), node, text, where)
    if isinstance(node.op, ast.Pow) and value == 0 and values[0] != 0:
        raise _beyond(node, text, where)
    return value


_ARITHMETIC = {
    ast.Add: lambda a, b: a + b, ast.Sub: lambda a, b: a - b, ast.Mult: lambda a, b: a * b, ast.Div: lambda a, b: a / b,
    ast.FloorDiv: lambda a, b: a // b, ast.Mod: lambda a, b: a % b, ast.Pow: lambda a, b: a**b,
    ast.UAdd: lambda a: a, ast.USub: lambda a: -a, ast.Not: lambda a: float(not a),
}  # fmt: skip


def _computed(compute: Callable[[], float], node: ast.AST, text: str, where: str) -> float | None:
    try:
        value = compute()
    except (OverflowError, ZeroDivisionError):
        raise _beyond(node, text, where) from None
    except KeyError:  # an operator that equations do not know, which others refuse
        return None
    if isinstance(value, complex) or not math.isfinite(value):
        raise _beyond(node, text, where)
    return value


def _beyond(node: ast.AST, text: str, where: str) -> CircuitError:
    return CircuitError(
        f"{where}: '{shortened(ast.unparse(node))}' in '{shortened(text)}' is no number that floating point holds. "
        "Give another value."
    )
