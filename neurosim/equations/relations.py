"""What jumps with the time: ``t >= 4.9*ms`` begins in the step that lies at 4.9 ms, not one later by round-off."""

from __future__ import annotations

import ast
from collections.abc import Collection, Mapping
from typing import Any

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
    """Relations and steps that follow from the time, with a margin: times that differ by dt/1000 or less are equal.

    ``a >= b`` and ``a < b`` are tested against b - m, ``a > b`` and ``a <= b`` against b + m, ``a == b`` against
    both. ``floor(a)`` and ``int(a)`` reach the next whole number m earlier, ``ceil(a)`` leaves it m later, ``a % b``
    is 0 from m before its end, and ``sign(a)`` is 0 within m of 0. The margin m is dt/1000 times the slope of a - b
    in time, so that ``t/tau > 3`` and ``(t/tau)**2 > 9`` begin in one step.

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
        left, right, relation = node.left, node.comparators[0], node.ops[0]
        margin = self._margin(ast.BinOp(left, ast.Sub(), right)) if len(node.ops) == 1 else None
        self.generic_visit(node)
        if margin is None:
            return node
        left, right = node.left, node.comparators[0]
        below, above = ast.BinOp(right, ast.Sub(), margin), ast.BinOp(right, ast.Add(), margin)
        if isinstance(relation, ast.GtE | ast.Lt):
            return ast.Compare(left, [relation], [below])
        if isinstance(relation, ast.Gt | ast.LtE):
            return ast.Compare(left, [relation], [above])
        equal = ast.BoolOp(
            ast.And(), [ast.Compare(left, [ast.GtE()], [below]), ast.Compare(left, [ast.LtE()], [above])]
        )
        return equal if isinstance(relation, ast.Eq) else ast.UnaryOp(ast.Not(), equal)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        jumps = name in ("floor", "ceil", "int", "sign") and len(node.args) == 1 and not self._is_relation(node.args[0])
        margin = self._margin(node.args[0]) if jumps else None
        self.generic_visit(node)
        if margin is None:
            return node
        of = node.args[0]
        sign = _call("sign", of)
        if name == "sign":
            return ast.BinOp(sign, ast.Mult(), _call("int", ast.Compare(_call("abs", of), [ast.Gt()], [margin])))
        if name == "int":
            margin = ast.BinOp(margin, ast.Mult(), sign)
        return _call(name, ast.BinOp(of, ast.Sub() if name == "ceil" else ast.Add(), margin))

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        whole = isinstance(node.op, ast.Mod | ast.FloorDiv)
        fixed = whole and not names_in(ast.unparse(node.right)) & self.timed
        margin = self._margin(node.left) if fixed else None
        self.generic_visit(node)
        if margin is None:
            return node
        moved = ast.BinOp(ast.BinOp(node.left, ast.Add(), margin), node.op, node.right)
        return moved if isinstance(node.op, ast.FloorDiv) else ast.BinOp(moved, ast.Sub(), margin)

    def _is_relation(self, node: ast.expr) -> bool:
        if isinstance(node, ast.Name) and node.id in self.texts:
            return self._is_relation(ast.parse(self.texts[node.id], mode="eval").body)
        return isinstance(node, ast.Compare | ast.BoolOp) or (
            isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)
        )

    def _margin(self, node: ast.expr) -> ast.expr | None:
        """The margin in the unit of an expression; None where it does not move with the time."""
        text = ast.unparse(node)
        if not names_in(text) & self.timed:
            return None
        if dimensions_of(text, self.known, "a relation") is quantity("1*second")[1]:
            return ast.parse(MARGIN, mode="eval").body
        moving = str_to_sympy(text)
        inlined = {sympy.Symbol(n, real=True): str_to_sympy(self.texts[n]) for n in self.timed & set(self.texts)}
        for _ in inlined:
            moving = moving.xreplace(inlined)
        clocks = {s for s in moving.free_symbols if str(s) in TIMES}
        slopes = [sympy.diff(_between_jumps(moving), clock) for clock in clocks]
        if any(slope.has(sympy.Derivative, sympy.Subs) or _may_be_infinite(slope, clocks) for slope in slopes):
            return None
        slope = next((slope for slope in slopes if slope != 0), None)
        if slope is None:
            return None
        return ast.parse(f"{MARGIN}*abs({sympy_to_str(slope)})", mode="eval").body


def _between_jumps(expression: Any) -> Any:
    """An expression with the same slope: a remainder has its dividend's, whole numbers and signs have none."""
    for name, of in (("Mod", 0), ("clip", 0), ("floor", None), ("ceiling", None), ("int", None), ("sign", None)):
        expression = expression.replace(
            lambda e, name=name: e.is_Function and e.func.__name__ == name,
            lambda e, of=of: sympy.S.Zero if of is None else e.args[of],
        )
    return expression


def _may_be_infinite(slope: sympy.Expr, clocks: set[sympy.Symbol]) -> bool:
    """Whether a slope divides by something that moves, or takes its root: at 0 the margin would be infinite."""
    return any(
        power.free_symbols & clocks
        and not (power.exp.is_integer and power.exp.is_positive)
        and power.base is not sympy.E
        for power in slope.atoms(sympy.Pow)
    )


def _call(name: str, *arguments: ast.expr) -> ast.Call:
    return ast.Call(ast.Name(name, ast.Load()), [*arguments], [])
