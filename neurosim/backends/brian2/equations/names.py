"""Names of the variables that a circuit does not have itself, and the order in a step."""

from __future__ import annotations

from neurosim.equations import Derivative, Hold, names_in
from neurosim.plan import Plan, ProjectionPlan

LEVEL = "brian2:equations"
HOLDS, RECORDERS, WEIGHTS, BOUNDS, POTENTIALS = 3000, 4000, 5000, 5500, 6000


def before(derivative: Derivative) -> str:
    """The value in the step before of the state whose derivative is taken."""
    return f"ns_before_{derivative.name}"


def held_before(hold: Hold) -> str:
    """The value that a hold had before this step."""
    return f"ns_was_{hold.name}"


def take(hold: Hold) -> str:
    """Whether a hold takes a value in this step."""
    return f"ns_take_{hold.name}"


def part(q: ProjectionPlan) -> str:
    """The share of a port that one projection fills, where several feed the port."""
    return f"ns_{q.port}_from_{q.name}"


def read_holds(plan: Plan, population: str) -> list[Hold]:
    """Holds of a population that a rule reads."""
    read: set[str] = set()
    for q in plan.projections.values():
        if q.rule is not None:
            sides = [s for s, end in (("_pre", q.source), ("_post", q.target)) if end == population]
            read |= {name for name in names_in(q.rule.rhs) if name.endswith(tuple(sides))}
    holds = plan.populations[population].holds
    return [h for h in holds if read & {f"{h.name}_pre", f"{h.name}_post"}]
