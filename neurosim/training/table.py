"""Tables of run folders: mean, sd and interval over seeds, cost, and a paired comparison with a baseline, seed by seed.

A seed that failed or is not finished is counted and named, never dropped in silence; means are over the finished ones.
"""

from __future__ import annotations

import csv as csv_module
import io
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from neurosim import escape
from neurosim.describe.latex import character
from neurosim.errors import NeurosimError, unknown
from neurosim.files import user_path
from neurosim.training.config import TrainConfig, differing, flat, label, pair
from neurosim.training.run import CONFIG, RESULT, read_origin, read_result

#: Metric -> what tables call it, unit, factor to that unit, decimals, +1 where more is better.
MEASURED = {
    "test_accuracy": ("Test accuracy", "%", 100.0, 2, 1),
    "validation_accuracy": ("Validation accuracy", "%", 100.0, 2, 1),
    "test_loss": ("Test loss", "", 1.0, 4, -1),
    "validation_loss": ("Validation loss", "", 1.0, 4, -1),
}
BASELINE = "backprop"
#: A p value of fewer pairs says nothing.
PAIRS = 3


@dataclass(frozen=True)
class Row:
    """A run folder: its configuration, result (empty while unfinished) and the versions that it ran with."""

    folder: Path
    config: TrainConfig
    result: dict[str, Any]
    versions: dict[str, str]

    @property
    def finished(self) -> bool:
        return bool(self.result) and "failed" not in self.result


@dataclass(frozen=True)
class Summary:
    """The seeds of a method on a data set, in the metric's unit; None where too few seeds say nothing.

    `low` and `high` bound the 95 % interval of the mean (Student t), `difference_low` and `difference_high` that of the mean difference
    to the baseline over the `pairs` seeds that both finished; the baseline itself has no pairs.
    """

    method: str
    data: str
    n: int
    mean: float | None
    sd: float | None
    low: float | None
    high: float | None
    failed: tuple[int, ...]
    unfinished: tuple[int, ...]
    seconds: float | None
    time_ratio: float | None
    pairs: int
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    p: float | None
    better: int


def collect(folders: Iterable[str | Path]) -> list[Row]:
    """Every run folder in or below the given ones.

    Raises
    ------
    NeurosimError
        No run there; several settings or the same seed twice under one name and data set.
    """
    folders = [user_path(folder) for folder in folders]
    missing = [str(folder) for folder in folders if not folder.is_dir()]
    if missing:
        raise NeurosimError(f"There is no folder '{missing[0]}'; give folders of `neurosim sweep` or `neurosim train`.")
    found = sorted({path.parent.resolve() for folder in folders for path in folder.rglob(CONFIG)})
    if not found:
        raise NeurosimError(f"No run folder (with a {CONFIG}) in {', '.join(map(str, folders))}.")
    rows = [
        Row(f, TrainConfig.from_toml(f / CONFIG), read_result(f), read_origin(f).get("versions", {})) for f in found
    ]
    first: dict[tuple[str, str], Row] = {}
    seeds: dict[tuple[str, str, int], Row] = {}
    for row in rows:
        key = (label(row.config), row.config.data)
        other = first.setdefault(key, row)
        keys = [k for k in differing(row.config, other.config) if k not in ("seed", "name")]
        if keys:
            raise NeurosimError(
                f"Several settings are called '{key[0]}' on {key[1]}: {other.folder} and {row.folder} differ in {', '.join(keys)}. "
                "Give each a name of its own (name = ... in its file), or name fewer folders."
            )
        twin = seeds.setdefault((*key, row.config.seed), row)
        if twin is not row:
            raise NeurosimError(
                f"'{key[0]}' on {key[1]} has seed {row.config.seed} twice: {twin.folder} and {row.folder}. Name fewer folders."
            )
    return rows


def summarise(rows: Sequence[Row], baseline: str | None = None, metric: str = "test_accuracy") -> list[Summary]:
    """Statistics by method and data set, the baseline (None: `BASELINE`, if it is there) first."""
    if metric not in MEASURED:
        raise unknown("metric", metric, MEASURED)
    for row in rows:
        if row.finished and metric not in row.result:
            have = ", ".join(name for name in MEASURED if name in row.result)
            raise NeurosimError(
                f"{row.folder / RESULT} has no {metric} (a run with test = false leaves the test set alone, one that answers with images has no "
                f"accuracy). It has {have}: choose one of those with --metric."
            )
    names = sorted({label(row.config) for row in rows})
    if baseline is not None and baseline not in names:
        raise unknown("baseline", baseline, names)
    baseline = baseline or BASELINE
    return [
        _summary(name, data, rows, baseline, metric)
        for name in sorted(names, key=lambda name: name != baseline)
        for data in sorted({row.config.data for row in rows if label(row.config) == name})
    ]


def _summary(name: str, data: str, rows: Sequence[Row], baseline: str, metric: str) -> Summary:
    *_, factor, _, sign = MEASURED[metric]
    here = {who: [r for r in rows if (label(r.config), r.config.data) == (who, data)] for who in (name, baseline)}
    own, other = ({r.config.seed: r.result for r in here[who] if r.finished} for who in (name, baseline))
    values = np.array([factor * result[metric] for result in own.values()])
    shared = sorted(own.keys() & other.keys())
    pairs = shared if name != baseline else []
    differences = np.array([factor * (own[seed][metric] - other[seed][metric]) for seed in pairs])
    p = None
    if len(pairs) >= PAIRS and np.ptp(differences) > 1e-9 * np.abs(differences).max():
        a, b = ([result[seed][metric] for seed in pairs] for result in (own, other))
        p = float(stats.ttest_rel(a, b).pvalue)
    mean, low, high = _interval(values)
    difference, difference_low, difference_high = _interval(differences)
    ratios = [own[seed]["seconds_per_epoch"] / other[seed]["seconds_per_epoch"] for seed in shared]
    return Summary(
        name, data, len(values), mean, float(values.std(ddof=1)) if len(values) > 1 else None, low, high,
        failed=tuple(sorted(r.config.seed for r in here[name] if "failed" in r.result)),
        unfinished=tuple(sorted(r.config.seed for r in here[name] if not r.result)),
        seconds=_median([result["seconds"] for result in own.values()]), time_ratio=_median(ratios),
        pairs=len(pairs), difference=difference, difference_low=difference_low, difference_high=difference_high, p=p,
        better=int((sign * differences > 0).sum()),
    )  # fmt: skip


def _median(values: list[float]) -> float | None:
    return float(np.median(values)) if values else None


def _interval(values: np.ndarray) -> tuple[float | None, float | None, float | None]:
    """Mean and its 95 % interval by Student's t."""
    if len(values) < 2:
        return (float(values[0]) if len(values) else None), None, None
    mean = float(values.mean())
    half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return mean, mean - half, mean + half


# ---------------------------------------------------------------- as text

Table = tuple[str, list[str], list[list[str]]]  # title, header, rows
NONE = "–"


def _tables(summaries: Sequence[Summary], metric: str) -> list[Table]:
    title, unit, _, places, _ = MEASURED[metric]
    sets = sorted({s.data for s in summaries})
    by = {(s.method, s.data): s for s in summaries}
    methods = list(dict.fromkeys(s.method for s in summaries))
    tables: list[Table] = [
        (
            f"{title}{f' in {unit}' if unit else ''}: mean ± sd over the finished seeds [95 % interval of the mean]",
            ["method", *sets],
            [[m, *(_cell(by[m, d], places) if (m, d) in by else NONE for d in sets)] for m in methods],
        )
    ]
    compared = any(s.time_ratio is not None for s in summaries)
    baseline = summaries[0].method  # where anything is compared, it stands first
    header = ["method", "data", "finished", "failed", "unfinished", "median seconds"]
    cost = [
        [
            s.method, s.data, str(s.n), _seeds(s.failed), _seeds(s.unfinished), _number(s.seconds, 1),
            *([_number(s.time_ratio, 2)] if compared else []),
        ]
        for s in summaries
    ]  # fmt: skip
    tables.append(("Seeds and cost", header + ([f"time / {baseline}"] if compared else []), cost))
    paired = [
        [
            s.method, s.data, str(s.pairs), _number(s.difference, places, "+"),
            _range(s.difference_low, s.difference_high, places, "+"), _p(s), f"{s.better} of {s.pairs}",
        ]
        for s in summaries
        if s.pairs
    ]  # fmt: skip
    if paired:
        difference = "mean difference" + (" (points)" if unit else "")
        header = ["method", "data", "pairs", difference, "95 % interval", "p", "better in"]
        tables.append((f"Difference to {baseline}, seed by seed", header, paired))
    return tables


def _cell(s: Summary, places: int) -> str:
    if s.mean is None:
        text = NONE
    else:
        text = _number(s.mean, places) + (
            f" ± {s.sd:.{places}f} {_range(s.low, s.high, places)}" if s.sd is not None else ""
        )
    lost = [f"{len(seeds)} {what}" for what in ("failed", "unfinished") if (seeds := getattr(s, what))]
    return ", ".join([f"{text} n={s.n}", *lost])


def _number(value: float | None, places: int, sign: str = "") -> str:
    return NONE if value is None else f"{value:{sign}.{places}f}"


def _range(low: float | None, high: float | None, places: int, sign: str = "") -> str:
    return NONE if low is None else f"[{_number(low, places, sign)}, {_number(high, places, sign)}]"


def _seeds(seeds: tuple[int, ...]) -> str:
    return f"{len(seeds)} (seed {', '.join(map(str, seeds))})" if seeds else "0"


def _p(s: Summary) -> str:
    if s.pairs < PAIRS:
        return "too few seeds"
    return "same difference in all" if s.p is None else "<0.001" if s.p < 0.001 else f"{s.p:.3f}"


def markdown(summaries: Sequence[Summary], rows: Sequence[Row], metric: str = "test_accuracy") -> str:
    """The tables in Markdown, columns aligned, with what was run below them."""
    text = []
    for title, header, lines in _tables(summaries, metric):
        written = [[escape.markdown(cell) for cell in line] for line in (header, *lines)]
        widths = [max(map(len, column)) for column in zip(*written, strict=True)]
        cells = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in written]
        cells.insert(1, ["-" * width for width in widths])
        text.append(f"**{escape.markdown(title)}**\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in cells))
    notes = ["sd with n - 1; intervals by Student's t; p by the paired t test, not corrected for several comparisons."]
    if not any(s.time_ratio is not None for s in summaries):
        notes.append("No run to compare with: --baseline NAME names one that finished the same data sets and seeds.")
    return "\n".join([*text, " ".join(notes) + "\n", _what_was_run(rows, escape.markdown)])


def _what_was_run(rows: Sequence[Row], escaped: Callable[[str], str] = escape.one_line) -> str:
    """Epochs, batch size and sizes, the keys in which the methods differ, and versions."""
    groups = {(label(row.config), row.config.data): row.config for row in rows}
    first, *_ = configs = list(groups.values())
    varied = {k for config in configs for k in differing(config, first)} - {"seed", "name", "data"}
    usual = TrainConfig(first.model)
    common = (
        {"model", "epochs", "batch_size", "settings.sizes", *differing(first, usual)}
        - varied
        - {"seed", "name", "data"}
    )
    common = {k for k in common if not k.startswith("settings.") or k == "settings.sizes"}
    lines = [f"all: {_listed(first, common)}"]
    lines += [f"{name} on {data}: {_listed(config, varied)}" for (name, data), config in groups.items() if varied]
    used = sorted({", ".join(f"{k} {v}" for k, v in row.versions.items()) for row in rows if row.versions})
    lines += [f"versions: {text}" for text in used]
    return "\n".join(["**What was run**\n", *(f"- {escaped(line)}" for line in lines)]) + "\n"


def _listed(config: TrainConfig, keys: Collection[str]) -> str:
    given = {k: v for k, v in flat(asdict(config)).items() if k in keys and v is not None}
    return ", ".join(pair(k, v) for k, v in given.items()) or "(no key in common)"


def _escaped(text: str) -> str:
    text = "".join(character(c) for c in escape.one_line(text))
    return re.sub(r"(?<![\w-])([+-])(?=\d)", r"$\1$", text)


def latex(summaries: Sequence[Summary], rows: Sequence[Row], metric: str = "test_accuracy") -> str:
    """The tables in LaTeX, for ``\\usepackage{booktabs}``, with what was run as a comment."""
    text = ["".join(f"% {line}\n" for line in _what_was_run(rows).splitlines() if line)]
    for title, header, lines in _tables(summaries, metric):
        body = [" & ".join(map(_escaped, line)) + r" \\" for line in (header, *lines)]
        text.append(
            "\n".join(
                [
                    r"\begin{table}",
                    r"\centering",
                    rf"\caption{{{_escaped(title)}}}",
                    rf"\begin{{tabular}}{{{'l' * len(header)}}}",
                    r"\toprule",
                    body[0],
                    r"\midrule",
                    *body[1:],
                    r"\bottomrule",
                    r"\end{tabular}",
                    r"\end{table}",
                    "",
                ]
            )
        )
    return "\n".join(text)


def csv(summaries: Sequence[Summary], rows: Sequence[Row], metric: str = "test_accuracy") -> str:
    """One line per method and data set, numbers in full; lists of seeds with spaces between."""
    file = io.StringIO()
    writer = csv_module.DictWriter(file, ["metric", *Summary.__dataclass_fields__], lineterminator="\n")
    writer.writeheader()
    for summary in summaries:
        values = {k: " ".join(map(str, v)) if isinstance(v, tuple) else v for k, v in asdict(summary).items()}
        writer.writerow({"metric": metric, **{k: escape.csv_cell(v) for k, v in values.items()}})
    return file.getvalue()


FORMATS: dict[str, Callable[[Sequence[Summary], Sequence[Row], str], str]] = {
    "markdown": markdown,
    "latex": latex,
    "csv": csv,
}
