"""Results of an experiment on disk: rows by label, Markdown tables, one Markdown file, one JSON file, figures."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from neurosim.escape import markdown
from neurosim.plot.style import save_figure
from neurosim.simulation import versions


def select(rows: Iterable[Mapping[str, Any]], **labels: Any) -> list[Mapping[str, Any]]:
    """The rows that carry the labels."""
    return [row for row in rows if all(row[name] == value for name, value in labels.items())]


def column(rows: Iterable[Mapping[str, Any]], key: str, **labels: Any) -> np.ndarray:
    """A key of the rows (seeds) that carry the labels."""
    found = select(rows, **labels)
    assert found, labels
    return np.array([row[key] for row in found])


def listed(values: Iterable[float], places: int = 3) -> str:
    """``0.952 / 0.957 / 0.976``."""
    return " / ".join(f"{value + 0.0:.{places}f}" for value in values)


def mean_sd(values: Sequence[float] | np.ndarray, factor: float = 100.0, places: int = 1) -> str:
    """``96.9 ± 0.3``: mean ± sd (n - 1), in % unless said; the value alone where there is one."""
    if not len(values):
        return "-"
    scaled = factor * np.asarray(values)
    return f"{scaled.mean():.{places}f}" + (f" ± {scaled.std(ddof=1):.{places}f}" if len(scaled) > 1 else "")


def collect(
    name: str, jobs: Sequence[Mapping[str, Any]], run: Callable[..., Mapping[str, Any]], out: Path
) -> list[dict[str, Any]]:
    """Rows ``{**job, **run(**job)}``, in the order of the jobs.

    Each is written to NAME.jsonl as it is finished. Rows found there, or in the NAME.json of a whole experiment, are not run again.
    """
    store, whole = out / f"{name}.jsonl", out / f"{name}.json"
    kept = json.loads(whole.read_text())["rows"] if whole.is_file() else []
    kept += [json.loads(line) for line in store.read_text().splitlines()] if store.is_file() else []
    rows = []
    with tqdm(jobs, unit="run") as bar:
        for job in bar:
            bar.set_postfix_str(", ".join(f"{key} {value}" for key, value in job.items()))
            found = [row for row in kept if all(key in row and row[key] == value for key, value in job.items())]
            if not found:
                found = [{**job, **run(**job)}]
                with store.open("a") as file:
                    file.write(json.dumps(found[0]) + "\n")
            rows.append(dict(found[-1]))
    return rows


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(markdown(str(cell)) for cell in line) + " |" for line in lines) + "\n"


def save(
    out: Path,
    name: str,
    text: str,
    figures: Figure | Mapping[str, Figure],
    settings: Mapping[str, Any],
    results: Mapping[str, Any],
) -> None:
    """Write NAME.md, NAME.json and NAME.png (or a PNG per named figure), and print the first.

    Absolute paths of the command line stay out of the files.
    """
    if isinstance(figures, Figure):
        figures = {name: figures}
    script = Path(sys.argv[0]).resolve()
    arguments = [Path(x).name if Path(x).is_absolute() else x for x in sys.argv[1:]]
    command = " ".join(["python", f"experiments/{script.parent.name}/{script.name}", *arguments])
    report = {"command": command, "versions": versions(), "settings": settings, **results}
    (out / f"{name}.json").write_text(as_json(report) + "\n", encoding="utf-8")
    (out / f"{name}.md").write_text(text, encoding="utf-8")
    for stem, figure in figures.items():
        save_figure(figure, out / f"{stem}.png")
    print(text)
    print(f"Wrote {name}.json, {name}.md, {', '.join(f'{stem}.png' for stem in figures)} to {out}.")


def as_json(report: Mapping[str, Any]) -> str:
    """One line per row of results, so that a difference between two runs can be read."""
    parts = []
    for key, value in report.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            lines = ",\n    ".join(json.dumps(_rounded(row)) for row in value)
            parts.append(f'  "{key}": [\n    {lines}\n  ]')
        else:
            parts.append(f'  "{key}": {json.dumps(_rounded(value))}')
    return "{\n" + ",\n".join(parts) + "\n}"


def _rounded(value: Any) -> Any:
    """Eight digits: more differ from machine to machine. None where a number is not finite."""
    if isinstance(value, float | np.floating):
        return float(f"{value:.8g}") if np.isfinite(value) else None
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, Mapping):
        return {key: _rounded(x) for key, x in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_rounded(x) for x in value]
    return value
