"""Independent oracle for the dendritic microcircuit of Sacramento, Costa, Bengio and Senn 2018.

Written from the paper note alone, in plain NumPy and SciPy, without reading the framework.

Conventions. Layers 0..L, rates are rows: drive = r @ W. Families are lists with index l-1.

    W_l   (n_{l-1}, n_l)    basal, feedforward, l = 1..L
    B_l   (n_{l+1}, n_l)    top-down onto the apical dendrite of layer l, l = 1..L-1; `sym`: W_{l+1}^T at every step
    IP_l  (n_l, n_{l+1})    pyramidal -> interneuron dendrite, l = 1..L-1
    PI_l  (n_{l+1}, n_l)    interneuron -> apical dendrite, l = 1..L-1

One time unit throughout: durations, dt and the time constants in it, conductances and learning rates in its
inverse, membrane capacity 1. `STANDARD` and `LATENT` are in 1/s.

    du_l/dt  = -g_lk u_l + g_B (v_B,l - u_l) + g_A (v_A,l - u_l)                  hidden, l = 1..L-1
    du_L/dt  = -g_lk u_L + g_B (v_B,L - u_L) + teach g_som (u_target - u_L)       u_target = low + (high - low) y
    du^I/dt  = -g_lk u^I + g_D (v_D,l - u^I) + g_som (u_{l+1} - u^I)              interneurons of layer l
    v_B,l = r_{l-1} W_l,  v_A,l = r_{l+1} B_l + r^I_l PI_l,  v_D,l = r_l IP_l     tau_d: low-passed, and read as such
    r = phi(u) logistic;  r_0 = x, or tau_0 dr_0/dt = x - r_0 from 0;  every other state starts at 0 too
    rhat = phi(attenuated dendritic potential): g_B/(g_lk+g_B+g_A) v_B,l; g_B/(g_lk+g_B) v_B,L; g_D/(g_lk+g_D) v_D,l

    dW_l/dt  = eta_W[l-1]  < r_{l-1}^T (r_l - rhat_l) >                           mean over the samples
    dIP_l/dt = eta_IP[l-1] < r_l^T (r^I_l - rhat^I_l) >
    dPI_l/dt = eta_PI[l-1] < r^I_l^T (0 - v_A,l) >
    tau_w: dD/dt = (<..> - D)/tau_w from 0, dW/dt = eta D
"""

from itertools import pairwise

import numpy as np
from scipy.integrate import solve_ivp
from scipy.linalg import solve_discrete_lyapunov
from scipy.optimize import root

STANDARD = {"g_lk": 100.0, "g_B": 1000.0, "g_A": 800.0, "g_D": 1000.0, "g_som": 800.0}
LATENT = {"g_lk": 30.0, "g_B": 100.0, "g_A": 60.0, "g_D": 100.0, "g_som": 60.0}


def phi(u):
    return 1.0 / (1.0 + np.exp(-u))


def phi_slope(u):
    return phi(u) * (1.0 - phi(u))


def _copies(family):
    return [np.array(value, dtype=np.float64) for value in family]


def _rows(values):
    return np.atleast_2d(np.asarray(values, dtype=np.float64))


def _problem(W, B, IP, PI, x):
    """Checked float64 copies; B None stands for `sym`."""
    W, IP, PI, x = _copies(W), _copies(IP), _copies(PI), _rows(x)
    B = [w.T.copy() for w in W[1:]] if B is None else _copies(B)
    n = [W[0].shape[0]] + [w.shape[1] for w in W]
    L = len(W)
    up = [(n[i], n[i + 1]) for i in range(L)]
    down = [(b, a) for a, b in up[1:]]
    for name, family, shapes in [("W", W, up), ("B", B, down), ("IP", IP, up[1:]), ("PI", PI, down)]:
        if [value.shape for value in family] != shapes:
            raise ValueError(f"{name}: shapes {[value.shape for value in family]}, expected {shapes}")
    if x.shape[1] != n[0]:
        raise ValueError(f"x: {x.shape[1]} columns, expected {n[0]}")
    return W, B, IP, PI, x, n


def target_potential(y, low=-1.0, high=1.0):
    return low + (high - low) * _rows(y)


def attenuations(g, L):
    """Factors from dendritic to attenuated potential: layers 1..L, and interneurons."""
    hidden = g["g_B"] / (g["g_lk"] + g["g_B"] + g["g_A"])
    output = g["g_B"] / (g["g_lk"] + g["g_B"])
    return [hidden] * (L - 1) + [output], g["g_D"] / (g["g_lk"] + g["g_D"])


def effective_time_constants(g, L):
    """tau_eff of every population for prospective coding; the output's depends on teach."""
    hidden = 1.0 / (g["g_lk"] + g["g_B"] + g["g_A"])
    inter = 1.0 / (g["g_lk"] + g["g_D"] + g["g_som"])
    taus = {f"pyr{k}": hidden for k in range(1, L)} | {f"int{k}": inter for k in range(1, L)}
    taus[f"pyr{L}"] = lambda teach: 1.0 / (g["g_lk"] + g["g_B"] + teach * g["g_som"])
    return taus


def self_predicting(W, B, g):
    """IP and PI of the self-predicting state; B None stands for `sym`."""
    W = _copies(W)
    B = [w.T for w in W[1:]] if B is None else _copies(B)
    pyramidal, inter = attenuations(g, len(W))
    return [pyramidal[i] / inter * W[i] for i in range(1, len(W))], [-b for b in B]


def euler(
    W,
    B,
    IP,
    PI,
    x,
    y,
    g,
    *,
    dt,
    protocol,
    learn=False,
    eta_W=None,
    eta_IP=None,
    eta_PI=None,
    tau_w=None,
    tau_0=None,
    tau_d=None,
    sym=False,
    low=-1.0,
    high=1.0,
    sigma=0.0,
    noise=None,
    tau_eff=None,
    prospective_teaching=False,
):
    """One trial of one batch by forward Euler from the zero state; `protocol` is a list of (duration, teach).

    In each step everything is read from states and weights at t; then the weights go to t+dt (W += dt eta D(t)
    with tau_w, else dt eta product(t); D += dt/tau_w (product(t) - D(t))), the potentials, dendrites and r_0.
    `noise(step, name, shape)` gives standard normals, for the names pyr1.., int1..; each soma gets
    sigma sqrt(dt) times them. `tau_eff` (dict by the same names, numbers or functions of teach): every rate
    reads u(t-dt) + tau_eff (u(t) - u(t-dt))/dt, and u in the first step. `prospective_teaching`: the
    interneurons' teaching current reads that potential of the layer above as well, instead of its u.

    Returns a dict: t (steps+1), lists by layer of (steps+1, samples, n): u, u_int, r, r_int, v_B, v_A, v_D;
    r_0; the weights at the end W, B, IP, PI; and D, a dict of lists W, IP, PI (None without tau_w).
    What is read at the end is read with the last phase's teach.
    """
    W, B, IP, PI, x, n = _problem(W, None if sym else B, IP, PI, x)
    u_target = target_potential(y, low, high)
    L, samples, H = len(W), len(x), len(W) - 1
    att, att_int = attenuations(g, L)
    teach_by_step = [teach for seconds, teach in protocol for _ in range(round(seconds / dt))]
    steps = len(teach_by_step)
    teach_by_step.append(teach_by_step[-1])

    def zeros(sizes):
        return [np.zeros((samples, size)) for size in sizes]

    u, q = zeros(n[1:]), zeros(n[2:])  # somata: pyramidal, interneurons
    u_old, q_old = zeros(n[1:]), zeros(n[2:])
    s_B, s_A, s_D = zeros(n[1:]), zeros(n[1:-1]), zeros(n[2:])  # dendritic states, used with tau_d
    r_0 = x if tau_0 is None else np.zeros_like(x)
    D_W, D_IP, D_PI = ([np.zeros_like(w) for w in family] for family in (W, IP, PI))
    path = {name: [] for name in ("u", "u_int", "r", "r_int", "v_B", "v_A", "v_D", "r_0")}

    def taus(name, teach):
        value = tau_eff[name]
        return value(teach) if callable(value) else value

    for step in range(steps + 1):
        teach = teach_by_step[step]

        # read everything at t
        read_u, read_q = u, q
        if tau_eff is not None and step > 0:
            read_u = [u_old[i] + taus(f"pyr{i + 1}", teach) * ((u[i] - u_old[i]) / dt) for i in range(L)]
            read_q = [q_old[i] + taus(f"int{i + 1}", teach) * ((q[i] - q_old[i]) / dt) for i in range(H)]
        if sym:
            B = [w.T.copy() for w in W[1:]]
        r = [r_0] + [phi(v) for v in read_u]  # r[l]
        r_q = [phi(v) for v in read_q]
        I_B = [r[i] @ W[i] for i in range(L)]
        I_A = [r[i + 2] @ B[i] + r_q[i] @ PI[i] for i in range(H)]
        I_D = [r[i + 1] @ IP[i] for i in range(H)]
        v_B, v_A, v_D = (I_B, I_A, I_D) if tau_d is None else (s_B, s_A, s_D)
        teacher = read_u if prospective_teaching else u

        for name, now in (("u", u), ("u_int", q), ("r", r[1:]), ("r_int", r_q), ("v_B", v_B), ("v_A", v_A)):
            path[name].append(now)
        path["v_D"].append(v_D)
        path["r_0"].append(r_0)
        if step == steps:
            break

        top = [g["g_A"] * (v_A[i] - u[i]) for i in range(H)] + [teach * g["g_som"] * (u_target - u[-1])]
        du = [-g["g_lk"] * u[i] + g["g_B"] * (v_B[i] - u[i]) + top[i] for i in range(L)]
        dq = [-g["g_lk"] * q[i] + g["g_D"] * (v_D[i] - q[i]) + g["g_som"] * (teacher[i + 1] - q[i]) for i in range(H)]

        # weights to t+dt
        if learn:
            products = (
                [r[i].T @ (r[i + 1] - phi(att[i] * v_B[i])) / samples for i in range(L)],
                [r[i + 1].T @ (r_q[i] - phi(att_int * v_D[i])) / samples for i in range(H)],
                [r_q[i].T @ (0.0 - v_A[i]) / samples for i in range(H)],
            )
            for weights, filters, product, eta in zip(
                (W, IP, PI), (D_W, D_IP, D_PI), products, (eta_W, eta_IP, eta_PI), strict=True
            ):
                for i in range(len(weights)):
                    rate = 0.0 if eta is None else eta[i]
                    if tau_w is None:
                        weights[i] = weights[i] + dt * rate * product[i]
                    else:
                        weights[i] = weights[i] + dt * rate * filters[i]
                        filters[i] = filters[i] + dt / tau_w * (product[i] - filters[i])

        # states to t+dt
        u_old, q_old = u, q
        u = [u[i] + dt * du[i] for i in range(L)]
        q = [q[i] + dt * dq[i] for i in range(H)]
        if noise is not None:
            scale = sigma * np.sqrt(dt)
            u = [u[i] + scale * noise(step, f"pyr{i + 1}", u[i].shape) for i in range(L)]
            q = [q[i] + scale * noise(step, f"int{i + 1}", q[i].shape) for i in range(H)]
        if tau_d is not None:
            s_B = [s_B[i] + dt / tau_d * (I_B[i] - s_B[i]) for i in range(L)]
            s_A = [s_A[i] + dt / tau_d * (I_A[i] - s_A[i]) for i in range(H)]
            s_D = [s_D[i] + dt / tau_d * (I_D[i] - s_D[i]) for i in range(H)]
        if tau_0 is not None:
            r_0 = r_0 + dt / tau_0 * (x - r_0)

    if sym:
        B = [w.T.copy() for w in W[1:]]
    out = {name: [np.stack(by_layer) for by_layer in zip(*values, strict=True)] for name, values in path.items()}
    out["r_0"] = np.stack(path["r_0"])
    filtered = None if tau_w is None else {"W": D_W, "IP": D_IP, "PI": D_PI}
    return out | {"t": dt * np.arange(steps + 1), "W": W, "B": B, "IP": IP, "PI": PI, "D": filtered}


def reference_solution(
    W,
    B,
    IP,
    PI,
    x,
    y,
    g,
    *,
    protocol,
    times,
    learn=False,
    eta_W=None,
    eta_IP=None,
    eta_PI=None,
    tau_w=None,
    tau_0=None,
    tau_d=None,
    sym=False,
    low=-1.0,
    high=1.0,
    rtol=1e-11,
    atol=1e-12,
):
    """The same trial without noise and prospective coding, by an adaptive Runge-Kutta method, at `times`.

    The plastic weights and their filters are states of the system. Written apart from `euler`: column
    vectors and post x pre matrices, a loop over the samples, one flat state.

    Returns a dict: t, u, u_int (lists of (times, samples, n)), W, IP, PI (lists of (times, pre, post)), and
    with tau_0, tau_d, tau_w also r_0, v_B, v_A, v_D, D (dict of lists W, IP, PI).
    """
    W, B, IP, PI, x, n = _problem(W, None if sym else B, IP, PI, x)
    u_target = target_potential(y, low, high)
    L, samples = len(W), len(x)
    times = np.asarray(times, dtype=np.float64)
    end = sum(seconds for seconds, _ in protocol)
    if np.any(np.diff(times) <= 0) or times[0] < 0 or times[-1] > end * (1 + 1e-9):
        raise ValueError("times must increase within the protocol")
    times = np.minimum(times, end)

    # layout of the flat state: (name, layer) -> slice and shape
    fields = [(("u", k), (samples, n[k])) for k in range(1, L + 1)]
    fields += [(("u_int", k), (samples, n[k + 1])) for k in range(1, L)]
    if tau_0 is not None:
        fields.append((("r_0", 0), (samples, n[0])))
    if tau_d is not None:
        fields += [(("v_B", k), (samples, n[k])) for k in range(1, L + 1)]
        fields += [(("v_A", k), (samples, n[k])) for k in range(1, L)]
        fields += [(("v_D", k), (samples, n[k + 1])) for k in range(1, L)]
    start = {}
    rates = {}
    for name, family, eta in (("W", W, eta_W), ("IP", IP, eta_IP), ("PI", PI, eta_PI)):
        for k, value in enumerate(family, start=1):
            fields.append(((name, k), value.T.shape))
            start[name, k] = value.T
            rates[name, k] = eta[k - 1] if learn and eta is not None else 0.0
            if tau_w is not None:
                fields.append((("D_" + name, k), value.T.shape))
    layout, position = {}, 0
    for key, shape in fields:
        size = int(np.prod(shape))
        layout[key] = (slice(position, position + size), shape)
        position += size
    state = np.zeros(position)
    for key, value in start.items():
        state[layout[key][0]] = value.ravel()
    fixed_B = {k: value.T for k, value in enumerate(B, start=1)}  # post x pre

    share_hidden = g["g_B"] / (g["g_lk"] + g["g_B"] + g["g_A"])
    share_output = g["g_B"] / (g["g_lk"] + g["g_B"])
    share_inter = g["g_D"] / (g["g_lk"] + g["g_D"])

    def rhs(_, flat, teach):
        now = {key: flat[where].reshape(shape) for key, (where, shape) in layout.items()}
        change = {key: np.zeros(shape) for key, (_, shape) in layout.items()}
        product = {key: np.zeros(start[key].shape) for key in start}
        for s in range(samples):
            rate = {k: phi(now["u", k][s]) for k in range(1, L + 1)}
            rate[0] = x[s]
            if tau_0 is not None:
                rate[0] = now["r_0", 0][s]
                change["r_0", 0][s] = (x[s] - rate[0]) / tau_0
            inter = {k: phi(now["u_int", k][s]) for k in range(1, L)}
            basal, apical, dendrite = {}, {}, {}
            for k in range(1, L + 1):
                basal[k] = now["W", k].dot(rate[k - 1])
                if k < L:
                    top_down = now["W", k + 1].T if sym else fixed_B[k]
                    apical[k] = top_down.dot(rate[k + 1]) + now["PI", k].dot(inter[k])
                    dendrite[k] = now["IP", k].dot(rate[k])
            if tau_d is not None:
                for name, current in (("v_B", basal), ("v_A", apical), ("v_D", dendrite)):
                    for k in current:
                        held = now[name, k][s]
                        change[name, k][s] = (current[k] - held) / tau_d
                        current[k] = held
            for k in range(1, L + 1):
                soma = now["u", k][s]
                if k < L:
                    total = g["g_lk"] + g["g_B"] + g["g_A"]
                    change["u", k][s] = g["g_B"] * basal[k] + g["g_A"] * apical[k] - total * soma
                    predicted = share_hidden * basal[k]
                else:
                    total = g["g_lk"] + g["g_B"] + teach * g["g_som"]
                    change["u", k][s] = g["g_B"] * basal[k] + teach * g["g_som"] * u_target[s] - total * soma
                    predicted = share_output * basal[k]
                product["W", k] += np.outer(rate[k] - phi(predicted), rate[k - 1]) / samples
            for k in range(1, L):
                total = g["g_lk"] + g["g_D"] + g["g_som"]
                above = now["u", k + 1][s]
                soma = now["u_int", k][s]
                change["u_int", k][s] = g["g_D"] * dendrite[k] + g["g_som"] * above - total * soma
                product["IP", k] += np.outer(inter[k] - phi(share_inter * dendrite[k]), rate[k]) / samples
                product["PI", k] -= np.outer(apical[k], inter[k]) / samples
        if learn:
            for (name, k), value in product.items():
                if tau_w is None:
                    change[name, k] = rates[name, k] * value
                else:
                    filtered = now["D_" + name, k]
                    change[name, k] = rates[name, k] * filtered
                    change["D_" + name, k] = (value - filtered) / tau_w
        return np.concatenate([change[key].ravel() for key in layout])

    found = np.zeros((len(times), position))
    found[times == 0.0] = state
    begin = 0.0
    for seconds, teach in protocol:
        stop = min(begin + seconds, end)
        if begin + seconds >= end * (1 - 1e-12):
            stop = end
        wanted = (times > begin) & (times <= stop)
        solution = solve_ivp(
            rhs,
            (begin, stop),
            state,
            method="DOP853",
            t_eval=np.union1d(times[wanted], [stop]),
            args=(teach,),
            rtol=rtol,
            atol=atol,
        )
        if not solution.success:
            raise RuntimeError(solution.message)
        found[wanted] = solution.y.T[: np.sum(wanted)]
        state, begin = solution.y[:, -1], stop

    out = {"t": times}
    for (name, _), (where, shape) in layout.items():
        value = found[:, where].reshape(len(times), *shape)
        if name in ("W", "IP", "PI"):
            value = value.transpose(0, 2, 1)
        if name == "r_0":
            out["r_0"] = value
        elif name.startswith("D_"):
            out.setdefault("D", {}).setdefault(name[2:], []).append(value.transpose(0, 2, 1))
        else:
            out.setdefault(name, []).append(value)
    return out


def steady(W, B, IP, PI, x, u_target, g, *, teach=1.0, tol=1e-12):
    """Fixed point with the weights held and r_0 = x, by root finding, sample by sample.

    Returns a dict of lists by layer of (samples, n): u, u_int, r, r_int, v_B, v_A, v_D, rhat, rhat_int; and
    `residual`, the largest |du/dt| over the sum of the conductances (a potential).
    """
    W, B, IP, PI, x, n = _problem(W, B, IP, PI, x)
    L, H = len(W), len(W) - 1
    u_target = np.zeros((len(x), n[-1])) if u_target is None else _rows(u_target)
    att, att_int = attenuations(g, L)
    total_hidden = g["g_lk"] + g["g_B"] + g["g_A"]
    total_output = g["g_lk"] + g["g_B"] + teach * g["g_som"]
    total_inter = g["g_lk"] + g["g_D"] + g["g_som"]
    cuts = np.cumsum(n[1:] + n[2:])[:-1]

    def potentials(flat, stimulus, target):
        """Dendrites, and what the somata would settle to with these rates."""
        parts = np.split(flat, cuts)
        u, q = parts[:L], parts[L:]
        r = [stimulus] + [phi(v) for v in u]
        r_q = [phi(v) for v in q]
        v_B = [r[i] @ W[i] for i in range(L)]
        v_A = [r[i + 2] @ B[i] + r_q[i] @ PI[i] for i in range(H)]
        v_D = [r[i + 1] @ IP[i] for i in range(H)]
        goal = [(g["g_B"] * v_B[i] + g["g_A"] * v_A[i]) / total_hidden for i in range(H)]
        goal.append((g["g_B"] * v_B[-1] + teach * g["g_som"] * target) / total_output)
        goal += [(g["g_D"] * v_D[i] + g["g_som"] * u[i + 1]) / total_inter for i in range(H)]
        return u, q, r[1:], r_q, v_B, v_A, v_D, np.concatenate(goal)

    names = ("u", "u_int", "r", "r_int", "v_B", "v_A", "v_D")
    out = {name: [] for name in names}
    worst = 0.0
    for stimulus, target in zip(x, u_target, strict=True):
        forward = ann(W, stimulus, g)
        guess = np.concatenate([v[0] for v in forward["uhat"] + forward["uhat"][1:]])
        found = root(
            lambda flat, s=stimulus, t=target: potentials(flat, s, t)[-1] - flat, guess, method="hybr", tol=tol
        )
        *values, goal = potentials(found.x, stimulus, target)
        worst = max(worst, np.abs(goal - found.x).max())
        if worst > 1e-10:
            raise RuntimeError(f"no fixed point found: residual {worst:.1e}, {found.message}")
        for name, value in zip(names, values, strict=True):
            out[name].append(value)
    out = {name: [np.stack(by_layer) for by_layer in zip(*values, strict=True)] for name, values in out.items()}
    out["rhat"] = [phi(att[i] * out["v_B"][i]) for i in range(L)]
    out["rhat_int"] = [phi(att_int * v) for v in out["v_D"]]
    return out | {"residual": worst}


def ann(W, x, g):
    """The feedforward net that the circuit is in its self-predicting state: lists uhat, r, by layer."""
    att, _ = attenuations(g, len(W))
    below = _rows(x)
    out = {"uhat": [], "r": []}
    for factor, w in zip(att, W, strict=True):
        out["uhat"].append(factor * (below @ w))
        below = phi(out["uhat"][-1])
        out["r"].append(below)
    return out


def loss(W, x, u_target, g):
    """Mean over the samples of the summed D_KL(r_L || phi(u_target)) of two-valued variables, in nats.

    Its derivative with respect to r_L is logit r_L - u_target = -(u_target - uhat_L).
    """
    r = ann(W, x, g)["r"][-1]
    goal = phi(_rows(u_target))
    return np.mean(np.sum(r * np.log(r / goal) + (1.0 - r) * np.log((1.0 - r) / (1.0 - goal)), axis=1))


def deltas(W, x, u_target, g):
    """Backprop errors, minus the derivative of a sample's loss with respect to uhat_l: (samples, n_l), l = 1..L."""
    L = len(W)
    att, _ = attenuations(g, L)
    uhat = ann(W, x, g)["uhat"]
    errors = [None] * L
    errors[-1] = phi_slope(uhat[-1]) * (_rows(u_target) - uhat[-1])
    for i in reversed(range(L - 1)):
        errors[i] = phi_slope(uhat[i]) * (att[i + 1] * (errors[i + 1] @ np.asarray(W[i + 1]).T))
    return errors


def gradient(W, x, u_target, g):
    """Derivative of `loss` with respect to W_l (no minus sign), l = 1..L."""
    x = _rows(x)
    att, _ = attenuations(g, len(W))
    below = [x, *ann(W, x, g)["r"][:-1]]
    errors = deltas(W, x, u_target, g)
    return [-att[i] * (below[i].T @ errors[i]) / len(x) for i in range(len(W))]


def cosine(p, q):
    """Cosine of the angle between two arrays taken as vectors."""
    p, q = np.ravel(p), np.ravel(q)
    return float(p @ q / (np.linalg.norm(p) * np.linalg.norm(q)))


def random_weights(sizes, rng, init="uniform"):
    """W by layer: `uniform` on (-1, 1), or `glorot` uniform."""
    if init not in ("uniform", "glorot"):
        raise ValueError(f"init {init!r} is neither uniform nor glorot")
    bounds = [1.0 if init == "uniform" else np.sqrt(6.0 / (pre + post)) for pre, post in pairwise(sizes)]
    return [s * rng.uniform(-1.0, 1.0, shape) for s, shape in zip(bounds, pairwise(sizes), strict=True)]


def random_problem(sizes, samples, seed, init="uniform", spread=0.0):
    """W, B, x in (0, 1), one-hot y. `spread` 0: B is W^T; otherwise B is uniform on (-spread, spread)."""
    rng = np.random.default_rng(seed)
    W = random_weights(sizes, rng, init)
    B = [rng.uniform(-spread, spread, w.T.shape) if spread else w.T.copy() for w in W[1:]]
    x = rng.uniform(0.0, 1.0, (samples, sizes[0]))
    y = np.eye(sizes[-1])[rng.integers(0, sizes[-1], samples)]
    return W, B, x, y


def update(state, x):
    """Mean over the samples of r_{l-1}^T (r_l - rhat_l) in a fixed point: the W rule without its rate."""
    below = [_rows(x), *state["r"][:-1]]
    parts = zip(below, state["r"], state["rhat"], strict=True)
    return [pre.T @ (r - rhat) / len(pre) for pre, r, rhat in parts]


def _largest(p, q):
    return max(np.abs(a - b).max() for a, b in zip(p, q, strict=True))


def _check_gradient():
    print("backprop against central differences, 6-5-4-3: largest relative error by family")
    for name, g in (("standard", STANDARD), ("latent", LATENT)):
        W, _, x, y = random_problem((6, 5, 4, 3), 7, seed=1)
        u_target = target_potential(y)
        worst = 0.0
        for w, exact in zip(W, gradient(W, x, u_target, g), strict=True):
            numeric = np.zeros_like(w)
            for index in np.ndindex(w.shape):
                old = w[index]
                w[index] = old + 1e-5
                above = loss(W, x, u_target, g)
                w[index] = old - 1e-5
                below = loss(W, x, u_target, g)
                w[index] = old
                numeric[index] = (above - below) / 2e-5
            worst = max(worst, np.abs(numeric - exact).max() / np.abs(exact).max())
        print(f"  {name:9s} {worst:.1e}")
        r, goal = ann(W, x, g)["r"][-1], phi(u_target)
        slope = np.log(r / goal) - np.log((1 - r) / (1 - goal))
        print(
            f"  {name:9s} dC/dr_L + (u_target - uhat_L) {np.abs(slope + u_target - ann(W, x, g)['uhat'][-1]).max():.1e}"
        )


def _check_self_prediction():
    print("self-predicting state, 30-20-15-10, B random: steady without target; with target, all-zero residual")
    for name, g in (("standard", STANDARD), ("latent", LATENT)):
        W, B, x, y = random_problem((30, 20, 15, 10), 4, seed=2, spread=1.0)
        IP, PI = self_predicting(W, B, g)
        free = steady(W, B, IP, PI, x, None, g, teach=0.0)
        v_A = max(np.abs(v).max() for v in free["v_A"])
        copies = _largest(free["u_int"], free["u"][1:])
        print(f"  {name:9s} |v_A| {v_A:.1e}, u_int - u_above {copies:.1e}, ", end="")
        print(f"r - ann {_largest(free['r'], ann(W, x, g)['r']):.1e}, residual {free['residual']:.1e}, ", end="")
        print(f"with target {steady(W, B, IP, PI, x, target_potential(y), g)['residual']:.1e}")
        protocol = [(0.03, 0.0), (0.3, 1.0)]
        trial = euler(W, B, IP, PI, x, y, g, dt=1e-4, protocol=protocol)
        settled = steady(W, B, IP, PI, x, target_potential(y), g)
        last = [u[-1] for u in trial["u"] + trial["u_int"]]
        print(
            f"  {name:9s} Euler after 300 ms with target - steady {_largest(last, settled['u'] + settled['u_int']):.1e}"
        )
        transient = max(np.abs(v[:300]).max() for v in trial["v_A"])
        print(f"  {name:9s} largest |v_A| while the free state is reached from zero: {transient:.2e}")


def _check_order():
    print("Euler against DOP853, 5-4-3-2, 6 ms free + 10 ms with target: largest error over the whole path of")
    print("u and u_int, and of the weights at the end; dt 0.1 ms halved three times; orders")
    eta = {"eta_W": [40.0, 30.0, 20.0], "eta_IP": [30.0, 20.0], "eta_PI": [25.0, 15.0]}
    cases = {
        "weights held": {},
        "plastic": eta | {"learn": True},
        "plastic, sym": eta | {"learn": True, "sym": True},
        "plastic, tau_w": eta | {"learn": True, "tau_w": 5e-3},
        "all, tau_0, tau_d": eta | {"learn": True, "sym": True, "tau_w": 5e-3, "tau_0": 3e-3, "tau_d": 1e-3},
    }
    protocol = [(6e-3, 0.0), (10e-3, 1.0)]
    for name, options in cases.items():
        W, B, x, y = random_problem((5, 4, 3, 2), 3, seed=3, spread=1.0)
        rng = np.random.default_rng(4)
        IP, PI = self_predicting(W, B, STANDARD)
        IP = [w + 0.3 * rng.standard_normal(w.shape) for w in IP]
        PI = [w + 0.3 * rng.standard_normal(w.shape) for w in PI]
        path, end, moved = [], [], 0.0
        for dt in (1e-4, 5e-5, 2.5e-5, 1.25e-5):
            trial = euler(W, B, IP, PI, x, y, STANDARD, dt=dt, protocol=protocol, **options)
            every = round(1e-4 / dt)
            times = trial["t"][::every]
            truth = reference_solution(W, B, IP, PI, x, y, STANDARD, protocol=protocol, times=times, **options)
            pairs = zip(trial["u"] + trial["u_int"], truth["u"] + truth["u_int"], strict=True)
            path.append(max(np.abs(p[::every] - q).max() for p, q in pairs))
            after = trial["W"] + trial["IP"] + trial["PI"]
            end.append(_largest(after, [w[-1] for w in truth["W"] + truth["IP"] + truth["PI"]]))
            moved = _largest(after, W + IP + PI)
            if "tau_d" in options:
                dendrites = [(trial[key], truth[key]) for key in ("v_B", "v_A", "v_D")]
                gap = max(np.abs(a[::every] - b).max() for p, q in dendrites for a, b in zip(p, q, strict=True))
                gap = max(gap, np.abs(trial["r_0"][::every] - truth["r_0"]).max())
                path[-1] = max(path[-1], gap)
        orders = [" ".join(f"{np.log2(p / q):.3f}" if q else "-" for p, q in pairwise(e)) for e in (path, end)]
        print(f"  {name:18s} u {' '.join(f'{e:.1e}' for e in path)} ({orders[0]})")
        if options:
            print(f"  {'':18s} w {' '.join(f'{e:.1e}' for e in end)} ({orders[1]}), largest change {moved:.2f}")


def _check_noise():
    print("noise, all weights 0, no target: variances after 10 ms over those of the linear recursion")
    rng = np.random.default_rng(5)
    g, dt, sigma = STANDARD, 1e-4, 3.0
    W = [np.zeros((2, 2))] * 2
    x = np.zeros((500, 2))
    seen = []

    def normals(step, name, shape):
        seen.append((step, name, shape))
        return rng.standard_normal(shape)

    trial = euler(W, None, W[1:], W[1:], x, x, g, dt=dt, protocol=[(0.05, 0.0)], sigma=sigma, noise=normals)
    hidden, output, inter = g["g_lk"] + g["g_B"] + g["g_A"], g["g_lk"] + g["g_B"], g["g_lk"] + g["g_D"] + g["g_som"]
    A = np.eye(3) - dt * np.diag([hidden, output, inter])
    A[2, 1] = dt * g["g_som"]
    expected = np.diag(solve_discrete_lyapunov(A, sigma**2 * dt * np.eye(3)))
    found = [np.var(v[100:]) for v in (trial["u"][0], trial["u"][1], trial["u_int"][0])]
    print("  pyr1, pyr2, int1: " + " ".join(f"{p / q:.3f}" for p, q in zip(found, expected, strict=True)))
    print(f"  asked for, in the first step: {[name for step, name, _ in seen if step == 0]}")


def _check_prospective():
    print("prospective coding, latent conductances, self-predicting 30-20-15-10, dt 0.01 ms: ms until all output")
    print("rates stay within 1e-3 of the fixed point, free then with target; largest |v_A| in the free phase;")
    print("distance from the fixed point at the end")
    W, _, x, y = random_problem((30, 20, 15, 10), 4, seed=6)
    IP, PI = self_predicting(W, None, LATENT)
    free = steady(W, [w.T for w in W[1:]], IP, PI, x, None, LATENT, teach=0.0)
    taught = steady(W, [w.T for w in W[1:]], IP, PI, x, target_potential(y), LATENT)
    dt, half = 1e-5, 0.15
    for name, options in (
        ("plain", {}),
        ("rates", {"tau_eff": effective_time_constants(LATENT, 3)}),
        ("rates, teaching", {"tau_eff": effective_time_constants(LATENT, 3), "prospective_teaching": True}),
    ):
        trial = euler(W, None, IP, PI, x, y, LATENT, dt=dt, protocol=[(half, 0.0), (half, 1.0)], sym=True, **options)
        middle = round(half / dt)
        shown = []
        for part, goal in ((slice(0, middle), free), (slice(middle, None), taught)):
            late = np.abs(trial["r"][-1][part] - goal["r"][-1]).max(axis=(1, 2)) > 1e-3
            shown.append(f"{1e3 * dt * (1 + np.flatnonzero(late).max()):.2f}")
        v_A = max(np.abs(v[:middle]).max() for v in trial["v_A"])
        gap = _largest([u[-1] for u in trial["u"]], taught["u"])
        print(f"  {name:16s} {' '.join(shown)} ms, |v_A| {v_A:.1e}, {gap:.1e}")


def _check_alignment():
    print("W rule at the fixed point with target against minus the gradient, 30-20-15-10, sym, self-predicting,")
    print("16 samples x in (0, 1), u_target -1 or 1 (one-hot): mean cosine by layer over 3 seeds, (standard")
    print("deviation over seeds), |update| / |gradient| by layer, and that over its first-order value")
    levels = [(f"g_A = g_som = {a}", STANDARD | {"g_A": 1e3 * a, "g_som": 1e3 * a}) for a in (0.8, 0.4, 0.1, 0.01)]
    for init in ("uniform", "glorot"):
        for name, g in [*levels, ("latent", LATENT)]:
            total = g["g_lk"] + g["g_B"]
            out, hidden = g["g_som"] / (total + g["g_som"]), g["g_A"] / (total + g["g_A"])
            inter = (g["g_lk"] + g["g_D"]) / (g["g_lk"] + g["g_D"] + g["g_som"])
            att, _ = attenuations(g, 3)
            expected = []
            for k in range(3):  # first order: factor of the delta in layer k+1 over att of its gradient
                factor = out
                for above in range(2, k, -1):
                    factor *= hidden * inter / att[above]
                expected.append(factor / att[k])
            cosines, norms = [], []
            for seed in range(3):
                W, B, x, y = random_problem((30, 20, 15, 10), 16, seed, init)
                IP, PI = self_predicting(W, B, g)
                found = update(steady(W, B, IP, PI, x, target_potential(y), g), x)
                exact = gradient(W, x, target_potential(y), g)
                cosines.append([cosine(p, -q) for p, q in zip(found, exact, strict=True)])
                norms.append([np.linalg.norm(p) / np.linalg.norm(q) for p, q in zip(found, exact, strict=True)])
            mean, spread, size = np.mean(cosines, axis=0), np.std(cosines, axis=0), np.mean(norms, axis=0)
            print(f"  {init:8s} {name:19s}" + " ".join(f"{c:.5f}" for c in mean), end=" (")
            print(" ".join(f"{c:.4f}" for c in spread) + "), " + " ".join(f"{c:.2e}" for c in size), end=", ")
            print(" ".join(f"{p / q:.3f}" for p, q in zip(size, expected, strict=True)))


if __name__ == "__main__":
    _check_gradient()
    _check_self_prediction()
    _check_order()
    _check_noise()
    _check_prospective()
    _check_alignment()
