"""A report as a LaTeX document of its own, for pdflatex with the packages of every distribution."""

from __future__ import annotations

import re
import unicodedata

from neurosim.describe.document import Cite, Document, Maths, Name, Paragraph, Span, Table, Text
from neurosim.describe.maths import GREEK
from neurosim.describe.references import line
from neurosim.escape import one_line

HEAD = r"""\documentclass[10pt,a4paper]{article}
\usepackage[utf8]{inputenc}
% T1 only with outlines for it: without Latin Modern it would take bitmaps.
\IfFileExists{lmodern.sty}{\usepackage{lmodern}\usepackage[T1]{fontenc}}{}
\usepackage[margin=18mm]{geometry}
\usepackage{amsmath}
\usepackage{array}
\usepackage{booktabs}
\usepackage{longtable}
\usepackage{graphicx}
\setlength{\parindent}{0pt}
\setlength{\LTleft}{0pt}
\setlength{\LTpre}{4pt}
\setlength{\LTpost}{8pt}
\setlength{\emergencystretch}{3em}
\renewcommand{\arraystretch}{1.15}
\newcolumntype{P}[1]{>{\raggedright\arraybackslash}p{\dimexpr #1\dimexpr\linewidth+2\tabcolsep\relax-2\tabcolsep\relax}}
% A formula, made narrower where it is wider than its column, with room above and below.
\newsavebox{\formulabox}
\newcommand{\fit}[1]{\sbox{\formulabox}{$\displaystyle #1$}%
  \ifdim\wd\formulabox>\linewidth\sbox{\formulabox}{\resizebox{\linewidth}{!}{\usebox{\formulabox}}}\fi
  \raisebox{0pt}[\dimexpr\ht\formulabox+2pt\relax][\dimexpr\dp\formulabox+3pt\relax]{\usebox{\formulabox}}}
% A title with room for some lines below it.
\newcommand{\aheadof}[1]{\par\ifdim\dimexpr\pagegoal-\pagetotal\relax<#1\baselineskip\newpage\fi}
\newcommand{\parttitle}[2]{\aheadof{11}\vspace{10pt}\noindent{\large\bfseries #1\quad #2}\nopagebreak\par\nopagebreak\vspace{2pt}}
\newcommand{\celltitle}[1]{\aheadof{9}\vspace{6pt}\noindent{\bfseries #1}\nopagebreak\par\nopagebreak}
\begin{document}
\raggedbottom
"""

#: Width of a page in the letters of a formula; beyond it a formula is broken between its terms.
LETTERS = 92

_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    '"': "''", "`": r"\`{}", "ß": r"\ss{}", "ø": r"\o{}", "Ø": r"\O{}", "æ": r"\ae{}", "Æ": r"\AE{}", "ł": r"\l{}", "Ł": r"\L{}",
    "×": r"$\times$", "µ": r"$\mu$", "μ": r"$\mu$", "Ω": r"$\Omega$", "±": r"$\pm$", "−": "--", "–": "--", "—": "---", "→": r"$\to$",
    "≤": r"$\le$", "≥": r"$\ge$", "·": r"$\cdot$", "°": r"$^\circ$", "²": r"$^2$", "³": r"$^3$", "…": r"\ldots{}", "’": "'", "“": "``", "”": "''",
    "\u00a0": "~",
}  # fmt: skip
_GREEK = {
    unicodedata.lookup(
        f"GREEK {'CAPITAL' if n[0].isupper() else 'SMALL'} LETTER {n.upper().replace('LAMBDA', 'LAMDA')}"
    ): rf"$\{n}$"
    for n in GREEK.split("|")
}


def latex(document: Document) -> str:
    """The report as a complete LaTeX document."""
    lines = [HEAD, rf"{{\LARGE\bfseries {_escaped(document.title)}\par}}", ""]
    for section in document.sections:
        title = _escaped(section.title)
        lines += [rf"\parttitle{{{section.mark}}}{{{title}}}" if section.mark else rf"\celltitle{{{title}}}"]
        for block in section.blocks:
            if isinstance(block, Paragraph):
                lines += [r"{\small", rf"{_rendered(block.text)}\par}}"]
            else:
                lines += _table(block)
        lines.append("")
    lines += [r"\begin{small}", rf"\begin{{thebibliography}}{{{len(document.references)}}}"]
    for reference in document.references:
        lines += [rf"\bibitem{{{reference.key}}}", _bibtex_text(line(reference))]
    lines += [r"\end{thebibliography}", r"\end{small}", r"\end{document}", ""]
    return "\n".join(lines)


def _table(table: Table) -> list[str]:
    columns = "".join(f"P{{{width:g}}}" for width in table.widths)
    lines = [r"{\small", rf"\begin{{longtable}}{{@{{}}{columns}@{{}}}}", r"\toprule"]
    if any(table.header):
        lines += [" & ".join(rf"\textbf{{{_escaped(name)}}}" for name in table.header) + r" \\", r"\midrule"]
    lines += [r"\endhead", r"\bottomrule", r"\endfoot"]
    for row in table.rows:
        cells = [_rendered(cell, width) for cell, width in zip(row, table.widths, strict=True)]
        lines.append(" & ".join(cells) + r" \\")
    return [*lines, r"\end{longtable}}"]


def _rendered(content: Text, width: float | None = None) -> str:
    """Content of a cell of that share of a page, or of a paragraph."""

    def span(s: Span) -> str:
        match s:
            case Name(name):
                return rf"\texttt{{{_breakable(name)}}}"
            case Maths():
                return f"${s.latex}$" if width is None else _formula(s, width)
            case Cite(keys):
                return rf"\cite{{{','.join(keys)}}}"
        return _escaped(s)

    return "".join(map(span, content))


def _formula(formula: Maths, width: float) -> str:
    """A formula; one that is too wide for its column is broken between terms."""
    if letters(formula.latex) < 12 and not re.search(r"\\frac|\\sum", formula.latex):
        return f"${formula.latex}$"
    if letters(formula.latex) <= LETTERS * width or len(formula.parts) == 1:
        return rf"\fit{{{formula.latex}}}"
    lines, line = [], formula.parts[0]
    for part in formula.parts[1:]:
        if letters(f"{line} {part}") > LETTERS * width - 4:
            lines.append(line)
            line = rf"\quad {{}} {part}"
        else:
            line = f"{line} {part}"
    broken = " \\\\\n& ".join([*lines, line])
    return rf"\fit{{\begin{{aligned}}[t]& {broken} \end{{aligned}}}}"


def letters(formula: str) -> int:
    """About how many letters wide a formula is: of a fraction the wider part."""
    text = _UNSEEN.sub("", formula)
    while r"\frac" in text:  # the last has no other inside
        start = text.rindex(r"\frac")
        above, below, rest = _fraction(text[start + len(r"\frac") :])
        text = text[:start] + max(above, below, key=letters) + rest
    text = re.sub(r"\\[a-zA-Z]+", "x", text)
    return len(re.sub(r"[\s{}_^\\]", "", text))


_UNSEEN = re.compile(r"\\(left|right|thinspace|math(rm|cal|sf|bf)|text|quad)(?![a-zA-Z])")


def _fraction(text: str) -> tuple[str, str, str]:
    """Numerator, denominator and what follows, of the text after ``\\frac``."""
    parts, depth, start = [], 0, 0
    for k, c in enumerate(text):
        depth += {"{": 1, "}": -1}.get(c, 0)
        if c == "{" and depth == 1:
            start = k + 1
        elif c == "}" and depth == 0:
            parts.append(text[start:k])
            if len(parts) == 2:
                return parts[0], parts[1], text[k + 1 :]
    return "", "", text


def _breakable(name: str) -> str:
    """A name that may be broken after '.' and '_'."""
    escaped = _escaped(name)
    return escaped.replace(r"\_", r"\_\allowbreak{}").replace(".", r".\allowbreak{}")


def _escaped(text: str) -> str:
    return "".join(character(c) for c in one_line(text))


#: Accents that the fonts of every distribution can put on a letter.
_ACCENTS = set("\u0300\u0301\u0302\u0303\u0308\u0327\u030c\u0306\u0307\u030b\u030a")


def character(c: str) -> str:
    """A character as LaTeX; what the fonts lack as its nearest letters, or its number."""
    if c in _SPECIAL or c in _GREEK:
        return _SPECIAL.get(c) or _GREEK[c]
    if c.isascii():
        return c
    parts = unicodedata.normalize("NFKD", c)
    if len(parts) == 2 and parts[0].isascii() and parts[1] in _ACCENTS and ord(c) < 0x180:
        return c
    plain = parts.encode("ascii", "ignore").decode()
    return "".join(_SPECIAL.get(p, p) for p in plain) or f"[U+{ord(c):04X}]"


def _bibtex_text(text: str) -> str:
    """Text of a BibTeX field, which is LaTeX already but for characters that some put there all the same."""
    return "".join(c if c.isascii() else character(c) for c in re.sub(r"(?<!\\)([&%#_])", r"\\\1", text))
