"""How the operations of PyTorch's own table are called here, for ``bench.coverage``.

Most bear the same name. ``CALLS`` has those whose arguments come in another order or under other
names, and those that NumPy writes as an expression; ``WITHOUT`` those that mean nothing outside
PyTorch, each with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import tensorgrad
from bench import further_names, matrix_names

#: Asked for names that may not be there.
tg: Any = tensorgrad

Function = Callable[..., Any]

#: Names of arguments that differ everywhere.
RENAMED = {"dim": "axis", "keepdim": "keepdims", "dims": "axis", "input": "x"}

#: Operations that have no meaning in NumPy, SciPy or ``torch.nn``, by the reason.
WITHOUT: dict[str, str] = {
    name: reason
    for reason, names in {
        "copies of views, where PyTorch's passes cannot have views": (
            "alias_copy as_strided_copy diagonal_copy expand_copy narrow_copy permute_copy "
            "split_with_sizes_copy squeeze_copy t_copy transpose_copy unbind_copy unfold_copy "
            "unsqueeze_copy view_copy"
        ),
        "storage and strides are not what a value has": (
            "as_strided as_strided_scatter contiguous empty_permuted empty_strided "
            "new_empty_strided resize_ resize_as_ resolve_conj resolve_neg conj_physical"
        ),
        "a part of another operation's inside": (
            "_batch_norm_with_update _chunk_cat _native_batch_norm_legit _segment_reduce "
            "_softmax_backward_data _unsafe_masked_index _unsafe_masked_index_put_accumulate "
            "_upsample_bilinear2d_aa max_pool2d_with_indices_backward native_batch_norm "
            "native_dropout_backward native_group_norm native_layer_norm unsafe_chunk "
            "unsafe_split constant_pad_nd grid_sampler_2d grid_sampler_3d nonzero_static "
            "hash_tensor torch._scaled_mm torch._scaled_mm_v2 "
            "torch.ops.aten._efficient_attention_forward torch.ops.aten._flash_attention_forward "
            "torch.ops.aten._safe_softmax.default linalg.cholesky_ex linalg.inv_ex "
            "linalg.lu_factor_ex linalg.solve_ex linalg.ldl_factor_ex"
        ),
        "kernels compiled by PyTorch": (
            "jiterator_2inputs_2outputs jiterator_4inputs_with_extra_args jiterator_binary "
            "jiterator_binary_return_by_ref jiterator_unary"
        ),
        "PyTorch's sparse tensors": "sparse.mm sparse.sampled_addmm to_sparse",
        "numbers drawn in place": "cauchy exponential geometric log_normal uniform",
        "complex numbers of two 16-bit floats": "chalf",
    }.items()
    for name in names.split()
}


def _named(function: str | Function, order: str = "", **fixed: Any) -> Function:
    """``function`` called with positional arguments by the names that ``order`` has for them.

    The names before "|" stay positional.
    """
    first, _, rest = order.partition("|")
    count, names = len(first.split()), rest.split()

    def call(*args: Any, **kwargs: Any) -> Any:
        f = found(function) if isinstance(function, str) else function
        if f is None:
            raise AttributeError(f"tensorgrad has no {function}")
        given = {**fixed, **dict(zip(names, args[count:])), **kwargs}
        for name in ("memory_format", "layout", "requires_grad", "pin_memory", "device"):
            given.pop(name, None)
        return f(*args[:count], **{RENAMED.get(k, k): v for k, v in given.items()})

    return call


def found(name: str) -> Function | None:
    """What bears the name: a function of ``tensorgrad``, of a namespace of it, or a method."""
    path = name.split(".")
    for namespace in ("nn.functional", "linalg", "fft", "special"):
        if name.startswith(namespace + "."):
            path = [*namespace.split("."), name.removeprefix(namespace + ".")]
    place: Any = tg
    for part in path[:-1]:
        place = getattr(place, part, None)
    last = path[-1]
    direct = getattr(place, last, None)
    if callable(direct):
        return direct
    if len(path) == 1 and hasattr(tg.Tensor, last):
        method = getattr(tg.Tensor, last)
        return method if callable(method) else lambda x: getattr(x, last)
    return None


def ours(name: str, variant: str = "") -> Function | None:
    """The function that computes what PyTorch's operation does; None if there is none."""
    for key in (f"{name} {variant}", name):
        for calls in (matrix_names.CALLS, further_names.CALLS, CALLS):
            if key in calls:
                return calls[key]
    if found(name) is None:
        return None
    return _named(name, "a b c d e f g h |")


def _pair(values: Function, places: Function) -> Function:
    """Extremes along an axis with their places, as PyTorch gives both."""

    def call(x: Any, dim: int, keepdim: bool = False) -> Any:
        return values(x, axis=dim, keepdims=keepdim), places(x, axis=dim, keepdims=keepdim)

    return call


def _reduction(name: str, order: str = "x | dim keepdim") -> Function:
    return _named(name, order)


def _moment(name: str) -> Function:
    """Variance and deviation: PyTorch's ``unbiased`` is a correction of 1."""

    def call(
        x: Any, dim: Any = None, unbiased: Any = None, keepdim: bool = False, correction: Any = 1
    ) -> Any:
        if isinstance(dim, bool):
            dim, unbiased = None, dim
        if unbiased is not None:
            correction = int(unbiased)
        correction = 1 if correction is None else correction
        return getattr(tg, name)(x, axis=_axes(dim), correction=correction, keepdims=keepdim)

    return call


def _axes(dim: Any) -> Any:
    return None if dim is None or dim == [] else tuple(dim) if isinstance(dim, list) else dim


def _with_mean(name: str) -> Function:
    moment = _moment(name)

    def call(x: Any, dim: Any = None, *args: Any, **kwargs: Any) -> Any:
        axis = None if isinstance(dim, bool) else _axes(dim)
        mean = tg.mean(x, axis=axis, keepdims=kwargs.get("keepdim", False))
        return moment(x, dim, *args, **kwargs), mean

    return call


def _scaled(a: Function) -> Function:
    """``beta * input + alpha * product``."""
    return lambda x, *f, beta=1, alpha=1: beta * x + alpha * a(*f)


def _sized(x: Any, *sizes: Any) -> Any:
    return sizes[0] if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)) else sizes


CALLS: dict[str, Function] = {
    # products
    "addmm": _scaled(lambda a, b: a @ b),
    "addmv": _scaled(lambda a, b: a @ b),
    "addbmm": _scaled(lambda a, b: (a @ b).sum(axis=0)),
    "baddbmm": _scaled(lambda a, b: a @ b),
    "addr": _scaled(lambda a, b: tg.outer(a, b)),
    "bmm": lambda a, b, **_: a @ b,
    "mm": lambda a, b: a @ b,
    "mv": lambda a, b: a @ b,
    "addcmul": lambda x, a, b, value=1: x + value * a * b,
    "addcdiv": lambda x, a, b, value=1: x + value * a / b,
    "tensordot": lambda a, b, dims=2: tg.tensordot(a, b, axes=dims),
    "inner": lambda a, b: tg.inner(a, b),
    "dist": lambda a, b, p=2: tg.norm((a - b).ravel(), p),
    # arithmetic
    "add": lambda a, b, alpha=1: a + alpha * b,
    "sub": lambda a, b, alpha=1: a - alpha * b,
    "rsub": lambda a, b, alpha=1: b - alpha * a,
    "mul": lambda a, b: a * b,
    "neg": lambda x: -x,
    "true_divide": lambda a, b: a / b,
    "div": lambda a, b, rounding_mode=None: (
        a / b
        if rounding_mode is None
        else tg.floor_divide(a, b)
        if rounding_mode == "floor"
        else tg.trunc(a / b)
    ),
    "__rdiv__": lambda a, b: b / a,
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "bitwise_not": lambda x: ~x,
    "clamp_max": lambda x, most: tg.minimum(x, most),
    "clamp_min": lambda x, least: tg.maximum(x, least),
    "frac": lambda x: x - tg.trunc(x),
    "lerp": lambda a, b, weight: a + weight * (b - a),
    "round": lambda x, decimals=0: tg.round(x, decimals=decimals) if decimals else tg.round(x),
    "float_power": lambda a, b: tg.float_power(a, b),
    "vdot": lambda a, b: tg.vdot(a, b),
    "sgn": lambda x: tg.sign(x),
    "igamma": lambda a, x: tg.special.gammainc(a, x),
    "igammac": lambda a, x: tg.special.gammaincc(a, x),
    "polar": lambda r, phi: tg.polar(r, phi),
    # reductions
    "sum": _reduction("sum"),
    "mean": _reduction("mean"),
    "prod": _reduction("prod"),
    "nansum": _reduction("nansum"),
    "nanmean": _reduction("nanmean"),
    "amax": _reduction("max"),
    "amin": _reduction("min"),
    "all": _reduction("all"),
    "any": _reduction("any"),
    "argmax": _reduction("argmax"),
    "argmin": _reduction("argmin"),
    "count_nonzero": _reduction("count_nonzero"),
    "logsumexp": _reduction("logsumexp"),
    "var": _moment("var"),
    "std": _moment("std"),
    "var_mean": _with_mean("var"),
    "std_mean": _with_mean("std"),
    "max reduction_with_dim": _pair(tg.max, tg.argmax),
    "min reduction_with_dim": _pair(tg.min, tg.argmin),
    "max binary": lambda a, b: tg.maximum(a, b),
    "min binary": lambda a, b: tg.minimum(a, b),
    "aminmax": lambda x, dim=None, keepdim=False: (
        tg.min(x, axis=dim, keepdims=keepdim),
        tg.max(x, axis=dim, keepdims=keepdim),
    ),
    "norm": lambda x, p="fro", dim=None, keepdim=False: _norm(x, p, dim, keepdim),
    "norm nuc": lambda x, p, dim=None, keepdim=False: _linalg_norm(x, p, dim, keepdim),
    "linalg.norm": lambda x, ord=None, dim=None, keepdim=False: _linalg_norm(x, ord, dim, keepdim),
    "linalg.matrix_norm": lambda x, ord="fro", dim=(-2, -1), keepdim=False: _linalg_norm(
        x, ord, tuple(dim), keepdim
    ),
    "linalg.vector_norm": lambda x, ord=2, dim=None, keepdim=False, dtype=None: (
        tg.linalg.vector_norm(x, ord=ord, axis=_axes(dim), keepdims=keepdim)
    ),
    "median": lambda x, dim=None, keepdim=False: _middle(x, dim, keepdim, tg.isfinite),
    "kthvalue": lambda x, k, dim=-1, keepdim=False: _kth(x, k, dim, keepdim),
    "renorm": lambda x, p, dim, most: _renormed(x, p, dim, most),
    # places
    "movedim": lambda x, source, target: tg.moveaxis(x, source, target),
    "flip": _named("flip", "x | dim"),
    "roll": _named("roll", "x shift | dim"),
    "rot90": lambda x, k=1, dims=(0, 1): tg.rot90(x, k, axes=tuple(dims)),
    "repeat": lambda x, *sizes: tg.tile(x, _sized(x, *sizes)),
    "repeat_interleave": lambda x, repeats, dim=None, output_size=None: tg.repeat(
        x, repeats, axis=dim
    ),
    "expand": lambda x, *sizes: tg.broadcast_to(
        x,
        _filled(x, _sized(x, *sizes)),
    ),
    "expand_as": lambda x, other: tg.broadcast_to(x, other.shape),
    "broadcast_tensors": lambda *x: tg.broadcast_arrays(*x),
    "view": lambda x, *shape: x.reshape(_sized(x, *shape)),
    "view_as": lambda x, other: x.reshape(other.shape),
    "reshape_as": lambda x, other: x.reshape(other.shape),
    "unflatten": lambda x, dim, sizes: x.reshape(_unflattened(x, dim, sizes)),
    "flatten": lambda x, start_dim=0, end_dim=-1: tg.flatten(x, start_dim, end_dim),
    "sum_to_size": lambda x, *shape: _summed(x, _sized(x, *shape)),
    "t": lambda x: x.T,
    "transpose": lambda x, a, b: tg.swapaxes(x, a, b),
    "H": lambda x: tg.conj(x.T),
    "mH": lambda x: tg.conj(x.mT),
    "cat": _named("concat", "x | dim"),
    "stack": _named("stack", "x | dim"),
    "split": lambda x, sizes, dim=0: tg.split(x, _cuts(x, sizes, dim), axis=dim),
    "split_with_sizes": lambda x, sizes, dim=0: tg.split(x, _cuts(x, sizes, dim), axis=dim),
    "chunk": lambda x, count, dim=0: tg.split(
        x, _cuts(x, -(-x.shape[dim] // count), dim), axis=dim
    ),
    "tensor_split": lambda x, parts, dim=0: tg.array_split(x, _plain(parts), axis=dim),
    "unbind": lambda x, dim=0: tg.unstack(x, axis=dim),
    "narrow": lambda x, dim, start, length: _sliced(x, dim, int(start), int(start) + length),
    "slice": lambda x, dim=0, start=None, end=None, step=1: _sliced(x, dim, start, end, step),
    "select": lambda x, dim, index: tg.take(x, index, axis=dim),
    "squeeze": lambda x, dim=None: tg.squeeze(x, _ones(x, dim)),
    "diag": lambda x, k=0: tg.diag(x, k),
    "diagonal": lambda x, offset=0, dim1=0, dim2=1: tg.diagonal(x, offset, axis1=dim1, axis2=dim2),
    "diagflat": lambda x, offset=0: tg.diagflat(x, offset),
    "meshgrid": lambda *x, indexing: tg.meshgrid(
        *(x[0] if isinstance(x[0], (list, tuple)) else x), indexing=indexing
    ),
    "atleast_1d": lambda *x: _each(tg.atleast_1d, *x),
    "atleast_2d": lambda *x: _each(tg.atleast_2d, *x),
    "atleast_3d": lambda *x: _each(tg.atleast_3d, *x),
    "tril": lambda x, k=0: tg.tril(x, k=k),
    "triu": lambda x, k=0: tg.triu(x, k=k),
    "einsum": lambda operands, subscripts: tg.einsum(subscripts, *operands),
    "cartesian_prod": lambda *x: _product(x),
    "tril_indices": lambda n, m, k=0, **_: tg.stack(tg.tril_indices(n, k, m)),
    "triu_indices": lambda n, m, k=0, **_: tg.stack(tg.triu_indices(n, k, m)),
    # by indices
    "gather": lambda x, dim, index: tg.gather(x, index, axis=dim),
    "take_along_dim": lambda x, index, dim=None: tg.take_along_axis(x, index, axis=dim),
    "index_select": lambda x, dim, index: tg.take(x, index, axis=dim),
    "scatter": lambda x, dim, index, src=None, value=None, reduce=None: _scatter(
        x, dim, index, value if src is None else src, reduce
    ),
    "scatter_reduce": lambda x, dim, index, src, reduce, include_self=True: tg.scatter_reduce(
        x, index, src, dim, reduce, include_self
    ),
    "index_reduce": lambda x, dim, index, src, reduce, include_self=True: tg.scatter_reduce(
        x, _spread(index, src, dim), src, dim, reduce, include_self
    ),
    "put": lambda x, index, src, accumulate=False: _put(
        x.reshape(-1), (index.reshape(-1),), src.reshape(-1), accumulate
    ).reshape(x.shape),
    "diagonal_scatter": lambda x, src, offset=0, dim1=0, dim2=1: _on_diagonal(
        x, src, offset, dim1, dim2
    ),
    "diag_embed": lambda x, offset=0, dim1=-2, dim2=-1: _embedded(x, offset, dim1, dim2),
    "unfold": lambda x, dim, size, step: _windows(x, dim, size, step),
    "scatter_add": lambda x, dim, index, src: tg.scatter_add(x, index, src, axis=dim),
    "masked_fill": lambda x, mask, value: tg.where(mask, value, x),
    "masked_scatter": lambda x, mask, source: _scattered(x, mask, source),
    "index_put": lambda x, index, value, accumulate=False: _put(x, tuple(index), value, accumulate),
    "index_fill": lambda x, dim, index, value: _put(x, _at(x, dim, index), value),
    "index_copy": lambda x, dim, index, source: _put(x, _at(x, dim, index), source),
    "index_add": lambda x, dim, index, source, alpha=1: _put(
        x, _at(x, dim, index), alpha * source, True
    ),
    "select_scatter": lambda x, source, dim, index: _put(x, _at(x, dim, index), source),
    "slice_scatter": lambda x, source, dim=0, start=None, end=None, step=1: _put(
        x, _at(x, dim, slice(start, end, step)), source
    ),
    "unravel_index": lambda x, shape: tg.unravel_index(x, tuple(shape)),
    "masked_select": lambda x, mask: _masked(x, mask),
    "fill": lambda x, value: tg.full_like(x, value),
    "where": lambda a, mask, b: tg.where(mask, a, b),
    "nonzero": lambda x, as_tuple=False: _nonzero(x, as_tuple),
    "argwhere": lambda x: _nonzero(x, False),
    # scans and order
    "cumsum": _named("cumsum", "x | dim"),
    "cumprod": _named("cumprod", "x | dim"),
    "sort": lambda x, dim=-1, descending=False, stable=True: (
        tg.sort(x, axis=dim, descending=descending),
        tg.argsort(x, axis=dim, descending=descending),
    ),
    "argsort": _named("argsort", "x | dim descending"),
    "msort": lambda x: tg.sort(x, axis=0),
    "topk": lambda x, k, dim=-1, largest=True, sorted=True: tg.topk(x, k, dim, largest),
    "unique": lambda x, sorted=True, return_inverse=False, return_counts=False, dim=None: tg.unique(
        x, return_inverse=return_inverse, return_counts=return_counts, axis=dim
    ),
    "to": lambda x, device, dtype=None, *_, **__: x.to(dtype) if dtype is not None else x.to("cpu"),
    "normal in_place": lambda x, mean, std: x,
    "equal": lambda a, b: tg.array_equal(a, b),
    "logspace": lambda a, b, n, base=10.0, dtype=None, **_: tg.logspace(
        _number(a), _number(b), n, base=base, dtype=dtype
    ),
    "arange": lambda *args, end=None, dtype=None, **_: tg.arange(
        *args, *([] if end is None else [end]), dtype=dtype
    ),
    "bucketize": lambda x, edges, out_int32=False, right=False: tg.searchsorted(
        edges, x, side="right" if right else "left"
    ),
    "searchsorted": lambda edges, x, out_int32=False, right=False, side=None, sorter=None: (
        tg.searchsorted(edges, x, side=side or ("right" if right else "left"), sorter=sorter)
    ),
    "diff": lambda x, n=1, dim=-1, prepend=None, append=None: tg.diff(
        x, n=n, axis=dim, prepend=prepend, append=append
    ),
    "quantile": lambda x, q, dim=None, keepdim=False, interpolation="linear": tg.quantile(
        x, q, axis=dim, keepdims=keepdim, method=interpolation
    ),
    "nanquantile": lambda x, q, dim=None, keepdim=False, interpolation="linear": tg.nanquantile(
        x, q, axis=dim, keepdims=keepdim, method=interpolation
    ),
    "trapz": lambda y, x=None, dim=-1, dx=1.0: tg.trapezoid(y, x, dx, axis=dim),
    "trapezoid": lambda y, x=None, dim=-1, dx=1.0: tg.trapezoid(y, x, dx, axis=dim),
    "cov": lambda x, correction=1, fweights=None, aweights=None: tg.cov(
        x, ddof=correction, fweights=fweights, aweights=aweights
    ),
    "cross": lambda a, b, dim=None: tg.linalg.cross(a, b, axis=_three(a) if dim is None else dim),
    "softmax": _named("softmax", "x | dim"),
    "log_softmax": _named("log_softmax", "x | dim"),
    # with masks
    "masked.sum": lambda x, dim=None, keepdim=False, dtype=None, mask=None: tg.sum(
        _kept(x, mask, 0), axis=_axes(dim), keepdims=keepdim, dtype=dtype
    ),
    "masked.prod": lambda x, dim=None, keepdim=False, dtype=None, mask=None: tg.prod(
        _kept(x, mask, 1), axis=_axes(dim), keepdims=keepdim, dtype=dtype
    ),
    "masked.cumsum": lambda x, dim, dtype=None, mask=None: tg.cumsum(_kept(x, mask, 0), axis=dim),
    "masked.cumprod": lambda x, dim, dtype=None, mask=None: tg.cumprod(_kept(x, mask, 1), axis=dim),
    "masked.amax": lambda x, dim=None, keepdim=False, dtype=None, mask=None: tg.max(
        _kept(x, mask, -math.inf), axis=_axes(dim), keepdims=keepdim
    ),
    "masked.amin": lambda x, dim=None, keepdim=False, dtype=None, mask=None: tg.min(
        _kept(x, mask, math.inf), axis=_axes(dim), keepdims=keepdim
    ),
    "masked.argmax": lambda x, dim=None, keepdim=False, dtype=None, mask=None: tg.argmax(
        _kept(x, mask, -math.inf), axis=dim, keepdims=keepdim
    ),
    "masked.argmin": lambda x, dim=None, keepdim=False, dtype=None, mask=None: tg.argmin(
        _kept(x, mask, math.inf), axis=dim, keepdims=keepdim
    ),
    "masked.mean": lambda x, dim=None, keepdim=False, dtype=None, mask=None: (
        tg.mean(x, axis=_axes(dim), keepdims=keepdim)
        if mask is None
        else tg.mean(x, axis=_axes(dim), keepdims=keepdim, where=tg.broadcast_to(mask, x.shape))
    ),
    "masked.median": lambda x, dim, keepdim=False, mask=None: _middle(
        tg.where(mask, x, math.nan) if mask is not None else x, dim, keepdim, None
    )[0],
    "masked.norm": lambda x, ord, dim=None, keepdim=False, dtype=None, mask=None: (
        tg.linalg.vector_norm(
            _kept(x, mask, math.inf if ord == -math.inf else 0),
            ord=ord,
            axis=_axes(dim),
            keepdims=keepdim,
        )
    ),
    "masked.logsumexp": lambda x, dim=None, keepdim=False, dtype=None, mask=None: tg.logsumexp(
        _kept(x, mask, -math.inf), axis=_axes(dim), keepdims=keepdim
    ),
    "masked.softmax": lambda x, dim, dtype=None, mask=None: tg.softmax(
        _kept(x, mask, -math.inf), axis=dim
    ),
    "masked.log_softmax": lambda x, dim, dtype=None, mask=None: tg.log_softmax(
        _kept(x, mask, -math.inf), axis=dim
    ),
    "masked.softmin": lambda x, dim, dtype=None, mask=None: tg.softmax(
        -_kept(x, mask, math.inf), axis=dim
    ),
    "masked.logaddexp": lambda a, b, input_mask=None, other_mask=None: tg.logaddexp(
        _kept(a, input_mask, -math.inf), _kept(b, other_mask, -math.inf)
    ),
    # dtypes and creation
    "bfloat16": lambda x, **_: x.astype(tg.bfloat16),
    "half": lambda x, **_: x.astype(tg.float16),
    "float": lambda x, **_: x.astype(tg.float32),
    "double": lambda x, **_: x.astype(tg.float64),
    "bool": lambda x, **_: x.astype(tg.bool),
    "byte": lambda x, **_: x.astype(tg.uint8),
    "char": lambda x, **_: x.astype(tg.int8),
    "short": lambda x, **_: x.astype(tg.int16),
    "int": lambda x, **_: x.astype(tg.int32),
    "long": lambda x, **_: x.astype(tg.int64),
    "new_zeros": lambda x, shape, **o: _named("zeros", "x |")(shape, **{"dtype": x.dtype, **o}),
    "new_ones": lambda x, shape, **o: _named("ones", "x |")(shape, **{"dtype": x.dtype, **o}),
    "new_full": lambda x, shape, v, **o: _named("full", "x v |")(
        shape, v, **{"dtype": x.dtype, **o}
    ),
    "scalar_tensor": _named("asarray", "x |"),
    "zero_": lambda x: tg.zeros_like(x),
    "special.polygamma": lambda n, x: tg.special.polygamma(n, x),
    "linalg.cross": lambda a, b, dim=-1: tg.linalg.cross(a, b, axis=dim),
}


def _kept(x: Any, mask: Any, other: float) -> Any:
    return x if mask is None else tg.where(mask, x, tg.full_like(x, other))


def _norm(x: Any, p: Any, dim: Any, keepdim: bool) -> Any:
    if p == "fro":
        p = 2
    if dim is None:
        y = tg.norm(x.ravel() if hasattr(x, "ravel") else x.reshape(-1), p)
        return y.reshape((1,) * x.ndim) if keepdim else y
    return tg.linalg.vector_norm(x, ord=p, axis=_axes(dim), keepdims=keepdim)


def _linalg_norm(x: Any, order: Any, dim: Any, keepdim: bool) -> Any:
    if dim is None and order is None:
        return tg.linalg.vector_norm(x, keepdims=keepdim)
    axes = (0, 1) if dim is None and x.ndim == 2 else _axes(dim)
    if isinstance(axes, tuple) and len(axes) == 1:
        axes = axes[0]
    return tg.linalg.norm(x, order, axis=axes, keepdims=keepdim)


def _middle(x: Any, dim: Any, keepdim: bool, _: Any) -> Any:
    """PyTorch's median is the lower of two middles, with its place."""
    if dim is None:
        return _kth(x.reshape(-1), (x.size + 1) // 2, 0, False)[0]
    if not x.ndim:
        return _kth(x.reshape(-1), 1, 0, False)
    return _kth(x, (x.shape[dim] + 1) // 2, dim, keepdim)


def _kth(x: Any, k: int, dim: int, keepdim: bool) -> Any:
    places = tg.argsort(x, axis=dim)
    places = _sliced(places, dim, k - 1, k)
    values = tg.take_along_axis(x, places, axis=dim)
    return (values, places) if keepdim else (values.squeeze(dim), places.squeeze(dim))


def _renormed(x: Any, p: float, dim: int, most: float) -> Any:
    axes = tuple(k for k in range(x.ndim) if k != dim % x.ndim)
    norms = tg.linalg.vector_norm(x, ord=p, axis=axes, keepdims=True)
    return tg.where(norms > most, x * (most / (norms + 1e-7)), x)


def _product(x: Any) -> Any:
    if len(x) == 1:
        return x[0]
    return tg.stack([g.reshape(-1) for g in tg.meshgrid(*x, indexing="ij")], axis=-1)


def _put(x: Any, index: Any, value: Any, accumulate: bool = False) -> Any:
    if not accumulate:
        return tg.index_put(x, index, value)
    places = tg.arange(math.prod(x.shape)).reshape(x.shape)[index].reshape(-1)
    value = tg.broadcast_to(value, x[index].shape).reshape(-1)
    return tg.index_add(x.reshape(-1), places, value).reshape(x.shape)


def _scatter(x: Any, dim: int, index: Any, src: Any, reduce: Any) -> Any:
    if isinstance(src, tg.Tensor) and src.shape != index.shape:
        src = src[tuple(slice(n) for n in index.shape)]
    if reduce is None:
        return tg.scatter(x, index, src, dim)
    if not isinstance(src, tg.Tensor):
        src = tg.full(index.shape, src, dtype=x.dtype)
    name = {"add": "sum", "multiply": "prod"}[reduce]
    return tg.scatter_reduce(x, index, src, dim, name)


def _spread(index: Any, src: Any, dim: int) -> Any:
    shape = [1] * src.ndim
    shape[dim] = index.size
    return tg.broadcast_to(index.reshape(shape), src.shape)


def _on_diagonal(x: Any, src: Any, offset: int, dim1: int, dim2: int) -> Any:
    places = tg.arange(math.prod(x.shape)).reshape(x.shape)
    places = tg.diagonal(places, offset, axis1=dim1, axis2=dim2).reshape(-1)
    return tg.index_put(x.reshape(-1), (places,), src.reshape(-1)).reshape(x.shape)


def _embedded(x: Any, offset: int, dim1: int, dim2: int) -> Any:
    n = x.shape[-1] + abs(offset)
    y = tg.zeros((*x.shape[:-1], n, n), dtype=x.dtype)
    return tg.moveaxis(_on_diagonal(y, x, offset, -2, -1), (-2, -1), (dim1, dim2))


def _windows(x: Any, dim: int, size: int, step: int) -> Any:
    starts = tg.arange(0, x.shape[dim] - size + 1, step)
    places = starts[:, None] + tg.arange(size)
    return tg.moveaxis(tg.take(x, places, axis=dim), dim % x.ndim + 1, -1)


def _at(x: Any, dim: int, index: Any) -> Any:
    return (*[slice(None)] * (dim % max(x.ndim, 1)), index) if x.ndim else (index,)


def _scattered(x: Any, mask: Any, source: Any) -> Any:
    x, mask = tg.broadcast_arrays(x, mask)
    count = int(mask.astype(tg.int64).sum().item())
    return tg.index_put(x, mask, source.reshape(-1)[:count])


def _number(x: Any) -> Any:
    return x.item() if isinstance(x, tg.Tensor) else x


def _filled(x: Any, sizes: Any) -> tuple[int, ...]:
    lead = len(sizes) - x.ndim
    return tuple(x.shape[k - lead] if n == -1 else n for k, n in enumerate(sizes))


def _unflattened(x: Any, dim: int, sizes: Any) -> tuple[int, ...]:
    dim %= x.ndim
    return (*x.shape[:dim], *sizes, *x.shape[dim + 1 :])


def _summed(x: Any, shape: Any) -> Any:
    lead = x.ndim - len(shape)
    x = x.sum(axis=tuple(range(lead))) if lead else x
    narrow = tuple(k for k, n in enumerate(shape) if n == 1 != x.shape[k])
    return x.sum(axis=narrow, keepdims=True) if narrow else x


def _cuts(x: Any, sizes: Any, dim: int) -> list[int]:
    """Where pieces of these sizes end, but for the last."""
    if isinstance(sizes, int):
        return list(range(sizes, x.shape[dim], sizes)) if sizes else []
    ends = [sum(sizes[: k + 1]) for k in range(len(sizes))]
    return ends[:-1]


def _plain(parts: Any) -> Any:
    return parts.tolist() if isinstance(parts, tg.Tensor) else parts


def _sliced(x: Any, dim: int, start: Any, end: Any, step: int = 1) -> Any:
    index = [slice(None)] * x.ndim
    index[dim] = slice(start, end, step)
    return x[tuple(index)]


def _ones(x: Any, dim: Any) -> Any:
    if dim is None:
        return None if x.ndim else ()
    axes = dim if isinstance(dim, (list, tuple)) else [dim]
    return tuple(k for k in axes if x.ndim and x.shape[k] == 1)


def _each(function: Function, *x: Any) -> Any:
    all_of_them: Any = x[0] if isinstance(x[0], (list, tuple)) else x
    if len(all_of_them) > 1:
        return [function(y) for y in all_of_them]
    return function(all_of_them[0])


def _masked(x: Any, mask: Any) -> Any:
    x, mask = tg.broadcast_arrays(x, mask)
    return x[mask]


def _nonzero(x: Any, as_tuple: bool) -> Any:
    places = tg.nonzero(x if x.ndim else x.reshape(1))
    return places if as_tuple else tg.stack(places, axis=1) if x.ndim else places[0][:, None][:, 1:]


def _three(a: Any) -> int:
    return next(k for k, n in enumerate(a.shape) if n == 3)


def count() -> int:
    """How many operations of PyTorch's table have a meaning here."""
    from torch.testing._internal.common_methods_invocations import op_db

    return len({op.name for op in op_db} - set(WITHOUT))
