"""Optimizers: their rules against the closed forms and PyTorch, groups, states, clipping."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import Tensor, dtypes, optim
from tensorgrad.autograd import no_grad
from tensorgrad.errors import GradientError, ShapeError
from tensorgrad.observers import MODE, Observer, current_mode
from tensorgrad.optim import update

SHAPES: list[tuple[int, ...]] = [(3, 4), (3,), (), (2, 0), (2, 3, 2)]

Array = np.ndarray[Any, Any]


def leaves(values: list[Array], **options: Any) -> list[Tensor]:
    return [Tensor(v, requires_grad=True, **options) for v in values]


def give(params: list[Tensor], gradients: list[Array]) -> None:
    for p, g in zip(params, gradients, strict=True):
        p.grad = Tensor(g, dtype=p.dtype)


def drawn(rng: np.random.Generator, shapes: list[tuple[int, ...]] = SHAPES) -> list[Array]:
    return [np.asarray(rng.standard_normal(s)) for s in shapes]


# --- the rules, written out -----------------------------------------------------------------------


def sgd(p: Any, g: Any, s: dict[str, Any], t: int) -> Any:
    return p - 0.1 * g


def momentum(p: Array, g: Array, s: dict[str, Any], t: int) -> Any:
    s["v"] = 0.9 * s.get("v", 0) + g
    return p - 0.1 * s["v"]


def dampened(p: Array, g: Array, s: dict[str, Any], t: int) -> Any:
    s["v"] = g if t == 1 else 0.9 * s["v"] + 0.7 * g
    return p - 0.1 * s["v"]


def nesterov(p: Array, g: Array, s: dict[str, Any], t: int) -> Any:
    g = g + 0.01 * p
    s["v"] = 0.9 * s.get("v", 0) + g
    return p - 0.1 * (g + 0.9 * s["v"])


def ascent(p: Array, g: Array, s: dict[str, Any], t: int) -> Any:
    s["v"] = 0.9 * s.get("v", 0) + (0.01 * p - g)
    return p - 0.1 * s["v"]


def adagrad(p: Array, g: Array, s: dict[str, Any], t: int) -> Any:
    g = g + 0.01 * p
    s["s"] = s.get("s", 0.5) + g**2
    return p - 0.1 / (1 + (t - 1) * 0.2) * g / (np.sqrt(s["s"]) + 1e-10)


def rmsprop(p: Array, g: Array, s: dict[str, Any], t: int) -> Any:
    s["v"] = 0.9 * s.get("v", 0) + 0.1 * g**2
    return p - 0.01 * g / (np.sqrt(s["v"]) + 1e-8)


def rmsprop_all(p: Array, g: Array, s: dict[str, Any], t: int) -> Any:
    g = g + 0.01 * p
    s["v"] = 0.9 * s.get("v", 0) + 0.1 * g**2
    s["m"] = 0.9 * s.get("m", 0) + 0.1 * g
    s["b"] = 0.8 * s.get("b", 0) + g / (np.sqrt(s["v"] - s["m"] ** 2) + 1e-3)
    return p - 0.01 * s["b"]


def adam_step(p: Array, g: Array, s: dict[str, Any], t: int, largest: bool = False) -> Any:
    s["m"] = 0.8 * s.get("m", 0) + 0.2 * g
    s["v"] = 0.95 * s.get("v", 0) + 0.05 * g**2
    s["x"] = np.maximum(s.get("x", 0), s["v"])
    v = s["x"] if largest else s["v"]
    return p - 0.1 * (s["m"] / (1 - 0.8**t)) / (np.sqrt(v / (1 - 0.95**t)) + 1e-8)


def adam(p: Array, g: Array, s: dict[str, Any], t: int) -> Any:
    return adam_step(p, g + 0.02 * p, s, t)


def amsgrad(p: Array, g: Array, s: dict[str, Any], t: int) -> Any:
    return adam_step(p, g, s, t, largest=True)


def adamw(p: Array, g: Array, s: dict[str, Any], t: int) -> Any:
    return adam_step(p, g, s, t) - 0.1 * 0.02 * p


def adamw_up(p: Array, g: Array, s: dict[str, Any], t: int) -> Any:
    return adam_step(p, -g, s, t) - 0.1 * 0.02 * p


def adadelta(p: Array, g: Array, s: dict[str, Any], t: int) -> Any:
    g = g + 0.01 * p
    s["v"] = 0.8 * s.get("v", 0) + 0.2 * g**2
    d = np.sqrt(s.get("a", 0) + 1e-3) / np.sqrt(s["v"] + 1e-3) * g
    s["a"] = 0.8 * s.get("a", 0) + 0.2 * d**2
    return p - 0.5 * d


def adamax(p: Array, g: Array, s: dict[str, Any], t: int) -> Any:
    g = g + 0.02 * p
    s["m"] = 0.8 * s.get("m", 0) + 0.2 * g
    s["n"] = np.maximum(0.95 * s.get("n", 0), np.abs(g) + 1e-8)
    return p - 0.1 / (1 - 0.8**t) * s["m"] / s["n"]


def nadam(p: Array, g: Array, s: dict[str, Any], t: int) -> Any:
    g = -g + 0.02 * p
    s["m"] = 0.8 * s.get("m", 0) + 0.2 * g
    s["v"] = 0.95 * s.get("v", 0) + 0.05 * g**2
    now, then = (0.8 * (1 - 0.5 * 0.96 ** (k * 0.1)) for k in (t, t + 1))
    s["b"] = s.get("b", 1) * now
    ahead = (1 - now) / (1 - s["b"]) * g + then / (1 - s["b"] * then) * s["m"]
    return p - 0.1 * ahead / (np.sqrt(s["v"] / (1 - 0.95**t)) + 1e-8)


def radam(p: Array, g: Array, s: dict[str, Any], t: int) -> Any:
    s["m"] = 0.8 * s.get("m", 0) + 0.2 * g
    s["v"] = 0.9 * s.get("v", 0) + 0.1 * g**2
    n = 2 / 0.1 - 1
    k = n - 2 * t * 0.9**t / (1 - 0.9**t)
    mean = s["m"] / (1 - 0.8**t)
    if k <= 5:
        return p - 0.1 * mean
    r = np.sqrt((k - 4) * (k - 2) * n / ((n - 4) * (n - 2) * k))
    return p - 0.1 * mean * r * np.sqrt(1 - 0.9**t) / (np.sqrt(s["v"]) + 1e-8)


def lion(p: Array, g: Array, s: dict[str, Any], t: int) -> Any:
    m = s.get("m", np.zeros_like(g))
    s["m"] = 0.95 * m + 0.05 * g
    return p - 0.1 * (np.sign(0.8 * m + 0.2 * g) + 0.02 * p)


BETAS = {"lr": 0.1, "betas": (0.8, 0.95)}
RULES: list[tuple[str, dict[str, Any], Callable[..., Array]]] = [
    ("SGD", {"lr": 0.1}, sgd),
    ("SGD", {"lr": 0.1, "momentum": 0.9}, momentum),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3}, dampened),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}, nesterov),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "maximize": True}, ascent),
    (
        "Adagrad",
        {"lr": 0.1, "lr_decay": 0.2, "weight_decay": 0.01, "initial_accumulator_value": 0.5},
        adagrad,
    ),
    ("RMSprop", {"lr": 0.01, "alpha": 0.9}, rmsprop),
    (
        "RMSprop",
        {
            "lr": 0.01, "alpha": 0.9, "eps": 1e-3, "weight_decay": 0.01, "momentum": 0.8,
            "centered": True,
        },
        rmsprop_all,
    ),
    ("Adam", {**BETAS, "weight_decay": 0.02}, adam),
    ("Adam", {**BETAS, "amsgrad": True}, amsgrad),
    ("AdamW", {**BETAS, "weight_decay": 0.02}, adamw),
    ("AdamW", {**BETAS, "weight_decay": 0.02, "maximize": True}, adamw_up),
    ("Adadelta", {"lr": 0.5, "rho": 0.8, "eps": 1e-3, "weight_decay": 0.01}, adadelta),
    ("Adamax", {**BETAS, "weight_decay": 0.02}, adamax),
    (
        "NAdam",
        {**BETAS, "weight_decay": 0.02, "momentum_decay": 0.1, "maximize": True},
        nadam,
    ),
    ("RAdam", {"lr": 0.1, "betas": (0.8, 0.9)}, radam),
    ("Lion", {**BETAS, "weight_decay": 0.02}, lion),
]  # fmt: skip
each_rule = pytest.mark.parametrize(
    ("name", "options", "rule"), RULES, ids=[f"{n}-{f.__name__}" for n, _, f in RULES]
)


@each_rule
@pytest.mark.parametrize("chunk", [1 << 15, 5], ids=["gathered", "chunked"])
def test_closed_form(
    name: str,
    options: dict[str, Any],
    rule: Callable[..., Array],
    chunk: int,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(update, "CHUNK", chunk)
    expected = drawn(rng)
    params = leaves(expected)
    states: list[dict[str, Any]] = [{} for _ in SHAPES]
    optimizer = getattr(optim, name)(params, **options)
    for t in range(1, 5):
        gradients = drawn(rng)
        give(params, gradients)
        optimizer.step()
        expected = [rule(p, g, s, t) for p, g, s in zip(expected, gradients, states, strict=True)]
        for p, e, g in zip(params, expected, gradients, strict=True):
            np.testing.assert_allclose(p.detach().numpy(), e, rtol=1e-12, atol=1e-14)
            assert p.grad is not None
            np.testing.assert_array_equal(p.grad.numpy(), g)  # gradients are only read


@each_rule
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_agrees_with_torch_over_20_steps(
    name: str,
    options: dict[str, Any],
    rule: Callable[..., Array],
    dtype: str,
    rng: np.random.Generator,
) -> None:
    torch = pytest.importorskip("torch")
    if not hasattr(torch.optim, name):
        pytest.skip(f"PyTorch has no {name}")
    start = [v.astype(dtype) for v in drawn(rng)]
    ours, theirs = leaves(start), [torch.tensor(v, requires_grad=True) for v in start]
    optimizer = getattr(optim, name)(ours, **options)
    peer = getattr(torch.optim, name)(theirs, **options)
    for _ in range(20):
        gradients = [g.astype(dtype) for g in drawn(rng)]
        give(ours, gradients)
        for p, g in zip(theirs, gradients, strict=True):
            p.grad = torch.tensor(g)
        optimizer.step()
        peer.step()
    tolerance = 1e-11 if dtype == "float64" else 2e-5
    if name == "NAdam":  # PyTorch keeps its product of factors in float32
        tolerance = max(tolerance, 1e-6)
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == dtype
        np.testing.assert_allclose(
            a.detach().numpy(), b.detach().numpy(), rtol=tolerance, atol=tolerance
        )
    for a, b in zip(ours, theirs, strict=True):
        for key, value in optimizer.state[a].items():
            if key == "step" and key not in peer.state[b]:
                continue  # PyTorch tells the first step with dampening otherwise
            np.testing.assert_allclose(
                value.numpy(), peer.state[b][key].numpy(), rtol=tolerance, atol=tolerance
            )


def test_the_lectures_momentum() -> None:
    # C4: dw(t) = eta * delta * x + alpha * dw(t-1), with a constant rate.
    p = leaves([np.array([0.1])])[0]
    optimizer = optim.SGD([p], lr=0.2, momentum=0.9)
    step = 0.0
    w = 0.1
    for delta in (0.086, -0.21, 0.3):
        p.grad = Tensor(np.array([-delta]))
        optimizer.step()
        step = 0.2 * delta + 0.9 * step
        w += step
        assert p.item() == pytest.approx(w, abs=1e-15)


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
@pytest.mark.parametrize("chunk", [1 << 15, 5], ids=["gathered", "chunked"])
def test_16_bits_have_a_wide_state(
    name: str, chunk: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(update, "CHUNK", chunk)
    dtype = dtypes.as_dtype(name)
    p = Tensor(rng.standard_normal((3, 4)), dtype=dtype, requires_grad=True)
    wide = p.detach().numpy().astype(np.float32)
    g = Tensor(rng.standard_normal((3, 4)), dtype=dtype)
    p.grad = g
    optimizer = optim.AdamW([p], lr=0.01)
    optimizer.step()
    assert p.dtype == dtype
    assert optimizer.state[p]["exp_avg_sq"].dtype == dtypes.float32
    squares = g.numpy().astype(np.float32) ** 2
    np.testing.assert_allclose(optimizer.state[p]["exp_avg_sq"].numpy(), 1e-3 * squares, rtol=1e-6)
    expected = (wide * (1 - 1e-4) - 0.01 * np.sign(g.numpy().astype(np.float32))).astype(dtype)
    found = p.detach().numpy().astype(np.float32)
    np.testing.assert_allclose(found, expected.astype(np.float32), rtol=0.01)


def test_a_square_too_large_for_16_bits_is_not_infinite() -> None:
    p = Tensor([1.0, 2.0], dtype="float16", requires_grad=True)
    p.grad = Tensor([3000.0, 2.0], dtype="float16")
    optim.Adam([p], lr=0.5).step()
    np.testing.assert_allclose(p.detach().numpy(), [0.5, 1.5], rtol=1e-3)


@pytest.mark.parametrize("chunk", [1 << 15, 5], ids=["gathered", "chunked"])
def test_any_memory_layout(
    chunk: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(update, "CHUNK", chunk)
    value, gradient = rng.standard_normal((2, 4, 5))
    p = Tensor(np.asfortranarray(value), requires_grad=True)
    p.grad = Tensor(np.asfortranarray(gradient))
    optim.SGD([p], lr=0.1).step()
    np.testing.assert_allclose(p.detach().numpy(), value - 0.1 * gradient, rtol=1e-15)


# --- the step -------------------------------------------------------------------------------------


class Calls(Observer):
    def __init__(self) -> None:
        self.seen: list[str] = []

    def computed(self, op: Any, inputs: Any, attrs: Any, out: Any) -> None:
        self.seen.append(op.name)


def test_a_group_is_updated_by_one_call(rng: np.random.Generator) -> None:
    params = leaves(drawn(rng))
    optimizer = optim.Adam([{"params": params[:2]}, {"params": params[2:]}])
    give(params, drawn(rng))
    calls = Calls()
    token = MODE.set(current_mode()._replace(observers=(calls,)))
    try:
        optimizer.step()
        optimizer.step()
    finally:
        MODE.reset(token)
    assert calls.seen == ["adam"] * 4


def test_a_parameter_without_gradient_is_left_alone(rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    start = drawn(rng, [(2, 3), (3,), (2,)])
    ours, theirs = leaves(start), [torch.tensor(v, requires_grad=True) for v in start]
    optimizer, peer = optim.Adam(ours, lr=0.1), torch.optim.Adam(theirs, lr=0.1)
    # Each has its own count of steps, whatever happens to the others.
    for present in ([0, 1], [0, 1, 2], [2], [0, 1, 2], [0, 2], [1]):
        optimizer.zero_grad()
        peer.zero_grad()
        for i in present:
            g = rng.standard_normal(ours[i].shape)
            ours[i].grad, theirs[i].grad = Tensor(g), torch.tensor(g)
        optimizer.step()
        peer.step()
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-12)
    assert [int(optimizer.state[p]["step"].item()) for p in ours] == [4, 4, 4]


def test_mixed_dtypes_in_one_group(rng: np.random.Generator) -> None:
    a = Tensor([1.0, 2.0], dtype="float32", requires_grad=True)
    b = Tensor([1.0, 2.0], dtype="float64", requires_grad=True)
    for p in (a, b):
        p.grad = Tensor([1.0, -1.0], dtype=p.dtype)
    optim.SGD([a, b], lr=0.5).step()
    assert (a.dtype, b.dtype) == (dtypes.float32, dtypes.float64)
    assert a.tolist() == b.tolist() == [0.5, 2.5]


def test_the_rate_can_be_changed_between_steps() -> None:
    p = Tensor([1.0], requires_grad=True)
    optimizer = optim.SGD([p], lr=1.0)
    p.grad = Tensor([1.0])
    optimizer.step()
    optimizer.param_groups[0]["lr"] = 0.25
    optimizer.step()
    assert p.item() == -0.25


def test_momentum_switched_on_later() -> None:
    p = Tensor([1.0], requires_grad=True)
    optimizer = optim.SGD([p], lr=1.0)
    p.grad = Tensor([1.0])
    optimizer.step()
    optimizer.param_groups[0]["momentum"] = 0.5
    optimizer.step()
    optimizer.step()
    assert p.item() == -2.5


def test_the_update_counts_as_overwriting() -> None:
    p = Tensor([2.0], requires_grad=True)
    loss = (p * p).sum()
    p.grad = Tensor([1.0])
    optim.SGD([p], lr=0.1).step()
    with pytest.raises(GradientError, match="overwritten in place"):
        loss.backward()


def test_training_goes_on_after_a_step() -> None:
    w = Tensor(np.zeros(3), requires_grad=True)
    x = Tensor(np.eye(3))
    optimizer = optim.SGD([w], lr=0.5, momentum=0.5)
    for _ in range(60):
        optimizer.zero_grad()
        ((x @ w - Tensor(np.arange(3.0))) ** 2).sum().backward()
        optimizer.step()
    np.testing.assert_allclose(w.detach().numpy(), np.arange(3.0), atol=1e-6)


def test_frozen_and_converted_parameters(rng: np.random.Generator) -> None:
    a, b = leaves(drawn(rng, [(2,), (2,)]))
    optimizer = optim.SGD([a, b], lr=0.1, momentum=0.9)
    give([a, b], drawn(rng, [(2,), (2,)]))
    optimizer.step()
    before = b.tolist()
    b.requires_grad = False
    optimizer.step()
    assert b.tolist() == before
    moved = a.detach().astype("float32")
    a.node, a.data = None, moved.data
    a.requires_grad = True
    a.grad = Tensor([1.0, 1.0], dtype="float32")
    optimizer.step()
    assert a.dtype == optimizer.state[a]["momentum_buffer"].dtype == "float32"


def test_a_group_whose_list_is_changed(rng: np.random.Generator) -> None:
    a, b, c = leaves([np.ones(1)] * 3)
    optimizer = optim.SGD([a, b], lr=0.5, momentum=0.5)
    give([a, b, c], [np.ones(1)] * 3)
    optimizer.step()
    optimizer.param_groups[0]["params"].append(c)
    optimizer.step()
    optimizer.param_groups[0]["params"] = [c]
    optimizer.step()
    assert (a.item(), b.item(), c.item()) == (-0.25, -0.25, -0.25)


def test_zero_grad() -> None:
    p, q = Tensor([1.0], requires_grad=True), Tensor([1.0], requires_grad=True)
    optimizer = optim.SGD([p, q])
    p.grad = Tensor([3.0])
    optimizer.zero_grad(set_to_none=False)
    assert p.grad.tolist() == [0.0]
    assert q.grad is None
    optimizer.zero_grad()
    assert p.grad is None


# --- groups and options ---------------------------------------------------------------------------


def test_groups_have_their_own_options() -> None:
    a, b = Tensor([1.0], requires_grad=True), Tensor([1.0], requires_grad=True)
    optimizer = optim.SGD([{"params": [a]}, {"params": b, "lr": 0.5}], lr=0.1)
    assert [g["lr"] for g in optimizer.param_groups] == [0.1, 0.5]
    a.grad = b.grad = Tensor([1.0])
    optimizer.step()
    assert a.item() == pytest.approx(0.9)
    assert b.item() == 0.5
    assert "(1): 1 parameters, lr=0.5" in repr(optimizer)


def test_named_parameters() -> None:
    p = Tensor([1.0], requires_grad=True)
    optimizer = optim.SGD([("layer.weight", p)], lr=0.1)
    assert optimizer.param_groups[0]["param_names"] == ["layer.weight"]
    assert optimizer.param_groups[0]["params"] == [p]


def _leaf() -> Tensor:
    return Tensor([1.0], requires_grad=True)


SAME = _leaf()
WRONG: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: optim.SGD([]), ValueError, "nothing to optimize"),
    (lambda: optim.SGD(_leaf()), TypeError, r"write \[it\]"),
    (lambda: optim.SGD([1.0]), TypeError, "parameter 0 is a float"),  # type: ignore[list-item]
    (lambda: optim.SGD([("w", _leaf() * 2.0)]), ValueError, "parameter w was computed"),
    (lambda: optim.SGD([SAME, SAME]), ValueError, "listed twice"),
    (lambda: optim.SGD([{"params": [SAME]}, {"params": [SAME]}]), ValueError, "more than one"),
    (lambda: optim.SGD([{"params": [SAME], "rate": 1}]), ValueError, "unknown option 'rate'; .*lr"),
    (lambda: optim.SGD([{"lr": 1}]), ValueError, 'a dict with "params"'),
    (lambda: optim.SGD([_leaf()], lr=-1), ValueError, "lr must be a number >= 0, got -1"),
    (lambda: optim.SGD([_leaf()], lr=math.nan), ValueError, "lr must be"),
    (lambda: optim.SGD([_leaf()], momentum=-0.1), ValueError, "momentum must be"),
    (lambda: optim.SGD([_leaf()], nesterov=True), ValueError, "nesterov=True needs momentum"),
    (lambda: optim.Adam([_leaf()], betas=(0.9, 1.0)), ValueError, r"betas must lie in \[0, 1\)"),
    (lambda: optim.Adam([_leaf()], betas=(0.9,)), ValueError, "two numbers"),  # type: ignore[arg-type]
    (lambda: optim.Adam([_leaf()], eps=-1.0), ValueError, "eps must be"),
    (lambda: optim.RMSprop([_leaf()], alpha=1.5), ValueError, "alpha must lie"),
    (lambda: optim.Adagrad([_leaf()], lr_decay=-1), ValueError, "lr_decay must be"),
    (
        lambda: optim.Adagrad([_leaf()], initial_accumulator_value=-1),
        ValueError,
        "initial_accumulator_value must be",
    ),
]


@pytest.mark.parametrize(("make", "error", "message"), WRONG)
def test_errors(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


# --- saving and loading ---------------------------------------------------------------------------


@each_rule
def test_resuming_is_bit_identical(
    name: str, options: dict[str, Any], rule: Callable[..., Array], rng: np.random.Generator
) -> None:
    gradients = [drawn(rng) for _ in range(8)]
    straight = leaves(drawn(rng), dtype="float32")
    first = leaves([p.detach().numpy() for p in straight], dtype="float32")
    a, b = getattr(optim, name)(straight, **options), getattr(optim, name)(first, **options)
    for g in gradients[:4]:
        for params, optimizer in ((straight, a), (first, b)):
            give(params, g)
            optimizer.step()
    saved = b.state_dict()
    snapshot = copy.deepcopy(
        {i: {k: v.numpy().copy() for k, v in s.items()} for i, s in saved["state"].items()}
    )
    second = leaves([p.detach().numpy() for p in first], dtype="float32")
    b.step()  # what was saved does not change any more
    for i, state in snapshot.items():
        for key, value in state.items():
            np.testing.assert_array_equal(saved["state"][i][key].numpy(), value)
    c = getattr(optim, name)(second, lr=7.0)
    c.load_state_dict(saved)
    for g in gradients[4:]:
        for params, optimizer in ((straight, a), (second, c)):
            give(params, g)
            optimizer.step()
    for p, q in zip(straight, second, strict=True):
        np.testing.assert_array_equal(p.detach().numpy(), q.detach().numpy())


def test_the_form_of_a_state() -> None:
    p, q = _leaf(), _leaf()
    optimizer = optim.Adam([{"params": [p]}, {"params": [q], "lr": 0.5}], lr=0.1)
    q.grad = Tensor([1.0])
    optimizer.step()
    saved = optimizer.state_dict()
    assert list(saved["state"]) == [1]
    assert sorted(saved["state"][1]) == ["exp_avg", "exp_avg_sq", "step"]
    assert saved["state"][1]["step"].item() == 1
    assert [g["params"] for g in saved["param_groups"]] == [[0], [1]]
    assert saved["param_groups"][1]["lr"] == 0.5


def test_a_state_that_does_not_fit_changes_nothing() -> None:
    p = Tensor(np.ones(3), requires_grad=True)
    p.grad = Tensor(np.ones(3))
    one = optim.SGD([p], lr=0.1, momentum=0.9)
    one.step()
    other = Tensor(np.ones(2), requires_grad=True)
    two = optim.SGD([other], lr=0.7, momentum=0.9)
    with pytest.raises(ShapeError, match=r"momentum_buffer.* shape \(2,\); got \(3,\)"):
        two.load_state_dict(one.state_dict())
    with pytest.raises(ValueError, match=r"has \[2\], the state has \[1\]"):
        optim.SGD([_leaf(), _leaf()]).load_state_dict(one.state_dict())
    assert two.param_groups[0]["lr"] == 0.7
    assert not two.state_dict()["state"]


@pytest.mark.parametrize("way", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
@pytest.mark.parametrize("name", ["SGD", "Adam", "RMSprop", "Adafactor", "LAMB", "NAdam"])
def test_a_copy_goes_on_apart(
    name: str, way: Callable[[Any], Any], rng: np.random.Generator
) -> None:
    """With the parameters that were copied along, also inside of a program."""
    options: dict[str, Any] = {"momentum": 0.9} if name in ("SGD", "RMSprop") else {}
    params = leaves([np.asarray(rng.standard_normal(s)) for s in [(3, 4), (3,)]])
    optimizer = getattr(optim, name)(params, lr=0.1, **options)
    gradients = [drawn(rng, [(3, 4), (3,)]) for _ in range(6)]

    def run(params: list[Tensor], optimizer: Any, some: list[list[Array]]) -> None:
        for g in some:
            give(params, g)
            optimizer.step()

    run(params, optimizer, gradients[:3])
    twins, twin, schedule = way((params, optimizer, optim.lr_scheduler.StepLR(optimizer, 2)))
    assert schedule.optimizer is twin
    assert all(p is q for p, q in zip(twin.param_groups[0]["params"], twins, strict=True))
    run(params, optimizer, gradients[3:])
    run(twins, twin, gradients[3:5])
    give(twins, gradients[5])
    tg.compile(twin.step)()
    for p, q in zip(params, twins, strict=True):
        np.testing.assert_allclose(p.detach().numpy(), q.detach().numpy(), rtol=1e-12)
        assert not np.shares_memory(p.data, q.data)
        for key, value in optimizer.state[p].items():
            np.testing.assert_allclose(value.numpy(), twin.state[q][key].numpy(), rtol=1e-12)


#: Classes of which one may take another's numbers for its own: equal names, shapes or options.
KINDS = ["SGD", "Adam", "AdamW", "RAdam", "LAMB", "Adamax", "RMSprop", "Adagrad", "Lion", "Muon"]


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("other", KINDS)
@pytest.mark.parametrize("name", KINDS)
def test_the_state_of_another_kind_is_refused(name: str, other: str, named: bool) -> None:
    p = Tensor(np.ones((2, 2)), requires_grad=True)
    p.grad = Tensor(np.ones((2, 2)))
    one = getattr(optim, other)([p], lr=0.5)
    one.step()
    saved = one.state_dict()
    if not named:  # as files from before had it; what else tells them apart is the names
        del saved["optimizer"]
    two = getattr(optim, name)([p], lr=0.1)
    before = two.state_dict()
    alike = {one._used(one.param_groups[0]), two._used(two.param_groups[0])}
    if name == other or (not named and len(alike) == 1 and {*one.defaults} == {*two.defaults}):
        two.load_state_dict(saved)
        assert two.param_groups[0]["lr"] == 0.5
        return
    with pytest.raises(ValueError, match=f"^{name}: the state .*{other if named else 'another'}"):
        two.load_state_dict(saved)
    assert two.state_dict() == before
    assert not two.state[p]


def test_an_optimizer_with_states_of_its_own_gets_them_back() -> None:
    class Pushed(optim.Optimizer):
        def __init__(self, params: Any, lr: float = 1.0) -> None:
            super().__init__(params, {"lr": lr})

        def step(self) -> None:
            for p in self._all_params():
                assert p.grad is not None
                self.state[p]["kept"] = p.grad

    p = Tensor([1.0], requires_grad=True)
    p.grad = Tensor([3.0])
    one, two = Pushed([p]), Pushed([p])
    one.step()
    saved = one.state_dict()
    for _ in range(2):
        two.load_state_dict(saved)
        assert two.state[p]["kept"].tolist() == [3.0]
        saved.pop("optimizer", None)


def test_a_state_loaded_into_a_used_optimizer_takes_effect() -> None:
    """The steps before have left flat arrays behind, which must not be gone on with."""
    p, q = (Tensor(np.ones(3), requires_grad=True) for _ in range(2))
    one, two = optim.Adam([p], lr=0.1), optim.Adam([q], lr=0.3)
    for leaf, optimizer, value in ((p, one, 1.0), (q, two, -5.0), (q, two, 2.0)):
        leaf.grad = Tensor(np.full(3, value))
        optimizer.step()
    two.load_state_dict(one.state_dict())
    with no_grad():
        q.copy_(p)
    for leaf, optimizer in ((p, one), (q, two)):
        leaf.grad = Tensor(np.array([0.5, -1.0, 2.0]))
        optimizer.step()
    assert q.tolist() == p.tolist()


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_centered_rmsprop_of_a_constant_gradient(momentum: float, weight_decay: float) -> None:
    """Against the rule written out: v - m**2 is a variance, small where g hardly varies."""
    p = Tensor(np.array([1.0, -2.0]), requires_grad=True)
    options: dict[str, Any] = {
        "alpha": 0.5,
        "eps": 1e-3,
        "momentum": momentum,
        "weight_decay": weight_decay,
    }
    optimizer = optim.RMSprop([p], lr=0.01, centered=True, **options)
    wanted = p.detach().numpy().copy()
    v, m, b = np.zeros(2), np.zeros(2), np.zeros(2)
    for _ in range(12):
        p.grad = Tensor(np.array([3.0, -1.0]))
        optimizer.step()
        g = np.array([3.0, -1.0]) + weight_decay * wanted
        v, m = 0.5 * v + 0.5 * g**2, 0.5 * m + 0.5 * g
        b = momentum * b + g / (np.sqrt(v - m**2) + 1e-3)
        wanted -= 0.01 * b
        np.testing.assert_allclose(p.detach().numpy(), wanted, rtol=1e-6)


def test_an_optimizer_of_ones_own() -> None:
    class Signs(optim.Optimizer):
        def __init__(self, params: Any, lr: float = 1e-3) -> None:
            super().__init__(params, {"lr": lr})

        def step(self) -> None:
            with no_grad():
                for group in self.param_groups:
                    for p in group["params"]:
                        p -= p.grad.sign() * group["lr"]

    p = Tensor([1.0, 1.0], requires_grad=True)
    p.grad = Tensor([3.0, -4.0])
    optimizer = Signs([p], lr=0.5)
    optimizer.step()
    assert p.tolist() == [0.5, 1.5]
    assert optimizer.state_dict()["param_groups"] == [{"lr": 0.5, "params": [0]}]


# --- clipping -------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm_type", [2.0, 1.0, 3.0, math.inf])
@pytest.mark.parametrize("max_norm", [0.5, 100.0])
def test_clip_grad_norm_agrees_with_torch(
    norm_type: float, max_norm: float, rng: np.random.Generator
) -> None:
    torch = pytest.importorskip("torch")
    shapes = [(3, 4), (3,), ()]
    ours = leaves(drawn(rng, shapes))
    theirs = [torch.tensor(p.detach().numpy(), requires_grad=True) for p in ours]
    for a, b in zip(ours, theirs, strict=True):
        g = np.asarray(rng.standard_normal(a.shape))
        a.grad, b.grad = Tensor(g), torch.tensor(g)
    ours.append(_leaf())  # has no gradient
    norm = optim.clip_grad_norm_(ours, max_norm, norm_type)
    expected = torch.nn.utils.clip_grad_norm_(theirs, max_norm, norm_type)
    assert norm.shape == ()
    assert norm.item() == pytest.approx(expected.item(), rel=1e-12)
    for a, b in zip(ours, theirs, strict=False):
        assert a.grad is not None
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-12)


def test_clip_grad_norm_of_nothing_and_of_infinity() -> None:
    p = _leaf()
    assert optim.clip_grad_norm_(p, 1.0).item() == 0
    p.grad = Tensor([np.inf])
    with pytest.raises(GradientError, match="norm of the gradients is inf"):
        optim.clip_grad_norm_([p], 1.0, error_if_nonfinite=True)
    assert p.grad.item() == np.inf
    with pytest.raises(ValueError, match="max_norm must be"):
        optim.clip_grad_norm_([p], -1.0)
    with pytest.raises(ValueError, match="norm_type must be positive"):
        optim.clip_grad_norm_([p], 1.0, norm_type=0)


def test_clip_grad_norm_in_16_bits() -> None:
    p = Tensor([0.0, 0.0], dtype="float16", requires_grad=True)
    p.grad = Tensor([48000.0, 64000.0], dtype="float16")
    assert optim.clip_grad_norm_([p], 5.0).item() == 80000  # more than 16 bits hold
    np.testing.assert_allclose(p.grad.numpy(), [3.0, 4.0], rtol=1e-3)


def test_clip_grad_value() -> None:
    p = Tensor([0.0, 0.0, 0.0], requires_grad=True)
    p.grad = Tensor([-3.0, 0.2, 7.0])
    optim.clip_grad_value_([p, _leaf()], 0.5)
    np.testing.assert_allclose(p.grad.numpy(), [-0.5, 0.2, 0.5], rtol=1e-6)
    with pytest.raises(ValueError, match="clip_value must be"):
        optim.clip_grad_value_([p], -1.0)
