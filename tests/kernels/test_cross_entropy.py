"""kernels/cross_entropy.cu against float64 NumPy, forward and backward."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernel_devices import FLOATS, Cuda, as_float64, assert_close

import tensorgrad as tg
from tensorgrad.autograd import grad
from tensorgrad.backend import cuda as cuda_backend
from tensorgrad.backend.launch import common, rows
from tensorgrad.nn.functional import cross_entropy

Host = np.ndarray[Any, Any]
REDUCTIONS = ["mean", "sum", "none"]
#: rows and columns: lanes of a warp (up to 128 in float64, 256 else), a block with one tile or more
SHAPES = [
    (600, 1), (5, 7), (70, 10), (9, 31), (9, 32), (9, 33), (3, 128), (3, 129), (3, 256), (3, 257),
    (3, 1000), (2, 4097), (2, 4104), (2, 65_537),
]  # fmt: skip
#: by device: what a run gave, which every other run has to give too
SEEN: dict[bool, list[bytes]] = {}


def reference(x: Host, labels: Host) -> tuple[Host, Host]:
    """The loss of each row in float64, and its gradient."""
    rows = np.arange(len(x))
    with np.errstate(all="ignore"):
        z = x - x.max(axis=1, keepdims=True)
        e = np.exp(z)
        s = e.sum(axis=1, keepdims=True)
        slope = e / s
        slope[rows, labels] -= 1.0
        return np.log(s[:, 0]) - z[rows, labels], slope


def check(cuda: Cuda, x: tg.Tensor, labels: Host, reduction: str, rng: np.random.Generator) -> None:
    dtype = str(x.data.dtype)
    rounding = 1.01 if dtype in ("float16", "bfloat16") else 8.0
    exact = as_float64(x)
    n = len(exact)
    each, slope = reference(exact, labels)
    terms = 1.0 + abs(exact).max()  # what a loss is the difference of
    target = tg.tensor(labels, device="cuda")
    loss = cross_entropy(x, target, reduction)
    if reduction == "none":
        g = cuda.tensor(rng.normal(size=n), dtype)
        weight = as_float64(g)[:, None]
        assert_close(loss, each, dtype, rounding=rounding, scale=terms)
    else:
        g = cuda.tensor(np.float64(1.5), dtype)
        weight = np.full((n, 1), 1.5 / n if reduction == "mean" else 1.5)
        expected = each.mean() if reduction == "mean" else each.sum()
        assert_close(
            loss, expected, dtype, rounding=rounding,
            scale=terms if reduction == "mean" else terms * n,
        )  # fmt: skip
    assert loss.dtype == x.dtype
    loss.backward(g)
    assert x.grad is not None
    assert x.grad.dtype == x.dtype
    # next to the one at the label, a probability is a number without cancellation
    one_hot = np.zeros_like(slope)
    one_hot[np.arange(n), labels] = 1.0
    scale = abs(weight) * np.maximum(abs(slope), one_hot)
    assert_close(x.grad, slope * weight, dtype, rounding=rounding, scale=scale)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", FLOATS)
def test_shapes(cuda: Cuda, dtype: str, shape: tuple[int, int], rng: np.random.Generator) -> None:
    kind = "short" if shape[1] <= (128 if dtype == "float64" else 256) else "long"
    for reduction in REDUCTIONS:
        for bits, offset in ((64, 0), (32, 1)):
            cuda.launched.clear()
            values = rng.uniform(-5, 5, shape)
            x = cuda.tensor(values, dtype, offset, requires_grad=True)
            labels = rng.integers(0, shape[1], shape[0]).astype(f"int{bits}")
            labels[-1] = shape[1] - 1
            check(cuda, x, labels, reduction, rng)
            names = [f"cross_entropy_{way}_{kind}_{bits}" for way in ("forward", "backward")]
            if reduction != "none" and shape[0] * shape[1] > rows._ONE_BLOCK:
                names.append("cross_entropy_total")
            assert cuda.launched == dict.fromkeys(names, 1)


def test_every_place_of_the_label(cuda: Cuda, rng: np.random.Generator) -> None:
    for columns in (3, 10, 32):
        x = cuda.tensor(rng.normal(size=(columns, columns)), requires_grad=True)
        check(cuda, x, np.arange(columns), "none", rng)
    labels = np.array([0, 1, 4095, 4096, 4099, 5119])  # about the border of two tiles
    x = cuda.tensor(rng.normal(size=(6, 5120)), requires_grad=True)
    check(cuda, x, labels, "none", rng)


@pytest.mark.parametrize("columns", [10, 300])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_more_rows_than_blocks(
    cuda: Cuda,
    reduction: str,
    columns: int,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(common, "MOST_BLOCKS", 2)
    monkeypatch.setattr(rows, "_ONE_BLOCK", 64)
    shape = (300 if columns == 10 else 7, columns)
    x = cuda.tensor(rng.normal(size=shape), requires_grad=True)
    check(cuda, x, rng.integers(0, columns, shape[0]), reduction, rng)


def test_many_blocks(cuda: Cuda, rng: np.random.Generator) -> None:
    """More partial sums than the block that adds them has threads."""
    x = cuda.tensor(rng.normal(size=(1100, 257)), requires_grad=True)
    check(cuda, x, rng.integers(0, 257, 1100), "mean", rng)
    check(cuda, cuda.tensor(rng.normal(size=(40, 257)), requires_grad=True),
          rng.integers(0, 257, 40), "sum", rng)  # fmt: skip


@pytest.mark.parametrize("kind", ["int8", "uint8", "int16", "uint32", "uint64"])
def test_types_of_labels(cuda: Cuda, kind: str, rng: np.random.Generator) -> None:
    x = cuda.tensor(rng.normal(size=(6, 4)), requires_grad=True)
    check(cuda, x, rng.integers(0, 4, 6).astype(kind), "mean", rng)
    assert cuda.launched["cross_entropy_forward_short_64"] == 1


@pytest.mark.parametrize("label", [-1, -(2**31), 2**31 - 1, 2**63 - 1, -(2**63), "columns"])
@pytest.mark.parametrize("columns", [10, 300, 5000])
def test_a_label_out_of_range(
    cuda: Cuda, columns: int, label: int | str, rng: np.random.Generator
) -> None:
    """Its loss and its row of the gradient are NaN, the others are as ever."""
    bad = columns if label == "columns" else int(label)
    for kind in ("int32", "int64"):
        if not np.iinfo(kind).min <= bad <= np.iinfo(kind).max:
            continue
        labels = rng.integers(0, columns, 4).astype(kind)
        labels[1] = bad
        x = cuda.tensor(rng.normal(size=(4, columns)), requires_grad=True)
        loss = cross_entropy(x, tg.tensor(labels, device="cuda"), "none")
        loss.backward(cuda.tensor(np.ones(4)))
        labels[1] = 0
        each, slope = reference(as_float64(x), labels)
        each[1] = slope[1] = np.nan
        assert_close(loss, each, "float32", rounding=8.0, scale=8.0)
        assert_close(x.grad, slope, "float32", rounding=8.0, scale=1.0)


@pytest.mark.parametrize("columns", [5, 300, 9000])
def test_numbers_that_are_not_finite(cuda: Cuda, columns: int, rng: np.random.Generator) -> None:
    x = rng.normal(size=(9, columns))
    x[0, 3] = np.nan
    x[1, -1] = np.inf
    x[2, 0] = -np.inf
    x[3] = -np.inf
    x[4, :-1] = -np.inf
    x[5, 1:] = -np.inf
    x[6, [0, 2]] = np.nan, np.inf
    x[7] += 1e4  # exp overflows; the logarithm of a sum has no room left for digits
    x[8] -= 1e4
    labels = np.array([0, 0, 0, 1, columns - 1, 1, 1, 2, 2])
    for dtype in ("float32", "float64"):
        tensor = cuda.tensor(x, dtype, requires_grad=True)
        loss = cross_entropy(tensor, tg.tensor(labels, device="cuda"), "none")
        each, slope = reference(as_float64(tensor), labels)
        assert list(np.isnan(each)) == [True, True, False, True, False, False, True, False, False]
        assert each[2] == each[5] == np.inf
        assert each[4] == 0.0
        assert_close(loss, each, dtype, rounding=8.0, scale=8.0)
        loss.backward(cuda.tensor(np.ones(9), dtype))
        assert_close(tensor.grad, slope, dtype, rounding=8.0)


def test_layouts_and_broadcast_gradients(cuda: Cuda, rng: np.random.Generator) -> None:
    values, labels = rng.normal(size=(5, 6)), rng.integers(0, 5, 12)
    x = cuda.tensor(values, requires_grad=True)
    target = tg.tensor(labels, device="cuda")[::2]  # not contiguous, as the logits and g
    cross_entropy(x.T, target, "none").sum().backward()
    _, slope = reference(as_float64(x).T, labels[::2])
    assert_close(x.grad, slope.T, "float32", rounding=8.0, scale=1.0)
    x = cuda.tensor(rng.normal(size=(2, 5, 3)), requires_grad=True)
    target = tg.tensor(rng.integers(0, 5, (2, 3)), device="cuda")
    loss = cross_entropy(x, target)
    loss.backward()
    rows = np.moveaxis(as_float64(x), 1, -1).reshape(-1, 5)
    each, slope = reference(rows, target.cpu().numpy().reshape(-1))
    assert_close(loss, each.mean(), "float32", rounding=8.0)
    assert x.grad is not None
    found = np.moveaxis(as_float64(x.grad), 1, -1).reshape(-1, 5)
    np.testing.assert_allclose(found, slope / 6, atol=1e-6)
    assert cuda.launched["cross_entropy_backward_short_64"] == 2


def test_empty(cuda: Cuda) -> None:
    for reduction, expected in (("sum", 0.0), ("none", np.zeros(0))):
        x = cuda.tensor(np.zeros((0, 4)), requires_grad=True)
        loss = cross_entropy(x, tg.zeros(0, dtype=tg.int64, device="cuda"), reduction)
        np.testing.assert_array_equal(as_float64(loss), expected)
        loss.sum().backward()
        assert x.grad is not None
        assert x.grad.shape == (0, 4)
    with pytest.raises(ValueError):
        cross_entropy(cuda.tensor(np.zeros((3, 0))), tg.zeros(3, dtype=tg.int64, device="cuda"))
    assert not cuda.launched


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_kernels_in_one_direction_alone(
    cuda: Cuda, dtype: str, first: bool, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rule serves what the kernel kept for the kernel of the gradient, and the other way."""
    values, labels = rng.normal(size=(4, 4)), np.array([0, 3, 1, 1])
    backend = cuda_backend.load()
    for reduction in REDUCTIONS:
        x = cuda.tensor(values, dtype, requires_grad=True)
        monkeypatch.setattr(backend, "kernels", first)
        loss = cross_entropy(x, tg.tensor(labels, device="cuda"), reduction)
        monkeypatch.setattr(backend, "kernels", not first)
        loss.sum().backward()
        _, slope = reference(as_float64(x), labels)
        assert_close(
            x.grad, slope / (4 if reduction == "mean" else 1), dtype, rounding=8.0, scale=1.0
        )
    ways = ("forward", "total") if first else ("backward",)
    assert all(name.split("_")[2] in ways for name in cuda.launched)
    assert bool(cuda.launched) == first


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_second_order(cuda: Cuda, reduction: str, rng: np.random.Generator) -> None:
    values, labels = rng.normal(size=(3, 5)), rng.integers(0, 5, 3)
    found = []
    for device in ("cpu", "cuda"):
        x = tg.tensor(values, dtype=tg.float64, device=device, requires_grad=True)
        loss = cross_entropy(x, tg.tensor(labels, device=device), reduction)
        (first,) = grad((loss * loss).sum(), [x], create_graph=True)
        (second,) = grad((first**2).sum(), [x])
        found.append((as_float64(first), as_float64(second)))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-12, atol=1e-14)


def test_same_bits(cuda: Cuda) -> None:
    """In two runs, and under every schedule."""
    rng = np.random.default_rng(7)
    cases = [(rng.normal(size=(n, c)), rng.integers(0, c, n))
             for n, c in ((500, 33), (40, 1000), (2, 9001))]  # fmt: skip
    for _ in range(2):
        bits = []
        for values, labels in cases:
            x = cuda.tensor(values, requires_grad=True)
            loss = cross_entropy(x, tg.tensor(labels, device="cuda"))
            loss.backward()
            assert x.grad is not None
            bits += [as_float64(loss).tobytes(), as_float64(x.grad).tobytes()]
        assert SEEN.setdefault(cuda.real, bits) == bits
