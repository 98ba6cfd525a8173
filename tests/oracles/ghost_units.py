"""Independent oracle for the ghost-unit circuit after Mesnard et al. 2019 (reconstruction).

Written from the paper note alone, in plain NumPy, without reading the framework.

Conventions. Layers 0..L, rates are rows: drive = r @ W.

    W_l  (n_{l-1}, n_l)   b_l  (n_l,)        feedforward, l = 1..L
    B_l  (n_{l+1}, n_l)                      feedback onto layer l, l = 1..L-1; None: W_{l+1}^T (tied)
    V_l  (n_l, n_{l+1})   c_l  (n_{l+1},)    pyramidal -> ghost and ghost bias, l = 1..L-1
    G_l  (n_{l+1}, n_l)                      ghost -> pyramidal, subtracted

Each family is a dict keyed by l or a list with index l-1; what is returned is always a list with index l-1.

    tau du_l/dt = -u_l + a_l + E_l           a_l = r_{l-1} W_l + b_l,  r_l = rho(u_l),  r_0 = x
    tau dg_l/dt = -g_l + r_l V_l + c_l       `exact`, `learned`
    tau dg_l/dt = r_{l+1} B_l - g_l          `online`, free phase; 0 while nudged
    E_L = beta (y - r_L)                     0 in the free phase
    E_l = kappa (r_{l+1} B_l - rho(g_l) G_l) `exact`, `learned`
    E_l = kappa (r_{l+1} B_l - g_l)          `online`
    E_l = kappa r_{l+1} B_l                  `none`
"""

from itertools import pairwise

import numpy as np
from scipy.integrate import solve_ivp

MODES = ("exact", "learned", "online", "none")


def _logistic(u):
    return 1.0 / (1.0 + np.exp(-u))


# rho and rho'. The hard sigmoid's slope is taken as 1 on the closed interval [0, 1], corners included.
TRANSFER = {
    "logistic": (_logistic, lambda u: _logistic(u) * (1.0 - _logistic(u))),
    "tanh": (np.tanh, lambda u: 1.0 - np.tanh(u) ** 2),
    "hard_sigmoid": (
        lambda u: np.clip(u, 0.0, 1.0),
        lambda u: ((u >= 0.0) & (u <= 1.0)).astype(np.float64),
    ),
}


def _family(values):
    """Float64 copies of a family of arrays, as a list with index l-1."""
    if values is None:
        return None
    if isinstance(values, dict):
        values = [values[layer] for layer in range(1, 1 + len(values))]
    return [np.array(value, dtype=np.float64) for value in values]


def _problem(W, b, x, y, mode, V, c, G, B):
    """Checked float64 copies of what `euler` and `reference_solution` are given."""
    if mode not in MODES:
        raise ValueError(f"mode {mode!r} is not one of {MODES}")
    W, b, V, c, G, B = (_family(values) for values in (W, b, V, c, G, B))
    x = np.atleast_2d(np.asarray(x, dtype=np.float64))
    y = np.atleast_2d(np.asarray(y, dtype=np.float64))
    n = [W[0].shape[0]] + [w.shape[1] for w in W]
    L = len(W)

    expected = [("W", W, [(n[i], n[i + 1]) for i in range(L)]), ("b", b, [(n[i + 1],) for i in range(L)])]
    if B is not None:
        expected.append(("B", B, [(n[i + 2], n[i + 1]) for i in range(L - 1)]))
    if mode == "learned":
        if V is None or c is None or G is None:
            raise ValueError("mode 'learned' needs V, c and G")
        expected.append(("V", V, [(n[i + 1], n[i + 2]) for i in range(L - 1)]))
        expected.append(("c", c, [(n[i + 2],) for i in range(L - 1)]))
        expected.append(("G", G, [(n[i + 2], n[i + 1]) for i in range(L - 1)]))
    elif V is not None or c is not None or G is not None:
        raise ValueError(f"V, c and G belong to mode 'learned', not {mode!r}")
    expected.append(("x, y", [x, y], [(len(x), n[0]), (len(x), n[-1])]))
    for name, values, shapes in expected:
        if [value.shape for value in values] != shapes:
            raise ValueError(f"{name}: shapes {[value.shape for value in values]}, expected {shapes}")

    # ghosts of layer l: copies of layer l+1, or one per pyramidal cell
    ghosts = {"exact": n[2:], "learned": n[2:], "online": n[1:-1], "none": []}[mode]
    return W, b, x, y, V, c, G, B, n, ghosts


def forward(W, b, x, transfer):
    """Feedforward pass: drives a_l and rates r_l = rho(a_l), l = 1..L."""
    rho, _ = TRANSFER[transfer]
    drives, rates = [], []
    below = np.atleast_2d(np.asarray(x, dtype=np.float64))
    for w, bias in zip(_family(W), _family(b), strict=True):
        drives.append(below @ w + bias)
        below = rho(drives[-1])
        rates.append(below)
    return drives, rates


def gradient(W, b, x, y, transfer):
    """Backprop gradient (no minus sign) of C = mean over samples of 1/2 |y - rho(a_L)|^2: lists dW, db."""
    _, slope = TRANSFER[transfer]
    W = _family(W)
    x = np.atleast_2d(np.asarray(x, dtype=np.float64))
    y = np.atleast_2d(np.asarray(y, dtype=np.float64))
    drives, rates = forward(W, b, x, transfer)
    inputs = [x, *rates[:-1]]
    dW, db = [None] * len(W), [None] * len(W)
    dC_dr = (rates[-1] - y) / len(x)
    for i in reversed(range(len(W))):
        delta = dC_dr * slope(drives[i])
        dW[i] = inputs[i].T @ delta
        db[i] = delta.sum(axis=0)
        dC_dr = delta @ W[i].T
    return dW, db


def euler(
    W,
    b,
    x,
    y,
    *,
    transfer,
    mode,
    kappa,
    beta,
    tau,
    dt,
    steps_free,
    steps_nudged,
    steps_gate,
    eta,
    V=None,
    c=None,
    G=None,
    B=None,
    plastic=True,
    hold_weights=False,
):
    """One trial of one batch: free, nudged, nudged_end (plastic), by forward Euler from the zero state.

    In each step rates, drives, E and rule factors are read from states and weights at t; then the weights go
    to t+dt, then the potentials. Rule R4, in nudged_end only, with T_gate = steps_gate dt and E_free_L = 0:

        dW_l/dt = eta/T_gate 1/(beta kappa^(L-l)) <r_{l-1}^T (rho'(a_l) (E_l - E_free_l))>,    b_l: pre = 1

    E_free_l is E_l as read in the last free step (0 without a free phase). `exact` re-ties V, c, G to W(t),
    b(t), B(t) in each step. `hold_weights` leaves W and b as they are and only accumulates dW, db.

    Returns a dict: t (steps+1), u, g (lists of (steps+1, batch, n)), E (list of (steps, batch, n)), E_free,
    W, b (final), dW, db (accumulated).
    """
    rho, slope = TRANSFER[transfer]
    W, b, x, y, V, c, G, B_fixed, n, ghosts = _problem(W, b, x, y, mode, V, c, G, B)
    L, samples = len(W), len(x)
    steps = steps_free + steps_nudged + steps_gate

    u = [np.zeros((samples, size)) for size in n[1:]]
    g = [np.zeros((samples, size)) for size in ghosts]
    E_free = [np.zeros((samples, size)) for size in n[1:]]
    dW, db = [np.zeros_like(w) for w in W], [np.zeros_like(bias) for bias in b]
    u_path = [np.zeros((steps + 1, samples, size)) for size in n[1:]]
    g_path = [np.zeros((steps + 1, samples, size)) for size in ghosts]
    E_path = [np.zeros((steps, samples, size)) for size in n[1:]]

    for step in range(steps):
        free = step < steps_free
        gate = step >= steps_free + steps_nudged

        # read everything at t
        r = [x] + [rho(potential) for potential in u]  # r[l]
        a = [r[i] @ W[i] + b[i] for i in range(L)]
        B_now = B_fixed if B_fixed is not None else [W[i + 1].T for i in range(L - 1)]
        if mode == "exact":
            V, c, G = W[1:], b[1:], B_now
        feedback = [r[i + 2] @ B_now[i] for i in range(L - 1)]
        if mode in ("exact", "learned"):
            E = [kappa * (feedback[i] - rho(g[i]) @ G[i]) for i in range(L - 1)]
            # summed as for the cells of layer l+1, so that tied twins stay equal to the last bit
            dg = [-g[i] + (r[i + 1] @ V[i] + c[i]) for i in range(L - 1)]
        elif mode == "online":
            E = [kappa * (feedback[i] - g[i]) for i in range(L - 1)]
            dg = [feedback[i] - g[i] if free else np.zeros_like(g[i]) for i in range(L - 1)]
        else:
            E = [kappa * feedback[i] for i in range(L - 1)]
            dg = []
        E.append(np.zeros_like(y) if free else beta * (y - r[L]))
        du = [-u[i] + a[i] + E[i] for i in range(L)]

        # sample-and-hold, record
        if free:
            E_free[: L - 1] = E[: L - 1]
        for i in range(L):
            E_path[i][step] = E[i]

        # weights to t+dt
        if gate and plastic:
            for i in range(L):
                scale = eta / (steps_gate * dt) / (beta * kappa ** (L - 1 - i))
                post = slope(a[i]) * (E[i] - E_free[i])
                change_W = dt * scale * (r[i].T @ post) / samples
                change_b = dt * scale * post.mean(axis=0)
                dW[i] += change_W
                db[i] += change_b
                if not hold_weights:
                    W[i] = W[i] + change_W
                    b[i] = b[i] + change_b

        # potentials to t+dt
        for i in range(L):
            u[i] = u[i] + dt / tau * du[i]
            u_path[i][step + 1] = u[i]
        for i in range(len(g)):
            g[i] = g[i] + dt / tau * dg[i]
            g_path[i][step + 1] = g[i]

    return {
        "t": dt * np.arange(steps + 1),
        "u": u_path,
        "g": g_path,
        "E": E_path,
        "E_free": E_free,
        "W": W,
        "b": b,
        "dW": dW,
        "db": db,
    }


def reference_solution(
    W,
    b,
    x,
    y,
    *,
    transfer,
    mode,
    kappa,
    beta,
    tau,
    T_free,
    T_nudged,
    times,
    V=None,
    c=None,
    G=None,
    B=None,
):
    """Free then nudged phase with the weights held, by an adaptive Runge-Kutta method, at the given times.

    `times` increases, within [0, T_free + T_nudged]. Returns a dict: t and lists u, g of (times, batch, n).
    The right-hand side is written apart from `euler`, one sample at a time, with column vectors and post x
    pre matrices as in the paper note.
    """
    rho, _ = TRANSFER[transfer]
    W, b, x, y, V, c, G, B, n, ghosts = _problem(W, b, x, y, mode, V, c, G, B)
    L = len(W)
    times = np.asarray(times, dtype=np.float64)
    end = T_free + T_nudged
    if np.any(np.diff(times) <= 0) or times[0] < 0 or times[-1] > end * (1 + 1e-12):
        raise ValueError("times must increase within the free and nudged phases")
    times = np.minimum(times, end)

    forward_w = {k + 1: w.T for k, w in enumerate(W)}
    bias = {k + 1: v for k, v in enumerate(b)}
    back_w = {k: forward_w[k + 1].T if B is None else B[k - 1].T for k in range(1, L)}
    if mode == "exact":
        to_ghost = {k: forward_w[k + 1] for k in range(1, L)}
        ghost_bias = {k: bias[k + 1] for k in range(1, L)}
        from_ghost = back_w
    elif mode == "learned":
        to_ghost = {k: V[k - 1].T for k in range(1, L)}
        ghost_bias = {k: c[k - 1] for k in range(1, L)}
        from_ghost = {k: G[k - 1].T for k in range(1, L)}

    cuts = np.cumsum(n[1:] + ghosts)[:-1]

    def rates_of_change(_, state, stimulus, target, free):
        parts = np.split(state, cuts)
        potential = dict(enumerate(parts[:L], start=1))
        ghost = dict(enumerate(parts[L:], start=1))
        rate = {0: stimulus} | {k: rho(v) for k, v in potential.items()}
        d_potential, d_ghost = [], []
        for k in range(1, L + 1):
            bottom_up = forward_w[k].dot(rate[k - 1]) + bias[k]
            if k == L:
                top_down = (0.0 if free else beta) * (target - rate[L])
            else:
                from_above = back_w[k].dot(rate[k + 1])
                if mode == "none":
                    inhibition = 0.0
                elif mode == "online":
                    inhibition = ghost[k]
                    tracking = 1.0 if free else 0.0
                    d_ghost.append(tracking * (from_above - ghost[k]) / tau)
                else:
                    inhibition = from_ghost[k].dot(rho(ghost[k]))
                    d_ghost.append((to_ghost[k].dot(rate[k]) + ghost_bias[k] - ghost[k]) / tau)
                top_down = kappa * (from_above - inhibition)
            d_potential.append((bottom_up + top_down - potential[k]) / tau)
        return np.concatenate(d_potential + d_ghost)

    def integrate(start, stop, state, stimulus, target, free, wanted):
        """States at the wanted times and at the phase's end."""
        if stop == start:
            return np.repeat(state[None], len(wanted), axis=0), state
        solution = solve_ivp(
            rates_of_change,
            (start, stop),
            state,
            method="DOP853",
            t_eval=np.append(wanted[wanted < stop], stop),
            args=(stimulus, target, free),
            rtol=1e-10,
            atol=1e-12,
        )
        if not solution.success:
            raise RuntimeError(solution.message)
        path = solution.y.T
        at_end = np.repeat(path[-1:], np.sum(wanted >= stop), axis=0)
        return np.concatenate([path[:-1], at_end]), path[-1]

    in_free = times <= T_free
    paths = []
    for stimulus, target in zip(x, y, strict=True):
        rest = np.zeros(sum(n[1:]) + sum(ghosts))
        early, settled = integrate(0.0, T_free, rest, stimulus, target, True, times[in_free])
        late, _ = integrate(T_free, end, settled, stimulus, target, False, times[~in_free])
        paths.append(np.concatenate([early, late]))
    parts = np.split(np.stack(paths, axis=1), cuts, axis=-1)
    return {"t": times, "u": parts[:L], "g": parts[L:]}


def cosine(p, q):
    """Cosine of the angle between two arrays taken as vectors."""
    p, q = np.ravel(p), np.ravel(q)
    return float(p @ q / (np.linalg.norm(p) * np.linalg.norm(q)))


def random_problem(sizes, samples, transfer, seed):
    """Glorot-uniform weights (x4 for logistic), small biases, uniform inputs, one-hot targets: W, b, x, y."""
    rng = np.random.default_rng(seed)
    gain = 4.0 if transfer == "logistic" else 1.0
    W, b = [], []
    for pre, post in pairwise(sizes):
        W.append(gain * np.sqrt(6.0 / (pre + post)) * rng.uniform(-1.0, 1.0, (pre, post)))
        b.append(0.1 * rng.standard_normal(post) + (0.3 if transfer == "hard_sigmoid" else 0.0))
    x = rng.uniform(0.0, 1.0, (samples, sizes[0]))
    y = np.eye(sizes[-1])[rng.integers(0, sizes[-1], samples)]
    return W, b, x, y


def noisy_ghosts(W, b, noise, seed):
    """V, c, G for `learned`: the tied values with relative Gaussian noise."""
    rng = np.random.default_rng(seed)

    def jitter(value):
        return value * (1.0 + noise * rng.standard_normal(value.shape))

    return {
        "V": [jitter(w) for w in W[1:]],
        "c": [jitter(bias) for bias in b[1:]],
        "G": [jitter(w.T) for w in W[1:]],
    }


def _check_gradient():
    print("backprop against central differences: largest relative error")
    for transfer in TRANSFER:
        W, b, x, y = random_problem((6, 5, 4, 3), 7, transfer, seed=1)

        def cost(W, b, x=x, y=y, transfer=transfer):
            return 0.5 * np.mean(np.sum((y - forward(W, b, x, transfer)[1][-1]) ** 2, axis=1))

        worst = 0.0
        for values, exact in zip((W, b), gradient(W, b, x, y, transfer), strict=True):
            for value, derivative in zip(values, exact, strict=True):
                numeric = np.zeros_like(value)
                for index in np.ndindex(value.shape):
                    old = value[index]
                    value[index] = old + 1e-6
                    up = cost(W, b)
                    value[index] = old - 1e-6
                    down = cost(W, b)
                    value[index] = old
                    numeric[index] = (up - down) / 2e-6
                worst = max(worst, np.abs(numeric - derivative).max() / np.abs(derivative).max())
        print(f"  {transfer:13s} {worst:.1e}")


def _check_alignment():
    settings = {"tau": 10.0, "dt": 1.0, "steps_free": 600, "steps_nudged": 600, "steps_gate": 20, "eta": 1.0}
    print("R4 against minus the gradient, 64-50-30-10, beta 0.01: cos per layer; bias cos; |dW| / (eta |grad|)")
    for transfer, mode, kappa, noise in [
        ("logistic", "exact", 1.0, None),
        ("tanh", "exact", 1.0, None),
        ("hard_sigmoid", "exact", 1.0, None),
        ("logistic", "exact", 0.3, None),
        ("logistic", "learned", 1.0, 0.01),
        ("logistic", "online", 0.1, None),
        ("logistic", "none", 0.3, None),
    ]:
        W, b, x, y = random_problem((64, 50, 30, 10), 64, transfer, seed=2)
        ghosts = {} if noise is None else noisy_ghosts(W, b, noise, seed=3)
        options = settings | {"transfer": transfer, "mode": mode, "kappa": kappa, "beta": 0.01} | ghosts
        trial = euler(W, b, x, y, hold_weights=True, **options)
        dW, db = gradient(W, b, x, y, transfer)
        cos_W = " ".join(f"{cosine(p, -q):.5f}" for p, q in zip(trial["dW"], dW, strict=True))
        cos_b = " ".join(f"{cosine(p, -q):.5f}" for p, q in zip(trial["db"], db, strict=True))
        sizes = zip(trial["dW"], dW, strict=True)
        norms = " ".join(f"{np.linalg.norm(p) / np.linalg.norm(q):.4f}" for p, q in sizes)
        print(f"  {transfer:13s} {mode:8s} kappa {kappa}: {cos_W}; {cos_b}; {norms}")
        if mode == "exact":
            free = [np.abs(E[: settings["steps_free"]]).max() for E in trial["E"]]
            drives, _ = forward(W, b, x, transfer)
            end = settings["steps_free"]
            off = max(np.abs(u[end] - a).max() for u, a in zip(trial["u"], drives, strict=True))
            print(f"    max |E| over the whole free phase {max(free)}; free state - forward pass {off:.1e}")
            tied = {"V": W[1:], "c": b[1:], "G": [w.T for w in W[1:]]}
            twin = euler(W, b, x, y, hold_weights=True, **(options | {"mode": "learned"} | tied))
            same = max(np.abs(p - q).max() for p, q in zip(trial["dW"], twin["dW"], strict=True))
            print(f"    `learned` with tied values gives the same dW to {same:.1e}")
            for eta in (1e-2, 1e-3):
                live = euler(W, b, x, y, **(options | {"eta": eta}))
                pairs = list(zip(live["dW"], trial["dW"], strict=True))
                gap = max(np.abs(p / eta - q).max() / np.abs(q).max() for p, q in pairs)
                moved = zip(live["W"], W, live["dW"], strict=True)
                book = max(np.abs(p - q - d).max() for p, q, d in moved)
                print(f"    eta {eta}: live against held dW {gap:.1e}; final W - (W + dW) {book:.1e}")


def _check_order():
    print("Euler against solve_ivp, 8-6-5-3, beta 0.3, 3 + 3 tau: largest error at dt = tau/10, /20, ..; order")
    for transfer in TRANSFER:
        for mode in MODES:
            W, b, x, y = random_problem((8, 6, 5, 3), 4, transfer, seed=4)
            physics = {"transfer": transfer, "mode": mode, "kappa": 0.5, "beta": 0.3, "tau": 10.0}
            if mode == "learned":
                physics |= noisy_ghosts(W, b, 0.2, seed=5)
            errors = []
            for per_tau in (10, 20, 40, 80):
                steps = {"steps_free": 3 * per_tau, "steps_nudged": 3 * per_tau, "steps_gate": 0}
                trial = euler(W, b, x, y, dt=10.0 / per_tau, eta=0.0, **steps, **physics)
                truth = reference_solution(W, b, x, y, T_free=30.0, T_nudged=30.0, times=trial["t"], **physics)
                pairs = zip(trial["u"] + trial["g"], truth["u"] + truth["g"], strict=True)
                errors.append(max(np.abs(p - q).max() for p, q in pairs))
            orders = [np.log2(p / q) for p, q in pairwise(errors)]
            shown = " ".join(f"{error:.2e}" for error in errors)
            print(f"  {transfer:13s} {mode:8s} {shown}; {' '.join(f'{order:.3f}' for order in orders)}")


if __name__ == "__main__":
    _check_gradient()
    _check_alignment()
    _check_order()
