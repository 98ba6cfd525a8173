"""Independent oracle for the spiking three-compartment pyramidal cell with BAC firing.

Written from the paper note alone, in plain NumPy, without reading the framework. Units: ms, mV, pA, nS, pF.

    C_s dV_s/dt = g_Ls (E_L - V_s) + g_Ls D_T exp((V_s - V_T)/D_T) - w + g_sb (V_b - V_s) + g_sa (V_a - V_s) + I_s
    tau_w dw/dt = a (V_s - E_L) - w
    C_b dV_b/dt = g_Lb (E_L - V_b) + g_sb (V_s - V_b) + g_N n(V_b) s_N (E_N - V_b) + I_b
    C_a dV_a/dt = g_La (E_L - V_a) + g_sa (V_s - V_a) + g_Ca m (E_Ca - V_a) + g_K k (E_K - V_a) + I_bAP box + I_a
    tau_m dm/dt = m_inf(V_a) - m,  tau_k dk/dt = k_inf(V_a) - k,  m_inf, k_inf, n logistic

One Euler step of Brian2, at t = step dt: all states advance with values (and currents, and the box) at t;
dV_s/dt counts only for cells that are not refractory, t - lastspike >= refractory in whole (rounded) steps; then
cells with V_s > V_cut that were not refractory in this step spike: lastspike = t, V_s = V_reset, w += b.
The box is on while delay < t - lastspike < delay + width.
"""

import numpy as np
from scipy.optimize import root

PARAMETERS = {
    "C_s": 200.0, "C_b": 60.0, "C_a": 120.0,
    "g_Ls": 12.0, "g_Lb": 4.0, "g_La": 6.0, "g_sb": 25.0, "g_sa": 16.0, "g_Ca": 35.0, "g_K": 40.0, "g_N": 6.0,
    "E_L": -70.0, "E_Ca": 60.0, "E_K": -90.0, "E_N": 0.0, "V_T": -50.0, "D_T": 2.0,
    "a": 1.0, "b": 15.0, "tau_w": 100.0, "V_cut": -30.0, "V_reset": -60.0, "refractory": 2.0,
    "m_half": -28.0, "m_slope": 4.0, "tau_m": 2.0, "k_half": -30.0, "k_slope": 4.0, "tau_k": 30.0,
    "n_half": -40.0, "n_slope": 5.0,
    "I_bAP": 2600.0, "delay": 0.5, "width": 1.5,
}  # fmt: skip
STATES = ("V_s", "V_b", "V_a", "w", "m", "k")
LONG_AGO = -1e7  # ms, the first lastspike


def logistic(v, half, slope):
    return 1.0 / (1.0 + np.exp(-(v - half) / slope))


def step_current(onset, duration, amplitude):
    """On for onset <= t < onset + duration, the edges to within a rounding error."""
    return lambda t: amplitude * ((t > onset - 1e-9) & (t < onset + duration - 1e-9))


def epsc(onset, peak, rise=1.0, decay=8.0):
    """Difference of two exponentials, of the given peak."""
    top = np.log(decay / rise) * rise * decay / (decay - rise)
    norm = np.exp(-top / decay) - np.exp(-top / rise)

    def current(t):
        s = np.maximum(t - onset, 0.0)
        return peak / norm * (np.exp(-s / decay) - np.exp(-s / rise))

    return current


def derivatives(state, I_s, I_b, I_a, s_N=0.0, box=0.0, parameters=None):
    """d/dt of the six states, as a dict, refractoriness apart."""
    p = PARAMETERS | (parameters or {})
    V_s, V_b, V_a, w, m, k = (state[name] for name in STATES)
    soma = p["g_Ls"] * (p["E_L"] - V_s) + p["g_Ls"] * p["D_T"] * np.exp((V_s - p["V_T"]) / p["D_T"]) - w
    soma = soma + p["g_sb"] * (V_b - V_s) + p["g_sa"] * (V_a - V_s) + I_s
    n = logistic(V_b, p["n_half"], p["n_slope"])
    basal = p["g_Lb"] * (p["E_L"] - V_b) + p["g_sb"] * (V_s - V_b) + p["g_N"] * n * s_N * (p["E_N"] - V_b) + I_b
    apical = p["g_La"] * (p["E_L"] - V_a) + p["g_sa"] * (V_s - V_a) + p["g_Ca"] * m * (p["E_Ca"] - V_a)
    apical = apical + p["g_K"] * k * (p["E_K"] - V_a) + p["I_bAP"] * box + I_a
    return {
        "V_s": soma / p["C_s"],
        "V_b": basal / p["C_b"],
        "V_a": apical / p["C_a"],
        "w": (p["a"] * (V_s - p["E_L"]) - w) / p["tau_w"],
        "m": (logistic(V_a, p["m_half"], p["m_slope"]) - m) / p["tau_m"],
        "k": (logistic(V_a, p["k_half"], p["k_slope"]) - k) / p["tau_k"],
    }


def leak_state(parameters=None):
    """All compartments at E_L, w 0, gates at their steady values there."""
    p = PARAMETERS | (parameters or {})
    E_L = p["E_L"]
    gates = {name: logistic(E_L, p[name + "_half"], p[name + "_slope"]) for name in ("m", "k")}
    return {"V_s": E_L, "V_b": E_L, "V_a": E_L, "w": 0.0 * E_L} | gates


def resting_state(s_N=0.0, parameters=None):
    """Fixed point without currents, for scalar parameters."""

    def flow(values):
        rates = derivatives(dict(zip(STATES, values, strict=True)), 0.0, 0.0, 0.0, s_N, 0.0, parameters)
        return [rates[name] for name in STATES]

    start = leak_state(parameters)
    found = root(flow, [start[name] for name in STATES], method="hybr", tol=1e-13)
    if np.abs(flow(found.x)).max() > 1e-11:
        raise RuntimeError(found.message)
    return dict(zip(STATES, (float(v) for v in found.x), strict=True))


def simulate(
    duration, *, dt=0.05, I_s=None, I_b=None, I_a=None, s_N=0.0, cells=1, start=None, parameters=None, box="steps"
):
    """Run from t = 0; currents are functions of t (ms) that return pA, one number or one per cell.

    `start`: dict of the six states (default `leak_state`). `parameters` may hold arrays, one value per cell.
    `box`: "steps" compares whole steps, so that an edge on the grid is excluded exactly; "float" compares
    float64 times in seconds, as delay < t - lastspike < delay + width, or "sum" as lastspike + delay < t <
    lastspike + delay + width: there an edge on the grid may fall on either side. "closed": whole steps, with
    the upper edge included, delay < t - lastspike <= delay + width (the reading that gives the note's table).

    Returns a dict: t (steps+1), the six states (steps+1, cells) before the step at t, and spikes, a list of
    arrays of spike times by cell. The trace at the index after a spike holds V_reset.
    """
    if box not in ("steps", "closed", "float", "sum"):
        raise ValueError(f"box {box!r} is not steps, closed, float or sum")
    p = PARAMETERS | (parameters or {})
    steps = round(duration / dt)
    silent = np.zeros(cells)
    start = leak_state(parameters) if start is None else start
    state = {name: silent + start[name] for name in STATES}
    traces = {name: np.empty((steps + 1, cells)) for name in STATES}
    last = np.full(cells, round(LONG_AGO / dt))
    refractory = np.rint(silent + p["refractory"] / dt).astype(int)
    on, off = p["delay"] / dt, (p["delay"] + p["width"]) / dt
    spikes = [[] for _ in range(cells)]

    for step in range(steps):
        t = step * dt
        for name in STATES:
            traces[name][step] = state[name]
        since = step - last
        awake = since >= refractory
        if box in ("steps", "closed"):
            back = (since > on + 1e-6) & (since < off + (1e-6 if box == "closed" else -1e-6))
        else:
            now, then, delay, width = step * (dt * 1e-3), last * (dt * 1e-3), p["delay"] * 1e-3, p["width"] * 1e-3
            if box == "float":
                back = (now - then > delay) & (now - then < delay + width)
            else:
                back = (now > then + delay) & (now < then + delay + width)
        currents = [silent if current is None else current(t) for current in (I_s, I_b, I_a)]
        change = derivatives(state, *currents, s_N, back, parameters)
        change["V_s"] = change["V_s"] * awake
        state = {name: state[name] + dt * change[name] for name in STATES}

        fired = (state["V_s"] > p["V_cut"]) & awake
        last = np.where(fired, step, last)
        state["V_s"] = np.where(fired, p["V_reset"], state["V_s"])
        state["w"] = np.where(fired, state["w"] + p["b"], state["w"])
        for cell in np.flatnonzero(fired):
            spikes[cell].append(t)

    for name in STATES:
        traces[name][steps] = state[name]
    return traces | {"t": dt * np.arange(steps + 1), "spikes": [np.array(times) for times in spikes]}


def time_above(trial, level=-40.0, name="V_a"):
    """Time with the state above a level, by cell: number of grid points times dt."""
    dt = trial["t"][1] - trial["t"][0]
    return dt * np.sum(trial[name] > level, axis=0)


# Onsets that give the note's table. The step is on for 60 <= t < 65.
SOMA_ONSET, EPSC_ONSET = 60.0, 65.0
NOTE = {
    "soma": ([65.0], -33.6, 2.5),
    "weak EPSC": ([], -52.6, 0.0),
    "both": ([65.0, 75.4, 83.8, 95.7], 23.0, 46.0),
    "strong EPSC": ([74.8, 81.4, 90.4, 105.2], 39.0, 50.0),
}


def protocol(name, soma_onset=SOMA_ONSET, epsc_onset=EPSC_ONSET):
    """Currents of a row of the note's table, as keywords of `simulate`."""
    soma, weak, strong = step_current(soma_onset, 5.0, 1700.0), epsc(epsc_onset, 600.0), epsc(epsc_onset, 2600.0)
    currents = {
        "soma": {"I_s": soma},
        "weak EPSC": {"I_a": weak},
        "both": {"I_s": soma, "I_a": weak},
        "strong EPSC": {"I_a": strong},
    }
    return currents[name]


def _show(trial, cell=0):
    spikes = " ".join(f"{s:.2f}" for s in trial["spikes"][cell]) or "none"
    return f"{spikes} | peak {trial['V_a'][:, cell].max():.2f} mV | {time_above(trial)[cell]:.2f} ms"


def _check_rest():
    print("resting state, and the slowest time constants around it")
    for s_N in (0.0, 1.0):
        rest = resting_state(s_N)
        print(f"  s_N {s_N:.0f}: " + ", ".join(f"{name} {value:.6g}" for name, value in rest.items()))
        at = np.array([rest[name] for name in STATES])
        jacobian = np.empty((6, 6))
        for i in range(6):
            h = 1e-6 * max(1.0, abs(at[i])) if i < 4 else 1e-9
            ends = []
            for sign in (1.0, -1.0):
                moved = dict(zip(STATES, at + sign * h * np.eye(6)[i], strict=True))
                rates = derivatives(moved, 0.0, 0.0, 0.0, s_N)
                ends.append(np.array([rates[name] for name in STATES]))
            jacobian[:, i] = (ends[0] - ends[1]) / (2 * h)
        eigenvalues = np.linalg.eigvals(jacobian)
        print(
            f"    time constants (ms): {' '.join(f'{-1 / e.real:.2f}' for e in sorted(eigenvalues, key=lambda e: -e.real))}"
        )
        trial = simulate(2000.0, s_N=s_N)
        gap = np.max([np.abs(trial[name][:, 0] - rest[name]) for name in ("V_s", "V_b", "V_a")], axis=0)
        slow = np.abs(trial["w"][:, 0] - rest["w"])
        times = [
            f"{level:g} after {0.05 * (1 + np.flatnonzero(gap > level).max(initial=-1)):.0f}"
            for level in (1e-2, 1e-3, 1e-6, 1e-9)
        ]
        print(f"    from E_L: |V - rest| within (mV) {', '.join(times)} ms; |w - rest| at 1 s {slow[20000]:.1e} pA")
        fixed = simulate(500.0, s_N=s_N, start=rest)
        print(f"    started at rest, 500 ms: largest move of V {max(np.ptp(fixed[n]) for n in STATES[:3]):.1e} mV")


def _check_table():
    print(f"table, step from {SOMA_ONSET:g} ms (5 ms), EPSC from {EPSC_ONSET:g} ms, 200 ms; note's figures first")
    for name, (spikes, peak, above) in NOTE.items():
        print(f"  {name:12s} note: {' '.join(str(s) for s in spikes) or 'none'} | {peak} mV | {above} ms")
        for box in ("closed", "steps", "float", "sum"):
            print(f"  {'':12s} {box:7s} {_show(simulate(200.0, box=box, **protocol(name)))}")
    print("both, other onsets, box closed")
    for soma_onset, epsc_onset in ((59.95, 65), (60.05, 65), (60, 60), (60, 64), (60, 64.95), (60, 65.05), (60, 66)):
        trial = simulate(200.0, box="closed", **protocol("both", soma_onset, epsc_onset))
        print(f"  step {soma_onset:5.2f} EPSC {epsc_onset:5.2f}: {_show(trial)}")


def _check_start_and_dt():
    print("both, box steps: start at rest; started 500 ms earlier; dt; s_N 1")
    print(f"  at rest   {_show(simulate(200.0, start=resting_state(), **protocol('both')))}")
    trial = simulate(700.0, **protocol("both", SOMA_ONSET + 500, EPSC_ONSET + 500))
    trial["spikes"] = [times - 500 for times in trial["spikes"]]
    print(f"  later     {_show(trial)}")
    for dt in (0.1, 0.05, 0.025, 0.0125, 0.00625):
        for name in ("both", "strong EPSC"):
            print(f"  dt {dt:<7g} {name:12s} {_show(simulate(200.0, dt=dt, **protocol(name)))}")
    for s_N in (0.0, 1.0):
        for name in NOTE:
            print(f"  s_N {s_N:.0f} {name:12s} {_show(simulate(200.0, s_N=s_N, **protocol(name)))}")
    for s_N in (0.0, 1.0):
        trial = simulate(200.0, s_N=s_N, I_b=epsc(65.0, 600.0), start=resting_state(s_N))
        print(f"  s_N {s_N:.0f} basal EPSC 600 pA: {_show(trial)}; peak V_b {trial['V_b'].max():.2f}")


def _check_coincidence():
    print("both, box steps: spikes by EPSC onset minus step onset, one cell each")
    lags = np.array(
        [-100, -60, -40, -30, -20, -15, -10, -5, 0, 2, 5, 7, 8, 9, 10, 12, 15, 20, 30, 40, 60, 100], dtype=float
    )
    soma = step_current(160.0, 5.0, 1700.0)
    trial = simulate(400.0, cells=len(lags), I_s=soma, I_a=epsc(160.0 + lags, 600.0))
    for cell, lag in enumerate(lags):
        shifted = trial | {"spikes": [times - 100 for times in trial["spikes"]]}
        print(f"  {lag:+5.0f} ms: {_show(shifted, cell)}")
    print("100 ms apart, onsets 60 and 165 or 160 and 65")
    print(f"  step first {_show(simulate(300.0, **protocol('both', 60.0, 165.0)))}")
    print(f"  EPSC first {_show(simulate(300.0, **protocol('both', 160.0, 65.0)))}")
    alone = simulate(300.0, **protocol("soma", 160.0))
    print(f"  step alone at 160: {_show(alone)}")


def _check_vectors():
    names = list(NOTE)
    alone = [simulate(150.0, **protocol(name)) for name in names]
    soma, peaks = step_current(SOMA_ONSET, 5.0, 1700.0), np.array([0.0, 600.0, 600.0, 2600.0])
    on = np.array([1.0, 0.0, 1.0, 0.0])
    trial = simulate(150.0, cells=4, I_s=lambda t: on * soma(t), I_a=epsc(EPSC_ONSET, peaks))
    gap = max(np.abs(trial[n][:, c] - alone[c][n][:, 0]).max() for n in STATES for c in range(4))
    print(f"four cells at once against one at a time: {gap:.1e}")


if __name__ == "__main__":
    _check_rest()
    _check_table()
    _check_start_and_dt()
    _check_coincidence()
    _check_vectors()
