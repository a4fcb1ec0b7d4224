"""How the rows of the table are called in PyTorch, where that differs from calling them here."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

try:
    import torch
except ImportError:  # the tests that need it are skipped
    torch = None  # type: ignore[assignment]

# Rows without a counterpart in PyTorch, each with the reason. A row that has neither a name in
# PyTorch, nor an adaptor below, nor a reason here fails the tests: no comparison can vanish.
_IMPRECISE = "PyTorch's is right to seven digits only, from 5 on; SciPy and mpmath judge it"
_FLAT = "PyTorch's has no gradient; NumPy's polynomials judge the values"
WITHOUT: dict[str, str] = {
    **dict.fromkeys(("airy_ai", "j0", "j1", "y0", "y1"), _IMPRECISE),
    **{
        f"{name}_polynomial_{kind}": _FLAT
        for name, kinds in (
            ("chebyshev", "t u v w"), ("shifted_chebyshev", "t u v w"), ("hermite", "h he"),
            ("laguerre", "l"), ("legendre", "p"),
        )
        for kind in kinds.split()
    },
}  # fmt: skip

# Argument names that differ everywhere.
RENAMED = {"axis": "dim", "keepdims": "keepdim"}


def has_counterpart(row: Any) -> bool:
    """Whether the row can be compared with PyTorch."""
    return row.torch is not None or row.name in ADAPTORS


def call(row: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What PyTorch makes of a case of ``row``; the arrays are torch tensors already."""
    if row.name in ADAPTORS:
        return ADAPTORS[row.name](*args, **kwargs)
    function: Any = torch
    for name in row.torch.split("."):
        function = getattr(function, name)
    return function(*args, **{RENAMED.get(k, k): v for k, v in kwargs.items()})


# --- recurrent layers: PyTorch's own, one sequence at a time --------------------------------------


def _recurrent(
    kind: str, x: Any, *tensors: Any, nonlinearity: str = "tanh", lengths: Any = None,
    reverse: bool = False,
) -> Any:  # fmt: skip
    given: list[Any] = [*tensors, *[None] * (7 - len(tensors))]
    w_ih, w_hh, b_ih, b_hh, h, c, w_hr = given
    rows, batch = w_hh.shape[0], x.shape[1]
    zeros = torch.zeros(rows, dtype=x.dtype)
    weights = [w_ih, w_hh, zeros if b_ih is None else b_ih, zeros if b_hh is None else b_hh]
    weights += [] if w_hr is None else [w_hr]
    h = torch.zeros(batch, w_hh.shape[1], dtype=x.dtype) if h is None else h
    c = torch.zeros(batch, rows // 4, dtype=x.dtype) if c is None else c
    run = getattr(torch, kind if kind != "rnn" else f"rnn_{nonlinearity}")
    parts = []
    for k in range(batch):
        part = x[: x.shape[0] if lengths is None else lengths[k], k : k + 1]
        part = part.flip(0) if reverse else part
        state = h[None, k : k + 1], c[None, k : k + 1]
        y, *last = run(
            part, state if kind == "lstm" else state[0], weights, True, 1, 0.0, False, False, False
        )
        y = y.flip(0) if reverse else y
        empty = torch.zeros(x.shape[0] - len(y), 1, y.shape[2], dtype=x.dtype)
        parts.append((torch.cat([y, empty]), *[z[0] for z in last]))
    columns = list(zip(*parts, strict=True))
    return torch.cat(columns[0], 1), *[torch.cat(z, 0) for z in columns[1:]]


# --- elementwise ----------------------------------------------------------------------------------


def _with_tensors(name: str) -> Callable[..., Any]:
    def two(a: Any, b: Any) -> Any:
        return getattr(torch, name)(a, torch.as_tensor(b, dtype=a.dtype))

    return two


# --- by position: NumPy's rules select, PyTorch differentiates ------------------------------------


def _positions(x: Any) -> Any:
    return np.arange(x.numel()).reshape(tuple(x.shape))


def _host(index: Any) -> Any:
    """An index of torch tensors as one of arrays."""
    if isinstance(index, tuple):
        return tuple(_host(i) for i in index)
    return index.numpy() if isinstance(index, torch.Tensor) else index


def _selected(x: Any, positions: Any) -> Any:
    return x.reshape(-1)[torch.as_tensor(np.array(positions))]


def _getitem(x: Any, index: Any) -> Any:
    return _selected(x, _positions(x)[_host(index)])


def _index_put(x: Any, index: Any, value: Any) -> Any:
    """The last value named for an element wins, as in NumPy."""
    index = _host(index)
    region = np.shape(_positions(x)[index])
    value = torch.as_tensor(value, dtype=x.dtype).expand(region).reshape(-1)
    winner = np.full(tuple(x.shape), -1)
    winner[index] = np.arange(math.prod(region)).reshape(region)
    if not value.numel():
        return x.clone()
    at = torch.as_tensor(winner)
    return torch.where(at >= 0, value[at.clamp(min=0)], x)


def _pad(x: Any, pad_width: Any, mode: str = "constant", constant_values: Any = 0) -> Any:
    if mode != "constant":
        return _selected(x, np.pad(_positions(x), pad_width, mode))  # type: ignore[call-overload]
    inside = np.pad(_positions(x) + 1, pad_width)
    filled = np.pad(np.zeros(tuple(x.shape)), pad_width, constant_values=constant_values)
    if not x.numel():
        return torch.as_tensor(filled)
    at = torch.as_tensor(inside)
    picked = x.reshape(-1)[(at - 1).clamp(min=0)]
    return torch.where(at > 0, picked, torch.as_tensor(filled))


def _take(x: Any, indices: Any, axis: int | None = None) -> Any:
    return _selected(x, np.take(_positions(x), _host(indices), axis))


def _imag(x: Any) -> Any:
    return torch.imag(x) if x.is_complex() else torch.zeros_like(x)


# --- shapes ---------------------------------------------------------------------------------------


def _axes(axis: Any, n: int) -> Any:
    if axis is None:
        return tuple(range(n))
    return (axis,) if isinstance(axis, int) else tuple(axis)


def _expand_dims(x: Any, axis: Any) -> Any:
    n = x.ndim + len(_axes(axis, 0))
    for place in sorted(a % n for a in _axes(axis, 0)):
        x = x.unsqueeze(place)
    return x


def _transpose(x: Any, axes: Any = None) -> Any:
    return x.permute(tuple(reversed(range(x.ndim))) if axes is None else axes)


def _concat(arrays: Sequence[Any], axis: int | None = 0) -> Any:
    if axis is None:
        return torch.cat([a.reshape(-1) for a in arrays])
    return torch.cat(list(arrays), axis)


def _meshgrid(*arrays: Any, indexing: str = "xy") -> Any:
    return torch.meshgrid(*arrays, indexing=indexing)


# --- linear algebra -------------------------------------------------------------------------------


def _dot(a: Any, b: Any) -> Any:
    if not (a.ndim and b.ndim):
        return a * b
    return torch.tensordot(a, b, dims=([a.ndim - 1], [max(b.ndim - 2, 0)]))


def _tensordot(a: Any, b: Any, axes: Any = 2) -> Any:
    if isinstance(axes, int):
        return torch.tensordot(a, b, dims=axes)
    one, two = (list(_axes(x, 0)) for x in axes)
    return torch.tensordot(a, b, dims=(one, two))


def _norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    order = 2 if ord in (None, "fro") else ord
    return torch.linalg.vector_norm(x, order, axis, keepdims)


# --- normalization --------------------------------------------------------------------------------


def _batch_norm(
    x: Any, mean: Any, var: Any, weight: Any = None, bias: Any = None, training: bool = False,
    **options: Any,
) -> Any:  # fmt: skip
    if training:
        call = torch.nn.functional.batch_norm
        return call(x, mean, var, weight, bias, training, **options)
    shape = (-1, *(1,) * (x.ndim - 2))  # PyTorch gives running statistics no gradient
    z = (x - mean.reshape(shape)) / torch.sqrt(var.reshape(shape) + 1e-5)
    return z * weight.reshape(shape) + bias.reshape(shape)


# --- along axes -----------------------------------------------------------------------------------


def _logsumexp(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    return torch.logsumexp(x, _axes(axis, x.ndim), keepdims)


def _place_of(name: str) -> Callable[..., Any]:
    def place(x: Any, axis: int | None = None, keepdims: bool = False) -> Any:
        return getattr(torch, name)(x, axis, keepdims)

    return place


def _count_nonzero(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    return (x != 0).sum(_axes(axis, x.ndim), keepdim=keepdims)


def _prod(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    for place in sorted((a % x.ndim for a in _axes(axis, x.ndim)), reverse=True):
        x = x.prod(place, keepdim=keepdims)
    return x


def _cumulative(name: str, start: float) -> Callable[..., Any]:
    def run(x: Any, axis: int | None = None, include_initial: bool = False) -> Any:
        place = 0 if axis is None else axis
        if include_initial:
            first = torch.full_like(x.narrow(place, 0, 1), start)
            x = torch.cat([first, x], place)
        return getattr(torch, name)(x, place)

    return run


def _linear_recurrence(a: Any, b: Any, axis: int = 0, reverse: bool = False) -> Any:
    factors, terms = list(a.unbind(axis)), list(b.unbind(axis))
    if reverse:
        factors, terms = factors[::-1], terms[::-1]
    sums = terms[:1]
    for factor, term in zip(factors[1:], terms[1:], strict=True):
        sums.append(term + factor * sums[-1])
    return torch.stack(sums[::-1] if reverse else sums, axis)


def _sort(x: Any, axis: int = -1, descending: bool = False) -> Any:
    return torch.sort(x, dim=axis, descending=descending, stable=True).values


def _argsort(x: Any, axis: int = -1, descending: bool = False) -> Any:
    return torch.sort(x, dim=axis, descending=descending, stable=True).indices


# --- making tensors -------------------------------------------------------------------------------


def _arange(start: float, stop: float | None = None, step: float = 1) -> Any:
    if stop is None:
        start, stop = 0, start
    if (stop - start) * step <= 0:
        return torch.arange(0)
    return torch.arange(start, stop, step)


def _linspace(start: float, stop: float, num: int, endpoint: bool = True) -> Any:
    if endpoint:
        return torch.linspace(start, stop, num, dtype=torch.float64)
    return torch.linspace(start, stop, num + 1, dtype=torch.float64)[:-1]


def _eye(n: int, m: int | None = None, k: int = 0) -> Any:
    return torch.ones(n, n if m is None else m).triu(k).tril(k)


def _rotary_embedding(
    x: Any, offset: int = 0, base: float = 10000.0, interleaved: bool = True
) -> Any:
    """By multiplication with complex numbers of length 1."""
    length, size = x.shape[-2:]
    waves = base ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
    angle = torch.outer(torch.arange(offset, offset + length, dtype=torch.float64), waves)
    pairs = x.unflatten(-1, (-1, 2) if interleaved else (2, -1))
    pairs = pairs if interleaved else pairs.mT
    turned = torch.view_as_complex(pairs.contiguous()) * torch.polar(torch.ones_like(angle), angle)
    found = torch.view_as_real(turned)
    return (found if interleaved else found.mT).flatten(-2)


# name of the row -> the call, made with torch tensors in place of arrays
def _bias_activation(z: Any, bias: Any, name: str, **options: Any) -> Any:
    if name == "gelu_tanh":
        return torch.nn.functional.gelu(z + bias, approximate="tanh")
    function: Any = getattr(torch.nn.functional, name)
    return function(z + bias, **options)


def _binary_cross_entropy(x: Any, t: Any, weight: Any = None, reduction: str = "mean") -> Any:
    """By a product: PyTorch's function has no gradient of the weights."""
    each = torch.nn.functional.binary_cross_entropy(x, t, reduction="none")
    each = each if weight is None else each * weight
    return each if reduction == "none" else getattr(each, reduction)()


def _ctc_loss(
    x: Any, targets: Any, steps: Any, lengths: Any, blank: int = 0, reduction: str = "mean",
    zero_infinity: bool = False,
) -> Any:  # fmt: skip
    """With the gradient by logarithms as they are: PyTorch takes them for those of a softmax, and
    adds the probabilities to it."""
    rows = x if x.ndim == 3 else x[:, None]
    steps, lengths = (torch.as_tensor(n).reshape(-1) for n in (steps, lengths))
    labels = targets if x.ndim == 3 else targets[None]
    function = torch.nn.functional.ctc_loss
    each = function(rows, labels, steps, lengths, blank, "none", zero_infinity)
    counted = torch.arange(len(x))[:, None] < steps
    if zero_infinity:
        counted = counted & (function(rows, labels, steps, lengths, blank, "none") < math.inf)
    total = (rows.exp() * counted[:, :, None]).sum((0, 2))
    each = each - (total - total.detach())
    if reduction == "mean":
        return (each / lengths.clamp(min=1)).mean()
    return each.sum() if reduction == "sum" else each.reshape(x.shape[1:-1])


def _fractional(name: str) -> Callable[..., Any]:
    def pool(x: Any, k: int, size: int, return_indices: bool = False, **samples: Any) -> Any:
        drawn = torch.tensor(samples["_random_samples"], dtype=x.dtype)
        function = getattr(torch.nn.functional, name)
        return function(x, k, size, None, return_indices, _random_samples=drawn)

    return pool


def _polygamma(n: int, x: Any) -> Any:
    """By zeta: PyTorch's own for n = 1 is right to 1e-9 only."""
    if not n:
        return torch.digamma(x)
    return (-1.0) ** (n + 1) * math.factorial(n) * torch.special.zeta(n + 1.0, x)


def _betaln(a: Any, b: Any) -> Any:
    return torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)


def _sloping(name: str, slope: Callable[..., Any]) -> Callable[[Any], Any]:
    """A function that has no gradient in PyTorch, with this one: of special, x and the value."""

    def call(x: Any) -> Any:
        of, at = torch.special, x.detach()
        y = getattr(of, name)(at)
        return y + slope(of, at, y) * (x - at)

    return call


def _incomplete_gamma(name: str) -> Callable[[Any, Any], Any]:
    """With its gradient in the first argument, by differences."""

    def call(a: Any, x: Any) -> Any:
        of, at, h = getattr(torch.special, name), a.detach(), 0.02
        near, far, farther = (of(at + k * h, x) - of(at - k * h, x) for k in (1, 2, 3))
        slope = (45 * near - 9 * far + farther) / (60 * h)
        return of(at, x) + slope.detach() * (a - at)

    return call


_SLOPES: dict[str, tuple[str, Callable[..., Any]]] = {
    "k0": ("modified_bessel_k0", lambda of, x, y: -of.modified_bessel_k1(x)),
    "k1": ("modified_bessel_k1", lambda of, x, y: -of.modified_bessel_k0(x) - y / x),
    "k0e": ("scaled_modified_bessel_k0", lambda of, x, y: y - of.scaled_modified_bessel_k1(x)),
    "k1e": (
        "scaled_modified_bessel_k1",
        lambda of, x, y: y - y / x - of.scaled_modified_bessel_k0(x),
    ),
}


ADAPTORS: dict[str, Callable[..., Any]] = {
    "beta": lambda a, b: torch.exp(_betaln(a, b)),
    "betaln": _betaln,
    "gammainc": _incomplete_gamma("gammainc"),
    "gammaincc": _incomplete_gamma("gammaincc"),
    "polygamma": _polygamma,
    **{name: _sloping(*pair) for name, pair in _SLOPES.items()},
    "gamma": lambda x: torch.exp(torch.lgamma(x)),
    "erfcinv": lambda x: torch.erfinv(1 - x),
    "spherical_bessel_j0": lambda x: torch.sinc(x / math.pi),
    **{kind: functools.partial(_recurrent, kind) for kind in ("gru", "lstm", "rnn")},
    "ctc_loss": _ctc_loss,
    "bias_activation": _bias_activation,
    "linear_activation": lambda x, w, b, name: _bias_activation(
        torch.nn.functional.linear(x, w), b, name
    ),
    "fractional_max_pool2d": _fractional("fractional_max_pool2d"),
    "fractional_max_pool3d": _fractional("fractional_max_pool3d"),
    "channel_shuffle": lambda x, groups: torch.channel_shuffle(x, groups),
    "rotary_embedding": _rotary_embedding,
    "binary_cross_entropy": _binary_cross_entropy,
    "imag": _imag,
    "sign": lambda x: torch.sgn(x) if x.is_complex() else torch.sign(x),
    "maximum": _with_tensors("maximum"),
    "minimum": _with_tensors("minimum"),
    "transpose": _transpose,
    "matrix_transpose": lambda x: x.mT,
    "expand_dims": _expand_dims,
    "flip": lambda x, axis=None: torch.flip(x, _axes(axis, x.ndim)),
    "split": lambda x, parts, axis=0: torch.tensor_split(x, parts, axis),
    "concat": _concat,
    "roll": lambda x, shift, axis=None: torch.roll(x, shift, axis),
    "meshgrid": _meshgrid,
    "getitem": _getitem,
    "index_put": _index_put,
    "take": _take,
    "take_along_axis": lambda x, i, axis=-1: torch.take_along_dim(x, i, axis),
    "gather": lambda x, i, axis: torch.gather(x, axis, i),
    "angle": lambda x, deg=False: torch.angle(x) * (180.0 / math.pi if deg else 1.0),
    "cummax": lambda x, axis: tuple(torch.cummax(x, axis)),
    "cummin": lambda x, axis: tuple(torch.cummin(x, axis)),
    "logcumsumexp": lambda x, axis: torch.logcumsumexp(x, axis),
    "index_add": lambda x, i, src, axis=0: torch.index_add(x, axis, i, src),
    "scatter": lambda x, i, src, axis: torch.scatter(x, axis, i % x.shape[axis], src),
    "scatter_reduce": lambda x, i, src, axis, reduce="sum", include_self=True: torch.scatter_reduce(
        x, axis, i, src, reduce, include_self=include_self
    ),
    "scatter_add": lambda x, i, src, axis: torch.scatter_add(x, axis, i, src),
    "one_hot": lambda x, n: torch.nn.functional.one_hot(x, n).float(),
    "nonzero": lambda x: torch.nonzero(x, as_tuple=True),
    "pad": _pad,
    "repeat": lambda x, n, axis=None: torch.repeat_interleave(x, n, axis),
    "tril": lambda x, k=0: torch.tril(x, k),
    "triu": lambda x, k=0: torch.triu(x, k),
    "diag": lambda x, k=0: torch.diag(x, k),
    "dot": _dot,
    "vecdot": lambda a, b, axis=-1: torch.linalg.vecdot(a, b, dim=axis),
    "tensordot": _tensordot,
    "trace": lambda x, *where: torch.diagonal(x, *where).sum(-1),
    "norm": _norm,
    "batch_norm": _batch_norm,
    "hardsigmoid": lambda x: torch.nn.functional.relu6(x + 3) / 6,  # the other slope is a float32
    "logsumexp": _logsumexp,
    "argmax": _place_of("argmax"),
    "argmin": _place_of("argmin"),
    "count_nonzero": _count_nonzero,
    "prod": _prod,
    "cumulative_sum": _cumulative("cumsum", 0.0),
    "cumulative_prod": _cumulative("cumprod", 1.0),
    "linear_recurrence": _linear_recurrence,
    "sort": _sort,
    "argsort": _argsort,
    "round": lambda x, decimals=0: torch.round(x, decimals=decimals),
    "cbrt": lambda x: torch.sign(x) * torch.abs(x) ** (1 / 3),
    "topk": lambda x, k, axis=-1, largest=True: tuple(torch.topk(x, k, axis, largest)),
    "full": lambda shape, value: torch.full((shape,) if isinstance(shape, int) else shape, value),
    "eye": _eye,
    "arange": _arange,
    "linspace": _linspace,
}
