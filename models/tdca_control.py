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

from dataclasses import dataclass, replace

from neurosim import SOURCE, Circuit, Population, Protocol
from neurosim.checks import Cells, Levels, Positive
from neurosim.models import tdca
from neurosim.parts import Release, credit_network
from neurosim.settings import ModelSettings, computed, model

PAPER = replace(
    tdca.PAPER, note="of the paper only the abstract speaks of reinforcement; everything here is a reconstruction."
)


@dataclass(frozen=True)
class Settings(ModelSettings):
    """Settings of a policy taught by credits; the defaults suit CartPole (802 evolved weights), sizes 6,16,3 Acrobot (915)."""

    #: Numbers in an observation, hidden cells of each level, actions.
    sizes: Levels = (4, 16, 2)
    #: Cells of each of the top-down net's two layers.
    hidden: Cells = 16
    #: Numbers clamped after the action: an observation, the actions, 1.
    outcome: Cells = computed(lambda s: s.sizes[0] + s.sizes[-1] + 1)
    #: Largest absolute weight of the policy.
    bound: Positive = 5.0
    #: Time before the weights learn (ms), and their learning rate.
    settle: Positive = 300.0
    eta: Positive = 0.1


@model(Settings)
def circuit(s: Settings) -> Circuit:
    """The learner of `tdca` without its top-down net, and one that sees states, action and outcome."""
    learner, top = tdca.circuit(s.sizes, hidden=s.hidden, settle=s.settle, eta=s.eta), len(s.sizes) - 1
    policy = [learner.population(name) for name in ("inp", *(f"pyr{l}" for l in range(1, top + 1)))]
    bounded = [
        replace(q, rule=replace(q.rule, bounds=(-s.bound, s.bound))) for q in learner.projections if q.rule is not None
    ]
    seen = [("inp", s.sizes[0]), (f"pyr{top}", s.sizes[-1]), ("outcome", s.outcome)]
    taught = [Release(f"pyr{l}", s.sizes[l], s.sizes[l]) for l in range(1, top + 1)]
    return Circuit(
        "tdca_control",
        [*policy, Population("outcome", s.outcome, SOURCE), *bounded, *credit_network(seen, s.hidden, taught)],
        Protocol(learner.protocol.phases, {"inp.r": "image", "outcome.r": "target"}, dt=tdca.DT),
        citations=(PAPER,),
    )
