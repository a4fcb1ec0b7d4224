"""Indices of few bits: the places of the elements they choose are larger than they can be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sampler import host

import tensorgrad as tg
from tensorgrad import Tensor
from tensorgrad.nn import functional as F  # noqa: N812

CHOICES: dict[str, Callable[[Tensor, Any, str], Tensor]] = {
    "rows": lambda x, i, kind: x[Tensor(i, dtype=kind)],
    "columns": lambda x, i, kind: x[:, Tensor(i, dtype=kind)],
    "elements": lambda x, i, kind: x[Tensor(i, dtype=kind), Tensor(i[::-1].copy(), dtype=kind)],
    "take": lambda x, i, kind: tg.take(x, Tensor(i, dtype=kind), axis=0),
    "take_along_axis": lambda x, i, kind: tg.take_along_axis(
        x, Tensor(np.resize(i, (300, 3)), dtype=kind), axis=1
    ),
    "gather": lambda x, i, kind: tg.gather(x, Tensor(np.resize(i, (9, 500)), dtype=kind), axis=0),
    "scatter_add": lambda x, i, kind: tg.scatter_add(
        x * 0.0, Tensor(np.resize(i, (9, 500)), dtype=kind), x[:9], axis=0
    ),
    "labels": lambda x, i, kind: F.cross_entropy(x[: len(i)], Tensor(i, dtype=kind), "none"),
    "one_hot": lambda x, i, kind: (
        x[: len(i)] * tg.one_hot(Tensor(i, dtype=kind), 500, dtype="float64")
    ),
}


@pytest.mark.parametrize("kind", ["int8", "uint8", "int16", "int32", "uint64"])
@pytest.mark.parametrize("name", CHOICES)
def test_as_with_wide_indices(name: str, kind: str, rng: np.random.Generator) -> None:
    values = rng.standard_normal((300, 500))
    chosen = np.array([100, 3, 100, 127, 0, 64])
    found = []
    for dtype in (kind, "int64"):
        x = Tensor(values, requires_grad=True)
        y = CHOICES[name](x, chosen, dtype)
        y.backward(Tensor(np.cos(np.arange(y.size)).reshape(y.shape)))
        assert x.grad is not None
        found.append((host(y), host(x.grad)))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_array_equal(found[0][1], found[1][1])
