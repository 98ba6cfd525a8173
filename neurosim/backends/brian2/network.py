"""Running a Brian2 network: code generation target, one `run` for a whole sequence, quiet logs."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Callable, Iterator
from typing import Any

import brian2 as b2
import numpy as np
from brian2.core.functions import Function
from brian2.core.preferences import prefs
from brian2.groups.group import CodeRunner

from neurosim.backends import TARGETS
from neurosim.backends.engine import Options
from neurosim.equations import brian2_source
from neurosim.equations.units import unit_string as brian2_unit
from neurosim.errors import NeurosimError, unknown
from neurosim.plan import Plan, PopulationPlan


def _whole(name: str, function: Callable[..., Any], in_c: str) -> Function:
    """A function that returns a whole number as a float of 64 bits; Brian2's own ones cut it to 32."""
    whole = Function(function, arg_units=[None], return_unit=lambda unit: unit)
    whole.implementations.add_implementation("numpy", code=function)
    source = f"from libc.math cimport {in_c} as ns_c_{in_c}\ncdef double {name}(double x):\n    return ns_c_{in_c}(x)\n"
    whole.implementations.add_implementation("cython", code=source, name=name)
    return whole


#: What `brian2_source` writes in place of Brian2's ``floor``, ``ceil`` and ``int``.
WHOLE = {
    name: _whole(name, function, in_c)
    for name, function, in_c in (
        ("ns_floor", np.floor, "floor"), ("ns_ceil", np.ceil, "ceil"), ("ns_int", np.trunc, "trunc")
    )
}  # fmt: skip

#: Preferences of Brian2 that a run relies on; a script may have set others.
RELIED_ON: dict[str, Any] = {
    "codegen.loop_invariant_optimisations": True,
    "codegen.string_expression_target": "numpy",
    "core.default_float_dtype": np.float64,
    "core.default_integer_dtype": np.int32,
    "core.network.default_schedule": ["start", "groups", "thresholds", "synapses", "resets", "end"],
    "legacy.refractory_timing": False,
}


@contextlib.contextmanager
def brian2_settings(target: str) -> Iterator[None]:
    """Build or run Brian2's objects inside with this code generation target and the preferences that a run relies on.

    Raises
    ------
    NeurosimError
        An unknown target; a device other than Brian2's runtime, which a script has set.
    """
    if target not in TARGETS:
        raise unknown("code generation target", target, TARGETS)
    device = b2.get_device()
    if device is not b2.all_devices["runtime"]:
        name = next((n for n, d in b2.all_devices.items() if d is device), type(device).__name__)
        raise NeurosimError(
            f"Brian2's device is '{name}', set by set_device('{name}'), and neurosim runs on 'runtime'. Call "
            "brian2.set_device('runtime') before."
        )
    wanted = RELIED_ON | {"codegen.target": target}
    before = {name: prefs[name] for name in wanted}
    try:
        for name, value in wanted.items():
            prefs[name] = value
        yield
    finally:
        for name, value in before.items():
            prefs[name] = value


def object_name(role: str, *parts: str) -> str:
    """The name of a Brian2 object; no two objects of a network share one, whatever a circuit calls its parts.

    The role ends the name, as Brian2 ends those that it makes (``..._stateupdater``); all parts but the last
    carry their length, so that ``a, b_c`` and ``a_b, c`` differ.
    """
    return "_".join(["ns", *(f"{len(part)}_{part}" for part in parts[:-1]), *parts[-1:], role])


def state_lines(p: PopulationPlan) -> list[str]:
    """The equations of a population's states in Brian2's syntax."""
    frozen = p.spiking.unless_refractory if p.spiking else ()
    return [
        f"d{x}/dt = {brian2_source(rhs)} : {brian2_unit(p.dimensions[x])}{' (unless refractory)' if x in frozen else ''}"
        for x, rhs in p.ode.items()
    ]


def namespace_of(p: PopulationPlan) -> dict[str, Any]:
    """Parameters that all cells of a population share, with their units, and functions."""
    return WHOLE | {n: b2.Quantity(v, dim=p.dimensions[n]) for n, v in p.parameters.items() if n not in p.arrays}


def spiking_arguments(p: PopulationPlan) -> dict[str, Any]:
    """Threshold, reset and refractoriness as arguments of a `NeuronGroup` that has a variable `spike_train`."""
    if p.spiking is None:
        return {}
    reset = [f"{x} = {brian2_source(value)}" for x, value in p.spiking.reset]
    return dict(
        threshold=brian2_source(p.spiking.threshold), reset="\n".join([*reset, "spike_train = 1/dt"]),
        refractory=p.spiking.refractory * b2.second,
    )  # fmt: skip


def clear_spike_train(group: b2.NeuronGroup, clock: b2.Clock) -> None:
    """The spikes of a step are seen in the next one only."""
    group.run_regularly(
        "spike_train = 0*hertz", clock=clock, when="before_thresholds", name=object_name("clear", group.name)
    )


def spike_operation(plan: Plan, note: Callable[[], None], clock: b2.Clock) -> list[b2.NetworkOperation]:
    """An operation that calls `note` at the end of each step, where some cell spikes."""
    if not any(p.spiking for p in plan.populations.values()):
        return []
    return [b2.NetworkOperation(note, clock=clock, when="end", name="ns_note_spikes")]


def run_network(
    network: b2.Network, operation: Callable[[], None], clock: b2.Clock, steps: int, options: Options
) -> None:
    """Run `steps` steps with `operation` first in each, in one call of Brian2's `run`.

    An exception from the operation reaches the caller unwrapped.
    """
    failure: list[BaseException] = []

    def guarded() -> None:
        try:
            operation()
        except BaseException as error:  # Brian2 would wrap it: keep the original, end the run
            failure.append(error)
            network.stop()

    # Brian2's step loop costs Python's garbage collector dearly: what is built by now need not be looked at again.
    gc.collect()
    gc.freeze()
    first = b2.NetworkOperation(guarded, clock=clock, when="before_start", name="ns_operation")
    network.add(first)
    if options.codegen == "cython" and options.progress:
        count = sum(isinstance(o, CodeRunner) for obj in network.objects for o in (obj, *obj.contained_objects))
        print(
            f"compiling up to {count} of Brian2's code objects (seconds each the first time, then cached)",
            file=sys.stderr,
        )
    network.t_ = 0.0  # a run begins at t = 0 on every level
    catches = b2.prefs.core.stop_on_keyboard_interrupt
    b2.prefs.core.stop_on_keyboard_interrupt = (
        False  # Brian2 would end the run without an error, as if it were complete
    )
    try:
        with brian2_settings(options.codegen):
            network.run(steps * clock.dt, namespace={})
    finally:
        b2.prefs.core.stop_on_keyboard_interrupt = catches
        # Brian2 leaves it set when a run ends by an error, and its handler would take the script's next Ctrl-C.
        b2.Network._globally_running = False
        network.remove(first)
        gc.unfreeze()
    if failure:
        raise failure[0]
    ran = int(clock.variables["timestep"].get_value().item())
    if ran != steps:
        raise NeurosimError(f"Brian2 ran {ran} steps in place of {steps}.")


__all__ = [
    "brian2_settings",
    "brian2_unit",
    "clear_spike_train",
    "namespace_of",
    "object_name",
    "run_network",
    "spike_operation",
    "spiking_arguments",
    "state_lines",
]
