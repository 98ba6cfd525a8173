"""Steady states of a cell's compartments, by SymPy: known ("cut") values in, fixed point of the linear rest out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import sympy
from brian2.parsing.sympytools import str_to_sympy, sympy_to_str


def _symbol(name: str) -> sympy.Symbol:
    return sympy.Symbol(name, real=True)


def _inline(
    ode: Mapping[str, str], subexpressions: Mapping[str, str], cut: Iterable[str], numbers: Mapping[str, float]
) -> dict[str, sympy.Expr]:
    """Right-hand sides with all subexpressions but `cut` put in, and the phase's numbers."""
    cut = set(cut)
    values = {_symbol(n): sympy.Float(v) if v != int(v) else sympy.Integer(int(v)) for n, v in numbers.items()}
    inlined: dict[sympy.Symbol, sympy.Expr] = {}
    for name, text in subexpressions.items():
        if name not in cut:
            inlined[_symbol(name)] = str_to_sympy(text).xreplace(inlined).xreplace(values)
    return {x: str_to_sympy(text).xreplace(inlined).xreplace(values) for x, text in ode.items()}


def _known(ode: Mapping[str, str], subexpressions: Mapping[str, str], numbers: Mapping[str, float]) -> set[str]:
    """Subexpressions that count as known: not affine in the states, or free of them (once the earlier ones are known)."""
    states = {_symbol(x) for x in ode}
    cut: set[str] = set()
    inlined: dict[sympy.Symbol, sympy.Expr] = {}
    values = {_symbol(n): sympy.Float(v) for n, v in numbers.items()}
    for name, text in subexpressions.items():
        expression = str_to_sympy(text).xreplace(inlined).xreplace(values)
        inside = expression.free_symbols & states
        affine = not any(sympy.diff(expression, x).free_symbols & states or _opaque(expression, x) for x in inside)
        if (inside and affine) or sympy.simplify(expression).is_number:
            inlined[_symbol(name)] = expression
        else:
            cut.add(name)
    return cut


def _opaque(expression: sympy.Expr, state: sympy.Symbol) -> bool:
    """A function that SymPy does not differentiate (clip, int, ...) holds the state."""
    return any(
        state in f.free_symbols for f in expression.atoms(sympy.core.function.AppliedUndef, sympy.Function)
    ) or any(state in p.free_symbols for p in expression.atoms(sympy.Piecewise, sympy.core.relational.Relational))


def solve_steady(
    ode: Mapping[str, str], subexpressions: Mapping[str, str], sent: Iterable[str], numbers: Mapping[str, float]
) -> tuple[dict[str, str], set[str]]:
    """Fixed point of a cell in one phase.

    Parameters
    ----------
    ode
        ``{state: right-hand side}``.
    subexpressions
        In the order of their dependence. Known are those that are not affine in the states or free of them.
    sent
        Subexpressions that a projection reads; they count as known too.
    numbers
        Values to put in: the phase's shared values, ports that nothing feeds.

    Returns
    -------
    solution
        ``{state: text}`` in known names, ports, parameters and held states.
    held
        States whose right-hand side is identically 0 in this phase.

    Raises
    ------
    ValueError
        The states have no unique steady state, or their equations are not linear once the rates are known.
    """
    cut = _known(ode, subexpressions, numbers) | (set(sent) & set(subexpressions))
    rhs = _inline(ode, subexpressions, cut, numbers)
    held = {x for x, expression in rhs.items() if sympy.simplify(expression) == 0}
    moving = [_symbol(x) for x in ode if x not in held]
    if not moving:
        return {}, held
    equations = [rhs[str(x)] for x in moving]
    matrix = sympy.Matrix([[sympy.diff(eq, x) for x in moving] for eq in equations])
    if matrix.free_symbols & set(moving) or any(_opaque(eq, x) for eq in equations for x in moving):
        raise ValueError(
            "its equations are not linear in the states once its rates are known; write the non-linear part as a "
            "subexpression of its own, such as 'r = ... : 1'"
        )
    if matrix.det() == 0:
        raise ValueError("its equations have no unique steady state (a state without leak)")
    solution = list(next(iter(sympy.linsolve(equations, moving))).args)
    return {str(x): sympy_to_str(e) for x, e in zip(moving, solution, strict=True)}, held


def linear_rates(ode: Mapping[str, str], subexpressions: Mapping[str, str], numbers: Mapping[str, float]) -> np.ndarray:
    """Eigenvalues (1/s) of the linear part of a cell, rates held fixed; empty when it is not constant.

    Explicit Euler is stable for the cell alone while ``|1 + dt*eigenvalue| <= 1``.
    """
    if not ode:
        return np.empty(0)
    cut = _known(ode, subexpressions, numbers)
    rhs = _inline(ode, subexpressions, cut, numbers)
    matrix = sympy.Matrix([[sympy.diff(rhs[x], _symbol(y)) for y in ode] for x in ode])
    if matrix.free_symbols or matrix.atoms(sympy.Function):
        return np.empty(0)
    return np.asarray(np.linalg.eigvals(np.array(matrix.tolist(), dtype=float)), dtype=complex)
