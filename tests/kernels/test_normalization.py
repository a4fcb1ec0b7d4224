"""kernels/normalization.cu: layer norm and RMS norm against float64 NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernel_devices import FLOATS, Cuda, as_float64, assert_close

import tensorgrad as tg
from tensorgrad import nn
from tensorgrad.backend.launch import common
from tensorgrad.nn import functional

SHAPES = [(5, 1), (7, 31), (4, 32), (70, 33), (3, 200), (6, 257), (5, 1000), (2, 4099),
          (3, 5000), (2, 8200)]  # fmt: skip
SEEN: dict[str, bytes] = {}
Array = np.ndarray[Any, Any]


def exact(name: str, x: Array, w: Array, g: Array, eps: float) -> tuple[Array, Array, Array]:
    """z, so that the value is z * w + b; the gradient of x; and that of w before it is summed."""
    center = x.mean(-1, keepdims=True) if name == "layer_norm" else 0.0
    scale = 1 / np.sqrt(((x - center) ** 2).mean(-1, keepdims=True) + eps)
    z = (x - center) * scale
    h = g * w
    d = h - z * (h * z).mean(-1, keepdims=True)
    if name == "layer_norm":
        d -= h.mean(-1, keepdims=True)
    return z, scale * d, g * z


def check(
    cuda: Cuda, name: str, dtype: str, shape: tuple[int, int], rng: Any, offset: int = 0,
    affine: bool = True, eps: float = 1e-5,
) -> list[Any]:  # fmt: skip
    rows, columns = shape
    x = cuda.tensor(rng.normal(0.5, 1.5, shape), dtype, offset, requires_grad=True)
    g = cuda.tensor(rng.normal(size=shape), dtype, offset)
    parameters = [
        cuda.tensor(rng.uniform(0.5, 1.5, columns), dtype, offset, requires_grad=True)
        for _ in range(2 if name == "layer_norm" else 1)
    ]
    if not affine:
        parameters = []
    y = getattr(functional, name)(x, (columns,), *parameters, eps=eps)
    y.backward(g)
    numbers = [as_float64(p) for p in parameters]
    w = numbers[0] if affine else np.ones(columns)
    b = numbers[1] if len(numbers) == 2 else 0.0
    z, dx, dw = exact(name, as_float64(x), w, as_float64(g), eps)
    # of a row of one or two numbers that nearly agree, their difference is all that counts
    spread = 1.0 if columns > 2 else 40.0
    assert_close(y, z * w + b, dtype, rounding=8, scale=2.0 * spread)
    assert x.grad is not None
    large = float(np.abs(dx).max(initial=1.0))
    assert_close(x.grad, dx, dtype, rounding=12, scale=large * spread)
    if affine:
        size = 4.0 * rows**0.5
        assert_close(parameters[0].grad, dw.sum(0), dtype, rounding=8, scale=size)
        if len(parameters) == 2:
            assert_close(parameters[1].grad, as_float64(g).sum(0), dtype, rounding=8, scale=size)
    return [y, x.grad, *[p.grad for p in parameters]]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", ["layer_norm", "rms_norm"])
def test_value_and_gradients(
    cuda: Cuda, name: str, dtype: str, shape: tuple[int, int], rng: np.random.Generator
) -> None:
    if shape[1] > 1000 and dtype in ("bfloat16", "float64"):
        pytest.skip("long rows in two dtypes are enough")
    check(cuda, name, dtype, shape, rng)
    held = 4096 if dtype != "float64" else 2048
    kinds = {
        k.removeprefix(f"{name}_backward_"): n for k, n in cuda.launched.items() if "back" in k
    }
    wide = shape[1] % 8 == 0 and dtype != "float64" and held // 2 < shape[1] <= 2 * held
    if shape[1] <= held // 16:
        assert kinds == {"short": 1}
    elif wide:
        assert kinds == {"wide": 1}
    else:
        assert kinds == ({"row": 1} if shape[1] <= held else {"long": 1, "apply": 1})
    values = {k.removeprefix(f"{name}_forward_") for k in cuda.launched if "forward" in k}
    if shape[1] <= 2 * held:
        assert values == {"short" if shape[1] <= held // 16 else "row"}
    else:
        assert values == {"parts", "long"}
    sums = {k: n for k, n in cuda.launched.items() if k.startswith("sum")}
    assert sums == {"sum_strips_of_two" if name == "layer_norm" else "sum_strips": 1}


@pytest.mark.parametrize("columns", [32, 304, 5000])
@pytest.mark.parametrize("name", ["layer_norm", "rms_norm"])
def test_unaligned_and_without_parameters(
    cuda: Cuda, name: str, columns: int, rng: np.random.Generator
) -> None:
    check(cuda, name, "float32", (3, columns), rng, offset=1)
    check(cuda, name, "float16", (3, columns), rng, affine=False)


def test_65537_columns(cuda: Cuda, rng: np.random.Generator) -> None:
    check(cuda, "layer_norm", "float32", (2, 65_537), rng)


@pytest.mark.parametrize("columns", [5, 300, 4101])
def test_steps_through_the_grid(
    cuda: Cuda, columns: int, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    monkeypatch.setattr(common, "MOST_BLOCKS", 2)
    check(cuda, "layer_norm", "float32", (150 if columns < 100 else 7, columns), rng)
    check(cuda, "rms_norm", "float32", (7, columns), rng)


def test_large_mean_small_deviation(cuda: Cuda, rng: np.random.Generator) -> None:
    """Deviations are squared about the mean, and not subtracted from the mean of squares."""
    for columns in (64, 500, 9000):
        x = cuda.tensor(1000 + rng.normal(size=(3, columns)) * 0.01)
        y = functional.layer_norm(x, (columns,))
        z = exact("layer_norm", as_float64(x), np.ones(columns), np.ones(columns), 1e-5)[0]
        np.testing.assert_allclose(as_float64(y), z, atol=2e-2)


def test_constant_rows(cuda: Cuda) -> None:
    """eps alone keeps the divisor from 0."""
    x = cuda.tensor(np.full((2, 40), 3.0), requires_grad=True)
    y = functional.layer_norm(x, (40,))
    y.sum().backward()
    assert x.grad is not None
    assert as_float64(y).tolist() == as_float64(x.grad).tolist() == [[0.0] * 40] * 2


def test_only_what_is_needed(cuda: Cuda, rng: np.random.Generator) -> None:
    x = cuda.tensor(rng.normal(size=(4, 16)), requires_grad=True)
    functional.layer_norm(
        x, (16,), cuda.tensor(np.ones(16)), cuda.tensor(np.ones(16))
    ).sum().backward()
    assert not [k for k in cuda.launched if k.startswith("sum")]
    weight = cuda.tensor(np.ones(16), requires_grad=True)
    cuda.launched.clear()
    functional.rms_norm(x.detach(), (16,), weight).sum().backward()
    z = exact("rms_norm", as_float64(x), np.ones(16), np.ones(16), 2.0**-23)[0]
    assert_close(weight.grad, z.sum(0), "float32", scale=2.0)
    bias = cuda.tensor(np.ones(16), requires_grad=True)
    functional.layer_norm(x.detach(), (16,), None, bias).sum().backward()
    assert as_float64(bias.grad).tolist() == [4.0] * 16


def test_layouts_and_several_axes(cuda: Cuda, rng: np.random.Generator) -> None:
    x = cuda.tensor(rng.normal(size=(6, 4, 5)))
    for view in (x, x[::-1], x.permute_dims((2, 1, 0)).permute_dims((2, 1, 0))):
        y = functional.layer_norm(view, (4, 5))
        flat = as_float64(view).reshape(6, 20)
        z = exact("layer_norm", flat, np.ones(20), np.ones(20), 1e-5)[0]
        assert_close(y, z.reshape(6, 4, 5), "float32", rounding=8, scale=1.0)


def test_same_bits_every_time(cuda: Cuda) -> None:
    """Under every schedule of the threads."""
    rng = np.random.default_rng(3)
    for columns in (24, 600):
        parts = check(cuda, "layer_norm", "float32", (300, columns), rng)
        if not cuda.real:
            found = b"".join(p.detach().cpu().numpy().tobytes() for p in parts)
            assert SEEN.setdefault(str(columns), found) == found


def test_higher_orders_and_switching_off(cuda: Cuda, monkeypatch: pytest.MonkeyPatch) -> None:
    """The residual is what the rules know, whoever computed it."""
    from tensorgrad.backend.cuda import load

    rng = np.random.default_rng(0)
    x = cuda.tensor(rng.normal(size=(3, 6)), "float64", requires_grad=True)
    y = functional.layer_norm(x, (6,))
    with monkeypatch.context() as patch:
        patch.setattr(load(), "kernels", False)
        (ruled,) = tg.autograd.grad(y.square().sum(), x, retain_graph=True)
    (first,) = tg.autograd.grad(y.square().sum(), x, create_graph=True)
    np.testing.assert_allclose(as_float64(first), as_float64(ruled), rtol=1e-12, atol=1e-12)
    (second,) = tg.autograd.grad(first.square().sum(), x)
    z = tg.tensor(as_float64(x), dtype=tg.float64, requires_grad=True)
    (other,) = tg.autograd.grad(functional.layer_norm(z, (6,)).square().sum(), z, create_graph=True)
    (expected,) = tg.autograd.grad(other.square().sum(), z)
    np.testing.assert_allclose(as_float64(second), as_float64(expected), rtol=1e-9, atol=1e-12)


def test_modules(cuda: Cuda, rng: np.random.Generator) -> None:
    x = cuda.tensor(rng.normal(size=(4, 8)))
    for module in (nn.LayerNorm(8), nn.RMSNorm(8), nn.LayerNorm((8,), bias=False)):
        expected = as_float64(module(x.cpu()))
        found = module.to("cuda")(x)
        np.testing.assert_allclose(as_float64(found), expected, rtol=1e-5, atol=1e-6)
