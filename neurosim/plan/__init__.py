"""The engine-free lowering that all levels share: checks, early and late variables, ties, rule terms, phases.

Order inside a step (every level obeys it, so that they agree to round-off):

1. clamps and shared values; 2. pools of states; 3. *early* variables (what follows from states, parameters and pools:
rates); 4. drives ``I = r(t) W(t)``; 5. *late* variables (whatever a port reaches in this step: errors, rule
factors); 6. sample-and-hold; 7. recorders; 8. weights to t+dt; 9. potentials to t+dt.

Early or late is derived by reachability from the ports, never declared.
"""

from neurosim.plan.lower import lower
from neurosim.plan.phase import ONE_STEP, PhasePlan, Turn
from neurosim.plan.plan import Plan
from neurosim.plan.population import CLOCK, NEVER, Assignment, PopulationPlan, Spiking
from neurosim.plan.projection import DriveKey, ProjectionPlan, RulePlan

__all__ = [
    "CLOCK",
    "NEVER",
    "ONE_STEP",
    "Assignment",
    "DriveKey",
    "PhasePlan",
    "Plan",
    "PopulationPlan",
    "ProjectionPlan",
    "RulePlan",
    "Spiking",
    "Turn",
    "lower",
]
