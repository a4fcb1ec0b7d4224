"""Matrix products in C: written out if small, in tiles of c/products.h, or left to BLAS."""

from __future__ import annotations

import math

import numpy as np

from tensorgrad.backend.gemm import leading
from tensorgrad.program.executors.c_text import part_text, type_of, unit_text
from tensorgrad.program.loop_ir import Product, View

# Products with fewer multiplications than this are written out instead of left to BLAS.
SMALL = 150_000
_PACKED = 1 << 14  # and whose second factor has at most so many elements
# Larger ones are made of tiles, unless a matrix has more elements than this; in so many parts,
# unless these have fewer multiplications.
_TILED = 1 << 21
_PAGE = 1 << 10  # elements of float32
_PARTS, _PART_OF_PRODUCT = 8, 1 << 21
# What is one part takes two threads from so many on.
_SHARED = 1 << 19


def product_of(op: Product) -> tuple[int, int, int, int]:
    """Stack, rows, inner size and columns of a product."""
    *batch, m, n = op.out.shape
    return math.prod(batch), m, op.a.shape[-1], n


def layout(view: View) -> tuple[int, int]:
    """Whether the matrices of a factor lie transposed, and their leading dimension."""
    found = leading(view.shape, view.strides)
    assert found is not None  # what lies otherwise was copied
    return found


def is_small(op: Product) -> bool:
    """Whether a product is written out."""
    _, m, k, n = product_of(op)
    return m * k * n <= SMALL and k * -(-n // 16) * 16 <= _PACKED and op.out.dtype == np.float32


def is_tiled(op: Product) -> bool:
    """Whether a product is left to the tiles of products.h: of larger ones BLAS packs more, and of
    fewer rows packing takes the time. It packs the first factor too, which counts where columns are
    whole pages apart: they all have their places in the same few lines of a cache."""
    _, m, k, n = product_of(op)
    largest = max(m * k, k * n, m * n)
    across = op.a.strides[-1]
    return (
        op.out.dtype == np.float32
        and m >= 32 and n >= 16 and k >= 8 and largest <= _TILED
        and (not across or across % _PAGE > 0)
    )  # fmt: skip


def blocks_of(op: Product) -> tuple[int, int]:
    """The rows and columns of a part of a product in tiles."""
    _, m, k, n = product_of(op)
    high, wide = min(256, -(-m // 8) * 8), -(-n // 32) * 32
    while (
        -(-m // high) * -(-n // wide) < _PARTS
        and high * wide * k > _PART_OF_PRODUCT
        and max(high, wide) > 64
    ):  # each part packs its columns of the second factor, so these are cut first
        if wide > 32:
            wide = -(-wide // 64) * 32
        else:
            high = -(-high // 16) * 8
    if high >= m and wide >= n and m * n * k >= _SHARED:
        if n >= m:
            wide = -(-wide // 64) * 32
        else:
            high = -(-high // 16) * 8
    return high, wide


def product_text(op: Product) -> str:
    """The text of a single product."""
    if is_small(op):
        return _product_call(op)[0] + unit_text(["@(P[0], P[1], P[2]);"])
    if is_tiled(op):
        return _tiled_product(op)
    _, m, k, n = product_of(op)
    (ta, lda), (tb, ldb) = layout(op.a), layout(op.b)
    a, b, c = (f"({type_of(op.out)} *)P[{number}]" for number in range(3))
    # Cut along the longer side of the result, so that the smaller factor is packed twice.
    if m >= n:
        shifted = f"{a} + begin * {1 if ta else lda}, {b}, {c} + begin * {n}"
        sizes = f"end - begin, {n}, {k}"
    else:
        shifted = f"{a}, {b} + begin * {ldb if tb else 1}, {c} + begin"
        sizes = f"{m}, end - begin, {k}"
    size = max(m, n)
    piece = -(-size // 32) * 16 if m * n * k > 1_000_000 else size
    given = f"({sizes}, {ta}, {lda}, {tb}, {ldb}, {shifted}, {n});"
    part = part_text(f"tg_{_ending(op)}gemm_part{given}")
    return part + unit_text([f"tg_parallel(@_part, P, {size}, {piece});"])


def _product_call(op: Product) -> tuple[str, str]:
    """The function that a small product needs, and how the product of A and B to C is called."""
    _, m, k, n = product_of(op)
    (ta, lda), (tb, ldb) = layout(op.a), layout(op.b)
    given = f"({m}, {n}, {k}, {ta}, {lda}, {tb}, {ldb}, A, B, C);"
    if not is_small(op):
        return "", f"tg_{_ending(op)}gemm{given}"
    text = (
        "static __attribute__((noinline)) void @(const float *restrict A, "
        f"const float *restrict B, float *restrict C) {{\n    tg_small{given}\n}}\n"
    )
    return text, "@(A, B, C);"


def _tiled_product(op: Product) -> str:
    """The text of a product whose parts are blocks of rows and columns."""
    _, m, k, n = product_of(op)
    (ta, lda), (tb, ldb) = layout(op.a), layout(op.b)
    high, wide = blocks_of(op)
    parts = -(-m // high) * -(-n // wide)
    sizes = f"{m}, {n}, {k}, {ta}, {lda}, {tb}, {ldb}, {high}, {wide}"
    part = part_text(f"tg_product({sizes}, P[0], P[1], P[2], begin, end);")
    text = '#include "products.h"\n' + part
    return text + unit_text([f"tg_parallel(@_part, P, {parts}, 1);"])


def stack_of_products_text(op: Product) -> str:
    """The text of many products, each by one thread."""
    batch, m, k, n = product_of(op)
    ctype = type_of(op.out)
    text, inner = _product_call(op)
    terms_a, terms_b, below = [], [], batch
    for axis, size in enumerate(op.out.shape[:-2]):
        below //= size
        index = f"(i / {below} % {size})"
        terms_a.append(f"{index} * {op.a.strides[axis]}")
        terms_b.append(f"{index} * {op.b.strides[axis]}")
    text += part_text(
        f"\n    for (long i = begin; i < end; i++) {{\n"
        f"        const {ctype} *A = ({ctype} *)P[0] + {' + '.join(terms_a)};\n"
        f"        const {ctype} *B = ({ctype} *)P[1] + {' + '.join(terms_b)};\n"
        f"        {ctype} *C = ({ctype} *)P[2] + i * {m * n};\n"
        f"        {inner}\n    }}\n"
    )
    piece = batch if m * n * k * batch < 300_000 else max(1, -(-batch // 8))
    return text + unit_text([f"tg_parallel(@_part, P, {batch}, {piece});"])


def _ending(op: Product) -> str:
    return "s" if op.out.dtype == np.float32 else "d"
