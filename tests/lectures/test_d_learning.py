"""Rows D1, D2, D3, D5, D6 and D11 of the lectures: learning."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from sampler import Array, host

import tensorgrad as tg
from tensorgrad import Tensor, nn, optim
from tensorgrad.data import DataLoader, TensorDataset
from tensorgrad.errors import ShapeError
from tensorgrad.ops.random import Generator
from tensorgrad.training import draw_regions

EXACT = 1e-10


def leaf(value: Any) -> Tensor:
    return Tensor(value, dtype=np.float64, requires_grad=True)


@pytest.mark.parametrize(("shortest", "wanted", "tolerance"), [(1e-4, 49, 5e-4), (1e-5, 61, 5e-5)])
def test_D1_gradient_descent(shortest: float, wanted: int, tolerance: float) -> None:
    """About 60 steps; the printed figures hold to all their digits where it stops at 1e-5."""
    x, y = leaf(0.0), leaf(0.0)
    optimizer = optim.SGD([x, y], lr=0.01)
    steps, length = 0, math.inf
    while length >= shortest:
        before = np.array([x.item(), y.item()])
        optimizer.zero_grad()
        (tg.exp(x**2 + y**2) + (x - 2) ** 2 + (y - 3) ** 2).backward()
        optimizer.step()
        length = float(np.linalg.norm(before - [x.item(), y.item()]))
        steps += 1
        assert steps < 100
    f = math.exp(x.item() ** 2 + y.item() ** 2) + (x.item() - 2) ** 2 + (y.item() - 3) ** 2
    assert [x.item(), y.item()] == pytest.approx([0.5477, 0.8216], abs=tolerance)
    assert f == pytest.approx(9.5058, abs=tolerance)
    assert steps == wanted


# --- D2: batches ----------------------------------------------------------------------------------


def data_set() -> tuple[Array, Array]:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(12, 3))
    return x, np.sin(x.sum(1, keepdims=True))


def network() -> nn.Module:
    return nn.Sequential(
        nn.Linear(3, 4, dtype=np.float64, generator=Generator(1)),
        nn.Tanh(),
        nn.Linear(4, 1, dtype=np.float64, generator=Generator(2)),
    )


def batch_gradient(model: nn.Module, x: Tensor, t: Tensor) -> list[Array]:
    for p in model.parameters():
        p.grad = None
    nn.functional.mse_loss(model(x), t).backward()
    found = []
    for p in model.parameters():
        assert p.grad is not None
        found.append(host(p.grad))
    return found


@pytest.mark.parametrize("batch_size", [1, 3, 4, 12])
def test_D2_a_batch_gradient_is_the_mean_over_its_examples(batch_size: int) -> None:
    x, t = data_set()
    model = network()
    for xb, tb in DataLoader(TensorDataset(x, t), batch_size):
        whole = batch_gradient(model, xb, tb)
        single = [batch_gradient(model, xb[i : i + 1], tb[i : i + 1]) for i in range(len(xb))]
        for k, g in enumerate(whole):
            np.testing.assert_allclose(g, np.mean([s[k] for s in single], axis=0), atol=EXACT)


@pytest.mark.parametrize("batch_size", [1, 3, 4, 12])
def test_D2_batch_gradients_are_unbiased(batch_size: int) -> None:
    """Over an epoch of equal batches, and so over all shufflings, their mean is the full one."""
    x, t = data_set()
    model = network()
    full = batch_gradient(model, Tensor(x), Tensor(t))
    loader = DataLoader(TensorDataset(x, t), batch_size, shuffle=True, seed=5)
    parts = [batch_gradient(model, xb, tb) for xb, tb in loader]
    for k, g in enumerate(full):
        np.testing.assert_allclose(np.mean([p[k] for p in parts], axis=0), g, atol=EXACT)


def train(batch_size: int | str, seed: int = 7, epochs: int = 30) -> tuple[list[Array], float]:
    """One code path for on-line, mini-batch and full-batch training."""
    x, t = data_set()
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
    loader = DataLoader(TensorDataset(x, t), batch_size, shuffle=True, seed=seed)
    for _ in range(epochs):
        for xb, tb in loader:
            optimizer.zero_grad()
            nn.functional.mse_loss(model(xb), tb).backward()
            optimizer.step()
    loss = nn.functional.mse_loss(model(Tensor(x)), Tensor(t)).item()
    return [host(p).copy() for p in model.parameters()], float(loss)


@pytest.mark.parametrize("batch_size", [1, 4, "full"])
def test_D2_online_minibatch_and_full_batch_learn(batch_size: int | str) -> None:
    _, before = train(batch_size, epochs=0)
    _, after = train(batch_size)
    assert after < before / 2


def test_D2_the_last_smaller_batch_is_the_mean_of_fewer() -> None:
    x, t = data_set()
    sizes = [len(xb) for xb, _ in DataLoader(TensorDataset(x, t), 5)]
    assert sizes == [5, 5, 2]


# --- D3: shuffling --------------------------------------------------------------------------------


def orders(seed: int) -> list[list[int]]:
    loader = DataLoader(TensorDataset(np.arange(10)), 3, shuffle=True, seed=seed)
    return [[i for (xb,) in loader for i in xb.tolist()] for _ in range(4)]


def test_D3_each_epoch_is_shuffled_anew() -> None:
    found = orders(3)
    assert all(sorted(order) == list(range(10)) for order in found)
    assert len({tuple(order) for order in found}) == 4
    assert found == orders(3)
    assert found != orders(4)


@pytest.mark.parametrize("batch_size", [1, 5, "full"])
def test_D3_a_seeded_run_repeats_bit_for_bit(batch_size: int | str) -> None:
    first, second = train(batch_size)[0], train(batch_size)[0]
    assert [p.tobytes() for p in first] == [p.tobytes() for p in second]
    if batch_size != "full":
        other = train(batch_size, seed=8)[0]
        assert [p.tobytes() for p in first] != [p.tobytes() for p in other]


# --- D5: update rules -----------------------------------------------------------------------------

# Each rule as its paper writes it, by hand.
STEPS = 6


def slope(p: Array) -> Array:
    """The gradient of sum(cos(p) + p**2 / 3)."""
    return -np.sin(p) + 2 * p / 3


def momentum_rule(p: Array) -> Array:
    """The lectures': dw(t) = eta * (-g) + alpha * dw(t-1) - lambda * w(t-1)."""
    dw = np.zeros_like(p)
    for _ in range(STEPS):
        dw = -0.1 * slope(p) + 0.9 * dw - 0.02 * p
        p = p + dw
    return p


def nesterov_rule(p: Array) -> Array:
    v = np.zeros_like(p)
    for _ in range(STEPS):
        g = slope(p)
        v = 0.9 * v + g
        p = p - 0.1 * (g + 0.9 * v)
    return p


def adagrad_rule(p: Array) -> Array:
    total = np.zeros_like(p)
    for _ in range(STEPS):
        g = slope(p)
        total = total + g * g
        p = p - 0.1 * g / (np.sqrt(total) + 1e-10)
    return p


def rmsprop_rule(p: Array) -> Array:
    v = np.zeros_like(p)
    for _ in range(STEPS):
        g = slope(p)
        v = 0.9 * v + 0.1 * g * g
        p = p - 0.1 * g / (np.sqrt(v) + 1e-8)
    return p


def adam_rule(p: Array, decay: float = 0.0, decoupled: float = 0.0) -> Array:
    m, v = np.zeros_like(p), np.zeros_like(p)
    for t in range(1, STEPS + 1):
        g = slope(p) + decay * p
        p = p - 0.1 * decoupled * p
        m = 0.9 * m + 0.1 * g
        v = 0.99 * v + 0.01 * g * g
        p = p - 0.1 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.99**t)) + 1e-8)
    return p


RULES: dict[str, tuple[Callable[[Any], Any], Callable[[Array], Array]]] = {
    "momentum": (lambda p: optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.2), momentum_rule),
    "nesterov": (lambda p: optim.SGD(p, 0.1, momentum=0.9, nesterov=True), nesterov_rule),
    "adagrad": (lambda p: optim.Adagrad(p, 0.1), adagrad_rule),
    "rmsprop": (lambda p: optim.RMSprop(p, 0.1, alpha=0.9), rmsprop_rule),
    "adam": (lambda p: optim.Adam(p, 0.1, betas=(0.9, 0.99)), adam_rule),
    "adam-decay": (
        lambda p: optim.Adam(p, 0.1, betas=(0.9, 0.99), weight_decay=0.2),
        lambda p: adam_rule(p, decay=0.2),
    ),
    "adamw": (
        lambda p: optim.AdamW(p, 0.1, betas=(0.9, 0.99), weight_decay=0.2),
        lambda p: adam_rule(p, decoupled=0.2),
    ),
}


@pytest.mark.parametrize("rule", RULES)
def test_D5_update_rules_are_those_of_their_papers(rule: str) -> None:
    make, by_hand = RULES[rule]
    start = np.array([[0.3, -1.2], [2.0, -0.4]])
    p = leaf(start)
    optimizer = make([p])
    for _ in range(STEPS):
        optimizer.zero_grad()
        tg.sum(tg.cos(p) + p**2 / 3).backward()
        optimizer.step()
    np.testing.assert_allclose(host(p), by_hand(start), atol=EXACT)


# With a constant gradient g and t steps, the rules have closed forms.
CLOSED: dict[str, tuple[Callable[[Any], Any], Callable[[float, int], float]]] = {
    "sgd": (lambda p: optim.SGD(p, 0.1), lambda g, t: 0.1 * g * t),
    "momentum": (
        lambda p: optim.SGD(p, 0.1, momentum=0.5),
        lambda g, t: 0.1 * g * (t - 0.5 * (1 - 0.5**t) / 0.5) / 0.5,
    ),
    "adagrad": (
        lambda p: optim.Adagrad(p, 0.1, eps=0),
        lambda g, t: 0.1 * math.copysign(1, g) * sum(k**-0.5 for k in range(1, t + 1)),
    ),
    "rmsprop": (
        lambda p: optim.RMSprop(p, 0.1, alpha=0.9, eps=0),
        lambda g, t: 0.1 * math.copysign(1, g) * sum((1 - 0.9**k) ** -0.5 for k in range(1, t + 1)),
    ),
    "adam": (lambda p: optim.Adam(p, 0.1, eps=0), lambda g, t: 0.1 * math.copysign(1, g) * t),
}


@pytest.mark.parametrize("rule", CLOSED)
@pytest.mark.parametrize("g", [3.0, -0.02])
def test_D5_closed_forms(rule: str, g: float) -> None:
    make, moved = CLOSED[rule]
    p = leaf(5.0)
    optimizer = make([p])
    for t in range(1, 8):
        optimizer.zero_grad()
        (p * g).backward()
        optimizer.step()
        assert p.item() == pytest.approx(5.0 - moved(g, t), abs=EXACT)


def test_D5_the_worked_steps_of_C4() -> None:
    hidden, output = nn.Linear(2, 2, dtype=np.float64), nn.Linear(2, 1, dtype=np.float64)
    model = nn.Sequential(hidden, nn.Sigmoid(), output, nn.Sigmoid())
    for p in model.parameters():
        nn.init.constant_(p, 0.1)
    optimizer = optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    figures = {
        "output": ([0.1172, 0.1095, 0.1095], [0.090315, 0.094670, 0.094670]),
        "hidden": ([0.1004, 0.1004, 0.1], [0.099661, 0.100809, 0.098853]),
    }
    for step, (x, target) in enumerate((([1.0, 0.0], 0.9), ([0.0, 1.0], -0.3))):
        optimizer.zero_grad()
        out = model(Tensor([x], dtype=np.float64))
        (tg.sum((target - out) ** 2) / 2).backward()
        optimizer.step()
        tolerance = 5e-5 if step == 0 else 5e-7
        for layer, name in ((output, "output"), (hidden, "hidden")):
            assert layer.bias is not None
            for bias, weights in zip(host(layer.bias), host(layer.weight), strict=True):
                assert [bias, *weights] == pytest.approx(figures[name][step], abs=tolerance)


# --- D6: initial values ---------------------------------------------------------------------------

FAN_IN, FAN_OUT = 300, 200
# name -> the standard deviation, and the limit for uniform ones
INITIAL: dict[str, tuple[float, float]] = {
    "uniform": (0.1 / math.sqrt(12), 0.05),
    "xavier_uniform": (math.sqrt(2 / 500), math.sqrt(6 / 500)),
    "glorot_uniform": (math.sqrt(2 / 500), math.sqrt(6 / 500)),
    "xavier_normal": (math.sqrt(2 / 500), math.inf),
    "glorot_normal": (math.sqrt(2 / 500), math.inf),
    "he_uniform": (math.sqrt(2 / 300), math.sqrt(6 / 300)),
    "kaiming_uniform": (math.sqrt(2 / 300), math.sqrt(6 / 300)),
    "he_normal": (math.sqrt(2 / 300), math.inf),
    "kaiming_normal": (math.sqrt(2 / 300), math.inf),
}


@pytest.mark.parametrize("name", INITIAL)
def test_D6_initial_values_by_name(name: str) -> None:
    deviation, limit = INITIAL[name]
    w = tg.zeros((FAN_OUT, FAN_IN), dtype=np.float64)
    assert nn.init.by_name(name)(w, generator=Generator(6)) is w
    values = host(w)
    n = values.size
    assert abs(values).max() <= limit
    if limit < math.inf:
        assert abs(values).max() > 0.999 * limit
    # Five standard errors of the mean and of the standard deviation.
    assert abs(values.mean()) < 5 * deviation / math.sqrt(n)
    assert values.std() == pytest.approx(deviation, rel=5 / math.sqrt(2 * n))
    again = tg.zeros((FAN_OUT, FAN_IN), dtype=np.float64)
    nn.init.by_name(name)(again, generator=Generator(6))
    assert host(again).tobytes() == values.tobytes()


def test_D6_unknown_name_is_answered_with_the_known() -> None:
    with pytest.raises(ValueError, match=r"lecun.*xavier_uniform.*he_normal"):
        nn.init.by_name("lecun")


# --- D11: XOR -------------------------------------------------------------------------------------

XOR = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
TARGET = np.array([[0.0], [1.0], [1.0], [0.0]])


def learn_xor(model: nn.Module, steps: int) -> Array:
    optimizer = optim.Adam(model.parameters(), lr=0.05)
    x, t = Tensor(XOR), Tensor(TARGET)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(model(x), t).backward()
        optimizer.step()
    with tg.no_grad():
        return host(tg.sigmoid(model(x)))


def test_D11_a_perceptron_cannot_learn_xor() -> None:
    """The best it can do is to answer 1/2 to everything; no line has all four points right."""
    perceptron = nn.Linear(2, 1, dtype=np.float64, generator=Generator(11))
    out = learn_xor(perceptron, 2000)
    np.testing.assert_allclose(out, 0.5, atol=1e-3)
    grid = np.linspace(-2, 2, 9)
    for a, b, c in itertools.product(grid, grid, grid):
        right = ((XOR @ [a, b] + c > 0) == (TARGET[:, 0] > 0.5)).sum()
        assert right <= 3


def test_D11_a_network_with_a_hidden_layer_can() -> None:
    model = nn.Sequential(
        nn.Linear(2, 8, dtype=np.float64, generator=Generator(1)),
        nn.Tanh(),
        nn.Linear(8, 1, dtype=np.float64, generator=Generator(2)),
    )
    out = learn_xor(model, 500)
    np.testing.assert_allclose(out, TARGET, atol=0.05)
    # Its decision regions: the plane is cut so that both diagonals are connected corners.
    with tg.no_grad():
        near = XOR[:, None] + np.array([[0.05, 0.05], [-0.05, 0.05], [0.05, -0.05]])
        regions = host(tg.sigmoid(model(Tensor(near)))) > 0.5
    np.testing.assert_array_equal(regions[..., 0], np.repeat(TARGET > 0.5, 3, axis=1))


def test_D11_picture_of_the_regions() -> None:
    """Of the perceptron one straight border; of the network a region in the middle or a band."""
    network = nn.Sequential(
        nn.Linear(2, 8, generator=Generator(1)),
        nn.Tanh(),
        nn.Linear(8, 1, generator=Generator(2)),
    )
    learn_xor(network, 500)
    labels = TARGET[:, 0].astype(int)
    picture = ElementTree.fromstring(draw_regions(network, XOR, labels, resolution=40))
    circles = [e for e in picture if e.tag.endswith("circle")]
    rects = [e for e in picture if e.tag.endswith("rect")][1:]
    assert len(circles) == 4
    assert len({e.attrib["fill"] for e in rects}) == 2
    below: dict[str, set[str]] = {}  # the colour of the region under each point
    for circle in circles:
        x, y = float(circle.attrib["cx"]), float(circle.attrib["cy"])
        (under,) = [
            e.attrib["fill"]
            for e in rects
            if 0 <= x - float(e.attrib["x"]) < float(e.attrib["width"])
            and 0 <= y - float(e.attrib["y"]) < float(e.attrib["height"])
        ]
        below.setdefault(circle.attrib["fill"], set()).add(under)
    # each class of points lies in regions of one colour, and the two colours differ
    assert [len(found) for found in below.values()] == [1, 1]
    assert len(set.union(*below.values())) == 2


def test_D11_picture_refuses_other_shapes() -> None:
    with pytest.raises(ShapeError, match=r"\(n, 2\)"):
        draw_regions(nn.Linear(3, 1), np.zeros((4, 3)), np.zeros(4, int))
    with pytest.raises(ShapeError, match="scores of shape"):
        draw_regions(lambda x: x.sum(), XOR, TARGET[:, 0].astype(int))
