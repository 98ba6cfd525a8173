"""Reports: complete in every format, equations equal to the cells' own, values equal to Brian2's, LaTeX that pdflatex takes."""

from __future__ import annotations

import errno
import math
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import brian2
import numpy as np
import pytest
from brian2.core.namespace import DEFAULT_UNITS
from circuits import assemble

import neurosim
from neurosim import (
    SOURCE,
    Cell,
    Circuit,
    Citation,
    Constant,
    Dense,
    Fragment,
    Given,
    Glorot,
    Like,
    OneToOne,
    Orthogonal,
    Phase,
    PlasticityRule,
    Population,
    Projection,
    Protocol,
    RandomSign,
    Uniform,
    registry,
)
from neurosim.cli import main
from neurosim.describe import FORMATS, maths, quantities
from neurosim.describe.content import report
from neurosim.describe.document import Maths, Name, Paragraph, Table
from neurosim.describe.latex import LETTERS, _formula, letters
from neurosim.equations import parse_cell, quantity
from neurosim.errors import NeurosimError
from neurosim.exits import disk_problem
from neurosim.models import dendritic_microcircuit
from neurosim.parts import conductance_synapse, lif

DOCS = Path(__file__).resolve().parents[1] / "docs" / "models"

CNN = {"sizes": (1, 4, 6, 10), "pixels": 8, "layers": "pooled", "loss": "normalised", "filter": 0.9}
#: Models with settings that reach every kind of part.
VARIANTS = [
    *((name, {}) for name in registry.names()),
    *(("ghost_units", {"mode": m, "rule": r}) for m, r in (("learned", "R2"), ("online", "R3"), ("none", "R1"))),
    ("ghost_units", {"transfer": "hard_sigmoid", "feedback": "fa"}),
    ("dendritic_microcircuit", {"units": "physical", "tau_dendrite": "3*ms", "teaching": "conductance", "biases": True}),
    ("dendritic_microcircuit", {"parameters": "latent_equilibrium", "task": "self_prediction", "lateral": "random", "sigma": 0.1}),
    ("dendritic_microcircuit", {"lateral": "tied"}),
    ("corinfomax", {"preset": "mnist_sparse", "sizes": (64, 20, 10)}),
    ("corinfomax", {"lateral": "woodbury", "nudging": "symmetric", "step_rule": "slow", "lam": 0.99}),
    ("counter_current", CNN),
    ("counter_current", {"sizes": (1, 4, 6, 10), "pixels": 8, "layers": "strided", "labels": "true_and_random"}),
    ("counter_current", {"sizes": (64, 20, 10), "baseline": 1.0, "activation": "softplus"}),
    ("counter_current", {"sizes": (64, 20, 10), "own_class": True, "labels": "true"}),
    ("counter_current_autoencoder", {"channels": (1, 4, 6), "pixels": 8, "normalise": "none"}),
    ("tdca", {"architecture": "conv", "sizes": (1, 4, 6, 10), "ratio": 4.0}),
    ("tdca", {"architecture": "residual", "inner": "own"}),
    ("tdca", {"messenger": True, "kernel": "chain", "ratio": 4.0}),
    ("tdca", {"credits": "bp"}),
]  # fmt: skip
IDS = [
    "-".join([name, *(f"{k}={v}".replace(" ", "") for k, v in settings.items())])[:60] for name, settings in VARIANTS
]


def built(name: str, settings: dict) -> Circuit:
    """The circuit that `neurosim describe` would take."""
    return _built(name, tuple(settings.items()))


@cache
def _built(name: str, settings: tuple) -> Circuit:
    model = registry.model(name)
    preset = {k: v for k, v in model.preset(dict(settings), "digits").items() if k in model.parameters}
    return model.circuit(preset | dict(settings))


def awkward() -> Circuit:
    """Names and texts that LaTeX and Markdown take for their own, and parts that no model has."""
    cell = Cell("50% of {it} & more_#1 | *x* ~ ^ \\end <b> $y$", """
        dV_m1/dt = (-V_m1*(1 + abs(g)) + sqrt(I_1**2 + 1e-9) + log1p(exp(g)) + sigma*xi*tau**0.5*lambda_)/tau : 1
        r_pre1 = 0.5*(1 + sign(V_m1))*int(V_m1 > 0 and not (I_2 < 0.25)) - (dV - (g - 2)) - -g : 1
        I_1 : 1 (port)
        I_2 : 1 (port)
        du_prev = derivative(V_m1) : 1/second
        """, rate="V_m1", parameters={"tau": "20*ms + 5*ms", "g": 1.0, "sigma": 0.1, "lambda_": 2e-9})  # fmt: skip
    cell = assemble(**{**vars(cell), "equations": cell.equations.replace("(dV -", "(du_prev*tau -")})
    lp = PlasticityRule(
        "low_pass & co", "dw/dt = (V_m1_post - 0.5)**2*r_pre/tau_l - k*w", {"tau_l": "1*second", "k": "0.03/ms"}, apply="phase",
        bounds=(0.0, None), filter="30*ms",
    )  # fmt: skip
    synapse = conductance_synapse(lif(), "exc", "I", "V")
    return Circuit(
        "awkward_100%",
        [
            Population("inp", 2, SOURCE),
            Population("a_b", 3, cell, {"g": np.array([1.0, 2.0, 3.5])}),
            Population("many", 6, cell, {"g": np.linspace(0, 5, 6)}),
            Population("spiker", 3, synapse, {"g_L": "12*nS"}),
            Projection("W_1", "inp", "a_b.I_1", Constant(0.5), lp),
            Projection("W_2", "inp", "a_b.I_2", Given(np.arange(6.0).reshape(2, 3))),
            Projection("W_3", "inp", "many.I_1", Given(np.ones((2, 6)))),
            Projection("W_4", "inp", "many.I_2", Like("W_3", -2.0)),
            Projection("S_1", "inp", "spiker.I_electrode", Constant(1e-12)),
        ],
        Protocol((Phase("on_%", "50*ms", plastic=("low_pass & co",)),), {"inp.r": "image"}),
        citations=(
            Citation(
                "50\\% \\& \\'etudes",
                'M\\"uller, M. and Ångström, A.',
                2020,
                "@misc{key:2020-a}",
                "Müller & Ångström’s “50 %” µ-model (α→β), № 7, #1_x {y} ~ 漢",
            ),
        ),
    )


# ---------------------------------------------------------------- complete in every format


def plain_names(text: str, format: str) -> str:
    """A report with the escapes of names undone."""
    return text.replace(r"\allowbreak{}", "").replace(r"\_", "_") if format == "latex" else text


@pytest.mark.parametrize(("name", "settings"), VARIANTS, ids=IDS)
def test_every_part_stands_in_every_format(name, settings):
    circuit = built(name, settings)
    plan = circuit.plan
    wanted = {*plan.populations, *plan.projections, *circuit.measures, *circuit.evolved, *(p.base for p in plan.phases)}
    wanted |= {n for p in circuit.populations for n in (*p.cell.parameters, *p.parameters)}
    wanted |= {f"{q.source}.{q.variable}" for q in plan.projections.values()}
    wanted |= {f"{q.target}.{q.port}" for q in plan.projections.values()}
    wanted |= {n for rule in plan.rules.values() for n in (rule.name, *rule.parameters)}
    wanted |= {f"{p}.{v}" for phase in plan.phases for p, v in phase.clamps}
    wanted |= {name for phase in plan.phases for name in phase.shared}
    wanted |= {p.cell.name for p in circuit.populations}
    for format in ("text", "markdown", "latex"):
        text = plain_names(neurosim.describe(circuit, format), format)
        words = set(re.findall(r"[\w.]+", text)) | set(re.findall(r"(?<![\w.])[\w.]+\w", text))
        missing = {w for w in wanted if w not in words and not (re.search(r"[ -]", w) and w in " ".join(text.split()))}
        assert not missing, format


@pytest.mark.parametrize(("name", "settings"), VARIANTS, ids=IDS)
def test_each_row_says_what_the_plan_says(name, settings):
    circuit = built(name, settings)
    sections = {section.mark: section for section in report(circuit).sections if section.mark}
    rows = {row[0][0].text: row for row in table(sections["B"]).rows}
    for population in circuit.plan.populations.values():
        assert str(rows[population.name][1][0]).replace(",", "").split()[0] == str(population.n)
    rows = {row[0][0].text: row for row in table(sections["C"]).rows}
    assert list(rows) == [p.name for p in circuit.projections]
    for q in circuit.plan.projections.values():
        assert rows[q.name][1] == (Name(f"{q.source}.{q.variable}"),)
        assert rows[q.name][2] == (Name(f"{q.target}.{q.port}"),)
        fate = rows[q.name][5][0]
        assert (q.rule is not None) == isinstance(fate, Name)
        assert (q.name in circuit.evolved) == (fate == "evolved")
        assert (q.root != q.name) == (fate == "tied")


def table(section) -> Table:
    return next(b for b in section.blocks if isinstance(b, Table))


@pytest.mark.parametrize("name", registry.names())
def test_the_source_stays_marked_and_is_cited(name):
    circuit = built(name, {})
    text = " ".join(neurosim.describe(circuit).split())
    source = text.partition("Source")[2].partition("Populations")[0]
    pages = "".join(path.read_text() for path in DOCS.glob("*.md"))
    assert circuit.citations
    for k, citation in enumerate(circuit.citations, 1):
        assert citation.note and "@" not in citation.note
        # Columns of a table are broken into lines: the first words of the note follow the paper's number.
        assert f"[{k}]: {citation.note.split()[0]}" in source
        assert " ".join(citation.note.removesuffix(".").split()) in source
        author = citation.authors.partition(",")[0]
        assert author in source and author in pages
        assert str(citation.year) in source
        if "eprint" in citation.fields:
            assert f"arXiv {citation.fields['eprint']}." in text and citation.fields["eprint"] in pages


def test_lines_of_the_text_fit_a_terminal():
    for name, settings in (("bac_firing", {}), ("counter_current", CNN), ("tdca", {})):
        assert max(map(len, neurosim.describe(built(name, settings)).splitlines())) <= 122


# ---------------------------------------------------------------- equations

FUNCTIONS = {
    "exp": math.exp, "log": math.log, "log1p": math.log1p, "sqrt": math.sqrt, "tanh": math.tanh, "abs": abs, "inf": math.inf,
    "sign": lambda x: (x > 0) - (x < 0), "clip": lambda x, a, b: min(max(x, a), b), "int": int, "max": max, "min": min,
    "frac": lambda a: lambda b: a / b,
}  # fmt: skip


def equations_of(circuit: Circuit) -> set[str]:
    """Every expression of a circuit, as text."""
    found = {q.rule.rhs for q in circuit.plan.projections.values() if q.rule}
    for population in circuit.populations:
        parsed = parse_cell(population.cell.equations, "test")
        found |= {*parsed.states.values(), *parsed.subexpressions.values()}
        found |= {r.expression for r in parsed.reduced}
        found |= {population.cell.threshold} - {""}
    return found


def names_of(text: str) -> set[str]:
    return set(re.findall(r"\b[A-Za-z_]\w*\b", text)) - {*FUNCTIONS, "and", "or", "not"}


def read_back(formula: str, names: set[str]) -> str:
    """Python source of LaTeX as the reports write it; nothing of the printer is used but the symbols."""
    text = formula.replace("\\left", "").replace("\\right", "")
    for k, name in enumerate(sorted(names, key=lambda n: -len(maths.symbol_latex(n)))):
        symbol = maths.symbol_latex(name)
        end = r"(?![a-zA-Z])" if symbol[-1].isalpha() else ""  # not a part of a longer word
        text = re.sub(rf"(?<![\\a-zA-Z]){re.escape(symbol)}{end}", f" @{k}@ ", text)
    text = re.sub(r"\\mathrm\{(clip|sign)\}", r" \1", text)
    text = re.sub(r"(?<![\w^_}])\{((?:[^{}]|\{[^{}]*\})*)\}", r"\1", text)  # a group that is no argument is not seen
    assert not re.search(r"\d \\thinspace (\d|\\frac\{\d)", text)  # "2 3" is read as 23, "2 1/3" as 7/3
    for command, meaning in {
        "thinspace": "*", "cdot": "*", "times": "*", "exp": "exp", "ln": "log", "tanh": "tanh", "max": "max", "min": "min", "infty": "inf",
        "wedge": " and ", "vee": " or ", "neg": " not ", "geq": ">=", "leq": "<=", "lvert": "abs(", "rvert": ")",
    }.items():  # fmt: skip
        text = re.sub(rf"\\{command}(?![a-zA-Z])", meaning, text)
    text = text.replace("{", "(").replace("}", ")").replace("\\frac", "frac").replace("\\sqrt", "sqrt")
    return re.sub(r"@(\d+)@", r"v\1_", text).replace("[", "int(").replace("]", ")").replace("^", "**")


def check_typeset(text: str, seed: int) -> None:
    """The typeset formula has the value of the text, at random values of its names."""
    names = names_of(text)
    values = dict(zip(sorted(names), np.random.default_rng(seed).uniform(0.2, 1.8, len(names)).tolist(), strict=True))
    order = sorted(names, key=lambda n: -len(maths.symbol_latex(n)))
    source = read_back(maths.formula(text).latex, names)
    got = eval(source, {**FUNCTIONS, **{f"v{k}_": values[n] for k, n in enumerate(order)}})
    assert got == pytest.approx(eval(text, {**FUNCTIONS, **values}), rel=1e-9), (text, source)


@pytest.mark.parametrize(("name", "settings"), [*VARIANTS, ("awkward", {})], ids=[*IDS, "awkward"])
def test_typeset_equations_read_back_as_the_cells_own(name, settings):
    circuit = awkward() if name == "awkward" else built(name, settings)
    for k, text in enumerate(sorted(equations_of(circuit))):
        check_typeset(text, k)


@pytest.mark.parametrize(
    "text",
    ["a - (b - c)", "-(a + b)*c", "a/(b*c)", "a/b/c", "a*b/c*d", "a**2/(1 + a)**2", "-a**2", "(-a)**2", "(a/b)**3", "a - -b", "2*3*a", "a*(-b)",
     "1e-8*a", "1/(a/b)", "a*(b/c)", "(a + b)**-1", "exp(-a)**2", "-(a - b)/c - d", "a*-2", "(a*b)**2*c", "(1.5e-8)**a", "(1e-3)**2", "(-1e-3)**2*a", "a/(2e-4)**b", "2.5**a", "a*2/3",
     "a*2*1e-3", "2*0.5**a", "a/(2*3*b)"],
)  # fmt: skip
def test_typeset_brackets_and_signs(text):
    check_typeset(text, 3)


def test_an_equation_of_motion_takes_its_divisor_to_the_left():
    assert maths.ode("u", "(-u + a)/tau").latex == r"\tau \thinspace \frac{d u}{d t} = - u + a"
    assert maths.ode("u", "-u/tau + a").latex == r"\frac{d u}{d t} = - \frac{u}{\tau} + a"
    assert maths.ode("u", "(a - u)/tau").plain == "du/dt = (a - u)/tau"
    assert maths.equation("x", "a - b - (c + d)").latex == "x = a - b - (c + d)"


@pytest.mark.parametrize(("name", "settings"), [*VARIANTS, ("awkward", {})], ids=[*IDS, "awkward"])
def test_both_sides_of_an_equation_of_motion_have_its_value(name, settings):
    for population in (awkward() if name == "awkward" else built(name, settings)).populations:
        for state, text in parse_cell(population.cell.equations, "test").states.items():
            left, _, right = maths.ode(state, text).latex.partition(" = ")
            factor, slope, rest = left.partition(rf"\frac{{d {maths.symbol_latex(state)}}}{{d t}}")
            assert slope and not rest
            names = names_of(text)
            given = np.random.default_rng(1).uniform(0.2, 1.8, len(names)).tolist()
            values = dict(zip(sorted(names), given, strict=True))
            order = sorted(names, key=lambda n: -len(maths.symbol_latex(n)))
            read = {**FUNCTIONS, **{f"v{k}_": values[n] for k, n in enumerate(order)}}
            of_slope = eval(read_back(f"{factor} 1", names), read)
            expected = of_slope * eval(text, {**FUNCTIONS, **values})
            assert eval(read_back(right, names), read) == pytest.approx(expected, rel=1e-9)


def test_symbols():
    assert maths.symbol_latex("tau_m") == r"\tau_{m}"
    assert maths.symbol_latex("r_hat") == r"\hat{r}"
    assert maths.symbol_latex("I_ff") == r"I_{\mathrm{ff}}"
    assert maths.symbol_latex("E_free_post") == r"E_{\mathrm{free}}^{\mathrm{post}}"
    assert maths.symbol_latex("slope") == r"\mathrm{slope}"


@pytest.mark.parametrize(("name", "settings"), VARIANTS, ids=IDS)
def test_no_two_names_of_a_cell_have_one_symbol(name, settings):
    for p in built(name, settings).plan.populations.values():
        names = {*p.dimensions, *p.variables, *p.parameters}
        assert len({maths.symbol_latex(n) for n in names}) == len(names)


# ---------------------------------------------------------------- values and units

SYMBOLS = {str(unit.dispname).replace("u", "µ", 1) if str(unit.dispname)[:1] == "u" else str(unit.dispname): unit
           for name, unit in DEFAULT_UNITS.items() if not re.search(r"\d", name)}  # fmt: skip


def read_value(plain: str) -> float:
    """The base SI number of ``20 ms`` or ``0.03/ms^0.5``."""
    number, above, below, power = re.fullmatch(r"([-+.\de]+) ?([^/\s]*)(?:/([^\s^]+)(?:\^(\S+))?)?", plain).groups()
    value = float(number) * (float(SYMBOLS[above]) if above else 1.0)
    return value / float(SYMBOLS[below]) ** float(power or 1) if below else value


@pytest.mark.parametrize(
    ("given", "plain", "typeset"),
    [
        ("20*ms", "20 ms", r"20 \thinspace \mathrm{ms}"),
        ("-70*mV", "-70 mV", r"-70 \thinspace \mathrm{mV}"),
        ("2600*pA", "2600 pA", r"2600 \thinspace \mathrm{pA}"),
        ("0.03/ms", "0.03/ms", r"0.03 \thinspace \mathrm{ms}^{-1}"),
        ("1*us", "1 µs", r"1 \thinspace \mu\mathrm{s}"),
        ("3*Mohm", "3 MΩ", r"3 \thinspace \mathrm{M}\Omega"),
        ("20*ms + 5*ms", "25 ms", r"25 \thinspace \mathrm{ms}"),
        (-0.07 * brian2.volt, "-70 mV", r"-70 \thinspace \mathrm{mV}"),
        (12e-9 * brian2.siemens, "12 nS", r"12 \thinspace \mathrm{nS}"),
        (1e-8, "1e-08", "10^{-8}"),
        (2.5e-9, "2.5e-09", r"2.5 \times 10^{-9}"),
        (0.5, "0.5", "0.5"),
        (np.ones(50) * 3 * brian2.pA, "3 pA", r"3 \thinspace \mathrm{pA}"),
        (np.array([1.0, 2.0]) * brian2.ms, "(1, 2) ms", r"(1, 2) \thinspace \mathrm{ms}"),
        (np.linspace(0, 5, 6), "0 to 5 (6 values)", r"0 \ldots 5 \text{ (6 values)}"),
        ("2*10*ms", "20 ms", r"20 \thinspace \mathrm{ms}"),
        ("1/20/ms", "50 Hz", r"50 \thinspace \mathrm{Hz}"),
        ("1*mV/2", "0.5 mV", r"0.5 \thinspace \mathrm{mV}"),
    ],
)
def test_values_as_people_write_them(given, plain, typeset):
    shown = quantities.value(given)
    assert (shown.plain, shown.latex) == (plain, typeset)


@pytest.mark.parametrize(("name", "settings"), VARIANTS, ids=IDS)
def test_values_are_those_of_brian2(name, settings):
    circuit = built(name, settings)
    given = [v for p in circuit.populations for v in {**p.cell.parameters, **p.parameters}.values()]
    given += [v for q in circuit.projections if q.rule for v in q.rule.parameters.values()]
    for value in given:
        number, _ = quantity(value)
        if isinstance(number, float):
            assert read_value(quantities.value(value).plain) == pytest.approx(number, rel=1e-5)


def test_units():
    assert quantities.unit("siemens/second").plain == "S/s"
    assert quantities.unit("siemens/second").latex == r"\mathrm{S} \thinspace \mathrm{s}^{-1}"
    assert quantities.unit("1").plain == quantities.unit("1").latex == "1"
    assert quantities.unit("1/ms").plain == "1/ms"
    assert quantities.unit("second**-0.5").latex == r"\mathrm{s}^{-0.5}"


def test_glorot_is_shown_with_its_limit():
    text = " ".join(neurosim.describe(registry.model("ghost_units").circuit({"sizes": (40, 20, 4)})).split())
    assert f"all-to-all, 40 x 20 U(-{4 * (6 / 60) ** 0.5:.4g}, {4 * (6 / 60) ** 0.5:.4g}) (Glorot, gain 4)" in text


# ---------------------------------------------------------------- Markdown


@pytest.mark.parametrize(("name", "settings"), [*VARIANTS, ("awkward", {})], ids=[*IDS, "awkward"])
def test_markdown_is_well_formed(name, settings):
    text = neurosim.describe(awkward() if name == "awkward" else built(name, settings), "markdown")
    lines = text.splitlines()
    columns = [len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0 for line in lines]
    for k, line in enumerate(lines):
        if columns[k]:
            assert line.endswith("|")
            assert columns[k] == columns[k - 1] or columns[k - 1] == 0
            if columns[k - 1] == 0:  # a header, which a line of dashes must follow
                assert set(lines[k + 1]) <= set("|- ")
    plain = re.sub(r"`[^`]*`", "", text)
    formulas = re.findall(r"(?<!\\)\$(.*?)(?<!\\)\$", plain)
    assert len(re.findall(r"(?<!\\)\$", plain)) == 2 * len(formulas)
    for formula in formulas:
        assert formula.count("{") == formula.count("}")
        assert not re.search(r"\\[^a-zA-Z]", formula)  # Markdown would take the backslash off
        assert not re.search(r"[<>|]", formula)


# ---------------------------------------------------------------- references


def bibtex_of(text: str) -> dict[str, str]:
    """Keys and bodies of BibTeX entries, brace by brace."""
    found, depth, start = {}, 0, 0
    for k, c in enumerate(text):
        depth += (c == "{") - (c == "}")
        assert depth >= 0
        if c == "@" and depth == 0:
            start = k
        if c == "}" and depth == 0:
            entry = re.match(r"@\w+\{([^,\s]+),", text[start : k + 1])
            assert entry is not None and entry[1] not in found
            found[entry[1]] = text[start : k + 1]
    assert depth == 0
    return found


@pytest.mark.parametrize("name", registry.names())
def test_bibtex(name):
    text = neurosim.describe(built(name, {}), "bibtex")
    found = bibtex_of(text)
    assert {"neurosim", "stimberg2019brian", "paszke2019pytorch", "harris2020numpy", "nordlie2009"} < set(found)
    assert list(found) == re.findall(r"\\bibitem\{(.+?)\}", neurosim.describe(built(name, {}), "latex"))
    for entry in found.values():
        assert re.search(r"^  (author|title) = \{.+\},?$", entry, re.MULTILINE)
    for citation in built(name, {}).citations:
        entry = " ".join(found[citation.key].split())
        assert f"title = {{{citation.title}}}" in entry
        assert f"author = {{{citation.authors}}}" in entry
        assert f"year = {{{citation.year}}}" in entry


def test_a_circuit_without_a_source_says_so():
    circuit = Circuit("c", [Population("inp", 1, SOURCE)], Protocol((Phase("p", "1*ms"),)))
    assert "no source given" in neurosim.describe(circuit)
    assert next(iter(bibtex_of(neurosim.describe(circuit, "bibtex")))) == "neurosim"


# ---------------------------------------------------------------- LaTeX


def test_characters_that_latex_takes_for_its_own():
    text = neurosim.describe(awkward(), "latex")
    assert r"{\LARGE\bfseries awkward\_100\%\par}" in text
    assert (
        r"50\% of \{it\} \& more\_\#1 \textbar{} *x* \textasciitilde{} \textasciicircum{} \textbackslash{}end \textless{}b\textgreater{} \$y\$"
        in text
    )
    assert (
        r"Müller \& Ångström's ``50 \%'' $\mu$-model ($\alpha$$\to$$\beta$), No 7, \#1\_x \{y\} \textasciitilde{} [U+6F22]"
        in text
    )
    body = text[text.index(r"\begin{document}") :]
    assert all(c.isascii() or c in "üÅö" for c in body)


def test_formulas_are_broken_between_terms():
    long = maths.equation("x", " + ".join(f"weight_{k}*rate_{k}" for k in range(20)))
    rendered = _formula(long, 0.7)
    assert rendered.startswith(r"\fit{\begin{aligned}[t]&")
    lines = rendered.removeprefix(r"\fit{\begin{aligned}[t]&").removesuffix(r" \end{aligned}}").split("\\\\\n&")
    assert len(lines) > 2 and all(letters(line) <= LETTERS * 0.7 for line in lines)
    assert "".join(lines).replace(r"\quad {}", "").split() == long.latex.split()


def test_width_of_a_formula_in_letters():
    assert letters(r"\frac{a + b + c}{d}") == 5
    assert letters(r"\tau \thinspace \frac{d u}{d t} = - u") == 1 + 2 + 1 + 2
    assert letters(r"\frac{\frac{abc}{d}}{\mathrm{residual}}") == 8


def compiled(text: str, folder: Path) -> str:
    """The log of pdflatex, run twice for the references."""
    (folder / "report.tex").write_text(text)
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "report.tex"]
    for _ in range(2):
        run = subprocess.run(command, cwd=folder, capture_output=True, timeout=120)
        assert run.returncode == 0, run.stdout.decode(errors="replace")[-2000:]
    return (folder / "report.log").read_text(errors="replace")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "settings"), [*VARIANTS, ("awkward", {})], ids=[*IDS, "awkward"])
def test_pdflatex_compiles_the_report(name, settings, tmp_path):
    assert shutil.which("pdflatex"), "pdflatex is needed"
    log = compiled(neurosim.describe(awkward() if name == "awkward" else built(name, settings), "latex"), tmp_path)
    assert "undefined" not in log and "multiply defined" not in log and "Rerun" not in log
    assert not [float(w) for w in re.findall(r"Overfull \\hbox \(([\d.]+)pt", log) if float(w) > 20]
    assert "Missing character" not in log


# ---------------------------------------------------------------- parts of a report


def test_what_no_model_has():
    text = " ".join(neurosim.describe(awkward()).split())
    for wanted in (
        "F = (V_m1_post - 0.5)**2*r_pre/tau_l - k*w",
        "dw/dt = D, tau_F dD/dt = -D + F, tau_F = 30 ms",
        "Limits of w from 0 to no limit",
        "collected, at the end of the phase",
        "all-to-all, 2 x 3 given: 0 to 5 (6 values)",
        "given: 1",
        "starts as W_3 times -2",
        "derivative du_prev = dV_m1/dt of the previous step 1/s",
        "xi is white noise, independent in each cell",
        "g (1, 2, 3.5) (a_b); 0 to 5 (6 values) (many)",
        "tau_l 1 s",
        "k 0.03/ms",
        "1 pA",
        "dg_exc/dt = -g_exc/tau_exc + S_exc S",
        "S_exc = 0 (no projection) S/s",
        "Spikes when V > V_T",
    ):
        assert wanted in text
    assert "lambda_" in text


def test_rules_of_one_name_and_several_equations_are_numbered():
    document = report(registry.model("ghost_units").circuit({"mode": "learned"}))
    titles = [s.title for s in document.sections if not s.mark]
    assert [t for t in titles if t.startswith("ghost ")] == [f"ghost {k}" for k in range(1, 6)]
    assert titles.count("feedforward") == 1


def test_random_signs_windows_and_relaxation():
    text = " ".join(neurosim.describe(built("corinfomax", {"step_rule": "slow"})).split())
    assert "Values with ± have a sign drawn anew for each trial" in text
    assert "max(10 ms/(1 + 0.01 s), 0.2 ms)" in text
    assert "each sweep visits" in text
    text = " ".join(neurosim.describe(built("counter_current", {})).split())
    assert "Phases settle, learn repeat: one window for each of the 10 labels" in text


LEAK = "dx/dt = -x/tau : 1\n"
ON = (Phase("on", "1*ms"),)


def described(*cells: Cell, sizes=(3,), phases=ON, shared=None, format: str = "text") -> str:
    """The report of populations p0, p1, ... without projections, on one line."""
    populations = tuple(Population(f"p{k}", n, c) for k, (n, c) in enumerate(zip(sizes, cells, strict=True)))
    circuit = Circuit("c", Fragment(populations), Protocol(phases, shared=shared or {}))
    return " ".join(neurosim.describe(circuit, format).split())


@pytest.mark.parametrize("value", ["exp(x)", "clip(x + a, 0, 1)", "a*(b)", "2*tanh(x)"])
def test_a_reset_is_shown_as_it_is_written(value):
    cell = Cell(
        "c", LEAK, rate="x", parameters={"tau": "1*ms", "a": 1.0, "b": 2.0}, threshold="x > a", reset=f"x = {value}"
    )
    assert f"Reset x becomes {value} Refractory" in described(cell)


@pytest.mark.parametrize(("sign", "by"), [("+", "b"), ("-", "0.5"), ("*", "a")])
def test_a_reset_by_a_name_or_a_number_has_no_brackets(sign, by):
    cell = Cell(
        "c", LEAK, rate="x", parameters={"tau": "1*ms", "a": 1.0, "b": 2.0}, threshold="x > a", reset=f"x {sign}= {by}"
    )
    assert f"Reset x becomes x {sign} {by} Refractory" in described(cell)


def test_a_pool_over_the_batch_with_and_without_maps():
    cell = Cell("c", "dx/dt = (-x + S)/tau : 1\nS = pool(x, batch) : 1", rate="x", parameters={"tau": "1*ms"})
    maps, flat = "S = sum over each map, mean over the batch, of x", "S = mean over the batch of x"
    text = described(cell, cell, cell, sizes=((2, 3, 4), 6, 5))
    assert f"pool {maps} in p0; {flat} in p1, p2 1" in text
    assert f"pool {maps} 1" in described(cell, cell, sizes=((2, 3, 4), (1, 2, 2)))
    assert f"pool {flat} 1" in described(cell, sizes=(6,))
    typeset = described(cell, cell, sizes=((2, 3, 4), 6), format="markdown")
    over_batch = r"$S = \frac{1}{B} \sum_{s = 1}^{B}"
    assert rf"{over_batch} \sum_{{j \in \mathrm{{map}}}} x$ in `p0`; {over_batch} x$ in `p1`" in typeset


@pytest.mark.parametrize(
    ("unit", "factor", "value", "wanted"),
    [
        ("amp", "I0*R", 2e-10, "200 pA"),
        ("volt", "I0", RandomSign(-3e-3), "±3 mV"),
        ("1", "I0*mV0", 2e-10, "2e-10"),
    ],
)
def test_shared_values_have_the_unit_of_the_cells(unit, factor, value, wanted):
    cell = Cell(
        "c", f"dV/dt = (-V + {factor})/tau : volt\n I0 : {unit} (shared)", rate="V",
        parameters={"tau": "1*ms", "R": "1*Mohm", "mV0": "1*mV"},
    )  # fmt: skip
    assert f"on 1 ms I0 = {wanted} nothing" in described(cell, shared={"I0": value})


def test_random_signs():
    cell = Cell("c", "dx/dt = (b - x)/tau : 1\n b : 1 (shared)", rate="x", parameters={"tau": "1*ms"})
    text = described(cell, shared={"b": RandomSign(-0.3)})
    assert "b = ±0.3 nothing" in text and "∓" not in text
    phases = tuple(
        Phase(n, "1*ms", shared={"b": v}) for n, v in (("u", RandomSign(0.3)), ("v", RandomSign(-0.2)), ("w", -0.1))
    )
    text = described(cell, phases=phases)
    for wanted in ("u 1 ms b = ±0.3", "v 1 ms b = ∓0.2", "w 1 ms b = -0.1"):  # one sign is drawn for all
        assert f"{wanted} nothing" in text
    assert "Values with ± have a sign drawn anew for each trial (∓: the other one)" in text
    for format in ("markdown", "latex"):
        text = described(cell, phases=phases, format=format)
        assert r"$\pm 0.3$" in text and r"$\mp 0.2$" in text and "$-0.1$" in text


def test_physical_units():
    text = " ".join(neurosim.describe(dendritic_microcircuit.circuit(units="physical")).split())
    assert "u = -70 mV" in text
    assert re.search(r"E_L -70 mV", text)


def test_inputs_that_no_phase_clamps():
    """The readout of the counter-current circuit has an input y that only some settings clamp."""
    for settings in (CNN, {k: CNN[k] for k in ("sizes", "pixels", "layers")}):
        circuit = built("counter_current", settings)
        text = " ".join(neurosim.describe(circuit).split())
        clamped = any(("F3", "y") in phase.clamps for phase in circuit.plan.phases)
        assert clamped == ("loss" in settings)
        assert ("clamped y, set by the protocol 1" in text) == clamped
        assert ("clamped y = 0 (not clamped) 1" in text) != clamped
        assert "clamped label, set by the protocol 1" in text
    cell = Cell(
        "two inputs",
        "dx/dt = (-x + a + b)/tau : 1\n a : 1 (input)\n b : 1 (input)",
        rate="x",
        parameters={"tau": "1*ms"},
    )
    phases = (Phase("one", "1*ms"), Phase("two", "1*ms", clamps={"p.a": "image"}))
    populations = tuple(Population(name, 2, cell) for name in "pqs")
    circuit = Circuit("c", Fragment(populations), Protocol(phases, {"q.a": "image"}))
    text = " ".join(neurosim.describe(circuit).split())
    assert "clamped a, set by the protocol; 0 (not clamped) in s 1" in text
    assert "clamped b = 0 (not clamped) 1" in text


def test_the_identity_matrix_is_named():
    text = " ".join(neurosim.describe(built("counter_current", CNN)).split())
    wanted = "crowd = (shown shown^T - I) shown/B, rows are the B samples (labels) of a batch, I the identity matrix"
    assert wanted in text
    woodbury = built("corinfomax", {"lateral": "woodbury", "nudging": "symmetric", "step_rule": "slow", "lam": 0.99})
    text = " ".join(neurosim.describe(woodbury).split())
    assert "[(b/gamma) I + R Z^T]^-1 Z)/lambda, Z = R W," in text and "of the b samples, I the identity matrix," in text
    assert r"\mathbf{1}" not in neurosim.describe(woodbury, "latex")


def test_document_is_data():
    document = report(awkward())
    assert [s.mark for s in document.sections if s.mark] == list("ABCDEFGH")
    for section in document.sections:
        for block in section.blocks:
            assert isinstance(block, Paragraph | Table)
            if isinstance(block, Table):
                assert {len(row) for row in block.rows} == {len(block.header)} == {len(block.widths)}
                assert sum(block.widths) == pytest.approx(1)
    assert all(isinstance(s, Maths) is hasattr(s, "parts") for s in document.spans())


# ---------------------------------------------------------------- Python and the command line


def test_unknown_format():
    with pytest.raises(NeurosimError) as error:
        neurosim.describe(awkward(), "latx")
    assert str(error.value) == "There is no format 'latx'. Did you mean 'latex'? Known: text, markdown, latex, bibtex."


def test_text_is_the_default():
    assert neurosim.describe(awkward()) == neurosim.describe(awkward(), "text")
    assert set(FORMATS) == {"text", "markdown", "latex", "bibtex"}


@pytest.mark.parametrize(
    ("suffix", "begins"),
    [(".txt", "tdca\n===="), (".md", "# tdca\n"), (".tex", r"\documentclass"), (".bib", "@misc{chen")],
)
def test_the_suffix_decides_the_format(suffix, begins, tmp_path, capsys):
    path = tmp_path / f"report{suffix}"
    assert main(["describe", "tdca", "--to", str(path)]) == 0
    assert capsys.readouterr().out == f"wrote {path}\n"
    assert path.read_text().startswith(begins)
    assert path.read_text().endswith("\n") and not path.read_text().endswith("\n\n")


def test_format_goes_before_suffix(tmp_path, capsys):
    path = tmp_path / "report.txt"
    assert main(["describe", "tdca", "--format", "markdown", "--to", str(path)]) == 0
    capsys.readouterr()
    assert main(["describe", "tdca", "--format", "markdown"]) == 0
    assert capsys.readouterr().out == path.read_text()


def test_a_suffix_that_says_nothing(tmp_path, capsys):
    path = tmp_path / "report.doc"
    assert main(["describe", "tdca", "--to", str(path)]) == 1
    assert (
        f"--to {path}: wanted a suffix of .txt, .md, .tex, .bib, or --format text | markdown | latex | bibtex."
        in capsys.readouterr().err
    )
    assert not path.exists()
    assert main(["describe", "tdca", "--format", "pdf"]) == 1
    assert "There is no format 'pdf'." in capsys.readouterr().err


def test_a_file_that_is_there_is_not_replaced_unasked(tmp_path, capsys):
    path, folder = tmp_path / "report.md", tmp_path / "folder.md"
    path.write_text("my own")
    folder.mkdir()
    for to, message in (
        (path, f"There is already {path}; give another --to, or --overwrite."),
        (folder, f"--to {folder} is a folder; give the name of a file."),
        (tmp_path / "no" / "x.md", f"The folder '{tmp_path / 'no'}' does not exist; make it, or give another --to."),
    ):
        assert main(["describe", "tdca", "--to", str(to)]) == 1
        assert capsys.readouterr().err == f"error: {message}\n"
    assert path.read_text() == "my own" and sorted(p.name for p in tmp_path.iterdir()) == ["folder.md", "report.md"]
    assert main(["describe", "tdca", "--to", str(path), "--overwrite"]) == 0
    assert path.read_text().startswith("# tdca\n")


def test_what_a_disk_problem_says():
    """The file is the user's, not the temporary one; the option is the command's."""
    full = OSError(errno.ENOSPC, "No space left on device", ".a.md.part")
    wanted = "No space left on device 'a.md'. The disk is full (or has as many files as it can hold): free some space"
    assert disk_problem(full, "--to") == f"{wanted}, or write elsewhere with --to."
    assert disk_problem(full) == f"{wanted}, or write elsewhere with --out."
    assert disk_problem(full, None) == f"{wanted}."
    assert disk_problem(OSError(errno.EROFS, "Read-only file system"), None) == (
        "Read-only file system. The file system is read-only."
    )
    assert disk_problem(OSError(errno.EIO, "Input/output error", "a.md"), "--to") == "Input/output error 'a.md'."


# ---------------------------------------------------------------- units of weights, spikes, the source of biases

#: Ports in amp, siemens and siemens per second, driven by a rate in Hz, a number or a potential.
UNITS = Cell(
    "unit cell",
    "dv/dt = (-v + R*(I + G*v))/tau : volt\n r = v*k : Hz\n I : amp (optional port)\n G : siemens (optional port)\n C : siemens/second (optional port)",
    parameters={"tau": "10*ms", "R": "1*Mohm", "k": "1*Hz/mV"},
)


def weighted(
    weights, source: str = "a.r", port: str = "I", connectivity=None, rule: PlasticityRule | None = None
) -> Circuit:
    """One projection onto three cells, from a rate in Hz (`a.r`), a potential (`a.v`) or a rate without a unit (`inp`)."""
    projection = Projection("W", source, f"b.{port}", weights, rule, connectivity=connectivity or Dense())
    populations = (Population("inp", 3, SOURCE), Population("a", 2, UNITS), Population("b", 3, UNITS))
    phases = (Phase("on", "10*ms", plastic=(rule.name,) if rule else ()),)
    return Circuit("weighted", Fragment(populations, (projection,)), Protocol(phases, {"inp.r": "image"}))


def weights_column(circuit: Circuit) -> tuple[str, str]:
    """What stands under "Weights at the start", plain and typeset."""
    section = next(s for s in report(circuit).sections if s.mark == "C")
    spans = table(section).rows[0][4]
    return tuple(
        "".join(s if isinstance(s, str) else s.plain if kind == "plain" else s.latex for s in spans)
        for kind in ("plain", "latex")
    )


@pytest.mark.parametrize(
    ("weights", "places", "plain", "typeset"),
    [
        # A text keeps its unit, as a parameter does.
        (Constant("0.2*pA/Hz"), {}, "0.2 pA/Hz", r"0.2 \thinspace \mathrm{pA} \thinspace \mathrm{Hz}^{-1}"),
        (Uniform("20*pA", "120*pA"), {"source": "inp"}, "U(20, 120) pA", r"\mathcal{U} ( 20, 120 ) \mathrm{pA}"),
        (Uniform("20*pA", "0.12*nA"), {"source": "inp"}, "U(20, 120) pA", None),
        (Constant("2*3*pA"), {"source": "inp"}, "6 pA", None),
        # Quantities and bare numbers get the port's prefix, over Hz where a rate is sent.
        (Uniform(20 * brian2.pA, 120 * brian2.pA), {"source": "inp"}, "U(20, 120) pA", None),
        (Constant(2e-12), {}, "2 pA/Hz", None),
        (Constant(3e-9), {"port": "G"}, "3 nS/Hz", None),
        (Uniform(-4e-9, 6e-9), {"port": "G"}, "U(-4, 6) nS/Hz", None),
        (Constant(5e-9), {"source": "a.v"}, "5 nS", None),
        (Constant(5e-9), {"port": "C"}, "5 nS", None),
        (Constant(5e-9), {"source": "inp", "port": "C"}, "5e-09 S/s", None),
        (Constant(5e-9), {"source": "a.v", "port": "G"}, "5 nS/V", None),
        (Given(np.array([[1e-11, 2e-11, 3e-11]] * 2)), {}, "given: 10 to 30 pA/Hz", None),
        (Given(np.array([1.0, 2.0, 4.0]) * brian2.nS), {"source": "inp", "port": "G", "connectivity": OneToOne()}, "given: (1, 2, 4) nS", None),
        (Given(np.full((2, 3), 7e-12)), {}, "given: 7 pA/Hz", None),
        (Orthogonal("30*pA"), {"source": "inp"}, "orthogonal, times 30 pA", None),
    ],
)  # fmt: skip
def test_weights_have_prefix_and_unit(weights, places, plain, typeset):
    got = weights_column(weighted(weights, **places))
    assert re.sub(r" \(6 values\)", "", got[0]) == plain
    assert typeset is None or got[1] == typeset


@pytest.mark.parametrize("gain", ["20*pA/Hz", 20 * brian2.pA / brian2.Hz, 2e-11])
def test_glorot_with_units(gain):
    limit = 20 * math.sqrt(6 / (2 + 3))
    assert weights_column(weighted(Glorot(gain)))[0] == f"U(-{limit:.4g}, {limit:.4g}) pA/Hz (Glorot, gain 20 pA/Hz)"


@pytest.mark.parametrize("port", ["I", "G"])
@pytest.mark.parametrize("source", ["inp", "a.r", "a.v"])
@pytest.mark.parametrize("value", [3e-15, 4.5e-12, 0.2e-9, 7e-5, 2.0, -3e-9])
def test_shown_weights_are_those_of_the_plan(port, source, value):
    """Read back by Brian2's units, a shown weight is the number that the engines take."""
    circuit = weighted(Constant(value), source, port)
    shown = weights_column(circuit)[0]
    assert read_value(shown) == pytest.approx(value, rel=1e-5)
    assert shown.endswith("/Hz") == (source == "a.r")


def test_a_synapse_of_spikes_has_weights_in_siemens():
    """Its port is in S/s, which holds the time: S/s over Hz is S."""
    synapse = conductance_synapse(lif(), "exc", "I", "V")
    populations = (Population("pre", 1, lif()), Population("post", 1, synapse))
    projections = (Projection("W", "pre", "post.S_exc", Constant(4e-9)),)
    assert (
        weights_column(Circuit("c", Fragment(populations, projections), Protocol((Phase("on", "1*ms"),))))[0] == "4 nS"
    )


@pytest.mark.parametrize(
    ("bounds", "wanted"),
    [
        ((0.0, 9e-11), "from 0 to 90 pA/Hz"),
        (("0*pA/Hz", "90*pA/Hz"), "from 0 to 90 pA/Hz"),
        (("-0.2*pA/Hz", "0.9*pA/Hz"), "from -0.2 to 0.9 pA/Hz"),
        ((0.0, None), "from 0 to no limit"),
        ((None, 0.0), "from no limit to 0"),
        ((None, 2e-11), "from no limit to 20 pA/Hz"),
        ((2e-11, None), "from 20 pA/Hz to no limit"),
    ],
)
def test_limits_have_prefix_and_unit(bounds, wanted):
    rule = PlasticityRule("drift", "dw/dt = -w/tau_w", {"tau_w": "1*second"}, bounds=bounds)
    text = " ".join(neurosim.describe(weighted(Constant(3e-11), rule=rule)).split())
    assert f"Limits of w {wanted}" in text


def test_limits_of_one_rule_in_several_units():
    rule = PlasticityRule("drift", "dw/dt = -w/tau_w", {"tau_w": "1*second"}, bounds=(0.0, 9e-11))
    populations = (Population("inp", 2, SOURCE), Population("a", 2, UNITS))
    projections = tuple(Projection(f"W_{port}", "inp", f"a.{port}", Constant(1e-11), rule) for port in ("I", "G"))
    circuit = Circuit("two", Fragment(populations, projections), Protocol((Phase("on", "1*ms", plastic=("drift",)),)))
    text = " ".join(neurosim.describe(circuit).split())
    assert "Limits of w from 0 to 90 pA (W_I), from 0 to 90 pS (W_G)" in text


@pytest.mark.parametrize("level", ["brian2:equations", "torch:trajectory"])
def test_the_order_of_a_spike_is_that_of_a_run(level):
    """What the report says of a spike, seen in the traces of a run."""
    cell = lif()
    changed = {
        "equations": cell.equations.replace("+ I)", "+ I + I_0)"),
        "parameters": {**cell.parameters, "I_0": "500*pA"},
    }
    driven = assemble(**{**vars(cell), **changed})
    populations = (Population("pre", 1, driven), Population("post", 1, conductance_synapse(lif(), "exc", "I", "V")))
    projections = (Projection("W", "pre", "post.S_exc", Constant("4*nS")),)
    circuit = Circuit("pair", Fragment(populations, projections), Protocol((Phase("on", "30*ms"),), dt="0.1*ms"))
    text = " ".join(neurosim.describe(circuit).split())
    for wanted in (
        "weights; states; thresholds; resets",
        "thresholds are compared with the new states, in cells that are not refractory; a cell that spikes is reset in the same step",
        "Its spike_train is 1/dt in the next step and 0 in all others",
        "a spike reaches its targets, and rules that read it, one step later: a delay of 0.1 ms",
    ):
        assert wanted in text
    names = ["pre.V", "pre.spike_train", "post.S_exc", "post.g_exc"]
    traces = neurosim.simulate(circuit, level=level, record=names).traces
    potential, train, port, conductance = (np.asarray(traces.values[n])[:, 0, 0] for n in names)
    spike = round(traces.spikes["pre"].time[0] / 1e-4)
    assert potential[: spike + 1].max() <= -0.05  # a row shows the states before they move: none is above the threshold
    assert potential[spike + 1] == pytest.approx(-0.06)  # reset in the step of the spike
    fired = [round(t / 1e-4) + 1 for t in traces.spikes["pre"].time]
    assert train[fired[0]] == pytest.approx(1e4) and np.flatnonzero(train).tolist() == fired
    assert np.flatnonzero(port).tolist() == fired and port[fired[0]] == pytest.approx(4e-9 * 1e4)
    assert not conductance[: fired[0] + 1].any() and conductance[fired[0] + 1] == pytest.approx(4e-9)


@pytest.mark.parametrize("name", registry.names())
def test_spikes_in_a_step_only_where_cells_spike(name):
    circuit = built(name, {})
    spiking = any(p.cell.threshold for p in circuit.populations)
    text = " ".join(neurosim.describe(circuit).split())
    assert ("thresholds; resets" in text) == ("Spikes in a step" in text) == spiking


@pytest.mark.parametrize(("name", "settings"), VARIANTS, ids=IDS)
def test_the_source_of_biases_is_no_population_of_cells(name, settings):
    """The summary counts what a diagram of the network draws."""
    circuit = built(name, settings)
    drawn = [p for p in circuit.populations if p.name != "one"]
    summary = {row[0][0]: row[1] for row in table(report(circuit).sections[0]).rows}
    counts = re.findall(r"([\d,]+) (population|cell)", summary["Populations"][0])
    assert [int(n.replace(",", "")) for n, _ in counts] == [len(drawn), sum(int(np.prod(p.n)) for p in drawn)]
    biases = len(drawn) < len(circuit.populations)
    assert (summary["Populations"][1:] == ("; the constant source of the biases: ", Name("one"))) == biases
    types = "".join(s if isinstance(s, str) else s.text for s in summary["Cell types"])
    assert sum(int(n) for n in re.findall(r"\((\d+) populations?\)", types)) == len(drawn)
