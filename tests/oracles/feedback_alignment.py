"""Independent oracle for backprop, feedback alignment and direct feedback alignment with SGD and Adam, in plain NumPy.

Layers 0..L, r_0 = the image; rates are rows. Weights by name: W_l (n_{l-1}, n_l) and b_l (1, n_l), l = 1..L.

    a_l = r_{l-1} W_l + b_l,   r_l = rho_l(a_l),   C = < 1/2 |y - r_L|^2 >

    delta_L = (r_L - y) rho_L'(a_L)
    delta_l = (delta_{l+1} W_{l+1}^T) rho_l'(a_l)      backprop
    delta_l = (delta_{l+1} M_{l+1}^T) rho_l'(a_l)      feedback alignment (Lillicrap et al. 2016), M_{l+1} as W_{l+1}
    delta_l = (delta_L D_l) rho_l'(a_l)                direct feedback alignment (Nøkland 2016), D_l (n_L, n_l)
"""

import numpy as np

from .equilibrium_propagation import depth
from .ghost_units import TRANSFER as SIGMOIDS
from .predictive_coding import TRANSFER as UNBOUNDED

TRANSFER = {**SIGMOIDS, **UNBOUNDED}


def gradient(weights, image, target, *, transfers, method, feedback) -> dict:
    """The gradient of C by name, or what the method puts in its place.

    `transfers` names rho_1..rho_L. `feedback` holds M_l as W_l for `feedback_alignment`, D_l as W_l for
    `direct_feedback_alignment`; `backprop` reads none.
    """
    top = depth(weights)
    r, slope = [image], [None]
    for l in range(1, top + 1):
        a = r[-1] @ weights[f"W{l}"] + weights[f"b{l}"]
        rho, derivative = TRANSFER[transfers[l - 1]]
        r.append(rho(a))
        slope.append(derivative(a))
    delta = {top: (r[top] - target) * slope[top]}
    for l in range(top - 1, 0, -1):
        if method == "backprop":
            delta[l] = delta[l + 1] @ weights[f"W{l + 1}"].T * slope[l]
        elif method == "feedback_alignment":
            delta[l] = delta[l + 1] @ feedback[f"W{l + 1}"].T * slope[l]
        else:
            delta[l] = delta[top] @ feedback[f"W{l}"] * slope[l]
    found = {f"W{l}": r[l - 1].T @ d / len(image) for l, d in delta.items()}
    return found | {f"b{l}": d.mean(axis=0, keepdims=True) for l, d in delta.items()}


def sgd(weights, batches, *, rate, **options) -> dict:
    """Weights after one step of gradient descent on each (image, target) of `batches`."""
    for image, target in batches:
        slopes = gradient(weights, image, target, **options)
        weights = {name: value - rate * slopes[name] for name, value in weights.items()}
    return weights


def adam(weights, batches, *, rate, **options) -> dict:
    """Weights after one step of Adam (Kingma & Ba 2015, algorithm 1, its default numbers) on each of `batches`."""
    first = {name: np.zeros_like(value) for name, value in weights.items()}
    second = {name: np.zeros_like(value) for name, value in weights.items()}
    for t, (image, target) in enumerate(batches, 1):
        slopes = gradient(weights, image, target, **options)
        first = {name: 0.9 * first[name] + 0.1 * g for name, g in slopes.items()}
        second = {name: 0.999 * second[name] + 0.001 * g**2 for name, g in slopes.items()}
        step = {n: first[n] / (1 - 0.9**t) / (np.sqrt(second[n] / (1 - 0.999**t)) + 1e-8) for n in weights}
        weights = {name: value - rate * step[name] for name, value in weights.items()}
    return weights
