"""A gradient is never lost in silence: a tensor is stacked, spread, or refused."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from program.executors import EXECUTORS

import tensorgrad as tg
from tensorgrad import Tensor, nn, ops
from tensorgrad.errors import GradientError
from tensorgrad.ops.table import OPERATIONS

F = nn.functional


def leaf(value: Any = 2.0) -> Tensor:
    return Tensor(value, requires_grad=True)


# --- in sequences ---------------------------------------------------------------------------------

V = np.array([3.0, 4.0], np.float32)
#: What is computed from [a, b], and the gradients of its sum with respect to both.
SEQUENCES: dict[str, tuple[Callable[[Any, Any], Any], tuple[float, float]]] = {
    "asarray": (lambda a, b: tg.asarray([a, b]), (1, 1)),
    "asarray of tuples": (lambda a, b: tg.asarray(((a, b), (b, b))), (1, 3)),
    "numbers beside": (lambda a, b: tg.asarray([a, 1.0, b, b]), (1, 2)),
    "deep": (lambda a, b: tg.asarray([[[a], [1]], [[b], [True]]]), (1, 1)),
    "exp": (lambda a, b: tg.exp([a, b]), (np.exp(2), np.exp(5))),
    "sum": (lambda a, b: tg.sum([a, b]), (1, 1)),
    "times": (lambda a, b: Tensor(V) * [a, b], (3, 4)),
    "times from the left": (lambda a, b: [a, b] * Tensor(V), (3, 4)),
    "minus": (lambda a, b: tg.ones(2) - [a, b], (-1, -1)),
    "where": (lambda a, b: tg.where(Tensor([True, False]), [a, b], 0.0), (1, 0)),
    "maximum": (lambda a, b: tg.maximum([a, b], 3.0), (0, 1)),
    "clip": (lambda a, b: tg.clip(tg.zeros(2), [a, b]), (1, 1)),
    "stack": (lambda a, b: tg.stack([[a, b], [1.0, 2.0]]), (1, 1)),
    "concat": (lambda a, b: tg.concat([[a, b], Tensor(V)]), (1, 1)),
    "einsum": (lambda a, b: tg.einsum("i,i->", [a, b], V), (3, 4)),
    "matmul": (lambda a, b: Tensor(V) @ [a, b], (3, 4)),
    "linear": (lambda a, b: F.linear([[3.0, 4.0]], [[a, b]]), (3, 4)),
    "pow": (lambda a, b: Tensor([3.0, 1.0]) ** [a, b], (9 * np.log(3), 0)),
    "meshgrid": (lambda a, b: tg.meshgrid([a, b], [1.0, 2.0, 3.0])[0], (3, 3)),
    "index_put": (lambda a, b: ops.index_put(tg.zeros((2, 2)), 0, [a, b]), (1, 1)),
    "layer_norm": (lambda a, b: tg.layer_norm(Tensor([[1.0, 2.0]]), 2, bias=[a, b]), (1, 1)),
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_tensors_in_a_sequence_are_stacked(name: str) -> None:
    f, (right_a, right_b) = SEQUENCES[name]
    a, b = leaf(2.0), leaf(5.0)
    y = f(a, b)
    assert y.dtype == tg.float32
    y.sum().backward()
    for t, right in ((a, right_a), (b, right_b)):
        found = 0.0 if t.grad is None else t.grad.item()
        assert found == pytest.approx(right, rel=1e-5)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_sequences_in_programs(executor: str) -> None:
    a = leaf()

    def step(x: Tensor) -> Tensor:
        a.grad = None
        loss = (x * [a, 3.0]).sum()
        loss.backward()
        return loss.detach()

    call = tg.compile(step, executor=executor)
    for n in (1.0, 2.0, 3.0):
        assert call(Tensor([n, n])).item() == 5 * n
        assert a.grad is not None
        assert a.grad.item() == n


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_numbers_take_on_the_dtype_of_the_tensors_beside_them(dtype: str) -> None:
    a = Tensor(2.0, dtype=dtype)
    for data in ([a, 1.0], [[a, 2], [True, a]], [a, np.float64(1.0)]):
        assert Tensor(data).dtype == a.dtype
        assert tg.asarray(data).dtype == a.dtype
        assert tg.exp(data).dtype == a.dtype
    assert Tensor([a, np.ones((), np.float64)]).dtype == tg.float64
    assert Tensor([Tensor(1), 2.5]).dtype == tg.float32
    assert tg.asarray([a, 1.0], dtype=tg.float64).dtype == tg.float64


def test_assignment_of_a_sequence() -> None:
    a, x = leaf(), tg.zeros((2, 2))
    x[0] = [a, 1.0]
    (x * x).sum().backward()
    assert a.grad is not None
    assert a.grad.item() == 4


def test_sequences_take_on_the_dtype_of_what_is_overwritten() -> None:
    x = tg.zeros(2, dtype=tg.float64)
    x[...] = [0.1, 0.2]
    assert x.tolist() == [0.1, 0.2]
    assert x.copy_([0.3, 0.1]).tolist() == [0.3, 0.1]
    y = Tensor([1.0, 2.0], dtype=tg.float64, requires_grad=True)
    given: Any = [0.1, 0.2]
    (y * 1.0).backward(given)
    assert y.grad is not None
    assert y.grad.tolist() == [0.1, 0.2]


def test_a_gradient_given_as_a_sequence() -> None:
    a, x = leaf(3.0), leaf([1.0, 2.0])
    given: Any = [a, 1.0]
    (x * x).backward(given, create_graph=True)
    assert x.grad is not None
    x.grad.sum().backward()
    assert a.grad is not None
    assert a.grad.item() == 2


@pytest.mark.parametrize("make", [Tensor, tg.tensor])
def test_a_new_tensor_of_a_sequence_is_refused(make: Any) -> None:
    """It has no history by its meaning: of a tensor itself that is left behind, as said."""
    for data in ([leaf(), 1.0], [[1.0], [leaf() * 2]], (leaf([1.0]), leaf([2.0]))):
        with pytest.raises(GradientError, match=r"tg\.stack\(\.\.\.\) or tg\.asarray"):
            make(data)
        with tg.no_grad():
            assert not make(data).requires_grad
    assert not make(leaf()).requires_grad
    assert make([leaf().detach(), 1.0]).tolist() == [2, 1]


# --- as one number --------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [2.0, [2.0], [[2.0]]])
def test_a_tensor_is_filled_with_a_tensor(value: Any) -> None:
    for of in (None, tg.zeros((2, 3))):
        a = leaf(value)
        y = tg.full((2, 3), a) if of is None else tg.full_like(of, a)
        assert y.shape == (2, 3)
        y.sum().backward()
        assert a.grad is not None
        assert a.grad.tolist() == np.full(a.shape, 6.0).tolist()
        y.detach()[0] = 5.0  # memory of its own
        assert a.tolist() == np.full(a.shape, 2.0).tolist()


def test_filled_with_a_tensor_dtype_device_and_refusals() -> None:
    assert tg.full((2,), Tensor(2, dtype=tg.int32)).dtype == tg.int32
    assert tg.full((2,), Tensor(2.5), dtype=tg.int64).tolist() == [2, 2]
    assert tg.full_like(tg.zeros(2, dtype=tg.float64), Tensor(2)).dtype == tg.float64
    assert tg.full((2,), Tensor(2.0), requires_grad=True).is_leaf
    with pytest.raises(GradientError, match="leave one of the two out"):
        tg.full((2,), leaf(), requires_grad=True)
    with pytest.raises(ValueError, match=r"fill_value must be one number; got a tensor of shape"):
        tg.full((2,), Tensor([1.0, 2.0]))


#: Options that are numbers, found by their annotation; the arguments that go before them.
NUMBERS = {"float", "float | None", "int | float"}
X = np.array([[0.5, -0.25], [1.5, 2.0]], np.float32)
LEADING: dict[str, tuple[Any, ...]] = {
    "arange": (3.0,),
    "linspace": (0.0, 1.0, 3),
    "layer_norm": (Tensor(X), 2),
    "lp_pool1d": (Tensor(X), 2.0, 2),
    "lp_pool2d": (Tensor(X[None]), 2.0, 2),
    "lp_pool3d": (Tensor(X[None, None]), 2.0, 2),
    "rms_norm": (Tensor(X), 2),
    "batch_norm": (Tensor(X), Tensor(X[0]), Tensor(X[1])),
    "group_norm": (Tensor(X), 2),
    "instance_norm": (Tensor(X[None]),),
    "local_response_norm": (Tensor(X[None]), 2),
    "cross_entropy": (Tensor(X), Tensor([0, 1])),
    "nll_loss": (Tensor(X), Tensor([0, 1])),
    "multi_margin_loss": (Tensor(X), Tensor([0, 1])),
    "margin_ranking_loss": (Tensor(X), Tensor(X), Tensor(np.sign(X))),
    "multi_head_attention_forward": (
        *[Tensor(X)] * 3,
        2,
        1,
        tg.ones((6, 2)),
        None,
        None,
        None,
        False,
        0.0,
        Tensor(X),
        None,
    ),
    "pad": (Tensor(X), (1, 1)),
    "triplet_margin_loss": (Tensor(X), Tensor(X) + 1.0, Tensor(X) - 1.0),
    "cosine_embedding_loss": (Tensor(X), Tensor(X) + 1.0, Tensor([1.0, -1.0])),
    "embedding": (Tensor([0, 1]), Tensor(X)),
    "embedding_bag": (Tensor([[0, 1]]), Tensor(X)),
    "hinge_embedding_loss": (Tensor(X), Tensor(np.sign(X))),
    "sigmoid_focal_loss": (Tensor(X), Tensor([[1.0, 0.0], [0.0, 1.0]])),
}


def options() -> list[tuple[str, Any, str]]:
    found = []
    places = [(row.name, row.function) for row in OPERATIONS.values()]
    places += [(name, getattr(F, name)) for name in vars(F)["__all__"]]
    places += [(f"random.{name}", getattr(tg.random, name)) for name in ("uniform", "normal")]
    for name, function in dict(places).items():
        for key, parameter in inspect.signature(function).parameters.items():
            number = str(parameter.annotation) in NUMBERS
            if number and parameter.kind is not parameter.VAR_KEYWORD:
                found.append((name, function, key))
    return found


@pytest.mark.parametrize(
    ("name", "function", "key"), [pytest.param(*x, id=f"{x[0]}-{x[2]}") for x in options()]
)
def test_options_that_are_numbers(name: str, function: Any, key: str) -> None:
    """A tensor given for one gets its gradient, or is refused; it is not read in silence."""
    given = leaf(0.75)
    parameters = inspect.signature(function).parameters
    parameter = parameters[key]
    named: dict[str, Any] = {key: given}
    if name in LEADING:
        leading = list(LEADING[name])
    elif name.startswith("random."):
        leading = [(2,)]
    else:
        needed = [p for p in parameters.values() if p.default is p.empty and p.name != key]
        numbers = [p.name for p in needed if str(p.annotation) in NUMBERS]
        named.update(dict.fromkeys(numbers, 0.5))
        leading = [Tensor(X)] * max(len(needed) - len(numbers), 1)
    if parameter.kind is parameter.POSITIONAL_ONLY or name.startswith(("lp_pool", "multi_head")):
        at = list(parameters).index(key)
        leading[at : at + 1] = [given]
        named = {}
    try:
        y = function(*leading, **named)
    except GradientError:
        return
    y = y[0] if isinstance(y, tuple) else y
    assert y.requires_grad, f"{name}: the gradient of {key} was lost"
    assert not function(*leading, **{k: given.detach() for k in named}).requires_grad


@pytest.mark.parametrize(
    "call",
    [
        lambda a: tg.var(Tensor(X), correction=a),
        lambda a: tg.std(Tensor(X), correction=a),
        lambda a: tg.norm(Tensor(X), a),
        lambda a: tg.dropout(Tensor(X), a),
        lambda a: tg.pad(Tensor(X), 1, constant_values=a),
        lambda a: tg.bias_activation(Tensor(X), tg.zeros(2), "elu", alpha=a),
        lambda a: tg.arange(a),
        lambda a: tg.arange(0, a),
        lambda a: tg.linspace(0.0, a, 3),
        lambda a: tg.random.uniform((2,), a, 3.0),
        lambda a: tg.random.normal((2,), 0.0, a),
        lambda a: np.ones(2) + np.array(a),
        lambda a: np.asarray([a, a]),
        lambda a: tg.zeros(2).copy_([a, a]),
    ],
)
def test_refused(call: Callable[[Tensor], Any]) -> None:
    with pytest.raises(GradientError):
        call(leaf(0.5))


def test_numbers_without_a_gradient_are_taken() -> None:
    x = Tensor(X)
    numbers: list[Any] = [Tensor(0.5), np.float32(0.5), np.array([0.5])]
    for a in numbers:
        assert tg.elu(x, a).tolist() == tg.elu(x, 0.5).tolist()
        assert tg.arange(0, 2, a).tolist() == [0, 0.5, 1, 1.5]
        assert tg.linspace(a, 1, 2).tolist() == [0.5, 1]
    ends: list[Any] = [Tensor(3), Tensor(3.0), np.float32(3)]
    assert [str(tg.arange(end).dtype) for end in ends] == ["int64", "float32", "float32"]
    with tg.no_grad():
        alpha: Any = leaf(0.5)
        assert tg.elu(x, alpha).tolist() == tg.elu(x, 0.5).tolist()
