"""Expressions as Python source that NumPy and torch run alike, and as text that Brian2 compiles."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from brian2.core.functions import DEFAULT_CONSTANTS, DEFAULT_FUNCTIONS
from brian2.parsing.rendering import NumpyNodeRenderer

from neurosim.equations.functions import NUMPY_FUNCTIONS, RENDERED

#: Numbers and words of an expression; in `1.e3` the letter belongs to the number.
_TOKEN = re.compile(r"(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?\w*|(?P<name>[^\W\d]\w*)")
#: Functions that give a whole number; `brian2_source` writes them so.
_WHOLE = {name: f"ns_{name}" for name in ("int", "floor", "ceil")}
_WORDS = {"and", "or", "not", "True", "False", *DEFAULT_CONSTANTS, *_WHOLE.values()}
CONSTANTS = {"inf": math.inf, "pi": math.pi, "e": math.e}


def names_in(expression: str) -> set[str]:
    """Names in an expression, functions and Brian2's constants (`inf`, `pi`, `e`) left out."""
    words = {match["name"] for match in _TOKEN.finditer(expression) if match["name"]}
    return words - set(DEFAULT_FUNCTIONS) - _WORDS


def substitute(expression: str, replacements: Mapping[str, str]) -> str:
    """Replace whole names by (bracketed) text."""
    if not replacements:
        return expression
    return _TOKEN.sub(lambda match: replacements.get(match[0], match[0]), expression)


def brian2_source(expression: str) -> str:
    """The expression for Brian2's code, without integers: on its paths ``2**(-1)`` is 0.

    Whole numbers become floats. Brian2 cuts ``int``, ``floor`` and ``ceil`` of a number to 32 bits; here they are
    ``ns_int``, ``ns_floor`` and ``ns_ceil``, which `neurosim.backends.brian2.network` defines.
    """
    tree = ast.fix_missing_locations(_WithoutIntegers().visit(ast.parse(expression.strip(), mode="eval")))
    return ast.unparse(tree)


class _Floats(ast.NodeTransformer):
    """Whole numbers as floats."""

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        return ast.Constant(float(node.value)) if type(node.value) is int else node


class _WithoutIntegers(_Floats):
    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if not isinstance(node.func, ast.Name) or node.func.id not in _WHOLE or len(node.args) != 1:
            return node
        x = node.args[0]
        if isinstance(x, ast.Compare | ast.BoolOp) or (isinstance(x, ast.UnaryOp) and isinstance(x.op, ast.Not)):
            return ast.BinOp(ast.Constant(1.0), ast.Mult(), node)
        return ast.Call(ast.Name(_WHOLE[node.func.id], ast.Load()), [x], [])


def python_source(expression: str) -> str:
    """Brian2 expression -> Python source over a function namespace (``exp``, ``clip``, ``logical_and``, ...).

    ``1/(1 + exp(-x))`` becomes ``ns_logistic(x)`` and ``clip(x, 0, inf) + exp(clip(x, -inf, 0)) - 1`` ``ns_elu(x)``: one fused call in
    place of several.
    """
    source = NumpyNodeRenderer().render_expr(expression)
    tree = ast.fix_missing_locations(_Fused().visit(ast.parse(source, mode="eval")))
    return ast.unparse(tree)


class _Fused(_Floats):
    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        match node:
            case ast.BinOp(
                ast.Constant(1 | 1.0),
                ast.Div(),
                ast.BinOp(ast.Constant(1 | 1.0), ast.Add(), ast.Call(ast.Name("exp"), [argument])),
            ) | ast.BinOp(
                ast.Constant(1 | 1.0),
                ast.Div(),
                ast.BinOp(ast.Call(ast.Name("exp"), [argument]), ast.Add(), ast.Constant(1 | 1.0)),
            ):
                return ast.Call(ast.Name("ns_logistic", ast.Load()), [_negated(argument)], [])
            case ast.BinOp(
                ast.BinOp(
                    ast.Call(ast.Name("clip"), [above, ast.Constant(0), ast.Name("inf")]),
                    ast.Add(),
                    ast.Call(
                        ast.Name("exp"),
                        [
                            ast.Call(
                                ast.Name("clip"), [below, ast.UnaryOp(ast.USub(), ast.Name("inf")), ast.Constant(0)]
                            )
                        ],
                    ),
                ),
                ast.Sub(),
                ast.Constant(1 | 1.0),
            ) if ast.dump(above) == ast.dump(below):
                return ast.Call(ast.Name("ns_elu", ast.Load()), [above], [])
        return node


def _negated(node: ast.expr) -> ast.expr:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return node.operand
    if (
        isinstance(node, ast.BinOp)
        and isinstance(node.op, (ast.Mult, ast.Div))
        and isinstance(node.left, ast.UnaryOp)
        and isinstance(node.left.op, ast.USub)
    ):
        return ast.BinOp(node.left.operand, node.op, node.right)
    return ast.UnaryOp(ast.USub(), node)


def compile_block(
    assignments: Iterable[tuple[str, str]], functions: Mapping[str, Any], constants: Mapping[str, Any]
) -> Callable[[dict[str, Any]], None]:
    """Compile ``name = expression`` lines into one function of a dict of arrays, which it reads and writes.

    `functions` is the engine's namespace (NumPy's or torch's), `constants` holds parameters (numbers or arrays).
    """
    lines: list[str] = []
    local: set[str] = set()
    for name, expression in assignments:
        for needed in sorted(names_in(expression) - local - set(constants) - set(functions)):
            lines.append(f"    {needed} = ns_values['{needed}']")
            local.add(needed)
        lines.append(f"    ns_values['{name}'] = {name} = {python_source(expression)}")
        local.add(name)
    source = "def ns_block(ns_values):\n" + ("\n".join(lines) or "    pass")
    namespace: dict[str, Any] = {**CONSTANTS, **functions, **constants}
    exec(compile(source, "<equations>", "exec"), namespace)
    block = namespace["ns_block"]
    block.source = source
    return block


def is_noise(name: str) -> bool:
    """Whether a name stands for white noise: ``xi``, ``xi_name``; a plan's carry the prefix ``ns_``."""
    name = name.removeprefix("ns_")
    return name == "xi" or name.startswith("xi_")


def evaluate(expression: str, values: Mapping[str, Any]) -> Any:
    """What an expression of numbers (or arrays) is, such as the coefficient of a rule's term."""
    namespace = {"__builtins__": {}, **CONSTANTS, **NUMPY_FUNCTIONS, **RENDERED}
    numbers = {name: np.asarray(value, dtype=float)[()] for name, value in values.items()}
    with np.errstate(all="ignore"):
        return eval(python_source(expression), namespace, numbers)
