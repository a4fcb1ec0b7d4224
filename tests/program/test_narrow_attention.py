"""Attention of few features in programs, whose lanes are queries, against the same in float64."""

from __future__ import annotations

import platform
from typing import Any

import numpy as np
import pytest
from program.captured import Captured
from program.vector_widths import WIDTHS

import tensorgrad as tg
from tensorgrad import Tensor
from tensorgrad.nn.functional import scaled_dot_product_attention as attend
from tensorgrad.program import compiler

Array = np.ndarray[Any, np.dtype[Any]]


def step_of(is_causal: bool) -> Any:
    """A step that returns the value and all gradients."""

    def step(q: Tensor, k: Tensor, v: Tensor) -> list[Tensor]:
        y = attend(q, k, v, is_causal=is_causal)
        return [y.detach(), *tg.autograd.grad(tg.sum(y * y), [q, k, v])]

    return step


def results_of(arrays: list[Array], is_causal: bool = False) -> tuple[list[Any], list[Any]]:
    """What a program returns, and what the function does in float64."""
    singles = [Tensor(a, requires_grad=True) for a in arrays]
    doubles = [Tensor(a.astype(np.float64), requires_grad=True) for a in arrays]
    captured = Captured(step_of(is_causal), singles)
    assert "narrow_attention.h" in captured.executor.source.text
    return captured(*singles), [y.numpy() for y in step_of(is_causal)(*doubles)]


def normal(rng: np.random.Generator, *shape: int) -> Array:
    return rng.standard_normal(shape).astype(np.float32)


def agree(found: list[Any], wanted: list[Any]) -> None:
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6 * (1 + abs(b).max()))


@pytest.mark.parametrize(
    ("rows", "keys", "d", "e", "is_causal"),
    [(16, 16, 4, 4, True), (37, 70, 8, 3, True), (33, 20, 1, 8, True), (5, 128, 5, 2, False)],
)
def test_values_and_gradients_are_those_of_float64(
    rows: int, keys: int, d: int, e: int, is_causal: bool
) -> None:
    """Heads lie between the positions, as a layer leaves them."""
    rng = np.random.default_rng(rows)
    shapes = (rows, d), (keys, d), (keys, e)
    arrays = [normal(rng, n, 3, size).swapaxes(0, 1) for n, size in shapes]
    agree(*results_of(arrays, is_causal))


@pytest.mark.parametrize("width", [8, 4])
def test_narrower_vectors_give_the_same(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("these are the widths of x86")
    rng = np.random.default_rng(width)
    arrays = [normal(rng, 2, n, size) for n, size in ((21, 7), (30, 7), (30, 6))]
    monkeypatch.setattr(compiler, "FLAGS", (*compiler.FLAGS, *WIDTHS[width]))
    agree(*results_of(arrays, is_causal=True))


def test_large_scores() -> None:
    """Of hundreds, where exponentials without the largest would be infinite."""
    rng = np.random.default_rng(4)
    found, wanted = results_of([normal(rng, 2, 40, 8) * 8 for _ in range(3)], is_causal=True)
    for a, b in zip(found, wanted):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * abs(b).max())


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_infinities_and_nan_stay_in_their_head_and_behind_the_last_query() -> None:
    """Where a query's score is NaN all of its result is; later keys are not read."""
    rng = np.random.default_rng(1)
    arrays = [normal(rng, 3, n, 6) for n in (20, 50, 50)]
    arrays[0][1, 13, 5], arrays[2][2, 0, 3] = np.nan, np.inf
    arrays[1][:, 33:], arrays[2][:, 33:] = np.nan, np.inf
    found, _ = results_of(arrays, is_causal=True)
    assert np.isnan(found[0][1, 13]).all()
    assert np.isinf(found[0][2, :, 3]).all()
    assert all(np.isfinite(a[0]).all() for a in found)
    assert not found[2][0, 33:].any()
    assert not found[3][0, 33:].any()


@pytest.mark.parametrize(
    ("keys", "d", "options"), [(129, 8, {}), (20, 9, {}), (20, 8, {"dropout_p": 0.5})], ids=str
)
def test_others_go_in_tiles(keys: int, d: int, options: dict[str, Any]) -> None:
    rng = np.random.default_rng(2)
    tensors = [Tensor(normal(rng, 2, n, d)) for n in (20, keys, keys)]

    def step(q: Tensor, k: Tensor, v: Tensor) -> list[Tensor]:
        return [attend(q, k, v, **options)]

    text = Captured(step, tensors).executor.source.text
    assert '"attention.h"' in text
    assert "narrow_attention.h" not in text
