"""Independent oracle for CorInfoMax (Bozkurt, Pehlevan, Erdogan, NeurIPS 2023), from the paper note alone, in plain NumPy.

Layers 0..L, layer 0 = the image; rates are rows, drive = r W. Weights by name: W_l (n_{l-1}, n_l) for l = 1..L,
F_l (n_{l+1}, n_l) for l < L, B_l (n_l, n_l) symmetric for l = 1..L; e = epsilon, g = g_lk, gamma = (1-lam)/lam.

    du_l/ds = -g u_l + (v_B - u_l)/e + (v_A - u_l)/e        v_A = r_{l+1} F_l + e (2 gamma z_l + g r_l) - e q_l    hidden
    du_L/ds = -g u_L + (v_B - u_L)/e + (v_A - u_L)          v_A = gamma z_L + g r_L + beta (y - r_L) - q_L         output
    v_B = r_{l-1} W_l,   z_l = r_l B_l,   r = clip(u, 0, 1) (box) or max(0, u) (sparse)
    qt <- qt + eta_q (-qt + (sum r - 1) + q),   q = max(0, qt)                                    sparse only, else 0

    dW_l = eta/beta < r_{l-1} (r_l - r_{l-1} W_l) (nudged) - the same (free) >
    dF_l = eta/beta < r_{l+1} (r_l - r_{l+1} F_l) (nudged) - the same (free) >
           symmetric: the phase under -beta in place of the free one, and 2 beta in place of beta
    dB_l = 1/lam (B - gamma < z z >) - B                                          published    z, r: nudged
           1/lam (B - gamma < z z / (1 + gamma r.z) >) - B                        rank_one
           1/lam (B - Z^T [b/gamma 1 + R Z^T]^-1 Z) - B                           woodbury     Z = R B, b rows

s is time in units of tau_u. The note gives no rule for which phase B reads in the three-phase scheme: here the +beta one.
"""

from dataclasses import dataclass

import numpy as np

#: step of the s-th sweep of a phase
STEP_RULES = {
    "constant": lambda mu, s: mu,
    "slow": lambda mu, s: max(mu / (1 + 0.01 * s), 0.001),
    "fast": lambda mu, s: max(mu / (1 + s), 0.001),
}
CONSTRAINTS = {"box": lambda u: np.clip(u, 0.0, 1.0), "sparse": lambda u: np.maximum(u, 0.0)}
LATERAL = ("published", "rank_one", "woodbury", "none")


@dataclass(frozen=True)
class Constants:
    """What stands in the equations and in the rules."""

    constraint: str = "box"
    epsilon: float = 0.15
    g_lk: float = 0.5
    lam: float = 0.99999
    beta: float = 1.0
    eta_ff: tuple = (1.0, 0.7)
    eta_fb: tuple = (0.15,)
    lateral: str = "published"
    nudging: str = "one_sided"

    @property
    def gamma(self) -> float:
        return (1 - self.lam) / self.lam

    def step_limit(self) -> float:
        """mu below which explicit Euler of a clipped hidden cell contracts."""
        return 2 / (self.g_lk + 2 / self.epsilon)


def layers(weights: dict) -> range:
    """1..L."""
    return range(1, sum(name.startswith("W") for name in weights) + 1)


def random_weights(sizes, seed: int, gain: float = 1.0, last: float = 1.0) -> dict:
    """Xavier-uniform W and F, B = A A^T; `last` multiplies the last W."""
    rng = np.random.default_rng(seed)
    top = len(sizes) - 1

    def xavier(rows, columns):
        limit = np.sqrt(6 / (rows + columns))
        return rng.uniform(-limit, limit, (rows, columns))

    weights = {f"W{l}": gain * xavier(sizes[l - 1], sizes[l]) for l in range(1, top + 1)}
    weights |= {f"F{l}": gain * xavier(sizes[l + 1], sizes[l]) for l in range(1, top)}
    for l in range(1, top + 1):
        a = xavier(sizes[l], sizes[l])
        weights[f"B{l}"] = (a @ a.T + (a @ a.T).T) / 2
    weights[f"W{top}"] = last * weights[f"W{top}"]
    return weights


def speed(l, weights, c: Constants, u, r, z, q, target, beta) -> np.ndarray:
    """du_l/ds at potentials `u`, rates `r`, lateral currents `z`, multipliers `q` (columns), each by layer."""
    basal = r[l - 1] @ weights[f"W{l}"]
    if f"F{l}" in weights:
        apical = r[l + 1] @ weights[f"F{l}"] + c.epsilon * (2 * c.gamma * z[l] + c.g_lk * r[l]) - c.epsilon * q[l]
        g_apical = 1 / c.epsilon
    else:
        apical = c.gamma * z[l] + c.g_lk * r[l] + beta * (target - r[l]) - q[l]
        g_apical = 1.0
    return -c.g_lk * u[l] + (basal - u[l]) / c.epsilon + g_apical * (apical - u[l])


def lateral_change(B, R, Z, c: Constants) -> np.ndarray:
    """The change of B by rates R and lateral currents Z (rows = samples)."""
    samples = len(R)
    if c.lateral == "none":
        return np.zeros_like(B)
    if c.lateral == "woodbury":
        inner = samples / c.gamma * np.eye(samples) + R @ Z.T
        return (B - Z.T @ np.linalg.inv(inner) @ Z) / c.lam - B
    total = np.zeros_like(B)
    for r, z in zip(R, Z, strict=True):
        total += np.outer(z, z) / (1 + c.gamma * (r @ z) if c.lateral == "rank_one" else 1.0)
    return (B - c.gamma * total / samples) / c.lam - B


def correlations(weights, c: Constants, r) -> dict:
    """< r_pre e_post > of every W and F at the rates `r`, times its learning rate: the rule without 1/beta and sign."""
    found = {}
    for l in layers(weights):
        error = r[l] - r[l - 1] @ weights[f"W{l}"]
        found[f"W{l}"] = c.eta_ff[l - 1] * np.einsum("si,sj->ij", r[l - 1], error) / len(error)
        if f"F{l}" in weights:
            error = r[l] - r[l + 1] @ weights[f"F{l}"]
            found[f"F{l}"] = c.eta_fb[l - 1] * np.einsum("si,sj->ij", r[l + 1], error) / len(error)
    return found


def contrast(weights, c: Constants, high: dict, low: dict, beta: float) -> dict:
    """The changes of W and F: `high` minus `low` over the (signed) distance of their nudgings."""
    span = 2 * beta if c.nudging == "symmetric" else beta
    up, down = correlations(weights, c, high), correlations(weights, c, low)
    return {name: (up[name] - down[name]) / span for name in up}


# (a) the published scheme


def sweeps(weights, c: Constants, image, target, beta, u, r, qt, *, mu, rule, steps, eta_q) -> None:
    """`steps` Gauss-Seidel sweeps from the lowest to the highest layer; u, r, qt change in place."""
    rho = CONSTRAINTS[c.constraint]
    for s in range(steps):
        step = STEP_RULES[rule](mu, s)
        for l in layers(weights):
            z = {l: r[l] @ weights[f"B{l}"]}
            q = {l: np.maximum(qt[l], 0.0)}
            u[l] = u[l] + step * speed(l, weights, c, u, r, z, q, target, beta)
            r[l] = rho(u[l])
            if c.constraint == "sparse":
                total = r[l].sum(axis=1, keepdims=True)
                qt[l] = qt[l] + eta_q[l - 1] * (-qt[l] + (total - 1) + q[l])


def published(
    weights, image, target, c: Constants, *, sign=1, mu=0.05, rule="constant", steps_free=30, steps_nudged=10,
    eta_q=(1e-6, 0.01),
) -> tuple[dict, dict]:  # fmt: skip
    """One batch: ``{phase: {"r": .., "u": .., "q": ..}}`` (by layer) at the ends of the phases, and the changes of weights.

    `sign` is the batch's +1 or -1 before beta.
    """
    beta = sign * c.beta
    u = {l: np.zeros((len(image), weights[f"W{l}"].shape[1])) for l in layers(weights)}
    r = {0: image} | {l: value.copy() for l, value in u.items()}
    qt = {l: np.zeros((len(image), 1)) for l in u}
    scheme = {"mu": mu, "rule": rule, "eta_q": eta_q}
    nudges = {"free": 0.0, "nudged": beta} | ({"negative": -beta} if c.nudging == "symmetric" else {})
    ends = {}
    for phase, nudge in nudges.items():
        if phase != "free":
            u = {l: r[l].copy() for l in u}  # from the rates, not from the potentials
            qt = {l: np.maximum(value, 0.0) for l, value in qt.items()}  # and from q, not from qt
        steps = steps_free if phase == "free" else steps_nudged
        sweeps(weights, c, image, target, nudge, u, r, qt, steps=steps, **scheme)
        ends[phase] = {"r": dict(r), "u": dict(u), "q": {l: np.maximum(v, 0.0) for l, v in qt.items()}, "qt": dict(qt)}
    low = "negative" if c.nudging == "symmetric" else "free"
    changes = contrast(weights, c, ends["nudged"]["r"], ends[low]["r"], beta)
    for l in layers(weights):
        R, B = ends["nudged"]["r"][l], weights[f"B{l}"]
        changes[f"B{l}"] = lateral_change(B, R, R @ B, c)
    return ends, changes


def train(weights, images, targets, c: Constants, *, batch, signs, **scheme) -> tuple[list, dict]:
    """Batch after batch: the ends of each, and the weights after all."""
    weights = dict(weights)
    found = []
    for k, sign in enumerate(signs):
        rows = slice(k * batch, (k + 1) * batch)
        ends, changes = published(weights, images[rows], targets[rows], c, sign=sign, **scheme)
        found.append(ends)
        weights = {name: value + changes[name] for name, value in weights.items()}
    return found, weights


# (b) all populations at once, in time


def euler(
    weights, image, target, c: Constants, *, phases, dt, tau_u, tau_i, tau_q=None, sign=1, window=1,
) -> tuple[dict, dict, dict]:  # fmt: skip
    """One trial from rest: ``{phase: {"pyr1.u": ...}}`` as read in the last step of each phase, the changes, the traces.

    `phases` are (name, nudge in units of beta, steps, factor of the contrastive rule, whether B learns); the factor is
    -1 for the free phase and +1 for the nudged one, or +1/2 and -1/2. In the last `window` steps of a phase whose
    factor is not 0 the rules are collected (mean over those steps), and added after the trial; `woodbury`, which is of
    a whole batch, reads the rates of the very last step. Each step reads everything at t; tau_q is by layer. The
    traces hold each variable at the start of each step.
    """
    rho = CONSTRAINTS[c.constraint]
    beta = sign * c.beta
    u = {l: np.zeros((len(image), weights[f"W{l}"].shape[1])) for l in layers(weights)}
    z = {l: np.zeros_like(value) for l, value in u.items()}
    qt = {l: np.zeros((len(image), 1)) for l in u}
    changes = {name: np.zeros_like(value) for name, value in weights.items()}
    ends, traces = {}, []
    for phase, nudge, steps, factor, learns in phases:
        for step in range(steps):
            r = {0: image} | {l: rho(value) for l, value in u.items()}
            q = {l: np.maximum(value, 0.0) for l, value in qt.items()}
            now = {f"pyr{l}.u": u[l] for l in u} | {f"pyr{l}.r": r[l] for l in u} | {f"int{l}.z": z[l] for l in u}
            now |= {f"spa{l}.qt": qt[l] for l in u} | {f"spa{l}.q": q[l] for l in u}
            traces.append(now)
            ends[phase] = now
            if step >= steps - window:
                for name, value in correlations(weights, c, r).items():
                    changes[name] += factor / beta * value / window
                exact = c.lateral == "woodbury"
                if learns and (not exact or step == steps - 1):
                    for l in u:
                        B = weights[f"B{l}"]
                        changes[f"B{l}"] += lateral_change(B, r[l], r[l] @ B if exact else z[l], c) / (
                            1 if exact else window
                        )
            du = {l: speed(l, weights, c, u, r, z, q, target, nudge * beta) / tau_u for l in u}
            dz = {l: (r[l] @ weights[f"B{l}"] - z[l]) / tau_i for l in u}
            if c.constraint == "sparse":
                for l in u:
                    total = r[l].sum(axis=1, keepdims=True)
                    qt[l] = qt[l] + dt / tau_q[l - 1] * (-qt[l] + (total - 1) + q[l])
            u = {l: value + dt * du[l] for l, value in u.items()}
            z = {l: value + dt * dz[l] for l, value in z.items()}
    return ends, changes, {name: np.stack([now[name] for now in traces]) for name in traces[0]}


# (c) the fixed points


def fixed_point(weights, image, target, c: Constants, *, beta=0.0, start=None, step=None, step_q=0.2) -> dict:
    """``{"u": .., "r": .., "z": .., "q": ..}`` by layer where every speed is 0 under the nudging `beta`, to 1e-13.

    Damped iteration of all layers at once (Jacobi), with z at its own rest; `step` is in units of tau_u.
    """
    rho = CONSTRAINTS[c.constraint]
    step = 0.4 * c.step_limit() if step is None else step
    start = start or {}
    shapes = {l: (len(image), weights[f"W{l}"].shape[1]) for l in layers(weights)}
    u = dict(start.get("u", {l: np.zeros(shape) for l, shape in shapes.items()}))
    qt = dict(start.get("qt", {l: np.zeros((len(image), 1)) for l in u}))
    for _ in range(200_000):
        r = {0: image} | {l: rho(value) for l, value in u.items()}
        z = {l: r[l] @ weights[f"B{l}"] for l in u}
        q = {l: np.maximum(value, 0.0) for l, value in qt.items()}
        du = {l: speed(l, weights, c, u, r, z, q, target, beta) for l in u}
        worst = max(np.abs(value).max() for value in du.values()) * step
        if c.constraint == "sparse":
            dq = {l: -qt[l] + (r[l].sum(axis=1, keepdims=True) - 1) + q[l] for l in u}
            worst = max(worst, *(np.abs(value).max() * step_q for value in dq.values()))
            qt = {l: value + step_q * dq[l] for l, value in qt.items()}
        if worst < 1e-14:
            return {"u": u, "r": r, "z": z, "q": q, "qt": qt}
        u = {l: value + step * du[l] for l, value in u.items()}
    raise RuntimeError(f"no fixed point: the largest step is {worst:.1e}")


def steady(weights, image, target, c: Constants, *, sign=1) -> tuple[dict, dict]:
    """``{phase: fixed point}`` of one trial, and the changes of weights."""
    beta = sign * c.beta
    ends = {"free": fixed_point(weights, image, target, c)}
    ends["nudged"] = fixed_point(weights, image, target, c, beta=beta, start=ends["free"])
    if c.nudging == "symmetric":
        ends["negative"] = fixed_point(weights, image, target, c, beta=-beta, start=ends["nudged"])
    low = "negative" if c.nudging == "symmetric" else "free"
    changes = contrast(weights, c, ends["nudged"]["r"], ends[low]["r"], beta)
    for l in layers(weights):
        R, B = ends["nudged"]["r"][l], weights[f"B{l}"]
        changes[f"B{l}"] = lateral_change(B, R, R @ B, c)
    return ends, changes
