"""Independent oracle for predictive coding (Rao & Ballard 1999; Whittington & Bogacz 2017), from the equations, in NumPy.

Layers 0..L, layer 0 = the image; values are rows. Weights by name: W_l (n_{l-1}, n_l) and b_l (1, n_l), l = 1..L.

    mu_l = f(x_{l-1}) W_l + b_l                                    f(x_0) is the image as it is
    tau_error de_l/dt = -e_l + (x_l - mu_l)/v_l                    v_L = variance, else 1
    tau dx_l/dt = -e_l + f'(x_l) (e_{l+1} W_{l+1}^T)               hidden layers
    tau dx_L/dt = -v_L e_L  (free),   y - x_L  (clamped)
    dW_l = eta < f(x_{l-1}) e_l >    at rest under the target      b_l: pre = 1

Under the target the rest state minimises F = 1/2 sum_l |x_l - mu_l|^2 / v_l over the hidden values.
"""

import numpy as np

from .equilibrium_propagation import depth, differences, settle, sizes
from .ghost_units import TRANSFER as SIGMOIDS

#: f and f'
TRANSFER = {
    "tanh": SIGMOIDS["tanh"],
    "logistic": SIGMOIDS["logistic"],
    "identity": (lambda x: x, np.ones_like),
}


def feedforward(weights, image, *, transfer) -> list[np.ndarray]:
    """x_1..x_L where every error is 0: the values of the free phase at rest."""
    x, rates = [], image
    for l in range(1, depth(weights) + 1):
        x.append(rates @ weights[f"W{l}"] + weights[f"b{l}"])
        rates = TRANSFER[transfer][0](x[-1])
    return x


def errors(weights, x, image, *, transfer, variance=1.0) -> list[np.ndarray]:
    """(x_l - mu_l)/v_l for l = 1..L."""
    rates = [image, *(TRANSFER[transfer][0](value) for value in x[:-1])]
    found = [x[l - 1] - rates[l - 1] @ weights[f"W{l}"] - weights[f"b{l}"] for l in range(1, len(x) + 1)]
    return [*found[:-1], found[-1] / variance]


def energy(weights, x, image, *, transfer, variance=1.0) -> float:
    """F, the mean over samples."""
    *hidden, output = errors(weights, x, image, transfer=transfer, variance=variance)
    return 0.5 * (sum((e**2).sum() for e in hidden) + variance * (output**2).sum()) / len(image)


def clamped(weights, image, target, *, transfer, variance=1.0, start=None, flow=2000) -> list[np.ndarray]:
    """x_1..x_L at the minimum of F with x_L = y, downhill from `start` (else the free state)."""
    slope = TRANSFER[transfer][1]
    hidden = sizes(weights)[:-1]
    cuts = np.cumsum(hidden)[:-1]

    def downhill(stacked):
        x = [*np.split(stacked, cuts, axis=1), target]
        e = errors(weights, x, image, transfer=transfer, variance=variance)
        # x_l stands in its own error, and through f(x_l) in the prediction of the layer above
        own = [-e[i] for i in range(len(hidden))]
        above = [slope(x[i]) * np.einsum("sj,ij->si", e[i + 1], weights[f"W{i + 2}"]) for i in range(len(hidden))]
        return np.concatenate(own, axis=1) + np.concatenate(above, axis=1)

    start = feedforward(weights, image, transfer=transfer) if start is None else start
    found = settle(downhill, np.concatenate(start[:-1], axis=1), flow)
    return [*np.split(found, cuts, axis=1), target]


def steady(weights, image, target, *, transfer, eta, variance=1.0) -> tuple[dict, dict]:
    """``{phase: {"pyr1.x": ..., "pyr1.err": ...}}`` at rest, and the weight changes by name."""
    x = {
        "free": feedforward(weights, image, transfer=transfer),
        "clamped": clamped(weights, image, target, transfer=transfer, variance=variance),
    }
    e = {phase: errors(weights, values, image, transfer=transfer, variance=variance) for phase, values in x.items()}
    rates = [image, *(TRANSFER[transfer][0](value) for value in x["clamped"])]
    changes = {}
    for l, error in enumerate(e["clamped"], 1):
        changes[f"W{l}"] = eta * np.einsum("si,sj->ij", rates[l - 1], error) / len(image)
        changes[f"b{l}"] = eta * error.mean(axis=0, keepdims=True)
    states = {}
    for phase in x:
        states[phase] = {f"pyr{l}.x": value for l, value in enumerate(x[phase], 1)}
        states[phase] |= {f"pyr{l}.err": value for l, value in enumerate(e[phase], 1)}
    return states, changes


def descent(weights, image, target, *, transfer, variance=1.0, step=1e-5) -> dict:
    """Minus the gradient of the minimal F by the weights, minimised anew for each central difference."""
    rest = clamped(weights, image, target, transfer=transfer, variance=variance)

    def cost(changed):
        x = clamped(changed, image, target, transfer=transfer, variance=variance, start=rest, flow=0)
        return energy(changed, x, image, transfer=transfer, variance=variance)

    return {name: -slope for name, slope in differences(cost, weights, step).items()}


def euler(weights, image, target, *, transfer, eta, variance, tau, tau_error, dt, t_learn, steps) -> tuple[dict, dict]:
    """One trial from x = e = 0: ``{phase: {"pyr1.x": ...}}`` as read in the last step of each phase, and weights after it.

    `steps` are the Euler steps of the phases free, clamped, clamped_end (plastic). Each step reads everything at t,
    collects the rule's change, and moves values and errors to t+dt; what was collected is added at the trial's end.
    """
    f, slope = TRANSFER[transfer]
    top = depth(weights)
    x = {l: np.zeros((len(image), n)) for l, n in enumerate(sizes(weights), 1)}
    e = {l: np.zeros_like(value) for l, value in x.items()}
    collected = {name: np.zeros_like(value) for name, value in weights.items()}
    ends = {}
    for phase in ("free", "clamped", "clamped_end"):
        for _ in range(steps[phase]):
            r = {0: image} | {l: f(value) for l, value in x.items()}
            x_speed, e_speed = {}, {}
            for l in x:
                mu = r[l - 1] @ weights[f"W{l}"] + weights[f"b{l}"]
                e_speed[l] = ((x[l] - mu) / (variance if l == top else 1.0) - e[l]) / tau_error
                if l < top:
                    x_speed[l] = (slope(x[l]) * (e[l + 1] @ weights[f"W{l + 1}"].T) - e[l]) / tau
                elif phase == "free":
                    x_speed[l] = -variance * e[l] / tau
                else:
                    x_speed[l] = (target - x[l]) / tau
            if phase == "clamped_end":
                for l in x:
                    share = dt / t_learn * eta / len(image)
                    collected[f"W{l}"] += share * r[l - 1].T @ e[l]
                    collected[f"b{l}"] += share * e[l].sum(axis=0, keepdims=True)
            ends[phase] = {f"pyr{l}.x": v for l, v in x.items()} | {f"pyr{l}.err": v for l, v in e.items()}
            x = {l: value + dt * x_speed[l] for l, value in x.items()}
            e = {l: value + dt * e_speed[l] for l, value in e.items()}
    return ends, {name: value + collected[name] for name, value in weights.items()}
