"""kernels/softmax.cu against float64 NumPy, forward and backward."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernel_devices import FLOATS, Cuda, as_float64, assert_close

import tensorgrad as tg
from tensorgrad.autograd import grad
from tensorgrad.backend.launch import common, rows

Host = np.ndarray[Any, Any]
NAMES = ["softmax", "log_softmax"]
#: rows and columns: lanes of a warp, a block that holds the row (from 129 in float64, from 257
#: else)
SHAPES = [
    (600, 1), (5, 7), (70, 10), (9, 31), (9, 32), (9, 33), (3, 128), (3, 129), (3, 256), (3, 257),
    (3, 1000), (2, 2048), (2, 2049),
]  # fmt: skip
LONG = [(1, 8192), (2, 8193), (1, 8200), (2, 65_537)]
#: by name of the kernel and device: what a run gave, which every other run has to give too
SEEN: dict[tuple[str, bool], list[bytes]] = {}


def reference(name: str, x: Host, axis: int = -1) -> Host:
    """As the row of the table has it, in float64."""
    with np.errstate(all="ignore"):
        z = x - x.max(axis=axis, keepdims=True)
        e = np.exp(z)
        s = e.sum(axis=axis, keepdims=True)
        return e / s if name == "softmax" else z - np.log(s)


def gradient(name: str, g: Host, y: Host, axis: int = -1) -> tuple[Host, Any]:
    """The gradient from the result, and what its terms amount to."""
    if name == "softmax":
        d = y * (g - (g * y).sum(axis=axis, keepdims=True))
        return d, y * (abs(g) + abs(g * y).sum(axis=axis, keepdims=True))
    p = np.exp(y)
    d = g - p * g.sum(axis=axis, keepdims=True)
    return d, abs(g) + p * (1 + abs(y)) * abs(g).sum(axis=axis, keepdims=True)


def check(cuda: Cuda, name: str, x: tg.Tensor, g: tg.Tensor, dtype: str, axis: int = -1) -> None:
    y = getattr(tg, name)(x, axis=axis)
    y.backward(g)
    # 16-bit results are rounded once; others also have the roundings of x - most and of exp
    rounding = 1.01 if dtype in ("float16", "bfloat16") else 8.0
    exact = as_float64(x)
    scale: Any = None
    if name == "log_softmax":
        scale = abs(exact - exact.max(axis=axis, keepdims=True)) + 1.0
    assert_close(y, reference(name, exact, axis), dtype, rounding=rounding, scale=scale)
    d, scale = gradient(name, as_float64(g), as_float64(y), axis)
    assert x.grad is not None
    assert x.grad.dtype == x.dtype
    assert_close(x.grad, d, dtype, rounding=rounding, scale=scale)


def variant(columns: int, dtype: str) -> str:
    """Which of the kernels rows of this length are for, where they are few."""
    tile = 4 if dtype == "float64" else 8
    return "short" if columns <= 32 * tile else "row" if columns <= 1024 * tile else "long"


def launches(name: str, columns: int, dtype: str) -> dict[str, int]:
    """What a value and a gradient launch, where rows are few."""
    kind = variant(columns, dtype)
    found = {f"{name}_forward_{kind}": 1, f"{name}_backward_{kind}": 1}
    if kind == "long" and columns >= 2 * 512 * (4 if dtype == "float64" else 8):
        found |= {"exponentials_parts": 1, f"{name}_backward_parts": 1}
    return found


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", NAMES)
def test_shapes(
    cuda: Cuda, name: str, dtype: str, shape: tuple[int, int], rng: np.random.Generator
) -> None:
    values, wanted = rng.uniform(-5, 5, shape), rng.normal(size=shape)
    for offset in (0, 1):
        x = cuda.tensor(values, dtype, offset, requires_grad=True)
        check(cuda, name, x, cuda.tensor(wanted, dtype), dtype)
    kind = variant(shape[1], dtype)
    assert cuda.launched == {f"{name}_forward_{kind}": 2, f"{name}_backward_{kind}": 2}


@pytest.mark.parametrize("shape", LONG, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_long_rows(cuda: Cuda, name: str, shape: tuple[int, int], rng: np.random.Generator) -> None:
    for dtype in FLOATS:
        x = cuda.tensor(rng.uniform(-5, 5, shape), dtype, requires_grad=True)
        check(cuda, name, x, cuda.tensor(rng.normal(size=shape), dtype), dtype)
        assert cuda.launched == launches(name, shape[1], dtype)
        cuda.launched.clear()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("what", ["g", "x"])
def test_only_one_is_aligned(cuda: Cuda, what: str, name: str, rng: np.random.Generator) -> None:
    """A kernel reads 16 bytes at a time only where all of its arrays allow that."""
    for shape in ((3, 64), (2, 512), (1, 8704)):
        x = cuda.tensor(rng.normal(size=shape), offset=int(what == "x"), requires_grad=True)
        g = cuda.tensor(rng.normal(size=shape), offset=int(what == "g"))
        check(cuda, name, x, g, "float32")


@pytest.mark.parametrize("name", NAMES)
def test_alignment_of_each_array(cuda: Cuda, name: str, rng: np.random.Generator) -> None:
    """Launched directly, as the engine's own results are always aligned."""
    for n, columns in ((3, 64), (2, 512), (1, 8704)):
        kind = variant(columns, "float32")
        last = (32,) if kind == "short" else (1,) if kind == "long" else ()
        block = (256,) if kind == "short" else (64,) if kind == "row" else (512,)
        unread = [cuda.xp.empty(1, np.float32)] if kind == "long" else []
        host = rng.normal(size=(2, n, columns))
        for way, count in (("forward", 2), ("backward", 3)):
            found = []
            for shifted in (None, *range(count)):
                arrays = [
                    cuda.tensor(host[i] if i < count - 1 else 0 * host[0], "float32",
                                int(i == shifted)).data
                    for i in range(count)
                ]  # fmt: skip
                common.launch(
                    cuda.xp, "softmax", f"{name}_{way}_{kind}", np.dtype("float32"), (1,),
                    *arrays, *unread, n, columns, *last, block=block,
                )  # fmt: skip
                found.append(arrays[-1].get())
            assert found[0].any()
            # The elements are added in another order. What the backward kernel adds up is no
            # distribution here: sums of some 70, whose rounding reaches every element.
            atol = 2e-4 if way == "backward" else 1e-5
            for other in found[1:]:
                np.testing.assert_allclose(other, found[0], rtol=1e-4, atol=atol)


@pytest.mark.parametrize("columns", [10, 300, 9000])
@pytest.mark.parametrize("name", NAMES)
def test_more_rows_than_blocks(
    cuda: Cuda, name: str, columns: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(common, "MOST_BLOCKS", 2)
    shape = ({10: 300, 300: 7, 9000: 3}[columns], columns)
    x = cuda.tensor(rng.normal(size=shape), requires_grad=True)
    check(cuda, name, x, cuda.tensor(rng.normal(size=shape)), "float32")
    assert cuda.launched == launches(name, columns, "float32")


@pytest.mark.parametrize("columns", [8704, 8705, 12_296])
@pytest.mark.parametrize("name", NAMES)
def test_long_rows_that_are_many(
    cuda: Cuda, name: str, columns: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A block holds those of packs, and reads others twice."""
    monkeypatch.setattr(rows, "_ENOUGH_ROWS", 2)
    monkeypatch.setattr(common, "MOST_BLOCKS", 2)
    values = rng.normal(size=(3, columns))
    values[1, 100:] = -np.inf
    x = cuda.tensor(values, requires_grad=True)
    y = getattr(tg, name)(x)
    expected = reference(name, as_float64(x))
    assert_close(y, expected, "float32", rounding=8.0, scale=8.0 if name != "softmax" else None)
    x = cuda.tensor(rng.normal(size=(3, columns)), requires_grad=True)
    check(cuda, name, x, cuda.tensor(rng.normal(size=(3, columns))), "float32")
    kind = "long" if columns % 4 else "wide"
    assert cuda.launched == {f"{name}_forward_{kind}": 2, f"{name}_backward_{kind}": 1}


@pytest.mark.parametrize("columns", [5, 300, 5000, 9000])
@pytest.mark.parametrize("name", NAMES)
def test_numbers_that_are_not_finite(
    cuda: Cuda, name: str, columns: int, rng: np.random.Generator
) -> None:
    x = rng.normal(size=(9, columns))
    x[0, 3] = np.nan
    x[1, -1] = np.inf
    x[2, 0] = -np.inf
    x[3] = -np.inf
    x[4, :-1] = -np.inf
    x[5, 1:] = -np.inf
    x[6, [0, 2]] = np.nan, np.inf
    x[7, [1, 4]] = np.inf, -np.inf
    x[8] += 1e4  # exp overflows
    for dtype in ("float32", "float64"):
        tensor = cuda.tensor(x, dtype)
        y = getattr(tg, name)(tensor)
        exact = as_float64(tensor)
        expected = reference(name, exact)
        for row in (0, 1, 3, 6, 7):
            assert np.isnan(expected[row]).all()
        assert np.isfinite(expected[8]).all()
        assert_close(y, expected, dtype, rounding=8.0, scale=8.0 if name != "softmax" else None)


@pytest.mark.parametrize("name", NAMES)
def test_increasing_rows(cuda: Cuda, name: str) -> None:
    """Every tile has a greater greatest element than the ones before it, or a smaller one."""
    for step in (0.01, -0.01):
        x = np.stack([step * np.arange(9001), np.zeros(9001)])
        x[1, :8900] = -np.inf  # whole tiles without a finite number
        tensor = cuda.tensor(x)
        y = getattr(tg, name)(tensor)
        expected = reference(name, as_float64(tensor))
        assert_close(y, expected, "float32", rounding=64.0 if name == "softmax" else 8.0)


@pytest.mark.parametrize("name", NAMES)
def test_other_axes_and_layouts(cuda: Cuda, name: str, rng: np.random.Generator) -> None:
    for shape, axis in (((3, 4, 5), 0), ((3, 4, 5), 1), ((3, 4, 5), -1), ((6,), 0), ((4, 7), 0)):
        x = cuda.tensor(rng.normal(size=shape), requires_grad=True)
        check(cuda, name, x, cuda.tensor(rng.normal(size=shape)), "float32", axis)
    x = cuda.tensor(rng.normal(size=(6, 5)), requires_grad=True)
    for view, g in ((x.T, (5, 6)), (x[::2, 1:], (3, 4))):
        x.grad = None
        w = cuda.tensor(rng.normal(size=g))
        y = getattr(tg, name)(view)
        exact = reference(name, as_float64(view))
        assert_close(y, exact, "float32", rounding=8.0, scale=1.0)
        y.backward(w)
        d = np.zeros((6, 5))
        part, _ = gradient(name, as_float64(w), exact)
        if g == (5, 6):
            d[:] = part.T
        else:
            d[::2, 1:] = part
        assert_close(x.grad, d, "float32", rounding=8.0, scale=4.0)
    assert cuda.launched == {f"{name}_forward_short": 7, f"{name}_backward_short": 7}


@pytest.mark.parametrize("name", NAMES)
def test_a_gradient_that_is_broadcast(cuda: Cuda, name: str, rng: np.random.Generator) -> None:
    for columns in (10, 300, 5000):
        x = cuda.tensor(rng.normal(size=(3, columns)), requires_grad=True)
        y = getattr(tg, name)(x)
        y.sum().backward()
        d, scale = gradient(name, np.ones((3, columns)), as_float64(y))
        assert_close(x.grad, d, "float32", rounding=8.0, scale=scale)
    assert cuda.launched.total() == 6


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0,)])
@pytest.mark.parametrize("name", NAMES)
def test_empty(cuda: Cuda, name: str, shape: tuple[int, ...]) -> None:
    x = cuda.tensor(np.zeros(shape), requires_grad=True)
    y = getattr(tg, name)(x)
    y.backward(cuda.tensor(np.zeros(shape)))
    assert y.shape == shape
    assert x.grad is not None
    assert x.grad.shape == shape
    assert not cuda.launched


@pytest.mark.parametrize("name", NAMES)
def test_second_order(cuda: Cuda, name: str, rng: np.random.Generator) -> None:
    values, w = rng.normal(size=(3, 5)), rng.normal(size=(3, 5))
    found = []
    for device in ("cpu", "cuda"):
        x = tg.tensor(values, dtype=tg.float64, device=device, requires_grad=True)
        weight = tg.tensor(w, dtype=tg.float64, device=device)
        loss = (getattr(tg, name)(x) ** 2 * weight).sum()
        (first,) = grad(loss, [x], create_graph=True)
        (second,) = grad((first**2).sum(), [x])
        found.append((as_float64(first), as_float64(second)))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_same_bits(cuda: Cuda, name: str) -> None:
    """In two runs, and under every schedule."""
    rng = np.random.default_rng(7)
    values = [rng.normal(size=(3, columns)) for columns in (33, 1000, 9001)]
    for _ in range(2):
        bits = []
        for v in values:
            x = cuda.tensor(v, requires_grad=True)
            y = getattr(tg, name)(x)
            y.backward(cuda.tensor(v[:, ::-1]))
            assert x.grad is not None
            bits += [as_float64(y).tobytes(), as_float64(x.grad).tobytes()]
        assert SEEN.setdefault((name, cuda.real), bits) == bits


@pytest.mark.parametrize("columns", [20, 300, 5000])
def test_far_below_zero(cuda: Cuda, columns: int, rng: np.random.Generator) -> None:
    """Nothing but the row's own elements has a say in the greatest of them."""
    x = cuda.tensor(rng.normal(size=(2, columns)) - 3000.0)
    exact = as_float64(x)
    exact = np.exp(exact - exact.max(1, keepdims=True))
    exact /= exact.sum(1, keepdims=True)
    np.testing.assert_allclose(as_float64(tg.softmax(x)), exact, rtol=1e-5)
