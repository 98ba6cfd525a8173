"""Equations as text: parsing and units (Brian2's parser), steady states and separability (SymPy)."""

from neurosim.equations.parse import CellEquations, check_name, parse_cell, parse_rule
from neurosim.equations.render import compile_block, names_in, python_source, substitute
from neurosim.equations.separate import NotSeparable, Term, separate
from neurosim.equations.steady import linear_rates, solve_steady
from neurosim.equations.units import dimensions_of, quantity, seconds, unit_text

__all__ = [
    "CellEquations",
    "NotSeparable",
    "Term",
    "check_name",
    "compile_block",
    "dimensions_of",
    "linear_rates",
    "names_in",
    "parse_cell",
    "parse_rule",
    "python_source",
    "quantity",
    "seconds",
    "separate",
    "solve_steady",
    "substitute",
    "unit_text",
]
