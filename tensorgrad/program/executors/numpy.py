"""The executor that is always there: the program as a Python function, a line for each call.

Names take the place of the tape, and nothing is looked up that is known beforehand. On the CPU what
NumPy computes is written into arrays that are allocated once, as long as nobody outside sees them;
everything else is called as eager mode calls it. Chains of elementwise operations on large arrays
are computed a tile at a time, on all cores: what lies between the first and the last one never
leaves the caches. It runs on CUDA arrays too.
"""

from __future__ import annotations

import functools
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

import numpy as np

from tensorgrad import backend
from tensorgrad.backend import is_array
from tensorgrad.backend.cpu import CPU
from tensorgrad.dtypes import HALVES, WIDE_FLOATS
from tensorgrad.ops.activations import PASS_POSITIVE
from tensorgrad.ops.shaping import SUM_TO
from tensorgrad.ops.sums import column_sums
from tensorgrad.ops.table import OPERATIONS
from tensorgrad.program.forks import GATE
from tensorgrad.program.ir import Instruction, Piece, Program, Range, Value, is_writeable
from tensorgrad.program.pool import threads
from tensorgrad.tape import Primitive
from tensorgrad.versions import increment_versions

# Elements from which on a chain is computed in tiles, and those of a tile: some fit in a cache.
_LARGE = 1 << 18
_TILE = 1 << 14
# Elements of arrays up to which OpenBLAS computes their products with one thread: 4096^1.5 is its
# limit. A fork need not wait for such programs, to which the gate would add 2 %.
_QUICK = 1 << 12
_BITS = {np.dtype(np.float32): np.int32, np.dtype(np.float64): np.int64}


class NumpyExecutor:
    """Runs a program call by call."""

    name = "numpy"
    language = "python"
    failures: tuple[type[Exception], ...] = ()
    references = 1 << 30  # nobody has to be watched: see renew

    def __init__(self, program: Program) -> None:
        self.program = program
        self.reason = ""
        self._kept = set(program.kept())
        self._overwritten = {v.place for i in program for v in i.outputs if v.before is not None}
        self._buffers_allowed = program.on_host and not (
            program.aliased or any(v.role == "temporary" for v in self._overwritten)
        )
        self._held_ids: set[int] = set()  # of arrays that serve every replay
        self._fresh: set[Value] = set()  # values that are always new arrays
        self._known: dict[str, Any] = {
            "ndarray": np.ndarray, "asarray": np.asarray, "dot": np.dot, "own": _own,
            "note": increment_versions, "column_sums": column_sums, "held": self._held_ids,
        }  # fmt: skip
        self._lines: list[str] = []
        arguments = [_name(v) for v in program.arguments]
        outside = [*arguments]
        for v in program.values():
            if v.role == "external":
                self._lines.append(f"{_name(v)} = {self._constant(v.fetch, 'f')}()")
                outside.append(_name(v))
            elif v.role == "constant":
                held = self._constant(v.array, "k")
                self._held_ids.add(id(v.array))
                copied = ".copy()" if program.aliased or v in self._overwritten else ""
                self._lines.append(f"{_name(v)} = {held}{copied}")
        self._readers: dict[Value, list[Instruction]] = {}
        for i in program:
            for v in i.values():
                self._readers.setdefault(v, []).append(i)
        for run in self._runs():
            if len(run) > 1:
                self._write_tiles(run)
            else:
                self._write(run[0])
        outputs = [*program.results, *[v for _, v in program.gradients if v is not None]]
        handed = self._handed_out(outputs, outside)
        count = len(program.results)
        following = iter(handed[count:])
        gradients = ["None" if v is None else next(following) for _, v in program.gradients]
        self._lines.append(f"return [{', '.join(handed[:count])}], [{', '.join(gradients)}]")
        #: the program in Python
        self.text = f"def run({', '.join(arguments)}):\n    " + "\n    ".join(self._lines) + "\n"
        exec(compile(self.text, "<program>", "exec"), self._known)
        self._function: Callable[..., Any] = self._known["run"]
        self._is_quick = all(math.prod(v.shape) <= _QUICK for v in program.values())
        self._at_risk = self._values_at_risk()

    def _values_at_risk(self) -> list[Value]:
        """What lies outside and is overwritten before an instruction that may fail."""
        failing = [k for k, i in enumerate(self.program) if i.may_fail]
        before = self.program.instructions[: failing[-1]] if failing else []
        places = {v.place for i in before for v in i.outputs if v.before is not None}
        if self.program.aliased or any(v.role == "temporary" for v in places):
            return list(self.program.touched) if places else []
        return [v for v in places if v.role in ("argument", "external")]

    # --- writing ---------------------------------------------------------------------------------

    def _constant(self, value: Any, prefix: str) -> str:
        """A name for an object that is always the same."""
        name = f"{prefix}_{len(self._known)}"
        self._known[name] = value
        return name

    def _operand(self, x: Any) -> str:
        if type(x) is Value:
            return _name(x)
        return "None" if x is None else self._constant(x, "c")

    def _buffer(self, v: Value) -> str:
        """An argument that names an array for the result of every replay, if there may be one."""
        if not self._buffers_allowed or v in self._kept:
            return ""
        made = np.empty(v.shape, v.dtype)
        self._held_ids.add(id(made))
        return f", out={self._constant(made, 'b')}"

    def _write(self, i: Instruction) -> None:
        """The lines of an instruction."""
        op, first = i.op, i.outputs[0]
        on_host = self.program.on_host and not any(v.dtype in HALVES for v in i.values())
        alike = first.dtype in WIDE_FLOATS and all(v.dtype is first.dtype for v in i.values())
        if on_host and alike and not i.written and i.live is None:
            special = _LINES.get(op)
            text = None if special is None else special(self, i)
            ufunc = getattr(np, op.value) if isinstance(op.value, str) else None
            if text is None and isinstance(ufunc, np.ufunc) and not i.attrs:
                given = [
                    _name(x)
                    if type(x) is Value
                    else self._constant(np.asarray(x, first.dtype), "c")
                    for x in i.inputs
                ]
                text = f"{self._constant(ufunc, 'u')}({', '.join(given)}{self._buffer(first)})"
            if text is not None:
                if op.fresh:
                    self._fresh.add(first)
                self._lines.append(f"{_name(first)} = {text}")
                self._as_array(first)
                return
        if on_host:
            self._write_call(i)
        else:
            self._write_generic(i)

    def _runs(self) -> Iterable[list[Instruction]]:
        """The instructions in order: those that tiles serve in runs, the others alone."""
        run: list[Instruction] = []
        for i in self.program:
            fits = self._fits_tiles(i)
            if run and not (fits and i.outputs[0].shape == run[0].outputs[0].shape):
                yield run
                run = []
            if fits:
                run.append(i)
            else:
                yield [i]
        if run:
            yield run

    def _fits_tiles(self, i: Instruction) -> bool:
        first = i.outputs[0]
        return (
            self._buffers_allowed
            and i.op.elementwise
            and i.live is None
            and not i.written
            and len(i.outputs) == 1
            and math.prod(first.shape) >= _LARGE
            and all(v.shape == first.shape or not v.shape for v in i.values())
            and not any(v.dtype in HALVES for v in (first, *i.values()))
        )

    def _write_tiles(self, run: list[Instruction]) -> None:
        """A function that computes a run of elementwise instructions on part of their elements."""
        shape = run[0].outputs[0].shape
        made = {i.outputs[0] for i in run}
        inputs = list(dict.fromkeys(v for i in run for v in i.values() if v not in made))
        own = set(run)
        outputs = [
            v
            for i in run
            if (v := i.outputs[0]) in self._kept or not own.issuperset(self._readers.get(v, ()))
        ]
        body = [
            f"{_name(v)} = {_name(v)}_[start:stop]" if v.shape else f"{_name(v)} = {_name(v)}_"
            for v in inputs
        ]
        for i in run:
            name = _name(i.outputs[0])
            given = [self._operand(x) for x in i.inputs]
            given += [f"{key}={self._constant(x, 'a')}" for key, x in i.attrs.items()]
            into = i.outputs[0] in outputs
            function = getattr(np, i.op.value) if isinstance(i.op.value, str) else None
            if isinstance(function, np.ufunc) and into:
                given.append(f"out={name}_[start:stop]")
                into = False
            call = self._constant(i.op.cpu, _identifier(i.op.name))
            body.append(f"{name} = {call}({', '.join(given)})")
            if into:
                body.append(f"{name}_[start:stop] = {name}")
        names = [f"{_name(v)}_" for v in (*inputs, *outputs)]
        text = (
            f"def tiles(begin, end, {', '.join(names)}):\n"
            f"    for start in range(begin, end, {_TILE}):\n"
            f"        stop = min(start + {_TILE}, end)\n        " + "\n        ".join(body)
        )
        space = dict(self._known)
        exec(compile(text, "<tiles>", "exec"), space)
        tiles = self._constant(space["tiles"], "tiles")
        for v in outputs:
            buffer = self._buffer(v).removeprefix(", out=")
            if not buffer:
                self._fresh.add(v)
                about = f"{self._constant(shape, 's')}, {self._constant(v.dtype, 'd')}"
                buffer = f"{self._constant(np.empty, 'empty')}({about})"
            self._lines.append(f"{_name(v)} = {buffer}")
        flat = [f"{_name(v)}.reshape(-1)" if v.shape else _name(v) for v in (*inputs, *outputs)]
        self._lines.append(
            f"{self._constant(_shared_out, 'shared_out')}({tiles}, {math.prod(shape)}, "
            f"{', '.join(flat)})"
        )

    def _write_call(self, i: Instruction) -> None:
        """The value function of the primitive, called with what is known beforehand."""
        op, first = i.op, i.outputs[0]
        if i.residual > 1:
            self._write_generic(i)
            return
        given = [self._operand(x) for x in i.inputs]
        if i.live is None:
            given += [f"{name}={self._constant(x, 'a')}" for name, x in i.attrs.items()]
        else:
            fixed, live = self._constant(i.attrs, "a"), self._constant(i.live, "l")
            given.append(f"**{{**{fixed}, **{live}()}}")
        call = f"{self._constant(op.cpu, _identifier(op.name))}({', '.join(given)})"
        if first.before is not None:
            self._lines.append(call)
        elif op.residual is None:
            self._lines.append(f"{_name(first)} = {call}")
        else:
            second = _name(i.outputs[1]) if i.residual else "_"
            self._lines.append(f"{_name(first)}, {second} = {call}")
        if first.before is None:
            if op.fresh:
                self._fresh.add(first)
            self._as_array(first)
        self._note(i)

    def _write_generic(self, i: Instruction) -> None:
        """A call that finds out on what device it runs, and what it gives."""
        op, attrs, live = i.op, i.attrs, i.live
        gives_first = i.outputs[0].before is None
        count = i.residual

        def call(*arrays: Any) -> tuple[Any, ...]:
            options = attrs if live is None else {**attrs, **live()}
            place = next((backend.of(a) for a in arrays if is_array(a)), CPU)
            y = place.run(op, arrays, options)
            parts: list[Any] = []
            if op.residual is not None:
                y, r = y
                parts = _arrays(r if isinstance(r, tuple) else (r,))[:count]
            if not gives_first:
                return tuple(parts)
            return (y if is_array(y) else place.xp.asarray(y), *parts)

        names = [_name(v) for v in i.outputs[: gives_first + count]]
        given = ", ".join(self._operand(x) for x in i.inputs)
        target = f"{', '.join(names)}, = " if names else ""
        self._lines.append(f"{target}{self._constant(call, 'call')}({given})")
        self._note(i)

    def _as_array(self, v: Value) -> None:
        if not v.shape:  # NumPy makes a scalar of a 0-d array
            name = _name(v)
            self._lines.append(f"if type({name}) is not ndarray: {name} = asarray({name})")

    def _note(self, i: Instruction) -> None:
        written = [_name(i.inputs[k]) for k in i.written if type(i.inputs[k]) is Value]
        if written:
            self._lines.append(f"note([{', '.join(written)}])")

    def _handed_out(self, outputs: Sequence[Value], outside: Sequence[str]) -> list[str]:
        """The outputs as memory that nobody else refers to."""
        found: list[str] = []
        names = [_name(v) for v in outputs]
        known = [
            v in self._fresh and names.index(n) == k for k, (v, n) in enumerate(zip(outputs, names))
        ]
        if not all(known):
            sure = [n for n, fresh in zip(names, known) if fresh]
            ids = ", ".join(f"id({n})" for n in [*outside, *sure])
            self._lines.append(f"taken = {{*held{', ' if ids else ''}{ids}}}")
        for name, fresh in zip(names, known):
            found.append(name if fresh else f"own({name}, taken)")
        return found

    # --- running ---------------------------------------------------------------------------------

    def run(self, arguments: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """The results and the gradients, in memory that nobody else refers to.

        Where it fails, nothing outside has changed.
        """
        saved = []
        for v in self._at_risk:
            array = arguments[int(v.label)] if v.fetch is None else v.fetch()
            saved.append((array, backend.copied(array)))
        found: tuple[list[Any], list[Any]]
        try:
            if self._is_quick:
                found = self._function(*arguments)
            else:
                with GATE:
                    found = self._function(*arguments)
        except BaseException:
            for array, numbers in reversed(saved):
                if is_writeable(array):
                    array[...] = numbers
            raise
        return found

    @staticmethod
    def fits(on_host: bool) -> bool:
        """See Executor: arrays of a GPU are called like any others."""
        return True

    def show(self, arrays: Mapping[Value, Any], piece: Piece) -> dict[Value, list[Range]]:
        """See Executor; it cannot show anything."""
        return {}

    def show_no_more(self) -> None:
        """See Executor."""

    def rest(self) -> None:
        """See Executor; it keeps its memory."""

    def renew(self, *numbers: int) -> None:
        """Nothing to do: every replay gives new arrays."""

    def fast_run(self) -> None:
        """See Executor."""

    def lines(self) -> list[str]:
        """What ran where, for the report."""
        return [f"{len(self.program.instructions)} calls"]


@functools.cache
def _pool(count: int, process: int) -> ThreadPoolExecutor:
    """Threads of this process: after a fork there are none of those that were."""
    return ThreadPoolExecutor(count, thread_name_prefix="tensorgrad")


def _shared_out(tiles: Callable[..., None], size: int, *arrays: Any) -> None:
    """Compute all tiles, the threads of a pool and this one each their share."""
    count = threads()
    share = -(-size // (count * _TILE)) * _TILE
    parts = [(at, min(at + share, size)) for at in range(0, size, share)]
    # In a copy of the context, so that np.errstate holds there too.
    waiting = [
        _pool(count - 1, os.getpid()).submit(copy_context().run, tiles, *part, *arrays)
        for part in parts[1:]
    ]
    tiles(*parts[0], *arrays)
    for future in waiting:
        future.result()


def _own(array: Any, taken: set[int]) -> Any:
    """``array``, or a copy of it if it is a view, or somebody else's."""
    if array.base is not None or id(array) in taken:
        return array.copy()
    taken.add(id(array))
    return array


def _identifier(name: str) -> str:
    """The name of a primitive, which may be that of a lambda, as one of Python's."""
    return re.sub(r"\W", "_", name)


def _name(v: Value) -> str:
    return f"v{v.place.number}"


def _arrays(parts: Iterable[Any]) -> list[Any]:
    return [a for a in parts if is_array(a)]


# --- lines that are quicker than the value function of the primitive ------------------------------
# Each gives an expression, or None where the usual call is needed. All values are of one dtype,
# float32 or float64, on the CPU.


def _linear(to: NumpyExecutor, i: Instruction) -> str | None:
    x, weight, bias = i.inputs
    if len(x.shape) != 2 or not x.shape[0]:
        return None
    product = f"dot({_name(x)}, {_name(weight)}.T{to._buffer(i.outputs[0])})"
    if bias is None:
        return product
    name = _name(i.outputs[0])
    to._lines.append(f"{name} = {product}")
    return f"{to._constant(np.add, 'u')}({name}, {_name(bias)}, {name})"


def _matmul(to: NumpyExecutor, i: Instruction) -> str | None:
    a, b = i.inputs
    if len(a.shape) != 2 or len(b.shape) != 2 or not i.outputs[0].nbytes:
        return None
    return f"dot({_name(a)}, {_name(b)}{to._buffer(i.outputs[0])})"


def _relu(to: NumpyExecutor, i: Instruction) -> str:
    zero = to._constant(np.zeros((), i.outputs[0].dtype), "c")
    (x,) = i.inputs
    return f"{to._constant(np.maximum, 'u')}({_name(x)}, {zero}{to._buffer(i.outputs[0])})"


def _pass_positive(to: NumpyExecutor, i: Instruction) -> str | None:
    """The bits of the gradient, times 0 or 1: see keep_where in ops/elementwise.py."""
    g, y = i.inputs
    first = i.outputs[0]
    buffer = to._buffer(first).removeprefix(", out=")
    if not buffer or g.shape != y.shape or not g.shape:
        return None
    bits = np.dtype(_BITS[first.dtype])
    mask = to._constant(np.empty(first.shape, np.bool_), "b")
    zero, kind = to._constant(np.zeros((), first.dtype), "c"), to._constant(bits, "c")
    target = to._constant(to._known[buffer].view(bits), "b")
    to._lines.append(f"{to._constant(np.greater, 'u')}({_name(y)}, {zero}, {mask})")
    multiply = to._constant(np.multiply, "u")
    to._lines.append(f"{multiply}({_name(g)}.view({kind}), {mask}, {target})")
    return buffer


def _permute_dims(to: NumpyExecutor, i: Instruction) -> str | None:
    return f"{_name(i.inputs[0])}.T" if tuple(i.attrs["axes"]) == (1, 0) else None


def _sum_to(to: NumpyExecutor, i: Instruction) -> str | None:
    (x,) = i.inputs
    if len(x.shape) != 2 or x.shape[1:] != tuple(i.attrs["shape"]) or not x.shape[0]:
        return None
    to._fresh.add(i.outputs[0])
    return f"column_sums({_name(x)})"


def _multiply(to: NumpyExecutor, i: Instruction) -> str | None:
    """Nothing at all, if a factor is 1 and the other one is nobody else's."""
    first = i.outputs[0]
    if (
        first in to._kept
        or not to._buffers_allowed
        or any(v.role == "external" or v.place in to._overwritten for v in i.values())
    ):
        return None
    for one, other in (i.inputs, i.inputs[::-1]):
        if type(one) is not Value or type(other) is not Value or one.role != "constant":
            continue
        if one.array.size == 1 and one.array.item() == 1 and other.shape == first.shape:
            return _name(other)
    return None


# By the primitive, and not by its name: an operation of a user's may have the same.
_LINES: dict[Primitive | None, Callable[[NumpyExecutor, Instruction], str | None]] = {
    OPERATIONS["linear"].primitive: _linear,
    OPERATIONS["matmul"].primitive: _matmul,
    OPERATIONS["relu"].primitive: _relu,
    OPERATIONS["permute_dims"].primitive: _permute_dims,
    OPERATIONS["multiply"].primitive: _multiply,
    PASS_POSITIVE: _pass_positive,
    SUM_TO: _sum_to,
}
