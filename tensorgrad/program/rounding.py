"""How much of a difference is rounding.

Two programs that compute the same in another order differ in the last bits. What becomes of them
depends on the computation: Adam divides a gradient by about its own magnitude, so that a parameter
whose gradient is nothing but rounding (a bias before a batch normalization) moves by whole steps.
No bound fits all, so the program itself is asked: it is run on copies, once as it is and then with
every input and the result of every instruction moved by their last bits, and a difference is
excused if it is of that order. What cancels within one operation (the gradient of a cross-entropy
is p - 1, the rounding of a probability near 1) shows otherwise: the program is run in float64, and
a difference is excused that is of the order of what is between that and the program call by call.

These runs go call by call, compute only what the values in question are made of, and let go of
each value after its last use. Of large arrays the places are compared that differ most, and others
at equal distances; there alone parameters are updated, where their update is elementwise.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import ml_dtypes
import numpy as np

from tensorgrad import backend, dtypes
from tensorgrad.backend import is_array
from tensorgrad.backend.cpu import CPU
from tensorgrad.backend.memory import give_back
from tensorgrad.optim.update import BUNDLES, Scratch
from tensorgrad.program.ir import Instruction, Value, is_writeable
from tensorgrad.program.verify import PIECE, Difference, State, each_once

# How much larger than the answer to a moved last bit a difference may be. Sums round once for each
# of their terms, which one bit at the inputs does not cover.
_EXCUSED = 16.0
# How often last bits are moved. If that does not excuse a difference, numbers are moved so far that
# the answer needs no factor: for a choice (of the larger of two nearly equal numbers, or whether
# one is positive, of which a deep network makes millions) is no multiple of what moves it.
_TRIALS, _MORE_TRIALS = 2, 8

# Bytes of arrays before which memory is given back.
_LARGE = 1 << 23


# Products whose results can be computed some columns at a time, and the axis of each operand that
# these are along. So much of a result is computed at a time.
_COLUMNS: dict[str, tuple[int | None, ...]] = {"matmul": (None, 1), "linear": (None, 0, 0)}
_PART = 1 << 21

# What chooses among numbers does not round. Whoever looks for the chosen one has to find it.
_CHOOSE = frozenset({"max", "min", "maximum", "minimum", "max_pool", "max_pool_tiles"})


class Change(Protocol):
    """Makes of an array another one, for a value that is numbered."""

    def __call__(self, array: Any, number: int, own: bool = False) -> Any:
        """own: whether it may be the same array."""


def beyond_rounding(state: State, found: Mapping[str, Difference]) -> str:
    """What of these differences is more than rounding, in words; empty if nothing is.

    state: that before the step, which stays as it is.
    """
    of = _values(state)
    for name, difference in found.items():
        # An aliased program runs on the very memory of the arrays, not on copies.
        if state.program.aliased or not difference.is_rounding or of.get(name) is None:
            return f"{name} {difference.text()}"
    if not found:
        return ""
    doubts = {name: _Doubt(difference) for name, difference in found.items()}
    trials = _Trials(state, {name: v for name in found if (v := of[name])}, doubts)
    kinds: list[tuple[str, int]] = [("moved", seed) for seed in range(_TRIALS)]
    kinds += [("wide", 0), *[("shaken", seed) for seed in range(_TRIALS, _MORE_TRIALS)]]
    trials.run("base", 0)
    for at, (kind, seed) in enumerate(kinds):
        # An index that is computed of moved numbers may lie outside: this trial says nothing.
        with contextlib.suppress(IndexError, ValueError):
            trials.run(kind, seed)
        if at < _TRIALS - 1:
            continue
        for name in [name for name, doubt in doubts.items() if doubt.is_excused()]:
            del doubts[name]
        if not doubts:
            return ""
        trials = trials.of(doubts)
    name = next(iter(doubts))
    return f"{name} {found[name].text()}"


@dataclass(frozen=True)
class _Rows:
    """A gradient that is rows: their values and those of their numbers, and what makes it whole."""

    keys: Value
    rows: Value
    made: Callable[[Any, Any], Any]


def _values(state: State) -> dict[str, Value | _Rows | None]:
    """What a program makes for each name that can differ."""
    program = state.program
    found: dict[str, Value | _Rows | None] = {}
    found |= {f"result {k}": v for k, v in enumerate(program.results)}
    for k, (leaf, v) in enumerate(program.gradients):
        found[f"gradient {k}"] = v
        if leaf in program.rows and v is not None:
            numbers = program.gradients[program.number_of(leaf)][1]
            assert numbers is not None
            kind, shape = program.rows[leaf]
            made = functools.partial(kind, shape, lent=True)  # numbers below 0 name no row
            found[f"gradient {k}"] = _Rows(numbers, v, made)
    updates = program.updates()
    return found | {name: updates.get(v, v) for name, v in state.values.items()}


class _Doubt:
    """Whether a difference is of the order of what rounding does, from one trial after another."""

    def __init__(self, difference: Difference) -> None:
        #: places in row-major order
        self.at, self._off = difference.places()
        self.is_wide = difference.wanted.dtype == np.float64
        self.by_rows = difference.by_rows
        self._odd = ~np.isfinite(self._off)
        self._near = np.zeros(self.at.size, bool)
        self._base: Any = None
        self._most = self._mean = 0.0

    def take_in(self, kind: str, answer: Any) -> None:
        """Take in what the program made, at the places, in a trial of that kind."""
        answer = np.asarray(backend.of(answer).to_host(answer), np.float64)
        if kind == "base":
            self._base = answer
        elif kind != "wide" or not self.is_wide:
            with np.errstate(invalid="ignore"):
                apart = np.where(
                    (answer == self._base) | ((answer != answer) & (self._base != self._base)),
                    0.0,
                    np.abs(answer - self._base),
                )
            known = np.isfinite(apart)
            self._near |= ~known
            apart = apart[known] * (1.0 if kind == "shaken" else _EXCUSED)
            self._most = max(self._most, float(np.max(apart, initial=0.0)))
            self._mean = max(self._mean, float(apart.mean()) if apart.size else 0.0)
        if kind != "wide":
            self._near |= ~np.isfinite(answer)

    def is_excused(self) -> bool:
        """Whether the trials so far excuse it."""
        # Where numbers overflow, the order of operations decides which: the answers show it.
        if not self._near[self._odd].all():
            return False
        off = self._off[~self._odd]
        if not off.size:
            return True
        return bool(off.max() <= self._most and off.mean() <= self._mean)


class _Trials:
    """Runs what some values are made of, call by call, on copies."""

    def __init__(
        self, state: State, values: Mapping[str, Value | _Rows], doubts: Mapping[str, _Doubt]
    ) -> None:
        self._state = state
        self._values = dict(values)
        self._doubts = doubts
        self._names: dict[Value, list[str]] = {}
        self._rows: dict[str, _Rows] = {}
        for name, v in values.items():
            if isinstance(v, _Rows):
                self._rows[name] = v
            else:
                self._names.setdefault(v, []).append(name)
        self._instructions: list[tuple[Instruction, _Update | None]] = []
        self._last: dict[Value, int] = {}  # the last instruction that needs a value as a whole
        self._places: dict[Value, Any] = {}  # of values that are needed at these places
        self._asked: dict[
            Value, Any
        ] = {}  # of values that nothing needs as a whole, those of doubts
        self._find()

    def of(self, doubts: Mapping[str, _Doubt]) -> _Trials:
        """The same for those names alone that are still in doubt."""
        if len(doubts) == len(self._values):
            return self
        return _Trials(self._state, {name: self._values[name] for name in doubts}, doubts)

    def _find(self) -> None:
        """The instructions that are needed, and how long each value is."""
        program = self._state.program
        rows = [v for found in self._rows.values() for v in (found.keys, found.rows)]
        needed = {*self._names, *rows}
        read = set(rows)
        for i in reversed(program.instructions):
            if needed.isdisjoint(i.outputs):
                continue
            update = None
            if i.op in BUNDLES and program.on_host and read.isdisjoint(i.outputs):
                update = self._update(i)
            if update is None:
                given = i.values()
                read.update(given)
            else:
                given = list(update.places)
                self._places.update(update.places)
            needed.update(given)
            self._instructions.append((i, update))
        self._instructions.reverse()
        for at, (i, update) in enumerate(self._instructions):
            if update is None:
                self._last.update(dict.fromkeys(i.values(), at))
        self._last.update(dict.fromkeys(rows, len(self._instructions)))
        asked = [np.zeros(0, np.intp)]
        self._asked = {
            v: each_once(np.concatenate([*asked, *(self._doubts[n].at for n in self._names[v])]))
            if v in self._names
            else asked[0]
            for v in {*self._names, *self._places}
            if v not in self._last
        }

    def _update(self, i: Instruction) -> _Update | None:
        """The update of parameters at some places, where all that is asked for lies there."""
        sought = {
            v.before: each_once(np.concatenate([self._doubts[n].at for n in self._names[v]]))
            for v in i.outputs
            if v in self._names
        }
        update = _Update(i, sought)
        fits = not (update.counts and i.inputs[0] in sought)
        return update if fits and self._places.keys().isdisjoint(update.places) else None

    def run(self, kind: str, seed: int) -> None:
        """One trial: "base", "wide" (in float64), "moved" (all last bits), or "shaken" (so many of
        them as are excused)."""
        run = _Run(self._state, kind, seed, self._places, self._asked)
        for v in self._names:
            if v.role != "temporary":  # nothing overwrites it
                self._tell(kind, v, run.outside(v))
        for at, (i, update) in enumerate(self._instructions):
            if update is not None:
                for v, numbers in update.computed(run):
                    for name in self._names.get(v, ()):
                        at_places = update.find(v, self._doubts[name].at)
                        self._doubts[name].take_in(kind, numbers[at_places])
                continue
            run.compute(i)
            for v in i.outputs:
                if v in run.answers:
                    self._tell(kind, v, run.answers.pop(v), self._asked[v])
                elif v in self._names:
                    self._tell(kind, v, run.made[v])
            for v in (*i.values(), *i.outputs):
                if self._last.get(v, -1) <= at:
                    run.made.pop(v, None)
        for name, found in self._rows.items():
            keys, rows = (
                run.made[v] if v in run.made else run.outside(v) for v in (found.keys, found.rows)
            )
            doubt, made = self._doubts[name], found.made(keys, rows)
            array = made.coalesced()[1] if doubt.by_rows else made.data
            doubt.take_in(kind, array.reshape(-1)[doubt.at])

    def _tell(self, kind: str, v: Value, array: Any, places: Any = None) -> None:
        """places: where its elements lie in the value, if these are not all."""
        flat = array.reshape(-1)
        for name in self._names.get(v, ()):
            if name in self._doubts:
                at = self._doubts[name].at
                at = at if places is None else np.searchsorted(places, at)
                self._doubts[name].take_in(kind, flat[at])


class _Run:
    """One run, of the kind that ``_Trials.run`` names; what lies outside stays as it is.

    places: of values that are needed at these places alone, in row-major order. asked: of values
        that no instruction needs as a whole, the places at which the answer is.
    """

    def __init__(
        self,
        state: State,
        kind: str,
        seed: int,
        places: Mapping[Value, Any],
        asked: Mapping[Value, Any],
    ) -> None:
        self._state = state
        self._kind = kind
        self._moves = kind in ("moved", "shaken")
        self._change = _change(kind, seed)
        self._places = places
        self._asked = asked
        self.made: dict[Value, Any] = {}
        #: of values of which nothing else is there
        self.answers: dict[Value, Any] = {}
        self._parts: dict[Value, Any] = {}

    def outside(self, v: Value) -> Any:
        """The array of a value from outside, or of a constant."""
        if v.nbytes >= _LARGE:  # the C library may keep what was used before, in smaller pieces
            give_back()
        return v.array if v.role == "constant" else self._change(self._state.fetch(v), v.number)

    def part(self, v: Value) -> Any:
        """A copy of what is at the places of a value."""
        if v not in self._parts:
            array = v.array if v.role == "constant" else self._state.fetch(v)
            self._parts[v] = self._change(array.reshape(-1)[self._places[v]], v.number)
        return self._parts[v].copy()

    def _put(self, v: Value, array: Any) -> None:
        self.made[v] = array
        if v in self._places:
            self._parts[v] = array.reshape(-1)[self._places[v]]

    def compute(self, i: Instruction) -> None:
        """Run one instruction."""
        if self._kind == "wide" and self._is_large_product(i):
            self._compute_by_columns(i)
            return
        from_outside = [v for v in dict.fromkeys(i.values()) if v not in self.made]
        for v in from_outside:
            self._put(v, self.outside(v))
        arrays: list[Any] = [self.made[x] if type(x) is Value else x for x in i.inputs]
        for k in i.written:
            arrays[k] = backend.copied(arrays[k])
        options = i.attrs if i.live is None else {**i.attrs, **i.live()}
        if i.outputs[0].nbytes >= _LARGE:
            give_back()
        place = next((backend.of(a) for a in arrays if is_array(a)), CPU)
        y = place.run(i.op, arrays, options)
        parts: list[Any] = []
        if i.op.residual is not None:
            y, r = y
            parts = [a for a in (r if isinstance(r, tuple) else (r,)) if is_array(a)]
        parts = parts[: i.residual]
        if i.outputs[0].before is None:
            parts.insert(0, y if is_array(y) else place.xp.asarray(y))
        for v, array in zip(i.outputs, parts):
            if self._moves and not (i.op.moves or i.op.name in _CHOOSE):
                array = self._change(array, v.number, bool(i.op.fresh))
            self._put(v, array)
        for v, k in zip(i.outputs[len(parts) :], i.written):
            self._put(v, arrays[k])
        if self._kind == "wide":  # it is large, and quickly made again
            for v in from_outside:
                del self.made[v]

    def _is_large_product(self, i: Instruction) -> bool:
        if i.op.name not in _COLUMNS or len(i.outputs) != 1 or not self._state.program.on_host:
            return False
        factor, out = i.inputs[1], i.outputs[0]
        if type(factor) is not Value or len(factor.shape) != 2:
            return False
        return 8 * max(math.prod(factor.shape), math.prod(out.shape)) >= _LARGE

    def _compute_by_columns(self, i: Instruction) -> None:
        """Some columns of a large product at a time: float64 of all of it would be twice as large,
        and of all of a factor from outside, too."""
        give_back()
        v, options = i.outputs[0], i.attrs if i.live is None else {**i.attrs, **i.live()}
        axes = _COLUMNS[i.op.name]
        given = [
            x if type(x) is not Value else self._as_it_is(x, axis is None)
            for x, axis in zip(i.inputs, axes)
        ]
        n = v.shape[-1]
        width = max(1, _PART // max(1, 8 * math.prod(v.shape[:-1])))
        picked = [self._places.get(v), self._asked[v]] if v in self._asked else []
        answers = [None if at is None else np.empty(at.size) for at in picked]
        whole = None if picked else np.empty(v.shape)
        for begin in range(0, n, width):
            part = slice(begin, begin + width)
            arrays = [
                x
                if axis is None or x is None
                else _widened(x[part] if axis == 0 else x[:, part], 0)
                for x, axis in zip(given, axes)
            ]
            y = CPU.run(i.op, arrays, options)
            if whole is not None:
                whole[..., part] = y
            for at, answer in zip(picked, answers):
                if at is not None and answer is not None:
                    row, column = np.divmod(at, n)
                    here = (begin <= column) & (column < begin + width)
                    answer[here] = y.reshape(-1, y.shape[-1])[row[here], column[here] - begin]
        if whole is not None:
            self._put(v, whole)
            return
        self.answers[v] = answers[1]
        if answers[0] is not None:
            self._parts[v] = answers[0]

    def _as_it_is(self, v: Value, widened: bool) -> Any:
        """The array of a value; of one from outside as it lies there, or widened."""
        if v in self.made:
            return self.made[v]
        if widened:
            return self.outside(v)
        return v.array if v.role == "constant" else self._state.fetch(v)


class _Update:
    """The update of a bundle of parameters at some places.

    places: what it needs, and the places of each: parameters, their gradients and states.
    """

    def __init__(self, i: Instruction, sought: Mapping[Value | None, Any]) -> None:
        """sought: values that it overwrites, and the places that are asked for."""
        self._instruction = i
        self.counts = i.inputs[0] is not None
        first = 1 + BUNDLES[i.op]
        n = (len(i.inputs) - first) // 2
        self._states, self._params = i.inputs[1:first], i.inputs[first : first + n]
        self._gradients = i.inputs[first + n :]
        self.places: dict[Value, Any] = {}
        bounds = [*i.attrs["scratch"].starts, i.attrs["scratch"].total]
        flat = [sought[s] for s in self._states if s in sought]
        chosen = []  # of each parameter
        for p, (begin, end) in zip(self._params, itertools.pairwise(bounds)):
            of_states = [at[(begin <= at) & (at < end)] - begin for at in flat]
            own = [sought[p]] if p in sought else []
            chosen.append(each_once(np.concatenate([*own, *of_states, np.zeros(0, np.intp)])))
        whole = np.concatenate([at + begin for at, begin in zip(chosen, bounds)])
        self._bounds = [0, *itertools.accumulate(at.size for at in chosen)]
        for p, g, at in zip(self._params, self._gradients, chosen):
            if at.size:
                self.places[p] = self.places[g] = at
        self.places |= {s: whole for s in self._states if s is not None}
        if self.counts:
            self.places[i.inputs[0]] = np.zeros(1, np.intp)
        self._befores = {v: v.before for v in i.outputs}

    def find(self, v: Value, at: Any) -> Any:
        """Where what is asked for lies in the numbers that ``computed`` gives for ``v``."""
        before = self._befores[v]
        assert before is not None
        return np.searchsorted(self.places[before], at)

    def computed(self, run: _Run) -> list[tuple[Value, Any]]:
        """Each value that is overwritten, and what is at its places then."""
        i = self._instruction
        options = i.attrs if i.live is None else {**i.attrs, **i.live()}
        states = [None if s is None else run.part(s) for s in self._states]
        after: dict[Any, Any] = {s: part for s, part in zip(self._states, states) if s is not None}
        for k, (p, g) in enumerate(zip(self._params, self._gradients)):
            begin, end = self._bounds[k], self._bounds[k + 1]
            if begin == end:
                continue
            count = run.part(i.inputs[0]).reshape(()) if self.counts else None
            own = [None if s is None else s[begin:end] for s in states]
            after[p] = run.part(p)
            scratch = Scratch([after[p].shape], after[p].dtype, "cpu")
            options = {**options, "scratch": scratch}
            CPU.run(i.op, [count, *own, after[p], run.part(g)], options)
        return [(v, after[v.before]) for v in i.outputs if v.before in after]


# --- what is made of the inputs -------------------------------------------------------------------


def _change(kind: str, seed: int) -> Change:
    if kind == "base":
        return _same
    if kind == "wide":
        return _widened
    bits = _EXCUSED if kind == "shaken" else 1.0

    def moved(array: Any, number: int, own: bool = False) -> Any:
        draw = np.random.default_rng([seed, number])
        return _moved(array, draw, bits, own)

    return moved


def _same(array: Any, number: int, own: bool = False) -> Any:
    return array


def _widened(array: Any, number: int, own: bool = False) -> Any:
    """A copy in float64, if it is of floats."""
    return array.astype(np.float64) if array.dtype in dtypes.FLOATS else array


def _moved(array: Any, draw: np.random.Generator, bits: float, own: bool) -> Any:
    """The array, or a copy with its axes in the same order in memory: each float is moved by about
    so many last bits, up or down."""
    if array.dtype not in dtypes.FLOATS or not array.size:
        return array
    found = array if own and is_writeable(array) else backend.copied(array)
    place = backend.of(array)
    bit = bits * float(ml_dtypes.finfo(array.dtype).eps)  # type: ignore[no-untyped-call]
    factors = np.array([1.0 - bit, 1.0 + bit]).astype(array.dtype)

    def drawn(shape: Any) -> Any:
        return place.xp.asarray(factors[draw.integers(0, 2, shape, np.uint8)])

    with place.at(place.device_of(array)):
        if place is not CPU or not (found.flags.c_contiguous or found.flags.f_contiguous):
            found *= drawn(found.shape)
            return found
        flat = found.ravel("K")  # a view
        for at in range(0, flat.size, PIECE):
            piece = flat[at : at + PIECE]
            piece *= drawn(piece.size)
        return found
