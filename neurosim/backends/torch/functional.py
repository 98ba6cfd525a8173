"""A trial at the fixed point as a pure function of weights and stimuli, for circuits whose states depend on one another in no circle.

`torch:steady` presents stimuli to one circuit whose weights it owns. Here nothing is owned or changed: `torch.func.vmap` runs the function for a
whole population of circuits (a batch axis before the weights), and autograd passes through it. The outer loops of `neurosim.training.evolution`
need both.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch

from neurosim.backends.stepping.kernels import kernels_of
from neurosim.backends.stepping.memory import constants_of, shared_values
from neurosim.backends.stepping.reductions import pooled
from neurosim.backends.torch.arrays import TorchArrays
from neurosim.backends.torch.order import steady_states
from neurosim.description import OneToOne
from neurosim.equations import compile_block, evaluate, names_in
from neurosim.errors import NeurosimError, UnsupportedError
from neurosim.plan import Plan, ProjectionPlan

LEVEL = "the functional trial"
#: A variable: population, name.
Variable = tuple[str, str]
Values = dict[str, dict[str, Any]]
Line = Callable[[Values, Mapping[str, torch.Tensor]], None]


class FunctionalTrial:
    """The settled trial of a plan.

    Parameters
    ----------
    plan
        A circuit without circles among its states, whose phases all have the same clamps and shared values; rules are collected over the trial
        (`apply="trial"`). No holds, windows, filtered or exact rules, pools over a batch, noise, spikes.
    dtype, device
        Of the tensors that the circuit's own numbers become.

    Raises
    ------
    UnsupportedError
        What of the above the circuit has, by name.
    """

    def __init__(self, plan: Plan, dtype: str = "float64", device: str = "cpu"):
        self.plan, self.arrays = plan, TorchArrays(dtype, device)
        self._refuse()
        phase = plan.phases[-1]
        self.fields = phase.clamps
        self.learn = {
            name: sum(p.open_for(name) for p in plan.phases if name in p.plastic)
            for p in plan.phases
            for name in p.plastic
        }  # seconds for which a projection learns
        self._constants = {
            p.name: constants_of(p, self.arrays, 0.0) | shared_values(p, phase) for p in plan.populations.values()
        }
        self._steady: dict[Variable, str] = {}
        for p in plan.populations.values():
            texts, held = steady_states(p, phase, plan.sent(p.name), LEVEL)
            if held:
                raise UnsupportedError(
                    f"{LEVEL} cannot run population '{p.name}': its state '{min(held)}' keeps the value that it had before. Use torch:steady."
                )
            self._steady |= {(p.name, x): text for x, text in texts.items()}
        self._assigned = {(p.name, a.name): a for p in plan.populations.values() for a in p.assignments}
        self._factors: dict[str, list[tuple[Variable, Variable, float, int]]] = {}
        self._decays: dict[str, float] = {}
        self._texts: dict[Variable, str] = {}  # of the factors
        for name, seconds in self.learn.items():
            self._factors[name] = self._rule(plan.projections[name], phase.shared, seconds)
        self._kernels = kernels_of(plan, self.arrays)
        self._programs: dict[tuple[Variable, ...], tuple[list[Line], set[str]]] = {}

    def _refuse(self) -> None:
        plan, what = self.plan, ""
        first = plan.phases[0]
        if (
            any(p.clamps != first.clamps or p.shared != first.shared for p in plan.phases)
            or plan.mirrored is not plan.phases
        ):
            what = "its phases differ in clamps or shared values"
        elif any(p.turn is not None for p in plan.phases):
            what = "its protocol has windows"
        elif any(p.holds for p in plan.phases):
            what = "its cells hold values from one phase to the next"
        for p in plan.populations.values():
            if p.spiking or p.noises or p.timed:
                what = f"the cells of '{p.name}' have no steady rate"
            if any(a.axis not in ("", "population", "map") for a in p.assignments):
                what = f"pools of '{p.name}' join samples"
        for q, rule in plan.plastic():
            if rule.apply != "trial" or rule.filter is not None or rule.batch is not None or rule.symmetric:
                what = f"the rule '{rule.name}' of '{q.name}' is not simply collected over the trial (apply='trial')"
        if what:
            raise UnsupportedError(f"{LEVEL} cannot run '{plan.circuit.name}': {what}. Use torch:steady.")

    def _rule(
        self, q: ProjectionPlan, shared: Mapping[str, float], seconds: float
    ) -> list[tuple[Variable, Variable, float, int]]:
        """Factors of a projection's rule: post, pre, coefficient, power of w. What is no more than -k w joins the decays."""
        found, parameters = [], self.plan.rules[q.name].parameters
        for term, post, pre in self.plan.rule_factors(q, LEVEL):
            scale = float(evaluate(term.coefficient, {**shared, **parameters})) * seconds
            if term.decay is not None:
                self._decays[q.name] = self._decays.get(q.name, 0.0) + scale * term.decay
                continue
            self._texts[q.target, post], self._texts[q.source, pre] = term.post, term.pre
            found.append(((q.target, post), (q.source, pre), scale, term.w_power))
        return found

    # ---------------------------------------------------------------- programs

    def _reads(self, variable: Variable) -> list[Variable]:
        """What a variable follows from, in this step."""
        population, name = variable
        p = self.plan.populations[population]
        if name in p.ports:
            return [(q.source, q.variable) for q in p.ports[name]]
        text = self._steady.get(variable) or self._texts.get(variable)
        if text is None and variable in self._assigned:
            text = self._assigned[variable].expression
        if text is None:
            return []  # an input or a parameter
        known = {*p.ode, *(a.name for a in p.assignments), *p.ports, *p.inputs}
        return [(population, n) for n in sorted(names_in(text) & known)]

    def _ordered(self, wanted: Collection[Variable]) -> list[Variable]:
        """The wanted variables and all that they follow from, causes first."""
        order: list[Variable] = []
        state: dict[Variable, int] = {}
        stack = [(v, False) for v in reversed(list(wanted))]
        while stack:
            variable, done = stack.pop()
            if done:
                state[variable] = 2
                order.append(variable)
            elif variable not in state:
                state[variable] = 1
                stack.append((variable, True))
                for read in reversed(self._reads(variable)):
                    if state.get(read) == 1:
                        raise UnsupportedError(
                            f"{LEVEL} cannot run '{self.plan.circuit.name}': '{variable[0]}.{variable[1]}' depends on itself, through "
                            f"'{read[0]}.{read[1]}', so there is something to settle. Use torch:steady, or a circuit without that loop."
                        )
                    if read not in state:
                        stack.append((read, False))
        return order

    def _program(self, wanted: tuple[Variable, ...]) -> tuple[list[Line], set[str]]:
        """What computes the wanted variables, and the stimulus fields that it reads."""
        if wanted not in self._programs:
            order = self._ordered(wanted)
            lines = [line for v in order if (line := self._line(v)) is not None]
            self._programs[wanted] = lines, {self.fields[v] for v in order if v in self.fields}
        return self._programs[wanted]

    def _line(self, variable: Variable) -> Line | None:
        population, name = variable
        p = self.plan.populations[population]
        if name in p.ports:
            return self._port(population, name, p.ports[name])
        if variable in self._assigned:
            line = pooled(self._assigned[variable])
        elif variable in self._steady or variable in self._texts:
            line = (name, self._steady.get(variable) or self._texts[variable])
        else:
            return None
        block = compile_block([line], self.arrays.functions, self._constants[population])
        pool = variable in self._assigned and self._assigned[variable].word

        def compute(values: Values, weights: Mapping[str, torch.Tensor]) -> None:
            mine = values[population]
            block(mine)
            if not pool and not (isinstance(mine[name], torch.Tensor) and mine[name].dim() == 2):
                mine[name] = self._of(values, variable)  # a constant: what reads it wants tensors

        return compute

    def _port(self, population: str, name: str, feeding: Sequence[ProjectionPlan]) -> Line:
        # A constant source's drive is the same for all samples: it is added within another's matrix product.
        rows = [
            q for q in feeding if not self._reads((q.source, q.variable)) and not self.plan.populations[q.source].inputs
        ]
        dense = [q for q in feeding if q not in rows and not q.listed and not isinstance(q.connectivity, OneToOne)]

        def fill(values: Values, weights: Mapping[str, torch.Tensor]) -> None:
            total: Any = None
            for q in (*rows, *(q for q in feeding if q not in rows)):
                rates, w = self._of(values, (q.source, q.variable)), weights[q.root]
                if q.transpose:
                    w = w.mT
                if q in dense and q.factor == 1.0 and total is not None and len(total) <= len(rates):
                    total = torch.addmm(total, rates, w)
                    continue
                value = self._drive(q, rates, w, values)
                total = value if total is None else total + value
            values[population][name] = 0.0 if total is None else total

        return fill

    def _drive(self, q: ProjectionPlan, rates: torch.Tensor, w: torch.Tensor, values: Values) -> torch.Tensor:
        if isinstance(q.connectivity, OneToOne):
            drive = rates * w
        elif q.listed:
            drive, winners = self._kernels[q.name].drive(rates, w)
            values[q.source][f"ns_winners_{q.name}"] = winners
        else:
            drive = rates @ w
        return drive if q.factor == 1.0 else q.factor * drive

    def _of(self, values: Values, variable: Variable) -> torch.Tensor:
        """A variable as (samples or 1, cells)."""
        population, name = variable
        value = values[population][name] if name in values[population] else self._constants[population][name]
        if not isinstance(value, torch.Tensor):
            value = self.arrays.full(float(value))
        rows = value.shape[0] if value.dim() == 2 else 1
        return value.expand(rows, self.plan.populations[population].n)

    # ---------------------------------------------------------------- the run

    def __call__(
        self, weights: Mapping[str, torch.Tensor], stimuli: Mapping[str, torch.Tensor], wanted: Sequence[str] = (),
        learn: bool = True,
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:  # fmt: skip
        """Variables at the fixed point, and each plastic projection's change of a trial, the mean over the samples.

        Parameters
        ----------
        weights
            Of every projection that has its own, as `Circuit.initial_weights` names and shapes them.
        stimuli
            ``{field: (samples, values)}``, the fields that `wanted` (and, with `learn`, the rules) depend on.
        wanted
            Variables, ``"population.name"``; given back as (samples or 1, cells).
        learn
            Whether to form the changes.
        """
        asked = [self.plan.variable(name) for name in wanted]
        factors = [v for name in self._factors for post, pre, _, _ in self._factors[name] for v in (post, pre)]
        program, fields = self._program((*asked, *(factors if learn else ())))
        if not fields <= set(stimuli):
            raise NeurosimError(
                f"The stimulus has {', '.join(sorted(stimuli)) or 'no field'}; wanted {', '.join(sorted(fields))}, which "
                f"{', '.join(wanted) or 'the rules'} of '{self.plan.circuit.name}' follow from."
            )
        values: Values = {
            p.name: {x: self.arrays.full(p.initial.get(x, 0.0)).expand(1, p.n) for x in p.inputs}
            for p in self.plan.populations.values()
        }
        for (population, variable), name in self.fields.items():
            if name in stimuli:
                values[population][variable] = stimuli[name]
        for line in program:
            line(values, weights)
        found = {f"{p}.{x}": self._of(values, (p, x)) for p, x in asked}
        return found, {name: self._change(name, values, weights) for name in self._factors if learn}

    def _change(self, name: str, values: Values, weights: Mapping[str, torch.Tensor]) -> torch.Tensor:
        q = self.plan.projections[name]
        total = self._decays[name] * weights[name] if name in self._decays else None
        for post_name, pre_name, scale, power in self._factors[name]:
            post, pre = self._of(values, post_name), self._of(values, pre_name)
            rows = max(len(post), len(pre))
            # A factor that is the same for all samples is multiplied once, with the sum of the other.
            if name in self._kernels:
                winners = values[q.source].get(f"ns_winners_{name}")
                change = self._kernels[name].product(
                    pre.expand(rows, -1), post.expand(rows, -1) * (scale / rows), winners
                )
            else:
                if len(pre) < rows:
                    post = post.sum(0, keepdim=True)
                elif len(post) < rows:
                    pre = pre.sum(0, keepdim=True)
                change = pre.mT @ (post * (scale / rows))
            if power:
                change = change * weights[name]
            total = change if total is None else total + change
        assert total is not None
        return total
