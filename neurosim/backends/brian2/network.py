"""Running a Brian2 network: code generation target, one `run` for a whole sequence, quiet logs."""

from __future__ import annotations

import contextlib
import gc
import logging
import sys
from collections.abc import Callable, Iterator

import brian2 as b2
from brian2.core.preferences import prefs
from brian2.groups.group import CodeRunner

from neurosim.backends.engine import Options
from neurosim.equations.units import unit_string as brian2_unit
from neurosim.errors import NeurosimError, unknown

TARGETS = ("numpy", "cython")

prefs["logging.file_log"] = False
prefs["logging.delete_log_on_exit"] = True


@contextlib.contextmanager
def codegen_target(target: str) -> Iterator[None]:
    """Use a code generation target for the objects built or run inside."""
    if target not in TARGETS:
        raise unknown("code generation target", target, TARGETS)
    before = prefs["codegen.target"]
    prefs["codegen.target"] = target
    try:
        yield
    finally:
        prefs["codegen.target"] = before


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
    timestep = clock.variables["timestep"]
    start = int(timestep.get_value().item())
    try:
        with codegen_target(options.codegen):
            network.run(steps * clock.dt, namespace={})
    finally:
        network.remove(first)
        gc.unfreeze()
    if failure:
        raise failure[0]
    ran = int(timestep.get_value().item()) - start
    if ran != steps:
        raise NeurosimError(f"Brian2 ran {ran} steps in place of {steps}.")


logging.getLogger("brian2").setLevel(logging.WARNING)

__all__ = ["brian2_unit", "codegen_target", "run_network"]
