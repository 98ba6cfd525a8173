"""Equations as text: parsing and units (Brian2's parser), steady states and separability (SymPy)."""

import sys

# Brian2 puts a hook on sys.excepthook that calls every uncaught error a bug of Brian2; keep the one that was there.
_hook = sys.excepthook
import brian2 as _brian2  # noqa: E402, F401

sys.excepthook = _hook

from neurosim.equations.parse import (  # noqa: E402
    CellEquations,
    check_expression,
    check_name,
    is_noise,
    parse_cell,
    parse_reset,
    parse_rule,
)
from neurosim.equations.render import FUNCTIONS, compile_block, evaluate, names_in, python_source, substitute  # noqa: E402
from neurosim.equations.separate import NotSeparable, Term, separate  # noqa: E402
from neurosim.equations.steady import linear_rates, linear_terms, solve_steady  # noqa: E402
from neurosim.equations.units import amount, dimensions_of, is_condition, quantity, seconds, unit_text  # noqa: E402

__all__ = [
    "FUNCTIONS",
    "CellEquations",
    "NotSeparable",
    "Term",
    "amount",
    "check_expression",
    "check_name",
    "compile_block",
    "dimensions_of",
    "evaluate",
    "is_condition",
    "is_noise",
    "linear_rates",
    "linear_terms",
    "names_in",
    "parse_cell",
    "parse_reset",
    "parse_rule",
    "python_source",
    "quantity",
    "seconds",
    "separate",
    "solve_steady",
    "substitute",
    "unit_text",
]
