"""Wrappers that change a rate cell's dynamics: prospective coding, white noise."""

from __future__ import annotations

from dataclasses import replace

from neurosim.description import Cell
from neurosim.equations import names_in, substitute
from neurosim.errors import CircuitError
from neurosim.parts.text import right_hand_side, unit_of, with_right_hand_side


def prospective(cell: Cell, tau_eff: str, state: str = "u") -> Cell:
    """Prospective coding (latent equilibrium, Haider et al. 2021): the rate reads ``u + tau_eff du/dt`` in place of u.

    With tau_eff the membrane's effective time constant, 1/(sum of the conductances onto the soma), the rate follows the
    input at once although the membrane is slow. u and du/dt are those of the previous step, so no algebraic loop arises
    and a cell under a changing input is exactly one step late: ``u_ahead = u(t-dt) + tau_eff (u(t) - u(t-dt))/dt``, and u itself
    in the first step. (With u of the present step an error of dt/tau_eff of the distance still to go would remain; in the lower
    layers of a microcircuit it is larger than the error that is to be learnt from.) A projection may send ``u_ahead`` (for
    a state ``u``). Fixed points stay as they were.

    Parameters
    ----------
    cell
        A cell whose rate is a function of `state`, or the state itself.
    tau_eff
        Text in the names of the cell (no units), such as ``"1/(g_lk + g_B + g_A)"`` or the name of a parameter.
    state
        The state that the rate reads.

    Raises
    ------
    CircuitError
        The rate does not read the state.
    """
    ahead, slope = f"{state}_ahead", f"{state}_dot"
    equations, rate = cell.equations, cell.rate
    if rate == state:
        rate = ahead
    else:
        text = right_hand_side(cell, rate)
        if state not in names_in(text):
            raise CircuitError(
                f"The rate '{rate} = {text}' of the cell '{cell.name}' does not read the state '{state}'."
            )
        equations = with_right_hand_side(cell, rate, substitute(text, {state: ahead}))
    unit = unit_of(cell, state)
    per_second = "1/second" if unit == "1" else f"{unit}/second"
    return replace(
        cell,
        name=f"{cell.name}, prospective",
        equations=f"{equations.rstrip()}\n        {ahead} = {state} + ({tau_eff} - dt)*{slope} : {unit}\n"
        f"        {slope} = derivative({state}) : {per_second}\n",
        rate=rate,
    )


def noisy(cell: Cell, sigma: str, state: str = "u") -> Cell:
    """White noise on a state x: ``dx/dt = ... + sigma_x xi_x``, with the parameter ``sigma_x``.

    `sigma` has the unit of the state per square root of a time, such as ``"0.1*ms**-0.5"`` or ``"1*mV*ms**-0.5"``. All levels that
    integrate in time meet the same numbers, drawn from the run's seed; the steady level refuses noise.
    """
    right = right_hand_side(cell, f"d{state}/dt")
    return replace(
        cell,
        equations=with_right_hand_side(cell, f"d{state}/dt", f"{right} + sigma_{state}*xi_{state}"),
        parameters={**cell.parameters, f"sigma_{state}": sigma},
    )
