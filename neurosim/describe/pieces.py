"""Pieces of tables: names, lists, groups, parameters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from neurosim.describe import maths, quantities
from neurosim.describe.document import Maths, Name, Span, Table, Text
from neurosim.equations import quantity
from neurosim.equations.units import DIMENSIONLESS
from neurosim.parts.text import unit_of
from neurosim.plan import Plan, ProjectionPlan

#: Widths of a table of facts.
LEFT = (0.2, 0.8)
NOTHING: Text = ("none",)
HERTZ = quantity("1*Hz")[1]
IDENTITY: Text = (Maths("I", (r"\mathbf{I}",)), " the identity matrix")


def named(names: Iterable[str]) -> Text:
    """Names with commas between."""
    spans: list[Span] = []
    for name in names:
        spans += [", ", Name(name)] if spans else [Name(name)]
    return tuple(spans)


def backticked(text: str) -> Text:
    """A text with names in backticks."""
    return tuple(Name(part) if number % 2 else part for number, part in enumerate(text.split("`")) if part)


def joined(texts: Iterable[Text], between: str = "; ") -> Text:
    """Texts with something between; empty ones are left out."""
    spans: list[Span] = []
    for text in texts:
        if text:
            spans += [between, *text] if spans else text
    return tuple(spans)


def listing(rows: Iterable[tuple[str | Text, Text]]) -> Table:
    """A table of names on the left and what they are on the right; rows without content are left out."""
    shown = tuple(((left,) if isinstance(left, str) else left, right) for left, right in rows if right)
    return Table(("", ""), shown, LEFT)


def product(sizes: Iterable[int | str]) -> Maths:
    """A size such as 3 x 4."""
    numbers = [str(n) for n in sizes]
    return Maths(" x ".join(numbers), (r" \times ".join(numbers),))


def counted(count: int, what: str) -> str:
    """A number of things."""
    plural = f"{what[:-1]}ies" if what.endswith("y") else f"{what}s"
    return f"{count:,} {what if count == 1 else plural}"


def duration(time: float) -> Maths:
    """A time (s), in ms."""
    return quantities.value(f"{time * 1e3:.6g}*ms")


def weight_unit(plan: Plan, q: ProjectionPlan, numbers: Any, given: Iterable[Any] = ()) -> str:
    """The unit to write weights in, as Brian2 writes it.

    That of the first text in `given`, else the one that fits the `numbers` (base SI units). Where a rate in Hz is sent it is the port's unit
    over Hz (pA/Hz, not pC), unless the port's holds the time itself (S/s); so it is where the quotient has no name (nS/V).
    """
    if q.weight_dimension is DIMENSIONLESS:
        return "1"
    if written := next(filter(None, map(quantities.written_unit, given)), ""):
        return written
    sent = plan.populations[q.source].dimensions.get(q.variable, DIMENSIONLESS)
    port = quantities.best_unit(numbers, plan.populations[q.target].dimensions[q.port])
    own = quantities.best_unit(numbers, q.weight_dimension)
    named_port = port == "1" or port.isidentifier()
    if own.isidentifier() and not (sent is HERTZ and named_port):
        return own
    port = port if named_port else unit_of(plan.circuit.population(q.target).cell, q.port)
    return port if sent is DIMENSIONLESS else f"{port}/({quantities.best_unit(1.0, sent)})"


def numbered(groups: list[list[Any]], name: Callable[[Any], str]) -> dict[str, list[Any]]:
    """Groups by name; those of one name are numbered."""
    names = [name(group[0]) for group in groups]
    count: Counter[str] = Counter()
    labels = []
    for n in names:
        count[n] += 1
        labels.append(f"{n} {count[n]}" if names.count(n) > 1 else n)
    return dict(zip(labels, groups, strict=True))


def grouped(items: Iterable[Any], key: Callable[[Any], Hashable]) -> list[list[Any]]:
    """Items of one key, in the order of their first."""
    groups: dict[Hashable, list[Any]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.values())


def parameter_table(owners: Sequence[tuple[str, Mapping[str, Any]]]) -> tuple[Table, ...]:
    """Parameters of several owners; where they differ, whose value is which. In plain text a symbol is the name again: left out."""
    rows = []
    for name in dict.fromkeys(n for _, values in owners for n in values):
        values: dict[Hashable, tuple[Maths, list[str]]] = {}
        for owner, given in owners:
            if name in given:
                number = np.asarray(quantity(given[name])[0]).tobytes()
                values.setdefault(number, (quantities.value(given[name]), []))[1].append(owner)
        same = len(values) == 1
        cell = joined((shown,) if same else (shown, " (", *named(whose), ")") for shown, whose in values.values())
        rows.append(((Name(name),), (Maths("", (maths.symbol_latex(name),)),), cell))
    return (Table(("Parameter", "Symbol", "Value"), tuple(rows), (0.2, 0.2, 0.6)),) if rows else ()
