"""From primitives to loops: each value function is called with the symbolic namespace.

What it computes is written down as maps, reductions and products over views of memory. A value
that cannot be followed runs as a call of its primitive, with the reason. So a new primitive is
part of the loops of every program at once, and nothing has to be said about it here.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tensorgrad.backend import gemm
from tensorgrad.dtypes import FLOATS, HALVES, float32
from tensorgrad.errors import CompileError
from tensorgrad.program.definition import is_immutable
from tensorgrad.program.functions import C_TYPES, FUNCTIONS, reason_against
from tensorgrad.program.ir import Instruction, Program, Value, exact
from tensorgrad.program.loop_ir import (
    Call,
    Check,
    Column,
    Map,
    Operation,
    Product,
    Reduce,
    Routine,
    Scalar,
    Scan,
    Scatter,
    Storage,
    View,
    extent_of,
    is_plain,
    strides_of,
)
from tensorgrad.program.symbolic import (
    FLOAT64,
    INT64,
    NotFollowedError,
    SymbolicArray,
    SymbolicNamespace,
)
from tensorgrad.tape import CAST


class Lowering:
    """Writes loops; the methods are what the symbolic namespace writes with."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.operations: list[Operation] = []
        self.scalars: list[Scalar] = []
        self.views: dict[Value, View] = {}
        self.storages: list[Storage] = []
        self.where = ""
        #: what was computed before, for those who ask again; and what each storage is part of
        self._known: dict[Any, View] = {}
        self._readers: dict[Storage, list[Any]] = {}
        self._latest: Any = None
        self._lives: dict[Storage, Scalar] = {}
        self._columns: set[Storage] = set()  # of 0, 1, 2, ...
        #: what routines made, and what was made of that in the same order of axes
        self._ordered: set[Storage] = set()
        self._kept = set(program.kept())
        self._overwritten = {v.place for i in program for v in i.outputs if v.before is not None}
        self._last_use: dict[Value, int] = dict.fromkeys(self._kept, len(program.instructions))
        for at, i in enumerate(program):
            for v in i.values():
                self._last_use[v] = max(at, self._last_use.get(v, 0))
        for v in program.values():
            if v.role != "temporary":
                self.views[v] = self._outside(v)
        for at, i in enumerate(program):
            self.where = i.where
            if i.written:
                self._save_copies(i, at)
            self._lower(i)
        if self.scalars:
            read = {view.storage for op in self.operations for view in op.views}
            self.scalars = [s for s in self.scalars if s.out.storage in read]

    # --- memory ---------------------------------------------------------------------------------

    def storage(self, size: int, dtype: np.dtype[Any], role: str = "temporary") -> Storage:
        """New memory for ``size`` elements."""
        made = Storage(len(self.storages), size, dtype, role)
        self.storages.append(made)
        return made

    def new(self, shape: Sequence[int], dtype: np.dtype[Any]) -> View:
        """A new value in memory of its own."""
        shape = tuple(shape)
        return View(self.storage(math.prod(shape), dtype), shape, strides_of(shape))

    def _outside(self, v: Value) -> View:
        strides, size, offset = strides_of(v.shape), math.prod(v.shape), 0
        if v.role == "external" and v.array.size and is_plain(v.array):
            strides, size, offset = extent_of(v.array)
        storage = self.storage(size, v.dtype, v.role)
        if v not in self._overwritten:
            storage.value = v
        return View(storage, v.shape, strides, offset)

    def _save_copies(self, i: Instruction, at: int) -> None:
        """Copy what a later instruction needs of the memory that ``i`` is about to overwrite.

        Where the step had a view of that memory it does not use it again, or the program would be
        aliased. What is here a view of it may have been a copy there (of a reshaped array, say).
        """
        places = [v.place for v in i.outputs if v.before is not None]
        written = {self.views[place].storage for place in places if place.role == "external"}
        for v, view in list(self.views.items()):
            if view.storage in written and v.place not in places and self._last_use.get(v, 0) >= at:
                if v.dtype in C_TYPES and view.size:
                    self.views[v] = self.copy(view)
                else:
                    copied = Instruction(CAST, (v,), {"dtype": v.dtype}, [v], where=i.where)
                    self._call(copied, [view], "of its element type")

    # --- what the symbolic namespace writes with --------------------------------------------------

    def map(
        self, name: str, inputs: tuple[Any, ...], dtype: np.dtype[Any], shape: tuple[int, ...]
    ) -> View:
        """``name`` of the inputs, views and numbers, at every point; what is known is shared."""
        rate = name == "cast" and dtype.kind == "f" == inputs[0].dtype.kind
        if rate and inputs[0].storage in self._lives:
            return self._live_as(inputs[0].storage, dtype).broadcast(shape)
        if name == "index":
            inputs = (Column(dtype),) if shape[-1] != 1 else (dtype.type(0),)
        given = tuple([self._operand(x, shape) for x in inputs])
        against = reason_against(name, tuple([x.dtype for x in given]), dtype)
        if against:
            raise NotFollowedError(against)
        if name == "cast" and dtype.kind in "iu" and given[0].dtype in FLOATS:
            raise NotFollowedError("floats to integers is left to NumPy")
        if not math.prod(shape):
            raise NotFollowedError("there are no elements")
        order = self._order_of(name, given, shape)
        if order is not None:
            moved = tuple([x.permute(order) if type(x) is View else x for x in given])
            inner = tuple([shape[k] for k in order])
            return self.put_back(self.map(name, moved, dtype, inner), order)
        parts = tuple([exact(x) if isinstance(x, np.generic) else x for x in given])
        key = name, parts, dtype, shape
        found = self._known.get(key)
        if found is None:
            found = self.new(shape, dtype)
            self.operations.append(Map(found, name, given, FUNCTIONS[name].cost, self.where))
            self._remember(key, [x for x in given if type(x) is View], found)
            if name == "index":
                self._columns.add(found.storage)
        return found

    def _order_of(
        self, name: str, given: Sequence[Any], shape: tuple[int, ...]
    ) -> list[int] | None:
        """The axes in the order in which an operand lies in memory, if a routine chose another one
        than theirs. A copy puts them in their own order; what asks for the place has to have it."""
        if not self._ordered or name in ("copy", "word", "index"):
            return None
        if any(type(x) is Column for x in given):
            return None
        for x in given:
            if type(x) is View and x.shape == shape:
                order = self.order_of(x)
                if order is not None:
                    return order
        return None

    def order_of(self, view: View) -> list[int] | None:
        """The axes as they lie in memory, where a routine chose another order than theirs."""
        if view.storage not in self._ordered:
            return None
        wide = [k for k, n in enumerate(view.shape) if n != 1]
        by_stride = sorted(wide, key=lambda k: -abs(view.strides[k]))
        if by_stride == wide or not all(view.strides[k] for k in wide):
            return None
        return [k for k, n in enumerate(view.shape) if n == 1] + by_stride

    def put_back(self, found: View, order: Sequence[int]) -> View:
        """A view whose axes are in this order, with the axes in their own one."""
        self._ordered.add(found.storage)
        return found.permute([order.index(k) for k in range(len(order))])

    def is_ordered(self, view: View) -> bool:
        """Whether it may lie otherwise than NumPy's array would: routines choose the order."""
        return view.storage in self._ordered

    def _operand(self, x: Any, shape: tuple[int, ...]) -> Any:
        if type(x) is not View:
            return x
        if x.shape != shape:
            x = x.broadcast(shape)
        if x.storage in self._columns:  # needs no memory where it is the index of the loop
            alone = x.strides == (0,) * (len(shape) - 1) + (1,)
            if alone and not x.offset and shape[-1] == x.storage.size:
                return Column(x.dtype)
        return x

    def _remember(self, key: Any, reads: Sequence[View], found: View) -> None:
        self._known[key] = found
        self._latest = key
        for view in reads:
            if view.storage.role != "temporary" or view.storage.in_parts:
                self._readers.setdefault(view.storage, []).append(key)

    def copy(self, x: View) -> View:
        """``x`` in memory of its own."""
        out = self.new(x.shape, x.dtype)
        self.operations.append(Map(out, "copy", (x,), 1, self.where))
        return out

    def reduce(self, kind: str, x: View, axes: Sequence[int]) -> View:
        """``x`` reduced over ``axes``, which stay with size 1."""
        shape = tuple(1 if k in axes else n for k, n in enumerate(x.shape))
        order = self._order_of(kind, [x], x.shape)
        if order is not None:
            lying, along = x.permute(order), sorted(order.index(k) for k in axes)
            if _is_loop(lying.shape, [k for k in along if lying.shape[k] != 1]):
                return self.put_back(self.reduce(kind, lying, along), order)
        axes = [k for k in sorted(axes) if x.shape[k] != 1]
        if not axes:  # NumPy begins a sum with 0.0, which makes 0.0 of -0.0
            zero = x.dtype.type(0)
            return self.map("add", (x, zero), x.dtype, x.shape) if kind == "+" else x
        if _is_loop(x.shape, axes):
            key = kind, x, tuple(axes)
            found = self._known.get(key)
            if found is None:
                found = self.new(shape, x.dtype)
                self.operations.append(Reduce(found, x, kind, tuple(axes), self.where))
                self._remember(key, [x], found)
            return found
        # Only the last axis, or all but it, can be reduced by a loop: bring the axes to the end.
        kept = [k for k, n in enumerate(x.shape) if n != 1 and k not in axes]
        moved = x.permute([*kept, *axes])
        merged = moved.reshape((*moved.shape[: len(kept)], math.prod(x.shape[k] for k in axes)))
        if merged is None:
            while len(moved.shape) > len(kept):
                last = len(moved.shape) - 1
                moved = self._reshaped(self.reduce(kind, moved, [last]), moved.shape[:-1])
            return self._reshaped(moved, shape)
        return self._reshaped(self.reduce(kind, merged, [len(kept)]), shape)

    def _reshaped(self, x: View, shape: tuple[int, ...]) -> View:
        """``x`` with another shape, copied if need be."""
        found = x.reshape(shape)
        return self._reshaped(self.copy(x), shape) if found is None else found

    def matmul(self, a: View, b: View) -> View:
        """The matrix product of two stacks; that of 16-bit floats is one of float32."""
        batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        dtype = float32 if a.dtype in HALVES else a.dtype
        shape = (*batch, a.shape[-2], b.shape[-1])
        if self.program.on_host and a.shape[-1] == 1 and a.dtype == dtype:
            # An outer product adds up nothing: in a loop it is a part of what is done with it.
            return self.map("multiply", (a.broadcast(shape), b.broadcast(shape)), dtype, shape)
        out = self.new(shape, dtype)
        a, b = a.broadcast((*batch, *a.shape[-2:])), b.broadcast((*batch, *b.shape[-2:]))
        if self.program.on_host:
            a, b = (x if gemm.leading(x.shape, x.strides) else self.copy(x) for x in (a, b))
        else:
            plan = gemm.planned(a.shape, a.strides, b.shape, b.strides)
            if type(plan) is gemm.Copies:
                a, b = (self.copy(a) if plan.a else a), (self.copy(b) if plan.b else b)
            elif plan is None:
                raise NotFollowedError("a matrix is too large for cuBLAS")
        self.operations.append(Product(out, a, b, self.where))
        return out

    def _rounded_product(self, x: View, half: np.dtype[Any]) -> View | None:
        """``x`` rounded to 16 bits by the product that it is, the last operation; ``None`` if it
        is none: cuBLAS rounds as it writes, so that no more than that is written."""
        last = self.operations[-1] if self.operations else None
        if type(last) is not Product or last.out.storage is not x.storage:
            return None
        if last.a.dtype != half or not x.contiguous or x.size != last.out.size:
            return None
        out = last.out = self.new(last.out.shape, half)
        return View(out.storage, x.shape, x.strides)

    def check(self, labels: View, low: int, high: int, axis: int | None) -> None:
        """The program stops unless the labels lie in [low, high)."""
        key = "check", labels, low, high
        if key in self._known or _lie_in(labels.storage, low, high):
            return
        plain = labels if labels.contiguous else self.copy(labels)
        self.operations.append(Check(plain, low, high, axis, self.where))
        self._remember(key, [labels], labels)

    def is_column(self, view: View) -> bool:
        """Whether all of it is 0, 1, 2, ... along one axis."""
        steps = [s for n, s in zip(view.shape, view.strides) if n != 1]
        return view.storage in self._columns and not view.offset and steps == [1]

    def gather(self, table: View, places: View) -> View:
        """The elements of ``table``, so much further as ``places`` says, of one shape with it."""
        if table.dtype not in C_TYPES:
            raise NotFollowedError(f"an index of {table.dtype} is left to NumPy")
        key = "gather", table, places
        found = self._known.get(key)
        if found is None:
            found = self.new(table.shape, table.dtype)
            self.operations.append(Map(found, "gather", (places,), 2, self.where, table))
            self._remember(key, [table, places], found)
        return found

    def scatter(self, out: View, places: View, x: View, adds: bool) -> None:
        """``x`` put into, or added to, ``out`` at these places, one after the other."""
        if x.storage is out.storage:
            x = self.copy(x)
        self.operations.append(Scatter(out, places, x, adds, self.where))
        self._forget(out.storage)

    def scan(
        self, kind: str, operands: Sequence[View], axis: int, reverse: bool, wide: bool
    ) -> View:
        """Each element with all that precede it along an axis; see Scan."""
        given = []
        for x in operands:
            inner = View(x.storage, x.shape[axis + 1 :], x.strides[axis + 1 :], x.offset)
            given.append(x if inner.reshape((inner.size,)) is not None else self.copy(x))
        out = self.new(given[0].shape, given[0].dtype)
        self.operations.append(Scan(out, tuple(given), kind, axis, reverse, wide, self.where))
        return out

    def routine(
        self, name: str, sizes: Sequence[int | float], inputs: Sequence[View],
        outputs: Sequence[View], size: int, piece: int, cost: int,
        reused: Sequence[tuple[int, int]],
    ) -> None:  # fmt: skip
        """A C function of a header of its own; see Routine."""
        header, function = name.split(".")
        self.operations.append(
            Routine(
                header, function, tuple(sizes), tuple(inputs), tuple(outputs), size, piece, cost,
                self.where, reused=tuple(reused),
            )
        )  # fmt: skip
        for view in outputs:
            self._forget(view.storage)
            self._ordered.add(view.storage)

    def _forget(self, storage: Storage) -> None:
        """What was computed from ``storage`` is not known any more: it is overwritten."""
        for key in self._readers.pop(storage, ()):
            self._known.pop(key, None)

    def has_made(self, view: View, before: int) -> bool:
        """Whether ``view`` was made by the last operation, which is not one of the first."""
        last = self.operations[-1] if len(self.operations) > before else None
        return type(last) is Map and last.out == view

    def write(self, out: View, value: View, fresh: bool) -> None:
        """``out[...] = value``. fresh: nobody else looks at ``value``, which was just made."""
        last = self.operations[-1] if self.operations else None
        if (
            fresh
            and type(last) is Map
            and last.out == value
            and out.shape == value.shape
            and all(v == out for v in last.views if v.storage is out.storage)
            and not any(v.storage is out.storage for v in last.tables)
        ):  # reads what it overwrites at the same point only
            last.out = out
            self._known.pop(self._latest, None)
        else:
            if value.storage is out.storage and value != out:  # as if all were read at first
                value = self.copy(value)
            self.operations.append(Map(out, "copy", (value,), 1, self.where))
        self._forget(out.storage)

    def live(self, i: Instruction, name: str, dtype: np.dtype[Any] | None = None) -> View:
        """An attribute that is another number in every replay."""
        wide = INT64 if i.op.random else FLOAT64
        out = self.new((), wide if dtype is None else dtype)
        out.storage.role = "scalar"
        self.scalars.append(Scalar(out, i, name))
        self._lives[out.storage] = self.scalars[-1]
        return out

    def _live_as(self, storage: Storage, dtype: np.dtype[Any]) -> View:
        """A live number in another type: it comes as that, so that no operation is needed."""
        key = "live", storage, dtype
        if key not in self._known:
            scalar = self._lives[storage]
            self._known[key] = self.live(scalar.instruction, scalar.name, dtype)
        return self._known[key]

    # --- instructions -----------------------------------------------------------------------------

    def _lower(self, i: Instruction) -> None:
        try:
            inputs = [self.views[x] if type(x) is Value else x for x in i.inputs]
        except KeyError as error:
            raise CompileError(f"{i.op.name} uses what only a kernel computes") from error
        if i.by_kernel:
            return self._call(i, inputs, "its kernel does it")
        dtypes = {v.dtype for v in (*i.values(), *i.outputs)}
        if not dtypes <= C_TYPES.keys():
            return self._call(i, inputs, "of its element type")
        if not all(math.prod(v.shape) for v in i.outputs):
            return self._call(i, inputs, "there are no elements")
        reads = self.program.reads.get(i.op)
        if type(reads) is list and not all(guard.holds() for guard in reads):
            reads = "what its value reads was changed by the step"
        if reads is not None and not all(map(is_immutable, i.attrs.values())):
            reads = "one of its options is no plain value"
        if type(reads) is str:
            return self._call(i, inputs, reads)
        before = len(self.operations), len(self.storages), len(self.scalars)
        try:
            found = self._followed(i, inputs)
        except Exception as error:  # of a value function, which was not written for this
            reason = str(error)
            if not isinstance(error, NotFollowedError):
                reason = f"its value cannot be followed ({type(error).__name__}: {error})"
            del self.operations[before[0] :], self.storages[before[1] :], self.scalars[before[2] :]
            self._known.clear()
            return self._call(i, inputs, reason)
        self.views.update(found)
        if reads:
            self.program.relied_on[i.op] = reads
        return None

    def _followed(self, i: Instruction, inputs: Sequence[Any]) -> dict[Value, View]:
        """The outputs of an instruction, computed by loops.

        Raises NotFollowedError, or whatever the value function raises.
        """
        before = len(self.storages)
        xp = SymbolicNamespace(self, self.program.on_host, len(inputs))
        given = [
            xp.input(x, self._kind(i, k)) if type(x) is View else x for k, x in enumerate(inputs)
        ]
        attrs = dict(i.attrs)
        if i.live is not None:
            for name in i.live():
                attrs[name] = xp.input(self.live(i, name), weak=True)
        value = i.op.value if i.op.loops is None else i.op.loops
        if isinstance(value, str):
            value = functools.partial(_named, value)
        halves = [x.dtype for x in inputs if type(x) is View and x.dtype in HALVES]
        if halves and i.op.kernel in gemm.ROWS and not self.program.on_host:
            made = value(xp, *given, **attrs)
            view = self._rounded_product(made.elements, halves[-1])
            made = _rounded(made, halves[-1]) if view is None else xp.input(view)
        elif halves and i.op.half_in_float32:
            made = _in_float32(value, xp, given, attrs, halves[-1])
        else:
            made = value(xp, *given, **attrs)
        if xp.refusal:  # it went on all the same
            raise NotFollowedError(xp.refusal)
        count = len(i.outputs) - len(i.written)
        arrays = [x for x in _flat(made) if isinstance(x, SymbolicArray)][:count]
        views = {}
        for k, (v, array) in enumerate(zip(i.outputs, arrays)):
            view = array.elements
            if (view.shape, view.dtype) != (v.shape, v.dtype):
                if k:  # kernels have residuals of their own, which are not used here
                    continue
                raise NotFollowedError(f"it gives {view.dtype} {view.shape} here")
            views[v] = view
        if len(arrays) < count and not (arrays and i.residual):
            raise NotFollowedError("its value is made elsewhere")
        taken = {x.storage for x in inputs if type(x) is View}
        for v in self._kept.intersection(views):  # who is seen has memory of its own
            storage = views[v].storage
            moved = storage in self._ordered and not views[v].contiguous
            if moved or (storage.number < before and storage not in taken):
                views[v] = self.copy(views[v])
        for v, k in zip(i.outputs[count:], i.written):
            views[v] = given[k].elements
        return views

    def _kind(self, i: Instruction, k: int) -> str:
        """What a value function may do to input ``k``; see ``symbolic.Memory``."""
        if k not in i.written:
            return "input"
        # What the step made itself, or was given, is not overwritten: it gets new memory.
        return "mutated" if i.inputs[k].place.role == "external" else "temporary"

    def _call(self, i: Instruction, inputs: list[Any], reason: str) -> None:
        outputs = []
        for v in i.outputs:
            if v.before is not None and v.place.role == "external":
                view = self.views[v.before]
            else:  # what the step made itself is not overwritten: the new value has memory too
                view = self.new(v.shape, v.dtype)
            self.views[v] = view
            outputs.append(view)
            self._forget(view.storage)
        self.operations.append(Call(i, tuple(inputs), tuple(outputs), reason, i.where))


def _is_loop(shape: tuple[int, ...], axes: list[int]) -> bool:
    """Whether a loop can reduce these axes, none of size 1: all, the last, or all but the last."""
    wide = [k for k, n in enumerate(shape) if n != 1]
    return axes in (wide, wide[-1:], wide[:-1])


def _lie_in(storage: Storage, low: int, high: int) -> bool:
    """Whether its numbers are always the same ones, and lie in [low, high)."""
    if storage.role != "constant" or storage.value is None:
        return False
    array = storage.value.array
    return bool(low <= array.min() and array.max() < high)


def _named(name: str, xp: SymbolicNamespace, *arrays: Any, **attrs: Any) -> Any:
    """The value of a primitive that is NumPy's function of that name."""
    return getattr(xp, name)(*arrays, **attrs)


def _in_float32(
    value: Callable[..., Any],
    xp: SymbolicNamespace,
    arrays: Sequence[Any],
    attrs: dict[str, Any],
    half: np.dtype[Any],
) -> Any:
    """A value of 16-bit floats, computed in float32 and rounded once: see ``Backend.run``."""
    made = value(xp, *map(_widened, arrays), **attrs)
    if type(made) is tuple:
        return _rounded(made[0], half), *made[1:]
    return _rounded(made, half)


def _widened(x: Any) -> Any:
    return x.astype(float32) if isinstance(x, SymbolicArray) and x.dtype in HALVES else x


def _rounded(y: Any, half: np.dtype[Any]) -> Any:
    return y.astype(half) if isinstance(y, SymbolicArray) and y.dtype == float32 else y


def _flat(made: Any) -> list[Any]:
    """A value and its residual as one list."""
    if not isinstance(made, tuple):
        return [made]
    return [x for part in made for x in _flat(part)]
