"""Losses and penalties: against PyTorch, the lectures' forms, differences, and their errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tensorgrad import Tensor, nn
from tensorgrad.autograd import grad, gradcheck, gradgradcheck
from tensorgrad.errors import DtypeError, ShapeError
from tensorgrad.nn import functional as F  # noqa: N812
from tensorgrad.tape import MODE, Observer, current_mode

Array = np.ndarray[Any, Any]

SHAPES = [(5, 4), (4,), (2, 4, 3), (2, 4, 3, 2)]


def classes(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[Array, Array]:
    logits = rng.standard_normal(shape) * 3
    batch = shape[:1] + shape[2:] if len(shape) > 1 else ()
    return logits, rng.integers(0, shape[1 if len(shape) > 1 else 0], batch)


def check_against_torch(
    ours: Callable[[Tensor], Tensor],
    theirs: Callable[[Any], Any],
    values: Array,
    rtol: float = 1e-11,
) -> None:
    torch = pytest.importorskip("torch")
    x, z = Tensor(values, requires_grad=True), torch.tensor(values, requires_grad=True)
    a, b = ours(x), theirs(z)
    assert a.shape == tuple(b.shape)
    np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=rtol, atol=1e-14)
    a.sum().backward()
    b.sum().backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), z.grad.numpy(), rtol=rtol, atol=1e-14)


# --- classes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss"])
def test_class_losses_agree_with_torch(
    name: str, shape: tuple[int, ...], reduction: str, rng: np.random.Generator
) -> None:
    torch = pytest.importorskip("torch")
    values, labels = classes(rng, shape)
    target = torch.tensor(labels)
    check_against_torch(
        lambda x: getattr(F, name)(x, Tensor(labels), reduction),
        lambda z: getattr(torch.nn.functional, name)(z, target, reduction=reduction),
        values,
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_class_losses_first_and_second_gradient(
    shape: tuple[int, ...], reduction: str, rng: np.random.Generator
) -> None:
    values, labels = classes(rng, shape)
    x = Tensor(values, requires_grad=True)
    for loss in (F.cross_entropy, F.nll_loss):
        assert gradcheck(lambda x, f=loss: f(x, labels, reduction), x)
    assert gradgradcheck(lambda x: F.cross_entropy(x, labels, reduction), x)
    assert gradgradcheck(lambda x: F.nll_loss(x * x, labels, reduction), x)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int32, np.int64])
def test_labels_of_any_integer_type(dtype: Any, rng: np.random.Generator) -> None:
    values, labels = classes(rng, (6, 4))
    expected = F.cross_entropy(Tensor(values), labels).item()
    assert F.cross_entropy(values, labels.astype(dtype)).item() == expected
    assert F.cross_entropy(Tensor(values), labels.tolist()).item() == expected


def test_cross_entropy_is_one_entry(rng: np.random.Generator) -> None:
    class Names(Observer):
        seen: tuple[str, ...] = ()

        def computed(self, op: Any, inputs: Any, attrs: Any, out: Any) -> None:
            self.seen += (op.name,)

    names = Names()
    values, labels = classes(rng, (6, 4))
    x, target = Tensor(values, requires_grad=True), Tensor(labels)
    token = MODE.set(current_mode()._replace(observers=(names,)))
    try:
        F.cross_entropy(x, target)
    finally:
        MODE.reset(token)
    assert names.seen == ("cross_entropy",)


def test_cross_entropy_at_extreme_logits() -> None:
    x = Tensor([[1e4, 0.0, -1e4], [-1e4, 1e4, 0.0]], requires_grad=True)
    loss = F.cross_entropy(x, [0, 0])
    assert loss.item() == 1e4
    loss.backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), [[0.0, 0.0, 0.0], [-0.5, 0.5, 0.0]])


def test_cross_entropy_in_16_bits() -> None:
    x = Tensor([[0.0, 3.0], [1.0, 2.0]], dtype="float16", requires_grad=True)
    loss = F.cross_entropy(x, [0, 1])
    assert loss.dtype == "float16"
    assert loss.item() == pytest.approx((3.0486 + 0.3133) / 2, rel=1e-3)
    loss.backward()
    assert x.grad is not None
    assert x.grad.dtype == "float16"


LOGITS = Tensor(np.zeros((3, 4)))
WRONG: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (
        lambda: F.cross_entropy(LOGITS, Tensor([0.0, 1.0, 2.0])),
        DtypeError,
        r"^cross_entropy: target must hold the numbers of the classes, as integers, or "
        r"probabilities in the shape of the input, \(3, 4\); got float32 of shape \(3,\)\. Convert "
        r"labels with \.astype\(tg\.int64\)$",
    ),
    (
        lambda: F.cross_entropy(LOGITS, [0, 1]),
        ShapeError,
        r"^cross_entropy: for input of shape \(3, 4\), \(batch, classes, \.\.\.\), target must "
        r"have shape \(3,\); got \(2,\)$",
    ),
    (
        lambda: F.cross_entropy(LOGITS, [0, 4, 2]),
        IndexError,
        "a label must lie between 0 and 3, the number of classes being 4; label number 1 is 4",
    ),
    (lambda: F.cross_entropy(LOGITS, [0, 1, -1]), IndexError, "label number 2 is -1"),
    (lambda: F.nll_loss(LOGITS, np.array([0, 1, -1], np.int8)), IndexError, "number 2 is -1"),
    (lambda: F.cross_entropy(LOGITS, [0, 1, 2], "avg"), ValueError, "reduction .* got 'avg'"),
    (lambda: F.cross_entropy(Tensor(1.0), 0), ShapeError, "an axis for the classes"),
    (
        lambda: F.cross_entropy(np.zeros((0, 4)), np.zeros(0, np.int64)),
        ShapeError,
        "the mean needs at least one label",
    ),
    (
        lambda: F.mse_loss(Tensor(np.zeros((3, 1))), Tensor(np.zeros(3))),
        ShapeError,
        r"mse_loss: input and target must have the same shape; got \(3, 1\) and \(3,\)",
    ),
    (lambda: F.mse_loss(LOGITS, LOGITS, "half"), ValueError, "\"half_mean_all\", got 'half'"),
    (lambda: F.l1_loss(LOGITS, LOGITS, "half"), ValueError, "l1_loss: reduction .* got 'half'"),
    (lambda: F.l1_loss(LOGITS, Tensor(1.0)), ShapeError, "l1_loss: input and target"),
    (lambda: F.binary_cross_entropy_with_logits(LOGITS, Tensor(1.0)), ShapeError, "same shape"),
    (lambda: F.l1_penalty([Tensor([1.0])], 0.1), ValueError, "nothing to penalise among 1"),
]


@pytest.mark.parametrize(("make", "error", "message"), WRONG)
def test_errors(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


# --- numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", ["mse_loss", "l1_loss", "binary_cross_entropy_with_logits"])
def test_losses_of_numbers_agree_with_torch(
    name: str, reduction: str, rng: np.random.Generator
) -> None:
    torch = pytest.importorskip("torch")
    values, target = rng.standard_normal((4, 3)) * 3, rng.uniform(0, 1, (4, 3))
    check_against_torch(
        lambda x: getattr(F, name)(x, Tensor(target), reduction),
        lambda z: getattr(torch.nn.functional, name)(z, torch.tensor(target), reduction=reduction),
        values,
    )
    x, t = Tensor(values, requires_grad=True), Tensor(target, requires_grad=True)
    assert gradcheck(lambda x, t: getattr(F, name)(x, t, reduction), (x, t))
    assert gradgradcheck(lambda x, t: getattr(F, name)(x, t, reduction), (x, t))


def test_the_lectures_squared_errors(rng: np.random.Generator) -> None:
    o, t = rng.standard_normal((2, 5, 3))
    squares = ((t - o) ** 2).sum()
    x = Tensor(o, requires_grad=True)
    for reduction, divisor in (("half_sum", 2), ("half_mean", 2 * 5), ("half_mean_all", 2 * 3 * 5)):
        loss = F.mse_loss(x, Tensor(t), reduction)
        assert loss.item() == pytest.approx(squares / divisor, rel=1e-13)
        x.grad = None
        loss.backward()
        assert x.grad is not None
        np.testing.assert_allclose(x.grad.numpy(), (o - t) * 2 / divisor, rtol=1e-12)
    single = F.mse_loss(Tensor(0.552), Tensor(0.9), "half_mean")
    assert single.item() == pytest.approx(0.348**2 / 2, rel=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_bce_neither_overflows_nor_cancels(dtype: str) -> None:
    x = Tensor([1e4, -1e4, 20.0, -20.0], dtype=dtype, requires_grad=True)
    t = Tensor([1.0, 0.0, 1.0, 0.0], dtype=dtype)
    loss = F.binary_cross_entropy_with_logits(x, t, "none")
    small = np.log1p(np.exp(-20.0)).astype(dtype)
    np.testing.assert_allclose(loss.detach().numpy(), [0, 0, small, small], rtol=1e-2)
    loss.sum().backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), [0, 0, -small, small], rtol=1e-2)
    wrong = F.binary_cross_entropy_with_logits(x, 1.0 - t, "none")
    np.testing.assert_allclose(wrong.detach().numpy(), [1e4, 1e4, 20, 20], rtol=1e-3)


@pytest.mark.parametrize(
    ("module", "function"),
    [
        (nn.CrossEntropyLoss, F.cross_entropy),
        (nn.NLLLoss, F.nll_loss),
        (nn.MSELoss, F.mse_loss),
        (nn.L1Loss, F.l1_loss),
        (nn.BCEWithLogitsLoss, F.binary_cross_entropy_with_logits),
    ],
)
def test_modules(module: Any, function: Any, rng: np.random.Generator) -> None:
    x = Tensor(rng.standard_normal((4, 3)))
    picks = module in (nn.CrossEntropyLoss, nn.NLLLoss)
    t = Tensor([0, 2, 1, 0]) if picks else Tensor(rng.uniform(0, 1, (4, 3)))
    for reduction in ("mean", "sum", "none"):
        loss = module(reduction=reduction)
        np.testing.assert_array_equal(loss(x, t).numpy(), function(x, t, reduction).numpy())
        assert repr(loss) == f"{module.__name__}(reduction={reduction!r})"
    assert module()(x, t).shape == ()


# --- penalties ------------------------------------------------------------------------------------


def test_penalties() -> None:
    w = Tensor([[1.0, -2.0], [0.0, 3.0]], requires_grad=True)
    b = Tensor([4.0, -1.0], requires_grad=True)
    assert F.l1_penalty([w, b], 0.5).item() == 3.0
    assert F.l1_penalty([w, b], 0.5, biases=True).item() == 5.5
    assert F.l2_penalty(w, 0.5).item() == 7.0
    assert F.l2_penalty(iter([w, b]), 0.5, biases=True).item() == 15.5
    (F.l1_penalty([w, b], 0.5) + F.l2_penalty([w, b], 0.25, biases=True)).backward()
    assert w.grad is not None
    assert b.grad is not None
    assert w.grad.tolist() == [[1.0, -1.5], [0.0, 2.0]]
    assert b.grad.tolist() == [2.0, -0.5]


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_cross_entropy_to_third_order(rng: np.random.Generator, reduction: str) -> None:
    values, labels = classes(rng, (5, 4))
    target = Tensor(labels)

    def of_the_gradient(x: Tensor) -> Tensor:
        loss = F.cross_entropy(x, target, reduction=reduction).sum()
        (g,) = grad(loss, x, create_graph=True)
        out: Tensor = (g * g * g).sum()
        return out

    x = Tensor(values, dtype="float64", requires_grad=True)
    assert gradcheck(of_the_gradient, x)
    assert gradgradcheck(of_the_gradient, x)


def test_cross_entropy_of_other_layouts_and_label_types(rng: np.random.Generator) -> None:
    values, labels = classes(rng, (6, 4))
    wanted = Tensor(values, requires_grad=True)
    F.cross_entropy(wanted, Tensor(labels)).backward()
    for kind in ("int8", "uint8", "uint64"):
        x = Tensor(np.asfortranarray(values), requires_grad=True)
        assert not x.data.flags.c_contiguous
        F.cross_entropy(x, Tensor(labels, dtype=kind)).backward()
        assert x.grad is not None
        assert wanted.grad is not None
        np.testing.assert_array_equal(x.grad.numpy(), wanted.grad.numpy())
