"""Values as people write them: 20 ms, -70 mV, 0.03/ms."""

from __future__ import annotations

import ast
import re
from typing import Any

import numpy as np
from brian2.core.namespace import DEFAULT_UNITS
from brian2.units.fundamentalunits import DIMENSIONLESS, Dimension, Quantity

from neurosim.describe.document import Maths
from neurosim.equations import quantity

#: Up to this many values are listed.
LISTED = 4

Powers = dict[str, float]

#: A number with units.
_WRITTEN = re.compile(
    r"\s*[-+]?[\d.]+(?:[eE][-+]?\d+)?\s*((?:[*/]\s*[a-zA-Z]\w*\s*(?:\*\*\s*-?[\d.]+\s*)?)+)",
)


def value(given: Any) -> Maths:
    """A parameter's value: a number, an array, a Brian2 quantity, or a text such as ``"20*ms"``, whose unit is kept."""
    number, dimension = quantity(given)
    return in_unit(number, written_unit(given) or best_unit(number, dimension))


def of_number(number: float | np.ndarray, dimension: Dimension) -> Maths:
    """A number, or an array of numbers, in base SI units."""
    return in_unit(number, best_unit(number, dimension))


def in_unit(number: float | np.ndarray, text: str) -> Maths:
    """A number, or an array of numbers, in base SI units, written in the unit given as Brian2 writes it."""
    return _with_unit([float(x) for x in np.ravel(number) / size(text)], _powers(text))


def bare(number: float, text: str) -> Maths:
    """As `in_unit`, without the unit, which stands once behind several numbers."""
    return of_number(float(number) / size(text), DIMENSIONLESS)


def size(text: str) -> float:
    """A unit in base SI units: 1e-12 of ``pamp``."""
    return float(quantity(f"1*{text}")[0])


def best_unit(number: float | np.ndarray, dimension: Dimension) -> str:
    """The unit, with its prefix, that fits numbers in base SI units, as Brian2 writes it."""
    if dimension is DIMENSIONLESS:
        return "1"
    with_dimension: Any = Quantity(np.ravel(number), dim=dimension)
    return repr(with_dimension.get_best_unit()).lstrip("1. *").replace("^", "**")


def written_unit(given: Any) -> str:
    """The unit of a text such as ``"20*ms"`` or ``"0.03/ms"``; empty where it is no number with a unit."""
    match = _WRITTEN.fullmatch(given) if isinstance(given, str) else None
    return f"1{match[1]}" if match else ""


def unit(text: str) -> Maths:
    """A unit, given as Brian2 writes it (``siemens/second``); 1 where there is none."""
    powers = _powers(text)
    plain = _plain(powers)
    return Maths(f"1{plain}" if plain.startswith("/") or not plain else plain, (_latex(powers) or "1",))


def number_latex(number: float | str) -> str:
    """A number in maths: 1e-08 becomes 10^{-8}."""
    text = number if isinstance(number, str) else plain_number(number)
    mantissa, exponent, power = text.partition("e")
    if not exponent:
        return text
    times = {"1": "", "-1": "-"}.get(mantissa, rf"{mantissa} \times ")
    return f"{times}10^{{{int(power)}}}"


def plain_number(number: float) -> str:
    """A number to six digits."""
    return f"{number:.6g}"


def _with_unit(numbers: list[float], powers: Powers) -> Maths:
    plain, latex = _numbers(numbers)
    unit_plain, unit_latex = _plain(powers), _latex(powers)
    gap = "" if unit_plain.startswith("/") or not unit_plain else " "
    return Maths(f"{plain}{gap}{unit_plain}", (latex + (rf" \thinspace {unit_latex}" if unit_latex else ""),))


def _numbers(numbers: list[float]) -> tuple[str, str]:
    different = dict.fromkeys(numbers)
    if len(different) == 1:
        return plain_number(numbers[0]), number_latex(numbers[0])
    if len(numbers) <= LISTED:
        return (
            "(" + ", ".join(map(plain_number, numbers)) + ")",
            "(" + ", ".join(map(number_latex, numbers)) + ")",
        )
    low, high = min(numbers), max(numbers)
    count = f"{len(numbers)} values"
    return (
        f"{plain_number(low)} to {plain_number(high)} ({count})",
        rf"{number_latex(low)} \ldots {number_latex(high)} \text{{ ({count})}}",
    )


def _powers(text: str) -> Powers:
    """The units of a product, quotient or power of units, with their powers."""

    def walk(node: ast.expr, power: float, into: Powers) -> None:
        match node:
            case ast.BinOp(left, ast.Mult() | ast.Div() as op, right):
                walk(left, power, into)
                walk(right, power if isinstance(op, ast.Mult) else -power, into)
            case ast.BinOp(base, ast.Pow(), exponent):
                walk(base, power * float(ast.literal_eval(exponent)), into)
            case ast.Name(name):
                into[_symbol(name)] = into.get(_symbol(name), 0) + power
            case ast.Constant(1):
                pass
            case _:
                raise ValueError(ast.unparse(node))

    found: Powers = {}
    walk(ast.parse(text.strip() or "1", mode="eval").body, 1, found)
    return {name: power for name, power in found.items() if power}


def _symbol(name: str) -> str:
    """``msecond`` -> ``ms``, ``uamp`` -> ``µA``, ``kohm`` -> ``kΩ``."""
    symbol = str(DEFAULT_UNITS[name].dispname) if name in DEFAULT_UNITS else name
    if symbol.startswith("u") and len(symbol) > 1:
        symbol = "µ" + symbol[1:]
    return symbol.removesuffix("ohm") + "Ω" if symbol.endswith("ohm") else symbol


def _plain(powers: Powers) -> str:
    def text(name: str, power: float) -> str:
        return name if power == 1 else f"{name}^{power:g}"

    above = " ".join(text(n, p) for n, p in powers.items() if p > 0)
    below = [(n, -p) for n, p in powers.items() if p < 0]
    return above + "".join(f"/{text(n, p)}" for n, p in below)


def _latex(powers: Powers) -> str:
    parts = []
    for name, power in powers.items():
        symbol = {"µ": r"\mu"}.get(name[0], "") if name else ""
        letters = name[1:] if symbol else name
        ohm = letters.endswith("Ω")
        letters = letters.removesuffix("Ω")
        text = symbol + (rf"\mathrm{{{letters}}}" if letters else "") + (r"\Omega" if ohm else "")
        parts.append(text if power == 1 else f"{text}^{{{power:g}}}")
    return r" \thinspace ".join(parts)
