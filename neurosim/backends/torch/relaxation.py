"""Euler steps of the published relaxations (see `neurosim.protocol.Relaxation`), with the fewest passes over the tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from neurosim.equations import names_in, python_source
from neurosim.equations.render import CONSTANTS
from neurosim.plan import ProjectionPlan

#: Of a population's variables, the step, all populations' variables, all weights.
Step = Callable[[dict[str, Any], float, dict[str, dict[str, Any]], dict[str, Any]], None]


def euler_step(
    terms: Mapping[str, list[tuple[str, float]]], functions: Mapping[str, Any], constants: Mapping[str, Any],
    fused: Mapping[str, ProjectionPlan],
) -> Step:  # fmt: skip
    """Compile ``x <- x + h*sum coefficient*term`` of all states into one function.

    The ports in `fused` are no values: the product with their projection's weights is added as it is formed. All right-hand sides are
    read before a state is stored. New tensors are made, none is changed that others may hold.
    """
    names = {n for x, parts in terms.items() for n in (x, *(m for term, _ in parts for m in names_in(term)))}
    names -= {*constants, *functions, *fused}
    lines = [f"    {n} = ns_values['{n}']" for n in sorted(names)]
    for x, parts in terms.items():
        own = sum(coefficient for term, coefficient in parts if term == x)
        lines.append(f"    ns_new_{x} = {x}*(1.0 + ns_h*{own!r})")
        for term, coefficient in parts:
            if term == "1":
                lines.append(f"    ns_new_{x}.add_(ns_h*{coefficient!r})")
            elif term in fused:
                q = fused[term]
                weights = f"ns_weights['{q.root}']{'.T' if q.transpose else ''}"
                rates = f"ns_state['{q.source}']['{q.variable}']"
                lines.append(f"    ns_new_{x}.addmm_({rates}, {weights}, alpha=ns_h*{coefficient * q.factor!r})")
            elif term != x:
                lines.append(f"    ns_new_{x}.add_({python_source(term)}, alpha=ns_h*{coefficient!r})")
    lines += [f"    ns_values['{x}'] = ns_new_{x}" for x in terms]
    source = "def ns_step(ns_values, ns_h, ns_state, ns_weights):\n" + ("\n".join(lines) or "    pass")
    namespace: dict[str, Any] = {**CONSTANTS, **functions, **constants}
    exec(compile(source, "<relaxation>", "exec"), namespace)
    return namespace["ns_step"]
