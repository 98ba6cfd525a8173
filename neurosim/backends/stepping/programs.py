"""The equations of each population, compiled once for each phase."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from neurosim.backends.stepping.memory import Memory
from neurosim.backends.stepping.reductions import pooled
from neurosim.equations import compile_block, names_in
from neurosim.plan import Assignment, PopulationPlan

#: A compiled text with the variables that it reads and writes.
Block = tuple[dict[str, Any], Callable[[dict[str, Any]], None]]


@dataclass(frozen=True)
class PhaseProgram:
    """What a phase runs in each step: its blocks before the drives and after them."""

    early: list[Block]
    late: list[Block]


def compiled(
    memory: Memory,
    wanted: Callable[[PopulationPlan], set[str]],
    factors: Mapping[str, list[Assignment]],
) -> PhaseProgram:
    """The program that computes what is wanted of each population, and the factors of its rules."""
    program = PhaseProgram([], [])
    for p in memory.plan.populations.values():
        extra = factors.get(p.name, [])
        early, late = p.blocks(wanted(p).union(*(names_in(a.expression) for a in extra)))
        early, late = (_apart_from_holds(p, block) for block in (early, late))
        for target, block in ((program.early, early), (program.late, [*late, *extra])):
            if block:
                functions, constants = memory.arrays.functions, memory.constants[p.name]
                text = compile_block(map(pooled, block), functions, constants)
                target.append((memory.state[p.name], text))
    return program


def _apart_from_holds(p: PopulationPlan, block: list[Assignment]) -> list[Assignment]:
    """The block with memory of its own for each variable that is a hold.

    A hold changes in place after what follows from it.
    """
    held = {h.name for h in p.holds}
    copied = {a.name: replace(a, expression=f"1*{a.expression}") for a in block}
    return [copied[a.name] if a.expression in held else a for a in block]
