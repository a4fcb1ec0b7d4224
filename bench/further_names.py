"""How functions of PyTorch's namespaces and a few of its own are called here.

For ``bench.coverage``: special functions, transforms, windows, masks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations, combinations_with_replacement
from typing import Any

import numpy as np

import tensorgrad
from tensorgrad import signal

#: Asked for names that may not be there.
tg: Any = tensorgrad

Function = Callable[..., Any]


def _of(namespace: str, name: str) -> Function:
    """The function of this name when it is called; RuntimeError tells that there is none."""
    return lambda *args, **kwargs: getattr(getattr(tg, namespace), name)(*args, **kwargs)


def _transform(name: str) -> Function:
    """Of several axes, which PyTorch calls dim."""

    def call(x: Any, s: Any = None, dim: Any = None, norm: Any = None) -> Any:
        axes = (
            {} if dim is None and name.endswith("n") else {"axes": (-2, -1) if dim is None else dim}
        )
        return getattr(tg.fft, name)(x, s, norm=norm, **axes)

    return call


def _window(name: str) -> Function:
    def call(M: int, *, sym: bool = True, dtype: Any = None, **kwargs: Any) -> Any:
        for other in ("device", "layout", "requires_grad"):
            kwargs.pop(other, None)
        return getattr(signal.windows, name)(M, sym=sym, dtype=dtype, **kwargs)

    return call


def _drawn(shape: Any, **_: Any) -> Any:
    return tg.random.normal(tuple(shape), dtype=tg.float64)


def _middles(x: Any, dim: Any, keepdim: bool) -> Any:
    """The lower of two middles of what is no NaN, with its place."""
    flat = dim is None or not x.ndim
    y, axis = (x.reshape(-1), 0) if flat else (x, dim)
    places = tg.argsort(y, axis=axis)
    count = tg.sum(y == y, axis=axis, keepdims=True)
    count = count if hasattr(count, "node") else tg.asarray(count)
    middle = tg.maximum((count + 1) // 2 - 1, 0)
    place = tg.take_along_axis(places, middle, axis=axis)
    values = tg.take_along_axis(y, place, axis=axis)
    if dim is None:
        return values.squeeze(0)
    if flat:
        return values.squeeze(0), place.squeeze(0)
    return (values, place) if keepdim else (values.squeeze(dim), place.squeeze(dim))


def _stft(x: Any, n_fft: int, return_complex: bool = True, **options: Any) -> Any:
    y = tg.signal.stft(x, n_fft, **options)
    return y if return_complex else tg.stack([tg.real(y), tg.imag(y)], axis=-1)


def _chosen(x: Any, r: int = 2, with_replacement: bool = False) -> Any:
    choose = combinations_with_replacement if with_replacement else combinations
    places = np.array(list(choose(range(x.shape[0]), r)), np.int64).reshape(-1, r)
    return x[tg.asarray(places)]


def _trapezoids(y: Any, x: Any = None, dx: float = 1.0, dim: int = -1) -> Any:
    def cut(a: Any, start: Any, stop: Any, axis: int) -> Any:
        return a[(*[slice(None)] * (axis % a.ndim), slice(start, stop))]

    heights = 0.5 * (cut(y, None, -1, dim) + cut(y, 1, None, dim))
    if x is not None:
        along = -1 if x.ndim == 1 else dim
        steps = cut(x, 1, None, along) - cut(x, None, -1, along)
        if x.ndim == 1 and y.ndim > 1:
            steps = steps.reshape([-1 if k == dim % y.ndim else 1 for k in range(y.ndim)])
        heights = heights * steps
    else:
        heights = heights * dx
    return tg.cumsum(heights, axis=dim)


def _kept(x: Any, mask: Any, other: float) -> Any:
    return x if mask is None else tg.where(mask, x, tg.full_like(x, other))


def _axes(dim: Any) -> Any:
    return None if dim is None or dim == [] else tuple(dim) if isinstance(dim, list) else dim


def _masked_mean(
    x: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None, mask: Any = None
) -> Any:
    held = tg.ones(x.shape, dtype=x.dtype) if mask is None else _kept(tg.ones_like(x), mask, 0.0)
    total = tg.sum(_kept(x, mask, 0.0), axis=_axes(dim), keepdims=keepdim)
    return total / tg.sum(held, axis=_axes(dim), keepdims=keepdim)


def _masked_moment(root: bool) -> Function:
    def call(
        x: Any, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False,
        dtype: Any = None, mask: Any = None, correction: Any = None,
    ) -> Any:  # fmt: skip
        less = (
            float(unbiased) if unbiased is not None else 1.0 if correction is None else correction
        )
        axes = _axes(dim)
        held = tg.ones(x.shape, dtype=x.dtype)
        held = held if mask is None else _kept(held, mask, 0.0)
        mean = _masked_mean(x, dim, True, mask=mask)
        squares = _kept((x - mean) ** 2, mask, 0.0)
        count = tg.sum(held, axis=axes, keepdims=keepdim)
        y = tg.sum(squares, axis=axes, keepdims=keepdim) / tg.maximum(count - less, 0.0)
        return tg.sqrt(y) if root else y

    return call


def _normalized(
    x: Any, ord: float, dim: Any, eps: float = 1e-12, mask: Any = None, **_: Any
) -> Any:
    kept = _kept(x, mask, math.inf if ord == -math.inf else 0.0)
    size = tg.linalg.vector_norm(kept, ord=ord, axis=_axes(dim), keepdims=True)
    return _kept(x, mask, 0.0) / tg.maximum(size, eps)


def _consecutive(
    x: Any, return_inverse: bool = False, return_counts: bool = False, dim: Any = None
) -> Any:
    y = x.reshape(-1) if dim is None else tg.moveaxis(x, dim, 0)
    n = y.shape[0]
    rows = y.reshape(n, -1) if n else y
    new = [k == 0 or bool((rows[k] != rows[k - 1]).any().item()) for k in range(n)]
    kept = tg.asarray(np.flatnonzero(new).astype(np.int64))
    values = y[kept] if dim is None else tg.moveaxis(y[kept], 0, dim)
    inverse = tg.asarray(np.cumsum(new, dtype=np.int64) - 1)
    inverse = inverse.reshape(x.shape) if dim is None else inverse
    ends = np.append(np.flatnonzero(new), n)
    counts = tg.asarray(np.diff(ends).astype(np.int64))
    more = [inverse] * return_inverse + [counts] * return_counts
    return (values, *more) if more else values


def _most_frequent(x: Any, dim: int = -1, keepdim: bool = False) -> Any:
    a = np.moveaxis(np.atleast_1d(x.detach().numpy()), dim, -1)
    places = np.zeros(a.shape[:-1], np.int64)
    for index in np.ndindex(places.shape):
        values, counts = np.unique(a[index], return_counts=True)
        places[index] = np.flatnonzero(a[index] == values[counts.argmax()])[-1]
    if not x.ndim:
        return x, tg.asarray(np.int64(0))
    place = tg.asarray(np.expand_dims(places, dim))
    y = tg.take_along_axis(x, place, axis=dim)
    return (y, place) if keepdim else (y.squeeze(dim), place.squeeze(dim))


def _to(x: Any, *args: Any, **_: Any) -> Any:
    kinds = [a for a in args if not isinstance(a, (bool, str, tg.Tensor))]
    like = [a.dtype for a in args if isinstance(a, tg.Tensor)]
    return x.astype((like + kinds)[0]) if like + kinds else x.to("cpu")


def _histogram(
    x: Any, bins: Any, range: Any = None, weight: Any = None, density: bool = False
) -> Any:
    found = tg.histogram(x, bins, range=range, weights=weight, density=density)
    return found[0].astype(x.dtype), found[1].astype(x.dtype)


def _histogram_of_many(
    x: Any, bins: Any, range: Any = None, weight: Any = None, density: bool = False
) -> Any:
    pairs = (
        None if range is None else [(range[k], range[k + 1]) for k in np.arange(0, len(range), 2)]
    )
    counts, edges = tg.histogramdd(
        x.reshape(-1, x.shape[-1]), bins, range=pairs, density=density,
        weights=None if weight is None else weight.reshape(-1),
    )  # fmt: skip
    return counts.astype(x.dtype), [e.astype(x.dtype) for e in edges]


def _counts(x: Any, bins: int = 100, min: float = 0, max: float = 0) -> Any:
    if min == max:
        min, max = x.min().item(), x.max().item()
    return tg.histogram(x, bins, range=(min, max))[0].astype(x.dtype)


def _gradient(x: Any, spacing: Any = None, dim: Any = None, edge_order: int = 1) -> Any:
    axes = dim if dim is None or isinstance(dim, int) else tuple(dim)
    given = (
        []
        if spacing is None
        else list(spacing)
        if isinstance(spacing, (list, tuple))
        else [spacing]
    )
    found = tg.gradient(x, *given, axis=axes, edge_order=edge_order)
    return list(found) if isinstance(found, (list, tuple)) else [found]


#: PyTorch's top level has them too.
_SPECIAL = {
    "digamma": "digamma", "erfc": "erfc", "erfinv": "erfinv", "i0": "i0", "igamma": "gammainc",
    "igammac": "gammaincc", "lgamma": "gammaln", "logit": "logit", "mvlgamma": "multigammaln",
    "sinc": "sinc", "xlogy": "xlogy",
}  # fmt: skip

_OF_SEVERAL_AXES = (
    "fft2", "fftn", "ifft2", "ifftn", "rfft2", "rfftn", "irfft2", "irfftn", "hfft2", "hfftn",
    "ihfft2", "ihfftn",
)  # fmt: skip

CALLS: dict[str, Function] = {
    **{theirs: _of("special", ours) for theirs, ours in _SPECIAL.items()},
    **{f"fft.{name}": _transform(name) for name in _OF_SEVERAL_AXES},
    "fft.fftshift": lambda x, dim=None: tg.fft.fftshift(x, axes=dim),
    "fft.ifftshift": lambda x, dim=None: tg.fft.ifftshift(x, axes=dim),
    **{f"signal.windows.{name}": _window(name) for name in signal.windows.__all__},
    "polygamma": lambda x, n: tg.special.polygamma(n, x),
    # PyTorch's samples give the number first here, in the place of the input
    "special.polygamma": lambda x, n: tg.special.polygamma(n, x),
    "stft": _stft,
    "istft": lambda x, n_fft, **options: tg.signal.istft(x, n_fft, **options),
    "view_as_real": lambda x: tg.stack([tg.real(x), tg.imag(x)], axis=-1),
    "view_as_complex": lambda x: x[..., 0] + 1j * x[..., 1],
    "polar": lambda r, angle: r * tg.cos(angle) + 1j * (r * tg.sin(angle)),
    "isreal": lambda x: tg.imag(x) == 0,
    "cdouble": lambda x, **_: x.astype(tg.complex128),
    "cfloat": lambda x, **_: x.astype(tg.complex64),
    "to": _to,
    "randn": _drawn,
    "randn_like": lambda x, **_: _drawn(x.shape),
    "rand_like": lambda x, **_: _drawn(x.shape),
    "randint": lambda *args, **_: _drawn(next(a for a in args if isinstance(a, (tuple, list)))),
    "randint_like": lambda x, *_, **__: _drawn(x.shape),
    "new_empty": lambda x, shape, **_: tg.empty(tuple(shape)),
    "normal number_mean": lambda mean, std, shape=(), **_: _drawn(
        std.shape if isinstance(std, tg.Tensor) else shape
    ),
    "normal": lambda mean, std, **_: (
        mean + std * _drawn(tg.broadcast_arrays(mean, std)[0].shape)
        if isinstance(std, tg.Tensor)
        else mean + std * _drawn(mean.shape)
    ),
    "combinations": _chosen,
    "cumulative_trapezoid": _trapezoids,
    "unique_consecutive": _consecutive,
    "mode": _most_frequent,
    "histogram": _histogram,
    "histogramdd": _histogram_of_many,
    "histc": _counts,
    "gradient": _gradient,
    "nanmedian": lambda x, dim=None, keepdim=False: _middles(x, dim, keepdim),
    "take_along_dim": lambda x, places, dim=None: (
        tg.take_along_axis(x.reshape(-1), places.reshape(-1), axis=0)
        if dim is None
        else tg.take_along_axis(x, places, axis=dim)
    ),
    "dist": lambda a, b, p=2: tg.linalg.vector_norm((a - b).reshape(-1), ord=p),
    "masked.mean": _masked_mean,
    "masked.var": _masked_moment(False),
    "masked.std": _masked_moment(True),
    "masked.normalize": _normalized,
    "masked.median": lambda x, dim, keepdim=False, mask=None: _middles(
        _kept(x, mask, math.nan), dim, keepdim
    )[0],
}
