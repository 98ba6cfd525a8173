"""Citations: the papers of a circuit, what is read in them, and what is a reconstruction."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field

from neurosim.description.bibtex import read_entry
from neurosim.description.value import Value, frozen
from neurosim.errors import CircuitError


@dataclass(frozen=True)
class Citation(Value):
    """A paper that a circuit comes from.

    Parameters
    ----------
    title, authors, year
        Written as in BibTeX: authors as ``"Rao, R. P. N. and Ballard, D. H."``; braces keep the
        capitals of a title.
    bibtex
        The kind, the key and the other fields of the BibTeX entry, such as
        ``"@article{rao1999predictive, journal = {Nature Neuroscience}, volume = {2}}"``. By default
        ``@misc`` with a key made of author, year and title.
    note
        What is read in the paper, and what is your reconstruction. Reports print it beside the
        paper.

    Raises
    ------
    CircuitError
        A BibTeX entry that cannot be read, or that contradicts title, authors or year.
    """

    title: str
    authors: str
    year: int
    bibtex: str = ""
    note: str = ""

    kind: str = field(init=False, repr=False, compare=False)
    #: The key by which a document cites the entry.
    key: str = field(init=False, repr=False, compare=False)
    #: All fields of the BibTeX entry.
    fields: Mapping[str, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        Value.__post_init__(self)
        where = f"Citation of '{' '.join(self.title.split())[:60]}': "
        kind, key, more = "misc", self._default_key(), {}
        if self.bibtex.strip():
            kind, key, more = read_entry(self.bibtex, where)
        said = {"author": self.authors, "title": self.title, "year": str(self.year)}
        said = {name: " ".join(value.split()) for name, value in said.items()}
        for name, value in said.items():
            if more.get(name, value) != value:
                raise CircuitError(
                    f"{where}bibtex says {name} = {{{more[name]}}}; expected {{{value}}}, as given "
                    f"before it. Leave {name} out of bibtex."
                )
        for name, value in (("kind", kind), ("key", key), ("fields", frozen(said | more))):
            object.__setattr__(self, name, value)

    @property
    def entry(self) -> str:
        """The whole BibTeX entry."""
        lines = [f"  {name} = {{{value}}}" for name, value in self.fields.items()]
        return f"@{self.kind}{{{self.key},\n" + ",\n".join(lines) + "\n}"

    def _default_key(self) -> str:
        """``oja1982simplified``: first author, year, the title's first word of four letters or more."""
        word = next((w for w in map(_letters, self.title.split()) if len(w) > 3), "")
        return f"{_letters(self.authors.partition(',')[0]) or 'anonymous'}{self.year}{word}"


def _letters(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z]", "", plain.lower())


def check_keys(citations: tuple[Citation, ...], where: str) -> None:
    """Refuse two citations of one key, which a document could not tell apart."""
    keys = [citation.key for citation in citations]
    for key in keys:
        if keys.count(key) > 1:
            raise CircuitError(
                f"{where}two citations have the BibTeX key '{key}'; expected a key for each. Give one of "
                f"them another: bibtex='@misc{{{key}b}}'."
            )
