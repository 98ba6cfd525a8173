"""Draw the pictures of docs/gallery.md: small simulations and trainings with fixed seeds, on the embedded digits (and MNIST, if it is there).

    python docs/gallery/make.py                       all of them, into docs/gallery, about two minutes
    python docs/gallery/make.py --only fi network_tdca
    python docs/gallery/make.py --list

Needs scikit-learn (pip install 'neurosim[analysis]') for the t-SNE. Pictures are PNG files of a few colours, to keep them small.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from brian2 import nS, pA
from matplotlib.figure import Figure
from PIL import Image

from neurosim import (
    Circuit,
    Fragment,
    OneToOne,
    Phase,
    Population,
    Projection,
    Protocol,
    data,
    load,
    plot,
    registry,
    simulate,
    train,
)
from neurosim.analysis.representations import activities
from neurosim.analysis.updates import update_cosines
from neurosim.errors import NeurosimError, unknown
from neurosim.files import user_path, write_whole
from neurosim.models import bac_firing, counter_current, dendritic_microcircuit, ghost_units
from neurosim.parts import bac_pyramidal, current_step
from neurosim.plot.style import style
from neurosim.traces import Traces
from neurosim.training import Run
from neurosim.training.evolution import config as evolve_config
from neurosim.training.evolution import run as evolve_run

HERE = Path(__file__).parent
#: Pixels across at most, colours of a picture, and bytes that it may take.
PIXELS, COLOURS, BYTES = 850, (256, 128, 64, 32, 16), 60_000
WORK = Path(tempfile.gettempdir())

FIGURES: dict[str, Callable[[], Figure]] = {}


def figure(draw: Callable[[], Figure]) -> Callable[[], Figure]:
    """Enter a function into the list of pictures, by its name."""
    FIGURES[draw.__name__] = draw
    return draw


# ------------------------------------------------------------------------------------------------ simulations


def digits(count: int) -> tuple[np.ndarray, np.ndarray]:
    images, labels = data.load("digits").split("train")
    return images[:count], labels[:count]


@cache
def ghost_traces(level: str) -> Traces:
    circuit = ghost_units.circuit()
    record = ["pyr1.u", "pyr1.E", "pyr1.a", "pyr1.r", "pyr2.r", "ghost1.r"]
    return simulate(circuit, *digits(2), level=level, record=record, batch_size=1, progress=False).traces


@cache
def bac_cells() -> Traces:
    """Pyramidal cells with a graded somatic current; in half of them the apical dendrite cannot make a calcium plateau."""
    n, on = 40, "200*ms"
    soma = np.linspace(100, 900, n)
    populations, projections = [], []
    for name, calcium in (("active", 35.0), ("passive", 0.0)):
        populations += [
            Population(name, n, bac_pyramidal(), {"g_Ca": calcium * nS}),
            Population(f"{name}_soma", n, current_step("0*pA", "40*ms", on), {"amplitude": soma * pA}),
            Population(f"{name}_apical", n, current_step("450*pA", "40*ms", on)),
        ]
        projections += [
            Projection(f"into_{name}_soma", f"{name}_soma", f"{name}.I_s", connectivity=OneToOne()),
            Projection(f"into_{name}_apical", f"{name}_apical", f"{name}.I_a", connectivity=OneToOne()),
        ]
    phases = (Phase("rest", "40*ms"), Phase("current", on), Phase("after", "60*ms"))
    circuit = Circuit("bac_cells", Fragment(populations, projections), Protocol(phases, dt="0.05*ms"))
    return simulate(circuit, record=["active.V_a", "passive.V_a"], stride=20, progress=False).traces


@cache
def fi_traces() -> Traces:
    """Every combination of 31 somatic and 4 apical currents, a cell each."""
    soma, apical = (x.ravel() for x in np.meshgrid(np.linspace(0, 900, 31), (0.0, 200.0, 400.0, 600.0), indexing="ij"))
    n, on = len(soma), "600*ms"
    populations = (
        Population("cell", n, bac_pyramidal()),
        Population("soma", n, current_step("0*pA", "0*ms", on), {"amplitude": soma * pA}),
        Population("apical", n, current_step("0*pA", "0*ms", on), {"amplitude": apical * pA}),
    )
    projections = (
        Projection("into_soma", "soma", "cell.I_s", connectivity=OneToOne()),
        Projection("into_apical", "apical", "cell.I_a", connectivity=OneToOne()),
    )
    circuit = Circuit("bac_cells", Fragment(populations, projections), Protocol((Phase("current", on),), dt="0.05*ms"))
    return simulate(circuit, record=["cell.I_s", "cell.I_a"], stride=200, progress=False).traces


# ------------------------------------------------------------------------------------------------ trainings


@cache
def _trained(model: str, name: str, settings: tuple[tuple[str, Any], ...], options: tuple[tuple[str, Any], ...]) -> Run:
    given = dict(options)
    if record := given.pop("recorder", ()):
        given["recorder"] = {"variables": list(record)}
    folder = Path(tempfile.mkdtemp(dir=WORK, prefix=f"{name}-")) / name
    train(model, folder, settings=dict(settings), progress=False, **given)
    return load(folder)


def trained(
    model: str, name: str = "", settings: tuple[tuple[str, Any], ...] = (), recorder: Sequence[str] = (), **options: Any
) -> Run:
    """A run, trained once; `recorder` names the projections whose weights are recorded."""
    return _trained(model, name or model, settings, (("recorder", tuple(recorder)), *sorted(options.items())))


def validation(run: Run, count: int) -> tuple[np.ndarray, np.ndarray]:
    images, labels = data.normalise(data.load(run.config.data), run.config.normalise).split("validation")
    return images[:count], labels[:count]


# ------------------------------------------------------------------------------------------------ pictures


@figure
def traces_compartments() -> Figure:
    circuit = dendritic_microcircuit.circuit(sizes=(64, 32, 10))
    record = ["pyr1.u", "pyr1.v_B", "pyr1.v_A", "int1.u", "pyr2.u"]
    run = simulate(circuit, *digits(2), level="torch:trajectory", record=record, progress=False)
    return plot.traces_figure(run.traces, [["pyr1.u", "pyr1.v_B", "pyr1.v_A"], "int1.u", "pyr2.u"])


@figure
def traces_spiking() -> Figure:
    run = simulate(bac_firing.circuit(), record=["both.V_s", "both.V_a", "both.m", "apical_weak.V_a"], progress=False)
    return plot.traces_figure(run.traces, [["both.V_s", "both.V_a"], "apical_weak.V_a", "both.m"])


@figure
def traces_windows() -> Figure:
    circuit = counter_current.circuit(sizes=(64, 32, 10))
    run = simulate(circuit, *digits(1), level="torch:trajectory", record=["F1.u", "F1.v_a", "D1.v_a"], progress=False)
    return plot.traces_figure(run.traces)


@figure
def levels() -> Figure:
    names = ("brian2:equations", "brian2:dense", "torch:trajectory")
    steady = simulate(ghost_units.circuit(), *digits(2), level="torch:steady", batch_size=1, progress=False)
    by_level = {name: ghost_traces(name) for name in names}
    return plot.comparison_figure(by_level, ["pyr1.u"], ends={"torch:steady": steady.ends})


@figure
def raster() -> Figure:
    return plot.raster_figure(bac_cells())


@figure
def rates_spiking() -> Figure:
    return plot.rates_figure(bac_cells(), bin=0.01)


@figure
def rates() -> Figure:
    return plot.rates_figure(ghost_traces("torch:trajectory"), ["pyr1.r", "pyr2.r", "ghost1.r"])


@figure
def fi() -> Figure:
    return plot.fi_figure(fi_traces(), "cell.I_s", by="cell.I_a", discard=0.1)


@figure
def weights() -> Figure:
    names = ["W1", "W2", "F1", "B1"]
    run = trained("corinfomax", epochs=12, seed=0, recorder=names)
    with Traces.load(run.folder / "recording.h5") as traces:
        return plot.weights_figure(traces, names, plot.feedback_pairs(run.circuit))


@figure
def cosine() -> Figure:
    settings = (("mode", "learned"),)
    projections = ghost_units.circuit(**dict(settings)).projections
    plastic = [projection.name for projection in projections if projection.rule]
    run = trained("ghost_units", name="learned", settings=settings, epochs=10, seed=0, recorder=plastic)
    with Traces.load(run.folder / "recording.h5") as traces:
        images, labels = validation(run, 140)
        cosines = update_cosines(run.circuit, traces, images, labels, run.weights)
        return plot.cosine_figure(cosines, traces, len(images))


@figure
def cka() -> Figure:
    run = trained("counter_current", settings=(("sizes", (64, 64, 32, 10)),), epochs=10, seed=0)
    samples = validation(run, 140)
    populations = ["F0", "F1", "F2", "F3", "D0", "D1", "D2", "D3"]
    before = activities(run.circuit, run.circuit.initial_weights(run.config.seed), *samples, populations)
    after = activities(run.circuit, run.weights, *samples, populations)
    return plot.cka_figure(after, before, f"counter_current: linear CKA, {len(samples[0])} validation samples, 1 run")


@figure
def tsne() -> Figure:
    run = trained("ghost_units", epochs=15, seed=0)
    images, labels = digits(360)
    found = activities(run.circuit, run.weights, images, labels, ["inp", "pyr1", "pyr2"])
    return plot.tsne_figure(found, labels, title="ghost_units, 15 epochs, training samples")


@figure
def learning() -> Figure:
    curves = {}
    for method in ("circuit", "backprop", "feedback_alignment"):
        name = {"circuit": "ghost_units"}.get(method, method)
        runs = [trained("ghost_units", epochs=15, seed=seed, method=method) for seed in range(3)]
        curves[name] = [
            [{k: v for k, v in row.items() if k != "ghost_residual"} for row in run.metrics] for run in runs
        ]
    return plot.learning_curves(curves, "digits, 64-64-32-10")


@figure
def fields_mnist() -> Figure:
    run = trained("ghost_units", name="mnist", data="mnist", epochs=3, limit=10_000, seed=0)
    return plot.fields_figure(
        run.weights["W1"], cells=range(20), name="W1", title="ghost_units on MNIST: incoming weights W1 of 20 cells"
    )


def network(model: str, **settings: Any) -> Figure:
    return plot.network_figure(registry.model(model).circuit(settings))


@figure
def network_ghost_units() -> Figure:
    return network("ghost_units")


@figure
def network_microcircuit() -> Figure:
    return network("dendritic_microcircuit", sizes=(64, 32, 16, 10))


@figure
def network_corinfomax() -> Figure:
    return network("corinfomax")


@figure
def network_counter_current() -> Figure:
    return network("counter_current", sizes=(64, 64, 32, 10))


@figure
def network_tdca() -> Figure:
    return network("tdca")


@figure
def evolution() -> Figure:
    rows = {}
    for strategy, generations in (("pepg", 60), ("cmaes", 60)):
        folder = Path(tempfile.mkdtemp(dir=WORK, prefix=f"{strategy}-")) / strategy
        config = evolve_config.resolved(
            "tdca",
            {"sizes": (64, 16, 10), "hidden": 8},
            strategy=strategy,
            generations=generations,
            population=25,
            steps=20,
        )
        evolve_run.run(config, folder, progress=False)
        from neurosim.training.evolution.loop import load as read

        rows[strategy] = read(folder).history
    return plot.evolution_figure(rows, "tdca on digits: two strategies, 25 candidates, 1 seed each")


# ------------------------------------------------------------------------------------------------ files


def as_png(drawn: Figure) -> bytes:
    """A PNG of few colours; of fewer where it would be too large."""
    raw = io.BytesIO()
    with style():
        drawn.savefig(raw, format="png", dpi=min(130, PIXELS / drawn.get_figwidth()))
    image = Image.open(raw).convert("RGB")
    content = b""
    for colours in COLOURS:
        out = io.BytesIO()
        image.quantize(colours, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
        content = out.getvalue()
        if len(content) <= BYTES:
            break
    return content


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="draw these pictures (default: all)")
    parser.add_argument(
        "--out", type=user_path, default=HERE, metavar="DIR", help="folder of the pictures (default: docs/gallery)"
    )
    parser.add_argument("--list", action="store_true", help="name the pictures and draw none")
    options = parser.parse_args()
    if options.list:
        print("\n".join(FIGURES))
        return
    for name in options.only or ():
        if name not in FIGURES:
            parser.error(str(unknown("picture", name, FIGURES)))
    chosen = options.only or list(FIGURES)
    options.out.mkdir(parents=True, exist_ok=True)
    global WORK
    with tempfile.TemporaryDirectory() as folder:
        WORK = Path(folder)
        for k, name in enumerate(chosen, 1):
            began = time.perf_counter()
            print(f"{k}/{len(chosen)} {name} ...", end=" ", flush=True)
            try:
                content = as_png(FIGURES[name]())
            except NeurosimError as error:  # a data set or library that is not there
                print(f"left out: {error}")
                continue
            write_whole(options.out / f"{name}.png", content)
            print(f"{len(content) / 1000:.0f} kB, {time.perf_counter() - began:.1f} s")


if __name__ == "__main__":
    main()
