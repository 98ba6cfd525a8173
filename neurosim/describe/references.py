"""References: how reports write the papers of a circuit, and those of the software."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from neurosim.description import Citation

#: What every report cites: the engines, NumPy, and the paper whose tables it follows.
SOFTWARE = (
    Citation(
        "Brian 2, an intuitive and efficient neural simulator",
        "Stimberg, M. and Brette, R. and Goodman, D. F. M.",
        2019,
        "@article{stimberg2019brian, journal = {eLife}, volume = {8}, pages = {e47314}}",
    ),
    Citation(
        "{PyTorch}: An Imperative Style, High-Performance Deep Learning Library",
        "Paszke, A. and others",
        2019,
        """@inproceedings{paszke2019pytorch,
          booktitle = {Advances in Neural Information Processing Systems 32}
        }""",
    ),
    Citation(
        "Array programming with {NumPy}",
        "Harris, C. R. and others",
        2020,
        "@article{harris2020numpy, journal = {Nature}, volume = {585}, pages = {357--362}}",
    ),
    Citation(
        "Towards Reproducible Descriptions of Neuronal Network Models",
        "Nordlie, E. and Gewaltig, M.-O. and Plesser, H. E.",
        2009,
        """@article{nordlie2009,
          journal = {PLoS Computational Biology}, volume = {5}, number = {8}, pages = {e1000456}
        }""",
    ),
)


def software(neurosim_version: str) -> tuple[Citation, ...]:
    """neurosim itself, the engines, NumPy, and the paper whose tables a report follows."""
    own = Citation(
        "{neurosim}: write a circuit once, run it in Brian2, batched in torch, and at its steady state",
        "{the neurosim developers}",
        2026,
        f"@misc{{neurosim, version = {{{neurosim_version}}}}}",
    )
    return (own, *SOFTWARE)


def installed(package: str) -> str:
    """The version of an installed package, or an empty text."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def line(citation: Citation) -> str:
    """A line of a list of references; braces, accents and dashes as BibTeX has them."""
    f = citation.fields
    where = f.get("journal") or f.get("booktitle") or f.get("publisher") or f.get("howpublished") or ""
    if f.get("volume"):
        where += f" {f['volume']}" + (f"({f['number']})" if f.get("number") else "")
    if f.get("pages"):
        where += f"{':' if f.get('volume') else ', p. '}{f['pages']}"
    parts = [
        _people(f["author"]), f["title"], where, f"arXiv {f['eprint']}" if "eprint" in f else "",
        f"Version {f['version']}" if "version" in f else "", f.get("note", "").rstrip("."), f["year"],
    ]  # fmt: skip
    return ". ".join(p for p in parts if p) + "."


def decoded(text: str) -> str:
    """A BibTeX field as plain text: no braces, dashes and accents as characters."""
    accents = {"'": "\u0301", "`": "\u0300", '"': "\u0308", "^": "\u0302", "~": "\u0303", "c": "\u0327", "v": "\u030c"}
    text = re.sub(
        r"\\(['`\"^~]|[cv](?![a-z]))\s*\{?(\w)\}?", lambda m: unicodedata.normalize("NFC", m[2] + accents[m[1]]), text
    )
    return re.sub(r"\\(?=[&%#_])|[{}]", "", text.replace("---", "\u2014").replace("--", "\u2013"))


def short(citation: Citation) -> str:
    """Family names and year, as in running text: ``Rao & Ballard 1999``."""
    names = [author.partition(",")[0].strip() for author in _authors(decoded(citation.authors))]
    if len(names) > 1 and names[-1] == "others":
        return f"{', '.join(names[:-1])} et al. {citation.year}"
    head, last = ", ".join(names[:-1]), names[-1]
    return f"{head} & {last} {citation.year}" if head else f"{last} {citation.year}"


def _authors(authors: str) -> Sequence[str]:
    return re.split(r"\s+and\s+", authors)


def _people(authors: str) -> str:
    """``{Rao, R. P. N. and Ballard, D. H.}`` -> ``R. P. N. Rao, D. H. Ballard``."""
    names = []
    for author in _authors(authors):
        last, comma, first = author.partition(",")
        names.append(f"{first.strip()} {last.strip()}" if comma else "et al." if author == "others" else author)
    text = ", ".join(names).replace(", et al.", " et al.")
    return text.rstrip(".") if text.endswith("al.") else text
