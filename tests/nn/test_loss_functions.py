"""Margins, likelihoods and probabilities: against PyTorch, to the second order, in programs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sampler import Array

import tensorgrad as tg
from tensorgrad import Tensor, nn
from tensorgrad.autograd import gradcheck, gradgradcheck
from tensorgrad.errors import DtypeError, GradientError, ShapeError
from tensorgrad.nn import functional as F  # noqa: N812

RNG = np.random.Generator
REDUCTIONS = ["mean", "sum", "none"]


def two(rng: RNG) -> list[Array]:
    return list(rng.standard_normal((2, 4, 3)))


def signs(rng: RNG) -> list[Array]:
    return [rng.standard_normal((4, 3)) * 2, rng.choice([-1.0, 1.0], (4, 3))]


def pairs(rng: RNG) -> list[Array]:
    return [*two(rng), rng.choice([-1.0, 1.0], (4, 3))]


def probabilities(rng: RNG) -> list[Array]:
    return [rng.uniform(0.05, 0.95, (4, 3)), rng.uniform(0, 1, (4, 3))]


def weighted(rng: RNG) -> list[Array]:
    return [*probabilities(rng), rng.uniform(0.5, 2, 3)]


def several_labels(rng: RNG) -> list[Array]:
    """Some twice, some after the end, none at all."""
    labels = np.array([[2, 0, -1, 4, 1], [3, 3, 1, -1, -1], [-1, 0, 1, 2, 3], [0, 1, 2, 3, 4]])
    return [rng.standard_normal((4, 5)), labels]


def counts(rng: RNG) -> list[Array]:
    return [rng.uniform(0.3, 3, (4, 3)), rng.integers(0, 6, (4, 3)).astype(float)]


def scores(rng: RNG) -> list[Array]:
    return [rng.standard_normal((4, 3)), np.array([2, 0, 1, 2])]


def images(rng: RNG) -> list[Array]:
    return [rng.standard_normal((2, 3, 4)), np.arange(8).reshape(2, 4) % 3]


def logits(rng: RNG) -> list[Array]:
    return [rng.standard_normal((4, 3)) * 3, rng.uniform(0, 1, (4, 3))]


def variances(*shape: int) -> Callable[[RNG], list[Array]]:
    return lambda rng: [*two(rng), rng.uniform(0.5, 2, shape)]


#: given as an array here and there
WEIGHTS = np.array([0.5, 2.0, 1.25])

CASES: dict[str, tuple[str, dict[str, Any], Callable[[RNG], list[Array]]]] = {
    "binary": ("binary_cross_entropy", {}, probabilities),
    "binary, weights": ("binary_cross_entropy", {}, weighted),
    "soft margin": ("soft_margin_loss", {}, signs),
    "several labels": ("multilabel_margin_loss", {}, several_labels),
    "one example": (
        "multilabel_margin_loss", {}, lambda rng: [x[0] for x in several_labels(rng)],
    ),
    "several, soft": ("multilabel_soft_margin_loss", {}, probabilities),
    "several, soft, weights": ("multilabel_soft_margin_loss", {}, weighted),
    "ranking": ("margin_ranking_loss", {"margin": 0.3}, pairs),
    "Poisson": ("poisson_nll_loss", {}, counts),
    "Poisson, full": ("poisson_nll_loss", {"full": True, "log_input": False, "eps": 0.1}, counts),
    "Gauss": ("gaussian_nll_loss", {}, variances(4, 3)),
    "Gauss, one less": ("gaussian_nll_loss", {"full": True}, variances(4)),
    "Gauss, one axis": ("gaussian_nll_loss", {}, variances(1, 3)),
    "labels": ("nll_loss", {"weight": WEIGHTS, "ignore_index": 1}, images),
    "labels, ignored": ("nll_loss", {"ignore_index": 2}, scores),
    "margins, weights": ("multi_margin_loss", {"weight": WEIGHTS, "p": 2}, scores),
    "margin of one": ("multi_margin_loss", {}, lambda rng: [np.ones(4), np.array(2)]),
    "logits, weights": (
        "binary_cross_entropy_with_logits", {"weight": WEIGHTS, "pos_weight": WEIGHTS[::-1]}, logits
    ),
    "squares, weights": ("mse_loss", {"weight": np.arange(12.0).reshape(4, 3)}, two),
    "absolute, weights": ("l1_loss", {"weight": np.arange(12.0).reshape(4, 3)}, two),
    "Huber, weights": ("huber_loss", {"weight": np.arange(12.0).reshape(4, 3)}, two),
    "smooth, no squares": ("smooth_l1_loss", {"beta": 0.0}, two),
    "neither near nor far": ("hinge_embedding_loss", {}, two),
    "Gauss, least": ("gaussian_nll_loss", {"eps": 1.0}, variances(4, 3)),
}  # fmt: skip

#: arguments by number which have no gradient in PyTorch, or NaN (of a logarithm that it masks)
WITHOUT_GRADIENT = {
    ("binary_cross_entropy", 2), ("multilabel_soft_margin_loss", 2), ("poisson_nll_loss", 1),
    ("soft_margin_loss", 1), ("hinge_embedding_loss", 1),
}  # fmt: skip


def compared(name: str, options: dict[str, Any], arrays: list[Array]) -> None:
    """Value and gradients by the arguments that can have one in PyTorch."""
    torch: Any = pytest.importorskip("torch")
    wanted = [a.dtype == np.float64 for a in arrays]
    wanted = [w and (name, k) not in WITHOUT_GRADIENT for k, w in enumerate(wanted)]
    ours = [Tensor(a, requires_grad=w) for a, w in zip(arrays, wanted)]
    theirs = [torch.tensor(a, requires_grad=w) for a, w in zip(arrays, wanted)]
    y = getattr(F, name)(*ours, **options)
    there = {
        k: torch.tensor(v.copy()) if isinstance(v, np.ndarray) else v for k, v in options.items()
    }
    z = getattr(torch.nn.functional, name)(*theirs, **there)
    assert y.shape == tuple(z.shape)
    np.testing.assert_allclose(y.detach().numpy(), z.detach().numpy(), rtol=1e-11, atol=1e-13)
    w = np.linspace(0.5, 1.5, y.size).reshape(y.shape)
    y.backward(Tensor(w))
    z.backward(torch.tensor(w))
    for a, b in zip(ours, theirs, strict=True):
        if b.requires_grad:
            assert a.grad is not None
            np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("case", CASES)
def test_like_pytorch(case: str, reduction: str, rng: RNG) -> None:
    name, options, draw = CASES[case]
    compared(name, {**options, "reduction": reduction}, draw(rng))


@pytest.mark.parametrize("case", CASES)
def test_derivatives_by_every_argument(case: str, rng: RNG) -> None:
    name, options, draw = CASES[case]
    if "eps" in options and name.startswith("gaussian"):
        pytest.skip("below the least variance the gradient is that of another function")
    arrays = draw(rng)
    leaves = [Tensor(a, requires_grad=True) for a in arrays if a.dtype == np.float64]
    rest = [Tensor(a) for a in arrays if a.dtype != np.float64]

    def f(*x: Tensor) -> Any:
        return getattr(F, name)(*x, *rest, **options)

    assert gradcheck(f, leaves)
    assert gradgradcheck(f, leaves)


@pytest.mark.parametrize("case", CASES)
def test_in_compiled_steps(case: str, rng: RNG) -> None:
    name, options, draw = CASES[case]
    arrays = draw(rng)
    options = {
        k: Tensor(v.copy(), dtype="float32") if isinstance(v, np.ndarray) else v
        for k, v in options.items()
    }
    given = [Tensor(a, dtype="float32" if a.dtype == np.float64 else None) for a in arrays]
    given[0].requires_grad = True

    def step(*x: Tensor) -> Any:
        x[0].grad = None
        loss = getattr(F, name)(*x, **options)
        loss.backward()
        return loss.detach()

    wanted = step(*given).item()
    assert given[0].grad is not None
    gradient = given[0].grad.numpy().copy()
    call = tg.compile(step)
    for _ in range(2):
        assert call(*given).item() == pytest.approx(wanted, rel=1e-5)
        np.testing.assert_allclose(given[0].grad.numpy(), gradient, rtol=1e-4, atol=1e-6)
    assert call.captures == 1


MODULES: list[tuple[Any, str, dict[str, Any]]] = [
    (nn.BCELoss, "binary", {}),
    (nn.SoftMarginLoss, "soft margin", {}),
    (nn.MultiLabelMarginLoss, "several labels", {}),
    (nn.MultiLabelSoftMarginLoss, "several, soft", {}),
    (nn.MarginRankingLoss, "ranking", {"margin": 0.3}),
    (nn.PoissonNLLLoss, "Poisson, full", {"full": True, "log_input": False, "eps": 0.1}),
    (nn.GaussianNLLLoss, "Gauss, least", {"eps": 1.0}),
    (nn.NLLLoss, "labels, ignored", {"ignore_index": 2}),
]


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(("module", "case", "options"), MODULES)
def test_modules(module: Any, case: str, options: dict[str, Any], reduction: str, rng: RNG) -> None:
    name, given, draw = CASES[case]
    tensors = [Tensor(a) for a in draw(rng)]
    loss = module(reduction=reduction, **options)
    wanted = getattr(F, name)(*tensors, reduction=reduction, **given)
    np.testing.assert_array_equal(loss(*tensors).numpy(), wanted.numpy())
    assert f"reduction={reduction!r}" in repr(loss)
    assert all(f"{k}={v!r}" in repr(loss) for k, v in options.items() if k != "ignore_index")


def test_modules_with_weights(rng: RNG) -> None:
    for module, case in (
        (nn.NLLLoss, "labels"), (nn.MultiMarginLoss, "margins, weights"),
        (nn.BCEWithLogitsLoss, "logits, weights"),
    ):  # fmt: skip
        name, options, draw = CASES[case]
        tensors = [Tensor(a) for a in draw(rng)]
        loss: Any = module(**options)
        assert loss(*tensors).item() == getattr(F, name)(*tensors, **options).item()
        assert set(loss.state_dict()) == {k for k in options if "weight" in k}


@pytest.mark.parametrize("kind", [nn.BCELoss, nn.MultiLabelSoftMarginLoss])
def test_weights_of_modules_are_buffers(kind: Any, rng: RNG) -> None:
    x, t, w = map(Tensor, weighted(rng))
    loss = kind(weight=w)
    assert list(loss.state_dict()) == ["weight"]
    assert kind().state_dict() == {}
    np.testing.assert_array_equal(loss(x, t).numpy(), kind.function(x, t, w).numpy())
    assert str(loss.to("float16").weight.dtype) == "float16"


# --- edges ----------------------------------------------------------------------------------------


def test_certain_and_wrong_probabilities_have_a_finite_loss() -> None:
    """As in PyTorch: logarithms below -100 count as -100, and the divisor is at least 1e-12."""
    torch: Any = pytest.importorskip("torch")
    x, t = np.array([0.0, 1.0, 0.0, 1.0, 1e-60]), np.array([1.0, 0.0, 0.0, 1.0, 1.0])
    a, b = Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y = F.binary_cross_entropy(a, Tensor(t), reduction="none")
    z = torch.nn.functional.binary_cross_entropy(b, torch.tensor(t), reduction="none")
    assert y.tolist() == z.tolist() == [100, 100, 0, 0, 100]
    y.sum().backward()
    z.sum().backward()
    assert a.grad is not None
    np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-8)
    outside = F.binary_cross_entropy(Tensor([-0.5, 1.5]), Tensor([0.0, 1.0]), reduction="none")
    assert np.isnan(outside.numpy()).all()


def test_what_counts_for_nothing_is_nothing() -> None:
    ones = tg.ones(2)
    y = F.binary_cross_entropy(Tensor([math.nan, 0.5]), ones, weight=[0.0, 1.0], reduction="sum")
    assert y.item() == pytest.approx(math.log(2))
    assert F.poisson_nll_loss(Tensor([-math.inf]), Tensor([0.0])).item() == 0
    assert np.isnan(F.gaussian_nll_loss(ones, ones, Tensor([1.0, -0.1]), reduction="none")[1])


def test_on_the_edge_of_a_margin_the_gradient_is_that_of_pytorch() -> None:
    torch: Any = pytest.importorskip("torch")
    values = np.array([1.0, 1.0])
    a, b = Tensor(values, requires_grad=True), torch.tensor(values, requires_grad=True)
    F.margin_ranking_loss(a, tg.ones(2), tg.ones(2)).backward()
    torch.nn.functional.margin_ranking_loss(b, torch.ones(2), torch.ones(2)).backward()
    assert a.grad is not None
    assert a.grad.tolist() == b.grad.tolist()


def test_examples_without_elements() -> None:
    x = tg.zeros((0, 3))
    labels = Tensor(np.zeros((0, 3), np.int64))
    assert F.multilabel_margin_loss(x, labels, "sum").item() == 0
    assert F.multilabel_margin_loss(x, labels, "none").shape == (0,)
    assert F.soft_margin_loss(x, x, "sum").item() == 0
    assert F.gaussian_nll_loss(x, x, tg.zeros(0), reduction="sum").item() == 0
    assert F.binary_cross_entropy(x, x, reduction="none").shape == (0, 3)


def test_errors() -> None:
    x, t = tg.zeros((3, 4)), Tensor(np.zeros((3, 4), np.int64))
    with pytest.raises(ShapeError, match="same shape"):
        F.margin_ranking_loss(x, x, x[0])
    with pytest.raises(ShapeError, match=r"broadcast to shape \(3, 4\); got \(3,\)"):
        F.binary_cross_entropy(x, x, tg.ones(3))
    with pytest.raises(DtypeError, match="labels, as integers; got float32"):
        F.multilabel_margin_loss(x, x)
    with pytest.raises(IndexError):
        F.multilabel_margin_loss(x, t + 4)
    with pytest.raises(ShapeError, match="an axis for the classes"):
        F.multilabel_soft_margin_loss(x[0, 0], x[0, 0])
    with pytest.raises(ShapeError, match=r"var must have the shape .* got \(2,\)"):
        F.gaussian_nll_loss(x, x, tg.ones(2))
    with pytest.raises(ShapeError, match=r"got \(1, 1\)"):
        F.gaussian_nll_loss(x, x, tg.ones((1, 1)))
    with pytest.raises(ShapeError, match=r"pos_weight must broadcast to shape \(3, 4\)"):
        F.binary_cross_entropy_with_logits(x, x, pos_weight=[1.0, 2.0])
    with pytest.raises(ShapeError, match=r"weight must have shape \(3, 4\); got \(4,\)"):
        F.mse_loss(x, x, weight=tg.ones(4))
    with pytest.raises(ValueError, match="half_sum"):
        F.mse_loss(x, x, "half_sum", weight=tg.ones((3, 4)))
    with pytest.raises(DtypeError, match="nll_loss: target must hold labels"):
        F.nll_loss(x, x, ignore_index=1)
    with pytest.raises(ValueError, match="eps must be above 0"):
        F.gaussian_nll_loss(x, x, 1.0, eps=0.0)
    with pytest.raises(GradientError, match="eps"):
        F.poisson_nll_loss(x, x, eps=Tensor(1.0, requires_grad=True))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='"mean", "sum" or "none"'):
        F.soft_margin_loss(x, x, "all")
