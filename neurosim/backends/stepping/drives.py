"""The drives: what each projection sends into its port."""

from __future__ import annotations

from collections.abc import Callable

from neurosim.backends.stepping.memory import Memory
from neurosim.backends.stepping.plasticity import PlasticInPhase
from neurosim.description import OneToOne
from neurosim.plan import ProjectionPlan


def filler(memory: Memory, plastic: list[PlasticInPhase]) -> Callable[[bool], None]:
    """A function that fills every port from the rates, in each step of one phase.

    Told that a step is the phase's first, it computes the drives that cannot change too.
    """
    plan = memory.plan
    written = {q.projection.name for q in plastic if q.writes and not q.lazy}
    lazy = [q for q in plastic if q.writes and q.lazy]
    once, always = [], []
    for q in {q.key: q for q in plan.projections.values()}.values():
        static = q.variable in plan.populations[q.source].static and q.root not in written
        (once if static else always).append(_drive(memory, q))
    summed = [
        (memory.state[p.name], port, [memory.drives[q.key] for q in feeding])
        for p in plan.populations.values()
        for port, feeding in p.ports.items()
        if len(feeding) > 1
    ]

    def fill(first: bool) -> None:
        if first:
            for drive in once:
                drive()
            for q in lazy:
                q.start()
        else:
            for q in lazy:
                q.advance()
        for drive in always:
            drive()
        for s, port, buffers in summed:
            s[port] = sum(buffers[1:], start=buffers[0])

    return fill


def _drive(memory: Memory, q: ProjectionPlan) -> Callable[[], None]:
    """A function that computes one drive."""
    s, variable, shape = memory.state[q.source], q.variable, (memory.batch, q.n_pre)
    out, weights = memory.drives[q.key], memory.weights[q.root]
    expand, multiply = memory.expand, memory.arrays.multiply
    if isinstance(q.connectivity, OneToOne):

        def drive() -> None:
            out[...] = s[variable] * weights
            if q.factor != 1.0:
                out.__imul__(q.factor)
    elif q.listed:
        kernel, winners = memory.kernels[q.name], memory.winners

        def drive() -> None:
            out[...], winners[q.name] = kernel.drive(expand(s[variable], shape), weights)
    else:
        matrix = weights.T if q.transpose else weights

        def drive() -> None:
            multiply(expand(s[variable], shape), matrix, out)
            if q.factor != 1.0:
                out.__imul__(q.factor)

    return drive
