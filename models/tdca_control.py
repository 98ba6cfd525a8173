"""TDCA in control: a policy that learns at every step, by the credits of a top-down network that sees states, action and failure.

J.-H. Chen, C.-L. Liu, Z. Wang, arXiv 2208.01416. READ in the abstracts: reinforcement learning, and that it carries over to unseen task settings. READ
in the authors' code: a remark that names CartPole. NOT FOUND: environments, inputs, episodes, any number. OURS: all that follows; the policy's cells and
rule are those of `tdca`.

    policy      tau_s du/dt = -u + s_t W_1 + b_1, r = tanh(u);  output r = softmax(u) = pi
    top-down    sees s_t (from the input population), pi (from the output cells) and the outcome [s_{t+1}, one-hot action, terminal] (clamped)
    credits     of every hidden and output cell, through linear release sites

    dW_l = -eta delta_l r_{l-1}, b_l likewise; every weight stays within +-bound

One trial is one step of the environment: no return, no value, no loss. The top-down net sees the state and changes the weights at every step, so it can
act as a controller itself through fast weights; score the policy with its plasticity off as well (`neurosim.training.evolution.control` does).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated

from annotated_types import MinLen

from neurosim import SOURCE, Circuit, Population, Protocol
from neurosim.checks import Cells, Positive, checked
from neurosim.models import tdca


@checked
def circuit(
    sizes: Annotated[Sequence[Cells], MinLen(3)] = (4, 16, 2), hidden: Cells = 16, outcome: Cells | None = None, bound: Positive = 5.0,
    settle: Positive = 300.0, eta: Positive = 0.1,
) -> Circuit:  # fmt: skip
    """A policy taught by credits; the default suits CartPole (802 evolved weights), ``sizes = (6, 16, 3)`` Acrobot (915).

    Parameters
    ----------
    sizes
        Numbers in an observation, hidden cells of each level, actions.
    hidden
        Cells of each of the top-down net's two layers.
    outcome
        Numbers clamped after the action (default: an observation, the actions, 1).
    bound
        Largest absolute weight of the policy.
    settle
        Time before the weights learn (ms).
    eta
        Learning rate.
    """
    sizes = tuple(sizes)
    learner = tdca.circuit(sizes, hidden=hidden, settle=settle, eta=eta)
    outcome = sizes[0] + sizes[-1] + 1 if outcome is None else outcome
    top = len(sizes) - 1
    policy = [learner.population(name) for name in ("inp", *(f"pyr{l}" for l in range(1, top + 1)))]
    bounded = [
        dataclasses.replace(q, rule=dataclasses.replace(q.rule, bounds=(-bound, bound)))
        for q in learner.projections
        if q.rule is not None
    ]
    sources = [("inp", sizes[0]), (f"pyr{top}", sizes[-1]), ("outcome", outcome)]
    targets = [tdca.Release(f"pyr{l}", sizes[l], sizes[l]) for l in range(1, top + 1)]
    top_down, down = tdca.credit_network(sources, hidden, targets)
    return Circuit(
        "tdca_control",
        [*policy, Population("outcome", outcome, SOURCE), *top_down, *bounded, *down],
        Protocol(learner.protocol.phases, clamps={"inp.r": "image", "outcome.r": "target"}, dt=learner.protocol.dt),
        citations=(
            dataclasses.replace(
                tdca.PAPER,
                note="of the paper only the abstract speaks of reinforcement; everything here is a reconstruction.",
            ),
        ),
    )
