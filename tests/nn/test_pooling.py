"""Pools against PyTorch with random options: values, places, first and second gradients; edges."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import Tensor, nn
from tensorgrad.autograd import grad
from tensorgrad.errors import ShapeError
from tensorgrad.nn import functional as F  # noqa: N812

Array = np.ndarray[Any, Any]
Options = dict[str, Any]


def leaves(a: Array, torch: Any) -> tuple[Tensor, Any]:
    return Tensor(a, requires_grad=True), torch.tensor(a, requires_grad=True)


def assert_close(ours: Tensor, theirs: Any, rtol: float = 1e-10) -> None:
    assert ours.shape == tuple(theirs.shape)
    np.testing.assert_allclose(
        ours.detach().numpy(), theirs.detach().numpy(), rtol=rtol, atol=1e-11
    )


def like_torch(
    torch: Any, a: Array, ours: Callable[[Any], Any], theirs: Callable[[Any], Any]
) -> None:
    """Values, places if there are some, first and second gradients, in float64."""
    x, z = leaves(a, torch)
    found, wanted = ours(x), theirs(z)
    if isinstance(wanted, tuple):
        np.testing.assert_array_equal(found[1].numpy(), wanted[1].numpy())
        assert found[1].dtype == tg.int64
        found, wanted = found[0], wanted[0]
    assert_close(found, wanted)
    weights = np.random.default_rng(0).normal(size=found.shape)
    g, h = Tensor(weights, requires_grad=True), torch.tensor(weights, requires_grad=True)
    (first,) = grad(found * found, x, g, create_graph=True)
    (first_wanted,) = torch.autograd.grad(wanted * wanted, z, h, create_graph=True)
    assert_close(first, first_wanted)
    seconds = grad((first * first).sum(), (x, g))
    seconds_wanted = torch.autograd.grad((first_wanted**2).sum(), (z, h))
    for a_second, b_second in zip(seconds, seconds_wanted, strict=True):
        assert_close(a_second, b_second, 1e-9)


def drawn(rng: np.random.Generator, n: int) -> tuple[Array, Options]:
    """An input and the options of windows that fit into it, each as a number or as several."""

    def option(low: int, high: int) -> Any:
        values = tuple(int(v) for v in rng.integers(low, high + 1, n))
        return values if rng.random() < 0.6 else values[0]

    while True:
        options: Options = {"kernel_size": option(1, 4)}
        if rng.random() < 0.7:
            options["stride"] = option(1, 4)
        if rng.random() < 0.6:
            options["padding"] = option(0, 2)
        options["ceil_mode"] = bool(rng.random() < 0.5)
        sizes = [int(v) for v in rng.integers(4, 9, n)]
        kernel = np.broadcast_to(options["kernel_size"], n)
        if all(np.broadcast_to(options.get("padding", 0), n) <= kernel // 2):
            break
    lead = [2, 3] if rng.random() < 0.7 else [2]
    a = rng.normal(size=[*lead, *sizes])
    if rng.random() < 0.5:  # ties
        a = np.round(a)
    return a, options


@pytest.mark.parametrize("n", [1, 2, 3])
def test_random_options_like_torch(n: int) -> None:
    torch: Any = pytest.importorskip("torch")
    theirs = torch.nn.functional
    rng = np.random.default_rng(n)
    for _ in range(40 // n):
        a, options = drawn(rng, n)
        ceil, kernel = options["ceil_mode"], options["kernel_size"]
        counted = {**options, "count_include_pad": bool(rng.random() < 0.5)}
        if n > 1 and rng.random() < 0.3:
            counted["divisor_override"] = int(rng.integers(1, 7))
        dilated = {**options, "dilation": int(rng.integers(1, 3)), "return_indices": True}
        lp = {"norm_type": 2.0, "kernel_size": kernel, "ceil_mode": ceil}
        if n == 1 and isinstance(kernel, tuple):
            lp["kernel_size"] = kernel[0]
        cases = {"avg_pool": counted, "max_pool": dilated, "lp_pool": lp}
        for name, given in cases.items():
            if name == "lp_pool":
                a = a + 0.03  # where all are zero PyTorch's second gradient is NaN
            try:
                there = functools.partial(getattr(theirs, f"{name}{n}d"), **given)
                there(torch.tensor(a))
            except RuntimeError:  # no window fits
                with pytest.raises((ShapeError, ValueError)):
                    getattr(F, f"{name}{n}d")(Tensor(a), **given)
                continue
            like_torch(torch, a, functools.partial(getattr(F, f"{name}{n}d"), **given), there)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_adaptive_pools_like_torch(n: int) -> None:
    torch: Any = pytest.importorskip("torch")
    rng = np.random.default_rng(n)
    for _ in range(24 // n):
        a, _ = drawn(rng, n)
        sizes: list[int | None] = [int(v) for v in rng.integers(1, 10, n)]
        if n > 1 and rng.random() < 0.3:
            sizes[0] = None
        size: Any = tuple(sizes) if n > 1 else sizes[0]
        for name, more in (("adaptive_avg_pool", ()), ("adaptive_max_pool", (True,))):
            like_torch(
                torch,
                a,
                lambda x: getattr(F, f"{name}{n}d")(x, size, *more),  # noqa: B023
                lambda x: getattr(torch.nn.functional, f"{name}{n}d")(x, size, *more),  # noqa: B023
            )


@pytest.mark.parametrize("n", [1, 2, 3])
def test_unpooling_like_torch(n: int) -> None:
    torch: Any = pytest.importorskip("torch")
    rng = np.random.default_rng(n)
    for options in ({}, {"stride": 3}, {"padding": 1}):
        a = rng.normal(size=(2, 3, *[9, 6, 7][:n]))
        y, places = torch.nn.functional.__dict__[f"max_pool{n}d"](
            torch.tensor(a), 3, return_indices=True, **options
        )
        where = Tensor(places.numpy())
        for size in (None, a.shape[2:], a.shape):
            given = (3, options.get("stride"), options.get("padding", 0), size)
            if size is None and (places.amax() >= np.prod(_least(y.shape[2:], options))):
                continue
            like_torch(
                torch,
                y.numpy(),
                lambda x: getattr(F, f"max_unpool{n}d")(x, where, *given),  # noqa: B023
                lambda x: getattr(torch.nn.functional, f"max_unpool{n}d")(x, places, *given),  # noqa: B023
            )


def _least(sizes: Any, options: Options) -> list[int]:
    stride, padding = options.get("stride", 3), options.get("padding", 0)
    return [(m - 1) * stride - 2 * padding + 3 for m in sizes]


# --- which element is the largest -----------------------------------------------------------------


def steps(executor: str | None) -> Callable[[Any], Any]:
    """Runs a function as it is, or compiled and replayed."""

    def run(f: Callable[..., Any]) -> Any:
        if executor is None:
            return f
        compiled = tg.compile(f, executor=executor)

        def replayed(*args: Tensor) -> Any:
            compiled(*args)
            return compiled(*args)

        return replayed

    return run


SPECIAL = [
    [[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.0]],
    [[-np.inf, -np.inf, -np.inf, 2.0], [-np.inf, -np.inf, 2.0, 2.0]],
    [[np.nan, 3.0, 4.0, np.inf], [3.0, 3.0, np.nan, 1.0]],
    [[1.0, np.nan, np.nan, np.nan], [np.nan, 5.0, np.inf, -1.0]],
]


@pytest.mark.parametrize("executor", [None, "numpy", "auto"])
@pytest.mark.parametrize("options", [(2,), (2, 1), (3, 1, 1), (2, 2, 1)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("examples", [1, 2], ids=["numbers", "NaN"])
def test_the_first_largest_takes_the_whole_gradient(
    examples: int, dtype: str, options: tuple[int, ...], executor: str | None
) -> None:
    torch: Any = pytest.importorskip("torch")
    a = np.array(SPECIAL, dtype).reshape(2, 2, 2, 4).repeat(2, axis=2)[:examples]
    x, z = Tensor(a, requires_grad=True), torch.tensor(a, requires_grad=True)

    def step(x: Tensor) -> Any:
        x.grad = None
        y, places = F.max_pool2d(x, *options, return_indices=True)
        y.backward(tg.ones_like(y))
        return y.detach(), places

    y, places = steps(executor)(step)(x)
    wanted, there = torch.nn.functional.max_pool2d(z, *options, return_indices=True)
    wanted.backward(torch.ones_like(wanted))
    np.testing.assert_array_equal(y.numpy(), wanted.detach().numpy())
    np.testing.assert_array_equal(places.numpy(), there.numpy())
    assert x.grad is not None
    np.testing.assert_array_equal(x.grad.numpy(), z.grad.numpy())


def test_padding_is_never_the_largest() -> None:
    """Though it is minus infinity, and so may be all of the input."""
    x = Tensor(np.full((1, 1, 3, 3), -np.inf), requires_grad=True)
    y, places = F.max_pool2d(x, 3, 2, 1, return_indices=True)
    assert places.tolist() == [[[[0, 1], [3, 4]]]]
    y.backward(tg.ones_like(y))
    assert x.grad is not None
    assert x.grad.sum().item() == 4.0
    whole = Tensor(np.array([[[5, -7, 2], [1, 9, 0]]], np.int64))
    assert F.max_pool1d(-whole, 3, 1, 1).tolist() == [[[7, 7, 7], [-1, 0, 0]]]


def test_windows_of_any_size() -> None:
    """More elements than a byte can number, and a window for each element of a large image."""
    torch: Any = pytest.importorskip("torch")
    a = np.random.default_rng(0).integers(0, 90, (2, 1, 700)).astype(np.float64)
    options: Options = {"kernel_size": 301, "stride": 7, "padding": 9, "return_indices": True}
    like_torch(
        torch,
        a,
        functools.partial(F.max_pool1d, **options),
        functools.partial(torch.nn.functional.max_pool1d, **options),
    )
    b = a.reshape(1, 1, 40, 35)
    options = {"kernel_size": (5, 6), "stride": 1, "padding": (2, 3), "return_indices": True}
    like_torch(
        torch,
        b,
        functools.partial(F.max_pool2d, **options),
        functools.partial(torch.nn.functional.max_pool2d, **options),
    )


# --- layouts, types, sizes ------------------------------------------------------------------------


def test_the_layout_of_the_input_does_not_matter(rng: np.random.Generator) -> None:
    a = rng.normal(size=(4, 6, 5, 6)).astype(np.float32)
    views = [a.transpose(0, 3, 1, 2), a[::-2, ::2, ::-1], np.broadcast_to(a[:1], (3, 6, 5, 6))]
    each: list[Callable[[Tensor], Tensor]] = [
        lambda x: F.max_pool2d(x, 2),
        lambda x: F.avg_pool2d(x, 3, 2, 1),
        lambda x: F.adaptive_avg_pool2d(x, (3, 2)),
        lambda x: F.adaptive_max_pool2d(x, (3, 4)),
    ]
    for view in views:
        for f in each:
            x = Tensor(view, copy=None, requires_grad=True)
            z = Tensor(np.ascontiguousarray(view), requires_grad=True)
            y, wanted = f(x), f(z)
            np.testing.assert_array_equal(y.detach().numpy(), wanted.detach().numpy())
            (y * y).sum().backward()
            (wanted * wanted).sum().backward()
            assert x.grad is not None
            assert z.grad is not None
            np.testing.assert_allclose(x.grad.numpy(), z.grad.numpy(), rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_halves_are_rounded_once(dtype: str, rng: np.random.Generator) -> None:
    a = Tensor(rng.normal(size=(2, 3, 7, 7)) * 100, dtype=dtype)
    each: list[Callable[[Tensor], Tensor]] = [
        lambda x: F.max_pool2d(x, 3, 2, 1),
        lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
        lambda x: F.adaptive_avg_pool2d(x, (3, 2)),
        lambda x: F.lp_pool2d(x, 2.0, 3),
    ]
    for f in each:
        x = a.detach().clone()
        x.requires_grad = True
        y = f(x)
        assert y.dtype == x.dtype
        np.testing.assert_array_equal(
            y.detach().numpy(), f(a.float()).astype(dtype).detach().numpy()
        )
        y.sum().backward()
        assert x.grad is not None
        assert x.grad.dtype == x.dtype


def test_an_empty_batch() -> None:
    each: list[Callable[[Tensor], Tensor]] = [
        lambda x: F.max_pool2d(x, 2, return_indices=True)[0],
        lambda x: F.avg_pool2d(x, 2),
        lambda x: F.adaptive_avg_pool2d(x, 1),
        lambda x: F.adaptive_avg_pool2d(x, (3, 3)),
        lambda x: F.adaptive_max_pool2d(x, 3),
        lambda x: F.lp_pool2d(x, 2.0, 2),
    ]
    for f in each:
        x = Tensor(np.zeros((0, 3, 4, 4)), requires_grad=True)
        y = f(x)
        assert y.shape[:2] == (0, 3)
        y.sum().backward()
        assert x.grad is not None
        assert x.grad.shape == x.shape


def test_a_norm_over_zeros_has_gradient_zero() -> None:
    x = Tensor(np.zeros((1, 1, 4, 4)), requires_grad=True)
    F.lp_pool2d(x, 2.0, 2).sum().backward()
    assert x.grad is not None
    assert not x.grad.numpy().any()


# --- what does not fit ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: F.max_pool2d(x[0, 0], 2), ShapeError, r"\(N, C, H, W\) or \(C, H, W\); got"),
        (lambda x: F.max_pool2d(x, 7), ShapeError, "a kernel of 7 does not fit into 6 elements"),
        (lambda x: F.max_pool2d(x, 2, padding=2), ValueError, "at most half of the kernel, 1"),
        (lambda x: F.max_pool2d(x, 0), ValueError, "kernel_size must be an integer or 2 of them"),
        (lambda x: F.max_pool2d(x, 2.0), ValueError, "kernel_size must be an integer"),
        (lambda x: F.max_pool2d(x, (2, 2, 2)), ValueError, "one for each axis, from 1"),
        (lambda x: F.max_pool2d(x, 2, 0), ValueError, "stride must be"),
        (lambda x: F.avg_pool2d(x, 2, divisor_override=0), ValueError, "must not be 0"),
        (lambda x: F.lp_pool2d(x, 0.0, 2), ValueError, "norm_type must not be 0"),
        (lambda x: F.adaptive_avg_pool2d(x, 0), ValueError, "output_size must be"),
        (lambda x: F.adaptive_max_pool2d(x, (1, 2, 3)), ValueError, "output_size must be"),
        (lambda x: F.max_unpool2d(x, x[:, :1], 2), ShapeError, "shape of the input"),
        (
            lambda x: F.max_unpool2d(x, x.astype("int64"), 2, output_size=(20, 12)),
            ValueError,
            "less than the stride",
        ),
        (lambda x: nn.MaxPool2d(0), ValueError, "MaxPool2d: kernel_size"),
        (lambda x: nn.AvgPool2d(2, divisor_override=0), ValueError, "AvgPool2d: divisor"),
        (lambda x: nn.AdaptiveMaxPool3d((2, None)), ValueError, "AdaptiveMaxPool3d: output"),
    ],
)
def test_errors(call: Callable[[Tensor], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(Tensor(np.zeros((2, 3, 6, 6), np.float32)))


# --- layers ---------------------------------------------------------------------------------------

LAYERS: dict[str, tuple[tuple[Any, ...], Options]] = {
    "MaxPool": ((3,), {"stride": 2, "padding": 1, "ceil_mode": True}),
    "AvgPool": ((3, 2, 1), {"count_include_pad": False}),
    "LPPool": ((2.0, 3), {"stride": 2}),
    "AdaptiveAvgPool": ((3,), {}),
    "AdaptiveMaxPool": ((2,), {}),
}


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("kind", LAYERS)
def test_layers_like_torch(kind: str, n: int, rng: np.random.Generator) -> None:
    torch: Any = pytest.importorskip("torch")
    args, options = LAYERS[kind]
    ours = getattr(nn, f"{kind}{n}d")(*args, **options)
    theirs = getattr(torch.nn, f"{kind}{n}d")(*args, **options)
    like_torch(torch, rng.normal(size=(2, 3, *[7, 6, 5][:n])), ours, theirs)
    assert repr(ours).split("(")[0] == repr(theirs).split("(")[0]
    assert not list(ours.parameters())


def test_layers_that_pool_and_go_back(rng: np.random.Generator) -> None:
    x = Tensor(rng.normal(size=(2, 3, 6, 6)))
    y, places = nn.MaxPool2d(2, return_indices=True)(x)
    back = nn.MaxUnpool2d(2)(y, places)
    assert back.shape == x.shape
    kept = back.numpy() != 0
    np.testing.assert_array_equal(back.numpy()[kept], x.numpy()[kept])
    assert kept.sum() == y.size


def test_check_says_what_a_pool_wants() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.MaxPool2d(2))
    with pytest.raises(nn.ModelError, match=r"1 \(MaxPool2d\): the input has shape \(5, 4\)"):
        model.check((5, 4))
    with pytest.raises(nn.ModelError, match=r"Fix: nn\.AvgPool3d here"):
        nn.AvgPool2d(2).check((1, 2, 4, 4, 4))
    assert nn.Sequential(nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1)).check((5, 3, 8, 8)) == (
        5, 3, 1, 1,
    )  # fmt: skip


# --- fractional pools -----------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3])
def test_fractional_pools_like_torch(n: int) -> None:
    torch: Any = pytest.importorskip("torch")
    rng = np.random.default_rng(n)
    for ratio in (False, True):
        a = rng.normal(size=(2, 3, *[9, 7, 6][:n]))
        samples = rng.random((2, 3, n))
        size = {"output_ratio": (0.5, 0.6, 0.4)[:n]} if ratio else {"output_size": (4, 3, 4)[:n]}
        options: Options = {"kernel_size": 2, "return_indices": True, **size}
        name = f"fractional_max_pool{n}d"
        ours = functools.partial(getattr(F, name), **options, _random_samples=samples)
        theirs = functools.partial(
            getattr(torch.nn.functional, name), **options, _random_samples=torch.tensor(samples)
        )
        like_torch(torch, a, ours, theirs)


@pytest.mark.parametrize("executor", [None, "numpy", "auto"])
def test_fractional_pools_draw_again(executor: str | None) -> None:
    """Each time other windows, of which the outermost reach the ends; the same by a seed."""
    x = Tensor(np.arange(400.0).reshape(1, 1, 20, 20))
    layer = nn.FractionalMaxPool2d(2, output_size=6, generator=tg.Generator(3))
    run = layer if executor is None else tg.compile(layer.forward, executor=executor)
    found = [run(x).numpy().copy() for _ in range(4)]
    assert not all((y == found[0]).all() for y in found)
    for y in found:
        assert y[0, 0, -1, -1] == 399
        assert (np.diff(y, axis=-1) > 0).all()
    layer.generator.seed(3)
    np.testing.assert_array_equal(layer(x).numpy(), found[0])
    with pytest.raises(ValueError, match="either output_size or output_ratio"):
        nn.FractionalMaxPool2d(2)
    with pytest.raises(ShapeError, match="do not fit into"):
        F.fractional_max_pool2d(x, 3, 19)
    with pytest.raises(ValueError, match="between 0 and 1"):
        F.fractional_max_pool2d(x, 3, output_ratio=1.5)
    with pytest.raises(ShapeError, match=r"shape \(N, C, 2\)"):
        F.fractional_max_pool2d(x, 3, 5, _random_samples=[[0.5]])
