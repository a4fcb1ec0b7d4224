"""The activations beside the first ones, and their modules, against PyTorch in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sampler import host

import tensorgrad as tg
from tensorgrad import Tensor, dtypes, nn
from tensorgrad.errors import ShapeError
from tensorgrad.nn import functional as F  # noqa: N812
from tensorgrad.ops.random import Generator

#: The module, its arguments, and the shape of an input if not (4, 6).
MODULES: list[tuple[str, dict[str, Any], tuple[int, ...]]] = [
    ("CELU", {}, (4, 6)), ("CELU", {"alpha": -0.5}, (4, 6)), ("CELU", {"alpha": 2.0}, ()),
    ("GLU", {}, (4, 6)), ("GLU", {"axis": 0}, (4, 6)), ("GLU", {"axis": 1}, (2, 4, 3)),
    ("Hardshrink", {}, (4, 6)), ("Hardshrink", {"lambd": -1.0}, (4, 6)),
    ("Hardsigmoid", {}, (4, 6)), ("Hardswish", {}, (4, 6)), ("LogSigmoid", {}, (4, 6)),
    ("PReLU", {}, (4, 6)), ("PReLU", {}, ()), ("PReLU", {}, (5,)),
    ("PReLU", {"num_parameters": 6}, (4, 6)), ("PReLU", {"num_parameters": 4}, (2, 4, 3, 2)),
    ("PReLU", {"init": -0.5}, (4, 6)), ("ReLU6", {}, (4, 6)),
    ("Softmax2d", {}, (2, 3, 4, 2)), ("Softmax2d", {}, (3, 4, 2)), ("Softmin", {"axis": 0}, (4, 6)),
    ("Softplus", {"beta": 3.0, "threshold": 0.5}, (4, 6)), ("Softplus", {"beta": 0.5}, (4, 6)),
    ("Softplus", {"beta": -2.0}, (4, 6)), ("Softplus", {"threshold": 1.0}, (4, 6)),
    ("Softshrink", {}, (4, 6)), ("Softshrink", {"lambd": 0.0}, (4, 6)), ("Softsign", {}, (4, 6)),
    ("Tanhshrink", {}, (4, 6)), ("Threshold", {"threshold": -1.0, "value": 7.0}, (4, 6)),
]  # fmt: skip


def at_kinks(values: Any, rng: np.random.Generator) -> Any:
    """Some numbers become those at which the functions have kinks."""
    kinks = np.array([0.0, -0.0, 3.0, -3.0, 0.5, -0.5, 6.0, -1.0, 1.0])
    chosen = rng.random(values.shape) < 0.4
    return np.where(chosen, rng.choice(kinks, values.shape), values)


@pytest.mark.parametrize(("name", "options", "shape"), MODULES)
def test_modules_are_pytorchs(
    name: str, options: dict[str, Any], shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    """Values, first gradients at kinks, too, second ones, parameters and ``repr``."""
    torch: Any = pytest.importorskip("torch")
    ours = getattr(nn, name)(**options).double()
    renamed = {"dim" if k == "axis" else k: v for k, v in options.items()}
    theirs = getattr(torch.nn, name)(**renamed).double()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for key, value in theirs.state_dict().items():
        np.testing.assert_array_equal(host(ours.state_dict()[key]), value.numpy())
    values = at_kinks(rng.normal(scale=3.0, size=shape), rng)
    x, z = Tensor(values, requires_grad=True), torch.tensor(values, requires_grad=True)
    mine, other = [x, *ours.parameters()], [z, *theirs.parameters()]
    y, w = ours(x), theirs(z)
    np.testing.assert_allclose(host(y), w.detach().numpy(), rtol=1e-9, atol=1e-11)
    weights = rng.normal(size=y.shape)
    first: Any = tg.autograd.grad(y * y, mine, Tensor(weights), create_graph=True)
    wanted = torch.autograd.grad(w * w, other, torch.tensor(weights), create_graph=True)
    for a, b in zip(first, wanted, strict=True):
        np.testing.assert_allclose(host(a), b.detach().numpy(), rtol=1e-7, atol=1e-9)
    assert repr(ours).startswith(f"{name}(")
    if name == "Hardsigmoid":  # PyTorch has no second gradient of it
        return
    second = tg.autograd.grad(sum((g**2).sum() for g in first), mine)
    right = torch.autograd.grad(sum((g**2).sum() for g in wanted), other)
    for a, b in zip(second, right, strict=True):
        np.testing.assert_allclose(host(a), b.numpy(), rtol=1e-6, atol=1e-8)


def test_slopes_drawn_for_each_element() -> None:
    layer = nn.RReLU(0.1, 0.4, Generator(3))
    x = tg.full((100, 100), -2.0, requires_grad=True)
    y = layer(x)
    slopes = host(y) / -2.0
    assert slopes.min() >= 0.1
    assert slopes.max() <= 0.4
    assert slopes.mean() == pytest.approx(0.25, abs=0.01)
    assert slopes.std() == pytest.approx(0.3 / 12**0.5, abs=0.01)
    y.sum().backward()
    assert x.grad is not None
    np.testing.assert_allclose(host(x.grad), slopes, rtol=1e-6)
    np.testing.assert_array_equal(host(nn.RReLU(0.1, 0.4, Generator(3))(x)), host(y))
    assert layer(tg.ones(3)).tolist() == [1.0] * 3
    np.testing.assert_allclose(host(layer.eval()(x)), -0.5, rtol=1e-6)


def test_slopes_in_a_compiled_step_are_those_of_eager_mode() -> None:
    x = Tensor(np.linspace(-2, 1, 12, dtype=np.float32))
    steps: list[Any] = [lambda x: F.rrelu(x, training=True), lambda x: F.gumbel_softmax(x)]
    for step in steps:
        compiled = tg.compile(step)
        for seed in (1, 2, 1):
            tg.random.seed(seed)
            found = compiled(x)
            tg.random.seed(seed)
            np.testing.assert_allclose(host(found), host(step(x)), rtol=1e-4)


def test_gumbels_choices_have_the_given_probabilities() -> None:
    p = np.array([0.1, 0.2, 0.7])
    logits = Tensor(np.broadcast_to(np.log(p), (20_000, 3)).copy())
    y = F.gumbel_softmax(logits, 0.5, generator=Generator(1))
    np.testing.assert_allclose(host(y).sum(1), 1, rtol=1e-6)
    share = np.bincount(host(y).argmax(1), minlength=3) / 20_000
    np.testing.assert_allclose(share, p, atol=0.015)
    sharp = F.gumbel_softmax(logits, 1e-4, generator=Generator(1))
    assert np.sort(host(sharp), 1)[:, -1].mean() > 0.999


def test_a_hard_choice_has_the_gradient_of_the_soft_one(rng: np.random.Generator) -> None:
    values, weights = rng.normal(size=(2, 5, 7))
    for axis in (0, 1, -1):
        gradients: list[Any] = []
        for hard in (False, True):
            x = Tensor(values, requires_grad=True)
            y = F.gumbel_softmax(x, 0.7, hard, axis, generator=Generator(5))
            if hard:
                assert np.unique(host(y)).tolist() == [0.0, 1.0]
                assert (host(y).sum(axis) == 1).all()
            (y * Tensor(weights)).sum().backward()
            gradients.append(host(x.grad))
        np.testing.assert_allclose(gradients[1], gradients[0], rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_16_bits_are_rounded_once(dtype: str, rng: np.random.Generator) -> None:
    x = Tensor(rng.normal(scale=3.0, size=(4, 6)), dtype=dtype, requires_grad=True)
    eps = 2.0**-11 if dtype == "float16" else 2.0**-8
    functions: list[Any] = [
        F.glu, F.softmin, F.relu6, lambda x: F.rrelu(x, 0.3, 0.3, True),
        lambda x: F.prelu(x, tg.full((6,), 0.3, dtype=x.dtype)), lambda x: F.softplus(x, 3.0),
        lambda x: F.gumbel_softmax(x, generator=Generator(1)),
    ]  # fmt: skip
    for f in functions:
        y, z = f(x), f(x.detach().float())
        assert y.dtype == dtypes.as_dtype(dtype)
        np.testing.assert_allclose(
            host(y).astype(np.float64), host(z), rtol=4 * eps, atol=1e-4 * eps
        )


def test_an_activation_with_options_is_not_taken_for_one_without() -> None:
    """Where it is computed in one pass with the bias before it."""
    model = nn.Sequential(nn.Linear(2, 3), nn.Softplus(2.0))
    x = tg.ones((4, 2))
    np.testing.assert_allclose(host(model(x)), host(F.softplus(model[0](x), 2.0)), rtol=1e-6)


def test_errors() -> None:
    with pytest.raises(ShapeError, match=r"must be even; got shape \(2, 3\)"):
        F.glu(tg.ones((2, 3)))
    with pytest.raises(ShapeError, match=r"the 3 channels in axis 1 .* got shape \(2,\)"):
        F.prelu(tg.ones((2, 3)), tg.ones(2))
    with pytest.raises(ShapeError, match=r"Softmax2d: .* got \(2, 3\)"):
        nn.Softmax2d()(tg.ones((2, 3)))
    refused: list[tuple[Any, str]] = [
        (lambda: F.softshrink(tg.ones(2), -1.0), r"lambd must not be negative; got -1\.0"),
        (lambda: nn.Softshrink(-1.0), "lambd must not be negative"),
        (lambda: F.celu(tg.ones(2), 0.0), "alpha must not be 0"),
        (lambda: nn.CELU(0.0), "alpha must not be 0"),
        (lambda: F.softplus(tg.ones(2), 0.0), "beta must not be 0"),
        (lambda: nn.Softplus(0.0), "beta must not be 0"),
        (lambda: F.rrelu(tg.ones(2), 0.5, 0.1), "lower must not be above upper"),
        (lambda: nn.RReLU(0.5, 0.1), "lower must not be above upper"),
    ]
    for wrong, message in refused:
        with pytest.raises(ValueError, match=message):
            wrong()
    with pytest.raises(ValueError, match="tau must be above 0"):
        F.gumbel_softmax(tg.ones(2), 0.0)
    with pytest.raises(ValueError, match="num_parameters must be a positive integer"):
        nn.PReLU(0)
    with pytest.raises(nn.ModelError, match="num_parameters=3 here"):
        nn.Sequential(nn.PReLU(4)).check((2, 3, 5))
