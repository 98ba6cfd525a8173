"""Split a plasticity rule into (coefficient) x w^k x (post factor) x (pre factor) terms, one matrix product each."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import sympy
from brian2.parsing.sympytools import str_to_sympy, sympy_to_str

from neurosim.equations.render import substitute
from neurosim.errors import CircuitError


class NotSeparable(CircuitError):
    """The rule is no sum of products of pre and post factors."""


@dataclass(frozen=True)
class Term:
    """``dw/dt += coefficient * w**w_power * post * pre``; texts in the cells' own names, without suffixes."""

    coefficient: str
    post: str
    pre: str
    w_power: int

    @property
    def decay(self) -> float | None:
        """The number k of a term ``coefficient * k * w``, which needs no product; None for other terms."""
        try:
            return float(self.post) * float(self.pre) if self.w_power else None
        except ValueError:
            return None


def separate(rhs: str, parameters: Mapping[str, float] | None = None, shared: Collection[str] = ()) -> tuple[Term, ...]:
    """Terms of a rule's right-hand side; those with one pre factor, one power of w and proportional coefficients are joined.

    Where a factor reads a number of the rule itself, as in ``(r_post - theta)*r_pre``, the cell that computes the factor gets
    it: a rule parameter as its value, a shared value of the protocol under the name ``ns_shared_NAME``. So neither is
    taken for a variable of the cell.

    Raises
    ------
    NotSeparable
        A factor mixes pre and post variables in a non-linear way, or w appears with a power above 1.
    """
    products = _products(str_to_sympy(rhs), rhs)
    own = {_symbol(n): _symbol(f"ns_rule_{n}") for n in parameters or ()} | {
        _symbol(n): _symbol(shared_name(n)) for n in shared
    }
    values = {f"ns_rule_{n}": f"({value!r})" for n, value in (parameters or {}).items()}
    merged: dict[tuple[sympy.Expr, int], list[tuple[sympy.Expr, sympy.Expr]]] = {}
    for coefficient, post, pre, power in products:
        parts = merged.setdefault((pre, power), [])
        for k, (known, total) in enumerate(parts):
            ratio = (
                coefficient / known
            )  # coefficients hold rule parameters, which a cell does not know: only numbers join
            if ratio.is_number:
                parts[k] = (known, total + ratio * post)
                break
        else:
            parts.append((coefficient, post))
    return tuple(
        Term(
            sympy_to_str(coefficient),
            substitute(sympy_to_str(_strip(post, "_post", own)), values),
            substitute(sympy_to_str(_strip(pre, "_pre", own)), values),
            power,
        )
        for (pre, power), parts in merged.items()
        for coefficient, post in parts
    )


def shared_name(name: str) -> str:
    """The name under which a cell knows a shared value that a factor of a rule reads."""
    return f"ns_shared_{name}"


Product = tuple[sympy.Expr, sympy.Expr, sympy.Expr, int]


def _symbol(name: str) -> sympy.Symbol:
    return sympy.Symbol(name, real=True)


def _side(expression: sympy.Expr) -> str:
    names = {str(s) for s in expression.free_symbols}
    sides = set()
    if any(n.endswith("_post") for n in names):
        sides.add("post")
    if any(n.endswith("_pre") for n in names):
        sides.add("pre")
    if "w" in names:
        sides.add("w")
    return sides.pop() if len(sides) == 1 else ("mixed" if sides else "shared")


def _products(expression: sympy.Expr, rhs: str) -> list[Product]:
    if isinstance(expression, sympy.Add) and _side(expression) in ("mixed", "w"):
        return [p for argument in expression.args for p in _products(argument, rhs)]
    coefficient, post, pre = sympy.Integer(1), sympy.Integer(1), sympy.Integer(1)
    power = 0
    for factor in sympy.Mul.make_args(expression):
        side = _side(factor)
        if side == "shared":
            coefficient *= factor
        elif side == "post":
            post *= factor
        elif side == "pre":
            pre *= factor
        elif side == "w" and factor.as_base_exp()[0].is_Symbol and factor.as_base_exp()[1].is_Integer:
            power += int(factor.as_base_exp()[1])
        elif isinstance(expanded := sympy.expand(factor), sympy.Add) or expanded != factor:
            rest = sympy.Mul(*(f for f in sympy.Mul.make_args(expression) if f is not factor))
            return [p for argument in sympy.Add.make_args(expanded) for p in _products(argument * rest, rhs)]
        else:
            raise NotSeparable(
                f"'{factor}' in 'dw/dt = {rhs}' mixes pre, post and weight so that it is no sum of products of a pre and "
                "a post factor."
            )
    if power not in (0, 1):
        raise NotSeparable(f"'dw/dt = {rhs}' holds w with power {power}; a term may hold w once.")
    return [(coefficient, post, pre, power)]


def _strip(expression: sympy.Expr, suffix: str, own: Mapping[sympy.Symbol, sympy.Symbol]) -> sympy.Expr:
    """A factor in the cell's own names; those of the rule itself (`own`) get others first."""
    names = {s: own.get(s, _symbol(str(s).removesuffix(suffix))) for s in expression.free_symbols}  # type: ignore[call-overload]
    return expression.xreplace(names)  # type: ignore[return-value]
