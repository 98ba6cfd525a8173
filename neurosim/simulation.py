"""Present stimuli to a circuit on a level."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from neurosim.backends import DTYPES, LEVELS, SOLVERS, STEADY, TARGETS
from neurosim.backends.settings import named_overflow, own_settings
from neurosim.checks import Array, Count, In, PositiveTime, Seed, check, checked
from neurosim.circuit import Circuit, GivenCircuit
from neurosim.description import answering
from neurosim.equations import seconds
from neurosim.errors import DivergenceError, NeurosimError
from neurosim.stimuli import stimulus_fields
from neurosim.traces import Recorder
from neurosim.traces.recording import Recording

if TYPE_CHECKING:
    from neurosim.backends.result import Result

#: Plasticity of a run: weights change, stay, or stay while the change is collected.
PLASTICITY = ("on", "off", "held")


def answering_circuit(circuit: Circuit) -> Circuit:
    """The circuit for trials whose answer alone is of interest: each sample's own label in its windows over labels."""
    phases = answering(circuit.protocol.phases)
    if phases == circuit.protocol.phases:
        return circuit
    return replace(circuit, protocol=replace(circuit.protocol, phases=phases))


def step_size(dt: str) -> float:
    """The Euler step in seconds, from a text with units; refused unless it is above 0."""
    return seconds(check("dt", dt, PositiveTime))


@checked
@own_settings()
@named_overflow()
def simulate(
    circuit: GivenCircuit,
    stimuli: Any = None,
    labels: Any = None,
    *,
    level: Annotated[str, In(LEVELS)] = "brian2:dense",
    record: Sequence[str] | Recorder = (),
    dt: PositiveTime | None = None,
    seed: Seed = 0,
    weights: Mapping[str, Array] | None = None,
    batch_size: Count = 1,
    plasticity: Annotated[str, In(PLASTICITY)] = "on",
    dtype: Annotated[str, In(DTYPES)] = "float64",
    device: str = "cpu",
    codegen: Annotated[str, In(TARGETS)] = "numpy",
    stride: Count = 1,
    solver: Annotated[str, In(SOLVERS)] = "anderson",
    progress: bool = True,
) -> Result:
    """Present stimuli to a circuit, one trial after another, and return a `Result`.

    Parameters
    ----------
    circuit
        The description.
    stimuli
        ``{field: (samples, values)}`` with the fields that the circuit clamps, numbers in base SI
        units or Brian2 quantities. Images alone, (samples, pixels), are short for the field
        ``image``. A circuit that clamps nothing takes None and runs one trial.
    labels
        Beside images, short for the field ``target``: class numbers (samples,), or targets
        (samples, classes) of any value.
    level
        ``brian2:equations``, ``brian2:dense`` (default), ``torch:trajectory`` or ``torch:steady``.
    record
        Variables to record, such as ``["pyr1.u", "pyr1.E"]``, every `stride` steps; or a `Recorder`, which chooses cells, phases and trials
        and streams to a file. On ``torch:steady`` there is one row per phase, at its end.
    dt
        Euler step, a text with units (default: the protocol's).
    seed
        Seed of the initial weights and of the cells' noise; the same on every level.
    weights
        Weights by projection in place of drawn ones.
    batch_size
        Samples presented at once; a rule's change is the mean over them.
    plasticity
        ``"on"``, ``"off"``, or ``"held"``: weights stay and `Result.collected` gathers their change.
    dtype, device
        Of the torch levels. Brian2 runs in float64.
    codegen
        Of the Brian2 levels: ``numpy`` starts at once, ``cython`` compiles first and is faster on long runs.
    solver
        Of the steady level: ``anderson`` (default), ``sweeps``, or ``relaxation``, the circuit's published scheme.

    Raises
    ------
    NeurosimError
        Bad input, an unsupported combination, or divergence (`DivergenceError`, with what was recorded).
    """
    dt = dt or circuit.protocol.dt
    if solver != "anderson" and level != STEADY:
        raise NeurosimError(
            f"solver = '{solver}' on {level}: only {STEADY} solves for a fixed point. Leave solver out, or use that level."
        )
    fields = stimulus_fields(circuit, stimuli, labels)
    samples = len(next(iter(fields.values()))) if fields else batch_size
    if samples % batch_size:
        raise NeurosimError(
            f"{samples} samples do not fill batches of {batch_size}; choose a batch size that divides the number of samples."
        )
    step = step_size(dt)
    labels_of_run = {"model": circuit.name, "level": level, "seed": seed, "dt": dt, "versions": versions()}
    recorder = _recorder(circuit, record, stride)
    engine = build_engine(
        circuit, level, weights, seed, batch=batch_size, dt=step, dtype=dtype, device=device, codegen=codegen,
        method=solver, progress=progress,
    )  # fmt: skip
    if recorder is None:
        return _finite(engine.present(fields, learn=plasticity))
    recording = Recording(recorder, circuit.plan, batch_size, step, dtype, labels_of_run)
    try:
        result = engine.present(fields, learn=plasticity, record=recording)
    except DivergenceError as error:
        if error.result is not None:
            error.result.traces = recording.traces()
        raise
    except BaseException:  # what was recorded so far stays in its file
        with contextlib.suppress(NeurosimError):
            recording.close()
        raise
    recording.close(result.weights.__getitem__)
    result.traces = recording.traces()
    return _finite(result)


def _finite(result: Result) -> Result:
    """The result, unless learning left weights that are not finite."""
    for name, weights in result.weights.items():
        if not np.isfinite(weights).all():
            raise DivergenceError(
                f"{result.level}: the weights of '{name}' are not finite at the end of the run. Lower the learning rate, "
                "or look for a division by zero in its rule.",
                result,
            )
    return result


def _recorder(circuit: Circuit, record: Sequence[str] | Recorder, stride: int) -> Recorder | None:
    """None where nothing is asked for and nothing spikes. Names are checked here, before anything is built."""
    if not isinstance(record, Recorder):
        if not record and not any(p.spiking for p in circuit.plan.populations.values()):
            return None
        record = Recorder(record, stride=stride)
    elif stride != 1:
        raise NeurosimError(
            f"stride = {stride} beside a Recorder, which has one of its own ({record.stride}). Leave one out."
        )
    record.resolve(circuit.plan)
    return record


def build_engine(
    circuit: Circuit, level: str, weights: Mapping[str, np.ndarray] | None, seed: int, **options: Any
) -> Any:
    """An engine of the level with drawn or given weights."""
    from neurosim.backends import engine_class
    from neurosim.backends.engine import Options

    make = engine_class(level)
    values = dict(weights) if weights is not None else circuit.initial_weights(seed)
    return make(circuit.plan, values, Options(seed=seed, **options))


def versions() -> dict[str, str]:
    """Versions of neurosim and of what computes."""
    from importlib.metadata import version

    return {name: version(name) for name in ("neurosim", "brian2", "torch", "numpy")}
