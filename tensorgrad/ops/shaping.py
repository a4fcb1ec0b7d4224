"""Shapes: rearranging, joining and repeating without changing values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import index as as_int
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorgrad import tape
from tensorgrad.errors import ShapeError
from tensorgrad.ops.table import operation
from tensorgrad.tape import Primitive, apply

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

Axis = int | Sequence[int] | None


def shape_of(x: Any) -> tuple[int, ...]:
    """The shape of a tensor, array, scalar or nested sequence."""
    shape = getattr(x, "shape", None)
    return np.shape(x) if shape is None else shape


def normalize_axis(name: str, axis: Any, x: Any, ndim: int | None = None) -> int:
    """``axis`` as a number from 0. Raises ShapeError, naming the operation, if there is none."""
    n = len(shape_of(x)) if ndim is None else ndim
    number = as_int(axis)
    if -n <= number < n:
        return number % n
    limits = f"between {-n} and {n - 1}" if n else "absent: the tensor has no axes"
    raise ShapeError(f"{name}: axis must be {limits}; got axis={number} for shape {shape_of(x)}")


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


_RESHAPE = Primitive(
    "reshape",
    lambda xp, x, shape: x.reshape(shape),
    {"x": lambda g, x_shape: reshape(g, x_shape)},
    explain=lambda got, shape: (
        f"{got} has {math.prod(got)} elements, which do not fill shape {tuple(shape)}"
    ),
)


@operation(
    cases=[
        lambda s: s(s.real(3, 4), (2, 6)),
        lambda s: s(s.real(3, 4), (-1,)),
        lambda s: s(s.real(), (1, 1)),
        lambda s: s(s.real(0, 4), (4, 0)),
    ],
    primitive=_RESHAPE,
)
def reshape(x: Any, /, shape: int | Sequence[int]) -> Tensor:
    """The same elements, in row-major order, with another ``shape``; one size may be -1.

    Shares memory where the layout allows. Raises ShapeError if the number of elements differs.
    """
    return apply(_RESHAPE, (x,), {"shape": tuple(shape) if isinstance(shape, Sequence) else shape})


_PERMUTE = Primitive(
    "permute_dims",
    lambda xp, x, axes: x.transpose(axes),
    {"x": lambda g, axes: permute_dims(g, tuple(sorted(range(len(axes)), key=axes.__getitem__)))},
)


@operation(
    cases=[lambda s: s(s.real(2, 3, 4), (2, 0, 1)), lambda s: s(s.real(3, 4), (1, 0))],
    reference="transpose",
    torch="permute",
    primitive=_PERMUTE,
)
def permute_dims(x: Any, /, axes: Sequence[int]) -> Tensor:
    """``x`` with its axes in the order ``axes``, a permutation of all of them; a view."""
    order = normalize_axes("permute_dims", tuple(axes), x)
    if len(order) != len(shape_of(x)):
        raise ShapeError(
            f"permute_dims: axes must name every axis once; got axes={tuple(axes)} for shape "
            f"{shape_of(x)}"
        )
    return apply(_PERMUTE, (x,), {"axes": order})
