"""Random numbers and dropout: kernels/random.cu and kernels/dropout.cu."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tensorgrad.backend.base import Array
from tensorgrad.backend.kernels import arithmetic
from tensorgrad.backend.launch.common import (
    backward,
    blocks_for,
    contiguous,
    fits,
    forward,
    launch,
)
from tensorgrad.dtypes import float32


def _word(number: int) -> np.uint64:
    return np.uint64(number)


def _made_at_once(dtype: Any) -> int:
    """How many numbers a thread makes: what one block of four words gives."""
    return 4 if dtype.itemsize < 8 else 2


@forward("random.uniform")
def _uniform(
    xp: Any, like: Array, key: int, position: int, shape: Any, dtype: Any, low: float, high: float
) -> Any:
    out = xp.empty(shape, dtype)
    if out.size:
        real = arithmetic(dtype).type
        grid = (blocks_for(out.size, _made_at_once(dtype)),)
        launch(
            xp, "random", "random_uniform", dtype, grid, out, _word(key), _word(position),
            real(high - low), real(low), np.int32((low, high) == (0.0, 1.0)), out.size,
        )  # fmt: skip
    return out


@forward("random.normal")
def _normal(
    xp: Any, like: Array, key: int, position: int, shape: Any, dtype: Any, mean: float, std: float
) -> Any:
    out = xp.empty(shape, dtype)
    if out.size:
        real = arithmetic(dtype).type
        grid = (blocks_for(out.size, _made_at_once(dtype)),)
        launch(
            xp, "random", "random_normal", dtype, grid, out, _word(key),
            _word(position), real(std), real(mean), out.size,
        )  # fmt: skip
    return out


@forward("random.randint")
def _randint(
    xp: Any, like: Array, key: int, position: int, shape: Any, dtype: Any, low: int, high: int
) -> Any:
    out = xp.empty(shape, np.int64)
    if out.size:
        launch(
            xp, "random", "random_integers", float32, (blocks_for(out.size, 2),), out, _word(key),
            _word(position), low, _word(high - low), out.size,
        )  # fmt: skip
    return out.astype(dtype, copy=False)


@forward("random.permutation")
def _permutation(xp: Any, like: Array, key: int, position: int, n: int) -> Array:
    words = xp.empty(n, np.uint64)
    if n:
        grid = (blocks_for(n, 2),)
        launch(
            xp, "random", "random_words", float32, grid, words, _word(key), _word(position), n
        )  # fmt: skip
    return xp.argsort(words, kind="stable")


def _dropped(xp: Any, x: Array, key: int, position: int, p: float) -> Array:
    x = contiguous(xp, x)
    y = xp.empty(x.shape, x.dtype)
    if x.size:
        threshold = np.uint32(min(round(p * 2.0**32), 2**32 - 1))
        scale = arithmetic(x.dtype).type(0.0 if p == 1.0 else 1.0 / (1.0 - p))
        launch(
            xp, "dropout", "dropout", x.dtype, (blocks_for(x.size, 4),), x, y, _word(key),
            _word(position), threshold, scale, x.size,
        )  # fmt: skip
    return y


@forward("dropout")
def _dropout(xp: Any, x: Array, key: int, position: int, p: float) -> Any:
    if not fits(xp, x):
        return NotImplemented
    return _dropped(xp, x, key, position, p), None  # no mask: the rule can make it again


@backward("dropout")
def _dropout_gradient(
    xp: Any, g: Array, needed: Sequence[bool], r: Array, key: int, position: int, p: float
) -> Any:
    return (_dropped(xp, g, key, position, p),) if fits(xp, g) else NotImplemented
