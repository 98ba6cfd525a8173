"""Random circuits on every level, against an explicit Euler loop and SciPy written from the drawn numbers alone.

Nothing below reads the code's plan: `Drawn` keeps the numbers, `circuit_of` says them in the description language, and
`Oracle` computes with them in plain NumPy. A circuit mixes what the language offers: coupled compartments, pools, holds,
ties, one-to-one contacts, recurrence, several projections on one port, rules of two terms, bounds, apply now/phase/trial,
values of single cells, units, two phases with different shared values, two trials.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from neurosim import (
    SOURCE,
    Cell,
    Circuit,
    Dense,
    Given,
    Hold,
    OneToOne,
    Phase,
    PlasticityRule,
    Pool,
    Population,
    Projection,
    Protocol,
    Readout,
    Tied,
)

SEEDS = range(20)


def some_slow(quick: int) -> list:
    """The seeds, all but the first few marked as slow."""
    return [seed if seed < quick else pytest.param(seed, marks=pytest.mark.slow) for seed in SEEDS]


DT = 2.5e-4
FIRST, SECOND = 20, 14  # steps of the two phases
TRIALS = 2


# ------------------------------------------------------------------ what is drawn


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

    @property
    def sent(self) -> str:
        return "rn" if self.normalised else "r"


@dataclass
class Wire:
    """One projection: `source` -1 is the input, None is `one`; `port` a compartment's number or "F"."""

    name: str
    source: int | None
    variable: str
    target: int
    port: int | str
    values: np.ndarray | None = None
    tied: tuple[str, bool] | None = None
    one_to_one: bool = False
    rule: str | None = None
    apply: str = "now"
    bounds: tuple[float | None, float | None] = (None, None)
    eta: float = 0.0


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
    first_rules: bool  # whether the decaying rule is on in the first phase too
    features: set[str] = field(default_factory=set)

    def weights(self) -> dict[str, np.ndarray]:
        return {w.name: w.values.copy() for w in self.wires if w.values is not None}

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
}


def draw(seed: int) -> Drawn:
    rng = np.random.default_rng([seed, 2024])
    count = int(rng.integers(1, 5))
    inputs = int(rng.integers(2, 6))
    layers = []
    for _ in range(count):
        n, compartments = int(rng.integers(2, 6)), int(rng.integers(1, 4))
        single = rng.random() < 0.3  # leak of single cells
        layers.append(
            Layer(
                n,
                compartments,
                tau=1e-3 * rng.uniform(5, 10),
                leak=rng.uniform(1.0, 1.5, (compartments, n if single else 1)),
                coupling=rng.uniform(0.2, 0.8, compartments - 1),
                transfer=str(rng.choice(["tanh", "logistic"])),
                normalised=bool(rng.random() < 0.5),
                shunted=bool(rng.random() < 0.4),
                start=rng.uniform(-0.3, 0.3, compartments) if rng.random() < 0.5 else np.zeros(compartments),
            )
        )
    wires: list[Wire] = []

    def matrix(pre: int, post: int, scale: float) -> np.ndarray:
        return scale * rng.standard_normal((pre, post)) / np.sqrt(pre)

    def plastic(name: str, wire: Wire) -> Wire:
        wire.rule, wire.eta = name, float(rng.uniform(0.5, 2.0)) * 10  # 1/s: weights move by some per cent
        wire.apply = str(rng.choice(["now", "phase", "trial"]))
        if rng.random() < 0.3:
            wire.bounds = ((-0.4, 0.5), (None, 0.3), (-0.2, None))[rng.integers(3)]
            wire.values = 0.98 * np.clip(wire.values, *wire.bounds)
        return wire

    for k, layer in enumerate(layers):
        pre = inputs if k == 0 else layers[k - 1].n
        sent = "r" if k == 0 else layers[k - 1].sent
        forward = Wire(f"W{k}", k - 1, sent, k, 0, matrix(pre, layer.n, 1.0))
        if k == 0 or rng.random() < 0.7:
            plastic(str(rng.choice(list(RULES))), forward)
        wires.append(forward)
        if rng.random() < 0.5:
            bias = Wire(f"b{k}", None, "r", k, 0, 0.3 * rng.standard_normal((1, layer.n)))
            if rng.random() < 0.6:
                plastic(str(rng.choice(list(RULES))), bias)
            wires.append(bias)
    for k, layer in enumerate(layers[:-1]):  # feedback: tied to the forward weights, or of its own
        above = layers[k + 1]
        if rng.random() < 0.6:
            wires.append(Wire(f"B{k}", k + 1, "r", k, "F", tied=(f"W{k + 1}", True)))
        else:
            wires.append(Wire(f"B{k}", k + 1, above.sent, k, "F", matrix(above.n, layer.n, 1.0)))
    loop = int(rng.integers(count))  # a recurrent loop within one population, of small gain
    recurrent = Wire(f"R{loop}", loop, "r", loop, "F", matrix(layers[loop].n, layers[loop].n, 0.5))
    if rng.random() < 0.5:
        plastic("decay", recurrent)
    wires.append(recurrent)
    k = int(rng.integers(count))  # a second projection with the same weights, straight
    if rng.random() < 0.6:
        wires.append(Wire(f"S{k}", k - 1, "r", k, layers[k].compartments - 1, tied=(f"W{k}", False)))
    if rng.random() < 0.6:  # one-to-one, sends a potential
        k = int(rng.integers(count))
        other = next((m for m, layer in enumerate(layers) if layer.n == layers[k].n), k)
        variable = f"v{layers[other].compartments - 1}"
        wires.append(Wire(f"O{k}", other, variable, k, "F", rng.uniform(-0.5, 0.5, layers[k].n), one_to_one=True))
    drawn = Drawn(
        seed, inputs, layers, wires,
        kappa=float(rng.uniform(0.1, 0.3)), beta=float(rng.uniform(0.2, 0.6)), low=float(rng.uniform(0.2, 0.8)),
        volts=bool(rng.random() < 0.4), reset=bool(rng.random() < 0.7), first_rules=bool(rng.random() < 0.5),
    )  # fmt: skip
    roots = {w.tied[0] for w in wires if w.tied}
    drawn.features = {
        *(f"populations {count}" for _ in "x"),
        *(f"compartments {layer.compartments}" for layer in layers),
        *(layer.transfer for layer in layers),
        *(f"rule {w.rule}" for w in wires if w.rule),
        *(f"apply {w.apply}" for w in wires if w.rule),
        *(["early pool"] if any(layer.normalised for layer in layers) else []),
        *(["late pool"] if any(layer.shunted for layer in layers) else []),
        *(["bounds"] if any(w.rule and w.bounds != (None, None) for w in wires) else []),
        *(["one-to-one"] if any(w.one_to_one for w in wires) else []),
        *(["tied straight"] if any(w.tied and not w.tied[1] for w in wires) else []),
        *(["tied transposed"] if any(w.tied and w.tied[1] for w in wires) else []),
        *(["tied to plastic"] if any(w.rule and w.apply == "now" and w.name in roots for w in wires) else []),
        *(["values of single cells"] if any(layer.leak.shape[1] > 1 for layer in layers) else []),
        *(["volts"] if drawn.volts else []),
        *([] if drawn.reset else ["no reset"]),
        *(["lazy and alone"] if _lazy_and_alone(wires) else []),
        *(["rule in the first phase"] if drawn.first_rules and "decay" in {w.rule for w in wires} else []),
    }
    return drawn


def _lazy_and_alone(wires: list[Wire]) -> bool:
    """A clamped source, weights that change in every step without decay, and no other projection on the port.

    The engines then need not write the weights in each step; what they do instead must not reach the states early.
    """
    first = wires[0]
    alone = sum((w.target, w.port) == (0, 0) for w in wires) == 1
    free = first.bounds == (None, None) and not any(w.tied and w.tied[0] == first.name for w in wires)
    return alone and free and first.rule in ("contrast", "late") and first.apply == "now"


def test_the_draws_cover_the_language():
    """The generator is the instrument: the seeds together must hold every feature."""
    seen = set().union(*(draw(seed).features for seed in SEEDS))
    wanted = {
        *(f"populations {k}" for k in (1, 2, 3, 4)), *(f"compartments {k}" for k in (1, 2, 3)), "tanh", "logistic",
        *(f"rule {name}" for name in RULES), "apply now", "apply phase", "apply trial", "early pool", "late pool", "bounds",
        "one-to-one", "tied straight", "tied transposed", "tied to plastic", "values of single cells", "volts", "no reset",
        "rule in the first phase", "lazy and alone",
    }  # fmt: skip
    assert wanted <= seen


def test_the_bounds_are_reached():
    reached = set()
    for seed in SEEDS:
        drawn = draw(seed)
        moved = Oracle(drawn, drawn.stimuli(TRIALS)).run(DT, (FIRST, SECOND), 1, "on")[0]
        for wire in drawn.wires:
            for bound in wire.bounds if wire.rule else ():
                if bound is not None and ((moved[wire.name] == bound) & (wire.values != bound)).any():
                    reached.add(wire.apply)
    assert {"now", "trial"} <= reached


# ------------------------------------------------------------------ the same in the description language


def circuit_of(drawn: Drawn, first: str = f"{FIRST * 250}*us", second: str = f"{SECOND * 250}*us") -> Circuit:
    unit = "volt" if drawn.volts else "1"
    one_unit: float | str = "1*volt" if drawn.volts else 1.0
    populations = [Population("inp", drawn.inputs, SOURCE)]
    top = len(drawn.layers) - 1
    for k, layer in enumerate(drawn.layers):
        last = layer.compartments - 1
        lines = []
        for c in range(layer.compartments):
            flows = [f"-l{c}*v{c}"]
            flows += [f"g{c - 1}*(v{c - 1} - v{c})"] if c else []
            flows += [f"g{c}*(v{c + 1} - v{c})"] if c < last else []
            flows += ["drive"] if c == 0 else [f"I{c}"]
            flows += ["kappa*F"] if c == last else []
            flows += ["nudge"] if c == 0 and k == top else []
            lines.append(f"dv{c}/dt = ({' + '.join(flows)})/tau : {unit}")
            lines.append(f"I{c} : {unit}")
        rate = {"tanh": "tanh({}/unit)", "logistic": "1/(1 + exp(-{}/unit))"}[layer.transfer]
        lines += [f"F : {unit}", f"r = {rate.format('v0')} : 1", f"ra = {rate.format('drive')} : 1"]
        lines += [f"drive = I0/(1 + arrived) : {unit}" if layer.shunted else f"drive = I0 : {unit}"]
        pools = [Pool("arrived", "(I0/unit)**2")] if layer.shunted else []
        if layer.normalised:
            lines.append("rn = r/(0.5 + power) : 1")
            pools.append(Pool("power", "r**2"))
        if k == top:
            lines += [f"nudge = beta*(y - r)*unit : {unit}", "y : 1", "beta : 1 (shared)"]
        parameters: dict[str, float | str] = {"tau": f"{layer.tau!r}*second", "unit": one_unit}
        parameters |= {f"l{c}": 1.0 for c in range(layer.compartments)}
        parameters |= {f"g{c}": float(g) for c, g in enumerate(layer.coupling)}
        parameters |= {"kappa": drawn.kappa}
        cell = Cell(
            f"cell{k}",
            "\n".join(lines),
            ports=("I0",),
            optional_ports=("F", *(f"I{c}" for c in range(1, layer.compartments))),
            inputs=("y",) if k == top else (),
            parameters=parameters,
            pools=tuple(pools),
            holds=(Hold("r_held", "r", "first"), Hold("a_held", "drive", "first")),
            initial={f"v{c}": float(x) for c, x in enumerate(layer.start)},
        )
        leak = {f"l{c}": (row if len(row) > 1 else float(row[0])) for c, row in enumerate(layer.leak)}
        populations.append(Population(f"p{k}", layer.n, cell, leak))
    projections = []
    for wire in drawn.wires:
        source = "one" if wire.source is None else "inp" if wire.source < 0 else f"p{wire.source}.{wire.variable}"
        port = wire.port if isinstance(wire.port, str) else f"I{wire.port}"
        rule = None
        if wire.rule:
            sent = "r" if wire.source is None or wire.source < 0 else wire.variable
            parameters = {"eta": f"{wire.eta!r}*{unit}*Hz" if drawn.volts else f"{wire.eta!r}*Hz", "unit": one_unit}
            rule = PlasticityRule(wire.rule, RULES[wire.rule].format(x=sent), parameters, wire.apply, wire.bounds)
        projections.append(
            Projection(
                wire.name,
                source,
                f"p{wire.target}.{port}",
                OneToOne() if wire.one_to_one else Dense(),
                weights=None if wire.values is None else Given(np.atleast_2d(wire.values)),
                rule=rule,
                tied=Tied(*wire.tied) if wire.tied else None,
            )
        )
    used = {w.rule for w in drawn.wires if w.rule}
    early = tuple(sorted(used & {"decay"})) if drawn.first_rules else ()
    protocol = Protocol(
        (
            Phase("first", first, shared={"mod": drawn.low}, plastic=early),
            Phase("second", second, shared={"beta": drawn.beta}, plastic=tuple(sorted(used))),
        ),
        clamps={"inp.r": "image", f"p{top}.y": "target"},
        shared={"beta": 0.0, "mod": 1.0},
        reset=drawn.reset,
    )
    return Circuit(
        f"random {drawn.seed}", tuple(populations), tuple(projections), protocol, Readout(f"p{top}.r", "first")
    )


# ------------------------------------------------------------------ the oracle


TRANSFER: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "tanh": np.tanh,
    "logistic": lambda v: 1.0 / (1.0 + np.exp(-v)),
}


class Oracle:
    """The drawn circuit in plain NumPy; states are lists (layer) of (samples, compartments, n)."""

    def __init__(self, drawn: Drawn, stimuli: dict[str, np.ndarray]):
        self.drawn, self.x, self.y = drawn, stimuli["image"], stimuli["target"]

    def start(self, samples: int) -> list[np.ndarray]:
        return [np.tile(layer.start[None, :, None], (samples, 1, layer.n)) for layer in self.drawn.layers]

    def values(self, state, weights, beta, x, y):
        """All variables of all layers: a list of dicts of (samples, n)."""
        drawn = self.drawn
        out = []
        for layer, v in zip(drawn.layers, state, strict=True):
            r = TRANSFER[layer.transfer](v[:, 0])
            known = {"r": r, "rn": r / (0.5 + (r**2).sum(1, keepdims=True))}
            known |= {f"v{c}": v[:, c] for c in range(layer.compartments)}
            known |= {c: 0.0 for c in (*range(layer.compartments), "F")}
            out.append(known)
        for wire in drawn.wires:
            sent = self.sent(wire, out, x)
            if wire.tied:
                root = weights[wire.tied[0]]
                current = sent @ (root.T if wire.tied[1] else root)
            elif wire.one_to_one:
                current = sent * weights[wire.name]
            else:
                current = sent @ weights[wire.name]
            out[wire.target][wire.port] = out[wire.target][wire.port] + current
        for k, layer in enumerate(drawn.layers):
            known = out[k]
            basal = known[0]
            known["drive"] = basal / (1 + (basal**2).sum(1, keepdims=True)) if layer.shunted else basal
            known["ra"] = TRANSFER[layer.transfer](known["drive"])
            known["nudge"] = beta * (y - known["r"]) if k == len(drawn.layers) - 1 else 0.0
        return out

    @staticmethod
    def sent(wire, values, x):
        if wire.source is None:
            return np.ones((len(x), 1))
        return x if wire.source < 0 else values[wire.source][wire.variable]

    def derivative(self, state, values):
        change = []
        for layer, v, known in zip(self.drawn.layers, state, values, strict=True):
            d = -layer.leak[None] * v
            for c, g in enumerate(layer.coupling):
                flow = g * (v[:, c + 1] - v[:, c])
                d[:, c] += flow
                d[:, c + 1] -= flow
            d[:, 0] += known["drive"] + known["nudge"]
            for c in range(1, layer.compartments):
                d[:, c] += known[c]
            d[:, -1] += self.drawn.kappa * known["F"]
            change.append(d / layer.tau)
        return change

    def weight_change(self, wire, w, values, held, mod, x):
        """dw/dt, mean over samples."""
        post, pre = values[wire.target], self.sent(wire, values, x)
        r, ra = post["r"][:, None, :], post["ra"][:, None, :]
        kept = {name: value[:, None, :] for name, value in held[wire.target].items()}
        pre = pre[:, :, None]
        change = {
            "decay": lambda: r * pre - w * r**2,
            "contrast": lambda: mod * (r - kept["r"]) * pre,
            "predict": lambda: (r - ra) * pre - 0.3 * w,
            "late": lambda: (ra - kept["drive"]) * pre**2 + mod * r * pre,
        }[wire.rule]()
        return wire.eta * change.mean(axis=0)

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
                held = [{"r": np.zeros((batch, q.n)), "drive": np.zeros((batch, q.n))} for q in drawn.layers]
            for phase, count in zip(("first", "second"), steps, strict=True):
                beta, mod = (0.0, drawn.low) if phase == "first" else (drawn.beta, 1.0)
                on = [w for w in plastic if phase == "second" or (drawn.first_rules and w.rule == "decay")]
                for step in range(count):
                    values = self.values(state, weights, beta, x, y)
                    if phase == "first" and step == count - 1:
                        held = [{"r": v["r"], "drive": v["drive"] + 0.0} for v in values]
                    trace.append(values)
                    if step == count - 1:
                        ends[phase].append(values)
                    rates = self.derivative(state, values)
                    changes = {w.name: dt * self.weight_change(w, weights[w.name], values, held, mod, x) for w in on}
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
            *(f"v{c}" for c in range(layer.compartments)),
            *(["rn"] if layer.normalised else []),
        ]
        out |= {f"p{k}.{name}": known[name] for name in names}
        out |= {f"p{k}.I{c}": known[c] for c in range(layer.compartments) if not np.isscalar(known[c])}
        out |= {f"p{k}.F": known["F"]} if not np.isscalar(known["F"]) else {}
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
    for name in ("p0.v0", "p0.drive", f"p{top}.r", f"p{top}.ra"):
        population, _, variable = name.partition(".")
        wanted_trace = np.stack([values[int(population[1:])][variable] for values in trace])
        out[f"trace of {name}"] = np.abs(wanted_trace - got.traces[name]).max()
    out["readout"] = np.abs(np.concatenate([values[-1]["r"] for values in ends["first"]]) - got.readout).max()
    return out


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("batch", [1, 3])
def test_trajectory_equals_the_oracle(seed, batch):
    assert_same(seed, batch, against_oracle(seed, "torch:trajectory", batch, "on"))


@pytest.mark.parametrize("seed", some_slow(6))
@pytest.mark.parametrize("batch", [1, 3])
def test_dense_equals_the_oracle_and_trajectory(seed, batch):
    assert_same(seed, batch, against_oracle(seed, "brian2:dense", batch, "on"))
    assert_same(
        seed, batch, differences_of(outcome(seed, "brian2:dense", batch), outcome(seed, "torch:trajectory", batch))
    )


@pytest.mark.parametrize("seed", some_slow(6))
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
@pytest.mark.parametrize("seed", [2, 11])
def test_held_and_off_on_brian2(seed, level, learn):
    assert_same(seed, 1, against_oracle(seed, level, 1, learn))


@pytest.mark.parametrize("seed", SEEDS)
def test_learning_moves_the_weights(seed):
    """Agreement says nothing where nothing happens."""
    drawn = draw(seed)
    moved = outcome(seed, "torch:trajectory", 3).weights
    for wire in drawn.wires:
        change = np.abs(moved[wire.name] - wire.values).max() if wire.values is not None else 0.0
        assert change > 1e-6 if wire.rule else change == 0.0, wire.name


@pytest.mark.parametrize("seed", some_slow(6))
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
    for span, beta in zip(spans, (0.0, drawn.beta), strict=True):

        def rhs(_, packed, beta=beta):
            state = [part.reshape(s) for part, s in zip(np.split(packed, cuts), shapes, strict=True)]
            values = oracle.values(state, weights, beta, oracle.x, oracle.y)
            return np.concatenate([d.ravel() for d in oracle.derivative(state, values)])

        times = np.arange(0, round(span / 1e-3)) * 1e-3
        solution = solve_ivp(rhs, (0, span), flat, method="DOP853", t_eval=[*times, span], rtol=1e-11, atol=1e-13)
        assert solution.success
        truth.append(solution.y.T[:-1])
        flat = solution.y.T[-1]
    truth = np.concatenate(truth)  # every millisecond
    names = [f"p{k}.v{c}" for k, layer in enumerate(drawn.layers) for c in range(layer.compartments)]
    circuit = circuit_of(drawn, "8*ms", "6*ms")
    errors = []
    for halvings in range(3):
        steps = 20 * 2**halvings  # a millisecond
        got = run_circuit(
            circuit, "torch:trajectory", stimuli, weights, dt=1e-3 / steps, batch=2, learn="off", record=tuple(names),
            stride=steps, ends=False,
        )  # fmt: skip
        path = []
        for k, layer in enumerate(drawn.layers):
            cells = np.stack([got.traces[f"p{k}.v{c}"] for c in range(layer.compartments)], axis=2)
            path.append(cells.reshape(len(cells), -1))
        errors.append(np.abs(np.concatenate(path, axis=1) - truth).max())
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert errors[0] < 0.02
    assert orders == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("seed", some_slow(8))
def test_steady_ends_equal_the_settled_trajectory(seed):
    """Phases of 40 of the slowest time constant; weights off."""
    from conftest import run_circuit

    drawn = draw(seed)
    drawn.reset = True
    circuit = circuit_of(drawn, "400*ms", "400*ms")
    stimuli = drawn.stimuli(3)
    settled = run_circuit(circuit, "torch:trajectory", stimuli, drawn.weights(), dt=1e-3, batch=3, learn="off")
    steady = run_circuit(circuit, "torch:steady", stimuli, drawn.weights(), batch=3, learn="off")
    assert max(settled.settling.values()) < 1e-9  # else the comparison says nothing
    assert steady.unsettled == 0
    for phase in ("first", "second"):
        for name, value in settled.ends[phase].items():
            assert steady.ends[phase][name] == pytest.approx(value, abs=1e-8), f"{name} at the end of {phase}"
    assert steady.readout == pytest.approx(settled.readout, abs=1e-8)
