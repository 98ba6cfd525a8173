"""A report as Markdown with ``$...$`` maths, as GitHub and mkdocs-material set it."""

from __future__ import annotations

import re

from neurosim.describe.document import Cite, Document, Maths, Name, Paragraph, Span, Table, Text
from neurosim.describe.references import decoded, line
from neurosim.escape import markdown as without_markup
from neurosim.escape import markdown_code


def markdown(document: Document) -> str:
    """The report as Markdown."""
    lines = [f"# {_escaped(document.title)}", ""]
    for section in document.sections:
        lines += [f"## {section.mark} {section.title}" if section.mark else f"### {_escaped(section.title)}", ""]
        for block in section.blocks:
            lines += [_rendered(document, block.text)] if isinstance(block, Paragraph) else _table(document, block)
            lines.append("")
    lines += ["## References", ""]
    lines += [f"{k}. {_escaped(decoded(line(r)))}" for k, r in enumerate(document.references, 1)]
    return "\n".join(lines) + "\n"


def _table(document: Document, table: Table) -> list[str]:
    rows = [table.header, tuple("---" for _ in table.header)]
    # Those of names and formulas; text has its own escaped.
    rows += [tuple(re.sub(r"(?<!\\)\|", r"\|", _rendered(document, cell)) or " " for cell in row) for row in table.rows]
    return [f"| {' | '.join(row)} |" for row in rows]


def _rendered(document: Document, content: Text) -> str:
    def span(s: Span) -> str:
        match s:
            case Name(name):
                return markdown_code(name)
            case Maths():
                formula = s.latex.replace("<", r"\lt ").replace(">", r"\gt ")  # they would be read as HTML
                return f"${formula}$"
            case Cite(keys):
                return r"\[" + ", ".join(str(document.number(k)) for k in keys) + r"\]"
        return _escaped(s)

    return "".join(map(span, content))


def _escaped(text: str) -> str:
    return re.sub(r"([*_\[\]#$])", r"\\\1", without_markup(text))
