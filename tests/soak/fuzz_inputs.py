"""Inputs of the fuzzer: valid ones, and generators that put a fault into them. See `fuzz.py`."""

from __future__ import annotations

import argparse
import contextlib
import functools
import gzip
import hashlib
import inspect
import io
import json
import math
import os
import pickle
import random
import re
import shlex
import shutil
import stat
import struct
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from unittest import mock

import h5py
import numpy as np
from circuits import assemble
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save as safetensors_bytes

import neurosim
from neurosim import cli, registry, tensors
from neurosim.data import cifar, idx
from neurosim.training import TrainConfig, checkpoint
from neurosim.training.evolution.config import EvolveConfig

LIMIT = 20.0  # seconds of an input
GRACE = 10.0  # seconds after them, in which a worker that does not answer to signals is ended
MEMORY = 4 << 30  # bytes of address space of a worker
LIFE = 250  # inputs of a worker, whose caches grow


@dataclass
class Input:
    """A command line (or a call into Python) in its folder."""

    run: list[str] | Callable[[], object]
    fault: str
    refuse: bool = False  # success is a finding

    def __str__(self) -> str:
        command = "neurosim " + shlex.join(self.run) if isinstance(self.run, list) else "Python"
        return f"{command}   [{self.fault}]"


def short(text: str, most: int = 400) -> str:
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= most else f"{text[: most // 2]} ...({len(text)})... {text[-most // 2 :]}"


@contextlib.contextmanager
def captured() -> Iterator[Callable[[], str]]:
    """What is printed, on streams that know UTF-8 as a terminal's do."""
    out = io.TextIOWrapper(io.BytesIO(), "utf-8")
    err = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="backslashreplace")

    def text() -> str:
        for stream in (out, err):
            stream.flush()
        return "".join(stream.buffer.getvalue().decode() for stream in (out, err))  # type: ignore[attr-defined]

    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield text


# ---------------------------------------------------------------- valid inputs

TINY = ["--set", "sizes=64,4,10"]
TRAIN = [*TINY, "--samples", "16", "--set", "batch_size=8", "--epochs", "1", "--set", "test=false"]
SIMULATE = [*TINY, "--level", "torch:steady", "--samples", "1", "--out", "o"]
BRIEF = ["--set", "t_free=4*ms", "--set", "t_nudged=4*ms", "--set", "t_learn=2*ms"]
EVOLVE = [*TINY, "--population", "3", "--steps", "2", "--set", "batch=10", "--set", "test=false"]
IMAGES = ["--set", "sizes=64,4,2", "--samples", "8", "--set", "batch_size=4", "--epochs", "1"]

EXPERIMENT = {
    "model": '"ghost_units"', "data": '"digits"', "epochs": "1", "batch_size": "8", "limit": "16", "test": "false",
    "settings.sizes": "[64, 4, 10]", "settings.mode": '"exact"', "recorder.variables": '["pyr1.u", "W1"]',
}  # fmt: skip


def make_valid(folder: Path) -> Path:
    """A new folder of valid inputs, made by the commands that make them for a user."""
    valid = folder / "valid"
    valid.mkdir()

    def command(*argv: str, status: int = 0) -> None:
        with captured() as output:
            got = cli.main(list(argv))
        if got != status:
            raise RuntimeError(f"neurosim {shlex.join(argv)} ended with {got}:\n{output()}")

    def interrupted(*arguments: Any) -> None:
        save(*arguments)
        raise KeyboardInterrupt

    save = checkpoint.save
    with contextlib.chdir(valid):
        record = ["--record", "pyr1.u", "W1", "b1", "W2", "b2"]
        command("train", "ghost_units", *TRAIN, "--set", "test=true", *record, "--out", "run")
        with mock.patch.object(checkpoint, "save", interrupted):
            command("train", "ghost_units", *TRAIN, "--epochs", "2", "--out", "ck", status=130)
        command("evolve", "tdca", *EVOLVE, "--generations", "1", "--out", "ev")
        level = ("--level", "torch:trajectory", "--samples", "1", "--record", "pyr1.u", "W1")
        command("simulate", "ghost_units", *TINY, *BRIEF, *level, "--out", "tr")
        brief = [word for setting in ("duration=3*ms", "onset=1*ms", "lag=0*ms") for word in ("--set", setting)]
        command("simulate", "bac_firing", *brief, "--level", "torch:trajectory", "--record", "both.V_s", "--out", "sp")
        Path("in.toml").write_text(_toml(EXPERIMENT))
        images = np.linspace(0, 1, 128).reshape(2, 64)
        np.savez("x.npz", images=images, labels=np.array([3, 8]))
        for part in ("train", "test"):
            for name in ("cat", "dog"):
                folder = Path("imgs", part, name)
                folder.mkdir(parents=True)
                for k in range(10):
                    pixels = np.full((8, 8), 20 * k, np.uint8)
                    Image.fromarray(pixels).save(folder / f"{k}.png")
        with tarfile.open("imgs.tar", "w") as tar:
            tar.add("imgs", ".")
        with h5py.File("secret.h5", "w") as file:
            file["x"] = np.arange(1000.0)
        Path("secret.bin").write_bytes(bytes(8000))
    build(CIRCUIT, simulated=True)
    return valid


def _toml(values: dict[str, str]) -> str:
    """Keys with a dot stand in tables; values are TOML already."""
    top = [f"{key} = {value}" for key, value in values.items() if "." not in key]
    tables: dict[str, list[str]] = {}
    for key, value in values.items():
        if "." in key:
            head, _, name = key.partition(".")
            tables.setdefault(head, []).append(f"{name} = {value}")
    return "\n".join([*top, *(line for head, lines in tables.items() for line in (f"[{head}]", *lines))]) + "\n"


# ---------------------------------------------------------------- odd values

INFINITE = ("nan", "inf", "-inf", "1e400", "-1e400")
NUMBERS = (
    "0", "-1", "2", "3.5", "0.5", "-0.0", "1e-320", "1e308", "-1e308", "99999999999999999999", "1e38", "1_000", "0x10",
    "010", "1e", "--1", "+1", "1.", "1,5", "1,", "(1,2)", "64,-4,10", "64,0,10", "64,4.5,10", "64", "64,1e400,10", "1/3",
    "9" * 5000, *INFINITE,
)  # fmt: skip
TEXTS = (
    "", " ", "abc", "None", "none", "true", "False", "()", "[]", "{}", "{'a': 1}", "b'a'", "1j", "'x'", "'", '"', "\\",
    "é", "e\u0301", "\u202e", "\udcff", "x" * 10000, "%s%n", "{0}", "*", "a\nb", "\x1b[31m", "None,None", "nan,nan",
    "[[[1]]]", "[" * 150, "(1,", "1 2", "=1+1", "<script>", "a|b", "🧠", "١٢", "lambda: 0", "..", "--set", "-", "\t", "\x7f",
    "__import__('os').system('touch mark')", "open('mark', 'w')",
)  # fmt: skip
QUANTITIES = (
    "1*ms", "-1*ms", "0*ms", "1e-300*ms", "1e300*second", "9**9**9*ms", "2**-9**9*ms", "9**9**9", "1/0*ms", "0/0*ms",
    "0**-1*ms", "5*mV", "ms", "1 ms", "10*foo", "1*ms*ms", "ms**1000000", "ms**9**9**9", "ms**0.5*ms**0.5", "(1+2)*ms",
    "1j*ms", "(-1)**0.5*ms", "True*ms", "[1,2]*ms", "1*ms;2", "1+" * 2000 + "1", "(" * 300 + "1" + ")" * 300 + "*ms",
    "-" * 3000 + "1*ms", "1" * 5000 + "*ms", "10**400*ms", "1e400*ms", "-1e400*ms", "nan*ms", "inf*ms", "(inf-inf)*ms",
    "١*ms", "5*µs", "ｍｓ", "1*ms if True else 2*ms", "ms.dim", "ms[0]", "'a'*9**9*ms", "[0]*9**9", "1<<9**9", "~1*ms",
    "exp(1000)*ms", "*ms", "1**", "1*ms # comment", "1*ms\n2", "a := 1*ms", "f'{1}'*ms", "{1}*ms", "yield 1", "\x00",
    "__import__('os').system('touch mark')*ms", "().__class__.__base__.__subclasses__()", "brian2.ms", "second*nan",
)  # fmt: skip
RAW = (
    "nan", "inf", "-inf", "1e400", "0", "-1", "1.5", "1e-320", "1e308", "99999999999999999999", "1" * 5000, "0x10", "true",
    '""', '"abc"', '"\\u0000"', '"\\u001b[31m"', '"\\U0001F600"', '"""a\nb"""', "'x'", "[]", "[1, \"a\"]", "[nan]", "[[[1]]]",
    "[true]", "{}", "{a = 1}", "{a = {b = nan}}", "1979-05-27", "1979-05-27T07:32:00Z", "07:32:00", '"1"', '["1", "2"]',
    "[64, 4, 10]", "[64, 4.0, 10]", "[64, -4, 10]", "[" * 200 + "]" * 200, '"' + "x" * 10000 + '"', '"<script>|`"', '"../x"',
    '"9**9**9*ms"', '"nan*ms"', '"inf*ms"', '"none"', '"evil.py:circuit"', '"nan"',
)  # fmt: skip
OBJECTS: tuple[Any, ...] = (
    None, True, 0, -1, 1.5, float("nan"), float("inf"), 10**400, "", "abc", "1", "nan", b"a", [], [1], ["a"], {}, {"a": 1},
    [[1], [2, 3]], (), 1j, object(), int, np.nan, np.array([]), np.array([np.inf]), np.array(["a"]), np.array(None),
    np.ma.masked, "-70*mV", ["-70*mV", "-60*mV"], range(3), {1, 2}, float("-inf"), np.datetime64("2020"), np.float32(1),
    "9**9**9*ms", np.zeros((2, 64)), np.zeros((0, 64)), np.zeros((2, 3, 4, 5)), slice(1),
)  # fmt: skip
JSONS: tuple[Any, ...] = (
    None, True, False, 0, -1, 1.5, float("nan"), float("inf"), 10**400, 1e308, "", "abc", "1", [], [1], ["a"], {}, {"a": 1},
    [[1], [2]], "\ud800", "\x00", "x" * 10000, [None], {"": None}, -(10**30), "nan", "<script>", "../x", "evil.py:circuit",
)  # fmt: skip
PATHS = ("", " ", ".", "..", "run", "in.toml", "missing/x", "missing", "x" * 300, "run/weights.safetensors", "tr", "x.npz",
         "~/x", "./~", "a\nb", "é", "\udcff", "o.png", "o.csv", "o.svg", "o.tex", "o.xyz", "imgs", "ev", "in.toml/x", "*", "-", "run/",
         "x.npz/", "sp/traces.h5", "a:b/c")  # fmt: skip
#: Lengths of a training for which a user would wait.
LONG_WORK = re.compile(r"9{5}|1e308|1e300|1e38|0x10|1_000|1e400|inf|1{9}")

#: Kinds of values; each parameter gets one of each in turn.
KINDS = (INFINITE, NUMBERS, TEXTS, QUANTITIES, ("nan*ms", "inf*ms", "-1e400*ms"), NUMBERS, TEXTS)


def _odd_text(rng: random.Random, turn: int | None = None) -> str:
    return rng.choice(rng.choice(KINDS) if turn is None else KINDS[turn % len(KINDS)])


def _in_turn(walk: Sequence[Any], turn: int) -> tuple[Any, int]:
    """An element of a walk, and how often it was taken before; a few turns come to all parts of the walk."""
    step = next(k for k in range(int(0.38 * len(walk)) + 1, len(walk)) if math.gcd(k, len(walk)) == 1)
    place = turn * step % len(walk)
    return walk[place], turn // len(walk) + place


def _odd_bytes(rng: random.Random, content: bytes) -> tuple[bytes, str]:
    """Content with a fault that a disk, a network or an editor makes."""
    at = rng.randrange(len(content) + 1)
    length = min(rng.choice((1, 4, 16, 100, 1000)), len(content))
    match rng.randrange(9):
        case 0:
            return content[:at], f"truncated at {at}"
        case 1:
            changed = bytearray(content)
            for _ in range(rng.choice((1, 3, 30)) if content else 0):
                changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
            return bytes(changed), "bits flipped"
        case 2:  # where formats keep their lengths
            changed = bytearray(content)
            for _ in range(rng.choice((1, 4)) if content else 0):
                changed[rng.randrange(min(len(changed), 256))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
            return bytes(changed), "beginning changed"
        case 3:
            return content[:at] + content[at + length :], f"{length} bytes lost at {at}"
        case 4:
            return content[:at] + rng.randbytes(length) + content[at:], f"{length} bytes put in at {at}"
        case 5:
            return content[:at] + bytes(length) + content[at + length :], f"{length} zeros at {at}"
        case 6:
            return content + content[at:], f"repeated from {at}"
        case 7:
            return rng.choice((b"", b"\0", b"\n", b"\xff\xfe", rng.randbytes(length))), "other content"
        case _:
            odd = rng.choice((b"\xef\xbb\xbf", b"\xff\xfe", b"\xe9", b"\0", b"\r\n", b"\x80"))
            at = rng.choice((0, at))
            return content[:at] + odd + content[at:], f"{odd!r} at {at}"


def _odd_json(rng: random.Random, value: Any) -> tuple[Any, str]:
    """JSON with one value replaced by one of another type, deleted, or nested."""
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            places.append((node, key))
            walk(node[key])

    value = json.loads(json.dumps(value))
    walk(value)
    if not places or rng.random() < 0.1:
        odd = rng.choice(JSONS)
        return odd, f"all is {odd!r:.60}"
    node, key = rng.choice(places)
    what = rng.random()
    if what < 0.2:
        del node[key]
        return value, f"{key} deleted"
    if what < 0.3 and isinstance(node, dict):
        node[rng.choice(TEXTS)] = rng.choice(JSONS)
        return value, "another key"
    odd = rng.choice(JSONS)
    node[key] = odd
    return value, f"{key} = {odd!r:.60}"


def _odd_json_text(rng: random.Random, text: str) -> tuple[bytes, str]:
    if rng.random() < 0.1:
        deep = 10**5
        return (b"[" * deep + b"]" * deep, "nested 100,000 deep") if rng.random() < 0.5 else (b'{"a":' * deep, "nested")
    value, fault = _odd_json(rng, json.loads(text))
    return json.dumps(value).encode(), fault


def _odd_lines(rng: random.Random, text: str) -> tuple[bytes, str]:
    lines = text.splitlines()
    at = rng.randrange(len(lines))
    line, fault = _odd_json_text(rng, lines[at])
    return "\n".join(lines[:at]).encode() + b"\n" + line + b"\n" + "\n".join(lines[at + 1 :]).encode(), fault


def _odd_array(rng: random.Random, array: np.ndarray) -> tuple[np.ndarray, str, bool]:
    """An array with a fault, and whether that is NaN or infinity."""
    if array.dtype.kind == "f" and array.size and rng.random() < 0.4:
        array, odd = array.copy(), rng.choice((np.nan, np.inf, -np.inf))
        array.flat[rng.randrange(array.size)] = odd
        return array, f"{odd} in it", True
    choices: list[tuple[np.ndarray, str]] = [
        (array[..., :-1] if array.ndim else array, "shorter"),
        (array.reshape(-1), "flat"),
        (array[None], "another axis"),
        (array.astype(np.int8, casting="unsafe"), "int8"),
        (array.astype(np.float16, casting="unsafe"), "float16"),
        (np.zeros(0, array.dtype), "empty"),
        (np.full_like(array, 1e38, dtype=np.float32), "1e38"),
        (np.zeros(array.shape, bool), "bool"),
        (np.asarray(array).T, "transposed"),
    ]
    return *rng.choice(choices), False


def _odd_safetensors(rng: random.Random, content: bytes) -> tuple[bytes, str, bool]:
    """A safetensors file with a fault: in its bytes, its header, or (its checksum made anew) its state and arrays."""
    size = int.from_bytes(content[:8], "little")
    what = rng.random()
    if what < 0.3:
        return *_odd_bytes(rng, content), False
    if what < 0.45:
        head, fault = _odd_json_text(rng, content[8 : 8 + size].decode())
        return len(head).to_bytes(8, "little") + head + content[8 + size :], f"header: {fault}", False
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        with safe_open(file.name, framework="numpy") as opened:
            metadata = dict(opened.metadata() or {})
            arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a dict)
    fault, infinite = "", False
    _, _, header = metadata.get("neurosim", "").partition(" ")
    if what < 0.7 and header:
        state, fault = _odd_json(rng, json.loads(header))
        header = json.dumps(state)
    else:
        name = rng.choice(sorted(arrays))
        if what < 0.8:
            del arrays[name]
            fault = f"{name} lacks"
        elif what < 0.85:
            arrays[rng.choice(TEXTS)] = arrays.pop(name)
            fault = f"{name} renamed"
        else:
            arrays[name], fault, infinite = _odd_array(rng, arrays[name])
            fault = f"{name}: {fault}"
    arrays = {name: np.ascontiguousarray(values) for name, values in arrays.items()}
    if "neurosim" in metadata:
        metadata["neurosim"] = f"{tensors._checksum(header, arrays)} {header}"
    try:
        return safetensors_bytes(arrays, metadata or None), fault, infinite
    except Exception:  # names and types that the format does not have
        return content[:-1], "truncated by 1", False


# ---------------------------------------------------------------- targets

Make = Callable[[random.Random, "Box", int], Input]
TARGETS: dict[str, tuple[int, Make]] = {}


def target(weight: int) -> Callable[[Make], Make]:
    """A generator of inputs, and its share of them."""

    def add(make: Make) -> Make:
        TARGETS[make.__name__] = weight, make
        return make

    return add


class Box:
    """The folder of one input: `cwd`, in which commands run, a home, and places for what is temporary."""

    def __init__(self, root: Path, valid: Path):
        self.root, self.valid, self.cwd = root, valid, root / "cwd"
        for name in ("cwd", "home", "tmp", "cache"):
            (root / name).mkdir(parents=True)

    def copy(self, *names: str) -> None:
        for name in names:
            source = self.valid / name
            if source.is_dir():
                shutil.copytree(source, self.cwd / name)
            else:
                shutil.copy(source, self.cwd / name)

    def change(self, name: str, change: Callable[[bytes], tuple[bytes, str]]) -> str:
        """Change a file's content; returns the fault."""
        path = self.cwd / name
        content, fault = change(path.read_bytes())
        path.write_bytes(content)
        return f"{name}: {fault}"

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Work here, with this home."""
        here = {"HOME": self.root / "home", "TMPDIR": self.root / "tmp", "NEUROSIM_CACHE": self.root / "cache"}
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("XDG_", "NEUROSIM_"))}
        environment |= {key: str(value) for key, value in here.items()}
        with (
            contextlib.chdir(self.cwd),
            mock.patch.dict(os.environ, environment, clear=True),
            mock.patch.object(tempfile, "tempdir", str(self.root / "tmp")),
        ):
            yield

    def files(self) -> dict[str, str]:
        """What each file is and holds, by its path below the root; what is temporary is left out."""
        found: dict[str, str] = {}
        for folder, folders, files in os.walk(self.root):
            if folder == str(self.root):
                folders[:] = ["cwd", "home"]
            for name in (*folders, *files):
                path = os.path.join(folder, name)
                status = os.lstat(path)
                if stat.S_ISREG(status.st_mode) and status.st_size < 1 << 24:
                    with open(path, "rb") as file:
                        content = hashlib.md5(file.read(), usedforsecurity=False).hexdigest()
                elif stat.S_ISREG(status.st_mode):
                    content = f"{status.st_size} {status.st_mtime_ns}"
                else:
                    content = os.readlink(path) if stat.S_ISLNK(status.st_mode) else ""
                found[os.path.relpath(path, self.root)] = f"{stat.S_IFMT(status.st_mode)} {content}"
        return found


@functools.cache
def _parameters() -> list[tuple[str, str, Any]]:
    """Each parameter of each model, with its default."""
    return [(m, name, p.default) for m in registry.names() for name, p in registry.model(m).parameters.items()]


def _is_number(default: Any) -> bool:
    """Whether a parameter is a number, or a time, as far as its default says."""
    several = default if isinstance(default, tuple) and default else (default,)
    numeric = all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in several)
    return numeric or (isinstance(default, str) and "*" in default)


def _not_finite(value: Any) -> bool:
    if isinstance(value, str):
        return value.removesuffix("*ms") in INFINITE
    return isinstance(value, float) and not np.isfinite(value)


#: Models that train in a fraction of a second.
TRAINED = ("ghost_units", "dendritic_microcircuit", "equilibrium_propagation", "predictive_coding", "counter_current")


@target(24)
def model_setting(rng: random.Random, box: Box, turn: int) -> Input:
    """`--set` of each parameter of each model in turn."""
    walk = _parameters()
    (model, name, default), before = _in_turn(walk, turn)
    value = _odd_text(rng, before)
    refuse = _is_number(default) and _not_finite(value)
    setting = ["--set", f"{name}={value}"]
    if model in TRAINED and rng.random() < 0.15 and not (name == "sizes" and LONG_WORK.search(value)):
        return Input(["train", model, *TRAIN, *setting, "--out", "o"], name, refuse)
    if rng.random() < 0.05:
        return Input(["plot", model, *setting, "--kind", "network", "--to", "o.svg"], name, refuse)
    return Input(["describe", model, *setting], name, refuse)


LONG_KEYS = ("epochs", "generations", "population", "steps", "tasks", "batch", "max_sweeps")


@target(9)
def schedule_setting(rng: random.Random, box: Box, turn: int) -> Input:
    """`--set` of each key of the schedule of a training, or of an evolution."""
    walk = [(TrainConfig, f) for f in fields(TrainConfig)] + [(EvolveConfig, f) for f in fields(EvolveConfig)]
    (kind, key), before = _in_turn(walk, turn)
    value = _odd_text(rng, before)
    if key.name in LONG_KEYS and LONG_WORK.search(value):
        value = "2"
    refuse = _is_number(key.default) and _not_finite(value)
    setting = ["--set", f"{key.name}={value}"]
    if kind is TrainConfig:
        return Input(["train", "ghost_units", *TRAIN, *setting, "--out", "o"], key.name, refuse)
    return Input(["evolve", "tdca", *EVOLVE, "--generations", "1", *setting, "--out", "o"], key.name, refuse)


RECORDER_KEYS = ("variables", "cells", "stride", "phases", "trials", "path", "spikes", "weights")
OTHER_KEYS = (
    "seeds", "run", "grid", "grid.seed", "grid.learning_rate", "a", "sizes", "é", '""', '"a b"', '"a\\u0000"',
)  # fmt: skip


@target(11)
def experiment_file(rng: random.Random, box: Box, turn: int) -> Input:
    """An experiment or sweep file with odd values, odd keys, odd bytes."""
    values, faults, refuse = dict(EXPERIMENT), [], False
    numbers = {f.name for f in fields(TrainConfig) if _is_number(f.default)}
    models = [m for m in TRAINED for _ in range(2)] + registry.names()
    model = rng.choice(models)
    if rng.random() < 0.5:
        values["model"] = f'"{model}"'
        for key in ("settings.mode", "recorder.variables"):
            del values[key]
    else:
        model = "ghost_units"
    parameters = registry.model(model).parameters
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        raw = rng.choice(RAW)
        finite = raw not in ("nan", "inf", "-inf", "1e400", '"nan*ms"', '"inf*ms"')
        match rng.randrange(8):
            case 0 | 1 | 2:
                key = rng.choice([f.name for f in fields(TrainConfig)])
                if key == "epochs" and LONG_WORK.search(raw):
                    continue
                refuse |= key in numbers and not finite
            case 3 | 4 | 5:
                name = rng.choice(list(parameters))
                if name == "sizes" and LONG_WORK.search(raw):
                    continue
                key = f"settings.{name}"
                refuse |= _is_number(parameters[name].default) and not finite
            case 6:
                key = "recorder." + rng.choice(RECORDER_KEYS)
            case _:
                key = rng.choice(OTHER_KEYS)
        values[key] = raw
        faults.append(f"{key} = {short(raw, 60)}")
    content = _toml(values).encode()
    if rng.random() < 0.15:
        content, fault = _odd_bytes(rng, content)
        faults, refuse = [*faults, fault], False
    (box.cwd / "in.toml").write_bytes(content)
    (box.cwd / "evil.py").write_text("open('mark', 'w')\n")
    dry = rng.random() < 0.5
    argv = ["sweep", "in.toml", "--dry-run", "--out", "o"] if dry else ["train", "in.toml", "--out", "o"]
    if "evil.py" in content.decode(errors="replace"):  # the experiment is the user's own, and trains this model
        argv = ["sweep", "in.toml", "--dry-run", "--out", "o"]
    return Input(argv, "; ".join(faults), refuse)


#: Of each command, valid command lines.
COMMANDS: dict[str, list[list[str]]] = {
    "list": [[]],
    "describe": [["ghost_units", *TINY]],
    "plot": [["run", "--to", "o.png"], ["tr", "--to", "o.png"], ["sp", "--kind", "raster", "--to", "o.png"], ["ghost_units", "--to", "o.svg"],
             ["ev", "--to", "o.png"], ["run", "--kind", "fields", "--to", "o.png"]],
    "simulate": [["ghost_units", *SIMULATE]],
    "compare": [["ghost_units", *TINY, *BRIEF, "--samples", "1", "--levels", "torch:steady", "torch:trajectory", "--out", "o"]],
    "train": [["ghost_units", *TRAIN, "--out", "o"], ["in.toml", "--out", "o"], ["--resume", "ck"]],
    "evolve": [["tdca", *EVOLVE, "--generations", "1", "--out", "o"], ["--resume", "ev"]],
    "sweep": [["in.toml", "--dry-run", "--out", "o"]],
    "table": [["run", "--to", "o.md"]],
    "export": [["tr", "--to", "o.csv"], ["run", "--to", "o.csv"]],
    "data": [[]],
    "trust": [["evil.py"]],
}  # fmt: skip


@functools.cache
def _options() -> list[tuple[str, argparse.Action]]:
    """Each option of each command."""
    subparsers = next(a for a in cli.parser()._actions if isinstance(a, argparse._SubParsersAction))
    left_out = ("--help", "--debug", "--scheduler")  # a cluster is waited for
    return [
        (command, action)
        for command, sub in subparsers.choices.items()
        for action in sub._actions
        if not set(left_out) & set(action.option_strings) and not isinstance(action, argparse._SubParsersAction)
    ]


@target(15)
def command_line(rng: random.Random, box: Box, turn: int) -> Input:
    """Each option of each command in turn, with an odd value."""
    walk = _options()
    (command, action), _ = _in_turn(walk, turn)
    argv = list(rng.choice(COMMANDS[command]))
    if command == "compare" and rng.random() < 0.7:  # the slow one
        argv = ["ghost_units", *TINY, "--samples", "1", "--levels", "torch:steady", "--out", "o"]
    others = [a for c, a in walk if c == command and a.option_strings]
    chosen = [action, *rng.sample(others, min(len(others), rng.choice((0, 0, 0, 1, 2))))]
    for each in chosen:
        name = each.option_strings[-1] if each.option_strings else ""
        if each.nargs == 0:
            argv.append(name)
            continue
        odd = [
            _odd_argument(rng, name or each.dest)
            for _ in range(rng.choice((1, 1, 2)) if each.nargs in ("+", "*") else 1)
        ]
        if not name and argv and not argv[0].startswith("-"):
            argv[0:1] = odd
        elif name and rng.random() < 0.2:
            argv.append(f"{name}={odd[0]}")
        else:
            argv += [name, *odd] if name else odd
    box.copy("run", "tr", "sp", "ck", "ev", "in.toml", "x.npz", "imgs")
    (box.cwd / "evil.py").write_text("open('mark', 'w')\n")
    if rng.random() < 0.25:  # what lies there already is not to be lost
        for name in ("o.png", "o.svg", "o.csv", "o.md", "o.tex"):
            (box.cwd / name).write_text("kept")
    return Input([command, *argv], f"{command} {action.option_strings or action.dest}")


PATH_OPTIONS = (
    "--out", "--to", "--resume", "--weights", "--data-dir", "--stimuli", "--credits", "path", "paths", "folders", "file", "files", "model",
)  # fmt: skip
LONG_OPTIONS = ("--epochs", "--generations", "--population", "--steps", "--batch-size")
NAMES = (
    "pyr1.u", "W1", "pyr1", "ghost1.u", "nudged", "torch:steady", "pyr1=0,3", "pyr1=", "pyr1=99", "pyr1=-1", "=", "pyr1=0,0", "both.V_s",
)  # fmt: skip


def _odd_argument(rng: random.Random, option: str) -> str:
    if option in PATH_OPTIONS:
        return rng.choice(PATHS) if rng.random() < 0.85 else rng.choice(TEXTS)
    if option == "--data":
        return rng.choice(("digits", "mnist", "images:imgs", "images:", "images:x.npz", "images:..", *TEXTS))
    odd = rng.choice((rng.choice(NAMES), _odd_text(rng)))
    return "2" if option in LONG_OPTIONS and LONG_WORK.search(odd) else odd


#: Commands that look at a run folder, or go on from it.
LOOKS: list[list[str]] = [
    ["table", "run"], ["table", "run", "--format", "csv"], ["table", "run", "--format", "latex"],
    ["plot", "run", "--to", "o.png"], ["plot", "run", "--kind", "weights", "--to", "o.png"],
    ["plot", "run", "--kind", "fields", "--record", "W1", "--to", "o.png"],
    ["plot", "run", "--kind", "cosine", "--samples", "4", "--to", "o.png"],
    ["plot", "run", "--kind", "cka", "--samples", "4", "--to", "o.png"], ["plot", "run", "--kind", "traces", "--to", "o.png"],
    ["describe", "ghost_units", "--weights", "run"], ["export", "run", "--to", "o.csv"],
    ["sweep", "in.toml", "--dry-run", "--out", "sw"],
]  # fmt: skip
#: Those that must refuse weights that are not finite.
RUNS: list[list[str]] = [
    ["simulate", "ghost_units", *SIMULATE, "--weights", "run"], ["train", "ghost_units", *TRAIN, "--weights", "run", "--out", "o"],
    ["plot", "run", "--kind", "cka", "--samples", "4", "--to", "o.png"],
]  # fmt: skip


#: Files of a run folder; those with more to go wrong come more often.
RUN_FILES = (*["config.toml"] * 3, *["weights.safetensors"] * 4, *["result.json", "metrics.jsonl", "run.json"] * 2, "timing.jsonl")  # fmt: skip


@target(13)
def run_folder(rng: random.Random, box: Box, turn: int) -> Input:
    """A file of a run folder with a fault; then a command that reads it."""
    box.copy("run", "in.toml")
    name, infinite = rng.choice(RUN_FILES), False
    what = rng.random()
    if what < 0.04:
        (box.cwd / "run" / name).unlink()
        (box.cwd / "run" / name).mkdir()
        fault = f"run/{name} is a folder"
    elif what < 0.06:
        (box.cwd / "run" / name).unlink()
        os.mkfifo(box.cwd / "run" / name)
        fault = f"run/{name} is a pipe"
    elif name == "weights.safetensors":
        content, fault, infinite = _odd_safetensors(rng, (box.cwd / "run" / name).read_bytes())
        (box.cwd / "run" / name).write_bytes(content)
        fault = f"{name}: {fault}"
    else:
        fault = box.change(f"run/{name}", lambda content: _odd_run_file(rng, name, content))
    (box.cwd / "run" / "evil.py").write_text("open('mark', 'w')\n")
    (box.cwd / "evil.py").write_text("open('mark', 'w')\n")
    argv = list(rng.choice(RUNS if infinite else LOOKS + RUNS + [["train", "--resume", "run"]]))
    if argv[0] == "sweep":
        (box.cwd / "sw/ghost_units").mkdir(parents=True)
        shutil.move(box.cwd / "run", box.cwd / "sw/ghost_units/seed0")
    return Input(argv, fault, infinite)


def _odd_run_file(rng: random.Random, name: str, content: bytes) -> tuple[bytes, str]:
    if rng.random() < 0.3:
        return _odd_bytes(rng, content)
    if name.endswith(".json"):
        return _odd_json_text(rng, content.decode())
    if name.endswith(".jsonl"):
        return _odd_lines(rng, content.decode())
    return _odd_toml(rng, content.decode())


def _odd_toml(rng: random.Random, text: str) -> tuple[bytes, str]:
    lines = text.splitlines()
    if rng.random() < 0.3:  # a stranger's model
        evil = rng.choice(("evil.py:circuit", "run/evil.py:circuit", "run/evil.py", "./evil.py"))
        return re.sub("(?m)^model = .*$", f'model = "{evil}"', text).encode(), f"model = {evil}"
    at = rng.choice([n for n, line in enumerate(lines) if "=" in line])
    key = lines[at].partition("=")[0]
    raw = rng.choice(RAW)
    lines[at : at + 1] = [] if rng.random() < 0.1 else [f"{key}= {raw}"]
    return ("\n".join(lines) + "\n").encode(), f"{key}= {short(raw, 60)}"


@target(4)
def checkpoint_file(rng: random.Random, box: Box, turn: int) -> Input:
    """The checkpoint of a training that was stopped."""
    box.copy("ck")
    path = box.cwd / "ck" / checkpoint.NAME
    content, fault, infinite = _odd_safetensors(rng, path.read_bytes())
    path.write_bytes(content)
    return Input(["train", "--resume", "ck"], fault, infinite)


@target(5)
def evolution_folder(rng: random.Random, box: Box, turn: int) -> Input:
    """A folder of `neurosim evolve`, its credits among them."""
    box.copy("ev")
    names = ["config.json", "run.json", "result.json", "metrics.jsonl"] + [
        "checkpoint.safetensors",
        "evolved.safetensors",
    ] * 3
    name, infinite = rng.choice(names), False
    if name.endswith(".safetensors"):
        content, fault, infinite = _odd_safetensors(rng, (box.cwd / "ev" / name).read_bytes())
        (box.cwd / "ev" / name).write_bytes(content)
        fault = f"{name}: {fault}"
    else:
        fault = box.change(f"ev/{name}", lambda content: _odd_run_file(rng, name, content))
    (box.cwd / "evil.py").write_text("open('mark', 'w')\n")
    (box.cwd / "ev" / "evil.py").write_text("open('mark', 'w')\n")
    reads = [
        ["train", "tdca", *TRAIN, "--credits", "ev", "--out", "o"],
        ["describe", "tdca", *TINY, "--set", "credits=ev"],
    ]
    others = [["evolve", "--resume", "ev", "--generations", "2"], ["plot", "ev", "--to", "o.png"], ["table", "ev"]]
    if name == "evolved.safetensors":
        return Input(rng.choice(reads), fault, infinite)
    return Input(rng.choice(others[:1] if infinite or name == checkpoint.NAME else others), fault, infinite)


@target(9)
def trace_file(rng: random.Random, box: Box, turn: int) -> Input:
    """A recording with a fault in its bytes or its objects."""
    name = rng.choice(("tr", "tr", "sp"))
    box.copy(name, "secret.h5", "secret.bin")
    path, refuse = f"{name}/traces.h5", False
    if rng.random() < 0.25:
        fault = box.change(path, lambda content: _odd_bytes(rng, content))
    else:
        with h5py.File(box.cwd / path, "r+") as file:
            fault, refuse = _odd_object(rng, file, box)
    argv = rng.choice((
        ["export", path, "--to", "o.csv"], ["plot", path, "--to", "o.png"], ["plot", path, "--kind", "raster", "--to", "o.png"],
        ["plot", path, path, "--kind", "levels", "--to", "o.png"], ["plot", path, "--kind", "weights", "--to", "o.png"],
        ["plot", path, "--kind", "rates", "--to", "o.png"],
    ))  # fmt: skip
    return Input(argv, fault, refuse)


HDF5_TYPES = ("S4", "f2", "i1", "u8", "c16", bool, "f8")
#: What an attribute may hold in place of what it should.
ATTRIBUTES: tuple[Any, ...] = (
    0, -1, 99, 1.5, np.nan, "", "abc", "[1]", "null", "[" * 10000, b"\xff\xfe", np.zeros(0), np.arange(5), np.array([-1, 10**9]),
    h5py.Empty("f8"), "é", "x" * 10000, np.float64(np.inf), True, np.zeros((2, 2)),
)  # fmt: skip


def _odd_object(rng: random.Random, file: h5py.File, box: Box) -> tuple[str, bool]:
    """Put a fault into one object of an HDF5 file; returns it, and whether it must be refused."""
    names: list[str] = []
    file.visit(names.append)
    name = rng.choice(names)
    old = file[name]
    shape = old.shape if isinstance(old, h5py.Dataset) else (3,)
    what = rng.randrange(16)
    if what < 4:
        holder = file if rng.random() < 0.3 else old
        attributes = list(holder.attrs) or ["unit"]
        attribute = rng.choice(attributes)
        if rng.random() < 0.25:
            holder.attrs.pop(attribute, None)
            return f"{holder.name}.{attribute} deleted", False
        odd = rng.choice((*ATTRIBUTES, file.ref))
        holder.attrs[attribute] = odd
        return f"{holder.name}.{attribute} = {odd!r:.40}", False
    if what == 4 and isinstance(old, h5py.Dataset) and old.size and old.dtype.kind == "f":
        values = old[...]
        odd = rng.choice((np.nan, np.inf, -1.0, 1e308))
        values.flat[rng.randrange(values.size)] = odd
        old[...] = values
        moment = name in ("time", "phases/start", "phases/stop")  # a state may have diverged, a clock not
        return f"{name}: {odd} in it", moment and _not_finite(odd)
    del file[name]
    if what == 5:
        return f"{name} deleted", False
    if what == 6:
        file.create_group(name)
        return f"{name} is a group", False
    if what == 7:
        file[name] = rng.choice((0, "abc", np.nan))
        return f"{name} is a scalar", False
    if what == 8:
        file[name] = h5py.ExternalLink("secret.h5", "/x")
        return f"{name} is an external link", True
    if what == 9:
        file[name] = h5py.SoftLink(rng.choice(("/nowhere", "/", "/time", f"/{name}", ".", "..")))
        return f"{name} is a soft link", False
    if what == 10:
        size = max(int(np.prod(shape)), 1)
        (box.cwd / "secret.bin").write_bytes(bytes(8 * size))
        file.create_dataset(name, shape, "f8", external=[("secret.bin", 0, 8 * size)])
        return f"{name} in external storage", True
    if what == 11:
        layout = h5py.VirtualLayout((1000,), "f8")
        layout[:] = h5py.VirtualSource("secret.h5", "x", (1000,))
        file.create_virtual_dataset(name, layout)
        return f"{name} is virtual", True
    if what == 12:
        rows = rng.choice((10**6, 10**8, 10**12, 2**63 - 1))
        try:
            file.create_dataset(name, (rows, *shape[1:]), rng.choice(("f8", "S8", "i8")), chunks=(1000, *(min(n, 8) for n in shape[1:])),
                                compression=rng.choice((None, "gzip")))  # fmt: skip
        except (OSError, ValueError):  # more than HDF5 writes
            file.create_dataset(name, (10**9,), "f8", chunks=(1000,))
        return f"{name} claims {rows} rows", False
    kind = rng.choice((*HDF5_TYPES, h5py.string_dtype(), h5py.ref_dtype, [("a", "f8")], h5py.vlen_dtype("f8")))
    odd_shape = rng.choice((shape, (0,), (), (2, 2), (*shape, 2), (3,), (1, 1, 1), shape[1:] or (5,)))
    file.create_dataset(name, odd_shape, kind)
    return f"{name} has {kind!r:.40} of {odd_shape}", False


MEMBERS = ("images.npy", "labels.npy", "images", "../mark")


@target(4)
def stimuli_file(rng: random.Random, box: Box, turn: int) -> Input:
    """A file .npz with stimuli."""
    box.copy("x.npz")
    path, infinite = box.cwd / "x.npz", False
    with np.load(path) as file:
        arrays = dict(file)
    match rng.randrange(6):
        case 0 | 1:
            fault = box.change("x.npz", lambda content: _odd_bytes(rng, content))
        case 2 | 3:
            name = rng.choice(list(arrays))
            arrays[name], fault, infinite = _odd_array(rng, arrays[name])
            np.savez(path, **arrays)
            fault = f"{name}: {fault}"
        case 4:
            name, odd = rng.choice(("images", "labels", "x", "images/../x")), rng.choice(OBJECTS)
            with contextlib.suppress(Exception):
                np.savez(path, **{**arrays, name: np.array(odd, dtype=rng.choice((None, object)))})
            fault = f"{name} = {odd!r:.40}"
        case _:  # a member that is no array, or lies about its size
            header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (%s), }"
            claim = rng.choice((b"1000000000000, 64", b"2, -64", b"9" * 30 + b",", b"1" * 5000 + b",", b"2, 64"))
            text = header % claim + b" " * 20 + b"\n"
            member = rng.choice((b"abc", b"", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text,
                                 b"\x93NUMPY\x01\x00\xff\xff{", b"\x93NUMPY\x09\x00\x01\x00{", pickle.dumps([1])))  # fmt: skip
            with zipfile.ZipFile(path, "w") as archive:
                for name in rng.sample(MEMBERS, rng.choice((0, 1, 2))):
                    archive.writestr(name, member)
            fault = f"member {member!r:.60}"
    return Input(["simulate", "ghost_units", *SIMULATE[:-4], "--stimuli", "x.npz", "--out", "o"], fault, infinite)


class Evil:
    """Unpickling it runs code."""

    def __init__(self, function: Callable[..., Any], *arguments: Any):
        self._call = function, arguments

    def __reduce__(self) -> Any:
        return self._call


EVIL = Evil(os.system, "touch mark"), Evil(eval, "open('mark', 'w')"), Evil(bytearray, 10**12), Evil(np.zeros, 10**11)
IMAGE_NAMES = (b"/\xff.png", b"/a\nb.png", "/é.png".encode(), "/e\u0301.png".encode(), b"/.png", b"/x.PNG")
MEMBER_TYPES = (
    tarfile.REGTYPE,
    tarfile.SYMTYPE,
    tarfile.LNKTYPE,
    tarfile.CHRTYPE,
    tarfile.FIFOTYPE,
    tarfile.GNUTYPE_SPARSE,
)
MEMBER_NAMES = (
    "../mark", "train/cat/3.png", "train/../../mark.png", "train/cat/é.png", "train/cat/\udcff.png", "x" * 300, "train/cat", ".",
)  # fmt: skip


@target(5)
def image_set(rng: random.Random, box: Box, turn: int) -> Input:
    """Folders and archives of images."""
    packed = rng.random() < 0.5
    box.copy("imgs.tar" if packed else "imgs")
    if packed:
        fault = _odd_archive(rng, box)
        return Input(["train", "ghost_units", *IMAGES, "--data", "images:imgs.tar", "--out", "o"], fault)
    folder = box.cwd / "imgs" / rng.choice(("train", "test")) / "cat"
    path = folder / "3.png"
    match rng.randrange(9):
        case 0 | 1:
            fault = box.change(str(path.relative_to(box.cwd)), lambda content: _odd_bytes(rng, content))
        case 2:  # claims a large picture
            content = bytearray(path.read_bytes())
            size = rng.choice((0, 1, 9, 60000, 2**31 - 1, 2**32 - 1))
            content[16:24] = struct.pack(">II", size, rng.choice((8, size)))
            path.write_bytes(content)
            fault = f"claims {size} pixels"
        case 3:
            path.unlink()
            os.mkfifo(path)
            fault = "a pipe"
        case 4:
            path.unlink()
            path.symlink_to(rng.choice(("3.png", "nowhere", "..", "/dev/zero", "4.png")))
            fault = "a link"
        case 5:
            mode = rng.choice(("RGB", "RGBA", "P", "1", "I;16", "LA", "L"))
            Image.new(mode, rng.choice(((8, 8), (9, 8), (1, 1), (300, 300)))).save(path)
            fault = f"mode {mode}"
        case 6:
            name = os.fsencode(folder) + rng.choice(IMAGE_NAMES)
            shutil.copy(path, os.fsdecode(name))
            fault = f"a file {name[-8:]!r}"
        case 7:
            shutil.rmtree(folder)
            fault = "a class lacks"
        case _:
            for part in ("train", "test"):
                for name in rng.choice((("caf\u00e9", "cafe\u0301"), ("a\nb",), ("x" * 200,), (" ",))):
                    shutil.copytree(folder, box.cwd / "imgs" / part / name)
            fault = "odd names of classes"
    return Input(["train", "ghost_units", *IMAGES, "--data", "images:imgs", "--out", "o"], fault)


def _odd_archive(rng: random.Random, box: Box) -> str:
    path = box.cwd / "imgs.tar"
    if rng.random() < 0.3:
        if rng.random() < 0.5:
            path.write_bytes(gzip.compress(path.read_bytes()))
        return box.change("imgs.tar", lambda content: _odd_bytes(rng, content))
    kind = rng.choice(MEMBER_TYPES)
    member = tarfile.TarInfo(rng.choice(MEMBER_NAMES))
    member.type, member.linkname = kind, rng.choice(("/etc/passwd", "train/cat/0.png", "../secret"))
    claimed = rng.choice((0, 10, 10**6, 10**12, 8**11 - 1))
    member.size = 10
    with tarfile.open(path, "a") as tar:
        tar.addfile(member, io.BytesIO(bytes(10)))
    if claimed != 10:  # the header says more than there is
        content = bytearray(path.read_bytes())
        name = member.name.encode("utf-8", "surrogateescape")[:90]
        at = content.rfind(name)
        if at >= 0 and at % 512 == 0:
            content[at + 124 : at + 136] = b"%011o\0" % claimed
            content[at + 148 : at + 156] = b" " * 8
            content[at + 148 : at + 156] = b"%06o\0 " % sum(content[at : at + 512])
            path.write_bytes(content)
    return f"member {member.name[:40]!r} of type {kind!r}, {claimed} bytes"


#: Where files of data sets lie in a data directory.
PLACES = {
    "cifar-10-batches-bin": "cifar10", "cifar-10-batches-py": "cifar10", "cifar-100-binary": "cifar100", "stl10_binary": "stl10",
    "MNIST/raw": "mnist",
}  # fmt: skip


@target(5)
def data_file(rng: random.Random, box: Box, turn: int) -> Input:
    """IDX files and CIFAR batches; in Python, since the commands check their MD5 first."""
    match rng.randrange(5):
        case 0 | 1:
            header = struct.pack(">HBBIII", 0, 8, 3, 2, 4, 4)
            content = header + bytes(32)
            if rng.random() < 0.5:
                claim = [rng.choice((0, 1, 2, 4, 255, 2**31, 2**32 - 1)) for _ in range(3)]
                kind, axes = rng.choice((8, 9, 13, 0)), rng.choice((0, 1, 3, 255))
                content = struct.pack(">HBBIII", 0, kind, axes, *claim) + bytes(32)
            if rng.random() < 0.3:
                content = gzip.compress(content)
            content, fault = _odd_bytes(rng, content)
            (box.cwd / "x.idx").write_bytes(content)
            return Input(lambda: idx.read_idx("x.idx"), f"IDX: {fault}")
        case 2 | 3:
            batch: Any = {"data": np.zeros((2, 3072), np.uint8), "labels": [0, 1]}
            odd = rng.choice((*OBJECTS, *EVIL))
            if rng.random() < 0.7:
                batch[rng.choice(("data", "labels", "x", b"data"))] = odd
            with contextlib.suppress(Exception):
                batch = rng.choice((batch, odd)) if rng.random() < 0.2 else batch
            try:
                content = pickle.dumps(batch, protocol=rng.choice((0, 2, 4)))
            except Exception:
                content = pickle.dumps({"data": 1, "labels": [0]}, protocol=2)
            fault = f"{odd!r:.40}"
            if rng.random() < 0.5:
                content, fault = _odd_bytes(rng, content)
            form = cifar.CifarPython(
                folder="f", archive="a", archive_md5="", files={"a": None, "b": None}, records=(2, 2), labels="labels", classes=10,
            )  # fmt: skip
            files = {name: cifar.File(name, content) for name in ("a", "b")}
            return Input(lambda: form.arrays(files), f"pickle: {fault}")
        case _:  # of this form no MD5 is published
            place, data = rng.choice(list(PLACES.items()))
            folder = box.cwd / "d" / place
            folder.mkdir(parents=True)
            size = rng.choice((0, 1, 3073, 30_730_001, 40 << 30))
            names = [*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin", "train.bin", "test.bin", *idx.FILES,
                     "train_X.bin", "train_y.bin", "test_X.bin", "test_y.bin"]  # fmt: skip
            for name in names:
                with open(folder / name, "wb") as file:
                    file.truncate(size)
            load = ["train", "ghost_units", *TRAIN, "--data", data, "--data-dir", "d", "--out", "o"]
            return Input(rng.choice((["data", "--data-dir", "d"], load)), f"{place}: sparse files of {size} bytes")


#: What may stand in equations, elsewhere.
WORDS = (
    "u", "I", "r", "tau", "xi", "t", "dt", "ns_u", "lambda", "self", "i", "e", "pi", "inf", "1e400", "nan", "+", ")", ":", "=",
    "\n", "# c", "rand()", "volt", "int(u)", "u**u**u", "u/0", "exp(exp(u))", "u_pre", "w", "r_post**9**9", "1(", "u'",
)  # fmt: skip
EQUATION = "du/dt = (-u + I)/tau : 1\nr = tanh(k*u) : 1\nI : 1"
RULE = "dw/dt = eta*r_post*r_pre"


#: Words of a circuit that holds together.
CIRCUIT: dict[str, Any] = {
    "cell": EQUATION, "rule": RULE, "tau": "10*ms", "k": 1.0, "eta": "1/second", "duration": "2*ms", "dt": "1*ms", "n": 2,
    "rate": "r", "name": "p", "low": -1.0,
}  # fmt: skip


def build(words: dict[str, Any], simulated: bool = False) -> None:
    """Describe a small circuit made of these words, and simulate it."""
    constants = {"tau": words["tau"], "k": words["k"]}
    cell = assemble("cell", words["cell"], ("I",), rate=words["rate"], parameters=constants)
    rule = neurosim.PlasticityRule("rule", words["rule"], {"eta": words["eta"]})
    phase = neurosim.Phase("phase", words["duration"], clamps={"inp.r": "image"}, plastic=("rule",))
    weights = neurosim.Uniform(words["low"], 1.0)
    populations = neurosim.Population("inp", 3, neurosim.SOURCE), neurosim.Population(words["name"], words["n"], cell)
    projection = neurosim.Projection("W", "inp", f"{words['name']}.I", weights, rule)
    protocol = neurosim.Protocol((phase,), dt=words["dt"])
    circuit = neurosim.Circuit("net", neurosim.Fragment(populations, (projection,)), protocol)
    neurosim.describe(circuit)
    if simulated:
        neurosim.simulate(circuit, np.zeros((1, 3)), level="torch:steady", progress=False)


@target(7)
def equations(rng: random.Random, box: Box, turn: int) -> Input:
    """Equations and constants as text, in Python."""
    words = dict(CIRCUIT)
    name = rng.choice(list(words))
    if name in ("cell", "rule"):
        pieces = re.split(r"(\W)", words[name])
        at = rng.randrange(len(pieces))
        odd = rng.choice(rng.choice((QUANTITIES, TEXTS, WORDS)))
        pieces[at] = odd if rng.random() < 0.7 else pieces[at] + odd
        words[name], infinite = "".join(pieces), False
    else:
        words[name] = odd = rng.choice(rng.choice((QUANTITIES, NUMBERS, OBJECTS)))
        infinite = name not in ("rate", "name") and _not_finite(odd)
    simulated = rng.random() < 0.15
    return Input(lambda: build(words, simulated), f"{name}: {short(repr(odd), 60)}", infinite)


@target(3)
def quantities(rng: random.Random, box: Box, turn: int) -> Input:
    """A time on the command line, and quantities in Python."""
    text = rng.choice(QUANTITIES)
    if rng.random() < 0.3:
        text, _, _ = text.partition("*")
        text += rng.choice(("*mV", "*ms**2", "/ms", "*ms*", "*second", "**2*ms", "*nS"))
    if rng.random() < 0.3:
        argv = ["simulate", "ghost_units", *SIMULATE, f"--dt={text}"]
        return Input(argv, "--dt", _not_finite(text))
    from neurosim.equations import seconds

    return Input(lambda: seconds(text), f"seconds({short(text, 80)!r})", _not_finite(text))


@functools.cache
def _circuit() -> neurosim.Circuit:
    return registry.model("ghost_units").circuit({"sizes": (64, 4, 10)})


@target(5)
def python_arguments(rng: random.Random, box: Box, turn: int) -> Input:
    """Arguments of wrong types and values, in Python."""
    circuit = _circuit()
    shown = {"stimuli": np.zeros((1, 64)), "labels": [1]}
    functions: list[tuple[Callable[..., Any], dict[str, Any]]] = [
        (neurosim.simulate, {"circuit": circuit, **shown, "level": "torch:steady", "progress": False}),
        (neurosim.Recorder, {"variables": ["pyr1.u"]}),
        (neurosim.describe, {"circuit": circuit}),
        (registry.model("ghost_units").build, {"sizes": (64, 4, 10)}),
        (registry.model("dendritic_microcircuit").build, {"sizes": (64, 4, 10)}),
    ]
    function, given = functions[turn % len(functions)]
    parameters = inspect.signature(function).parameters
    name, odd = rng.choice([p for p in parameters if p not in ("device", "codegen")]), rng.choice(OBJECTS)
    if function is neurosim.simulate and rng.random() < 0.3:
        name, odd = "stimuli", np.zeros((1, 64))
        odd[0, rng.randrange(64)] = rng.choice((np.nan, np.inf))
    infinite = name == "stimuli" and np.shape(odd) == (1, 64) and bool(np.isnan(odd).any() or np.isinf(odd).any())
    infinite |= _is_number(parameters[name].default) and _not_finite(odd)
    return Input(lambda: function(**{**given, name: odd}), f"{function.__name__}({name}={odd!r:.60})", infinite)


#: The targets in turn, each with its share, evenly spread.
SCHEDULE: list[str] = [
    name for _, name in sorted(((k + 0.5) / weight, name) for name, (weight, _) in TARGETS.items() for k in range(weight))
]  # fmt: skip


def make(seed: int, number: int, box: Box) -> tuple[str, Input]:
    """Input `number` of a seed, its files in the box; and its target."""
    period, place = divmod(number, len(SCHEDULE))
    name = SCHEDULE[place]
    weight, generator = TARGETS[name]
    turn = period * weight + SCHEDULE[:place].count(name)
    return name, generator(random.Random(f"{seed} {number}"), box, turn)
