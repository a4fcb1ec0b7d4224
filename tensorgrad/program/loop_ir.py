"""The second form of a program: maps, reductions and matrix products over views of memory.

Where the first form says which primitives run, this one says what they do to single numbers. A
value is a view: a storage with an offset and a stride for each axis, so that transposing, slicing
and broadcasting cost nothing. Whatever has no such description stays a call of its primitive.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tensorgrad.program.ir import Instruction, Value

#: What the numbers of a nest belong to: a point, a row, or all of it; see ``schedule``.
POINT, ROW, EPILOGUE = "point", "row", "epilogue"


@dataclass(eq=False, slots=True)
class Storage:
    """A piece of memory: of an argument, of something outside, of a constant, or temporary."""

    number: int
    size: int
    dtype: np.dtype[Any]
    role: str
    value: Value | None = None  # of which it is the memory, unless it is temporary
    in_parts: bool = False  # a temporary one that is written more than once, part by part

    @property
    def number_held(self) -> Any:
        """The one number in it, if that is always the same."""
        if self.role != "constant" or self.size != 1 or self.value is None:
            return None
        return self.value.array.item()

    @property
    def nbytes(self) -> int:
        """The bytes it takes."""
        return self.size * self.dtype.itemsize

    def __repr__(self) -> str:
        return f"m{self.number}"


@dataclass(frozen=True, slots=True)
class View:
    """Some elements of a storage: a shape, and where its elements lie, counted in elements."""

    storage: Storage
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0

    @property
    def dtype(self) -> np.dtype[Any]:
        """The element type."""
        return self.storage.dtype

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def contiguous(self) -> bool:
        """Whether the elements lie side by side, in row-major order."""
        return all(
            n == 1 or s == t for n, s, t in zip(self.shape, self.strides, strides_of(self.shape))
        )

    def broadcast(self, shape: tuple[int, ...]) -> View:
        """Repeated along new axes, and along those of size 1."""
        missing = len(shape) - len(self.shape)
        strides = (0,) * missing + tuple(
            0 if n == 1 else s for n, s in zip(self.shape, self.strides)
        )
        return View(self.storage, shape, strides, self.offset)

    def permute(self, axes: Sequence[int]) -> View:
        """The axes in another order."""
        shape = tuple(self.shape[a] for a in axes)
        return View(self.storage, shape, tuple(self.strides[a] for a in axes), self.offset)

    def reshape(self, shape: tuple[int, ...]) -> View | None:
        """The same elements in row-major order with another shape, if that is a view."""
        if self.contiguous:
            return View(self.storage, shape, strides_of(shape), self.offset)
        # Axes that lie side by side count as one; each group has to be cut up on its own.
        old = [(n, s) for n, s in zip(self.shape, self.strides) if n != 1]
        strides: list[int] = []
        k = 0
        left = 1  # elements of the current group still to be given out
        step = 0
        for n in shape:
            if n == 1:
                strides.append(0)
                continue
            if left == 1:
                if k >= len(old):
                    return None
                left, step = old[k]
                while k + 1 < len(old) and old[k][1] == old[k + 1][0] * old[k + 1][1]:
                    k += 1
                    left *= old[k][0]
                    step = old[k][1]
                k += 1
            if left % n:
                return None
            left //= n
            strides.append(left * step)
        return View(self.storage, shape, tuple(strides), self.offset)

    def slice(self, index: Sequence[Any]) -> View:
        """A basic index: slices, integers and None, one Ellipsis at most."""
        taken = sum(i is not None and i is not ... for i in index)
        rest = (slice(None),) * (len(self.shape) - taken)
        if ... in index:
            at = list(index).index(...)
            index = (*index[:at], *rest, *index[at + 1 :])
        else:
            index = (*index, *rest)
        shape, strides, offset, axis = [], [], self.offset, 0
        for i in index:
            if i is None:
                shape.append(1)
                strides.append(0)
                continue
            n, s = self.shape[axis], self.strides[axis]
            axis += 1
            if isinstance(i, slice):
                start, stop, step = i.indices(n)
                count = len(range(start, stop, step))
                shape.append(count)
                strides.append(s * step)
                offset += start * s if count else 0
            else:
                offset += (i % n) * s
        return View(self.storage, tuple(shape), tuple(strides), offset)


def strides_of(shape: Sequence[int]) -> tuple[int, ...]:
    """The strides of elements in row-major order."""
    found = [1] * len(shape)
    for k in range(len(shape) - 2, -1, -1):
        found[k] = found[k + 1] * shape[k + 1]
    return tuple(found)


def is_plain(array: Any) -> bool:
    """Whether each element has a place of its own, all at whole distances, aligned, native."""
    if isinstance(array, np.ndarray) and not (array.flags.aligned and array.dtype.isnative):
        return False
    span = array.dtype.itemsize
    for step, n in sorted((abs(s), n) for s, n in zip(array.strides, array.shape) if n != 1):
        if step < span or step % array.dtype.itemsize:
            return False
        span += step * (n - 1)
    return True


def extent_of(array: Any) -> tuple[tuple[int, ...], int, int]:
    """The strides of an array in elements, how many of them its memory spans, and the first one's
    distance from the lowest."""
    strides = tuple(s // array.dtype.itemsize for s in array.strides)
    steps = [(n - 1) * s for n, s in zip(array.shape, strides)]
    below = -sum(step for step in steps if step < 0)
    return strides, 1 + sum(map(abs, steps)), below


@dataclass(frozen=True, slots=True)
class Column:
    """An operand of a map: the index along its last axis, as a number of a dtype."""

    dtype: np.dtype[Any]


@dataclass(eq=False, slots=True)
class Map:
    """``out[i] = function of inputs[i]`` at every place, the inputs being broadcast.

    name: the function, by one of the names in ``functions.py``; or "gather", the element of
        ``table`` at this place and as many elements further as the input says.
    inputs: views, numbers of NumPy's, and columns.
    cost: about how many additions it takes as long as; it decides what is computed twice.
    """

    out: View
    name: str
    inputs: tuple[Any, ...]
    cost: int = 1
    where: str = ""
    table: View | None = None
    #: the inputs that are views
    views: list[View] = field(init=False)
    #: what it reads at places that depend on numbers, and all that it reads
    tables: list[View] = field(init=False)
    reads: list[View] = field(init=False)
    #: whether it depends on the index along the last axis; on where the point lies at all
    by_column: bool = field(init=False)
    by_place: bool = field(init=False)

    def __post_init__(self) -> None:
        self.views = [x for x in self.inputs if type(x) is View]
        self.tables = [] if self.table is None else [self.table]
        self.reads = [*self.views, *self.tables] if self.tables else self.views
        self.by_column = len(self.views) < len(self.inputs) and any(
            type(x) is Column for x in self.inputs
        )
        self.by_place = self.by_column or self.name == "word"

    def over(self, dims: tuple[int, ...]) -> Map | None:
        """The same with its axes cut up or put together, so that it runs over ``dims``, if that can
        be: a batch norm, say, is over (examples, places, channels), and the activation after it
        over rows and columns of places."""
        if self.by_place or self.tables or self.out.size != math.prod(dims):
            return None
        inputs = [x.reshape(dims) if type(x) is View else x for x in self.inputs]
        out = self.out.reshape(dims)
        if out is None or any(x is None for x in inputs):
            return None
        return Map(out, self.name, tuple(inputs), self.cost, self.where)


@dataclass(eq=False, slots=True)
class Reduce:
    """``out = x`` reduced over some axes by "+", "*", "max" or "min"; the axes stay, of size 1."""

    out: View
    x: View
    kind: str
    axes: tuple[int, ...]
    where: str = ""

    def over(self, dims: tuple[int, ...]) -> Reduce | None:
        """See Map."""
        if self.x.size != math.prod(dims):
            return None
        wide = [k for k, n in enumerate(self.x.shape) if n != 1]
        last = len(dims) - 1
        axes = tuple(range(last + 1))
        if list(self.axes) != wide:  # then the last axis is reduced alone, or it stays
            if dims[last] != self.x.shape[wide[-1]]:
                return None
            axes = (last,) if list(self.axes) == wide[-1:] else axes[:-1]
        x = self.x.reshape(dims)
        out = self.out.reshape(tuple([1 if k in axes else n for k, n in enumerate(dims)]))
        return None if x is None or out is None else Reduce(out, x, self.kind, axes, self.where)

    @property
    def views(self) -> list[View]:
        """The input."""
        return [self.x]

    @property
    def tables(self) -> list[View]:
        """See Map."""
        return []


@dataclass(eq=False, slots=True)
class Product:
    """``out = a @ b`` of two stacks, (..., m, k) and (..., k, n), the leading axes alike."""

    out: View
    a: View
    b: View
    where: str = ""

    @property
    def views(self) -> list[View]:
        """Both factors."""
        return [self.a, self.b]


@dataclass(eq=False, slots=True)
class Check:
    """Labels, or indices along an axis of a tensor, have to lie in [low, high).

    Else the program stops before anything is changed.
    """

    labels: View
    low: int
    high: int
    axis: int | None = None
    where: str = ""

    @property
    def views(self) -> list[View]:
        """The labels."""
        return [self.labels]


@dataclass(eq=False, slots=True)
class Scatter:
    """``x`` put into, or added to, the elements of ``out`` at places that depend on numbers.

    They are taken one after the other in row-major order, so that sums have their order, and of
    several numbers for one place the last one stays.

    out, places, x: of one shape; a place is that in ``out`` and so many elements further.
    """

    out: View
    places: View
    x: View
    adds: bool
    where: str = ""

    @property
    def views(self) -> list[View]:
        """All of them, for what is not overwritten stays."""
        return [self.out, self.places, self.x]


@dataclass(eq=False, slots=True)
class Scan:
    """Each element with all that precede it along an axis: running sums and products.

    kind: "+" or "*", or "linear" for ``out[i] = a[i] * out[i - 1] + b[i]`` from ``out[0] = b[0]``.
    operands: the numbers, or a and b. They have the shape of ``out``; the axes after ``axis`` lie
        at equal distances.
    reverse: whether it begins at the end.
    wide: whether float32 is computed in float64, and each result rounded once.
    """

    out: View
    operands: tuple[View, ...]
    kind: str
    axis: int
    reverse: bool
    wide: bool
    where: str = ""

    @property
    def views(self) -> list[View]:
        """The operands."""
        return list(self.operands)


@dataclass(eq=False, slots=True)
class Routine:
    """A C function of a header of its own: what is more than a loop nest (a convolution, a cell).

    header, function: ``tg_<function>`` of ``c/<header>.h``, which is called as
        ``(sizes..., inputs..., outputs..., begin, end)``: numbers, addresses of the first elements,
        and which part of the work is to be done. The sizes are constants for the compiler.
    outputs: what it writes; an output that is an input, too, is overwritten in place. What it does
        not write of another is undefined.
    size, piece: it is called for parts of [0, size), of ``piece`` each but the last, in any order
        and by several threads at a time. So parts write to different memory, and what is computed
        depends on ``piece``, never on the number of threads.
    cost: about how many additions it takes as long as, in all.
    by_rows: where a part writes only those rows of the outputs, and of some inputs reads no others:
        the numbers of these inputs. Rows are the first axis.
    reused: pairs of an output and an input: where nobody needs the input afterwards, the output may
        begin where it does, for each part has read of it what it overwrites.
    """

    header: str
    function: str
    sizes: tuple[int | float, ...]
    inputs: tuple[View, ...]
    outputs: tuple[View, ...]
    size: int
    piece: int
    cost: int
    where: str = ""
    by_rows: tuple[int, ...] | None = None
    reused: tuple[tuple[int, int], ...] = ()

    @property
    def views(self) -> list[View]:
        """The inputs."""
        return list(self.inputs)


@dataclass(eq=False, slots=True)
class Call:
    """An instruction left to its primitive, and why. inputs and outputs are views.

    What it overwrites is copied into the output first, unless that is the same memory.
    """

    instruction: Instruction
    inputs: tuple[Any, ...]
    outputs: tuple[View, ...]
    reason: str
    where: str = ""

    @property
    def views(self) -> list[View]:
        """The inputs that are views."""
        return [x for x in self.inputs if isinstance(x, View)]


@dataclass(eq=False, slots=True)
class Scalar:
    """A number that is another one in every replay (a learning rate), put into ``out`` before."""

    out: View
    instruction: Instruction
    name: str


#: An operation that is a unit of its own.
Alone = Product | Scatter | Scan | Routine | Check | Call
Operation = Map | Reduce | Alone


def outputs_of(op: Alone) -> tuple[View, ...]:
    """What an operation that is a unit of its own writes."""
    if isinstance(op, Call | Routine):
        return op.outputs
    return () if isinstance(op, Check) else (op.out,)
