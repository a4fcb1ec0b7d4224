"""Attention of programs: routines in C, against the same attention in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from program.captured import Captured

import tensorgrad as tg
from tensorgrad import Tensor
from tensorgrad.nn.functional import scaled_dot_product_attention as attend

Array = np.ndarray[Any, np.dtype[Any]]


def lain(rng: np.random.Generator, x: Array) -> Array:
    """``x`` with its axes in some order in memory, or within a larger array."""
    way = int(rng.integers(4))
    if way == 1:
        order = rng.permutation(x.ndim)
        return x.transpose(order).copy().transpose(np.argsort(order))
    if way == 2:
        return np.concatenate([x, x + 1], axis=-1)[..., : x.shape[-1]]
    return x[..., ::-1, :].copy()[..., ::-1, :] if way == 3 else x


def drawn(rng: np.random.Generator) -> tuple[list[Array], dict[str, Any]]:
    """Queries, keys and values drawn at random, and options."""
    heads = tuple(map(int, rng.integers(1, 4, int(rng.integers(0, 4)))))
    rows, keys = (int(rng.choice([4, 5, 16, 33, 70, 150])) for _ in range(2))
    d, e = (int(rng.choice([1, 4, 16, 24, 33, 64])) for _ in range(2))
    options: dict[str, Any] = {"is_causal": bool(rng.random() < 0.5)}
    shared = heads
    if len(heads) > 1 and rng.random() < 0.3:
        options["enable_gqa"], heads = True, (*heads[:-1], 2 * heads[-1])
    elif heads and rng.random() < 0.3:
        shared = (*heads[:-1], 1)
    shapes = [(*heads, rows, d), (*shared, keys, d), (*shared, keys, e)]
    kind = int(rng.integers(4))
    if kind:
        shape = [(rows, keys), (*heads, rows, 1), (1, keys)][int(rng.integers(3))]
        mask = rng.standard_normal(shape)
        options["attn_mask"] = mask > -0.5
        if kind > 1:
            mask[rng.random(shape) < 0.2] = -np.inf
            options["attn_mask"] = mask
    return [lain(rng, rng.standard_normal(shape)) for shape in shapes], options


@pytest.mark.parametrize("seed", range(16))
def test_values_and_gradients_are_those_of_float64(seed: int) -> None:
    """Any shapes, masks and layouts; queries that see no key among them."""
    rng = np.random.default_rng(seed)
    given, options = drawn(rng)
    mask = options.pop("attn_mask", None)
    given = [a.astype(np.float32, order="K") for a in given]
    given += [np.asarray(rng.standard_normal(given[2].shape[-1]), np.float32)]
    if mask is not None:
        given += [mask.astype(np.float32) if mask.dtype == np.float64 else mask]

    def step(q: Tensor, k: Tensor, v: Tensor, w: Tensor, mask: Any = None) -> list[Tensor]:
        y = attend(q, k, v, mask, **options)
        return [y.detach(), *tg.autograd.grad(tg.sum(y * y * w), [q, k, v])]

    def tensors(dtype: Any) -> list[Tensor]:
        xs = [a.astype(dtype, order="K") if a.dtype != bool else a for a in given]
        return [Tensor(a, requires_grad=n < 3) for n, a in enumerate(xs)]

    singles = tensors(np.float32)
    wanted = step(*tensors(np.float64))
    for found, eager, exact in zip(Captured(step, singles)(*singles), step(*singles), wanted):
        scale = abs(exact.numpy()).max() + 1e-30
        error = abs(eager.numpy() - exact.numpy()).max() / scale
        assert abs(found - exact.numpy()).max() / scale <= max(4 * error, 2e-6)
