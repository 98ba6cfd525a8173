"""Random circuits on every level, against an explicit Euler loop and SciPy written from the drawn numbers alone.

Nothing below reads the code's plan: `Drawn` keeps the numbers, `circuit_of` says them in the description language, and
`Oracle` computes with them in plain NumPy. A circuit mixes what the language offers: coupled compartments, pools, holds,
ties with factors, one-to-one contacts, recurrence, several projections on one port, rules of two
terms, bounds, apply now/phase/trial, values of single cells, units, two phases with different
shared values, two trials, functions of plain numbers in all places, and names that are a shared
value in one population and something else in another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from circuits import assemble, hold, pool
from scipy.integrate import solve_ivp

from neurosim import (
    SOURCE,
    Circuit,
    Dense,
    Fragment,
    Given,
    OneToOne,
    Phase,
    PlasticityRule,
    Population,
    Projection,
    Protocol,
    Readout,
    Tied,
)

# Chosen from four thousand draws: the first QUICK hold every feature between them, so that a quick
# run misses none, and all of them hold each twice or more.
SEEDS = (
    3277, 2603, 2386, 1030, 1519, 1747, 1281, 495, 3999, 1608,
    1240, 1632, 3188, 2879, 151, 3727, 1697, 3487, 2476, 3470,
)  # fmt: skip
QUICK = 6


def some_slow(quick: int) -> list:
    """The seeds, all but the first few marked as slow."""
    return [*SEEDS[:quick], *(pytest.param(seed, marks=pytest.mark.slow) for seed in SEEDS[quick:])]


DT = 2.5e-4
FIRST, SECOND = 20, 14  # steps of the two phases
TRIALS = 2


# ------------------------------------------------------------------ what is drawn


#: What functions and powers are of, where nothing in them varies from sample to sample.
NUMBERS = ("literal", "parameter", "dt", "shared", "unfed", "pool")


@dataclass
class Layer:
    """Numbers of one population."""

    n: int
    compartments: int
    tau: float
    leak: np.ndarray  # (compartments, 1 or n)
    coupling: np.ndarray  # between compartment c and c+1
    transfer: str
    normalised: bool  # sends r/(0.5 + sum r^2) in place of r
    shunted: bool  # the drive is divided by a pool of drives, a late pool
    start: np.ndarray  # initial states
    q: np.ndarray  # a parameter inside functions (1 or n,)
    numbers: frozenset[str] = frozenset()  # of NUMBERS
    borrowed: tuple[str, str] | None = None  # (kind, name): a name that is a shared value elsewhere
    held_pool: str | None = None

    @property
    def sent(self) -> str:
        return "rn" if self.normalised else "r"

    @property
    def own(self) -> str:
        """Kind of the variable that has the name of a shared value, or nothing."""
        return self.borrowed[0] if self.borrowed else ""


@dataclass
class Wire:
    """One projection: `source` -1 is the input, None is `one`; `port` a number or a name."""

    name: str
    source: int | None
    variable: str
    target: int
    port: int | str
    values: np.ndarray | None = None
    tied: tuple[str, bool, float] | None = None  # owner, transposed, factor
    one_to_one: bool = False
    rule: str | None = None
    apply: str = "now"
    bounds: tuple[float | None, float | None] = (None, None)
    eta: float = 0.0
    theta: float = 0.0


@dataclass
class Drawn:
    """One random circuit, as numbers."""

    seed: int
    inputs: int
    layers: list[Layer]
    wires: list[Wire]
    kappa: float
    beta: float
    low: float  # shared value `mod` in the first phase (1 in the second)
    volts: bool
    reset: bool
    first_rules: frozenset[str]  # rules that are on in the first phase too
    features: set[str] = field(default_factory=set)

    def weights(self) -> dict[str, np.ndarray]:
        return {w.name: w.values.copy() for w in self.wires if w.values is not None}

    def declares(self, k: int) -> set[str]:
        """Shared values that population k declares."""
        mod = {"mod"} if "shared" in self.layers[k].numbers else set()
        return mod | ({"beta"} if k == len(self.layers) - 1 else set())

    def clamp(self, k: int) -> str | None:
        """What an input with a borrowed name is clamped to; nothing where no field has its size."""
        sizes = {"image": self.inputs, "target": self.layers[-1].n}
        return next((name for name, size in sizes.items() if size == self.layers[k].n), None)

    def stimuli(self, samples: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng([self.seed, 77])
        return {
            "image": rng.uniform(0, 1, (samples, self.inputs)),
            "target": rng.uniform(0, 1, (samples, self.layers[-1].n)),
        }


RULES = {
    "decay": "dw/dt = eta*(r_post*{x}_pre - w/unit*r_post**2)",
    "contrast": "dw/dt = eta*mod*(r_post - r_held_post)*{x}_pre",
    "predict": "dw/dt = eta*(r_post - ra_post)*{x}_pre - 0.3*eta*w/unit",
    "late": "dw/dt = eta*(ra_post - a_held_post/unit)*{x}_pre**2 + eta*mod*r_post*{x}_pre",
    "threshold": "dw/dt = eta*(r_post - theta)*{x}_pre",
    "square": "dw/dt = eta*2**(-1)*(ra_post - theta)*{x}_pre**2",
    "functions": "dw/dt = eta*exp(-mod)*sqrt(q_post)*exp(-{x}_pre) - eta*sqrt(theta)*gain_post",
    "pooled": "dw/dt = eta*(ra_post - 0.2*pool_held_post)*{x}_pre",
}
READ_HOLDS = ("contrast", "late", "pooled")
LAZY = ("contrast", "late", "threshold", "square", "functions", "pooled")  # no term with w
NOT_THE_SENT = ("late", "square", "functions")  # a pre factor that is not the sent variable


def draw(seed: int) -> Drawn:
    rng = np.random.default_rng([seed, 2024])
    count = int(rng.integers(1, 5))
    inputs = int(rng.integers(2, 5))
    layers = []

    def start(compartments: int) -> np.ndarray:
        if rng.random() < 0.5:
            return rng.uniform(-0.3, 0.3, compartments)
        return np.zeros(compartments)

    for k in range(count):
        n = inputs if rng.random() < 0.5 else int(rng.integers(2, 5))
        compartments = int(rng.integers(1, 4))
        single = rng.random() < 0.3  # leak of single cells
        layer = Layer(
            n,
            compartments,
            tau=1e-3 * rng.uniform(5, 10),
            leak=rng.uniform(1.0, 1.5, (compartments, n if single else 1)),
            coupling=rng.uniform(0.2, 0.8, compartments - 1),
            transfer=str(rng.choice(["tanh", "logistic"])),
            normalised=bool(rng.random() < 0.5),
            shunted=bool(rng.random() < 0.4),
            start=start(compartments),
            q=rng.uniform(0.5, 1.5, n if rng.random() < 0.5 else 1),
            numbers=frozenset(name for name in NUMBERS if rng.random() < 0.4),
        )
        free = ["mod"] if "shared" not in layer.numbers else []
        free += ["beta"] if k < count - 1 else []
        if free and rng.random() < 0.7:
            kind = str(rng.choice(["port", "unfed port", "input", "hold", "state"]))
            layer.borrowed = (kind, str(rng.choice(free)))
        pools = [*(["power"] if layer.normalised else []), *(["arrived"] if layer.shunted else [])]
        if pools and rng.random() < 0.4:
            layer.held_pool = str(rng.choice(pools))
        layers.append(layer)
    wires: list[Wire] = []

    def matrix(pre: int, post: int, scale: float) -> np.ndarray:
        return scale * rng.standard_normal((pre, post)) / np.sqrt(pre)

    def any_rule(wire: Wire, among=tuple(RULES)) -> str:
        held = layers[wire.target].held_pool
        return str(rng.choice([name for name in among if held or name != "pooled"]))

    def plastic(name: str, wire: Wire, lazy: bool = False) -> Wire:
        wire.rule, wire.eta = name, float(rng.uniform(0.5, 2.0)) * 10  # 1/s: weights move by some per cent
        wire.theta = float(rng.uniform(0.1, 0.5))
        wire.apply = "now" if lazy else str(rng.choice(["now", "phase", "trial"]))
        if rng.random() < 0.3 and not lazy:
            wire.bounds = ((-0.4, 0.5), (None, 0.3), (-0.2, None))[rng.integers(3)]
            wire.values = 0.98 * np.clip(wire.values, *wire.bounds)
        return wire

    def factor() -> float:
        return float(rng.choice([1.0, -0.7, 0.4]))

    lazy = rng.random() < 0.6
    for k, layer in enumerate(layers):
        pre = inputs if k == 0 else layers[k - 1].n
        sent = "r" if k == 0 else layers[k - 1].sent
        forward = Wire(f"W{k}", k - 1, sent, k, 0, matrix(pre, layer.n, 1.0))
        if k == 0 and lazy:
            plastic(any_rule(forward, LAZY), forward, lazy=True)
        elif k == 0 or rng.random() < 0.7:
            plastic(any_rule(forward), forward)
        wires.append(forward)
        if rng.random() < (0.2 if k == 0 and lazy else 0.5):
            bias = Wire(f"b{k}", None, "r", k, 0, 0.3 * rng.standard_normal((1, layer.n)))
            if rng.random() < 0.6:
                plastic(any_rule(bias), bias)
            wires.append(bias)
    for k, layer in enumerate(layers[:-1]):  # feedback: tied to the forward weights, or of its own
        above = layers[k + 1]
        if rng.random() < 0.6:
            wires.append(Wire(f"B{k}", k + 1, "r", k, "F", tied=(f"W{k + 1}", True, factor())))
        else:
            wires.append(Wire(f"B{k}", k + 1, above.sent, k, "F", matrix(above.n, layer.n, 1.0)))
    loop = int(rng.integers(count))  # a recurrent loop within one population, of small gain
    if rng.random() < 0.7:
        n = layers[loop].n
        recurrent = Wire(f"R{loop}", loop, "r", loop, "F", matrix(n, n, 0.5))
        if rng.random() < 0.5:
            plastic("decay", recurrent)
        wires.append(recurrent)
    k = int(rng.integers(count))  # a second projection with the same weights, straight
    if rng.random() < 0.5:
        last = layers[k].compartments - 1
        wires.append(Wire(f"S{k}", k - 1, "r", k, last, tied=(f"W{k}", False, factor())))
    like_input = [k for k, layer in enumerate(layers) if layer.n == inputs]
    if like_input and rng.random() < 0.6:  # a moving population sends through the input's weights
        k = int(rng.choice(like_input))
        if rng.random() < 0.5:
            wires.append(Wire("T", k, "r", 0, "F", tied=("W0", False, factor())))
        else:
            wires.append(Wire("T", 0, "r", k, "F", tied=("W0", True, factor())))
    for k, layer in enumerate(layers):
        if layer.own == "port":
            source = int(rng.integers(-1, count))
            sent = "r" if source < 0 else layers[source].sent
            pre = inputs if source < 0 else layers[source].n
            port = layer.borrowed[1]
            wires.append(Wire(f"X{k}", source, sent, k, port, matrix(pre, layer.n, 0.5)))
    if rng.random() < 0.7:  # one-to-one; without a rule it sends a potential
        k = int(rng.integers(count))
        other = next((m for m, layer in enumerate(layers) if layer.n == layers[k].n), k)
        learns = rng.random() < 0.7
        variable = "r" if learns else f"v{layers[other].compartments - 1}"
        values = rng.uniform(-0.5, 0.5, layers[k].n)
        contact = Wire(f"O{k}", other, variable, k, "F", values, one_to_one=True)
        if learns and k in like_input and rng.random() < 0.5:
            contact.source = -1
        if learns:
            plastic(any_rule(contact), contact)
        wires.append(contact)
        if rng.random() < 0.6:
            source_variable = variable if learns else f"v{layers[k].compartments - 1}"
            tie = (f"O{k}", False, 0.5 * factor())
            wires.append(Wire(f"Q{k}", k, source_variable, k, "F", tied=tie, one_to_one=True))
    used = sorted({w.rule for w in wires if w.rule})
    drawn = Drawn(
        seed, inputs, layers, wires,
        kappa=float(rng.uniform(0.1, 0.3)), beta=float(rng.uniform(0.2, 0.6)), low=float(rng.uniform(0.2, 0.8)),
        volts=bool(rng.random() < 0.4), reset=bool(rng.random() < 0.7),
        first_rules=frozenset(name for name in used if rng.random() < 0.5),
    )  # fmt: skip
    drawn.features = features_of(drawn)
    return drawn


def features_of(drawn: Drawn) -> set[str]:
    layers, wires = drawn.layers, drawn.wires
    by_name = {w.name: w for w in wires}
    plastic = [w for w in wires if w.rule]
    found = {
        f"populations {len(layers)}",
        *(f"compartments {layer.compartments}" for layer in layers),
        *(layer.transfer for layer in layers),
        *(f"rule {w.rule}" for w in plastic),
        *(f"apply {w.apply}" for w in plastic),
        *(f"numbers in functions: {name}" for layer in layers for name in layer.numbers),
        *(f"hold of the pool {layer.held_pool}" for layer in layers if layer.held_pool),
    }
    first = wires[0]
    lazy = first.rule in LAZY and first.apply == "now" and first.bounds == (None, None)
    alone = sum((w.target, w.port) == (0, 0) for w in wires) == 1
    moving_tie = any(w.tied and w.tied[0] == first.name and w.source != -1 for w in wires)
    tied_to_first = [w for w in wires if w.tied and w.tied[0] == first.name]
    for k, layer in enumerate(layers):
        if layer.borrowed:
            others = set().union(*(drawn.declares(m) for m in range(len(layers)) if m != k), set())
            found |= {f"shared name of a {layer.own}"} if layer.borrowed[1] in others else set()
            read = any(w.target == k and w.rule in ("contrast", "late") for w in plastic)
            if read and layer.borrowed[1] == "mod":
                found.add("shared name of the cell in a rule")
    for w in wires:
        if w.tied:
            owner, transposed, factor = by_name[w.tied[0]], w.tied[1], w.tied[2]
            kind = "one-to-one" if w.one_to_one else "transposed" if transposed else "straight"
            found |= {f"tied {kind}"}
            found |= {f"tied {kind} with a factor"} if factor != 1 else set()
            found |= {f"tied {kind} to plastic"} if owner.rule and owner.apply == "now" else set()
    single = [w for w in plastic if w.one_to_one]
    read_in_phase = bool(set(READ_HOLDS) & drawn.first_rules)
    other_pre = lazy and alone and not tied_to_first and first.rule in NOT_THE_SENT
    for feature, present in {
        "early pool": any(layer.normalised for layer in layers),
        "late pool": any(layer.shunted for layer in layers),
        "bounds": any(w.bounds != (None, None) for w in plastic),
        "one-to-one": any(w.one_to_one for w in wires),
        "rule of a one-to-one projection": bool(single),
        "rule of a one-to-one projection from the input": any(w.source == -1 for w in single),
        "values of single cells": any(layer.leak.shape[1] > 1 for layer in layers),
        "functions of values of single cells": any(
            len(layer.q) > 1 and layer.numbers & {"parameter", "pool"} for layer in layers
        ),
        "volts": drawn.volts,
        "no reset": not drawn.reset,
        "a rule with decay in the first phase": "decay" in drawn.first_rules,
        "a hold is read in its phase": read_in_phase,
        "a hold is read in its phase, without reset": read_in_phase and not drawn.reset,
        # The engines then need not write the weights in each step; what they do instead must not
        # reach the states early.
        "lazy and alone": lazy and alone and not tied_to_first,
        "lazy, alone, not the sent variable": other_pre,
        f"lazy, alone, not the sent variable: {first.rule}": other_pre,
        "lazy, alone, read by a tie of a moving population": lazy and alone and moving_tie,
    }.items():
        found |= {feature} if present else set()
    return found


WANTED = {
    *(f"populations {k}" for k in (1, 2, 3, 4)), *(f"compartments {k}" for k in (1, 2, 3)),
    "tanh", "logistic", "early pool", "late pool", "bounds", "one-to-one",
    *(f"rule {name}" for name in RULES), "apply now", "apply phase", "apply trial",
    "rule of a one-to-one projection", "rule of a one-to-one projection from the input",
    *(f"tied {kind}{more}" for kind in ("straight", "transposed", "one-to-one")
      for more in ("", " with a factor", " to plastic")),
    "values of single cells", "functions of values of single cells", "volts", "no reset",
    *(f"numbers in functions: {name}" for name in NUMBERS),
    *(f"shared name of a {kind}" for kind in ("port", "unfed port", "input", "hold", "state")),
    "shared name of the cell in a rule", "hold of the pool power", "hold of the pool arrived",
    "a rule with decay in the first phase", "a hold is read in its phase",
    "a hold is read in its phase, without reset", "lazy and alone",
    "lazy, alone, not the sent variable", "lazy, alone, read by a tie of a moving population",
}  # fmt: skip
# What the slow draws add.
MORE = {f"lazy, alone, not the sent variable: {name}" for name in NOT_THE_SENT}


@pytest.mark.parametrize("which", ["all", "quick"])
def test_the_draws_cover_the_language(which):
    """The generator is the instrument: the seeds together must hold every feature."""
    seeds = SEEDS if which == "all" else SEEDS[:QUICK]
    seen = set().union(*(draw(seed).features for seed in seeds))
    assert seen >= (WANTED | MORE if which == "all" else WANTED)


def bounds_reached(drawn: Drawn) -> set[str]:
    """`apply` of the rules whose weights came to rest at a bound."""
    moved = Oracle(drawn, drawn.stimuli(TRIALS)).run(DT, (FIRST, SECOND), 1, "on")[0]
    return {
        wire.apply
        for wire in drawn.wires
        for bound in (wire.bounds if wire.rule else ())
        if bound is not None and ((moved[wire.name] == bound) & (wire.values != bound)).any()
    }


def test_the_bounds_are_reached():
    reached = set().union(*(bounds_reached(draw(seed)) for seed in SEEDS))
    assert reached == {"now", "phase", "trial"}


# ------------------------------------------------------------------ the same in the description language


def weights_of(wire: Wire) -> Any:
    """How the weights of a wire start, or whose they are."""
    if wire.tied:
        owner, transposed, factor = wire.tied
        return Tied(owner, factor, transposed)
    return None if wire.values is None else Given(wire.values)


def circuit_of(
    drawn: Drawn,
    first: str = f"{FIRST * 250}*us",
    second: str = f"{SECOND * 250}*us",
    step: str = "dt",
) -> Circuit:
    """`step` = "step" puts a parameter in place of the step, which the steady level has not."""
    unit = "volt" if drawn.volts else "1"
    one_unit: float | str = "1*volt" if drawn.volts else 1.0
    populations = [Population("inp", drawn.inputs, SOURCE)]
    clamps = {"inp.r": "image"}
    top = len(drawn.layers) - 1
    for k, layer in enumerate(drawn.layers):
        last = layer.compartments - 1
        numbers, holds, inputs, optional = layer.numbers, [], [], []
        gain = [
            *(["2**(-1)"] if "literal" in numbers else []),
            *(["sqrt(q)"] if "parameter" in numbers else []),
            *([f"exp(-{step}/tau)"] if "dt" in numbers else []),
            *(["exp(-mod)"] if "shared" in numbers else []),
            *(["(exp(spare/unit) + clip(spare/unit, 0, inf))"] if "unfed" in numbers else []),
        ]
        added = [
            *(["3**(-2)"] if "literal" in numbers else []),
            *(["0.1*exp(-q)"] if "parameter" in numbers else []),
            *([f"0.1*sqrt(exp(-{step}/tau))"] if "dt" in numbers else []),
            *(["0.2*clip(mod, 0, inf)"] if "shared" in numbers else []),
            *(["0.2*sqrt(exp(spare/unit))"] if "unfed" in numbers else []),
            *(["0.05*mass"] if "pool" in numbers else []),
            *(["0.1*pool_held"] if layer.held_pool else []),
        ]
        if layer.held_pool:
            holds.append(hold("pool_held", layer.held_pool, "first"))
        lines = [f"gain = {'*'.join(gain) or '1'} : 1"]
        if layer.borrowed:
            kind, name = layer.borrowed
            added += {
                "port": [f"0.4*tanh({name}/unit)"],
                "unfed port": [f"0.4*exp({name}/unit)", f"clip({name}/unit, 0, inf)"],
                "input": [f"0.4*tanh({name})"],
                "hold": [f"0.4*{name}"],
                "state": [f"0.4*{name}/unit"],
            }[kind]
            if kind == "state":
                lines.append(f"d{name}/dt = (0.5*r*unit - {name})/tau : {unit}")
            elif kind == "hold":
                holds.append(hold(name, "r", "first"))
            elif kind == "input":
                lines.append(f"{name} : 1")
                inputs.append(name)
                if field_name := drawn.clamp(k):
                    clamps[f"p{k}.{name}"] = field_name
            else:
                lines.append(f"{name} : {unit}")
                optional.append(name)
        for c in range(layer.compartments):
            flows = [f"-l{c}*v{c}"]
            flows += [f"g{c - 1}*(v{c - 1} - v{c})"] if c else []
            flows += [f"g{c}*(v{c + 1} - v{c})"] if c < last else []
            flows += ["drive"] if c == 0 else [f"I{c}"]
            flows += ["kappa*gain*F"] if c == last else []
            flows += ["nudge"] if c == 0 and k == top else []
            flows += [f"({' + '.join(added)})*unit"] if c == 0 and added else []
            lines.append(f"dv{c}/dt = ({' + '.join(flows)})/tau : {unit}")
            lines.append(f"I{c} : {unit}")
        rate = {"tanh": "tanh({}/unit)", "logistic": "1/(1 + exp(-{}/unit))"}[layer.transfer]
        lines += [f"F : {unit}", f"r = {rate.format('v0')} : 1", f"ra = {rate.format('drive')} : 1"]
        lines += [f"drive = I0/(1 + arrived) : {unit}" if layer.shunted else f"drive = I0 : {unit}"]
        scale = "*sqrt(q)" if "pool" in numbers else ""
        pools = [pool("arrived", f"(I0/unit)**2{scale}")] if layer.shunted else []
        if layer.normalised:
            lines.append("rn = r/(0.5 + power) : 1")
            pools.append(pool("power", f"r**2{scale}"))
        if "pool" in numbers:
            pools.append(pool("mass", "exp(-q)*gain"))
        if k == top:
            nudge = "sqrt(beta)" if "shared" in numbers else "beta"
            lines += [f"nudge = {nudge}*(y - r)*unit : {unit}", "y : 1", "beta : 1 (shared)"]
            inputs.append("y")
        if "shared" in numbers:
            lines.append("mod : 1 (shared)")
        if "unfed" in numbers:
            lines.append(f"spare : {unit}")
            optional.append("spare")
        parameters: dict[str, float | str] = {"tau": f"{layer.tau!r}*second", "unit": one_unit}
        parameters |= {f"l{c}": 1.0 for c in range(layer.compartments)}
        parameters |= {f"g{c}": float(g) for c, g in enumerate(layer.coupling)}
        parameters |= {"kappa": drawn.kappa, "q": 1.0, "step": f"{DT!r}*second"}
        cell = assemble(
            f"cell{k}",
            "\n".join(lines),
            ports=("I0",),
            optional_ports=("F", *(f"I{c}" for c in range(1, layer.compartments)), *optional),
            inputs=tuple(inputs),
            parameters=parameters,
            pools=tuple(pools),
            holds=(hold("r_held", "r", "first"), hold("a_held", "drive", "first"), *holds),
            initial={f"v{c}": float(x) for c, x in enumerate(layer.start)},
        )
        own = {**{f"l{c}": row for c, row in enumerate(layer.leak)}, "q": layer.q}
        single = {name: row if len(row) > 1 else float(row[0]) for name, row in own.items()}
        populations.append(Population(f"p{k}", layer.n, cell, single))
    projections = []
    for wire in drawn.wires:
        source = "one" if wire.source is None else "inp" if wire.source < 0 else f"p{wire.source}.{wire.variable}"
        port = wire.port if isinstance(wire.port, str) else f"I{wire.port}"
        rule = None
        if wire.rule:
            sent = "r" if wire.source is None or wire.source < 0 else wire.variable
            parameters = {"eta": f"{wire.eta!r}*{unit}*Hz" if drawn.volts else f"{wire.eta!r}*Hz", "unit": one_unit}
            parameters["theta"] = wire.theta
            rule = PlasticityRule(wire.rule, RULES[wire.rule].format(x=sent), parameters, wire.apply, wire.bounds)
        projections.append(
            Projection(
                wire.name,
                source,
                f"p{wire.target}.{port}",
                weights_of(wire),
                rule,
                OneToOne() if wire.one_to_one else Dense(),
            )
        )
    used = {w.rule for w in drawn.wires if w.rule}
    protocol = Protocol(
        (
            Phase("first", first, {"mod": drawn.low}, plastic=tuple(sorted(drawn.first_rules))),
            Phase("second", second, shared={"beta": drawn.beta}, plastic=tuple(sorted(used))),
        ),
        clamps={**clamps, f"p{top}.y": "target"},
        shared={"beta": 0.0, "mod": 1.0},
        reset=drawn.reset,
    )
    return Circuit(f"random {drawn.seed}", Fragment(populations, projections), protocol, Readout(f"p{top}.r", "first"))


# ------------------------------------------------------------------ the oracle


TRANSFER: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "tanh": np.tanh,
    "logistic": lambda v: 1.0 / (1.0 + np.exp(-v)),
}


class Oracle:
    """The drawn circuit in plain NumPy; states are lists (layer) of (samples, compartments, n).

    A state with a borrowed name is one more row behind the compartments. What is held is a list
    (layer) of dicts.
    """

    def __init__(self, drawn: Drawn, stimuli: dict[str, np.ndarray]):
        self.drawn, self.x, self.y = drawn, stimuli["image"], stimuli["target"]

    def start(self, samples: int) -> list[np.ndarray]:
        out = []
        for layer in self.drawn.layers:
            row = np.append(layer.start, [0.0] if layer.own == "state" else [])
            out.append(np.tile(row[None, :, None], (samples, 1, layer.n)))
        return out

    def shared(self, phase: str) -> dict[str, float]:
        first = phase == "first"
        return {"beta": 0.0 if first else self.drawn.beta, "mod": self.drawn.low if first else 1.0}

    def nothing_held(self, samples: int) -> list[dict[str, np.ndarray]]:
        sizes = [{"r": layer.n, "drive": layer.n, "pool": 1} for layer in self.drawn.layers]
        return [{name: np.zeros((samples, n)) for name, n in size.items()} for size in sizes]

    def take(self, values) -> list[dict[str, np.ndarray]]:
        """What the holds take."""
        return [
            {"r": v["r"], "drive": v["drive"], "pool": v[layer.held_pool or "power"]}
            for v, layer in zip(values, self.drawn.layers, strict=True)
        ]

    def values(self, state, weights, shared, x, y):
        """All variables of all layers: a list of dicts of (samples, n)."""
        drawn = self.drawn
        out = []
        for layer, v in zip(drawn.layers, state, strict=True):
            numbers = layer.numbers
            r = TRANSFER[layer.transfer](v[:, 0])
            scale = np.sqrt(layer.q) if "pool" in numbers else 1.0
            power = (r**2 * scale).sum(1, keepdims=True)
            gain = 0.5 if "literal" in numbers else 1.0
            gain = gain * np.sqrt(layer.q) if "parameter" in numbers else gain
            gain = gain * np.exp(-DT / layer.tau) if "dt" in numbers else gain
            gain = gain * np.exp(-shared["mod"]) if "shared" in numbers else gain
            # Nothing feeds `spare`: its factor is exp(0) + 0.
            known = {"r": r, "rn": r / (0.5 + power), "power": power, "gain": gain + 0.0 * r}
            known["mass"] = (np.exp(-layer.q) * known["gain"]).sum(1, keepdims=True)
            known |= {f"v{c}": v[:, c] for c in range(layer.compartments)}
            known |= {c: 0.0 for c in (*range(layer.compartments), "F")}
            if layer.own == "port":
                known[layer.borrowed[1]] = 0.0
            out.append(known)
        for wire in drawn.wires:
            sent = self.sent(wire, out, x)
            name, transposed, factor = wire.tied or (wire.name, False, 1.0)
            w = factor * weights[name]
            current = sent * w if wire.one_to_one else sent @ (w.T if transposed else w)
            out[wire.target][wire.port] = out[wire.target][wire.port] + current
        for k, (layer, v) in enumerate(zip(drawn.layers, state, strict=True)):
            known = out[k]
            basal = known[0]
            scale = np.sqrt(layer.q) if "pool" in layer.numbers else 1.0
            known["arrived"] = (basal**2 * scale).sum(1, keepdims=True)
            known["drive"] = basal / (1 + known["arrived"]) if layer.shunted else basal
            known["ra"] = TRANSFER[layer.transfer](known["drive"])
            known["nudge"] = 0.0
            if k == len(drawn.layers) - 1:
                nudge = np.sqrt(shared["beta"]) if "shared" in layer.numbers else shared["beta"]
                known["nudge"] = nudge * (y - known["r"])
            known["added"] = self.added(k, known, v, shared, {"image": x, "target": y})
        return out

    def added(self, k, known, v, shared, stimulus):
        """Terms of the first compartment, all but the holds."""
        layer = self.drawn.layers[k]
        numbers = layer.numbers
        total = np.zeros_like(known["r"])
        total += 1 / 9 if "literal" in numbers else 0.0
        total += 0.1 * np.exp(-layer.q) if "parameter" in numbers else 0.0
        total += 0.1 * np.sqrt(np.exp(-DT / layer.tau)) if "dt" in numbers else 0.0
        total += 0.2 * shared["mod"] if "shared" in numbers else 0.0
        total += 0.2 if "unfed" in numbers else 0.0
        total += 0.05 * known["mass"] if "pool" in numbers else 0.0
        if layer.own == "port":
            total += 0.4 * np.tanh(known[layer.borrowed[1]])
        elif layer.own == "unfed port":
            total += 0.4
        elif layer.own == "state":
            total += 0.4 * v[:, -1]
        elif layer.own == "input" and (name := self.drawn.clamp(k)):
            total += 0.4 * np.tanh(stimulus[name])
        return total

    @staticmethod
    def sent(wire, values, x):
        if wire.source is None:
            return np.ones((len(x), 1))
        return x if wire.source < 0 else values[wire.source][wire.variable]

    def derivative(self, state, values, held):
        """`held` after this step's sample-and-hold, which comes before the potentials move."""
        change = []
        for layer, v, known, kept in zip(self.drawn.layers, state, values, held, strict=True):
            cells = v[:, : layer.compartments]
            d = -layer.leak[None] * cells
            for c, g in enumerate(layer.coupling):
                flow = g * (v[:, c + 1] - v[:, c])
                d[:, c] += flow
                d[:, c + 1] -= flow
            d[:, 0] += known["drive"] + known["nudge"] + known["added"]
            d[:, 0] += 0.4 * kept["r"] if layer.own == "hold" else 0.0
            d[:, 0] += 0.1 * kept["pool"] if layer.held_pool else 0.0
            for c in range(1, layer.compartments):
                d[:, c] += known[c]
            d[:, -1] += self.drawn.kappa * known["gain"] * known["F"]
            if layer.own == "state":
                d = np.concatenate([d, (0.5 * known["r"] - v[:, -1])[:, None]], axis=1)
            change.append(d / layer.tau)
        return change

    def weight_change(self, wire, w, values, held, mod, x):
        """dw/dt, mean over samples; one to one, the factors meet cell by cell."""
        layer, post = self.drawn.layers[wire.target], values[wire.target]
        pre = self.sent(wire, values, x)
        kept = held[wire.target]
        q = np.broadcast_to(layer.q, (1, layer.n))

        def facing(a):
            return a if wire.one_to_one else a[:, None, :]

        root = np.sqrt(wire.theta)
        r, ra, gain, q = facing(post["r"]), facing(post["ra"]), facing(post["gain"]), facing(q)
        r_held, drive_held, pool_held = (facing(kept[name]) for name in ("r", "drive", "pool"))
        pre = pre if wire.one_to_one else pre[:, :, None]
        change = {
            "decay": lambda: r * pre - w * r**2,
            "contrast": lambda: mod * (r - r_held) * pre,
            "predict": lambda: (r - ra) * pre - 0.3 * w,
            "late": lambda: (ra - drive_held) * pre**2 + mod * r * pre,
            "threshold": lambda: (r - wire.theta) * pre,
            "square": lambda: 0.5 * (ra - wire.theta) * pre**2,
            "functions": lambda: np.exp(-mod) * np.sqrt(q) * np.exp(-pre) - root * gain,
            "pooled": lambda: (ra - 0.2 * pool_held) * pre,
        }[wire.rule]()
        return wire.eta * change.mean(axis=0)

    def on(self, phase: str) -> list[Wire]:
        """Projections whose rule is on."""
        plastic = [w for w in self.drawn.wires if w.rule]
        return [w for w in plastic if phase == "second" or w.rule in self.drawn.first_rules]

    def run(self, dt, steps, batch, learn):
        """Explicit Euler, all trials: weights, collected changes, ends and the trace of all variables."""
        drawn = self.drawn
        weights = drawn.weights()
        plastic = [w for w in drawn.wires if w.rule]
        collected = {w.name: np.zeros_like(weights[w.name]) for w in plastic}
        ends: dict[str, list] = {"first": [], "second": []}
        trace = []
        state = self.start(batch)
        for trial in range(len(self.x) // batch):
            x, y = (a[trial * batch : (trial + 1) * batch] for a in (self.x, self.y))
            if drawn.reset:
                state = self.start(batch)
            if drawn.reset or trial == 0:
                held = self.nothing_held(batch)
            for phase, count in zip(("first", "second"), steps, strict=True):
                shared, on = self.shared(phase), self.on(phase)
                mod = shared["mod"]
                for step in range(count):
                    values = self.values(state, weights, shared, x, y)
                    changes = {}
                    for w in on:
                        rate = self.weight_change(w, weights[w.name], values, held, mod, x)
                        changes[w.name] = dt * rate
                    # Behind the rules' factors: in this step they have read what was held before.
                    if phase == "first" and step == count - 1:
                        held = self.take(values)
                    for known, kept in zip(values, held, strict=True):
                        known["r_held"] = kept["r"]
                    trace.append(values)
                    if step == count - 1:
                        ends[phase].append(values)
                    rates = self.derivative(state, values, held)
                    for w in on if learn != "off" else ():
                        if learn == "held" or w.apply != "now":
                            collected[w.name] += changes[w.name]
                        else:
                            weights[w.name] = np.clip(weights[w.name] + changes[w.name], *w.bounds)
                    state = [v + dt * d for v, d in zip(state, rates, strict=True)]
                if learn == "on":
                    self.apply("phase", on, weights, collected)
            if learn == "on":
                self.apply("trial", plastic, weights, collected)
        return weights, collected, ends, trace

    @staticmethod
    def apply(when, wires, weights, collected):
        for w in wires:
            if w.apply == when:
                weights[w.name] = np.clip(weights[w.name] + collected[w.name], *w.bounds)
                collected[w.name][...] = 0.0


def named(drawn: Drawn, values) -> dict[str, np.ndarray]:
    """The oracle's variables under the circuit's names."""
    out = {}
    for k, (layer, known) in enumerate(zip(drawn.layers, values, strict=True)):
        names = [
            "r",
            "ra",
            "drive",
            "gain",
            *(f"v{c}" for c in range(layer.compartments)),
            *(["rn"] if layer.normalised else []),
        ]
        out |= {f"p{k}.{name}": known[name] for name in names}
        out |= {f"p{k}.I{c}": known[c] for c in range(layer.compartments) if not np.isscalar(known[c])}
        out |= {f"p{k}.F": known["F"]} if not np.isscalar(known["F"]) else {}
        if layer.own == "port":
            out[f"p{k}.{layer.borrowed[1]}"] = known[layer.borrowed[1]]
    return out


# ------------------------------------------------------------------ the tests


def recorded(drawn: Drawn) -> tuple[str, ...]:
    top = len(drawn.layers) - 1
    return ("p0.v0", "p0.drive", f"p{top}.r", f"p{top}.r_held", f"p{top}.ra", f"p{top}.nudge")


@lru_cache(maxsize=64)
def outcome(seed: int, level: str, batch: int, learn: str = "on"):
    from conftest import run_circuit

    drawn = draw(seed)
    return run_circuit(
        circuit_of(drawn), level, drawn.stimuli(TRIALS * batch), drawn.weights(), dt=DT, batch=batch, learn=learn,
        record=recorded(drawn),
    )  # fmt: skip


def response(seed: int, batch: int) -> float:
    """How far the weights answer to one weight moved by one unit in the last place, on the trajectory level."""
    from conftest import run_circuit

    drawn = draw(seed)
    moved = drawn.weights()
    moved["W0"][0, 0] = np.nextafter(moved["W0"][0, 0], np.inf)
    other = run_circuit(circuit_of(drawn), "torch:trajectory", drawn.stimuli(TRIALS * batch), moved, dt=DT, batch=batch)
    reference = outcome(seed, "torch:trajectory", batch)
    answer = max(np.abs(other.weights[name] - w).max() for name, w in reference.weights.items())
    ends = [np.abs(other.ends[p][n] - v).max() for p, kept in reference.ends.items() for n, v in kept.items()]
    return max(answer, *ends)


def assert_same(seed: int, batch: int, differences: dict[str, float]) -> None:
    worst = max(differences, key=lambda name: differences[name])
    limit = 1e-12
    if not differences[worst] <= limit:  # only then is it worth asking how strongly this circuit amplifies round-off
        limit = max(limit, 100 * min(response(seed, batch), 1e-12))
    assert differences[worst] <= limit, f"{worst} differs by {differences[worst]:.1e} (limit {limit:.1e})"


def differences_of(a, b) -> dict[str, float]:
    """Largest differences of two results in weights, ends, readout and traces."""
    assert set(a.weights) == set(b.weights)
    assert set(a.traces.values) == set(b.traces.values)
    assert {p: set(kept) for p, kept in a.ends.items()} == {p: set(kept) for p, kept in b.ends.items()}
    out = {f"weights of {n}": np.abs(w - b.weights[n]).max() for n, w in a.weights.items()}
    out |= {
        f"{n} at the end of {p}": np.abs(v - b.ends[p][n]).max() for p, kept in a.ends.items() for n, v in kept.items()
    }
    out |= {f"trace of {n}": np.abs(v - b.traces[n]).max() for n, v in a.traces.values.items()}
    out["time"] = np.abs(a.traces.time - b.traces.time).max()
    out["readout"] = np.abs(a.readout - b.readout).max()
    return out


def against_oracle(seed: int, level: str, batch: int, learn: str) -> dict[str, float]:
    drawn = draw(seed)
    got = outcome(seed, level, batch, learn)
    weights, collected, ends, trace = Oracle(drawn, drawn.stimuli(TRIALS * batch)).run(
        DT, (FIRST, SECOND), batch, learn
    )
    assert set(got.weights) == set(weights)
    assert got.traces.time == pytest.approx(DT * np.arange(TRIALS * (FIRST + SECOND)))
    out = {f"weights of {n}": np.abs(w - got.weights[n]).max() for n, w in weights.items()}
    if learn == "held":
        assert set(got.collected) == set(collected)
        out |= {f"collected of {n}": np.abs(c - got.collected[n]).max() for n, c in collected.items()}
    for phase, trials in ends.items():
        wanted: dict[str, list] = {}
        for values in trials:
            for name, value in named(drawn, values).items():
                wanted.setdefault(name, []).append(value)
        assert set(wanted) <= set(got.ends[phase])
        for name, value in wanted.items():
            out[f"{name} at the end of {phase}"] = np.abs(np.concatenate(value) - got.ends[phase][name]).max()
    top = len(drawn.layers) - 1
    for name in ("p0.v0", "p0.drive", f"p{top}.r", f"p{top}.r_held", f"p{top}.ra"):
        population, _, variable = name.partition(".")
        wanted_trace = np.stack([values[int(population[1:])][variable] for values in trace])
        out[f"trace of {name}"] = np.abs(wanted_trace - got.traces[name]).max()
    out["readout"] = np.abs(np.concatenate([values[-1]["r"] for values in ends["first"]]) - got.readout).max()
    return out


@pytest.mark.parametrize("seed", some_slow(14))
@pytest.mark.parametrize("batch", [1, 3])
def test_trajectory_equals_the_oracle(seed, batch):
    assert_same(seed, batch, against_oracle(seed, "torch:trajectory", batch, "on"))


@pytest.mark.parametrize("seed", some_slow(QUICK))
@pytest.mark.parametrize("batch", [1, 3])
def test_dense_equals_the_oracle_and_trajectory(seed, batch):
    assert_same(seed, batch, against_oracle(seed, "brian2:dense", batch, "on"))
    assert_same(
        seed, batch, differences_of(outcome(seed, "brian2:dense", batch), outcome(seed, "torch:trajectory", batch))
    )


@pytest.mark.parametrize("seed", some_slow(QUICK))
def test_equations_equal_the_oracle_and_trajectory(seed):
    assert_same(seed, 1, against_oracle(seed, "brian2:equations", 1, "on"))
    assert_same(seed, 1, differences_of(outcome(seed, "brian2:equations", 1), outcome(seed, "torch:trajectory", 1)))


@pytest.mark.parametrize("seed", some_slow(10))
@pytest.mark.parametrize("learn", ["held", "off"])
def test_held_and_off_equal_the_oracle(seed, learn):
    assert_same(seed, 3, against_oracle(seed, "torch:trajectory", 3, learn))


@pytest.mark.parametrize(
    ("level", "learn"), [("brian2:equations", "held"), ("brian2:dense", "held"), ("brian2:equations", "off")]
)
@pytest.mark.parametrize("seed", [SEEDS[1], SEEDS[3]])
def test_held_and_off_on_brian2(seed, level, learn):
    assert_same(seed, 1, against_oracle(seed, level, 1, learn))


@pytest.mark.parametrize("seed", some_slow(14))
def test_learning_moves_the_weights(seed):
    """Agreement says nothing where nothing happens."""
    drawn = draw(seed)
    moved = outcome(seed, "torch:trajectory", 3).weights
    for wire in drawn.wires:
        change = np.abs(moved[wire.name] - wire.values).max() if wire.values is not None else 0.0
        assert change > 1e-6 if wire.rule else change == 0.0, wire.name


@pytest.mark.parametrize("seed", some_slow(4))
def test_first_order_against_scipy(seed):
    from conftest import run_circuit

    drawn = draw(seed)
    stimuli = drawn.stimuli(2)
    oracle = Oracle(drawn, stimuli)
    weights = drawn.weights()
    shapes = [v.shape for v in oracle.start(2)]
    cuts = np.cumsum([np.prod(s) for s in shapes])[:-1]
    spans = (8e-3, 6e-3)
    flat = np.concatenate([v.ravel() for v in oracle.start(2)])
    truth = []
    held = oracle.nothing_held(2)

    def unpacked(packed):
        return [part.reshape(s) for part, s in zip(np.split(packed, cuts), shapes, strict=True)]

    for span, phase in zip(spans, ("first", "second"), strict=True):
        shared = oracle.shared(phase)

        def rhs(_, packed, shared=shared, held=held):
            state = unpacked(packed)
            values = oracle.values(state, weights, shared, oracle.x, oracle.y)
            return np.concatenate([d.ravel() for d in oracle.derivative(state, values, held)])

        times = np.arange(0, round(span / 1e-3)) * 1e-3
        solution = solve_ivp(rhs, (0, span), flat, method="DOP853", t_eval=[*times, span], rtol=1e-11, atol=1e-13)
        assert solution.success
        truth.append(solution.y.T[:-1])
        flat = solution.y.T[-1]
        held = oracle.take(oracle.values(unpacked(flat), weights, shared, oracle.x, oracle.y))
    truth = np.concatenate(truth)  # every millisecond
    states = [
        [f"p{k}.v{c}" for c in range(layer.compartments)]
        + ([f"p{k}.{layer.borrowed[1]}"] if layer.own == "state" else [])
        for k, layer in enumerate(drawn.layers)
    ]
    circuit = circuit_of(drawn, "8*ms", "6*ms", step="step")
    errors = []
    for halvings in range(3):
        steps = 20 * 2**halvings  # a millisecond
        got = run_circuit(
            circuit, "torch:trajectory", stimuli, weights, dt=1e-3 / steps, batch=2, learn="off",
            stride=steps, ends=False, record=tuple(name for names in states for name in names),
        )  # fmt: skip
        path = []
        for names in states:
            cells = np.stack([got.traces[name] for name in names], axis=2)
            path.append(cells.reshape(len(cells), -1))
        errors.append(np.abs(np.concatenate(path, axis=1) - truth).max())
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert errors[0] < 0.02
    assert orders == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("seed", some_slow(QUICK))
def test_the_steady_level_equals_the_settled_oracle(seed):
    """Phases of 40 of the slowest time constant; the weights stand still, changes are collected.

    A rule's change on the steady level is its right-hand side at the fixed point times the length
    of its phase.
    """
    from conftest import run_circuit

    drawn = draw(seed)
    drawn.reset = True
    stimuli, weights, span = drawn.stimuli(3), drawn.weights(), 0.4
    oracle = Oracle(drawn, stimuli)
    _, _, ends, trace = oracle.run(1e-3, (400, 400), 3, "off")
    for end in (399, 799):
        before, after = (named(drawn, trace[step]) for step in (end - 1, end))
        moved = max(np.abs(after[name] - value).max() for name, value in before.items())
        assert moved < 1e-9  # else the comparison says nothing
    circuit = circuit_of(drawn, "400*ms", "400*ms", step="step")
    steady = run_circuit(circuit, "torch:steady", stimuli, weights, batch=3, learn="held")
    assert steady.unsettled == 0
    changes = {w.name: np.zeros_like(weights[w.name]) for w in drawn.wires if w.rule}
    held = oracle.nothing_held(3)
    for phase in ("first", "second"):
        (values,) = ends[phase]
        wanted = named(drawn, values)
        assert set(wanted) <= set(steady.ends[phase])
        for name, value in wanted.items():
            assert steady.ends[phase][name] == pytest.approx(value, abs=1e-8), f"{name} at the end of {phase}"
        for w in oracle.on(phase):
            mod = oracle.shared(phase)["mod"]
            change = oracle.weight_change(w, weights[w.name], values, held, mod, oracle.x)
            changes[w.name] += span * change
        held = oracle.take(values)
    assert steady.readout == pytest.approx(ends["first"][0][-1]["r"], abs=1e-8)
    assert set(steady.collected) == set(changes)
    for name, change in changes.items():
        assert steady.collected[name] == pytest.approx(change, abs=1e-7), f"change of {name}"
