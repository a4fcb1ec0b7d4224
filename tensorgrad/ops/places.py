"""Places in arrays: index arrays of triangles, diagonals and grids, in NumPy's form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorgrad import dtypes
from tensorgrad.errors import ShapeError
from tensorgrad.ops.choosing import in_range
from tensorgrad.ops.creation import asarray
from tensorgrad.ops.indexing import beside, nonzero
from tensorgrad.ops.numpy_forms import as_array, plain
from tensorgrad.ops.padding import diag
from tensorgrad.ops.shaping import atleast_1d, reshape, shape_of, sliced, stack

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = [
    "argwhere", "diag_indices", "diag_indices_from", "diagflat", "flatnonzero", "indices", "ix_",
    "mask_indices", "ravel_multi_index", "tri", "tril_indices", "tril_indices_from", "triu_indices",
    "triu_indices_from", "unravel_index",
]  # fmt: skip


def _all(arrays: Sequence[Any], of: Any = None) -> tuple[Tensor, ...]:
    made = [np.ascontiguousarray(a, np.int64) for a in arrays]
    return tuple(asarray(a) if of is None else beside(of, a) for a in made)


def argwhere(a: Any) -> Tensor:
    """Where ``a`` is not zero: a row of positions for each such element."""
    a = as_array(a)
    if not len(shape_of(a)):
        return sliced(stack(list(nonzero(atleast_1d(a))), axis=1), (..., (None, 0, None)))
    return stack(list(nonzero(a)), axis=1)


def flatnonzero(a: Any) -> Tensor:
    """Where the flattened ``a`` is not zero."""
    return nonzero(reshape(as_array(a), (-1,)))[0]


def diagflat(v: Any, k: int = 0) -> Tensor:
    """The flattened ``v`` as diagonal ``k`` of a square matrix of zeros."""
    return diag(reshape(as_array(v), (-1,)), k)


def diag_indices(n: int, ndim: int = 2) -> tuple[Tensor, ...]:
    """The places of the diagonal of an array with ``ndim`` axes of size ``n``."""
    return _all(np.diag_indices(n, ndim))


def diag_indices_from(arr: Any) -> tuple[Tensor, ...]:
    """``diag_indices`` for an array with two or more equal axes."""
    shape = shape_of(arr)
    if len(shape) < 2 or len(set(shape)) != 1:
        raise ValueError(f"diag_indices_from: equal axes are needed, two at least; got {shape}")
    return _all(np.diag_indices(shape[0], len(shape)), arr)


def tri(N: int, M: int | None = None, k: int = 0, dtype: Any = None) -> Tensor:
    """A matrix with ones at and below diagonal ``k``, and zeros above it."""
    wanted = dtypes.get_default_dtype() if dtype is None else dtypes.as_dtype(dtype)
    return asarray(np.tri(N, M, k).astype(wanted))


def tril_indices(n: int, k: int = 0, m: int | None = None) -> tuple[Tensor, ...]:
    """The places of the lower triangle of a matrix (n, m), up to diagonal ``k``."""
    return _all(np.tril_indices(n, k, m))


def triu_indices(n: int, k: int = 0, m: int | None = None) -> tuple[Tensor, ...]:
    """The places of the upper triangle of a matrix (n, m), from diagonal ``k`` on."""
    return _all(np.triu_indices(n, k, m))


def _matrix(name: str, arr: Any) -> tuple[int, int]:
    shape = shape_of(arr)
    if len(shape) != 2:
        raise ValueError(f"{name}: a matrix is needed; got shape {shape}")
    return shape[0], shape[1]


def tril_indices_from(arr: Any, k: int = 0) -> tuple[Tensor, ...]:
    """``tril_indices`` for a matrix."""
    n, m = _matrix("tril_indices_from", arr)
    return _all(np.tril_indices(n, k, m), arr)


def triu_indices_from(arr: Any, k: int = 0) -> tuple[Tensor, ...]:
    """``triu_indices`` for a matrix."""
    n, m = _matrix("triu_indices_from", arr)
    return _all(np.triu_indices(n, k, m), arr)


def mask_indices(n: int, mask_func: Callable[..., Any], k: Any = 0) -> tuple[Tensor, ...]:
    """The places where ``mask_func(ones, k)`` of a matrix (n, n) of ones is not zero."""
    return nonzero(mask_func(asarray(np.ones((n, n), np.int64)), k))


def indices(dimensions: Sequence[int], dtype: Any = np.int64, sparse: bool = False) -> Any:
    """The coordinates of the elements of an array: (d, \\*dimensions), or d arrays to broadcast."""
    made: Callable[..., Any] = np.indices
    found = made(tuple(dimensions), dtypes.as_dtype(dtype), sparse)
    return tuple(asarray(a) for a in found) if sparse else asarray(found)


def ix_(*args: Any) -> tuple[Tensor, ...]:
    """Vectors as index arrays of a grid, each along an axis of its own.

    Truth values stand for the places where they are true.
    """
    found = []
    for i, x in enumerate(args):
        x = as_array(x)
        if len(shape_of(x)) != 1:
            raise ShapeError(f"ix_: vectors are needed; got shape {shape_of(x)}")
        if x.dtype == dtypes.bool:
            (x,) = nonzero(x)
        elif not shape_of(x)[0]:
            x = beside(x, np.zeros(0, np.int64))
        found.append(reshape(x, [-1 if k == i else 1 for k in range(len(args))]))
    return tuple(found)


def unravel_index(indices: Any, shape: int | Sequence[int], order: str = "C") -> tuple[Tensor, ...]:
    """The coordinates of elements whose numbers are given, in row-major order unless "F"."""
    sizes = (shape,) if isinstance(shape, int) else tuple(shape)
    return tuple(
        plain("unravel_index", [indices], (sizes, order), part=k) for k in range(len(sizes))
    )


def ravel_multi_index(
    multi_index: Sequence[Any], dims: Sequence[int], mode: Any = "raise", order: str = "C"
) -> Tensor:
    """The numbers of elements whose coordinates are given, one array for each axis."""
    sizes = tuple(dims)
    modes = (mode,) * len(sizes) if isinstance(mode, str) else tuple(mode)
    parts = [as_array(x) for x in multi_index]
    if len(parts) != len(sizes) or order not in ("C", "F"):
        raise ValueError(f"ravel_multi_index: {len(parts)} coordinates for {len(sizes)} axes")
    pairs = list(zip(parts, sizes, modes, strict=True))
    found: Any = 0
    for x, n, how in pairs if order == "C" else reversed(pairs):
        found = found * n + in_range("ravel_multi_index", x, n, how, strict=True)
    return found
