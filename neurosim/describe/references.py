"""References: BibTeX entries of a circuit's citation, and those of the software."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version

from neurosim.errors import CircuitError

_ENTRY = re.compile(r"^\s*@(\w+)\s*\{", re.MULTILINE)

SOFTWARE = """
@article{stimberg2019brian,
  author = {Stimberg, M. and Brette, R. and Goodman, D. F. M.},
  title = {Brian 2, an intuitive and efficient neural simulator},
  journal = {eLife},
  volume = {8},
  pages = {e47314},
  year = {2019}
}
@inproceedings{paszke2019pytorch,
  author = {Paszke, A. and others},
  title = {{PyTorch}: An Imperative Style, High-Performance Deep Learning Library},
  booktitle = {Advances in Neural Information Processing Systems 32},
  year = {2019}
}
@article{harris2020numpy,
  author = {Harris, C. R. and others},
  title = {Array programming with {NumPy}},
  journal = {Nature},
  volume = {585},
  pages = {357--362},
  year = {2020}
}
@article{nordlie2009,
  author = {Nordlie, E. and Gewaltig, M.-O. and Plesser, H. E.},
  title = {Towards Reproducible Descriptions of Neuronal Network Models},
  journal = {PLoS Computational Biology},
  volume = {5},
  number = {8},
  pages = {e1000456},
  year = {2009}
}
"""
"""What every report cites: the engines, and the paper whose tables it follows."""


@dataclass(frozen=True)
class Reference:
    """A BibTeX entry."""

    kind: str
    key: str
    fields: Mapping[str, str] = field(default_factory=dict)

    def bibtex(self) -> str:
        """The entry."""
        lines = [f"  {name} = {{{value}}}" for name, value in self.fields.items()]
        return f"@{self.kind}{{{self.key},\n" + ",\n".join(lines) + "\n}"

    def line(self) -> str:
        """The entry as a line of a list of references; braces, accents and dashes as BibTeX has them."""
        f = self.fields
        where = f.get("journal") or f.get("booktitle") or f.get("publisher") or f.get("howpublished") or ""
        if f.get("volume"):
            where += f" {f['volume']}" + (f"({f['number']})" if f.get("number") else "")
        if f.get("pages"):
            where += f"{':' if f.get('volume') else ', p. '}{f['pages']}"
        parts = [
            _people(f["author"]) if "author" in f else "", f.get("title", ""), where, f"arXiv {f['eprint']}" if "eprint" in f else "",
            f"Version {f['version']}" if "version" in f else "", f.get("note", "").rstrip("."), f.get("year", ""),
        ]  # fmt: skip
        return ". ".join(p for p in parts if p) + "."


def _people(authors: str) -> str:
    """``{Rao, R. P. N. and Ballard, D. H.}`` -> ``R. P. N. Rao, D. H. Ballard``."""
    names = []
    for author in re.split(r"\s+and\s+", authors):
        last, comma, first = author.partition(",")
        names.append(f"{first.strip()} {last.strip()}" if comma else "et al." if author == "others" else author)
    text = ", ".join(names).replace(", et al.", " et al.")
    return text.rstrip(".") if text.endswith("al.") else text


def software(neurosim_version: str) -> tuple[Reference, ...]:
    """neurosim itself, the engines, NumPy, and the paper whose tables a report follows."""
    own = Reference(
        "misc",
        "neurosim",
        {
            "author": "{the neurosim developers}",
            "title": "{neurosim}: write a circuit once, run it in Brian2, batched in torch, and at its steady state",
            "version": neurosim_version,
            "year": "2026",
        },
    )
    return (own, *entries(SOFTWARE, "software"))


def installed(package: str) -> str:
    """The version of an installed package, or an empty text."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def prose(citation: str) -> str:
    """A citation without its BibTeX entries."""
    start = _ENTRY.search(citation)
    return " ".join((citation[: start.start()] if start else citation).split())


def entries(text: str, where: str) -> tuple[Reference, ...]:
    """The BibTeX entries in a text, in their order.

    Raises
    ------
    CircuitError
        An entry that is not closed or has no key, a field without a value, two entries of one key.
    """
    found: dict[str, Reference] = {}
    position = 0
    while match := _ENTRY.search(text, position):
        body, position = _braced(text, match.end() - 1, where)
        key, comma, rest = body.partition(",")
        key = key.strip()
        if not comma or not re.fullmatch(r"[^\s{},=\"#%\\]+", key):
            raise CircuitError(
                f"Citation of '{where}': got the BibTeX entry '@{match[1]}{{{key[:40]}'; wanted a key and a comma."
            )
        if key in found:
            raise CircuitError(f"Citation of '{where}': two BibTeX entries of the key '{key}'; rename one.")
        found[key] = Reference(match[1].lower(), key, _fields(rest, key, where))
    return tuple(found.values())


def _braced(text: str, start: int, where: str) -> tuple[str, int]:
    """What stands in the braces that open at `start`, and where they end."""
    depth = 0
    for k in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[k], 0)
        if depth == 0:
            return text[start + 1 : k], k + 1
    raise CircuitError(
        f"Citation of '{where}': the braces of '{text[max(0, start - 12) : start + 30].strip()}...' are not closed; close the BibTeX entry."
    )


def _fields(text: str, key: str, where: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    position = 0
    pattern = re.compile(r"\s*,?\s*(\w+)\s*=\s*")
    while match := pattern.match(text, position):
        position = match.end()
        if text[position : position + 1] == "{":
            value, position = _braced(text, position, where)
        else:
            plain = re.compile(r'"([^"]*)"|(\w+)').match(text, position)
            if plain is None:
                raise CircuitError(
                    f"Citation of '{where}': the field '{match[1]}' of '{key}' has no value; wanted {match[1]} = {{...}}."
                )
            value, position = plain[1] or plain[2] or "", plain.end()
        fields[match[1].lower()] = " ".join(value.split())
    if text[position:].strip(" ,\n\t\r"):
        raise CircuitError(
            f"Citation of '{where}': cannot read '{text[position:].strip()[:40]}' in the BibTeX entry '{key}'; wanted name = {{value}}, with commas between."
        )
    return fields
