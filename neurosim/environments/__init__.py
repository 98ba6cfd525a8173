"""What learners without a data set act on: landscapes to descend, and control tasks."""

from neurosim.environments.control import Acrobot, CartPole, Environment
from neurosim.environments.landscapes import LANDSCAPES, Landscape, landscape

__all__ = ["LANDSCAPES", "Acrobot", "CartPole", "Environment", "Landscape", "landscape"]
