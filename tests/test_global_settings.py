"""What a script has set in Brian2, NumPy or torch changes no result and is as it was afterwards.

Oracle: the same run without the setting, bit for bit.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import brian2
import numpy as np
import pytest
import torch
from brian2.devices.device import all_devices
from circuits import IN_TIME, LEVELS, cell, circuit, phase, rule, run, wire

import neurosim
from neurosim import SOURCE, FeedForward
from neurosim.errors import NeurosimError

STEADY = LEVELS[3]
X = np.random.default_rng(0).uniform(0, 1, (2, 3))
Y = [0, 1]

# ------------------------------------------------------------------ what is run

RATE = """
    du/dt = (-u + I + 0.2*P)/tau : 1
    r = tanh(u) : 1
    E = y - r : 1
    steep = 1/(1 + exp(-k*u)) : 1
    tiny = exp(-k*abs(u))*exp(-k) : 1
    I : 1
    y : 1
"""
LIF = """
    dV/dt = (E_L - V + R*I_e)/tau : volt (unless refractory)
    dw_ad/dt = -w_ad/tau : volt
    I_e : amp
"""


@lru_cache
def rates():
    """A layer that learns, with a reference; exponentials over- and underflow on the way."""
    c = cell(RATE, ports=["I"], inputs=["y"], pools={"P": "r**2"}, tau="10*ms", k=1e4)
    learns = rule("eta*E_post*(1 - r_post**2)*r_pre", apply="trial", eta="10*Hz")
    net = circuit(
        {"inp": (3, SOURCE), "p": (2, c)},
        [wire("W", "inp", "p.I", np.linspace(-0.5, 0.6, 6).reshape(3, 2), learns)],
        [phase("one", "10*ms"), phase("two", "5*ms", ["rule"])],
        {"inp.r": "image", "p.y": "target"}, readout=("p.r", "one"),
    )  # fmt: skip
    return replace(net, reference=FeedForward(("W",), (), "tanh(u)"))


@lru_cache
def mixed():
    """The same beside noisy and spiking cells, which need the order of thresholds and resets."""
    net = rates()
    noisy = cell("dx/dt = -x/tau + s*xi : 1; r = x : 1", tau="10*ms", s="0.5*Hz**0.5")
    lif = cell(
        LIF, ports=["I_e"], rate="spike_train", tau="10*ms", E_L="-70*mV", R="100*Mohm",
        V_T="-50*mV", V_r="-60*mV",
        parts={"threshold": "V > V_T", "reset": "V = V_r; w_ad += 0.1*E_L", "refractory": "2*ms",
            "initial": {"V": -0.055}},
    )  # fmt: skip
    more = circuit(
        {"n": (3, noisy), "s": (2, lif)}, [wire("A", "one", "s.I_e", np.array([[0.4e-9, 0.9e-9]]))]
    )  # fmt: skip
    return replace(
        net,
        fragment=[*net.fragment, *more.fragment],
        reference=None,
    )


def numbers(result) -> dict:
    """All that a run hands back but its seconds."""
    found = {f"weights {k}": v for k, v in result.weights.items()}
    found |= {f"{p} {n}": v for p, kept in result.ends.items() for n, v in kept.items()}
    found["readout"] = result.readout
    if result.traces is not None:
        found |= {f"trace {k}": np.asarray(v) for k, v in result.traces.values.items()} | {
            "time": result.traces.time
        }  # fmt: skip
        for p, spikes in result.spikes.items():
            found |= {f"spikes {p} {k}": getattr(spikes, k) for k in ("time", "sample", "cell")}
    return found


def on(level: str) -> dict:
    if level == STEADY:
        return numbers(run(rates(), level, X, Y, batch_size=2))
    return numbers(run(mixed(), level, X, Y, seed=3, record=["p.u", "n.x", "s.V", "p.steep"]))


def compared() -> dict:
    """The report of a comparison; its cosines are of gradients, which torch has to follow."""
    report = neurosim.compare(rates(), X, Y, levels=LEVELS[2:], progress=False).report
    assert report["update_cosine"]["torch:steady"]["W"] > 0.9
    return json.loads(json.dumps(report))


def trained(folder: Path) -> dict:
    """Weights and metrics of one epoch of 64 digits."""
    done = neurosim.train(
        "ghost_units", folder, settings=dict(sizes=(64, 8, 10)), epochs=1, limit=64, test=False,
        progress=False, overwrite=True
    )  # fmt: skip
    return {"metrics": done.metrics, **done.weights}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The results without any setting."""
    found = {level: on(level) for level in LEVELS}
    assert len(found["torch:trajectory"]["spikes s time"]) >= 4
    return found | {"compared": compared(), "trained": trained(tmp_path_factory.mktemp("plain"))}


def same(found, wanted) -> list[str]:
    """Names of what is not equal, bit for bit."""
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        return [f"{k}: {inner}" for k in wanted for inner in same(found[k], wanted[k])]
    if isinstance(wanted, np.ndarray):
        return (
            []
            if found.dtype == wanted.dtype and np.array_equal(found, wanted, equal_nan=True)
            else ["differs"]
        )  # fmt: skip
    return [] if found == wanted else [f"{found} != {wanted}"]


def random_states() -> tuple:
    return random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()


# ------------------------------------------------------------------ Brian2

SCHEDULE = ["start", "resets", "thresholds", "synapses", "groups", "end"]
PREFERENCES = {
    "float32": {"core.default_float_dtype": np.float32},
    "int16": {"core.default_integer_dtype": np.int16},
    "schedule": {"core.network.default_schedule": SCHEDULE},
    "refractory timing": {"legacy.refractory_timing": True},
    "target of strings": {"codegen.string_expression_target": "cython"},
    "loop invariants": {"codegen.loop_invariant_optimisations": False},
    "target": {"codegen.target": "cython"},
}
PREFERENCES["all of them"] = {
    name: value for one in list(PREFERENCES.values()) for name, value in one.items()
}  # fmt: skip


@contextlib.contextmanager
def preferences(values: dict):
    before = {name: brian2.prefs[name] for name in values}
    try:
        for name, value in values.items():
            brian2.prefs[name] = value
        yield
        assert {name: brian2.prefs[name] for name in values} == values
    finally:
        for name, value in before.items():
            brian2.prefs[name] = value


@pytest.mark.parametrize(
    ("which", "level"),
    [
        *(pytest.param(which, LEVELS[1], marks=pytest.mark.slow) for which in PREFERENCES),
        ("all of them", LEVELS[0]),
    ],
)
def test_preferences_of_brian2(which, level, plain):
    """Bit for bit the run without them, and they are as the script left them."""
    with preferences(PREFERENCES[which]):
        found = on(level)
    assert not same(found, plain[level])


def test_all_preferences_at_once(plain, tmp_path):
    """The torch levels, a comparison and a training do not follow Brian2's preferences."""
    with preferences(PREFERENCES["all of them"]):
        found = {level: on(level) for level in LEVELS[2:]} | {
            "compared": compared(),
            "trained": trained(tmp_path / "run"),
        }
    assert not same(found, {name: plain[name] for name in found})


@pytest.mark.parametrize("level", IN_TIME[1:])
def test_the_default_clock_and_the_seeds_of_a_script(level, plain):
    """Brian2's default clock and global random numbers: a run neither follows nor moves them."""
    dt = brian2.defaultclock.dt
    try:
        brian2.defaultclock.dt = 3 * brian2.ms
        brian2.seed(99), np.random.seed(99), torch.manual_seed(99), random.seed(99)
        before = random_states()
        found = on(level)
        assert random_states() == before
        assert brian2.defaultclock.dt == 3 * brian2.ms
    finally:
        brian2.defaultclock.dt = dt
    assert not same(found, plain[level])


def test_objects_of_a_script_are_not_run(plain):
    """Groups and functions of a script's own, also of the names of ours, are none of a run's."""
    p = brian2.NeuronGroup(3, "du/dt = -u/(1*ms) : 1", method="euler", name="p")
    tau = I = W = 7.0  # Brian2 looks for such names in the frame that calls it
    p.u = 5.0
    assert not same(on("brian2:equations"), plain["brian2:equations"])
    assert (p.u[:] == 5.0).all() and tau == I == W


@pytest.mark.parametrize("level", LEVELS)
def test_a_standalone_device(level, plain):
    """Brian2's levels refuse it by name, as it would run nothing; torch's do not meet it."""
    brian2.set_device("cpp_standalone", build_on_run=False)
    try:
        if level.startswith("brian2"):
            with pytest.raises(NeurosimError, match="cpp_standalone"):
                on(level)
            found = None
        else:
            found = on(level)
        assert brian2.get_device() is all_devices["cpp_standalone"]
    finally:
        brian2.set_device("runtime")
    assert found is None or not same(found, plain[level])
    assert not same(on("brian2:dense"), plain["brian2:dense"])


# ------------------------------------------------------------------ NumPy and torch


@contextlib.contextmanager
def numpy_raises():
    before = np.seterr(all="raise")
    try:
        yield
        assert set(np.geterr().values()) == {"raise"}
    finally:
        np.seterr(**before)


@contextlib.contextmanager
def numpy_calls():
    """A function of the script's own is told of every overflow."""
    told = []
    before, function = np.seterr(all="call"), np.seterrcall(lambda *what: told.append(what))
    try:
        yield
        assert set(np.geterr().values()) == {"call"} and not told
    finally:
        np.seterr(**before), np.seterrcall(function)


@contextlib.contextmanager
def default_dtype():
    torch.set_default_dtype(torch.float64)
    try:
        yield
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


@contextlib.contextmanager
def default_device():
    torch.set_default_device("meta")
    try:
        yield
        assert torch.get_default_device().type == "meta" and torch.empty(1).device.type == "meta"
    finally:
        torch.set_default_device(None)


@contextlib.contextmanager
def device_context():
    before = torch.get_default_device()
    with torch.device("meta"):
        yield
        assert torch.empty(1).device.type == "meta"
    assert torch.get_default_device() == before


@contextlib.contextmanager
def grad_disabled():
    torch.set_grad_enabled(False)
    try:
        yield
        assert not torch.is_grad_enabled()
    finally:
        torch.set_grad_enabled(True)


@contextlib.contextmanager
def inference():
    with torch.inference_mode():
        yield
        assert torch.is_inference_mode_enabled()
    assert not torch.is_inference_mode_enabled()


@contextlib.contextmanager
def all_at_once():
    with (
        numpy_raises(),
        default_dtype(),
        default_device(),
        device_context(),
        grad_disabled(),
        inference(),
    ):
        yield


SETTINGS = {
    f.__name__: f for f in (
        numpy_raises, numpy_calls, default_dtype, default_device, device_context, grad_disabled,
        inference, all_at_once,
    )
}  # fmt: skip


QUICK = ("numpy_raises", "default_device", "all_at_once")


@pytest.mark.parametrize(
    "setting", [s if s in QUICK else pytest.param(s, marks=pytest.mark.slow) for s in SETTINGS]
)  # fmt: skip
def test_settings_of_numpy_and_torch(setting, plain, tmp_path):
    """Bit for bit the torch levels, the comparison and an epoch of training without it."""
    with SETTINGS[setting]():
        found = {level: on(level) for level in LEVELS[2:]} | {"trained": trained(tmp_path / "run")}
        if setting != "numpy_calls":
            found["compared"] = compared()
    assert not same(found, {name: plain[name] for name in found})


@pytest.mark.parametrize(
    ("setting", "level"), [("numpy_raises", LEVELS[0]), ("all_at_once", LEVELS[1])]
)  # fmt: skip
def test_settings_of_numpy_and_torch_on_brian2(setting, level, plain):
    """Bit for bit the run without them."""
    with SETTINGS[setting]():
        found = on(level)
    assert not same(found, plain[level])


def test_building_and_describing_under_settings():
    """A description is checked, drawn and described alike."""
    report, weights = neurosim.describe(mixed()), mixed().initial_weights(1)
    with all_at_once(), preferences(PREFERENCES["all of them"]):
        net = replace(mixed())
        assert neurosim.describe(net) == report
        assert not same(net.initial_weights(1), weights)


def test_a_setting_is_put_back_after_an_error():
    """A run that ends with an error leaves the settings as the script had them."""
    c = cell("du/dt = (-u + 1)/tau : 1; r = u : 1; q = log(u - 2) : 1", tau="10*ms")
    net = circuit({"p": (2, c)})
    for level in LEVELS[1:]:
        with (
            all_at_once(),
            preferences(PREFERENCES["all of them"]),
            pytest.raises(NeurosimError, match=r"p\.q"),
        ):
            run(net, level, record=["p.q"])


# ------------------------------------------------------------------ a script of one's own

HERE = Path(__file__).parent
BEGIN = "import sys; sys.path.insert(0, {tests!r})\n"
STATES = """
import json, os, signal, tempfile, threading, time, warnings
import numpy as np

def hooks():
    return [
        sys.excepthook, sys.unraisablehook, sys.displayhook, threading.excepthook,
        warnings.showwarning, warnings.formatwarning, np.geterr(), np.get_printoptions(),
        signal.getsignal(signal.SIGTERM),
        tempfile.gettempdir(), sys.flags, dict(os.environ), sys.getrecursionlimit(), os.getcwd(),
    ]

before, filters = hooks(), list(warnings.filters)
import neurosim
found = {"import": [str(a) for a, b in zip(hooks(), before) if a != b]}
found["folder"] = os.listdir(os.environ["TMPDIR"])
from circuits import alone, cell, run
net = alone(cell("du/dt = (-u + 1)/tau : 1; r = u : 1", tau="10*ms"), 2, "5*ms")
for level in ("brian2:dense", "brian2:equations", "torch:steady"):
    run(net, level)
found["run"] = [str(a) for a, b in zip(hooks(), before) if a != b]

def interrupted(work, after):
    threading.Timer(after, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        work()
        return "went on"
    except BaseException as error:
        return type(error).__name__

def loop():
    start = time.time()
    while time.time() < start + 1.5:
        pass

long = alone(cell("du/dt = (-u + 1)/tau : 1; r = u : 1", tau="10*ms"), 2, "10000*ms")
found["loop"] = interrupted(loop, 0.2)
for level in ("brian2:dense", "torch:trajectory"):
    found[level] = interrupted(lambda: run(long, level, dt="0.1*ms"), 1.0)
    found["loop after " + level] = interrupted(loop, 0.2)
found["interrupt"] = [str(a) for a, b in zip(hooks(), before) if a != b]
print(json.dumps(found))
"""
UNCAUGHT = """
import neurosim
from circuits import alone, cell, run

def of_the_script():
    run(alone(cell("du/dt = (-u + 1)/tau : 1; r = u : 1", tau="10*ms"), 2, "5*ms"), "brian2:dense")
    return 1 / 0

of_the_script()
"""


def script(text: str, folder: Path):
    """A process of its own, with a temporary folder of its own."""
    folder.mkdir()
    return subprocess.run(
        [sys.executable, "-c", BEGIN.format(tests=str(HERE)) + text], capture_output=True,
        text=True, timeout=60,
        cwd=HERE.parent, env={**os.environ, "TMPDIR": str(folder), "TEMP": str(folder),
            "TMP": str(folder)},
    )  # fmt: skip


@pytest.mark.slow
def test_a_script_is_left_as_it_is(tmp_path):
    """Hooks, error states and folders before and after the import, runs and Ctrl-C in mid-run."""
    done = script(STATES, tmp_path / "tmp")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert not any(found.pop(name) for name in ("import", "folder", "run", "interrupt"))
    assert len(found) == 5 and set(found.values()) == {"KeyboardInterrupt"}, found
    assert not list((tmp_path / "tmp").iterdir())


def test_an_uncaught_error_shows_the_plain_traceback(tmp_path):
    """Python's own words and nothing else; no file is left anywhere."""
    done = script(UNCAUGHT, tmp_path / "tmp")
    assert done.returncode == 1
    lines = done.stderr.strip().splitlines()
    assert (
        lines[0] == "Traceback (most recent call last):"
        and lines[-1] == "ZeroDivisionError: division by zero"
    )  # fmt: skip
    assert "rian" not in done.stderr and not done.stdout.strip()
    assert not list((tmp_path / "tmp").iterdir())
