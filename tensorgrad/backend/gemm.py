"""How matrix products are given to cuBLAS, for eager mode and for programs.

cuBLAS multiplies matrices one of whose axes has its elements side by side, and in one call as many
of them as lie at equal distances. Whatever lies so is multiplied where it is; only other factors
have to be copied.

Source of names and numbers: the cuBLAS library reference, cublasGemmEx and
cublasGemmStridedBatchedEx.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from tensorgrad.dtypes import bfloat16, float16, float32, float64

#: Rows whose value multiplies what it is given as it is, by the names of their kernels: on a GPU
#: also 16-bit floats, which are widened for others.
ROWS = frozenset({"matmul", "linear"})
#: Rows whose rules do, by what they call: kernels that take 16-bit floats, or a value that widens
#: them itself.
RULES = ROWS | {"convolution", "convolution_input", "convolution_weight", "attention"}
#: cudaDataType: CUDA_R_32F, CUDA_R_64F, CUDA_R_16F, CUDA_R_16BF.
CUDA_TYPES = {float32: 0, float64: 1, float16: 2, bfloat16: 14}
_COMPUTE_32F, _COMPUTE_64F, _COMPUTE_32F_FAST_TF32 = 68, 70, 77
DEFAULT_ALGORITHM = -1
#: How many calls a stack may take before a factor is copied instead.
_MOST_CALLS = 8
#: What the library counts with.
_MOST = (1 << 31) - 1

_NUMBERS = {dtype: np.array([0, 1], dtype) for dtype in (float32, float64)}
#: Addresses of the numbers 0 and 1 in the type of the arithmetic, for factors of each dtype.
ZERO_AND_ONE = {
    dtype: (at.ctypes.data, at.ctypes.data + at.itemsize)
    for dtype in CUDA_TYPES
    for at in [_NUMBERS[float64 if dtype == float64 else float32]]
}


def compute_type(dtype: np.dtype[np.generic], tf32: bool) -> int:
    """cublasComputeType_t for factors of ``dtype``: float32 for those of 16 bits.

    tf32: whether factors of float32 may be rounded to TF32.
    """
    if dtype == float64:
        return _COMPUTE_64F
    return _COMPUTE_32F_FAST_TF32 if tf32 and dtype == float32 else _COMPUTE_32F


class Gemm(NamedTuple):
    """Products C = A @ B of matrices of two stacks, all row-major, C without gaps.

    shape: of C. sizes: rows, inner size and columns of each product. a, b: whether the matrices
    lie transposed, their leading dimension, and elements from one to the next; c: elements from
    one to the next. matrices: how many one call multiplies. places: where the first matrices of
    each call begin, in elements.
    """

    shape: tuple[int, ...]
    sizes: tuple[int, int, int]
    a: tuple[int, int, int]
    b: tuple[int, int, int]
    c: int
    matrices: int
    places: tuple[tuple[int, int, int], ...]


class Copies(NamedTuple):
    """Which factors have to be copied to row-major order first, and which broadcast before."""

    a: bool
    b: bool
    broadcast: bool


def leading(shape: Sequence[int], strides: Sequence[int]) -> tuple[int, int] | None:
    """Whether the matrix at the end of the axes lies transposed, and its leading dimension.

    ``None`` if no axis has its elements side by side, or if rows overlap.
    """
    (rows, columns), (r, c) = shape[-2:], strides[-2:]
    if (c == 1 or columns == 1) and (r >= columns or rows == 1):
        return 0, max(r, columns, 1) if rows != 1 else columns
    if (r == 1 or rows == 1) and (c >= rows or columns == 1):
        return 1, max(c, rows) if columns != 1 else rows
    return None


@lru_cache(maxsize=4096)
def planned(
    a: tuple[int, ...],
    a_strides: tuple[int, ...],
    b: tuple[int, ...],
    b_strides: tuple[int, ...],
    unit: int = 1,
) -> Gemm | Copies | None:
    """How the product of stacks of these shapes is computed.

    unit: of the strides, in elements: 1, or the bytes of one. ``Copies`` where they have to be
    others; ``None`` where cuBLAS cannot do it: the shapes do not fit, there are no elements, or
    sizes are beyond 31 bits.
    """
    if a[-1] != b[-2] or 0 in a or 0 in b:
        return None
    one, two = (a, _in_elements(a_strides, unit)), (b, _in_elements(b_strides, unit))
    try:
        dims = np.broadcast_shapes(a[:-2], b[:-2])
    except ValueError:
        return None
    found = _placed(dims, one, two)
    if found is not None and len(found.places) <= _MOST_CALLS:
        return found if max(*found.sizes, found.a[1], found.b[1], found.matrices) <= _MOST else None
    own, other = (a, row_major(a)), (b, row_major(b))
    choices = [
        (math.prod(a), Copies(True, False, False), own, two),
        (math.prod(b), Copies(False, True, False), one, other),
        (math.prod(a) + math.prod(b), Copies(True, True, False), own, other),
    ]
    for _, copies, one, two in sorted(choices, key=lambda choice: choice[0]):
        found = _placed(dims, one, two)
        if found is not None and len(found.places) <= _MOST_CALLS:
            return copies
    return Copies(True, True, True)


_Factor = tuple[tuple[int, ...], tuple[int, ...]]


def _placed(dims: tuple[int, ...], a: _Factor, b: _Factor) -> Gemm | None:
    """The calls for factors as they lie, as few as can be; ``None`` if a matrix is unfit."""
    (m, k), n = a[0][-2:], b[0][-1]
    laid_a, laid_b = leading(*a), leading(*b)
    if laid_a is None or laid_b is None:
        return None
    axes = _merged(dims, _steps(dims, *a), _steps(dims, *b), m * n)
    if len(axes) == 1 and axes[0][2] == 0 and laid_a[0] == 0:
        # Rows that go on from one matrix of the first stack to the next are those of a single one.
        count, step = axes[0][:2]
        if step == m * laid_a[1] or (m == 1 and step >= k):
            laid_a = 0, step // m
            m, axes = m * count, []
    within = max(axes, default=(1, 0, 0, 0))
    axes = [axis for axis in axes if axis is not within]
    places = tuple(
        tuple(sum(i * axis[which] for i, axis in zip(at, axes)) for which in (1, 2, 3))
        for at in itertools.product(*(range(axis[0]) for axis in axes))
    )
    count, step_a, step_b, step_c = within
    return Gemm(
        (*dims, a[0][-2], n), (m, k, n), (*laid_a, step_a), (*laid_b, step_b), step_c, count,
        places,  # type: ignore[arg-type]
    )  # fmt: skip


def _steps(
    dims: tuple[int, ...], shape: tuple[int, ...], strides: tuple[int, ...]
) -> tuple[int, ...]:
    """Elements from one matrix to the next along each axis of the stack, 0 where it broadcasts."""
    own = tuple(0 if n == 1 else s for n, s in zip(shape[:-2], strides[:-2]))
    return (0,) * (len(dims) - len(own)) + own


def _merged(
    dims: tuple[int, ...], a: tuple[int, ...], b: tuple[int, ...], c: int
) -> list[tuple[int, int, int, int]]:
    """The axes of a stack, as few as can be: size, and steps of A, B and C.

    c: elements of a matrix of C, whose stack has no gaps.
    """
    found: list[tuple[int, int, int, int]] = []
    for size, step_a, step_b in zip(dims[::-1], a[::-1], b[::-1]):
        if size == 1:
            continue
        inner = found[-1] if found else (0, 0, 0, 0)
        if found and (step_a, step_b) == (inner[0] * inner[1], inner[0] * inner[2]):
            found[-1] = (size * inner[0], *inner[1:])
        else:
            found.append((size, step_a, step_b, c))
        c *= size
    return found


def _in_elements(strides: tuple[int, ...], unit: int) -> tuple[int, ...]:
    """Strides in elements; where they are no whole numbers, such as no matrix has."""
    whole = not any(s % unit for s in strides)
    return tuple(s // unit for s in strides) if whole else (-1,) * len(strides)


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """The strides of an array of this shape without gaps, in elements."""
    strides, step = [], 1
    for n in reversed(shape):
        strides.append(step)
        step *= n
    return tuple(reversed(strides))
