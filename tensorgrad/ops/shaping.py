"""Shapes: rearranging, joining and repeating without changing values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from operator import index as as_int
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorgrad import backend
from tensorgrad.backend.base import Array
from tensorgrad.backend.namespace import Namespace
from tensorgrad.backend.templates import ALL
from tensorgrad.dtypes import WIDE_FLOATS
from tensorgrad.errors import AxisError, ShapeError
from tensorgrad.ops.parts import Part as GradientPart
from tensorgrad.ops.sums import column_sums, total
from tensorgrad.ops.table import operation
from tensorgrad.ops.views import puts_back, viewing
from tensorgrad.tape import Primitive, apply

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = [
    "atleast_1d", "atleast_2d", "broadcast_arrays", "broadcast_shapes", "broadcast_to", "cat",
    "concat", "concatenate", "expand_dims", "flatten", "flip", "matrix_transpose", "moveaxis",
    "permute", "permute_dims", "reshape", "roll", "split", "squeeze", "stack", "swapaxes",
    "transpose", "unbind", "unsqueeze", "unstack",
]  # fmt: skip

Axis = int | Sequence[int] | None


def shape_of(x: Any) -> tuple[int, ...]:
    """The shape of a tensor, array, scalar or nested sequence."""
    shape: tuple[int, ...] | None = getattr(x, "shape", None)
    if shape is None and isinstance(x, list | tuple):  # there may be tensors in it
        return (len(x), *shape_of(x[0])) if x else (0,)
    return np.shape(x) if shape is None else shape


def normalize_axis(name: str, axis: Any, x: Any, ndim: int | None = None) -> int:
    """``axis`` as a number from 0. Raises AxisError, naming the operation, if there is none."""
    n = len(shape_of(x)) if ndim is None else ndim
    try:
        number = as_int(axis)
    except TypeError:
        raise TypeError(_no_axis(name, axis)) from None
    if -n <= number < n:
        return number % n
    limits = f"between {-n} and {n - 1}" if n else "absent: the tensor has no axes"
    raise AxisError(f"{name}: axis must be {limits}; got axis={number} for shape {shape_of(x)}")


def _no_axis(name: str, axis: Any) -> str:
    shape = getattr(axis, "shape", None)
    came = repr(axis) if shape is None else f"a {type(axis).__name__} of shape {tuple(shape)}"
    text = f"{name}: axis must be an integer; got {came}"
    if shape is not None and name in ("max", "min"):
        return f"{text}. The {name} of two tensors, element by element, is tg.{name}imum(x, y)"
    if shape is not None and name in ("gather", "scatter_add", "take_along_axis", "take"):
        return f"{text}. The axis comes after the indices: tg.{name}(x, indices, ..., axis=0)"
    return text


def normalize_axes(name: str, axis: Axis, x: Any) -> tuple[int, ...]:
    """``axis`` (one, several, or ``None`` for all) as a tuple of numbers from 0, no duplicates."""
    if axis is None:
        return tuple(range(len(shape_of(x))))
    if isinstance(axis, tuple | list):
        axes = tuple(normalize_axis(name, a, x) for a in axis)
        if len(set(axes)) != len(axes):
            raise ShapeError(f"{name}: an axis is named twice in axis={tuple(axis)}")
        return axes
    return (normalize_axis(name, axis, x),)


_RESHAPE: Primitive = Primitive(
    "reshape",
    lambda xp, x, shape: x.reshape(shape),
    {"x": lambda g, x_shape: _in_shape(g, x_shape)},
    explain=lambda got, shape: (
        f"{got} has {math.prod(got)} elements, which do not fill shape {tuple(shape)}"
    ),
    moves=True,
    view_or_copy=True,
)
_reshaped = viewing(_RESHAPE)
puts_back(_reshaped, lambda x, y, attrs: _in_shape(y, x.shape))


def _in_shape(y: Any, shape: tuple[int, ...]) -> Any:
    return _reshaped(y, {"shape": shape})


@operation(
    cases=[
        lambda s: s(s.real(3, 4), (2, 6)),
        lambda s: s(s.real(3, 4), (-1,)),
        lambda s: s(s.real(), (1, 1)),
        lambda s: s(s.real(0, 4), (4, 0)),
    ],
    primitive=_RESHAPE,
    numpy="a shape !order=C copy=",
)
def reshape(x: Any, /, shape: int | Sequence[int], *more: int, copy: bool | None = None) -> Tensor:
    """The same elements, in row-major order, with another ``shape``; one size may be -1.

    The sizes may also be given one by one, as in ``x.reshape(3, -1)``. copy: None shares memory
    where the layout allows, True never, False always. Raises ShapeError if the number of elements
    differs, ValueError if ``copy`` is False and a copy is needed.
    """
    y = _reshaped(x, {"shape": _together(shape, more)})
    return y if copy is None else _shared_or_not(x, y, copy)


def _shared_or_not(x: Any, y: Any, copy: bool) -> Any:
    """``y``, a reshaped ``x``: in memory of its own if ``copy``, else in that of ``x``."""
    before, after = getattr(x, "data", x), getattr(y, "data", y)
    owner = backend.of(after).memory_owner
    shared = backend.is_array(before) and owner(before) is owner(after)
    if copy:
        return y.clone() if shared else y
    if not shared:
        raise ValueError(
            f"reshape: copy=False, but with shape {shape_of(x)} and as it lies in memory it has to "
            f"be copied to become {shape_of(y)}"
        )
    return y


def _together(first: int | Sequence[int], more: tuple[int, ...]) -> tuple[int, ...]:
    """Sizes or axes given as one sequence or one by one, as a tuple."""
    if type(first) is tuple:  # an abstract class takes its time to say so
        return first
    return tuple(first) if isinstance(first, Sequence) else (as_int(first), *more)


_PERMUTE: Primitive = Primitive(
    "permute_dims",
    lambda xp, x, axes: x.transpose(axes),
    {"x": lambda g, axes: _put_in_order(g, axes)},
    moves=True,
)
_permuted = viewing(_PERMUTE)


def _put_in_order(y: Any, axes: tuple[int, ...]) -> Any:
    """What has been permuted to ``y`` by ``axes``."""
    return _permuted(y, {"axes": tuple(sorted(range(len(axes)), key=axes.__getitem__))})


puts_back(_permuted, lambda x, y, attrs: _put_in_order(y, attrs["axes"]))


@operation(
    cases=[lambda s: s(s.real(2, 3, 4), (2, 0, 1)), lambda s: s(s.real(3, 4), (1, 0))],
    reference="transpose",
    torch="permute",
    primitive=_PERMUTE,
)
def permute_dims(x: Any, /, axes: int | Sequence[int], *more: int) -> Tensor:
    """``x`` with its axes in the order ``axes``, a permutation of all of them; a view.

    The axes may also be given one by one, as in ``x.permute_dims(2, 0, 1)``.
    """
    order = normalize_axes("permute_dims", _together(axes, more), x)
    if len(order) != len(shape_of(x)):
        raise ShapeError(
            f"permute_dims: axes must name every axis once; got axes={_together(axes, more)} for "
            f"shape {shape_of(x)}; to interchange two axes use swapaxes"
        )
    return _permuted(x, {"axes": order})


permute = permute_dims


# --- order of the axes --------------------------------------------------------------------------


@operation(
    cases=[
        lambda s: s(s.real(2, 3, 4)),
        lambda s: s(s.real(2, 3, 4), (1, -1, 0)),
        lambda s: s(s.real(3)),
        lambda s: s(s.real()),
        lambda s: s(s.real(0, 3)),
    ],
    torch=None,
    primitive=_PERMUTE,
)
def transpose(x: Any, /, axes: int | Sequence[int] | None = None, *more: int) -> Tensor:
    """``x`` with its axes in the order ``axes``, or reversed if ``None``; a view (NumPy's)."""
    if axes is None:
        n = len(shape_of(x))
        return _permuted(x, {"axes": tuple(range(n - 1, -1, -1))})
    return permute_dims(x, axes, *more)


@operation(
    cases=[lambda s: s(s.real(2, 3, 4), 0, -1), lambda s: s(s.real(2, 3), 1, 1)],
    primitive=_PERMUTE,
    numpy="a axis1 axis2",
)
def swapaxes(x: Any, axis1: int, axis2: int, /) -> Tensor:
    """``x`` with two of its axes interchanged; a view."""
    first, second = normalize_axis("swapaxes", axis1, x), normalize_axis("swapaxes", axis2, x)
    order = list(range(len(shape_of(x))))
    order[first], order[second] = second, first
    return _permuted(x, {"axes": tuple(order)})


@operation(
    cases=[
        lambda s: s(s.real(2, 3, 4), 0, -1),
        lambda s: s(s.real(2, 3, 4), (0, 1), (-1, 0)),
        lambda s: s(s.real(3, 1), 1, 0),
    ],
    primitive=_PERMUTE,
    numpy="a source destination",
)
def moveaxis(x: Any, source: int | Sequence[int], destination: int | Sequence[int], /) -> Tensor:
    """``x`` with the axes ``source`` at ``destination`` and the others in their order; a view."""
    taken = normalize_axes("moveaxis", (source,) if isinstance(source, int) else source, x)
    places = normalize_axes(
        "moveaxis", (destination,) if isinstance(destination, int) else destination, x
    )
    if len(taken) != len(places):
        raise ShapeError(
            f"moveaxis: source and destination must name equally many axes; got {source} and "
            f"{destination}"
        )
    order = [i for i in range(len(shape_of(x))) if i not in taken]
    for place, axis in sorted(zip(places, taken, strict=True)):
        order.insert(place, axis)
    return _permuted(x, {"axes": tuple(order)})


@operation(
    cases=[lambda s: s(s.real(3, 4)), lambda s: s(s.real(2, 3, 4)), lambda s: s(s.real(0, 2))],
    torch=None,
    primitive=_PERMUTE,
    numpy="x",
)
def matrix_transpose(x: Any, /) -> Tensor:
    """A matrix, or a stack of them, transposed: the last two axes interchanged; a view."""
    n = len(shape_of(x))
    if n < 2:
        raise ShapeError(
            f"matrix_transpose: at least two axes are needed; got shape {shape_of(x)}. Give a "
            "vector an axis first, as in x[:, None]"
        )
    return _permuted(x, {"axes": (*range(n - 2), n - 1, n - 2)})


# --- axes of size 1, and repeating along them ---------------------------------------------------


@operation(
    cases=[
        lambda s: s(s.real(1, 3, 1)),
        lambda s: s(s.real(1, 3, 1), axis=-1),
        lambda s: s(s.real(1, 3, 1), axis=(0, 2)),
        lambda s: s(s.real(1, 0, 1), axis=0),
    ],
    primitive=_RESHAPE,
    numpy="a axis=",
)
def squeeze(x: Any, /, axis: Axis = None) -> Tensor:
    """``x`` without the axes ``axis``, each of size 1; without all such axes if ``None``.

    Raises ShapeError for an axis of another size.
    """
    shape = shape_of(x)
    if axis is None:
        return _reshaped(x, {"shape": tuple(n for n in shape if n != 1)})
    axes = normalize_axes("squeeze", axis, x)
    for a in axes:
        if shape[a] != 1:
            raise ShapeError(
                f"squeeze: only an axis of size 1 can be left out; axis {a} of shape {shape} has "
                f"size {shape[a]}"
            )
    return _reshaped(x, {"shape": tuple(n for i, n in enumerate(shape) if i not in axes)})


@operation(
    cases=[
        lambda s: s(s.real(3, 4), 1),
        lambda s: s(s.real(3, 4), -1),
        lambda s: s(s.real(3), (0, 2)),
        lambda s: s(s.real(), 0),
    ],
    torch=None,
    primitive=_RESHAPE,
    numpy="a axis",
)
def expand_dims(x: Any, /, axis: int | Sequence[int]) -> Tensor:
    """``x`` with new axes of size 1, at the places ``axis`` of the result; a view."""
    shape = shape_of(x)
    wanted = (axis,) if isinstance(axis, int) else tuple(axis)
    n = len(shape) + len(wanted)
    places = {normalize_axis("expand_dims", a, x, n) for a in wanted}
    if len(places) != len(wanted):
        raise ShapeError(f"expand_dims: an axis is named twice in axis={wanted}")
    sizes = iter(shape)
    return _reshaped(x, {"shape": tuple(1 if i in places else next(sizes) for i in range(n))})


unsqueeze = expand_dims


def _broadcast_value(xp: Any, x: Array, shape: tuple[int, ...]) -> Array:
    return xp.broadcast_to(x, shape)


def _sum_to_value(xp: Any, x: Array, shape: tuple[int, ...]) -> Array:
    if xp is np and x.ndim == 2 and x.shape[1:] == shape:  # the gradient of a bias
        return column_sums(x)
    extra = x.ndim - len(shape)
    kept = x.shape[extra:]
    axes = (*range(extra), *(extra + i for i, n in enumerate(shape) if n == 1 != kept[i]))
    return total(xp, x, axes).reshape(shape)


_BROADCAST_TO = Primitive(
    "broadcast_to",
    _broadcast_value,
    {"x": lambda g, x_shape: unbroadcast(g, x_shape)},
    explain=lambda shape_in, shape: (
        f"only axes of size 1 and new leading axes can be repeated to get shape {tuple(shape)}"
    ),
    moves=True,
)
_broadcast = viewing(_BROADCAST_TO)
SUM_TO = Primitive(
    "sum_to",
    _sum_to_value,
    {"x": lambda g, x_shape: _broadcast(g, {"shape": x_shape})},
    promotion="same",
    half_in_float32=True,
    complex=True,
)


def unbroadcast(d: Any, shape: tuple[int, ...]) -> Any:
    """``d`` summed over the axes along which a value of ``shape`` was repeated to give its shape.

    Gradient rules contain no shape code: the engine calls this on whatever they return.
    """
    if d.shape == shape:
        return d
    if type(d) is np.ndarray and d.dtype in WIDE_FLOATS:
        return _sum_to_value(np, d, shape)
    return apply(SUM_TO, (d,), {"shape": shape})


@operation(
    cases=[
        lambda s: s(s.real(3, 1), (2, 3, 4)),
        lambda s: s(s.real(), (2,)),
        lambda s: s(s.real(3), (0, 3)),
        lambda s: s(s.real(3), (3,)),
    ],
    primitive=_BROADCAST_TO,
    numpy="array shape ~subok",
)
def broadcast_to(x: Any, /, shape: int | Sequence[int]) -> Tensor:
    """``x`` repeated along new and size-1 axes until it has ``shape``; a read-only view.

    Raises ShapeError if ``shape`` differs along another axis.
    """
    return _broadcast(x, {"shape": (shape,) if isinstance(shape, int) else tuple(shape)})


@operation(
    cases=[
        lambda s: s(s.real(3, 1), s.real(4)),
        lambda s: s(s.real(2, 1, 3), s.real(1, 4, 1), s.real()),
    ],
    torch="broadcast_tensors",
    method=False,
    primitive=_BROADCAST_TO,
    numpy="*args ~subok",
)
def broadcast_arrays(*arrays: Any) -> tuple[Tensor, ...]:
    """The ``arrays``, each repeated to their common shape."""
    shape = _common_shape("broadcast_arrays", [shape_of(x) for x in arrays])
    return tuple(broadcast_to(x, shape) for x in arrays)


def broadcast_shapes(*shapes: int | Sequence[int]) -> tuple[int, ...]:
    """The shape of what is computed of tensors of these ``shapes``, element by element.

    Raises ShapeError if they do not broadcast.
    """
    return _common_shape(
        "broadcast_shapes", [(s,) if isinstance(s, int) else tuple(s) for s in shapes]
    )


def _common_shape(name: str, shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        raise ShapeError(
            f"{name}: the shapes must broadcast: counted from the last axis, two sizes are equal "
            f"or one of them is 1; got {' and '.join(map(str, shapes))}"
        ) from None


@operation(
    cases=[
        lambda s: s(s.real(2, 3, 4)),
        lambda s: s(s.real(2, 3, 4), 1),
        lambda s: s(s.real(2, 3, 4), 0, -2),
        lambda s: s(s.real()),
        lambda s: s(s.real(0, 3, 2), 1),
    ],
    reference=lambda x, start_axis=0, end_axis=-1: (
        x.reshape((*x.shape[:start_axis], -1, *x.shape[end_axis % max(x.ndim, 1) + 1 :]))
        if x.size
        else x.reshape(0, 6)
    ),
    primitive=_RESHAPE,
)
def flatten(x: Any, /, start_axis: int = 0, end_axis: int = -1) -> Tensor:
    """``x`` with the axes from ``start_axis`` to ``end_axis``, both included, made one."""
    shape = shape_of(x)
    if not shape:
        return reshape(x, (1,))
    first = normalize_axis("flatten", start_axis, x)
    last = normalize_axis("flatten", end_axis, x)
    if first > last:
        raise ShapeError(
            f"flatten: start_axis must not come after end_axis; got {start_axis} and {end_axis} "
            f"for shape {shape}"
        )
    middle = math.prod(shape[first : last + 1])
    return reshape(x, (*shape[:first], middle, *shape[last + 1 :]))


@operation(
    cases=[lambda s: s(s.real()), lambda s: s(s.real(3)), lambda s: s(s.real(2, 3))],
    method=False,
    primitive=_RESHAPE,
)
def atleast_1d(x: Any, /) -> Tensor:
    """``x``, or for a single number a vector of it."""
    return reshape(x, shape_of(x) or (1,))


@operation(
    cases=[lambda s: s(s.real()), lambda s: s(s.real(3)), lambda s: s(s.real(2, 3))],
    method=False,
    primitive=_RESHAPE,
)
def atleast_2d(x: Any, /) -> Tensor:
    """``x`` with leading axes of size 1 until it has two axes."""
    shape = shape_of(x)
    return reshape(x, (1,) * (2 - len(shape)) + shape)


# --- slices -------------------------------------------------------------------------------------

# What a basic index is made of, in a form that can be hashed (slices cannot before Python 3.12):
# an integer, None, Ellipsis, or (start, stop, step) for a slice.
Part = int | tuple[int | None, int | None, int | None] | None | Any


def decoded(index: tuple[Part, ...]) -> tuple[Any, ...]:
    """The index that NumPy understands."""
    return tuple([slice(*part) if type(part) is tuple else part for part in index])


def _slice_value(xp: Any, x: Any, index: tuple[Part, ...]) -> Any:
    return x[decoded(index)]


def _unslice_value(xp: Any, x: Any, index: tuple[Part, ...], shape: tuple[int, ...]) -> Any:
    order, indices = _order_of_parts(xp, (x,), (index,), shape)
    if order is not None:  # the result lies as its part does
        sizes = tuple([shape[k] for k in order])
        return xp.put_back(_unslice_value(xp, x.transpose(order), indices[0], sizes), order)
    y = xp.zeros(shape, x.dtype)
    y[decoded(index)] = x
    return y


def _order_of_parts(
    xp: Any, parts: Sequence[Any], indices: Sequence[tuple[Part, ...]], shape: tuple[int, ...]
) -> tuple[list[int] | None, list[tuple[Part, ...]]]:
    """The order of axes in which the first of some parts lies in memory, if a routine chose it; and
    the slices where they lie in an array of this shape, in that order."""
    order = xp.order_of(parts[0]) if isinstance(xp, Namespace) else None
    found: list[tuple[Part, ...]] = []
    for index, part in zip(indices, parts):
        slices = index[:-1] if index and index[-1] is ... else index
        if order is None or part.ndim != len(shape) or not all(type(k) is tuple for k in slices):
            return None, []
        slices = (*slices, *((None, None, None),) * (len(shape) - len(slices)))
        found.append(tuple([slices[k] for k in order]))
    return order, found


_SLICE: Primitive = Primitive(
    "getitem",
    _slice_value,
    {"x": lambda g, index, x_shape: _unslice(g, index, x_shape)},
    moves=True,
    part=lambda g, index, x_shape: _slice_part(g, index, x_shape),
)
slice_of = viewing(_SLICE)
_UNSLICE: Primitive = Primitive(
    "unslice", _unslice_value, {"x": lambda g, index: sliced(g, index)}, moves=True
)


def _from_parts_value(
    xp: Any, *parts: Any, indices: tuple[tuple[Part, ...], ...], shape: tuple[int, ...]
) -> Any:
    order, moved = _order_of_parts(xp, parts, indices, shape)
    if order is not None:
        sizes = tuple([shape[k] for k in order])
        lying = [part.transpose(order) for part in parts]
        return xp.put_back(_from_parts_value(xp, *lying, indices=tuple(moved), shape=sizes), order)
    apart, full = _coverage(indices, shape)
    y = (xp.empty if full else xp.zeros)(shape, parts[0].dtype)
    for index, part in zip(indices, parts, strict=True):
        view = y[decoded(index)]
        if apart:
            view[...] = part
        else:
            xp.add(view, part, out=view)
    return y


Box = tuple[tuple[int, int], ...]  # a range of each axis


def _coverage(indices: Sequence[tuple[Part, ...]], shape: tuple[int, ...]) -> tuple[bool, bool]:
    """Whether it is seen that no element of ``shape`` is named by two of these indices, and that
    each is named by one: where they differ on one axis only, by ranges or numbers."""
    boxes = [box for index in indices if (box := _box(index, shape)) is not None]
    differing = [k for k in range(len(shape)) if len({box[k] for box in boxes}) > 1]
    if len(boxes) < len(indices) or len(differing) != (len(boxes) > 1):
        return False, False
    axis = differing[0] if differing else -1
    ranges = sorted(box[axis] for box in boxes if box)
    if any(end > start for (_, end), (start, _) in pairwise(ranges)):
        return False, False
    own = [(0, n) for n in shape]
    whole = all(boxes[0][k] == own[k] for k in range(len(shape)) if k != axis % len(shape))
    return True, whole and (not shape or sum(b - a for a, b in ranges) == shape[axis])


def _box(index: tuple[Part, ...], shape: tuple[int, ...]) -> Box | None:
    """What an index takes of each axis; ``None`` for new axes and steps."""
    parts = list(index)
    at = parts.index(...) if ... in parts else len(parts)
    parts[at : at + 1] = [ALL] * (len(shape) - len(parts) + (at < len(parts)))
    box = []
    for part, n in zip(parts, shape):
        if part is None:
            return None
        taken = range(n)[slice(*part) if isinstance(part, tuple) else slice(part, part + 1 or None)]
        if taken.step != 1 and len(taken) > 1:
            return None
        first = taken.start if taken else 0
        box.append((first, first + len(taken)))
    return tuple(box)


_FROM_PARTS = Primitive(
    "from_parts",
    _from_parts_value,
    {"*parts": lambda g, indices, index: sliced(g, indices[index])},
    half_in_float32=True,
    complex=True,
)


class RecordedPart(GradientPart):
    """A part at a basic index, a tensor: what is added is recorded."""

    __slots__ = ()
    # Fewer parts, and those of arrays of fewer elements, are added up as whole arrays: in programs
    # all that happens to these becomes one loop.
    many = 8
    large = 1 << 12

    def whole(self) -> Any:
        """See ``GradientPart``."""
        return _unslice(self.array, self.index, self.shape)

    @staticmethod
    def fill(parts: Sequence[RecordedPart]) -> bool:
        """Whether it is seen that there is one part for each element: none need be added."""
        return _coverage([p.index for p in parts], parts[0].shape)[1]

    @staticmethod
    def together(parts: Sequence[RecordedPart]) -> Any:
        """The sum of parts of this class, of one shape, by one operation."""
        attrs = {"indices": tuple([p.index for p in parts]), "shape": parts[0].shape}
        return apply(_FROM_PARTS, [p.array for p in parts], attrs)


def sum_of_recorded(items: Sequence[Any]) -> Any:
    """The sum of whole gradients and of parts that are recorded, of one value.

    Where there are many parts of a kind, one operation adds them, after all others in order.
    """
    kinds: dict[type[RecordedPart], list[RecordedPart]] = {}
    for item in items:
        if isinstance(item, RecordedPart):
            kinds.setdefault(type(item), []).append(item)
    at_once = [
        kind
        for kind, parts in kinds.items()
        if (len(parts) >= kind.many and math.prod(parts[0].shape) >= kind.large)
        or (len(parts) > 1 and kind.fill(parts))
    ]
    found: Any = None
    for item in items:
        if type(item) not in at_once:
            whole = item.whole() if isinstance(item, RecordedPart) else item
            found = whole if found is None else found + whole
    for kind in at_once:
        whole = kind.together(kinds[kind])
        found = whole if found is None else found + whole
    return found


def _slice_part(g: Any, index: tuple[Part, ...], x_shape: tuple[int, ...]) -> GradientPart:
    if hasattr(g, "node"):
        return RecordedPart(g, index, x_shape)
    return GradientPart(g, decoded(index), x_shape)


def sliced(x: Any, index: tuple[Part, ...]) -> Any:
    """The view of ``x`` at a basic index. Ending in an Ellipsis it is a view even if 0-d."""
    return slice_of(x, {"index": index})


def _unslice(g: Any, index: tuple[Part, ...], shape: tuple[int, ...]) -> Any:
    """Zeros of ``shape`` with ``g`` at a basic index."""
    return apply(_UNSLICE, (g,), {"index": index, "shape": shape})


def along(axis: int, part: Part) -> tuple[Part, ...]:
    """The index that is ``part`` on ``axis`` and everything elsewhere."""
    return (*[ALL] * axis, part, ...)


@operation(
    cases=[
        lambda s: s(s.real(3, 4)),
        lambda s: s(s.real(3, 4), axis=-1),
        lambda s: s(s.real(2, 3, 4), axis=(0, 2)),
        lambda s: s(s.real(0, 4), axis=0),
        lambda s: s(s.real()),
    ],
    torch=None,
    primitive=_SLICE,
    numpy="m axis=",
)
def flip(x: Any, /, axis: Axis = None) -> Tensor:
    """``x`` with the order along ``axis`` (all axes if ``None``) reversed; a view."""
    axes = normalize_axes("flip", axis, x)
    n = len(shape_of(x))
    return sliced(x, (*[(None, None, -1) if i in axes else ALL for i in range(n)], ...))


@operation(
    cases=[
        lambda s: s(s.real(6, 2), 3),
        lambda s: s(s.real(2, 6), [1, 4], axis=1),
        lambda s: s(s.real(2, 6), 2, axis=-1),
        lambda s: s(s.real(5), [2, 9]),
    ],
    reference="split",
    torch=None,
    primitive=_SLICE,
)
def split(x: Any, /, indices_or_sections: int | Sequence[int], axis: int = 0) -> tuple[Tensor, ...]:
    """``x`` cut along ``axis``: into equal parts, or before each of the given indices; views.

    Raises ShapeError if the axis cannot be cut into so many equal parts.
    """
    place = normalize_axis("split", axis, x)
    n = shape_of(x)[place]
    if isinstance(indices_or_sections, int):
        parts = indices_or_sections
        if parts < 1 or n % parts:
            raise ShapeError(
                f"split: axis {place} of shape {shape_of(x)} has size {n}, which cannot be cut "
                f"into {parts} equal parts; give a list of indices at which to cut"
            )
        ends = [n // parts * i for i in range(1, parts)]
    else:
        ends = [as_int(i) for i in indices_or_sections]
    bounds: list[int | None] = [0, *ends, None]
    return tuple(sliced(x, along(place, (start, stop, None))) for start, stop in pairwise(bounds))


@operation(
    cases=[lambda s: s(s.real(3, 2)), lambda s: s(s.real(2, 3), axis=-1), lambda s: s(s.real(2))],
    reference=lambda x, axis=0: tuple(np.moveaxis(x, axis, 0)),
    torch="unbind",
    primitive=_SLICE,
    numpy="x axis=",
)
def unstack(x: Any, /, axis: int = 0) -> tuple[Tensor, ...]:
    """The slices of ``x`` along ``axis``, without that axis; views."""
    place = normalize_axis("unstack", axis, x)
    return tuple(sliced(x, along(place, i)) for i in range(shape_of(x)[place]))


unbind = unstack


# --- joining ------------------------------------------------------------------------------------


def _concat_value(xp: Any, *xs: Any, axis: int, bounds: tuple[int, ...]) -> Any:
    return xp.concatenate(xs, axis)


_CONCAT: Primitive = Primitive(
    "concat",
    _concat_value,
    {
        "*xs": lambda g, axis, bounds, index: sliced(
            g, along(axis, (bounds[index], bounds[index + 1], None))
        )
    },
    promotion="same",
    explain=lambda *shapes, axis, bounds: (
        f"the tensors must have equal sizes along every axis but axis {axis}, the one they are "
        "joined along"
    ),
    moves=True,
)
_STACK: Primitive = Primitive(
    "stack",
    lambda xp, *xs, axis: xp.stack(xs, axis),
    {"*xs": lambda g, axis, index: sliced(g, along(axis, index))},
    promotion="same",
    explain=lambda *shapes, axis: (
        "the tensors must have the same shape; concat joins tensors whose sizes differ along one "
        "axis"
    ),
    moves=True,
)


def _sequence(name: str, arrays: Any) -> Sequence[Any]:
    found = tuple(arrays)
    if not found:
        raise ShapeError(f"{name}: at least one tensor is needed; got none")
    return found


@operation(
    cases=[
        lambda s: s([s.real(2, 3), s.real(4, 3)]),
        lambda s: s([s.real(2, 3), s.real(2, 1), s.real(2, 0)], axis=-1),
        lambda s: s([s.real(2, 3), s.real(2)], axis=None),
        lambda s: s([s.real(2)]),
    ],
    reference="concatenate",
    torch=None,
    method=False,
    primitive=_CONCAT,
    numpy="arrays axis= !out !dtype !casting=same_kind",
)
def concat(arrays: Sequence[Any], /, axis: int | None = 0) -> Tensor:
    """The ``arrays`` joined along ``axis``; flattened first if ``None``. Dtypes promote.

    Raises ShapeError unless all other sizes agree.
    """
    xs = _sequence("concat", arrays)
    if axis is None:
        xs = [reshape(x, (-1,)) for x in xs]
        axis = 0
    place = normalize_axis("concat", axis, xs[0])
    bounds = [0]
    for x in xs:
        shape = shape_of(x)
        bounds.append(bounds[-1] + (shape[place] if place < len(shape) else 0))
    return apply(_CONCAT, xs, {"axis": place, "bounds": tuple(bounds)})


cat = concat
concatenate = concat


@operation(
    cases=[
        lambda s: s([s.real(2, 3), s.real(2, 3)]),
        lambda s: s([s.real(2, 3), s.real(2, 3), s.real(2, 3)], axis=-1),
        lambda s: s([s.real(), s.real()]),
        lambda s: s([s.real(0, 2)], axis=1),
    ],
    method=False,
    primitive=_STACK,
    numpy="arrays axis= !out !dtype !casting=same_kind",
)
def stack(arrays: Sequence[Any], /, axis: int = 0) -> Tensor:
    """The ``arrays``, all of one shape, joined along a new ``axis`` of the result."""
    xs = _sequence("stack", arrays)
    place = normalize_axis("stack", axis, xs[0], len(shape_of(xs[0])) + 1)
    return apply(_STACK, xs, {"axis": place})


@operation(
    cases=[
        lambda s: s(s.real(3, 4), 1),
        lambda s: s(s.real(3, 4), -5, axis=1),
        lambda s: s(s.real(3, 4), (1, 2), axis=(0, -1)),
        lambda s: s(s.real(0, 3), 1, axis=0),
        lambda s: s(s.real(4), 4),
    ],
    torch=None,
    primitive=_CONCAT,
    numpy="a shift axis=",
)
def roll(x: Any, /, shift: int | Sequence[int], axis: Axis = None) -> Tensor:
    """``x`` moved by ``shift`` places along ``axis``; what leaves one end enters at the other.

    shift, axis: integers, or tuples of them for several axes. ``None`` rolls the flattened ``x``.
    """
    if axis is None:
        return reshape(roll(reshape(x, (-1,)), shift, axis=0), shape_of(x))
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    shifts = (shift,) * len(axes) if isinstance(shift, int) else tuple(shift)
    if len(axes) != len(shifts):
        raise ShapeError(
            f"roll: shift and axis must name equally many; got shift={shifts} and axis={axes}"
        )
    for a, by in zip(axes, shifts, strict=True):
        place = normalize_axis("roll", a, x)
        n = shape_of(x)[place]
        cut = (-by) % n if n else 0
        head = sliced(x, along(place, (None, cut, None)))
        x = concat([sliced(x, along(place, (cut, None, None))), head], axis=place)
    return x
