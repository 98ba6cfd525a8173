"""Steady states of a cell's compartments, by SymPy: known ("cut") values in, fixed point of the linear rest out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import sympy
from brian2.parsing.sympytools import str_to_sympy, sympy_to_str

from neurosim.equations.render import substitute

#: Larger systems of equations are solved by elimination: their closed form would fill pages, and take minutes.
MOST_OPERATIONS = 24
NO_SOLUTION = "its equations have no unique steady state (a state without leak)"


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
        affine = not any(_opaque(expression, x) or sympy.diff(expression, x).free_symbols & states for x in inside)
        if (inside and affine) or not expression.free_symbols:
            inlined[_symbol(name)] = expression
        else:
            cut.add(name)
    return cut


def _nonlinear(subexpressions: Mapping[str, str], numbers: Mapping[str, float]) -> set[str]:
    """Subexpressions that are not affine in what they read (once the earlier ones are known)."""
    cut: set[str] = set()
    inlined: dict[sympy.Symbol, sympy.Expr] = {}
    values = {_symbol(n): sympy.Float(v) for n, v in numbers.items()}
    for name, text in subexpressions.items():
        expression = str_to_sympy(text).xreplace(inlined).xreplace(values)
        if any(_opaque(expression, x) or sympy.diff(expression, x).free_symbols for x in expression.free_symbols):
            cut.add(name)
        else:
            inlined[_symbol(name)] = expression
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
    key = _items(ode), _items(subexpressions), frozenset(sent), _items(numbers)
    solution, held = _solve(*key)
    return dict(solution), set(held)


Items = tuple[tuple[str, Any], ...]


def _items(mapping: Mapping[str, Any]) -> Items:
    return tuple(mapping.items())


@lru_cache(512)  # SymPy takes tens of milliseconds, and the layers of a circuit share their cells
def _solve(
    ode_items: Items, subexpression_items: Items, sent: frozenset[str], number_items: Items
) -> tuple[dict[str, str], set[str]]:
    ode, subexpressions, numbers = dict(ode_items), dict(subexpression_items), dict(number_items)
    cut = _known(ode, subexpressions, numbers) | (set(sent) & set(subexpressions))
    rhs = _inline(ode, subexpressions, cut, numbers)
    held = {x for x, expression in rhs.items() if sympy.expand(expression) == 0}
    moving = [_symbol(x) for x in ode if x not in held]
    if not moving:
        return {}, held
    equations = [rhs[str(x)] for x in moving]
    opaque = any(_opaque(eq, x) for eq in equations for x in moving)
    matrix = sympy.Matrix([] if opaque else [[sympy.diff(eq, x) for x in moving] for eq in equations])
    if opaque or matrix.free_symbols & set(moving):
        raise ValueError(
            "its equations are not linear in the states once its rates are known; write the non-linear part as a "
            "subexpression of its own, such as 'r = ... : 1'"
        )
    if len(moving) > 2 and sum(eq.count_ops() for eq in equations) > MOST_OPERATIONS:
        return _eliminate(matrix, equations, moving), held
    if matrix.det() == 0:
        raise ValueError(NO_SOLUTION)
    solution = list(next(iter(sympy.linsolve(equations, moving))).args)
    return {str(x): sympy_to_str(e) for x, e in zip(moving, solution, strict=True)}, held


def _eliminate(
    matrix: Any, equations: list[sympy.Expr], moving: list[sympy.Symbol]
) -> dict[str, str]:  # fmt: skip
    """The solution of many compartments, by Gaussian elimination with names for the entries of the matrix.

    Compartments with the fewest neighbours are eliminated first: along a dendritic tree nothing fills in, and the
    texts stay short where a closed form grows without bound.
    """
    n = len(moving)
    texts: dict[str, str] = {}

    def named(entry: Any) -> Any:
        if entry.is_Number or entry.is_Symbol:
            return entry
        name = f"ns_entry_{len(texts)}"
        texts[name] = f"({sympy_to_str(entry)})"
        return _symbol(name)

    origin = dict.fromkeys(moving, sympy.Integer(0))
    a = [[named(matrix[i, j]) for j in range(n)] for i in range(n)]
    b = [named(sympy.Mul(-1, eq.xreplace(origin))) for eq in equations]  # type: ignore[arg-type]
    _check_rank(matrix)
    left, solved = set(range(n)), []
    while left:

        def neighbours(k: int) -> int:
            return sum(a[k][j] != 0 for j in left) + sum(a[i][k] != 0 for i in left) + (n * n if a[k][k] == 0 else 0)

        k = min(left, key=neighbours)
        if a[k][k] == 0:  # an equation that does not hold its own state: exchange it for one that does
            other = next((i for i in left if a[i][k] != 0), None)
            if other is None:
                raise ValueError(NO_SOLUTION)
            a[k], a[other], b[k], b[other] = a[other], a[k], b[other], b[k]
        left.remove(k)
        solved.append((k, tuple(left)))
        for i in left:
            if a[i][k] != 0:
                ratio = a[i][k] / a[k][k]
                for j in left:
                    a[i][j] = a[i][j] - ratio * a[k][j]
                b[i] = b[i] - ratio * b[k]
    values: dict[int, sympy.Expr] = {}
    for k, later in reversed(solved):
        values[k] = (b[k] - sympy.Add(*(a[k][j] * values[j] for j in later))) / a[k][k]
    return {str(x): substitute(sympy_to_str(values[k]), texts) for k, x in enumerate(moving)}


def _check_rank(matrix: Any) -> None:
    """Raise where the equations determine no state, at numbers taken at random."""
    rng = np.random.default_rng(0)
    symbols = sorted(matrix.free_symbols, key=str)
    functions = [{"clip": np.clip, "int": np.trunc, "int_": np.trunc}, "numpy"]
    entries = sympy.lambdify(symbols, list(matrix), functions)(*rng.uniform(0.5, 1.5, len(symbols)))
    numbers = np.array(entries, dtype=float).reshape(matrix.shape)
    if np.linalg.matrix_rank(numbers) < len(numbers):
        raise ValueError(NO_SOLUTION)


def linear_terms(
    ode: Mapping[str, str], subexpressions: Mapping[str, str], sent: Iterable[str], numbers: Mapping[str, float]
) -> dict[str, list[tuple[str, float]]]:
    """Right-hand sides as sums ``coefficient * term`` with numbers as coefficients.

    A term is a text in ports, states, parameters that are arrays, and subexpressions that are sent or not affine; the constant's is ``"1"``.
    """
    cut = _nonlinear(subexpressions, numbers) | (set(sent) & set(subexpressions))
    terms: dict[str, list[tuple[str, float]]] = {}
    for x, rhs in _inline(ode, subexpressions, cut, numbers).items():
        parts = sympy.expand(rhs).as_coefficients_dict()
        terms[x] = [(sympy_to_str(term), float(coefficient)) for term, coefficient in parts.items() if coefficient != 0]
    return terms


def affine_right_hand_sides(ode: Mapping[str, str], subexpressions: Mapping[str, str]) -> dict[str, sympy.Expr]:
    """Right-hand sides with the subexpressions put in that are affine in the states; others stay as names."""
    return dict(_affine(_items(ode), _items(subexpressions)))


@lru_cache(512)
def _affine(ode_items: Items, subexpression_items: Items) -> tuple[tuple[str, sympy.Expr], ...]:
    ode, subexpressions = dict(ode_items), dict(subexpression_items)
    return tuple(_inline(ode, subexpressions, _known(ode, subexpressions, {}), {}).items())


def is_linear(
    ode: Mapping[str, str], subexpressions: Mapping[str, str], numbers: Mapping[str, float], constants: Collection[str]
) -> bool:
    """Whether a cell is linear in its states, with coefficients that are `numbers` or follow from `constants` alone."""
    return _is_linear(_items(ode), _items(subexpressions), _items(numbers), frozenset(constants))


@lru_cache(512)
def _is_linear(
    ode_items: Items, subexpression_items: Items, number_items: Items, constants: frozenset[str]
) -> bool:  # fmt: skip
    ode, subexpressions, numbers = dict(ode_items), dict(subexpression_items), dict(number_items)
    states = {_symbol(x) for x in ode}
    known = _known(ode, subexpressions, numbers)
    follows = set(states)  # states, and the subexpressions that stay as names and follow from states
    for name, text in subexpressions.items():
        if (name in known and str_to_sympy(text).free_symbols & follows) or str_to_sympy(text).free_symbols & (
            follows - states
        ):
            follows.add(_symbol(name))
    for rhs in _inline(ode, subexpressions, known, numbers).values():
        if rhs.free_symbols & (follows - states) or any(_opaque(rhs, x) for x in states & rhs.free_symbols):
            return False
        slopes = set().union(*(sympy.diff(rhs, x).free_symbols for x in states))
        if {str(s) for s in slopes} - constants:
            return False
    return True


def linear_rates(
    ode: Mapping[str, str], subexpressions: Mapping[str, str], numbers: Mapping[str, float | np.ndarray]
) -> np.ndarray:
    """Eigenvalues (1/s) of the linear part of a cell, rates held fixed; empty when it is not constant.

    `numbers` may hold one value per cell; the eigenvalues are then those of every cell.
    Explicit Euler is stable for the cell alone while ``|1 + dt*eigenvalue| <= 1``.
    """
    if not ode:
        return np.empty(0)
    scalars = {n: v for n, v in numbers.items() if not isinstance(v, np.ndarray)}
    arrays = {n: v for n, v in numbers.items() if isinstance(v, np.ndarray)}
    matrix = _linear_part(_items(ode), _items(subexpressions), _items(scalars))
    if {s.name for s in matrix.free_symbols} - set(arrays):  # type: ignore[attr-defined]
        return np.empty(0)
    entries = sympy.lambdify([_symbol(n) for n in arrays], matrix.flat(), "numpy")(*arrays.values())
    stacked = np.stack(np.broadcast_arrays(*(np.asarray(e, dtype=float) for e in entries)), axis=-1)
    return np.linalg.eigvals(stacked.reshape(-1, len(ode), len(ode))).ravel().astype(complex)


@lru_cache(512)
def _linear_part(ode_items: Items, subexpression_items: Items, scalar_items: Items) -> sympy.Matrix:
    """Jacobian of what is linear in the states, rates held fixed."""
    ode, subexpressions, scalars = dict(ode_items), dict(subexpression_items), dict(scalar_items)
    rhs = _inline(ode, subexpressions, _known(ode, subexpressions, scalars), scalars)
    states = [_symbol(x) for x in ode]
    linear = [
        sympy.Add(*(a for a in sympy.Add.make_args(sympy.expand(rhs[x])) if not any(_opaque(a, s) for s in states)))
        for x in ode
    ]
    return sympy.Matrix([[sympy.diff(f, s) for s in states] for f in linear])
