"""An array namespace whose arrays are views of the loop IR.

A value function that is called with it writes down what it computes, as maps, reductions and
products. An array is a view of a ``Memory``. That names the storage in which its numbers are now:
overwriting all of a temporary gives it a new storage, so that storages are written once and every
view follows; only inputs that the primitive mutates are written in place. Types are those of
NumPy's promotion, asked of its ufuncs. A number that is another one in every replay (a learning
rate, a count of steps) is weak, as Python's numbers are.

What cannot be followed (a branch on a value, a function without a loop form) raises
``NotFollowedError`` with the reason, and the primitive stays a call.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np

from tensorgrad.backend.namespace import Namespace
from tensorgrad.dtypes import FLOATS, HALVES, WIDE_FLOATS, float32
from tensorgrad.ops.sums import least_squares
from tensorgrad.program.functions import BOOL, C_TYPES
from tensorgrad.program.loop_ir import Storage, View

INT32, INT64, FLOAT64 = np.dtype(np.int32), np.dtype(np.int64), np.dtype(np.float64)
# By which float64 numbers are multiplied or divided so that their squares are in range.
_BEYOND = 2.0**600
# Powers that are products, or a root.
_FACTORS = 4


# Numbers that are added up one after the other in float32, as in ops/sums.py.
_IN_ORDER = 128
# Operations that one value function may take, and how many more for each of its inputs.
_OPERATIONS, _EACH = 768, 64


class NotFollowedError(Exception):
    """Says why a value function cannot be turned into loops."""


class Trace(Protocol):
    """Where operations are written down; ``Lowering`` is one."""

    operations: list[Any]

    def new(self, shape: Sequence[int], dtype: np.dtype[Any]) -> View:
        """Memory for a new value."""

    def map(self, name: str, inputs: tuple[Any, ...], dtype: Any, shape: tuple[int, ...]) -> View:
        """``name`` of the inputs, views and NumPy's numbers, at every point of ``shape``."""

    def reduce(self, kind: str, x: View, axes: Sequence[int]) -> View:
        """``x`` reduced over ``axes``, which stay with size 1."""

    def matmul(self, a: View, b: View) -> View:
        """The matrix product of two stacks."""

    def check(self, labels: View, low: int, high: int, axis: int | None) -> None:
        """The program stops unless the labels, or indices along ``axis``, lie in [low, high)."""

    def gather(self, table: View, places: View) -> View:
        """The elements of ``table``, so much further as ``places`` says, of one shape with it."""

    def scatter(self, out: View, places: View, x: View, adds: bool) -> None:
        """``x`` put into, or added to, ``out`` at these places, one after the other."""

    def scan(
        self, kind: str, operands: Sequence[View], axis: int, reverse: bool, wide: bool
    ) -> View:
        """Each element with all that precede it along an axis; see Scan."""

    def routine(
        self, name: str, sizes: Sequence[int | float], inputs: Sequence[View],
        outputs: Sequence[View], size: int, piece: int, cost: int,
        reused: Sequence[tuple[int, int]],
    ) -> None:  # fmt: skip
        """A C function of a header of its own; see Routine."""

    def is_ordered(self, view: View) -> bool:
        """Whether it may lie otherwise than NumPy's array would: routines choose the order."""

    def order_of(self, view: View) -> list[int] | None:
        """The axes as they lie in memory, where a routine chose another order than theirs."""

    def put_back(self, found: View, order: Sequence[int]) -> View:
        """A view whose axes are in this order, with the axes in their own one."""

    def is_column(self, view: View) -> bool:
        """Whether all of it is 0, 1, 2, ... along one axis."""

    def write(self, out: View, value: View, fresh: bool) -> None:
        """``out[...] = value``. fresh: nobody else looks at ``value``."""

    def has_made(self, view: View, before: int) -> bool:
        """Whether ``view`` was made by the last operation, after the first ``before`` ones."""


class Memory:
    """Where the numbers of an array, and of its views, are now.

    kind: "input", which must not be written to; "mutated", an input that is written in place;
        "temporary", which gets a new storage where it is overwritten.
    own: a storage that nobody else has, so that parts of it can be overwritten in place.
    in_order: whether NumPy's array would lie in row-major order, too, and not as what it was made
        of does. torn: whether one that may not was reshaped, which may have made a copy.
    shape: in which it was computed, as far as is known; a copy of it can be part of the same loop.
    """

    __slots__ = ("in_order", "kind", "own", "shape", "storage", "torn")

    def __init__(
        self, storage: Storage, kind: str = "temporary", own: Storage | None = None
    ) -> None:
        self.storage, self.kind, self.own = storage, kind, own
        self.in_order, self.torn = True, False
        self.shape: tuple[int, ...] = (storage.size,)


# --- arrays ---------------------------------------------------------------------------------------


def _refusing(reason: str) -> Any:
    def method(self: SymbolicArray, *args: Any, **kwargs: Any) -> Any:
        self.xp.refuse(reason)

    return method


class SymbolicArray:
    """An array of which shape and dtype are known, and how its numbers are computed."""

    __slots__ = ("_memory", "_view", "dtype", "scalar", "shape", "weak", "xp")
    __hash__ = None  # type: ignore[assignment]

    def __init__(
        self,
        xp: SymbolicNamespace,
        view: View,
        memory: Memory | None = None,
        weak: bool = False,
    ) -> None:
        self.xp, self._view, self.weak = xp, view, weak
        if memory is None:
            memory = Memory(view.storage)
            memory.shape = view.shape
        self._memory = memory
        #: whether it is one of NumPy's scalars: ``+=`` does not change it, but makes another one
        self.scalar = False
        #: the sizes of the axes, and the element type
        self.shape, self.dtype = view.shape, view.storage.dtype

    @property
    def elements(self) -> View:
        """The elements, where they are now."""
        v = self._view
        if v.storage is self._memory.storage:
            return v
        return View(self._memory.storage, v.shape, v.strides, v.offset)

    def _at(self, view: View) -> SymbolicArray:
        """Another view of the same memory; of a scalar, an array of its own."""
        memory = None if self.scalar else self._memory
        return SymbolicArray(self.xp, view, memory, self.weak)

    @property
    def size(self) -> int:
        """The number of elements."""
        return self._view.size

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self._view.shape)

    @property
    def itemsize(self) -> int:
        """The bytes of an element."""
        return self.dtype.itemsize

    @property
    def T(self) -> SymbolicArray:
        """The axes in reverse order."""
        return self.transpose()

    @property
    def mT(self) -> SymbolicArray:
        """The last two axes exchanged."""
        return self.xp.swapaxes(self, -1, -2)

    @property
    def in_order(self) -> bool:
        """Whether NumPy's elementwise functions give an array in row-major order for it."""
        if self.ndim < 2:
            return True
        own = self.xp.trace.is_ordered(self._view)
        return self._memory.in_order and self._view.contiguous and not own

    @property
    def flags(self) -> Any:
        """Whether the elements lie in row-major order."""
        return SimpleNamespace(c_contiguous=self._view.contiguous)

    @property
    def device(self) -> AbstractContextManager[None]:
        """A context for what is made beside it."""
        return nullcontext()

    # --- views ---

    def transpose(self, *axes: Any) -> SymbolicArray:
        """The axes in another order, in reverse by default."""
        order = axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes
        places = [a % self.ndim for a in order] if order else range(self.ndim)[::-1]
        return self._at(self._view.permute(places))

    def swapaxes(self, a: int, b: int) -> SymbolicArray:
        """Two axes exchanged."""
        return self.xp.swapaxes(self, a, b)

    def reshape(self, *shape: Any) -> SymbolicArray:
        """The same elements in another shape: a view if that can be, else a copy."""
        sizes = list(shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape)
        if -1 in sizes:
            sizes[sizes.index(-1)] = self.size // max(1, -math.prod(sizes))
        if math.prod(sizes) != self.size:
            raise ValueError(f"cannot reshape {self.shape} to {sizes}")
        found = self._view.reshape(tuple(sizes))
        if self.ndim > 1 and not self._memory.in_order:
            self._memory.torn = True
        return self.copy().reshape(sizes) if found is None else self._at(found)

    def ravel(self) -> SymbolicArray:
        """With one axis."""
        return self.reshape(-1)

    def squeeze(self, axis: Any = None) -> SymbolicArray:
        """Without axes of size 1."""
        ones = [k for k, n in enumerate(self.shape) if n == 1]
        axes = ones if axis is None else _axes(axis, self.ndim)
        if not set(axes) <= set(ones):
            raise ValueError(f"squeeze: axis {axis} of shape {self.shape} has more than 1 element")
        return self._without(axes)

    def _without(self, axes: Sequence[int]) -> SymbolicArray:
        v = self._view
        kept = [k for k in range(len(v.shape)) if k not in axes]
        shape = tuple(v.shape[k] for k in kept)
        return self._at(View(v.storage, shape, tuple(v.strides[k] for k in kept), v.offset))

    def _sliced(self, index: Any) -> View:
        parts = index if isinstance(index, tuple) else (index,)
        for part in parts:
            if not (part is None or part is ... or isinstance(part, slice | int | np.integer)):
                self.xp.refuse("an index with arrays has no loop form")
        taken = [part for part in parts if part is not None and part is not ...]
        if len(taken) > self.ndim or any(isinstance(part, bool) for part in taken):
            raise IndexError(f"{index} is no index of an array of shape {self.shape}")
        late = parts.index(...) if ... in parts else len(parts)
        for k, part in enumerate(parts):
            if isinstance(part, int | np.integer):
                before = sum(p is not None for p in parts[:k])
                after = sum(p is not None and p is not ... for p in parts[k:])
                n = self.shape[before if k < late else self.ndim - after]
                if not -n <= part < n:
                    raise IndexError(f"index {part} is out of bounds for an axis of size {n}")
        return self._view.slice(parts)

    def __getitem__(self, index: Any) -> SymbolicArray:
        parts = index if isinstance(index, tuple) else (index,)
        if _has_arrays(parts):
            view, places = picked(self, parts)
            made = SymbolicArray(self.xp, self.xp.trace.gather(view, places))
            return made if any(p is ... for p in parts) else made.as_scalar()
        found = self._at(self._sliced(index))
        if found.shape or ... in parts:
            return found
        mutated = self._memory.kind == "mutated"  # a scalar is the number that is there now
        view = found.copy()._view if mutated else found.elements
        return SymbolicArray(self.xp, view, weak=self.weak).as_scalar()

    def as_scalar(self) -> SymbolicArray:
        """This, if it has axes; else as a scalar of NumPy's."""
        self.scalar = not self.shape
        return self

    def __setitem__(self, index: Any, value: Any) -> None:
        if _has_arrays(index):
            self.xp.scatter(self, index, value, False)
        else:
            self.xp.assign(self._at(self._sliced(index)), value)

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[SymbolicArray]:
        return iter([self[i] for i in range(len(self))])

    # --- copies ---

    def astype(self, dtype: Any, copy: bool = True) -> SymbolicArray:
        """With another element type."""
        wanted = np.dtype(dtype)
        if wanted == self.dtype:
            if copy:
                return self.copy()
            return SymbolicArray(self.xp, self._view, self._memory) if self.weak else self
        found = self.xp.mapped("cast", (self.elements,), wanted, self.shape)
        found._memory.in_order = self.in_order
        return found.as_scalar() if self.scalar else found

    def copy(self) -> SymbolicArray:
        """In memory of its own."""
        found = self.xp.mapped("copy", (self.elements,), self.dtype, self.shape)
        return found.as_scalar() if self.scalar else found

    def fill(self, value: Any) -> None:
        """Overwrite all elements with a number."""
        self.xp.assign(self, value)

    # --- reductions ---

    def sum(
        self, axis: Any = None, dtype: Any = None, out: None = None, keepdims: bool = False
    ) -> SymbolicArray:
        """The sum over ``axis``."""
        return self.xp.add.reduce(self, axis, dtype, out, keepdims)

    def prod(
        self, axis: Any = None, dtype: Any = None, out: None = None, keepdims: bool = False
    ) -> SymbolicArray:
        """The product over ``axis``."""
        return self.xp.multiply.reduce(self, axis, dtype, out, keepdims)

    def max(self, axis: Any = None, out: None = None, keepdims: bool = False) -> SymbolicArray:
        """The largest element over ``axis``."""
        return self.xp.maximum.reduce(self, axis, None, out, keepdims)

    def min(self, axis: Any = None, out: None = None, keepdims: bool = False) -> SymbolicArray:
        """The smallest element over ``axis``."""
        return self.xp.minimum.reduce(self, axis, None, out, keepdims)

    def mean(
        self, axis: Any = None, dtype: Any = None, out: None = None, keepdims: bool = False
    ) -> SymbolicArray:
        """The mean over ``axis``."""
        n = math.prod(self.shape[a] for a in _axes(axis, self.ndim))
        wide = FLOAT64 if dtype is None and self.dtype.kind in "iub" else dtype
        found: SymbolicArray = self.xp.divide(self.sum(axis, wide, out, keepdims), n)
        return found

    def var(
        self,
        axis: Any = None,
        dtype: None = None,
        out: None = None,
        ddof: float = 0,
        keepdims: bool = False,
    ) -> SymbolicArray:
        """The mean square distance from the mean over ``axis``."""
        n = math.prod(self.shape[a] for a in _axes(axis, self.ndim))
        d = self.xp.subtract(self, self.mean(axis, keepdims=True))
        found: SymbolicArray = self.xp.divide(
            self.xp.square(d).sum(axis, dtype, out, keepdims), max(n - ddof, 0)
        )
        return found

    def std(self, *args: Any, **kwargs: Any) -> SymbolicArray:
        """The root of ``var``, which has the same arguments."""
        return self.xp.sqrt(self.var(*args, **kwargs))

    def any(self, axis: Any = None, out: None = None, keepdims: bool = False) -> SymbolicArray:
        """Whether any element over ``axis`` is not 0."""
        return self.xp.logical_or.reduce(self, axis, None, out, keepdims)

    def all(self, axis: Any = None, out: None = None, keepdims: bool = False) -> SymbolicArray:
        """Whether no element over ``axis`` is 0."""
        return self.xp.logical_and.reduce(self, axis, None, out, keepdims)

    def cumsum(self, axis: int) -> SymbolicArray:
        """The sum of each element and all before it along ``axis``."""
        return self.xp.running("+", self, axis)

    def cumprod(self, axis: int) -> SymbolicArray:
        """The product of each element and all before it along ``axis``."""
        return self.xp.running("*", self, axis)

    def clip(self, low: Any = None, high: Any = None) -> SymbolicArray:
        """Limited to [low, high]."""
        return self.xp.clip(self, low, high)

    def dot(self, other: Any) -> SymbolicArray:
        """The matrix product."""
        return self.xp.dot(self, other)

    # --- what Python or NumPy would have to see the numbers for ---

    __bool__ = _refusing("Python branches on a value")
    __int__ = __float__ = __index__ = __complex__ = _refusing("Python reads a value")
    item = tolist = _refusing("Python reads a value")
    nonzero = _refusing("the shape of the result depends on values")
    view = _refusing("bits are read as another type")
    __array__ = _refusing("NumPy reads a value")

    # --- NumPy's protocols: np.exp(x) is xp.exp(x) ---

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *args: Any, **kwargs: Any) -> Any:
        own = getattr(self.xp, ufunc.__name__)
        if "out" in kwargs:
            (kwargs["out"],) = kwargs["out"]
        if method != "__call__":
            own = getattr(own, method)
        return own(*args, **kwargs)

    def __array_function__(
        self, function: Callable[..., Any], types: Any, args: Any, kwargs: Any
    ) -> Any:
        return getattr(self.xp, function.__name__)(*args, **kwargs)

    # --- operators whose meaning is not that of one ufunc ---

    def __pow__(self, exponent: Any) -> SymbolicArray:
        return self.xp.power(self, exponent)

    def __matmul__(self, other: Any) -> SymbolicArray:
        return self.xp.matmul(self, other)

    def __rmatmul__(self, other: Any) -> SymbolicArray:
        return self.xp.matmul(other, self)


_ARITHMETIC = {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "divide",
    "floordiv": "floor_divide", "mod": "remainder", "pow": "power", "and": "bitwise_and",
    "or": "bitwise_or", "xor": "bitwise_xor", "lshift": "left_shift", "rshift": "right_shift",
}  # fmt: skip
_ORDER = {
    "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal", "eq": "equal",
    "ne": "not_equal",
}  # fmt: skip
_SINGLE = {"neg": "negative", "pos": "positive", "abs": "absolute", "invert": "invert"}


def _operator(ufunc: str, places: tuple[int, ...], inplace: bool = False) -> Callable[..., Any]:
    def method(self: SymbolicArray, *other: Any) -> Any:
        given = (self, *other)
        into = {"out": self} if inplace and not self.scalar else {}
        return getattr(self.xp, ufunc)(*[given[k] for k in places], **into)

    return method


for _short, _ufunc in _ARITHMETIC.items():
    if _short != "pow":
        setattr(SymbolicArray, f"__{_short}__", _operator(_ufunc, (0, 1)))
    setattr(SymbolicArray, f"__r{_short}__", _operator(_ufunc, (1, 0)))
    setattr(SymbolicArray, f"__i{_short}__", _operator(_ufunc, (0, 1), inplace=True))
for _short, _ufunc in _ORDER.items():
    setattr(SymbolicArray, f"__{_short}__", _operator(_ufunc, (0, 1)))
for _short, _ufunc in _SINGLE.items():
    setattr(SymbolicArray, f"__{_short}__", _operator(_ufunc, (0,)))


def _has_arrays(index: Any) -> bool:
    """Whether some part of an index is an array."""
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, SymbolicArray) for part in parts)


def _padded(x: SymbolicArray, index: Any) -> list[Any]:
    """The parts of an index, one for each axis of ``x``, and ``None`` for new axes."""
    parts = list(index) if isinstance(index, tuple) else [index]
    taken = sum(part is not None and part is not ... for part in parts)
    at = next((k for k, part in enumerate(parts) if part is ...), len(parts))
    return parts[:at] + [slice(None)] * (x.ndim - taken) + parts[at + 1 :]


def picked(x: SymbolicArray, index: Any) -> tuple[View, View]:
    """Where ``x[index]`` lies, arrays being among the parts of the index.

    Two views of the shape of ``x[index]``: one of x's elements, from which the right ones lie as
    many elements further as the other says.
    """
    xp, old = x.xp, x.elements
    parts = _padded(x, index)
    chosen = [k for k, p in enumerate(parts) if isinstance(p, SymbolicArray | int | np.integer)]
    arrays = [p for p in parts if isinstance(p, SymbolicArray)]
    shape = np.broadcast_shapes(*[a.shape for a in arrays])
    together = chosen == list(range(chosen[0], chosen[-1] + 1))
    begin = sum(isinstance(p, slice) or p is None for p in parts[: chosen[0]]) if together else 0
    sizes: list[int] = []  # of the axes that no array replaces
    strides: list[int] = []
    steps = [0] * len(shape)  # of x along the axes of the arrays
    offset, axis, places = old.offset, 0, None
    for part in parts:
        if part is None:
            sizes.append(1)
            strides.append(0)
            continue
        n, s = old.shape[axis], old.strides[axis]
        if isinstance(part, slice):
            start, stop, step = part.indices(n)
            sizes.append(len(range(start, stop, step)))
            strides.append(s * step)
            offset += start * s
        elif not isinstance(part, SymbolicArray):
            if not -n <= part < n:
                raise IndexError(f"index {part} is out of bounds for axis {axis} with size {n}")
            offset += (part % n) * s
        elif (along := _column(part, n)) is not None:
            steps[len(shape) - part.ndim + along] += s
        else:
            more = _inside(part, n, axis)
            more = more if s == 1 else xp.multiply(more, s)
            places = more if places is None else xp.add(places, more)
        axis += 1
    whole = (*sizes[:begin], *shape, *sizes[begin:])
    view = View(old.storage, whole, (*strides[:begin], *steps, *strides[begin:]), offset)
    if places is None:
        places = xp.full((), 0, INT64)
    wide = places.elements.broadcast(shape)
    none = (0,) * len(sizes)
    step_of = (*none[:begin], *wide.strides, *none[begin:])
    return view, View(wide.storage, whole, step_of, wide.offset)


def _column(part: SymbolicArray, n: int) -> int | None:
    """The axis along which an index is 0, 1, 2, ... below ``n``, if it is that."""
    long = [k for k, size in enumerate(part.shape) if size != 1]
    if len(long) == 1 and part.size <= n and part.xp.trace.is_column(part.elements):
        return long[0]
    return None


def _inside(part: SymbolicArray, n: int, axis: int) -> SymbolicArray:
    """An index along an axis of size ``n``: checked on the CPU, and negative ones made positive.

    On a GPU, where nobody waits for an error, all wrap around.
    """
    xp = part.xp
    if part.dtype.kind not in "iu":
        xp.refuse(f"an index of {part.dtype} has no loop form")
    wide = part.astype(INT64, copy=False)
    if not xp.on_host:
        return xp.remainder(wide, n)
    if part.dtype == np.uint64:
        xp.refuse("an index of uint64 is left to NumPy")
    xp.trace.check(wide.elements, -n, n, axis)
    return xp.where(xp.less(wide, 0), xp.add(wide, n), wide)


def _axes(axis: Any, ndim: int) -> tuple[int, ...]:
    if axis is None:
        return tuple(range(ndim))
    given = axis if isinstance(axis, tuple | list) else (axis,)
    if not all(-ndim <= a < ndim for a in given):
        raise ValueError(f"axis {axis} is out of bounds for {ndim} axes")
    return tuple(sorted(a % ndim for a in given))


def _converted(x: Any, dtype: np.dtype[Any]) -> Any:
    """A number in ``dtype``; one that is too large for it becomes infinite."""
    if dtype in FLOATS and not -6e4 < float(x) < 6e4:
        with np.errstate(over="ignore"):
            return dtype.type(x)
    return dtype.type(x)


# --- the namespace --------------------------------------------------------------------------------

_KINDS = {
    "add": "+", "multiply": "*", "maximum": "max", "minimum": "min",
    "logical_or": "max", "logical_and": "min",
}  # fmt: skip


_STRONG = {bool: BOOL, int: INT64, float: FLOAT64}


def _kind(x: Any) -> Any:
    """What an operand is in promotion: its dtype, or of a number a type of Python's."""
    if type(x) is SymbolicArray:
        if x.weak:
            return float if x.dtype.kind == "f" else int if x.dtype.kind == "i" else bool
        return x.dtype
    return type(x) if type(x) in _STRONG else x.dtype


@functools.lru_cache(maxsize=4096)
def _resolved(
    name: str, kinds: tuple[Any, ...], dtype: np.dtype[Any] | None
) -> tuple[list[Any], Any, bool]:
    """The dtypes in which a ufunc takes its operands, that of its result, and if that is a number.

    With arrays that is NumPy's promotion; of numbers alone it is Python's arithmetic, in 64 bits.
    """
    ufunc = getattr(np, name)
    weak = all(type(kind) is type for kind in kinds)
    if weak:
        kinds = tuple(_STRONG[kind] for kind in kinds)
        if FLOAT64 in kinds or name == "divide":
            kinds = (FLOAT64,) * len(kinds)
    else:
        kinds = tuple(BOOL if kind is bool else kind for kind in kinds)
    wanted = {} if dtype is None else {"signature": (*[None] * ufunc.nin, dtype)}
    *loop, made = ufunc.resolve_dtypes((*kinds, None), **wanted)
    return loop, made, weak


class Ufunc:
    """A function of NumPy's, applied element by element."""

    def __init__(self, xp: SymbolicNamespace, ufunc: np.ufunc) -> None:
        self.xp, self.ufunc, self.name = xp, ufunc, ufunc.__name__

    def __call__(self, *args: Any, out: Any = None, where: Any = True, dtype: Any = None) -> Any:
        """This function of the operands, written into ``out`` where one is given."""
        if len(args) == self.ufunc.nin + 1:
            *args, out = args  # type: ignore[assignment]
        given = [self.xp.operand(a) for a in args]
        arrays = [a for a in given if isinstance(a, SymbolicArray)]
        before = len(self.xp.trace.operations)
        if not arrays:
            if out is None:
                return self.ufunc(*args, dtype=dtype)
            given = [self.xp.asarray(self.ufunc(*args, dtype=dtype))]
            found = given[0]
        else:
            found = self._applied(given, arrays, None if dtype is None else np.dtype(dtype))
        if out is None:
            if where is not True:
                self.xp.refuse("where= without out=")
            return found.as_scalar()
        if where is not True:
            found = self.xp.where(where, found, out)
        if found.dtype != out.dtype and not np.can_cast(found.dtype, out.dtype, "same_kind"):
            raise TypeError(f"{self.name}: cannot put {found.dtype} into {out.dtype}")
        self.xp.assign(out, found, before)
        return out

    def _applied(
        self, given: list[Any], arrays: list[SymbolicArray], dtype: np.dtype[Any] | None
    ) -> SymbolicArray:
        loop, made, weak = _resolved(self.name, tuple([_kind(a) for a in given]), dtype)
        shape = arrays[0].shape
        if any(a.shape != shape for a in arrays):
            shape = np.broadcast_shapes(*[a.shape for a in arrays])
        if self.name == "power" and type(given[1]) in (int, float) and loop[0].kind == "f":
            found = self._power(given[0], float(given[1]), loop[0])
            if found is not None:
                return found
        inputs = tuple([self.xp.as_operand(a, t) for a, t in zip(given, loop)])
        name = "logical_not" if self.name == "invert" and made == BOOL else self.name
        if made in HALVES:
            found = self.xp.mapped(name, inputs, float32, shape, weak).astype(made)
        else:
            found = self.xp.mapped(name, inputs, made, shape, weak)
        found._memory.in_order = len(shape) < 2 or all(a.in_order for a in arrays)
        return found

    def _power(self, x: SymbolicArray, exponent: float, dtype: Any) -> SymbolicArray | None:
        """Small whole powers are products, and the power of a half is a root."""
        if not isinstance(x, SymbolicArray):
            return None
        if exponent == 0.5:
            return self.xp.sqrt(x)
        if exponent not in range(1, _FACTORS + 1):
            return None
        weak = x.weak
        x = SymbolicArray(self.xp, self.xp.as_dtype(x, dtype), weak=weak)
        y = x if exponent > 1 else x.copy()
        for _ in range(int(exponent) - 1):
            y = self.xp.multiply(y, x)
        return y

    def reduce(
        self,
        x: Any,
        axis: Any = 0,
        dtype: Any = None,
        out: Any = None,
        keepdims: bool = False,
        initial: Any = None,
    ) -> SymbolicArray:
        """``x`` reduced over ``axis`` by this function."""
        axes = _axes(axis, x.ndim)
        if out is not None or initial is not None:
            self.xp.refuse(f"{self.name}.reduce with out= or initial=")
        if dtype is None and self.name in ("add", "multiply") and x.dtype not in HALVES:
            dtype = _summed(x.dtype)
        if self.name.startswith("logical"):
            x = self.xp.not_equal(x, 0)
        elif dtype is not None:
            x = x.astype(dtype, copy=False)
        kind = _KINDS.get(self.name, "")
        if not kind or x.dtype not in C_TYPES or x.dtype in HALVES:
            self.xp.refuse(f"{self.name} over an axis of {x.dtype} is left to NumPy")
        if not x.size:
            self.xp.refuse("there are no elements")
        return self.xp.reduced(kind, x, axes, keepdims)

    def at(self, x: Any, index: Any, values: Any) -> None:
        """``x[index] = f(x[index], values)``, one element after the other."""
        if self.name != "add":
            self.xp.refuse(f"{self.name}.at has no loop form")
        self.xp.scatter(x, index, values, True)


class SymbolicNamespace(Namespace):
    """What a value function is given as ``xp``; see the module."""

    newaxis = None

    def __init__(self, trace: Trace, on_host: bool = True, inputs: int = 1) -> None:
        """inputs: how many the value function has, which says how many operations it may take."""
        self.trace, self.on_host = trace, on_host
        self._most = len(trace.operations) + _OPERATIONS + _EACH * inputs
        #: why the value cannot be followed, also where the function went on
        self.refusal = ""

    def __getattr__(self, name: str) -> Any:
        found = getattr(np, name, None)
        if isinstance(found, np.ufunc) and found.nout == 1 and found.signature is None:
            own = Ufunc(self, found)
            setattr(self, name, own)
            return own
        if isinstance(found, type | float):  # dtypes, errstate, inf, pi
            return found
        return self.refuse(f"{name} has no loop form")

    def refuse(self, reason: str) -> Any:
        """Stop following. Raises NotFollowedError."""
        self.refusal = self.refusal or reason
        raise NotFollowedError(self.refusal)

    # --- operands -----------------------------------------------------------------------------

    def input(self, view: View, kind: str = "input", weak: bool = False) -> SymbolicArray:
        """An array that is given to the value function; see ``Memory`` for ``kind``."""
        return SymbolicArray(self, view, Memory(view.storage, kind), weak)

    def operand(self, x: Any) -> Any:
        """``x`` as an operand: an array of this namespace, or a number."""
        if type(x) is SymbolicArray or type(x) in _STRONG or isinstance(x, np.generic):
            return x
        if isinstance(x, np.ndarray) and not x.ndim:
            return x[()]
        return self.refuse(f"an operand is a {type(x).__name__} made elsewhere")

    def as_dtype(self, x: Any, dtype: np.dtype[Any]) -> Any:
        """An operand in ``dtype``: a view, or a number of NumPy's."""
        if type(x) is not SymbolicArray:
            return _converted(x, dtype)
        if x.dtype is dtype or x.dtype == dtype:
            return x.elements
        return self.trace.map("cast", (x.elements,), dtype, x.shape)

    def as_operand(self, x: Any, dtype: np.dtype[Any]) -> Any:
        """An operand of a function of ``dtype``: of 16-bit floats those are computed in float32."""
        found = self.as_dtype(x, dtype)
        if dtype not in HALVES:
            return found
        if type(found) is not View:
            return float32.type(found)
        return self.trace.map("cast", (found,), float32, found.shape)

    def mapped(
        self,
        name: str,
        inputs: tuple[Any, ...],
        dtype: Any,
        shape: tuple[int, ...],
        weak: bool = False,
    ) -> SymbolicArray:
        """A new array: ``name`` of the inputs at every point."""
        if len(self.trace.operations) > self._most:
            self.refuse("its loop in Python takes too many operations")
        return SymbolicArray(self, self.trace.map(name, inputs, dtype, shape), None, weak)

    def reduced(
        self, kind: str, x: SymbolicArray, axes: tuple[int, ...], keepdims: bool
    ) -> SymbolicArray:
        """``x`` reduced over ``axes`` by "+", "*", "max" or "min"."""
        y = self.trace.reduce(kind, x.elements, axes)
        if y.storage is x.elements.storage:  # NumPy would give a copy
            y = self.trace.map("copy", (y,), x.dtype, y.shape)
        found = SymbolicArray(self, y)
        found._memory.in_order = x.in_order
        return found if keepdims else found._without(axes).as_scalar()

    def assign(self, target: Any, value: Any, before: int | None = None) -> None:
        """``target[...] = value``.

        before: how many operations there were before ``value`` was computed, if nobody else has it.
        """
        if not isinstance(target, SymbolicArray):
            self.refuse("it writes to an array made elsewhere")
        value = self.operand(value)
        memory, place = self._writable(target), target._view
        count = len(self.trace.operations)
        if not isinstance(value, SymbolicArray):
            number = _converted(value, target.dtype)
            found = self.trace.map("copy", (number,), target.dtype, target.shape)
        elif value.dtype != target.dtype:
            found = self.trace.map("cast", (value.elements,), target.dtype, value.shape)
        else:
            found = value.elements
            count = len(self.trace.operations) if before is None else before
        found = _cut(found, len(place.shape))
        alike = found.shape == place.shape
        if not alike and np.broadcast_shapes(found.shape, place.shape) != place.shape:
            raise ValueError(f"shape {found.shape} cannot be put into {place.shape}")
        if not place.size:
            return
        whole = place.size == memory.storage.size
        if not all(s for n, s in zip(place.shape, place.strides) if n != 1):
            self.refuse("it writes to one place several times")
        if memory.kind == "mutated" or not whole:
            if memory.kind != "mutated":
                self._make_own(memory)
            fresh = self.trace.has_made(found, count)
            self.trace.write(target.elements, found.broadcast(place.shape), fresh)
        else:
            self._rebind(memory, place, found)

    def _writable(self, target: SymbolicArray) -> Memory:
        """The memory of an array that is to be overwritten."""
        if target.scalar:
            raise TypeError("a number is no array that could be overwritten")
        if target._memory.torn:
            self.refuse("what was reshaped, and may be a copy, is overwritten")
        if target._memory.kind == "input":
            self.refuse("it writes to an input that the primitive does not mutate")
        return target._memory

    def scatter(self, target: SymbolicArray, index: Any, value: Any, adds: bool) -> None:
        """``value`` put into, or added to, ``target[index]``, one element after the other."""
        memory = self._writable(target)
        if not self.on_host:
            self.refuse("on a GPU what is written by index is left to CuPy")
        if not _has_arrays(index):
            self.refuse("numbers are added at an index without arrays")
        if adds and target.dtype in HALVES:
            self.refuse(f"sums of {target.dtype} are left to NumPy")
        x = self.asarray(value, target.dtype)
        if memory.kind != "mutated":
            self._make_own(memory)
        out, places = picked(target, index)
        value = _cut(x.elements, len(out.shape))
        if np.broadcast_shapes(value.shape, out.shape) != out.shape:
            raise ValueError(f"shape {x.shape} cannot be put into {out.shape}")
        if out.size:
            self.trace.scatter(out, places, value.broadcast(out.shape), adds)

    def _make_own(self, memory: Memory) -> None:
        """Let a temporary lie in a storage of its own, of which parts are overwritten."""
        old = memory.storage
        if old is memory.own:
            return
        alike = math.prod(memory.shape) == old.size
        whole = self.trace.new(memory.shape if alike else (old.size,), old.dtype)
        memory.own = memory.storage = whole.storage
        memory.own.in_parts = True
        self.trace.write(whole, View(old, whole.shape, whole.strides), False)

    def _rebind(self, memory: Memory, place: View, value: View) -> None:
        """Overwrite all of a temporary: from now on its numbers are elsewhere."""
        # A temporary is written once and may have several names; what lies outside may change.
        alike = value == View(value.storage, place.shape, place.strides, place.offset)
        alike = alike and value.storage.size == memory.storage.size
        if not alike or value.storage.role != "temporary" or value.storage.in_parts:
            out = View(
                self.trace.new((memory.storage.size,), place.dtype).storage,
                place.shape, place.strides, place.offset,
            )  # fmt: skip
            self.trace.write(out, value.broadcast(place.shape), False)
            value = out
        memory.storage = value.storage

    # --- making -------------------------------------------------------------------------------

    def full(self, shape: Any, value: Any, dtype: Any = None) -> SymbolicArray:
        """An array with the same number everywhere."""
        sizes = (int(shape),) if isinstance(shape, int | np.integer) else tuple(shape)
        if isinstance(value, SymbolicArray):
            kind = value.dtype if dtype is None else np.dtype(dtype)
            return self.mapped("copy", (self.as_dtype(value, kind),), kind, sizes)
        kind = np.asarray(value).dtype if dtype is None else np.dtype(dtype)
        return self.mapped("copy", (_converted(value, kind),), kind, sizes)

    def zeros(self, shape: Any, dtype: Any = float) -> SymbolicArray:
        """An array of zeros."""
        return self.full(shape, 0, dtype)

    def ones(self, shape: Any, dtype: Any = float) -> SymbolicArray:
        """An array of ones."""
        return self.full(shape, 1, dtype)

    def empty(self, shape: Any, dtype: Any = float) -> SymbolicArray:
        """An array that is to be overwritten."""
        sizes = (int(shape),) if isinstance(shape, int | np.integer) else tuple(shape)
        made = self.trace.new(sizes, np.dtype(dtype))
        made.storage.in_parts = True
        return SymbolicArray(self, made, Memory(made.storage, own=made.storage))

    def full_like(self, x: SymbolicArray, value: Any, dtype: Any = None) -> SymbolicArray:
        """``full`` in the shape of ``x``."""
        found = self.full(x.shape, value, x.dtype if dtype is None else dtype)
        found._memory.in_order = x.in_order
        return found

    def zeros_like(self, x: SymbolicArray, dtype: Any = None) -> SymbolicArray:
        """``zeros`` in the shape of ``x``."""
        return self.full_like(x, 0, dtype)

    def ones_like(self, x: SymbolicArray, dtype: Any = None) -> SymbolicArray:
        """``ones`` in the shape of ``x``."""
        return self.full_like(x, 1, dtype)

    def empty_like(self, x: SymbolicArray, dtype: Any = None) -> SymbolicArray:
        """``empty`` in the shape of ``x``."""
        found = self.empty(x.shape, x.dtype if dtype is None else dtype)
        found._memory.in_order = x.in_order
        return found

    def arange(self, n: int, dtype: Any = INT64) -> SymbolicArray:
        """0, 1, ... n - 1."""
        return self.mapped("index", (), np.dtype(dtype), (int(n),))

    def asarray(self, x: Any, dtype: Any = None) -> SymbolicArray:
        """``x``, an array or a number, as an array."""
        if isinstance(x, SymbolicArray):
            return x if dtype is None else x.astype(dtype, copy=False)
        return self.full((), self.operand(x), dtype)

    def copy(self, x: SymbolicArray) -> SymbolicArray:
        """``x`` in memory of its own, in the order in which ``x`` lies."""
        found = x.copy()
        found._memory.in_order = x.in_order
        return found

    # --- joining ------------------------------------------------------------------------------

    def concatenate(self, xs: Sequence[Any], axis: int = 0) -> SymbolicArray:
        """The arrays side by side along ``axis``."""
        kinds = {x.dtype for x in xs}
        if len(kinds) != 1:
            self.refuse("arrays of several types are joined")
        place = axis % xs[0].ndim
        shape = list(xs[0].shape)
        shape[place] = sum(x.shape[place] for x in xs)
        found, end = self.empty(shape, kinds.pop()), 0
        found._memory.in_order = all(x.in_order for x in xs)
        for x in xs:
            start, end = end, end + x.shape[place]
            found[(slice(None),) * place + (slice(start, end),)] = x
        return found

    def stack(self, xs: Sequence[Any], axis: int = 0) -> SymbolicArray:
        """The arrays side by side along a new axis."""
        place = axis % (xs[0].ndim + 1)
        return self.concatenate([self.expand_dims(x, place) for x in xs], place)

    # --- choosing -----------------------------------------------------------------------------

    def where(self, condition: Any, a: Any, b: Any) -> SymbolicArray:
        """``a`` where ``condition`` is true, else ``b``."""
        condition, a, b = self.operand(condition), self.operand(a), self.operand(b)
        kinds = [_kind(x) for x in (a, b)]
        dtype = np.result_type(*[k(0) if type(k) is type else k for k in kinds])
        arrays = [x for x in (condition, a, b) if isinstance(x, SymbolicArray)]
        if isinstance(condition, SymbolicArray) and condition.dtype != BOOL:
            condition = self.not_equal(condition, 0)
        shape = np.broadcast_shapes(*[x.shape for x in arrays])
        inputs = (self.as_dtype(condition, BOOL), self.as_dtype(a, dtype), self.as_dtype(b, dtype))
        weak = all(type(k) is type for k in kinds)
        found = self.mapped("where", inputs, dtype, shape, weak)
        found._memory.in_order = all(x.in_order for x in arrays)
        return found

    def clip(self, x: Any, low: Any = None, high: Any = None, out: Any = None) -> SymbolicArray:
        """``x`` limited to [low, high]."""
        # NumPy keeps what equals a limit: -0.0 is not below 0.0.
        y = x if low is None else self.where(self.less(x, low), low, x)
        y = y if high is None else self.where(self.greater(y, high), high, y)
        if out is None:
            return y.copy() if y is x else y
        self.assign(out, y)
        return out

    def round(self, x: SymbolicArray, decimals: int = 0) -> SymbolicArray:
        """Rounded to the nearest integer, halves to even."""
        if decimals or x.dtype.kind != "f":
            self.refuse("rounding to decimals, or of integers")
        return self.rint(x)

    def tril(self, x: SymbolicArray, k: int = 0) -> SymbolicArray:
        """``x`` with zeros above diagonal ``k``."""
        return self._triangle(x, self.greater_equal, k)

    def triu(self, x: SymbolicArray, k: int = 0) -> SymbolicArray:
        """``x`` with zeros below diagonal ``k``."""
        return self._triangle(x, self.less_equal, k)

    def _triangle(self, x: SymbolicArray, holds: Any, k: int) -> SymbolicArray:
        row, column = self.arange(x.shape[-2]).reshape(-1, 1), self.arange(x.shape[-1])
        return self.where(holds(self.add(row, k), column), x, x.dtype.type(0))

    # --- the engine's own names; see Namespace ------------------------------------------------

    def erf(self, x: Any) -> SymbolicArray:
        """See Namespace."""
        return self.mapped("erf", (x.elements,), x.dtype, x.shape)

    def sigmoid(self, x: Any) -> SymbolicArray:
        """See Namespace."""
        return self.mapped("sigmoid", (x.elements,), x.dtype, x.shape)

    def number(self, x: Any) -> SymbolicArray:
        """See Namespace."""
        return SymbolicArray(self, x._view, x._memory, weak=True)

    def random_words(
        self, key: Any, position: Any, shape: tuple[int, ...], step: int = 1
    ) -> SymbolicArray:
        """See Namespace."""
        signed = [x if isinstance(x, SymbolicArray) else _signed(x) for x in (key, position)]
        inputs = tuple(self.as_dtype(x, INT64) for x in (*signed, step))
        return self.mapped("word", inputs, np.dtype(np.uint32), tuple(shape))

    def check_labels(self, labels: Any, classes: int) -> None:
        """See Namespace."""
        if labels.dtype != INT64:
            self.refuse("labels of another type than int64")
        if self.on_host:
            self.trace.check(labels.elements, 0, classes, None)

    def row_numbers(self, indices: Any, n: int) -> SymbolicArray:
        """See Namespace."""
        return _inside(indices, n, 0)

    def root_of_squares(
        self, xs: Sequence[Any], axis: tuple[int, ...] | None, keepdims: bool
    ) -> SymbolicArray:
        """See Namespace. The squares of float32 are added in float64.

        Of float64 there are besides the sums for small parts of the numbers and large multiples.
        """
        if any(x.dtype != xs[0].dtype for x in xs) or xs[0].dtype not in WIDE_FLOATS:
            self.refuse("a norm of two types, or of no floats")
        sums: list[Any] = []
        for x in xs:
            wide = x.dtype != FLOAT64
            parts = [x.astype(FLOAT64)] if wide else [x, x * (1 / _BEYOND), x * _BEYOND]
            each = [(part * part).sum(axis, keepdims=keepdims) for part in parts]
            sums = [a + b for a, b in zip(sums, each)] if sums else each
        if len(sums) == 1:
            return self.sqrt(sums[0]).astype(xs[0].dtype)
        whole, small, large = sums
        least = least_squares(FLOAT64)
        low = self.where(whole < least, self.sqrt(large) / _BEYOND, self.sqrt(whole))
        return self.where(whole == math.inf, self.sqrt(small) * _BEYOND, low)

    # --- shapes -------------------------------------------------------------------------------

    def reshape(self, x: SymbolicArray, shape: Any) -> SymbolicArray:
        """See SymbolicArray."""
        return x.reshape(shape)

    def ravel(self, x: SymbolicArray) -> SymbolicArray:
        """See SymbolicArray."""
        return x.reshape(-1)

    def squeeze(self, x: SymbolicArray, axis: Any = None) -> SymbolicArray:
        """See SymbolicArray."""
        return x.squeeze(axis)

    def transpose(self, x: SymbolicArray, axes: Any = None) -> SymbolicArray:
        """See SymbolicArray."""
        return x.transpose(axes or ())

    def swapaxes(self, x: SymbolicArray, a: int, b: int) -> SymbolicArray:
        """Two axes exchanged."""
        order = list(range(x.ndim))
        order[a], order[b] = order[b], order[a]
        return x.transpose(order)

    def moveaxis(self, x: SymbolicArray, source: Any, destination: Any) -> SymbolicArray:
        """Axes moved to other places."""
        return x.transpose(np.moveaxis(np.empty(range(x.ndim)), source, destination).shape)

    def broadcast_to(self, x: SymbolicArray, shape: Any) -> SymbolicArray:
        """``x`` repeated along new axes, and along those of size 1."""
        sizes = tuple(shape)
        if np.broadcast_shapes(x.shape, sizes) != sizes:
            raise ValueError(f"cannot broadcast {x.shape} to {sizes}")
        return x._at(x._view.broadcast(sizes))

    def expand_dims(self, x: SymbolicArray, axis: Any) -> SymbolicArray:
        """``x`` with new axes of size 1."""
        return x.reshape(np.expand_dims(np.broadcast_to(0, x.shape), axis).shape)

    def flip(self, x: SymbolicArray, axis: Any = None) -> SymbolicArray:
        """The elements in reverse order along ``axis``."""
        axes = _axes(axis, x.ndim)
        every = slice(None)
        return x[tuple(slice(None, None, -1) if k in axes else every for k in range(x.ndim))]

    # --- reductions and products --------------------------------------------------------------

    def sum(self, x: SymbolicArray, *args: Any, **kwargs: Any) -> SymbolicArray:
        """See SymbolicArray."""
        return x.sum(*args, **kwargs)

    def prod(self, x: SymbolicArray, *args: Any, **kwargs: Any) -> SymbolicArray:
        """See SymbolicArray."""
        return x.prod(*args, **kwargs)

    def mean(self, x: SymbolicArray, *args: Any, **kwargs: Any) -> SymbolicArray:
        """See SymbolicArray."""
        return x.mean(*args, **kwargs)

    def max(self, x: SymbolicArray, *args: Any, **kwargs: Any) -> SymbolicArray:
        """See SymbolicArray."""
        return x.max(*args, **kwargs)

    def min(self, x: SymbolicArray, *args: Any, **kwargs: Any) -> SymbolicArray:
        """See SymbolicArray."""
        return x.min(*args, **kwargs)

    amax, amin = max, min

    def any(
        self, x: SymbolicArray, axis: Any = None, out: None = None, keepdims: bool = False
    ) -> SymbolicArray:
        """Whether any element over ``axis`` is not zero."""
        found: SymbolicArray = self.logical_or.reduce(x, axis, None, out, keepdims)
        return found

    def all(
        self, x: SymbolicArray, axis: Any = None, out: None = None, keepdims: bool = False
    ) -> SymbolicArray:
        """Whether all elements over ``axis`` are not zero."""
        found: SymbolicArray = self.logical_and.reduce(x, axis, None, out, keepdims)
        return found

    def argmax(
        self, x: SymbolicArray, axis: Any = None, out: None = None, keepdims: bool = False
    ) -> SymbolicArray:
        """Where the largest element over ``axis`` is: the first of equal ones, or the first NaN."""
        return self._place_of(self.maximum, x, axis, keepdims)

    def argmin(
        self, x: SymbolicArray, axis: Any = None, out: None = None, keepdims: bool = False
    ) -> SymbolicArray:
        """Where the smallest element over ``axis`` is; see ``argmax``."""
        return self._place_of(self.minimum, x, axis, keepdims)

    def _place_of(self, extreme: Ufunc, x: Any, axis: Any, keepdims: bool) -> SymbolicArray:
        """The smallest index at which ``x`` is its extreme."""
        flat = x.reshape(-1) if axis is None else x
        along = 0 if axis is None else axis % x.ndim
        n = flat.shape[along] if flat.shape else 1
        if n >= 1 << 31:
            self.refuse("the place of an extreme of so many elements")
        top = extreme.reduce(flat, along, keepdims=True)
        hit = self.equal(flat, top)
        if x.dtype.kind == "f":  # the extreme is NaN where there is one, which equals nothing
            hit = self.logical_or(hit, self.isnan(flat))
        places = self.arange(n, INT32).reshape((n,) + (1,) * (flat.ndim - 1 - along))
        found = self.where(hit, places, INT32.type(n - 1))
        found = self.minimum.reduce(found, along, keepdims=keepdims).astype(INT64)
        return found.reshape((1,) * x.ndim) if axis is None and keepdims else found

    def var(self, x: SymbolicArray, *args: Any, **kwargs: Any) -> SymbolicArray:
        """See SymbolicArray."""
        return x.var(*args, **kwargs)

    def std(self, x: SymbolicArray, *args: Any, **kwargs: Any) -> SymbolicArray:
        """See SymbolicArray."""
        return x.std(*args, **kwargs)

    def running(self, kind: str, x: SymbolicArray, axis: int) -> SymbolicArray:
        """Running sums ("+") or products ("*"); many float32 numbers in float64."""
        wide = x.dtype == np.float32 and x.shape[axis] > _IN_ORDER
        return self._scanned(kind, (x.astype(_summed(x.dtype), copy=False),), axis, False, wide)

    def linear_recurrence(
        self, a: SymbolicArray, b: SymbolicArray, axis: int, reverse: bool
    ) -> SymbolicArray:
        """See Namespace."""
        wide = b.dtype == np.float32 and b.size < 8 * b.shape[axis]
        return self._scanned("linear", (a, b), axis, reverse, wide)

    def _scanned(
        self, kind: str, xs: Sequence[SymbolicArray], axis: int, reverse: bool, wide: bool
    ) -> SymbolicArray:
        if not self.on_host:
            self.refuse("on a GPU scans are left to CuPy")
        if (
            xs[0].dtype not in C_TYPES
            or xs[0].dtype in HALVES
            or any(x.dtype != xs[0].dtype for x in xs)
        ):
            self.refuse(f"scans of {xs[0].dtype} are left to NumPy")
        views = [x.elements for x in xs]
        return SymbolicArray(self, self.trace.scan(kind, views, axis % xs[0].ndim, reverse, wide))

    def order_of(self, x: SymbolicArray) -> list[int] | None:
        """The axes as they lie in memory, where a routine chose another order than theirs."""
        return self.trace.order_of(x.elements)

    def put_back(self, x: SymbolicArray, order: Sequence[int]) -> SymbolicArray:
        """``x``, whose axes are in this order, with the axes in their own one."""
        return SymbolicArray(self, self.trace.put_back(x.elements, order))

    def routine(
        self,
        name: str,
        sizes: Sequence[int | float],
        inputs: Sequence[SymbolicArray],
        outputs: Sequence[SymbolicArray | tuple[tuple[int, ...], Any]],
        size: int = 1,
        piece: int = 1,
        cost: int = 1,
        reused: Sequence[tuple[int, int]] = (),
    ) -> list[SymbolicArray]:
        """New arrays, contiguous, that a C function fills, and inputs that it overwrites.

        name: "header.function"; see ``Routine`` for this and for ``sizes``, ``size``, ``piece``,
            ``cost`` and ``reused``. inputs: how they lie (``elements.strides``) has to be said by
            ``sizes``.
        outputs: the shape and dtype of each; or one of the inputs, which is overwritten in place.
        """
        if not self.on_host:
            self.refuse("on a GPU it is left to CuPy")
        given = [x.elements for x in inputs]
        found = [x if isinstance(x, SymbolicArray) else self._filled(*x) for x in outputs]
        for x in outputs:
            if isinstance(x, SymbolicArray) and self._writable(x).kind != "mutated":
                self.refuse("a routine overwrites what the step made")
        made = [x.elements for x in found]
        self.trace.routine(name, sizes, given, made, size, piece, cost, reused)
        return found

    def _filled(self, shape: tuple[int, ...], dtype: Any) -> SymbolicArray:
        return SymbolicArray(self, self.trace.new(shape, np.dtype(dtype)))

    def vdot(self, a: SymbolicArray, b: SymbolicArray) -> SymbolicArray:
        """The sum of the products of all elements."""
        return self.multiply(a.reshape(-1), b.reshape(-1)).sum()

    def dot(self, a: Any, b: Any) -> SymbolicArray:
        """The matrix product of arrays of at most two axes."""
        if a.ndim > 2 or b.ndim > 2:
            self.refuse("dot of more than two axes")
        return self.matmul(a, b) if a.ndim and b.ndim else self.multiply(a, b)

    def matmul(self, a: Any, b: Any, out: Any = None) -> SymbolicArray:
        """The matrix product."""
        a, b = self.operand(a), self.operand(b)
        if not a.ndim or not b.ndim:
            raise ValueError("a number is no matrix")
        dtype = np.result_type(a.dtype, b.dtype)
        as_they_are = dtype in HALVES and not self.on_host
        if dtype not in WIDE_FLOATS and not as_they_are:
            self.refuse(f"products of {dtype} are left to NumPy")
        if a.shape[-1] != b.shape[-2 if b.ndim > 1 else -1]:
            raise ValueError(f"matmul: {a.shape} and {b.shape} do not fit")
        if not (a.size and b.size):
            self.refuse("there are no elements")
        if a.ndim == b.ndim == 1:  # a sum can be part of a nest
            if as_they_are:
                a, b = a.astype(float32), b.astype(float32)
            found = self.multiply(a, b).sum()
        else:
            x = self.as_dtype(a if a.ndim > 1 else a[None, :], dtype)
            y = self.as_dtype(b if b.ndim > 1 else b[:, None], dtype)
            found = SymbolicArray(self, self.trace.matmul(x, y))
            drop = ((-2,) if a.ndim < 2 else ()) + ((-1,) if b.ndim < 2 else ())
            found = found._without(_axes(drop, found.ndim)) if drop else found
        if out is None:
            return found
        self.assign(out, found)
        return out


def _summed(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type of sums and products of many: that of integers has 64 bits."""
    if dtype.kind == "f":
        return dtype
    return np.dtype(np.uint64) if dtype.kind == "u" else INT64


def _cut(view: View, ndim: int) -> View:
    """A view without leading axes of size 1 beyond ``ndim``."""
    while len(view.shape) > ndim and view.shape[0] == 1:
        view = View(view.storage, view.shape[1:], view.strides[1:], view.offset)
    return view


def _signed(x: int) -> int:
    """A number of 64 bits: a key without a sign as the same bits with one."""
    return x if x < 1 << 63 else x - (1 << 64)
