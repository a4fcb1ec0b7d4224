"""Convolution and attention by cuDNN, on a stand-in that refuses what the library refuses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from emulator import emulator
from on_gpu import check, close, drawn, wide
from sampler import host
from standin import cudnn as library
from standin import cupy_standin
from standin.cupy_standin import log

import tensorgrad as tg
from bench import host_layers
from bench.gpu import rehearsal
from tensorgrad import nn, optim
from tensorgrad.backend import cudnn

DTYPES = pytest.mark.parametrize("dtype", [tg.float32, tg.float16, tg.bfloat16], ids=str)


@pytest.fixture(scope="module", autouse=True)
def installed() -> Iterator[Any]:
    with cupy_standin.installed(cudnn=True) as module:
        yield module


@pytest.fixture(autouse=True)
def _fresh() -> None:
    log.clear()
    library.planned.clear()
    library.executed.clear()
    library.kinds.clear()


# --- convolutions ---------------------------------------------------------------------------------

CONVOLUTIONS: dict[str, tuple[Any, tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "1d": (nn.functional.conv1d, (2, 4, 9), (6, 2, 3), {"padding": 1, "groups": 2}),
    "2d": (nn.functional.conv2d, (2, 3, 6, 5), (4, 3, 3, 3), {"padding": 1}),
    "2d left over": (
        nn.functional.conv2d, (2, 3, 8, 9), (4, 3, 3, 2), {"stride": (2, 3), "dilation": (2, 1)},
    ),
    "2d same": (nn.functional.conv2d, (2, 3, 5, 5), (4, 3, 2, 2), {"padding": "same"}),
    "3d": (nn.functional.conv3d, (1, 2, 3, 4, 5), (2, 2, 2, 1, 3), {"padding": (1, 0, 1)}),
}  # fmt: skip


@DTYPES
@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolutions_and_all_their_gradients(case: str, dtype: Any) -> None:
    function, x, w, options = CONVOLUTIONS[case]
    given = drawn(*x, dtype=dtype), drawn(*w, dtype=dtype), drawn(w[0], dtype=dtype)
    check(lambda *arrays: function(*arrays, **options), *given)
    assert library.executed == ["fprop", "dgrad", "wgrad"]
    assert library.kinds == {str(dtype)}


@DTYPES
def test_transposed_convolutions(dtype: Any) -> None:
    def function(x: Any, w: Any) -> Any:
        return nn.functional.conv_transpose2d(x, w, None, stride=2, padding=1, output_padding=1)

    check(function, drawn(2, 4, 3, 4, dtype=dtype), drawn(4, 3, 3, 3, dtype=dtype))
    assert library.executed == ["dgrad", "fprop", "wgrad"]
    assert library.kinds == {str(dtype)}


@DTYPES
def test_a_transposed_convolution_adds_its_bias(dtype: Any) -> None:
    given = [drawn(*shape, dtype=dtype) for shape in ((2, 4, 3), (4, 3, 3), (3,))]
    check(nn.functional.conv_transpose1d, *given)
    assert library.executed == ["dgrad", "fprop", "wgrad"]


def test_second_order() -> None:
    """What the gradients are computed by has gradients by cuDNN too."""

    def second(x: Any, w: Any) -> Any:
        y = nn.functional.conv2d(x, w, padding=1)
        gx, gw = tg.autograd.grad((y * y * y).sum(), [x, w], create_graph=True)
        return (gx * gx).sum() + (gw * gw).sum()

    x, w = drawn(2, 2, 4, 3), drawn(3, 2, 3, 3)
    found = tg.autograd.grad(second(x, w), [x, w])
    kinds = set(library.executed)
    inputs = [tg.Tensor(wide(a), dtype=tg.float64, requires_grad=True) for a in (x, w)]
    for got, wanted in zip(found, tg.autograd.grad(second(*inputs), inputs), strict=True):
        close(got, wide(wanted), tg.float32)
    assert kinds == {"fprop", "dgrad", "wgrad"}


def test_results_lie_as_inputs_do() -> None:
    """Channels last stay last; nothing is copied."""
    last = drawn(2, 5, 6, 4).detach().permute_dims(0, 3, 1, 2)
    w = drawn(3, 4, 3, 3)
    log.clear()
    y = nn.functional.conv2d(last, w, padding=1)
    assert log.names == ["cudnn_fprop"]
    assert y.data.transpose(0, 2, 3, 1).flags.c_contiguous
    close(y, wide(nn.functional.conv2d(last.cpu(), w.cpu(), padding=1)), tg.float32)


def test_channels_may_be_last_along_one_axis_too() -> None:
    last, w = drawn(2, 5, 4).detach().mT, drawn(3, 4, 3)
    y = nn.functional.conv1d(last, w, padding=1)
    assert y.data.transpose(0, 2, 1).flags.c_contiguous
    close(y, wide(nn.functional.conv1d(last.cpu(), w.cpu(), padding=1)), tg.float32)


@pytest.mark.parametrize("cut", ["channels", "misaligned", "repeated", "turned"])
def test_whatever_lies_otherwise_gives_the_same(cut: str) -> None:
    whole = drawn(2, 5, 7, 6).detach()
    x = {
        "channels": whole[:, 1:4],
        "misaligned": whole[0, :, 1:][None],
        "repeated": tg.broadcast_to(whole[:1, :1], (2, 3, 7, 6)),
        "turned": tg.flip(whole, axis=(3,)),
    }[cut]
    w = drawn(3, x.shape[1], 3, 3)
    y = nn.functional.conv2d(x, w)
    assert library.executed == ["fprop"]
    assert not cudnn.refused()
    close(y, wide(nn.functional.conv2d(x.cpu(), w.cpu())), tg.float32)


def test_plans_are_made_once_for_each_description() -> None:
    w = drawn(3, 2, 3, 3)
    for n in (1, 2, 1, 2, 1):
        nn.functional.conv2d(drawn(n, 2, 5, 5), w)
    assert (library.planned, library.executed) == (["fprop"] * 2, ["fprop"] * 5)


def test_plans_are_never_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are too many, others compute what is new."""
    monkeypatch.setattr(cudnn, "_PLANS", 2)
    cudnn.forget()
    w = drawn(3, 2, 3, 3)
    for n in (1, 2, 3, 1):
        nn.functional.conv2d(drawn(n, 2, 5, 5), w)
    assert (library.planned, library.executed) == (["fprop"] * 2, ["fprop"] * 3)
    assert list(cudnn.refused()) == ["whatever else"]
    cudnn.forget()


def test_equal_calls_give_equal_bits_and_float32_is_not_rounded() -> None:
    x, w = drawn(2, 3, 6, 6), drawn(4, 3, 3, 3)
    found = {host(nn.functional.conv2d(x, w)).tobytes() for _ in range(3)}
    assert len(found) == 1
    exact = nn.functional.conv2d(tg.Tensor(wide(x)), tg.Tensor(wide(w)))
    assert exact.dtype == tg.float64
    np.testing.assert_allclose(wide(nn.functional.conv2d(x, w)), wide(exact), atol=1e-6)
    try:
        tg.set_float32_matmul_precision("high")
        assert host(nn.functional.conv2d(x, w)).tobytes() not in found
    finally:
        tg.set_float32_matmul_precision("highest")


def test_an_infinity_stays_where_it_is() -> None:
    x = np.ones((1, 1, 8, 8), np.float32)
    x[0, 0, 0, 0] = np.inf
    y = host(nn.functional.conv2d(tg.Tensor(x, device="cuda"), drawn(1, 1, 3, 3)))
    assert np.isfinite(y).sum() == y.size - 1


def test_what_is_refused_is_computed_otherwise_and_the_reason_is_kept() -> None:
    x, w, b = drawn(2, 3, 5, 5), drawn(2, 3, 3, 3), drawn(2)
    library.MISSING.update(["fprop", "wgrad"])
    cudnn.forget()
    try:
        check(nn.functional.conv2d, x, w, b)
        reasons = cudnn.refused()
    finally:
        library.MISSING.clear()
        cudnn.forget()
    assert library.executed == ["dgrad"]
    assert list(reasons) == [
        "fprop of (2, 3, 5, 5), (2, 3, 3, 3) in float32",
        "wgrad of (2, 2, 3, 3), (2, 3, 5, 5) in float32",
    ]
    assert all("CUDNN_STATUS_NOT_SUPPORTED" in why for why in reasons.values())


def test_float64_and_what_has_no_elements_are_computed_otherwise() -> None:
    nn.functional.conv2d(drawn(1, 2, 4, 4, dtype=tg.float64), drawn(2, 2, 3, 3, dtype=tg.float64))
    assert nn.functional.conv2d(drawn(0, 2, 4, 4), drawn(2, 2, 3, 3)).shape == (0, 2, 2, 2)
    assert not library.executed


# --- streams, devices, absence --------------------------------------------------------------------


def test_it_runs_on_the_current_stream() -> None:
    x, w = drawn(2, 2, 5, 5), drawn(3, 2, 3, 3)
    y = nn.functional.conv2d(x, w)
    for stream in [cupy_standin.Stream(non_blocking=True) for _ in range(3)]:
        with stream:
            z = nn.functional.conv2d(x, w)
            stream.synchronize()
        np.testing.assert_array_equal(host(z), host(y))
        assert log.streams[stream.ptr] >= 1
    assert library.planned == ["fprop"]


@pytest.mark.skipif(emulator.available() is not None, reason="the emulator is missing")
def test_a_compiled_step_is_one_graph() -> None:
    """Workspaces and results lie in the program's memory; nothing is planned again."""
    draw = np.random.default_rng(0)
    images = draw.normal(size=(4, 1, 8, 8)).astype(np.float32)
    classes = draw.integers(0, 3, 4)
    found = []
    with rehearsal.installed(cudnn=True):
        x, t = tg.Tensor(images, device="cuda"), tg.Tensor(classes, device="cuda")
        for compiled in (False, True):
            tg.manual_seed(0)
            model = nn.Sequential(
                nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, stride=2),
                nn.Flatten(), nn.Linear(27, 3),
            ).to("cuda")  # fmt: skip
            update = optim.SGD(model.parameters(), lr=0.1)

            def step(x: Any, t: Any, model: Any = model, update: Any = update) -> Any:
                update.zero_grad()
                loss = nn.functional.cross_entropy(model(x), t)
                loss.backward()
                update.step()
                return loss

            run: Any = tg.compile(step) if compiled else step
            losses = []
            for _ in range(7):
                log.clear()
                losses.append(run(x, t).item())
            found.append(losses)
        assert (log.graphs, log.allocations, log.uploads) == (1, 0, 0)
        assert sorted(library.planned) == ["dgrad", "fprop", "fprop", "wgrad", "wgrad"]
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5)


@pytest.mark.skipif(emulator.available() is not None, reason="the emulator is missing")
def test_reports_say_what_was_refused() -> None:
    library.MISSING.add("fprop")
    try:
        with rehearsal.installed(cudnn=True):
            x, w = drawn(2, 3, 8, 8).detach(), drawn(4, 3, 5, 5).detach()
            run: Any = tg.compile(lambda x, w: tg.tanh(nn.functional.conv2d(x, w)))
            wanted = host(nn.functional.conv2d(x, w).tanh())
            for _ in range(5):
                np.testing.assert_allclose(host(run(x, w)), wanted, rtol=1e-5)
            report = run.report()
    finally:
        library.MISSING.clear()
    refused = "cuDNN refused fprop of (2, 3, 8, 8), (4, 3, 5, 5) in float32, which kernels of ours"
    assert f"{refused} compute: cudnnGraphNotSupportedError" in report
    assert not library.executed


@pytest.mark.parametrize(
    ("layer", "calls", "launches", "arrays"),
    [("a convolution", (66, 126), (1, 5), 9), ("attention", (60, 71), (1, 3), 8)],
)
def test_what_calls_cost_the_host(
    layer: str, calls: tuple[int, ...], launches: tuple[int, ...], arrays: int
) -> None:
    """Upper bounds, as in test_host_costs: with the layer, the tape and sums of gradients."""
    counter = host_layers.counted(layer, True)
    parts = counter.phases.values()
    assert all(p.python <= most for p, most in zip(parts, calls, strict=True)), counter.phases
    assert all(p.launches <= most for p, most in zip(parts, launches, strict=True)), counter.phases
    assert counter.total().allocations <= arrays
    assert not counter.total().waits


def test_each_device_has_a_handle() -> None:
    w = drawn(3, 2, 3, 3)
    y = nn.functional.conv2d(drawn(2, 2, 5, 5).to("cuda:1"), w.to("cuda:1"))
    close(y, wide(nn.functional.conv2d(drawn(2, 2, 5, 5), w)), tg.float32)
    assert library.executed == ["fprop"] * 2


@pytest.mark.parametrize("why", ["no package", "no library", "too old"])
def test_without_it_nothing_else_changes(why: str) -> None:
    version = library.version[0]
    library.absent.extend(["libcudnn.so.9 is not there"] * (why == "no library"))
    library.version[0] = 90000 if why == "too old" else version
    try:
        with cupy_standin.installed(cudnn=why != "no package"):
            check(nn.functional.conv2d, drawn(2, 3, 5, 5), drawn(2, 3, 3, 3), drawn(2))
            state = cudnn.state(cupy_standin.MODULE)
    finally:
        library.absent.clear()
        library.version[0] = version
    assert not library.executed
    wanted = {
        "no package": "cudnn",
        "no library": "libcudnn.so.9 is not there",
        "too old": "older than 9.1",
    }[why]
    assert state.startswith("not used: ")
    assert wanted in state
    assert "pip install nvidia-cudnn-frontend" in state


def test_it_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENSORGRAD_CUDNN", "0")
    with cupy_standin.installed(cudnn=True):
        nn.functional.conv2d(drawn(2, 3, 5, 5), drawn(2, 3, 3, 3))
        state = cudnn.state(cupy_standin.MODULE)
    assert not library.planned
    assert state == "not used: switched off by TENSORGRAD_CUDNN=0"


def test_its_versions_are_told() -> None:
    assert cudnn.state(cupy_standin.MODULE) == "9.28.1, frontend 1.32.0"
