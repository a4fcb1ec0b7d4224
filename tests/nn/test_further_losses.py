"""Losses with options, margins and distributions: against PyTorch, differences, and errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from nn.test_losses import check_against_torch, classes

import tensorgrad as tg
from tensorgrad import Tensor, nn
from tensorgrad.autograd import gradcheck, gradgradcheck
from tensorgrad.errors import DtypeError, ShapeError
from tensorgrad.nn import functional as F  # noqa: N812

Array = np.ndarray[Any, Any]
REDUCTIONS = pytest.mark.parametrize("reduction", ["mean", "sum", "none"])


@REDUCTIONS
@pytest.mark.parametrize("shape", [(5, 4), (4,), (2, 4, 3)])
@pytest.mark.parametrize(
    "options",
    [
        {"label_smoothing": 0.1},
        {"weight": [0.5, 1.0, 2.0, 0.25]},
        {"ignore_index": 2},
        {"weight": [0.5, 1.0, 2.0, 0.25], "ignore_index": 1, "label_smoothing": 0.2},
    ],
    ids=["smoothing", "weight", "ignored", "all"],
)
def test_cross_entropy_with_options(
    shape: tuple[int, ...], options: dict[str, Any], reduction: str, rng: np.random.Generator
) -> None:
    torch: Any = pytest.importorskip("torch")
    values, labels = classes(rng, shape)
    if "ignore_index" in options and labels.ndim:
        labels.reshape(-1)[0] = options["ignore_index"]
        labels.reshape(-1)[1] = 3
    elif "ignore_index" in options:
        labels = np.asarray(3)
    theirs = dict(options)
    if "weight" in options:
        theirs["weight"] = torch.tensor(options["weight"], dtype=torch.float64)
    check_against_torch(
        lambda x: F.cross_entropy(x, Tensor(labels), reduction, **options),
        lambda z: torch.nn.functional.cross_entropy(
            z, torch.tensor(labels), reduction=reduction, **theirs
        ),
        values,
    )
    loss = nn.CrossEntropyLoss(reduction, **options)
    x = Tensor(values)
    expected = F.cross_entropy(x, Tensor(labels), reduction, **options)
    np.testing.assert_allclose(loss(x, Tensor(labels)).numpy(), expected.numpy())


@REDUCTIONS
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_cross_entropy_of_probabilities(
    reduction: str, smoothing: float, rng: np.random.Generator
) -> None:
    torch: Any = pytest.importorskip("torch")
    values = rng.standard_normal((3, 4, 2))
    t = rng.dirichlet(np.ones(4), (3, 2)).transpose(0, 2, 1)
    weight = rng.uniform(0.5, 2, 4)
    check_against_torch(
        lambda x: F.cross_entropy(
            x, Tensor(t), reduction, weight=Tensor(weight), label_smoothing=smoothing
        ),
        lambda z: torch.nn.functional.cross_entropy(
            z,
            torch.tensor(t),
            weight=torch.tensor(weight),
            reduction=reduction,
            label_smoothing=smoothing,
        ),
        values,
    )


def near(rng: np.random.Generator) -> list[Array]:
    return [rng.standard_normal((4, 3)) * 2, rng.standard_normal((4, 3)) * 2]


def distributions(rng: np.random.Generator) -> list[Array]:
    t = rng.dirichlet(np.ones(3), 4)
    t[0] = [1.0, 0.0, 0.0]
    return [np.log(rng.dirichlet(np.ones(3), 4)), t]


def signs(rng: np.random.Generator) -> list[Array]:
    return [rng.standard_normal((4, 3)) * 2, rng.choice([-1.0, 1.0], (4, 3))]


def scores(rng: np.random.Generator) -> list[Array]:
    return [rng.standard_normal((4, 3)), rng.integers(0, 3, 4)]


def vectors(rng: np.random.Generator) -> list[Array]:
    return [*rng.standard_normal((2, 5, 3)), rng.choice([-1.0, 1.0], 5)]


def triplets(rng: np.random.Generator) -> list[Array]:
    return [*rng.standard_normal((3, 5, 3))]


CASES: dict[str, tuple[str, dict[str, Any], Callable[[np.random.Generator], list[Array]]]] = {
    "huber": ("huber_loss", {"delta": 0.7}, near),
    "smooth l1": ("smooth_l1_loss", {"beta": 0.5}, near),
    "kl": ("kl_div", {}, distributions),
    "kl of logarithms": ("kl_div", {"log_target": True}, near),
    "hinge": ("hinge_embedding_loss", {"margin": 1.5}, signs),
    "margins": ("multi_margin_loss", {"margin": 0.5}, scores),
    "squared margins": ("multi_margin_loss", {"p": 2}, scores),
    "cosine": ("cosine_embedding_loss", {"margin": 0.1}, vectors),
    "triplet": ("triplet_margin_loss", {"margin": 0.5}, triplets),
    "triplet, swapped": ("triplet_margin_loss", {"swap": True, "p": 3.0}, triplets),
}


@pytest.mark.filterwarnings("ignore:reduction:UserWarning")
@REDUCTIONS
@pytest.mark.parametrize("case", CASES)
def test_like_pytorch(case: str, reduction: str, rng: np.random.Generator) -> None:
    torch: Any = pytest.importorskip("torch")
    name, options, draw = CASES[case]
    first, *others = draw(rng)
    given = [torch.tensor(a) for a in others]
    check_against_torch(
        lambda x: getattr(F, name)(x, *map(Tensor, others), reduction=reduction, **options),
        lambda z: getattr(torch.nn.functional, name)(z, *given, reduction=reduction, **options),
        first,
        rtol=1e-9,  # PyTorch adds 1e-12 to the squares of lengths
    )


def test_batchmean_like_pytorch(rng: np.random.Generator) -> None:
    torch: Any = pytest.importorskip("torch")
    x, t = distributions(rng)
    check_against_torch(
        lambda y: F.kl_div(y, Tensor(t), "batchmean"),
        lambda z: torch.nn.functional.kl_div(z, torch.tensor(t), reduction="batchmean"),
        x,
    )


def test_focal_loss(rng: np.random.Generator) -> None:
    """The definition, by probabilities."""
    x, t = rng.standard_normal((4, 3)), rng.integers(0, 2, (4, 3)).astype(float)
    p = 1 / (1 + np.exp(-x))
    right = np.where(t == 1, p, 1 - p)
    share = np.where(t == 1, 0.3, 0.7)
    wanted = -share * (1 - right) ** 1.5 * np.log(right)
    found = F.sigmoid_focal_loss(Tensor(x), Tensor(t), alpha=0.3, gamma=1.5)
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-12)
    plain = F.sigmoid_focal_loss(Tensor(x), Tensor(t), alpha=-1, gamma=0.0)
    expected = F.binary_cross_entropy_with_logits(Tensor(x), Tensor(t), "none")
    np.testing.assert_allclose(plain.numpy(), expected.numpy())


@pytest.mark.parametrize("case", CASES)
def test_derivatives(case: str, rng: np.random.Generator) -> None:
    name, options, draw = CASES[case]
    first, *others = draw(rng)
    x = Tensor(first, requires_grad=True)

    def f(x: Tensor) -> Tensor:
        loss: Tensor = getattr(F, name)(x, *map(Tensor, others), **options)
        return loss

    assert gradcheck(f, x)
    assert gradgradcheck(f, x)


MODULES: list[tuple[Any, str, dict[str, Any]]] = [
    (nn.HuberLoss, "huber", {"delta": 0.7}),
    (nn.SmoothL1Loss, "smooth l1", {"beta": 0.5}),
    (nn.KLDivLoss, "kl", {}),
    (nn.HingeEmbeddingLoss, "hinge", {"margin": 1.5}),
    (nn.MultiMarginLoss, "margins", {"margin": 0.5}),
    (nn.CosineEmbeddingLoss, "cosine", {"margin": 0.1}),
    (nn.TripletMarginLoss, "triplet", {"margin": 0.5}),
]


@REDUCTIONS
@pytest.mark.parametrize(("module", "case", "options"), MODULES)
def test_modules(
    module: Any, case: str, options: dict[str, Any], reduction: str, rng: np.random.Generator
) -> None:
    name, given, draw = CASES[case]
    tensors = [Tensor(a) for a in draw(rng)]
    loss = module(reduction=reduction, **options)
    wanted = getattr(F, name)(*tensors, reduction=reduction, **given)
    np.testing.assert_array_equal(loss(*tensors).numpy(), wanted.numpy())
    assert f"reduction={reduction!r}" in repr(loss)


def test_focal_module(rng: np.random.Generator) -> None:
    x, t = Tensor(rng.standard_normal((4, 3))), Tensor(rng.uniform(0, 1, (4, 3)))
    wanted = F.sigmoid_focal_loss(x, t, 0.5, 1.0, "mean")
    assert nn.FocalLoss(0.5, 1.0)(x, t).item() == wanted.item()


def test_in_compiled_steps(rng: np.random.Generator) -> None:
    x = Tensor(rng.standard_normal((6, 4)).astype(np.float32), requires_grad=True)
    t = Tensor(rng.integers(0, 4, 6))
    loss = nn.CrossEntropyLoss(weight=[1.0, 2.0, 0.5, 1.0], ignore_index=1, label_smoothing=0.1)

    def step(t: Tensor) -> Tensor:
        x.grad = None
        y = loss(x, t) + F.huber_loss(x, x.detach() * 0.5)
        y.backward()
        return y

    call = tg.compile(step)
    wanted = step(t).item()
    assert x.grad is not None
    gradient = x.grad.numpy().copy()
    for _ in range(3):
        assert call(t).item() == pytest.approx(wanted, rel=1e-5)
        np.testing.assert_allclose(x.grad.numpy(), gradient, rtol=1e-5, atol=1e-7)


def test_errors() -> None:
    x, t = Tensor(np.zeros((3, 4))), Tensor([0, 1, 2])
    with pytest.raises(ValueError, match=r"from 0 to 1, got 1\.5"):
        F.cross_entropy(x, t, label_smoothing=1.5)
    with pytest.raises(ShapeError, match=r"shape \(4,\); got \(3,\)"):
        F.cross_entropy(x, t, weight=[1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="ignore_index is a label"):
        F.cross_entropy(x, Tensor(np.ones((3, 4))), ignore_index=1)
    with pytest.raises(DtypeError, match="probabilities in the shape"):
        F.cross_entropy(x, Tensor(np.ones((3, 3))))
    with pytest.raises(ShapeError, match="integers of shape"):
        F.cross_entropy(x, Tensor([0, 1]), label_smoothing=0.1)
    with pytest.raises(ValueError, match='"mean", "sum" or "none"'):
        F.cross_entropy(x, t, "all", label_smoothing=0.1)
    with pytest.raises(ValueError, match="delta must be above 0"):
        F.huber_loss(x, x, delta=0.0)
    with pytest.raises(ShapeError, match="same shape"):
        F.kl_div(x, t)
    with pytest.raises(ShapeError, match=r"\(N, C\) and target \(N,\)"):
        F.multi_margin_loss(x, x)
    with pytest.raises(ValueError, match="p must be 1 or 2"):
        F.multi_margin_loss(x, t, p=3)
    with pytest.raises(ShapeError, match="the target must have shape"):
        F.cosine_embedding_loss(x, x, Tensor([1.0, 1.0]))
    with pytest.raises(ShapeError, match="same shape"):
        F.triplet_margin_loss(x, x, Tensor(np.zeros((3, 5))))
