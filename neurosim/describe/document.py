"""A report as data: sections of tables and paragraphs, which the renderers turn into text, Markdown or LaTeX."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from neurosim.description import Citation


@dataclass(frozen=True)
class Name:
    """A name as it stands in the description: of a population, a variable, a projection, a phase."""

    text: str


@dataclass(frozen=True)
class Maths:
    """A formula or a value: as plain text, and as LaTeX in parts between which a line may break (the first holds the left-hand side)."""

    plain: str
    parts: tuple[str, ...]

    @property
    def latex(self) -> str:
        """The formula on one line."""
        return " ".join(self.parts)


@dataclass(frozen=True)
class Cite:
    """Keys of references."""

    keys: tuple[str, ...]


Span = str | Name | Maths | Cite
#: The content of a cell or paragraph.
Text = tuple[Span, ...]


@dataclass(frozen=True)
class Paragraph:
    """Running text."""

    text: Text


@dataclass(frozen=True)
class Table:
    """Rows under a header (all "": no header); `widths` are the columns' shares of a page."""

    header: tuple[str, ...]
    rows: tuple[tuple[Text, ...], ...]
    widths: tuple[float, ...]


Block = Paragraph | Table


@dataclass(frozen=True)
class Section:
    """Blocks under a title; a `mark` (A, B, ...) stands before the title, a section without one is part of the one before."""

    title: str
    blocks: tuple[Block, ...]
    mark: str = ""


@dataclass(frozen=True)
class Document:
    """A report."""

    title: str
    sections: tuple[Section, ...]
    references: tuple[Citation, ...] = field(default_factory=tuple)

    def number(self, key: str) -> int:
        """The number of a reference, from 1."""
        return [r.key for r in self.references].index(key) + 1

    def spans(self) -> Iterator[Span]:
        """Everything that stands in cells and paragraphs."""
        for section in self.sections:
            for block in section.blocks:
                for text in (block.text,) if isinstance(block, Paragraph) else (t for row in block.rows for t in row):
                    yield from text
