"""Products of vectors and matrices that NumPy has beside the array API standard's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tensorgrad.errors import ShapeError
from tensorgrad.ops import linear_algebra
from tensorgrad.ops.complex_parts import conj
from tensorgrad.ops.elementwise import multiply, not_equal
from tensorgrad.ops.linear_algebra import matmul, tensordot
from tensorgrad.ops.numpy_forms import together
from tensorgrad.ops.reductions import sum as total
from tensorgrad.ops.shaping import expand_dims, reshape, shape_of, squeeze

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = ["inner", "matvec", "vdot", "vecmat"]


def of_truth_values(y: Any, *operands: Any) -> Any:
    """A sum of products, which of truth values alone NumPy gives as one."""
    kinds = {str(getattr(x, "dtype", type(x).__name__)) for x in operands}
    return not_equal(y, 0) if kinds == {"bool"} else y


def vecdot(x1: Any, x2: Any, axis: int = -1) -> Any:
    """``np.vecdot``."""
    return of_truth_values(linear_algebra.vecdot(x1, x2, axis=axis), x1, x2)


def inner(a: Any, b: Any, /) -> Tensor:
    """The sums of products along the last axes of both: (\\*rest of a, \\*rest of b)."""
    a, b = together(a, b)
    if not len(shape_of(a)) or not len(shape_of(b)):
        return multiply(a, b)
    if shape_of(a)[-1] != shape_of(b)[-1]:
        raise ShapeError(
            f"inner: the last axes must have one size; got shapes {shape_of(a)} and {shape_of(b)}"
        )
    return tensordot(a, b, axes=((-1,), (-1,)))


def vdot(a: Any, b: Any, /) -> Tensor:
    """The sum of all products of elements, those of ``a`` conjugated, both flattened."""
    a, b = (reshape(x, (-1,)) for x in together(a, b))
    if shape_of(a) != shape_of(b):
        raise ShapeError(
            f"vdot: both must have equally many elements; got {shape_of(a)[0]} and {shape_of(b)[0]}"
        )
    return total(multiply(conj(a), b))


def matvec(x1: Any, x2: Any, /) -> Tensor:
    """Matrices times vectors: (..., m, n) and (..., n) give (..., m)."""
    x1, x2 = together(x1, x2)
    return squeeze(matmul(x1, expand_dims(x2, -1)), axis=-1)


def vecmat(x1: Any, x2: Any, /) -> Tensor:
    """Vectors, conjugated, times matrices: (..., m) and (..., m, n) give (..., n)."""
    x1, x2 = together(x1, x2)
    return squeeze(matmul(expand_dims(conj(x1), -2), x2), axis=-2)
