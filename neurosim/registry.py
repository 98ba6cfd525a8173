"""Finding a model: a name from `neurosim list`, or ``file.py:function`` of one's own."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import pkgutil
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from neurosim import trusted
from neurosim.checks import check, shown
from neurosim.circuit import Circuit
from neurosim.errors import NeurosimError, suggest, unknown
from neurosim.files import user_text
from neurosim.settings import preset_of, settings_hints


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

    def checked(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The settings as the builder's annotations want them; see `neurosim.settings`, `neurosim.checks.checked`."""
        hints = settings_hints(self.build)
        return {key: check(key, value, hints.get(key, Any)) for key, value in settings.items()}

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
            values = ", ".join(f"{k}={shown(v)}" for k, v in settings.items()) or "its defaults"
            reason = f"{type(error).__name__}: {error}"
            raise NeurosimError(f"The model {self.name} cannot be built with {values}: {reason}") from error
        if not isinstance(circuit, Circuit):
            raise NeurosimError(f"The model {self.name} returned {circuit!r}; wanted a neurosim.Circuit.")
        return circuit


def model(name: str, named_by: str | None = None) -> Model:
    """The model of that name, or from ``file.py:function``; ``file.py`` alone means its function ``circuit``.

    A file may import others that lie beside it, as ``python file.py`` could.

    Parameters
    ----------
    name
        A name from `neurosim list`, or a file.
    named_by
        The file in which the name stands, where no person gives it: a model file then runs only if it is trusted,
        see `neurosim.trusted`.

    Raises
    ------
    NeurosimError
        No such model (the nearest name is suggested), no such file or function, a file that is not trusted.
    """
    if is_file(name):
        return _from_file(name, named_by)
    if name not in names():
        raise NeurosimError(
            f"There is no model '{name}'.{suggest(name, names())} Known: {', '.join(names())}; or give file.py:function."
        )
    module = import_module(f"neurosim.models.{name}")
    return _model(name, module, module.circuit)


def is_file(name: str) -> bool:
    """Whether a model's name is that of a file."""
    return split(name)[0].suffix == ".py"


def split(name: str) -> tuple[Path, str]:
    """``file.py:function`` as path and function (``circuit`` where none is named); the path may hold colons."""
    text = user_text(name)
    path, colon, function = text.rpartition(":")
    if colon and path.endswith(".py") and "/" not in function:
        return Path(path), function or "circuit"
    return Path(text), "circuit"


def allowed(path: Path, named_by: str | None) -> bytes:
    """The text of a model file that may run, see `model`."""
    try:
        source = path.read_bytes()
    except FileNotFoundError as error:
        raise NeurosimError(f"There is no file '{path}'; wanted a model file, as file.py:function.") from error
    except OSError as error:
        raise NeurosimError(f"The model file '{path}' cannot be read: {error.strerror}.") from error
    trusted.check_place(path)
    if named_by is None:
        trusted.name(path, source)
    else:
        trusted.check(path, source, named_by)
    return source


def check_allowed(name: str, named_by: str) -> None:
    """Refuse a model file that may not run, see `model`; nothing is run."""
    if is_file(name):
        allowed(split(name)[0], named_by)


def trust(name: str) -> None:
    """Add a model file that a person has named to the list of trusted ones, so that a run with it can be resumed."""
    if is_file(name):
        with suppress(OSError, NeurosimError):  # a home that cannot be written to: the resumed run says how to go on
            trusted.add(split(name)[0])


def unread(name: str, settings: Mapping[str, Any]) -> Model:
    """A model file that is only looked at: it is not imported, so it has every setting that it is given, and no preset."""

    def build(**settings: Any) -> Circuit:
        raise NeurosimError(f"The model file '{name}' was only looked at.")

    given = [inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY) for key in settings if key.isidentifier()]
    build.__signature__ = inspect.Signature(given)  # pyright: ignore[reportFunctionMemberAccess]
    return Model(name, build, lambda settings, dataset: {}, name)


def _from_file(text: str, named_by: str | None) -> Model:
    path, function = split(text)
    source = allowed(path, named_by)
    name = f"neurosim_file_{path.stem}"  # a prefix, so that a file named like a module does not hide it
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with _importing_from(path.resolve().parent):
            # What was read is what runs: a loader would read the file again, or a compiled one beside it.
            exec(compile(source, str(path), "exec"), vars(module))
    except (Exception, SystemExit) as error:
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
    preset = getattr(module, "training", None) or (lambda settings, dataset: preset_of(module.__file__, dataset))
    return Model(name, build, preset, (inspect.getdoc(module) or name).partition("\n")[0])


def parse_settings(pairs: list[str]) -> dict[str, Any]:
    """``["beta=0.01", "sizes=784,500,10", "mode=learned"]`` -> values: numbers, tuples, booleans, None, else text."""
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise NeurosimError(f"Got --set {pair}; wanted --set key=value, such as --set beta=0.01.")
        try:
            with warnings.catch_warnings(action="ignore"):  # of odd escapes, which Python warns of
                settings[key] = ast.literal_eval(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            settings[key] = {"true": True, "false": False}.get(text.lower(), text)
        if isinstance(settings[key], list):
            settings[key] = tuple(settings[key])
    return settings
