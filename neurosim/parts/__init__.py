"""Cells to build circuits from: each function returns a `neurosim.Cell`, and wrappers turn one cell into another.

* `pyramidal`: soma, basal and apical compartments; output cell with a teaching current
* `interneurons`: SST type (soma and dendrite, taught by a partner), PV type (divisive normalisation of a population),
  tonic inhibition, a gate that closes where a class is certain
* `microcircuit`: pyramidal cells and SST interneurons of one form, their rules and self-predicting state
* `correlation`: interneurons that learn the inverse correlation of rates, or bound their sum
* `ghosts`: ghost units that predict a feedback, or follow and hold it
* `spiking`: three-compartment cell with BAC firing, leaky integrate-and-fire cell, conductance synapses
* `electrodes`: current steps and synaptic currents at given times
* `diffusion`: volume transmission from few release sites to the cells of a line or a sheet
* `credit`: a top-down network that sends each cell a credit, release sites, a messenger that diffuses
* `maps`: stacks of levels of maps: shapes, convolutions, biases, fan-in uniform starts
* `dynamics`: prospective coding and white noise, for any rate cell
* `similarity`: dot product or cosine of a cell's rate and its apical copy of a partner's, and their gradients
* `transfer`: transfer functions and their slopes by name, softmax
"""

from neurosim.parts.correlation import (
    InverseCorrelation,
    contrastive_prediction,
    correlation_measures,
    inverse_correlation,
    layerwise,
    sum_bound,
)
from neurosim.parts.credit import (
    MESSENGER,
    STILL,
    Release,
    all_sent_back,
    credit_network,
    evolved_sites,
    release,
    sent_back,
)
from neurosim.parts.diffusion import KERNELS, LATTICES, diffusion_kernel, release_sites
from neurosim.parts.dynamics import noisy, prospective
from neurosim.parts.electrodes import current_step, epsc
from neurosim.parts.ghosts import CENTRED, ghost_unit, tracking_ghost
from neurosim.parts.interneurons import certainty_gate, divisive_normalisation, sst_interneuron, tonic_inhibition
from neurosim.parts.maps import (
    DOUBLED,
    POOLED,
    STRIDED,
    affine,
    bias,
    cells_of,
    fan_in_uniform,
    level_shapes,
    square_maps,
)
from neurosim.parts.microcircuit import (
    basal_share,
    error_share,
    microcircuit_cells,
    predicts_soma,
    self_predicting_factor,
    self_predicting_net,
    silences_apical,
)
from neurosim.parts.pyramidal import CONDUCTANCES, TEACHING, low_pass_input, output_pyramidal, pyramidal
from neurosim.parts.similarity import APART, COSINE, COSINE_VALUES, DOT_PRODUCT
from neurosim.parts.spiking import bac_pyramidal, conductance_synapse, lif
from neurosim.parts.transfer import SLOPES, SOFTMAX, TRANSFER, slope, transfer

__all__ = [
    "APART",
    "CENTRED",
    "CONDUCTANCES",
    "COSINE",
    "COSINE_VALUES",
    "DOT_PRODUCT",
    "DOUBLED",
    "KERNELS",
    "LATTICES",
    "MESSENGER",
    "POOLED",
    "SLOPES",
    "SOFTMAX",
    "STILL",
    "STRIDED",
    "TEACHING",
    "TRANSFER",
    "InverseCorrelation",
    "Release",
    "affine",
    "all_sent_back",
    "bac_pyramidal",
    "basal_share",
    "bias",
    "cells_of",
    "certainty_gate",
    "conductance_synapse",
    "contrastive_prediction",
    "correlation_measures",
    "credit_network",
    "current_step",
    "diffusion_kernel",
    "divisive_normalisation",
    "epsc",
    "error_share",
    "evolved_sites",
    "fan_in_uniform",
    "ghost_unit",
    "inverse_correlation",
    "layerwise",
    "level_shapes",
    "lif",
    "low_pass_input",
    "microcircuit_cells",
    "noisy",
    "output_pyramidal",
    "predicts_soma",
    "prospective",
    "pyramidal",
    "release",
    "release_sites",
    "self_predicting_factor",
    "self_predicting_net",
    "sent_back",
    "silences_apical",
    "slope",
    "square_maps",
    "sst_interneuron",
    "sum_bound",
    "tonic_inhibition",
    "tracking_ghost",
    "transfer",
]
