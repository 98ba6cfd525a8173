"""Convolutions between maps, biases per map, and pools over maps and batches, on every level against plain loops.

Oracle: `drive` and `product` below, index by index from the equations in the docstring of `Conv2d`, and `Net`, explicit Euler in NumPy.
Nothing here reads the code's plan or its patches.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from circuits import assemble, overlap, pool

from neurosim import (
    SOURCE,
    Cell,
    Circuit,
    Constant,
    Conv2d,
    Dense,
    Fragment,
    Given,
    Like,
    OneToOne,
    Orthogonal,
    PerMap,
    Phase,
    PlasticityRule,
    Population,
    Projection,
    Protocol,
    Tied,
    Uniform,
)
from neurosim.backends import engine_class
from neurosim.backends.engine import Options
from neurosim.errors import CircuitError, NeurosimError

EQUATIONS, DENSE, TRAJECTORY, STEADY = "brian2:equations", "brian2:dense", "torch:trajectory", "torch:steady"
EULER = (EQUATIONS, DENSE, TRAJECTORY)
TAU, DT = 0.01, 1e-3


# ------------------------------------------------------------------ the oracle


def drive(r: np.ndarray, w: np.ndarray, shape: tuple, target: tuple, c: Conv2d) -> tuple[np.ndarray, list]:
    """Drive of one sample, flat, and for each target cell the position (row, column) of the convolution that reaches it."""
    maps, height, width = shape
    r = r.reshape(shape)
    out, won = np.empty(target), []
    for o, y, x in np.ndindex(*target):
        found = []
        for py, px in itertools.product(range(c.pool), range(c.pool)):
            row, column = y * c.pool + py, x * c.pool + px
            total = 0.0
            for m, v, u in itertools.product(range(maps), range(c.size), range(c.size)):
                i, j = c.stride * row + v - c.padding, c.stride * column + u - c.padding
                if 0 <= i < height * c.upsample and 0 <= j < width * c.upsample:
                    total += w[(m * c.size + v) * c.size + u, o] * r[m, i // c.upsample, j // c.upsample]
            found.append((total, (row, column)))
        best = max(found, key=lambda pair: pair[0])
        out[o, y, x] = best[0]
        won.append(best[1])
    return out.ravel(), won


def product(pre: np.ndarray, post: np.ndarray, won: list, shape: tuple, target: tuple, c: Conv2d) -> np.ndarray:
    """Sum over the target's cells of post times what the kernel reads of pre at the position that reaches the cell; one sample."""
    maps, height, width = shape
    pre = pre.reshape(shape)
    found = np.zeros((maps * c.size**2, target[0]))
    for k, (o, _, _) in enumerate(np.ndindex(*target)):
        row, column = won[k]
        for m, v, u in itertools.product(range(maps), range(c.size), range(c.size)):
            i, j = c.stride * row + v - c.padding, c.stride * column + u - c.padding
            if 0 <= i < height * c.upsample and 0 <= j < width * c.upsample:
                found[(m * c.size + v) * c.size + u, o] += post[k] * pre[m, i // c.upsample, j // c.upsample]
    return found


def batch_drive(r, w, shape, target, c):
    pairs = [drive(row, w, shape, target, c) for row in r]
    return np.array([i for i, _ in pairs]), [won for _, won in pairs]


def batch_product(pre, post, won, shape, target, c):
    return np.mean([product(a, b, k, shape, target, c) for a, b, k in zip(pre, post, won, strict=True)], axis=0)


def positions(cells: int, c: Conv2d) -> int:
    """How many positions fit a row, counted."""
    room = cells * c.upsample + 2 * c.padding
    return sum(1 for start in range(0, room, c.stride) if start + c.size <= room)


def play(circuit, level, images, *, learn="held", weights=None, dt=DT, batch=None, targets=None, **options):
    stimuli = {"image": images} | ({} if targets is None else {"target": targets})
    engine = engine_class(level)(
        circuit.plan, weights or circuit.initial_weights(0),
        Options(batch=batch or len(images), dt=dt, progress=False, **options),
    )  # fmt: skip
    return engine.present(stimuli, learn=learn)


def near(got, wanted, limit=1e-12, what=""):
    assert np.shape(got) == np.shape(wanted), f"{what}: shape {np.shape(got)}, wanted {np.shape(wanted)}"
    worst = float(np.abs(np.asarray(got) - wanted).max())
    assert worst <= limit * max(1.0, float(np.abs(wanted).max())), f"{what}: off by {worst:.1e}"


LEAKY = Cell("leaky", "du/dt = (-u + I)/tau : 1\nr = tanh(u) : 1\nI : 1 (port)", parameters={"tau": f"{TAU}*second"})


# ------------------------------------------------------------------ every combination


def combinations() -> list:
    found = []
    for size, stride, padding, upsample, pooled in itertools.product((1, 2, 3), (1, 2), (0, 1), (1, 2), (1, 2)):
        c = Conv2d(size, stride, padding, upsample, pooled)
        for height, width in ((2, 3), (3, 4), (3, 5), (4, 5), (4, 6)):
            sides = positions(height, c), positions(width, c)
            if min(sides) >= pooled and not sides[0] % pooled and not sides[1] % pooled:
                found.append(pytest.param(c, (2, height, width), id=f"{size}-{stride}-{padding}-{upsample}-{pooled}"))
                break
    return found


def test_all_combinations_fit_some_map():
    assert len(combinations()) >= 40
    assert all(p.values[1][1] != p.values[1][2] for p in combinations())


def one_projection(c: Conv2d, shape: tuple, duration: str = "400*ms", decay: float = 0.3) -> tuple[Circuit, tuple]:
    target = (3, positions(shape[1], c) // c.pool, positions(shape[2], c) // c.pool)
    rule = PlasticityRule("hebb", "dw/dt = eta*r_post*r_pre - k*eta*w", {"eta": "2*Hz", "k": decay}, apply="trial")
    circuit = Circuit(
        "one convolution",
        [
            Population("x", shape, SOURCE),
            Population("p", target, LEAKY),
            Projection("W", "x", "p.I", Uniform(-0.6, 0.6), rule, connectivity=c),
        ],
        Protocol((Phase("settle", duration, plastic=("hebb",)),), clamps={"x.r": "image"}),
    )
    return circuit, target


def images_for(shape, samples, seed=1):
    return np.random.default_rng(seed).uniform(-1, 1, (samples, int(np.prod(shape))))


@pytest.mark.parametrize("samples", [1, 5])
@pytest.mark.parametrize(("c", "shape"), combinations())
def test_steady_drive_and_change(c, shape, samples):
    circuit, target = one_projection(c, shape)
    weights, images = circuit.initial_weights(0), images_for(shape, samples)
    assert weights["W"].shape == (2 * c.size**2, 3)
    I, won = batch_drive(images, weights["W"], shape, target, c)
    result = play(circuit, STEADY, images)
    near(result.ends["settle"]["p.u"], I, what="drive")
    wanted = 2 * 0.4 * (batch_product(images, np.tanh(I), won, shape, target, c) - 0.3 * weights["W"])
    near(result.collected["W"], wanted, what="change")


def in_time(c, shape, target, w, images, steps, decay=0.3):
    """The drive is constant: Euler's u and the change summed over steps."""
    I, won = batch_drive(images, w, shape, target, c)
    u, change = np.zeros_like(I), 0.0
    for _ in range(steps):
        change = change + DT * 2 * (batch_product(images, np.tanh(u), won, shape, target, c) - decay * w)
        last, u = u, u + DT / TAU * (I - u)
    return last, change


@pytest.mark.parametrize("samples", [1, 5])
@pytest.mark.parametrize(("c", "shape"), combinations()[::3])
def test_drive_and_change_on_torch_in_time(c, shape, samples):
    circuit, target = one_projection(c, shape, "5*ms")
    images = images_for(shape, samples)
    u, change = in_time(c, shape, target, circuit.initial_weights(0)["W"], images, 5)
    result = play(circuit, TRAJECTORY, images)
    near(result.ends["settle"]["p.u"], u, what="u")
    near(result.collected["W"], change, what="change")


@pytest.mark.parametrize(("c", "shape"), combinations())
def test_numpy_kernels(c, shape):
    """What brian2:dense computes with, without Brian2 around it."""
    from neurosim.backends.brian2.convolution import Convolution

    circuit, target = one_projection(c, shape)
    w, images = circuit.initial_weights(0)["W"], images_for(shape, 3)
    kernel = Convolution(circuit.plan.projections["W"])
    I, won = batch_drive(images, w, shape, target, c)
    got, winners = kernel.drive(images, w)
    near(got, I, what="drive")
    near(kernel.product(images, np.cos(I), winners) / 3, batch_product(images, np.cos(I), won, shape, target, c))


SOME = [
    p
    for p in combinations()
    if p.values[0] in (Conv2d(3, 2, 1), Conv2d(3, 1, 1, 2), Conv2d(3, 1, 1, 1, 2), Conv2d(2, 2, 1, 2, 2))
]


@pytest.mark.parametrize("samples", [1, 5])
@pytest.mark.parametrize(("c", "shape"), SOME)
def test_drive_and_change_on_dense(c, shape, samples):
    circuit, target = one_projection(c, shape, "5*ms")
    images = images_for(shape, samples)
    u, change = in_time(c, shape, target, circuit.initial_weights(0)["W"], images, 5)
    result = play(circuit, DENSE, images)
    near(result.ends["settle"]["p.u"], u, what="u")
    near(result.collected["W"], change, what="change")


def unmet(c: Conv2d, shape: tuple[int, int, int]) -> bool:
    """Whether some entry of the kernel lies beside the maps at every position."""
    for cells in shape[1:]:
        last = (cells * c.upsample + 2 * c.padding - c.size) // c.stride
        starts = [c.stride * p - c.padding for p in range(last + 1)]
        if any(all(not 0 <= s + u < cells * c.upsample for s in starts) for u in range(c.size)):
            return True
    return False


@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize(
    ("c", "shape"), [p for p in combinations() if p.values[0] in (Conv2d(3, 2, 1), Conv2d(3, 1, 1, 2), Conv2d(2, 1, 0))]
)
def test_drive_and_change_on_equations(c, shape, decay):
    """One weight has synapses at many positions; a decay is that of the weight, not of each of them."""
    circuit, target = one_projection(c, shape, "5*ms", decay)
    images = images_for(shape, 1)
    u, change = in_time(c, shape, target, circuit.initial_weights(0)["W"], images, 5, decay)
    if unmet(c, shape):  # its rule has a decay, even if of 0
        with pytest.raises(NeurosimError, match=r"meet no cell of these maps"):
            play(circuit, EQUATIONS, images)
        return
    result = play(circuit, EQUATIONS, images)
    near(result.ends["settle"]["p.u"], u, what="u")
    near(result.collected["W"], change, what="change")


# ------------------------------------------------------------------ a circuit with everything on one port


class Net:
    """x -> a by C1; a -> b by C2 (a moving source), by D and by a bias per map, all on one port; b -> a by C3, a recurrent circuit."""

    X, A, B = (2, 4, 6), (3, 2, 3), (2, 2, 3)

    def __init__(self, pool: bool, apply: str, bounds=(None, None), filter: float | None = None, decay: float = 0.2):
        self.kinds = {
            "C1": (Conv2d(3, 1, 1, 1, 2) if pool else Conv2d(3, 2, 1), self.X, self.A),
            "C2": (Conv2d(3, 1, 1), self.A, self.B),
            "C3": (Conv2d(2, 2, 0, 2), self.B, self.A),
        }
        self.apply, self.bounds, self.filter, self.decay = apply, bounds, filter, decay
        rng = np.random.default_rng(4)
        sizes = {"C1": (18, 3), "C2": (27, 2), "C3": (8, 3), "D": (18, 12), "b": (1, 2)}
        self.weights = {n: 0.3 * rng.uniform(-1, 1, s) for n, s in sizes.items()}
        if bounds != (None, None):
            self.weights = {n: np.clip(w, *bounds) for n, w in self.weights.items()}
        self.plastic = ("C1", "C2", "C3", "D", "b")

    def circuit(self, phases=("6*ms", "4*ms"), reset=True) -> Circuit:
        rule = PlasticityRule(
            "hebb", "dw/dt = eta*mod*(r_post - 0.1)*r_pre - k*eta*w", {"eta": "20*Hz", "k": self.decay},
            apply=self.apply, bounds=self.bounds, filter=None if self.filter is None else f"{self.filter}*second",
        )  # fmt: skip
        learns = {"weights": None, "rule": rule}
        projections = [
            Projection(name, s, t, connectivity=kind, **learns | {"weights": Given(self.weights[name])})
            for name, s, t, kind in (
                ("C1", "x", "a.I", self.kinds["C1"][0]), ("C3", "b", "a.I", self.kinds["C3"][0]),
                ("C2", "a", "b.I", self.kinds["C2"][0]), ("D", "a", "b.I", Dense()), ("b", "one", "b.I", PerMap()),
            )
        ]  # fmt: skip
        populations = (
            Population("x", self.X, SOURCE), Population("a", self.A, LEAKY), Population("b", self.B, LEAKY)
        )  # fmt: skip
        protocol = Protocol(
            (Phase("first", phases[0], plastic=("hebb",), shared={"mod": 1.0}), Phase("second", phases[1], plastic=("hebb",), shared={"mod": -0.5})),
            clamps={"x.r": "image"}, reset=reset,
        )  # fmt: skip
        return Circuit("maps", Fragment(populations, projections), protocol)

    def rhs(self, w, x, u, mod):
        """Drives, and F of each rule."""
        r = {"x": x, "a": np.tanh(u["a"]), "b": np.tanh(u["b"]), "one": np.ones((len(x), 1))}
        ends = {"C1": ("x", "a"), "C2": ("a", "b"), "C3": ("b", "a")}
        I, won = {"a": 0.0, "b": r["a"] @ w["D"] + np.repeat(w["b"], 6, axis=1)}, {}
        for name, (pre, post) in ends.items():
            c, shape, target = self.kinds[name]
            value, won[name] = batch_drive(r[pre], w[name], shape, target, c)
            I[post] = I[post] + value
        F = {}
        for name, (pre, post) in ends.items():
            c, shape, target = self.kinds[name]
            F[name] = mod * batch_product(r[pre], r[post] - 0.1, won[name], shape, target, c)
        F["D"] = mod * r["a"].T @ (r["b"] - 0.1) / len(x)
        F["b"] = mod * (r["b"] - 0.1).reshape(len(x), 2, 6).sum(axis=2).mean(axis=0, keepdims=True)
        return I, {n: 20 * (F[n] - self.decay * w[n]) for n in F}

    def euler(self, images, steps=(6, 4), trials=1, learn=True, start=None):
        w = {n: v.copy() for n, v in self.weights.items()}
        collected = {n: np.zeros_like(v) for n, v in w.items()}
        D = {n: np.zeros_like(v) for n, v in w.items()}

        def add(n):
            w[n] = w[n] + collected[n]
            collected[n] = np.zeros_like(w[n])
            if self.bounds != (None, None):
                w[n] = np.clip(w[n], *self.bounds)

        ends = {}
        for trial in range(trials):
            x = images[trial::trials] if trials == 1 else np.split(images, trials)[trial]
            u = {"a": np.zeros((len(x), 18)), "b": np.zeros((len(x), 12))}
            D = {n: np.zeros_like(v) for n, v in w.items()}
            for mod, count, phase in ((1.0, steps[0], "first"), (-0.5, steps[1], "second")):
                for _ in range(count):
                    I, F = self.rhs(w, x, u, mod)
                    ends[phase] = {n: v.copy() for n, v in u.items()}
                    for n in w:
                        step = F[n]
                        if self.filter is not None:
                            step, D[n] = D[n], D[n] + DT / self.filter * (F[n] - D[n])
                        collected[n] = collected[n] + DT * step
                        if learn and self.apply == "now":
                            add(n)
                    u = {n: u[n] + DT / TAU * (I[n] - u[n]) for n in u}
                for n in w:
                    if learn and self.apply == "phase":
                        add(n)
            for n in w:
                if learn and self.apply == "trial":
                    add(n)
        return w, collected, ends


def levels(pool, apply):
    return [TRAJECTORY, DENSE] + ([] if pool or apply == "now" else [EQUATIONS])


CASES = [
    (level, pool, apply, bounds, filter)
    for pool, apply, bounds, filter in (
        (True, "now", (None, None), None),
        (True, "phase", (None, None), None),
        (False, "trial", (None, None), None),
        (True, "now", (-0.2, 0.22), None),
        (False, "phase", (-0.2, 0.22), None),
        (True, "now", (None, None), 0.015),
        (False, "trial", (None, None), 0.015),
    )
    for level in levels(pool, apply)
]


@pytest.mark.parametrize(("level", "pool", "apply", "bounds", "filter"), CASES)
def test_weights_after_two_trials_equal_the_loops(level, pool, apply, bounds, filter):
    net = Net(pool, apply, bounds, filter, decay=0.2 if bounds == (None, None) else -0.4)  # growth: into the bounds
    samples = 1 if level == EQUATIONS else 3
    images = images_for(net.X, 2 * samples)
    wanted, _, ends = net.euler(images, trials=2)
    result = play(net.circuit(), level, images, learn="on", weights=net.weights, batch=samples)
    for name, value in wanted.items():
        assert np.abs(value - net.weights[name]).max() > 1e-4, "nothing learnt, no test"
        near(result.weights[name], value, what=name)
    for phase, states in ends.items():
        for name, value in states.items():
            near(result.ends[phase][f"{name}.u"][-samples:], value, what=f"{phase} {name}")
    if bounds != (None, None):
        assert any((np.abs(wanted[n] - b) < 1e-15).any() for n in wanted for b in bounds)


@pytest.mark.parametrize("level", [TRAJECTORY, DENSE, EQUATIONS])
def test_held_changes_of_a_circuit_equal_the_loops(level):
    net = Net(level != EQUATIONS, "trial")
    images = images_for(net.X, 1 if level == EQUATIONS else 3)
    _, wanted, _ = net.euler(images, learn=False)
    result = play(net.circuit(), level, images, weights=net.weights)
    for name, value in wanted.items():
        near(result.collected[name], value, what=name)
        assert np.array_equal(result.weights[name], net.weights[name])


@pytest.mark.parametrize("method", ["sweeps", "anderson"])
@pytest.mark.parametrize("samples", [1, 5])
def test_steady_states_of_a_circle_with_convolutions(method, samples):
    """F at the fixed point of the loops, times the lengths of the phases; the fixed point by iterating the loops."""
    net = Net(True, "trial")
    images = images_for(net.X, samples)
    u = {"a": np.zeros((samples, 18)), "b": np.zeros((samples, 12))}
    for _ in range(150):
        I, _ = net.rhs(net.weights, images, u, 1.0)
        u = {n: 0.5 * u[n] + 0.5 * I[n] for n in u}
    assert max(np.abs(net.rhs(net.weights, images, u, 1.0)[0][n] - u[n]).max() for n in u) < 1e-12
    result = play(net.circuit(("600*ms", "200*ms")), STEADY, images, weights=net.weights, method=method)
    assert not result.unsettled
    first, second = (net.rhs(net.weights, images, u, mod)[1] for mod in (1.0, -0.5))
    for name in net.plastic:
        near(result.collected[name], 0.6 * first[name] + 0.2 * second[name], 1e-8, name)
    for n in "ab":
        near(result.ends["second"][f"{n}.u"], u[n], 1e-9, n)


@pytest.mark.parametrize("apply", ["now", "phase", "trial"])
def test_steady_weights_after_learning(apply):
    """With apply = now and phase the second phase settles with the weights that the first has changed (now: by F of the phase's fixed point)."""
    net = Net(True, apply, (-0.25, 0.27))
    images = images_for(net.X, 4)
    w = {n: v.copy() for n, v in net.weights.items()}
    for trial in range(2):
        x, waiting = images[2 * trial : 2 * trial + 2], {n: 0.0 for n in w}
        for mod, seconds in ((1.0, 0.02), (-0.5, 0.01)):
            u = {"a": np.zeros((2, 18)), "b": np.zeros((2, 12))}
            for _ in range(120):
                I, F = net.rhs(w, x, u, mod)
                u = {n: 0.5 * u[n] + 0.5 * I[n] for n in u}
            F = net.rhs(w, x, u, mod)[1]
            waiting = {n: waiting[n] + seconds * F[n] for n in w}
            if apply != "trial":
                w = {n: np.clip(w[n] + waiting[n], -0.25, 0.27) for n in w}
                waiting = {n: 0.0 for n in w}
        w = {n: np.clip(w[n] + waiting[n], -0.25, 0.27) for n in w}
    result = play(net.circuit(("20*ms", "10*ms")), STEADY, images, learn="on", weights=net.weights, batch=2)
    for name, value in w.items():
        assert np.abs(value - net.weights[name]).max() > 1e-3
        near(result.weights[name], value, 1e-8, name)


@pytest.mark.parametrize("apply", ["phase", "trial"])
def test_steady_filter_is_the_exact_integral(apply):
    net = Net(True, apply, filter=0.015)
    images = images_for(net.X, 2)
    u = {"a": np.zeros((2, 18)), "b": np.zeros((2, 12))}
    for _ in range(150):
        I, _ = net.rhs(net.weights, images, u, 1.0)
        u = {n: 0.5 * u[n] + 0.5 * I[n] for n in u}
    result = play(net.circuit(("40*ms", "20*ms")), STEADY, images, weights=net.weights)
    F1, F2 = (net.rhs(net.weights, images, u, mod)[1] for mod in (1.0, -0.5))
    tau = 0.015
    for name in net.plastic:
        D = F1[name] * (1 - np.exp(-0.04 / tau))
        first = F1[name] * 0.04 - F1[name] * tau * (1 - np.exp(-0.04 / tau))
        second = F2[name] * 0.02 + (D - F2[name]) * tau * (1 - np.exp(-0.02 / tau))
        near(result.collected[name], first + second, 1e-9, name)


def test_float32():
    net = Net(True, "trial")
    images = images_for(net.X, 3)
    for level, phases in ((TRAJECTORY, ("6*ms", "4*ms")), (STEADY, ("200*ms", "50*ms"))):
        double, single = (
            play(net.circuit(phases), level, images, weights=net.weights, dtype=d, **({"tolerance": 1e-5} if level == STEADY and d == "float32" else {}))
            for d in ("float64", "float32")
        )  # fmt: skip
        for name in net.plastic:
            near(single.collected[name], double.collected[name], 1e-4, f"{level} {name}")


# ------------------------------------------------------------------ pools over maps and batches


SHAPE = (2, 2, 3)
POOLED = Cell("pooled", """
    du/dt = (-u + I/(1 + power) + 0.1*mean + 0.05*late)/tau : 1
    r = tanh(u) : 1
    scaled = r/(0.5 + power) + 0*nested : 1
    centred = r - mean/area : 1
    error = I*late : 1
    I : 1 (port)
    power = pool(r**2, map) : 1
    mean = pool(r, batch) : 1
    nested = pool(power*mean, map) : 1
    late = pool(I/(1 + power**2), map) : 1
    all = pool(late*u) : 1
    """, rate="scaled", parameters={"tau": f"{TAU}*second", "area": 6.0})  # fmt: skip


def pooled_circuit(phase="5*ms", apply="trial") -> Circuit:
    rule = PlasticityRule(
        "hebb", "dw/dt = eta*(centred_post*nested_post + all_post*error_post)*r_pre", {"eta": "20*Hz"}, apply=apply
    )
    back = PlasticityRule("back", "dw/dt = eta*r_post*(scaled_pre*mean_pre)", {"eta": "20*Hz"}, apply=apply)
    return Circuit(
        "pools",
        [Population("x", 4, SOURCE), Population("p", SHAPE, POOLED), Population("q", 3, LEAKY),
         Projection("W", "x", "p.I", Uniform(-1, 1), rule), Projection("V", "p", "q.I", Uniform(-1, 1), back)],
        Protocol((Phase("on", phase, plastic=("hebb", "back")),), clamps={"x.r": "image"}),
    )  # fmt: skip


def pools_of(u, I):
    """power, mean, nested, late, all; maps and batch written out."""
    n = len(u)
    r = np.tanh(u)

    def per_map(z):
        return np.repeat(z.reshape(n, 2, 6).sum(axis=2), 6, axis=1)

    power = per_map(r**2)
    mean = np.tile(per_map(r).mean(axis=0), (n, 1))
    nested = per_map(power * mean)
    late = per_map(I / (1 + power**2))
    return r, power, mean, nested, late, (late * u).sum(axis=1, keepdims=True)


def pooled_rules(x, u, I, uq):
    r, power, mean, nested, late, every = pools_of(u, I)
    post = (r - mean / 6) * nested + every * I * late
    scaled = r / (0.5 + power)
    return 20 * x.T @ post / len(x), 20 * (scaled * mean).T @ np.tanh(uq) / len(x), scaled


@pytest.mark.parametrize("level", [TRAJECTORY, DENSE, EQUATIONS])
def test_pools_in_time(level):
    circuit = pooled_circuit()
    weights, images = circuit.initial_weights(0), images_for(4, 1 if level == EQUATIONS else 4)
    I = images @ weights["W"]
    u, uq, W, V = np.zeros_like(I), np.zeros((len(images), 3)), 0.0, 0.0
    for _ in range(5):
        _, power, mean, _, late, _ = pools_of(u, I)
        dW, dV, scaled = pooled_rules(images, u, I, uq)
        W, V, last = W + DT * dW, V + DT * dV, u
        u, uq = (
            u + DT / TAU * (-u + I / (1 + power) + 0.1 * mean + 0.05 * late),
            uq + DT / TAU * (scaled @ weights["V"] - uq),
        )
    result = play(circuit, level, images)
    near(result.ends["on"]["p.u"], last, what="u")
    near(result.collected["W"], W, what="W")
    near(result.collected["V"], V, what="V")


@pytest.mark.parametrize("method", ["sweeps", "anderson"])
def test_pools_at_the_fixed_point(method):
    circuit = pooled_circuit("100*ms")
    weights, images = circuit.initial_weights(0), images_for(4, 4)
    I = images @ weights["W"]
    u = np.zeros_like(I)
    for _ in range(400):
        _, power, mean, _, late, _ = pools_of(u, I)
        u = 0.5 * u + 0.5 * (I / (1 + power) + 0.1 * mean + 0.05 * late)
    uq = pooled_rules(images, u, I, 0.0 * I[:, :3])[2] @ weights["V"]
    W, V, _ = pooled_rules(images, u, I, uq)
    result = play(circuit, STEADY, images, method=method)
    assert not result.unsettled
    near(result.ends["on"]["p.u"], u, 1e-8, "u")
    near(result.collected["W"], 0.1 * W, 1e-8, "W")
    near(result.collected["V"], 0.1 * V, 1e-8, "V")


@pytest.mark.parametrize("level", [TRAJECTORY, DENSE, STEADY, EQUATIONS])
def test_a_pool_over_the_batch_without_maps_is_a_mean_per_cell(level):
    cell = Cell("centred", "du/dt = (-u + I)/tau : 1\nr = u - mean : 1\nI : 1 (port)\nmean = pool(u, batch) : 1", parameters={"tau": f"{TAU}*second"})  # fmt: skip
    rule = PlasticityRule("hebb", "dw/dt = eta*(r_post + mean_post)*r_pre*mean_post", {"eta": "1*Hz"}, apply="trial")
    circuit = Circuit(
        "mean", [Population("x", 4, SOURCE), Population("p", 3, cell), Population("q", 2, LEAKY),
         Projection("W", "x", "p.I", Uniform(-1, 1), rule), Projection("V", "p", "q.I", Uniform(-1, 1))],
        Protocol((Phase("on", "600*ms", plastic=("hebb",)),), clamps={"x.r": "image"}),
    )  # fmt: skip
    images = images_for(4, 1 if level == EQUATIONS else 3)
    result = play(circuit, level, images)
    w = circuit.initial_weights(0)
    u = images @ w["W"]
    near(result.ends["on"]["q.u"], (u - u.mean(axis=0)) @ w["V"], 1e-9, "q")
    if level == STEADY:
        near(result.collected["W"], 0.6 * images.T @ (u * u.mean(axis=0)) / 3, 1e-12, "W")


def overlap_circuit(of="r") -> Circuit:
    cell = assemble(
        "apart", "du/dt = (-u + I)/tau : 1\nr = tanh(u) : 1\nn = r/(1 + power) : 1\nI : 1", ports=("I",),
        parameters={"tau": f"{TAU}*second"}, pools=(pool("power", "r**2"),), overlaps=(overlap("crowd", of),),
    )  # fmt: skip
    rule = PlasticityRule("apart", "dw/dt = -eta*crowd_post*r_pre", {"eta": "1*Hz"}, apply="trial")
    return Circuit(
        "overlap", [Population("x", 4, SOURCE), Population("p", (3, 1, 2), cell),
         Projection("W", "x", "p.I", Uniform(-1, 1), rule)],
        Protocol((Phase("on", "100*ms", plastic=("apart",)),), clamps={"x.r": "image"}),
    )  # fmt: skip


@pytest.mark.parametrize("of", ["r", "n"])
@pytest.mark.parametrize("samples", [1, 5])
def test_overlap_at_the_fixed_point(of, samples):
    circuit, images = overlap_circuit(of), images_for(4, samples)
    r = np.tanh(images @ circuit.initial_weights(0)["W"])
    rows = r if of == "r" else r / (1 + (r**2).sum(axis=1, keepdims=True))
    X = np.zeros_like(rows)
    for i in range(samples):
        for k in range(samples):
            X[i] += (rows[i] @ rows[k]) * rows[k]
        X[i] = (X[i] - rows[i]) / samples
    result = play(circuit, STEADY, images)
    near(result.collected["W"], -0.1 * images.T @ X / samples)


@pytest.mark.parametrize("level", EULER)
def test_overlap_is_refused_in_time(level):
    with pytest.raises(NeurosimError, match=r"cannot run population 'p': its overlap 'crowd' .* Use torch:steady"):
        play(overlap_circuit(), level, images_for(4, 1))


# ------------------------------------------------------------------ initial weights, errors


def test_orthogonal_weights():
    rng = np.random.default_rng(0)
    tall, wide = Orthogonal(2.0).draw(rng, 5, 3), Orthogonal().draw(rng, 3, 5)
    near(tall.T @ tall, 4 * np.eye(3))
    near(wide @ wide.T, np.eye(3))


def test_uniform_orthogonal_weights_have_no_preferred_sign():
    rng = np.random.default_rng(0)
    mean = np.mean([Orthogonal().draw(rng, 3, 3) for _ in range(2000)], axis=0)
    assert np.abs(mean).max() < 5 * (1 / 3 / 2000) ** 0.5


def test_shapes_of_initial_weights():
    circuit = Net(True, "trial").circuit()
    got = {n: w.shape for n, w in circuit.initial_weights(0).items()}
    assert got == {"C1": (18, 3), "C2": (27, 2), "C3": (8, 3), "D": (18, 12), "b": (1, 2)}


UNIFORM = Uniform(-1, 1)


def build(kind, source=(2, 4, 4), target=(3, 4, 4), rule=None, weights=UNIFORM, **more):
    return Circuit(
        "c", [Population("x", source, SOURCE), Population("p", target, LEAKY),
         Projection("W", "x", "p.I", weights, rule, connectivity=kind, **more)],
        Protocol((Phase("on", "5*ms", plastic=(rule.name,) if rule else ()),), clamps={"x.r": "image"}),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: build(Conv2d(3)), r"'W', from 'x' to 'p': it drives maps of 2 x 2 cells, but those of the target have 4 x 4; change"),
        (lambda: build(Conv2d(5, pool=2)), r"'W', from 'x' .* got 0 positions in a row; wanted at least one"),
        (lambda: build(Conv2d(2, pool=2)), r"got 3 positions in a row; .* multiple of pool = 2"),
        (lambda: build(Conv2d(0)), r"Conv2d: size = 0; wanted a whole number of at least 1"),
        (lambda: build(Conv2d(3, padding=-1)), r"Conv2d: padding = -1; wanted"),
        (lambda: build(Conv2d(3, padding=1), source=32), r"from 'x' to 'p': the source has 32 cells and no maps; give it n = "),
        (lambda: build(Conv2d(3, padding=1), target=48), r"from 'x' to 'p': the target has 48 cells and no maps; give it n = "),
        (lambda: build(PerMap()), r"from 'x' to 'p': the source has 32 cells; expected one cell, such as that of 'one'"),
        (lambda: build(Conv2d(3, padding=1), weights=None), r"'W': no weights; give"),
        (
            lambda: build(Conv2d(3, padding=1), rule=PlasticityRule("oja", "dw/dt = eta*(r_pre - w*r_post)*r_post", {"eta": "1*Hz"})),
            r"the weight meets factors of cells; .* it may decay \(-k\*w\) and no more",
        ),
        (lambda: build(Conv2d(3, padding=1), target=(3, 4)), r"Population 'p': n = \(3, 4\); wanted a whole number of at least 1 or 3 whole numbers of at least 1"),
    ],
)  # fmt: skip
def test_errors_name_the_cure(make, message):
    with pytest.raises(CircuitError, match=message):
        make()


def test_ties_of_convolutions_are_refused():
    with pytest.raises(
        CircuitError,
        match=r"'V': only dense and one-to-one projections can be tied; give the Conv2d weights of its own",
    ):
        Circuit(
            "c", [Population("x", (1, 2, 2), SOURCE), Population("p", (1, 2, 2), LEAKY),
             Projection("W", "x", "p.I", Constant(1), connectivity=Conv2d(1)), Projection("V", "x", "p.I", Tied("W"), connectivity=Conv2d(1))],
            Protocol((Phase("on", "5*ms"),), clamps={"x.r": "image"}),
        )  # fmt: skip


def test_dense_weights_of_maps_may_start_like_others():
    circuit = Circuit(
        "c", [Population("x", (1, 2, 2), SOURCE), Population("p", (3, 1, 2), LEAKY),
         Projection("W", "x", "p.I", Uniform(-1, 1)), Projection("V", "p", "p.I", Constant(0)),
         Projection("L", "x", "p.I", Like("W", factor=0.5))],
        Protocol((Phase("on", "5*ms"),), clamps={"x.r": "image"}),
    )  # fmt: skip
    weights = circuit.initial_weights(0)
    near(weights["L"], 0.5 * weights["W"])


def test_pooling_and_apply_now_are_refused_on_equations():
    with pytest.raises(
        NeurosimError, match=r"brian2:equations cannot run projection 'W': it takes the maximum over 2 x 2"
    ):
        play(build(Conv2d(3, padding=1, pool=2), target=(3, 2, 2)), EQUATIONS, images_for(32, 1))
    rule = PlasticityRule("hebb", "dw/dt = eta*r_pre*r_post", {"eta": "1*Hz"})
    with pytest.raises(
        NeurosimError, match=r"'hebb' of projection 'W' cannot run on brian2:equations: with apply='now'"
    ):
        play(build(Conv2d(3, padding=1), rule=rule), EQUATIONS, images_for(32, 1), learn="on")


def test_one_to_one_between_maps_and_vectors():
    """A vector and a map of as many cells are the same numbers."""
    circuit = Circuit(
        "c", [Population("x", (2, 1, 2), SOURCE), Population("p", 4, LEAKY),
         Projection("W", "x", "p.I", connectivity=OneToOne())], Protocol((Phase("on", "300*ms"),), clamps={"x.r": "image"}),
    )  # fmt: skip
    images = images_for(4, 2)
    near(play(circuit, STEADY, images).ends["on"]["p.u"], images)


def test_drives_equal_torch():
    """The loops themselves against torch's convolution and autograd."""
    c, shape, target = Conv2d(3, 1, 1, 2, 2), (2, 3, 2), (3, 3, 2)
    rng = np.random.default_rng(0)
    r, w, post = rng.standard_normal(12), rng.standard_normal((18, 3)), rng.standard_normal(18)
    value, won = drive(r, w, shape, target, c)
    kernel = torch.tensor(w.T.reshape(3, 2, 3, 3), requires_grad=True)
    maps = torch.nn.functional.interpolate(torch.tensor(r.reshape(1, *shape)), scale_factor=2, mode="nearest")
    a = torch.nn.functional.max_pool2d(torch.nn.functional.conv2d(maps, kernel, padding=1), 2)
    near(value, a.detach().numpy().ravel())
    (a.reshape(-1) * torch.tensor(post)).sum().backward()
    near(product(r, post, won, shape, target, c), kernel.grad.numpy().reshape(3, 18).T)


@pytest.mark.parametrize("level", [STEADY, *EULER])
@pytest.mark.parametrize("learn", ["off", "on"])
def test_weights_that_reach_no_cell_are_kept(level, learn):
    """Of a 3 x 3 kernel over maps of one cell the middle alone meets a cell; the others still decay."""
    rule = PlasticityRule("hebb", "dw/dt = eta*r_post*r_pre - k*w", {"eta": "1*Hz", "k": "2*Hz"}, apply="trial")
    circuit = build(Conv2d(3, padding=1), (1, 1, 1), (2, 1, 1), rule)
    start = circuit.initial_weights(0)["W"]
    if level == EQUATIONS:
        with pytest.raises(NeurosimError, match=r"16 of the kernel's meet no cell of these maps"):
            play(circuit, level, images_for(1, 1), learn=learn)
        return
    result = play(circuit, level, images_for(1, 1), learn=learn)
    outer = np.arange(9) != 4
    near(result.weights["W"][outer], start[outer] * (1 if learn == "off" else 1 - 2 * 5 * DT))
