"""`neurosim plot`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from neurosim.cli.common import RECORDINGS, Commands, check_files, recording_in
from neurosim.errors import NeurosimError, unknown
from neurosim.files import user_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from neurosim.traces import Traces
    from neurosim.training import Run

#: Samples that are presented for the kinds that run the circuit.
SAMPLES = 500


class Kind(NamedTuple):
    """A kind of figure: what it shows, an example, what it is drawn from, how, and by which options (beside --kind and --to)."""

    text: str
    example: str
    wants: str
    draw: Callable[[list[Path], argparse.Namespace, ExitStack], Figure]
    options: tuple[str, ...] = ()


def add(commands: Commands) -> None:
    """Add the subcommand."""
    listed = "\n".join(f"  {name:10} {kind.text}\n{'':13}{kind.example}" for name, kind in KINDS.items())
    plot = commands.add("plot", _plot, "Draw a figure: of traces, of run folders, or of a model.")
    plot.epilog = f"kinds of figures, with an example each:\n{listed}\n"
    plot.add_argument(
        "paths", nargs="+", type=user_text, metavar="PATH", help="traces.h5, run folders of `neurosim train`, folders of `neurosim evolve`, or a MODEL"
    )  # fmt: skip
    plot.add_argument("--kind", metavar="KIND", help="see below (default: by what the path is)")
    plot.add_argument(
        "--record", nargs="+", metavar="NAME", help="what to draw: variables, populations or projections (default: all, or the first ones)"
    )  # fmt: skip
    plot.add_argument(
        "--cells", nargs="+", type=int, metavar="K", help="traces, levels, fields: numbers of the cells to draw"
    )
    plot.add_argument("--phase", metavar="PHASE", help="fi: read this phase (default: whole trials)")
    plot.add_argument("--by", metavar="POP.VAR", help="fi: a curve for each value of this variable")
    plot.add_argument(
        "--samples", type=int, metavar="N", help=f"cka, tsne, cosine: validation samples (default {SAMPLES})"
    )
    plot.add_argument("--before", action="store_true", help="cka: also before training")
    plot.add_argument(
        "--data-dir",
        type=user_text,
        metavar="DIR",
        help="cka, tsne, cosine: folder of data sets (default: the run's, or NEUROSIM_DATA)",
    )
    plot.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="settings", help="network: a setting of the model; may be repeated"
    )  # fmt: skip
    plot.add_argument("--to", type=user_text, metavar="FILE", help="PNG, PDF or SVG (default: beside the first path)")
    plot.add_argument("--overwrite", action="store_true", help="replace a picture that is there")


def _plot(arguments: argparse.Namespace) -> None:
    from neurosim.plot.style import SUFFIXES, check_suffix, save_figure

    kind = arguments.kind
    if kind is not None and kind not in KINDS:
        raise unknown("kind of figure", kind, KINDS)
    paths = [Path(path) for path in arguments.paths]
    found = {path: _what(path) for path in paths}
    kind = kind or _default(found)
    _check_options(kind, arguments)
    to = Path(arguments.to) if arguments.to else _beside(paths[0], found[paths[0]], kind)
    check_suffix(to)
    check_files([to], arguments.overwrite, SUFFIXES)
    with ExitStack() as stack:
        figure = KINDS[kind].draw(paths, arguments, stack)
        print(f"wrote {save_figure(figure, to)}")


def _check_options(kind: str, arguments: argparse.Namespace) -> None:
    """Refuse options that would change nothing in this kind of figure."""
    for option in dict.fromkeys(option for other in KINDS.values() for option in other.options):
        value = getattr(arguments, "settings" if option == "--set" else option.strip("-").replace("-", "_"))
        if option in KINDS[kind].options or value is None or value is False or value == []:
            continue
        *most, last = [name for name, other in KINDS.items() if option in other.options]
        owners = f"{', '.join(most)} or {last}" if most else last
        taken = ", ".join(KINDS[kind].options) or "none of these options"
        raise NeurosimError(f"{option} belongs to --kind {owners}; --kind {kind} takes {taken}.")


# ------------------------------------------------------------------------------------------- what a path is

_TRACES, _RUN, _EVOLUTION, _MODEL = "traces", "a run folder", "an evolution", "a model"


def _what(path: Path) -> str:
    from neurosim import registry

    if registry.is_file(str(path)) or (not path.exists() and path.name in registry.names()):
        return _MODEL
    if not path.exists():
        raise NeurosimError(
            f"There is no '{path}'; give a traces.h5, a run folder of `neurosim train` or `neurosim evolve`, or a model of `neurosim list`."
        )
    if path.is_file():
        return _TRACES
    if (path / "traces.h5").is_file():
        return _TRACES
    if (path / "report.json").is_file():
        raise NeurosimError(
            f"'{path}' is a folder of `neurosim compare`, which holds its report and its figure (report.md, traces.png) and no recording to draw; plot "
            "takes a traces.h5, a run folder of `neurosim train` or `neurosim evolve`, or a model. For other variables in the figure: `neurosim "
            "compare --record`."
        )
    return _EVOLUTION if (path / "config.json").is_file() else _RUN


def _default(found: Mapping[Path, str]) -> str:
    kinds = set(found.values())
    if len(kinds) > 1:
        listing = "; ".join(f"'{path}' is {what}" for path, what in found.items())
        raise NeurosimError(f"The paths do not go together ({listing}). Give paths of one sort, or say --kind.")
    several = "levels" if len(found) > 1 else "traces"
    if several == "traces" and kinds == {_TRACES}:
        with ExitStack() as stack:
            (traces,) = _traces(list(found), several, stack)
            several = "weights" if traces.weights and not traces.values else several
    return {_TRACES: several, _RUN: "learning", _EVOLUTION: "evolution", _MODEL: "network"}[kinds.pop()]


def _beside(path: Path, what: str, kind: str) -> Path:
    from neurosim import registry

    if what == _MODEL:
        return Path(f"{registry.split(str(path))[0].stem}-{kind}.png")
    if path.is_dir() and what != _TRACES:
        return path / {"learning": "curves.png"}.get(kind, f"{kind}.png")
    path = path / "traces.h5" if path.is_dir() else path
    return path.with_suffix(".png") if kind == "traces" else path.with_name(f"{path.stem}-{kind}.png")


def _one(paths: Sequence[Path], kind: str) -> Path:
    if len(paths) > 1:
        raise NeurosimError(f"--kind {kind} draws one path at a time, and got {len(paths)}; give one.")
    return paths[0]


def _misfit(path: Path, kind: str, got: str) -> NeurosimError:
    return NeurosimError(
        f"--kind {kind} wants {KINDS[kind].wants}; '{path}' is {got}. For example: {KINDS[kind].example}"
    )


def _traces(paths: Sequence[Path], kind: str, stack: ExitStack) -> list[Traces]:
    """The traces of the paths, open until the figure is written."""
    from neurosim.traces import Traces

    opened = []
    for path in paths:
        what, file = _what(path), recording_in(path)
        if what == _MODEL or file is None:
            raise _misfit(path, kind, f"{what} without {' or '.join(RECORDINGS)}" if path.is_dir() else what)
        traces = Traces.load(file)
        stack.callback(traces.close)
        opened.append(traces)
    return opened


def _runs(paths: Sequence[Path], kind: str) -> list[Run]:
    from neurosim.training import load

    for path in paths:
        if (what := _what(path)) != _RUN and not (path / "config.toml").is_file():
            raise _misfit(path, kind, what if what != _TRACES else "a file or folder of traces")
    return [load(path) for path in paths]


def _samples(run: Run, arguments: argparse.Namespace) -> tuple[Any, Any]:
    """The first validation samples of the run's data set, normalised as it was trained."""
    from neurosim.training.run import read_origin

    count = SAMPLES if arguments.samples is None else arguments.samples
    folder = arguments.data_dir or read_origin(run.folder).get("data_dir")
    if folder and not arguments.data_dir and not Path(folder).is_dir():  # moved, or another machine
        folder = None
    images, labels = run.config.dataset(folder).split("validation")
    if arguments.samples is not None and not 1 <= count <= len(images):
        raise NeurosimError(
            f"--samples {count}: wanted between 1 and {len(images)}, the validation samples of {run.config.data}."
        )
    return images[:count], labels[:count]


# ------------------------------------------------------------------------------------------------- the kinds


def _draw_traces(paths: list[Path], arguments: argparse.Namespace, stack: ExitStack) -> Figure:
    from neurosim.plot import traces_figure

    (traces,) = _traces([_one(paths, "traces")], "traces", stack)
    return traces_figure(traces, variables=arguments.record, cells=arguments.cells)


def _draw_levels(paths: list[Path], arguments: argparse.Namespace, stack: ExitStack) -> Figure:
    from neurosim.plot import comparison_figure

    traces = _traces(paths, "levels", stack)
    names = [str(t.metadata.get("level", path.name)) for t, path in zip(traces, paths, strict=True)]
    labels = [n if names.count(n) == 1 else f"{n}, {path}" for n, path in zip(names, paths, strict=True)]
    by_level = dict(zip(labels, traces, strict=True))
    return comparison_figure(by_level, variables=arguments.record, cells=arguments.cells)


def _draw_raster(paths: list[Path], arguments: argparse.Namespace, stack: ExitStack) -> Figure:
    from neurosim.plot import raster_figure

    (traces,) = _traces([_one(paths, "raster")], "raster", stack)
    return raster_figure(traces, arguments.record)


def _draw_rates(paths: list[Path], arguments: argparse.Namespace, stack: ExitStack) -> Figure:
    from neurosim.plot import rates_figure

    (traces,) = _traces([_one(paths, "rates")], "rates", stack)
    return rates_figure(traces, arguments.record)


def _draw_fi(paths: list[Path], arguments: argparse.Namespace, stack: ExitStack) -> Figure:
    from neurosim.plot import fi_figure

    (traces,) = _traces([_one(paths, "fi")], "fi", stack)
    names = arguments.record or []
    if not 1 <= len(names) <= 2:
        raise NeurosimError(
            f"--kind fi wants --record CURRENT, or CURRENT and RESPONSE, and got {len(names)} names; recorded: {', '.join(traces.values)}."
        )
    return fi_figure(traces, *names, by=arguments.by, phase=arguments.phase)


def _recording(path: Path, kind: str, stack: ExitStack) -> Traces:
    """The recording of a run folder, or traces that hold weights."""
    if recording_in(path) is None:
        raise _misfit(path, kind, "a folder without recording.h5")
    return _traces([path], kind, stack)[0]


def _draw_weights(paths: list[Path], arguments: argparse.Namespace, stack: ExitStack) -> Figure:
    from neurosim import registry
    from neurosim.plot import feedback_pairs, weights_figure

    path = _one(paths, "weights")
    traces = _recording(path, "weights", stack)
    pairs: list[tuple[str, str]] = []
    if (path / "config.toml").is_file():
        (run,) = _runs([path], "weights")
        # A look at weights runs no code: a model file's circuit stays unread, and its pairs unknown.
        known = [] if registry.is_file(run.config.model) else feedback_pairs(run.circuit)
        pairs = [pair for pair in known if all(name in traces.weights for name in pair)]
    return weights_figure(traces, arguments.record, pairs)


def _draw_cosine(paths: list[Path], arguments: argparse.Namespace, stack: ExitStack) -> Figure:
    from neurosim.analysis.updates import update_cosines
    from neurosim.plot import cosine_figure

    path = _one(paths, "cosine")
    (run,) = _runs([path], "cosine")
    traces = _recording(path, "cosine", stack)
    images, labels = _samples(run, arguments)
    cosines = update_cosines(run.circuit, traces, images, labels, run.weights)
    return cosine_figure(cosines, traces, len(images))


def _draw_cka(paths: list[Path], arguments: argparse.Namespace, stack: ExitStack) -> Figure:
    from neurosim.analysis.representations import activities
    from neurosim.plot import cka_figure

    (run,) = _runs([_one(paths, "cka")], "cka")
    images, labels = _samples(run, arguments)
    after = activities(run.circuit, run.weights, images, labels, arguments.record)
    before = None
    if arguments.before:
        before = activities(run.circuit, _start(run), images, labels, arguments.record)
    return cka_figure(after, before, f"{run.folder.name}: linear CKA, {len(images)} validation samples, 1 run")


def _start(run: Run) -> dict[str, Any]:
    """The weights that a run began with: drawn from its seed, or, of a run from other weights, as they were recorded."""
    import numpy as np

    from neurosim.traces import Traces
    from neurosim.training.run import read_origin

    if not read_origin(run.folder).get("weights"):
        return run.circuit.initial_weights(run.config.seed)
    plastic = [p.name for p, _ in run.circuit.plan.plastic()]
    file = run.folder / "recording.h5"
    if file.is_file():
        with Traces.load(file) as traces:
            first = np.flatnonzero(np.asarray(traces.weight_trials) == 0)
            if len(first) and all(name in traces.weights for name in plastic):
                return run.weights | {name: np.asarray(traces.weights[name][int(first[0])]) for name in plastic}
    raise NeurosimError(
        f"The run '{run.folder.name}' began from other weights than its seed draws (--weights), and what it represented before is not known: "
        f"its folder has no recording of all plastic weights at its start. Record them (neurosim train {run.config.model} --weights ... --record "
        f"{' '.join(plastic)}), or leave --before out."
    )


def _draw_tsne(paths: list[Path], arguments: argparse.Namespace, stack: ExitStack) -> Figure:
    from neurosim.analysis.representations import activities
    from neurosim.plot import tsne_figure
    from neurosim.plot.representations import PANELS

    (run,) = _runs([_one(paths, "tsne")], "tsne")
    images, labels = _samples(run, arguments)
    found = activities(run.circuit, run.weights, images, labels, arguments.record)
    if arguments.record is None:
        found = dict(list(found.items())[:PANELS])
    return tsne_figure(found, labels, title=run.folder.name)


def _draw_learning(paths: list[Path], arguments: argparse.Namespace, stack: ExitStack) -> Figure:
    from neurosim.plot import learning_curves

    runs = _runs(paths, "learning")
    for run in runs:
        if not run.metrics:
            raise NeurosimError(f"The run '{run.folder.name}' has no epoch that ended, so there is no curve to draw.")
    return learning_curves(_by_seed(runs))


def _by_seed(runs: Sequence[Run]) -> dict[str, Any]:
    """``{label: rows, or rows per seed}``: runs that differ by their seed alone (and by what was recorded of them) go together.

    A run that began from given weights does not go with those that began from their seed.
    """
    from neurosim.training.config import label
    from neurosim.training.run import read_origin

    groups: list[list[Run]] = []
    given = {run.folder: bool(read_origin(run.folder).get("weights")) for run in runs}
    for run in runs:
        for group in groups:
            same = replace(group[0].config, seed=run.config.seed, recorder=run.config.recorder) == run.config
            same = same and given[group[0].folder] == given[run.folder]
            if same and all(other.config.seed != run.config.seed for other in group):
                group.append(run)
                break
        else:
            groups.append([run])
    names = [g[0].folder.name if len(g) == 1 else label(g[0].config) for g in groups]
    paths = [str(g[0].folder if len(g) == 1 else g[0].folder.parent) for g in groups]
    labels = [name if names.count(name) == 1 else path for name, path in zip(names, paths, strict=True)]
    if len(set(labels)) < len(labels):  # several groups in one folder
        labels = [f"{name}: {', '.join(r.folder.name for r in g)}" for name, g in zip(labels, groups, strict=True)]
    curves = [g[0].metrics if len(g) == 1 else [r.metrics for r in g] for g in groups]
    return dict(zip(labels, curves, strict=True))


def _draw_fields(paths: list[Path], arguments: argparse.Namespace, stack: ExitStack) -> Figure:
    from neurosim.description import Conv2d, Dense
    from neurosim.equations import unit_text
    from neurosim.plot import fields_figure

    (run,) = _runs([_one(paths, "fields")], "fields")
    circuit = run.circuit
    known = {
        p.name: p for p in circuit.projections if isinstance(p.connectivity, Dense | Conv2d) and p.name in run.weights
    }
    images = {name for phase in circuit.plan.phases for (name, _), field in phase.clamps.items() if field == "image"}
    names = arguments.record or [n for n, p in known.items() if p.source_population in images][:1]
    if len(names) != 1:
        raise NeurosimError(
            f"--kind fields draws one projection, and got {len(names)}; name one with --record. Known: {', '.join(known)}."
        )
    if names[0] not in known:
        raise unknown("projection with weights of its own", names[0], known)
    projection = known[names[0]]
    n: Any = circuit.population(projection.source_population).n
    shape = n if isinstance(n, tuple) else None
    if isinstance(projection.connectivity, Conv2d):
        size = projection.connectivity.size
        shape = (n[0], size, size)
    unit = unit_text(circuit.plan.projections[names[0]].weight_dimension)
    return fields_figure(run.weights[names[0]], shape, arguments.cells, names[0], unit=unit)


def _draw_network(paths: list[Path], arguments: argparse.Namespace, stack: ExitStack) -> Figure:
    from neurosim import registry
    from neurosim.plot import network_figure

    path = _one(paths, "network")
    if _what(path) == _MODEL:
        model = registry.model(str(path))
        settings = model.checked(registry.parse_settings(arguments.settings))
        preset = {k: v for k, v in model.preset(settings, "digits").items() if k in model.parameters}
        return network_figure(model.circuit(preset | settings))
    if arguments.settings:
        raise NeurosimError(
            f"--set is for a model, and '{path}' is {_what(path)}, whose settings stand in its config.toml. Give the model's name, or leave "
            "--set out."
        )
    (run,) = _runs([path], "network")
    return network_figure(run.circuit)


def _draw_evolution(paths: list[Path], arguments: argparse.Namespace, stack: ExitStack) -> Figure:
    from neurosim.plot import evolution_figure
    from neurosim.training.run import read_metrics

    rows = {}
    names = [path.name for path in paths]
    for path in paths:
        if _what(path) != _EVOLUTION:
            raise _misfit(path, "evolution", _what(path))
        rows[path.name if names.count(path.name) == 1 else str(path)] = read_metrics(path)
    return evolution_figure(rows)


_RUN_FOLDER = "a run folder of `neurosim train`"
_TRACES_FILE = "a traces.h5 of `neurosim simulate`"

KINDS: dict[str, Kind] = {
    "traces": Kind(
        "variables of a few cells over time, phases shaded", "neurosim plot runs/t/traces.h5 --record pyr1.u pyr1.E --cells 0 5",
        _TRACES_FILE, _draw_traces, ("--record", "--cells"),
    ),
    "levels": Kind(
        "the same variables on several levels, and how far they differ", "neurosim plot runs/dense/traces.h5 runs/torch/traces.h5",
        "several traces.h5 of `neurosim simulate` with one circuit and other levels", _draw_levels,
        ("--record", "--cells"),
    ),
    "raster": Kind("spikes, a row per cell", "neurosim plot runs/bac --kind raster", _TRACES_FILE, _draw_raster, ("--record",)),
    "rates": Kind(
        "rate of each population over time: spikes in bins (Hz), or the mean of a rate variable",
        "neurosim plot runs/t --kind rates --record pyr1.r pyr2.r", _TRACES_FILE, _draw_rates, ("--record",),
    ),
    "fi": Kind(
        "f-I curve: firing rate or rate variable against a current", "neurosim plot runs/t --kind fi --record cell.I_s cell --by cell.I_a",
        _TRACES_FILE, _draw_fi, ("--record", "--phase", "--by"),
    ),
    "weights": Kind(
        "weights over training: norm, distribution, angle of forward and feedback weights", "neurosim plot runs/ghost --kind weights",
        "a run folder of `neurosim train MODEL --record W1 W2`", _draw_weights, ("--record",),
    ),
    "cosine": Kind(
        "cosine of the weight change with minus the backprop gradient over training", "neurosim plot runs/ghost --kind cosine --samples 200",
        "a run folder of `neurosim train MODEL --record` with every plastic projection", _draw_cosine, ("--samples", "--data-dir"),
    ),
    "cka": Kind(
        "likeness of what populations represent (linear CKA)", "neurosim plot runs/ghost --kind cka --before", _RUN_FOLDER, _draw_cka,
        ("--record", "--samples", "--before", "--data-dir"),
    ),
    "tsne": Kind(
        "activity of populations in the plane, by class (extra analysis)", "neurosim plot runs/ghost --kind tsne --record inp pyr1 pyr2",
        _RUN_FOLDER, _draw_tsne, ("--record", "--samples", "--data-dir"),
    ),
    "learning": Kind(
        "accuracy and loss over epochs; runs that differ by seed only as mean and sd", "neurosim plot runs/sweep/*/seed*", _RUN_FOLDER,
        _draw_learning,
    ),
    "fields": Kind(
        "incoming weights of cells as pictures", "neurosim plot runs/ghost --kind fields --record W1", _RUN_FOLDER, _draw_fields,
        ("--record", "--cells"),
    ),
    "network": Kind(
        "diagram of a circuit", "neurosim plot ghost_units --set mode=learned --to ghost.svg",
        "a model of `neurosim list` or a run folder of `neurosim train`", _draw_network, ("--set",),
    ),
    "evolution": Kind(
        "fitness over generations", "neurosim plot runs/credits", "a folder of `neurosim evolve`", _draw_evolution
    ),
}  # fmt: skip
