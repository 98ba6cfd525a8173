"""Equations as text: parsing and units (Brian2's parser), steady states and separability (SymPy)."""

from neurosim.equations.coefficients import name_coefficients
from neurosim.equations.constants import check_constants, check_divisors
from neurosim.equations.functions import FUNCTIONS, NUMPY_FUNCTIONS, RENDERED
from neurosim.equations.noise import check_noise
from neurosim.equations.parse import (
    CellEquations,
    Derivative,
    Hold,
    Reduced,
    check_expression,
    check_name,
    parse_cell,
    parse_reset,
    parse_rule,
)
from neurosim.equations.reductions import REDUCTIONS, Reduction
from neurosim.equations.relations import TIMES, timed_names, with_margins
from neurosim.equations.render import (
    brian2_source,
    compile_block,
    evaluate,
    is_noise,
    names_in,
    python_source,
    substitute,
)
from neurosim.equations.separate import NotSeparable, Term, separate, shared_name
from neurosim.equations.steady import is_linear, linear_rates, linear_terms, solve_steady
from neurosim.equations.units import amount, dimensions_of, is_condition, quantity, seconds, unit_text

__all__ = [
    "FUNCTIONS",
    "NUMPY_FUNCTIONS",
    "REDUCTIONS",
    "RENDERED",
    "TIMES",
    "CellEquations",
    "Derivative",
    "Hold",
    "NotSeparable",
    "Reduced",
    "Reduction",
    "Term",
    "amount",
    "brian2_source",
    "check_constants",
    "check_divisors",
    "check_expression",
    "check_name",
    "check_noise",
    "compile_block",
    "dimensions_of",
    "evaluate",
    "is_condition",
    "is_linear",
    "is_noise",
    "linear_rates",
    "linear_terms",
    "name_coefficients",
    "names_in",
    "parse_cell",
    "parse_reset",
    "parse_rule",
    "python_source",
    "quantity",
    "seconds",
    "separate",
    "shared_name",
    "solve_steady",
    "substitute",
    "timed_names",
    "unit_text",
    "with_margins",
]
