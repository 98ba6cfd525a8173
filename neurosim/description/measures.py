"""What training reports of a circuit beside its accuracy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from neurosim.checks import Positive
from neurosim.description.value import Value
from neurosim.matrices import angle, eigenvalues

#: Weights count as indefinite where their smallest eigenvalue is below this share of the largest
#: (rounding reaches 1e-7 in float32).
INDEFINITE = 1e-4

#: The arrays that a measure asked for, by name.
Read = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Reads:
    """What a measure reads: variables (samples, cells) at the end of `phase`, or, without a phase, weights."""

    names: tuple[str, ...]
    phase: str | None = None


class Measure(Value, ABC):
    """A number that training reports beside the accuracy, once an epoch.

    A measure of one's own is a frozen dataclass that says what it `reads`, its `value` and its `text`; a `verdict`
    ends the training, a `remark` is said at its end.

    ::

        @dataclass(frozen=True)
        class MeanRate(Measure):
            variable: str
            phase: str

            def reads(self):
                return Reads((self.variable,), self.phase)

            def value(self, read, total):
                rates = read[self.variable]
                of, count = total(float(rates.sum()), rates.size)
                return of / count

            def text(self):
                return f"mean of `{self.variable}` at the end of phase `{self.phase}`"
    """

    @abstractmethod
    def reads(self) -> Reads:
        """The variables or weights that `value` gets."""

    @abstractmethod
    def value(self, read: Read, total: Callable[..., list[float]]) -> float | int | None:
        """The number; None where it has no meaning.

        `total` adds each of its arguments over the processes that share the samples of a training.
        """

    @abstractmethod
    def text(self) -> str:
        """The measure in words, names in backticks."""

    def misfit(self, shapes: Mapping[str, tuple[int, ...]]) -> str:
        """What shape of weights is expected, if these do not fit; else an empty text."""
        return ""

    def verdict(self, name: str, value: float | int | None, read: Read) -> str:
        """Why a training cannot go on, and the cure, as sentences; an empty text while it can.

        `read` is empty where only the value is known (a training that goes on from a file).
        """
        return ""

    def remark(self, value: float | int | None) -> str:
        """What a user should know of the last value, else an empty text."""
        return ""


@dataclass(frozen=True)
class Ratio(Measure):
    """A measure of a circuit: rms of the variables `of` over rms of the variables `to`, at the end of `phase`.

    Training stops where it passes `limit` (None: no limit), and says `cure`.
    """

    of: tuple[str, ...]
    to: tuple[str, ...]
    phase: str
    limit: Positive | None = None
    cure: str = ""

    def reads(self) -> Reads:
        return Reads((*self.of, *self.to), self.phase)

    def value(self, read: Read, total: Callable[..., list[float]]) -> float:
        of, of_count, to, to_count = total(*_squares(read, self.of), *_squares(read, self.to))
        return float(np.sqrt(of / of_count) / max(np.sqrt(to / to_count), np.finfo(float).tiny))

    def text(self) -> str:
        stops = f"; training stops above {self.limit:g}" if self.limit is not None else ""
        return f"rms of {_named(self.of)} over rms of {_named(self.to)} at the end of phase `{self.phase}`{stops}"

    def verdict(self, name: str, value: float | int | None, read: Read) -> str:
        if self.limit is None or value is None or value <= self.limit:
            return ""
        return f"{name} is {value:.3g}, above {self.limit:g}. {_sentence(self.cure)}"


@dataclass(frozen=True)
class Silent(Measure):
    """A measure of a circuit: the number of cells of `population.variable` that are 0 for every sample, at the end of `phase`.

    Where there are any at the end of a training, a warning says `cure`.
    """

    variable: str
    phase: str
    cure: str

    def reads(self) -> Reads:
        return Reads((self.variable,), self.phase)

    def value(self, read: Read, total: Callable[..., list[float]]) -> int:
        active = (read[self.variable] != 0).sum(axis=0)
        return total(*active.tolist()).count(0)

    def text(self) -> str:
        return f"number of cells with `{self.variable}` = 0 for every sample, at the end of phase `{self.phase}`"

    def remark(self, value: float | int | None) -> str:
        return f"{value} cells of {self.variable} are 0 for every sample: {self.cure}" if value else ""


@dataclass(frozen=True)
class Angle(Measure):
    """A measure of weights: the angle (degrees) between the weights of one projection and those of `to`, transposed.

    ``arccos(<A, B^T>/(|A| |B|))`` with the Frobenius norm, A (n_pre, n_post) and B (n_post, n_pre). Weights of 0 have none.
    """

    of: str
    to: str

    def reads(self) -> Reads:
        return Reads((self.of, self.to))

    def value(self, read: Read, total: Callable[..., list[float]]) -> float | None:
        degrees = angle(read[self.of], read[self.to].T)
        return degrees if np.isfinite(degrees) else None

    def text(self) -> str:
        return f"angle between the weights `{self.of}` and `{self.to}` transposed (Frobenius)"

    def misfit(self, shapes: Mapping[str, tuple[int, ...]]) -> str:
        return "" if shapes[self.of] == shapes[self.to][::-1] else "one shape, once the second is transposed"


@dataclass(frozen=True)
class SmallestEigenvalue(Measure):
    """A measure of weights: the smallest eigenvalue of the symmetric part of a projection's square weights (n, n).

    Where it falls below -1e-4 times the largest, they are no longer positive definite: training stops, and says `cure`.
    """

    of: str
    cure: str

    def reads(self) -> Reads:
        return Reads((self.of,))

    def value(self, read: Read, total: Callable[..., list[float]]) -> float:
        return eigenvalues(read[self.of])[0]

    def text(self) -> str:
        return f"smallest eigenvalue of the symmetric part of `{self.of}`"

    def misfit(self, shapes: Mapping[str, tuple[int, ...]]) -> str:
        return "" if shapes[self.of] == shapes[self.of][::-1] else "square weights"

    def verdict(self, name: str, value: float | int | None, read: Read) -> str:
        if self.of not in read:
            return ""
        low, high = eigenvalues(read[self.of])
        if low >= -INDEFINITE * high:
            return ""
        what = f"are no longer positive definite: eigenvalues from {low:.3g} to {high:.3g}"
        what = "hold NaN or infinity" if np.isnan(low) else what
        return f"The weights {self.of} {what}. {_sentence(self.cure)}"


def _squares(read: Read, names: tuple[str, ...]) -> tuple[float, int]:
    """Sum of the squares of some variables, and their number."""
    values = np.concatenate([read[n].ravel() for n in names])
    return float((values.astype(np.float64) ** 2).sum()), values.size


def _named(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}." if text else ""
