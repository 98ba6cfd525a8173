"""The parts library against closed forms, SciPy and plain NumPy loops written here from the equations in its docstrings.

Nothing below reads the parts' own text: conductances, resting potential and scale are written down again, so that a change of
a constant or of an equation fails a test.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import cycle

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from neurosim import (
    SOURCE,
    Cell,
    Circuit,
    Constant,
    Fragment,
    Given,
    Like,
    OneToOne,
    Phase,
    PlasticityRule,
    Population,
    Projection,
    Protocol,
    simulate,
)
from neurosim.equations import parse_cell
from neurosim.errors import CircuitError, NeurosimError
from neurosim.parts import (
    TRANSFER,
    current_step,
    divisive_normalisation,
    epsc,
    low_pass_input,
    noisy,
    output_pyramidal,
    prospective,
    pyramidal,
    sst_interneuron,
    transfer,
)

LEVELS = ("brian2:equations", "brian2:dense", "torch:trajectory")
LK, GB, GA, GD, SOM = 0.1, 1.0, 0.8, 1.0, 0.8  # 1/ms
TAU_0 = 3.0  # ms
E_L, V_0 = -0.07, 0.01  # V
PHI = {
    "logistic": lambda u: 1 / (1 + np.exp(-u)),
    "tanh": np.tanh,
    "hard_sigmoid": lambda u: np.minimum(np.maximum(u, 0), 1),
    "relu": lambda u: np.maximum(u, 0),
    "softplus": lambda u: np.log(1 + np.exp(u)),
    "soft_relu": lambda u: 0.1 * np.log(1 + np.exp(u - 3)),
    "linear": lambda u: u,
    "elu": lambda u: np.where(u > 0, u, np.exp(np.minimum(u, 0)) - 1),
    "shifted_logistic": lambda u: np.tanh(u / 2),
    "shifted_softplus": lambda u: np.log(1 + np.exp(u)) - np.log(2),
}
X = np.array([[0.9, 0.2, 0.6], [0.1, 0.7, 1.0]])  # two samples
Y = np.array([[0.8, 0.1], [0.3, 1.0]])


def drawn(*shape: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).uniform(-scale, scale, shape)


@dataclass(frozen=True)
class Form:
    """One way to write the cells, and how its numbers read."""

    units: str = "dimensionless"
    dendrites: tuple[str | None, float] = (None, 0.0)
    teaching: str = "current"
    transfer: str = "logistic"

    @property
    def keywords(self) -> dict:
        return {
            "transfer": self.transfer,
            "units": self.units,
            "tau_dendrite": self.dendrites[0],
            "back": self.dendrites[1],
        }

    def pyramidal(self, **kwargs) -> Cell:
        return pyramidal(**self.keywords, **kwargs)

    def interneuron(self, **kwargs) -> Cell:
        return sst_interneuron(**self.keywords, **kwargs)

    def output(self, **kwargs) -> Cell:
        return output_pyramidal(**self.keywords, teaching=self.teaching, **kwargs)

    def number(self, potential: np.ndarray) -> np.ndarray:
        return (potential - E_L) / V_0 if self.units == "physical" else potential

    def __str__(self) -> str:
        tau, back = self.dendrites
        dendrite = "instant" if tau is None else f"back{back}" if back else "slow"
        return f"{self.units[:4]}-{dendrite}-{self.teaching[:4]}-{self.transfer}"


DENDRITES = ((None, 0.0), ("2*ms", 0.0), ("2*ms", 0.3))
_transfers = cycle(TRANSFER)
FORMS = [
    Form(units, dendrites, teaching, next(_transfers))
    for units in ("dimensionless", "physical")
    for dendrites in DENDRITES
    for teaching in ("current", "conductance")
] + [Form("physical", (None, 0.0), "current", name) for name in ("hard_sigmoid", "relu")]
every_form = pytest.mark.parametrize("form", FORMS, ids=str)


def wire(name: str, source: str, target: str, values: np.ndarray, **kwargs) -> Projection:
    return Projection(name, source, target, Given(values), **kwargs)


W_B, W_A, W_O, W_D = (drawn(3, n, seed=s) for n, s in ((3, 1), (3, 2), (2, 3), (2, 4)))


def bench(form: Form, duration: str = "100*ms", low_high: tuple[float, float] = (-0.7, 1.3), **conductances: float):
    """Every rate cell, driven by the input alone (the interneuron by its partner as well): each has a closed form."""
    known = conductances or None
    populations = (
        Population("inp", 3, SOURCE),
        Population("pyr", 3, form.pyramidal(conductances=known)),
        Population("norm", 3, divisive_normalisation(form.pyramidal(conductances=known), 0.7)),
        Population("out", 2, form.output(target=low_high, conductances=known)),
        Population("sst", 2, form.interneuron(conductances=known)),
        Population("low", 3, low_pass_input()),
    )
    projections = (
        wire("B", "inp", "pyr.I_basal", W_B),
        wire("A", "inp", "pyr.I_apical", W_A),
        wire("NB", "inp", "norm.I_basal", W_B),
        wire("NA", "inp", "norm.I_apical", W_A),
        wire("O", "inp", "out.I_basal", W_O),
        wire("D", "inp", "sst.I_dend", W_D),
        Projection("partner", "out.u", "sst.u_partner", connectivity=OneToOne()),
    )
    clamps = {"inp.r": "image", "low.x": "image", "out.y": "target"}
    phases = (Phase("free", duration), Phase("taught", duration, shared={"teach": 1}))
    return Circuit("bench", Fragment(populations, projections), Protocol(phases, clamps, {"teach": 0}))


def settled(form: Form, teach: int, low_high=(-0.7, 1.3), lk=LK, gb=GB, ga=GA, gd=GD, som=SOM) -> dict[str, np.ndarray]:
    """The fixed point of `bench`, solved by hand, potentials relative to rest in units of v_0.

    A slow dendrite settles at v = (I + b u)/(1 + b), an instantaneous one at v = I, which is b = 0. Put into
    0 = -g_lk u + g (v - u) and multiplied by 1 + b: u (g_lk (1 + b) + g) = g I; a teaching current g_som (t - u) adds
    (1 + b) g_som t on the right and (1 + b) g_som u on the left.
    """
    b, phi = form.dendrites[1], PHI[form.transfer]
    basal, apical, output, dendrite = X @ W_B, X @ W_A, X @ W_O, X @ W_D
    u = (gb * basal + ga * apical) / (lk * (1 + b) + gb + ga)
    v_b, v_a = (basal + b * u) / (1 + b), (apical + b * u) / (1 + b)
    target = low_high[0] + (low_high[1] - low_high[0]) * Y
    top = (gb * output + teach * (1 + b) * som * target) / ((lk + teach * som) * (1 + b) + gb)
    v_top = (output + b * top) / (1 + b)
    inter = (gd * dendrite + (1 + b) * som * top) / ((lk + som) * (1 + b) + gd)
    v_inter = (dendrite + b * inter) / (1 + b)
    rho = phi(u)
    return {
        "pyr.u": u, "pyr.v_B": v_b, "pyr.v_A": v_a, "pyr.r": rho, "pyr.r_hat": phi(gb / (lk + gb + ga) * v_b),
        "norm.u": u, "norm.rate_before": rho, "norm.r": rho / (0.7 + rho.sum(1, keepdims=True)),
        "norm.r_hat": phi(gb / (lk + gb + ga) * v_b),
        "out.u": top, "out.v_B": v_top, "out.u_target": target, "out.r": phi(top),
        "out.r_hat": phi(gb / (lk + gb) * v_top),
        "sst.u": inter, "sst.v_D": v_inter, "sst.r": phi(inter), "sst.r_hat": phi(gd / (lk + gd) * v_inter),
        "low.r": X,
    }  # fmt: skip


POTENTIALS = ("u", "v_B", "v_A", "v_D", "u_target")


def assert_settled(form: Form, ends: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    for name, value in expected.items():
        got = ends[name]
        if name.partition(".")[2] in POTENTIALS:
            got = form.number(got)
        np.testing.assert_allclose(got, value, rtol=0, atol=1e-9, err_msg=name)


# ------------------------------------------------------------------ steady states


@every_form
@pytest.mark.parametrize("level", ["torch:steady", "torch:trajectory"])
def test_steady_state_of_every_rate_cell(form, level):
    result = simulate(bench(form), X, Y, level=level, dt="0.5*ms", batch_size=2, progress=False)
    assert result.unsettled == 0
    assert_settled(form, result.ends["free"], settled(form, 0))
    assert_settled(form, result.ends["taught"], settled(form, 1))


@pytest.mark.parametrize("units", ["dimensionless", "physical"])
def test_other_conductances(units):
    form = Form(units, ("2*ms", 0.3), "conductance", "tanh")
    values = {"g_lk": 0.25, "g_B": 0.7, "g_A": 0.4, "g_D": 0.9, "g_som": 0.35}
    result = simulate(bench(form, **values), X, Y, level="torch:steady", batch_size=2, progress=False)
    assert_settled(form, result.ends["taught"], settled(form, 1, (-0.7, 1.3), *values.values()))


@pytest.mark.parametrize("level", ["brian2:equations", "brian2:dense"])
def test_steady_state_at_the_end_of_a_brian2_trajectory(level):
    form = Form("physical", ("2*ms", 0.3), "conductance", "softplus")
    result = simulate(bench(form, "80*ms"), X, Y, level=level, dt="0.5*ms", progress=False)
    assert_settled(form, result.ends["taught"], settled(form, 1))


def test_the_default_target_potentials_are_minus_one_and_one():
    circuit = bench(Form(), "20*ms", low_high=(-1.0, 1.0))
    default = replace(
        circuit,
        fragment=Fragment(
            tuple(replace(p, cell=output_pyramidal()) if p.name == "out" else p for p in circuit.populations),
            circuit.projections,
        ),
    )
    ends = simulate(default, X, Y, level="torch:steady", progress=False).ends["taught"]
    np.testing.assert_allclose(ends["out.u"], settled(Form(), 1, (-1.0, 1.0))["out.u"], rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", TRANSFER)
def test_transfer_functions(name):
    u = np.array([-3.1, -0.4, 0.0, 0.3, 0.8, 1.7])
    cell = Cell("probe", f"r = {transfer(name, 'x')} : 1\nx : 1 (input)")
    doubled = Cell("probe", f"r = {transfer(name, 'x - 2*z')} : 1\nx : 1 (input)\nz : 1 (input)")
    for tested, argument in ((cell, u), (doubled, -u)):  # an expression goes in as a whole
        protocol = Protocol(
            (Phase("p", "1*ms"),), {f"q.{n}": "image" for n in parse_cell(tested.equations, "probe").inputs}
        )
        circuit = Circuit("t", [Population("q", 6, tested)], protocol)
        result = simulate(circuit, u[None], level="torch:trajectory", progress=False)
        np.testing.assert_allclose(result.ends["p"]["q.r"][0], PHI[name](argument), rtol=1e-14, atol=1e-15)


# ------------------------------------------------------------------ twins: units, teaching


def network(form: Form, wrap=lambda cell: cell, rules: bool = False) -> Circuit:
    """input -> low-pass -> pyramidal <-> interneuron, output; closed loops, optionally plastic."""
    predict, silence = (
        PlasticityRule(name, text, {"eta": "0.05/ms"}, filter="3*ms") if rules else None
        for name, text in (
            ("predict", "dw/dt = eta*(r_post - r_hat_post)*r_pre"),
            ("silence", "dw/dt = eta*(0.5 - r_post)*r_pre"),
        )
    )
    populations = (
        Population("low", 3, low_pass_input()),
        Population("pyr", 3, wrap(form.pyramidal())),
        Population("sst", 2, wrap(form.interneuron())),
        Population("out", 2, wrap(form.output())),
    )
    projections = (
        wire("W1", "low", "pyr.I_basal", drawn(3, 3, seed=5, scale=1.5), rule=predict),
        wire("W2", "pyr", "out.I_basal", drawn(3, 2, seed=6, scale=1.5), rule=predict),
        wire("B", "out", "pyr.I_apical", drawn(2, 3, seed=7)),
        wire("IP", "pyr", "sst.I_dend", drawn(3, 2, seed=8), rule=predict),
        Projection("PI", "sst", "pyr.I_apical", Like("B", factor=-1.0), silence),
        Projection("teach", "out.u", "sst.u_partner", connectivity=OneToOne()),
    )
    plastic = ("predict", "silence") if rules else ()
    phases = (Phase("free", "8*ms", plastic=plastic), Phase("taught", "8*ms", shared={"teach": 1}, plastic=plastic))
    return Circuit(
        "net", Fragment(populations, projections), Protocol(phases, {"low.x": "image", "out.y": "target"}, {"teach": 0})
    )


def ahead_by(cell: Cell, time: str) -> Cell:
    """Prospective with a time constant of its own; tau_eff is text in the names of the cell."""
    return prospective(replace(cell, parameters={**cell.parameters, "tau_ahead": time}), "tau_ahead")


RATES = [f"{p}.{v}" for p in ("pyr", "sst", "out") for v in ("r", "r_hat")]
VOLTS = ["pyr.u", "pyr.v_B", "pyr.v_A", "sst.u", "sst.v_D", "out.u", "out.v_B", "out.u_target"]


def trajectory(circuit: Circuit, record: list[str], level: str = "torch:trajectory", **kwargs):
    kwargs = {"dt": "0.2*ms", "progress": False, "batch_size": 1 if level == "brian2:equations" else 2, **kwargs}
    return simulate(circuit, X, Y, level=level, record=record, **kwargs)


def flat(traces, name: str, samples: int = 2) -> np.ndarray:
    """(steps of a trial, samples, cells), whether the samples ran at once or one after another."""
    value = traces[name]
    if value.shape[1] == samples:
        return value
    return np.moveaxis(value[:, 0].reshape(samples, -1, value.shape[2]), 0, 1)


@pytest.mark.parametrize("rules", [False, True], ids=["fixed", "plastic"])
@pytest.mark.parametrize("form", [f for f in FORMS if f.units == "physical"], ids=str)
def test_physical_units_change_no_number(form, rules):
    plain = trajectory(network(replace(form, units="dimensionless"), rules=rules), RATES + VOLTS)
    volts = trajectory(network(form, rules=rules), RATES + VOLTS)
    for name in RATES:
        np.testing.assert_allclose(volts.traces[name], plain.traces[name], rtol=0, atol=1e-12, err_msg=name)
        assert np.ptp(plain.traces[name]) > 1e-3, name
    for name in VOLTS:
        expected = E_L + V_0 * plain.traces[name]
        np.testing.assert_allclose(volts.traces[name], expected, rtol=0, atol=1e-12 * V_0, err_msg=name)
        assert volts.traces.units[name] == "volt" and plain.traces.units[name] == "1"
    for name in plain.weights:
        np.testing.assert_allclose(volts.weights[name], plain.weights[name], rtol=0, atol=1e-12)


@pytest.mark.parametrize("units", ["dimensionless", "physical"])
@pytest.mark.parametrize("dendrites", DENDRITES, ids=["instant", "slow", "back"])
def test_conductance_teaching_is_current_teaching(units, dendrites):
    current, conductance = (network(Form(units, dendrites, t, "softplus")) for t in ("current", "conductance"))
    a, b = (
        trajectory(current, [*RATES, *VOLTS, "out.i_teach"]),
        trajectory(conductance, [*RATES, *VOLTS, "out.i_teach"]),
    )
    for name in (*RATES, *VOLTS):
        np.testing.assert_allclose(b.traces[name], a.traces[name], rtol=0, atol=1e-12, err_msg=name)
    scale = 1e-9 * 0.1 if units == "physical" else 1e3  # nS * mV, 1/ms
    np.testing.assert_allclose(b.traces["out.i_teach"], a.traces["out.i_teach"], rtol=0, atol=1e-12 * scale)
    free = trajectory(current, ["out.u"], plasticity="off").traces["out.u"]
    assert np.abs(free[-1] - free[39]).max() > 1e-3 * (V_0 if units == "physical" else 1)  # the teacher does act


@pytest.mark.parametrize("units", ["dimensionless", "physical"])
def test_teaching_conductances(units):
    """g_exc + g_inh = g_som, and g_exc E_exc + g_inh E_inh = g_som u_target, with E = +-1 relative to rest."""
    form = Form(units, teaching="conductance")
    result = trajectory(network(form), ["out.g_exc", "out.g_inh", "out.u_target"])
    siemens = 100e-12 * 1e3 if units == "physical" else 1e3  # C_m in F times 1/ms
    excitatory, inhibitory = (result.traces[f"out.{n}"] / siemens for n in ("g_exc", "g_inh"))
    target = form.number(result.traces["out.u_target"])
    np.testing.assert_allclose(target, np.broadcast_to(2 * Y - 1, target.shape), rtol=0, atol=1e-13)
    np.testing.assert_allclose(excitatory + inhibitory, SOM, rtol=1e-12)
    np.testing.assert_allclose(excitatory - inhibitory, SOM * target, rtol=0, atol=1e-12)


# ------------------------------------------------------------------ levels


@pytest.mark.parametrize(
    ("form", "wrapped"),
    [
        (Form("dimensionless", ("2*ms", 0.3), "conductance", "logistic"), "wrapped"),
        (Form("dimensionless", (None, 0.0), "current", "logistic"), "plain"),
        (Form("physical", (None, 0.0), "current", "softplus"), "wrapped"),
        (Form("physical", ("2*ms", 0.3), "conductance", "tanh"), "plain"),
    ],
    ids=str,
)
def test_levels_agree_with_learning_on(form, wrapped):
    """`wrapped`: noisy and prospective cells."""

    def wrap(cell):
        if wrapped == "plain":
            return cell
        sigma = "1*mV*ms**-0.5" if form.units == "physical" else "0.1*ms**-0.5"
        return ahead_by(noisy(cell, sigma), "0.4*ms")

    record = RATES + [v for v in VOLTS if v != "out.u_target"]
    circuit = network(form, wrap, rules=True)
    start = circuit.initial_weights(0)
    batched = trajectory(circuit, record)
    dense = trajectory(circuit, record, "brian2:dense")
    single = trajectory(circuit, record, batch_size=1)
    equations = trajectory(circuit, record, "brian2:equations")
    for a, b in ((batched, dense), (single, equations)):
        for name in record:
            scale = V_0 if name in VOLTS and form.units == "physical" else 1
            gap = np.abs(flat(a.traces, name) - flat(b.traces, name)).max() / scale
            assert gap < 1e-12, (name, b.level)
        for name in start:
            assert np.abs(a.weights[name] - b.weights[name]).max() < 1e-12, (name, b.level)
    for name in ("W1", "W2", "IP", "PI"):
        assert np.abs(single.weights[name] - start[name]).max() > 1e-4


# ------------------------------------------------------------------ time constants


def test_decay_of_instantaneous_cells_is_the_exact_euler_factor():
    """After the drive u goes to its rest value by 1 - dt/tau a step, tau = 1/(sum of the conductances)."""
    dt = 0.05
    for units in ("dimensionless", "physical"):
        form = Form(units)
        text = "u = E_L + v_0*x : volt" if units == "physical" else "u = x : 1"
        parameters = {"E_L": "-70*mV", "v_0": "10*mV"} if units == "physical" else {}
        partner = Cell("partner", f"{text}\nx : 1 (input)", rate="u", parameters=parameters)
        populations = (
            Population("inp", 3, SOURCE),
            Population("pyr", 3, form.pyramidal()),
            Population("out", 2, form.output(target=(0.0, 1.0))),
            Population("part", 3, partner),
            Population("sst", 3, form.interneuron()),
            Population("low", 3, low_pass_input()),
        )
        projections = (
            wire("B", "inp", "pyr.I_basal", W_B),
            wire("A", "inp", "pyr.I_apical", W_A),
            wire("O", "inp", "out.I_basal", W_O),
            wire("D", "inp", "sst.I_dend", W_B),
            Projection("P", "part", "sst.u_partner", connectivity=OneToOne()),
        )
        on = {"inp.r": "image", "low.x": "image", "part.x": "image", "out.y": "target"}
        phases = (
            Phase("on", "2*ms", clamps=on, shared={"teach": 1}),
            Phase("off", "3*ms", shared={"teach": 0}),
            Phase("held", "3*ms", shared={"teach": 1}),  # taught to rest: g_som counts
        )
        circuit = Circuit("decay", Fragment(populations, projections), Protocol(phases))
        variables = ["pyr.u", "out.u", "sst.u", "low.r"]
        result = simulate(
            circuit, X, Y, level="torch:trajectory", dt="0.05*ms", batch_size=2, record=variables, progress=False
        )
        for phase, rate in (
            ("off", {"pyr.u": LK + GB + GA, "out.u": LK + GB, "sst.u": LK + GD + SOM, "low.r": 1 / TAU_0}),
            ("held", {"pyr.u": LK + GB + GA, "out.u": LK + GB + SOM, "sst.u": LK + GD + SOM, "low.r": 1 / TAU_0}),
        ):
            first = 40 if phase == "off" else 100
            k = np.arange(60)[:, None, None]
            for name in variables:
                value = result.traces[name] if name == "low.r" else form.number(result.traces[name])
                start = value[first]
                assert np.abs(start).max() > 1e-3
                got = value[first : first + 60]
                np.testing.assert_allclose(got, start * (1 - dt * rate[name]) ** k, rtol=0, atol=1e-12, err_msg=name)
                decay = np.exp(-k * dt * rate[name])
                # |(1 - x)^k - exp(-k x)| <= x/2 * k x exp(-(k-1) x) <= 0.6 x/2 for small x
                assert np.abs(got - start * decay).max() <= 0.35 * dt * rate[name] * np.abs(start).max()


@pytest.mark.parametrize("units", ["dimensionless", "physical"])
@pytest.mark.parametrize("back", [0.0, 0.3])
def test_decay_with_slow_dendrites_is_a_matrix_power(units, back):
    """(u, v_B, v_A) of a cell without drive: z(k) = (1 + dt A)^k z(0); towards expm(A t) with error O(dt)."""
    rate = 1 / 2.0
    a = np.array(
        [
            [-(LK + GB + GA), GB, GA],
            [back * rate, -(1 + back) * rate, 0],
            [back * rate, 0, -(1 + back) * rate],
        ]
    )
    start = np.array([0.5, -1.0, 2.0])
    scale = (lambda v: E_L + V_0 * v) if units == "physical" else (lambda v: v)
    names = ("u", "v_B", "v_A")
    cell = replace(
        pyramidal(units=units, tau_dendrite="2*ms", back=back),
        initial=dict(zip(names, map(float, scale(start)), strict=True)),
    )
    circuit = Circuit(
        "c",
        [Population("inp", 1, SOURCE), Population("p", 1, cell), wire("W", "inp", "p.I_basal", np.ones((1, 1)))],
        Protocol((Phase("f", "6*ms"),)),
    )
    eigenvalues, vectors = np.linalg.eig(a)
    errors = []
    for dt in (0.1, 0.05, 0.025):
        traces = simulate(
            circuit,
            level="torch:trajectory",
            dt=f"{dt}*ms",
            record=[f"p.{n}" for n in names],
            progress=False,
        ).traces
        got = Form(units).number(np.stack([traces[f"p.{n}"][:, 0, 0] for n in names], axis=1))
        expected, step = [start], np.eye(3) + dt * a
        for _ in range(len(got) - 1):
            expected.append(step @ expected[-1])
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)
        t = dt * np.arange(len(got))
        exact = (vectors @ (np.exp(np.outer(eigenvalues, t)) * np.linalg.solve(vectors, start)[:, None])).real.T
        errors.append(np.abs(got - exact).max())
    assert np.log2(errors[0] / errors[1]) == pytest.approx(1, abs=0.1)
    assert np.log2(errors[1] / errors[2]) == pytest.approx(1, abs=0.1)


def flow(teach: int, x: np.ndarray, y: np.ndarray, weights: dict[str, np.ndarray], back: float):
    """dz/dt (1/ms) of `network`, logistic cells with dendrites of 2 ms, by hand. z: low r (3), then u, v_B, v_A of pyr (3
    each), u, v_D of sst (2 each), u, v_B of out (2 each)."""
    phi = PHI["logistic"]

    def rhs(_t, z):
        r, u, v_b, v_a = z[0:3], z[3:6], z[6:9], z[9:12]
        w, v_d, top, v_t = z[12:14], z[14:16], z[16:18], z[18:20]
        pyr, inter, out = phi(u), phi(w), phi(top)
        return np.concatenate(
            [
                (x - r) / TAU_0,
                -LK * u + GB * (v_b - u) + GA * (v_a - u),
                (r @ weights["W1"] - v_b + back * (u - v_b)) / 2,
                (out @ weights["B"] + inter @ weights["PI"] - v_a + back * (u - v_a)) / 2,
                -LK * w + GD * (v_d - w) + SOM * (top - w),
                (pyr @ weights["IP"] - v_d + back * (w - v_d)) / 2,
                -LK * top + GB * (v_t - top) + teach * SOM * (2 * y - 1 - top),
                (pyr @ weights["W2"] - v_t + back * (top - v_t)) / 2,
            ]
        )

    return rhs


@pytest.mark.parametrize("units", ["dimensionless", "physical"])
@pytest.mark.parametrize("back", [0.0, 0.3])
def test_euler_error_against_scipy_is_of_first_order(units, back):
    form = Form(units, ("2*ms", back), "conductance")
    circuit = network(form)
    weights = circuit.initial_weights(0)
    names = ["low.r", "pyr.u", "pyr.v_B", "pyr.v_A", "sst.u", "sst.v_D", "out.u", "out.v_B"]
    ends = []
    for x, y in zip(X, Y, strict=True):
        z, taught = np.zeros(20), []
        for teach in (0, 1):
            solution = solve_ivp(
                flow(teach, x, y, weights, back), (0, 8), z, "DOP853", np.arange(0, 8.01, 0.4), rtol=1e-12, atol=1e-12
            )
            z = solution.y[:, -1]
            taught.append(solution.y[:, :-1].T)
        ends.append(np.concatenate(taught))
    exact = np.stack(ends, axis=1)  # every 0.4 ms, (40, samples, 20)
    errors = []
    for dt in (0.1, 0.05, 0.025):
        traces = trajectory(circuit, names, dt=f"{dt}*ms", stride=round(0.4 / dt)).traces
        values = [traces[n] if n == "low.r" else form.number(traces[n]) for n in names]
        errors.append(np.abs(np.concatenate(values, axis=2) - exact).max())
    assert errors[0] < 0.05
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    np.testing.assert_allclose(orders, 1, atol=0.1)


# ------------------------------------------------------------------ wrappers: noise


@pytest.mark.parametrize("units", ["dimensionless", "physical"])
def test_noise_is_white_with_the_given_sigma(units):
    """The increments of u, drift taken off, are sigma sqrt(dt) N(0, 1), independent over time and cells."""
    sigma = 0.3  # v_0/sqrt(ms)
    text = f"{sigma}*10*mV*ms**-0.5" if units == "physical" else f"{sigma}*ms**-0.5"
    form, dt = Form(units), 0.1
    circuit = Circuit(
        "noise",
        [
            Population("inp", 3, SOURCE),
            Population("p", 40, noisy(form.pyramidal(), text)),
            wire("B", "inp", "p.I_basal", drawn(3, 40)),
            wire("A", "inp", "p.I_apical", drawn(3, 40, seed=9)),
        ],
        Protocol((Phase("f", "50*ms"),), {"inp.r": "image"}),
    )
    traces = simulate(circuit, X[:1], level="torch:trajectory", record=["p.u"], progress=False, seed=3).traces
    u = form.number(traces["p.u"][:, 0])
    drift = -LK * u + GB * (X[0] @ drawn(3, 40) - u) + GA * (X[0] @ drawn(3, 40, seed=9) - u)
    normal = (np.diff(u, axis=0) - dt * drift[:-1]) / (sigma * np.sqrt(dt))
    n = normal.size
    assert abs(normal.mean()) < 5 / np.sqrt(n)
    assert normal.var() == pytest.approx(1, abs=5 * np.sqrt(2 / n))
    assert (normal**4).mean() == pytest.approx(3, abs=5 * np.sqrt(96 / n))
    assert abs((normal[1:] * normal[:-1]).mean()) < 5 / np.sqrt(n)
    assert abs((normal[:, 1:] * normal[:, :-1]).mean()) < 5 / np.sqrt(n)


def test_noise_scales_with_sigma_and_sigma_is_a_parameter_of_the_population():
    cell, weights = noisy(pyramidal("linear"), "0.2*ms**-0.5"), np.ones((3, 2))

    def run(sigma: str) -> np.ndarray:
        circuit = Circuit(
            "noise",
            [
                Population("inp", 3, SOURCE),
                Population("p", 2, cell, {"sigma_u": sigma}),
                wire("B", "inp", "p.I_basal", weights),
            ],
            Protocol((Phase("f", "5*ms"),), {"inp.r": "image"}),
        )
        return simulate(circuit, X[:1], level="torch:trajectory", record=["p.u"], progress=False).traces["p.u"]

    none, once, twice = run("0*ms**-0.5"), run("0.2*ms**-0.5"), run("0.4*ms**-0.5")
    np.testing.assert_allclose(twice - none, 2 * (once - none), rtol=0, atol=1e-12)
    assert np.abs(once - none).max() > 0.05


def test_noise_on_another_state():
    cell = noisy(pyramidal("linear", tau_dendrite="2*ms"), "0.2*ms**-0.5", state="v_A")
    circuit = Circuit(
        "noise",
        [Population("inp", 3, SOURCE), Population("p", 2, cell), wire("B", "inp", "p.I_basal", np.ones((3, 2)))],
        Protocol((Phase("f", "5*ms"),)),
    )
    traces = simulate(circuit, level="torch:trajectory", record=["p.v_B", "p.v_A", "p.u"], progress=False).traces
    assert not traces["p.v_B"].any() and np.std(traces["p.v_A"][1:]) > 0.05
    u, v = traces["p.u"][:, 0], traces["p.v_A"][:, 0]
    np.testing.assert_allclose(np.diff(u, axis=0), 0.1 * (-(LK + GB + GA) * u + GA * v)[:-1], rtol=0, atol=1e-12)


def test_noise_on_two_states_is_independent_with_a_sigma_each():
    cell = noisy(noisy(pyramidal("linear", tau_dendrite="2*ms"), "0.1*ms**-0.5"), "0.3*ms**-0.5", state="v_A")
    circuit = Circuit(
        "noise",
        [Population("inp", 3, SOURCE), Population("p", 200, cell), wire("B", "inp", "p.I_basal", np.ones((3, 200)))],
        Protocol((Phase("f", "5*ms"),)),
    )
    traces = simulate(circuit, level="torch:trajectory", record=["p.u", "p.v_A"], progress=False).traces
    u, v = traces["p.u"][:, 0], traces["p.v_A"][:, 0]
    on_u = np.diff(u, axis=0) - 0.1 * (-(LK + GB + GA) * u + GA * v)[:-1]
    on_v = np.diff(v, axis=0) + 0.1 * v[:-1] / 2
    assert on_u.std() == pytest.approx(0.1 * np.sqrt(0.1), rel=0.05)
    assert on_v.std() == pytest.approx(0.3 * np.sqrt(0.1), rel=0.05)
    assert abs(np.corrcoef(on_u.ravel(), on_v.ravel())[0, 1]) < 0.05


# ------------------------------------------------------------------ wrappers: prospective coding


def step_circuit(cell: Cell, source: str = "p", duration: str = "2*ms") -> Circuit:
    """A silent phase, then a step drive; a linear reader takes what the cell sends by default."""
    reader = Cell("reader", "r = I : 1\nI : 1 (port)")
    return Circuit(
        "step",
        [
            Population("inp", 3, SOURCE),
            Population("p", 3, cell),
            Population("reader", 3, reader),
            wire("B", "inp", "p.I_basal", W_B),
            wire("A", "inp", "p.I_apical", W_A),
            Projection("read", source, "reader.I", connectivity=OneToOne()),
        ],
        Protocol((Phase("silent", "1*ms"), Phase("step", duration, clamps={"inp.r": "image"}))),
    )


TAU_EFF = 1 / (LK + GB + GA)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("units", ["dimensionless", "physical"])
def test_a_prospective_cell_follows_a_step_at_once(units, level):
    """u_k = u* (1 - q^k), q = 1 - dt/tau, so u_{k-1} + tau (u_k - u_{k-1})/dt = u* from step 1 on: one step late."""
    dt, form = 0.05, Form(units)
    tau_eff = "C_m/(g_lk + g_B + g_A)" if units == "physical" else "1/(g_lk + g_B + g_A)"
    cell = prospective(form.pyramidal(), tau_eff)
    result = simulate(
        step_circuit(cell),
        X,
        level=level,
        dt=f"{dt}*ms",
        record=["p.u", "p.u_ahead", "p.r", "reader.I"],
        progress=False,
    )
    per_trial = {n: flat(result.traces, n)[20:] for n in ("p.u", "p.u_ahead", "p.r", "reader.I")}
    star = ((X @ W_B) * GB + (X @ W_A) * GA) * TAU_EFF
    k, q = np.arange(40)[:, None, None], 1 - dt / TAU_EFF
    ahead = np.where(k == 0, 0, star)
    np.testing.assert_allclose(form.number(per_trial["p.u"]), star * (1 - q**k), rtol=0, atol=1e-12)
    np.testing.assert_allclose(form.number(per_trial["p.u_ahead"]), ahead, rtol=0, atol=1e-12)
    np.testing.assert_allclose(per_trial["p.r"], PHI["logistic"](ahead), rtol=0, atol=1e-12)
    np.testing.assert_allclose(per_trial["reader.I"], PHI["logistic"](ahead), rtol=0, atol=1e-12)


def test_a_prospective_cell_does_not_lag_behind_a_slow_wave():
    """A sine of period 40 ms in pieces of 0.5 ms, one trial each, states going on; against a NumPy loop, and its lag."""
    dt, per_piece, period = 0.1, 5, 40.0
    pieces = np.sin(2 * np.pi * (np.arange(160) + 0.5) * 0.5 / period)[:, None]
    traces = {}
    for kind, cell in (
        ("plain", pyramidal("linear", conductances={"g_B": 0.2, "g_A": 0.0})),
        ("ahead", prospective(pyramidal("linear", conductances={"g_B": 0.2, "g_A": 0.0}), "1/(g_lk + g_B + g_A)")),
    ):
        circuit = Circuit(
            "wave",
            [Population("inp", 1, SOURCE), Population("p", 1, cell), wire("B", "inp", "p.I_basal", np.ones((1, 1)))],
            Protocol((Phase("piece", "0.5*ms"),), {"inp.r": "image"}, reset=False),
        )
        result = simulate(circuit, pieces, level="torch:trajectory", record=["p.r"], progress=False)
        traces[kind] = result.traces["p.r"][:, 0, 0]
    u, before, loop = 0.0, 0.0, []
    for piece in np.repeat(pieces[:, 0], per_piece):
        loop.append(before + (u - before) / dt / 0.3)
        before, u = u, u + dt * (-0.1 * u + 0.2 * (piece - u))
    np.testing.assert_allclose(traces["ahead"], loop, rtol=0, atol=1e-12)

    t = dt * np.arange(400) + 40  # the second period
    basis = np.stack([np.sin(2 * np.pi * t / period), np.cos(2 * np.pi * t / period)], axis=1)
    lag = {}
    for kind, values in traces.items():
        (s, c), *_ = np.linalg.lstsq(basis, values[400:], rcond=None)
        lag[kind] = -np.arctan2(c, s) * period / (2 * np.pi)
    assert lag["plain"] == pytest.approx(np.arctan(2 * np.pi / period / 0.3) * period / (2 * np.pi), abs=0.15)
    assert abs(lag["ahead"]) < 1.5 * dt
    assert lag["plain"] > 2.5


@pytest.mark.parametrize("form", [FORMS[0], FORMS[5], FORMS[8], FORMS[11]], ids=str)
def test_prospective_coding_leaves_the_fixed_point(form):
    form = replace(form, transfer="tanh")
    plain, ahead = (
        simulate(network(form, wrap), X, Y, level="torch:steady", batch_size=2, progress=False)
        for wrap in (lambda c: c, lambda c: ahead_by(c, "1.3*ms"))
    )
    for phase in ("free", "taught"):
        for name, value in plain.ends[phase].items():
            np.testing.assert_allclose(ahead.ends[phase][name], value, rtol=0, atol=1e-9, err_msg=name)
        for population in ("pyr", "sst", "out"):
            ends = ahead.ends[phase]
            np.testing.assert_array_equal(ends[f"{population}.u_ahead"], ends[f"{population}.u"])


def test_a_rate_that_is_the_state_looks_ahead():
    dt = 0.1
    cell = prospective(low_pass_input(), "tau_0", state="r")
    reader = Cell("reader", "s = I : 1\nI : 1 (port)", rate="s")
    circuit = Circuit(
        "low",
        [
            Population("low", 3, cell),
            Population("q", 3, reader),
            Population("q2", 3, reader),
            Projection("W", "low", "q.I", connectivity=OneToOne()),
            Projection("V", "low.r", "q2.I", connectivity=OneToOne()),
        ],
        Protocol((Phase("f", "4*ms"),), {"low.x": "image"}),
    )
    traces = simulate(circuit, X[:1], level="torch:trajectory", record=["q.I", "q2.I"], progress=False).traces
    k, q = np.arange(40)[:, None], 1 - dt / TAU_0
    ahead = np.where(k == 0, 0, X[0])
    np.testing.assert_allclose(traces["q.I"][:, 0], ahead, rtol=0, atol=1e-12)
    np.testing.assert_allclose(traces["q2.I"][:, 0], X[0] * (1 - q**k), rtol=0, atol=1e-12)


def test_a_rate_that_does_not_read_the_state_is_refused():
    with pytest.raises(CircuitError, match="does not read the state 'v_A'") as caught:
        prospective(pyramidal(), "1*ms", state="v_A")
    assert "pyramidal" in str(caught.value)
    with pytest.raises(CircuitError, match="does not read the state 'u'"):
        prospective(divisive_normalisation(pyramidal()), "1*ms")


def test_tau_eff_may_be_a_sum():
    summed, one = (
        simulate(step_circuit(cell), X, level="torch:trajectory", record=["p.r"], progress=False)
        for cell in (prospective(pyramidal(), "1/g_B + 1/g_A"), ahead_by(pyramidal(), "2.25*ms"))
    )
    np.testing.assert_allclose(summed.traces["p.r"], one.traces["p.r"], rtol=0, atol=1e-12)


# ------------------------------------------------------------------ divisive normalisation, electrodes, refusals


@pytest.mark.parametrize("semisaturation", [1.0, 0.2])
@pytest.mark.parametrize("form", [Form(), Form("physical", ("2*ms", 0.3), transfer="softplus")], ids=str)
def test_divisive_normalisation_at_every_step(form, semisaturation):
    cell = divisive_normalisation(form.pyramidal(), semisaturation)
    result = simulate(
        step_circuit(cell),
        X,
        level="torch:trajectory",
        batch_size=2,
        record=["p.u", "p.r", "p.rate_before", "p.inhibition", "reader.I"],
        progress=False,
    )
    rho = PHI[form.transfer](form.number(result.traces["p.u"]))
    total = rho.sum(axis=2, keepdims=True)
    np.testing.assert_allclose(result.traces["p.rate_before"], rho, rtol=1e-12)
    np.testing.assert_allclose(result.traces["p.inhibition"], np.broadcast_to(total, rho.shape), rtol=1e-12)
    np.testing.assert_allclose(result.traces["p.r"], rho / (semisaturation + total), rtol=1e-12)
    np.testing.assert_array_equal(result.traces["reader.I"], result.traces["p.r"])
    assert (result.traces["p.r"].sum(axis=2) < 1).all() and np.ptp(result.traces["p.r"]) > 0.01


def test_divisive_normalisation_agrees_on_every_level():
    form = Form("physical", transfer="softplus")

    def wrap(cell):
        return divisive_normalisation(ahead_by(cell, "0.3*ms"), 0.5)

    results = [trajectory(network(form, wrap, rules=True), RATES, level, batch_size=1) for level in LEVELS]
    for other in results[1:]:
        for name in RATES:
            assert np.abs(other.traces[name] - results[0].traces[name]).max() < 1e-12, (name, other.level)
        for name, value in results[0].weights.items():
            assert np.abs(other.weights[name] - value).max() < 1e-12


def test_electrodes_against_their_formulas():
    reader = Cell("reader", "q = I : amp\nI : amp (port)", rate="q")
    populations = (
        Population("step", 1, current_step("200*pA", "2*ms", "3*ms")),
        Population("psc", 1, epsc("150*pA", "1*ms", "1*ms", "4*ms")),
        Population("a", 1, reader),
        Population("b", 1, reader),
    )
    projections = (
        Projection("x", "step", "a.I", connectivity=OneToOne()),
        Projection("y", "psc", "b.I", connectivity=OneToOne()),
    )
    circuit = Circuit(
        "electrodes", Fragment(populations, projections), Protocol((Phase("f", "10*ms"), Phase("g", "10*ms")))
    )
    for level in LEVELS:
        traces = simulate(circuit, level=level, dt="0.05*ms", record=["a.I", "b.I"], progress=False).traces
        step = np.arange(400)
        on = (step >= 40) & (step < 100)
        np.testing.assert_allclose(traces["a.I"][:, 0, 0], 200e-12 * on, rtol=1e-12)
        since = np.maximum(0.05 * step - 1, 0)
        shape = np.exp(-since / 4) - np.exp(-since)
        fine = np.linspace(0, 20, 2_000_001)
        top = (np.exp(-fine / 4) - np.exp(-fine)).max()
        np.testing.assert_allclose(traces["b.I"][:, 0, 0], 150e-12 * shape / top, rtol=1e-9, atol=1e-24)


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (lambda: pyramidal("logstic"), ("transfer function 'logstic'", "Did you mean 'logistic'?")),
        (lambda: pyramidal(units="physic"), ("units of a cell 'physic'", "Did you mean 'physical'?")),
        (lambda: sst_interneuron(units="SI"), ("units of a cell 'SI'",)),
        (lambda: pyramidal(conductances={"g_C": 1.0}), ("conductance 'g_C'", "Known: g_lk")),
        (lambda: output_pyramidal(teaching="voltage"), ("form of teaching 'voltage'", "current, conductance")),
        (lambda: noisy(pyramidal(), "1*ms**-0.5", "v"), ("'pyramidal'", "dv/dt")),
        (lambda: divisive_normalisation(low_pass_input()), ("'low-pass input'", "'r = ")),
        (lambda: epsc(rise="8*ms", decay="1*ms"), ("rise = 8*ms", "0 < rise < decay")),
    ],
)
def test_what_a_part_refuses(make, parts):
    with pytest.raises(NeurosimError) as caught:
        make()
    for part in parts:
        assert part in str(caught.value)


def test_sigma_of_the_wrong_unit_is_refused():
    cell = noisy(pyramidal(units="physical"), "1*mV")
    with pytest.raises(CircuitError, match="Population 'p'"):
        Circuit(
            "noise",
            [Population("inp", 3, SOURCE), Population("p", 2, cell), Projection("B", "inp", "p.I_basal", Constant(1))],
            Protocol((Phase("f", "5*ms"),)),
        )
