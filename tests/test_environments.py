"""Landscapes and control tasks.

Oracles: the formulas of the note and of textbooks in NumPy, finite differences, and gymnasium's environments, which keep
their states in float64 between steps (only what they return as observations, and Acrobot's start, is float32).
"""

from __future__ import annotations

import itertools
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from neurosim.environments import LANDSCAPES, Acrobot, CartPole, Environment, landscape
from neurosim.errors import NeurosimError

NAMES = tuple(LANDSCAPES)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---------------------------------------------------------------- landscapes


def formula(name: str, x: Any, y: Any) -> Any:
    """As published, and the egg-box as in the note."""
    cos, pi, exp = np.cos, np.pi, np.exp
    if name == "egg_box":
        return 0.1 * (x**2 + y**2) + 1 - 0.5 * (cos(2 * pi * x / 1.5) + cos(2 * pi * y / 1.5))
    if name == "ackley":
        pit = exp(0.5 * (cos(2 * pi * x) + cos(2 * pi * y)))
        return -20 * exp(-0.2 * np.sqrt(0.5 * (x**2 + y**2))) - pit + np.e + 20
    if name == "rastrigin":
        return 20 + x**2 - 10 * cos(2 * pi * x) + y**2 - 10 * cos(2 * pi * y)
    if name == "himmelblau":
        return (x**2 + y - 11) ** 2 + (x + y**2 - 7) ** 2
    return (1 - x) ** 2 + 100 * (y - x * x) ** 2


@pytest.mark.parametrize("name", NAMES)
def test_values_and_slopes_are_those_of_the_formula(name):
    f = landscape(name)
    h = f.starts((20, 30), generator(), torch.float64).requires_grad_()
    shift = f.shifts((30,), generator(1), torch.float64)
    value = f.value(h, shift)
    (slope,) = torch.autograd.grad(value.sum(), h)
    x, y = (h - shift).detach().numpy().transpose(2, 0, 1)
    np.testing.assert_allclose(value.detach(), formula(name, x, y), rtol=1e-12, atol=1e-12)
    e = 1e-6
    dx = (formula(name, x + e, y) - formula(name, x - e, y)) / (2 * e)
    dy = (formula(name, x, y + e) - formula(name, x, y - e)) / (2 * e)
    np.testing.assert_allclose(slope, np.stack([dx, dy], -1), rtol=1e-6, atol=1e-5)
    assert torch.equal(f.value(h), f.value(h, torch.zeros(2)))


@pytest.mark.parametrize(("name", "dtype"), [*itertools.product(NAMES, (torch.float64, torch.float32))])
def test_minima(name, dtype):
    """Value and slope vanish there, moved by a shift that binary fractions hold exactly; nothing in the box is lower."""
    f = landscape(name)
    places = torch.tensor(f.minima, dtype=dtype)
    shift = torch.tensor([[0.0, 0.0], [0.5, -0.75]], dtype=dtype)[:, None]
    h = (places + shift).requires_grad_()
    value = f.value(h, shift)
    (slope,) = torch.autograd.grad(value.sum(), h)
    assert value.shape == (2, len(places)) and value.dtype == slope.dtype == dtype
    tolerance = 1e-12 if dtype == torch.float64 else 1e-9  # the squared rounding of Himmelblau's irrational minima
    assert (value - f.minimum).abs().max() < tolerance
    assert slope.abs().max() < (1e-12 if dtype == torch.float64 else 1e-4)
    axis = torch.linspace(-f.box, f.box, 401, dtype=torch.float64)
    inside = f.value(torch.cartesian_prod(axis, axis))
    assert inside.min() >= f.minimum and places.abs().max() < f.box


@pytest.mark.parametrize("name", NAMES)
def test_the_threshold_shuts_out_other_valleys(name):
    """Every local minimum of a fine grid that lies below the threshold is next to a global one."""
    f = landscape(name)
    axis = np.linspace(-f.box, f.box, 801)
    x, y = np.meshgrid(axis, axis, indexing="ij")
    z = formula(name, x, y)
    inner, steps = z[1:-1, 1:-1], list(itertools.product((-1, 0, 1), repeat=2))
    lowest = np.all([inner <= z[1 + i : 800 + i, 1 + j : 800 + j] for i, j in steps], axis=0)
    found = np.stack([x[1:-1, 1:-1][lowest], y[1:-1, 1:-1][lowest]], -1)[inner[lowest] < f.minimum + f.threshold]
    distance = np.linalg.norm(found[:, None] - np.array(f.minima), axis=-1)
    # Rosenbrock's valley is so narrow that a grid has many lowest points in it; up to 1 - x = sqrt(0.1) they count.
    assert len(found) and distance.min(1).max() < (0.8 if name == "rosenbrock" else 0.05)
    assert (distance.min(0) < (0.8 if name == "rosenbrock" else 0.05)).all()


def test_starts_and_shifts():
    f = landscape("egg_box")
    starts, shifts = f.starts((5000,), generator()), f.shifts((40, 50), generator(), torch.float64)
    assert starts.shape == (5000, 2) and starts.dtype == torch.float32
    assert shifts.shape == (40, 50, 2) and shifts.dtype == torch.float64
    for drawn, width in ((starts, 4.0), (shifts, 1.0)):
        assert 0.99 * width < drawn.max() <= width and -width <= drawn.min() < -0.99 * width
        assert abs(float(drawn.mean())) < 0.05 * width
    assert torch.equal(starts, f.starts((5000,), generator()))


def test_what_landscapes_refuse():
    with pytest.raises(
        NeurosimError, match=r"There is no landscape 'himmelbau'\. Did you mean 'himmelblau'\? Known: egg"
    ):
        landscape("himmelbau")
    f = landscape("ackley")
    with pytest.raises(NeurosimError, match=r"'ackley': the places h have shape \(4, 3\)\. Wanted \(\.\.\., 2\)"):
        f.value(torch.zeros(4, 3))
    with pytest.raises(NeurosimError, match=r"the places h have shape \(\)\."):
        f.value(torch.tensor(0.0))
    with pytest.raises(NeurosimError, match=r"the places h are torch\.int64\. Wanted floats: use h\.float\(\)"):
        f.value(torch.zeros(4, 2, dtype=torch.int64))
    for shape in ((3, 2), (4,), (4, 1)):
        with pytest.raises(NeurosimError, match=r"the shift has shape \(.*\) and the places h have \(4, 2\)"):
            f.value(torch.zeros(4, 2), torch.zeros(shape))


# ---------------------------------------------------------------- control tasks


def cart_pole(length: float = 0.5) -> Any:
    task: Any = gymnasium.make("CartPole-v1").unwrapped
    task.length, task.polemass_length = length, task.masspole * length  # the product is made in the constructor only
    return task


def acrobot(length: float = 1.0, mass: float = 1.0) -> Any:
    task: Any = gymnasium.make("Acrobot-v1").unwrapped
    task.LINK_LENGTH_1 = task.LINK_LENGTH_2 = length
    task.LINK_COM_POS_1 = task.LINK_COM_POS_2 = length / 2
    task.LINK_MASS_1 = task.LINK_MASS_2 = mass
    return task


def walk(task: Any, steps: int, pick: Any) -> dict[str, np.ndarray]:
    """What gymnasium does in this many steps, with a reset after each end. `pick(state)` is the action."""
    rows: dict[str, list[Any]] = {k: [] for k in ("state", "action", "after", "seen", "reward", "terminated")}
    task.reset(seed=0)
    for _ in range(steps):
        state = np.array(task.state, dtype=np.float64)
        task.state, action = state.copy(), pick(state)
        seen, reward, terminated, _, _ = task.step(action)
        for key, value in zip(rows, (state, action, np.array(task.state), seen, reward, terminated), strict=True):
            rows[key].append(value)
        if terminated:
            task.reset()
    return {key: np.array(values) for key, values in rows.items()}


def assert_same_steps(task: Environment, rows: dict[str, np.ndarray], shape: tuple[int, ...]) -> None:
    state = torch.tensor(rows["state"]).reshape(*shape, 4)
    after, reward, terminated = task.step(state, torch.tensor(rows["action"]).reshape(shape))
    assert after.shape == (*shape, 4) and reward.shape == terminated.shape == shape
    assert after.dtype == reward.dtype == torch.float64 and terminated.dtype == torch.bool
    np.testing.assert_allclose(after.reshape(-1, 4), rows["after"], rtol=1e-13, atol=1e-13)
    np.testing.assert_array_equal(reward.flatten(), rows["reward"])
    np.testing.assert_array_equal(terminated.flatten(), rows["terminated"])
    seen = task.observe(after).reshape(len(rows["seen"]), -1)
    assert seen.shape[1] == task.n_observations == len(task.scales)
    np.testing.assert_allclose(seen, rows["seen"], rtol=1.2e-7, atol=1e-7)  # gymnasium rounds these to float32


@pytest.mark.parametrize("length", [0.5, 0.25, 1.0])
def test_cart_pole_steps_as_gymnasiums(length):
    """Random pushes, which let the pole fall; and pushes that keep it leaning, until the cart runs off on either side."""
    rng = np.random.default_rng(1)
    rows = walk(cart_pole(length), 3000, lambda s: int(rng.integers(2)))
    assert rows["terminated"].sum() > 50
    assert_same_steps(CartPole(length), rows, (60, 50))
    rows = walk(cart_pole(length), 2000, lambda s: int(s[2] + 0.3 * s[3] > 0.05 * np.sign(s[0])))
    ends = rows["after"][rows["terminated"]][:, 0]
    assert ends.min() < -2.4 and ends.max() > 2.4
    assert_same_steps(CartPole(torch.tensor(length)), rows, (2000,))


@pytest.mark.parametrize(("length", "mass"), [(1.0, 1.0), (0.7, 1.0), (1.3, 0.6)])
def test_acrobot_steps_as_gymnasiums(length, mass):
    """A torque along the joint's own speed swings it up; random ones about wild states reach the wrap and the bounds."""
    rng = np.random.default_rng(2)
    rows = walk(acrobot(length, mass), 1500, lambda s: 1 + int(np.sign(s[3])))
    assert rows["terminated"].sum() >= 3
    assert_same_steps(Acrobot(length, mass), rows, (30, 50))
    task = acrobot(length, mass)
    wild = []
    for _ in range(20):
        task.state = rng.uniform(-1, 1, 4) * [np.pi, np.pi, 4 * np.pi, 9 * np.pi]
        start = task.state
        task.reset = lambda start=start, **_: setattr(task, "state", start)
        wild.append(walk(task, 50, lambda s: int(rng.integers(3))))
    rows = {key: np.concatenate([w[key] for w in wild]) for key in wild[0]}
    moved = np.abs(rows["after"] - rows["state"])[:, :2]
    assert (moved.max(1) > np.pi).sum() > 20  # wrapped
    assert (np.abs(rows["after"][:, 2:]) >= [4 * np.pi, 9 * np.pi]).any(0).all()
    assert_same_steps(Acrobot(torch.tensor(length, dtype=torch.float64), mass), rows, (1000,))


@pytest.mark.parametrize(
    ("task", "single"),
    [
        (
            CartPole(torch.tensor([0.25, 0.5, 1.0], dtype=torch.float64)[:, None]),
            lambda i: CartPole((0.25, 0.5, 1.0)[i]),
        ),
        (
            Acrobot(torch.tensor([[0.8], [1.0], [1.2]], dtype=torch.float64), torch.tensor(1.5, dtype=torch.float64)),
            lambda i: Acrobot((0.8, 1.0, 1.2)[i], 1.5),
        ),
    ],
    ids=["cart-pole", "acrobot"],
)
def test_a_batch_is_a_loop(task, single):
    """Thirty steps of 3x4 environments, with a parameter for each row, one by one; and mapped by vmap."""
    state, g = task.reset((3, 4), generator(), torch.float64), generator(1)
    alone = {(i, j): state[i, j] for i in range(3) for j in range(4)}
    mapped = state
    for _ in range(30):
        action = torch.randint(0, task.n_actions, (3, 4), generator=g)
        state, reward, terminated = task.step(state, action)
        mapped = torch.func.vmap(lambda s, a: task.step(s, a)[0], in_dims=1, out_dims=1)(
            mapped[:, :, None], action[:, :, None]
        )[:, :, 0]
        for (i, j), before in alone.items():
            alone[i, j], r, t = single(i).step(before, action[i, j])
            assert torch.equal(r, reward[i, j]) and torch.equal(t, terminated[i, j])
            torch.testing.assert_close(alone[i, j], state[i, j], rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(single(i).observe(alone[i, j]), task.observe(state)[i, j])
    torch.testing.assert_close(mapped, state, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("task", "name", "width"), [(CartPole(), "CartPole-v1", 0.05), (Acrobot(), "Acrobot-v1", 0.1)])
def test_what_gymnasium_says_of_a_task(task, name, width):
    said: Any = gymnasium.make(name)
    assert (task.n_actions, task.n_observations) == (said.action_space.n, said.observation_space.shape[0])
    assert task.limit == said.spec.max_episode_steps == 500
    start = task.reset((100, 200), generator())
    assert start.shape == (100, 200, 4) and start.dtype == torch.float32
    assert 0.999 * width < start.max() <= width and -width <= start.min() < -0.999 * width
    assert torch.equal(start, task.reset((100, 200), generator())) and task.reset((), generator()).shape == (4,)


@pytest.mark.parametrize("task", [CartPole(torch.tensor(0.4, dtype=torch.float64)), Acrobot(mass=torch.tensor(2.0))])
def test_types_and_scales(task):
    """Single precision stays it whatever the parameter is; scaled observations of random play are of the order of 1."""
    state, g = task.reset((200,), generator(), torch.float32), generator(1)
    largest = torch.zeros(task.n_observations)
    for _ in range(100):
        after, reward, terminated = task.step(state, torch.randint(0, task.n_actions, (200,), generator=g))
        assert after.dtype == reward.dtype == task.observe(after).dtype == torch.float32
        largest = torch.maximum(largest, (task.observe(after) / torch.tensor(task.scales)).abs().amax(0))
        state = torch.where(terminated[:, None], task.reset((200,), g), after)
    assert largest.min() > 0.1 and largest.max() < 3


@pytest.mark.parametrize("task", [CartPole(), Acrobot()])
def test_what_tasks_refuse(task):
    name, state = type(task).__name__, torch.zeros(5, 4)
    for action in (torch.zeros(5), torch.zeros(5, 2, dtype=torch.int64), torch.zeros((), dtype=torch.int64)):
        with pytest.raises(
            NeurosimError,
            match=rf"{name}: the actions have shape .* Wanted whole numbers 0\.\.{task.n_actions - 1} of shape \(5,\)",
        ):
            task.step(state, action)
    for wrong in (torch.zeros(5, 6), torch.zeros(5, 4, dtype=torch.int64), torch.tensor(1.0)):
        with pytest.raises(
            NeurosimError, match=rf"{name}: the states have shape .* Wanted floats of shape \(\.\.\., 4\)"
        ):
            task.step(wrong, torch.zeros(5, dtype=torch.int64))
        with pytest.raises(NeurosimError, match="Wanted floats of shape"):
            task.observe(wrong)
    for length in (torch.ones(3), torch.ones(2, 5), torch.ones(1, 1)):
        with pytest.raises(NeurosimError, match=rf"{name}: length has shape .*, and there are states of shape \(5,\)"):
            type(task)(length=length).step(state, torch.zeros(5, dtype=torch.int64))
    for value in (0.0, -1, float("nan"), float("inf"), torch.tensor([0.5, 0.0])):
        with pytest.raises(NeurosimError, match=rf"{name}: length = .*; wanted numbers above 0"):
            type(task)(length=value)
    if isinstance(task, Acrobot):
        with pytest.raises(NeurosimError, match=r"Acrobot: mass = -1"):
            Acrobot(mass=-1)
