"""Distances of vectors: against PyTorch, to the second order, in programs, and at distance 0."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import Tensor, nn
from tensorgrad.autograd import gradcheck, gradgradcheck
from tensorgrad.errors import ShapeError
from tensorgrad.nn import functional as F  # noqa: N812

RNG = np.random.Generator
ORDERS = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, math.inf]
MODE = "use_mm_for_euclid_dist"


def compared(ours: Any, theirs: Any, *arrays: Any) -> None:
    torch: Any = pytest.importorskip("torch")
    xs = [Tensor(a, requires_grad=True) for a in arrays]
    zs = [torch.tensor(a, requires_grad=True) for a in arrays]
    y, z = ours(*xs), theirs(*zs)
    assert y.shape == tuple(z.shape)
    np.testing.assert_allclose(y.detach().numpy(), z.detach().numpy(), rtol=1e-9, atol=1e-12)
    w = np.linspace(0.5, 1.5, y.size).reshape(y.shape)
    y.backward(Tensor(w))
    z.backward(torch.tensor(w))
    for a, b in zip(xs, zs, strict=True):
        assert a.grad is not None
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("p", ORDERS)
def test_between_sets_like_pytorch(p: float, rng: RNG) -> None:
    torch: Any = pytest.importorskip("torch")
    for one, two in [
        ((4, 3), (5, 3)),
        ((2, 1, 4, 3), (3, 2, 3)),
    ]:
        a, b = rng.standard_normal(one), rng.standard_normal(two)
        compared(lambda x, y: F.cdist(x, y, p), lambda x, y: torch.cdist(x, y, p), a, b)
    a = rng.standard_normal((5, 3))
    compared(lambda x: F.pdist(x, p), lambda x: torch.nn.functional.pdist(x, p), a)


def test_lengths_by_a_product(rng: RNG) -> None:
    torch: Any = pytest.importorskip("torch")
    for one, two in [((4, 3), (5, 3)), ((2, 4, 3), (1, 2, 3))]:
        compared(
            lambda x, y: F.cdist(x, y, compute_mode=MODE),
            lambda x, y: torch.cdist(x, y, compute_mode=MODE),
            rng.standard_normal(one),
            rng.standard_normal(two),
        )


@pytest.mark.parametrize("p", [0.5, 1.0, 1.5, 2.0, 3.0, math.inf])
def test_derivatives(p: float, rng: RNG) -> None:
    x, y = (Tensor(rng.standard_normal((n, 3)), requires_grad=True) for n in (3, 2))
    assert gradcheck(lambda x, y: F.cdist(x, y, p), (x, y))
    assert gradgradcheck(lambda x, y: F.cdist(x, y, p), (x, y))
    assert gradgradcheck(lambda x: F.pdist(x, p), x)
    assert gradgradcheck(lambda x, y: F.cdist(x, y, 2.0, MODE), (x, y))


@pytest.mark.parametrize("mode", [MODE, "donot_use_mm_for_euclid_dist"])
@pytest.mark.parametrize("p", ORDERS)
def test_at_distance_0_the_gradient_is_0(p: float, mode: str) -> None:
    x = Tensor([[1.0, 2.0], [1.0, 2.0]], dtype="float64", requires_grad=True)
    for y in (F.cdist(x, x.detach(), p, mode), F.cdist(x, x, p, mode), F.pdist(x, p)):
        x.grad = None
        y.sum().backward()
        assert y.detach().numpy().max() == 0
        assert x.grad is not None
        np.testing.assert_array_equal(x.grad.numpy(), 0)


@pytest.mark.parametrize("p", [-1.0, 1.0, 2.0, 5.0, math.inf])
def test_between_pairs_like_pytorch(p: float, rng: RNG) -> None:
    torch: Any = pytest.importorskip("torch")
    for shapes, eps in [(((4, 3), (4, 3)), 1e-6), (((3,), (3,)), 0.5), (((2, 1, 3), (4, 3)), 1e-6)]:
        for args in ((p, eps, False), (p, eps, True)):
            compared(
                lambda x, y, a=args: F.pairwise_distance(x, y, *a),
                lambda x, y, a=args: torch.nn.functional.pairwise_distance(x, y, *a),
                *map(rng.standard_normal, shapes),
            )


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("swap", [False, True])
def test_triplets_with_a_distance_like_pytorch(swap: bool, reduction: str, rng: RNG) -> None:
    torch: Any = pytest.importorskip("torch")
    options: dict[str, Any] = {"margin": 0.4, "swap": swap, "reduction": reduction}
    theirs = torch.nn.functional.triplet_margin_with_distance_loss
    arrays = rng.standard_normal((3, 5, 3))

    def ours(*x: Any, **more: Any) -> Any:
        function: Any = F.triplet_margin_with_distance_loss
        return function(*x, **options, **more)

    compared(ours, lambda *x: theirs(*x, **options), *arrays)
    compared(
        lambda *x: ours(*x, distance_function=lambda a, b: 1.0 - F.cosine_similarity(a, b)),
        lambda *x: theirs(
            *x, **options,
            distance_function=lambda a, b: 1.0 - torch.nn.functional.cosine_similarity(a, b),
        ),
        *arrays,
    )  # fmt: skip
    module = nn.TripletMarginWithDistanceLoss(distance_function=nn.PairwiseDistance(1.0), **options)
    tensors = [Tensor(a) for a in arrays]
    wanted = ours(*tensors, distance_function=lambda a, b: F.pairwise_distance(a, b, 1.0))
    np.testing.assert_array_equal(module(*tensors).numpy(), wanted.numpy())


def test_modules(rng: RNG) -> None:
    a, b = map(Tensor, rng.standard_normal((2, 4, 3)))
    distance = nn.PairwiseDistance(3.0, 0.1, keepdims=True)
    assert distance(a, b).tolist() == F.pairwise_distance(a, b, 3.0, 0.1, True).tolist()
    assert repr(distance) == "PairwiseDistance(p=3.0, eps=0.1, keepdims=True)"
    cosine = nn.CosineSimilarity(axis=0, eps=0.1)
    assert cosine(a, b).tolist() == F.cosine_similarity(a, b, 0, 0.1).tolist()
    assert repr(cosine) == "CosineSimilarity(axis=0, eps=0.1)"


def test_in_compiled_steps(rng: RNG) -> None:
    x = Tensor(rng.standard_normal((5, 3)).astype(np.float32), requires_grad=True)
    y = Tensor(rng.standard_normal((4, 3)).astype(np.float32))

    def step(y: Tensor) -> Tensor:
        x.grad = None
        loss = F.cdist(x, y, 3.0).sum() + F.cdist(x, y, 2.0, MODE).sum() + F.pdist(x).sum()
        loss.backward()
        return loss.detach()

    wanted = step(y).item()
    assert x.grad is not None
    gradient = x.grad.numpy().copy()
    call = tg.compile(step)
    for _ in range(2):
        assert call(y).item() == pytest.approx(wanted, rel=1e-5)
        np.testing.assert_allclose(x.grad.numpy(), gradient, rtol=1e-4, atol=1e-5)


def test_vectors_without_elements() -> None:
    """Have no distance. (PyTorch's gradient of those, and of no vectors, crashes.)"""
    x = Tensor(np.zeros((3, 0)), requires_grad=True)
    for y in (F.cdist(x, x), F.pdist(x)):
        assert y.tolist() == np.zeros(y.shape).tolist()
        y.sum().backward()
    for mode in (MODE, "donot_use_mm_for_euclid_dist"):
        assert F.cdist(x, tg.zeros((0, 0)), 2.0, mode).shape == (3, 0)
    assert F.pdist(tg.zeros((1, 3))).shape == F.pdist(tg.zeros((0, 3))).shape == (0,)


def test_errors() -> None:
    x = tg.zeros((3, 4))
    with pytest.raises(ShapeError, match=r"cdist: .* got \(3, 4\) and \(3, 3\)"):
        F.cdist(x, x[:, 1:])
    with pytest.raises(ShapeError, match="cdist"):
        F.cdist(x[0], x)
    with pytest.raises(ShapeError, match="cdist"):
        F.cdist(tg.zeros((2, 3, 4)), tg.zeros((3, 3, 4)))
    with pytest.raises(ValueError, match="p must be 0 or more, got -1"):
        F.cdist(x, x, -1.0)
    with pytest.raises(ValueError, match="p must be 0 or more, got nan"):
        F.pdist(x, math.nan)
    with pytest.raises(ValueError, match=r"compute_mode must be one of .* got 'mm'"):
        F.cdist(x, x, 2.0, "mm")
    with pytest.raises(ShapeError, match=r"pdist: .* got \(4,\)"):
        F.pdist(x[0])
    with pytest.raises(ShapeError, match="pairwise_distance"):
        F.pairwise_distance(x, x[:, 1:])
