"""Measures that training reports of a circuit beside its accuracy, and the base of one's own."""

from neurosim.description.measures import Angle, Measure, Ratio, Reads, Silent, SmallestEigenvalue

__all__ = ["Angle", "Measure", "Ratio", "Reads", "Silent", "SmallestEigenvalue"]
