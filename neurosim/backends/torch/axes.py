"""Windows of all labels at once: which variables differ between samples, labels and cells, and products that respect it.

In such a trial a variable has the shape (samples or 1, labels or 1, cells or 1). A sum over cells of ``r*v_a``, r by sample and v_a by label, is then a
matrix product, and so is a rule's sum over labels or samples: nothing of size samples x labels x cells is ever formed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from operator import or_

import sympy
from brian2.parsing.sympytools import str_to_sympy, sympy_to_str

from neurosim.equations import NotSeparable, names_in
from neurosim.plan import PhasePlan, Plan, PopulationPlan


@dataclass(frozen=True)
class Axes:
    """Whether something differs between samples, labels, cells."""

    sample: bool = False
    label: bool = False
    cells: bool = False

    def __or__(self, other: Axes) -> Axes:
        return Axes(self.sample or other.sample, self.label or other.label, self.cells or other.cells)

    @property
    def mixed(self) -> bool:
        """Too large to be formed."""
        return self.sample and self.label and self.cells


CELLS = Axes(cells=True)
#: Of a field of the stimulus, and of those of windows.
STIMULUS = Axes(sample=True, cells=True)
WINDOW = {
    "label": Axes(label=True, cells=True),
    "same": Axes(sample=True, label=True),
    "multiplicity": Axes(),
}


def find_axes(plan: Plan, phase: PhasePlan) -> dict[str, dict[str, Axes]]:
    """The axes of every variable of every population in a window."""
    found: dict[str, dict[str, Axes]] = {}
    for p in plan.populations.values():
        found[p.name] = {n: CELLS if n in p.arrays else Axes() for n in (*p.parameters, *p.shared)}
        found[p.name] |= dict.fromkeys(p.inputs, Axes())
        found[p.name] |= {
            variable: WINDOW.get(field, STIMULUS)
            for (population, variable), field in phase.clamps.items()
            if population == p.name
        }
        found[p.name] |= dict.fromkeys((*p.ode, *p.ports, *(d.name for d in p.derivatives)), CELLS)
    before = None
    while before != found:
        before = {name: dict(known) for name, known in found.items()}
        for p in plan.populations.values():
            known = found[p.name]
            for port, feeding in p.ports.items():
                for q in feeding:
                    known[port] |= found[q.source].get(q.variable, Axes())
            for a in p.assignments:
                axes = known.get(a.name, Axes()) | union(known, a.expression)
                known[a.name] = {
                    "": axes,
                    "population": Axes(axes.sample, axes.label, False),
                    "map": axes | CELLS,
                    "batch": axes if a.word == "overlap" else Axes(False, axes.label, True),
                }[a.axis]
            for x, rhs in p.ode.items():
                known[x] |= union(known, rhs)
    return found


def axes_of_windows(plan: Plan) -> dict[str, dict[str, Axes]]:
    """The axes of every variable of every population, in any phase."""
    found = [find_axes(plan, phase) for phase in plan.phases]
    return {p: {n: reduce(or_, (axes[p][n] for axes in found)) for n in found[0][p]} for p in plan.populations}


def union(known: Mapping[str, Axes], text: str) -> Axes:
    """The axes of an expression."""
    axes = Axes()
    for name in names_in(text):
        axes |= known.get(name, Axes())
    return axes


@dataclass(frozen=True)
class Factors:
    """``scalar * sample * label``: no cells; by sample (and cell) but not by label; by label (and cell) but not by sample."""

    scalar: str
    sample: str
    label: str


def split(text: str, known: Mapping[str, Axes], p: PopulationPlan) -> list[Factors]:
    """An expression as a sum of such products; subexpressions that are mixed are written out.

    Raises
    ------
    NotSeparable
        A factor that mixes sample, label and cell in no product.
    """

    def axes(expression: sympy.Basic) -> Axes:
        found = Axes()
        for symbol in expression.free_symbols:
            found |= known.get(str(symbol), Axes())
        return found

    def parts(expression: sympy.Expr) -> list[tuple[sympy.Expr, sympy.Expr, sympy.Expr]]:
        if isinstance(expression, sympy.Add) and axes(expression).mixed:
            return [part for argument in expression.args for part in parts(argument)]
        scalar, sample, label = sympy.Integer(1), sympy.Integer(1), sympy.Integer(1)
        factors = sympy.Mul.make_args(expression)
        for factor in factors:
            found = axes(factor)
            if not found.cells:
                scalar *= factor
            elif not found.label:
                sample *= factor
            elif not found.sample:
                label *= factor
            else:
                rest = sympy.Mul(*(f for f in factors if f is not factor))
                if str(factor) in p.subexpressions:
                    return parts(str_to_sympy(p.subexpressions[str(factor)]) * rest)
                expanded = sympy.expand(factor, deep=False)
                if isinstance(expanded, sympy.Add):
                    return [part for argument in expanded.args for part in parts(argument * rest)]
                inlined = factor.xreplace(
                    {s: str_to_sympy(p.subexpressions[str(s)]) for s in factor.free_symbols if str(s) in p.subexpressions and known[str(s)].mixed}
                )  # fmt: skip
                if inlined != factor:
                    return parts(inlined * rest)
                raise NotSeparable(
                    f"'{factor}' in '{text}' of population '{p.name}' differs between samples, labels and cells."
                )
        return [(scalar, sample, label)]

    return [Factors(*map(sympy_to_str, part)) for part in parts(str_to_sympy(text))]  # type: ignore[arg-type]


def check_pools(known: Mapping[str, Axes], p: PopulationPlan) -> None:
    """Raise `NotSeparable` for a pool over a population, of what differs between samples, labels and cells, that is no sum of products."""
    for a in p.assignments:
        if a.reduction and a.axis == "population" and union(known, a.expression).mixed:
            if not a.reduction.additive:
                raise NotSeparable(f"'{a.name} = {a.word}(...)' of population '{p.name}' is no product.")
            pool_text(a.expression, known, p)


def pool_text(text: str, known: Mapping[str, Axes], p: PopulationPlan) -> str:
    """The text of a sum over the population of a mixed expression, as matrix products."""
    terms = []
    for f in split(text, known, p):
        if f.sample == f.label == "1":
            inner = str(p.n)
        elif "1" in (f.sample, f.label):
            inner = f"ns_pool({f.label if f.sample == '1' else f.sample})"
        else:
            inner = f"ns_match({f.sample}, {f.label})"
        terms.append(inner if f.scalar == "1" else f"({f.scalar})*{inner}")
    return " + ".join(terms)
