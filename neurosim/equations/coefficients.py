"""Give names to what multiplies a state in an equation, so that compartments are solved for in short texts."""

from __future__ import annotations

import ast
from collections.abc import Collection, Mapping

from neurosim.equations.render import names_in

#: How the names begin.
PREFIX = "ns_part_"


def name_coefficients(states: Mapping[str, str], moving: Collection[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Right-hand sides with names for their largest non-linear parts that follow from no state.

    In ``dv/dt = (g**2/(1 + g**2)*(E - v) + ...)/tau`` that is ``g**2/(1 + g**2)``: written out, it stands in
    every term of the compartments' steady state, which for four of them takes minutes to find.

    Parameters
    ----------
    states
        ``{state: right-hand side}``; those of a cell with one state are left as they are.
    moving
        Names of the states and of all that follows from them.

    Returns
    -------
    states, parts
        The new right-hand sides, and ``{name: expression}``.
    """
    parts: dict[str, str] = {}
    if len(states) < 2:
        return dict(states), parts
    namer = _Namer(set(moving), parts)
    found = {
        x: ast.unparse(ast.fix_missing_locations(namer.visit(ast.parse(text, mode="eval"))))
        for x, text in states.items()
    }
    return (found, {name: text for text, name in parts.items()}) if parts else (dict(states), {})


class _Namer(ast.NodeTransformer):
    def __init__(self, moving: set[str], parts: dict[str, str]):
        self.moving, self.parts = moving, parts  # names by expression

    def visit(self, node: ast.AST) -> ast.AST:
        if not isinstance(node, ast.BinOp | ast.Call):
            return self.generic_visit(node)
        text = ast.unparse(node)
        names = names_in(text)
        if not names or names & self.moving:
            return self.generic_visit(node)
        nonlinear = any(
            isinstance(n, ast.Call) or (isinstance(n, ast.BinOp) and isinstance(n.op, ast.Div | ast.Pow))
            for n in ast.walk(node)
        )
        if not nonlinear:
            return node
        return ast.Name(self.parts.setdefault(text, f"{PREFIX}{len(self.parts)}"), ast.Load())
