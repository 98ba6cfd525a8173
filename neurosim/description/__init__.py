"""The description of a circuit: plain data without an engine."""

from neurosim.description.batch_rule import BatchRule
from neurosim.description.cell import ONE, SOURCE, Cell
from neurosim.description.citation import Citation
from neurosim.description.connectivity import Connectivity, Conv2d, Dense, OneToOne, PerMap
from neurosim.description.fragment import Fragment
from neurosim.description.loops import Loop, answering
from neurosim.description.measures import Angle, Measure, Ratio, Reads, Silent, SmallestEigenvalue
from neurosim.description.phase import Phase, RandomSign
from neurosim.description.population import Population
from neurosim.description.projection import Projection
from neurosim.description.protocol import Protocol
from neurosim.description.readout import FeedForward, Readout
from neurosim.description.relaxation import Relaxation
from neurosim.description.rule import PlasticityRule
from neurosim.description.value import FrozenDict, Value, frozen
from neurosim.description.weights import (
    Constant,
    Given,
    Glorot,
    Gram,
    Initialiser,
    Like,
    Orthogonal,
    Tied,
    Uniform,
    Weights,
)
from neurosim.description.windows import LABELS, WINDOW_FIELDS, Windows

__all__ = [
    "LABELS",
    "ONE",
    "SOURCE",
    "WINDOW_FIELDS",
    "Angle",
    "BatchRule",
    "Cell",
    "Citation",
    "Connectivity",
    "Constant",
    "Conv2d",
    "Dense",
    "FeedForward",
    "Fragment",
    "FrozenDict",
    "Given",
    "Glorot",
    "Gram",
    "Initialiser",
    "Like",
    "Loop",
    "Measure",
    "OneToOne",
    "Orthogonal",
    "PerMap",
    "Phase",
    "PlasticityRule",
    "Population",
    "Projection",
    "Protocol",
    "RandomSign",
    "Ratio",
    "Readout",
    "Reads",
    "Relaxation",
    "Silent",
    "SmallestEigenvalue",
    "Tied",
    "Uniform",
    "Value",
    "Weights",
    "Windows",
    "answering",
    "frozen",
]
