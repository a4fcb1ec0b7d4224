"""Pools whose places are given or drawn: back from the largest elements, and fractional pooling."""

# The operators inside come from a class that is made later.
# mypy: disable-error-code="has-type"

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorgrad.dtypes import INTEGERS, WIDE_FLOATS, float32, int64
from tensorgrad.errors import DtypeError, ShapeError
from tensorgrad.ops.creation import asarray, zeros
from tensorgrad.ops.elementwise import trunc, where
from tensorgrad.ops.indexing import beside, gathered, index_put
from tensorgrad.ops.numbers import number
from tensorgrad.ops.pooling import SHAPES, Function, named
from tensorgrad.ops.random import Generator, default_generator
from tensorgrad.ops.reductions import argmax
from tensorgrad.ops.shaping import expand_dims, reshape, shape_of
from tensorgrad.ops.windows import numbers, options_of, spatial
from tensorgrad.tape import cast

if TYPE_CHECKING:
    from tensorgrad.tensor import Tensor

__all__ = [
    "fractional_max_pool2d", "fractional_max_pool3d", "max_unpool1d", "max_unpool2d",
    "max_unpool3d",
]  # fmt: skip


# --- back from the largest ------------------------------------------------------------------------

_UNPOOL_DOC = """The numbers of ``input`` at the places that ``max_pool{n}d`` gave, and else zeros.

    indices: integers in the shape of ``input``. kernel_size, stride, padding: of that pooling.
    output_size: the shape of what was pooled, or its last {n} sizes; the least that gives
        ``input`` if ``None``.

    Where a place is named more than once the last number counts, and gets the gradient. Raises
    ShapeError where shapes do not fit, IndexError for a place that is not there, and ValueError for
    options out of range.
    """


def _unpooled_sizes(
    name: str, sizes: tuple[int, ...], kernel_size: Any, stride: Any, padding: Any, given: Any
) -> tuple[int, ...]:
    n = len(sizes)
    kernels, strides, paddings, _ = options_of(name, n, kernel_size, stride, padding)
    least = tuple(
        (m - 1) * s - 2 * p + k
        for m, s, p, k in zip(sizes, strides, paddings, kernels, strict=True)
    )
    if given is None:
        return least
    found = tuple(given)[-n:]
    near = [abs(a - b) < s for a, b, s in zip(found, least, strides)]
    if len(near) != n or not all(near):
        raise ValueError(
            f"{name}: output_size must differ by less than the stride, {strides}, from {least}; "
            f"got {tuple(given)}"
        )
    return found


def _max_unpool(n: int) -> Function:
    name = f"max_unpool{n}d"

    def pool(
        input: Any,
        indices: Any,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
        output_size: Sequence[int] | None = None,
    ) -> Tensor:
        x = input if hasattr(input, "node") else asarray(input)
        sizes = spatial(name, x, n)
        if shape_of(indices) != x.shape:
            raise ShapeError(
                f"{name}: indices must have the shape of the input, {x.shape}; got "
                f"{shape_of(indices)}"
            )
        if getattr(indices, "dtype", int64) not in INTEGERS:
            raise DtypeError(
                f"{name}: indices must be integers, as a pool with return_indices=True gives them; "
                f"got {indices.dtype}"
            )
        wanted = _unpooled_sizes(name, sizes, kernel_size, stride, padding, output_size)
        planes = math.prod(x.shape[:-n])
        empty = zeros((planes, math.prod(wanted)), dtype=x.dtype, device=x.device)
        at = (np.arange(planes)[:, None], reshape(indices, (planes, math.prod(sizes))))
        try:
            found = index_put(empty, at, reshape(x, (planes, math.prod(sizes))))
        except IndexError as error:
            raise IndexError(
                f"{name}: indices are places in the {math.prod(wanted)} elements of a plane of "
                f"{wanted}; one lies outside ({error}). Give output_size the size of what was "
                "pooled"
            ) from None
        return reshape(found, (*x.shape[:-n], *wanted))

    def reference(x: Any, indices: Any, k: int, s: int | None = None) -> Any:
        sizes = [(m - 1) * (s or k) + k for m in x.shape[-n:]]
        y = np.zeros((*x.shape[:-n], math.prod(sizes)), x.dtype)
        np.put_along_axis(
            y, indices.reshape(*x.shape[:-n], -1), x.reshape(*x.shape[:-n], -1), axis=-1
        )
        return y.reshape(*x.shape[:-n], *sizes)

    shape = SHAPES[n]
    places = np.stack([np.random.default_rng(k).permutation(math.prod(shape[2:])) for k in (0, 1)])
    return named(
        name,
        _UNPOOL_DOC.replace("{n}", str(n)),
        cases=[
            lambda s: s(s.real(*shape[1:]), places.reshape(shape[1:]), 2),
            lambda s: s(s.real(1, *shape[1:]), places.reshape(1, *shape[1:]), 2, 1),
        ],
        reference=reference,
        complex=True,
    )(pool)


max_unpool1d, max_unpool2d, max_unpool3d = _max_unpool(1), _max_unpool(2), _max_unpool(3)


# --- windows that are drawn -----------------------------------------------------------------------

_FRACTIONAL_DOC = """The largest elements of windows that begin at drawn places (Graham, 2014).

    kernel_size: of the windows. output_size: how many windows there are; or output_ratio: how many
    for each element of an axis, below 1. Each is one number, or one for each of the {n} axes.
    return_indices: give besides where the elements are, as ``max_pool{n}d`` does.
    _random_samples: numbers from 0 to 1 in place of drawn ones, shape (N, C, {n}): they say how
        far the first windows are shifted.
    generator: the source of the numbers; the default one if ``None``.

    The input has shape (N, C, ...) or (C, ...). Raises ShapeError for another, or if the windows do
    not fit, and ValueError for options out of range.
    """


def _results(
    name: str, sizes: tuple[int, ...], kernels: tuple[int, ...], output_size: Any, ratio: Any
) -> tuple[int, ...]:
    n = len(sizes)
    if (output_size is None) == (ratio is None):
        raise ValueError(
            f"{name}: give either output_size or output_ratio; got {output_size!r} and {ratio!r}"
        )
    if ratio is None:
        found = numbers(name, "output_size", output_size, n, 1)
    else:
        given = ratio if isinstance(ratio, Sequence) else [ratio] * n
        ratios = [number(name, "output_ratio", r) for r in given]
        if len(ratios) != n or not all(0 < r < 1 for r in ratios):
            raise ValueError(f"{name}: output_ratio must lie between 0 and 1; got {ratio!r}")
        found = tuple([int(m * r) for m, r in zip(sizes, ratios, strict=True)])
    if not all(0 < k + o - 1 <= m for k, o, m in zip(kernels, found, sizes, strict=True)):
        raise ShapeError(
            f"{name}: {found} windows of sizes {kernels} do not fit into {sizes} elements"
        )
    return found


def _starts(u: Any, size: int, kernel: int, results: int) -> Any:
    """Where the windows along an axis begin, shape (planes, results), for numbers from 0 to 1."""
    o = beside(u, np.arange(results))
    if results == 1:
        return cast(u * 0.0, int64) + (size - kernel)
    apart = (size - kernel) / (results - 1)
    found = trunc((cast(o, u.dtype) + u) * apart) - trunc(u * apart)
    return where(o == results - 1, size - kernel, cast(found, int64))


def _fractional_places(
    u: Any, sizes: tuple[int, ...], kernels: tuple[int, ...], results: tuple[int, ...]
) -> Any:
    """The numbers of the elements of all windows, shape (planes, windows, elements)."""
    n = len(sizes)
    # PyTorch draws for the axes in order in three dimensions, and backwards in two.
    order = range(n) if n == 3 else range(n)[::-1]
    places: Any = 0
    for k, at in enumerate(order):
        start = _starts(u[:, at : at + 1], sizes[k], kernels[k], results[k])
        inside = beside(u, np.arange(kernels[k]) * math.prod(sizes[k + 1 :]))
        start = start * math.prod(sizes[k + 1 :])
        shape = [u.shape[0], *[1] * (2 * n)]
        shape[1 + k] = results[k]
        parts = [1] * (1 + 2 * n)
        parts[1 + n + k] = kernels[k]
        places = reshape(start, tuple(shape)) + reshape(inside, tuple(parts)) + places
    return reshape(places, (u.shape[0], math.prod(results), math.prod(kernels)))


def _fractional_max_pool(n: int) -> Function:
    name = f"fractional_max_pool{n}d"

    def pool(
        input: Any,
        kernel_size: int | Sequence[int],
        output_size: int | Sequence[int] | None = None,
        output_ratio: float | Sequence[float] | None = None,
        return_indices: bool = False,
        _random_samples: Any = None,
        *,
        generator: Generator | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        x = input if hasattr(input, "node") else asarray(input)
        sizes = spatial(name, x, n)
        kernels = numbers(name, "kernel_size", kernel_size, n, 1)
        results = _results(name, sizes, kernels, output_size, output_ratio)
        planes = math.prod(x.shape[:-n])
        kind = x.dtype if x.dtype in WIDE_FLOATS else float32
        if _random_samples is None:
            source = default_generator if generator is None else generator
            u = source.uniform((planes, n), dtype=kind, device=x.device)
        else:
            given = asarray(_random_samples, dtype=kind, device=x.device).detach()
            if math.prod(given.shape) != planes * n or given.shape[-1:] != (n,):
                raise ShapeError(
                    f"{name}: _random_samples must have shape (N, C, {n}) for an input of shape "
                    f"{x.shape}; got {given.shape}"
                )
            u = reshape(given, (planes, n))
        flat = reshape(x, (planes, math.prod(sizes)))
        places = _fractional_places(u, sizes, kernels, results)
        shape = places.shape
        values = gathered(flat.detach(), reshape(places, (planes, shape[1] * shape[2])), 1)
        which = expand_dims(argmax(reshape(values, shape), axis=-1), -1)
        chosen = reshape(gathered(places, which, 2), shape[:2])
        y = reshape(gathered(flat, chosen, 1), (*x.shape[:-n], *results))
        return (y, reshape(chosen, y.shape)) if return_indices else y

    def reference(
        x: Any, k: int, results: int, return_indices: bool = False, _random_samples: Any = None
    ) -> Any:
        y = np.zeros((*x.shape[:-n], *[results] * n))
        places = np.zeros(y.shape, np.int64)
        flat = np.arange(math.prod(x.shape[-n:])).reshape(x.shape[-n:])
        for at in np.ndindex(*y.shape):
            shift = _random_samples[at[0]][at[1]]
            begin = []
            for axis, (o, m) in enumerate(zip(at[-n:], x.shape[-n:])):
                u = shift[axis if n == 3 else -1 - axis]
                apart = (m - k) / (results - 1)
                begin.append(m - k if o == results - 1 else int((o + u) * apart) - int(u * apart))
            window = tuple(slice(b, b + k) for b in begin)
            best = x[at[:-n]][window].reshape(-1).argmax()
            y[at], places[at] = x[at[:-n]][window].flat[best], flat[window].flat[best]
        return (y, places) if return_indices else y

    sizes = (5, 4) if n == 2 else (4, 4, 5)
    samples = [[[0.3, 0.6, 0.1][:n], [0.0, 0.9, 0.4][:n]]]
    return named(
        name,
        _FRACTIONAL_DOC.replace("{n}", str(n)),
        cases=[
            lambda s: s(s.distinct(1, 2, *sizes), 2, 2, _random_samples=samples),
            lambda s: s(
                s.distinct(1, 2, *sizes), 1, 3, return_indices=True, _random_samples=samples
            ),
        ],
        reference=reference,
    )(pool)


fractional_max_pool2d, fractional_max_pool3d = _fractional_max_pool(2), _fractional_max_pool(3)
