"""Words of version 0.1 are refused, and the message says what to write now."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from neurosim import SOURCE, Cell, Circuit, Constant, Phase, PlasticityRule, Population, Projection, Protocol
from neurosim.errors import CircuitError

TEXT = "du/dt = (-u + I)/tau : 1\nI : 1 (port)"
PROTOCOL = Protocol((Phase("free", "10*ms"),))


@pytest.mark.parametrize(
    ("kind", "given", "word", "now"),
    [
        (Cell, ("c", TEXT), {"ports": ("I",)}, "'I : 1 (port)'"),
        (Cell, ("c", TEXT), {"optional_ports": ("I",)}, "'I : 1 (optional port)'"),
        (Cell, ("c", TEXT), {"inputs": ("y",)}, "'y : 1 (input)'"),
        (Cell, ("c", TEXT), {"pools": {}}, "'total = pool(r) : 1'"),
        (Cell, ("c", TEXT), {"holds": {}}, "hold(E, free)"),
        (Cell, ("c", TEXT), {"derivatives": {}}, "derivative(u)"),
        (Cell, ("c", TEXT), {"overlaps": {}}, "overlap(r)"),
        (Projection, ("B", "p", "q.I"), {"tied": "W"}, "Tied('W2', transpose=True)"),
        (PlasticityRule, ("r", "dw/dt = -w/tau"), {"exact": None}, "batch=neurosim.parts.InverseCorrelation"),
        (Circuit, ("c", [], PROTOCOL), {"populations": ()}, "[*populations, *projections]"),
        (Circuit, ("c", [], PROTOCOL), {"projections": ()}, "[*populations, *projections]"),
        (Circuit, ("c", [], PROTOCOL), {"citation": "x"}, "citations=(Citation("),
        (Circuit, ("c", [], PROTOCOL), {"evolved": ("V",)}, "Projection(..., evolved=True)"),
    ],
)
def test_an_argument(kind: Any, given: tuple[Any, ...], word: dict[str, Any], now: str):
    with pytest.raises(CircuitError) as caught:
        kind(*given, **word)
    assert f"{kind.__name__} has no argument '{next(iter(word))}': " in str(caught.value)
    assert now in str(caught.value)


@pytest.mark.parametrize(
    ("name", "now"),
    [
        ("Kernel", "Given(matrix)"),
        ("Pool", "pool(r**2)"),
        ("Hold", "hold(E, free)"),
        ("Derivative", "derivative(u)"),
        ("Overlap", "overlap(r)"),
        ("InverseCorrelation", "from neurosim.parts import InverseCorrelation"),
    ],
)
def test_a_name(name: str, now: str):
    with pytest.raises(ImportError, match=f"has no {name}: ") as caught:
        exec(f"from neurosim import {name}")
    assert now in str(caught.value)


def test_populations_and_projections_in_two_tuples():
    populations = (Population("a", 1, SOURCE), Population("b", 1, Cell("c", TEXT, {"tau": "1*ms"}, rate="u")))
    projections = (Projection("W", "a", "b.I", Constant(1)),)
    with pytest.raises(CircuitError, match=r"expected a Protocol|wanted a Protocol") as caught:
        Circuit("c", populations, projections, PROTOCOL)  # type: ignore[arg-type]
    assert "Circuit(name, [*populations, *projections], protocol)" in str(caught.value)


def test_a_line_without_a_role_names_the_roles():
    with pytest.raises(CircuitError) as caught:
        Circuit("c", [Population("p", 1, Cell("c", "du/dt = (x - u)/(1*ms) : 1\nx : 1", rate="u"))], PROTOCOL)
    for role in ("(port)", "(optional port)", "(input)", "(shared)"):
        assert role in str(caught.value)


def test_an_unknown_name_is_still_an_attribute_error():
    code = "import neurosim; print(hasattr(neurosim, 'Foo'))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
