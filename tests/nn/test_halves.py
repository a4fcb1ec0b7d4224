"""Compositions in 16 bits: computed in float32 and rounded once, forward and backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sampler import host

import tensorgrad as tg
from tensorgrad import Tensor, dtypes, nn
from tensorgrad.nn import functional as F  # noqa: N812

EPS = {"float16": 2.0**-11, "bfloat16": 2.0**-8}
V = [[300.0, -200.0, 0.25], [-3.0, 120.0, 400.0]]
W = [[200.0, 200.0, -0.5], [1.0, 240.0, -300.0]]
SMALL = 2.0**-7  # by which a product is exact
# what is computed of two (2, 3) arrays, some of whose squares are too large for float16
COMPOSITIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "norm": lambda v, w: tg.norm(v, axis=1),
    "norm of order 3": lambda v, w: tg.norm(v, 3, axis=1),
    "norm of order 1.5": lambda v, w: tg.norm(v, 1.5, axis=1),
    "norm of order 1": lambda v, w: tg.norm(v, 1, axis=1),
    "norm of order 0.5": lambda v, w: tg.norm(v, 0.5, axis=1),
    "std": lambda v, w: tg.std(v, axis=1),
    "var": lambda v, w: tg.var(v, axis=1),
    "logsumexp": lambda v, w: tg.logsumexp(v * SMALL, axis=1),
    "vecdot": lambda v, w: tg.vecdot(v, tg.sign(w) * 128.0),
    "hypot": tg.hypot,
    "mish": lambda v, w: tg.mish(v * SMALL),
    "selu": lambda v, w: tg.selu(v * SMALL),
    "cosine": lambda v, w: F.cosine_similarity(v, w),
    "cosine embedding": lambda v, w: F.cosine_embedding_loss(v, w, Tensor([1, -1])),
    "mean square": lambda v, w: F.mse_loss(v * 0.5, w * 0.5),
    "mean error": lambda v, w: F.l1_loss(v, w),
    "Huber": lambda v, w: F.huber_loss(v, w, delta=400.0),
    "smooth L1": lambda v, w: F.smooth_l1_loss(v, w, beta=400.0),
    "Kullback and Leibler": lambda v, w: F.kl_div(v, w, "batchmean"),
    "hinge": lambda v, w: F.hinge_embedding_loss(v, tg.sign(w), 30.0),
    "margins": lambda v, w: F.multi_margin_loss(v, Tensor([1, 0])),
    "squared margins": lambda v, w: F.multi_margin_loss(v * 0.25, Tensor([1, 0]), p=2),
    "triplets": lambda v, w: F.triplet_margin_loss(v, w, w * -1.0),
    "triplets of order 3": lambda v, w: F.triplet_margin_loss(v, w, w * -1.0, p=3.0),
    "cross entropy, smoothed": lambda v, w: F.cross_entropy(v, Tensor([1, 0]), label_smoothing=0.1),
    "cross entropy, weights": lambda v, w: F.cross_entropy(
        v, Tensor([1, 0]), weight=[0.3, 0.7, 1.1]
    ),
    "cross entropy of probabilities": lambda v, w: F.cross_entropy(v, tg.softmax(w * SMALL)),
    "focal": lambda v, w: F.sigmoid_focal_loss(v * SMALL, tg.sign(w) * 0.25 + 0.5),
    "penalty": lambda v, w: F.l2_penalty([v, w], 2.0**-6),
    "absolute penalty": lambda v, w: F.l1_penalty([v, w], 0.5),
    "batch norm": lambda v, w: batch_norm(w)(v),
    "group norm": lambda v, w: group_norm(w)(v),
    "radial basis": lambda v, w: rbf(w)(v * SMALL),
}


def batch_norm(w: Tensor) -> nn.Module:
    module = nn.BatchNorm1d(3, dtype=w.dtype)
    assert module.weight is not None
    module.weight.data = (w.detach() * SMALL).data[0]
    return module


def group_norm(w: Tensor) -> nn.Module:
    module = nn.GroupNorm(1, 3, dtype=w.dtype)
    assert module.weight is not None
    module.weight.data = (w.detach() * SMALL).data[0]
    return module


def rbf(w: Tensor) -> nn.Module:
    module = nn.RBF(3, 2, 0.1, dtype=w.dtype)
    module.centers.data = (w.detach() * SMALL).data
    return module


def result(f: Any, dtype: Any) -> tuple[Any, list[Any]]:
    """The value and the gradients, of arguments that every dtype can hold."""
    given = [
        Tensor(host(Tensor(x, dtype="bfloat16")).astype(np.float64), dtype=dtype) for x in (V, W)
    ]
    for x in given:
        x.requires_grad = True
    y = f(*given)
    assert y.dtype == given[0].dtype
    y.backward(tg.ones_like(y))
    gradients = [np.zeros(x.shape) if x.grad is None else host(x.grad) for x in given]
    return host(y).astype(np.float64), [g.astype(np.float64) for g in gradients]


@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("name", COMPOSITIONS)
def test_rounded_once(name: str, dtype: str) -> None:
    f = COMPOSITIONS[name]
    y, gradients = result(f, dtype)
    wanted, slopes = result(f, "float64")
    eps = EPS[dtype]
    np.testing.assert_allclose(y, wanted, rtol=4 * eps, atol=eps * 1e-3)
    for g, slope in zip(gradients, slopes, strict=True):
        np.testing.assert_allclose(g, slope, rtol=0, atol=6 * eps * np.abs(slope).max() + 1e-7)


@pytest.mark.parametrize("dtype", EPS)
def test_statistics_of_a_batch(dtype: str) -> None:
    v = np.array([[300.0], [-300.0], [600.0]])
    module = nn.BatchNorm1d(1, dtype=dtype)
    x = Tensor(v, dtype=dtype, requires_grad=True)
    y = module(x)
    np.testing.assert_allclose(
        host(y).astype(np.float64), (v - v.mean()) / v.std(), rtol=2 * EPS[dtype]
    )
    variance = 0.9 + 0.1 * v.var(ddof=1)
    assert float(module.running_var.item()) == pytest.approx(variance, rel=2 * EPS[dtype])
    assert module.running_var.dtype == y.dtype == dtypes.as_dtype(dtype)
    y[0, 0].backward()
    assert x.grad is not None
    n = (v - v.mean()) / v.std()
    expected = ((np.arange(3)[:, None] == 0) - 1 / 3 - n * n[0] / 3) / v.std()
    np.testing.assert_allclose(host(x.grad).astype(np.float64), expected, atol=4e-3 * EPS[dtype])
    module.eval()
    assert np.isfinite(host(module(x)).astype(np.float64)).all()


def test_wider_parameters_give_wider_results() -> None:
    x = tg.ones((4, 2), dtype="float16")
    assert nn.BatchNorm1d(2)(x).dtype == dtypes.float32
    assert nn.GroupNorm(1, 2)(x).dtype == dtypes.float32
    assert nn.GroupNorm(1, 2, affine=False)(x).dtype == dtypes.float16
    assert F.mse_loss(x, tg.ones((4, 2))).dtype == dtypes.float32
    assert F.mse_loss(x, tg.ones((4, 2), dtype="bfloat16")).dtype == dtypes.float32


def test_losses_inside_autocast_are_float32() -> None:
    x = tg.ones((2, 2), dtype="float16")
    with tg.amp.autocast("float16"):
        assert F.huber_loss(x, x).dtype == dtypes.float32
        assert F.mse_loss(x, x).dtype == dtypes.float32


@pytest.mark.parametrize("shape", [(0, 4), (0, 4, 3), (2, 4, 0)])
def test_group_norm_of_no_numbers(shape: tuple[int, ...]) -> None:
    x = tg.ones(shape).clone()
    x.requires_grad = True
    y = nn.GroupNorm(2, 4)(x)
    assert y.shape == shape
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.shape == shape


def test_batch_norm_of_no_numbers() -> None:
    module = nn.BatchNorm1d(4)
    module.eval()
    assert module(tg.ones((0, 4))).shape == (0, 4)
    assert module(tg.ones((0, 4, 3))).shape == (0, 4, 3)


@pytest.mark.parametrize("kind", ["uint8", "int8", "int32"])
def test_padding_row_of_more_vectors_than_the_indices_can_count(kind: str) -> None:
    e = nn.Embedding(300, 2, padding_idx=1)
    e(Tensor([1, 2], dtype=kind)).sum().backward()
    assert e.weight.grad is not None
    np.testing.assert_array_equal(host(e.weight.grad)[:3], [[0, 0], [0, 0], [1, 1]])


@pytest.mark.parametrize("padding", [0, 1, -1])
def test_padding_row_by_a_negative_index(padding: int) -> None:
    e = nn.Embedding(4, 2, padding_idx=padding)
    row = padding % 4
    e(Tensor([row, row - 4, (row + 1) % 4, (row + 1) % 4 - 4])).sum().backward()
    assert e.weight.grad is not None
    expected = np.zeros((4, 2))
    expected[(row + 1) % 4] = 2
    np.testing.assert_array_equal(host(e.weight.grad), expected)
