"""Finding a model: a name from `neurosim list`, or ``file.py:function`` of one's own."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from neurosim.circuit import Circuit
from neurosim.errors import NeurosimError, suggest, unknown
from neurosim.files import user_text


def names() -> list[str]:
    """Models that come with neurosim."""
    import neurosim.models

    return sorted(m.name for m in pkgutil.iter_modules(neurosim.models.__path__))


@dataclass(frozen=True)
class Model:
    """A function that builds a circuit, and the training preset that stands beside it."""

    name: str
    build: Callable[..., Circuit]
    preset: Callable[[Mapping[str, Any], str], dict[str, Any]]
    summary: str

    @property
    def parameters(self) -> dict[str, inspect.Parameter]:
        return dict(inspect.signature(self.build).parameters)

    def circuit(self, settings: Mapping[str, Any] | None = None) -> Circuit:
        """Build the circuit; unknown settings are refused with the nearest known one."""
        settings = dict(settings or {})
        for key in settings:
            if key not in self.parameters:
                raise unknown(f"setting of {self.name}", key, self.parameters)
        try:
            circuit = self.build(**settings)
        except NeurosimError:
            raise
        except Exception as error:  # the settings may be of any type, the function may be a user's own
            values = ", ".join(f"{k}={v!r}" for k, v in settings.items()) or "its defaults"
            reason = f"{type(error).__name__}: {error}"
            raise NeurosimError(f"The model {self.name} cannot be built with {values}: {reason}") from error
        if not isinstance(circuit, Circuit):
            raise NeurosimError(f"The model {self.name} returned {circuit!r}; wanted a neurosim.Circuit.")
        return circuit


def model(name: str) -> Model:
    """The model of that name, or from ``file.py:function``; ``file.py`` alone means its function ``circuit``.

    A file may import others that lie beside it, as ``python file.py`` could.

    Raises
    ------
    NeurosimError
        No such model (the nearest name is suggested), no such file or function.
    """
    if ".py" in name:
        return _from_file(name)
    if name not in names():
        raise NeurosimError(
            f"There is no model '{name}'.{suggest(name, names())} Known: {', '.join(names())}; or give file.py:function."
        )
    module = import_module(f"neurosim.models.{name}")
    return _model(name, module, module.circuit)


def _from_file(text: str) -> Model:
    path, _, function = user_text(text).partition(":")
    function = function or "circuit"
    if not Path(path).is_file():
        raise NeurosimError(f"There is no file '{path}' (asked for by the model '{text}').")
    name = f"neurosim_file_{Path(path).stem}"  # a prefix, so that a file named like a module does not hide it
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with _importing_from(Path(path).resolve().parent):
            spec.loader.exec_module(module)
    except Exception as error:
        raise NeurosimError(f"The file '{path}' cannot be run: {type(error).__name__}: {error}") from error
    if not hasattr(module, function):
        known = [n for n, f in vars(module).items() if inspect.isfunction(f) and f.__module__ == name]
        raise unknown(f"function in {path}", function, known)
    return _model(text, module, getattr(module, function))


@contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    """Modules of a folder can be imported. They are forgotten at the end: a model in another folder has its own of the same names."""
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        if str(folder) in sys.path:  # unless the file has replaced the path
            sys.path.remove(str(folder))
        new = {name: getattr(module, "__file__", None) for name, module in sys.modules.items() if name not in before}
        beside = {name for name, file in new.items() if "." not in name and file and folder in Path(file).parents[:2]}
        for name in new:
            if name.partition(".")[0] in beside:
                del sys.modules[name]


def _model(name: str, module: Any, build: Callable[..., Circuit]) -> Model:
    preset = getattr(module, "training", lambda settings, dataset: {})
    return Model(name, build, preset, (inspect.getdoc(module) or name).partition("\n")[0])


def parse_settings(pairs: list[str]) -> dict[str, Any]:
    """``["beta=0.01", "sizes=784,500,10", "mode=learned"]`` -> values: numbers, tuples, booleans, None, else text."""
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise NeurosimError(f"Got --set {pair}; wanted --set key=value, such as --set beta=0.01.")
        try:
            settings[key] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            settings[key] = {"true": True, "false": False}.get(text.lower(), text)
        if isinstance(settings[key], list):
            settings[key] = tuple(settings[key])
    return settings
