"""What counts for nothing is nothing, were it infinite: weights of 0, masks, ignored rows."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sampler import host

import tensorgrad as tg
from tensorgrad import Tensor
from tensorgrad.errors import ShapeError
from tensorgrad.nn import functional as F  # noqa: N812

INF = math.inf
EXECUTORS = pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])


def result(
    f: Callable[[Tensor], Tensor], values: Any, compiled: bool, dtype: str = "float32"
) -> tuple[Any, Any]:
    """The value of ``f`` and the gradient of its sum."""

    def step(x: Tensor) -> Tensor:
        y = f(x)
        y.backward(tg.ones_like(y))
        return y.detach()

    x = Tensor(values, dtype=dtype, requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = tg.compile(step) if compiled else step
        y = run(x)
        if compiled:  # the first call captures, the second replays
            x.grad = None
            y = run(x)
    assert x.grad is not None
    return host(y).astype(np.float64), host(x.grad).astype(np.float64)


# function of the logits, logits, value, gradient
P = 1 / (1 + math.e)
LABELS = Tensor([1, 0])
MASKED: dict[str, tuple[Callable[[Tensor], Tensor], Any, Any, Any]] = {
    "cross entropy, weights": (
        lambda x: F.cross_entropy(x, LABELS, "none", weight=tg.ones(3)),
        [[0, 1, -INF], [1, -INF, 0]],
        [math.log(1 + math.e) - 1] * 2,
        [[P, -P, 0.0], [-P, 0.0, P]],
    ),
    "cross entropy, a label of weight 0": (
        lambda x: F.cross_entropy(x, LABELS, "sum", weight=[1.0, 0.0]),
        [[0, -INF], [0, 1]],
        math.log(1 + math.e),
        [[0, 0], [P - 1, 1 - P]],
    ),
    "cross entropy, ignored rows": (
        lambda x: F.cross_entropy(x, Tensor([-100, 0]), ignore_index=-100),
        [[INF, math.nan], [0, 1]],
        math.log(1 + math.e),
        [[0, 0], [P - 1, 1 - P]],
    ),
    "cross entropy, ignored rows, not reduced": (
        lambda x: F.cross_entropy(x, Tensor([2, 0]), "none", ignore_index=2),
        [[-INF, -INF], [0, 1]],
        [0, math.log(1 + math.e)],
        [[0, 0], [P - 1, 1 - P]],
    ),
    "cross entropy, all rows ignored": (
        lambda x: F.cross_entropy(x, Tensor([-1, -1]), ignore_index=-1),
        [[INF, 1], [0, 1]],
        math.nan,
        [[0, 0], [0, 0]],
    ),
    "cross entropy, all rows of weight 0": (
        lambda x: F.cross_entropy(x, LABELS, weight=[0.0, 0.0]),
        [[-INF, 1], [0, 1]],
        math.nan,
        [[0, 0], [0, 0]],
    ),
    "cross entropy of probabilities": (
        lambda x: F.cross_entropy(x, Tensor([[0.5, 0.5, 0.0]]), "none"),
        [[0, 1, -INF]],
        [math.log(1 + math.e) - 0.5],
        [[P - 0.5, 0.5 - P, 0]],
    ),
    "cross entropy, spatial": (
        lambda x: F.cross_entropy(x, Tensor([[0, -1]]), "sum", ignore_index=-1),
        [[[0, INF], [1, 0]]],
        math.log(1 + math.e),
        [[[P - 1, 0], [1 - P, 0]]],
    ),
    "Kullback and Leibler": (
        lambda x: F.kl_div(x, Tensor([0.0, 1.0]), "none"),
        [-INF, -1],
        [0, 1],
        [0, -1],
    ),
    "Kullback and Leibler of logarithms": (
        lambda x: F.kl_div(x, Tensor([-INF, 0.0]), "none", log_target=True),
        [-INF, -1],
        [0, 1],
        [0, -1],
    ),
    "binary cross entropy": (
        lambda x: F.binary_cross_entropy_with_logits(x, Tensor([1.0, 0.0, 0.0, 1.0, 0.5]), "none"),
        [INF, -INF, INF, -INF, INF],
        [0, 0, INF, INF, INF],
        [0, 0, 1, -1, 0.5],
    ),
    "focal": (
        lambda x: F.sigmoid_focal_loss(x, Tensor([1.0, 0.0, 0.0, 1.0]), alpha=0.25, gamma=0.5),
        [INF, -INF, INF, -INF],
        [0, 0, INF, INF],
        [0, 0, 0.75, -0.25],
    ),
    "focal, the other class of weight 0": (
        lambda x: F.sigmoid_focal_loss(x, Tensor([0.0, 1.0]), alpha=1.0),
        [INF, -INF],
        [0, INF],
        [0, -1],
    ),
    "focal, sure": (
        lambda x: F.sigmoid_focal_loss(x, Tensor([1.0, 0.0, 1.0]), alpha=-1, gamma=0.5),
        [50, -50, 200],
        [0, 0, 0],
        [0, 0, 0],
    ),
    "Huber": (
        lambda x: F.huber_loss(x, tg.zeros(3), "none", 0.5),
        [INF, -INF, 3],
        [INF, INF, 1.375],
        [0.5, -0.5, 0.5],
    ),
    "smooth L1": (
        lambda x: F.smooth_l1_loss(x, tg.zeros(3), "none", 0.5),
        [INF, -INF, 3],
        [INF, INF, 2.75],
        [1, -1, 1],
    ),
    "margins": (
        lambda x: F.multi_margin_loss(x, Tensor([1]), reduction="none"),
        [[-INF, 0, 0.5]],
        [0.5],
        [[0, -1 / 3, 1 / 3]],
    ),
    "squared margins": (
        lambda x: F.multi_margin_loss(x, Tensor([0]), p=2, reduction="none"),
        [[INF, 0, -INF]],
        [0],
        [[0, 0, 0]],
    ),
    "hinge": (
        lambda x: F.hinge_embedding_loss(x, Tensor([1.0, -1.0, -1.0]), 1.0, "none"),
        [INF, INF, 0.5],
        [INF, 0, 0.5],
        [1, 0, -1],
    ),
}


@EXECUTORS
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("name", MASKED)
def test_masked(name: str, dtype: str, compiled: bool) -> None:
    f, values, value, gradient = MASKED[name]
    y, g = result(f, values, compiled, dtype)
    atol = 2e-3 if dtype == "float16" else 1e-6
    np.testing.assert_allclose(y, value, rtol=1e-3, atol=atol)
    np.testing.assert_allclose(g, gradient, rtol=1e-3, atol=atol)


def test_the_gradient_of_a_target_that_is_0() -> None:
    """A probability of 0 counts for nothing, but more of it would count."""
    t = Tensor([[1.0, 0.0]], requires_grad=True)
    F.cross_entropy(Tensor([[0.0, 1.0]]), t, "sum").backward()
    assert t.grad is not None
    np.testing.assert_allclose(
        host(t.grad), [[math.log(1 + math.e), math.log(1 + math.e) - 1]], rtol=1e-6
    )


def test_no_label_has_no_mean() -> None:
    with pytest.raises(ShapeError, match="at least one label"):
        F.cross_entropy(tg.ones((0, 3)), tg.zeros(0, dtype="int64"), weight=tg.ones(3))
    loss = F.cross_entropy(tg.ones((0, 3)), tg.zeros(0, dtype="int64"), "sum", weight=tg.ones(3))
    assert loss.item() == 0


@EXECUTORS
@pytest.mark.parametrize("scale", [1.0, 1e25, 1e-25])
def test_cosines_are_those_of_the_vectors_after_broadcasting(scale: float, compiled: bool) -> None:
    a = np.array([[1.0], [2.0]], np.float32) * np.float32(scale)
    b = np.array([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]], np.float32)
    other, apart = Tensor(b), Tensor(b[:, None, :])
    y, g = result(lambda x: F.cosine_similarity(x, other, eps=1e-30), a, compiled)
    np.testing.assert_allclose(y, [1, 1 / math.sqrt(3)], rtol=1e-6)
    np.testing.assert_allclose(g * scale, [[0], [0]], atol=1e-6)
    y, _ = result(lambda x: F.cosine_similarity(x, apart, axis=-1), b[0], compiled)
    np.testing.assert_allclose(y, [[1.0], [1 / math.sqrt(3)]], rtol=1e-6)
    y, _ = result(lambda x: F.cosine_similarity(x, other, axis=1), b[1], compiled)
    np.testing.assert_allclose(y, [1 / math.sqrt(3), 1], rtol=1e-6)


def test_cosines_of_what_does_not_broadcast() -> None:
    with pytest.raises(ShapeError, match="must broadcast"):
        F.cosine_similarity(tg.ones((2, 3)), tg.ones((2, 4)))
    assert F.cosine_similarity(tg.ones(()), -tg.ones(()), axis=0).item() == -1  # of one number
