"""`neurosim simulate` and `neurosim compare`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from neurosim.cli.common import (
    SOLVER,
    Commands,
    circuit_of,
    dynamics_arguments,
    options_of,
    output_folder,
    recorder_options,
    recording_arguments,
    samples_of,
    shared_arguments,
)
from neurosim.errors import DivergenceError
from neurosim.exits import goes_on
from neurosim.files import write_whole


def add(commands: Commands) -> None:
    """Add the subcommands."""
    simulate = commands.add(
        "simulate", _simulate, "Present samples to a circuit and record traces.",
        "  neurosim simulate ghost_units --record pyr1.u pyr1.E --out runs/traces\n"
        "  neurosim simulate ghost_units --level torch:trajectory --samples 8 --batch-size 8 --plasticity off\n"
        "  neurosim simulate circuit.py:circuit --stimuli currents.npz\n",
    )  # fmt: skip
    shared_arguments(simulate, level="brian2:dense")
    dynamics_arguments(simulate)
    recording_arguments(simulate, trials="1: each")
    simulate.add_argument("--solver", default="anderson", help=SOLVER)

    compare = commands.add(
        "compare", _compare, "Run a circuit on several levels and say how far they differ.",
        "  neurosim compare ghost_units\n"
        "  neurosim compare ghost_units --levels brian2:dense torch:steady --set beta=0.01 --set t_free=300*ms\n"
        "  neurosim compare ghost_units --weights runs/ghost --samples 16\n",
    )  # fmt: skip
    shared_arguments(compare, level=None)
    dynamics_arguments(compare)
    compare.add_argument(
        "--levels", nargs="+", metavar="LEVEL", help="levels to compare (default: all that can run it)"
    )
    compare.add_argument("--solver", default="anderson", help=SOLVER)
    compare.add_argument("--record", nargs="+", metavar="POP.VAR", help="variables of the figure beside the states")


def _simulate(arguments: argparse.Namespace) -> None:
    from neurosim import Recorder

    circuit, weights, name, normalise = circuit_of(arguments, arguments.data)
    images, labels = samples_of(arguments, circuit, name, normalise)
    options = recorder_options(arguments)
    if "variables" not in options:
        options["variables"] = [f"{p.name}.{x}" for p in circuit.plan.populations.values() for x in p.ode]
    Recorder(**options).resolve(circuit.plan)  # complain before a folder is made
    with output_folder(arguments) as out, goes_on(lambda: _again(arguments, out)):
        _run(arguments, circuit, images, labels, weights, Recorder(**options, path=out / "traces.h5"), out)


def _again(arguments: argparse.Namespace, out: Path) -> str:
    """What to do after a run that was cut short: there is nothing that could go on."""
    place = " ".join((*(() if arguments.out else ("--out", str(out))), "--overwrite"))
    return f"The same command with {place} runs it again."


def _run(
    arguments: argparse.Namespace, circuit: Any, images: Any, labels: Any, weights: Any, recorder: Any, out: Path
) -> None:
    from neurosim import simulate
    from neurosim.plot import save_traces

    steady = arguments.level == "torch:steady"
    try:
        result = simulate(
            circuit, images, labels, level=arguments.level, record=recorder, weights=weights, **options_of(arguments)
        )
    except DivergenceError as error:
        raise DivergenceError(f"{error} What was recorded so far is in {recorder.path}.", error.result) from error
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"What was recorded so far is in {recorder.path}.") from None
    samples = arguments.batch_size if images is None else len(images)
    print(
        f"{result.level}: {samples} samples, {result.steps} {'sweeps' if steady else 'steps'}, {result.seconds:.1f} s"
    )
    picture = circuit.readout is not None and circuit.readout.wanted == "image"
    if picture and images is not None:
        error = float(((result.readout - images.reshape(len(images), -1)) ** 2).mean())
        print(f"mean squared error of the pictures: {error:.4g}")
    elif result.readout is not None and labels is not None and labels.ndim == 1:
        note = "" if arguments.weights else " (weights not trained; --weights RUN_DIR takes those of a run)"
        print(f"accuracy over these samples: {float((result.readout.argmax(1) == labels).mean()):.4f}{note}")
    for phase, value in result.settling_by_phase.items() if not result.spikes else ():
        print(f"settling, {phase}: {value:.2e}")
    for population, spikes in result.spikes.items():
        print(f"spikes, {population}: {_listed(spikes)}")
    if result.traces is not None:
        print(f"wrote {recorder.path}")
    write_whole(out / "result.json", (json.dumps(_summary(circuit, result, labels), indent=2) + "\n").encode())
    print(f"wrote {out / 'result.json'}")
    if result.traces is not None and result.traces.values and not steady:  # which has no time course
        if not len(result.traces.time):
            print("no picture: no step was recorded")
            return
        panels, note = (None, "") if arguments.record else _panels(result.traces)
        save_traces(result.traces, out / "traces.png", variables=panels)
        print(f"wrote {out / 'traces.png'}{note}")


def _panels(traces: Any) -> tuple[list[Any] | None, str]:
    """Compartments of a spiking population in one panel, their potentials only; None (a panel each) without spikes. And what is said of those
    that have no room."""
    from neurosim.plot.style import LINES
    from neurosim.plot.traces import PANELS

    panels = [
        [name for name in traces.values if name.partition(".")[0] == population and traces.units[name] == "volt"]
        for population in traces.spikes
    ]
    panels = [panel for panel in panels if panel]
    drawn = [panel[: len(LINES)] for panel in panels[:PANELS]]
    every, shown = (sum(map(len, several)) for several in (panels, drawn))
    note = f" (the first {shown} of {every} potentials; name others with --record)" if shown < every else ""
    return drawn or None, note


def _summary(circuit: Any, result: Any, labels: Any) -> dict[str, Any]:
    """What ``result.json`` of `simulate` holds; spikes are counts per population."""
    classifies = (
        circuit.readout is not None and circuit.readout.wanted == "target" and labels is not None and labels.ndim == 1
    )
    right = float((result.readout.argmax(1) == labels).mean()) if classifies else None
    return {
        "model": circuit.name,
        "level": result.level,
        "steps": result.steps,
        "seconds": result.seconds,
        "accuracy": right,
        "settling": result.settling,
        "unsettled": result.unsettled,
        "unstable": result.unstable,
        "spikes": {population: len(spikes.time) for population, spikes in result.spikes.items()},
    }


def _listed(spikes: Any) -> str:
    times = ", ".join(f"{1e3 * t:.2f}" for t in spikes.time[:8])
    return f"{len(spikes.time)}" + (f" (at {times}{', ...' if len(spikes.time) > 8 else ''} ms)" if times else "")


def _compare(arguments: argparse.Namespace) -> None:
    from neurosim import compare
    from neurosim.compare.levels import choose_levels

    circuit, weights, name, normalise = circuit_of(arguments, arguments.data)
    images, labels = samples_of(arguments, circuit, name, normalise)
    levels = arguments.levels or (None if arguments.level is None else [arguments.level])
    choose_levels(circuit.plan, levels)  # complain before a folder is made
    with output_folder(arguments) as out, goes_on(lambda: _again(arguments, out)):
        try:
            comparison = compare(
                circuit, images, labels, levels=levels, weights=weights, record=arguments.record, data=arguments.stimuli or name,
                predictions=weights is not None, **options_of(arguments),
            )  # fmt: skip
        except DivergenceError as error:
            traces = getattr(error.result, "traces", None)
            if traces is None:
                raise
            path = traces.save(out / "traces.h5")
            raise DivergenceError(f"{error} What was recorded so far is in {path}.", error.result) from error
        print(comparison.markdown())
        for path in comparison.save(out):
            print(f"wrote {path}")
