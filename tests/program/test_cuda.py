"""The CUDA executor, on the stand-in for CuPy and the emulator: nothing here ran on a GPU."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Any

import numpy as np
import pytest
from emulator import emulator
from kernels.compile_all import ARCHITECTURES, compile_source, missing
from program import test_fuse
from sampler import host
from standin import cupy_standin
from standin.cublas import Library
from standin.cupy_standin import log

import tensorgrad as tg
from tensorgrad import nn, optim
from tensorgrad.backend import gemm, kernels
from tensorgrad.program.executors import c_nests, cublas, cuda_source
from tensorgrad.program.lower import Lowering
from tensorgrad.program.schedule import Nest, Schedule


@pytest.fixture(scope="module", autouse=True)
def installed() -> Iterator[Any]:
    reason = emulator.available()
    if reason is not None:
        pytest.skip(reason)
    with cupy_standin.installed() as module:
        yield module


def runs_on_cuda(call: Any) -> None:
    """The kernels did what the function does: nothing fell back to calls."""
    executor = call._last().executor
    assert executor.name == "cuda", executor.reason


# --- shapes that decide how threads share the work ------------------------------------------------


def normalized(x: tg.Tensor, w: tg.Tensor) -> list[tg.Tensor]:
    """Reductions over rows, over columns and over everything, some of which use others."""
    y = tg.softmax(x, axis=-1) * w
    z = (y - y.mean(axis=-1, keepdims=True)) / (y.max(axis=-1, keepdims=True) + 1.0)
    return [z, z.sum(axis=0), (z * z).sum(), y.min(), z.sum(axis=-1), (x + 1.0).prod(axis=-1)]


@pytest.mark.parametrize("schedule", [0, 1, 4, 5])
@pytest.mark.parametrize(
    "shape",
    [(1, 1), (3, 5), (70, 33), (300, 7), (2, 513), (5, 1100), (3, 4097), (2, 16385), (2, 3, 40)],
)
def test_reductions(shape: tuple[int, ...], schedule: int) -> None:
    draw = np.random.default_rng(0)
    x, w = draw.normal(size=shape) * 0.01, draw.normal(size=shape[-1:])
    given = [tg.Tensor(a, dtype=tg.float64, device="cuda") for a in (x, w)]
    call = tg.compile(normalized)
    with emulator.scheduled(schedule):
        found = call(*given)
    runs_on_cuda(call)
    wanted = normalized(*[tg.Tensor(a, dtype=tg.float64) for a in (x, w)])
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(host(a), host(b), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("shape", [(2, 700), (1, 5000), (400, 300), (3, 4, 5)])
def test_sums_over_rows_of_what_lies_across(shape: tuple[int, ...]) -> None:
    """Neither flat nor by rows: the columns are shared out among blocks."""
    x = np.random.default_rng(1).normal(size=shape[::-1])

    def f(x: tg.Tensor) -> list[tg.Tensor]:
        y = x.permute_dims(tuple(reversed(range(len(shape))))) * 2.0 + tg.ones(shape, device="cuda")
        return [y, y.sum(axis=0), y.sum()]

    call = tg.compile(f)
    found = call(tg.Tensor(x, dtype=tg.float64, device="cuda"))
    runs_on_cuda(call)
    y = x.T * 2.0 + 1.0
    for a, b in zip(found, [y, y.sum(0), y.sum()], strict=True):
        np.testing.assert_allclose(host(a), b, rtol=1e-11)


@pytest.mark.parametrize(
    ("shape", "axis"), [((40_000, 3), 0), ((2, 70_000), 1), ((3, 50_000), None)]
)
def test_sums_do_not_drift(shape: tuple[int, int], axis: int | None) -> None:
    """As on the host: numbers that are all alike, whose errors would add up."""
    values = np.full(shape, 0.1, np.float32)
    call = tg.compile(lambda x: ((x * 1.0).sum(axis=axis), (x * 10.001).prod(axis=axis)))
    found, product = call(tg.Tensor(values, device="cuda"))
    runs_on_cuda(call)
    exact = values.astype(np.float64)
    np.testing.assert_allclose(host(found), exact.sum(axis=axis), rtol=3e-6)
    factors = (values * np.float32(10.001)).astype(np.float64)
    np.testing.assert_allclose(host(product), factors.prod(axis=axis), rtol=3e-5)


@pytest.mark.parametrize(
    "shape", [(200_000, 8), (100_000, 64), (20_000, 300), (300, 4096), (9, 64)]
)
def test_sums_over_rows_occupy_a_gpu(shape: tuple[int, int]) -> None:
    """Blocks enough, partial sums that are little beside the input, and no thread with many."""
    x = tg.zeros(shape)
    call = tg.compile(lambda x: (tg.tanh(x) * 2.0).sum(axis=0))
    call(x)
    lowering = Lowering(call._last().program)
    seen = {lowering.views[v].storage for v in call._last().program.kept()}
    schedule = Schedule(lowering.operations, seen, recomputed=False)
    ((made, _),) = cuda_source.write(schedule).nests.values()
    threads, size = math.prod(made.grid) * made.block, math.prod(shape)
    assert threads >= min(1 << 15, size // 4)
    assert threads <= 1 << 18
    ((_, partial),) = made.partial
    assert partial <= max(size // 16, 1 << 19)
    assert made.end * 32 >= shape[1]
    assert made.end_block == 1024


@pytest.mark.parametrize("shape", [(3, 5), (5, 130), (700,)])
def test_four_random_words_are_made_at_a_time(shape: tuple[int, ...]) -> None:
    """They are those of the CPU wherever the generator stands."""
    x = np.random.default_rng(0).normal(size=shape)

    def f(x: tg.Tensor) -> list[tg.Tensor]:
        y = tg.dropout(x * 2.0, 0.3)
        return [y, y.sum(axis=-1, keepdims=True) * y]

    found: dict[str, list[Any]] = {}
    for device in ("cpu", "cuda"):
        tg.manual_seed(3)
        given, call = tg.Tensor(x, dtype=tg.float32, device=device), tg.compile(f)
        found[device] = [host(y) for _ in range(3) for y in call(given)]
        tg.random.uniform((3,), device=device)  # so that blocks of four words lie across rows
        with emulator.scheduled(4):
            found[device] += [host(y) for y in call(given)]
    runs_on_cuda(call)
    assert "tg_words(" in call._last().executor.text
    for a, b in zip(found["cpu"], found["cuda"], strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-5)


def test_pixels_are_converted_in_passing() -> None:
    """Bytes as they come from a file, scaled inside the step."""
    pixels = np.random.default_rng(0).integers(0, 256, (9, 70)).astype(np.uint8)
    call = tg.compile(lambda x: (x.float() * (1 / 255)).sum(axis=1))
    found = call(tg.Tensor(pixels, device="cuda"))
    runs_on_cuda(call)
    np.testing.assert_allclose(host(found), (pixels / 255).sum(1), rtol=1e-5)


def test_large_results(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    """What goes past the caches block by block on a CPU is written like anything else here."""
    monkeypatch.setattr(c_nests, "_STREAMED", 1 << 10)
    x = rng.standard_normal((9, 70)).astype(np.float32)
    call = tg.compile(lambda x: tg.tanh(x) * 2.0 + 1.0)
    found = call(tg.Tensor(x, device="cuda"))
    runs_on_cuda(call)
    np.testing.assert_allclose(host(found), np.tanh(x) * 2 + 1, atol=1e-6)


# --- fused functions ------------------------------------------------------------------------------


@test_fuse.EVERY_CASE
def test_fused(function: Any, shapes: Any, constants: Any, rng: np.random.Generator) -> None:
    fused = test_fuse.check(function, shapes, constants, tg.float32, rng, "cuda")
    if all(map(math.prod, shapes)):
        runs_on_cuda(fused._forward)
        runs_on_cuda(fused._backward)
        assert fused.source("cuda").count("void") >= 2


# --- graphs ---------------------------------------------------------------------------------------


def swish(x: tg.Tensor, w: tg.Tensor) -> tg.Tensor:
    return (x * tg.sigmoid(x * w)).sum()


def stepped(parameter: tg.Tensor) -> Any:
    def step(x: tg.Tensor) -> tg.Tensor:
        parameter.grad = None
        loss = swish(x, parameter)
        loss.backward()
        return loss

    return tg.compile(step)


def test_a_replay_is_one_graph() -> None:
    w = tg.Tensor(np.linspace(-1, 1, 6), device="cuda", requires_grad=True)
    step = stepped(w)
    for k in range(5):
        numbers = np.linspace(-2, 2, 6) + k
        log.clear()
        loss = step(tg.Tensor(numbers, device="cuda"))
        # Captured calls rehearse, launch by launch; the calls 2 and 4 are checked, and rehearse.
        assert log.graphs == 1 + (k in (1, 3))
        reference = tg.Tensor(host(w), dtype=tg.float64, requires_grad=True)
        swish(tg.Tensor(numbers), reference).backward()
        np.testing.assert_allclose(host(w.grad), host(reference.grad), rtol=1e-5, atol=1e-6)
        assert isinstance(loss.data, cupy_standin.ndarray)
    assert "one graph" in step.report()


def test_graphs_follow_memory_that_moves() -> None:
    """Gradients that somebody keeps, and parameters that are replaced, are other memory."""
    w = tg.Tensor(np.ones(4), device="cuda", requires_grad=True)
    step = stepped(w)
    x = tg.Tensor(np.arange(4.0), device="cuda")
    kept, values = [], []
    for k in range(6):
        if k % 2:
            w.data = tg.Tensor(np.full(4, k / 3), device="cuda").data
        step(x)
        kept.append(w.grad)
        values.append(host(w.grad).copy())
    for g, value in zip(kept, values, strict=True):
        np.testing.assert_array_equal(host(g), value)
    assert not np.array_equal(values[0], values[1])
    for _ in range(30):
        kept.append(step(x) and w.grad)
    assert "other arrays in every few steps" in step.report()
    assert step.captures == 1


def test_what_cannot_be_captured_is_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Any, mode: Any = None) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(cupy_standin.Stream, "begin_capture", refuse)
    monkeypatch.setattr(cupy_standin.Stream, "end_capture", lambda self: None)
    w = tg.Tensor(np.ones(4), device="cuda", requires_grad=True)
    step = stepped(w)
    x = tg.Tensor(np.arange(4.0), device="cuda")
    losses = [step(x).item() for _ in range(3)]
    assert losses[0] == losses[1] == losses[2]
    assert "not permitted" in step.report()


def test_what_does_not_compile_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def __init__(self, **_: Any) -> None:
            raise RuntimeError("nvrtc: error: a driver too old")

    monkeypatch.setattr(cupy_standin.MODULE, "RawModule", Broken)
    w = tg.Tensor(np.ones(4), device="cuda", requires_grad=True)
    step = stepped(w)
    x = tg.Tensor(np.arange(4.0), device="cuda")
    assert step(x).item() == step(x).item() == swish(x, w).item()
    assert "a driver too old" in step.report()
    assert step._last().executor.name == "numpy"


def test_kernels_that_compute_something_else_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first replay is compared with what the function did."""
    right = cuda_source.KernelWriter.kernel

    def wrong(self: Any) -> Any:
        made = right(self)
        made.text = made.text.replace("tg_sigmoid_", "tg_tanh_")
        return made

    monkeypatch.setattr(cuda_source.KernelWriter, "kernel", wrong)
    w = tg.Tensor(np.ones(4), device="cuda", requires_grad=True)
    step = stepped(w)
    x = tg.Tensor(np.arange(4.0), device="cuda")
    assert step(x).item() == step(x).item() == swish(x, w).item()
    assert "did something else" in step.report()


def test_conditions_that_c_looks_at_are_noticed() -> None:
    """A step on a GPU asks C whether anything changed: a rate that is read, a mode, a parameter, an
    argument in the memory of what the step reads."""
    scale = {"by": 2.0}
    w = tg.Tensor(np.arange(4.0), device="cuda", requires_grad=True)
    dropout = nn.Dropout(0.5)
    dropout.eval()

    def step(x: tg.Tensor) -> tg.Tensor:
        return (dropout(x) * w * scale["by"]).sum() + x[0]

    call: Any = tg.compile(step)
    x = tg.Tensor(np.ones(4), device="cuda")
    for _ in range(12):
        assert call(x).item() == 13.0
    assert call._last().conditions is not None
    scale["by"] = 3.0
    assert call(x).item() == 19.0
    assert call.captures == 2
    for _ in range(3):
        call(x)
    w.data = tg.Tensor(np.ones(4), device="cuda").data
    assert [call(x).item() for _ in range(3)] == [13.0] * 3
    assert call(w.detach()).item() == 13.0
    dropout.train()
    found = {call(x).item() for _ in range(8)}
    assert len(found) > 1
    with tg.no_grad():
        assert call(x).item() >= 1.0


# --- products by cuBLAS ---------------------------------------------------------------------------


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Library]]:
    made: list[Library] = []

    def load(name: str) -> Library:
        made.append(Library(name))
        return made[-1]

    monkeypatch.setattr(cublas, "_loaded", load)
    cublas._CUBLAS.clear()
    yield made
    cublas._CUBLAS.clear()


PRODUCTS: list[tuple[tuple[int, ...], tuple[int, ...], str]] = [
    ((3, 4), (4, 5), "a @ b"),
    ((4, 3), (4, 5), "a.T @ b"),
    ((3, 4), (5, 4), "a @ b.T"),
    ((4, 3), (5, 4), "a.T @ b.T"),
    ((2, 3, 4), (4, 5), "a @ b"),
    ((2, 3, 4), (2, 4, 5), "a @ b"),
    ((2, 1, 3, 4), (6, 4, 5), "a @ b"),
    ((2, 3, 4), (2, 5, 4), "a @ b.mT"),
    ((2, 3, 6, 4), (2, 3, 5, 4), "a.permute_dims((1, 0, 2, 3)) @ b.permute_dims((1, 0, 3, 2))"),
    ((7,), (7,), "a @ b"),
    ((3, 7), (7,), "a @ b"),
    ((1, 7), (7, 1), "a @ b"),
]


@pytest.mark.parametrize("dtype", [tg.float32, tg.float64, tg.bfloat16], ids=str)
@pytest.mark.parametrize(("one", "two", "text"), PRODUCTS)
def test_products(
    library: list[Library], one: tuple[int, ...], two: tuple[int, ...], text: str, dtype: Any
) -> None:
    draw = np.random.default_rng(2)
    first, second = (draw.normal(size=shape) for shape in (one, two))

    def gradients(a: tg.Tensor, b: tg.Tensor) -> list[tg.Tensor]:
        y = eval(text, {"a": a, "b": b})
        return [y.detach(), *tg.autograd.grad((y * y).sum(), (a, b))]

    def given(device: str) -> list[tg.Tensor]:
        return [
            tg.Tensor(x, dtype=dtype, device=device, requires_grad=True) for x in (first, second)
        ]

    compiled = tg.compile(gradients)
    wanted = gradients(*given("cpu"))
    rtol, atol = (2e-2, 1e-1) if dtype == tg.bfloat16 else (1e-4, 1e-5)
    for _ in range(3):
        found = compiled(*given("cuda"))
        for x, y in zip(found, wanted, strict=True):
            assert x.dtype == y.dtype
            a, b = (host(t).astype(np.float64) for t in (x, y))
            np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)
    if len(one) + len(two) > 2:  # else the product is a sum
        assert library[0].computed
        kind = gemm.CUDA_TYPES[dtype]
        assert library[0].kinds == {(kind, kind)}
    assert "one graph" in compiled.report()


@pytest.mark.parametrize("dtype", [tg.float16, tg.bfloat16], ids=str)
def test_a_step_in_16_bits_is_one_graph(library: list[Library], dtype: Any) -> None:
    """No call, no product of float32; and the numbers are those of eager mode."""
    draw = np.random.default_rng(3)
    x = tg.Tensor(draw.normal(size=(8, 6)), dtype=tg.float32, device="cuda")
    t = tg.Tensor(draw.integers(0, 3, 8), device="cuda")
    ends = []
    for compiled in (False, True):
        tg.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Linear(16, 5), nn.ReLU()).to("cuda")
        head = nn.Linear(5, 3, device="cuda")
        update = optim.SGD([*model.parameters(), *head.parameters()], lr=0.1, momentum=0.9)

        def step(x: tg.Tensor, t: tg.Tensor, m: Any = model, h: Any = head, u: Any = update) -> Any:
            u.zero_grad()
            with tg.autocast(dtype):
                loss = nn.functional.cross_entropy(h(m(x)), t)
            loss.backward()
            u.step()
            return loss

        run: Any = tg.compile(step) if compiled else step
        ends.append([run(x, t).item() for _ in range(5)])
        if compiled:
            runs_on_cuda(run)
            report = run.report()
            assert "segment 0" in report
            assert "call " not in report, report
            assert "one graph" in report
    kind = gemm.CUDA_TYPES[dtype]
    assert library[0].kinds <= {(kind, kind), (kind, 0)}
    np.testing.assert_allclose(ends[1], ends[0], rtol=5e-3)


def test_precision_is_switched_after_capture(library: list[Library]) -> None:
    a, b = (tg.ones((4, 4), device="cuda") for _ in range(2))
    step = tg.compile(lambda a, b: a @ b + 1.0)
    try:
        for precision, kinds in [("highest", {68}), ("high", {77}), ("highest", {68})]:
            tg.set_float32_matmul_precision(precision)
            for _ in range(3):
                library[0].precisions.clear() if library else None
                np.testing.assert_allclose(host(step(a, b)), 5.0)
                runs_on_cuda(step)
            assert library[0].precisions == kinds
        assert step.captures == 2
    finally:
        tg.set_float32_matmul_precision("highest")


# --- streams and threads --------------------------------------------------------------------------


def chained(seed: int) -> tuple[Any, tg.Tensor, Any]:
    """A program with products and a gradient, its input, and the loss that it has."""
    draw = np.random.default_rng(seed)
    w = tg.Tensor(draw.normal(size=(4, 4)), device="cuda", requires_grad=True)
    x = tg.Tensor(draw.normal(size=(3, 4)), device="cuda")

    def step(x: tg.Tensor) -> tg.Tensor:
        w.grad = None
        loss = tg.tanh(tg.tanh(x @ w) @ w).sum()
        loss.backward()
        return loss

    return tg.compile(step), x, step(x).item()


def test_streams_wait_for_each_other(library: list[Library]) -> None:
    """A program's memory is used on one stream after the other; each has graphs of its own."""
    step, x, wanted = chained(0)
    one, two = (cupy_standin.Stream(non_blocking=True) for _ in range(2))
    for stream in (one, one, two, two, one, two):
        with stream:
            assert step(x).item() == pytest.approx(wanted, rel=1e-5)
    log.clear()
    order = [one, one, two, one, two, two]
    for stream in order:
        with stream:
            assert step(x).item() == pytest.approx(wanted, rel=1e-5)
    turns = [(b.ptr, a.ptr) for a, b in zip([two, *order], order) if a is not b]
    assert log.waits == turns
    assert log.graphs == len(order) + 1  # the eighth call is checked, and rehearses
    runs_on_cuda(step)
    assert "one graph" in step.report()
    assert not step._last().executor.reason


def test_streams_have_workspaces_of_their_own(library: list[Library]) -> None:
    """Graphs of two programs may run at once, if they are launched on two streams."""
    rooms: dict[int, set[int]] = {}
    for number in range(2):
        step, x, _ = chained(number)
        with cupy_standin.Stream(non_blocking=True):
            library[0].told.clear() if library else None
            for _ in range(3):
                step(x)
        rooms[number] = {room for _, what, room in library[0].told if what == "workspace"}
        assert len(rooms[number]) == 1
    assert not rooms[0] & rooms[1]


def test_threads_take_turns_with_cublas(library: list[Library]) -> None:
    """Nobody sets the stream of a handle between another thread's setting it and its products."""
    made = [chained(number) for number in range(2)]
    for step, x, _ in made:
        step(x)
    library[0].slow = 0.005
    found: list[float] = []

    def run(step: Any, x: tg.Tensor) -> None:
        with cupy_standin.Stream(non_blocking=True):
            found.extend(step(x).item() for _ in range(4))

    threads = [threading.Thread(target=run, args=(step, x)) for step, x, _ in made]
    library[0].told.clear()
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert sorted(found) == pytest.approx(sorted([w for _, _, w in made] * 4), rel=1e-5)
    told = library[0].told
    assert len({thread for thread, _, _ in told}) == 2
    holder = 0
    for thread, what, _ in told:
        if what == "stream":
            holder = thread
        assert thread == holder


def test_tables_of_an_optimizer_are_waited_for() -> None:
    """They are sent on the stream of the first step, and used on the next one's."""
    w = tg.ones((5,), device="cuda", requires_grad=True)
    update = optim.Adam([w], lr=0.1)
    one, two = (cupy_standin.Stream(non_blocking=True) for _ in range(2))
    for stream, waits in [(one, 0), (one, 0), (two, 1), (two, 0), (one, 1)]:
        log.clear()
        with stream:
            w.grad = tg.ones((5,), device="cuda")
            update.step()
        assert log.waits == [(stream.ptr, (two if stream is one else one).ptr)] * waits


# --- training -------------------------------------------------------------------------------------


def test_updates_of_parameters_are_one_launch() -> None:
    """Of equal shapes they are one nest, whose parts of the states lie apart; nests go beside each
    other. Another launch has what all of them need, the corrections of Adam's step."""
    draw = np.random.default_rng(5)
    shapes = [(6, 6)] * 5 + [(6, 4), (4, 6), (6, 6)]
    start = [draw.normal(size=shape) for shape in shapes]
    ends = []
    for compiled in (False, True):
        parameters = [tg.Tensor(x, device="cuda", requires_grad=True) for x in start]
        update = optim.Adam(parameters, lr=0.1)

        def step(x: tg.Tensor, ps: Any = parameters, u: Any = update) -> tg.Tensor:
            u.zero_grad()
            for p in ps:
                x = tg.tanh(x @ p)
            loss = x.sum()
            loss.backward()
            u.step()
            return loss

        run: Any = tg.compile(step) if compiled else step
        for k in range(7):
            run(tg.Tensor(np.linspace(-1, 1, 18).reshape(3, 6) + k / 10, device="cuda"))
        ends.append([host(p) for p in parameters])
    for a, b in zip(*ends, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    runs_on_cuda(run)
    groups = run._last().executor.source.groups
    written = [
        sum(
            m.out.storage.role == "external" for u in group if isinstance(u, Nest) for m in u.stored
        )
        for group in groups
    ]
    assert [n for n in written if n] == [1, 3 * len(shapes)]


@pytest.mark.parametrize("kind", ["momentum", "Adam", "RMSprop"])
def test_training(kind: str, library: list[Library]) -> None:
    """Dropout, clipping and a schedule in a compiled step, beside eager mode on the same device."""
    draw = np.random.default_rng(3)
    x = tg.Tensor(draw.normal(size=(8, 6)), device="cuda")
    t = tg.Tensor(draw.integers(0, 3, 8), device="cuda")
    ends = []
    for compiled in (False, True):
        tg.manual_seed(0)
        layers = [nn.Linear(6, 16), nn.LayerNorm(16), nn.GELU(), nn.Dropout(0.3), nn.Linear(16, 3)]
        model = nn.Sequential(*layers).to("cuda")
        update: Any
        if kind == "momentum":
            update = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        else:
            update = getattr(optim, kind)(model.parameters(), lr=0.01)

        def step(x: tg.Tensor, t: tg.Tensor, model: Any = model, update: Any = update) -> tg.Tensor:
            update.zero_grad()
            loss = nn.functional.cross_entropy(model(x), t)
            loss.backward()
            optim.clip_grad_norm_(model.parameters(), 1.0)
            update.step()
            return loss

        run: Any = tg.compile(step) if compiled else step
        losses = []
        for k in range(5):
            update.param_groups[0]["lr"] *= 0.9 if k else 1.0
            losses.append(run(x, t).item())
        ends.append((losses, [host(p) for p in model.parameters()]))
        if compiled:
            assert run.captures == 1
            assert run._last().executor.name == "cuda"
    np.testing.assert_allclose(ends[1][0], ends[0][0], rtol=1e-4)
    for a, b in zip(ends[1][1], ends[0][1], strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-5)


def test_a_wrong_label_makes_nan() -> None:
    """As eager mode does on a GPU, where nobody waits for labels."""
    x = tg.Tensor(np.eye(3), device="cuda", requires_grad=True)

    def step(t: tg.Tensor) -> tg.Tensor:
        x.grad = None
        loss = nn.functional.cross_entropy(x, t)
        loss.backward()
        return loss

    compiled = tg.compile(step)
    assert np.isfinite(compiled(tg.Tensor([0, 1, 2], device="cuda")).item())
    assert np.isnan(compiled(tg.Tensor([0, 3, 2], device="cuda")).item())
    assert np.isnan(host(x.grad)).any(axis=1).tolist() == [False, True, False]


def test_on_another_gpu() -> None:
    w = tg.Tensor(np.ones(4), device="cuda:1", requires_grad=True)
    step = stepped(w)
    x = tg.Tensor(np.arange(4.0), device="cuda:1")
    first = [step(x).item() for _ in range(3)]
    assert first[0] == first[2]
    assert w.grad is not None
    assert w.grad.device == "cuda:1"
    assert "cuda:1" in step.report()


# --- NVRTC ----------------------------------------------------------------------------------------


@pytest.mark.skipif(missing() is not None, reason=missing() or "")
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_kernels_compile(arch: int) -> None:
    """A program with every kind of kernel, by the compiler for GPUs: no spill, no warning."""
    draw = np.random.default_rng(0)
    x = tg.Tensor(draw.normal(size=(40, 600)).astype(np.float32), device="cuda", requires_grad=True)
    t = tg.Tensor(draw.integers(0, 600, 40), device="cuda")
    norm = nn.LayerNorm(600).to("cuda")
    update = optim.Adam([x, *norm.parameters()], lr=0.01)

    def step(t: tg.Tensor) -> tg.Tensor:
        update.zero_grad()
        y = nn.functional.dropout(tg.gelu(norm(x)), 0.1, training=True)
        half, brain = (tg.exp(x.to(kind)) for kind in (tg.float16, tg.bfloat16))
        y = y * half.to(tg.float32) + brain.to(tg.float32)
        loss = nn.functional.cross_entropy(y, t) + (tg.tanh(x).T * 2.0).sum(axis=0).max()
        loss.backward()
        optim.clip_grad_norm_([x], 1.0)
        update.step()
        return loss

    compiled = tg.compile(step)
    compiled(t)
    runs_on_cuda(compiled)
    text = compiled._last().executor.text
    names = tuple(re.findall(r"void __launch_bounds__\(\d+, 1\) (\w+)", text))
    assert len(names) > 5
    assert "tg_words(" in text
    assert "column_reduce<" in text
    whole = f"{kernels.header('program')}\n{text}"
    # In a process of its own, where CuPy is the real one.
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        job = partial(compile_source, family="program", expected=names)
        result = pool.submit(job, whole, "float32", arch).result()
    assert not result.failures()
