"""Batch, instance and group norm: against PyTorch in float64, statistics, 16 bits, edges."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sampler import host

import tensorgrad as tg
from tensorgrad import Tensor, dtypes, nn
from tensorgrad.autograd import gradcheck, gradgradcheck
from tensorgrad.errors import ShapeError
from tensorgrad.nn import functional as F  # noqa: N812

Array = np.ndarray[Any, Any]
Make = Callable[[Any], Any]

#: A layer of either library, and shapes of inputs.
LAYERS: dict[str, tuple[Make, list[tuple[int, ...]]]] = {
    "batch, 1": (lambda m: m.BatchNorm1d(5), [(7, 5), (3, 5, 4), (1, 5, 9), (300, 5)]),
    "batch, 2": (lambda m: m.BatchNorm2d(5, eps=0.01, momentum=0.3), [(3, 5, 4, 6), (1, 5, 1, 2)]),
    "batch, 3": (lambda m: m.BatchNorm3d(5, affine=False), [(2, 5, 3, 1, 4)]),
    "batch, plain average": (lambda m: m.BatchNorm2d(5, momentum=None), [(3, 5, 4, 6)]),
    "batch, no statistics": (
        lambda m: m.BatchNorm2d(5, track_running_stats=False),
        [(3, 5, 4, 6), (6, 5, 8, 8)],
    ),
    "instance, 1": (lambda m: m.InstanceNorm1d(5), [(3, 5, 4), (5, 4)]),
    "instance, 2": (lambda m: m.InstanceNorm2d(5, affine=True), [(3, 5, 4, 6), (5, 4, 6)]),
    "instance, 3": (
        lambda m: m.InstanceNorm3d(5, affine=True, track_running_stats=True, momentum=0.3),
        [(2, 5, 3, 1, 4), (5, 3, 1, 4)],
    ),
    "group": (lambda m: m.GroupNorm(2, 6, eps=0.1), [(3, 6, 2, 2), (3, 6), (1, 6, 5)]),
}


def laid(a: Array, how: str) -> Array:
    """The same numbers, in memory of another layout."""
    if how == "channels last":
        return np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 1, -1)), -1, 1)
    return np.repeat(a, 2, axis=-1)[..., ::2] if how == "strided" else a


def pair(make: Make, rng: np.random.Generator) -> tuple[Any, Any]:
    """The layer of both libraries with the same random parameters and statistics, in float64."""
    torch: Any = pytest.importorskip("torch")
    ours, theirs = make(nn).double(), make(torch.nn).double()
    state = {
        name: rng.uniform(0.5, 1.5, v.shape) for name, v in ours.state_dict().items() if v.shape
    }
    ours.load_state_dict({**ours.state_dict(), **state})
    theirs.load_state_dict({k: torch.tensor(host(v)) for k, v in ours.state_dict().items()})
    return ours, theirs


def compare(ours: Any, theirs: Any, values: Array, rng: np.random.Generator) -> None:
    """Values, first gradients, and the gradients of these."""
    torch: Any = pytest.importorskip("torch")
    x, z = Tensor(values, requires_grad=True), torch.tensor(values, requires_grad=True)
    mine = [x, *ours.parameters()]
    other = [z, *theirs.parameters()]
    y, w = ours(x), theirs(z)
    np.testing.assert_allclose(host(y), w.detach().numpy(), rtol=1e-10, atol=1e-11)
    y, w = y * y, w * w  # or a layer in evaluation has no second gradients
    weights = rng.normal(size=y.shape)
    first: Any = tg.autograd.grad(y, mine, Tensor(weights), retain_graph=True)
    again: Any = tg.autograd.grad(y, mine, Tensor(weights), create_graph=True)
    wanted = torch.autograd.grad(w, other, torch.tensor(weights), create_graph=True)
    for a, b, c in zip(first, again, wanted, strict=True):
        np.testing.assert_allclose(host(a), c.detach().numpy(), rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(host(b), c.detach().numpy(), rtol=1e-8, atol=1e-10)
    one: Any = tg.autograd.grad((again[0] ** 2).sum() + again[-1].sum(), mine)
    two = torch.autograd.grad((wanted[0] ** 2).sum() + wanted[-1].sum(), other, allow_unused=True)
    for a, c in zip(one, two, strict=True):
        right = np.zeros(a.shape) if c is None else c.numpy()
        np.testing.assert_allclose(host(a), right, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("name", LAYERS)
def test_layers_are_pytorchs(name: str, rng: np.random.Generator) -> None:
    """In training twice, and after ``eval()``; with the running statistics and state dicts."""
    make, shapes = LAYERS[name]
    ours, theirs = pair(make, rng)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for shape, how in zip(shapes * 2, ("plain", "channels last", "strided") * 3):
        compare(ours, theirs, laid(rng.normal(1.0, 2.0, shape), how), rng)
        for key, value in theirs.state_dict().items():
            np.testing.assert_allclose(
                host(ours.state_dict()[key]), value.numpy(), rtol=1e-10, atol=1e-14
            )
    compare(ours.eval(), theirs.eval(), rng.normal(size=shapes[0]), rng)


def test_functions_are_pytorchs(rng: np.random.Generator) -> None:
    """Each combination of what may be absent, and statistics that are overwritten."""
    torch: Any = pytest.importorskip("torch")
    x = rng.normal(size=(4, 3, 5))
    given = [rng.uniform(0.5, 1.5, 3) for _ in range(4)]
    for name, own in (("batch_norm", True), ("instance_norm", True), ("batch_norm", False)):
        for present in range(8):
            parts = [v if present >> k & 1 else None for k, v in enumerate([0, 1, 2])]
            mean, var = given[:2] if parts[0] is not None or not own else (None, None)
            weight, bias = (None if parts[k] is None else given[k + 1] for k in (1, 2))
            mine = [None if v is None else Tensor(v.copy()) for v in (mean, var, weight, bias)]
            other = [None if v is None else torch.tensor(v) for v in (mean, var, weight, bias)]
            y = getattr(F, name)(Tensor(x), *mine, own, 0.3, 0.01)
            z = getattr(torch.nn.functional, name)(torch.tensor(x), *other, own, 0.3, 0.01)
            np.testing.assert_allclose(host(y), z.numpy(), rtol=1e-11, atol=1e-12)
            for a, b in zip(mine, other, strict=True):
                if a is not None and b is not None:
                    np.testing.assert_allclose(host(a), b.numpy(), rtol=1e-12, atol=1e-14)


def drawn_input(name: str, rng: np.random.Generator) -> Array:
    """Of any rank and layout, long and short rows, near 0 and far from it."""
    ranks = (1, 4) if name == "instance_norm" else (0, 4)
    sizes = rng.choice([1, 2, 3], rng.integers(*ranks)).tolist()
    sizes[-1:] = rng.choice([1, 2, 7, 70], len(sizes[-1:])).tolist()
    shape = (int(rng.integers(2, 6)), int(rng.choice([1, 2, 4, 6])), *sizes)
    values = rng.normal(rng.choice([0.0, 50.0]), 1.0, shape)
    layouts: list[Callable[[Array], Array]] = [
        np.ascontiguousarray, np.asfortranarray, lambda a: a[::-1],
        lambda a: np.repeat(a, 2, -1)[..., ::2],
    ]  # fmt: skip
    return layouts[rng.integers(4)](values)


@pytest.mark.parametrize("name", ["batch_norm", "instance_norm", "group_norm"])
def test_random_inputs_give_what_pytorch_gives(name: str, rng: np.random.Generator) -> None:
    """With and without parameters and statistics."""
    torch: Any = pytest.importorskip("torch")
    tried = 0
    for _ in range(40):
        x = drawn_input(name, rng)
        channels = x.shape[1]
        training = bool(rng.random() < 0.6)
        if name == "instance_norm" and training and np.prod(x.shape[2:]) == 1:
            continue
        stats = rng.random() < 0.5 or not training
        state = [rng.uniform(0.5, 2.0, channels) if stats else None for _ in "mv"]
        parameters = [rng.normal(size=channels) if rng.random() < 0.7 else None for _ in "wb"]
        mine: list[Any] = [None if a is None else Tensor(a) for a in (*state, *parameters)]
        other: list[Any] = [None if a is None else torch.tensor(a) for a in (*state, *parameters)]
        mine.insert(0, Tensor(x, copy=None))
        other.insert(0, torch.tensor(np.ascontiguousarray(x)))
        wanting = [(mine[k], other[k]) for k in (0, 3, 4) if mine[k] is not None]
        for pair in wanting:
            for t in pair:
                t.requires_grad = True
        options: tuple[Any, ...] = (training, 0.3, 0.01)
        if name == "group_norm":
            options = ()
            if mine[3] is None:  # PyTorch fails for a bias alone
                mine[4] = other[4] = None
                wanting = wanting[:1]
            number = int(rng.choice([n for n in (1, 2, 3, 6) if channels % n == 0]))
            mine[1:3] = other[1:3] = [number]
        y = getattr(F, name)(*mine, *options)
        z = getattr(torch.nn.functional, name)(*other, *options)
        np.testing.assert_allclose(host(y), z.detach().numpy(), rtol=1e-8, atol=1e-9)
        weights = rng.normal(size=x.shape)
        y.backward(Tensor(weights))
        z.backward(torch.tensor(weights))
        for a, b in wanting:
            np.testing.assert_allclose(host(a.grad), b.grad.numpy(), rtol=1e-7, atol=1e-8)
        tried += 1
    assert tried > 25


def test_given_statistics_get_gradients(rng: np.random.Generator) -> None:
    x, mean, weight, bias = (Tensor(rng.normal(size=s)) for s in ((2, 3, 4), 3, 3, 3))
    var = Tensor(rng.uniform(0.5, 2.0, 3))
    inputs = (x, mean, var, weight, bias)
    for t in inputs:
        t.requires_grad = True
    assert gradcheck(F.batch_norm, inputs)
    assert gradgradcheck(F.batch_norm, inputs)


def test_statistics_may_go_on_before_the_backward_pass(rng: np.random.Generator) -> None:
    """What was standardized by running statistics keeps those that it was standardized by."""
    layer = nn.BatchNorm1d(3, dtype="float64")
    x = Tensor(rng.normal(size=(5, 3)))
    layer.eval()(x).sum().backward()
    assert layer.weight is not None
    wanted = host(layer.weight.grad).copy()
    layer.zero_grad()
    y = layer(x)
    layer.train()(x * 3.0 + 1.0)
    y.sum().backward()
    np.testing.assert_allclose(host(layer.weight.grad), wanted, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_far_from_zero_nothing_cancels(scale: float, rng: np.random.Generator) -> None:
    """The variance is not computed as a difference of large numbers; a constant gives the bias."""
    x = (1000.0 + rng.normal(size=(6, 2, 5, 7))).astype(np.float32) * np.float32(scale)
    exact = x.astype(np.float64)
    wanted = (exact - exact.mean((0, 2, 3), keepdims=True)) / np.sqrt(
        exact.var((0, 2, 3), keepdims=True) + 1e-12
    )
    found = F.batch_norm(Tensor(x), None, None, training=True, eps=1e-12)
    np.testing.assert_allclose(host(found), wanted, atol=2e-3)
    bias = Tensor([0.25, -1.5])
    y = F.batch_norm(tg.full((3, 2, 4), 1000.0 / 3), None, None, bias=bias, training=True)
    np.testing.assert_allclose(host(y), host(bias)[None, :, None] + np.zeros((3, 2, 4)), atol=1e-2)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_statistics_of_16_bits_are_computed_in_float32(
    dtype: str, rng: np.random.Generator
) -> None:
    """Squares beyond 65504 and sums that 16 bits do not hold; parameters of float32 widen."""
    values = rng.normal(300.0, 400.0, (40, 2, 30))
    x = Tensor(values, dtype=dtype, requires_grad=True)
    exact = Tensor(host(x).astype(np.float64), requires_grad=True)
    layer, wide = nn.BatchNorm1d(2, dtype=dtype), nn.BatchNorm1d(2, dtype="float64")
    y, z = layer(x), wide(exact)
    eps = 2.0**-10 if dtype == "float16" else 2.0**-7
    np.testing.assert_allclose(host(y).astype(np.float64), host(z), rtol=eps, atol=eps)
    weights = rng.normal(size=values.shape)
    y.backward(Tensor(weights, dtype=dtype))
    z.backward(Tensor(host(Tensor(weights, dtype=dtype)).astype(np.float64)))
    assert x.grad is not None
    assert exact.grad is not None
    right = host(exact.grad)
    np.testing.assert_allclose(
        host(x.grad).astype(np.float64), right, rtol=2 * eps, atol=eps * np.abs(right).max()
    )
    for name in ("running_mean", "running_var"):
        found = getattr(layer, name)
        assert found.dtype == dtypes.as_dtype(dtype)
        wanted = host(getattr(wide, name))
        np.testing.assert_allclose(host(found).astype(np.float64), wanted, rtol=2 * eps)
    mixed = nn.BatchNorm1d(2)
    assert mixed(x).dtype == mixed.running_var.dtype == dtypes.float32
    assert mixed.eval()(x).dtype == dtypes.float32
    assert nn.BatchNorm1d(2, affine=False, track_running_stats=False)(x).dtype == y.dtype


@pytest.mark.parametrize("shape", [(0, 4), (0, 4, 3), (2, 4, 0)])
def test_no_numbers_change_no_statistics(shape: tuple[int, ...]) -> None:
    """As in PyTorch; the batch counts."""
    layer = nn.BatchNorm1d(4)
    x = tg.zeros(shape, requires_grad=True)
    y = layer(x)
    y.sum().backward()
    assert layer.weight is not None
    assert x.grad is not None
    assert layer.weight.grad is not None
    assert y.shape == x.grad.shape == shape
    assert layer.weight.grad.tolist() == layer.running_mean.tolist() == [0.0] * 4
    assert layer.running_var.tolist() == [1.0] * 4
    assert layer.num_batches_tracked.item() == 1


def test_in_a_compiled_step_statistics_go_on(rng: np.random.Generator) -> None:
    layers = [
        nn.BatchNorm2d(3, momentum=None),
        nn.BatchNorm2d(3),
        nn.InstanceNorm2d(3, track_running_stats=True),
    ]
    x = [Tensor(rng.normal(k, 2.0, (4, 3, 5, 5)).astype(np.float32)) for k in range(4)]
    for layer in layers:
        other = type(layer)(3, momentum=layer.momentum, track_running_stats=True)
        step = tg.compile(lambda x, other=other: other(x))
        for batch in x:
            np.testing.assert_allclose(host(step(batch)), host(layer(batch)), rtol=1e-4, atol=1e-5)
        for name, wanted in layer.state_dict().items():
            np.testing.assert_allclose(host(other.state_dict()[name]), host(wanted), rtol=1e-5)


def test_statistics_begin_again(rng: np.random.Generator) -> None:
    for layer in (nn.BatchNorm1d(2), nn.InstanceNorm1d(2, track_running_stats=True)):
        fresh = {name: value.numpy().copy() for name, value in layer.named_buffers()}
        forward = tg.compile(layer)
        x = Tensor(rng.standard_normal((3, 2, 4)).astype("float32"))
        first = forward(x)
        layer.reset_running_stats()
        for name, value in layer.named_buffers():
            np.testing.assert_array_equal(value.numpy(), fresh[name])
        layer.eval()
        np.testing.assert_allclose(forward(x).detach().numpy(), x.numpy(), rtol=1e-4)
        assert first.shape == x.shape
    nn.BatchNorm1d(2, track_running_stats=False).reset_running_stats()


def test_errors() -> None:
    with pytest.raises(ShapeError, match=r"\(N, 4, H, W\), got \(2, 3, 5, 5\)"):
        nn.BatchNorm2d(4)(tg.zeros((2, 3, 5, 5)))
    with pytest.raises(ShapeError, match=r"\(N, 4, D, H, W\)"):
        nn.BatchNorm3d(4)(tg.zeros((2, 4, 5, 5)))
    with pytest.raises(ShapeError, match=r"BatchNorm2d: in training .* more than one number"):
        nn.BatchNorm2d(4)(tg.zeros((1, 4, 1, 1)))
    with pytest.raises(ShapeError, match="more than one number"):
        F.batch_norm(tg.zeros((1, 4)), None, None, training=True)
    with pytest.raises(ShapeError, match=r"\(N, 4, L\) or \(4, L\), got \(3, 5\)"):
        nn.InstanceNorm1d(4)(tg.zeros((3, 5)))
    with pytest.raises(ShapeError, match="each channel of an example"):
        nn.InstanceNorm1d(4)(tg.zeros((3, 4, 1)))
    with pytest.raises(ShapeError, match=r"weight must have one number .* \(3,\); got \(2,\)"):
        F.batch_norm(tg.zeros((4, 3)), None, None, tg.ones(2), training=True)
    with pytest.raises(ValueError, match="running_mean and running_var are needed"):
        F.batch_norm(tg.zeros((4, 3)), None, None)
    with pytest.raises(ValueError, match="both running_mean and running_var"):
        F.instance_norm(tg.zeros((4, 3, 2)), tg.zeros(3))
    with pytest.raises(ValueError, match="do not fall into 3 equal groups"):
        F.group_norm(tg.zeros((2, 4)), 3)
    with pytest.raises(ValueError, match="num_features must be a positive integer"):
        nn.BatchNorm2d(0)
    model = nn.Sequential(nn.InstanceNorm2d(3), nn.BatchNorm2d(4))
    with pytest.raises(nn.ModelError, match="num_features=3 here"):
        model.check((2, 3, 5, 5))
    assert nn.Sequential(nn.InstanceNorm2d(3), nn.BatchNorm2d(3)).check((2, 3, 5, 5))
