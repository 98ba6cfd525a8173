"""White noise that has one meaning: linear, and of a strength that does not depend on what it drives."""

from __future__ import annotations

from collections.abc import Mapping

import sympy
from brian2.parsing.sympytools import str_to_sympy

from neurosim.equations.render import is_noise, names_in
from neurosim.errors import CircuitError


def check_noise(states: Mapping[str, str], follows: Mapping[str, str], where: str) -> None:
    """Refuse noise for which Ito's and Stratonovich's calculus differ, or that has no limit as dt goes to 0.

    Parameters
    ----------
    states
        ``{state: right-hand side}``.
    follows
        ``{name: expression}`` of everything that follows from states in the same step: subexpressions,
        pools, derivatives.
    where
        Opens every message.

    Raises
    ------
    CircuitError
        ``xi`` inside a function or a power, a product of noises, or a strength that depends on a state
        that the same ``xi`` drives.
    """
    parsed = {x: str_to_sympy(text) for x, text in states.items() if any(map(is_noise, names_in(text)))}
    for x, rhs in parsed.items():
        shown = f"'d{x}/dt = {states[x]}'"
        for noise in sorted((s for s in rhs.free_symbols if is_noise(str(s))), key=str):
            inside = rhs.atoms(sympy.Function, sympy.Pow, sympy.core.relational.Relational)
            linear = not any(noise in a.free_symbols for a in inside)
            strength = sympy.diff(rhs, noise) if linear else rhs
            if not linear or any(is_noise(str(s)) for s in strength.free_symbols):
                raise CircuitError(
                    f"{where}: {noise} in {shown} stands in a function, a power or a product of noises, which has no "
                    f"limit as dt goes to 0. Write noise as a sum: dx/dt = ... + sigma*{noise}."
                )
            driven = {y for y, other in parsed.items() if noise in other.free_symbols}
            needed = {str(s) for s in strength.free_symbols}
            while more := {n for name in needed & set(follows) for n in names_in(follows[name])} - needed:
                needed |= more
            if loops := sorted(driven & needed):
                raise CircuitError(
                    f"{where}: the strength of {noise} in {shown} depends on '{loops[0]}', which {noise} drives. Ito's and "
                    "Stratonovich's calculus differ there, and the text says not which is meant. Let the strength "
                    "depend on other variables, or drive a state of its own (an Ornstein-Uhlenbeck process) and use that."
                )
