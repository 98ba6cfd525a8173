"""Relations with the time: ``t >= 4.9*ms`` begins in the step that lies at 4.9 ms, not one later by round-off."""

from __future__ import annotations

import ast
from collections.abc import Collection, Mapping

import sympy
from brian2.parsing.sympytools import str_to_sympy, sympy_to_str
from brian2.units.fundamentalunits import Dimension

from neurosim.equations.render import names_in
from neurosim.equations.units import dimensions_of, quantity

#: The clocks that an equation may read: since the run began, since the trial began, since the phase began.
TIMES = ("t", "t_trial", "t_phase")
#: Share of a step within which two times count as equal.
MARGIN = "dt/1000.0"


def timed_names(texts: Mapping[str, str]) -> set[str]:
    """The clocks, and the names of the expressions that follow from them."""
    found: set[str] = set(TIMES)
    while more := {name for name, text in texts.items() if names_in(text) & found} - found:
        found |= more
    return found


def with_margins(text: str, texts: Mapping[str, str], timed: Collection[str], known: Mapping[str, Dimension]) -> str:
    """Relations that contain the time, with a margin: times that differ by dt/1000 or less are equal.

    ``a >= b`` and ``a < b`` are tested against b - dt/1000, ``a > b`` and ``a <= b`` against b + dt/1000,
    ``a == b`` against both. Where both sides are c times a time (``t/tau > 3``), the margin is too.

    Parameters
    ----------
    text
        The expression.
    texts
        Subexpressions of the cell, by name.
    timed
        Names that follow from the time, see `timed_names`.
    known
        Units of all names.
    """
    if not names_in(text) & set(timed):
        return text
    tree = ast.fix_missing_locations(_Margins(texts, timed, known).visit(ast.parse(text, mode="eval")))
    return ast.unparse(tree)


class _Margins(ast.NodeTransformer):
    def __init__(self, texts: Mapping[str, str], timed: Collection[str], known: Mapping[str, Dimension]):
        self.texts, self.timed, self.known = texts, set(timed), known

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        if len(node.ops) != 1 or not names_in(ast.unparse(node)) & self.timed:
            return node
        left, right, relation = node.left, node.comparators[0], node.ops[0]
        margin = self._margin(left, right)
        if margin is None:
            return node
        below, above = ast.BinOp(right, ast.Sub(), margin), ast.BinOp(right, ast.Add(), margin)
        if isinstance(relation, ast.GtE | ast.Lt):
            return ast.Compare(left, [relation], [below])
        if isinstance(relation, ast.Gt | ast.LtE):
            return ast.Compare(left, [relation], [above])
        equal = ast.BoolOp(
            ast.And(), [ast.Compare(left, [ast.GtE()], [below]), ast.Compare(left, [ast.LtE()], [above])]
        )
        return equal if isinstance(relation, ast.Eq) else ast.UnaryOp(ast.Not(), equal)

    def _margin(self, left: ast.expr, right: ast.expr) -> ast.expr | None:
        """The margin in the unit of both sides; None where they do not run as the time does."""
        if dimensions_of(ast.unparse(left), self.known, "a relation") is quantity("1*second")[1]:
            return ast.parse(MARGIN, mode="eval").body
        difference = str_to_sympy(f"({ast.unparse(left)}) - ({ast.unparse(right)})")
        inlined = {sympy.Symbol(n, real=True): str_to_sympy(self.texts[n]) for n in self.timed & set(self.texts)}
        for _ in inlined:
            difference = difference.xreplace(inlined)
        clocks = {s for s in difference.free_symbols if str(s) in TIMES}
        slopes = [sympy.diff(difference, clock) for clock in clocks]
        if any(slope.has(sympy.Derivative, sympy.Subs) or slope.free_symbols & clocks for slope in slopes):
            return None
        slope = next((slope for slope in slopes if slope != 0), None)
        if slope is None:
            return None
        return ast.parse(f"{MARGIN}*abs({sympy_to_str(slope)})", mode="eval").body
