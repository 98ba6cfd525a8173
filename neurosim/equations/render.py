"""Expressions as Python source that NumPy and torch run alike."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from brian2.core.functions import DEFAULT_CONSTANTS, DEFAULT_FUNCTIONS
from brian2.parsing.rendering import NumpyNodeRenderer
from brian2.utils.stringtools import get_identifiers

_WORDS = {"and", "or", "not", "True", "False", *DEFAULT_CONSTANTS}
#: Functions that equations know: those of Brian2 that every level has.
FUNCTIONS = (
    "abs", "arccos", "arcsin", "arctan", "ceil", "clip", "cos", "cosh", "exp", "expm1", "exprel", "floor", "int", "log", "log10", "log1p",
    "sign", "sin", "sinh", "sqrt", "tan", "tanh",
)  # fmt: skip
CONSTANTS = {"inf": math.inf, "pi": math.pi, "e": math.e}


def names_in(expression: str) -> set[str]:
    """Names in an expression, functions and Brian2's constants (`inf`, `pi`, `e`) left out."""
    return get_identifiers(expression) - set(DEFAULT_FUNCTIONS) - _WORDS


def substitute(expression: str, replacements: Mapping[str, str]) -> str:
    """Replace whole names by (bracketed) text."""
    if not replacements:
        return expression
    pattern = re.compile(r"\b(" + "|".join(map(re.escape, replacements)) + r")\b")
    return pattern.sub(lambda m: replacements[m[1]], expression)


def python_source(expression: str) -> str:
    """Brian2 expression -> Python source over a function namespace (``exp``, ``clip``, ``logical_and``, ...).

    ``1/(1 + exp(-x))`` becomes ``ns_logistic(x)`` and ``clip(x, 0, inf) + exp(clip(x, -inf, 0)) - 1`` ``ns_elu(x)``: one fused call in
    place of several.
    """
    source = NumpyNodeRenderer().render_expr(expression)
    tree = ast.fix_missing_locations(_Fused().visit(ast.parse(source, mode="eval")))
    return ast.unparse(tree)


class _Fused(ast.NodeTransformer):
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


def evaluate(expression: str, values: Mapping[str, float]) -> float:
    """The number that an expression of numbers is, such as the coefficient of a rule's term."""
    functions = {n: getattr(np, n) for n in ("exp", "log", "sqrt", "sin", "cos", "tanh", "abs", "sign", "clip")}
    return float(eval(python_source(expression), {"__builtins__": {}}, {**CONSTANTS, **functions, **values}))
