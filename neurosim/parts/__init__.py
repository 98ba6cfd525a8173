"""Cells to build circuits from: each function returns a `neurosim.Cell`, and wrappers turn one cell into another.

* `pyramidal`: soma, basal and apical compartments; output cell with a teaching current
* `interneurons`: SST type (soma and dendrite, taught by a partner), PV type (divisive normalisation of a population)
* `spiking`: three-compartment cell with BAC firing, leaky integrate-and-fire cell, conductance synapses
* `electrodes`: current steps and synaptic currents at given times
* `diffusion`: volume transmission from few release sites to the cells of a line or a sheet
* `dynamics`: prospective coding and white noise, for any rate cell
* `transfer`: transfer functions by name
"""

from neurosim.parts.diffusion import diffusion_kernel, release_sites
from neurosim.parts.dynamics import noisy, prospective
from neurosim.parts.electrodes import current_step, epsc
from neurosim.parts.interneurons import divisive_normalisation, sst_interneuron
from neurosim.parts.pyramidal import CONDUCTANCES, low_pass_input, output_pyramidal, pyramidal
from neurosim.parts.spiking import bac_pyramidal, conductance_synapse, lif
from neurosim.parts.transfer import TRANSFER, transfer

__all__ = [
    "CONDUCTANCES",
    "TRANSFER",
    "bac_pyramidal",
    "conductance_synapse",
    "current_step",
    "diffusion_kernel",
    "divisive_normalisation",
    "epsc",
    "lif",
    "low_pass_input",
    "noisy",
    "output_pyramidal",
    "prospective",
    "pyramidal",
    "release_sites",
    "sst_interneuron",
    "transfer",
]
