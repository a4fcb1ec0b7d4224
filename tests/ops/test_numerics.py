"""Large arguments, kinks, NaN, and properties that must hold for any shape and any index."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from sampler import Array, host

import tensorgrad as tg
from tensorgrad import Tensor, dtypes

Function = Callable[[Tensor], Tensor]
FLOATS = ["float16", "bfloat16", "float32", "float64"]
ROUNDOFF = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24, "float64": 2.0**-53}


def with_gradient(f: Function, values: Any, dtype: Any, device: str = "cpu") -> tuple[Array, Array]:
    """The value of ``f`` and the gradient of its sum, which itself may be too large, in float64."""
    x = Tensor(np.asarray(values), dtype=dtype, device=device, requires_grad=True)
    y = f(x)
    assert y.dtype == x.dtype
    y.backward(tg.ones_like(y))
    assert x.grad is not None
    assert x.grad.dtype == x.dtype
    return host(y).astype(np.float64), host(x.grad).astype(np.float64)


# --- large arguments ------------------------------------------------------------------------------

BIG = 1e4
BELOW = -math.pi / 2 + 1e-4
# function, and at -1e4 and 1e4 its value and its derivative
EXTREMES: dict[str, tuple[Function, tuple[float, float], tuple[float, float]]] = {
    "sigmoid": (lambda x: tg.sigmoid(x), (0, 0), (1, 0)),
    "softplus": (lambda x: tg.softplus(x), (0, 0), (BIG, 1)),
    "tanh": (lambda x: tg.tanh(x), (-1, 0), (1, 0)),
    "relu": (lambda x: tg.relu(x), (0, 0), (BIG, 1)),
    "leaky_relu": (lambda x: tg.leaky_relu(x), (-BIG / 100, 0.01), (BIG, 1)),
    "elu": (lambda x: tg.elu(x), (-1, 0), (BIG, 1)),
    "selu": (
        lambda x: tg.selu(x),
        (-1.0507009873554805 * 1.6732632423543772, 0),
        (BIG * 1.0507009873554805, 1.0507009873554805),
    ),
    "silu": (lambda x: tg.silu(x), (0, 0), (BIG, 1)),
    "gelu": (lambda x: tg.gelu(x), (0, 0), (BIG, 1)),
    "gelu-tanh": (lambda x: tg.gelu(x, approximate="tanh"), (0, 0), (BIG, 1)),
    "mish": (lambda x: tg.mish(x), (0, 0), (BIG, 1)),
    "hardtanh": (lambda x: tg.hardtanh(x), (-1, 0), (1, 0)),
    "erf": (lambda x: tg.erf(x), (-1, 0), (1, 0)),
    "logaddexp": (lambda x: tg.logaddexp(x, 0.0), (0, 0), (BIG, 1)),
    "hypot": (lambda x: tg.hypot(x, 1.0), (BIG, -1), (BIG, 1)),
    "atan": (lambda x: tg.atan(x), (BELOW, 1e-8), (-BELOW, 1e-8)),
    "asinh": (lambda x: tg.asinh(x), (-9.903487555, 1e-4), (9.903487555, 1e-4)),
}


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("function", EXTREMES)
def test_no_overflow(function: str, name: str, device: str) -> None:
    f, at_minus, at_plus = EXTREMES[function]
    dtype = dtypes.as_dtype(name)
    y, g = with_gradient(f, [-BIG, BIG], dtype, device)
    tolerance = 8 * max(ROUNDOFF[name], 2.0**-30)
    np.testing.assert_allclose(y, [at_minus[0], at_plus[0]], rtol=tolerance, atol=1e-6)
    np.testing.assert_allclose(g, [at_minus[1], at_plus[1]], rtol=tolerance, atol=1e-6)


@pytest.mark.parametrize("name", FLOATS)
def test_sigmoid_gradient_is_exactly_zero_far_out(name: str, device: str) -> None:
    values = [-BIG, -1000.0, 1000.0, BIG]
    y, g = with_gradient(tg.sigmoid, values, dtypes.as_dtype(name), device)
    assert y.tolist() == [0, 0, 1, 1]
    assert g.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("function", EXTREMES)
def test_no_warning_between(function: str, name: str, device: str) -> None:
    """Finite and without warnings over the whole range, where thresholds may be misplaced."""
    top = 4.2 if name == "float16" else 4.0
    steps = np.concatenate([-np.logspace(top, -6, 101), [0], np.logspace(-6, top, 101)])
    y, g = with_gradient(EXTREMES[function][0], steps, dtypes.as_dtype(name), device)
    assert np.isfinite(y).all()
    assert np.isfinite(g).all()


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("shift", [-BIG, 0.0, BIG])
def test_softmax_family_is_stable(shift: float, name: str, device: str) -> None:
    dtype = dtypes.as_dtype(name)
    eps = ROUNDOFF[name]
    values = np.array([[shift, shift, shift], [-BIG, 0.0, BIG]])
    w = Tensor([[1.0, 2.0, 4.0], [1.0, 2.0, 4.0]], dtype=dtype, device=device)
    y, g = with_gradient(lambda x: tg.softmax(x, axis=-1) * w, values, dtype, device)
    p = np.array([[1 / 3, 1 / 3, 1 / 3], [0, 0, 1]])
    np.testing.assert_allclose(y / host(w).astype(np.float64), p, atol=4 * eps)
    ws = np.array([1.0, 2.0, 4.0])
    np.testing.assert_allclose(g, p * (ws - (p * ws).sum(1, keepdims=True)), atol=16 * eps)
    y, g = with_gradient(lambda x: tg.log_softmax(x, axis=-1), values, dtype, device)
    log_third = math.log(1 / 3)
    expected: list[list[float]] = [[log_third] * 3, [-2 * BIG, -BIG, 0]]
    np.testing.assert_allclose(y, expected, rtol=4 * eps, atol=1e-30)
    np.testing.assert_allclose(g, [[0, 0, 0], [1, 1, -2]], atol=16 * eps)
    y, g = with_gradient(lambda x: tg.logsumexp(x, axis=-1), values, dtype, device)
    np.testing.assert_allclose(y, [shift + math.log(3), BIG], rtol=4 * eps)
    np.testing.assert_allclose(g, p, atol=4 * eps)


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("shift", [-BIG, 0.0, BIG])
def test_logaddexp_shares_the_gradient_of_equals(shift: float, name: str, device: str) -> None:
    dtype = dtypes.as_dtype(name)
    a, b = (Tensor([shift], dtype=dtype, device=device, requires_grad=True) for _ in range(2))
    tg.logaddexp(a, b).backward()
    for x in (a, b):
        assert x.grad is not None
        assert float(x.grad) == pytest.approx(0.5, abs=4 * ROUNDOFF[name])


def test_masked_softmax(device: str) -> None:
    """Minus infinity masks an entry, in value and gradient, as attention needs it."""
    values = [[0.0, -math.inf, 1.0], [-math.inf, 2.0, -math.inf]]
    e = 1 / (1 + math.e)
    w = Tensor([[3.0, 5.0, 0.0], [1.0, 1.0, 1.0]], dtype=np.float64, device=device)
    y, g = with_gradient(lambda x: tg.softmax(x, axis=-1) * w, values, np.float64, device)
    np.testing.assert_allclose(y, [[3 * e, 0.0, 0.0], [0.0, 1.0, 0.0]], atol=1e-15)
    slope = 3 * e * (1 - e)
    np.testing.assert_allclose(g, [[slope, 0.0, -slope], [0.0] * 3], atol=1e-15)
    y, g = with_gradient(lambda x: tg.logsumexp(x, axis=-1), values, np.float64, device)
    np.testing.assert_allclose(y, [math.log(1 + math.e), 2])
    np.testing.assert_allclose(g, [[e, 0.0, 1 - e], [0.0, 1.0, 0.0]], atol=1e-15)


# --- kinks ----------------------------------------------------------------------------------------

# at: values that lie on kinks (and beside them); ours and theirs compute from one tensor
KINKS: dict[str, tuple[list[float], Function, Callable[[Any, Any], Any]]] = {
    "relu": ([-1, 0, 1], lambda x: tg.relu(x), lambda t, x: t.relu(x)),
    "leaky_relu": (
        [-1, 0, 1],
        lambda x: tg.leaky_relu(x, 0.2),
        lambda t, x: t.nn.functional.leaky_relu(x, 0.2),
    ),
    "elu": ([-1, 0, 1], lambda x: tg.elu(x, 0.5), lambda t, x: t.nn.functional.elu(x, 0.5)),
    "selu": ([-1, 0, 1], lambda x: tg.selu(x), lambda t, x: t.selu(x)),
    "hardtanh": (
        [-2, -1, 0, 1, 2],
        lambda x: tg.hardtanh(x),
        lambda t, x: t.nn.functional.hardtanh(x),
    ),
    "clip": ([-2, -1, 0, 1, 2], lambda x: tg.clip(x, -1, 1), lambda t, x: t.clamp(x, -1, 1)),
    "clip-low": ([-2, -1, 0], lambda x: tg.clip(x, -1), lambda t, x: t.clamp(x, -1)),
    "clip-high": ([0, 1, 2], lambda x: tg.clip(x, None, 1), lambda t, x: t.clamp(x, max=1)),
    "clip-crossed": ([-2, 0, 2], lambda x: tg.clip(x, 1, -1), lambda t, x: t.clamp(x, 1, -1)),
    "abs": ([-1, 0, 1], lambda x: tg.abs(x), lambda t, x: t.abs(x)),
    "sign": ([-1, 0, 1], lambda x: tg.sign(x), lambda t, x: t.sign(x)),
    "floor": ([-1, 0, 1], lambda x: tg.floor(x), lambda t, x: t.floor(x)),
    "round": ([-0.5, 0.5, 1.5], lambda x: tg.round(x), lambda t, x: t.round(x)),
    "maximum-tie": (
        [-1, 0, 1],
        lambda x: tg.maximum(x, tg.zeros_like(x)),
        lambda t, x: t.maximum(x, t.zeros_like(x)),
    ),
    "minimum-tie": (
        [-1, 0, 1],
        lambda x: tg.minimum(x, tg.zeros_like(x)),
        lambda t, x: t.minimum(x, t.zeros_like(x)),
    ),
    "maximum-self": ([-1, 0, 1], lambda x: tg.maximum(x, x), lambda t, x: t.maximum(x, x)),
    "max-ties": ([2, 1, 2, 2], lambda x: tg.max(x), lambda t, x: t.amax(x)),
    "min-ties": ([1, 1, 2, 2], lambda x: tg.min(x), lambda t, x: t.amin(x)),
    "square-root": ([1, 4], lambda x: tg.sqrt(x), lambda t, x: t.sqrt(x)),
    "power-of-0": ([0, 1], lambda x: x**2.5, lambda t, x: x**2.5),
    "zeroth-power-of-0": ([0, 1], lambda x: x**0, lambda t, x: x**0),
    "tensor-power-of-0": (
        [0, 1],
        lambda x: x ** Tensor([2.0, 2.0], dtype=np.float64),
        lambda t, x: x ** t.tensor([2.0, 2.0], dtype=t.float64),
    ),
    "0-to-a-tensor": ([0, 1], lambda x: x ** (x * 0), lambda t, x: x ** (x * 0)),
    "prod-with-a-0": ([2, 0, 3], lambda x: tg.prod(x), lambda t, x: t.prod(x)),
    "prod-with-two-0": ([2, 0, 0], lambda x: tg.prod(x), lambda t, x: t.prod(x)),
    "norm-of-0": ([0, 0], lambda x: tg.norm(x), lambda t, x: t.linalg.vector_norm(x)),
}


@pytest.mark.parametrize("kink", KINKS)
def test_kink_as_in_pytorch(kink: str) -> None:
    torch: Any = pytest.importorskip("torch", reason="compares with PyTorch")
    at, ours, theirs = KINKS[kink]
    y, g = with_gradient(ours, at, np.float64)
    x = torch.tensor(at, dtype=torch.float64, requires_grad=True)
    expected = theirs(torch, x)
    expected.sum().backward()
    np.testing.assert_array_equal(y, expected.detach().numpy())
    np.testing.assert_allclose(g, x.grad.numpy(), rtol=1e-14, atol=0)


def test_ties_are_shared(device: str) -> None:
    x = Tensor([[3.0, 3.0, 1.0], [2.0, 2.0, 2.0]], device=device, requires_grad=True)
    tg.sum(tg.max(x, axis=1)).backward()
    third = np.float32(1 / 3)
    assert x.grad is not None
    np.testing.assert_array_equal(host(x.grad), [[0.5, 0.5, 0], [third, third, third]])
    a = Tensor([1.0, 2.0], device=device, requires_grad=True)
    b = Tensor([1.0, 3.0], device=device, requires_grad=True)
    tg.sum(tg.maximum(a, b) + 10 * tg.minimum(a, b)).backward()
    assert a.grad is not None
    assert b.grad is not None
    assert host(a.grad).tolist() == [5.5, 10]
    assert host(b.grad).tolist() == [5.5, 1]


def test_limits_that_are_tensors_as_in_pytorch() -> None:
    torch: Any = pytest.importorskip("torch", reason="compares with PyTorch")
    values = [[-2.0, -1.0, 0.0, 1.0, 2.0, 0.0], [-1.0] * 5 + [2.0], [1.0] * 5 + [-2.0]]
    ours = [Tensor(v, dtype=np.float64, requires_grad=True) for v in values]
    theirs = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in values]
    tg.sum(tg.clip(*ours)).backward()
    torch.clamp(*theirs).sum().backward()
    for a, b in zip(ours, theirs, strict=True):
        assert a.grad is not None
        assert host(a.grad).tolist() == b.grad.tolist()


# --- NaN ------------------------------------------------------------------------------------------

PASSES_NAN: dict[str, Function] = {
    "relu": lambda x: tg.relu(x),
    "leaky_relu": lambda x: tg.leaky_relu(x),
    "elu": lambda x: tg.elu(x),
    "gelu": lambda x: tg.gelu(x),
    "sigmoid": lambda x: tg.sigmoid(x),
    "softplus": lambda x: tg.softplus(x),
    "hardtanh": lambda x: tg.hardtanh(x),
    "clip": lambda x: tg.clip(x, -1, 1),
    "maximum": lambda x: tg.maximum(x, 0.0),
    "minimum": lambda x: tg.minimum(0.0, x),
    "abs": lambda x: tg.abs(x),
    "sign": lambda x: tg.sign(x),
    "max": lambda x: tg.max(x, keepdims=True),
    "min": lambda x: tg.min(x, keepdims=True),
    "sum": lambda x: tg.sum(x, keepdims=True),
    "mean": lambda x: tg.mean(x, keepdims=True),
    "softmax": lambda x: tg.softmax(x, axis=0),
    "log_softmax": lambda x: tg.log_softmax(x, axis=0),
    "logsumexp": lambda x: tg.logsumexp(x, axis=0, keepdims=True),
}


@pytest.mark.parametrize("function", PASSES_NAN)
def test_nan_passes_through(function: str, device: str) -> None:
    x = Tensor([1.0, math.nan, -1.0], device=device)
    y = host(PASSES_NAN[function](x))
    assert np.isnan(y[1 % len(y)])


# --- properties: any shapes -----------------------------------------------------------------------

SMALL = hnp.array_shapes(min_dims=0, max_dims=4, min_side=1, max_side=4)


def numbers(shape: tuple[int, ...]) -> Array:
    """Numbers of ``shape``, no two alike: a mistake in the order shows."""
    return np.arange(1, math.prod(shape) + 1, dtype=np.float64).reshape(shape) / 7


def leaf(shape: tuple[int, ...]) -> Tensor:
    return Tensor(numbers(shape), requires_grad=True)


def gradient_of(y: Tensor, x: Tensor) -> tuple[Array, Array]:
    """Weights for ``y``, and the gradient of its weighted sum at ``x``."""
    w = np.cos(numbers(y.shape))
    y.backward(Tensor(w))
    return w, np.zeros(x.shape) if x.grad is None else host(x.grad)


@given(hnp.mutually_broadcastable_shapes(num_shapes=3, max_dims=4, max_side=4, min_side=0))
def test_broadcasting_like_numpy(shapes: hnp.BroadcastableShapes) -> None:
    a, b, c = (leaf(s) for s in shapes.input_shapes)
    y = a * b + c
    assert y.shape == shapes.result_shape
    np.testing.assert_array_equal(host(y), host(a) * host(b) + host(c))
    w, ga = gradient_of(y, a)
    # The transpose of repeating is summing: <w, da * b> = <ga, da> for any da.
    da = np.sin(numbers(a.shape))
    assert math.isclose((w * (da * host(b))).sum(), (ga * da).sum(), rel_tol=1e-9, abs_tol=1e-12)
    assert c.grad is not None
    assert c.grad.shape == c.shape
    dc = np.sin(numbers(c.shape))
    moved = (w * np.broadcast_to(dc, w.shape)).sum()
    assert math.isclose(moved, (host(c.grad) * dc).sum(), rel_tol=1e-9, abs_tol=1e-12)


@given(SMALL, st.data())
def test_reshape_and_back(shape: tuple[int, ...], data: st.DataObject) -> None:
    x = leaf(shape)
    factors = [n for n in shape if n > 1]
    other = (*data.draw(st.permutations(factors)), 1)
    y = tg.reshape(x, other)
    np.testing.assert_array_equal(host(y), host(x).reshape(other))
    back = tg.reshape(y, shape)
    np.testing.assert_array_equal(host(back), host(x))
    w, g = gradient_of(back, x)
    np.testing.assert_array_equal(g, w)


@given(SMALL, st.data())
def test_permute_and_back(shape: tuple[int, ...], data: st.DataObject) -> None:
    axes = tuple(data.draw(st.permutations(range(len(shape)))))
    x = leaf(shape)
    y = tg.permute_dims(x, axes)
    np.testing.assert_array_equal(host(y), host(x).transpose(axes))
    w, g = gradient_of(y, x)
    np.testing.assert_array_equal(g, w.transpose(np.argsort(axes)))


@given(SMALL.filter(bool), st.data())
def test_concat_and_split(shape: tuple[int, ...], data: st.DataObject) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    sizes = data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=4))
    parts = []
    for i, size in enumerate(sizes):
        own = list(shape)
        own[axis] = size
        parts.append(Tensor(numbers(tuple(own)) + 100 * i, requires_grad=True))
    joined = tg.concat(parts, axis=axis)
    np.testing.assert_array_equal(host(joined), np.concatenate([host(p) for p in parts], axis))
    cuts = np.cumsum(sizes)[:-1].tolist()
    for piece, part in zip(tg.split(joined, cuts, axis=axis), parts, strict=True):
        np.testing.assert_array_equal(host(piece), host(part))
    w = np.cos(numbers(joined.shape))
    joined.backward(Tensor(w))
    for part, wanted in zip(parts, np.split(w, cuts, axis), strict=True):
        assert part.grad is not None
        np.testing.assert_array_equal(host(part.grad), wanted)


@given(SMALL.filter(bool), st.data())
def test_gradients_of_split_pieces(shape: tuple[int, ...], data: st.DataObject) -> None:
    """Each piece alone sends its gradient to its own place and nothing elsewhere."""
    axis = data.draw(st.integers(0, len(shape) - 1))
    cuts = sorted(data.draw(st.lists(st.integers(0, shape[axis]), max_size=3)))
    x = leaf(shape)
    pieces = tg.split(x, cuts, axis=axis)
    chosen = data.draw(st.integers(0, len(pieces) - 1))
    w, g = gradient_of(pieces[chosen], x)
    dense = [np.zeros(p.shape) for p in pieces]
    dense[chosen] = w
    np.testing.assert_array_equal(g, np.concatenate(dense, axis))


# --- properties: any index ------------------------------------------------------------------------


@st.composite
def mixed_indices(draw: st.DrawFn, shape: tuple[int, ...]) -> tuple[Any, ...]:
    """Integers, slices, new axes, integer arrays and a mask, mixed."""
    common = draw(hnp.array_shapes(max_dims=2, max_side=3))
    index: list[Any] = []
    masks = 0
    for n in shape:
        kind = draw(st.sampled_from(["integer", "slice", "array", "array", "mask", "new"]))
        if kind == "new":
            index.append(None)
            kind = "slice"
        if kind == "integer":
            index.append(draw(st.integers(-n, n - 1)))
        elif kind == "slice":
            index.append(draw(st.slices(n)))
        elif kind == "array":
            index.append(draw(hnp.arrays(np.int64, common, elements=st.integers(-n, n - 1))))
        elif masks:
            index.append(slice(None))
        else:
            masks += 1
            index.append(draw(hnp.arrays(np.bool_, (n,))))
    if draw(st.booleans()):
        index[-1:] = [...]
    return tuple(index)


def assert_indexing(shape: tuple[int, ...], index: Any, as_tensors: bool = False) -> None:
    """Value and gradient of ``x[index]`` against NumPy and a dense scatter."""
    plain = numbers(shape)
    try:
        wanted = plain[index]
    except IndexError:  # arrays that do not broadcast with each other
        with pytest.raises((IndexError, ValueError)):
            leaf(shape)[index]
        return
    x = leaf(shape)
    y = x[_as_tensors(index) if as_tensors else index]
    assert y.shape == np.shape(wanted)
    np.testing.assert_array_equal(host(y), wanted)
    w, g = gradient_of(y, x)
    dense = np.zeros(shape)
    np.add.at(dense, index, w)
    np.testing.assert_allclose(g, dense, rtol=1e-12, atol=1e-15)


def _as_tensors(index: Any) -> Any:
    if isinstance(index, tuple):
        return tuple(_as_tensors(i) for i in index)
    return Tensor(index) if isinstance(index, np.ndarray) else index


@given(SMALL.flatmap(lambda s: st.tuples(st.just(s), hnp.basic_indices(s, allow_newaxis=True))))
def test_basic_indexing(drawn: tuple[tuple[int, ...], Any]) -> None:
    assert_indexing(*drawn)


@given(
    SMALL.filter(bool).flatmap(
        lambda s: st.tuples(st.just(s), hnp.integer_array_indices(s, dtype=np.dtype(np.int64)))
    ),
    st.booleans(),
)
def test_integer_array_indexing(drawn: tuple[tuple[int, ...], Any], as_tensors: bool) -> None:
    assert_indexing(*drawn, as_tensors)


@given(SMALL.filter(bool), st.data(), st.booleans())
def test_boolean_indexing(shape: tuple[int, ...], data: st.DataObject, as_tensors: bool) -> None:
    covered = data.draw(st.integers(1, len(shape)))
    mask = data.draw(hnp.arrays(np.bool_, shape[:covered]))
    assert_indexing(shape, mask, as_tensors)


@given(SMALL.filter(bool).flatmap(lambda s: st.tuples(st.just(s), mixed_indices(s))), st.booleans())
def test_mixed_indexing(drawn: tuple[tuple[int, ...], Any], as_tensors: bool) -> None:
    assert_indexing(*drawn, as_tensors)


@given(SMALL.filter(bool).flatmap(lambda s: st.tuples(st.just(s), hnp.basic_indices(s))))
def test_indexing_twice_differentiable(drawn: tuple[tuple[int, ...], Any]) -> None:
    """The gradient of an indexing is itself differentiable: here of the square of it."""
    shape, index = drawn
    x = leaf(shape)
    y = tg.sum(x[index] ** 3.0)
    (g,) = tg.autograd.grad(y, x, create_graph=True)
    (h,) = tg.autograd.grad(tg.sum(g), x)
    wanted = np.zeros(shape)
    np.add.at(wanted, index, 6 * numbers(shape)[index])
    np.testing.assert_allclose(host(h), wanted, rtol=1e-12, atol=1e-15)


@given(
    SMALL.filter(bool).flatmap(
        lambda s: st.tuples(
            st.just(s), st.one_of(hnp.basic_indices(s), hnp.arrays(np.bool_, s), mixed_indices(s))
        )
    ),
    st.booleans(),
)
def test_assignment(drawn: tuple[tuple[int, ...], Any], one_number: bool) -> None:
    """``y[index] = v`` overwrites the gradient of what was there, and sends it to ``v``."""
    shape, index = drawn
    plain = numbers(shape)
    try:
        region = np.shape(plain[index])
    except IndexError:
        return
    taken = np.zeros(shape, np.int64)
    np.add.at(taken, index, 1)
    if taken.max(initial=0) > 1:
        return  # which of the values an element named twice keeps is not defined
    x = leaf(shape)
    v = Tensor(-numbers(() if one_number else region) - 1, requires_grad=True)
    y = x * 2
    y[index] = v
    expected = plain * 2
    expected[index] = host(v)
    np.testing.assert_array_equal(host(y), expected)
    w, g = gradient_of(y, x)
    np.testing.assert_array_equal(g, np.where(taken, 0, 2 * w))
    at_v = np.zeros(v.shape) if v.grad is None else host(v.grad)
    np.testing.assert_allclose(at_v, w[index].sum() if one_number else w[index], rtol=1e-12)


@given(SMALL.filter(bool).flatmap(lambda s: st.tuples(st.just(s), mixed_indices(s))))
def test_assignment_without_gradients(drawn: tuple[tuple[int, ...], Any]) -> None:
    shape, index = drawn
    expected = numbers(shape)
    try:
        expected[index] = -1.5
    except IndexError:
        return
    y = Tensor(numbers(shape))
    y[index] = -1.5
    np.testing.assert_array_equal(host(y), expected)
