"""Floating-point operations of one training step per sample, counted from the products that a circuit's description asks for.

A multiply-add counts 2. Counted are products with weights (drives, errors sent down, changes of weights) and, where all labels are run
at once, sums over the cells of a pool, over labels and over samples of a rule, which are matrix products too. Not counted is what costs one operation
per cell or per weight: transfer functions, biases, pooling, the optimiser. So counts ``torch.profiler``, with which Kao & Hariharan 2024 (NeurIPS,
Table 2) compare counter-current learning with backprop.
"""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter

import numpy as np

from neurosim.backends.torch.axes import Axes, Factors, axes_of_windows, split, union
from neurosim.backends.torch.steady import LEVEL
from neurosim.circuit import Circuit
from neurosim.description import Conv2d, Dense, OneToOne, PerMap
from neurosim.equations import names_in
from neurosim.errors import NeurosimError
from neurosim.plan import Plan


def product(circuit: Circuit, name: str) -> int:
    """Operations of one sample's product with a projection's weights: ``2 n_pre n_post``, or 2 per synapse.

    As many has the product of its weights' gradient, and that of an error sent down. 0 for `OneToOne` and `PerMap`.
    """
    projection = next(p for p in circuit.projections if p.name == name)
    source, target = (circuit.population(n).n for n in (projection.source_population, projection.target_population))
    connectivity = projection.connectivity
    if isinstance(connectivity, Dense):
        return 2 * int(np.prod(source)) * int(np.prod(target))
    if isinstance(connectivity, OneToOne | PerMap):
        return 0
    if not isinstance(connectivity, Conv2d) or isinstance(source, int) or isinstance(target, int):
        return 2 * len(connectivity.synapses(source, target)[0])
    positions = target[1] * target[2] * connectivity.pool**2
    return 2 * source[0] * connectivity.size**2 * target[0] * positions


def backprop(circuit: Circuit) -> dict[str, float]:
    """Operations per sample of one training step of the circuit's reference net under backprop.

    Returns
    -------
    dict
        ``forward`` and ``weights`` (the weights' gradient), one product per layer each; ``errors``, one per layer but the first.

    Raises
    ------
    NeurosimError
        The circuit names no reference.
    """
    if circuit.reference is None:
        raise NeurosimError(f"The circuit '{circuit.name}' names no feed-forward reference.")
    layers = [float(product(circuit, name)) for name in circuit.reference.weights]
    return {"forward": sum(layers), "weights": sum(layers), "errors": sum(layers[1:])}


def steady(circuit: Circuit, batch: int, sweeps: int | None = None) -> dict[str, float]:
    """Operations per sample of one trial of the circuit with its rules on, on the level ``torch:steady``.

    A product has a row for each sample of the batch, for each label, or for both, by what its source varies with. A change of weights is one product for
    each pre factor of its rule: terms that share it are joined first. Two populations that are paired one to one match once, though the level forms the
    pool in each.

    Parameters
    ----------
    circuit
        Its `Windows`, if it has any, make up the whole trial and show all labels.
    batch
        Samples in a batch, N: what is done once per label and batch counts 1/N per sample.
    sweeps
        How often each drive is computed in a trial. 1 where no drive depends on itself; the others need a number, as the
        solver's sweeps depend on states and tolerance.

    Returns
    -------
    dict
        ``drives``, ``rules``, and ``contractions``: pools that join samples and labels, a rule's sums over labels or samples, overlaps.

    Raises
    ------
    NeurosimError
        Loops without `sweeps`; windows of other labels, or beside other phases; a rule that is no sum of products.
    """
    plan = circuit.plan
    turns = [phase.turn for phase in plan.phases]
    if any(t is None or not t.loop.at_once for t in turns) and any(turns):
        raise NeurosimError(
            f"'{circuit.name}': operations are counted for windows that show all labels and make up the whole trial; this trial has others. Give "
            "Windows(labels='all') alone."
        )
    if sweeps is None:
        try:
            TopologicalSorter(_dependences(plan)).prepare()
        except CycleError as error:
            raise NeurosimError(
                f"'{circuit.name}': the drives {', '.join(dict.fromkeys(error.args[1]))} depend on one another, so the solver repeats them; wanted "
                "`sweeps`, the number of sweeps of a trial."
            ) from error
    labels = turns[0].classes if turns[0] is not None else 1
    known = axes_of_windows(plan)

    def rows(axes: Axes) -> float:
        """Per sample; what varies with neither is an addition, as a bias is."""
        if not (axes.sample or axes.label):
            return 0.0
        return (1.0 if axes.sample else 1.0 / batch) * (labels if axes.label else 1)

    def parts(population: str, text: str) -> list[Factors]:
        return split(text, known[population], plan.populations[population])

    drives = {q.key: product(circuit, q.name) * rows(known[q.source][q.variable]) for q in plan.projections.values()}
    contractions = 0.0
    products: dict[tuple[str, str, int], float] = {}
    read: dict[str, set[str]] = {p.name: p.names_of_ode() for p in plan.populations.values()}
    for q, _ in plan.plastic():
        times = len({phase.base for phase in plan.phases if q.name in phase.plastic})
        for term, _, _ in plan.rule_factors(q, LEVEL):
            pre, post = union(known[q.source], term.pre), union(known[q.target], term.post)
            read[q.source] |= names_in(term.pre)
            read[q.target] |= names_in(term.post)
            if post.mixed:  # a sum over labels, or over samples, leaves the axes of the pre factor
                summed = [f.label if pre.sample else f.sample for f in parts(q.target, term.post)]
                contractions += times * sum(factor != "1" for factor in summed) * 2 * q.n_post * labels
            if term.decay is None:
                products[q.name, term.pre, term.w_power] = times * product(circuit, q.name) * rows(pre)
    pools: dict[tuple[frozenset[str], str], int] = {}  # one for a pair of populations
    partners = {
        p: {q.source for q in plan.projections.values() if q.target == p and isinstance(q.connectivity, OneToOne)}
        for p in plan.populations
    }
    for p in plan.populations.values():
        for a in p.assignments:
            axes = union(known[p.name], a.expression)
            if a.name not in p.closure(read[p.name]):
                continue
            if a.axis == "population" and axes.mixed:
                pools[frozenset({p.name, *partners[p.name]}), a.name] = (
                    sum("1" not in (f.sample, f.label) for f in parts(p.name, a.expression)) * 2 * p.n * labels
                )
            elif a.word == "overlap":  # R R^T, and that times R
                contractions += 2 * 2 * p.n * rows(axes) * (labels if axes.label else batch)
    return {
        "drives": (sweeps or 1) * sum(drives.values()),
        "rules": sum(products.values()),
        "contractions": contractions + sum(pools.values()),
    }


def _dependences(plan: Plan) -> dict[str, list[str]]:
    """By projection, those whose drives its source's variable depends on."""
    found = {}
    for q in plan.projections.values():
        source = plan.populations[q.source]
        names: set[str] = set()
        reached = {q.variable}
        while reached != names:
            names = source.closure(reached)
            reached = names.union(*(names_in(rhs) for x, rhs in source.ode.items() if x in names))
        found[q.name] = [f.name for port in source.ports if port in names for f in source.ports[port]]
    return found
