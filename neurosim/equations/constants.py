"""What the constants of an equation may be: time constants and capacities above 0, conductances and noise not below it.

Which constant is what follows from the equation, not from a name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
import sympy
from brian2.parsing.sympytools import str_to_sympy
from brian2.units.fundamentalunits import Dimension

from neurosim.equations.render import evaluate, is_noise, names_in
from neurosim.equations.steady import affine_right_hand_sides
from neurosim.equations.units import quantity
from neurosim.errors import CircuitError

VOLT, FARAD, NUMBER = quantity("1*volt")[1], quantity("1*farad")[1], quantity("1.0")[1]


def divisors(text: str, subexpressions: Mapping[str, str]) -> Iterator[tuple[sympy.Expr, sympy.Expr]]:
    """What an expression, or a term of it, is divided by, each with that term; functions are not looked into.

    Subexpressions are. The term is what the divisor divides with its divisor: in ``(-u + I/k)/tau`` all for ``tau``,
    ``I/k`` for ``k``.
    """
    whole = str_to_sympy(text)
    stack = [(whole, False, whole)]
    while stack:
        expression, below, term = stack.pop()
        if isinstance(expression, sympy.Symbol) and str(expression) in subexpressions:
            inlined = str_to_sympy(subexpressions[str(expression)])
            stack.append((inlined, below, term if below else inlined))
        elif isinstance(expression, sympy.Add) and not below:
            stack.extend((part, False, part) for part in expression.args)
        elif isinstance(expression, sympy.Mul):
            stack.extend((part, below, term) for part in expression.args)
        elif isinstance(expression, sympy.Pow) and expression.exp.is_negative:
            stack.extend((part, not below, term) for part in sympy.Mul.make_args(expression.base))
        elif below:
            yield expression, term


def check_divisors(
    what: str, text: str, values: Mapping[str, Any], where: str, least: float = 0.0,
    subexpressions: Mapping[str, str] | None = None, states: Collection[str] = (), signed: Collection[str] = (),
) -> None:  # fmt: skip
    """Refuse constants that divide a derivative and are not above `least` (0; or -inf, then 0 alone is refused).

    A term without any of `states` is a drive: a negative number that divides it, one of `signed`, only turns it.
    """
    given = subexpressions or {}
    for divisor, term in divisors(text, given):
        names = sorted(str(s) for s in divisor.free_symbols)
        if not names or not set(names) <= set(values):
            continue
        drive = set(names) <= set(signed) and not _reach(term, given) & set(states)
        found = _value(divisor, {n: values[n] for n in names})
        if np.any(found == 0) or (np.any(found < least) and not drive):
            shown = " and ".join(f"{n} = {_shown(values[n])}" for n in names)
            raise CircuitError(
                f"{where}: {shown} divides '{what} = {text}'; expected a value "
                f"{'above 0' if least == 0 and not drive else 'other than 0'}. Give another value (in base SI units: {shown})."
            )


def _reach(term: sympy.Expr, subexpressions: Mapping[str, str]) -> set[str]:
    """The names that a term follows from, also through subexpressions."""
    found: set[str] = set()
    more = {str(s) for s in term.free_symbols}
    while more:
        found |= more
        more = set().union(*(names_in(subexpressions[n]) for n in more & set(subexpressions))) - found
    return found


def check_constants(
    states: Mapping[str, str], subexpressions: Mapping[str, str], values: Mapping[str, Any],
    dimensions: Mapping[str, Dimension], where: str,
) -> None:  # fmt: skip
    """Refuse constants with which a cell does not decay to rest: see the module.

    Parameters
    ----------
    states, subexpressions
        ``{name: right-hand side}``.
    values
        Constants in base SI units: numbers, or arrays with one per cell.
    dimensions
        Their units.
    where
        Opens every message.

    Raises
    ------
    CircuitError
        Zero or negative values of what divides a derivative; negative conductances (g in
        ``dx/dt = ... + g*(E - x)``), capacities and noise amplitudes.
    """
    for name, value in values.items():
        if dimensions.get(name) is FARAD and np.any(np.asarray(value) < 0):
            raise CircuitError(f"{where}: the capacitance {name} = {_shown(value)} F; expected a value above 0.")
    signed = {n for n in values if dimensions.get(n) is NUMBER}
    for name, text in states.items():
        check_divisors(f"d{name}/dt", text, values, where, 0.0, subexpressions, states, signed)
        _check_noise(name, text, subexpressions, values, where)
    negative = {n: v for n, v in values.items() if np.any(np.asarray(v) < 0) and dimensions.get(n) is not VOLT}
    if not negative:
        return
    for name, rhs in affine_right_hand_sides(states, subexpressions).items():
        state = sympy.Symbol(name, real=True)
        terms = [term for term in sympy.Add.make_args(sympy.expand(rhs)) if state in term.free_symbols]
        rests = [term / state for term in terms]
        if any(state in rest.free_symbols for rest in rests):
            continue  # not linear in the state: nothing says what is a conductance
        for rest in rests:
            number, factors = rest.as_coeff_mul()
            constants = {str(f): values[str(f)] for f in factors if f.is_Symbol and str(f) in values}
            guilty = [n for n in constants if n in negative]
            if number < 0 and guilty and np.any(np.prod(np.broadcast_arrays(*constants.values()), axis=0) < 0):
                raise CircuitError(
                    f"{where}: {guilty[0]} = {_shown(values[guilty[0]])} in 'd{name}/dt = {states[name]}' draws "
                    f"'{name}' away from rest; expected a conductance of at least 0 (0 switches it off)."
                )


def _check_noise(
    name: str, text: str, subexpressions: Mapping[str, str], values: Mapping[str, Any], where: str
) -> None:  # fmt: skip
    rhs, text = str_to_sympy(text), text.replace("ns_xi", "xi")
    inlined = {sympy.Symbol(n, real=True): str_to_sympy(t) for n, t in subexpressions.items()}
    for noise in (s for s in rhs.free_symbols if is_noise(str(s))):
        strength: Any = sympy.diff(rhs, noise)
        for _ in inlined:
            strength = strength.xreplace(inlined)
        for factor in sympy.Mul.make_args(strength):
            if factor.is_Symbol and np.any(np.asarray(values.get(str(factor), 0.0)) < 0):
                raise CircuitError(
                    f"{where}: the noise amplitude {factor} = {_shown(values[str(factor)])} in 'd{name}/dt = {text}'; "
                    "expected at least 0 (0 switches the noise off)."
                )
        names = {str(s) for s in strength.free_symbols}
        if names and names <= set(values) and np.any(np.isnan(_value(strength, {n: values[n] for n in names}))):
            raise CircuitError(
                f"{where}: the strength of the noise in 'd{name}/dt = {text}' is not a number with "
                f"{' and '.join(f'{n} = {_shown(values[n])}' for n in sorted(names))}. Give other values."
            )


def _value(expression: sympy.Expr, values: Mapping[str, Any]) -> np.ndarray:
    from brian2.parsing.sympytools import sympy_to_str

    with np.errstate(all="ignore"):
        return np.asarray(evaluate(sympy_to_str(expression), values))


def _shown(value: Any) -> str:
    """A number, or the smallest of an array."""
    return f"{float(np.min(value)):g}"
