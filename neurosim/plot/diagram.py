"""Where the boxes and arrows of a circuit's diagram stand."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.textpath import TextPath

from neurosim.circuit import Circuit
from neurosim.description import OneToOne
from neurosim.plot.signs import Sign, effects

# Inches.
_ROW = 0.155  # a port, or room for one more arrow at it
_TITLE = 0.36  # name and number of cells
_LANE = 0.09  # between two arrows that run side by side
_STUB = 0.14  # between a box and the lanes beside it, at least; more where the names of arrows stand
_GAP = 0.16  # between the boxes of a column
_MARGIN = 0.12
#: Sizes of text in points: names of arrows, ports, names of populations.
LABEL, SMALL, MIDDLE = 6.5, 7.0, 8.5

#: The population of biases, which has no box.
ONE = "one"


@dataclass
class Box:
    """A population in the diagram; lengths in inches from the lower left corner."""

    name: str
    title: str
    note: str
    ports: list[str]  # and reductions, with their signs
    column: int
    row: int
    x: float = 0.0
    y: float = 0.0
    width: float = 0.0
    height: float = 0.0
    port_y: dict[str, tuple[float, float]] = field(default_factory=dict)  # lower and upper edge of a port


@dataclass
class Arrow:
    """A projection in the diagram: its corners from source to target, in inches."""

    name: str
    source: str
    target: str
    port: str
    kind: str
    # On the rate by way of the potential: 1, -1, 0 where it moves neither, None where the equations do not say.
    effect: Sign
    points: list[tuple[float, float]] = field(default_factory=list)
    sides: tuple[str, str] = ("right", "left")  # where it leaves and where it arrives


@dataclass
class Diagram:
    """Where everything stands: boxes and arrows by name, width and height in inches."""

    boxes: dict[str, Box]
    arrows: dict[str, Arrow]
    width: float
    height: float


def diagram(circuit: Circuit) -> Diagram:
    """Place boxes and arrows: `network_figure` without the drawing."""
    plans = circuit.plan.projections.values()
    signs = effects(circuit)
    arrows = {q.name: Arrow(q.name, q.source, q.target, q.port, _kind(circuit, q), signs[q.name]) for q in plans}
    boxes = _boxes(circuit, _levels(circuit))
    _choose_sides(boxes, arrows)
    return _place(boxes, arrows)


def _kind(circuit: Circuit, q: Any) -> str:
    if q.name in circuit.evolved:
        return "evolved"
    if q.root != q.name:
        return "tied"
    if q.rule is not None:
        return "plastic"
    return "one to one" if isinstance(q.connectivity, OneToOne) else "fixed"


def _neighbours(circuit: Circuit) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {p.name: set() for p in circuit.populations if p.name != ONE}
    for q in circuit.plan.projections.values():
        if ONE not in (q.source, q.target):
            found[q.source].add(q.target)
            found[q.target].add(q.source)
    return found


def _levels(circuit: Circuit) -> dict[str, tuple[int, int]]:
    """Column and row of each population: the feed-forward chain is the lowest row, its partners stand above it."""
    projections = [q for q in circuit.plan.projections.values() if ONE not in (q.source, q.target)]
    names = [p.name for p in circuit.populations if p.name != ONE]
    sends = {name: [q.target for q in projections if q.source == name] for name in names}
    gets = {name: [q.source for q in projections if q.target == name] for name in names}
    chain: list[str] = []
    if circuit.reference is not None:
        by_name = {q.name: q for q in projections}
        chain = [by_name[circuit.reference.weights[0]].source, *(by_name[w].target for w in circuit.reference.weights)]
    if not chain:
        return _layers(names, sends, gets)
    column = {name: k for k, name in enumerate(chain)}
    one_to_one = [(q.source, q.target) for q in projections if isinstance(q.connectivity, OneToOne)]
    left = [name for name in names if name not in column]
    while left:
        name, place = next(
            ((n, c) for rule in _RULES for n in left if (c := rule(n, column, sends, gets, one_to_one)) is not None),
            (left[0], len(chain) - 1.0),
        )
        column[name] = round(place)
        left.remove(name)
    # Rows: the families (cell types) that have most to do with the chain stand next to it.
    families: dict[str, list[str]] = {}
    for name in names:
        if name not in chain:
            families.setdefault(circuit.population(name).cell.name, []).append(name)
    near = _neighbours(circuit)
    touching = {f: np.mean([len(near[n] & set(chain)) for n in members]) for f, members in families.items()}
    taken: dict[int, set[int]] = {0: set(range(len(chain)))}
    placed = {name: (column[name], 0) for name in chain}
    for family in sorted(families, key=lambda f: (not _fed(families[f], gets), -touching[f], list(families).index(f))):
        members = families[family]
        row = next(r for r in range(1, 99) if not taken.get(r, set()) & {column[n] for n in members})
        if len({column[n] for n in members}) < len(members):  # two of a family in one column: one above the other
            row = next(r for r in range(1, 99) if not taken.get(r))
            for name in members:
                at = next(r for r in range(row, 99) if column[name] not in taken.get(r, set()))
                placed[name] = column[name], at
                taken.setdefault(at, set()).add(column[name])
            continue
        for name in members:
            placed[name] = column[name], row
            taken.setdefault(row, set()).add(column[name])
    return placed


def _fed(members: Iterable[str], gets: Mapping[str, list[str]]) -> bool:
    return any(gets[name] for name in members)


Rule = Callable[
    [str, Mapping[str, int], Mapping[str, list[str]], Mapping[str, list[str]], list[tuple[str, str]]], "float | None"
]


def _reciprocal(name: str, column: Any, sends: Any, gets: Any, one_to_one: Any) -> float | None:
    """Beside the one that it both gets from and sends to."""
    return next((column[n] for n in sends[name] if n in gets[name] and n in column), None)


def _paired(name: str, column: Any, sends: Any, gets: Any, one_to_one: Any) -> float | None:
    """Beside its partner cell by cell."""
    pairs = [b if a == name else a for a, b in one_to_one if name in (a, b)]
    return next((column[n] for n in pairs if n in column), None)


def _source(name: str, column: Any, sends: Any, gets: Any, one_to_one: Any) -> float | None:
    """A source (of labels) one column beyond what it feeds."""
    fed = [column[n] for n in sends[name] if n in column]
    return max(fed) + 1 if not gets[name] and fed else None


def _after(name: str, column: Any, sends: Any, gets: Any, one_to_one: Any) -> float | None:
    """Between those that it is connected with; above those that it gets from, where it sends to none of the placed."""
    from_, to = ([column[n] for n in others[name] if n in column] for others in (gets, sends))
    if from_ and to:
        return 0.5 * (max(from_) + min(to)) if len(set(from_ + to)) > 1 else from_[0]
    return max(from_) if from_ else float(np.mean(to)) if to else None


_RULES: tuple[Rule, ...] = (_reciprocal, _paired, _source, _after)


def _layers(
    names: list[str], sends: Mapping[str, list[str]], gets: Mapping[str, list[str]]
) -> dict[str, tuple[int, int]]:
    """Without a chain: columns by the distance from the sources, connected parts one above another."""
    placed: dict[str, tuple[int, int]] = {}
    base = 0
    for first in names:
        if first in placed:
            continue
        part, queue = [first], deque([first])
        while queue:
            name = queue.popleft()
            for other in (*sends[name], *gets[name]):
                if other not in part:
                    part.append(other)
                    queue.append(other)
        part.sort(key=names.index)
        column = {n: 0 for n in part if not [g for g in gets[n] if g != n]} or {part[0]: 0}
        queue = deque(column)
        while queue:
            name = queue.popleft()
            for other in sends[name]:
                if other not in column:
                    column[other] = column[name] + 1
                    queue.append(other)
        for name in part:
            column.setdefault(name, 0)
        rows = {c: [n for n in part if column[n] == c] for c in set(column.values())}
        height = max(map(len, rows.values()))
        for c, members in rows.items():
            for k, name in enumerate(members):
                placed[name] = c, base + k
        base += height
    # Upside down, so that the first part stands on top.
    return {name: (c, base - 1 - r) for name, (c, r) in placed.items()}


def _boxes(circuit: Circuit, placed: Mapping[str, tuple[int, int]]) -> dict[str, Box]:
    boxes = {}
    for name, (column, row) in placed.items():
        population = circuit.population(name)
        plan = circuit.plan.populations[name]
        ports = [port for port in plan.ports if plan.ports[port]]
        n = population.n
        note = f"{n[0]} × {n[1]} × {n[2]} cells" if isinstance(n, tuple) else f"{n} cell{'s' if n != 1 else ''}"
        # Apical, lateral and other ports on top, basal and forward ones below, as in the cell.
        ports.sort(key=lambda port: (_basal(port), plan.spiking is None and list(plan.ports).index(port)))
        # What cells of one population do to one another; pools that rules alone read are left out.
        acting = plan.closure(plan.names_of_ode() | circuit.plan.sent(name))
        pools = [f"{a.reduction.symbol} {a.name}".strip() for a in plan.assignments if a.reduction and a.name in acting]
        boxes[name] = Box(name, name, note, ports + pools, column, row)
    return boxes


def _basal(port: str) -> int:
    text = port.lower()
    return (
        2
        if any(word in text for word in ("bias", "mean", "tonic"))
        else 1
        if any(w in text for w in ("basal", "ff", "_b", "_in"))
        else 0
    )


def _choose_sides(boxes: Mapping[str, Box], arrows: Mapping[str, Arrow]) -> None:
    for arrow in arrows.values():
        if arrow.source == ONE:
            arrow.sides = "dot", "left"
            continue
        a, b = boxes[arrow.source], boxes[arrow.target]
        if a.column == b.column:
            side = "left" if a.row < b.row or (a is b) else "right"
            arrow.sides = side, side
        else:
            arrow.sides = ("right", "left") if a.column < b.column else ("left", "right")
    # A bias comes from where fewer arrows are.
    for arrow in arrows.values():
        if arrow.source == ONE:
            others = [
                a.sides[1]
                for a in arrows.values()
                if a.target == arrow.target and a.port == arrow.port and a is not arrow
            ]
            arrow.sides = "dot", ("left" if others.count("left") <= others.count("right") else "right")


def text_width(text: str, size: float) -> float:
    """Inches."""
    return float(TextPath((0, 0), text, size=size).get_extents().width) / 72


def _place(boxes: dict[str, Box], arrows: dict[str, Arrow]) -> Diagram:
    entering: dict[tuple[str, str, str], list[Arrow]] = {}
    leaving: dict[tuple[str, str], list[Arrow]] = {}
    for arrow in arrows.values():
        entering.setdefault((arrow.target, arrow.port, arrow.sides[1]), []).append(arrow)
        if arrow.source != ONE:
            leaving.setdefault((arrow.source, arrow.sides[0]), []).append(arrow)
    for box in boxes.values():
        exits = max(len(leaving.get((box.name, side), ())) for side in ("left", "right"))
        rows = [max(1, *(len(entering.get((box.name, port, s), ())) for s in ("left", "right"))) for port in box.ports]
        box.height = max(_TITLE, exits * _LANE + 0.12) + _ROW * sum(rows) + (0.05 if rows else 0.0)
        texts = [
            1.18 * text_width(box.title, MIDDLE),
            text_width(box.note, SMALL),
            *(text_width(p, SMALL) for p in box.ports),
        ]
        box.width = max(texts) + 0.16
    columns = range(max(b.column for b in boxes.values()) + 1)
    rows = range(max(b.row for b in boxes.values()) + 1)
    widths = [max([b.width for b in boxes.values() if b.column == c] or [0.3]) for c in columns]
    # Lanes: vertical ones in the channel left of column c (and right of the last), horizontal ones above row r.
    vertical: dict[int, list[Arrow]] = {c: [] for c in range(len(widths) + 1)}
    horizontal: dict[int, list[Arrow]] = {r: [] for r in rows}
    routes: dict[str, tuple[int, int | None, int]] = {}
    for arrow in arrows.values():
        if arrow.source == ONE:
            continue
        a, b = boxes[arrow.source], boxes[arrow.target]
        start = a.column + (arrow.sides[0] == "right")
        stop = b.column + (arrow.sides[1] == "right")
        over = None
        if start != stop:  # over the row of the lower one
            over = min(a.row, b.row)
            horizontal[over].append(arrow)
            vertical[stop].append(arrow)
        vertical[start].append(arrow)
        routes[arrow.name] = start, over, stop
    gaps, lefts = [], []
    for c in vertical:
        beside = [_stub(boxes, arrows.values(), column, side) for column, side in ((c - 1, "right"), (c, "left"))]
        lefts.append(beside[0])
        gaps.append(sum(beside) + (_LANE * (len(vertical[c]) + 1) if vertical[c] else 0.0) or 0.1)
    x = _MARGIN
    starts = []
    for c in columns:
        starts.append(x + gaps[c])
        x += gaps[c] + widths[c]
    width = x + gaps[-1] + _MARGIN
    y, bottoms = _MARGIN, []
    for r in rows:
        bottoms.append(y)
        height = max([b.height for b in boxes.values() if b.row == r] or [0.0])
        y += height + (_GAP + _LANE * (len(horizontal[r]) + 1) if r < rows[-1] or horizontal[r] else 0.0)
        for b in boxes.values():
            if b.row == r:
                b.y = bottoms[r] + 0.5 * (height - b.height)
                b.x = starts[b.column] + 0.5 * (widths[b.column] - b.width)
    tops = {r: max([b.y + b.height for b in boxes.values() if b.row == r] or [bottoms[r]]) for r in rows}
    _part(boxes, entering, leaving, columns)
    entries, exits = _slots(boxes, entering, leaving)
    _route(boxes, arrows, routes, vertical, horizontal, entries, exits, starts, widths, gaps, lefts, tops)
    return Diagram(boxes, arrows, width, y + _MARGIN)


Entering = Mapping[tuple[str, str, str], list[Arrow]]
Leaving = Mapping[tuple[str, str], list[Arrow]]


def _slots(boxes: Mapping[str, Box], entering: Entering, leaving: Leaving) -> tuple[dict[str, float], dict[str, float]]:
    """Height at which each arrow arrives, and at which it leaves."""
    entries: dict[str, float] = {}
    for box in boxes.values():
        at = box.y + box.height - (box.height - 0.0 - _ports_height(box, entering) - (0.05 if box.ports else 0.0))
        for port in box.ports:
            count = max(1, *(len(entering.get((box.name, port, s), ())) for s in ("left", "right")))
            box.port_y[port] = at - _ROW * count, at
            for side in ("left", "right"):
                mine = sorted(entering.get((box.name, port, side), ()), key=lambda a: _height_of(a, boxes))
                for k, arrow in enumerate(mine):
                    entries[arrow.name] = at - _ROW * count * (k + 0.5) / len(mine)
            at -= _ROW * count
    exits: dict[str, float] = {}
    for (name, _), mine in leaving.items():
        box = boxes[name]
        low, high = box.y + box.height - _title_height(box, entering) + 0.06, box.y + box.height - 0.06
        order = sorted(mine, key=lambda a: -(boxes[a.target].y + 1e-3 * entries[a.name]))
        for k, arrow in enumerate(order):
            exits[arrow.name] = high - (high - low) * (k + 0.5) / len(order)
    return entries, exits


def _part(boxes: Mapping[str, Box], entering: Entering, leaving: Leaving, columns: Iterable[int]) -> None:
    """Move columns up or down a little, so that arrows of two neighbours do not run on one line."""
    for column in columns:
        mine = [box for box in boxes.values() if box.column == column]
        start = [box.y for box in mine]
        best: tuple[tuple[int, int], float] | None = None
        for shift in (0.0, 0.035, -0.035, 0.055, -0.055, 0.075, -0.075):
            for box, y in zip(mine, start, strict=True):
                box.y = y + shift
            entries, exits = _slots(boxes, entering, leaving)
            ends = [
                (n, y, boxes[a.target].column, a.sides[1])
                for (_, _, _), arrows in entering.items()
                for a in arrows
                for n, y in [(a.name, entries[a.name])]
            ]
            ends += [
                (a.name, exits[a.name], boxes[a.source].column, a.sides[0])
                for arrows in leaving.values()
                for a in arrows
            ]
            left = [(n, y) for n, y, c, side in ends if c == column - 1 and side == "right"]
            right = [(n, y) for n, y, c, side in ends if c == column and side == "left"]
            apart = [abs(y - z) for n, y in left for m, z in right if n != m]
            # On one line is worse than any number of lines that are close.
            close = sum(d < 0.015 for d in apart), sum(d < 0.04 for d in apart)
            if best is None or close < best[0]:
                best = close, shift
        assert best is not None
        for box, y in zip(mine, start, strict=True):
            box.y = y + best[1]


def _stub(boxes: Mapping[str, Box], arrows: Iterable[Arrow], column: int, side: str) -> float:
    """Room beside the boxes of a column for the names of the arrows that arrive there."""
    arrows = list(arrows)
    names = [a.name for a in arrows if a.sides[1] == side and boxes[a.target].column == column]
    leave = any(a.sides[0] == side and boxes[a.source].column == column for a in arrows if a.source != ONE)
    return max([text_width(name, LABEL) + 0.17 for name in names] + [_STUB if leave else 0.0])


def _ports_height(box: Box, entering: Entering) -> float:
    """Height of all ports."""
    counts = [max(1, *(len(entering.get((box.name, port, s), ())) for s in ("left", "right"))) for port in box.ports]
    return _ROW * sum(counts)


def _title_height(box: Box, entering: Entering) -> float:
    return box.height - _ports_height(box, entering) - (0.05 if box.ports else 0.0)


def _height_of(arrow: Arrow, boxes: Mapping[str, Box]) -> float:
    """Arrows from higher boxes arrive higher."""
    return -(boxes[arrow.source].y + boxes[arrow.source].row) if arrow.source != ONE else 99.0


def _route(
    boxes: Mapping[str, Box], arrows: Mapping[str, Arrow], routes: Mapping[str, tuple[int, int | None, int]],
    vertical: Mapping[int, list[Arrow]], horizontal: Mapping[int, list[Arrow]], entries: Mapping[str, float], exits: Mapping[str, float],
    starts: list[float], widths: list[float], gaps: list[float], lefts: list[float], tops: Mapping[int, float],
) -> None:  # fmt: skip
    """The corners of every arrow; each has a lane of its own in every channel, so that no two run on top of one another."""

    def lane_x(channel: int, arrow: Arrow) -> float:
        left = starts[channel - 1] + widths[channel - 1] if channel else _MARGIN
        left += lefts[channel]
        return left + _LANE * (ordered[channel].index(arrow) + 1)

    def lane_y(row: int, arrow: Arrow) -> float:
        return tops[row] + 0.5 * _GAP + _LANE * (horizontal[row].index(arrow) + 0.5)

    # Those that span less stand nearer to their boxes: fewer crossings.
    ordered = {}
    for channel, mine in vertical.items():

        def weight(arrow: Arrow, channel: int = channel) -> tuple[float, float]:
            same = boxes[arrow.source].column == boxes[arrow.target].column
            span = abs(exits[arrow.name] - entries[arrow.name])
            if same:
                return (2.0 if arrow.sides[0] == "left" else 0.0, -span if arrow.sides[0] == "left" else span)
            return (1.0, -exits[arrow.name] if arrow.sides[0] == "right" else exits[arrow.name])

        ordered[channel] = sorted(mine, key=weight)
    for arrow in arrows.values():
        box = boxes[arrow.target]
        end_y = entries[arrow.name]
        end_x = box.x if arrow.sides[1] == "left" else box.x + box.width
        if arrow.source == ONE:
            out = -1 if arrow.sides[1] == "left" else 1
            arrow.points = [(end_x + out * (text_width(arrow.name, LABEL) + 0.13), end_y), (end_x, end_y)]
            continue
        source = boxes[arrow.source]
        start_y = exits[arrow.name]
        start_x = source.x if arrow.sides[0] == "left" else source.x + source.width
        first, over, last = routes[arrow.name]
        if over is None:
            x = lane_x(first, arrow)
            arrow.points = [(start_x, start_y), (x, start_y), (x, end_y), (end_x, end_y)]
        else:
            x, z, y = lane_x(first, arrow), lane_x(last, arrow), lane_y(over, arrow)
            arrow.points = [(start_x, start_y), (x, start_y), (x, y), (z, y), (z, end_y), (end_x, end_y)]
