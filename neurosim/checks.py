"""Values checked against annotations: the type, the range and the unit of a setting stand once, in its signature.

Understood are int, float, bool, str, None, Literal, unions, sequences, tuples, mappings and classes,
and in Annotated the ranges of `annotated_types` (Gt, Ge, Lt, Le, MinLen) and a `Unit`.
Numbers are finite; True is not a number; NumPy's scalars and arrays without axes are.
"""

from __future__ import annotations

import collections.abc
import functools
import inspect
import math
import operator
import os
import re
import resource
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
from annotated_types import Ge, Gt, Le, Lt, MinLen

from neurosim.equations import quantity, unit_text
from neurosim.equations.units import DIMENSIONLESS, Quantity, unit_string
from neurosim.errors import CircuitError, NeurosimError, check_list, unknown


@dataclass(frozen=True)
class Unit:
    """Marks a value with a unit: a text like the example, or a Brian2 quantity of the same unit."""

    example: str


@dataclass(frozen=True, eq=False)
class In:
    """Marks a text that is one of the words."""

    words: Collection[str]


@dataclass(frozen=True)
class Cure:
    """Marks what to do where the value is of another type."""

    text: str


class Numbers:
    """Marks an array of numbers, or what NumPy makes one of; a Brian2 quantity keeps its unit."""


class PerCell:
    """Marks a number, a text with units, a Brian2 quantity, or several of them: one for each cell."""


Positive = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0)]
Share = Annotated[float, Ge(0), Le(1)]
Count = Annotated[int, Ge(1)]
Seed = Annotated[int, Ge(0)]
#: Cells of a layer, which engines count in 32 bits.
Cells = Annotated[int, Ge(1), Le(2**31 - 1)]
#: Cells of the input and of each further layer.
Sizes = Annotated[Sequence[Cells], MinLen(2)]
#: The same, with one hidden layer or more.
Levels = Annotated[Sequence[Cells], MinLen(3)]
Time = Annotated[str, Unit("10*ms")]
PositiveTime = Annotated[Time, Gt(0)]
#: A number in base SI units, a text with units such as "20*pA", or a Brian2 quantity.
Amount = Annotated[Any, Unit("")]
Array = Annotated[Any, Numbers()]
Constant = Annotated[Any, PerCell()]

F = TypeVar("F", bound=Callable[..., Any])


def checked(function: F) -> F:
    """Check the arguments of a function against its annotations before it runs.

    Raises
    ------
    NeurosimError
        An argument of another type, unit or range: key, value, what is wanted.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: Any, **keywords: Any) -> Any:
        bound = signature.bind(*args, **keywords)
        hints = hints_of(function)
        for name, value in bound.arguments.items():
            kind = signature.parameters[name].kind
            if name in hints and kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
                bound.arguments[name] = check(name, value, hints[name])
        return in_range(lambda: function(*bound.args, **bound.kwargs), bound.arguments)

    call.checked = True  # type: ignore[attr-defined]
    return call  # type: ignore[return-value]


def in_range(call: Callable[[], Any], given: Mapping[str, Any]) -> Any:
    """The result of `call`; an error that names the numbers given, where products of them leave the range of floats."""
    try:
        return call()
    except ArithmeticError as error:
        numbers = ", ".join(f"{k} = {shown(v)}" for k, v in given.items() if isinstance(v, int | float))
        raise NeurosimError(
            f"{numbers}: products of these leave the range of numbers ({error}). Give values nearer to the defaults."
        ) from error


def check_fields(item: Any, where: str = "", error: type[NeurosimError] = NeurosimError) -> None:
    """Check what a dataclass holds; NumPy's numbers become Python's, times given as quantities texts.

    Raises
    ------
    NeurosimError
        Of the class `error`, with `where` before the field's name.
    """
    hints = hints_of(type(item))
    for field in fields(item):
        if field.init:
            value = check(field.name, getattr(item, field.name), hints[field.name], where, error)
            object.__setattr__(item, field.name, value)


@functools.cache
def hints_of(annotated: Any) -> dict[str, Any]:
    """The annotations of a class or of a function's parameters, with their marks."""
    if inspect.isclass(annotated):
        return get_type_hints(annotated, include_extras=True)
    function = inspect.unwrap(annotated)
    parameters = {name: hint for name, hint in function.__annotations__.items() if name != "return"}
    # What is returned need not be imported where it is annotated.
    bare = type("Parameters", (), {"__annotations__": parameters})
    return get_type_hints(bare, function.__globals__, include_extras=True)


def check(key: str, value: Any, hint: Any, where: str = "", error: type[NeurosimError] = NeurosimError) -> Any:
    """The value as an annotation wants it, or an error with key, value and what is wanted."""
    if get_origin(hint) in (dict, collections.abc.Mapping) and isinstance(value, Mapping):
        of_key, of_value = get_args(hint)
        keys = {k: check(f"a key of {key}", k, of_key, where, error) for k in value}
        return {keys[k]: check(f"{key}.{keys[k]}", v, of_value, where, error) for k, v in value.items()}
    try:
        return _accepted(value, hint)
    except _Refused as refused:
        words = _words(hint)
        if _of_texts(hint):
            check_list(f"{where}{key}", value, error)
        if isinstance(value, str) and words and value not in words:
            raise error(f"{where}{unknown(key, shown(value)[1:-1], words)}") from None
        hint_text = f" {refused}" if str(refused) else ""
        raise error(f"{where}{key} = {shown(value)}; wanted {wanted(hint)}.{hint_text}") from None


def shown(value: Any) -> str:
    """A value in a message, on one line and of bounded length."""
    if is_dataclass(value) and not isinstance(value, type):
        name = getattr(value, "name", None)
        return f"a {type(value).__name__}" + (f" '{name}'" if isinstance(name, str) else "")
    try:
        text = repr(value)
    except Exception:  # of a foreign object, or an int of more digits than Python writes
        text = f"a value of type {type(value).__name__}"
    text = " ".join(text.split())
    return text if len(text) <= 120 else f"{text[:100]}...{text[-1]}"


# ---------------------------------------------------------------- acceptance


class _Refused(Exception):
    """The value is not what the annotation says; the text is a hint at the cure, or empty."""


_ORDER = {Gt: (operator.gt, "gt"), Ge: (operator.ge, "ge"), Lt: (operator.lt, "lt"), Le: (operator.le, "le")}


def _accepted(value: Any, hint: Any) -> Any:
    if hint is Any:
        return value
    origin = get_origin(hint)
    if origin is Annotated:
        base, *marks = get_args(hint)
        unit = next((mark for mark in marks if isinstance(mark, Unit)), None)
        cure = next((mark.text for mark in marks if isinstance(mark, Cure)), "")
        if cure and not _fits(value, base):
            raise _Refused(cure)
        if any(isinstance(mark, Numbers) for mark in marks):
            return _array(value)
        if any(isinstance(mark, PerCell) for mark in marks):
            return _per_cell(value)
        if unit is not None and not unit.example:
            return _amount(value)
        value, number = _with_unit(value, unit) if unit is not None else (_accepted(value, base),) * 2
        for mark in marks:
            if isinstance(mark, MinLen) and len(value) < mark.min_length:
                raise _Refused()
            if isinstance(mark, In) and value not in mark.words:
                raise _Refused()
            if type(mark) in _ORDER:
                holds, limit = _ORDER[type(mark)]
                if not holds(number, getattr(mark, limit)):
                    raise _Refused()
        return value
    if origin in (Union, UnionType):
        return _of_union(value, get_args(hint))
    if origin is Literal:
        if not any(type(value) is type(word) and value == word for word in get_args(hint)):
            raise _Refused()
        return value
    if origin in (tuple, list, collections.abc.Sequence):
        return _sequence(value, origin, get_args(hint))
    if origin in (dict, collections.abc.Mapping):
        if not isinstance(value, Mapping):
            raise _Refused()
        keys, values = get_args(hint)
        return {_accepted(k, keys): _accepted(v, values) for k, v in value.items()}
    if hint is float or hint is int:
        return _number(value, whole=hint is int)
    if hint is bool:
        if not isinstance(value, bool | np.bool_):
            raise _Refused()
        return bool(value)
    if hint is None or hint is NoneType:
        if value is not None:
            raise _Refused()
        return None
    kind = origin or hint  # os.PathLike[str]: a PathLike
    plain = isinstance(kind, type) and not getattr(kind, "_is_protocol", False)
    if plain and not isinstance(value, kind):
        raise _Refused()
    return value


def _of_union(value: Any, options: Sequence[Any]) -> Any:
    hint = ""
    for option in sorted(options, key=lambda o: o is not NoneType):
        try:
            return _accepted(value, option)
        except _Refused as refused:
            hint = hint or str(refused)
    raise _Refused(hint)


def _sequence(value: Any, origin: Any, inner: Sequence[Any]) -> Any:
    if isinstance(value, str):
        raise _Refused()
    if isinstance(value, np.ndarray) and value.ndim == 1:
        value = tuple(value)
    if isinstance(value, range):
        value = tuple(value)
    if not isinstance(value, list | tuple):
        with_comma = inner and not isinstance(value, int | float) and _fits(value, inner[0])
        raise _Refused("Write (VALUE,), with its comma, for one of them." if with_comma else "")
    if origin is tuple and inner and inner[-1] is not Ellipsis:
        if len(value) != len(inner):
            raise _Refused()
        return tuple(_accepted(v, h) for v, h in zip(value, inner, strict=True))
    items = tuple(_accepted(v, inner[0]) for v in value)
    return type(value)(*items) if hasattr(value, "_fields") else items


def _fits(value: Any, hint: Any) -> bool:
    try:
        _accepted(value, hint)
    except _Refused:
        return False
    return True


def _number(value: Any, whole: bool) -> Any:
    if isinstance(value, Quantity):
        if value.dim is not DIMENSIONLESS:
            raise _Refused(f"The unit is {unit_text(value.dim)}.")
        value = np.asarray(value)
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        value = value.item()
    if isinstance(value, str):
        raise _Refused(f"Write {value.strip()} without quotes." if _reads_as_number(value) else "")
    if isinstance(value, tuple) and len(value) == 2 and all(type(v) is int and v >= 0 for v in value):
        raise _Refused(f"Write {value[0]}.{value[1]}, with a point." if not whole else "")
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        raise _Refused(f"Write {value:.0f}." if isinstance(value, float) and value.is_integer() else "")
    try:
        finite = math.isfinite(value)
    except OverflowError:  # an int beyond the range of float
        finite = False
    if not finite:
        raise _Refused("It must be finite.")
    if isinstance(value, float):
        return value + 0.0  # of -0.0, which NumPy's intervals refuse, 0.0
    if abs(value) < 2**63:
        return value
    if whole:
        raise _Refused("It must fit into 64 bits, as NumPy, torch and TOML files have them.")
    return float(value)


def _reads_as_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _with_unit(value: Any, unit: Unit) -> tuple[str, float]:
    """The text, and the number in base SI units."""
    dimension = quantity(unit.example)[1]
    symbol = unit.example.partition("*")[2]
    if not isinstance(value, str | Quantity):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        raise _Refused(f"Write '{value}*{symbol}'." if number else "")
    try:
        number, got = quantity(value)
    except CircuitError as error:
        parts = re.fullmatch(r"\s*([-+.\deE]+)\s*([A-Za-z]+)\s*", value) if isinstance(value, str) else None
        raise _Refused(f"Write '{parts[1]}*{parts[2]}'." if parts else str(error)) from None
    if got is not dimension:
        raise _Refused(f"The unit is {unit_text(got)}.")
    if not isinstance(number, float):
        raise _Refused("It is an array.")
    return (value if isinstance(value, str) else f"{number!r}*{unit_string(dimension)}"), number


def _amount(value: Any) -> Any:
    """A number, a text or a quantity; the circuit reads the text and says which unit."""
    if isinstance(value, Quantity) and value.ndim:
        raise _Refused("It is an array.")
    if isinstance(value, str | Quantity):
        return value
    number = _number(value, whole=False)
    return value if isinstance(value, np.ndarray) else number


def _per_cell(value: Any) -> Any:
    """As `_amount`, or an array; texts and quantities in a list become one quantity."""
    if isinstance(value, list | tuple) and any(isinstance(v, str | Quantity) for v in value):
        try:
            found = [quantity(_amount(v)) for v in value]
        except CircuitError as error:
            raise _Refused(str(error)) from None
        if len({dimension for _, dimension in found}) > 1:
            raise _Refused(f"The units are {', '.join(unit_text(dimension) for _, dimension in found)}.")
        return Quantity([number for number, _ in found], dim=found[0][1])
    if isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim):
        return _array(value)
    return _amount(value)


def _array(value: Any) -> Any:
    try:
        array = np.asarray(value)
    except Exception:  # rows of different lengths, a foreign object
        raise _Refused() from None
    if array.dtype.kind not in "biuf" or not array.ndim:
        raise _Refused()
    return value


# ---------------------------------------------------------------- in words


def _of_texts(hint: Any) -> bool:
    """Is it a sequence of texts, also one that may be None?"""
    options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return (
        any(get_origin(o) in (tuple, collections.abc.Sequence) and get_args(o)[0] is str for o in options)
        and str not in options
    )


def _words(hint: Any) -> list[str]:
    """The words of a Literal or an `In`, also of one that may be None."""
    options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    found = [o for o in options if o is not NoneType]
    if len(found) == 1 and get_origin(found[0]) is Literal:
        return [str(word) for word in get_args(found[0])]
    if len(found) == 1 and get_origin(found[0]) is Annotated:
        return [word for mark in get_args(found[0]) if isinstance(mark, In) for word in mark.words]
    return []


def wanted(hint: Any, many: bool = False) -> str:
    """An annotation in words: ``a number above 0 and at most 1``."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _wanted_range(inner[0], inner[1:], many)
    if origin in (Union, UnionType):
        texts = [wanted(option, many) for option in inner if option is not NoneType]
        none = [", or none"] if NoneType in inner else []
        return " or ".join(dict.fromkeys(texts)) + "".join(none)
    if origin is Literal:
        return "one of " + ", ".join(map(str, inner))
    if origin in (tuple, list, collections.abc.Sequence):
        if origin is tuple and inner[-1] is not Ellipsis:
            return f"{len(inner)} {wanted(inner[0], many=True)}"
        return f"a list of {wanted(inner[0], many=True)}"
    if origin in (dict, collections.abc.Mapping) or hint in (dict, Mapping):
        of = "" if not inner or inner[1] is Any else f" of {wanted(inner[1], many=True)}"
        return f"{'tables' if many else 'a table'}{of}"
    plain = {int: ("a whole number", "whole numbers"), float: ("a number", "numbers"), str: ("a text", "texts")}
    if hint in plain:
        return plain[hint][many]
    if hint is bool:
        return "true or false"
    name = "path" if origin is os.PathLike else getattr(hint, "__name__", str(hint))
    return f"objects of type {name}" if many else f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"


def _wanted_range(base: Any, marks: Sequence[Any], many: bool) -> str:
    for mark in marks:
        if isinstance(mark, Numbers):
            return "an array of numbers"
        if isinstance(mark, PerCell):
            return (
                "a number, a text with units such as '20*pA', a Brian2 quantity, or a list of them, one for each cell"
            )
        if isinstance(mark, Unit) and not mark.example:
            if many:
                return "numbers, texts with units such as '20*pA' or Brian2 quantities"
            return "a number, a text with units such as '20*pA' or a Brian2 quantity"
        if isinstance(mark, In):
            return f"one of {', '.join(mark.words)}" if len(mark.words) > 1 else repr(*mark.words)
    unit = next((mark for mark in marks if isinstance(mark, Unit)), None)
    noun = wanted(base, many)
    if unit is not None:
        kind = "time" if unit_text(quantity(unit.example)[1]) == "s" else "value"
        noun = f"{kind}s" if many else f"a {kind}"
    first = not isinstance(base, type) and get_origin(base) is Annotated  # a Time with a range of its own
    limits, words = [], {Gt: "above", Ge: "of at least", Lt: "below", Le: "at most"}
    for mark in marks:
        if isinstance(mark, MinLen):
            noun = noun.replace("a list of ", f"a list of at least {mark.min_length} ", 1)
        if type(mark) in words:
            limit = getattr(mark, _ORDER[type(mark)][1])
            limits.append(
                f"{words[type(mark)]} {limit:g}" if isinstance(limit, float) else f"{words[type(mark)]} {limit}"
            )
    example = unit.example if unit is not None else _example(base) if first else ""
    text = noun.partition(" with units")[0] if first and example else noun
    return f"{text}{' ' + ' and '.join(limits) if limits else ''}" + (
        f" with units, such as '{example}'" if example else ""
    )


def _example(hint: Any) -> str:
    return next((mark.example for mark in get_args(hint) if isinstance(mark, Unit)), "")


# ---------------------------------------------------------------- memory


def check_memory(needed: int, what: str, error: type[NeurosimError] = NeurosimError) -> None:
    """Refuse what the machine cannot hold, before it is asked for.

    Raises
    ------
    NeurosimError
        `what` needs more bytes than the machine has memory, or than this process may take.
    """
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    own, _ = resource.getrlimit(resource.RLIMIT_AS)
    most = machine if own == resource.RLIM_INFINITY else min(machine, own)
    if needed > most:
        raise error(
            f"{what} would need {needed / 1e9:.4g} GB of memory; wanted at most the {most / 1e9:.3g} GB there are."
        )
