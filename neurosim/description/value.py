"""Descriptions are values: what they hold is copied when they are built, and does not change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, ClassVar, NoReturn, Self

import numpy as np

from neurosim.checks import check_fields
from neurosim.errors import CircuitError


class FrozenDict(dict[Any, Any]):
    """A dictionary that does not change; ``d | {...}`` and ``{**d, ...}`` make an ordinary one.

    Raises
    ------
    TypeError
        On every attempt to change it.
    """

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError(
            "This table belongs to a description, which does not change once it is built: build another "
            "one, for example by dataclasses.replace(population, parameters={**population.parameters, ...})."
        )

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return frozen, (dict(self),)

    def __copy__(self) -> FrozenDict:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenDict:
        return self  # what it holds stands still, too


def frozen(value: Any) -> Any:
    """The value as it may stand in a description: mappings read-only, lists as tuples, arrays copied and not writable."""
    if isinstance(value, Mapping):
        return value if isinstance(value, FrozenDict) else FrozenDict({k: frozen(v) for k, v in value.items()})
    if isinstance(value, list | tuple):
        return type(value)(*map(frozen, value)) if hasattr(value, "_fields") else tuple(map(frozen, value))
    if isinstance(value, np.generic) or not hasattr(value, "__array__"):
        return value
    array = (
        value.copy() if isinstance(value, np.ndarray) else np.array(np.asarray(value))
    )  # a Brian2 quantity keeps its unit
    array.setflags(write=False)
    return array


class Value:
    """Base of the dataclasses that describe a circuit: their fields are checked against their annotations, and `frozen`."""

    #: Arguments of earlier versions, and what to write now.
    former: ClassVar[Mapping[str, str]] = {}

    def __new__(cls, *_: Any, **given: Any) -> Self:
        for name in given:
            if name in cls.former:
                raise CircuitError(f"{cls.__name__} has no argument '{name}': {cls.former[name].rstrip('.')}.")
        return super().__new__(cls)

    def __post_init__(self) -> None:
        name = getattr(self, "name", None)
        check_fields(self, type(self).__name__ + (f" '{name}': " if isinstance(name, str) else ": "), CircuitError)
        for item in fields(self):  # type: ignore[arg-type]
            if item.init:
                object.__setattr__(self, item.name, frozen(getattr(self, item.name)))

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Of a copy or an unpickled description: NumPy's copies of read-only arrays are writable."""
        for name, value in state.items():
            object.__setattr__(self, name, frozen(value))
