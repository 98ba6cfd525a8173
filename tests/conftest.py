"""What the tests of the engines share: one way to run a circuit on a level, and one thread for each worker."""

from __future__ import annotations

import contextlib
import os
import resource
import tempfile

# No list of trusted files but the tests' own.
os.environ["XDG_CONFIG_HOME"] = tempfile.mkdtemp(prefix="neurosim-tests-")

# One thread, here and in the processes and notebooks that tests start: the matrices are small, and OpenMP's threads wait for one another
# in loops, for minutes where other workers keep the cores busy. It is read when torch is imported.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pytest
import torch

from neurosim import Circuit
from neurosim.backends import engine_class
from neurosim.backends.engine import Options
from neurosim.backends.result import Result
from neurosim.traces import Recorder
from neurosim.traces.recording import Recording

torch.set_num_threads(1)  # a plugin may have imported torch before


def run_circuit(
    circuit: Circuit,
    level: str,
    stimuli: dict[str, np.ndarray],
    weights: dict[str, np.ndarray] | None = None,
    *,
    dt: float = 5e-4,
    batch: int = 1,
    dtype: str = "float64",
    record: tuple[str, ...] = (),
    stride: int = 1,
    **options,
) -> Result:
    """Present `stimuli` on `level`, from the weights given (else those of seed 0)."""
    weights = circuit.initial_weights(0) if weights is None else weights
    engine = engine_class(level)(circuit.plan, weights, Options(batch=batch, dt=dt, dtype=dtype, progress=False))
    recording = Recording(Recorder(record, stride=stride), circuit.plan, batch, dt, dtype) if record else None
    result = engine.present(stimuli, record=recording, **options)
    if recording is not None:
        result.traces = recording.traces()
    return result


@pytest.fixture
def run():
    """`run_circuit` as a fixture."""
    return run_circuit


@contextlib.contextmanager
def largest_file(size: int):
    """No file of this process may grow beyond `size` bytes: writing fails in the middle, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
