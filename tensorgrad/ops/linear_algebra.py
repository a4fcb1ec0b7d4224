"""Products of vectors, matrices and tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorgrad import backend
from tensorgrad.backend.namespace import Namespace
from tensorgrad.dtypes import INTEGERS
from tensorgrad.errors import ShapeError
from tensorgrad.ops.complex_parts import conj, is_complex
from tensorgrad.ops.fast_paths import binary, ternary
from tensorgrad.ops.padding import diagonal
from tensorgrad.ops.precision import in_float32
from tensorgrad.ops.reductions import sum
from tensorgrad.ops.shaping import (
    Axis,
    expand_dims,
    matrix_transpose,
    moveaxis,
    normalize_axes,
    normalize_axis,
    permute_dims,
    reshape,
    shape_of,
)
from tensorgrad.ops.table import operation
from tensorgrad.tape import Primitive

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = ["dot", "kron", "linear", "matmul", "outer", "tensordot", "trace", "vecdot"]


# --- matmul -------------------------------------------------------------------------------------


def product(xp: Any, a: Any, b: Any) -> Any:
    """``a @ b``: all matrix products of the library, on every device, are computed here.

    On a GPU by cuBLAS, in float32 throughout unless ``set_float32_matmul_precision`` allows TF32.
    """
    if xp is np:  # of two matrices its dot is the quicker way to the same BLAS
        return np.dot(a, b) if a.ndim == 2 == b.ndim else np.matmul(a, b)
    return xp.matmul(a, b) if isinstance(xp, Namespace) else backend.of(a).matmul(a, b)


def _matmul_value(xp: Any, x1: Any, x2: Any) -> Any:
    try:
        first, second = x1.ndim, x2.ndim
    except AttributeError:  # a plain number, which on a GPU comes as it is
        if x1 is None or x2 is None:
            raise
        raise ValueError("a number is no matrix") from None
    if second == 2 and first > 2:
        # One large product in place of one for each matrix of the stack.
        *batch, rows, inner = x1.shape
        if inner == x2.shape[0]:
            folded = x1.reshape(math.prod(batch) * rows, inner)
            return product(xp, folded, x2).reshape(*batch, rows, x2.shape[1])
    return product(xp, x1, x2)


def _matmul_left(g: Any, x1_shape: tuple[int, ...], x2: Any) -> Any:
    if x2.ndim == 1:  # rows times a vector: g has one number for each row
        return g * x2 if len(x1_shape) == 1 else expand_dims(g, -1) * x2
    if len(x1_shape) == 1:
        return reshape(matmul(x2, expand_dims(g, -1)), x2.shape[:-1])
    return matmul(g, x2.T if x2.ndim == 2 else matrix_transpose(x2))


def _matmul_right(g: Any, x1: Any, x2_shape: tuple[int, ...]) -> Any:
    if x1.ndim == 1:
        return g * x1 if len(x2_shape) == 1 else expand_dims(x1, -1) * expand_dims(g, -2)
    if len(x2_shape) == 1:
        inner = x1.shape[-1]
        rows = math.prod(x1.shape[:-1])
        return matmul(reshape(g, (rows,)), reshape(x1, (rows, inner)))
    if len(x2_shape) == 2:
        return _transposed_product(x1, g)
    return matmul(matrix_transpose(x1), g)


def _transposed_product(a: Any, b: Any) -> Any:
    """``a.T @ b`` of two matrices; of two stacks of rows, the sum of those products."""
    if a.ndim != 2:
        rows = math.prod(a.shape[:-1])
        a, b = reshape(a, (rows, a.shape[-1])), reshape(b, (rows, b.shape[-1]))
    return matmul(a.T, b)


def product_flops(x: Any, out: Any) -> int:
    """Those of a product whose first factor is ``x``: a multiplication and an addition each."""
    return 2 * out.size * int(x.shape[-1] if x.shape else 1)


def _explain_matmul(first: tuple[int, ...] = (), second: tuple[int, ...] = ()) -> str:
    if not first or not second:
        return "both factors need at least one axis; write a * b to multiply by a single number"
    axis = -1 if len(second) == 1 else -2
    if first[-1] != second[axis]:
        text = (
            f"the last axis of the first factor (size {first[-1]}) must equal axis {axis} of the "
            f"second (size {second[axis]})"
        )
        if len(second) > 1 and first[-1] == second[-1]:
            return text + "; transpose the second factor with .mT"
        if len(first) > 1 and first[-2] == second[axis]:
            return text + "; transpose the first factor with .mT"
        return text
    return (
        "the axes before the last two must broadcast: counted from the end, two sizes are equal "
        "or one of them is 1"
    )


_MATMUL: Primitive = Primitive(
    "matmul",
    _matmul_value,
    {"x1": _matmul_left, "x2": _matmul_right},
    promotion="same",
    half_in_float32=True,
    explain=_explain_matmul,
    fresh=True,
    flops=lambda x1, x2, out: product_flops(x1, out),
    autocast="half",
    kernel="matmul",
    complex=True,
)
_matmul = binary(_MATMUL)


@operation(
    cases=[
        lambda s: s(s.real(3, 4), s.real(4, 2)),
        lambda s: s(s.real(4), s.real(4)),
        lambda s: s(s.real(3, 4), s.real(4)),
        lambda s: s(s.real(4), s.real(4, 2)),
        lambda s: s(s.real(2, 3, 4), s.real(4, 2)),
        lambda s: s(s.real(2, 3, 4), s.real(4)),
        lambda s: s(s.real(4), s.real(2, 4, 3)),
        lambda s: s(s.real(3, 4), s.real(2, 4, 2)),
        lambda s: s(s.real(2, 1, 3, 4), s.real(3, 4, 2)),
        lambda s: s(s.real(3, 0), s.real(0, 2)),
        lambda s: s(s.real(0, 3, 4), s.real(4, 2)),
    ],
    primitive=_MATMUL,
)
def matmul(x1: Any, x2: Any, /) -> Tensor:
    """The matrix product ``x1 @ x2``.

    x1: shape (..., n, k), or (k,) for a row vector. x2: (..., k, m), or (k,) for a column vector.
    The leading axes broadcast. Returns (..., n, m), without the axis that a vector lacks.

    Raises ShapeError naming the axes that must agree.
    """
    return _matmul(x1, x2)


# --- linear -------------------------------------------------------------------------------------


def linear_value(xp: Any, x: Any, weight: Any, bias: Any) -> Any:
    """``x @ weight.T + bias`` of arrays."""
    y = product(xp, x, weight.T) if x.ndim == 2 else _matmul_value(xp, x, weight.T)
    if bias is not None:
        y += bias
    return y


def linear_x(g: Any, weight: Any) -> Any:
    """The gradient of ``x``."""
    if type(g) is np.ndarray and g.ndim == 2:  # the commonest case, without dispatch
        return np.dot(g, weight)
    return matmul(g, weight)


def linear_weight(g: Any, x: Any) -> Any:
    """The gradient of ``weight``."""
    if type(g) is np.ndarray and g.ndim == 2:
        return np.dot(g.T, x)
    if x.ndim == 1:
        return expand_dims(g, -1) * x
    return _transposed_product(g, x)


def _explain_linear(
    x: tuple[int, ...] = (), weight: tuple[int, ...] = (), bias: tuple[int, ...] | None = None
) -> str:
    if not x or len(weight) != 2:
        return "the input needs at least one axis and the weight two, (out, in)"
    if x[-1] != weight[1]:
        return (
            f"the last axis of the input (size {x[-1]}) must have the weight's number of input "
            f"features, {weight[1]}"
        )
    return f"the bias must have the weight's number of output features, shape ({weight[0]},)"


_LINEAR: Primitive = Primitive(
    "linear",
    linear_value,
    {"x": linear_x, "weight": linear_weight, "bias": lambda g: g},
    promotion="same",
    half_in_float32=True,
    explain=_explain_linear,
    fresh=True,
    flops=lambda x, weight, bias, out: product_flops(x, out) + (0 if bias is None else out.size),
    autocast="half",
    kernel="linear",
    complex=True,
)
_linear = ternary(_LINEAR)


@operation(
    cases=[
        lambda s: s(s.real(3, 4), s.real(2, 4), s.real(2)),
        lambda s: s(s.real(3, 4), s.real(2, 4)),
        lambda s: s(s.real(2, 3, 4), s.real(2, 4), s.real(2)),
        lambda s: s(s.real(4), s.real(2, 4), s.real(2)),
        lambda s: s(s.real(0, 4), s.real(2, 4), s.real(2)),
    ],
    reference=lambda x, weight, bias=0.0: np.matmul(x, weight.T) + bias,
    torch="nn.functional.linear",
    method=False,
    primitive=_LINEAR,
)
def linear(x: Any, weight: Any, bias: Any = None, /) -> Tensor:
    """``x @ weight.T + bias``.

    x: shape (..., in). weight: (out, in). bias: (out,), or ``None`` for none. Returns (..., out).
    """
    return _linear(x, weight, bias)


# --- sums of products -----------------------------------------------------------------------------


@operation(
    cases=[
        lambda s: s(s.real(4), s.real(4)),
        lambda s: s(s.real(3, 4), s.real(4)),
        lambda s: s(s.real(3, 4), s.real(4, 2)),
        lambda s: s(s.real(2, 3, 4), s.real(2, 4, 2)),
        lambda s: s(s.real(), s.real(3)),
    ],
    torch=None,
    numpy="a b !out",
    complex=True,
)
def dot(x1: Any, x2: Any, /) -> Tensor:
    """The sum of products over the last axis of ``x1`` and the last but one of ``x2``.

    A number as either factor multiplies. Of stacks of matrices, each of the first meets each of
    the second; ``matmul`` pairs them instead.
    """
    first, second = shape_of(x1), shape_of(x2)
    if not first or not second:
        from tensorgrad.ops.elementwise import multiply

        return multiply(x1, x2)
    if len(second) <= 2:
        return matmul(x1, x2)
    return tensordot(x1, x2, axes=((-1,), (-2,)))


@operation(
    cases=[lambda s: s(s.real(3), s.real(4)), lambda s: s(s.real(0), s.real(2))],
    numpy="a b !out",
    complex=True,
)
def outer(x1: Any, x2: Any, /) -> Tensor:
    """All products of an element of ``x1`` and one of ``x2``, both flattened: a matrix."""
    return reshape(x1, (-1, 1)) * reshape(x2, (1, -1))


@operation(
    cases=[
        lambda s: s(s.real(4), s.real(4)),
        lambda s: s(s.real(2, 3, 4), s.real(3, 4)),
        lambda s: s(s.real(3, 4, 1), s.real(3, 1, 2), axis=0),
    ],
    reference=lambda x1, x2, axis=-1: (np.conj(x1) * x2).sum(axis),
    torch=None,
    complex=True,
)
@in_float32
def vecdot(x1: Any, x2: Any, /, *, axis: int = -1) -> Tensor:
    """The sum of products along ``axis`` of both; the other axes broadcast.

    Of complex numbers the conjugates of ``x1`` are taken.

    Raises ShapeError unless both have the same size along ``axis``.
    """
    sizes = [shape_of(x)[normalize_axis("vecdot", axis, x)] for x in (x1, x2)]
    if sizes[0] != sizes[1]:
        raise ShapeError(
            f"vecdot: both factors must have the same size along axis {axis}; got "
            f"{shape_of(x1)} and {shape_of(x2)}"
        )
    if len(shape_of(x1)) != len(shape_of(x2)):
        x1, x2, axis = moveaxis(x1, axis, -1), moveaxis(x2, axis, -1), -1
    products = conj(x1) * x2 if is_complex(x1) else x1 * x2
    return sum(products, axis=axis, dtype=products.dtype if products.dtype in INTEGERS else None)


@operation(
    cases=[
        lambda s: s(s.real(2, 3, 4), s.real(3, 4, 2)),
        lambda s: s(s.real(3, 4), s.real(4, 2), axes=1),
        lambda s: s(s.real(2), s.real(3), axes=0),
        lambda s: s(s.real(2, 3, 4), s.real(4, 5, 2), axes=((0, 2), (2, 0))),
        lambda s: s(s.real(2, 3), s.real(4, 3), axes=(1, 1)),
        lambda s: s(s.real(0, 3), s.real(3, 2), axes=1),
    ],
    torch=None,
    numpy="a b axes=",
    complex=True,
)
def tensordot(
    x1: Any, x2: Any, /, *, axes: int | tuple[Axis, Axis] | Sequence[Sequence[int]] = 2
) -> Tensor:
    """The sum of products over several axes of both.

    axes: n for the last n axes of ``x1`` and the first n of ``x2``; or two sequences, the axes
        of ``x1`` and those of ``x2`` that they meet. The other axes follow in order.

    Raises ShapeError if the sizes of axes that meet differ.
    """
    shape1, shape2 = shape_of(x1), shape_of(x2)
    if isinstance(axes, int):
        if not 0 <= axes <= min(len(shape1), len(shape2)):
            raise ShapeError(
                f"tensordot: axes must be at most the number of axes of either; got {axes} for "
                f"{shape1} and {shape2}"
            )
        first = tuple(range(len(shape1) - axes, len(shape1)))
        second = tuple(range(axes))
    else:
        first = normalize_axes("tensordot", axes[0], x1)
        second = normalize_axes("tensordot", axes[1], x2)
    if [shape1[a] for a in first] != [shape2[a] for a in second]:
        raise ShapeError(
            f"tensordot: the axes that meet must have equal sizes; axes {first} of {shape1} and "
            f"{second} of {shape2} do not"
        )
    rest1 = tuple(a for a in range(len(shape1)) if a not in first)
    rest2 = tuple(a for a in range(len(shape2)) if a not in second)
    inner = math.prod(shape1[a] for a in first)
    sizes1, sizes2 = tuple(shape1[a] for a in rest1), tuple(shape2[a] for a in rest2)
    left = reshape(permute_dims(x1, rest1 + first), (math.prod(sizes1), inner))
    right = reshape(permute_dims(x2, second + rest2), (inner, math.prod(sizes2)))
    return reshape(matmul(left, right), sizes1 + sizes2)


@operation(
    cases=[
        lambda s: s(s.real(3, 4)),
        lambda s: s(s.real(3, 4), 1),
        lambda s: s(s.real(2, 3, 3), 0, 1, 2),
        lambda s: s(s.real(0, 2)),
    ],
    torch=None,
    numpy="a offset= axis1= axis2= !dtype !out",
    complex=True,
)
def trace(x: Any, /, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Tensor:
    """The sum of a diagonal: of the elements ``x[i, i + offset]``."""
    return sum(diagonal(x, offset, axis1, axis2), axis=-1)


@operation(
    cases=[
        lambda s: s(s.real(2, 3), s.real(4, 2)),
        lambda s: s(s.real(3), s.real(2, 2)),
        lambda s: s(s.real(2, 1, 2), s.real(3)),
    ],
    numpy="a b",
    complex=True,
)
def kron(x1: Any, x2: Any, /) -> Tensor:
    """The Kronecker product: every element of ``x1`` times all of ``x2``, as blocks."""
    first, second = shape_of(x1), shape_of(x2)
    n = max(len(first), len(second))
    first = (1,) * (n - len(first)) + first
    second = (1,) * (n - len(second)) + second
    apart1 = tuple(size for m in first for size in (m, 1))
    apart2 = tuple(size for m in second for size in (1, m))
    product = reshape(x1, apart1) * reshape(x2, apart2)
    return reshape(product, tuple(a * b for a, b in zip(first, second, strict=True)))
