"""Indexing: reading and writing by integers, slices, integer arrays and boolean masks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from operator import index as as_int
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorgrad import dtypes, tape
from tensorgrad.backend import is_array
from tensorgrad.backend.namespace import Namespace
from tensorgrad.backend.templates import ALL, ARRAY, along_axis, filled
from tensorgrad.errors import DtypeError, ShapeError
from tensorgrad.observers import current_mode
from tensorgrad.ops.elementwise import where
from tensorgrad.ops.parts import (
    GatherPart,
    IndexPart,
    add_at_index,
    few_rows,
    gathered_places,
    recorded_rows,
)
from tensorgrad.ops.shaping import (
    Part,
    RecordedPart,
    along,
    broadcast_to,
    concat,
    expand_dims,
    normalize_axis,
    reshape,
    shape_of,
    slice_of,
    sliced,
    sum_of_recorded,
)
from tensorgrad.ops.sums import add_at, add_on_gpu
from tensorgrad.ops.table import operation
from tensorgrad.ops.views import puts_back
from tensorgrad.tape import Primitive, apply

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = [
    "gather", "getitem", "index_put", "nonzero", "one_hot", "scatter_add", "take",
    "take_along_axis",
]  # fmt: skip


Template = tuple[Part, ...]


# --- the primitives -----------------------------------------------------------------------------


def _index_value(xp: Any, x: Any, *indices: Any, template: Template) -> Any:
    if (
        xp is np
        and _by_rows(template)
        and x.flags.c_contiguous
        and x.size
        and indices[0].dtype in _NATURAL
    ):
        return x.take(indices[0], axis=0)  # in half the time
    return x[filled(template, indices)]


_NATURAL = frozenset((dtypes.int64, dtypes.int32))


def _by_rows(template: Template) -> bool:
    """Whether the index is one array on the first axis, and all of the others."""
    return template[0] == ARRAY and all(part in (ALL, ...) for part in template[1:])


def _index_add_value(
    xp: Any, g: Any, *indices: Any, template: Template, shape: tuple[int, ...], distinct: bool
) -> Any:
    """Zeros of ``shape`` with ``g`` added at the index, in the order of its elements."""
    y = xp.zeros(shape, g.dtype)
    index = filled(template, indices)
    if distinct or not indices:
        y[index] = g
    elif xp is not np:
        add_on_gpu(xp, y, index, g)
    else:
        add_at_index(y, template, indices, np.asarray(g), fresh=True)
    return y


# Elements of a piece of work that threads share.
_PIECE = 1 << 15


def _index_add_loops(
    xp: Any, g: Any, *indices: Any, template: Template, shape: tuple[int, ...], distinct: bool
) -> Any:
    """What the value means: of rows by a routine (program/c/lookup.h), which goes through the table
    and adds up the rows for each of its own."""
    attrs: dict[str, Any] = {"template": template, "shape": shape, "distinct": distinct}
    rows = len(indices) == 1 and _by_rows(template) and g.size < 1 << 30
    if not rows or not xp.on_host or not g.size or g.dtype not in dtypes.WIDE_FLOATS:
        return _index_add_value(xp, g, *indices, **attrs)
    n, length, count = shape[0], math.prod(shape[1:]), indices[0].size
    keys = xp.row_numbers(indices[0], n).reshape(-1)
    keys = keys if keys.flags.c_contiguous else keys.copy()
    heads, following = xp.routine(
        "lookup.row_heads", (count, n), (keys,), [((n,), np.int32), ((count,), np.int32)],
        cost=4 * count + n // 4,
    )  # fmt: skip
    g = g.reshape((count, length))
    pieces = max(1, (n + count) * length // _PIECE)
    (made,) = xp.routine(
        f"lookup.table_of_{'f' if g.dtype == dtypes.float32 else 'd'}",
        (length,),
        (g if g.flags.c_contiguous else g.copy(), heads, following),
        [((n, length), g.dtype)],
        size=n,
        piece=-(-n // pieces),
        cost=(n + 4 * count) * length,
    )
    return made.reshape(shape)


def _put_value(xp: Any, x: Any, value: Any, *indices: Any, template: Template) -> Any:
    return _assign_value(xp, x.copy(), value, *indices, template=template)


def _assign_value(xp: Any, x: Any, value: Any, *indices: Any, template: Template) -> Any:
    index = filled(template, indices)
    in_order = xp is np or isinstance(xp, Namespace)
    if not in_order and indices and hasattr(value, "shape") and value.shape:
        # Of several values for one place CuPy stores any: all are made the last one.
        last, order = _last_of(xp, x, index)
        value = value.reshape(value.shape[max(0, value.ndim - order.ndim) :])
        value = xp.broadcast_to(value, order.shape).reshape(-1)[last]
    x[index] = value
    return x


def _last_value(xp: Any, x: Any, *indices: Any, template: Template) -> Any:
    last, order = _last_of(xp, x, filled(template, indices))
    return last == order


def _last_of(xp: Any, x: Any, index: tuple[Any, ...]) -> tuple[Any, Any]:
    """For each element of the index the number of the last one for the same place; its own."""
    last = xp.zeros(x.shape, np.int64)
    there = last[index].shape
    order = xp.arange(math.prod(there)).reshape(there)
    if xp is np or isinstance(xp, Namespace):
        last[index] = order
    else:
        xp.maximum.at(last, index, order)
    return last[index], order


def _put_value_rule(g: Any, template: Template, indices: Sequence[Any]) -> Any:
    d = indexed(g, indices, template)
    if ARRAY in template:  # of several values for one place the last one counts
        d = where(apply(_IS_LAST, (g, *indices), {"template": template}), d, 0.0)
    return d


class RecordedRows(RecordedPart):
    """Rows, a tensor, of the numbers ``index``: what is added is recorded."""

    __slots__ = ("padding_idx", "sparse")
    many = 2
    large = 1 << 16

    def __init__(
        self,
        array: Any,
        index: Any,
        shape: tuple[int, ...],
        sparse: bool = False,
        padding_idx: int | None = None,
    ) -> None:
        """sparse: see ``RowsPart``. padding_idx: a number of which all rows are zero."""
        super().__init__(array, index, shape)
        self.sparse, self.padding_idx = sparse, padding_idx

    def whole(self) -> Any:
        """See ``Part``."""
        return index_added(self.array, [self.index], (ARRAY, ...), self.shape)

    @staticmethod
    def fill(items: Sequence[RecordedPart]) -> bool:
        """See ``RecordedPart``: numbers may name a row twice."""
        return False

    @staticmethod
    def together(items: Sequence[RecordedPart]) -> Any:
        """See ``RecordedPart``."""
        shape = items[0].shape
        rows = concat([reshape(p.array, (p.index.size, *shape[1:])) for p in items])
        keys = concat([reshape(tape.cast(p.index, dtypes.int64), (-1,)) for p in items])
        return index_added(rows, [keys], (ARRAY, ...), shape)

    def as_rows(self, count: int) -> Any:
        """See ``Part``. What is left in it are values of the program that is being captured."""
        n, length = self.shape if len(self.shape) == 2 else (0, 0)
        if type(self.array.data) is not np.ndarray or not self.index.size or not n * length:
            return None
        if not self.sparse and not few_rows(count + self.index.size, self.shape, self.array.dtype):
            return None
        rows = reshape(self.array, (self.index.size, length))
        keys = reshape(from_the_front(self.index, n), (-1,))
        if self.padding_idx is not None:  # whose row is not one of those that are looked up
            keys = where(keys == self.padding_idx, -1, keys)
        return recorded_rows(self.shape, keys.data, rows.data, self.sparse)


def recorded_gradient(items: Sequence[Any]) -> Any:
    """The sum of what is given for a leaf while a program is captured: as rows, where eager mode
    keeps them so, else whole."""
    if all(isinstance(item, RecordedRows) for item in items):
        found: Any = None
        for item in items:
            rows = item.as_rows(0 if found is None else found.count)
            if rows is None:
                break
            found = rows if found is None else found.joined(rows)
        else:
            return found
    return sum_of_recorded(items)


def _index_part(g: Any, x_shape: tuple[int, ...], template: Template, indices: Any) -> Any:
    if type(g) is np.ndarray and indices:
        return IndexPart(g, (template, indices), x_shape)
    if hasattr(g, "node") and indices and _by_rows(template):
        return RecordedRows(g, indices[0], x_shape)
    return index_added(g, indices, template, x_shape)


_INDEX: Primitive = Primitive(
    "getitem",
    _index_value,
    {
        "x": lambda g, x_shape, template, indices: index_added(g, indices, template, x_shape),
        "*indices": None,
    },
    kernel="getitem",
    moves=True,
    part=_index_part,
)
_INDEX_ADD: Primitive = Primitive(
    "index_add",
    _index_add_value,
    {"g": lambda g, template, indices: indexed(g, indices, template), "*indices": None},
    half_in_float32=True,
    kernel="index_add",
    loops=_index_add_loops,
    complex=True,
)
_PUT: Primitive = Primitive(
    "index_put",
    _put_value,
    {
        "x": lambda g, template, indices: apply(_PUT, (g, 0.0, *indices), {"template": template}),
        "value": lambda g, template, indices: _put_value_rule(g, template, indices),
        "*indices": None,
    },
    moves=True,
)


def _with_part(x: Any, y: Any, attrs: Mapping[str, Any]) -> Any:
    """``x`` with ``y`` where a basic index leads."""
    index = attrs["index"]
    return apply(_PUT, (x, y), {"template": index if ... in index else (*index, ...)})


puts_back(slice_of, _with_part)
_ASSIGN: Primitive = Primitive(
    "assign_at",
    _assign_value,
    {"x": None, "value": None, "*indices": None},
    mutates=(0,),
    moves=True,
)
# Which elements of an index are the last that name their place.
_IS_LAST: Primitive = Primitive("is_last", _last_value, {"x": None, "*indices": None}, complex=True)
_NONZERO: Primitive = Primitive(
    "nonzero",
    lambda xp, x: xp.stack([i.astype(np.int64) for i in x.nonzero()]),
    {"x": None},
    data_dependent=True,
    complex=True,
)


def indexed(x: Any, indices: Sequence[Any], template: Template) -> Any:
    """``x`` at an index that is taken apart already."""
    return apply(_INDEX, (x, *indices), {"template": template})


def index_added(
    g: Any,
    indices: Sequence[Any],
    template: Template,
    shape: tuple[int, ...],
    distinct: bool = False,
) -> Any:
    """Zeros of ``shape`` with ``g`` added at the index; ``distinct``: at most once anywhere."""
    attrs = {"template": template, "shape": shape, "distinct": distinct}
    return apply(_INDEX_ADD, (g, *indices), attrs)


def from_the_front(indices: Any, n: int) -> Any:
    """Numbers of ``n`` rows as int64, counted from the front."""
    wide = tape.cast(indices, dtypes.int64)  # in which the count of all rows has room
    return where(wide < 0, wide + n, wide)


# --- reading an index -----------------------------------------------------------------------------


def _parse(name: str, x: Any, index: Any) -> tuple[Template, list[Any], tuple[int, ...]]:
    """``index`` as a template, the index arrays that belong into it, and where ``x`` first needs
    a new axis (for each index that is a single truth value)."""
    parts = index if type(index) is tuple else (index,)
    shape = shape_of(x)
    template: list[Part] = []
    arrays: list[Any] = []
    new_axes: list[int] = []
    axis = 0  # of x, counted from the front before an Ellipsis and from the end after it
    for i, part in enumerate(parts):
        kind = type(part)
        if kind is int:
            template.append(part)
            axis += 1
        elif kind is slice:
            template.append((_bound(part.start), _bound(part.stop), _bound(part.step)))
            axis += 1
        elif part is None:
            template.append(None)
        elif part is Ellipsis:
            if Ellipsis in template:
                raise IndexError(f"{name}: an index can have one Ellipsis (...); got two")
            template.append(Ellipsis)
            axis = len(shape) - sum(_axes_taken(p) for p in parts[i + 1 :])
        elif kind is bool or (getattr(part, "dtype", None) == dtypes.bool and not part.shape):
            template.append(ARRAY)
            arrays.append(np.arange(1 if part else 0))
            new_axes.append(axis + len(new_axes))
        elif isinstance(part, np.integer) or (kind is np.ndarray and not part.shape):
            template.append(as_int(part))
            axis += 1
        else:
            part = own_indices(part, None if name == "index_put" else x)
            found = _index_arrays(name, part, shape, axis)
            template.extend([ARRAY] * len(found))
            arrays.extend(found)
            axis += len(found)
    if axis > len(shape):
        raise IndexError(
            f"{name}: too many indices; got {axis} for shape {shape} of {len(shape)} axes"
        )
    if Ellipsis not in template:
        template.append(Ellipsis)  # then a single element is a 0-d view and not a scalar
    return tuple(template), [beside(x, a) for a in arrays], tuple(new_axes)


def _bound(value: Any) -> int | None:
    return None if value is None else as_int(value)


def _axes_taken(part: Any) -> int:
    """How many axes of the tensor a part of an index uses up."""
    if part is None or type(part) is bool:
        return 0
    if type(part) in (int, slice):
        return 1
    if isinstance(part, list):
        part = np.asarray(part)
    if getattr(part, "dtype", None) == dtypes.bool:
        return len(part.shape)
    return 1


def _index_arrays(name: str, part: Any, shape: tuple[int, ...], axis: int) -> list[Any]:
    """An integer array as it is; a mask as the integer arrays that name its true elements."""
    if not hasattr(part, "dtype"):
        try:
            part = np.asarray(
                [p.data if hasattr(p, "node") else p for p in part]
                if isinstance(part, list | tuple)
                else part
            )
        except ValueError as error:
            raise IndexError(f"{name}: an index list must be regular: {error}") from error
        if not part.size:
            part = part.astype(np.int64)
    if part.dtype == dtypes.bool:
        n = len(part.shape)
        if part.shape != shape[axis : axis + n]:
            raise IndexError(
                f"{name}: a mask must have the sizes of the axes it selects from; the mask has "
                f"shape {part.shape}, and axes {axis} to {axis + n - 1} of {shape} have "
                f"{shape[axis : axis + n]}"
            )
        found = apply(_NONZERO, (part,))
        return [sliced(found, (i, ...)) for i in range(n)]
    if part.dtype not in dtypes.INTEGERS:
        raise IndexError(
            f"{name}: an index must be an integer, a slice, None, ..., or an array of integers or "
            f"truth values; got {part.dtype}"
        )
    return [part]


def beside(x: Any, indices: Any) -> Any:
    """Arrays of the host as tensors on the device of ``x``; others as they are."""
    if type(indices) is not np.ndarray:
        return indices
    array = getattr(x, "data", None) if hasattr(x, "node") else x
    if is_array(array) and type(array) is not np.ndarray:
        from tensorgrad import backend

        of = backend.of(array)
        indices = of.asarray(indices, None, of.device_of(array), None)
    return tape.wrap(indices, None) if array is not x else indices


def own_indices(indices: Any, x: Any = None) -> Any:
    """An array in memory of its own, where the tape may keep it (see ``tape.OWN_UP_TO``).

    x: what it is an index into, if nothing else may be recorded.
    """
    if not is_array(indices) or indices.nbytes > tape.OWN_UP_TO:
        return indices
    recorded = getattr(x, "node", 0) is not None and current_mode().grad
    return indices.copy() if recorded else indices


def _with_new_axes(x: Any, new_axes: tuple[int, ...]) -> Any:
    return expand_dims(x, new_axes) if new_axes else x


# --- x[index] -------------------------------------------------------------------------------------


@operation(
    cases=[
        lambda s: s(s.real(3, 4), 1),
        lambda s: s(s.real(3, 4), (slice(None), -1)),
        lambda s: s(s.real(5, 4), (slice(4, 0, -2), None, slice(1, 3))),
        lambda s: s(s.real(2, 3, 4), (..., 0)),
        lambda s: s(s.real(3), 2),
        lambda s: s(s.real(), ()),
        lambda s: s(s.real(3, 4), (slice(2, 2),)),
        lambda s: s(s.real(3, 4), [2, 0, 2]),
        lambda s: s(s.real(3, 4), (np.array([0, 2, 0]), np.array([1, -1, 1]))),
        lambda s: s(s.real(3, 4), (slice(None), np.array([[0, 3], [3, 3]]))),
        lambda s: s(s.real(2, 3, 4), (np.array([0, 1, 1]), slice(None), np.array([1, 2, 2]))),
        lambda s: s(s.real(2, 3, 4), (0, slice(None), np.array([1, 2, 2]))),
        lambda s: s(s.real(2, 3, 4), (slice(None), np.array([1, 2, 2]), np.array([[3], [0]]))),
        lambda s: s(s.real(2, 3, 4), (None, np.array([1, 1]), ..., slice(1, 3))),
        lambda s: s(s.real(2, 3), np.array([[True, False, True], [False, True, False]])),
        lambda s: s(s.real(2, 3, 2), (slice(None), np.array([True, False, True]))),
        lambda s: s(s.real(2, 3, 2), (..., np.array([[True, False], [True, True], [False] * 2]))),
        lambda s: s(s.real(3, 4), np.array([False, False, False])),
        lambda s: s(s.real(3, 4), True),
        lambda s: s(s.real(3, 4), (slice(None), False)),
        lambda s: s(s.real(0, 4), []),
    ],
    reference=lambda x, index: x[index],
    torch=None,
    method=False,
    primitive=_INDEX,
)
def getitem(x: Any, index: Any, /) -> Tensor:
    """``x[index]`` by the rules of NumPy.

    Of integers, slices, None and Ellipsis: a view. With arrays or lists of integers or truth
    values (tensors too): a copy; gradients of an element selected several times add up.

    Raises IndexError naming the index, the axis and its size. A GPU does not look for integers
    out of range, which wrap around.
    """
    kind = type(index)
    if kind is int:
        return sliced(x, (index, ...))
    template, indices, new_axes = _parse("getitem", x, index)
    if not indices:
        return sliced(x, template)
    return indexed(_with_new_axes(x, new_axes), indices, template)


def _reference_put(x: Any, index: Any, value: Any) -> Any:
    y = x.copy()
    y[index] = value
    return y


@operation(
    cases=[
        lambda s: s(s.real(3, 4), 1, s.real(4)),
        lambda s: s(s.real(3, 4), (slice(None), slice(1, 3)), s.real(3, 1)),
        lambda s: s(s.real(3, 4), [2, 0], s.real(2, 4)),
        lambda s: s(s.real(3, 4), [2, 0, 2], s.real(3, 4)),
        lambda s: s(s.real(3, 4), [2, 2], s.real()),
        lambda s: s(s.real(2, 2), np.array([[True, False], [True, True]]), s.real(3)),
        lambda s: s(s.real(2, 2), np.array([[True, False], [True, True]]), 0.5),
        lambda s: s(s.real(3), (slice(0, 0),), s.real(0)),
        lambda s: s(s.real(), (), s.real()),
    ],
    reference=_reference_put,
    torch=None,
    method=False,
    primitive=_PUT,
)
def index_put(x: Any, index: Any, value: Any, /) -> Tensor:
    """A copy of ``x`` with ``x[index] = value``; ``value`` broadcasts and takes on x's dtype.

    Where the index names a place more than once the last value counts, and gets the gradient.
    """
    return _store(_PUT, "index_put", x, index, value)


def assign_at(x: Any, index: Any, value: Any, /) -> Any:
    """Overwrite ``x[index]`` with ``value`` in the memory of ``x``; nothing is recorded.

    Returns ``x``. For tensors of which no gradient is being recorded; ``index_put`` is the form
    for the others.
    """
    _store(_ASSIGN, "setitem", x, index, value)
    return x


def _store(op: Primitive, name: str, x: Any, index: Any, value: Any) -> Any:
    template, indices, new_axes = _parse(name, x, index)
    if type(value) in (list, tuple) and hasattr(x, "node"):  # there may be tensors in it
        value = x._joined(value, x.device, x.dtype)
    elif isinstance(value, float | complex | np.inexact):
        _check_number(name, x.dtype, value)
    if hasattr(value, "node") and value.dtype != x.dtype:
        value = tape.cast(value, x.dtype)
    elif not hasattr(value, "node") and not isinstance(value, int | float | complex | np.generic):
        value = beside(x, np.asarray(value, x.dtype) if type(value) in (list, tuple) else value)
    if new_axes:
        # The index is a mask without axes: it is on all of x, or on nothing.
        wide = apply(op, (expand_dims(x, new_axes), value, *indices), {"template": template})
        return reshape(wide, shape_of(x))
    return apply(op, (x, value, *indices), {"template": template})


def _check_number(name: str, dtype: np.dtype[Any], value: Any) -> None:
    """Raise DtypeError or ValueError for a number that an array of ``dtype`` cannot hold."""
    if isinstance(value, complex | np.complexfloating):
        if dtype not in dtypes.COMPLEX:
            raise DtypeError(
                f"{name}: a {dtype} tensor holds no complex numbers; got {value}; convert it with "
                "x.astype(complex) first, or store the real part"
            )
    elif dtype in dtypes.INTEGERS and value != value:
        raise ValueError(
            f"{name}: a {dtype} tensor holds integers alone; got {value}; convert it with "
            "x.astype(float) first"
        )


# --- along an axis --------------------------------------------------------------------------------


@operation(
    cases=[
        lambda s: s(s.real(3, 4), s.ints(2, high=3), axis=0),
        lambda s: s(s.real(3, 4), s.ints(2, 5, high=4), axis=-1),
        lambda s: s(s.real(2, 3, 2), s.ints(5, high=3), axis=1),
        lambda s: s(s.real(3, 4), s.ints(5, high=12)),
        lambda s: s(s.real(3, 4), np.array([], np.int64), axis=0),
        lambda s: s(s.real(3, 4), 2, axis=1),
    ],
    torch=None,
    primitive=_INDEX,
)
def take(x: Any, indices: Any, /, axis: int | None = None) -> Tensor:
    """The slices of ``x`` at ``indices`` along ``axis``.

    Elements of the flattened ``x`` if ``axis`` is ``None``.

    indices: integers of any shape, which takes the place of the axis in the result.
    """
    if axis is None:
        x, axis = reshape(x, (-1,)), 0
    place = normalize_axis("take", axis, x)
    if type(indices) is int:
        return sliced(x, along(place, indices))
    return indexed(x, [integer_indices("take", x, indices)], along(place, ARRAY))


def integer_indices(name: str, x: Any, indices: Any) -> Any:
    """``indices`` as an integer array or tensor beside ``x``."""
    if not hasattr(indices, "dtype"):
        indices = np.asarray(indices)
        if not indices.size:
            indices = indices.astype(np.int64)
    elif isinstance(indices, np.generic):
        indices = np.asarray(indices)
    if indices.dtype not in dtypes.INTEGERS:
        raise DtypeError(f"{name}: indices must be integers; got {indices.dtype}")
    return beside(x, own_indices(indices, x))


def _gather_value(xp: Any, x: Any, indices: Any, axis: int, distinct: bool) -> Any:
    return x[along_axis(xp, indices, axis)]


def _scatter_value(
    xp: Any, src: Any, indices: Any, axis: int, shape: tuple[int, ...], distinct: bool
) -> Any:
    y = xp.zeros(shape, src.dtype)
    if distinct and xp is np:  # one array of places is quicker than one for each axis
        y.reshape(-1)[gathered_places(indices, axis, shape, True)] = src
        return y
    index = along_axis(xp, indices, axis)
    if distinct:
        y[index] = src
    elif xp is not np:
        add_on_gpu(xp, y, index, src)
    elif indices.size:
        n = shape[axis]
        if indices.min() < -n or indices.max() >= n:
            bad = next(i for i in indices.reshape(-1).tolist() if not -n <= i < n)
            raise IndexError(f"index {bad} is out of bounds for axis {axis} with size {n}")
        return add_at(y, gathered_places(indices, axis, shape), np.asarray(src))
    return y


def _gather_part(g: Any, indices: Any, axis: int, x_shape: tuple[int, ...], distinct: bool) -> Any:
    if type(g) is np.ndarray and g.dtype in dtypes.WIDE_FLOATS and not distinct and g.size:
        return GatherPart(g, (indices, axis), x_shape)
    attrs = {"axis": axis, "shape": x_shape, "distinct": distinct}
    return apply(_SCATTER_ADD, (g, indices), attrs)


GATHER: Primitive = Primitive(
    "gather",
    _gather_value,
    {
        "x": lambda g, indices, axis, x_shape, distinct: apply(
            _SCATTER_ADD, (g, indices), {"axis": axis, "shape": x_shape, "distinct": distinct}
        ),
        "indices": None,
    },
    moves=True,
    part=_gather_part,
)
_SCATTER_ADD: Primitive = Primitive(
    "scatter_add",
    _scatter_value,
    {
        "src": lambda g, indices, axis, distinct: apply(
            GATHER, (g, indices), {"axis": axis, "distinct": distinct}
        ),
        "indices": None,
    },
    half_in_float32=True,
    kernel="scatter_add",
    complex=True,
)


def gathered(x: Any, indices: Any, axis: int, distinct: bool = False) -> Any:
    """``x`` at ``indices`` along ``axis``; ``distinct`` promises that no element is taken twice."""
    return apply(GATHER, (x, indices), {"axis": axis, "distinct": distinct})


def scattered(
    src: Any, indices: Any, axis: int, shape: tuple[int, ...], distinct: bool = False
) -> Any:
    """Zeros of ``shape`` with ``src`` added at ``indices`` along ``axis``; see ``gathered``."""
    attrs = {"axis": axis, "shape": shape, "distinct": distinct}
    return apply(_SCATTER_ADD, (src, indices), attrs)


def _check_same_ndim(name: str, x: Any, indices: Any) -> None:
    if len(shape_of(x)) != len(shape_of(indices)):
        raise ShapeError(
            f"{name}: the indices must have as many axes as the tensor; got shape "
            f"{shape_of(indices)} for {shape_of(x)}"
        )


@operation(
    cases=[
        lambda s: s(s.real(3, 4), s.ints(3, 2, high=4), axis=1),
        lambda s: s(s.real(3, 4), s.ints(1, 4, high=3), axis=0),
        lambda s: s(s.real(2, 3, 4), s.ints(2, 3, 4, high=4), axis=-1),
        lambda s: s(s.real(3), s.ints(5, high=3), axis=0),
        lambda s: s(s.real(3, 4), np.zeros((3, 0), np.int64), axis=1),
    ],
    torch=None,
    primitive=GATHER,
)
def take_along_axis(x: Any, indices: Any, /, axis: int = -1) -> Tensor:
    """The elements ``x[..., indices[..., j, ...], ...]`` along ``axis``, as argsort gives indices.

    The other axes of ``x`` and ``indices`` broadcast.
    """
    place = normalize_axis("take_along_axis", axis, x)
    indices = integer_indices("take_along_axis", x, indices)
    _check_same_ndim("take_along_axis", x, indices)
    own, theirs = list(shape_of(x)), list(indices.shape)
    n, m = own[place], theirs[place]
    own[place] = theirs[place] = 1
    try:
        common = list(np.broadcast_shapes(tuple(own), tuple(theirs)))
    except ValueError:
        raise ShapeError(
            f"take_along_axis: all axes but axis {place} must broadcast; got shape {shape_of(x)} "
            f"and indices of shape {indices.shape}"
        ) from None
    common[place] = n
    if tuple(common) != shape_of(x):
        x = broadcast_to(x, common)
    common[place] = m
    if tuple(common) != indices.shape:
        indices = broadcast_to(indices, common)
    return gathered(x, indices, place)


def _check_within(name: str, shape: tuple[int, ...], indices: Any, axis: int) -> None:
    if any(m > n for i, (m, n) in enumerate(zip(indices.shape, shape, strict=True)) if i != axis):
        raise ShapeError(
            f"{name}: along all axes but axis {axis} the indices may be no longer than the "
            f"tensor; got indices of shape {indices.shape} for {shape}"
        )


def _gather_reference(x: Any, indices: Any, axis: int) -> Any:
    cut = tuple(slice(None) if i == axis else slice(n) for i, n in enumerate(indices.shape))
    return np.take_along_axis(x[cut], indices, axis)


@operation(
    cases=[
        lambda s: s(s.real(3, 4), s.ints(3, 2, high=4), 1),
        lambda s: s(s.real(3, 4), s.ints(2, 3, high=3), 0),
        lambda s: s(s.real(3), s.ints(5, high=3), 0),
    ],
    reference=_gather_reference,
    torch=None,
    primitive=GATHER,
)
def gather(x: Any, indices: Any, /, axis: int) -> Tensor:
    """``out[i, j] = x[i, indices[i, j]]`` for axis 1, and so on, as PyTorch's ``gather``.

    indices: with as many axes as ``x``, and along all others no longer than it. The result has
    the shape of ``indices``.
    """
    place = normalize_axis("gather", axis, x)
    indices = integer_indices("gather", x, indices)
    _check_same_ndim("gather", x, indices)
    _check_within("gather", shape_of(x), indices, place)
    return gathered(x, indices, place)


def checked_places(name: str, x: Any, indices: Any, axis: int) -> tuple[int, Any]:
    """The axis from 0 and the indices, which may go along it into ``x``, beside ``x``."""
    place = normalize_axis(name, axis, x)
    indices = integer_indices(name, x, own_indices(indices))
    _check_same_ndim(name, x, indices)
    _check_within(name, shape_of(x), indices, place)
    return place, indices


def _scatter_add_reference(x: Any, indices: Any, src: Any, axis: int) -> Any:
    y = x.copy()
    for place in np.ndindex(*indices.shape):
        target = list(place)
        target[axis] = indices[place]
        y[tuple(target)] += src[place]
    return y


@operation(
    cases=[
        lambda s: s(s.real(3, 4), s.ints(3, 2, high=4), s.real(3, 2), 1),
        lambda s: s(s.real(3, 4), s.ints(2, 3, high=3), s.real(2, 3), 0),
        lambda s: s(s.real(2, 3, 2), s.ints(2, 5, 2, high=3), s.real(2, 5, 2), 1),
        lambda s: s(s.real(3), np.zeros(0, np.int64), s.real(0), 0),
    ],
    reference=_scatter_add_reference,
    torch=None,
    primitive=_SCATTER_ADD,
)
def scatter_add(x: Any, indices: Any, src: Any, /, axis: int) -> Tensor:
    """``x`` with ``out[i, indices[i, j]] += src[i, j]`` for axis 1, and so on, as in PyTorch.

    indices: with as many axes as ``x``, along all others no longer than it. src: of the shape of
    ``indices``. The sums are made in an order that does not change from run to run.
    """
    place, indices = checked_places("scatter_add", x, indices, axis)
    if shape_of(src) != indices.shape:
        raise ShapeError(
            f"scatter_add: src must have the shape of the indices; got {shape_of(src)} and "
            f"{indices.shape}"
        )
    attrs = {"axis": place, "shape": shape_of(x), "distinct": False}
    return x + apply(_SCATTER_ADD, (src, indices), attrs)


def _one_hot_value(xp: Any, indices: Any, n: int, dtype: Any) -> Any:
    if xp is np and indices.size and (indices.min() < 0 or indices.max() >= n):
        bad = next(i for i in indices.reshape(-1).tolist() if not 0 <= i < n)
        raise IndexError(
            f"index {bad} is negative; the classes are numbered from 0"
            if bad < 0
            else f"index {bad} is out of bounds for {n} classes"
        )
    column = indices[..., None]
    found = column == xp.arange(n)
    if xp is not np and dtype in dtypes.FLOATS:
        # Nobody waits for a GPU to say what the labels are: one out of range makes its row NaN.
        valid = (column >= 0) & (column < n)
        found = found.astype(dtypes.float32) / valid.astype(dtypes.float32)
    return found.astype(dtype)


def _one_hot_loops(xp: Any, indices: Any, n: int, dtype: Any) -> Any:
    xp.check_labels(indices, n)
    column = indices[..., None]
    found = (column == xp.arange(n)).astype(dtype)
    if xp.on_host or dtype not in dtypes.FLOATS:
        return found
    return xp.where((column >= 0) & (column < n), found, dtype.type(math.nan))


_ONE_HOT: Primitive = Primitive(
    "one_hot", _one_hot_value, {"indices": None}, moves=True, loops=_one_hot_loops
)


@operation(
    cases=[
        lambda s: s(s.ints(3, high=4), 4),
        lambda s: s(s.ints(2, 3, high=4), 5),
        lambda s: s(np.array(1), 3),
    ],
    reference=lambda indices, num_classes: np.eye(num_classes)[indices],
    torch="nn.functional.one_hot",
    gradient=False,
    primitive=_ONE_HOT,
)
def one_hot(indices: Any, /, num_classes: int | None = None, *, dtype: Any = None) -> Tensor:
    """For each integer a vector of zeros with a 1 at that place, along a new last axis.

    num_classes: the length of the vectors; one more than the largest integer if ``None`` or -1.
    dtype: of the result; the default real dtype if ``None``.

    Raises IndexError for an integer outside [0, num_classes).
    """
    if not hasattr(indices, "dtype"):
        indices = np.asarray(indices)
    indices = integer_indices("one_hot", indices, indices)
    if num_classes is None or num_classes == -1:
        if hasattr(indices, "_read"):
            indices._read("one_hot() without num_classes")
        num_classes = int(getattr(indices, "data", indices).max()) + 1 if indices.size else 0
    wanted = dtypes.get_default_dtype() if dtype is None else dtypes.as_dtype(dtype)
    return apply(_ONE_HOT, (indices,), {"n": num_classes, "dtype": wanted})


@operation(
    cases=[lambda s: s(s.bools(3, 4)), lambda s: s(s.ints(5, high=2))],
    torch=None,
    gradient=False,
    primitive=_NONZERO,
    numpy="a",
)
def nonzero(x: Any, /) -> tuple[Tensor, ...]:
    """Where ``x`` is not zero: an integer tensor of positions for each axis."""
    n = len(shape_of(x))
    if not n:
        raise ShapeError("nonzero: at least one axis is needed; got a 0-d tensor")
    found = apply(_NONZERO, (x,))
    return tuple(sliced(found, (i, ...)) for i in range(n))
