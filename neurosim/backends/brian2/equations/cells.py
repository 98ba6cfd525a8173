"""The cells: a `NeuronGroup` for each population, with what computes its variables in a step."""

from __future__ import annotations

from typing import Any

import brian2 as b2
import numpy as np

from neurosim.backends.brian2.arrays import REDUCED
from neurosim.backends.brian2.equations.names import (
    HOLDS,
    POTENTIALS,
    before,
    held_before,
    part,
    read_holds,
    take,
)
from neurosim.backends.brian2.network import (
    brian2_unit,
    clear_spike_train,
    namespace_of,
    object_name,
    spiking_arguments,
    state_lines,
)
from neurosim.equations import Hold, brian2_source, names_in, substitute
from neurosim.plan import CLOCK, Assignment, Plan, PopulationPlan, ProjectionPlan


def cells_of(plan: Plan, p: PopulationPlan, clock: b2.Clock) -> tuple[b2.NeuronGroup, list[Any]]:
    """The group of a population, and the further objects that its network needs."""
    was_held = read_holds(plan, p.name)
    group = b2.NeuronGroup(
        p.n,
        "\n".join(_lines(p, was_held)),
        method="euler" if p.ode else None,
        clock=clock,
        namespace=namespace_of(p),
        name=object_name("group", p.name),
        order=POTENTIALS,
        **spiking_arguments(p),
    )
    if p.spiking:
        clear_spike_train(group, clock)
    _differentiate(p, group, clock)
    for name, value in p.arrays.items():
        group.variables[name].get_value()[...] = value
    early, late = p.blocks([a.name for a in p.assignments])
    objects = Stages(p, group, clock, "before_start").run(early)
    parts = {port: map(part, feeding) for port, feeding in _shared_ports(p).items()}
    joined = [Assignment(port, " + ".join(names)) for port, names in parts.items()]
    objects += Stages(p, group, clock, "groups").run([*joined, *late])
    _hold(p, was_held, group, clock)
    return group, objects


def _lines(p: PopulationPlan, was_held: list[Hold]) -> list[str]:
    """The equations of a population, and a line for everything that is stored."""

    def unit(name: str) -> str:
        return brian2_unit(p.dimensions[name])

    reductions = [(a.name, a.reduction) for a in p.assignments if a.reduction]
    totals = [name for name, reduction in reductions if reduction.additive]
    others = [name for name, reduction in reductions if not reduction.additive]
    lines = state_lines(p)
    lines += [f"{n} : {unit(n)}" for n in (*_stored(p), *others)]
    for port, feeding in _shared_ports(p).items():
        lines += [f"{part(q)} : {unit(port)}" for q in feeding]
    lines += [f"{n} : {unit(n)} (shared)" for n in (*p.shared, *p.clocks)]
    lines += [f"{n} : {unit(n)}\nns_{n} : {unit(n)} (linked)" for n in totals]
    lines += [f"ns_of_{n} : {unit(n)}" for n in others]
    lines += [f"{take(h)} : boolean (shared)" for h in p.holds]
    lines += [f"{held_before(h)} : {unit(h.name)}" for h in was_held]
    lines += [f"{before(d)} : {unit(d.of)}" for d in p.derivatives]
    return lines


def _stored(p: PopulationPlan) -> list[str]:
    """Variables of each cell that are set or computed in a step, beside states and pools."""
    holds, slopes = [h.name for h in p.holds], [d.name for d in p.derivatives]
    train = ["spike_train"] if p.spiking else []
    return [*p.subexpressions, *p.ports, *p.inputs, *holds, *p.arrays, *p.noises, *slopes, *train]


def _shared_ports(p: PopulationPlan) -> dict[str, tuple[ProjectionPlan, ...]]:
    """Ports that several projections feed."""
    return {port: feeding for port, feeding in p.ports.items() if len(feeding) > 1}


def _differentiate(p: PopulationPlan, group: b2.NeuronGroup, clock: b2.Clock) -> None:
    for d in p.derivatives:
        group.run_regularly(
            f"{d.name} = ({d.of} - {before(d)})/dt\n{before(d)} = {d.of}",
            clock=clock,
            when="before_start",
            order=5,
            name=object_name("slope", p.name, d.name),
        )


def _hold(p: PopulationPlan, was_held: list[Hold], group: b2.NeuronGroup, clock: b2.Clock) -> None:
    if was_held:  # rules read what was held before this step
        group.run_regularly(
            "\n".join(f"{held_before(h)} = {h.name}" for h in was_held),
            clock=clock,
            when="groups",
            order=HOLDS - 1,
            name=object_name("held_before", p.name),
        )
    for h in p.holds:
        group.run_regularly(
            f"{h.name} = int({take(h)})*{h.of} + int(not {take(h)})*{h.name}",
            clock=clock,
            when="groups",
            order=HOLDS,
            name=object_name("hold", p.name, h.name),
        )


class Stages:
    """Computes a block of assignments in stages, one for each pool and one for what lies between.

    Parameters
    ----------
    p, group, clock
        The cells.
    when
        The slot of Brian2's schedule.
    """

    def __init__(self, p: PopulationPlan, group: b2.NeuronGroup, clock: b2.Clock, when: str):
        self.p, self.group, self.clock, self.when = p, group, clock, when
        self.order = 10
        self._pending: list[Assignment] = []
        self._objects: list[Any] = []

    def run(self, block: list[Assignment]) -> list[Any]:
        """Add all assignments; returns the objects that the network needs beside the group."""
        for a in block:
            if a.reduction is None:
                self._pending.append(a)
            elif a.reduction.additive:
                self._flush()
                self._sum(a)
            else:
                self._pending.append(Assignment(f"ns_of_{a.name}", a.expression))
                self._flush()
                self._reduce(a)
        self._flush()
        return self._objects

    def _flush(self) -> None:
        """Make a stage of the assignments since the last pool."""
        if not self._pending:
            return
        stage = f"{'early' if self.when == 'before_start' else 'late'}_{self.order}"
        self.group.run_regularly(
            "\n".join(f"{a.name} = {brian2_source(a.expression)}" for a in self._pending),
            clock=self.clock,
            when=self.when,
            order=self.order,
            name=object_name(stage, self.p.name),
        )
        self.order += 10
        self._pending.clear()

    def _sum(self, a: Assignment) -> None:
        """A pool that is a sum: Synapses from all cells to a group that holds the totals."""
        p, unit = self.p, brian2_unit(self.p.dimensions[a.name])
        # One sum for the population, or one per map; the mean over a batch of one is that sample.
        sums, of_cell = 1, np.zeros(p.n, dtype=int)
        if a.axis in ("map", "batch"):
            sums, of_cell = p.maps, np.arange(p.n) // (p.n // p.maps)
        totals = b2.NeuronGroup(
            sums,
            f"total : {unit}",
            clock=self.clock,
            name=object_name("pool", p.name, a.name),
            order=self.order + 1,
        )
        term = _suffixed(brian2_source(a.expression), p)
        from_cells = b2.Synapses(
            self.group,
            totals,
            f"total_post = ns_term : {unit} (summed)\nns_term = {term} : {unit}",
            clock=self.clock,
            namespace=dict(self.group.namespace),
            name=object_name("sum", p.name, a.name),
        )
        from_cells.connect(i=np.arange(p.n), j=of_cell)
        from_cells.summed_updaters["total_post"].when = self.when
        # Stored per cell as well, where rules and other pools can read it.
        setattr(self.group, f"ns_{a.name}", b2.linked_var(totals, "total", index=of_cell))
        self._pending.append(Assignment(a.name, f"ns_{a.name}"))
        self._objects += [totals, from_cells]
        self.order += 10

    def _reduce(self, a: Assignment) -> None:
        """A reduction that is no sum: an operation, since Synapses can only sum their sources."""
        variables = self.group.variables
        values, found = (variables[n].get_value() for n in (f"ns_of_{a.name}", a.name))
        rows = values.reshape(self.p.maps if a.axis == "map" else 1, -1)
        reduce = REDUCED[a.word]

        def operation() -> None:
            found.reshape(rows.shape)[...] = reduce(rows)

        self._objects.append(
            b2.NetworkOperation(
                operation,
                clock=self.clock,
                when=self.when,
                order=self.order + 1,
                name=object_name(a.word, self.p.name, a.name),
            )
        )
        self.order += 10


def _suffixed(expression: str, p: PopulationPlan) -> str:
    """An expression of a cell's variables as Synapses read them."""
    shared = {n for n, v in p.parameters.items() if not isinstance(v, np.ndarray)}
    cells = names_in(expression) - shared - CLOCK
    return substitute(expression, {n: f"{n}_pre" for n in cells})
