"""Products that add a bias, or multiply, as they write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from program.captured import Captured
from program.executors import EXECUTORS

import tensorgrad as tg
from tensorgrad import Tensor

pytestmark = pytest.mark.skipif("native" not in EXECUTORS, reason="there is no C compiler")

Array = np.ndarray[Any, np.dtype[Any]]
Step = Callable[..., list[Tensor]]


def normal(rng: np.random.Generator, *shape: int) -> Array:
    return rng.standard_normal(shape).astype(np.float32)


def checked(step: Step, arrays: list[Array], joined: int) -> list[str]:
    """The units of a step whose results are those of float64, of which so many products are joined
    with what is behind them."""
    tensors = [Tensor(a) for a in arrays]
    captured = Captured(step, tensors)
    exact = step(*[Tensor(a.astype(np.float64)) for a in arrays])
    with np.errstate(invalid="ignore"):
        for found, wanted in zip(captured(*tensors), exact, strict=True):
            np.testing.assert_allclose(found, wanted.numpy(), rtol=2e-5, atol=1e-4)
    units = [unit for part in captured.executor.source.parts for unit in part]
    assert sum("product_with" in unit for unit in units) == joined, units
    return units


@pytest.mark.parametrize("seed", range(8))
def test_any_sizes_and_layouts(seed: int) -> None:
    rng = np.random.default_rng(seed)
    m, n = int(rng.integers(70, 200)), int(rng.integers(40, 150))
    k = int(rng.choice([9, 64, 256, 300, 520])) + 200_000 // (m * n)
    a, b, bias, factor = normal(rng, m, k), normal(rng, k, n), normal(rng, n), normal(rng, m, n)
    if rng.random() < 0.5:
        a = a.T.copy().T
    if rng.random() < 0.5:
        b = b.T.copy().T
    bias[3], factor[5, 7], factor[m - 1, n - 1] = np.inf, np.nan, -np.inf

    def step(a: Tensor, b: Tensor, bias: Tensor, factor: Tensor) -> list[Tensor]:
        added, times = a @ b + bias, factor * ((a * 2) @ b)
        return [tg.tanh(added), tg.tanh(added) * 0.5, times * 2, times + 1]

    checked(step, [a, b, bias, factor], 2)


def test_heads_and_features_are_one_axis() -> None:
    rng = np.random.default_rng(10)

    def step(x: Tensor, w: Tensor, bias: Tensor) -> list[Tensor]:
        y = tg.reshape(x @ w, (6, 20, 4, 16)) + bias
        return [tg.exp(y * 0.1), y.sum(axis=1)]

    checked(step, [normal(rng, 6, 20, 48), normal(rng, 48, 64), normal(rng, 4, 16)], 1)


def test_of_two_products_that_are_added_one_stays() -> None:
    """As in the gradient of a weight that is used twice; and of three."""
    rng = np.random.default_rng(12)

    def step(a: Tensor, b: Tensor, c: Tensor) -> list[Tensor]:
        two = a @ b + c @ b
        three = a @ c + (b @ c) * (c @ c)
        return [tg.tanh(two * 0.1), tg.tanh(three * 0.01)]

    checked(step, [normal(rng, 64, 64) for _ in range(3)], 3)


def test_what_others_read_stays() -> None:
    """A product that somebody else reads or that is handed out, one with itself, and one whose
    addend goes down the columns."""
    rng = np.random.default_rng(11)

    def step(a: Tensor, b: Tensor, bias: Tensor, down: Tensor) -> list[Tensor]:
        x, y, z, w = (a * f @ b for f in (1.0, 2.0, 3.0, 4.0))
        first = tg.exp((x + bias) * 0.01) @ tg.sin(x).T
        return [first, y, tg.sin(y + bias), tg.sin(z * z * 1e-3), tg.sin(w + down)]

    arrays = [normal(rng, 160, 64), normal(rng, 64, 96), normal(rng, 96), normal(rng, 160, 1)]
    checked(step, arrays, 0)


def test_factors_that_are_overwritten_before_the_addition() -> None:
    """The product is made before; the sum, which reads what was made of the new factor, behind."""
    rng = np.random.default_rng(12)
    arrays = [normal(rng, 96, 64), normal(rng, 64, 96), normal(rng, 96)]
    results = []
    for compiled in (True, False):
        x, w, bias = (Tensor(a.copy()) for a in arrays)

        def step(x: Tensor, w: Tensor = w, bias: Tensor = bias) -> Tensor:
            y = x @ w
            w.copy_(w * 0.5)
            return tg.tanh((y + (bias + w.sum(axis=0))) * 0.05)

        call: Any = tg.compile(step, executor="native") if compiled else step
        results.append([call(x).numpy().copy() for _ in range(3)] + [w.numpy().copy()])
        if compiled:
            assert call.executor == "native", call.report()
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_bits_do_not_depend_on_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(13)
    tensors = [Tensor(normal(rng, *shape)) for shape in ((300, 200), (200, 150), (150,))]
    results = []
    for count in (1, 3):
        monkeypatch.setenv("TENSORGRAD_THREADS", str(count))
        captured = Captured(lambda a, b, c: [tg.relu(a @ b + c) * 2], tensors)
        assert "product_with" in captured.executor.source.text
        results.append(captured(*tensors)[0].copy())
    np.testing.assert_array_equal(*results)
