"""Rows C1 to C7 of the lectures: worked networks, with the printed figures."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from sampler import Array, host

import tensorgrad as tg
from tensorgrad import Tensor

EXACT = 1e-10
PRINTED = 5e-4


def leaf(value: Any) -> Tensor:
    return Tensor(value, dtype=np.float64, requires_grad=True)


def gradient(x: Tensor) -> Array:
    assert x.grad is not None
    return host(x.grad)


def sigma(z: Any) -> Any:
    return 1 / (1 + np.exp(-z))


def test_C1_regression_with_one_hidden_layer() -> None:
    x1, x2, target = 0.7, -1.2, 0.4
    w = leaf([[0.1, -0.3], [0.5, 0.2], [-0.4, 0.8]])  # row i: bias, x1, x2; column j: the unit
    v = leaf([0.3, -0.6, 0.9])
    z = tg.sigmoid(Tensor([1.0, x1, x2], dtype=np.float64) @ w)
    y = v[0] + v[1] * z[0] + v[2] * z[1]
    loss = (y - target) ** 2 / 2
    loss.backward()
    wv, vv = host(w), host(v)
    zs = sigma(np.array([1, x1, x2]) @ wv)
    error = vv[0] + vv[1:] @ zs - target
    assert loss.item() == pytest.approx(error**2 / 2, abs=EXACT)
    np.testing.assert_allclose(gradient(v), [error, *(error * zs)], atol=EXACT)
    assert gradient(w)[2, 1] == pytest.approx(error * vv[2] * zs[1] * (1 - zs[1]) * x2, abs=EXACT)
    wanted = np.outer([1, x1, x2], error * vv[1:] * zs * (1 - zs))
    np.testing.assert_allclose(gradient(w), wanted, atol=EXACT)


@pytest.mark.parametrize("biases", [False, True])
def test_C2_relu_network(biases: bool) -> None:
    x = leaf([2.0, 1.0])
    w1 = leaf([[2.0, -3.0], [2.0, 1.0]])
    w2 = leaf([[2.0, 1.0], [0.0, 1.0]])
    w3 = leaf([[3.0], [-2.0]])
    b1, b2, b3 = leaf([0.0, 0.0]), leaf([0.0, 0.0]), leaf([0.0])
    z1 = (x @ w1 + b1 if biases else x @ w1).retain_grad()
    a1 = tg.relu(z1)
    z2 = (a1 @ w2 + b2 if biases else a1 @ w2).retain_grad()
    a2 = tg.relu(z2)
    h = (a2 @ w3 + b3 if biases else a2 @ w3).retain_grad()
    h.backward()
    assert z1.tolist() == [6, -5]
    assert a1.tolist() == [6, 0]
    assert z2.tolist() == [12, 6]
    assert a2.tolist() == [12, 6]
    assert h.tolist() == [24]
    assert gradient(w3).tolist() == [[12], [6]]
    assert gradient(z2).tolist() == [3, -2]
    assert gradient(w2).tolist() == [[18, -12], [0, 0]]
    assert gradient(z1).tolist() == [4, 0]
    assert gradient(w1).tolist() == [[8, 0], [4, 0]]
    assert gradient(x).tolist() == [8, 8]
    if biases:
        for b, z in ((b1, z1), (b2, z2), (b3, h)):
            assert gradient(b).tolist() == gradient(z).tolist()


def test_C3_forward_pass() -> None:
    x = Tensor([1.0, 0.4, 0.1], dtype=np.float64)
    hidden = Tensor([[0.1, 0.2, 0.1], [-0.2, 0.3, -0.4]], dtype=np.float64)
    output = Tensor([[-0.2, -0.1], [0.1, -0.5]], dtype=np.float64)
    net = hidden @ x
    assert net.tolist() == pytest.approx([0.19, -0.12], abs=EXACT)
    h = tg.sigmoid(net)
    assert h.tolist() == pytest.approx([0.547, 0.470], abs=PRINTED)
    o = tg.sigmoid(output @ h)
    assert o.tolist() == pytest.approx([0.461, 0.455], abs=PRINTED)
    p = tg.softmax(o, axis=0)
    assert p.tolist() == pytest.approx([0.5015, 0.4985], abs=5e-5)


class TwoTwoOne:
    """The network of C4 with its momentum: o = sigmoid of h = sigmoid of x, biases first."""

    def __init__(self) -> None:
        self.hidden = leaf(np.full((3, 2), 0.1))
        self.output = leaf(np.full(3, 0.1))
        self.steps = [np.zeros((3, 2)), np.zeros(3)]
        self.h = self.o = Tensor(0.0)
        self.delta_h = self.delta_o = np.zeros(0)

    def train(self, x: tuple[float, float], target: float) -> None:
        """One step with eta .2 and alpha .9; the deltas are those of the lectures."""
        one = Tensor([1.0], dtype=np.float64)
        net_h = (Tensor([1.0, *x], dtype=np.float64) @ self.hidden).retain_grad()
        self.h = tg.sigmoid(net_h)
        net_o = (tg.concat([one, self.h]) @ self.output).retain_grad()
        self.o = tg.sigmoid(net_o)
        self.hidden.grad = self.output.grad = None
        ((target - self.o) ** 2 / 2).backward()
        self.delta_h, self.delta_o = -gradient(net_h), -gradient(net_o)
        with tg.no_grad():
            for i, w in enumerate((self.hidden, self.output)):
                self.steps[i] = -0.2 * gradient(w) + 0.9 * self.steps[i]
                w += Tensor(self.steps[i])


def test_C4_two_steps_with_momentum() -> None:
    net = TwoTwoOne()
    net.train((1.0, 0.0), 0.9)
    assert net.h.tolist() == pytest.approx([0.55, 0.55], abs=PRINTED)
    assert net.o.item() == pytest.approx(0.552, abs=PRINTED)
    assert net.delta_o == pytest.approx(0.086, abs=PRINTED)
    assert net.delta_h == pytest.approx([0.002, 0.002], abs=PRINTED)
    assert net.delta_h == pytest.approx([0.002128, 0.002128], abs=5e-7)
    assert net.output.tolist() == pytest.approx([0.1172, 0.1095, 0.1095], abs=5e-5)
    for unit in (0, 1):
        assert host(net.hidden)[:, unit] == pytest.approx([0.1004, 0.1004, 0.1], abs=5e-5)
    net.train((0.0, 1.0), -0.3)
    assert net.o.item() == pytest.approx(0.559117, abs=5e-7)
    assert net.delta_o == pytest.approx(-0.211777, abs=5e-7)
    assert net.delta_h == pytest.approx([-0.005737, -0.005737], abs=5e-7)
    assert net.output.tolist() == pytest.approx([0.090315, 0.094670, 0.094670], abs=5e-7)
    for unit in (0, 1):
        wanted = [0.099661, 0.100809, 0.098853]
        assert host(net.hidden)[:, unit] == pytest.approx(wanted, abs=5e-7)


def test_C5_sigmoid_perceptron() -> None:
    rng = np.random.default_rng(5)
    x, t, w = rng.normal(size=(20, 3)), rng.uniform(size=20), leaf(rng.normal(size=3))
    n = len(x)
    (tg.sum((Tensor(t) - tg.sigmoid(Tensor(x) @ w)) ** 2) / (2 * n)).backward()
    out = sigma(x @ host(w))
    wanted = -((t - out) * out * (1 - out)) @ x / n
    np.testing.assert_allclose(gradient(w), wanted, atol=EXACT)


def test_C5_several_outputs_and_a_hidden_layer() -> None:
    rng = np.random.default_rng(55)
    x, t = rng.normal(size=(12, 4)), rng.uniform(size=(12, 3))
    hidden, output = leaf(rng.normal(size=(4, 5))), leaf(rng.normal(size=(5, 3)))
    n, c = t.shape
    z = tg.sigmoid(tg.sigmoid(Tensor(x) @ hidden) @ output)
    (tg.sum((Tensor(t) - z) ** 2) / (2 * c * n)).backward()
    y = sigma(x @ host(hidden))
    zs = sigma(y @ host(output))
    wanted_out, wanted_hidden = np.zeros((5, 3)), np.zeros((4, 5))
    for p in range(n):
        for k in range(c):
            error = (t[p, k] - zs[p, k]) * zs[p, k] * (1 - zs[p, k])
            for j in range(5):
                wanted_out[j, k] -= error * y[p, j] / (c * n)
                slope = y[p, j] * (1 - y[p, j])
                for i in range(4):
                    part = error * host(output)[j, k] * slope * x[p, i]
                    wanted_hidden[i, j] -= part / (c * n)
    np.testing.assert_allclose(gradient(output), wanted_out, atol=EXACT)
    np.testing.assert_allclose(gradient(hidden), wanted_hidden, atol=EXACT)


@pytest.mark.parametrize("regularizer", ["L1", "L2"])
@pytest.mark.parametrize("depth", [1, 4, 10])
def test_C6_deep_network_with_a_regularizer(depth: int, regularizer: str) -> None:
    """Against the loop over layers, forward and backward, of the lectures."""
    rng = np.random.default_rng(depth)
    lam = 0.03
    weights = [leaf(rng.normal(size=(4, 4)) / 2) for _ in range(depth)]
    biases = [leaf(rng.normal(size=4)) for _ in range(depth)]
    x, t = rng.normal(size=(6, 4)), rng.normal(size=(6, 4))
    h = Tensor(x)
    for w, b in zip(weights, biases, strict=True):
        h = tg.tanh(h @ w + b)
    loss = tg.sum((h - Tensor(t)) ** 2) / 2
    for p in weights + biases:
        loss = loss + lam * (tg.sum(tg.abs(p)) if regularizer == "L1" else tg.sum(p * p) / 2)
    loss.backward()

    values = [x]
    for w, b in zip(weights, biases, strict=True):
        values.append(np.tanh(values[-1] @ host(w) + host(b)))
    slope = np.sign if regularizer == "L1" else lambda p: p
    g = values[-1] - t
    for k in reversed(range(depth)):
        g = g * (1 - values[k + 1] ** 2)
        wanted_b = g.sum(0) + lam * slope(host(biases[k]))
        wanted_w = values[k].T @ g + lam * slope(host(weights[k]))
        np.testing.assert_allclose(gradient(biases[k]), wanted_b, atol=EXACT)
        np.testing.assert_allclose(gradient(weights[k]), wanted_w, atol=EXACT)
        g = g @ host(weights[k]).T


def test_C7_stacked_linear_layers_are_one() -> None:
    rng = np.random.default_rng(7)
    x = Tensor(rng.normal(size=(5, 3)))
    layers = [leaf(rng.normal(size=s)) for s in ((3, 6), (6, 4), (4, 2))]
    product = leaf(host(layers[0]) @ host(layers[1]) @ host(layers[2]))
    stacked, single = x, x @ product
    for w in layers:
        stacked = stacked @ w
    np.testing.assert_allclose(host(stacked), host(single), atol=EXACT)
    upstream = Tensor(rng.normal(size=(5, 2)))
    stacked.backward(upstream)
    single.backward(upstream)
    # The chain rule through the product: the gradient of the first factor.
    rest = host(layers[1]) @ host(layers[2])
    np.testing.assert_allclose(gradient(layers[0]), gradient(product) @ rest.T, atol=EXACT)
    assert math.isfinite(gradient(product).sum())
