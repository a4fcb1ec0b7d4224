"""More and fewer elements: padding, repetition, triangles and diagonals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorgrad.backend.namespace import Namespace
from tensorgrad.errors import ShapeError
from tensorgrad.ops.indexing import getitem, take
from tensorgrad.ops.shaping import (
    broadcast_to,
    expand_dims,
    moveaxis,
    normalize_axis,
    reshape,
    shape_of,
    sliced,
)
from tensorgrad.ops.table import operation
from tensorgrad.tape import Primitive, apply

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = ["diag", "diagonal", "pad", "repeat", "repeat_interleave", "tile", "tril", "triu"]


def _pad_value(
    xp: Any, x: Any, pad_width: tuple[tuple[int, int], ...], constants: tuple[Any, ...]
) -> Any:
    order = xp.order_of(x) if isinstance(xp, Namespace) else None
    if order is not None:  # the result lies as its inside does
        widths = tuple([pad_width[k] for k in order])
        constants = tuple([constants[k] for k in order]) if constants else constants
        return xp.put_back(_pad_value(xp, x.transpose(order), widths, constants), order)
    shape = tuple([n + low + high for n, (low, high) in zip(x.shape, pad_width, strict=True)])
    first = constants[0][0] if constants else 0
    y = xp.full(shape, first, x.dtype)
    if any(c != first for pair in constants for c in pair):
        for axis, ((low, high), (a, b)) in enumerate(zip(pad_width, constants, strict=True)):
            y[(slice(None),) * axis + (slice(None, low),)] = a
            y[(slice(None),) * axis + (slice(shape[axis] - high, None),)] = b
    inside = [slice(low, low + n) for n, (low, _) in zip(x.shape, pad_width, strict=True)]
    y[tuple(inside)] = x
    return y


_PAD: Primitive = Primitive(
    "pad",
    _pad_value,
    {
        "x": lambda g, x_shape, pad_width: sliced(
            g,
            tuple((low, low + n, None) for n, (low, _) in zip(x_shape, pad_width, strict=True)),
        )
    },
    moves=True,
)
_PAD_MODES = (
    "constant", "edge", "empty", "linear_ramp", "maximum", "mean", "median", "minimum", "reflect",
    "symmetric", "wrap",
)  # fmt: skip
#: What computes numbers: ``padding_modes``, which needs what needs this module, puts it here.
FURTHER: dict[str, Callable[..., Any]] = {}


@operation(
    cases=[
        lambda s: s(s.real(3, 4), 1),
        lambda s: s(s.real(3, 4), (2, 1), constant_values=1.5),
        lambda s: s(s.real(3, 4), ((0, 2), (1, 0)), mode="reflect"),
        lambda s: s(s.real(3, 4), ((0, 0), (5, 6)), mode="reflect"),
        lambda s: s(s.real(3), 2, mode="edge"),
        lambda s: s(s.real(3), (4, 1), mode="wrap"),
        lambda s: s(s.real(3, 2), 1, mode="symmetric"),
        lambda s: s(s.real(0, 2), 1),
        lambda s: s(s.real(2, 2), 1, constant_values=((1, 2), (3, 4))),
    ],
    torch=None,
    primitive=_PAD,
)
def pad(
    x: Any, /, pad_width: Any, mode: str = "constant", *, constant_values: Any = 0,
    end_values: Any = 0, stat_length: Any = None, reflect_type: str = "even",
) -> Tensor:  # fmt: skip
    """``x`` with elements added before and after it along each axis, as by NumPy's ``pad``.

    pad_width: how many: one number for all sides, ``(before, after)`` for all axes, or one such
        pair for each axis.
    mode: "constant" adds ``constant_values`` (given like ``pad_width``); "edge" the outermost
        elements; "reflect" mirrors at the outermost element, "symmetric" beyond it, and
        ``reflect_type`` "odd" turns the mirror image upside down; "wrap" goes on at the other end;
        "linear_ramp" goes to ``end_values``; "maximum", "mean", "median" and "minimum" are those of
        the outermost ``stat_length`` elements, or of all; "empty" means zeros.

    Raises ValueError for an unknown mode, a negative width, or an empty axis to be mirrored.
    """
    shape = shape_of(x)
    if mode not in _PAD_MODES:
        raise ValueError(f"pad: mode must be one of {', '.join(_PAD_MODES)}; got {mode!r}")
    widths = _pairs("pad_width", pad_width, shape, int)
    if any(w < 0 for pair in widths for w in pair):
        raise ValueError(f"pad: pad_width must not be negative; got {pad_width}")
    if mode in ("constant", "empty"):
        constants = _pairs("constant_values", constant_values, shape, None)
        return apply(_PAD, (x,), {"pad_width": widths, "constants": constants})
    if mode not in ("edge", "reflect", "symmetric", "wrap"):
        given = end_values if mode == "linear_ramp" else stat_length
        options = _pairs("stat_length", given, shape, None) if given is not None else None
        return FURTHER["computed"](x, mode, widths, options or [(None, None)] * len(shape))
    if reflect_type not in ("even", "odd"):
        raise ValueError(f'pad: reflect_type must be "even" or "odd"; got {reflect_type!r}')
    for axis, pair in enumerate(widths):
        if pair != (0, 0):
            if not shape[axis]:
                raise ShapeError(
                    f"pad: axis {axis} of shape {shape} is empty, so mode {mode!r} has nothing to "
                    'repeat; mode "constant" needs nothing'
                )
            if mode in ("reflect", "symmetric") and reflect_type != "even":
                x = FURTHER["odd"](x, mode, axis, pair)
                continue
            x = take(x, np.pad(np.arange(shape[axis]), pair, mode=mode), axis)  # type: ignore[call-overload]
    return x


def _pairs(name: str, given: Any, shape: tuple[int, ...], kind: Any) -> tuple[tuple[Any, Any], ...]:
    """``given`` as a pair of numbers for each axis."""
    try:
        found = np.broadcast_to(np.asarray(given, kind), (len(shape), 2))
    except ValueError:
        raise ValueError(
            f"pad: {name} must be a number, a pair, or a pair for each axis of shape {shape}; got "
            f"{given}"
        ) from None
    return tuple((a, b) for a, b in found.tolist())


@operation(
    cases=[
        lambda s: s(s.real(3, 4), 2),
        lambda s: s(s.real(3, 4), 3, axis=-1),
        lambda s: s(s.real(3, 4), np.array([2, 0, 1]), axis=0),
        lambda s: s(s.real(), 3),
        lambda s: s(s.real(2, 0), 2, axis=0),
    ],
    torch=None,
    numpy="a repeats axis=",
    complex=True,
)
def repeat(x: Any, repeats: Any, /, axis: int | None = None) -> Tensor:
    """Each element of ``x`` repeated along ``axis``; of the flattened ``x`` if ``None``.

    repeats: how often: one number, or one for each element along the axis.
    """
    if axis is None:
        x, axis = reshape(x, (-1,)), 0
    place = normalize_axis("repeat", axis, x)
    shape = shape_of(x)
    counts = np.asarray(repeats.tolist() if hasattr(repeats, "node") else repeats)
    if not counts.size:
        counts = counts.astype(np.int64)
    if counts.dtype.kind not in "iu" or (counts < 0).any():
        raise ValueError(f"repeat: repeats must be integers from 0; got {repeats}")
    if counts.size == 1:
        n = int(counts.reshape(()))
        wide = broadcast_to(
            expand_dims(x, place + 1), (*shape[: place + 1], n, *shape[place + 1 :])
        )
        return reshape(wide, (*shape[:place], shape[place] * n, *shape[place + 1 :]))
    if counts.shape != (shape[place],):
        raise ShapeError(
            f"repeat: repeats must be one number or {shape[place]}, one for each element along "
            f"axis {place} of shape {shape}; got shape {counts.shape}"
        )
    return take(x, np.repeat(np.arange(shape[place]), counts), place)


repeat_interleave = repeat


@operation(
    cases=[
        lambda s: s(s.real(3, 4), (2, 3)),
        lambda s: s(s.real(3), (2, 2)),
        lambda s: s(s.real(2, 3), (2,)),
        lambda s: s(s.real(2, 3), (1, 0)),
        lambda s: s(s.real(), (2,)),
    ],
    numpy="A reps",
    complex=True,
)
def tile(x: Any, repetitions: int | Sequence[int], /) -> Tensor:
    """Copies of ``x`` laid side by side, ``repetitions[i]`` of them along axis i."""
    times = (repetitions,) if isinstance(repetitions, int) else tuple(repetitions)
    if any(t < 0 for t in times):
        raise ValueError(f"tile: repetitions must be integers from 0; got {times}")
    shape = shape_of(x)
    n = max(len(times), len(shape))
    times = (1,) * (n - len(times)) + times
    shape = (1,) * (n - len(shape)) + shape
    apart = tuple(size for m in shape for size in (1, m))
    joined = tuple(size for pair in zip(times, shape, strict=True) for size in pair)
    copies = broadcast_to(reshape(x, apart), joined)
    return reshape(copies, tuple(t * m for t, m in zip(times, shape, strict=True)))


# --- triangles and diagonals ----------------------------------------------------------------------

_TRIL: Primitive = Primitive(
    "tril",
    # CuPy's gives float32 of bfloat16
    lambda xp, x, k: xp.tril(x, k).astype(x.dtype, copy=False),
    {"x": lambda g, k: apply(_TRIL, (g,), {"k": k})},
    moves=True,
)
_TRIU: Primitive = Primitive(
    "triu",
    lambda xp, x, k: xp.triu(x, k).astype(x.dtype, copy=False),
    {"x": lambda g, k: apply(_TRIU, (g,), {"k": k})},
    moves=True,
)
_MATRICES = [
    lambda s: s(s.real(3, 4)),
    lambda s: s(s.real(2, 3, 3), k=1),
    lambda s: s(s.real(4, 3), k=-1),
    lambda s: s(s.real(0, 3)),
]


def _check_matrix(name: str, x: Any) -> None:
    if len(shape_of(x)) < 2:
        raise ShapeError(f"{name}: at least two axes are needed; got shape {shape_of(x)}")


@operation(cases=_MATRICES, torch=None, primitive=_TRIL, numpy="m k=")
def tril(x: Any, /, k: int = 0) -> Tensor:
    """The lower triangle of a matrix or of a stack of them: zeros above diagonal ``k``."""
    _check_matrix("tril", x)
    return apply(_TRIL, (x,), {"k": k})


@operation(cases=_MATRICES, torch=None, primitive=_TRIU, numpy="m k=")
def triu(x: Any, /, k: int = 0) -> Tensor:
    """The upper triangle of a matrix or of a stack of them: zeros below diagonal ``k``."""
    _check_matrix("triu", x)
    return apply(_TRIU, (x,), {"k": k})


@operation(
    cases=[
        lambda s: s(s.real(3, 4)),
        lambda s: s(s.real(3, 4), 1),
        lambda s: s(s.real(3, 4), -2),
        lambda s: s(s.real(2, 3, 4), 0, -2, -1),
        lambda s: s(s.real(3, 4), 7),
    ],
    numpy="a offset= axis1= axis2=",
    complex=True,
)
def diagonal(x: Any, /, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Tensor:
    """The elements ``x[i, i + offset]`` of the matrices that lie in ``axis1`` and ``axis2``.

    The diagonal becomes the last axis; it is a copy.
    """
    _check_matrix("diagonal", x)
    row, column = normalize_axis("diagonal", axis1, x), normalize_axis("diagonal", axis2, x)
    if row == column:
        raise ShapeError(f"diagonal: axis1 and axis2 must differ; both are axis {row}")
    last = moveaxis(x, (row, column), (-2, -1))
    n, m = shape_of(last)[-2:]
    i = np.arange(max(0, -offset), max(0, -offset, min(n, m - offset)))
    return getitem(last, (..., i, i + offset))


@operation(
    cases=[
        lambda s: s(s.real(3)),
        lambda s: s(s.real(3), k=-1),
        lambda s: s(s.real(3, 4), k=1),
        lambda s: s(s.real(0)),
    ],
    torch=None,
    numpy="v k=",
    complex=True,
)
def diag(x: Any, /, k: int = 0) -> Tensor:
    """A vector as diagonal ``k`` of a square matrix of zeros; of a matrix, its diagonal ``k``."""
    shape = shape_of(x)
    if len(shape) == 2:
        return diagonal(x, k)
    if len(shape) != 1:
        raise ShapeError(f"diag: a vector or a matrix is needed; got shape {shape}")
    # The matrix is the vector with zeros after each row, in row-major order.
    n = shape[0] + abs(k)
    rows = pad(reshape(x, (-1, 1)), ((0, 0), (0, n))) if shape[0] else x
    flat = reshape(rows, (-1,))
    before = k if k > 0 else -k * n
    whole = pad(flat, ((before, n * n + n),))
    return reshape(sliced(whole, ((None, n * n, None),)), (n, n))
