"""Equations typeset: Brian2 text -> SymPy, unevaluated so that the order of writing stays -> LaTeX."""

from __future__ import annotations

import ast
import re
from functools import cache
from typing import Any

import sympy
from brian2.core.functions import DEFAULT_CONSTANTS, DEFAULT_FUNCTIONS
from sympy.printing.latex import LatexPrinter

from neurosim.describe.document import Maths
from neurosim.describe.quantities import number_latex

#: Names that are Greek letters, as alternatives of a pattern.
GREEK = (
    "alpha|beta|gamma|delta|epsilon|zeta|eta|theta|iota|kappa|lambda|mu|nu|xi|pi|rho|sigma|tau|upsilon|phi|chi|psi|omega|"
    "Gamma|Delta|Theta|Lambda|Xi|Pi|Sigma|Upsilon|Phi|Psi|Omega"
)
ACCENTS = {"hat": r"\hat", "bar": r"\bar", "tilde": r"\tilde"}
#: Between factors; names of several letters would run together without it.
TIMES = r" \thinspace "

_LOGIC: dict[type, Any] = {
    ast.Gt: sympy.StrictGreaterThan, ast.GtE: sympy.GreaterThan, ast.Lt: sympy.StrictLessThan, ast.LtE: sympy.LessThan,
    ast.Eq: sympy.Eq, ast.NotEq: sympy.Ne, ast.Not: sympy.Not, ast.And: sympy.And, ast.Or: sympy.Or,
}  # fmt: skip


def expression(text: str) -> sympy.Basic:
    """Brian2 text as SymPy, nothing evaluated or sorted: ``.doit()`` gives what Brian2 makes of it."""
    return _node(ast.parse(text.strip(), mode="eval").body)


def _node(node: ast.expr) -> Any:
    match node:
        case ast.Name(name):
            return DEFAULT_CONSTANTS[name].sympy_obj if name in DEFAULT_CONSTANTS else _symbol(name)
        case ast.Constant(bool() as value):
            return sympy.true if value else sympy.false
        case ast.Constant(int() as value):
            return sympy.Integer(value)
        case ast.Constant(float() as value):
            return sympy.Float(value)
        case ast.UnaryOp(ast.USub(), operand):
            return _negative(_node(operand))
        case ast.UnaryOp(ast.Not(), operand):
            return _LOGIC[ast.Not](_node(operand), evaluate=False)
        case ast.UnaryOp(ast.UAdd(), operand):
            return _node(operand)
        case ast.BinOp(_, ast.Add() | ast.Sub(), _):
            return sympy.Add(*_terms(node), evaluate=False)
        case ast.BinOp(_, ast.Mult() | ast.Div(), _):
            factors = [f for f in _factors(node) if f != 1]
            return sympy.Mul(*factors, evaluate=False) if len(factors) > 1 else (factors or [sympy.Integer(1)])[0]
        case ast.BinOp(base, ast.Pow(), exponent):
            return sympy.Pow(_node(base), _node(exponent), evaluate=False)
        case ast.BinOp(left, ast.Mod(), right):
            return sympy.Mod(_node(left), _node(right), evaluate=False)
        case ast.BinOp(left, ast.FloorDiv(), right):
            return sympy.floor(sympy.Mul(_node(left), _inverse(_node(right)), evaluate=False), evaluate=False)
        case ast.BoolOp(operator, operands):
            return _LOGIC[type(operator)](*map(_node, operands), evaluate=False)
        case ast.Compare(left, [operator], [right]):
            return _LOGIC[type(operator)](_node(left), _node(right), evaluate=False)
        case ast.Call(ast.Name(name), arguments):
            return _function(name, [_node(a) for a in arguments])
    raise ValueError(f"cannot typeset '{ast.unparse(node)}'")


def _symbol(name: str) -> sympy.Symbol:
    """As Brian2 makes them: real, and the time positive."""
    return sympy.Symbol(name, real=True, positive=True) if name in ("t", "dt") else sympy.Symbol(name, real=True)


def _terms(node: ast.expr) -> list[Any]:
    match node:
        case ast.BinOp(left, ast.Add() | ast.Sub() as operator, right):
            last = _node(right)
            return [*_terms(left), _negative(last) if isinstance(operator, ast.Sub) else last]
    return [_node(node)]


def _factors(node: ast.expr) -> list[Any]:
    match node:
        case ast.BinOp(left, ast.Mult() | ast.Div() as operator, right):
            last = _node(right)
            return [*_factors(left), _inverse(last) if isinstance(operator, ast.Div) else last]
        case ast.UnaryOp(ast.USub(), operand):
            return [sympy.Integer(-1), *_factors(operand)]
    return [_node(node)]


def _negative(value: Any) -> Any:
    if value.is_Number:
        return -value
    factors = value.args if isinstance(value, sympy.Mul) else (value,)
    return sympy.Mul(sympy.Integer(-1), *factors, evaluate=False)


def _inverse(value: Any) -> Any:
    return sympy.Pow(value, sympy.Integer(-1), evaluate=False)


def _function(name: str, arguments: list[Any]) -> Any:
    if name == "sqrt":
        return sympy.Pow(arguments[0], sympy.Rational(1, 2), evaluate=False)
    known: Any = getattr(DEFAULT_FUNCTIONS.get(name), "sympy_func", None)
    if isinstance(known, sympy.FunctionClass):
        return known(*arguments, evaluate=False)
    return sympy.Function("int_" if name == "int" else name)(*arguments)


# ---------------------------------------------------------------- LaTeX


@cache
def symbol_latex(name: str) -> str:
    """``tau_m`` -> ``\\tau_{m}``, ``E_free_post`` -> ``E_{\\mathrm{free}}^{\\mathrm{post}}``, ``r_hat`` -> ``\\hat{r}``."""
    if name == "dt":
        return r"\Delta t"
    side = next((s for s in ("pre", "post") if name.endswith(f"_{s}")), "")
    words = [w for w in (name.removesuffix(f"_{side}") if side else name).split("_") if w]
    base, indices = _word(words[0] if words else name), words[1:]
    if indices and indices[-1] in ACCENTS:
        base = f"{ACCENTS[indices.pop()]}{{{base}}}"
    index = ", ".join(map(_word, indices))
    return base + (f"_{{{index}}}" if index else "") + (rf"^{{\mathrm{{{side}}}}}" if side else "")


def _word(word: str) -> str:
    greek = re.fullmatch(rf"({GREEK})(\d*)", word)
    if greek:
        return f"\\{greek[1]}" + (f"_{{{greek[2]}}}" if greek[2] else "")
    return word if len(word) == 1 or word.isdigit() else rf"\mathrm{{{word}}}"


class _Printer(LatexPrinter):
    """SymPy's printer with this field's habits; no backslash before punctuation, which Markdown would take for its own."""

    def __init__(self) -> None:
        super().__init__({"order": "none", "mul_symbol": TIMES})
        self._settings["mul_symbol_latex_numbers"] = r" \cdot "

    def _print_Symbol(self, expr: sympy.Symbol, style: str = "plain") -> str:
        latex = symbol_latex(expr.name)
        # A power of a symbol that has an upper index already.
        return f"{{{latex}}}" if "^" in latex else latex

    def _print_Float(self, expr: sympy.Float) -> str:
        return number_latex(f"{float(expr):.12g}")

    def parenthesize(self, item: Any, level: int, is_neg: bool = False, strict: bool = False) -> str:
        text = super().parenthesize(item, level, is_neg, strict)
        # 1.5 \times 10^{-8} is a product, though SymPy has it as one number.
        return self._add_parens(text) if item.is_Float and "^" in text and "(" not in text else text

    def _print_Pow(self, expr: sympy.Pow) -> str:
        # Without SymPy's braces around a base such as 0.5, which hide from it that a number stands before a number.
        return re.sub(r"^\{([\d.]+)\}", r"\1", super()._print_Pow(expr))

    def _print_Function(self, expr: Any, exp: Any = None) -> str:
        text = self._call(type(expr).__name__, expr.args)
        return text if exp is None else rf"\left( {text} \right)^{{{exp}}}"

    def _print_ExpBase(self, expr: Any, exp: Any = None) -> str:
        return self._print_Function(expr, exp)

    _print_log = _print_Abs = _print_sign = _print_Function

    def _call(self, name: str, arguments: tuple[Any, ...]) -> str:
        inside = [self._print(a) for a in arguments]
        match name:
            case "int_":
                return rf"\left[ {inside[0]} \right]"
            case "clip" if arguments[1] == 0 and arguments[2] == sympy.oo:
                return rf"\max \left( {inside[0]}, 0 \right)"
            case "clip" if arguments[1] == -sympy.oo and arguments[2] == 0:
                return rf"\min \left( {inside[0]}, 0 \right)"
            case "Abs":
                return rf"\left\lvert {inside[0]} \right\rvert"
            case "log1p":
                return rf"\ln \left( 1 + {inside[0]} \right)"
        known = {"exp": r"\exp", "log": r"\ln", "sin": r"\sin", "cos": r"\cos", "tan": r"\tan", "tanh": r"\tanh", "sinh": r"\sinh",
                 "cosh": r"\cosh"}  # fmt: skip
        function = known.get(name, rf"\mathrm{{{name.replace('_', ' ').strip()}}}")
        return rf"{function} \left( {', '.join(inside)} \right)"


_print = _Printer().doprint


def latex(text: str) -> str:
    """Brian2 text as LaTeX, on one line."""
    return _print(expression(text))


def formula(text: str) -> Maths:
    """Brian2 text, plain and as LaTeX."""
    return Maths(text, tuple(_split(expression(text))))


def symbol(name: str) -> Maths:
    """A name of the equations."""
    return Maths(name, (symbol_latex(name),))


def equation(left: str, text: str) -> Maths:
    """``left = text`` of a subexpression."""
    first, *rest = _split(expression(text))
    return Maths(f"{left} = {text}", (f"{symbol_latex(left)} = {first}", *rest))


def ode(name: str, text: str) -> Maths:
    """``dname/dt = text``; typeset with the divisor of the whole on the left, ``tau dx/dt = ...``, where it is one name."""
    factor, right = multiplied(expression(text))
    first, *rest = _split(right)
    before = f"{_print(factor)}{TIMES}" if factor != 1 else ""
    return Maths(f"d{name}/dt = {text}", (rf"{before}\frac{{d {symbol_latex(name)}}}{{d t}} = {first}", *rest))


def multiplied(right: Any) -> tuple[Any, Any]:
    """A right-hand side ``f/tau`` as (tau, f), where tau is one name and f is all the rest; else (1, right)."""
    if isinstance(right, sympy.Mul):
        last = right.args[-1]
        if isinstance(last, sympy.Pow) and last.exp == -1 and last.base.is_Symbol:
            rest = right.args[:-1]
            if not any(isinstance(f, sympy.Pow) and f.exp.is_negative for f in rest):
                return last.base, rest[0] if len(rest) == 1 else sympy.Mul(*rest, evaluate=False)
    return sympy.Integer(1), right


def _split(value: Any) -> list[str]:
    """A sum as the LaTeX of its terms, signs before them."""
    if not isinstance(value, sympy.Add):
        return [_print(value)]
    parts = [_print(term) for term in value.args]
    signed = [p if p.startswith("-") else f"+ {p}" for p in parts[1:]]
    return [parts[0], *signed]
