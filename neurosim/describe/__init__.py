"""A report of a circuit in the tables of computational neuroscience papers, as text, Markdown, LaTeX or BibTeX.

The order is that of E. Nordlie, M.-O. Gewaltig, H. E. Plesser, "Towards reproducible descriptions of neuronal network models",
PLoS Comput. Biol. 5(8):e1000456 (2009): model summary, populations, connectivity, cell types, plasticity, input, measurements.
"""

from __future__ import annotations

from typing import Annotated

from neurosim.checks import In, checked
from neurosim.circuit import GivenCircuit
from neurosim.describe.content import report
from neurosim.describe.document import Document
from neurosim.describe.latex import latex
from neurosim.describe.markdown import markdown
from neurosim.describe.text import text


def _bibtex(document: Document) -> str:
    return "\n\n".join(reference.entry for reference in document.references) + "\n"


#: Renderers by format.
FORMATS = {"text": text, "markdown": markdown, "latex": latex, "bibtex": _bibtex}
#: Format of a file by its suffix.
SUFFIXES = {".txt": "text", ".md": "markdown", ".tex": "latex", ".bib": "bibtex"}


@checked
def describe(circuit: GivenCircuit, format: Annotated[str, In(FORMATS)] = "text") -> str:
    """A report of what a circuit is made of.

    Parameters
    ----------
    circuit
        The circuit.
    format
        ``"text"`` (default), for a terminal; ``"markdown"``, maths between dollars; ``"latex"``, a document of its own, its references
        inside, that pdflatex takes as it stands: run it twice, the first run only collects the numbers of references; ``"bibtex"``, the entries of the circuit's citations and of the software alone.

    Raises
    ------
    NeurosimError
        An unknown format.
    """
    return FORMATS[format](report(circuit))
