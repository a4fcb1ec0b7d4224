"""The Tensor: how it is made, shown, converted, combined and overwritten, and what errors say."""

from __future__ import annotations

import copy
import operator
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sampler import host

import tensorgrad as tg
from tensorgrad import Tensor, backend, dtypes, nn
from tensorgrad.errors import DeviceError, DtypeError, GradientError, ShapeError

no_gpu = pytest.mark.skipif(backend.cuda_is_available(), reason="says what happens without a GPU")


def leaf(values: Any, dtype: Any = np.float64) -> Tensor:
    return Tensor(values, dtype=dtype, requires_grad=True)


# --- making ---------------------------------------------------------------------------------------

MADE: list[tuple[Any, Any, tuple[int, ...]]] = [
    (1, np.int64, ()),
    (1.5, np.float32, ()),
    (True, np.bool_, ()),
    ([], np.float32, (0,)),
    ([[], []], np.float32, (2, 0)),
    ([1, 2], np.int64, (2,)),
    ([1, 2.5], np.float32, (2,)),
    ([True, False], np.bool_, (2,)),
    (((1.0,), (2.0,)), np.float32, (2, 1)),
    (range(3), np.int64, (3,)),
    (np.float64(1.5), np.float64, ()),
    (np.int8(1), np.int8, ()),
    (np.arange(3, dtype=np.uint16), np.uint16, (3,)),
    (np.zeros((2, 0), np.float16), np.float16, (2, 0)),
    (np.array([1.0], ">f8"), np.float64, (1,)),
]


@pytest.mark.parametrize(("data", "dtype", "shape"), MADE, ids=[repr(m[0]) for m in MADE])
def test_dtype_and_shape_follow_from_the_data(
    data: Any, dtype: Any, shape: tuple[int, ...], device: str
) -> None:
    x = Tensor(data, device=device)
    assert x.dtype == dtype
    assert x.shape == shape
    assert x.ndim == len(shape)
    assert x.size == np.prod(shape)
    assert x.nbytes == x.size * x.dtype.itemsize
    assert x.device.startswith(device)
    assert not x.requires_grad
    np.testing.assert_array_equal(host(x), np.asarray(data))


@pytest.mark.parametrize("dtype", sorted(map(str, dtypes.ALL)))
def test_every_dtype_by_name(dtype: str, device: str) -> None:
    for data in ([0, 1], np.array([0, 1]), Tensor([0, 1], device=device)):
        x = Tensor(data, dtype=dtype, device=device)
        assert str(x.dtype) == dtype
        assert x.tolist() == [0, 1]
        assert tg.real(x).astype("float32").dtype == np.float32


def test_tensors_inside_sequences() -> None:
    a, b = Tensor(1.0, dtype=np.float64), Tensor(2.0, dtype=np.float64)
    assert Tensor([a, b]).dtype == np.float64
    assert Tensor([a, b]).tolist() == [1, 2]
    assert Tensor([[a, b], [b, a]]).dtype == np.float64
    assert Tensor([[a, b], [b, a]]).tolist() == [[1, 2], [2, 1]]
    assert Tensor([Tensor([1, 2]), Tensor([3, 4])]).tolist() == [[1, 2], [3, 4]]
    assert Tensor([leaf(1.0).detach(), leaf(2.0).detach()]).tolist() == [1, 2]
    with tg.no_grad():
        assert Tensor([[leaf(1.0)], [leaf(2.0)]]).tolist() == [[1], [2]]


def test_data_is_copied_unless_asked_otherwise() -> None:
    a = np.array([1.0, 2.0])
    x = Tensor(a)
    a[0] = 9
    assert x.tolist() == [1, 2]
    shared = Tensor(a, copy=None)
    assert np.shares_memory(shared.data, a)
    assert np.shares_memory(Tensor(a, copy=False).data, a)
    assert Tensor(x).data is not x.data
    with pytest.raises(ValueError, match="copy"):
        Tensor(a, dtype=np.float32, copy=False)


@pytest.mark.parametrize("data", [[[1, 2], [3]], [[1, 2], 3], [1, [2]]], ids=str)
def test_ragged_data(data: Any) -> None:
    with pytest.raises(ValueError, match="regular shape"):
        Tensor(data)


@pytest.mark.parametrize(
    "data",
    ["text", ["a", "b"], None, object()],
    ids=["text", "texts", "None", "object"],
)
def test_data_that_is_no_numbers(data: Any) -> None:
    with pytest.raises((DtypeError, ValueError)):
        Tensor(data)


@pytest.mark.parametrize("dtype", ["complex256", "float128", "nonsense", object, "int4"])
def test_unknown_dtype_is_answered_with_the_known(dtype: Any) -> None:
    with pytest.raises(DtypeError, match=r"bfloat16, bool, complex128, complex64, float16"):
        Tensor([1], dtype=dtype)


def test_only_floats_require_gradients() -> None:
    with pytest.raises(DtypeError, match=r"int64.*astype"):
        Tensor([1, 2], requires_grad=True)
    x = Tensor([1.0])
    assert x.requires_grad_() is x
    assert x.requires_grad
    assert x.is_leaf
    x.requires_grad = False
    assert not x.requires_grad
    y = leaf([1.0]) * 2
    assert not y.is_leaf
    with pytest.raises(GradientError, match=r"multiply.*detach"):
        y.requires_grad = False


def test_default_dtype(defaults: None) -> None:
    assert dtypes.get_default_dtype() == np.float32
    dtypes.set_default_dtype("float64")
    assert Tensor([1.0]).dtype == np.float64
    assert (Tensor([1]) / 2).dtype == np.float64
    assert tg.zeros(2).dtype == np.float64
    with pytest.raises(DtypeError, match="int32"):
        dtypes.set_default_dtype(np.int32)


def test_grad_can_be_set_with_matching_shape_only() -> None:
    x = leaf([1.0, 2.0])
    x.grad = Tensor([3.0, 4.0], dtype=np.float64)
    assert x.grad.tolist() == [3, 4]
    with pytest.raises(ShapeError, match=r"\(2,\).*\(3,\)"):
        x.grad = Tensor([1.0, 2.0, 3.0], dtype=np.float64)
    with pytest.raises(ShapeError, match=r"float64.*float32"):
        x.grad = Tensor([1.0, 2.0])
    x.grad = None
    assert x.grad is None
    with pytest.raises(GradientError):
        Tensor([1.0]).grad = Tensor([1.0])


# --- showing and reading --------------------------------------------------------------------------


def test_repr() -> None:
    assert repr(Tensor([1.0, 2.5])) == "Tensor([1. , 2.5])"
    assert repr(Tensor([1, 2])) == "Tensor([1, 2])"
    assert repr(Tensor([True])) == "Tensor([ True])"
    assert repr(Tensor(1.5)) == "Tensor(1.5)"
    assert repr(Tensor([1.0], dtype="float64")) == "Tensor([1.], dtype=float64)"
    assert repr(Tensor([1.0], dtype="bfloat16")) == "Tensor([1], dtype=bfloat16)"
    assert repr(tg.zeros((0, 3))) == "Tensor([], shape=(0, 3))"
    assert repr(Tensor([1.0], requires_grad=True)) == "Tensor([1.], requires_grad=True)"
    assert repr(Tensor([1.0], requires_grad=True) * 2) == "Tensor([2.], from=multiply)"
    assert repr(Tensor([[1.0], [2.0]])) == "Tensor([[1.],\n        [2.]])"
    assert "..." in repr(tg.zeros(1000))


def test_format() -> None:
    assert f"{Tensor(1.23456):.2f}" == "1.23"
    assert f"{Tensor(3)}" == "Tensor(3)"
    assert f"{Tensor([1.0])}" == "Tensor([1.])"


@pytest.mark.parametrize(
    ("x", "value"),
    [
        (Tensor(1.5), 1.5),
        (Tensor([[2]]), 2),
        (Tensor(True), True),
        (Tensor(1.5, dtype="bfloat16"), 1.5),
        (Tensor(1.5, dtype="float16"), 1.5),
    ],
    ids=str,
)
def test_item_is_a_python_number(x: Tensor, value: Any) -> None:
    assert x.item() == value
    assert type(x.item()) is type(value)
    assert type(x.reshape(1).tolist()[0]) is type(value)
    assert float(x) == value
    assert int(x) == int(value)
    assert bool(x) is True


def test_reading_errors() -> None:
    x = Tensor([1.0, 2.0])
    with pytest.raises(ValueError, match=r"\(2,\)"):
        x.item()
    with pytest.raises(ValueError, match=r"\(2,\).*any"):
        bool(x)
    with pytest.raises(TypeError, match="0-d"):
        len(Tensor(1.0))
    with pytest.raises(TypeError, match="0-d"):
        iter(Tensor(1.0))
    with pytest.raises(TypeError, match="float32"):
        operator.index(Tensor(1.0))
    assert [10, 20, 30][Tensor(1)] == 20


def test_sequence_behaviour() -> None:
    x = Tensor([[1, 2], [3, 4], [5, 6]])
    assert len(x) == 3
    assert [row.tolist() for row in x] == [[1, 2], [3, 4], [5, 6]]
    assert 4 in x
    assert 7 not in x
    assert x.T.shape == (2, 3)
    assert x.mT.shape == (2, 3)


def test_tensors_are_told_apart_by_identity() -> None:
    x, y = Tensor([1.0]), Tensor([1.0])
    assert len({x, y, x}) == 2
    assert {x: "x"}[x] == "x"


def test_unknown_attribute() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        Tensor([1.0]).nonsense  # noqa: B018
    assert not hasattr(Tensor([1.0]), "__cuda_array_interface__")


# --- to NumPy and back ----------------------------------------------------------------------------


def test_numpy_shares_memory() -> None:
    x = Tensor([1.0, 2.0])
    assert np.shares_memory(x.numpy(), x.data)
    x.numpy()[0] = 5
    assert x.tolist() == [5, 2]


def test_numpy_would_lose_the_history() -> None:
    x = leaf([1.0])
    for convert in (lambda: x.numpy(), lambda: np.asarray(x), lambda: np.from_dlpack(x)):
        with pytest.raises(GradientError, match="detach"):
            convert()
    assert x.detach().numpy().tolist() == [1]
    with tg.no_grad():
        assert np.asarray(x).tolist() == [1]


def test_array_protocol() -> None:
    x = Tensor([[1.0, 2.0]])
    assert np.asarray(x).dtype == np.float32
    assert np.shares_memory(np.asarray(x), x.data)
    assert np.asarray(x, np.float64).dtype == np.float64
    assert not np.shares_memory(np.array(x), x.data)
    np.testing.assert_array_equal(x, [[1, 2]])


def test_dlpack_to_numpy_and_back() -> None:
    x = Tensor([1.0, 2.0])
    a = np.from_dlpack(x)
    assert np.shares_memory(a, x.data)
    y = tg.from_dlpack(a)
    assert np.shares_memory(y.data, a)
    assert y.tolist() == [1, 2]
    assert x.__dlpack_device__()[0] == 1


def test_dlpack_to_torch_and_back() -> None:
    torch: Any = pytest.importorskip("torch", reason="exchanges data with PyTorch")
    x = Tensor([1.0, 2.0])
    t = torch.from_dlpack(x)
    t[0] = 7
    assert x.tolist() == [7, 2]
    source = torch.tensor([[3.0, 4.0]])
    y = tg.from_dlpack(source)
    source[0, 0] = 8
    assert y.tolist() == [[8, 4]]
    assert y.dtype == np.float32


def test_made_from_a_torch_tensor() -> None:
    torch: Any = pytest.importorskip("torch", reason="exchanges data with PyTorch")
    x = Tensor(torch.tensor([[1.0, 2.0]], dtype=torch.float64))
    assert x.dtype == np.float64
    assert x.tolist() == [[1, 2]]


NUMPY_CALLS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "exp": (lambda x: np.exp(x), lambda x: tg.exp(x)),
    "add": (lambda x: np.add(x, 1.0), lambda x: x + 1.0),
    "add-array": (lambda x: np.add(np.ones(3), x), lambda x: x + 1.0),
    "arcsin": (lambda x: np.arcsin(x / 9), lambda x: tg.asin(x / 9)),
    "power": (lambda x: np.power(x, 2), lambda x: x**2),
    "absolute": (lambda x: np.absolute(x), lambda x: tg.abs(x)),
    "true_divide": (lambda x: np.true_divide(1.0, x), lambda x: 1.0 / x),
    "maximum": (lambda x: np.maximum(x, 2.5), lambda x: tg.maximum(x, 2.5)),
    "matmul": (lambda x: np.matmul(x, x), lambda x: x @ x),
    "sum": (lambda x: np.sum(x, axis=0, keepdims=True), lambda x: tg.sum(x, 0, keepdims=True)),
    "mean": (lambda x: np.mean(x), lambda x: tg.mean(x)),
    "max": (lambda x: np.max(x), lambda x: tg.max(x)),
    "prod": (lambda x: np.prod(x), lambda x: tg.prod(x)),
    "var": (lambda x: np.var(x), lambda x: tg.var(x)),
    "cumsum": (lambda x: np.cumsum(x), lambda x: tg.cumulative_sum(x)),
    "where": (lambda x: np.where(np.array([True, False, True]), x, 0.0), lambda x: x * [1, 0, 1]),
    "clip": (lambda x: np.clip(x, 1.5, 2.5), lambda x: tg.clip(x, 1.5, 2.5)),
    "concatenate": (lambda x: np.concatenate([x, x]), lambda x: tg.concat([x, x])),
    "stack": (lambda x: np.stack([x, x], axis=1), lambda x: tg.stack([x, x], axis=1)),
    "reshape": (lambda x: np.reshape(x, (3, 1)), lambda x: tg.reshape(x, (3, 1))),
    "transpose": (lambda x: np.transpose(x[None]), lambda x: x[None].T),
    "expand_dims": (lambda x: np.expand_dims(x, 0), lambda x: x[None]),
    "squeeze": (lambda x: np.squeeze(x[None]), lambda x: x),
    "dot": (lambda x: np.dot(x, x), lambda x: x @ x),
    "einsum": (lambda x: np.einsum("i,i->", x, x), lambda x: x @ x),
    "outer": (lambda x: np.outer(x, x), lambda x: tg.outer(x, x)),
    "flip": (lambda x: np.flip(x), lambda x: x[::-1]),
    "tile": (lambda x: np.tile(x, 2), lambda x: tg.concat([x, x])),
    "linalg.norm": (lambda x: np.linalg.norm(x), lambda x: tg.sqrt(tg.sum(x * x))),
}


@pytest.mark.parametrize("name", NUMPY_CALLS)
def test_numpy_functions_keep_gradients(name: str) -> None:
    numpys, ours = NUMPY_CALLS[name]
    x, z = leaf([1.0, 2.0, 3.0]), leaf([1.0, 2.0, 3.0])
    y, wanted = numpys(x), ours(z)
    assert isinstance(y, Tensor)
    np.testing.assert_allclose(host(y), host(wanted), rtol=1e-14)
    y.backward(tg.ones_like(y))
    wanted.backward(tg.ones_like(wanted))
    assert x.grad is not None
    assert z.grad is not None
    np.testing.assert_allclose(host(x.grad), host(z.grad), rtol=1e-14)


def test_numpy_function_without_counterpart() -> None:
    with pytest.raises(TypeError, match=r"np\.packbits.*detach"):
        np.packbits(leaf([1.0, 2.0]))
    with pytest.raises(GradientError, match="history"):
        np.exp(leaf([1.0]), out=np.zeros(1))
    x: Any = leaf([1.0])
    with pytest.raises(TypeError, match=r"np\.divmod\.outer"):
        np.divmod.outer(x, x)


# --- operators ------------------------------------------------------------------------------------

OPERATORS = [
    operator.add,
    operator.sub,
    operator.mul,
    operator.truediv,
    operator.floordiv,
    operator.mod,
    operator.pow,
    operator.eq,
    operator.ne,
    operator.lt,
    operator.le,
    operator.gt,
    operator.ge,
]
OTHERS: list[Any] = [
    2,
    2.5,
    True,
    np.float64(2.5),
    np.int64(2),
    np.float32(1.5),
    np.array([1.5, 2.5], np.float32),
    Tensor([1.5, 2.5]),
]


@pytest.mark.parametrize("function", OPERATORS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("other", OTHERS, ids=lambda o: f"{type(o).__name__}")
def test_operators_on_either_side(function: Callable[..., Any], other: Any) -> None:
    values = np.array([3.5, 4.5], np.float32)
    x = Tensor(values)
    plain = host(other) if isinstance(other, Tensor) else other
    for found, wanted in (
        (function(x, other), function(values, plain)),
        (function(other, x), function(plain, values)),
    ):
        assert isinstance(found, Tensor)
        assert found.dtype in (np.float32, np.bool_), "a scalar never changes the type"
        np.testing.assert_allclose(host(found), wanted, rtol=1e-6)


@pytest.mark.parametrize(
    "function", [operator.and_, operator.or_, operator.xor], ids=["and", "or", "xor"]
)
def test_bit_operators(function: Callable[..., Any]) -> None:
    a, b = np.array([6, 3]), np.array([5, 1])
    for x, y in ((Tensor(a), Tensor(b)), (Tensor(a), 5), (5, Tensor(a)), (a, Tensor(b))):
        found = function(x, y)
        assert isinstance(found, Tensor)
        np.testing.assert_array_equal(host(found), function(host(x), host(y)))
    assert function(Tensor([True, False]), True).dtype == np.bool_


def test_unary_and_shift_operators() -> None:
    x = Tensor([1, -2])
    assert (-x).tolist() == [-1, 2]
    assert (+x).tolist() == [1, -2]
    assert abs(x).tolist() == [1, 2]
    assert (~x).tolist() == [-2, 1]
    assert (~Tensor([True])).tolist() == [False]
    assert (x << 2).tolist() == [4, -8]
    assert (x >> 1).tolist() == [0, -1]


def test_matmul_with_arrays_on_either_side() -> None:
    a, b = np.arange(6.0).reshape(2, 3), np.arange(3.0)
    for y in (Tensor(a) @ b, a @ Tensor(b), Tensor(a) @ Tensor(b)):
        assert isinstance(y, Tensor)
        np.testing.assert_array_equal(host(y), a @ b)


def test_comparison_with_strangers() -> None:
    for other in (None, "text", object()):
        try:
            found = Tensor([1.0]) == other
        except (TypeError, ValueError):
            continue
        assert not bool(found)


PROMOTIONS = [
    ("float32", "int64", "float32"),
    ("float16", "int64", "float16"),
    ("bfloat16", "int32", "bfloat16"),
    ("float32", "bool", "float32"),
    ("float32", "float64", "float64"),
    ("float16", "float32", "float32"),
    ("bfloat16", "float32", "float32"),
    ("float16", "bfloat16", "float32"),
    ("bfloat16", "float64", "float64"),
    ("int8", "int32", "int32"),
    ("uint8", "int8", "int16"),
    ("int64", "bool", "int64"),
    ("uint8", "uint16", "uint16"),
]


@pytest.mark.parametrize(("first", "second", "wanted"), PROMOTIONS)
def test_promotion_of_tensors(first: str, second: str, wanted: str, device: str) -> None:
    a, b = Tensor([1, 0], first, device), Tensor([1, 1], second, device)
    assert str((a + b).dtype) == wanted
    assert str((b + a).dtype) == wanted
    assert str((a * Tensor(1, second, device)).dtype) == wanted
    assert str(tg.where(a == b, b, a).dtype) == wanted


def test_no_common_dtype() -> None:
    with pytest.raises(DtypeError, match=r"uint64 and int64.*astype"):
        Tensor([1], "uint64") + Tensor([1], "int64")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("scalar", [2, 2.0, True, np.float64(2), np.int32(2)], ids=repr)
def test_scalars_keep_the_dtype(dtype: str, scalar: Any, device: str) -> None:
    x = Tensor([1.0, 2.0], dtype, device, requires_grad=True)
    for y in (x + scalar, scalar * x, x / scalar, scalar - x, x**scalar, tg.maximum(x, scalar)):
        assert str(y.dtype) == dtype
        x.grad = None
        tg.sum(y).backward()
        assert x.grad is not None
        assert str(x.grad.dtype) == dtype


OPTIONS: dict[str, Callable[[Tensor, Any], Tensor]] = {
    "leaky_relu": lambda x, s: tg.leaky_relu(x, s),
    "elu": lambda x, s: tg.elu(x, s),
    "hardtanh": lambda x, s: tg.hardtanh(x, -2.0, s),
    "clip": lambda x, s: tg.clip(x, None, s),
    "where": lambda x, s: tg.where(x > 1, x, s),
    "rpow": lambda x, s: s**x,
    "pad": lambda x, s: tg.pad(x, 1, constant_values=s),
    "dropout": lambda x, s: tg.dropout(x, s / 4),
    "logaddexp": lambda x, s: tg.logaddexp(x, s),
    "sum": lambda x, s: tg.sum(x) * s,
}


@pytest.mark.parametrize("scalar", [np.float64(2), np.int32(2), np.float32(2)], ids=repr)
@pytest.mark.parametrize("function", OPTIONS)
def test_numpy_numbers_as_options(function: str, scalar: Any) -> None:
    for dtype in ("float16", "bfloat16", "float32"):
        x = Tensor([1.0, 2.0], dtype, requires_grad=True)
        y = OPTIONS[function](x, scalar)
        assert y.dtype == x.dtype
        y.backward(tg.ones_like(y))
        assert x.grad is not None
        assert x.grad.dtype == x.dtype


def test_scalars_beside_integers() -> None:
    x = Tensor([1, 2])
    assert (x + 1).dtype == np.int64
    assert (x + 1.0).dtype == np.float32
    assert (x / 2).dtype == np.float32
    assert (x // 2).dtype == np.int64
    assert (x**2).dtype == np.int64
    assert (x**-1).dtype == np.float32
    assert (Tensor([1], "uint8") + 1).dtype == np.uint8
    assert (Tensor([True]) + 1).dtype == np.int64
    assert (Tensor([True]) * 1.0).dtype == np.float32


# --- overwriting ----------------------------------------------------------------------------------


def test_in_place_operators_overwrite_where_nothing_is_recorded() -> None:
    x = Tensor([2.0, 4.0])
    same, memory = x, x.data
    x += 2
    x *= Tensor([1.0, 2.0])
    x -= 1.0
    x /= 3
    assert x is same
    assert x.data is memory
    assert x.tolist() == pytest.approx([1, 11 / 3])


def test_in_place_operators_make_a_new_tensor_where_something_is_recorded() -> None:
    x = leaf([2.0, 4.0])
    y = x * 1.0
    old, memory = y, y.data
    y += x
    assert y is not old
    assert memory.tolist() == [2, 4]
    tg.sum(y * old).backward()
    assert x.grad is not None
    assert x.grad.tolist() == [8, 16]


@pytest.mark.parametrize("sign", ["+", "-", "*", "/"])
def test_leaf_is_not_overwritten_while_recording(sign: str) -> None:
    x = leaf([1.0, 2.0])
    change = getattr(operator, {"+": "iadd", "-": "isub", "*": "imul", "/": "itruediv"}[sign])
    with pytest.raises(GradientError, match="no_grad"):
        change(x, 1.0)
    with pytest.raises(GradientError, match="no_grad"):
        x[0] = 1.0
    with pytest.raises(GradientError, match="no_grad"):
        x.copy_(Tensor([0.0, 0.0]))
    assert x.tolist() == [1, 2]
    with tg.no_grad():
        assert change(x, 2.0) is x
        x[0] = 5.0
    assert x.requires_grad
    assert x.tolist()[0] == 5


def test_in_place_result_must_fit() -> None:
    x = Tensor([1.0, 2.0])
    with pytest.raises(ShapeError, match=r"x \+= y.*\(3, 2\).*\(2,\)"):
        x += tg.ones((3, 2))
    with pytest.raises(ShapeError, match=r"float64.*float32.*x = x \* y"):
        x *= Tensor([1.0, 2.0], dtype=np.float64)
    assert x.tolist() == [1, 2]


def test_assignment_casts_and_broadcasts() -> None:
    x = tg.zeros((2, 3))
    x[0] = 1
    x[:, 1] = Tensor([5.0, 6.0], dtype=np.float64)
    x[1, 2] = np.float64(7.5)
    assert x.tolist() == [[1, 5, 1], [0, 6, 7.5]]
    assert x.dtype == np.float32


def test_assignment_while_recording() -> None:
    x, v = leaf([1.0, 2.0, 3.0]), leaf(10.0)
    y = x * 2
    view = y.detach()
    y[1] = v
    assert y.tolist() == [2, 10, 6]
    assert view.tolist() == [2, 4, 6], "tensors that shared the memory keep the old values"
    tg.sum(y * y).backward()
    assert x.grad is not None
    assert v.grad is not None
    assert x.grad.tolist() == [8, 0, 24]
    assert v.grad.tolist() == 20


def test_assignment_of_a_recorded_value_into_a_plain_tensor() -> None:
    x, buffer = leaf([1.0, 2.0]), tg.zeros(3, dtype=np.float64)
    buffer[1:] = x * 3
    assert buffer.requires_grad
    tg.sum(buffer * buffer).backward()
    assert x.grad is not None
    assert x.grad.tolist() == [18, 36]


def test_copying_a_recorded_value_does_not_lose_its_gradient_silently() -> None:
    x, buffer = leaf([1.0, 2.0]), tg.zeros(2, dtype=np.float64)
    try:
        buffer.copy_(x * 3)
    except GradientError:
        return
    assert buffer.requires_grad


def test_clone_has_memory_of_its_own() -> None:
    x = leaf([1.0, 2.0])
    y = x.clone()
    assert not np.shares_memory(y.data, x.data)
    tg.sum(y * 2).backward()
    assert x.grad is not None
    assert x.grad.tolist() == [2, 2]


def test_conversions_that_change_nothing_return_the_tensor() -> None:
    x = Tensor([1.0])
    assert x.to("cpu") is x or x.device != "cpu"
    assert x.float() is x
    assert x.astype("float32") is x
    assert x.to(tg.float64).dtype == np.float64
    assert x.double().dtype == np.float64
    assert x.half().dtype == np.float16
    assert x.long().dtype == np.int64


def test_gradients_flow_through_conversions() -> None:
    x = leaf([1.0, 2.0], np.float32)
    tg.sum(x.double() * x.half().float()).backward()
    assert x.grad is not None
    assert x.grad.dtype == np.float32
    assert x.grad.tolist() == [2, 4]


COPIES: dict[str, Callable[[Tensor], Tensor]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda x: pickle.loads(pickle.dumps(x)),  # type: ignore[no-any-return,unused-ignore]
}


@pytest.mark.parametrize("way", COPIES)
def test_copies_are_tensors_of_their_own(way: str) -> None:
    """With an entry on the tape of their own: gradients must not be mixed up."""
    duplicate = COPIES[way]
    plain = Tensor([1, 2], "int8")
    assert duplicate(plain).tolist() == [1, 2]
    assert duplicate(plain).dtype == np.int8
    x = leaf([1.0, 2.0])
    z = duplicate(x)
    assert z.requires_grad
    assert z.is_leaf
    assert not np.shares_memory(z.data, x.data)
    tg.sum(x * 2 + z * 3).backward()
    assert x.grad is not None
    assert z.grad is not None
    assert x.grad.tolist() == [2, 2]
    assert z.grad.tolist() == [3, 3]


@pytest.mark.parametrize("make", [Tensor, nn.Parameter])
def test_a_deep_copy_keeps_the_gradient(make: Callable[..., Tensor]) -> None:
    """In memory of its own, and without the history that it may have."""
    x = make([3.0], requires_grad=True)
    (x * x).sum().backward(create_graph=True)
    z = copy.deepcopy([x, x])
    assert z[0] is z[1]
    assert type(z[0]) is make
    assert x.grad is not None
    assert x.grad.requires_grad
    assert z[0].grad is not None
    assert not z[0].grad.requires_grad
    x.grad.data[...] = 9
    assert z[0].grad.tolist() == [6]
    (z[0] * 2).sum().backward()
    assert (x.grad.tolist(), z[0].grad.tolist()) == ([9], [8])
    assert copy.deepcopy(make([1.0], requires_grad=False)).grad is None


@pytest.mark.parametrize("way", COPIES)
def test_copying_a_computed_tensor(way: str) -> None:
    """It loses its history or is refused; it never shares the entry on the tape."""
    y = leaf([1.0, 2.0]) * 2
    try:
        z = COPIES[way](y)
    except (GradientError, TypeError, pickle.PicklingError):
        return
    assert z.tolist() == [2, 4]
    assert z.is_leaf


# --- what errors say ------------------------------------------------------------------------------

SHAPE_ERRORS: list[tuple[Callable[[], Any], list[str]]] = [
    (lambda: tg.zeros(3) + tg.zeros(4), ["add", "(3,)", "(4,)", "broadcast"]),
    (lambda: tg.zeros((2, 3)) * tg.zeros((3, 2)), ["multiply", "(2, 3)", "(3, 2)"]),
    (lambda: tg.zeros((2, 3)) @ tg.zeros((2, 3)), ["matmul", "(2, 3)"]),
    (lambda: tg.zeros((2, 3)).reshape((4, 2)), ["reshape", "(2, 3)", "(4, 2)", "6"]),
    (lambda: tg.concat([tg.zeros((2, 3)), tg.zeros((2, 4))]), ["concat", "(2, 3)", "(2, 4)"]),
    (lambda: tg.stack([tg.zeros(2), tg.zeros(3)]), ["stack", "(2,)", "(3,)"]),
    (lambda: tg.broadcast_to(tg.zeros(3), (4,)), ["broadcast_to", "(3,)", "(4,)"]),
    (lambda: tg.sum(tg.zeros((2, 3)), axis=2), ["sum", "axis=2", "(2, 3)"]),
    (lambda: tg.softmax(tg.zeros((2, 3)), axis=-3), ["softmax", "axis=-3", "(2, 3)"]),
    (lambda: tg.permute_dims(tg.zeros((2, 3)), (0, 0)), ["permute_dims", "(0, 0)"]),
    (lambda: tg.where(Tensor([True] * 2), tg.zeros(3), 0.0), ["where", "(2,)", "(3,)"]),
    (lambda: tg.einsum("ij,jk->ik", tg.zeros((2, 3)), tg.zeros((2, 3))), ["einsum", "(2, 3)"]),
    (lambda: tg.squeeze(tg.zeros((2, 3)), axis=0), ["squeeze", "(2, 3)"]),
]


@pytest.mark.parametrize("number", range(len(SHAPE_ERRORS)))
def test_shape_errors_name_the_operation_and_the_shapes(number: int) -> None:
    function, parts = SHAPE_ERRORS[number]
    with pytest.raises(ShapeError) as caught:
        function()
    for part in parts:
        assert part in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_index_errors() -> None:
    x = tg.zeros((2, 3))
    with pytest.raises(IndexError, match=r"getitem|index"):
        x[5]
    with pytest.raises(IndexError):
        x[0, 0, 0]
    with pytest.raises(IndexError):
        x[Tensor([0, 7])]
    with pytest.raises(IndexError):
        x[1.5]


def test_strange_operands() -> None:
    with pytest.raises((TypeError, ValueError)):
        Tensor([1.0]) + "text"
    with pytest.raises((TypeError, ValueError)):
        Tensor([1.0]) + None
    with pytest.raises((TypeError, ValueError)):
        Tensor([1.0]) * object()


# --- devices --------------------------------------------------------------------------------------


@no_gpu
def test_missing_gpu_is_named_with_the_remedy() -> None:
    ways: list[Callable[[], Tensor]] = [
        lambda: Tensor([1.0], device="cuda"),
        lambda: Tensor([1.0], device="cuda:1"),
        lambda: Tensor([1.0]).to("cuda"),
        lambda: Tensor([1.0]).cuda(),
        lambda: tg.zeros(3, device="cuda"),
    ]
    remedy = r'"cuda".*(CuPy|GPU).*pip install "cupy-cuda1[23]x\[ctk\]'
    for ask in ways + ways:
        with pytest.raises(DeviceError, match=remedy):
            ask()


@no_gpu
def test_auto_takes_the_cpu_where_there_is_no_gpu() -> None:
    assert Tensor([1.0], device="auto").device == "cpu"
    assert backend.normalize("auto") == "cpu"


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "CPU", "cpu:0", "", "mps"])
def test_unknown_device(name: str) -> None:
    with pytest.raises(DeviceError, match=r'"cpu", "cuda", "cuda:1"'):
        Tensor([1.0], device=name)


def run_with_device(name: str, code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", f"import tensorgrad as tg\n{code}"],
        env={**os.environ, "TENSORGRAD_DEVICE": name},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", ["cpu", "auto", ""])
def test_device_from_the_environment(name: str) -> None:
    done = run_with_device(name, "print(tg.Tensor([1.0]).device, tg.zeros(2).device)")
    assert done.returncode == 0, done.stderr
    expected = backend.normalize(name or "cpu")
    assert done.stdout.split() == [expected, expected]


@no_gpu
def test_device_from_the_environment_never_falls_back() -> None:
    done = run_with_device("cuda", "tg.Tensor([1.0])")
    assert done.returncode != 0
    assert "DeviceError" in done.stderr
    assert "pip install" in done.stderr


def test_default_device(defaults: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TENSORGRAD_DEVICE", raising=False)
    assert backend.default_device() == "cpu"
    monkeypatch.setenv("TENSORGRAD_DEVICE", "nonsense")
    with pytest.raises(DeviceError, match="nonsense"):
        Tensor([1.0])
    backend.set_default_device("cpu")
    assert Tensor([1.0]).device == "cpu"
    with pytest.raises(DeviceError, match="unknown device"):
        backend.set_default_device("tpu")
    assert backend.default_device() == "cpu"


@pytest.mark.gpu
@pytest.mark.skipif(not backend.cuda_is_available(), reason="needs a GPU")
def test_between_devices() -> None:
    x = leaf([1.0, 2.0])
    y = x.to("cuda")
    assert y.device == "cuda:0"
    with pytest.raises(DeviceError, match=r"add.*cpu.*cuda:0.*\.to\("):
        x + y
    tg.sum(y * y).backward()
    assert x.grad is not None
    assert x.grad.device == "cpu"
    assert x.grad.tolist() == [2, 4]
    with pytest.raises(DeviceError, match="cpu"):
        np.asarray(y.detach())
