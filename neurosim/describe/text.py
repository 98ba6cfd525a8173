"""A report as plain text for a terminal."""

from __future__ import annotations

import textwrap

from neurosim.describe.document import Cite, Document, Maths, Name, Paragraph, Span, Table, Text
from neurosim.describe.references import decoded, line

#: Longest line, but for words that are longer.
WIDTH = 120


def text(document: Document) -> str:
    """The report as plain text."""
    lines = [document.title, "=" * len(document.title)]
    for section in document.sections:
        title = f"{section.mark}  {section.title}" if section.mark else section.title
        lines += ["", title, ("-" if section.mark else ".") * len(title)]
        for k, block in enumerate(section.blocks):
            lines += [""] if k else []
            if isinstance(block, Paragraph):
                lines += textwrap.wrap(_plain(document, block.text), WIDTH, break_long_words=False)
            else:
                lines += _table(document, block)
    lines += ["", "References", "-" * len("References")]
    for k, reference in enumerate(document.references, 1):
        lines += textwrap.wrap(f"[{k}] {decoded(line(reference))}", WIDTH, subsequent_indent="    ")
    return "\n".join(lines)


def _plain(document: Document, content: Text) -> str:
    def span(s: Span) -> str:
        match s:
            case Name(name):
                return name
            case Maths(plain):
                return plain
            case Cite(keys):
                return "[" + ", ".join(str(document.number(k)) for k in keys) + "]"
        return s

    return "".join(map(span, content))


def _table(document: Document, table: Table) -> list[str]:
    """Columns side by side, the widest narrowed where a line would be too long; columns without content are left out."""
    rows = [[_plain(document, cell) for cell in row] for row in table.rows]
    kept = [k for k in range(len(table.header)) if any(row[k] for row in rows)]
    rows = [list(table.header), *rows] if any(table.header) else rows
    rows = [[row[k] for k in kept] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    longest = [max((len(w) for cell in column for w in cell.split()), default=1) for column in zip(*rows, strict=True)]
    while sum(widths) + 2 * len(widths) > WIDTH:
        room = [width - least for width, least in zip(widths, longest, strict=True)]
        if max(room) <= 0:
            break
        widest = max((w, k) for k, w in enumerate(widths) if room[k] > 0)[1]
        widths[widest] -= 1
    lines = []
    for row in rows:
        cells = [
            textwrap.wrap(cell, width, break_long_words=False) or [""] for cell, width in zip(row, widths, strict=True)
        ]
        for k in range(max(map(len, cells))):
            line = "  ".join(
                (cell[k] if k < len(cell) else "").ljust(width) for cell, width in zip(cells, widths, strict=True)
            )
            lines.append(f"  {line}".rstrip())
    return lines
