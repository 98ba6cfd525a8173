"""What of the traces a figure draws: variables, cells by their numbers, one sample; refusals of what was not recorded."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from neurosim.checks import check
from neurosim.errors import NeurosimError, unknown
from neurosim.plot.style import LINES, plain
from neurosim.plot.window import Window
from neurosim.traces import Traces
from neurosim.traces.layout import population_of

#: Cells that are chosen where none are named.
CELLS = 3
#: Most rows that are read to choose them.
_ROWS = 4000

#: One list for every population, or ``{population: list}``.
Cells = Sequence[int] | Mapping[str, Sequence[int]]


def check_type(given: Any, wanted: type, what: str) -> None:
    """Refuse an object of another type; `what` says which is wanted and where it is had from."""
    if not isinstance(given, wanted):
        raise NeurosimError(
            f"Got {'None' if given is None else f'an object of type {type(given).__name__}'}; wanted {what}."
        )


def check_traces(traces: Any) -> None:
    check_type(traces, Traces, "Traces, such as simulate(..., record=['population.variable']).traces")


def check_not_empty(traces: Traces, where: str = "") -> None:
    check_traces(traces)
    if not traces.values:
        raise NeurosimError(f"{where}The traces hold no variable; pass record=['population.variable', ...] to the run.")
    if not len(traces.time):
        raise NeurosimError(f"{where}The traces hold no step: nothing was recorded before the run ended.")


def check_sample(traces: Traces, names: Sequence[str], sample: int) -> None:
    check("sample", sample, int)
    batch = traces.values[names[0]].shape[1]
    if not 0 <= sample < batch:
        raise NeurosimError(f"There is no sample {sample}: the batch has {batch}, counted from 0.")


def variables_of(
    wanted: Sequence[str] | None,
    known: Sequence[str],
    most: int | None,
    what: str,
    argument: str = "variables",
) -> list[str]:
    """The names that are wanted, or the first ones, each once."""
    if wanted is None:
        return list(known)[:most]
    if isinstance(wanted, str):
        raise NeurosimError(f"Got the text '{wanted}' for `{argument}`; wanted a list, such as ['{wanted}'].")
    for name in wanted:
        if name not in known:
            raise unknown(what, name, known)
    if not wanted:
        raise NeurosimError(f"Got an empty list of {argument}; leave `{argument}` out to draw the first ones.")
    if most is not None and len(wanted) > most:
        raise NeurosimError(f"Got {len(wanted)} {argument}; one figure takes at most {most}. Ask for fewer.")
    return list(dict.fromkeys(wanted))


def numbers_of(traces: Traces, name: str) -> np.ndarray:
    """The number of the cell in each column of a population's variables."""
    columns = next((v.shape[-1] for n, v in traces.values.items() if population_of(n) == population_of(name)), 0)
    return np.asarray(traces.cells.get(population_of(name), np.arange(columns)))


def columns_of(traces: Traces, name: str, cells: Sequence[int]) -> list[int]:
    """The columns of cells given by their numbers."""
    place = {int(number): k for k, number in enumerate(numbers_of(traces, name))}
    return [place[cell] for cell in cells]


def cells_of(
    traces: Traces,
    names: Sequence[str],
    cells: Cells | None,
    sample: int,
    window: Window,
    joined: Collection[str] = (),
) -> dict[str, list[int]]:
    """The numbers of the cells of each population; its variables share them, so that a colour means a cell.

    Of the `joined` populations one cell is chosen, where none are named."""
    cells = check("cells", cells, Cells | None)
    chosen: dict[str, list[int]] = {}
    populations = list(dict.fromkeys(population_of(name) for name in names))
    if isinstance(cells, Mapping):
        for name in cells:
            if name not in populations:
                raise unknown("drawn population", name, populations)
    for one in populations:
        own = [name for name in names if population_of(name) == one]
        numbers = numbers_of(traces, one)
        wanted = cells.get(one) if isinstance(cells, Mapping) else cells
        if wanted is None:
            rows = slice(0, window.keep.stop, -(-window.keep.stop // _ROWS))
            values = [np.asarray(traces.values[name][rows, sample], dtype=float) for name in own]
            chosen[one] = [int(numbers[k]) for k in _liveliest(values, 1 if one in joined else CELLS)]
            continue
        most = 3 * len(LINES)
        if not 0 < len(wanted) <= most:
            raise NeurosimError(f"Got {len(wanted)} cells of '{one}'; wanted 1 to {most}, to tell them apart.")
        for cell in wanted:
            if cell in numbers:
                continue
            if one in traces.cells:
                listed = ", ".join(map(str, numbers[:12])) + (", ..." if len(numbers) > 12 else "")
                raise NeurosimError(f"Cell {cell} of '{one}' was not recorded; recorded: {listed}.")
            n = len(numbers)
            raise NeurosimError(f"There is no cell {cell} in '{one}': it has {n} cells, 0 to {n - 1}.")
        chosen[one] = [int(cell) for cell in dict.fromkeys(wanted)]
    return chosen


def _liveliest(values: Sequence[np.ndarray], count: int) -> list[int]:
    """The column that varies most in each of `count` parts; `values` are (steps, columns), one array per variable."""
    score = np.zeros(values[0].shape[1])
    for x in values:
        x = np.clip(np.nan_to_num(x, nan=0.0), -1e100, 1e100)  # a run that diverged is drawn, too
        spread = x.std(axis=0)
        score += spread / max(spread.max(), np.finfo(float).tiny)
    parts = np.array_split(np.arange(len(score)), min(count, len(score)))
    return [int(part[np.argmax(score[part])]) for part in parts]


def largest(values: np.ndarray) -> float:
    """The largest absolute value among the finite ones, 0 without any."""
    finite = np.abs(values[np.isfinite(values)])
    return float(finite.max()) if finite.size else 0.0


def dropped(names: Sequence[str], known: Collection[str]) -> str:
    """What a title says of variables that have no panel."""
    return f"{len(names)} of {len(known)} variables" if len(names) < len(known) else ""


def sample_note(traces: Traces, sample: int) -> str:
    """Which sample of the batch is drawn, where there are several."""
    return f"sample {sample} of {traces.batch}" if traces.batch > 1 else ""


def title_of(title: str | None, traces: Traces, notes: Sequence[str], level: bool) -> str:
    """The title, by default model and level, with the notes in brackets."""
    if title is None:
        keys = ("model", "level") if level else ("model",)
        title = plain(", ".join(str(traces.metadata[key]) for key in keys if key in traces.metadata))
    note = plain(", ".join(n for n in notes if n))
    return f"{title} ({note})" if title and note else title or note.capitalize()
