"""The one style of all figures: colours, fonts, units, and the file types that are written."""

from __future__ import annotations

import os
import re
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from neurosim.errors import NeurosimError
from neurosim.files import check_replaceable, user_path, whole_file

#: Okabe and Ito's colours (https://jfly.uni-koeln.de/color/), which colour-blind readers can tell apart.
PALETTE = {
    "blue": "#0072B2",
    "vermillion": "#D55E00",
    "green": "#009E73",
    "purple": "#CC79A7",
    "sky": "#56B4E9",
    "orange": "#E69F00",
    "black": "#000000",
    "yellow": "#F0E442",
}

#: Colours of lines: all but yellow, which is hard to see on white.
LINES = [colour for name, colour in PALETTE.items() if name != "yellow"]

#: Line styles that lines take turns with, so that they can be told apart in grey.
DASHES: list[Any] = ["-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1.5, 1, 1.5))]

#: Backgrounds of phases: pale tints of the palette, so that every line shows on them.
SHADES = ["#FFFFFF", "#FBF3D0", "#FBE0CC", "#DDEEF9", "#E6F3EE", "#F6E6EF", "#E8E8E8"]

GREY = "#595959"

#: Maps of colours: of values from 0 up (as dark in grey as in colour), and of values around 0, which is white.
SEQUENTIAL, DIVERGING = "cividis", "PuOr"

#: Width of a figure over a whole page, inches.
WIDTH = 8.5

#: What a figure may be saved as.
SUFFIXES = (".png", ".pdf", ".svg")

_SETTINGS = {
    "font.size": 10.0,
    "axes.titlesize": 11.0,
    "axes.labelsize": 10.0,
    "figure.titlesize": 11.0,
    "legend.fontsize": 9.0,
    "xtick.labelsize": 9.0,
    "ytick.labelsize": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.useoffset": False,
    "lines.linewidth": 1.5,
    "lines.solid_capstyle": "butt",
    "legend.frameon": False,
    "savefig.dpi": 150,
    "pdf.fonttype": 42,  # text stays text
    "svg.hashsalt": "neurosim",  # the same figure gives the same file
}

# Brian2 writes units out; prefixes are used with the second kind only.
_SYMBOLS = {"metre": "m", "kilogram": "kg", "hertz": "Hz", "mole": "mol", "kelvin": "K", "candela": "cd", "ohm": "Ω"}
_SCALED = {"volt": "V", "amp": "A", "siemens": "S", "farad": "F", "second": "s", "V": "V", "A": "A", "S": "S", "s": "s"}
_PREFIXES = {-4: "p", -3: "n", -2: "µ", -1: "m", 0: ""}
_USUAL = {"V": -1, "A": -4, "S": -3, "F": -4, "s": -1}  # mV, pA, nS, pF, ms
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def style() -> AbstractContextManager[Any]:
    """The settings, for the length of a ``with`` block; whatever the user has set returns afterwards."""
    return matplotlib.style.context(["default", _SETTINGS])


def empty_figure(width: float, height: float) -> Figure:
    """A figure (inches) that makes room for its labels and knows no pyplot."""
    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.05))


def shown_unit(unit: str, largest: float = np.inf) -> tuple[float, str]:
    """``(factor, text)``: what to multiply values in a base unit by for an axis, and the unit to write there.

    mV, pA, nS, pF and ms where `largest` is from 0.1 to 10,000 of them, or 0; else the prefix that suits it. Without `largest`
    the base unit itself.
    """
    if unit in ("1", ""):
        return 1.0, "dimensionless"
    if unit in _SCALED:
        symbol = _SCALED[unit]
        power = _USUAL[symbol]
        if largest > 0 and not 0.1 <= largest * 1000.0**-power < 1e4:
            power = min(max(int(np.floor(np.log10(largest) / 3)), -4), 0) if np.isfinite(largest) else 0
        return 1000.0**-power, _PREFIXES[power] + symbol
    text = re.sub(r" \*\* (-?\d+)|(?<=[a-z])(\d+)\b", lambda m: (m[1] or m[2]).translate(_SUPERSCRIPTS), unit)
    for name, symbol in (_SYMBOLS | _SCALED).items():
        text = re.sub(rf"\b{name}(?![a-z])", symbol, text)
    return 1.0, text.replace(" * ", " ")


def plain(name: str) -> str:
    """A name as the text of a figure, in which a pair of dollar signs would begin and end a formula."""
    return name.replace("$", r"\$")


def check_suffix(path: str | os.PathLike[str]) -> Path:
    """The path, if a figure can be saved there.

    Raises
    ------
    NeurosimError
        Neither PNG nor PDF nor SVG, a folder that does not exist, or a file there that is no picture.
    """
    path = user_path(path)
    if path.suffix.lower() not in SUFFIXES:
        got = f"the suffix '{path.suffix}'" if path.suffix else "no suffix"
        raise NeurosimError(f"Cannot save a figure as '{path}' ({got}); wanted one of {', '.join(SUFFIXES)}.")
    if not path.parent.is_dir():
        raise NeurosimError(f"Cannot save a figure as '{path}': there is no folder '{path.parent}'. Create it first.")
    return check_replaceable(path)


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Save a figure as PNG, PDF or SVG, by the suffix of the path; the file holds no date.

    Raises
    ------
    NeurosimError
        Another suffix, no such folder, or a file there that is no picture.
    OSError
        The disk is full; an earlier picture is left as it was.
    """
    path = check_suffix(path)
    undated: dict[str, dict[str, Any]] = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}
    form = path.suffix.lower()
    with style(), whole_file(path) as temporary:
        figure.savefig(temporary, format=form[1:], metadata=undated.get(form))
    return path
