"""Independent oracle for equilibrium propagation (Scellier & Bengio 2017), written from the equations, in plain NumPy.

Layers 0..L, layer 0 = the image; rates are rows. Weights by name: W_l (n_{l-1}, n_l) and b_l (1, n_l), l = 1..L.

    tau du_l/dt = -u_l + r_{l-1} W_l + b_l + r_{l+1} W_{l+1}^T        r_l = rho(u_l); no top-down term at L
                  + B (y - r_L)                                       at L; B = 0 (free), beta (nudged), -beta (negative)

    one_sided    dW_l = eta/beta     < r_{l-1} r_l (nudged)  -  r_{l-1} r_l (free) >
    symmetric    dW_l = eta/(2 beta) < r_{l-1} r_l (nudged)  -  r_{l-1} r_l (negative) >          b_l: pre = 1
"""

from collections.abc import Callable

import numpy as np

from .ghost_units import TRANSFER

#: phases of a trial: name, sign of the nudging, what the rule is multiplied by
PHASES = {
    "one_sided": (("free", 0, 0), ("free_end", 0, -1), ("nudged", 1, 0), ("nudged_end", 1, 1)),
    "symmetric": (
        ("free", 0, 0), ("nudged", 1, 0), ("nudged_end", 1, 0.5), ("negative", -1, 0), ("negative_end", -1, -0.5)
    ),
}  # fmt: skip


def settle(velocity: Callable, state: np.ndarray, flow: int = 2000, step: float = 0.1) -> np.ndarray:
    """The zero of `velocity` (both (samples, n)) that the flow runs into: `flow` damped steps, then Newton to 1e-13.

    Newton's matrix is by central differences, so `velocity` is all that this knows of a model.
    """
    for _ in range(flow):
        state = state + step * velocity(state)
    for _ in range(20):
        speed = velocity(state)
        if np.abs(speed).max() < 1e-13:
            return state
        shifts = 1e-6 * np.eye(state.shape[1])
        columns = [(velocity(state + shift) - velocity(state - shift)) / 2e-6 for shift in shifts]
        state = state - np.linalg.solve(np.stack(columns, axis=-1), speed[..., None])[..., 0]
    raise RuntimeError(f"no fixed point: the largest speed is {np.abs(velocity(state)).max():.1e}")


def depth(weights: dict) -> int:
    """L, the number of layers above the image."""
    return sum(name.startswith("W") for name in weights)


def sizes(weights: dict) -> list[int]:
    """n_1 .. n_L."""
    return [weights[f"W{l}"].shape[1] for l in range(1, depth(weights) + 1)]


def fixed_point(weights, image, target, *, transfer, nudge, start=None, flow=2000) -> list[np.ndarray]:
    """Potentials u_1..u_L at rest under the nudging `nudge`, from `start` (else 0). All layers stacked in one matrix."""
    rho, _ = TRANSFER[transfer]
    layers = sizes(weights)
    edges = np.cumsum([0, *layers])
    mutual = np.zeros((edges[-1], edges[-1]))
    for l in range(2, len(layers) + 1):
        below, here = slice(edges[l - 2], edges[l - 1]), slice(edges[l - 1], edges[l])
        mutual[below, here] = weights[f"W{l}"]
        mutual[here, below] = weights[f"W{l}"].T
    constant = np.concatenate([weights[f"b{l}"] for l in range(1, len(layers) + 1)], axis=1).repeat(len(image), 0)
    constant[:, : layers[0]] += image @ weights["W1"]
    output = slice(edges[-2], None)

    def velocity(u):
        r = rho(u)
        total = constant + r @ mutual - u
        total[:, output] += nudge * (target - r[:, output])
        return total

    start = np.zeros_like(constant) if start is None else np.concatenate(start, axis=1)
    return np.split(settle(velocity, start, flow), edges[1:-1], axis=1)


def products(u, image, *, transfer) -> dict:
    """< r_{l-1} r_l > and < r_l > by the names of the weights."""
    r = [image, *(TRANSFER[transfer][0](v) for v in u)]
    found = {f"W{l}": np.einsum("si,sj->ij", r[l - 1], r[l]) / len(image) for l in range(1, len(r))}
    return found | {f"b{l}": r[l].mean(axis=0, keepdims=True) for l in range(1, len(r))}


def steady(weights, image, target, *, transfer, beta, nudging, eta) -> tuple[dict, dict]:
    """``{phase: u_1..u_L}`` at rest, and the weight changes by name."""
    options = {"transfer": transfer}
    u = {"free": fixed_point(weights, image, target, nudge=0, **options)}
    signs = {"nudged": 1} if nudging == "one_sided" else {"nudged": 1, "negative": -1}
    for phase, sign in signs.items():
        u[phase] = fixed_point(weights, image, target, nudge=sign * beta, start=u["free"], **options)
    high = products(u["nudged"], image, **options)
    low = products(u["free" if nudging == "one_sided" else "negative"], image, **options)
    span = beta if nudging == "one_sided" else 2 * beta
    return u, {name: eta / span * (high[name] - low[name]) for name in weights}


def descent(weights, image, target, *, transfer, step=1e-5) -> dict:
    """Minus the gradient of C = < 1/2 |y - r_L|^2 > at the free fixed point, solved anew for each central difference."""
    rest = fixed_point(weights, image, target, transfer=transfer, nudge=0)

    def cost(changed):
        u = fixed_point(changed, image, target, transfer=transfer, nudge=0, start=rest, flow=0)
        return 0.5 * ((target - TRANSFER[transfer][0](u[-1])) ** 2).sum(axis=1).mean()

    return {name: -slope for name, slope in differences(cost, weights, step).items()}


def differences(cost: Callable, weights: dict, step: float) -> dict:
    """The gradient of `cost(weights)` by central differences."""
    slopes = {name: np.zeros_like(value) for name, value in weights.items()}
    for name, value in weights.items():
        for index in np.ndindex(value.shape):
            values = []
            for sign in (1, -1):
                moved = value.copy()
                moved[index] += sign * step
                values.append(cost(weights | {name: moved}))
            slopes[name][index] = (values[0] - values[1]) / (2 * step)
    return slopes


def euler(weights, image, target, *, transfer, beta, nudging, eta, tau, dt, t_learn, steps) -> tuple[dict, dict]:
    """One trial from u = 0: ``{phase: {"pyr1.u": ...}}`` as read in the last step of each phase, and weights after it.

    `steps` are the Euler steps of each phase. Each step reads rates and drives at t, collects the rule's change from
    them, and moves the potentials to t+dt; what was collected is added at the trial's end.
    """
    rho, _ = TRANSFER[transfer]
    top = depth(weights)
    u = {l: np.zeros((len(image), n)) for l, n in enumerate(sizes(weights), 1)}
    collected = {name: np.zeros_like(value) for name, value in weights.items()}
    ends = {}
    for phase, nudge, sign in PHASES[nudging]:
        for _ in range(steps[phase]):
            r = {0: image} | {l: rho(v) for l, v in u.items()}
            speed = {}
            for l in u:
                current = r[l - 1] @ weights[f"W{l}"] + weights[f"b{l}"]
                current += r[l + 1] @ weights[f"W{l + 1}"].T if l < top else nudge * beta * (target - r[l])
                speed[l] = (current - u[l]) / tau
            for l in u:
                share = dt / t_learn * eta * sign / beta / len(image)
                collected[f"W{l}"] += share * r[l - 1].T @ r[l]
                collected[f"b{l}"] += share * r[l].sum(axis=0, keepdims=True)
            ends[phase] = {f"pyr{l}.u": v for l, v in u.items()} | {f"pyr{l}.r": r[l] for l in u}
            u = {l: v + dt * speed[l] for l, v in u.items()}
    return ends, {name: value + collected[name] for name, value in weights.items()}
