"""Which way a projection moves the cells that it reaches, as far as the equations say."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import sympy
from brian2.parsing.sympytools import str_to_sympy
from scipy.integrate import solve_ivp
from scipy.special import exprel
from sympy.core.function import AppliedUndef

from neurosim.circuit import Circuit
from neurosim.description import Constant, Given, Glorot, Like, Orthogonal, Uniform
from neurosim.equations.units import quantity, seconds
from neurosim.plan import Assignment

#: 1 raises, -1 lowers, 0 moves nothing; None: the equations do not say, or say both.
Sign = int | None

#: A derivative below this share of its terms is the round-off of one that is 0.
_ROUND_OFF = 1e-6
#: How far what a port has moved stands from where it started.
_PUSH = 1e-6
#: Seconds in which a cell without input settles, calls of its equations that this may take, and
#: cells of a population (those with other parameters) of which it is tried.
_SETTLED, _CALLS, _CELLS = 10.0, 5000, 32
#: Draws of weights whose signs are not known beforehand.
_DRAWS = 5
#: Samples of values that are not known.
_SAMPLES = 400
#: `lastspike` before the first spike (s).
_NEVER = -1e4


def effects(circuit: Circuit) -> dict[str, Sign]:
    """Whether each projection raises or lowers its cells' rate where what it sends is positive.

    The sign of what its port does (see `_Cell`) times that of its weights. Weights of both signs
    count as positive.
    """
    projections = circuit.plan.projections.values()
    targets = {q.target for q in projections}
    ports = {name: _Cell(circuit, name).ports() for name in targets}
    found: dict[str, Sign] = {}
    for q in projections:
        up, down = ports[q.target][q.port]
        sign, both = _weights(circuit, q.name)
        if both and (up is None or down is None or up != -down):
            found[q.name] = None
        else:
            found[q.name] = up if sign > 0 else down
    return found


def _weights(circuit: Circuit, name: str) -> tuple[int, bool]:
    """``(sign, both)``: -1 where all weights are negative, else 1; whether there are both signs.

    Weights of both signs count as positive, and minus these (`Tied`, `Like`) as negative. Of
    weights that learn it is the sign at the start; if they start at 0, that which bounds leave.
    """
    q = circuit.plan.projections[name]
    other = (q.root, q.factor) if q.root != q.name else None
    if other is None and isinstance(q.start, Like):
        other = q.start.projection, q.start.factor
    if other is not None:
        sign, both = _weights(circuit, other[0])
        return -sign if other[1] < 0 else sign, both
    if isinstance(q.start, Constant):
        values: Any = q.start.value
    elif isinstance(q.start, Given):
        values = q.start.values
    elif isinstance(q.start, Uniform):
        values = q.start.low, q.start.high
    elif q.start is None:
        values = 1.0
    elif isinstance(q.start, Glorot | Orthogonal):
        return 1, True
    else:
        shape = q.weight_shape if len(q.weight_shape) > 1 else (1, q.n_post)
        start: Any = q.start
        values = [start.draw(np.random.default_rng(seed), *shape) for seed in range(_DRAWS)]
    values = np.asarray(values, dtype=float)
    positive, negative = bool(np.any(values > 0)), bool(np.any(values < 0))
    if not positive and not negative:
        negative = q.rule is not None and _upper_bound(q.rule) <= 0
    return -1 if negative and not positive else 1, positive and negative


def _upper_bound(rule: Any) -> float:
    upper = rule.bounds[1]
    return np.inf if upper is None else float(quantity(upper)[0])


class _Cell:
    """The ways from the ports of a population to its rate.

    A way leads over states, pools, holds and derivatives, and from the potential of a spiking cell
    over its spikes to what these move. Its sign is the product of the signs of the derivatives on
    it; the shortest way counts, of several all must have one sign.

    The sign of a derivative is the one that it has, in every cell, where the states start and where
    they settle without input: a conductance lowers the potential if it reverses below these. If it
    is 0 there, as that of a gating variable's power is, what the port has moved is pushed a little
    the way it moves; if it is 0 then, too, the potentials (in volt) are raised a little: a shunt
    lowers one that something else has raised. At last, it must have one sign wherever states are.
    """

    def __init__(self, circuit: Circuit, name: str):
        self.circuit, self.plan = circuit, circuit.plan.populations[name]
        plan = self.plan
        inlined: dict[Any, Any] = {}
        self.follows: dict[Any, Any] = {}  # what each state, pool, hold, ... follows
        self.pools: list[tuple[Assignment, Any]] = []
        for a in plan.assignments:  # in the order of dependence
            expression = _read(a.expression).xreplace(inlined)
            if not a.word:
                inlined[_symbol(a.name)] = expression
                continue
            self.pools.append((a, expression))
            # What samples have in common raises and lowers; no function that is known here.
            of = sympy.Function("overlap")(expression) if a.word == "overlap" else expression
            self.follows[_symbol(a.name)] = of
        self.states = {_symbol(x): _read(text).xreplace(inlined) for x, text in plan.ode.items()}
        self.follows |= self.states
        for hold in plan.holds:
            self.follows[_symbol(hold.name)] = inlined.get(_symbol(hold.of), _symbol(hold.of))
        for derivative in plan.derivatives:
            self.follows[_symbol(derivative.name)] = self.states[_symbol(derivative.of)]
        volt = quantity("1*volt")[1]
        self.potentials = [x for x in plan.ode if plan.dimensions[x] == volt]
        if plan.spiking is not None:
            self._add_spikes()
        # What cells send, the rate first; without any, a spiking cell's spikes.
        self.aims = []
        spikes = ["spike_train"] if plan.spiking is not None else []
        known = set(plan.variables)
        for variable in dict.fromkeys([plan.rate, *sorted(circuit.plan.sent(name)), *spikes]):
            if variable in known:
                self.aims.append(inlined.get(_symbol(variable), _symbol(variable)))
        self.starts = self._starts()

    def _add_spikes(self) -> None:
        spiking, spikes = self.plan.spiking, _symbol("spike_train")
        assert spiking is not None
        threshold = _read(spiking.threshold)
        self.follows[spikes] = sympy.Function("int_")(threshold)
        self.follows[_symbol("lastspike")] = spikes
        for x, text in spiking.reset:
            state = _symbol(x)
            if state not in threshold.free_symbols:  # whose reset is the end of the spike itself
                self.follows[state] += spikes * (_read(text) - state)

    def ports(self) -> dict[str, tuple[Sign, Sign]]:
        """Of each port, what a positive input does, and what a negative one does."""
        return {port: (self._effect(port, 1), self._effect(port, -1)) for port in self.plan.ports}

    def _effect(self, port: str, drive: int) -> Sign:
        for aim in self.aims:
            sign = self._way(_symbol(port), aim, drive)
            if sign != 0:
                return sign
        return self._moved(_symbol(port), drive)

    def _way(self, port: Any, aim: Any, drive: int) -> Sign:
        """The sign of the shortest way to what is sent; 0 where none leads there."""
        moved: dict[Any, Sign] = {port: drive}
        newest = dict(moved)
        while newest:
            ends = {_product(sign, self._slope(aim, x, moved)) for x, sign in newest.items()}
            if ends != {0}:
                return _agreed(ends)
            newest = self._next(newest, moved)
            moved |= newest
        return 0

    def _next(self, newest: Mapping[Any, Sign], moved: Mapping[Any, Sign]) -> dict[Any, Sign]:
        """What follows the newest of those that move, and has not moved yet."""
        found: dict[Any, Sign] = {}
        for y, expression in self.follows.items():
            if y not in moved:
                signs = {_product(s, self._slope(expression, x, moved)) for x, s in newest.items()}
                if signs != {0}:
                    found[y] = _agreed(signs)
        return found

    def _moved(self, port: Any, drive: int) -> Sign:
        """Which way the potentials go, or else the states that ways end in; 0 where none moves."""
        moved: dict[Any, Sign] = {port: drive}
        newest = dict(moved)
        while newest:
            newest = self._next(newest, moved)
            moved |= newest
        states = {x: sign for x, sign in moved.items() if x in self.states}
        potentials = [x for x in states if str(x) in self.potentials]
        read = {(x, y) for y in states for x in self.states[y].free_symbols if x != y}
        ends = [x for x in states if not any((x, y) in read for y in states)]
        return _agreed({states[x] for x in potentials or ends or states})

    def _slope(self, expression: Any, variable: Any, moved: Mapping[Any, Sign]) -> Sign:
        if variable not in expression.free_symbols:
            return 0
        if expression == variable:
            return 1
        names, terms = _derivative(expression, variable)
        if terms is None:
            return None
        if not names and terms == ():
            return 0
        pushed = [{**start, **self._pushed(start, moved)} for start in self.starts]
        raised = [{**point, **self._raised(point)} for point in pushed]
        for points in (self.starts, pushed, raised, self._anywhere()):
            found = set().union(*(_signs(names, terms, point) for point in points)) - {0}
            if found:
                return found.pop() if len(found) == 1 else None
        zero = [_signs(names, terms, point) == {0} for point in self._anywhere()]
        return 0 if all(zero) else None  # 0 everywhere: times a parameter that is 0

    def _pushed(self, start: Mapping[str, Any], moved: Mapping[Any, Sign]) -> dict[str, Any]:
        signs = {str(x): sign for x, sign in moved.items() if sign}
        sizes = {x: _PUSH * np.maximum(np.abs(start[x]), 1.0) for x in signs}
        return {x: start[x] + sign * sizes[x] for x, sign in signs.items()}

    def _raised(self, point: Mapping[str, Any]) -> dict[str, Any]:
        return {x: point[x] + _PUSH for x in self.potentials}

    def _constants(self) -> list[dict[str, Any]]:
        """Parameters and, for each phase, shared values, of both random signs.

        A parameter with a value per cell has those of the cells that differ.
        """
        parameters, shared = dict(self.plan.parameters), self.plan.shared
        arrays = {x: np.asarray(v, dtype=float) for x, v in parameters.items() if np.ndim(v)}
        if arrays:
            unequal = np.unique(np.stack(list(arrays.values())), axis=1)
            parameters |= dict(zip(arrays, unequal, strict=True))
        plan = self.circuit.plan
        phases = (*plan.phases, *plan.mirrored)
        several = sorted({tuple(p.shared.get(x, 0.0) for x in shared) for p in phases})
        return [parameters | dict(zip(shared, values, strict=True)) for values in several]

    def _starts(self) -> list[dict[str, Any]]:
        """Where the states start, and where they settle to without input."""
        plan = self.plan
        zero = (*plan.ports, *plan.inputs, *plan.noises, *(h.name for h in plan.holds))
        rest = dict.fromkeys((*zero, *(d.name for d in plan.derivatives), "t", "spike_train"), 0.0)
        rest |= {"lastspike": _NEVER, "dt": seconds(self.circuit.protocol.dt)}
        found = []
        for constants in self._constants():
            start = self._with_pools({**rest, **constants, **plan.initial})
            found.append(start)
            settled = self._settled(start)
            if settled is not None:
                found.append(settled)
        return found

    def _with_pools(self, values: dict[str, Any]) -> dict[str, Any]:
        for a, expression in self.pools:
            try:
                value = _value(expression, values)
            except (NameError, TypeError, ValueError):  # a function that is not known here
                value = np.nan
            cells = {"population": self.plan.n, "map": self.plan.n // self.plan.maps}.get(a.axis, 1)
            cells = cells if a.reduction and a.reduction.additive else 1
            values[a.name] = 0.0 if a.word == "overlap" else cells * np.mean(value)
        return values

    def _settled(self, start: dict[str, Any]) -> dict[str, Any] | None:
        """Where a cell without input and spikes settles; None if it starts there, or never does."""
        names = [str(x) for x in self.states]
        count = max(np.size(value) for value in start.values())
        chosen = np.unique(np.linspace(0, count - 1, min(count, _CELLS)).astype(int))
        values = {x: value[chosen] if np.size(value) > 1 else value for x, value in start.items()}
        shape, calls = (len(names), len(chosen)), 0

        def at(flat: np.ndarray) -> dict[str, Any]:
            states = dict(zip(names, flat.reshape(shape), strict=True))
            return self._with_pools({**values, **states})

        def change(_: float, flat: np.ndarray) -> np.ndarray:
            nonlocal calls
            calls += 1
            if calls > _CALLS:
                raise ArithmeticError("It does not settle.")
            here = at(flat)
            rows = compute(*(here[name] for name in read))
            return np.array([np.broadcast_to(row, shape[1]) for row in rows], dtype=float).ravel()

        first = np.array([np.broadcast_to(values[x], shape[1]) for x in names], dtype=float).ravel()
        span = 0.0, _SETTLED
        try:
            read, compute = _compiled(tuple(self.states.values()))
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                if not names or not np.any(change(0.0, first)):
                    return None
                found = solve_ivp(change, span, first, method="BDF", rtol=1e-8, atol=1e-14)
        except (ArithmeticError, ValueError, NameError, TypeError, np.linalg.LinAlgError):
            return None
        end = found.y[:, -1]
        return at(end) if found.success and np.isfinite(end).all() else None

    def _anywhere(self) -> list[dict[str, Any]]:
        """States, ports, ... anywhere, of both signs; parameters and shared values as they are."""
        rng = np.random.default_rng(0)
        found = []
        for constants in self._constants():
            values = dict(constants)
            for x in self.starts[0]:
                if x not in constants:
                    size = 10.0 ** rng.uniform(-4, 1, (_SAMPLES, 1))
                    positive = x in ("spike_train", "t", "dt")
                    values[x] = size if positive else size * rng.choice((-1.0, 1.0), size.shape)
            found.append(values)
        return found


def _read(text: str) -> Any:
    """An expression as SymPy's; Brian2 leaves the root a function without meaning."""
    return str_to_sympy(text).replace(sympy.Function("sqrt"), sympy.sqrt)


def _symbol(name: str) -> Any:
    """As `_read` makes it: the time is positive, for one."""
    return next(iter(_read(name).free_symbols))


def _agreed(signs: Iterable[Sign]) -> Sign:
    """The sign of several ways; None where they differ or one is not known, 0 without any."""
    found = set(signs) - {0}
    return found.pop() if len(found) == 1 else None if found else 0


def _product(a: Sign, b: Sign) -> Sign:
    if a == 0 or b == 0:
        return 0
    return None if a is None or b is None else a * b


#: What SymPy's functions are in NumPy, besides those that it knows.
_FUNCTIONS: dict[str, Any] = {"int_": np.trunc, "clip": np.clip, "exprel": exprel}


@lru_cache(4096)  # the layers of a circuit share their cells
def _compiled(expressions: tuple[Any, ...]) -> tuple[list[str], Any]:
    symbols = sorted(set().union(*(e.free_symbols for e in expressions)), key=str)
    compute = sympy.lambdify(symbols, list(expressions), [_FUNCTIONS, "numpy"])
    return [str(s) for s in symbols], compute


def _value(expression: Any, values: Mapping[str, Any]) -> Any:
    names, compute = _compiled((expression,))
    with np.errstate(all="ignore"):
        return compute(*(values[name] for name in names))[0]


@lru_cache(4096)
def _derivative(expression: Any, variable: Any) -> tuple[list[str], Any]:
    """The names in a derivative and what computes its terms.

    No terms, ``()``, of one that is 0 throughout; None where SymPy cannot differentiate.
    """
    derivative = sympy.expand_mul(sympy.diff(_smooth(expression), variable))
    if derivative == 0:
        return [], ()
    if derivative.has(sympy.Derivative, sympy.Subs, sympy.DiracDelta, AppliedUndef):
        return [], None
    return _compiled(sympy.Add.make_args(derivative))


def _smooth(expression: Any) -> Any:
    """The expression with smooth functions in place of steps, which rise where these rise."""
    clip, whole = sympy.Function("clip"), sympy.Function("int_")
    expression = expression.replace(clip, lambda x, low, high: sympy.Max(low, sympy.Min(high, x)))
    expression = expression.replace(whole, _step_up).replace(sympy.sign, sympy.tanh)
    return expression.replace(sympy.floor, lambda x: x).replace(sympy.ceiling, lambda x: x)


def _step_up(condition: Any) -> Any:
    """A smooth step in place of ``int(u > theta)``."""
    larger: Any
    smaller: Any
    if isinstance(condition, sympy.Gt | sympy.Ge | sympy.Lt | sympy.Le):
        larger, smaller = condition.gts, condition.lts
        return 1 / (1 + sympy.exp(smaller - larger))
    if isinstance(condition, sympy.And):
        return sympy.Mul(*map(_step_up, condition.args))
    if isinstance(condition, sympy.Or):
        return 1 - sympy.Mul(*(1 - _step_up(c) for c in condition.args))
    if isinstance(condition, sympy.Not):
        return 1 - _step_up(condition.args[0])
    if condition in (sympy.true, sympy.false):
        return sympy.Integer(int(bool(condition)))
    if isinstance(condition, sympy.Expr):  # int(x) of a number
        return condition
    return sympy.Function("condition")(*condition.free_symbols)


def _signs(names: list[str], terms: Any, values: Mapping[str, Any]) -> set[int]:
    """The signs that a derivative has, 0 where its terms cancel; what is not finite is left out."""
    with np.errstate(all="ignore"):
        computed = terms(*(values[n] for n in names))
        found = np.broadcast_arrays(*(np.asarray(x, dtype=float) for x in computed))
        total, size = np.sum(found, axis=0), np.sum(np.abs(found), axis=0)
        signs = np.where(np.abs(total) > _ROUND_OFF * size, np.sign(total), 0.0)
    return {int(s) for s in np.unique(signs[np.isfinite(total)])}
