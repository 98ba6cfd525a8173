"""Units, by Brian2: values given as text, and the dimension of an expression. All numbers are base SI."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from brian2.core.functions import DEFAULT_CONSTANTS, DEFAULT_FUNCTIONS
from brian2.core.namespace import DEFAULT_UNITS
from brian2.core.variables import Variable
from brian2.parsing.expressions import is_boolean_expression, parse_expression_dimensions
from brian2.units.fundamentalunits import (
    DIMENSIONLESS,
    Dimension,
    DimensionMismatchError,
    Quantity,
    get_dimensions,
    get_unit,
)

from neurosim.equations.bounds import bounded, shortened
from neurosim.errors import CircuitError, suggest

Value = float | np.ndarray
#: Units of electricity, which shorten products.
_NAMED = ("volt", "siemens", "farad", "ohm", "amp", "coulomb")
#: What the text of a value is made of, beside numbers.
_ARITHMETIC = (
    ast.BinOp, ast.UnaryOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow, ast.UAdd, ast.USub, ast.Name, ast.Load,
)  # fmt: skip
#: Names of the SI's base units, in the order of Brian2's dimensions.
_SI = ("metre", "kilogram", "second", "amp", "kelvin", "mole", "candle")


def quantity(value: Any) -> tuple[Value, Dimension]:
    """``(number in base SI, dimension)`` of a number, an array, a Brian2 quantity or a text like ``"10*ms"``."""
    if isinstance(value, str):
        try:
            tree = bounded(value, "A value")
        except SyntaxError as error:
            raise CircuitError(
                f"Cannot read the value '{shortened(value)}': write a number with units, such as '10*ms'."
            ) from error
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and node.id not in DEFAULT_UNITS:
                raise CircuitError(f"'{node.id}' in the value '{value}' is no unit.{_nearest_unit(node.id)}")
            number = isinstance(node, ast.Constant) and type(node.value) in (int, float)
            if not number and not isinstance(node, _ARITHMETIC):
                raise CircuitError(f"The value '{value}' may only hold numbers, units and arithmetic.")
        try:
            code = compile(ast.Expression(tree), "<value>", "eval")
            computed = eval(code, {"__builtins__": {}}, dict(DEFAULT_UNITS))
        except (DimensionMismatchError, ArithmeticError, TypeError, RecursionError) as error:
            raise CircuitError(f"The value '{value}' cannot be computed: {error}") from error
        value = computed
    try:
        dimension = get_dimensions(value)
        array = np.asarray(value, dtype=float)
    except (TypeError, ValueError) as error:
        raise CircuitError(f"Got {value!r}; wanted a number, or a text with units such as '10*ms'.") from error
    if not np.isfinite(array).all():
        raise CircuitError(f"The value {value!r} is not finite.")
    return (float(array) if array.ndim == 0 else np.array(array)), dimension


def _nearest_unit(name: str) -> str:
    """A hint; of an SI prefix before a symbol that Brian2 knows by its word only (``pS``), that word."""
    prefixes, words = "YZEPTGMkhdacmunpfazy", {"S": "siemens", "F": "farad", "A": "amp", "V": "volt", "s": "second"}
    word = name[:1] + words.get(name[1:], "")
    if name[:1] in prefixes and len(word) > 1 and word in DEFAULT_UNITS:
        return f" Did you mean '{word}'?"
    return suggest(name, DEFAULT_UNITS)


def amount(value: Any, wanted: Dimension, where: str) -> Any:
    """Base SI number (or array) of a text with units or a Brian2 quantity of the wanted dimension; bare numbers stay as they are.

    Raises
    ------
    CircuitError
        A text that is no value with units, or another dimension; `where` opens the message.
    """
    if not isinstance(value, str) and get_dimensions(value) is DIMENSIONLESS:
        return value
    try:
        number, got = quantity(value)
    except CircuitError as error:
        raise CircuitError(f"{where}: {error}") from error
    if got is not wanted:
        cure = "" if wanted is DIMENSIONLESS else " A bare number is taken in base SI units."
        raise CircuitError(f"{where} = {value!r} has the unit {unit_text(got)}; wanted {unit_text(wanted)}.{cure}")
    return number


def seconds(value: Any) -> float:
    """A time in seconds, from a text like ``"60*ms"`` or a Brian2 quantity."""
    number, dimension = quantity(value)
    if unit_text(dimension) != "s" or not isinstance(number, float) or math.isnan(number):
        raise CircuitError(f"Got the time {value!r}; wanted one with units of time, such as '60*ms'.")
    return number


def unit_text(dimension: Dimension) -> str:
    """The base unit of a dimension as text, ``1`` where there is none."""
    return unit_string(dimension).replace("second", "s")


def unit_string(dimension: Dimension) -> str:
    """The base unit in the form that Brian2's equations read back: a name, or a product of powers, for they know no brackets."""
    name = "1" if dimension is DIMENSIONLESS else repr(get_unit(dimension))
    if name == "1" or (
        name.isalpha() and name != "katal"
    ):  # volt, hertz; not volt2, nor what Neo's package of units does not know
        return name
    products = [[(u, p) for u, p in zip(_SI, dimension._dims, strict=True) if p]]
    for unit, power in ((unit, power) for power in (1, -1, 2, -2) for unit in _NAMED):
        rest = (dimension / DEFAULT_UNITS[unit].dim ** power)._dims
        products.append([(unit, power), *((u, p) for u, p in zip(_SI, rest, strict=True) if p)])
    shortest = sorted(min(products, key=len), key=lambda factor: factor[1] < 0)
    return "*".join(unit if power == 1 else f"{unit}**{power:g}" for unit, power in shortest)


def dimensions_of(expression: str, known: Mapping[str, Dimension], where: str) -> Dimension:
    """Dimension of an expression whose names have the given dimensions.

    Raises
    ------
    CircuitError
        The units do not fit, with `where` in the message.
    """
    variables: dict[str, Any] = {name: Variable(name, dimensions=dim) for name, dim in known.items()}
    variables.update(DEFAULT_FUNCTIONS)
    variables.update(DEFAULT_CONSTANTS)
    try:
        return parse_expression_dimensions(expression, variables)
    except DimensionMismatchError as error:
        raise CircuitError(f"{where}: units do not fit in '{expression}': {error}") from error
    except (KeyError, SyntaxError, ValueError, TypeError, NotImplementedError) as error:
        raise CircuitError(f"{where}: cannot read '{expression}': {error}") from error


def is_condition(expression: str, known: Mapping[str, Dimension]) -> bool:
    """Whether an expression of the known names is true or false, such as ``u > theta``."""
    variables: dict[str, Any] = {name: Variable(name, dimensions=dim) for name, dim in known.items()}
    return bool(is_boolean_expression(expression, {**variables, **DEFAULT_FUNCTIONS, **DEFAULT_CONSTANTS}))


__all__ = [
    "Dimension",
    "Quantity",
    "amount",
    "dimensions_of",
    "is_condition",
    "quantity",
    "seconds",
    "unit_string",
    "unit_text",
]
