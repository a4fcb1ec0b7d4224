"""Small arrays beside tensors may be overwritten before the backward pass: the tape has its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import Tensor
from tensorgrad.nn import functional as F  # noqa: N812

AXES = np.arange(4)
#: what is computed of a tensor (4, 5) and an array, and the array
CALLS: dict[str, tuple[Callable[[Any, Any], Any], Any]] = {
    "multiply": (lambda x, a: x * a, np.linspace(1, 2, 5)),
    "from the left": (lambda x, a: a * x, np.linspace(1, 2, 5)),
    "divide": (lambda x, a: x / a, np.linspace(1, 2, 20).reshape(4, 5)),
    "power": (lambda x, a: x**a, np.linspace(1, 2, 5)),
    "float32": (lambda x, a: x * a, np.linspace(1, 2, 5).astype(np.float32)),
    "integers": (lambda x, a: x * a, np.arange(1, 6)),
    "product": (lambda x, a: x @ a, np.linspace(1, 2, 15).reshape(5, 3)),
    "maximum": (lambda x, a: tg.maximum(x, a), np.linspace(0, 3, 5)),
    "einsum": (lambda x, a: tg.einsum("ij,jk->k", x, a), np.linspace(1, 2, 10).reshape(5, 2)),
    "where": (lambda x, a: tg.where(a, x, 0.0), np.arange(5) % 2 == 0),
    "mask": (lambda x, a: x[a], np.arange(20).reshape(4, 5) % 3 == 0),
    "rows": (lambda x, a: x[a], np.array([0, 2, 2])),
    "places": (lambda x, a: x[a, a], np.array([0, 1])),
    "take": (lambda x, a: tg.take(x, a, axis=1), np.array([4, 0])),
    "take_along_axis": (lambda x, a: tg.take_along_axis(x, a, axis=0), np.array([[1, 2, 3, 0, 1]])),
    "gather": (lambda x, a: tg.gather(x, a, axis=0), np.array([[1, 2, 3, 0, 1]])),
    "index_put": (lambda x, a: tg.index_put(x, a, 1.0), np.array([0, 2])),
    "into a buffer": (lambda x, a: tg.index_put(tg.zeros((9, 5)), a, x), np.array([0, 2, 4, 8])),
    "scatter_add": (
        lambda x, a: tg.scatter_add(tg.zeros((4, 5)), a, x, axis=0),
        np.arange(20).reshape(4, 5) % 4,
    ),
    "index_add": (lambda x, a: tg.index_add(tg.zeros((9, 5)), a, x), np.array([0, 2, 4, 8])),
    "nested": (lambda x, a: x * tg.asarray([a, a, a, a]), np.linspace(1, 2, 5)),
    "cross_entropy": (lambda x, a: F.cross_entropy(x, a), np.array([0, 1, 2, 3])),
    "weights": (
        lambda x, a: F.cross_entropy(x, Tensor([0, 1, 2, 3]), weight=a), np.linspace(1, 2, 5),
    ),
    "bce": (
        lambda x, a: F.binary_cross_entropy_with_logits(x, a), np.linspace(0, 1, 20).reshape(4, 5),
    ),
    "mse": (lambda x, a: F.mse_loss(x, a), np.linspace(0, 1, 20).reshape(4, 5)),
    "ufunc": (lambda x, a: np.multiply(a, x), np.linspace(1, 2, 5)),
    "function": (lambda x, a: np.convolve(x[0], a), np.linspace(1, 2, 3)),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_gradient_is_that_of_the_array_as_it_was(name: str) -> None:
    of, array = CALLS[name]
    found = []
    for overwritten in (False, True):
        given = array.copy()
        x = Tensor(np.linspace(0.5, 1.5, 20).reshape(4, 5), requires_grad=True)
        y = of(x, given)
        if overwritten:
            given[...] = ~given if given.dtype.kind == "b" else np.flip(given).copy()
            assert not np.array_equal(given, array)
        (y * y).sum().backward()
        assert x.grad is not None
        found.append(x.grad.numpy())
    assert found[0].tolist() == found[1].tolist()


def test_arrays_that_are_not_kept_are_not_copied() -> None:
    array, x = np.ones(5), Tensor(np.ones(5), requires_grad=True)
    plain = Tensor(np.ones(5))
    assert tg.asarray(array).data is array
    seen: list[Any] = []

    class Watch(tg.observers.Observer):
        def computed(self, op: Any, inputs: Any, attrs: Any, out: Any) -> None:
            seen.extend(t.data is array for t in inputs)

    token = tg.observers.MODE.set(tg.observers.current_mode()._replace(observers=(Watch(),)))
    try:
        x + array  # the gradient does not depend on it
        plain * array
        with tg.no_grad():
            x * array
        x * array
    finally:
        tg.observers.MODE.reset(token)
    assert seen == [False, True, False, True, False, True, False, False]
