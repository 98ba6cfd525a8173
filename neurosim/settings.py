"""Settings of a model: a frozen dataclass whose fields are checked, and presets in TOML beside the model."""

from __future__ import annotations

import functools
import inspect
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from neurosim.checks import check, hints_of, in_range
from neurosim.description import Population, Projection
from neurosim.equations import seconds
from neurosim.errors import NeurosimError, unknown

if TYPE_CHECKING:
    from neurosim.circuit import Circuit

S = TypeVar("S", bound="ModelSettings")
#: What a circuit is built from, as a list.
Parts = list[Population | Projection]


@dataclass(frozen=True)
class ModelSettings:
    """Base of the settings of a model: each field is checked against its annotation.

    A field of None that has a default from `computed` takes that default.

    Raises
    ------
    NeurosimError
        A value of another type, unit or range: field, value, what is expected.
    """

    def __post_init__(self) -> None:
        hints = self.hints()
        for item in fields(self):
            object.__setattr__(self, item.name, check(item.name, getattr(self, item.name), hints[item.name]))
        for item in fields(self):  # all are checked by now
            if getattr(self, item.name) is None and "computed" in item.metadata:
                object.__setattr__(self, item.name, item.metadata["computed"](self))

    @classmethod
    def hints(cls) -> dict[str, Any]:
        """The annotations of the fields; a computed one may be None."""
        given = {item.name: item.metadata for item in fields(cls)}
        return {
            name: hint | None if "computed" in given.get(name, ()) else hint for name, hint in hints_of(cls).items()
        }


def computed(default: Callable[[Any], Any]) -> Any:
    """A field whose default is computed from others: ``beta: Positive = computed(lambda s: ...)``.

    It may read every field that has a default of its own, and computed ones that stand above it.
    """
    return field(default=None, metadata={"computed": default})


def default_of(tables: Mapping[str, Mapping[str, Any]], choice: str) -> Callable[[str], Any]:
    """Fields whose defaults stand in the table that the field `choice` names.

    ::

        of_preset = default_of(presets(__file__), "preset")
        beta: Positive = of_preset("beta")
    """
    return lambda name: computed(lambda s: tables[getattr(s, choice)][name])


def model(kind: type[S]) -> Callable[[Callable[[S], Circuit]], Callable[..., Circuit]]:
    """Decorator: ``build(settings)`` becomes a function of the fields of `kind`, as keywords.

    ::

        @model(Settings)
        def circuit(s: Settings) -> Circuit: ...

        circuit(sizes=(64, 10), beta=0.1)
    """

    def decorate(build: Callable[[S], Circuit]) -> Callable[..., Circuit]:
        @functools.wraps(build)
        def circuit(*args: Any, **keywords: Any) -> Circuit:
            for key in keywords:
                if key not in signature.parameters:
                    raise unknown(f"setting of {build.__module__.rpartition('.')[2]}", key, signature.parameters)
            given = signature.bind(*args, **keywords).arguments
            return in_range(lambda: build(kind(**given)), given)

        signature = inspect.signature(kind)
        circuit.__signature__ = signature  # type: ignore[attr-defined]
        circuit.settings = kind  # type: ignore[attr-defined]
        return circuit

    return decorate


def check_settles(window: str, **phases: str) -> None:
    """Refuse phases that leave no time to settle before the window at their end in which weights are plastic.

    Raises
    ------
    NeurosimError
        A phase that is not longer than the window: its setting, its length.
    """
    for name, length in phases.items():
        if seconds(length) <= seconds(window):
            raise NeurosimError(
                f"{name} = {length} leaves no time to settle before the {window} at its end in which weights are "
                f"plastic; expected a longer one. Lengthen {name}, or shorten t_learn."
            )


def check_classes(sizes: Sequence[int]) -> None:
    """Refuse a classifier whose last size is one class.

    Raises
    ------
    NeurosimError
        Fewer than two classes: the sizes.
    """
    if sizes[-1] < 2:
        raise NeurosimError(f"sizes = {tuple(sizes)}; expected at least two classes, the last of them.")


def check_length(what: str, **lists: tuple[Sequence[Any], int]) -> None:
    """Refuse lists that do not hold one value per `what`: ``check_length("matrix", eta_ff=(values, 3))``.

    Raises
    ------
    NeurosimError
        A list of another length: its name, what it holds, how many values are expected.
    """
    for name, (values, count) in lists.items():
        if len(values) != count:
            numbers = "1 number" if count == 1 else f"{count} numbers"
            raise NeurosimError(f"{name} = {tuple(values)}: expected {numbers}, one per {what}.")


def check_euler(mu: float, cure: str, **conductances: float) -> None:
    """Refuse a step mu = dt/tau with which explicit Euler diverges: from 2/(sum of the conductances) on.

    Raises
    ------
    NeurosimError
        The step, the conductances, the limit and the `cure`.
    """
    if mu >= (limit := 2 / sum(conductances.values())):
        numbers = " + ".join(f"{g:.4g}" for g in conductances.values())
        raise NeurosimError(
            f"mu = {mu}: explicit Euler diverges from mu = 2/({' + '.join(conductances)}) = 2/({numbers}) = {limit:.4g} on; "
            f"expected a smaller one. {cure}"
        )


def refuse_if(wrong: bool, message: str) -> None:
    """Refuse settings that do not fit together; the message says what was got, what is expected and what to change.

    Raises
    ------
    NeurosimError
        They are `wrong`.
    """
    if wrong:
        raise NeurosimError(message)


def settings_hints(build: Callable[..., Any]) -> dict[str, Any]:
    """What a builder's settings must be, by name; empty for a function that checks nothing."""
    if hasattr(build, "settings"):
        return build.settings.hints()
    return hints_of(build) if hasattr(build, "checked") else {}


def presets(module_file: str | None) -> dict[str, dict[str, Any]]:
    """Training presets of a model, by name: the tables of ``presets/NAME.toml`` beside ``NAME.py``.

    A table may name another that it continues: ``base = "mlp"``. Empty where there is no such file.

    Raises
    ------
    NeurosimError
        A file that is not TOML, a base that is not there.
    """
    if module_file is None:
        return {}
    path = Path(module_file)
    file = path.parent / "presets" / f"{path.stem}.toml"
    if not file.is_file():
        return {}
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise NeurosimError(f"The presets '{file}' cannot be read: {error}.") from error
    if wrong := [name for name, table in tables.items() if not isinstance(table, dict)]:
        raise NeurosimError(f"'{file}': '{wrong[0]}' stands outside a table; expected [NAME] above it.")
    return {name: _whole(name, tables, file) for name in tables}


def preset_of(module_file: str | None, dataset: str) -> dict[str, Any]:
    """The preset for a data set: the table of its name, else ``others``, else nothing."""
    found = presets(module_file)
    return found.get(dataset, found.get("others", {}))


def _whole(name: str, tables: Mapping[str, Any], file: Path, after: tuple[str, ...] = ()) -> dict[str, Any]:
    """A table with those that it continues; lists as tuples."""
    own = {k: tuple(v) if isinstance(v, list) else v for k, v in tables[name].items()}
    if "base" not in own:
        return own
    base = str(own.pop("base"))
    if base not in tables or base in (name, *after):
        raise NeurosimError(f"'{file}': [{name}] has base = '{base}'; expected another of {', '.join(tables)}.")
    return _whole(base, tables, file, (name, *after)) | own
