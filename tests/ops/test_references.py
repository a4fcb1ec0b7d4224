"""The whole table at special values, and with many elements, against references in float64.

What has a value or a slope to compute is compared with references.npz, made by
``make_references.py`` in many digits; what only moves numbers must not change a bit of them; what
adds is given up to a million numbers. Nothing here needs PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ops.special_points import (
    ALONG,
    ANY,
    BINARY,
    DTYPES,
    KEEPS_SIGN,
    REFERENCES,
    UNARY,
    WEIGHTS,
    Array,
    dtype_of,
    finfo,
    is_any,
    pairs,
    points,
    rows,
)
from ops.test_table import every_case, reference_of
from sampler import Call, draw, host, outputs

import tensorgrad as tg
from tensorgrad import Tensor, dtypes
from tensorgrad.ops.table import OPERATIONS, Operation

REFERENCE: dict[str, Array] = dict(np.load(REFERENCES))

#: Rows that move numbers and change none.
MOVES = {
    "atleast_1d", "atleast_2d", "broadcast_arrays", "broadcast_to", "concat", "diag", "diagonal",
    "expand_dims", "flatten", "flip", "gather", "getitem", "index_put", "matrix_transpose",
    "meshgrid", "moveaxis", "pad", "permute_dims", "repeat", "reshape", "roll", "sort", "split",
    "squeeze", "stack", "swapaxes", "take", "take_along_axis", "tile", "topk", "transpose", "tril",
    "triu", "unstack", "where",
}  # fmt: skip
#: Rows whose results are places, truth values or integers.
EXACT = {
    "all", "any", "argmax", "argmin", "argsort", "count_nonzero", "equal", "greater",
    "greater_equal", "isfinite", "isinf", "isnan", "less", "less_equal", "logical_and",
    "logical_not", "logical_or", "logical_xor", "nonzero", "not_equal", "unique_values",
    "searchsorted", "isin",
}  # fmt: skip
#: Rows about bits; ops/test_array_api.py compares them in each dtype.
BITS = {"copysign", "nextafter", "signbit"}
#: Rows that add products; test_table.py compares them in each dtype with NumPy.
PRODUCTS = {
    "dot", "einsum", "kron", "linear", "linear_recurrence", "matmul", "outer", "scatter_add",
    "tensordot", "trace", "vecdot",
}  # fmt: skip
#: Rows that are given no number: there is nothing special about them.
NO_NUMBERS = {
    "arange", "bitwise_and", "bitwise_invert", "bitwise_left_shift", "bitwise_or",
    "bitwise_right_shift", "bitwise_xor", "eye", "full", "full_like", "linspace", "one_hot", "ones",
    "ones_like", "zeros", "zeros_like",
}  # fmt: skip
#: Rows that consist of others and an addition.
COMPOSED = {"bias_activation", "linear_activation"}
#: Rows that are NumPy's own functions; test_table.py and test_complex.py compare them with it.
NUMPYS = {"angle", "cbrt", "conj", "imag", "real"}
#: Rows that consist of rows compared here, taken at places or in turn.
TURNS = {"cummax", "cummin", "index_add", "logcumsumexp", "scatter", "scatter_reduce"}
#: Rows that reduce to one number; tests/nn/test_losses.py looks at their extremes.
LOSSES = {"binary_cross_entropy_with_logits", "cross_entropy", "nll_loss"}


def test_every_row_is_compared() -> None:
    stored = {call[0] for calls in (UNARY, ALONG) for call in calls.values()} | set(BINARY)
    stored |= {"clip", "pow"}
    groups = [stored, MOVES, EXACT, PRODUCTS, NO_NUMBERS, COMPOSED, NUMPYS, TURNS, LOSSES, BITS]
    assert sum(map(len, groups)) == len(set().union(*groups)), "a row is in two groups"
    layers = {
        name
        for name, row in OPERATIONS.items()
        if row.namespace == "nn.functional" and not row.elementwise and name not in LOSSES
    }  # compared with PyTorch
    special = {name for name, row in OPERATIONS.items() if row.namespace == "special"}
    assert set().union(*groups) == set(OPERATIONS) - layers - special, (
        "a row without a reference: add it to ops/special_points.py and make_references.py, or to "
        "a group here"
    )


def places(known: Array, wanted: Array) -> Array:
    """Where each number (or row) of ``wanted`` is in ``known``, bit by bit."""
    bits = [np.ascontiguousarray(a.reshape(len(a), -1)).view(np.int64) for a in (known, wanted)]
    where = {tuple(row): i for i, row in enumerate(bits[0].tolist())}
    return np.array([where[tuple(row)] for row in bits[1].tolist()])


def test_references_are_those_of_the_points() -> None:
    for name in DTYPES:
        places(REFERENCE["points"], points(name))
        places(REFERENCE["pairs"], np.stack(pairs(name), axis=1))
        exact = rows(name).astype(dtype_of(name)).astype(np.float64)
        np.testing.assert_array_equal(exact, rows(name))


def assert_near(
    what: str, found: Array, wanted: Array, at: Array, name: str, ulp: float, absolute: Any
) -> None:
    """Assert that numbers of the dtype ``name`` are those wanted, with infinities and NaN.

    ulp: how far they may be off in the last place; absolute: and besides, in spacings of 1. Below
    the normal numbers of the dtype slopes may be anything, values two of the smallest off.
    """
    info = finfo(name)
    least = float(info.tiny) if what == "slopes" else 2 * float(info.smallest_subnormal)
    eps = float(info.eps)
    with np.errstate(over="ignore"):
        target = wanted.astype(dtype_of(name)).astype(np.float64)
    found = np.asarray(found, np.float64)
    scale = np.where(np.isfinite(target), np.abs(target), 0)
    room = (ulp * scale + absolute) * eps + least
    with np.errstate(invalid="ignore"):
        good = (np.abs(found - target) <= room) | (found == target)
    good |= (np.isnan(found) & np.isnan(target)) | is_any(wanted)
    if not good.all():
        bad = np.argwhere(~good)[:8]
        lines = [
            f"at {at[tuple(i)[: at.ndim]]}: {found[tuple(i)]}, not {target[tuple(i)]}" for i in bad
        ]
        raise AssertionError(f"{what} of {name}: {(~good).sum()} wrong: " + "; ".join(lines))


def leaf(values: Array, name: str) -> Tensor:
    return Tensor(values, dtype=dtypes.as_dtype(name), requires_grad=True)


def slope(y: Tensor, x: Tensor, weights: Any = None) -> Array:
    """The gradient at ``x`` of the sum of ``y``, weighted."""
    w = np.ones(y.shape) if weights is None else np.broadcast_to(weights, y.shape)
    y.backward(Tensor(np.array(w), dtype=y.dtype))
    assert x.grad is not None
    assert x.grad.dtype == x.dtype
    return np.asarray(host(x.grad), np.float64)


def within_range(slopes: Array, values: Array, name: str) -> Array:
    """The slopes to be met: any where the value is beyond the range of the dtype, or below it."""
    info = finfo(name)
    with np.errstate(over="ignore"):
        lost = np.isfinite(values) & ~np.isfinite(values.astype(dtype_of(name)))
    lost |= (values != 0) & (np.abs(values) < float(info.tiny))
    return np.where(lost, ANY, slopes)


quiet = pytest.mark.filterwarnings("ignore::RuntimeWarning")
EVERY_DTYPE = pytest.mark.parametrize("name", DTYPES)

#: How far values and slopes may be off: in ulp, and in spacings of 1.
USUAL = (4.0, 0.0), (8.0, 0.0)
ROOM = {
    # The slope is computed from the rounded value.
    "expm1": ((4.0, 0.0), (8.0, 1.0)),
    "sigmoid": ((4.0, 0.0), (8.0, 1.0)),
    "tanh": ((4.0, 0.0), (8.0, 2.0)),
    # 1 + erf(x) cancels far below 0.
    "gelu": ((4.0, 0.5), (8.0, 1.0)),
    "gelu of tanh": ((4.0, 0.5), (8.0, 4.0)),
    "silu": ((4.0, 1e-30), (8.0, 1.0)),
    "mish": ((4.0, 1e-30), (8.0, 2.0)),
    # x - tanh(x) cancels near 0, as x + 3 does near -3.
    "tanhshrink": ((4.0, 1.0), (8.0, 2.0)),
    "hardswish": ((4.0, 0.5), (8.0, 1.0)),
    # The differences from the mean, which is rounded, have an error in proportion to it.
    "var": ((8.0, 0.1), (8.0, 1.0)),
    "var of a sample": ((8.0, 0.1), (8.0, 1.0)),
    "std": ((8.0, 0.1), (8.0, 1.0)),
    "layer_norm": ((8.0, 1.0), (8.0, 1.0)),
    "log_softmax": ((4.0, 4.0), (8.0, 8.0)),
    "softmax": ((8.0, 0.0), (8.0, 4.0)),
}
#: In proportion to the largest number of the row.
OF_THE_MEAN = {"var", "var of a sample", "std", "layer_norm"}
#: Where NaN is met at infinities, as in PyTorch: minus infinity times 0. Values, and slopes.
LEFT = {"silu", "gelu", "gelu of tanh", "mish"}, {"silu", "gelu", "mish"}


@quiet
@EVERY_DTYPE
@pytest.mark.parametrize("row", UNARY)
def test_functions_of_one_number(row: str, name: str) -> None:
    operation, args, kwargs = UNARY[row]
    at = points(name)
    wanted = REFERENCE[f"unary/{row}"][places(REFERENCE["points"], at)]
    lost = [(at == -np.inf) & (row in LEFT[0]), np.isinf(at) & (row in LEFT[1])]
    wanted = np.where(np.stack(lost, axis=1), ANY, wanted)
    value, gradient = ROOM.get(row, USUAL)
    x = leaf(at, name)
    y = OPERATIONS[operation].function(x, *args, **kwargs)
    assert y.dtype == x.dtype
    found = np.asarray(host(y), np.float64)
    assert_near("values", found, wanted[:, 0], at, name, *value)
    if row in KEEPS_SIGN:
        assert np.signbit(found[at == 0]).tolist() == np.signbit(at[at == 0]).tolist()
    slopes = within_range(wanted[:, 1], wanted[:, 0], name)
    assert_near("slopes", slope(y, x), slopes, at, name, *gradient)


@quiet
@EVERY_DTYPE
@pytest.mark.parametrize("row", BINARY)
def test_functions_of_two(row: str, name: str) -> None:
    a, b = pairs(name)
    at = np.stack([a, b], axis=1)
    wanted = REFERENCE[f"binary/{row}"][places(REFERENCE["pairs"], at)]
    value, gradient = ROOM.get(row, USUAL)
    x1, x2 = leaf(a, name), leaf(b, name)
    y = getattr(tg, row)(x1, x2)
    assert_near("values", host(y).astype(np.float64), wanted[:, 0], at, name, *value)
    if not OPERATIONS[row].gradient:
        return
    y.backward(tg.ones_like(y))
    for k, x in enumerate((x1, x2)):
        assert x.grad is not None
        slopes = within_range(wanted[:, 1 + k], wanted[:, 0], name)
        found = host(x.grad).astype(np.float64)
        assert_near("slopes", found, slopes, at, name, *gradient)


@quiet
@EVERY_DTYPE
@pytest.mark.parametrize("row", ALONG)
def test_functions_of_rows(row: str, name: str) -> None:
    operation, args, kwargs = ALONG[row]
    at = rows(name)
    wanted = REFERENCE[f"along/{row}/{name}"]
    value, gradient = ROOM.get(row, ((8.0, 0.0), (16.0, 0.0)))
    sizes = np.max(np.where(np.isfinite(at), np.abs(at), 1.0), axis=1, keepdims=True)
    scale = np.maximum(sizes, 1.0) if row in OF_THE_MEAN else 1.0
    x = leaf(at, name)
    y = OPERATIONS[operation].function(x, *args, **kwargs)
    width = wanted.shape[1] - at.shape[1]
    found = host(y).astype(np.float64).reshape(len(at), width)
    assert_near("values", found, wanted[:, :width], at, name, value[0], value[1] * scale)
    slopes = wanted[:, width:]
    if width == 1:
        slopes = within_range(slopes, wanted[:, :1], name)
    elif row == "cumulative_prod":  # what is beyond the range is part of later slopes
        with np.errstate(over="ignore"):
            kept = np.abs(wanted[:, :width]).max(1, keepdims=True).astype(dtype_of(name))
        slopes = np.where(np.isinf(kept), ANY, slopes)
    found = slope(y, x, WEIGHTS if width > 1 else None)
    assert_near("slopes", found, slopes, at, name, gradient[0], gradient[1] * scale)


# --- what moves numbers, and what tells about them ------------------------------------------------


def unlike(count: int, name: str) -> Array:
    """So many different numbers, the special ones among them; neither 0, 1, 1.5, 2, 3 nor 4."""
    info = finfo(name)
    first = [np.nan, np.inf, -np.inf, float(info.max), float(info.smallest_subnormal), -0.5]
    assert count <= 128 + len(first)
    return np.array([*first, *(32 + 0.25 * np.arange(128))][:count])


def special(call: Call, name: str, without: tuple[int, ...] = ()) -> Call:
    """The call with other numbers, all of them different, shuffled alike in each run."""
    sizes = [a.size for a in call.arrays()]
    numbers = np.delete(unlike(sum(sizes) + len(without), name), without)
    numbers = np.random.default_rng(0).permutation(numbers[: sum(sizes)])
    parts = np.split(numbers, np.cumsum(sizes)[:-1])
    return call.replace([p.reshape(a.shape) for p, a in zip(parts, call.arrays())])


def bits(a: Any) -> Array:
    """Numbers by what they consist of: NaN equals NaN, and 0 does not equal -0."""
    found: Array = np.ascontiguousarray(np.asarray(a, np.float64)).view(np.int64)
    return np.where(np.isnan(np.asarray(a, np.float64)), -1, found)


@quiet
@EVERY_DTYPE
@every_case(lambda row: row.name in MOVES)
def test_what_moves_numbers(row: Operation, number: int, name: str) -> None:
    """Each arrives as it was, and its gradient is that of the places where it arrives."""
    nan_is_smallest = row.name == "topk"  # in the reference, which sorts the negative numbers
    call = special(draw(row, number), name, (0,) if nan_is_smallest else ())
    inputs, leaves = call.tensors(dtype=dtypes.as_dtype(name), requires_grad=True)
    found = [y for y in outputs(inputs.of(row.function)) if y.dtype in dtypes.FLOATS]
    wanted = [y for y in outputs(call.of(reference_of(row))) if np.asarray(y).dtype.kind == "f"]
    for y, z in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(bits(host(y)), bits(z))
    total: dict[int, float] = {}
    rng = np.random.default_rng(1)
    seeds = []
    for y in found:
        w = rng.integers(-4, 5, y.shape).astype(np.float64)
        if w.size > 2:
            w.reshape(-1)[0] = np.inf  # it must not reach other elements, times 0
        for b, v in zip(bits(host(y)).ravel().tolist(), w.ravel().tolist()):
            total[b] = total.get(b, 0.0) + v
        seeds.append(w)
    for y, w in zip(found, seeds):
        if y.requires_grad:
            y.backward(Tensor(w, dtype=y.dtype), retain_graph=True)
    for x in leaves:
        there = bits(host(x)).ravel().tolist()
        expected = np.array([total.get(b, 0.0) for b in there]).reshape(x.shape)
        got = np.zeros(x.shape) if x.grad is None else host(x.grad).astype(np.float64)
        np.testing.assert_array_equal(got, expected)


@quiet
@EVERY_DTYPE
@every_case(lambda row: row.name in EXACT)
def test_what_tells_about_numbers(row: Operation, number: int, name: str) -> None:
    """Zeros of both signs, infinities and NaN, against NumPy in float64."""
    call = draw(row, number)
    own = points(name)
    sorted_first = row.name == "searchsorted"
    rng = np.random.default_rng(number)
    arrays = [own[rng.integers(0, len(own), a.shape)] for a in call.arrays()]
    if sorted_first:
        arrays[0] = np.sort(arrays[0])
    call = call.replace(arrays)
    inputs, _ = call.tensors(dtype=dtypes.as_dtype(name))
    wanted = outputs(call.of(reference_of(row)))
    for y, z in zip(outputs(inputs.of(row.function)), wanted, strict=True):
        np.testing.assert_array_equal(host(y).astype(np.float64), np.asarray(z, np.float64))


# --- many elements --------------------------------------------------------------------------------

#: What adds up along an axis, and the same in NumPy.
SUMS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "sum": (lambda x, axis: tg.sum(x, axis=axis), lambda x, axis: x.sum(axis)),
    "mean": (lambda x, axis: tg.mean(x, axis=axis), lambda x, axis: x.mean(axis)),
    "var": (lambda x, axis: tg.var(x, axis=axis), lambda x, axis: x.var(axis)),
    "std": (lambda x, axis: tg.std(x, axis=axis), lambda x, axis: x.std(axis)),
    "norm": (
        lambda x, axis: tg.norm(x, axis=axis),
        lambda x, axis: np.sqrt((x * x).sum(axis)),
    ),
    "logsumexp": (
        lambda x, axis: tg.logsumexp(x, axis=axis),
        lambda x, axis: np.log(np.exp(x).sum(axis)),
    ),
    "cumulative_sum": (
        lambda x, axis: tg.cumulative_sum(x, axis=axis),
        lambda x, axis: np.cumsum(x, axis),
    ),
    "softmax": (
        lambda x, axis: tg.softmax(x, axis=axis),
        lambda x, axis: np.exp(x) / np.exp(x).sum(axis, keepdims=True),
    ),
    "a gradient of broadcasting": (
        lambda x, axis: _gradient_of_broadcasting(x, axis),
        lambda x, axis: x.sum(axis),
    ),
    "a product": (
        lambda x, axis: tg.tensordot(tg.ones(x.shape[axis], dtype=x.dtype), x, axes=(0, axis)),
        lambda x, axis: x.sum(axis),
    ),
}


def _gradient_of_broadcasting(x: Tensor, axis: int) -> Tensor:
    """The sum over ``axis`` as the gradient of what was repeated along it."""
    shape = tuple(1 if i == axis else n for i, n in enumerate(x.shape))
    small = tg.zeros(shape, dtype=x.dtype, requires_grad=True)
    (small + tg.zeros(x.shape, dtype=x.dtype)).backward(x)
    assert small.grad is not None
    return small.grad.reshape(tuple(n for i, n in enumerate(x.shape) if i != axis))


@pytest.mark.parametrize("shape", [(10_000, 3), (3, 10_000), (1_000_000, 2), (2, 1_000_000)])
@pytest.mark.parametrize("name", ["float32", "bfloat16"])
@pytest.mark.parametrize("what", SUMS)
def test_many_elements(what: str, name: str, shape: tuple[int, int]) -> None:
    """Sums over either axis of numbers near 0.1, whose roundings do not cancel."""
    ours, reference = SUMS[what]
    axis = 0 if shape[0] > shape[1] else 1
    values = (0.1 + 0.01 * np.random.default_rng(3).random(shape)).astype(dtype_of(name))
    wanted = reference(values.astype(np.float64), axis)
    found = host(ours(Tensor(values), axis)).astype(np.float64)
    # BLAS adds in fewer and longer chains.
    rtol = {"float32": 1e-4 if what == "a product" else 4e-6, "bfloat16": 4e-3}[name]
    np.testing.assert_allclose(found, wanted, rtol=rtol)
