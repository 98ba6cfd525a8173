"""What a training asks of its circuit and its data."""

from __future__ import annotations

import numpy as np

from neurosim.backends import STEADY
from neurosim.backends.torch.workers import Workers
from neurosim.circuit import Circuit
from neurosim.data import Dataset
from neurosim.description import Given, Readout
from neurosim.errors import NeurosimError
from neurosim.stimuli import call, check_short
from neurosim.training.config import TrainConfig
from neurosim.training.splits import Splits


def readout_of(circuit: Circuit) -> Readout:
    """The readout of a circuit that is to be trained."""
    if circuit.readout is None:
        raise NeurosimError(
            f"The circuit '{circuit.name}' names no readout, so it cannot be trained to classify. "
            "`neurosim simulate` with plasticity on (the default) lets its rules learn from the "
            "stimuli that it shows; to train, give the circuit a readout=Readout(...)."
        )
    return circuit.readout


def check_evolved(config: TrainConfig, circuit: Circuit) -> None:
    """Refuse to draw weights that are to be found by evolution."""
    given = {q.name for q in circuit.projections if isinstance(q.weights, Given)}
    if config.method == "circuit" and not set(circuit.evolved) <= given:
        names = ", ".join(circuit.evolved[:2])
        raise NeurosimError(
            f"The weights {names}, ... of '{circuit.name}' are to be found by evolution, and these "
            f"would be drawn at random. `neurosim evolve {config.model} --out DIR` finds some, for "
            "credits = DIR (tdca: --credits DIR, or bp, fa, dfa)."
        )


def check_circuit(config: TrainConfig, circuit: Circuit, classifies: bool) -> None:
    """Refuse a circuit whose training could not be followed, or has no meaning."""
    cure = f"Run it with {call(circuit)}, or clamp its inputs to these two."
    check_short(circuit, "training presents", cure)
    if not classifies and config.collapse is not None:
        raise NeurosimError(
            f"collapse = {config.collapse} watches the training accuracy, and the answer of "
            f"'{circuit.name}' is a picture, which has none. Use --set collapse=none."
        )
    if not circuit.protocol.reset:
        raise NeurosimError(
            f"The states of '{circuit.name}' outlive a trial (Protocol.reset = False), which has "
            "no meaning for shuffled samples; train needs reset = True."
        )


def check_workers(config: TrainConfig, workers: Workers) -> None:
    """Refuse several processes where a batch cannot be shared."""
    if workers.size > 1 and not config.is_settled:
        raise NeurosimError(
            f"{config.level} runs in one process: its rules move the weights in every step. "
            f"Several workers share a batch on {STEADY}, or run one training each with `neurosim "
            "sweep`."
        )
    workers.share(config.batch_size)


def check_picture(circuit: Circuit, readout: Readout, dataset: Dataset) -> None:
    """Refuse a readout that has not a cell for each pixel of its answer."""
    cells = circuit.plan.populations[readout.variable.partition(".")[0]].n
    if cells != np.prod(dataset.shape):
        raise NeurosimError(
            f"The readout '{readout.variable}' of '{circuit.name}' has {cells} cells, and the "
            f"answer is an image of {np.prod(dataset.shape)} pixels; wanted equal numbers: read "
            "another population, or set sizes to end with that number."
        )


def check_batches(config: TrainConfig, splits: Splits, workers: Workers) -> None:
    """Refuse batches that the training set does not fill, or that workers cannot share."""
    if splits.samples < config.batch_size:
        batch, samples = config.batch_size, splits.samples
        raise NeurosimError(f"batch_size = {batch} is larger than the {samples} training samples.")
    if config.last_batch == "keep" and splits.rest % workers.size:
        raise NeurosimError(
            f"last_batch = 'keep': the last batch of an epoch has {splits.rest} samples, which "
            f"{workers.size} workers cannot share; wanted a multiple. Use --set last_batch=drop, "
            "or another batch_size or number of workers."
        )
