"""What only a GPU can show: sharing memory with PyTorch, streams, size, the pool, TF32.

Skipped where there is none; compiled steps run on the stand-in for CuPy as well. The rest of the
suite runs on the GPU as one more device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from emulator import emulator

import tensorgrad as tg
from bench.gpu import checks, rehearsal
from bench.gpu.common import Skipped
from tensorgrad import nn, optim
from tensorgrad.backend import cuda_backend, cuda_is_available, cudnn
from tensorgrad.backend.cudnn_attention import attention
from tensorgrad.data import DataLoader, TensorDataset

GPU = [pytest.param("gpu", marks=pytest.mark.gpu)] if cuda_is_available() else []


def on_gpu(test: Callable[..., Any]) -> Any:
    without = pytest.mark.skipif(not cuda_is_available(), reason="there is no NVIDIA GPU")
    return pytest.mark.gpu(without(test))


# --- compiled steps, which fall back on nothing ---------------------------------------------------


@pytest.fixture(scope="module", params=["stand-in", *GPU])
def tiny(request: pytest.FixtureRequest) -> Iterator[bool]:
    """On the stand-in, and on the GPU: whether it is the former, which takes little."""
    if request.param == "stand-in" and (reason := emulator.available()) is not None:
        pytest.skip(reason)
    with nullcontext() if request.param == "gpu" else rehearsal.installed():
        yield request.param == "stand-in"


@pytest.mark.parametrize("name", checks.NAMES)
def test_check(name: str, tiny: bool) -> None:
    """Against eager steps; parameters that move, TF32 after capture, streams and threads."""
    try:
        assert "one graph" in checks.run(name, tiny)
    except Skipped as why:
        pytest.skip(str(why))


# --- eager ----------------------------------------------------------------------------------------


def torch_with_cuda() -> Any:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    if not torch.cuda.is_available():
        pytest.skip("PyTorch has no CUDA")
    return torch


@on_gpu
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "int64"])
def test_dlpack_with_torch_shares_memory(dtype: str) -> None:
    torch = torch_with_cuda()
    theirs = torch.arange(6, device="cuda").to(getattr(torch, dtype)).reshape(2, 3)
    ours = tg.from_dlpack(theirs)
    assert ours.device == "cuda:0"
    assert ours.dtype == getattr(tg, dtype)
    assert ours.data.data.ptr == theirs.data_ptr()
    back = torch.from_dlpack(ours)
    assert back.data_ptr() == theirs.data_ptr()
    theirs += 1
    assert ours.tolist() == back.tolist() == [[1, 2, 3], [4, 5, 6]]


@on_gpu
def test_cuda_array_interface_with_torch_shares_memory() -> None:
    torch = torch_with_cuda()
    theirs = torch.arange(4.0, device="cuda")
    ours = tg.Tensor(theirs, copy=None)
    assert ours.data.data.ptr == theirs.data_ptr()
    back = torch.as_tensor(ours, device="cuda")
    assert back.data_ptr() == theirs.data_ptr()


@on_gpu
def test_work_goes_to_the_current_stream() -> None:
    """In CuPy's current stream, and only there: it is all done when that one is."""
    cupy = cuda_backend().xp
    x = np.random.default_rng(0).normal(size=(512, 512)).astype(np.float32)
    expected = np.tanh(x @ x / 20)
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        y = tg.tensor(x, device="cuda")
        y = tg.tanh(y @ y / 20.0)
        stream.synchronize()
        np.testing.assert_allclose(y.data.get(), expected, atol=1e-4)


@on_gpu
def test_more_than_2_to_the_31_elements() -> None:
    cupy = cuda_backend().xp
    free, _ = cupy.cuda.runtime.memGetInfo()
    if free < 14 << 30:
        pytest.skip("14 GiB of the GPU's memory are needed")
    n = (1 << 31) + 5
    x = tg.zeros((n,), dtype=tg.float16, device="cuda")
    x.data[-3:] = cupy.asarray([-1, 2, 3], cupy.float16)
    y = tg.relu(x)
    assert y.data[-4:].get().tolist() == [0, 0, 2, 3]
    del x, y
    cupy.get_default_memory_pool().free_all_blocks()


def train(device: str, steps: int = 20) -> tuple[list[float], list[np.ndarray[Any, Any]]]:
    tg.manual_seed(0)
    draw = np.random.default_rng(0)
    data = TensorDataset(
        draw.normal(size=(256, 20)).astype(np.float32), draw.integers(0, 5, 256)
    )  # fmt: skip
    model = nn.Sequential(
        nn.Linear(20, 64), nn.GELU(), nn.Dropout(0.1), nn.Linear(64, 32), nn.ReLU(),
        nn.Linear(32, 5),
    ).to(device)  # fmt: skip
    update = optim.Adam(model.parameters(), lr=1e-2)
    criterion = nn.CrossEntropyLoss()
    losses = []
    for _ in range(steps // 4):
        for x, t in DataLoader(data, 64, True, seed=1, device=device):
            update.zero_grad()
            loss = criterion(model(x), t)
            loss.backward()
            update.step()
            losses.append(loss.item())
    return losses, [p.detach().cpu().numpy() for p in model.parameters()]


@on_gpu
def test_training_repeats_bit_for_bit_and_follows_the_cpu() -> None:
    first, weights = train("cuda")
    second, again = train("cuda")
    assert first == second
    for a, b in zip(weights, again):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(first, train("cpu")[0], rtol=2e-3)


@on_gpu
def test_the_pool_does_not_grow() -> None:
    """A step leaves nothing behind on the GPU."""
    pool = cuda_backend().xp.get_default_memory_pool()
    train("cuda")
    before = pool.used_bytes()
    train("cuda", 40)
    assert pool.used_bytes() <= before + (1 << 16)


@on_gpu
def test_tf32_is_what_was_asked_for() -> None:
    """With it, products of float32 are rounded to 10 bits, and not otherwise."""
    x = np.random.default_rng(0).normal(size=(256, 256)).astype(np.float32)
    exact = x.astype(np.float64) @ x
    y = tg.tensor(x, device="cuda")
    before = tg.get_float32_matmul_precision()
    try:
        tg.set_float32_matmul_precision("highest")
        error = abs((y @ y).cpu().numpy() - exact).max()
        assert error < 1e-4
        tg.set_float32_matmul_precision("high")
        assert abs((y @ y).cpu().numpy() - exact).max() > 10 * error
    finally:
        tg.set_float32_matmul_precision(before)


# --- products with epilogues ----------------------------------------------------------------------


@on_gpu
@pytest.mark.parametrize("dtype", [tg.float32, tg.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["relu", "gelu_tanh"])
def test_epilogues_of_products(name: str, dtype: Any) -> None:
    """cublasLt itself, where it is installed: two layers forward and backward beside the CPU."""
    if not cuda_backend().epilogues:
        pytest.skip("nvmath-python is not installed")
    draw = np.random.default_rng(0)
    shapes = ((64, 50), (160, 50), (160,), (248, 160), (248,))
    arrays = [draw.normal(size=shape) / 8 for shape in shapes]
    ends = []
    for device in ("cpu", "cuda"):
        x, w1, b1, w2, b2 = (
            tg.Tensor(a, dtype=dtype, device=device, requires_grad=True) for a in arrays
        )
        y = tg.linear_activation(tg.linear_activation(x, w1, b1, name), w2, b2, name)
        y.square().sum().backward()
        ends.append([y, *[t.grad for t in (x, w1, b1, w2, b2)]])
    tolerance = 1e-4 if dtype == tg.float32 else 5e-2
    for one, other in zip(*ends, strict=True):
        assert one is not None
        assert other is not None
        wanted = one.detach().numpy().astype(np.float64)
        found = other.detach().cpu().numpy().astype(np.float64)
        scale = max(1.0, float(np.abs(wanted).max()))
        np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * scale)


# --- cuDNN ----------------------------------------------------------------------------------------


def _by_cudnn(function: Any, arrays: Any, dtype: Any) -> None:
    """Value and gradients beside float64 on the CPU; equal calls give equal bits, and nothing is
    refused."""
    if cudnn.state(cuda_backend().xp).startswith("not used"):
        pytest.skip(cudnn.state(cuda_backend().xp))
    cudnn.forget()
    ends = []
    for device, kind in (("cpu", tg.float64), ("cuda", dtype), ("cuda", dtype)):
        inputs = [tg.Tensor(a, dtype=dtype).astype(kind).to(device).detach() for a in arrays]
        for x in inputs:
            x.requires_grad = True
        y = function(*inputs)
        y.backward(tg.ones(y.shape, dtype=kind, device=device))
        ends.append([x.detach().cpu().numpy() for x in (y, *[x.grad for x in inputs])])
    assert not cudnn.refused()
    tolerance = {tg.float32: 1e-5, tg.float16: 4e-3, tg.bfloat16: 3e-2}[dtype]
    for wanted, found, again in zip(*ends, strict=True):
        np.testing.assert_array_equal(found, again)
        scale = max(1.0, float(np.abs(wanted).max()))
        wide = found.astype(np.float64)
        np.testing.assert_allclose(wide, wanted, rtol=0, atol=tolerance * scale)


@on_gpu
@pytest.mark.parametrize("dtype", [tg.float32, tg.float16, tg.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("x", "w", "options"),
    [
        ((4, 16, 17, 19), (24, 16, 3, 3), {"padding": 1}),
        ((4, 16, 17, 19), (24, 8, 3, 2), {"stride": (2, 1), "dilation": (1, 2), "groups": 2}),
        ((4, 16, 17, 19), (24, 16, 1, 1), {}),
        ((4, 16, 17, 19), (24, 16, 2, 2), {"padding": "same"}),
    ],
)
def test_convolutions_by_cudnn(x: Any, w: Any, options: dict[str, Any], dtype: Any) -> None:
    draw = np.random.default_rng(0)
    arrays = [draw.normal(size=shape) / 4 for shape in (x, w, w[:1])]
    _by_cudnn(lambda *given: nn.functional.conv2d(*given, **options), arrays, dtype)


@on_gpu
@pytest.mark.parametrize("dtype", [tg.float16, tg.bfloat16], ids=str)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("heads", "few"), [(4, 4), (4, 2)])
def test_attention_by_cudnn(heads: int, few: int, causal: bool, dtype: Any) -> None:
    draw = np.random.default_rng(0)
    shapes = (2, heads, 65, 64), (2, few, 129, 64), (2, few, 129, 64)

    def function(q: Any, k: Any, v: Any) -> Any:
        return nn.functional.scaled_dot_product_attention(
            q, k, v, is_causal=causal, enable_gqa=heads != few
        )

    _by_cudnn(function, [draw.normal(size=shape) for shape in shapes], dtype)


@on_gpu
def test_the_sums_of_cudnn_and_of_ours_are_the_same() -> None:
    """Either may go backward from what the other has kept."""
    draw = np.random.default_rng(0)
    shapes = ((2, 3, n, 64) for n in (33, 65, 65))
    q, k, v = (tg.Tensor(draw.normal(size=s), dtype=tg.float16, device="cuda") for s in shapes)
    found = attention(cuda_backend().xp, q.data, k.data, v.data, True, 0.125)
    if found is None:
        pytest.skip(cudnn.state(cuda_backend().xp))
    scores = (q.astype(tg.float32) @ k.astype(tg.float32).mT) * 0.125
    seen = tg.arange(33, device="cuda")[:, None] >= tg.arange(65, device="cuda")
    wanted = tg.log(tg.sum(tg.exp(tg.where(seen, scores, -math.inf)), axis=-1, keepdims=True))
    np.testing.assert_allclose(found[1].get(), wanted.cpu().numpy(), rtol=1e-3, atol=1e-3)
