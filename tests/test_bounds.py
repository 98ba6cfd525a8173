"""Texts that would take minutes or all memory to compute are refused at once, by name; what is large and legal works."""

from __future__ import annotations

import math
import time

import pytest
from circuits import alone, cell

from neurosim.equations import quantity
from neurosim.errors import CircuitError

#: Numbers that no float holds, or that would be computed digit by digit, and texts that no parser survives.
ENDLESS = (
    "9**9**9", "2**(-99999)", "1e400", "-1e400", "10**400", "9" * 3000, "(2**3)**2**12", "9**9**9/9**9**9", "2**2**2**2**2**2",
    "1+" * 2000 + "1", "-" * 3000 + "1", "(" * 300 + "1" + ")" * 300, "1/0", "0**(-1)", "(-1)**0.5", "1%0", "2*" * 30_000 + "2",
)  # fmt: skip


def refused_at_once(build) -> str:
    begun = time.process_time()
    with pytest.raises(CircuitError) as error:
        build()
    assert time.process_time() - begun < 2
    assert len(str(error.value)) < 500  # the message does not repeat a text of 60,000 letters
    return str(error.value)


@pytest.mark.parametrize(
    "text", [*ENDLESS, "1<<10**12", "1 if 1 else 2", "'a'*10**12", "ms**1000", "10*ms**ms", "[1]*10**12"]
)
def test_values(text):
    """With a unit and without."""
    refused_at_once(lambda: quantity(text))
    refused_at_once(lambda: quantity(f"({text})*ms"))


@pytest.mark.parametrize("text", [*ENDLESS, "u**9**9", "(u + 1)**100000"])
@pytest.mark.parametrize("where", ["state", "subexpression", "pool", "threshold", "reset", "rule"])
def test_equations(text, where):
    """In every place of a cell, and in a rule's text."""
    parts: dict = {"tau": "10*ms"}
    lines = "du/dt = -u/tau : 1; r = u : 1"
    if where == "state":
        lines = f"du/dt = -u*({text})/tau : 1; r = u : 1"
    elif where == "subexpression":
        lines += f"; a = u*({text}) : 1"
    elif where == "pool":
        lines += f"; p = pool(u*({text})) : 1"
    elif where == "threshold":
        parts |= {"threshold": f"u > {text}", "reset": "u = 0"}
    elif where == "reset":
        parts |= {"threshold": "u > 1", "reset": f"u = {text}"}
    else:
        from neurosim.equations import parse_rule

        refused_at_once(lambda: parse_rule(f"dw/dt = eta*u_pre*({text.replace('u', 'u_post')})", "Rule 'rule'"))
        return
    refused_at_once(lambda: alone(cell(lines, **parts), 2, "1*ms"))


def test_large_and_legal():
    """A sum of ninety terms, forty brackets, large and small numbers."""
    assert quantity("10**300")[0] == 1e300
    assert quantity("1e-300*volt")[0] == 1e-300
    assert quantity("2**40*ms")[0] == pytest.approx(2.0**40 / 1000)
    assert quantity("1+" * 89 + "1")[0] == 90
    assert quantity("(" * 40 + "7" + ")" * 40)[0] == 7
    assert math.isclose(quantity("(2*ms)**3/ms**2")[0], 8e-3)
    alone(cell("du/dt = (-u + " + "+".join(["u*k"] * 80) + ")/tau : 1; r = u : 1", tau="10*ms", k=0.001), 2, "1*ms")
    alone(cell("du/dt = (-u + u**4*10**12 + 2**40)/tau : 1; r = u : 1", tau="10*ms"), 2, "1*ms")
