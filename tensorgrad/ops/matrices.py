"""What matrix functions share: checks, adjoints, results in one array, and numbers that vanish.

A primitive has one output, so factorizations give their factors one behind the other in the last
axis of one array (``packed``), of which the functions take their parts (``unpacked``).

Gradients are linear transposes: of ``y = f(x)`` with ``dy = J dx`` the rule is ``J.T g``. Where a
derivation is easier with adjoints, the rule conjugates what comes in and what goes out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tensorgrad import backend, dtypes
from tensorgrad.backend.namespace import Namespace
from tensorgrad.errors import ShapeError
from tensorgrad.ops.complex_parts import conj, is_complex
from tensorgrad.ops.elementwise import abs, less_equal, where
from tensorgrad.ops.indexing import beside
from tensorgrad.ops.linear_algebra import matmul
from tensorgrad.ops.reductions import max
from tensorgrad.ops.shaping import (
    along,
    broadcast_to,
    concat,
    expand_dims,
    matrix_transpose,
    reshape,
    shape_of,
    sliced,
)
from tensorgrad.tape import Primitive, apply, cast, real_part

#: Two eigenvalues or singular values are taken for one where they differ by at most this many
#: rounding errors of the largest: what LAPACK computes is no more exact.
COINCIDING = 4.0
#: A sum of products is taken for 0 where it is at most this many rounding errors of its terms.
VANISHING = 1e3


def factorization(name: str, value: Any, rules: Any, **options: Any) -> Primitive:
    """A primitive for real and complex numbers; 16-bit ones are computed in float32, also inside
    ``autocast``."""
    return Primitive(
        name,
        value,
        rules,
        promotion="float",
        half_in_float32=True,
        fresh=True,
        **{"autocast": "float32", "complex": True, **options},
    )


def raising(xp: Any, x: Any) -> Any:
    """A context in which LinAlgError is raised where matrices have no result, on a GPU too."""
    left_to_lapack(xp)
    return backend.of(x).raising()


def left_to_lapack(xp: Any) -> None:
    """Say in programs that what follows is a call."""
    if isinstance(xp, Namespace):
        xp.refuse("functions of whole matrices are left to LAPACK and cuSOLVER")


# --- shapes -------------------------------------------------------------------------------------


def matrix_shape(name: str, x: Any, square: bool = False) -> tuple[int, ...]:
    """The shape of a matrix or of a stack of them.

    Raises ShapeError for vectors and numbers and, if they have to be ``square``, for others.
    """
    shape = shape_of(x)
    if len(shape) < 2:
        raise ShapeError(f"{name}: a matrix or a stack of them is needed; got shape {shape}")
    if square and shape[-1] != shape[-2]:
        raise ShapeError(f"{name}: the last two axes must have one size; got shape {shape}")
    return shape


def batch_of(name: str, *shapes: Sequence[int]) -> tuple[int, ...]:
    """The common shape of what stands before the last two axes."""
    try:
        return np.broadcast_shapes(*(tuple(shape[:-2]) for shape in shapes))
    except ValueError:
        got = " and ".join(str(tuple(shape)) for shape in shapes)
        raise ShapeError(
            f"{name}: the axes before the last two must broadcast; got {got}"
        ) from None


# --- several results in one array -----------------------------------------------------------------


def packed(xp: Any, *parts: Any) -> Any:
    """The elements of the last two axes of all ``parts`` one behind the other; of vectors one."""
    batch = parts[-1].shape[:-2]
    size = math.prod(batch)  # -1 would be ambiguous of nothing
    flat = [p.reshape(size, math.prod(p.shape[len(batch) :])) for p in parts]
    dtype = xp.result_type(*flat)
    found = xp.concatenate([p.astype(dtype, copy=False) for p in flat], axis=1)
    return found.reshape(*batch, found.shape[1])


def unpacked(y: Any, *shapes: tuple[int, ...]) -> list[Any]:
    """The parts of what ``packed`` gave, whose last axes have these ``shapes``."""
    batch = tuple(y.shape[:-1])
    found, start = [], 0
    for shape in shapes:
        stop = start + math.prod(shape)
        part = sliced(y, along(len(batch), slice_of(start, stop)))
        found.append(part if len(shape) == 1 else reshape(part, (*batch, *shape)))
        start = stop
    return found


# Whether vectors were used is not to be seen from the numbers of their gradient: they may cancel.
_NOTED = Primitive(
    "noted",
    lambda xp, y: xp.positive(y),
    {"y": lambda g: concat([columns(g, None, -1), columns(g, -1, None) * 0.0 + 1.0], axis=-1)},
    fresh=True,
    elementwise=True,
    moves=True,
)


def noted(y: Any) -> Any:
    """What ``packed_with_note`` gave; a gradient that comes this way leaves a 1 in the last place,
    whatever its numbers are."""
    return apply(_NOTED, (y,))


def packed_with_note(xp: Any, *parts: Any) -> Any:
    """``packed``, with a further element, 0, in the last place; see ``noted``."""
    return packed(xp, *parts, xp.zeros((*parts[-1].shape[:-2], 1, 1), parts[-1].dtype))


def reached_in_vain(g: Any, *parts: Any) -> Any:
    """Of the gradient ``g`` of what was packed with a note, 1 for each matrix if it came by way of
    ``noted``, though all numbers in its ``parts`` are 0; else 0."""
    if not math.prod(g.shape):
        return 0.0
    note = real_part(columns(g, -1, None))
    for part in parts:
        whole = reshape(largest(part, tuple(range(len(part.shape)))), (1,) * len(note.shape))
        note = where(less_equal(whole, 0.0), note, 0.0)
    return note


def slice_of(start: int | None, stop: int | None) -> tuple[int | None, int | None, None]:
    """The part of an index that a slice is."""
    return (start, stop, None)


def rows(x: Any, start: int | None, stop: int | None) -> Any:
    """Rows ``start`` to ``stop`` of each matrix."""
    return sliced(x, along(len(x.shape) - 2, slice_of(start, stop)))


def columns(x: Any, start: int | None, stop: int | None) -> Any:
    """Columns ``start`` to ``stop`` of each matrix."""
    return sliced(x, along(len(x.shape) - 1, slice_of(start, stop)))


# --- parts of rules -------------------------------------------------------------------------------


def conjugated(x: Any) -> Any:
    """``x`` with the opposite imaginary part; real numbers as they are."""
    return conj(x) if is_complex(x) else x


def adjoint(x: Any) -> Any:
    """The conjugated transpose of each matrix."""
    return conjugated(matrix_transpose(x))


def skew(x: Any) -> Any:
    """The skew-Hermitian part of each matrix."""
    return (x - adjoint(x)) * 0.5


def scaled(x: Any, by: Any) -> Any:
    """Each matrix with its columns multiplied by the numbers of a vector."""
    return x * expand_dims(by, -2)


def product(*factors: Any) -> Any:
    """The matrix product, from the left."""
    found = factors[0]
    for factor in factors[1:]:
        found = matmul(found, factor)
    return found


def identity(like: Any, n: int) -> Any:
    """The identity matrix of size ``n``, of the dtype and the device of ``like``."""
    return beside(like, np.eye(n, dtype=like.dtype))


def on_diagonal(like: Any, n: int) -> Any:
    """Where the diagonal of a matrix of size ``n`` is, on the device of ``like``."""
    return beside(like, np.eye(n, dtype=np.bool_))


def roundoff(x: Any) -> float:
    """The distance from 1 to the next number of the dtype of ``x``."""
    dtype = x.dtype if x.dtype not in dtypes.HALVES else dtypes.float32
    return float(np.finfo(dtype).eps)


def largest(x: Any, axis: int | tuple[int, ...]) -> Any:
    """The largest absolute value along an axis, which stays."""
    return max(abs(x), axis=axis, keepdims=True)


def nan_where(condition: Any, x: Any) -> Any:
    """``x``, but NaN where the ``condition`` holds, and so in all that is derived from it."""
    return x * either(condition, math.nan, 1.0, x)


def either(condition: Any, one: float, other: float, like: Any) -> Any:
    """One number where the ``condition`` holds, else the other, as precise as ``like``."""
    return cast(where(condition, one, other), dtypes.real_of(like.dtype))


def in_batch(x: Any, batch: tuple[int, ...]) -> Any:
    """Matrices repeated to the shape ``batch`` of a stack."""
    shape = tuple(x.shape)
    return x if shape[:-2] == batch else broadcast_to(x, (*batch, *shape[-2:]))
