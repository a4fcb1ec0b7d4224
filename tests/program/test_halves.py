"""16-bit floats in programs: as in eager mode computed in float32, each result rounded once."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from program.captured import Captured
from program.executors import EVERY_EXECUTOR, EXECUTORS
from program.vector_widths import WIDTHS, built
from sampler import host

import tensorgrad as tg
from tensorgrad import Tensor, dtypes, nn, optim

F = nn.functional
Array = np.ndarray[Any, Any]

HALVES = pytest.mark.parametrize("name", ["float16", "bfloat16"])
needs_compiler = pytest.mark.skipif("native" not in EXECUTORS, reason="there is no C compiler")


def bits(array: Any) -> Array:
    """The bits, those of all NaN being alike."""
    found: Array = np.asarray(array).view(np.uint16).copy()
    found[np.isnan(np.asarray(array, np.float32))] = 0xFFFF
    return found


def every_half(name: str) -> Array:
    """All numbers of 16 bits."""
    return np.arange(1 << 16, dtype=np.uint16).view(dtypes.as_dtype(name))


def wide_numbers(name: str) -> Array:
    """Numbers of float32 of every size, and those near what is rounded up and down."""
    draw = np.random.default_rng(0)
    some = draw.integers(0, 1 << 32, 1 << 18, dtype=np.uint64)
    steps = [-1, 0, 1, 0xFFF, 0x1000, 0x1001, 0x7FFF, 0x8000, 0x8001, 0x17FFF, 0x18000, 0x18001]
    exact = every_half(name).astype(np.float32).view(np.uint32).astype(np.int64)
    near = (exact[:, None] + np.array(steps)).ravel() % (1 << 32)
    return np.concatenate([some.astype(np.uint32), near.astype(np.uint32)]).view(np.float32)


# --- conversions ----------------------------------------------------------------------------------


@needs_compiler
@pytest.mark.parametrize("width", WIDTHS)
def test_conversions_round_to_even_and_keep_what_is_special(width: int, tmp_path: Any) -> None:
    """All numbers of 16 bits; infinities, NaN, subnormal numbers, ties, what is too large."""
    text = "".join(
        f"void read_{k}(const uint16_t *x, float *y, long n) {{\n#pragma omp simd\n"
        f"    for (long i = 0; i < n; i++) y[i] = tg_{k}_is(x[i]);\n}}\n"
        f"void write_{k}(const float *x, uint16_t *y, long n) {{\n#pragma omp simd\n"
        f"    for (long i = 0; i < n; i++) y[i] = tg_{k}_of(x[i]);\n}}\n"
        for k in ("half", "bfloat")
    )
    library = built(text, width, tmp_path)

    def run(function: str, x: Array, dtype: Any) -> Array:
        y = np.empty(x.shape, dtype)
        at = [a.ctypes.data_as(ctypes.c_void_p) for a in (x, y)]
        getattr(library, function)(*at, ctypes.c_long(x.size))
        return y

    for kind, name in (("half", "float16"), ("bfloat", "bfloat16")):
        given, wide = every_half(name), wide_numbers(name)
        read = run(f"read_{kind}", given, np.float32)
        right = given.astype(np.float32)
        numbers = ~np.isnan(right)
        np.testing.assert_array_equal(np.isnan(read), ~numbers)
        np.testing.assert_array_equal(read.view(np.uint32)[numbers], right.view(np.uint32)[numbers])
        written = run(f"write_{kind}", wide, np.uint16).view(given.dtype)
        with np.errstate(all="ignore"):
            np.testing.assert_array_equal(bits(written), bits(wide.astype(given.dtype)))


# --- single operations ----------------------------------------------------------------------------

#: Functions whose results in float32 are those of NumPy: so are the bits, once rounded.
EXACT: dict[str, Callable[..., Any]] = {
    "add": lambda x, y: x + y,
    "subtract, twice": lambda x, y: (x - y) - y,
    "product and sum": lambda x, y: x * y + x,
    "divide": lambda x, y: x / y,
    "sqrt": lambda x, y: tg.sqrt(tg.abs(x)) - y,
    "maximum": lambda x, y: tg.maximum(x, y) * tg.minimum(y, 2.0),
    "where": lambda x, y: tg.where(x > y, x, -y),
    "relu": lambda x, y: tg.relu(x * 1.1) + tg.relu(y),
    "square": lambda x, y: tg.square(x) * 0.3 - y * 3.0,
    "to float32 and back": lambda x, y: (x.float() * y.float()).astype(x.dtype),
    "from truth values": lambda x, y: (x < y).astype(x.dtype) + x,
    "parts": lambda x, y: tg.concat([x[1:], y[:3], tg.flip(x)])[::2],
    "picked": lambda x, y: x[Tensor([3, 0, 3, -1])] * y[0],
    "written": lambda x, y: tg.index_put(x, Tensor([2, 0]), y[:2]) - y[1],
}


@needs_compiler
@HALVES
def test_each_result_is_rounded_once(name: str) -> None:
    """One program of all functions, of every number of 16 bits with others."""
    draw = np.random.default_rng(1)
    x, others = every_half(name), [draw.permutation(every_half(name)) for _ in range(3)]
    x, y = np.concatenate([x, x, x]), np.concatenate(others)

    def all_of(x: Tensor, y: Tensor) -> list[Tensor]:
        return [function(x, y) for function in EXACT.values()]

    given = [Tensor(x), Tensor(y)]
    with np.errstate(all="ignore"):
        program = Captured(all_of, given)
        found, wanted = program(*given), all_of(*given)
    for what, a, b in zip(EXACT, found, wanted, strict=True):
        assert a.dtype == b.dtype == dtypes.as_dtype(name), what
        np.testing.assert_array_equal(bits(a), bits(b.data), err_msg=what)


@needs_compiler
@HALVES
@pytest.mark.parametrize("shape", [(5,), (3, 17), (1, 130), (70, 33), (2, 3, 41)])
def test_sums_norms_and_products(name: str, shape: tuple[int, ...]) -> None:
    """As near to float64 as float32 allows, then rounded; of transposed and sliced arrays too."""
    draw = np.random.default_rng(2)
    dtype = dtypes.as_dtype(name)
    x = draw.standard_normal(shape).astype(dtype)
    w = draw.standard_normal((shape[-1], 19)).astype(dtype)

    def functions(x: Tensor, w: Tensor) -> list[Tensor]:
        y = x[..., ::2]
        return [
            x @ w, (w.T @ w)[::3], x.sum(), x.sum(axis=-1), x.mean(axis=0), y.max(axis=-1),
            tg.softmax(x, axis=-1), tg.cumulative_sum(y, axis=-1), tg.logsumexp(x, axis=-1),
            F.layer_norm(x, (shape[-1],)), tg.exp(y), tg.tanh(x) @ w,
        ]  # fmt: skip

    given = [Tensor(x), Tensor(w)]
    found, wanted = Captured(functions, given)(*given), functions(*given)
    exact = functions(*(t.double() for t in given))
    step = {"float16": 2.0**-10, "bfloat16": 2.0**-7}[name]
    for k, (a, b, right) in enumerate(zip(found, wanted, exact, strict=True)):
        size = np.max(np.abs(host(right)))
        np.testing.assert_allclose(
            a.astype(np.float64), host(b).astype(np.float64), rtol=step, atol=1e-3 * step * size
        )
        if k < len(exact) - 1:
            np.testing.assert_allclose(
                a.astype(np.float64), host(right), rtol=step, atol=1e-3 * step * size
            )


# --- networks -------------------------------------------------------------------------------------


def dense() -> Any:
    return nn.Sequential(
        nn.Linear(12, 33), nn.GELU(), nn.LayerNorm(33), nn.Dropout(0.1), nn.Linear(33, 5)
    )


def convolutional() -> Any:
    return nn.Sequential(
        nn.Unflatten(1, (3, 2, 2)), nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8),
        nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 5),
    )  # fmt: skip


def attentive() -> Any:
    return nn.Sequential(
        nn.Unflatten(1, (3, 4)), nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True),
        nn.Flatten(), nn.Linear(12, 5),
    )  # fmt: skip


NETWORKS = {"dense": dense, "convolutional": convolutional, "attentive": attentive}
WAYS = [
    ("dense", "float16"),
    ("dense", "autocast float16"),
    ("dense", "bfloat16"),
    ("convolutional", "autocast bfloat16"),
    ("convolutional", "float16"),
    ("attentive", "bfloat16"),
    ("attentive", "autocast float16"),
]


def trained(make: Any, way: str, run: Any) -> tuple[list[float], Any]:
    """The losses of some steps, and the compiled step."""
    tg.manual_seed(0)
    dtype, inside = (None, way.split()[1]) if " " in way else (way, None)
    net = make().to(dtype) if dtype else make()
    optimizer = optim.Adam(net.parameters(), lr=0.01)
    draw = np.random.default_rng(0)
    x = Tensor(draw.standard_normal((6, 12)), dtype=dtype or "float32")
    labels = Tensor(draw.integers(0, 5, 6))

    def step(x: Tensor, labels: Tensor) -> Tensor:
        optimizer.zero_grad()
        with tg.autocast(dtype=inside) if inside else contextlib.nullcontext():
            loss = F.cross_entropy(net(x), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    step = run(step)
    return [float(host(step(x, labels))) for _ in range(9)], step


@needs_compiler
@pytest.mark.parametrize(("network", "way"), WAYS)
def test_networks_run_without_calls(network: str, way: str) -> None:
    losses, step = trained(NETWORKS[network], way, tg.compile)
    right, _ = trained(NETWORKS[network], way, lambda step: step)
    assert "executor native" in step.report()
    assert "\ncall " not in step.report()
    assert not step.dropped
    near = 2e-2 if "bfloat16" in way else 4e-3
    np.testing.assert_allclose(losses, right, rtol=near, atol=near)


@EVERY_EXECUTOR
@HALVES
def test_pools_and_their_gradients(name: str, executor: str) -> None:
    """Of windows that tile the input: choices alone, so the bits are those of eager mode."""
    draw = np.random.default_rng(4)
    numbers = draw.integers(-3, 4, (2, 3, 6, 8)).astype(np.float32)
    numbers[0, 0, 0, 0], numbers[1, 2, 3, 4], numbers[1, 1, 1, 1] = np.nan, np.inf, -np.inf
    by = Tensor(draw.standard_normal((2, 3, 3, 4)), dtype=name)

    def step(x: Tensor) -> Tensor:
        x.grad = None
        y = F.max_pool2d(tg.relu(x), 2)
        y.backward(by)
        return y.detach()

    ends = []
    for run in (step, tg.compile(step, executor=executor)):
        x = Tensor(numbers, dtype=name, requires_grad=True)
        values = [run(x) for _ in range(3)][-1]
        assert x.grad is not None
        ends.append([values.data, x.grad.data])
    for a, b in zip(*ends, strict=True):
        np.testing.assert_array_equal(bits(a), bits(b))


@EVERY_EXECUTOR
@HALVES
def test_rows_of_a_table(name: str, executor: str) -> None:
    """Sums of equal rows are rounded once, and the update is."""
    ends = []
    for compiled in (False, True):
        x = Tensor(np.linspace(-2, 2, 60).reshape(20, 3), dtype=name, requires_grad=True)
        optimizer = optim.SGD([x], lr=0.1)

        def step(rows: Tensor, x: Any = x, optimizer: Any = optimizer) -> None:
            optimizer.zero_grad()
            F.embedding(rows, x, sparse=True).square().sum().backward()
            optimizer.step()

        run = tg.compile(step, executor=executor) if compiled else step
        draw = np.random.default_rng(0)
        for _ in range(5):
            run(Tensor(draw.integers(0, 20, 15)))
        ends.append([host(t) for t in (x.detach(), x.grad)])
    for a, b in zip(*ends, strict=True):
        np.testing.assert_array_equal(bits(a), bits(b))


@needs_compiler
def test_what_would_be_rounded_twice_is_left_to_calls() -> None:
    """float64 to 16 bits: by way of float32 it would not be the nearest number."""
    x = np.array([1 + 2.0**-11 + 2.0**-30, 1 + 2.0**-9 + 2.0**-40, 65519.999999])
    given = [Tensor(x)]
    (found,) = Captured(lambda x: [x.astype("float16")], given)(*given)
    np.testing.assert_array_equal(bits(found), bits(x.astype(np.float16)))
