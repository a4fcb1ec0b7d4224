"""The executor that is always there: a flat list of calls to the values of the primitives.

On the CPU NumPy's universal functions write into arrays that are allocated once; everything else
is called as eager mode calls it, without the tape. It runs on CUDA arrays too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from typing import Any

import numpy as np

from tensorgrad import backend
from tensorgrad.backend import is_array
from tensorgrad.backend.cpu import CPU
from tensorgrad.dtypes import HALVES, WIDE_FLOATS
from tensorgrad.program.program import Instruction, Program, Value
from tensorgrad.tape import note_overwritten

Step = Callable[[list[Any]], None]


class Calls:
    """Runs a program call by call."""

    name = "numpy"
    references = 1 << 30  # nobody has to be watched: see renew
    reason = ""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._number: dict[Value, int] = {}
        self._slots: list[Any] = []
        self._held_ids: set[int] = set()  # arrays that serve every replay
        self._kept = set(program.kept())
        self._external = [v for v in program.values() if v.role == "external"]
        for v in program.arguments:
            self._slot(v)
        for v in program.values():
            at = self._slot(v)
            if v.role == "constant":
                self._slots[at] = v.array
                self._held_ids.add(id(v.array))
        overwritten = {v.place for i in program for v in i.outputs if v.before is not None}
        self._fresh = [
            (self._slot(v), v)
            for v in program.values()
            if v.role == "constant" and v in overwritten
        ]
        self._reusable = not program.aliased and not overwritten.intersection(
            v for v in program.values() if v.role == "temporary"
        )
        self._steps = [self._bound(i) for i in program]
        self._fetch = [(self._slot(v), v) for v in self._external]
        self._arguments = [self._slot(v) for v in program.arguments]
        self._outputs = [self._slot(v) for v in program.results]
        self._gradients = [None if v is None else self._slot(v) for _, v in program.gradients]

    def _slot(self, v: Value) -> int:
        v = v.place
        if v not in self._number:
            self._number[v] = len(self._slots)
            self._slots.append(None)
        return self._number[v]

    def _bound(self, i: Instruction) -> Step:
        """An instruction as a function of the slots."""
        op, attrs, live = i.op, i.attrs, i.live
        given = [self._slot(x) if type(x) is Value else None for x in i.inputs]
        fixed = list(i.inputs)
        out = self._slot(i.outputs[0])
        ufunc = getattr(np, op.value) if isinstance(op.value, str) else None
        first = i.outputs[0]
        if (
            isinstance(ufunc, np.ufunc)
            and self.program.on_host
            and not attrs
            and self._reusable
            and first not in self._kept
            and first.dtype in WIDE_FLOATS
            and all(v.dtype is first.dtype for v in i.values())
        ):
            return self._into_buffer(ufunc, i, out)
        several = [self._slot(v) for v in i.outputs[1 : 1 + i.residual]]
        written = [given[k] for k in i.written]
        gives_first = i.outputs[0].before is None
        plain = self.program.on_host and not any(v.dtype in HALVES for v in i.values())
        if plain and live is None and not written and len(several) < 2:
            places = [self._constant_or_slot(x) for x in i.inputs]
            if op.residual is None:
                return self._plainly(op.cpu, places, attrs, out)
            return self._with_residual(op.cpu, places, attrs, out, several)

        def step(slots: list[Any]) -> None:
            arrays = [fixed[k] if at is None else slots[at] for k, at in enumerate(given)]
            options = attrs if live is None else {**attrs, **live()}
            if plain:
                y = op.cpu(*arrays, **options)
            else:
                place = next((backend.of(a) for a in arrays if is_array(a)), CPU)
                y = place.run(op, arrays, options)
            if several:
                y, r = y
                parts = r if isinstance(r, tuple) else (r,)
                for at, part in zip(
                    several, parts if len(several) == len(parts) else _arrays(parts)
                ):
                    slots[at] = part
            elif op.residual is not None:
                y = y[0]
            if gives_first:
                slots[out] = y if is_array(y) else backend.of(arrays[0]).xp.asarray(y)
            if written:
                note_overwritten([slots[at] for at in written if at is not None])

        return step

    def _plainly(
        self, function: Callable[..., Any], given: list[int], attrs: dict[str, Any], out: int
    ) -> Step:
        """A call with nothing special about it, with as little Python as possible around it."""
        if len(given) == 1:
            (a,) = given

            def one(slots: list[Any]) -> None:
                y = function(slots[a], **attrs)
                slots[out] = y if type(y) is np.ndarray else np.asarray(y)

            return one
        get = itemgetter(*given)

        def several(slots: list[Any]) -> None:
            y = function(*get(slots), **attrs)
            slots[out] = y if type(y) is np.ndarray else np.asarray(y)

        return several

    def _with_residual(
        self,
        function: Callable[..., Any],
        given: list[int],
        attrs: dict[str, Any],
        out: int,
        more: list[int],
    ) -> Step:
        """A call that gives a pair, of which the second is one array or nothing of interest."""

        def step(slots: list[Any]) -> None:
            y, r = function(*[slots[at] for at in given], **attrs)
            slots[out] = y if type(y) is np.ndarray else np.asarray(y)
            for at in more:
                slots[at] = r

        return step

    def _constant_or_slot(self, x: Any) -> int:
        return self._slot(x) if type(x) is Value else self._held(x)

    def _into_buffer(self, ufunc: np.ufunc, i: Instruction, out: int) -> Step:
        first = i.outputs[0]
        buffer = np.empty(first.shape, first.dtype)
        self._held_ids.add(id(buffer))
        if len(i.inputs) == 1:
            (a,) = (self._slot(v) for v in i.values())

            def one(slots: list[Any]) -> None:
                slots[out] = ufunc(slots[a], out=buffer)

            return one
        values = [
            self._slot(x) if type(x) is Value else self._held(np.asarray(x, first.dtype))
            for x in i.inputs
        ]
        a, b = values

        def two(slots: list[Any]) -> None:
            slots[out] = ufunc(slots[a], slots[b], out=buffer)

        return two

    def _held(self, array: Any) -> int:
        self._slots.append(array)
        return len(self._slots) - 1

    def run(self, arguments: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """The results and the gradients, in memory that nobody else refers to."""
        slots = self._slots
        for at, v in self._fetch:
            slots[at] = v.fetch()  # type: ignore[misc]
        for at, v in self._fresh:
            slots[at] = v.array.copy()
        for at, array in zip(self._arguments, arguments):
            slots[at] = array
        for step in self._steps:
            step(slots)
        taken: set[int] = set(self._held_ids)
        taken.update(id(slots[at]) for at, _ in self._fetch)
        taken.update(map(id, arguments))

        def own(at: int) -> Any:
            array = slots[at]
            if array.base is not None or id(array) in taken:
                return array.copy()
            taken.add(id(array))
            return array

        results = [own(at) for at in self._outputs]
        gradients = [None if at is None else own(at) for at in self._gradients]
        return results, gradients

    def renew(self, number: int) -> None:
        """Nothing to do: every replay gives new arrays."""

    def lines(self) -> list[str]:
        """What ran where, for the report."""
        return [f"{len(self._steps)} calls"]


def _arrays(parts: Iterable[Any]) -> list[Any]:
    return [a for a in parts if is_array(a)]
