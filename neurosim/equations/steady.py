"""Steady states of a cell's compartments, by SymPy: known ("cut") values in, fixed point of the linear rest out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import sympy
from brian2.parsing.sympytools import str_to_sympy, sympy_to_str

from neurosim.equations.render import names_in


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


def _nonlinear(
    ode: Mapping[str, str], subexpressions: Mapping[str, str], numbers: Mapping[str, float]
) -> set[str]:
    """Subexpressions that are not affine in the states once the earlier cuts are known."""
    states = [_symbol(x) for x in ode]
    cut: set[str] = set()
    inlined: dict[sympy.Symbol, sympy.Expr] = {}
    values = {_symbol(n): sympy.Float(v) for n, v in numbers.items()}
    for name, text in subexpressions.items():
        expression = str_to_sympy(text).xreplace(inlined).xreplace(values)
        if any(sympy.diff(expression, a).free_symbols & set(states) or _opaque(expression, a) for a in states):
            cut.add(name)
        else:
            inlined[_symbol(name)] = expression
    return cut


def _opaque(expression: sympy.Expr, state: sympy.Symbol) -> bool:
    """A function that SymPy does not differentiate (clip, int, ...) holds the state."""
    return any(state in f.free_symbols for f in expression.atoms(sympy.core.function.AppliedUndef, sympy.Function)) or any(
        state in p.free_symbols for p in expression.atoms(sympy.Piecewise, sympy.core.relational.Relational)
    )


def solve_steady(
    ode: Mapping[str, str], subexpressions: Mapping[str, str], sent: Iterable[str], numbers: Mapping[str, float]
) -> tuple[dict[str, str], set[str]]:
    """Fixed point of a cell in one phase.

    Parameters
    ----------
    ode
        ``{state: right-hand side}``.
    subexpressions
        In the order of their dependence.
    sent
        Subexpressions that a projection or a pool reads; they count as known, as does every one that is not affine in the
        states.
    numbers
        The phase's shared values.

    Returns
    -------
    solution
        ``{state: text}`` in known names; for a state without linear leak, its fixed-point form ``x = x + rhs`` does not
        exist and `ValueError` is raised.
    held
        States whose right-hand side is identically 0 in this phase.
    """
    cut = _nonlinear(ode, subexpressions, numbers) | (set(sent) & set(subexpressions))
    rhs = _inline(ode, subexpressions, cut, numbers)
    held = {x for x, expression in rhs.items() if sympy.simplify(expression) == 0}
    moving = [_symbol(x) for x in ode if x not in held]
    if not moving:
        return {}, held
    # What multiplies a state must be free of states, or the rest is not linear: cut those products too.
    equations = [rhs[str(x)] for x in moving]
    matrix = sympy.Matrix([[sympy.diff(eq, x) for x in moving] for eq in equations])
    if matrix.free_symbols & set(moving) or any(_opaque(eq, x) for eq in equations for x in moving):
        raise ValueError(
            "its equations are not linear in the states once its rates are known; write the non-linear part as a "
            "subexpression of its own, such as 'r = ... : 1'"
        )
    if matrix.det() == 0:
        raise ValueError("its equations have no unique steady state (a state without leak)")
    solution = next(iter(sympy.linsolve(equations, moving)))
    return {str(x): sympy_to_str(sympy.nsimplify(e, rational=False)) for x, e in zip(moving, solution, strict=True)}, held


def linear_rates(
    ode: Mapping[str, str], subexpressions: Mapping[str, str], numbers: Mapping[str, float]
) -> np.ndarray:
    """Eigenvalues (1/s) of the linear part of a cell, rates held fixed; empty when it is not constant.

    Explicit Euler is stable for the cell alone while ``|1 + dt*eigenvalue| <= 1``.
    """
    if not ode:
        return np.empty(0)
    cut = _nonlinear(ode, subexpressions, numbers)
    rhs = _inline(ode, subexpressions, cut, numbers)
    matrix = sympy.Matrix([[sympy.diff(rhs[x], _symbol(y)) for y in ode] for x in ode])
    if matrix.free_symbols or matrix.atoms(sympy.Function):
        return np.empty(0)
    return np.linalg.eigvals(np.array(matrix.tolist(), dtype=float))


def uses(expression: str, names: Iterable[str]) -> bool:
    """Whether an expression holds one of the names."""
    return bool(names_in(expression) & set(names))
