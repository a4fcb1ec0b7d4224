"""Convolutions against PyTorch: random options, orders of gradients, layouts, dtypes, tiles."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

import tensorgrad as tg
from tensorgrad import Tensor
from tensorgrad.autograd import grad
from tensorgrad.nn import functional as F  # noqa: N812
from tensorgrad.ops import correlation

torch: Any = pytest.importorskip("torch", reason="compares with PyTorch")

Array = np.ndarray[Any, Any]


def laid_out(a: Array, rng: np.random.Generator) -> Array:
    """The same numbers, in another order of memory or with gaps."""
    kind = rng.integers(3)
    if kind == 0:
        return a
    if kind == 1:
        order = rng.permutation(a.ndim)
        return a.transpose(order).copy().transpose(np.argsort(order))
    big = np.full([2 * n for n in a.shape], np.nan)
    view = big[(slice(None, None, -2),) * a.ndim]
    view[...] = a
    return view


def some_call(rng: np.random.Generator, transpose: bool) -> tuple[int, list[Array], dict[str, Any]]:
    """The number of axes, the arrays and the options of a call that makes sense."""
    n = int(rng.integers(1, 4))

    def each(low: int, high: int) -> Any:
        found = [int(k) for k in rng.integers(low, high, n)]
        return found[0] if rng.random() < 0.3 else tuple(found)

    groups = int(rng.integers(1, 4))
    kernel = tuple(int(k) for k in rng.integers(1, 4, n))
    options = {"stride": each(1, 4), "dilation": each(1, 3), "groups": groups}
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, np.broadcast_to(options["dilation"], n))]
    options["padding"] = each(0, 3)
    if transpose:
        more = np.maximum(np.broadcast_to(options["stride"], n), options["dilation"])
        options["output_padding"] = tuple(int(rng.integers(0, m)) for m in more)
        options["padding"] = tuple(int(rng.integers(0, span // 2 + 1)) for span in spans)
    elif rng.random() < 0.3:
        options["padding"] = "same" if rng.random() < 0.5 else "valid"
        if options["padding"] == "same":
            options["stride"] = 1
    pads = 0 if isinstance(options["padding"], str) else options["padding"]
    sizes = [
        max(1, span - 2 * int(p)) + int(k)
        for span, p, k in zip(spans, np.broadcast_to(pads, n), rng.integers(3, 7, n))
    ]
    c, o, batch = int(rng.integers(1, 4)), int(rng.integers(1, 4)), int(rng.integers(1, 4))
    channels, outputs = (o * groups, c * groups) if transpose else (c * groups, o * groups)
    arrays = [
        rng.standard_normal((batch, channels, *sizes)),
        rng.standard_normal((o * groups, c, *kernel)),
        rng.standard_normal(outputs),
    ]
    if rng.random() < 0.2:
        arrays[0] = arrays[0][0]
    return n, arrays, options


def close(found: Any, wanted: Any, tolerance: float = 1e-10) -> None:
    a, b = found.detach().numpy(), wanted.detach().numpy()
    assert a.shape == b.shape
    np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1.0, np.abs(b).max(initial=0)))


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("transpose", [False, True], ids=["conv", "conv_transpose"])
def test_values_and_gradients_of_two_orders_are_those_of_pytorch(transpose: bool) -> None:
    for seed in range(40):
        rng = np.random.default_rng(seed)
        n, arrays, options = some_call(rng, transpose)
        name = f"conv{'_transpose' if transpose else ''}{n}d"
        ours = [Tensor(laid_out(a, rng), requires_grad=True) for a in arrays]
        theirs = [torch.tensor(a, requires_grad=True) for a in arrays]
        y, z = getattr(F, name)(*ours, **options), getattr(torch.nn.functional, name)(
            *theirs, **options
        )  # fmt: skip
        close(y, z)
        w = rng.standard_normal(tuple(z.shape))
        first = grad((y * Tensor(w)).sum(), ours, create_graph=True)
        known = torch.autograd.grad((z * torch.tensor(w)).sum(), theirs, create_graph=True)
        for a, b in zip(first, known, strict=True):
            close(a, b)
        if not transpose or seed % 4 == 0:
            second = grad(sum((g * g * g).sum() for g in first[:2]), ours[:2])
            wanted = torch.autograd.grad(sum((g * g * g).sum() for g in known[:2]), theirs[:2])
            for a, b in zip(second, wanted, strict=True):
                close(a, b, 1e-9)


# --- layouts of memory, types, sizes --------------------------------------------------------------


def test_tiles_of_any_size_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    calls = [some_call(rng, transpose) for transpose in (False, True) for _ in range(12)]

    def results() -> list[Any]:
        found = []
        for k, (n, arrays, options) in enumerate(calls):
            xs = [Tensor(a, requires_grad=True) for a in arrays]
            y = getattr(F, f"conv{'_transpose' if k >= 12 else ''}{n}d")(*xs, **options)
            found += [y, *grad((y * y).sum(), xs)]
        return found

    whole = results()
    monkeypatch.setattr(correlation, "_SMALL", 60)
    monkeypatch.setattr(correlation, "_ENOUGH", 1)
    for positions in (1, 5):
        monkeypatch.setattr(correlation, "_POSITIONS", positions)
        for a, b in zip(results(), whole, strict=True):
            close(a, b)


def test_columns_of_a_tile_are_bounded() -> None:
    """Memory does not grow with the batch beyond that of the result."""
    x, w = tg.ones((32, 8, 64, 64), dtype="float32"), tg.ones((8, 8, 5, 5), dtype="float32")
    F.conv2d(x, w, padding=2)
    tracemalloc.start()
    y = F.conv2d(x, w, padding=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    columns = 25 * x.data.nbytes
    assert peak < y.data.nbytes + columns / 20


def test_infinite_and_undefined_numbers_reach_what_they_reach_in_pytorch() -> None:
    rng = np.random.default_rng(1)
    x, w = rng.standard_normal((2, 2, 9, 8)), rng.standard_normal((3, 2, 3, 3))
    for bad in (np.inf, np.nan):
        for at in ((0, 1, 0, 0), (1, 0, 8, 7), (0, 0, 2, 3)):
            x[at] = bad
            ours, theirs = Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
            weight, other = Tensor(w, requires_grad=True), torch.tensor(w, requires_grad=True)
            y = F.conv2d(ours, weight, padding=1)
            z = torch.nn.functional.conv2d(theirs, other, padding=1)
            np.testing.assert_allclose(y.detach().numpy(), z.detach().numpy(), atol=1e-12)
            g = rng.standard_normal(y.shape)
            found = grad(y, [ours, weight], Tensor(g))
            z.backward(torch.tensor(g))
            np.testing.assert_allclose(found[0].numpy(), theirs.grad.numpy(), atol=1e-12)
            np.testing.assert_allclose(found[1].numpy(), other.grad.numpy(), atol=1e-11)
            x[at] = 0.5


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_16_bit_floats_are_computed_in_float32(dtype: str) -> None:
    rng = np.random.default_rng(2)
    x = Tensor(rng.standard_normal((2, 4, 6, 5)), dtype=dtype, requires_grad=True)
    w = Tensor(rng.standard_normal((6, 2, 3, 3)), dtype=dtype, requires_grad=True)
    wide = [t.detach().float().requires_grad_() for t in (x, w)]
    y, z = (F.conv2d(a, b, stride=2, padding=1, groups=2) for a, b in ((x, w), wide))
    assert str(y.dtype) == dtype
    np.testing.assert_array_equal(y.detach().numpy(), z.detach().astype(dtype).numpy())
    found, wanted = grad(y.sum(), [x, w]), grad(z.sum(), wide)
    for a, b in zip(found, wanted, strict=True):
        assert str(a.dtype) == dtype
        np.testing.assert_array_equal(a.numpy(), b.astype(dtype).numpy())


@pytest.mark.parametrize("shape", [(0, 2, 5, 4), (2, 2, 5, 4)])
def test_an_empty_batch_has_zero_gradients(shape: tuple[int, ...]) -> None:
    x, w = tg.ones(shape, requires_grad=True), tg.ones((3, 2, 2, 2), requires_grad=True)
    b = tg.ones((3,), requires_grad=True)
    y = F.conv2d(x, w, b)
    assert y.shape == (shape[0], 3, 4, 3)
    y.sum().backward()
    assert w.grad is not None
    assert b.grad is not None
    assert (w.grad.numpy() == 12 * shape[0]).all()
    assert (b.grad.numpy() == 12 * shape[0]).all()


# --- what does not fit ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, w: F.conv2d(x[0, 0], w), r"must have shape \(N, C, H, W\)"),
        (lambda x, w: F.conv2d(x, w[0]), r"weight must have shape \(out, in / groups, \*kernel\)"),
        (lambda x, w: F.conv2d(x[:, :1], w), "must have 2 channels"),
        (lambda x, w: F.conv2d(x, w, groups=2), "axis 0 of the weight must be divisible"),
        (lambda x, w: F.conv2d(x, w, x[0, 0, 0]), r"bias must have shape \(3,\)"),
        (lambda x, w: F.conv2d(x[:, :, :1], w), "must fit into the padded input"),
        (lambda x, w: F.conv2d(x, w, padding="half"), 'padding must be "same", "valid"'),
        (lambda x, w: F.conv2d(x, w, padding="same", stride=2), "needs stride 1"),
        (lambda x, w: F.conv2d(x, w, stride=0), "stride must be an integer"),
        (lambda x, w: F.conv2d(x, w, dilation=(1, 2, 3)), "dilation must be an integer"),
        (lambda x, w: F.conv2d(x, w, padding=-1), "padding must be an integer"),
        (lambda x, w: F.conv_transpose2d(x, w), "must have 3 channels"),
        (
            lambda x, w: F.conv_transpose2d(x, w.swapaxes(0, 1), output_padding=1),
            "output_padding must be smaller",
        ),
        (
            lambda x, w: F.conv_transpose2d(x, w.swapaxes(0, 1), padding=9),
            "must leave something of the result",
        ),
        (lambda x, w: F.unfold(x, 9), "must fit into the padded input"),
        (lambda x, w: F.fold(x[0], 4, 2), r"must have shape \(N, C \* 4, 9\)"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_would(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(tg.ones((2, 2, 4, 5)), tg.ones((3, 2, 3, 2)))


# --- pad ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
def test_pad_is_that_of_pytorch(mode: str) -> None:
    rng = np.random.default_rng(3)
    for n in (1, 2, 3):
        for _ in range(6):
            shape = (2, 3, *(int(k) for k in rng.integers(3, 6, n)))
            ends = tuple(int(k) for k in rng.integers(-1, 3, 2 * n))
            value = float(rng.standard_normal()) if mode == "constant" else None
            x = rng.standard_normal(shape)
            ours, theirs = Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
            y = F.pad(ours, ends, mode, value)
            z = torch.nn.functional.pad(theirs, ends, mode, value)
            close(y, z)
            g = rng.standard_normal(y.shape)
            (found,) = grad((y * Tensor(g)).sum(), [ours])
            z.backward(torch.tensor(g))
            close(found, theirs.grad)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (((1,),), "two integers for each axis"),
        (((1, 1) * 5,), "two integers for each axis"),
        (((1.5, 1),), "two integers for each axis"),
        (((1, 1), "mirror"), "mode must be one of"),
        (((3, 0), "reflect"), "at most 2 elements"),
        (((4, 0), "circular"), "at most 3 elements"),
        (((-2, -2),), "takes away more than axis"),
        (((1, 1), "reflect", 2.0), "adds no value"),
    ],
)
def test_pad_refuses(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        F.pad(tg.ones((2, 2, 3)), *options)
