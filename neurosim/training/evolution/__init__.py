"""Evolution of what a lifetime does not learn: strategies, and the outer loop that runs them.

>>> evolution = evolve(fitness, PEPG(theta, population=65), generations=400, out="runs/tdca")

Strategies: `PEPG` (the published one), `CMAES` (needs ``pip install neurosim[evolution]``), `MetaGradient` (ours; needs a differentiable objective).
"""

from neurosim.training.evolution.cma import CMAES
from neurosim.training.evolution.loop import Evolution, Objective, evolve, load
from neurosim.training.evolution.meta_gradient import MetaGradient
from neurosim.training.evolution.pepg import PEPG
from neurosim.training.evolution.strategy import Strategy

__all__ = ["CMAES", "PEPG", "Evolution", "MetaGradient", "Objective", "Strategy", "evolve", "load"]
