"""Rows A1 to A10 of the lectures: the chain rule on graphs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numeric import along
from sampler import Array, host

import tensorgrad as tg
from tensorgrad import Tensor
from tensorgrad.autograd import checkpoint, custom_operation, grad

EXACT = 1e-10


def leaf(value: Any) -> Tensor:
    return Tensor(value, dtype=np.float64, requires_grad=True)


def grads(*tensors: Tensor) -> list[Any]:
    found = []
    for x in tensors:
        assert x.grad is not None
        found.append(x.grad.tolist())
    return found


@pytest.mark.parametrize(
    ("f", "wanted"),
    [
        (lambda x, y: x + y, (1, 1)),
        (lambda x, y: x * y, (4, 3)),
        (lambda x, y: tg.maximum(x, y), (0, 1)),
        (lambda x, y: tg.maximum(y, x), (0, 1)),
        (lambda x, y: tg.maximum(x + 1, y), (0.5, 0.5)),
    ],
    ids=["sum", "product", "maximum", "maximum-swapped", "tie"],
)
def test_A1_sum_product_maximum(f: Callable[[Tensor, Tensor], Tensor], wanted: Any) -> None:
    x, y = leaf(3.0), leaf(4.0)
    f(x, y).backward()
    assert tuple(grads(x, y)) == wanted


def test_A1_as_arrays() -> None:
    x, y = leaf([1.0, 5.0, 2.0]), leaf([4.0, 3.0, 2.0])
    tg.sum(tg.maximum(x, y)).backward()
    assert grads(x, y) == [[0, 1, 0.5], [1, 0, 0.5]]


@pytest.mark.parametrize("point", [(2.0, 3.0, 4.0), (-1.5, 0.25, 7.0), (0.0, -2.0, 1.0)])
def test_A2_every_intermediate_derivative(point: tuple[float, float, float]) -> None:
    x, y, z = (leaf(v) for v in point)
    y2 = (y**2).retain_grad()
    g = (y2 + z).retain_grad()
    f = (x * g).retain_grad()
    f.backward()
    a, b, c = point
    assert f.item() == pytest.approx(a * (b * b + c), abs=EXACT)
    assert grads(x, y, z) == pytest.approx([b * b + c, 2 * a * b, a], abs=EXACT)
    assert grads(g, y2, f) == pytest.approx([a, a, 1], abs=EXACT)


def test_A3_contributions_of_all_paths_are_summed() -> None:
    x = leaf(0.7)
    paths = [tg.sin(x), tg.exp(x), x * x, x, 3 * x]
    y = paths[0] * paths[1] + paths[2] * paths[3] - paths[4]
    y.backward()
    v = 0.7
    wanted = math.exp(v) * (math.sin(v) + math.cos(v)) + 3 * v * v - 3
    assert grads(x) == pytest.approx([wanted], abs=EXACT)


def test_A3_over_many_paths() -> None:
    x = leaf(0.01)
    total = x * 0.0
    for k in range(1, 101):
        total = total + x**k
    total.backward()
    assert grads(x) == pytest.approx([sum(k * 0.01 ** (k - 1) for k in range(1, 101))], abs=EXACT)


FUNCTIONS: dict[str, tuple[Callable[[Any], Any], Callable[[float], float]]] = {
    "sin": (lambda w: tg.sin(w), math.cos),
    "square": (lambda w: w**2, lambda v: 2 * v),
    "sigmoid": (lambda w: tg.sigmoid(w), lambda v: math.exp(-v) / (1 + math.exp(-v)) ** 2),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_A4_one_function_three_times(name: str) -> None:
    f, df = FUNCTIONS[name]
    calls = 0

    def counted(v: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return f(v)

    w = leaf(0.6)
    x = counted(w)
    y = counted(x)
    z = counted(y)
    z.backward()
    assert calls == 3, "each forward value is computed once"
    wanted = df(y.item()) * df(x.item()) * df(w.item())
    assert grads(w) == pytest.approx([wanted], abs=EXACT)


def test_A5_a_new_operation_is_its_value_and_its_derivatives() -> None:
    @custom_operation(x=lambda g, x, y: g * y * (2 * x * y**0), n=None)
    def gauss(x: Any, n: Any) -> Any:
        return np.exp(x * x) + 0 * n

    @custom_operation(a=lambda g, b: g * b * b, b=lambda g, a, b: g * 2 * a * b)
    def product_with_square(a: Any, b: Any) -> Any:
        return a * b * b

    x, b = leaf([0.3, -0.2]), leaf([1.5, 2.5])
    y = tg.sum(tg.sin(product_with_square(gauss(x, Tensor([1.0, 1.0])), b)))
    y.backward()
    e, bv = np.exp(np.array([0.09, 0.04])), np.array([1.5, 2.5])
    outer = np.cos(e * bv**2)
    wanted_x = outer * bv**2 * e * 2 * np.array([0.3, -0.2])
    assert grads(x)[0] == pytest.approx(wanted_x, abs=EXACT)
    assert grads(b)[0] == pytest.approx(outer * e * 2 * bv, abs=EXACT)


def test_A5_of_the_users_is_differentiated_twice() -> None:
    @custom_operation(x=lambda g, x: g * 3 * x**2)
    def cube(x: Any) -> Any:
        return x**3

    x = leaf(2.0)
    (first,) = grad(cube(x), x, create_graph=True)
    (second,) = grad(first, x, create_graph=True)
    (third,) = grad(second, x)
    assert [first.item(), second.item(), third.item()] == pytest.approx([12, 12, 6], abs=EXACT)


@pytest.mark.parametrize(
    "shapes",
    [((), ()), ((3,), ()), ((2, 3), (3,)), ((2, 1), (1, 3)), ((4, 1, 2), (3, 1)), ((0, 3), (3,))],
    ids=str,
)
def test_A6_a_gradient_has_the_shape_of_its_tensor(shapes: Any) -> None:
    rng = np.random.default_rng(6)
    a, b = (leaf(rng.normal(size=s)) for s in shapes)
    tg.sum(tg.tanh(a * b) + a - 2 * b).backward()
    for x in (a, b):
        assert x.grad is not None
        assert x.grad.shape == x.shape


def test_A7_a_layer_in_matrix_form() -> None:
    rng = np.random.default_rng(7)
    x, w, b = (leaf(rng.normal(size=s)) for s in ((5, 3), (3, 2), (2,)))
    g = rng.normal(size=(5, 2))
    (x @ w + b).backward(Tensor(g))
    np.testing.assert_allclose(grads(x)[0], g @ host(w).T, atol=EXACT)
    np.testing.assert_allclose(grads(w)[0], host(x).T @ g, atol=EXACT)
    np.testing.assert_allclose(grads(b)[0], g.sum(0), atol=EXACT)


@pytest.mark.parametrize("depth", [100, 1_000, 10_000, 100_000])
def test_A8_every_node_is_visited_once_and_no_recursion(depth: int) -> None:
    """The work is that of the edges and nodes; the timing itself belongs to the benchmark."""
    x = leaf(1.0)
    y = x
    visited = 0

    def visit(g: Tensor) -> None:
        nonlocal visited
        visited += 1

    for k in range(depth):
        y = y * 1.0 + x * 0.0 if k % 2 else y + 0.0
        if k % 10 == 0:
            y.register_hook(visit)
    y.backward()
    assert visited == len(range(0, depth, 10))
    assert grads(x) == [1]


def test_A8_as_the_naive_expansion() -> None:
    """The naive way, one chain-rule expansion for each weight, gives the same numbers."""
    rng = np.random.default_rng(8)
    weights = [rng.normal(size=(3, 3)) for _ in range(4)]
    start = rng.normal(size=3)

    def network(ws: list[Any], x: Any, squash: Callable[[Any], Any]) -> Any:
        for w in ws:
            x = squash(x @ w)
        return x

    leaves = [leaf(w) for w in weights]
    tg.sum(network(leaves, Tensor(start), tg.tanh)).backward()
    for number, found in enumerate(grads(*leaves)):
        for i in range(3):
            for j in range(3):

                def f(at: Any, n: int = number) -> float:
                    ws = [at[0] if k == n else w for k, w in enumerate(weights)]
                    return float(network(ws, start, np.tanh).sum())

                unit = np.zeros((3, 3))
                unit[i, j] = 1
                assert found[i][j] == pytest.approx(along(f, [weights[number]], [unit]), abs=1e-9)


def test_A9_recomputing_gives_the_same_gradients() -> None:
    rng = np.random.default_rng(9)
    weights = [rng.normal(size=(4, 4)) for _ in range(3)]
    calls = 0

    def block(x: Tensor, w: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return tg.tanh(tg.sin(x @ w) * x)

    def run(layer: Callable[..., Tensor]) -> list[Array]:
        x, ws = leaf(np.ones((2, 4))), [leaf(w) for w in weights]
        y = x
        for w in ws:
            y = layer(y, w)
        tg.sum(y * y).backward()
        return [np.asarray(g) for g in grads(x, *ws)]

    stored = run(block)
    assert calls == 3
    recomputed = run(lambda x, w: checkpoint(block, x, w))
    assert calls == 9, "three forward passes, and again in the backward pass"
    for a, b in zip(stored, recomputed, strict=True):
        np.testing.assert_array_equal(a, b)


def test_A9_recomputing_to_second_order() -> None:
    def f(x: Tensor) -> Tensor:
        return tg.sum(tg.exp(x) * tg.sin(x))

    found = []
    for wrapped in (f, lambda x: checkpoint(f, x)):
        x = leaf([0.3, 0.8])
        (g,) = grad(wrapped(x), x, create_graph=True)
        (h,) = grad(tg.sum(g * g), x)
        found.append(h.tolist())
    assert found[0] == pytest.approx(found[1], abs=EXACT)


def test_A10_gradients_of_gradients() -> None:
    x = leaf(0.4)
    derivative = tg.sin(x)
    for k in range(1, 7):
        (derivative,) = grad(derivative, x, create_graph=True)
        assert derivative.item() == pytest.approx(math.sin(0.4 + k * math.pi / 2), abs=EXACT)


def test_A10_hessian_of_a_network() -> None:
    rng = np.random.default_rng(10)
    w = leaf(rng.normal(size=(2, 3)))
    x = Tensor(rng.normal(size=(4, 2)))

    def gradient_at(at: Array) -> Array:
        v = leaf(at)
        tg.sum(tg.sigmoid(x @ v) ** 2).backward()
        assert v.grad is not None
        return host(v.grad)

    (g,) = grad(tg.sum(tg.sigmoid(x @ w) ** 2), w, create_graph=True)
    direction = rng.normal(size=(2, 3))
    (product,) = grad(tg.sum(g * Tensor(direction)), w)
    step = 1e-5
    moved = gradient_at(host(w) + step * direction) - gradient_at(host(w) - step * direction)
    np.testing.assert_allclose(host(product), moved / (2 * step), atol=1e-8)
