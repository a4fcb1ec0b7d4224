"""Random small programs of joins, parts, indices, scans and places of extremes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import tensorgrad as tg
from tensorgrad import Tensor
from tensorgrad.autograd import grad

_SHAPES = ((4, 6), (4, 6), (1, 6), (4, 1), (6,), (4,), ())
_LARGEST = 400  # elements


def inputs(seed: int) -> list[Tensor]:
    """Tensors for the program of this number."""
    rng = np.random.default_rng(seed)
    return [
        Tensor(rng.standard_normal(shape).astype(np.float32), requires_grad=True)
        for shape in _SHAPES
    ]


def _part(rng: np.random.Generator, axis: int, n: int) -> Any:
    start = int(rng.integers(n))
    stop = int(rng.integers(start, n)) + 1
    return (*[slice(None)] * axis, slice(start, stop, int(rng.integers(1, 3))))


def _at(rng: np.random.Generator, axis: int, n: int) -> Any:
    shape = tuple(rng.integers(1, 4, size=rng.integers(1, 3)).tolist())
    return (*[slice(None)] * axis, rng.integers(-n, n, size=shape))


def _forms(rng: np.random.Generator, a: Tensor, b: Tensor) -> list[Callable[[], Tensor]]:
    axis = int(rng.integers(a.ndim)) if a.ndim else 0
    shape = np.broadcast_shapes(a.shape, b.shape)
    wide, other = tg.broadcast_to(a, shape), tg.broadcast_to(b, shape)
    place, widths = int(rng.integers(0, len(shape) + 1)), rng.integers(0, 3, (a.ndim, 2)).tolist()
    found: list[Callable[[], Tensor]] = [
        lambda: a + b * 0.5,
        lambda: a * b - a,
        lambda: tg.tanh(a),
        lambda: tg.remainder(a, b * b + 0.5),
        lambda: tg.stack([wide, other, wide * 2], axis=place),
    ]
    if not a.ndim:
        return found
    n = a.shape[axis]
    part, at, fill = _part(rng, axis, n), _at(rng, axis, n), float(rng.integers(4))
    back = bool(rng.integers(2))
    return [
        *found,
        lambda: tg.concat([a, a + 1, tg.flip(a, axis=axis)], axis=axis),
        lambda: tg.pad(a, widths, constant_values=fill),
        lambda: a[part],
        lambda: tg.index_put(a, part, fill),
        lambda: tg.index_put(a, part, a[part] * 3),
        lambda: tg.roll(a, int(fill), axis=axis),
        lambda: tg.sum(a, axis=axis, keepdims=back),
        lambda: tg.permute_dims(a, tuple(range(a.ndim))[::-1]),
        lambda: a[at],
        lambda: tg.index_put(a, at, fill),
        lambda: tg.index_put(a, at, a[at] + 1),
        lambda: tg.cumsum(a, axis=axis),
        lambda: tg.cumprod(a * 0.5, axis=axis),
        lambda: tg.linear_recurrence(a * 0.3, a, axis=axis, reverse=back),
        lambda: tg.take_along_axis(a, tg.argmax(a, axis=axis, keepdims=True), axis=axis),
        lambda: tg.any(a > 0.5, axis=axis) * 1.0 + tg.argmin(a, axis=axis),
    ]


def draw(seed: int, steps: int = 16) -> Callable[..., list[Tensor]]:
    """A function of ``inputs(seed)``: what it computes on the way, and its gradients."""

    def step(*tensors: Tensor) -> list[Tensor]:
        rng = np.random.default_rng(seed + 1_000_000)
        pool = list(tensors)
        for _ in range(steps):
            a, b = (pool[int(k)] for k in rng.integers(len(pool), size=2))
            try:
                np.broadcast_shapes(a.shape, b.shape)
            except ValueError:
                b = a
            forms = _forms(rng, a, b)
            y = forms[int(rng.integers(len(forms)))]()
            if 0 < y.size <= _LARGEST:
                pool.append(y)
        made = pool[len(tensors) :]
        loss = sum((tg.sum(y * y) for y in made), Tensor(0.0))
        return [*[y.detach() for y in made], *grad(loss, list(tensors))]

    return step
